"""Partitions on real servers: made, filled out of the default one in live use, looked at, detached."""

from __future__ import annotations

import json
import threading
import time
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, date, datetime
from random import Random
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.rows import TupleRow

from b44_assets.catalog import Catalog, Kind
from b44_assets.errors import DatabaseError
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.partition_checks import check_bounds, check_global_ids
from b44_assets.schema.partitions import (
    apply_partitions,
    describe_partitions,
    detach_before,
    drain_default,
    ensure_partitions,
    keep_ahead,
    months_ago,
)
from b44_assets.schema.row_checks import violations
from b44_assets.session import Session
from tests.helpers.databases import create_database, database_url, template_once
from tests.helpers.lock_waits import holds_up, waits
from tests.helpers.sessions import keeping
from tests.helpers.waiting import eventually

Connection = psycopg.Connection[TupleRow]

AUTHOR = uuid.UUID("11111111-1111-4111-8111-111111111111")
OTHER_AUTHOR = uuid.UUID("22222222-2222-4222-8222-222222222222")
KINDS = (Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE, Kind.INDEX, Kind.CONSTRAINT, Kind.TRIGGER)
PHASES = (
    "built",
    "copying",
    "catching up",
    "adding constraints",
    "waiting for snapshots",
    "verifying",
    "swapping",
    "finishing",
)


@pytest.fixture(scope="session")
def template(server_url: str, catalog: Catalog) -> str:
    """Name of a database with all tables, indexes, constraints and triggers, and two authors; it is only copied from."""

    def make(url: str) -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("create schema migration")
            hashed = catalog.partitions("user_sessions")
            assert hashed is not None
            for spec in (*catalog.of(*KINDS), hashed):
                for statement in spec.statements:
                    conn.execute(statement.text.encode())
            conn.execute("select b44.follow_truncate_triggers('posts')")
            conn.execute(
                "insert into users (id, email, role, email_verified)"
                " values (%s, 'a@example.org', 'admin', true), (%s, 'b@example.org', 'admin', true)",
                (AUTHOR, OTHER_AUTHOR),
            )

    return template_once(server_url, "template_partitions", make)


@pytest.fixture
def session(server_url: str, template: str, catalog: Catalog) -> Generator[Session]:
    """A session on a copy of it."""
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as server:
        create_database(server, name, template)
        try:
            with keeping(Session(database_url(server_url, name), catalog)) as session:
                yield session
        finally:
            server.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def conn(session: Session) -> Generator[Connection]:
    with psycopg.connect(session.url, autocommit=True) as conn:
        conn.execute("set timezone = 'UTC'")
        yield conn


@pytest.fixture
def role(conn: Connection) -> Generator[sql.Identifier]:
    """A role of the test's own, that may do nothing."""
    name = sql.Identifier(f"role_{uuid.uuid4().hex}")
    conn.execute(sql.SQL("create role {}").format(name))
    yield name
    conn.execute("reset role")
    conn.execute(sql.SQL("drop owned by {} cascade").format(name))
    conn.execute(sql.SQL("drop role {}").format(name))


def one(conn: Connection, query: str, *params: object) -> Any:
    row = conn.execute(query.encode(), params or None).fetchone()
    assert row is not None
    return row[0] if len(row) == 1 else row


def rests(conn: Connection, pid: int) -> bool:
    """Whether a session sleeps in the server between two attempts. Those of other tests may sleep on the same server."""
    return one(conn, "select exists (select from pg_stat_activity where pid = %s and wait_event = 'PgSleep')", pid)


def every(conn: Connection, query: str, *params: object) -> list[Any]:
    rows = conn.execute(query.encode(), params or None).fetchall()
    return [row[0] if len(row) == 1 else row for row in rows]


def add_posts(conn: Connection, month: str, number: int, width: int = 200) -> None:
    """Posts of a month, spread over its first 28 days; slugs tell the month and the place."""
    conn.execute(
        """
        insert into posts (user_id, title, content, slug, published, published_at, tags, created_at, created_by)
        select %(author)s, 'Post ' || i, repeat(md5(i::text) || ' ', %(width)s / 33 + 1), %(month)s || '-' || i, i %% 2 = 0,
               case when i %% 2 = 0 then now() end, array['tag ' || i %% 7],
               (%(month)s || '-01 00:00+00')::timestamptz + (i %% 28) * interval '1 day' + i * interval '1 millisecond', %(author)s
          from generate_series(1, %(number)s) i
        """,
        {"author": AUTHOR, "month": month, "number": number, "width": width},
    )


def places(conn: Connection, table: str = "posts") -> dict[str, int]:
    query = sql.SQL("select tableoid::regclass::text, count(*) from {} group by 1 order by 1")
    return dict(conn.execute(query.format(sql.Identifier(table))).fetchall())


def content(conn: Connection) -> list[Any]:
    """Every row, every column."""
    return every(conn, "select p::text from posts p order by id, created_at")


def registry(conn: Connection) -> list[Any]:
    """The registry of slugs down to the versions of its rows."""
    return every(conn, "select s::text || xmin || ctid from post_slugs s order by slug")


def names(conn: Connection, table: str = "posts") -> list[str]:
    return every(
        conn,
        "select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid where i.inhparent = %s::regclass order by 1",
        table,
    )


def leftovers(conn: Connection) -> list[str]:
    """Anything of a drain that is still there."""
    return every(
        conn,
        """
        select relname::text from pg_class where relname ~ '_drain' or relname ~ '_new'
        union select proname::text from pg_proc where proname ~ '_drain_(mirror|note)$'
        union select tgname::text from pg_trigger where tgname ~ '^b44_drain'
        union select conname::text from pg_constraint where conname ~ '^b44_'
        """,
    )


def first_of_month(day: date, later: int) -> date:
    months = day.year * 12 + day.month - 1 + later
    return date(months // 12, months % 12 + 1, 1)


def step(conn: Connection, table: str = "posts", unit: str = "month") -> Any:
    return one(conn, "select phase, done, total, idle, waits_for from b44.drain_step(%s, %s)", table, unit)


def phase_of(conn: Connection) -> str | None:
    """The phase whose step is next, if a copy is there."""
    return one(conn, "select obj_description(to_regclass('posts_drain'), 'pg_class')::jsonb ->> 'phase'")


def step_until(conn: Connection, phase: str) -> None:
    """Does steps until the one of a phase would be next."""
    for _ in range(200):
        if (comment := phase_of(conn)) == phase:
            return
        assert step(conn)[0] != "done", f"{phase} never came, after {comment}"
    raise AssertionError(f"{phase} never came")


def finish(conn: Connection, before_swap: Callable[[Connection], None] | None = None) -> None:
    """Does steps until all is done."""
    for _ in range(500):
        if before_swap is not None and phase_of(conn) == "swapping":
            before_swap(conn)
        if step(conn)[0] == "done":
            return
    raise AssertionError("it never ended")


@contextmanager
def in_thread(work: Callable[[], object]) -> Generator[threading.Thread]:
    """Does something meanwhile; what it raises is raised here at the end."""
    raised: list[BaseException] = []

    def guarded() -> None:
        try:
            work()
        except BaseException as error:
            raised.append(error)

    thread = threading.Thread(target=guarded)
    thread.start()
    try:
        yield thread
    finally:
        thread.join()
    if raised:
        raise raised[0]


# -- periods -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("day", "name", "start", "end"),
    [
        ("2024-02-29", "posts_2024_02", "2024-02-01", "2024-03-01"),
        ("2025-02-28", "posts_2025_02", "2025-02-01", "2025-03-01"),
        ("2025-12-31", "posts_2025_12", "2025-12-01", "2026-01-01"),
        ("2026-01-01", "posts_2026_01", "2026-01-01", "2026-02-01"),
        ("1969-12-31", "posts_1969_12", "1969-12-01", "1970-01-01"),
    ],
)
def test_a_month_begins_and_ends_in_utc_whatever_the_session_thinks(
    session: Session, conn: Connection, day: str, name: str, start: str, end: str
) -> None:
    conn.execute("set timezone = 'Pacific/Auckland'")
    conn.execute("set datestyle = 'German, DMY'")
    conn.execute("select create_monthly_partition(%s::date)", (datetime.strptime(day, "%Y-%m-%d").date(),))

    made = next(part for part in describe_partitions(session, "posts") if not part.default)
    assert made.name == name
    assert made.start == datetime.fromisoformat(start).replace(tzinfo=UTC)
    assert made.end == datetime.fromisoformat(end).replace(tzinfo=UTC)


def test_every_day_of_two_centuries_lies_within_the_period_that_it_names(conn: Connection) -> None:
    conn.execute("set timezone = 'America/St_Johns'")
    wrong = every(
        conn,
        """
        select d, unit
          from generate_series(date '1900-01-01', date '2100-12-31', interval '1 day') d
         cross join unnest(array['month', 'year']) unit
         cross join lateral b44.period(unit, d::date) p
         where not (p.first_moment <= d::date::timestamp at time zone 'UTC' and d::date::timestamp at time zone 'UTC' < p.next_moment)
            or p.suffix <> to_char(d, case unit when 'month' then '_YYYY_MM' else '_YYYY' end)
            or extract(day from p.next_moment at time zone 'UTC') <> 1
            or p.next_moment at time zone 'UTC' <> (p.first_moment at time zone 'UTC') + ('1 ' || unit)::interval
        """,
    )
    assert wrong == []


@pytest.mark.parametrize(
    "day",
    ["null", "'infinity'", "'-infinity'", "'0001-01-01 BC'", "'10000-01-01'", "'294276-12-31'", "'5874897-12-31'"],
)
def test_a_day_without_a_month_is_refused(conn: Connection, day: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="there is no month of"):
        conn.execute(f"select create_monthly_partition({day}::date)".encode())


def test_a_period_that_is_neither_month_nor_year_is_refused(conn: Connection) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="month or year"):
        conn.execute("select b44.create_partition('posts', 'week', '2025-01-01')")


@pytest.mark.parametrize("table", ["users", "user_sessions", "nowhere"])
def test_a_table_not_partitioned_by_time_is_refused(conn: Connection, table: str) -> None:
    with pytest.raises((errors.WrongObjectType, errors.UndefinedTable), match=table):
        conn.execute("select b44.create_partition(%s, 'month', '2025-01-01')", (table,))


# -- making ------------------------------------------------------------------------------------------------------------


def test_making_a_partition_twice_changes_nothing(conn: Connection) -> None:
    query = "select b44.create_partition('posts', 'month', '2025-03-17')"
    first = one(conn, query)
    before = one(conn, "select 'posts_2025_03'::regclass::oid")
    assert (first, one(conn, query)) == ("posts_2025_03", "posts_2025_03")
    assert (names(conn), one(conn, "select 'posts_2025_03'::regclass::oid")) == (
        ["posts_2025_03", "posts_default"],
        before,
    )


def test_many_sessions_may_make_the_same_partitions_at_once(session: Session, conn: Connection) -> None:
    days = [f"2025-{month:02}-15" for month in (1, 2, 3)]

    def make(seed: int) -> None:
        order = Random(seed).sample(days, len(days))
        with psycopg.connect(session.url, autocommit=True) as own:
            for day in order:
                own.execute("select create_monthly_partition(%s)", (day,))

    threads = [threading.Thread(target=make, args=(seed,)) for seed in range(4)]
    with in_thread(lambda: make(4)):
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert names(conn) == ["posts_2025_01", "posts_2025_02", "posts_2025_03", "posts_default"]


def test_a_partition_has_all_that_the_table_has(conn: Connection, role: sql.Identifier) -> None:
    conn.execute("alter table posts_default set (fillfactor = 77)")
    conn.execute("alter table posts alter column title set statistics 321")
    conn.execute(sql.SQL("alter table posts owner to {}").format(role))

    conn.execute("select create_monthly_partition('2025-03-17')")

    def indexes(table: str) -> list[Any]:
        return sorted(
            every(
                conn,
                "select b44.index_form(indexrelid) from pg_index where indrelid = %s::regclass and indisvalid",
                table,
            )
        )

    assert indexes("posts_2025_03") == indexes("posts")
    constraints = "select conname, convalidated from pg_constraint where conrelid = %s::regclass and contype in ('c', 'f') order by 1"
    assert every(conn, constraints, "posts_2025_03") == every(conn, constraints, "posts")
    triggers = (
        "select tgname from pg_trigger where tgrelid = %s::regclass and not tgisinternal and tgtype & 1 = 1 order by 1"
    )
    assert every(conn, triggers, "posts_2025_03") == every(conn, triggers, "posts") != []
    assert one(
        conn,
        "select reloptions, relowner = (select relowner from pg_class where relname = 'posts'), obj_description(oid)"
        " from pg_class where relname = 'posts_2025_03'",
    ) == (["fillfactor=77"], True, "posts of 2025-03 (UTC)")
    targets = every(
        conn,
        "select c.relname, a.attstattarget from pg_attribute a join pg_class c on c.oid = a.attrelid"
        " where c.relname ~ '^posts_2025_03' and a.attnum > 0 and a.attstattarget >= 0 order by 1",
    )
    assert [target for _, target in targets] == [321, 0, 0]


def test_a_table_that_bears_the_name_and_is_no_partition_is_left_alone(conn: Connection) -> None:
    conn.execute("create table posts_2025_03 (mine text)")
    with pytest.raises(errors.DuplicateTable, match="posts_2025_03 that is no partition of posts"):
        conn.execute("select create_monthly_partition('2025-03-17')")


def test_a_month_within_a_partition_of_another_name_needs_no_other(conn: Connection) -> None:
    conn.execute("create table posts_old partition of posts for values from (minvalue) to ('2025-01-01 00:00+00')")
    assert one(conn, "select b44.create_partition('posts', 'month', '2019-06-01')") == "posts_old"


def test_the_waits_of_the_caller_are_as_they_were(conn: Connection) -> None:
    settings = "select current_setting('lock_timeout'), current_setting('deadlock_timeout')"
    with conn.transaction():
        conn.execute("set local lock_timeout = '12345ms'")
        conn.execute("set local deadlock_timeout = '6789ms'")
        conn.execute("select create_monthly_partition('2025-03-17')")
        assert one(conn, settings) == ("12345ms", "6789ms")


def test_a_reader_in_the_way_is_waited_for(session: Session, conn: Connection) -> None:
    with psycopg.connect(session.url) as reader:
        reader.execute("select count(*) from posts")
        with in_thread(lambda: conn.execute("select create_monthly_partition('2025-03-17')")):
            with psycopg.connect(session.url, autocommit=True) as watcher:
                eventually(lambda: rests(watcher, conn.info.backend_pid))
                # It waits without a lock: others read and write.
                watcher.execute("set lock_timeout = '5s'")
                add_posts(watcher, "2024-07", 1)
                assert places(watcher) == {"posts_default": 1}
            reader.rollback()
    assert names(conn) == ["posts_2025_03", "posts_default"]


# -- moving in one transaction -----------------------------------------------------------------------------------------


def test_rows_of_the_month_in_the_default_partition_move_to_it(conn: Connection) -> None:
    add_posts(conn, "2025-03", 50)
    before, slugs = content(conn), registry(conn)

    conn.execute("select create_monthly_partition('2025-03-17')")

    assert places(conn) == {"posts_2025_03": 50}
    assert (content(conn), registry(conn)) == (before, slugs)
    assert leftovers(conn) == []


def test_rows_of_other_months_stay(conn: Connection) -> None:
    conn.execute("alter table posts drop constraint if exists chk_posts_finite_times")
    for month in ("2025-02", "2025-03", "2025-04"):
        add_posts(conn, month, 30)
    conn.execute(
        "insert into posts (user_id, title, content, slug, created_at, created_by)"
        " values (%s, 'Never', 'Some content', 'never', 'infinity', %s)",
        (AUTHOR, AUTHOR),
    )
    before, slugs = content(conn), registry(conn)

    conn.execute("select create_monthly_partition('2025-03-17')")

    assert places(conn) == {"posts_2025_03": 30, "posts_default": 61}
    assert (content(conn), registry(conn)) == (before, slugs)
    assert leftovers(conn) == []


def test_the_edges_of_a_month_go_to_the_right_side(conn: Connection) -> None:
    for moment in (
        "2025-02-28 23:59:59.999999+00",
        "2025-03-01 00:00+00",
        "2025-03-31 23:59:59.999999+00",
        "2025-04-01 00:00+00",
    ):
        conn.execute(
            "insert into posts (user_id, title, content, slug, created_at, created_by)"
            " values (%s, 'Edge', 'Some content', %s, %s, %s)",
            (AUTHOR, moment, moment, AUTHOR),
        )
    conn.execute("set timezone = 'Asia/Tokyo'")
    conn.execute("select create_monthly_partition('2025-03-17')")
    conn.execute("set timezone = 'UTC'")
    assert every(conn, "select created_at::text from posts_2025_03 order by 1") == [
        "2025-03-01 00:00:00+00",
        "2025-03-31 23:59:59.999999+00",
    ]


@pytest.mark.parametrize(
    "move", ["select create_monthly_partition('2025-03-17')", "call create_monthly_partition_online('2025-03-17')"]
)
def test_the_default_partition_that_takes_over_is_like_the_old_one(
    conn: Connection, role: sql.Identifier, move: str
) -> None:
    conn.execute(sql.SQL("grant select on posts_default to {}").format(role))
    conn.execute(sql.SQL("grant update (title) on posts_default to {} with grant option").format(role))
    conn.execute("alter table posts_default replica identity full, set (fillfactor = 66, autovacuum_enabled = false)")
    conn.execute("comment on table posts_default is 'Of no month'")
    described = (
        "select (select array_agg(a::text order by a::text) from unnest(relacl) a), relreplident::text,"
        " obj_description(oid), reloptions,"
        " (select array_agg(c.relname::text order by 1) from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where i.indrelid = d.oid),"
        " (select array_agg(format('%s %s', attname, attacl)) from pg_attribute where attrelid = d.oid and attacl <> '{}')"
        " from pg_class d where oid = 'posts_default'::regclass"
    )
    before = one(conn, described)
    add_posts(conn, "2025-03", 1)
    conn.execute("set client_min_messages = warning")
    conn.execute(move.encode())
    after = one(conn, described)
    assert (after[:3], sorted(after[3])) == (before[:3], sorted(before[3]))
    assert len(after[4]) == len(before[4])
    assert after[5] == before[5] is not None
    assert all(name.startswith("posts_default_") for name in after[4])


def test_what_hangs_on_the_default_partition_stays_there(conn: Connection) -> None:
    conn.execute("create view undated as select * from posts_default")
    add_posts(conn, "2025-03", 5)
    conn.execute("select create_monthly_partition('2025-03-17')")
    assert (places(conn), every(conn, "select * from undated")) == ({"posts_2025_03": 5}, [])


def test_changes_that_come_in_while_rows_are_copied_are_not_lost(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-02", 2)
    add_posts(conn, "2025-03", 30)
    with psycopg.connect(session.url) as reader:
        # Holds the lock until the copy is made, so that the changes come after it.
        reader.execute("select count(*) from posts")
        with in_thread(lambda: conn.execute("select create_monthly_partition('2025-03-17')")):
            with psycopg.connect(session.url, autocommit=True) as writer:
                eventually(lambda: rests(writer, conn.info.backend_pid))
                writer.execute("delete from posts where slug = '2025-03-1'")
                writer.execute("update posts set title = 'Changed' where slug = '2025-03-2'")
                writer.execute("update posts set created_at = '2025-02-10 00:00+00' where slug = '2025-03-3'")
                writer.execute("update posts set created_at = '2025-03-10 00:00+00' where slug = '2025-02-1'")
                writer.execute(
                    "insert into posts (user_id, title, content, slug, created_at, created_by)"
                    " values (%s, 'New', 'Some content', 'new', '2025-03-05 00:00+00', %s)",
                    (AUTHOR, AUTHOR),
                )
                expected = content(writer)
            reader.rollback()
    assert content(conn) == expected
    assert places(conn) == {"posts_2025_03": 30, "posts_default": 2}


def test_rows_are_moved_only_by_a_transaction_that_sees_the_latest(conn: Connection) -> None:
    add_posts(conn, "2025-03", 5)
    with pytest.raises(errors.ActiveSqlTransaction, match="READ COMMITTED"), conn.transaction():
        conn.execute("set transaction isolation level repeatable read")
        conn.execute("select create_monthly_partition('2025-03-17')")


def test_rows_that_break_a_check_which_is_not_validated_move_too(conn: Connection) -> None:
    add_posts(conn, "2025-03", 5)
    add_posts(conn, "2025-04", 5)
    conn.execute("alter table posts add constraint chk_short check (length(title) < 5) not valid")
    conn.execute("select create_monthly_partition('2025-03-17')")
    assert places(conn) == {"posts_2025_03": 5, "posts_default": 5}
    assert (
        one(
            conn,
            "select convalidated from pg_constraint where conname = 'chk_short' and conrelid = 'posts_2025_03'::regclass",
        )
        is False
    )


# -- keeping ahead -----------------------------------------------------------------------------------------------------


def test_partitions_are_kept_ahead(conn: Connection) -> None:
    conn.execute("set timezone = 'Pacific/Kiritimati'")
    conn.execute("select manage_partitions()")
    today = datetime.now(UTC).date()
    expected = [f"posts_{first_of_month(today, later):%Y_%m}" for later in range(13)]
    assert names(conn) == [*expected, "posts_default"]
    assert names(conn, "audit_logs") == [
        f"audit_logs_{today.year}",
        f"audit_logs_{today.year + 1}",
        "audit_logs_default",
    ]


def test_gaps_since_the_earliest_partition_are_filled(session: Session, conn: Connection) -> None:
    today = datetime.now(UTC).date()
    conn.execute("select create_monthly_partition(%s)", (first_of_month(today, -5),))
    conn.execute("select create_monthly_partition(%s)", (first_of_month(today, -3),))
    assert not check_bounds(session, "posts").passed
    conn.execute("select manage_partitions()")
    assert len(names(conn)) == 5 + 13 + 1
    assert check_bounds(session, "posts").passed


def test_keeping_ahead_twice_at_once_makes_each_partition_once(session: Session, conn: Connection) -> None:
    def manage() -> None:
        with psycopg.connect(session.url, autocommit=True) as own:
            own.execute("select manage_partitions()")

    with in_thread(manage), in_thread(manage):
        pass
    conn.execute("select manage_partitions()")
    assert len(names(conn)) == 14


def test_a_partition_of_long_ago_does_not_call_for_all_since(conn: Connection) -> None:
    conn.execute("select create_monthly_partition('0202-03-01')")
    conn.execute("set client_min_messages = error")
    conn.execute("select manage_partitions()")
    assert len(names(conn)) == 1 + 13 + 1


def test_partitions_of_no_plausible_time_are_read_and_call_for_no_others(session: Session, conn: Connection) -> None:
    for day in ("0001-01-01", "0202-03-01", "1900-01-01", "9999-12-31"):
        conn.execute("select create_monthly_partition(%s::date)", (day,))
        conn.execute("select b44.create_partition('audit_logs', 'year', %s::date)", (day,))
    # As one that rounds beyond the last moment of a year would have got.
    conn.execute("create table posts_0000_12 partition of posts for values from (minvalue) to ('0001-01-01 00:00+00')")
    conn.execute(
        "create table posts_later partition of posts for values from ('10000-01-01 00:00+00') to ('10000-02-01 00:00+00')"
    )
    conn.execute("select manage_partitions()")

    months = {part.name: (part.start, part.end) for part in describe_partitions(session, "posts")}
    assert months["posts_9999_12"] == (datetime(9999, 12, 1, tzinfo=UTC), datetime.max.replace(tzinfo=UTC))
    assert months["posts_later"] == (datetime.max.replace(tzinfo=UTC),) * 2
    assert len(months) == 6 + 13 + 1
    assert len(describe_partitions(session, "audit_logs")) == 4 + 2 + 1
    for table in ("posts", "audit_logs"):
        check = check_bounds(session, table)
        assert (check.gaps, check.overlaps, check.passed) == ((), (), True)


def test_a_gap_since_1970_is_still_one(session: Session, conn: Connection) -> None:
    for day in ("1900-01-01", "1970-01-01", "1972-01-01"):
        conn.execute("select b44.create_partition('audit_logs', 'year', %s::date)", (day,))
    assert [str(gap) for gap in check_bounds(session, "audit_logs").gaps] == ["1971-01-01 to 1972-01-01"]
    conn.execute("select manage_partitions()")
    assert check_bounds(session, "audit_logs").passed


@pytest.mark.parametrize("day", ["5874897-12-31", "infinity"])
def test_all_partitions_can_be_detached_by_a_day_beyond_all(conn: Connection, day: str) -> None:
    conn.execute("select create_monthly_partition('9999-12-01')")
    conn.execute("select create_monthly_partition('2025-03-01')")
    assert one(conn, "select detach_partitions_before('posts', %s::date)", day) == ["posts_2025_03", "posts_9999_12"]


def test_rows_in_the_default_partition_move_when_partitions_are_kept_ahead(conn: Connection) -> None:
    today = datetime.now(UTC).date()
    months = [first_of_month(today, later).strftime("%Y-%m") for later in (0, 1, 2)]
    for month in months:
        add_posts(conn, month, 10)
    before = content(conn)
    conn.execute("select manage_partitions()")
    assert places(conn) == {f"posts_{month.replace('-', '_')}": 10 for month in months}
    assert content(conn) == before


@pytest.mark.parametrize(("in_use", "transactions"), [(True, 4), (False, 1)])
def test_the_engine_keeps_ahead_of_a_table_in_use_one_transaction_a_partition(
    session: Session, conn: Connection, monkeypatch: pytest.MonkeyPatch, in_use: bool, transactions: int
) -> None:
    monkeypatch.setattr("b44_assets.schema.partitions.is_live", lambda *_: in_use)
    made = keep_ahead(session, "posts", 3)
    assert len(made) == 4
    assert len(set(every(conn, "select xmin::text from pg_class where relname = any(%s)", list(made)))) == transactions
    assert keep_ahead(session, "posts", 3) == ()


@pytest.mark.parametrize(("rows", "transactions"), [(1, 3), (0, 1)])
def test_partitions_for_a_load_are_made_together_where_the_table_has_no_row(
    conn: Connection, rows: int, transactions: int
) -> None:
    add_posts(conn, "2025-01", rows)
    days = [date(2025, month, 1) for month in (3, 4, 5)]
    made = ensure_partitions(conn, "posts", "month", days)
    assert made == {day: f"posts_{day:%Y_%m}" for day in days}
    names = list(made.values())
    assert len(set(every(conn, "select xmin::text from pg_class where relname = any(%s)", names))) == transactions


def test_partition_files_bring_every_set_into_order_and_may_run_again(session: Session, conn: Connection) -> None:
    for _ in range(2):
        for spec in session.catalog.of(Kind.PARTITION):
            for statement in spec.statements:
                conn.execute(statement.text.encode())
    for table in ("posts", "audit_logs", "user_sessions"):
        check = check_bounds(session, table)
        assert check.passed, check.message()


def test_a_partition_file_moves_rows_makes_what_is_missing_and_detaches_what_is_old(
    session: Session, conn: Connection
) -> None:
    conn.execute("select create_monthly_partition('2024-11-01')")
    add_posts(conn, "2024-11", 3)
    add_posts(conn, "2025-02", 5)
    before = content(conn)
    spec = session.catalog.partitions("posts")
    assert spec is not None
    done = apply_partitions(session, spec)
    assert done.drained is not None
    assert (done.drained.rows, done.drained.partitions, done.detached) == (5, ("posts_2025_02",), ())
    assert {"posts_2024_12", "posts_2025_01"} < set(done.made) and "posts_2024_11" not in done.made
    last = months_ago(datetime.now(UTC).date(), -12)
    assert done.partitions[-2].name == f"posts_{last:%Y_%m}" and done.partitions[-1].default
    assert check_bounds(session, "posts").passed
    assert content(conn) == before
    again = apply_partitions(session, spec)
    assert (again.made, again.detached, again.partitions) == ((), (), done.partitions)
    age = (datetime.now(UTC).year - 2025) * 12 + datetime.now(UTC).month - 1
    kept = apply_partitions(session, spec, keep_months=age)
    assert kept.detached == ("posts_2024_11", "posts_2024_12")
    assert one(conn, "select count(*) from posts_2024_11") == 3
    assert one(conn, "select count(*) from posts") == 5


def test_a_detached_month_is_no_fault_of_slugs_or_schema(session: Session, conn: Connection) -> None:
    add_posts(conn, "2024-11", 3)
    conn.execute("select create_monthly_partition('2024-11-01'), create_monthly_partition('2024-12-01')")
    detach_before(session, "posts", date(2024, 12, 1))
    assert violations(session, session.catalog.checks["slugs_registered"]).passed
    assert not [line for line in schema_drift(session).differences if "posts_2024_11" in line]


@pytest.mark.parametrize(
    ("months", "expected"),
    [
        (0, date(2026, 3, 1)),
        (2, date(2026, 1, 1)),
        (3, date(2025, 12, 1)),
        (26, date(2024, 1, 1)),
        (99999, date(1, 1, 1)),
    ],
)
def test_months_are_counted_back_to_the_first_of_a_month(months: int, expected: date) -> None:
    assert months_ago(date(2026, 3, 31), months) == expected


def test_a_reader_who_waits_while_rows_move_still_sees_each_once(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    add_posts(conn, "2025-05", 5)
    seen: list[int] = []

    def read() -> None:
        with psycopg.connect(session.url, autocommit=True) as reader:
            seen.append(one(reader, "select count(*) from posts"))

    with psycopg.connect(session.url) as mover:
        mover.execute("select create_monthly_partition('2025-03-01')")
        with in_thread(read):
            eventually(lambda: holds_up(conn, mover.info.backend_pid))
            mover.commit()
    assert seen == [25]


def test_rows_do_not_move_under_a_snapshot_of_before(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    add_posts(conn, "2025-05", 5)
    within = (
        "select count(*) from posts where created_at >= '2025-03-01 00:00+00' and created_at < '2025-04-01 00:00+00'"
    )
    with (
        old_snapshot(session) as reader,
        psycopg.connect(session.url, autocommit=True) as mover,
        in_thread(lambda: mover.execute("select create_monthly_partition('2025-03-01')")),
    ):
        time.sleep(0.3)
        assert one(reader, within) == 20
        reader.rollback()
    assert places(conn) == {"posts_2025_03": 20, "posts_default": 5}


def test_a_snapshot_stands_also_while_its_transaction_waits_for_our_lock(session: Session, conn: Connection) -> None:
    names = "select transaction from b44.standing_snapshots(%s)"
    with old_snapshot(session) as reader, psycopg.connect(session.url) as locker:
        before = every(locker, names, None)
        locker.execute("lock table posts")
        with in_thread(lambda: reader.execute("select count(*) from posts")):
            eventually(lambda: waits(conn, reader.info.backend_pid))
            waiting = every(locker, names, before)
            unknown = every(locker, names, None)
            locker.rollback()
    assert (len(before), waiting, unknown) == (1, before, [])


# -- draining ----------------------------------------------------------------------------------------------------------


def test_draining_moves_every_period_and_changes_no_row(session: Session, conn: Connection) -> None:
    for month in ("2019-06", "2025-03", "2025-04"):
        add_posts(conn, month, 40)
    before, slugs = content(conn), registry(conn)

    drained = drain_default(session, "posts")

    assert places(conn) == {"posts_2019_06": 40, "posts_2025_03": 40, "posts_2025_04": 40}
    assert (content(conn), registry(conn), leftovers(conn)) == (before, slugs, [])
    assert (drained.rows, drained.left) == (120, {})
    assert drained.partitions == ("posts_2019_06", "posts_2025_03", "posts_2025_04")


def test_what_was_drained_is_as_complete_as_what_was_made(conn: Connection) -> None:
    def shape(table: str) -> Any:
        name = {"table": table}
        return [
            sorted(
                every(
                    conn,
                    "select b44.index_form(indexrelid) from pg_index where indrelid = %s::regclass and indisvalid",
                    table,
                )
            ),
            every(
                conn,
                "select conname, convalidated, coninhcount, conislocal from pg_constraint"
                " where conrelid = %s::regclass and contype in ('c', 'f') order by 1",
                table,
            ),
            every(
                conn,
                "select tgname, tgenabled from pg_trigger where tgrelid = %s::regclass and not tgisinternal order by 1",
                table,
            ),
            one(conn, "select reloptions, relowner, relreplident from pg_class where oid = %s::regclass", table),
            every(
                conn,
                "select attname, attnotnull, attgenerated, attstorage, attcompression, pg_get_expr(adbin, adrelid)"
                " from pg_attribute left join pg_attrdef on adrelid = attrelid and adnum = attnum"
                " where attrelid = %s::regclass and attnum > 0 order by attnum",
                table,
            ),
            conn.execute(
                "select count(*) from pg_inherits i join pg_index x on x.indexrelid = i.inhrelid"
                " where x.indrelid = %(table)s::regclass",
                name,
            ).fetchone(),
        ]

    conn.execute("select create_monthly_partition('2024-01-01')")
    add_posts(conn, "2025-03", 10)
    before = shape("posts_default")
    conn.execute("call drain_default_partition('posts')")
    assert shape("posts_2025_03") == shape("posts_2024_01")
    assert shape("posts_default") == before
    assert all(
        name.startswith("posts_default")
        for name in every(
            conn,
            "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = 'posts_default'::regclass",
        )
    )


def test_a_drained_partition_is_attached_without_being_looked_through(session: Session, conn: Connection) -> None:
    conn.execute("select create_monthly_partition('2024-01-01')")
    add_posts(conn, "2025-03", 10)
    add_posts(conn, "2025-07", 10)
    step_until(conn, "swapping")
    said: list[str] = []
    conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))
    conn.execute("set client_min_messages = debug1")
    step(conn)
    conn.execute("set client_min_messages = warning")
    assert sum("is implied by existing constraints" in line for line in said) == 5
    assert [line for line in said if line.startswith("building index") or "validating foreign key" in line] == []


def test_rows_without_a_period_stay_and_are_told(session: Session, conn: Connection) -> None:
    conn.execute("alter table posts drop constraint if exists chk_posts_finite_times")
    add_posts(conn, "2025-03", 3)
    add_posts(conn, "2025-04", 2)
    conn.execute("create table posts_2025_04 ()")
    conn.execute(
        "insert into posts (user_id, title, content, slug, created_at, created_by)"
        " values (%s, 'Never', 'Some content', 'never', 'infinity', %s)",
        (AUTHOR, AUTHOR),
    )
    conn.execute(
        "insert into posts (user_id, title, content, slug, created_at, created_by)"
        " values (%s, 'Late', 'Some content', 'late', '294276-12-31 23:59:59.999999+00', %s),"
        "        (%s, 'Early', 'Some content', 'early', '4713-01-01 00:00+00 BC', %s)",
        (AUTHOR,) * 4,
    )
    drained = drain_default(session, "posts")
    assert (drained.partitions, drained.rows) == (("posts_2025_03",), 3)
    assert drained.left == {"4713-01": 1, "2025-04": 2, "294276-12": 1, "infinity": 1}


def test_only_the_wanted_periods_are_drained(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 3)
    add_posts(conn, "2025-04", 2)
    drained = drain_default(session, "posts", days=(date(2025, 3, 9), date(2030, 1, 1)))
    assert drained.partitions == ("posts_2025_03", "posts_2030_01")
    assert (drained.left, places(conn)) == ({"2025-04": 2}, {"posts_2025_03": 3, "posts_default": 2})


def test_more_periods_than_fit_one_swap_are_drained_in_turns(session: Session, conn: Connection) -> None:
    months = [f"2024-{month:02}" for month in range(1, 9)]
    for month in months:
        add_posts(conn, month, 5)
    before = content(conn)
    assert len(drain_default(session, "posts").partitions) == 8
    assert (content(conn), leftovers(conn)) == (before, [])


def test_years_are_drained_too(session: Session, conn: Connection) -> None:
    # What was noted of the making of users.
    conn.execute("delete from audit_logs")
    for moment in ("2023-12-31 23:59:59.999999+00", "2024-01-01 00:00+00"):
        conn.execute(
            "insert into audit_logs (table_name, record_id, action, timestamp) values ('x', %s, 'insert', %s)",
            (AUTHOR, moment),
        )
    assert drain_default(session, "audit_logs").partitions == ("audit_logs_2023", "audit_logs_2024")
    assert places(conn, "audit_logs") == {"audit_logs_2023": 1, "audit_logs_2024": 1}


def test_psql_can_drain_too(conn: Connection) -> None:
    add_posts(conn, "2025-03", 3)
    add_posts(conn, "2025-04", 3)
    conn.execute("set client_min_messages = warning")
    conn.execute("call create_monthly_partition_online('2025-03-09')")
    assert places(conn) == {"posts_2025_03": 3, "posts_default": 3}
    conn.execute("call drain_default_partition('posts', 'month')")
    assert places(conn) == {"posts_2025_03": 3, "posts_2025_04": 3}


def test_an_empty_default_partition_is_drained_at_once(session: Session, conn: Connection) -> None:
    before = one(conn, "select 'posts_default'::regclass::oid")
    assert drain_default(session, "posts").partitions == ()
    assert one(conn, "select 'posts_default'::regclass::oid") == before


def test_two_may_drain_at_once(session: Session, conn: Connection) -> None:
    for month in ("2025-03", "2025-04"):
        add_posts(conn, month, 300)
    before = content(conn)
    with in_thread(lambda: drain_default(session, "posts")):
        drain_default(session, "posts")
    assert (content(conn), leftovers(conn)) == (before, [])
    assert places(conn) == {"posts_2025_03": 300, "posts_2025_04": 300}


def test_a_move_in_a_phase_of_another_version_is_begun_anew(conn: Connection) -> None:
    add_posts(conn, "2025-03", 10)
    expected = content(conn)
    step_until(conn, "verifying")
    state = one(conn, "select obj_description('posts_drain'::regclass, 'pg_class')")
    other = sql.Literal(state.replace('"verifying"', '"as of old"'))
    conn.execute(sql.SQL("comment on table posts_drain is {}").format(other))
    assert step(conn)[0] == "discarding"
    finish(conn)
    assert (content(conn), leftovers(conn), places(conn)) == (expected, [], {"posts_2025_03": 10})


def test_writers_need_no_rights_on_what_draining_makes(conn: Connection, role: sql.Identifier) -> None:
    conn.execute(sql.SQL("grant select, insert, update, delete on posts, post_slugs, users to {}").format(role))
    add_posts(conn, "2025-03", 10)
    step_until(conn, "waiting for snapshots")

    conn.execute(sql.SQL("set role {}").format(role))
    change_posts(conn, "2025-03")
    conn.execute("reset role")

    expected = content(conn)
    finish(conn)
    assert content(conn) == expected


def test_nobody_else_sets_the_mirror_off(session: Session, conn: Connection, role: sql.Identifier) -> None:
    add_posts(conn, "2025-03", 30)
    expected = content(conn)
    step_until(conn, "verifying")
    mirror = (
        "create trigger theirs after truncate on mine for each statement execute function public.posts_drain_mirror()"
    )
    conn.execute(sql.SQL("set role {}").format(role))
    conn.execute("create temp table mine (id integer)")
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute(mirror)
    # Nor would it do anything, had somebody been allowed to.
    conn.execute("reset role")
    conn.execute(sql.SQL("grant execute on function posts_drain_mirror() to {}").format(role))
    conn.execute(sql.SQL("set role {}").format(role))
    conn.execute(mirror)
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute("truncate mine")
    conn.execute("reset role")
    finish(conn)
    assert (content(conn), places(conn)) == (expected, {"posts_2025_03": 30})


ADDED = (
    "insert into {} (id, user_id, title, content, slug, created_at, created_by)"
    " select gen_random_uuid(), user_id, 'Added', content, 'added', created_at, created_by from posts_2025_03 limit 1"
)
# What the owner of the table can do to the copy, and to what watches it, by any name of it.
UNSEEN = [
    statement.format(name)
    for name in ("posts_drain", "posts_2025_03")
    for statement in (
        "truncate {}",
        "delete from {}",
        "delete from {} where published",
        "update {} set title = 'Changed'",
        "update {} set id = gen_random_uuid()",
        ADDED,
        "do $$begin delete from {} where published; end$$",
    )
] + [
    "alter table posts_2025_03 disable trigger all; delete from posts_2025_03; alter table posts_2025_03 enable trigger all",
    "alter table posts_2025_03 disable trigger all; delete from posts_2025_03",
    "alter table posts_2025_03 disable trigger all; delete from posts_2025_03;"
    " alter table posts_2025_03 enable always trigger b44_drain_insert, enable always trigger b44_drain_update,"
    " enable always trigger b44_drain_delete",
    "drop trigger b44_drain_update on posts_2025_03; update posts_2025_03 set title = 'Changed'",
    "alter table posts_drain disable trigger all; delete from posts_drain;"
    " alter table posts_drain enable always trigger b44_drain_whole",
    "set session_replication_role = replica; delete from posts_2025_03; reset session_replication_role",
    "set session_replication_role = replica; delete from posts_drain; reset session_replication_role",
    "alter table posts_default disable trigger b44_drain_rows; update posts set title = 'Unseen';"
    " alter table posts_default enable always trigger b44_drain_rows",
    "alter table posts_default disable trigger b44_drain_rows; update posts set title = 'Unseen'",
]


def too_large_to_be_compared_twice(conn: Connection) -> None:
    """Says that comparing both sides has taken a minute, so that it is not done again under the lock of the swap."""
    state = one(
        conn, "select obj_description('posts_drain'::regclass, 'pg_class')::jsonb || '{\"compared_ms\": 60000}'"
    )
    conn.execute(sql.SQL("comment on table posts_drain is {}").format(sql.Literal(json.dumps(state))))


@pytest.mark.parametrize("change", UNSEEN)
def test_what_is_done_to_one_side_alone_after_they_were_compared_is_not_taken_over(
    conn: Connection, change: str
) -> None:
    add_posts(conn, "2025-03", 30)
    step_until(conn, "swapping")
    too_large_to_be_compared_twice(conn)
    conn.execute("set client_min_messages = error")
    conn.execute(change.encode())
    expected = content(conn)
    finish(conn, too_large_to_be_compared_twice)
    assert (content(conn), places(conn), leftovers(conn)) == (expected, {"posts_2025_03": 30}, [])


def test_a_change_of_the_copy_within_an_open_transaction_is_waited_for(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 30)
    expected = content(conn)
    step_until(conn, "swapping")
    too_large_to_be_compared_twice(conn)
    with psycopg.connect(session.url) as other:
        other.execute("delete from posts_2025_03")
        with pytest.raises(errors.LockNotAvailable):
            step(conn)
        other.commit()
    finish(conn, too_large_to_be_compared_twice)
    assert (content(conn), places(conn), leftovers(conn)) == (expected, {"posts_2025_03": 30}, [])


def test_an_author_deleted_after_both_were_compared_takes_his_posts_along(conn: Connection) -> None:
    add_posts(conn, "2025-03", 30)
    step_until(conn, "swapping")
    too_large_to_be_compared_twice(conn)
    other = one(conn, "insert into users (email, username) values ('o@example.com', 'other') returning id")
    conn.execute("update posts set user_id = %s where slug = '2025-03-7'", (other,))
    step_until(conn, "swapping")
    too_large_to_be_compared_twice(conn)
    conn.execute("delete from users where id = %s", (other,))
    expected = content(conn)
    finish(conn, too_large_to_be_compared_twice)
    assert (content(conn), places(conn), leftovers(conn)) == (expected, {"posts_2025_03": 29}, [])


def test_a_part_of_the_copy_that_was_detached_is_nobody_elses(conn: Connection) -> None:
    add_posts(conn, "2025-03", 30)
    expected = content(conn)
    step_until(conn, "swapping")
    too_large_to_be_compared_twice(conn)
    conn.execute("set client_min_messages = error")
    conn.execute("alter table posts_drain detach partition posts_2025_03")
    finish(conn, too_large_to_be_compared_twice)
    assert (content(conn), places(conn)) == (expected, {"posts_default": 30})
    assert one(conn, "select count(*) from posts_2025_03") == 30


def test_nobody_else_makes_notes_for_the_copy(conn: Connection, role: sql.Identifier) -> None:
    add_posts(conn, "2025-03", 30)
    step_until(conn, "verifying")
    note = "create trigger theirs after delete on mine for each statement execute function public.posts_drain_note()"
    conn.execute(sql.SQL("set role {}").format(role))
    conn.execute("create temp table mine (id integer)")
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute(note)
    conn.execute("reset role")
    conn.execute(sql.SQL("grant execute on function posts_drain_note() to {}").format(role))
    conn.execute(sql.SQL("set role {}").format(role))
    conn.execute(note)
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute("delete from mine")
    conn.execute("reset role")
    assert one(conn, "select count(*) from posts_drain_noted") == 0


# -- draining: old snapshots -------------------------------------------------------------------------------------------


def change_posts(conn: Connection, month: str) -> None:
    """One of each change, to the first posts of a month."""
    conn.execute("delete from posts where slug = %s", (f"{month}-1",))
    conn.execute("update posts set title = 'Changed', view_count = 7 where slug = %s", (f"{month}-2",))
    conn.execute("update posts set id = gen_random_uuid() where slug = %s", (f"{month}-3",))
    conn.execute("update posts set created_at = '2031-01-01 00:00+00' where slug = %s", (f"{month}-4",))
    conn.execute(
        "insert into posts (user_id, title, content, slug, created_at, created_by) values (%s, 'New', 'Some content', 'new', %s, %s)",
        (AUTHOR, f"{month}-05 00:00+00", AUTHOR),
    )


@contextmanager
def old_snapshot(session: Session) -> Generator[Connection]:
    """A transaction that has taken its snapshot, and has not looked at posts yet."""
    with psycopg.connect(session.url, application_name="old one") as conn:
        conn.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        conn.execute("select count(*) from audit_logs")
        yield conn


@pytest.mark.parametrize("phase", PHASES[:5])
def test_a_writer_whose_snapshot_is_older_than_the_copy_loses_nothing(
    session: Session, conn: Connection, phase: str
) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, phase)
    with old_snapshot(session) as writer:
        # Rows are copied after its snapshot, so it cannot see the copies of those that it changes.
        for _ in range(4):
            step(conn)
        change_posts(writer, "2025-03")
        writer.commit()
    expected = content(conn)
    finish(conn)
    assert content(conn) == expected
    assert check_bounds(session, "posts").default_rows == {}


def test_who_looks_with_an_old_snapshot_is_waited_for_and_then_sees_all(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    with old_snapshot(session) as reader:
        step_until(conn, "waiting for snapshots")
        for _ in range(3):
            phase, _, _, idle, waits_for = step(conn)
            assert (phase, idle) == ("waiting for snapshots", True)
            assert f"process {reader.info.backend_pid} (old one)" in waits_for
        assert places(reader) == {"posts_default": 20}
        reader.rollback()
    finish(conn)
    assert places(conn) == {"posts_2025_03": 20}


def test_a_snapshot_of_before_the_swap_sees_every_row_once_after_it(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, "verifying")
    with old_snapshot(session) as reader:
        # Seen by nobody else yet: what the application does between the snapshot and the swap.
        expected = content(conn)
        change_posts(conn, "2025-03")
        # Not to the very end: another month among the changes is the next to be moved, and waits for this reader.
        step_until(conn, "finishing")
        assert places(conn)["posts_2025_03"] > 0
        assert content(reader) == expected
        assert (
            one(
                reader,
                "select count(*) from posts where created_at >= '2025-03-01 00:00+00' and created_at < '2025-04-01 00:00+00'",
            )
            == 20
        )


def test_a_transaction_that_has_written_and_not_ended_is_waited_for(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, "copying")
    with psycopg.connect(session.url) as writer:
        writer.execute("update posts set title = 'Changed' where slug = '2025-03-2'")
        with pytest.raises(errors.LockNotAvailable, match="no lock on posts_2025_03 within"):
            step_until(conn, "waiting for snapshots")
        writer.commit()
    finish(conn)
    assert one(conn, "select title from posts where slug = '2025-03-2'") == "Changed"


@pytest.mark.parametrize("phase", PHASES[:7])
def test_what_is_rolled_back_leaves_no_trace(session: Session, conn: Connection, phase: str) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, phase)
    expected = content(conn)
    with psycopg.connect(session.url) as writer:
        change_posts(writer, "2025-03")
        writer.rollback()
    finish(conn)
    assert content(conn) == expected


# -- draining: interruptions and changes meanwhile ---------------------------------------------------------------------


@pytest.mark.long
@pytest.mark.parametrize("phase", PHASES)
def test_draining_that_was_killed_is_finished_by_the_next_call(session: Session, conn: Connection, phase: str) -> None:
    for month in ("2025-03", "2025-04"):
        add_posts(conn, month, 60)

    def kill(what: str, done: int, total: int) -> None:
        if f": {phase}" in what:
            conn.execute(
                "select pg_terminate_backend(pid) from pg_stat_activity where application_name = 'b44 drain posts'"
                " and datname = current_database()"
            )

    with pytest.raises(DatabaseError, match=r"terminating connection|closed"):
        drain_default(session, "posts", kill)
    change_posts(conn, "2025-03")
    expected = content(conn)
    if phase != "finishing":
        assert check_bounds(session, "posts").passed is False

    drain_default(session, "posts")

    assert (content(conn), leftovers(conn)) == (expected, [])
    assert check_bounds(session, "posts").default_rows == {}
    assert (
        one(conn, "select count(*) from (select slug, id, created_at from posts except select * from post_slugs) p")
        == 0
    )


def test_draining_killed_in_the_midst_of_a_step_is_finished_by_the_next_call(
    session: Session, conn: Connection
) -> None:
    add_posts(conn, "2025-03", 400)
    expected = content(conn)
    step_until(conn, "copying")
    conn.execute(
        "create function slowly() returns trigger language plpgsql as 'begin perform pg_sleep(0.05); return new; end'"
    )
    conn.execute("create trigger slowly before insert on posts_drain for each row execute function slowly()")

    def drain() -> None:
        with (
            psycopg.connect(session.url, application_name="victim", autocommit=True) as victim,
            pytest.raises(errors.AdminShutdown),
        ):
            victim.execute("call drain_default_partition('posts')")

    ended = (
        "select coalesce(bool_or(pg_terminate_backend(pid)), false) from pg_stat_activity"
        " where datname = current_database() and application_name = 'victim' and wait_event = 'PgSleep'"
    )
    with in_thread(drain):
        eventually(lambda: one(conn, ended))
    conn.execute("drop function slowly() cascade")
    finish(conn)
    assert (content(conn), leftovers(conn)) == (expected, [])


@pytest.mark.long
@pytest.mark.parametrize("phase", PHASES[:7])
def test_changes_between_any_two_steps_are_kept(session: Session, conn: Connection, phase: str) -> None:
    add_posts(conn, "2025-03", 60)
    step_until(conn, phase)
    change_posts(conn, "2025-03")
    expected = content(conn)
    finish(conn)
    assert (content(conn), leftovers(conn)) == (expected, [])


@pytest.mark.parametrize("phase", PHASES[:7])
def test_a_column_added_meanwhile_begins_the_copy_again(session: Session, conn: Connection, phase: str) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, phase)
    conn.execute("alter table posts add column mood text default 'calm'")
    conn.execute("update posts set mood = 'wild' where slug = '2025-03-7'")
    expected = content(conn)
    finish(conn)
    assert (content(conn), places(conn), leftovers(conn)) == (expected, {"posts_2025_03": 20}, [])


@pytest.mark.parametrize("phase", PHASES[:7])
def test_other_partitions_may_be_made_meanwhile(conn: Connection, phase: str) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, phase)
    conn.execute("select create_monthly_partition('2025-05-01')")
    finish(conn)
    assert names(conn) == ["posts_2025_03", "posts_2025_05", "posts_default"]
    assert leftovers(conn) == []


def test_a_month_being_drained_is_left_to_it(conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, "copying")
    with pytest.raises(errors.ObjectInUse, match="being moved to posts_2025_03"):
        conn.execute("select create_monthly_partition('2025-03-01')")


def test_rows_written_behind_the_triggers_back_are_found_and_the_copy_begun_again(conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, "waiting for snapshots")
    conn.execute("alter table posts_default disable trigger b44_drain_rows")
    conn.execute("update posts set title = 'Unseen' where slug = '2025-03-7'")
    conn.execute("alter table posts_default enable always trigger b44_drain_rows")
    expected = content(conn)
    conn.execute("set client_min_messages = error")
    finish(conn)
    assert (content(conn), leftovers(conn)) == (expected, [])


def test_a_replication_writing_meanwhile_is_seen(conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, "waiting for snapshots")
    conn.execute("set session_replication_role = replica")
    conn.execute("update posts set title = 'Replicated' where slug = '2025-03-7'")
    conn.execute("set session_replication_role = origin")
    finish(conn)
    assert one(conn, "select title from posts where slug = '2025-03-7'") == "Replicated"


@pytest.mark.parametrize("phase", PHASES[:7])
def test_a_truncated_table_stays_empty(conn: Connection, phase: str) -> None:
    add_posts(conn, "2025-03", 20)
    step_until(conn, phase)
    conn.execute("truncate posts")
    add_posts(conn, "2025-03", 3)
    finish(conn)
    assert places(conn) == {"posts_2025_03": 3}


@pytest.mark.parametrize("phase", PHASES[:7])
def test_an_author_deleted_meanwhile_takes_the_posts_along(conn: Connection, phase: str) -> None:
    add_posts(conn, "2025-03", 20)
    conn.execute("update posts set user_id = %s where slug like '%%-1_'", (OTHER_AUTHOR,))
    step_until(conn, phase)
    conn.execute("delete from users where id = %s", (OTHER_AUTHOR,))
    finish(conn)
    assert places(conn) == {"posts_2025_03": 10}


def test_other_triggers_that_change_a_row_again_are_followed(conn: Connection) -> None:
    add_posts(conn, "2025-03", 20)
    conn.execute("""
        create function a_count_of_edits() returns trigger language plpgsql as $$
        begin
          if new.view_count < 3 then
            update posts set view_count = new.view_count + 1 where id = new.id and created_at = new.created_at;
          end if;
          return null;
        end $$""")
    # Its name comes before ours, so ours is told of the older version last.
    conn.execute(
        "create trigger a_count_of_edits after insert or update on posts for each row execute function a_count_of_edits()"
    )
    step_until(conn, "waiting for snapshots")
    change_posts(conn, "2025-03")
    expected = content(conn)
    finish(conn)
    assert content(conn) == expected


def test_a_reader_of_another_role_is_waited_for_though_its_snapshot_is_hidden(
    session: Session, conn: Connection, role: sql.Identifier
) -> None:
    add_posts(conn, "2025-03", 20)
    conn.execute(sql.SQL("grant create on database {} to {}").format(sql.Identifier(conn.info.dbname), role))
    conn.execute(sql.SQL("grant all on schema public to {}").format(role))
    for table in ("users", "categories", "posts", "posts_default", "post_slugs"):
        conn.execute(sql.SQL("alter table {} owner to {}").format(sql.Identifier(table), role))
    conn.execute(sql.SQL("grant execute on all routines in schema public, b44 to {}").format(role))
    with old_snapshot(session):
        conn.execute(sql.SQL("set role {}").format(role))
        step_until(conn, "waiting for snapshots")
        assert [step(conn)[3] for _ in range(3)] == [True] * 3
        conn.execute("reset role")


def test_what_hangs_on_the_default_partition_is_named_before_anything_is_done(
    session: Session, conn: Connection
) -> None:
    conn.execute("create view undated as select * from posts_default")
    conn.execute("create index by_title on posts_default (title)")
    add_posts(conn, "2025-03", 5)
    with pytest.raises(DatabaseError, match="index by_title, view undated"):
        drain_default(session, "posts")
    assert (places(conn), leftovers(conn)) == ({"posts_default": 5}, [])


def test_a_lock_that_is_never_to_be_had_ends_with_who_has_it(
    session: Session, conn: Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("b44_assets.schema.partitions.LOCK_ATTEMPTS", 2)
    add_posts(conn, "2025-03", 5)
    step_until(conn, "swapping")
    with psycopg.connect(session.url, application_name="long report") as reader:
        reader.execute("select count(*) from posts")
        with pytest.raises(DatabaseError, match=f"process {reader.info.backend_pid} .long report"):
            drain_default(session, "posts")
        reader.rollback()
    drain_default(session, "posts")
    assert places(conn) == {"posts_2025_03": 5}


# -- other tables' keys, and other tables ------------------------------------------------------------------------------


def test_foreign_keys_that_lead_to_the_table_hold_afterwards_too(session: Session, conn: Connection) -> None:
    conn.execute(
        "create table comments (post_id uuid, post_created_at timestamptz, body text,"
        " constraint fk_post foreign key (post_id, post_created_at) references posts (id, created_at) on delete cascade)"
    )
    add_posts(conn, "2025-03", 20)
    conn.execute("insert into comments select id, created_at, 'Well said' from posts")

    with pytest.raises(errors.ObjectNotInPrerequisiteState, match="cannot be moved in one transaction"):
        conn.execute("select create_monthly_partition('2025-03-01')")
    drain_default(session, "posts")

    assert one(conn, "select count(*) from comments") == 20
    assert every(
        conn,
        "select convalidated from pg_constraint where conrelid = 'comments'::regclass and contype = 'f' and conparentid = 0",
    ) == [True]
    with pytest.raises(errors.ForeignKeyViolation):
        conn.execute("insert into comments values (gen_random_uuid(), now(), 'To nobody')")
    conn.execute("delete from posts where slug = '2025-03-1'")
    assert one(conn, "select count(*) from comments") == 19


@pytest.mark.parametrize("kind", ["timestamp", "date", "timestamptz"])
@pytest.mark.parametrize("online", [False, True])
def test_any_table_with_a_range_of_time_will_do(session: Session, conn: Connection, kind: str, online: bool) -> None:
    identity = "generated by default as identity" if conn.info.server_version >= 170000 else "not null"
    conn.execute(
        f"""
        create table "Odd Readings" (
          n bigint {identity}, "Taken At" {kind} not null, dropped text, celsius numeric, kind text default 'air',
          fahrenheit numeric generated always as (celsius * 9 / 5 + 32) stored, document json,
          primary key ("Taken At", n)
        ) partition by range ("Taken At")""".encode()
    )
    conn.execute('alter table "Odd Readings" drop column dropped')
    conn.execute('create table odd_default partition of "Odd Readings" default')
    conn.execute(
        'insert into "Odd Readings" (n, "Taken At", celsius, document)'
        " select i, '2025-01-30'::date + i % 4, i, '{\"a\": 1}' from generate_series(1, 40) i"
    )
    before = every(conn, 'select r::text from "Odd Readings" r order by n')
    conn.execute("set timezone = 'America/New_York'")
    conn.execute("set client_min_messages = warning")
    if online:
        conn.execute("call drain_default_partition('Odd Readings', 'month')")
    else:
        conn.execute(
            "select b44.create_partition('Odd Readings', 'month', d) from unnest(array[date '2025-01-01', '2025-02-01']) d"
        )
    conn.execute("set timezone = 'UTC'")
    assert every(conn, 'select r::text from "Odd Readings" r order by n') == before
    assert every(conn, 'select tableoid::regclass::text, count(*) from "Odd Readings" group by 1 order by 1') == [
        ('"Odd Readings_2025_01"', 20),
        ('"Odd Readings_2025_02"', 20),
    ]
    if conn.info.server_version >= 170000:
        conn.execute("""insert into "Odd Readings" ("Taken At", celsius) values ('2025-01-05', 1)""")


# -- in live use -------------------------------------------------------------------------------------------------------


# Of each session, between transactions: without, five of them leave two processors nothing for what is tried.
_THINKING_SECONDS = 0.005


@dataclass
class Traffic:
    """Readers and writers of one month, at both isolation levels, who note what they wrote.

    Writers change the posts that are theirs alone, and keep the number of posts as it is: who takes one out puts one in.
    """

    url: str
    month: str
    faults: list[str]
    stop: threading.Event
    statements: int = 0

    def count(self, repeatable: bool, total: int, of_month: int) -> None:
        query = (
            "select count(*), count(distinct id), count(*) filter (where title like 'Post %%' or title like 'w%%') from posts",
            "select count(*) from posts where created_at >= %(m)s::timestamptz"
            " and created_at < %(m)s::timestamptz + interval '1 month'",
        )
        params = {"m": f"{self.month}-01 00:00+00"}
        with psycopg.connect(self.url, autocommit=True) as conn:
            while not self.stop.is_set():
                with conn.transaction():
                    if repeatable:
                        conn.execute("set transaction isolation level repeatable read")
                        # The snapshot is of now, the lock on posts comes later.
                        conn.execute("select pg_sleep(0.02) from categories union all select pg_sleep(0.02)")
                    found = conn.execute(query[0].encode()).fetchone()
                    month = conn.execute(query[1].encode(), params).fetchone()
                if (found, month) != ((total, total, total), (of_month,)):
                    self.faults.append(f"counted {found} and {month}")
                self.statements += 1
                self.stop.wait(_THINKING_SECONDS)

    def write(self, seed: int, mine: dict[Any, str]) -> None:
        random = Random(seed)
        with psycopg.connect(self.url, autocommit=True) as conn:
            while not self.stop.is_set():
                key = random.choice(list(mine))
                title = f"w{seed} {random.random()}"
                with conn.transaction():
                    if random.random() < 0.4:
                        conn.execute("set transaction isolation level repeatable read")
                    if random.random() < 0.5:
                        hit = conn.execute(
                            "update posts set title = %s, view_count = view_count + 1 where id = %s and created_at = %s",
                            (title, *key),
                        )
                        added = key
                    else:
                        hit = conn.execute("delete from posts where id = %s and created_at = %s", key)
                        added = (uuid.uuid4(), key[1])
                        conn.execute(
                            "insert into posts (id, user_id, title, content, slug, created_at, created_by)"
                            " values (%s, %s, %s, 'Some content', %s, %s, %s)",
                            (added[0], AUTHOR, title, str(added[0]), added[1], AUTHOR),
                        )
                    abandoned = random.random() < 0.1
                    if hit.rowcount != 1:
                        self.faults.append(f"{key} was hit {hit.rowcount} times")
                    if abandoned:
                        raise psycopg.Rollback
                if not abandoned:
                    del mine[key]
                    mine[added] = title
                self.statements += 1
                self.stop.wait(_THINKING_SECONDS)


@pytest.mark.long
def test_in_live_use_every_row_is_there_once_and_no_statement_fails(session: Session, conn: Connection) -> None:
    add_posts(conn, "2025-03", 1500)
    add_posts(conn, "2025-05", 200)
    keys: list[Any] = every(
        conn, "select id, created_at, title from posts where created_at < '2025-04-01 00:00+00' order by id"
    )
    shares = [{(id_, at): title for id_, at, title in keys[i::3]} for i in range(3)]
    traffic = Traffic(session.url, "2025-03", [], threading.Event())

    works: list[Callable[[], None]] = [
        *(lambda r=repeatable: traffic.count(r, 1700, 1500) for repeatable in (False, True)),
        *(lambda i=i: traffic.write(i, shares[i]) for i in range(3)),
    ]

    def run(todo: list[Callable[[], None]]) -> None:
        if not todo:
            try:
                while traffic.statements < 50:
                    time.sleep(0.01)
                drain_default(session, "posts")
                after = traffic.statements
                while traffic.statements < after + 50:
                    time.sleep(0.01)
            finally:
                traffic.stop.set()
            return
        with in_thread(todo[0]):
            run(todo[1:])

    run(works)

    assert traffic.faults == []
    assert places(conn) == {"posts_2025_03": 1500, "posts_2025_05": 200}
    found = {(id_, at): title for id_, at, title in every(conn, "select id, created_at, title from posts_2025_03")}
    assert found == {key: title for share in shares for key, title in share.items()}
    assert (
        one(conn, "select count(*) from (select slug, id, created_at from posts except select * from post_slugs) p")
        == 0
    )
    assert one(conn, "select count(*) from post_slugs") == 1700
    assert leftovers(conn) == []


# -- looking -----------------------------------------------------------------------------------------------------------


def test_partitions_are_described(session: Session, conn: Connection) -> None:
    conn.execute("select b44.create_partitions('posts', 'month', array[date '2025-04-01', '2025-03-01'])")
    add_posts(conn, "2025-03", 30)
    conn.execute("analyze posts")
    march, april, default = describe_partitions(session, "posts")
    assert (march.name, march.rows, march.start, march.end) == (
        "posts_2025_03",
        30,
        datetime(2025, 3, 1, tzinfo=UTC),
        datetime(2025, 4, 1, tzinfo=UTC),
    )
    assert (april.name, april.rows, april.default) == ("posts_2025_04", 0, False)
    assert (default.name, default.start, default.end, default.default, default.bounds) == (
        "posts_default",
        None,
        None,
        True,
        "DEFAULT",
    )
    assert march.size > april.size > 0
    assert [part.bounds for part in describe_partitions(session, "user_sessions")] == [
        f"FOR VALUES WITH (modulus 4, remainder {remainder})" for remainder in range(4)
    ]


def test_a_table_without_partitions_cannot_be_described(session: Session) -> None:
    for table in ("users", "nowhere"):
        with pytest.raises(DatabaseError, match=f"no partitioned table {table}"):
            describe_partitions(session, table)


def test_partitions_without_a_gap_pass(session: Session, conn: Connection) -> None:
    conn.execute("select b44.create_partitions('posts', 'month', array[date '2025-03-01', '2025-04-01', '2025-05-01'])")
    check = check_bounds(session, "posts")
    assert (check.passed, check.message()) == (True, "3 partitions of posts without gaps")


def test_a_gap_is_found(session: Session, conn: Connection) -> None:
    conn.execute("select b44.create_partitions('posts', 'month', array[date '2025-03-01', '2025-06-01', '2025-07-01'])")
    check = check_bounds(session, "posts")
    assert (check.passed, check.message()) == (False, "posts has no partition for 2025-04-01 to 2025-06-01")


def test_a_gap_later_than_partitions_are_made_ahead_is_none(session: Session, conn: Connection) -> None:
    conn.execute("select manage_partitions()")
    conn.execute("select create_monthly_partition('2099-01-01')")
    assert check_bounds(session, "posts").passed


def test_rows_in_the_default_partition_are_found(session: Session, conn: Connection) -> None:
    conn.execute("select create_monthly_partition('2025-03-01')")
    add_posts(conn, "2025-03", 1)
    add_posts(conn, "2025-04", 2)
    add_posts(conn, "2019-12", 3)
    check = check_bounds(session, "posts")
    assert (check.passed, check.default_rows) == (False, {"2019-12": 3, "2025-04": 2})
    assert check.message() == "the default partition of posts holds 5 rows of 2019-12, 2025-04"


def test_a_missing_default_partition_is_found(session: Session, conn: Connection) -> None:
    conn.execute("select create_monthly_partition('2025-03-01')")
    conn.execute("drop table posts_default")
    check = check_bounds(session, "posts")
    assert (check.passed, "no default partition" in check.message()) == (False, True)


def test_a_drain_that_was_interrupted_is_found(session: Session, conn: Connection) -> None:
    conn.execute("select create_monthly_partition('2025-02-01')")
    add_posts(conn, "2025-03", 1)
    step_until(conn, "finishing")
    check = check_bounds(session, "posts")
    assert (check.passed, "drain it again" in check.message()) == (False, True)


@pytest.mark.parametrize(("lost", "named"), [("2", "2 of 4"), ("0", "0 of 4")])
def test_a_missing_hash_is_found(session: Session, conn: Connection, lost: str, named: str) -> None:
    assert check_bounds(session, "user_sessions").passed
    conn.execute(sql.SQL("drop table {}").format(sql.Identifier(f"user_sessions_{lost}")))
    check = check_bounds(session, "user_sessions")
    assert (check.passed, check.missing_hashes) == (False, (named,))
    assert named in check.message()


def test_an_id_in_two_months_is_found(session: Session, conn: Connection) -> None:
    conn.execute("select b44.create_partitions('posts', 'month', array[date '2025-03-01', '2025-04-01'])")
    add_posts(conn, "2025-03", 5)
    assert check_global_ids(session, "posts").passed
    add_posts(conn, "2025-04", 5)
    repeated = one(conn, "select id from posts_2025_03 order by id limit 1")
    conn.execute("alter table posts disable trigger user")
    conn.execute("update posts set id = %s where slug = '2025-04-3'", (repeated,))
    check = check_global_ids(session, "posts")
    assert (check.passed, check.rows, check.repeated) == (False, 10, 1)
    assert (
        check.message()
        == f"1 ids of posts stand there more than once, such as {repeated} in posts_2025_03 and posts_2025_04"
    )


def test_ids_of_an_empty_table_differ(session: Session) -> None:
    assert check_global_ids(session, "posts").passed


# -- retention ---------------------------------------------------------------------------------------------------------


def test_partitions_of_before_a_day_are_detached_and_stay_as_tables(session: Session, conn: Connection) -> None:
    months = [date(2024, month, 1) for month in (1, 2, 3, 4)]
    conn.execute("select b44.create_partitions('posts', 'month', %s)", (months,))
    for month in months:
        add_posts(conn, f"{month:%Y-%m}", 5)
    conn.execute("set timezone = 'Pacific/Kiritimati'")

    assert detach_before(session, "posts", date(2024, 3, 31)) == ("posts_2024_01", "posts_2024_02")

    assert places(conn) == {"posts_2024_03": 5, "posts_2024_04": 5}
    assert (one(conn, "select count(*) from posts_2024_01"), one(conn, "select count(*) from posts_2024_02")) == (5, 5)
    assert detach_before(session, "posts", date(2024, 3, 31)) == ()
    assert one(conn, "select detach_partitions_before('posts', '2024-04-01')") == ["posts_2024_03"]


def test_what_was_detached_can_be_attached_again(session: Session, conn: Connection) -> None:
    conn.execute("select create_monthly_partition('2024-01-01')")
    add_posts(conn, "2024-01", 5)
    before, slugs = content(conn), registry(conn)
    detach_before(session, "posts", date(2024, 2, 1))
    conn.execute(
        "alter table posts attach partition posts_2024_01 for values from ('2024-01-01 00:00+00') to ('2024-02-01 00:00+00')"
    )
    assert (content(conn), registry(conn)) == (before, slugs)


def test_without_a_default_partition_detaching_keeps_nobody_out(session: Session, conn: Connection) -> None:
    conn.execute(
        "select b44.create_partitions('audit_logs', 'year', array[date '2020-01-01', '2021-01-01', '2022-01-01'])"
    )
    conn.execute("drop table audit_logs_default")
    with psycopg.connect(session.url) as reader:
        reader.execute("select count(*) from audit_logs")
        # Begun, and interrupted while it waits for the reader.
        with psycopg.connect(session.url, autocommit=True) as interrupted, pytest.raises(errors.QueryCanceled):
            interrupted.execute("set statement_timeout = '200ms'")
            interrupted.execute("alter table audit_logs detach partition audit_logs_2020 concurrently")
        reader.rollback()
    assert check_bounds(session, "audit_logs").detaching == ("audit_logs_2020",)
    assert detach_before(session, "audit_logs", date(2022, 1, 1)) == ("audit_logs_2020", "audit_logs_2021")
    assert names(conn, "audit_logs") == ["audit_logs_2022"]


# -- columns with names that the functions use themselves ----------------------------------------------------------------


def test_a_key_may_have_columns_named_as_what_the_functions_use_themselves(conn: Connection) -> None:
    names = ("k", "place", "version", "origin", "h", "n")
    listed = ", ".join(names)
    conn.execute(
        f"create table odd ({', '.join(f'{name} text' for name in names[:-1])}, n timestamptz, said text,"  # pyright: ignore[reportArgumentType]
        f" primary key ({listed})) partition by range (n); create table odd_default partition of odd default"
    )
    insert = f"insert into odd ({listed}, said) select i, i, i, i, i, %s::timestamptz, 'as it was' from generate_series(1, 5) i"
    for day in ("2026-01-05", "2026-03-05"):
        conn.execute(insert, (day,))  # pyright: ignore[reportArgumentType]
    assert one(conn, "select b44.create_partition('odd', 'month', '2026-01-01')") == "odd_2026_01"
    assert places(conn, "odd") == {"odd_2026_01": 5, "odd_default": 5}

    conn.execute(insert, ("2026-02-05",))  # pyright: ignore[reportArgumentType]
    changed = False
    for _ in range(200):
        phase = one(conn, "select obj_description(to_regclass('odd_drain'), 'pg_class')::jsonb ->> 'phase'")
        if phase == "catching up" and not changed:
            conn.execute("update odd set said = 'changed', k = 'other' where n = '2026-02-05' and k = '1'")
            conn.execute("delete from odd where n = '2026-02-05' and k = '2'")
            # By somebody who has every right to: what is written to the copy is put right.
            conn.execute("update odd_drain set said = 'lost' where k = '3'")
            conn.execute("update odd_2026_02 set said = 'lost' where k = '4'")
            changed = True
        if step(conn, "odd")[0] == "done":
            break
    assert changed
    assert places(conn, "odd") == {"odd_2026_01": 5, "odd_2026_02": 4, "odd_2026_03": 5}
    assert every(conn, "select k, said from odd where n = '2026-02-05' order by k") == [
        ("3", "as it was"), ("4", "as it was"), ("5", "as it was"), ("other", "changed"),
    ]  # fmt: skip
    assert leftovers(conn) == []
