"""What takes a server of one's own: an archive command that fails, a standby that is behind, counted statements."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest

from b44_assets.catalog import Catalog
from tests.helpers.servers import PG15_BIN, Pg15, free_port, ordinary_account, own_pg15, run_as
from tests.helpers.waiting import eventually
from tests.helpers.watched import Watched

ARCHIVES = "archive_mode = on\narchive_command = '/bin/true'\nshared_preload_libraries = 'pg_stat_statements'\n"


def control(server: Pg15, *arguments: str | Path) -> None:
    done = run_as(ordinary_account(), [PG15_BIN / "pg_ctl", "-D", server.data_dir, "-w", *arguments])
    assert done.returncode == 0, done.stderr


@pytest.fixture(scope="module")
def own(catalog: Catalog) -> Generator[Watched]:
    with own_pg15() as server:
        with (server.data_dir / "postgresql.conf").open("a") as conf:
            conf.write(ARCHIVES)
        control(server, "-m", "fast", "-l", server.data_dir / "log", "restart")
        watched = Watched(server.url(), "watcher", "nobody", catalog)
        watched.execute("create role watcher login; grant pg_monitor to watcher; create role nobody login")
        yield watched


def test_an_archive_command_that_fails_is_told_until_it_works(own: Watched) -> None:
    def write_wal() -> None:
        own.execute("create table written as select 1 as x; drop table written; select pg_switch_wal()")

    def fails(expected: int) -> bool:
        return own.read("wal").numbers["archive_fails"] == expected

    write_wal()
    eventually(lambda: own.read("wal").numbers["archived_total"] > 0)
    assert own.verdict("archiving_works", own.read("wal")).passed
    own.execute("alter system set archive_command = '/bin/false'")
    own.execute("select pg_reload_conf()")
    write_wal()
    eventually(lambda: fails(1))
    reading = own.read("wal")
    assert not own.verdict("archiving_works", reading).passed
    assert reading.numbers["archive_waiting"] >= 1
    own.execute("alter system reset archive_command")
    own.execute("select pg_reload_conf()")
    write_wal()
    eventually(lambda: fails(0))
    eventually(lambda: own.read("wal").numbers["archive_waiting"] == 0)
    assert own.verdict("archiving_works", own.read("wal"), "archive_waiting=0").passed


def test_files_of_the_wal_that_wait_to_be_archived_are_told_though_nothing_fails(own: Watched) -> None:
    own.execute("alter system set archive_command = 'sleep 1'")
    own.execute("select pg_reload_conf()")
    try:
        for _ in range(3):
            own.execute("create table written as select 1 as x; drop table written; select pg_switch_wal()")
        eventually(lambda: own.read("wal").numbers["archive_waiting"] > 0)
        reading = own.read("wal")
    finally:
        own.execute("alter system reset archive_command")
        own.execute("select pg_reload_conf()")
    assert reading.numbers["archive_fails"] == 0
    red = own.verdict("archiving_works", reading, "archive_waiting=0")
    assert (red.passed, red.measured) == (False, True)
    assert own.verdict("archiving_works", reading, "archive_waiting=64").passed


def test_a_slow_statement_is_named_without_its_values_and_nothing_that_may_hold_a_password(own: Watched) -> None:
    own.execute(
        "create schema counted; create extension pg_stat_statements schema counted; grant usage on schema counted to watcher"
    )
    own.execute("select pg_sleep(0.3), 'a secret of ours'")
    own.execute("alter role nobody password 'a secret of ours'")
    reading = own.read("slow_statements")
    statements = {row.labels["statement"]: row.numbers for row in reading.rows["slow_statements"]}
    [slow] = [statement for statement in statements if "pg_sleep" in statement]
    assert statements[slow]["mean_seconds"] >= 0.3
    assert "secret" not in str(reading)
    assert own.verdict("statements_fast", reading).passed
    red = own.verdict("statements_fast", reading, "statement=200ms")
    assert not red.passed and "pg_sleep" in red.text


@pytest.fixture
def standby(own: Watched) -> Generator[Watched]:
    """A standby that replays nothing for an hour."""
    folder = Path(tempfile.mkdtemp(prefix="b44-standby-"))
    folder.chmod(0o1777)
    server = Pg15(folder)
    account = ordinary_account()
    server.data_dir.mkdir(mode=0o700)
    if account:
        os.chown(server.data_dir, account.pw_uid, account.pw_gid)
    options = ("-c", "fast", "--no-sync", "-R", "-X", "stream", "-d", own.url)
    taken = run_as(account, [PG15_BIN / "pg_basebackup", "-D", server.data_dir, *options])
    assert taken.returncode == 0, taken.stderr
    with (server.data_dir / "postgresql.conf").open("a") as conf:
        conf.write(
            f"\nport = {free_port()}\nunix_socket_directories = '{server.data_dir}'\nrecovery_min_apply_delay = '1h'\n"
            "hot_standby = on\n"
        )
    control(server, "-l", server.data_dir / "log", "start")
    try:
        yield replace(own, url=server.url())
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def test_a_standby_that_is_behind_is_told_on_both_sides(own: Watched, standby: Watched) -> None:
    assert own.verdict("standbys_follow", own.read("replication")).passed
    own.execute("create table replayed as select generate_series(1, 50000) as x")
    own.execute("insert into replayed select generate_series(1, 50000)")
    eventually(lambda: own.read("replication").numbers.get("largest_lag_bytes", 0) > 1_000_000)
    reading = own.read("replication")
    assert reading.numbers["standbys"] == 1
    assert [row.labels["state"] for row in reading.rows["replication_standbys"]] == ["streaming"]
    assert own.verdict("standbys_follow", reading).passed
    red = own.verdict("standbys_follow", reading, "replication_bytes=1MB")
    assert (red.passed, red.measured) == (False, True)

    eventually(lambda: standby.read("replication").numbers.get("own_lag_seconds", 0) > 0)
    behind = standby.read("replication")
    assert behind.numbers["is_standby"] == 1
    assert not standby.verdict("standbys_follow", behind, "replication_lag=0s").passed
    # All else is measured on a standby as well.
    for name in ("connections", "table_sizes", "wal", "disk", "wraparound", "settings_advice"):
        assert standby.read(name).numbers, name
