"""Files of `sql/` that somebody runs with psql in a migrated database do no harm: the next migration is green."""

from __future__ import annotations

from pathlib import Path

import psycopg

from b44_assets.catalog import Kind, load_catalog
from tests.acceptance.support import REPOSITORY, Command
from tests.schema.test_run_by_hand import run_by_hand


def test_a_migration_after_all_files_were_run_by_hand_is_green(b44: Command, finished: str, migrated: object) -> None:
    catalog = load_catalog(REPOSITORY / "sql")
    run_by_hand(finished, [spec.path for spec in catalog.specs if spec.kind is not Kind.MAPPING] * 2)
    command = b44.on(finished)
    export = Path(getattr(migrated, "export"))
    assert command("migrate", "--export", export).status == 0
    assert command("verify").status == 0
