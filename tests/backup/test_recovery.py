"""Recovery: to a point in time under load, from a damaged store, into a home of its own."""

from __future__ import annotations

import os
import random
import shutil
import tempfile
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup import wal_archive as archive
from b44_assets.backup import wal_spool
from b44_assets.backup.archive_settings import archiving
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.drill import drill, history
from b44_assets.backup.encryption import Key
from b44_assets.backup.figures import CHECKS, read_backups
from b44_assets.backup.health import Health
from b44_assets.backup.lsn import lsn, position
from b44_assets.backup.model import Backup, BackupKind, Verification
from b44_assets.backup.recovery import PastEndError, RecoveryTarget, choose, recovering, restore_physical
from b44_assets.backup.restoring import restore_logical
from b44_assets.backup.scratch import scratch
from b44_assets.backup.service import (
    BackupContext,
    Survey,
    look_at_archiving,
    newest_is_good,
    nothing_is_broken,
    ship_wal,
    survey,
    wal_is_whole,
)
from b44_assets.backup.store import Store
from b44_assets.backup.taking import take
from b44_assets.backup.verification import verify
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error, BackupError, BadBackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.loading import Commit, clear, commits, writing
from tests.helpers.making import WHOLE
from tests.helpers.waiting import eventually

KEY = Key.generate()
OTHER = Key.generate()


@dataclass(frozen=True)
class Past:
    """A cluster's past, as its store has it, and what truly happened.

    Attributes:
        catalogue: With one backup of each kind, and the archive of the WAL.
        backups: By kind.
        commits: All since the writers have begun, in the order of the WAL.
        points: Where the restore points are.
        written: The numbers of all transactions of the writers that have committed.
        end: Where the archive ends.
    """

    catalogue: Catalogue
    backups: dict[BackupKind, Backup]
    commits: list[Commit]
    points: dict[str, int]
    written: set[int]
    end: str

    def expected(self, target: RecoveryTarget) -> set[int]:
        """The numbers of the writers' transactions that a recovery to the target has to give."""
        kept: set[int] = set()
        for commit in self.commits:
            if target.time is not None and commit.at > target.time:
                break
            if target.name is not None and commit.lsn > self.points[target.name]:
                break
            if target.lsn is not None and commit.lsn >= position(target.lsn) + target.inclusive:
                break
            kept.add(commit.xid)
        return self.written & kept


@pytest.fixture(scope="module")
def past(server_home: EmbeddedServer, tmp_path_factory: pytest.TempPathFactory) -> Past:
    folder = tmp_path_factory.mktemp("past")
    catalogue = Catalogue(Store.at(str(folder / "store")), KEY)
    url = server_home.url()
    clear(url)
    with connect(url, autocommit=True) as conn:
        start = one(conn, "select pg_walfile_name(pg_switch_wal())") and one(
            conn, "select pg_current_wal_insert_lsn()::text"
        )
        with writing(url):
            # As if verified; others see to it that this would come out so.
            backups = {
                kind: catalogue.record_verification(take(kind, url, catalogue), Verification(datetime.now(UTC), 0))
                for kind in (BackupKind.BASE, BackupKind.INCREMENTAL, BackupKind.LOGICAL)
            }
            for number in range(6):
                time.sleep(0.2)
                conn.execute("select pg_create_restore_point(%s)", (f"point_{number}",))
                if number % 2:
                    conn.execute("select pg_switch_wal()")
        end = one(conn, "select pg_current_wal_insert_lsn()::text")
        written = {int(str(xid)) for (xid,) in conn.execute("select xid from b")}
        last = one(conn, "select pg_walfile_name(pg_switch_wal())")
    system = backups[BackupKind.BASE].system
    shipped: set[str] = set()
    while last not in shipped:
        wal_spool.ship(server_home.spool, catalogue, system)
        shipped = {file.name for file in archive.wal_files(catalogue.store, system)}
        time.sleep(0.05)
    wal = folder / "wal"
    wal.mkdir()
    archive.fetch(catalogue, system, wal, start, 1, 16 * 1024**2)
    found, points = commits(wal, start, end)
    return Past(catalogue, backups, found, points, written, end)


def one(conn: psycopg.Connection[tuple[object, ...]], query: str) -> str:
    row = conn.execute(query.encode()).fetchone()
    assert row is not None
    return str(row[0])


def recovered(past: Past, target: RecoveryTarget) -> tuple[set[int], set[int]]:
    """The numbers of the transactions in both tables, after a recovery to the target."""
    with scratch() as place:
        backup = choose(past.catalogue.backups(), target)[-1]
        with (
            recovering(past.catalogue, backup, place.folder / "data", place, target) as (server, _),
            connect(server.url("b44"), autocommit=True) as conn,
        ):
            return (
                {int(str(xid)) for (xid,) in conn.execute("select xid from a")},
                {int(str(xid)) for (xid,) in conn.execute("select xid from b")},
            )


def targets(past: Past, seed: int, count: int) -> list[RecoveryTarget]:
    """Random ones after the newest backup, of each sort in turn."""
    chance = random.Random(seed)
    since = position(past.backups[BackupKind.INCREMENTAL].state.lsn or "")
    later = [c for c in past.commits if c.lsn > since and c.at > past.backups[BackupKind.LOGICAL].ended_at][:-1]
    made: list[RecoveryTarget] = []
    for number in range(count):
        commit = chance.choice(later)
        made.append(
            (
                RecoveryTarget(time=commit.at + timedelta(microseconds=chance.choice((-1, 0, 1)))),
                RecoveryTarget(lsn=lsn(commit.lsn), inclusive=chance.random() < 0.5),
                RecoveryTarget(name=chance.choice(sorted(past.points))),
            )[number % 3]
        )
    return made


@pytest.mark.parametrize(
    ("seed", "count"), [(1, 4), pytest.param(2, 20, marks=pytest.mark.slow)], ids=["four", "twenty"]
)
def test_any_target_gives_exactly_the_transactions_committed_before_it(past: Past, seed: int, count: int) -> None:
    for target in targets(past, seed, count):
        in_a, in_b = recovered(past, target)

        assert in_a == in_b == past.expected(target), str(target)


# -- into a home -------------------------------------------------------------------------------------------------------


def test_a_cluster_is_restored_into_a_home_that_starts_and_archives_nowhere(past: Past, open_folder: Path) -> None:
    home = open_folder / "restored"

    restored = restore_physical(past.catalogue, home)

    assert position(restored.recovered.lsn) >= position(past.end)
    assert (restored.recovered.timeline, restored.recovered.backup) == (2, past.backups[BackupKind.INCREMENTAL].id)
    assert sorted(path.name for path in restored.data_dir.parent.iterdir()) == ["data"]
    server = EmbeddedServer(home)
    try:
        server.start()
        with connect(server.url(), autocommit=True) as conn:
            assert {int(str(xid)) for (xid,) in conn.execute("select xid from a")} == past.written
            assert one(conn, "show archive_command") == "/bin/true"
            assert one(conn, "show recovery_target_timeline") == "latest"
            assert one(conn, "show restore_command") == ""
    finally:
        server.stop("immediate")


def test_nothing_is_restored_over_anything(past: Past, server_home: EmbeddedServer, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")

    for folder in (tmp_path, server_home.home):
        with pytest.raises(BackupError, match=r"is not empty: restore into a new folder$"):
            restore_physical(past.catalogue, folder)
    with pytest.raises(BackupError, match=r"into database 'b44': it has the table public\.\w+ already"):
        restore_logical(past.catalogue, past.backups[BackupKind.LOGICAL], server_home.url())

    assert (tmp_path / "file").read_text() == "mine"


def test_a_logical_backup_is_restored_into_an_empty_database(past: Past, embedded_database: str) -> None:
    backup = past.backups[BackupKind.LOGICAL]

    restore_logical(past.catalogue, backup, embedded_database)

    with connect(embedded_database) as conn:
        assert int(one(conn, "select count(*) from public.a")) == backup.state.tables["public.a"].rows


# -- targets that cannot be reached ------------------------------------------------------------------------------------


def test_a_target_outside_of_what_is_stored_is_named(past: Past, tmp_path: Path) -> None:
    base = past.backups[BackupKind.BASE]
    cases = {
        RecoveryTarget(
            time=base.began_at - timedelta(days=1)
        ): rf"is before the oldest good base backup, {base.id}, which allows",
        RecoveryTarget(lsn="0/1000000"): rf"^LSN 0/1000000 is before the oldest good base backup, {base.id}",
        RecoveryTarget(
            lsn="F/0"
        ): r"^LSN F/0 is beyond what there is WAL for: it ends at LSN 0/\w+ \(the archive ends there\)$",
        RecoveryTarget(
            time=datetime.now(UTC) + timedelta(days=1)
        ): r"UTC is beyond what there is WAL for: .*its last transaction",
    }

    for target, line in cases.items():
        with pytest.raises(BackupError, match=line):
            restore_physical(past.catalogue, tmp_path / "new", target, backup=base if "is beyond" in line else None)

    assert not (tmp_path / "new").exists()


def test_a_target_says_one_thing() -> None:
    for wrong in ({"lsn": "0/1", "name": "x"}, {"lsn": "1234"}, {"time": datetime(2026, 1, 1)}):
        with pytest.raises(BackupError):
            RecoveryTarget(**wrong)  # pyright: ignore[reportArgumentType]


@pytest.fixture
def copy(past: Past, tmp_path: Path) -> Catalogue:
    """Its store, to be damaged."""
    shutil.copytree(past.catalogue.store.location, tmp_path / "copy")
    return Catalogue(Store.at(str(tmp_path / "copy")), KEY)


@pytest.fixture
def store(copy: Catalogue, server_home: EmbeddedServer) -> BackupContext:
    """The same, as the checks look at it."""
    return BackupContext(Settings.load({"B44_HOME": str(server_home.home)}, server_home.home), copy)


def broken(store: BackupContext, look: Callable[[BackupContext, Survey], Mapping[str, Health]]) -> dict[str, str]:
    """The checks that fail, with what they say."""
    return {name: "; ".join(health.lines) for name, health in look(store, survey(store)).items() if not health.ok}


def of_catalogue(_: BackupContext, found: Survey) -> dict[str, Health]:
    newest = {f"newest {kind}": newest_is_good(found, kind, timedelta(days=1)) for kind in WHOLE}
    return nothing_is_broken(found) | newest


def test_a_missing_segment_is_named(past: Past, copy: Catalogue, store: BackupContext, tmp_path: Path) -> None:
    assert broken(store, wal_is_whole) == {}
    files = archive.wal_files(copy.store, past.backups[BackupKind.BASE].system)
    since = position(past.backups[BackupKind.INCREMENTAL].state.lsn or "") // (16 * 1024**2)
    missing = next(file for file in files if len(file.name) == 24 and int(file.name[16:], 16) == since + 1)
    copy.store.remove(missing.path)

    found = broken(store, wal_is_whole)
    assert (found.keys(), missing.name in found["no_gap"]) == ({"no_gap"}, True)
    with pytest.raises(BadBackupError, match=f"WAL segment {missing.name} is missing from the archive"):
        restore_physical(copy, tmp_path / "new", backup=past.backups[BackupKind.BASE])
    with pytest.raises(PastEndError, match=f"WAL segment {missing.name} is missing from the archive"):
        restore_physical(copy, tmp_path / "new", RecoveryTarget(time=past.commits[-2].at))


def damage(path: Path, how: str) -> None:
    if how == "missing":
        path.unlink()
    elif how == "truncated":
        path.write_bytes(path.read_bytes()[:-1])
    else:
        data = bytearray(path.read_bytes())
        data[len(data) // 2] ^= 1
        path.write_bytes(data)


@pytest.mark.parametrize("how", ["missing", "truncated", "damaged"])
@pytest.mark.parametrize("kind", WHOLE)
def test_damage_to_each_file_is_found_and_named(
    past: Past, copy: Catalogue, store: BackupContext, kind: BackupKind, how: str
) -> None:
    backup = past.backups[kind]
    assert broken(store, of_catalogue) == {}
    for file in backup.files:
        path = Path(copy.store.location) / "backups" / backup.id / file.name
        whole = path.read_bytes()
        damage(path, how)

        found = verify(copy, backup)

        assert found.verification is not None
        assert len(found.verification.differences) == 1
        assert found.verification.differences[0].startswith(f"{backup.id}/{file.name}")
        assert how in found.verification.differences[0]
        checks = broken(store, of_catalogue)
        assert {"backups_verified", f"newest {kind}"} <= checks.keys()
        assert backup.id in checks["backups_verified"]
        path.write_bytes(whole)


def test_a_missing_link_of_a_chain_is_named(past: Past, copy: Catalogue, store: BackupContext, tmp_path: Path) -> None:
    base, last = past.backups[BackupKind.BASE], past.backups[BackupKind.INCREMENTAL]
    (Path(copy.store.location) / "backups" / base.id / "backup.json").unlink()

    assert base.id in broken(store, of_catalogue)["chains_whole"]
    found = verify(copy, last)

    assert found.verification is not None
    assert found.verification.differences == (
        f"the chain of {last.id} is broken at {last.id}: its parent {base.id} is missing",
    )
    with pytest.raises(BackupError, match=f"its parent {base.id} is missing"):
        restore_physical(copy, tmp_path / "new", backup=last)


@pytest.mark.parametrize("key", [None, OTHER], ids=["no key", "another key"])
@pytest.mark.parametrize("kind", WHOLE)
def test_without_the_key_a_backup_cannot_be_verified_and_says_so(past: Past, kind: BackupKind, key: Key | None) -> None:
    backup = past.backups[kind]

    with pytest.raises(BackupError, match="key") as caught:
        verify(replace(past.catalogue, key=key), backup)

    assert not isinstance(caught.value, BadBackupError)
    assert past.catalogue.find(backup.id).good


def test_a_source_that_held_something_else_is_named(past: Past, copy: Catalogue) -> None:
    """As if the backup were not of what it claims to be."""
    backup = past.backups[BackupKind.BASE]
    tables = {**backup.state.tables, "public.a": replace(backup.state.tables["public.a"], rows=1)}

    found = verify(copy, replace(backup, state=replace(backup.state, tables=tables)))

    assert found.verification is not None
    assert found.verification.differences == (f"public.a: {backup.state.tables['public.a'].rows} rows rather than 1",)


# -- drills and archiving ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loses", [True, pytest.param(False, marks=pytest.mark.slow)], ids=["something is lost", "nothing is lost"]
)
def test_a_drill_measures_what_would_be_lost_and_keeps_it(
    past: Past, copy: Catalogue, store: BackupContext, server_home: EmbeddedServer, loses: bool
) -> None:
    assert failing(store) == {"recovery_rehearsed"}
    system = past.backups[BackupKind.BASE].system
    with connect(server_home.url(), autocommit=True) as conn:
        conn.execute("select pg_logical_emit_message(true, 'test', '')")
        segment = one(conn, "select pg_walfile_name(pg_switch_wal())")
        while segment not in {file.name for file in archive.wal_files(copy.store, system)}:
            wal_spool.ship(server_home.spool, copy, system)
            time.sleep(0.05)
        if loses:
            conn.execute("create table lost as select 1 as n")

    found = drill(copy, server_home.url())

    assert found.recovered_to >= past.commits[-1].at
    assert found.rto_seconds > 0
    assert found.rows >= 2 * len(past.written)
    assert (found.lost_transactions, found.rpo_seconds > 0) == (int(loses), loses)
    assert history(copy) == [found]
    assert failing(store) == set()
    strict = "backup_age=0s,drill_age=0s,recovery_time=0s,recovery_point=0s"
    assert failing(store, strict) == {
        "backup_new_enough",
        "recovery_rehearsed",
        "recovery_time",
        *(["recovery_point"] if loses else []),
    }
    shutil.rmtree(Path(copy.store.location) / "backups")
    assert failing(store) == {"backup_new_enough"}


def failing(store: BackupContext, thresholds: str = "") -> set[str]:
    """The checks of the figures that fail."""
    settings = Settings.load({"B44_THRESHOLDS": thresholds} if thresholds else {}, Path("/nonexistent"))
    reading = read_backups(store)
    return {check.name for check in CHECKS if not check.judge(reading, settings).passed}


def test_archiving_tells_how_it_is(server_home: EmbeddedServer, catalogue: Catalogue) -> None:
    with connect(server_home.url(), autocommit=True) as conn:
        conn.execute("select pg_logical_emit_message(true, 'test', '')")
        segment = one(conn, "select pg_walfile_name(pg_switch_wal())")
        while one(conn, "select last_archived_wal from pg_stat_archiver") != segment:
            time.sleep(0.02)

        state = archiving(conn, server_home.spool, catalogue.store, "7")
        nowhere = archiving(conn, None, catalogue.store, "7")

    assert (state.works, state.faults) == (True, ())
    assert state.explanation.startswith(f"archiving of WAL works: {segment}")
    assert not nowhere.works
    assert "its archive_command puts it elsewhere" in nowhere.explanation


def test_wal_that_is_not_archived_or_not_taken_to_the_store_is_told_until_it_is(
    server_home: EmbeddedServer, catalogue: Catalogue
) -> None:
    context = BackupContext(Settings.load({"B44_HOME": str(server_home.home)}, server_home.home), catalogue)
    # Whatever others have left there.
    ship_wal(context)
    with connect(server_home.url(), autocommit=True) as conn:

        def finish_segment() -> str:
            conn.execute("select pg_logical_emit_message(true, 'test', '')")
            return one(conn, "select pg_walfile_name(pg_switch_wal())")

        def archives_by(command: str | None) -> None:
            conn.execute("alter system reset archive_command")
            if command is not None:
                conn.execute(sql.SQL("alter system set archive_command = {}").format(sql.Literal(command)))
            conn.execute("select pg_reload_conf()")

        failed = int(one(conn, "select failed_count from pg_stat_archiver"))
        archives_by("/bin/false")
        try:
            segment = finish_segment()
            eventually(lambda: int(one(conn, "select failed_count from pg_stat_archiver")) > failed)
            refused = look_at_archiving(context)
        finally:
            archives_by(None)
        assert (refused.works, segment in refused.explanation) == (False, True)
        eventually(lambda: one(conn, "select last_archived_wal from pg_stat_archiver") == segment)
        assert look_at_archiving(context).works

    assert "keeps_up" not in broken(context, wal_is_whole)
    long_ago = time.time() - 3600
    os.utime(server_home.spool / segment, (long_ago, long_ago))
    assert "1 WAL file waits" in broken(context, wal_is_whole)["keeps_up"]
    ship_wal(context)
    assert "keeps_up" not in broken(context, wal_is_whole)


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that every account can pass through."""
    folder = Path(tempfile.mkdtemp(prefix="b44-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def test_every_complaint_is_one_line() -> None:
    assert issubclass(BadBackupError, B44Error)
    assert (BackupError.exit_status, BadBackupError.exit_status) == (2, 1)
