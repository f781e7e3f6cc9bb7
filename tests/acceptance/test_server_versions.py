"""The versions between the oldest and the newest server: a migration, its checks, a backup and all that is measured, on each."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.maintenance.monitoring import MEASUREMENTS
from tests.helpers.command import Command, Result, environment
from tests.helpers.database_contents import rows
from tests.helpers.migrated_apps import NEWEST
from tests.helpers.paths import EXPORTS, SQL_DIR
from tests.helpers.servers import OwnServer, skip_without
from tests.helpers.watched import Watched
from tests.helpers.workers import scratch_folder


@dataclass(frozen=True)
class Tried:
    """What commands came to on a server of one version.

    Attributes:
        server: The server.
        results: By command.
    """

    server: OwnServer
    results: dict[str, Result]


@pytest.fixture(scope="module", params=[16, 17])
def tried(
    request: pytest.FixtureRequest, dagster_storage: str, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Tried]:
    major: int = request.param
    skip_without(major)
    folder = Path(tempfile.mkdtemp(prefix="b44-version-", dir=scratch_folder()))
    folder.chmod(0o1777)
    server = OwnServer(folder, major)
    try:
        server.start()
        b44 = Command(
            tmp_path_factory.mktemp("work"),
            environment(
                B44_DATABASE_URL=server.url(), B44_EXPORT_DIR=str(EXPORTS / NEWEST), DAGSTER_PG_URL=dagster_storage
            ),
        )
        yield Tried(server, {command[0]: b44(*command) for command in (("migrate", "--json"), ("verify", "--json"))})
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_migration_and_every_check_of_it_succeed(tried: Tried) -> None:
    assert {name: result.status for name, result in tried.results.items()} == {"migrate": 0, "verify": 0}
    assert tried.results["migrate"].report["checks"]["failed"] == 0
    assert all(
        unaccounted == 0 for (unaccounted,) in rows(tried.server.url(), "select unaccounted from migration.accounting")
    )
    assert rows(tried.server.url(), "select current_setting('server_version_num')::int / 10000") == [
        (tried.server.major,)
    ]


def test_all_is_measured_by_a_member_of_the_role_for_it(tried: Tried) -> None:
    with psycopg.connect(tried.server.url(), autocommit=True) as conn:
        conn.execute("create role watcher login; grant b44_monitor to watcher")
    watched = Watched(tried.server.url(), "watcher", "nobody", load_catalog(SQL_DIR))
    readings = {one.name: watched.read(one) for one in MEASUREMENTS}
    # Of quarantined records it sees nothing, on no version.
    assert [name for name, reading in readings.items() if reading.unseen] == ["quarantine"]
    assert [name for name, reading in readings.items() if not (reading.numbers or reading.rows)] == ["quarantine"]
    # Elsewhere, or not at all, on others of the versions.
    assert readings["io"].rows["io"] and "buffers_total" in readings["checkpoints"].numbers
