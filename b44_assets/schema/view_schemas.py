"""Schemas of plain views brought to what their files say, and compared with them."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from dataclasses import dataclass

from psycopg import sql

from b44_assets.catalog import Spec, ViewSchema, view_schema
from b44_assets.schema.online_ddl import (
    SchemaChange,
    change,
    changing,
    in_scratch_schema,
    retrying,
    run,
    run_together,
)
from b44_assets.schema.plain_views import create_view, make_view
from b44_assets.session import Connection, Session

_VIEWS = """
    select c.relname, pg_get_viewdef(c.oid, true),
           array(select o from unnest(c.reloptions) o where o !~ '^pg_' order by o)
      from pg_class c
     where c.relnamespace = to_regnamespace(%s) and c.relkind = 'v'
"""
_COMMENTS = """
    select c.relname, coalesce(a.attname, ''), d.description
      from pg_description d
      join pg_class c on c.oid = d.objoid and c.relkind = 'v'
      left join pg_attribute a on a.attrelid = d.objoid and a.attnum = d.objsubid and d.objsubid > 0
     where d.classoid = 'pg_class'::regclass and c.relnamespace = to_regnamespace(%(schema)s)
     union all
    select '', '', obj_description(to_regnamespace(%(schema)s), 'pg_namespace')
"""


@dataclass(frozen=True)
class _State:
    """Views with their query and options, and comments by view and column; the schema's own has neither."""

    views: Mapping[str, tuple[str, list[str]]]
    comments: Mapping[tuple[str, str], str | None]


@retrying
def apply_view_schema(session: Session, spec: Spec) -> SchemaChange:
    """Brings a schema and its views into the database; nobody is granted anything.

    A view whose query has changed is replaced in place where PostgreSQL can; else it is dropped and made anew in the same
    transaction, and who may read it stays. What is in the schema besides is left alone.

    Raises:
        DatabaseError: A statement fails, another view stands on one that has to go, or no lock was to be had.
    """
    started = time.monotonic()
    definition = view_schema(spec)
    with changing(session, spec, spec.name) as conn:
        wanted = _wanted(session, conn, spec, definition)
        found = _state(conn, spec.name)
        outcomes = {
            view.name: "created"
            if view.name not in found.views
            else "unchanged"
            if found.views[view.name] == wanted.views[view.name]
            else "replaced"
            for view in definition.views
        }
        commented = wanted.comments.items() <= found.comments.items()
        if not commented or set(outcomes.values()) - {"unchanged"}:

            def make(conn: Connection) -> None:
                run(conn, spec, definition.creation.line, definition.creation.text)
                for view in definition.views:
                    if outcomes[view.name] != "unchanged":
                        make_view(conn, spec, view, spec.name)
                for comment in definition.comments:
                    run(conn, spec, comment.line, comment.text)

            change(session, conn, make)
    return SchemaChange.of(spec.name, outcomes, started)


def view_schema_differences(session: Session, conn: Connection, spec: Spec) -> tuple[str, ...]:
    """What of a schema of views is not as its file says, each in words.

    Raises:
        DatabaseError: The file does not run.
    """
    definition = view_schema(spec)
    wanted, found = _wanted(session, conn, spec, definition), _state(conn, spec.name)
    said: list[str] = []
    for view in definition.views:
        shown = f"view {spec.name}.{sql.Identifier(view.name).as_string(conn)}"
        if view.name not in found.views:
            said.append(f"{shown} is missing")
        elif found.views[view.name] != wanted.views[view.name]:
            said.append(f"{shown}: its query or its options are not what sql/ says")
    for (view, column), text in wanted.comments.items():
        if found.comments.get((view, column)) != text and (not view or view in found.views):
            said.append(f"comment on {'.'.join(filter(None, (spec.name, view, column)))} is not what sql/ says")
    return tuple(said)


def declared_views(session: Session, conn: Connection, spec: Spec) -> dict[str, dict[str, str | None]]:
    """What the views of a file come to, by their names as in a message.

    Raises:
        DatabaseError: The file does not run.
    """
    return _facts(conn, spec.name, _wanted(session, conn, spec, view_schema(spec)))


def found_views(conn: Connection, spec: Spec) -> dict[str, dict[str, str | None]]:
    """What the views of a file are in a database, likewise; only reads."""
    return _facts(conn, spec.name, _state(conn, spec.name))


def _facts(conn: Connection, schema: str, state: _State) -> dict[str, dict[str, str | None]]:
    return {
        f"view {schema}.{sql.Identifier(name).as_string(conn)}": {"query": query, "options": ", ".join(options) or None}
        for name, (query, options) in state.views.items()
    }


def _wanted(session: Session, conn: Connection, spec: Spec, definition: ViewSchema) -> _State:
    """What the file comes to, made in a schema that is gone afterwards."""
    named = re.compile(rf"(comment\s+on\s+(?:view|column)\s+){spec.name}\.", re.IGNORECASE)

    def build(conn: Connection, schema: str) -> _State:
        # A view may have the name of a table that it, or another one, reads.
        conn.execute("set local search_path = public, pg_temp")
        made: list[tuple[int, sql.Composable | str]] = [
            (view.statement.line, create_view(view, sql.Identifier(schema, view.name))) for view in definition.views
        ]
        for comment in definition.comments:
            # In place of the file's own schema; the comment of which goes to the other one.
            text = named.sub(rf"\g<1>{schema}.", comment.text, count=1)
            text = re.sub(
                rf"(comment\s+on\s+schema\s+){spec.name}\b", rf"\g<1>{schema}", text, count=1, flags=re.IGNORECASE
            )
            made.append((comment.line, text))
        run_together(conn, spec, made)
        return _state(conn, schema)

    state = in_scratch_schema(session, conn, build)
    return _State(state.views, {key: text for key, text in state.comments.items() if text is not None})


def _state(conn: Connection, schema: str) -> _State:
    views = {name: (query, options) for name, query, options in conn.execute(_VIEWS, (schema,)).fetchall()}
    comments = {(view, column): text for view, column, text in conn.execute(_COMMENTS, {"schema": schema}).fetchall()}
    return _State(views, comments)
