"""The archive of the WAL: what it holds, what is missing there, and what a recovery takes of it.

In the store a file has one of these paths:

    wal/<system>/<timeline and first half of the segment>/<name>-<sha256 of what is stored>.zst[.age]
    wal/<system>/history/<name>-<sha256 of what is stored>.zst[.age]
"""

from __future__ import annotations

import hashlib
import io
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.encryption import unseal
from b44_assets.backup.lsn import (
    HISTORY_NAME,
    SEGMENT_NAME,
    History,
    Segment,
    Stretch,
    history,
    lsn,
    newest_timeline,
    path,
    position,
    segments,
)
from b44_assets.backup.model import WalFile
from b44_assets.backup.store import CHUNK, Store, in_one_line
from b44_assets.errors import BackupError, BadBackupError
from b44_assets.wording import plural

NAME = r"[0-9A-F]{24}(?:\.partial|\.[0-9A-F]{8}\.backup)?|[0-9A-F]{8}\.history"
_ARCHIVED = re.compile(rf"wal/([0-9]+)/[^/]+/({NAME})-([0-9a-f]{{64}})\.zst(\.age)?")


@dataclass(frozen=True)
class Fetched:
    """What was laid out of the archive for a recovery.

    Attributes:
        timeline: The one that it leads to.
        segments: How many segments, one after the other.
        end_lsn: Where they end: a recovery gets no further.
        faults: Why they end there, if the archive has more: the missing or damaged segment, in one line.
    """

    timeline: int
    segments: int
    end_lsn: str
    faults: tuple[str, ...]


def wal_files(store: Store, system: str) -> list[WalFile]:
    """Returns what the archive of a cluster holds, by name.

    Args:
        store: Where it lies.
        system: The cluster's system identifier.

    Raises:
        BackupError: The store cannot be listed.
    """
    return _parsed(store, f"wal/{system}/")


def systems(store: Store) -> list[str]:
    """Returns the identifiers of the clusters that the archive has WAL of.

    Raises:
        BackupError: The store cannot be listed.
    """
    return sorted({file.split("/")[1] for file in store.names("wal/") if _ARCHIVED.fullmatch(file)})


def histories(catalogue: Catalogue, files: Sequence[WalFile]) -> dict[int, History]:
    """Reads the histories of the timelines that the archive knows, by timeline.

    Args:
        catalogue: Whose store and key.
        files: As `wal_files` gives them.

    Raises:
        BackupError: The store cannot be read, or the key is missing or another one.
        BadBackupError: One is damaged; names it.
    """
    found: dict[int, History] = {}
    for file in files:
        if match := HISTORY_NAME.fullmatch(file.name):
            text = io.BytesIO()
            _unseal(catalogue, file, text)
            try:
                found[int(match[1], 16)] = history(text.getvalue().decode())
            except ValueError as error:
                raise BadBackupError(f"{file.path} is damaged: {error}") from error
    return found


def gaps(
    files: Sequence[WalFile],
    segment_size: int,
    start_lsn: str,
    timeline: int,
    known: Mapping[int, History] | None = None,
) -> list[str]:
    """Returns the names of the segments that the archive lacks between a position and its newest segment.

    Args:
        files: As `wal_files` gives them.
        segment_size: In bytes.
        start_lsn: From where on the WAL is needed.
        timeline: On which that lies.
        known: The timelines' histories, as `histories` gives them.

    Raises:
        ValueError: The names do not fit the size of a segment.
    """
    known = known or {}
    start = position(start_lsn)
    stretches = path(start, timeline, newest_timeline(start, timeline, known), known)
    present = {Segment.named(file.name, segment_size) for file in files if is_segment(file.name)}
    last = _last(present, stretches, segment_size)
    return [
        segment.name(segment_size)
        for segment in segments(start, stretches, last, segment_size)
        if segment not in present
    ]


def fetch(
    catalogue: Catalogue,
    system: str,
    into: Path,
    from_lsn: str,
    timeline: int,
    segment_size: int,
    *,
    target_timeline: int | None = None,
    until_lsn: str | None = None,
    progress: Callable[[str], None] | None = None,
) -> Fetched:
    """Lays what a recovery needs of the archive into a folder, under the names that the server asks for.

    Ends before the first segment that is missing or damaged, for a recovery could not go on either. Stretches of zeros
    take up no space.

    Args:
        catalogue: Whose store and key.
        system: The cluster's system identifier.
        into: The folder; what is there already under a name stays.
        from_lsn: Where the backup begins.
        timeline: On which that lies.
        segment_size: In bytes.
        target_timeline: Where it shall lead; by default the newest that goes on from there.
        until_lsn: Which position is enough; by default as far as the archive goes.
        progress: Told the name of each file.

    Raises:
        BackupError: The store cannot be read, the folder not be written, the key is missing or another one, or the
            timeline does not go on from there.
        BadBackupError: A timeline's history is damaged.
    """
    files = wal_files(catalogue.store, system)
    known = histories(catalogue, files)
    start = position(from_lsn)
    target = newest_timeline(start, timeline, known) if target_timeline is None else target_timeline
    try:
        stretches = path(start, timeline, target, known)
    except ValueError as error:
        raise BackupError(f"the archive of cluster {system}: {error}") from error
    by_name: dict[str, list[WalFile]] = {}
    for file in files:
        by_name.setdefault(file.name, []).append(file)
    if target != timeline:
        for stretch in stretches:
            name = f"{stretch.timeline:08X}.history"
            if name in by_name:
                _lay(catalogue, by_name[name], into / name)
    last = _last([Segment.named(name, segment_size) for name in by_name if is_segment(name)], stretches, segment_size)
    if until_lsn is not None:
        last = min(last, position(until_lsn) // segment_size)
    laid = 0
    end = start
    faults: tuple[str, ...] = ()
    for segment in segments(start, stretches, last, segment_size):
        name = segment.name(segment_size)
        if name not in by_name:
            faults = (f"WAL segment {name} is missing from the archive",)
            break
        try:
            size = _lay(catalogue, by_name[name], into / name)
            if size != segment_size:
                raise BadBackupError(f"WAL segment {name} has {size} {plural(size, 'byte')} instead of {segment_size}")
        except BadBackupError as error:
            (into / name).unlink(missing_ok=True)
            faults = (str(error),)
            break
        laid += 1
        end = (segment.number + 1) * segment_size
        if progress is not None:
            progress(name)
    return Fetched(target, laid, lsn(end), faults)


def examine(catalogue: Catalogue, files: Sequence[WalFile], progress: Callable[[int], None] | None = None) -> list[str]:
    """Reads files of the archive and holds them against their names; needs no key.

    Args:
        catalogue: Whose store.
        files: As `wal_files` gives them.
        progress: Told of the bytes read.

    Returns:
        Each damaged file in one line. One that has gone meanwhile is no fault here: `gaps` sees what is missing.

    Raises:
        BackupError: The store cannot be read.
    """
    faults: list[str] = []
    for file in files:
        if not catalogue.store.exists(file.path):
            continue
        digest = hashlib.sha256()
        with catalogue.store.open(file.path) as source:
            while chunk := source.read(CHUNK):
                digest.update(chunk)
                if progress is not None:
                    progress(len(chunk))
        if digest.hexdigest() != file.sha256:
            faults.append(f"WAL file {file.name} is damaged or truncated: {file.path} is not what its name says")
    return faults


def _last(present: Collection[Segment], stretches: Sequence[Stretch], size: int) -> int:
    """Returns the number of the last segment that must be there.

    What a timeline has after it was left does not count, but all up to there does, even if nothing of the next has come.
    """
    newest = max((segment.number for segment in present if segment.timeline == stretches[-1].timeline), default=-1)
    left = stretches[-2].end if len(stretches) > 1 else None
    return newest if left is None else max(newest, left // size - 1)


def is_segment(name: str) -> bool:
    """Tells whether a file is a whole segment by its name."""
    return SEGMENT_NAME.fullmatch(name) is not None


def folder_of(system: str, name: str) -> str:
    """Returns a folder that holds few enough files to be listed for every file that comes."""
    return f"wal/{system}/{'history' if HISTORY_NAME.fullmatch(name) else name[:16]}/"


def files_of_name(store: Store, system: str, name: str) -> list[WalFile]:
    """Returns what the archive of a cluster holds under one name: more than one file where one of them was damaged."""
    return _parsed(store, f"{folder_of(system, name)}{name}-")


def _parsed(store: Store, prefix: str) -> list[WalFile]:
    files = [
        WalFile(match[2], size, match[3], found, match[4] is not None)
        for found, size in store.names(prefix).items()
        if (match := _ARCHIVED.fullmatch(found))
    ]
    return sorted(files, key=lambda file: (file.name, file.path))


def digest_of(catalogue: Catalogue, file: WalFile) -> str | None:
    """Returns the checksum of what an archived file holds; None if it is damaged."""
    digest = _Digest()
    try:
        _unseal(catalogue, file, digest)
    except BadBackupError:
        return None
    return digest.hash.hexdigest()


class _Digest:
    def __init__(self) -> None:
        self.hash = hashlib.sha256()

    def write(self, data: bytes, /) -> int:
        self.hash.update(data)
        return len(data)


def _unseal(catalogue: Catalogue, file: WalFile, sink: BinaryIO | _Digest | _Sparse) -> int:
    with catalogue.store.open(file.path) as source:
        return unseal(source, sink, catalogue.key, file, f"WAL file {file.path}")


def _lay(catalogue: Catalogue, files: Sequence[WalFile], into: Path) -> int:
    """Writes what the first sound one of these files of one name holds, and returns its size."""
    if into.exists():
        return into.stat().st_size
    faults: list[BadBackupError] = []
    for file in files:
        try:
            with in_one_line(f"{into} cannot be written", into), _create(into) as opened:
                sink = _Sparse(opened)
                size = _unseal(catalogue, file, sink)
                opened.truncate(size)
                return size
        except BadBackupError as error:
            into.unlink(missing_ok=True)
            faults.append(error)
        except BaseException:
            into.unlink(missing_ok=True)
            raise
    raise faults[0]


class _Sparse:
    """Leaves out zeros: the server fills up a segment with them that it was told to leave early."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file

    def write(self, data: bytes, /) -> int:
        if data.count(0) == len(data):
            self._file.seek(len(data), os.SEEK_CUR)
        else:
            self._file.write(data)
        return len(data)


def _create(file: Path) -> BinaryIO:
    return os.fdopen(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600), "wb")
