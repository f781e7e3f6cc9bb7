"""What kind of fault an error is: by its SQLSTATE, and as real servers raise it."""

from __future__ import annotations

import socket
import time
from concurrent.futures import ThreadPoolExecutor

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st
from psycopg import errors

from b44_assets.errors import TransientDatabaseError
from b44_assets.postgres import connect as module
from b44_assets.postgres.connect import connect
from b44_assets.postgres.error_classes import FaultClass, backoff, classify, condition_of


@pytest.mark.parametrize(
    ("code", "expected"),
    [
        ("08006", FaultClass.TRANSIENT),
        ("08P01", FaultClass.TRANSIENT),
        ("25P03", FaultClass.TRANSIENT),
        ("40001", FaultClass.TRANSIENT),
        ("40P01", FaultClass.TRANSIENT),
        ("53300", FaultClass.TRANSIENT),
        ("55006", FaultClass.TRANSIENT),
        ("55P03", FaultClass.TRANSIENT),
        ("57P01", FaultClass.TRANSIENT),
        ("57P02", FaultClass.TRANSIENT),
        ("57P03", FaultClass.TRANSIENT),
        ("57P05", FaultClass.TRANSIENT),
        ("22001", FaultClass.DATA),
        ("22P05", FaultClass.DATA),
        ("23502", FaultClass.DATA),
        ("23505", FaultClass.DATA),
        ("23P01", FaultClass.DATA),
        ("54000", FaultClass.DATA),
        ("53000", FaultClass.EXHAUSTED),
        ("53100", FaultClass.EXHAUSTED),
        ("53200", FaultClass.EXHAUSTED),
        ("58030", FaultClass.EXHAUSTED),
        ("25006", FaultClass.PERMANENT),
        ("25P02", FaultClass.PERMANENT),
        ("42501", FaultClass.PERMANENT),
        ("42P01", FaultClass.PERMANENT),
        ("54001", FaultClass.PERMANENT),
        ("57014", FaultClass.PERMANENT),
        ("57P04", FaultClass.PERMANENT),
        ("P0001", FaultClass.PERMANENT),
        ("XX000", FaultClass.PERMANENT),
    ],
)
def test_a_sqlstate_tells_what_can_be_done(code: str, expected: FaultClass) -> None:
    assert classify(errors.lookup(code)("as the server would")) is expected


def test_two_who_change_the_same_object_at_once_may_try_again(database: str) -> None:
    with (
        psycopg.connect(database) as one,
        psycopg.connect(database, autocommit=True) as other,
        ThreadPoolExecutor(1) as pool,
    ):
        other.execute("create table goods ()")
        pid = other.info.backend_pid
        one.execute("grant select on goods to public")
        waiting = pool.submit(other.execute, "grant insert on goods to public")
        while not one.execute("select 1 from pg_locks where not granted and pid = %s", (pid,)).fetchone():
            time.sleep(0.005)
        one.commit()
        with pytest.raises(psycopg.Error) as caught:
            waiting.result()
    assert classify(caught.value) is FaultClass.TRANSIENT


@pytest.mark.parametrize(
    ("code", "name"),
    [("54000", "program_limit_exceeded"), ("22P02", "invalid_text_representation"), ("22012", "division_by_zero")],
)
def test_an_error_has_the_name_that_postgresql_gives_its_condition(code: str, name: str) -> None:
    assert condition_of(errors.lookup(code)("as the server would")) == name


def test_a_value_that_could_not_be_sent_is_the_records_fault() -> None:
    assert classify(psycopg.DataError("PostgreSQL text fields cannot contain NUL (0x00) bytes")) is FaultClass.DATA


@pytest.mark.parametrize(
    "error", [psycopg.InterfaceError("the cursor is closed"), psycopg.ProgrammingError("no result")]
)
def test_a_misuse_of_the_driver_is_not_tried_again(error: psycopg.Error) -> None:
    assert classify(error) is FaultClass.PERMANENT


def test_pauses_double_from_a_quarter_of_a_second_to_eight() -> None:
    assert [backoff(attempt, lambda: 0.0) for attempt in range(1, 9)] == [0.25, 0.5, 1, 2, 4, 8, 8, 8]


@given(attempt=st.integers(1, 10**6), chance=st.floats(0, 1))
def test_no_more_than_half_of_a_pause_is_left_to_chance(attempt: int, chance: float) -> None:
    whole = backoff(attempt, lambda: 0.0)

    assert whole / 2 <= backoff(attempt, lambda: chance) <= whole <= 8


# -- as servers raise them ---------------------------------------------------------------------------------------------


def fault(database: str, *statements: str) -> psycopg.Error:
    with psycopg.connect(database, autocommit=True) as conn, pytest.raises(psycopg.Error) as caught:
        for statement in statements:
            conn.execute(statement.encode())
    return caught.value


def test_an_ended_session_is_transient_and_so_is_what_comes_after(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as other, psycopg.connect(database, autocommit=True) as conn:
        other.execute("select pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
        with pytest.raises(psycopg.Error) as first:
            conn.execute("select 1")
        with pytest.raises(psycopg.Error) as second:
            conn.execute("select 1")

    assert (first.value.sqlstate, second.value.sqlstate) == ("57P01", None)
    assert classify(first.value) is classify(second.value) is FaultClass.TRANSIENT


def test_a_connection_lost_without_a_word_is_transient(database: str) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        with socket.socket(fileno=conn.fileno()) as line:
            line.shutdown(socket.SHUT_RDWR)
            line.detach()
        with pytest.raises(psycopg.Error) as caught:
            conn.execute("select 1")

    assert caught.value.sqlstate is None
    assert classify(caught.value) is FaultClass.TRANSIENT


@pytest.mark.parametrize(
    "statement",
    [
        "select 'x'::integer",
        "insert into t values (null)",
        # More than fits into a page of an index, however it is compressed.
        "insert into t select string_agg(md5(i::text), '') from generate_series(1, 1000) i",
    ],
)
def test_what_a_record_does_not_allow_is_the_records_fault(database: str, statement: str) -> None:
    assert classify(fault(database, "create table t (v text primary key)", statement)) is FaultClass.DATA


@pytest.mark.parametrize(
    "statement",
    [
        "set statement_timeout = 1; select pg_sleep(60)",
        "select * from nowhere",
        "do 'begin raise exception ''no''; end'",
    ],
)
def test_what_was_ended_or_is_wrong_is_permanent(database: str, statement: str) -> None:
    assert classify(fault(database, statement)) is FaultClass.PERMANENT


def test_a_session_ended_while_it_is_set_up_may_be_tried_again(database: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def ended(conn: psycopg.Connection, *_: object) -> None:
        with psycopg.connect(database, autocommit=True) as other:
            other.execute("select pg_terminate_backend(%s, 5000)", (conn.info.backend_pid,))
        conn.execute("select 1")

    monkeypatch.setattr(module, "_make_plan", ended)

    with pytest.raises(TransientDatabaseError, match="terminating connection due to administrator command"):
        connect(database)
