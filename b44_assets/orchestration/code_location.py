"""The definitions put together: assets, checks, jobs and the resource, from settings and catalogue alone."""

from __future__ import annotations

import warnings

import dagster as dg

from b44_assets.catalog import Kind, load_catalog
from b44_assets.engine.session import Progress, silent
from b44_assets.errors import SettingsError
from b44_assets.orchestration.assets import INDEX_USAGE_KEY, REBUILT_INDEXES_KEY, build_assets
from b44_assets.orchestration.checks import build_checks
from b44_assets.orchestration.partitions import months_from
from b44_assets.orchestration.resources import Migration
from b44_assets.settings import Settings

MIGRATE_JOB = "migrate_everything"
VERIFY_JOB = "verify"
MAINTENANCE_JOB = "maintenance"


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
    months = months_from(migration.settings.first_month)
    with warnings.catch_warnings():
        # Backfill policies and code references are "beta" in Dagster 1.13; the pinned range is tested with both.
        warnings.simplefilter("ignore", dg.BetaWarning)
        assets, checks = build_assets(catalog, months), build_checks(catalog)
    return dg.Definitions(
        assets=assets,
        asset_checks=checks,
        jobs=[
            dg.define_asset_job(
                MIGRATE_JOB,
                selection=dg.AssetSelection.all() - dg.AssetSelection.assets(REBUILT_INDEXES_KEY),
                description="From the folder of exports to verified tables: every asset and every check.",
            ),
            dg.define_asset_job(
                VERIFY_JOB,
                selection=dg.AssetSelection.all_asset_checks(),
                description="Every check, on what is in the database now.",
            ),
            dg.define_asset_job(
                MAINTENANCE_JOB,
                selection=dg.AssetSelection.assets(INDEX_USAGE_KEY, REBUILT_INDEXES_KEY),
                description="Looks at every index, and rebuilds the bloated ones while they are in use.",
            ),
        ],
        resources={"migration": migration},
        # The database does the work; a process for each step would cost seconds a step.
        executor=dg.in_process_executor,
    )
