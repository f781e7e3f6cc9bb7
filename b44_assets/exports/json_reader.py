"""Reading JSON exports, one array of objects or one object a line, as a stream of records.

The text is decoded piece by piece, and records are decoded from it one at a time by the standard library, which takes
numbers as their literal text when asked to. Bytes that are not UTF-8 become lone surrogates in passing, so that only
the record that holds them is refused.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Iterator, Set
from itertools import islice
from typing import Any, Final, NoReturn

import pyarrow as pa

from b44_assets.errors import ExportError
from b44_assets.exports.model import MAX_FIELDS, Batch, Dialect, ExportFile, ExportReader, Refused
from b44_assets.exports.names import free_name
from b44_assets.exports.stream import ExportStream
from b44_assets.exports.text import UNSTORABLE, visible_text

_MOST_ROWS: Final = 16_384
_MANY_FIELDS: Final = 500
"""Fields beyond these are columns of those batches only that have them."""
_MOST_CELLS: Final = 1_000_000
"""Rows times fields of a batch where there are more fields."""
# Where the decoder finds a fault, it counts all lines before it: in a text of 8 MiB that takes milliseconds.
_PIECE_BYTES: Final = 1 << 18
# A decoder's fault this near to the end of the text may come from the end itself: `-Infinity` is the longest token
# that is not a string, `\ud83d\ude00` the longest escape.
_NEAR: Final = 16
_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_OBJECT: Final = re.compile(r'\{[ \t\r\n]*+"')
_SUSPICIOUS: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SEPARATORS: Final = re.compile(r"[ \t\r\n,]*")
_RAW_NUL: Final = "\udc00"
_MARK_OF_A_PAGE: Final = frozenset({"next_cursor", "has_more"})


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Incomplete(Exception):
    """The text ends before the value does."""


class _Broken(Exception):
    """This is not JSON; the argument says why."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


_decode: Final = json.JSONDecoder(parse_float=_Number, parse_int=_Number, parse_constant=_no_constant).raw_decode


def _value(text: str, at: int) -> tuple[Any, int]:
    """Decode the value that begins at an offset.

    Returns:
        The value, numbers as `_Number`, and the offset behind it.

    Raises:
        _Incomplete: The fault may lie in the text's end.
        _Broken: It does not.
    """
    try:
        return _decode(text, at)
    except json.JSONDecodeError as error:
        place, fault = error.pos, error.msg
    except RecursionError:
        raise _Broken("nested too deeply") from None
    except ValueError as error:
        raise _Broken(str(error)) from None
    if place >= len(text) - _NEAR or (text[place] == '"' and not _STRING.match(text, place)):
        raise _Incomplete(fault)
    raise _Broken(f"{fault[:1].lower()}{fault[1:]} at character {place - at + 1}")


_encode: Final = json.JSONEncoder(ensure_ascii=False).encode


def _cells(record: dict[str, Any]) -> dict[str, str | None]:
    """Turn the values of a record into the text of cells.

    Raises:
        RecursionError: A value is nested too deeply to be written.
    """
    return {key: value if value.__class__ is str or value is None else _compact(value) for key, value in record.items()}


def _compact(value: Any) -> str:
    """Write a value as JSON without white space, numbers as they were."""
    if isinstance(value, _Number):
        return value
    if isinstance(value, str):
        return _encode(value)
    if isinstance(value, list):
        parts: list[str] = []
        for item in value:
            parts.append(_compact(item))
        return f"[{','.join(parts)}]"
    if isinstance(value, dict):
        parts = []
        for key, item in value.items():
            parts.append(f"{_encode(key)}:{_compact(item)}")
        return f"{{{','.join(parts)}}}"
    return "null" if value is None else "true" if value else "false"


def _unstorable(record: dict[str, Any]) -> str | None:
    """Name the field that holds NUL or a lone surrogate anywhere, in its name or in its value."""
    for key, value in record.items():
        todo: list[Any] = [key, value]
        while todo:
            item = todo.pop()
            if isinstance(item, str):
                if UNSTORABLE.search(item):
                    return key
            elif isinstance(item, list):
                todo.extend(item)
            elif isinstance(item, dict):
                todo.extend(item)
                todo.extend(item.values())
    return None


class JsonReader(ExportReader):
    """Reads one JSON file, an array or one object a line."""

    def __init__(
        self,
        file: ExportFile,
        stream: ExportStream,
        *,
        size: int,
        begin: int,
        is_array: bool,
        block_size: int,
        longest_record: int,
    ) -> None:
        """Begin at the beginning.

        Args:
            file: What is read.
            stream: Its bytes, seekable.
            size: Of the file, in bytes.
            begin: Offset behind the byte order mark, 0 without one.
            is_array: The records are the elements of an array; otherwise they follow one another, one a line.
            block_size: Bytes to read at a time.
            longest_record: In bytes; what is longer ends the reading.
        """
        super().__init__(file, Dialect("json" if is_array else "jsonl", byte_order_mark=begin > 0), stream, size)
        self._is_array = is_array
        self._block_size = block_size
        self._piece_size = min(block_size, _PIECE_BYTES)
        self._longest_record = longest_record
        self._bytes_read = begin
        self._fields: dict[str, str] = {}  # by key
        self._taken: set[str] = set()
        self._fewest_keys = MAX_FIELDS
        self._arrays = 0
        self._is_open = False
        self._at = 0

    @property
    def fields(self) -> tuple[str, ...]:
        """Names of the fields met so far, in the order in which they were met."""
        return tuple(self._fields.values())

    @property
    def bytes_read(self) -> int:
        """How far into the file reading has come, in bytes."""
        return self._bytes_read

    def _texts(self) -> Iterator[tuple[str, bool, bool]]:
        """Read and decode the file block by block, keeping what lies behind `_at` of the text before.

        Yields:
            The text, whether the file ends with it, and whether a record in it has grown too long to wait for its end.
        """
        self._stream.seek(self._bytes_read)
        decoder = codecs.getincrementaldecoder("utf-8")("surrogateescape")
        text, wanted, final = "", self._piece_size, False
        while not final:
            try:
                block = self._stream.read(wanted)
            except OSError as error:
                raise ExportError(f"{self.file.path}: cannot be read on: {error.strerror}") from error
            self._bytes_read += len(block)
            final = len(block) < wanted
            text = text[self._at :] + decoder.decode(block, final).replace("\0", _RAW_NUL)
            self._at = 0
            yield text, final, False
            if not self._at and not final and len(text) >= self._longest_record:
                yield text, final, True
                if not self._at:
                    raise ExportError(
                        f"{self.file.path}: a record is longer than {self._longest_record:,} bytes; "
                        "look for a missing bracket or quote in it"
                    )
            # A record longer than the piece: double what is read, lest it be decoded again and again.
            rest = len(text) - self._at
            room = max(1, self._longest_record - rest)
            wanted = self._piece_size if self._at else min(max(self._piece_size, rest), room)

    def _read(self) -> Iterator[Batch]:
        number, begin = 0, self._bytes_read
        rows: list[dict[str, str | None]] = []
        numbers: list[int] = []
        refused: list[Refused] = []
        met: set[str] = set()
        for text, final, overlong in self._texts():
            is_suspicious = _is_suspicious(text)
            for record, start, end, fault in self._records(text, final=final, overlong=overlong):
                number += 1
                cells: dict[str, str | None] = {}
                if record is not None:
                    try:
                        cells = _cells(record)
                    except RecursionError:
                        record, fault = None, "nested too deeply"
                if record is None:
                    raw = visible_text(text[start:end].rstrip(" \t\r\n,"), bytes_escaped=True)
                    refused.append(Refused(number, "malformed_record", fault, {"_raw": raw}))
                elif is_suspicious and (key := _unstorable(record)) is not None:
                    bytes_escaped = UNSTORABLE.search(text, start, end) is not None
                    refused.append(_undecodable(number, cells, key, bytes_escaped))
                else:
                    if not cells.keys() <= self._fields.keys():
                        self._meet(cells)
                    if len(cells) < self._fewest_keys:
                        self._fewest_keys = len(cells)
                    rows.append(cells)
                    numbers.append(number)
                    if len(self._fields) > _MANY_FIELDS:
                        met.update(cells)
                if len(rows) + len(refused) == _MOST_ROWS or len(rows) * len(met) > _MOST_CELLS:
                    yield self._batch(rows, numbers, refused)
                    rows, numbers, refused, begin = [], [], [], self._bytes_read
                    met.clear()
            if (rows or refused) and (final or self._bytes_read - begin >= self._block_size):
                yield self._batch(rows, numbers, refused)
                rows, numbers, refused, begin = [], [], [], self._bytes_read
                met.clear()
        if self._is_open:
            self.oddities["array not closed"] += 1

    def _meet(self, record: dict[str, str | None]) -> None:
        """Add the fields that this record is the first to have."""
        for key in record:
            if key not in self._fields:
                name = key
                if not key.strip():
                    self.oddities["blank field name"] += 1
                    name = f"column_{len(self._fields) + 1}"
                self._fields[key] = free_name(name, self._taken)
                self._taken.add(self._fields[key])
        if len(self._fields) > MAX_FIELDS:
            raise ExportError(f"{self.file.path}: more than {MAX_FIELDS:,} fields")

    def _batch(self, rows: list[dict[str, str | None]], numbers: list[int], refused: list[Refused]) -> Batch:
        fields = self._fields
        if len(fields) > _MANY_FIELDS:
            # Where records have thousands of keys between them, a column for each in every batch would be mostly nulls.
            first = dict.fromkeys(islice(fields, _MANY_FIELDS))
            fields = {key: fields[key] for key in first | dict.fromkeys(key for row in rows for key in row)}
        columns = [pa.array([row.get(key) for row in rows], pa.string()) for key in fields]
        batch = pa.RecordBatch.from_arrays(columns, names=list(fields.values()))
        return Batch(pa.array(numbers, pa.int64()), batch, tuple(refused))

    def _records(
        self, text: str, *, final: bool, overlong: bool
    ) -> Iterator[tuple[dict[str, Any] | None, int, int, str]]:
        """Take the records off a text from `_at` on, which moves along.

        Yields:
            The record, or None; the offsets where it begins and ends; and what is wrong with it, if anything.
        """
        at = self._at
        while True:
            match = _SEPARATORS.match(text, at)
            at = self._at = at if match is None else match.end()
            if at == len(text):
                return
            if self._is_array and not self._is_open and text[at] == "[":
                self._is_open = True
                self._arrays += 1
                if self._arrays > 1:
                    self.oddities["further arrays"] += 1
                at += 1
                continue
            if self._is_open and text[at] == "]":
                self._is_open = False
                at += 1
                continue
            behind = at + 1
            try:
                if self._is_array and not self._is_open:
                    raise _Broken("text behind the end of the array")
                value, behind = _value(text, at)
                if not self._is_followed(text, behind, final=final or overlong):
                    raise _Broken("text behind the value" if isinstance(value, dict) else _no_object(value))
            except _Incomplete as error:
                if not final and not overlong:
                    return
                fault = f"the file ends within this record: {error}"
            except _Broken as error:
                fault = str(error)
            else:
                self._at = behind
                if isinstance(value, dict):
                    self._refuse_page(value)
                    yield value, at, behind, ""
                else:
                    yield None, at, behind, _no_object(value)
                at = behind
                continue
            end = self._next_record(text, behind, final=final)
            if end is None:
                return
            self._at = end
            if end < len(text):
                self._is_open = self._is_array
            yield None, at, end, fault
            at = end

    def _is_followed(self, text: str, end: int, *, final: bool) -> bool:
        """Tell whether what follows a value may follow it: the end, the next value with or without a comma.

        Raises:
            _Incomplete: More of the file must be seen first.
        """
        match = _SPACE.match(text, end)
        following = end if match is None else match.end()
        if following == len(text):
            if not final:
                raise _Incomplete("the text ends behind the value")
            return True
        if self._is_array:
            return text[following] in ",]{"
        return text[following] in ",{" or "\n" in text[end:following]

    def _next_record(self, text: str, at: int, *, final: bool) -> int | None:
        """Find where to go on behind a damaged record: the next line, or in an array the next plausible record.

        Args:
            text: What is in view.
            at: An offset within the damaged record.
            final: The file ends with the text.

        Returns:
            The offset, at the end of the file its end; None when more of the file must be seen first.
        """
        if not self._is_array:
            line_end = text.find("\n", at)
            return line_end + 1 if line_end >= 0 else len(text) if final else None
        for match in _OBJECT.finditer(text, at):
            try:
                value, end = _value(text, match.start())
                is_followed = self._is_followed(text, end, final=final)
            except _Broken:
                continue
            except _Incomplete:
                if final:
                    continue
                return None
            if is_followed and self._is_plausible(value.keys()):
                return match.start()
        return len(text) if final else None

    def _is_plausible(self, keys: Set[str]) -> bool:
        """Tell a record from an object inside of one: by the keys that it shares with the records before."""
        if not self._fields:
            return not keys.isdisjoint({"id", "created_date"})
        shared = len(keys & self._fields.keys())
        return shared > 0 and 2 * shared >= len(keys) and 2 * shared >= self._fewest_keys

    def _refuse_page(self, record: dict[str, Any]) -> None:
        is_first = not self._is_array and not self._fields
        if is_first and record.keys() & _MARK_OF_A_PAGE and any(isinstance(value, list) for value in record.values()):
            raise ExportError(
                f"{self.file.path}: holds a page of the API's answer; save the array of records within it"
            )


def _is_suspicious(text: str) -> bool:
    """Tell whether some record of the text may hold NUL or a lone surrogate."""
    if "\\u" in text and _SUSPICIOUS.search(text):
        return True
    if text.isascii():
        return False
    try:
        text.encode("utf-8")
    except UnicodeEncodeError:
        return True
    return False


def _undecodable(number: int, cells: dict[str, str | None], key: str, bytes_escaped: bool) -> Refused:
    def show(text: str) -> str:
        return visible_text(text, bytes_escaped=bytes_escaped)

    fault = "bytes that are not UTF-8, or NUL" if bytes_escaped else "NUL or a lone surrogate"
    shown = {show(name): None if cell is None else show(cell) for name, cell in cells.items()}
    return Refused(number, "invalid_encoding", f"field {show(key)}: {fault}", shown)


def _no_object(value: Any) -> str:
    if isinstance(value, _Number):
        kind = "a number"
    elif isinstance(value, bool):
        kind = "a boolean"
    else:
        kind = "null" if value is None else "a string" if isinstance(value, str) else "an array"
    return f"{kind}, not an object"
