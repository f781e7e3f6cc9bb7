"""Every connection says what it is for, there are few at a time, and none is left."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from urllib.parse import urlsplit

from tests.helpers.command import Command
from tests.helpers.database_contents import value
from tests.helpers.ledger_app import write_entries
from tests.helpers.migrated_apps import Databases
from tests.helpers.waiting import eventually

# As the embedded server's log has it: application@database.
_ENDED = re.compile(r"\] (?P<name>[^@]*)@(?P<database>\S+) LOG:  disconnection: ")


def test_connections_of_a_migration_are_named_few_and_closed(
    small: Command, target: str, databases: Databases, tmp_path: Path
) -> None:
    for ledger in range(3):
        write_entries(tmp_path, ledger, 5)
    storage = databases.create(f"storage_{urlsplit(target).path.removeprefix('/')}")
    watched = [urlsplit(url).path.removeprefix("/") for url in (target, storage)]

    result = small.on(target).having(DAGSTER_PG_URL=storage, PGOPTIONS="-c log_disconnections=on")(
        "migrate", "--export", tmp_path
    )
    assert result.status == 0, result

    open_now = "select count(*) from pg_stat_activity where datname = any(%s) and pid <> pg_backend_pid()"
    assert value(databases.server.url("postgres"), open_now, watched) == 0
    # The server's logger writes a little later.
    eventually(lambda: _ended(databases, watched)[1].total() > 5)
    ours, dagsters = _ended(databases, watched)
    databases.drop(watched[1])
    assert all(name.startswith("b44 ") for name in ours), ours
    assert set(dagsters) == {"b44 dagster", "b44 start"}, dagsters
    # Each table is staged, planned, loaded and verified; a connection is used again.
    assert ours.total() <= 30 and dagsters.total() <= 60, (ours, dagsters)


def _ended(databases: Databases, watched: list[str]) -> list[Counter[str]]:
    lines = [
        found
        for log in databases.server.log_dir.glob("postgresql-*.log")
        for found in _ENDED.finditer(log.read_text(errors="replace"))
    ]
    return [Counter(one["name"] for one in lines if one["database"] == name) for name in watched]
