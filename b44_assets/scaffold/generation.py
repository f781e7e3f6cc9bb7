"""From an app's schemas and export to the files of its folder that describe it: `sql/` and `DECISIONS.md`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path, PurePath

from b44_assets.scaffold.files import FolderError
from b44_assets.scaffold.model import App, Overrides


def generate(entities: Path | None, export: Path | None, overrides: Overrides) -> tuple[App, Mapping[PurePath, str]]:
    """Reads an app and gives its files.

    Args:
        entities: Folder of the schemas, or None for an export alone.
        export: Folder of exports, or None.
        overrides: What its owner wants otherwise.

    Returns:
        The app, and text by path from the app folder.

    Raises:
        B44Error: Something cannot be read.
    """
    raise FolderError("schemas cannot be read yet")
