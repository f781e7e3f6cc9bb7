"""What a run could not say any more, said in its place: tables and months whose records are all in.

A batch is committed before its asset counts as materialized, so a run that is killed or terminated leaves Dagster behind
the database. The migration tables know better, and this tells Dagster what they say.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg
from dagster import AssetKey, DagsterEventType, DagsterInstance, DagsterRun

from b44_assets.migration.progress import LoadProgress, load_progress
from b44_assets.migration.rollback import RolledBack
from b44_assets.orchestration.common import key_of
from b44_assets.orchestration.migration.assets import of_whole_table
from b44_assets.orchestration.partitions import key_of_month, month_of
from b44_assets.orchestration.resources import Migration
from b44_assets.session import Session

Part = tuple[str, str | None]
"""A table, and the key of a month where it is loaded by month."""
_LEFT = "A rollback has taken records back: this is what is left. Materializing it brings them again."


@dataclass(frozen=True)
class _Unsaid:
    """What a run was to materialize and did not: the number of the event that announced it, by part."""

    run_id: str
    parts: dict[Part, int]


def report_what_is_in(instance: DagsterInstance, migration: Migration, runs: Sequence[DagsterRun]) -> list[Part]:
    """Reports as materialized what some runs that ended early were to materialize and what is in the database in full.

    Args:
        instance: Dagster's storage.
        migration: The target; it is asked only where a run has left something unsaid.
        runs: Runs that have ended.

    Returns:
        What was reported.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    unsaid = [found for run in runs if (found := _unsaid(instance, migration, run)).parts]
    if not unsaid:
        return []
    progress = load_progress(migration.offline_session())
    reported: list[Part] = []
    for one in unsaid:
        for (table, month), announced in one.parts.items():
            part = (table, month)
            complete = progress.complete(table, None if month is None else month_of(month))
            if complete and part not in reported and _last_said(instance, part) < announced:
                instance.report_runless_asset_event(_materialization(progress, part, one.run_id))
                reported.append(part)
    for table in dict.fromkeys(table for table, month in reported if month is not None):
        instance.report_runless_asset_event(of_whole_table(table, _rows(progress, (table, None))))
    return reported


def report_what_was_taken_back(instance: DagsterInstance, session: Session, rolled_back: RolledBack) -> None:
    """Reports how tables and months are after a rollback: Dagster would show the rows of before.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    progress = load_progress(session)
    deleted = {
        table: sum(one.deleted for one in rolled_back.entities if one.entity == table) for table, _ in rolled_back.parts
    }
    for table, day in rolled_back.parts:
        if day is not None and session.catalog.is_monthly(table):
            month = key_of_month(day)
            instance.report_runless_asset_event(
                dg.AssetMaterialization(key_of(table), _LEFT, metadata=_rows(progress, (table, month)), partition=month)
            )
    for table, count in deleted.items():
        facts = {"taken_back": count, **_rows(progress, (table, None))}
        instance.report_runless_asset_event(dg.AssetMaterialization(key_of(table), _LEFT, metadata=facts))


def _unsaid(instance: DagsterInstance, migration: Migration, run: DagsterRun) -> _Unsaid:
    tables = {key_of(table): table for table in migration.catalog.mappings}
    announced: dict[Part, int] = {}
    said: set[Part] = set()
    cursor: str | None = None
    while True:
        page = instance.get_records_for_run(
            run.run_id,
            cursor,
            of_type={DagsterEventType.ASSET_MATERIALIZATION_PLANNED, DagsterEventType.ASSET_MATERIALIZATION},
        )
        for record in page.records:
            event = record.event_log_entry.dagster_event
            key: AssetKey | None = event.asset_key if event is not None else None
            if event is None or key not in tables:
                continue
            table = tables[key]
            if event.event_type is DagsterEventType.ASSET_MATERIALIZATION:
                said.add((table, event.partition))
                continue
            planned: Any = event.asset_materialization_planned_data
            if not migration.catalog.is_monthly(table):
                keys: Sequence[str | None] = [None]
            elif planned.partitions_subset is not None:
                keys = list(planned.partitions_subset.get_partition_keys())
            else:
                keys = [planned.partition] if planned.partition is not None else []
            announced |= {(table, month): record.storage_id for month in keys}
        if not page.has_more:
            break
        cursor = page.cursor
    return _Unsaid(run.run_id, {part: number for part, number in announced.items() if part not in said})


def _last_said(instance: DagsterInstance, part: Part) -> int:
    """Number of the latest materialization; 0 without any."""
    table, month = part
    wanted = dg.AssetRecordsFilter(asset_key=key_of(table), asset_partitions=None if month is None else [month])
    records = instance.fetch_materializations(wanted, limit=1).records
    return records[0].storage_id if records else 0


def _materialization(progress: LoadProgress, part: Part, run_id: str) -> dg.AssetMaterialization:
    table, month = part
    return dg.AssetMaterialization(
        asset_key=key_of(table),
        partition=month,
        description="Reported from the migration tables: the run that loaded this ended before it could say so.",
        metadata={"interrupted_run": run_id} | _rows(progress, part),
    )


def _rows(progress: LoadProgress, part: Part) -> dict[str, Any]:
    table, month = part
    rows = progress.rows.get(table, {})
    if month is None:
        return {"migrated": sum(rows.values())}
    return {"month": month, "dagster/partition_row_count": rows.get(month_of(month), 0)}
