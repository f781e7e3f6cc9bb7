"""PgBouncer before a server, for tests."""

from __future__ import annotations

import os
import pwd
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import psycopg

from tests.helpers.servers import certify, free_port, ordinary_account, run_as
from tests.helpers.workers import scratch_folder

PGBOUNCER = Path("/usr/sbin/pgbouncer")


@contextmanager
def pooled(url: str, mode: str, **settings: str) -> Generator[str]:
    """URL of a database by a pooler of its own.

    Args:
        url: Of the database, by its server's socket, without a password.
        mode: `session`, `transaction` or `statement`.
        settings: More of PgBouncer's.
    """
    query = parse_qs(urlsplit(url).query)
    # It does not run as root; whose the server is may reach its socket.
    account = pwd.getpwuid(Path(query["host"][0]).stat().st_uid) if os.geteuid() == 0 else None
    name = urlsplit(url).path.removeprefix("/")
    database = f"{name} = host={query['host'][0]} port={query['port'][0]} user=postgres"
    with (
        _folder(account) as folder,
        _running(folder, account, database, {"pool_mode": mode, "auth_type": "any", **settings}) as port,
    ):
        through = f"postgresql://postgres@127.0.0.1:{port}/{name}"
        _reach(through)
        yield through


@contextmanager
def pooled_with_tls(url: str) -> Generator[str]:
    """URL of a database by a pooler as hosting companies have them: a session each, a password and TLS on both sides.

    Args:
        url: Of the database by TCP, with user and password.
    """
    parts = urlsplit(url)
    name = parts.path.removeprefix("/")
    assert parts.username and parts.password
    password = unquote(parts.password).replace('"', '""')
    account = ordinary_account()
    with _folder(account) as folder:
        certify(folder, account)
        settings = {
            "pool_mode": "session",
            "auth_type": "scram-sha-256",
            "auth_file": str(folder / "users.txt"),
            "server_tls_sslmode": "require",
            "client_tls_sslmode": "require",
            "client_tls_key_file": str(folder / "server.key"),
            "client_tls_cert_file": str(folder / "server.crt"),
        }
        (folder / "users.txt").write_text(f'"{parts.username}" "{password}"\n')
        with _running(folder, account, f"{name} = host={parts.hostname} port={parts.port}", settings) as port:
            through = f"postgresql://{parts.username}:{parts.password}@127.0.0.1:{port}/{name}?sslmode=require"
            _reach(through)
            yield through


@contextmanager
def _folder(account: pwd.struct_passwd | None) -> Generator[Path]:
    folder = Path(tempfile.mkdtemp(prefix="b44-pool-", dir=scratch_folder()))
    try:
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _running(
    folder: Path, account: pwd.struct_passwd | None, database: str, settings: dict[str, str]
) -> Generator[int]:
    """Runs PgBouncer with a line of its section of databases; gives its port."""
    port = free_port()
    lines = {
        "listen_addr": "127.0.0.1",
        "listen_port": str(port),
        "unix_socket_dir": "",
        "logfile": str(folder / "log"),
        "pidfile": str(folder / "pid"),
        "default_pool_size": "20",
        **settings,
    }
    config = folder / "pgbouncer.ini"
    config.write_text(
        f"[databases]\n{database}\n[pgbouncer]\n"
        + "".join(f"{setting} = {value}\n" for setting, value in lines.items())
    )
    config.chmod(0o644)
    started = run_as(account, [PGBOUNCER, "-d", config])
    assert started.returncode == 0, started.stderr
    try:
        yield port
    finally:
        pid = (folder / "pid").read_text().strip()
        run_as(account, ["/bin/kill", "-TERM", pid])


def _reach(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the pooler did not start"
            time.sleep(0.05)
        else:
            return
