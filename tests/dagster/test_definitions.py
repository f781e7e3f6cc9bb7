"""The code location: what the graph holds, and that loading it touches nothing."""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from b44_assets.errors import SettingsError
from b44_assets.orchestration.code_location import MIGRATE_JOB, VERIFY_JOB, build_definitions
from b44_assets.settings import Settings

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


def test_every_table_has_its_staged_export_upstream(specs: dict[str, dg.AssetSpec]) -> None:
    for table in TABLES:
        upstream = {dep.asset_key.to_user_string() for dep in specs[table].deps}
        assert f"base44/{table}" in upstream


def test_posts_stand_on_the_users_and_categories_they_point_at(specs: dict[str, dg.AssetSpec]) -> None:
    upstream = {dep.asset_key.to_user_string() for dep in specs["posts"].deps}
    assert {"users", "categories", "post_slugs"} <= upstream


def test_groups_are_the_stages(specs: dict[str, dg.AssetSpec]) -> None:
    assert specs["base44/posts"].group_name == "exports"
    assert specs["posts"].group_name == "tables"
    assert specs["text_functions"].group_name == "functions"
    assert specs["migration/quarantine"].group_name == "books"


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
        for checks in definitions.asset_checks or ()
        for spec in checks.check_specs  # type: ignore[union-attr]
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
    assert set(everything.asset_layer.executable_asset_keys) == {
        spec.key for spec in definitions.resolve_all_asset_specs()
    } - {dg.AssetKey(["monitoring", "rebuilt_indexes"])}
    assert definitions.resolve_job_def(VERIFY_JOB).asset_layer.executable_asset_keys == set()


def test_a_table_to_keep_months_of_that_has_no_partitions_by_time_is_named(tmp_path: Path) -> None:
    settings = Settings.load(environ={"B44_KEEP_MONTHS": "posts=36,user_sessions=1"}, directory=tmp_path)
    with pytest.raises(SettingsError, match="B44_KEEP_MONTHS names user_sessions"):
        build_definitions(settings)
