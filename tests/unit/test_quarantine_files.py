"""Files for correction: what is written is read back as it was, and what is no such file is refused in one line."""

from __future__ import annotations

import csv
import hashlib
import io
import json
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.cli.quarantine import record_lines
from b44_assets.errors import SettingsError
from b44_assets.migration.quarantine import (
    Change,
    CorrectionError,
    Corrections,
    QuarantinedRecord,
    differing,
    read_corrections,
    write_csv,
)

TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=30)
FIELD = st.text(st.characters(categories=["L", "N"], include_characters="_ .,;"), min_size=1, max_size=12).filter(
    lambda name: name == name.strip()
)
RECORDS = st.lists(st.dictionaries(FIELD, st.none() | TEXT, min_size=1, max_size=5), min_size=1, max_size=5)


def quarantined(*records: dict[str, str | None]) -> list[QuarantinedRecord]:
    return [
        QuarantinedRecord("things", record.get("id"), "Thing.csv", number, ["missing_name"], record, digest_of(record))
        for number, record in enumerate(records, 1)
    ]


def digest_of(record: dict[str, str | None]) -> str:
    return hashlib.md5(json.dumps(record, sort_keys=True).encode()).hexdigest()


def as_csv(found: list[QuarantinedRecord], **form: str) -> str:
    stream = io.StringIO(newline="")
    assert write_csv(lambda: found, stream) == len(found)
    if not form:
        return stream.getvalue()
    again = io.StringIO(newline="")
    stream.seek(0)
    csv.writer(again, **form).writerows(csv.reader(stream))  # type: ignore[arg-type]
    return again.getvalue()


def as_json(found: list[QuarantinedRecord]) -> str:
    return json.dumps({"records": [one.facts() for one in found]})


SAVED: dict[str, Callable[[list[QuarantinedRecord]], bytes]] = {
    "as it was written": lambda found: as_csv(found).encode(),
    "by a spreadsheet": lambda found: as_csv(found, delimiter=";", lineterminator="\r\n").encode("utf-8-sig"),
    "as JSON": lambda found: as_json(found).encode(),
}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("files") / "corrections"


@pytest.mark.parametrize("save", SAVED.values(), ids=SAVED)
@given(RECORDS)
def test_a_file_that_nobody_edited_changes_nothing(
    file: Path, save: Callable[[list[QuarantinedRecord]], bytes], records: list[dict[str, str | None]]
) -> None:
    found = {one.digest: one for one in quarantined(*records)}
    file.write_bytes(save(list(found.values())))
    edited = read_corrections(file)
    assert {(one.table, one.digest) for one in edited} == {("things", digest) for digest in found}
    assert [differing(found[one.digest].record, one, file) for one in edited] == [{}] * len(found)


@given(RECORDS, st.data())
def test_only_the_cell_that_was_edited_differs(
    file: Path, records: list[dict[str, str | None]], data: st.DataObject
) -> None:
    found = {one.digest: one for one in quarantined(*records)}
    chosen = data.draw(st.sampled_from(sorted(found)))
    name = data.draw(st.sampled_from(sorted(found[chosen].record)))
    rows = list(csv.DictReader(io.StringIO(as_csv(list(found.values())), newline="")))
    for row in rows:
        if row["quarantine:digest"] == chosen:
            row[name] = f"{row[name]}!"
    stream = io.StringIO(newline="")
    writer = csv.DictWriter(stream, list(rows[0]))
    writer.writeheader()
    writer.writerows(rows)
    file.write_text(stream.getvalue(), newline="")
    changed = {one.digest: differing(found[one.digest].record, one, file) for one in read_corrections(file)}
    assert {digest: fields for digest, fields in changed.items() if fields} == {
        chosen: {name: f"{found[chosen].record[name] or ''}!"}
    }


@pytest.mark.parametrize(
    ("record", "shows_raw", "shown"),
    [
        ({"id": "a", "token": "geheim", "settings": '{"api_key": "geheim", "size": 3}'}, True, '"size": 3'),
        ({"_raw": 'a,"geheim'}, False, "_raw"),
        ({"_raw": 'a,"open'}, True, "open"),
    ],
)
def test_a_record_is_shown_without_its_secrets(record: dict[str, str | None], shows_raw: bool, shown: str) -> None:
    [one] = quarantined(record)
    text = "\n".join(record_lines(one, shows_raw=shows_raw))
    assert "geheim" not in text
    assert shown in text


ONE = quarantined({"id": "a", "name": "b"})
HEAD = "quarantine:table,quarantine:digest,name\n"


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"", "no columns quarantine:table"),
        (b"id,name\n1,x\n", "no columns quarantine:table"),
        (f"{HEAD}things,d\n".encode(), "line 2 has 2 cells"),
        (f'{HEAD}things,d,"x\n'.encode(), "no CSV"),
        (f"{HEAD}things,d,x\nthings,d,y\n".encode(), "line 2 and line 3 are the same record"),
        (b"quarantine:table,quarantine:digest,a,a\n", "the column a twice"),
        (f"{HEAD}things,d,\xe9\n".encode("latin-1"), "is no UTF-8"),
        (f"{HEAD}things,d,a\0\n".encode(), "NUL"),
        (b'{"records": [', "line 1, column 14"),
        (b'{"entities": {}}', "no list of records"),
        (b"[1]", "record 1 is no object"),
        (b'[{"table": "things", "record": {}}]', "record 1 lacks table, digest or record"),
        (b"[" * 100_000, "is no JSON"),
    ],
)
def test_what_is_no_file_for_correction_is_refused_in_one_line(file: Path, text: bytes, says: str) -> None:
    file.write_bytes(text)
    with pytest.raises(CorrectionError) as caught:
        read_corrections(file)
    assert str(caught.value).startswith(f"{file}: ")
    assert says in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(CorrectionError, match=r"nowhere\.csv: cannot be read"):
        read_corrections(tmp_path / "nowhere.csv")


def test_a_cell_that_a_spreadsheet_has_cut_off_is_no_correction(file: Path) -> None:
    (one,) = quarantined({"id": "a", "name": "n" * 40_000})
    file.write_text(as_csv([one]).replace("n" * 40_000, "n" * 32_767))
    (edited,) = read_corrections(file)
    with pytest.raises(CorrectionError, match="name was cut off"):
        differing(one.record, edited, file)


def test_a_field_of_json_that_was_left_out_stays_and_one_of_null_goes(file: Path) -> None:
    file.write_text(json.dumps([{"table": "things", "digest": ONE[0].digest, "record": {"name": None, "count": 7}}]))
    (edited,) = read_corrections(file)
    assert differing(ONE[0].record, edited, file) == {"name": None, "count": "7"}


def test_a_field_with_the_name_of_a_column_of_the_file_is_refused() -> None:
    with pytest.raises(SettingsError, match="--json"):
        as_csv(quarantined({"quarantine:table": "x"}))


def test_reading_a_short_file_leaves_the_process_able_to_read_longer_cells(file: Path) -> None:
    before = csv.field_size_limit()
    file.write_text(as_csv(ONE))
    read_corrections(file)
    assert csv.field_size_limit() >= before


def test_what_was_corrected_is_told_by_table_and_field() -> None:
    first, second = quarantined({"name": "", "size": "2"}, {"name": None})
    done = Corrections((Change(first, {"name": "Named", "size": "3"}), Change(second, {"name": "9"})), 4)
    assert done.by_field() == {"things": {"name": 2, "size": 1}}
    assert done.message() == "corrected 2 records (things: name 2, size 1), 4 as they were"
    assert done.message(only_look=True).startswith("would correct 2 records")
