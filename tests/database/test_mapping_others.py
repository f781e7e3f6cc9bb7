"""What becomes of a Category, an Event, a UserPreference, a UserSession, an AuditLog; and that nothing is ever lost."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from b44_assets.catalog import TableMapping
from b44_assets.migration.other_apps import BUILT_IN
from tests.database.test_mapping_users import BLANKS, EXPORTED_AT, ROLES, WHITE_SPACE, boolean, time_of, with_repeats
from tests.helpers.mapping_cases import Case, each, refused
from tests.helpers.records import Record, moment, object_id, user, uuid_of
from tests.helpers.target import SYSTEM_USER, Outcome, Target

KNOWN, OTHER, NOBODY = object_id(1), object_id(2), object_id(3)
PEOPLE = [user(1), user(2), user(3, email="nothing")]
STRANGERS = (NOBODY, "guest_1", SYSTEM_USER)


def category(number: int, **fields: object) -> dict[str, object]:
    return {"id": object_id(number), "name": f"Category {number}", **fields}


def event(number: int, **fields: object) -> dict[str, object]:
    """A sound Event of user 1, on a day of its own."""
    day = f"{2000 + number // 28}-02-{1 + number % 28:02d}"
    return {"id": object_id(number), "user_id": KNOWN, "event_date": f"{day}T12:00:00", **fields}


def session(number: int, **fields: object) -> dict[str, object]:
    return {"id": object_id(number), "user_id": KNOWN, "expires_at": "2026-01-01T00:00:00", **fields}


def audit_log(number: int, **fields: object) -> dict[str, object]:
    return {"id": object_id(number), "table_name": "posts", "record_id": object_id(9), "action": "update", **fields}


def preference(number: int, **fields: object) -> dict[str, object]:
    """A sound UserPreference of a user of its own: number 9,000 more."""
    return {"id": object_id(number), "user_id": object_id(number + 9_000), **fields}


def common(*, updated: bool = True) -> list[Case]:
    """The rules that hold for every entity."""
    times = [
        Case("created_date is the creation time", {"created_date": "2026-03-26T23:25:53.950000"},
             {"created_at": moment("2026-03-26T23:25:53.95")}),
        Case("created_at is the creation time, too", {"created_at": "2026-03-26T23:25:53+02:00"},
             {"created_at": moment("2026-03-26T21:25:53")}),
        Case("without a creation time it is the ObjectId's", {"id": "66000000" + "c" * 16},
             {"created_at": moment("2024-03-24T10:27:12")}),
        Case("without anything the creation time is the export's", {"id": "custom-2"}, {"created_at": EXPORTED_AT}),
    ]  # fmt: skip
    if updated:
        times += [
            Case("without an ObjectId it is the time of the update", {"id": "custom-1", "updated_date": "2026-01-01"},
                 {"created_at": moment("2026-01-01"), "updated_at": moment("2026-01-01")}),
            Case("updated_at falls back to the creation time", {"created_date": "2026-01-01"},
                 {"updated_at": moment("2026-01-01")}),
            Case("updated_at is the time of the update, too", {"updated_at": "2026-01-05"},
                 {"updated_at": moment("2026-01-05")}),
        ]  # fmt: skip
    return [
        # Each with a field of its own: they would be repeats of one record.
        *[Case(f"an id that is {name} is missing", {"id": value, "blank": name}, reasons=("missing_id",))
          for name, value in BLANKS.items()],
        *times,
        refused("a creation time that is none is invalid", "invalid:created_at", created_date="soon"),
        refused("a time of the update that is none is invalid", "invalid:updated_at", updated_date="soon"),
        Case("every field without a column is kept as exported", {"created_by": "Ann@Example.com", "x": 1, "none": None},
             unmapped={"created_by": "Ann@Example.com", "x": "1"}),
    ]  # fmt: skip


def creators() -> list[Case]:
    """Where a creator must be named."""
    return [
        Case("the creator is a migrated user", {"created_by_id": OTHER}, {"created_by": uuid_of(OTHER), "updated_by": None}),
        Case("the creator may be named by an address", {"created_by": " USER2@example.com"}, {"created_by": uuid_of(OTHER)}),
        Case("without a creator it is the system user", {}, {"created_by": SYSTEM_USER}),
        *[Case(f"the creator {value} is unknown and kept; the system user stands in", {"created_by_id": value},
               {"created_by": SYSTEM_USER}, unmapped={"created_by_id": value}) for value in (NOBODY, "service_1", "null")],
    ]  # fmt: skip


def owners() -> list[Case]:
    """Where a user must be named."""
    return [
        Case("user_id is the user", {"user_id": OTHER}, {"user_id": uuid_of(OTHER)}),
        Case("author_id is the user, too", {"user_id": "", "author_id": OTHER}, {"user_id": uuid_of(OTHER)}),
        *[Case(f"the user {value} is none that was migrated", {"user_id": value}, reasons=("orphan_user",))
          for value in (*STRANGERS, None, " ")],
    ]  # fmt: skip


CATEGORIES = [
    *common(),
    *creators(),
    Case("a category with no more than an id and a name is sound", {"name": "The least"},
         {"name": "The least", "slug": "the-least", "description": None, "color": None, "sort_order": 0, "active": True}),
    Case("a name is trimmed", {"name": " \u00a0Arts & Crafts\n"}, {"name": "Arts & Crafts", "slug": "arts-crafts"}),
    *[Case(f"a name that is {name} is missing", {"name": value}, reasons=("missing_name",)) for name, value in BLANKS.items()],
    Case("a given slug stays", {"slug": " My_Slug "}, {"slug": "My_Slug"}),
    *[Case(f"a slug that is {label} is made from the name", {"slug": value, "name": f"Blank, {label}"},
           {"slug": f"blank-{label.replace(' ', '-')}"}) for label, value in BLANKS.items()],
    Case("a name without letters has the slug category", {"name": "?!"}, {"slug": "category"}),
    Case("a description stays as it is", {"description": " a\n b "}, {"description": " a\n b "}),
    *[Case(f"the color {value} stays", {"color": value}, {"color": value.strip()}) for value in ("#a0B1c2", " #000000 ")],
    *[Case(f"the color {value} is bad, which is a repair", {"color": value}, {"color": None}, repairs=(("color", value, None),))
      for value in ("red", "#fff", "#12345g", "a0b1c2", "#a0b1c2d3")],
    *[Case(f"a color that is {name} is none", {"color": value}, {"color": None}) for name, value in BLANKS.items()],
    Case("a place in lists is a number", {"sort_order": "3.0", "active": "no"}, {"sort_order": 3, "active": False}),
    refused("a name and a slug that no index holds are too long", "too_long:name", "too_long:slug", name="n" * 2501),
    refused("a slug that no index holds is too long", "too_long:slug", slug="n" * 2501),
    refused("a place that is no number is invalid", "invalid:sort_order", sort_order="first"),
    refused("active that is no boolean is invalid", "invalid:active", active="perhaps"),
    refused("a record gets every reason that applies", "missing_id", "missing_name", "invalid:sort_order", "invalid:active",
            "invalid:created_at", "invalid:updated_at", id=None, name="", sort_order="x", active="x", created_date="x",
            updated_date="x"),
]  # fmt: skip

EVENTS = [
    *common(),
    *creators(),
    *owners(),
    Case("an event with no more than it must have is sound", {"event_date": "1999-01-02T03:04"},
         {"title": None, "event_date": moment("1999-01-02T03:04"), "cancelled": False}),
    Case("a title is trimmed", {"title": " Party \n"}, {"title": "Party"}),
    *[Case(f"a date that is {name} is missing", {"event_date": value}, reasons=("missing_event_date",))
      for name, value in BLANKS.items()],
    refused("a date that is none is invalid", "invalid:event_date", event_date="2026-02-30"),
    Case("an event may be cancelled", {"cancelled": True}, {"cancelled": True}),
    refused("cancelled that is no boolean is invalid", "invalid:cancelled", cancelled="off"),
    refused("a record gets every reason that applies", "missing_id", "orphan_user", "missing_event_date",
            "invalid:cancelled", "invalid:created_at", "invalid:updated_at", id=None, user_id="x", event_date=" ",
            cancelled="x", created_date="x", updated_date="x"),
]  # fmt: skip

PREFERENCES = [
    *common(),
    *[Case(f"the user {value} is none that was migrated", {"user_id": value}, reasons=("orphan_user",))
      for value in (*STRANGERS, None, " ")],
    Case("preferences are a document", {"preferences": {"theme": "dark", "n": [1, None, {"é": True}]}},
         {"preferences": {"theme": "dark", "n": [1, None, {"é": True}]}}),
    *[Case(f"preferences that are {name} are empty", {"preferences": value}, {"preferences": {}})
      for name, value in BLANKS.items()],
    Case("a repeated key is a repair, and the original text is kept", {"preferences": ' {"a":1, "b":{"c":[{"d":1,"d":2}]}}'},
         {"preferences": {"a": 1, "b": {"c": [{"d": 2}]}}},
         repairs=(("preferences", ' {"a":1, "b":{"c":[{"d":1,"d":2}]}}', '{"a": 1, "b": {"c": [{"d": 2}]}}'),)),
    Case("keys that are in different objects are not repeated", {"preferences": '{"a":{"a":[{"a":"a:"},{"a":2}]}}'},
         {"preferences": {"a": {"a": [{"a": "a:"}, {"a": 2}]}}}),
    refused("preferences that are no JSON are invalid", "invalid:preferences", preferences="dark"),
    refused("a record gets every reason that applies", "missing_id", "orphan_user", "invalid:preferences",
            "invalid:created_at", "invalid:updated_at", id=None, user_id="x", preferences="{", created_date="x",
            updated_date="x"),
]  # fmt: skip

SESSIONS = [
    *common(updated=False),
    *owners(),
    Case("a session with no more than it must have is sound", {},
         {"session_data": None, "expires_at": moment("2026-01-01")}),
    Case("session data is a document", {"session_data": {"ip": "192.0.2.1"}}, {"session_data": {"ip": "192.0.2.1"}}),
    Case("a key repeated in session data is a repair", {"session_data": '{"a":1,"a":2}'}, {"session_data": {"a": 2}},
         repairs=(("session_data", '{"a":1,"a":2}', '{"a": 2}'),)),
    refused("session data that is no JSON is invalid", "invalid:session_data", session_data="ip"),
    *[Case(f"an end that is {name} is missing", {"expires_at": value}, reasons=("missing_expires_at",))
      for name, value in BLANKS.items()],
    refused("an end that is no time is invalid", "invalid:expires_at", expires_at="never"),
    Case("the time of the update is kept, as it has no column", {"updated_date": "2026-01-02"},
         unmapped={"updated_date": "2026-01-02"}),
    Case("without an ObjectId the creation time is that of the update", {"id": "custom-1", "updated_date": "2026-01-01"},
         {"created_at": moment("2026-01-01")}, unmapped={"updated_date": "2026-01-01"}),
    refused("a record gets every reason that applies", "missing_id", "orphan_user", "invalid:session_data",
            "missing_expires_at", "invalid:created_at", "invalid:updated_at", id=None, user_id="x", session_data="{",
            expires_at="", created_date="x", updated_date="x"),
]  # fmt: skip

AUDIT_LOGS = [
    *[case for case in common() if "created_at" not in case.row and "updated_at" not in case.row],
    Case("the timestamp is when it happened", {"timestamp": "2024-12-31T23:59:59.5Z", "created_date": "2026-01-01"},
         {"timestamp": moment("2024-12-31T23:59:59.5")}, unmapped={"created_date": "2026-01-01"}),
    Case("without a timestamp it is the creation time", {"created_date": "2026-01-01", "updated_date": "2026-01-02"},
         {"timestamp": moment("2026-01-01")}, unmapped={"created_date": "2026-01-01", "updated_date": "2026-01-02"}),
    Case("without that it is the ObjectId's", {"id": "66000000" + "c" * 16}, {"timestamp": moment("2024-03-24T10:27:12")}),
    Case("without that it is the update's", {"id": "custom-1", "updated_date": "2026-01-02"},
         {"timestamp": moment("2026-01-02")}, unmapped={"updated_date": "2026-01-02"}),
    Case("without that it is the export's", {"id": "custom-2"}, {"timestamp": EXPORTED_AT}),
    refused("a timestamp that is none is invalid", "invalid:timestamp", timestamp="soon"),
    Case("table, record and action are kept", {"table_name": " users ", "record_id": OTHER.upper(), "action": " delete"},
         {"table_name": "users", "record_id": uuid_of(OTHER), "action": "delete"}),
    *[refused(f"a missing {name} is a reason", f"missing_{name}", **{name: " "}) for name in ("table_name", "record_id", "action")],
    Case("a record that is neither ObjectId nor UUID is hashed and kept", {"record_id": " order-7 "},
         {"record_id": uuid_of("order-7")}, unmapped={"record_id": " order-7 "}),
    Case("a record that is a UUID is kept", {"record_id": "0190A0B0-1111-7222-8333-444455556666"},
         {"record_id": "0190a0b0-1111-7222-8333-444455556666"}),
    Case("values are documents", {"old_values": None, "new_values": {"a": [1, "é"]}},
         {"old_values": None, "new_values": {"a": [1, "é"]}}),
    Case("keys repeated in values are repairs", {"old_values": '{"a":1,"a":2}', "new_values": '[{"b":1,"b":null}]'},
         {"old_values": {"a": 2}, "new_values": [{"b": None}]},
         repairs=(("new_values", '[{"b":1,"b":null}]', '[{"b": null}]'), ("old_values", '{"a":1,"a":2}', '{"a": 2}'))),
    refused("values that are no JSON are invalid", "invalid:old_values", "invalid:new_values", old_values="{", new_values="x"),
    Case("the actor is a migrated user", {"user_id": OTHER}, {"user_id": uuid_of(OTHER)}),
    Case("author_id is the actor, too", {"author_id": OTHER}, {"user_id": uuid_of(OTHER)}),
    *[Case(f"the actor {value} is unknown, which is a repair", {"user_id": value}, {"user_id": None},
           repairs=(("user_id", value, None),)) for value in STRANGERS],
    *[Case(f"an actor that is {name} is none", {"user_id": value}, {"user_id": None}) for name, value in BLANKS.items()],
    Case("a name of a table of 2,500 bytes is taken", {"table_name": "t" * 2500}, {"table_name": "t" * 2500}),
    refused("a name of a table that no index holds is too long", "too_long:table_name", table_name="t" * 2501),
    refused("a record gets every reason that applies", "missing_id", "missing_table_name", "missing_record_id",
            "missing_action", "invalid:old_values", "invalid:new_values", "invalid:timestamp", "invalid:created_at",
            "invalid:updated_at", id=None, table_name=None, record_id="", action=" ", old_values="x", new_values="x",
            timestamp="x", created_date="x", updated_date="x"),
]  # fmt: skip

MAKERS: dict[str, tuple[str, Callable[..., dict[str, object]], list[Case]]] = {
    "categories": ("Category", category, CATEGORIES),
    "events": ("Event", event, EVENTS),
    "user_preferences": ("UserPreference", preference, PREFERENCES),
    "user_sessions": ("UserSession", session, SESSIONS),
    "audit_logs": ("AuditLog", audit_log, AUDIT_LOGS),
}


def case_record(table: str, place: int) -> Record:
    _, make, cases = MAKERS[table]
    return {**make(1000 + place), **cases[place].fields}


@pytest.fixture(scope="module")
def outcomes(shared_target: Target) -> dict[str, Outcome]:
    """All cases of all tables in one export."""
    shared_target.reset()
    owners_of_preferences = [user(10_000 + place) for place in range(len(PREFERENCES))]
    records: dict[str, Sequence[Record]] = {"User": [*PEOPLE, *owners_of_preferences]}
    for table, (entity, _, cases) in MAKERS.items():
        records[entity] = [case_record(table, place) for place in range(len(cases))]
    shared_target.migrate(records, exported_at=EXPORTED_AT)
    return {table: shared_target.outcome(table) for table in MAKERS}


def check(outcomes: dict[str, Outcome], table: str, place: int) -> None:
    MAKERS[table][2][place].check(outcomes[table], place + 1, str(case_record(table, place)["id"]))


@each(CATEGORIES)
def test_a_category_comes_out_by_its_rule(outcomes: dict[str, Outcome], place: int) -> None:
    check(outcomes, "categories", place)


@each(EVENTS)
def test_an_event_comes_out_by_its_rule(outcomes: dict[str, Outcome], place: int) -> None:
    check(outcomes, "events", place)


@each(PREFERENCES)
def test_a_preference_comes_out_by_its_rule(outcomes: dict[str, Outcome], place: int) -> None:
    check(outcomes, "user_preferences", place)


@each(SESSIONS)
def test_a_session_comes_out_by_its_rule(outcomes: dict[str, Outcome], place: int) -> None:
    check(outcomes, "user_sessions", place)


@each(AUDIT_LOGS)
def test_an_audit_log_comes_out_by_its_rule(outcomes: dict[str, Outcome], place: int) -> None:
    check(outcomes, "audit_logs", place)


@pytest.mark.parametrize("table", MAKERS)
def test_cases_are_accounted_for(outcomes: dict[str, Outcome], table: str) -> None:
    account, cases = outcomes[table].account, MAKERS[table][2]
    assert account["read"] == len(cases)
    assert account["migrated"] == sum(not case.reasons for case in cases) == len(outcomes[table].rows)
    assert account["quarantined"] == sum(bool(case.reasons) for case in cases)
    assert (account["unaccounted"], account["pending"]) == (0, 0)


# -- several records -----------------------------------------------------------------------------------------------------


def migrate(target: Target, table: str, *records: Record, people: Iterable[Record] = PEOPLE) -> Outcome:
    target.migrate({"User": people, MAKERS[table][0]: records})
    return target.outcome(table)


@pytest.mark.parametrize("table", MAKERS)
def test_versions_and_repeats_are_told_apart_in_every_entity(target: Target, table: str) -> None:
    make = MAKERS[table][1]
    newest = make(1, updated_date="2026-01-02")
    people = [*PEOPLE, user(9_001)]
    found = migrate(target, table, make(1, updated_date="2026-01-01"), newest, newest, people=people)
    assert found.reasons == {1: ["duplicate_id"]}
    assert found.numbers == {object_id(1): 2}
    assert found.account["deduplicated"] == 1


def test_the_earliest_category_keeps_the_name(target: Target) -> None:
    days = ["2026-01-02", "2026-01-01", "2026-01-03"]
    found = migrate(target, "categories", *[category(n, name="News ", created_date=day) for n, day in enumerate(days)])
    assert found.reasons == {1: ["duplicate_name"], 3: ["duplicate_name"]}


def test_category_names_differ_in_case(target: Target) -> None:
    found = migrate(target, "categories", category(1, name="News"), category(2, name="NEWS"))
    assert [found.rows[object_id(n)]["slug"] for n in (1, 2)] == ["news", "news-2"]
    assert found.repairs == {object_id(2): [("slug", "taken", "news", "news-2")]}


def test_a_refused_or_older_category_takes_no_name_away(target: Target) -> None:
    found = migrate(
        target,
        "categories",
        category(1, name="News", sort_order="x"),
        category(2, name="News", updated_date="2026-01-01"),
        category(2, name="Other", updated_date="2026-01-02"),
        category(3, name="News"),
    )
    assert found.reasons == {1: ["invalid:sort_order", "duplicate_name"], 2: ["duplicate_id"]}


def test_a_category_name_of_the_new_system_is_taken(target: Target) -> None:
    target.run("insert into categories (name, slug, created_by) values ('News', 'other', %s)", SYSTEM_USER)
    assert migrate(target, "categories", category(1, name="News")).reasons == {1: ["duplicate_name"]}


def test_a_given_category_slug_goes_before_one_that_was_made(target: Target) -> None:
    target.run("insert into categories (name, slug, created_by) values ('Native', 'news-2', %s)", SYSTEM_USER)
    found = migrate(target, "categories", category(1, name="News"), category(2, name="Other", slug="news"))
    assert [found.rows[object_id(n)]["slug"] for n in (1, 2)] == ["news-3", "news"]
    assert found.repairs == {object_id(1): [("slug", "taken", "news", "news-3")]}


def events(target: Target, *records: Record) -> dict[int, list[str]]:
    return migrate(target, "events", *records).reasons


def test_the_earliest_event_of_a_user_and_day_stays(target: Target) -> None:
    times = ["2026-01-01T12:00:00", "2026-01-01T11:59:59.999999", "2026-01-01T23:59:59", "2026-01-02T00:00:00"]
    assert events(target, *[event(n, event_date=time) for n, time in enumerate(times)]) == {
        1: ["duplicate_event_day"],
        3: ["duplicate_event_day"],
    }


def test_a_day_is_that_of_utc(target: Target) -> None:
    times = ["2026-01-01T23:30:00", "2026-01-02T00:30:00+01:00", "2026-01-01T23:30:00-01:00"]
    assert events(target, *[event(n, event_date=time) for n, time in enumerate(times)]) == {2: ["duplicate_event_day"]}


def test_events_of_one_time_go_by_creation(target: Target) -> None:
    records = [event(n, event_date="2026-01-01", created_date=day) for n, day in ((1, "2025-01-02"), (2, "2025-01-01"))]
    assert events(target, *records) == {1: ["duplicate_event_day"]}


def test_cancelled_events_and_those_of_others_are_no_rivals(target: Target) -> None:
    day = "2026-01-01T12:00:00"
    assert events(
        target,
        event(1, event_date=day, cancelled="true"),
        event(2, event_date=day),
        event(3, event_date=day, cancelled="yes"),
        event(4, event_date=day, user_id=OTHER),
    ) == {}  # fmt: skip


def test_refused_events_and_older_versions_are_no_rivals(target: Target) -> None:
    assert events(
        target,
        event(1, event_date="2026-01-01T01:00:00", cancelled="x"),
        event(2, event_date="2026-01-01T02:00:00", updated_date="2026-01-01"),
        event(2, event_date="2026-01-05T02:00:00", updated_date="2026-01-02"),
        event(3, event_date="2026-01-01T03:00:00"),
    ) == {1: ["invalid:cancelled", "duplicate_event_day"], 2: ["duplicate_id"]}  # fmt: skip


def test_an_event_of_the_new_system_has_the_day(target: Target) -> None:
    target.migrate({"User": PEOPLE})
    target.run(
        "insert into events (user_id, event_date, created_by) values (%s, '2026-01-01 20:00+00', %s)",
        uuid_of(KNOWN), SYSTEM_USER,
    )  # fmt: skip
    assert events(target, event(1, event_date="2026-01-01")) == {1: ["duplicate_event_day"]}


def test_the_newest_preferences_of_a_user_stay(target: Target) -> None:
    found = migrate(
        target,
        "user_preferences",
        *[
            {"id": object_id(n), "user_id": KNOWN, "updated_date": day, "preferences": {"n": n}}
            for n, day in enumerate(["2026-01-02", "2026-01-03", "2026-01-01"])
        ],
        {"id": object_id(9), "user_id": KNOWN, "updated_date": "2026-01-09", "preferences": "broken"},
    )
    assert found.rows[object_id(1)]["preferences"] == {"n": 1}
    assert found.reasons == {
        1: ["duplicate_user"], 3: ["duplicate_user"], 4: ["invalid:preferences", "duplicate_user"],
    }  # fmt: skip


def test_sessions_are_spread_over_four_partitions(target: Target) -> None:
    people = [user(n) for n in range(1, 41)]
    migrate(target, "user_sessions", *[session(n, user_id=object_id(n)) for n in range(1, 41)], people=people)
    assert {name for (name,) in target.all("select distinct tableoid::regclass::text from user_sessions")} == {
        f"user_sessions_{n}" for n in range(4)
    }


def test_audit_logs_stand_in_the_partition_of_their_year_in_utc(target: Target) -> None:
    times = ["2024-12-31T23:59:59.999999", "2024-12-31T23:30:00-01:00", "2023-06-01"]
    migrate(target, "audit_logs", *[audit_log(n, timestamp=time) for n, time in enumerate(times)])
    assert target.all("select tableoid::regclass::text from audit_logs order by timestamp") == [
        ("audit_logs_2023",), ("audit_logs_2024",), ("audit_logs_2025",),
    ]  # fmt: skip


# -- nothing is lost -----------------------------------------------------------------------------------------------------


def strip(value: str) -> str:
    return value.strip(WHITE_SPACE)


def is_person(value: str, found: object) -> bool:
    return found == uuid_of(strip(value))


def is_same(value: str, found: object) -> bool:
    return found == value


def is_trimmed(value: str, found: object) -> bool:
    return found == strip(value)


def is_time(value: str, found: object) -> bool:
    return found == time_of(value)


def is_boolean(value: str, found: object) -> bool:
    return found is boolean(value)


def is_number(value: str, found: object) -> bool:
    return found == int(float(value))


def is_document(value: str, found: object) -> bool:
    return json.loads(value) == found


def is_lower(value: str, found: object) -> bool:
    return found == strip(value).lower()


Carried = Mapping[str, tuple[str, Callable[[str, Any], bool]]]
TIMES: Carried = {
    "created_date": ("created_at", is_time), "created_at": ("created_at", is_time),
    "updated_date": ("updated_at", is_time), "updated_at": ("updated_at", is_time),
}  # fmt: skip
USER: Carried = {"user_id": ("user_id", is_person), "author_id": ("user_id", is_person)}
ID: Carried = {"id": ("id", is_person)}
CREATOR: Carried = {"created_by_id": ("created_by", is_person)}
CARRIED: dict[str, Carried] = {
    "users": {
        **TIMES, **ID, **CREATOR,
        "email": ("email", is_lower), "username": ("username", is_lower),
        "full_name": ("display_name", is_trimmed), "display_name": ("display_name", is_trimmed),
        "avatar_url": ("avatar_url", is_trimmed), "role": ("role", lambda v, f: ROLES.get(strip(v).lower()) == f),
        "verified": ("email_verified", is_boolean), "is_verified": ("email_verified", is_boolean),
        "email_verified": ("email_verified", is_boolean), "active": ("active", is_boolean),
        "disabled": ("active", lambda v, f: boolean(v) is (not f)), "last_login_at": ("last_login_at", is_time),
    },
    "categories": {
        **TIMES, **ID, **CREATOR,
        "name": ("name", is_trimmed), "slug": ("slug", is_trimmed), "description": ("description", is_same),
        "color": ("color", is_trimmed), "sort_order": ("sort_order", is_number), "active": ("active", is_boolean),
    },
    "posts": {
        **TIMES, **ID, **CREATOR, **USER,
        "title": ("title", is_trimmed), "content": ("content", is_same), "published": ("published", is_boolean),
        "status": ("published", lambda v, f: strip(v).lower() == ("published" if f else "draft")),
        "publish_date": ("published_at", is_time), "published_at": ("published_at", is_time),
        "tags": ("tags", lambda v, f: [strip(tag) for tag in v.split(",") if strip(tag)] == f),
        "category_id": ("category_id", is_person), "view_count": ("view_count", is_number),
        "like_count": ("like_count", is_number),
    },
    "events": {
        **TIMES, **ID, **CREATOR, **USER,
        "title": ("title", is_trimmed), "event_date": ("event_date", is_time), "cancelled": ("cancelled", is_boolean),
    },
    "user_preferences": {**TIMES, **USER, "preferences": ("preferences", is_document)},
    "user_sessions": {
        **TIMES, **ID, **USER, "session_data": ("session_data", is_document), "expires_at": ("expires_at", is_time),
    },
    "audit_logs": {
        **ID, **USER,
        "table_name": ("table_name", is_trimmed), "action": ("action", is_trimmed),
        "record_id": ("record_id", lambda v, f: len(strip(v)) in (24, 36) and is_person(v, f)),
        "old_values": ("old_values", is_document), "new_values": ("new_values", is_document), "timestamp": ("timestamp", is_time),
    },
}  # fmt: skip


def lost(mapping: TableMapping, base44_id: str, record: Record, found: Outcome) -> dict[str, object]:
    """The exported values, blank ones aside, that are neither in the row nor in repairs nor in unmapped."""
    table, row = mapping.spec.name, found.rows[base44_id]
    spellings = {name: item.name for item in mapping.fields for name in item.spellings}
    unmapped = found.unmapped.get(base44_id, {})
    missing: dict[str, object] = {}
    for name, value in record.items():
        text = exported(value)
        if text is None or not strip(text) or text in (unmapped.get(name), unmapped.get(spellings.get(name, name))):
            continue
        if any(original == text for _, _, original, _ in found.repairs.get(base44_id, [])):
            continue
        column, carries = CARRIED[table].get(name, ("", is_same))
        if (table, name) in {("users", "username"), ("categories", "slug")} and not carries(text, row[column]):
            renamed = [original for repaired, _, original, _ in found.repairs[base44_id] if repaired == column]
            if len(renamed) == 1 and carries(text, renamed[0]):
                continue  # numbered, as another one has the name: the repair holds what it was numbered from
        if not column and name == "id" and table == "user_preferences":
            continue  # the user is the key; migration.migrated holds the id
        if not column or column not in row or not carries(text, row[column]):
            missing[name] = value
    return missing


def exported(value: object) -> str | None:
    """A JSON value as the text that is staged."""
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


STORABLE = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANY_TEXT = st.one_of(
    st.text(STORABLE, max_size=12),
    st.sampled_from(["\\.", '"', "a,b", "a\nb", "a\r\nb", "\r", "\\N", "null", "''", "'=1", " x ", "\u00a0", "é" * 40]),
)
NOISE = st.dictionaries(
    st.one_of(
        st.sampled_from(
            ["order", "group", "From", "a b", 'q"q', "x" * 70, "_record_number", "_source_file", "ctid", "%s"]
        ),
        # A column whose name is blank has a number for a name.
        st.text(st.characters(min_codepoint=33, exclude_categories=["Cs", "Cc"]), min_size=1, max_size=8).filter(
            str.strip
        ),
    ),
    st.one_of(ANY_TEXT, st.booleans(), st.integers(), st.none(), st.lists(st.integers(0, 9), max_size=2)),
    max_size=2,
)
MOMENTS = st.sampled_from(
    ["2026-01-01T00:00:00", "2026-01-01T10:00:00.5Z", "2025-12-31", "2026-01-02", None, "soon", ""]
)
PERSON = st.sampled_from([KNOWN, OTHER, f" {OTHER}", OTHER.upper(), NOBODY, "guest_1", SYSTEM_USER, None, " ", "null"])
FLAG = st.sampled_from([True, False, "yes", "no", "1", None, "", "perhaps"])
COUNT = st.sampled_from([0, 7, "12", "3.0", None, " ", "many", 2**31])
DOCUMENT = st.one_of(
    st.dictionaries(ANY_TEXT, st.integers(0, 9), max_size=2), st.sampled_from([None, "", "broken", "[1]"])
)
ADDRESS = st.sampled_from([f"{name}@Example.com" for name in "abcdefgh"] + ["A@example.com", None, "nothing"])
CONTENT = st.one_of(
    ANY_TEXT.map(lambda text: f"Long enough {text}"), st.sampled_from([None, "short", "<b onclick=x>bold</b> text"])
)
TAGS = st.one_of(
    st.lists(ANY_TEXT.filter(lambda t: "," not in t), max_size=3).map(",".join), st.sampled_from([None, "[broken"])
)
FIELDS: dict[str, dict[str, st.SearchStrategy[Any]]] = {
    "users": {
        "email": ADDRESS, "username": st.sampled_from(["anna", "Anna", "anna-2", "b ", None, ""]),
        "full_name": ANY_TEXT, "display_name": ANY_TEXT, "avatar_url": st.sampled_from(["https://a.example", "a.png", " ", None]),
        "role": st.sampled_from(["Admin", "owner", None, " guest"]), "verified": FLAG, "is_verified": FLAG,
        "email_verified": FLAG, "disabled": FLAG, "active": FLAG, "last_login_at": MOMENTS, "created_by_id": PERSON,
    },
    "categories": {
        "name": st.one_of(ANY_TEXT, st.sampled_from(["News", "news"])), "slug": st.sampled_from(["news", None, " x "]),
        "description": ANY_TEXT, "color": st.sampled_from(["#aabbcc", "red", " #AABBCC", None]), "sort_order": COUNT,
        "active": FLAG, "created_by_id": PERSON,
    },
    "posts": {
        "title": st.one_of(ANY_TEXT, st.just("News")), "content": CONTENT, "status": st.sampled_from(
            ["published", " Draft", "archived", None, ""]), "published": FLAG, "publish_date": MOMENTS,
        "published_at": MOMENTS, "tags": TAGS, "category_id": st.sampled_from([object_id(50), object_id(51), "x", None]),
        "user_id": PERSON, "author_id": PERSON, "view_count": COUNT, "like_count": COUNT, "created_by_id": PERSON,
    },
    "events": {
        "user_id": PERSON, "author_id": PERSON, "title": ANY_TEXT, "event_date": MOMENTS, "cancelled": FLAG,
        "created_by_id": PERSON,
    },
    "user_preferences": {"user_id": PERSON, "author_id": PERSON, "preferences": DOCUMENT},
    "user_sessions": {"user_id": PERSON, "author_id": PERSON, "session_data": DOCUMENT, "expires_at": MOMENTS},
    "audit_logs": {
        "table_name": ANY_TEXT, "record_id": st.sampled_from([OTHER, OTHER.upper(), "order-7", " x ", None, SYSTEM_USER]),
        "action": ANY_TEXT, "old_values": DOCUMENT, "new_values": DOCUMENT, "user_id": PERSON, "author_id": PERSON,
        "timestamp": MOMENTS,
    },
}  # fmt: skip
EXPORT_IDS = st.sampled_from(
    [object_id(50 + n) for n in range(8)] + ["custom-1", "custom-2", f" {object_id(50)}", None, ""]
)
ENTITIES = {
    "users": "User", "categories": "Category", "posts": "Post", "events": "Event", "user_preferences": "UserPreference",
    "user_sessions": "UserSession", "audit_logs": "AuditLog",
}  # fmt: skip


@st.composite
def records_of(draw: st.DrawFn, table: str) -> Record:
    """A record with some of its fields, and some that nobody has heard of."""
    times = dict.fromkeys(("created_date", "created_at", "updated_date", "updated_at"), MOMENTS)
    known = st.fixed_dictionaries({"id": EXPORT_IDS}, optional={**FIELDS[table], **times})
    return {**draw(NOISE), **draw(known)}


def of_this_app(table: str, records: list[Record]) -> list[Record]:
    """The same records in a file that is told to be of this app: one with nothing that the mapping reads is of another one."""
    own = [name for name in FIELDS[table] if name not in BUILT_IN]
    return (
        records
        if any(record.keys() & set(own) for record in records)
        else [{**record, own[0]: None} for record in records]
    )


EXPORTS = st.fixed_dictionaries({
    entity: with_repeats(records_of(table), max_size=8).map(partial(of_this_app, table)) for table, entity in ENTITIES.items()
})  # fmt: skip


@settings(
    max_examples=6,
    phases=[Phase.generate],
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
@given(export=EXPORTS)
def test_nothing_of_a_record_is_lost(shared_target_18: Target, export: dict[str, list[Record]]) -> None:
    target = shared_target_18
    target.reset()
    export = {**export, "User": [*export["User"], *PEOPLE]}
    target.migrate(export, exported_at=EXPORTED_AT)
    for table, entity in ENTITIES.items():
        found, records = target.outcome(table), export[entity]
        account = found.account
        assert account["read"] == len(records)
        assert account["read"] == account["migrated"] + account["deduplicated"] + account["quarantined"]
        assert (account["unaccounted"], account["pending"]) == (0, 0)
        assert account["migrated"] == len(found.rows)
        mapping = target.session.catalog.mappings[table]
        gone = {key: lost(mapping, key, records[number - 1], found) for key, number in found.numbers.items()}
        assert {key: values for key, values in gone.items() if values} == {}
        for number, kept in found.records.items():
            whole = {name: exported(value) for name, value in records[number - 1].items() if value is not None}
            assert {name: value for name, value in kept.items() if value is not None} == whole
