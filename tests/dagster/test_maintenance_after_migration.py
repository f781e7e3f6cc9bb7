"""Jobs, schedules and sensors on a database whose migration is over."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from urllib.parse import urlsplit

import dagster as dg
import pytest

from b44_assets.catalog import Kind
from b44_assets.migration.finish import drop_migration_tables
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.schema.build import build
from b44_assets.schema.runtime import install_runtime
from tests.helpers.code_locations import Place, Template, session_of
from tests.helpers.connections import LOGGED, ended_connections
from tests.helpers.databases import template_once
from tests.helpers.waiting import eventually

JOBS = (
    "schema_only",
    "manage_partitions",
    "refresh_stats",
    "statistics",
    "maintenance",
    "monitoring",
    "monitoring_daily",
    "verify",
    "logical_backup",
    "review_backups",
)
CHANGING = ("schema_only", "manage_partitions", "refresh_stats")
OTHERS = (
    "select application_name from pg_stat_activity"
    " where datname = current_database() and pid <> pg_backend_pid() and usesysid is not null"
)
SENSORS = ("changed_exports", "pending_work", "failed_batches", "default_partitions", "interrupted_runs")


def by_finish(place: Place) -> None:
    drop_migration_tables(
        place.migration.offline_session(),
        "20261101T120000Z-migration",
        datetime(2026, 11, 1, tzinfo=UTC),
        lambda conn: [],
    )


def by_hand(place: Place) -> None:
    place.execute("drop schema migration cascade")
    place.execute("drop schema base44 cascade")


@pytest.fixture(scope="session")
def built(embedded: EmbeddedServer, template: Template) -> Template:
    """The template with the whole schema."""

    def build_all(url: str) -> None:
        with session_of(url, template.export).keeping() as session:
            for spec in session.catalog.of(
                Kind.PARTITION, Kind.INDEX, Kind.CONSTRAINT, Kind.TRIGGER, Kind.POLICY, Kind.VIEW
            ):
                build(session, spec)
            install_runtime(session)

    made = template_once(embedded.url("postgres"), "dagster_built", build_all, of=template.database)
    return Template(made, template.export)


@pytest.fixture(params=[by_finish, by_hand])
def over(
    request: pytest.FixtureRequest,
    built: Template,
    copied: Callable[[Template, dg.DagsterInstance], Place],
    instance: dg.DagsterInstance,
) -> Place:
    place = copied(built, instance)
    drop: Callable[[Place], None] = request.param
    drop(place)
    return place


def test_every_job_of_the_upkeep_succeeds_and_every_sensor_ticks(
    over: Place, embedded: EmbeddedServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PGOPTIONS", LOGGED)
    database = urlsplit(over.url).path.removeprefix("/")
    for sensor in SENSORS:
        assert not over.tick(sensor).run_requests, sensor
    # A session ends a little after its client has gone.
    eventually(lambda: over.execute(OTHERS) == [])
    # The server's logger writes a little later.
    eventually(lambda: "test" in ended_connections(embedded, database)[0])
    # Each looks at the target a few times, and keeps no connection.
    [ticked] = ended_connections(embedded, database)
    assert ticked.total() - ticked["test"] <= 3 * len(SENSORS), ticked
    finished = over.execute("select finished_at is not null from b44.migration_state") == [(True,)]
    # How full the machine's disk and memory are is no matter of the migration.
    over = Place(over.settings.changed(thresholds="disk_free=off,memory=off"), over.export, over.instance)
    failed: dict[str, list[str]] = {}
    for job in JOBS:
        # Where nobody finished the migration, the job makes its tables anew, empty.
        if job == "schema_only" and not finished:
            continue
        result = over.job(job)
        # What one can go back to is said once before the schema is changed, and by nothing else.
        assert over.said_of_backup(result) == (job in CHANGING), job
        checks = [e for e in result.get_asset_check_evaluations() if not e.passed and e.severity.value == "ERROR"]
        if not result.success or checks:
            failed[job] = [*map(str, over.migration.faults), *(f"{e.check_name}: {e.description}" for e in checks)]
    assert failed == {}
    eventually(lambda: over.execute(OTHERS) == [])
    [ended] = ended_connections(embedded, database)
    assert [name for name in ended if not name.startswith("b44 ") and name != "test"] == []
    assert over.execute("select to_regnamespace('migration')") == [(None,)]


def test_a_run_that_would_migrate_fails_in_one_line(over: Place) -> None:
    result = over.job("replay", assets=[dg.AssetKey("users")])
    assert not result.success
    assert str(over.migration.faults[0]).startswith("nothing can be migrated into this database: ")
