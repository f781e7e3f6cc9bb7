"""A command that is held up by a lock, for certain."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import psycopg
from psycopg import sql

from tests.helpers.command import Running
from tests.helpers.database_contents import value


def waits(conn: psycopg.Connection[Any], pid: int) -> bool:
    """Whether a session waits for a lock. Those of other tests may wait on the same server."""
    return conn.execute("select from pg_locks where pid = %s and not granted", (pid,)).fetchone() is not None


def holds_up(conn: psycopg.Connection[Any], pid: int) -> bool:
    """Whether some session waits for this one; asked of pg_locks, since pg_stat_activity stands still within a transaction."""
    query = "select from pg_locks where not granted and %s = any(pg_blocking_pids(pid))"
    return conn.execute(query, (pid,)).fetchone() is not None


def waiting(url: str, purpose: str = "") -> int:
    """How many sessions of ours wait for a lock in the target."""
    return value(
        url,
        "select count(*) from pg_stat_activity where datname = current_database() and application_name like %s"
        " and wait_event_type = 'Lock'",
        f"b44 {purpose}%",
    )


@contextmanager
def stopped_at(running: Running, url: str, table: str, purpose: str, *, after: str = "select true") -> Generator[None]:
    """Holds a migration up, for certain, where it next writes to a table; lets it go at the end of the block.

    Args:
        running: The migration.
        url: Its target.
        table: What it cannot write to.
        purpose: Which of its sessions must be waiting.
        after: A query that must give true before; it may fail until then.
    """

    def reached() -> bool:
        try:
            return bool(value(url, after)) and value(url, "select to_regclass(%s) is not null", table)
        except psycopg.errors.UndefinedTable:
            return False

    running.until(reached)
    with psycopg.connect(url) as conn:
        schema, _, name = table.partition(".")
        conn.execute(sql.SQL("lock table {} in share mode").format(sql.Identifier(schema, name)))
        running.until(lambda: waiting(url, purpose) > 0)
        yield
