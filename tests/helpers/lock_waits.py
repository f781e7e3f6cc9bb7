"""A command that is held up by a lock, for certain."""

from __future__ import annotations

from collections.abc import Generator
from contextlib import contextmanager

import psycopg
from psycopg import sql

from tests.helpers.command import Running
from tests.helpers.database_contents import value


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
