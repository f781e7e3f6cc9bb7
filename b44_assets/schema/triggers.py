"""Triggers brought to what `sql/` says; one that is as it should be is left alone, since making it anew locks the table."""

from __future__ import annotations

import time
from collections.abc import Sequence

from psycopg import sql

from b44_assets.catalog import Spec, TriggerDefinition, trigger_definitions
from b44_assets.schema.online_ddl import (
    SchemaChange,
    change,
    changing,
    in_scratch_schema,
    relation_oid,
    retrying,
    run,
    run_together,
    shadow,
)
from b44_assets.session import Connection, Session


@retrying
def apply_triggers(session: Session, spec: Spec) -> SchemaChange:
    """Brings the triggers of a file into the database: missing and changed ones are made, disabled ones enabled.

    A changed one is replaced by a single statement, so that the table is at no time without.

    Raises:
        DatabaseError: A statement fails, or no lock was to be had; names the file and the line.
    """
    started = time.monotonic()
    definitions = trigger_definitions(spec)
    table = definitions[0].table
    outcomes: dict[str, str] = {}
    with changing(session, spec, table) as conn:
        wanted = in_scratch_schema(session, conn, lambda c, schema: _wanted(c, schema, spec, definitions))
        oid = relation_oid(conn, table)
        for definition in definitions:
            found = conn.execute(
                """
                select pg_get_triggerdef(t.oid, true),
                       t.tgenabled = 'O'
                       and not exists (select from pg_trigger p where p.tgparentid = t.oid and p.tgenabled <> 'O')
                       and (t.tgtype & 1 = 0  -- by row: every partition has a part of it
                            or (select count(*) from pg_trigger p where p.tgparentid = t.oid)
                             = (select count(*) from pg_inherits h where h.inhparent = t.tgrelid))
                  from pg_trigger t
                 where t.tgrelid = %s and t.tgname = %s and not t.tgisinternal
                """,
                (oid, definition.name),
            ).fetchone()
            outcome = _outcome(found, wanted[definition.name])
            outcomes[definition.name] = outcome
            if outcome != "unchanged":
                _make(session, conn, spec, definition, enable=outcome == "repaired")
        change(session, conn, lambda c: _follow(c, table))
    return SchemaChange.of(spec.name, outcomes, started)


def _follow(conn: Connection, table: str) -> None:
    """Gives partitions the triggers for TRUNCATE, which they do not get by themselves."""
    conn.execute(
        "select b44.follow_truncate_triggers(partrelid) from pg_partitioned_table where partrelid = to_regclass(%s)",
        (f"public.{table}",),
    )


def _outcome(found: tuple[str, bool] | None, wanted: str) -> str:
    if found is None:
        return "created"
    definition, in_force = found
    if definition != wanted:
        return "replaced"
    return "unchanged" if in_force else "repaired"


def _wanted(conn: Connection, schema: str, spec: Spec, definitions: Sequence[TriggerDefinition]) -> dict[str, str]:
    shadow(conn, schema, [definitions[0].table])
    run_together(conn, spec, [(one.statement.line, one.statement.text) for one in definitions])
    rows = conn.execute(
        "select tgname, pg_get_triggerdef(oid, true) from pg_trigger where tgrelid = to_regclass(%s) and not tgisinternal",
        (f"{schema}.{definitions[0].table}",),
    ).fetchall()
    return dict(rows)


def _make(session: Session, conn: Connection, spec: Spec, definition: TriggerDefinition, *, enable: bool) -> None:
    def operation(conn: Connection) -> None:
        run(conn, spec, definition.statement.line, definition.statement.text)
        if enable:
            conn.execute(
                sql.SQL("alter table {} enable trigger {}").format(
                    sql.Identifier("public", definition.table), sql.Identifier(definition.name)
                )
            )

    change(session, conn, operation)
