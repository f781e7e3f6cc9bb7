"""The code location: what the graph holds, and that loading it touches nothing."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import tomllib
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
import yaml
from dagster._core.definitions.freshness import TimeWindowFreshnessPolicy
from dagster._core.instance.config import dagster_instance_config
from dagster._utils.schedules import cron_string_iterator

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.maintenance.monitoring import MEASUREMENTS
from b44_assets.migration.lineage import Origin, exported_fields, followed_meanwhile, kept_origins, origins
from b44_assets.orchestration.code_location import build_definitions
from b44_assets.orchestration.metadata import of_columns
from b44_assets.orchestration.migration.jobs import DELTA_JOB, MIGRATE_JOB, REPLAY_JOB, VERIFY_JOB
from b44_assets.orchestration.partitions import months_of
from b44_assets.schema.introspection import ColumnDescription
from tests.helpers.migrated_apps import SHOP
from tests.helpers.paths import SQL_DIR
from tests.helpers.waiting import eventually

ROOT = Path(__file__).parents[2]
TABLES = ("users", "categories", "posts", "events", "user_preferences", "user_sessions", "audit_logs")


@pytest.fixture(scope="module")
def definitions(tmp_path_factory: pytest.TempPathFactory) -> dg.Definitions:
    return build_definitions(Settings.load(environ={}, directory=tmp_path_factory.mktemp("nowhere")))


@pytest.fixture(scope="module")
def specs(definitions: dg.Definitions) -> dict[str, dg.AssetSpec]:
    return {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}


def test_loading_touches_neither_network_nor_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("a connection was opened")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    build_definitions(Settings.load(environ={}, directory=tmp_path))
    assert list(tmp_path.iterdir()) == []


def test_every_definition_can_be_loaded(definitions: dg.Definitions) -> None:
    dg.Definitions.validate_loadable(definitions)


@pytest.mark.parametrize("folder", [ROOT / "sql", ROOT / "examples" / "shop" / "sql"], ids=["blog", "shop"])
def test_upstream_of_a_table_are_its_export_and_what_its_files_name(folder: Path, tmp_path: Path) -> None:
    settings = Settings.load(environ={"B44_SQL_DIR": str(folder)}, directory=tmp_path)
    catalog = load_catalog(folder)
    upstream = {
        spec.key.to_user_string(): {dep.asset_key.to_user_string() for dep in spec.deps}
        for spec in build_definitions(settings).resolve_all_asset_specs()
    }
    for table, mapping in catalog.mappings.items():
        assert upstream[table] == {f"base44/{table}", *catalog.table(table).depends, *mapping.spec.depends}
        assert upstream[f"base44/{table}"] == set()
    assert {key for keys in upstream.values() for key in keys if key.split("/")[0] in ("migration", "b44")} == set()
    assert {"migration", "b44"} <= upstream.keys()


def test_groups_are_the_stages(specs: dict[str, dg.AssetSpec]) -> None:
    catalog = load_catalog(ROOT / "sql")
    for key, spec in specs.items():
        first = key.split("/")[0]
        stage = {"base44": "exports", "migration": "runtime", "b44": "runtime"}.get(key if "/" not in key else first)
        if stage is None:
            stage = first if "/" in key else next(one.kind.value for one in catalog.specs if one.name == key)
        assert spec.group_name == stage, key


def test_every_asset_says_what_it_is_and_who_owns_it(specs: dict[str, dg.AssetSpec]) -> None:
    lacking = [
        key
        for key, spec in specs.items()
        if not (spec.description and spec.kinds and spec.owners and spec.code_version)
    ]
    assert lacking == []


def test_assets_of_sql_files_refer_to_them(specs: dict[str, dg.AssetSpec]) -> None:
    reference = specs["posts"].metadata["dagster/code_references"].code_references[0]
    assert reference.file_path.endswith("sql/tables/posts.sql")


def test_posts_are_partitioned_by_month_from_the_first_to_the_current(definitions: dg.Definitions) -> None:
    months = definitions.resolve_assets_def("posts").partitions_def
    assert isinstance(months, dg.MonthlyPartitionsDefinition)
    assert months.get_first_partition_key() == "2020-01"
    assert months.timezone == "UTC"


def test_months_begin_with_the_earliest_first_one_of_any_table_by_month() -> None:
    catalog = load_catalog(ROOT / "sql")
    posts, users = catalog.table("posts"), catalog.table("users")

    def first_of(setting: date, **options: dict[str, str]) -> str | None:
        changed = tuple(
            replace(spec, options={**spec.options, **options.get(spec.name, {})}) if spec in (posts, users) else spec
            for spec in catalog.specs
        )
        return months_of(replace(catalog, specs=changed), setting).get_first_partition_key()

    by_month = {"partitions": "month of created_at"}
    setting = date(2020, 1, 1)
    assert first_of(setting, posts={"first": "2023-05"}) == "2023-05"
    assert first_of(setting, posts={"first": "2023-05"}, users=by_month) == "2020-01"
    assert first_of(setting, posts={"first": "2023-05"}, users=by_month | {"first": "2018-11"}) == "2018-11"


def test_a_change_of_a_mapping_changes_the_code_version_of_its_table_only(tmp_path: Path) -> None:
    import shutil

    settings = Settings.load(environ={}, directory=tmp_path)
    changed = tmp_path / "sql"
    shutil.copytree(settings.sql_dir, changed)
    with (changed / "mappings" / "events.sql").open("a", encoding="utf-8") as file:
        file.write("-- changed\n")
    before = {s.key: s.code_version for s in build_definitions(settings).resolve_all_asset_specs()}
    other = Settings.load(environ={"B44_SQL_DIR": str(changed)}, directory=tmp_path)
    after = {s.key: s.code_version for s in build_definitions(other).resolve_all_asset_specs()}
    assert {key.to_user_string() for key in after if after[key] != before[key]} == {"events"}


@pytest.fixture(scope="module")
def checks(definitions: dg.Definitions) -> dict[tuple[str, str], dg.AssetCheckSpec]:
    return {
        (spec.asset_key.to_user_string(), spec.name): spec
        for found in (*(definitions.assets or ()), *(definitions.asset_checks or ()))
        if isinstance(found, dg.AssetsDefinition)
        for spec in found.check_specs
    }


def test_both_parity_checks_of_every_table_block_and_no_other_check_does(
    checks: dict[tuple[str, str], dg.AssetCheckSpec],
) -> None:
    blocking = {key for key, spec in checks.items() if spec.blocking}
    assert blocking == {(table, name) for table in TABLES for name in ("row_parity", "content_parity")}


def test_every_table_is_checked_once_all_that_stands_on_it_is_there(
    checks: dict[tuple[str, str], dg.AssetCheckSpec], specs: dict[str, dg.AssetSpec]
) -> None:
    for table in TABLES:
        standing = {
            key
            for key in specs
            if key.startswith(f"{table}_") and key.endswith(("_indexes", "_constraints", "_triggers"))
        }
        for name in ("constraints_valid", "indexes_valid", "foreign_keys_hold"):
            after = {dep.asset_key.to_user_string() for dep in checks[table, name].additional_deps}
            assert standing <= after


def test_views_queries_and_the_schema_as_a_whole_are_checked(checks: dict[tuple[str, str], dg.AssetCheckSpec]) -> None:
    assert {name for (asset, name) in checks if asset == "user_post_stats"} == {"view_fresh", "view_equals_query"}
    assert {"query_plans", "publish_permissions", "slugs_registered"} <= {
        name for asset, name in checks if asset == "posts"
    }
    assert ("monitoring/index_usage", "schema_drift") in checks


def test_an_index_group_a_constraint_file_and_a_trigger_file_are_assets_downstream_of_their_table(
    specs: dict[str, dg.AssetSpec],
) -> None:
    for key in ("posts_search_indexes", "posts_constraints", "posts_triggers", "user_post_stats"):
        assert "posts" in {dep.asset_key.to_user_string() for dep in specs[key].deps}
    assert specs["posts_search_indexes"].group_name == "indexes"


def test_a_table_s_neighbours_are_what_is_measured_of_it_and_not_what_is_of_the_server(
    specs: dict[str, dg.AssetSpec],
) -> None:
    downstream = {key for key, spec in specs.items() if dg.AssetKey("posts") in {dep.asset_key for dep in spec.deps}}
    of_tables = {f"monitoring/{one.name}" for one in MEASUREMENTS if one.of_tables}
    of_server = {f"monitoring/{one.name}" for one in MEASUREMENTS if not one.of_tables}
    assert of_tables <= downstream
    assert (of_server & downstream, "monitoring/locks" in of_server) == (set(), True)


def test_adding_an_index_group_is_adding_a_file(tmp_path: Path) -> None:
    import shutil

    settings = Settings.load(environ={}, directory=tmp_path)
    root = tmp_path / "sql"
    shutil.copytree(settings.sql_dir, root)
    (root / "indexes" / "users_name_indexes.sql").write_text(
        "-- Users by name.\n-- on: users\n\ncreate index if not exists idx_users_display_name on users (display_name);\n"
    )
    other = Settings.load(environ={"B44_SQL_DIR": str(root)}, directory=tmp_path)
    keys = {spec.key.to_user_string() for spec in build_definitions(other).resolve_all_asset_specs()}
    assert "users_name_indexes" in keys


def test_the_jobs_cover_everything(definitions: dg.Definitions) -> None:
    everything = definitions.resolve_job_def(MIGRATE_JOB)
    of_operation = {
        *(f"monitoring/{name}" for name in ("rebuilt_indexes", "pending_work", "statistics", "backups", "queries")),
        *(f"monitoring/{one.name}" for one in MEASUREMENTS),
        *(f"backup/{name}" for name in ("logical", "base", "incremental", "wal", "catalogue", "drill")),
    }
    assert {key.to_user_string() for key in everything.asset_layer.executable_asset_keys} == {
        spec.key.to_user_string() for spec in definitions.resolve_all_asset_specs()
    } - of_operation
    assert definitions.resolve_job_def(VERIFY_JOB).asset_layer.executable_asset_keys == set()


def test_only_jobs_that_load_tables_by_month_ask_for_months(definitions: dg.Definitions) -> None:
    jobs = [definitions.resolve_job_def(job.name) for job in definitions.jobs or ()]
    assert len(jobs) > len(SCHEDULES)
    assert {job.name for job in jobs if job.partitions_def is not None} == {MIGRATE_JOB, DELTA_JOB, REPLAY_JOB}


def test_a_table_to_keep_months_of_that_has_no_partitions_by_time_is_named(tmp_path: Path) -> None:
    settings = Settings.load(environ={"B44_KEEP_MONTHS": "posts=36,user_sessions=1"}, directory=tmp_path)
    with pytest.raises(SettingsError, match="B44_KEEP_MONTHS names user_sessions"):
        build_definitions(settings)


SCHEDULES = {
    "refresh_stats_schedule": ("refresh_stats", "0 */6 * * *"),
    "manage_partitions_schedule": ("manage_partitions", "0 2 1 * *"),
    "statistics_schedule": ("statistics", "30 3 * * *"),
    "maintenance_schedule": ("maintenance", "0 4 * * 0"),
    "monitoring_schedule": ("monitoring", "*/15 * * * *"),
    "monitoring_daily_schedule": ("monitoring_daily", "15 5 * * *"),
    "monitoring_backups_schedule": ("monitoring_backups", "20 * * * *"),
    "query_history_schedule": ("query_history", "45 5 * * *"),
    "forget_old_runs_schedule": ("forget_old_runs", "0 5 * * 0"),
    "logical_backup_schedule": ("logical_backup", "0 1 * * *"),
    "base_backup_schedule": ("base_backup", "30 1 * * 0"),
    "incremental_backup_schedule": ("incremental_backup", "30 1 * * 1-6"),
    "wal_archive_schedule": ("wal_archive", "*/5 * * * *"),
    "review_backups_schedule": ("review_backups", "0 6 * * *"),
    "recovery_drill_schedule": ("recovery_drill", "0 6 15 * *"),
}


def test_schedules_are_those_of_the_timetable_in_utc_and_off(definitions: dg.Definitions) -> None:
    found = {
        schedule.name: (schedule.job_name, schedule.cron_schedule)
        for schedule in definitions.schedules or ()
        if isinstance(schedule, dg.ScheduleDefinition)
        and schedule.execution_timezone == "UTC"
        and schedule.default_status is dg.DefaultScheduleStatus.STOPPED
    }
    assert found == SCHEDULES


@pytest.mark.parametrize("name", SCHEDULES)
def test_each_schedule_asks_for_one_run_of_its_job(definitions: dg.Definitions, name: str) -> None:
    schedule = definitions.resolve_schedule_def(name)
    with (
        dg.DagsterInstance.ephemeral() as instance,
        dg.build_schedule_context(
            instance=instance, scheduled_execution_time=datetime(2026, 11, 1, 2, tzinfo=UTC)
        ) as context,
    ):
        [request] = list(schedule.evaluate_tick(context).run_requests or ())
    assert (request.partition_key, request.asset_selection) == (None, None)
    assert definitions.resolve_job_def(SCHEDULES[name][0]).partitions_def is None


def test_what_schedules_refresh_has_a_policy_of_freshness_longer_than_their_interval(
    specs: dict[str, dg.AssetSpec], definitions: dg.Definitions
) -> None:
    start = datetime(2026, 11, 1, tzinfo=UTC)
    for job, cron in SCHEDULES.values():
        ticks = cron_string_iterator(start.timestamp(), cron, "UTC")
        first, second = next(ticks), next(ticks)
        for key in definitions.resolve_job_def(job).asset_layer.executable_asset_keys:
            policy = specs[key.to_user_string()].freshness_policy
            assert isinstance(policy, TimeWindowFreshnessPolicy), key
            assert policy.fail_window.to_timedelta() > second - first


def test_jobs_schedules_and_sensors_say_what_they_are_for(definitions: dg.Definitions) -> None:
    everything = [*(definitions.jobs or ()), *(definitions.schedules or ()), *(definitions.sensors or ())]
    assert len(everything) == 42
    assert [one.name for one in everything if not getattr(one, "description", None)] == []  # type: ignore[union-attr]


def test_only_sensors_that_start_nothing_are_on_by_themselves(definitions: dg.Definitions) -> None:
    on = [
        sensor.name for sensor in definitions.sensors or () if sensor.default_status is dg.DefaultSensorStatus.RUNNING
    ]
    assert on == ["interrupted_runs"]


def test_alerts_are_on_where_there_is_somebody_to_tell(tmp_path: Path) -> None:
    settings = Settings.load(environ={"B44_ALERT_WEBHOOK": "https://hooks.example.org/x"}, directory=tmp_path)
    definitions = build_definitions(settings)
    for name in ("run_failures", "failing_checks"):
        assert definitions.resolve_sensor_def(name).default_status is dg.DefaultSensorStatus.RUNNING


def test_the_instance_is_set_up_for_production(tmp_path: Path) -> None:
    """As `dagster dev`, `b44 dev` and services of one's own read it, whatever their working directory."""
    config, _ = dagster_instance_config(str(ROOT))
    assert config["storage"]["custom"] == {
        "module": "b44_assets.orchestration.storage",
        "class": "PostgresStorage",
        "config": {},
    }
    assert config["telemetry"] == {"enabled": False}
    assert config["run_monitoring"]["enabled"] is True
    # Above 0 a run could not be terminated while it is resumed.
    assert config["run_monitoring"]["max_resume_run_attempts"] == 0
    assert config["run_retries"] == {"enabled": True, "max_retries": 2, "retry_on_asset_or_op_failure": False}
    runs = config["concurrency"]["runs"]
    assert runs["max_concurrent_runs"] > 1
    assert [(limit["key"], limit["value"]) for limit in runs["tag_concurrency_limits"]] == [
        ("b44/work", "load"),
        ("b44/work", "backup"),
    ]
    assert config["retention"].keys() == {"schedule", "sensor", "auto_materialize"}


def test_every_way_to_start_dagster_loads_the_same_code_location() -> None:
    [location] = yaml.safe_load((ROOT / "workspace.yaml").read_text())["load_from"]
    assert location["python_module"] == {"module_name": "b44_assets.definitions", "location_name": "b44_assets"}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]
    assert (project["code_location_name"], project["code_location_target_module"]) == (
        "b44_assets",
        "b44_assets.definitions",
    )


def test_the_definitions_validate_on_the_command_line(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "dagster", "definitions", "validate", "-w", str(ROOT / "workspace.yaml")],
        cwd=tmp_path,
        env={"PATH": os.environ["PATH"], "B44_HOME": str(tmp_path / "home"), "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not (tmp_path / "home").exists()


def test_columns_come_from_the_fields_that_the_mapping_reads() -> None:
    catalog = load_catalog(Settings.load(environ={}).sql_dir)
    found = origins(catalog, catalog.mappings["posts"])
    assert found["title"] == (Origin(None, "title"),)
    assert found["slug"] == (Origin(None, "title"),)
    assert found["user_id"] == (Origin(None, "created_by_id"), Origin(None, "user_id"), Origin("users", "id"))
    assert found["published"] == (Origin(None, "published"), Origin(None, "status"))
    assert found["updated_by"] == ()
    assert not found.keys() & {"reasons", "repairs", "unmapped", "record_number"}


def test_a_column_comes_from_its_own_field_though_a_lateral_converts_several() -> None:
    catalog = load_catalog(Settings.load(environ={}).sql_dir)
    found = origins(catalog, catalog.mappings["audit_logs"])
    assert (found["old_values"], found["new_values"]) == ((Origin(None, "old_values"),), (Origin(None, "new_values"),))


def test_a_reference_comes_from_the_field_by_which_its_row_is_found() -> None:
    catalog = load_catalog(SHOP / "sql")
    found = origins(catalog, catalog.mappings["order_lines"])
    assert found["purchase_id"] == (Origin(None, "purchase"), Origin("purchases", "id"))
    assert found["product_id"] == (Origin(None, "product"), Origin("products", "id"))
    assert origins(catalog, catalog.mappings["products"])["parent_id"] == (Origin(None, "id"), Origin(None, "parent"))


def test_origins_are_kept_for_the_same_sql_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder, sql_dir = tmp_path / "home" / "lineage", tmp_path / "sql"
    shutil.copytree(SQL_DIR, sql_dir)
    catalog = load_catalog(sql_dir)
    found = kept_origins(catalog, catalog.mappings["posts"], folder)
    assert found == origins(catalog, catalog.mappings["posts"])
    with monkeypatch.context() as patched:
        patched.delattr("b44_assets.migration.lineage.origins")
        assert kept_origins(catalog, catalog.mappings["posts"], folder) == found

    kept = folder / "posts.json"
    written = kept.read_bytes()
    for broken in (written[:-9], written.replace(b"title", b"tilte"), b"\xff"):
        kept.write_bytes(broken)
        assert kept_origins(catalog, catalog.mappings["posts"], folder) == found
        assert kept.read_bytes() == written

    mapping = sql_dir / "mappings" / "posts.sql"
    mapping.write_text(mapping.read_text().replace("t.heading as title", "t.content as title"))
    changed = load_catalog(sql_dir)
    newer = kept_origins(changed, changed.mappings["posts"], folder)
    assert newer["title"] == (Origin(None, "content"),)
    assert newer == origins(changed, changed.mappings["posts"])


def test_origins_of_many_mappings_are_kept_by_a_process_beside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b44_assets.migration.lineage._WORTH_A_PROCESS", 1)
    catalog = load_catalog(SQL_DIR)
    folder = tmp_path / "lineage"
    with followed_meanwhile(catalog, folder):
        eventually(lambda: len([*folder.glob("[!.]*.json")]) == len(catalog.mappings))
    monkeypatch.delattr("b44_assets.migration.lineage.origins")
    found = {table: kept_origins(catalog, mapping, folder) for table, mapping in catalog.mappings.items()}
    assert found["posts"]["title"] == (Origin(None, "title"),)


def test_origins_are_found_where_they_cannot_be_kept(tmp_path: Path) -> None:
    (tmp_path / "home").write_text("no folder")
    catalog = load_catalog(SQL_DIR)
    mapping = catalog.mappings["events"]
    assert kept_origins(catalog, mapping, tmp_path / "home" / "lineage") == origins(catalog, mapping)


def test_every_column_that_a_mapping_takes_from_the_export_has_an_origin() -> None:
    """A mapping written in a way that its names cannot be followed through would show here."""
    catalog = load_catalog(Settings.load(environ={}).sql_dir)
    without = {
        (table, column)
        for table, mapping in catalog.mappings.items()
        for column, found in origins(catalog, mapping).items()
        if not found
    }
    assert without == {(table, "updated_by") for table in ("users", "categories", "posts", "events")}


def test_the_description_of_a_column_names_the_exported_fields_as_the_export_spells_them() -> None:
    catalog = load_catalog(Settings.load(environ={}).sql_dir)
    found = origins(catalog, catalog.mappings["posts"])
    fields = exported_fields(found, {"title": "Title", "user_id": "author_id"})
    assert (fields["slug"], fields["user_id"]) == (("Title",), ("author_id",))
    assert not fields.keys() & {"updated_by", "view_count"}
    columns = [
        ColumnDescription("user_id", "uuid", required=True, unique=False, comment="Author."),
        ColumnDescription("slug", "text", required=True, unique=False, comment=None),
        ColumnDescription("updated_by", "uuid", required=False, unique=False, comment="Who changed it"),
        # The comments that b44 init writes name the field themselves.
        ColumnDescription("title", "text", required=True, unique=False, comment="Shown on top (Base44: Title)"),
        ColumnDescription("slug", "text", required=True, unique=False, comment="Its address (Base44: slug)"),
    ]
    said = of_columns("posts", columns, fields)["dagster/column_schema"].columns
    assert [column.description for column in said] == [
        "Author (from the exported author_id)",
        "from the exported Title",
        "Who changed it",
        "Shown on top (Base44: Title)",
        "Its address (from the exported Title)",
    ]
