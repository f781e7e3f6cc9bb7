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

PARTITIONED_FROM: Final = 1_000_000
"""Records from which a table is partitioned by month; `docs/decisions.md` has what was measured."""
UPDATED: Final = "updated_date"
"""The field that Base44 sets whenever a record changes."""


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
    """A field of an entity, as its schema declares it; numbers in it are `int` or `Decimal`, which lose no digit.

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
        target: The entity that the schema itself says it points at; empty where it says none.
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
    target: str = ""
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
        other_rules: What the schema says of access in keys that Base44 does not document, such as `security`.
        indexes: The schema's own `indexes`: fields of each, and whether it is unique.
    """

    name: str
    origin: Origin
    fields: tuple[Field, ...]
    path: Path | None = None
    description: str = ""
    rls: Any = ABSENT
    other_rules: Mapping[str, Any] = field(default_factory=lambda: MappingProxyType({}))
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
        dangling: For a reference, the values, or the members of arrays, whose target is not in the export.
    """

    filled: int = 0
    unfit: int = 0
    found: int = 0
    outside: int = 0
    missing: int = 0
    dangling: int = 0


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
        name: In PostgreSQL, not quoted; `names.quoted` gives it as SQL has it.
        field: The field that it comes from; `created_date` is the field of when a record was made, whatever its column's name.
        type: Of the column.
        reference: Where it points to, or None.
        counts: Of the export's cells; None without an export.
        fits: Whether all of the export's cells honour what is declared; constraints of others are NOT VALID.
        secret: Whether its name, or that of something within its objects, says that values are secrets, which no preview, report or
            page shows.
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
        topic: `reference`, `type`, `name`, `rule`, `secret`, `partition`, `index`, `trigger`, `entity`, `field`, `constraint`.
        text: What was decided, in one line.
        evidence: Why, with counts where there is an export.
        doubtful: Whether the data, or PostgreSQL, speaks against what the schema says, so that the app's owner should look at it.
    """

    subject: str
    topic: str
    text: str
    evidence: str
    doubtful: bool = False


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
        repeated: Unique keys of the schema, as fields, that records of the export repeat, and how many do.
    """

    name: str
    entity: Entity
    columns: tuple[Column, ...]
    records: int | None = None
    partitioned: bool = False
    first: date | None = None
    after: tuple[str, ...] = ()
    repeated: tuple[tuple[tuple[str, ...], int], ...] = ()

    @property
    def changed(self) -> str | None:
        """The column of when a record last changed, as Base44 dates it; None where no such time is exported."""
        return next(
            (one.name for one in self.columns if one.field.name == UPDATED and one.type is ColumnType.TIMESTAMPTZ), None
        )


class Audience(StrEnum):
    """Whom a rule lets do something, from the most to the least open."""

    EVERYONE = "everyone"
    SOME = "some"
    NOBODY = "nobody"
    UNKNOWN = "unknown"


@dataclass(frozen=True)
class Rule:
    """What Base44 says of who may do one thing with an entity's records.

    Attributes:
        entity: As Base44 spells it.
        operation: `create`, `read`, `update`, `delete`, or another word that the schema has, such as `write`.
        field: The field whose own rule it is; empty for the record's.
        access: EVERYONE also means visitors who are not signed in. UNKNOWN is a rule in no dialect that Base44 documents: its effect
            there is not known, and nothing is opened by it.
        who: In words, such as `the role admin; whose owner_id is the caller's id`.
        source: The rule as JSON has it; ABSENT where there is none.
    """

    entity: str
    operation: str
    field: str
    access: Audience
    who: str
    source: Any = ABSENT


@dataclass(frozen=True)
class Overrides:
    """What the owner of the app wants otherwise than inferred; entities and fields are named as Base44 spells them.

    What it names that the app does not have is a notice, and has no effect.

    Attributes:
        app: Its name; empty for the folder's.
        tables: Entity to the name of its table.
        columns: Entity and field to the name of the column.
        types: Entity and field to the type of the column.
        references: Entity and field to what it points at: an entity, by id (by ids where the field is an array); `User.email` for an
            e-mail address; empty for nothing.
        left_out: Entities without a table; their records go to `migration.unmapped`.
        first_periods: Entity to the first month that its records are migrated for, which makes its table a partitioned one.
        not_partitioned: Entities whose tables are not partitioned, whatever their size.
        strict: Whether records that break what is declared are refused instead of listed.
        opened: Whether the program's group roles for the application and for readers get the tables.
    """

    app: str = ""
    tables: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    columns: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    types: Mapping[tuple[str, str], ColumnType] = field(default_factory=lambda: MappingProxyType({}))
    references: Mapping[tuple[str, str], str] = field(default_factory=lambda: MappingProxyType({}))
    left_out: frozenset[str] = frozenset()
    first_periods: Mapping[str, date] = field(default_factory=lambda: MappingProxyType({}))
    not_partitioned: frozenset[str] = frozenset()
    strict: bool = False
    opened: bool = False


@dataclass(frozen=True)
class App:
    """An app as its folder describes it.

    Attributes:
        name: Of the app: the folder's, or as `b44.toml` says.
        tables: In the order in which they are loaded.
        decisions: What was inferred, with its evidence.
        notices: What was to be told while reading.
        rules: Who may do what in Base44: first what is open to everyone, then by entity.
        left_out: Names of entities without a table, as the overrides say.
        strict: Whether records that break what is declared are refused instead of listed.
        opened: Whether the program's group roles for the application and for readers get the tables.
    """

    name: str
    tables: tuple[Table, ...]
    decisions: tuple[Decision, ...] = ()
    notices: tuple[Notice, ...] = ()
    rules: tuple[Rule, ...] = ()
    left_out: tuple[str, ...] = ()
    strict: bool = False
    opened: bool = False
