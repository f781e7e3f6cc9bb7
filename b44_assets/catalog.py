"""The folder `sql/`, read into frozen specs.

What belongs here: the form of the files (header, statements, dependencies) and the complaints about breaking it. What
does not: running any of it, or knowing what a table is for. Neither Dagster nor psycopg is imported.

A file's folder says its kind and its name says the object's. Its first comment says what it is, then come `-- key: value`
lines; a value goes on in lines indented by three spaces::

    -- What becomes of a Post record.
    -- entity: Post
    -- depends: users, categories
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from graphlib import CycleError, TopologicalSorter
from pathlib import Path
from types import MappingProxyType

from b44_assets.errors import CatalogError


class Kind(StrEnum):
    """What a file describes; the value is the folder's name. The order is the order of the stages."""

    BOOK = "books"
    FUNCTION = "functions"
    TABLE = "tables"
    MAPPING = "mappings"
    PARTITION = "partitions"
    INDEX = "indexes"
    CONSTRAINT = "constraints"
    TRIGGER = "triggers"
    VIEW = "views"


_HEADER_KEYS: Mapping[Kind, frozenset[str]] = {
    Kind.TABLE: frozenset({"depends", "partitions"}),
    Kind.MAPPING: frozenset({"depends", "entity", "fields", "key", "html", "wide", "numbered", "later"}),
    Kind.INDEX: frozenset({"depends", "on"}),
    Kind.CONSTRAINT: frozenset({"depends", "on"}),
    Kind.TRIGGER: frozenset({"depends", "on"}),
}
_COMMON_KEYS = frozenset({"depends"})
_HEADER_LINE = re.compile(r"--\s(?P<key>[a-z]+):\s+(?P<value>.*\S)\s*$")
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
class Numbered:
    """A column whose value must be unique: later claimants get `-2`, `-3` ….

    Attributes:
        column: The column of the mapping, holding the wanted value.
        table: Where taken values stand, under the same column name.
        owner: The column of that table which says whose value it is.
        repaired: Whether a value that had to be changed is a repair of the record.
    """

    column: str
    table: str
    owner: str
    repaired: bool


@dataclass(frozen=True)
class Spec:
    """A file of `sql/`.

    Attributes:
        name: The object's name: the file's stem; books are named `migration/<stem>`.
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
    specs: list[Spec] = []
    for kind in Kind:
        specs.extend(_read(path, kind) for path in sorted((root / kind.value).glob("*.sql")))
    if not specs:
        raise CatalogError(f"{root}: holds no SQL files in {', '.join(Kind)}")
    mappings = {spec.name: _mapping(spec) for spec in specs if spec.kind is Kind.MAPPING}
    _check_names(specs)
    ordered = _order(specs)
    return Catalog(
        root, ordered, MappingProxyType({s.name: mappings[s.name] for s in ordered if s.kind is Kind.MAPPING})
    )


def _read(path: Path, kind: Kind) -> Spec:
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
                raise CatalogError(f"{path}:{number}: unknown header '{key}'; {kind} know {', '.join(sorted(allowed))}")
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
        name=f"migration/{path.stem}" if kind is Kind.BOOK else path.stem,
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
        match = re.fullmatch(r"(\w+) in (\w+) by (\w+)(, repaired)?", value)
        if match is None:
            raise fault("expected 'numbered: <column> in <table> by <column>[, repaired]'")
        numbered = Numbered(match[1], match[2], match[3], match[4] is not None)
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
    )


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
        for name in (*spec.depends, *_names(spec.options.get("on", ""))):
            if name not in seen:
                line = _line_naming(spec.path, name)
                raise CatalogError(
                    f"{spec.path}:{line}: depends on {name}, which no file of {spec.path.parent.parent} gives"
                )


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
