from __future__ import annotations

import io
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.lsn import position
from b44_assets.backup.manifest import MANIFEST, manifest_faults, wal_range
from b44_assets.backup.model import BackupKind
from b44_assets.backup.recovery import unpack_tar
from b44_assets.backup.scratch import scratch
from b44_assets.backup.store import Store
from b44_assets.backup.taking import ManifestTap, take
from b44_assets.backup.tools import Login, complaint, server_programs
from b44_assets.errors import BackupError
from b44_assets.postgres.clients import available
from tests.helpers.disks import small

REPOSITORY = Path(__file__).parents[2]


# -- folders -----------------------------------------------------------------------------------------------------------

SERVING = """
import sys, time
from b44_assets.backup.scratch import initialize, scratch, serving
from b44_assets.backup.tools import server_programs
with scratch() as place:
    programs = server_programs(18, None, place.account)
    initialize(place, place.folder / "data", programs)
    with serving(place, place.folder / "data", programs, superuser="b44_scratch") as server:
        pid = (server.data_dir / "postmaster.pid").read_text().split()[0]
        print(place.folder, pid, flush=True)
        time.sleep(600)
"""


def running() -> tuple[subprocess.Popen[str], Path, int]:
    """Another process that has a scratch server; its folder, and the server's number."""
    process = subprocess.Popen(
        [sys.executable, "-c", SERVING],
        env={**os.environ, "PYTHONPATH": str(REPOSITORY)},
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    assert process.stdout is not None
    with process.stdout as said:
        folder, pid = said.readline().split()
    return process, Path(folder), int(pid)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


@pytest.fixture
def own_tmpdir(monkeypatch: pytest.MonkeyPatch) -> Generator[None]:
    """A TMPDIR of the test's own: of one for all workers, whoever makes a scratch folder meanwhile removes what is left."""
    folder = Path(tempfile.mkdtemp(prefix="b44-"))
    folder.chmod(0o1777)
    monkeypatch.setenv("TMPDIR", str(folder))
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    yield
    shutil.rmtree(folder)


@pytest.mark.usefixtures("own_tmpdir")
def test_what_a_killed_process_left_is_removed_by_the_next_and_what_is_in_use_is_not() -> None:
    killed, left, orphan = running()
    other, used, working = running()
    try:
        killed.kill()
        killed.wait()
        assert left.exists()
        assert alive(orphan)

        with scratch() as place:
            assert not left.exists()
            assert not alive(orphan)
            assert used.exists()
            assert alive(working)
            assert place.folder.stat().st_mode & 0o077 == 0
        assert not place.folder.exists()
    finally:
        # As Ctrl-C does.
        other.send_signal(signal.SIGINT)
        other.wait()
    assert not used.exists()
    assert not alive(working)


@pytest.mark.usefixtures("own_tmpdir")
def test_what_was_half_removed_is_removed_by_the_next() -> None:
    half = Path(tempfile.mkdtemp(prefix="b44-scratch-"))
    (half / "data").mkdir()

    with scratch():
        assert not half.exists()


def test_a_path_too_long_for_a_socket_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    long = tmp_path / ("x" * 100)
    long.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(long))

    with (
        pytest.raises(BackupError, match=r"^TMPDIR is too long for the path of a socket, \d+ bytes at most: "),
        scratch(),
    ):
        pass


# -- a store that is full ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [BackupKind.LOGICAL, BackupKind.BASE])
def test_a_full_store_is_one_line_and_leaves_older_backups_alone(source: str, tmp_path: Path, kind: BackupKind) -> None:
    with small(tmp_path / "small") as disk:
        catalogue = Catalogue(Store.at(str(disk / "store")))
        older = take(BackupKind.LOGICAL, source, catalogue)
        (disk / "filling").write_bytes(bytes(os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize - 64 * 1024))
        if kind is BackupKind.LOGICAL:
            _fill(source)

        with pytest.raises(BackupError, match="No space left on device") as caught:
            take(kind, source, catalogue)

        assert "\n" not in str(caught.value)
        assert catalogue.listing().backups == (older,)
        assert catalogue.examine(older) == []
        assert catalogue.listing().faults == ()


def _fill(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "create table random as select md5(i::text) || md5(random()::text) as t from generate_series(1, 20000) i"
        )


# -- manifests ---------------------------------------------------------------------------------------------------------


@given(
    files=st.lists(st.tuples(st.sampled_from(["a", "global/b", "c" * 90]), st.binary(max_size=3000)), max_size=5),
    manifest=st.binary(max_size=3000),
    sizes=st.lists(st.integers(1, 4000), min_size=1),
)
def test_the_manifest_is_found_in_the_tar_however_it_comes_in_pieces(
    files: list[tuple[str, bytes]], manifest: bytes, sizes: list[int]
) -> None:
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w", format=tarfile.USTAR_FORMAT) as tar:
        for name, content in [*files, (MANIFEST, manifest)]:
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    tap = ManifestTap(io.BytesIO(whole.getvalue()))
    passed, number = b"", 0
    while piece := tap.read(sizes[number % len(sizes)]):
        passed += piece
        number += 1

    assert passed == whole.getvalue()
    assert tap.manifest == manifest


def test_a_manifest_that_broke_off_is_none() -> None:
    with pytest.raises(BackupError, match="gave no manifest"):
        wal_range(b'{"WAL-Ranges": [{"Timeline": 1, "Start-LSN": "0/1", "End-LSN": "0/2"}]}')


def test_what_the_manifest_says_is_looked_for(source: str, tmp_path: Path) -> None:
    catalogue = Catalogue(Store.at(str(tmp_path / "store")))
    backup = take(BackupKind.BASE, source, catalogue)
    catalogue.fetch(backup, catalogue.file_of(backup, "base.tar"), tmp_path / "base.tar")
    data = tmp_path / "data"
    with tarfile.open(tmp_path / "base.tar") as tar:
        unpack_tar(tar, data)
    assert manifest_faults(data) == []
    assert position(wal_range((data / MANIFEST).read_bytes())[1]) == position(backup.start_lsn or "")

    (data / "PG_VERSION").unlink()
    (data / "new").write_text("")
    with (data / "global" / "pg_control").open("ab") as file:
        file.write(b"x")

    assert manifest_faults(data) == [
        "PG_VERSION is missing",
        "global/pg_control has 8193 bytes instead of 8192",
        "new is not in the manifest",
    ]


# -- archives ----------------------------------------------------------------------------------------------------------


@pytest.fixture(params=["with filters", "as before Python 3.11.4"])
def any_python(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    if request.param != "with filters":
        monkeypatch.delattr(tarfile, "data_filter", raising=False)


def archive_of(*members: tuple[tarfile.TarInfo, bytes]) -> tarfile.TarFile:
    """An archive that is read from its beginning to its end, as from a pipe."""
    whole = io.BytesIO()
    with tarfile.open(fileobj=whole, mode="w") as tar:
        for member, content in members:
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return tarfile.open(fileobj=io.BytesIO(whole.getvalue()), mode="r|")


def member_of(name: str, kind: bytes = tarfile.REGTYPE, **given: object) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    for attribute, value in given.items():
        setattr(member, attribute, value)
    return member


@pytest.mark.usefixtures("any_python")
def test_an_archive_is_unpacked_as_ourselves(tmp_path: Path) -> None:
    folder = member_of("global", tarfile.DIRTYPE, mode=0o700, uid=1234, gid=1234)
    file = member_of("global/pg_control", mode=0o4600, uid=1234, gid=1234)
    with archive_of((folder, b""), (file, b"control")) as tar:
        unpack_tar(tar, tmp_path)
    unpacked = tmp_path / "global" / "pg_control"
    assert unpacked.read_bytes() == b"control"
    assert {(path.stat().st_uid, path.stat().st_gid) for path in (unpacked, unpacked.parent)} == {
        (os.geteuid(), os.getegid())
    }
    assert unpacked.stat().st_mode & 0o7777 == 0o600


@pytest.mark.usefixtures("any_python")
@pytest.mark.parametrize(
    "hostile",
    [
        member_of("../outside"),
        member_of("link", tarfile.SYMTYPE, linkname="/etc"),
        member_of("link", tarfile.SYMTYPE, linkname="../outside"),
        member_of("device", tarfile.CHRTYPE),
    ],
    ids=["above", "a link to another place", "a link above", "a device"],
)
def test_an_archive_reaches_nothing_outside_of_its_folder(tmp_path: Path, hostile: tarfile.TarInfo) -> None:
    folder = tmp_path / "folder"
    with pytest.raises(tarfile.TarError), archive_of((hostile, b"")) as tar:
        unpack_tar(tar, folder)
    assert [path for path in tmp_path.rglob("*") if path != folder] == []


# -- programs ----------------------------------------------------------------------------------------------------------


def test_a_password_is_on_no_command_line() -> None:
    login = Login.by("postgresql://app:topsecret@db.example:5432/shop?sslmode=require", available()[0])

    assert "topsecret" not in login.conninfo
    assert "sslmode=require" in login.conninfo
    assert login.environment["PGPASSWORD"] == "topsecret"


def test_our_own_secrets_do_not_reach_other_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("B44_BACKUP_KEY", "AGE-SECRET-KEY-1")

    assert not any(name.startswith("B44_") for name in Login.by("postgresql:///x", available()[0]).environment)


def test_missing_programs_are_told_with_where_to_get_them() -> None:
    with pytest.raises(BackupError, match=r"programs of PostgreSQL 16, .*: install postgresql-16, or set B44_PG_BIN"):
        server_programs(16)


@pytest.mark.parametrize(
    ("said", "line"),
    [
        (
            "pg_dump: error: query failed: ERROR:  permission denied for table t\npg_dump: detail: Query was: LOCK",
            "permission denied for table t (Query was: LOCK)",
        ),
        ("LOG: x\nFATAL:  recovery ended\nLOG: y", "recovery ended"),
        ("", "no reason was given"),
    ],
)
def test_the_reason_is_one_line(said: str, line: str) -> None:
    assert complaint(said) == line
