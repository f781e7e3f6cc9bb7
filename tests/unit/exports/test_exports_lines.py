"""Records that come as lines hold what the same records hold as columns."""

from __future__ import annotations

import re
import tempfile
from pathlib import Path

from hypothesis import example, given
from hypothesis import strategies as st

from b44_assets.exports import Batch, ExportFile, Whole, open_export
from tests.helpers.reading_exports import Row, plain_record, read

CELLS = [
    "",
    "a",
    "'=1",
    "'a",
    ",'=",
    '"',
    "a\nb",
    "a\r\nb",
    "\r",
    ",",
    "null",
    "<b>",
    "é😀",
    "\\.",
    "[1]",
    '{"a":1}',
    "\ufeff",
    " ",
]
RECORDS = st.lists(st.lists(st.sampled_from(CELLS), min_size=3, max_size=3), min_size=1, max_size=8)


def quoted(cells: list[str]) -> str:
    return ",".join('"' + cell.replace('"', '""') + '"' for cell in cells)


def in_lines(data: bytes, whole: Whole, block_size: int) -> tuple[list[Batch], dict[int, Row], dict[str, int]]:
    """The batches of a file, all its rows, those of lines read by a plain reader, and what was odd."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "Post_export.csv")
        path.write_bytes(data)
        with open_export(ExportFile("Post", path), block_size) as reader:
            batches = list(reader.batches(whole))
            fields, oddities = reader.fields, dict(reader.oddities)
    rows: dict[int, Row] = {}
    for batch in batches:
        rows.update(zip(batch.record_numbers.to_pylist(), batch.columns.to_pylist(), strict=True))
        if batch.lines is not None:
            for number, text in zip(batch.lines.record_numbers, batch.lines.texts, strict=True):
                record = plain_record(text + b"\n", all_quoted=False, final=False)
                assert record is not None
                assert record[1] == len(text) + 1
                cells = [cell[1:-1].replace(b'""', b'"') if cell[:1] == b'"' else cell for cell in record[0]]
                rows[number] = dict(zip(fields, (cell.decode() or None for cell in cells), strict=True))
    return batches, rows, oddities


@given(
    RECORDS,
    st.sampled_from(['"id","b","c"', "id,b,c"]),
    st.sampled_from(["\n", "\r\n"]),
    st.booleans(),
    st.integers(1, 99),
)
@example([["1", "a", "b"]], '"id","b","c"', "\n", True, 99)
def test_lines_hold_what_columns_hold(
    records: list[list[str]], header: str, line_end: str, ended: bool, block_size: int
) -> None:
    text = line_end.join([header, *map(quoted, records)]) + line_end * ended
    expected = read(text.encode(), block_size=block_size)
    _, rows, oddities = in_lines(text.encode(), Whole(), block_size)
    assert rows == expected.rows
    assert oddities == expected.oddities


@given(st.lists(st.sampled_from(["a", '"a"', "", '""', '"a,b"', "1.5"]), min_size=3, max_size=3))
def test_lines_of_a_spreadsheet_hold_what_columns_hold(cells: list[str]) -> None:
    text = "id,b,c\n" + ",".join(cells) + "\n1,,x\n"
    _, rows, _ = in_lines(text.encode(), Whole(), 99)
    assert rows == read(text.encode()).rows


def test_lines_lack_line_ends_and_guards() -> None:
    records = ['"1","a","b"', '"2","\'=1","\'@"', '"3","a","b,\'=1"\r', '"4","a"",""\'=1","b"']
    text = "\n".join(['"id","b","c"', *records])
    (batch,), _, _ = in_lines(text.encode(), Whole(), 1 << 20)
    assert batch.lines is not None
    assert list(batch.lines.record_numbers) == [1, 2, 3, 4]
    assert list(batch.lines.ids()) == ["1", "2", "3", "4"]
    assert batch.lines.texts == [
        b'"1","a","b"',
        b'"2","=1","@"',
        b'"3","a","b,\'=1"',
        b'"4","a"",""\'=1","b"',
    ]
    assert (len(batch.record_numbers), batch.records) == (0, 4)


def test_a_suspect_text_is_judged_without_its_guard() -> None:
    text = '"id","b","c"\n"1","\'=<good>","y"\n"2","\'=<bad>","y"\n'
    (batch,), rows, oddities = in_lines(text.encode(), Whole(re.compile(b"<"), None, {"b": "=<good>".__eq__}), 1 << 20)
    assert batch.record_numbers.to_pylist() == [2]
    assert {number: row["b"] for number, row in rows.items()} == {1: "=<good>", 2: "=<bad>"}
    assert oddities == {"guard quotes removed": 2}


def test_of_suspect_records_those_come_as_lines_that_stay_as_they_are() -> None:
    text = '"id","b","c"\n"1","<is ""x"">","y"\n"2","<bads>","y"\n"3","s","<elsewhere>"\n"4","",""\n"5","<no "" letter>","y"\n'
    asked: list[str] = []

    def unchanged(cell: str) -> bool:
        asked.append(cell)
        return "bad" not in cell

    (batch,), _, _ = in_lines(text.encode(), Whole(re.compile(b"<"), b'(?:[^"s]|"")*', {"b": unchanged}), 1 << 20)
    assert asked == ['<is "x">', "<bads>", "s"]
    assert batch.record_numbers.to_pylist() == [2]
    assert batch.columns.to_pylist() == [{"id": "2", "b": "<bads>", "c": "y"}]


def test_no_record_comes_as_a_line_where_copy_would_read_it_otherwise() -> None:
    doubled = b'id,b,c\n"1","{""""a"""":1}","null"\n'
    semicolons = b"id;b;c\n1;2;3\n"
    nul = b'"id","b","c"\n"1","a\0","b"\n"2","a","b"\n'
    not_utf8 = b'"id","b","c"\n"1","a\xff","b"\n"2","a","b"\n'
    for data in (doubled, semicolons, nul, not_utf8):
        batches, _, _ = in_lines(data, Whole(), 1 << 20)
        assert [batch.lines for batch in batches] == [None]
