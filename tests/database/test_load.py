"""Batches: each with its ledger entries in one transaction, whatever their size, each record once, whatever comes between."""

from __future__ import annotations

from collections.abc import Generator, Iterable
from contextlib import contextmanager
from dataclasses import replace
from datetime import date
from typing import Any

import pytest
from psycopg import sql

from b44_assets.errors import DatabaseError, SettingsError
from b44_assets.failpoints import armed
from b44_assets.migration.accounts import progress_of
from b44_assets.migration.parts import Range
from b44_assets.session import Connection, migrating, scalar
from tests.helpers.records import Record, object_id, post, user, uuid_of
from tests.helpers.target import Target

# Seven posts of three months, all of one title; some are refused, repeated or repaired.
DAYS = [
    "2026-01-05",
    "2026-01-31T23:59:59.999999",
    "2026-02-01",
    "2026-02-01",
    "2026-02-14",
    "2026-03-31",
    "2026-03-01",
]
PEOPLE = [user(n, username="anna", created_by_id=object_id(n % 5 + 1), bio=f"b{n}") for n in range(1, 6)]
ARTICLES: list[Record] = [
    *[post(n, title="News", created_date=day, content="<b onclick=x>Long enough</b>", n=n) for n, day in enumerate(DAYS)],
    post(7, title=None),
    post(6, title="News", created_date=DAYS[6], content="<b onclick=x>Long enough</b>", n=6),
    post(0, title="Older", created_date="2026-01-01", updated_date="2025-01-01"),
]  # fmt: skip
JANUARY, FEBRUARY, MARCH = date(2026, 1, 1), date(2026, 2, 1), date(2026, 3, 1)


def batches(target: Target, table: str, status: str = "completed") -> list[tuple[Any, ...]]:
    """Month, first and last position, and number of records of the batches, in their order."""
    return target.all(
        "select partition_key, first_position, last_position, records_processed from migration.migration_log"
        " where entity_type = %s and status = %s order by batch_number",
        table,
        status,
    )


def row_versions(target: Target) -> set[tuple[Any, ...]]:
    """Which transaction wrote each row of tables and ledger: the same set means that nothing was written."""
    found: set[tuple[Any, ...]] = set()
    for schema, name in target.all(
        "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
        " where n.nspname in ('public', 'migration', 'base44') and c.relkind = 'r'"
    ):
        query = sql.SQL("select tableoid::text, ctid::text, xmin::text from {}").format(sql.Identifier(schema, name))
        found.update(target.all(query))
    return found


@contextmanager
def refusing(target: Target, table: str, condition: str, event: str = "insert") -> Generator[None]:
    """A trigger that raises on rows of which a condition holds, for the block."""
    target.run(
        "create function refuse() returns trigger language plpgsql as"
        f" $$ begin if {condition} then raise exception 'not this one'; end if; return new; end $$"
    )
    target.run(f"create trigger refusing before {event} on {table} for each row execute function refuse()")
    try:
        yield
    finally:
        target.run("drop function refuse() cascade")


def staged(target: Target, people: Iterable[Record] = PEOPLE, articles: Iterable[Record] = ARTICLES) -> Target:
    """Users loaded, posts staged."""
    target.migrate({"User": people})
    target.write({"Post": articles})
    target.stage("posts")
    return target


# -- one load ------------------------------------------------------------------------------------------------------------


def test_a_load_says_what_it_did(target_18: Target) -> None:
    done = staged(target_18).load("posts")
    plan = done.plan
    assert (plan.read, plan.deduplicated, plan.quarantined, plan.to_migrate) == (10, 1, 2, 7)
    assert done.inserted == 7
    assert [(part.partition_key, part.inserted, part.migrated) for part in done.partitions] == [
        (JANUARY, 2, 2), (FEBRUARY, 3, 3), (MARCH, 2, 2),
    ]  # fmt: skip
    assert done.repairs == {"content": 7}
    assert done.preview == ((8, object_id(7), "missing_title"), (10, object_id(0), "duplicate_id"))


def test_when_it_ends_is_told_only_while_a_migration_runs(target_18: Target) -> None:
    target = staged(target_18).having(batch_size=2)
    target.load("posts")
    target.run("update migration.migration_log set status = 'failed' where partition_key = '2026-03-01'")
    posts = [one for one in progress_of(target.session) if one.entity == "posts"]
    assert [(one.running, one.records_per_second, one.expected_end) for one in posts] == [(False, None, None)]
    with migrating(target.session, print):
        (running,) = [one for one in progress_of(target.session) if one.entity == "posts"]
    assert running.running and running.records_per_second and running.expected_end


def test_batches_are_ranges_of_positions_and_noted(target_18: Target) -> None:
    staged(target_18).having(batch_size=2, run_id="run-7").load("posts")
    assert batches(target_18, "posts") == [
        (JANUARY, 1, 2, 2), (FEBRUARY, 3, 4, 2), (FEBRUARY, 5, 5, 1), (MARCH, 6, 7, 2),
    ]  # fmt: skip
    assert target_18.all(
        "select distinct run_id, attempts, started_at <= completed_at from migration.migration_log where entity_type = 'posts'"
    ) == [("run-7", 1, True)]


@pytest.mark.parametrize(
    ("throttled", "awaited"),
    [(True, ["on", "off", "on", "on"]), (False, ["on"] * 4)],
    ids=["throttled", "not throttled"],
)
def test_a_throttled_load_waits_for_the_disk_with_the_last_batch_of_each_month(
    throttled: bool, awaited: list[str], target_18: Target
) -> None:
    found: list[str] = []

    def look(name: str, conn: Connection) -> None:
        if name == "batch: before commit":
            found.append(scalar(conn, "show synchronous_commit"))

    with armed(look):
        staged(target_18)
        found.clear()
        target_18.having(throttled=throttled, batch_size=2, streams=1).load("posts")
    assert found == awaited


def test_every_row_is_in_the_books_with_its_batch(target_18: Target) -> None:
    staged(target_18).having(batch_size=2).load("posts")
    assert target_18.all(
        "select l.first_position, count(*) from migration.migrated m"
        " join migration.migration_log l on l.entity_type = m.entity and l.batch_number = m.batch_number"
        " where m.entity = 'posts' group by 1 order by 1"
    ) == [(1, 2), (3, 2), (5, 1), (6, 2)]
    assert target_18.one(
        "select count(*) from migration.migrated m join posts p on p.id = m.id and p.created_at = m.created_at"
        " where m.entity = 'posts' and p.updated_at = m.updated_at and m.base44_id = base44_object_id(p.id)"
    ) == 7  # fmt: skip


def test_progress_is_told_in_records_up_to_their_number(target_18: Target) -> None:
    told: list[tuple[str, int, int]] = []
    staged(target_18).having(batch_size=3, progress=lambda *what: told.append(what)).load("posts")
    assert [what for what in told if what[0] == "posts"] == [
        ("posts", 2, 7), ("posts", 5, 7), ("posts", 7, 7),
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "streams"), [(1, 1), (7, 1), (1000, 1), (1, 2), (1000, 2)])
def test_the_size_of_batches_and_the_number_of_streams_do_not_show_in_the_result(
    target_18: Target, size: int, streams: int
) -> None:
    target_18.migrate({"User": PEOPLE, "Post": ARTICLES})
    expected = target_18.state()
    assert len(expected["posts"]) == 7
    target_18.reset()
    target_18.having(batch_size=size, streams=streams).migrate({"User": PEOPLE, "Post": ARTICLES})
    assert target_18.state() == expected


def test_loading_again_writes_nothing(target_18: Target) -> None:
    target_18.migrate({"User": PEOPLE, "Post": ARTICLES})
    before = row_versions(target_18)
    for table in ("users", "posts"):
        target_18.stage(table)
        assert target_18.load(table).inserted == 0
    assert row_versions(target_18) == before


# -- months ----------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wanted", "months"),
    [
        (Range(), [JANUARY, FEBRUARY, MARCH]),
        (Range(FEBRUARY, MARCH), [FEBRUARY]),
        (Range(start=FEBRUARY), [FEBRUARY, MARCH]),
        (Range(end=MARCH), [JANUARY, FEBRUARY]),
        (Range(FEBRUARY, FEBRUARY), []),
        (Range(date(2030, 1, 1), date(2031, 1, 1)), []),
    ],
    ids=["all", "one", "from", "to", "none", "other"],
)
def test_only_the_months_asked_for_are_loaded(target_18: Target, wanted: Range, months: list[date]) -> None:
    done = staged(target_18).load("posts", wanted=wanted)
    assert [part.partition_key for part in done.partitions] == months
    stored = target_18.all(
        "select distinct date_trunc('month', created_at at time zone 'UTC')::date from posts order by 1"
    )
    assert [row[0] for row in stored] == months
    account = target_18.outcome("posts").account
    assert account["pending"] == 7 - done.inserted
    assert account["unaccounted"] == 0


def test_months_loaded_one_by_one_make_the_same_as_all_at_once(target_18: Target) -> None:
    target_18.migrate({"User": PEOPLE, "Post": ARTICLES})
    expected = target_18.state()
    target_18.reset()
    staged(target_18)
    for start, end in ((MARCH, None), (JANUARY, FEBRUARY), (FEBRUARY, MARCH), (JANUARY, None)):
        target_18.load("posts", wanted=Range(start, end))
    assert target_18.state() == expected


def test_a_post_older_than_the_first_month_says_what_to_set(target_18: Target) -> None:
    old = [post(20, created_date="2019-12-31T23:59:59"), post(21, created_date="2019-12-31T23:59:58")]
    staged(target_18, articles=[*ARTICLES, *old])
    with pytest.raises(SettingsError) as caught:
        target_18.load("posts", first_month=date(2020, 1, 1))
    assert str(caught.value) == (
        f"Post record 12 (id {object_id(21)}) is of 2019-12, before B44_FIRST_MONTH=2020-01;"
        " set B44_FIRST_MONTH=2019-12 to migrate it"
    )
    assert target_18.table("posts") == []
    assert target_18.load("posts", first_month=date(2019, 12, 1)).inserted == 9


@pytest.mark.parametrize(
    ("table", "first", "earlier"), [("posts", "2026-02", "2026-01"), ("audit_logs", "2027", "2026")]
)
def test_a_record_older_than_the_first_period_of_its_table_s_file_is_named(
    target_18: Target, table: str, first: str, earlier: str
) -> None:
    catalog = target_18.session.catalog
    spec = catalog.table(table)
    said = replace(spec, options={**spec.options, "first": first})
    whole = tuple(said if one is spec else one for one in catalog.specs)
    changed = target_18.having(catalog=replace(catalog, specs=whole))
    entry = {
        "id": object_id(6),
        "table_name": "x",
        "record_id": object_id(1),
        "action": "update",
        "timestamp": "2026-01-05",
    }
    target_18.migrate({"User": PEOPLE})
    target_18.write({"Post": [post(6, created_date="2026-01-05")], "AuditLog": [entry]})
    target_18.stage(table)
    with pytest.raises(SettingsError) as caught:
        # The setting is for tables whose file says nothing.
        changed.load(table, first_month=date(2020, 1, 1))
    assert str(caught.value) == (
        f"{catalog.mappings[table].entity} record 1 (id {object_id(6)}) is of {earlier}, before '-- first: {first}' of"
        f" {spec.path}; write '-- first: {earlier}' there to migrate it"
    )
    assert target_18.load(table, first_month=date(2020, 1, 1)).inserted == 1


def test_a_refused_post_may_be_as_old_as_it_likes(target_18: Target) -> None:
    staged(target_18, articles=[post(1), post(2, title=None, created_date="1999-01-01")])
    assert target_18.load("posts", first_month=date(2020, 1, 1)).inserted == 1


# -- interrupted ---------------------------------------------------------------------------------------------------------


def test_a_failed_batch_leaves_the_batches_before_it_and_is_noted(target_18: Target) -> None:
    staged(target_18)
    small = target_18.having(batch_size=2, run_id="run-7")
    third = uuid_of(object_id(4))  # the fifth by position
    with refusing(target_18, "posts", f"new.id = '{third}'"), pytest.raises(DatabaseError) as caught:
        small.load("posts")
    message = str(caught.value)
    assert message.startswith("posts: ") and "not this one" in message and "\n" not in message
    assert batches(target_18, "posts") == [(JANUARY, 1, 2, 2), (FEBRUARY, 3, 4, 2)]
    assert batches(target_18, "posts", "failed") == [(FEBRUARY, 5, 5, 0)]
    ((error, run_id),) = target_18.all(
        "select error_message, run_id from migration.migration_log where status = 'failed'"
    )
    assert (error.splitlines()[0], run_id) == ("not this one", "run-7")
    outcome = target_18.outcome("posts")
    assert len(target_18.table("posts")) == len(outcome.rows) == 4
    assert (outcome.account["migrated"], outcome.account["pending"], outcome.account["unaccounted"]) == (4, 3, 0)


def test_rows_and_books_of_a_failed_batch_go_together(target_18: Target) -> None:
    staged(target_18)
    with refusing(target_18, "posts", f"new.id = '{uuid_of(object_id(4))}'"), pytest.raises(DatabaseError):
        target_18.load("posts")
    february = [row for row in target_18.table("posts") if row["created_at"].month == 2]
    assert february == []
    for book, ids in (("migrated", 2), ("repairs", 2), ("unmapped", 2)):
        assert target_18.one(f"select count(*) from migration.{book} where entity = 'posts'") == ids, book
    assert len(target_18.table("post_slugs")) == 2


@pytest.mark.parametrize("streams", [1, 2])
def test_a_second_load_goes_on_behind_the_last_batch_and_completes_once(target_18: Target, streams: int) -> None:
    target_18.migrate({"User": PEOPLE, "Post": ARTICLES})
    expected = target_18.state()
    target_18.reset()
    staged(target_18)
    small = target_18.having(batch_size=1, streams=streams)
    with refusing(target_18, "posts", f"new.id = '{uuid_of(object_id(3))}'"), pytest.raises(DatabaseError):
        small.load("posts")
    before = {row["id"] for row in target_18.table("posts")}
    moved = len(batches(target_18, "posts"))
    assert 0 < moved < 7
    assert small.load("posts").inserted == 7 - moved
    assert before <= {row["id"] for row in target_18.table("posts")}
    assert sum(row[3] for row in batches(target_18, "posts")) == 7
    assert target_18.state() == expected


@pytest.mark.long
@pytest.mark.parametrize("after", range(1, 8))
def test_an_interruption_behind_any_batch_ends_in_the_same(target_18: Target, after: int) -> None:
    target_18.migrate({"User": PEOPLE, "Post": ARTICLES})
    expected = target_18.state()
    target_18.reset()
    staged(target_18)

    def interrupt(what: str, done: int, total: int) -> None:
        if what == "posts" and done == after:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        target_18.having(batch_size=1, progress=interrupt).load("posts")
    assert len(target_18.table("posts")) == after
    assert target_18.load("posts").inserted == 7 - after
    assert target_18.state() == expected


def test_another_batch_size_can_go_on(target_18: Target) -> None:
    target_18.migrate({"User": PEOPLE, "Post": ARTICLES})
    expected = target_18.state()
    target_18.reset()
    staged(target_18)
    with refusing(target_18, "posts", f"new.id = '{uuid_of(object_id(5))}'"), pytest.raises(DatabaseError):
        target_18.having(batch_size=2).load("posts")
    target_18.having(batch_size=3).load("posts")
    assert target_18.state() == expected


def test_an_interruption_before_the_creators_are_filled_in_is_made_good(target_18: Target) -> None:
    target_18.migrate({"User": PEOPLE})
    expected = target_18.state()
    target_18.reset()
    target_18.write({"User": PEOPLE})
    target_18.stage("users")
    with refusing(target_18, "users", "true", event="update"), pytest.raises(DatabaseError, match="not this one"):
        target_18.load("users")
    assert {row["created_by"] for row in target_18.table("users")} == {None}
    assert target_18.load("users").inserted == 0
    assert target_18.state() == expected


def test_a_creator_changed_in_the_new_system_is_not_filled_in_again(target_18: Target) -> None:
    target_18.migrate({"User": PEOPLE})
    someone = uuid_of(object_id(5))
    target_18.run("update users set created_by = %s, updated_at = now() where id = %s", someone, uuid_of(object_id(2)))
    target_18.load("users")
    assert target_18.outcome("users").rows[object_id(2)]["created_by"] == someone


def test_a_staged_row_that_has_gone_stops_the_batch(target_18: Target) -> None:
    from b44_assets.migration.plan import make_plan

    staged(target_18)
    make_plan(target_18.session, target_18.session.catalog.mappings["posts"])
    target_18.run("delete from base44.posts where _record_number = 1")
    with pytest.raises(DatabaseError, match="lacks 1 of its staged records"):
        target_18.load("posts")
    assert target_18.table("posts") == []


def test_an_unreachable_target_is_one_clear_line(target_18: Target, tmp_path: Any) -> None:
    with pytest.raises(DatabaseError) as caught:
        target_18.having(url=f"postgresql://postgres@/nowhere?host={tmp_path}").load("users")
    assert "\n" not in str(caught.value)


def test_loads_use_one_connection_after_the_other(target: Target) -> None:
    with target.session.keeping() as session:
        run = Target(session, target.export, target.conn)
        run.migrate({"User": [user(1)]})
        assert session.kept is not None
        kept = {conn.info.backend_pid for conn in session.kept.free[session.url]}
        run.migrate({"User": [user(1), user(2)]})
        assert {conn.info.backend_pid for conn in session.kept.free[session.url]} == kept
