"""What is the same in what a command prints each time, whatever the width."""

from __future__ import annotations

import re


def structure(text: str) -> list[str]:
    """The lines without what is another one each time: numbers, times, ids, versions, paths; and without the tables' widths."""
    lines: list[str] = []
    for line in text.splitlines():
        for pattern, name in (
            (r"\d{8}T\d{6}Z", "TIME"),
            (r"\d{4}-\d\d-\d\d(?:[ T]\d\d:\d\d(?::\d\d)?)?", "TIME"),
            (r"\b[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}\b|\b[0-9a-f]{24}\b", "ID"),
            (r"[\d,.]*\d( (?:[KMGT]iB|B)\b)?", "N"),
            (r"(?<![\w.])/[\w./-]+", "PATH"),
            (r"[─━]{2,}", "─"),
            (r"\s+", " "),
        ):
            line = re.sub(pattern, name, line)
        lines.append(line.strip())
    return lines


def shape(text: str) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """The heads of all tables, their rows, and the words of all that is in none: what has been folded is put together."""
    heads: list[list[str]] = []
    rows: list[list[str]] = []
    words: list[str] = []
    for line in text.splitlines():
        if line.startswith("┃"):
            # A head is split at a syllable.
            heads[-1] = [before.removesuffix("-") + cell for before, cell in _joined(heads[-1], line, "┃")]
        elif line.startswith("┏"):
            heads.append([])
        elif line.startswith("│"):
            cells = [cell.strip() for cell in line.split("│")[1:-1]]
            # No column at the end is blank, but of what goes on from the line above.
            if cells[-1]:
                rows.append(cells)
            else:
                rows[-1] = [before + cell for before, cell in _joined(rows[-1], line, "│")]
        elif line[:1] not in "┡├└":
            words += line.split()
    return heads, rows, words


def _joined(before: list[str], line: str, border: str) -> list[tuple[str, str]]:
    cells = [cell.strip() for cell in line.split(border)[1:-1]]
    return list(zip(before or [""] * len(cells), cells, strict=True))
