"""SQL text cut into statements."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from b44_assets.catalog.model import Statement
from b44_assets.errors import CatalogError

_WORD = re.compile(r"[A-Za-z_][A-Za-z0-9_$]*")
# The last one takes all that is none of the others, in one piece: a command reads these files at each start. No group of alternatives
# is possessive: Python 3.11.2, which Debian 12 has, takes that for something else.
_TOKEN = re.compile(
    r"""
    (?P<space>(?:\s|--[^\n]*)+)
  | (?P<end>;)
  | (?P<block>/\*)
  | (?P<string>[eE]'[^'\\]*+(?:(?:\\.|'')[^'\\]*+)*'(?!')|'[^']*+(?:''[^']*+)*'(?!')|"[^"]*+(?:""[^"]*+)*"(?!"))
  | (?P<dollar>\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$)
  | (?P<open>[eE]'|['"])
  | (?P<other>(?:
        (?![eE]')[A-Za-z_][A-Za-z0-9_$]*+
      | [^A-Za-z_\-/'"$;]++
      | -(?!-) | /(?!\*) | \$(?!(?:[A-Za-z_][A-Za-z0-9_]*)?\$)
    )+)
    """,
    re.VERBOSE | re.DOTALL,
)


def split_statements(text: str, path: Path) -> Iterator[Statement]:
    """Cuts SQL at its semicolons, as psql does: not within quotes, comments, dollar quotes or `begin atomic … end`.

    Yields:
        Statements without the semicolon, comments inside kept; pieces of comment and white space alone are left out.

    Raises:
        CatalogError: A quote or comment is never closed; names the line.
    """
    position, depth, meaningful = 0, 0, -1
    previous = ""
    has_bodies = "atomic" in text.lower()

    def line_of(offset: int) -> int:
        return text.count("\n", 0, offset) + 1

    while match := _TOKEN.match(text, position):
        kind, begun, position = match.lastgroup, position, match.end()
        if kind == "block":
            level = 1
            while level:
                bound = re.compile(r"/\*|\*/").search(text, position)
                if bound is None:
                    raise CatalogError(f"{path}:{line_of(begun)}: comment is never closed")
                level += 1 if bound[0] == "/*" else -1
                position = bound.end()
            continue
        if kind == "space":
            continue
        if kind == "open":
            raise CatalogError(f"{path}:{line_of(begun)}: quote is never closed")
        if kind == "end" and depth == 0:
            if meaningful >= 0:
                yield Statement(text[meaningful:begun].rstrip(), line_of(meaningful))
            meaningful, previous = -1, ""
            continue
        if meaningful < 0:
            meaningful = begun
        if kind == "dollar":
            closing = text.find(match[0], position)
            if closing < 0:
                raise CatalogError(f"{path}:{line_of(begun)}: {match[0]} is never closed")
            position = closing + len(match[0])
        elif kind == "other" and has_bodies:
            for word in _WORD.findall(match[0].lower()):
                if word == "atomic" and previous == "begin":
                    depth = 1
                elif depth and word == "case":
                    depth += 1
                elif depth and word == "end":
                    depth -= 1
                previous = word
    if meaningful >= 0:
        yield Statement(text[meaningful:].rstrip(), line_of(meaningful))
