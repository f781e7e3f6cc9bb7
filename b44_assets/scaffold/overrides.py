"""What `b44.toml` says otherwise than would be inferred, in the terms of the model."""

from __future__ import annotations

from b44_assets.config.app_folder import AppFolder, FieldOverride
from b44_assets.config.quantities import month
from b44_assets.scaffold.model import ColumnType, Overrides


def overrides_of(folder: AppFolder) -> Overrides:
    """Returns what the owner of the app wants."""
    entities = folder.file.entities
    fields: dict[tuple[str, str], FieldOverride] = {
        (entity, field): said for entity, one in entities.items() for field, said in one.fields.items()
    }
    return Overrides(
        app=folder.name,
        tables={entity: one.table for entity, one in entities.items() if one.table is not None},
        columns={key: one.column for key, one in fields.items() if one.column is not None},
        types={key: ColumnType(one.type) for key, one in fields.items() if one.type is not None},
        references={key: one.references or "" for key, one in fields.items() if one.references is not None},
        left_out=frozenset(entity for entity, one in entities.items() if one.leave_out),
        first_periods={entity: month(one.first) for entity, one in entities.items() if isinstance(one.first, str)},
        not_partitioned=frozenset(entity for entity, one in entities.items() if one.first is False),
        strict=folder.file.app.strict,
        opened=folder.file.app.open,
    )
