"""What a plan of a whole migration says."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from b44_assets.errors import B44Error
from b44_assets.schema.drift import SchemaChanges
from b44_assets.wording import plural


@dataclass(frozen=True)
class PlannedEntity:
    """What the export has of an entity.

    Attributes:
        entity: As Base44 names it.
        table: Its table; None where `sql/` has none, and its records are kept whole in `migration.unmapped`.
        file: The file's name; None where the export has none.
        dialect: How the file is written; None where that is not told.
        records: Records in the file.
        oddities: What is unusual about the file, with how often.
        unknown_fields: Exported fields that the mapping does not read; their values are kept in `migration.unmapped`.
    """

    entity: str
    table: str | None
    file: str | None
    dialect: str | None
    records: int
    oddities: dict[str, int] = field(default_factory=dict[str, int])
    unknown_fields: tuple[str, ...] = ()


@dataclass(frozen=True)
class PlannedTable:
    """What would become of the records of a table.

    Attributes:
        table: The table.
        read: Records in the export.
        new: Records whose rows would be inserted.
        changed: Records whose rows would be updated.
        unchanged: Records that were migrated before and stay as they are, those with a conflict included.
        deduplicated: Records equal to an earlier one in every field.
        quarantined: Records that would be refused.
        vanished: Records migrated before that the export does not have any more; their rows stay.
        reasons: Refused records by reason; one with two reasons counts for both.
        conflicts: Records left out for the sake of a row that was edited or deleted since, by kind.
    """

    table: str
    read: int
    new: int
    changed: int
    unchanged: int
    deduplicated: int
    quarantined: int
    vanished: int = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    conflicts: dict[str, int] = field(default_factory=dict[str, int])


@dataclass(frozen=True)
class MigrationPlan:
    """What a migration of an export into a target would do.

    Attributes:
        target: The target, without a password.
        migrated_before: Whether the target holds records of an earlier migration, with which the export was compared.
        entities: What the export holds.
        tables: What would become of the records, in the order of the work; a table that could not be planned is missing.
        schema: What would be made and changed in the target.
        warnings: Lines on what a person should know.
        faults: Why the migration, or a part of it, would fail.
    """

    target: str
    migrated_before: bool
    entities: tuple[PlannedEntity, ...]
    tables: tuple[PlannedTable, ...]
    schema: SchemaChanges
    warnings: tuple[str, ...] = ()
    faults: tuple[B44Error, ...] = ()

    @property
    def exit_status(self) -> int:
        """The exit status that `b44 migrate` would have, as far as that can be known before."""
        return self.faults[0].exit_status if self.faults else 0

    def message(self) -> str:
        """The whole in one line."""
        read = sum(table.read for table in self.tables)
        counts = {
            name: sum(getattr(table, name) for table in self.tables)
            for name in ("new", "changed", "unchanged", "deduplicated", "quarantined")
        }
        counts["in conflict"] = sum(sum(table.conflicts.values()) for table in self.tables)
        shown = ", ".join(f"{count:,} {name}" for name, count in counts.items() if count or name == "new")
        unmapped = sum(one.records for one in self.entities if one.table is None)
        more = f"; {unmapped:,} more without a table" if unmapped else ""
        failing = f"; {len(self.faults)} {plural(len(self.faults), 'fault')}" if self.faults else ""
        return f"{read:,} {plural(read, 'record')}: {shown}{more}{failing}; nothing was changed"

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "target": self.target,
            "migrated_before": self.migrated_before,
            "files": {
                one.entity: {
                    "table": one.table,
                    "file": one.file,
                    "dialect": one.dialect,
                    "records": one.records,
                    "oddities": one.oddities,
                    "unknown_fields": list(one.unknown_fields),
                }
                for one in self.entities
            },
            "entities": {
                one.table: {
                    "read": one.read,
                    "new": one.new,
                    "changed": one.changed,
                    "unchanged": one.unchanged,
                    "deduplicated": one.deduplicated,
                    "quarantined": one.quarantined,
                    "vanished": one.vanished,
                    "reasons": one.reasons,
                    "conflicts": one.conflicts,
                }
                for one in self.tables
            },
            "schema": {
                "program": self.schema.program,
                "missing": list(self.schema.missing),
                "different": list(self.schema.different),
            },
            "warnings": list(self.warnings),
            "faults": [str(fault) for fault in self.faults],
        }
