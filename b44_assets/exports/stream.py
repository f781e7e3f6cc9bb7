"""The bytes of an export file through one descriptor, with the digest of what was read."""

from __future__ import annotations

import hashlib
import io
import os
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

from b44_assets.errors import ExportChangedError

_PIECE: Final = 1 << 20


class ExportStream(io.BufferedReader):
    """An export file that is opened once, and knows whether it is still the file that it was then.

    Attributes:
        size: In bytes, when it was opened.
        modified_at: Its time of modification then (UTC).
    """

    def __init__(self, path: Path) -> None:
        """Open the file.

        Raises:
            OSError: It cannot be opened.
        """
        opened = path.open("rb")
        super().__init__(opened.detach())
        self._path = path
        status = os.fstat(self.fileno())
        self.size = status.st_size
        self.modified_at = datetime.fromtimestamp(status.st_mtime, UTC)
        self._identity = _identity(status)
        self._hash = hashlib.sha256()

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the bytes from the beginning to where reading has come."""
        return self._hash.hexdigest()

    def read(self, size: int | None = -1, /) -> bytes:
        """Read bytes, which become part of the digest."""
        data = super().read(size)
        self._hash.update(data)
        return data

    def seek(self, target: int, whence: int = os.SEEK_SET, /) -> int:
        """Go to an offset from the beginning; the digest is begun anew, with the bytes before it as they are now."""
        if whence != os.SEEK_SET:
            raise io.UnsupportedOperation("an offset from the beginning is needed")
        super().seek(0)
        self._hash = hashlib.sha256()
        left = target
        while left and (piece := self.read(min(left, _PIECE))):
            left -= len(piece)
        return self.tell()

    def digest_of_all(self) -> str:
        """Read the file from beginning to end; return its SHA-256 in hexadecimal."""
        self.seek(0)
        while self.read(_PIECE):
            pass
        return self.digest

    def require_unchanged(self) -> None:
        """Raise ExportChangedError where the file, or what its name stands for, is not what was opened."""
        try:
            same = _identity(os.fstat(self.fileno())) == self._identity == _identity(self._path.stat())
        except OSError:
            same = False  # its name is gone
        if not same:
            raise ExportChangedError(f"{self._path}: changed while it was read")


def _identity(status: os.stat_result) -> tuple[int, ...]:
    return status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns
