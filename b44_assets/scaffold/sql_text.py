"""Names, literals and comments as they stand in a file of SQL."""

from __future__ import annotations

import hashlib
import unicodedata
from collections.abc import Iterable
from typing import Final

from b44_assets.scaffold.names import LONGEST, quoted

LONGEST_LINE: Final = 120
"""Characters of a line of a file, where it can be broken."""


def identifiers(names: Iterable[str]) -> str:
    """Names with commas between them."""
    return ", ".join(map(quoted, names))


def literal(text: str) -> str:
    """Text as a constant."""
    return "'" + text.replace("'", "''") + "'"


def fitting(name: str) -> str:
    """A name that PostgreSQL keeps whole: a longer one is cut, and ends in a digest of all of it."""
    # Not `names.shortened`, which leaves out a line before the digest: the indexes of apps that are there would get new names.
    if len(name.encode()) <= LONGEST:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: LONGEST - 9].decode(errors='ignore')}_{digest}"


def line(text: str, length: int | None = None) -> str:
    """Text on one line, without signs that cannot be seen; where it is longer than wanted, cut at a word."""
    seen = "".join(" " if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") else sign for sign in text)
    whole = " ".join(seen.split())
    if length is None or len(whole) <= length:
        return whole
    return f"{whole[:length].rsplit(' ', 1)[0].rstrip(' ,;:.')} …"


def quoted_block(body: str) -> str:
    """A dollar quote that does not stand in a text."""
    tag, number = "$$", 0
    while tag in body:
        number += 1
        tag = f"$do{number}$"
    return tag


def on_one_line(first: str, rest: str, *, indent: int, beside: int = 0) -> str:
    """Two parts of a statement on one line, or the second on a line of its own where one would be too long.

    Args:
        first: The first part.
        rest: The second.
        indent: How far a second line is indented.
        beside: How many characters the line has besides: before the first part and after the second.
    """
    line = f"{first} {rest}"
    return line if len(line) + beside <= LONGEST_LINE else f"{first}\n{' ' * indent}{rest}"


def wrapped(items: Iterable[str], *, first: int, indent: int, width: int = LONGEST_LINE) -> str:
    """Items with commas between them, on as many lines as they need.

    Args:
        items: What to list.
        first: How many characters stand before the first item on its line.
        indent: How far the lines after it are indented.
        width: The most characters of a line.
    """
    lines: list[str] = [""]
    used = first
    pieces = list(items)
    for number, item in enumerate(pieces):
        piece = item + ("," if number < len(pieces) - 1 else "")
        if lines[-1] and used + 1 + len(piece) > width:
            lines.append("")
            used = indent
        elif lines[-1]:
            lines[-1] += " "
            used += 1
        lines[-1] += piece
        used += len(piece)
    return ("\n" + " " * indent).join(lines)
