"""The definitions of all domains put together, from settings and catalogue alone."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import dagster as dg

from b44_assets.catalog import Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.orchestration import backup, maintenance, monitoring
from b44_assets.orchestration.alerts.failed_runs import run_failures_sensor
from b44_assets.orchestration.alerts.failing_checks import failing_checks_sensor
from b44_assets.orchestration.common import EXECUTOR, Location
from b44_assets.orchestration.migration import pending_records
from b44_assets.orchestration.migration.definitions import migration_definitions
from b44_assets.orchestration.operations import definitions_of_operations
from b44_assets.orchestration.partitions import months_of
from b44_assets.orchestration.resources import Migration, MigrationResource
from b44_assets.orchestration.run_retention import FORGET_OLD_RUNS, build_forget_job
from b44_assets.orchestration.schema.definitions import schema_definitions

OPERATIONS = (*pending_records.OPERATIONS, *maintenance.OPERATIONS, *monitoring.OPERATIONS, *backup.OPERATIONS)


def build_definitions(
    settings: Settings,
    reload: Callable[[], Settings] | None = None,
    *,
    executor: bool = True,
) -> dg.Definitions:
    """Everything that the code location holds. Reads `sql/`; touches no database and no network.

    Args:
        settings: What the definitions are made from.
        reload: Reads the settings of a run when it starts; by default they are `settings`.
        executor: Whether runs that are of no job, as from the graph, have the executor of the jobs, too: it would be that of all
            that these definitions are merged with.

    Raises:
        CatalogError: A file under `sql/` breaks the form.
        SettingsError: A setting names a table that `sql/` does not have, or not so.
    """
    migration = Migration(settings, load_catalog(settings.sql_dir), reload=reload)
    return definitions_of(migration, executor=executor)


def definitions_of(migration: Migration, *, executor: bool = True) -> dg.Definitions:
    """As `build_definitions`, over a resource that is there already."""
    catalog, settings = migration.catalog, migration.settings
    by_time = {spec.options["on"] for spec in catalog.of(Kind.PARTITION) if catalog.table(spec.options["on"]).period}
    if wrong := settings.keep_months.keys() - by_time:
        raise SettingsError(f"B44_KEEP_MONTHS names {min(wrong)}, which sql/partitions/ does not partition by time")
    location = Location(settings, catalog, months_of(catalog, settings.first_month))
    with warnings.catch_warnings():
        # Backfill policies, code references and freshness policies are "beta" in Dagster 1.13; the pinned range is tested
        # with all of them.
        warnings.simplefilter("ignore", dg.BetaWarning)
        domains = dg.Definitions.merge(
            migration_definitions(location, OPERATIONS),
            schema_definitions(location),
            definitions_of_operations(OPERATIONS, catalog),
            dg.Definitions(sensors=[run_failures_sensor(settings), failing_checks_sensor(settings)]),
        )
    return dg.Definitions.merge(
        domains,
        dg.Definitions(
            jobs=[build_forget_job([spec.key for spec in check_specs(domains)])],
            schedules=[FORGET_OLD_RUNS.schedule_definition()],
            resources={"migration": MigrationResource(base=migration)},
            executor=EXECUTOR if executor else None,
        ),
    )


def check_specs(definitions: dg.Definitions) -> list[dg.AssetCheckSpec]:
    """Every check of some definitions, those in the step of their asset included."""
    found = [*(definitions.assets or ()), *(definitions.asset_checks or ())]
    return [spec for one in found if isinstance(one, dg.AssetsDefinition) for spec in one.check_specs]
