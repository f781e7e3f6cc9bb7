"""Taking back: what a run or a month has put in is gone, what it changed is as it was, and nothing else is touched."""

from __future__ import annotations

from collections.abc import Generator
from datetime import date

import pytest

from b44_assets.errors import DatabaseError, SettingsError
from b44_assets.migration.rollback import RolledBackEntity, roll_back_month, roll_back_run
from tests.database.test_delta import NEW, article, person, sound
from tests.helpers.records import Record, object_id, uuid_of
from tests.helpers.target import Target

PEOPLE: list[Record] = [person(1, created_by_id=object_id(2)), person(2, username="anna"), person(3, username="anna")]
ARTICLES: list[Record] = [
    article(1, content="<b onclick=x>Long enough</b>", mood="glad"), article(2), article(3, created_date="2026-03-04"),
]  # fmt: skip


def first_run(target: Target) -> dict[str, list[str]]:
    target.having(run_id="run-first").migrate({"User": PEOPLE, "Post": ARTICLES})
    return target.state()


@pytest.fixture
def keyed(target_18: Target) -> Generator[Target]:
    """With foreign keys, as the constraint groups make them."""
    target_18.run("alter table users add constraint t1 foreign key (created_by) references users (id)")
    target_18.run("alter table posts add constraint t2 foreign key (user_id) references users (id) on delete cascade")
    yield target_18
    target_18.run("alter table users drop constraint t1")
    target_18.run("alter table posts drop constraint t2")


def test_a_run_taken_back_leaves_nothing_of_it(target: Target) -> None:
    first_run(target)
    undone = roll_back_run(target.session, "run-first")
    assert undone.entities == (RolledBackEntity("posts", 3, 0, 0, 0), RolledBackEntity("users", 3, 0, 0, 0))
    assert (target.table("posts"), target.table("users"), target.table("post_slugs")) == ([], [], [])
    for book in ("migrated", "repairs", "unmapped", "replaced"):
        assert target.table(book, schema="migration") == []


def test_what_was_taken_back_can_be_migrated_again(target_18: Target) -> None:
    expected = first_run(target_18)
    roll_back_run(target_18.session, "run-first")
    # Without their author the posts are orphans, until the next load of the users.
    assert target_18.all("select entity, pending, quarantined from migration.accounting order by 1") == [
        ("posts", 0, 3), ("users", 3, 0),
    ]  # fmt: skip
    target_18.load("users")
    target_18.load("posts")
    assert target_18.state() == expected
    sound(target_18, "users", "posts")


def test_a_newer_export_taken_back_restores_what_it_changed(target: Target) -> None:
    first_run(target)
    rows = {table: target.outcome(table).rows for table in ("users", "posts")}
    ledger = {table: (target.outcome(table).repairs, target.outcome(table).unmapped) for table in ("users", "posts")}
    slugs = sorted(str(row) for row in target.table("post_slugs"))
    target.having(run_id="run-second").migrate(
        {
            "User": [
                person(1, NEW, email="user2@example.com"), person(2, NEW, email="user1@example.com"), PEOPLE[2], person(4),
            ],
            "Post": [article(1, NEW, title="Moved", created_date="2026-07-01"), article(2, NEW, mood="sad"), ARTICLES[2], article(4)],
        }
    )  # fmt: skip
    undone = roll_back_run(target.session, "run-second")
    assert undone.entities == (RolledBackEntity("posts", 1, 2, 0, 0), RolledBackEntity("users", 1, 2, 0, 0))
    for table, found in rows.items():
        assert target.outcome(table).rows == found
        assert (target.outcome(table).repairs, target.outcome(table).unmapped) == ledger[table]
    assert sorted(str(row) for row in target.table("post_slugs")) == slugs


def test_a_run_can_be_taken_back_when_a_newer_export_is_staged_already(target_18: Target) -> None:
    first_run(target_18)
    target_18.write({"Post": [article(1), article(2)]})
    target_18.stage("posts")
    undone = roll_back_run(target_18.session, "run-first")
    assert undone.entities == (RolledBackEntity("posts", 3, 0, 0, 0), RolledBackEntity("users", 3, 0, 0, 0))


def test_a_month_taken_back_is_that_month(target_18: Target) -> None:
    expected = first_run(target_18)
    undone = roll_back_month(target_18.session, date(2026, 2, 1))
    assert undone.entities == (RolledBackEntity("posts", 2, 0, 0, 0),)
    assert [row["title"] for row in target_18.table("posts")] == ["Title 3"]
    assert target_18.load("posts").inserted == 2
    assert target_18.state() == expected


@pytest.mark.parametrize("edit", ["title = 'Mine'", "created_at = created_at + interval '1 month'"])
def test_rows_edited_since_are_left_alone_and_so_is_what_they_stand_on(keyed: Target, edit: str) -> None:
    first_run(keyed)
    keyed.run(f"update posts set {edit}, updated_at = now() where id = '{uuid_of(object_id(1))}'")
    undone = roll_back_run(keyed.session, "run-first")
    assert undone.entities == (RolledBackEntity("posts", 2, 0, 1, 0), RolledBackEntity("users", 1, 0, 0, 2))
    assert [row["id"] for row in keyed.table("posts")] == [uuid_of(object_id(1))]
    # Its author stays, and the author's creator with them.
    assert {row["id"] for row in keyed.table("users")} == {uuid_of(object_id(n)) for n in (1, 2)}
    keyed.load("users")
    keyed.load("posts")
    sound(keyed, "posts", "users")


def test_an_unknown_run_is_named(target_18: Target) -> None:
    first_run(target_18)
    with pytest.raises(DatabaseError, match="no run run-third"):
        roll_back_run(target_18.session, "run-third")


def test_a_run_may_be_named_by_its_beginning_if_that_is_one_run_only(target_18: Target) -> None:
    target_18.having(run_id="0123456789-a").migrate({"User": PEOPLE})
    target_18.having(run_id="0123456789-b").migrate({"User": [*PEOPLE, person(5)]})
    with pytest.raises(SettingsError, match="may be any of 0123456789-a, 0123456789-b"):
        roll_back_run(target_18.session, "0123456789")
    roll_back_run(target_18.session, "0123456789-b")
    assert len(target_18.table("users")) == 3
