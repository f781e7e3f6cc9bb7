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
from urllib.parse import parse_qs, urlsplit

import psycopg

from tests.support import free_port, run_as, scratch_folder

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
    folder = Path(tempfile.mkdtemp(prefix="b44-pool-", dir=scratch_folder()))
    try:
        if account:
            os.chown(folder, account.pw_uid, account.pw_gid)
        port = free_port()
        (folder / "users.txt").write_text('"postgres" ""\n')
        lines = {
            "listen_addr": "127.0.0.1",
            "listen_port": str(port),
            "auth_type": "any",
            "pool_mode": mode,
            "unix_socket_dir": "",
            "logfile": str(folder / "log"),
            "pidfile": str(folder / "pid"),
            "default_pool_size": "20",
            **settings,
        }
        config = folder / "pgbouncer.ini"
        name = urlsplit(url).path.removeprefix("/")
        config.write_text(
            f"[databases]\n{name} = host={query['host'][0]} port={query['port'][0]} user=postgres\n[pgbouncer]\n"
            + "".join(f"{setting} = {value}\n" for setting, value in lines.items())
        )
        config.chmod(0o644)
        started = run_as(account, [PGBOUNCER, "-d", config])
        assert started.returncode == 0, started.stderr
        try:
            through = f"postgresql://postgres@127.0.0.1:{port}/{name}"
            _reach(through)
            yield through
        finally:
            pid = (folder / "pid").read_text().strip()
            run_as(account, ["/bin/kill", "-TERM", pid])
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _reach(url: str) -> None:
    deadline = time.monotonic() + 20
    while True:
        try:
            psycopg.connect(url).close()
        except psycopg.OperationalError:
            assert time.monotonic() < deadline, "the pooler did not start"
            time.sleep(0.05)
        else:
            return
