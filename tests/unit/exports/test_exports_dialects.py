"""Telling from a file's content how it is written."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import pytest

from b44_assets.errors import ExportError
from b44_assets.exports import ExportFile, open_export
from tests.helpers.reading_exports import read

DOUBLED = b'"{""""a"""":1}"'
NORMAL = b'"{""a"":1}"'


def name_of(data: bytes) -> str:
    return read(data).dialect.name


@pytest.mark.parametrize(
    ("data", "name"),
    [
        pytest.param(b'id,a\n"1","null"\n"2","x"', "2025-06", id="a literal null"),
        pytest.param(b'id,a\n"1","undefined"\n"2","x"', "2025-06", id="a literal undefined"),
        pytest.param(b'id,a\n"1",' + DOUBLED, "2025-06", id="an object doubled twice"),
        pytest.param(b'id,a\n"1","[""""a"""",1]"', "2025-06", id="an array doubled twice"),
        pytest.param(b'id,a\n"1",' + DOUBLED + b'\n"2",""\n"3",""', "2025-06", id="JSON outweighs empty cells"),
        pytest.param(b'id,a\n"1",' + NORMAL + b'\n"2","null"\n"3","null"', "2025-08", id="JSON outweighs nulls"),
        pytest.param(b'id,a\n"1",""\n"2","x"', "2025-08", id="an empty cell"),
        pytest.param(b'id,a\n"1","x"', "2025-08", id="nothing speaks for either"),
        pytest.param(b'id,a\n"1","[1,2]"', "2025-08", id="JSON without quotes says nothing"),
        pytest.param(b'id,a,b\n"1","null","null"\n"2","","x"', "2025-06", id="more nulls than empty cells"),
        pytest.param(b'id,a,b\n"1","null",""\n"2","","x"', "2025-08", id="more empty cells than nulls"),
        pytest.param(b'id,created_by_id,created_by\n"1","null","null"', "2025-08", id="creators say nothing"),
        pytest.param(
            b'id,created_by_id,a\n"1","null",""\n"2","null","x"', "2025-08", id="creators do not outweigh others"
        ),
        pytest.param(
            b'id,n,t\n"1","null",""\n"2","5",""\n"3","6",""', "2025-06", id="a null among numbers outweighs empty text"
        ),
        pytest.param(
            b'id,n,t\n"1","","null"\n"2","true","null"\n"3","false","x"', "2025-08", id="so does an empty boolean"
        ),
        pytest.param(b'id,a\n"1","[""""]"\n"2","x"', "2025-08", id="an array of one empty string"),
        pytest.param(b'id,a\n"1","{"""":1}"\n"2","null"', "2025-06", id="an empty key is no doubling, a null tells"),
        pytest.param(b'"id","a"\n"1","null"', "2026-06", id="a quoted header"),
        pytest.param(b'"id"\n"1"', "2026-06", id="one column under a quoted header"),
        pytest.param(b'"id","a"', "2026-06", id="a quoted header alone"),
        pytest.param(b"id,a", "spreadsheet", id="a bare header alone"),
        pytest.param(b"id,a\n\n\n", "spreadsheet", id="a bare header and blank lines"),
        pytest.param(b"id,a\n1,x\n", "spreadsheet", id="bare cells"),
        pytest.param(b'id,a\n1,"x,y"\n', "spreadsheet", id="quoted where needed"),
        pytest.param(b'"id","a"\n1,"x,y"\n2,\n', "spreadsheet", id="bare cells under a quoted header"),
        pytest.param(b'id;a\n"1";"x"\n', "spreadsheet", id="semicolons"),
        pytest.param(b'id\ta\n1\t"x"\n', "spreadsheet", id="tabs"),
        pytest.param(b'id,a\n"1,1","x\ny"\n"2,2","z ""z"""\n3,\n4,\n5,\n', "spreadsheet", id="some rows all quoted"),
        pytest.param(b"id\nx\n", "spreadsheet", id="one column"),
        pytest.param(b'\xef\xbb\xbfid,a\r\n"1","null"\r\n"2","x"\r\n', "2025-06", id="byte order mark and CRLF"),
        pytest.param(b"", "empty", id="no bytes"),
        pytest.param(b" \r\n\t\n", "empty", id="white space"),
        pytest.param(b"\xef\xbb\xbf", "empty", id="a byte order mark alone"),
        pytest.param(b" \n" * 100_000, "empty", id="much white space"),
    ],
)
def test_dialect(data: bytes, name: str) -> None:
    assert name_of(data) == name


@pytest.mark.parametrize(
    ("first", "name"),
    [
        (b'x","null"', "2025-06"),
        (b'"x,"null"', "2025-06"),
        (b'"x""null"', "2025-06"),
        (b'"x","nu"ll"', "2025-06"),
    ],
)
def test_a_damaged_first_record_does_not_mislead(first: bytes, name: str) -> None:
    assert name_of(b"id,a\n" + first + b'\n"2","null"\n"3","y"') == name


@pytest.mark.parametrize("rest", [b'"', b'"x', b'"x"', b'"x",', b'"x","', b'x","y"', b'"x"",""y"'])
def test_a_single_damaged_record_is_still_seen_to_be_all_quoted(rest: bytes) -> None:
    reading = read(b"id,a\n" + rest)
    assert reading.dialect.all_quoted
    assert reading.reasons == {1: "malformed_record"}


def test_a_first_record_longer_than_the_sample_is_read_on() -> None:
    text = b"x" * (3 << 20)
    assert name_of(b'id,a\n"' + text + b'",' + DOUBLED) == "2025-06"
    assert name_of(b'id,a\n"' + text + b',",bare\n') == "spreadsheet"


def test_bare_cells_of_a_long_first_record_are_seen() -> None:
    reading = read(b'id,a,b\n1,x,"' + b"y" * 70_000 + b',"\n2,"x,y","z,"\n')
    assert reading.dialect.name == "spreadsheet"
    assert reading.reasons == {}


@pytest.mark.parametrize(("last", "name"), [(b'"null"', "2025-06"), (b'""', "2025-08"), (b'"x"', "2025-08")])
def test_evidence_behind_the_first_mib_counts_where_none_came_before(tmp_path: Path, last: bytes, name: str) -> None:
    path = tmp_path / "Post_export.csv"
    path.write_bytes(b"id,a\n" + b'"1","%b"\n' % (b"x" * 1_000) * 2_500 + b'"2",' + last)
    with open_export(ExportFile("Post", path)) as reader:
        assert reader.dialect.name == name


def test_what_is_known_of_a_dashboard_file() -> None:
    dialect = read(b'"id","a"\n"1","x"').dialect
    assert (dialect.delimiter, dialect.byte_order_mark) == (",", False)
    assert (dialect.all_quoted, dialect.guarded, dialect.doubled_json) == (True, True, False)
    assert dialect.null_literals == ("",)


def test_what_is_known_of_a_spreadsheet() -> None:
    reading = read(b"\xef\xbb\xbfid;a\r\n1;x\r\n")
    dialect = reading.dialect
    assert (dialect.delimiter, dialect.byte_order_mark) == (";", True)
    assert (dialect.all_quoted, dialect.guarded) == (False, False)
    assert reading.oddities == Counter({"byte order mark": 1})


def test_an_empty_file_has_no_fields_and_no_batches() -> None:
    reading = read(b"")
    assert (reading.fields, reading.rows, reading.batches) == ((), {}, 0)


@pytest.mark.parametrize("header", [b"id,a", b"id,a\n", b'"id","a"\r\n', b"\n\nid,a\n\n"])
def test_a_header_alone_has_fields_and_no_batches(header: bytes) -> None:
    reading = read(header)
    assert (reading.fields, reading.rows, reading.batches) == (("id", "a"), {}, 0)


@pytest.mark.parametrize(
    ("header", "fields", "oddities"),
    [
        (b"id,a,a,a", ("id", "a", "a_2", "a_3"), {"duplicate header name": 2}),
        (b"a,a,a_2", ("a", "a_3", "a_2"), {"duplicate header name": 1}),
        (b"id,,b, ", ("id", "column_2", "b", "column_4"), {"blank header name": 2}),
        (b"column_2,,b", ("column_2", "column_2_2", "b"), {"blank header name": 1}),
        (b'"a ""b""","c,d","e\nf"', ('a "b"', "c,d", "e\nf"), {}),
        ("é,id ,Σ".encode(), ("é", "id ", "Σ"), {}),
        (b'id,"a;b;c"', ("id", "a;b;c"), {}),
    ],
)
def test_names_of_fields(header: bytes, fields: tuple[str, ...], oddities: dict[str, int]) -> None:
    reading = read(header + b"\n")
    assert reading.fields == fields
    assert reading.oddities == Counter(oddities)


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ("id,a\n".encode("utf-16"), "is encoded as UTF-16; save it as UTF-8"),
        (b"\xfe\xff" + "id".encode("utf-16-be"), "is encoded as UTF-16; save it as UTF-8"),
        ("id,a\n".encode("utf-32"), "is encoded as UTF-32; save it as UTF-8"),
        ("id,a\n".encode("utf-16-le"), "is encoded as UTF-16; save it as UTF-8"),
        (b"PK\x03\x04\x00\x00", "NUL bytes in the header"),
        (b"id,\xff\n1,2\n", "the header is not valid UTF-8"),
        (b'id,"a\n"1","2"\n', "the header cannot be split into names"),
        (b'id,a"\n"1","2"\n', "the header cannot be split into names"),
        (b"id,a\r1,2\r3,4\r", "end lines with LF or CRLF"),
        (b'[{"id":1}]', "holds JSON, not CSV"),
        (b'{"id":1}', "holds JSON, not CSV"),
        (b"<!DOCTYPE html>\n<html>", "holds a web page, not CSV"),
        (b"x" * (2 << 20), "the header is longer than"),
        (
            b",".join(b"f%d" % number for number in range(8_001)) + b"\n",
            "8,001 fields in the header; at most 8,000",
        ),
    ],
)
def test_a_header_that_cannot_be_read_is_an_error_in_one_line(data: bytes, message: str) -> None:
    with pytest.raises(ExportError, match=message) as caught:
        read(data)
    assert "Post_export.csv: " in str(caught.value)
    assert "\n" not in str(caught.value)


def test_as_many_fields_as_allowed() -> None:
    names = [f"f{number}" for number in range(8_000)]
    reading = read((",".join(names) + "\n" + ",".join(f'"{name}"' for name in names)).encode())
    assert reading.fields == tuple(names)
    assert reading.cells == [names]


def test_a_file_that_cannot_be_opened_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ExportError, match=r"Post\.csv: cannot be read: No such file or directory"):
        open_export(ExportFile("Post", tmp_path / "Post.csv"))


@pytest.mark.parametrize("block_size", [0, -1])
def test_a_block_has_at_least_one_byte(tmp_path: Path, block_size: int) -> None:
    with pytest.raises(ValueError, match="at least 1"):
        open_export(ExportFile("Post", tmp_path / "Post.csv"), block_size)
