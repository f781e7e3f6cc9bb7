"""Reading the first line of a CSV file: the names of its fields, and what it tells of the file's form."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from b44_assets.errors import ExportError
from b44_assets.exports.csv_grammar import first_row, split_row, without_line_end
from b44_assets.exports.model import MAX_CSV_FIELDS
from b44_assets.exports.names import distinct, matched, recognised, require_id

_DELIMITERS: Final = (b",", b";", b"\t", b"|")
# The line by which spreadsheets are told the delimiter.
_HINT: Final = re.compile(rb'"?sep=([^\r\n"])"?[ \t,;|]*\r?\n', re.IGNORECASE)
_BLANK_LINES: Final = re.compile(rb"(?:[ \t,;|]*\r?\n)*")


@dataclass(frozen=True)
class Header:
    """The first line of a CSV file.

    Attributes:
        fields: Its names; a repeated one with a suffix such as `_2`, a blank one as `column_7`.
        delimiter: One byte.
        quoted: Every name stands in quotes.
        length: In bytes, with blank lines before it and its line end.
        oddities: What was unusual about it.
    """

    fields: tuple[str, ...]
    delimiter: bytes
    quoted: bool
    length: int
    oddities: Counter[str]


def read_header(path: Path, head: bytes, *, final: bool, known: Sequence[str] = ()) -> Header:
    """Read the names of the fields.

    Args:
        path: For messages.
        head: The file's first bytes, without a byte order mark.
        final: The file ends with them.
        known: Fields that are looked for; a name that differs from one in case, blanks, `-` and `_` alone is read as it.

    Raises:
        ExportError: There is no whole line, it holds NUL or invalid UTF-8, cannot be split, or has too many names.
    """
    oddities: Counter[str] = Counter()
    begin, delimiters = _behind_blank_lines(head, 0), _DELIMITERS
    if hint := _HINT.match(head, begin):
        oddities["line that names the delimiter"] += 1
        begin, delimiters = _behind_blank_lines(head, hint.end()), (hint[1],)
    blank_lines = head.count(b"\n", 0, begin) - len(oddities)
    data = head[begin:]
    first_line = data.split(b"\n", 1)[0]
    if first_line.lstrip()[:1] in (b"{", b"["):
        raise ExportError(f"{path}: holds JSON, not CSV; name it .json or .jsonl")
    if first_line.lstrip()[:1] == b"<":
        raise ExportError(f"{path}: holds a web page, not CSV; export the entity again")
    if b"\0" in first_line:
        raise ExportError(f"{path}: NUL bytes in the header; this is no CSV file in UTF-8")
    # Beyond that, no row is told from damage, and the header would pass for one name.
    cells_at_most = 1 + max(first_line.count(delimiter) for delimiter in delimiters)
    if cells_at_most > MAX_CSV_FIELDS:
        raise ExportError(f"{path}: {cells_at_most:,} fields in the header; at most {MAX_CSV_FIELDS:,} are supported")
    # The delimiter that gives an id, and the most names; the comma where there is but one.
    best: tuple[list[bytes], bytes, int] | None = None
    for delimiter in delimiters:
        length = first_row(data, delimiter, final=final)
        cells = None if length is None else split_row(without_line_end(data[:length]), delimiter)
        if length is not None and cells is not None and (best is None or _weight(cells) > _weight(best[0])):
            best = cells, delimiter, length
    if best is None:
        if not final and b"\n" not in data:
            raise ExportError(f"{path}: the header is longer than {len(data):,} bytes; this is no CSV file")
        if b"\r" in without_line_end(first_line):
            raise ExportError(f"{path}: a carriage return in the header; end lines with LF or CRLF")
        raise ExportError(f"{path}: the header cannot be split into names; look for a stray quote in it")
    cells, delimiter, length = best
    row = data[:length]
    if b"\0" in row:
        raise ExportError(f"{path}: NUL bytes in the header; this is no CSV file in UTF-8")
    try:
        names = [_unquoted(cell).decode("utf-8") for cell in cells]
    except UnicodeDecodeError:
        raise ExportError(f"{path}: the header is not valid UTF-8; save the file as UTF-8") from None
    if blank_lines:
        oddities["blank lines"] += blank_lines
    fields = recognised(distinct(names, oddities), known, oddities)
    if known:
        require_id(path, fields, known)
    quoted = all(cell.startswith(b'"') for cell in cells)
    return Header(fields, delimiter, quoted, begin + length, oddities)


def _behind_blank_lines(head: bytes, at: int) -> int:
    match = _BLANK_LINES.match(head, at)
    return at if match is None else match.end()


def _weight(cells: list[bytes]) -> tuple[bool, int]:
    return any(matched(_unquoted(cell).decode("utf-8", "replace"), ("id",)) for cell in cells), len(cells)


def _unquoted(cell: bytes) -> bytes:
    return cell[1:-1].replace(b'""', b'"') if cell.startswith(b'"') else cell
