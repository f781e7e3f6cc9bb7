"""Naming fields that have no usable name of their own."""

from __future__ import annotations

import difflib
import functools
import re
import unicodedata
from collections import Counter
from collections.abc import Collection, Container, Iterable, Sequence
from pathlib import Path
from typing import Final

from b44_assets.errors import ExportError
from b44_assets.exports.text import visible_text
from b44_assets.wording import some_of

_MOST_NAMED: Final = 12
_ALIKE: Final = 0.7

_FILLING: Final = re.compile(r"[\s_\-\u200b\ufeff]+")


def distinct(names: list[str], oddities: Counter[str]) -> tuple[str, ...]:
    """Name the fields of a header.

    Args:
        names: As they stand there.
        oddities: Gains `blank header name` and `duplicate header name`.

    Returns:
        The names, a blank one as `column_7` after its place, a repeated one with `_2` or the next number that is free.
    """
    taken = {name for name in names if name.strip()}
    seen: set[str] = set()
    fields: list[str] = []
    for place, name in enumerate(names, 1):
        field = name
        if not name.strip():
            oddities["blank header name"] += 1
            field = free_name(f"column_{place}", taken)
        elif name in seen:
            oddities["duplicate header name"] += 1
            field = free_name(name, taken)
        seen.add(field)
        taken.add(field)
        fields.append(field)
    return tuple(fields)


def free_name(wanted: str, taken: Container[str]) -> str:
    """Return the name, or with the first suffix from `_2` on that makes it a free one."""
    name, number = wanted, 2
    while name in taken:
        name, number = f"{wanted}_{number}", number + 1
    return name


def recognised(fields: tuple[str, ...], known: Sequence[str], oddities: Counter[str]) -> tuple[str, ...]:
    """Give fields the known names that they differ from in case, blanks, `-` and `_` alone.

    Where several fields could have one known name, or one has it already, they keep their own.
    """
    meant = {field: matched(field, known) for field in fields}
    claims = Counter(name for name in meant.values() if name is not None)
    named: list[str] = []
    for field in fields:
        name = meant[field]
        if name is None or name == field or claims[name] > 1:
            named.append(field)
        else:
            oddities[f"field {field} read as {name}"] += 1
            named.append(name)
    return tuple(named)


def require_id(path: Path, fields: Iterable[str], known: Sequence[str]) -> None:
    """Raise ExportError where no field is `id`, without which no record can be migrated."""
    found = list(fields)
    if "id" not in found:
        raise ExportError(
            f"{path}: none of its records has an id; fields found: {_listed(found)}; expected: {_listed(known)}"
        )


class IdWatch:
    """Watches whether any record of a source has an id."""

    def __init__(self, source: str, known: Sequence[str]) -> None:
        """Begin before the first record.

        Args:
            source: For the message.
            known: Fields that are looked for.
        """
        self._source = source
        self._known = known
        self._records = 0
        self._has_id = False

    def see(self, ids: Iterable[str | None], records: int) -> None:
        """Take in some records.

        Args:
            ids: Their ids, as many of them as have the field.
            records: How many they are.
        """
        self._records += records
        self._has_id = self._has_id or any(not _is_blank(one) for one in ids)

    def require(self, fields: Iterable[str]) -> None:
        """Raise ExportError where there were records, and the id of each of them was blank; `fields` are those found."""
        if self._records and not self._has_id:
            raise ExportError(
                f"{self._source}: none of its {self._records:,} records has an id: the field id is blank in each;"
                f" fields found: {_listed(list(fields))}; expected: {_listed(self._known)}"
            )


def _is_blank(text: str | None) -> bool:
    # `null` is an id in one record; where it is that of all, it is none.
    return text is None or text.strip().strip("\ufeff").strip().lower() in ("", "null", "undefined", "none")


def _listed(names: Sequence[str]) -> str:
    shown = [" ".join(visible_text(name, bytes_escaped=True).split())[:40] for name in names]
    return some_of(shown, _MOST_NAMED) or "none"


@functools.lru_cache(maxsize=1 << 14)
def loosely(name: str) -> str:
    """Return a name without case, blanks, `-` and `_`: names that are equal so are easily taken for one another."""
    return caseless(_FILLING.sub("", name))


def caseless(name: str) -> str:
    """Return a name without case. Letters that are not the same stay apart: `Straße` is not `Strasse`, as it is to `casefold`."""
    plain = unicodedata.normalize("NFC", name)
    folded = ((letter, letter.casefold()) for letter in plain)
    return "".join(one if len(one) == 1 else letter.lower() for letter, one in folded)


def matched(name: str, known: Collection[str]) -> str | None:
    """Return the one known name that differs at most in case, blanks, `-` and `_`; None where there is none, or several."""
    if name in known:
        return name
    form = loosely(name)
    found = [other for other in known if form and loosely(other) == form]
    return found[0] if len(found) == 1 else None


def nearest(name: str, candidates: Iterable[str]) -> str | None:
    """Return the candidate that a name may be a misspelling of, whatever the case; None where none is much alike."""
    by_form = {loosely(other): other for other in candidates}
    found = difflib.get_close_matches(loosely(name), by_form, n=1, cutoff=_ALIKE)
    return by_form[found[0]] if found else None
