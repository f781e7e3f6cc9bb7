"""Which commands there are."""

from __future__ import annotations

from collections.abc import Iterator

import click

from b44_assets.cli import main


def commands(command: click.Command = main, path: tuple[str, ...] = ("b44",)) -> Iterator[tuple[str, click.Command]]:
    """Every command that does something, by how it is called."""
    if isinstance(command, click.Group):
        for name, inner in command.commands.items():
            yield from commands(inner, (*path, name))
    else:
        yield " ".join(path), command
