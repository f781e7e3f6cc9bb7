"""Backups of servers that hold one of everything, with and without writers: what was taken is found good."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from b44_assets.backup import taking
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.consistent_snapshot import standing_still
from b44_assets.backup.encryption import Key
from b44_assets.backup.health import nothing_failed
from b44_assets.backup.lsn import position
from b44_assets.backup.model import Backup, BackupKind, Verification
from b44_assets.backup.service import LONGEST_BACKUP
from b44_assets.backup.state import configure_session
from b44_assets.backup.store import Store
from b44_assets.backup.taking import take
from b44_assets.backup.verification import verify
from b44_assets.errors import BackupError
from b44_assets.postgres.clients import shown
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.loading import ZOO, commits, writing
from tests.helpers.making import WHOLE
from tests.helpers.servers import own_pg15

PHYSICAL = (BackupKind.BASE, BackupKind.INCREMENTAL)


@pytest.fixture
def encrypted(tmp_path: Path) -> Catalogue:
    return Catalogue(Store.at(str(tmp_path / "encrypted")), Key.generate())


def fill(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(ZOO)


def verified(catalogue: Catalogue, kind: BackupKind, url: str) -> Backup:
    backup = verify(catalogue, take(kind, url, catalogue))
    assert backup.verification is not None
    assert backup.verification.differences == ()
    assert catalogue.find(backup.id) == backup
    return backup


# -- good ones ---------------------------------------------------------------------------------------------------------


def test_a_logical_backup_under_load_is_good(source: str, encrypted: Catalogue) -> None:
    fill(source)

    with writing(source):
        backup = verified(encrypted, BackupKind.LOGICAL, source)

    assert backup.encrypted
    assert [file.name for file in backup.files] == ["dump.zst.age", "roles.sql.zst.age"]


def test_base_and_incremental_backups_under_load_are_good(source: str, encrypted: Catalogue) -> None:
    fill(source)

    with writing(source):
        base = verified(encrypted, BackupKind.BASE, source)
        first = verified(encrypted, BackupKind.INCREMENTAL, source)

    assert (first.parent, first.timeline, first.segment_size) == (base.id, 1, 16 * 1024**2)
    assert first.size < base.size
    assert {file.name.partition(".")[0].partition("/")[0] for file in base.files} == {"base", "backup_manifest", "wal"}


@pytest.mark.slow
def test_twenty_base_backups_in_a_row_under_load_are_good(source: str, catalogue: Catalogue) -> None:
    with writing(source, 4):
        for _ in range(20):
            verified(catalogue, BackupKind.BASE, source)


@pytest.mark.slow
def test_fifty_good_ones_raise_no_false_alarm(source: str, catalogue: Catalogue) -> None:
    fill(source)
    with writing(source, 2):
        for number in range(50):
            kind = (BackupKind.BASE, BackupKind.LOGICAL, *[BackupKind.INCREMENTAL] * 3)[number % 5]
            verified(catalogue, kind, source)


@pytest.fixture
def older(older_database: str) -> str:
    """URL of a filled database of the test's own on PostgreSQL 15."""
    fill(older_database)
    return older_database


@pytest.fixture
def older_server() -> Generator[str]:
    """URL of a filled database on a PostgreSQL 15 of the test's own: a base backup takes all that a server holds."""
    with own_pg15() as server:
        fill(server.url())
        yield server.url()


def test_a_base_backup_of_an_older_server_is_good(older_server: str, catalogue: Catalogue) -> None:
    base = verified(catalogue, BackupKind.BASE, older_server)

    assert base.server_version // 10000 == 15
    with pytest.raises(BackupError, match=r"^incremental backups need PostgreSQL 17, and this is 15$"):
        take(BackupKind.INCREMENTAL, older_server, catalogue)


@pytest.mark.slow
def test_a_logical_backup_of_an_older_server_is_good(older: str, catalogue: Catalogue) -> None:
    verified(catalogue, BackupKind.LOGICAL, older)


def test_a_logical_backup_of_an_older_server_is_good_on_a_newer_one(
    older: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("b44_assets.postgres.clients.INSTALLED", ())

    backup = verified(catalogue, BackupKind.LOGICAL, older)

    assert backup.client is not None
    assert "bundled" in backup.client


def test_an_older_server_is_dumped_by_programs_of_its_own_version(older: str, catalogue: Catalogue) -> None:
    said: list[str] = []

    backup = take(BackupKind.LOGICAL, older, catalogue, tell=said.append)

    assert backup.client is not None
    assert f"PostgreSQL {shown(backup.server_version)}, system" in backup.client
    assert said == [f"with the programs of {backup.client}"]


def test_programs_that_may_not_know_the_server_are_told_of(
    older: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("b44_assets.postgres.clients.INSTALLED", ())
    said: list[str] = []

    take(BackupKind.LOGICAL, older, catalogue, tell=said.append)

    assert "postgresql-client-15" in said[1]
    assert "B44_PG_BIN" in said[1]


# -- what a moment is --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("looking", [0.2, 0.0], ids=["found", "made"])
def test_a_snapshot_and_a_position_say_the_same_under_load(
    source: str, server_home: EmbeddedServer, looking: float
) -> None:
    """Every transaction that is in the snapshot is in the WAL before the position, and no other is."""
    seen: list[tuple[int, set[int]]] = []
    with connect(source, autocommit=True) as asker, connect(source, autocommit=True) as holder:
        configure_session(holder)
        start = asker.execute("select pg_current_wal_insert_lsn()::text").fetchone()
        assert start is not None
        with writing(source):
            for _ in range(5):
                with standing_still(asker, holder, source, looking=looking) as lsn:
                    seen.append((position(lsn), {xid for (xid,) in holder.execute("select xid from public.b")}))
        written = {xid for (xid,) in holder.execute("select xid from public.b")}
        asker.execute("select pg_logical_emit_message(true, 'test', '')")

    found, _ = commits(server_home.data_dir / "pg_wal", start[0])
    for before, xids in seen:
        assert xids == written & {commit.xid for commit in found if commit.lsn < before}


def test_a_transaction_that_does_not_end_is_named(source: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("b44_assets.backup.consistent_snapshot._TRYING_SECONDS", 0.5)
    with (
        psycopg.connect(source) as writer,
        connect(source, autocommit=True) as asker,
        connect(source, autocommit=True) as holder,
    ):
        writer.execute("create table open as select 1 as n")
        writer.commit()
        writer.execute("insert into open values (2)")
        configure_session(holder)

        with (
            pytest.raises(BackupError, match=rf"a transaction open since .* \(process {writer.info.backend_pid}\)"),
            standing_still(asker, holder, source, looking=0.1),
        ):
            pass


def test_a_writer_that_wants_what_we_have_and_has_what_we_want_goes_on(source: str) -> None:
    """Neither it nor the backup is ended by the server as part of a deadlock."""
    with (
        psycopg.connect(source) as writer,
        connect(source, autocommit=True) as asker,
        connect(source, autocommit=True) as holder,
        connect(source, autocommit=True) as watcher,
    ):
        writer.execute("create table t0 (n int)")
        writer.execute("create table t1 (n int)")
        writer.commit()
        writer.execute("insert into t1 values (1)")
        faults: list[BaseException] = []

        def write() -> None:
            waiting = "select from pg_locks where not granted and relation = 't1'::regclass and mode = 'ShareLock'"
            try:
                while not watcher.execute(waiting).fetchall():
                    time.sleep(0.002)
                writer.execute("insert into t0 values (1)")
                writer.commit()
            except BaseException as error:
                faults.append(error)

        configure_session(holder)
        thread = threading.Thread(target=write)
        thread.start()
        with standing_still(asker, holder, source, looking=0.0):
            thread.join()
            found = holder.execute(
                "select (select count(*) from public.t0), (select count(*) from public.t1)"
            ).fetchone()

    assert (faults, found) == ([], (1, 1))


# -- what cannot be taken ----------------------------------------------------------------------------------------------


def test_a_role_without_replication_takes_logical_backups_and_is_told_so_about_the_rest(
    source: str, catalogue: Catalogue
) -> None:
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("drop role if exists managed")
        conn.execute("create role managed login")
        conn.execute(
            "grant all on schema public to managed; create table hers as select 1 as n; alter table hers owner to managed"
        )
    url = source.replace("postgres@", "managed@")

    assert take(BackupKind.LOGICAL, url, catalogue) in catalogue.backups()
    for kind in PHYSICAL:
        with pytest.raises(
            BackupError,
            match=r"'managed' may not take base .* ALTER ROLE .managed. REPLICATION.*; logical backups work$",
        ):
            take(kind, url, catalogue)


def test_a_base_backup_does_not_wait_for_an_idle_server_to_write(
    source: str, catalogue: Catalogue, monkeypatch: pytest.MonkeyPatch
) -> None:
    written = []

    def receiving(*_: object) -> None:
        with connect(source) as conn:
            written.extend(conn.execute("select pg_current_wal_flush_lsn() - '0/0'").fetchone() or ())
        raise BackupError("that will do")

    monkeypatch.setattr(taking, "receiving", receiving)
    with connect(source, autocommit=True) as conn:
        conn.execute("create table what_is_in_the_segment (); drop table what_is_in_the_segment")
        conn.execute("select pg_switch_wal()")
    with pytest.raises(BackupError, match="that will do"):
        take(BackupKind.BASE, source, catalogue)

    assert written[0] % (16 * 1024**2) > 0


def test_an_incremental_backup_needs_a_verified_one_to_stand_on(source: str, catalogue: Catalogue) -> None:
    with pytest.raises(BackupError, match=r"has none: take a base backup$"):
        take(BackupKind.INCREMENTAL, source, catalogue)

    assert catalogue.listing().backups == ()


def test_a_cluster_with_tablespaces_is_refused(source: str, catalogue: Catalogue, server_home: EmbeddedServer) -> None:
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("set allow_in_place_tablespaces = on")
        conn.execute("create tablespace apart location ''")
        try:
            with pytest.raises(BackupError, match=r"tablespaces of its own are not supported \(apart\)"):
                take(BackupKind.BASE, source, catalogue)
        finally:
            conn.execute("drop tablespace apart")


def test_a_standby_or_wrong_password_gives_one_line_without_the_password(source: str, catalogue: Catalogue) -> None:
    with pytest.raises(BackupError, match="an sslpassword") as caught:
        take(BackupKind.LOGICAL, source + "&sslpassword=topsecret", catalogue)

    assert "topsecret" not in str(caught.value)


def test_what_the_program_says_is_passed_on_and_nothing_counts(
    source: str, catalogue: Catalogue, tmp_path: Path
) -> None:
    with psycopg.connect(source, autocommit=True) as conn:
        conn.execute("create table t as select 1 as n")

    class Failing(Exception):
        pass

    def fail(_: int) -> None:
        raise Failing

    for kind in (BackupKind.LOGICAL, BackupKind.BASE):
        with pytest.raises(Failing):
            take(kind, source, catalogue, fail)

    listing = catalogue.listing()
    assert listing.backups == ()
    assert [attempt.size for attempt in listing.attempts] == [0, 0]
    assert waiting_slots(source) == 0


def waiting_slots(url: str) -> int:
    """How many replication slots are left, once the server has ended the sessions whose clients are gone.

    One that a client asked for just before it was ended may be made, and goes with its session, after the others have gone.
    """
    left = (
        "select (select count(*) from pg_replication_slots),"
        " (select count(*) from pg_stat_activity where backend_type = 'walsender')"
    )
    with psycopg.connect(url, autocommit=True) as conn:
        row = conn.execute(left).fetchone()
        for _ in range(300):
            if row == (0, 0):
                break
            time.sleep(0.1)
            row = conn.execute(left).fetchone()
    assert row is not None
    return row[0]


# -- death -------------------------------------------------------------------------------------------------------------

DYING = """
import os, signal, sys
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.lsn import position
from b44_assets.backup.model import BackupKind
from b44_assets.backup.store import Store
from b44_assets.backup.taking import take
url, place, kind = sys.argv[1:]
take(BackupKind(kind), url, Catalogue(Store.at(place)), lambda read: os.kill(os.getpid(), signal.SIGKILL))
"""


@pytest.mark.parametrize("kind", WHOLE)
def test_a_killed_backup_counts_for_nothing_and_hinders_nobody(
    source: str, catalogue: Catalogue, kind: BackupKind, tmp_path: Path
) -> None:
    fill(source)
    if kind is BackupKind.INCREMENTAL:
        catalogue.record_verification(take(BackupKind.BASE, source, catalogue), Verification(datetime.now(UTC), 0))
    before = catalogue.listing().backups

    command = [sys.executable, "-c", DYING, source, str(tmp_path / "store"), kind]
    died = subprocess.run(command, env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])}, check=False)

    assert died.returncode == -signal.SIGKILL
    listing = catalogue.listing()
    assert listing.backups == before
    assert [attempt.kind for attempt in listing.attempts] == [kind]
    assert listing.faults == ()
    later = datetime.now(UTC) + LONGEST_BACKUP + timedelta(minutes=1)
    told = nothing_failed(listing.backups, listing.attempts, later, LONGEST_BACKUP)
    assert (told.ok, listing.attempts[0].id in told.lines[0]) == (False, True)
    assert take(kind, source, catalogue) in catalogue.backups()
    assert nothing_failed(catalogue.backups(), catalogue.listing().attempts, later, LONGEST_BACKUP).ok
    assert waiting_slots(source) == 0
