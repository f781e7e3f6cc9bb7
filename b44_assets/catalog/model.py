"""What a folder of SQL files is read into: frozen dataclasses, without reading anything."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import date
from enum import StrEnum
from pathlib import Path
from types import MappingProxyType

from b44_assets.config.quantities import period_from


class Kind(StrEnum):
    """What a file describes; the value is the folder's name. The order is the order of the stages.

    Files of kind RUNTIME come with the program, and are the same for every app.
    """

    RUNTIME = "runtime"
    FUNCTION = "functions"
    TABLE = "tables"
    MAPPING = "mappings"
    PARTITION = "partitions"
    INDEX = "indexes"
    CONSTRAINT = "constraints"
    TRIGGER = "triggers"
    POLICY = "policies"
    VIEW = "views"
    VIEW_SCHEMA = "schemas"
    ROLE = "roles"
    CHECK = "checks"
    QUERY = "queries"


WITHOUT_OBJECT = (Kind.MAPPING, Kind.CHECK, Kind.QUERY)
"""Kinds whose files only read: nothing in the database is made by them."""
SEED = re.compile(r"(?P<column>[a-z_][a-z0-9_]*) = (?P<values>'(?:[^']|'')*'(?: *, *'(?:[^']|'')*')*)")


@dataclass(frozen=True)
class Statement:
    """One SQL statement of a file, without its semicolon."""

    text: str
    line: int


@dataclass(frozen=True)
class Field:
    """A field that a mapping reads: its name there, and every spelling that exports use, the first preferred."""

    spellings: tuple[str, ...]

    @property
    def name(self) -> str:
        """The name under which the mapping reads it: the first spelling."""
        return self.spellings[0]


@dataclass(frozen=True)
class Period:
    """How a table is partitioned by time.

    Attributes:
        unit: `month` or `year` (UTC).
        column: The column that says which.
        first: The first day of the first period that records are migrated for; None where the table's file names none.
    """

    unit: str
    column: str
    first: date | None = None


@dataclass(frozen=True)
class Seed:
    """Rows that a table's file puts into it: those with one of some values in a column. They are no records, and no count has them."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class UniqueSuffix:
    """A column whose value must be unique: later claimants get `-2`, `-3` ….

    Attributes:
        column: The column of the mapping, holding the wanted value.
        table: Where taken values stand, under the same column name.
        owner: The column of that table which says whose value it is.
        made_from: The column that a value is made from where none is given: one that was made stays while that one does.
        order: The column of the mapping by which claims are put in order; it may be of any type that has an order.
        repaired: Whether a value that had to be changed is a repair of the record.
    """

    column: str
    table: str
    owner: str
    made_from: str | None
    order: str
    repaired: bool


@dataclass(frozen=True)
class ExchangeableUnique:
    """Columns by which one row can stand in another's way, as two accounts that exchange their addresses.

    Attributes:
        columns: Updates that change one of these are made together, in one transaction.
        released: The column that is set first, so that none of those rows is in the way of another.
        expression: What it is set to then, in SQL over the row's own columns.
    """

    columns: tuple[str, ...]
    released: str
    expression: str


@dataclass(frozen=True)
class Spec:
    """A file of `sql/`.

    Attributes:
        name: The object's name: the file's stem. What comes with the program is named `b44/<stem>` or `migration/<stem>`, after
            the schema that it is for.
        kind: From the folder.
        description: The first sentences of the header.
        depends: Names of what it reads or stands on, from the header.
        statements: What to run, in order. A mapping has exactly one, a SELECT.
        digest: SHA-256 of the file's text, 64 hex digits.
        path: The file.
        options: The other header lines.
    """

    name: str
    kind: Kind
    description: str
    depends: tuple[str, ...]
    statements: tuple[Statement, ...]
    digest: str
    path: Path
    options: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))

    @property
    def period(self) -> Period | None:
        """How a table is partitioned by time, or None."""
        if (value := self.options.get("partitions")) is None:
            return None
        unit, _, column = value.split()
        first = self.options.get("first")
        return Period(unit, column, None if first is None else period_from(unit, first))

    @property
    def lists_unfit_rows(self) -> bool:
        """Whether rows of the migration may break what the file makes, and are listed."""
        return "unfit_rows" in self.options

    @property
    def seed(self) -> Seed | None:
        """The rows that the table's own file puts into it, or None."""
        if (match := SEED.fullmatch(self.options.get("seed", ""))) is None:
            return None
        quoted: list[str] = re.findall(r"'((?:[^']|'')*)'", match["values"])
        return Seed(match["column"], tuple(value.replace("''", "'") for value in quoted))


@dataclass(frozen=True)
class IndexDefinition:
    """`create [unique] index [if not exists] <name> on <table> <rest>`, taken apart.

    Attributes:
        name: The index.
        table: The table or materialized view.
        unique: Whether it is unique.
        rest: What follows the table's name.
        statistics: Statistics target by column number, from `alter index … alter column … set statistics …`.
        statement: As written.
    """

    name: str
    table: str
    unique: bool
    rest: str
    statistics: Mapping[int, int]
    statement: Statement


@dataclass(frozen=True)
class ConstraintDefinition:
    """`alter table <table> add constraint <name> <rest>`, taken apart, with or without the condition that it is not there.

    Attributes:
        name: The constraint.
        table: The table.
        form: `check`, `foreign` (key), `exclude` or `unique`: the first word of `rest`.
        rest: What follows the constraint's name.
        statement: As written.
    """

    name: str
    table: str
    form: str
    rest: str
    statement: Statement


@dataclass(frozen=True)
class TriggerDefinition:
    """`create or replace trigger <name> … on <table> …`, taken apart."""

    name: str
    table: str
    statement: Statement


@dataclass(frozen=True)
class PolicyDefinition:
    """`create policy <name> on <table> …`, taken apart."""

    name: str
    table: str
    statement: Statement


@dataclass(frozen=True)
class RowSecurity:
    """The row security of a table.

    Attributes:
        table: The table.
        forced: Whether it holds for the table's owner, too.
        switches: `alter table … row level security` statements, in order.
        policies: Its policies.
        comments: `comment on policy …` statements.
    """

    table: str
    forced: bool
    switches: tuple[Statement, ...]
    policies: tuple[PolicyDefinition, ...]
    comments: tuple[Statement, ...]


@dataclass(frozen=True)
class RoleDefinition:
    """A role, and what it may do.

    Attributes:
        name: The role.
        creation: The statement that makes it where it is missing.
        statements: All others, in order: attributes, memberships, settings, privileges, default privileges, owners.
    """

    name: str
    creation: Statement
    statements: tuple[Statement, ...]


@dataclass(frozen=True)
class ViewDefinition:
    """A view: `create materialized view if not exists <name> as <query>`, or `create or replace view …`, taken apart.

    Attributes:
        name: The view.
        materialized: Whether it has rows of its own.
        head: What stands between the name and `as`: columns and options of a plain view; empty for a materialized one.
        query: What follows `as`.
        indexes: Its indexes.
        comments: `comment on …` statements.
        statement: The first statement as written.
    """

    name: str
    materialized: bool
    head: str
    query: str
    indexes: tuple[IndexDefinition, ...]
    comments: tuple[Statement, ...]
    statement: Statement


@dataclass(frozen=True)
class ViewOfSchema:
    """`create or replace view <schema>.<name> … as <query>`, taken apart.

    Attributes:
        name: The view, without quotes.
        head: What stands between the name and `as`.
        query: What follows `as`.
        statement: As written.
    """

    name: str
    head: str
    query: str
    statement: Statement


@dataclass(frozen=True)
class ViewSchema:
    """A schema that holds plain views.

    Attributes:
        name: The schema.
        creation: The statement that makes it.
        views: Its views.
        comments: `comment on …` statements.
    """

    name: str
    creation: Statement
    views: tuple[ViewOfSchema, ...]
    comments: tuple[Statement, ...]


@dataclass(frozen=True)
class RowCheck:
    """A SELECT of rows that break a rule.

    Attributes:
        spec: Its file.
        table: The table or view that it is about.
        warns: Whether a violation is a warning only.
    """

    spec: Spec
    table: str
    warns: bool


@dataclass(frozen=True)
class Query:
    """A SELECT of the application.

    Attributes:
        spec: Its file.
        uses: Indexes any of which is right for it; empty where none is meant.
        prunes: The partitioned table of which it must leave partitions out, or None.
        since: The literal at which the range of time in it begins, as written between quotes, or None.
        until: Likewise, where it ends.
    """

    spec: Spec
    uses: tuple[str, ...]
    prunes: str | None
    since: str | None
    until: str | None


@dataclass(frozen=True)
class TableMapping:
    """A mapping with its header taken apart."""

    spec: Spec
    entity: str
    key: str
    fields: tuple[Field, ...]
    html: tuple[str, ...]
    large_columns: tuple[str, ...]
    deferred_fk: tuple[str, ...]
    unique_suffix: UniqueSuffix | None
    exchangeable_unique: ExchangeableUnique | None
