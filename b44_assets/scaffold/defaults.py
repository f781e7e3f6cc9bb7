"""The defaults of schemas as those of columns: as SQL, and those that a column cannot have."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import date, datetime
from typing import Any

from b44_assets.scaffold.declared_rules import number
from b44_assets.scaffold.model import ABSENT, App, Column, ColumnType, Decision, Field
from b44_assets.scaffold.patterns import posix_pattern
from b44_assets.scaffold.sql_text import line, literal


def column_default(column: Column) -> str | None:
    """The schema's default as SQL; None where there is none, or it is none of the column's type or of its values."""
    default = column.field.default
    if default is ABSENT or default is None or not _allowed(column.field, default):
        return None
    kind = column.type
    if kind in (ColumnType.TEXT, ColumnType.DATE, ColumnType.TIMESTAMPTZ) and isinstance(default, str):
        if "\0" in default or (kind is not ColumnType.TEXT and not _is_moment(default, kind)):
            return None
        return literal(default)
    if kind is ColumnType.BOOLEAN and isinstance(default, bool):
        return str(default).lower()
    if kind in (ColumnType.NUMERIC, ColumnType.BIGINT):
        given = number(default)
        return None if given is None or (kind is ColumnType.BIGINT and not given.lstrip("-").isdigit()) else given
    if kind is ColumnType.TEXT_ARRAY and isinstance(default, list):
        items: list[Any] = default
        if any(not isinstance(item, str) or "\0" in item for item in items):
            return None
        return f"array[{', '.join(map(literal, items))}]" if items else "'{}'"
    if kind is ColumnType.JSONB and isinstance(default, list | dict):
        text = json.dumps(default, ensure_ascii=False)
        return None if "\\u0000" in text else literal(text)
    return None


def without_default(app: App) -> tuple[Decision, ...]:
    """The defaults of schemas that columns do not have, a decision each; a blank one is none."""
    decisions: list[Decision] = []
    for table in app.tables:
        for column in table.columns:
            given = column.field.default
            if given is ABSENT or given is None or given == "" or column_default(column) is not None:
                continue
            shown = line(json.dumps(given, ensure_ascii=False, default=str), 60)
            fits = _allowed(column.field, given)
            why = f"can be none of {column.type.value}" if fits else "is none that the schema allows"
            decisions.append(
                Decision(
                    f"{table.name}.{column.name}",
                    "constraint",
                    "has no default",
                    f"the schema's, {'(not shown)' if column.secret else shown}, {why}",
                    doubtful=True,
                )
            )
    return tuple(decisions)


def _allowed(field: Field, value: Any) -> bool:
    """Whether a default honours what is declared beside it: a new row would be refused for it otherwise."""
    if field.enum is not None and value not in field.enum:
        return False
    limits = field.limits
    if isinstance(value, str):
        pattern = limits.get("pattern")
        held = isinstance(pattern, str) and posix_pattern(pattern) is not None
        return not held and limits.get("minLength", 0) <= len(value) <= limits.get("maxLength", len(value))
    return not any(key.lower().endswith(("minimum", "maximum")) for key in limits) or _within(value, limits)


def _within(value: Any, limits: Mapping[str, Any]) -> bool:
    if number(value) is None or any(number(bound) is None for key, bound in limits.items() if "imum" in key):
        return False
    return limits.get("minimum", value) <= value <= limits.get("maximum", value) and not any(
        key.startswith("exclusive") for key in limits
    )


def _is_moment(text: str, kind: ColumnType) -> bool:
    try:
        return bool(date.fromisoformat(text) if kind is ColumnType.DATE else datetime.fromisoformat(text).tzinfo)
    except ValueError:
        return False
