"""Finding the records in a JSON file that is one object around them."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from b44_assets.errors import ExportError
from b44_assets.exports.names import matched

_STRING: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"', re.DOTALL)
_SPACE: Final = re.compile(r"[ \t\r\n]*")
_ID: Final = re.compile(r"[0-9a-fA-F]{24}|[0-9a-fA-F]{8}(?:-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|\d+")
# An array whose first record is an object, one that lacks its brace, or bare words before an object.
_OPEN_RECORDS: Final = re.compile(r'\[[ \t\r\n]*+(?:\{|"[^"\\]*+"[ \t\r\n]*+:|[^"\[\]{}]++\{)')
_DEEPEST: Final = 4
_MOST_SHOWN: Final = 60
_decode: Final = json.JSONDecoder().raw_decode

Kind = Literal["records", "nothing", "object", "other"]


@dataclass(frozen=True)
class Envelope:
    """An object around the records.

    Attributes:
        path: The keys that lead to them.
        begin: Offset of the bracket that opens them.
        is_keyed: They are the values of an object, each under its id; otherwise the elements of an array.
    """

    path: tuple[str, ...]
    begin: int
    is_keyed: bool

    @property
    def oddity(self) -> str:
        """What to say of it."""
        where = f" within {'.'.join(self.path)}" if self.path else ""
        return f"records{' keyed by id' if self.is_keyed else ''}{where}"


@dataclass(frozen=True)
class _Member:
    key: str
    kind: Kind
    begin: int
    value: Any


def find_envelope(path: Path, text: str, at: int) -> Envelope | None:
    """Find the records within the object that a file begins with.

    Args:
        path: For messages.
        text: The file's beginning.
        at: Offset of the object's brace.

    Returns:
        Where they are; None where the object is a record itself, as far as can be told.

    Raises:
        ExportError: There are several arrays of records.
    """
    try:
        _, end = _decode(text, at)
    except (ValueError, RecursionError):
        end = len(text)
    if text[end:].strip(" \t\r\n,"):
        return None  # one object after the other
    found = _look(path, text, at, ())
    return found[0] if found else None


def _look(path: Path, text: str, at: int, keys: tuple[str, ...]) -> list[Envelope]:
    members = list(_members(text, at))
    if any(matched(one.key, ("id",)) and one.kind == "other" for one in members) or len(keys) > _DEEPEST:
        return []
    arrays = [one for one in members if one.kind == "records"]
    objects = [one for one in members if one.kind == "object"]
    empty = [one for one in members if one.kind == "nothing"]
    if len(arrays) > 1:
        names = ", ".join(one.key for one in arrays)
        raise ExportError(f"{path}: holds several arrays of records ({names}); save each as a file of its own")
    if arrays:
        return [Envelope((*keys, arrays[0].key), arrays[0].begin, is_keyed=False)]
    if objects and len(objects) == len(members) and _is_keyed(text, objects):
        return [Envelope(keys, at, is_keyed=True)]
    found = [one for member in objects for one in _look(path, text, member.begin, (*keys, member.key))]
    if len(found) > 1:
        names = ", ".join(".".join(one.path) or "the object itself" for one in found)
        raise ExportError(f"{path}: holds records in several places ({names}); save each as a file of its own")
    if found or objects or len(empty) != 1:
        return found
    return [Envelope((*keys, empty[0].key), empty[0].begin, is_keyed=False)]


def _is_keyed(text: str, objects: list[_Member]) -> bool:
    if all(_ID.fullmatch(one.key) for one in objects):
        return True
    return all(
        any(matched(inner.key, ("id",)) and inner.kind == "other" for inner in _members(text, one.begin))
        for one in objects
    )


def _members(text: str, at: int) -> Iterator[_Member]:
    """Split an object into its members, up to where the text ends or is damaged."""
    at = _behind_space(text, at + 1)
    while (match := _STRING.match(text, at)) is not None:
        try:
            key = json.loads(match[0], strict=False)
        except ValueError:
            return
        colon = _behind_space(text, match.end())
        begin = _behind_space(text, colon + 1)
        if text[colon : colon + 1] != ":" or begin == len(text):
            return
        try:
            value, end = _decode(text, begin)
        except (ValueError, RecursionError):
            yield _Member(key, _kind_of_open(text, begin), begin, None)
            return
        yield _Member(key, _kind(value), begin, value)
        at = _behind_space(text, end)
        if text[at : at + 1] != ",":
            return
        at = _behind_space(text, at + 1)


def _kind(value: Any) -> Kind:
    if isinstance(value, dict):
        return "object" if value else "other"
    if isinstance(value, list):
        return "nothing" if not value else "records" if isinstance(value[0], dict) else "other"
    return "other"


def _kind_of_open(text: str, at: int) -> Kind:
    if text[at] == "{":
        return "object"
    return "records" if _OPEN_RECORDS.match(text, at) else "other"


def _behind_space(text: str, at: int) -> int:
    match = _SPACE.match(text, at)
    return at if match is None else match.end()


def check_rest(path: Path, envelope: Envelope, before: str, behind: str) -> str | None:
    """Judge what an envelope holds besides its records.

    Args:
        path: For messages.
        envelope: As it was found.
        before: The text before the bracket that opens the records.
        behind: The text behind the bracket that closes them.

    Returns:
        What else is there, in a few words; None where that is nothing.

    Raises:
        ExportError: It is a page of several, holds further records, or is no JSON.
    """
    where = ".".join(envelope.path)
    try:
        rest = json.loads(f"{before}null{behind}", strict=False) if before.strip() else _nothing_else(behind)
    except (ValueError, RecursionError):
        raise ExportError(
            f"{path}: what stands around the records{f' in {where}' if where else ''} is no JSON"
        ) from None
    beside: list[str] = []
    level = rest
    for key in envelope.path:
        others = {name: value for name, value in level.items() if name != key}
        if others.get("has_more") or others.get("next_cursor"):
            raise ExportError(
                f"{path}: holds a page of the API's answer, and there are more; save the records of all pages as one array"
            )
        if any(_kind(value) == "records" for value in others.values()):
            raise ExportError(f"{path}: holds several arrays of records; save each as a file of its own")
        if any(matched(name, ("id",)) for name in others):
            raise ExportError(f"{path}: holds one object with an id and records in {where}; which of them are meant?")
        beside += [f"{name} {_short(value)}" for name, value in others.items()]
        level = level[key]
    return ", ".join(beside) or None


def _nothing_else(behind: str) -> dict[str, Any]:
    if behind.strip():
        raise ValueError("text behind the records")
    return {}


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True)
    return text if len(text) <= _MOST_SHOWN else text[:_MOST_SHOWN] + "…"
