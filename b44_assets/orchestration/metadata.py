"""Results of the engine as Dagster metadata."""

from __future__ import annotations

from base64 import b64encode
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from html import escape
from typing import Any

import dagster as dg

from b44_assets.backup.drill import Drill
from b44_assets.backup.model import Backup
from b44_assets.backup.retention import Expiry
from b44_assets.backup.service import BackedUp
from b44_assets.backup.wal_archive import Shipped
from b44_assets.catalog import Spec
from b44_assets.config.quantities import month_text
from b44_assets.maintenance.index_maintenance import IndexUsage
from b44_assets.maintenance.query_plans import QueryPlans
from b44_assets.maintenance.size_metrics import Repaired, Sizes
from b44_assets.maintenance.vacuum import Sweep
from b44_assets.migration.lineage import Origin
from b44_assets.migration.load import Load
from b44_assets.migration.progress import Standing
from b44_assets.migration.staging import StagedExport
from b44_assets.migration.verification import Applied, ContentParity, RowParity
from b44_assets.schema.drift import SchemaDrift
from b44_assets.schema.health import (
    ConstraintsValid,
    ForeignKeysHold,
    IndexesValid,
    ViewEqualsQuery,
    ViewFresh,
)
from b44_assets.schema.introspection import TableDescription
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partitions import BoundsCheck, GlobalIds, PartitionSet
from b44_assets.schema.row_checks import Violations

LISTED = 50
"""How many lines a table of metadata has at most."""
_NAMED_BARS = 10
_SHORTEST_GROWTH_DAYS = 1 / 288


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


def of_repairs(repairs: Sequence[Repaired]) -> dict[str, Any]:
    """Repairs by column and rule."""
    if not repairs:
        return {}
    return {
        "repaired_by_rule": _table(
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


def of_standing(stands: Standing) -> dict[str, Any]:
    """What waits, by table and month."""
    facts: dict[str, Any] = {
        "waiting": sum(part.records for part in stands.pending),
        "tables_settled": len(stands.settled),
    }
    if stands.pending:
        facts["by_table_and_month"] = _table(
            ("table", "month", "records"),
            [
                (part.table, "" if part.partition_key is None else month_text(part.partition_key), part.records)
                for part in stands.pending
            ],
        )
    return facts


def of_sweep(swept: Sweep) -> dict[str, Any]:
    """What was vacuumed and analyzed."""
    facts: dict[str, Any] = {
        "swept": len(swept.tables),
        "looked_at": swept.looked_at,
        "dead_rows": sum(one.dead_rows for one in swept.tables),
        "changed_rows": sum(one.changed_rows for one in swept.tables),
        "seconds": round(swept.seconds, 3),
    }
    if swept.tables:
        facts["by_table"] = _table(
            ("table", "dead_rows", "changed_rows"),
            [(one.name, one.dead_rows, one.changed_rows) for one in swept.tables],
        )
    return facts | _named(busy=swept.busy)


def of_sizes(sizes: Sizes, before: dg.EventLogEntry | None) -> dict[str, Any]:
    """Sizes as numbers, a number a table, so that each is plotted; and growth since the last time.

    Args:
        sizes: As measured now.
        before: The materialization before this one; None where there is none.
    """
    facts: dict[str, Any] = {
        "database_bytes": sizes.database_bytes,
        "tables_bytes": sum(table.bytes for table in sizes.tables),
        "index_bytes": sum(table.index_bytes for table in sizes.tables),
        **{f"{table.name}_bytes": table.bytes for table in sizes.tables},
        **{f"{table.name}_rows": table.rows for table in sizes.tables},
        "by_table": _table(
            ("table", "rows_estimated", "table_bytes", "index_bytes", "partitions"),
            [(one.name, one.rows, one.table_bytes, one.index_bytes, one.partitions) for one in sizes.tables],
        ),
    }
    if any(table.bytes for table in sizes.tables):
        facts["by_size"] = bars([(table.name, table.bytes) for table in sizes.tables])
    held = before.asset_materialization.metadata if before is not None and before.asset_materialization else {}
    was = held.get("database_bytes")
    if before is not None and was is not None and isinstance(was.value, int):
        facts["growth_bytes"] = sizes.database_bytes - was.value
        days = (datetime.now(UTC).timestamp() - before.timestamp) / 86_400
        # Over less than some minutes it would be a wild guess.
        if days > _SHORTEST_GROWTH_DAYS:
            facts["growth_bytes_per_day"] = round((sizes.database_bytes - was.value) / days)
    return facts


def bars(values: Sequence[tuple[str, int]]) -> dg.MarkdownMetadataValue:
    """Numbers by name as a picture: a bar each, drawn as SVG, with the names at the ends and the largest number."""
    width, height, top = 640, 120, 18
    largest = max(max(number for _, number in values), 1)
    step = width / len(values)
    drawn = "".join(
        f'<rect x="{n * step:.1f}" y="{top + height * (1 - number / largest):.1f}" width="{max(step - 1, 0.5):.1f}"'
        f' height="{height * number / largest:.1f}"><title>{escape(name)}: {number:,}</title></rect>'
        for n, (name, number) in enumerate(values)
    )
    text = '<text x="{}" y="{}" font-size="12" font-family="sans-serif" fill="#555" text-anchor="{}">{}</text>'
    names = [text.format(0, 12, "start", f"largest: {largest:,}")]
    if len(values) <= _NAMED_BARS:
        names += [
            text.format(round((n + 0.5) * step), top + height + 14, "middle", escape(name))
            for n, (name, _) in enumerate(values)
        ]
    else:
        names += [
            text.format(0, top + height + 14, "start", escape(values[0][0])),
            text.format(width, top + height + 14, "end", escape(values[-1][0])),
        ]
    picture = (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{top + height + 20}" fill="#4f43dd">'
        f"{drawn}{''.join(names)}</svg>"
    )
    encoded = b64encode(picture.encode()).decode()
    return dg.MetadataValue.md(f"![{len(values)} bars](data:image/svg+xml;base64,{encoded})")


def names_table(name: str, value: str, rows: Mapping[str, str]) -> dg.TableMetadataValue:
    """Texts by name as a table with two columns."""
    return _table((name, value), list(rows.items()))


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
        "touched_since": parity.touched,
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
    done |= {name: f"failed: {why}" for name, why in change.failed.items()}
    return {
        "created": len(change.created),
        "replaced": len(change.replaced),
        "repaired": len(change.repaired),
        "unchanged": len(change.unchanged),
        "failed": len(change.failed),
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


def of_violations(verdict: Violations) -> dict[str, Any]:
    """How many rows break a rule, and the first of them."""
    facts: dict[str, Any] = {"violations": verdict.count}
    if verdict.sample:
        rows = [tuple(row.values()) for row in verdict.sample]
        facts["sample"] = _table(tuple(verdict.sample[0]), rows)
    return facts


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
        "plan_texts": dg.MetadataValue.md(
            "\n\n".join(f"**{plan.name}**\n```\n{_cut(plan.text)}\n```" for plan in verdict.plans)
        ),
    }


def _cut(text: str) -> str:
    lines = text.splitlines()
    return "\n".join([*lines[:LISTED], *([f"… {len(lines) - LISTED} more lines"] if len(lines) > LISTED else [])])


def of_drift(verdict: SchemaDrift) -> dict[str, Any]:
    """What differs from `sql/`."""
    return {
        "compared": verdict.compared,
        "different": len(verdict.differences),
        "not_in_sql": len(verdict.restricting) + len(verdict.foreign),
        **_named(
            differences=verdict.differences, added_to_tables=verdict.restricting, of_the_application=verdict.foreign
        ),
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


def of_backup(done: BackedUp) -> dict[str, Any]:
    """A backup: what it is, and whether it was proven."""
    backup, proof = done.backup, done.backup.proof
    facts: dict[str, Any] = {
        "backup": backup.id,
        "bytes": backup.size,
        "seconds": (backup.ended_at - backup.began_at).total_seconds(),
        "rows": sum(table.rows for table in backup.state.tables.values()),
        "encrypted": backup.encrypted,
        "good": backup.good,
        "files": _table(("file", "bytes", "sha256"), [(file.name, file.size, file.sha256) for file in backup.files]),
    }
    if backup.parent is not None:
        facts["needs"] = backup.parent
    if proof is not None:
        facts["restored_in_seconds"] = proof.seconds
        facts |= _named(differences=proof.differences)
    if done.unproven is not None:
        facts["unproven"] = done.unproven
    return facts


def of_shipped(shipped: Shipped) -> dict[str, Any]:
    """WAL that was taken to the store."""
    return {
        "files": shipped.files,
        "bytes": shipped.bytes,
        "waiting": shipped.waiting.files,
        **_named(refused=shipped.refused),
    }


def of_catalogue(backups: Sequence[Backup], verified: int, expired: Expiry) -> dict[str, Any]:
    """What the store holds, and what has gone."""
    rows = [
        (one.id, one.database, one.size, one.parent or "", "yes" if one.good else "no")
        for one in reversed(backups[-LISTED:])
    ]
    return {
        "backups": len(backups),
        "good": sum(one.good for one in backups),
        "bytes": sum(one.size for one in backups),
        "verified_now": verified,
        "removed": len(expired.backups),
        "removed_bytes": expired.size,
        "newest": _table(("backup", "database", "bytes", "needs", "good"), rows),
    }


def of_drill(done: Drill) -> dict[str, Any]:
    """What a rehearsal of a recovery measured; numbers, so that the UI plots their history."""
    return {
        "backup": done.backup,
        "rpo_seconds": done.rpo_seconds,
        "rto_seconds": done.rto_seconds,
        "lost_transactions": done.lost_transactions,
        "tables": done.tables,
        "rows": done.rows,
    }


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
