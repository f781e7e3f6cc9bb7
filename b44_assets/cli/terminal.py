"""How wide what is printed may be, and lines of prose that are folded at words to fit a terminal."""

from __future__ import annotations

import os
import re
import sys

import click
from rich.cells import cell_len
from rich.console import Console

UNBOUNDED = 10_000
"""The width of no terminal, in which nothing is folded."""
_COMMAND = re.compile(r"`[^`]+`|(?:\b[A-Z0-9_]+=\S+ )?\bb44 (?:db )?[a-z]+\b(?: \.)?(?: -\S+(?: [^-\s]\S*)?)*")
"""What is copied as a whole: a command with its options, the word after one of which is taken for its value."""
_JOINED = "\ue000"


def new_console(*, stderr: bool = False) -> Console:
    """Makes a console that prints texts as they are, as wide as the terminal; in a pipe or a file a row stays one line.

    For tables COLUMNS stands above both. NO_COLOR is honoured, and without a terminal there are no escapes.
    """
    console = Console(stderr=stderr, highlight=False, markup=False, emoji=False)
    if not console.is_terminal and not os.environ.get("COLUMNS"):
        console.width = UNBOUNDED
    return console


def folded(line: str, width: int, indent: str | None = None) -> str:
    """A line in as many as it needs, folded at blanks, but not within a command of ours or what is quoted by backticks.

    What is wider than the terminal, such as a path, stays whole.

    Args:
        line: One line.
        width: Of the terminal, in columns.
        indent: What further lines begin with; by default what the line begins with and two blanks more.
    """
    if cell_len(line) <= width:
        return line
    if indent is None:
        indent = " " * (len(line) - len(line.lstrip(" ")) + 2)
    lines: list[str] = []
    current, *words = _COMMAND.sub(lambda found: found[0].replace(" ", _JOINED), line).split(" ")
    for word in words:
        longer = f"{current} {word}"
        if current.strip() and cell_len(longer) > width:
            lines.append(current.rstrip(" "))
            longer = f"{indent}{word}"
        current = longer
    return "\n".join([*lines, current] if current.strip() else lines).replace(_JOINED, " ")


def print_line(line: str, *, err: bool = False, indent: str | None = None) -> None:
    """Prints a line for a person, folded to the width of the terminal; in a pipe or a file it stays one line.

    Args:
        line: One line.
        err: Whether it goes to standard error.
        indent: As of `folded`.
    """
    # Named, as click goes round what keeps such lines out of a bar that stands there.
    click.echo(folded(line, _prose_width(new_console(stderr=err)), indent), file=sys.stderr if err else None)


def print_text(console: Console, line: str) -> None:
    """Prints such a line on a console, among tables."""
    console.print(folded(line, _prose_width(console)), soft_wrap=True)


def ask(question: str) -> bool:
    """Asks on the terminal, on standard error; no is what is taken for granted."""
    return click.confirm(folded(question, _prose_width(new_console(stderr=True))), err=True)


def _prose_width(console: Console) -> int:
    return console.width if console.is_terminal else UNBOUNDED
