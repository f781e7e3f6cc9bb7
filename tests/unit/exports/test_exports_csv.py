"""Reading CSV exports: what the cells are, and what damage costs."""

from __future__ import annotations

import io
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from b44_assets.errors import ExportError
from b44_assets.exports import ExportFile, open_export
from tests.helpers.reading_exports import Reading, read

if TYPE_CHECKING:
    from _typeshed import WriteableBuffer as Buffer

BLOCK_SIZES = [1, 2, 7, 64, 8 << 20]


# --- what the cells are -----------------------------------------------------------------------------------------------


def test_2025_06_null_and_undefined_are_null_and_empty_cells_are_empty() -> None:
    reading = read(b'id,a,b,c,d\n"1","null","undefined","","Null"\n"2","null"," null","nulls","x"')
    assert reading.cells == [["1", None, None, "", "Null"], ["2", None, " null", "nulls", "x"]]


@pytest.mark.parametrize("header", [b"id,a,b", b'"id","a","b"'])
def test_later_dialects_empty_cells_are_null_and_the_word_null_is_a_word(header: bytes) -> None:
    reading = read(header + b'\n"1","","null"\n"2","","undefined"\n"3",""," "')
    assert reading.cells == [["1", None, "null"], ["2", None, "undefined"], ["3", None, " "]]


def test_spreadsheet_blank_cells_are_null_and_all_else_stays_as_it_is() -> None:
    reading = read(b'id,a,b\n1,,""\n2,TRUE, x \n3,null,\'=1\n4,2026-06-25 18:43:12,"a ""b"",\r\nc"\n')
    assert reading.cells == [
        ["1", None, None],
        ["2", "TRUE", " x "],
        ["3", "null", "'=1"],
        ["4", "2026-06-25 18:43:12", 'a "b",\r\nc'],
    ]


def test_2026_06_one_guard_is_removed_before_each_guarded_character_only() -> None:
    cells = ["'=1", "'+1", "'-1", "'@a", "'a", "''=1", "=1", "a'=", "'", "' ="]
    header = ",".join(f'"f{number}"' for number in range(len(cells)))
    reading = read((header + "\n" + ",".join(f'"{cell}"' for cell in cells)).encode())
    assert reading.cells == [["=1", "+1", "-1", "@a", "'a", "''=1", "=1", "a'=", "'", "' ="]]
    assert reading.oddities == Counter({"guard quotes removed": 4})


def test_a_guard_before_a_character_of_several_bytes_behind_it() -> None:
    assert read('"id"\n"\'=é𝄞"\n""'.encode()).cells == [["=é𝄞"], [None]]


@pytest.mark.parametrize("header", [b"id,a", b"id,a\n"])
def test_2025_08_guards_are_text(header: bytes) -> None:
    reading = read(header.rstrip() + b'\n"1","\'=1"\n"2","+7"\n"3",""')
    assert reading.cells == [["1", "'=1"], ["2", "+7"], ["3", None]]


def test_2025_06_json_is_halved_where_every_quote_is_doubled() -> None:
    doubled = ['{""a"":""b \\""c\\""""}', '[""x"",{""y"":1.10}]', '[""]', "[1,2]", "{}", '{"a":1}', '{""a"":}']
    halved = ['{"a":"b \\"c\\""}', '["x",{"y":1.10}]', '[""]', "[1,2]", "{}", '{"a":1}', '{""a"":}']
    lines = [f'"{number}","{cell.replace(chr(34), chr(34) * 2)}"' for number, cell in enumerate(doubled)]
    reading = read("\n".join(["id,a", *lines, '"x","null"']).encode())
    assert reading.dialect.name == "2025-06"
    assert [row[1] for row in reading.cells] == [*halved, None]
    assert reading.oddities == Counter({"cells un-doubled": 2})


def test_2025_06_text_in_doubled_quotes_that_is_no_json_is_left_alone() -> None:
    reading = read(b'id,a\n"1","null"\n"2","say """"hi"""" {"\n"3","[see """"this""""]"')
    assert [row[1] for row in reading.cells] == [None, 'say ""hi"" {', '[see ""this""]']


@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
@pytest.mark.parametrize("last", [True, False])
@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_line_ends_with_or_without_one_at_the_end(line_end: bytes, last: bool, block_size: int) -> None:
    data = line_end.join([b"id,a", b'"1","x\r\ny\n"', b'"2",""']) + (line_end if last else b"")
    assert read(data, block_size=block_size).cells == [["1", "x\r\ny\n"], ["2", None]]


def test_line_ends_may_change_within_a_file() -> None:
    assert read(b'id,a\r\n"1","x"\n"2","y"\r\n"3","z"').cells == [["1", "x"], ["2", "y"], ["3", "z"]]


def test_short_rows_of_a_spreadsheet_are_padded_with_null() -> None:
    reading = read(b'id,a,b\n1\n2,x\n3,"x,y"\n4,x,y\n')
    assert reading.cells == [["1", None, None], ["2", "x", None], ["3", "x,y", None], ["4", "x", "y"]]
    assert reading.oddities == Counter({"rows cut short": 3})


@pytest.mark.parametrize("line", [b"1\n", b"1,x\n", b"1,,,\n"])
def test_a_line_of_a_text_in_a_short_row_of_a_spreadsheet_is_no_record(line: bytes) -> None:
    reading = read(b"id,a,b,last\n" + line + b'2,,"\n0\n"\n')
    assert reading.cells[1:] == [["2", None, "\n0\n", None]]
    assert not reading.refused


def test_surplus_cells_of_a_spreadsheet_are_tolerated_only_if_empty() -> None:
    reading = read(b'id,a\n1,x,,\n2,y,"",\n3,z,,w\n4,v\n')
    assert reading.cells == [["1", "x"], ["2", "y"], ["4", "v"]]
    assert reading.reasons == {3: "malformed_record"}
    assert reading.oddities == Counter({"surplus empty cells": 2})


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("line_end", [b"\n", b"\r\n"])
def test_blank_lines_are_no_records(block_size: int, line_end: bytes) -> None:
    lines = [b"", b"id,a", b"", b"1,x", b"", b"", b"2,", b",", b"", b""]
    reading = read(line_end.join(lines), block_size=block_size)
    assert reading.rows == {1: {"id": "1", "a": "x"}, 2: {"id": "2", "a": None}}
    assert reading.oddities == {"blank lines": 5, "rows of delimiters only": 1}


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_blank_lines_of_a_single_column_are_no_records_but_quoted_empty_cells_are(block_size: int) -> None:
    assert read(b'id\na\n\n""\nb\n\n', block_size=block_size).cells == [["a"], [None], ["b"]]
    assert read(b'"id"\n"a"\n\n""\n"b"', block_size=block_size).cells == [["a"], [None], ["b"]]


def test_a_line_of_spaces_is_a_record() -> None:
    assert read(b"id,a\n1,x\n  \n").cells == [["1", "x"], ["  ", None]]


@pytest.mark.parametrize("block_size", [1, 5, 1 << 20])
def test_a_byte_order_mark_inside_of_the_file_is_text(block_size: int) -> None:
    reading = read("\ufeffid,a\n\ufeff1,x\n\ufeff2,y\n".encode(), block_size=block_size)
    assert reading.fields == ("id", "a")
    assert reading.cells == [["\ufeff1", "x"], ["\ufeff2", "y"]]


def test_control_characters_are_text() -> None:
    assert read(b'id,a\n"1","\x1b[0m\x01\x7f"').cells == [["1", "\x1b[0m\x01\x7f"]]


# --- what damage costs ------------------------------------------------------------------------------------------------

GOOD = {1: {"id": "1", "a": "x"}, 3: {"id": "3", "a": "z"}}


def with_second(record: bytes, header: bytes = b"id,a") -> bytes:
    return header + b'\n"1","x"\n' + record + b'\n"3","z"'


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize(
    "record",
    [
        b'"2"',
        b'"2","y","w"',
        b'"2","y',
        b'"2,"y"',
        b'2","y"',
        b'"2",y"',
        b'"2","y""',
        b'"2","say "hi" to"',
        b'"2",y',
        b'"2" ,"y"',
        b"garbage",
        b'"2","y\nof several\nlines',
        b'"2","y"x\ny"',
    ],
)
def test_a_damaged_record_costs_itself_alone(record: bytes, block_size: int) -> None:
    reading = read(with_second(record), block_size=block_size)
    assert reading.rows == GOOD
    assert [(one.record_number, one.reason, one.record) for one in reading.refused] == [
        (2, "malformed_record", {"_raw": record.decode()})
    ]


def test_neighbours_with_the_wrong_number_of_cells_are_refused_one_by_one() -> None:
    reading = read(b'id,a\n"1","x"\n"2"\n"3","y","z"\n"4","w"')
    assert list(reading.rows) == [1, 4]
    assert [(one.record_number, one.detail) for one in reading.refused] == [
        (2, "1 cells instead of 2"),
        (3, "3 cells instead of 2"),
    ]


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
def test_a_record_broken_in_two_is_one_damaged_record(block_size: int) -> None:
    reading = read(with_second(b'"2"\n,"y"'), block_size=block_size)
    assert reading.rows == GOOD
    assert [one.record for one in reading.refused] == [{"_raw": '"2"\n,"y"'}]


def test_a_swallowed_record_is_found_inside_of_the_one_that_swallowed_it() -> None:
    """A lost quote may join two records to one well-formed one of too many cells."""
    reading = read(b'id,a\n"1","x"\n"2","y\n"3","z"\n","w"\n"5","v"')
    assert reading.rows[3] == {"id": "3", "a": "z"}
    assert [row[0] for row in reading.cells] == ["1", "3", "5"]


def test_the_text_of_a_malformed_record_shows_what_is_no_text() -> None:
    (refused,) = read(with_second(b'"2","\xff\x00\xc3\xa9\\x')).refused
    assert refused.record == {"_raw": '"2","\\xff\\x00é\\x'}


@pytest.mark.parametrize(
    ("tail", "detail"),
    [
        (b'"2","y', "the quote that opens cell 2 is never closed"),
        (b'"2",', "the file ends behind cell 1 of 2"),
        (b'"2"', "1 cells instead of 2"),
        (b'"', "the quote that opens cell 1 is never closed"),
    ],
)
def test_a_record_cut_off_by_the_end_of_the_file_is_malformed(tail: bytes, detail: str) -> None:
    reading = read(b'id,a\n"1","x"\n' + tail)
    assert list(reading.rows) == [1]
    assert [(one.record_number, one.reason, one.detail) for one in reading.refused] == [(2, "malformed_record", detail)]
    assert reading.oddities == Counter({"ends within a record": 1})


def test_the_last_row_of_a_spreadsheet_may_be_short_only_with_a_line_end() -> None:
    whole = read(b"id,a,b\n1,x,y\n2,x\n")
    assert whole.cells == [["1", "x", "y"], ["2", "x", None]]
    cut = read(b"id,a,b\n1,x,y\n2,x")
    assert cut.cells == [["1", "x", "y"]]
    assert cut.reasons == {2: "malformed_record"}
    assert (whole.oddities, cut.oddities) == ({"rows cut short": 1}, {"ends within a record": 1})


def test_a_file_may_end_at_the_end_of_a_line_of_a_cell() -> None:
    reading = read(b'id,a\n"1","x"\n"2","first line\n')
    assert (reading.reasons, reading.oddities) == ({2: "malformed_record"}, {"ends within a record": 1})


def test_a_damaged_last_record_is_no_end_within_one() -> None:
    assert read(b'id,a\n"1","x"\n"2","y"z"\n').oddities == {}


def test_the_last_row_of_a_spreadsheet_may_lack_its_line_end() -> None:
    reading = read(b"id,a\n1,x\n2,y")
    assert reading.cells == [["1", "x"], ["2", "y"]]
    assert reading.oddities == Counter({"no newline at end": 1})


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize("row", [b'2,"y', b'2,y"', b'2,"y"x', b'"2,y', b'2,y""'])
def test_a_stray_quote_in_a_spreadsheet_costs_its_row_alone(row: bytes, block_size: int) -> None:
    reading = read(b"id,a\n1,x\n" + row + b"\n3,z\n4,v\n", block_size=block_size)
    assert [cells[0] for cells in reading.cells] == ["1", "3", "4"]
    assert reading.reasons == {2: "malformed_record"}


def test_a_spreadsheet_whose_rows_are_all_short_finds_its_step_again() -> None:
    reading = read(b'id,a,b\n1,x\n2,"y\n3,z\n4,w\n')
    assert [cells[0] for cells in reading.cells] == ["1", "3", "4"]
    assert reading.reasons == {2: "malformed_record"}


def test_a_bare_carriage_return_outside_of_quotes_is_malformed() -> None:
    reading = read(b"id,a\n1,x\n2,y\rw\n3,z\n")
    assert reading.reasons == {2: "malformed_record"}
    assert list(reading.rows) == [1, 3]


def test_a_file_that_is_damaged_from_some_point_on_ends_there() -> None:
    reading = read(b'id,a\n"1","x"\n' + b'gar"bage\n' * 1_000)
    assert list(reading.rows) == [1]
    assert reading.reasons == {2: "malformed_record"}


@pytest.mark.parametrize("block_size", BLOCK_SIZES)
@pytest.mark.parametrize(
    ("bad", "shown", "fault"),
    [
        (b"a\xffb", r"a\xffb", "byte 0xff is not UTF-8"),
        (b"\xc3", r"\xc3", "byte 0xc3 is not UTF-8"),
        (b"a\x00b", r"a\x00b", "NUL"),
        (b"\xed\xa0\x80", r"\xed\xa0\x80", "byte 0xed is not UTF-8"),
        (b'""\xff\xc3\xa9\\x', '"\\xffé\\x', "byte 0xff is not UTF-8"),
    ],
)
def test_text_that_cannot_be_stored_costs_its_record_alone(bad: bytes, shown: str, fault: str, block_size: int) -> None:
    reading = read(with_second(b'"2","' + bad + b'"'), block_size=block_size)
    assert reading.rows == GOOD
    assert [(one.record_number, one.reason, one.detail, one.record) for one in reading.refused] == [
        (2, "invalid_encoding", f"field a: {fault}", {"id": "2", "a": shown})
    ]


def test_other_cells_of_a_record_that_cannot_be_stored_are_treated_as_everywhere() -> None:
    reading = read(b'"id","a","b"\n"1","\'=1",""\n"2","\'=2\xff",""')
    assert reading.refused[0].record == {"id": "2", "a": "=2\\xff", "b": None}
    first = read(b'id,a,b,c\n"1","{""""k"""":1}","null","\xff"\n"2","null","",""').refused[0]
    assert first.record == {"id": "1", "a": '{"k":1}', "b": None, "c": "\\xff"}


def test_refused_records_of_both_kinds_come_in_order() -> None:
    reading = read(b'id,a\n"1","\xff"\n"2"\n"3","x"\n"4","\x00"\n"5","y\n"6","\xfe"\n"7",""')
    assert [(one.record_number, one.reason) for one in reading.refused] == [
        (1, "invalid_encoding"),
        (2, "malformed_record"),
        (4, "invalid_encoding"),
        (5, "malformed_record"),
        (6, "invalid_encoding"),
    ]
    assert list(reading.rows) == [3, 7]


def test_nul_in_a_malformed_record_does_not_touch_the_others() -> None:
    reading = read(with_second(b'"2\x00'))
    assert reading.rows == GOOD
    assert reading.reasons == {2: "malformed_record"}


# --- long records -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 10, 1_000])
def test_a_record_longer_than_the_block_is_read(block_size: int) -> None:
    text = 'ab "c"\n' * 700
    quoted = text.replace('"', '""')
    reading = read(f'id,a\n"1","{quoted}"\n"2","x"'.encode(), block_size=block_size)
    assert reading.cells == [["1", text], ["2", "x"]]


def test_a_record_longer_than_allowed_is_an_error_naming_it() -> None:
    with pytest.raises(ExportError, match=r"Post_export\.csv: record 3 is longer than 100 bytes"):
        read(b'id,a\n"1","x"\n"2","x"\n"3","' + b"x" * 200 + b'"\n"4","x"', block_size=16, longest_record=100)


def test_a_quote_never_closed_is_not_waited_for_beyond_the_longest_record() -> None:
    rows = b"".join(b"%d,x\n" % number for number in range(3, 200))
    reading = read(b'id,a\n1,x\n2,"y\n' + rows, block_size=16, longest_record=100)
    assert reading.reasons == {2: "malformed_record"}
    assert list(reading.rows) == [1, *range(3, 200)]


# --- the reader itself ------------------------------------------------------------------------------------------------


def test_a_file_is_read_block_by_block(tmp_path: Path) -> None:
    path = tmp_path / "Post_export.csv"
    path.write_bytes(b"id,a\n" + b'"1","x"\n' * 1_000)
    with open_export(ExportFile("Post", path), 800) as reader:
        batches = reader.batches()
        first = next(batches)
        assert 90 <= first.columns.num_rows <= 100
        assert 800 <= reader.bytes_read <= 1_000
        assert sum(batch.columns.num_rows for batch in batches) == 1_000 - first.columns.num_rows
        assert reader.bytes_read == reader.size


def test_a_block_of_refused_records_only_is_a_batch_without_rows() -> None:
    reading: Reading = read(b'id,a\n"1","x"\n' + b'"2"\n' * 20 + b'"3","z"', block_size=16)
    assert list(reading.rows) == [1, 22]
    assert len(reading.refused) == 20


def test_a_reader_reads_once_and_closes_its_file(tmp_path: Path) -> None:
    path = tmp_path / "Post_export.csv"
    path.write_bytes(b'id,a\n"1","x"')
    with open_export(ExportFile("Post", path)) as reader:
        list(reader.batches())
        with pytest.raises(RuntimeError, match="has been read already"):
            reader.batches()
    reader.close()
    with open_export(ExportFile("Post", path)) as reader:
        pass
    with pytest.raises(ValueError, match="closed file"):
        list(reader.batches())


@pytest.mark.parametrize("name", ["Post_export.csv", "Post.jsonl"])
def test_a_disk_fault_while_reading_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str) -> None:
    path = tmp_path / name
    record = b'"1",""\n' if name.endswith("csv") else b'{"id":"1"}\n'
    path.write_bytes(b"id,a\n" * name.endswith("csv") + record * 300_000)

    class Faulty(io.FileIO):
        def readinto(self, buffer: Buffer, /) -> int:
            if self.tell() > 1_500_000:
                raise OSError(5, "Input/output error")
            return super().readinto(buffer)

    def open_faulty(path: Path, _: str) -> io.BufferedReader:
        return io.BufferedReader(Faulty(path))

    monkeypatch.setattr(Path, "open", open_faulty)
    with (
        open_export(ExportFile("Post", path), 1 << 16) as reader,
        pytest.raises(ExportError, match=r"Post.*: cannot be read on: Input/output error"),
    ):
        list(reader.batches())
