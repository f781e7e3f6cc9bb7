"""Sessions that use their connections again, as a run does: what a server gathers of the tables costs more than most statements."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import replace

import psycopg

from b44_assets.session import Connection, Kept, Session


class _Idle(list[Connection]):
    """Connections without a lock and a purpose, for whoever looks at the database between two pieces of work."""

    def append(self, conn: Connection) -> None:
        try:
            conn.execute(
                "select pg_catalog.pg_advisory_unlock_all(), pg_catalog.set_config('application_name', 'idle', false)"
            )
        except psycopg.Error:
            # It was ended meanwhile.
            conn.close()
        else:
            super().append(conn)


@contextmanager
def keeping(session: Session) -> Generator[Session]:
    """The same session, which uses its connections again until the end of the block, and holds nothing in between."""
    kept = Kept(free=defaultdict(_Idle))
    try:
        yield replace(session, kept=kept)
    finally:
        kept.close()
