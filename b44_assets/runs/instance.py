"""The Dagster instance that runs are of, which is the one that `b44 dev` shows."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import TYPE_CHECKING

from b44_assets.config.packaged import packaged
from b44_assets.errors import B44Error, DatabaseError, TransientDatabaseError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import dagster_url, embedded_exists, libpq_url

if TYPE_CHECKING:
    from dagster import DagsterInstance

    from b44_assets.config.settings import Settings
    from b44_assets.session import Connection


def prepare_dagster(settings: Settings) -> None:
    """Sets the environment that Dagster, and the processes that it starts, read; makes its home if need be."""
    if "DAGSTER_HOME" not in os.environ:
        home = settings.home / "dagster"
        home.mkdir(parents=True, exist_ok=True)
        if not (home / "dagster.yaml").exists():
            shutil.copyfile(packaged("dagster.yaml"), home / "dagster.yaml")
        os.environ["DAGSTER_HOME"] = str(home)
    os.environ["B44_HOME"] = str(settings.home)
    # The months of a range are one step's; storing each by itself takes longer than most steps.
    os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", "1000")
    for name, value in (
        ("B44_DATABASE_URL", settings.database_url),
        ("B44_EXPORT_DIR", settings.export_dir),
        ("B44_SQL_DIR", settings.sql_dir),
        ("DAGSTER_PG_URL", settings.dagster_pg_url),
    ):
        if value is not None:
            os.environ[name] = str(value)
    # Of those that are in a file, the processes read the file; they need not start from the folder that we were started in.
    for name, value in (
        ("B44_WAL_DIR", settings.wal_dir),
        ("B44_PG_BIN", settings.pg_bin),
        ("B44_BACKUP_URL", settings.backup_url),
        ("B44_BACKUP_KEY", settings.backup_key),
    ):
        if value is not None and name in os.environ:
            os.environ[name] = str(value)


def storage_exists(settings: Settings) -> bool:
    """Whether Dagster has a storage already: one is named, or the embedded server was started here before."""
    return "DAGSTER_HOME" in os.environ or settings.dagster_pg_url is not None or embedded_exists(settings)


def connect_storage(settings: Settings, application_name: str) -> Connection:
    """Connects to the database that Dagster's storage is in; it commits each statement.

    Raises:
        DatabaseError: As of `connect`; it names the variable that names the server.
    """
    url = libpq_url(dagster_url(settings))
    try:
        return connect(url, application_name=application_name, autocommit=True)
    except DatabaseError as error:
        if settings.dagster_pg_url is None:
            raise
        kind = TransientDatabaseError if isinstance(error, TransientDatabaseError) else DatabaseError
        raise kind(f"DAGSTER_PG_URL: {error}") from error


def runs_under_way(conn: Connection) -> bool:
    """Tells whether a run has begun and not ended yet.

    Args:
        conn: On the database of Dagster's storage.
    """
    if conn.execute("select to_regclass('runs')").fetchone() == (None,):
        return False
    return (
        conn.execute("select from runs where status in ('STARTING', 'STARTED', 'CANCELING') limit 1").fetchone()
        is not None
    )


def throw_away_instance() -> DagsterInstance:
    """An instance that keeps nothing, for a command that only reads where there is no storage."""
    from dagster import DagsterInstance

    return DagsterInstance.ephemeral()


def dagster_instance() -> DagsterInstance:
    """The instance that `b44 dev` shows, but for the capture of what steps print, which is nothing.

    Dagster captures it with processes of its own, on which Ctrl-C would end with a traceback each.
    """
    from dagster import DagsterInstance
    from dagster._core.instance.ref import InstanceRef

    nowhere = {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
    return DagsterInstance.from_ref(
        InstanceRef.from_dir(os.environ["DAGSTER_HOME"], overrides={"compute_logs": nowhere})
    )


def tell_dagster(settings: Settings, tell: Callable[[DagsterInstance], None], say: Callable[[str], None]) -> None:
    """Lets the UI know of what was done without it; that stands even where the storage is not there.

    Args:
        settings: In force.
        tell: Reports it to the instance.
        say: Takes a warning where that failed.
    """
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    try:
        prepare_dagster(settings)
        with dagster_instance() as instance:
            tell(instance)
    except (B44Error, DagsterPostgresException, SQLAlchemyError) as error:
        say(f"warning: the UI does not know of it: {str(error).splitlines()[0]}")
