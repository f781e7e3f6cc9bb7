"""What several files of commands share: options, settings, and how tables are printed."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import click
from rich.console import Console
from rich.table import Column

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings

out = functools.partial(Console, highlight=False)


def database_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--database-url`."""
    return click.option(
        "--database-url", metavar="URL", help="The target; default B44_DATABASE_URL, else an embedded PostgreSQL."
    )(command)


def json_option(command: Callable[..., Any]) -> Callable[..., Any]:
    """Adds `--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON object and nothing else.")(command)


def settings_with(**overrides: Any) -> Settings:
    """The settings of the environment, with what the options say instead.

    Raises:
        SettingsError: One of them cannot be used.
    """
    # Late: pydantic takes a third of a second, which `--help` need not wait for.
    from b44_assets.config.settings import Settings

    return Settings.load(**overrides)


def right(name: str) -> Column:
    """A column of numbers."""
    return Column(name, justify="right", no_wrap=True)
