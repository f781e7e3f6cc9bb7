"""Staged exports, loads and their verification as metadata."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from b44_assets.config.quantities import month_text
from b44_assets.migration.content_parity import ContentParity
from b44_assets.migration.lineage import Origin
from b44_assets.migration.load import Load
from b44_assets.migration.staging import StagedExport
from b44_assets.migration.table_facts import Repaired
from b44_assets.migration.verification import Applied, RowParity
from b44_assets.orchestration.metadata import bars, counts_table, table


def of_export(staged: StagedExport) -> dict[str, Any]:
    """Dialect, counts and oddities of a staged export."""
    metadata: dict[str, Any] = {
        "file": staged.file or "none: the export has no such file",
        "dialect": staged.dialect,
        "records": staged.records,
        "dagster/row_count": staged.records - sum(staged.refused.values()),
        "refused": sum(staged.refused.values()),
        "staged_now": staged.changed,
        "dagster/column_schema": dg.TableSchema([dg.TableColumn(name, "text") for name in staged.fields]),
    }
    if staged.refused:
        metadata["refused_by_reason"] = counts_table(staged.refused, "reason")
    if staged.oddities:
        metadata["oddities"] = counts_table(staged.oddities, "oddity")
    return metadata


def of_load(load: Load) -> dict[str, Any]:
    """What became of the records of an entity."""
    plan = load.plan
    metadata: dict[str, Any] = {
        "read": plan.read,
        "migrated": load.migrated,
        "inserted_now": load.inserted,
        "deduplicated": plan.deduplicated,
        "quarantined": plan.quarantined,
        "repaired": sum(load.repairs.values()),
    }
    seconds = sum(part.seconds for part in load.partitions)
    if load.inserted and seconds:
        metadata["rows_per_second"] = round(load.inserted / seconds)
    if plan.reasons:
        metadata["quarantined_by_reason"] = counts_table(plan.reasons, "reason")
    if load.repairs:
        metadata["repaired_by_column"] = counts_table(load.repairs, "column")
    if load.preview:
        metadata["quarantine_preview"] = table(
            ("record", "base44_id", "reasons"), [(number, key or "", reasons) for number, key, reasons in load.preview]
        )
    return metadata


def of_repairs(repairs: Sequence[Repaired]) -> dict[str, Any]:
    """Repairs by column and rule."""
    if not repairs:
        return {}
    return {
        "repaired_by_rule": table(
            ("column", "rule", "records"), [(repair.column, repair.rule, repair.records) for repair in repairs]
        )
    }


def of_lineage(
    origins: Mapping[str, Sequence[Origin]], export: dg.AssetKey, fields: Mapping[str, str]
) -> dict[str, Any]:
    """Which exported fields and which columns of other tables each column comes from.

    Args:
        origins: By column of the target.
        export: The staged export.
        fields: The spelling that the export has of each field that the mapping reads; others are left out.
    """
    deps = {
        column: [
            dg.TableColumnDep(asset_key=dg.AssetKey(origin.table), column_name=origin.column)
            if origin.table is not None
            else dg.TableColumnDep(asset_key=export, column_name=fields[origin.column])
            for origin in found
            if origin.table is not None or origin.column in fields
        ]
        for column, found in origins.items()
    }
    return {"dagster/column_lineage": dg.TableColumnLineage({column: found for column, found in deps.items() if found})}


def of_months(done: Load) -> dict[str, Any]:
    """The records of each month as a picture."""
    months = [(part.partition_key, part.migrated) for part in done.partitions if part.partition_key is not None]
    if not months:
        return {}
    return {"rows_by_month": bars([(month_text(key), rows) for key, rows in months])}


def of_export_applied(applied: Applied) -> dict[str, Any]:
    """What was left alone, by kind, with the first of them."""
    metadata: dict[str, Any] = {
        "vanished": applied.vanished,
        "refused_in_newer_form": applied.refused,
        "conflicts": sum(applied.conflicts.values()),
    }
    if applied.conflicts:
        metadata["conflicts_by_kind"] = counts_table(applied.conflicts, "kind")
    if applied.first:
        metadata["preview"] = table(("base44_id", "why", "columns"), list(applied.first))
    return metadata


def of_row_parity(parity: RowParity) -> dict[str, Any]:
    """The sum, term by term."""
    return {
        "read": parity.read,
        "migrated": parity.migrated,
        "deduplicated": parity.deduplicated,
        "quarantined": parity.quarantined,
        "pending": parity.pending,
        "unaccounted": parity.unaccounted,
        "rows_from_the_migration": parity.held,
        "rows_of_the_new_system": parity.native,
    }


def of_content_parity(parity: ContentParity) -> dict[str, Any]:
    """How many rows were compared, and which differ."""
    metadata: dict[str, Any] = {
        "compared": parity.compared,
        "missing": parity.missing,
        "differing": parity.differing,
        "touched_since": parity.touched,
        "edited_since": parity.edited,
    }
    if parity.differences:
        metadata["differences"] = table(
            ("record", "base44_id", "columns"),
            [(d.record_number, d.base44_id, ", ".join(d.columns) or "no row") for d in parity.differences],
        )
    return metadata
