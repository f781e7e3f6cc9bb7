"""The columns that a CREATE TABLE declares, each with its text.

What belongs here: cutting the statement. What does not: what the words of a column mean, but for whether rows can be without a value.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

_HEAD = re.compile(
    r"""(?:\s|--[^\n]*\n)*create\s+(?:unlogged\s+)?table\s+(?:if\s+not\s+exists\s+)?
        (?:(?P<schema>"(?:[^"]|"")+"|\w+)\s*\.\s*)?(?P<name>"(?:[^"]|"")+"|\w+)\s*(?P<list>\()?""",
    re.IGNORECASE | re.VERBOSE,
)
_OF = re.compile(
    r"""\s*partition\s+of\s+(?:(?:"(?:[^"]|"")+"|\w+)\s*\.\s*)?(?P<name>"(?:[^"]|"")+"|\w+)""", re.IGNORECASE
)
_PIECE = re.compile(
    r"""
    (?P<blank>\s+ | --[^\n]* | /\*.*?\*/)
  | (?P<string>[eE]'(?:[^'\\]|\\.|'')*' | '(?:[^']|'')*' | (?P<quote>\$(?:[A-Za-z_]\w*)?\$).*?(?P=quote))
  | (?P<name>"(?:[^"]|"")+" | \w+)
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)
_NO_COLUMN = frozenset({"constraint", "primary", "unique", "check", "foreign", "exclude", "like"})
_GIVEN = frozenset({"default", "generated", "serial", "bigserial", "smallserial"})

_BEHIND_TYPE = frozenset(
    {
        *("storage", "compression", "collate", "constraint", "not", "null", "check", "default", "generated", "unique"),
        *("primary", "references", "deferrable", "initially"),
    }
)
_BESIDE_DEFAULT = frozenset({"not", "constraint", "check", "unique", "primary", "references", "generated", "collate"})


@dataclass(frozen=True)
class DeclaredColumn:
    """A column of a CREATE TABLE.

    Attributes:
        table: The table's name.
        name: The column's name.
        text: All that stands of it in the statement, its name first; without the default.
        type: Its type as it stands there, without comments; empty where none does.
        default: Its default, where nothing stands behind that and rows that are there already can be without.
        key: Whether it is the primary key by itself.
        required: Whether a row that is there already could not get it: it is not null, and nothing gives it a value.
    """

    table: str
    name: str
    text: str
    type: str
    default: str | None
    key: bool
    required: bool


@lru_cache(maxsize=4096)
def declared_columns(statement: str) -> tuple[DeclaredColumn, ...]:
    """The columns of a CREATE TABLE of schema public; none of any other statement, or of one that lists no columns."""
    declared = declared_table(statement)
    return declared.columns if declared is not None and declared.schema == "public" else ()


@dataclass(frozen=True)
class DeclaredTable:
    """The table of a CREATE TABLE.

    Attributes:
        schema: Its schema, `public` where none is named.
        name: Its name.
        columns: The columns that are listed.
        partitioned: Whether it is one with partitions.
        parent: The table whose partition it is; empty for all others.
    """

    schema: str
    name: str
    columns: tuple[DeclaredColumn, ...]
    partitioned: bool
    parent: str


@lru_cache(maxsize=4096)
def declared_table(statement: str) -> DeclaredTable | None:
    """The table of a CREATE TABLE; None for any other statement."""
    head = _HEAD.match(statement)
    if head is None:
        return None
    name = _bare(head["name"])
    columns = tuple(_columns(name, statement, head.end())) if head["list"] else ()
    outside = _names_outside(statement, head.end(), depth=1 if head["list"] else 0)
    parent = ""
    if [word.lower() for word in outside[:2]] == ["partition", "of"] and (of := _OF.match(statement, head.end())):
        parent = _bare(of["name"])
    return DeclaredTable(
        _bare(head["schema"] or "public"),
        name,
        columns,
        any((one.lower(), two.lower()) == ("partition", "by") for one, two in pairwise(outside)),
        parent,
    )


def _names_outside(statement: str, begin: int, depth: int) -> list[str]:
    """The names and keywords that stand in no brackets."""
    names: list[str] = []
    for piece in _PIECE.finditer(statement, begin):
        if piece["other"] in ("(", "["):
            depth += 1
        elif piece["other"] in (")", "]"):
            depth -= 1
        elif depth == 0 and piece["name"]:
            names.append(piece[0])
    return names


def _columns(table: str, statement: str, begin: int) -> Iterator[DeclaredColumn]:
    depth, words = 0, list[re.Match[str]]()
    for piece in _PIECE.finditer(statement, begin):
        if piece["other"] in ("(", "["):
            depth += 1
        elif piece["other"] in (")", "]") and depth:
            depth -= 1
        elif depth == 0 and piece["other"] in (",", ")"):
            if words and words[0][0].lower() not in _NO_COLUMN:
                yield _column(table, statement, words, piece.start())
            if piece["other"] == ")":
                return
            words = []
        elif depth == 0 and piece["name"]:
            words.append(piece)


def _column(table: str, statement: str, words: list[re.Match[str]], end: int) -> DeclaredColumn:
    said = ["" if word[0].startswith('"') else word[0].lower() for word in words[1:]]
    text, default = statement[words[0].start() : end].strip(), None
    if "default" in said and not _BESIDE_DEFAULT & {*said}:
        place = words[1 + said.index("default")]
        text, default = statement[words[0].start() : place.start()].strip(), statement[place.end() : end].strip()
    joined = " ".join(said)
    behind = next((word.start() for word, low in zip(words[1:], said, strict=True) if low in _BEHIND_TYPE), end)
    pieces = _PIECE.finditer(statement, words[0].end(), behind)
    return DeclaredColumn(
        table,
        _bare(words[0][0]),
        text,
        "".join(" " if piece["blank"] else piece[0] for piece in pieces).strip(),
        default,
        "primary key" in joined,
        "not null" in joined and not _GIVEN & {*said},
    )


def _bare(name: str) -> str:
    return name[1:-1].replace('""', '"') if name.startswith('"') else name.lower()
