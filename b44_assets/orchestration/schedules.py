"""When what is done by itself: the schedules, and how old what they refresh may grow."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta

import dagster as dg

REFRESH_JOB = "refresh_stats"
PARTITIONS_JOB = "manage_partitions"
STATISTICS_JOB = "statistics"
MAINTENANCE_JOB = "maintenance"
MONITORING_JOB = "monitoring"
FORGET_JOB = "forget_old_runs"
LOGICAL_BACKUP_JOB = "logical_backup"
BASE_BACKUP_JOB = "base_backup"
INCREMENTAL_BACKUP_JOB = "incremental_backup"
WAL_JOB = "wal_archive"
CATALOGUE_JOB = "review_backups"
DRILL_JOB = "recovery_drill"


@dataclass(frozen=True)
class Entry:
    """A line of the timetable.

    Attributes:
        job: What is run.
        cron: When, in UTC.
        within: From which age on the UI calls what it refreshes overdue; None where it refreshes no asset.
        description: One line.
    """

    job: str
    cron: str
    within: timedelta | None
    description: str

    @property
    def freshness(self) -> dg.FreshnessPolicy | None:
        """The policy of the assets that it refreshes: its interval and some patience."""
        return None if self.within is None else dg.FreshnessPolicy.time_window(fail_window=self.within)


TIMETABLE = {
    entry.job: entry
    for entry in (
        Entry(REFRESH_JOB, "0 */6 * * *", timedelta(hours=7), "Every six hours: the materialized views."),
        Entry(PARTITIONS_JOB, "0 2 1 * *", timedelta(days=32), "On the first of each month: the partitions ahead."),
        Entry(STATISTICS_JOB, "30 3 * * *", timedelta(hours=26), "Every night: what the planner knows, and dead rows."),
        Entry(MAINTENANCE_JOB, "0 4 * * 0", timedelta(days=8), "On Sundays: bloated indexes."),
        Entry(MONITORING_JOB, "0 * * * *", timedelta(hours=2), "Every hour: sizes and growth."),
        Entry(FORGET_JOB, "0 5 * * 0", None, "On Sundays: runs older than B44_KEEP_RUNS_DAYS."),
        Entry(LOGICAL_BACKUP_JOB, "0 1 * * *", timedelta(hours=26), "Every night: a dump of the database."),
        Entry(BASE_BACKUP_JOB, "30 1 * * 0", timedelta(days=8), "On Sundays: a copy of the whole cluster."),
        Entry(
            INCREMENTAL_BACKUP_JOB, "30 1 * * 1-6", timedelta(hours=50), "On the other days: what has changed since."
        ),
        Entry(
            WAL_JOB, "*/5 * * * *", timedelta(minutes=15), "Every five minutes: the WAL that the server has archived."
        ),
        Entry(
            CATALOGUE_JOB, "0 6 * * *", timedelta(hours=26), "Every morning: proofs that grow old, backups that expire."
        ),
        Entry(DRILL_JOB, "0 6 15 * *", timedelta(days=32), "Every month: a recovery as if the server were lost."),
    )
}
