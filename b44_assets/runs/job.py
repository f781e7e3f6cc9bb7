"""Run a Dagster job in this process, over the instance that `b44 dev` shows, and collect what came of it."""

from __future__ import annotations

import gc
import importlib
import io
import os
import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext, redirect_stderr, suppress
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, TextIO

from b44_assets.config.stages import PHASES, stage_of
from b44_assets.errors import B44Error, DatabaseError, FullDiskError, SettingsError
from b44_assets.garbage import collect_seldom
from b44_assets.postgres.embedded import embedded_runs
from b44_assets.runs.instance import (
    connect_storage,
    dagster_instance,
    prepare_dagster,
    storage_exists,
    throw_away_instance,
)
from b44_assets.runs.outcome import CheckOutcome, Outcome, accounts_by_table, check_lines, unmapped_entities_of
from b44_assets.runs.signals import interrupted_by_sigterm

if TYPE_CHECKING:
    from dagster import AssetCheckEvaluation

    from b44_assets.catalog import Catalog
    from b44_assets.config.settings import Settings
    from b44_assets.migration.accounts import EntityAccount
    from b44_assets.orchestration.resources import Migration
    from b44_assets.postgres.advisory_locks import HeldLock
    from b44_assets.runs.selection import Selection
    from b44_assets.session import Progress, Session


def _nowhere(*_: object) -> None:
    pass


@dataclass(frozen=True)
class Listener:
    """Who is told of a run while it goes on.

    Attributes:
        say: Takes a notice, a warning or a check that did not pass, in one line.
        begin: Takes what is about to take a while, as long as there is no progress to tell.
        progress: Makes what takes for a block how far the run is.
    """

    say: Callable[[str], None]
    begin: Callable[[str], None] = _nowhere
    progress: Callable[[], AbstractContextManager[Progress]] = lambda: nullcontext(_nowhere)


class UnexpectedError(B44Error):
    """A step failed for a reason that is none of ours to explain; the run's log has the traceback."""

    exit_status = 1


@contextmanager
def importing_meanwhile(settings: Settings) -> Generator[None]:
    """Imports what `run_job` needs while the embedded server is started in the block, which takes about as long.

    Where nothing is to be started, or the block fails, nothing is waited for.
    """
    if settings.database_url is not None or embedded_runs(settings):
        yield
        return

    def work() -> None:
        # `run_job` meets with the fault, too, and says so.
        with suppress(ImportError):
            importlib.import_module("b44_assets.orchestration.code_location")
            importlib.import_module("b44_assets.orchestration.storage")

    thread = threading.Thread(target=work, name="import", daemon=True)
    thread.start()
    yield
    # Before this thread imports anything more: the two never wait for each other.
    thread.join()


def run_job(
    job: str,
    settings: Settings,
    session: Session,
    *,
    listener: Listener,
    selection: Selection | None = None,
    verify_anew: bool = False,
    reads: bool = False,
    lock: HeldLock | None = None,
) -> tuple[Outcome, list[B44Error]]:
    """Runs a job, or the part of it for some tables, in this process over the instance that `b44 dev` shows.

    Args:
        job: Its name.
        settings: From options and environment.
        session: Of the target.
        listener: Who is told of it meanwhile.
        selection: The part of it that is run; None for all of it.
        verify_anew: Whether everything is compared anew.
        reads: Whether the job only reads: then no storage is made for Dagster, and without one the UI does not know of the run.
        lock: What keeps other migrations away, for a job that moves records.
    """
    started = time.monotonic()
    interrupted_by_sigterm()
    unseen = reads and not storage_exists(settings)
    if not unseen:
        prepare_dagster(settings)
    # Reach the target before Dagster is: a wrong address is one line, not a failed run.
    if settings.database_url is None:
        listener.begin("starting the embedded server, unless it runs")
    with session.connection("start"):
        pass
    from b44_assets.migration.accounts import accounts, records_written
    from b44_assets.migration.listed import dangling_references, listed
    from b44_assets.migration.verdict import Records

    before = _before(session)
    if lock is not None:
        from b44_assets.schema.preflight import need_room

        need_room(session)
    if not unseen:
        connect_storage(settings, "b44 start").close()
    # Only now: an embedded server that this starts would have the low priority for as long as it runs.
    if settings.throttle and hasattr(os, "nice"):
        os.nice(10)
    # Whoever calls the Python API has not begun with it.
    collect_seldom()
    listener.begin("making the graph of assets")
    from b44_assets.orchestration.resources import Migration

    migration = Migration(
        settings,
        session.catalog,
        notice=lambda line: listener.say(f"notice: {line}"),
        lock=lock,
        prepared=lock is not None,
        kept=session.kept,
    )
    result, checks, faults = _executed(
        job, migration, listener=listener, selection=selection, verify_anew=verify_anew, unseen=unseen
    )
    found = accounts(session)
    for warning in migration.warnings:
        listener.say(f"warning: {warning}")
    for line in check_lines(checks):
        listener.say(line)
    unmapped = unmapped_entities_of(session)
    dangling = dangling_references(session) if checks else None
    outcome = Outcome(
        entities=accounts_by_table(found),
        seconds=time.monotonic() - started,
        pending={
            one.entity: one.pending
            for one in found
            if one.pending and (selection is None or selection.completes(one.entity))
        },
        partial=selection is not None,
        unaccounted={account.entity: account.unaccounted for account in found if account.unaccounted},
        unmapped=unmapped,
        checks=checks,
        stages=_seconds_by_stage(result, session.catalog),
        listed=listed(session, settings.sql_dir.parent, dangling) if dangling is not None else {},
        dangling=dangling,
        records=Records.of(found, sum(one["read"] for one in unmapped.values())) if found or unmapped else None,
        unchanged=lock is not None and before == (found, unmapped) and not records_written(session, result.run_id),
    )
    # Dagster's objects go with the process; to look through them once more at its end takes over a second.
    gc.freeze()
    return outcome, faults


def _executed(
    job: str,
    migration: Migration,
    *,
    listener: Listener,
    selection: Selection | None,
    verify_anew: bool,
    unseen: bool,
) -> tuple[Any, tuple[CheckOutcome, ...], list[B44Error]]:
    """Has Dagster run a job; gives its result, what each check has found, and what ended it or a part of it.

    Raises:
        B44Error: The storage of Dagster cannot go on.
        SettingsError: The month of the selection is none of the tables'.
        KeyboardInterrupt: The run was interrupted.
    """
    from dagster_postgres.utils import DagsterPostgresException
    from psycopg2 import Error as DriverError
    from sqlalchemy.exc import SQLAlchemyError

    from b44_assets.migration.lineage import followed_meanwhile
    from b44_assets.orchestration.alerts.delivery import AlertError
    from b44_assets.orchestration.alerts.failing_checks import tell_of_checks
    from b44_assets.orchestration.code_location import check_specs, definitions_of
    from b44_assets.orchestration.common import CODE_LOCATION_TAGS, VERIFY_ANEW_TAG
    from b44_assets.orchestration.run_retention import PROCESS_TAG, end_abandoned_runs, this_process
    from b44_assets.orchestration.storage import holding_events

    settings, lock = migration.settings, migration.lock
    first, last = _months(migration, selection)
    try:
        with (
            redirect_stderr(_WithoutLoggerFaults(sys.stderr)),
            listener.progress() as progress,
            nullcontext() if lock is None else followed_meanwhile(migration.catalog, settings.lineage_dir),
            throw_away_instance() if unseen else dagster_instance() as instance,
        ):
            # Dagster opens two connections for each event otherwise, which takes longer than most steps.
            if not unseen:
                instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=10)
                end_abandoned_runs(instance)
            definitions = definitions_of(replace(migration, progress=progress))
            with holding_events(instance):
                resolved = definitions.resolve_job_def(job)
                result = resolved.execute_in_process(
                    instance=instance,
                    raise_on_error=False,
                    asset_selection=None
                    if selection is None
                    else selection.chosen(resolved.asset_layer.executable_asset_keys),
                    tags={
                        "dagster/asset_partition_range_start": first,
                        "dagster/asset_partition_range_end": last,
                        **CODE_LOCATION_TAGS,
                        PROCESS_TAG: this_process(),
                        **({VERIFY_ANEW_TAG: "true"} if verify_anew else {}),
                    },
                    run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
                )
            if _interrupted(result):
                # Dagster takes for a failure what nobody has ended in the UI.
                if lock is None or not lock.lost:
                    instance.report_run_canceled(
                        result.dagster_run, "Interrupted at the command; run again, it goes on where it stopped."
                    )
                raise KeyboardInterrupt
            try:
                tell_of_checks(instance, check_specs(definitions), settings)
            except AlertError as error:
                # No fault of the run; the daemon's sensor, and the next command, try again.
                listener.say(f"warning: {error}")
            checks = tuple(_check_outcome(one) for one in result.get_asset_check_evaluations())
            faults = list(migration.faults)
            if not result.success and not faults:
                faults += _unexpected(result, checks_failed=any(one.verdict == "failed" for one in checks))
    except (SQLAlchemyError, DagsterPostgresException, DriverError) as error:
        # What ended a step, such as a full disk, may be what its storage fails on, too. SQLAlchemy passes on what the driver says
        # of a connection that ended between two statements.
        raise (migration.faults or [_storage_fault(error)])[0] from error
    return result, checks, faults


def _months(migration: Migration, selection: Selection | None) -> tuple[str, str]:
    """The first and the last month that a run loads; two empty texts where no table has months."""
    from b44_assets.orchestration.partitions import months_of

    months = months_of(migration.catalog, migration.settings.first_month)
    first, last = months.get_first_partition_key() or "", months.get_last_partition_key() or ""
    if selection is None or selection.month is None:
        return first, last
    if not months.has_partition_key(selection.month):
        raise SettingsError(f"--month: there are the months {first} to {last} (B44_FIRST_MONTH says the first one)")
    return selection.month, selection.month


def _check_outcome(evaluation: AssetCheckEvaluation) -> CheckOutcome:
    verdict = "passed" if evaluation.passed else "failed" if evaluation.severity.value == "ERROR" else "warning"
    return CheckOutcome(
        evaluation.asset_key.to_user_string(), evaluation.check_name, verdict, evaluation.description or ""
    )


def _before(session: Session) -> tuple[tuple[EntityAccount, ...], dict[str, dict[str, Any]]] | None:
    """What became of the records so far; None where an earlier version's tables cannot tell."""
    from b44_assets.migration.accounts import accounts

    try:
        return accounts(session), unmapped_entities_of(session)
    except DatabaseError:
        return None


def _seconds_by_stage(result: Any, catalog: Catalog) -> dict[str, float]:
    """What the steps of a run took, by what they did."""
    seconds: dict[str, float] = dict.fromkeys(map(str, PHASES), 0.0)
    for event in result.all_events:
        if event.is_step_success:
            stage = stage_of(event.step_key, catalog.mappings)
            seconds[str(stage)] += event.event_specific_data.duration_ms / 1000
    return seconds


class _WithoutLoggerFaults(io.TextIOBase):
    """Standard error without what Dagster writes there where its storage fails: SQL and data, besides raising the fault."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        return len(text) if text.startswith("Exception while writing logger call") else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # it can only be read there, too
        return self._stream.encoding


def _storage_fault(error: Exception) -> B44Error:
    """The one line of an error of Dagster's storage, without the statement."""
    cause = getattr(error, "orig", None) or error
    reason = str(cause).strip().partition("\n")[0]
    said = f"the storage of Dagster could not go on: {reason}"
    if getattr(cause, "pgcode", None) == "53100":
        return FullDiskError(said, "make room on the disk of its server")
    return DatabaseError(said)


def _interrupted(result: Any) -> bool:
    """Whether Ctrl-C ended the run, which Dagster reports as a failure."""
    from dagster._core.events import RunFailureReason

    return any(
        event.is_job_failure and event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
        for event in result.all_events
    )


def _unexpected(result: Any, *, checks_failed: bool) -> list[B44Error]:
    """Why a run failed that told of no fault of its own; nothing where that was a check, which speaks for itself."""
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        # A blocking check that failed ends the run, too; it has been printed already.
        if error is not None and error.cls_name != "DagsterAssetCheckFailedError":
            cause = error.cause or error
            return [
                UnexpectedError(
                    f"step {event.step_key} failed: {cause.message.strip().splitlines()[0]} (see the run in b44 dev)"
                )
            ]
    return [] if checks_failed else [UnexpectedError("the run failed (see it in b44 dev)")]
