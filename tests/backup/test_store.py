from __future__ import annotations

import errno
import io
import os
import resource
import stat
import subprocess
import sys
import uuid
from collections.abc import Generator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from fsspec.implementations.memory import MemoryFile, MemoryFileSystem

from b44_assets.backup.store import Store
from b44_assets.errors import BackupError
from tests.helpers import disks, sftp


@pytest.fixture(scope="module")
def sftp_server(tmp_path_factory: pytest.TempPathFactory) -> Generator[sftp.Server]:
    with sftp.serving(tmp_path_factory.mktemp("sftp")) as server:
        yield server


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    with disks.small(tmp_path / "small") as folder:
        yield folder


@pytest.fixture(params=["folder", "memory", "sftp"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Store:
    """An empty store of each sort: of our own, and where a file is seen while it grows, without and with a server."""
    if request.param == "folder":
        return Store.at(str(tmp_path / "backups"))
    if request.param == "memory":
        return Store.at(f"memory://{uuid.uuid4()}/backups")
    server: sftp.Server = request.getfixturevalue("sftp_server")
    return Store.at(f"{server.url}/{uuid.uuid4()}")


def put(store: Store, path: str, data: bytes) -> None:
    store.put(path, io.BytesIO(data))


def test_what_was_put_is_what_is_read(store: Store) -> None:
    data = os.urandom(3_000_000)

    put(store, "backups/1/dump", data)

    with store.open("backups/1/dump") as file:
        assert file.read() == data
    assert store.exists("backups/1/dump")


def test_files_are_listed_by_prefix_with_their_sizes(store: Store) -> None:
    for path in ("a/b/one", "a/b/two", "a/c", "ab"):
        put(store, path, path.encode())

    assert store.names("a/") == {"a/b/one": 7, "a/b/two": 7, "a/c": 3}
    assert store.names("a/b/t") == {"a/b/two": 7}
    assert list(store.names()) == ["a/b/one", "a/b/two", "a/c", "ab"]


def test_a_store_that_is_not_there_yet_is_empty(store: Store) -> None:
    assert store.names() == {}
    assert not store.exists("a")


def test_a_file_is_never_overwritten_unless_that_is_said(store: Store) -> None:
    put(store, "a", b"first")

    with pytest.raises(BackupError, match="a is there already, and is not overwritten"):
        put(store, "a", b"second")
    with store.open("a") as file:
        assert file.read() == b"first"

    store.put("a", io.BytesIO(b"third"), replace=True)
    with store.open("a") as file:
        assert file.read() == b"third"


def test_a_file_is_not_there_before_it_is_complete(store: Store) -> None:
    with store.writing("a/b") as sink:
        sink.write(b"half")
        assert store.names() == {}
        assert not store.exists("a/b")
        (begun,) = store.unfinished().values()
        assert datetime.now(UTC) - begun < timedelta(hours=1)

    assert store.names() == {"a/b": 4}
    assert store.unfinished() == {}


@pytest.mark.parametrize("interruption", [ValueError("no more"), KeyboardInterrupt()])
def test_nothing_is_left_of_a_file_whose_source_fails(store: Store, interruption: BaseException) -> None:
    with pytest.raises(type(interruption)), store.writing("a/b") as sink:
        sink.write(b"half")
        raise interruption

    assert store.names() == {}
    assert store.unfinished() == {}


def test_a_missing_file_is_named(store: Store) -> None:
    with pytest.raises(BackupError, match=r"backups/1/dump cannot be read: ") as caught:
        store.open("backups/1/dump")
    assert "\n" not in str(caught.value)


def test_a_removed_file_is_gone_and_may_be_removed_again(store: Store) -> None:
    put(store, "a/b", b"x")

    store.remove("a/b")
    store.remove("a/b")

    assert store.names() == {}


@pytest.mark.parametrize("path", ["../a", "a/../../b", "/etc/passwd", "", "a//b", "a/./b", "a\0b"])
def test_no_path_leads_out_of_the_store(store: Store, path: str) -> None:
    with pytest.raises(BackupError, match="is no path"):
        put(store, path, b"x")


# -- a folder ----------------------------------------------------------------------------------------------------------


def test_a_folder_is_open_to_its_owner_only(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        put(Store.at(str(tmp_path / "deep/er")), "a/b", b"x")
    finally:
        os.umask(before)

    modes = {path.name: stat.S_IMODE(path.stat().st_mode) for path in tmp_path.rglob("*")}
    # What is above it may be the home of a server that runs as another account.
    assert modes == {"deep": 0o755, "er": 0o700, "a": 0o700, "b": 0o600}


def test_a_folder_may_be_given_as_a_url(tmp_path: Path) -> None:
    put(Store.at(f"file://{tmp_path}/backups"), "a", b"x")

    assert (tmp_path / "backups/a").read_bytes() == b"x"


def test_of_two_who_write_the_same_file_at_once_one_is_refused(tmp_path: Path) -> None:
    store = Store.at(str(tmp_path))

    with pytest.raises(BackupError, match="not overwritten"), store.writing("a") as slow:
        slow.write(b"slow")
        put(store, "a", b"fast")

    assert (tmp_path / "a").read_bytes() == b"fast"
    assert store.unfinished() == {}


def test_where_there_are_no_links_a_file_is_not_overwritten_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(*_: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "link", refuse)
    store = Store.at(str(tmp_path))

    with pytest.raises(BackupError, match="not overwritten"), store.writing("a") as slow:
        slow.write(b"slow")
        put(store, "a", b"fast")

    assert (tmp_path / "a").read_bytes() == b"fast"


def test_kill_9_leaves_nothing_that_counts(tmp_path: Path) -> None:
    program = (
        "import os, signal, sys\n"
        "from b44_assets.backup.store import Store\n"
        "with Store.at(sys.argv[1]).writing('backups/1/dump') as sink:\n"
        "    sink.write(b'half')\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    ended = subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=False)

    assert ended.returncode == -9
    store = Store.at(str(tmp_path))
    assert store.names() == {}
    assert len(store.unfinished()) == 1


def test_a_full_folder_is_one_line_and_leaves_what_was_there(small_disk: Path) -> None:
    store = Store.at(str(small_disk / "backups"))
    put(store, "older", b"x" * 1000)

    with pytest.raises(BackupError) as caught:
        put(store, "newer", os.urandom(4_000_000))

    said = str(caught.value)
    assert said.startswith(f"{small_disk}/backups/newer cannot be written: No space left on device (")
    assert "MB free in" in said and "run the same command again" in said
    assert store.names() == {"older": 1000}
    assert store.unfinished() == {}


def test_a_file_that_may_not_grow_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(BackupError, match=r"newer cannot be written: File too large$"):
            put(Store.at(str(tmp_path)), "newer", bytes(4_000_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))

    assert list(tmp_path.iterdir()) == []


# -- by fsspec ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", ["write", "close"])
def test_a_store_that_refuses_is_one_line_and_leaves_nothing(method: str, monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(f"memory://{uuid.uuid4()}")
    put(store, "older", b"x")

    def refuse(*_: object) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch:
        patch.setattr(MemoryFile, method, refuse)
        with pytest.raises(
            BackupError, match=r"/newer cannot be written: No space left on device; make room there and run the same"
        ):
            put(store, "newer", b"x")

    assert store.names() == {"older": 1}


def test_a_store_that_swallows_half_of_it_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(f"memory://{uuid.uuid4()}")
    monkeypatch.setattr(MemoryFile, "write", lambda file, data: io.BytesIO.write(file, data[:-1]))

    with pytest.raises(BackupError, match="4 bytes were sent, and 3 have arrived"):
        put(store, "a", b"1234")
    assert store.names() == {}


def test_a_store_that_cannot_be_listed_does_not_pass_for_an_empty_one(monkeypatch: pytest.MonkeyPatch) -> None:
    store = Store.at(f"memory://{uuid.uuid4()}")

    def refuse(*_: object, **__: object) -> None:
        raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))

    monkeypatch.setattr(MemoryFileSystem, "find", refuse)
    monkeypatch.setattr(MemoryFileSystem, "info", refuse)

    with pytest.raises(BackupError, match="cannot be listed: Permission denied"):
        store.names()
    with pytest.raises(BackupError, match="cannot be looked at: Permission denied"):
        store.exists("a")


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("nothing://here", r"nothing://here cannot be used for backups: ValueError: Protocol not known: nothing"),
        ("sftp://me:secret@127.0.0.1:1/a", r"sftp://me:\*\*\*@127.0.0.1:1/a cannot be used for backups: "),
    ],
)
def test_a_store_that_cannot_be_used_is_named_without_its_password(url: str, message: str) -> None:
    with pytest.raises(BackupError, match=message) as caught:
        Store.at(url)
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(("url", "extra"), [("s3://bucket/a", "s3"), ("gs://bucket/a", "gcs"), ("az://box/a", "azure")])
def test_a_missing_driver_is_named_with_what_brings_it(url: str, extra: str, monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("s3fs", "gcsfs", "adlfs"):
        monkeypatch.setitem(sys.modules, module, None)

    with pytest.raises(BackupError, match=rf"is not installed: pip install 'b44-assets\[{extra}\]'$"):
        Store.at(url)


def test_a_password_in_the_url_is_not_shown(sftp_server: sftp.Server) -> None:
    store = Store.at(f"{sftp_server.url}/nowhere")

    with pytest.raises(BackupError) as caught:
        store.open("a")

    assert sftp.PASSWORD in sftp_server.url
    assert sftp.PASSWORD not in str(caught.value) + repr(store) + store.location
