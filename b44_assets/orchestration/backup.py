"""Backups: what was taken, what the store holds, what a rehearsal measured. Each is one object, listed in OPERATIONS."""

from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta

import dagster as dg

from b44_assets.backup.drill import Drill
from b44_assets.backup.health import Health
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.retention import Expiry
from b44_assets.backup.service import (
    VERIFY_AGAIN_AFTER,
    BackedUp,
    BackupContext,
    Survey,
    back_up,
    expire,
    look_at_archiving,
    newest_is_good,
    nothing_is_broken,
    rehearse,
    ship_wal,
    survey,
    verify_again,
    wal_is_whole,
)
from b44_assets.backup.wal_spool import Shipped
from b44_assets.orchestration.common import BACKUP_TAGS, Answer
from b44_assets.orchestration.metadata import LISTED, Metadata, named_lists, table
from b44_assets.orchestration.operations import Operation, Upstream, all_tables, with_backup_context
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import ScheduledJob


def of_backup(done: BackedUp) -> Metadata:
    """A backup: what it is, and whether it was verified."""
    backup, verification = done.backup, done.backup.verification
    facts: Metadata = {
        "backup": backup.id,
        "bytes": backup.size,
        "seconds": (backup.ended_at - backup.began_at).total_seconds(),
        "rows": sum(table.rows for table in backup.state.tables.values()),
        "encrypted": backup.encrypted,
        "good": backup.good,
        "files": table(("file", "bytes", "sha256"), [(file.name, file.size, file.sha256) for file in backup.files]),
    }
    if backup.parent is not None:
        facts["needs"] = backup.parent
    if verification is not None:
        facts["restored_in_seconds"] = verification.seconds
        facts |= named_lists(differences=verification.differences)
    if done.unverified is not None:
        facts["unverified"] = done.unverified
    return facts


def of_shipped(shipped: Shipped) -> Metadata:
    """WAL that was taken to the store."""
    return {
        "files": shipped.files,
        "bytes": shipped.bytes,
        "waiting": shipped.waiting.files,
        **named_lists(refused=shipped.refused),
    }


def of_catalogue(backups: Sequence[Backup], verified: int, expired: Expiry) -> Metadata:
    """What the store holds, and what has gone."""
    rows = [
        (one.id, one.database, one.size, one.parent or "", "yes" if one.good else "no")
        for one in reversed(backups[-LISTED:])
    ]
    return {
        "backups": len(backups),
        "good": sum(one.good for one in backups),
        "bytes": sum(one.size for one in backups),
        "verified_now": verified,
        "removed": len(expired.backups),
        "removed_bytes": expired.size,
        "newest": table(("backup", "database", "bytes", "needs", "good"), rows),
    }


def of_drill(done: Drill) -> Metadata:
    """What a rehearsal of a recovery measured; numbers, so that the UI plots their history."""
    return {
        "backup": done.backup,
        "rpo_seconds": done.rpo_seconds,
        "rto_seconds": done.rto_seconds,
        "lost_transactions": done.lost_transactions,
        "tables": done.tables,
        "rows": done.rows,
    }


def _job(name: str, asset: str, cron: str, schedule: str, overdue_after: timedelta) -> ScheduledJob:
    # Started by hand, a job is of no day.
    _, _, what = schedule.partition(": ")
    description = f"{what[0].upper()}{what[1:]} Materializes backup/{asset} and checks it."
    return ScheduledJob(name, description, cron, schedule, overdue_after, BACKUP_TAGS)


def _judged(
    look: Callable[[BackupContext, Survey], Mapping[str, Health]],
) -> Callable[[Migration], Mapping[str, Answer]]:
    """Answers from one look at the store."""

    def judge(migration: Migration) -> Mapping[str, Answer]:
        with migration.failing_in_one_line():
            backup_context = BackupContext.of(migration.settings)
            found = look(backup_context, survey(backup_context))
        return {name: Answer(health.ok, "; ".join(health.lines)) for name, health in found.items()}

    return judge


def _backup(
    kind: BackupKind,
    description: str,
    upstream: Upstream,
    *,
    cron: str,
    schedule: str,
    overdue_after: timedelta,
) -> Operation:
    """A kind of backup: it is taken, restored and compared, and the newest good one must not grow too old."""

    def taken(context: dg.AssetExecutionContext, backup_context: BackupContext) -> Metadata:
        done = back_up(backup_context, kind, tell=context.log.info)
        if done.unverified is not None:
            context.log.warning(f"{done.backup.id} is taken and could not be restored here: {done.unverified}")
        return of_backup(done)

    name = "newest_is_good"
    return Operation(
        dg.AssetKey(["backup", kind.value]),
        description,
        with_backup_context(taken),
        upstream,
        job=_job(f"{kind.value}_backup", kind.value, cron, schedule, overdue_after),
        checks={name: f"The newest {kind} backup that was restored and found equal to its source is new enough."},
        judge=_judged(lambda _, found: {name: newest_is_good(found, kind, overdue_after)}),
    )


LOGICAL = _backup(
    BackupKind.LOGICAL,
    "A dump of the database (pg_dump), restored into a scratch server and compared before it counts as good.",
    all_tables,
    cron="0 1 * * *",
    schedule="Every night: a dump of the database.",
    overdue_after=timedelta(hours=26),
)

BASE = _backup(
    BackupKind.BASE,
    "A copy of the whole cluster with the WAL that it needs (pg_basebackup), restored and compared likewise."
    " Recovery to a point in time begins with one.",
    all_tables,
    cron="30 1 * * 0",
    schedule="On Sundays: a copy of the whole cluster.",
    overdue_after=timedelta(days=8),
)

INCREMENTAL = _backup(
    BackupKind.INCREMENTAL,
    "What has changed in the cluster since the newest good base or incremental backup; restored and"
    " compared together with what it needs. PostgreSQL 17 or newer.",
    lambda _: [BASE.key],
    cron="30 1 * * 1-6",
    schedule="On the other days: what has changed in the cluster since the last backup of it.",
    overdue_after=timedelta(hours=50),
)


def _ship(context: dg.AssetExecutionContext, backup_context: BackupContext) -> Metadata:
    shipped = ship_wal(backup_context, context.log.info)
    for line in shipped.refused:
        context.log.error(line)
    return of_shipped(shipped)


def _archive_health(backup_context: BackupContext, found: Survey) -> Mapping[str, Health]:
    state = look_at_archiving(backup_context)
    return {**wal_is_whole(backup_context, found), "archiving_works": Health(state.works, (state.explanation,))}


WAL = Operation(
    dg.AssetKey(["backup", "wal"]),
    "What the server has archived of its WAL, taken to the store: with it a recovery reaches any point in time.",
    with_backup_context(_ship),
    upstream=lambda _: [BASE.key],
    job=_job(
        "wal_archive",
        "wal",
        "*/5 * * * *",
        "Every five minutes: the WAL that the server has archived.",
        timedelta(minutes=15),
    ),
    checks={
        "no_gap": "The archive has every segment since the base backups.",
        "keeps_up": "What the server archives gets to the store.",
        "archiving_works": "The server archives its WAL, and no attempt has failed since the last success.",
    },
    judge=_judged(_archive_health),
)


def _review(context: dg.AssetExecutionContext, backup_context: BackupContext) -> Metadata:
    done, unverified = verify_again(backup_context, VERIFY_AGAIN_AFTER, context.log.info)
    for line in unverified:
        context.log.warning(line)
    expired = expire(backup_context, tell=lambda path: context.log.info(f"removed {path}"))
    return of_catalogue(backup_context.catalogue.backups(), len(done), expired)


CATALOGUE = Operation(
    dg.AssetKey(["backup", "catalogue"]),
    "Every backup of the store. Those that were last verified four weeks ago are restored and compared anew; those that are"
    " older than B44_KEEP_BACKUPS_DAYS and not needed are removed.",
    with_backup_context(_review),
    upstream=lambda _: [LOGICAL.key, BASE.key, INCREMENTAL.key, WAL.key],
    job=_job(
        "review_backups",
        "catalogue",
        "0 6 * * *",
        "Every morning: verifications that grow old, backups that expire.",
        timedelta(hours=26),
    ),
    checks={
        "records_readable": "Every record of the catalogue can be read.",
        "chains_whole": "All that an incremental backup needs is there and good.",
        "backups_verified": "Every backup was restored and found equal to its source, not too long ago.",
        "nothing_failed_silently": "No backup was begun that came to nothing.",
    },
    judge=_judged(lambda _, found: nothing_is_broken(found)),
)

DRILL = Operation(
    dg.AssetKey(["backup", "drill"]),
    "A recovery as if the server were lost, from the store alone: what would be lost (RPO) and how long it takes (RTO).",
    with_backup_context(lambda context, backup_context: of_drill(rehearse(backup_context, context.log.info))),
    upstream=lambda _: [BASE.key, WAL.key],
    job=_job(
        "recovery_drill",
        "drill",
        "0 6 15 * *",
        "Every month: a recovery as if the server were lost.",
        timedelta(days=32),
    ),
)

OPERATIONS = (LOGICAL, BASE, INCREMENTAL, WAL, CATALOGUE, DRILL)
"""No part of a migration: a database may be migrated, and verified, before it has its first backup."""


def report(instance: dg.DagsterInstance, done: BackedUp) -> None:
    """Enters a backup that was taken outside of a run."""
    key = dg.AssetKey(["backup", done.backup.kind.value])
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=of_backup(done)))
