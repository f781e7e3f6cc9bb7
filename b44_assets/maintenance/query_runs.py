"""What the queries of `sql/queries/` read when they are run: rows and buffers, which tell more than a time does.

A query's time depends on what else the machine does; the blocks that it reads do not. They are compared with the fewest a row that
the query ever took, so that a table that grows is no fault, and an index that is gone or no longer fits is.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import Kind, Query, query_definition
from b44_assets.maintenance.query_plans import at_latest_month, fault_of, head_of, nodes_of
from b44_assets.session import Connection, Session

STATEMENT_TIMEOUT_SECONDS = 30.0
SMALL_BUFFERS = 1_000
"""Blocks (8 MB) below which it does not matter how a query reads them."""
MANY_ROWS = 10_000
"""Rows below which a wrong estimate, or a scan that drops most of them, costs nothing that one would notice."""
_DROPPED = 0.9


@dataclass(frozen=True)
class Scan:
    """What a query reads of a table without an index for it.

    Attributes:
        table: The table; of a partition, the whole.
        filter: By what rows are dropped, as EXPLAIN says it.
        read: Rows read.
        dropped: Those of them that were dropped.
    """

    table: str
    filter: str
    read: int
    dropped: int


@dataclass(frozen=True)
class QueryRun:
    """One query, run once.

    Attributes:
        name: Its file.
        rows: Rows that it returned.
        read_rows: Rows that it read of tables and indexes, the dropped ones included.
        buffers: Blocks of 8 kB that it asked for, whether they were in memory or not.
        misjudged: By what factor the planner was wrong about the rows of a table that it reads, at worst; 1 where it was right.
        misjudged_table: The table; empty where all are right.
        scans: What it reads and drops for want of an index.
        plan: EXPLAIN (ANALYZE, BUFFERS), a line a node.
        timed_out: Whether it was ended after `STATEMENT_TIMEOUT_SECONDS`; all else is unknown then.
    """

    name: str
    rows: int = 0
    read_rows: int = 0
    buffers: int = 0
    misjudged: float = 1.0
    misjudged_table: str = ""
    scans: tuple[Scan, ...] = ()
    plan: str = ""
    timed_out: bool = False

    @property
    def buffers_a_row(self) -> float:
        """Blocks a row that was returned."""
        return self.buffers / max(self.rows, 1)


@dataclass(frozen=True)
class QueryRuns:
    """The queries of `sql/queries/`, each run once.

    Attributes:
        runs: Of each query.
        best: The fewest blocks a row that each query took, now or earlier, by its name.
    """

    runs: tuple[QueryRun, ...]
    best: Mapping[str, float]

    def grown(self, factor: float) -> tuple[QueryRun, ...]:
        """Those that take more blocks a row than they did, by more than a factor."""
        return tuple(
            run
            for run in self.runs
            if run.buffers >= SMALL_BUFFERS and run.buffers_a_row > factor * self.best.get(run.name, run.buffers_a_row)
        )

    @property
    def scans(self) -> tuple[tuple[str, Scan], ...]:
        """What queries read and drop for want of an index, the worst first, with the query."""
        found = [(run.name, scan) for run in self.runs for scan in run.scans]
        return tuple(sorted(found, key=lambda one: -one[1].dropped))


def run_queries(session: Session, best: Mapping[str, float]) -> QueryRuns:
    """Runs the queries of `sql/queries/`, each in a transaction that reads only; ranges of time go to the latest month with rows.

    Args:
        session: The run.
        best: The fewest blocks a row that each query took earlier, by its name.

    Raises:
        DatabaseError: A query cannot be run; names the file.
    """
    runs: list[QueryRun] = []
    with session.connection("run queries", replica=True) as conn:
        roots = dict(
            conn.execute(
                "select relname, pg_partition_root(oid)::regclass::text from pg_class"
                " where relispartition and relkind in ('r', 'p')"
            ).fetchall()
        )
        for spec in session.catalog.of(Kind.QUERY):
            runs.append(_run(session, conn, query_definition(spec), roots))
    now = {run.name: run.buffers_a_row for run in runs if not run.timed_out}
    return QueryRuns(tuple(runs), {**best, **{name: min(best.get(name, a_row), a_row) for name, a_row in now.items()}})


def _run(session: Session, conn: Connection, query: Query, roots: Mapping[str, str]) -> QueryRun:
    name = query.spec.name
    try:
        with conn.transaction():
            conn.execute("set transaction read only")
            conn.execute(
                sql.SQL("set local statement_timeout = {}").format(sql.Literal(round(STATEMENT_TIMEOUT_SECONDS * 1000)))
            )
            statement = at_latest_month(session, conn, query)
            # Times are not looked at, and to take them costs more than most nodes do.
            [(found,)] = conn.execute(
                sql.SQL("explain (analyze, buffers, timing off, format json) {}").format(statement)
            ).fetchall()
            plan: dict[str, Any] = found[0]["Plan"]
    except errors.QueryCanceled:
        return QueryRun(name, timed_out=True)
    except psycopg.Error as error:
        raise fault_of(query, error) from error
    reading = [node for node in nodes_of(plan) if "Relation Name" in node and node.get("Actual Loops")]
    misjudged, of_table = max(((_factor(node), node["Relation Name"]) for node in reading), default=(1.0, ""))
    return QueryRun(
        name,
        round(plan["Actual Rows"]),
        sum(_read(node) for node in reading),
        plan.get("Shared Hit Blocks", 0) + plan.get("Shared Read Blocks", 0),
        misjudged,
        roots.get(of_table, of_table) if misjudged > 1 else "",
        _scans(reading, roots),
        "\n".join(_lines(plan)),
    )


def _read(node: Mapping[str, Any]) -> int:
    return round((node["Actual Rows"] + node.get("Rows Removed by Filter", 0)) * node["Actual Loops"])


def _factor(node: Mapping[str, Any]) -> float:
    """By what factor the planner was wrong about the rows of a node."""
    estimated, actual = node["Plan Rows"], node["Actual Rows"]
    if max(estimated, actual) * node["Actual Loops"] < MANY_ROWS:
        return 1.0
    return round(max(estimated, actual) / max(1, min(estimated, actual)), 1)


def _scans(reading: list[dict[str, Any]], roots: Mapping[str, str]) -> tuple[Scan, ...]:
    by_filter: dict[tuple[str, str], tuple[int, int]] = {}
    for node in reading:
        if "Filter" in node:
            key = (roots.get(node["Relation Name"], node["Relation Name"]), node["Filter"])
            read, dropped = by_filter.get(key, (0, 0))
            removed = round(node.get("Rows Removed by Filter", 0) * node["Actual Loops"])
            by_filter[key] = (read + _read(node), dropped + removed)
    return tuple(
        Scan(table, condition, read, dropped)
        for (table, condition), (read, dropped) in by_filter.items()
        if dropped >= MANY_ROWS and dropped > _DROPPED * read
    )


def _lines(plan: Mapping[str, Any], depth: int = 0) -> list[str]:
    line = (
        head_of(plan, depth)
        + f"  (rows {plan['Plan Rows']} estimated, {plan['Actual Rows']:g} x {plan['Actual Loops']}"
        + f"; buffers {plan.get('Shared Hit Blocks', 0)} hit, {plan.get('Shared Read Blocks', 0)} read)"
    )
    further = [
        f"{'  ' * depth}  {label}: {plan[label]}"
        for label in ("Index Cond", "Filter", "Rows Removed by Filter")
        if label in plan
    ]
    return [line, *further, *(below for child in plan.get("Plans", ()) for below in _lines(child, depth + 1))]


@dataclass(frozen=True)
class UnindexedKey:
    """A foreign key of a large table that no index of it serves.

    Attributes:
        constraint: Its name.
        table: The table that has it.
        columns: Its columns.
        referenced: The table that it refers to.
        rows: Rows of the table, as ANALYZE estimates them.
    """

    constraint: str
    table: str
    columns: tuple[str, ...]
    referenced: str
    rows: int


def unindexed_foreign_keys(session: Session) -> tuple[UnindexedKey, ...]:
    """Foreign keys for which a deletion would read the whole of a large table, the largest first."""
    with session.connection("foreign keys") as conn:
        return tuple(
            UnindexedKey(constraint, table, tuple(columns), referenced, rows)
            for constraint, table, columns, referenced, rows in conn.execute(
                """
                select c.conname, t.oid::regclass::text, array(select a.attname::text from unnest(c.conkey) with ordinality k (n, place)
                         join pg_attribute a on a.attrelid = t.oid and a.attnum = k.n order by k.place),
                       c.confrelid::regclass::text, r.rows
                  from pg_constraint c
                  join pg_class t on t.oid = c.conrelid
                  join pg_namespace n on n.oid = t.relnamespace and n.nspname = 'public'
                 cross join lateral (
                   select coalesce(sum(greatest(leaf.reltuples, 0)), 0)::bigint as rows
                     from pg_class leaf
                    where leaf.oid = t.oid
                       or leaf.oid in (select relid from pg_partition_tree(t.oid) where isleaf)) r
                 where c.contype = 'f' and not t.relispartition and r.rows >= %s
                   and not exists (
                     select from pg_index x
                      where x.indrelid = t.oid and x.indisvalid
                        -- One of all rows but those that refer to nothing serves as well.
                        and (x.indpred is null or pg_get_expr(x.indpred, t.oid) = (
                          select format('(%%I IS NOT NULL)', a.attname) from pg_attribute a
                           where a.attrelid = t.oid and a.attnum = c.conkey[1] and cardinality(c.conkey) = 1))
                        -- In any order, and before all other columns.
                        and (x.indkey::int2[])[0:cardinality(c.conkey) - 1] @> c.conkey)
                 order by r.rows desc, 1
                """,
                (MANY_ROWS,),
            ).fetchall()
        )
