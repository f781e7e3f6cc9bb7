"""What can go wrong, said in one line to the person who ran the command.

Every error that a user can cause or meet derives from `B44Error`; the command line prints its message and exits with
its status. Anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Mapping
from pathlib import Path

from b44_assets.wording import plural

_FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
AGAIN = "run the same command again: it goes on where it stopped"
"""What to do once the cause of a fault is gone."""


def is_full(error: OSError) -> bool:
    """Whether a file system, or what an account may have of it, is used up."""
    return error.errno in _FULL


def why(error: OSError, place: str | os.PathLike[str] | None = None) -> str:
    """What the system has against something, in a line; of a full disk also how much is free there, and what to do.

    Args:
        error: Of the system.
        place: What was to be written; by default what the error names.
    """
    said = error.strerror or str(error)
    return said + _remedy(place if place is not None else error.filename) if is_full(error) else said


def said_with_remedy(said: str, place: str | os.PathLike[str] | None = None) -> str:
    """What another program says in a line; where a disk is full, also how much is free there, and what to do.

    Args:
        said: The line, in the words of the system where the system gave the reason.
        place: What it wrote to, if that is known.
    """
    full = any(os.strerror(number).lower() in said.lower() for number in _FULL)
    return said.rstrip(".") + _remedy(place) if full else said


def _remedy(place: str | os.PathLike[str] | None) -> str:
    room = free_at(place)
    return f"{f' ({room})' if room else ''}; make room there and {AGAIN}"


def free_at(place: str | os.PathLike[str] | None) -> str:
    """How much is free in the file system of a file or folder, or of the nearest folder above that is there; else empty."""
    found = bytes_free_at(place) if place else None
    return "" if found is None else f"{found[0] / 2**20:,.1f} MB free in {found[1]}"


def bytes_free_at(place: str | os.PathLike[str]) -> tuple[int, Path] | None:
    """How many bytes are free in the file system of a file or folder, or of the nearest folder above that is there, and that folder."""
    path = Path(os.fsdecode(place)).absolute()
    for folder in (path, *path.parents):
        try:
            free = shutil.disk_usage(folder).free
        except OSError:
            # Not there yet, or closed to us.
            continue
        return free, folder if folder.is_dir() else folder.parent
    return None


class B44Error(Exception):
    """A fault with a one-line explanation for the person at the terminal.

    Attributes:
        exit_status: What the process exits with: 1 for a failed check, 2 for usage or unreadable input.
    """

    exit_status: int = 2


class SettingsError(B44Error):
    """An environment variable or option holds something that cannot be used."""


class ExportError(B44Error):
    """A folder or file of the export cannot be read; names the file and the reason."""


class ExportChangedError(ExportError):
    """A file of the export became another one while it was read; what was read of it must not be used."""


class FieldClashError(ExportError):
    """Two fields of a file could both be meant by one known name, which came out only while it was read.

    Attributes:
        field: The known name.
    """

    def __init__(self, path: Path, field: str) -> None:
        """Name the file and the field."""
        super().__init__(f"{path}: several fields could be {field}")
        self.field = field


class CatalogError(B44Error):
    """A file under `sql/` breaks the form; names the file and the line."""


class DatabaseError(B44Error):
    """The target database cannot be reached or refuses the work; never carries a password."""


class TransientDatabaseError(DatabaseError):
    """The target database cannot be reached now, for a reason that may pass by itself: trying again makes sense."""


class ExhaustedError(DatabaseError):
    """The server has run out of something, and cannot go on until somebody helps.

    Attributes:
        room: How much is free where its disk is full; None where nobody has looked, empty where it is not known.
    """

    def __init__(self, said: str, remedy: str, room: str | None = None) -> None:
        """Say what happened, what helps, and that the same command then goes on."""
        super().__init__(f"{said}; {remedy}{f' ({room})' if room else ''}, and {AGAIN}")
        self._said = said
        self._remedy = remedy
        self.room = room

    def having(self, room: str) -> ExhaustedError:
        """The same, with how much is free where its disk is full."""
        return type(self)(self._said, self._remedy, room)


class FullDiskError(ExhaustedError):
    """A disk of the server is full.

    Attributes:
        folder: Which, in its data directory; empty for that itself.
        room: As of `ExhaustedError`.
    """

    folder: str = ""

    def having(self, room: str) -> FullDiskError:
        """The same, with how much is free."""
        same = FullDiskError(self._said, self._remedy, room)
        same.folder = self.folder
        return same


class NoRoomError(B44Error):
    """A disk of this machine is full."""


class LockLostError(DatabaseError):
    """The session that keeps other migrations away was ended; the run stops, and running it again goes on."""


class ThresholdError(B44Error):
    """More records were refused than `B44_MAX_QUARANTINE` allows; the entity's load was rolled back."""

    exit_status = 1


class NotFinishedError(B44Error):
    """A migration cannot be finished yet: something still needs its tables; says what, and what to do."""

    exit_status = 1


class FinishedError(B44Error):
    """The migration of this database is over, and what was asked for needs its tables."""


class NothingMigratedOfExportError(B44Error):
    """The export was read, and `sql/` has a table for no record of it."""

    exit_status = 1


class BackupError(B44Error):
    """A backup cannot be taken, kept, read or restored; names the file and the reason, never a secret."""


class BadBackupError(BackupError):
    """A backup is not what it should be: damaged, incomplete, or not equal to its source."""

    exit_status = 1


def nothing_has_a_table(export: Path, sql_dir: Path, records: Mapping[str, int]) -> NothingMigratedOfExportError:
    """The fault of an export none of whose records has a table.

    Args:
        export: Its folder.
        sql_dir: The folder of SQL files.
        records: Its records by entity.
    """
    count = sum(records.values())
    entities = ", ".join(f"{entity} {number:,}" for entity, number in list(records.items())[:10])
    # Of an app whose folder was not made by `b44 init`.
    here = Path("sql")
    other = " or name those of this folder: B44_SQL_DIR=sql" if _other_tables(here, sql_dir) else ""
    return NothingMigratedOfExportError(
        f"{export}: none of its {count:,} {plural(count, 'record')} has a table in {sql_dir} ({entities});"
        f" make the tables of this app with b44 init{other and ','}{other}"
    )


def _other_tables(here: Path, sql_dir: Path) -> bool:
    return (here / "mappings").is_dir() and here.resolve() != sql_dir.resolve()
