"""Telling from a CSV file's content how it is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Final, Literal

from b44_assets.errors import ExportError
from b44_assets.exports.csv_blocks import blocks
from b44_assets.exports.csv_grammar import Good, Grammar, Malformed, first_row, split_row, without_line_end
from b44_assets.exports.csv_header import Header, read_header
from b44_assets.exports.model import CREATOR_FIELDS, Dialect
from b44_assets.exports.text import is_json, undoubled

UTF8_MARK: Final = b"\xef\xbb\xbf"
_OTHER_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_ZEROS: Final[dict[tuple[bool, ...], str]] = {
    (False, True, False, True): "UTF-16",
    (True, False, True, False): "UTF-16",
    (False, True, True, True): "UTF-32",
    (True, True, True, False): "UTF-32",
    (False, True): "UTF-16",
    (True, False): "UTF-16",
}
_SAMPLE_BYTES: Final = 1 << 20
_LARGEST_SAMPLE_BYTES: Final = 32 << 20
_WINDOW_BYTES: Final = 1 << 16
_NUMBER_OR_BOOLEAN: Final = re.compile(rb'"(?:-?\d+(?:\.\d+)?|true|false)"')
_NULLS: Final = (b'"null"', b'"undefined"')

Quoting = Literal["2025-06", "2025-08"]


def refuse_other_encodings(path: Path, head: bytes) -> None:
    """Raise ExportError if the file begins with the mark of UTF-16 or UTF-32, or with an ASCII character in one of them."""
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise ExportError(f"{path}: is encoded as {name}; save it as UTF-8")
    zeros = tuple(byte == 0 for byte in head[:4])
    if (name := _ZEROS.get(zeros)) is not None:
        raise ExportError(f"{path}: is encoded as {name}; save it as UTF-8")


@dataclass(frozen=True)
class CsvForm:
    """All that is known of a CSV file before its records are read.

    Attributes:
        dialect: How it is written.
        fields: Their names.
        grammar: The form of its records.
        begin: Offset of the first record.
        oddities: Of the header.
    """

    dialect: Dialect
    fields: tuple[str, ...]
    grammar: Grammar
    begin: int
    oddities: Counter[str]


def find_form(
    path: Path, stream: BinaryIO, *, size: int, begin: int, longest_record: int, known: Sequence[str] = ()
) -> CsvForm:
    """Find a CSV file's dialect from its header and its first MiB, or as much of it as is needed.

    Args:
        path: For messages.
        stream: The file's bytes, seekable.
        size: Of the file, in bytes.
        begin: Offset behind the byte order mark, 0 without one.
        longest_record: In bytes, as for reading.
        known: Fields that are looked for.

    Raises:
        ExportError: The header cannot be read, or all of the file had to be read and cannot be.
    """
    stream.seek(begin)
    head = stream.read(_SAMPLE_BYTES)
    final = begin + len(head) >= size
    header = read_header(path, head, final=final, known=known)
    fields, body, sample = len(header.fields), begin + header.length, head[header.length :]
    all_quoted = _has_quoted_cells(stream, header, sample, begin=body, final=final)
    usual = usual_cells(sample, header.delimiter, fields, final=final)
    grammar = Grammar(fields, delimiter=header.delimiter, all_quoted=all_quoted, usual_cells=usual)
    name: Quoting | Literal["2026-06", "spreadsheet"] = "spreadsheet"
    if all_quoted and header.quoted:
        name = "2026-06"
    elif all_quoted:
        name = _quoting(path, stream, header, grammar, begin=body, longest_record=longest_record)
    dialect = Dialect(
        name=name,
        delimiter=header.delimiter.decode(),
        byte_order_mark=begin > 0,
        all_quoted=all_quoted,
        null_literals=("null", "undefined") if name == "2025-06" else ("",),
        guarded=name == "2026-06",
        doubled_json=name == "2025-06",
    )
    return CsvForm(dialect, header.fields, grammar, body, header.oddities)


def _has_quoted_cells(stream: BinaryIO, header: Header, sample: bytes, *, begin: int, final: bool) -> bool:
    if header.delimiter != b",":
        return False
    if final and not sample.strip():
        return header.quoted
    answer = is_all_quoted(sample, len(header.fields), final=final)
    wanted = _SAMPLE_BYTES
    while answer is None:  # the first record is a long one
        wanted *= 4
        stream.seek(begin)
        sample = stream.read(wanted)
        final = len(sample) < wanted or wanted >= _LARGEST_SAMPLE_BYTES
        answer = is_all_quoted(sample, len(header.fields), final=final)
    return answer


def _quoting(
    path: Path, stream: BinaryIO, header: Header, grammar: Grammar, *, begin: int, longest_record: int
) -> Quoting:
    """Read on until something speaks for one of the two dialects; where nothing does, they mean the same."""
    evidence = Evidence(header.fields)
    for block in blocks(path, stream, grammar, begin=begin, block_size=_SAMPLE_BYTES, longest_record=longest_record):
        for segment in block.split.segments:
            if isinstance(segment, Good):
                evidence.add(grammar.quoted_cells(block.data, segment))
        if verdict := evidence.verdict():
            return verdict
    return "2025-08"


def is_all_quoted(sample: bytes, fields: int, *, final: bool) -> bool | None:
    """Tell from a file's first records whether every cell stands in quotes, damaged records notwithstanding.

    Args:
        sample: Bytes from the first record on.
        fields: Cells in a record.
        final: The file ends with the sample.

    Returns:
        The answer, or None when the sample holds no whole record and the file goes on.
    """
    grammar = Grammar(fields, delimiter=b",", all_quoted=True)
    split = grammar.split(sample, final=final)
    quoted = sum(segment.records for segment in split.segments if isinstance(segment, Good))
    others = [segment.raw for segment in split.segments if isinstance(segment, Malformed)]
    bare = sum(_bare_records(raw, fields) for raw in [*others, sample[split.consumed :]])
    if quoted or bare:
        return quoted >= bare  # a damaged record may look like a row of bare cells, hardly the other way round
    if not final:
        return None
    # One damaged record, or one cut off.
    begin = sample.lstrip(b"\r\n")
    if grammar.is_begun(begin):
        return True
    return begin.count(b'","') * 2 >= fields - 1 if fields > 1 else begin.startswith(b'"')


def _bare_records(data: bytes, fields: int) -> int:
    """Count the rows, up to the first that breaks the grammar, with text that does not stand in quotes.

    Rows of few cells do not count: the lines of a text look like them once its quote is lost.
    """
    return sum(
        2 * len(cells) > fields and any(cell[:1] not in (b"", b'"') for cell in cells)
        for cells in _first_rows(data, b",", final=True)
    )


def usual_cells(sample: bytes, delimiter: bytes, fields: int, *, final: bool) -> int:
    """Return the most common number of cells in a spreadsheet's first records, where rows may be cut short.

    Of two that are as common it is the greater, and never 1 where there are more fields: any line of a text is a record of one cell.
    """
    counts = Counter(min(len(cells), fields) for cells in _first_rows(sample, delimiter, final=final) if any(cells))
    if not counts:
        return fields
    _, cells = max((count, cells) for cells, count in counts.items())
    return max(cells, min(2, fields))


def _first_rows(data: bytes, delimiter: bytes, *, final: bool) -> Iterator[list[bytes]]:
    """Split rows into cells, up to the first that breaks the grammar; 1,000 will do."""
    at = 0
    for _ in range(1_000):
        window, length, size = b"", None, _WINDOW_BYTES
        while length is None and len(window) < len(data) - at:
            window = data[at : at + size]
            length = first_row(window, delimiter, final=final and at + size >= len(data))
            size *= 4
        cells = None if not window or length is None else split_row(without_line_end(window[:length]), delimiter)
        if length is None or cells is None:
            return
        yield cells
        at += length


class Evidence:
    """For and against the dialect of 2025-06, gathered from all-quoted records under a bare header.

    Its marks are JSON whose quotes are doubled twice, and a literal `null` or `undefined` where the later dialect has
    an empty cell. A literal `null` weighs most where the column otherwise holds only numbers or booleans: free text may
    be empty in the first dialect, and read `null` in the second.
    """

    def __init__(self, fields: tuple[str, ...]) -> None:
        """Begin with no evidence."""
        self._fields = fields
        self._doubled = self._plain = 0
        self._nulls = [0] * len(fields)
        self._empties = [0] * len(fields)
        self._typed: list[bool | None] = [None] * len(fields)

    def add(self, cells: list[bytes]) -> None:
        """Take in whole records, their cells one after the other with their quotes."""
        for index, field in enumerate(self._fields):
            column = cells[index :: len(self._fields)]
            self._add_json(cell for cell in column if cell[1:2] in (b"{", b"[") and b'""' in cell)
            # A literal `null` stands there in every dialect, so it says nothing.
            if field in CREATOR_FIELDS:
                continue
            nulls = column.count(_NULLS[0]) + column.count(_NULLS[1])
            empties = column.count(b'""')
            self._nulls[index] += nulls
            self._empties[index] += empties
            if self._typed[index] is not False and nulls + empties < len(column):
                self._typed[index] = all(
                    _NUMBER_OR_BOOLEAN.fullmatch(cell) for cell in column if cell != b'""' and cell not in _NULLS
                )

    def _add_json(self, cells: Iterable[bytes]) -> None:
        for cell in cells:
            text = cell[1:-1].replace(b'""', b'"').decode("utf-8", "replace")
            if undoubled(text) is not None:
                self._doubled += 1
            elif '"' in text.replace('""', "") and is_json(text):
                self._plain += 1

    def verdict(self) -> Quoting | None:
        """Name the dialect, or None while nothing speaks for either."""
        typed = [index for index, is_typed in enumerate(self._typed) if is_typed]
        balances = (
            self._doubled - self._plain,
            sum(self._nulls[index] - self._empties[index] for index in typed),
            sum(self._nulls) - sum(self._empties),
        )
        for balance in balances:
            if balance:
                return "2025-06" if balance > 0 else "2025-08"
        return None
