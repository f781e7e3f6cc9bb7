"""Files of an export that somebody may still be writing: read again until they stayed the same for a whole reading."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence, Set
from contextlib import contextmanager
from typing import Final, TypeVar

from b44_assets.errors import ExportChangedError, ExportError
from b44_assets.exports import ExportFile, ExportReader, open_export
from b44_assets.session import Session

_READINGS: Final = 3
"""How often a file is read that changes meanwhile."""
_SECONDS_BETWEEN_READINGS: Final = 1.0

T = TypeVar("T")


def reading_whole(session: Session, read: Callable[[], T]) -> T:
    """Read a file of the export, and again where it changed meanwhile.

    Raises:
        ExportError: It cannot be read, or changed each time.
    """
    for reading in range(2, _READINGS + 1):
        try:
            return read()
        except ExportChangedError as error:
            session.notice(f"{error}; reading it again ({reading} of {_READINGS})")
            session.sleep(_SECONDS_BETWEEN_READINGS)
    try:
        return read()
    except ExportChangedError as error:
        raise ExportError(f"{error}; run this again once it is written") from error


@contextmanager
def opened_whole(file: ExportFile, known: Sequence[str] = (), apart: Set[str] = frozenset()) -> Generator[ExportReader]:
    """Open a file of the export for a block, at the end of which it must still be the same; `known` and `apart` as for `open_export`.

    Raises:
        ExportChangedError: It is not.
        ExportError: It cannot be read.
    """
    with open_export(file, known=known, apart=apart) as reader:
        try:
            yield reader
        except ExportError:
            # Half of a file may look damaged.
            reader.require_unchanged()
            raise
