"""The indexes of an app's tables: of what is unique or declared, references, who may see a row, slugs, the time of creation, prose."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from b44_assets.scaffold.model import App, Column, ColumnType, ReferenceBy, Table
from b44_assets.scaffold.names import quoted, snake_case
from b44_assets.scaffold.references import compared_with_caller, type_beside
from b44_assets.scaffold.sql_text import fitting, identifiers, on_one_line

_ARRAYS = frozenset({ColumnType.UUID_ARRAY, ColumnType.TEXT_ARRAY})
_Key = tuple[str, ...]


@dataclass(frozen=True)
class Index:
    """An index of a table.

    Attributes:
        name: Of the index.
        table: Its table, as SQL has it.
        method: How it finds rows and by what, as `(code)` or `using gin (tags)`.
        unique: Whether it holds each key once.
    """

    name: str
    table: str
    method: str
    unique: bool = False

    @property
    def statement(self) -> str:
        """What makes it, on as many lines as it needs."""
        made = f"create {'unique ' if self.unique else ''}index if not exists {quoted(self.name)}"
        return on_one_line(made, f"on {self.table} {self.method};", indent=2)


def lookup_indexes(
    app: App, table: Table, columns: Sequence[Column], moment: str | None, *, partitioned: bool
) -> tuple[Index, ...]:
    """The indexes that rows are found by, those of running text left out.

    Args:
        app: Whose table it is.
        table: Which.
        columns: Of the table, those that stand in its files.
        moment: The column of when a record was made, or None.
        partitioned: Whether the table has partitions: a unique index would have to hold the month as well.
    """
    by_name = {one.name: one for one in columns}
    keys = _wanted(app, table, columns, moment)
    made: list[Index] = []
    for key, unique in keys.items():
        array = by_name[key[0]].type in _ARRAYS
        sole = unique and not array and not partitioned
        # What the beginning of another index serves needs none of its own; a unique one may be missing while rows break it.
        if not sole and any(other[: len(key)] == key and other != key and not keys[other] for other in keys):
            continue
        made.append(
            Index(
                fitting("_".join(("idx", table.name, *key))),
                quoted(table.name),
                f"{'using gin ' if array else ''}({identifiers(key)})",
                sole,
            )
        )
    return tuple(made)


def search_indexes(table: Table, columns: Sequence[Column]) -> tuple[Index, ...]:
    """The indexes of running text."""
    return tuple(
        Index(
            fitting(f"idx_{table.name}_{column.name}_search"),
            quoted(table.name),
            f"using gin (base44_search({quoted(column.name)}))",
        )
        for column in columns
        if column.prose and column.type is ColumnType.TEXT
    )


def _wanted(app: App, table: Table, columns: Sequence[Column], moment: str | None) -> dict[_Key, bool]:
    """Columns of indexes in their order, and whether they are to be unique."""
    wanted: dict[_Key, bool] = {}
    for key, unique in (
        *_declared(table, columns),
        *(((one.name,), False) for one in columns if one.reference is not None or _is_pointed_at(app, table, one)),
        *((key, False) for key in _of_several_entities(table, columns)),
        *((key, False) for key in _of_callers(table, columns)),
        *(((one.name,), False) for one in columns if _is_slug(one)),
        *([((moment,), False)] if moment is not None else []),
    ):
        wanted[key] = unique or wanted.get(key, False)
    wanted.pop(("id",), None)
    return wanted


def _declared(table: Table, columns: Sequence[Column]) -> Iterator[tuple[_Key, bool]]:
    """What the schema calls unique, and its indexes; one that rows of the export repeat is not unique."""
    by_field = {one.field.name: one for one in columns}
    repeated = {fields for fields, _ in table.repeated}
    for column in columns:
        if column.field.unique and column.type is not ColumnType.JSONB:
            yield (column.name,), (column.field.name,) not in repeated
    for fields, unique in table.entity.indexes:
        found = [by_field[name] for name in fields if name in by_field and by_field[name].type is not ColumnType.JSONB]
        several = len(fields) > 1 and any(one.type in _ARRAYS for one in found)
        if fields and len(found) == len(fields) and not several:
            yield tuple(one.name for one in found), unique and fields not in repeated


def _of_several_entities(table: Table, columns: Sequence[Column]) -> Iterator[_Key]:
    """Ids that may be of several entities, each with the column that tells of which; the id alone finds nearly as few rows."""
    by_field = {one.field.name: one for one in columns if one.type is ColumnType.TEXT}
    for column in by_field.values():
        kind = type_beside(table.entity, column.field) if column.reference is None else None
        if kind is not None and kind.name in by_field:
            yield column.name, by_field[kind.name].name


def _of_callers(table: Table, columns: Sequence[Column]) -> Iterator[_Key]:
    """What the entity's rules compare with the caller: the application asks for the caller's own records by it."""
    compared = {name for name, _ in compared_with_caller(table.entity.rls)}
    for column in columns:
        if column.field.name in compared and column.type in (ColumnType.TEXT, ColumnType.UUID, *_ARRAYS):
            yield (column.name,)


def _is_slug(column: Column) -> bool:
    """Whether a page's address names its record by a column."""
    return snake_case(column.field.name) == "slug" and column.type is ColumnType.TEXT


def _is_pointed_at(app: App, table: Table, column: Column) -> bool:
    """Whether columns of other tables name rows by this one, which is none but an e-mail address."""
    return column.field.name == "email" and any(
        other.reference is not None and other.reference.table == table.name and other.reference.by is ReferenceBy.EMAIL
        for one in app.tables
        for other in one.columns
    )
