"""A store of backups at whatever fsspec has a driver for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from typing import Any, BinaryIO, TypeVar
from urllib.parse import unquote, urlsplit

import fsspec
from fsspec.core import url_to_fs

from b44_assets.backup.store import Sink, Store, checked, reading, reason, taken, temporary_name
from b44_assets.errors import BackupError
from b44_assets.wording import plural

logger = logging.getLogger(__name__)
T = TypeVar("T")
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


def remote_store(location: str, protocol: str) -> Store:
    """Returns the store at an fsspec URL.

    Args:
        location: The URL.
        protocol: Of the URL.

    Raises:
        BackupError: There is no driver for it, or it cannot be read; names the extra that brings the driver.
    """
    shown, secrets = _redacted(location)
    try:
        filesystem, root = url_to_fs(location, skip_instance_cache=True)
    except ImportError as error:
        extra = _EXTRAS.get(protocol)
        hint = f"pip install 'b44-assets[{extra}]'" if extra else "install the driver that fsspec asks for"
        raise BackupError(f"{shown}: the driver for {protocol}:// is not installed: {hint}") from error
    except Exception as error:
        raise BackupError(f"{shown} cannot be used for backups: {reason(error, secrets)}") from error
    return _RemoteStore(shown, filesystem, str(root).rstrip("/"), protocol in _OBJECT_STORES, secrets)


@dataclass(frozen=True)
class _RemoteStore(Store):
    """A place by fsspec, its driver's faults told in one line.

    Attributes:
        filesystem: The driver.
        root: The folder, as the driver names it.
        objects: Whether a file is seen only when it is complete.
        secrets: What no message may show.
    """

    filesystem: fsspec.AbstractFileSystem = field(repr=False)
    root: str = field(repr=False)
    objects: bool
    secrets: tuple[str, ...] = field(repr=False, default=())

    @contextmanager
    def writing(self, path: str, *, replace: bool = False) -> Generator[Sink]:
        final = self._full(path)
        if not replace and self.exists(path):
            raise taken(self._shown(path))
        target = final if self.objects else self._full(temporary_name(path))
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
        return reading(file, lambda error: self._error(failed, error))

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
            logger.warning("%s: a remainder may be left: %s", self.location, reason(error, self.secrets))

    def _full(self, path: str) -> str:
        return f"{self.root}/{checked(path)}"

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
        return BackupError(f"{failed}: {reason(error, self.secrets)}")


@dataclass
class _RemoteSink:
    store: _RemoteStore
    failed: str
    file: Any
    written: int = 0

    def write(self, data: bytes, /) -> int:
        self.store._call(self.failed, lambda: self.file.write(data))  # pyright: ignore[reportPrivateUsage]
        self.written += len(data)
        return len(data)


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
