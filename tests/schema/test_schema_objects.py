"""What the objects of `sql/` do: each rule kept, each function's promise, on the oldest and the newest server."""

from __future__ import annotations

import base64
import itertools
import random
import re
import threading
import uuid
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from b44_assets.catalog import WITHOUT_OBJECT, Catalog, Kind, constraint_definitions, index_definitions, load_catalog
from b44_assets.errors import CatalogError
from b44_assets.schema.apply import apply_functions
from b44_assets.schema.build import build
from b44_assets.schema.standard_roles import install_standard_roles
from b44_assets.session import Session

Db = psycopg.Connection[Any]
SYSTEM_USER = "00000000-0000-8000-8000-000000000b44"

GUIDE_INDEXES = {
    "idx_users_email", "idx_users_username", "idx_users_created_at", "idx_users_role", "idx_posts_user_id",
    "idx_posts_published", "idx_posts_published_at", "idx_posts_category_id", "idx_posts_tags", "idx_posts_created_at",
    "idx_posts_user_published", "idx_posts_updated_at", "idx_posts_user_created", "idx_posts_published_only",
    "idx_posts_user_drafts", "idx_posts_tags_gin", "idx_posts_title_search", "idx_posts_content_search",
    "idx_users_email_active", "idx_categories_slug_active", "idx_posts_month", "idx_user_preferences_gin",
    "idx_posts_list", "idx_posts_published_covering",
}  # fmt: skip
SERVED_BY_ANOTHER = {
    "idx_users_email", "idx_users_email_active", "idx_users_username", "idx_categories_slug_active",
    "idx_posts_published_at", "idx_posts_tags",
}  # fmt: skip
TWICE_IN_THE_GUIDE = {"idx_posts_published_true", "idx_posts_category_id_set", "idx_posts_user_published_state"}


@pytest.fixture
def db(shared: Session) -> Generator[Db]:
    """A connection to the whole schema, in autocommit mode, as an application's; other tests leave their rows there."""
    with psycopg.connect(shared.url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def own(built: Session) -> Generator[Db]:
    """Likewise, to a database of the test's own."""
    with psycopg.connect(built.url, autocommit=True) as conn:
        yield conn


def new_user(db: Db, *, verified: bool = True, active: bool = True) -> uuid.UUID:
    key = uuid.uuid4()
    db.execute(
        "insert into users (id, email, username, email_verified, active) values (%s, %s, %s, %s, %s)",
        (key, f"{key}@example.com", str(key), verified, active),
    )
    return key


def new_post(db: Db, user: uuid.UUID, title: str = "A title", **values: Any) -> tuple[uuid.UUID, str]:
    """Inserts a post as an application does, into the table or, with `into`, one of its partitions; returns id and slug."""
    into = values.pop("into", "posts")
    given = {"user_id": user, "created_by": user, "title": title, "content": "Long enough.", **values}
    columns, marks = ", ".join(given), ", ".join(["%s"] * len(given))
    statement = f"insert into {into} ({columns}) values ({marks}) returning id, slug"
    row = db.execute(statement.encode(), list(given.values())).fetchone()
    assert row is not None
    return row


def value(db: Db, query: str, *params: Any) -> Any:
    row = db.execute(query.encode(), params or None).fetchone()
    return None if row is None else row[0]


def assert_registry_is_true(db: Db) -> None:
    """post_slugs holds what posts holds, no more and no less."""
    assert (
        db.execute(
            "select slug, id, created_at from posts except all select slug, post_id, post_created_at from post_slugs"
        ).fetchall()
        == []
    )
    assert (
        db.execute(
            "select slug, post_id, post_created_at from post_slugs except all select slug, id, created_at from posts"
        ).fetchall()
        == []
    )


# Indexes


def test_every_index_that_the_guide_names_exists_or_the_reason_stands_in_a_comment(db: Db, catalog: Catalog) -> None:
    held = {row[0] for row in db.execute("select indexname from pg_indexes where schemaname = 'public'").fetchall()}
    assert held >= (GUIDE_INDEXES - SERVED_BY_ANOTHER) | TWICE_IN_THE_GUIDE
    reasons = " ".join(spec.description for spec in catalog.of(Kind.INDEX))
    assert {name for name in SERVED_BY_ANOTHER if name not in reasons} == set()
    assert held.isdisjoint(SERVED_BY_ANOTHER)


def test_every_index_is_valid_on_the_table_and_on_every_partition(db: Db, catalog: Catalog) -> None:
    assert db.execute("select indexrelid::regclass from pg_index where not indisvalid").fetchall() == []
    partitions = value(db, "select count(*) from pg_inherits where inhparent = 'posts'::regclass")
    for spec in catalog.of(Kind.INDEX):
        for index in index_definitions(spec):
            if index.table == "posts":
                parts = value(db, "select count(*) from pg_inherits where inhparent = %s::regclass", index.name)
                assert (index.name, parts) == (index.name, partitions)


def test_analyze_keeps_no_statistics_of_parsed_documents(db: Db) -> None:
    db.execute("analyze posts")
    assert (
        value(
            db,
            "select count(*) from pg_stats s join pg_indexes i on i.indexname = s.tablename"
            " where i.indexdef like '%base44_search%'",
        )
        == 0
    )


def test_no_index_says_what_another_says(db: Db) -> None:
    rows = db.execute(
        "select indrelid::regclass::text, array_agg(indexrelid::regclass::text) from pg_index i"
        " where indrelid::regclass::text !~ '^(pg_|information)'"
        " group by indrelid, regexp_replace(pg_get_indexdef(indexrelid), '^.* USING ', '') having count(*) > 1"
    ).fetchall()
    assert rows == []


# Constraints


def test_every_constraint_is_validated(db: Db, catalog: Catalog) -> None:
    for spec in catalog.of(Kind.CONSTRAINT):
        for constraint in constraint_definitions(spec):
            assert value(
                db,
                "select convalidated from pg_constraint where conrelid = %s::regclass and conname = %s",
                constraint.table,
                constraint.name,
            ), constraint.name


@pytest.mark.parametrize(
    ("statement", "constraint"),
    [
        ("insert into users (email) values ('nobody')", "chk_users_email_format"),
        ("insert into users (email) values ('Ann@example.com')", "chk_users_email_lower"),
        ("insert into users (email, role) values ('ann@example.com', 'root')", "chk_users_role_valid"),
        ("insert into users (email, created_by) values ('ann@example.com', gen_random_uuid())", "fk_users_created_by"),
        ("update categories set color = 'red'", "chk_categories_color"),
        ("update categories set slug = ' '", "chk_categories_slug"),
        ("update posts set title = '  '", "chk_posts_title_length"),
        ("update posts set title = repeat('x', 256)", "chk_posts_title_length"),
        ("update posts set tags = array[repeat('x', 256)]", "chk_posts_tags_length"),
        ("update posts set tags = array['a', null, (select string_agg(md5(g::text), '') from generate_series(1, 999) g)]",
         "chk_posts_tags_length"),
        ("update posts set published_at = now() where not published", "chk_posts_published_at"),
        ("update posts set updated_at = 'infinity'", "chk_posts_finite_times"),
        ("update posts set created_at = '-infinity'", "chk_posts_finite_times"),
        ("update posts set published = true, published_at = 'infinity'", "chk_posts_finite_times"),
        ("update users set last_login_at = '-infinity'", "chk_users_finite_times"),
        ("update categories set created_at = 'infinity'", "chk_categories_finite_times"),
        ("update events set event_date = 'infinity'", "chk_events_finite_times"),
        ("update audit_logs set timestamp = 'infinity'", "chk_audit_logs_finite_times"),
        ("update user_preferences set updated_at = 'infinity'", "chk_user_preferences_finite_times"),
        ("update user_sessions set expires_at = 'infinity'", "chk_user_sessions_finite_times"),
        ("update posts set category_id = gen_random_uuid()", "fk_posts_category_id"),
        ("update posts set updated_by = gen_random_uuid()", "fk_posts_updated_by"),
        ("update user_sessions set user_id = gen_random_uuid()", "fk_user_sessions_user_id"),
        ("update user_preferences set user_id = gen_random_uuid()", "fk_user_preferences_user_id"),
        ("update audit_logs set user_id = gen_random_uuid()", "fk_audit_logs_user_id"),
    ],
)  # fmt: skip
def test_a_row_that_breaks_a_rule_is_refused_by_the_rule_s_name(db: Db, statement: str, constraint: str) -> None:
    with pytest.raises(errors.IntegrityError) as refusal:
        db.execute(statement.encode())
    # Before PostgreSQL 18 a partition may call its part of a foreign key otherwise.
    assert (refusal.value.diag.constraint_name or "").startswith(constraint)


def test_tags_as_long_as_those_that_are_migrated_fit_whatever_they_are_together(db: Db) -> None:
    author = new_user(db)
    new_post(db, author)
    widest = "array(select repeat(chr(128512 + g), 255) from generate_series(1, 50) g)"
    for tags in (widest, "'{}'", "array[null]::text[]", "array['']", "null"):
        db.execute(f"update posts set tags = {tags} where user_id = %s".encode(), (author,))


def test_posts_go_with_their_author_and_stay_without_their_category(db: Db) -> None:
    author, other = new_user(db), new_user(db)
    category = value(
        db, "insert into categories (name, slug, created_by) values ('New', 'new', %s) returning id", other
    )
    new_post(db, author)
    kept, _ = new_post(db, other, category_id=category)
    db.execute("delete from users where id = %s", (author,))
    db.execute("delete from categories where id = %s", (category,))
    assert value(db, "select count(*) from posts where user_id = %s", author) == 0
    assert value(db, "select category_id from posts where id = %s", kept) is None
    assert_registry_is_true(db)


def test_an_audit_entry_outlives_its_user(db: Db) -> None:
    user = new_user(db)
    entry = value(
        db,
        "insert into audit_logs (table_name, record_id, action, user_id) values ('posts', %s, 'insert', %s) returning id",
        user,
        user,
    )
    db.execute("delete from users where id = %s", (user,))
    assert value(db, "select user_id from audit_logs where id = %s", entry) is None
    assert value(db, "select count(*) from audit_logs where id = %s", entry) == 1


def test_events_are_one_a_user_and_utc_day_whatever_the_session_s_zone(db: Db) -> None:
    user = new_user(db)
    db.execute("set timezone = 'Pacific/Auckland'")
    insert = b"insert into events (user_id, event_date, cancelled, created_by) values (%s, %s, %s, %s)"
    db.execute(insert, (user, "2030-01-01 00:30+00", False, user))
    db.execute(insert, (user, "2030-01-01 12:00+00", True, user))
    db.execute(insert, (user, "2029-12-31 23:30+00", False, user))
    with pytest.raises(errors.ExclusionViolation, match="unique_event_per_day"):
        db.execute(insert, (user, "2030-01-01 23:30+00", False, user))


# Triggers


def test_unpublishing_a_popular_post_is_refused_even_if_its_likes_go_with_it(db: Db) -> None:
    post, _ = new_post(db, new_user(db), published=True, published_at=datetime.now(UTC), like_count=101)
    with pytest.raises(errors.CheckViolation, match="more than 100 likes"):
        db.execute("update posts set published = false, like_count = 0 where id = %s", (post,))


def test_publishing_sets_published_at_and_unpublishing_clears_it(db: Db) -> None:
    post, _ = new_post(db, new_user(db), like_count=100)
    db.execute("update posts set published = true where id = %s", (post,))
    assert value(db, "select published_at from posts where id = %s", post) is not None
    db.execute("update posts set published = false where id = %s", (post,))
    assert value(db, "select published_at from posts where id = %s", post) is None


@pytest.mark.parametrize(("verified", "active"), [(False, True), (True, False)])
def test_only_active_and_verified_users_publish(db: Db, verified: bool, active: bool) -> None:
    author = new_user(db, verified=verified, active=active)
    with pytest.raises(errors.CheckViolation) as refusal:
        new_post(db, author, published=True, published_at=datetime.now(UTC))
    assert refusal.value.diag.constraint_name == "chk_posts_publish_permissions"
    draft, _ = new_post(db, author)
    with pytest.raises(errors.CheckViolation):
        db.execute("update posts set published = true where id = %s", (draft,))


def test_a_published_post_does_not_pass_to_somebody_who_may_not_publish(db: Db) -> None:
    post, _ = new_post(db, new_user(db), published=True, published_at=datetime.now(UTC))
    with pytest.raises(errors.CheckViolation):
        db.execute("update posts set user_id = %s where id = %s", (new_user(db, verified=False), post))


def test_the_migration_s_own_rows_are_kept_whoever_wrote_them_and_can_be_edited(db: Db) -> None:
    author = new_user(db, verified=False)
    with db.transaction():
        db.execute("select set_config('b44.migrating', pg_current_xact_id()::text, true)")
        post, _ = new_post(db, author, published=True, published_at=datetime.now(UTC), slug="kept-from-base44")
    db.execute("update posts set view_count = view_count + 1 where id = %s", (post,))
    assert_registry_is_true(db)


# Slugs


def test_a_post_without_a_slug_gets_one_made_of_its_title(db: Db) -> None:
    assert new_post(db, new_user(db), "Über Straßen & Brücken")[1] == "über-straßen-brücken"
    assert_registry_is_true(db)


def test_a_free_slug_is_kept_as_given_and_a_taken_one_is_numbered(db: Db) -> None:
    user = new_user(db)
    assert new_post(db, user, slug="Mine_1")[1] == "Mine_1"
    assert new_post(db, user, slug="wanted")[1] == "wanted"
    assert new_post(db, user, slug="wanted")[1] == "wanted-2"
    assert new_post(db, user, "---")[1] == "post"
    assert_registry_is_true(db)


def test_rows_of_one_statement_get_slugs_of_their_own(db: Db) -> None:
    user = new_user(db)
    rows = db.execute(
        "insert into posts (user_id, created_by, title, content) select %s, %s, 'Same', 'Long enough.'"
        " from generate_series(1, 20) returning slug",
        (user, user),
    ).fetchall()
    assert {row[0] for row in rows} == {"same", *(f"same-{n}" for n in range(2, 21))}
    assert_registry_is_true(db)


def test_renaming_and_deleting_free_a_slug(db: Db) -> None:
    user = new_user(db)
    post, _ = new_post(db, user, "First")
    db.execute("update posts set slug = 'second' where id = %s", (post,))
    assert new_post(db, user, "First")[1] == "first"
    db.execute("delete from posts where id = %s", (post,))
    assert new_post(db, user, "Second")[1] == "second"
    assert_registry_is_true(db)


def test_renaming_to_a_taken_slug_is_numbered(db: Db) -> None:
    user = new_user(db)
    new_post(db, user, "Taken")
    post, _ = new_post(db, user, "Other")
    db.execute("update posts set slug = 'taken' where id = %s", (post,))
    assert value(db, "select slug from posts where id = %s", post) == "taken-2"
    assert_registry_is_true(db)


def test_a_new_title_leaves_the_address_alone(db: Db) -> None:
    post, slug = new_post(db, new_user(db), "Old title")
    db.execute("update posts set title = 'New title' where id = %s", (post,))
    assert value(db, "select slug from posts where id = %s", post) == slug


def test_writes_to_a_partition_are_registered_too(db: Db) -> None:
    user = new_user(db)
    far = datetime(2199, 5, 1, tzinfo=UTC)
    post, slug = new_post(db, user, "Direct", created_at=far, into="posts_default")
    assert new_post(db, user, "Direct")[1] == f"{slug}-2"
    db.execute("update posts_default set slug = 'renamed' where id = %s", (post,))
    assert_registry_is_true(db)
    db.execute("delete from posts_default where id = %s", (post,))
    assert_registry_is_true(db)


def test_a_post_that_moves_to_another_month_keeps_its_slug(db: Db) -> None:
    post, slug = new_post(db, new_user(db), "Moving", created_at=datetime(2199, 5, 1, tzinfo=UTC))
    db.execute("select create_monthly_partition('2199-07-01')")
    db.execute("update posts set created_at = '2199-07-02 00:00+00' where id = %s", (post,))
    assert value(db, "select slug from posts where id = %s", post) == slug
    assert_registry_is_true(db)
    db.execute("update posts set created_at = '2199-05-02 00:00+00', slug = 'moved' where id = %s", (post,))
    assert_registry_is_true(db)


def test_an_insert_that_meets_its_row_claims_no_slug(db: Db) -> None:
    user = new_user(db)
    moment = datetime(2025, 1, 1, tzinfo=UTC)
    post, slug = new_post(db, user, "Here already", created_at=moment)
    insert = (
        "insert into posts (id, created_at, user_id, created_by, title, content) values (%s, %s, %s, %s, 'Again', 'Long enough.')"
        " on conflict (id, created_at) do "
    )
    db.execute(f"{insert} nothing".encode(), (post, moment, user, user))
    db.execute(f"{insert} update set title = excluded.title, slug = excluded.slug".encode(), (post, moment, user, user))
    assert db.execute("select title, slug from posts where id = %s", (post,)).fetchone() == ("Again", slug)
    assert_registry_is_true(db)


def test_emptying_posts_frees_every_slug(own: Db) -> None:
    own.execute("truncate posts")
    assert_registry_is_true(own)


def test_many_posts_of_one_title_at_once_get_as_many_slugs(shared: Session, db: Db) -> None:
    user = new_user(db)
    start = threading.Barrier(20)

    def write(_: int) -> list[str]:
        with psycopg.connect(shared.url, autocommit=True) as conn:
            start.wait(timeout=60)
            return [new_post(conn, user, "The same title")[1] for _ in range(10)]

    with ThreadPoolExecutor(20) as pool:
        slugs = [slug for written in pool.map(write, range(20)) for slug in written]
    assert sorted(slugs) == sorted(["the-same-title", *(f"the-same-title-{n}" for n in range(2, 201))])
    assert_registry_is_true(db)


def test_an_insert_of_many_posts_takes_no_lock_for_each(own: Db) -> None:
    user = new_user(own)
    with own.transaction():
        own.execute(
            "insert into posts (user_id, created_by, title, content)"
            " select %s, %s, 'Title ' || n, 'Some content' from generate_series(1, 500) n",
            (user, user),
        )
        row = own.execute("select count(*) from pg_locks where pid = pg_backend_pid()").fetchone()
    assert row is not None and row[0] < 250
    assert_registry_is_true(own)


def test_a_slug_awaited_in_vain_is_numbered_after_the_other_transaction_commits(shared: Session, db: Db) -> None:
    user = new_user(db)
    with psycopg.connect(shared.url) as first, ThreadPoolExecutor(1) as pool:
        new_post(first, user, "Contested")
        second = pool.submit(lambda: new_post(db, user, "Contested")[1])
        first.commit()
        assert second.result(timeout=60) == "contested-2"


# Reading


def pages(db: Db, size: int) -> list[uuid.UUID]:
    found: list[uuid.UUID] = []
    cursor = None
    while rows := db.execute("select id, next_cursor from get_posts_paginated(%s, %s)", (size, cursor)).fetchall():
        found += [row[0] for row in rows]
        cursor = rows[-1][1]
    return found


def test_pages_show_every_published_post_once_even_where_moments_are_equal(own: Db) -> None:
    own.execute("truncate posts")
    user = new_user(own)
    moment = datetime(2025, 3, 31, 23, 59, 59, 999999, tzinfo=UTC)
    for created_at in (
        [moment] * 5 + [moment + timedelta(microseconds=1)] * 5 + [moment - timedelta(microseconds=1)] * 5
    ):
        new_post(own, user, created_at=created_at, published=True, published_at=created_at)
    new_post(own, user, "A draft", created_at=moment)
    wanted = own.execute("select id from posts where published order by created_at desc, id desc").fetchall()
    for size in (1, 3, 7, 100):
        assert pages(own, size) == [row[0] for row in wanted]


@pytest.mark.parametrize(
    "moment", ["1969-07-20 20:17:40.123457+00", "2025-03-09 07:00:00.000001+00", "2254-01-01 00:00+00"]
)
def test_a_cursor_keeps_every_digit_of_its_place(own: Db, moment: str) -> None:
    own.execute("truncate posts")
    user = new_user(own)
    for n in range(2):
        new_post(own, user, f"Number {n}", created_at=moment, published=True, published_at=moment)
    for zone in ("UTC", "America/New_York"):
        own.execute("select set_config('timezone', %s, false)", (zone,))
        assert len(pages(own, 1)) == 2


def test_posts_at_the_ends_of_time_and_beyond_are_on_a_page_like_others(own: Db) -> None:
    own.execute("truncate posts")
    own.execute("alter table posts drop constraint chk_posts_finite_times")
    user = new_user(own)
    for moment in (
        "infinity", "294276-12-31 23:59:59.999999+00", "294247-01-10 04:00:54.775808+00", "294247-01-10 04:00:54.775807+00",
        "9999-12-31 23:59:59.999999+00", "2025-01-01 00:00+00", "4713-01-01 00:00+00 BC", "-infinity",
    ):  # fmt: skip
        for _ in range(2):
            new_post(own, user, created_at=moment, published=True, published_at=moment)
    wanted = own.execute("select id from posts order by created_at desc, id desc").fetchall()
    for size in (1, 3, 100):
        assert pages(own, size) == [row[0] for row in wanted]


@pytest.mark.parametrize("cursor", ["x", "A" * 31, "*" * 32, "A" * 33, "g" + "A" * 31])
def test_a_cursor_that_was_not_given_out_is_refused(db: Db, cursor: str) -> None:
    with pytest.raises(errors.InvalidParameterValue, match="not a cursor"):
        db.execute("select * from get_posts_paginated(10, %s)", (cursor,))


def test_a_page_leaves_later_months_unread(own: Db) -> None:
    user = new_user(own)
    own.execute("select create_monthly_partition('2199-07-01')")
    own.execute("select create_monthly_partition('2199-08-01')")
    new_post(own, user, created_at="2199-07-15 00:00+00", published=True, published_at="2199-07-15 00:00+00")
    cursor = value(own, "select next_cursor from get_posts_paginated(1)")
    with psycopg.connect(own.info.dsn) as fresh:
        fresh.execute("select * from get_posts_paginated(1, %s)", (cursor,))
        # Scans of this transaction.
        scans = dict(
            fresh.execute(
                "select indrelid::regclass::text, sum(pg_stat_get_xact_numscans(indexrelid))::int"
                " from pg_index where indrelid in ('posts_2199_07'::regclass, 'posts_2199_08'::regclass) group by 1"
            ).fetchall()
        )
    assert scans["posts_2199_07"] > 0
    assert scans["posts_2199_08"] == 0


def test_statistics_are_refreshed_whether_the_view_was_filled_or_not(own: Db) -> None:
    user = new_user(own)
    new_post(own, user)
    own.execute("refresh materialized view user_post_stats with no data")
    for _ in range(2):
        before = datetime.now(UTC)
        own.execute("select refresh_user_stats()")
        assert value(own, "select total_posts from user_post_stats where user_id = %s", user) == 1
        noted = value(own, "select refreshed_at from b44.view_refreshes where view_name = 'user_post_stats'")
        assert before < noted < datetime.now(UTC)


# The folder


ROUTINES = """
    select p.oid::regprocedure::text, p.xmin::text from pg_proc p
     where p.pronamespace in ('public'::regnamespace, 'b44'::regnamespace, 'migration'::regnamespace) order by 1
"""


def test_functions_that_are_as_the_files_say_are_left_alone(built: Session, own: Db) -> None:
    # Other tests may have made the group roles of the server meanwhile.
    install_standard_roles(built)
    before = own.execute(ROUTINES).fetchall()
    assert len(before) > 50
    for spec in built.catalog.of(Kind.RUNTIME, Kind.FUNCTION):
        build(built, spec)
    functions = built.catalog.of(Kind.FUNCTION)
    assert [one.name for one in apply_functions(built, functions)] == [spec.name for spec in functions]
    assert own.execute(ROUTINES).fetchall() == before


@pytest.mark.parametrize(
    ("tampered", "look", "expected"),
    [
        (
            "create or replace function transform_user_role(base44_role text) returns text language sql return 'root'",
            "select transform_user_role('admin')",
            "admin",
        ),
        (
            "comment on function transform_user_role(text) is 'Another'",
            "select obj_description('transform_user_role(text)'::regprocedure, 'pg_proc') <> 'Another'",
            True,
        ),
        ("alter function transform_tags(text) set work_mem = '1MB'", "select not 'work_mem=1MB' = any (proconfig) from pg_proc"
         " where oid = 'transform_tags(text)'::regprocedure", True),
        ("drop function refresh_user_stats()", "select to_regprocedure('refresh_user_stats()') is not null", True),
    ],
    ids=["body", "comment", "setting", "gone"],
)  # fmt: skip
def test_a_function_that_somebody_has_changed_is_as_its_file_says_again(
    built: Session, own: Db, tampered: str, look: str, expected: Any
) -> None:
    own.execute(tampered.encode())
    assert value(own, look) != expected
    functions = built.catalog.of(Kind.FUNCTION)
    assert [one.name for one in apply_functions(built, functions)] == [spec.name for spec in functions]
    assert value(own, look) == expected


@pytest.mark.long
def test_what_a_file_needs_is_what_it_says_it_needs(database: str, catalog: Catalog) -> None:
    """Every object that the server says a file's objects stand on comes from that file or from one it depends on."""
    session = Session(database, catalog)
    owner: dict[tuple[int, int], str] = {}
    with psycopg.connect(database, autocommit=True) as conn:
        known = _objects(conn)
        for spec in catalog.specs:
            if spec.kind not in WITHOUT_OBJECT:
                build(session, spec)
                now = _objects(conn)
                # A partition is a part of its table, whichever file made it.
                owner |= dict.fromkeys(now - known, spec.options["on"] if spec.kind is Kind.PARTITION else spec.name)
                known = now
        edges = conn.execute(
            "select classid::bigint, objid::bigint, refclassid::bigint, refobjid::bigint from pg_depend"
            " where deptype in ('n', 'a', 'i')"
        ).fetchall()
    program = {spec.name for spec in catalog.of(Kind.RUNTIME)}
    # What comes with the program is there before any file of an app, and needs no declaring.
    allowed = {name: _closure(catalog, name) | (set() if name in program else program) for name in set(owner.values())}
    undeclared = {
        (owner[a, b], owner[c, d])
        for a, b, c, d in edges
        if (a, b) in owner and (c, d) in owner and owner[c, d] not in allowed[owner[a, b]]
    }
    # A table's parts belong to it, whichever file made them (indexes of new partitions, cloned triggers).
    assert undeclared == set()


def _objects(conn: Db) -> set[tuple[int, int]]:
    return {
        (row[0], row[1])
        for row in conn.execute(
            """
            select 'pg_class'::regclass::bigint, c.oid::bigint from pg_class c
              join pg_namespace n on n.oid = c.relnamespace where n.nspname in ('public', 'b44', 'migration', 'base44')
            union all
            select 'pg_proc'::regclass::bigint, p.oid::bigint from pg_proc p
              join pg_namespace n on n.oid = p.pronamespace where n.nspname in ('public', 'b44', 'migration')
            union all select 'pg_constraint'::regclass::bigint, oid::bigint from pg_constraint
            union all select 'pg_trigger'::regclass::bigint, oid::bigint from pg_trigger
            union all select 'pg_rewrite'::regclass::bigint, oid::bigint from pg_rewrite
            """
        )
    }


def _closure(catalog: Catalog, name: str) -> set[str]:
    found: set[str] = set()
    todo = [name]
    while todo:
        current = todo.pop()
        if current not in found:
            found.add(current)
            for spec in catalog.specs:
                if spec.name == current:
                    todo += [*spec.depends, *([spec.options["on"]] if "on" in spec.options else [])]
    return found


@pytest.mark.parametrize(
    ("folder", "text", "complaint"),
    [
        ("indexes", "create index a on users (id);", "need a header 'on'"),
        ("indexes", "-- on: users\n\ncreate index a on posts (id);", ":4: is about posts, the file about users"),
        ("indexes", "-- on: users\n\ndrop index a;", ":4: expected 'create"),
        ("constraints", "-- on: users\n\nalter table users add check (true);", ":4: expected 'alter table"),
        ("constraints", "-- on: users\n\nalter table users add constraint a check (true) not valid;", "NOT VALID"),
        ("triggers", "-- on: users\n\ncreate trigger a before insert on users execute function b();", "or replace"),
        ("views", "create materialized view x as select 1 as id;", "unique index"),
        ("queries", "-- uses: idx_nobody\n\nselect 1;", "uses idx_nobody"),
        ("queries", "-- since: 2024-01-01\n\nselect 1;", "must be a literal"),
        ("queries", "delete from users;", "one SELECT"),
    ],
)  # fmt: skip
def test_a_file_of_another_form_is_refused_with_its_line(
    tmp_path: Path, folder: str, text: str, complaint: str
) -> None:
    for kind, content in (("tables", "create table if not exists users (id int);"), (folder, text)):
        (tmp_path / kind).mkdir(exist_ok=True)
        (tmp_path / kind / ("users.sql" if kind == "tables" else "x.sql")).write_text(f"-- A file.\n{content}\n")
    with pytest.raises(CatalogError, match=re.escape(complaint)):
        load_catalog(tmp_path)


# Full-text search


def distinct_words(letters: str, length: int, joined: int, characters: int) -> str:
    """A text of words that differ, each of some letters and as many of them joined by hyphens as wanted."""
    draw = random.Random(1)
    words = ("-".join("".join(draw.choices(letters, k=length)) for _ in range(joined)) for _ in itertools.count())
    text = ""
    while len(text) < characters:
        text += " ".join(itertools.islice(words, 5_000)) + " "
    return text[:characters]


ASTRAL = "".join(map(chr, range(0x20000, 0x2A000)))


@pytest.mark.parametrize(
    ("letters", "length", "joined"),
    [("abcdefghijklmnopqrstuvwxyz", 8, 1), (ASTRAL, 1, 2), (ASTRAL, 2, 3), (ASTRAL, 8, 5), (ASTRAL, 60, 3)],
)
def test_a_text_of_any_length_and_script_is_taken_by_the_search_indexes(
    db: Db, letters: str, length: int, joined: int
) -> None:
    """With the most that differs in the characters that are read: joined words are kept whole and in parts."""
    text = distinct_words(letters, length, joined, 1_300_000)
    with pytest.raises(errors.ProgramLimitExceeded):
        db.execute("select to_tsvector('english', %s)", (text,))
    post, _ = new_post(db, new_user(db), content=f"Migrations of databases. {text}")
    assert found(db, "content", "migration database") >= {post}


def test_an_image_in_the_text_is_not_searched_and_what_follows_it_is(db: Db) -> None:
    image = base64.b64encode(random.Random(1).randbytes(1_500_000)).decode()
    writer = new_user(db)
    post, _ = new_post(db, writer, content=f"Beginnings ![a](data:image/png;base64,{image}) <b>endings</b>")
    shouting, _ = new_post(db, writer, content=f"Beginnings url('DATA:image/png;base64,{image[:5000]}') endings")
    assert found(db, "content", "beginning ending") >= {post, shouting}
    assert value(db, "select length(base44_search(content)) from posts where id = %s", post) == 2


@pytest.mark.parametrize(
    "text",
    [
        "the data: a, b and c",
        "metadata:image/png,kept",
        "data:nothing,here",
        "see data:",
        "database64,kept ;base64,kept",
    ],
)
def test_what_only_looks_like_an_image_is_searched(db: Db, text: str) -> None:
    assert value(db, "select b44.searchable(%s)", text) == text


def found(db: Db, column: str, words: str) -> set[uuid.UUID]:
    """Posts with some words in a column, by the index."""
    with db.transaction():
        db.execute("set local enable_seqscan = off")
        query = f"select id from posts where base44_search({column}) @@ plainto_tsquery('english', %s)"
        plan = str(db.execute(f"explain {query}".encode(), (words,)).fetchall())
        assert "Bitmap Index Scan" in plan
        return {row[0] for row in db.execute(query.encode(), (words,)).fetchall()}
