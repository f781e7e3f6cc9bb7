"""A server of one's own, made to archive its WAL as the instructions say."""

from __future__ import annotations

import os
import re
import shutil
import tempfile
import time
from collections.abc import Generator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup.archive_settings import archiving, instructions
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.model import BackupKind
from b44_assets.backup.recovery import restore_physical
from b44_assets.backup.service import BackupContext, archive_wal, back_up, look_at_archiving, ship_wal
from b44_assets.backup.taking import describe
from b44_assets.backup.wal_archive import wal_files
from b44_assets.backup.wal_spool import ship
from b44_assets.config.settings import Settings
from b44_assets.errors import BackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.embedded.configuration import quoted_setting
from tests.helpers.servers import PG15_BIN, Pg15, ordinary_account, own_pg15, run_as


@pytest.fixture
def own_server() -> Generator[Pg15]:
    """A PostgreSQL 15 of the test's own."""
    with own_pg15() as server:
        yield server


def test_the_instructions_make_a_server_archive_into_the_spool(own_server: Pg15, catalogue: Catalogue) -> None:
    spool = own_server.directory / "wal of $ours's"
    with connect(own_server.url(), autocommit=True) as conn:
        before = archiving(conn, spool, catalogue.store, describe(conn).system)
    assert (before.works, before.explanation) == (False, "archiving of WAL is turned off")

    account = ordinary_account()
    spool.mkdir(mode=0o700)
    if account:
        os.chown(spool, account.pw_uid, account.pw_gid)
    lines = re.findall(r"^ {7}(\w+ = .*)$", instructions(spool, before.server_version), re.MULTILINE)
    with (own_server.data_dir / "postgresql.conf").open("a") as conf:
        conf.write("\n".join(lines) + "\n")
    restart = [PG15_BIN / "pg_ctl", "-D", own_server.data_dir, "-w", "-l", own_server.data_dir / "log", "restart"]
    assert run_as(account, restart).returncode == 0

    with connect(own_server.url(), autocommit=True) as conn:
        system = describe(conn).system
        conn.execute("create table t (i int)")
        [segment] = conn.execute("select pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
        while conn.execute("select last_archived_wal from pg_stat_archiver").fetchone() != (segment,):
            time.sleep(0.02)
        assert (spool / segment).exists()
        ship(spool, catalogue, system)
        after = archiving(conn, spool, catalogue.store, system)
    assert (after.works, after.last_archived) == (True, segment)
    assert segment in {file.name for file in wal_files(catalogue.store, system)}


@pytest.mark.parametrize(("version", "there"), [(160004, False), (170000, True)])
def test_only_a_server_that_knows_summaries_of_wal_is_told_of_them(version: int, there: bool) -> None:
    assert ("summarize_wal" in instructions(Path("/spool"), version)) is there


@pytest.mark.parametrize("turned_off", [False, True])
def test_archiving_is_turned_on_by_whoever_needs_it_unless_somebody_turned_it_off(
    server_home: EmbeddedServer, turned_off: bool
) -> None:
    backup_context = BackupContext.of(
        Settings.load(environ={"B44_HOME": str(server_home.home)}, directory=server_home.home.parent)
    )
    try:
        archive_wal(backup_context, on=False)
        if not turned_off:
            (server_home.directory / "archive.conf").unlink()
        assert ship_wal(backup_context).refused == ()
        assert server_home.archives() is not turned_off
    finally:
        archive_wal(backup_context, on=True)


def test_wal_that_was_let_go_before_is_not_missed(server_home: EmbeddedServer) -> None:
    environ = {"B44_HOME": str(server_home.home)}
    backup_context = BackupContext.of(Settings.load(environ=environ, directory=server_home.home.parent))
    try:
        archive_wal(backup_context, on=False)
        with connect(server_home.url(), autocommit=True) as conn:
            conn.execute("select pg_stat_reset_shared('archiver')")
            conn.execute("create table let_go (i int)")
            [segment] = conn.execute("select pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
            while conn.execute("select last_archived_wal from pg_stat_archiver").fetchone() != (segment,):
                time.sleep(0.02)
            conn.execute("drop table let_go")
    finally:
        archive_wal(backup_context, on=True)
    state = look_at_archiving(backup_context)
    assert (state.faults, state.last_archived == segment) == ((), False)


def test_an_incremental_backup_that_is_refused_turns_nothing_on(server_home: EmbeddedServer, tmp_path: Path) -> None:
    environ = {"B44_HOME": str(server_home.home), "B44_BACKUP_URL": str(tmp_path / "store")}
    backup_context = BackupContext.of(Settings.load(environ=environ, directory=tmp_path))
    (server_home.directory / "archive.conf").unlink()
    try:
        with pytest.raises(BackupError, match=r"has none: take a base backup$"):
            back_up(backup_context, BackupKind.INCREMENTAL)
        assert server_home.archives() is None
        assert backup_context.catalogue.listing().attempts == ()
    finally:
        archive_wal(backup_context, on=True)


@pytest.fixture
def odd_home() -> Generator[Path]:
    """A home in whose name all stands that a shell, a URL or PostgreSQL takes for something else."""
    folder = Path(tempfile.mkdtemp(prefix="b44-test-"))
    folder.chmod(0o755)
    home = folder / """a$HOME "b' %f %%p \\t `c` ü&host=#?"""
    yield home
    EmbeddedServer(home).stop("immediate")
    shutil.rmtree(folder)


def test_a_home_of_any_name_starts_archives_is_backed_up_and_recovered(odd_home: Path) -> None:
    backup_context = BackupContext.of(Settings.load(environ={"B44_HOME": str(odd_home)}, directory=odd_home.parent))
    server = EmbeddedServer(odd_home)
    done = back_up(backup_context, BackupKind.BASE)
    assert done.backup.good
    with connect(server.url(), autocommit=True) as conn:
        conn.execute("create table later as select 1 as n")
        [segment] = conn.execute("select pg_walfile_name(pg_switch_wal())").fetchone() or ("",)
        while conn.execute("select last_archived_wal from pg_stat_archiver").fetchone() != (segment,):
            time.sleep(0.02)
    assert ship_wal(backup_context).files > 0
    restored = EmbeddedServer(odd_home.with_name(odd_home.name + " restored"))
    restore_physical(backup_context.catalogue, restored.home)
    try:
        restored.start()
        with connect(restored.url(), autocommit=True) as conn:
            assert conn.execute("select n from later").fetchone() == (1,)
    finally:
        restored.stop("immediate")


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=40))
def test_a_quoted_setting_is_read_back(value: str) -> None:
    """As PostgreSQL reads a string of its configuration."""
    quoted = quoted_setting(value)
    assert re.fullmatch(r"'([^'\\\n]|\\.|'')*'", quoted)
    read = re.sub(r"\\(.)|''", lambda m: {"n": "\n"}.get(m[1], m[1]) if m[1] else "'", quoted[1:-1])
    assert read == value
