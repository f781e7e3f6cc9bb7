"""Figures of the backups for monitoring: how old the newest good one is, and what the last rehearsal of a recovery has found."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from b44_assets.backup.drill import Drill, history
from b44_assets.backup.model import Backup
from b44_assets.backup.service import BackupContext, survey
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring.judging import at_most, span
from b44_assets.maintenance.monitoring.model import Check, Number, Reading, Row, Verdict

NAME = "backups"


def read_backups(backup_context: BackupContext) -> Reading:
    """Measures the store, which may be empty.

    Raises:
        BackupError: The store does not answer, or a record of a drill is damaged.
    """
    found = survey(backup_context)
    return figures_of(found.listing.backups, history(backup_context.catalogue), found.at)


def figures_of(backups: Sequence[Backup], drills: Sequence[Drill], at: datetime) -> Reading:
    """The figures of what a store holds.

    Args:
        backups: All of it.
        drills: By time.
        at: Now, with its zone.
    """
    of_data = [backup for backup in backups if backup.kind.of_database]
    ages = {
        kind: min((at - backup.ended_at).total_seconds() for backup in of_data if backup.kind is kind and backup.good)
        for kind in {backup.kind for backup in of_data if backup.good}
    }
    numbers: dict[str, Number] = {
        "backups": len(of_data),
        "good": sum(backup.good for backup in of_data),
        "bytes": sum(backup.size for backup in of_data),
        "drills": len(drills),
    }
    if ages:
        numbers["newest_good_seconds"] = max(min(ages.values()), 0.0)
    restored = [backup for backup in of_data if backup.good and backup.verification is not None]
    if restored:
        newest = max(restored, key=lambda backup: backup.ended_at)
        assert newest.verification is not None
        numbers["restored_in_seconds"] = newest.verification.seconds
    if drills:
        last = drills[-1]
        numbers |= {
            "last_drill_seconds": max((at - last.began_at).total_seconds(), 0.0),
            "recovery_point_seconds": last.rpo_seconds,
            "recovery_time_seconds": last.rto_seconds,
        }
    rows = tuple(Row({"kind": str(kind)}, {"newest_good_seconds": age}) for kind, age in sorted(ages.items()))
    return Reading(NAME, at, numbers, {"newest_backups": rows})


def _new_enough(reading: Reading, settings: Settings) -> Verdict:
    if "newest_good_seconds" not in reading.numbers:
        bad = " that was restored and found equal to its source" if reading.numbers["backups"] else ""
        return Verdict(False, f"there is no backup{bad}: take one by `b44 backup`, and turn logical_backup_schedule on")
    return at_most(
        "newest_good_seconds",
        "backup_age",
        span,
        "the newest good backup is so old:",
        "take one by `b44 backup`; see why the schedules of the backups do not (job review_backups names what failed)",
    )(reading, settings)


def _drilled(reading: Reading, settings: Settings) -> Verdict:
    if "last_drill_seconds" not in reading.numbers:
        return Verdict(
            False, "no recovery was rehearsed: `b44 drill` measures what would be lost and how long it would take"
        )
    return at_most(
        "last_drill_seconds",
        "drill_age",
        span,
        "the last drill is so long ago:",
        "rehearse the recovery by `b44 drill`",
    )(reading, settings)


CHECKS = (
    Check("backup_new_enough", "The newest good backup is new enough; an empty store is not.", _new_enough),
    Check("recovery_rehearsed", "A recovery was rehearsed, not too long ago.", _drilled, warns=True),
    Check(
        "recovery_point",
        "As the last drill found, little would be lost.",
        at_most(
            "recovery_point_seconds",
            "recovery_point",
            span,
            "in the last drill would have been lost what was written within",
            "archive the WAL (`b44 db archiving`), and turn wal_archive_schedule on",
            absent="no drill has measured it yet",
        ),
    ),
    Check(
        "recovery_time",
        "As the last drill found, recovery does not take too long.",
        at_most(
            "recovery_time_seconds",
            "recovery_time",
            span,
            "the last drill took",
            "take base backups more often, so that less WAL has to be replayed, or a faster store",
            absent="no drill has measured it yet",
        ),
    ),
)
