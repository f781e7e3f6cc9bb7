"""Runs of the graph against a real server: what the UI will show."""

from __future__ import annotations

import shutil
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import definitions_of
from b44_assets.orchestration.migration.jobs import MIGRATE_JOB, VERIFY_JOB
from b44_assets.orchestration.resources import Migration
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.sample import write_sample
from tests.helpers.code_locations import ephemeral
from tests.helpers.databases import create_database
from tests.helpers.sample_exports import keep_posts

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


WHOLE = ("2026-01", "2026-11")


def settings_for(url: str, home: Path, **environ: str) -> Settings:
    return Settings.load(environ={"B44_DATABASE_URL": url, "B44_FIRST_MONTH": WHOLE[0], **environ}, directory=home)


def run(
    settings: Settings, job: str, first: str, last: str, assets: dg.AssetSelection | None = None
) -> tuple[Any, Migration]:
    """A run of a job for a range of months, or the part of it for some assets."""
    migration = Migration(settings, load_catalog(settings.sql_dir))
    definitions = definitions_of(migration)
    with ephemeral() as instance:
        result = definitions.resolve_job_def(job).execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config=QUIET,
            tags={
                "dagster/asset_partition_range_start": first,
                "dagster/asset_partition_range_end": last,
            },
            asset_selection=None if assets is None else sorted(assets.resolve(definitions.resolve_asset_graph())),
        )
    return result, migration


def failed_checks(result: Any) -> set[tuple[str, str]]:
    """Checks that failed as errors; warnings are for people to weigh."""
    return {
        (e.asset_key.to_user_string(), e.check_name)
        for e in result.get_asset_check_evaluations()
        if not e.passed and e.severity is dg.AssetCheckSeverity.ERROR
    }


def sample(folder: Path) -> Path:
    """An export with posts of a few months."""
    write_sample(folder, users=20, posts=300, seed=3, dialect="jsonl", faults=0.05)
    keep_posts(folder, "2026-")
    return folder


@pytest.fixture
def settings(embedded_database: str, tmp_path: Path) -> Settings:
    """An empty database, and an export to migrate into it."""
    return settings_for(embedded_database, tmp_path, B44_EXPORT_DIR=str(sample(tmp_path / "export")))


@pytest.fixture(scope="module")
def first_run(
    embedded: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory
) -> Generator[tuple[str, Path, dict[str, Any]]]:
    """An export migrated as a whole: the database to make copies of, the export, and the metadata of every asset."""
    name, folder = f"runs_{uuid.uuid4().hex}", tmp_path_factory.mktemp("runs")
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
        create_database(conn, name)
        try:
            result, _ = run(
                settings_for(embedded.url(name), folder, B44_EXPORT_DIR=str(sample(folder / "export"))),
                MIGRATE_JOB,
                *WHOLE,
            )
            assert result.success
            yield name, folder / "export", facts_of(result)
        finally:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def migrated(
    embedded: EmbeddedServer, first_run: tuple[str, Path, dict[str, Any]], tmp_path: Path
) -> Generator[Settings]:
    """A database that the export was migrated into, of the test's own."""
    template, export, _ = first_run
    name = f"test_{uuid.uuid4().hex}"
    shutil.copytree(export, tmp_path / "export")
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
        create_database(conn, name, template)
        try:
            yield settings_for(embedded.url(name), tmp_path, B44_EXPORT_DIR=str(tmp_path / "export"))
        finally:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def facts_of(result: Any) -> dict[str, Any]:
    """The metadata of what was materialized, by asset."""
    return {
        event.asset_key.to_user_string(): event.step_materialization_data.materialization.metadata
        for event in result.get_asset_materialization_events()
    }


def months_held(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        return {
            row[0]
            for row in conn.execute("select distinct to_char(created_at at time zone 'UTC', 'YYYY-MM') from posts")
        }


def test_a_month_of_posts_can_be_migrated_by_itself_and_the_others_wait(settings: Settings) -> None:
    result, _ = run(settings, MIGRATE_JOB, "2026-03", "2026-03", dg.AssetSelection.assets("posts").upstream())
    assert result.success
    assert settings.database_url is not None
    assert months_held(settings.database_url) == {"2026-03"}
    verdict = next(
        e
        for e in result.get_asset_check_evaluations()
        if e.check_name == "row_parity" and e.asset_key.path[-1] == "posts"
    )
    assert (verdict.passed, verdict.severity) == (False, dg.AssetCheckSeverity.WARN)


@pytest.mark.slow  # tests/browser has a range, tests/database what waits and then goes on
def test_a_range_then_the_rest_comes_to_the_same_as_all_at_once(settings: Settings) -> None:
    part, _ = run(settings, MIGRATE_JOB, "2026-01", "2026-03")
    rows = {
        event.partition: event.step_materialization_data.materialization.metadata["dagster/partition_row_count"].value
        for event in part.get_asset_materialization_events()
        if event.asset_key == dg.AssetKey("posts") and event.partition is not None
    }
    assert settings.database_url is not None
    with psycopg.connect(settings.database_url) as conn:
        held = dict(
            conn.execute(
                "select to_char(created_at at time zone 'UTC', 'YYYY-MM'), count(*) from posts group by 1"
            ).fetchall()
        )
    assert rows == {key: held.get(key, 0) for key in ("2026-01", "2026-02", "2026-03")}
    assert sum(rows.values()) > 0
    result, _ = run(settings, MIGRATE_JOB, *WHOLE)
    assert result.success
    assert failed_checks(result) == set()


def test_metadata_tells_what_became_of_the_records(first_run: tuple[str, Path, dict[str, Any]]) -> None:
    _, _, facts = first_run
    assert facts["base44/posts"]["dialect"].value == "jsonl"
    users = facts["users"]
    assert users["read"].value == users["migrated"].value + users["deduplicated"].value + users["quarantined"].value
    assert "quarantined_by_reason" in facts["posts"]
    assert "quarantine_preview" in facts["posts"]
    lineage = facts["posts"]["dagster/column_lineage"].value.deps_by_column
    assert [(dep.asset_key.to_user_string(), dep.column_name) for dep in lineage["title"]] == [
        ("base44/posts", "title")
    ]
    staged = {column.name for column in facts["base44/posts"]["dagster/column_schema"].value.columns}
    named = {d.column_name for deps in lineage.values() for d in deps if d.asset_key.path[0] == "base44"}
    assert named <= staged
    described = {column.name: column.description for column in facts["posts"]["dagster/column_schema"].value.columns}
    assert "(from the exported title)" in described["title"]
    rules = facts["users"]["repaired_by_rule"].value.records
    assert sum(record.data["records"] for record in rules) == facts["users"]["repaired"].value
    assert facts["posts"]["rows_by_month"].value.startswith("![")


def test_a_month_s_event_has_its_own_numbers_and_the_table_s_stand_apart(migrated: Settings) -> None:
    definitions = definitions_of(Migration(migrated, load_catalog(migrated.sql_dir)))
    first, last = "2026-02", "2026-04"
    with ephemeral() as instance:
        result = definitions.resolve_job_def("replay").execute_in_process(
            instance=instance,
            run_config=QUIET,
            asset_selection=[dg.AssetKey("posts")],
            tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        )
        assert result.success
        latest = instance.get_latest_materialization_event(dg.AssetKey("posts"))
        months = instance.get_materialized_partitions(dg.AssetKey("posts"))
    events = [event.step_materialization_data.materialization for event in result.get_asset_materialization_events()]
    assert [event.partition for event in events] == [first, "2026-03", last, None]
    assert months == {first, "2026-03", last}
    *by_month, whole = events
    for event in by_month:
        assert event.metadata.keys() - {"seconds"} == {"month", "dagster/partition_row_count", "inserted_now"}
    # What the page of the asset shows first.
    assert latest is not None and latest.asset_materialization == whole
    described = {"dagster/column_schema", "dagster/column_lineage", "dagster/table_name", "size_bytes", "rows_by_month"}
    assert described | {"read", "migrated", "quarantined", "repaired"} <= whole.metadata.keys()
    rows = whole.metadata["dagster/row_count"].value
    assert isinstance(rows, int)
    assert rows > sum(event.metadata["dagster/partition_row_count"].value for event in by_month)  # type: ignore[misc]


def test_sizes_are_numbers_by_table_and_growth_is_told_from_the_second_time_on(migrated: Settings) -> None:
    migration = Migration(migrated, load_catalog(migrated.sql_dir))
    definitions = definitions_of(migration)
    assert migrated.database_url is not None
    sizes = dg.AssetKey(["monitoring", "table_sizes"])
    with ephemeral() as instance:
        facts: list[Any] = []
        for _ in range(2):
            done = definitions.resolve_job_def("monitoring").execute_in_process(instance=instance, run_config=QUIET)
            assert done.success
            made = done.asset_materializations_for_node("monitoring_round")
            [event] = [one for one in made if one.asset_key == sizes]
            facts.append(event.metadata)
            with psycopg.connect(migrated.database_url) as conn:
                conn.execute(
                    "create table if not exists filler as select repeat(g::text, 100) as x from generate_series(1, 9999) g"
                )
    assert "growth_bytes" not in facts[0]
    assert facts[1]["growth_bytes"].value == facts[1]["database_bytes"].value - facts[0]["database_bytes"].value > 0
    assert isinstance(facts[1]["posts_bytes"].value, int)


def test_the_nightly_sweep_takes_what_has_changed_and_then_has_nothing_to_do(migrated: Settings) -> None:
    migration = Migration(migrated, load_catalog(migrated.sql_dir))
    definitions = definitions_of(migration)
    assert migrated.database_url is not None
    swept: list[Any] = []
    with ephemeral() as instance:
        with psycopg.connect(migrated.database_url, autocommit=True) as conn:
            conn.execute(
                "insert into categories (name, slug, created_by) select g::text, g::text, id"
                " from (select id from users limit 1) u, generate_series(1, 100) g"
            )
            conn.execute("select pg_stat_force_next_flush()")
        for _ in range(2):
            done = definitions.resolve_job_def("statistics").execute_in_process(instance=instance, run_config=QUIET)
            [event] = done.get_asset_materialization_events()
            swept.append(event.step_materialization_data.materialization.metadata["vacuumed"].value)
    assert (swept[0] >= 1, swept[1]) == (True, 0)


def test_a_failed_check_blocks_what_stands_on_the_table(migrated: Settings) -> None:
    assert migrated.database_url is not None
    with psycopg.connect(migrated.database_url, autocommit=True) as conn:
        conn.execute("delete from categories where id = (select id from categories limit 1)")
    result, _ = run(migrated, MIGRATE_JOB, *WHOLE, dg.AssetSelection.assets("categories", "posts"))
    assert not result.success
    assert failed_checks(result) == {("categories", "row_parity"), ("categories", "content_parity")}
    assert "posts" not in facts_of(result)


def test_what_an_application_changes_without_a_newer_date_blocks_no_load_and_no_verify_misses_it(
    migrated: Settings,
) -> None:
    assert migrated.database_url is not None
    with psycopg.connect(migrated.database_url, autocommit=True) as conn:
        conn.execute(
            "update posts set view_count = view_count + 1 where id in (select id from posts order by id limit 3)"
        )
    loaded, _ = run(migrated, MIGRATE_JOB, *WHOLE, dg.AssetSelection.assets("posts"))
    assert loaded.success
    [parity] = [
        e
        for e in loaded.get_asset_check_evaluations()
        if (e.asset_key.to_user_string(), e.check_name) == ("posts", "content_parity")
    ]
    assert (parity.passed, parity.severity.value) == (False, "WARN")
    assert "3 rows were changed since being written" in (parity.description or "")
    verified, _ = run(migrated, VERIFY_JOB, *WHOLE)
    assert failed_checks(verified) == {("posts", "content_parity")}


def test_verify_finds_what_was_changed_behind_its_back(migrated: Settings) -> None:
    assert migrated.database_url is not None
    with psycopg.connect(migrated.database_url, autocommit=True) as conn:
        conn.execute("delete from categories where id = (select id from categories limit 1)")
        conn.execute("alter table events drop constraint unique_event_per_day")
        conn.execute("drop index idx_posts_tags_gin")
        conn.execute(
            "insert into posts (user_id, created_by, title, content, created_at)"
            " select id, id, 'Far ahead', 'Some content', '2040-01-01' from users limit 1"
        )
    result, _ = run(migrated, VERIFY_JOB, *WHOLE)
    assert failed_checks(result) == {
        ("categories", "row_parity"),
        ("categories", "content_parity"),
        ("events", "constraints_valid"),
        ("posts", "indexes_valid"),
        ("posts", "query_plans"),
        ("posts_partitions", "partition_bounds"),
        ("monitoring/index_usage", "schema_drift"),
    }


@pytest.mark.slow  # tests/schema has each kind of object
def test_the_schema_is_brought_back_to_the_files_and_metadata_tells_what_was_done(
    migrated: Settings, first_run: tuple[str, Path, dict[str, Any]]
) -> None:
    assert migrated.database_url is not None
    with psycopg.connect(migrated.database_url, autocommit=True) as conn:
        conn.execute("alter table events drop constraint unique_event_per_day")
        conn.execute("drop index idx_posts_tags_gin")
    result, _ = run(migrated, MIGRATE_JOB, *WHOLE)
    assert failed_checks(result) == set()
    before, after = first_run[2], facts_of(result)
    assert (before["posts_constraints"]["created"].value, before["posts_constraints"]["unchanged"].value) == (7, 0)
    assert (after["posts_constraints"]["created"].value, after["posts_constraints"]["unchanged"].value) == (0, 7)
    assert after["events_constraints"]["created"].value == 1


def test_a_fault_of_the_user_s_world_fails_the_step_with_its_one_line(embedded_database: str, tmp_path: Path) -> None:
    settings = settings_for(embedded_database, tmp_path, B44_EXPORT_DIR=str(tmp_path / "nowhere"))
    result, migration = run(settings, MIGRATE_JOB, *WHOLE)
    assert not result.success
    assert any("nowhere" in str(fault) for fault in migration.faults)
