"""`migration.plan_<table>`: the plan once more, from SQL, for whoever loads by hand."""

from __future__ import annotations

from dataclasses import replace
from typing import cast

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.migration.batch_statements import create_batch_functions
from b44_assets.migration.plan_basis import Basis
from b44_assets.migration.plan_evaluation import evaluate
from b44_assets.migration.plan_notes import write_notes
from b44_assets.migration.recorded_statements import Recorder
from b44_assets.session import (
    Connection,
    Session,
)


def create_plan_function(session: Session, conn: Connection, mapping: TableMapping, basis: Basis) -> None:
    """Makes `migration.plan_<table>`: the same plan once more, from SQL, when what it reads has changed.

    Args:
        session: The run, whose limits hold for it.
        conn: In the transaction of the plan, which is made.
        mapping: The entity's mapping.
        basis: What the plan depends on.
    """
    table, catalog = mapping.spec.name, session.catalog
    by_hand = replace(session, run_id=None)
    variants: dict[bool, sql.Composable] = {}
    settings: list[str] = []
    recorder: Recorder | None = None
    for again in (True, False):
        recorder = Recorder(conn, recorder)
        recording = cast("Connection", recorder)
        evaluate(recording, catalog, mapping, again=again)
        write_notes(by_hand, recording, mapping, basis, sql.SQL("current_setting('b44.fingerprint')"), again=again)
        create_batch_functions(recording, mapping, catalog.table(table).period, updates=again, corrected=True)
        variants[again] = sql.SQL("\n").join(
            sql.SQL("execute {};").format(sql.Literal(text)) for text in recorder.statements
        )
        settings = recorder.settings
    body = sql.SQL(
        """
        begin
          -- As it is before anything is read: what changes meanwhile is planned for once more.
          perform set_config('b44.fingerprint', migration.fingerprint_of({made_of}, {reads}), true);
          if exists (select from migration.migrated where entity = {entity}) then
            {again}
          else
            {first}
          end if;
          {limit}
        end
        """
    ).format(
        made_of=sql.Literal(basis.made_of),
        reads=sql.Literal(list(basis.reads)),
        entity=sql.Literal(table),
        again=variants[True],
        first=variants[False],
        limit=_limited(session, table),
    )
    function = sql.Identifier("migration", f"plan_{table}")
    conn.execute(
        sql.SQL(
            "create or replace function {}() returns void language plpgsql set search_path = public, pg_temp {} as {}"
        ).format(
            function,
            # Settings of this module's own statements.
            sql.SQL(" ").join(sql.SQL("set " + setting) for setting in settings),  # pyright: ignore[reportArgumentType]
            sql.Literal(body.as_string(conn)),
        )
    )
    conn.execute(sql.SQL("revoke all on function {}() from public").format(function))


def _limited(session: Session, table: str) -> sql.Composable:
    """Refuses a plan with more refused records than the session allows, as PL/pgSQL."""
    limit = session.max_quarantine
    if limit is None:
        return sql.SQL("")
    share = limit.percent
    return sql.SQL(
        """
        if exists (select from migration.plans s where s.entity = {entity} and {exceeded}) then
          raise exception using message = {message};
        end if;
        """
    ).format(
        entity=sql.Literal(table),
        exceeded=sql.SQL("s.quarantined > {}").format(sql.Literal(limit.count))
        if share is None
        else sql.SQL("s.quarantined * 100 * {}::numeric > s.read * {}::numeric").format(
            sql.Literal(share.denominator), sql.Literal(share.numerator)
        ),
        message=sql.Literal(f"{table}: more records would be quarantined than B44_MAX_QUARANTINE={limit} allows"),
    )
