# pyright: reportMissingTypeStubs=false, reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false, reportUnknownParameterType=false
"""Reading CSV exports in blocks: split strictly, parsed by Arrow, then the dialect's nulls and quoting undone."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import chain
from typing import BinaryIO, Final

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.csv as pa_csv

from b44_assets.errors import ExportError
from b44_assets.exports.csv_grammar import Fitted, Good, Grammar, Split
from b44_assets.exports.dialects import (
    UTF8_MARK,
    Evidence,
    Header,
    Quoting,
    csv_dialect,
    is_all_quoted,
    read_header,
    usual_cells,
)
from b44_assets.exports.model import Batch, ExportFile, ExportReader, Refused
from b44_assets.exports.text import undoubled, visible_bytes

_SAMPLE_BYTES: Final = 1 << 20
_LARGEST_SAMPLE_BYTES: Final = 32 << 20
_GUARDED: Final = ("'=", "'+", "'-", "'@")


class CsvReader(ExportReader):
    """Reads one CSV file of any dialect."""

    def __init__(
        self, file: ExportFile, stream: BinaryIO, *, size: int, begin: int, block_size: int, longest_record: int
    ) -> None:
        """Find the dialect.

        Args:
            file: What is read.
            stream: Its bytes, seekable.
            size: Of the file, in bytes.
            begin: Offset behind the byte order mark, 0 without one.
            block_size: Bytes to read at a time.
            longest_record: In bytes; what is longer ends the reading.

        Raises:
            ExportError: The header cannot be read.
        """
        self._block_size = block_size
        self._longest_record = longest_record
        stream.seek(begin)
        head = stream.read(_SAMPLE_BYTES)
        final = begin + len(head) >= size
        header = read_header(file.path, head, final=final)
        self._body = begin + header.length
        self._fields = header.fields
        self._bytes_read = self._body
        self._file_path = file.path
        sample = head[header.length :]
        quoting = None
        all_quoted = self._is_all_quoted(stream, header, sample, final=final)
        if not all_quoted:
            quoting = "spreadsheet"
        elif header.quoted:
            quoting = "2026-06"
        self._grammar = Grammar(
            len(header.fields),
            delimiter=header.delimiter,
            all_quoted=all_quoted,
            usual_cells=usual_cells(sample, header.delimiter, len(header.fields), final=final),
        )
        if quoting is None:
            quoting = self._quoting(stream)
        super().__init__(file, csv_dialect(header, quoting, marked=begin > 0), stream, size)
        self.oddities.update(header.oddities)

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields in the header's order."""
        return self._fields

    @property
    def bytes_read(self) -> int:
        """How far into the file reading has come, in bytes."""
        return self._bytes_read

    def _is_all_quoted(self, stream: BinaryIO, header: Header, sample: bytes, *, final: bool) -> bool:
        if header.delimiter != b",":
            return False
        if final and not sample.strip():
            return header.quoted
        answer = is_all_quoted(sample, len(header.fields), final=final)
        wanted = len(sample)
        while answer is None:
            wanted *= 4
            stream.seek(self._body)
            sample = stream.read(wanted)
            final = len(sample) < wanted or wanted > _LARGEST_SAMPLE_BYTES
            answer = is_all_quoted(sample, len(header.fields), final=final)
        return answer

    def _quoting(self, stream: BinaryIO) -> Quoting:
        """Read on until something speaks for one of the two dialects with a bare header."""
        evidence = Evidence(self._fields)
        for data, split, _ in self._stretches(stream, _SAMPLE_BYTES):
            for segment in split.segments:
                if isinstance(segment, Good):
                    evidence.add(self._grammar.quoted_cells(data, segment))
            if verdict := evidence.verdict():
                return verdict
        return "2025-08"

    def _stretches(self, stream: BinaryIO, block_size: int) -> Iterator[tuple[bytes, Split, bool]]:
        """Read and split the file block by block; an incomplete record is carried over to the next block.

        Yields:
            The bytes, how they split, and whether the file ends with them.
        """
        stream.seek(self._body)
        position, number, wanted, data = self._body, 1, block_size, b""
        while True:
            try:
                block = stream.read(wanted)
            except OSError as error:
                raise ExportError(f"{self._file_path}: cannot be read on: {error.strerror}") from error
            position += len(block)
            self._bytes_read = position
            final = len(block) < wanted
            data = data + block if data else block
            split = self._grammar.split(data, final=final)
            if not final and not split.consumed and len(data) >= self._longest_record:
                split = self._grammar.split(data, final=False, overlong=True)
                if not split.consumed:
                    raise ExportError(
                        f"{self._file_path}: record {number:,} is longer than {self._longest_record:,} bytes; "
                        "look for a stray quote in it"
                    )
            yield data, split, final
            if final:
                return
            number += sum(segment.records if isinstance(segment, Good) else 1 for segment in split.segments)
            data = data[split.consumed :]
            # A record longer than the block: double what is read, so that it is not split again too often.
            room = max(1, self._longest_record - len(data))
            wanted = block_size if split.consumed else min(max(block_size, len(data)), room)

    def _read(self) -> Iterator[Batch]:
        number = 1
        for data, split, final in self._stretches(self._stream, self._block_size):
            for oddity, count in (
                ("blank lines", split.blank_lines),
                ("rows cut short", split.cut_short),
                ("surplus empty cells", split.surplus),
                ("no newline at end", final and self.dialect.name == "spreadsheet" and data[-1:] not in (b"\n", b"")),
            ):
                if count:
                    self.oddities[oddity] += count
            if split.segments:
                batch, number = self._batch(data, split, number)
                yield batch

    def _batch(self, data: bytes, split: Split, number: int) -> tuple[Batch, int]:
        """Make a batch of what a stretch consists of, its first record having this number."""
        pieces: list[bytes | memoryview] = []
        numbers: list[range] = []
        refused: list[Refused] = []
        view = memoryview(data)
        for segment in split.segments:
            records = segment.records if isinstance(segment, Good) else 1
            if isinstance(segment, Good):
                pieces.append(view[segment.start : segment.end])
            elif isinstance(segment, Fitted):
                pieces.append(segment.row)
            else:
                raw = {"_raw": visible_bytes(segment.raw)}
                refused.append(Refused(number, "malformed_record", segment.detail, raw))
            if not refused or refused[-1].record_number != number:
                numbers.append(range(number, number + records))
            number += records
        rows = pieces[0] if len(pieces) == 1 else b"".join(pieces)
        record_numbers = pa.array(chain.from_iterable(numbers), pa.int64(), size=sum(map(len, numbers)))
        if b"\0" not in data and _is_utf8(rows):
            columns = self._finished(self._parsed(rows, pa.string(), len(record_numbers)))
        else:
            columns, record_numbers, undecodable = self._storable(rows, record_numbers)
            refused = sorted([*refused, *undecodable], key=lambda one: one.record_number)
        return Batch(record_numbers, columns, tuple(refused)), number

    def _parsed(self, rows: bytes | memoryview, kind: pa.DataType, expected: int) -> pa.RecordBatch:
        """Let Arrow split rows that are known to be well-formed into columns, with nulls."""
        schema = pa.schema([(field, kind) for field in self._fields])
        if not expected:
            return pa.RecordBatch.from_pylist([], schema=schema)
        if bytes(rows[:3]) == UTF8_MARK:  # in a cell: Arrow would take it for a mark and drop it
            rows = UTF8_MARK + rows
        table = pa_csv.read_csv(
            pa.BufferReader(pa.py_buffer(rows)),
            read_options=pa_csv.ReadOptions(
                use_threads=False, block_size=len(rows) + 1, column_names=list(self._fields)
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
            raise RuntimeError(f"{self._file_path}: {table.num_rows} rows parsed where {expected} were found")
        return pa.RecordBatch.from_arrays([column.combine_chunks() for column in table.columns], schema=schema)

    def _storable(
        self, rows: bytes | memoryview, record_numbers: pa.Int64Array
    ) -> tuple[pa.RecordBatch, pa.Int64Array, list[Refused]]:
        """Parse rows some of which hold NUL or invalid UTF-8; tell those apart."""
        parsed = self._parsed(rows, pa.binary(), len(record_numbers))
        details: dict[int, str] = {}
        for field, column in zip(self._fields, parsed.columns, strict=True):
            for row, fault in _faults(column):
                details.setdefault(row, f"field {field}: {fault}")
        bad = sorted(details)
        keep = pa.array((row not in details for row in range(parsed.num_rows)), pa.bool_(), size=parsed.num_rows)
        schema = pa.schema([(field, pa.string()) for field in self._fields])
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
        """Undo what the dialect does to cells besides quoting them."""
        undo = self._unguarded if self.dialect.guarded else self._halved if self.dialect.doubled_json else None
        if undo is None:
            return batch
        return pa.RecordBatch.from_arrays([undo(column) for column in batch.columns], schema=batch.schema)

    def _unguarded(self, column: pa.StringArray) -> pa.StringArray:
        guarded = _starts_with(column, _GUARDED)
        if not (count := pc.sum(guarded).as_py()):
            return column
        self.oddities["guard quotes removed"] += count
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
