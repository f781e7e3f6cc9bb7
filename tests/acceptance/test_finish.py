"""`b44 finish`: the migration's own tables go to the backup store and are dropped, and everything else goes on."""

from __future__ import annotations

import json
import shlex
import signal
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from b44_assets.backup.encryption import Key
from b44_assets.postgres.advisory_locks import advisory_key
from tests.helpers.command import Command, environment
from tests.helpers.database_contents import rows, state, value
from tests.helpers.migrated_apps import Databases, Migrated
from tests.helpers.workers import made_once

ACCEPTED = ("--accept-quarantine", "--yes")
PUBLIC = "public."
OF_MIGRATION = ("migration.quarantine", "migration.repairs", "migration.unmapped", "migration.migrated", "base44.posts")


@dataclass(frozen=True)
class Ended:
    """A database whose migration was finished, to look at only.

    Attributes:
        b44: The command on it.
        url: Of it.
        before: What it held before, by relation.
        archive: The id of the archive.
    """

    b44: Command
    url: str
    before: dict[str, tuple[int, str]]
    archive: str


@pytest.fixture
def ended(databases: Databases, migrated: Migrated, dagster_storage: str) -> Ended:
    folder = databases.server.home.parent / "ended"
    name = "migration_ended"
    command = Command(
        folder,
        environment(
            DAGSTER_PG_URL=dagster_storage,
            B44_BACKUP_URL=str(folder / "store"),
            B44_BACKUP_KEY=str(folder / "key"),
            B44_DATABASE_URL=databases.server.url(name),
        ),
    )

    def make() -> str:
        folder.mkdir()
        (folder / "key").write_text(Key.generate().secret)
        before = state(databases.create(name, migrated.template))
        done = command("finish", *ACCEPTED, "--json")
        assert done.status == 0, done
        return json.dumps([before, done.report["archive"]])

    before, archive = json.loads(made_once(folder.with_suffix(".json"), make))
    return Ended(command, databases.server.url(name), {k: tuple(v) for k, v in before.items()}, archive)


@pytest.fixture
def command(b44: Command, finished: str) -> Command:
    """On a database of the test's own with a migration that could be finished."""
    return b44.on(finished)


def schemas(url: str) -> set[str]:
    return {row[0] for row in rows(url, "select nspname from pg_namespace where nspname in ('migration', 'base44')")}


def test_the_tables_of_the_application_are_as_they_were_and_the_others_gone(ended: Ended) -> None:
    after = state(ended.url)
    assert after == {name: held for name, held in ended.before.items() if name.startswith(PUBLIC)}
    assert schemas(ended.url) == set()


def test_the_archive_is_loaded_into_any_database_and_holds_what_the_tables_held(
    ended: Ended, new_database: Callable[[], str]
) -> None:
    url = new_database()
    done = ended.b44("restore", ended.archive, "--into", url, "--json")
    assert done.status == 0, done
    assert (done.report["backup"], done.report["lsn"]) == (ended.archive, None)
    held = state(url)
    assert {name: held[name] for name in OF_MIGRATION} == {name: ended.before[name] for name in OF_MIGRATION}
    assert all(count > 0 for count, _ in (held[name] for name in OF_MIGRATION))
    again = ended.b44("restore", ended.archive, "--into", url)
    assert (again.status, "already" in again.fault) == (2, True), again.fault


def test_the_archive_goes_into_a_database_that_holds_something_else(
    ended: Ended, new_database: Callable[[], str]
) -> None:
    url = new_database()
    with psycopg.connect(url) as conn:
        conn.execute("create table public.posts (id int)")
    done = ended.b44("restore", "migration/latest", "--into", url)
    assert done.status == 0, done
    assert value(url, "select count(*) from migration.repairs") == ended.before["migration.repairs"][0]


def test_the_commands_of_the_operators_page_read_the_archive(ended: Ended, new_database: Callable[[], str]) -> None:
    page = (Path(__file__).parents[2] / "docs" / "operations.md").read_text()
    [block] = [one for one in page.split("```") if "b44 restore migration/latest" in one]
    url = new_database()
    psql = ended.b44("db", "bin").out.strip() + "/psql"
    read: list[str] = []
    for line in block.replace("postgresql://…/archive", shlex.quote(url)).splitlines():
        words = shlex.split(line, comments=True)
        if words[:1] == ["b44"]:
            done = ended.b44(*words[1:])
            assert done.status == 0, done
        elif words[:1] == ["psql"]:
            told = subprocess.run([psql, *words[1:]], capture_output=True, text=True, check=True)
            read.append(told.stdout)
    repairs = value(url, "select count(*) from migration.repairs where entity = 'posts'")
    assert [len(table.splitlines()) > 3 for table in read] == [True, True]
    assert f"({repairs} rows)" in read[0]
    assert f"({ended.before['migration.unmapped'][0]} rows)" in read[1]


def test_an_older_server_takes_the_archive(ended: Ended, older_database: str) -> None:
    done = ended.b44("restore", ended.archive, "--into", older_database)
    assert done.status == 0, done
    assert value(older_database, "select count(*) from migration.unmapped") == ended.before["migration.unmapped"][0]


def test_the_archive_is_listed_as_its_own_kind_and_never_expires(ended: Ended) -> None:
    listed = ended.b44.having(B44_KEEP_BACKUPS_DAYS="1")("backups", "--expire", "--dry-run", "--json")
    [found] = [one for one in listed.report["backups"] if one["id"] == ended.archive]
    assert (found["kind"], found["good"], found["encrypted"], found["expires_at"]) == ("migration", True, True, None)
    assert ended.archive in ended.b44("backups").out
    assert "never" in ended.b44("backups").out


def test_verify_checks_what_stays_and_says_which_checks_are_not_applicable(ended: Ended) -> None:
    done = ended.b44("verify")
    assert done.status == 0, done
    assert f"not applicable: migration tables archived on 20{ended.archive[2:4]}-" in done.out
    assert ended.archive in done.out
    assert done.complaints == []


def test_status_says_how_it_ended(ended: Ended) -> None:
    done = ended.b44("status")
    assert (done.status, ended.archive in done.out, len(done.out.splitlines())) == (0, True, 1), done
    assert ended.b44("status", "--json").report["archive"] == ended.archive


@pytest.mark.parametrize(
    "arguments",
    [
        ("migrate", "--export", "EXPORT"),
        ("cutover", "--export", "EXPORT"),
        ("replay",),
        ("rollback", "--partition", "2025-01"),
        ("rollback", "--run", "abc"),
        ("report",),
    ],
)
def test_what_needs_the_migration_tables_says_so_in_one_line(
    ended: Ended, migrated: Migrated, arguments: tuple[str, ...]
) -> None:
    done = ended.b44(*(migrated.export if word == "EXPORT" else word for word in arguments))
    assert (done.status, ended.archive in done.fault) == (2, True), done
    assert schemas(ended.url) == set()


def test_finishing_twice_changes_nothing(ended: Ended) -> None:
    done = ended.b44("finish", "--json")
    assert (done.status, done.report) == (0, {"archive": ended.archive})


def test_tables_that_were_dropped_by_hand_are_told_of_in_one_line(command: Command, migrated: Migrated) -> None:
    with psycopg.connect(command.environment["B44_DATABASE_URL"]) as conn:
        conn.execute("drop schema migration cascade")
    for arguments in (("migrate", "--export", migrated.export), ("finish", *ACCEPTED), ("report",)):
        done = command(*arguments)
        assert (done.status, "dropped by hand" in done.fault) == (2, True), done
    done = command("verify")
    assert (done.status, "not applicable" in done.out, done.complaints) == (0, True, []), done
    assert done.out.splitlines()[-1].endswith(" warned: complete"), done
    assert command("status").status == 0


@pytest.mark.parametrize(
    ("arguments", "status", "says"),
    [(("--yes",), 1, "--accept-quarantine"), (("--accept-quarantine",), 2, "--yes")],
)
def test_it_refuses_without_being_told(command: Command, arguments: tuple[str, ...], status: int, says: str) -> None:
    done = command("finish", *arguments)
    assert (done.status, says in done.fault) == (status, True), done
    assert schemas(command.environment["B44_DATABASE_URL"]) == {"migration", "base44"}


def test_it_refuses_while_a_migration_is_running(command: Command) -> None:
    with psycopg.connect(
        command.environment["B44_DATABASE_URL"], autocommit=True, application_name="b44 migrate"
    ) as conn:
        conn.execute("select pg_advisory_lock(%s)", (advisory_key("migrate"),))
        done = command("finish", *ACCEPTED)
    assert (done.status, "is running: process" in done.fault) == (1, True), done


def test_nothing_migrated_is_nothing_to_finish(b44: Command, target: str) -> None:
    done = b44.on(target)("finish", "--yes")
    assert (done.status, "nothing has been migrated" in done.fault) == (1, True), done


def test_a_store_that_is_damaged_meanwhile_keeps_the_tables(command: Command) -> None:
    """The archive is read back before anything is dropped."""
    done = run_with(
        command,
        "import b44_assets.backup.verification as v, pathlib\n"
        "whole = v.verify\n"
        "def damaged(catalogue, backup, **named):\n"
        "    path = pathlib.Path(catalogue.store.location) / 'backups' / backup.id / backup.files[0].name\n"
        "    data = bytearray(path.read_bytes()); data[len(data) // 2] ^= 1; path.write_bytes(data)\n"
        "    return whole(catalogue, backup, **named)\n"
        "import b44_assets.backup.service as o\n"
        "o.verify = damaged\n",
    )
    assert (done.returncode, "nothing was dropped" in done.stderr, "Traceback" in done.stderr) == (1, True, False), done
    # What one can go back to is said before anything goes.
    assert done.stderr.count("notice: There is no backup of ") == 1
    assert schemas(command.environment["B44_DATABASE_URL"]) == {"migration", "base44"}


@pytest.mark.parametrize("point", ["finish: archived", "finish: before commit", "finish: after commit"])
def test_killed_anywhere_it_is_run_again(command: Command, point: str) -> None:
    before = state(command.environment["B44_DATABASE_URL"])
    killed = run_with(
        command,
        "import os\nfrom b44_assets import failpoints\n"
        "def kill(name, conn):\n"
        f"    if name == {point!r}: os.kill(os.getpid(), 9)\n"
        "failpoints._armed.append(kill)\n",
    )
    assert killed.returncode == -signal.SIGKILL, killed
    again = command("finish", *ACCEPTED, "--json")
    assert again.status == 0, again
    url = command.environment["B44_DATABASE_URL"]
    assert schemas(url) == set()
    assert state(url) == {name: held for name, held in before.items() if name.startswith(PUBLIC)}
    # The archive of the first attempt holds the same, and is the one.
    listed = command("backups", "--json")
    assert [one["id"] for one in listed.report["backups"]] == [again.report["archive"]]
    # It goes when somebody says so.
    removed = command("backups", "--remove", again.report["archive"], "--json")
    assert (removed.status, removed.report["backups"]) == (0, []), removed


def run_with(command: Command, preparation: str) -> subprocess.CompletedProcess[str]:
    """Runs `b44 finish` in a process in which something was prepared."""
    return subprocess.run(
        [sys.executable, "-c", f"{preparation}\nfrom b44_assets.cli import main\nmain({['finish', *ACCEPTED]!r})"],
        cwd=command.directory,
        env=command.environment,
        capture_output=True,
        text=True,
        check=False,
        timeout=300,
    )
