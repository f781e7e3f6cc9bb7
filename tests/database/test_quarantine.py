"""The quarantine as a person works on it: given out, corrected in a file, taken in, replayed."""

from __future__ import annotations

import csv
import io
import json
from typing import Any

import pytest

from b44_assets.migration.quarantine import (
    CorrectionConflictError,
    CorrectionError,
    Corrections,
    correct_quarantine,
    quarantined,
    read_corrections,
    write_csv,
)
from tests.database.test_delta import article, person, sound
from tests.helpers.records import object_id
from tests.helpers.target import Target

REFUSED = {
    "User": [person(1), person(2, email="nonsense")],
    "Post": [article(1, title=None), article(2, title=None, content="short"), article(3)],
}


def exported(target: Target, *chosen: str) -> list[dict[str, str]]:
    stream = io.StringIO(newline="")
    write_csv(lambda: quarantined(target.session, *chosen), stream)
    stream.seek(0)
    return list(csv.DictReader(stream))


def taken_in(target: Target, rows: list[dict[str, str]], **options: Any) -> Corrections:
    path = target.export.parent / "corrections.csv"
    with path.open("w", newline="", encoding="utf-8") as stream:
        writer = csv.DictWriter(stream, list(rows[0]))
        writer.writeheader()
        writer.writerows(rows)
    return correct_quarantine(target.session, read_corrections(path), path, **options)


def records(target: Target) -> list[tuple[Any, ...]]:
    return target.all("select entity, base44_id, record, record_digest, reasons from migration.quarantine order by id")


def test_records_are_found_by_table_and_reason_in_the_order_of_the_catalogue(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    session = target_18.session
    assert [(one.table, one.base44_id, one.reasons) for one in quarantined(session)] == [
        ("users", object_id(2), ["invalid_email"]),
        ("posts", object_id(1), ["missing_title"]),
        ("posts", object_id(2), ["missing_title", "short_content"]),
    ]
    assert [one.base44_id for one in quarantined(session, "posts", "short_content")] == [object_id(2)]
    assert list(quarantined(session, "posts", "no such reason")) == []


def test_a_corrected_file_is_taken_in_field_by_field_and_replayed(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    before = records(target_18)
    rows = exported(target_18)
    rows[1]["title"] = "Sound now"
    done = taken_in(target_18, rows, only_look=True)
    assert records(target_18) == before
    assert ({change.record.base44_id: change.fields for change in done.changes}, done.unchanged) == (
        {object_id(1): {"title": "Sound now"}},
        2,
    )
    assert taken_in(target_18, rows) == done
    kept = [row for row in records(target_18) if row[1] != object_id(1)]
    assert kept == [row for row in before if row[1] != object_id(1)]
    assert target_18.load("posts").inserted == 1
    assert target_18.outcome("posts").rows[object_id(1)]["title"] == "Sound now"
    sound(target_18, "posts")


def test_a_file_that_is_taken_in_twice_changes_nothing_the_second_time(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    rows = exported(target_18, "posts")
    rows[0]["title"] = "Sound now"
    assert len(taken_in(target_18, rows).changes) == 1
    before = records(target_18)
    assert taken_in(target_18, rows).changes == ()
    assert records(target_18) == before


def test_a_record_that_is_another_one_by_now_is_told_and_nothing_is_changed(target_18: Target) -> None:
    target_18.migrate(REFUSED)
    rows = exported(target_18, "posts")
    rows[0]["title"], rows[1]["title"] = "Mine", "Mine, too"
    target_18.run(
        "update migration.quarantine set record = record || '{\"title\": \"Theirs\"}' where entity = 'posts' and base44_id = %s",
        object_id(1),
    )
    before = records(target_18)
    with pytest.raises(CorrectionConflictError) as caught:
        taken_in(target_18, rows)
    assert object_id(1) in str(caught.value)
    assert object_id(2) not in str(caught.value)
    assert records(target_18) == before


@pytest.mark.parametrize(
    ("column", "text", "says"),
    [("titel", "A title", "titel is no field of posts"), ("quarantine:table", "nothing", "there is no table nothing")],
)
def test_what_is_not_known_is_refused(target_18: Target, column: str, text: str, says: str) -> None:
    target_18.migrate(REFUSED)
    rows = exported(target_18, "posts")
    rows[0][column] = text
    before = records(target_18)
    with pytest.raises(CorrectionError, match=says):
        taken_in(target_18, [{column: "", **row} for row in rows])
    assert records(target_18) == before


def test_a_record_that_could_not_be_read_is_corrected_by_its_fields(target_18: Target) -> None:
    path = target_18.export / "User.jsonl"
    path.write_text(f'{json.dumps(person(1))}\n{{"id": "{object_id(2)}", \n', "utf-8")
    target_18.stage("users")
    target_18.load("users")
    (row,) = exported(target_18, "users")
    assert set(row) == {"quarantine:table", "quarantine:reasons", "quarantine:digest", "_raw"}
    row |= {"_raw": "", **{name: str(text) for name, text in person(2).items()}}
    assert len(taken_in(target_18, [row]).changes) == 1
    assert target_18.load("users").inserted == 1
