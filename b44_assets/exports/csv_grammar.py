r"""Splitting a stretch of CSV bytes into records, strictly after RFC 4180, without losing step at damaged ones.

Compiled patterns over bytes do it at several hundred MB/s: exact, unlike counting quotes, and unlike Arrow's own
parser, which reads `"ab"c` as `abc`. What comes out here as good is therefore safe to hand to Arrow.

The patterns hold possessive quantifiers on single bytes, and on groups only where the group cannot fail half-way:
Python before 3.11.5 goes wrong otherwise (CPython issues 100061, 106052). Elsewhere, no second way leads through a pattern, so
that matching takes linear time.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final

_QUOTED: Final = rb'"[^"]*+(?:""[^"]*+)*+"'
_QUOTED_PREFIX: Final = rb'"[^"]*+(?:""[^"]*+)*+"?+\r?+'
_LINE_END: Final = rb"\r?+\n"
_LINE_END_OR_END: Final = rb"(?:\r?+\n|\r?+\Z)"
# A blank line is no record, and neither is nothing at all.
_BEGIN: Final = rb"(?![\r\n]|\Z)"
_LINE_END_BYTES: Final = b"\r\n"
_NOT_DOUBLED: Final = re.compile(rb'"(?!")|""[,\r\n]')
_ENDED: Final = re.compile(rb'(?:[^"]"|,"")\r?\n\Z')
_ID: Final = re.compile(rb'"?[0-9a-fA-F]{24}\b')
# More cells than any file has fields, few enough to be remembered while matching.
NEVER_CLOSED: Final = "is never closed"
_MANY: Final = 8_000


@dataclass(frozen=True)
class Good:
    """Consecutive records of exactly as many cells as there are fields.

    Attributes:
        start: Offset of the first byte.
        ends: Offsets behind the records, line ends included, ascending.
        unlike: Places, in `ends`, of the records that are not of the form that was asked for; none where none was.
    """

    start: int
    ends: list[int]
    unlike: list[int] = field(default_factory=list[int])

    @property
    def end(self) -> int:
        """Offset behind the last record."""
        return self.ends[-1]

    @property
    def records(self) -> int:
        """How many."""
        return len(self.ends)


@dataclass(frozen=True)
class Fitted:
    """One record brought to the number of fields.

    Attributes:
        row: The record as CSV, with empty cells added or taken off, ending in a line feed.
    """

    row: bytes

    @property
    def records(self) -> int:
        """Always 1."""
        return 1


@dataclass(frozen=True)
class Malformed:
    """One record that cannot be split into cells.

    Attributes:
        raw: Its bytes without the line end.
        detail: Why, in a few words.
    """

    raw: bytes
    detail: str

    @property
    def records(self) -> int:
        """Always 1."""
        return 1


@dataclass(frozen=True)
class _Row:
    text: bytes
    end: int
    missing: int


@dataclass(frozen=True)
class Split:
    """What a stretch of bytes consists of.

    Attributes:
        segments: In the order of the file.
        consumed: Bytes that the segments and blank lines take up; the rest awaits more of the file.
        blank_lines: Lines without any character between records.
        cut_short: Records that lacked cells at their end.
        surplus: Records that had empty cells too many.
        separators: Lines of delimiters alone, which are no records.
    """

    segments: list[Good | Fitted | Malformed]
    consumed: int
    blank_lines: int
    cut_short: int
    surplus: int
    separators: int = 0

    @property
    def records(self) -> int:
        """How many records the segments hold."""
        return sum(segment.records for segment in self.segments)


def split_row(row: bytes, delimiter: bytes) -> list[bytes] | None:
    """Split one row, without its line end, into its cells, quotes included; None where it breaks the grammar."""
    cell, comma = _cell(delimiter, all_quoted=False), re.escape(delimiter)
    if not re.fullmatch(b"%b(?:%b%b){0,%d}" % (cell, comma, cell, _MANY), row):
        return None
    return re.findall(b"(%b)%b" % (cell, comma), row + delimiter)


def first_row(data: bytes, delimiter: bytes, *, final: bool) -> int | None:
    """Return the length of the row that the bytes begin with, line end included; None where there is no whole one."""
    cell, end = _cell(delimiter, all_quoted=False), _LINE_END_OR_END if final else _LINE_END
    match = re.match(b"%b(?:%b%b){0,%d}%b" % (cell, re.escape(delimiter), cell, _MANY, end), data)
    return None if match is None else match.end()


def without_line_end(row: bytes) -> bytes:
    """Take off one line end, or the first half of one at the end of the file."""
    return row.removesuffix(b"\n").removesuffix(b"\r")


def _cell(delimiter: bytes, *, all_quoted: bool) -> bytes:
    return _QUOTED if all_quoted else b"(?:%b|%b)" % (_QUOTED, _bare(delimiter))


def _bare(delimiter: bytes) -> bytes:
    return rb'[^"\r\n' + re.escape(delimiter) + rb"]*+"


class Grammar:
    """The form of one file's records.

    Attributes:
        fields: Cells in a whole record.
        all_quoted: Every cell stands in quotes, and no record may lack one.
    """

    def __init__(self, fields: int, *, delimiter: bytes, all_quoted: bool, usual_cells: int | None = None) -> None:
        """Compile the patterns.

        Args:
            fields: Cells in a whole record.
            delimiter: One ASCII character.
            all_quoted: Every cell stands in quotes, and no record may lack one; otherwise cells are quoted where
                needed and trailing ones may lack.
            usual_cells: Least number of cells by which a record is recognised again behind a damaged one; `fields`
                unless told. In a spreadsheet whose last columns are blank, no record may ever be whole.
        """
        self.fields = fields
        self.all_quoted = all_quoted
        self._delimiter = delimiter
        comma = re.escape(delimiter)
        cell = _cell(delimiter, all_quoted=all_quoted)
        prefix = _QUOTED_PREFIX if all_quoted else rb"(?:%b|%b\r?+)" % (_QUOTED_PREFIX, _bare(delimiter))

        begin = _BEGIN if all_quoted else rb"%b(?!%b++\r?+(?:\n|\Z))" % (_BEGIN, comma)
        self._begin = begin

        def record(cells: str, end: bytes) -> bytes:
            return b"%b%b(?:%b%b){%b}%b" % (begin, cell, comma, cell, cells.encode(), end)

        least = fields if all_quoted else min(usual_cells or fields, fields)
        # In pairs: for a stretch with more of the file behind it, and for the file's end.
        ends = (_LINE_END, _LINE_END_OR_END)
        self._record = tuple(re.compile(record(f"{fields - 1}", end)) for end in ends)
        self._any = tuple(re.compile(record(f"0,{_MANY}", end)) for end in ends)
        self._next = tuple(re.compile(rb"\n(?=%b)" % record(f"{least - 1},{fields - 1}", end)) for end in ends)
        self._blank = tuple(re.compile(b"%b*+%b" % (comma, end)) for end in ends)
        self._least = least
        self._cell = re.compile(cell)
        self._cell_before_delimiter = re.compile(b"(%b)%b" % (cell, comma))
        self._cells = re.compile(b"(?:%b%b){0,%d}" % (cell, comma, _MANY))
        self._prefix = re.compile(rb"(?:%b%b){0,%d}(?:%b)?\Z" % (cell, comma, _MANY, prefix))

    def quoted_cells(self, data: bytes, good: Good) -> list[bytes]:
        """Return the cells of a good stretch of all-quoted records, one record after the other, quotes included."""
        return self._cell.findall(data, good.start, good.end)

    def cell_reader(self, index: int) -> Callable[[bytes, int, int], bytes]:
        """Return what reads one cell, quotes included, of the whole record between two offsets."""
        before = b"(?:%b%b){%d}" % (self._cell.pattern, re.escape(self._delimiter), index)
        match = re.compile(b"%b(%b)" % (before, self._cell.pattern)).match

        def read(data: bytes, start: int, end: int) -> bytes:
            found = match(data, start, end)
            if found is None:
                raise ValueError(f"no whole record at offset {start}")
            return found[1]

        return read

    def cell_matcher(self, index: int, text: bytes) -> Callable[[bytes, int, int], bool]:
        """Return what tells of the whole record between two offsets whether one cell is in quotes and the pattern matches its text.

        Args:
            index: Of the cell.
            text: A pattern that matches no single quote: those of the text are doubled.
        """
        before = b"(?:%b%b){%d}" % (self._cell.pattern, re.escape(self._delimiter), index)
        match = re.compile(b'%b"%b"(?!")' % (before, text)).match
        return lambda data, start, end: match(data, start, end) is not None

    def record_without(self, beginning: bytes) -> re.Pattern[bytes]:
        """Compile what matches a whole record none of whose cells begins so, behind a quote or without; not at the end of the file."""
        cell, comma = b'(?!"?%b)%b' % (beginning, self._cell.pattern), re.escape(self._delimiter)
        return re.compile(b"%b%b(?:%b%b){%d}%b" % (self._begin, cell, comma, cell, self.fields - 1, _LINE_END))

    def is_begun(self, data: bytes) -> bool:
        """Tell whether the bytes are the beginning of a record that more bytes could complete."""
        return self._prefix.match(data) is not None

    def split(
        self, data: bytes, *, final: bool, overlong: bool = False, form: re.Pattern[bytes] | None = None
    ) -> Split:
        """Split the bytes from a record's beginning on.

        A damaged record ends before the first line from which one whole record parses, so that a stray or missing
        quote costs that record alone.

        Args:
            data: Bytes that begin where a record begins.
            final: The file ends here; otherwise an incomplete last record is left for the next call.
            overlong: Do not wait for the end of an incomplete record if a whole one begins behind it.
            form: Matches some of the whole records, each from its beginning to behind its line end; the others of a good stretch
                are told apart.
        """
        segments: list[Good | Fitted | Malformed] = []
        blank_lines = cut_short = surplus = separators = 0
        whole, any_record = self._record[final].match, self._any[final]
        formed = whole if form is None else form.match
        following, blank = self._next[final], self._blank[final]
        begins_blank = _LINE_END_BYTES + self._delimiter
        at, size = 0, len(data)
        while at < size:
            start, ends, unlike = at, list[int](), list[int]()
            while True:
                while match := formed(data, at):
                    at = match.end()
                    ends.append(at)
                if form is None or not (match := whole(data, at)):
                    break
                unlike.append(len(ends))
                at = match.end()
                ends.append(at)
            if ends:
                segments.append(Good(start, ends, unlike))
                continue
            if data[at] in begins_blank and (match := blank.match(data, at)):
                if data[at] in _LINE_END_BYTES:
                    blank_lines += 1
                else:
                    separators += 1
                at = match.end()
                continue
            if row := None if self.all_quoted else self._row(data, at, any_record, following):
                segments.append(Fitted(row.text))
                cut_short += row.missing > 0
                surplus += row.missing < 0
                at = row.end
                continue
            end = self._damage_end(data, at, final=final, overlong=overlong)
            if end is None:
                break
            for row_end in self._damaged_rows(data, at, end):
                segments.append(Malformed(without_line_end(data[at:row_end]), self._fault(data, at, row_end)))
                at = row_end
        return Split(segments, at, blank_lines, cut_short, surplus, separators)

    def _row(self, data: bytes, at: int, any_record: re.Pattern[bytes], following: re.Pattern[bytes]) -> _Row | None:
        """Bring a well-formed row of a spreadsheet to the number of fields; None where that cannot be done."""
        match = any_record.match(data, at)
        if match is None:
            return None
        end = match.end()
        if _ID.match(data, at) and any(_ID.match(data, inner.end()) for inner in following.finditer(data, at, end)):
            # A record with an id of its own inside of this one: a lost quote has joined them. Any other line is one of a text.
            return None
        text = without_line_end(match[0])
        cells = self._cell_before_delimiter.findall(text + self._delimiter)
        missing = self.fields - len(cells)
        if missing > 0:
            # Without a line end, the end of the file has cut it off.
            return _Row(text + self._delimiter * missing + b"\n", end, missing) if data[end - 1] == 0x0A else None
        if any(cell not in (b"", b'""') for cell in cells[self.fields :]):
            return None
        return _Row(self._delimiter.join(cells[: self.fields]) + b"\n", end, missing)

    def _damage_end(self, data: bytes, at: int, *, final: bool, overlong: bool) -> int | None:
        """Find the end of the damaged record that begins here; None when more of the file must be seen first."""
        any_record, following, is_all = self._any[final], self._next[final], final or overlong
        if match := any_record.match(data, at):
            # Well-formed but for the number of its cells: it ends here, if what comes next is well-formed, too.
            end = match.end()
            if inner := following.search(data, at, end):
                return inner.start() + 1
            if end == len(data):
                return end if is_all else None
            if data[end] in _LINE_END_BYTES or any_record.match(data, end):
                return end
            if not is_all and self._prefix.match(data, end):
                return None
        elif not is_all and self._prefix.match(data, at):
            return None
        if after := following.search(data, at):
            return after.start() + 1
        return len(data) if final else None

    def _damaged_rows(self, data: bytes, start: int, end: int) -> Iterator[int]:
        """Tell adjacent damaged records apart, each on lines of its own.

        Where a line begins as a record does, and there are as many delimiters on both sides of its beginning as a record
        has, one ends and the next begins. Lines of a text within one record hardly ever look so.

        Yields:
            Where each ends, the last at `end`.
        """
        separator = b'","' if self.all_quoted else self._delimiter
        wanted = self._least - 1
        at = start
        line = data.find(b"\n", start, end - 1) + 1
        while wanted and line:
            after = data.find(b"\n", line, end - 1) + 1
            here = data.count(separator, at, line)
            there = data.count(separator, line, after or end)
            if self.all_quoted:
                is_begun = data[line : line + 1] == b'"' and _NOT_DOUBLED.match(data, line) is not None
                is_ended = _ENDED.search(data[max(at, line - 5) : line]) is not None
                are_ids = _ID.match(data, at) is not None and _ID.match(data, line) is not None
                lost = 1 if (is_ended or are_ids) and wanted > 1 else 0
                is_apart = is_begun and min(here, there) >= wanted - lost
            else:
                is_apart = min(here, there) >= wanted
            if is_apart and not self.all_quoted:
                # Of delimiters alone, it is no record.
                is_apart = data[line : after or end].strip(self._delimiter + _LINE_END_BYTES) != b""
            if is_apart and not (_ID.match(data, at) and not _ID.match(data, line)):
                yield line
                at = line
            line = after
        yield end

    def _fault(self, data: bytes, start: int, end: int) -> str:
        """Say what is wrong with the damaged record at these offsets."""
        match = self._cells.match(data, start, end)
        at = start if match is None else match.end()
        number = len(self._cell_before_delimiter.findall(data, start, at)) + 1
        cell = self._cell.match(data, at, end)
        if cell is None:
            if at == end:
                return f"the file ends behind cell {number - 1} of {self.fields}"
            if data[at : at + 1] == b'"':
                return f"the quote that opens cell {number} {NEVER_CLOSED}"
            return f"cell {number} does not begin with a quote"
        rest = data[cell.end() : end]
        if not rest and not self.all_quoted:
            return f"{number} cells instead of {self.fields}, and the file ends without a line end"
        if rest[:2] == b"\r\n" or rest[:1] in (b"", b"\n"):
            return f"{number} cells instead of {self.fields}"
        if rest[:1] == self._delimiter:
            return f"more than {_MANY:,} cells"
        if cell[0][:1] == b'"':
            return f"text behind the closing quote of cell {number}"
        return f"a quote or carriage return in the unquoted cell {number}"
