"""How numbers and names are put into sentences: `1 file is there`, `2 files are there`, `an incremental backup`."""

from __future__ import annotations

from collections.abc import Sequence

_VOWELS = tuple("aeiou")


def plural(number: int, one: str, many: str | None = None) -> str:
    """Returns the form of a word that goes with a number, without the number.

    Args:
        number: How many.
        one: The word for one: `file`, or with its verb `file is`.
        many: For none and for several; by default with an `s` behind it.
    """
    return one if number == 1 else many or f"{one}s"


def with_article(words: str) -> str:
    """Returns words with `a` or `an` before them, by how they are spelt; not for the likes of `hour` and `user`."""
    return f"{'an' if words.lower().startswith(_VOWELS) else 'a'} {words}"


def some_of(names: Sequence[str], most: int, separator: str = ", ") -> str:
    """Returns the first of some names, and how many there are besides: `a, b and 3 more`.

    Args:
        names: All of them.
        most: How many are named; at least 1.
        separator: Between two of them; one that ends a clause, as `; `, stands before the rest, too.
    """
    said = separator.join(names[:most])
    if len(names) <= most:
        return said
    return f"{said}{separator if separator != ', ' else ' '}and {len(names) - most:,} more"


def first_of(lines: Sequence[str]) -> str:
    """Returns the first of some lines, and in brackets how many there are besides: `a (and 3 more)`."""
    return lines[0] + (f" (and {len(lines) - 1:,} more)" if len(lines) > 1 else "")
