from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from typing import cast

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup.model import SourceState
from b44_assets.backup.state import capture, configure_session, differences, not_set_back, snapshot
from b44_assets.errors import BackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.deadline import Deadline
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.loading import ZOO
from tests.helpers.waiting import eventually

# What somebody might lose, and how it is named.
CHANGES = {
    "a row": ("delete from app.people where id = 7", "app.people: 299 rows rather than 300"),
    "a letter": (
        "update app.people set t = t || ' ' where id = 7",
        "app.people: 300 rows as in the source, but not the same",
    ),
    "a null": (
        "update app.people set kind = null where id = 1",
        "app.people: 300 rows as in the source, but not the same",
    ),
    "a swap": (
        "update app.months set n = 55 - n where n in (25, 30)",
        "app.months_1: 31 rows as in the source, but not the same",
    ),
    "an empty text for null": (
        """update "Odd Name"."Ta""ble" set " " = '' where " " is null""",
        'Odd Name.Ta"ble: 3 rows as in the source, but not the same',
    ),
    "a table": ("drop table app.notes", "table app.notes is missing"),
    "a column": ("alter table app.notes drop column n cascade", "table app.notes is defined differently"),
    "a type": ("alter table app.notes alter n type bigint", "table app.notes is defined differently"),
    "a default": ("alter table app.people alter t drop default", "table app.people is defined differently"),
    "not null": ("alter table app.people alter t drop not null", "table app.people is defined differently"),
    "a comment": ("comment on column app.people.t is null", "table app.people is defined differently"),
    "a check": (
        "alter table app.people drop constraint people_kind_check",
        "constraint people_kind_check on app.people is missing",
    ),
    "a foreign key": (
        "alter table app.notes drop constraint notes_person_fkey",
        "constraint notes_person_fkey on app.notes is missing",
    ),
    "an index": ("drop index app.people_tags", "index app.people_tags is missing"),
    "an index's order": (
        "drop index app.people_low; create unique index people_low on app.people (lower(t), id) include (mood) where t <> ''",
        "index app.people_low is defined differently",
    ),
    "a trigger": ("drop trigger touching on app.people", "trigger touching on app.people is missing"),
    "a trigger's state": (
        "alter table app.people disable trigger touching",
        "trigger touching on app.people is defined differently",
    ),
    "a function's body": (
        "create or replace function app.low(x text) returns text language sql immutable as $$ select lower(x)  $$",
        "function app.low(x text) is defined differently",
    ),
    "a policy": ("drop policy mine on app.people", "policy mine on app.people is missing"),
    "row security": ("alter table app.people disable row level security", "table app.people is defined differently"),
    "a view": ("drop view app.low_people", "view app.low_people is missing"),
    "a rule": ("drop rule nothing on app.low_people", "rule nothing on app.low_people is missing"),
    "a label": ("alter type app.mood rename value 'ok' to 'well'", "type app.mood is defined differently"),
    "a partition": (
        "alter table app.months detach partition app.months_2",
        "table app.months_2 is defined differently",
    ),
    "a sequence": ("select setval('app.free', 100)", "sequence app.free is 4 steps behind"),
    "a descending sequence": ("select setval('app.down', -1)", "sequence app.down is 2 steps behind"),
    "an identity": ("alter sequence app.people_id_seq restart", "sequence app.people_id_seq is 300 steps behind"),
    "a sequence's owner": ("alter sequence app.free owned by none", "sequence app.free is defined differently"),
    "statistics": ("drop statistics app.people_stats", "statistics app.people_stats is missing"),
    "a publication": ("drop publication pub", "publication pub is missing"),
    "a large object": ("select lo_unlink(oid) from pg_largeobject_metadata", "large objects: 1 row is missing"),
    "a large object's byte": (
        "select lo_put(oid, 0, 'A') from pg_largeobject_metadata",
        "large objects: 1 row as in the source, but not the same",
    ),
    "something new": ("create table app.more ()", "table app.more was not in the source"),
}


def state(url: str, lsn: str | None = None) -> SourceState:
    with connect(url, autocommit=True) as conn:
        configure_session(conn)
        with snapshot(conn):
            return capture(conn, lsn=lsn)


@pytest.fixture(scope="module")
def zoo(server_home: EmbeddedServer) -> str:
    """URL of a database with one of each."""
    url = server_home.url("postgres")
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop database if exists zoo")
        conn.execute("create database zoo template template0")
    with psycopg.connect(server_home.url("zoo"), autocommit=True) as conn:
        conn.execute(ZOO)
        return server_home.url("zoo")


@pytest.fixture(scope="module")
def before(zoo: str) -> SourceState:
    """What it holds at first."""
    return state(zoo)


@pytest.mark.parametrize("what", CHANGES)
def test_each_difference_is_named(zoo: str, before: SourceState, what: str) -> None:
    statement, expected = CHANGES[what]

    with connect(zoo, autocommit=True) as conn:
        configure_session(conn)
        conn.execute("begin isolation level repeatable read")
        conn.execute(statement.encode())
        found = differences(before, capture(conn))
        # What is no part of a transaction.
        conn.execute("rollback")
        conn.execute("select setval('app.free', 128), setval('app.down', -3)")

    assert expected in found


def test_what_is_the_same_differs_in_nothing(zoo: str, before: SourceState) -> None:
    assert differences(before, state(zoo)) == []


def test_a_sequence_may_be_ahead(zoo: str) -> None:
    before = state(zoo)
    with connect(zoo, autocommit=True) as conn:
        conn.execute("select nextval('app.free'), nextval('app.down')")

    assert differences(before, state(zoo)) == []


def test_a_sequence_that_was_set_back_meanwhile_tells_nothing() -> None:
    assert not_set_back({"a": 5, "b": 5, "c": 5}, {"a": 5, "b": 4}) == {"a": 5}


def test_exact_text_counts_in_a_physical_backup_only_and_privileges_in_any(zoo: str) -> None:
    logical, physical = state(zoo), state(zoo, lsn="0/0")
    with connect(zoo, autocommit=True) as conn:
        conn.execute("grant select on app.people to public")
        conn.execute(
            "create or replace function app.double(n int default 3) returns int language sql immutable strict"
            " parallel safe return n * 2"
        )

    [granted] = differences(logical, state(zoo))
    assert granted.startswith("table app.people has [owner postgres; PUBLIC: SELECT; ")
    assert differences(physical, state(zoo, lsn="0/0")) == [
        "function app.double(n integer) is defined differently",
        "table app.people is defined differently",
    ]


def test_a_physical_backup_has_no_rows_of_unlogged_tables_and_a_logical_one_none_of_materialized_views(
    zoo: str,
) -> None:
    logical, physical = state(zoo).tables.keys(), state(zoo, lsn="0/0").tables.keys()

    assert logical - physical == {"app.cache"}
    assert physical - logical == {"app.counts"}


def test_a_table_that_is_emptied_after_the_snapshot_is_waited_for(zoo: str) -> None:
    with connect(zoo, autocommit=True) as conn, connect(zoo, autocommit=True, lock_timeout_ms=50) as other:
        configure_session(conn)
        with snapshot(conn):
            conn.execute("select 1")
            with pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("truncate app.notes")
            found = capture(conn)

    assert found.tables["app.notes"].rows == 21


@pytest.fixture
def ten_tables(embedded_database: str) -> str:
    """URL of a database in which each of ten tables has a writer of its own that waits to be ended."""
    with connect(embedded_database, autocommit=True) as conn:
        for number in range(10):
            conn.execute(sql.SQL("create table {} (n int)").format(sql.Identifier(f"t{number}")))
    return embedded_database


def test_all_locks_of_a_snapshot_have_one_deadline(ten_tables: str) -> None:
    """Each writer ends well within the time for one lock, but only once it is waited for."""
    with (
        connect(ten_tables, autocommit=True) as locker,
        connect(ten_tables, autocommit=True) as asker,
        ExitStack() as stack,
    ):
        configure_session(locker)
        locker.execute("set lock_timeout = '300ms'")
        writers = [stack.enter_context(psycopg.connect(ten_tables)) for _ in range(10)]
        for number, writer in enumerate(writers):
            writer.execute(sql.SQL("insert into {} values (1)").format(sql.Identifier(f"t{number}")))
        ended = threading.Event()

        def end_each_in_turn() -> None:
            waiting = "select from pg_locks where pid = %s and not granted and relation = %s::regclass"
            for number, writer in enumerate(writers):
                while not asker.execute(waiting, (locker.info.backend_pid, f"t{number}")).fetchall():
                    if ended.wait(0.005):
                        return
                ended.wait(0.1)
                writer.commit()

        thread = threading.Thread(target=end_each_in_turn)
        thread.start()
        try:
            with (
                pytest.raises(psycopg.errors.LockNotAvailable),
                snapshot(locker, without_writers=True, deadline=Deadline.after(0.3)),
            ):
                pass
        finally:
            ended.set()
            thread.join()


def test_a_deadline_ends_with_the_locks(ten_tables: str) -> None:
    with connect(ten_tables, autocommit=True) as conn:
        configure_session(conn)
        with snapshot(conn, deadline=Deadline.after(60)):
            assert conn.execute("show statement_timeout").fetchone() == ("0",)
            with pytest.raises(psycopg.errors.LockNotAvailable):
                Deadline.after(0).run(conn, sql.SQL("select 1"))


class SlowAtTheEnd:
    """A connection on which the last statement of a deadline, which gives the limit back, takes long."""

    def __init__(self, conn: psycopg.Connection) -> None:
        self._conn, self._asked = conn, 0

    def execute(self, query: sql.SQL | sql.Composed | str) -> object:
        self._asked += 1
        text = query if isinstance(query, str) else query.as_string(self._conn)
        return self._conn.execute(f"select pg_sleep(60); {text}".encode() if self._asked == 4 else text.encode())


def test_a_deadline_that_is_over_while_the_limit_is_given_back_is_over(ten_tables: str) -> None:
    with (
        connect(ten_tables, autocommit=True) as conn,
        conn.transaction(force_rollback=True),
        pytest.raises(psycopg.errors.LockNotAvailable),
    ):
        Deadline.after(0.2).run(cast("psycopg.Connection", SlowAtTheEnd(conn)), sql.SQL("lock table t0"))


def test_a_statement_that_somebody_cancels_is_not_said_to_be_late(ten_tables: str) -> None:
    with connect(ten_tables, autocommit=True) as conn, conn.transaction():
        sleeps = "select exists (select from pg_stat_activity where pid = %s and wait_event = 'PgSleep')"

        def cancel() -> None:
            with connect(ten_tables, autocommit=True) as other:
                eventually(lambda: other.execute(sleeps, (conn.info.backend_pid,)).fetchone() == (True,))
            conn.cancel_safe()

        with ThreadPoolExecutor(1) as pool:
            cancelled = pool.submit(cancel)
            with pytest.raises(psycopg.errors.QueryCanceled):
                Deadline.after(60).run(conn, sql.SQL("select pg_sleep(60)"))
            cancelled.result()


def test_what_a_role_may_not_read_is_named_in_one_line(zoo: str) -> None:
    with connect(zoo, autocommit=True) as conn:
        conn.execute("grant usage on schema app to public")
        conn.execute("drop role if exists reader")
        conn.execute("create role reader")
        conn.execute("set role reader")
        configure_session(conn)
        with (
            pytest.raises(BackupError, match=r"^this role cannot back up all of the database: permission denied"),
            snapshot(conn),
        ):
            pass
