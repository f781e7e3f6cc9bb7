"""PostgreSQL's own programs: where they are, how they are told whom to talk to, and what they say when they fail.

A secret never stands on a command line, which every account can read.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import tempfile
from collections.abc import Generator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from psycopg import Connection, conninfo
from psycopg.rows import TupleRow

from b44_assets.errors import BackupError, said_with_remedy
from b44_assets.postgres.clients import Clients, available, choose, newest, require_configured, system_folders
from b44_assets.postgres.embedded.accounts import Account, RunningAs
from b44_assets.postgres.embedded.binaries import MAJOR_VERSION, install_dir, reachable_install
from b44_assets.postgres.embedded.processes import last_line

_SECRETS = ("password", "sslpassword")
# How a program calls itself and writes is its caller's matter.
_OF_THE_CALLER = frozenset({"PGAPPNAME", "PGCLIENTENCODING"})
# How long a program may take to end after it was asked to.
_END_SECONDS = 10
# What a server does for a psql that was killed ends soon, where its system can tell it of that.
_BEGIN = b"""\
\\set ON_ERROR_STOP 0
set client_connection_check_interval = '2s';
\\set ON_ERROR_STOP 1
begin;
"""


@dataclass(frozen=True)
class Login:
    """How the client programs reach a server.

    Attributes:
        conninfo: For `--dbname`; without secrets.
        environment: The caller's, and the password.
        clients: The programs that talk to this server.
    """

    conninfo: str
    environment: Mapping[str, str]
    clients: Clients

    @classmethod
    def of(
        cls, url: str, conn: Connection[TupleRow], *, configured: Path | None = None, to_dump: bool = False
    ) -> Login:
        """Choose the programs for the server that a libpq URL leads to, and take the URL apart for them.

        Args:
            url: Of the database.
            conn: Open, by that URL: it tells the server's version and whether the connection is encrypted.
            configured: `B44_PG_BIN`, if set.
            to_dump: Whether the database is to be dumped, by programs that know all that its server keeps. For all else
                the newest are best: they read what any others have written, and have fewer faults.

        Raises:
            BackupError: It has a secret that can be handed over on a command line only.
            DatabaseError: No programs on this machine can talk to the server.
        """
        pick = choose if to_dump else newest
        version, encrypted = conn.info.server_version, conn.pgconn.ssl_in_use
        return cls.by(url, pick(available(configured), version, encrypted=encrypted))

    @classmethod
    def by(cls, url: str, clients: Clients) -> Login:
        """Take apart a libpq URL.

        Raises:
            BackupError: It has a secret that can be handed over on a command line only.
        """
        parameters = {name: value for name, value in conninfo.conninfo_to_dict(url).items() if value is not None}
        if "sslpassword" in parameters:
            raise BackupError(
                "the database URL has an sslpassword, which PostgreSQL's programs take on their command line only:"
                " use a key without a passphrase"
            )
        environment = clean_environment()
        if "password" in parameters:
            environment["PGPASSWORD"] = str(parameters["password"])
        shown = {name: str(value) for name, value in parameters.items() if name not in _SECRETS}
        return cls(conninfo.make_conninfo(**shown), environment, clients)

    def variables(self, conn: Connection[TupleRow]) -> dict[str, str]:
        """Return the caller's environment, in which a program goes where a connection goes, whatever database it is told.

        A database named on its command line would take the place of all that `conninfo` says.

        Args:
            conn: Open, to this server.
        """
        known = {option.envvar.decode(): option for option in conn.pgconn.info if option.envvar}
        # What a service file says is in the connection, and stood above the variables.
        taken = known.keys() - _OF_THE_CALLER | {"PGSERVICE"}
        mine = {name: value for name, value in os.environ.items() if name not in taken}
        options = ((name, option.val, option.compiled) for name, option in known.items() if name in taken)
        return mine | {name: value.decode() for name, value, default in options if value and value != default}

    def program(self, name: str) -> str:
        """Return the path of a client program for this server."""
        return self.clients.program(name)


def clean_environment() -> dict[str, str]:
    """Returns the environment for a client program: the caller's, in English, without what is only ours."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("B44_")}
    return kept | {"LC_ALL": "C", "PGAPPNAME": "b44 backup"}


def server_programs(major: int, configured: Path | None = None, account: Account | None = None) -> Path:
    """Returns the folder of the programs of a major version, with which a physical backup of it is restored.

    Args:
        major: 15 to 18.
        configured: `B44_PG_BIN`, if set.
        account: Who is to run them, if not we.

    Raises:
        BackupError: They are not on this machine.
        DatabaseError: There are none where they were configured.
    """
    if configured is not None:
        require_configured(configured)
    for place in (*((configured,) if configured else ()), *system_folders(major)):
        if _major(place) == major:
            return place
    if major == MAJOR_VERSION:
        install = install_dir()
        return (install if account is None else reachable_install(install, account)) / "bin"
    raise BackupError(
        f"the programs of PostgreSQL {major}, without which a physical backup of it cannot be restored, are not on this"
        f" machine: install postgresql-{major}, or set B44_PG_BIN to the folder of its programs"
    )


def _major(place: Path) -> int | None:
    postgres = place / "postgres"
    if not os.access(postgres, os.X_OK):
        return None
    said = subprocess.run([postgres, "--version"], capture_output=True, text=True, check=False).stdout
    match = re.search(r"\(PostgreSQL\) ([0-9]+)", said)
    return None if match is None else int(match[1])


def run(
    command: Sequence[str | Path],
    what: str,
    environment: Mapping[str, str] | None = None,
    running: RunningAs | None = None,
) -> subprocess.CompletedProcess[str]:
    """Runs a program to its end.

    Args:
        command: Program and arguments.
        what: What it is for, for the complaint.
        environment: By default `clean_environment`.
        running: As whom and where, for a program of the server's, instead of the environment.

    Raises:
        BackupError: It failed; with what it said last.
    """
    how: dict[str, Any] = {"env": dict(clean_environment() if environment is None else environment)}
    if running is not None:
        how = dict(running)
    result = subprocess.run(
        [str(word) for word in command],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        errors="replace",
        check=False,
        **how,
    )
    if result.returncode:
        place = None if running is None else running["cwd"]
        raise BackupError(f"{what}: {complaint(result.stderr or result.stdout, place)}")
    return result


@contextmanager
def streaming(command: Sequence[str | Path], what: str, environment: Mapping[str, str]) -> Generator[IO[bytes]]:
    """Runs a program whose standard output is read in the block. It is ended if the block is left before its end.

    Args:
        command: Program and arguments.
        what: What it is for, for the complaint.
        environment: Of the program.

    Raises:
        BackupError: At the end of the block: the program failed, so what was read is not all. It says why.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            [str(word) for word in command],
            env=dict(environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            bufsize=0,
            start_new_session=True,
        )
        assert process.stdout is not None
        try:
            with process.stdout as output:
                yield output
            status = process.wait()
        except BaseException:
            end(process)
            raise
        if status:
            said.seek(0)
            raise BackupError(f"{what}: {complaint(said.read().decode(errors='replace'))}")


@contextmanager
def transaction(login: Login, what: str) -> Generator[IO[bytes]]:
    """Runs psql for the block. What is written to it there is one transaction, committed only if the block ends well.

    Should we be killed, psql comes to the end of its input without a COMMIT, and nothing stays of it.

    Args:
        login: To the server.
        what: What it is for, for the complaint.

    Raises:
        BackupError: The server refuses something; it says why.
    """
    command = [
        login.program("psql"),
        "-X",
        "-q",
        "--no-password",
        "-v",
        "ON_ERROR_STOP=1",
        f"--dbname={login.conninfo}",
    ]
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            command,
            env=dict(login.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        assert process.stdin is not None
        try:
            with suppress(BrokenPipeError), process.stdin as sink:
                sink.write(_BEGIN)
                yield sink
                sink.write(b"\ncommit;\n")
            status = process.wait()
        except BaseException:
            process.kill()
            process.wait()
            raise
        if status:
            said.seek(0)
            raise BackupError(f"{what}: {complaint(said.read().decode(errors='replace'))}")


def end(process: subprocess.Popen[bytes], with_signal: int | None = signal.SIGTERM) -> None:
    """Ends a program that we started, by force if need be, and waits for it.

    Args:
        process: The program.
        with_signal: None where it has been told already.
    """
    if process.poll() is None:
        if with_signal is not None:
            process.send_signal(with_signal)
        try:
            process.wait(_END_SECONDS)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def complaint(said: str, place: Path | None = None) -> str:
    """Returns in one line why a program failed: its first error with its detail, or its last words; and what helps.

    Args:
        said: What it wrote.
        place: The folder that it wrote to, if that is known.
    """
    return said_with_remedy(_complaint(said), place)


def _complaint(said: str) -> str:
    found = re.search(r"(?:error|ERROR|FATAL|PANIC):\s+(.+)(?:\n(?:.*?)(?:DETAIL|detail):\s+(.+))?", said)
    if found is None:
        return last_line(said)
    message, detail = found.groups()
    # "query failed: ERROR:  permission denied …"
    message = re.sub(r"^.*?(?:ERROR|FATAL):\s+", "", message).strip()
    return f"{message} ({detail.strip()})" if detail else message
