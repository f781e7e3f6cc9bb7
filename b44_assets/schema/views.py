"""Materialized views brought to what `sql/` says, and filled.

What belongs here: making, replacing and refreshing views. What does not: judging whether they are fresh; see `health`.
"""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from functools import partial

import psycopg
from psycopg import sql

from b44_assets.catalog import IndexDefinition, Spec, ViewDefinition, view_definition
from b44_assets.errors import DatabaseError
from b44_assets.failpoints import failpoint
from b44_assets.schema.dependent_views import ViewAccess, set_aside
from b44_assets.schema.indexes import Form, create_index, form_of, forms_on
from b44_assets.schema.online_ddl import (
    SchemaChange,
    change,
    changing,
    in_scratch_schema,
    naming,
    retrying,
    run,
    run_together,
    temporary_name,
)
from b44_assets.schema.standard_roles import grant_access
from b44_assets.schema.unbuilt import Obstacle, attempt, note_obstacles, without_rows
from b44_assets.session import Connection, Session, explained, scalar, trusted

REFRESH_LOCK_TIMEOUT_MS = 600_000
"""A refresh keeps no reader waiting, so it may wait long for another refresh."""
NOTED_IN_COMMENT = re.compile(r", as of (\d{4}-\d\d-\d\d \d\d:\d\d:\d\d(?:\.\d+)?) UTC$")
"""How earlier versions noted a refresh, at the end of the view's comment."""


@dataclass(frozen=True)
class ViewChange(SchemaChange):
    """As `SchemaChange`, of a view and its indexes.

    Attributes:
        refreshed: Whether the view was filled anew because its rows were no longer those of its query.
    """

    refreshed: bool = False


@dataclass(frozen=True)
class _Wanted:
    query: str
    indexes: dict[str, Form]
    comments: Mapping[tuple[str, str], str]


@retrying
def apply_view(session: Session, spec: Spec) -> ViewChange:
    """Brings a materialized view and its indexes into the database and fills it where it differs from its query.

    One whose query has changed is built beside the old one and takes its place in one transaction. One whose query fails for
    some rows is told of with what the server says; an older one keeps its rows.

    Raises:
        DatabaseError: A statement fails, something else stands on a view that has to go, or no lock was to be had.
    """
    started = time.monotonic()
    definition = view_definition(spec)
    done: ViewChange | None = None

    def work(conn: Connection) -> str:
        nonlocal done
        done = _apply(session, conn, spec, definition, started)
        return ""

    with changing(session, spec, definition.name) as conn:
        outcome = attempt(lambda: work(conn), partial(without_rows, definition.name))
        obstacles = [outcome] if isinstance(outcome, Obstacle) else []
        note_obstacles(session, conn, [definition.name], obstacles)
    if done is not None:
        return done
    return ViewChange.of(spec.name, {}, started, failed={one.object: one.message() for one in obstacles})


def _apply(session: Session, conn: Connection, spec: Spec, definition: ViewDefinition, started: float) -> ViewChange:
    name = definition.name
    names = [name, *(index.name for index in definition.indexes)]
    refreshed = False
    wanted = in_scratch_schema(session, conn, lambda c, schema: _wanted(c, schema, spec, definition))
    found = _found(conn, name)
    if found is None:
        _build(session, conn, spec, definition, name)
        outcomes = dict.fromkeys(names, "created")
    elif found != wanted.query:
        _replace(session, conn, spec, definition)
        outcomes = dict.fromkeys(names, "replaced")
    else:
        outcomes = {name: "unchanged"} | {
            index.name: _reconcile_index(session, conn, spec, index, wanted.indexes[index.name])
            for index in definition.indexes
        }
        reconcile_comments(session, conn, spec, definition, wanted.comments)
        populated = scalar(conn, "select relispopulated from pg_class where oid = to_regclass(%s)", (f"public.{name}",))
        with naming(spec, definition.statement.line):
            differs = not populated or bool(differences(conn, name, definition.query))
        if differs:
            refresh_on(conn, name)
            refreshed = True
    grant_access(session, conn, [name])
    return replace(ViewChange.of(spec.name, outcomes, started), refreshed=refreshed)


@retrying
def refresh(session: Session, spec: Spec) -> None:
    """Fills a materialized view anew; its readers see the old rows until the new ones are there.

    Raises:
        DatabaseError: The view is not there, or another refresh does not come to its end.
    """
    with changing(session, spec, spec.name) as conn:
        if _found(conn, spec.name) is None:
            raise DatabaseError(f"there is no materialized view {spec.name}; materialize it first")
        refresh_on(conn, spec.name)


def refresh_on(conn: Connection, name: str) -> None:
    """As `refresh`, on a connection that is there already."""
    view = sql.Identifier("public", name)
    try:
        with conn.transaction():
            conn.execute(sql.SQL("set local lock_timeout = {}").format(sql.Literal(REFRESH_LOCK_TIMEOUT_MS)))
            # The lock that a function of the app's takes when it refreshes the view, too, which may be at any time.
            conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 44))", (f"refresh {name}",))
            populated = scalar(
                conn, "select relispopulated from pg_class where oid = to_regclass(%s)", (f"public.{name}",)
            )
            concurrently = sql.SQL("concurrently " if populated else "")
            failpoint("view: before refresh", conn)
            conn.execute(sql.SQL("refresh materialized view {}{}").format(concurrently, view))
            _note_refresh(conn, name)
    except psycopg.Error as error:
        raise explained(f"{name} cannot be refreshed", error) from error


def differences(conn: Connection, name: str, query: str) -> int:
    """How many rows a view has too many or too few against its query, evaluated now."""
    return scalar(
        conn,
        sql.SQL(
            "with expected as ({query}) select count(*) from ("
            " (select * from expected except all select * from {view}) union all"
            " (select * from {view} except all select * from expected)) as differing"
        ).format(query=trusted(query), view=sql.Identifier("public", name)),
    )


def _note_refresh(conn: Connection, name: str) -> None:
    conn.execute(
        "insert into b44.view_refreshes as r (view_name, refreshed_at) values (to_regclass(%s)::text, now())"
        " on conflict (view_name) do update set refreshed_at = greatest(r.refreshed_at, excluded.refreshed_at)",
        (f"public.{name}",),
    )


def last_refresh(conn: Connection, name: str) -> datetime | None:
    """When a materialized view was filled last, as far as that was noted: by this version, or by an earlier one."""
    readable = scalar(
        conn,
        "select coalesce(has_schema_privilege(to_regnamespace('b44'), 'usage'), false)"
        " and coalesce(has_table_privilege(to_regclass('b44.view_refreshes'), 'select'), false)",
    )
    noted: list[datetime] = []
    if readable and (
        moment := scalar(
            conn,
            "select refreshed_at from b44.view_refreshes where view_name = to_regclass(%s)::text",
            (f"public.{name}",),
        )
    ):
        noted.append(moment)
    comment = scalar(conn, "select obj_description(to_regclass(%s), 'pg_class')", (f"public.{name}",))
    if match := NOTED_IN_COMMENT.search(comment or ""):
        noted.append(datetime.fromisoformat(match[1]).replace(tzinfo=UTC))
    return max(noted, default=None)


def _found(conn: Connection, name: str) -> str | None:
    return scalar(
        conn,
        "select pg_get_viewdef(oid, true) from pg_class where oid = to_regclass(%s) and relkind = 'm'",
        (f"public.{name}",),
    )


def _wanted(conn: Connection, schema: str, spec: Spec, definition: ViewDefinition) -> _Wanted:
    name = sql.Identifier(schema, definition.name)
    made: list[tuple[int, sql.Composable | str]] = [
        (definition.statement.line, _create(definition, name, filled=False)),
        *((index.statement.line, index.statement.text) for index in definition.indexes),
        *((comment.line, comment.text) for comment in definition.comments),
    ]
    run_together(conn, spec, made)
    relation = f"{schema}.{definition.name}"
    query = scalar(conn, "select pg_get_viewdef(to_regclass(%s), true)", (relation,))
    return _Wanted(query, forms_on(conn, relation), comments_on(conn, schema, definition.name))


def comments_on(conn: Connection, schema: str, name: str) -> dict[tuple[str, str], str]:
    """Comments on a view, its columns and its indexes, by relation and column."""
    rows = conn.execute(
        """
        select c.relname, coalesce(a.attname, ''), d.description
          from pg_description d
          join pg_class c on c.oid = d.objoid
          left join pg_attribute a on a.attrelid = d.objoid and a.attnum = d.objsubid and d.objsubid > 0
         where d.classoid = 'pg_class'::regclass
           and (c.oid = to_regclass(%(view)s)
                or c.oid in (select indexrelid from pg_index where indrelid = to_regclass(%(view)s)))
        """,
        {"view": f"{schema}.{name}"},
    ).fetchall()
    return {(relation, column): text for relation, column, text in rows}


def _create(definition: ViewDefinition, name: sql.Identifier, *, filled: bool = True) -> sql.Composed:
    return sql.SQL("create materialized view {} as {}{}").format(
        name, trusted(definition.query), sql.SQL("" if filled else " with no data")
    )


def _build(session: Session, conn: Connection, spec: Spec, definition: ViewDefinition, name: str) -> None:
    """Makes the view with its rows, indexes and comments; reads its tables, and keeps nobody waiting."""

    def operation(conn: Connection) -> None:
        run(conn, spec, definition.statement.line, _create(definition, sql.Identifier("public", name)))
        for index in definition.indexes:
            own = index.name if name == definition.name else temporary_name(index.name)
            run(conn, spec, index.statement.line, create_index(index, own, sql.Identifier("public", name)))
        if name == definition.name:
            _comment(conn, spec, definition)

    change(session, conn, operation)


def _comment(conn: Connection, spec: Spec, definition: ViewDefinition) -> None:
    for comment in definition.comments:
        run(conn, spec, comment.line, comment.text)
    _note_refresh(conn, definition.name)


def _replace(session: Session, conn: Connection, spec: Spec, definition: ViewDefinition) -> None:
    new = temporary_name(definition.name)
    drop = sql.SQL("drop materialized view if exists {}")
    change(session, conn, lambda c: c.execute(drop.format(sql.Identifier("public", new))))
    _build(session, conn, spec, definition, new)

    def swap(conn: Connection) -> None:
        access = ViewAccess.of(conn, definition.name)
        with set_aside(session, conn, spec):
            exchange(conn)
            access.give_back(conn)

    def exchange(conn: Connection) -> None:
        conn.execute(drop.format(sql.Identifier("public", definition.name)))
        rename = sql.SQL("alter {} {} rename to {}")
        conn.execute(
            rename.format(sql.SQL("materialized view"), sql.Identifier("public", new), sql.Identifier(definition.name))
        )
        for index in definition.indexes:
            own = sql.Identifier("public", temporary_name(index.name))
            conn.execute(rename.format(sql.SQL("index"), own, sql.Identifier(index.name)))
        _comment(conn, spec, definition)

    with naming(spec, definition.statement.line):
        change(session, conn, swap)


def reconcile_comments(
    session: Session, conn: Connection, spec: Spec, definition: ViewDefinition, wanted: Mapping[tuple[str, str], str]
) -> None:
    """Sets the comments that differ from the file; takes away what an earlier version has noted in one."""
    found = comments_on(conn, "public", definition.name)
    own = definition.name, ""

    def comment(conn: Connection) -> None:
        for statement in definition.comments:
            run(conn, spec, statement.line, statement.text)

    def clear(conn: Connection) -> None:
        conn.execute(
            sql.SQL("comment on materialized view {} is null").format(sql.Identifier("public", definition.name))
        )

    if any(found.get(where) != text for where, text in wanted.items()):
        change(session, conn, comment)
    if own not in wanted and (match := NOTED_IN_COMMENT.search(found.get(own, ""))) and match.start() == 0:
        change(session, conn, clear)


def _reconcile_index(session: Session, conn: Connection, spec: Spec, index: IndexDefinition, wanted: Form) -> str:
    """A view is small beside its tables and its writer is the refresh, so its indexes are simply made anew."""
    row = conn.execute(
        "select indisunique, pg_get_indexdef(indexrelid, 0, true), indisvalid from pg_index where indexrelid = to_regclass(%s)",
        (f"public.{index.name}",),
    ).fetchone()
    if row is not None and row[2] and form_of(row[0], row[1]) == wanted:
        return "unchanged"

    def operation(conn: Connection) -> None:
        conn.execute(sql.SQL("drop index if exists {}").format(sql.Identifier("public", index.name)))
        run(conn, spec, index.statement.line, create_index(index, index.name, sql.Identifier("public", index.table)))

    change(session, conn, operation)
    if row is None:
        return "created"
    return "repaired" if form_of(row[0], row[1]) == wanted else "replaced"
