"""Reading JSON exports, one array of objects or one object a line, as a stream of records.

The text is decoded piece by piece, and records are decoded from it one at a time by the standard library, which takes
numbers as their literal text when asked to. Bytes that are not UTF-8 become lone surrogates in passing, so that only
the record that holds them is refused.
"""

from __future__ import annotations

import codecs
import json
import re
from collections.abc import Callable, Iterator, Sequence, Set
from itertools import islice
from json.encoder import encode_basestring
from typing import Any, Final, NoReturn

import pyarrow as pa

from b44_assets.errors import ExportError, FieldClashError
from b44_assets.exports.json_damage import DamagedElement, MoreNeededError
from b44_assets.exports.json_envelope import Envelope, check_rest
from b44_assets.exports.model import (
    ENDS_WITHIN,
    MAX_FIELDS,
    NOT_CLOSED,
    Batch,
    Dialect,
    ExportFile,
    ExportReader,
    Refused,
    Whole,
)
from b44_assets.exports.names import free_name, matched, require_id
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
_SUSPICIOUS: Final = re.compile(r"\\u(?:0000|[dD][89a-fA-F])")
# A key apart from its colon, and what stands for a quote or a colon.
_SPACED_KEY: Final = re.compile(r'"[ \t\r\n]+:')
_ESCAPED_SIGN: Final = re.compile(r"\\u00(?:22|3[aA])")
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_SEPARATORS: Final = re.compile(r"[ \t\r\n,]*")
_RAW_NUL: Final = "\udc00"
_KEY: Final = re.compile(r'("[^"\\]*+(?:\\.[^"\\]*+)*+")[ \t\r\n]*+:[ \t\r\n]*+', re.DOTALL)
_LONGEST_REST: Final = 16 << 20


class _Number(str):
    """A number as it is written."""

    __slots__ = ()


class _Incomplete(Exception):
    """The text ends before the value does."""


class _Broken(Exception):
    """This is not JSON; the argument says why."""


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not JSON")


class _Repeated(dict[str, Any]):
    """An object some of whose keys stand in it more than once: as a mapping, the last value of each.

    Attributes:
        pairs: All of them, as written.
    """

    def __init__(self, pairs: list[tuple[str, Any]]) -> None:
        super().__init__(pairs)
        self.pairs = pairs


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    record = dict(pairs)
    return record if len(record) == len(pairs) else _Repeated(pairs)


_decode: Callable[[str, int], tuple[Any, int]] = json.JSONDecoder(
    parse_float=_Number, parse_int=_Number, parse_constant=_no_constant
).scan_once  # pyright: ignore[reportAttributeAccessIssue, reportUnknownMemberType]  # raw_decode adds its fault alone
_decode_pairs: Final = json.JSONDecoder(
    object_pairs_hook=_object, parse_float=_Number, parse_int=_Number, parse_constant=_no_constant
).raw_decode


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
    except StopIteration as error:
        place, fault = error.value, "Expecting value"
    except json.JSONDecodeError as error:
        place, fault = error.pos, error.msg
    except RecursionError:
        raise _Broken("nested too deeply") from None
    except ValueError as error:
        raise _Broken(str(error)) from None
    if place >= len(text) - _NEAR or (text[place] == '"' and not _STRING.match(text, place)):
        raise _Incomplete(fault)
    raise _Broken(f"{fault[:1].lower()}{fault[1:]} at character {place - at + 1}")


_encode: Final = encode_basestring


def _cells(record: dict[str, Any]) -> dict[str, str | None]:
    """Turn the values of a record into the text of cells.

    Raises:
        RecursionError: A value is nested too deeply to be written.
    """
    cells = {
        key: value if value.__class__ is str or value is None or value.__class__ is _Number else _compact(value)
        for key, value in record.items()
    }
    return _with_repeated(record, cells) if isinstance(record, _Repeated) else cells


def _into_cells(record: dict[str, Any]) -> dict[str, str | None]:
    """Do so in the record itself, which nothing else is to be read of afterwards: cheaper than to make another.

    Raises:
        RecursionError: A value is nested too deeply to be written.
    """
    for key, value in record.items():
        if not (value.__class__ is str or value is None or value.__class__ is _Number):
            record[key] = _compact(value)
    return record


def _has_repeated(value: Any) -> bool:
    """Tell whether a key stands more than once in an object, or in one within it."""
    if value.__class__ is _Repeated:
        return True
    if value.__class__ is dict:
        for item in value.values():
            if (item.__class__ is dict or item.__class__ is list or item.__class__ is _Repeated) and _has_repeated(
                item
            ):
                return True
        return False
    return value.__class__ is list and any(map(_has_repeated, value))


def _with_repeated(record: _Repeated, cells: dict[str, str | None]) -> dict[str, str | None]:
    """Add what would be lost: earlier values of a repeated key as `key#1` and so on.

    So is the text of a value within which a key is repeated, as it keeps both, and a conversion of it to JSON does not.
    """
    further: dict[str, str | None] = {}
    last = dict(record)

    def keep(key: str, value: Any) -> None:
        number = 1
        while (name := f"{key}#{number}") in cells or name in further:
            number += 1
        further[name] = value if isinstance(value, str) or value is None else _compact(value)

    seen: set[str] = set()
    for key, value in reversed(record.pairs):
        if key in seen:
            keep(key, value)
        seen.add(key)
    for key, value in last.items():
        if not isinstance(value, str) and _has_repeated(value):
            keep(key, value)
    return cells | further


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
        for key, item in value.pairs if isinstance(value, _Repeated) else value.items():
            parts.append(f"{_encode(key)}:{_compact(item)}")
        return f"{{{','.join(parts)}}}"
    return "null" if value is None else "true" if value else "false"


def _unstorable(record: dict[str, Any]) -> str | None:
    """Name the field that holds NUL or a lone surrogate anywhere, in its name or in its value."""
    for key, value in record.pairs if isinstance(record, _Repeated) else record.items():
        todo: list[Any] = [key, value]
        while todo:
            item = todo.pop()
            if isinstance(item, str):
                if UNSTORABLE.search(item):
                    return key
            elif isinstance(item, list):
                todo.extend(item)
            elif isinstance(item, dict):
                for name, inner in item.pairs if isinstance(item, _Repeated) else item.items():
                    todo += (name, inner)
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
        has_mark: bool,
        is_array: bool,
        block_size: int,
        longest_record: int,
        envelope: Envelope | None = None,
        before: str = "",
        known: Sequence[str] = (),
        apart: Set[str] = frozenset(),
    ) -> None:
        """Begin at the beginning.

        Args:
            file: What is read.
            stream: Its bytes, seekable.
            size: Of the file, in bytes.
            begin: Offset of the first record, or of the bracket before it.
            has_mark: The file begins with a byte order mark.
            is_array: The records are the elements of an array; otherwise they follow one another, one a line.
            block_size: Bytes to read at a time.
            longest_record: In bytes; what is longer ends the reading.
            envelope: What stands around the records.
            before: The text before them.
            known: Fields that are looked for; a name that differs from one in case, blanks, `-` and `_` alone is read as it.
            apart: Those of them for which only their own name counts.
        """
        is_array = is_array or envelope is not None
        super().__init__(file, Dialect("json" if is_array else "jsonl", byte_order_mark=has_mark), stream, size, known)
        self._is_array = is_array
        self._envelope = envelope
        self._is_keyed = envelope is not None and envelope.is_keyed
        self._before = before
        self._rest: list[str] = []
        self._is_past = False
        self._apart = apart
        self._renamed: dict[str, str] = {}  # key by known name
        if envelope is not None:
            self.oddities[envelope.oddity] += 1
        self._block_size = block_size
        self._piece_size = min(block_size, _PIECE_BYTES)
        self._longest_record = longest_record
        self._bytes_read = begin
        self._fields: dict[str, str] = {}  # by key
        self._taken: set[str] = set()
        self._fewest_keys = MAX_FIELDS
        self._arrays = 0
        self._is_open = False
        self._is_to_be_counted = False
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

    def _read(self, whole: Whole | None) -> Iterator[Batch]:
        number, begin = 0, self._bytes_read
        rows: list[dict[str, str | None]] = []
        numbers: list[int] = []
        refused: list[Refused] = []
        met: set[str] = set()
        for text, final, overlong in self._texts():
            # For a single character, the text is searched a hundred times faster than for two.
            has_escapes = "\\" in text and "\\u" in text
            is_suspicious = _is_suspicious(text, has_escapes=has_escapes)
            self._is_to_be_counted = _SPACED_KEY.search(text) is None and not (
                has_escapes and _ESCAPED_SIGN.search(text)
            )
            for record, start, end, fault in self._records(text, final=final, overlong=overlong):
                number += 1
                cells: dict[str, str | None] = {}
                if record is not None:
                    try:
                        is_plain = not is_suspicious and record.__class__ is dict
                        cells = _into_cells(record) if is_plain else _cells(record)
                        if not self._is_keyed and self._may_repeat(text, start, end, cells):
                            record = self._with_all_keys(text, start, record)
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
                    if len(cells) > len(record):
                        self.oddities["records with repeated keys"] += 1
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
        if self._is_open or (self._envelope is not None and not self._is_past):
            self.oddities[NOT_CLOSED] += 1
        elif self._envelope is not None:
            beside = check_rest(self.file.path, self._envelope, self._before, "".join(self._rest))
            if beside is not None:
                self.oddities[f"beside the records: {beside}"] += 1
        if self._known and number:
            require_id(self.file.path, self._fields.values(), self._known)

    def _meet(self, record: dict[str, str | None]) -> None:
        """Add the fields that this record is the first to have."""
        for key in record:
            if key not in self._fields:
                name = key
                if not key.strip():
                    self.oddities["blank field name"] += 1
                    name = f"column_{len(self._fields) + 1}"
                else:
                    name = self._recognised(key)
                self._fields[key] = free_name(name, self._taken)
                self._taken.add(self._fields[key])
        if len(self._fields) > MAX_FIELDS:
            raise ExportError(f"{self.file.path}: more than {MAX_FIELDS:,} fields")

    def _recognised(self, key: str) -> str:
        """Return the known field that a key means, or the key."""
        if key in self._renamed:
            raise FieldClashError(self.file.path, key)  # another key has been read as this one
        known = matched(key, self._known)
        if known is None or known == key or known in self._apart or known in self._fields:
            return key
        if known in self._renamed:
            raise FieldClashError(self.file.path, known)
        self._renamed[known] = key
        self.oddities[f"field {key} read as {known}"] += 1
        return known

    def _may_repeat(self, text: str, begin: int, end: int, cells: dict[str, str | None]) -> bool:
        """Tell whether the text of a record may have more keys than came out: by counting, as taking pairs is slow."""
        if not self._is_to_be_counted:
            return True
        more = text.count('":', begin, end) - len(cells)
        return more != 0 and more != "\n".join(filter(None, cells.values())).count('":')

    def _with_all_keys(self, text: str, begin: int, record: dict[str, Any]) -> dict[str, Any]:
        """Return the record; with every value of its keys, if one stands in it, or in an object within it, more than once."""
        value, _ = _decode_pairs(text, begin)
        if isinstance(value, _Repeated):
            return value
        return _Repeated(list(value.items())) if _has_repeated(value) else record

    def _with_key(self, key: str, record: dict[str, Any]) -> dict[str, Any]:
        """Give a record that stands under its id that id, unless it has one; another one is kept as `_key`."""
        own = next((name for name in record if matched(name, ("id",))), None)
        if own is None:
            return _added(record, "id", key)
        return record if record[own] == key else _added(record, free_name("_key", record), key)

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
        opening, closing = "{}" if self._is_keyed else "[]"
        while True:
            if self._is_past:
                self._rest.append(text[at:])
                self._at = len(text)
                if sum(map(len, self._rest)) > _LONGEST_REST:
                    raise ExportError(f"{self.file.path}: too much text behind the records")
                return
            match = _SEPARATORS.match(text, at)
            at = self._at = at if match is None else match.end()
            if at == len(text):
                return
            if self._is_array and not self._is_open and text[at] == opening:
                self._is_open = True
                self._arrays += 1
                if self._arrays > 1:
                    self.oddities["further arrays"] += 1
                at += 1
                continue
            if self._is_open and text[at] == closing:
                self._is_open = False
                self._is_past = self._envelope is not None
                at = self._at = at + 1
                continue
            behind = at + 1
            key: str | None = None
            if self._is_array and not self._is_open and not self._is_keyed and text[at] == "{":
                self._is_open = True
                self.oddities["records behind the end of the array"] += 1
            try:
                if self._is_array and not self._is_open:
                    raise _Broken("text behind the end of the array")
                begin = at
                if self._is_keyed:
                    key, begin = _key(text, at)
                    behind = begin
                value, behind = _value(text, begin)
                if self._is_keyed and value.__class__ is dict:
                    value = self._with_all_keys(text, begin, value)
                if not self._is_followed(text, behind, final=final or overlong):
                    raise _Broken("text behind the value" if isinstance(value, dict) else _no_object(value))
                if final and self._has_taken_the_rest(text, behind, value):
                    raise _Broken("brackets are missing in this record")
            except _Incomplete as error:
                if not final and not overlong:
                    return
                fault, is_incomplete = f"the file ends within this record: {error}", True
            except _Broken as error:
                fault, is_incomplete = str(error), False
            else:
                self._at = behind
                if isinstance(value, dict):
                    yield value if key is None else self._with_key(key, value), at, behind, ""
                else:
                    yield None, at, behind, _no_object(value)
                at = behind
                continue
            end = self._next_record(text, at, behind, final=final)
            if end is None:
                return
            self._at = end
            if end < len(text):
                self._is_open = self._is_array
            elif final and is_incomplete and not self._is_array:
                self.oddities[ENDS_WITHIN] += 1
            yield None, at, end, fault
            at = end

    def _has_taken_the_rest(self, text: str, behind: int, value: Any) -> bool:
        """Tell whether the last record is one cut off in an array, which the brackets behind all records have closed."""
        if self._envelope is None or self._is_keyed or not isinstance(value, dict) or text[behind:].strip(" \t\r\n"):
            return False
        return any(
            isinstance(one, dict) and self._is_plausible(one.keys())
            for part in value.values()
            if isinstance(part, list)
            for one in part
        )

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
            return text[following] in (',}"' if self._is_keyed else ",]{")
        return text[following] in ",{" or "\n" in text[end:following]

    def _next_record(self, text: str, at: int, behind: int, *, final: bool) -> int | None:
        """Find where to go on behind a damaged record: the next line, or in an array the next element.

        Args:
            text: What is in view.
            at: Where the damaged record begins.
            behind: An offset within it, behind what could be read of it.
            final: The file ends with the text.

        Returns:
            The offset, at the end of the file its end; None when more of the file must be seen first.
        """
        if not self._is_array:
            line_end = text.find("\n", behind)
            return line_end + 1 if line_end >= 0 else len(text) if final else None

        def decode(begin: int) -> tuple[Any, bool, int] | None:
            try:
                value, end = _value(text, begin)
                return value, self._is_followed(text, end, final=final), end
            except _Broken:
                return None
            except _Incomplete:
                if final:
                    return None
                raise MoreNeededError from None

        element = DamagedElement(
            text,
            at,
            final=final,
            is_keyed=self._is_keyed,
            is_open=self._is_open,
            fields=self._fields,
            is_plausible=self._is_plausible,
            decode=decode,
        )
        try:
            return element.end()
        except MoreNeededError:
            return None

    def _is_plausible(self, keys: Set[str]) -> bool:
        """Tell a record from an object inside of one: by the keys that it shares with the records before."""
        if not self._fields:
            return any(matched(key, ("id", "created_date")) for key in keys)
        shared = len(keys & self._fields.keys())
        return shared > 0 and 2 * shared >= len(keys) and 2 * shared >= self._fewest_keys


def _added(record: dict[str, Any], key: str, value: str) -> dict[str, Any]:
    if isinstance(record, _Repeated):
        return _Repeated([(key, value), *record.pairs])
    return {key: value, **record}


def _key(text: str, at: int) -> tuple[str, int]:
    """Read the key of a member; return it, and the offset of its value."""
    match = _KEY.match(text, at)
    if match is None or match.end() == len(text):
        if text[at] == '"':
            raise _Incomplete("the text ends behind the key")
        raise _Broken("no key before the record")
    try:
        return json.loads(match[1]), match.end()
    except ValueError:
        raise _Broken("the key of the record cannot be read") from None


def _is_suspicious(text: str, *, has_escapes: bool) -> bool:
    """Tell whether some record of the text, with or without escapes in it, may hold NUL or a lone surrogate."""
    if has_escapes and _SUSPICIOUS.search(text):
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
