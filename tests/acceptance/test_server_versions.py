"""The versions between the oldest and the newest server: a migration, its checks, a backup and all that is measured, on each."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege as Denied

from b44_assets.catalog import load_catalog
from b44_assets.maintenance.monitoring import MEASUREMENTS
from tests.helpers.command import Command, Result, environment
from tests.helpers.database_contents import rows
from tests.helpers.paths import SQL_DIR
from tests.helpers.sample_exports import small_export
from tests.helpers.servers import OwnServer
from tests.helpers.watched import Watched
from tests.helpers.workers import made_once


@dataclass(frozen=True)
class Tried:
    """What commands came to on a server of one version.

    Attributes:
        server: The server, into whose database `postgres` an export was migrated.
        migrate: The migration.
        verify: What verified it.
    """

    server: OwnServer
    migrate: Result
    verify: Result


@pytest.fixture(params=[16, 17])
def tried(
    request: pytest.FixtureRequest,
    server_of: Callable[[int], OwnServer],
    dagster_storage: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Tried:
    server = server_of(request.param)

    def migrate() -> str:
        b44 = Command(
            tmp_path_factory.mktemp("work"),
            environment(
                B44_DATABASE_URL=server.url(),
                B44_EXPORT_DIR=str(small_export(tmp_path_factory.mktemp("export"))),
                B44_FIRST_MONTH="2026-06",
                DAGSTER_PG_URL=dagster_storage,
            ),
        )
        return json.dumps([asdict(b44(*command)) for command in (("migrate", "--json"), ("verify", "--json"))])

    made = json.loads(made_once(server.directory / f"tried_{server.major}.json", migrate))
    return Tried(server, *(Result(**one) for one in made))


def test_a_migration_and_every_check_of_it_succeed(tried: Tried) -> None:
    assert (tried.migrate.status, tried.verify.status) == (0, 0), (tried.migrate.err, tried.verify.err)
    assert tried.migrate.report["checks"]["failed"] == 0
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
    assert [name for name, reading in readings.items() if reading.unseen] == []
    assert [name for name, reading in readings.items() if not (reading.numbers or reading.rows)] == []
    # Of quarantined records it has the number, and reads none.
    quarantined = sum(entity["quarantined"] for entity in tried.migrate.report["entities"].values())
    assert readings["quarantine"].numbers["records"] == quarantined > 0
    assert not watched.verdict("quarantine_empty", readings["quarantine"]).passed
    with psycopg.connect(tried.server.url().replace("//postgres@", "//watcher@")) as conn, pytest.raises(Denied):
        conn.execute("select record from migration.quarantine")
    # Elsewhere, or not at all, on others of the versions.
    assert readings["io"].rows["io"] and "buffers_total" in readings["checkpoints"].numbers
