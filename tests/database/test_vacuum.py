"""Vacuums where an application is in use: one at a time, behind the load, and no other one into it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import psycopg
import pytest

from b44_assets.maintenance.vacuum import analyze, is_analyzed_whole, kept_from_autovacuum, needs_vacuum, vacuum
from b44_assets.session import Connection
from tests.helpers.records import Record, post, user
from tests.helpers.target import Target

PEOPLE = [user(1)]
DAYS = ("2026-01-05", "2026-01-31", "2026-02-01", "2026-02-02", "2026-02-14", "2026-03-31", "2026-03-01")
ARTICLES = [post(n, created_date=day) for n, day in enumerate(DAYS)]
WRITTEN = {"posts_2026_01": 2, "posts_2026_02": 3, "posts_2026_03": 2}


def swept(target: Target, name: str) -> tuple[int, int, int]:
    """How often a table was vacuumed and analyzed by hand, and the rows that it is said to have; zeros without one."""
    row = target.conn.execute(
        "select pg_stat_get_vacuum_count(oid), pg_stat_get_analyze_count(oid), reltuples::bigint"
        " from pg_class where oid = to_regclass(%s)",
        (name,),
    ).fetchone()
    return (0, 0, 0) if row is None else (row[0], row[1], row[2])


def counted(target: Target, name: str) -> tuple[int, int]:
    """How often a table was vacuumed and analyzed by hand."""
    return swept(target, name)[:2]


def locks(target: Target, name: str) -> list[tuple[Any, ...]]:
    """The locks that are held on a table."""
    return target.all("select mode from pg_locks where relation = %s::regclass and granted", name)


def load(target: Target, *, people: Sequence[Record] = PEOPLE) -> None:
    target.migrate({"User": people, "Post": ARTICLES})


# -- behind a load -----------------------------------------------------------------------------------------------------


def test_a_throttled_load_vacuums_each_partition_that_it_has_written_once(target: Target) -> None:
    before = {name: counted(target, name) for name in WRITTEN}
    load(target.having(throttled=True))
    for name, rows in WRITTEN.items():
        vacuums, analyses = before[name]
        assert swept(target, name) == (vacuums + 1, analyses + 1, rows)


def test_a_throttled_load_with_nothing_to_do_vacuums_nothing(target_18: Target) -> None:
    load(target_18.having(throttled=True))
    before = {name: counted(target_18, name) for name in (*WRITTEN, "users")}
    target_18.having(throttled=True).load("posts")
    assert {name: counted(target_18, name) for name in (*WRITTEN, "users")} == before


def test_a_load_with_the_server_to_itself_leaves_vacuum_to_autovacuum(target_18: Target) -> None:
    load(target_18)
    before = counted(target_18, "posts_2026_01")
    target_18.migrate({"Post": [*ARTICLES, post(20, created_date="2026-01-07")]})
    assert counted(target_18, "posts_2026_01") == before


def test_a_few_rows_more_are_not_worth_it(target_18: Target) -> None:
    load(target_18, people=[user(n) for n in range(1, 30)])
    target_18.run("analyze users")

    assert not needs_vacuum(target_18.conn, "users", 1)
    assert needs_vacuum(target_18.conn, "users", 2)


@pytest.mark.parametrize("work", [vacuum, analyze])
def test_nobody_is_waited_for(target_18: Target, work: Callable[[Connection, str], bool]) -> None:
    load(target_18)
    before = counted(target_18, "users")
    with psycopg.connect(target_18.session.url) as other:
        other.execute("lock table users in share update exclusive mode")
        assert not work(target_18.conn, "users")
    assert counted(target_18, "users") == before
    assert work(target_18.conn, "users")
    assert counted(target_18, "users") != before


def test_rows_that_vacuum_has_counted_whole_are_not_counted_otherwise_by_analyze(target: Target) -> None:
    """Else every session would plan its statements anew a second time."""
    # Of 32 pages without changes in a row VACUUM reads none; the last ones have fewer rows than most.
    rows = "select n, repeat('x', case when n < 1000 then 1 else 400 end) as x from generate_series({}) n"
    target.run(f"create table crowd as {rows.format('1, 2000')}")
    try:
        target.run("vacuum analyze crowd")
        target.run(f"insert into crowd {rows.format('2001, 2200')}")

        assert vacuum(target.conn, "crowd", analyze=False, read_whole=True)
        counts = swept(target, "crowd")[2]
        assert analyze(target.conn, "crowd")
        assert swept(target, "crowd")[2] == counts == 2200
    finally:
        target.run("drop table crowd")


def test_a_table_is_analyzed_whole_unless_it_is_larger_than_the_sample(target_18: Target) -> None:
    load(target_18)
    assert is_analyzed_whole(target_18.conn, "users")
    with target_18.conn.transaction(force_rollback=True):
        # 300 pages.
        target_18.conn.execute("set local default_statistics_target = 1")
        target_18.conn.execute("create table wide as select repeat('x', 5000)::text x from generate_series(1, 301) n")
        target_18.conn.execute("alter table wide alter x set storage plain")
        assert is_analyzed_whole(target_18.conn, "wide")
        target_18.conn.execute("insert into wide select repeat('x', 5000) from generate_series(1, 301) n")
        assert not is_analyzed_whole(target_18.conn, "wide")


# -- during a load -----------------------------------------------------------------------------------------------------


def test_a_throttled_load_keeps_autovacuum_from_the_partition_that_it_writes(target_18: Target) -> None:
    held: list[list[tuple[Any, ...]]] = []

    def progress(what: str, done: int, total: int) -> None:
        if what == "posts":
            held.append([row for name in WRITTEN for row in locks(target_18, name) if "ShareUpdate" in row[0]])

    load(target_18)
    articles = [*ARTICLES, *(post(20 + n, created_date=day) for n, day in enumerate(("2026-01-07", "2026-02-07")))]
    target_18.having(throttled=True, progress=progress).migrate({"Post": articles})
    assert held == [[("ShareUpdateExclusiveLock",)]] * 2


def test_what_is_kept_from_autovacuum_can_be_read_written_and_vacuumed_elsewhere(target: Target) -> None:
    load(target)
    with kept_from_autovacuum(target.session, "posts_2026_01"):
        target.run("set lock_timeout = '1ms'")
        try:
            target.run("update posts set view_count = view_count + 1")
            target.run("delete from posts where created_at < '2026-01-06'")
            # As autovacuum does it: it takes no table that is locked.
            with psycopg.connect(target.session.url) as other, pytest.raises(psycopg.errors.LockNotAvailable):
                other.execute("lock table posts_2026_01 in share update exclusive mode nowait")
            target.run("vacuum posts_2026_02")
        finally:
            target.run("reset lock_timeout")
        # With either of them it would keep dead rows of all tables.
        assert target.all(
            "select backend_xid, backend_xmin from pg_stat_activity"
            " where datname = current_database() and application_name like 'b44 keep autovacuum%'"
        ) == [(None, None)]
    assert locks(target, "posts_2026_01") == []


def test_other_maintenance_that_is_at_it_is_not_waited_for(target_18: Target) -> None:
    load(target_18)
    with psycopg.connect(target_18.session.url) as other:
        other.execute("lock table posts_2026_01 in share update exclusive mode")
        with kept_from_autovacuum(target_18.session, "posts_2026_01"):
            assert len(locks(target_18, "posts_2026_01")) == 1


def test_a_load_survives_the_loss_of_that_session(target_18: Target) -> None:
    load(target_18)
    with kept_from_autovacuum(target_18.session, "posts_2026_01"):
        assert target_18.all(
            "select pg_terminate_backend(pid, 5000) from pg_stat_activity"
            " where datname = current_database() and application_name like 'b44 keep autovacuum%'"
        ) == [(True,)]
