"""After the first migration: newer exports, corrections, taking back, and the cut-over, as people meet them."""

from __future__ import annotations

import csv
import hashlib
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from b44_assets.postgres.connect import connect
from tests.helpers.command import Command
from tests.helpers.database_contents import rows, value
from tests.helpers.migrated_apps import Migrated

NEWER = "2099-01-01T00:00:00.000000"


@pytest.fixture
def newer(migrated: Migrated, tmp_path: Path) -> Path:
    """The export again: the first three sound posts have newer versions, and the last record is gone."""
    folder = tmp_path / "newer"
    shutil.copytree(migrated.export, folder)
    path = folder / "Post_export.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        header, *records = list(csv.reader(stream))
    title, updated = header.index("title"), header.index("updated_date")
    kept = {row[0] for row in rows(migrated.url, "select base44_id from migration.migrated where entity = 'posts'")}
    sound = [record for record in records if record[header.index("id")] in kept]
    for record in sound[:3]:
        record[title], record[updated] = f"Newer {record[title]}"[:200], NEWER
    records.remove(sound[-1])
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([header, *records])
    return folder


def run(url: str, statement: str) -> None:
    with connect(url, autocommit=True) as conn:
        conn.execute(statement.encode())


def test_a_cut_over_is_the_last_delta_and_a_page_to_sign(finished: str, newer: Path, b44: Command) -> None:
    run(
        finished,
        "update posts set title = 'Edited here', updated_at = now() where slug = (select min(slug) from posts)",
    )
    page = b44.directory / "signed.html"
    result = b44.on(finished)("cutover", "--export", newer, "--by", "Ada <L>", "--output", page, "--accept-quarantine")
    assert result.status == 0, result
    assert result.out.splitlines()[-1].endswith(": complete")
    assert f"Signed off: {page}" in result.out
    assert "notice: There is no backup of" in result.err
    assert "Write freeze that this needed: " in result.out
    assert value(finished, "select count(*) from posts where title like 'Newer %'") >= 2
    text = page.read_text("utf-8")
    assert "Signed off by Ada &lt;L&gt;." in text
    # What is not in the database is said before all that is.
    assert 0 < text.index("in quarantine and not in this database") < text.index("What became of every record")
    match = re.search(r'<script type="application/json" id="facts">(.*)</script>', text)
    assert match
    told = match[1].replace("\\u003c", "<")
    assert hashlib.sha256(told.encode()).hexdigest() in text
    facts: dict[str, Any] = json.loads(told)
    assert facts["cutover"]["held"] is True
    assert {check[2] for check in facts["cutover"]["checks"]} <= {"passed", "warning"}
    assert {one["entity"]: one["vanished"] for one in facts["accounts"]}["posts"] == 1


def test_a_cut_over_without_the_quarantined_records_is_not_signed_unless_somebody_says_so(
    migrated: Migrated, finished: str, b44: Command
) -> None:
    quarantined = value(finished, "select sum(quarantined)::int from migration.accounting")
    result = b44.on(finished)("cutover", "--export", migrated.export, "--json")
    assert (result.status, result.report["signed_off"], result.report["verdict"]) == (1, False, "failed")
    assert result.report["quarantined"] == quarantined > 0
    (said,) = [line for line in result.complaints if line.startswith("b44: ")]
    assert said.startswith(f"b44: {quarantined} records are in quarantine ")
    assert "--accept-quarantine" in said
    assert "Not signed off:" in Path(result.report["report"]).read_text("utf-8")


@pytest.mark.slow
def test_a_cut_over_that_does_not_hold_is_not_signed(finished: str, newer: Path, b44: Command) -> None:
    run(finished, "delete from posts where slug = (select max(slug) from posts)")
    result = b44.on(finished)("cutover", "--export", newer, "--accept-quarantine")
    assert result.status == 1
    assert result.out.splitlines()[-1].endswith(": failed")
    (page,) = b44.directory.glob("cutover-*.html")
    assert f"NOT signed off: {page}" in result.out
    assert "Not signed off:" in page.read_text("utf-8")


def test_a_report_of_the_state_is_one_page(finished: str, b44: Command) -> None:
    result = b44.on(finished)("report")
    assert result.status == 0
    assert result.out.splitlines()[-1].endswith(": complete")
    printed = b44.on(finished)("report", "--json").report
    assert (printed["verdict"], printed["report"]) == ("complete", str(b44.directory / "report.html"))
    text = (b44.directory / "report.html").read_text("utf-8")
    assert "What became of every record" in text
    assert not re.search(r'(?:src|href)="', text)
    assert "There is no backup of" in text
    facts = json.loads(re.search(r'id="facts">(.*?)</script>', text, re.S)[1].replace("\\u003c", "<"))  # type: ignore[index]
    assert f">{result.out.splitlines()[-1]}</p>" in text
    assert facts["verdict"]["verdict"] == "complete"
    found = {(one["asset"], one["name"]): one["outcome"] for one in facts["checks"]}
    assert found[("posts", "row_parity")] == "passed"
    measured = {one["name"]: one for one in facts["measured"]}
    assert measured["connections"]["figures"]["used_ratio"] >= 0
    assert [name for name, _, _ in measured["connections"]["checks"]] != []


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["rollback"], "either --run ID or --partition YYYY-MM"),
        (["rollback", "--run", "x", "--partition", "2026-01"], "either --run ID or --partition YYYY-MM"),
        (["rollback", "--partition", "2026-13"], "--partition"),
        (["replay", "--entity", "nobody"], "no table nobody"),
        (["cutover"], "no export"),
    ],
)
def test_a_wrong_option_is_one_line_and_status_2(arguments: list[str], named: str, target: str, b44: Command) -> None:
    result = b44.on(target)(*arguments)
    assert (result.status, named in result.fault) == (2, True)


@pytest.mark.parametrize("command", [["replay"], ["rollback", "--run", "x"], ["report"]])
def test_where_nothing_was_migrated_it_says_so(command: list[str], target: str, b44: Command) -> None:
    result = b44.on(target)(*command)
    assert result.status == 1
    assert "nothing has been migrated into this database yet" in result.fault
