"""Where backups go: a local folder, or whatever fsspec has a driver for.

A file appears under its name complete or not at all. In a folder, and wherever else a file is seen while it grows, it is
written under a temporary name first; an object store shows an object only once its upload is finished. What a killed
process leaves behind has a temporary name, which `names` never lists.
"""

from __future__ import annotations

import io
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol

from fsspec.utils import get_protocol

from b44_assets.errors import BackupError, is_full, why

CHUNK = 1024**2
_TEMPORARY = re.compile(r"\.unfinished-([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{32}")
_TIME = "%Y%m%dT%H%M%SZ"


class Sink(Protocol):
    """What bytes are written to."""

    def write(self, data: bytes, /) -> object:
        """Takes all of them, or raises."""
        ...


@dataclass(frozen=True)
class Store(ABC):
    """A place for files by path; `/` parts a path, and no path leads out of the place.

    Credentials come from the driver's own environment (`AWS_ACCESS_KEY_ID`, `GOOGLE_APPLICATION_CREDENTIALS`, …).

    Attributes:
        location: The folder or URL, without a password, as it is named in messages.
    """

    location: str

    @staticmethod
    def at(location: str) -> Store:
        """Returns the store at a path or an fsspec URL. Nothing is made, and no connection opened, that is not needed.

        Args:
            location: `/srv/backups`, `s3://bucket/folder`, `sftp://user@host/folder`, …

        Raises:
            BackupError: There is no driver for it, or it cannot be read; names the extra that brings the driver.
        """
        # Here, since both are stores.
        from b44_assets.backup.folder_store import folder_store
        from b44_assets.backup.remote_store import remote_store

        protocol = get_protocol(location)
        if protocol in ("file", "local"):
            return folder_store(re.sub(r"\A(?:file|local)://", "", location))
        return remote_store(location, protocol)

    @abstractmethod
    def writing(self, path: str, *, replace: bool = False) -> AbstractContextManager[Sink]:
        """Gives a sink whose bytes are the file at `path` once the block has ended well, and nothing if it has not.

        Args:
            path: Of the file.
            replace: Whether a file of that path may be replaced.

        Returns:
            A context manager that gives a `Sink`.

        Raises:
            BackupError: The path is taken, or the store refuses the file, as when it is full.
        """

    @abstractmethod
    def open(self, path: str) -> BinaryIO:
        """Opens a file for reading.

        Raises:
            BackupError: It is missing or cannot be read. What goes wrong later, while it is read, is raised so, too.
        """

    @abstractmethod
    def exists(self, path: str) -> bool:
        """Tells whether there is a (complete) file of that path.

        Raises:
            BackupError: The store cannot be asked.
        """

    @abstractmethod
    def remove(self, path: str) -> None:
        """Removes a file; one that is missing is removed already.

        Raises:
            BackupError: The store refuses.
        """

    @abstractmethod
    def _sizes(self, folder: str) -> dict[str, int]:
        """Returns all files below a folder, temporary ones too, by path."""

    def put(self, path: str, source: BinaryIO, *, replace: bool = False) -> int:
        """Writes a file from a stream.

        Args:
            path: Of the file.
            source: Read to its end.
            replace: Whether a file of that path may be replaced.

        Returns:
            Its size in bytes.

        Raises:
            BackupError: The path is taken, or the store refuses the file, as when it is full; nothing is left of it.
        """
        size = 0
        with self.writing(path, replace=replace) as sink:
            while chunk := source.read(CHUNK):
                sink.write(chunk)
                size += len(chunk)
        return size

    def names(self, prefix: str = "") -> dict[str, int]:
        """Returns the size in bytes of each complete file whose path begins so, sorted by path.

        Raises:
            BackupError: The store cannot be listed.
        """
        found = self._sizes(prefix.rpartition("/")[0])
        return {
            path: found[path]
            for path in sorted(found)
            if path.startswith(prefix) and not _TEMPORARY.fullmatch(PurePosixPath(path).name)
        }

    def unfinished(self) -> dict[str, datetime]:
        """Returns what was begun and not finished, by path, with when it was begun: by a killed process, or one at work.

        Raises:
            BackupError: The store cannot be listed.
        """
        return {
            path: datetime.strptime(match[1], _TIME).replace(tzinfo=UTC)
            for path in sorted(self._sizes(""))
            if (match := _TEMPORARY.fullmatch(PurePosixPath(path).name))
        }


def checked(path: str) -> str:
    """Returns the path of a file in a store if it is one.

    Raises:
        BackupError: It leads elsewhere.
    """
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        # It may come from a damaged record.
        raise BackupError(f"{path!r} is no path of a file in a store of backups")
    return path


def temporary_name(path: str) -> str:
    """Returns a name beside the file, which tells its own age: not every driver knows that of a file."""
    name = f".unfinished-{datetime.now(UTC):{_TIME}}-{uuid.uuid4().hex}"
    return str(PurePosixPath(path).parent / name)


def taken(final: object) -> BackupError:
    """Says that a name is taken."""
    return BackupError(f"{final} is there already, and is not overwritten")


@contextmanager
def in_one_line(what: str, place: Path | None = None) -> Generator[None]:
    """Says what the system has against something in one line.

    Args:
        what: Cannot be done.
        place: What was to be written; by default what the error names.

    Raises:
        BackupError: For any fault of the system in the block.
    """
    try:
        yield
    except OSError as error:
        raise BackupError(f"{what}: {why(error, place)}") from error


def reading(file: Any, fault: Callable[[Exception], BackupError]) -> BinaryIO:
    """Returns an open file as one whose faults, while it is read, are those of `fault`."""
    return io.BufferedReader(_Reading(file, fault), CHUNK)


class _Reading(io.RawIOBase):
    """A file open for reading, whose faults are told in one line."""

    def __init__(self, file: Any, fault: Callable[[Exception], BackupError]) -> None:
        super().__init__()
        self._file = file
        self._fault = fault

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        try:
            data: bytes = self._file.read(len(buffer)) or b""
        except Exception as error:
            raise self._fault(error) from error
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()


def reason(error: Exception, secrets: tuple[str, ...]) -> str:
    """Returns what a driver or the system says, in a line without secrets."""
    if isinstance(error, OSError) and error.strerror:
        text = why(error, "") if is_full(error) else error.strerror
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    for secret in secrets:
        text = text.replace(secret, "***")
    return text if len(text) <= 300 else f"{text[:300]}…"
