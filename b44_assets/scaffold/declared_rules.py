"""What a schema declares of a column's values, as conditions in SQL: the one source of constraints, lists and reasons."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from b44_assets.scaffold.model import App, Column, ColumnType, Decision, ReferenceBy, Table
from b44_assets.scaffold.names import quoted
from b44_assets.scaffold.patterns import posix_pattern
from b44_assets.scaffold.sql_text import fitting, literal, wrapped

_NUMBERS = frozenset({ColumnType.NUMERIC, ColumnType.BIGINT})
_ARRAYS = frozenset({ColumnType.TEXT_ARRAY, ColumnType.UUID_ARRAY})


class RuleKind(StrEnum):
    """What a rule is about; the value ends the name of its constraint."""

    REQUIRED = "required"
    VALUES = "values"
    LENGTH = "length"
    RANGE = "range"
    PATTERN = "pattern"
    REFERENCE = "reference"


@dataclass(frozen=True)
class DeclaredRule:
    """What must hold for a column.

    Attributes:
        kind: What it is about.
        name: Of its constraint.
        column: The column.
        said: What is wrong with a value that breaks it, in a few words.
        holds: Told how the column is called, the condition of a CHECK, which null passes but for `required`; for a reference, the
            rest of a FOREIGN KEY.
        target: The table that a reference points at, or None.
    """

    kind: RuleKind
    name: str
    column: Column
    said: str
    holds: Callable[[str], str]
    target: str | None = None

    def broken(self, value: str, target_row: str = "r") -> str:
        """The condition under which a value breaks the rule; true or not true, never for a null but by `required`.

        Args:
            value: The value, in SQL.
            target_row: What to call the row that a reference looks for.
        """
        if self.kind is RuleKind.REQUIRED:
            return f"{value} is null"
        if self.kind is RuleKind.REFERENCE:
            assert self.target is not None
            table = quoted(self.target)
            return (
                f"{value} is not null and not exists (select from {table} {target_row} where {target_row}.id = {value})"
            )
        return f"not ({self.holds(value)})"


def rules_of(app: App, table: Table) -> tuple[DeclaredRule, ...]:
    """What is declared of a table's columns and can be held, references last."""
    partitioned = {one.name for one in app.tables if one.partitioned}
    known = {one.name for one in app.tables}
    of_values: list[DeclaredRule] = []
    references: list[DeclaredRule] = []
    for column in table.columns:
        if column.name == "id":
            continue
        of_values += [
            DeclaredRule(kind, fitting(f"chk_{table.name}_{column.name}_{kind.value}"), column, said, holds)
            for kind, said, holds in _of_values(column)
        ]
        pointed = column.reference
        if (
            pointed is not None
            and pointed.constrained
            and pointed.by is ReferenceBy.ID
            and column.type is ColumnType.UUID
            and pointed.table in known - partitioned
        ):
            target = pointed.table
            references.append(
                DeclaredRule(
                    RuleKind.REFERENCE,
                    fitting(f"fk_{table.name}_{column.name}"),
                    column,
                    f"no such row in {target}",
                    lambda name, target=target: f"foreign key ({name}) references {quoted(target)} (id)",
                    target,
                )
            )
    return (*of_values, *references)


_Condition = tuple[RuleKind, str, Callable[[str], str]]


def _of_values(column: Column) -> Iterator[_Condition]:
    if column.field.required:
        yield RuleKind.REQUIRED, "required", lambda name: f"{name} is not null"
    if (values := _values(column)) is not None:
        yield RuleKind.VALUES, "none of the values allowed", values
    limits = column.field.limits
    if (length := _bounds(limits, *_length_keys(column.type))) is not None:
        measure = "cardinality" if column.type in _ARRAYS else "char_length"
        yield RuleKind.LENGTH, "too long or too short", lambda name: length(f"{measure}({name})")
    if column.type in _NUMBERS and (within := _range(limits)) is not None:
        yield RuleKind.RANGE, "too great or too small", within
    pattern = limits.get("pattern")
    if column.type is ColumnType.TEXT and isinstance(pattern, str) and (posix := posix_pattern(pattern)) is not None:
        yield RuleKind.PATTERN, "not of the form", lambda name: f"{name} ~ {literal(posix)}"


def _values(column: Column) -> Callable[[str], str] | None:
    """The condition that a value is one of those listed; None where that cannot be said of the column's type."""
    listed = column.field.enum
    array = column.type is ColumnType.TEXT_ARRAY
    if array:
        listed = column.field.items.enum if column.field.items is not None else None
    if not listed:
        return None
    constants = [constant for value in listed if (constant := _constant(value, column.type)) is not None]
    # Blank is null here, which is none of them and passes.
    filled = [value for value in listed if value is not None and not (isinstance(value, str) and not value.strip())]
    if not constants or len(constants) != len(filled):
        return None
    constants = list(dict.fromkeys(constants))

    def holds(name: str) -> str:
        opening = f"{name} <@ array[" if array else f"{name} in ("
        if len(opening) + sum(len(one) + 2 for one in constants) <= 100:
            return opening + ", ".join(constants) + ("]" if array else ")")
        return f"{opening}\n        {wrapped(constants, first=8, indent=8)}\n      {']' if array else ')'}"

    return holds


def _constant(value: Any, kind: ColumnType) -> str | None:
    """A value of JSON as a constant that a column of a type can be compared with; None for a blank, or where it cannot be one."""
    if kind in _NUMBERS:
        return number(value) if kind is ColumnType.NUMERIC or _whole(value) else None
    if kind not in (ColumnType.TEXT, ColumnType.TEXT_ARRAY) or value is None or isinstance(value, list | dict):
        return None
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else number(value)
    return None if text is None or not text.strip() or "\0" in text else literal(text)


def number(value: Any) -> str | None:
    """A number of JSON as SQL has it, digits only; None where it is none."""
    if isinstance(value, bool) or not isinstance(value, int | float | Decimal):
        return None
    if isinstance(value, float) and not math.isfinite(value):
        return None
    given = Decimal(str(value))
    whole = given == given.to_integral_value() and abs(given) < 10**30
    return str(int(given)) if whole else format(given, "f")


def _whole(value: Any) -> bool:
    return number(value) is not None and Decimal(str(value)) == Decimal(str(value)).to_integral_value()


def _length_keys(kind: ColumnType) -> tuple[str, str]:
    if kind is ColumnType.TEXT:
        return "minLength", "maxLength"
    return ("minItems", "maxItems") if kind in _ARRAYS else ("", "")


def _bounds(limits: Any, least_key: str, most_key: str) -> Callable[[str], str] | None:
    least, most = (
        int(limits[key]) if key and _whole(limits.get(key)) and limits[key] >= 0 else None
        for key in (least_key, most_key)
    )
    if least == 0:
        least = None
    if least is not None and most is not None:
        return lambda name: f"{name} between {least} and {most}" if least < most else f"{name} = {least}"
    if least is not None:
        return lambda name: f"{name} >= {least}"
    return None if most is None else lambda name: f"{name} <= {most}"


def _range(limits: Any) -> Callable[[str], str] | None:
    """From `minimum`, `maximum` and the exclusive ones, which are numbers, or true beside the others in older schemas."""
    parts: list[tuple[str, str]] = []
    for key, exclusive_key, sign in (("minimum", "exclusiveMinimum", ">"), ("maximum", "exclusiveMaximum", "<")):
        exclusive = limits.get(exclusive_key)
        if (bound := number(limits.get(key))) is not None:
            parts.append((sign if exclusive is True else f"{sign}=", bound))
        if (bound := number(exclusive)) is not None:
            parts.append((sign, bound))
    if [sign for sign, _ in parts] == [">=", "<="]:
        return lambda name: f"{name} between {parts[0][1]} and {parts[1][1]}"
    return (lambda name: " and ".join(f"{name} {sign} {bound}" for sign, bound in parts)) if parts else None


def not_held(app: App) -> tuple[Decision, ...]:
    """What schemas declare and no constraint holds, a decision each."""
    decisions: list[Decision] = []
    for table in app.tables:
        held = {(rule.column.name, rule.kind) for rule in rules_of(app, table)}
        for column in table.columns:
            pattern = column.field.limits.get("pattern")
            if pattern is not None and (column.name, RuleKind.PATTERN) not in held:
                decisions.append(
                    Decision(
                        f"{table.name}.{column.name}",
                        "constraint",
                        "the pattern is not enforced",
                        f"PostgreSQL may read {pattern!r} otherwise than ECMAScript does, or the column is no text",
                    )
                )
            if column.field.enum and (column.name, RuleKind.VALUES) not in held:
                decisions.append(
                    Decision(
                        f"{table.name}.{column.name}",
                        "constraint",
                        "the list of values is not enforced",
                        f"not all of them are values of {column.type.value}",
                    )
                )
    return tuple(decisions)
