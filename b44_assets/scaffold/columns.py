"""Types of columns: from the schema, confirmed on the export's cells.

The rules:

- A text is `text`, of format `date-time` `timestamptz`, `date` `date`, `time` `time`; a number `numeric`, which loses nothing; an
  integer `bigint`; a boolean `boolean`; an array of texts `text[]`; any other array or object `jsonb`; a field without a type `text`.
- Of several types: numbers and integers are `numeric`; arrays and objects `jsonb`, also with numbers and booleans; any other
  mixture is `text`, as exported.
- Where not all cells of the export fit, the next wider type that they all fit is taken: an integer that has fractions is `numeric`, a
  date that has times of day `timestamptz`, an array of texts that holds others `jsonb`.
- A type stays for a few cells that do not fit, each of which is nulled and kept as a repair. Where more than `MOST_UNFIT` of them do
  not, the column is `text`, as exported: the schema is wrong then, and not the data.
- Without a schema everything is `text`, but what is recognised as dates: every cell has to be one.

What fits is what the database's `migration.as_…` functions take.
"""

from __future__ import annotations

import json
import re
from calendar import monthrange
from collections.abc import Callable, Mapping
from decimal import Decimal
from types import MappingProxyType
from typing import Any, Final, NoReturn

from b44_assets.exports.text import UNSTORABLE
from b44_assets.scaffold.model import ColumnType, Field, Origin

MOST_UNFIT: Final = 0.25
"""Share of the filled cells that may not fit a column's type."""

_SPACE: Final = " \t\r\n"
_TIMESTAMP: Final = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>[0-9]{2})-(?P<day>[0-9]{2})"
    r"(?:[T ](?P<hour>[0-9]{2}):(?P<minute>[0-9]{2})(?::(?P<second>[0-9]{2})(?P<fraction>[.][0-9]+)?)?"
    r"(?: ?(?:[Zz]|[+-](?P<zone_hour>[0-9]{2})(?::?(?P<zone_minute>[0-9]{2}))?))?)?"
)
_BIGINT: Final = re.compile(r"[ \t\r\n]*(?P<number>[+-]?[0-9]+)(?:[.]0*)?[ \t\r\n]*")
_NUMERIC: Final = re.compile(r"[ \t\r\n]*[+-]?(?:[0-9]+(?:[.][0-9]*)?|[.][0-9]+)(?:[eE][+-]?[0-9]{1,3})?[ \t\r\n]*")
_DATE: Final = re.compile(
    r"(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])-(?P<day>0[1-9]|[12][0-9]|3[01])"
    r"(?:[T ]00:00(?::00(?:[.]0+)?)?(?: ?(?:[Zz]|[+-]00(?::?00)?))?)?"
)
_TIME: Final = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9](?::[0-5][0-9](?:[.][0-9]{1,6}0*)?)?")
_SHOWN_BY_SPREADSHEET: Final = re.compile(
    r"[0-9]{1,2}([./-])[0-9]{1,2}\1[0-9]{2,4}(?:,? [0-9]{1,2}:[0-9]{2}(?::[0-9]{2})?(?: ?[AP]M)?)?"
    r"|[+-]?[0-9]{1,3}(?:[., \u00a0\u202f][0-9]{3})*(?:[.,][0-9]+)?|[+-]?[0-9]+,[0-9]+"
    r"|wahr|falsch|vrai|faux|verdadero|falso|vero|verdadeiro|waar|onwaar|prawda|fa\u0142sz|sann|sant|falskt|falsk",
    re.IGNORECASE,
)
_BOOLEANS: Final = frozenset({"true", "t", "yes", "1", "false", "f", "no", "0"})
_BIGGEST: Final = 1 << 63
_LONGEST_BIGINT: Final = 100
_LONGEST_NUMERIC: Final = 1_000
_SIMPLE: Final = {
    "number": ColumnType.NUMERIC,
    "integer": ColumnType.BIGINT,
    "boolean": ColumnType.BOOLEAN,
    "object": ColumnType.JSONB,
}
_FORMATS: Final = {"date-time": ColumnType.TIMESTAMPTZ, "date": ColumnType.DATE, "time": ColumnType.TIME}
_WIDER: Final = {
    ColumnType.DATE: (ColumnType.TIMESTAMPTZ,),
    ColumnType.BIGINT: (ColumnType.NUMERIC,),
    ColumnType.TEXT_ARRAY: (ColumnType.JSONB,),
}
BUILT_IN_TYPES: Final = MappingProxyType(
    {
        "created_date": ColumnType.TIMESTAMPTZ,
        "updated_date": ColumnType.TIMESTAMPTZ,
        "deleted_date": ColumnType.TIMESTAMPTZ,
        "is_sample": ColumnType.BOOLEAN,
        "is_deleted": ColumnType.BOOLEAN,
        "disabled": ColumnType.BOOLEAN,
        "is_verified": ColumnType.BOOLEAN,
        "is_service": ColumnType.BOOLEAN,
    }
)
"""Of fields that Base44 itself fills; the others of them are text."""


def declared_type(field: Field) -> ColumnType:
    """The type that a schema asks for."""
    types = set(field.types)
    if not types:
        return ColumnType.TEXT
    if len(types) == 1:
        [name] = types
        if name == "array":
            of_texts = field.items is not None and field.items.types == ("string",) and not field.items.nullable
            return ColumnType.TEXT_ARRAY if of_texts else ColumnType.JSONB
        return _SIMPLE.get(name) or _FORMATS.get(field.format, ColumnType.TEXT)
    if types == {"number", "integer"}:
        return ColumnType.NUMERIC
    return ColumnType.JSONB if types & {"array", "object"} and "string" not in types else ColumnType.TEXT


def candidate_types(field: Field, *, without_schemas: bool = False) -> tuple[ColumnType, ...]:
    """Types that a column may get, the declared one first, each wider than the one before; `text` is always the last.

    Args:
        field: Of which.
        without_schemas: There are no schemas at all, so that dates are recognised.
    """
    if field.origin is Origin.BUILT_IN:
        declared = BUILT_IN_TYPES.get(field.name, ColumnType.TEXT)
    elif field.origin is Origin.EXPORT:
        return (ColumnType.DATE, ColumnType.TIMESTAMPTZ, ColumnType.TEXT) if without_schemas else (ColumnType.TEXT,)
    else:
        declared = declared_type(field)
    return tuple(dict.fromkeys((declared, *_WIDER.get(declared, ()), ColumnType.TEXT)))


def confirmed_type(
    candidates: tuple[ColumnType, ...], filled: int, fitting: Mapping[ColumnType, int], *, all_fit: bool
) -> ColumnType:
    """The type that a column gets.

    Args:
        candidates: As `candidate_types` gives them.
        filled: Cells of the export that are not blank.
        fitting: Of them, those that fit each type; of text, which all fit, nothing.
        all_fit: No cell at all may be without a fit, and there has to be one: nothing but the data speaks for the type.
    """
    if not filled:
        return candidates[-1] if all_fit else candidates[0]
    for kind in candidates:
        if fitting.get(kind, 0) == filled:
            return kind
    if not all_fit and filled - fitting.get(candidates[0], 0) <= MOST_UNFIT * filled:
        return candidates[0]
    return ColumnType.TEXT


def _is_day(year: str, month: str, day: str) -> bool:
    return year != "0000" and 1 <= int(month) <= 12 and 1 <= int(day) <= monthrange(int(year), int(month))[1]


def _is_timestamp(text: str) -> bool:
    match = _TIMESTAMP.fullmatch(text.strip(_SPACE))
    if match is None or not _is_day(match["year"], match["month"], match["day"]):
        return False
    hour, minute, second = int(match["hour"] or 0), int(match["minute"] or 0), int(match["second"] or 0)
    if minute > 59 or second > 60:
        return False
    # Up to the day's very end, in microseconds, as the server reads them: also by a second of 60 with a fraction.
    if (hour * 3600 + minute * 60 + second) * 10**6 + round(float(match["fraction"] or 0) * 10**6) > 86_400 * 10**6:
        return False
    return int(match["zone_hour"] or 0) <= 15 and int(match["zone_minute"] or 0) <= 59


def _is_date(text: str) -> bool:
    match = _DATE.fullmatch(text.strip(_SPACE))
    return match is not None and _is_day(match["year"], match["month"], match["day"])


def _is_time(text: str) -> bool:
    return _TIME.fullmatch(text.strip(_SPACE)) is not None


def _is_bigint(text: str) -> bool:
    match = _BIGINT.fullmatch(text) if len(text) <= _LONGEST_BIGINT else None
    return match is not None and -_BIGGEST <= int(match["number"]) < _BIGGEST


def _is_numeric(text: str) -> bool:
    return len(text) <= _LONGEST_NUMERIC and _NUMERIC.fullmatch(text) is not None


def _is_boolean(text: str) -> bool:
    return text.strip(_SPACE).lower() in _BOOLEANS


def is_shown_by_spreadsheet(text: str) -> bool:
    """Whether a text has a form in which a spreadsheet shows dates, numbers or booleans, and Base44 does not write them."""
    return _SHOWN_BY_SPREADSHEET.fullmatch(text.strip(_SPACE)) is not None


def _no_constant(name: str) -> NoReturn:
    raise ValueError(name)


def json_of(text: str) -> Any:
    """What a text holds as JSON, numbers as text.

    Raises:
        ValueError: It is no JSON, or none that PostgreSQL can hold.
    """
    try:
        value = json.loads(text, parse_float=str, parse_int=str, parse_constant=_no_constant)
    except RecursionError:
        raise ValueError("nested too deeply") from None
    if "\\u" in text and _is_unstorable(value):
        raise ValueError("holds NUL or half a character")
    return value


def _is_unstorable(value: Any) -> bool:
    if isinstance(value, str):
        return UNSTORABLE.search(value) is not None
    if isinstance(value, dict):
        return any(map(_is_unstorable, value)) or any(map(_is_unstorable, value.values()))
    return isinstance(value, list) and any(map(_is_unstorable, value))


def _is_json(text: str) -> bool:
    try:
        json_of(text)
    except ValueError:
        return False
    return True


def texts_of(text: str) -> list[str] | None:
    """The texts of a JSON array of texts, numbers and booleans; None where it is none. A null among them is left out."""
    try:
        value = json_of(text)
    except ValueError:
        return None
    if not isinstance(value, list) or any(isinstance(one, list | dict) for one in value):
        return None
    return [one if isinstance(one, str) else json.dumps(one) for one in value if one is not None]


def _is_text_array(text: str) -> bool:
    return texts_of(text) is not None


FITS: Final[Mapping[ColumnType, Callable[[str], bool]]] = MappingProxyType(
    {
        ColumnType.TIMESTAMPTZ: _is_timestamp,
        ColumnType.DATE: _is_date,
        ColumnType.TIME: _is_time,
        ColumnType.BIGINT: _is_bigint,
        ColumnType.NUMERIC: _is_numeric,
        ColumnType.BOOLEAN: _is_boolean,
        ColumnType.JSONB: _is_json,
        ColumnType.TEXT_ARRAY: _is_text_array,
    }
)
"""Whether a text that is not blank fits a type; every text fits those that are not here."""


def is_allowed(field: Field) -> Callable[[str], bool] | None:
    """Whether a text that is not blank honours the enum and the limits of its field; None where there are none.

    A text that does not fit the field's type is not judged: it is counted as such.
    """
    tests: list[Callable[[str], bool]] = []
    if field.enum is not None and not set(field.types) & {"array", "object"}:
        tests.append(_in_enum(field.enum))
    limits = field.limits
    if set(field.types) & {"number", "integer"}:
        tests += _number_tests(limits)
    elif field.types == ("string",):
        least, most = limits.get("minLength"), limits.get("maxLength")
        if least is not None:
            tests.append(lambda text: len(text) >= least)
        if most is not None:
            tests.append(lambda text: len(text) <= most)
    elif declared_type(field) is ColumnType.TEXT_ARRAY:
        tests += _array_tests(field)
    if not tests:
        return None
    return lambda text: all(test(text) for test in tests)


def _in_enum(enum: tuple[Any, ...]) -> Callable[[str], bool]:
    texts = {value for value in enum if isinstance(value, str)}
    numbers = {Decimal(value) for value in enum if isinstance(value, int | Decimal) and not isinstance(value, bool)}
    words = {str(value).lower() for value in enum if isinstance(value, bool)}

    def test(text: str) -> bool:
        if text in texts or text.strip().lower() in words:
            return True
        return bool(numbers) and _is_numeric(text) and Decimal(text.strip()) in numbers

    return test


def _array_tests(field: Field) -> list[Callable[[str], bool]]:
    """What is asked of an array of texts; a null in it is a member like another, and none that a list of values has."""
    least, most = field.limits.get("minItems"), field.limits.get("maxItems")
    enum = field.items.enum if field.items is not None else None
    tests: list[Callable[[list[Any]], bool]] = []
    if least is not None:
        tests.append(lambda members: len(members) >= least)
    if most is not None:
        tests.append(lambda members: len(members) <= most)
    if enum is not None:
        is_listed = _in_enum(enum)
        tests.append(lambda members: all(one is not None and is_listed(_as_text(one)) for one in members))

    def holds(text: str, test: Callable[[list[Any]], bool]) -> bool:
        try:
            members = json_of(text)
        except ValueError:
            return True
        return not isinstance(members, list) or test(members)

    return [lambda text, test=test: holds(text, test) for test in tests]


def _as_text(member: Any) -> str:
    return member if isinstance(member, str) else json.dumps(member)


def _number_tests(limits: Mapping[str, Any]) -> list[Callable[[str], bool]]:
    tests: list[Callable[[str], bool]] = []
    compare: dict[str, Callable[[Decimal, Any], bool]] = {
        "minimum": lambda number, limit: number >= limit,
        "maximum": lambda number, limit: number <= limit,
        "exclusiveMinimum": lambda number, limit: number > limit,
        "exclusiveMaximum": lambda number, limit: number < limit,
    }
    for key, holds in compare.items():
        if (limit := limits.get(key)) is not None and not isinstance(limit, bool):
            tests.append(
                lambda text, holds=holds, limit=limit: not _is_numeric(text) or holds(Decimal(text.strip()), limit)
            )
    return tests
