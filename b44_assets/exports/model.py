"""What reading an export yields: files, dialects, batches of text cells, and records that could not be read."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from re import Pattern
from types import TracebackType
from typing import Literal, Self

import pyarrow as pa

from b44_assets.exports.names import IdWatch
from b44_assets.exports.stream import ExportStream

BUILT_IN_FIELDS = ("id", "created_date", "updated_date", "created_by_id", "created_by", "is_sample")
"""What records of every entity have, whatever its schema says."""

INTERNAL_FIELDS = ("is_deleted", "deleted_date", "entity_name", "app_id", "environment")
"""What Base44 keeps with a record for itself, and exports sometimes."""

CREATOR_FIELDS = ("created_by_id", "created_by")
"""Those of them that say who made a record."""

NOBODY = frozenset({"null", "undefined"})
"""What stands there, in any case, where a program made a record for nobody: in every dialect, so that it is no null of the file's."""

MAX_FIELDS = 100_000
"""Most fields a file may have; more are no fields, but data in the place of their names."""

MAX_CSV_FIELDS = 8_000
"""Most fields of a CSV file: its rows are looked through with expressions that repeat a cell so often at most."""

MAX_RECORD_BYTES = 128 << 20
"""Longest record, in bytes, that is waited for before the file is given up."""

DialectName = Literal["2025-06", "2025-08", "2026-06", "spreadsheet", "json", "jsonl", "empty"]
RefusalReason = Literal["malformed_record", "invalid_encoding"]


@dataclass(frozen=True)
class ExportFile:
    """One file of an export.

    Attributes:
        entity: The entity as the file's name spells it, such as `Post` or `commerce.Order`.
        path: Where the file is.
    """

    entity: str
    path: Path


@dataclass(frozen=True)
class Dialect:
    r"""How a file is written; found from its content alone.

    In a spreadsheet's file, a row with a quote that is never closed, before one with a quote that is never opened, is one
    well-formed cell with a line break in it: it is read as one record, as text that holds rows of CSV looks the same.

    Attributes:
        name: `2025-06`, `2025-08` and `2026-06` are the dashboard's CSV by its first month, `spreadsheet` is CSV saved
            again by hand, `json` one array of objects, `jsonl` one object a line, `empty` a file without content.
        delimiter: Between the cells of a CSV file: `,`, `;` or a tab; empty for the others.
        byte_order_mark: The file begins with the UTF-8 signature.
        all_quoted: Every cell stands in quotes, so a record has exactly as many cells as the header has names.
        null_literals: Whole cells that mean NULL.
        guarded: One `'` stands before cells that begin with `=`, `+`, `-` or `@`.
        doubled_json: Quotes in JSON cells are doubled twice.
    """

    name: DialectName
    delimiter: str = ""
    byte_order_mark: bool = False
    all_quoted: bool = False
    null_literals: tuple[str, ...] = ()
    guarded: bool = False
    doubled_json: bool = False


@dataclass(frozen=True)
class Refused:
    r"""A record that is not among the rows.

    Attributes:
        record_number: Place in the file, from 1, over all records, refused ones included; the header does not count.
        reason: `malformed_record` when it cannot be split into cells, `invalid_encoding` when it holds invalid UTF-8,
            NUL or a lone surrogate, none of which PostgreSQL can store.
        detail: The fault in a few words, such as `3 cells instead of 14`.
        record: For `invalid_encoding` the cells by field, otherwise `_raw` with the text of the record. Undecodable
            bytes, NUL and lone surrogates are made visible as `\xff`, `\x00`, `\ud800`; other backslashes stay.
    """

    record_number: int
    reason: RefusalReason
    detail: str
    record: dict[str, str | None]


@dataclass(frozen=True)
class Whole:
    """Which records of a CSV file may come as they stand there, instead of in columns.

    Attributes:
        suspect: Found in the bytes of every record that may not; None where every record may.
        harmless: A pattern of bytes for the text of a field named in `unchanged`, its quotes doubled: such a one is not asked of.
        unchanged: By field, what tells of its text whether the record may all the same; asked where `suspect` is found.
    """

    suspect: Pattern[bytes] | None = None
    harmless: bytes | None = None
    unchanged: Mapping[str, Callable[[str], bool]] = field(default_factory=dict[str, Callable[[str], bool]])


@dataclass(frozen=True)
class Lines:
    """Records as they stand in the file: cells in UTF-8 between commas, in quotes or bare, an empty one of either sort NULL.

    Attributes:
        record_numbers: One per record, ascending.
        texts: The bytes of each, without line end; they hold no NUL, but may hold line breaks within quotes.
        ids: Reads the id of each, where there is such a field; quotes in it are doubled still.
    """

    record_numbers: Sequence[int]
    texts: Sequence[bytes]
    ids: Callable[[], Iterator[str]]


@dataclass(frozen=True)
class Batch:
    """Some consecutive records of a file.

    Attributes:
        record_numbers: Int64, one per row, ascending; its length is the number of rows.
        columns: One `string` column per field known so far (beyond the first 500 only for fields met here), as many rows as
            `record_numbers`; null is NULL. (A JSON record without any key makes a row with no column at all, which only
            `record_numbers` shows.)
        refused: Records of the same stretch that are not among the rows, ascending.
        lines: Further records of the same stretch, where they were asked for.
    """

    record_numbers: pa.Int64Array
    columns: pa.RecordBatch
    refused: tuple[Refused, ...] = ()
    lines: Lines | None = None

    @property
    def records(self) -> int:
        """How many records it holds, refused ones included."""
        return (
            len(self.record_numbers) + len(self.refused) + (0 if self.lines is None else len(self.lines.record_numbers))
        )


ENDS_WITHIN = "ends within a record"
NOT_CLOSED = "array not closed"
"""Oddities of a file whose end is missing."""


class ExportReader(ABC):
    """An open export file, read once from beginning to end in bounded memory.

    Attributes:
        file: The file being read.
        dialect: How it is written.
        oddities: What was unusual and how often, such as `byte order mark` or `rows cut short`; complete after reading.
        size: Of the file, in bytes.
        modified_at: When the file was last changed (UTC).
    """

    def __init__(
        self, file: ExportFile, dialect: Dialect, stream: ExportStream, size: int, known: Sequence[str] = ()
    ) -> None:
        """Take over an open stream; closed together with the reader.

        Args:
            file: What is read.
            dialect: How it is written.
            stream: Its bytes.
            size: Of the file, in bytes.
            known: Fields that are looked for; with them, a file none of whose records has an id is refused.
        """
        self.modified_at = stream.modified_at
        self.file = file
        self.dialect = dialect
        self.oddities: Counter[str] = Counter()
        self.size = size
        self._stream = stream
        self._known = known
        self._started = False
        if dialect.byte_order_mark:
            self.oddities["byte order mark"] += 1

    @property
    @abstractmethod
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in the file's order; for CSV known at once, for JSON growing while reading."""

    @property
    @abstractmethod
    def bytes_read(self) -> int:
        """How far into the file reading has come, in bytes; `size` at the end."""

    @abstractmethod
    def _read(self, whole: Whole | None) -> Iterator[Batch]: ...

    def batches(self, whole: Whole | None = None) -> Iterator[Batch]:
        """Read the records in the file's order.

        Args:
            whole: Which records may come as lines, where the file is such that they can; by default, none.

        Yields:
            Batches of at least one row or refused record each, their columns grown by fields met since the last one.

        Raises:
            ExportError: The file cannot be read on, a record is longer than 128 MiB, or none of them has an id.
            RuntimeError: Called a second time.
        """
        if self._started:
            raise RuntimeError(f"{self.file.path} has been read already; open it again")
        self._started = True
        return self._watched(whole) if self._known else self._read(whole)

    def _watched(self, whole: Whole | None) -> Iterator[Batch]:
        watch = IdWatch(str(self.file.path), self._known)
        for batch in self._read(whole):
            unstorable = [one.record.get("id") for one in batch.refused if one.reason == "invalid_encoding"]
            watch.see(unstorable, len(unstorable))
            has_id = "id" in batch.columns.schema.names
            watch.see(
                (cell.as_py() for cell in batch.columns.column("id")) if has_id else (), len(batch.record_numbers)
            )
            if batch.lines is not None:
                watch.see(batch.lines.ids(), len(batch.lines.record_numbers))
            yield batch
        watch.require(self.fields)

    @property
    def digest(self) -> str:
        """SHA-256, in hexadecimal, of the bytes that the records were read from; complete after reading."""
        return self._stream.digest

    def digest_of_all(self) -> str:
        """Read all of the file before its records; return its SHA-256 in hexadecimal."""
        return self._stream.digest_of_all()

    def require_unchanged(self) -> None:
        """Raise ExportChangedError where the file is not what it was when it was opened."""
        self._stream.require_unchanged()

    def close(self) -> None:
        """Close the file; harmless when called again."""
        self._stream.close()

    def __enter__(self) -> Self:
        """Return the reader itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Close the file."""
        self.close()
