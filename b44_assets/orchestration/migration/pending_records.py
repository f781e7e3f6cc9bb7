"""The records that wait for their batch, as an operation: what is staged is planned anew, and counted."""

import dagster as dg

from b44_assets.catalog import Catalog
from b44_assets.config.quantities import month_text
from b44_assets.migration.pipeline import plan_again
from b44_assets.migration.progress import LoadProgress, load_progress
from b44_assets.orchestration.common import export_key, key_of
from b44_assets.orchestration.metadata import Metadata, table
from b44_assets.orchestration.operations import Operation, in_session
from b44_assets.session import Session


def of_pending(found: LoadProgress) -> Metadata:
    """What waits, by table and month."""
    facts: Metadata = {
        "waiting": sum(part.records for part in found.pending),
        "tables_planned": len(found.planned),
    }
    if found.pending:
        facts["by_table_and_month"] = table(
            ("table", "month", "records"),
            [
                (part.table, "" if part.partition_key is None else month_text(part.partition_key), part.records)
                for part in found.pending
            ],
        )
    return facts


def _planned_anew(_: dg.AssetExecutionContext, session: Session) -> Metadata:
    plan_again(session)
    return of_pending(load_progress(session))


def _exports_and_plain_tables(catalog: Catalog) -> list[dg.AssetKey]:
    return [
        *(export_key(table) for table in catalog.mappings),
        *(key_of(table) for table in catalog.mappings if not catalog.is_monthly(table)),
    ]


PENDING_RECORDS = Operation(
    dg.AssetKey(["monitoring", "pending_work"]),
    "Records that wait for their batch, by table and month: what is staged is planned anew where its export, or what its"
    " mapping reads, has changed. The sensor pending_work then has them loaded.",
    in_session(_planned_anew),
    upstream=_exports_and_plain_tables,
)

OPERATIONS = (PENDING_RECORDS,)
