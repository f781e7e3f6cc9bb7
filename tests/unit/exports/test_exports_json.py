"""Reading JSON exports: what the cells are, and what damage costs."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from b44_assets.errors import ExportError
from b44_assets.exports import ExportFile, open_export
from tests.helpers.reading_exports import Reading, read

BLOCK_SIZES = [1, 7, 64, 8 << 20]


def read_json(text: str | bytes, *, block_size: int = 8 << 20, longest_record: int = 128 << 20) -> Reading:
    data = text.encode() if isinstance(text, str) else text
    return read(data, "Post.json", block_size=block_size, longest_record=longest_record)


# --- what the cells are -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "cell"),
    [
        ('"text"', "text"),
        ('""', ""),
        ('"null"', "null"),
        (r'"a\n\"\\\u00e9\ud834\udd1e"', 'a\n"\\é𝄞'),
        ("null", None),
        ("true", "true"),
        ("false", "false"),
        ("0", "0"),
        ("-0", "-0"),
        ("1.10", "1.10"),
        ("12345678901234567890", "12345678901234567890"),
        ("0.1000000000000000055511151231257827", "0.1000000000000000055511151231257827"),
        ("1E5", "1E5"),
        ("1e-400", "1e-400"),
        ("9" * 5_000, "9" * 5_000),
        ("[]", "[]"),
        ("{}", "{}"),
        ('[1.10, -0, {"a" : [true, false, null]}, "x"]', '[1.10,-0,{"a":[true,false,null]},"x"]'),
        (r'{"\u00e9": "\u00e9\n\"", "b": 12345678901234567890}', r'{"é":"é\n\"","b":12345678901234567890}'),
        (r'["\u001b", "\\u0000"]', r'["\u001b","\\u0000"]'),
    ],
)
def test_values_are_kept_as_exported(value: str, cell: str | None) -> None:
    reading = read_json(f'[{{"id": 1, "a": {value}}}]')
    assert reading.rows == {1: {"id": "1", "a": cell}}


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_fields_are_met_while_reading_and_missing_ones_are_null(block_size: int) -> None:
    reading = read_json('[{"a":"1"},{"b":"2","a":"3"},{},{"c":null}]', block_size=block_size)
    assert reading.fields == ("a", "b", "c")
    assert reading.cells == [["1", None, None], ["3", "2", None], [None, None, None], [None, None, None]]


def test_a_batch_has_the_fields_met_so_far(tmp_path: Path) -> None:
    path = tmp_path / "Post.jsonl"
    path.write_text('{"a":"1"}\n{"b":"2"}\n')
    with open_export(ExportFile("Post", path), 12) as reader:
        assert reader.fields == ()
        names = [batch.columns.schema.names for batch in reader.batches()]
    assert names == [["a"], ["a", "b"]]


def test_a_blank_key_gets_a_name_of_its_own() -> None:
    reading = read_json('[{"a":1,"":2," ":3,"column_2":4}]')
    assert reading.rows == {1: {"a": "1", "column_2": "2", "column_3": "3", "column_2_2": "4"}}


@pytest.mark.parametrize("name", ["Post.json", "Post.jsonl", "Post.JSON"])
@pytest.mark.parametrize(
    ("text", "dialect"),
    [
        ('[{"id":"1"},{"id":"2"}]', "json"),
        (' \n[\n{"id":"1"}\n,\n{"id":"2"}\n]\n', "json"),
        ('{"id":"1"}\n{"id":"2"}\n', "jsonl"),
        ('{"id":"1"}\r\n\r\n{"id":"2"}', "jsonl"),
        ('{"id":"1"},\n{"id":"2"},\n', "jsonl"),
        ('\n{\n  "id": "1"\n}\n{\n  "id": "2"\n}\n', "jsonl"),
    ],
)
def test_the_content_tells_an_array_from_lines(name: str, text: str, dialect: str) -> None:
    reading = read(text.encode(), name)
    assert reading.dialect.name == dialect
    assert reading.rows == {1: {"id": "1"}, 2: {"id": "2"}}
    assert not reading.oddities


def test_a_single_object_is_one_record() -> None:
    reading = read_json('{"id": "1",\n "a": "x"}')
    assert (reading.dialect.name, reading.cells) == ("jsonl", [["1", "x"]])


def test_an_empty_array_has_no_rows() -> None:
    reading = read_json("[]")
    assert (reading.dialect.name, reading.fields, reading.batches) == ("json", (), 0)


@pytest.mark.parametrize("data", [b"", b"\n", b"\xef\xbb\xbf"])
def test_an_empty_file_is_an_entity_without_rows(data: bytes) -> None:
    assert read_json(data).dialect.name == "empty"


def test_a_byte_order_mark_is_tolerated() -> None:
    reading = read_json(b'\xef\xbb\xbf[{"id":"1"}]')
    assert reading.rows == {1: {"id": "1"}}
    assert reading.oddities == Counter({"byte order mark": 1})


def test_arrays_behind_one_another_are_read_as_one() -> None:
    reading = read_json('[{"id":"1"}]\n[{"id":"2"}]')
    assert reading.rows == {1: {"id": "1"}, 2: {"id": "2"}}
    assert reading.oddities == Counter({"further arrays": 1})


def test_rows_come_in_batches_of_bounded_size(tmp_path: Path) -> None:
    path = tmp_path / "Post.jsonl"
    path.write_text('{"id":1}\n' * 40_000)
    with open_export(ExportFile("Post", path)) as reader:
        sizes = [batch.columns.num_rows for batch in reader.batches()]
    assert sum(sizes) == 40_000
    assert max(sizes) <= 16_384


def test_a_batch_takes_about_a_block_of_the_file(tmp_path: Path) -> None:
    path = tmp_path / "Post.jsonl"
    path.write_text('{"id":1,"a":"%s"}\n' % ("x" * 1_000) * 4_000)
    with open_export(ExportFile("Post", path), 1 << 20) as reader:
        sizes = [batch.columns.num_rows for batch in reader.batches()]
    assert sum(sizes) == 4_000
    assert max(sizes) < 1_400


# --- what cannot be read at all ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b'"text"', "holds neither an array nor objects of JSON"),
        (b"5", "holds neither an array nor objects of JSON"),
        (b"id,a\n1,2\n", "holds neither an array nor objects of JSON"),
        (b"<html>", "holds neither an array nor objects of JSON"),
        ('[{"id":1}]'.encode("utf-16"), "is encoded as UTF-16"),
        (b'{"entities":[{"id":"1"}],"next_cursor":"x","has_more":true}', "holds a page of the API's answer"),
        (("[{" + ",".join(f'"f{n}":1' for n in range(100_001)) + "}]").encode(), "more than 100,000 fields"),
    ],
)
def test_a_hopeless_file_is_an_error_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        read_json(data)
    assert "Post.json: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_record_longer_than_allowed_is_an_error() -> None:
    with pytest.raises(ExportError, match=r"Post\.json: a record is longer than 100 bytes"):
        read_json('[{"id":"1"},{"id":"%s"}]' % ("x" * 300), block_size=10, longest_record=100)


# --- what damage costs ------------------------------------------------------------------------------------------------

GOOD = {1: {"id": "1", "a": "x"}, 3: {"id": "3", "a": "z"}}


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    "record",
    [
        "5",
        "null",
        "true",
        '"text"',
        '["id", "a"]',
        '{"id":"2","a":"y"',
        '"id":"2","a":"y"}',
        '{"id":"2","a":"y}',
        '{"id":"2","a":y"}',
        '{"id":"2" "a":"y"}',
        '{"id":"2","a":NaN}',
        '{"id":"2","a":-Infinity}',
        '{"id":"2","a":01}',
        '{"id":"2","a":"\\x"}',
        '{"id":"2","a":"tab\there"}',
        '{"id":"2","a":[1,2}',
        '{"id":"2","a":{"id":"5","a":"inner"}',
        "{'id':'2'}",
        "garbage",
        '{"id":"2","a":"y"}}',
        '{"id":"2","a":"y"} garbage',
    ],
)
def test_a_damaged_record_costs_itself_alone(record: str, lines: bool, block_size: int) -> None:
    parts = ['{"id":"1","a":"x"}', record, '{"id":"3","a":"z"}']
    reading = read_json("\n".join(parts) if lines else f"[{','.join(parts)}]", block_size=block_size)
    if not lines and "inner" in record:
        # Nothing tells this record inside of a damaged one from a record of its own.
        assert reading.rows[max(reading.rows)] == GOOD[3]
        return
    assert reading.rows == GOOD
    assert [(one.record_number, one.reason, one.record) for one in reading.refused] == [
        (2, "malformed_record", {"_raw": record})
    ]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_an_object_inside_of_a_damaged_record_is_no_record(block_size: int) -> None:
    text = '[{"id":"1","a":"x","b":"y"},{"id":"2",,"a":[{"id":"5","name":"n"},{"x":1}]},{"id":"3","a":"z","b":""}]'
    reading = read_json(text, block_size=block_size)
    assert [row["id"] for row in reading.rows.values()] == ["1", "3"]
    assert reading.reasons == {2: "malformed_record"}


def test_a_damaged_first_record_of_an_array_is_left_at_one_with_an_id() -> None:
    reading = read_json('[{"id":"1",,"a":{"k":"v"}},{"id":"2","a":"y"}]')
    assert reading.rows == {2: {"id": "2", "a": "y"}}
    assert reading.reasons == {1: "malformed_record"}


@pytest.mark.parametrize(
    ("text", "rows", "refused"),
    [
        ('[{"id":"1"},{"id":"2"', 1, {2: "malformed_record"}),
        ('[{"id":"1"},{"id":"2', 1, {2: "malformed_record"}),
        ('[{"id":"1"},{', 1, {2: "malformed_record"}),
        ('[{"id":"1"},', 1, {}),
        ('[{"id":"1"}', 1, {}),
        ("[", 0, {}),
        ('{"id":"1"}\n{"id":', 1, {2: "malformed_record"}),
        ('{"id":"1"}\n{"id":"2"}', 2, {}),
    ],
)
def test_a_truncated_file_keeps_its_whole_records(text: str, rows: int, refused: dict[int, str]) -> None:
    reading = read_json(text)
    assert len(reading.rows) == rows
    assert reading.reasons == refused
    assert reading.oddities["array not closed"] == text.startswith("[")
    assert reading.oddities["ends within a record"] == text.endswith('{"id":')


def test_a_damaged_line_before_others_is_no_end_of_the_file() -> None:
    reading = read_json('{"id":"1"}\n{"id":\n{"id":"3"}\n')
    assert (reading.reasons, reading.oddities) == ({2: "malformed_record"}, {})


def test_text_behind_the_array_is_refused_and_records_behind_it_are_read() -> None:
    reading = read_json('[{"id":"1"}]] {"id":"2"},{"id":"3"}] end')
    assert [row["id"] for row in reading.rows.values()] == ["1", "2", "3"]
    assert [one.record for one in reading.refused] == [{"_raw": "]"}, {"_raw": "end"}]


@pytest.mark.parametrize("depth", [100, 100_000])
def test_deep_nesting_costs_its_record_at_most(depth: int) -> None:
    nested = "[" * depth + "]" * depth
    reading = read_json(f'[{{"id":"1","a":"x"}},{{"id":"2","a":{nested}}},{{"id":"3","a":"z"}}]')
    assert {number: reading.rows[number] for number in (1, 3)} == GOOD
    assert reading.reasons == ({} if depth == 100 else {2: "malformed_record"})


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("lines", [False, True])
@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (rb'"a\ud800b"', r"a\ud800b"),
        (rb'"\udcff"', r"\udcff"),
        (rb'"\udd1e\ud834"', r"\udd1e\ud834"),
        (rb'"a\u0000b"', r"a\x00b"),
        (b'"a\x00b"', r"a\x00b"),
        (b'"a\xffb\xc3\xa9\\\\x"', "a\\xffbé\\x"),
        (b'"\xed\xa0\x80"', r"\xed\xa0\x80"),
        (rb'["\ud800"]', r'["\ud800"]'),
        (rb'{"k":["a\u0000"]}', r'{"k":["a\u0000"]}'),
        (rb'{"\uDFFF":1}', r'{"\udfff":1}'),
        (b'{"k":"\xff"}', r'{"k":"\xff"}'),
    ],
)
def test_text_that_cannot_be_stored_costs_its_record_alone(
    value: bytes, shown: str, lines: bool, block_size: int
) -> None:
    parts = [b'{"id":"1","a":"x"}', b'{"id":"2","a":' + value + b"}", b'{"id":"3","a":"z"}']
    reading = read_json(b"\n".join(parts) if lines else b"[" + b",".join(parts) + b"]", block_size=block_size)
    assert reading.rows == GOOD
    assert [(one.record_number, one.reason, one.record) for one in reading.refused] == [
        (2, "invalid_encoding", {"id": "2", "a": shown})
    ]
    assert reading.refused[0].detail.startswith("field a: ")


def test_a_field_name_that_cannot_be_stored_is_no_field() -> None:
    reading = read_json(b'[{"id":"1"},{"id":"2","\xff":"x"},{"id":"3"}]')
    assert reading.fields == ("id",)
    assert reading.refused[0].record == {"id": "2", r"\xff": "x"}


def test_escaped_pairs_and_escaped_backslashes_are_good_text() -> None:
    reading = read_json(r'[{"a":"\ud834\udd1e"},{"a":"\\ud800"},{"a":"\\u0000"}]')
    assert [row["a"] for row in reading.rows.values()] == ["𝄞", "\\ud800", "\\u0000"]


def test_a_character_of_several_bytes_may_lie_across_blocks() -> None:
    assert read_json('[{"a":"é𝄞é"}]', block_size=1).cells == [["é𝄞é"]]


def test_a_character_cut_off_by_the_end_of_the_file_is_malformed() -> None:
    (refused,) = read_json('{"a":"é'.encode()[:-1]).refused
    assert (refused.reason, refused.record) == ("malformed_record", {"_raw": '{"a":"\\xc3'})
