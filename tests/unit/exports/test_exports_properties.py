"""Any table in any dialect reads back as it was written, and damage costs no more than what is damaged."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import assume, example, given
from hypothesis import strategies as st

from tests.helpers.reading_exports import plain_record, read

CHARACTERS = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
TREACHEROUS = st.sampled_from(
    ['"', '""', ",", ";", "\t", "\n", "\r\n", "\r", "'", "=", "é", "𝄞", "\ufeff", "null", "{"]
)
TEXT = st.one_of(
    st.text(CHARACTERS, max_size=8),
    st.lists(st.one_of(TREACHEROUS, st.text(CHARACTERS, max_size=3)), max_size=5).map("".join),
)
BLOCK_SIZES = st.one_of(st.integers(1, 64), st.just(8 << 20))
Table = list[list[str | None]]


@st.composite
def tables(draw: st.DrawFn) -> Table:
    fields = draw(st.integers(1, 4))
    return draw(st.lists(st.lists(st.none() | TEXT, min_size=fields, max_size=fields), min_size=1, max_size=6))


def quoted(text: str) -> str:
    return '"' + text.replace('"', '""') + '"'


def header(table: Table, last: str, *, quotes: bool = False) -> list[str]:
    names = [*(f"f{index}" for index in range(len(table[0]))), last]
    return [quoted(name) for name in names] if quotes else names


def joined(lines: list[list[str]], *, line_end: str = "\n", delimiter: str = ",") -> bytes:
    return line_end.join(delimiter.join(line) for line in lines).encode()


def is_container(text: str) -> bool:
    try:
        return isinstance(json.loads(text), (dict, list))
    except ValueError:
        return False


# --- what is written is read ------------------------------------------------------------------------------------------


@given(tables(), BLOCK_SIZES, st.sampled_from(["\n", "\r\n"]), st.booleans())
@example([['{"a":["b"]}'], [None]], 1, "\n", False)
def test_2025_06_reads_back(table: Table, block_size: int, line_end: str, ends: bool) -> None:
    assume(not any(cell in ("null", "undefined") for row in table for cell in row))

    def write(cell: str | None) -> str:
        if cell is None:
            return '"null"'
        is_json = cell[:1] in ("{", "[") and is_container(cell)
        return quoted(cell.replace('"', '""') if is_json else cell)

    # A column that tells the dialect, whatever the others hold.
    lines = [header(table, "mark"), *([*map(write, row), write('{"a":"b"}')] for row in table)]
    reading = read(joined(lines, line_end=line_end) + line_end.encode() * ends, block_size=block_size)
    assert reading.dialect.name == "2025-06"
    assert reading.cells == [[*row, '{"a":"b"}'] for row in table]
    assert not reading.refused


@given(tables(), BLOCK_SIZES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_2025_08_reads_back(table: Table, block_size: int, line_end: str, ends: bool) -> None:
    lines = [header(table, "mark"), *([*(quoted(cell or "") for cell in row), quoted('{"a":1}')] for row in table)]
    reading = read(joined(lines, line_end=line_end) + line_end.encode() * ends, block_size=block_size)
    assert reading.dialect.name == "2025-08"
    assert reading.cells == [[*(cell or None for cell in row), '{"a":1}'] for row in table]
    assert not reading.refused


@given(tables(), BLOCK_SIZES, st.sampled_from(["\n", "\r\n"]), st.booleans())
def test_2026_06_reads_back(table: Table, block_size: int, line_end: str, ends: bool) -> None:
    # What begins so cannot be told from a guarded cell.
    assume(not any((cell or "").startswith(("'=", "'+", "'-", "'@")) for row in table for cell in row))

    def write(cell: str | None) -> str:
        guard = "'" if cell and cell[0] in "=+-@" else ""
        return quoted(guard + (cell or ""))

    lines = [header(table, "last", quotes=True), *([*map(write, row), '"z"'] for row in table)]
    reading = read(joined(lines, line_end=line_end) + line_end.encode() * ends, block_size=block_size)
    assert reading.dialect.name == "2026-06"
    assert reading.cells == [[*(cell or None for cell in row), "z"] for row in table]
    assert not reading.refused


@given(tables(), BLOCK_SIZES, st.sampled_from(["\n", "\r\n"]), st.sampled_from([",", ";", "\t"]), st.data())
def test_a_spreadsheet_reads_back(
    table: Table, block_size: int, line_end: str, delimiter: str, data: st.DataObject
) -> None:
    def write(cell: str | None) -> str:
        text = cell or ""
        needs_quotes = any(character in text for character in f'"\r\n{delimiter}')
        return quoted(text) if needs_quotes or (text and data.draw(st.booleans())) else text

    # The first cell is never blank nor quoted; rows may end behind their last filled cell.
    lines = [["id", *header(table, "last")]]
    for number, row in enumerate(table, 1):
        line = [str(number), *map(write, row), ""]
        while line[-1] == "" and data.draw(st.booleans()):
            line.pop()
        lines.append(line)
    mark = b"\xef\xbb\xbf" if data.draw(st.booleans()) else b""
    written = mark + joined([*lines, []], line_end=line_end, delimiter=delimiter)
    reading = read(written, block_size=block_size)
    assert reading.dialect.name == "spreadsheet"
    assert reading.cells == [
        [str(number), *(cell or None for cell in row), None] for number, row in enumerate(table, 1)
    ]
    assert not reading.refused


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
KEYS = TEXT.filter(lambda key: bool(key.strip()))


def cell_of(value: Any) -> str | None:
    if value is None or isinstance(value, str):
        return value
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


@given(
    st.lists(st.dictionaries(KEYS, VALUES, max_size=4), min_size=1, max_size=5),
    BLOCK_SIZES,
    st.booleans(),
    st.sampled_from(["array", "array, indented", "lines", "indented objects"]),
    st.sampled_from(["Post.json", "Post.jsonl"]),
)
def test_json_reads_back(
    records: list[dict[str, Any]], block_size: int, ascii_only: bool, form: str, name: str
) -> None:
    # One object alone may be one around the records.
    assume("array" in form or len(records) > 1)
    indent = 1 if "indented" in form else None
    if "array" in form:
        text = json.dumps(records, ensure_ascii=ascii_only, indent=indent)
    else:
        text = "\n".join(json.dumps(record, ensure_ascii=ascii_only, indent=indent) for record in records)
    reading = read(text.encode(), name, block_size=block_size)
    assert reading.dialect.name == ("json" if "array" in form else "jsonl")
    assert list(reading.fields) == list(dict.fromkeys(key for record in records for key in record))
    assert list(reading.rows.values()) == [
        {field: cell_of(record.get(field)) for field in reading.fields} for record in records
    ]
    assert not reading.refused


# --- damage -----------------------------------------------------------------------------------------------------------

# Texts of which no part looks like a record of its own once a quote is lost: they begin with a letter, so that a lost
# quote is noticed at the next cell, and no line in them begins or ends with a quote, the one that closes the cell among them.
SOUND = st.one_of(
    st.just(""),
    st.builds(
        lambda first, rest: first + "".join(rest),
        st.sampled_from("abé"),
        st.lists(st.sampled_from(['"', ",", "\n", "a", "é", "𝄞", "'", '","']), max_size=6),
    ).filter(lambda text: '\n"' not in text + '"' and '"\n' not in text),
)


@st.composite
def sound_records(draw: st.DrawFn, least: int = 2) -> list[bytes]:
    """The records of an all-quoted file, their first cells filled.

    The last cell has no line break: a quote gained before one there ends the record, and nothing could tell.
    """
    fields = draw(st.integers(1, 3))
    row = st.lists(SOUND, min_size=fields - 1, max_size=fields - 1)
    rows = draw(st.lists(row, min_size=least, max_size=6))
    records = [[f"r{number}", *cells] for number, cells in enumerate(rows)]
    for record in records:
        record[-1] = record[-1].replace("\n", " ")
    return [",".join(map(quoted, record)).encode() for record in records]


def head_for(records: list[bytes]) -> bytes:
    found = plain_record(records[0], all_quoted=True, final=True)
    assert found is not None
    return ",".join(quoted(f"f{index}") for index in range(len(found[0]))).encode() + b"\n"


@given(sound_records(), BLOCK_SIZES, st.data())
def test_one_quote_too_many_or_too_few_costs_its_record_alone(
    records: list[bytes], block_size: int, data: st.DataObject
) -> None:
    head = head_for(records)
    victim = data.draw(st.integers(0, len(records) - 1))
    record = records[victim].decode()
    if data.draw(st.booleans(), "insert"):
        place = data.draw(st.integers(0, len(record)))
        damaged = record[:place] + '"' + record[place:]
    else:
        place = data.draw(st.sampled_from([at for at, character in enumerate(record) if character == '"']))
        damaged = record[:place] + record[place + 1 :]
    whole = read(head + b"\n".join(records))
    others = [*records[:victim], damaged.encode(), *records[victim + 1 :]]
    reading = read(head + b"\n".join(others), block_size=block_size)
    expected = dict(whole.rows)
    del expected[victim + 1]
    assert reading.rows == expected
    assert [(one.record_number, one.reason, one.record) for one in reading.refused] == [
        (victim + 1, "malformed_record", {"_raw": damaged})
    ]


@given(sound_records(1), BLOCK_SIZES, st.booleans(), st.data())
def test_a_file_cut_off_anywhere_loses_at_most_the_record_that_was_cut(
    records: list[bytes], block_size: int, bare_header: bool, data: st.DataObject
) -> None:
    head = head_for(records)
    if bare_header:
        head = head.replace(b'"', b"")
    body = b"\n".join(records)
    cut = data.draw(st.integers(0, len(body)))
    ends = [sum(map(len, records[: number + 1])) + number for number in range(len(records))]
    complete = sum(end <= cut for end in ends)
    rest = body[:cut] if not complete else body[ends[complete - 1] + 1 : cut]
    # Cut behind one of two quotes that stand for one, the last record looks complete.
    found = plain_record(rest, all_quoted=True, final=True)
    looks_complete = found is not None and len(found[0]) == head.count(b",") + 1
    whole = read(head + body)
    reading = read(head + body[:cut], block_size=block_size)
    assert {number: row for number, row in reading.rows.items() if number <= complete} == {
        number: row for number, row in whole.rows.items() if number <= complete
    }
    assert len(reading.rows) == complete + looks_complete
    assert reading.reasons == ({complete + 1: "malformed_record"} if rest and not looks_complete else {})


@given(sound_records(), BLOCK_SIZES, st.sampled_from([b"\xff", b"\0"]), st.data())
def test_a_byte_gone_bad_costs_its_record_alone(
    records: list[bytes], block_size: int, bad: bytes, data: st.DataObject
) -> None:
    head = head_for(records)
    victim = data.draw(st.integers(0, len(records) - 1))
    record = records[victim]
    place = data.draw(st.integers(0, len(record) - 1))
    damaged = record[:place] + bad + record[place + 1 :]
    whole = read(head + b"\n".join(records))
    reading = read(head + b"\n".join([*records[:victim], damaged, *records[victim + 1 :]]), block_size=block_size)
    expected = dict(whole.rows)
    del expected[victim + 1]
    assert reading.rows == expected
    still_splits = plain_record(damaged, all_quoted=True, final=True)
    fields = head.count(b",") + 1
    reason = "invalid_encoding" if still_splits and len(still_splits[0]) == fields else "malformed_record"
    assert reading.reasons == {victim + 1: reason}


JSON_RECORDS = st.lists(
    st.fixed_dictionaries(
        {"title": SOUND, "n": st.integers(), "parts": st.lists(st.fixed_dictionaries({"x": SOUND}), max_size=2)}
    ),
    min_size=1,
    max_size=5,
)


@given(JSON_RECORDS, BLOCK_SIZES, st.booleans(), st.data())
def test_json_cut_off_anywhere_loses_at_most_the_record_that_was_cut(
    records: list[dict[str, Any]], block_size: int, is_array: bool, data: st.DataObject
) -> None:
    parts = [json.dumps({"id": f"r{number}", **record}).encode() for number, record in enumerate(records)]
    begin, between, end = (b"[", b",\n", b"]") if is_array else (b"", b"\n", b"\n")
    text = begin + between.join(parts) + end
    cut = data.draw(st.integers(1, len(text)))
    complete, at, started = 0, len(begin), False
    for part in parts:
        if cut >= at + len(part):
            complete += 1
        elif cut > at:
            started = True
        at += len(part) + len(between)
    whole = read(text, "Post.json")
    reading = read(text[:cut], "Post.json", block_size=block_size)
    assert list(reading.rows.values()) == list(whole.rows.values())[:complete]
    assert reading.reasons == ({complete + 1: "malformed_record"} if started else {})


@given(JSON_RECORDS.filter(lambda records: len(records) > 1), BLOCK_SIZES, st.booleans(), st.data())
def test_json_with_one_byte_missing_costs_its_record_alone(
    records: list[dict[str, Any]], block_size: int, is_array: bool, data: st.DataObject
) -> None:
    parts = [json.dumps({"id": f"r{number}", **record}).encode() for number, record in enumerate(records)]
    begin, between, end = (b"[", b",\n", b"]") if is_array else (b"", b"\n", b"\n")
    # Not the first record, which tells the keys that records have.
    victim = data.draw(st.integers(1, len(parts) - 1))
    place = data.draw(st.integers(0, len(parts[victim]) - 1))
    damaged = parts[victim][:place] + parts[victim][place + 1 :]
    try:
        json.loads(damaged)
    except ValueError:
        pass
    else:
        return  # a letter or digit less is still JSON
    whole = read(begin + between.join(parts) + end, "Post.json")
    reading = read(
        begin + between.join([*parts[:victim], damaged, *parts[victim + 1 :]]) + end, "Post.json", block_size=block_size
    )
    expected = dict(whole.rows)
    del expected[victim + 1]
    assert reading.rows == expected
    assert reading.reasons == {victim + 1: "malformed_record"}
