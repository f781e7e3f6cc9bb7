"""Backups as assets: what a run takes, and when a check goes red."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from b44_assets.backup.service import BackupContext
from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import definitions_of
from b44_assets.orchestration.resources import Migration
from tests.dagster.test_runs import QUIET
from tests.helpers.code_locations import ephemeral


@pytest.fixture
def migration(embedded_database: str, tmp_path: Path) -> Migration:
    with psycopg.connect(embedded_database) as conn:
        conn.execute("create table orders as select g as id, 'order ' || g as what from generate_series(1, 100) g")
    environ = {"B44_DATABASE_URL": embedded_database, "B44_HOME": str(tmp_path / "home")}
    settings = Settings.load(environ=environ, directory=tmp_path)
    return Migration(settings, load_catalog(settings.sql_dir))


def run(migration: Migration, job: str) -> Any:
    with ephemeral() as instance:
        return (
            definitions_of(migration)
            .resolve_job_def(job)
            .execute_in_process(instance=instance, raise_on_error=False, run_config=QUIET)
        )


def verdicts(result: Any) -> dict[str, tuple[bool, str]]:
    return {e.check_name: (e.passed, e.description or "") for e in result.get_asset_check_evaluations()}


def test_a_dump_is_taken_proven_and_told_of(migration: Migration) -> None:
    result = run(migration, "logical_backup")
    [event] = result.get_asset_materialization_events()
    facts = event.step_materialization_data.materialization.metadata
    [taken] = BackupContext.of(migration.settings).catalogue.backups()
    assert (facts["backup"].value, facts["good"].value, facts["rows"].value) == (taken.id, True, 100)
    assert facts["bytes"].value == taken.size
    assert verdicts(result)["newest_is_good"][0]


def test_a_backup_that_is_refused_fails_its_step_with_one_line(migration: Migration) -> None:
    result = run(migration, "incremental_backup")
    assert not result.success
    [fault] = migration.faults
    assert "incremental" in str(fault)
    assert "\n" not in str(fault)


def test_the_review_goes_red_on_a_store_without_backups(migration: Migration) -> None:
    found = verdicts(run(migration, "review_backups"))

    assert {name for name, (passed, _) in found.items() if not passed} == {"backups_verified"}


def test_the_review_goes_red_on_a_backup_that_came_to_nothing_and_on_one_that_is_damaged(migration: Migration) -> None:
    assert run(migration, "logical_backup").success
    store = Path(migration.settings.backup_location)
    begun = datetime.now(UTC) - timedelta(hours=5)
    attempt = store / "backups" / f"{begun:%Y%m%dT%H%M%SZ}-base"
    attempt.mkdir()
    (attempt / "begun").touch()
    [record] = store.glob("backups/*-logical/backup.json")
    record.write_bytes(record.read_bytes().replace(b"orders", b"0rders"))
    result = run(migration, "review_backups")
    found = verdicts(result)
    assert {name for name, (passed, _) in found.items() if not passed} == {
        "records_readable",
        "backups_verified",
        "nothing_failed_silently",
    }
    assert record.parent.name in found["records_readable"][1]
    assert attempt.name in found["nothing_failed_silently"][1]
