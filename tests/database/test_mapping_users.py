"""What becomes of a User: its rules, one by one, then all of them against plain Python."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from b44_assets.catalog import Catalog
from tests.helpers.mapping_cases import Case, each, refused
from tests.helpers.records import Record, moment, object_id, user, uuid_of
from tests.helpers.servers import Pg15
from tests.helpers.target import SYSTEM_USER, Outcome, Target, new_target

WHITE_SPACE = " \t\n\r\v\f\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2003\u2028\u202f\u205f\u3000\ufeff"
BLANKS: dict[str, object] = {"null": None, "empty": "", "spaces": "  ", "other white space": "\u00a0\t\ufeff"}
EXPORTED_AT = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
CREATOR = object_id(1)

# -- one record, one rule ----------------------------------------------------------------------------------------------

ROLES = {
    "superuser": "admin", "admin": "admin", "editor": "moderator", "moderator": "moderator",
    "author": "user", "user": "user", "guest": "guest",
}  # fmt: skip
TRUE = ["true", "TRUE", "t", "yes", "Yes", "1", " true ", True, 1]
FALSE = ["false", "False", "F", "no", "NO", "0", False, 0]
_LABEL = "[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?"
EMAIL = re.compile(rf"[a-z0-9.!#$%&'*+/=?^_`{{|}}~-]+@{_LABEL}(\.{_LABEL})+")
GOOD_ADDRESSES = [
    "a@b.de",
    "a.b%c+d_e-f@sub-domain.example.co",
    "9@9.example",
    "Q@B.MUSEUM",
    "o'brien@example.com",
    "ann@xn--bcher-kva.example",
    "a!#$%&'*+/=?^_`{|}~-z@example.com",
    ".a..b.@example.com",
    "anna@example.c",
    "bella@example.c0m",
    "x@" + "a" * 63 + ".de",
]
BAD_ADDRESSES = [
    "anna", "anna@", "@example.com", "anna@example", "anna@localhost", "x@" + "a" * 64 + ".de",
    "an na@example.com", "anna@exa mple.com",
    "anna@example.com.", "änna@example.com", "a@b@example.com", "<anna@example.com>", "anna@-example.com", "anna@example-.com",
    "anna@ex_ample.com", "anna@example..com",
    "anna@example.com\nx", "x\nanna@example.com",
]  # fmt: skip

CASES = [
    Case("a record with no more than an id and an address is sound", {}, {
        "username": "case0", "display_name": None, "avatar_url": None, "role": "user", "email_verified": False,
        "active": True, "last_login_at": None, "created_by": None, "updated_by": None}),
    Case("the id becomes a UUID by the documented formula", {"id": "6970c3a24e8275af9d1ae397"},
         {"id": "6970c3a2-4e82-875a-8f9d-1ae397000b44"}),
    Case("a UUID passes through", {"id": "0190a0b0-1111-7222-8333-444455556666"},
         {"id": "0190a0b0-1111-7222-8333-444455556666"}),
    Case("another id is hashed", {"id": "guest_1778614319013"}, {"id": uuid_of("guest_1778614319013")}),
    *[Case(f"an id that is {name} is missing", {"id": value}, reasons=("missing_id",)) for name, value in BLANKS.items()],
    Case("the address is trimmed and put in lower case", {"email": " \tAnn.Lee@Example.COM\u00a0"},
         {"email": "ann.lee@example.com", "username": "ann.lee"}),
    *[Case(f"the address {value} is valid", {"email": value}, {"email": value.lower()}) for value in GOOD_ADDRESSES],
    *[Case(f"the address {value!r} is invalid", {"email": value}, reasons=("invalid_email",)) for value in BAD_ADDRESSES],
    *[Case(f"an address that is {name} is missing", {"email": value}, reasons=("missing_email",))
      for name, value in BLANKS.items()],
    Case("a username is trimmed and put in lower case", {"username": " \u2003Ann_Lee\n"}, {"username": "ann_lee"}),
    Case("a username may be of any script", {"username": "ÉMILE Зоя"}, {"username": "émile зоя"}),
    *[Case(f"without a username ({name}) the address's local part is it",
           {"username": value, "email": f"Local.{place}@example.com"}, {"username": f"local.{place}"})
      for place, (name, value) in enumerate(BLANKS.items())],
    Case("full_name is the display name", {"full_name": " Ann Lee "}, {"display_name": "Ann Lee"}),
    Case("display_name is the display name, too", {"display_name": "Ann"}, {"display_name": "Ann"}),
    Case("of two display names the first spelling counts and the other is kept",
         {"full_name": "Ann", "display_name": "Lee"}, {"display_name": "Ann"}, unmapped={"display_name": "Lee"}),
    Case("of two spellings the one with something in it counts", {"full_name": " ", "display_name": "Lee"},
         {"display_name": "Lee"}),
    Case("two spellings that say the same are one", {"full_name": "Ann", "display_name": "Ann"}, {"display_name": "Ann"}),
    *[Case(f"a display name that is {name} is none", {"full_name": value}, {"display_name": None})
      for name, value in BLANKS.items()],
    *[Case(f"the avatar {value} stays", {"avatar_url": value}, {"avatar_url": value})
      for value in ("http://a.example/b.png", "https://a.example/b.png")],
    *[Case(f"the avatar {value} is a repair", {"avatar_url": value}, {"avatar_url": None},
           repairs=(("avatar_url", value, None),))
      for value in ("ftp://a.example/b.png", "a.png", "javascript:alert(1)", "private/u/f.png", "xhttps://a.example", "https:/a")],
    *[Case(f"an avatar that is {name} is none", {"avatar_url": value}, {"avatar_url": None})
      for name, value in BLANKS.items()],
    *[Case(f"the role {given_role} becomes {role}", {"role": given_role}, {"role": role})
      for given_role, role in ROLES.items()],
    Case("a role counts in any case and trimmed", {"role": " Editor\n"}, {"role": "moderator"}),
    *[Case(f"a role that is {name} is user", {"role": value}, {"role": "user"}) for name, value in BLANKS.items()],
    Case("an unknown role becomes user and is a repair", {"role": "Owner"}, {"role": "user"},
         repairs=(("role", "Owner", "user"),)),
    *[Case(f"{spelling} says that the address is verified", {spelling: True}, {"email_verified": True})
      for spelling in ("verified", "is_verified", "email_verified")],
    *[Case(f"verified may be {value!r}", {"verified": value}, {"email_verified": True}) for value in TRUE],
    *[Case(f"not verified may be {value!r}", {"verified": value}, {"email_verified": False}) for value in FALSE],
    *[Case(f"verified that is {name} is false", {"verified": value}, {"email_verified": False})
      for name, value in BLANKS.items()],
    refused("verified that is no boolean is invalid", "invalid:email_verified", verified="perhaps"),
    *[Case(f"disabled {value!r} is not active", {"disabled": value}, {"active": False}) for value in ("true", True, "1")],
    *[Case(f"disabled {value!r} is active", {"disabled": value}, {"active": True}) for value in ("false", False, "no")],
    *[Case(f"active {value!r} is active", {"active": value}, {"active": value in (True, "t")})
      for value in ("t", True, "f", False)],
    *[Case(f"disabled that is {name} leaves it to active", {"disabled": value, "active": "false"}, {"active": False})
      for name, value in BLANKS.items()],
    Case("disabled and active that agree are one", {"disabled": True, "active": "no"}, {"active": False}),
    Case("where disabled and active contradict each other, disabled counts and active is kept",
         {"disabled": "true", "active": "yes"}, {"active": False}, unmapped={"active": "yes"}),
    refused("disabled that is no boolean is invalid", "invalid:active", disabled="off"),
    refused("active that is no boolean is invalid", "invalid:active", active="2"),
    Case("a username of 2,500 bytes is taken", {"username": "é" * 1250}, {"username": "é" * 1250}),
    refused("a username that no index holds is too long", "too_long:username", username="é" * 1251),
    refused("both wrong are one reason", "invalid:active", active="2", disabled="3"),
    Case("the last sign-in is a time in UTC", {"last_login_at": "2026-06-09T17:30:00.000Z"},
         {"last_login_at": moment("2026-06-09T17:30:00")}),
    refused("a last sign-in that is no time is invalid", "invalid:last_login_at", last_login_at="yesterday"),
    Case("created_date is the creation time", {"created_date": "2026-03-26T23:25:53.950001"},
         {"created_at": moment("2026-03-26T23:25:53.950001"), "updated_at": moment("2026-03-26T23:25:53.950001")}),
    Case("created_at is the creation time, too", {"created_at": "2026-03-26 23:25:53+02:00"},
         {"created_at": moment("2026-03-26T21:25:53")}),
    Case("of two creation times created_date counts and the other is kept",
         {"created_date": "2026-01-01", "created_at": "2026-01-02"}, {"created_at": moment("2026-01-01")},
         unmapped={"created_at": "2026-01-02"}),
    Case("without a creation time it is the ObjectId's", {"id": "60000000" + "a" * 16, "updated_date": "2026-01-01"},
         {"created_at": datetime.fromtimestamp(0x60000000, UTC), "updated_at": moment("2026-01-01")}),
    Case("without an ObjectId it is the time of the update", {"id": "custom-1", "updated_date": "2026-01-01"},
         {"created_at": moment("2026-01-01"), "updated_at": moment("2026-01-01")}),
    Case("without that it is the export's time", {"id": "custom-2"},
         {"created_at": EXPORTED_AT, "updated_at": EXPORTED_AT}),
    Case("updated_at is the time of the update, too", {"created_date": "2026-01-01", "updated_at": "2026-01-05T08:30"},
         {"updated_at": moment("2026-01-05T08:30")}),
    refused("a creation time that is none is invalid", "invalid:created_at", created_date="2026-02-30"),
    refused("a time of the update that is none is invalid", "invalid:updated_at", updated_at="soon"),
    Case("the creator is a migrated user", {"created_by_id": CREATOR}, {"created_by": uuid_of(CREATOR)}),
    Case("a creator in upper case is the same", {"created_by_id": CREATOR.upper()}, {"created_by": uuid_of(CREATOR)}),
    Case("the creator may be named by an address",
         {"id": object_id(78_000), "email": "own@example.com", "created_by": " Own@EXAMPLE.com "},
         {"created_by": uuid_of(object_id(78_000))}),
    Case("a user may be its own creator", {"id": object_id(77_000), "created_by_id": object_id(77_000)},
         {"created_by": uuid_of(object_id(77_000))}),
    *[Case(f"the creator {value} is unknown and kept", {"created_by_id": value}, {"created_by": None},
           unmapped={"created_by_id": value})
      for value in ("service_0c0d-1", "null", "anonymous", object_id(99_999), SYSTEM_USER)],
    Case("a creator that was refused is unknown", {"created_by_id": object_id(2)}, {"created_by": None},
         unmapped={"created_by_id": object_id(2)}),
    *[Case(f"a creator that is {name} is none", {"created_by_id": value}, {"created_by": None})
      for name, value in BLANKS.items()],
    Case("every field without a column is kept as exported",
         {"created_by": "Ann@Example.com", "is_sample": False, "bio": " a\nb ", "n": 1.50, "list": ["a", {"b": None}],
          "order": "x", "Bio": "y", "is_deleted": None, "app_id": ""},
         unmapped={"created_by": "Ann@Example.com", "is_sample": "false", "bio": " a\nb ", "n": "1.5",
                   "list": '["a",{"b":null}]', "order": "x", "Bio": "y"}),
    Case("as many fields as there may be are kept", {f"device_{n}": f"d{n}" for n in range(250)},
         unmapped={f"device_{n}": f"d{n}" for n in range(250)}),
    refused("a record gets every reason that applies", "missing_id", "missing_email", "invalid:email_verified",
            "invalid:active", "invalid:last_login_at", "invalid:created_at", "invalid:updated_at", id=None, email=" ",
            is_verified="x", disabled="x", last_login_at="x", created_at="x", updated_at="x"),
    Case("a refused address is refused once", {"email": "x"}, reasons=("invalid_email",)),
]  # fmt: skip


def case_record(place: int, case: Case) -> Record:
    return {**user(1000 + place, email=f"case{place}@example.com"), **case.fields}


@pytest.fixture(scope="module")
def outcome(shared_target: Target) -> Outcome:
    """All cases in one export, behind a sound user and a refused one that some are created by."""
    shared_target.reset()
    records = [user(1), user(2, email="nothing"), *[case_record(*both) for both in enumerate(CASES)]]
    shared_target.migrate({"User": records}, exported_at=EXPORTED_AT)
    return shared_target.outcome("users")


@each(CASES)
def test_a_record_comes_out_by_its_rule(outcome: Outcome, place: int) -> None:
    CASES[place].check(outcome, place + 3, str(case_record(place, CASES[place])["id"]))


def test_cases_are_accounted_for(outcome: Outcome) -> None:
    account = outcome.account
    assert account["read"] == len(CASES) + 2
    assert account["migrated"] == len(outcome.rows) == sum(not case.reasons for case in CASES) + 1
    assert (account["unaccounted"], account["pending"], account["deduplicated"]) == (0, 0, 0)


# -- several records of one id -----------------------------------------------------------------------------------------


def users(target: Target, *records: Record) -> Outcome:
    target.migrate({"User": records})
    return target.outcome("users")


def test_repeats_equal_in_every_field_are_deduplicated(target: Target) -> None:
    found = users(target, user(1), user(2), user(1), user(1))
    assert found.account["deduplicated"] == 2
    assert (found.account["migrated"], found.reasons) == (2, {})
    assert found.numbers == {object_id(1): 1, object_id(2): 2}


def test_a_missing_field_is_equal_to_a_blank_one(target: Target) -> None:
    found = users(target, user(1, bio=None), user(1), user(1, bio=""), user(1, bio=" \t"))
    assert (found.account["deduplicated"], found.account["migrated"]) == (3, 1)


def test_repeats_without_an_id_are_deduplicated_too(target: Target) -> None:
    found = users(target, user(1, id=None), user(1, id=None), user(2, id=None), user(3))
    assert found.account["deduplicated"] == 1
    assert found.reasons == {1: ["missing_id"], 3: ["missing_id"]}


def test_repeats_are_deduplicated_among_records_without_ids(target: Target) -> None:
    found = users(target, {"email": "a@b.de"}, {"email": "a@b.de"}, {"email": "c@d.de"}, user(4))
    assert found.account["deduplicated"] == 1
    assert found.reasons == {1: ["missing_id"], 3: ["missing_id"]}


def test_of_several_versions_the_newest_update_wins(target: Target) -> None:
    dates = ["2026-01-02", "2026-01-04T00:00:00.000001", "2026-01-04", "2026-01-03T23:00:00-05:00"]
    found = users(target, *[user(1, updated_date=date, full_name=f"v{n}") for n, date in enumerate(dates)])
    assert found.rows[object_id(1)]["display_name"] == "v3"
    assert found.reasons == {1: ["duplicate_id"], 2: ["duplicate_id"], 3: ["duplicate_id"]}


def test_a_version_without_an_update_is_as_new_as_its_creation(target: Target) -> None:
    found = users(
        target,
        user(1, created_date="2026-01-01", updated_date="2026-01-02", full_name="updated"),
        user(1, created_date="2026-01-03", full_name="created"),
    )
    assert found.rows[object_id(1)]["display_name"] == "created"


def test_an_id_in_upper_case_is_the_same_id(target: Target) -> None:
    hexadecimal = "abcdef" + object_id(1)[6:]
    found = users(
        target,
        user(1, id=hexadecimal.upper(), updated_date="2026-01-02"),
        user(1, id=hexadecimal, updated_date="2026-01-01"),
    )
    assert found.reasons == {2: ["duplicate_id"]}


def test_a_newer_version_that_is_refused_does_not_bring_the_older_one_back(target: Target) -> None:
    found = users(target, user(1, updated_date="2026-01-01"), user(1, updated_date="2026-01-02", email="nothing"))
    assert found.reasons == {1: ["duplicate_id"], 2: ["invalid_email"]}


def test_an_older_version_has_its_other_reasons_too(target: Target) -> None:
    found = users(
        target, user(1, updated_date="2026-01-02"), user(1, updated_date="2026-01-01", email=None, verified="x")
    )
    assert found.reasons == {2: ["duplicate_id", "missing_email", "invalid:email_verified"]}


# -- several records of one address ------------------------------------------------------------------------------------


def test_the_earliest_user_keeps_the_address_whatever_its_place_and_case(target: Target) -> None:
    found = users(
        target,
        user(1, created_date="2026-01-02", email="anna@example.com"),
        user(2, created_date="2026-01-01T23:59:59.999999", email=" Anna@EXAMPLE.com"),
        user(3, created_date="2026-01-03", email="anna@example.com"),
    )
    assert set(found.rows) == {object_id(2)}
    assert found.reasons == {1: ["duplicate_email"], 3: ["duplicate_email"]}


def test_of_users_made_at_one_time_the_lowest_id_keeps_the_address(target: Target) -> None:
    found = users(
        target,
        *[user(n, created_date="2026-01-01", email="anna@example.com") for n in (3, 1, 2)],
    )
    assert set(found.rows) == {object_id(1)}


def test_an_older_version_of_a_user_is_no_rival_for_an_address(target: Target) -> None:
    found = users(
        target,
        user(1, updated_date="2026-01-01", email="anna@example.com"),
        user(1, updated_date="2026-01-02", email="ann@example.com"),
        user(2, email="anna@example.com"),
    )
    assert set(found.rows) == {object_id(1), object_id(2)}
    assert found.reasons == {1: ["duplicate_id"]}


def test_a_user_refused_for_another_reason_does_not_take_the_address_away(target: Target) -> None:
    found = users(
        target,
        user(1, email="anna@example.com", verified="x"),
        user(2, email="anna@example.com"),
        user(3, email="anna@example.com", id=None),
    )
    assert set(found.rows) == {object_id(2)}
    assert found.reasons == {
        1: ["invalid:email_verified", "duplicate_email"],
        3: ["missing_id", "duplicate_email"],
    }


def test_an_address_of_a_user_made_in_the_new_system_is_taken(target: Target) -> None:
    target.run("insert into users (email, username) values ('anna@example.com', 'other')")
    assert users(target, user(1, email="Anna@example.com")).reasons == {1: ["duplicate_email"]}


# -- several records of one username -----------------------------------------------------------------------------------


def usernames(target: Target, *records: Record) -> tuple[list[str | None], Outcome]:
    found = users(target, *records)
    return [found.rows[str(record["id"])]["username"] for record in records], found


def test_an_earlier_user_keeps_the_username_and_the_loser_is_repaired(target: Target) -> None:
    names, found = usernames(
        target,
        user(2, username="Anna", created_date="2026-01-02"),
        user(1, username="anna ", created_date="2026-01-01"),
        user(3, username="ANNA", created_date="2026-01-03"),
    )
    assert names == ["anna-2", "anna", "anna-3"]
    assert found.repairs == {
        object_id(2): [("username", "taken", "anna", "anna-2")],
        object_id(3): [("username", "taken", "anna", "anna-3")],
    }


def test_a_given_username_goes_before_one_that_was_made(target: Target) -> None:
    names, _ = usernames(
        target,
        user(1, email="anna@a.example", created_date="2026-01-01"),
        user(2, username="anna", created_date="2026-01-02"),
        user(3, email="anna@b.example", created_date="2026-01-03"),
    )
    assert names == ["anna-2", "anna", "anna-3"]


def test_users_made_at_one_time_go_by_id(target: Target) -> None:
    names, _ = usernames(target, *[user(n, username="anna", created_date="2026-01-01") for n in (3, 1, 2)])
    assert names == ["anna-3", "anna", "anna-2"]


def test_numbers_that_are_taken_are_left_out(target: Target) -> None:
    names, found = usernames(
        target,
        *[user(n, username="anna") for n in (1, 2, 3, 4)],
        user(5, username="anna-2"),
        user(6, email="anna-4@example.com"),
    )
    assert names == ["anna", "anna-3", "anna-5", "anna-6", "anna-2", "anna-4"]
    assert object_id(5) not in found.repairs


def test_a_numbered_name_that_is_wanted_twice_gets_a_number_of_its_own(target: Target) -> None:
    names, _ = usernames(
        target,
        user(1, username="anna"),
        user(2, username="anna-2"),
        user(3, username="anna-2"),
        user(4, username="anna"),
        user(5, username="anna-2-2"),
    )
    assert names == ["anna", "anna-2", "anna-2-3", "anna-3", "anna-2-2"]


def test_names_held_in_the_new_system_are_taken(target: Target) -> None:
    target.run("insert into users (email, username) values ('a@x.example', 'anna'), ('b@x.example', 'anna-3')")
    names, found = usernames(target, user(1, username="Anna"), user(2, username="anna"))
    assert names == ["anna-2", "anna-4"]
    assert found.repairs[object_id(1)] == [("username", "taken", "anna", "anna-2")]


def test_a_refused_user_takes_no_name(target: Target) -> None:
    found = users(target, user(1, username="anna", email=None), user(2, username="anna"))
    assert found.rows[object_id(2)]["username"] == "anna"
    assert found.repairs == {}


# -- the system user, creators ---------------------------------------------------------------------------------------------


def test_the_system_user_is_no_migrated_record(target: Target) -> None:
    found = users(target, user(1))
    assert (found.account["read"], found.account["migrated"]) == (1, 1)
    assert target.all("select id::text, email, active from users where id = %s", SYSTEM_USER) == [
        (SYSTEM_USER, "system@base44.invalid", False)
    ]


def test_a_creator_that_comes_later_in_another_batch_is_found(target: Target) -> None:
    found = users(target.having(batch_size=1), user(1, created_by_id=object_id(2)), user(2))
    assert found.rows[object_id(1)]["created_by"] == uuid_of(object_id(2))


def test_a_creator_made_in_the_new_system_is_a_user(target: Target) -> None:
    known = "0190a0b0-1111-7222-8333-444455556666"
    target.run("insert into users (id, email) values (%s, 'native@example.com')", known)
    assert users(target, user(1, created_by_id=known)).rows[object_id(1)]["created_by"] == known


# -- locales -----------------------------------------------------------------------------------------------------------


def test_case_and_digits_do_not_depend_on_the_databases_locale(pg15: Pg15, catalog: Catalog, tmp_path: Path) -> None:
    # In Turkish the small letter of I is a dotless one.
    options = "encoding 'UTF8' locale 'C.UTF-8' locale_provider icu icu_locale 'tr-TR'"
    with new_target(pg15.url(), catalog, tmp_path, options) as turkish:
        person = user(1, email="INFO@EXAMPLE.COM", username="IRIS", role="ADMIN", disabled="FALSE")
        article = {"id": object_id(2), "title": "INFO", "content": "Long enough.", "status": "PUBLISHED"}
        turkish.migrate({
            "User": [person],
            "Post": [{**article, "user_id": object_id(1)}, {**article, "id": object_id(3), "view_count": "٣"}],
        })  # fmt: skip
        row = turkish.outcome("users").rows[object_id(1)]
        posts = turkish.outcome("posts")
        assert (row["email"], row["username"], row["role"]) == ("info@example.com", "iris", "admin")
        assert (posts.rows[object_id(2)]["slug"], posts.rows[object_id(2)]["published"]) == ("info", True)
        assert posts.reasons == {2: ["orphan_user", "invalid:view_count"]}


# -- all rules against a model that shares nothing with them -----------------------------------------------------------


@dataclass
class Expected:
    """What the model makes of the records of one entity; the same shape as `Outcome`."""

    rows: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    reasons: dict[int, list[str]] = field(default_factory=dict[int, list[str]])
    repairs: dict[str, list[tuple[str, str | None, str | None]]] = field(default_factory=lambda: defaultdict(list))
    unmapped: dict[str, dict[str, str]] = field(default_factory=dict[str, dict[str, str]])
    deduplicated: int = 0


def text_of(value: object) -> str | None:
    """The exported value as staged; null where it is blank."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return None if value is None or not str(value).strip(WHITE_SPACE) else str(value)


def trimmed(value: str | None) -> str | None:
    return value.strip(WHITE_SPACE) if value is not None else None


def boolean(value: str | None) -> bool | None:
    return {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}.get((value or "").lower())


def time_of(value: str | None) -> datetime | None:
    try:
        return moment(value) if value is not None else None
    except ValueError:
        return None


def of_object_id(value: str | None) -> datetime | None:
    if value is None or not re.fullmatch("[0-9a-fA-F]{24}", value):
        return None
    return datetime(1970, 1, 1, tzinfo=UTC) + timedelta(seconds=int(value[:8], 16))


def superseded_and_repeated(records: Sequence[Record]) -> tuple[set[int], set[int]]:
    """Numbers of records that a newer version stands for, and of those equal to an earlier one in every field."""
    repeated: set[int] = set()
    seen: set[tuple[Any, ...]] = set()
    versions: dict[str, list[tuple[datetime, int]]] = defaultdict(list)
    for number, record in enumerate(records, 1):
        filled = ((name, value) for name, value in record.items() if trimmed(text_of(value)) is not None)
        content = tuple(sorted((name, str(value)) for name, value in filled))
        if content in seen:
            repeated.add(number)
            continue
        seen.add(content)
        if (base44_id := trimmed(text_of(record.get("id")))) is not None:
            newest = time_of(text_of(record.get("updated_date"))) or time_of(text_of(record.get("created_date")))
            versions[uuid_of(base44_id)].append((newest or datetime.min.replace(tzinfo=UTC), number))
    older = {number for listed in versions.values() for _, number in sorted(listed)[:-1]}
    return older, repeated


def renamed(wanted: list[tuple[str, str]]) -> dict[str, str]:
    """Names by id, made unique; the pairs of id and wanted name come in the order of their claims."""
    firsts: dict[str, str] = {}
    for base44_id, name in wanted:
        firsts.setdefault(name, base44_id)
    taken, names = set(firsts), dict[str, str]()
    for base44_id, name in wanted:
        if firsts[name] == base44_id:
            names[base44_id] = name
            continue
        number = 2
        while f"{name}-{number}" in taken:
            number += 1
        names[base44_id] = f"{name}-{number}"
        taken.add(names[base44_id])
    return names


def expected_users(records: Sequence[Record]) -> Expected:
    """The rules for users, record by record."""
    expected = Expected()
    older, repeated = superseded_and_repeated(records)
    expected.deduplicated = len(repeated)
    faults: dict[int, list[str]] = {}
    rows: dict[int, dict[str, Any]] = {}
    claims: dict[str, list[tuple[bool, datetime, bool, int, int]]] = defaultdict(list)
    for number, record in enumerate(records, 1):
        if number in repeated:
            continue
        value = {name: text_of(exported) for name, exported in record.items()}
        base44_id, email = trimmed(value.get("id")), (trimmed(value.get("email")) or "").lower() or None
        created, updated = time_of(value.get("created_date")), time_of(value.get("updated_date"))
        wrong = [
            reason
            for reason, applies in {
                "missing_id": base44_id is None,
                "duplicate_id": number in older,
                "missing_email": email is None,
                "invalid_email": email is not None and not EMAIL.fullmatch(email),
                "invalid:email_verified": value.get("verified") is not None and boolean(value["verified"]) is None,
                "invalid:active": value.get("disabled") is not None and boolean(value["disabled"]) is None,
                "invalid:created_at": value.get("created_date") is not None and created is None,
                "invalid:updated_at": value.get("updated_date") is not None and updated is None,
            }.items()
            if applies
        ]
        made = created or of_object_id(base44_id) or updated or EXPORTED_AT
        faults[number] = wrong
        key = uuid_of(base44_id) if base44_id is not None else None
        if email is not None and number not in older:
            claims[email].append((bool(wrong), made, key is None, UUID(key).int if key else 0, number))
        role = (trimmed(value.get("role")) or "").lower()
        rows[number] = {
            "id": key,
            "email": email,
            "username": (trimmed(value.get("username")) or "").lower() or (email or "").split("@")[0],
            "role": ROLES.get(role, "user"),
            "email_verified": bool(boolean(value.get("verified"))),
            "active": not boolean(value.get("disabled")),
            "created_at": made,
            "updated_at": updated or made,
        }
    for listed in claims.values():
        for *_, number in sorted(listed)[1:]:
            faults[number].append("duplicate_email")
    expected.reasons = {number: wrong for number, wrong in faults.items() if wrong}
    sound = [number for number, wrong in faults.items() if not wrong]
    keys = {rows[number]["id"] for number in sound}
    order = sorted(
        sound,
        key=lambda n: (text_of(records[n - 1].get("username")) is None, rows[n]["created_at"], UUID(rows[n]["id"]).int),
    )
    ids = {number: trimmed(text_of(records[number - 1]["id"])) or "" for number in sound}
    names = renamed([(ids[number], rows[number]["username"]) for number in order])
    for number in sound:
        record, row, base44_id = records[number - 1], rows[number], ids[number]
        creator = trimmed(text_of(record.get("created_by_id")))
        row["created_by"] = uuid_of(creator) if creator is not None and uuid_of(creator) in keys else None
        if creator is not None and row["created_by"] is None:
            expected.unmapped[base44_id] = {"created_by_id": str(record["created_by_id"])}
        role = text_of(record.get("role"))
        if role is not None and role.strip(WHITE_SPACE).lower() not in ROLES:
            expected.repairs[base44_id].append(("role", role, "user"))
        if names[base44_id] != row["username"]:
            expected.repairs[base44_id].append(("username", row["username"], names[base44_id]))
            row["username"] = names[base44_id]
        expected.rows[base44_id] = row
    return expected


def check_against_model(found: Outcome, expected: Expected, read: int) -> None:
    """Compares what a migration came to with what the model says."""
    assert found.reasons == expected.reasons
    columns = next(iter(expected.rows.values()), {})
    assert {key: {name: row[name] for name in columns} for key, row in found.rows.items()} == expected.rows
    repairs = {key: [(column, old, new) for column, _, old, new in listed] for key, listed in found.repairs.items()}
    assert repairs == {key: sorted(listed) for key, listed in expected.repairs.items() if listed}
    assert found.unmapped == expected.unmapped
    assert found.account == {
        "read": read,
        "migrated": len(expected.rows),
        "deduplicated": expected.deduplicated,
        "quarantined": len(expected.reasons),
        "unaccounted": 0,
        "pending": 0,
        "vanished": 0,
        "conflicts": 0,
    }


def oftener(usual: Sequence[object], rare: Sequence[object]) -> st.SearchStrategy[object]:
    """Values that collide often, and now and then one that is blank or broken."""
    return st.sampled_from([*usual, *usual, *usual, *rare])


IDS = [object_id(n) for n in range(1, 7)] + ["guest_1", "0190a0b0-1111-7222-8333-444455556666"]
TIMES = ["2026-01-01T00:00:00", "2026-01-01T00:00:00.000001", "2026-01-02", "2026-01-01T23:30:00-01:00"]
USERS = st.fixed_dictionaries(
    {
        "id": oftener(IDS, [f" {IDS[0]}", "ABCDEF" + IDS[1][6:], "abcdef" + IDS[1][6:], None, "", "\u00a0"]),
        "email": oftener(
            ["anna@example.com", " Anna@Example.com", "anna@other.example", "b@example.com", "anna-2@example.com"],
            [None, " ", "nothing", "c@example.com", "d@example.com", "e@example.com", "f@example.com"],
        ),
    },
    optional={
        "username": oftener(["anna", "Anna ", "anna-2", "anna-3", "b"], [None, "", "anna-2-2"]),
        "role": oftener(["user", "Admin", " editor"], [None, " ", "owner"]),
        "verified": oftener(["true", "no"], [None, "", "perhaps"]),
        "disabled": oftener(["false"], [None, "1", "off"]),
        "created_date": oftener(TIMES, [None, "", "2026-02-30"]),
        "updated_date": oftener(TIMES, [None, "", "soon"]),
        "created_by_id": oftener(IDS, [None, "service_1", "null", " "]),
    },
)


@st.composite
def with_repeats(draw: st.DrawFn, records: st.SearchStrategy[Record], max_size: int = 40) -> list[Record]:
    """Exports in which some records are repeated in every field, which chance would hardly do; one at least has an id."""
    listed = draw(st.lists(records, max_size=max_size))
    assume(not listed or any((text_of(record["id"]) or "").strip() for record in listed))
    again = draw(st.lists(st.integers(0, len(listed) - 1), max_size=3)) if listed else []
    return listed + [listed[place] for place in again]


@pytest.mark.long
@settings(
    max_examples=6,
    suppress_health_check=[HealthCheck.filter_too_much, HealthCheck.function_scoped_fixture],
)
@given(records=with_repeats(USERS))
def test_users_come_out_as_the_rules_say_whatever_collides(shared_target: Target, records: list[Record]) -> None:
    shared_target.reset()
    shared_target.migrate({"User": records}, exported_at=EXPORTED_AT)
    check_against_model(shared_target.outcome("users"), expected_users(records), len(records))
