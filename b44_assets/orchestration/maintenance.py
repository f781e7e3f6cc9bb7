"""What keeps a database in shape: statistics and dead rows, bloated indexes. Each is one object, listed in OPERATIONS."""

from collections.abc import Mapping
from datetime import timedelta

import dagster as dg

from b44_assets.catalog import Kind
from b44_assets.config.settings import Settings
from b44_assets.maintenance.index_maintenance import IndexUsage, index_usage, reindex_bloated
from b44_assets.maintenance.vacuum import Vacuumed, vacuum_changed
from b44_assets.orchestration.common import Answer, key_of
from b44_assets.orchestration.metadata import Metadata, named_lists, table
from b44_assets.orchestration.operations import (
    AnyOperation,
    Measurement,
    Operation,
    ScheduledJob,
    all_tables,
    in_session,
)

NIGHTLY = ScheduledJob(
    "statistics",
    "VACUUM and ANALYZE of the tables that have changed enough since the last time.",
    cron="30 3 * * *",
    schedule="Every night: what the planner knows, and dead rows.",
    overdue_after=timedelta(hours=26),
)
WEEKLY = ScheduledJob(
    "maintenance",
    "Looks at every index, and rebuilds the bloated ones while they are in use.",
    cron="0 4 * * 0",
    schedule="On Sundays: bloated indexes.",
    overdue_after=timedelta(days=8),
)


def of_vacuum(done: Vacuumed) -> Metadata:
    """What was vacuumed and analyzed."""
    facts: Metadata = {
        "vacuumed": len(done.tables),
        "looked_at": done.looked_at,
        "dead_rows": sum(one.dead_rows for one in done.tables),
        "changed_rows": sum(one.changed_rows for one in done.tables),
        "seconds": round(done.seconds, 3),
    }
    if done.tables:
        facts["by_table"] = table(
            ("table", "dead_rows", "changed_rows"),
            [(one.name, one.dead_rows, one.changed_rows) for one in done.tables],
        )
    return facts | named_lists(busy=done.busy)


def of_index_usage(usage: IndexUsage) -> Metadata:
    """Sums over all indexes, and the largest of them."""
    return {
        "indexes": len(usage.indexes),
        "size_bytes": sum(index.size for index in usage.indexes),
        "unused": len(usage.unused),
        "unused_bytes": sum(index.size for index in usage.unused),
        **_faulty_indexes(usage),
        "by_index": table(
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


def _faulty_indexes(usage: IndexUsage) -> Metadata:
    """Which indexes repeat another, and which are bloated."""
    return {
        "duplicate": len(usage.duplicates),
        "bloated": len(usage.bloated),
        **named_lists(
            the_same=tuple(" = ".join(names) for names in usage.duplicates),
            bloated_indexes=tuple(index.name for index in usage.bloated),
        ),
    }


def of_rebuilt(names: tuple[str, ...]) -> Metadata:
    """Which indexes were rebuilt."""
    return {"rebuilt": len(names), **named_lists(indexes=names)}


def _worth_having(usage: IndexUsage, _: Settings) -> Mapping[str, Answer]:
    return {"indexes_worth_having": Answer.of(usage, _faulty_indexes(usage), warns=True)}


STATISTICS = Operation(
    dg.AssetKey(["monitoring", "statistics"]),
    "What the planner knows of the tables, and dead rows: those that have changed enough since the last time are vacuumed"
    " and analyzed, which keeps no reader or writer waiting.",
    in_session(lambda _, session: of_vacuum(vacuum_changed(session))),
    upstream=all_tables,
    job=NIGHTLY,
)

INDEX_USAGE = Measurement(
    dg.AssetKey(["monitoring", "index_usage"]),
    "Size, use and bloat of every index.",
    in_session(lambda _, session: index_usage(session)),
    lambda usage, _: of_index_usage(usage),
    upstream=lambda catalog: [key_of(spec.name) for spec in catalog.of(Kind.INDEX, Kind.CONSTRAINT, Kind.VIEW)],
    job=WEEKLY,
    part_of_migration=True,
    checks={"indexes_worth_having": "No index is bloated, and none repeats another."},
    judge=_worth_having,
)

REBUILT_INDEXES = Operation(
    dg.AssetKey(["monitoring", "rebuilt_indexes"]),
    "Indexes rebuilt CONCURRENTLY, since half of them or more was bloat.",
    in_session(lambda _, session: of_rebuilt(reindex_bloated(session))),
    upstream=lambda _: [INDEX_USAGE.key],
    job=WEEKLY,
)

OPERATIONS: tuple[AnyOperation, ...] = (STATISTICS, INDEX_USAGE, REBUILT_INDEXES)
