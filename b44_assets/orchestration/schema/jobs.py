"""The jobs on the schema, and their schedules."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import timedelta
from typing import Any

import dagster as dg

from b44_assets.catalog import WITHOUT_OBJECT, Catalog, Kind, Spec
from b44_assets.orchestration.common import EXECUTOR, MAINTENANCE_TAGS, key_of
from b44_assets.orchestration.schedules import ScheduledJob

REFRESH_VIEWS = ScheduledJob(
    "refresh_stats",
    "Fills the materialized views anew; their readers see the old rows until the new ones are there.",
    cron="0 */6 * * *",
    schedule="Every six hours: the materialized views.",
    overdue_after=timedelta(hours=7),
)
MANAGE_PARTITIONS = ScheduledJob(
    "manage_partitions",
    "Makes partitions ahead, moves rows out of default partitions, and detaches what B44_KEEP_MONTHS says.",
    cron="0 2 1 * *",
    schedule="On the first of each month: the partitions ahead.",
    overdue_after=timedelta(days=32),
)
SCHEDULED: tuple[tuple[ScheduledJob, Callable[[Catalog], Iterable[Spec]]], ...] = (
    (REFRESH_VIEWS, lambda catalog: catalog.materialized_views),
    (MANAGE_PARTITIONS, lambda catalog: catalog.of(Kind.PARTITION)),
)
"""Each with the files whose assets it refreshes."""


def build_jobs(catalog: Catalog, runtime: tuple[dg.AssetKey, ...]) -> dict[str, Any]:
    """Every job on the schema, by name.

    Args:
        catalog: The files of `sql/`.
        runtime: The assets of the program's own schemas.
    """
    without_records = dg.define_asset_job(
        "schema_only",
        dg.AssetSelection.assets(
            *runtime,
            *(
                key_of(spec.name)
                for spec in catalog.specs
                if spec.kind not in (Kind.RUNTIME, *WITHOUT_OBJECT) and spec.name not in catalog.mappings
            ),
        ),
        description="Everything but the records: the migration's own tables, functions, empty tables, partitions,"
        " indexes, constraints, triggers, policies, views and roles. Tables themselves count as materialized only once their"
        " records are in.",
        tags=MAINTENANCE_TAGS,
        executor_def=EXECUTOR,
    )
    scheduled = [job.of(key_of(spec.name) for spec in refreshed(catalog)) for job, refreshed in SCHEDULED]
    return {job.name: job for job in (without_records, *scheduled)}
