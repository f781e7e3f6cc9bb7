"""When a view was filled is known whatever becomes of its comment, of any view, and after an upgrade in place."""

from __future__ import annotations

import shutil
import uuid
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from b44_assets.catalog import Spec, load_catalog
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import view_fresh
from b44_assets.schema.runtime import install_runtime
from b44_assets.schema.views import apply_view, refresh
from b44_assets.session import Session
from tests.schema.test_online_schema import execute, spec, value
from tests.schema.test_run_by_hand import run_by_hand

WITHOUT_COMMENT = """-- Users by role. Of ours.
-- depends: users

create materialized view if not exists users_by_role as
select role, count(*) as users from users group by role;

create unique index if not exists idx_users_by_role on users_by_role (role);
"""


@pytest.fixture
def two_views(built: Session, tmp_path: Path) -> Session:
    """A session with a second view, which has no comment."""
    root = Path(shutil.copytree(built.catalog.root, tmp_path / "sql"))
    (root / "views" / "users_by_role.sql").write_text(WITHOUT_COMMENT)
    session = replace(built, catalog=load_catalog(root))
    apply_view(session, spec(session, "users_by_role"))
    return session


def views(session: Session) -> tuple[Spec, ...]:
    return session.catalog.materialized_views


def all_is_well(session: Session) -> None:
    for view in views(session):
        verdict = view_fresh(session, view)
        assert verdict.passed, verdict.message()
        assert verdict.refreshed_at is not None
    verdict = schema_drift(session)
    assert verdict.passed, verdict.message()


def test_a_view_without_a_comment_is_all_right_however_often_it_is_refreshed(two_views: Session) -> None:
    all_is_well(two_views)
    for view in views(two_views):
        before = view_fresh(two_views, view).refreshed_at
        refresh(two_views, view)
        after = view_fresh(two_views, view).refreshed_at
        assert before is not None and after is not None and after > before
        apply_view(two_views, view)
    all_is_well(two_views)
    assert value(two_views, "select obj_description('users_by_role'::regclass)") is None


def test_running_the_file_by_hand_leaves_known_when_the_view_was_filled(two_views: Session) -> None:
    before = [view_fresh(two_views, view).refreshed_at for view in views(two_views)]
    run_by_hand(two_views.url, [view.path for view in views(two_views)])
    assert [view_fresh(two_views, view).refreshed_at for view in views(two_views)] == before
    all_is_well(two_views)


@pytest.mark.parametrize("comment", ["'Of the owner'", "null"])
def test_a_comment_of_the_owner_s_on_what_has_none_in_its_file_is_no_drift(two_views: Session, comment: str) -> None:
    with psycopg.connect(two_views.url, autocommit=True) as conn:
        for what in (
            "materialized view users_by_role",
            "column users_by_role.role",
            "index idx_users_by_role",
            "constraint chk_users_role_valid on users",
            "trigger trg_validate_post_update on posts",
        ):
            conn.execute(f"comment on {what} is {comment}".encode())
    all_is_well(two_views)


def test_what_an_earlier_version_noted_in_comments_counts_until_the_next_migration_takes_it_out(
    two_views: Session,
) -> None:
    moment = datetime(2026, 5, 4, 3, 2, 1, 123456, tzinfo=UTC)
    note = f", as of {moment:%Y-%m-%d %H:%M:%S.%f} UTC"
    execute(
        two_views,
        "drop table b44.view_refreshes",
        f"comment on materialized view user_post_stats is 'Posts of each user in numbers{note}'",
        f"comment on materialized view users_by_role is '{note}'",
    )
    assert [view_fresh(two_views, view).refreshed_at for view in views(two_views)] == [moment, moment]
    assert schema_drift(two_views).passed
    install_runtime(two_views)
    for view in views(two_views):
        assert not apply_view(two_views, view).changed
        assert view_fresh(two_views, view).refreshed_at is None
        refresh(two_views, view)
    all_is_well(two_views)
    assert value(two_views, "select obj_description('users_by_role'::regclass)") is None
    assert (
        value(two_views, "select obj_description('user_post_stats'::regclass)")
        == "Posts of each user in numbers, as of the last refresh"
    )


def test_the_later_of_two_notes_counts(built: Session) -> None:
    # A function of an earlier version, called after one of this version.
    (view,) = views(built)
    later = datetime.now(UTC) + timedelta(hours=1)
    execute(built, f"comment on materialized view user_post_stats is 'Mine, as of {later:%Y-%m-%d %H:%M:%S.%f} UTC'")
    assert view_fresh(built, view).refreshed_at == later


def test_a_changed_comment_is_brought_into_the_database(built: Session) -> None:
    execute(
        built,
        "comment on materialized view user_post_stats is 'Mine'",
        "comment on column user_post_stats.user_id is null",
    )
    assert not schema_drift(built).passed
    (view,) = views(built)
    apply_view(built, view)
    all_is_well(built)


def test_statistics_are_refreshed_by_whoever_owns_the_view_and_where_there_is_no_note_to_write(built: Session) -> None:
    role = f"view_owner_{uuid.uuid4().hex}"
    with psycopg.connect(built.url, autocommit=True) as conn:
        said: list[str] = []
        conn.add_notice_handler(lambda notice: said.append(notice.message_primary or ""))

        def run(*statements: str) -> None:
            for statement in statements:
                conn.execute(statement.encode())

        run(f"create role {role}")
        try:
            run(
                f"grant all on schema public to {role}",
                f"grant select on posts to {role}",
                f"grant execute on all functions in schema public, b44 to {role}",
                f"alter materialized view user_post_stats owner to {role}",
                # It acts with its owner's rights.
                f"alter function refresh_user_stats() owner to {role}",
                f"grant usage on schema b44 to {role}",
                f"set role {role}",
                "select refresh_user_stats()",
            )
            assert said == [f"user_post_stats was refreshed, but {role} may not note it"]
            run("reset role", "drop table b44.view_refreshes", "select refresh_user_stats()")
        finally:
            run("reset role", f"reassign owned by {role} to current_user", f"drop owned by {role}", f"drop role {role}")
