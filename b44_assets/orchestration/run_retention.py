"""Dagster's own history: old runs forgotten, runs that nobody executes any more ended, and months told of that are in.

What belongs here: making Dagster's records agree with what is so. What does not: the database of the application.
"""

import os
import socket
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path

import dagster as dg
from dagster import DagsterEventType, DagsterInstance, DagsterRunStatus, RunsFilter

from b44_assets.orchestration.common import EXECUTOR
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import ScheduledJob

FORGET_OLD_RUNS = ScheduledJob(
    "forget_old_runs",
    "Deletes runs older than B44_KEEP_RUNS_DAYS with their event logs, which grow without bound otherwise."
    " Runs that hold the last word on an asset, a month or a check stay.",
    cron="0 5 * * 0",
    schedule="On Sundays: runs older than B44_KEEP_RUNS_DAYS.",
    overdue_after=None,
)
PROCESS_TAG = ".dagster/b44_process"
"""Of a run that a command executes by itself: which process that is, since no launcher of Dagster's watches it. The UI hides tags
with this prefix."""
FINISHED = [DagsterRunStatus.SUCCESS, DagsterRunStatus.FAILURE, DagsterRunStatus.CANCELED]
UNFINISHED = [
    DagsterRunStatus.QUEUED,
    DagsterRunStatus.NOT_STARTED,
    DagsterRunStatus.STARTING,
    DagsterRunStatus.STARTED,
    DagsterRunStatus.CANCELING,
]
_FETCHED_AT_ONCE = 500


def this_process() -> str:
    """Names this process so that it is not taken for a later one of the same number: host, number, start."""
    return f"{socket.gethostname()}:{os.getpid()}:{_start_of(os.getpid())}"


def is_gone(process: str) -> bool:
    """Whether a process of this host has ended; False for one of another host, of which nothing can be told."""
    host, number, start = process.rsplit(":", 2)
    if host != socket.gethostname():
        return False
    try:
        os.kill(int(number), 0)
    except ProcessLookupError:
        return True
    except PermissionError:
        pass
    return _start_of(int(number)) != start


def _start_of(number: int) -> str:
    """When a process was started, in the kernel's ticks; nothing where there is no /proc to tell."""
    try:
        # The name of the program stands in brackets and may hold anything, blanks and brackets too.
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[19]
    except OSError:
        return ""


def end_abandoned_runs(instance: DagsterInstance) -> list[str]:
    """Marks the runs as failed whose command was killed, so that none seems to be under way for ever.

    Returns:
        Their ids.
    """
    ended: list[str] = []
    for run in instance.get_runs(filters=RunsFilter(statuses=[DagsterRunStatus.STARTED])):
        process = run.tags.get(PROCESS_TAG)
        if process is not None and is_gone(process):
            instance.report_run_failed(run, "The command that executed this run was killed.")
            ended.append(run.run_id)
    return ended


def runs_to_forget(instance: DagsterInstance, checks: Sequence[dg.AssetCheckKey], before: datetime) -> list[str]:
    """Runs that ended before a moment and hold the last word on no asset, no month and no check.

    Args:
        instance: Dagster's storage.
        checks: The checks whose last words are kept; assets are those that the storage knows.
        before: The moment.
    """
    kept = _last_words(instance, checks)
    return [
        record.dagster_run.run_id
        for record in instance.get_run_records(filters=RunsFilter(statuses=FINISHED, updated_before=before))
        if record.dagster_run.run_id not in kept
    ]


def _last_words(instance: DagsterInstance, checks: Sequence[dg.AssetCheckKey]) -> set[str]:
    kept: set[str] = set()
    for key in instance.all_asset_keys():
        if (event := instance.get_latest_materialization_event(key)) is not None:
            kept.add(event.run_id)
        by_partition = instance.event_log_storage.get_latest_storage_id_by_partition(
            key, DagsterEventType.ASSET_MATERIALIZATION
        )
        ids = sorted(by_partition.values())
        for start in range(0, len(ids), _FETCHED_AT_ONCE):
            found = instance.fetch_materializations(
                dg.AssetRecordsFilter(asset_key=key, storage_ids=ids[start : start + _FETCHED_AT_ONCE]),
                limit=_FETCHED_AT_ONCE,
            )
            kept |= {record.run_id for record in found.records}
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(checks)
    return kept | {execution.run_id for execution in latest.values()}


def build_forget_job(checks: Sequence[dg.AssetCheckKey]) -> dg.JobDefinition:
    """The job `forget_old_runs`; Dagster itself purges only the ticks of schedules and sensors.

    Args:
        checks: Every check of the code location.
    """

    @dg.op(description="Deletes runs that ended long ago, with their event logs.")
    def old_runs(context: dg.OpExecutionContext, migration: dg.ResourceParam[Migration]) -> None:
        days = migration.settings.keep_runs_days
        forgotten = runs_to_forget(context.instance, checks, datetime.now(UTC) - timedelta(days=days))
        for run_id in forgotten:
            context.instance.delete_run(run_id)
        context.log.info(f"{len(forgotten)} runs older than {days} days were forgotten")
        context.add_output_metadata({"forgotten": len(forgotten)})

    @dg.job(
        name=FORGET_OLD_RUNS.name,
        description=FORGET_OLD_RUNS.description,
        tags=FORGET_OLD_RUNS.tags,
        executor_def=EXECUTOR,
    )
    def forget_old_runs() -> None:
        old_runs()

    return forget_old_runs
