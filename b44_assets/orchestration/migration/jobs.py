"""The jobs that move records, and the one that verifies them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import dagster as dg

from b44_assets.catalog import Catalog
from b44_assets.orchestration.common import EXECUTOR, LOAD_TAGS, MAINTENANCE_TAGS, VERIFY_JOB, export_key, key_of
from b44_assets.orchestration.migration.assets import UNMAPPED_KEY
from b44_assets.orchestration.migration.pending_records import PENDING_RECORDS
from b44_assets.orchestration.operations import AnyOperation

MIGRATE_JOB = "migrate_everything"
DELTA_JOB = "delta"
REPLAY_JOB = "replay"


def build_jobs(catalog: Catalog, operations: Sequence[AnyOperation]) -> dict[str, Any]:
    """Every job on records, by name.

    Args:
        catalog: The files of `sql/`.
        operations: Of all domains; those that are no part of a migration are left out of it.
    """
    others = [key for operation in operations if not operation.part_of_migration for key in operation.keys]
    tables = [key_of(table) for table in catalog.mappings]
    # The UI asks for partitions wherever an asset has any.
    by_month = any(catalog.is_monthly(table) for table in catalog.mappings)
    months = " The UI asks for the months of tables by month: choose All, unless you mean some." if by_month else ""
    jobs = (
        dg.define_asset_job(
            MIGRATE_JOB,
            dg.AssetSelection.all() - dg.AssetSelection.assets(*others),
            description="From the folder of exports to verified tables: every asset and every check." + months,
            tags=LOAD_TAGS,
            executor_def=EXECUTOR,
        ),
        dg.define_asset_job(
            DELTA_JOB,
            dg.AssetSelection.assets(
                *(export_key(table) for table in catalog.mappings), *tables, UNMAPPED_KEY, PENDING_RECORDS.key
            ),
            description="Only the records: stages the exports that have changed, loads what is new, and checks the tables."
            " The schema stays as it is. Sensors start it for the entities and months that are touched." + months,
            tags=LOAD_TAGS,
            executor_def=EXECUTOR,
        ),
        dg.define_asset_job(
            REPLAY_JOB,
            dg.AssetSelection.assets(*tables),
            description="Migrates what was corrected in migration.quarantine, and checks the tables. Nothing is staged anew."
            + months,
            tags=LOAD_TAGS,
            executor_def=EXECUTOR,
        ),
        dg.define_asset_job(
            VERIFY_JOB,
            dg.AssetSelection.all_asset_checks() - dg.AssetSelection.checks_for_assets(*others),
            description="Every check of records and schema, on what is in the database now. Those of the backups go with"
            " the backups. It makes nothing: start it under Launchpad, which asks for no months.",
            tags=MAINTENANCE_TAGS,
            executor_def=EXECUTOR,
        ),
    )
    return {job.name: job for job in jobs}
