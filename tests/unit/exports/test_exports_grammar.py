"""Splitting bytes into records, held against a plain reader that goes character by character."""

from __future__ import annotations

import csv
import io
import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.exports.csv_grammar import Fitted, Good, Grammar, Malformed
from b44_assets.exports.dialects import usual_cells
from tests.helpers.reading_exports import plain_record

# Mostly what matters: quotes, delimiters, line ends, alone and in treacherous company.
PIECES = [b'"', b'""', b",", b";", b"\t", b"\n", b"\r\n", b"\r", b"a", b'","', b'"\n"']
BYTES = st.lists(st.sampled_from(PIECES), max_size=16).map(b"".join)
FORMS = st.tuples(st.integers(1, 3), st.sampled_from([b",", b";", b"\t"]), st.booleans())


@given(BYTES, FORMS, st.booleans())
def test_good_records_are_those_of_the_plain_reader(data: bytes, form: tuple[int, bytes, bool], final: bool) -> None:
    fields, delimiter, all_quoted = form
    at, ends = 0, list[int]()
    while (record := plain_record(data, at, delimiter=delimiter, all_quoted=all_quoted, final=final)) and len(
        record[0]
    ) == fields:
        at = record[1]
        ends.append(at)
    segments = Grammar(fields, delimiter=delimiter, all_quoted=all_quoted).split(data, final=final).segments
    begin = [one for one in segments[:1] if isinstance(one, Good) and one.start == 0]
    assert begin == ([Good(0, ends)] if ends else [])


@given(BYTES, FORMS)
def test_at_the_end_of_the_file_every_byte_is_spent(data: bytes, form: tuple[int, bytes, bool]) -> None:
    fields, delimiter, all_quoted = form
    split = Grammar(fields, delimiter=delimiter, all_quoted=all_quoted).split(data, final=True)
    assert split.consumed == len(data)


@given(BYTES, FORMS)
def test_a_damaged_record_ends_before_the_first_whole_one(data: bytes, form: tuple[int, bytes, bool]) -> None:
    fields, delimiter, all_quoted = form
    grammar = Grammar(fields, delimiter=delimiter, all_quoted=all_quoted)
    split = grammar.split(b'a"\n' + data, final=True)
    lines = b'a"\n' + data
    expected = len(lines)
    for at in range(len(lines)):
        if lines[at : at + 1] == b"\n":
            record = plain_record(lines, at + 1, delimiter=delimiter, all_quoted=all_quoted, final=True)
            if record is not None and len(record[0]) == fields:
                expected = at + 1
                break
    # Up to there, it may be told apart into several; not a byte of them but line ends is lost.
    at, damaged = 0, 0
    for one in split.segments:
        if at == expected:
            break
        assert isinstance(one, Malformed)
        assert one.raw
        assert lines.startswith(one.raw, at)
        at += len(one.raw)
        at += next(len(end) for end in (b"\r\n", b"\n", b"\r", b"") if lines.startswith(end, at))
        damaged += 1
    assert at == expected
    assert damaged


@pytest.mark.parametrize("all_quoted", [True, False])
def test_the_beginning_of_a_record_is_told_from_what_can_never_become_one(all_quoted: bool) -> None:
    grammar = Grammar(2, delimiter=b",", all_quoted=all_quoted)
    for length in range(1, 7):
        for one in itertools.product(b'",a\n', repeat=length):
            data = bytes(one)
            if data[:1] == b"\n" or plain_record(data, all_quoted=all_quoted, final=False):
                continue
            can_become_one = any(
                (record := plain_record(data + rest, all_quoted=all_quoted, final=False))
                and record[1] == len(data + rest)
                for rest in (b"\n", b'"\n', b'""\n', b'"x"\n', b"x\n")
            )
            assert grammar.is_begun(data) is can_become_one, data


@given(BYTES, FORMS, st.integers(0, 40))
def test_what_comes_in_two_pieces_splits_as_in_one(data: bytes, form: tuple[int, bytes, bool], cut: int) -> None:
    """As long as it is undamaged; damage is judged by what is in view."""
    fields, delimiter, all_quoted = form
    grammar = Grammar(fields, delimiter=delimiter, all_quoted=all_quoted)
    whole = grammar.split(data, final=True)
    if any(isinstance(one, Malformed) for one in whole.segments):
        return
    first = grammar.split(data[:cut], final=False)
    second = grammar.split(data[first.consumed :], final=True)
    assert first.records + second.records == whole.records
    assert first.blank_lines + second.blank_lines == whole.blank_lines
    rows = [one.row for one in [*first.segments, *second.segments] if isinstance(one, Fitted)]
    assert rows == [one.row for one in whole.segments if isinstance(one, Fitted)]


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (b'"a","b"', "2 cells instead of 3"),
        (b'"a","b","c","d"', "4 cells instead of 3"),
        (b'"a","b","c', "the quote that opens cell 3 is never closed"),
        (b'"a","b",', "the file ends behind cell 2 of 3"),
        (b'"a","b"x,"c"', "text behind the closing quote of cell 2"),
        (b'"a",b,"c"', "cell 2 does not begin with a quote"),
        (b'a","b","c"', "cell 1 does not begin with a quote"),
    ],
)
def test_the_fault_of_a_damaged_record_is_named(record: bytes, detail: str) -> None:
    (segment,) = Grammar(3, delimiter=b",", all_quoted=True).split(record, final=True).segments
    assert segment == Malformed(record, detail)


@pytest.mark.parametrize(
    ("record", "detail"),
    [
        (b'a,b"c,d\n', "a quote or carriage return in the unquoted cell 2"),
        (b'"a,b",c\rd,e\n', "a quote or carriage return in the unquoted cell 2"),
        (b'a,"b"c,d\n', "text behind the closing quote of cell 2"),
        (b"a,b,c,d\n", "4 cells instead of 3"),
        (b"a,b", "2 cells instead of 3, and the file ends without a line end"),
    ],
)
def test_the_fault_of_a_damaged_row_of_a_spreadsheet_is_named(record: bytes, detail: str) -> None:
    (segment,) = Grammar(3, delimiter=b",", all_quoted=False).split(record, final=True).segments
    assert segment == Malformed(record.rstrip(b"\n"), detail)


def test_a_great_many_quotes_or_cells_need_little_memory_to_match() -> None:
    """The patterns must not remember a way back for each of them."""
    cell = b'"' + b'""' * 3_000_000 + b'"'
    commas = b"a" + b"," * 3_000_000 + b"\n"
    tracemalloc.start()
    try:
        assert Grammar(1, delimiter=b",", all_quoted=True).split(cell, final=True).segments == [Good(0, [len(cell)])]
        split = Grammar(2, delimiter=b",", all_quoted=False).split(commas, final=True)
        assert [type(one) for one in split.segments] == [Malformed]
        assert tracemalloc.get_traced_memory()[1] < 4 * len(cell)
    finally:
        tracemalloc.stop()


LINES = st.sampled_from(["x", "0,x", "0,1,x", "", 'say "hi"', ",", "1,2,3,4"])
CELLS = st.lists(LINES, max_size=4).map("\n".join)


@given(st.integers(2, 5), st.lists(st.lists(CELLS, max_size=4), min_size=1, max_size=6))
def test_lines_of_a_text_are_no_records_in_a_row_cut_short(fields: int, texts: list[list[str]]) -> None:
    rows = [[f"id{number}", *cells[: fields - 1]] for number, cells in enumerate(texts)]
    for row in rows:
        while row[-1] == "":
            row.pop()
    written = io.StringIO()
    csv.writer(written, lineterminator="\n").writerows(rows)
    data = written.getvalue().encode()

    usual = usual_cells(data, b",", fields, final=True)
    found = Grammar(fields, delimiter=b",", all_quoted=False, usual_cells=usual).split(data, final=True)

    assert (found.records, [one for one in found.segments if isinstance(one, Malformed)]) == (len(rows), [])


def test_a_record_inside_of_another_is_told_by_its_id() -> None:
    ids = [letter * 24 for letter in (b"a", b"b", b"c")]
    # The first lost its closing quote, and the last its opening one.
    data = b'%b,"x\n%b,y\n%b,z"\n' % tuple(ids)
    found = Grammar(4, delimiter=b",", all_quoted=False, usual_cells=2).split(data, final=True)
    assert found.segments[0] == Malformed(ids[0] + b',"x', "a quote or carriage return in the unquoted cell 2")
    assert found.segments[1] == Fitted(ids[1] + b",y,,\n")
