"""Jobs and schedules: which assets are materialized together, and when.

What belongs here: names, selections, times. What does not: work of any kind.
"""

from __future__ import annotations

from typing import Any

import dagster as dg

from b44_assets.catalog import WITHOUT_OBJECT, Catalog, Kind
from b44_assets.orchestration.assets import (
    B44_SCHEMA_KEY,
    INDEX_USAGE_KEY,
    MIGRATION_SCHEMA_KEY,
    PENDING_WORK_KEY,
    REBUILT_INDEXES_KEY,
    STATISTICS_KEY,
    STRAYS_KEY,
    TABLE_SIZES_KEY,
    export_key,
    key_of,
)
from b44_assets.orchestration.backups import (
    BASE_KEY,
    CATALOGUE_KEY,
    DRILL_KEY,
    INCREMENTAL_KEY,
    LOGICAL_KEY,
    OF_BACKUP,
    WAL_KEY,
)
from b44_assets.orchestration.schedules import (
    BASE_BACKUP_JOB,
    CATALOGUE_JOB,
    DRILL_JOB,
    INCREMENTAL_BACKUP_JOB,
    LOGICAL_BACKUP_JOB,
    MAINTENANCE_JOB,
    MONITORING_JOB,
    PARTITIONS_JOB,
    REFRESH_JOB,
    STATISTICS_JOB,
    TIMETABLE,
    WAL_JOB,
)

MIGRATE_JOB = "migrate_everything"
DELTA_JOB = "delta"
SCHEMA_JOB = "schema_only"
REPLAY_JOB = "replay"
VERIFY_JOB = "verify"

PROVE_TAG = "b44/prove"
"""On a run that is to compare every row with its record anew, whatever was proven before."""
LOAD_TAGS = {"b44/work": "load"}
"""Of runs that move records; `dagster.yaml` says how many of them may be under way."""
UPKEEP_TAGS = {"b44/work": "upkeep"}
BACKUP_TAGS = {"b44/work": "backup"}
CODE_LOCATION_TAGS = {".dagster/repository": "__repository__@b44_assets"}
"""Of runs that no code location has launched: by these the UI shows them in the timeline and on the page of their job."""

_BACKUP_JOBS = {
    LOGICAL_BACKUP_JOB: LOGICAL_KEY,
    BASE_BACKUP_JOB: BASE_KEY,
    INCREMENTAL_BACKUP_JOB: INCREMENTAL_KEY,
    WAL_JOB: WAL_KEY,
    CATALOGUE_JOB: CATALOGUE_KEY,
    DRILL_JOB: DRILL_KEY,
}

OF_OPERATION = (PENDING_WORK_KEY, REBUILT_INDEXES_KEY, STATISTICS_KEY, TABLE_SIZES_KEY)
"""Assets that keep a migrated database in shape, and are no part of a migration."""


def build_jobs(catalog: Catalog) -> dict[str, Any]:
    """Every job on assets, by name."""
    assets = dg.AssetSelection.assets
    views = assets(*(key_of(spec.name) for spec in catalog.of(Kind.VIEW)))
    partitions = assets(*(key_of(spec.name) for spec in catalog.of(Kind.PARTITION)))
    tables = tuple(catalog.mappings)
    without_rows = assets(
        MIGRATION_SCHEMA_KEY,
        B44_SCHEMA_KEY,
        *(
            key_of(spec.name)
            for spec in catalog.specs
            if spec.kind not in (Kind.RUNTIME, *WITHOUT_OBJECT) and spec.name not in catalog.mappings
        ),
    )
    jobs = [
        dg.define_asset_job(
            MIGRATE_JOB,
            selection=dg.AssetSelection.all() - assets(*OF_OPERATION, *OF_BACKUP),
            description="From the folder of exports to verified tables: every asset and every check.",
            tags=LOAD_TAGS,
        ),
        dg.define_asset_job(
            DELTA_JOB,
            selection=assets(
                *(export_key(table) for table in tables),
                *(key_of(table) for table in tables),
                STRAYS_KEY,
                PENDING_WORK_KEY,
            ),
            description="Only the records: stages the exports that have changed, loads what is new, and checks the tables."
            " The schema stays as it is. Sensors start it for the entities and months that are touched.",
            tags=LOAD_TAGS,
        ),
        dg.define_asset_job(
            REPLAY_JOB,
            selection=assets(*(key_of(table) for table in tables)),
            description="Migrates what was corrected in migration.quarantine, and checks the tables. Nothing is staged anew.",
            tags=LOAD_TAGS,
        ),
        dg.define_asset_job(
            SCHEMA_JOB,
            selection=without_rows,
            description="Everything but the records: the migration's own tables, functions, empty tables, partitions,"
            " indexes, constraints, triggers and views. Tables themselves count as materialized only once their records are in.",
            tags=UPKEEP_TAGS,
        ),
        dg.define_asset_job(
            VERIFY_JOB,
            selection=dg.AssetSelection.all_asset_checks() - dg.AssetSelection.checks_for_assets(*OF_BACKUP),
            description="Every check, on what is in the database now. Those of the backups go with the backups.",
            tags=UPKEEP_TAGS,
        ),
        dg.define_asset_job(
            REFRESH_JOB,
            selection=views,
            description="Fills the materialized views anew; their readers see the old rows until the new ones are there.",
            tags=UPKEEP_TAGS,
        ),
        dg.define_asset_job(
            PARTITIONS_JOB,
            selection=partitions,
            description="Makes partitions ahead, moves rows out of default partitions, and detaches what B44_KEEP_MONTHS says.",
            tags=UPKEEP_TAGS,
        ),
        dg.define_asset_job(
            STATISTICS_JOB,
            selection=assets(STATISTICS_KEY),
            description="VACUUM and ANALYZE of the tables that have changed enough since the last time.",
            tags=UPKEEP_TAGS,
        ),
        dg.define_asset_job(
            MAINTENANCE_JOB,
            selection=assets(INDEX_USAGE_KEY, REBUILT_INDEXES_KEY),
            description="Looks at every index, and rebuilds the bloated ones while they are in use.",
            tags=UPKEEP_TAGS,
        ),
        dg.define_asset_job(
            MONITORING_JOB,
            selection=assets(TABLE_SIZES_KEY),
            description="Measures the database, for the plots of the assets in group monitoring.",
            tags=UPKEEP_TAGS,
        ),
        *(
            dg.define_asset_job(
                name,
                selection=assets(key),
                description=f"{TIMETABLE[name].description} Materializes {key.to_user_string()} and checks it.",
                tags=BACKUP_TAGS,
            )
            for name, key in _BACKUP_JOBS.items()
        ),
    ]
    return {job.name: job for job in jobs}


def build_schedules() -> list[dg.ScheduleDefinition]:
    """Every schedule; each is off until somebody turns it on."""
    return [
        dg.ScheduleDefinition(
            name=f"{entry.job}_schedule",
            job_name=entry.job,
            cron_schedule=entry.cron,
            execution_timezone="UTC",
            description=entry.description,
        )
        for entry in TIMETABLE.values()
    ]
