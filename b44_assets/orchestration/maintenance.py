"""What keeps a database in shape: dead rows, bloated indexes, what queries read. Each is one object, listed in OPERATIONS."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta

import dagster as dg

from b44_assets.catalog import Kind
from b44_assets.config.settings import Settings
from b44_assets.maintenance.index_maintenance import IndexUsage, index_usage, reindex_bloated
from b44_assets.maintenance.query_runs import (
    STATEMENT_TIMEOUT_SECONDS,
    QueryRuns,
    UnindexedKey,
    run_queries,
    unindexed_foreign_keys,
)
from b44_assets.maintenance.vacuum import Vacuumed, vacuum_changed
from b44_assets.orchestration.common import Answer, key_of
from b44_assets.orchestration.metadata import Metadata, named_lists, table
from b44_assets.orchestration.operations import (
    AnyOperation,
    Context,
    Measurement,
    Operation,
    all_tables,
    in_session,
    numbers_before,
)
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import ScheduledJob

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


DAILY_QUERIES = ScheduledJob(
    "query_history",
    "Runs the queries of sql/queries/, and keeps what they read.",
    cron="45 5 * * *",
    schedule="Every morning: rows and blocks that the queries take.",
    overdue_after=timedelta(hours=26),
)
_LEAST = "_least_blocks_a_row"


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
        "counted_since": "never reset" if usage.since is None else usage.since.isoformat(timespec="seconds"),
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
    of_index_usage,
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


@dataclass(frozen=True)
class Queries:
    """What queries read, and the foreign keys without an index."""

    runs: QueryRuns
    unindexed: tuple[UnindexedKey, ...]

    def suggestions(self) -> tuple[str, ...]:
        """Indexes that would be of use, with the evidence for each."""
        return (
            *(
                f"{name} reads {scan.read:,} rows of {scan.table} and drops {scan.dropped:,} by {scan.filter}"
                for name, scan in self.runs.scans
            ),
            *(
                f"foreign key {key.constraint} on {key.table} ({', '.join(key.columns)}) has no index: a deletion in"
                f" {key.referenced} reads its {key.rows:,} rows"
                for key in self.unindexed
            ),
        )


_QUERIES_KEY = dg.AssetKey(["monitoring", "queries"])


def _measure_queries(context: Context, migration: Migration) -> Queries:
    before = numbers_before(context, _QUERIES_KEY)
    numbers = {} if before is None else before.numbers
    least = {name.removesuffix(_LEAST): float(value) for name, value in numbers.items() if name.endswith(_LEAST)}
    with migration.session(context, reads=True) as session:
        return Queries(run_queries(session, least), unindexed_foreign_keys(session))


def of_queries(found: Queries) -> Metadata:
    """What each query took, its plan, and the indexes that would be of use."""
    facts: Metadata = {"queries": len(found.runs.runs)}
    for run in found.runs.runs:
        if not run.timed_out:
            facts[f"{run.name}_rows"] = run.rows
            facts[f"{run.name}_rows_read"] = run.read_rows
            facts[f"{run.name}_blocks"] = run.buffers
            facts[f"plan_of_{run.name}"] = dg.MetadataValue.md(f"```\n{run.plan}\n```")
    facts |= {f"{name}{_LEAST}": value for name, value in found.runs.best.items()}
    facts["by_query"] = table(
        ("query", "rows", "rows_read", "blocks", "estimate_off_by"),
        [(run.name, run.rows, run.read_rows, run.buffers, run.misjudged) for run in found.runs.runs],
    )
    return facts | named_lists(suggested_indexes=found.suggestions())


def _judge_queries(found: Queries, settings: Settings) -> Mapping[str, Answer]:
    blocks, estimates = settings.thresholds.query_blocks, settings.thresholds.query_estimates
    taking_more = [
        f"{run.name} takes {run.buffers_a_row:,.4g} blocks a row, and once took {found.runs.best[run.name]:,.4g}"
        for run in (() if blocks is None else found.runs.grown(blocks))
    ] + [f"{run.name} was ended after {STATEMENT_TIMEOUT_SECONDS:g} s" for run in found.runs.runs if run.timed_out]
    misjudged = [
        f"{run.name}: rows of {run.misjudged_table} are misjudged by a factor of {run.misjudged:,.0f}"
        for run in found.runs.runs
        if estimates is not None and run.misjudged > estimates
    ]
    said = f"{len(found.runs.runs)} queries"
    return {
        "blocks_as_before": _answer(
            taking_more, f"{said} take no more blocks a row than before", "see whether an index is gone or bloated"
        ),
        "rows_as_estimated": _answer(
            misjudged,
            f"the planner knows how many rows {said} read",
            "ANALYZE the table, or raise its statistics target",
        ),
        "indexes_suggested": _answer(
            found.suggestions(),
            f"{said} drop few of the rows that they read, and every large foreign key has an index",
            "an index in sql/indexes/ on what is compared would spare that",
        ),
    }


def _answer(faults: Sequence[str], well: str, remedy: str) -> Answer:
    return Answer(not faults, f"{'; '.join(faults)}: {remedy}" if faults else well, warns=True)


QUERIES = Measurement(
    _QUERIES_KEY,
    "What the queries of sql/queries/ read when they are run: rows and blocks, kept over time, with their plans.",
    _measure_queries,
    of_queries,
    upstream=lambda catalog: [
        key_of(name) for name in dict.fromkeys(name for spec in catalog.of(Kind.QUERY) for name in spec.depends)
    ],
    job=DAILY_QUERIES,
    checks={
        "blocks_as_before": "No query takes many more blocks a row than it ever took.",
        "rows_as_estimated": "The planner is not far wrong about the rows that a query reads.",
        "indexes_suggested": "No query drops most of many rows that it reads, and no large foreign key is without an index.",
    },
    judge=_judge_queries,
)

OPERATIONS: tuple[AnyOperation, ...] = (STATISTICS, INDEX_USAGE, REBUILT_INDEXES, QUERIES)
