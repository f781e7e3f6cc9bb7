"""What a schema declares of a column's values, as conditions in SQL: the one source of constraints, lists and reasons."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from enum import StrEnum
from typing import Any

from b44_assets.scaffold.model import App, Column, ColumnType, Decision, ReferenceBy, Table
from b44_assets.scaffold.names import quoted
from b44_assets.scaffold.patterns import posix_pattern
from b44_assets.scaffold.sql_text import LONGEST_LINE, fitting, literal, wrapped
from b44_assets.wording import plural

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


_OPPOSITES = {
    ">=": "<",
    "<=": ">",
    ">": "<=",
    "<": ">=",
    "=": "<>",
    "~": "!~",
    "in": "not in",
    "between": "not between",
    "is not null": "is null",
}


@dataclass(frozen=True)
class Comparison:
    """What a value is compared with; null passes every one but `is not null`.

    Attributes:
        operator: In SQL.
        operand: What stands behind it, which may be nothing.
        measure: The function of the value that is compared, or nothing.
        listed: Constants that stand in the operand between its first and its last sign, on as many lines as they need.
    """

    operator: str
    operand: str = ""
    measure: str = ""
    listed: tuple[str, ...] = ()

    def holds(self, value: str) -> str:
        """The condition in SQL."""
        return self._written(value, self.operator)

    def broken(self, value: str) -> str:
        """Its opposite, which null does not meet but that of `is not null`."""
        opposite = _OPPOSITES.get(self.operator)
        return f"not ({self.holds(value)})" if opposite is None else self._written(value, opposite)

    def _written(self, value: str, operator: str) -> str:
        start = f"{self.measure}({value}) {operator}" if self.measure else f"{value} {operator}"
        if not self.listed:
            return f"{start} {self.operand}" if self.operand else start
        opening, closing = f"{start} {self.operand[:-1]}", self.operand[-1]
        if len(opening) + sum(len(one) + 2 for one in self.listed) <= _LONGEST_LIST:
            return opening + ", ".join(self.listed) + closing
        return f"{opening}\n        {wrapped(self.listed, first=8, indent=8)}\n      {closing}"


_LONGEST_LIST = 100
_LONGEST_CONDITION = LONGEST_LINE - 7
"""What stands before and behind it in a list of unfit rows left out."""


@dataclass(frozen=True)
class DeclaredRule:
    """What must hold for a column.

    Attributes:
        kind: What it is about.
        name: Of its constraint.
        column: The column.
        said: What is wrong with a value that breaks it, in a few words.
        comparisons: What all have to hold for its values; none for a reference.
        target: The table that a reference points at, or None.
    """

    kind: RuleKind
    name: str
    column: Column
    said: str
    comparisons: tuple[Comparison, ...] = ()
    target: str | None = None

    def holds(self, name: str) -> str:
        """The rest of a constraint's definition, told how the column is called."""
        if self.target is not None:
            return f"foreign key ({name}) references {quoted(self.target)} (id)"
        return f"check ({' and '.join(one.holds(name) for one in self.comparisons)})"

    def broken(self, value: str, target_row: str = "r") -> str:
        """The condition under which a value breaks the rule; true or not true, never for a null but by `required`.

        Args:
            value: The value, in SQL.
            target_row: What to call the row that a reference looks for.
        """
        if self.target is not None:
            missing = f"not exists (select from {quoted(self.target)} {target_row} where {target_row}.id = {value})"
            whole = f"{value} is not null and {missing}"
            return whole if len(whole) <= _LONGEST_CONDITION else f"{value} is not null\n     and {missing}"
        return " or ".join(one.broken(value) for one in self.comparisons)


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
            DeclaredRule(kind, fitting(f"chk_{table.name}_{column.name}_{kind.value}"), column, said, comparisons)
            for kind, said, comparisons in _of_values(column)
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
                    target=target,
                )
            )
    return (*of_values, *references)


def kinds_held(column: Column) -> frozenset[RuleKind]:
    """What a column's values are held to by constraints; references are left aside."""
    return frozenset(kind for kind, _, _ in _of_values(column))


_Condition = tuple[RuleKind, str, tuple[Comparison, ...]]


def _of_values(column: Column) -> Iterator[_Condition]:
    if column.field.required:
        yield RuleKind.REQUIRED, "required", (Comparison("is not null"),)
    if (values := _values(column)) is not None:
        yield RuleKind.VALUES, "none of the values allowed", (values,)
    limits = column.field.limits
    measure = "cardinality" if column.type in _ARRAYS else "char_length"
    if (length := _bounds(limits, *_length_keys(column.type), measure)) is not None:
        yield RuleKind.LENGTH, "too long or too short", (length,)
    if column.type in _NUMBERS and (within := _range(limits)):
        yield RuleKind.RANGE, "too great or too small", within
    pattern = limits.get("pattern")
    if column.type is ColumnType.TEXT and isinstance(pattern, str) and (posix := posix_pattern(pattern)) is not None:
        yield RuleKind.PATTERN, "not of the form", (Comparison("~", literal(posix)),)


def _values(column: Column) -> Comparison | None:
    """That a value is one of those listed; None where that cannot be said of the column's type."""
    listed = column.field.enum
    array = column.type is ColumnType.TEXT_ARRAY
    if array:
        listed = column.field.items.enum if column.field.items is not None else None
    if not listed:
        return None
    # A blank of the export is null, which passes; one that is listed, and may be the default, can be written all the same.
    filled = [value for value in listed if value is not None and (column.type not in _NUMBERS or not _is_blank(value))]
    constants = [constant for value in filled if (constant := _constant(value, column.type)) is not None]
    if all(map(_is_blank, filled)) or len(constants) != len(filled):
        return None
    listed = tuple(dict.fromkeys(constants))
    return Comparison("<@", "array[]", listed=listed) if array else Comparison("in", "()", listed=listed)


def _constant(value: Any, kind: ColumnType) -> str | None:
    """A value of JSON as a constant that a column of a type can be compared with; None where it cannot be one."""
    if kind in _NUMBERS:
        return number(value) if kind is ColumnType.NUMERIC or _whole(value) else None
    if kind not in (ColumnType.TEXT, ColumnType.TEXT_ARRAY) or value is None or isinstance(value, list | dict):
        return None
    text = value if isinstance(value, str) else str(value).lower() if isinstance(value, bool) else number(value)
    return None if text is None or "\0" in text else literal(text)


def _is_blank(value: Any) -> bool:
    return isinstance(value, str) and not value.strip()


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


def _bounds(limits: Any, least_key: str, most_key: str, measure: str) -> Comparison | None:
    least, most = (
        int(limits[key]) if key and _whole(limits.get(key)) and limits[key] >= 0 else None
        for key in (least_key, most_key)
    )
    if least == 0:
        least = None
    if least is not None and most is not None and least != most:
        return Comparison("between", f"{least} and {most}", measure)
    if least is not None:
        return Comparison("=" if least == most else ">=", str(least), measure)
    return None if most is None else Comparison("<=", str(most), measure)


def _range(limits: Any) -> tuple[Comparison, ...]:
    """From `minimum`, `maximum` and the exclusive ones, which are numbers, or true beside the others in older schemas."""
    parts: list[Comparison] = []
    for key, exclusive_key, sign in (("minimum", "exclusiveMinimum", ">"), ("maximum", "exclusiveMaximum", "<")):
        exclusive = limits.get(exclusive_key)
        if (bound := number(limits.get(key))) is not None:
            parts.append(Comparison(sign if exclusive is True else f"{sign}=", bound))
        if (bound := number(exclusive)) is not None:
            parts.append(Comparison(sign, bound))
    if [one.operator for one in parts] == [">=", "<="]:
        return (Comparison("between", f"{parts[0].operand} and {parts[1].operand}"),)
    return tuple(parts)


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
                        doubtful=True,
                    )
                )
            if column.field.enum and (column.name, RuleKind.VALUES) not in held:
                decisions.append(
                    Decision(
                        f"{table.name}.{column.name}",
                        "constraint",
                        "the list of values is not enforced",
                        f"not all of them are values of {column.type.value}",
                        doubtful=True,
                    )
                )
            if limits := limits_not_held(column):
                decisions.append(
                    Decision(
                        f"{table.name}.{column.name}",
                        "constraint",
                        f"the {plural(len(limits), 'limit is', 'limits are')} not enforced: {', '.join(limits)}",
                        f"a column of type {column.type.value} is not held to it",
                        doubtful=True,
                    )
                )
    return tuple(decisions)


def limits_not_held(column: Column) -> list[str]:
    """Names of the limits that no constraint of a column holds, though they forbid something."""
    held = kinds_held(column)
    covered = {"pattern", *(_length_keys(column.type) if RuleKind.LENGTH in held else ())}
    covered |= {
        key for key in column.field.limits if key.lower().endswith(("minimum", "maximum")) and RuleKind.RANGE in held
    }
    return sorted(
        key
        for key, bound in column.field.limits.items()
        if key not in covered and bound is not False and not (key in ("minLength", "minItems") and bound == 0)
    )
