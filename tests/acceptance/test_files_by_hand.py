"""Files of `sql/` that somebody runs with psql in a migrated database do no harm: the next migration is green."""

from __future__ import annotations

import psycopg

from b44_assets.catalog import Kind, load_catalog
from tests.helpers.command import Command
from tests.helpers.migrated_apps import Migrated
from tests.helpers.paths import REPOSITORY
from tests.schema.test_run_by_hand import run_by_hand


def test_a_migration_after_all_files_were_run_by_hand_is_green(b44: Command, finished: str, migrated: Migrated) -> None:
    catalog = load_catalog(REPOSITORY / "sql")
    run_by_hand(finished, [spec.path for spec in catalog.specs if spec.kind is not Kind.MAPPING] * 2)
    command = b44.on(finished)
    result = command("migrate", "--export", migrated.export)
    assert result.status == 0, result
    result = command("verify")
    assert result.status == 0, result


def test_a_view_of_which_nobody_noted_when_it_was_filled_is_filled_by_the_next_migration(
    b44: Command, finished: str, migrated: Migrated
) -> None:
    with psycopg.connect(finished) as conn:
        conn.execute("drop table b44.view_refreshes")
    result = b44.on(finished)("migrate", "--export", migrated.export)
    assert result.status == 0, result
