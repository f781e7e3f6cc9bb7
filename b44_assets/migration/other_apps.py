"""An export's file with the name of an entity that has a table, but of another app: told by its fields, before a record is judged."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.errors import ExportError
from b44_assets.exports import ExportFile, open_export
from b44_assets.exports.model import BUILT_IN_FIELDS, INTERNAL_FIELDS
from b44_assets.exports.names import loosely, matched

BUILT_IN: Final = (*BUILT_IN_FIELDS, "created_at", "updated_at", *INTERNAL_FIELDS)
"""Fields that records of every app have, under either name."""
_EVERY_APP_HAS: Final = "User"
_LOOK_BYTES: Final = 1 << 18
_FEWEST: Final = 2
"""Of so many fields at least the lack says something: one alone may have been renamed."""
_NAMED: Final = 4
_SHARE: Final = 0.25
"""Of the fields that a mapping reads, a share below which those that a file has may be there by chance, as `action` in any log."""
_OTHERS: Final = 3
"""How many fields that no mapping reads, for each that it does, then say that the file is another's."""


@dataclass(frozen=True)
class OtherApp:
    """A file that has nothing, or next to nothing, of what the mapping of its entity reads.

    Attributes:
        file: The file.
        lacking: Fields that the mapping reads and the file has not, as the mapping names them.
        mapping: The mapping's file, as it is named to people.
        shared: How many of the mapping's fields the file has all the same.
    """

    file: ExportFile
    lacking: tuple[str, ...]
    mapping: str
    shared: int = 0

    def message(self) -> str:
        """What is wrong, in one line without its end."""
        named = ", ".join(self.lacking[:_NAMED]) + (", …" if len(self.lacking) > _NAMED else "")
        asked = "is it of another app?"
        if not self.shared:
            return f"{self.file.path.name} has none of the fields {named} that {self.mapping} reads: {asked}"
        has = f"has {self.shared} of the {self.shared + len(self.lacking)} fields that {self.mapping} reads"
        return f"{self.file.path.name} {has}, but not {named}: {asked}"


def of_another_app(mapping: TableMapping, file: ExportFile) -> OtherApp | None:
    """Tells whether a file has others than the fields that its mapping reads; None where it may be the mapping's.

    A few fields in common, of many, say nothing where the file has several times as many others, and lacks one without which the
    mapping takes no record. Built-in fields say nothing, and so does a file without records. A file that cannot be read is left to
    whoever reads it.
    """
    own = [
        item for item in mapping.fields if all(matched(name, BUILT_IN) is None for name in (item.name, *item.spellings))
    ]
    if mapping.entity == _EVERY_APP_HAS or len(own) < _FEWEST:
        return None
    fields = [name for name in _first_fields(file) if matched(name, BUILT_IN) is None]
    given = {loosely(name) for name in fields}
    shared = [item for item in own if any(loosely(name) in given for name in item.spellings)]
    read = {loosely(name) for item in shared for name in item.spellings}
    others, lacking = len(given - read), tuple(item.name for item in own if item not in shared)
    by_chance = len(shared) < _SHARE * len(own) and others >= _OTHERS * len(shared) and _demands_any(mapping, lacking)
    if not others or (shared and not by_chance):
        return None
    return OtherApp(file, lacking, str(mapping.spec.path), len(shared))


def _demands_any(mapping: TableMapping, names: Iterable[str]) -> bool:
    """Whether a mapping refuses every record that lacks one of some fields."""
    return any(f"'missing_{name}'" in statement.text for statement in mapping.spec.statements for name in names)


def files_of_other_apps(catalog: Catalog, files: Sequence[ExportFile]) -> dict[str, OtherApp]:
    """Those files of an export that are of another app, by entity."""
    tables = catalog.entities
    found = [
        (file.entity, of_another_app(catalog.mappings[tables[file.entity]], file))
        for file in files
        if file.entity in tables
    ]
    return {entity: other for entity, other in found if other is not None}


def has_user_alone(catalog: Catalog, files: Iterable[ExportFile]) -> bool:
    """Tells whether entity User is all that an export has of several tables: every app has it, so that it says nothing."""
    return len(catalog.entities) > 1 and {file.entity for file in files} & catalog.entities.keys() == {_EVERY_APP_HAS}


def has_records(file: ExportFile) -> bool:
    """Tells whether a file has a record at all; of one that cannot be read, whoever reads it says what is wrong."""
    try:
        with open_export(file, block_size=_LOOK_BYTES) as reader:
            return next(iter(reader.batches()), None) is not None
    except ExportError:
        return True


def _first_fields(file: ExportFile) -> tuple[str, ...]:
    """The fields of the file's first records; those of CSV stand in its header."""
    try:
        with open_export(file, block_size=_LOOK_BYTES) as reader:
            if not reader.fields:
                next(iter(reader.batches()), None)
            return reader.fields
    except ExportError:
        return ()
