"""Starting, stopping and finding the server of a home directory."""

from __future__ import annotations

import fcntl
import hashlib
import os
import resource
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal
from urllib.parse import quote

from b44_assets.errors import DatabaseError, is_full, said_with_remedy, why
from b44_assets.postgres.embedded.accounts import (
    Account,
    foreign,
    locked,
    make_directory,
    name_for,
    open_lock,
    running_as,
    server_account,
    try_lock,
    write_file,
)
from b44_assets.postgres.embedded.binaries import MAJOR_VERSION, install_dir, reachable_install
from b44_assets.postgres.embedded.configuration import (
    HBA,
    OPEN_FILES,
    PORT,
    archiving,
    available_memory,
    available_shared_memory,
    configuration,
)
from b44_assets.postgres.embedded.processes import (
    Postmaster,
    first_number,
    is_alive,
    is_postgres,
    last_line,
    processes,
    read_postmaster,
    reason_given,
    working_directory,
)

if TYPE_CHECKING:
    pass

SUPERUSER = "postgres"
# Fixed and short: a socket's path may have 107 bytes, and TMPDIR may differ between two processes of one home.
_SOCKET_PARENT = Path("/tmp")
# Recovery after a crash may have to replay all of max_wal_size.
_START_SECONDS = 900
_STOP_SECONDS = 300
# How long the children of a killed postmaster may take to end, and when asking them is given up.
_ORPHAN_SECONDS = 30
_QUIT_SECONDS = 5
_OPEN_BESIDES = 256
# For a single-user server, where an empty line ends a statement.
_DATABASES = """\
CREATE DATABASE b44;

CREATE DATABASE dagster;

"""
StopMode = Literal["smart", "fast", "immediate"]


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
            with locked(self.directory / "start.lock", account):
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
            with locked(self.directory / "start.lock", account):
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
            with locked(self.directory / "start.lock", account):
                make_directory(self.spool, account)
                write_file(self._archive_conf, archiving(command), account)
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
            raise foreign(self.directory) from error
        except OSError as error:
            raise DatabaseError(
                f"the embedded PostgreSQL under {self.home} cannot be looked at: {error.strerror} ({error.filename})"
            ) from error
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
            raise foreign(self.directory) from error

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
        orphans = [pid for pid in processes() if working_directory(pid) in folders and is_postgres(pid)]
        for pid in orphans:
            with suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGQUIT if waited < _QUIT_SECONDS else signal.SIGKILL)
        return bool(orphans)

    def _refuse_servers_of_others(self) -> None:
        """Refuses to start beside a server that was moved away with its data, or that somebody started by hand."""
        pid = first_number(self.socket_dir / f".s.PGSQL.{PORT}.lock")
        cwd = working_directory(pid) if pid else None
        ours = str(self.data_dir.resolve())
        if pid and cwd and cwd not in (ours, f"{ours} (deleted)") and is_postgres(pid):
            moved = read_postmaster(Path(cwd))
            if moved is not None and moved.socket_dir == self.socket_dir:
                raise DatabaseError(
                    f"PostgreSQL (process {pid}) was started under {self.home} and now serves {cwd}, where its data was"
                    f" moved to: stop it first with `kill -INT {pid}`"
                )
        postmaster = self._live_postmaster()
        if postmaster and working_directory(postmaster.pid) == ours and is_postgres(postmaster.pid):
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
        text = configuration(available_memory(), available_shared_memory(), os.cpu_count() or 1, self.socket_dir)
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
        write_file(new / "pg_hba.conf", HBA, account)
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
    wanted = OPEN_FILES + _OPEN_BESIDES
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
