"""Telling from a CSV file's content how it is written."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

from b44_assets.errors import ExportError
from b44_assets.exports.csv_grammar import Good, Grammar, Malformed, first_row, split_row, without_line_end
from b44_assets.exports.model import MAX_FIELDS, Dialect
from b44_assets.exports.names import distinct
from b44_assets.exports.text import is_json, undoubled

UTF8_MARK: Final = b"\xef\xbb\xbf"
_OTHER_MARKS: Final = {
    b"\xff\xfe\x00\x00": "UTF-32",
    b"\x00\x00\xfe\xff": "UTF-32",
    b"\xff\xfe": "UTF-16",
    b"\xfe\xff": "UTF-16",
}
_DELIMITERS: Final = (b",", b";", b"\t")
_BLANK_LINES: Final = re.compile(rb"(?:[ \t]*+\r?+\n)*")
# A literal `null` stands in these columns in every dialect, so it says nothing there.
_CREATORS: Final = frozenset({"created_by", "created_by_id"})
_NUMBER_OR_BOOLEAN: Final = re.compile(rb'"(?:-?\d+(?:\.\d+)?|true|false)"')
_NULLS: Final = (b'"null"', b'"undefined"')

_WINDOW: Final = 1 << 16

Quoting = Literal["2025-06", "2025-08"]


def refuse_other_encodings(path: Path, head: bytes) -> None:
    """Raise ExportError if the file begins with the mark of UTF-16 or UTF-32."""
    for mark, name in _OTHER_MARKS.items():
        if head.startswith(mark):
            raise ExportError(f"{path}: is encoded as {name}; save it as UTF-8")


@dataclass(frozen=True)
class Header:
    """The first line of a CSV file.

    Attributes:
        fields: Its names; a repeated one with a suffix such as `_2`, a blank one as `column_7`.
        delimiter: One byte.
        quoted: Every name stands in quotes.
        line_end: `\n`, `\r\n`, or nothing where the file ends with it.
        length: In bytes, with blank lines before it and its line end.
        oddities: What was unusual about it.
    """

    fields: tuple[str, ...]
    delimiter: bytes
    quoted: bool
    line_end: str
    length: int
    oddities: Counter[str]


def read_header(path: Path, head: bytes, *, final: bool) -> Header:
    """Read the names of the fields.

    Args:
        path: For messages.
        head: The file's first bytes, without a byte order mark.
        final: The file ends with them.

    Raises:
        ExportError: There is no whole line, it holds NUL or invalid UTF-8, cannot be split, or has too many names.
    """
    blank = _BLANK_LINES.match(head)
    begin = 0 if blank is None else blank.end()
    data = head[begin:]
    first_line = data.split(b"\n", 1)[0]
    if first_line.lstrip()[:1] in (b"{", b"["):
        raise ExportError(f"{path}: holds JSON, not CSV; name it .json or .jsonl")
    if first_line.lstrip()[:1] == b"<":
        raise ExportError(f"{path}: holds a web page, not CSV; export the entity again")
    if b"\0" in first_line:
        raise ExportError(f"{path}: NUL bytes in the header; this is no CSV file in UTF-8")
    # The delimiter that gives the most names; the comma where there is but one.
    best: tuple[list[bytes], bytes, int] | None = None
    for delimiter in _DELIMITERS:
        length = first_row(data, delimiter, final=final)
        cells = None if length is None else split_row(without_line_end(data[:length]), delimiter)
        if length is not None and cells is not None and (best is None or len(cells) > len(best[0])):
            best = cells, delimiter, length
    if best is None:
        if not final and b"\n" not in data:
            raise ExportError(f"{path}: the header is longer than {len(data):,} bytes; this is no CSV file")
        if b"\r" in without_line_end(first_line):
            raise ExportError(f"{path}: a carriage return in the header; end lines with LF or CRLF")
        raise ExportError(f"{path}: the header cannot be split into names; look for a stray quote in it")
    cells, delimiter, length = best
    row = data[:length]
    if len(cells) > MAX_FIELDS:
        raise ExportError(f"{path}: {len(cells):,} fields in the header; at most {MAX_FIELDS:,} are supported")
    if b"\0" in row:
        raise ExportError(f"{path}: NUL bytes in the header; this is no CSV file in UTF-8")
    try:
        names = [_unquoted(cell).decode("utf-8") for cell in cells]
    except UnicodeDecodeError:
        raise ExportError(f"{path}: the header is not valid UTF-8; save the file as UTF-8") from None
    oddities: Counter[str] = Counter()
    if begin:
        oddities["blank lines"] += head.count(b"\n", 0, begin)
    fields = distinct(names, oddities)
    line_end = "\r\n" if row.endswith(b"\r\n") else "\n" if row.endswith(b"\n") else ""
    quoted = all(cell.startswith(b'"') for cell in cells)
    return Header(fields, delimiter, quoted, line_end, begin + length, oddities)


def _unquoted(cell: bytes) -> bytes:
    return cell[1:-1].replace(b'""', b'"') if cell.startswith(b'"') else cell


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
    bare = sum(_bare_records(raw) for raw in [*others, sample[split.consumed :]])
    if quoted or bare:
        return quoted > bare
    if not final:
        return None
    # One damaged record, or one cut off.
    begin = sample.lstrip(b"\r\n")
    if grammar.is_begun(begin):
        return True
    return begin.count(b'","') * 2 >= fields - 1 if fields > 1 else begin.startswith(b'"')


def _bare_records(data: bytes) -> int:
    """Count the lines, up to the first that is no row, with a cell that does not stand in quotes; 1,000 will do."""
    count = 0
    for line in data.splitlines()[:1_000]:
        cells = split_row(line, b",")
        if cells is None:
            break
        count += bool(line) and not all(cell.startswith(b'"') for cell in cells)
    return count


def usual_cells(sample: bytes, delimiter: bytes, fields: int, *, final: bool) -> int:
    """Return the most common number of cells in a spreadsheet's first records, where rows may be cut short."""
    counts: Counter[int] = Counter()
    at = 0
    for _ in range(1_000):
        window = sample[at : at + _WINDOW]
        length = first_row(window, delimiter, final=final and at + _WINDOW >= len(sample))
        if not window or length is None:
            break
        cells = split_row(without_line_end(window[:length]), delimiter)
        if cells is not None and any(cells):
            counts[min(len(cells), fields)] += 1
        at += length
    return counts.most_common(1)[0][0] if counts else fields


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
            if field in _CREATORS:
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
            text = _unquoted(cell).decode("utf-8", "replace")
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


def csv_dialect(header: Header, quoting: Quoting | Literal["2026-06", "spreadsheet"], *, marked: bool) -> Dialect:
    """Put together what is known of a CSV file."""
    return Dialect(
        name=quoting,
        delimiter=header.delimiter.decode(),
        line_end=header.line_end,
        byte_order_mark=marked,
        header_quoted=header.quoted,
        all_quoted=quoting != "spreadsheet",
        null_literals=("null", "undefined") if quoting == "2025-06" else ("",),
        guarded=quoting == "2026-06",
        doubled_json=quoting == "2025-06",
    )
