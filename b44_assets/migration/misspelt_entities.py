"""A mapping whose entity has no file, beside a file whose entity has no mapping: perhaps one of the names is misspelt."""

from __future__ import annotations

from collections.abc import Collection, Sequence

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.catalog.headers import line_of
from b44_assets.exports import ExportFile
from b44_assets.exports.names import nearest


def file_hint(catalog: Catalog, mapping: TableMapping, files: Sequence[ExportFile]) -> str:
    """What to add to a line on a mapping without a file: the file that it may mean, or nothing where none is near.

    Args:
        catalog: The files of the app.
        mapping: The mapping; no file is of its entity.
        files: All files of the export.
    """
    unmapped = {file.entity: file for file in files if file.entity not in catalog.entities}
    near = nearest(mapping.entity, unmapped)
    return f"; did you mean {near} ({unmapped[near].path.name}) at {_place(mapping)}?" if near is not None else ""


def mapping_hint(catalog: Catalog, entity: str, present: Collection[str]) -> str:
    """What to add to a line on an exported entity without a table: the mapping that may be its own, or nothing.

    Args:
        catalog: The files of the app.
        entity: The entity.
        present: All entities of the export.
    """
    absent = {mapping.entity: mapping for mapping in catalog.mappings.values() if mapping.entity not in present}
    near = nearest(entity, absent)
    return f"; is it meant by 'entity: {near}' at {_place(absent[near])}?" if near is not None else ""


def _place(mapping: TableMapping) -> str:
    return f"{mapping.spec.path}:{line_of(mapping.spec.path, 'entity')}"
