"""Plain views brought to what their files say: made, replaced in place, or dropped and made anew with what stands on them."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext

from psycopg import errors, sql

from b44_assets.catalog import Spec, ViewDefinition, ViewOfSchema, view_definition
from b44_assets.errors import DatabaseError
from b44_assets.schema.dependent_views import ViewAccess, set_aside
from b44_assets.schema.online_ddl import (
    SchemaChange,
    change,
    change_by,
    changing,
    fault,
    in_scratch_schema,
    retrying,
    run,
    run_together,
)
from b44_assets.schema.standard_roles import grant_access
from b44_assets.schema.views import comments_on, reconcile_comments
from b44_assets.session import Connection, Session, trusted


@retrying
def apply_plain_view(session: Session, spec: Spec) -> SchemaChange:
    """Brings a view into the database.

    One whose query has changed is replaced in place where PostgreSQL can; else it is dropped and made anew in the same
    transaction, and so are the views of the folder that stand on it. Who may read them stays.

    Raises:
        DatabaseError: The statement fails, a view that is not the folder's stands on one that has to go, or no lock was to
            be had.
    """
    started = time.monotonic()
    definition = view_definition(spec)
    name = definition.name

    def wanted(conn: Connection, schema: str) -> tuple[tuple[str, list[str]] | None, dict[tuple[str, str], str]]:
        create = create_view(definition, sql.Identifier(schema, name))
        run_together(
            conn,
            spec,
            [(definition.statement.line, create), *((comment.line, comment.text) for comment in definition.comments)],
        )
        return _found(conn, schema, name), comments_on(conn, schema, name)

    with changing(session, spec, name) as conn:
        view, comments = in_scratch_schema(session, conn, wanted)
        found = _found(conn, "public", name)
        if found is None:
            outcome = "created"
            create = create_view(definition, sql.Identifier("public", name))
            change_by(session, conn, spec, definition.statement.line, create)
        elif found != view:
            outcome = "replaced"
            change(
                session,
                conn,
                lambda c: make_view(c, spec, definition, "public", lambda: set_aside(session, c, spec)),
            )
        else:
            outcome = "unchanged"
        reconcile_comments(session, conn, spec, definition, comments)
        grant_access(session, conn, [name])
    return SchemaChange.of(spec.name, {name: outcome}, started)


def _found(conn: Connection, schema: str, name: str) -> tuple[str, list[str]] | None:
    """A view's query and its options."""
    return conn.execute(
        "select pg_get_viewdef(oid, true), array(select o from unnest(reloptions) o where o !~ '^pg_' order by o)"
        " from pg_class where oid = to_regclass(%s) and relkind = 'v'",
        (f"{schema}.{name}",),
    ).fetchone()


def create_view(definition: ViewDefinition | ViewOfSchema, name: sql.Identifier) -> sql.Composed:
    """The statement that makes a view, or replaces it in place, under a name of choice."""
    head, query = trusted(definition.head), trusted(definition.query)
    return sql.SQL("create or replace view {} {} as {}").format(name, head, query)


def make_view(
    conn: Connection,
    spec: Spec,
    definition: ViewDefinition | ViewOfSchema,
    schema: str,
    aside: Callable[[], AbstractContextManager[None]] = nullcontext,
) -> None:
    """Makes a view, or replaces it: in place where PostgreSQL can, else it is dropped and made anew, with what it was granted.

    Args:
        conn: In a transaction.
        spec: Its file.
        definition: The view.
        schema: Where it stands.
        aside: What has to go, and to come back, around one that is dropped.

    Raises:
        DatabaseError: The statement fails, or another view stands on one that has to go.
    """
    name, line = sql.Identifier(schema, definition.name), definition.statement.line
    create = create_view(definition, name)
    try:
        with conn.transaction():
            run(conn, spec, line, create)
            return
    except DatabaseError as error:
        # A column that is gone, has another name or another type.
        if not isinstance(error.__cause__, errors.InvalidTableDefinition):
            raise
    access = ViewAccess.of(conn, definition.name, schema=schema)
    with aside():
        try:
            conn.execute(sql.SQL("drop view {}").format(name))
        except errors.DependentObjectsStillExist as error:
            what = (error.diag.message_detail or "").partition("\n")[0]
            said = f"{fault(spec, line, error)} ({what})"
            raise DatabaseError(f"{said}: drop that, migrate, and make it again") from error
        run(conn, spec, line, create)
        access.give_back(conn)
