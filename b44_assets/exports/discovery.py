"""Finding the files of an export in a folder."""

from __future__ import annotations

import re
from pathlib import Path

from b44_assets.errors import ExportError
from b44_assets.exports.model import ExportFile

# The name may be qualified by a schema; the entity's own name begins with a capital, so that notes such as
# `truth.json` or `package.json` beside the export are not taken for entities.
_NAME = re.compile(r"(?P<entity>(?:[^\W\d]\w*\.)*(?P<own>[^\W\d_]\w*?))(?:_export)?\.(?:csv|jsonl?)", re.IGNORECASE)


def discover(directory: Path) -> tuple[ExportFile, ...]:
    """Find the export's files: `<Entity>_export.csv`, `<Entity>.csv`, `<Entity>.json`, `<Entity>.jsonl`.

    Args:
        directory: The export folder; only its own files count, folders in it are not entered.

    Returns:
        One file per entity, sorted by entity. Everything else in the folder is ignored.

    Raises:
        ExportError: The folder is missing, is none, cannot be read, holds no export file, or two for one entity.
    """
    try:
        names = sorted(path.name for path in directory.iterdir() if path.is_file())
    except FileNotFoundError:
        raise ExportError(f"{directory}: there is no such export folder") from None
    except NotADirectoryError:
        raise ExportError(f"{directory}: is a file, not an export folder") from None
    except OSError as error:
        raise ExportError(f"{directory}: the export folder cannot be read: {error.strerror}") from error
    found: dict[str, str] = {}
    for name in names:
        match = _NAME.fullmatch(name)
        if match is None or not match["own"][0].isupper():
            continue
        other = found.setdefault(match["entity"], name)
        if other != name:
            raise ExportError(f"{directory}: {other} and {name} are both exports of {match['entity']}; keep one")
    if not found:
        raise ExportError(f"{directory}: no export file here (expected such as Post_export.csv, Post.json, Post.jsonl)")
    return tuple(ExportFile(entity, directory / found[entity]) for entity in sorted(found))
