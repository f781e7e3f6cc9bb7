"""An export's file in `base44.<table>`: text as it came, under whatever name, once."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Generator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from psycopg import sql

from b44_assets.config.quantities import ContentFormat
from b44_assets.errors import ExportError
from b44_assets.failpoints import armed
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.corrections import correct
from b44_assets.migration.unmapped_entities import UnmappedEntity, keep_unmapped, unmapped_entities
from b44_assets.session import Connection
from tests.helpers.records import LONG_ID, Record, object_id, post, user, uuid_of
from tests.helpers.target import Outcome, Target


def staged(target: Target, table: str = "users") -> list[dict[str, Any]]:
    statement = sql.SQL("select to_jsonb(s.*) from base44.{} s order by _record_number")
    rows = target.all(statement.format(sql.Identifier(table)))
    return [row[0] for row in rows]


def versions(target: Target, table: str = "users") -> list[tuple[Any, ...]]:
    """Which transaction wrote each staged row: the same list means that nothing was written."""
    relation = sql.Identifier("base44", table)
    return target.all(sql.SQL("select tableoid::text, ctid::text, xmin::text from {} order by 2").format(relation))


# -- what stands in the table --------------------------------------------------------------------------------------------


def test_a_field_is_a_column_of_text_as_exported(target_18: Target) -> None:
    target_18.write(
        {"User": [{"id": " A1 ", "n": 1.50, "flag": True, "list": [1, {"b": None}], "none": None, "empty": ""}]}
    )
    done = target_18.stage("users")
    assert staged(target_18) == [
        {
            "id": " A1 ", "n": "1.5", "flag": "true", "list": '[1,{"b":null}]', "none": None, "empty": "",
            "_record_number": 1, "_source_file": "User.jsonl",
        }
    ]  # fmt: skip
    assert (done.entity, done.file, done.dialect, done.records, done.changed) == (
        "users",
        "User.jsonl",
        "jsonl",
        1,
        True,
    )
    assert done.fields == ("id", "n", "flag", "list", "none", "empty")


@pytest.mark.parametrize(
    "value",
    ["\\.", "\\N", '"', '""', ",", "a\nb", "a\r\nb", "\r", "\n", "'", "\\", "\t", "é😀\u2028\ufeff", "\x01\x1b", " ", "NULL"],
)  # fmt: skip
def test_text_comes_through_copy_unchanged(target_18: Target, value: str) -> None:
    target_18.write({"User": [{"id": "1", "x": value}, {"id": "2", "x": f"{value}x{value}"}]})
    target_18.stage("users")
    assert [row["x"] for row in staged(target_18)] == [value, f"{value}x{value}"]


@pytest.mark.parametrize("line_end", ["\n", "\r\n"], ids=["LF", "CRLF"])
def test_records_of_csv_come_through_whichever_way_they_are_sent(line_end: str, target_18: Target) -> None:
    texts = [
        "\\.",
        "\\N",
        '"',
        ",",
        "a\nb",
        "a\r\nb",
        "\r",
        "'",
        "'=1",
        "\t",
        "é😀\ufeff",
        "\x01",
        " ",
        "NULL",
        "<b>ok</b>",
        "1 < 2",
    ]
    texts += ["<b onclick='x'>bad</b>", "<script>x</script>", "", "last"]
    rows = [(str(number), text, text) for number, text in enumerate(texts, start=1)]
    lines = [
        ",".join('"' + cell.replace('"', '""') + '"' for cell in row) for row in [("id", "content", "title"), *rows]
    ]
    (target_18.export / "Post_export.csv").write_bytes(line_end.join(lines).encode())
    assert target_18.stage("posts").records == len(texts)
    # The guard is no part of the value, an empty cell is null, and what cleaning leaves nothing of is empty, not null.
    expected = [None if text == "" else text.removeprefix("'") if text == "'=1" else text for text in texts]
    found = staged(target_18, "posts")
    assert [row["_record_number"] for row in found] == [*range(1, len(texts) + 1)]
    assert [(row["content"], row["title"]) for row in found] == [(text, text) for text in expected]
    cleaned = {row["content"]: row["_clean_content"] for row in found if row["_clean_content"] is not None}
    assert cleaned == {"<b onclick='x'>bad</b>": "<b>bad</b>", "<script>x</script>": ""}


def test_a_cell_of_10_megabytes_comes_through_to_its_row(target_18: Target) -> None:
    content = "0123456789abcdef" * (10 << 16)
    target_18.migrate({"User": [user(1)], "Post": [post(1, content=content, note=content)]})
    digest = hashlib.md5(content.encode()).hexdigest()
    assert len(content) == 10 << 20
    assert target_18.all("select md5(content), md5(note) from base44.posts") == [(digest, digest)]
    assert target_18.one("select md5(content) from posts") == digest
    assert target_18.one("select md5(data ->> 'note') from migration.unmapped") == digest


def test_a_field_that_comes_up_late_is_null_before(target_18: Target) -> None:
    # Later than the first batch, which is under way to the server by then.
    records: list[Record] = [{"id": str(n)} for n in range(20_000)]
    records += [{"id": "late", "Später": "x"}, {"other": "y"}]
    target_18.write({"User": records})
    done = target_18.stage("users")
    assert (done.records, done.fields) == (20_002, ("id", "Später", "other"))
    assert target_18.all(
        'select count(*), count("Später"), count(other), max(_record_number), count(distinct id) from base44.users'
    ) == [(20_002, 1, 1, 20_002, 20_001)]
    assert staged(target_18)[20_000]["Später"] == "x"


def test_a_record_without_any_field_is_a_row(target_18: Target) -> None:
    target_18.write({"User": [{}, {"id": "1"}]})
    assert target_18.stage("users").records == 2
    assert [row["id"] for row in staged(target_18)] == [None, "1"]


def test_only_html_that_changes_when_cleaned_is_kept_beside(target_18: Target) -> None:
    texts = ["no html", "<b>fine</b>", "<b onclick='x'>bad</b>", "a & b", "a & b<br>", None]
    target_18.write({"Post": [{"id": str(n), "content": text} for n, text in enumerate(texts)]})
    target_18.stage("posts")
    assert [row["_clean_content"] for row in staged(target_18, "posts")] == [
        None,
        None,
        "<b>bad</b>",
        None,
        "a &amp; b<br>",
        None,
    ]
    assert [row["content"] for row in staged(target_18, "posts")] == texts


def test_the_books_say_what_was_staged(target_18: Target) -> None:
    moment = datetime(2026, 2, 3, 4, 5, 6, tzinfo=UTC)
    target_18.write({"User": [user(1), user(2)]}, exported_at=moment)
    target_18.having(run_id="run-7").stage("users")
    (book,) = target_18.table("exports", schema="migration")
    file = target_18.export / "User.jsonl"
    expected = {
        "entity": "users", "source_entity": "User", "source_file": "User.jsonl", "dialect": "jsonl",
        "bytes": file.stat().st_size, "digest": hashlib.sha256(file.read_bytes()).hexdigest(),
        "exported_at": moment, "fields": ["id", "email"], "records": 2, "refused": 0, "run_id": "run-7",
    }  # fmt: skip
    assert {name: book[name] for name in expected} == expected


def test_progress_is_told_in_bytes_up_to_the_files_size(target_18: Target) -> None:
    told: list[tuple[str, int, int]] = []
    target_18.write({"User": [user(1), user(2)]})
    target_18.having(progress=lambda *what: told.append(what)).stage("users")
    size = (target_18.export / "User.jsonl").stat().st_size
    assert told[-1] == ("base44/users", size, size)


@pytest.mark.parametrize("throttled", [True, False], ids=["throttled", "not throttled"])
def test_a_gentle_staging_leaves_the_disk_to_others_all_the_while(throttled: bool, target_18: Target) -> None:
    rests: list[float] = []
    target_18.write({"User": [user(n, bio="x" * 1000) for n in range(500)]})
    target_18.having(throttled=throttled, sleep=rests.append).stage("users")
    assert [row["bio"] for row in staged(target_18)] == ["x" * 1000] * 500
    if throttled:
        # Half a megabyte, at 4 MiB a second.
        assert sum(rests) > 0.1
        assert max(rests) < 0.02
    else:
        assert rests == []


# -- names of fields ---------------------------------------------------------------------------------------------------

NAMES = [
    "Upper", "UPPER", "upper", "with space", 'quo"te', "apo'strophe", "semi;colon", "per%cent", "%s", "%(x)s", "{}", "{0}",
    "back\\slash", "new\nline", "tab\t", "dot.ted", "dollar$1", "-", "1st", "é", "Ünïcödé", "日本語", "😀", "İ", "\u00a0nbsp",
    "order", "group", "from", "select", "user", "table", "s", "v", "e", "f", "t", "m", "r", "a", "base44", "record", "unmapped",
    "reasons", "repairs", "record_number", "source_file", "superseded", "base44_id", "generation", "position", "action",
    "_record_number", "_source_file", "_clean_content", "_clean_bio", "_clean_", "_more_fields", "_x",
    "ctid", "xmin", "xmax", "cmin", "cmax", "tableoid", "oid",
    "x" * 63, "x" * 64, "x" * 65, "y" * 200, "é" * 32, "日" * 30, "z" * 49 + "日本語" * 10,
]  # fmt: skip


@pytest.fixture(scope="module")
def named(shared_target_18: Target) -> tuple[Outcome, Target]:
    """One migrated and one refused post that have every one of these fields."""
    shared_target_18.reset()
    fields = {name: f"value {place}" for place, name in enumerate(NAMES)}
    shared_target_18.migrate({"User": [user(1)], "Post": [post(1, **fields), post(2, content="short", **fields)]})
    return shared_target_18.outcome("posts"), shared_target_18


@pytest.mark.parametrize("place", [pytest.param(n, id=ascii(name)[:40]) for n, name in enumerate(NAMES)])
def test_a_field_of_any_name_is_kept_under_its_own_name(named: tuple[Outcome, Target], place: int) -> None:
    outcome, _ = named
    assert outcome.unmapped[object_id(1)][NAMES[place]] == f"value {place}"
    assert outcome.records[2][NAMES[place]] == f"value {place}"


def test_nothing_else_is_kept(named: tuple[Outcome, Target]) -> None:
    outcome, _ = named
    assert set(outcome.unmapped[object_id(1)]) == set(NAMES)
    assert set(outcome.records[2]) == {*NAMES, "id", "title", "content", "user_id"}


def test_records_that_differ_in_a_field_named_like_ours_are_no_repeats(target_18: Target) -> None:
    target_18.migrate({"User": [user(1, _record_number=1), user(1, _record_number=2)]})
    assert target_18.outcome("users").account["deduplicated"] == 0


WIDTHS = [0, 9, 17, 18, 23, 24, 25, 26, 126, 127, 1_000]
"""Of values: around those of which PostgreSQL moves the longest out of a row that does not fit into a page."""


@pytest.mark.parametrize("fields", [280, 310, 330, 450, 600, 3_000])
def test_a_record_of_any_number_of_fields_of_any_width_is_kept_whole(target: Target, fields: int) -> None:
    people = [
        user(n, **{f"field_{place}": (f"{n} {place} " + "é" * width)[: max(width, 1)] for place in range(fields)})
        for n, width in enumerate(WIDTHS, 1)
    ]
    refused = {**people[-1], "id": object_id(99), "email": None}
    target.migrate({"User": [*people, refused]})
    outcome = target.outcome("users")
    expected = {str(one["id"]): {k: v for k, v in one.items() if k not in ("id", "email")} for one in people}
    assert outcome.unmapped == expected
    assert {k: v for k, v in outcome.records[len(people) + 1].items() if v is not None} == {
        k: v for k, v in refused.items() if v is not None
    }


def test_fields_that_differ_late_in_a_wide_record_make_it_no_repeat(target_18: Target) -> None:
    wide = {f"field_{n}": "x" for n in range(700)}
    target_18.migrate({"User": [user(1, **wide), user(1, **wide), user(1, **{**wide, "field_699": "y"})]})
    account = target_18.outcome("users").account
    assert (account["deduplicated"], account["quarantined"], account["migrated"]) == (1, 1, 1)


def test_a_field_that_the_mapping_reads_is_read_however_late_it_is_met(target_18: Target) -> None:
    people = [user(1, **{f"field_{n}": "x" for n in range(700)}), user(2, full_name="Late", field_3="\n")]
    target_18.migrate({"User": people})
    outcome = target_18.outcome("users")
    assert outcome.rows[object_id(2)]["display_name"] == "Late"
    assert object_id(2) not in outcome.unmapped


def test_a_wide_record_that_is_corrected_keeps_every_field(target_18: Target) -> None:
    wide = {f"field_{n}": "x" for n in range(700)}
    target_18.migrate({"User": [user(1, **{**wide, "email": None})]})
    target_18.run(
        "update migration.quarantine set record = jsonb_strip_nulls(record)"
        """ || '{"email": "a@example.com", "field_699": "y", "later": "z"}'"""
    )
    assert correct(target_18.session, target_18.session.catalog.mappings["users"]) == 1
    target_18.load("users")
    assert target_18.outcome("users").unmapped == {object_id(1): {**wide, "field_699": "y", "later": "z"}}
    before = target_18.state()
    assert target_18.load("users").inserted == 0
    assert target_18.state() == before


# -- records that cannot be staged -------------------------------------------------------------------------------------


@pytest.fixture
def damaged(target_18: Target) -> Target:
    """Five records: sound, broken, sound, invalid UTF-8, NUL."""
    lines = [
        json.dumps(user(1)).encode(),
        b'{"id": "broken", "email": ',
        json.dumps(user(2)).encode(),
        b'{"id": " latin ", "email": "\xe9@example.com"}',
        b'{"id": "nul", "email": "a\\u0000b"}',
    ]
    (target_18.export / "User.jsonl").write_bytes(b"\n".join(lines))
    return target_18


def test_refused_records_do_not_stop_the_file(damaged: Target) -> None:
    done = damaged.stage("users")
    assert done.records == 5
    assert done.refused == {"malformed_record": 1, "invalid_encoding": 2}
    assert [row["_record_number"] for row in staged(damaged)] == [1, 3]


def test_refused_records_go_to_quarantine_whole(damaged: Target) -> None:
    damaged.stage("users")
    damaged.load("users")
    outcome = damaged.outcome("users")
    assert outcome.reasons == {2: ["malformed_record"], 4: ["invalid_encoding"], 5: ["invalid_encoding"]}
    assert outcome.records == {
        2: {"_raw": '{"id": "broken", "email":'},
        4: {"id": " latin ", "email": "\\xe9@example.com"},
        5: {"id": "nul", "email": "a\\x00b"},
    }
    assert outcome.account == {
        "read": 5, "migrated": 2, "deduplicated": 0, "quarantined": 3, "unaccounted": 0, "pending": 0,
        "vanished": 0, "conflicts": 0,
    }  # fmt: skip
    assert damaged.all("select base44_id, source_file from migration.quarantine order by record_number") == [
        (None, "User.jsonl"), ("latin", "User.jsonl"), ("nul", "User.jsonl"),
    ]  # fmt: skip


# -- the same file again -----------------------------------------------------------------------------------------------


def test_the_same_file_is_not_staged_again(target_18: Target) -> None:
    target_18.write({"User": [user(1), user(1), user(2)]})
    first, before = target_18.stage("users"), versions(target_18)
    again = target_18.stage("users")
    assert not again.changed
    assert versions(target_18) == before
    assert [again.records, again.dialect, again.file, again.fields] == [
        first.records, first.dialect, first.file, first.fields,
    ]  # fmt: skip


def test_what_was_refused_is_said_again(damaged: Target) -> None:
    first = damaged.stage("users")
    again = damaged.stage("users")
    assert (again.changed, again.refused, again.records) == (False, first.refused, 5)


def test_a_file_that_was_only_touched_is_not_staged_again(target_18: Target) -> None:
    target_18.write({"User": [user(1)]})
    target_18.stage("users")
    before = versions(target_18)
    os.utime(target_18.export / "User.jsonl", (2_000_000_000, 2_000_000_000))
    assert not target_18.stage("users").changed
    assert versions(target_18) == before


def test_a_changed_file_replaces_what_was_staged(target_18: Target) -> None:
    target_18.write({"User": [user(1, bio="x"), user(2)]})
    target_18.stage("users")
    target_18.write({"User": [user(1, motto="y")]})
    done = target_18.stage("users")
    assert (done.changed, done.records) == (True, 1)
    assert staged(target_18) == [{**user(1), "motto": "y", "_record_number": 1, "_source_file": "User.jsonl"}]
    assert target_18.one("select records from migration.exports") == 1


def test_staged_rows_that_a_crash_of_the_server_emptied_are_staged_again(target_18: Target) -> None:
    target_18.write({"User": [user(1)]})
    target_18.stage("users")
    target_18.run("truncate base44.users")
    assert target_18.stage("users").changed
    assert len(staged(target_18)) == 1


def test_an_interruption_leaves_what_was_staged_before(target_18: Target) -> None:
    target_18.write({"User": [user(1)]})
    target_18.stage("users")
    target_18.write({"User": [user(n) for n in range(20_000)]})

    def interrupt(what: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        target_18.having(progress=interrupt).stage("users")
    assert len(staged(target_18)) == 1
    assert target_18.one("select records from migration.exports") == 1
    assert target_18.stage("users").records == 20_000


# -- no file -----------------------------------------------------------------------------------------------------------


def test_a_missing_file_is_an_entity_without_records(target_18: Target) -> None:
    target_18.write({"Post": []})
    done = target_18.stage("users")
    assert (done.dialect, done.file, done.records, done.fields) == ("absent", None, 0, ())
    assert target_18.load("users").plan.read == 0


def test_a_file_of_no_bytes_is_an_entity_without_records(target_18: Target) -> None:
    target_18.write({"User": []})
    done = target_18.stage("users")
    assert (done.dialect, done.file, done.records) == ("empty", "User.jsonl", 0)
    assert target_18.load("users").plan.read == 0


def test_a_file_that_has_gone_takes_its_records_along(target_18: Target) -> None:
    target_18.write({"User": [user(1)], "Post": []})
    target_18.stage("users")
    (target_18.export / "User.jsonl").unlink()
    assert (target_18.stage("users").changed, staged(target_18)) == (True, [])
    assert not target_18.stage("users").changed


def test_a_missing_folder_is_one_clear_line(target_18: Target, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="there is no such export folder"):
        target_18.stage("users", tmp_path / "none")


# -- tables of the scripts' names -----------------------------------------------------------------------------------------


@pytest.fixture
def by_hand(target_18: Target) -> Generator[Target]:
    """`base44_users` and `base44_posts` in the same database, as scripts made by hand have them."""
    people = [uuid_of(object_id(n)) for n in (1, 2)]
    target_18.run(
        "create table base44_users (id uuid primary key, email text, role text, active bool, created_at timestamptz)"
    )
    target_18.run(
        "create table base44_posts (id uuid, t text, title text, content text, tags text[], status text, user_id uuid,"
        " view_count int, meta jsonb)"
    )
    for place, person in enumerate(people):
        target_18.run(
            "insert into base44_users values (%s, %s, 'Admin', true, '2026-01-01 01:00+01')",
            person,
            f"U{place}@X.example",
        )
    target_18.run(
        "insert into base44_posts values (%s, null, 'A', 'Long <b>enough</b>.', array['a,b', 'c \"d\"', ' '], 'published', %s, 7,"
        """ '{"a": 1}')""",
        uuid_of(object_id(5)),
        people[0],
    )
    target_18.run(
        "insert into base44_posts values (%s, 't', 'B', 'short', null, null, %s, null, null)",
        uuid_of(object_id(6)),
        people[1],
    )
    yield target_18


def test_a_file_whose_ids_are_all_blank_is_refused_and_what_was_staged_before_stays(target_18: Target) -> None:
    target_18.write({"User": [user(1)]})
    target_18.stage("users")
    target_18.write({"User": [user(1, id=None), user(2, id="null"), user(3, id=" ")]})
    with pytest.raises(ExportError, match=r"User\.jsonl: none of its 3 records has an id"):
        target_18.stage("users")
    assert target_18.all("select id from base44.users") == [(object_id(1),)]
    assert target_18.one("select records from migration.exports where entity = 'users'") == 1


def test_a_table_whose_ids_are_all_blank_is_refused(by_hand: Target) -> None:
    by_hand.run("update base44_posts set id = null")
    with pytest.raises(ExportError, match="table base44_posts: none of its 2 records has an id"):
        stage_tables(by_hand)


def stage_tables(target: Target) -> list[bool]:
    from b44_assets.migration.pipeline import stage_export

    mappings = target.session.catalog.mappings
    return [stage_export(target.session, mappings[table], None).changed for table in ("users", "posts")]


def test_tables_named_as_by_hand_are_migrated(by_hand: Target) -> None:
    assert stage_tables(by_hand) == [True, True]
    by_hand.load("users")
    by_hand.load("posts")
    users, posts = by_hand.outcome("users"), by_hand.outcome("posts")
    first = users.rows[uuid_of(object_id(1))]
    assert (first["email"], first["role"], first["active"]) == ("u0@x.example", "admin", True)
    assert first["created_at"] == datetime(2026, 1, 1, tzinfo=UTC)
    row = posts.rows[uuid_of(object_id(5))]
    assert (row["id"], row["tags"], row["published"], row["view_count"]) == (
        uuid_of(object_id(5)), ["a,b", 'c "d"'], True, 7,
    )  # fmt: skip
    assert posts.unmapped[uuid_of(object_id(5))] == {"meta": '{"a": 1}'}
    assert posts.reasons == {2: ["short_content"]}
    assert posts.account["unaccounted"] == 0


def test_an_unchanged_table_is_not_staged_again(by_hand: Target) -> None:
    stage_tables(by_hand)
    before = versions(by_hand), versions(by_hand, "posts")
    assert stage_tables(by_hand) == [False, False]
    assert (versions(by_hand), versions(by_hand, "posts")) == before


def test_a_changed_table_is_staged_again(by_hand: Target) -> None:
    stage_tables(by_hand)
    by_hand.run("update base44_posts set view_count = 8 where view_count = 7")
    assert stage_tables(by_hand) == [False, True]
    assert staged(by_hand, "posts")[0]["view_count"] == "8"


def test_a_file_goes_before_a_table(by_hand: Target) -> None:
    by_hand.write({"User": [user(9)]})
    assert by_hand.stage("users").dialect == "jsonl"


def test_without_a_folder_what_was_staged_stays(target_18: Target) -> None:
    target_18.write({"User": [user(1)]})
    target_18.stage("users")
    before = versions(target_18)
    assert stage_tables(target_18)[0] is False
    assert versions(target_18) == before


# -- entities that sql/ does not know ------------------------------------------------------------------------------------


def test_records_of_other_entities_are_kept_whole(target_18: Target) -> None:
    records = [{"id": "1", "text": "a", "none": None, "list": [1]}, {"id": "1", "text": "b"}, {"text": "c"}]
    target_18.write({"Comment": records, "User": [user(1)]})
    for _ in range(2):
        assert keep_unmapped(target_18.session, target_18.export).records == {"Comment": 3}
    kept = target_18.all("select data from migration.unmapped where entity = 'Comment' order by data ->> 'text'")
    assert [row[0] for row in kept] == [
        {"id": "1", "text": "a", "list": "[1]"}, {"id": "1", "text": "b"}, {"text": "c"},
    ]  # fmt: skip


def test_records_of_other_entities_are_kept_whole_whatever_their_ids(target_18: Target) -> None:
    ids = ["record 2", None, "1 record 4", "1", "1", LONG_ID, LONG_ID]
    target_18.write({"Comment": [{"id": one, "text": str(place)} for place, one in enumerate(ids)]})
    assert keep_unmapped(target_18.session, target_18.export).records == {"Comment": len(ids)}
    kept = target_18.all(
        "select data ->> 'id' from migration.unmapped where entity = 'Comment' order by data ->> 'text'"
    )
    assert [row[0] for row in kept] == ids


# -- files that change meanwhile -----------------------------------------------------------------------------------------


def lines_of(numbers: range) -> bytes:
    return b"".join(b'{"id": "%d", "email": "u%d@example.org"}\n' % (n, n) for n in numbers)


def append(path: Path) -> None:
    with path.open("ab") as stream:
        stream.write(lines_of(range(20_000, 20_010)))


def replace(path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_bytes(path.read_bytes() + lines_of(range(20_000, 20_010)))
    os.utime(other, ns=(path.stat().st_atime_ns, path.stat().st_mtime_ns))
    other.rename(path)


def truncate(path: Path) -> None:
    os.truncate(path, 400_000)


def overwrite(path: Path) -> None:
    path.write_bytes(path.read_bytes().replace(b"example.org", b"example.com"))


@pytest.mark.parametrize("change", [append, replace, truncate, overwrite])
@pytest.mark.parametrize("moment", ["stage: between blocks", "stage: staged"])
def test_a_file_that_changes_while_it_is_staged_is_staged_again(
    target_18: Target, change: Callable[[Path], None], moment: str
) -> None:
    path = target_18.export / "User.jsonl"
    path.write_bytes(lines_of(range(20_000)))
    changes = [change]

    def meanwhile(name: str, _: Connection) -> None:
        if name == moment and changes:
            changes.pop()(path)

    notices: list[str] = []
    calm = target_18.having(notice=notices.append, sleep=lambda _: None)
    with armed(meanwhile):
        done = calm.stage("users")
    data = path.read_bytes()
    read = [json.loads(line) for line in data.split(b"\n") if line.endswith(b"}")]
    assert [(row["id"], row["email"]) for row in staged(target_18)] == [(row["id"], row["email"]) for row in read]
    assert done.records == len(read) + (not data.endswith(b"\n"))
    digest = target_18.one("select digest from migration.exports where entity = 'users'")
    assert digest == hashlib.sha256(data).hexdigest()
    assert len(notices) == 1


def test_a_file_that_changes_each_time_is_refused_and_what_was_staged_stays(target_18: Target) -> None:
    target_18.write({"User": [user(1)]})
    target_18.stage("users")
    before = versions(target_18)
    path = target_18.export / "User.jsonl"

    def meanwhile(name: str, _: Connection) -> None:
        if name == "stage: between blocks":
            append(path)

    append(path)
    with armed(meanwhile), pytest.raises(ExportError, match=r"User\.jsonl: changed while it was read"):
        target_18.having(sleep=lambda _: None).stage("users")
    assert versions(target_18) == before


def test_a_file_is_not_taken_for_unchanged_by_its_size_and_time(target_18: Target) -> None:
    path = target_18.export / "User.jsonl"
    path.write_bytes(lines_of(range(3)))
    target_18.stage("users")
    status = path.stat()
    overwrite(path)
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))
    assert path.stat().st_size == status.st_size
    assert target_18.stage("users").changed
    assert {row["email"] for row in staged(target_18)} == {f"u{n}@example.com" for n in range(3)}


def test_a_file_of_another_entity_that_changes_while_it_is_read_is_read_again(target_18: Target) -> None:
    target_18.write({"User": [user(1)], "Comment": [{"id": "1"}]})
    changes = [append]

    def meanwhile(name: str, _: Connection) -> None:
        if name == "unmapped: before commit" and changes:
            changes.pop()(target_18.export / "Comment.jsonl")

    with armed(meanwhile):
        assert keep_unmapped(target_18.having(sleep=lambda _: None).session, target_18.export).records == {
            "Comment": 11
        }


# -- HTML or text --------------------------------------------------------------------------------------------------------


def test_the_same_export_is_cleaned_anew_where_content_is_of_another_format(target_18: Target) -> None:
    content = "<b onclick='x'>R&D is good</b>"
    target_18.migrate({"User": [user(1)], "Post": [post(1, content=content)]})
    assert target_18.one("select content from posts") == "<b>R&amp;D is good</b>"
    target_18.having(content_format=ContentFormat.TEXT).migrate({"User": [user(1)], "Post": [post(1, content=content)]})
    assert target_18.one("select content from posts") == content
    assert target_18.all("select column_name from migration.repairs") == []
    again = target_18.having(content_format=ContentFormat.TEXT).migrate({"Post": [post(1, content=content)]})
    assert not again["posts"].plan.changed
    parity = content_parity(target_18.session, target_18.session.catalog.mappings["posts"])
    assert parity is not None and parity.equal


def test_what_was_cleaned_by_earlier_rules_is_put_right_by_the_same_export(target_18: Target) -> None:
    records = {"User": [user(1)], "Post": [post(1, content="R&D and more"), post(2, content="R&D, edited")]}
    target_18.migrate(records)
    # As it was: every text with an ampersand was written as HTML.
    target_18.run("update migration.exports set cleaning = null")
    target_18.run("update base44.posts set _clean_content = replace(content, '&', '&amp;')")
    target_18.run("update migration.plans set fingerprint = 'of then'")
    target_18.load("posts")
    target_18.run("update posts set like_count = 7, updated_at = now() where title = 'Title 2'")
    assert target_18.all("select content from posts order by id") == [("R&amp;D and more",), ("R&amp;D, edited",)]
    assert target_18.migrate(records)["posts"].plan.to_migrate == 1
    # What was edited since is nobody's but its editor's.
    assert target_18.all("select content from posts order by id") == [("R&D and more",), ("R&amp;D, edited",)]
    parity = content_parity(target_18.session, target_18.session.catalog.mappings["posts"])
    assert parity is not None and parity.passed
    assert target_18.outcome("posts").repairs == {
        object_id(2): [("content", "sanitized", "R&D, edited", "R&amp;D, edited")]
    }


def test_entities_without_a_table_are_listed_and_forgotten_when_the_export_has_them_no_more(target_18: Target) -> None:
    target_18.write({"Comment": [{"ID": "1"}, {"ID": "2"}], "Invoice": [], "User": [user(1)]})
    listed = (UnmappedEntity("Comment", "Comment.jsonl", 2), UnmappedEntity("Invoice", "Invoice.jsonl", 0))
    assert keep_unmapped(target_18.session, target_18.export).entities == listed
    assert unmapped_entities(target_18.session) == listed
    assert target_18.all("select base44_id from migration.unmapped where entity = 'Comment' order by 1") == [
        ("1",),
        ("2",),
    ]
    # Without a folder, nothing is known of an export that lacks them.
    assert keep_unmapped(target_18.session, None).entities == listed
    (target_18.export / "Comment.jsonl").unlink()
    assert keep_unmapped(target_18.session, target_18.export).entities == listed[1:]
    assert unmapped_entities(target_18.session) == listed[1:]
    assert target_18.one("select count(*) from migration.unmapped") == 0


def test_what_is_kept_of_an_entity_without_a_table_is_written_anew_only_for_another_file(target_18: Target) -> None:
    def kept() -> list[tuple[Any, ...]]:
        assert keep_unmapped(target_18.session, target_18.export).records == {"Comment": 2}
        return target_18.all(
            "select u.xmin::text, e.xmin::text, u.base44_id from migration.unmapped u"
            " join migration.unmapped_entities e using (entity) order by 3"
        )

    def is_written_anew() -> bool:
        return not {row[:2] for row in before} & {row[:2] for row in kept()}

    target_18.write({"Comment": [{"id": "1"}, {"id": "2"}]})
    before = kept()
    assert kept() == before
    path = target_18.export / "Comment.jsonl"
    path.write_text(path.read_text().replace("2", "3"))
    assert is_written_anew()
    before = kept()
    path = path.rename(path.with_suffix(".json"))
    path.write_text(path.read_text().replace("}\n{", "}, {").join("[]"))
    assert is_written_anew()
    before = kept()
    target_18.run("delete from migration.unmapped where base44_id = '3'")
    assert is_written_anew()
    # As an earlier version kept it.
    before = kept()
    target_18.run("update migration.unmapped_entities set digest = null")
    assert is_written_anew()


def test_a_misspelt_entity_is_told_by_the_file_that_no_mapping_names(target_18: Target) -> None:
    target_18.write({"Psot": [post(1)], "Comment": [{"id": "1"}], "User": [user(1)], "Catgory": []})
    path = target_18.session.catalog.mappings["posts"].spec.path
    line = path.read_text().splitlines().index("-- entity: Post") + 1
    assert target_18.stage("posts").hint == f"; did you mean Psot (Psot.jsonl) at {path}:{line}?"
    # There is none like it, and one that there is a file of needs no other.
    assert [target_18.stage(table).hint for table in ("events", "users")] == ["", ""]
    hints = {one.entity: one.hint for one in keep_unmapped(target_18.session, target_18.export).entities}
    # What has no records is nothing to look for.
    assert hints == {"Catgory": "", "Comment": "", "Psot": f"; is it meant by 'entity: Post' at {path}:{line}?"}


def test_an_entity_that_has_a_table_now_is_forgotten(target_18: Target) -> None:
    target_18.write({"User": [user(1, note="kept")]})
    target_18.migrate({"User": [user(1, note="kept")]})
    target_18.conn.execute("insert into migration.unmapped (entity, base44_id, data) values ('User', '1', '{}')")
    keep_unmapped(target_18.session, target_18.export)
    assert target_18.all("select entity from migration.unmapped") == [("users",)]
