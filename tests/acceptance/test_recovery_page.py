"""The commands of docs/recovery.md, run as they stand: what the page marks as the reader's own is all that is filled in."""

from __future__ import annotations

import re
import shutil
import subprocess
import textwrap
from collections.abc import Generator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup.encryption import Key
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import COMMAND, PATIENCE, Command, Result, environment
from tests.helpers.database_contents import rows, value
from tests.helpers.forking import forked_in_shells
from tests.helpers.paths import REPOSITORY
from tests.helpers.sample_exports import small_export
from tests.helpers.waiting import eventually
from tests.helpers.workers import made_once

DROPPED, THINNED = "audit_logs", "events"


def blocks(heading: str) -> list[str]:
    """The fenced sh blocks below a heading of the page, in their order."""
    page = (REPOSITORY / "docs" / "recovery.md").read_text(encoding="utf-8")
    [section] = re.findall(rf"^## {re.escape(heading)}\n(.*?)(?=^## |\Z)", page, re.DOTALL | re.MULTILINE)
    return [
        textwrap.dedent(found) for found in re.findall(r"^ *```sh\n(.*?)^ *```$", section, re.DOTALL | re.MULTILINE)
    ]


@dataclass(frozen=True)
class Reader:
    """Somebody who follows the page.

    Attributes:
        b44: The command at the migrated database.
        good: A time at which all was well.
        path: Where the shell finds `b44`.
    """

    b44: Command
    good: datetime
    path: Path

    @property
    def folder(self) -> Path:
        return self.b44.directory

    @property
    def server(self) -> EmbeddedServer:
        return EmbeddedServer(self.folder / "home")

    def types(self, block: str, *, store: str = "store", srv: str = "srv", **words: str) -> Result:
        """Runs a block as the shell of somebody does who has set up the store as the page says."""
        setup = blocks("Set it up once")[1]
        script = f"{setup}\n{block}"
        for name, text in words.items():
            assert re.search(rf"\b{name}\b", block), (name, block)
            script = re.sub(rf"\b{name}\b", text.replace("\\", r"\\"), script)
        places = {"s3://my-backups/app": store, "/etc/b44": "etc", "/srv": srv}
        for written, own in places.items():
            script = script.replace(written, str(self.folder / own))
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", script],
            cwd=self.folder,
            env=self.b44.environment | {"PATH": f"{self.path}:{COMMAND.parent}:/usr/bin:/bin"},
            capture_output=True,
            text=True,
            check=False,
            timeout=PATIENCE,
        )
        return Result(done.returncode, done.stdout, done.stderr)


def contents(url: str, table: str) -> list[tuple[object, ...]]:
    """All rows of a table, in an order of their own."""
    return rows(url, sql.SQL("select r::text from {} r order by 1").format(sql.Identifier(table)))


@pytest.fixture(scope="module")
def path() -> Generator[Path]:
    """Where the command is found that need not import all anew."""
    with forked_in_shells() as folder:
        yield folder


@pytest.fixture(scope="module")
def reader(embedded: EmbeddedServer, path: Path) -> Reader:
    """A migrated blog with the page's first backups; after a good time a table is dropped and posts are deleted.

    `intact` is the store before that. Made once for all workers, and gone with their servers.
    """
    folder = embedded.home.parent / "page"
    command = Command(folder, environment(B44_HOME=str(folder / "home"), B44_FIRST_MONTH="2026-06"))
    good = made_once(folder.with_suffix(".good"), lambda: make(command, path).isoformat())
    return Reader(command, datetime.fromisoformat(good), path)


def make(command: Command, path: Path) -> datetime:
    """Does what the fixture says; returns the good time."""
    folder = command.directory
    (folder / "etc").mkdir(parents=True)
    (folder / "etc" / "backup.key").write_text(Key.generate().secret)
    migrated = command("migrate", "--export", small_export(folder / "export"))
    assert migrated.status == 0, migrated
    reader = Reader(command, datetime.now(UTC), path)
    server = reader.server
    for step in blocks("Set it up once")[2:]:
        done = reader.types(step)
        assert done.status == 0, done

    def archived() -> None:
        last = value(server.url(), "select pg_walfile_name(pg_switch_wal())")
        eventually(
            lambda: last <= (value(server.url(), "select last_archived_wal from pg_stat_archiver") or ""), seconds=60
        )

    archived()
    shipped = command.having(B44_BACKUP_URL=str(folder / "store"), B44_BACKUP_KEY=str(folder / "etc" / "backup.key"))(
        "backup", "--kind", "wal"
    )
    assert shipped.status == 0, shipped
    shutil.copytree(folder / "store", folder / "intact")
    with psycopg.connect(server.url(), autocommit=True) as conn:
        for table in (DROPPED, THINNED):
            copy = sql.Identifier(f"intact_{table}")
            conn.execute(
                sql.SQL("create table {} as select r::text as r from {} r").format(copy, sql.Identifier(table))
            )
        good = datetime.now(UTC)
        conn.execute(sql.SQL("drop table {}").format(sql.Identifier(DROPPED)))
        thin = sql.SQL("delete from {0} where id in (select id from {0} order by id limit 10)")
        assert conn.execute(thin.format(sql.Identifier(THINNED))).rowcount == 10
    archived()
    return good


def before(url: str, table: str) -> list[tuple[object, ...]]:
    """What the table held at the good time."""
    return rows(url, sql.SQL("select r from {} order by 1").format(sql.Identifier(f"intact_{table}")))


@pytest.mark.parametrize(("table", "recipe"), [(DROPPED, 1), (THINNED, 2)], ids=["dropped", "rows deleted"])
def test_what_was_dropped_or_deleted_comes_back(reader: Reader, table: str, recipe: int) -> None:
    steps = blocks("A table was dropped, or rows were changed by mistake")
    assert len(steps) == 3
    url = reader.server.url()
    srv = f"srv-{table}"
    (reader.folder / srv).mkdir()
    recovered = reader.types(steps[0], srv=srv, TIME=reader.good.isoformat())
    assert recovered.status == 0, recovered
    done = reader.types(steps[recipe], srv=srv, TABLE=table)
    assert (done.status, done.out.endswith(" is stopped\n")) == (0, True), done
    assert contents(url, table) == before(url, table)


def test_a_lost_server_goes_on_and_says_that_the_staged_export_is_not_restored_by_design(reader: Reader) -> None:
    [step] = blocks("The server is lost")
    elsewhere = replace(reader, b44=reader.b44.having(B44_HOME=str(reader.folder / "nothing")))
    done = elsewhere.types(step, store="intact")
    assert done.status == 0, done
    said = [line for line in done.err.splitlines() if "staged export not restored, by design (unlogged tables)" in line]
    assert said and all(line.startswith("warning: ") for line in said), done.err
    restored = EmbeddedServer(reader.folder / "srv" / "b44")
    try:
        there = reader.b44.having(B44_HOME=str(restored.home))
        again = there("migrate", "--export", reader.folder / "export", "--json")
        assert again.status == 0, again
        for table in (DROPPED, THINNED):
            assert contents(restored.url(), table) == before(reader.server.url(), table)
        # All is as it was where nothing was lost, and verified without any warning of that kind.
        verified = there("verify")
        assert (verified.status, "not restored" in verified.err) == (0, False), verified
    finally:
        restored.stop("immediate")


def test_the_dump_of_before_goes_into_a_new_database(reader: Reader) -> None:
    [step] = blocks("A migration went wrong")
    url = reader.server.url("b44_before")
    # By the script itself, as whoever reads the page.
    done = replace(reader, path=COMMAND.parent).types(step, BACKUP="logical/latest", URL=url)
    assert done.status == 0, done
    assert contents(url, DROPPED) == before(reader.server.url(), DROPPED)
