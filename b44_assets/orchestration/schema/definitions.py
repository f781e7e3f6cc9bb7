"""The definitions of the domain: assets, checks, jobs, schedules and the sensor of the schema."""

from __future__ import annotations

import dagster as dg

from b44_assets.orchestration.common import Location
from b44_assets.orchestration.schema.assets import B44_SCHEMA_KEY, MIGRATION_SCHEMA_KEY, build_assets
from b44_assets.orchestration.schema.checks import build_checks
from b44_assets.orchestration.schema.jobs import MANAGE_PARTITIONS, SCHEDULED, build_jobs
from b44_assets.orchestration.schema.sensors import default_partitions_sensor


def schema_definitions(location: Location) -> dg.Definitions:
    """What makes and checks the schema."""
    jobs = build_jobs(location.catalog, (MIGRATION_SCHEMA_KEY, B44_SCHEMA_KEY))
    return dg.Definitions(
        assets=build_assets(location.catalog),
        asset_checks=build_checks(location.catalog),
        jobs=list(jobs.values()),
        schedules=[job.schedule_definition() for job, _ in SCHEDULED],
        sensors=[default_partitions_sensor(jobs[MANAGE_PARTITIONS.name])],
    )
