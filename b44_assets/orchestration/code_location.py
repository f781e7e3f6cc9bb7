"""The definitions put together: assets, checks, jobs, schedules, sensors and the resource, from settings and catalogue alone."""

from __future__ import annotations

import warnings

import dagster as dg

from b44_assets.catalog import Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.orchestration.assets import build_assets
from b44_assets.orchestration.backups import build_backup_checks, build_backups
from b44_assets.orchestration.checks import build_checks
from b44_assets.orchestration.jobs import MIGRATE_JOB, VERIFY_JOB, build_jobs, build_schedules
from b44_assets.orchestration.partitions import months_of
from b44_assets.orchestration.resources import Migration, resource_of
from b44_assets.orchestration.run_retention import build_forget_job
from b44_assets.orchestration.sensors import build_sensors
from b44_assets.session import Progress, silent

__all__ = ["MIGRATE_JOB", "VERIFY_JOB", "build_definitions", "definitions_of"]


def build_definitions(settings: Settings, progress: Progress = silent) -> dg.Definitions:
    """Everything that the code location holds. Reads `sql/`; touches no database and no network.

    Raises:
        CatalogError: A file under `sql/` breaks the form.
        SettingsError: A setting names a table that `sql/` does not have, or not so.
    """
    migration = Migration(settings, load_catalog(settings.sql_dir), progress)
    return definitions_of(migration)


def definitions_of(migration: Migration) -> dg.Definitions:
    """As `build_definitions`, over a resource that is there already."""
    catalog = migration.catalog
    by_time = {spec.options["on"] for spec in catalog.of(Kind.PARTITION) if catalog.table(spec.options["on"]).period}
    if wrong := migration.settings.keep_months.keys() - by_time:
        raise SettingsError(f"B44_KEEP_MONTHS names {min(wrong)}, which sql/partitions/ does not partition by time")
    months = months_of(catalog, migration.settings.first_month)
    with warnings.catch_warnings():
        # Backfill policies, code references and freshness policies are "beta" in Dagster 1.13; the pinned range is tested
        # with all of them.
        warnings.simplefilter("ignore", dg.BetaWarning)
        assets = [*build_assets(catalog, months), *build_backups(catalog)]
        checks = [*build_checks(catalog), *build_backup_checks()]
    check_keys = [spec.key for check in checks for spec in check.check_specs]
    jobs = build_jobs(catalog)
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[*jobs.values(), build_forget_job(check_keys)],
        schedules=build_schedules(),
        sensors=build_sensors(migration.settings, jobs, months),
        resources={"migration": resource_of(migration)},
        # The database does the work; a process for each step would cost seconds a step.
        executor=dg.in_process_executor,
    )
