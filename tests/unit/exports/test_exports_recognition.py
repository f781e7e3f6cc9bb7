"""Files that are not written as expected: read where it is clear what is meant, else refused in one line."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.errors import ExportError, FieldClashError
from b44_assets.exports import ExportFile, open_export

KNOWN = ("id", "created_date", "created_at", "email", "full_name")
Row = dict[str, str | None]
A, B = "6970c3a24e8275af9d1ae397", "6970c3a24e8275af9d1ae398"


def take(
    data: bytes | str, name: str, *, block_size: int = 8 << 20, apart: frozenset[str] = frozenset()
) -> tuple[list[Row], dict[str, int], list[str]]:
    """Read a file whose known fields are looked for: the rows, the oddities, the texts of damaged records."""
    rows: list[Row] = []
    refused: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, name)
        path.write_bytes(data.encode() if isinstance(data, str) else data)
        with open_export(ExportFile("User", path), block_size, known=KNOWN, apart=apart) as reader:
            for batch in reader.batches():
                rows += batch.columns.to_pylist()
                refused += [one.record["_raw"] or "" for one in batch.refused]
            return rows, dict(reader.oddities), refused


ROWS: list[Row] = [{"id": A, "email": "a@example.org"}, {"id": B, "email": "b@example.org"}]


def table(header: str, delimiter: str = ",", end: str = "\n", before: str = "") -> str:
    return before + header + end + "".join(f"{row['id']}{delimiter}{row['email']}{end}" for row in ROWS)


@pytest.mark.parametrize(
    "text",
    [
        table("id;email", ";", before="sep=;\n"),
        table("id;email", ";", "\r\n", before="sep=;\r\n"),
        table('"id";"email"', ";", before='"sep=;"\n'),
        table("id,email", before="SEP=,\n"),
        table("id\temail", "\t", before="sep=\t\n"),
        table("id^email", "^", before="sep=^\n"),
        table("id|email", "|"),
        table("id\temail", "\t"),
        table("ID,Email"),
        table("Id,e-mail"),
        table("id, email"),
        table('" id ","email "'),
        table("_id,E_Mail"),
        table("\ufeffid,email"),
        table("\ufeff\ufeffid,email"),
        table("id,email", before=",,,\n\n"),
        table("\u00a0ID,EMAIL"),
    ],
)
def test_a_header_is_read_where_it_is_clear(text: str) -> None:
    assert take(text, "User.csv")[0] == ROWS


def test_what_was_read_otherwise_is_said() -> None:
    _, oddities, _ = take(table("ID;Email", ";", before="sep=;\n"), "User.csv")
    assert oddities == {
        "line that names the delimiter": 1,
        "field ID read as id": 1,
        "field Email read as email": 1,
    }


def test_of_two_fields_that_could_be_one_both_keep_their_names() -> None:
    [row], oddities, _ = take("id,ID,E-Mail,E_Mail\n1,2,3,4\n", "User.csv")
    assert row == {"id": "1", "ID": "2", "E-Mail": "3", "E_Mail": "4"}
    assert oddities == {}


ARRAY = json.dumps(ROWS)
BY_ID = json.dumps({row["id"]: {"email": row["email"]} for row in ROWS})


@pytest.mark.parametrize("block_size", [1, 16, 8 << 20])
@pytest.mark.parametrize(
    "text",
    [
        f'{{"data": {ARRAY}}}',
        f'{{"total": 2, "data": {ARRAY}, "page": {{"size": 5}}}}',
        f'{{"entities": {ARRAY}, "next_cursor": null, "has_more": false}}',
        f'{{"result": {{"ok": true, "items": {ARRAY}}}}}',
        f'{{"errors": [], "tags": ["a"], "records": {ARRAY}}}\n',
        BY_ID,
        f'{{"User": {BY_ID}}}',
        json.dumps({row["id"]: row for row in ROWS}, indent=2),
        json.dumps({"meta": {"app": "x"}, "data": ROWS}, indent=2),
        "\n".join(map(json.dumps, ROWS)),
        json.dumps([{"ID": row["id"], "Email": row["email"]} for row in ROWS]),
        "\ufeff\ufeff" + ARRAY,
    ],
)
def test_json_is_read_where_it_is_clear(text: str, block_size: int) -> None:
    assert take(text, "User.json", block_size=block_size)[::2] == (ROWS, [])


@pytest.mark.parametrize("name", ["User.json", "User.jsonl", "User.ndjson"])
def test_one_object_alone_is_one_record(name: str) -> None:
    assert take(json.dumps(ROWS[0]), name)[0] == ROWS[:1]
    assert take(json.dumps({"data": ROWS[0]}), name)[0] == [{**ROWS[0], "_key": "data"}]
    lists = {**ROWS[0], "roles": [{"id": 1}]}
    assert take(json.dumps(lists), name)[0] == [{**ROWS[0], "roles": '[{"id":1}]'}]


def test_what_stands_around_the_records_is_said() -> None:
    _, oddities, _ = take(f'{{"total": 2, "data": {ARRAY}, "page": null}}', "User.json")
    assert oddities == {"records within data": 1, "beside the records: total 2, page null": 1}
    assert take(BY_ID, "User.json")[1] == {"records keyed by id": 1}


def test_a_key_that_is_not_the_record_s_id_is_kept() -> None:
    rows, _, _ = take(json.dumps({A: ROWS[1], B: ROWS[1]}), "User.json")
    assert rows == [{**ROWS[1], "_key": A}, {**ROWS[1], "_key": None}]


@pytest.mark.parametrize("block_size", [1, 16, 8 << 20])
def test_damage_within_an_envelope_costs_its_record_alone(block_size: int) -> None:
    good = json.dumps(ROWS[0])
    rows, _, refused = take(f'{{"data": [{good}, {{"id": ,}}, {good}]}}', "User.json", block_size=block_size)
    assert (len(rows), refused) == (2, ['{"id": ,}'])
    text = f'{{"{A}": {good}, "{B}": {{"id": ,}}, "{A}": {good}}}'
    rows, _, refused = take(text, "User.json", block_size=block_size)
    assert (len(rows), refused) == (2, [f'"{B}": {{"id": ,}}'])


def test_an_envelope_larger_than_what_is_looked_at_is_streamed() -> None:
    many = [{"id": str(number), "email": "x" * 100} for number in range(20_000)]
    rows, _, _ = take(json.dumps({"data": many, "total": 20_000}), "User.json", block_size=1 << 16)
    assert rows == many
    rows, _, _ = take(json.dumps({f"{number:024x}": {"email": "x" * 100} for number in range(20_000)}), "User.json")
    assert [row["id"] for row in rows] == [f"{number:024x}" for number in range(20_000)]


def test_an_envelope_that_is_cut_off_keeps_its_whole_records() -> None:
    rows, oddities, _ = take(f'{{"data": {ARRAY[:-1]}', "User.json")
    assert (rows, oddities["array not closed"]) == (ROWS, 1)


@pytest.mark.parametrize(
    ("data", "name", "said"),
    [
        ("a,b\n1,2\n", "User.csv", r"fields found: a, b; expected: id, created_date"),
        ("Export of users\nid,email\n1,2\n", "User.csv", "fields found: Export of users; expected: id"),
        ("id:email\n1:2\n", "User.csv", "fields found: id:email; expected: id"),
        ('[{"email": "x"}]', "User.json", "fields found: email; expected: id"),
        ('["a", "b"]', "User.json", "fields found: none; expected: id"),
        ("[1]", "User.jsonl", "fields found: none; expected: id"),
        ('{"email": "x"}\n{"email": "y"}', "User.jsonl", "fields found: email"),
        (f'{{"a": {ARRAY}, "b": {ARRAY}}}', "User.json", "several arrays of records"),
        (f'{{"a": {{"x": {ARRAY}}}, "b": {{"x": {ARRAY}}}}}', "User.json", "several places"),
        (f'{{"data": {ARRAY}, "has_more": true}}', "User.json", "a page of the API's answer"),
        (f'{{"next_cursor": "x", "data": {ARRAY}}}', "User.json", "a page of the API's answer"),
        (f'{{"data": {ARRAY}, x}}', "User.json", "no JSON"),
        (ARRAY.encode("utf-16-le"), "User.json", "is encoded as UTF-16"),
        (ARRAY.encode("utf-16-be"), "User.json", "is encoded as UTF-16"),
        (ARRAY.encode("utf-32-le"), "User.json", "is encoded as UTF-32"),
        (ARRAY.encode("utf-32-be"), "User.json", "is encoded as UTF-32"),
        (ARRAY.encode("utf-16"), "User.json", "is encoded as UTF-16"),
        (table("id,email").encode("utf-16-le"), "User.csv", "is encoded as UTF-16"),
        (table("id,email").encode("utf-32"), "User.csv", "is encoded as UTF-32"),
    ],
)
def test_what_is_not_clear_is_refused_in_one_line(data: bytes | str, name: str, said: str) -> None:
    with pytest.raises(ExportError, match=said) as caught:
        take(data, name)
    assert f"{name}: " in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("blank", ["", " ", "\u00a0", "\ufeff", "null", "NULL", "undefined"])
@pytest.mark.parametrize(
    ("form", "name"),
    [
        ("id,email\n~,a\n~,b\n", "User.csv"),
        ('id,email\n"~","a"\n"~","b"', "User.csv"),
        ('"ID","email"\n"~","a"\n"~","b"', "User.csv"),
        ('[{"id":"~","email":"a"},{"id":"~","email":"b"}]', "User.json"),
        ('{"data":[{"_id":"~","email":"a"},{"email":"b"}]}', "User.json"),
        ('{"id":"~","email":"a"}\n{"id":null,"email":"b"}\n', "User.jsonl"),
    ],
)
def test_a_file_without_any_id_is_refused_in_one_line(form: str, name: str, blank: str) -> None:
    with pytest.raises(ExportError) as caught:
        take(form.replace("~", blank), name, block_size=16)
    said = str(caught.value)
    assert "\n" not in said
    assert f"{name}: none of its 2 records has an id" in said
    assert "fields found: id, email; expected: id, created_date" in said


@pytest.mark.parametrize("one", ["7", "nil", A])
def test_a_file_with_one_id_is_read_with_its_blank_ones(one: str) -> None:
    assert [row["id"] for row in take(f"id,email\n,a\nnull,b\n{one},c\n", "User.csv")[0]] == [None, "null", one]
    assert len(take(json.dumps([{"id": ""}, {"id": None}, {"id": one}]), "User.json", block_size=4)[0]) == 3


def test_a_file_without_records_needs_no_id() -> None:
    assert take("id,email\n", "User.csv")[0] == []
    assert take("[]", "User.json")[0] == []


def test_a_key_that_turns_out_to_be_two_is_told_and_then_kept_apart() -> None:
    text = '[{"ID": "1", "x": "a"}, {"id": "2", "x": "b"}]'
    with pytest.raises(FieldClashError) as caught:
        take(text, "User.json")
    assert caught.value.field == "id"
    rows, _, _ = take(text, "User.json", apart=frozenset({"id"}))
    assert [(row["ID"], row.get("id")) for row in rows] == [("1", None), (None, "2")]


def spelt(name: str, data: st.DataObject) -> str:
    parts = [data.draw(st.sampled_from([str.lower, str.upper, str.title]))(part) for part in name.split("_")]
    blank = st.sampled_from(["", " ", "\u00a0", "_"])
    return data.draw(blank) + data.draw(st.sampled_from(["", "_", " ", "-"])).join(parts) + data.draw(blank)


WRITERS: list[Callable[[list[Row], list[str]], tuple[str, str]]] = [
    lambda rows, names: (json.dumps(rows), "User.json"),
    lambda rows, names: (json.dumps({"data": rows}), "User.json"),
    lambda rows, names: ("\n".join(map(json.dumps, rows)), "User.json"),
    lambda rows, names: (json.dumps({str(row[names[0]]): row for row in rows}), "User.json"),
    *(
        lambda rows, names, d=d: (
            d.join(names) + "\n" + "".join(d.join(map(str, r.values())) + "\n" for r in rows),
            "User.csv",
        )
        for d in ",;\t|"
    ),
]


@given(st.sampled_from(WRITERS), st.data())
def test_known_fields_are_found_however_they_are_spelt(
    write: Callable[[list[Row], list[str]], tuple[str, str]], data: st.DataObject
) -> None:
    names = [spelt(name, data) for name in ("id", "full_name", "created_date")]
    rows: list[Row] = [dict(zip(names, (f"{n:024x}", "name", "day"), strict=True)) for n in range(3)]
    found, _, _ = take(*write(rows, names))
    assert found == [{"id": f"{n:024x}", "full_name": "name", "created_date": "day"} for n in range(3)]


# --- repeated keys ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("colon", [":", " :", "\n: "])
@pytest.mark.parametrize(
    ("record", "row"),
    [
        ('{"id"~"1","a"~"x","a"~"y"}', {"id": "1", "a": "y", "a#1": "x"}),
        ('{"id"~"1","id"~"2"}', {"id": "2", "id#1": "1"}),
        ('{"id":"1","a" :"x","b"\t:"y","a":"::"}', {"id": "1", "a": "::", "b": "y", "a#1": "x"}),
        (r'{"id"~"1","a"~"x","a"~"y\u003a","b:"~1}', {"id": "1", "a": "y:", "b:": "1", "a#1": "x"}),
        (r'{"id":"1","a":"","a":"\u0022:"}', {"id": "1", "a": '":', "a#1": ""}),
        (r'{"id":"1","a":"","a":"\"\u003A"}', {"id": "1", "a": '":', "a#1": ""}),
        ('{"a"~1,"a"~null,"id"~"1","a"~2}', {"a": "2", "id": "1", "a#1": None, "a#2": "1"}),
        ('{"id"~"1","a"~1,"a"~2,"a#1"~3}', {"id": "1", "a": "2", "a#1": "3", "a#2": "1"}),
        (
            '{"id"~"1","p"~{"k"~1,"k"~2,"m"~[{"n"~1,"n"~2}]}}',
            {"id": "1", "p": '{"k":1,"k":2,"m":[{"n":1,"n":2}]}', "p#1": '{"k":1,"k":2,"m":[{"n":1,"n":2}]}'},
        ),
        ('{"id"~"1","p"~[{"k"~1,"k"~2}]}', {"id": "1", "p": '[{"k":1,"k":2}]', "p#1": '[{"k":1,"k":2}]'}),
        ('{"id"~"1","p"~{"k"~1},"q"~{"k"~"\\":"}}', {"id": "1", "p": '{"k":1}', "q": '{"k":"\\":"}'}),
    ],
)
@pytest.mark.parametrize("form", ["[%s]", "%s", '{"data":[%s]}'])
def test_every_value_of_a_repeated_key_is_kept(record: str, row: Row, form: str, colon: str) -> None:
    [found], oddities, _ = take(form % record.replace("~", colon), "User.json")
    assert found == row
    assert oddities.get("records with repeated keys", 0) == any("#" in key for key in row if key != "q")


def test_a_repeated_key_with_a_value_that_cannot_be_stored_costs_its_record() -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "User.json")
        path.write_text(
            r'[{"id": "1", "a": "\u0000", "a": "y"}, {"id": "2", "p": {"k": "\u0000", "k": 1}}, {"id": "3"}]'
        )
        with open_export(ExportFile("User", path), known=KNOWN) as reader:
            [batch] = list(reader.batches())
    assert [one.reason for one in batch.refused] == ["invalid_encoding"] * 2
    assert batch.columns.to_pylist() == [{"id": "3"}]


# --- rows that are none, and damaged ones side by side ------------------------------------------------------------------


@pytest.mark.parametrize("block_size", [1, 7, 8 << 20])
@pytest.mark.parametrize("delimiter", [",", ";", "\t", "|"])
@pytest.mark.parametrize("end", ["\n", "\r\n"])
def test_rows_of_delimiters_only_are_no_records(delimiter: str, end: str, block_size: int) -> None:
    blank = delimiter * 3
    lines = ["id,email,x,y", "1,a,,", blank, "2,b,,", blank, delimiter, ",,c,", blank]
    text = end.join(line.replace(",", delimiter) for line in lines)
    rows, oddities, refused = take(text, "User.csv", block_size=block_size)
    assert [row["id"] for row in rows] == ["1", "2", None]
    assert (rows[2]["x"], oddities["rows of delimiters only"], refused) == ("c", 4, [])


def test_rows_of_delimiters_only_are_no_records_where_all_is_quoted() -> None:
    rows, oddities, refused = take('id,email\n"1","a"\n,\n"2","b"\n,', "User.csv")
    assert ([row["id"] for row in rows], refused) == (["1", "2"], [])
    assert oddities["rows of delimiters only"] == 2


QUOTED = ['"{}","a","b","c"', '"{}","a"x,"b","c"', '"{}","a,"b","c"', '"{}",a","b","c"', '"{}","a","b","c"x']
BARE = ["{},a,b,c", '{},a"x,b,c', '{},"a"x,b,c', '{},"a,b,c', '{},a,b,c"']


# A quote that is never closed, before one that is never opened, is one well-formed cell.
DAMAGES = st.lists(st.integers(1, 4), min_size=2, max_size=4).filter(lambda kinds: (3, 4) not in pairwise(kinds))


@given(st.booleans(), DAMAGES, st.sampled_from([0, 1, 2]), st.booleans())
def test_damaged_rows_side_by_side_are_counted_one_by_one(
    is_quoted: bool, damages: list[int], behind: int, is_ended: bool
) -> None:
    forms = QUOTED if is_quoted else BARE
    kinds = [0, 0, *damages, *[0] * behind]
    lines = [forms[kind].format(f"{number:024x}") for number, kind in enumerate(kinds)]
    text = "id,email,f,g\n" + "\n".join(lines) + ("\n" if is_ended else "")
    rows, _, refused = take(text, "User.csv")
    assert len(rows) == 2 + behind
    assert refused == lines[2 : 2 + len(damages)]
