"""How numbers and names are put into sentences: `1 file is there`, `2 files are there`, `an incremental backup`."""

from __future__ import annotations

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
