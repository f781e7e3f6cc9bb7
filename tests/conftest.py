"""The servers that the tests share: one embedded PostgreSQL 18 and one PostgreSQL 15 for all workers of a session."""

from __future__ import annotations

import gc
import os
import shutil
import signal
import tempfile
import uuid
from collections.abc import Callable, Generator
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import psycopg
import pytest
from hypothesis import HealthCheck, settings
from psycopg import sql

from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.databases import create_database, database_url
from tests.helpers.servers import OwnServer, Pg15, skip_without
from tests.helpers.workers import locked, scratch_folder

# What is imported and collected stays: to look through it again and again is a quarter of the time that takes.
gc.disable()

# It compares, as a test does.
pytest.register_assert_rewrite("tests.helpers.mapping_cases")

# How long an example takes says more of the machine than of the code.
settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

_SERVERS = pytest.StashKey[Path]()
# Each has a test that takes more than ten seconds; the longest is the first.
_LONGEST = (
    "test_ui",
    "test_managed_server",
    "test_recovery_page",
    "test_output_page",
    "test_server_versions",
    "test_maintenance_after_migration",
    "test_implausible_dates",
    "test_definitions",
    "test_cli",
    "test_run_retention",
    "test_hostile_input",
    "test_plan_command",
)
_OF_A_TEST_SERVER = (
    # Nothing here outlives the session, and no kill of a process tears a page.
    "fsync = off",
    "full_page_writes = off",
    "summarize_wal = off",
    # A hundred small databases that are gone in a moment: to go round them is a tenth of the server's work, and so is to
    # look through gigabytes of buffers at each table that is dropped.
    "autovacuum = off",
    "shared_buffers = '128MB'",
)


def pytest_configure(config: pytest.Config) -> None:
    """Names the folder of the servers; a worker of pytest-xdist is told by the process that started it."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # Begun in the background of a script. What tests start would ignore Ctrl-C as well.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    worker: dict[str, Any] | None = getattr(config, "workerinput", None)
    if worker is not None:
        config.stash[_SERVERS] = Path(worker["b44_servers"])
        return
    # Python removes this one itself, at the very end; made later it would be in the folder that is gone by then.
    get_temp_dir()
    # Short, since the path of a socket may have 107 bytes.
    folder = Path(tempfile.mkdtemp(prefix="b44-test-", dir=scratch_folder()))
    folder.chmod(0o1777)
    config.stash[_SERVERS] = folder
    # Workers, and the commands that tests run, put there what they need as well; it all goes with the session.
    tempfile.tempdir = os.environ["TMPDIR"] = str(folder)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tells a worker of pytest-xdist where the servers are."""
    node.workerinput["b44_servers"] = str(node.config.stash[_SERVERS])


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stops the servers after the last worker."""
    if hasattr(config, "workerinput"):
        return
    folder = config.stash[_SERVERS]
    for home in {found.parent for found in (*folder.glob("*/postgres"), *folder.glob("*/*/postgres"))}:
        EmbeddedServer(home).stop("immediate")
    for running in folder.glob("pg*/postmaster.pid"):
        OwnServer(folder, int(running.parent.name.removeprefix("pg"))).stop()
    # What still runs of a test that was killed may go on writing.
    shutil.rmtree(folder, ignore_errors=True)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> Generator[None]:
    """Marks the variants on the older server of what is long, and gives each worker first what takes longest by itself."""
    for item in items:
        if item.get_closest_marker("long") and "pg15" in item.name:
            item.add_marker(pytest.mark.slow)
    yield
    _deal_out(items, int(os.environ.get("PYTEST_XDIST_WORKER_COUNT", "1")))


def _deal_out(items: list[pytest.Item], workers: int) -> None:
    """Puts the longest files at the beginnings of as many equal shares; begun last, all would wait for one of their tests."""
    files: dict[str, list[pytest.Item]] = {name: [] for name in _LONGEST}
    others: list[pytest.Item] = []
    for item in items:
        files.get(item.path.stem, others).append(item)
    shares: list[list[pytest.Item]] = [[] for _ in range(workers)]
    for number, found in enumerate(files.values()):
        shares[number % workers] += found
    size = len(items) // workers
    for share in shares[:-1]:
        wanted = max(size - len(share), 0)
        share += others[:wanted]
        del others[:wanted]
    items[:] = [*(item for share in shares for item in share), *others]


def pytest_collection_finish() -> None:
    """Leaves out of every further round of the garbage collector what stays to the end: modules, and thousands of tests."""
    # With what garbage is among it: to look for that takes longer than it is worth.
    gc.freeze()
    gc.enable()


@pytest.fixture(scope="session")
def embedded(pytestconfig: pytest.Config) -> EmbeddedServer:
    """The embedded PostgreSQL 18, running."""
    folder = pytestconfig.stash[_SERVERS]
    server = EmbeddedServer(folder / "home")
    with locked(folder / "embedded.lock"):
        if not server.running():
            server.start()
            with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
                for setting in _OF_A_TEST_SERVER:
                    conn.execute(f"ALTER SYSTEM SET {setting}".encode())
            server.stop()
            server.start()
    return server


@pytest.fixture(scope="session")
def pg15(pytestconfig: pytest.Config) -> Pg15:
    """PostgreSQL 15 of the operating system, running."""
    skip_without(15)
    server = Pg15(pytestconfig.stash[_SERVERS])
    server.start()
    return server


@pytest.fixture(scope="session")
def server_of(pytestconfig: pytest.Config) -> Callable[[int], OwnServer]:
    """Gives a server of a major version, running, one for all workers; skips the test where there is none."""

    def start(major: int) -> OwnServer:
        skip_without(major)
        server = OwnServer(pytestconfig.stash[_SERVERS], major)
        server.start()
        return server

    return start


@pytest.fixture(scope="session", params=["pg18", "pg15"])
def server_url(request: pytest.FixtureRequest) -> str:
    """URL of the database `postgres` on the newest and on the oldest supported server, as superuser."""
    if request.param == "pg18":
        server: EmbeddedServer | Pg15 = request.getfixturevalue("embedded")
    else:
        server = request.getfixturevalue("pg15")
    return server.url("postgres")


@pytest.fixture
def database(server_url: str) -> Generator[str]:
    """URL of an empty database of the test's own, on either server."""
    yield from _fresh_database(server_url)


@pytest.fixture
def older_database(pg15: Pg15) -> Generator[str]:
    """URL of an empty database of the test's own on PostgreSQL 15, for what is of an older server."""
    yield from _fresh_database(pg15.url())


@pytest.fixture
def embedded_database(embedded: EmbeddedServer) -> Generator[str]:
    """URL of an empty database of the test's own, for what does not depend on the server's version."""
    yield from _fresh_database(embedded.url("postgres"))


def _fresh_database(server_url: str) -> Generator[str]:
    name = f"test_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        create_database(conn, name)
        try:
            yield database_url(server_url, name)
        finally:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))
