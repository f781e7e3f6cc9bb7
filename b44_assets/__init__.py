"""Moves an app off Base44 into a PostgreSQL of its owner's, as a Dagster asset graph."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from dagster import Definitions

    from b44_assets.orchestration.component import Base44Migration

__all__ = ["Base44Migration", "definitions_for"]


def __getattr__(name: str) -> type[Base44Migration]:
    # Late: whoever imports the package for something else need not wait for Dagster.
    if name != "Base44Migration":
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from b44_assets.orchestration.component import Base44Migration

    return Base44Migration


def __dir__() -> list[str]:
    """With the component, which Dagster looks for among these names."""
    return sorted({*globals(), *__all__})


def definitions_for(folder: Path | str, *, executor: bool = True) -> Definitions:
    """Everything of an app folder as Dagster definitions, alone or to be merged with others.

    Settings are read from the environment and the folder's `.env`, once now and again when a run starts.

    Args:
        folder: With the app's `b44.toml` and `sql/`.
        executor: Whether they bring an executor. Of definitions that are merged one only may; say False where they are to keep theirs.

    Raises:
        CatalogError: A file under `sql/` breaks the form.
        SettingsError: A setting or `b44.toml` cannot be used.
    """
    from functools import partial

    from b44_assets.config.settings import Settings
    from b44_assets.orchestration.code_location import build_definitions

    load = partial(Settings.load, app=Path(folder).absolute())
    return build_definitions(load(), reload=load, executor=executor)
