"""Servers with a network for the tests, and what such a server needs: an account, a port, a certificate."""

from __future__ import annotations

import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
import pytest

from tests.helpers.workers import locked

PASSWORD = "correct horse battery"


def ordinary_account() -> pwd.struct_passwd | None:
    """Whom to run as what refuses root: nobody we need to ask if we are not root."""
    if os.geteuid() != 0:
        return None
    for name in ("postgres", "nobody"):
        try:
            return pwd.getpwnam(name)
        except KeyError:
            continue
    raise RuntimeError("there is no account to run PostgreSQL as")


def run_as(
    account: pwd.struct_passwd | None, command: Sequence[str | Path], **environment: str
) -> subprocess.CompletedProcess[str]:
    """Runs a command as another account, in a session of its own."""
    return subprocess.run(
        [str(word) for word in command],
        user=account.pw_uid if account else None,
        group=account.pw_gid if account else None,
        extra_groups=() if account else None,
        env={"PATH": os.defpath, "LC_ALL": "C", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        check=False,
        start_new_session=True,
    )


def free_port() -> int:
    """A TCP port of 127.0.0.1 on which nothing listens now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def certify(directory: Path, account: pwd.struct_passwd | None) -> None:
    """Writes a self-signed certificate that no client has reason to trust."""
    key, certificate = directory / "server.key", directory / "server.crt"
    subject = ("-subj", "/CN=localhost", "-days", "2", "-nodes", "-newkey", "rsa:2048")
    command = ("/usr/bin/openssl", "req", "-x509", "-batch", *subject, "-keyout", key, "-out", certificate)
    subprocess.run([str(word) for word in command], check=True, capture_output=True)
    key.chmod(0o600)
    if account:
        os.chown(key, account.pw_uid, account.pw_gid)


_ROLES = (
    f"CREATE ROLE app LOGIN PASSWORD '{PASSWORD}'",
    f"CREATE ROLE crowded LOGIN CONNECTION LIMIT 0 PASSWORD '{PASSWORD}'",
    "CREATE DATABASE secure",
    "CREATE DATABASE owned OWNER app",
    "CREATE DATABASE latin TEMPLATE template0 ENCODING LATIN1 LOCALE 'C'",
)
_HBA = """\
local    all,replication          all                trust
hostssl  secure,managed,restored  all  127.0.0.1/32  scram-sha-256
host     closed                   all  127.0.0.1/32  reject
host     postgres,nowhere,latin   all  127.0.0.1/32  scram-sha-256
host     owned                    all  127.0.0.1/32  scram-sha-256
host     postgres                 app  samehost      scram-sha-256
"""


def programs(major: int) -> Path:
    """The folder of the programs of a PostgreSQL, which are the operating system's, or beneath `B44_TEST_SERVERS`."""
    installed = Path(f"/usr/lib/postgresql/{major}/bin")
    elsewhere = os.environ.get("B44_TEST_SERVERS")
    return installed if elsewhere is None or (installed / "postgres").exists() else Path(elsewhere) / f"{major}" / "bin"


@dataclass(frozen=True)
class OwnServer:
    """A PostgreSQL that is not the embedded one, which has no TLS: on a socket (no password) and on 127.0.0.1 (SCRAM).

    The database `secure` asks for TLS, `closed` refuses everybody, `latin` is encoded in LATIN1, `owned` belongs to
    `app`.

    Attributes:
        directory: A short, existing folder that every account can pass through.
        major: Its major version.
    """

    directory: Path
    major: int

    @property
    def data_dir(self) -> Path:
        return self.directory / f"pg{self.major}"

    @property
    def port(self) -> int:
        return int((self.data_dir / "postmaster.pid").read_text().splitlines()[3])

    def url(self, database: str = "postgres") -> str:
        """URL of a database by the socket, as superuser."""
        return f"postgresql://postgres@/{database}?host={self.data_dir}&port={self.port}"

    def tcp_url(self, user: str = "app", password: str = PASSWORD, database: str = "postgres") -> str:
        """URL of a database by TCP, where the password counts."""
        return f"postgresql://{user}:{password.replace(' ', '%20')}@127.0.0.1:{self.port}/{database}"

    def start(self) -> None:
        """Starts the server if no worker has; `app` has the password, `crowded` too, but may have no session."""
        with locked(self.directory / f"pg{self.major}.lock"):
            if (self.data_dir / "postmaster.pid").exists():
                return
            account = ordinary_account()
            self.data_dir.mkdir(mode=0o700)
            if account:
                os.chown(self.data_dir, account.pw_uid, account.pw_gid)
            initdb = ("-U", "postgres", "-E", "UTF8", "--locale=C.UTF-8", "--auth=trust", "--no-sync")
            self._run(account, "initdb", "-D", self.data_dir, *initdb)
            certify(self.data_dir, account)
            (self.data_dir / "pg_hba.conf").write_text(_HBA)
            with (self.data_dir / "postgresql.conf").open("a") as conf:
                conf.write(
                    f"\nlisten_addresses = '*'\nport = {free_port()}\nssl = on\n"
                    f"unix_socket_directories = '{self.data_dir}'\nfsync = off\nfull_page_writes = off\n"
                    "autovacuum = off\nmax_connections = 50\n"
                )
            self._run(account, "pg_ctl", "-D", self.data_dir, "-w", "-l", self.data_dir / "log", "start")
            with psycopg.connect(self.url(), autocommit=True) as conn:
                for statement in _ROLES:
                    conn.execute(statement.encode())

    def stop(self) -> None:
        """Stops the server, if there is one, and removes it."""
        if (self.data_dir / "postmaster.pid").exists():
            self._run(ordinary_account(), "pg_ctl", "-D", self.data_dir, "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _run(self, account: pwd.struct_passwd | None, program: str, *arguments: str | Path) -> None:
        result = run_as(account, [programs(self.major) / program, *arguments])
        if result.returncode:
            raise RuntimeError(f"{program} failed: {result.stderr or result.stdout}")


@dataclass(frozen=True)
class Pg15(OwnServer):
    """The oldest server that is supported."""

    major: int = 15


@contextmanager
def own_pg15() -> Generator[Pg15]:
    """A PostgreSQL 15 of the test's own, running; the test is skipped where there is none."""
    skip_without(15)
    folder = Path(tempfile.mkdtemp(prefix="b44-test-"))
    folder.chmod(0o755)
    server = Pg15(folder)
    try:
        server.start()
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


def own_address() -> str:
    """An address of this machine by which it reaches itself as another machine would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent.
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


def skip_without(major: int) -> None:
    """Skips a test where there is no PostgreSQL of a major version; CI installs them."""
    if not (programs(major) / "postgres").exists():
        pytest.skip(f"there is no PostgreSQL {major} in {programs(major)}")


PG15_BIN = programs(15)
