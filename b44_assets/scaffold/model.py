"""What an app is read into before its folder is written: frozen dataclasses, without reading or writing anything.

Schemas and an export become entities with fields (`Entity`); these become tables with columns (`App`), each with the decisions that
were taken and their evidence; these become files.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

ABSENT: Final = object()
"""Stands where a schema gives no default; `None` is the default null."""


class Origin(StrEnum):
    """Where a field or an entity is known from."""

    BUILT_IN = "built in"
    SCHEMA = "schema"
    EXPORT = "export"


class ColumnType(StrEnum):
    """Types of columns; the value is PostgreSQL's name."""

    UUID = "uuid"
    UUID_ARRAY = "uuid[]"
    TEXT = "text"
    TEXT_ARRAY = "text[]"
    NUMERIC = "numeric"
    BIGINT = "bigint"
    BOOLEAN = "boolean"
    TIMESTAMPTZ = "timestamptz"
    DATE = "date"
    TIME = "time"
    JSONB = "jsonb"


@dataclass(frozen=True)
class Field:
    """A field of an entity, as its schema declares it.

    Attributes:
        name: As Base44 spells it.
        origin: Where it is known from; a field of the export alone has no type.
        types: JSON Schema's types, `null` left out; empty where none is declared.
        nullable: Whether `null` is among the declared types.
        format: Such as `date-time`, `date`, `email`; empty where none is declared.
        enum: The values allowed, as JSON has them; None where any is.
        default: As JSON has it, or ABSENT.
        limits: `minLength`, `maxLength`, `minimum`, `maximum`, `exclusiveMinimum`, … and `pattern`, as JSON has them.
        items: What an array holds, or None.
        properties: The members of an object.
        required: Whether the schema's `required` names it.
        unique: Whether the schema calls it unique.
        description: In the schema's words; empty where there is none.
        rls: The field's own rules, as JSON has them.
    """

    name: str
    origin: Origin = Origin.SCHEMA
    types: tuple[str, ...] = ()
    nullable: bool = False
    format: str = ""
    enum: tuple[Any, ...] | None = None
    default: Any = ABSENT
    limits: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
    items: Field | None = None
    properties: tuple[Field, ...] = ()
    required: bool = False
    unique: bool = False
    description: str = ""
    rls: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))


@dataclass(frozen=True)
class Notice:
    """Something to be told about what was read: a file that is no schema, two that differ, a key that is not understood.

    Attributes:
        path: The file, or None.
        text: One line: what there is, and what became of it.
    """

    path: Path | None
    text: str


@dataclass(frozen=True)
class Entity:
    """An entity of the app.

    Attributes:
        name: As Base44 spells it.
        origin: SCHEMA, or EXPORT where no schema declares it, or BUILT_IN for a `User` that only Base44 knows.
        fields: Declared ones in the schema's order, then those of the export alone; built-in ones are not among them unless declared.
        path: The file of the schema, or None.
        description: In the schema's words.
        rls: The entity's rules as JSON has them: an object, None where the schema says null, ABSENT where it has none.
        indexes: The schema's own `indexes`: fields of each, and whether it is unique.
    """

    name: str
    origin: Origin
    fields: tuple[Field, ...]
    path: Path | None = None
    description: str = ""
    rls: Any = ABSENT
    indexes: tuple[tuple[tuple[str, ...], bool], ...] = ()


@dataclass(frozen=True)
class Reading:
    """What the schemas of an app gave.

    Attributes:
        entities: By name.
        notices: In the order of the files.
        folder: Where the schemas were found, or None for an export alone.
    """

    entities: tuple[Entity, ...]
    notices: tuple[Notice, ...] = ()
    folder: Path | None = None


@dataclass(frozen=True)
class Counts:
    """What an export's cells of one field are like.

    Attributes:
        filled: Cells that are not blank.
        unfit: Of them, those that the column's type cannot hold.
        found: Of them, for a reference, those whose target is in the export.
        outside: Of them, those outside the enum, the limits or the pattern.
        missing: Records in which it is blank.
    """

    filled: int = 0
    unfit: int = 0
    found: int = 0
    outside: int = 0
    missing: int = 0


class ReferenceBy(StrEnum):
    """How a reference names its target."""

    ID = "id"
    IDS = "ids"
    EMAIL = "email"


@dataclass(frozen=True)
class Reference:
    """A column that points at rows of a table.

    Attributes:
        table: The table that it points at.
        by: What stands in the column: an id, an array of them, an e-mail of a user.
        rule: Why it is one, such as `name matches`, `ending of a name`, `word for a person`, `override`.
        constrained: Whether a foreign key is made: for one id, where the target has a table.
        cyclic: Whether the target is loaded later or is the table itself, so that the constraint comes after the load.
    """

    table: str
    by: ReferenceBy
    rule: str
    constrained: bool
    cyclic: bool = False


@dataclass(frozen=True)
class Column:
    """A column of a table.

    Attributes:
        name: In PostgreSQL, not quoted.
        field: The field that it comes from.
        type: Of the column.
        reference: Where it points to, or None.
        counts: Of the export's cells; None without an export.
        fits: Whether all of the export's cells honour what is declared; constraints of others are NOT VALID.
        secret: Whether its name says that values are secrets, which no preview, report or page shows.
        prose: Whether full-text search is worth an index.
    """

    name: str
    field: Field
    type: ColumnType
    reference: Reference | None = None
    counts: Counts | None = None
    fits: bool = True
    secret: bool = False
    prose: bool = False


@dataclass(frozen=True)
class Decision:
    """An inference with its evidence, a line of DECISIONS.md.

    Attributes:
        subject: Such as `replies.discussion_id`; a table or an entity alone for what concerns all of it.
        topic: `reference`, `type`, `name`, `rule`, `secret`, `partition`, `index`, `entity`, `field`, `constraint`.
        text: What was decided, in one line.
        evidence: Why, with counts where there is an export.
    """

    subject: str
    topic: str
    text: str
    evidence: str


@dataclass(frozen=True)
class Table:
    """A table of the app.

    Attributes:
        name: In PostgreSQL, not quoted.
        entity: What it comes from.
        columns: `id` first, then those of the fields in the entity's order, then the built-in ones.
        records: In the export; None without one.
        partitioned: Whether it is partitioned by month of `created_at`'s column.
        first: The first month that records are migrated for, where it is partitioned.
        after: Tables that are loaded before it.
    """

    name: str
    entity: Entity
    columns: tuple[Column, ...]
    records: int | None = None
    partitioned: bool = False
    first: date | None = None
    after: tuple[str, ...] = ()


@dataclass(frozen=True)
class App:
    """An app as its folder describes it.

    Attributes:
        name: Of the app: the folder's, or as `b44.toml` says.
        tables: In the order in which they are loaded.
        decisions: What was inferred, with its evidence.
        notices: What was to be told while reading.
        strict: Whether records that break what is declared are refused instead of listed.
    """

    name: str
    tables: tuple[Table, ...]
    decisions: tuple[Decision, ...] = ()
    notices: tuple[Notice, ...] = ()
    strict: bool = False
