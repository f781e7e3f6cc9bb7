"""Which cells fit a type is told without a server, when an app's folder is written: as the server tells it when records are loaded."""

from __future__ import annotations

import json
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from b44_assets.scaffold.columns import FITS
from b44_assets.scaffold.export_profile import id_key
from b44_assets.scaffold.model import ColumnType
from b44_assets.scaffold.names import RESERVED
from tests.helpers.target import Target

# Each of a few examples is many values, and one round trip.
few = settings(max_examples=25)

storable = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
times = st.from_regex(
    r"[ \t]{0,1}(0000|1900|2023|2024|9999)-(0[0-9]|1[0-3])-(0[0-9]|2[89]|3[0-2])"
    r"([T ](0[0-9]|2[0-4]):([0-6]0|59)(:([0-6]0|59)([.][0-9]{1,8})?)?( ?([Zz]|[+-](0[0-9]|1[4-6])(:?([0-6]0|59))?))?)?",
    fullmatch=True,
)
numbers = st.from_regex(r"[ ]?[+-]?[0-9]{0,20}([.][0-9]{0,4})?([eE][+-]?[0-9]{1,4})?[ \n]?", fullmatch=True)
clocks = st.from_regex(r"(0[0-9]|1[0-9]|2[0-4]|9)(:[0-6][0-9]){1,2}([.][0-9]{1,8})?", fullmatch=True)
words = st.sampled_from(
    ["true", "TRUE", " t", "Yes", "no ", "0", "1", "on", "null", "[]", "{}", "[null]", "NaN", "infinity", "2024-02-30"]
)
plain = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | storable
structures = st.recursive(
    plain, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(storable, inner, max_size=2), max_leaves=5
)
as_json = structures.map(json.dumps) | structures.map(lambda value: json.dumps(value, ensure_ascii=False))
broken = st.sampled_from(
    [
        '["\\u0000"]',
        '["\\ud83d"]',
        '["\\ud83d\\ude00"]',
        "[1,]",
        "[01]",
        "[1e5]",
        "{a: 1}",
        '["a"] x',
        " [1] ",
        "[NaN]",
        "'a'",
    ]
)
anything = st.one_of(times, numbers, clocks, words, as_json, broken, storable)

FUNCTIONS: Final = {
    ColumnType.TIMESTAMPTZ: "migration.as_timestamp",
    ColumnType.DATE: "migration.as_date",
    ColumnType.TIME: "migration.as_time",
    ColumnType.BIGINT: "migration.as_bigint",
    ColumnType.NUMERIC: "migration.as_numeric",
    ColumnType.BOOLEAN: "migration.as_boolean",
    ColumnType.JSONB: "migration.as_jsonb",
    ColumnType.TEXT_ARRAY: "migration.as_text_array",
}


def test_every_type_that_is_told_has_its_function() -> None:
    assert FITS.keys() == FUNCTIONS.keys()


@few
@given(st.lists(anything, min_size=1, max_size=80, unique=True))
@example(["1900-01-01T00:59:60.1", "2023-02-28 23:59:60", "2023-02-28 23:59:60.1", "2023-02-28 23:59:59.9999999"])
def test_a_cell_fits_where_the_database_can_hold_it(shared_target: Target, values: list[str]) -> None:
    calls = ", ".join(f"{function}(v) is not null" for function in FUNCTIONS.values())
    rows: list[tuple[Any, ...]] = shared_target.all(f"select v, {calls} from unnest(%s::text[]) v", values)
    here = [(value, *(FITS[kind](value) for kind in FUNCTIONS)) for value, *_ in rows]
    assert here == rows


@few
@given(
    st.lists(
        st.from_regex(
            r" ?([0-9a-fA-F]{24}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}|[a-zA-Z_]{1,9}) ?", fullmatch=True
        ),
        min_size=2,
    )
)
def test_ids_that_are_the_same_here_are_the_same_there(shared_target: Target, values: list[str]) -> None:
    values += [value.swapcase() for value in values]
    rows = shared_target.all("select v, migration.id_key(v) from unnest(%s::text[]) v", values)
    there = dict(rows)
    assert [id_key(value) for value in there] == list(there.values())


def test_every_word_that_postgresql_reserves_is_known(shared_target: Target) -> None:
    rows = shared_target.all("select word from pg_get_keywords() where catcode <> 'U' and word <> all (%s)", ["none"])
    assert {word for (word,) in rows} - RESERVED == set()


@pytest.mark.parametrize(
    "text", ["2024-01-01T24:00:00", "2024-01-01T23:59:60", "2024-01-01T00:00:00+15:59", "9" * 400, "1e999", "[" * 5000]
)
def test_the_edges(shared_target: Target, text: str) -> None:
    calls = ", ".join(f"{function}(v) is not null" for function in FUNCTIONS.values())
    [row] = shared_target.all(f"select {calls} from unnest(%s::text[]) v", [text])
    assert tuple(FITS[kind](text) for kind in FUNCTIONS) == row
