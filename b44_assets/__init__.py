"""Moves an app off Base44 into a PostgreSQL of its owner's, as a Dagster asset graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import Definitions

__all__ = ["definitions_for"]


def definitions_for(folder: Path) -> Definitions:
    """Everything of an app folder as Dagster definitions, alone or to be merged with others.

    Settings are read from the environment and the folder's `.env`, once now and again when a run starts.

    Args:
        folder: With the app's `b44.toml` and `sql/`.

    Raises:
        CatalogError: A file under `sql/` breaks the form.
        SettingsError: A setting or `b44.toml` cannot be used.
    """
    # Late: whoever imports the package for something else need not wait for Dagster.
    from functools import partial

    from b44_assets.config.settings import Settings
    from b44_assets.orchestration.code_location import build_definitions

    load = partial(Settings.load, app=folder.absolute())
    return build_definitions(load(), reload=load)
