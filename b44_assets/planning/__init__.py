"""What a migration would do, found without touching the target: the export is read and planned on a throw-away server."""

from b44_assets.planning.model import MigrationPlan, PlannedEntity, PlannedTable
from b44_assets.planning.plan import plan_migration

__all__ = ["MigrationPlan", "PlannedEntity", "PlannedTable", "plan_migration"]
