"""Whether the queries of `sql/queries/` are planned as they are meant to be, on the data that is there."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import partial
from typing import Any

import psycopg
from psycopg import sql

from b44_assets.catalog import Catalog, Kind, Query, Spec, query_definition
from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import fault
from b44_assets.session import Connection, Session, absent_relations, scalar, trusted
from b44_assets.wording import plural

SMALL_COST = 1_000.0
"""Below it (the planner's units: pages read in order) a query reads so little that another index may well be as cheap."""


@dataclass(frozen=True)
class QueryPlan:
    """How one query is planned.

    Attributes:
        name: The query's file.
        meant: Indexes any of which is right for it.
        chosen: Those of them that the planner chooses.
        usable: Those that it chooses where it must not read whole tables, as it rightly does while they are small.
        partitions: Partitions of the table that it must leave partitions out of.
        read: Those that the plan reads.
        wrongly_read: Those of them that lie outside of the query's range of time.
        too_small: Whether a meant index is there and valid, and the query cheap whatever serves it.
        text: The plan for people, a line a node, as EXPLAIN has it.
    """

    name: str
    meant: tuple[str, ...]
    chosen: tuple[str, ...]
    usable: tuple[str, ...]
    partitions: int
    read: int
    wrongly_read: tuple[str, ...]
    too_small: bool = False
    text: str = ""

    @property
    def passed(self) -> bool:
        """An index that is meant for it serves it, and no partition is read in vain."""
        return not self.wrongly_read and (not self.meant or bool(self.chosen or self.usable) or self.too_small)

    def message(self) -> str:
        """One line."""
        if self.wrongly_read:
            return f"{self.name} reads {len(self.wrongly_read)} partitions in vain, {self.wrongly_read[0]} for one"
        if not self.passed:
            return f"{self.name} cannot use {' or '.join(self.meant)}"
        index = f"uses {self.chosen[0]}" if self.chosen else f"can use {self.usable[0]}" if self.usable else "runs"
        if self.too_small:
            index = f"reads too little to need {self.meant[0]}"
        return f"{self.name} {index}" + (f", {self.read} of {self.partitions} partitions" if self.partitions else "")


@dataclass(frozen=True)
class QueryPlans:
    """How the queries of `sql/queries/` are planned.

    Attributes:
        plans: Of those that could be planned.
        waiting: By query, what it reads and is not there yet: the part of a graph that was not made.
    """

    plans: tuple[QueryPlan, ...]
    waiting: Mapping[str, str] = field(default_factory=dict[str, str])

    @property
    def passed(self) -> bool:
        """Each as it is meant to be."""
        return all(plan.passed for plan in self.plans)

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        wrong = [plan.message() for plan in self.plans if not plan.passed]
        if wrong:
            return "; ".join(wrong)
        waiting = "".join(f"; {query} waits for {relation}" for query, relation in self.waiting.items())
        queries = plural(len(self.plans), "query prunes", "queries prune")
        return f"{len(self.plans)} {queries} partitions and can use the indexes that are meant{waiting}"


_Latest = Callable[[str, str], tuple[datetime | None, datetime | None]]
"""Of a table and its column of time: when its latest month with rows begins and ends."""


def queries_of(catalog: Catalog, table: str) -> tuple[Spec, ...]:
    """The queries about a table: those that name it first among what they depend on."""
    return tuple(spec for spec in catalog.of(Kind.QUERY) if spec.depends[:1] == (table,))


def query_plans(session: Session, table: str) -> QueryPlans:
    """Plans the queries of `sql/queries/` about a table; none is run. Ranges of time go to the latest month with rows.

    Raises:
        DatabaseError: A query cannot be planned; names the file.
    """
    with session.connection("check query plans") as conn, conn.transaction():
        waiting: dict[str, str] = {}
        plans: list[QueryPlan] = []
        # Which of the table's months is the latest, and whose part an index is, is the same for all of them.
        latest = functools.cache(partial(_latest_moments, conn))
        roots = dict(
            conn.execute(
                "select c.relname, p.relname from pg_inherits h join pg_class c on c.oid = h.inhrelid"
                " join pg_class p on p.oid = h.inhparent where c.relkind = 'i'"
            ).fetchall()
        )
        for spec in queries_of(session.catalog, table):
            if missing := _missing(session, conn, spec):
                waiting[spec.name] = missing
            else:
                plans.append(_plan(session, conn, query_definition(spec), latest, roots))
        return QueryPlans(tuple(plans), waiting)


def _missing(session: Session, conn: Connection, spec: Spec) -> str | None:
    """A table or view that a query reads beside its own and that is not there; None where all are."""
    relations = [one.name for one in session.catalog.of(Kind.TABLE, Kind.VIEW) if one.name in spec.depends[1:]]
    return min(absent_relations(conn, relations), default=None)


def _plan(session: Session, conn: Connection, query: Query, latest: _Latest, roots: dict[str, str]) -> QueryPlan:
    since, until = _latest_month(session, latest, query)
    statement = _moved(query, since, until)
    plan = _explain(conn, query, statement)
    natural = list(nodes_of(plan))
    chosen = _indexes(natural, roots, query)
    usable: tuple[str, ...] = ()
    if not chosen and query.uses:
        with conn.transaction():
            conn.execute("set local enable_seqscan = off")
            usable = _indexes(list(nodes_of(_explain(conn, query, statement))), roots, query)
            conn.execute("set local enable_seqscan = on")
    too_small = not chosen and not usable and natural[0]["Total Cost"] < SMALL_COST and _there(conn, query.uses)
    partitions: dict[str, bool] = {}
    if query.prunes is not None:
        partitions = dict(_partitions(conn, query.prunes, since, until))
    read = {node["Relation Name"] for node in natural if node.get("Relation Name") in partitions}
    return QueryPlan(
        query.spec.name,
        query.uses,
        chosen,
        usable,
        len(partitions),
        len(read),
        tuple(sorted(name for name in read if partitions[name])),
        too_small,
        "\n".join(_lines(plan)),
    )


def at_latest_month(session: Session, conn: Connection, query: Query) -> sql.Composable:
    """The query, its range of time moved to the latest month with rows."""
    return _moved(query, *_latest_month(session, partial(_latest_moments, conn), query))


def _latest_month(session: Session, latest: _Latest, query: Query) -> tuple[datetime | None, datetime | None]:
    """From when to when the query's range goes once it is moved: the latest month with rows."""
    if query.since is None or query.prunes is None:
        return None, None
    period = session.catalog.table(query.prunes).period
    if period is None:
        return None, None
    since, until = latest(query.prunes, period.column)
    return since, until if query.until is not None else None


def _latest_moments(conn: Connection, table: str, column: str) -> tuple[datetime | None, datetime | None]:
    """When the latest month with rows begins and ends."""
    row = conn.execute(
        sql.SQL(
            "select month at time zone 'UTC', (month + interval '1 month') at time zone 'UTC'"
            " from (select date_trunc('month', max({column}) at time zone 'UTC') as month from {table}) latest"
        ).format(column=sql.Identifier(column), table=sql.Identifier("public", table))
    ).fetchone()
    return row or (None, None)


def _moved(query: Query, since: datetime | None, until: datetime | None) -> sql.Composable:
    """The query with its literals of time replaced; as it stands where there is nothing to move it to."""
    parts: list[sql.Composable | str] = [query.spec.statements[0].text]
    for written, moment in ((query.since, since), (query.until, until)):
        if written is None or moment is None:
            continue
        cut: list[sql.Composable | str] = []
        for part in parts:
            if isinstance(part, str):
                pieces = part.split(f"'{written}'")
                for piece in pieces[:-1]:
                    cut += [piece, sql.Literal(moment.isoformat())]
                cut.append(pieces[-1])
            else:
                cut.append(part)
        parts = cut
    return sql.Composed([trusted(part) if isinstance(part, str) else part for part in parts])


def fault_of(query: Query, error: psycopg.Error) -> DatabaseError:
    """What the server has against a query, with the file and line."""
    return fault(query.spec, query.spec.statements[0].line, error)


def _explain(conn: Connection, query: Query, statement: sql.Composable) -> dict[str, Any]:
    try:
        row = conn.execute(sql.SQL("explain (format json) {}").format(statement)).fetchone()
    except psycopg.Error as error:
        raise fault_of(query, error) from error
    assert row is not None
    return row[0][0]["Plan"]


def nodes_of(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """The nodes of a plan as EXPLAIN gives it in JSON, each before those below it."""
    yield plan
    for child in plan.get("Plans", ()):
        yield from nodes_of(child)


def head_of(node: Mapping[str, Any], depth: int) -> str:
    """A node and what it reads, as EXPLAIN begins its line."""
    index, relation = node.get("Index Name"), node.get("Relation Name")
    return (
        "  " * depth
        + node["Node Type"]
        + (f" using {index}" if index else "")
        + (f" on {relation}" if relation else "")
    )


def _lines(plan: dict[str, Any], depth: int = 0) -> Iterator[str]:
    yield (
        head_of(plan, depth) + f"  (cost={plan['Startup Cost']:.2f}..{plan['Total Cost']:.2f} rows={plan['Plan Rows']})"
    )
    for child in plan.get("Plans", ()):
        yield from _lines(child, depth + 1)


def _there(conn: Connection, names: tuple[str, ...]) -> bool:
    """Whether one of some indexes exists and can be used."""
    return scalar(
        conn,
        "select exists (select from pg_index where indisvalid and indexrelid = any(select to_regclass(n) from unnest(%s::text[]) n))",
        (list(names),),
    )


def _indexes(nodes: list[dict[str, Any]], roots: dict[str, str], query: Query) -> tuple[str, ...]:
    used = {roots.get(node["Index Name"], node["Index Name"]) for node in nodes if "Index Name" in node}
    return tuple(name for name in query.uses if name in used)


def _partitions(conn: Connection, table: str, since: datetime | None, until: datetime | None) -> list[tuple[str, bool]]:
    """The partitions with whether each lies outside of a range of time; the default one may hold anything."""
    return conn.execute(
        """
        select c.relname,
               coalesce(b.next_moment <= %(since)s::timestamptz, false) or coalesce(b.first_moment >= %(until)s::timestamptz, false)
          from pg_partition_tree(to_regclass(%(table)s)) t
          join pg_class c on c.oid = t.relid
          left join b44.partition_bounds(to_regclass(%(table)s)) b on b.partition = t.relid
         where t.isleaf and t.level > 0
        """,
        {"since": since, "until": until, "table": f"public.{table}"},
    ).fetchall()
