"""The documented form of what the commands print with `--json`."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from functools import cache
from typing import Any

import click
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from b44_assets.cli import main
from tests.helpers.paths import REPOSITORY

SCHEMA: dict[str, Any] = json.loads((REPOSITORY / "docs" / "output.schema.json").read_text(encoding="utf-8"))

# They become other programs, or a service, and print what these print.
WITHOUT = {"dev", "db psql", "db dump"}


def commands(group: click.Group = main, path: tuple[str, ...] = ()) -> Iterator[tuple[str, click.Command]]:
    """All commands, by name: `migrate`, `db url`."""
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from commands(command, (*path, name))
        else:
            yield " ".join((*path, name)), command


def command_of(arguments: Sequence[str]) -> str:
    """The name of a command among its arguments: `migrate`, `db url`."""
    return " ".join(arguments[: 2 if arguments[0] == "db" else 1])


@cache
def _validator(command: str) -> Draft202012Validator:
    assert command in SCHEMA["$defs"], f"docs/output.schema.json has no b44 {command}"
    return Draft202012Validator({**SCHEMA, "$ref": f"#/$defs/{command.replace(' ', '%20')}"})


def check_form(command: str, printed: dict[str, Any]) -> None:
    """Fails where what a command has printed is of another form than the one documented."""
    error = best_match(_validator(command).iter_errors(printed))
    assert error is None, f"b44 {command} --json: {error.json_path}: {error.message}"
