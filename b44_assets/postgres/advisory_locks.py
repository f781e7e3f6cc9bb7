"""Advisory locks: one process at a time for what must not run twice."""

from __future__ import annotations

import hashlib
import logging
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TypeVar

import psycopg
from psycopg import errors, pq, sql
from psycopg.rows import TupleRow, class_row

from b44_assets.errors import DatabaseError, LockLostError

logger = logging.getLogger(__name__)

T = TypeVar("T")

_POLL_SECONDS = 0.25
_TIMES_HELD = 2
_CHECK_AGAIN_SECONDS = 0.1


@dataclass(frozen=True)
class LockHolder:
    """A session of the server that holds what another one waits for.

    Attributes:
        pid: Its process in the server.
        application_name: What it calls itself; for the server's own processes their kind, as `autovacuum worker`.
        since: When the session began, or `None` where the server does not show it to us.
    """

    pid: int
    application_name: str
    since: datetime | None

    def __str__(self) -> str:
        """The session as it is named in a message."""
        since = f", connected since {self.since.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC" if self.since else ""
        return f"process {self.pid} ({self.application_name or 'unnamed'}{since})"


def advisory_key(name: str) -> int:
    """Returns the key of a named lock: the first eight bytes of the name's SHA-256, as PostgreSQL's bigint.

    In SQL: `('x' || left(encode(sha256(convert_to(name, 'UTF8')), 'hex'), 16))::bit(64)::bigint`.
    """
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big", signed=True)


_AT_WORK = int.from_bytes(hashlib.sha256(b"at work").digest()[:4], "big", signed=True)
"""First half of the key that sessions at work share; the other half is the process that keeps others away for them."""


@contextmanager
def advisory_lock(
    conn: psycopg.Connection[TupleRow],
    name: str,
    *,
    wait: Callable[[LockHolder | None], None] | None = None,
    timeout: float | None = None,
    shared: bool = False,
    sleep: Callable[[float], None] = time.sleep,
) -> Generator[HeldLock]:
    """Holds a lock of the whole database, by name, until the block is left or the session ends.

    It is polled for rather than waited for, so that the waiting process can say whom it waits for, is not bound by
    `lock_timeout`, and ends at once when interrupted.

    Args:
        conn: A connection with no transaction open; the same session may take a lock again.
        name: What the lock is called; the same name is the same lock for every version of this project.
        wait: Called once if somebody else holds the lock, with who it is, or `None` if they had just let go.
        timeout: Seconds to wait at most; 0 is not at all, `None` for as long as it takes.
        shared: Whether others may hold it at the same time that want to share it, too.
        sleep: How to wait, for tests.

    Yields:
        The lock, for who must be sure to have it still.

    Raises:
        DatabaseError: If the time is over; names the holder.
    """
    if conn.info.transaction_status != pq.TransactionStatus.IDLE:
        raise ValueError("an advisory lock is taken on a connection with no transaction open")
    key = advisory_key(name)
    waited = 0.0
    told = False
    while not _try_lock(conn, key, shared=shared):
        if timeout is not None and waited >= timeout:
            holder = _holder(conn, key)
            raise DatabaseError(f"the lock {name!r} is held by {holder or 'a session that has just let go of it'}")
        if wait is not None and not told:
            wait(_holder(conn, key))
            told = True
        pause = _POLL_SECONDS if timeout is None else min(_POLL_SECONDS, timeout - waited)
        sleep(pause)
        waited += pause
    try:
        yield HeldLock(conn, name, shared=shared)
    finally:
        _unlock(conn, key, shared=shared)


class HeldLock:
    """An advisory lock and the session that it lives in."""

    def __init__(self, conn: psycopg.Connection[TupleRow], name: str, *, shared: bool = False) -> None:
        self._conn = conn
        self._name = name
        self._held = sql.SQL("SELECT {unlock}({key}) AND {lock}({key})").format(
            unlock=sql.Identifier("pg_catalog", "pg_advisory_unlock_shared" if shared else "pg_advisory_unlock"),
            lock=sql.Identifier("pg_catalog", "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"),
            key=sql.Literal(advisory_key(name)),
        )
        self._key = advisory_key(name) % 2**64
        self._lost: str | None = None
        self._checked = -_CHECK_AGAIN_SECONDS
        self._pid: int | None = None

    @property
    def pid(self) -> int:
        """The process of the server that holds the lock; a pooler gives the client another number.

        Raises:
            LockLostError: The session is gone.
        """
        if self._pid is None:
            try:
                row = self._conn.execute("SELECT pg_backend_pid()").fetchone()
                _make_plan(self._conn)
            except psycopg.Error:
                self.check()
                raise
            assert row is not None
            self._pid = row[0]
        assert self._pid is not None
        return self._pid

    def at_work(self) -> sql.Composed:
        """A statement by which another session says that it works under this lock, until it ends, whatever becomes of the lock."""
        return sql.SQL("SELECT pg_advisory_lock_shared({}, {})").format(_AT_WORK, self.pid)

    def outlast(
        self,
        *,
        wait: Callable[[LockHolder], None] | None = None,
        timeout: float = 600.0,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """Waits until no session works under an earlier holder's lock that was lost.

        Whoever lost it learns of it between two statements only, and a client that was killed not at all; the server ends
        what it has begun for them. Who works under a lock that is held (shared with this one) is not waited for.

        Args:
            wait: Called once for each session that is waited for.
            timeout: Seconds to wait at most.
            sleep: How to wait, for tests.

        Raises:
            DatabaseError: The time is over; names the session, and how to end it.
            psycopg.Error: The lock's own session is gone.
        """
        waited = 0.0
        told: set[int] = set()
        while (left := self._left_at_work()) is not None:
            if waited >= timeout:
                raise DatabaseError(
                    f"{left} is still at work for an earlier run whose lock {self._name!r} was lost: end that process, or"
                    f" the session by SELECT pg_terminate_backend({left.pid}), and run the same command again"
                )
            if wait is not None and left.pid not in told:
                wait(left)
                told.add(left.pid)
            sleep(_POLL_SECONDS)
            waited += _POLL_SECONDS

    def _left_at_work(self) -> LockHolder | None:
        with self._conn.cursor(row_factory=class_row(LockHolder)) as cursor:
            parameters = (_AT_WORK % 2**32, self._key >> 32, self._key & 0xFFFFFFFF)
            left = cursor.execute(_LEFT_AT_WORK, parameters).fetchone()
        _make_plan(self._conn)
        return left

    def check(self) -> None:
        """Asks the session whether it has the lock, which also keeps whatever is on the way from taking it for unused.

        Raises:
            LockLostError: It has not, or is gone: by a time limit of the server, a network or a pooler, or a restart. Once
                lost, a lock is lost for good, since others may have had it meanwhile.
        """
        if self._lost is None:
            self._checked = time.monotonic()
            try:
                # Held twice, it stays held throughout; to look for it among all locks of the server takes far longer, and
                # this is asked before every piece of work.
                row = self._conn.execute(self._held).fetchone()
                _make_plan(self._conn)
                if row is None or not row[0]:
                    self._lost = "the session of the server is another one"
            except psycopg.Error as error:
                self._lost = (str(error).strip().splitlines() or [type(error).__name__])[0]
        if self._lost is not None:
            raise LockLostError(
                f"the connection that kept other migrations of this database away was lost ({self._lost}); stopped at once,"
                " and nothing that was done is lost: run the same command again to go on"
            )

    def check_again(self) -> None:
        """As `check`, but for a check of just now: for work of a session that said it is `at_work` before that one.

        Whoever gets the lock after a loss waits for such a session (`outlast`), so that nothing it does meanwhile is amiss.
        """
        if self._lost is not None or time.monotonic() - self._checked >= _CHECK_AGAIN_SECONDS:
            self.check()

    @property
    def lost(self) -> bool:
        """Whether a check has found the lock gone."""
        return self._lost is not None


@contextmanager
def watched(lock: HeldLock, on_loss: Callable[[], object], *, every: float = 1.0) -> Generator[None]:
    """Checks a lock again and again, from a thread, while the block runs.

    Args:
        lock: The lock.
        on_loss: Called once, in that thread, when it is lost.
        every: Seconds between two checks.
    """
    done = threading.Event()

    def watch() -> None:
        while not done.wait(every):
            try:
                lock.check()
            except LockLostError:
                if not done.is_set():
                    on_loss()
                return

    thread = threading.Thread(target=watch, name="b44-lock-check", daemon=True)
    thread.start()
    try:
        yield
    finally:
        done.set()
        thread.join()


SESSIONS = sql.SQL("""
    SELECT pid,
           CASE WHEN backend_type = 'client backend' THEN coalesce(application_name, '')
                ELSE coalesce(backend_type, '') END AS application_name,
           backend_start AS since
    FROM pg_stat_activity
""")
_HOLDER = sql.SQL("""
    {sessions} WHERE pid IN (
        SELECT pid FROM pg_locks
        WHERE locktype = 'advisory' AND granted AND objsubid = 1
          AND database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND classid = %s::oid AND objid = %s::oid)
    LIMIT 1
""").format(sessions=SESSIONS)
# An earlier run's: the process whose lock they work under does not hold it.
_LEFT_AT_WORK = sql.SQL("""
    {sessions} WHERE pid IN (
        SELECT w.pid FROM pg_locks w
        WHERE w.locktype = 'advisory' AND w.granted AND w.objsubid = 2 AND w.classid = %s::oid
          AND w.database = (SELECT oid FROM pg_database WHERE datname = current_database())
          AND NOT EXISTS (
            SELECT FROM pg_locks l
            WHERE l.locktype = 'advisory' AND l.granted AND l.objsubid = 1 AND l.database = w.database
              AND l.pid = w.objid::bigint AND l.classid = %s::oid AND l.objid = %s::oid))
    ORDER BY pid LIMIT 1
""").format(sessions=SESSIONS)


def _try_lock(conn: psycopg.Connection[TupleRow], key: int, *, shared: bool) -> bool:
    function = "pg_try_advisory_lock_shared" if shared else "pg_try_advisory_lock"
    # Held twice, for `HeldLock.check`: what is held twice can be given back once.
    attempt = sql.SQL(" AND ").join([sql.SQL("{}({})").format(sql.Identifier(function), key)] * _TIMES_HELD)
    row = conn.execute(sql.SQL("SELECT {}").format(attempt)).fetchone()
    _make_plan(conn)
    assert row is not None
    return bool(row[0])


def _holder(conn: psycopg.Connection[TupleRow], key: int) -> LockHolder | None:
    """Returns who holds the lock; pg_locks shows the key as two halves without sign."""
    unsigned = key % 2**64
    with conn.cursor(row_factory=class_row(LockHolder)) as cursor:
        holder = cursor.execute(_HOLDER, (unsigned >> 32, unsigned & 0xFFFFFFFF)).fetchone()
    _make_plan(conn)
    return holder


def lock_holder(conn: psycopg.Connection[TupleRow], name: str) -> LockHolder | None:
    """Returns who holds a named lock of the database; None where nobody does."""
    return _holder(conn, advisory_key(name))


def _unlock(conn: psycopg.Connection[TupleRow], key: int, *, shared: bool) -> None:
    if conn.closed:
        return
    status = conn.info.transaction_status
    if status in (pq.TransactionStatus.ACTIVE, pq.TransactionStatus.UNKNOWN):
        # Interrupted in the midst of a statement: the session cannot be spoken to, and its end frees the lock.
        conn.close()
        return
    if status == pq.TransactionStatus.INERROR:
        conn.rollback()
    idle = conn.info.transaction_status == pq.TransactionStatus.IDLE
    try:
        function = "pg_advisory_unlock_shared" if shared else "pg_advisory_unlock"
        given_back = sql.SQL(", ").join([sql.SQL("{}({})").format(sql.Identifier(function), key)] * _TIMES_HELD)
        conn.execute(sql.SQL("SELECT {}").format(given_back))
    except errors.OperationalError as error:
        # The connection broke just now, and the lock went with it.
        logger.debug("advisory lock freed by the end of the session: %s", error)
        return
    if idle:
        _make_plan(conn)


def _make_plan(conn: psycopg.Connection[TupleRow]) -> None:
    """Ends the transaction that psycopg opened for a statement of ours; a lock of the session stays."""
    if not conn.autocommit:
        conn.commit()
