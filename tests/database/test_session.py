"""Connections of a session that keeps them: used again, and as good as new each time."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable, Generator
from contextlib import closing
from typing import Any

import psycopg
import pytest

from b44_assets.catalog import Catalog
from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import raise_memory
from b44_assets.session import Connection, Kept, Session, concurrently, scalar
from tests.helpers.target import Target

STATE = """
select pg_backend_pid(), current_setting('application_name'), current_setting('search_path'), current_setting('lock_timeout'),
       current_setting('timezone'), current_setting('default_transaction_isolation'), current_setting('enable_nestloop'),
       (select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'),
       to_regclass('pg_temp.left_over') is null
"""


@pytest.fixture
def session(database: str, catalog: Catalog) -> Session:
    return Session(database, catalog)


def state(conn: Connection) -> tuple[Any, ...]:
    row = conn.execute(STATE).fetchone()
    assert row is not None
    return row


def test_a_connection_is_used_again_and_is_as_new(session: Session) -> None:
    with session.keeping() as keeping:
        with keeping.connection("first") as conn:
            first = state(conn)
            conn.execute("set search_path = nowhere; set lock_timeout = '1h'; set timezone = 'Asia/Tokyo'")
            conn.execute("set default_transaction_isolation = serializable; set enable_nestloop = off")
            conn.execute("select pg_advisory_lock(1); create temporary table left_over ()")
        with keeping.connection("second") as conn:
            second = state(conn)
    assert (first[1], second[1]) == ("b44 first", "b44 second")
    assert (first[0], *first[2:]) == (second[0], *second[2:])


def test_connections_in_use_at_the_same_time_are_two(session: Session) -> None:
    with session.keeping() as keeping, keeping.connection("one") as one, keeping.connection("other") as other:
        assert state(one)[0] != state(other)[0]


def test_a_connection_that_met_with_an_error_is_not_used_again(session: Session) -> None:
    used: list[int] = []
    with session.keeping() as keeping:
        with pytest.raises(DatabaseError), keeping.connection("first") as conn:
            used.append(state(conn)[0])
            conn.execute("select 1 / 0")
        with keeping.connection("second") as conn:
            assert state(conn)[0] not in used


def test_a_connection_that_was_ended_meanwhile_is_replaced(session: Session) -> None:
    with session.keeping() as keeping:
        with keeping.connection("first") as conn:
            first = state(conn)[0]
        with psycopg.connect(session.url, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", (first,))
        with keeping.connection("second") as conn:
            assert state(conn)[0] != first


def test_connections_that_outlive_a_session_serve_the_next_and_hold_no_lock_meanwhile(session: Session) -> None:
    kept = Kept()
    with session.keeping(kept) as one, one.connection("first") as conn:
        first = state(conn)[0]
        conn.execute("select pg_advisory_lock(1)")
    [resting] = kept.free[session.url]
    assert resting.execute(
        "select count(*) from pg_locks where pid = pg_backend_pid() and locktype = 'advisory'"
    ).fetchone() == (0,)
    with session.keeping(kept) as next_one, next_one.connection("second") as conn:
        assert state(conn)[0] == first
    kept.close()
    assert resting.closed


def test_a_connection_that_is_lost_while_it_rests_is_kept_no_longer(session: Session) -> None:
    kept = Kept()
    with session.keeping(kept) as keeping:
        with keeping.connection("first") as conn:
            pid = state(conn)[0]
        with psycopg.connect(session.url, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", (pid,))
    assert kept.free[session.url] == []


def test_all_are_closed_at_the_end(session: Session) -> None:
    with session.keeping() as keeping, keeping.connection("first") as conn:
        assert not conn.closed
    assert conn.closed


def test_a_session_that_keeps_none_closes_each(session: Session) -> None:
    with session.connection("only") as conn:
        pass
    assert conn.closed


def test_a_gentle_session_takes_one_processor_only(target_18: Target) -> None:
    with target_18.having(throttled=True).session.connection("look") as conn:
        assert scalar(conn, "show max_parallel_workers_per_gather") == "0"
        with conn.transaction():
            raise_memory(conn)
            assert scalar(conn, "show max_parallel_maintenance_workers") == "0"
        assert scalar(conn, "show vacuum_cost_delay") == "2ms"
        assert scalar(conn, "show backend_flush_after") == "256kB"
    with target_18.session.connection("look") as conn, conn.transaction():
        raise_memory(conn)
        assert int(scalar(conn, "show max_parallel_maintenance_workers")) >= 4


class Interruption(BaseException):
    """As Dagster ends a run."""


@pytest.fixture
def interrupting() -> Generator[int]:
    """A signal that raises `Interruption` in the main thread."""

    def interrupt(*_: object) -> None:
        raise Interruption

    before = signal.signal(signal.SIGUSR1, interrupt)
    yield signal.SIGUSR1
    signal.signal(signal.SIGUSR1, before)


def asking(session: Session, statement: str) -> Callable[[], Any]:
    """A question to the server."""

    def ask() -> Any:
        with session.connection("question") as conn:
            return scalar(conn, statement)

    return ask


def at_work(session: Session) -> int:
    """How many questions the server is busy with."""
    with psycopg.connect(session.url) as conn:
        row = conn.execute(
            "select count(*) from pg_stat_activity where datname = current_database() and application_name = 'b44 question'"
            " and state = 'active'"
        ).fetchone()
    assert row is not None
    return row[0]


def test_answers_come_in_order_while_the_next_question_is_looked_into(session: Session) -> None:
    second = threading.Event()

    def waits_for_the_second() -> Any:
        assert second.wait(60)
        return asking(session, "select 1")()

    def is_the_second() -> Any:
        second.set()
        return asking(session, "select 2")()

    with session.keeping() as keeping:
        assert list(concurrently(keeping, [waits_for_the_second, is_the_second, asking(session, "select 3")])) == [
            1,
            2,
            3,
        ]


def test_questions_share_two_connections(session: Session) -> None:
    with session.keeping() as keeping:
        servers = set(concurrently(keeping, [asking(keeping, "select pg_backend_pid()")] * 50))
    assert len(servers) <= 2


@pytest.mark.parametrize("keeps", [True, False])
def test_a_gentle_session_asks_one_thing_after_the_other(session: Session, *, keeps: bool) -> None:
    asked: list[int] = []

    def ask(number: int) -> Callable[[], int]:
        def question() -> int:
            asked.append(number)
            return number

        return question

    throttled = Session(session.url, session.catalog, throttled=keeps)
    with throttled.keeping() as keeping:
        answers = concurrently(keeping if keeps else session, [ask(1), ask(2)])
        assert next(answers) == 1
        assert asked == [1]
        assert list(answers) == [2]


def test_whoever_wants_no_more_answers_ends_the_questions_in_the_server(session: Session) -> None:
    with session.keeping() as keeping:
        slow = [asking(keeping, "select pg_sleep(600)") for _ in range(4)]
        with closing(concurrently(keeping, [asking(keeping, "select 1"), *slow])) as answers:
            assert next(answers) == 1
    assert at_work(session) == 0


def test_an_interruption_ends_the_questions_in_the_server(session: Session, interrupting: int) -> None:
    with session.keeping() as keeping:
        slow = [asking(keeping, "select pg_sleep(600)") for _ in range(4)]

        def interrupts() -> None:
            while at_work(session) < 1:
                time.sleep(0.005)
            os.kill(os.getpid(), interrupting)

        with pytest.raises(Interruption):
            list(concurrently(keeping, [interrupts, *slow]))
    assert at_work(session) == 0


def test_a_question_that_fails_raises_in_its_turn_and_ends_the_others(session: Session) -> None:
    with session.keeping() as keeping:
        questions = [
            asking(keeping, "select 1"),
            asking(keeping, "select 1 / 0"),
            asking(keeping, "select pg_sleep(600)"),
        ]
        answers = concurrently(keeping, questions)
        assert next(answers) == 1
        with pytest.raises(DatabaseError, match="division by zero"):
            next(answers)
    assert at_work(session) == 0
