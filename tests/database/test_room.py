"""Where the server or this machine has run out of something: one line says of what, where, and what to do."""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path
from types import SimpleNamespace

import psycopg
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from psycopg import sql

from b44_assets.catalog import Catalog
from b44_assets.cli import main, migration
from b44_assets.errors import DatabaseError, ExhaustedError, FullDiskError, free_at, said_with_remedy, why
from b44_assets.migration.disk_room import lacking_room
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.session import Session, explained
from tests.helpers import disks

ROOM = 4_000_000 + 64 * 2**20
"""What the migration of 1,000,000 bytes may take."""
AGAIN = "run the same command again: it goes on where it stopped"


@pytest.fixture
def open_folder() -> Generator[Path]:
    """A folder that every account can pass through; those of pytest are closed."""
    folder = Path(tempfile.mkdtemp(prefix="b44-test-"))
    folder.chmod(0o755)
    yield folder
    shutil.rmtree(folder)


def fault_of(url: str, catalog: Catalog, statement: sql.SQL | sql.Composed) -> DatabaseError:
    """What is said of a statement that fails."""
    with pytest.raises(DatabaseError) as caught, Session(url, catalog).connection("load posts") as conn:
        conn.execute(statement)
    assert "\n" not in str(caught.value)
    return caught.value


def raising(code: str, message: str, hint: str = "") -> sql.Composed:
    """As the server raises it, whose disks and memory are not to be used up."""
    block = sql.SQL("begin raise exception using errcode = {}, message = {}, hint = {}; end").format(
        sql.Literal(code), sql.Literal(message), sql.Literal(hint)
    )
    return sql.SQL("do {}").format(sql.Literal(block.as_string()))


FULL = 'could not extend file "{}": No space left on device'


@pytest.mark.parametrize(
    ("code", "message", "hint", "helps"),
    [
        ("53100", FULL.format("base/5/16409"), "Check free disk space.", "make room on the disk of the server's data"),
        ("53100", FULL.format("global/1262"), "", "make room on the disk of the server's data directory"),
        ("53100", FULL.format("pg_wal/xlogtemp.44"), "", "make room on the disk of the server's WAL (pg_wal)"),
        ("53100", FULL.format("base/pgsql_tmp/pgsql_tmp1.0"), "", "temporary files (base/pgsql_tmp)"),
        (
            "53100",
            FULL.format("pg_tblspc/16500/PG_18_202506291/5/1"),
            "",
            "a tablespace of the server (pg_tblspc/16500)",
        ),
        (
            "53100",
            FULL.format("pg_tblspc/16500/PG_18_202506291/pgsql_tmp/pgsql_tmp9.1"),
            "",
            "temporary files (pg_tblspc/16500",
        ),
        ("53100", "kein Platz", "", "make room on the disk of the server's data directory"),
        (
            "XX000",
            'could not extend file "base/5/1": Disk quota exceeded',
            "",
            "make room on the disk of the server's data",
        ),
        ("53200", "out of memory", "", "give the server more memory"),
        (
            "53200",
            "out of shared memory",
            'You might need to increase "max_locks_per_transaction".',
            "raise max_locks_per",
        ),
        ("53400", "temporary file size exceeds temp_file_limit (64kB)", "", "temp_file_limit"),
        ("53000", "out of file descriptors", "Close some files.", "close some files"),
        ("58030", "could not read block 7", "", "see the server's log"),
    ],
)
def test_what_is_used_up_and_what_helps_is_said(
    code: str, message: str, hint: str, helps: str, database: str, catalog: Catalog
) -> None:
    fault = fault_of(database, catalog, raising(code, message, hint))
    assert isinstance(fault, ExhaustedError)
    said = str(fault)
    assert said.startswith(f"load posts: the database could not go on: {message}; ") or code == "XX000"
    assert helps in said and said.endswith(AGAIN)
    # The server is one of this machine.
    assert (re.search(r"\([0-9,.]+ MB free in /", said) is not None) == isinstance(fault, FullDiskError)
    assert isinstance(fault, FullDiskError) == (code in ("53100", "XX000"))


def test_a_limit_of_temporary_files_is_named(database: str, catalog: Catalog) -> None:
    statement = sql.SQL(
        "set temp_file_limit = 64; set work_mem = 64; select count(*) from (select g from generate_series(1, 200000) g order by -g) s"
    )
    assert "temp_file_limit" in str(fault_of(database, catalog, statement))


def test_a_full_tablespace_is_named_with_what_is_free_there(database: str, catalog: Catalog, open_folder: Path) -> None:
    with disks.small(open_folder / "small", megabytes=4) as disk, psycopg.connect(database, autocommit=True) as conn:
        home = conn.execute("show data_directory").fetchone()
        assert home is not None
        place = disk / "space"
        place.mkdir()
        shutil.chown(place, Path(home[0]).stat().st_uid, Path(home[0]).stat().st_gid)
        name = sql.Identifier(f"space_{os.getpid()}_{conn.info.backend_pid}")
        conn.execute(sql.SQL("create tablespace {} location {}").format(name, sql.Literal(str(place))))
        try:
            conn.execute(sql.SQL("create table filled (t text) tablespace {}").format(name))
            said = str(
                fault_of(
                    database,
                    catalog,
                    sql.SQL("insert into filled select repeat(md5(g::text), 50) from generate_series(1, 20000) g"),
                )
            )
            assert "No space left on device" in said and said.endswith(AGAIN)
            assert re.search(
                r"make room on the disk of a tablespace of the server \(pg_tblspc/[0-9]+\) \([0-3]\.[0-9] MB free in ",
                said,
            )
        finally:
            conn.execute("drop table if exists filled")
            conn.execute(sql.SQL("drop tablespace {}").format(name))


def test_an_error_inside_of_the_work_is_told_what_is_free_too(database: str, catalog: Catalog) -> None:
    with (
        pytest.raises(FullDiskError, match=r"users: a batch failed: .* MB free in /"),
        Session(database, catalog).connection("load") as conn,
    ):
        try:
            conn.execute(raising("53100", FULL.format("base/5/1")))
        except psycopg.Error as error:
            raise explained("users: a batch failed", error) from error


# -- this machine --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [errno.ENOSPC, errno.EDQUOT])
def test_a_full_disk_of_ours_is_one_line_whatever_was_written(
    number: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fail(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number), str(tmp_path / "dagster" / "event"))

    monkeypatch.setattr(migration, "settings_with", fail)
    result = CliRunner().invoke(main, ["migrate"])
    assert result.exit_code == 2
    [line] = result.stderr.splitlines()
    assert line.startswith(f"b44: {tmp_path}/dagster/event cannot be written: {os.strerror(number)} (")
    assert f"MB free in {tmp_path}" in line and line.endswith(AGAIN)


def test_other_faults_of_the_system_are_said_as_they_are(tmp_path: Path) -> None:
    assert why(OSError(errno.EACCES, "Permission denied"), tmp_path) == "Permission denied"
    assert said_with_remedy("could not open file: Permission denied") == "could not open file: Permission denied"


@given(st.text("abc /\"'%", max_size=20))
def test_what_another_program_says_of_a_full_disk_is_kept_with_what_helps(before: str) -> None:
    said = said_with_remedy(f"{before}could not write to file: No space left on device")
    assert said == f"{before}could not write to file: No space left on device; make room there and {AGAIN}"


def test_the_room_is_that_of_the_nearest_folder_there_is(tmp_path: Path) -> None:
    assert free_at(tmp_path / "not" / "there").endswith(f" MB free in {tmp_path}")
    (tmp_path / "file").touch()
    assert free_at(tmp_path / "file").endswith(f" MB free in {tmp_path}")
    assert free_at(None) == ""


@pytest.mark.parametrize("free", [ROOM - 1, ROOM])
def test_a_disk_that_is_nearly_full_for_an_export_is_told_of_before_it_is(
    free: int, embedded: EmbeddedServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "User.csv").write_bytes(b"x" * 600_000)
    (tmp_path / "Post.csv").write_bytes(b"x" * 400_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: SimpleNamespace(free=free))

    said = lacking_room(embedded.url("postgres"), tmp_path, ["User"])

    assert (str(embedded.home) in said, "may take 67.8 MB" in said) == ((True, True) if free < ROOM else (False, False))


def test_nothing_is_said_of_a_disk_for_a_folder_that_is_no_export(embedded: EmbeddedServer, tmp_path: Path) -> None:
    assert lacking_room(embedded.url("postgres"), tmp_path / "nowhere", ()) == ""
