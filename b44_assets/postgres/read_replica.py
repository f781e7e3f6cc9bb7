"""A standby that is read from in place of the target: whether it is one, and has all that the target had."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass

import psycopg
from psycopg.rows import TupleRow

from b44_assets.errors import DatabaseError
from b44_assets.postgres.connect import connect

VARIABLE = "B44_READ_URL"
_LOOK_EVERY_SECONDS = 0.05

_POSITION = """
select system_identifier, current_database(), pg_is_in_recovery(),
       case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_flush_lsn() end::text
  from pg_control_system()
"""
_BEHIND = "select greatest(pg_wal_lsn_diff(%s, pg_last_wal_replay_lsn()), 0)::bigint"

Connection = psycopg.Connection[TupleRow]


@dataclass(frozen=True)
class Position:
    """Which database a connection reaches, and how far its WAL goes.

    Attributes:
        cluster: The number that a server and its standbys have in common.
        database: Its name.
        standby: Whether the server only replays what another one has written.
        lsn: What is on its disk; of a standby, what it has replayed; None where it has replayed nothing yet.
    """

    cluster: int
    database: str
    standby: bool
    lsn: str | None


def position_of(conn: Connection) -> Position:
    """Asks a server for its position."""
    row = conn.execute(_POSITION).fetchone()
    assert row is not None
    return Position(*row)


def connect_replica(url: str, *, application_name: str) -> Connection:
    """Connects to what is to be a standby of the target, in autocommit mode.

    Raises:
        DatabaseError: As of `connect`, with the name of the setting.
    """
    try:
        return connect(url, application_name=application_name, autocommit=True)
    except DatabaseError as error:
        raise type(error)(f"{VARIABLE}: {error}") from error


class ReadReplica:
    """The standby of a target, for all that reads from it in one run.

    What is read there is at least as new as the target was when it was first asked for.

    Args:
        url: libpq URL.
        patience: Seconds for which to wait until the standby has caught up.
        sleep: How to wait, for tests.
    """

    def __init__(self, url: str, patience: float, sleep: Callable[[float], None] = time.sleep) -> None:
        self.url = url
        self._patience, self._sleep = patience, sleep
        self._lock = threading.Lock()
        self._target: Position | None = None
        self._caught_up = False
        self._fault: DatabaseError | None = None

    def require(self, conn: Connection, target: Callable[[], AbstractContextManager[Connection]]) -> None:
        """Makes sure that a connection to the standby shows what the target had.

        Args:
            conn: To the standby, in autocommit mode.
            target: Opens a connection to the target; asked for once.

        Raises:
            DatabaseError: It is no standby of the target, or stays behind; said at once to whoever asks after that.
        """
        with self._lock:
            if self._fault is not None:
                raise DatabaseError(str(self._fault))
            if self._target is None:
                with target() as asked:
                    self._target = position_of(asked)
            try:
                _require_standby(self._target, position_of(conn))
                if not self._caught_up:
                    self._wait(conn, self._target)
                    self._caught_up = True
            except DatabaseError as fault:
                self._fault = fault
                raise

    def _wait(self, conn: Connection, target: Position) -> None:
        end = time.monotonic() + self._patience
        while (behind := _behind(conn, target)) != 0:
            if time.monotonic() >= end:
                far = "has replayed nothing yet" if behind is None else f"is {behind:,} bytes of WAL behind the target"
                raise DatabaseError(
                    f"{VARIABLE}: the standby {far} after {self._patience:g} s (B44_READ_WAIT): see to its replication, or take"
                    f" {VARIABLE} away to read from the target"
                )
            self._sleep(_LOOK_EVERY_SECONDS)


def bytes_behind(conn: Connection, target: Connection) -> int | None:
    """How far a standby is behind the target, in bytes of WAL; None where it has replayed nothing yet.

    Raises:
        DatabaseError: It is no standby of the target.
    """
    wanted = position_of(target)
    _require_standby(wanted, position_of(conn))
    return _behind(conn, wanted)


def _behind(conn: Connection, target: Position) -> int | None:
    row = conn.execute(_BEHIND, (target.lsn,)).fetchone()
    assert row is not None
    return row[0]


def _require_standby(target: Position, found: Position) -> None:
    remedy = f"name a standby of the target, or take {VARIABLE} away"
    if found.cluster != target.cluster:
        raise DatabaseError(f"{VARIABLE}: that server is no standby of the target, but another one: {remedy}")
    if not found.standby:
        raise DatabaseError(
            f"{VARIABLE}: that server takes writes of its own, so it is no standby of the target (any more): {remedy}"
        )
    if found.database != target.database:
        raise DatabaseError(
            f"{VARIABLE} names database {found.database!r}, and the target is {target.database!r}: name the same database"
        )
