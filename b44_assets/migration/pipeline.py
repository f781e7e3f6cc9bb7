"""The steps of a migration in their order: stage, resolve versions, plan, load. Verification follows as asset checks.

What belongs here: which step comes after which, and what is taken back if one fails. What does not: what a step does.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import date
from pathlib import Path

from b44_assets.catalog import TableMapping
from b44_assets.config.quantities import next_month
from b44_assets.errors import DatabaseError, ThresholdError
from b44_assets.failpoints import failpoint
from b44_assets.migration.corrections import apply_corrections, correct, note_corrections
from b44_assets.migration.load import Load, LoadedPartition, load
from b44_assets.migration.parts import EVERY_PARTITION, Part, Range, parts_of
from b44_assets.migration.plan import make_plan
from b44_assets.migration.progress import failed_periods, staged_tables
from b44_assets.migration.rollback import roll_back_entity
from b44_assets.migration.sources import create_source_view
from b44_assets.migration.staging import StagedExport, stage
from b44_assets.migration.throttled_vacuum import ThrottledVacuum
from b44_assets.migration.versions import resolve_versions
from b44_assets.schema.apply import ensure_tables
from b44_assets.schema.partitions import ensure_partitions
from b44_assets.session import Connection, Session, with_retry

FAILURES_MEANT_BY_MONTHS = 5
"""From so many failed months on the fault is taken to be none of theirs, and the rest is not tried."""


@dataclass(frozen=True)
class MonthsLoad:
    """What came of loading a range of months.

    Attributes:
        load: What was done in all; None where nothing could be.
        failed: The months that failed, with the reason of each in one line.
    """

    load: Load | None
    failed: dict[date, str] = field(default_factory=dict[date, str])


def stage_export(session: Session, mapping: TableMapping, directory: Path | None) -> StagedExport:
    """Stages the file of one entity, unless the same file was staged before, and resolves versions and corrections.

    All or nothing: an interruption leaves what was staged before.

    Args:
        session: The run.
        mapping: The entity's mapping.
        directory: The export's folder; None as for `stage`.

    Raises:
        ExportError: The folder or the file cannot be read.
    """

    def resolve(conn: Connection) -> None:
        note_corrections(conn, mapping.spec.name)
        resolve_versions(conn, mapping)
        create_source_view(conn, mapping)
        apply_corrections(conn, mapping, session.content_format)

    return stage(session, mapping, directory, resolve)


def load_table(
    session: Session, mapping: TableMapping, wanted: Range = EVERY_PARTITION, first_month: date | None = None
) -> Load:
    """Corrects and plans what is staged for an entity if need be, and loads what is not loaded yet, of some partitions or all.

    An interrupted load goes on after its last batch.

    Args:
        session: The run.
        mapping: The entity's mapping; the target table must be there.
        wanted: Which partitions; only for a table with periods.
        first_month: The earliest partition that may be loaded, for a table with periods whose file names no first one.

    Raises:
        DatabaseError: A batch failed; names the records. Batches before it stay.
        SettingsError: A record is older than the first period.
        ThresholdError: Too many records are refused; nothing was loaded, or what was is taken back.
    """
    correct(session, mapping)
    plan = make_plan(session, mapping)
    parts = with_retry(session, lambda: _parts(session, mapping, wanted, first_month))
    try:
        return load(session, mapping, plan, parts, ThrottledVacuum(session) if session.throttled else None)
    except ThresholdError:
        roll_back_entity(session, mapping, plan.generation)
        raise


def _parts(session: Session, mapping: TableMapping, wanted: Range, first_month: date | None) -> list[Part]:
    """The parts to load, with their partitions made."""
    table = mapping.spec.name
    period = session.catalog.table(table).period
    with session.connection(f"load {table}") as conn:
        failpoint("load: before batches", conn)
        parts = parts_of(conn, session.catalog, mapping, wanted, first_month)
        if period is None:
            return [part._replace(table=table) for part in parts]
        names = ensure_partitions(conn, table, period.unit, [part.key for part in parts if part.key is not None])
        failpoint("load: partitions made", conn)
    return [part._replace(table=names.get(part.key) if part.key else None) for part in parts]


def load_months(session: Session, mapping: TableMapping, wanted: Range, first_month: date) -> MonthsLoad:
    """Loads a range of months around those that fail, so that one bad month keeps no other from being loaded.

    Args:
        session: The run; its `run_id` tells its failures from those of others.
        mapping: The mapping of a table by month.
        wanted: The months.
        first_month: The earliest month that may be loaded, where the table's file names none.

    Raises:
        DatabaseError: The fault is not that of a month: the server is gone, the mapping fails, or every month fails.
        SettingsError: A record is older than the first month.
        ThresholdError: Too many records are refused; nothing was loaded.
    """
    failed: dict[date, str] = {}
    loads: list[Load] = []
    todo = [wanted]
    while todo:
        part = todo.pop(0)
        try:
            loads.append(load_table(session, mapping, part, first_month))
        except DatabaseError:
            new = {
                month: reason
                for month, reason in failed_periods(session, mapping.spec.name).items()
                if month in part and month not in failed
            }
            failed |= new
            if not new or len(failed) >= FAILURES_MEANT_BY_MONTHS:
                raise
            todo = [*_around(part, sorted(new)), *todo]
    if not loads:
        return MonthsLoad(None, failed)
    # Each load tells of the plan as a whole; what differs is what it moved.
    done: dict[date | None, LoadedPartition] = {}
    for one in loads:
        done |= {loaded.partition_key: loaded for loaded in one.partitions}
    partitions = tuple(sorted(done.values(), key=lambda loaded: loaded.partition_key or date.min))
    return MonthsLoad(replace(loads[-1], partitions=partitions), failed)


def plan_again(session: Session) -> None:
    """Judges the staged records of every table anew where their export, or what their mapping reads, has changed since.

    Tables that nothing is staged for are left alone.

    Raises:
        DatabaseError: A mapping fails in the server.
        ThresholdError: Too many records of a table are refused.
    """
    staged = staged_tables(session)
    for table, mapping in session.catalog.mappings.items():
        if table in staged:
            ensure_tables(session, (table, *mapping.spec.depends))
            make_plan(session, mapping)


def _around(part: Range, months: Sequence[date]) -> list[Range]:
    """What is left of a range without some of its months."""
    left: list[Range] = []
    start = part.start
    for month in months:
        if start is None or start < month:
            left.append(Range(start, month))
        start = next_month(month)
    if part.end is None or (start is not None and start < part.end):
        left.append(Range(start, part.end))
    return left
