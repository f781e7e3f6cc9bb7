"""One object declares an operation: its asset, its checks, its job and its schedule."""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring import Earlier
from b44_assets.orchestration.common import Answer
from b44_assets.orchestration.operations import (
    Context,
    Measurement,
    Operation,
    ScheduledJob,
    definitions_of_operations,
    numbers_before,
)
from b44_assets.orchestration.resources import Migration
from tests.helpers.code_locations import ephemeral

JOB = ScheduledJob(
    "connections", "Counts them.", cron="*/5 * * * *", schedule="Often.", overdue_after=timedelta(minutes=15)
)
KEY = dg.AssetKey(["monitoring", "connections"])
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Server:
    """Stands in for a database: how many are connected, and how often somebody looked."""

    connected: int = 10
    looks: int = 0
    before: list[Earlier | None] = field(default_factory=list[Earlier | None])


def judge(connected: int, settings: Settings) -> Mapping[str, Answer]:
    limit = settings.keep_backups_days
    said = f"{connected} of {limit} connections are in use" + ("; raise the limit" if connected > limit else "")
    return {"connections_left": Answer(connected <= limit, said, {"connected": connected})}


def measurement(server: Server) -> Measurement[int]:
    def measure(context: Context, _: Migration) -> int:
        server.before.append(numbers_before(context, KEY))
        server.looks += 1
        return server.connected

    def numbers(connected: int) -> dict[str, Any]:
        return {"connected": connected}

    return Measurement(
        KEY,
        "How many are connected.",
        measure,
        numbers,
        upstream=lambda _: [],
        job=JOB,
        checks={"connections_left": "Some more can connect."},
        judge=judge,
    )


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def migration(tmp_path: Path) -> Migration:
    settings = Settings.load(environ={"B44_KEEP_BACKUPS_DAYS": "20"}, directory=tmp_path)
    return Migration(settings, load_catalog(settings.sql_dir))


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    with ephemeral() as made:
        yield made


def definitions_over(migration: Migration, *operations: Operation | Measurement[Any]) -> dg.Definitions:
    return dg.Definitions.merge(
        definitions_of_operations(operations, migration.catalog),
        dg.Definitions(
            jobs=[dg.define_asset_job("checks_alone", dg.AssetSelection.all_asset_checks())],
            resources={"migration": migration},
            executor=dg.in_process_executor,
        ),
    )


def checks_of(result: Any) -> dict[str, tuple[bool, str]]:
    return {e.check_name: (e.passed, e.description or "") for e in result.get_asset_check_evaluations()}


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_measurement_brings_its_asset_check_job_and_schedule(
    server: Server, migration: Migration, instance: dg.DagsterInstance
) -> None:
    definitions = definitions_over(migration, measurement(server))
    [spec] = definitions.resolve_all_asset_specs()
    assert (spec.key, spec.group_name) == (KEY, "monitoring")
    assert isinstance(spec.freshness_policy, TimeWindowFreshnessPolicy)
    schedule = definitions.resolve_schedule_def("connections_schedule")
    assert (schedule.job_name, schedule.cron_schedule) == ("connections", "*/5 * * * *")

    for server.connected, passed in ((10, True), (21, False)):
        result = definitions.resolve_job_def("connections").execute_in_process(instance=instance, run_config=QUIET)
        [event] = result.get_asset_materialization_events()
        assert event.step_materialization_data.materialization.metadata["connected"].value == server.connected
        assert checks_of(result)["connections_left"][0] is passed
    assert server.looks == 2
    assert checks_of(result)["connections_left"][1] == "21 of 20 connections are in use; raise the limit"


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_measurement_can_ask_for_the_numbers_before(
    server: Server, migration: Migration, instance: dg.DagsterInstance
) -> None:
    job = definitions_over(migration, measurement(server)).resolve_job_def("connections")
    for server.connected in (10, 12):
        job.execute_in_process(instance=instance, run_config=QUIET)
    [first, second] = server.before
    assert first is None
    assert second is not None
    assert second.numbers == {"connected": 10}
    assert second.at < datetime.now(UTC)


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_a_check_asked_for_alone_measures_and_materializes_nothing(
    server: Server, migration: Migration, instance: dg.DagsterInstance
) -> None:
    job = definitions_over(migration, measurement(server)).resolve_job_def("checks_alone")
    result = job.execute_in_process(instance=instance, run_config=QUIET)
    assert checks_of(result)["connections_left"][0]
    assert (server.looks, result.get_asset_materialization_events()) == (1, [])


@pytest.mark.filterwarnings("ignore::dagster.BetaWarning")
def test_the_checks_of_an_operation_are_judged_without_doing_its_work(
    migration: Migration, instance: dg.DagsterInstance
) -> None:
    done: list[str] = []

    def work(*_: object) -> dict[str, Any]:
        done.append("work")
        return {}

    operation = Operation(
        dg.AssetKey(["backup", "copy"]),
        "Copies.",
        work,
        upstream=lambda _: [],
        checks={"copied": "There is a copy."},
        judge=lambda _: {"copied": Answer(False, "there is none; run it", warns=True)},
    )
    result = (
        definitions_over(migration, operation)
        .resolve_job_def("checks_alone")
        .execute_in_process(instance=instance, run_config=QUIET)
    )
    [verdict] = result.get_asset_check_evaluations()
    assert (verdict.passed, verdict.severity, done) == (False, dg.AssetCheckSeverity.WARN, [])
