"""Writes a synthetic export into a folder: a file for each entity, and the truth about them."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from b44_assets.errors import ExportError, SettingsError, why
from b44_assets.sample.dialects import DIALECTS, Record, file_name, form_of
from b44_assets.sample.entities import (
    AuditLogMaker,
    Cast,
    CategoryMaker,
    EventMaker,
    Maker,
    PostMaker,
    UserMaker,
    UserPreferenceMaker,
    UserSessionMaker,
)
from b44_assets.sample.truth import Truth

# An entity of the app that has no records: its file exists where the dashboard writes one, and has no bytes.
_EMPTY_ENTITY: Final = "Comment"
_TRUTH: Final = "truth.json"
_BUFFER = 1 << 20
_PROGRESS_STEP = 5_000


@dataclass(frozen=True)
class SampleReport:
    """What was written.

    Attributes:
        files: Name of each export file to the number of records in it, `truth.json` not included.
        bytes: Size of the export files together, `truth.json` not included.
    """

    files: dict[str, int]
    bytes: int


class _Progress:
    """Reports done records to a callback, not more often than is of use."""

    def __init__(self, total: int, report: Callable[[int, int], None] | None) -> None:
        self._total = total
        self._report = report
        self._done = 0

    def watch(self, records: Iterator[Record], planned: int) -> Iterator[Record]:
        """Passes on an entity's records; the copies planted besides the planned ones do not count."""
        for number, record in enumerate(records):
            yield record
            if self._report is not None and number % _PROGRESS_STEP == 0 and number < planned:
                self._report(self._done + number, self._total)
        self._done += planned
        if self._report is not None:
            self._report(self._done, self._total)


def write_sample(
    directory: Path,
    *,
    users: int,
    posts: int,
    seed: int,
    dialect: str,
    faults: float = 0.02,
    progress: Callable[[int, int], None] | None = None,
    truth: bool = True,
) -> SampleReport:
    """Writes a synthetic export of the seven entities of the blog; the same arguments give the same bytes.

    Memory does not grow with the number of posts, but for the values in `truth.json`: those of all posts up to 50,000,
    and of the first 1,000 beyond. The files take their names only when all of them are whole.

    Args:
        directory: Where to write; made if need be.
        users: User records, at least 1; the other entities but posts follow it.
        posts: Post records; exact repeats and older versions come on top, here as in the other entities.
        seed: Tells samples apart.
        dialect: One of `DIALECTS`.
        faults: The share of records with something planted in them, 0 to 1. Not all of it leads to quarantine.
        progress: Called with records done and records in all, every few thousand and at the end of each file.
        truth: Whether to write `truth.json`.

    Raises:
        SettingsError: If a number is out of its range or the dialect is unknown.
        ExportError: If the folder holds an export already, or cannot be written to.
    """
    if dialect not in DIALECTS:
        raise SettingsError(f"there is no dialect {dialect!r}; choose one of {', '.join(DIALECTS)}")
    if users < 1:
        raise SettingsError(f"a sample needs at least 1 user, not {users}")
    if posts < 0:
        raise SettingsError(f"a sample cannot have {posts} posts")
    if not 0 <= faults <= 1:
        raise SettingsError(f"the share of faults must be between 0 and 1, not {faults:g}")
    try:
        return _write(directory, users, posts, seed, dialect, faults, progress, truth)
    except OSError as error:
        raise ExportError(f"cannot write a sample to {directory}: {why(error, directory)}") from error


def _write(
    directory: Path,
    users: int,
    posts: int,
    seed: int,
    dialect: str,
    faults: float,
    progress: Callable[[int, int], None] | None,
    with_truth: bool,
) -> SampleReport:
    directory.mkdir(parents=True, exist_ok=True)
    for path in sorted(directory.iterdir()):
        if path.suffix.lower() in (".csv", ".json", ".jsonl"):
            raise ExportError(f"{directory} already holds {path.name}; choose a folder without export files")

    categories = 24 + min(users // 50, 176)
    book = Truth(dialect, {"users": users, "categories": categories, "posts": posts})
    cast = Cast()
    half = (users + 1) // 2
    # Preferences have one user each, and not every user is migrated; so many there are at least.
    planned: list[tuple[type[Maker], int]] = [
        (UserMaker, users),
        (CategoryMaker, categories),
        (PostMaker, posts),
        (EventMaker, half),
        (UserPreferenceMaker, half),
        (UserSessionMaker, users),
        (AuditLogMaker, 2 * users),
    ]
    tracker = _Progress(sum(count for _, count in planned), progress)
    files: dict[str, int] = {}
    written: list[Path] = []
    size = 0
    try:
        for kind, count in planned:
            maker = kind(seed, faults, book, cast)
            if kind is UserPreferenceMaker:
                count = min(count, len(cast.people))
            name = file_name(dialect, maker.entity)
            written.append(directory / f"{name}.part")
            records = tracker.watch(maker.records(count), count)
            files[name], length = _write_entity(written[-1], dialect, records)
            size += length
        if not dialect.startswith("json"):
            name = file_name(dialect, _EMPTY_ENTITY)
            written.append(directory / f"{name}.part")
            files[name], _ = _write_entity(written[-1], dialect, iter(()))
        if with_truth:
            written.append(directory / f"{_TRUTH}.part")
            with written[-1].open("w", encoding="utf-8", newline="\n") as out:
                out.writelines(book.lines())
        for path in written:
            path.rename(path.with_suffix(""))
    finally:
        for path in written:
            path.unlink(missing_ok=True)
    return SampleReport(files, size)


def _write_entity(path: Path, dialect: str, records: Iterator[Record]) -> tuple[int, int]:
    """Writes one file; returns how many records and how many bytes it has."""
    count = 0
    with path.open("wb", buffering=_BUFFER) as out:
        first = next(records, None)
        if first is None:
            out.write(form_of(dialect, ()).empty.encode())
        else:
            form = form_of(dialect, tuple(first))
            encode, separator, write = form.encode, form.separator, out.write
            write((form.opening + encode(first)).encode())
            count = 1
            for record in records:
                write((separator + encode(record)).encode())
                count += 1
            write(form.closing.encode())
        return count, out.tell()
