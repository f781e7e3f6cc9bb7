"""Reading CSV exports: blocks split strictly, parsed by Arrow, then the dialect's nulls and quoting undone."""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import chain
from typing import Any, Final, Self

import pyarrow as pa
import pyarrow.compute
import pyarrow.csv as pa_csv

from b44_assets.exports.csv_blocks import Block, blocks
from b44_assets.exports.csv_grammar import NEVER_CLOSED, Fitted, Good, Malformed, without_line_end
from b44_assets.exports.dialects import UTF8_MARK, CsvForm
from b44_assets.exports.model import ENDS_WITHIN, Batch, ExportFile, ExportReader, Lines, Refused, Whole
from b44_assets.exports.stream import ExportStream
from b44_assets.exports.text import undoubled, visible_bytes

# Its functions are made when it is imported, so a type checker knows none of them.
pc: Final[Any] = pyarrow.compute

_GUARDED: Final = ("'=", "'+", "'-", "'@")
_GUARD: Final = b"'[=+@-]"
# At the beginning of a cell: within one, a quote stands next to another. What it looks for comes first, which is quick.
_GUARDED_CELL: Final = re.compile(b"\"'(?<![^,]\"')(?=[=+@-])")
_UNGUARDED: Final = "guard quotes removed"
_LF: Final = 0x0A


class CsvReader(ExportReader):
    """Reads one CSV file of any dialect."""

    def __init__(
        self,
        file: ExportFile,
        stream: ExportStream,
        form: CsvForm,
        *,
        size: int,
        block_size: int,
        longest_record: int,
        known: Sequence[str] = (),
    ) -> None:
        """Begin at the first record.

        Args:
            file: What is read.
            stream: Its bytes, seekable.
            form: How it is written.
            size: Of the file, in bytes.
            block_size: Bytes to read at a time.
            longest_record: In bytes; what is longer ends the reading.
            known: Fields that are looked for.
        """
        super().__init__(file, form.dialect, stream, size, known)
        self.oddities.update(form.oddities)
        self._form = form
        self._block_size = block_size
        self._longest_record = longest_record
        self._bytes_read = form.begin

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in the header's order."""
        return self._form.fields

    @property
    def bytes_read(self) -> int:
        """How far into the file reading has come, in bytes."""
        return self._bytes_read

    def _read(self, whole: Whole | None) -> Iterator[Batch]:
        number = 1
        lines = None if whole is None or not self._has_plain_lines else _PlainLines(self._form, whole)
        for block in blocks(
            self.file.path,
            self._stream,
            self._form.grammar,
            begin=self._form.begin,
            block_size=self._block_size,
            longest_record=self._longest_record,
            form=None if lines is None else lines.form,
        ):
            self._bytes_read = block.position
            is_open = block.is_last and block.data[-1:] not in (b"", b"\n")
            is_cut = block.is_last and _ends_within(block.split.segments, is_open=is_open)
            for oddity, count in (
                (ENDS_WITHIN, int(is_cut)),
                ("blank lines", block.split.blank_lines),
                ("rows of delimiters only", block.split.separators),
                ("rows cut short", block.split.cut_short),
                ("surplus empty cells", block.split.surplus),
                ("no newline at end", int(is_open and not is_cut and not self.dialect.all_quoted)),
            ):
                if count:
                    self.oddities[oddity] += count
            if block.split.segments:
                yield self._batch(block, number, lines)
                number += block.split.records

    @property
    def _has_plain_lines(self) -> bool:
        """Whether the dialect does nothing to cells that COPY would not undo."""
        return self.dialect.delimiter == "," and self.dialect.null_literals == ("",) and not self.dialect.doubled_json

    def _batch(self, block: Block, number: int, lines: _PlainLines | None) -> Batch:
        """Make a batch of a block whose first record has this number."""
        pieces: list[bytes | memoryview] = []
        numbers: list[Sequence[int]] = []
        refused: list[Refused] = []
        view = memoryview(block.data)
        storable = b"\0" not in block.data and _is_utf8(view[: block.split.consumed])
        plain = _Gathered()
        for segment in block.split.segments:
            if lines is not None and storable and isinstance(segment, Good):
                others = lines.gather(block.data, segment, number, plain)
                pieces += [view[start:end] for _, start, end in others]
                numbers.append([one for one, _, _ in others])
                number += segment.records
                continue
            if isinstance(segment, Malformed):
                raw: dict[str, str | None] = {"_raw": visible_bytes(segment.raw)}
                refused.append(Refused(number, "malformed_record", segment.detail, raw))
            else:
                pieces.append(view[segment.start : segment.end] if isinstance(segment, Good) else segment.row)
                numbers.append(range(number, number + segment.records))
            number += segment.records
        if plain.guards:
            self.oddities[_UNGUARDED] += plain.guards
        rows = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        record_numbers = pa.array(chain.from_iterable(numbers), pa.int64(), size=sum(map(len, numbers)))
        if storable or (b"\0" not in block.data and _is_utf8(rows)):
            columns = self._finished(self._parsed(rows, pa.string(), len(record_numbers)))
        else:
            columns, record_numbers, unstorable = self._storable(rows, record_numbers)
            refused = sorted([*refused, *unstorable], key=lambda one: one.record_number)
        if lines is None or not plain.numbers:
            return Batch(record_numbers, columns, tuple(refused))
        return Batch(
            record_numbers, columns, tuple(refused), Lines(plain.numbers, plain.texts, partial(lines.ids, plain.texts))
        )

    def _parsed(self, rows: bytes | memoryview, kind: pa.DataType, expected: int) -> pa.RecordBatch:
        """Let Arrow split rows that are known to be well-formed into columns, with nulls."""
        schema = pa.schema([(field, kind) for field in self.fields])
        if not expected:
            return pa.RecordBatch.from_pylist([], schema=schema)
        if bytes(rows[:3]) == UTF8_MARK:  # in a cell: Arrow would take it for a mark and drop it
            rows = UTF8_MARK + rows
        table = pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(rows)),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=len(rows) + 1, column_names=list(self.fields)
            ),
            parse_options=pa_csv.ParseOptions(
                delimiter=self.dialect.delimiter, newlines_in_values=True, ignore_empty_lines=False
            ),
            convert_options=pa_csv.ConvertOptions(
                check_utf8=False,
                column_types=schema,
                null_values=list(self.dialect.null_literals),
                strings_can_be_null=True,
                quoted_strings_can_be_null=True,
            ),
        )
        if table.num_rows != expected:
            raise RuntimeError(f"{self.file.path}: {table.num_rows} rows parsed where {expected} were found")
        return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=schema)

    def _storable(
        self, rows: bytes | memoryview, record_numbers: pa.Int64Array
    ) -> tuple[pa.RecordBatch, pa.Int64Array, list[Refused]]:
        """Parse rows some of which hold NUL or invalid UTF-8; tell those apart."""
        parsed = self._parsed(rows, pa.binary(), len(record_numbers))
        details: dict[int, str] = {}
        for name, column in zip(self.fields, parsed.columns, strict=True):
            for row, fault in _faults(column):
                details.setdefault(row, f"field {name}: {fault}")
        bad = sorted(details)
        keep = pa.array((row not in details for row in range(parsed.num_rows)), pa.bool_(), size=parsed.num_rows)
        schema = pa.schema([(field, pa.string()) for field in self.fields])
        shown = self._finished(
            pa.RecordBatch.from_arrays(
                [
                    pa.array([None if cell is None else visible_bytes(cell) for cell in column], pa.string())
                    for column in (column.take(pa.array(bad, pa.int64())).to_pylist() for column in parsed.columns)
                ],
                schema=schema,
            )
        )
        refused = [
            Refused(record_numbers[row].as_py(), "invalid_encoding", details[row], record)
            for row, record in zip(bad, shown.to_pylist(), strict=True)
        ]
        columns = [column.cast(pa.string()) for column in parsed.filter(keep).columns]
        return self._finished(pa.RecordBatch.from_arrays(columns, schema=schema)), record_numbers.filter(keep), refused

    def _finished(self, batch: pa.RecordBatch) -> pa.RecordBatch:
        """Rollback what the dialect does to cells besides quoting them."""
        undo = self._unguarded if self.dialect.guarded else self._halved if self.dialect.doubled_json else None
        if undo is None:
            return batch
        return pa.RecordBatch.from_arrays([undo(column) for column in batch.columns], schema=batch.schema)

    def _unguarded(self, column: pa.StringArray) -> pa.StringArray:
        guarded = _starts_with(column, _GUARDED)
        if not (count := pc.sum(guarded).as_py()):
            return column
        self.oddities[_UNGUARDED] += count
        return pc.if_else(guarded, pc.utf8_slice_codeunits(column, 1), column)

    def _halved(self, column: pa.StringArray) -> pa.StringArray:
        mask = pc.fill_null(_starts_with(column, ("{", "[")), False)
        if not pc.any(mask).as_py():
            return column
        cells = column.filter(mask).to_pylist()
        halved = [undoubled(cell) for cell in cells]
        if count := sum(cell is not None for cell in halved):
            self.oddities["cells un-doubled"] += count
        replaced = [cell if half is None else half for cell, half in zip(cells, halved, strict=True)]
        return pc.replace_with_mask(column, mask, pa.array(replaced, pa.string()))


@dataclass
class _Gathered:
    """Records that come as lines: their numbers, their bytes, and how many cells had a guard taken off."""

    numbers: list[int] = field(default_factory=list[int])
    texts: list[bytes] = field(default_factory=list[bytes])
    guards: int = 0


class _PlainLines:
    """Tells the records of a file that may come as lines from those that may not."""

    def __init__(self, form: CsvForm, whole: Whole) -> None:
        # What matches the records of which nothing is to be taken off; None where that is all of them.
        self.form = form.grammar.record_without(_GUARD) if form.dialect.guarded else None
        self._suspect = whole.suspect
        self._unchanged = [
            _Judged.of(form, field, whole.harmless, unchanged)
            for field, unchanged in whole.unchanged.items()
            if field in form.fields
        ]
        self._id = form.grammar.cell_reader(form.fields.index("id")) if "id" in form.fields else None

    def gather(self, data: bytes, good: Good, first: int, plain: _Gathered) -> list[tuple[int, int, int]]:
        """Add the plain records of a stretch of storable text; return the others, each with its number and its offsets.

        Args:
            data: The bytes of the block.
            good: The stretch.
            first: Number of its first record.
            plain: Takes the records.
        """
        guarded = set(good.unlike)
        apart = self._apart(data, good, guarded)
        has_other_ends = data.find(b"\r", good.start, good.end) >= 0 or data[good.end - 1] != _LF
        others: list[tuple[int, int, int]] = []
        start = good.start
        for place, end in enumerate(good.ends):
            if place in apart:
                others.append((first + place, start, end))
            else:
                text = without_line_end(data[start:end]) if has_other_ends else data[start : end - 1]
                if place in guarded:
                    text, count = _GUARDED_CELL.subn(b'"', text)
                    plain.guards += count
                plain.numbers.append(first + place)
                plain.texts.append(text)
            start = end
        return others

    def ids(self, texts: Sequence[bytes]) -> Iterator[str]:
        """Read the ids of some records."""
        if self._id is not None:
            for text in texts:
                yield _text_of(self._id(text, 0, len(text)))

    def _apart(self, data: bytes, good: Good, guarded: set[int]) -> set[int]:
        """Find the places of the records that may not come as lines."""
        ends = good.ends
        apart: set[int] = set()
        at = good.start
        while self._suspect is not None and (match := self._suspect.search(data, at, good.end)):
            place = bisect_right(ends, match.start())
            start, at = ends[place - 1] if place else good.start, ends[place]
            if place in guarded:
                record = _GUARDED_CELL.sub(b'"', data[start:at])
                stays = self._stays(record, 0, len(record))
            else:
                stays = self._stays(data, start, at)
            if not stays:
                apart.add(place)
        return apart

    def _stays(self, data: bytes, start: int, end: int) -> bool:
        return all(
            one.is_harmless(data, start, end) or one.unchanged(_text_of(one.read(data, start, end)))
            for one in self._unchanged
        )


@dataclass(frozen=True)
class _Judged:
    """How one field of a record is judged, given the bytes and the record's offsets in them."""

    is_harmless: Callable[[bytes, int, int], bool]
    read: Callable[[bytes, int, int], bytes]
    unchanged: Callable[[str], bool]

    @classmethod
    def of(cls, form: CsvForm, field: str, harmless: bytes | None, unchanged: Callable[[str], bool]) -> Self:
        index = form.fields.index(field)
        matcher = (lambda *_: False) if harmless is None else form.grammar.cell_matcher(index, harmless)
        return cls(matcher, form.grammar.cell_reader(index), unchanged)


def _text_of(cell: bytes) -> str:
    return (cell[1:-1].replace(b'""', b'"') if cell[:1] == b'"' else cell).decode()


def _ends_within(segments: Sequence[Good | Fitted | Malformed], *, is_open: bool) -> bool:
    """Tell whether a file ends within its last record: without a line end, or within a quoted cell of several lines."""
    last = segments[-1] if segments else None
    return isinstance(last, Malformed) and (is_open or last.detail.endswith(NEVER_CLOSED))


def _starts_with(column: pa.StringArray, prefixes: tuple[str, ...]) -> pa.BooleanArray:
    mask = pc.starts_with(column, prefixes[0])
    for prefix in prefixes[1:]:
        mask = pc.or_(mask, pc.starts_with(column, prefix))
    return mask


def _is_utf8(rows: bytes | memoryview) -> bool:
    """Tell whether the bytes are valid UTF-8: taken for one string, as cells end at ASCII characters."""
    offsets = pa.array([0, len(rows)], pa.int64()).buffers()[1]
    text = pa.LargeStringArray.from_buffers(1, offsets, pa.py_buffer(rows))
    try:
        text.validate(full=True)
    except pa.ArrowInvalid:
        return False
    return True


def _faults(column: pa.BinaryArray) -> Iterator[tuple[int, str]]:
    """Find the cells that hold NUL or invalid UTF-8.

    Yields:
        Row and fault, such as `NUL` or `byte 0xff`.
    """
    for row in pc.indices_nonzero(pc.match_substring(column, b"\0")).to_pylist():
        yield row, "NUL"
    try:
        column.cast(pa.string())
    except pa.ArrowInvalid:
        for row, cell in enumerate(column.to_pylist()):
            if cell is not None:
                try:
                    cell.decode("utf-8")
                except UnicodeDecodeError as error:
                    yield row, f"byte 0x{cell[error.start]:02x} is not UTF-8"
