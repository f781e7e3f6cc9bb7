"""The loop over `migrate_users_batch` and `migrate_posts_batch` from psql moves what `b44 migrate` moves."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

import pytest
from psycopg import errors

from b44_assets.config.quantities import QuarantineLimit
from b44_assets.migration.pipeline import plan_again
from tests.helpers.records import Record, object_id, post, user
from tests.helpers.target import Target

USERS = [
    *(user(number) for number in range(1, 8)),
    user(8, created_by_id=object_id(2)),
    user(9, email="not an address"),
    user(1),
]
CATEGORIES = [{"id": object_id(number), "name": f"Category {number}"} for number in (1, 2, 3)]
POSTS = [
    *(
        post(
            number,
            title=f"The same {number % 3}",
            user_id=object_id(number % 8 + 1),
            category_id=object_id(number % 4 + 1),
            created_date=f"2024-{number % 5 + 1:02d}-07T08:00:00Z",
        )
        for number in range(1, 40)
    ),
    post(40, user_id=object_id(9)),
    post(41, user_id=object_id(99)),
    post(42, tags="[not json"),
]
RECORDS: Mapping[str, Sequence[Record]] = {"Category": CATEGORIES, "User": USERS, "Post": POSTS}


def staged(target: Target, records: Mapping[str, Sequence[Record]]) -> None:
    """Exports staged, and planned as long as nothing was migrated."""
    target.write(records)
    for table, mapping in target.session.catalog.mappings.items():
        if mapping.entity in records:
            target.stage(table)
    plan_again(target.session)


def left_by(target: Target) -> dict[str, list[str]]:
    """All that a migration leaves, but for the numbers of its batches."""
    return {
        name: [re.sub(r"'updated_batch': \d+", "'updated_batch': 'some'", row) for row in rows]
        for name, rows in target.state().items()
    }


def loop(target: Target, table: str, size: int = 7) -> int:
    moved = 0
    while batch := target.one(f"select migrate_{table}_batch({size})"):
        moved += batch
    return moved


def test_the_loop_over_both_moves_what_the_program_moves(target: Target) -> None:
    target.migrate(RECORDS)
    wanted = left_by(target)
    target.reset()
    staged(target, RECORDS)
    assert loop(target, "users") == 8
    assert loop(target, "posts") == 39
    assert left_by(target) == wanted


def test_posts_first_brings_what_they_point_to(target_18: Target) -> None:
    target_18.migrate(RECORDS)
    wanted = left_by(target_18)
    target_18.reset()
    staged(target_18, RECORDS)
    assert loop(target_18, "posts") == 39
    assert loop(target_18, "users") == 0
    assert left_by(target_18) == wanted


def test_a_newer_export_is_moved_by_the_loop_as_by_the_program(target: Target) -> None:
    newer: Mapping[str, Sequence[Record]] = {
        "Category": CATEGORIES,
        "User": [*USERS[1:], user(9, email="now@example.com", updated_date="2030-01-01T00:00:00Z"), user(10)],
        "Post": [
            *(
                {**one, "content": "Another text than before.", "updated_date": "2030-01-01T00:00:00Z"}
                for one in POSTS[:5]
            ),
            *POSTS[8:],
            post(43, user_id=object_id(10)),
        ],
    }
    target.migrate(RECORDS)
    target.migrate(newer)
    wanted = left_by(target)
    target.reset()
    target.migrate(RECORDS)
    staged(target, newer)
    loop(target, "users")
    loop(target, "posts")
    assert left_by(target) == wanted
    retained = "select reason, count(*) from migration.retained where entity = 'posts' group by 1"
    assert dict(target.all(retained)) == {"vanished": 3}


def test_the_program_has_nothing_to_do_after_the_loop(target_18: Target) -> None:
    staged(target_18, RECORDS)
    loop(target_18, "users")
    loop(target_18, "posts")
    done = target_18.load("posts")
    assert not done.plan.changed
    assert done.inserted == 0


def test_what_is_migrated_by_hand_stays_below_the_limit_of_the_run_that_planned_it(target_18: Target) -> None:
    target_18.write(RECORDS)
    target_18.stage("users")
    target_18.load("users")
    target_18.stage("posts")
    target_18.having(max_quarantine=QuarantineLimit(count=5)).load("posts")
    target_18.run("delete from users where id = base44_uuid(%s)", object_id(2))
    target_18.run("delete from migration.migrated where entity = 'users' and base44_id = %s", object_id(2))
    with pytest.raises(errors.RaiseException):
        target_18.one("select migrate_posts_batch(1000)")
    assert target_18.one("select count(*) from migration.quarantine where entity = 'posts'") == 3
