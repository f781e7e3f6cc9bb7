"""A store of backups in a local folder."""

from __future__ import annotations

import errno
import os
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from b44_assets.backup.store import Sink, Store, checked, in_one_line, reading, reason, taken, temporary_name
from b44_assets.errors import BackupError

# Filesystems without hard links say so in one of these ways.
_NO_LINKS = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK, errno.EXDEV})


def folder_store(location: str) -> Store:
    """Returns the store in a folder; it is made when something is written."""
    return _FolderStore(str(Path(location).absolute()))


@dataclass(frozen=True)
class _FolderStore(Store):
    """A local folder, open to its owner only."""

    @property
    def root(self) -> Path:
        return Path(self.location)

    @contextmanager
    def writing(self, path: str, *, replace: bool = False) -> Generator[Sink]:
        final = self.root / checked(path)
        temporary = self.root / temporary_name(path)
        if not replace and final.exists():
            raise taken(final)
        with in_one_line(f"{final} cannot be written", final):
            _make_folder(final.parent, self.root)
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            with os.fdopen(descriptor, "wb", buffering=0) as file:
                yield _FileSink(file.fileno(), final)
                with in_one_line(f"{final} cannot be written", final):
                    os.fsync(file.fileno())
            with in_one_line(f"{final} cannot be written", final):
                _give_name(temporary, final, replace)
                _sync_folder(final.parent)
        finally:
            # Still there only if something has gone wrong, which is what must be seen.
            with suppress(OSError):
                temporary.unlink(missing_ok=True)

    def open(self, path: str) -> BinaryIO:
        file = self.root / checked(path)
        with in_one_line(f"{file} cannot be read"):
            raw = file.open("rb", buffering=0)
        return reading(raw, lambda error: BackupError(f"{file} cannot be read: {reason(error, ())}"))

    def exists(self, path: str) -> bool:
        file = self.root / checked(path)
        with in_one_line(f"{file} cannot be looked at"):
            return file.is_file()

    def remove(self, path: str) -> None:
        file = self.root / checked(path)
        with in_one_line(f"{file} cannot be removed"):
            file.unlink(missing_ok=True)
        with suppress(OSError):  # not empty yet
            file.parent.rmdir()

    def _sizes(self, folder: str) -> dict[str, int]:
        found: dict[str, int] = {}
        with in_one_line(f"{self.root} cannot be listed"):
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
        with in_one_line(f"{self.final} cannot be written", self.final):
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
        raise taken(final) from None
    except OSError as error:
        if error.errno not in _NO_LINKS:
            raise
        if final.exists():
            raise taken(final) from None
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
