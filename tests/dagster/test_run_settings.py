"""The settings that a run may be started with, in the launchpad or by a command: others are those of the environment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.orchestration.common import export_key, key_of
from b44_assets.orchestration.resources import Migration, MigrationResource
from tests.helpers.code_locations import USERS, Place, user, write

OFFERED = set(MigrationResource.model_fields) - {"base"}
USERS_ONLY = [export_key("users"), key_of("users")]
BATCHES = (
    "select count(*), max(records_processed) from migration.migration_log"
    " where entity_type = 'users' and run_id <> 'before' and status = 'completed'"
)


def launched(migration: Migration, **chosen: Any) -> Settings:
    """The settings of a run."""
    config = {"migration": {"config": chosen}}
    with dg.build_resources({"migration": MigrationResource(base=migration)}, resource_config=config) as made:
        found: Migration = made.migration
        if found.settings_fault is not None:
            raise found.settings_fault
        return found.settings


def test_every_setting_of_the_launchpad_is_one_of_the_environment_and_none_holds_a_secret() -> None:
    for name in OFFERED:
        field = Settings.model_fields[name]
        assert field.repr
        assert f"({Settings.variable(name)})" in (MigrationResource.model_fields[name].description or "")


def test_what_is_not_chosen_is_read_when_the_run_starts(tmp_path: Path) -> None:
    def load() -> Settings:
        return Settings.load(environ={}, directory=tmp_path)

    settings = load()
    migration = Migration(settings, load_catalog(settings.sql_dir), reload=load)
    (tmp_path / ".env").write_text("B44_BATCH_SIZE=7\nB44_LOCK_TIMEOUT=1s\n")
    assert launched(migration).batch_size == 7
    changed = launched(migration, batch_size=9, max_quarantine="0.5%", max_wal_rate="off", batch_pause="2x")
    assert (changed.batch_size, changed.lock_timeout_ms, changed.max_wal_rate) == (9, 1000, None)
    assert changed.pace.batch_size == 9
    assert migration.settings.batch_size == settings.batch_size


@pytest.mark.parametrize(
    ("chosen", "line"),
    [
        ({"batch_size": 0}, "batch_size must be a whole number of at least 1, not 0"),
        ({"lock_timeout_ms": 0}, "lock_timeout_ms must be from 1ms to 24 days, not 0"),
        ({"max_lock_queue": "many"}, "max_lock_queue must be a number of sessions such as 20, or off, not 'many'"),
    ],
)
def test_a_value_that_cannot_be_used_is_named_in_one_line(tmp_path: Path, chosen: dict[str, Any], line: str) -> None:
    settings = Settings.load(environ={}, directory=tmp_path)
    with pytest.raises(SettingsError) as caught:
        launched(Migration(settings, load_catalog(settings.sql_dir)), **chosen)
    assert str(caught.value) == line


def test_a_run_uses_what_it_was_started_with_and_fails_in_one_line_where_it_cannot(migrated: Place) -> None:
    write(migrated.export / "User.jsonl", [user(n) for n in range(USERS + 6)])
    refused = migrated.job("delta", assets=USERS_ONLY, chosen={"batch_size": 0})
    assert not refused.success
    line = "batch_size must be a whole number of at least 1, not 0"
    assert [str(fault) for fault in migrated.migration.faults] == [line]
    [failure] = refused.get_step_failure_events()
    assert failure.step_failure_data.error.message.strip().endswith(line)

    assert migrated.job("delta", assets=USERS_ONLY, chosen={"batch_size": 2}).success
    assert migrated.execute(BATCHES) == [(3, 2)]
