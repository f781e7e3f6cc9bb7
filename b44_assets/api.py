"""The Python API: plan, migrate, verify and look at a migration, as the commands do.

Everything is a function of `Settings`, and returns a frozen dataclass. Nothing is printed on standard output; notices go to
standard error. What a user can cause or meet is raised as a `B44Error` with one line; what a run has met is in its result.

    from b44_assets.api import Settings, migrate, plan

    settings = Settings.load(export_dir=Path("export"), database_url="postgresql://…")
    if plan(settings).exit_status == 0:
        print(migrate(settings).verdict.message())
"""

from __future__ import annotations

import gc
import os
import signal
import sys
import threading
from collections.abc import Collection, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error, DatabaseError, ExportError
from b44_assets.migration.accounts import EntityAccount, accounts
from b44_assets.migration.finish import migration_state
from b44_assets.migration.readable import remedied, require_checks, require_progress
from b44_assets.migration.unmapped_entities import UnmappedEntity, unmapped_entities
from b44_assets.migration.verdict import Records, Verdict
from b44_assets.planning import MigrationPlan, PlannedEntity, PlannedTable, plan_migration
from b44_assets.postgres.embedded import target_exists
from b44_assets.session import Session

if TYPE_CHECKING:
    from b44_assets.runs.outcome import Outcome

__all__ = [
    "B44Error",
    "Check",
    "EntityAccount",
    "MigrationPlan",
    "PlannedEntity",
    "PlannedTable",
    "Result",
    "Settings",
    "Status",
    "UnmappedEntity",
    "Verdict",
    "migrate",
    "plan",
    "status",
    "verify",
]


@dataclass(frozen=True)
class Status:
    """How a migration stands.

    Attributes:
        tables: What became of the records, by table; empty where nothing was migrated, or the migration is over.
        unmapped: Exported entities without a table.
        finished: What the database says of its migration once it is over; None before.
        verdict: The whole, without checks.
    """

    tables: tuple[EntityAccount, ...]
    unmapped: tuple[UnmappedEntity, ...]
    finished: str | None
    verdict: Verdict


@dataclass(frozen=True)
class Check:
    """A check of a run.

    Attributes:
        asset: What it is about.
        name: Its name.
        outcome: `passed`, `warning` or `failed`.
        message: What it found, in one line.
    """

    asset: str
    name: str
    outcome: str
    message: str


@dataclass(frozen=True)
class Result:
    """What a migration, or a verification, has come to.

    Attributes:
        verdict: The whole; `verdict.holds` where all is well.
        tables: What became of the records, by table.
        checks: Every check that was run.
        faults: What ended the run, or a part of it.
        seconds: What it took.
    """

    verdict: Verdict
    tables: tuple[EntityAccount, ...]
    checks: tuple[Check, ...]
    faults: tuple[B44Error, ...]
    seconds: float


def plan(settings: Settings, *, tables: Collection[str] = (), left_out: Collection[str] = ()) -> MigrationPlan:
    """Says what `migrate` would do; the target is only read.

    Args:
        settings: With the export and the target.
        tables: Only these.
        left_out: All but these.

    Raises:
        B44Error: The export, the files of `sql/` or the target cannot be read.
    """
    return plan_migration(settings, tables=tables, left_out=left_out)


def migrate(
    settings: Settings,
    *,
    tables: Collection[str] = (),
    month: str | None = None,
    left_out: Collection[str] = (),
) -> Result:
    """Migrates the export: stage, map, load, check, all in one run. An interrupted one goes on where it stopped.

    Args:
        settings: With the export and the target.
        tables: Only these.
        month: Only this month of them, such as `2026-01`.
        left_out: All but these.

    Raises:
        B44Error: The run cannot begin.
    """
    from b44_assets.runs.job import Listener, run_job
    from b44_assets.runs.preconditions import exclusive_migration, refuse_if_finished, require_table
    from b44_assets.runs.selection import selection_of

    if settings.export_dir is None:
        raise ExportError("no export: name its folder by export_dir")
    session = _session(settings)
    require_table(settings.export_dir, settings.sql_dir, session.catalog)
    refuse_if_finished(session, "migrate")
    selection = selection_of(session, tables, left_out, month, _say)
    with _own_process_kept(), exclusive_migration(settings, session, _say) as lock:
        outcome, faults = run_job(
            "migrate_everything", settings, session, listener=Listener(_say), selection=selection, lock=lock
        )
    return _result(outcome, faults, accounts(session))


def verify(settings: Settings) -> Result:
    """Runs every check on what is in the database now.

    Args:
        settings: With the target.

    Raises:
        B44Error: There is no target, its role may not read all of it, or the run cannot begin.
    """
    from b44_assets.runs.job import Listener, run_job

    session = _existing(settings)
    require_checks(session)
    with _own_process_kept():
        outcome, faults = run_job("verify", settings, session, listener=Listener(_say), reads=True)
    return _result(outcome, faults, () if migration_state(session).over else accounts(session))


def status(settings: Settings) -> Status:
    """Says how far the migration is, and what became of every record; only reads.

    Args:
        settings: With the target.

    Raises:
        B44Error: There is no target, or it cannot be read.
    """
    session = _existing(settings)
    with remedied(session, require_progress):
        state = migration_state(session)
        found = () if state.over else accounts(session)
        unmapped = () if state.over else unmapped_entities(session)
    records = None if state.over else Records.of(found, sum(one.records for one in unmapped))
    return Status(found, unmapped, state.message() if state.over else None, Verdict(records))


def _result(outcome: Outcome, faults: Sequence[B44Error], tables: tuple[EntityAccount, ...]) -> Result:
    return Result(
        outcome.verdict(faults),
        tables,
        tuple(Check(one.asset, one.name, one.verdict, one.said) for one in outcome.checks),
        tuple(faults),
        outcome.seconds,
    )


def _say(line: str) -> None:
    print(line, file=sys.stderr)


def _session(settings: Settings) -> Session:
    return Session.of(settings, load_catalog(settings.sql_dir))


def _existing(settings: Settings) -> Session:
    if not target_exists(settings):
        raise DatabaseError(f"there is no database yet: no database_url, and no embedded server under {settings.home}")
    return _session(settings)


@contextmanager
def _own_process_kept() -> Generator[None]:
    """Gives back what a run changes of its process, which a command need not."""
    environment, thresholds = dict(os.environ), gc.get_threshold()
    in_main = threading.current_thread() is threading.main_thread()
    handler = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if in_main:
            signal.signal(signal.SIGTERM, handler)
        gc.unfreeze()
        gc.set_threshold(*thresholds)
        os.environ.clear()
        os.environ.update(environment)
