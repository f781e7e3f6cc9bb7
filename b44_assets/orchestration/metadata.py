"""Results of the engine as Dagster metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from b44_assets.catalog import Spec
from b44_assets.engine.loading import Load
from b44_assets.engine.proving import ContentParity, RowParity
from b44_assets.engine.staging import StagedExport
from b44_assets.engine.tables import TableDescription


def code_reference(spec: Spec) -> dict[str, Any]:
    """A link to the SQL file."""
    return {
        "dagster/code_references": dg.CodeReferencesMetadataValue(
            code_references=[dg.LocalFileCodeReference(file_path=str(spec.path.resolve()), line_number=1)]
        )
    }


def counts_table(counts: Mapping[str, int], name: str) -> dg.TableMetadataValue:
    """Counts by name as a table with two columns, the largest first."""
    rows = sorted(counts.items(), key=lambda item: (-item[1], item[0]))
    return dg.MetadataValue.table(
        [dg.TableRecord({name: key, "records": count}) for key, count in rows],
        schema=dg.TableSchema([dg.TableColumn(name, "string"), dg.TableColumn("records", "int")]),
    )


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
    settlement = load.settlement
    metadata: dict[str, Any] = {
        "read": settlement.read,
        "migrated": load.migrated,
        "inserted_now": load.inserted,
        "deduplicated": settlement.deduplicated,
        "quarantined": settlement.quarantined,
        "repaired": sum(load.repairs.values()),
    }
    seconds = sum(part.seconds for part in load.partitions)
    if load.inserted and seconds:
        metadata["rows_per_second"] = round(load.inserted / seconds)
    if settlement.reasons:
        metadata["quarantined_by_reason"] = counts_table(settlement.reasons, "reason")
    if load.repairs:
        metadata["repaired_by_column"] = counts_table(load.repairs, "column")
    if load.preview:
        metadata["quarantine_preview"] = dg.MetadataValue.table(
            [
                dg.TableRecord({"record": number, "base44_id": key or "", "reasons": reasons})
                for number, key, reasons in load.preview
            ],
            schema=dg.TableSchema(
                [
                    dg.TableColumn("record", "int"),
                    dg.TableColumn("base44_id", "string"),
                    dg.TableColumn("reasons", "string"),
                ]
            ),
        )
    return metadata


def of_table(description: TableDescription) -> dict[str, Any]:
    """Columns, rows and size of a table."""
    return {
        "dagster/table_name": f"public.{description.name}",
        "dagster/row_count": description.rows,
        "size_bytes": description.size,
        "dagster/column_schema": dg.TableSchema(
            [
                dg.TableColumn(
                    column.name,
                    column.type,
                    description=column.comment,
                    constraints=dg.TableColumnConstraints(nullable=not column.required, unique=column.unique),
                )
                for column in description.columns
            ]
        ),
    }


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
        "edited_since": parity.edited,
    }
    if parity.differences:
        metadata["differences"] = dg.MetadataValue.table(
            [
                dg.TableRecord(
                    {"record": d.record_number, "base44_id": d.base44_id, "columns": ", ".join(d.columns) or "no row"}
                )
                for d in parity.differences
            ],
            schema=dg.TableSchema(
                [
                    dg.TableColumn("record", "int"),
                    dg.TableColumn("base44_id", "string"),
                    dg.TableColumn("columns", "string"),
                ]
            ),
        )
    return metadata
