"""What can go wrong, said in one line to the person who ran the command.

Every error that a user can cause or meet derives from `B44Error`; the command line prints its message and exits with
its status. Anything else is a defect of ours and keeps its traceback.
"""

from __future__ import annotations

from pathlib import Path


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


class BackupError(B44Error):
    """A backup cannot be taken, kept, read or restored; names the file and the reason, never a secret."""


class BadBackupError(BackupError):
    """A backup is not what it should be: damaged, incomplete, or not equal to its source."""

    exit_status = 1
