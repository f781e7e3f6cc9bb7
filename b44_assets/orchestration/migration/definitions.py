"""The definitions of the domain: assets, checks, jobs and sensors of records."""

from __future__ import annotations

from collections.abc import Sequence

import dagster as dg

from b44_assets.orchestration.common import Location
from b44_assets.orchestration.migration.assets import build_assets
from b44_assets.orchestration.migration.checks import build_checks
from b44_assets.orchestration.migration.jobs import build_jobs
from b44_assets.orchestration.migration.sensors import build_sensors
from b44_assets.orchestration.operations import AnyOperation


def migration_definitions(location: Location, operations: Sequence[AnyOperation]) -> dg.Definitions:
    """What moves and verifies records.

    Args:
        location: What the definitions are made from.
        operations: Of all domains; the job that migrates leaves out those that are no part of it.
    """
    jobs = build_jobs(location.catalog, operations)
    return dg.Definitions(
        assets=build_assets(location.catalog, location.months),
        asset_checks=build_checks(location.catalog),
        jobs=list(jobs.values()),
        sensors=build_sensors(jobs, location.months),
    )
