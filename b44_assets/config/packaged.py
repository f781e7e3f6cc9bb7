"""Files that come with the program and stand outside of its code."""

from __future__ import annotations

from pathlib import Path

_PACKAGE = Path(__file__).parents[1]


def packaged(name: str) -> Path:
    """A file or folder that stands in the repository's root, or within the installed package."""
    inside = _PACKAGE / name
    return inside if inside.exists() else _PACKAGE.parent / name
