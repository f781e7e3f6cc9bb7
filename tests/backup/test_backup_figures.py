"""The figures of the backups: how old, how good, and what the last drill has found."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path

import pytest

from b44_assets.backup.drill import Drill
from b44_assets.backup.figures import CHECKS, figures_of, read_backups
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.service import BackupContext
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring import Verdict
from tests.helpers.making import BAD, NOW, a_backup, stored_backup


def a_drill(days_ago: float, *, rpo: float = 60.0, rto: float = 120.0) -> Drill:
    at = NOW - timedelta(days=days_ago)
    return Drill(at, "20260101T000000Z-base", rpo, rto, 1, at, "0/1000000", 7, 100)


def answers(backups: list[Backup], drills: list[Drill], thresholds: str = "") -> dict[str, Verdict]:
    environ = {"B44_THRESHOLDS": thresholds} if thresholds else {}
    settings = Settings.load(environ, Path("/nonexistent"))
    reading = figures_of(backups, drills, NOW)
    return {check.name: check.judge(reading, settings) for check in CHECKS}


def test_a_new_good_backup_and_a_good_drill_are_well() -> None:
    found = answers([a_backup(days_ago=0.5)], [a_drill(3)])
    assert {name: verdict.passed for name, verdict in found.items()} == dict.fromkeys(found, True)


@pytest.mark.parametrize(
    "backups",
    [
        [],
        [a_backup(days_ago=0.1, verification=BAD)],
        [a_backup(days_ago=0.1, verification=None)],
        [a_backup(days_ago=2)],
        [a_backup(BackupKind.MIGRATION, days_ago=0.1)],
    ],
    ids=["empty store", "bad", "never verified", "stale", "migration tables only"],
)
def test_a_store_without_a_new_good_backup_is_told(backups: list[Backup]) -> None:
    verdict = answers(backups, [])["backup_new_enough"]
    assert not verdict.passed and "b44 backup" in verdict.text


def test_the_newest_good_backup_of_any_kind_counts() -> None:
    reading = figures_of(
        [a_backup(BackupKind.BASE, 6), a_backup(days_ago=1), a_backup(days_ago=0.1, verification=BAD)], [], NOW
    )
    assert reading.numbers["newest_good_seconds"] == pytest.approx(86400, rel=0.01)
    assert {row.labels["kind"] for row in reading.rows["newest_backups"]} == {"base", "logical"}


def test_what_the_last_drill_has_found_is_compared() -> None:
    assert not answers([], [])["recovery_rehearsed"].passed
    assert not answers([], [a_drill(40)])["recovery_rehearsed"].passed
    assert not answers([], [a_drill(9), a_drill(1, rpo=3600)])["recovery_point"].passed
    assert not answers([], [a_drill(1, rto=5 * 3600)])["recovery_time"].passed
    assert answers([], [a_drill(1, rto=5 * 3600)], "recovery_time=6h")["recovery_time"].passed


def test_the_store_is_read(tmp_path: Path) -> None:
    context = BackupContext.of(Settings.load({"B44_BACKUP_URL": str(tmp_path / "store")}, tmp_path))
    assert read_backups(context).numbers["backups"] == 0
    stored_backup(context.catalogue, a_backup(days_ago=1))
    assert read_backups(context).numbers["backups"] == 1
