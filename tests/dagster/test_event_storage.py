"""The events of a run in this process, stored together: none is lost, none is seen late, and the graph is as Dagster makes it."""

import uuid
from collections.abc import Generator
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from sqlalchemy.exc import SQLAlchemyError

from b44_assets.orchestration.storage import EventLogStorage
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.databases import create_database
from tests.helpers.waiting import eventually


@dg.asset
def first(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    context.log.info("one is made")
    return dg.MaterializeResult(metadata={"rows": 1}, tags={"kind": "small"})


@dg.asset(deps=[first])
def second() -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(metadata={"rows": 2})


@dg.asset_check(asset=second)
def whole() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True, metadata={"rows": 2})


@dg.asset(deps=[second])
def broken() -> None:
    raise ValueError("not made")


GRAPH = dg.Definitions(assets=[first, second, broken], asset_checks=[whole])


@pytest.fixture(scope="module")
def url(embedded: EmbeddedServer) -> Generator[str]:
    name = f"events_{uuid.uuid4().hex}"
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
        create_database(conn, name)
        yield embedded.url(name)
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture(scope="module")
def instance(url: str) -> Generator[dg.DagsterInstance]:
    storage = {
        "module": "b44_assets.orchestration.storage",
        "class": "PostgresStorage",
        "config": {"postgres_url": url.replace("postgresql:", "postgresql+psycopg2:", 1)},
    }
    with dg.instance_for_test(overrides={"storage": {"custom": storage}}) as made:
        yield made


def run(instance: dg.DagsterInstance) -> list[Any]:
    """Runs the graph; returns what is stored of each event in order."""
    done = GRAPH.resolve_implicit_global_asset_job_def().execute_in_process(instance=instance, raise_on_error=False)
    records = instance.get_records_for_run(done.run_id, limit=1000).records
    return [
        (event.event_log_entry.step_key, event.event_log_entry.dagster_event_type, event.storage_id)
        for event in records
    ]


def storage(instance: dg.DagsterInstance) -> EventLogStorage:
    held = instance.event_log_storage
    assert isinstance(held, EventLogStorage)
    return held


def of_graph(instance: dg.DagsterInstance) -> list[Any]:
    """What the UI reads of the assets and of the check."""
    keys = [first.key, second.key, broken.key]
    records = {record.asset_entry.asset_key: record.asset_entry for record in instance.get_asset_records(keys)}
    check = dg.AssetCheckKey(second.key, "whole")
    [[latest]] = [instance.event_log_storage.get_asset_check_execution_history(check, limit=1)]
    told: list[Any] = [latest.status]
    for key in keys:
        event = records[key].last_materialization
        made = event.asset_materialization if event is not None else None
        told.append(
            (key, made and (dict(made.metadata), sorted(made.tags or ())), records[key].last_run_id == latest.run_id)
        )
    return told


def test_a_run_whose_events_are_held_is_stored_as_any_other(instance: dg.DagsterInstance) -> None:
    plain = run(instance)
    before = of_graph(instance)
    with storage(instance).holding():
        held = run(instance)
    assert [event[:2] for event in held] == [event[:2] for event in plain]
    assert [event[2] for event in held] == sorted(event[2] for event in held)
    assert of_graph(instance) == before
    assert [one.status for one in instance.get_runs(limit=2)] == [dg.DagsterRunStatus.FAILURE] * 2


def test_what_is_held_points_at_what_was_made_in_the_same_run(instance: dg.DagsterInstance) -> None:
    """Of two runs that are held together, each knows what it was made from, and what was checked."""
    with storage(instance).holding():
        for _ in range(2):
            run(instance)
            made = {
                record.asset_entry.asset_key: record.asset_entry.last_materialization_record
                for record in instance.get_asset_records([first.key, second.key])
            }
            [latest] = instance.event_log_storage.get_asset_check_execution_history(
                dg.AssetCheckKey(second.key, "whole"), limit=1
            )
            newest = made[second.key]
            assert newest is not None and newest.asset_materialization is not None and latest.event is not None
            evaluation = latest.event.asset_check_evaluation
            assert evaluation is not None and evaluation.target_materialization_data is not None
            assert evaluation.target_materialization_data.storage_id == newest.storage_id
            of_first = instance.get_latest_materialization_event(first.key)
            assert of_first is not None and newest.run_id == latest.run_id == of_first.run_id
            pointers = {
                name: value
                for name, value in (newest.asset_materialization.tags or {}).items()
                if name.startswith("dagster/input_event_pointer")
            }
            upstream = made[first.key]
            assert upstream is not None and list(pointers.values()) == [str(upstream.storage_id)]


def test_what_is_held_is_stored_before_anything_is_read(instance: dg.DagsterInstance, url: str) -> None:
    with storage(instance).holding():
        instance.report_runless_asset_event(dg.AssetMaterialization("third", metadata={"rows": 3}))
        latest = instance.get_latest_materialization_event(dg.AssetKey("third"))
        assert latest is not None and latest.asset_materialization is not None
        assert latest.asset_materialization.metadata["rows"] == dg.IntMetadataValue(3)


def test_what_is_held_is_seen_by_others_after_a_while(instance: dg.DagsterInstance, url: str) -> None:
    with storage(instance).holding(), psycopg.connect(url, autocommit=True) as other:
        instance.report_runless_asset_event(dg.AssetMaterialization("fourth"))
        found = "select exists (select from asset_keys where asset_key = '[\"fourth\"]')"
        eventually(lambda: other.execute(found).fetchone() == (True,))


def test_what_could_not_be_stored_stays_held(instance: dg.DagsterInstance, url: str) -> None:
    """The run is told, and nothing is lost once the storage is back."""
    with psycopg.connect(url, autocommit=True) as other:
        with storage(instance).holding():
            instance.report_runless_asset_event(dg.AssetMaterialization("fifth"))
            other.execute("alter table asset_keys rename to away")
            try:
                with pytest.raises(SQLAlchemyError):
                    instance.get_latest_materialization_event(dg.AssetKey("sixth"))
            finally:
                other.execute("alter table away rename to asset_keys")
        stored = other.execute("select count(*) from event_logs where asset_key = '[\"fifth\"]'").fetchone()
    assert stored == (1,)
