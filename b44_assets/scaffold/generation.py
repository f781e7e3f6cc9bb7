"""From an app's schemas and export to the files of its folder that describe it: `sql/` and `DECISIONS.md`."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path, PurePath, PurePosixPath

from b44_assets.scaffold.decisions import PAGE, decisions_page
from b44_assets.scaffold.declared_rules import not_held
from b44_assets.scaffold.defaults import without_default
from b44_assets.scaffold.entity_schemas import read_schemas
from b44_assets.scaffold.inference import infer
from b44_assets.scaffold.model import App, Overrides
from b44_assets.scaffold.source_calls import calls_section, count_calls
from b44_assets.scaffold.sql_files import files_of


def generate(
    entities: Path | None, export: Path | None, source: Path | None, overrides: Overrides
) -> tuple[App, Mapping[PurePath, str]]:
    """Reads an app and gives its files.

    Args:
        entities: Folder of the schemas, or None for an export alone.
        export: Folder of exports, or None.
        source: Folder of the app's own source, of which calls are counted; or None.
        overrides: What its owner wants otherwise.

    Returns:
        The app, and text by path from the app folder.

    Raises:
        B44Error: Something cannot be read.
    """
    reading = None if entities is None else read_schemas(entities)
    app = infer(reading, export, overrides)
    app = replace(app, decisions=(*app.decisions, *not_held(app), *without_default(app)))
    calls = "" if source is None else calls_section(count_calls(source))
    files: dict[PurePath, str] = {PurePosixPath("sql") / path: text for path, text in files_of(app).items()}
    # The page is kept under version control: where the folders are on this machine is nobody's business.
    notices = tuple(replace(one, text=_from_folders(one.text, entities, export)) for one in app.notices)
    files[PurePosixPath(PAGE)] = decisions_page(replace(app, notices=notices), calls)
    return app, files


def _from_folders(text: str, *folders: Path | None) -> str:
    """A text in which paths in some folders begin there."""
    for folder in folders:
        if folder is not None:
            text = text.replace(f"{folder}{os.sep}", "")
    return text
