"""VACUUM and ANALYZE of what has changed: each night of all tables, and of what a throttled load has written right behind it.

What belongs here: dead rows, the visibility map, the planner's statistics. What does not: indexes; see `index_maintenance`.
"""

from __future__ import annotations

import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

import psycopg
from psycopg import errors, sql
from psycopg.errors import Diagnostic

from b44_assets.session import Connection, Session, explained, scalar

CHANGED_SHARE = 0.05
"""Share of a table's rows that must have changed since it was last vacuumed for it to be worth it again."""
_PAGES_ANALYZED = 300
"""Pages that ANALYZE reads for each unit of `default_statistics_target`; of a table that has no more, all."""


@dataclass(frozen=True)
class VacuumedTable:
    """A table or partition that was vacuumed and analyzed: its dead rows, and rows changed since it was last analyzed."""

    name: str
    dead_rows: int
    changed_rows: int


@dataclass(frozen=True)
class Vacuumed:
    """What was vacuumed.

    Attributes:
        tables: What was vacuumed and analyzed.
        looked_at: Tables and partitions in all.
        busy: Those that were due and that other work kept locked; the next one takes them.
        seconds: How long it took.
    """

    tables: tuple[VacuumedTable, ...]
    looked_at: int
    busy: tuple[str, ...]
    seconds: float


def vacuum_changed(session: Session) -> Vacuumed:
    """Vacuums and analyzes the tables and partitions of schema public that have changed enough since the last time.

    It keeps no reader or writer waiting, and waits for none: what is locked by other maintenance is left for the next time.

    Raises:
        DatabaseError: The server refuses; names the table.
    """
    started = time.monotonic()
    vacuumed: list[VacuumedTable] = []
    busy: list[str] = []
    with session.connection("vacuum") as conn:
        rows = conn.execute(
            """
            select c.relname, s.n_dead_tup, s.n_mod_since_analyze,
                   s.n_dead_tup + s.n_mod_since_analyze > 0
                     and greatest(s.n_dead_tup, s.n_mod_since_analyze) >= greatest(s.n_live_tup, 1) * %s::float8
                     or s.n_live_tup > 0 and s.last_analyze is null and s.last_autoanalyze is null
              from pg_stat_user_tables s
              join pg_class c on c.oid = s.relid and c.relkind = 'r'
             where s.schemaname = 'public'
             order by c.relname
            """,
            (CHANGED_SHARE,),
        ).fetchall()
        for name, dead, changed, due in rows:
            if not due:
                continue
            session.progress("vacuum", len(vacuumed), len(rows))
            if vacuum(conn, name):
                vacuumed.append(VacuumedTable(name, dead, changed))
            else:
                busy.append(name)
    return Vacuumed(tuple(vacuumed), len(rows), tuple(busy), time.monotonic() - started)


def is_analyzed_whole(conn: Connection, table: str) -> bool:
    """Tells whether ANALYZE reads all pages of a table or partition of schema public, and not a sample of them."""
    whole = scalar(
        conn,
        "select pg_relation_size(to_regclass('public.' || quote_ident(%s)))"
        " <= current_setting('block_size')::bigint * %s * current_setting('default_statistics_target')::bigint",
        (table, _PAGES_ANALYZED),
    )
    return whole is True


def needs_vacuum(conn: Connection, table: str, written: int) -> bool:
    """Tells whether a table or partition of schema public is due after so many of its rows were written."""
    due = scalar(
        conn,
        "select %s >= greatest(reltuples, 1) * %s::float8 from pg_class where oid = to_regclass('public.' || quote_ident(%s))",
        (written, CHANGED_SHARE, table),
    )
    return due is True


def vacuum(conn: Connection, table: str, *, analyze: bool = True, read_whole: bool = False) -> bool:
    """Vacuums a table or partition of schema public.

    Args:
        conn: Autocommit, with no transaction open.
        table: Its name.
        analyze: Whether to analyze it, too.
        read_whole: Whether to count its rows as ANALYZE will, and not to estimate them from the pages that have changed. An
            ANALYZE that comes later then need not correct them: with each correction all sessions plan anew.

    Returns:
        False where other maintenance keeps it locked.

    Raises:
        DatabaseError: The server refuses; names the table.
    """
    # Not even its last step, which gives empty pages back, waits for anybody.
    options = [sql.SQL("skip_locked")]
    if analyze:
        options.append(sql.SQL("analyze"))
    if read_whole:
        options.append(sql.SQL("disable_page_skipping"))
    return _maintained(conn, sql.SQL("vacuum"), options, table)


def analyze(conn: Connection, table: str) -> bool:
    """Gathers the planner's statistics of a table or partition of schema public; otherwise as `vacuum`."""
    return _maintained(conn, sql.SQL("analyze"), [sql.SQL("skip_locked")], table)


def _maintained(conn: Connection, verb: sql.SQL, options: Sequence[sql.SQL], table: str) -> bool:
    notices: list[str] = []

    def note(diagnostic: Diagnostic) -> None:
        notices.append(diagnostic.message_primary or "")

    command = sql.SQL("{} ({}) {}").format(verb, sql.SQL(", ").join(options), sql.Identifier("public", table))
    conn.add_notice_handler(note)
    try:
        conn.execute(command)
    except psycopg.Error as error:
        raise explained(f"{table} cannot be vacuumed", error) from error
    finally:
        conn.remove_notice_handler(note)
    # The server says so in a warning and calls it done.
    return not notices


@contextmanager
def kept_from_autovacuum(session: Session, table: str) -> Generator[None]:
    """Lets no autovacuum begin on a table or partition of schema public during the block; keeps nobody else waiting.

    What loads a partition a minute would otherwise have it vacuumed every minute, by as many workers as there are, and each
    time every session of the application plans its statements anew. The lock is gone with the session, however that ends;
    a vacuum against wrap-around waits for it. Where other maintenance holds the lock already, nothing is kept off.

    Args:
        session: The run.
        table: What is written in the block.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    with session.connection(f"keep autovacuum from {table}") as conn:
        # It has neither a snapshot nor a transaction's number, so that it holds back no vacuum elsewhere.
        conn.execute("begin isolation level read committed")
        conn.execute(
            "select set_config(name, '0', true) from pg_settings"
            " where name in ('idle_in_transaction_session_timeout', 'transaction_timeout')"
        )
        with suppress(errors.LockNotAvailable):
            conn.execute(
                sql.SQL("lock table only {} in share update exclusive mode nowait").format(
                    sql.Identifier("public", table)
                )
            )
        try:
            yield
        finally:
            # A lost session holds no lock any more.
            with suppress(psycopg.OperationalError):
                conn.execute("rollback")
