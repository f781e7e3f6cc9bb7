"""The folder `sql/`, read into frozen specs.

What belongs here: the form of the files (header, statements, dependencies) and the complaints about breaking it. What
does not: running any of it, or knowing what a table is for. Neither Dagster nor psycopg is imported.

A file's folder says its kind and its name says the object's. Its first comment says what it is, then come `-- key: value`
lines; a value goes on in lines indented by three spaces::

    -- What becomes of an Invoice record.
    -- entity: Invoice
    -- depends: customers, currencies
"""

from __future__ import annotations

import difflib
import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType

from b44_assets.errors import CatalogError
from b44_assets.sql_names import column_type, gives, tables_read


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
    VIEW = "views"
    CHECK = "checks"
    QUERY = "queries"


WITHOUT_OBJECT = (Kind.MAPPING, Kind.CHECK, Kind.QUERY)
"""Kinds whose files only read: nothing in the database is made by them."""
_STOOD_ON: Mapping[Kind, tuple[Kind, ...]] = {
    Kind.PARTITION: (Kind.TABLE,),
    Kind.INDEX: (Kind.TABLE,),
    Kind.CONSTRAINT: (Kind.TABLE,),
    Kind.TRIGGER: (Kind.TABLE,),
    Kind.CHECK: (Kind.TABLE, Kind.VIEW),
}
"""What a header `on` may name."""
_FOLDERS = tuple(kind.value for kind in Kind if kind is not Kind.RUNTIME)
_OF_PROGRAM = frozenset({Kind.RUNTIME.value, "books", "migration", "b44"})
"""Folders that held the program's own SQL in version 0.1, and what one may take for its place now."""
_RUNTIME = Path(__file__).parent / "runtime"
_HEADER_KEYS: Mapping[Kind, frozenset[str]] = {
    Kind.TABLE: frozenset({"depends", "partitions", "seed"}),
    Kind.MAPPING: frozenset({"depends", "entity", "fields", "key", "html", "wide", "numbered", "later", "claims"}),
    Kind.PARTITION: frozenset({"depends", "on", "ahead"}),
    Kind.INDEX: frozenset({"depends", "on"}),
    Kind.CONSTRAINT: frozenset({"depends", "on"}),
    Kind.TRIGGER: frozenset({"depends", "on"}),
    Kind.CHECK: frozenset({"depends", "on", "severity"}),
    Kind.QUERY: frozenset({"depends", "uses", "prunes", "since", "until"}),
}
_COMMON_KEYS = frozenset({"depends"})
_HEADER_LINE = re.compile(r"--\s(?P<key>[a-z]+):\s+(?P<value>.*\S)\s*$")
_SEED = re.compile(r"(?P<column>[a-z_][a-z0-9_]*) = (?P<values>'(?:[^']|'')*'(?: *, *'(?:[^']|'')*')*)")
_IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*$")


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
    """How a table is partitioned by time: `month` or `year` (UTC) of a column."""

    unit: str
    column: str


@dataclass(frozen=True)
class Seed:
    """Rows that a table's file puts into it: those with one of some values in a column. They are no records, and no count has them."""

    column: str
    values: tuple[str, ...]


@dataclass(frozen=True)
class Numbered:
    """A column whose value must be unique: later claimants get `-2`, `-3` ….

    Attributes:
        column: The column of the mapping, holding the wanted value.
        table: Where taken values stand, under the same column name.
        owner: The column of that table which says whose value it is.
        made_from: The column that a value is made from where none is given: one that was made stays while that one does.
        repaired: Whether a value that had to be changed is a repair of the record.
    """

    column: str
    table: str
    owner: str
    made_from: str | None
    repaired: bool


@dataclass(frozen=True)
class Claims:
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
        return Period(unit, column)

    @property
    def seed(self) -> Seed | None:
        """The rows that the table's own file puts into it, or None."""
        if (match := _SEED.fullmatch(self.options.get("seed", ""))) is None:
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
class ViewDefinition:
    """`create materialized view if not exists <name> as <query>`, taken apart, with its indexes and comments.

    Attributes:
        name: The view.
        query: What follows `as`.
        indexes: Its indexes.
        comments: `comment on …` statements.
        statement: The first statement as written.
    """

    name: str
    query: str
    indexes: tuple[IndexDefinition, ...]
    comments: tuple[Statement, ...]
    statement: Statement


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
    wide: tuple[str, ...]
    later: tuple[str, ...]
    numbered: Numbered | None
    claims: Claims | None


@dataclass(frozen=True)
class Catalog:
    """All of `sql/`.

    Attributes:
        root: The folder.
        specs: Every file, each after what it depends on; otherwise by stage and name.
        mappings: Mappings by target table.
    """

    root: Path
    specs: tuple[Spec, ...]
    mappings: Mapping[str, TableMapping]

    def of(self, *kinds: Kind) -> tuple[Spec, ...]:
        """The files of some kinds, in order."""
        return tuple(spec for spec in self.specs if spec.kind in kinds)

    def table(self, name: str) -> Spec:
        """The file of a table.

        Raises:
            KeyError: There is none.
        """
        return next((spec for spec in self.of(Kind.TABLE) if spec.name == name), None) or _missing(name)

    def on(self, table: str, kind: Kind) -> tuple[Spec, ...]:
        """The files of a kind about a table, in order."""
        return tuple(spec for spec in self.of(kind) if spec.options["on"] == table)

    def partitions(self, table: str) -> Spec | None:
        """The file of a table's partitions, if there is one."""
        return next(iter(self.on(table, Kind.PARTITION)), None)

    @property
    def checks(self) -> Mapping[str, RowCheck]:
        """Checks of rows by name, in order."""
        return {spec.name: row_check(spec) for spec in self.of(Kind.CHECK)}

    @property
    def entities(self) -> Mapping[str, str]:
        """Target table by Base44 entity."""
        return {mapping.entity: table for table, mapping in self.mappings.items()}


def _missing(name: str) -> Spec:
    raise KeyError(name)


def load_catalog(root: Path) -> Catalog:
    """Reads and checks the folder `sql/`.

    Raises:
        CatalogError: A file breaks the form; names the file and the line.
    """
    if not root.is_dir():
        raise CatalogError(f"{root}: no such folder (B44_SQL_DIR)")
    _check_places(root)
    of_app: list[Spec] = []
    for kind in Kind:
        if kind is not Kind.RUNTIME:
            paths = sorted(path for path in (root / kind.value).glob("*.sql") if _is_sql(path))
            of_app.extend(_read(path, kind, path.stem) for path in paths)
    if not of_app:
        raise CatalogError(f"{root}: holds no SQL files in {', '.join(_FOLDERS)}")
    runtime = load_runtime()
    specs = [*runtime, *of_app]
    mappings = {spec.name: _mapping(spec) for spec in specs if spec.kind is Kind.MAPPING}
    _check_names(specs)
    ordered = (*runtime, *_order(of_app))
    for spec in specs:
        if (check := _FORMS.get(spec.kind)) is not None:
            check(spec)
    _check_uses(specs)
    _check_claims(specs, mappings)
    _check_columns(specs, mappings)
    _check_reads(specs)
    return Catalog(
        root, ordered, MappingProxyType({s.name: mappings[s.name] for s in ordered if s.kind is Kind.MAPPING})
    )


def load_runtime() -> tuple[Spec, ...]:
    """Reads the SQL that comes with the program: what every app's migration stands on, in the order in which it is installed."""
    paths = sorted(_RUNTIME.glob("*/*.sql"))
    return _order([_read(path, Kind.RUNTIME, f"{path.parent.name}/{path.stem}") for path in paths])


def _check_places(root: Path) -> None:
    """Every SQL file has a kind: one in a folder that nobody reads would be missed only when it is needed."""
    for entry in sorted(root.iterdir()):
        if entry.is_dir():
            found = _sql_files(entry)
            if not found:
                continue
            if entry.name in _OF_PROGRAM:
                raise CatalogError(
                    f"{entry}: the migration's own tables and functions come with the program; remove this folder"
                )
            if entry.name not in _FOLDERS:
                raise CatalogError(
                    f"{entry}: there is no such kind{meant(entry.name, _FOLDERS)}; there are {', '.join(_FOLDERS)}"
                )
            for path in found:
                if path.parent != entry:
                    raise CatalogError(f"{path}: SQL files stand in {entry} itself, not in a folder of it")
                if path.suffix != ".sql":
                    raise CatalogError(f"{path}: is not read; its name must end with .sql in lower case")
        elif _is_sql(entry):
            raise CatalogError(f"{entry}: an SQL file stands in the folder of its kind: {', '.join(_FOLDERS)}")


def _sql_files(folder: Path) -> list[Path]:
    """The SQL files below a folder, in order; hidden ones are nobody's."""
    found: list[Path] = []
    for place, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found.extend(path for name in files if _is_sql(path := Path(place, name)))
    return [] if folder.name.startswith(".") else sorted(found)


def _is_sql(path: Path) -> bool:
    return path.suffix.lower() == ".sql" and not path.name.startswith(".")


def meant(name: str, known: Iterable[str]) -> str:
    """What to add to a complaint about an unknown name: the nearest known one, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def _read(path: Path, kind: Kind, name: str) -> Spec:
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise CatalogError(f"{path}: cannot be read: {error}") from error
    if not _IDENTIFIER.match(path.stem):
        raise CatalogError(f"{path}: the file's name must be the object's: lower case letters, digits and _")
    allowed = _HEADER_KEYS.get(kind, _COMMON_KEYS)
    description: list[str] = []
    options: dict[str, str] = {}
    lines: dict[str, int] = {}
    key: str | None = None
    for number, line in enumerate(text.splitlines(), start=1):
        if not line.startswith("--"):
            break
        if match := _HEADER_LINE.match(line):
            key = match["key"]
            if key not in allowed:
                raise CatalogError(
                    f"{path}:{number}: unknown header '{key}'{meant(match['key'], allowed)}; {kind} know {', '.join(sorted(allowed))}"
                )
            if key in options:
                raise CatalogError(f"{path}:{number}: header '{key}' stands there twice")
            options[key], lines[key] = match["value"], number
        elif key is not None and line.startswith("--   "):
            options[key] += " " + line[2:].strip()
        elif key is not None:
            raise CatalogError(f"{path}:{number}: expected '-- key: value', or three spaces to go on with '{key}'")
        else:
            description.append(line[2:].strip())
    if not any(description):
        raise CatalogError(f"{path}:1: the first comment must say what this is")
    statements = tuple(split_statements(text, path))
    if not statements:
        raise CatalogError(f"{path}: holds no statement")
    depends = _names(options.pop("depends", ""))
    spec = Spec(
        name=name,
        kind=kind,
        description=" ".join(description).strip(),
        depends=depends,
        statements=statements,
        digest=hashlib.sha256(text.encode()).hexdigest(),
        path=path,
        options=MappingProxyType(options),
    )
    if "partitions" in options and not re.fullmatch(r"(month|year) of [a-z_][a-z0-9_]*", options["partitions"]):
        raise CatalogError(f"{path}:{lines['partitions']}: expected 'month of <column>' or 'year of <column>'")
    if "seed" in options and not _SEED.fullmatch(options["seed"]):
        raise CatalogError(f"{path}:{lines['seed']}: expected '<column> = '<value>'[, '<value>' …]'")
    if "ahead" in options and not re.fullmatch(r"[0-9]{1,3}", options["ahead"]):
        raise CatalogError(
            f"{path}:{lines['ahead']}: expected how many periods after the current one shall have a partition"
        )
    return spec


def _mapping(spec: Spec) -> TableMapping:
    def fault(reason: str) -> CatalogError:
        return CatalogError(f"{spec.path}:1: {reason}")

    if len(spec.statements) != 1:
        raise fault("a mapping is one SELECT")
    for key in ("entity", "fields"):
        if key not in spec.options:
            raise fault(f"a mapping needs a header '{key}'")
    fields = tuple(Field(tuple(part.strip() for part in item.split("|"))) for item in spec.options["fields"].split(","))
    names = [spelling for item in fields for spelling in item.spellings]
    if "" in names or len(set(names)) != len(names):
        raise fault("'fields' has an empty or repeated name")
    if fields[0].name != "id":
        raise fault("'fields' must begin with id")
    numbered: Numbered | None = None
    if (value := spec.options.get("numbered")) is not None:
        match = re.fullmatch(r"(\w+) in (\w+) by (\w+)(?:, made from (\w+))?(, repaired)?", value)
        if match is None:
            raise fault("expected 'numbered: <column> in <table> by <column>[, made from <column>][, repaired]'")
        numbered = Numbered(match[1], match[2], match[3], match[4], repaired=match[5] is not None)
    claims: Claims | None = None
    if (value := spec.options.get("claims")) is not None:
        match = re.fullmatch(r"(\w+(?:, *\w+)*); released by (\w+) = (.+)", value)
        if match is None:
            raise fault("expected 'claims: <column>, ...; released by <column> = <expression>'")
        claims = Claims(_names(match[1]), match[2], match[3])
    html = _names(spec.options.get("html", ""))
    if missing := set(html) - {item.name for item in fields}:
        raise fault(f"'html' names {sorted(missing)[0]}, which is not among the fields")
    return TableMapping(
        spec=spec,
        entity=spec.options["entity"],
        key=spec.options.get("key", "id"),
        fields=fields,
        html=html,
        wide=_names(spec.options.get("wide", "")),
        later=_names(spec.options.get("later", "")),
        numbered=numbered,
        claims=claims,
    )


_INDEX = re.compile(
    r"create\s+(?P<unique>unique\s+)?index\s+(?:if\s+not\s+exists\s+)?(?P<name>[a-z_]\w*)\s+on\s+(?P<table>[a-z_]\w*)"
    r"\s*(?P<rest>(?:using\b|\().*)",
    re.IGNORECASE | re.DOTALL,
)
_INDEX_STATISTICS = re.compile(
    r"alter\s+index\s+(?P<name>[a-z_]\w*)\s+alter\s+column\s+(?P<column>\d+)\s+set\s+statistics\s+(?P<target>\d+)",
    re.IGNORECASE,
)
_CONSTRAINT = re.compile(
    r"alter\s+table\s+(?P<table>[a-z_]\w*)\s+add\s+constraint\s+(?P<name>[a-z_]\w*)\s+"
    r"(?P<rest>(?P<form>check|foreign|exclude|unique)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_UNLESS_THERE = re.compile(
    r"do\s+(?P<quote>\$\w*\$)\s*begin\s+if\s+not\s+exists\s*\((?P<condition>[^;]*?)\)\s*then\s+"
    r"(?P<statement>alter\s+table\b.*?)\s*;\s*end\s+if\s*;\s*end\s*;?\s*(?P=quote)",
    re.IGNORECASE | re.DOTALL,
)
_LITERAL = re.compile(r"'([^']*)'")
FOREIGN_KEY = re.compile(
    r"foreign\s+key\s*\((?P<columns>[\w\s,]+)\)\s*references\s+(?P<table>\w+)\s*\((?P<keys>[\w\s,]+)\)", re.IGNORECASE
)
_TRIGGER = re.compile(
    r"create\s+or\s+replace\s+trigger\s+(?P<name>[a-z_]\w*)\s+(?:before|after|instead\s+of)\s.*?\son\s+(?P<table>[a-z_]\w*)\s.*",
    re.IGNORECASE | re.DOTALL,
)
_FOLLOWED = re.compile(r"select\s+b44.follow_truncate_triggers\s*\(\s*'(?P<table>[a-z_]\w*)'\s*\)", re.IGNORECASE)
"""Gives the partitions of a table its triggers for TRUNCATE; the engine does so for every table."""
_VIEW = re.compile(
    r"create\s+materialized\s+view\s+(?:if\s+not\s+exists\s+)?(?P<name>[a-z_]\w*)\s+as\s+(?P<query>(?:select|with)\b.*)",
    re.IGNORECASE | re.DOTALL,
)
_COMMENT = re.compile(r"comment\s+on\s", re.IGNORECASE)
_SELECT = re.compile(r"(?:select|with)\b", re.IGNORECASE)


def _fault_at(spec: Spec, statement: Statement, reason: str) -> CatalogError:
    return CatalogError(f"{spec.path}:{statement.line}: {reason}")


def _on(spec: Spec) -> str:
    if (table := spec.options.get("on")) is None:
        raise CatalogError(f"{spec.path}:1: {spec.kind} need a header 'on'")
    return table


def _check_table(spec: Spec, statement: Statement, table: str, expected: str) -> None:
    if table != expected:
        raise _fault_at(spec, statement, f"is about {table}, the file about {expected}")


def _indexes(spec: Spec, statements: Sequence[Statement], table: str) -> tuple[IndexDefinition, ...]:
    found: dict[str, tuple[re.Match[str], Statement]] = {}
    statistics: dict[str, dict[int, int]] = {}
    for statement in statements:
        if match := _INDEX.fullmatch(statement.text):
            _check_table(spec, statement, match["table"], table)
            if match["name"] in found:
                raise _fault_at(spec, statement, f"{match['name']} stands there twice")
            found[match["name"]] = match, statement
        elif match := _INDEX_STATISTICS.fullmatch(statement.text):
            if match["name"] not in found:
                raise _fault_at(spec, statement, f"{match['name']} is not created above")
            statistics.setdefault(match["name"], {})[int(match["column"])] = int(match["target"])
        else:
            raise _fault_at(
                spec,
                statement,
                "expected 'create [unique] index [if not exists] <name> on <table> …'"
                " or 'alter index <name> alter column <number> set statistics <target>'",
            )
    return tuple(
        IndexDefinition(
            name,
            table,
            match["unique"] is not None,
            match["rest"],
            MappingProxyType(statistics.get(name, {})),
            statement,
        )
        for name, (match, statement) in found.items()
    )


def index_definitions(spec: Spec) -> tuple[IndexDefinition, ...]:
    """The indexes of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    return _indexes(spec, spec.statements, _on(spec))


def constraint_definitions(spec: Spec) -> tuple[ConstraintDefinition, ...]:
    """The constraints of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    table = _on(spec)
    found: dict[str, ConstraintDefinition] = {}
    for statement in spec.statements:
        conditional = _UNLESS_THERE.fullmatch(statement.text)
        match = _CONSTRAINT.fullmatch(conditional["statement"] if conditional else statement.text)
        if match is None:
            raise _fault_at(
                spec,
                statement,
                "expected 'alter table <table> add constraint <name> check|foreign key|exclude|unique …',"
                " alone or within 'do $$ begin if not exists (select from pg_constraint …) then …; end if; end $$'",
            )
        _check_table(spec, statement, match["table"], table)
        if conditional and (
            "pg_constraint" not in conditional["condition"]
            or sorted(_LITERAL.findall(conditional["condition"])) != sorted((table, match["name"]))
        ):
            # Another constraint's name there, and psql would never add this one.
            raise _fault_at(spec, statement, f"the condition must be that {match['name']} of {table} is not there")
        if match["name"] in found:
            raise _fault_at(spec, statement, f"{match['name']} stands there twice")
        if re.search(r"\bnot\s+valid\s*$", match["rest"], re.IGNORECASE):
            raise _fault_at(spec, statement, "NOT VALID is a matter of how it is added, not of the constraint")
        if match["form"].lower() == "foreign" and FOREIGN_KEY.match(match["rest"]) is None:
            raise _fault_at(spec, statement, "expected 'foreign key (<columns>) references <table> (<columns>)'")
        found[match["name"]] = ConstraintDefinition(
            match["name"], table, match["form"].lower(), match["rest"], statement
        )
    return tuple(found.values())


def trigger_definitions(spec: Spec) -> tuple[TriggerDefinition, ...]:
    """The triggers of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    table = _on(spec)
    found: dict[str, TriggerDefinition] = {}
    for statement in spec.statements:
        if followed := _FOLLOWED.fullmatch(statement.text):
            _check_table(spec, statement, followed["table"], table)
            continue
        match = _TRIGGER.fullmatch(statement.text)
        if match is None:
            raise _fault_at(spec, statement, "expected 'create or replace trigger <name> … on <table> …'")
        _check_table(spec, statement, match["table"], table)
        if match["name"] in found:
            raise _fault_at(spec, statement, f"{match['name']} stands there twice")
        found[match["name"]] = TriggerDefinition(match["name"], table, statement)
    return tuple(found.values())


def view_definition(spec: Spec) -> ViewDefinition:
    """The materialized view of a file.

    Raises:
        CatalogError: A statement is of another form; names the line.
    """
    first = spec.statements[0]
    match = _VIEW.fullmatch(first.text)
    if match is None:
        raise _fault_at(spec, first, "expected 'create materialized view [if not exists] <name> as <query>'")
    if match["name"] != spec.name:
        raise _fault_at(spec, first, f"the view is {match['name']}, the file {spec.name}")
    comments = tuple(statement for statement in spec.statements[1:] if _COMMENT.match(statement.text))
    indexes = _indexes(spec, [s for s in spec.statements[1:] if s not in comments], spec.name)
    if not any(index.unique for index in indexes):
        raise _fault_at(spec, first, "a materialized view needs a unique index: REFRESH … CONCURRENTLY works by it")
    return ViewDefinition(spec.name, match["query"], indexes, comments, first)


def row_check(spec: Spec) -> RowCheck:
    """The check of a file.

    Raises:
        CatalogError: It is not one SELECT, or a header is missing or says something else than it may.
    """
    table = _on(spec)
    if len(spec.statements) != 1 or not _SELECT.match(spec.statements[0].text):
        raise CatalogError(f"{spec.path}:1: a check is one SELECT of the rows that break the rule")
    severity = spec.options.get("severity", "error")
    if severity not in ("error", "warn"):
        line = _line_of(spec.path, "severity")
        raise CatalogError(f"{spec.path}:{line}: expected 'severity: error' or 'severity: warn', not '{severity}'")
    return RowCheck(spec, table, severity == "warn")


def query_definition(spec: Spec) -> Query:
    """The query of a file.

    Raises:
        CatalogError: It is not one SELECT, or a literal that a header names is not in it.
    """
    if len(spec.statements) != 1 or not _SELECT.match(spec.statements[0].text):
        raise CatalogError(f"{spec.path}:1: a query is one SELECT")
    for key in ("since", "until"):
        if key in spec.options and f"'{spec.options[key]}'" not in spec.statements[0].text:
            raise CatalogError(f"{spec.path}:1: '{key}' must be a literal of the query: '{spec.options[key]}'")
    return Query(
        spec,
        _names(spec.options.get("uses", "")),
        spec.options.get("prunes"),
        spec.options.get("since"),
        spec.options.get("until"),
    )


_FORMS: Mapping[Kind, Callable[[Spec], object]] = {
    Kind.PARTITION: _on,
    Kind.INDEX: index_definitions,
    Kind.CONSTRAINT: constraint_definitions,
    Kind.TRIGGER: trigger_definitions,
    Kind.VIEW: view_definition,
    Kind.CHECK: row_check,
    Kind.QUERY: query_definition,
}


def _names(value: str) -> tuple[str, ...]:
    return tuple(name.strip() for name in value.split(",") if name.strip())


def _check_names(specs: list[Spec]) -> None:
    seen: dict[str, Spec] = {}
    entities: dict[str, Spec] = {}
    for spec in specs:
        if spec.kind is Kind.MAPPING:
            entity = spec.options["entity"]
            if entity in entities:
                raise CatalogError(f"{spec.path}:1: entity {entity} has a mapping already: {entities[entity].path}")
            entities[entity] = spec
            continue
        if spec.name in seen:
            raise CatalogError(f"{spec.path}:1: {spec.name} stands there twice: {seen[spec.name].path}")
        seen[spec.name] = spec
    for spec in specs:
        if spec.kind is Kind.MAPPING and (spec.name not in seen or seen[spec.name].kind is not Kind.TABLE):
            raise CatalogError(f"{spec.path}:1: there is no table {spec.name}: tables/{spec.name}.sql is missing")
        for name in (*spec.depends, *_names(spec.options.get("on", "")), *_names(spec.options.get("prunes", ""))):
            given = seen.get(name)
            place = f"{spec.path}:{_line_naming(spec.path, name)}"
            if given is not None and given.kind in WITHOUT_OBJECT:
                raise CatalogError(f"{place}: nothing can depend on {name}, which makes nothing: {given.path}")
            if given is not None and name == spec.options.get("on") and given.kind not in _STOOD_ON.get(spec.kind, ()):
                raise CatalogError(f"{place}: {name} is no table: {given.path}")
            if given is not None and (given.kind is not Kind.RUNTIME or spec.kind is Kind.RUNTIME):
                continue
            if given is not None or any(f"{schema}/{name}" in seen for schema in ("b44", "migration")):
                raise CatalogError(f"{place}: {name} comes with the program, and is there before any file of an app")
            raise CatalogError(f"{place}: depends on {name}, which no file of {spec.path.parent.parent} gives")


def _line_naming(path: Path, name: str) -> int:
    """The line on which a file's header names what it depends on."""
    word = re.compile(rf"(?<![\w/]){re.escape(name)}(?![\w/])")
    within = False
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if match := _HEADER_LINE.match(text):
            within = match["key"] in ("depends", "on")
        if within and word.search(text):
            return number
    return 1


def _line_of(path: Path, key: str) -> int:
    """The line on which a header begins."""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if (match := _HEADER_LINE.match(text)) and match["key"] == key:
            return number
    return 1


def _check_uses(specs: list[Spec]) -> None:
    indexes = {index.name for spec in specs if spec.kind is Kind.INDEX for index in index_definitions(spec)}
    for spec in specs:
        if missing := [name for name in _names(spec.options.get("uses", "")) if name not in indexes]:
            raise CatalogError(f"{spec.path}:1: uses {missing[0]}, which no file of {spec.path.parent.parent} gives")


def _check_claims(specs: list[Spec], mappings: Mapping[str, TableMapping]) -> None:
    for spec in specs:
        if spec.kind is Kind.TABLE and spec.period and spec.name in mappings and mappings[spec.name].claims:
            # Its partitions are loaded one by one, and the rows that exchange values may lie in several.
            raise CatalogError(f"{mappings[spec.name].spec.path}:1: 'claims' is not for a table with periods")


_OF_RECORDS = frozenset({"record_number", "base44_id", "reasons", "repairs", "unmapped"})
"""What every mapping gives, besides its table's columns."""


def _check_columns(specs: list[Spec], mappings: Mapping[str, TableMapping]) -> None:
    """What loading a table takes for granted: what its mapping gives, and a key that is a UUID."""
    tables = {spec.name: spec for spec in specs if spec.kind is Kind.TABLE}
    for name, mapping in mappings.items():
        statement = mapping.spec.statements[0]
        wanted = _OF_RECORDS | {mapping.key}
        if (given := gives(statement.text, wanted)) is not None and (missing := sorted(wanted - given)):
            raise _fault_at(mapping.spec, statement, f"a mapping must give {', '.join(missing)}")
        for made in tables[name].statements:
            kind = column_type(made.text, mapping.key)
            if kind not in (None, "uuid"):
                number = made.line + _lines_before(made.text, mapping.key)
                raise CatalogError(
                    f"{tables[name].path}:{number}: {mapping.key} must be uuid, not {kind}: it is the key of the mapping"
                )


def _check_reads(specs: list[Spec]) -> None:
    """A file comes after the tables and views that it reads only if it says that it reads them."""
    relations = {spec.name for spec in specs if spec.kind in (Kind.TABLE, Kind.VIEW)}
    of_table = {spec.name: spec.depends for spec in specs if spec.kind is Kind.TABLE}
    for spec in specs:
        if spec.kind not in (Kind.MAPPING, Kind.VIEW, Kind.CHECK):
            continue
        said = {spec.name, *spec.depends, *_names(spec.options.get("on", ""))}
        if spec.kind is Kind.MAPPING:
            said.update(of_table[spec.name])
        for statement in spec.statements:
            doubtful = (relations & set(_WORD.findall(statement.text))) - said
            unsaid = doubtful and doubtful & (tables_read(statement.text) or frozenset())
            if unsaid:
                name = min(unsaid)
                number = statement.line + _lines_before(statement.text, name)
                raise CatalogError(f"{spec.path}:{number}: reads {name}, which its header 'depends' does not name")


_WORD = re.compile(r"[a-z_][a-z0-9_]*")


def _lines_before(text: str, name: str) -> int:
    """On which line of a statement a name stands first, counted from 0."""
    match = re.search(rf"(?<![\w']){re.escape(name)}(?![\w'])", text)
    return text.count("\n", 0, match.start()) if match else 0


def _order(specs: list[Spec]) -> tuple[Spec, ...]:
    """Each after what it depends on. A table's mapping belongs to the table's load, so it counts as the table's."""
    needs: dict[str, set[str]] = {}
    by_name: dict[str, list[Spec]] = {}
    for spec in specs:
        by_name.setdefault(spec.name, []).append(spec)
        needs.setdefault(spec.name, set()).update(set(spec.depends) | set(_names(spec.options.get("on", ""))))
    sorter = TopologicalSorter(needs)
    try:
        sorter.prepare()
    except CycleError as error:
        ring: list[str] = error.args[1]
        first = by_name[ring[0]][-1]
        raise CatalogError(f"{first.path}:1: depends on itself: {' -> '.join(reversed(ring))}") from error
    place = {name: index for index, name in enumerate(by_name)}
    ordered: list[Spec] = []
    while sorter.is_active():
        for name in sorted(sorter.get_ready(), key=place.__getitem__):
            ordered.extend(by_name[name])
            sorter.done(name)
    return tuple(ordered)


_TOKEN = re.compile(
    r"""
    (?P<comment>--[^\n]*)
  | (?P<block>/\*)
  | (?P<escape>[eE]'(?:[^'\\]|\\.|'')*')
  | (?P<string>'(?:[^']|'')*')
  | (?P<name>"(?:[^"]|"")*")
  | (?P<dollar>\$(?:[A-Za-z_][A-Za-z0-9_]*)?\$)
  | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
  | (?P<end>;)
  | (?P<open>['"])
  | (?P<other>.)
    """,
    re.VERBOSE | re.DOTALL,
)


def split_statements(text: str, path: Path) -> Iterator[Statement]:
    """Cuts SQL at its semicolons, as psql does: not within quotes, comments, dollar quotes or `begin atomic … end`.

    Yields:
        Statements without the semicolon, comments inside kept; pieces of comment and white space alone are left out.

    Raises:
        CatalogError: A quote or comment is never closed; names the line.
    """
    position, depth, meaningful = 0, 0, -1
    previous = ""

    def line_of(offset: int) -> int:
        return text.count("\n", 0, offset) + 1

    while match := _TOKEN.match(text, position):
        kind, begun, position = match.lastgroup, position, match.end()
        if kind == "block":
            level = 1
            while level:
                bound = re.compile(r"/\*|\*/").search(text, position)
                if bound is None:
                    raise CatalogError(f"{path}:{line_of(begun)}: comment is never closed")
                level += 1 if bound[0] == "/*" else -1
                position = bound.end()
            continue
        if kind == "comment" or match[0].isspace():
            continue
        if kind == "open":
            raise CatalogError(f"{path}:{line_of(begun)}: quote is never closed")
        if kind == "end" and depth == 0:
            if meaningful >= 0:
                yield Statement(text[meaningful:begun].rstrip(), line_of(meaningful))
            meaningful, previous = -1, ""
            continue
        if meaningful < 0:
            meaningful = begun
        if kind == "dollar":
            closing = text.find(match[0], position)
            if closing < 0:
                raise CatalogError(f"{path}:{line_of(begun)}: {match[0]} is never closed")
            position = closing + len(match[0])
        elif kind == "word":
            word = match[0].lower()
            if word == "atomic" and previous == "begin":
                depth = 1
            elif depth and word == "case":
                depth += 1
            elif depth and word == "end":
                depth -= 1
            previous = word
    if meaningful >= 0:
        yield Statement(text[meaningful:].rstrip(), line_of(meaningful))
