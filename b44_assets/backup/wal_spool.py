"""The spool, where the server puts its finished WAL, and from which it is taken to the store.

The server does so by a command that needs nothing but the shell. From the spool a segment is sealed into the store, and
only then leaves it. So the server never waits for a network, and a store that is out of reach or full costs nothing but
space in the spool.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import re
import shlex
import struct
import tempfile
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.encryption import ending, seal
from b44_assets.backup.lsn import Segment, lsn
from b44_assets.backup.model import WalFile
from b44_assets.backup.store import CHUNK, in_one_line
from b44_assets.backup.wal_archive import NAME, digest_of, files_of_name, folder_of, is_segment
from b44_assets.wording import plural

_SPOOLED = re.compile(NAME)
_UNFINISHED = ".unfinished-"
_UNFINISHED_SECONDS = 3600
"""How old an unfinished file in the spool is when nobody can be writing it any more."""
_MEMORY = 32 * CHUNK

# The first page of a segment: magic, flags, timeline, its position, length of a record from before, padding; then the
# system's identifier and the size of a segment.
_HEADER = struct.Struct("=HHIQI4xQI")
_LONG_HEADER = 0x0002


@dataclass(frozen=True)
class Waiting:
    """What the spool holds.

    Attributes:
        files: How many wait.
        bytes: Their size.
        oldest: Since when the oldest waits; None where none does.
    """

    files: int
    bytes: int
    oldest: datetime | None


@dataclass(frozen=True)
class Shipped:
    """What was taken from the spool to the store.

    Attributes:
        files: How many.
        bytes: Their size in the store.
        waiting: What is left in the spool.
        refused: Why something is, each file in one line.
    """

    files: int
    bytes: int
    waiting: Waiting
    refused: tuple[str, ...]


def archive_command(spool: Path) -> str:
    """Returns the server's `archive_command`, which puts a finished segment into the spool.

    It never overwrites: the same once more (the server may ask twice after a crash) is a success, anything else under a
    name that is taken a failure. A full spool is a failure, too, which leaves nothing that counts; the server keeps the
    segment and tries again. What it reports as done is on disk.

    Args:
        spool: The folder; a relative one is looked for from the server's data directory.

    Returns:
        The command, not yet quoted for `postgresql.conf`.
    """
    folder = shlex.quote(str(spool)).replace("%", "%%")
    # A link fails where the name is taken. The group of the spool may read it, if that is how it is set up.
    return (
        f'd={folder}; f="$d/%f"; t="$d/{_UNFINISHED}%f-$$"; umask 007;'
        ' if [ -e "$f" ]; then cmp -s "%p" "$f" && sync "$f" "$d";'
        ' elif cat "%p" >"$t" && sync "$t" && ln "$t" "$f"; then rm -f "$t"; sync "$d";'
        ' else rm -f "$t"; exit 1; fi'
    )


def waiting(spool: Path) -> Waiting:
    """Returns what waits in the spool to be taken to the store.

    Raises:
        BackupError: It cannot be read.
    """
    found: list[os.stat_result] = []
    for file in _spooled(spool):
        with suppress(FileNotFoundError):  # shipped meanwhile
            found.append(file.stat())
    oldest = min((stat.st_mtime for stat in found), default=None)
    return Waiting(
        len(found),
        sum(stat.st_size for stat in found),
        None if oldest is None else datetime.fromtimestamp(oldest, UTC),
    )


def ship(spool: Path, catalogue: Catalogue, system: str, progress: Callable[[int], None] | None = None) -> Shipped:
    """Takes what the server has archived from the spool to the store; one process at a time, others wait.

    May be killed at any point: a file leaves the spool when it is in the store, and what is in both is compared.

    Args:
        spool: The folder.
        catalogue: Whose store it goes to, sealed with its key.
        system: The cluster's system identifier.
        progress: Told of the bytes that each file has in the store.

    Raises:
        BackupError: The spool cannot be read, or the store refuses a file; what was shipped until then stays shipped.
    """
    files = stored = 0
    refused: list[str] = []
    with _locked(spool):
        _clear(spool)
        for file in _spooled(spool):
            if fault := _unfit(file, system):
                refused.append(fault)
                continue
            found = files_of_name(catalogue.store, system, file.name)
            if not any(_holds(catalogue, known, file) for known in found):
                sound = [known for known in found if digest_of(catalogue, known) is not None]
                if sound:
                    refused.append(f"{file}: the archive has another segment of that name, {sound[0].path}")
                    continue
                size = _store(file, catalogue, system)
                stored += size
                files += 1
                if progress is not None:
                    progress(size)
            with in_one_line(f"{file} cannot be removed"):
                file.unlink()
    return Shipped(files, stored, waiting(spool), tuple(refused))


@contextmanager
def _locked(spool: Path) -> Generator[None]:
    with in_one_line(f"{spool} cannot be read"):
        descriptor = os.open(spool, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with in_one_line(f"{spool} cannot be locked"):
            fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
    finally:
        os.close(descriptor)


def _clear(spool: Path) -> None:
    """Removes what commands that were killed have left behind."""
    with in_one_line(f"{spool} cannot be cleared"):
        for file in spool.glob(f"{_UNFINISHED}*"):
            with suppress(FileNotFoundError):  # finished meanwhile
                if time.time() - file.stat().st_mtime > _UNFINISHED_SECONDS:
                    file.unlink()


def _spooled(spool: Path) -> list[Path]:
    """Returns the finished files in the order in which they came to be; histories before their timeline's segments."""
    with in_one_line(f"{spool} cannot be read"):
        return sorted(file for file in spool.iterdir() if _SPOOLED.fullmatch(file.name) and file.is_file())


def _unfit(file: Path, system: str) -> str | None:
    """Returns why a file of the spool is not to be shipped, if it is not: the archive must not mix clusters."""
    if not is_segment(file.name) and not file.name.endswith(".partial"):
        return None
    with in_one_line(f"{file} cannot be read"), file.open("rb") as opened:
        head = opened.read(_HEADER.size)
        size = os.fstat(opened.fileno()).st_size
    if len(head) < _HEADER.size:
        return f"{file} is no WAL segment: it has {size} {plural(size, 'byte')}"
    _, flags, _, start, _, found, segment_size = _HEADER.unpack(head)
    if not flags & _LONG_HEADER or segment_size < CHUNK or segment_size & (segment_size - 1):
        return f"{file} is no WAL segment: it does not begin like one"
    if str(found) != system:
        return f"{file} belongs to another cluster ({found}) than the one that is backed up ({system})"
    if size != segment_size:
        return f"{file} is incomplete: {size} of {segment_size} {plural(segment_size, 'byte')}"
    if start != Segment.named(file.name, segment_size).number * segment_size:
        return f"{file} is not the segment that its name says: it begins at {lsn(start)}"
    return None


def _store(file: Path, catalogue: Catalogue, system: str) -> int:
    # Its name has the checksum, which is known at the end.
    with tempfile.SpooledTemporaryFile(_MEMORY) as sealed:
        # What is sealed is spooled, which fails where that folder's disk is full.
        with in_one_line(f"{file} cannot be read", Path(tempfile.gettempdir())), file.open("rb") as source:
            result = seal(source, sealed, catalogue.key)
        sealed.seek(0)
        target = f"{folder_of(system, file.name)}{file.name}-{result.sha256}{ending(catalogue.key)}"
        # What has this name is this, or was found damaged.
        catalogue.store.put(target, sealed, replace=True)  # pyright: ignore[reportArgumentType]
        return result.size


def _holds(catalogue: Catalogue, known: WalFile, file: Path) -> bool:
    found = digest_of(catalogue, known)
    if found is None:
        return False
    with in_one_line(f"{file} cannot be read"), file.open("rb") as source:
        return found == hashlib.file_digest(source, "sha256").hexdigest()
