"""What the settings name as target and as Dagster's storage: a server of the user's, or the embedded one."""

from __future__ import annotations

from typing import TYPE_CHECKING
from urllib.parse import quote

from b44_assets.postgres.connection_urls import redact
from b44_assets.postgres.embedded.server import EmbeddedServer

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings


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


def target_shown(settings: Settings) -> str:
    """Says what the target is, without a password and without looking at it."""
    if settings.database_url is not None:
        return redact(settings.database_url)
    return f"the embedded server under {settings.home}"


def target_exists(settings: Settings) -> bool:
    """Tells whether there is a target already: a server is named, or the embedded one was started here before."""
    return settings.database_url is not None or embedded_exists(settings)


def embedded_exists(settings: Settings) -> bool:
    """Tells whether the embedded server was started here before, and has data."""
    return EmbeddedServer(settings.home).data_dir.exists()


def embedded_runs(settings: Settings) -> bool:
    """Tells whether the embedded server runs, and accepts connections.

    Raises:
        DatabaseError: It belongs to another account.
    """
    return EmbeddedServer(settings.home).running()


def dagster_url(settings: Settings) -> str:
    """Returns the SQLAlchemy URL of Dagster's own storage, starting the embedded server if it is kept there.

    The driver is always psycopg2: with a bare `postgresql://` SQLAlchemy 2.1 picks psycopg 3, on which dagster-postgres
    cannot store events.

    On the embedded server events do not wait for the disk, where they would get in the way of the application's commits.
    After a crash of that server the last ones may be missing, but for those before a commit in the target; what a run has
    migrated is noted there.

    Raises:
        DatabaseError: If the embedded server cannot be started.
    """
    url = settings.dagster_pg_url
    if url is None:
        server = EmbeddedServer(settings.home)
        server.start()
        url = server.url("dagster") + f"&options={quote('-c synchronous_commit=off')}"
    return "postgresql+psycopg2://" + url.partition("://")[2]


def libpq_url(url: str) -> str:
    """Returns the URL that libpq and its programs read for one that names SQLAlchemy's driver, too."""
    return "postgresql://" + url.partition("://")[2]
