from __future__ import annotations

import logging
import os
import signal
import socket
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from types import FrameType
from urllib.parse import quote

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors, sql
from psycopg.rows import TupleRow

from b44_assets.errors import DatabaseError, LockLostError, TransientDatabaseError
from b44_assets.postgres import connect as module
from b44_assets.postgres.advisory_locks import LockHolder, advisory_key, advisory_lock, watched
from b44_assets.postgres.connect import cancelling, connect
from b44_assets.postgres.connection_urls import redact
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.lock_retries import with_lock_retries
from tests.helpers.servers import Pg15, free_port
from tests.helpers.waiting import eventually

SECRET = "Geheim7Secret"

Connection = psycopg.Connection[TupleRow]


class Terminated(BaseException):
    """Like the exception that Dagster raises to end a run: no Exception, and unknown to psycopg."""


def one(conn: Connection, statement: str, *arguments: object) -> object:
    row = conn.execute(statement.encode(), arguments or None).fetchone()
    assert row is not None
    return row[0]


@contextmanager
def interrupted(after: float, exception: BaseException) -> Generator[None]:
    """Raises an exception in the main thread after a while, as a signal handler does."""

    def strike(number: int, frame: FrameType | None) -> None:
        raise exception

    before = signal.signal(signal.SIGALRM, strike)
    signal.setitimer(signal.ITIMER_REAL, after)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


# -- sessions ----------------------------------------------------------------------------------------------------------

SETTINGS = {
    "TimeZone": "UTC",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "client_encoding": "UTF8",
    "statement_timeout": "0",
    "idle_session_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "standard_conforming_strings": "on",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "enable_indexscan": "on",
    "lock_timeout": "1min",
    "client_connection_check_interval": "2s",
    "application_name": "b44 test",
}


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_session_has_the_same_settings_wherever_it_is(database: str, autocommit: bool) -> None:
    with psycopg.connect(database) as conn:
        name = sql.Identifier(conn.info.dbname)
        for setting, value in (
            ("TimeZone", "Asia/Tokyo"),
            ("DateStyle", "German"),
            ("IntervalStyle", "iso_8601"),
            ("statement_timeout", "5min"),
            ("idle_session_timeout", "5min"),
            ("idle_in_transaction_session_timeout", "5min"),
            ("standard_conforming_strings", "off"),
            ("default_transaction_isolation", "serializable"),
            ("default_transaction_read_only", "on"),
            ("enable_indexscan", "off"),
            ("client_encoding", "LATIN1"),
        ):
            conn.execute(sql.SQL("ALTER DATABASE {} SET {} = {}").format(name, sql.Identifier(setting), value))

    with connect(database, application_name="b44 test", autocommit=autocommit) as conn:
        conn.execute("SELECT 1")
        conn.rollback()

        assert {name: one(conn, "SELECT current_setting(%s)", name) for name in SETTINGS} == SETTINGS
        assert conn.autocommit is autocommit


def test_settings_in_the_url_that_are_none_of_ours_stay(database: str) -> None:
    with connect(database + "&options=-csearch_path%3Dstaging") as conn:
        assert one(conn, "SHOW search_path") == "staging"


def test_the_wait_for_locks_can_be_chosen(database: str) -> None:
    with connect(database, lock_timeout_ms=1500) as conn:
        assert one(conn, "SHOW lock_timeout") == "1500ms"


def test_leaving_the_block_commits_and_closes(database: str) -> None:
    with connect(database) as conn:
        conn.execute("CREATE TABLE kept ()")

    assert conn.closed
    with connect(database) as conn:
        assert one(conn, "SELECT to_regclass('kept')::text") == "kept"


def test_a_server_older_than_supported_is_refused(pg15: Pg15, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "OLDEST_VERSION", 16)

    with pytest.raises(DatabaseError, match="is PostgreSQL 15: 16 to 18 are supported"):
        connect(pg15.url())


def test_a_server_newer_than_tested_is_used_with_one_warning(
    embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(module, "NEWEST_VERSION", 17)

    with caplog.at_level(logging.WARNING), connect(embedded.url()), connect(embedded.url()):
        assert caplog.text.count("is PostgreSQL 18, newer than") == 1


def test_a_supported_server_gives_no_warning(server_url: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING), connect(server_url):
        assert caplog.text == ""


# -- faults ------------------------------------------------------------------------------------------------------------


def fault(url: str, *, passes: bool = False) -> str:
    """The one line, having seen that the error tells whether the fault may pass by itself."""
    with pytest.raises(DatabaseError) as caught:
        connect(url)
    assert caught.value.__cause__ is None
    assert isinstance(caught.value, TransientDatabaseError) is passes
    message = str(caught.value)
    assert "\n" not in message
    return message


def test_a_wrong_password_is_named_and_not_shown(pg15: Pg15) -> None:
    message = fault(pg15.tcp_url(password=SECRET))

    assert message.startswith(f"the PostgreSQL server 127.0.0.1:{pg15.port} refuses the password of user 'app': ")
    assert SECRET not in message


def test_a_missing_password_is_asked_for(pg15: Pg15, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PGPASSFILE", os.devnull)
    monkeypatch.delenv("PGPASSWORD", raising=False)

    assert "asks for the password of user 'app'" in fault(f"postgresql://app@127.0.0.1:{pg15.port}/postgres")


def test_an_unknown_database_is_named(pg15: Pg15) -> None:
    assert "has no database 'nowhere'" in fault(pg15.tcp_url(database="nowhere"))


def test_an_unknown_user_is_named(pg15: Pg15) -> None:
    assert "has no user 'stranger'" in fault(pg15.url().replace("postgres@", "stranger@"))


def test_a_database_that_asks_for_tls_says_so(pg15: Pg15) -> None:
    message = fault(pg15.tcp_url(database="secure") + "?sslmode=disable")

    assert "lets nobody connect to database 'secure' without TLS: put sslmode=require in the URL" in message


def test_a_database_closed_to_us_is_not_taken_for_a_matter_of_tls(pg15: Pg15) -> None:
    message = fault(pg15.tcp_url(database="closed"))

    assert "does not let user 'app' connect to database 'closed' from here" in message


def test_tls_settings_of_the_url_are_kept(pg15: Pg15) -> None:
    with connect(pg15.tcp_url(database="secure") + "?sslmode=require") as conn:
        assert one(conn, "SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") is True

    message = fault(pg15.tcp_url(database="secure") + "?sslmode=verify-full&sslrootcert=system")
    assert "the TLS certificate of the PostgreSQL server 127.0.0.1" in message


def test_a_server_without_tls_says_so() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(8)
                client.sendall(b"N")
                client.recv(8)

        thread = threading.Thread(target=answer)
        thread.start()
        message = fault(f"postgresql://app:{SECRET}@127.0.0.1:{listener.getsockname()[1]}/shop?sslmode=require")
        thread.join()

    assert "offers no TLS, which sslmode in the URL asks for" in message


def test_too_many_connections_are_named(pg15: Pg15) -> None:
    assert "raise the CONNECTION LIMIT of role or database" in fault(pg15.tcp_url(user="crowded"), passes=True)


def test_a_port_where_nothing_listens_is_named() -> None:
    port = free_port()

    message = fault(f"postgresql://app:{SECRET}@127.0.0.1:{port}/shop", passes=True)

    assert message.startswith(
        f"the PostgreSQL server 127.0.0.1:{port} refuses the connection: no server listens there; "
    )
    assert SECRET not in message


def test_a_host_that_cannot_be_resolved_is_named() -> None:
    message = fault(f"postgresql://app:{SECRET}@no-such-host.invalid/shop")

    assert message.startswith("the name of the PostgreSQL server no-such-host.invalid cannot be resolved: ")


def test_a_host_that_does_not_answer_is_given_up() -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        url = f"postgresql://app:{SECRET}@127.0.0.1:{silent.getsockname()[1]}/shop?connect_timeout=1"

        assert " cannot be reached: " in fault(url, passes=True)


def test_a_socket_without_a_server_is_named() -> None:
    message = fault("postgresql:///shop?host=/nonexistent", passes=True)

    assert message == "no server listens on the socket in /nonexistent"


def test_a_database_of_another_encoding_is_refused(pg15: Pg15) -> None:
    assert "database 'latin' is encoded in LATIN1" in fault(pg15.url("latin"))


def answered(answer: bytes, *, passes: bool = True) -> str:
    """The one line on a server that gives an answer to whoever connects, and closes."""
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                client.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            return fault(
                f"postgresql://app:{SECRET}@127.0.0.1:{listener.getsockname()[1]}/shop?sslmode=disable", passes=passes
            )
        finally:
            thread.join()


def refusal(code: str, message: str) -> bytes:
    """As the server words it on the line."""
    body = f"SFATAL\0VFATAL\0C{code}\0M{message}\0\0".encode()
    return b"E" + (len(body) + 4).to_bytes(4, "big") + body


def test_a_server_that_is_not_ready_says_so() -> None:
    assert " is still starting up" in answered(refusal("57P03", "the database system is starting up"))
    assert answered(refusal("57P03", "the database system is shutting down")).endswith(" is shutting down")


def test_a_server_that_says_nothing_is_named() -> None:
    assert answered(b"").endswith(" closed the connection at once")


def test_a_server_without_free_connections_is_told_apart() -> None:
    assert " has too many connections already" in answered(refusal("53300", "sorry, too many clients already"))


def test_another_service_is_told_apart() -> None:
    assert " is no PostgreSQL: check host and port" in answered(b"HTTP/1.1 400 Bad Request\r\n\r\n", passes=False)


def test_a_fault_in_another_language_is_passed_on_without_the_password() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def answer() -> None:
            client, _ = listener.accept()
            with client:
                client.recv(1000)
                body = b"SFATAL\0VFATAL\0C28000\0M" + f"Zugriff mit {SECRET} verweigert".encode() + b"\0\0"
                client.sendall(b"E" + (len(body) + 4).to_bytes(4, "big") + body)
                client.recv(1000)

        thread = threading.Thread(target=answer)
        thread.start()
        message = fault(f"postgresql://app:{SECRET}@127.0.0.1:{listener.getsockname()[1]}/shop?sslmode=disable")
        thread.join()

    assert "Zugriff mit *** verweigert" in message


@pytest.mark.parametrize(
    "url",
    [
        f"postgresql://app:a%{SECRET}@db/shop",
        f"postgresql://app:a@{SECRET}@db/shop",
        f"postgresql://app:a/{SECRET}@db/shop",
        f"postgresql://app:12/{SECRET}@db/shop",
        f"postgresql://app:pw@db:{SECRET}/shop",
        f"postgresql://app:pw@db/shop?{SECRET}",
        f"postgresql://app:pw@db/shop?{SECRET}=1",
        f"postgresql://app:pw@[{SECRET}/shop",
        f"host=db password='{SECRET}",
        f"nonsense {SECRET}",
        f"postgresql://app:{SECRET}\0@db/shop",
        f"postgresql://app:{SECRET}\udcff@db/shop",
        f"postgresql://app:{SECRET}%80@db/shop",
    ],
)
def test_a_malformed_url_is_refused_without_being_shown(url: str) -> None:
    message = fault(url)

    assert message.startswith("the database URL cannot be read: it must be of the form postgresql://")
    assert SECRET not in message
    assert SECRET not in redact(url)


@given(before=st.text(max_size=6), after=st.text(max_size=6))
def test_no_password_is_ever_shown_however_it_is_written(before: str, after: str) -> None:
    url = f"postgresql://app:{before}{SECRET}{after}@127.0.0.1:1/shop"

    assert SECRET not in redact(url)
    with pytest.raises(DatabaseError) as caught:
        connect(url)
    assert SECRET not in str(caught.value)


@given(password=st.text(st.characters(exclude_characters="\0", codec="utf-8"), min_size=1))
def test_a_password_that_is_escaped_is_taken_for_a_password(password: str) -> None:
    assert redact(f"postgresql://app:{quote(password, safe='')}@db/shop") == "postgresql://app:***@db/shop"


@pytest.mark.parametrize(
    ("url", "shown"),
    [
        (
            "postgresql://app:pw@db:5433/shop?sslmode=require&sslpassword=x",
            "postgresql://app:***@db:5433/shop?sslmode=require",
        ),
        ("postgresql://app@db/shop", "postgresql://app@db/shop"),
        ("postgresql://db/shop?password=pw", "postgresql://:***@db/shop"),
        ("postgresql+psycopg2://app:pw@db/shop", "postgresql+psycopg2://app:***@db/shop"),
        ("host=db user=app password=pw dbname=shop", "postgresql://app:***@db/shop"),
        ("postgresql://postgres@/b44?host=/tmp/x&port=5432", "postgresql://postgres@/b44?host=/tmp/x&port=5432"),
        ("postgresql://a:pw@h1:1,h2:2/shop", "postgresql://a:***@h1:1,h2:2/shop"),
        ("postgresql://a:pw@[::1]:5/shop", "postgresql://a:***@[::1]:5/shop"),
    ],
)
def test_what_is_shown_of_a_url(url: str, shown: str) -> None:
    assert redact(url) == shown


# -- cancelling --------------------------------------------------------------------------------------------------------


def runs(watcher: Connection, pid: int) -> bool:
    return bool(one(watcher, "SELECT count(*) FROM pg_stat_activity WHERE pid = %s AND state = 'active'", pid))


@pytest.mark.parametrize("exception", [Terminated(), KeyboardInterrupt(), TimeoutError("ours")])
@pytest.mark.parametrize("nested", [False, True])
def test_an_interruption_ends_the_sql_in_the_server(database: str, exception: BaseException, nested: bool) -> None:
    with connect(database, autocommit=True) as watcher:
        conn = connect(database)
        # Without it, the server would notice by itself that the client has gone.
        conn.execute("SET client_connection_check_interval = 0")
        conn.commit()
        pid = conn.info.backend_pid
        with pytest.raises(type(exception)), interrupted(0.3, exception), conn, cancelling(conn):
            if nested:
                with conn.transaction():
                    conn.execute("SELECT pg_sleep(600)")
            conn.execute("SELECT pg_sleep(600)")

        eventually(lambda: not runs(watcher, pid))


def test_an_interruption_rolls_back(database: str) -> None:
    conn = connect(database)
    with pytest.raises(Terminated), interrupted(0.3, Terminated()), conn, cancelling(conn):
        conn.execute("CREATE TABLE half_done ()")
        conn.execute("SELECT pg_sleep(600)")

    with connect(database) as conn:
        assert one(conn, "SELECT to_regclass('half_done')") is None


def test_an_error_in_sql_leaves_the_connection_usable(database: str) -> None:
    with connect(database) as conn:
        with pytest.raises(errors.DivisionByZero), cancelling(conn):
            conn.execute("SELECT 1/0")
        conn.rollback()

        assert one(conn, "SELECT 1") == 1


def test_an_exception_between_statements_keeps_the_connection(database: str) -> None:
    with connect(database) as conn:
        with pytest.raises(Terminated), cancelling(conn):
            conn.execute("CREATE TABLE t ()")
            raise Terminated
        assert not conn.closed


def test_the_interruption_is_seen_even_if_the_server_cannot_be_told(
    database: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(self: Connection, *, timeout: float) -> None:
        raise psycopg.OperationalError("no way")

    monkeypatch.setattr(psycopg.Connection, "cancel_safe", fail)
    conn = connect(database)
    with pytest.raises(Terminated), interrupted(0.3, Terminated()), conn, cancelling(conn):
        conn.execute("SELECT pg_sleep(600)")

    assert conn.closed
    assert "could not be cancelled: no way" in caplog.text


# -- advisory locks ----------------------------------------------------------------------------------------------------


def test_the_key_of_a_name_never_changes(database: str) -> None:
    in_sql = "SELECT ('x' || left(encode(sha256(convert_to(%s, 'UTF8')), 'hex'), 16))::bit(64)::bigint"

    assert advisory_key("migrate") == 4_307_694_844_222_389_748
    with connect(database) as conn:
        for name in ("migrate", "posts/2024-01", "größe"):
            assert one(conn, in_sql, name) == advisory_key(name)


@pytest.mark.parametrize("autocommit", [False, True])
def test_a_lock_is_held_by_one_session_and_freed_at_the_end(database: str, autocommit: bool) -> None:
    with (
        connect(database, autocommit=autocommit) as first,
        connect(database, autocommit=autocommit) as second,
    ):
        with advisory_lock(first, "migrate"):
            with pytest.raises(DatabaseError, match="held by"), advisory_lock(second, "migrate", timeout=0):
                pass
            with advisory_lock(second, "something else", timeout=0):
                pass
        with advisory_lock(second, "migrate", timeout=0):
            pass


def test_whoever_waits_is_told_once_by_whom_it_is_held(database: str) -> None:
    told: list[LockHolder | None] = []
    with connect(database, application_name="b44 migrate") as first, connect(database) as second:
        holding = advisory_lock(first, "migrate")
        holding.__enter__()
        naps: list[float] = []

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                holding.__exit__(None, None, None)

        with advisory_lock(second, "migrate", wait=told.append, sleep=nap):
            pass

        assert len(naps) == 3
        assert len(told) == 1
        holder = told[0]
        assert holder is not None
        assert (holder.pid, holder.application_name) == (first.info.backend_pid, "b44 migrate")
        assert holder.since is not None
        assert holder.since.utcoffset() is not None


def test_the_holder_is_named_when_the_time_is_over(database: str) -> None:
    naps: list[float] = []
    with (
        connect(database, application_name="b44 migrate") as first,
        connect(database) as second,
        advisory_lock(first, "migrate"),
    ):
        expected = (
            rf"the lock 'migrate' is held by process {first.info.backend_pid} \(b44 migrate, connected since .* UTC\)"
        )
        with (
            pytest.raises(DatabaseError, match=expected),
            advisory_lock(second, "migrate", timeout=0.6, sleep=naps.append),
        ):
            pass
    assert sum(naps) == pytest.approx(0.6)


def test_no_transaction_stays_open_while_waiting_or_holding(database: str) -> None:
    with connect(database) as conn, advisory_lock(conn, "migrate"):
        assert conn.info.transaction_status == psycopg.pq.TransactionStatus.IDLE


def test_a_lock_survives_a_roll_back_and_is_freed_after_an_error(database: str) -> None:
    with connect(database) as first, connect(database) as second:
        with pytest.raises(errors.DivisionByZero), advisory_lock(first, "migrate"):
            first.execute("SELECT 1")
            first.rollback()
            with pytest.raises(DatabaseError), advisory_lock(second, "migrate", timeout=0):
                pass
            first.execute("SELECT 1/0")
        with advisory_lock(second, "migrate", timeout=0):
            pass


def test_work_in_progress_is_not_committed_by_freeing_the_lock(database: str) -> None:
    with connect(database) as conn:
        with advisory_lock(conn, "migrate"):
            conn.execute("CREATE TABLE unfinished ()")
        conn.rollback()

        assert one(conn, "SELECT to_regclass('unfinished')") is None


def test_an_interrupted_session_frees_the_lock_by_ending(database: str) -> None:
    first = connect(database)
    with pytest.raises(Terminated), interrupted(0.3, Terminated()), advisory_lock(first, "migrate"), cancelling(first):
        first.execute("SELECT pg_sleep(600)")

    with connect(database) as second, advisory_lock(second, "migrate", timeout=20):
        pass


def test_a_lock_is_not_taken_in_the_midst_of_a_transaction(database: str) -> None:
    with connect(database) as conn:
        conn.execute("SELECT 1")
        with pytest.raises(ValueError, match="no transaction open"), advisory_lock(conn, "migrate"):
            pass


# -- DDL with retries --------------------------------------------------------------------------------------------------


@pytest.fixture
def table(database: str) -> str:
    """A database with the table `t`."""
    with connect(database) as conn:
        conn.execute("CREATE TABLE t (n int)")
    return database


def add_column(conn: Connection) -> str:
    conn.execute("ALTER TABLE t ADD COLUMN m int")
    return "added"


def columns(database: str) -> int:
    with connect(database) as conn:
        found = one(conn, "SELECT count(*) FROM pg_attribute WHERE attrelid = 't'::regclass AND attnum > 0")
    assert isinstance(found, int)
    return found


def never(seconds: float) -> None:
    raise AssertionError("there was nothing to wait for")


@pytest.mark.parametrize("autocommit", [False, True])
def test_without_anybody_in_the_way_it_is_done_at_once(table: str, autocommit: bool) -> None:
    with connect(table, autocommit=autocommit) as conn:
        assert with_lock_retries(conn, add_column, lock_timeout=200, attempts=1, sleep=never) == "added"

    assert columns(table) == 2


def test_it_is_tried_again_until_the_lock_is_free(table: str) -> None:
    naps: list[float] = []
    with connect(table) as other, connect(table) as conn:
        other.execute("SELECT * FROM t")

        def nap(seconds: float) -> None:
            naps.append(seconds)
            if len(naps) == 3:
                other.rollback()

        with_lock_retries(
            conn,
            add_column,
            lock_timeout=300,
            attempts=5,
            sleep=nap,
            random=lambda: 0.5,
        )

    assert columns(table) == 2
    assert naps == pytest.approx([0.075, 0.15, 0.3])


def test_pauses_grow_to_a_bound_and_are_never_negative(table: str) -> None:
    naps: list[float] = []
    with connect(table) as other, connect(table) as conn:
        other.execute("SELECT * FROM t")
        with pytest.raises(DatabaseError):
            with_lock_retries(conn, add_column, lock_timeout=1, attempts=12, sleep=naps.append, random=lambda: 1.0)

    assert naps[0] == pytest.approx(0.05)
    assert max(naps) == naps[-1] == pytest.approx(5.0)


@pytest.mark.parametrize("attempts", [1, 2])
def test_who_stood_in_the_way_is_named_at_the_end(table: str, attempts: int) -> None:
    with connect(table, application_name="long report") as other, connect(table) as conn:
        other.execute("SELECT * FROM t")
        expected = (
            rf"no lock within 300 ms in {attempts} attempt{'s' * (attempts > 1)}: process {other.info.backend_pid}"
            r" \(long report, connected since .*\) stood in the way"
        )
        with pytest.raises(DatabaseError, match=expected):
            with_lock_retries(conn, add_column, lock_timeout=300, attempts=attempts, sleep=lambda _: None)

        assert one(conn, "SHOW lock_timeout") == "1min"
    assert columns(table) == 1


def test_maintenance_in_the_way_is_waited_for_without_keeping_writers_waiting(table: str) -> None:
    with (
        connect(table, application_name="vacuum") as other,
        connect(table) as conn,
        connect(table, autocommit=True) as app,
    ):
        other.execute("LOCK TABLE t IN SHARE UPDATE EXCLUSIVE MODE")
        pauses = 0

        def pause(_: float) -> None:
            nonlocal pauses
            pauses += 1
            if pauses == 2:
                # It ends later than any lock_timeout, while the third attempt waits.
                threading.Timer(1.5, other.rollback).start()
                threading.Timer(0.5, app.execute, ("INSERT INTO t DEFAULT VALUES",)).start()

        # On a busy machine, too, a second is enough to see who is in the way, and this to wait for it.
        conn.execute("SET deadlock_timeout = '10s'")
        conn.commit()
        assert with_lock_retries(conn, add_column, lock_timeout=1000, attempts=3, sleep=pause) == "added"
        assert pauses == 2
        assert one(app, "SELECT count(*) FROM t") == 1


def add_columns_to_two(conn: Connection) -> None:
    """Takes two locks, and wraps what goes wrong, as the engine does."""
    try:
        conn.execute("DO $$ BEGIN ALTER TABLE t ADD COLUMN b int; ALTER TABLE u ADD COLUMN b int; END $$")
    except errors.QueryCanceled as error:
        raise DatabaseError("wrapped") from error


def test_the_waits_for_all_locks_of_an_attempt_together_are_bounded(table: str) -> None:
    """Each is shorter than the bound, or would be if the second table were free in time: only their sum is not."""
    with connect(table, autocommit=True) as watcher:
        watcher.execute("CREATE TABLE u (a int)")
        with connect(table) as first, connect(table) as second, connect(table) as conn:
            first.execute("SELECT * FROM t")
            second.execute("SELECT * FROM u")
            pid = conn.info.backend_pid
            done = threading.Event()

            def let_go_of_the_first() -> None:
                since = (
                    "SELECT coalesce(max(clock_timestamp() - waitstart) > '0.7s', false) FROM pg_locks WHERE pid = %s"
                )
                while not done.is_set() and not one(watcher, since + " AND NOT granted", pid):
                    time.sleep(0.02)
                first.rollback()

            thread = threading.Thread(target=let_go_of_the_first)
            thread.start()
            try:
                with pytest.raises(DatabaseError, match="no lock within 2000 ms") as caught:
                    with_lock_retries(
                        conn,
                        add_columns_to_two,
                        lock_timeout=2000,
                        attempts=1,
                    )
            finally:
                done.set()
                thread.join()
            assert isinstance(caught.value.__cause__, DatabaseError)
            assert isinstance(caught.value.__cause__.__cause__, errors.QueryCanceled)
            assert f"process {second.info.backend_pid} " in str(caught.value)
            conn.rollback()
            assert (
                one(conn, "SELECT count(*) FROM pg_locks WHERE pid = pg_backend_pid() AND relation = 't'::regclass")
                == 0
            )


def test_a_deadlock_is_tried_again(table: str) -> None:
    calls: list[int] = []

    def operation(conn: Connection) -> None:
        calls.append(1)
        add_column(conn)
        if len(calls) == 1:
            raise errors.DeadlockDetected("as the server would")

    with connect(table) as conn:
        with_lock_retries(conn, operation, lock_timeout=200, attempts=2, sleep=lambda _: None)

    assert len(calls) == 2
    assert columns(table) == 2


def test_other_errors_are_not_tried_again(table: str) -> None:
    def operation(conn: Connection) -> None:
        add_column(conn)
        conn.execute("SELECT 1/0")

    with connect(table) as conn, pytest.raises(errors.DivisionByZero):
        with_lock_retries(conn, operation, lock_timeout=200, attempts=5, sleep=never)

    assert columns(table) == 1


def test_it_does_not_wait_inside_a_transaction_of_the_caller(table: str) -> None:
    with connect(table) as conn:
        conn.execute("SELECT 1")
        with pytest.raises(ValueError, match="no transaction open"):
            with_lock_retries(conn, add_column, lock_timeout=200, attempts=1)


def test_it_uses_the_password_of_the_connection_to_look_for_blockers(pg15: Pg15) -> None:
    with connect(pg15.url("owned")) as owner, connect(pg15.tcp_url(database="owned")) as conn:
        owner.execute("CREATE TABLE IF NOT EXISTS watched ()")
        owner.execute("ALTER TABLE watched OWNER TO app")
        owner.commit()
        owner.execute("SELECT * FROM watched")
        with pytest.raises(DatabaseError, match=f"process {owner.info.backend_pid} "):
            with_lock_retries(
                conn, lambda conn: conn.execute("DROP TABLE watched"), lock_timeout=300, attempts=1, sleep=never
            )
        owner.rollback()
        owner.execute("DROP TABLE watched")


# -- the lock that is held ---------------------------------------------------------------------------------------------


def test_a_lock_is_known_to_be_held_whatever_limits_the_role_sets(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        for setting in ("idle_session_timeout", "idle_in_transaction_session_timeout"):
            conn.execute(sql.SQL("ALTER DATABASE {} SET {} = '50ms'").format(name, sql.Identifier(setting)))
    with connect(database, autocommit=True) as conn, advisory_lock(conn, "migrate") as lock:
        time.sleep(0.5)
        lock.check()
        assert not lock.lost


def test_no_clock_that_a_role_or_a_database_sets_ends_our_work(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        name = sql.Identifier(conn.info.dbname)
        clocks = conn.execute(
            "SELECT name FROM pg_settings WHERE context = 'user' AND unit = 'ms' AND name LIKE '%timeout' ORDER BY name"
        ).fetchall()
        assert {"statement_timeout", "idle_session_timeout"} <= {clock for (clock,) in clocks}
        for (clock,) in clocks:
            conn.execute(sql.SQL("ALTER DATABASE {} SET {} = '40ms'").format(name, sql.Identifier(clock)))
    with connect(database, autocommit=True) as conn:
        with conn.transaction():
            conn.execute("SELECT pg_sleep(0.1)")
            time.sleep(0.1)
            conn.execute("SELECT 1")
        time.sleep(0.1)
        conn.execute("SELECT 1")


@pytest.mark.parametrize("how", ["ended", "let go"])
def test_a_lock_that_is_lost_is_lost_for_good_and_says_so_in_one_line(database: str, how: str) -> None:
    with connect(database, autocommit=True) as other, connect(database, autocommit=True) as conn:
        other.execute("SELECT 1")
        with advisory_lock(conn, "migrate") as lock:
            lock.check()
            if how == "ended":
                other.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
            else:
                conn.execute("SELECT pg_advisory_unlock_all()")
            for _ in range(2):
                with pytest.raises(LockLostError, match="run the same command again") as caught:
                    lock.check()
                assert "\n" not in str(caught.value)
            assert lock.lost
            if how == "let go":
                conn.execute("SELECT pg_advisory_lock(%s)", (advisory_key("migrate"),))
                with pytest.raises(LockLostError):
                    lock.check()


def test_a_lock_asked_for_again_is_asked_for_unless_it_was_just_now(database: str) -> None:
    with connect(database, autocommit=True) as other, connect(database, autocommit=True) as conn:
        other.execute("SELECT 1")
        with advisory_lock(conn, "migrate") as lock:
            lock.check()
            other.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))

            def is_lost() -> bool:
                try:
                    lock.check_again()
                except LockLostError:
                    return True
                return False

            eventually(is_lost)
            # Known to be lost, it is at once.
            with pytest.raises(LockLostError):
                lock.check_again()


def test_whoever_watches_a_lock_is_told_once_that_it_is_lost(database: str) -> None:
    told: list[bool] = []
    with (
        connect(database, autocommit=True) as conn,
        connect(database, autocommit=True) as other,
        advisory_lock(conn, "migrate") as lock,
        watched(lock, lambda: told.append(lock.lost), every=0.01),
    ):
        other.execute("SELECT pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
        eventually(lambda: bool(told))
    assert told == [True]


@contextmanager
def left_at_work(url: str) -> Generator[int]:
    """A process of the server that works for a run whose lock is lost."""
    with connect(url, autocommit=True, application_name="b44 load t") as worker:
        with connect(url, autocommit=True) as conn, advisory_lock(conn, "migrate") as lock:
            worker.execute(lock.at_work())
        yield worker.info.backend_pid


def test_what_a_killed_client_has_begun_is_waited_for(database: str) -> None:
    told: list[int] = []
    with (
        left_at_work(database) as pid,
        connect(database, autocommit=True) as conn,
        advisory_lock(conn, "migrate") as lock,
    ):

        def end(left: LockHolder) -> None:
            told.append(left.pid)
            assert left.application_name == "b44 load t"

        def pause(seconds: float) -> None:
            # It goes on as long as the server's process is there, and no longer.
            conn.execute("SELECT pg_terminate_backend(%s, 5000)", (pid,))

        lock.outlast(wait=end, sleep=pause)
    assert told == [pid]


def test_what_does_not_end_is_named_with_the_way_to_end_it(database: str) -> None:
    waited: list[float] = []
    with (
        left_at_work(database) as pid,
        connect(database, autocommit=True) as conn,
        advisory_lock(conn, "migrate") as lock,
        pytest.raises(DatabaseError) as caught,
    ):
        lock.outlast(timeout=2, sleep=waited.append)
    assert sum(waited) == 2
    assert f"pg_terminate_backend({pid})" in str(caught.value)
    assert "b44 load t" in str(caught.value) and "run the same command again" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_other_locks_of_the_same_session_do_not_hide_what_it_has_left_at_work(database: str) -> None:
    with (
        connect(database, autocommit=True) as worker,
        connect(database, autocommit=True) as conn,
        connect(database, autocommit=True) as newer,
    ):
        with advisory_lock(conn, "migrate") as lock:
            worker.execute(lock.at_work())
        with (
            advisory_lock(conn, "another"),
            advisory_lock(newer, "migrate") as lock,
            pytest.raises(DatabaseError, match=f"process {worker.info.backend_pid} "),
        ):
            lock.outlast(timeout=0)
