"""Every check is seen failing: for each a fault is planted that it is there to find."""

from __future__ import annotations

import re
import shutil
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from b44_assets.catalog import Kind, Spec, load_catalog
from b44_assets.maintenance.index_maintenance import index_usage, reindex_bloated
from b44_assets.maintenance.query_plans import query_plans
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import (
    constraints_valid,
    foreign_keys_hold,
    indexes_valid,
    view_equals_query,
    view_fresh,
)
from b44_assets.schema.row_checks import violations
from b44_assets.session import Session

TABLES = ("users", "categories", "posts", "events", "user_preferences", "user_sessions", "audit_logs")


def plant(session: Session, *statements: str) -> None:
    """Does what an unlucky hand or an interrupted run may do."""
    with psycopg.connect(session.url, autocommit=True) as conn:
        # A superuser's way past foreign keys and triggers.
        conn.execute("set session_replication_role = replica")
        for statement in statements:
            conn.execute(statement.encode())


def value(session: Session, query: str) -> Any:
    with psycopg.connect(session.url) as conn:
        row = conn.execute(query.encode()).fetchone()
    return None if row is None else row[0]


def view(session: Session) -> Spec:
    return next(spec for spec in session.catalog.of(Kind.VIEW) if spec.name == "user_post_stats")


Check = Callable[[Session], Any]


@pytest.mark.parametrize(
    "check",
    [
        *(lambda s, t=t: constraints_valid(s, t) for t in TABLES),
        *(lambda s, t=t: indexes_valid(s, t) for t in TABLES),
        *(lambda s, t=t: foreign_keys_hold(s, t) for t in TABLES),
        lambda s: violations(s, s.catalog.checks["slugs_registered"]),
        lambda s: view_fresh(s, view(s)),
        lambda s: view_equals_query(s, view(s)),
        lambda s: query_plans(s, "posts"),
        lambda s: query_plans(s, "user_preferences"),
        schema_drift,
        lambda s: index_usage(s, minimum_bytes=0, threshold=1.0),
    ],
)  # fmt: skip
def test_a_freshly_built_schema_passes(shared: Session, check: Check) -> None:
    verdict = check(shared)
    assert verdict.passed, verdict.message()


# Constraints, indexes, foreign keys


def test_a_missing_constraint_is_named(built: Session) -> None:
    plant(built, "alter table users drop constraint chk_users_role_valid")
    verdict = constraints_valid(built, "users")
    assert (verdict.passed, verdict.missing) == (False, ("chk_users_role_valid",))
    assert "chk_users_role_valid" in verdict.message()


def test_a_constraint_that_was_never_validated_is_named(built: Session) -> None:
    plant(built, "alter table posts_default add constraint extra check (view_count >= 0) not valid")
    verdict = constraints_valid(built, "posts")
    assert (verdict.passed, verdict.not_validated) == (False, ("posts_default.extra",))
    assert verdict.of_no_file == ()


def test_a_constraint_that_was_taken_out_of_its_file_is_named_with_what_to_do(built: Session) -> None:
    plant(built, "alter table users add constraint extra check (role <> 'guest') not valid")
    verdict = constraints_valid(built, "users")
    assert (verdict.passed, verdict.of_no_file) == (False, ("extra",))
    assert "alter table users drop constraint extra" in verdict.message()


def test_an_invalid_index_is_named(built: Session) -> None:
    plant(built, "update pg_index set indisvalid = false where indexrelid = 'idx_users_role'::regclass")
    verdict = indexes_valid(built, "users")
    assert (verdict.passed, verdict.invalid) == (False, ("idx_users_role",))


def test_an_invalid_index_of_a_partition_is_named(built: Session) -> None:
    plant(built, "update pg_index set indisvalid = false where indexrelid = 'posts_default_pkey'::regclass")
    assert indexes_valid(built, "posts").invalid == ("posts_default_pkey",)


def test_a_missing_index_is_named(built: Session) -> None:
    plant(built, "drop index idx_posts_month")
    verdict = indexes_valid(built, "posts")
    assert (verdict.passed, verdict.missing) == (False, ("idx_posts_month",))


def test_an_index_that_a_partition_lacks_is_named(built: Session) -> None:
    plant(built, "drop index idx_posts_month", "create index idx_posts_month on only posts (id)")
    plant(built, "update pg_index set indisvalid = true where indexrelid = 'idx_posts_month'::regclass")
    verdict = indexes_valid(built, "posts")
    assert (verdict.passed, verdict.incomplete) == (False, ("idx_posts_month",))


@pytest.mark.long
@pytest.mark.parametrize(
    ("table", "statement", "key"),
    [
        (
            "posts",
            "update posts set user_id = gen_random_uuid() where id = (select id from posts limit 1)", "fk_posts_user_id",
        ),
        (
            "posts",
            "update posts set category_id = gen_random_uuid() where id = (select id from posts limit 1)", "fk_posts_category_id",
        ),
        (
            "user_sessions",
            "insert into user_sessions (user_id, expires_at) values (gen_random_uuid(), now())", "fk_user_sessions_user_id",
        ),
        ("audit_logs", "insert into audit_logs (table_name, record_id, action, user_id)"
         " values ('x', gen_random_uuid(), 'y', gen_random_uuid())", "fk_audit_logs_user_id"),
    ],
)  # fmt: skip
def test_a_reference_without_a_row_is_counted(built: Session, table: str, statement: str, key: str) -> None:
    plant(built, statement)
    verdict = foreign_keys_hold(built, table)
    assert not verdict.passed
    assert {name: count for name, count in verdict.orphans.items() if count} == {key: 1}


# Posts


def test_published_posts_of_authors_without_the_right_are_counted(built: Session) -> None:
    check = built.catalog.checks["publish_permissions"]
    before = violations(built, check)
    author = value(
        built,
        "select p.user_id from posts p join users u on u.id = p.user_id"
        " where p.published and u.active and u.email_verified limit 1",
    )
    plant(built, f"update users set active = false where id = '{author}'")
    after = violations(built, check)
    assert not after.passed
    assert after.count > before.count
    assert {tuple(row) for row in after.sample} == {("id", "user_id")}
    assert check.warns


def test_a_slug_that_is_not_registered_and_one_of_no_post_are_counted(built: Session) -> None:
    slug = value(built, "select min(slug) from post_slugs")
    post = str(value(built, "select id from posts where slug = (select min(slug) from post_slugs)"))
    plant(built, f"update post_slugs set slug = slug || '-planted' where slug = '{slug}'")
    check = built.catalog.checks["slugs_registered"]
    verdict = violations(built, check)
    assert (verdict.passed, verdict.count, check.warns) == (False, 2, False)
    assert sorted(tuple(row.items()) for row in verdict.sample) == [
        (("problem", "not registered"), ("slug", slug), ("post_id", post)),
        (("problem", "registered for no post"), ("slug", f"{slug}-planted"), ("post_id", post)),
    ]


def test_sound_slugs_are_compared_by_their_sums_alone(built: Session) -> None:
    statement = built.catalog.checks["slugs_registered"].spec.statements[0].text
    with psycopg.connect(built.url) as conn:
        lines = [line for (line,) in conn.execute(f"explain (analyze, costs off) {statement}".encode())]
    [join] = [line for line in lines if "Full Join" in line]
    assert "never executed" in join


# The view


def test_a_view_that_differs_from_its_query_is_found(built: Session) -> None:
    plant(built, "delete from posts where id = (select id from posts limit 1)")
    verdict = view_equals_query(built, view(built))
    assert not verdict.passed
    assert verdict.differing >= 1


def test_a_view_that_was_never_filled_is_neither_fresh_nor_equal(built: Session) -> None:
    plant(built, "refresh materialized view user_post_stats with no data")
    assert not view_fresh(built, view(built)).passed
    assert not view_equals_query(built, view(built)).passed


def test_an_old_view_is_stale_only_once_its_table_has_changed(built: Session) -> None:
    later = datetime.now(UTC) + timedelta(hours=8)
    assert view_fresh(built, view(built), now=later).passed
    plant(built, "update posts set updated_at = now() where id = (select id from posts limit 1)")
    assert view_fresh(built, view(built)).passed
    stale = view_fresh(built, view(built), now=later)
    assert not stale.passed
    assert "have changed since" in stale.message()


# Plans


def test_a_query_whose_index_is_gone_fails(built: Session) -> None:
    plant(built, "drop index idx_posts_tags_gin")
    verdict = query_plans(built, "posts")
    assert [plan.name for plan in verdict.plans if not plan.passed] == ["posts_by_tag"]
    assert "posts_by_tag" in verdict.message()


def test_a_query_for_which_partitions_are_not_pruned_fails(shared: Session, tmp_path: Path) -> None:
    root = Path(shutil.copytree(shared.catalog.root, tmp_path / "sql"))
    for file in (root / "queries").iterdir():
        # What the planner cannot tell from a partition's bounds.
        file.write_text(re.sub(r"p\.created_at (>=|<) ", r"p.created_at + interval '0' \1 ", file.read_text()))
    plans = query_plans(replace(shared, catalog=load_catalog(root)), "posts").plans
    assert {plan.name for plan in plans if plan.wrongly_read} == {"posts_of_month", "recent_posts", "active_authors"}


def test_a_month_is_read_from_its_partition_and_the_default_one_only(shared: Session) -> None:
    plan = next(plan for plan in query_plans(shared, "posts").plans if plan.name == "posts_of_month")
    assert plan.read <= 2 < plan.partitions


def test_a_query_that_reads_what_is_not_made_yet_waits_for_it(built: Session) -> None:
    plant(built, "drop view user_names")
    verdict = query_plans(built, "posts")
    assert verdict.passed and set(verdict.waiting) == {"active_authors", "recent_posts"}
    assert set(verdict.waiting.values()) == {"user_names"}
    assert not set(verdict.waiting) & {plan.name for plan in verdict.plans}


# Drift


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "difference"),
    [
        ("alter table users drop column last_login_at", "column users.last_login_at is missing"),
        (
            "alter table events alter column title type varchar(80)",
            "column events.title: type is character varying(80), sql/ says text",
        ),
        (
            "alter table users alter column role set default 'guest'",
            "column users.role: default is 'guest'::text, sql/ says 'user'::text",
        ),
        (
            "alter table users alter column display_name set not null",
            "column users.display_name: not null is true, sql/ says false",
        ),
        ("alter table posts alter column excerpt drop expression", "column posts.excerpt: generated is nothing"),
        ("comment on column users.role is 'Changed'", "column users.role: comment is Changed"),
        (
            "comment on table posts is null",
            "table posts: comment is nothing, sql/ says User-created posts and articles",
        ),
        ("comment on materialized view user_post_stats is 'Mine'", "table user_post_stats: comment is Mine"),
        ("drop table user_preferences", "table user_preferences is missing"),
        ("drop index idx_posts_month", "index posts.idx_posts_month is missing"),
        (
            "alter index idx_posts_title_search alter column 1 set statistics 100",
            "index posts.idx_posts_title_search: statistics targets is 1: 100, sql/ says 1: 0",
        ),
        ("alter table users drop constraint chk_users_role_valid", "constraint users.chk_users_role_valid is missing"),
        (
            "alter table users rename constraint chk_users_role_valid to other",
            "constraint users.chk_users_role_valid is missing",
        ),
        (
            "alter table categories add column needed text not null default ''; alter table categories alter needed drop default",
            "column categories.needed is not in sql/, and is not null without a default",
        ),
        ("drop trigger trg_validate_post_update on posts", "trigger posts.trg_validate_post_update is missing"),
        (
            "alter table posts disable trigger trg_validate_post_update",
            "trigger posts.trg_validate_post_update: enabled is false, sql/ says true",
        ),
        (
            "create or replace function validate_post_update() returns trigger language plpgsql as 'begin return new; end'",
            "function validate_post_update(): body is",
        ),
        (
            "alter function refresh_user_stats() security invoker",
            "function refresh_user_stats(): security definer is false, sql/ says true",
        ),
        ("drop function refresh_user_stats()", "function refresh_user_stats() is missing"),
        ("alter table users disable row level security", "table users: row-level security is false, sql/ says true"),
    ],
)  # fmt: skip
def test_a_difference_from_the_files_is_named(built: Session, statement: str, difference: str) -> None:
    plant(built, statement)
    verdict = schema_drift(built)
    assert (verdict.passed, verdict.only_restricting) == (False, False)
    assert [found for found in verdict.differences if found.startswith(difference)], verdict.differences


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "names"),
    [
        ("create table carts (id bigint generated always as identity primary key, owner uuid references users (id))",
         ["table carts"]),
        ("create table carts (id bigserial, day date) partition by range (day);"
         " create table carts_2026 partition of carts for values from ('2026-01-01') to ('2027-01-01');"
         " create index on carts (day)", ["table carts"]),
        ("create unlogged table base44_carts (id text); create view open_carts as select * from base44_carts",
         ["table open_carts"]),
        ("create materialized view posts_by_user as select user_id, count(*) as n from posts group by 1;"
         " create unique index on posts_by_user (user_id)", ["table posts_by_user"]),
        ("create index by_hand on users (display_name)", ["index users.by_hand"]),
        ("create index by_hand on posts (title)", ["index posts.by_hand"]),
        ("create function cart_total(uuid) returns bigint language sql as 'select 1'", ["function cart_total(uuid)"]),
        ("create procedure empty_carts() language sql as 'select 1'", ["function empty_carts()"]),
        ("create function transform_tags(integer) returns integer language sql as 'select 1'",
         ["function transform_tags(integer)"]),
        ("create type mood as enum ('a', 'b')", ["type mood"]),
        ("create domain positive as integer check (value > 0)", ["type positive"]),
        ("create type pair as (a integer, b text)", ["type pair"]),
        ("create type span as range (subtype = integer)", ["function span(integer, integer)"]),
        ("create sequence numbers", ["sequence numbers"]),
        ("create extension if not exists pg_trgm", []),
    ],
)  # fmt: skip
def test_what_the_application_makes_is_told_of_and_no_difference(
    built: Session, statement: str, names: list[str]
) -> None:
    plant(built, statement)
    verdict = schema_drift(built)
    assert (verdict.passed, verdict.differences, verdict.restricting) == (True, (), ())
    assert set(names) <= set(verdict.foreign)
    assert bool(names) == bool(verdict.foreign)


@pytest.mark.parametrize(
    ("statement", "name"),
    [
        ("alter table users add column nickname text", "column users.nickname"),
        ("alter table users add column rank integer not null default 1", "column users.rank"),
        ("alter table users add constraint chk_by_hand check (email <> 'x')", "constraint users.chk_by_hand"),
        ("create unique index by_hand on users (email, role)", "index users.by_hand"),
        ("create function by_hand() returns trigger language plpgsql as 'begin return new; end';"
         " create trigger by_hand before insert on posts for each row execute function by_hand()", "trigger posts.by_hand"),
    ],
)  # fmt: skip
def test_what_is_added_to_a_table_and_bears_on_its_rows_is_a_warning(built: Session, statement: str, name: str) -> None:
    plant(built, statement)
    verdict = schema_drift(built)
    assert (verdict.passed, verdict.only_restricting, verdict.restricting) == (False, True, (name,))
    assert f"{name} is not in sql/" in verdict.message()


def test_looking_for_drift_leaves_nothing_behind(shared: Session) -> None:
    query = (
        "select (select count(*) from pg_class) + (select count(*) from pg_proc) + (select count(*) from pg_namespace)"
    )
    before = value(shared, query)
    schema_drift(shared)
    assert value(shared, query) == before


# Vacuum and indexes


def test_an_index_that_repeats_another_is_named(built: Session) -> None:
    plant(built, "create index by_hand on users (role) where active = true")
    usage = index_usage(built, minimum_bytes=0, threshold=1.0)
    assert (usage.passed, usage.duplicates) == (False, (("by_hand", "idx_users_role"),))


def test_an_index_counts_as_unused_until_it_is_read_and_one_behind_a_constraint_never(built: Session) -> None:
    def unused() -> set[str]:
        return {index.name for index in index_usage(built).unused}

    assert "idx_users_role" in unused()
    assert "users_email_key" not in unused()
    with psycopg.connect(built.url, autocommit=True) as conn:
        conn.execute("set enable_seqscan = off")
        conn.execute("select count(*) from users where role = 'admin' and active = true")
        conn.execute("select pg_stat_force_next_flush()")
        conn.execute("select 1")
    assert "idx_users_role" not in unused()


def test_bloat_is_found_and_gone_after_a_rebuild(built: Session) -> None:
    plant(
        built,
        "create table ledger (id bigint, note text)",
        "insert into ledger select n, 'x' from generate_series(1, 40000) n",
        "create index idx_ledger_id on ledger (id)",
        "delete from ledger where id % 20 <> 0",
        "vacuum analyze ledger",
    )
    before = next(index for index in index_usage(built).indexes if index.name == "idx_ledger_id")
    assert before.bloat is not None and before.bloat > 0.8
    assert not index_usage(built, minimum_bytes=100_000).passed
    assert reindex_bloated(built, minimum_bytes=100_000) == ("idx_ledger_id",)
    after = next(index for index in index_usage(built).indexes if index.name == "idx_ledger_id")
    assert after.size < before.size / 5
    assert after.bloat is not None and after.bloat < 0.3
    assert value(built, "select count(*) from pg_index where not indisvalid") == 0
