"""Names, literals and comments as they stand in a file of SQL."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from collections.abc import Iterable

NAME_BYTES = 63
"""PostgreSQL cuts longer names."""
_PLAIN = re.compile(r"[a-z_][a-z0-9_]*")
_KEYWORDS = """
    all analyse analyze and any array as asc asymmetric authorization between bigint binary bit boolean both case cast char
    character check coalesce collate collation column concurrently constraint create cross current_catalog current_date
    current_role current_schema current_time current_timestamp current_user dec decimal default deferrable desc distinct do else
    end except exists extract false fetch float for foreign freeze from full grant greatest group grouping having ilike in
    initially inner inout int integer intersect interval into is isnull join json json_array json_arrayagg json_exists json_object
    json_objectagg json_query json_scalar json_serialize json_table json_value lateral leading least left like limit localtime
    localtimestamp merge_action national natural nchar none normalize not notnull null nullif numeric offset on only or order out
    outer overlaps overlay placing position precision primary real references returning right row select session_user setof
    similar smallint some substring symmetric system_user table tablesample then time timestamp to trailing treat trim true union
    unique user using values varchar variadic verbose when where window with xmlattributes xmlconcat xmlelement xmlexists
    xmlforest xmlnamespaces xmlparse xmlpi xmlroot xmlserialize xmltable
    """
KEYWORDS = frozenset(_KEYWORDS.split())
"""Words that PostgreSQL 15 to 18 do not take for a name everywhere."""


def identifier(name: str) -> str:
    """A name, in double quotes where it is a word of SQL's or has other signs than lower case letters, digits and `_`."""
    if _PLAIN.fullmatch(name) and name not in KEYWORDS:
        return name
    return '"' + name.replace('"', '""') + '"'


def identifiers(names: Iterable[str]) -> str:
    """Names with commas between them."""
    return ", ".join(map(identifier, names))


def literal(text: str) -> str:
    """Text as a constant."""
    return "'" + text.replace("'", "''") + "'"


def fitting(name: str) -> str:
    """A name that PostgreSQL keeps whole: a longer one is cut, and ends in a digest of all of it."""
    if len(name.encode()) <= NAME_BYTES:
        return name
    digest = hashlib.sha256(name.encode()).hexdigest()[:8]
    return f"{name.encode()[: NAME_BYTES - 9].decode(errors='ignore')}_{digest}"


def free(name: str, taken: Iterable[str]) -> str:
    """A name, with a number behind it where others have it."""
    others = set(taken)
    number, wanted = 1, name
    while wanted in others:
        number += 1
        wanted = f"{name}_{number}"
    return wanted


def line(text: str, length: int | None = None) -> str:
    """Text on one line, without signs that cannot be seen; where it is longer than wanted, cut at a word."""
    seen = "".join(" " if unicodedata.category(sign) in ("Cc", "Cs", "Zl", "Zp") else sign for sign in text)
    whole = " ".join(seen.split())
    if length is None or len(whole) <= length:
        return whole
    return f"{whole[:length].rsplit(' ', 1)[0].rstrip(' ,;:')} …"


def quoted_block(body: str) -> str:
    """A dollar quote that does not stand in a text."""
    tag, number = "$$", 0
    while tag in body:
        number += 1
        tag = f"$do{number}$"
    return tag


def wrapped(items: Iterable[str], *, first: int, indent: int, width: int = 120) -> str:
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
