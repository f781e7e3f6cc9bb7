"""The registry of slugs and ids of posts is kept true by the database itself, whatever is done to posts."""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from psycopg import errors

from b44_assets.catalog import Kind
from b44_assets.schema.build import build
from b44_assets.session import Session

Db = psycopg.Connection[Any]
AUTHOR = uuid.UUID("11111111-1111-4111-8111-111111111111")
ID = uuid.UUID("22222222-2222-4222-8222-222222222222")
JANUARY, FEBRUARY = "2031-01-15 12:00+00", "2031-02-15 12:00+00"


@pytest.fixture
def db(built: Session) -> Generator[Db]:
    """A session of the tables' owner, with partitions for two months that nothing was migrated to."""
    with psycopg.connect(built.url, autocommit=True) as conn:
        conn.execute(
            "insert into users (id, email, username, email_verified) values (%s, 'author@example.com', 'author', true)",
            (AUTHOR,),
        )
        conn.execute("select create_monthly_partition('2031-01-01'), create_monthly_partition('2031-02-01')")
        yield conn


INSERT = """
    insert into posts (id, user_id, title, content, slug, created_at, created_by)
    values (%(id)s, %(author)s, 'A title', 'Long enough.', %(slug)s, %(created_at)s, %(author)s)
"""


def insert(db: Db, created_at: str, *, id: uuid.UUID = ID, slug: str | None = None, ending: str = "") -> None:
    db.execute((INSERT + ending).encode(), {"id": id, "author": AUTHOR, "slug": slug, "created_at": created_at})


def assert_true(db: Db) -> None:
    for one, other in (("slug, id, created_at from posts", "slug, post_id, post_created_at from post_slugs"),) * 2:
        assert db.execute(f"select {one} except all select {other}".encode()).fetchall() == []
        assert db.execute(f"select {other} except all select {one}".encode()).fetchall() == []


def refusing(db: Db) -> Any:
    return pytest.raises(errors.UniqueViolation)


@pytest.mark.parametrize("slug", [None, "mine", "another"])
def test_an_id_stands_in_one_month_only(db: Db, slug: str | None) -> None:
    insert(db, JANUARY, slug="mine")
    with refusing(db):
        insert(db, FEBRUARY, slug=slug)
    assert_true(db)
    db.execute("delete from posts where id = %s", (ID,))
    insert(db, FEBRUARY, slug="mine")
    assert_true(db)


def test_an_id_is_not_given_to_a_post_of_another_month(db: Db) -> None:
    insert(db, JANUARY)
    insert(db, FEBRUARY, id=uuid.uuid4())
    with refusing(db):
        db.execute("update posts set id = %s where created_at = %s", (ID, FEBRUARY))
    assert_true(db)


def test_the_migration_itself_gives_no_id_twice(db: Db) -> None:
    insert(db, JANUARY)
    with refusing(db), db.transaction():
        db.execute("select set_config('b44.migrating', pg_current_xact_id()::text, true)")
        insert(db, FEBRUARY, slug="of-the-migration")
    assert_true(db)


def test_two_sessions_that_give_one_id_in_two_months_do_not_both_succeed(built: Session, db: Db) -> None:
    failed: list[BaseException] = []

    def second() -> None:
        with psycopg.connect(built.url, autocommit=True) as other:
            try:
                insert(other, FEBRUARY)
            except errors.UniqueViolation as error:
                failed.append(error)

    with db.transaction():
        insert(db, JANUARY)
        thread = threading.Thread(target=second)
        thread.start()
        with psycopg.connect(built.url, autocommit=True) as watching:
            waits = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            while thread.is_alive() and watching.execute(waits.encode()).fetchone() == (0,):
                time.sleep(0.005)
    thread.join()
    assert len(failed) == 1
    assert_true(db)


@pytest.mark.parametrize("ending", ["do nothing", "do update set title = excluded.title, slug = excluded.slug"])
@pytest.mark.parametrize("slug", [None, "mine", "another"])
def test_a_post_written_twice_at_once_is_one(built: Session, db: Db, slug: str | None, ending: str) -> None:
    done: list[bool] = []

    def second() -> None:
        with psycopg.connect(built.url, autocommit=True) as other:
            insert(other, JANUARY, slug=slug, ending=f"on conflict (id, created_at) {ending}")
            done.append(True)

    with db.transaction():
        insert(db, JANUARY, slug="mine")
        thread = threading.Thread(target=second)
        thread.start()
        with psycopg.connect(built.url, autocommit=True) as watching:
            waits = (
                "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
            )
            while thread.is_alive() and watching.execute(waits.encode()).fetchone() == (0,):
                time.sleep(0.005)
    thread.join()
    assert done == [True]
    assert db.execute("select count(*) from posts where id = %s", (ID,)).fetchone() == (1,)
    assert_true(db)


def test_a_post_that_moves_to_another_month_keeps_id_and_slug(db: Db) -> None:
    insert(db, JANUARY, slug="mine")
    db.execute("update posts set created_at = %s where id = %s", (FEBRUARY, ID))
    assert db.execute(
        "select slug, post_created_at = %s from post_slugs where post_id = %s", (FEBRUARY, ID)
    ).fetchall() == [("mine", True)]
    assert_true(db)


@pytest.mark.parametrize("how", ["made", "drained", "default", "by hand"])
def test_truncating_a_partition_frees_its_slugs_and_no_others(built: Session, db: Db, how: str) -> None:
    if how == "drained":
        for day in range(1, 4):
            insert(db, f"2032-03-0{day} 12:00+00", id=uuid.uuid4())
        db.execute("call drain_default_partition('posts')")
    elif how == "by hand":
        db.execute(
            "create table posts_2032_03 partition of posts for values from ('2032-03-01 00:00+00') to ('2032-04-01 00:00+00')"
        )
        for spec in built.catalog.of(Kind.TRIGGER):
            build(built, spec)
    elif how == "made":
        db.execute("select create_monthly_partition('2032-03-01')")
    kept = uuid.uuid4()
    insert(db, FEBRUARY, id=kept, slug="kept")
    insert(db, "2032-03-15 12:00+00", slug="freed")
    db.execute(f"truncate {'posts_default' if how == 'default' else 'posts_2032_03'}".encode())
    assert db.execute("select slug from post_slugs where slug in ('kept', 'freed')").fetchall() == [("kept",)]
    assert_true(db)
    insert(db, JANUARY, slug="freed")
    assert_true(db)


def test_truncating_all_posts_frees_all_slugs(db: Db) -> None:
    insert(db, JANUARY)
    db.execute("truncate posts")
    assert db.execute("select count(*) from post_slugs").fetchone() == (0,)


def test_a_detached_month_keeps_its_slugs_and_ids_also_when_it_is_emptied(db: Db) -> None:
    insert(db, JANUARY, slug="mine")
    db.execute("alter table posts detach partition posts_2031_01")
    db.execute("truncate posts_2031_01")
    with refusing(db):
        insert(db, FEBRUARY)
    insert(db, FEBRUARY, id=uuid.uuid4(), slug="mine")
    assert db.execute("select count(*) from posts where slug = 'mine'").fetchone() == (0,)


@pytest.mark.parametrize("twice", [False, True])
def test_a_registry_of_an_earlier_version_is_brought_up_to_date(built: Session, db: Db, twice: bool) -> None:
    db.execute("alter table post_slugs drop constraint post_slugs_post_id_key")
    db.execute("create unique index idx_post_slugs_post on post_slugs (post_id, post_created_at)")
    insert(db, JANUARY, slug="mine")
    if twice:
        db.execute("alter table posts disable trigger user")
        insert(db, FEBRUARY, slug="again")
        db.execute("alter table posts enable trigger user")
        db.execute("insert into post_slugs values ('again', %s, %s)", (ID, FEBRUARY))
    (registry,) = [spec for spec in built.catalog.of(Kind.TABLE) if spec.name == "post_slugs"]
    build(built, registry)
    found = db.execute(
        "select indexrelid::regclass::text from pg_index where indrelid = 'post_slugs'::regclass order by 1"
    )
    assert [name for (name,) in found] == (
        ["idx_post_slugs_post", "post_slugs_pkey"] if twice else ["post_slugs_pkey", "post_slugs_post_id_key"]
    )
    if twice:
        db.execute("delete from posts where id = %s and created_at = %s", (ID, FEBRUARY))
        build(built, registry)
        with refusing(db):
            insert(db, FEBRUARY)
    assert_true(db)
