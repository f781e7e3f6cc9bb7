"""VACUUM and ANALYZE of what a load has just written, where an application is in use: kept off meanwhile, at its pace after."""

from __future__ import annotations

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial

from b44_assets.maintenance.vacuum import analyze, is_analyzed_whole, kept_from_autovacuum, needs_vacuum, vacuum
from b44_assets.migration.throttling import Pacer
from b44_assets.session import Connection, Session


class ThrottledVacuum:
    """The maintenance that a throttled load is handed."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def undisturbed(self, table: str) -> AbstractContextManager[None]:
        """Lets nothing else, for a block, be at work on what is written."""
        return kept_from_autovacuum(self._session, table)

    def after(self, conn: Connection, table: str, written: int, pacer: Pacer, stopped: Callable[[], bool]) -> None:
        """Vacuums what was written at once, by itself and with rests.

        After VACUUM all sessions plan their statements anew, and should have the processors for it.
        """
        if not needs_vacuum(conn, table, written):
            return
        read_whole = is_analyzed_whole(conn, table)
        for step in (partial(vacuum, analyze=False, read_whole=read_whole), analyze):
            pacer.wait(conn, stopped=stopped, told=self._session.notice)
            if stopped():
                return
            started = time.monotonic()
            step(conn, table)
            pacer.worked(time.monotonic() - started)
