"""Partition keys that nobody means: refused by one rule, whatever the table and wherever the key comes from."""

from __future__ import annotations

from datetime import UTC, datetime

from b44_assets.engine.proving import content_parity
from tests.database.conftest import Target, object_id, post, user

DAYS = ("0001-01-01", "0202-05-06T07:08:09", "1900-01-01", "1969-12-31T23:59:59.999999", "2999-01-01", "9999-12-31")
NEVER = "9999-12-31T23:59:59.9999999Z"


def entry(number: int, **fields: object) -> dict[str, object]:
    return {
        "id": object_id(number),
        "table_name": "posts",
        "record_id": object_id(1),
        "action": "update",
        "timestamp": "2024-01-01T00:00:00",
        **fields,
    }


def test_a_post_or_an_audit_log_of_no_plausible_time_is_refused_and_the_others_are_in(target: Target) -> None:
    days = (*DAYS, NEVER)
    target.migrate(
        {
            "User": [user(1)],
            "Post": [post(1), *(post(2 + n, created_date=day) for n, day in enumerate(days))],
            "AuditLog": [entry(1), *(entry(2 + n, timestamp=day) for n, day in enumerate(days))],
        }
    )
    for table, reason in (("posts", "implausible:created_at"), ("audit_logs", "implausible:timestamp")):
        found = target.outcome(table)
        assert list(found.rows) == [object_id(1)]
        assert found.reasons == {number: [reason] for number in range(2, len(days) + 2)}
        assert found.account["unaccounted"] == 0


def test_a_key_that_was_fallen_back_to_is_judged_as_well(target_18: Target) -> None:
    target_18.migrate(
        {
            "User": [user(1)],
            "Post": [
                post(1, id=object_id(1, 0xFFFFFFFF)),
                post(2, id="no ObjectId", updated_date="9999-01-01"),
                post(3, id="without a date"),
                post(4, created_date="no date at all", id=object_id(4, 0xFFFFFFFF)),
            ],
        }
    )
    assert target_18.outcome("posts").reasons == {
        1: ["implausible:created_at"],
        2: ["implausible:created_at"],
        4: ["invalid:created_at", "implausible:created_at"],
    }


def test_an_export_of_no_plausible_time_dates_no_record(target_18: Target) -> None:
    records = {"User": [user(1)], "Post": [post(1), post(2, id="without a date")]}
    target_18.migrate(records, exported_at=datetime(1960, 1, 1, tzinfo=UTC))
    assert target_18.outcome("posts").reasons == {2: ["implausible:created_at"]}


def test_a_time_that_decides_no_partition_may_be_any(target: Target) -> None:
    times = {"created_date": NEVER, "updated_date": "0001-01-01T00:00:00+14:00"}
    target.migrate(
        {
            "User": [user(1, **times)],
            "Post": [post(1, updated_date=NEVER, publish_date="0001-01-01", status="published")],
            "Event": [{"id": object_id(1), "user_id": object_id(1), "title": "Talk", "event_date": NEVER, **times}],
        }
    )
    assert target.one("select count(*) from migration.quarantine") == 0
    assert target.one("select count(*) from migration.migrated") == 3
    for mapping in ("users", "posts", "events"):
        parity = content_parity(target.session, target.session.catalog.mappings[mapping])
        assert parity is not None
        assert parity.passed
