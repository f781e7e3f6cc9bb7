"""A line of a checklist is judged by its worst check, and by none that was never answered."""

from __future__ import annotations

import re

from b44_assets.migration.checklists import CHECKLISTS, evidence
from tests.helpers.migrated_apps import SHOP
from tests.helpers.paths import SQL_DIR

ALL = [line for lines in CHECKLISTS.values() for line in lines]


def test_a_line_is_as_its_worst_check_is() -> None:
    answers = [(name, "passed", "") for line in ALL for name in line.checks]
    assert {one.verdict for one in evidence(answers)} == {"passed", "not by a check"}
    worse = [*answers, ("content_parity", "failed", "2 rows differ"), ("disk_free", "warning", "5 % are left")]
    found = {(one.list, one.text): one for one in evidence(worse)}
    failed = found["Success", "all data is there, unharmed"]
    assert (failed.verdict, "content_parity: 2 rows differ" in failed.said) == ("failed", True)
    assert found["Monitoring", "processors, memory, disk"].verdict == "warning"


def test_what_was_never_asked_is_not_measured() -> None:
    assert {one.verdict for one in evidence([])} == {"not measured", "not by a check"}
    unknown = evidence([("statements_fast", "unknown", "")])
    assert [one.verdict for one in unknown if one.text == "slow queries"] == ["not measured"]


def test_queries_name_the_columns_that_they_ask_for() -> None:
    files = [path for app in (SQL_DIR, SHOP / "sql") for path in (app / "queries").glob("*.sql")]
    assert len(files) > 10
    assert [path.name for path in files if re.search(r"\bselect\s+(\w+\.)?\*", path.read_text("utf-8"), re.I)] == []
