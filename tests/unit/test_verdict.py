"""A verdict adds up, says one word, and is no success where something is left or was never looked at."""

from __future__ import annotations

import re
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.migration.accounts import EntityAccount
from b44_assets.migration.verdict import Conclusion, Records, Verdict

COUNTS = st.integers(0, 10**7)
NAMES = st.lists(st.from_regex(r"[a-z]{1,12} [a-z_]{1,20}", fullmatch=True), max_size=6).map(tuple)


@st.composite
def accounts(draw: st.DrawFn) -> EntityAccount:
    parts = {name: draw(COUNTS) for name in ("migrated", "deduplicated", "quarantined", "pending", "unaccounted")}
    return EntityAccount("things", read=sum(parts.values()), vanished=0, conflicts=0, reasons={}, repairs={}, **parts)


RECORDS = st.builds(Records.of, st.lists(accounts(), max_size=4), COUNTS)
VERDICTS = st.builds(
    Verdict,
    st.none() | RECORDS,
    COUNTS,
    COUNTS,
    NAMES,
    st.lists(st.sampled_from(["the server is gone", "a file is not there"]), max_size=2).map(tuple),
    st.booleans(),
)


def numbers(text: str) -> list[int]:
    return [int(number.replace(",", "")) for number in re.findall(r"\b\d[\d,]*", text)]


@given(RECORDS)
def test_what_the_line_says_of_records_adds_up_to_those_read(records: Records) -> None:
    migrated, read, *others = numbers(records.message())
    assert (migrated + sum(others), read) == (records.read, records.read)


@given(VERDICTS)
def test_the_line_is_one_and_ends_with_the_word(verdict: Verdict) -> None:
    said = verdict.message()
    assert "\n" not in said
    assert said.endswith(f": {verdict.conclusion}")
    assert verdict.conclusion in set(Conclusion)


@given(VERDICTS)
def test_json_has_the_numbers_that_the_verdict_has(verdict: Verdict) -> None:
    facts: dict[str, Any] = verdict.facts()
    assert facts["verdict"] == verdict.conclusion
    assert facts["failed"] == list(verdict.failed)
    if verdict.records is not None:
        names = ("migrated", "deduplicated", "quarantined", "pending", "unaccounted", "without_table")
        assert sum(facts[name] for name in names) == facts["read"] == verdict.records.read
    else:
        assert facts["migrated"] is facts["quarantined"] is facts["pending"] is None


@given(VERDICTS)
def test_it_holds_only_where_nothing_failed_and_nothing_is_left(verdict: Verdict) -> None:
    left = verdict.records is not None and verdict.records.pending + verdict.records.unaccounted > 0
    if verdict.holds:
        assert not (verdict.failed or verdict.faults or left)
    if verdict.failed or verdict.faults:
        assert verdict.conclusion is Conclusion.FAILED
    elif left:
        assert verdict.conclusion is Conclusion.INCOMPLETE


@pytest.mark.parametrize(
    ("verdict", "said"),
    [
        (
            Verdict(Records(929, 907, quarantined=22), passed=68),
            "907 of 929 records migrated, 22 quarantined (b44 quarantine), 0 pending; 68 checks passed: complete",
        ),
        (
            Verdict(Records(929, 907, quarantined=22), passed=68, unchanged=True),
            "nothing new: 907 of 929 records migrated, 22 quarantined (b44 quarantine), 0 pending; 68 checks passed: complete",
        ),
        (
            Verdict(Records(12, 5, deduplicated=1, pending=2, unaccounted=1, without_table=3), passed=1, warned=2),
            "5 of 12 records migrated, 1 repeat of others, 0 quarantined, 3 without a table (b44 init),"
            " 1 not accounted for, 2 pending (b44 migrate); 1 check passed, 2 warned: incomplete",
        ),
        (
            Verdict(Records(1, 1), passed=3, failed=tuple(f"t check_{n}" for n in range(5))),
            "1 of 1 record migrated, 0 quarantined, 0 pending;"
            " 3 checks passed, 5 failed (t check_0, t check_1, t check_2 and 2 more): failed",
        ),
        (Verdict(None, faults=("the server is gone", "and more")), "the server is gone: failed"),
        (Verdict(None, passed=9), "9 checks passed: complete"),
        (
            Verdict(Records(1, 1)),
            "1 of 1 record migrated, 0 quarantined, 0 pending; no check was asked: unverified",
        ),
        (Verdict(Records(0), passed=9), "0 of 0 records migrated, 0 quarantined, 0 pending; 9 checks passed: empty"),
        (
            Verdict(Records(1, 1), 1, listed={"dangling reference": 11, "open table": 1, "thing": 0}),
            "1 of 1 record migrated, 0 quarantined, 0 pending; 1 check passed;"
            " 11 dangling references listed, 1 open table listed: complete",
        ),
    ],
)  # fmt: skip
def test_the_line_says_what_is_so_and_nothing_of_what_is_not(verdict: Verdict, said: str) -> None:
    assert verdict.message() == said
