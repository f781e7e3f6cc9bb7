"""What docs/recovery.md tells an operator to do, done: each recipe on a server with two tables and all kinds of backups."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import psycopg
import pytest

from b44_assets.backup.encryption import Key
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Command, environment
from tests.helpers.database_contents import rows, value
from tests.helpers.waiting import eventually
from tests.helpers.workers import made_once

ORDERS = [(n, f"order {n}") for n in range(1, 6)]


@dataclass(frozen=True)
class Shop:
    """A server that has backups.

    Attributes:
        b44: The command on it.
        store: The folder that the backups are in.
        good: A time at which all was well.
    """

    b44: Command
    store: Path
    good: datetime

    @property
    def elsewhere(self) -> Command:
        """The command on a machine that knows the store alone."""
        return self.b44.having(B44_HOME=str(self.b44.directory / "elsewhere"))


@pytest.fixture(scope="module")
def shop(embedded: EmbeddedServer, dagster_storage: str) -> Shop:
    """Orders, backed up in every way; then two more of them, and after a good time the table is dropped.

    Made once for all workers, and gone with their servers.
    """
    folder = embedded.home.parent / "shop"
    command = Command(
        folder,
        environment(
            DAGSTER_PG_URL=dagster_storage,
            B44_HOME=str(folder / "home"),
            B44_BACKUP_URL=str(folder / "store"),
            B44_BACKUP_KEY=str(folder / "key"),
        ),
    )
    good = made_once(folder.with_suffix(".good"), lambda: make_shop(command).isoformat())
    return Shop(command, folder / "store", datetime.fromisoformat(good))


def make_shop(command: Command) -> datetime:
    """Does what the fixture says; returns the good time."""
    command.directory.mkdir()
    (command.directory / "key").write_text(Key.generate().secret)
    server = EmbeddedServer(command.directory / "home")
    server.start()
    with psycopg.connect(server.url(), autocommit=True) as conn:
        conn.execute("create table orders (id int primary key, what text)")
        conn.cursor().executemany("insert into orders values (%s, %s)", ORDERS[:3])
        for kind in ("logical", "base"):
            taken = command("backup", "--kind", kind, "--json")
            assert (taken.status, taken.report["good"], taken.report["encrypted"]) == (0, True, True), taken
        conn.cursor().executemany("insert into orders values (%s, %s)", ORDERS[3:])
        good = datetime.now(UTC)
        conn.execute("select pg_create_restore_point('before the release')")
        conn.execute("drop table orders")
        last = conn.execute("select pg_walfile_name(pg_switch_wal())").fetchone()
    assert last is not None
    eventually(lambda: any(file.name.startswith(last[0]) for file in server.spool.iterdir()), seconds=60)
    shipped = command("backup", "--kind", "wal", "--json")
    assert (shipped.status, shipped.report["files"] > 0) == (0, True), shipped
    return good


def orders_in(folder: Path) -> list[tuple[object, ...]]:
    """What a recovered home holds, once its server runs."""
    server = EmbeddedServer(folder)
    server.start()
    try:
        return rows(server.url(), "select * from orders order by id")
    finally:
        server.stop("immediate")


def test_a_table_that_was_dropped_is_recovered_beside_the_server(shop: Shop) -> None:
    before = shop.b44.directory / "before"
    done = shop.b44("restore", "--into", before, "--to-point", "before the release")
    assert (done.status, f"B44_HOME={before} " in done.out) == (0, True), done
    assert orders_in(before) == ORDERS
    # The server went on, as it was.
    assert value(EmbeddedServer(shop.b44.directory / "home").url(), "select to_regclass('orders') is null")


def test_a_drill_measures_what_a_loss_would_cost(shop: Shop) -> None:
    done = shop.b44("drill", "--json")
    assert done.status == 0, done
    assert "target: " in done.err
    assert done.report["rto_seconds"] > 0


def test_a_lost_server_is_recovered_from_the_store_alone(shop: Shop) -> None:
    new = shop.b44.directory / "new"
    listed = shop.elsewhere("backups", "--json")
    assert [found["kind"] for found in listed.report["backups"]] == ["logical", "base"]
    done = shop.elsewhere("restore", "--into", new, "--json")
    assert done.status == 0, done
    assert (done.report["into"], done.report["backup"]) == (str(new), listed.report["backups"][1]["id"])
    there = shop.b44.having(B44_HOME=str(new))
    # Up to the end of what was archived, the mistake included.
    assert value(there("db", "url").out.strip(), "select to_regclass('orders') is null")
    again = there.having(B44_BACKUP_URL=str(shop.b44.directory / "next"))("backup", "--kind", "base", "--json")
    assert (again.status, again.report["good"]) == (0, True), again


def test_after_a_break_in_what_was_tampered_with_is_named_and_the_time_before_recovered(shop: Shop) -> None:
    tampered = shop.b44.directory / "tampered"
    shutil.copytree(shop.store, tampered)
    [dump] = tampered.glob("backups/*-logical/dump*")
    content = bytearray(dump.read_bytes())
    content[len(content) // 2] ^= 1
    dump.write_bytes(content)
    command = shop.elsewhere.having(B44_BACKUP_URL=str(tampered))
    looked = command("backups", "--verify", "all")
    assert (looked.status, dump.parent.name in looked.err, "FAILED" in looked.out) == (1, True, True), looked
    clean = shop.b44.directory / "clean"
    done = command("restore", "--into", clean, "--to-time", shop.good.isoformat())
    assert done.status == 0, done
    assert orders_in(clean) == ORDERS


def test_the_dump_of_before_goes_into_a_new_database(shop: Shop) -> None:
    server = EmbeddedServer(shop.b44.directory / "home")
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        conn.execute("create database b44_before")
    done = shop.b44("restore", "--into", server.url("b44_before"))
    assert done.status == 0, done
    assert rows(server.url("b44_before"), "select * from orders order by id") == ORDERS[:3]
    again = shop.b44("restore", "--into", server.url("b44_before"))
    assert (again.status, "already" in again.fault) == (2, True), again.fault


def test_nothing_is_restored_over_a_folder_with_something_in_it(shop: Shop) -> None:
    done = shop.b44("restore", "--into", shop.b44.directory / "home")
    assert (done.status, str(shop.b44.directory / "home") in done.err) == (2, True)


def test_a_wrong_key_is_told_apart_from_damage(shop: Shop) -> None:
    other = shop.b44.directory / "other-key"
    other.write_text(Key.generate().secret)
    done = shop.b44.having(B44_BACKUP_KEY=str(other))("restore", "--into", shop.b44.directory / "nowhere")
    assert (done.status, "key" in done.err, "damaged" in done.err) == (2, True, False), done
    assert not (shop.b44.directory / "nowhere").exists()
