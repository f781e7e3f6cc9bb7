"""What a command needs before it works: an export, a session with the target, its state, and the lock of migrations."""

from __future__ import annotations

import os
import signal
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import click

from b44_assets.cli.options import origin_of
from b44_assets.errors import B44Error, CatalogError, ExportError, FinishedError, TransientDatabaseError
from b44_assets.postgres.locks import HeldLock, watched

if TYPE_CHECKING:
    from b44_assets.catalog import Catalog
    from b44_assets.config.settings import Settings
    from b44_assets.session import Session

_INSTEAD = {
    "migrate": "a newer export goes into another database (--database-url)",
    "cutover": "the application is the only source of the rows now",
    "report": "b44 verify checks what stays, and the archive has all figures of the migration",
    "quarantine": "the archive has the records that were refused",
    "rollback": "rows are deleted like any others, and a backup has those of before",
    "replay": "what was in quarantine is in the archive, and goes into the tables like any other row",
}
"""What to do where a command needs the migration tables and they are gone."""


class NothingMigratedError(B44Error):
    """There is nothing to verify."""

    exit_status = 1


def catalog_of(settings: Settings) -> Catalog:
    """The files of `sql/`, read once a command: what it checks at first is what it works by."""
    from b44_assets.catalog import load_catalog

    context = click.get_current_context(silent=True)
    known: dict[Path, Catalog] = {} if context is None else context.meta.setdefault(f"{__name__}.catalog", {})
    if settings.sql_dir not in known:
        if not settings.sql_dir.is_dir():
            origin = origin_of("sql_dir") or "of the app folder"
            raise CatalogError(f"{settings.sql_dir}: no such folder of SQL files ({origin})")
        known[settings.sql_dir] = load_catalog(settings.sql_dir)
    return known[settings.sql_dir]


def session_of(settings: Settings) -> Session:
    """A session without Dagster, which takes seconds to load."""
    from b44_assets.session import Session

    return Session.of(settings, catalog_of(settings))


def refuse_if_finished(session: Session, command: str) -> None:
    """Refuses a command that needs the migration tables where the migration is over.

    Raises:
        FinishedError: It is over.
    """
    from b44_assets.migration.finish import migration_state

    if (state := migration_state(session)).over:
        raise FinishedError(f"nothing to {command}: {state.message()}; {_INSTEAD[command]}")


def require_migration(session: Session, command: str) -> None:
    """Refuses a command that needs migrated records where there are none.

    Raises:
        FinishedError: The migration is over.
        NothingMigratedError: It has not begun.
    """
    from b44_assets.migration.accounts import accounts

    refuse_if_finished(session, command)

    if not accounts(session):
        raise NothingMigratedError(f"nothing to {command}: nothing has been migrated into this database yet")


def check_export(export: Path, settings: Settings) -> bool:
    """Say at once what is wrong with the folder, before a server is started for it; tell whether a file has a table."""
    from b44_assets.exports import discover

    known = catalog_of(settings).entities
    try:
        found = discover(export, known)
    except ExportError as error:
        origin = origin_of("export_dir")
        if origin in (None, "--export"):
            raise
        raise ExportError(f"{error} ({origin})") from error
    return any(file.entity in known for file in found)


@contextmanager
def exclusive_migration(settings: Settings) -> Generator[HeldLock]:
    """Keeps two migrations of one target apart: of two exports at once, each would undo the other's staging.

    Raises:
        LockLostError: Others are not kept away any more; whatever was under way was ended in the server, too.
    """
    from b44_assets.session import migrating

    with migrating(session_of(settings), lambda line: click.echo(line, err=True)) as lock:
        try:
            # As Ctrl-C does, which ends the SQL in the server.
            with watched(lock, lambda: os.kill(os.getpid(), signal.SIGINT)):
                yield lock
        except KeyboardInterrupt:
            if lock.lost:
                lock.check()
            raise
        except TransientDatabaseError as error:
            raise TransientDatabaseError(with_resume_hint(error)) from error
        # Before anything is said of what came of it.
        lock.check()


def with_resume_hint(fault: B44Error) -> str:
    """What a fault says, and what to do about one that passes by itself."""
    passes = isinstance(fault, TransientDatabaseError)
    return f"{fault}; nothing that was done is lost: run the same command again to go on" if passes else str(fault)
