"""DDL that never makes others wait for long: a short wait for a lock, tried again."""

from __future__ import annotations

import functools
import logging
import random as random_module
import threading
import time
from collections.abc import Callable
from datetime import datetime
from typing import TypeVar

import psycopg
from psycopg import errors, pq, sql
from psycopg.conninfo import make_conninfo
from psycopg.rows import TupleRow, class_row

from b44_assets.errors import DatabaseError
from b44_assets.postgres.advisory_locks import SESSIONS, LockHolder
from b44_assets.postgres.connect import connect

logger = logging.getLogger(__name__)

T = TypeVar("T")

_FIRST_PAUSE_SECONDS = 0.1
_LONGEST_PAUSE_SECONDS = 10.0
_TICK_SECONDS = 0.01
_IDLE_SECONDS = 1.0
_DISPLACING_MS = 1_000
"""How long past `deadlock_timeout` an autovacuum may take to end once it was told to."""


def with_lock_retries(
    conn: psycopg.Connection[TupleRow],
    operation: Callable[[psycopg.Connection[TupleRow]], T],
    *,
    lock_timeout: int,
    attempts: int,
    sleep: Callable[[float], None] = time.sleep,
    random: Callable[[], float] = random_module.random,
) -> T:
    """Runs DDL in a transaction of its own that gives up quickly if somebody is in its way, and tries again.

    A statement that waits for an exclusive lock makes everybody who comes after it wait too. So it waits for
    `lock_timeout` at most, and then lets the others through for a while that doubles from 0.1 to 10 seconds, less up to
    a half at random, lest two who clashed clash again.

    An attempt may take many locks, each of which PostgreSQL would wait for as long. While it waits for one it may hold the
    others, so that their waits together are bounded by `lock_timeout`: a second connection adds them up, and ends the
    statement.

    An autovacuum gives way only to who waits for longer than `deadlock_timeout`, which is more than `lock_timeout`. Where
    one, or other maintenance, was in the way, the next attempt first waits for it in a mode that keeps no reader or writer
    waiting.

    Args:
        conn: A connection with no transaction open.
        operation: What to do; it is called once an attempt and must leave the transaction to us.
        lock_timeout: Milliseconds that an attempt may wait for all of its locks, at least 1.
        attempts: How often to try, at least 1.
        sleep: How to pause, for tests.
        random: Gives a number from 0 to 1, for tests.

    Returns:
        What the operation returned.

    Raises:
        DatabaseError: If the last attempt did not get its lock; names the sessions in the way.
    """
    if attempts < 1 or lock_timeout < 1:
        raise ValueError("attempts and lock_timeout are at least 1")
    if conn.info.transaction_status != pq.TransactionStatus.IDLE:
        # An outer transaction would keep its locks through the pauses.
        raise ValueError("DDL with retries needs a connection with no transaction open")
    blockers: tuple[LockHolder, ...] = ()
    for attempt in range(1, attempts + 1):
        # The first attempt mostly succeeds at once; only where it does not is it worth a second connection.
        watch = _Watch(conn, lock_timeout, at_once=attempt > 1 or attempts == 1)
        try:
            with conn.transaction():
                _displace_maintenance(conn, blockers)
                row = conn.execute(
                    "SELECT pg_backend_pid(), set_config('lock_timeout', %s, true)", (f"{lock_timeout}ms",)
                ).fetchone()
                assert row is not None
                watch.begin(row[0])
                return operation(conn)
        except Exception as error:
            # Of a statement that the watch has ended, the operation may have made an error of its own.
            if not (isinstance(error, errors.LockNotAvailable | errors.DeadlockDetected) or watch.expired):
                raise
            blockers = watch.stop()
            if attempt == attempts:
                who = ", ".join(map(str, blockers)) or "sessions that were gone before they could be named"
                times = f"{attempts} attempt{'s' * (attempts > 1)}"
                raise DatabaseError(f"no lock within {lock_timeout} ms in {times}: {who} stood in the way") from error
            pause = min(_FIRST_PAUSE_SECONDS * 2 ** (attempt - 1), _LONGEST_PAUSE_SECONDS) * (1 - random() / 2)
            sleep(pause)
        finally:
            watch.stop()
    raise AssertionError("unreachable")


def _displace_maintenance(conn: psycopg.Connection[TupleRow], blockers: tuple[LockHolder, ...]) -> None:
    """Waits until no (auto)vacuum, ANALYZE or the like of these sessions is left, and lets none begin before we end."""
    if not blockers:
        return
    relations = conn.execute(
        "SELECT DISTINCT n.nspname, c.relname FROM pg_locks l JOIN pg_class c ON c.oid = l.relation"
        " JOIN pg_namespace n ON n.oid = c.relnamespace"
        " WHERE l.pid = ANY (%s) AND l.granted AND l.mode = 'ShareUpdateExclusiveLock' AND c.relkind IN ('r', 'p')"
        " AND l.database = (SELECT oid FROM pg_database WHERE datname = current_database()) ORDER BY 1, 2",
        ([session.pid for session in blockers],),
    ).fetchall()
    conn.execute(
        "SELECT set_config('lock_timeout', (setting::integer + %s)::text, true) FROM pg_settings WHERE name = 'deadlock_timeout'",
        (_DISPLACING_MS,),
    )
    for relation in relations:
        conn.execute(sql.SQL("LOCK TABLE ONLY {} IN SHARE UPDATE EXCLUSIVE MODE").format(sql.Identifier(*relation)))


_BLOCKERS = sql.SQL("{sessions} WHERE pid = ANY (pg_blocking_pids(%s)) ORDER BY pid").format(sessions=SESSIONS)
# How long a session has been waiting for a lock by now, and since when, to tell one wait from the next.
_WAITING = """
    SELECT waitstart, extract(epoch FROM clock_timestamp() - waitstart)::float8
    FROM pg_locks WHERE pid = %s AND NOT granted AND waitstart IS NOT NULL
"""


class _Watch:
    """Sees from a second connection who blocks ours (afterwards it would be too late to ask), and for how long in all.

    Attributes:
        expired: Whether the waits of the attempt together were too long, so that its statement was ended.
    """

    def __init__(self, conn: psycopg.Connection[TupleRow], lock_timeout: int, *, at_once: bool) -> None:
        self._dsn = conn.info.dsn
        self._password = conn.info.password
        self._lock_timeout = lock_timeout / 1000
        self._interval = min(max(self._lock_timeout / 5, 0.01), 0.25)
        self._begun = threading.Event()
        self._done = threading.Event()
        self._ready = threading.Event()
        self._seen: tuple[LockHolder, ...] = ()
        self._pid = 0
        self._at_once = at_once
        self.expired = False
        self._thread: threading.Thread | None = None
        self._starting = threading.Lock()
        if at_once:
            self.start()
            # Connected before the attempt begins, or a short lock_timeout would be over first.
            self._ready.wait(timeout=5)

    def begin(self, pid: int) -> None:
        """The attempt begins, in this process of the server."""
        self._pid = pid
        self._begun.set()
        if not self._at_once:
            _starter().add(self, time.monotonic() + self._lock_timeout / 4)

    def start(self) -> None:
        """Begins to look, unless the attempt is over."""
        with self._starting:
            if not self._done.is_set():
                self._thread = threading.Thread(target=self._look, name="b44-lock-watch", daemon=True)
                self._thread.start()

    def stop(self) -> tuple[LockHolder, ...]:
        """Ends the watch and returns the sessions seen last."""
        with self._starting:
            self._done.set()
        self._begun.set()
        if self._thread is not None:
            self._thread.join()
        elif not self._at_once:
            _starter().remove(self)
        return self._seen

    def _look(self) -> None:
        try:
            with connect(
                make_conninfo(self._dsn, password=self._password or None),
                application_name="b44 lock watch",
                autocommit=True,
            ) as conn:
                self._ready.set()
                self._begun.wait()
                self._add_up(conn)
        except (psycopg.Error, DatabaseError) as error:
            # The names are lost, and of the bound what is beyond that of each lock.
            logger.debug("cannot see who holds the lock: %s", error)
        finally:
            self._ready.set()

    def _add_up(self, conn: psycopg.Connection[TupleRow]) -> None:
        cursor = conn.cursor(row_factory=class_row(LockHolder))
        waits: dict[datetime, float] = {}
        while not self._done.wait(self._interval):
            if self._at_once:
                found = cursor.execute(_BLOCKERS, (self._pid,)).fetchall()
                self._seen = tuple(found) or self._seen
            waits.update(conn.execute(_WAITING, (self._pid,)).fetchall())
            # A single wait is bounded by the server.
            if len(waits) > 1 and sum(waits.values()) >= self._lock_timeout and not self.expired:
                self.expired = True
                conn.execute("SELECT pg_cancel_backend(pid) FROM pg_locks WHERE pid = %s AND NOT granted", (self._pid,))


class _Starter:
    """Starts the watches of attempts that take long, by one thread for all of them: nearly all are over before that."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._due: dict[_Watch, float] = {}
        self._thread: threading.Thread | None = None

    def add(self, watch: _Watch, at: float) -> None:
        """Has a watch started at a time of `time.monotonic`."""
        with self._lock:
            self._due[watch] = at
            # A process that was forked has the object, but not the thread.
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name="b44-lock-watches", daemon=True)
                self._thread.start()

    def remove(self, watch: _Watch) -> None:
        """Has it started no more."""
        with self._lock:
            self._due.pop(watch, None)

    def _run(self) -> None:
        last = time.monotonic()
        while True:
            time.sleep(_TICK_SECONDS)
            now = time.monotonic()
            with self._lock:
                last = now if self._due else last
                due = [watch for watch, at in self._due.items() if at <= now]
                for watch in due:
                    del self._due[watch]
                if now - last >= _IDLE_SECONDS:
                    self._thread = None
                    return
            for watch in due:
                watch.start()


@functools.cache
def _starter() -> _Starter:
    return _Starter()
