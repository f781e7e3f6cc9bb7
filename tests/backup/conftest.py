"""A server to be backed up, of this folder's tests alone, since a base backup takes all of a cluster."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.store import Store
from b44_assets.backup.wal_spool import archive_command
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.loading import clear


@pytest.fixture(scope="session")
def server_home() -> Generator[EmbeddedServer]:
    """The embedded server of a home of its own, running, archiving its WAL into its spool."""
    folder = Path(tempfile.mkdtemp(prefix="b44-test-"))
    folder.chmod(0o755)
    server = EmbeddedServer(folder / "home")
    try:
        server.archive(archive_command(Path("../archive")))
        server.start()
        with psycopg.connect(server.url(), autocommit=True) as conn:
            for setting in ("fsync = off", "autovacuum = off", "max_prepared_transactions = 3"):
                conn.execute(sql.SQL("alter system set ") + sql.SQL(setting))  # pyright: ignore[reportArgumentType]
            # Each backup and each restoration has less to do.
            conn.execute("drop database dagster")
        server.stop()
        server.start()
        yield server
    finally:
        server.stop("immediate")
        shutil.rmtree(folder)


@pytest.fixture
def source(server_home: EmbeddedServer) -> str:
    """URL of its database `b44`, empty."""
    clear(server_home.url())
    return server_home.url()


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """An empty one in a local folder, without a key."""
    return Catalogue(Store.at(str(tmp_path / "store")))
