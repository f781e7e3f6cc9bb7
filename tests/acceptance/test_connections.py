"""Every connection says what it is for, there are few at a time, and none is left."""

from __future__ import annotations

from pathlib import Path
from urllib.parse import urlsplit

from tests.helpers.command import Command
from tests.helpers.connections import LOGGED, ended_connections
from tests.helpers.database_contents import value
from tests.helpers.ledger_app import write_entries
from tests.helpers.migrated_apps import Databases
from tests.helpers.waiting import eventually


def test_connections_of_a_migration_are_named_few_and_closed(
    small: Command, target: str, databases: Databases, tmp_path: Path
) -> None:
    for ledger in range(3):
        write_entries(tmp_path, ledger, 5)
    storage = databases.create(f"storage_{urlsplit(target).path.removeprefix('/')}")
    watched = [urlsplit(url).path.removeprefix("/") for url in (target, storage)]

    result = small.on(target).having(DAGSTER_PG_URL=storage, PGOPTIONS=LOGGED)("migrate", "--export", tmp_path)
    assert result.status == 0, result
    # Into an empty database: there is nothing to lose.
    assert "backup" not in result.err

    open_now = "select count(*) from pg_stat_activity where datname = any(%s) and pid <> pg_backend_pid()"
    # A session ends a little after its client has gone.
    eventually(lambda: value(databases.server.url("postgres"), open_now, watched) == 0)
    # The server's logger writes a little later.
    names = {"b44 dagster", "b44 start"}
    eventually(lambda: ended_connections(databases.server, *watched)[1].keys() >= names)
    ours, dagsters = ended_connections(databases.server, *watched)
    databases.drop(watched[1])
    assert all(name.startswith("b44 ") for name in ours), ours
    assert set(dagsters) == names, dagsters
    # Each table is staged, planned, loaded and verified; a connection is used again.
    assert ours.total() <= 30 and dagsters.total() <= 60, (ours, dagsters)
