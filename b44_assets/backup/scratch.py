"""Throw-away folders and servers, in which backups are restored.

A folder is private to the account that PostgreSQL runs as, and locked by the process that made it. One whose lock is free
belonged to a process that was killed: whoever makes the next folder ends what runs in it and removes it.
"""

from __future__ import annotations

import fcntl
import os
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote

from b44_assets.backup.tools import complaint, run
from b44_assets.errors import BackupError, why
from b44_assets.postgres.embedded.accounts import (
    Account,
    may_pass,
    name_for,
    open_lock,
    running_as,
    server_account,
    try_lock,
    write_file,
)
from b44_assets.postgres.embedded.configuration import PORT
from b44_assets.postgres.embedded.processes import is_alive, processes, read_postmaster, working_directory
from b44_assets.postgres.embedded.server import SUPERUSER

_PREFIX = "b44-scratch-"
# A folder is renamed once it is locked, so that nobody takes it for one left behind.
_NEW = "b44-new-"
# The path of a socket may have 107 bytes.
_LONGEST = 107 - len(f"/{_PREFIX}01234567/.s.PGSQL.{PORT}")
_QUIT_SECONDS = 5.0

_HBA = "local all all trust\n"

# On the command line, above whatever stands in the files of a restored server.
_SETTINGS: Mapping[str, str] = {
    "config_file": "/dev/null",
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "port": str(PORT),
    "archive_mode": "off",
    "hot_standby": "off",
    "shared_buffers": "128MB",
    "maintenance_work_mem": "128MB",
    "max_wal_size": "4GB",
    "max_connections": "30",
    "dynamic_shared_memory_type": "mmap",
    "autovacuum": "off",
    "logging_collector": "off",
    "log_min_error_statement": "panic",
    "timezone": "UTC",
    "log_timezone": "UTC",
}
_FAST = {
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "wal_level": "minimal",
    "max_wal_senders": "0",
}


@dataclass(frozen=True)
class Scratch:
    """A throw-away folder.

    Attributes:
        folder: Its path; on the disk of `TMPDIR`, which must hold what is restored.
        account: Whom PostgreSQL runs as in it, if not we.
    """

    folder: Path
    account: Account | None

    def own(self, path: Path) -> None:
        """Gives a folder, with all in it, to the account, and closes it to all others."""
        own(path, self.account)


@dataclass(frozen=True)
class ScratchServer:
    """A running server.

    Attributes:
        socket_dir: Where its socket is.
        data_dir: Its data directory.
        superuser: As whom it is reached.
    """

    socket_dir: Path
    data_dir: Path
    superuser: str

    def url(self, database: str = "postgres") -> str:
        """Returns the libpq URL of a database on it, as superuser."""
        user = quote(self.superuser, safe="")
        host = quote(str(self.socket_dir))
        return f"postgresql://{user}@/{quote(database, safe='')}?host={host}&port={PORT}"


@contextmanager
def scratch() -> Generator[Scratch]:
    """Makes a throw-away folder for the block, having removed those of processes that were killed.

    Raises:
        BackupError: None can be made.
        DatabaseError: There is no account to run PostgreSQL as.
    """
    parent = Path(tempfile.gettempdir())
    if len(os.fsencode(parent)) > _LONGEST:
        raise BackupError(f"TMPDIR is too long for the path of a socket, {_LONGEST} bytes at most: {parent}")
    try:
        new = Path(tempfile.mkdtemp(prefix=_NEW, dir=parent))
    except OSError as error:
        raise BackupError(f"no scratch folder can be made in {parent}: {why(error, parent)}") from error
    account = server_account(new)
    if account is not None and not may_pass(parent, account):
        new.rmdir()
        raise BackupError(
            f"the account {account.name!r}, which runs PostgreSQL for root, cannot reach TMPDIR ({parent})"
        )
    remove_leftovers(account)
    lock = open_lock(new / "lock", account)
    folder = parent / new.name.replace(_NEW, _PREFIX)
    try:
        try_lock(lock)
        new.rename(folder)
        own(folder, account)
        yield Scratch(folder, account)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(lock)


def remove_leftovers(account: Account | None) -> None:
    """Removes the scratch folders of processes that were killed, and ends the servers that run in them.

    Args:
        account: Whose folders, besides ours.
    """
    mine = {os.geteuid()} | ({account.uid} if account else set[int]())
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*"):
        with suppress(OSError):  # removed by its owner meanwhile, or not ours
            found = folder.lstat()
            if not stat.S_ISDIR(found.st_mode) or found.st_uid not in mine:
                continue
            try:
                descriptor = os.open(folder / "lock", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            except FileNotFoundError:
                # Its owner was removing it, and may have been killed at that.
                shutil.rmtree(folder, ignore_errors=True)
                continue
            try:
                fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                continue
            else:
                _end_all_in(folder)
                shutil.rmtree(folder, ignore_errors=True)
            finally:
                os.close(descriptor)


def own(path: Path, account: Account | None) -> None:
    """Gives a folder, with all in it, to an account, and closes it to all others.

    Args:
        path: The folder.
        account: Whom to; None leaves it ours.
    """
    path.chmod(0o700)
    if account is not None:
        for one in (path, *path.rglob("*")):
            os.chown(one, account.uid, account.gid, follow_symlinks=False)


def initialize(
    place: Scratch,
    data_dir: Path,
    programs: Path,
    options: Sequence[str] = ("--locale=C",),
    *,
    superuser: str = SUPERUSER,
) -> None:
    """Makes the data directory of a new, empty cluster in a scratch folder.

    Args:
        place: The folder.
        data_dir: In it; not there yet.
        programs: The folder of the programs of its version.
        options: Further ones of initdb.
        superuser: Its first role.

    Raises:
        BackupError: initdb fails; with the reason it gave.
    """
    data_dir.mkdir(mode=0o700)
    place.own(data_dir)
    command = [programs / "initdb", "-D", data_dir, f"--username={superuser}", "--auth=trust", "--encoding=UTF8"]
    command += [*options, "--no-sync", "--no-instructions"]
    run(command, "no scratch server can be made", running=running_as(place.account, place.folder))


@contextmanager
def serving(
    place: Scratch,
    data_dir: Path,
    programs: Path,
    settings: Mapping[str, str] | None = None,
    *,
    superuser: str = SUPERUSER,
    lasting: bool = False,
) -> Generator[ScratchServer]:
    """Runs a server on a data directory for the block, on a socket in a scratch folder.

    None of the files of settings in the data directory is read, but for `postgresql.auto.conf`, above which ours stand.

    Args:
        place: Where its socket and its log are.
        data_dir: Of the account of `place`; may lie elsewhere.
        programs: The folder of the programs of its version.
        settings: Further ones.
        superuser: A role of the cluster's.
        lasting: What it writes shall last: it writes safely, and is shut down in order at the end of the block.

    Raises:
        BackupError: It does not start, or does not get through its recovery; with the reason it gave.
    """
    sockets = place.folder / "socket"
    sockets.mkdir(mode=0o700, exist_ok=True)
    place.own(sockets)
    write_file(sockets / "hba", _HBA, place.account)
    wanted = dict(_SETTINGS) | ({} if lasting else _FAST) | dict(settings or {})
    wanted |= {"hba_file": str(sockets / "hba"), "ident_file": "/dev/null", "unix_socket_directories": str(sockets)}
    command = [str(programs / "postgres"), "-D", name_for(place.account, data_dir)]
    for name, value in wanted.items():
        command += ["-c", f"{name}={value}"]
    (data_dir / "postmaster.pid").unlink(missing_ok=True)
    log = sockets / "log"
    with log.open("wb") as said:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=said, **running_as(place.account, data_dir)
        )
    try:
        while True:
            # In this order: a server that has ended was not ready before.
            ended = process.poll() is not None
            postmaster = read_postmaster(data_dir)
            if ended:
                raise BackupError(f"PostgreSQL did not start on {data_dir}: {_reason(log)}")
            if postmaster is not None and postmaster.pid == process.pid and postmaster.status == "ready":
                break
            time.sleep(0.02)
        yield ScratchServer(sockets, data_dir, superuser)
    except BaseException:
        _stop(process, signal.SIGQUIT)
        raise
    _stop(process, signal.SIGINT if lasting else signal.SIGQUIT)
    if lasting and process.returncode:
        raise BackupError(f"PostgreSQL on {data_dir} did not shut down in order: {_reason(log)}")


def log_of(place: Scratch) -> str:
    """Returns what the server last run in a scratch folder has said."""
    try:
        return (place.folder / "socket" / "log").read_text(errors="replace")
    except FileNotFoundError:
        return ""


def _reason(log: Path) -> str:
    return complaint(log.read_text(errors="replace"), log.parent).replace("/proc/self/cwd", "the data directory")


def _stop(process: subprocess.Popen[bytes], how: signal.Signals) -> None:
    """Ends a server and waits for it, however often we are interrupted meanwhile."""
    interruption: BaseException | None = None
    while process.poll() is None:
        try:
            process.send_signal(how)
            # A shutdown in order writes all that is in memory, however long that takes.
            process.wait(None if how == signal.SIGINT else _QUIT_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
        except BaseException as error:
            interruption, how = error, signal.SIGQUIT
    if interruption is not None:
        raise interruption


def _end_all_in(folder: Path) -> None:
    """Ends all processes that stand in a folder: the servers in it first, which end their own in order."""
    for pid_file in folder.rglob("postmaster.pid"):
        postmaster = read_postmaster(pid_file.parent)
        if postmaster is not None and _stands_in(postmaster.pid, folder):
            with suppress(ProcessLookupError):
                os.kill(postmaster.pid, signal.SIGQUIT)
            begun = time.monotonic()
            while is_alive(postmaster.pid) and time.monotonic() - begun < _QUIT_SECONDS:
                time.sleep(0.02)
    for pid in processes():
        if _stands_in(pid, folder):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)


def _stands_in(pid: int, folder: Path) -> bool:
    directory = working_directory(pid)
    return directory is not None and Path(directory.removesuffix(" (deleted)")).is_relative_to(folder.resolve())
