"""Damaged elements of a JSON array are counted one by one, whatever stands beside them, and no sound one is lost."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.helpers.reading_exports import Reading, read

GOOD = ['{"id":"1","a":"x"}', '{"id":"8","a":"z"}']
BROKEN = [
    '{"id":"2","a":"y"',
    '{"id":"2","a":["y"',
    '{"id":"2","a":["y","z"}',
    '{"id":"2","a":{"k":1}',
    '{"id":"2","a":{"k":1',
    '"id":"2","a":"y"}',
    '{"id":"2" "a":"y"}',
    '{"id":"2",,"a":"y"}',
    '{"id":"2","a":"y"} garbage',
    '{"id":"2","a":"y"}}',
    '{"id":"2","a":"y}',
    '{"id":"2","a":y"}',
    '{"id":"2,"a":"y"}',
    '{"id":"2","a:"y"}',
    '{id":"2","a":"y"}',
    '{"id":"2","a":"y',
    '{"id":"2","a"',
    '{"id":"2","a":',
    '{"id":"2","a":NaN}',
    '{"id":"2","a":"{braces} and [brackets], all of them: "}}',
    '{"id":"2","a":"never } closed, [as it is}',
    '{"id":"2","a":[{"k":1},{"k":2}],}',
    '{"id":"2","a":[{"id":1},{"id":2}],"b":[{"id":1},{"id":2}],"c":1,"d":}',
    "{'id':'2'}",
    "garbage",
    "two words",
    "NaN",
]
BLOCK_SIZES = [1, 7, 8 << 20]


def read_json(text: str, block_size: int = 8 << 20, name: str = "Post.json") -> Reading:
    return read(text.encode(), name, block_size=block_size)


def raw(reading: Reading) -> list[str]:
    return [one.record["_raw"] or "" for one in reading.refused]


def joined(first: str, second: str) -> bool:
    """Tell whether two damaged records are a sound one together: the one lacks its last brace, the other its first."""
    try:
        json.loads(f"{first},{second}")
    except ValueError:
        return False
    return True


# What is not closed goes on with a bare word behind it, and so does a text; of the last pair, an object within is made.
OPEN = {'{"id":"2","a":["y"', *(f'{{"id":"2","a":{end}' for end in ('y"}', '"y}', '"y', '"never } closed, [as it is}'))}
BARE = {"garbage", "two words", "NaN", "{'id':'2'}"}
WITHIN = ('{"id":"2","a":{"k":1', '"id":"2","a":"y"}')
PAIRS = [
    (one, other)
    for one in BROKEN
    for other in BROKEN
    if not joined(one, other) and not (one in OPEN and other in BARE) and (one, other) != WITHIN
]


@pytest.mark.parametrize("form", ["[%s]", "[\n  %s\n]\n", '{"data":[%s]}'])
@pytest.mark.parametrize("between", [",", ",\n  "])
def test_two_damaged_elements_side_by_side_are_two(between: str, form: str) -> None:
    failed: list[tuple[str, str, list[str]]] = []
    for one, other in PAIRS:
        reading = read_json(form % between.join([GOOD[0], one, other, GOOD[1]]))
        if raw(reading) != [one, other] or [row["id"] for row in reading.rows.values()] != ["1", "8"]:
            failed.append((one, other, raw(reading)))
    assert failed == []


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("one", BROKEN)
def test_any_number_of_them_is_that_number(one: str, block_size: int) -> None:
    for form in ("[%s]", '{"data":[%s]}'):
        text = form % ",".join([GOOD[0], *[one] * 5, GOOD[1]])
        if joined(one, one):
            continue
        reading = read_json(text, block_size)
        assert (list(reading.rows), raw(reading)) == ([1, 7], [one] * 5)


@pytest.mark.parametrize("one", BROKEN)
def test_nothing_sound_between_them_or_at_an_end_is_lost(one: str) -> None:
    for records, sound in (
        ([one, GOOD[0], one, GOOD[1], one], [2, 4]),
        ([one, one, GOOD[0], GOOD[1]], [3, 4]),
        ([GOOD[0], '{"id":"9"}', one, '{"id":"8"}', one], [1, 2, 4]),
    ):
        reading = read_json("[" + ",".join(records) + "]")
        assert list(reading.rows) == sound
        # The bracket behind all records may seem to be the last one's.
        assert [text.removesuffix("]") for text in raw(reading)] == [one] * (len(records) - len(sound))


def test_the_first_records_may_be_damaged_whatever_the_others_have_for_keys() -> None:
    reading = read_json('[{"Nr":1,},{"Nr":2,"a":NaN},{"Nr":3,"a":"x"},{"b":4}]')
    assert [row["Nr"] for row in reading.rows.values()] == ["3", None]
    assert list(reading.reasons) == [1, 2]


def test_a_damaged_last_record_does_not_take_the_end_of_the_array_with_it() -> None:
    reading = read_json('[{"id":"1"},{"id":}]')
    assert (raw(reading), dict(reading.oddities)) == (['{"id":}'], {})
    reading = read_json('{"data":[{"id":"1"},{"id":}],"total":2}')
    assert (raw(reading), reading.oddities["beside the records: total 2"]) == (['{"id":}'], 1)


def test_records_behind_the_end_of_the_array_are_read() -> None:
    reading = read_json('[{"id":"1"}] {"id":"2"},{"id":"3"}')
    assert [row["id"] for row in reading.rows.values()] == ["1", "2", "3"]
    assert reading.oddities["records behind the end of the array"] == 1


def test_damaged_members_of_an_object_keyed_by_id_are_counted_one_by_one() -> None:
    members = [
        '"a1":{"id":"1","a":"x"}',
        '"a2":{"id":}',
        '"a3":{"id":"3" "a":1}',
        '"a4":garbage',
        '"a5":{"id":"5","a":"x"}',
    ]
    reading = read_json("{" + ",".join(members) + "}")
    assert (list(reading.rows), raw(reading)) == ([1, 5], members[1:4])
    assert reading.oddities["array not closed"] == 0


def test_each_damaged_line_counts_as_one() -> None:
    lines = [one for one in BROKEN if "\n" not in one]
    parts = [GOOD[0], *lines, GOOD[1]]
    reading = read_json("\n".join(parts) + "\n", name="Post.jsonl")
    assert (list(reading.rows), raw(reading)) == ([1, len(parts)], lines)


# --- drawn ------------------------------------------------------------------------------------------------------------

TEXT = st.text(st.sampled_from('ab é,:"{}[]\\\n𝄞'), max_size=6)
RECORDS = st.lists(
    st.fixed_dictionaries(
        {
            "title": TEXT,
            "parts": st.lists(st.fixed_dictionaries({"x": TEXT}), max_size=2),
            "tags": st.lists(TEXT, max_size=2),
            "more": st.fixed_dictionaries({"k": TEXT, "m": st.none() | st.booleans()}),
            "count": st.integers(),
        }
    ),
    min_size=3,
    max_size=7,
)
Damage = Callable[[str, st.DataObject], str]
PLAIN = "plain text"


def without(text: str, what: str, data: st.DataObject) -> str:
    places = [place for place in range(len(text)) if text.startswith(what, place)]
    place = data.draw(st.sampled_from(places))
    return text[:place] + text[place + len(what) :]


# Each of a record whose last member is `"last": "plain text"`, so that it is known to be damaged where it is.
DAMAGES: dict[str, Damage] = {
    "no closing brace": lambda text, data: text[:-1],
    "no opening brace": lambda text, data: text[1:],
    "no comma": lambda text, data: text.replace(', "last"', ' "last"'),
    "two commas": lambda text, data: text.replace(', "last"', ',, "last"'),
    "no colon": lambda text, data: text.replace('"last":', '"last"'),
    "garbage behind": lambda text, data: f"{text} {data.draw(st.sampled_from(['x', 'null', '17', '}', 'two words']))}",
    "a string not closed": lambda text, data: text.replace(f'{PLAIN}"', PLAIN),
    "a string not opened": lambda text, data: text.replace(f'"{PLAIN}', PLAIN),
    "a key not opened": lambda text, data: text.replace('"last"', 'last"'),
    "a key not closed": lambda text, data: text.replace('"last"', '"last'),
    "no value": lambda text, data: text.replace(f'"{PLAIN}"', data.draw(st.sampled_from(["", "NaN", "word", "01"]))),
    "a word": lambda text, data: data.draw(st.sampled_from(["word", "two words", "NaN", "undefined"])),
    "cut off": lambda text, data: text[: data.draw(st.integers(text.index('"last"') - 2, len(text) - 2))],
}
OPEN_ENDED = frozenset(
    {
        "no closing brace",
        "no opening brace",
        "a string not closed",
        "a string not opened",
        "a key not opened",
        "a key not closed",
        "a word",
        "cut off",
    }
)


@given(
    RECORDS, st.booleans(), st.sampled_from([1, 64, 8 << 20]), st.sampled_from(["[%s]", '{"data": [%s]}']), st.data()
)
def test_records_and_damaged_ones_are_together_what_was_drawn(
    records: list[dict[str, Any]], is_indented: bool, block_size: int, form: str, data: st.DataObject
) -> None:
    indent = 1 if is_indented else None
    parts = [
        json.dumps({"id": f"{number:024x}", **record, "last": PLAIN}, ensure_ascii=False, indent=indent)
        for number, record in enumerate(records)
    ]
    kinds = data.draw(st.lists(st.none() | st.sampled_from(list(DAMAGES)), min_size=len(parts), max_size=len(parts)))
    if form != "[%s]":
        # What the first element is tells that there is an array in the envelope.
        kinds[0] = None
    for place, (before, kind) in enumerate(pairwise(kinds)):
        # Two of these side by side can make one sound record, or one that ends nowhere.
        if before in OPEN_ENDED and kind in OPEN_ENDED and kinds[place] is not None:
            kinds[place + 1] = None
    if is_indented:
        kinds = [None if kind in ("no comma", "two commas") else kind for kind in kinds]
    for place, kind in enumerate(kinds):
        if kind is not None:
            parts[place] = DAMAGES[kind](parts[place], data)
    reading = read_json(form % data.draw(st.sampled_from([",", ",\n", ", "])).join(parts), block_size)
    damaged = [place + 1 for place, kind in enumerate(kinds) if kind is not None]
    assert list(reading.reasons) == damaged
    assert [row["id"] for row in reading.rows.values()] == [
        f"{place:024x}" for place, kind in enumerate(kinds) if kind is None
    ]
    whole = read_json(json.dumps([{"id": "x", **record, "last": PLAIN} for record in records]))
    for number, row in reading.rows.items():
        assert {**row, "id": "x"} == whole.rows[number]
