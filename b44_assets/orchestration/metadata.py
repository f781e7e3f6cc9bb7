"""Results of the engine as Dagster metadata."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import dagster as dg

from b44_assets.catalog import Spec
from b44_assets.engine.ddl import SchemaChange
from b44_assets.engine.drift import SchemaDrift
from b44_assets.engine.health import (
    ConstraintsValid,
    ForeignKeysHold,
    IndexesValid,
    PublishPermissions,
    SlugsRegistered,
    ViewEqualsQuery,
    ViewFresh,
)
from b44_assets.engine.loading import Load
from b44_assets.engine.partitioning import BoundsCheck, GlobalIds, PartitionSet
from b44_assets.engine.plans import QueryPlans
from b44_assets.engine.proving import Applied, ContentParity, RowParity
from b44_assets.engine.staging import StagedExport
from b44_assets.engine.tables import TableDescription
from b44_assets.engine.upkeep import IndexUsage

LISTED = 50
"""How many lines a table of metadata has at most."""


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
        metadata["quarantine_preview"] = _table(
            ("record", "base44_id", "reasons"), [(number, key or "", reasons) for number, key, reasons in load.preview]
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
        metadata["preview"] = _table(("base44_id", "why", "columns"), list(applied.first))
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
        "edited_since": parity.edited,
    }
    if parity.differences:
        metadata["differences"] = _table(
            ("record", "base44_id", "columns"),
            [(d.record_number, d.base44_id, ", ".join(d.columns) or "no row") for d in parity.differences],
        )
    return metadata


def of_change(change: SchemaChange) -> dict[str, Any]:
    """What was done to the schema."""
    done = {name: what for what in ("created", "replaced", "repaired", "unchanged") for name in getattr(change, what)}
    return {
        "created": len(change.created),
        "replaced": len(change.replaced),
        "repaired": len(change.repaired),
        "unchanged": len(change.unchanged),
        "online": change.online,
        "seconds": round(change.seconds, 3),
        "objects": _table(("object", "done"), sorted(done.items())),
    }


def of_partitions(done: PartitionSet) -> dict[str, Any]:
    """What was done to a table's partitions, and what they are now."""
    facts: dict[str, Any] = {
        "partitions": len(done.partitions),
        "made": len(done.made),
        "detached": len(done.detached),
        "size_bytes": sum(part.size for part in done.partitions),
        "seconds": round(done.seconds, 3),
        "by_partition": _table(
            ("partition", "bounds", "rows_estimated", "size_bytes"),
            [(part.name, part.bounds, part.rows, part.size) for part in reversed(done.partitions)],
        ),
    }
    if done.drained is not None:
        facts["rows_out_of_default"] = done.drained.rows
    return facts | _named(detached_partitions=done.detached)


def of_bounds(verdict: BoundsCheck) -> dict[str, Any]:
    """What is wrong with a table's partitions."""
    return {
        "partitions": verdict.partitions,
        "rows_in_default": sum(verdict.default_rows.values()),
        **_named(
            gaps=tuple(map(str, verdict.gaps)),
            overlaps=tuple(" and ".join(pair) for pair in verdict.overlaps),
            detaching=verdict.detaching,
            missing_remainders=verdict.missing_hashes,
            default_holds=tuple(f"{period}: {rows} rows" for period, rows in verdict.default_rows.items()),
        ),
    }


def of_global_ids(verdict: GlobalIds) -> dict[str, Any]:
    """Identifiers that stand in a table more than once."""
    return {
        "rows": verdict.rows,
        "repeated": verdict.repeated,
        **_named(examples=tuple(f"{one.id}: {', '.join(one.partitions)}" for one in verdict.examples)),
    }


def of_constraints(verdict: ConstraintsValid) -> dict[str, Any]:
    """How many constraints were looked at, and which are amiss."""
    return {"checked": verdict.checked, **_named(missing=verdict.missing, unproven=verdict.unproven)}


def of_indexes(verdict: IndexesValid) -> dict[str, Any]:
    """How many indexes were looked at, and which are amiss."""
    return {
        "checked": verdict.checked,
        **_named(missing=verdict.missing, invalid=verdict.invalid, incomplete=verdict.incomplete),
    }


def of_foreign_keys(verdict: ForeignKeysHold) -> dict[str, Any]:
    """References without a row, by foreign key."""
    return {
        "rows": verdict.rows,
        "orphans": sum(verdict.orphans.values()),
        "by_foreign_key": _table(("foreign_key", "orphans"), list(verdict.orphans.items())),
    }


def of_publish_permissions(verdict: PublishPermissions) -> dict[str, Any]:
    """Published posts of authors who may not publish."""
    return {
        "published": verdict.published,
        "forbidden": verdict.forbidden,
        **_named(examples=verdict.examples),
    }


def of_slugs(verdict: SlugsRegistered) -> dict[str, Any]:
    """Where registry and posts differ."""
    return {"posts": verdict.posts, "unregistered": verdict.unregistered, "left_over": verdict.left_over}


def of_view_fresh(verdict: ViewFresh) -> dict[str, Any]:
    """How old the view is."""
    facts: dict[str, Any] = {"populated": verdict.populated, "changed_since": verdict.changed_since}
    if verdict.refreshed_at is not None and verdict.age is not None:
        facts |= {
            "refreshed_at": dg.MetadataValue.timestamp(verdict.refreshed_at),
            "age_minutes": round(verdict.age.total_seconds() / 60, 1),
        }
    return facts


def of_view_equals_query(verdict: ViewEqualsQuery) -> dict[str, Any]:
    """How many rows differ."""
    return {"rows": verdict.rows, "differing": verdict.differing}


def of_query_plans(verdict: QueryPlans) -> dict[str, Any]:
    """Each query, the index that serves it, and the partitions that it reads."""
    return {
        "queries": len(verdict.plans),
        "index_chosen": sum(bool(plan.chosen) for plan in verdict.plans),
        "plans": _table(
            ("query", "passed", "index", "chosen", "partitions_read", "partitions"),
            [
                (
                    plan.name,
                    plan.passed,
                    ", ".join(plan.chosen or plan.usable),
                    bool(plan.chosen),
                    plan.read,
                    plan.partitions,
                )
                for plan in verdict.plans
            ],
        ),
    }


def of_drift(verdict: SchemaDrift) -> dict[str, Any]:
    """What differs from `sql/`."""
    return {
        "compared": verdict.compared,
        "different": len(verdict.differences),
        **_named(differences=verdict.differences),
    }


def of_index_usage(usage: IndexUsage) -> dict[str, Any]:
    """Sums over all indexes, and the largest of them."""
    return {
        "indexes": len(usage.indexes),
        "size_bytes": sum(index.size for index in usage.indexes),
        "unused": len(usage.unused),
        "unused_bytes": sum(index.size for index in usage.unused),
        **of_index_verdict(usage),
        "by_index": _table(
            ("table", "index", "size_bytes", "scans", "bloat_percent"),
            [
                (
                    index.table,
                    index.name,
                    index.size,
                    index.scans,
                    -1 if index.bloat is None else round(index.bloat * 100),
                )
                for index in usage.indexes
            ],
        ),
    }


def of_index_verdict(usage: IndexUsage) -> dict[str, Any]:
    """Which indexes repeat another, and which are bloated."""
    return {
        "duplicate": len(usage.duplicates),
        "bloated": len(usage.bloated),
        **_named(
            the_same=tuple(" = ".join(names) for names in usage.duplicates),
            bloated_indexes=tuple(index.name for index in usage.bloated),
        ),
    }


def of_rebuilt(names: tuple[str, ...]) -> dict[str, Any]:
    """Which indexes were rebuilt."""
    return {"rebuilt": len(names), **_named(indexes=names)}


def _named(**lists: tuple[str, ...]) -> dict[str, Any]:
    """Those lists of names that are not empty, each as a table of one column."""
    return {what: _table((what,), [(name,) for name in names]) for what, names in lists.items() if names}


def _table(columns: tuple[str, ...], rows: list[Any]) -> dg.TableMetadataValue:
    types = {bool: "bool", int: "int"}
    first = rows[0] if rows else ()
    return dg.MetadataValue.table(
        [dg.TableRecord(dict(zip(columns, row, strict=True))) for row in rows[:LISTED]],
        schema=dg.TableSchema(
            [
                dg.TableColumn(name, types.get(type(first[n]), "string") if first else "string")
                for n, name in enumerate(columns)
            ]
        ),
    )
