"""The sensor on the schema: rows that have fallen into a default partition."""

import json
from typing import Any

import dagster as dg
from dagster import RunsFilter

from b44_assets.catalog import Kind
from b44_assets.orchestration.common import key_of
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.run_retention import UNFINISHED
from b44_assets.orchestration.schema.jobs import MANAGE_PARTITIONS
from b44_assets.schema.partition_checks import rows_in_defaults

_LONGEST_TAG = 200


def default_partitions_sensor(job: Any) -> dg.SensorDefinition:
    """Makes the sensor that has rows moved out of default partitions; `job` moves them."""

    @dg.sensor(
        name="default_partitions",
        description="Rows that have fallen into a default partition: has them moved to partitions of their own. Rows that"
        " cannot be moved are left alone until others join them.",
        minimum_interval_seconds=300,
        job=job,
    )
    def default_partitions(
        context: dg.SensorEvaluationContext, migration: dg.ResourceParam[Migration]
    ) -> dg.SensorResult | dg.SkipReason:
        rows = rows_in_defaults(migration.offline_session())
        cursor = json.dumps(rows, sort_keys=True)
        if not rows:
            return dg.SensorResult(skip_reason="every default partition is empty", cursor=cursor)
        said = "; ".join(f"{table}: {sum(held.values())} rows of {', '.join(held)}" for table, held in rows.items())
        if cursor == context.cursor:
            return dg.SkipReason(f"moved already, or cannot be moved: {said}")
        if context.instance.get_runs_count(RunsFilter(job_name=MANAGE_PARTITIONS.name, statuses=UNFINISHED)):
            return dg.SkipReason(f"being moved: {said}")
        sets = {spec.options["on"]: key_of(spec.name) for spec in migration.catalog.of(Kind.PARTITION)}
        request = dg.RunRequest(
            job_name=MANAGE_PARTITIONS.name,
            asset_selection=[sets[table] for table in rows],
            tags={"b44/default_partitions": said[:_LONGEST_TAG]},
        )
        return dg.SensorResult(run_requests=[request], cursor=cursor)

    return default_partitions
