"""Backups as assets, with their checks: what was taken, what the store holds, what a rehearsal measured."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

import dagster as dg

from b44_assets.backup.health import Health
from b44_assets.backup.model import BackupKind
from b44_assets.backup.service import (
    VERIFY_AGAIN_AFTER,
    BackedUp,
    Survey,
    Vault,
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
from b44_assets.catalog import Catalog, Kind
from b44_assets.orchestration import metadata
from b44_assets.orchestration.assets import key_of, operation
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import (
    BASE_BACKUP_JOB,
    CATALOGUE_JOB,
    DRILL_JOB,
    INCREMENTAL_BACKUP_JOB,
    LOGICAL_BACKUP_JOB,
    TIMETABLE,
    WAL_JOB,
)

LOGICAL_KEY = dg.AssetKey(["backup", "logical"])
BASE_KEY = dg.AssetKey(["backup", "base"])
INCREMENTAL_KEY = dg.AssetKey(["backup", "incremental"])
WAL_KEY = dg.AssetKey(["backup", "wal"])
CATALOGUE_KEY = dg.AssetKey(["backup", "catalogue"])
DRILL_KEY = dg.AssetKey(["backup", "drill"])
KEY_OF_KIND = {
    BackupKind.LOGICAL: LOGICAL_KEY,
    BackupKind.BASE: BASE_KEY,
    BackupKind.INCREMENTAL: INCREMENTAL_KEY,
}
OF_BACKUP = (*KEY_OF_KIND.values(), WAL_KEY, CATALOGUE_KEY, DRILL_KEY)
"""No part of a migration: a database may be migrated, and verified, before it has its first backup."""

_JOBS = {
    BackupKind.LOGICAL: LOGICAL_BACKUP_JOB,
    BackupKind.BASE: BASE_BACKUP_JOB,
    BackupKind.INCREMENTAL: INCREMENTAL_BACKUP_JOB,
}
_DESCRIPTIONS = {
    BackupKind.LOGICAL: "A dump of the database (pg_dump), restored into a scratch server and compared before it counts as good.",
    BackupKind.BASE: "A copy of the whole cluster with the WAL that it needs (pg_basebackup), restored and compared likewise."
    " Recovery to a point in time begins with one.",
    BackupKind.INCREMENTAL: "What has changed in the cluster since the newest good base or incremental backup; restored and"
    " compared together with what it needs. PostgreSQL 17 or newer.",
}


def build_backups(catalog: Catalog) -> list[dg.AssetsDefinition]:
    """The assets of the group backup."""
    tables = [key_of(spec.name) for spec in catalog.of(Kind.TABLE)]
    return [
        _backup(BackupKind.LOGICAL, tables),
        _backup(BackupKind.BASE, tables),
        _backup(BackupKind.INCREMENTAL, [BASE_KEY]),
        operation(
            WAL_KEY,
            "What the server has archived of its WAL, taken to the store: with it a recovery reaches any point in time.",
            [BASE_KEY],
            _on_vault(_shipped),
            job=WAL_JOB,
        ),
        operation(
            CATALOGUE_KEY,
            "Every backup of the store. Those whose last proof is four weeks old are restored and compared anew; those that are"
            " older than B44_KEEP_BACKUPS_DAYS and not needed are removed.",
            [LOGICAL_KEY, BASE_KEY, INCREMENTAL_KEY, WAL_KEY],
            _on_vault(_reviewed),
            job=CATALOGUE_JOB,
        ),
        operation(
            DRILL_KEY,
            "A recovery as if the server were lost, from the store alone: what would be lost (RPO) and how long it takes (RTO).",
            [BASE_KEY, WAL_KEY],
            _on_vault(lambda context, vault: metadata.of_drill(rehearse(vault, context.log.info))),
            job=DRILL_JOB,
        ),
    ]


def build_backup_checks() -> list[dg.AssetChecksDefinition]:
    """The checks of the group backup."""
    return [
        *(_newest(kind) for kind in KEY_OF_KIND),
        _checks(
            CATALOGUE_KEY,
            {
                "records_readable": "Every record of the catalogue can be read.",
                "chains_whole": "All that an incremental backup needs is there and good.",
                "backups_verified": "Every backup was restored and found equal to its source, not too long ago.",
                "nothing_failed_silently": "No backup was begun that came to nothing.",
            },
            lambda vault, found: nothing_is_broken(found),
        ),
        _checks(
            WAL_KEY,
            {
                "no_gap": "The archive has every segment since the base backups.",
                "keeps_up": "What the server archives gets to the store.",
                "archiving_works": "The server archives its WAL, and no attempt has failed since the last success.",
            },
            lambda vault, found: {**wal_is_whole(vault, found), "archiving_works": _archiving(vault)},
        ),
    ]


def report(instance: dg.DagsterInstance, done: BackedUp) -> None:
    """Enters a backup that was taken outside of a run."""
    key = KEY_OF_KIND[done.backup.kind]
    instance.report_runless_asset_event(dg.AssetMaterialization(key, metadata=metadata.of_backup(done)))


def _archiving(vault: Vault) -> Health:
    state = look_at_archiving(vault)
    return Health(state.works, (state.explanation,))


def _backup(kind: BackupKind, deps: Sequence[dg.AssetKey]) -> dg.AssetsDefinition:
    def taken(context: dg.AssetExecutionContext, vault: Vault) -> dict[str, Any]:
        done = back_up(vault, kind, tell=context.log.info)
        if done.unproven is not None:
            context.log.warning(f"{done.backup.id} is taken and could not be restored here: {done.unproven}")
        return metadata.of_backup(done)

    return operation(KEY_OF_KIND[kind], _DESCRIPTIONS[kind], deps, _on_vault(taken), job=_JOBS[kind])


def _shipped(context: dg.AssetExecutionContext, vault: Vault) -> dict[str, Any]:
    shipped = ship_wal(vault, context.log.info)
    for line in shipped.refused:
        context.log.error(line)
    return metadata.of_shipped(shipped)


def _reviewed(context: dg.AssetExecutionContext, vault: Vault) -> dict[str, Any]:
    done, unproven = verify_again(vault, VERIFY_AGAIN_AFTER, context.log.info)
    for line in unproven:
        context.log.warning(line)
    expired = expire(vault, tell=lambda path: context.log.info(f"removed {path}"))
    return metadata.of_catalogue(vault.catalogue.backups(), len(done), expired)


def _on_vault(
    work: Callable[[dg.AssetExecutionContext, Vault], dict[str, Any]],
) -> Callable[[dg.AssetExecutionContext, Migration], dict[str, Any]]:
    def done(context: dg.AssetExecutionContext, migration: Migration) -> dict[str, Any]:
        with migration.failing_in_one_line():
            return work(context, Vault.of(migration.settings))

    return done


def _newest(kind: BackupKind) -> dg.AssetChecksDefinition:
    within = TIMETABLE[_JOBS[kind]].within or timedelta.max
    name = "newest_is_good"
    return _checks(
        KEY_OF_KIND[kind],
        {name: f"The newest {kind} backup that was restored and found equal to its source is new enough."},
        lambda vault, found: {name: newest_is_good(found, kind, within)},
    )


def _checks(
    asset: dg.AssetKey, questions: Mapping[str, str], answer: Callable[[Vault, Survey], Mapping[str, Health]]
) -> dg.AssetChecksDefinition:
    @dg.multi_asset_check(
        name=f"{'__'.join(asset.path)}_checks",
        specs=[dg.AssetCheckSpec(name, asset=asset, description=said) for name, said in questions.items()],
        can_subset=True,
    )
    def of_backup(
        context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.AssetCheckResult]:
        with migration.failing_in_one_line():
            vault = Vault.of(migration.settings)
            answers = answer(vault, survey(vault))
        for key in context.selected_asset_check_keys:
            found = answers[key.name]
            yield dg.AssetCheckResult(
                asset_key=asset, check_name=key.name, passed=found.ok, description="; ".join(found.lines)
            )

    return of_backup
