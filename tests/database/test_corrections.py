"""Quarantined records that were corrected: migrated once, by the same rules, and remembered for newer exports."""

from __future__ import annotations

import json
from typing import Any

import pytest

from b44_assets.config.quantities import QuarantineLimit
from b44_assets.errors import DatabaseError, ThresholdError
from b44_assets.migration.replays import Replay, corrected_records, replay_of
from b44_assets.migration.rollback import roll_back_run
from tests.database.test_delta import NEW, article, person, sound
from tests.helpers.records import Record, object_id, post, uuid_of
from tests.helpers.target import Target

BROKEN = {"User": [person(1), person(2, email="nonsense", bio="b")], "Post": [article(1, title=None), article(2)]}


def edit(target: Target, table: str, **changes: object) -> None:
    """Sets fields of the one quarantined record of a table."""
    target.run(
        "update migration.quarantine set record = record || %s::jsonb where entity = %s and replayed_at is null",
        json.dumps(changes),
        table,
    )


def quarantine(target: Target, table: str) -> list[tuple[Any, ...]]:
    return target.all(
        "select base44_id, reasons, replayed_at is not null from migration.quarantine where entity = %s order by id",
        table,
    )


def test_a_corrected_record_is_migrated_once(target: Target) -> None:
    target.migrate(BROKEN)
    edit(
        target,
        "posts",
        title="  Now with a title ",
        content="<b onclick=x>Long enough</b>",
        tags=["a", "b"],
        view_count=7,
    )
    assert target.load("posts").inserted == 1
    row = target.outcome("posts").rows[object_id(1)]
    assert (row["title"], row["content"], row["tags"], row["view_count"]) == (
        "Now with a title", "<b>Long enough</b>", ["a", "b"], 7,
    )  # fmt: skip
    assert quarantine(target, "posts") == [(object_id(1), ["missing_title"], True)]
    account = target.outcome("posts").account
    assert (account["read"], account["migrated"], account["quarantined"], account["unaccounted"]) == (2, 2, 0, 0)
    before = target.state()
    assert target.load("posts").inserted == 0
    assert target.state() == before
    sound(target, "posts")


def test_a_record_that_is_still_unsound_stays_with_its_new_reasons(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    edit(target_18, "posts", title="A title", content="short")
    assert target_18.load("posts").inserted == 0
    assert quarantine(target_18, "posts") == [(object_id(1), ["short_content"], False)]
    edit(target_18, "posts", content="Long enough now")
    assert target_18.load("posts").inserted == 1
    assert target_18.outcome("posts").rows[object_id(1)]["title"] == "A title"
    sound(target_18, "posts")


def test_a_corrected_record_that_the_server_refuses_stands_there_once(target: Target) -> None:
    target.migrate(BROKEN)
    target.run("alter table users add constraint no_wrong check (email <> 'wrong@example.com')")
    try:
        edit(target, "users", email="wrong@example.com")
        assert target.load("users").inserted == 0
        assert quarantine(target, "users") == [(object_id(2), ["refused:no_wrong"], False)]
        edit(target, "users", email="right@example.com")
        assert target.load("users").inserted == 1
        assert quarantine(target, "users") == [(object_id(2), ["refused:no_wrong"], True)]
        sound(target, "users")
    finally:
        target.run("alter table users drop constraint no_wrong")


def test_a_correction_may_be_taken_back_and_another_one_made(target_18: Target) -> None:
    target_18.migrate(
        {"User": [person(n, email=f"{n}@example.com") for n in (1, 2)] + [person(3, email="1@example.com")]}
    )
    for address in ("2@example.com", "1@example.com", "2@example.com", "1@example.com"):
        edit(target_18, "users", email=address)
        assert target_18.load("users").inserted == 0
        assert target_18.one("select record ->> 'email' from migration.quarantine") == address
        assert quarantine(target_18, "users") == [(object_id(3), ["duplicate_email"], False)]
    edit(target_18, "users", email="3@example.com")
    assert target_18.load("users").inserted == 1
    # The last word counts for the record as it was exported, too.
    path = target_18.export / "User.jsonl"
    path.write_text(path.read_text() + "\n")
    target_18.stage("users")
    assert target_18.load("users").plan.unchanged == 3
    sound(target_18, "users")


def test_the_last_word_on_what_a_record_is_counts(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    edit(target_18, "users", email="right@example.com")
    target_18.load("users")
    target_18.migrate({"User": [person(1), person(2, NEW, email="rubbish")]})
    # As it was at first, on purpose; it was corrected to something else then.
    target_18.run(
        "update migration.quarantine set record = %s where entity = 'users' and replayed_at is null",
        json.dumps(BROKEN["User"][1]),
    )
    target_18.load("users")
    assert (
        target_18.one(
            "select record ->> 'email' from migration.quarantine where entity = 'users' and replayed_at is null"
        )
        == "nonsense"
    )


def test_a_correction_holds_for_the_same_record_in_a_newer_export(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    edit(target_18, "users", email="Right@Example.com")
    target_18.load("users")
    done = target_18.migrate({**BROKEN, "User": [*BROKEN["User"], person(3)]})
    assert (done["users"].inserted, done["users"].plan.quarantined) == (1, 0)
    assert target_18.outcome("users").rows[object_id(2)]["email"] == "right@example.com"
    sound(target_18, "users")


def test_a_newer_version_of_the_record_goes_before_the_correction(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    edit(target_18, "users", email="right@example.com")
    target_18.load("users")
    target_18.migrate({"User": [person(1), person(2, NEW, email="newer@example.com", bio="b")]})
    assert target_18.outcome("users").rows[object_id(2)]["email"] == "newer@example.com"


def test_a_correction_that_nobody_replayed_survives_a_newer_export(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    edit(target_18, "users", email="right@example.com")
    target_18.migrate({"User": [*BROKEN["User"], person(3)]})
    assert target_18.outcome("users").rows[object_id(2)]["email"] == "right@example.com"


def test_a_correction_that_nobody_replayed_survives_a_new_plan(target_18: Target) -> None:
    target_18.migrate({"User": [person(1)], "Post": [article(1, user_id=object_id(2)), article(2, title=None)]})
    target_18.run(
        "update migration.quarantine set record = record || %s::jsonb where entity = 'posts' and base44_id = %s",
        '{"title": "A title"}',
        object_id(2),
    )
    target_18.migrate({"User": [person(1), person(2)]})
    from b44_assets.migration.plan import make_plan

    make_plan(target_18.session, target_18.session.catalog.mappings["posts"])
    assert (
        target_18.one("select record ->> 'title' from migration.quarantine where base44_id = %s", object_id(2))
        == "A title"
    )
    assert target_18.load("posts").inserted == 2
    sound(target_18, "posts")


def test_a_record_that_was_emptied_can_be_corrected_again(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    target_18.run("update migration.quarantine set record = '{}' where entity = 'users'")
    assert target_18.load("users").inserted == 0
    assert quarantine(target_18, "users") == [(None, ["missing_id", "missing_email"], False)]
    target_18.run("update migration.quarantine set record = %s where entity = 'users'", json.dumps(person(2)))
    assert target_18.load("users").inserted == 1
    sound(target_18, "users")


def test_what_is_still_unsound_for_the_limit_can_be_corrected_further(target_18: Target) -> None:
    target_18.migrate(BROKEN)
    edit(target_18, "posts", view_count=7, tags=["a"])
    strict = target_18.having(max_quarantine=QuarantineLimit(count=0))
    for changes in ({"content": "x"}, {"content": "y"}):
        with pytest.raises(ThresholdError):
            strict.load("posts")
        edit(target_18, "posts", **changes)
    edit(target_18, "posts", title="A title", content="Long enough now")
    assert strict.load("posts").inserted == 1
    assert (row := target_18.outcome("posts").rows[object_id(1)])["view_count"] == 7
    assert (row["title"], row["tags"]) == ("A title", ["a"])
    sound(target_18, "posts")


def test_a_correction_is_not_lost_when_the_run_is_taken_back(target_18: Target) -> None:
    target_18.run("alter table users add constraint no_wrong check (email <> 'wrong@example.com')")
    try:
        target_18.having(run_id="run-first").migrate({"User": [person(1), person(2, email="wrong@example.com")]})
        edit(target_18, "users", email="right@example.com")
        roll_back_run(target_18.session, "run-first")
        assert target_18.load("users").inserted == 2
        assert target_18.outcome("users").rows[object_id(2)]["email"] == "right@example.com"
        sound(target_18, "users")
    finally:
        target_18.run("alter table users drop constraint no_wrong")


def test_what_a_crash_has_emptied_is_not_filled_with_corrections(target_18: Target) -> None:
    path = target_18.export / "User.jsonl"
    path.write_text(f'{json.dumps(person(1))}\n{{"id": "broken", "email":\n', "utf-8")
    target_18.stage("users")
    target_18.load("users")
    target_18.run("update migration.quarantine set record = %s", json.dumps(person(2)))
    target_18.run("truncate base44.users")
    with pytest.raises(DatabaseError, match="are gone"):
        target_18.load("users")
    target_18.stage("users")
    assert target_18.load("users").inserted == 1
    assert target_18.one("select unaccounted from migration.accounting where entity = 'users'") == 0
    sound(target_18, "users")


@pytest.mark.parametrize("bad", ['{"id": "broken", "email":', '{"id": "nul", "email": "a\\u0000b"}'])
def test_a_record_that_could_not_be_staged_can_be_corrected(target: Target, bad: str) -> None:
    path = target.export / "User.jsonl"
    path.write_text(f"{json.dumps(person(1))}\n{bad}\n", "utf-8")
    target.stage("users")
    target.load("users")
    target.run(
        "update migration.quarantine set record = %s::jsonb where entity = 'users'",
        json.dumps(person(2, nickname="Bo")),
    )
    assert target.load("users").inserted == 1
    outcome = target.outcome("users")
    assert outcome.rows[object_id(2)]["id"] == uuid_of(object_id(2))
    assert outcome.unmapped[object_id(2)] == {"nickname": "Bo"}
    assert (outcome.account["quarantined"], outcome.account["unaccounted"]) == (0, 0)
    sound(target, "users")


def test_an_id_can_be_corrected(target_18: Target) -> None:
    nameless: Record = {**post(5), "id": None}
    target_18.migrate({"User": [person(1)], "Post": [nameless, article(2)]})
    edit(target_18, "posts", id=object_id(5))
    assert target_18.load("posts").inserted == 1
    assert quarantine(target_18, "posts") == [(object_id(5), ["missing_id"], True)]
    sound(target_18, "posts")


@pytest.mark.parametrize(("base44_id", "change"), [(None, {"id": object_id(5)}), (object_id(5), {"title": "A title"})])
def test_repeats_of_a_record_are_corrected_as_it_is(
    target_18: Target, base44_id: str | None, change: dict[str, str]
) -> None:
    twin: Record = {**article(5, title=None if base44_id else "A title"), "id": base44_id}
    target_18.migrate({"User": [person(1)], "Post": [twin, article(2), twin]})
    assert target_18.outcome("posts").account["deduplicated"] == 1
    edit(target_18, "posts", **change)
    assert target_18.load("posts").inserted == 1
    account = target_18.outcome("posts").account
    assert (account["migrated"], account["deduplicated"], account["quarantined"]) == (2, 1, 0)
    before = target_18.state()
    target_18.load("posts")
    assert target_18.state() == before
    sound(target_18, "posts")


def test_keys_that_stand_more_than_once_are_told_of_as_they_are_in_a_newer_version_and_in_a_correction(
    target_18: Target,
) -> None:
    def session(updated: str, **fields: object) -> Record:
        return {
            "id": object_id(5), "user_id": object_id(1), "created_date": "2026-01-02", "updated_date": updated,
            "expires_at": "2026-03-03", **fields,
        }  # fmt: skip

    def repeated() -> list[tuple[Any, ...]]:
        return target_18.all("select rule, original, replacement from migration.repairs where entity = 'user_sessions'")

    twice, once = '{"a":1,"a":2}', '{"a":3}'
    people = [person(1)]
    target_18.migrate({"User": people, "UserSession": [session("2026-01-03", session_data=once)]})
    assert repeated() == []
    target_18.migrate({"User": people, "UserSession": [session("2026-01-04", session_data=twice)]})
    assert repeated() == [("repeated_key", twice, '{"a": 2}')]
    target_18.migrate({"User": people, "UserSession": [session("2026-01-05", session_data=once)]})
    assert repeated() == []
    broken = {**session("2026-01-06", session_data=once), "id": object_id(6), "expires_at": "never"}
    target_18.migrate({"User": people, "UserSession": [broken]})
    edit(target_18, "user_sessions", expires_at="2026-03-03", session_data=twice)
    assert target_18.load("user_sessions").inserted == 1
    assert repeated() == [("repeated_key", twice, '{"a": 2}')]
    sound(target_18, "user_sessions")


# -- what a replay has come to -----------------------------------------------------------------------------------------

REFUSED = {
    "User": [person(1), person(2, email="nonsense")],
    "Post": [article(n, title=None) for n in (1, 2, 3)] + [article(4)],
}


def replayed(target: Target, *tables: str) -> Replay:
    corrected = corrected_records(target.session, tables or None)
    for table in tables or ("users", "posts"):
        target.load(table)
    return replay_of(target.session, corrected)


def test_a_replay_tells_what_was_migrated_and_why_the_others_are_refused_again(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    for number, change in (
        (1, {"title": "Sound now"}),
        (2, {"title": "A title", "content": "short"}),
        (3, {"id": "?"}),
    ):
        target_18.run(
            "update migration.quarantine set record = record || %s::jsonb where entity = 'posts' and base44_id = %s",
            json.dumps(change),
            object_id(number),
        )
    replay = replayed(target_18)
    assert (replay.corrected, replay.migrated, replay.left) == (3, 1, 0)
    assert {(one.base44_id, one.reasons) for one in replay.refused} == {
        (object_id(2), ("short_content",)),
        ("?", ("missing_title",)),
    }
    assert replay.message() == (
        "corrected 3, migrated 1, refused again 2: posts short_content; posts missing_title"
    ) or replay.message().endswith("posts missing_title; posts short_content")
    # What was told once is not told again.
    assert replayed(target_18) == Replay(0, 0, ())


def test_a_replay_without_corrections_says_so(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    assert replayed(target_18) == Replay(0, 0, ())
    assert replayed(target_18).message() == "nothing was corrected in quarantine since the last replay"


def test_a_replay_of_a_table_leaves_the_corrections_of_others_to_the_next(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    edit(target_18, "users", email="right@example.com")
    target_18.run(
        "update migration.quarantine set record = record || %s::jsonb where entity = 'posts' and base44_id = %s",
        json.dumps({"title": "T"}),
        object_id(1),
    )
    assert replayed(target_18, "posts") == Replay(1, 1, ())
    assert replayed(target_18, "users") == Replay(1, 1, ())
