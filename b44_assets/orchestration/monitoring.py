"""What is measured of a live server, as assets with numbers that are plotted, checks, and schedules."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import dagster as dg

from b44_assets.backup import figures
from b44_assets.config.settings import Settings
from b44_assets.maintenance import monitoring
from b44_assets.maintenance.monitoring import Check, Interval, Reading
from b44_assets.orchestration import backup
from b44_assets.orchestration.common import Answer
from b44_assets.orchestration.metadata import Metadata, named_lists, table
from b44_assets.orchestration.operations import (
    AnyOperation,
    Context,
    Measurement,
    Round,
    all_tables,
    numbers_before,
    with_backup_context,
)
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import ScheduledJob

_ROUND = ScheduledJob(
    Interval.ROUND.value,
    "Measures the server and the database, for the plots and checks of the assets in group monitoring.",
    cron="*/15 * * * *",
    schedule="Every quarter of an hour: sessions, locks, disks, sizes and all else that costs little to look at.",
    overdue_after=timedelta(minutes=40),
)
_DAILY = ScheduledJob(
    Interval.DAILY.value,
    "Measures what is read from the tables themselves, or changes seldom.",
    cron="15 5 * * *",
    schedule="Every morning: bloat, settings.",
    overdue_after=timedelta(hours=26),
)
_BACKUPS = ScheduledJob(
    "monitoring_backups",
    "Asks whether the newest good backup is new enough, also where there is none.",
    cron="20 * * * *",
    schedule="Every hour: the age of the backups.",
    overdue_after=timedelta(hours=2),
)
_JOBS = {Interval.ROUND: _ROUND, Interval.DAILY: _DAILY}


def metadata_of(reading: Reading) -> Metadata:
    """Numbers of the whole as they are, those of single objects as a table a part, and what could not be seen."""
    # What is true of the whole comes first.
    numbers = {**reading.numbers, **reading.plotted, **reading.numbers}
    facts: Metadata = {name: round(value, 6) for name, value in numbers.items()}
    for part, rows in reading.rows.items():
        if not rows:
            continue
        names = (*rows[0].labels, *dict.fromkeys(name for row in rows for name in row.numbers))
        facts[f"each_{part}"] = table(
            names, [tuple(_cell(name, {**row.labels, **row.numbers}.get(name)) for name in names) for row in rows]
        )
    return facts | named_lists(not_seen=reading.unseen, notes=reading.notes)


def _cell(name: str, value: str | float | None) -> str | int:
    """Bytes and counts as numbers, which line up; times and shares in words."""
    if value is None:
        return ""
    return f"{value:.3f}" if isinstance(value, float) else value


def _judging(checks: Sequence[Check]) -> Callable[[Reading, Settings], Mapping[str, Answer]]:
    def judge(reading: Reading, settings: Settings) -> Mapping[str, Answer]:
        verdicts = {check.name: (check, check.judge(reading, settings)) for check in checks}
        return {
            name: Answer(verdict.passed, verdict.text, {}, check.warns_of(verdict))
            for name, (check, verdict) in verdicts.items()
        }

    return judge


def _measurement(one: monitoring.Measurement) -> Measurement[Reading]:
    key = dg.AssetKey(["monitoring", one.name])

    def measure(context: Context, migration: Migration) -> Reading:
        before = numbers_before(context, key)
        with (
            migration.session(context, reads=True) as session,
            monitoring.monitoring(session, migration.settings) as monitor,
        ):
            return monitor.take(one, before)

    return Measurement(
        key,
        one.description,
        measure,
        metadata_of,
        upstream=all_tables if one.of_tables else lambda _: (),
        job=_JOBS[one.interval],
        checks={check.name: check.meaning for check in one.checks},
        judge=_judging(one.checks),
    )


def _round(interval: Interval) -> Round:
    return Round(
        _JOBS[interval],
        tuple(_measurement(one) for one in monitoring.MEASUREMENTS if one.interval is interval),
    )


BACKUPS = Measurement(
    dg.AssetKey(["monitoring", figures.NAME]),
    "How old the newest good backup is, what the store holds, and what the last rehearsal of a recovery has found (RPO, RTO).",
    with_backup_context(lambda _, backup_context: figures.read_backups(backup_context)),
    metadata_of,
    upstream=lambda _: [operation.key for operation in backup.OPERATIONS],
    job=_BACKUPS,
    checks={check.name: check.meaning for check in figures.CHECKS},
    judge=_judging(figures.CHECKS),
)

OPERATIONS: tuple[AnyOperation, ...] = (_round(Interval.ROUND), _round(Interval.DAILY), BACKUPS)
