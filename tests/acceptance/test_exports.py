"""Every export comes out as its `truth.json` says."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from b44_assets.sample import write_sample
from tests.helpers.command import Command, Result
from tests.helpers.database_contents import rows, value
from tests.helpers.migrated_apps import Migrated
from tests.helpers.paths import DIALECTS, EXPORTS
from tests.helpers.sample_exports import table_of

# Not in the truth of the exports beside the tests: what an HTML sanitizer makes of a text, and who loses a name.
UNTOLD_REPAIRS = {"content", "username"}
UNSAFE = re.compile(r"<script|onerror=|javascript:|<iframe", re.IGNORECASE)

Truth = dict[str, Any]


@dataclass(frozen=True)
class Outcome:
    """A migrated export: what the command said, the database, and the truth."""

    result: Result
    url: str
    truth: Truth
    whole_seconds: bool


def truth_of(folder: Path) -> Truth:
    return json.loads((folder / "truth.json").read_text(encoding="utf-8"))


def uuids_of(url: str, base44_ids: set[str]) -> dict[str, str]:
    """The UUIDs of ids: those of ObjectIds by the documented formula, worked out apart from the SQL function."""
    found = {
        h: f"{h[:8]}-{h[8:12]}-8{h[12:15]}-8{h[15:18]}-{h[18:24]}000b44"
        for h in base44_ids
        if re.fullmatch("[0-9a-f]{24}", h)
    }
    others = rows(url, "select i, base44_uuid(i)::text from unnest(%s::text[]) as i", list(base44_ids - set(found)))
    return found | dict(others)


def check_counts(outcome: Outcome, *, untold: set[str]) -> None:
    """Compares what the command says of every entity with the truth."""
    said: dict[str, dict[str, Any]] = outcome.result.report["entities"]
    for counts in said.values():
        counts["repairs"] = {column: n for column, n in counts["repairs"].items() if column not in untold}
    expected: dict[str, dict[str, Any]] = {
        table_of(entity): {
            **counts,
            "repairs": {column: n for column, n in counts["repairs"].items() if column not in untold},
        }
        for entity, counts in outcome.truth["entities"].items()
    }
    assert said == expected


def check_accounting(outcome: Outcome) -> None:
    """Compares the ledger in the database with the truth."""
    found = rows(
        outcome.url,
        "select entity, read, migrated, deduplicated, quarantined, unaccounted, pending from migration.accounting",
    )
    expected = {
        (table_of(entity), n["read"], n["migrated"], n["deduplicated"], n["quarantined"], 0, 0)
        for entity, n in outcome.truth["entities"].items()
    }
    assert set(found) == expected


def check_tables(outcome: Outcome) -> None:
    """Counts the rows themselves, which the ledger only tells of."""
    for entity, counts in outcome.truth["entities"].items():
        table = table_of(entity)
        key = "user_id" if table == "user_preferences" else "id"
        query = f"select count(*) from {table} where {key} <> '00000000-0000-8000-8000-000000000b44'"
        assert (table, value(outcome.url, query)) == (table, counts["migrated"])


def check_months(outcome: Outcome) -> None:
    """Counts posts by month (UTC) of the rows, and in the partitions that are named after them."""
    by_month = dict(
        rows(outcome.url, "select to_char(created_at at time zone 'UTC', 'YYYY-MM'), count(*) from posts group by 1")
    )
    assert by_month == outcome.truth["posts_by_month"]
    by_partition = dict(rows(outcome.url, "select tableoid::regclass::text, count(*) from posts group by 1"))
    assert by_partition == {
        f"posts_{month.replace('-', '_')}": count for month, count in outcome.truth["posts_by_month"].items()
    }


def moment(text: str | None, outcome: Outcome) -> datetime | None:
    if text is None:
        return None
    parsed = datetime.fromisoformat(text)
    # Such a file does not hold the fraction; the truth beside the tests is that of the app.
    return parsed.replace(microsecond=0) if outcome.whole_seconds else parsed


def compare(outcome: Outcome, kind: str, stored: dict[str, dict[str, Any]]) -> dict[str, dict[str, Any]]:
    """Compares rows by UUID with the values that the truth knows of them; returns the rows by Base44 id."""
    expected: dict[str, dict[str, Any]] = outcome.truth["values"][kind]
    links = {values[name] for values in expected.values() for name in ("category", "user") if values.get(name)}
    uuids = uuids_of(outcome.url, set(expected) | links)

    def wanted(name: str, said: Any) -> Any:
        if name in ("category", "user"):
            return uuids.get(said)
        return moment(said, outcome) if name.endswith("_at") else said

    found = {base44_id: stored.get(uuids[base44_id], {}) for base44_id in expected}
    differing = [
        (base44_id, name, said, found[base44_id].get(name, "no such row"))
        for base44_id, values in expected.items()
        for name, said in values.items()
        if name != "unsafe" and wanted(name, said) != found[base44_id].get(name, "no such row")
    ]
    assert differing == []
    return found


def check_users(outcome: Outcome) -> None:
    names = (
        "email",
        "username",
        "display_name",
        "avatar_url",
        "role",
        "email_verified",
        "active",
        "created_at",
        "updated_at",
    )
    found = rows(
        outcome.url,
        "select id::text, email, username, display_name, avatar_url, role, email_verified, active, created_at, updated_at"
        " from users",
    )
    compare(outcome, "users", {row[0]: dict(zip(names, row[1:], strict=True)) for row in found})


def check_categories(outcome: Outcome) -> None:
    names = ("name", "slug", "color", "sort_order", "active")
    found = rows(outcome.url, "select id::text, name, slug, color, sort_order, active from categories")
    compare(outcome, "categories", {row[0]: dict(zip(names, row[1:], strict=True)) for row in found})


def check_posts(outcome: Outcome) -> None:
    names = (
        "title",
        "content",
        "published",
        "published_at",
        "tags",
        "category",
        "user",
        "view_count",
        "like_count",
        "created_at",
        "updated_at",
    )
    found = rows(
        outcome.url,
        "select id::text, title, content, published, published_at, tags, category_id::text,"
        " user_id::text, view_count, like_count, created_at, updated_at from posts",
    )
    stored = compare(outcome, "posts", {row[0]: dict(zip(names, row[1:], strict=True)) for row in found})
    marked = [base44_id for base44_id, values in outcome.truth["values"]["posts"].items() if values["unsafe"]]
    assert [base44_id for base44_id in marked if UNSAFE.search(stored[base44_id]["content"])] == []


# -- the exports beside the tests --------------------------------------------------------------------------------------


@pytest.fixture(params=DIALECTS)
def outcome(request: pytest.FixtureRequest, migrate_once: Callable[[str], Migrated]) -> Outcome:
    done = migrate_once(request.param)
    return Outcome(done.result, done.url, truth_of(done.export), request.param == "spreadsheet")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_command_succeeds_and_prints_one_json_object_and_nothing_else(
    dialect: str, migrate_once: Callable[[str], Migrated]
) -> None:
    result = migrate_once(dialect).result
    assert (result.status, result.complaints) == (0, [])
    report = result.report
    parts = ("migrated", "deduplicated", "quarantined", "pending", "unaccounted", "without_table")
    assert sum(report[name] for name in parts) == report["read"]
    assert report["read"] == sum(one["read"] for one in report["entities"].values())
    assert (report["verdict"], report["pending"], report["failed"]) == ("complete", 0, [])
    # The samples hold published posts of authors who were never verified, which are kept and reported.
    assert result.report["checks"]["warned"] == result.err.count("warning: posts publish_permissions: ") == 1
    assert result.report["checks"]["failed"] == 0
    assert result.report["checks"]["passed"] > 0
    for counts in result.report["entities"].values():
        assert set(counts) == {"read", "migrated", "deduplicated", "quarantined", "reasons", "repairs"}


def test_entities_come_to_what_the_truth_says(outcome: Outcome) -> None:
    check_counts(outcome, untold=UNTOLD_REPAIRS)


def test_every_record_is_accounted_for(outcome: Outcome) -> None:
    check_accounting(outcome)
    check_tables(outcome)


def test_posts_stand_in_the_partition_of_their_month(outcome: Outcome) -> None:
    check_months(outcome)


def test_users_hold_the_values_of_the_truth(outcome: Outcome) -> None:
    check_users(outcome)


def test_categories_hold_the_values_of_the_truth(outcome: Outcome) -> None:
    check_categories(outcome)


def test_posts_hold_the_values_of_the_truth_and_no_unsafe_html(outcome: Outcome) -> None:
    check_posts(outcome)


def test_the_dialect_is_found_from_the_file(outcome: Outcome, request: pytest.FixtureRequest) -> None:
    # Not asked of every file: without a null or a JSON cell in it, two of the dialects are the same.
    dialect = request.node.callspec.params["outcome"]
    assert value(outcome.url, "select dialect from migration.exports where entity = 'posts'") == dialect


def test_all_dialects_come_to_the_same_rows(migrate_once: Callable[[str], Migrated]) -> None:
    # A spreadsheet keeps no fraction of a second; all others hold the same records in another form.
    digests = {
        dialect: rows(
            migrate_once(dialect).url,
            "select md5(string_agg(p::text, '' order by id)) from posts p"
            " union all select md5(string_agg(u::text, '' order by id)) from users u"
            " union all select md5(string_agg(c::text, '' order by id)) from categories c",
        )
        for dialect in DIALECTS
        if dialect != "spreadsheet"
    }
    assert len({tuple(digest) for digest in digests.values()}) == 1, digests


# -- exports written on the spot ---------------------------------------------------------------------------------------


@pytest.mark.slow  # those beside the tests were written in the same way
@pytest.mark.parametrize(
    ("dialect", "seed", "faults"), [("2025-06", 3, 0.3), ("spreadsheet", 4, 0.5), ("jsonl", 6, 1.0)]
)
def test_written_sample_comes_out_as_its_truth_says(
    dialect: str, seed: int, faults: float, b44: Command, target: str, tmp_path: Path
) -> None:
    export = tmp_path / "export"
    write_sample(export, users=60, posts=300, seed=seed, dialect=dialect, faults=faults)
    result = b44.on(target)("migrate", "--export", export, "--json")
    assert (result.status, result.complaints) == (0, [])
    outcome = Outcome(result, target, truth_of(export), dialect == "spreadsheet")
    check_counts(outcome, untold=set())
    check_accounting(outcome)
    check_tables(outcome)
    check_months(outcome)
    check_users(outcome)
    check_categories(outcome)
    check_posts(outcome)


def test_exports_beside_the_tests_have_every_dialect() -> None:
    assert DIALECTS == ["2025-06", "2025-08", "2026-06", "json", "jsonl", "spreadsheet"]
    assert all((EXPORTS / dialect / "truth.json").exists() for dialect in DIALECTS)
