"""The folder `sql/` of an app: its tables, mappings, constraints, indexes, lists of unfit rows, and its views for old code."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import PurePath
from textwrap import fill
from typing import Any, Final

from jinja2 import Environment, PackageLoader, StrictUndefined

from b44_assets.catalog.references import FIELDS_OF_SOURCE
from b44_assets.exports.model import CREATOR_FIELDS
from b44_assets.exports.names import free_name
from b44_assets.scaffold.declared_rules import DeclaredRule, RuleKind, rules_of
from b44_assets.scaffold.defaults import column_default
from b44_assets.scaffold.lookup_indexes import lookup_indexes, search_indexes
from b44_assets.scaffold.model import (
    UPDATED,
    App,
    Column,
    ColumnType,
    Origin,
    ReferenceBy,
    Table,
)
from b44_assets.scaffold.names import quoted
from b44_assets.scaffold.sql_text import (
    LONGEST_LINE,
    fitting,
    line,
    literal,
    on_one_line,
    quoted_block,
    wrapped,
)

COMPAT: Final = "base44_compat"
"""The schema of the views for code that was written for Base44."""
_CREATED: Final = "created_date"


@dataclass(frozen=True)
class _Conversion:
    """How the text of a field becomes a value: the function, and the rule of the repair where it cannot."""

    function: str
    fault: str


_CONVERSIONS: Mapping[ColumnType, _Conversion] = {
    ColumnType.UUID_ARRAY: _Conversion("migration.as_uuid_array", "no_list_of_ids"),
    ColumnType.TEXT_ARRAY: _Conversion("migration.as_text_array", "no_list_of_texts"),
    ColumnType.NUMERIC: _Conversion("migration.as_numeric", "no_number"),
    ColumnType.BIGINT: _Conversion("migration.as_bigint", "no_integer"),
    ColumnType.BOOLEAN: _Conversion("migration.as_boolean", "no_boolean"),
    ColumnType.TIMESTAMPTZ: _Conversion("migration.as_timestamp", "no_timestamp"),
    ColumnType.DATE: _Conversion("migration.as_date", "no_date"),
    ColumnType.TIME: _Conversion("migration.as_time", "no_time"),
    ColumnType.JSONB: _Conversion("migration.as_jsonb", "no_json"),
}
"""Text and ids are as they are: any text is one."""
_CREATOR = _Conversion("migration.as_creator", "nobody")


def _conversion(column: Column) -> _Conversion | None:
    """How a column's text becomes its value; None where it is taken as it is."""
    if column.field.name in CREATOR_FIELDS and column.type in (ColumnType.TEXT, ColumnType.UUID):
        return _CREATOR
    return _CONVERSIONS.get(column.type)


def files_of(app: App) -> Mapping[PurePath, str]:
    """The files of an app's `sql/`, by their path within it.

    The order is that of the kinds and, within one, that of the app's tables; the same app gives the same text.
    """
    tables = [_TableFiles(app, table) for table in app.tables]
    files: dict[PurePath, str] = {}
    for kind, name, text in (
        *(("tables", one.name, one.table_file()) for one in tables),
        *(("mappings", one.name, one.mapping_file()) for one in tables),
        *(("partitions", f"{one.name}_partitions", one.partitions_file()) for one in tables),
        *(("indexes", f"{one.name}_lookup_indexes", one.indexes_file()) for one in tables),
        *(("constraints", f"{one.name}_constraints", one.constraints_file()) for one in tables),
        *(("constraints", f"{one.name}_circular_references", one.circular_references_file()) for one in tables),
        *(("checks", f"{one.name}_unfit_rows", one.check_file()) for one in tables),
        ("schemas", COMPAT, _compat_file(app, tables) if tables else None),
    ):
        if text is not None:
            files[PurePath(kind, f"{name}.sql")] = text
    return files


@cache
def _environment() -> Environment:
    # What is written is SQL: names and constants are quoted where they are put in.
    return Environment(loader=PackageLoader("b44_assets.scaffold"), undefined=StrictUndefined, autoescape=False)


def _rendered(template: str, **values: Any) -> str:
    text = _environment().get_template(f"{template}.sql.j2").render(list_of=_list_of, said=_said, **values)
    return text.rstrip("\n") + "\n"


def _said(text: str) -> str:
    """A comment, on as many lines as it needs; without a colon, since a line that begins with a word and one is a header."""
    return fill(text, LONGEST_LINE, initial_indent="-- ", subsequent_indent="-- ", break_long_words=False)


def _list_of(items: Sequence[str], empty: str) -> str:
    """Values of which the null ones are left out."""
    if not items:
        return empty
    joined = ",\n         ".join(items)
    return f"array_remove(array[\n         {joined}\n       ], null)"


def _call(function: str, *arguments: str) -> str:
    """A call in a list, on as many lines as it needs."""
    # Behind the call stands a comma.
    return f"{function}({wrapped(arguments, first=10 + len(function), indent=11, width=LONGEST_LINE - 2)})"


def _listed(names: Iterable[str]) -> str:
    """What a header lists, on as many lines as it needs."""
    return wrapped(names, first=12, indent=5).replace("\n     ", "\n--   ")


class _TableFiles:
    """The files of one table."""

    def __init__(self, app: App, table: Table) -> None:
        self.name = table.name
        self.sql_name = quoted(table.name)
        self.entity = table.entity.name
        self._app = app
        self._table = table
        # The header `fields` has no way to write such a name; what it holds goes to migration.unmapped.
        self.columns = [one for one in table.columns if _can_be_named(one.field.name)]
        self.rules = [rule for rule in rules_of(app, table) if rule.column in self.columns]
        self.other_ids = free_name("base44_ids", {one.name for one in self.columns})
        self._sources = _sources(self.columns)
        self._repeated = {fields: None for fields, _ in table.repeated}
        # Whether such a reference names a row is known after the load only: no record can be refused for it.
        circular = {rule.name for rule in self.rules if app.strict and _is_circular(rule, self.name)}
        self._circular = [rule for rule in self.rules if rule.name in circular]
        self._refusing = [rule for rule in self.rules if app.strict and rule.name not in circular]

    # -- table -----------------------------------------------------------------------------------------------------

    @cached_property
    def moment(self) -> str | None:
        """The column of when a record was made."""
        return next((one.name for one in self.columns if one.field.name == _CREATED), None)

    @property
    def _partitioned(self) -> bool:
        return self._table.partitioned and self.moment is not None

    def table_file(self) -> str:
        """Columns, defaults and comments."""
        lines = [self._column(one) for one in self.columns]
        lines.append(f"{quoted(self.other_ids)} jsonb")
        if self._partitioned:
            lines.append(f"primary key (id, {quoted(self.moment or '')})")
        said = line(self._table.entity.description, 200)
        partition = ", a partition for each month (UTC)" if self._partitioned else ""
        records = f"Records of {self.entity}{partition}"
        # On one line, which is the first of a header: two signs for the comment, a colon, and how it ends.
        about = line(self._table.entity.description, max(20, min(90, LONGEST_LINE - len(records) - 7)))
        return _rendered(
            "table",
            about=f"{records}{': ' + about if about else ''}{'' if about.endswith(('.', '…')) else '.'}",
            opened=self._app.opened,
            partitioned=self._partitioned,
            moment=quoted(self.moment or ""),
            first=None if self._table.first is None else f"{self._table.first:%Y-%m}",
            depends=_listed(name for name in self._table.after if name != self.name),
            table=self.sql_name,
            default_partition=quoted(f"{self.name}_default"),
            lines=lines,
            comment=literal(f"{said} (Base44: {self.entity})" if said else f"Base44: {self.entity}"),
            comments=[
                *((quoted(one.name), literal(_comment(one))) for one in self.columns),
                (quoted(self.other_ids), literal(_OTHER_IDS)),
            ],
            dated=None
            if (changed := self._table.changed) is None
            else {"table": literal(self.sql_name), "column": literal(changed)},
        )

    def _column(self, column: Column) -> str:
        text = f"{quoted(column.name)} {column.type.value}"
        if column.name == "id":
            return f"{text} {'not null' if self._partitioned else 'primary key'} default gen_random_uuid()"
        if column.field.name in (_CREATED, UPDATED) and column.type is ColumnType.TIMESTAMPTZ:
            return f"{text} not null default now()"
        default = column_default(column)
        return text if default is None else f"{text} default {default}"

    # -- mapping ---------------------------------------------------------------------------------------------------

    def mapping_file(self) -> str:
        """What becomes of a record."""
        return _rendered(
            "mapping",
            entity=self.entity,
            depends=_listed(_targets(self._refusing, self.name)),
            fields=_listed(self._sources[one.name].header for one in self.columns),
            columns=[
                "f.record_number",
                "f.base44_id",
                *(self._mapped(one) for one in self.columns),
                f"{self._ids()} as {quoted(self.other_ids)}",
            ],
            reasons=[
                "case when f.base44_id is null then 'missing_id' end",
                "case when f.superseded then 'duplicate_id' end",
                *self._refusals(),
            ],
            repairs=[*self._repairs()],
            conversions=[
                f"{conversion.function}({self._field(one)}) as {quoted(one.name)}"
                for one in self.columns
                if (conversion := _conversion(one)) is not None
            ],
            made_at=self._made_at() if {_CREATED, UPDATED} & {one.field.name for one in self.columns} else None,
            joins=[
                on_one_line(
                    f"left join {quoted(rule.target or '')} {self._row_of(rule)}",
                    f"on {self._row_of(rule)}.id = {self._value(rule.column)}",
                    indent=4,
                    beside=2,
                )
                for rule in self._refusing
                if rule.kind is RuleKind.REFERENCE
            ],
        )

    def _field(self, column: Column) -> str:
        return f"f.{quoted(self._sources[column.name].read_as)}"

    def _text(self, column: Column) -> str:
        """The text of a field that is a text or an id in the target."""
        return self._field(column) if _conversion(column) is None else f"v.{quoted(column.name)}"

    def _value(self, column: Column) -> str:
        """What stands in the target, in the words of the mapping."""
        if column.name == "id":
            return "base44_uuid(f.base44_id)"
        if column.field.name == _CREATED and column.type is ColumnType.TIMESTAMPTZ:
            return "c.made_at"
        if column.field.name == UPDATED and column.type is ColumnType.TIMESTAMPTZ:
            return f"coalesce(v.{quoted(column.name)}, c.made_at)"
        if column.type is ColumnType.UUID:
            return f"base44_uuid({self._text(column)})"
        return self._text(column)

    def _mapped(self, column: Column) -> str:
        value, name = self._value(column), quoted(column.name)
        return value if value.rpartition(".")[2] == name else f"{value} as {name}"

    def _made_at(self) -> str:
        times = {one.field.name: f"v.{quoted(one.name)}" for one in self.columns if one.type is ColumnType.TIMESTAMPTZ}
        given = [
            *([times[_CREATED]] if _CREATED in times else []),
            "migration.object_id_time(f.base44_id)",
            *([times[UPDATED]] if UPDATED in times else []),
            "f.exported_at",
        ]
        return f"coalesce({', '.join(given)})"

    def _ids(self) -> str:
        """The ids of a record that cannot be read back from their UUIDs."""
        single = [
            "f.base44_id",
            *(self._text(one) for one in self.columns if one.type is ColumnType.UUID and one.name != "id"),
        ]
        several = [
            f"migration.as_text_array({self._field(one)})" for one in self.columns if one.type is ColumnType.UUID_ARRAY
        ]
        # Behind the last one stands what the column is called.
        width = LONGEST_LINE - len(f"]) as {quoted(self.other_ids)},")
        arrays = [f"array[{wrapped(single, first=33, indent=9, width=width)}]", *several]
        fits = "\n" not in arrays[0] and sum(len(one) + 4 for one in arrays) + 39 <= LONGEST_LINE
        return f"migration.other_ids({(' || ' if fits else _NEXT_ARRAY).join(arrays)})"

    def _repairs(self) -> Iterator[str]:
        """Values that their types cannot hold, and what jsonb does not keep of a text."""
        for column in self.columns:
            conversion = _conversion(column)
            # Where records are refused for what their schema does not let in, words for nobody are still no name.
            if conversion is None or (self._app.strict and conversion is not _CREATOR):
                continue
            field, value, name = self._field(column), f"v.{quoted(column.name)}", literal(column.name)
            fault = literal(conversion.fault)
            if column.field.name in (_CREATED, UPDATED) and column.type is ColumnType.TIMESTAMPTZ:
                # The times that every row has are made of others then.
                lost = f"{field} is not null and {value} is null"
                yield _call("migration.repair", lost, name, fault, field, "c.made_at::text")
            else:
                yield _call("migration.unfit", field, f"{value} is null", name, fault)
            if column.type is ColumnType.JSONB:
                lost = f"migration.repeats_keys({field}, {value})"
                yield _call("migration.repair", lost, name, "'repeated_key'", field, f"{value}::text")

    def _row_of(self, rule: DeclaredRule) -> str:
        return quoted(f"{rule.column.name}_row")

    def _refusals(self) -> Iterator[str]:
        if not self._app.strict:
            return
        for column in self.columns:
            name = column.name
            if _conversion(column) not in (None, _CREATOR):
                field = self._field(column)
                yield _when(f"{field} is not null and v.{quoted(name)} is null", f"invalid:{name}")
            for rule in (rule for rule in self._refusing if rule.column is column):
                value = self._value(column)
                if rule.kind is RuleKind.REQUIRED:
                    yield _when(f"{self._field(column)} is null", f"missing_{name}")
                elif rule.kind is RuleKind.REFERENCE:
                    row = self._row_of(rule)
                    yield _when(f"{self._text(column)} is not null and {row}.id is null", f"orphan_{name}")
                else:
                    yield _when(rule.broken(value), f"invalid:{name}")

    # -- what stands on the table ----------------------------------------------------------------------------------

    def partitions_file(self) -> str | None:
        """What makes the partitions."""
        return _rendered("partitions", name=self.name) if self._partitioned else None

    def constraints_file(self) -> str | None:
        """What new rows must be."""
        about = f"What rows of {self.name} must be, as the app's schema declares it."
        if not self._app.strict:
            return self._constraints(about + _KEPT, self.rules, listed=True)
        return self._constraints(about, self._refusing, listed=False)

    def circular_references_file(self) -> str | None:
        """What references of new rows must name, where no record is refused for those that name none."""
        about = f"References of {self.name} to itself, or to a table that is loaded after it."
        return self._constraints(about + _KEPT, self._circular, listed=True)

    def _constraints(self, about: str, rules: Sequence[DeclaredRule], *, listed: bool) -> str | None:
        if not rules:
            return None
        constraints: list[dict[str, str]] = []
        for rule in rules:
            rest = rule.holds(quoted(rule.column.name))
            constraints.append(
                {
                    "unless": self._unless_there(rule.name),
                    "added": on_one_line(
                        f"alter table {self.sql_name}", f"add constraint {rule.name}", indent=6, beside=4
                    ),
                    "rest": rest,
                    "quote": quoted_block(rest),
                }
            )
        return _rendered(
            "constraints",
            about=about,
            name=self.name,
            depends=_listed(_targets(rules, self.name)),
            listed=listed,
            constraints=constraints,
        )

    def _unless_there(self, constraint: str) -> str:
        query = "select from pg_constraint"
        condition = f"where conrelid = {literal(self.sql_name)}::regclass and conname = {literal(constraint)}"
        short = f"if not exists ({query} {condition}) then"
        if len(short) + 2 <= LONGEST_LINE:
            return short
        broken = condition.replace(" and conname", "\n       and conname")
        return f"if not exists (\n    {query}\n     {broken}\n  ) then"

    def check_file(self) -> str | None:
        """The rows that are not what is declared and are kept; None where all are known to be."""
        # Where records are refused, what pointed at one of them points at nothing, whatever the export has.
        unsure = self._circular if self._app.strict else [rule for rule in self.rules if not _known_to_hold(rule)]
        members = [one for one in self.columns if self._may_dangle(one)]
        repeated = [*self._repetitions()]
        if not unsure and not members and not repeated:
            return None
        pointed = [*(rule.target for rule in unsure), *(one.reference.table for one in members if one.reference)]
        return _rendered(
            "check",
            name=self.name,
            table=self.sql_name,
            key=self._original("id"),
            depends=_listed(dict.fromkeys(one for one in pointed if one not in (None, self.name))),
            lists=_listed(rule.name for rule in unsure),
            rules=[
                _row(
                    literal(rule.column.name),
                    self._shown(rule),
                    literal(rule.said),
                    broken=rule.broken("t." + quoted(rule.column.name)),
                )
                for rule in unsure
            ]
            + [self._dangling_members(one) for one in members]
            + repeated,
        )

    def _may_dangle(self, column: Column) -> bool:
        """Whether a column is an array of ids, some of which may name no row: no foreign key can hold them."""
        reference, counts = column.reference, column.counts
        if reference is None or reference.by is not ReferenceBy.IDS or column.type is not ColumnType.UUID_ARRAY:
            return False
        dangling = counts is None or counts.dangling > 0 or self._app.strict
        return dangling and reference.table in {one.name for one in self._app.tables}

    def _dangling_members(self, column: Column) -> str:
        """What lists the rows with an array of ids of which some name no row."""
        assert column.reference is not None
        name, target = quoted(column.name), quoted(column.reference.table)
        missing = (
            f"from unnest(t.{name}) as m (id)\n        where not exists (select from {target} r where r.id = m.id)"
        )
        others = f"t.{quoted(self.other_ids)}"
        return (
            f"({literal(column.name)}, (\n       select string_agg(b44.original_id(m.id, {others}), ', ') {missing}),\n"
            f"     {literal('no such row in ' + column.reference.table)},\n     exists (\n       select {missing}))"
        )

    def _repetitions(self) -> Iterator[str]:
        """What lists the rows that have a key which the schema calls unique, and others have, too."""
        by_field = {one.field.name: one for one in self.columns}
        for fields in self._repeated:
            columns = [by_field[name] for name in fields if name in by_field]
            if len(columns) == len(fields):
                names = [quoted(one.name) for one in columns]
                same = "\n          and ".join((*(f"r.{name} = t.{name}" for name in names), "r.id <> t.id"))
                shown = [one for one in columns if not one.secret]
                values = [f"t.{quoted(one.name)}" for one in shown]
                value = (
                    f"concat_ws(', ', {', '.join(values)})"
                    if len(shown) > 1
                    else _as_text(shown[0])
                    if shown
                    else "null"
                )
                yield _row(
                    literal(", ".join(one.name for one in columns)),
                    value,
                    "'not unique'",
                    broken=f"exists (\n       select from {self.sql_name} r\n        where {same})",
                )

    def _shown(self, rule: DeclaredRule) -> str:
        if rule.kind is RuleKind.REQUIRED or rule.column.secret:
            return "null"
        if rule.kind is RuleKind.REFERENCE:
            return self._original(rule.column.name)
        return _as_text(rule.column)

    def _original(self, column: str) -> str:
        return f"b44.original_id(t.{quoted(column)}, t.{quoted(self.other_ids)})"

    def indexes_file(self) -> str | None:
        """What rows are found by."""
        indexes = lookup_indexes(self._app, self._table, self.columns, self.moment, partitioned=self._partitioned)
        searches = search_indexes(self._table, self.columns)
        if not indexes and not searches:
            return None
        listed = not self._app.strict and any(one.unique for one in indexes)
        return _rendered("indexes", name=self.name, listed=listed, indexes=indexes, searches=searches)

    # -- for old code ----------------------------------------------------------------------------------------------

    def view(self) -> dict[str, Any]:
        """The view of the entity as it was."""
        others = f"t.{quoted(self.other_ids)}"
        shown: dict[str, str] = {}
        for column in self.columns:
            name = quoted(column.name)
            value = {
                ColumnType.UUID: f"b44.original_id(t.{name}, {others})",
                ColumnType.UUID_ARRAY: f"b44.original_ids(t.{name}, {others})",
            }.get(column.type, f"t.{name}")
            alias = free_name(fitting(column.field.name), shown)
            shown[alias] = value if value == f"t.{quoted(alias)}" else f"{value} as {quoted(alias)}"
        return {
            "name": quoted(fitting(self.entity)),
            "columns": [*shown.values()],
            "table": self.sql_name,
            "comment": on_one_line(
                f"comment on view {COMPAT}.{quoted(fitting(self.entity))} is",
                literal(f"{self.entity} of Base44; its rows are those of {self.name}") + ";",
                indent=2,
            ),
        }


_KEPT = " Rows of Base44 that are otherwise are kept, and listed by the table's checks; new ones are refused."
_NEXT_ARRAY = "\n           || "
_OTHER_IDS = "Ids of this row that cannot be read back from their UUIDs, by UUID; null for most rows"


def _compat_file(app: App, tables: Sequence[_TableFiles]) -> str:
    return _rendered(
        "compat",
        about=f"Every entity of {line(app.name, 40)} under the name that it had in Base44, with its old field names, ids and values."
        " A view shows whoever reads it only what the policies of its table do.",
        depends=_listed(one.name for one in tables),
        views=[one.view() for one in sorted(tables, key=lambda one: one.entity)],
    )


def _when(condition: str, reason: str) -> str:
    """A reason for which a record is refused, in the list of them; null where it does not apply."""
    start, rest = f"case when {condition}", f"then {literal(reason)} end"
    if len(start) + 9 > LONGEST_LINE:
        start = start.replace(" is not null and ", " is not null\n            and ")
    return on_one_line(start, rest, indent=11, beside=10)


def _row(*values: str, broken: str) -> str:
    """What a list of unfit rows says of one rule, and when it does."""
    return f"({wrapped((*values, ''), first=4, indent=5).rstrip()}\n     {broken})"


def _as_text(column: Column) -> str:
    """The value of a column of the listed row, as text."""
    name = f"t.{quoted(column.name)}"
    return name if column.type is ColumnType.TEXT else f"{name}::text"


def _is_circular(rule: DeclaredRule, table: str) -> bool:
    reference = rule.column.reference
    return rule.target is not None and (rule.target == table or (reference is not None and reference.cyclic))


def _targets(rules: Iterable[DeclaredRule], table: str) -> Iterable[str]:
    """The other tables that rules of a table point at, each once."""
    return dict.fromkeys(rule.target for rule in rules if rule.target is not None and rule.target != table)


def _known_to_hold(rule: DeclaredRule) -> bool:
    """Whether the export was looked at, and every record in it honours a rule."""
    column, counts = rule.column, rule.column.counts
    if counts is None:
        return False
    if column.fits:
        return True
    if rule.kind is RuleKind.REQUIRED:
        # A value that the type cannot hold is null in the table.
        return counts.missing + counts.unfit == 0
    return counts.found >= counts.filled if rule.kind is RuleKind.REFERENCE else counts.outside == 0


@dataclass(frozen=True)
class _Source:
    """A field in a mapping: how the header `fields` names it, and under which name the mapping reads it."""

    header: str
    read_as: str


def _sources(columns: Sequence[Column]) -> dict[str, _Source]:
    """By column. A field whose name needs quotes is read under that of its column, where no other field has that."""
    exported = {one.field.name for one in columns}
    taken = exported | FIELDS_OF_SOURCE
    found: dict[str, _Source] = {}
    for column in columns:
        name = column.field.name
        if column.name == "id":
            found[column.name] = _Source("id", "base44_id")
        elif name not in FIELDS_OF_SOURCE and fitting(name) == name and name in (quoted(name), column.name):
            found[column.name] = _Source(name, name)
        else:
            alias = column.name if column.name not in taken else free_name(f"{column.name}_field", taken)
            taken.add(alias)
            found[column.name] = _Source(f"{alias}|{name}", alias)
    return found


def _can_be_named(field: str) -> bool:
    return bool(field) and not set(field) & set(",|\n\r\0") and field == " ".join(field.split())


def _comment(column: Column) -> str:
    """What a column is, and the field that it comes from."""
    field = f"Base44: {line(column.field.name)}"
    if column.name == "id":
        return "Identifier; made from the Base44 id for migrated records"
    said = line(column.field.description, 300)
    if not said and column.field.origin is Origin.BUILT_IN:
        said = _BUILT_IN.get(column.field.name, "")
    if column.reference is not None and not said:
        said = {
            ReferenceBy.ID: f"{column.reference.table}.id",
            ReferenceBy.IDS: f"Each one of {column.reference.table}.id",
            ReferenceBy.EMAIL: f"E-mail address of one of {column.reference.table}",
        }[column.reference.by]
    if column.field.origin is Origin.EXPORT:
        field += ", in no schema"
    return f"{said.rstrip('.')} ({field})" if said else field


_BUILT_IN: Mapping[str, str] = {
    _CREATED: "When the record was made",
    UPDATED: "When the record last changed",
    "created_by": "Who made it: an e-mail address as a rule",
    "created_by_id": "Who made it: the id of a user, a service or a visitor",
    "is_sample": "Whether Base44 made it up as an example",
    "email": "E-mail address by which the user signed in",
    "full_name": "Name that is shown of the user",
    "role": "What the user may do, as the app's rules compare it",
    "is_verified": "Whether the e-mail address was confirmed",
    "disabled": "Whether the user was kept from signing in",
}
