"""Naming fields that have no usable name of their own."""

from __future__ import annotations

from collections import Counter
from collections.abc import Container


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
