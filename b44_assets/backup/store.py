"""Where backups go: a local folder, or whatever fsspec has a driver for.

A file appears under its name complete or not at all. In a folder, and wherever else a file is seen while it grows, it is
written under a temporary name first; an object store shows an object only once its upload is finished. What a killed
process leaves behind has a temporary name, which `names` never lists.
"""

from __future__ import annotations

import errno
import io
import logging
import os
import re
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Generator
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Protocol, TypeVar
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.core import url_to_fs
from fsspec.utils import get_protocol

from b44_assets.errors import BackupError, is_full, why
from b44_assets.wording import plural

logger = logging.getLogger(__name__)

T = TypeVar("T")

CHUNK = 1024**2

_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "abfs": "azure",
    "abfss": "azure",
    "az": "azure",
    "sftp": "sftp",
    "ssh": "sftp",
}
# Their uploads are seen when they are complete; a second name would cost a copy of the whole object.
_OBJECT_STORES = frozenset({"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az"})
_TEMPORARY = re.compile(r"\.unfinished-([0-9]{8}T[0-9]{6}Z)-[0-9a-f]{32}")
_TIME = "%Y%m%dT%H%M%SZ"
# Filesystems without hard links say so in one of these ways.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


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
        protocol = get_protocol(location)
        if protocol in ("file", "local"):
            return _Folder(str(Path(re.sub(r"\A(?:file|local)://", "", location)).absolute()))
        shown, secrets = _redacted(location)
        try:
            filesystem, root = url_to_fs(location, skip_instance_cache=True)
        except ImportError as error:
            extra = _EXTRAS.get(protocol)
            hint = f"pip install 'b44-assets[{extra}]'" if extra else "install the driver that fsspec asks for"
            raise BackupError(f"{shown}: the driver for {protocol}:// is not installed: {hint}") from error
        except Exception as error:
            raise BackupError(f"{shown} cannot be used for backups: {_reason(error, secrets)}") from error
        return _Remote(shown, filesystem, str(root).rstrip("/"), protocol in _OBJECT_STORES, secrets)

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


def _checked(path: str) -> str:
    parts = path.split("/")
    if not path or any(part in ("", ".", "..") or "\0" in part or "\\" in part for part in parts):
        # It may come from a damaged record.
        raise BackupError(f"{path!r} is no path of a file in a store of backups")
    return path


def _temporary(path: str) -> str:
    """Returns a name beside the file, which tells its own age: not every driver knows that of a file."""
    name = f".unfinished-{datetime.now(UTC):{_TIME}}-{uuid.uuid4().hex}"
    return str(PurePosixPath(path).parent / name)


# -- a folder ----------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Folder(Store):
    """A local folder, open to its owner only."""

    @property
    def root(self) -> Path:
        return Path(self.location)

    @contextmanager
    def writing(self, path: str, *, replace: bool = False) -> Generator[Sink]:
        final = self.root / _checked(path)
        temporary = self.root / _temporary(path)
        if not replace and final.exists():
            raise _taken(final)
        with _plainly(f"{final} cannot be written", final):
            _make_folder(final.parent, self.root)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                yield _FileSink(file.fileno(), final)
                with _plainly(f"{final} cannot be written", final):
                    os.fsync(file.fileno())
            with _plainly(f"{final} cannot be written", final):
                _give_name(temporary, final, replace)
                _sync_folder(final.parent)
        finally:
            # Still there only if something has gone wrong, which is what must be seen.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def open(self, path: str) -> BinaryIO:
        file = self.root / _checked(path)
        with _plainly(f"{file} cannot be read"):
            raw = file.open("rb", buffering=0)
        return _reading(raw, lambda error: BackupError(f"{file} cannot be read: {_reason(error, ())}"))

    def exists(self, path: str) -> bool:
        file = self.root / _checked(path)
        with _plainly(f"{file} cannot be looked at"):
            return file.is_file()

    def remove(self, path: str) -> None:
        file = self.root / _checked(path)
        with _plainly(f"{file} cannot be removed"):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty yet
            file.parent.rmdir()

    def _sizes(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        with _plainly(f"{self.root} cannot be listed"):
            for directory, _, files in os.walk(self.root / folder if folder else self.root, onerror=_unless_missing):
                for name in files:
                    file = Path(directory, name)
                    with suppress(FileNotFoundError):  # removed or given its name meanwhile
                        found[file.relative_to(self.root).as_posix()] = file.stat().st_size
        return found


@dataclass(frozen=True)
class _FileSink:
    descriptor: int
    final: Path

    def write(self, data: bytes, /) -> int:
        view = memoryview(data)
        with _plainly(f"{self.final} cannot be written", self.final):
            while view:
                view = view[os.write(self.descriptor, view) :]
        return len(data)


def _give_name(temporary: Path, final: Path, replace: bool) -> None:
    if replace:
        temporary.rename(final)
        return
    try:
        # Unlike a rename, a link never replaces what another process has written meanwhile.
        os.link(temporary, final)
    except FileExistsError:
        raise _taken(final) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if final.exists():
            raise _taken(final) from None
        temporary.rename(final)


def _make_folder(folder: Path, root: Path) -> None:
    """Makes a folder and those above it, so that they outlive a loss of power; from the root on for the owner only."""
    missing = [folder, *folder.parents]
    missing = missing[: next(index for index, path in enumerate(missing) if path.is_dir())]
    for path in reversed(missing):
        with suppress(FileExistsError):
            path.mkdir(mode=0o700 if path.is_relative_to(root) else 0o777)
        _sync_folder(path.parent)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _unless_missing(error: OSError) -> None:
    if not isinstance(error, FileNotFoundError):
        raise error


def _taken(final: object) -> BackupError:
    return BackupError(f"{final} is there already, and is not overwritten")


@contextmanager
def _plainly(what: str, place: Path | None = None) -> Generator[None]:
    try:
        yield
    except OSError as error:
        raise BackupError(_line(what, error, place)) from error


def _line(what: str, error: OSError, place: Path | None = None) -> str:
    return f"{what}: {why(error, place)}"


# -- by fsspec ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class _Remote(Store):
    filesystem: fsspec.AbstractFileSystem = field(repr=False)
    root: str = field(repr=False)
    objects: bool
    secrets: tuple[str, ...] = field(repr=False, default=())

    @contextmanager
    def writing(self, path: str, *, replace: bool = False) -> Generator[Sink]:
        final = self._full(path)
        if not replace and self.exists(path):
            raise _taken(self._shown(path))
        target = final if self.objects else self._full(_temporary(path))
        failed = f"{self._shown(path)} cannot be written"
        if not self.objects:
            self._call(failed, lambda: self.filesystem.makedirs(target.rpartition("/")[0], exist_ok=True))
        file: Any = self._call(failed, lambda: self.filesystem.open(target, "wb"))
        if hasattr(file, "set_pipelined"):
            # By SFTP: else each 32 KiB wait for an answer. Faults show at the end, and the size is looked at, too.
            file.set_pipelined(True)
        sink = _RemoteSink(self, failed, file)
        try:
            yield sink
            self._call(failed, file.close)
            self._check_size(failed, target, sink.written)
            if not self.objects:
                self._call(failed, lambda: self.filesystem.mv(target, final))
        except BaseException:
            self._give_up(file, target)
            raise

    def open(self, path: str) -> BinaryIO:
        failed = f"{self._shown(path)} cannot be read"
        file = self._call(failed, lambda: self.filesystem.open(self._full(path), "rb"))
        return _reading(file, lambda error: self._error(failed, error))

    def exists(self, path: str) -> bool:
        full = self._full(path)
        self.filesystem.invalidate_cache()
        return bool(self._call(f"{self._shown(path)} cannot be looked at", lambda: self._is_file(full)))

    def remove(self, path: str) -> None:
        full = self._full(path)
        with suppress(FileNotFoundError):
            self._call(
                f"{self._shown(path)} cannot be removed", lambda: self.filesystem.rm_file(full), FileNotFoundError
            )

    def _sizes(self, folder: str) -> dict[str, int]:
        # Drivers remember listings, and others write, too.
        self.filesystem.invalidate_cache()
        top = f"{self.root}/{folder}" if folder else self.root
        failed = f"{self.location} cannot be listed"
        try:
            found: Any = self._call(failed, lambda: self.filesystem.find(top, detail=True), FileNotFoundError)
        except FileNotFoundError:
            return {}
        return {
            name[len(self.root) :].lstrip("/"): int(info["size"] or 0)
            for name, info in found.items()
            if info.get("type") == "file"
        }

    def _is_file(self, full: str) -> bool:
        # `isfile` of fsspec takes a refusal for a "no".
        try:
            return self.filesystem.info(full)["type"] == "file"
        except FileNotFoundError:
            return False

    def _check_size(self, failed: str, target: str, written: int) -> None:
        self.filesystem.invalidate_cache()
        size: Any = self._call(failed, lambda: self.filesystem.info(target)["size"])
        if size != written:
            raise BackupError(
                f"{failed}: {written} {plural(written, 'byte was', 'bytes were')} sent,"
                f" and {size} {plural(size, 'has', 'have')} arrived"
            )

    def _give_up(self, file: Any, target: str) -> None:
        """Leaves nothing behind, as far as the store lets us; a remainder has a temporary name, or is no object at all."""
        try:
            if self.objects:
                if not file.closed:
                    if hasattr(file, "discard"):
                        file.discard()
                    # Else it would be completed when the object is garbage: fsspec closes it then.
                    file.closed = True
                    return
            else:
                file.close()
            self.filesystem.rm_file(target)
        except FileNotFoundError:
            return
        except Exception as error:
            logger.warning("%s: a remainder may be left: %s", self.location, _reason(error, self.secrets))

    def _full(self, path: str) -> str:
        return f"{self.root}/{_checked(path)}"

    def _shown(self, path: str) -> str:
        return f"{self.location.rstrip('/')}/{path}"

    def _call(self, failed: str, call: Callable[[], T], *passed: type[Exception]) -> T:
        """Calls the driver; whatever it raises is one line, since each has errors of its own."""
        try:
            return call()
        except passed:
            raise
        except Exception as error:
            raise self._error(failed, error) from error

    def _error(self, failed: str, error: Exception) -> BackupError:
        return BackupError(f"{failed}: {_reason(error, self.secrets)}")


@dataclass
class _RemoteSink:
    store: _Remote
    failed: str
    file: Any
    written: int = 0

    def write(self, data: bytes, /) -> int:
        self.store._call(self.failed, lambda: self.file.write(data))  # pyright: ignore[reportPrivateUsage]
        self.written += len(data)
        return len(data)


def _reading(file: Any, fault: Callable[[Exception], BackupError]) -> BinaryIO:
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


def _redacted(url: str) -> tuple[str, tuple[str, ...]]:
    """Returns the URL without what may be secret, and that."""
    try:
        parts = urlsplit(url)
        password = parts.password
    except ValueError:
        return f"{url.partition('://')[0]}://…", ()
    place = parts.netloc
    if password is not None:
        place = f"{unquote(parts.username or '')}:***@{place.rpartition('@')[2]}"
    secrets = tuple({password, unquote(password)}) if password else ()
    return f"{parts.scheme}://{place}{parts.path}", secrets


def _reason(error: Exception, secrets: tuple[str, ...]) -> str:
    if isinstance(error, OSError) and error.strerror:
        text = why(error, "") if is_full(error) else error.strerror
    else:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        text = f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__
    for secret in secrets:
        text = text.replace(secret, "***")
    return text if len(text) <= 300 else f"{text[:300]}…"
