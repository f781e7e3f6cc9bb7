"""Servers for the tests: helpers that fixtures and tests share."""

from __future__ import annotations

import fcntl
import json
import os
import pwd
import re
import shutil
import socket
import socketserver
import subprocess
import threading
import time
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import sql

PG15_BIN = Path("/usr/lib/postgresql/15/bin")
PASSWORD = "correct horse battery"


def database_url(server_url: str, name: str) -> str:
    """URL of a database beside `postgres`."""
    return server_url.replace("@/postgres?", f"@/{name}?")


def create_database(
    conn: psycopg.Connection[Any], name: str, template: str = "template0", options: LiteralString = ""
) -> None:
    """Makes a copy of a database. As files, which costs half of what a copy by way of the WAL does."""
    statement = sql.SQL("create database {} template {} strategy file_copy ")
    conn.execute(statement.format(sql.Identifier(name), sql.Identifier(template)) + sql.SQL(options))


def template_once(server_url: str, name: str, make: Callable[[str], object], *, of: str = "template0") -> str:
    """Makes a database to copy from, if none of the workers has: a copy of another one that `make` changes, given its URL.

    Returns its name.
    """
    unfinished = f"{name}_unfinished"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(44)")
        if conn.execute("select from pg_database where datname = %s", (name,)).fetchone() is None:
            # Not there by its name before it is whole, nor if it fails.
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(unfinished)))
            create_database(conn, unfinished, of)
            make(database_url(server_url, unfinished))
            rename = sql.SQL("alter database {} rename to {}")
            conn.execute(rename.format(sql.Identifier(unfinished), sql.Identifier(name)))
    return name


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds a file lock among the workers of a test session."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scratch_folder() -> Path:
    """A short folder for all that the tests make: in memory where there is room, which takes a third of their time away."""
    memory, gib = Path("/dev/shm"), 1 << 30
    roomy = (
        memory.is_mount()
        and os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >= 15 * gib
        and shutil.disk_usage(memory).free >= 8 * gib
    )
    return memory if roomy else Path("/tmp")


def made_once(kept: Path, make: Callable[[], str]) -> str:
    """What `make` returned to the first of all workers that came here; `kept` is where the others read it."""
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            # Not there before it is whole, nor if it fails.
            made = make()
            kept.write_text(made)
    return kept.read_text()


def keep_posts(export: Path, created: str) -> None:
    """Leaves of a sample's `Post.jsonl` those created at a time that begins like a regular expression.

    Each month of posts has some forty files in the database, and takes its time in a run.
    """
    posts = export / "Post.jsonl"
    pattern = re.compile(rf'"created_date": "{created}')
    kept = [line for line in posts.read_text().splitlines(keepends=True) if pattern.search(line)]
    assert len(kept) > 50
    posts.write_text("".join(kept))


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
hostssl  secure,managed           all  127.0.0.1/32  scram-sha-256
host     closed                   all  127.0.0.1/32  reject
host     postgres,nowhere,latin   all  127.0.0.1/32  scram-sha-256
host     owned                    all  127.0.0.1/32  scram-sha-256
host     postgres                 app  samehost      scram-sha-256
"""


@dataclass(frozen=True)
class Pg15:
    """PostgreSQL 15 of the operating system, on a socket (no password) and on 127.0.0.1 (SCRAM).

    The database `secure` asks for TLS, `closed` refuses everybody, `latin` is encoded in LATIN1, `owned` belongs to
    `app`.

    Attributes:
        directory: A short, existing folder that every account can pass through.
    """

    directory: Path

    @property
    def data_dir(self) -> Path:
        return self.directory / "pg15"

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
        with locked(self.directory / "pg15.lock"):
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
            for statement in _ROLES:
                self._run(None, "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", statement, self.url())

    def stop(self) -> None:
        """Stops the server, if there is one, and removes it."""
        if (self.data_dir / "postmaster.pid").exists():
            self._run(ordinary_account(), "pg_ctl", "-D", self.data_dir, "-w", "-m", "immediate", "stop")
        shutil.rmtree(self.data_dir, ignore_errors=True)

    def _run(self, account: pwd.struct_passwd | None, program: str, *arguments: str | Path) -> None:
        result = run_as(account, [PG15_BIN / program, *arguments])
        if result.returncode:
            raise RuntimeError(f"{program} failed: {result.stderr or result.stdout}")


def write_app(folder: Path, tables: int) -> list[str]:
    """Writes an app folder of tables and mappings alone, each mapping reading the table before, and returns the tables' names."""
    names = [f"ledger_{number:02}" for number in range(tables)]
    for kind in ("tables", "mappings"):
        (folder / kind).mkdir(parents=True)
    for number, name in enumerate(names):
        before = f"-- depends: {names[number - 1]}\n" if number else ""
        (folder / "tables" / f"{name}.sql").write_text(
            f"-- Entries of ledger {number}.\n\n"
            f"create table if not exists {name} (id uuid primary key, remark text, booked_at timestamptz not null);\n\n"
            f"comment on table {name} is 'Entries of ledger {number}';\n"
        )
        (folder / "mappings" / f"{name}.sql").write_text(
            f"-- What becomes of an entry of ledger {number}.\n-- entity: Ledger{number:02}\n{before}"
            "-- fields: id, remark, created_date\n\n"
            "select f.record_number, f.base44_id, base44_uuid(f.base44_id) as id, f.remark,\n"
            "       coalesce(migration.as_timestamp(f.created_date), f.exported_at) as booked_at,\n"
            "       array_remove(array[\n"
            "         case when f.base44_id is null then 'missing_id' end,\n"
            "         case when f.superseded then 'duplicate_id' end], null) as reasons,\n"
            "       '{}'::jsonb[] as repairs, null::jsonb as unmapped\n"
            "  from source f\n"
        )
    return names


def own_address() -> str:
    """An address of this machine by which it reaches itself as another machine would."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        # Nothing is sent.
        probe.connect(("192.0.2.1", 9))
        return probe.getsockname()[0]


@contextmanager
def serving(server: socketserver.BaseServer) -> Generator[None]:
    """Lets a server serve in a thread."""
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@dataclass(frozen=True)
class Webhook:
    """A webhook's address, the JSON that it got, and the statuses that it is to answer with before 200."""

    address: str
    received: list[Any] = field(default_factory=list[Any])
    answers: list[int] = field(default_factory=list[int])


@contextmanager
def webhook() -> Generator[Webhook]:
    """A webhook on this machine."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            hook.received.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(hook.answers.pop(0) if hook.answers else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    hook = Webhook(f"http://127.0.0.1:{server.server_port}/hook/token")
    with serving(server):
        yield hook


def write_entries(export: Path, ledger: int, count: int) -> None:
    """Writes an export of one table of such an app, all of it sound."""
    entry = {"remark": "x", "created_date": "2026-01-01T00:00:00"}
    entries = [{"id": f"65c4e6bb5482e2ced37c{number:04x}", **entry} for number in range(1, count + 1)]
    (export / f"Ledger{ledger:02}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))


def eventually(true: Callable[[], object], seconds: float = 20) -> None:
    """Waits until something is so, such as what a server counts with a delay; fails where it never is."""
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "it did not come about"
        time.sleep(0.02)


def skip_without_pg15() -> None:
    """Skips a test where the operating system has no PostgreSQL 15; CI installs it."""
    if not (PG15_BIN / "postgres").exists():
        pytest.skip(f"there is no PostgreSQL 15 in {PG15_BIN}")
