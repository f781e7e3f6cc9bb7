"""The byte forms of a Base44 export: what a record looks like in each dialect.

The first three are what the dashboard wrote at different times, `spreadsheet` is such a file saved again by hand, and
`json` and `jsonl` hold what the API returns.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from enum import Enum
from typing import Any, Final, Protocol, TypeAlias


class Absent(Enum):
    """A field that the record does not have at all, which is not the same as a null."""

    UNDEFINED = "undefined"


UNDEFINED: Final = Absent.UNDEFINED

# What a field of a record may hold, by the type that Base44 stores; dates are text there, too.
Value: TypeAlias = str | int | bool | list[str] | dict[str, Any] | Absent | None
# A record: field to value, in the order of the export's columns.
Record: TypeAlias = dict[str, Value]

DIALECTS: Final = ("2025-06", "2025-08", "2026-06", "spreadsheet", "json", "jsonl")

# A cell that begins like a formula is guarded by the dashboard of 2026.
_FORMULA_STARTS = ("=", "+", "-", "@")

_SERVER_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d{6})?")

_compact = json.JSONEncoder(ensure_ascii=False, separators=(",", ":")).encode
_spaced_ascii = json.JSONEncoder().encode
_spaced = json.JSONEncoder(ensure_ascii=False).encode


class Form(Protocol):
    """How the records of one file are written.

    Attributes:
        opening: Text before the first record.
        separator: Text between two records.
        closing: Text after the last record.
        empty: The whole text of a file without records, which has neither opening nor closing.
    """

    opening: str
    separator: str
    closing: str
    empty: str

    def encode(self, record: Record) -> str:
        """The text of one record.

        Args:
            record: The record, with the file's columns in their order.
        """
        ...


def _json_text(value: list[str] | dict[str, Any]) -> str:
    # Arrays came out spaced and in ASCII, objects compact and in UTF-8, in every dashboard export seen.
    return _spaced_ascii(value) if isinstance(value, list) else _compact(value)


def _is_server_time(value: Value) -> bool:
    """Whether a value has the form in which Base44 itself writes a time: `2026-03-26T23:25:53[.950000]`."""
    # The cheap tests come first: nearly all text fails them.
    return (
        isinstance(value, str)
        and len(value) in (19, 26)
        and value[10] == "T"
        and _SERVER_TIME.fullmatch(value) is not None
    )


class DashboardCsv:
    """A CSV file of the dashboard: every cell quoted, LF between records and none at the end."""

    separator = "\n"
    closing = ""
    empty = ""

    def __init__(self, columns: Sequence[str], dialect: str) -> None:
        """Prepares a file.

        Args:
            columns: The columns of the file, in order.
            dialect: `2025-06`, `2025-08` or `2026-06`.
        """
        self._null, self._undefined = ("null", "undefined") if dialect == "2025-06" else ("", "")
        self._doubled = dialect == "2025-06"
        self._guarded = dialect == "2026-06"
        self.opening = ('"' + '","'.join(columns) + '"' if dialect == "2026-06" else ",".join(columns)) + self.separator

    def encode(self, record: Record) -> str:
        """The text of one record, without its line end."""
        return '"' + '","'.join([self._cell(value) for value in record.values()]) + '"'

    def _cell(self, value: Value) -> str:
        if isinstance(value, str):
            text = value
        elif value is None:
            text = self._null
        elif isinstance(value, bool):
            text = "true" if value else "false"
        elif isinstance(value, int):
            text = str(value)
        elif isinstance(value, Absent):
            text = self._undefined
        else:
            text = _json_text(value)
            if self._doubled:
                text = text.replace('"', '""')
        if self._guarded and text.startswith(_FORMULA_STARTS):
            text = "'" + text
        return text.replace('"', '""')


class SpreadsheetCsv:
    """A CSV file as a spreadsheet saves it.

    It has a byte order mark and CRLF, quotes only where they are needed, `TRUE` and `FALSE`, whole seconds, and rows
    that end with their last filled cell.
    """

    separator = "\r\n"
    closing = "\r\n"
    empty = ""

    def __init__(self, columns: Sequence[str]) -> None:
        """Prepares a file with these columns, in order."""
        self.opening = "\ufeff" + ",".join(columns) + self.separator

    def encode(self, record: Record) -> str:
        """The text of one record, without its line end."""
        return ",".join([self._cell(value) for value in record.values()]).rstrip(",")

    @staticmethod
    def _cell(value: Value) -> str:
        if isinstance(value, str):
            text = value[:10] + " " + value[11:19] if _is_server_time(value) else value
        elif value is None or isinstance(value, Absent):
            return ""
        elif isinstance(value, bool):
            return "TRUE" if value else "FALSE"
        elif isinstance(value, int):
            return str(value)
        else:
            text = _json_text(value)
        if "," in text or '"' in text or "\n" in text or "\r" in text:
            return '"' + text.replace('"', '""') + '"'
        return text


class ApiJson:
    """Records as the API returns them: real types, and `Z` after the times in fields that end in `_at`."""

    def __init__(self, columns: Sequence[str], *, lines: bool) -> None:
        """Prepares a file.

        Args:
            columns: The columns of the file.
            lines: One object a line instead of one array.
        """
        self._zoned = [column for column in columns if column.endswith("_at")]
        self.opening, self.separator, self.closing = ("", "\n", "\n") if lines else ("[", ", ", "]")
        self.empty = "" if lines else "[]"

    def encode(self, record: Record) -> str:
        """The text of one record; a field that the record does not have is left out."""
        present = {name: value for name, value in record.items() if value is not UNDEFINED}
        for name in self._zoned:
            value = present.get(name)
            if _is_server_time(value):
                present[name] = f"{value}Z"
        return _spaced(present)


def form_of(dialect: str, columns: Sequence[str]) -> Form:
    """How an entity with these columns is written in a dialect.

    Args:
        dialect: One of `DIALECTS`.
        columns: The columns of the entity, in order.
    """
    if dialect == "spreadsheet":
        return SpreadsheetCsv(columns)
    if dialect in ("json", "jsonl"):
        return ApiJson(columns, lines=dialect == "jsonl")
    return DashboardCsv(columns, dialect)


def file_name(dialect: str, entity: str) -> str:
    """The name of an entity's file in a dialect: `<Entity>_export.csv`, `<Entity>.json` or `<Entity>.jsonl`."""
    return f"{entity}.{dialect}" if dialect in ("json", "jsonl") else f"{entity}_export.csv"
