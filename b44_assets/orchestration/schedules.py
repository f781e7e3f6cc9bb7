"""A job with its schedule, as one object.

Those that there are stand in `maintenance`, `monitoring`, `backup`, `schema/jobs` and `run_retention`.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

import dagster as dg

from b44_assets.orchestration.common import EXECUTOR, MAINTENANCE_TAGS


@dataclass(frozen=True)
class ScheduledJob:
    """A job, when it runs, and how old what it refreshes may grow.

    Attributes:
        name: The job; its schedule is `<name>_schedule`.
        description: What it does.
        cron: When it runs, in UTC.
        schedule: What its schedule says of itself.
        overdue_after: Age from which on the UI calls what it refreshes overdue; None where it refreshes no asset.
        tags: Of its runs.
    """

    name: str
    description: str
    cron: str
    schedule: str
    overdue_after: timedelta | None
    tags: Mapping[str, str] = field(default_factory=lambda: MAINTENANCE_TAGS)

    @property
    def freshness(self) -> dg.FreshnessPolicy | None:
        """The policy of the assets that it refreshes."""
        return None if self.overdue_after is None else dg.FreshnessPolicy.time_window(fail_window=self.overdue_after)

    def of(self, keys: Iterable[dg.AssetKey]) -> Any:
        """The job over some assets and their checks."""
        return dg.define_asset_job(
            self.name,
            dg.AssetSelection.assets(*keys),
            description=self.description,
            tags=self.tags,
            executor_def=EXECUTOR,
        )

    def schedule_definition(self) -> dg.ScheduleDefinition:
        """Its schedule, off until somebody turns it on."""
        return dg.ScheduleDefinition(
            name=f"{self.name}_schedule",
            job_name=self.name,
            cron_schedule=self.cron,
            execution_timezone="UTC",
            description=self.schedule,
        )
