"""Trouble of a real server: sessions that wait for locks, standbys that are behind, WAL; and what a role cannot see."""

from __future__ import annotations

import re
import struct
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field

import psycopg
import pytest
from psycopg import pq, sql
from psycopg.conninfo import make_conninfo

from b44_assets.config.quantities import Pace
from b44_assets.migration.throttling import Blindness, Pacer
from b44_assets.postgres.connect import connect
from b44_assets.session import Connection

NO_LIMIT = Pace(max_replication_lag=None, max_lock_queue=None)
QUEUE_OF_NONE = Pace(max_replication_lag=None, max_lock_queue=0)


@dataclass
class Watched:
    """A stream about to begin a batch, whose clock goes only where it sleeps.

    Attributes:
        pace: Its limits.
        told: What it said.
        naps: How often it looked in vain.
        before_nap: Done each time before it looks again.
        nap_seconds: What its clock shows to have passed, a nap.
    """

    pace: Pace
    blindness: Blindness = field(default_factory=Blindness)
    told: list[str] = field(default_factory=list[str])
    naps: int = 0
    before_nap: Callable[[], None] = lambda: None
    nap_seconds: float = 0.25
    now: float = 0.0

    def __post_init__(self) -> None:
        self.pacer = Pacer(self.pace, blindness=self.blindness, clock=lambda: self.now, sleep=self._sleep)

    def _sleep(self, seconds: float) -> None:
        self.naps += 1
        self.now += self.nap_seconds
        self.before_nap()

    def wait(self, conn: Connection) -> None:
        # One that never goes on would keep the tests for ever.
        self.pacer.wait(conn, stopped=lambda: self.naps > 1000, told=self.told.append)
        assert self.naps <= 1000, self.told


@pytest.fixture
def conn(database: str) -> Generator[Connection]:
    with connect(database, application_name="b44 load", autocommit=True) as conn:
        conn.execute("create table t (n int)")
        conn.execute("insert into t values (1)")
        yield conn


def url(conn: Connection, **changed: str) -> str:
    """Where a connection goes to, with some of it changed."""
    return make_conninfo(**(conn.info.get_parameters() | changed))


@contextmanager
def unprivileged(conn: Connection) -> Generator[Connection]:
    """A connection to the same database as a role that may do nothing but connect."""
    role = f"r{uuid.uuid4().hex}"
    conn.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
    try:
        with connect(url(conn, user=role), autocommit=True) as other:
            yield other
    finally:
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))


@contextmanager
def queue(conn: Connection, name: str, sessions: int = 1) -> Generator[Callable[[], None]]:
    """Sessions of that name that wait for a lock; the value lets them have it."""
    with ExitStack() as stack:
        holder = stack.enter_context(psycopg.connect(url(conn)))
        holder.execute("lock table t")
        waiting = [
            stack.enter_context(psycopg.connect(url(conn), application_name=name, autocommit=True))
            for _ in range(sessions)
        ]
        threads = [threading.Thread(target=other.execute, args=("update t set n = n + 1",)) for other in waiting]
        for thread in threads:
            thread.start()

        def free() -> None:
            holder.rollback()
            for thread in threads:
                thread.join()

        pids = [other.info.backend_pid for other in waiting]
        until(conn, "select count(distinct pid) from pg_locks where not granted and pid = any(%s)", sessions, pids)
        try:
            yield free
        finally:
            free()


def until(conn: Connection, query: str, value: object, *parameters: object) -> None:
    deadline = time.monotonic() + 60
    while (row := conn.execute(query.encode(), parameters)).fetchone() != (value,):
        assert time.monotonic() < deadline, f"{query} did not become {value}: {row}"
        time.sleep(0.01)


def position(conn: Connection) -> int:
    """How far the WAL is safe, which is as far as a standby can be."""
    row = conn.execute("select pg_wal_lsn_diff(pg_current_wal_flush_lsn(), '0/0')::bigint").fetchone()
    assert row is not None
    return row[0]


def write(conn: Connection) -> int:
    conn.execute("insert into t select generate_series(1, 1000)")
    return position(conn)


# -- locks -------------------------------------------------------------------------------------------------------------


def test_a_quiet_server_is_no_reason_to_wait(conn: Connection) -> None:
    stream = Watched(Pace(max_lock_queue=0, max_wal_rate=1))

    stream.wait(conn)

    assert (stream.naps, stream.told) == (0, [])


def test_a_load_holds_back_while_more_sessions_wait_for_locks_than_may(conn: Connection) -> None:
    stream = Watched(Pace(max_replication_lag=None, max_lock_queue=1))
    with queue(conn, "shop", sessions=2) as free:
        stream.before_nap = lambda: free() if stream.naps == 4 else None
        stream.wait(conn)

    assert stream.naps == 4
    assert stream.told == [
        "holding back: 2 sessions wait for locks, more than the 1 of B44_MAX_LOCK_QUEUE",
        "going on after 1.0 s",
    ]


def test_as_many_as_may_wait_are_no_trouble(conn: Connection) -> None:
    stream = Watched(Pace(max_replication_lag=None, max_lock_queue=2))
    with queue(conn, "shop", sessions=2):
        stream.wait(conn)

    assert (stream.naps, stream.told) == (0, [])


def test_our_own_sessions_may_wait(conn: Connection) -> None:
    stream = Watched(QUEUE_OF_NONE)
    with queue(conn, "b44 load posts"):
        stream.wait(conn)

    assert (stream.naps, stream.told) == (0, [])


def test_who_waits_in_another_database_is_no_concern_of_ours(conn: Connection) -> None:
    stream = Watched(QUEUE_OF_NONE)
    with queue(conn, "shop"), connect(url(conn, dbname="postgres"), autocommit=True) as elsewhere:
        stream.wait(elsewhere)

    assert (stream.naps, stream.told) == (0, [])


def test_a_role_without_rights_sees_who_waits(conn: Connection) -> None:
    stream = Watched(QUEUE_OF_NONE)
    with unprivileged(conn) as other, queue(conn, "shop") as free:
        stream.before_nap = free
        stream.wait(other)

    assert (stream.naps, len(stream.told)) == (1, 2)


def test_a_load_that_is_stopped_holds_back_no_longer(conn: Connection) -> None:
    stream = Watched(QUEUE_OF_NONE)
    with queue(conn, "shop"):
        stream.pacer.wait(conn, stopped=lambda: stream.naps == 3, told=stream.told.append)

    assert stream.naps == 3
    assert [line.partition(":")[0] for line in stream.told] == ["holding back"]


def test_without_limits_nothing_is_asked(conn: Connection) -> None:
    conn.close()

    Watched(NO_LIMIT).wait(conn)


def test_a_lost_connection_is_an_error(conn: Connection) -> None:
    conn.close()

    with pytest.raises(psycopg.OperationalError):
        Watched(Pace()).wait(conn)


def test_a_statement_that_is_cancelled_is_an_error(conn: Connection) -> None:
    with psycopg.connect(url(conn)) as other:
        # So that the query has to wait.
        other.execute("lock table pg_catalog.pg_locks in access exclusive mode")

        def cancel() -> None:
            until(other, "select count(*) from pg_locks where not granted and pid = %s", 1, conn.info.backend_pid)
            conn.cancel_safe()

        thread = threading.Thread(target=cancel)
        thread.start()
        with pytest.raises(psycopg.errors.QueryCanceled):
            Watched(QUEUE_OF_NONE).wait(conn)
        thread.join()


# -- WAL ---------------------------------------------------------------------------------------------------------------


def test_a_load_waits_until_the_wal_since_its_last_batch_began_is_no_more_than_may_be(conn: Connection) -> None:
    stream = Watched(Pace(max_replication_lag=None, max_lock_queue=None, max_wal_rate=2**20), nap_seconds=1.0)
    start = position(conn)
    stream.wait(conn)
    # The batch: 8 MB at once, by the clock of the stream.
    conn.execute("select pg_logical_emit_message(true, 'b44', repeat('x', 8 * 1024 * 1024))")

    stream.wait(conn)

    # 1 MB a second may be; what others have written meanwhile comes on top.
    write(conn)
    assert 8 <= stream.naps <= (position(conn) - start) / 2**20 + 1
    assert "of WAL a second, more than the 1.0 MB of B44_MAX_WAL_RATE" in stream.told[0]
    assert stream.told[1].startswith("going on after")

    stream.now += 60
    before = stream.naps
    stream.wait(conn)
    assert stream.naps == before


def test_what_a_role_may_not_ask_is_told_once_and_the_rest_still_counts(conn: Connection) -> None:
    pace = Pace(max_replication_lag=None, max_lock_queue=0, max_wal_rate=2**20)
    blindness = Blindness()
    streams = [Watched(pace, blindness), Watched(pace, blindness)]
    conn.execute("revoke execute on function pg_current_wal_insert_lsn() from public")
    with unprivileged(conn) as other:
        for stream in streams:
            stream.wait(other)
        streams[0].wait(other)
        assert [stream.told for stream in streams] == [
            ["WAL cannot be measured: permission denied for function pg_current_wal_insert_lsn"],
            [],
        ]
        with queue(conn, "shop") as free:
            streams[1].before_nap = free
            streams[1].wait(other)

    assert streams[1].naps == 1


# -- replication -------------------------------------------------------------------------------------------------------


class Standby:
    """What a server sees of a standby: it receives all, and says to have replayed what it is told to say.

    Attributes:
        began: Where it began to receive.
        received: How far it has received.
    """

    def __init__(self, conn: Connection) -> None:
        self._conn = conn
        self._line = pq.PGconn.connect(url(conn, replication="true", application_name="standby").encode())
        assert self._line.status == pq.ConnStatus.OK, self._line.error_message
        self.began = self.received = position(conn)
        # The slot keeps the WAL that is still to be sent, whatever checkpoints others make.
        self._line.exec_(b"CREATE_REPLICATION_SLOT standby TEMPORARY PHYSICAL RESERVE_WAL")
        at = f"{self.began >> 32:X}/{self.began & 0xFFFFFFFF:X}"
        result = self._line.exec_(f"START_REPLICATION SLOT standby PHYSICAL {at}".encode())
        assert result.status == pq.ExecStatus.COPY_BOTH, result.error_message

    def replies(self, replayed: int | None = None) -> None:
        """Takes in what was sent, and says how far it has replayed; by default, all."""
        self._line.consume_input()
        while (message := self._line.get_copy_data(1))[0] > 0:
            data = bytes(message[1])
            if data[:1] == b"w":
                # After the header of 25 bytes stands the WAL itself.
                self.received = struct.unpack_from("!Q", data, 1)[0] + len(data) - 25
        if message[0]:
            result = self._line.get_result()
            raise AssertionError(result and result.error_message)
        at = self.received if replayed is None else replayed
        self._line.put_copy_data(struct.pack("!cQQQQ?", b"r", self.received, self.received, at, 0, False))
        self._line.flush()

    def falls_behind(self, replayed: int) -> None:
        """Waits until the server knows it to be a twentieth of a second behind and more."""
        deadline = time.monotonic() + 60
        query = b"select bool_or(replay_lag > '50 ms') from pg_stat_replication where application_name = 'standby'"
        while self._conn.execute(query).fetchone() != (True,):
            assert time.monotonic() < deadline, "the standby is not seen to be behind"
            self.replies(replayed)
            time.sleep(0.02)

    def close(self) -> None:
        pid = self._line.backend_pid
        self._line.finish()
        until(self._conn, "select count(*) from pg_stat_activity where pid = %s", 0, pid)


@pytest.fixture
def standbys(conn: Connection) -> Generator[None]:
    """Nobody else on this server has standbys or looks at them."""
    with connect(
        url(conn, dbname="postgres"), application_name="b44 test", autocommit=True, lock_timeout_ms=0
    ) as other:
        other.execute("select pg_advisory_lock(7)")
        yield


@pytest.fixture
def standby(conn: Connection, standbys: None) -> Generator[Standby]:
    standby = Standby(conn)
    try:
        yield standby
    finally:
        standby.close()


def test_without_a_standby_there_is_no_lag(conn: Connection, standbys: None) -> None:
    stream = Watched(Pace(max_replication_lag=1e-9, max_lock_queue=None))

    stream.wait(conn)

    assert (stream.naps, stream.told) == (0, [])


def test_a_load_holds_back_while_a_standby_is_behind(conn: Connection, standby: Standby) -> None:
    stream = Watched(Pace(max_replication_lag=0.05, max_lock_queue=None))
    write(conn)
    standby.falls_behind(standby.began)

    def catch_up() -> None:
        standby.replies()
        # The server has to read it, and perhaps to send what others have written meanwhile.
        time.sleep(0.01)

    stream.before_nap = catch_up
    stream.wait(conn)

    assert stream.naps >= 1
    # More than a second, where the machine has other things to do.
    said = r"holding back: a standby is \d+\.\d+ s behind, more than the 0\.05 s of B44_MAX_REPLICATION_LAG"
    assert re.fullmatch(said, stream.told[0])
    assert stream.told[1].startswith("going on after")


def test_who_only_keeps_the_wal_replays_none_and_is_not_behind(conn: Connection, standby: Standby) -> None:
    stream = Watched(Pace(max_replication_lag=0.05, max_lock_queue=None))
    write(conn)
    standby.falls_behind(0)

    stream.wait(conn)

    assert (stream.naps, stream.told) == (0, [])


def test_a_role_that_is_not_shown_the_standbys_says_so_once(conn: Connection, standby: Standby) -> None:
    stream = Watched(Pace(max_replication_lag=1e-9, max_lock_queue=0))
    with unprivileged(conn) as other:
        stream.wait(other)
        stream.wait(other)

    assert stream.naps == 0
    assert stream.told == ["replication lag cannot be measured: pg_read_all_stats is not granted to this role"]
