"""What files say of each other: names that must exist, and the order that follows."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace
from graphlib import CycleError, TopologicalSorter

from b44_assets.catalog.definitions import fault_at, index_definitions
from b44_assets.catalog.headers import line_naming, line_of, meant, names_of
from b44_assets.catalog.model import WITHOUT_OBJECT, Kind, Spec, TableMapping
from b44_assets.catalog.names import column_type, columns_given, columns_made, gives, tables_read
from b44_assets.errors import CatalogError

_STOOD_ON: Mapping[Kind, tuple[Kind, ...]] = {
    Kind.PARTITION: (Kind.TABLE,),
    Kind.INDEX: (Kind.TABLE,),
    Kind.CONSTRAINT: (Kind.TABLE,),
    Kind.TRIGGER: (Kind.TABLE,),
    Kind.POLICY: (Kind.TABLE,),
    Kind.CHECK: (Kind.TABLE, Kind.VIEW),
}
"""What a header `on` may name."""


NAMES_OF_PROGRAM = frozenset({"b44", "migration", "other_entities"})
"""Assets that the program has of its own, beside those of files."""


def check_names(specs: list[Spec]) -> None:
    """Every name stands for one object, and what a header names is there."""
    seen: dict[str, Spec] = {}
    entities: dict[str, Spec] = {}
    for spec in specs:
        if spec.kind is Kind.MAPPING:
            entity = spec.options["entity"]
            if entity in entities:
                line, other = line_of(spec.path, "entity"), entities[entity].path
                raise CatalogError(
                    f"{spec.path}:{line}: entity {entity} has a mapping already: {other}:{line_of(other, 'entity')}"
                )
            entities[entity] = spec
            continue
        if spec.name in NAMES_OF_PROGRAM:
            raise CatalogError(f"{spec.path}:1: {spec.name} is the name of an asset of the program's: take another one")
        if spec.name in seen:
            raise CatalogError(f"{spec.path}:1: {spec.name} stands there twice: {seen[spec.name].path}")
        seen[spec.name] = spec
    for spec in specs:
        if spec.kind is Kind.MAPPING and (spec.name not in seen or seen[spec.name].kind is not Kind.TABLE):
            tables = [one.name for one in specs if one.kind is Kind.TABLE]
            raise CatalogError(
                f"{spec.path}:1: there is no table {spec.name}{meant(spec.name, tables)}: tables/{spec.name}.sql is missing"
            )
        for name in (*spec.depends, *names_of(spec.options.get("on", "")), *names_of(spec.options.get("prunes", ""))):
            if (reason := _unfit(spec, name, seen)) is not None:
                raise CatalogError(f"{spec.path}:{line_naming(spec.path, name)}: {reason}")


def _unfit(spec: Spec, name: str, seen: Mapping[str, Spec]) -> str | None:
    """Why a file cannot depend on a name; None where it can."""
    given = seen.get(name)
    if given is not None and given.kind in WITHOUT_OBJECT:
        return f"nothing can depend on {name}, which makes nothing: {given.path}"
    if given is not None and name == spec.options.get("on") and given.kind not in _STOOD_ON.get(spec.kind, ()):
        return f"{name} is no table: {given.path}"
    if given is not None and (given.kind is not Kind.RUNTIME or spec.kind is Kind.RUNTIME):
        return None
    if given is not None or any(f"{schema}/{name}" in seen for schema in ("b44", "migration")):
        return f"{name} comes with the program, and is there before any file of an app"
    others = [one.name for one in seen.values() if one.kind not in (Kind.RUNTIME, *WITHOUT_OBJECT)]
    return f"depends on {name}, which no file of {spec.path.parent.parent} gives{meant(name, others)}"


def check_uses(specs: list[Spec]) -> None:
    """The indexes that queries name are there."""
    indexes = {index.name for spec in specs if spec.kind is Kind.INDEX for index in index_definitions(spec)}
    for spec in specs:
        if missing := [name for name in names_of(spec.options.get("uses", "")) if name not in indexes]:
            raise CatalogError(
                f"{spec.path}:{line_of(spec.path, 'uses')}: uses {missing[0]}, which no file of"
                f" {spec.path.parent.parent} gives{meant(missing[0], indexes)}"
            )


def check_exchangeable(specs: list[Spec], mappings: Mapping[str, TableMapping]) -> None:
    """Values are exchanged only within a table that is loaded as one."""
    for spec in specs:
        if (
            spec.kind is Kind.TABLE
            and spec.period
            and spec.name in mappings
            and mappings[spec.name].exchangeable_unique
        ):
            # Its partitions are loaded one by one, and the rows that exchange values may lie in several.
            path = mappings[spec.name].spec.path
            line = line_of(path, "exchangeable_unique")
            raise CatalogError(f"{path}:{line}: 'exchangeable_unique' is not for a table with periods")


_OF_RECORDS = frozenset({"record_number", "base44_id", "reasons", "repairs", "unmapped"})
"""What every mapping gives, besides its table's columns."""
COLUMNS_OF_MIGRATION = (
    _OF_RECORDS - {"base44_id"}
    | {"name_given", "_position", "_action", "_partition_key", "_contested", "_renamed"}
    | {"_record_checksum", "_last_change", "_left_over", "_checksum", "_row_checksum"}
)
"""What stands beside a table's columns while its records are migrated. A column base44_id keeps what the mapping gives as such."""
FIELDS_OF_SOURCE = frozenset(
    {"record_number", "source_file", "base44_id", "superseded", "exported_at"}
    | {"last_change", "record_checksum", "record", "unmapped"}
)
"""What a mapping's source has, besides the fields."""


def check_columns(specs: list[Spec], mappings: Mapping[str, TableMapping]) -> None:
    """What loading a table takes for granted: what its mapping gives, also of what its headers name, and a key that is a UUID."""
    tables = {spec.name: spec for spec in specs if spec.kind is Kind.TABLE}
    for name, mapping in mappings.items():
        statement = mapping.spec.statements[0]
        wanted = _OF_RECORDS | {mapping.key} | ({"name_given"} if mapping.unique_suffix else set[str]())
        named = _named_by_headers(mapping)
        given = gives(statement.text, wanted | named.keys())
        if given is not None and (missing := sorted(wanted - given)):
            raise fault_at(mapping.spec, statement, f"a mapping must give {', '.join(missing)}")
        if given is not None and (unknown := sorted(named.keys() - given)):
            header = named[unknown[0]]
            line, others = line_of(mapping.spec.path, header), columns_given(statement.text)
            raise CatalogError(
                f"{mapping.spec.path}:{line}: '{header}' needs {unknown[0]}, which the mapping does not give"
                f"{meant(unknown[0], others - _OF_RECORDS)}"
            )
        if (suffix := mapping.unique_suffix) and (large := {suffix.column, suffix.order} & set(mapping.large_columns)):
            line = line_of(mapping.spec.path, "large_columns")
            raise CatalogError(
                f"{mapping.spec.path}:{line}: {min(large)} cannot be one of 'large_columns': 'unique_suffix' reads it"
            )
        beside = {f"{name}_{what}": name for name in mapping.html for what in ("exported", "changed")}
        if taken := sorted({item.name for item in mapping.fields[1:]} & beside.keys()):
            raise CatalogError(
                f"{mapping.spec.path}:{line_of(mapping.spec.path, 'fields')}: the source has a {taken[0]} of its own, as"
                f" {beside[taken[0]]} is html; write {taken[0]}_field|{taken[0]} and read {taken[0]}_field"
            )
        if taken := sorted({item.name for item in mapping.fields[1:]} & FIELDS_OF_SOURCE):
            raise CatalogError(
                f"{mapping.spec.path}:{line_of(mapping.spec.path, 'fields')}: the source has a {taken[0]} of its own; write"
                f" {taken[0]}_field|{taken[0]} and read {taken[0]}_field"
            )
        for made in tables[name].statements:
            if taken := sorted(columns_made(made.text, COLUMNS_OF_MIGRATION)):
                number = made.line + _lines_before(made.text, taken[0])
                raise CatalogError(
                    f"{tables[name].path}:{number}: {name} cannot have a column {taken[0]}: the migration has one of that name"
                    " for each record; give it another name"
                )
            kind = column_type(made.text, mapping.key)
            if kind not in (None, "uuid"):
                number = made.line + _lines_before(made.text, mapping.key)
                raise CatalogError(
                    f"{tables[name].path}:{number}: {mapping.key} must be uuid, not {kind}: it is the key of the mapping"
                )


def _named_by_headers(mapping: TableMapping) -> dict[str, str]:
    """The columns of the mapping that its headers name, with the header."""
    suffix, exchangeable = mapping.unique_suffix, mapping.exchangeable_unique
    suffixed = (
        () if suffix is None else (suffix.column, suffix.order, *([suffix.made_from] if suffix.made_from else []))
    )
    columns = {
        "large_columns": mapping.large_columns,
        "deferred_fk": mapping.deferred_fk,
        "unique_suffix": suffixed,
        "exchangeable_unique": () if exchangeable is None else (*exchangeable.columns, exchangeable.released),
    }
    return {name: header for header, names in columns.items() for name in names}


def check_reads(specs: list[Spec]) -> None:
    """A file comes after the tables and views that it reads only if it says that it reads them."""
    relations = {spec.name for spec in specs if spec.kind in (Kind.TABLE, Kind.VIEW)}
    of_table = {spec.name: spec.depends for spec in specs if spec.kind is Kind.TABLE}
    for spec in specs:
        if spec.kind not in (Kind.MAPPING, Kind.VIEW, Kind.VIEW_SCHEMA, Kind.CHECK):
            continue
        said = {spec.name, *spec.depends, *names_of(spec.options.get("on", ""))}
        if spec.kind is Kind.MAPPING:
            said.update(of_table[spec.name])
        for statement in spec.statements:
            doubtful = (relations & set(_WORD.findall(statement.text))) - said
            unsaid = doubtful and doubtful & (tables_read(statement.text) or frozenset())
            if unsaid:
                name = min(unsaid)
                number = statement.line + _lines_before(statement.text, name)
                raise CatalogError(f"{spec.path}:{number}: reads {name}, which its header 'depends' does not name")


_ON_ALL = re.compile(
    r"\bon\s+all\s+(?:tables|sequences|functions|procedures|routines)\s+in\s+schema\s+public\b", re.IGNORECASE
)
_GRANTED_ON = re.compile(r"\bon\s+(?P<names>.*?)\s+(?:to|from)\s", re.IGNORECASE | re.DOTALL)
_OWNED = re.compile(r"alter\s+(?P<names>.*?)\s+owner\s+to\s", re.IGNORECASE | re.DOTALL)
_POLICY_FOR = re.compile(r"\bto\s+(?P<names>[\w\s,]+?)\s*(?:\busing\b|\bwith\s+check\b|$)", re.IGNORECASE)
_ROUTINE = re.compile(
    r"create\s+(?:or\s+replace\s+)?(?:function|procedure|aggregate)\s+(?P<name>[a-z_]\w*)\s*\(", re.IGNORECASE
)


def routines_of(spec: Spec) -> tuple[str, ...]:
    """The names of the functions and procedures that a file makes."""
    return tuple(dict.fromkeys(match["name"] for one in spec.statements for match in _ROUTINE.finditer(one.text)))


def granted_on_all(specs: list[Spec]) -> list[Spec]:
    """The same files; those of roles with rights on all objects of the schema depend on every file that makes some."""
    objects = tuple(spec.name for spec in specs if spec.kind in (Kind.FUNCTION, Kind.TABLE, Kind.VIEW))
    return [
        replace(spec, depends=tuple(dict.fromkeys((*spec.depends, *objects))))
        if spec.kind is Kind.ROLE and any(_ON_ALL.search(statement.text) for statement in spec.statements)
        else spec
        for spec in specs
    ]


def check_grants(specs: list[Spec]) -> None:
    """A role's file comes after what it gives rights on, and a policy after its roles, only if they say so."""
    roles = {spec.name for spec in specs if spec.kind is Kind.ROLE}
    known = {spec.name: spec.name for spec in specs if spec.kind in (Kind.TABLE, Kind.VIEW, Kind.ROLE)}
    for spec in specs:
        if spec.kind is Kind.FUNCTION:
            known |= dict.fromkeys(routines_of(spec), spec.name)
    for spec in specs:
        if spec.kind not in (Kind.ROLE, Kind.POLICY):
            continue
        said = {spec.name, *spec.depends}
        for statement in spec.statements[spec.kind is Kind.ROLE :]:
            text = statement.text
            match = (
                _POLICY_FOR.search(text) if spec.kind is Kind.POLICY else _GRANTED_ON.search(text) or _OWNED.match(text)
            )
            named = set(_WORD.findall(match["names"])) if match else set[str]()
            if spec.kind is Kind.ROLE:
                named |= roles & set(_WORD.findall(text))
            else:
                named &= roles
            if unsaid := sorted(name for name in named if name in known and known[name] not in said):
                number = statement.line + _lines_before(text, unsaid[0])
                needed = known[unsaid[0]]
                raise CatalogError(
                    f"{spec.path}:{number}: names {unsaid[0]}, but its header 'depends' does not name {needed}"
                )


_AUDIT = re.compile(
    r"\bafter\s+(?P<event>insert|update|delete)\s+on\b.*\bfor\s+each\s+statement\b.*\bexecute\s+function\s+b44\.audit\s*\(",
    re.IGNORECASE | re.DOTALL,
)


def check_audited(specs: list[Spec]) -> None:
    """A table whose header says that it is audited has the triggers that do it, and no other has."""
    noted: dict[str, dict[str, Spec]] = {}
    for spec in specs:
        if spec.kind is Kind.TRIGGER:
            for statement in spec.statements:
                if match := _AUDIT.search(statement.text):
                    noted.setdefault(spec.options["on"], {})[match["event"].lower()] = spec
    for spec in specs:
        if spec.kind is not Kind.TABLE:
            continue
        found = noted.get(spec.name, {})
        missing = [event for event in ("insert", "update", "delete") if event not in found]
        if "audited" in spec.options and missing:
            raise CatalogError(
                f"{spec.path}:{line_of(spec.path, 'audited')}: an audited table needs a trigger after"
                f" {missing[0]} on {spec.name} for each statement that executes function b44.audit, in a file of triggers/"
            )
        if found and "audited" not in spec.options:
            path = next(iter(found.values())).path
            raise CatalogError(f"{path}:1: notes changes of {spec.name}, whose file lacks the header 'audited: yes'")


_WORD = re.compile(r"[a-z_][a-z0-9_]*")


def _lines_before(text: str, name: str) -> int:
    """On which line of a statement a name stands first, counted from 0."""
    match = re.search(rf"(?<![\w']){re.escape(name)}(?![\w'])", text, re.IGNORECASE)
    return text.count("\n", 0, match.start()) if match else 0


def in_order(specs: list[Spec]) -> tuple[Spec, ...]:
    """Each after what it depends on. A table's mapping belongs to the table's load, so it counts as the table's."""
    needs: dict[str, set[str]] = {}
    by_name: dict[str, list[Spec]] = {}
    for spec in specs:
        by_name.setdefault(spec.name, []).append(spec)
        needs.setdefault(spec.name, set()).update(set(spec.depends) | set(names_of(spec.options.get("on", ""))))
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
