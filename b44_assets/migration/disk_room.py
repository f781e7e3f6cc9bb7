"""Whether the disk of a server on this machine has room for what an export becomes."""

from __future__ import annotations

import shutil
from collections.abc import Collection
from pathlib import Path

from b44_assets.errors import B44Error, free_at
from b44_assets.exports import discover
from b44_assets.postgres.connect import data_directory

TIMES_THE_EXPORT = 4
"""What a migration writes at most, as a multiple of its export: staged records, rows, their indexes, and the WAL of those."""

BESIDE_THE_EXPORT = 64 * 2**20
"""Bytes that it writes however small the export is: tables, indexes, functions, their WAL, Dagster's storage (44 MB for the blog)."""

REMEDY = "make room there before it is full"


def lacking_room(url: str, export: Path, entities: Collection[str]) -> str:
    """Says in one line that the disk is nearly full for an export; empty where it is not, or where that cannot be known.

    Args:
        url: Of the target.
        export: Folder of the exported files.
        entities: Those that have a table.
    """
    directory = data_directory(url)
    if directory is None:
        return ""
    try:
        size = sum(file.path.stat().st_size for file in discover(export, entities))
        free = shutil.disk_usage(directory).free
    except (OSError, B44Error):
        # What is wrong with the folder is told by whoever reads it.
        return ""
    wanted = TIMES_THE_EXPORT * size + BESIDE_THE_EXPORT
    if free >= wanted:
        return ""
    return f"{free_at(directory)}, and the migration of {size / 2**20:,.1f} MB may take {wanted / 2**20:,.1f} MB"
