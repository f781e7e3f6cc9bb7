"""The sensors on records: which run to ask for, found out from the export files, the migration tables, and earlier runs.

What belongs here: deciding which run to ask for. What does not: SQL, or any work; a tick with nothing new costs no run.
"""

import hashlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from pathlib import Path
from typing import Any, Self

import dagster as dg
from dagster import DagsterInstance, DagsterRun, DagsterRunStatus, RunsFilter

from b44_assets.catalog import Catalog
from b44_assets.config.quantities import next_month
from b44_assets.exports import discover
from b44_assets.migration.finish import migration_state
from b44_assets.migration.progress import (
    StagedFile,
    failed_parts,
    load_progress,
    migration_exists,
    staged_files,
)
from b44_assets.orchestration.common import export_key, key_of
from b44_assets.orchestration.migration.assets import UNMAPPED_KEY
from b44_assets.orchestration.migration.jobs import DELTA_JOB, MIGRATE_JOB
from b44_assets.orchestration.migration.materialization_sync import report_what_is_in
from b44_assets.orchestration.migration.pending_records import PENDING_RECORDS
from b44_assets.orchestration.partitions import key_of_month, range_tags
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.run_retention import UNFINISHED, end_abandoned_runs
from b44_assets.wording import some_of

RETRIES_OF_A_FAILED_BATCH = 3
"""How often what failed is run again without anybody's help."""
_OTHERS = "*"
"""Stands for all files of entities without a table."""
_RUNS_LOOKED_BACK = 100
_NAMED = 5
"""How many files a reason names."""

Months = dg.MonthlyPartitionsDefinition


def build_sensors(jobs: Mapping[str, Any], months: Months) -> list[dg.SensorDefinition]:
    """Every sensor on records. Those that start runs are off until somebody turns them on.

    Args:
        jobs: Those on records, by name.
        months: Partitions of the tables that are loaded by month.
    """
    return [
        _changed_exports(jobs, months),
        _pending_records(jobs, months),
        _failed_batches(jobs, months),
        _interrupted_runs(),
    ]


def _changed_exports(jobs: Mapping[str, Any], months: Months) -> dg.SensorDefinition:
    @dg.sensor(
        name="changed_exports",
        description="Export files that are new or have changed: stages and loads their entities, and no others. A file counts"
        " once two ticks have seen it the same, since it may still be written. Where nothing was ever migrated, it"
        " migrates everything. Tables with months follow by the sensor pending_work.",
        minimum_interval_seconds=10,
        jobs=[jobs[DELTA_JOB], jobs[MIGRATE_JOB]],
    )
    def changed_exports(
        context: dg.SensorEvaluationContext, migration: dg.ResourceParam[Migration]
    ) -> dg.SensorResult | dg.SkipReason:
        if migration.export_dir is None:
            return dg.SkipReason("B44_EXPORT_DIR is not set")
        if (state := migration_state(migration.offline_session())).over:
            return dg.SkipReason(state.message())
        now = _fingerprints(migration.export_dir, migration.catalog)
        seen = _Seen.of(context.cursor) if context.cursor else _Seen(_as_staged(migration, now))
        changed = {name: print_ for name, print_ in now.items() if seen.taken.get(name) != print_}
        steady = {name for name, print_ in changed.items() if seen.growing.get(name) == print_}
        if not changed:
            reason = "no export file has changed"
            if _OTHERS in now:
                reason += f"; without a table, and kept in migration.unmapped: {_without_table(migration)}"
            return dg.SensorResult(skip_reason=reason, cursor=_Seen(seen.taken).as_cursor())
        if steady != changed.keys():
            waiting = ", ".join(
                _without_table(migration) if name == _OTHERS else name for name in sorted(changed.keys() - steady)
            )
            return dg.SensorResult(
                skip_reason=f"changed, and taken once they stay the same: {waiting}",
                cursor=_Seen(seen.taken, changed).as_cursor(),
            )
        if (run := under_way(context.instance)) is not None:
            return dg.SkipReason(f"run {run.run_id} is under way; the changed files are taken after it")
        request = (
            _all_of_it(months) if not migration_exists(migration.offline_session()) else _touched(migration, changed)
        )
        return dg.SensorResult(run_requests=[request], cursor=_Seen(seen.taken | changed).as_cursor())

    return changed_exports


@dataclass(frozen=True)
class _Seen:
    """The cursor of `changed_exports`: a fingerprint of each table's export file.

    Attributes:
        taken: As of the last run that was asked for.
        growing: As of the last tick, of files that were not as taken: they may still be written.
    """

    taken: dict[str, str] = field(default_factory=dict[str, str])
    growing: dict[str, str] = field(default_factory=dict[str, str])

    def as_cursor(self) -> str:
        """For the next tick."""
        return json.dumps({"taken": self.taken, "growing": self.growing})

    @classmethod
    def of(cls, cursor: str) -> Self:
        """From the tick before."""
        held = json.loads(cursor)
        return cls(held["taken"], held["growing"])


def _fingerprints(folder: Path, catalog: Catalog) -> dict[str, str]:
    """Of each table's file its name, size, inode and times of change; of all files without a table one digest over these."""
    found: dict[str, str] = {}
    others: list[str] = []
    for file in discover(folder, catalog.entities):
        status = file.path.stat()
        times = f"{status.st_mtime_ns}:{status.st_ctime_ns}"
        print_ = f"{file.path.name}:{status.st_size}:{status.st_ino}:{times}"
        if (table := catalog.entities.get(file.entity)) is not None:
            found[table] = print_
        else:
            others.append(print_)
    if others:
        found[_OTHERS] = hashlib.sha256("\n".join(others).encode()).hexdigest()
    return found


def _without_table(migration: Migration) -> str:
    """The files of entities without a table, the first of them by name."""
    assert migration.export_dir is not None
    known = migration.catalog.entities
    names = [file.path.name for file in discover(migration.export_dir, known) if file.entity not in known]
    return some_of(names, _NAMED)


def _as_staged(migration: Migration, now: Mapping[str, str]) -> dict[str, str]:
    """For the first tick: the fingerprints of files that are staged as they are."""
    assert migration.export_dir is not None
    staged = staged_files(migration.offline_session())
    same = {
        table: print_
        for table, print_ in now.items()
        if (file := staged.get(table)) is not None and _is(file, migration.export_dir / file.name)
    }
    return same | ({_OTHERS: now[_OTHERS]} if staged and _OTHERS in now else {})


def _is(staged: StagedFile, path: Path) -> bool:
    if not path.exists():
        return False
    # A file may be changed and keep its size and its time.
    with path.open("rb") as stream:
        return (
            os.fstat(stream.fileno()).st_size == staged.size
            and hashlib.file_digest(stream, "sha256").hexdigest() == staged.digest
        )


def _all_of_it(months: Months) -> dg.RunRequest:
    return dg.RunRequest(
        job_name=MIGRATE_JOB,
        tags=range_tags(months.get_first_partition_key() or "", months.get_last_partition_key() or ""),
    )


def _touched(migration: Migration, changed: Mapping[str, str]) -> dg.RunRequest:
    """Stages and loads some tables; of those by month it only finds out what there is to do, which `pending_work` asks for."""
    tables = [table for table in migration.catalog.mappings if table in changed]
    at_once = [table for table in tables if not migration.catalog.is_monthly(table)]
    others = [UNMAPPED_KEY] if _OTHERS in changed else []
    return dg.RunRequest(
        job_name=DELTA_JOB,
        asset_selection=[
            *(export_key(table) for table in tables),
            *(key_of(table) for table in at_once),
            *others,
            PENDING_RECORDS.key,
        ],
        tags={"b44/changed": ", ".join([*tables, *(["other_entities"] if others else [])])},
    )


def under_way(instance: DagsterInstance) -> DagsterRun | None:
    """A run that moves records and is not finished, if there is one: what waits may be its work already."""
    for run in instance.get_runs(filters=RunsFilter(statuses=UNFINISHED)):
        # A run that somebody started from the graph has no job of ours.
        if run.job_name in (MIGRATE_JOB, DELTA_JOB) or run.job_name.startswith("__"):
            return run
    return None


def _pending_records(jobs: Mapping[str, Any], months: Months) -> dg.SensorDefinition:
    @dg.sensor(
        name="pending_work",
        description="Whenever monitoring/pending_work was materialized, as changed_exports has it done: loads the tables and"
        " months for which records wait, and no others; one run for each stretch of months.",
        minimum_interval_seconds=10,
        job=jobs[DELTA_JOB],
    )
    def pending_work(
        context: dg.SensorEvaluationContext, migration: dg.ResourceParam[Migration]
    ) -> dg.SensorResult | dg.SkipReason:
        latest = context.instance.fetch_materializations(PENDING_RECORDS.key, limit=1).records
        if not latest or context.cursor == str(latest[0].storage_id):
            return dg.SkipReason("nothing was staged since")
        if (run := under_way(context.instance)) is not None:
            return dg.SkipReason(f"run {run.run_id} is under way; what then still waits is taken after it")
        pending = load_progress(migration.offline_session()).pending
        cursor = str(latest[0].storage_id)
        if not pending:
            return dg.SensorResult(skip_reason="no record waits", cursor=cursor)
        generations = {part.table: part.generation for part in pending}
        requests: list[dg.RunRequest] = []
        if at_once := [table for table in generations if not migration.catalog.is_monthly(table)]:
            of_which = ", ".join(f"{table} {generations[table]}" for table in at_once)
            requests.append(_load(at_once, f"pending: {of_which}"))
        for table, generation in generations.items():
            if table not in at_once:
                waiting = [part.partition_key for part in pending if part.table == table and part.partition_key]
                requests += [
                    _load([table], f"pending: {table} {generation}, {first} to {last}", first, last)
                    for first, last in stretches(waiting, months)
                ]
        return dg.SensorResult(run_requests=requests, cursor=cursor)

    return pending_work


def stretches(waiting: Sequence[date], months: Months) -> list[tuple[str, str]]:
    """Months as stretches without a gap, each as the keys of its first and its last month.

    Months outside of the defined ones count as the nearest of those, as they do for a load.
    """
    first, last = months.get_first_partition_key() or "", months.get_last_partition_key() or ""
    found: list[tuple[date, date]] = []
    for month in sorted(set(waiting)):
        if found and next_month(found[-1][1]) == month:
            found[-1] = (found[-1][0], month)
        else:
            found.append((month, month))
    keys = [
        (min(max(key_of_month(start), first), last), min(max(key_of_month(end), first), last)) for start, end in found
    ]
    return list(dict.fromkeys(keys))


def _load(tables: Sequence[str], run_key: str, first: str | None = None, last: str | None = None) -> dg.RunRequest:
    return dg.RunRequest(
        run_key=run_key,
        job_name=DELTA_JOB,
        asset_selection=[key_of(table) for table in tables],
        tags=range_tags(first, last) if first and last else {},
    )


def _failed_batches(jobs: Mapping[str, Any], months: Months) -> dg.SensorDefinition:
    @dg.sensor(
        name="failed_batches",
        description="Batches that migration.migration_log says have failed: runs their table or month again, alone, and no"
        f" more than {RETRIES_OF_A_FAILED_BATCH} times for each planned export.",
        minimum_interval_seconds=60,
        job=jobs[DELTA_JOB],
    )
    def failed_batches(
        context: dg.SensorEvaluationContext, migration: dg.ResourceParam[Migration]
    ) -> dg.SensorResult | dg.SkipReason:
        failed = failed_parts(migration.offline_session())
        if not failed:
            return dg.SkipReason("no batch has failed")
        if (run := under_way(context.instance)) is not None:
            return dg.SkipReason(f"run {run.run_id} is under way")
        again = [part for part in failed if part.failures <= RETRIES_OF_A_FAILED_BATCH]
        if not again:
            named = ", ".join(f"{part.table} {part.partition_key or ''}".strip() for part in failed)
            return dg.SkipReason(f"retry limit reached; manual action needed: {named}: {failed[0].error}")
        requests: list[dg.RunRequest] = []
        for part in again:
            key = f"failed: {part.table} {part.partition_key} {part.generation}, {part.failures}"
            if part.partition_key is not None and migration.catalog.is_monthly(part.table):
                [(first, last)] = stretches([part.partition_key], months)
                requests.append(_load([part.table], key, first, last))
            else:
                requests.append(_load([part.table], key))
        return dg.SensorResult(run_requests=requests)

    return failed_batches


def _interrupted_runs() -> dg.SensorDefinition:
    @dg.sensor(
        name="interrupted_runs",
        description="Keeps Dagster's records true after a kill or a termination: ends runs whose command is gone, and reports"
        " tables and months whose records are all in although the run could not say so any more. Starts nothing.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING,
    )
    def interrupted_runs(
        context: dg.SensorEvaluationContext, migration: dg.ResourceParam[Migration]
    ) -> dg.SensorResult | dg.SkipReason:
        ended = end_abandoned_runs(context.instance)
        since = datetime.fromisoformat(context.cursor) if context.cursor else None
        records = context.instance.get_run_records(
            filters=RunsFilter(
                statuses=[DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED],
                updated_after=since,
            ),
            limit=None if since else _RUNS_LOOKED_BACK,
        )
        if not records:
            return dg.SkipReason("no run was interrupted")
        reported = report_what_is_in(context.instance, migration, [record.dagster_run for record in records])
        said = f"{len(records)} runs looked at, {len(ended)} ended, {len(reported)} tables and months reported"
        latest = max(record.update_timestamp for record in records)
        return dg.SensorResult(skip_reason=said, cursor=latest.isoformat())

    return interrupted_runs
