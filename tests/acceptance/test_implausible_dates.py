"""Dates that nobody means (9999 for "never", the year 1 for "not set"), from the first run to the way back."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

from tests.helpers.command import Command
from tests.helpers.database_contents import rows, value
from tests.helpers.records import object_id, post, user

DAYS = ("9999-12-31T23:59:59.9999999Z", "9999-12-31", "0001-01-01T00:00:00Z", "0202-05-06", "1900-01-01")
# What an older version has made on its way to them, or a person by hand.
LEFT = """
select create_monthly_partition(day) from unnest(array[date '9999-12-31', '0001-01-01', '0202-05-06']) day;
select b44.create_partition('audit_logs', 'year', day)
  from unnest(array[date '9999-12-31', '0001-01-01', '1900-01-01']) day;
create table posts_9999_11 (like posts);
"""


def write(folder: Path, days: Mapping[int, str]) -> Path:
    """An export of as many posts and audit logs as there are days."""
    folder.mkdir()
    logs = [
        {"id": object_id(n), "table_name": "posts", "record_id": object_id(1), "action": "update", "timestamp": day}
        for n, day in days.items()
    ]
    posts = [post(n, created_date=day) for n, day in days.items()]
    for entity, records in {"User": [user(1)], "Post": posts, "AuditLog": logs}.items():
        (folder / f"{entity}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return folder


def test_no_date_stops_a_run_or_bars_the_way_on(b44: Command, lean_sql: Path, target: str, tmp_path: Path) -> None:
    days = dict(enumerate(DAYS, 2))
    # A table more, and a partition for each month since, take their time in each of the runs.
    others = shutil.ignore_patterns("user_*", "events*")
    few = shutil.copytree(lean_sql, tmp_path / "sql", ignore=others)
    command = b44.on(target).having(B44_SQL_DIR=str(few), B44_FIRST_MONTH="2026-05")
    first = command("migrate", "--export", write(tmp_path / "first", {1: "2026-05-06", **days}), "--json")
    assert first.status == 0, first
    for table, reason in (("posts", "implausible:created_at"), ("audit_logs", "implausible:timestamp")):
        counts = first.report["entities"][table]
        assert (counts["read"], counts["migrated"], counts["reasons"]) == (6, 1, {reason: 5})

    rows(target, LEFT + "select 1")
    for month in ("9999-12", "0001-01", "0202-05"):
        assert command("rollback", "--partition", month, "--json").status == 0
    again = command("migrate", "--export", tmp_path / "first", "--json")
    assert (again.status, again.report["checks"]["failed"]) == (0, 0), again

    rows(
        target,
        'update migration.quarantine set record = record || \'{"created_date": "2026-06-07"}\''
        " where entity = 'posts' and base44_id = %s returning 1",
        object_id(2),
    )
    replayed = command("replay", "--json")
    assert replayed.status == 0, replayed
    assert value(target, "select count(*) from posts_2026_06") == 1

    corrected = write(tmp_path / "corrected", dict.fromkeys(range(1, 7), "2026-05-06"))
    last = command("migrate", "--export", corrected, "--json")
    assert (last.status, last.report["checks"]["failed"]) == (0, 0), last
    assert [last.report["entities"][table]["migrated"] for table in ("posts", "audit_logs")] == [6, 6]

    runs = rows(target, "select distinct run_id from migration.migration_log")
    for (run,) in runs:
        assert command("rollback", "--run", run, "--json").status == 0
    assert value(target, "select count(*) from posts") == 0
    assert command("migrate", "--export", corrected, "--json").status == 0
    assert value(target, "select count(*) from posts") == 6
