"""Partition keys that nobody means: refused by one rule, whatever the table and wherever the key comes from."""

from __future__ import annotations

from datetime import UTC, date, datetime

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from b44_assets.migration import sources
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.parts import Range
from b44_assets.migration.rollback import roll_back_month
from b44_assets.migration.verification import row_parity
from b44_assets.schema.partition_checks import check_bounds
from b44_assets.schema.partitions import apply_partitions
from tests.database.test_functions import timestamp
from tests.helpers.records import object_id, post, user
from tests.helpers.target import Target

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


def test_how_far_ahead_is_a_setting_and_the_same_export_is_judged_anew(target_18: Target) -> None:
    ahead = {str(years): f"{datetime.now(UTC).year + years}-01-01" for years in (5, 15, 95, 105)}
    records = {"User": [user(1)], "Post": [post(n, created_date=day) for n, day in enumerate(ahead.values(), 1)]}
    target_18.migrate(records)
    assert list(target_18.outcome("posts").reasons) == [2, 3, 4]
    target_18.having(plausible_years=100).load("posts")
    assert list(target_18.outcome("posts").reasons) == [4]


def test_batches_called_from_psql_leave_out_what_is_implausible(target_18: Target) -> None:
    target_18.write({"User": [user(1)], "Post": [post(1), post(2, created_date=NEVER)]})
    target_18.stage("users")
    target_18.load("users")
    target_18.stage("posts")
    target_18.load("posts", wanted=Range(date(2999, 1, 1)))
    assert target_18.one("select migrate_posts_batch(1000)") == 1
    assert target_18.one("select migrate_posts_batch(1000)") == 0
    assert target_18.all("select base44_id from migration.migrated where entity = 'posts'") == [(object_id(1),)]


def test_rows_that_a_version_without_the_rule_has_loaded_stay_until_they_are_taken_back(
    target: Target, monkeypatch: pytest.MonkeyPatch
) -> None:
    records = {
        "User": [user(1)],
        "Post": [post(1), post(2, created_date="0202-05-06")],
        "AuditLog": [entry(1), entry(2, timestamp="1900-01-01")],
    }
    with monkeypatch.context() as without:
        without.setattr(sources, "EARLIEST_MONTH", date(1, 1, 1))
        target.having(plausible_years=1000).migrate(records)
    assert target.one("select count(*) from posts_0202_05") == target.one("select count(*) from audit_logs_1900") == 1

    session = target.session
    for table in ("posts", "audit_logs"):
        target.load(table)
        spec = session.catalog.partitions(table)
        assert spec is not None
        apply_partitions(session, spec)
        assert check_bounds(session, table).passed
        for parity in (row_parity, content_parity):
            found = parity(session, session.catalog.mappings[table])
            assert found is not None
            assert found.passed, found
        assert target.outcome(table).account["unaccounted"] == 0
    assert roll_back_month(session, date(202, 5, 1)).entities[0].deleted == 1
    assert target.one("select count(*) from posts") == 1


def _expected(text: str, latest: datetime) -> list[str]:
    """By the rule, apart from the program."""
    try:
        found = timestamp(text)
    except OverflowError:
        return ["implausible:created_at"]
    if found is None:
        return ["invalid:created_at"]
    earliest = datetime(1970, 1, 1, tzinfo=UTC)
    return [] if earliest <= found <= latest else ["implausible:created_at"]


_YEARS = st.one_of(st.integers(1, 9999), st.integers(1968, 1972), st.sampled_from([1, 2, 9998, 9999]))
_MOMENTS = st.builds(
    "{:04}-{:02}-{:02}{}{}{}".format,
    _YEARS,
    st.integers(1, 12),
    st.sampled_from([1, 2, 27, 28, 30, 31]),
    st.sampled_from(["T", " "]),
    st.sampled_from(["00:00:00", "23:59:59.9999999", "23:59:59.999999", "24:00:00", "12:34:56"]),
    st.sampled_from(["", "Z", "+14:00", "-12:00"]),
)
_NO_MOMENTS = st.sampled_from(
    [
        "infinity",
        "-infinity",
        "now",
        "today",
        "epoch",
        "0000-01-01",
        "10000-01-01",
        "294277-01-01T00:00:00Z",
        "0044-03-15BC",
        "J2451187",
        "1717000000000",
        "1717000000",
        "99999999999999999999",
        "+002024-01-01",
        "-0001-01-01",
    ]
)


@settings(
    max_examples=4,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow, HealthCheck.data_too_large],
)
@given(st.lists(st.one_of(_MOMENTS, _MOMENTS, _NO_MOMENTS), min_size=100, max_size=200))
@example(["9999-12-31T23:59:59.9999999Z", "0001-01-01T00:00:00+14:00", "1970-01-01T00:00:00+00:01", "1970-01-01"])
def test_every_text_is_a_time_an_implausible_one_or_none(target_18: Target, texts: list[str]) -> None:
    target_18.reset()
    target_18.migrate({"User": [user(1)]})
    target_18.write({"Post": [post(n, created_date=text) for n, text in enumerate(texts, 1)]})
    target_18.stage("posts")
    target_18.load("posts", wanted=Range(date(2999, 1, 1)))
    found = dict(target_18.all("select record_number, reasons from migration.quarantine where entity = 'posts'"))
    latest = target_18.one("select staged_at + interval '10 years' from migration.exports where entity = 'posts'")
    expected = {number: _expected(text, latest) for number, text in enumerate(texts, 1)}
    assert found == {number: reasons for number, reasons in expected.items() if reasons}
    # A record of the last microseconds of a month is planned for the month in which it will lie.
    assert (
        target_18.all(
            "select created_at from migration.posts_plan where _action = 'insert'"
            " and _partition_key <> date_trunc('month', created_at at time zone 'UTC')::date"
        )
        == []
    )


def test_a_time_that_rounds_up_into_the_next_month_is_of_that_month_everywhere(target: Target) -> None:
    target.migrate({"User": [user(1)], "Post": [post(1, created_date="2024-02-29T23:59:59.9999999Z")]})
    assert target.all("select tableoid::regclass::text, created_at from posts") == [
        ("posts_2024_03", datetime(2024, 3, 1, tzinfo=UTC))
    ]
    assert target.all("select partition_key from migration.migration_log where entity_type = 'posts'") == [
        (date(2024, 3, 1),)
    ]
