"""What a run needs before it begins: an export, a state of the migration that lets it, and the lock of migrations."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path
from typing import TYPE_CHECKING

from b44_assets.errors import B44Error, FinishedError, TransientDatabaseError, nothing_has_a_table
from b44_assets.postgres.advisory_locks import HeldLock, watched

if TYPE_CHECKING:
    from b44_assets.catalog import Catalog
    from b44_assets.config.settings import Settings
    from b44_assets.exports import ExportFile
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
_VERBS = {"quarantine": "show", "rollback": "take back"}
"""What a command does, where that is not its name."""
_READS = frozenset({"report", "quarantine"})
"""Commands that move no record."""


class NothingMigratedError(B44Error):
    """There is nothing to verify."""

    exit_status = 1


def refuse_if_finished(session: Session, command: str) -> None:
    """Refuses a command that needs the migration tables where the migration is over.

    Raises:
        FinishedError: It is over.
    """
    from b44_assets.migration.finish import migration_state

    with saying_what_it_lacks(session, command):
        state = migration_state(session)
    if state.over:
        raise FinishedError(f"nothing to {_VERBS.get(command, command)}: {state.message()}; {_INSTEAD[command]}")


def require_migration(session: Session, command: str) -> None:
    """Refuses a command that needs migrated records where there are none.

    Raises:
        FinishedError: The migration is over.
        NothingMigratedError: It has not begun.
    """
    from b44_assets.migration.accounts import accounts

    refuse_if_finished(session, command)
    with saying_what_it_lacks(session, command):
        found = accounts(session)
    if not found:
        raise NothingMigratedError(
            f"nothing to {_VERBS.get(command, command)}: nothing has been migrated into this database yet (b44 migrate)"
        )


def check_export(export: Path, catalog: Catalog) -> None:
    """Say at once what is wrong with the folder, before a server is started for it.

    Raises:
        ExportError: It cannot be read, or holds no export.
    """
    from b44_assets.exports import discover

    discover(export, catalog.entities)


def require_table(export: Path, sql_dir: Path, catalog: Catalog) -> None:
    """Refuse an export of which no record has a table, before anything is made for it.

    Of most exports only the beginning of one file is read.

    Raises:
        ExportError: The folder cannot be read, or a file without a table cannot where none has one.
        NothingMigratedOfExportError: No record has one.
    """
    from b44_assets.exports import discover
    from b44_assets.migration.other_apps import has_records, of_another_app
    from b44_assets.migration.unmapped_entities import records_of

    tables = catalog.entities
    apart: list[ExportFile] = []
    some = False
    for file in discover(export, tables):
        table = tables.get(file.entity)
        if table is None or of_another_app(catalog.mappings[table], file) is not None:
            apart.append(file)
        elif has_records(file):
            return
        else:
            some = True
    records = {file.entity: records_of(file) for file in apart}
    # Files of tables, all of them without records, are an app that nobody has used.
    if not some or any(records.values()):
        raise nothing_has_a_table(export, sql_dir, records)


def saying_what_it_lacks(session: Session, command: str = "migrate") -> AbstractContextManager[None]:
    """Says which rights a role needs for a migration where one of them is missing in the block.

    Args:
        session: Of the role.
        command: What is asked for; of one that only reads nothing is said, as it says itself what it reads.
    """
    from b44_assets.migration.readable import remedied
    from b44_assets.schema.preflight import need_room

    if command in _READS:
        return nullcontext()
    return remedied(session, lambda asked: need_room(asked, only_look=True))


def tell_of_backup(settings: Settings, session: Session, say: Callable[[str], None]) -> None:
    """Says in one line which backup one can go back to, or that there is none."""
    from b44_assets.backup.service import newest_told

    say(f"notice: {newest_told(session, settings)}")


@contextmanager
def exclusive_migration(
    settings: Settings, session: Session, say: Callable[[str], None], *, cutover: bool = False
) -> Generator[HeldLock]:
    """Keeps two migrations of one target apart: of two exports at once, each would take back the other's staging.

    Where records are there already, or the application comes to rely on them, it is said first which backup there is.

    Args:
        settings: With the store of the backups.
        session: Of the target.
        say: Takes a line about whoever is waited for, and on the newest backup.
        cutover: Whether the application moves to the target now.

    Raises:
        LockLostError: Others are not kept away any more; whatever was under way was ended in the server, too.
    """
    from b44_assets.migration.finish import holds_records
    from b44_assets.session import migrating

    with saying_what_it_lacks(session):
        told = cutover or holds_records(session)
    if told:
        tell_of_backup(settings, session, say)
    with saying_what_it_lacks(session), migrating(session, say) as lock:
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
