"""A database whose migration tables are gone, by `finish` or by hand: all that stays goes on."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest

from b44_assets.catalog import WITHOUT_OBJECT, Kind
from b44_assets.errors import NotFinishedError
from b44_assets.maintenance.index_maintenance import index_usage, reindex_bloated
from b44_assets.maintenance.query_plans import queries_of, query_plans
from b44_assets.migration.accounts import accounts
from b44_assets.migration.finish import (
    DEPENDENTS,
    SCHEMAS,
    CheckResult,
    drop_migration_tables,
    migration_state,
    note_checks,
    require_finishable,
)
from b44_assets.schema.build import build
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import (
    constraints_valid,
    foreign_keys_hold,
    indexes_valid,
    view_equals_query,
    view_fresh,
)
from b44_assets.schema.partition_checks import check_bounds, check_global_ids
from b44_assets.schema.row_checks import violations
from b44_assets.schema.runtime import install_runtime
from b44_assets.session import Session

ARCHIVED_AT = datetime(2026, 11, 1, 12, tzinfo=UTC)


def rows(session: Session, query: str, *params: object) -> list[tuple[Any, ...]]:
    with psycopg.connect(session.url, autocommit=True) as conn:
        cursor = conn.execute(query.encode(), params or None)
        return cursor.fetchall() if cursor.description is not None else []


def drop_by_finish(session: Session) -> None:
    drop_migration_tables(session, "20261101T120000Z-migration", ARCHIVED_AT, lambda conn: [])


def drop_by_hand(session: Session) -> None:
    rows(session, "drop schema migration cascade")
    rows(session, "drop schema base44 cascade")


@pytest.fixture(params=[drop_by_finish, drop_by_hand])
def over(request: pytest.FixtureRequest, built: Session) -> Session:
    """The migration is over."""
    drop: Callable[[Session], None] = request.param
    install_runtime(built)
    drop(built)
    return built


def test_nothing_depends_on_the_schemas_of_the_migration(built: Session) -> None:
    with psycopg.connect(built.url) as conn:
        assert conn.execute(DEPENDENTS.encode(), {"schemas": list(SCHEMAS)}).fetchall() == []


def test_what_depends_on_them_is_found_whatever_it_is(built: Session) -> None:
    rows(built, "create view public.refused as select * from migration.quarantine")
    rows(built, "create table public.notes (id bigint default nextval('migration.batch_number'))")
    rows(
        built,
        "create function public.pending() returns bigint language sql return (select count(*) from migration.quarantine)",
    )
    with psycopg.connect(built.url) as conn:
        found = [row[0] for row in conn.execute(DEPENDENTS.encode(), {"schemas": list(SCHEMAS)}).fetchall()]
    assert found == ["function pending()", "table notes", "view refused"]


def test_no_function_that_stays_reads_the_migration_tables_unasked(over: Session) -> None:
    found = rows(
        over,
        r"select proname from pg_proc p join pg_namespace n on n.oid = p.pronamespace where nspname in ('public', 'b44')"
        r" and prosrc ~ '\m(migration|base44)\.' and prosrc !~ 'to_reg(class|procedure)\(''migration\.' order by 1",
    )
    assert found == []


def test_the_functions_for_the_application_go_on(over: Session) -> None:
    [(author,)] = rows(over, "select id from users where active and email_verified order by id limit 1")
    for call in (
        "select migrate_users_batch(10)",
        "select migrate_posts_batch(10)",
    ):
        assert rows(over, call) == [(0,)], call
    rows(
        over,
        "insert into posts (user_id, created_by, title, content, published, published_at, created_at)"
        " values (%s, %s, 'A title of now', 'Content of more than ten characters', true, now(), now() + interval '3 years')",
        author,
        author,
    )
    for call in (
        "select generate_post_slug('A title of now')",
        "select create_monthly_partition(date '2031-05-01')",
        "call drain_default_partition('posts')",
        "select manage_partitions()",
        "select refresh_user_stats()",
        "select * from get_posts_paginated(5)",
        "select transform_user_role('admin'), transform_tags('a, b')",
        "select base44_uuid('68485c24a40b7b6f7e5c4b3a'), base44_object_id(base44_uuid('68485c24a40b7b6f7e5c4b3a'))",
        "update posts set title = 'Another title of now', updated_at = now() where title = 'A title of now'",
        "delete from posts where title = 'Another title of now'",
    ):
        rows(over, call)


def test_every_check_that_needs_no_record_passes(over: Session) -> None:
    catalog = over.catalog
    verdicts: dict[str, Any] = {
        "drift": schema_drift(over),
        "slugs": violations(over, over.catalog.checks["slugs_registered"]),
        "usage": index_usage(over),
    }
    for spec in catalog.of(Kind.TABLE):
        verdicts[f"constraints of {spec.name}"] = constraints_valid(over, spec.name)
        verdicts[f"indexes of {spec.name}"] = indexes_valid(over, spec.name)
        verdicts[f"foreign keys of {spec.name}"] = foreign_keys_hold(over, spec.name)
        if queries_of(catalog, spec.name):
            verdicts[f"plans of {spec.name}"] = query_plans(over, spec.name)
    for spec in catalog.of(Kind.PARTITION):
        verdicts[f"bounds of {spec.name}"] = check_bounds(over, spec.options["on"])
    verdicts["ids"] = check_global_ids(over, "posts")
    for spec in catalog.materialized_views:
        verdicts[f"freshness of {spec.name}"] = view_fresh(over, spec)
        verdicts[f"rows of {spec.name}"] = view_equals_query(over, spec)
    assert {name: verdict.message() for name, verdict in verdicts.items() if not verdict.passed} == {}


def test_the_upkeep_goes_on(over: Session) -> None:
    reindex_bloated(over)
    state = migration_state(over)
    kinds = [kind for kind in Kind if kind not in WITHOUT_OBJECT]
    for spec in over.catalog.of(*kinds):
        if state.finished_at is not None or spec.kind not in (Kind.RUNTIME, Kind.FUNCTION):
            build(over, spec)
    # What was finished stays so.
    assert migration_state(over).present is False
    assert migration_state(over).over


def test_the_state_says_what_became_of_the_migration(built: Session) -> None:
    assert not migration_state(built).over
    install_runtime(built)
    drop_by_finish(built)
    state = migration_state(built)
    assert (state.present, state.archive, state.archived_at) == (False, "20261101T120000Z-migration", ARCHIVED_AT)
    assert state.whereabouts() == "migration tables archived on 2026-11-01 as 20261101T120000Z-migration"


def test_migration_tables_that_were_dropped_by_hand_are_missed(built: Session) -> None:
    # A database of before schema b44.
    drop_by_hand(built)
    state = migration_state(built)
    assert (state.over, state.finished_at, state.dropped) == (True, None, True)


def test_an_empty_database_is_no_finished_one(loaded: Session) -> None:
    drop_by_hand(loaded)
    rows(loaded, "truncate users, categories, posts, events, user_preferences, user_sessions, audit_logs cascade")
    assert not migration_state(loaded).over


def test_nothing_is_dropped_where_it_differs_from_the_archive(built: Session) -> None:
    with pytest.raises(NotFinishedError, match="one row more"):
        drop_migration_tables(built, "x", ARCHIVED_AT, lambda conn: ["one row more"])
    assert migration_state(built).present


def passed(session: Session) -> None:
    note_checks(
        session, [CheckResult(account.entity, "content_parity", "passed", "equal") for account in accounts(session)]
    )


@pytest.mark.parametrize(
    ("statement", "says"),
    [
        ("update migration.plans set to_migrate = to_migrate + 1 where entity = 'users'", "wait for their batch"),
        ("update migration.exports set staged_at = now() + interval '1 day' where entity = 'posts'", "posts is staged"),
        ("create view public.refused as select * from migration.quarantine", "view refused depends"),
        (
            "update b44.check_results set outcome = 'failed', said = '3 rows differ' where asset = 'posts'",
            "3 rows differ",
        ),
        ("delete from b44.check_results where asset = 'posts'", "posts were never verified"),
    ],
)
def test_a_migration_with_something_left_to_do_is_not_finished(built: Session, statement: str, says: str) -> None:
    passed(built)
    require_finishable(built, accept_quarantine=True)
    rows(built, statement)
    with pytest.raises(NotFinishedError, match=says):
        require_finishable(built, accept_quarantine=True)


def test_quarantine_and_failed_checks_are_given_up_only_when_asked(built: Session) -> None:
    passed(built)
    with pytest.raises(NotFinishedError, match="--accept-quarantine"):
        require_finishable(built)
    note_checks(built, [CheckResult("posts", "row_parity", "failed", "2 rows are missing")])
    with pytest.raises(NotFinishedError, match="2 rows are missing"):
        require_finishable(built, accept_quarantine=True)
    require_finishable(built, accept_quarantine=True, accept_failed_checks=True)


def test_functions_of_a_database_of_before_are_mended_in_place(built: Session) -> None:
    rows(
        built,
        "create or replace function migrate_users_batch(batch_size integer default 1000) returns integer"
        " language sql return migration.next_batch('users', batch_size)",
    )
    spec = next(spec for spec in built.catalog.of(Kind.FUNCTION) if spec.name == "batch_functions")
    build(built, spec)
    drop_by_hand(built)
    assert rows(built, "select migrate_users_batch(10)") == [(0,)]
