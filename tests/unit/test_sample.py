from __future__ import annotations

import csv
import hashlib
import io
import json
import os
import re
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

import nh3
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from b44_assets.errors import ExportError, SettingsError
from b44_assets.sample import DIALECTS, SampleReport, truth, write_sample

Json: TypeAlias = dict[str, Any]

DASHBOARD = ("2025-06", "2025-08", "2026-06")
BUILT_INS = "id,created_date,updated_date,created_by_id,created_by,is_sample"
COLUMNS = {
    "User": f"username,avatar_url,bio,verified,last_login_at,role,{BUILT_INS},"
    "email,full_name,disabled,app_id,is_service,_app_role",
    "Category": f"name,slug,description,color,sort_order,active,{BUILT_INS}",
    "Post": "title,content,status,publish_date,tags,category_id,author_id,view_count,like_count," + BUILT_INS,
    "Event": f"user_id,title,event_date,cancelled,{BUILT_INS}",
    "UserPreference": f"user_id,preferences,{BUILT_INS}",
    "UserSession": f"user_id,session_data,expires_at,{BUILT_INS}",
    "AuditLog": f"table_name,record_id,action,old_values,new_values,user_id,timestamp,{BUILT_INS}",
}
ENTITIES = tuple(COLUMNS)
REASONS = {
    "User": {
        "missing_id",
        "duplicate_id",
        "missing_email",
        "invalid_email",
        "duplicate_email",
        "invalid:created_at",
        "invalid:last_login_at",
        "invalid:email_verified",
        "invalid:active",
    },
    "Category": {
        "missing_id",
        "duplicate_id",
        "missing_name",
        "duplicate_name",
        "invalid:sort_order",
        "invalid:active",
    },
    "Post": {
        "missing_id",
        "duplicate_id",
        "orphan_user",
        "missing_title",
        "title_too_long",
        "short_content",
        "invalid:view_count",
        "invalid:like_count",
        "invalid:created_at",
        "invalid:updated_at",
        "invalid:published_at",
        "invalid:tags",
    },
    "Event": {
        "missing_id",
        "duplicate_id",
        "orphan_user",
        "invalid:event_date",
        "invalid:cancelled",
        "invalid:created_at",
        "duplicate_event_day",
    },
    "UserPreference": {"missing_id", "duplicate_id", "orphan_user", "invalid:preferences", "invalid:created_at"},
    "UserSession": {"missing_id", "duplicate_id", "orphan_user", "invalid:expires_at", "invalid:session_data"},
    "AuditLog": {"missing_id", "duplicate_id", "invalid:timestamp", "invalid:new_values"},
}
REPAIRS = {
    "User": {"username", "role", "avatar_url"},
    "Category": {"color"},
    "Post": {"category_id", "content"},
    "Event": set[str](),
    "UserPreference": set[str](),
    "UserSession": set[str](),
    "AuditLog": {"user_id"},
}
OBJECT_ID = re.compile(r"[0-9a-f]{24}")
SERVER_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{6})?")


def file_of(directory: Path, dialect: str, entity: str) -> Path:
    return directory / (f"{entity}.{dialect}" if dialect.startswith("json") else f"{entity}_export.csv")


def truth_of(directory: Path) -> Json:
    return json.loads((directory / "truth.json").read_text(encoding="utf-8"))


def json_records(path: Path) -> list[Json]:
    text = path.read_text(encoding="utf-8")
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.split("\n") if line]


def csv_rows(path: Path) -> list[list[str]]:
    """The rows as a general CSV reader sees them, header included, without a byte order mark."""
    return list(csv.reader(io.StringIO(path.read_bytes().decode("utf-8-sig"), newline=""), strict=True))


def digest(directory: Path) -> str:
    total = hashlib.sha256()
    for path in sorted(directory.iterdir()):
        total.update(path.name.encode() + b"\0" + path.read_bytes())
    return total.hexdigest()


def text_of(value: Any) -> str:
    """A JSON value as the text that a cell would hold, with null and the empty string alike."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, list):
        return json.dumps(value)
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    return str(value)


@pytest.fixture(scope="module")
def samples(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """One troubled sample in every dialect."""
    folders = {dialect: tmp_path_factory.mktemp(dialect) for dialect in DIALECTS}
    for dialect, folder in folders.items():
        write_sample(folder, users=600, posts=900, seed=5, dialect=dialect, faults=0.3)
    return folders


@pytest.fixture(scope="module")
def records(samples: dict[str, Path]) -> dict[str, list[Json]]:
    """The troubled sample's records by entity, as the API would give them."""
    return {entity: json_records(samples["jsonl"] / f"{entity}.jsonl") for entity in ENTITIES}


@pytest.fixture(scope="module")
def verdict(samples: dict[str, Path]) -> Json:
    """What the troubled sample's truth says in full precision."""
    return truth_of(samples["jsonl"])


# Determinism


@pytest.mark.parametrize("dialect", DIALECTS)
def test_same_arguments_give_the_same_bytes(tmp_path: Path, dialect: str) -> None:
    for name in ("one", "two"):
        write_sample(tmp_path / name, users=30, posts=60, seed=9, dialect=dialect, faults=0.3)
    assert digest(tmp_path / "one") == digest(tmp_path / "two")


def test_bytes_do_not_depend_on_the_process(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from b44_assets.sample import write_sample;"
        "write_sample(Path(sys.argv[1]), users=30, posts=60, seed=9, dialect='2025-06', faults=0.3)"
    )
    for hash_seed in ("1", "2"):
        subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / hash_seed)],
            check=True,
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
        )
    assert digest(tmp_path / "1") == digest(tmp_path / "2")


def test_another_seed_gives_another_sample(tmp_path: Path) -> None:
    for seed in (1, 2):
        write_sample(tmp_path / str(seed), users=5, posts=5, seed=seed, dialect="jsonl")
    ids = [{record["id"] for record in json_records(tmp_path / str(seed) / "Post.jsonl")} for seed in (1, 2)]
    assert not ids[0] & ids[1]


def test_bodies_stay_the_same_at_another_rate_of_faults(tmp_path: Path) -> None:
    for faults in (0.0, 0.1):
        write_sample(tmp_path / str(faults), users=50, posts=200, seed=1, dialect="jsonl", faults=faults)
    clean, troubled = (Counter(r["content"] for r in json_records(tmp_path / f / "Post.jsonl")) for f in ("0.0", "0.1"))
    assert (clean & troubled).total() > 180


# Bytes


@pytest.mark.parametrize("dialect", DASHBOARD)
@pytest.mark.parametrize("entity", ENTITIES)
def test_dashboard_csv_quotes_every_cell_and_ends_without_a_newline(
    samples: dict[str, Path], dialect: str, entity: str
) -> None:
    header, body = file_of(samples[dialect], dialect, entity).read_bytes().split(b"\n", 1)
    names = COLUMNS[entity].encode()
    assert header == (b'"' + names.replace(b",", b'","') + b'"' if dialect == "2026-06" else names)
    cell = rb'"(?:[^"]|"")*"'
    row = cell + (rb"," + cell) * names.count(b",")
    assert re.fullmatch(row + rb"(?:\n" + row + rb")*", body)
    assert b"\r" not in body


@pytest.mark.parametrize("entity", ENTITIES)
def test_spreadsheet_csv_has_a_mark_and_crlf_and_quotes_where_needed(samples: dict[str, Path], entity: str) -> None:
    data = file_of(samples["spreadsheet"], "spreadsheet", entity).read_bytes()
    assert data.startswith(b"\xef\xbb\xbf" + COLUMNS[entity].encode() + b"\r\n")
    assert data.endswith(b"\r\n")
    again = io.StringIO(newline="")
    rows = csv_rows(file_of(samples["spreadsheet"], "spreadsheet", entity))
    csv.writer(again).writerows(rows)
    assert data.decode("utf-8-sig") == again.getvalue()


def test_spreadsheet_rows_are_cut_after_the_last_filled_cell(samples: dict[str, Path]) -> None:
    rows = csv_rows(samples["spreadsheet"] / "Post_export.csv")
    assert all(row[-1] for row in rows)
    assert {len(row) for row in rows} > {len(rows[0])}


def test_spreadsheet_has_whole_seconds_and_capital_booleans(samples: dict[str, Path]) -> None:
    header, *rows = csv_rows(samples["spreadsheet"] / "User_export.csv")
    created, verified = header.index("created_date"), header.index("verified")
    times = [row[created] for row in rows if row[created].startswith("202") and row[created][5:7] <= "12"]
    assert len(times) > 500
    assert all(re.fullmatch(r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", time) for time in times)
    assert {row[verified] for row in rows} >= {"TRUE", "FALSE"}
    assert not {row[verified] for row in rows} & {"true", "false"}


def test_json_is_one_array_and_jsonl_an_object_a_line(samples: dict[str, Path], verdict: Json) -> None:
    for entity in ENTITIES:
        array = (samples["json"] / f"{entity}.json").read_bytes()
        lines = (samples["jsonl"] / f"{entity}.jsonl").read_bytes()
        assert (array[:2], array[-2:]) == (b"[{", b"}]")
        assert b"\n" not in array
        assert lines.endswith(b"}\n")
        assert array == b"[" + lines[:-1].replace(b"\n", b", ") + b"]"
        assert lines.count(b"\n") == verdict["entities"][entity]["read"]


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_entity_without_records_has_an_empty_file_in_csv_only(samples: dict[str, Path], dialect: str) -> None:
    comments = [path for path in samples[dialect].iterdir() if path.name.startswith("Comment")]
    expected = [] if dialect.startswith("json") else [("Comment_export.csv", 0)]
    assert [(path.name, path.stat().st_size) for path in comments] == expected


@pytest.mark.parametrize("entity", ENTITIES)
def test_2025_06_spells_nulls_out_and_doubles_quotes_in_json_twice(
    samples: dict[str, Path], records: dict[str, list[Json]], entity: str
) -> None:
    header, *rows = csv_rows(samples["2025-06"] / f"{entity}_export.csv")
    for row, record in zip(rows, records[entity], strict=True):
        for name, cell in zip(header, row, strict=True):
            value = record.get(name, "undefined")
            expected = "null" if value is None else text_of(value)
            if isinstance(value, list | dict):
                expected = expected.replace('"', '""')
            assert cell == expected or is_same_time(cell, value)


@pytest.mark.parametrize("dialect", ["2025-08", "2026-06"])
@pytest.mark.parametrize("entity", ENTITIES)
def test_later_dashboards_leave_nulls_blank_and_2026_06_guards_formulas(
    samples: dict[str, Path], records: dict[str, list[Json]], dialect: str, entity: str
) -> None:
    header, *rows = csv_rows(samples[dialect] / f"{entity}_export.csv")
    for row, record in zip(rows, records[entity], strict=True):
        for name, cell in zip(header, row, strict=True):
            expected = text_of(record.get(name))
            if dialect == "2026-06" and expected.startswith(("=", "+", "-", "@")):
                expected = "'" + expected
            assert cell == expected or is_same_time(cell, record.get(name))


@pytest.mark.parametrize("entity", ENTITIES)
def test_spreadsheet_says_the_same_but_for_seconds_and_case(
    samples: dict[str, Path], records: dict[str, list[Json]], entity: str
) -> None:
    header, *rows = csv_rows(samples["spreadsheet"] / f"{entity}_export.csv")
    for row, record in zip(rows, records[entity], strict=True):
        for name, cell in zip(header, [*row, *[""] * (len(header) - len(row))], strict=True):
            value = record.get(name)
            expected = text_of(value).upper() if isinstance(value, bool) else text_of(value)
            assert cell == expected or is_same_time(cell.replace(" ", "T", 1), value)


def is_same_time(cell: str, value: Any) -> bool:
    """Whether a cell is what a JSON time says, but for `Z` at its end and a fraction that a spreadsheet drops."""
    return isinstance(value, str) and SERVER_TIME.fullmatch(cell) is not None and value[:19] == cell[:19]


def test_json_ends_times_in_at_fields_with_z_and_no_others(records: dict[str, list[Json]]) -> None:
    dates = [record["created_date"] for record in records["UserSession"]]
    assert all(SERVER_TIME.fullmatch(date) for date in dates)
    assert not any(SERVER_TIME.fullmatch(record["expires_at"]) for record in records["UserSession"])


def test_json_has_real_types(records: dict[str, list[Json]]) -> None:
    types = {
        name: {type(record.get(name)) for record in records["Post"]} for name in ("tags", "view_count", "is_sample")
    }
    assert types["tags"] == {list, str, type(None)}
    assert types["view_count"] == {int, str}
    assert types["is_sample"] == {bool, type(None)}
    assert any("is_sample" not in record for record in records["Post"])


# Truth


@pytest.mark.parametrize("dialect", DIALECTS)
def test_truth_adds_up(samples: dict[str, Path], dialect: str) -> None:
    book = truth_of(samples[dialect])
    assert list(book) == ["entities", "posts_by_month", "values"]
    assert tuple(book["entities"]) == ENTITIES
    for counts in book["entities"].values():
        assert counts["read"] == counts["migrated"] + counts["deduplicated"] + counts["quarantined"]
        assert counts["quarantined"] <= sum(counts["reasons"].values())
    assert sum(book["posts_by_month"].values()) == book["entities"]["Post"]["migrated"]
    for kind, entity in (("users", "User"), ("categories", "Category"), ("posts", "Post")):
        assert len(book["values"][kind]) == book["entities"][entity]["migrated"]


def test_truth_is_the_same_in_every_dialect(samples: dict[str, Path], verdict: Json) -> None:
    for dialect in DIALECTS:
        if dialect != "spreadsheet":
            assert truth_of(samples[dialect]) == verdict


def test_spreadsheet_truth_lacks_fractions_only(samples: dict[str, Path], verdict: Json) -> None:
    book = truth_of(samples["spreadsheet"])
    assert re.search(r"\d\.\d{6}\+00:00", json.dumps(book)) is None
    cut = json.loads(re.sub(r"(:\d\d)\.\d{6}\+00:00", r"\1+00:00", json.dumps(verdict)))
    assert book == cut


def test_every_kind_of_trouble_occurs(verdict: Json) -> None:
    assert {entity: set(counts["reasons"]) for entity, counts in verdict["entities"].items()} == REASONS
    assert {entity: set(counts["repairs"]) for entity, counts in verdict["entities"].items()} == REPAIRS
    assert all(counts["deduplicated"] for counts in verdict["entities"].values())


def test_without_faults_every_record_is_migrated_as_it_is(tmp_path: Path) -> None:
    write_sample(tmp_path, users=100, posts=200, seed=3, dialect="jsonl", faults=0)
    for counts in truth_of(tmp_path)["entities"].values():
        assert counts["read"] == counts["migrated"] > 0
        assert counts["repairs"] == {}


def test_exact_repeats_are_what_counts_as_deduplicated(records: dict[str, list[Json]], verdict: Json) -> None:
    for entity in ENTITIES:
        lines = Counter(json.dumps(record) for record in records[entity])
        assert lines.total() - len(lines) == verdict["entities"][entity]["deduplicated"]


def test_blank_and_second_ids_are_what_the_truth_says(records: dict[str, list[Json]], verdict: Json) -> None:
    for entity in ENTITIES:
        distinct = {json.dumps(record) for record in records[entity]}
        ids = Counter((json.loads(line)["id"] or "").strip() for line in distinct)
        reasons = verdict["entities"][entity]["reasons"]
        assert ids.pop("") == reasons["missing_id"]
        assert ids.total() - len(ids) == reasons["duplicate_id"]


def test_newest_version_of_an_id_is_the_one_expected(records: dict[str, list[Json]], verdict: Json) -> None:
    versions: dict[str, list[Json]] = {}
    for record in records["Post"]:
        versions.setdefault(record["id"], []).append(record)
    several = {key: found for key, found in versions.items() if len({json.dumps(one) for one in found}) == 2}
    several = {key: found for key, found in several.items() if key and key.strip()}
    assert several
    for key, found in several.items():
        newest = max(found, key=lambda record: record["updated_date"])
        assert verdict["values"]["posts"][key]["title"] == newest["title"].strip()
    assert {found.index(max(found, key=lambda record: record["updated_date"])) for found in several.values()} == {0, 1}


def test_orphans_are_posts_whose_author_is_not_migrated(records: dict[str, list[Json]], verdict: Json) -> None:
    def author(post: Json) -> str:
        return (post["author_id"] or "").strip() or (post["created_by_id"] or "")

    orphans = [author(post) for post in records["Post"] if author(post) not in verdict["values"]["users"]]
    assert len(orphans) == verdict["entities"]["Post"]["reasons"]["orphan_user"]
    users = {user["id"] for user in records["User"]}
    kinds = {
        "service": any(orphan.startswith("service_") for orphan in orphans),
        "refused": any(orphan in users for orphan in orphans),
        "unknown": any(OBJECT_ID.fullmatch(orphan) and orphan not in users for orphan in orphans),
        "nobody": any(orphan in ("", "anonymous") for orphan in orphans),
    }
    assert all(kinds.values()), kinds


def test_e_mail_is_unique_among_the_migrated_and_the_earliest_keeps_it(
    records: dict[str, list[Json]], verdict: Json
) -> None:
    holders: dict[str, list[Json]] = {}
    for user in records["User"]:
        if (user["email"] or "").strip():
            holders.setdefault(user["email"].strip().lower(), []).append(user)
    shared = {address: found for address, found in holders.items() if len({user["id"] for user in found}) > 1}
    assert len(shared) == verdict["entities"]["User"]["reasons"]["duplicate_email"]
    for address, found in shared.items():
        first, second = sorted(found, key=lambda user: user["created_date"])
        assert verdict["values"]["users"][first["id"]]["email"] == address
        assert second["id"] not in verdict["values"]["users"]
        assert first["email"] != second["email"]


def test_given_names_go_before_made_ones_and_earlier_before_later(
    records: dict[str, list[Json]], verdict: Json
) -> None:
    users = verdict["values"]["users"]
    assert len({user["username"] for user in users.values()}) == len(users)
    wanted: dict[str, list[Json]] = {}
    for user in {user["id"]: user for user in records["User"] if user["id"] in users}.values():
        given = (user["username"] or "").strip().lower()
        name = given or users[user["id"]]["email"].partition("@")[0]
        wanted.setdefault(name, []).append({"given": bool(given), **user})
    clashes = {name: found for name, found in wanted.items() if len(found) > 1}
    assert len(clashes) == verdict["entities"]["User"]["repairs"]["username"]
    for name, found in clashes.items():
        winner, loser = sorted(found, key=lambda user: (not user["given"], user["created_date"] or ""))
        assert users[winner["id"]]["username"] == name
        assert users[loser["id"]]["username"] == f"{name}-2"
    assert {tuple(sorted(user["given"] for user in found)) for found in clashes.values()} == {
        (False, True),
        (True, True),
    }


def test_unsafe_posts_are_those_that_a_sanitizer_changes(records: dict[str, list[Json]], verdict: Json) -> None:
    posts = verdict["values"]["posts"]
    newest = {r["id"]: r for r in sorted(records["Post"], key=lambda r: r["updated_date"] or "") if r["id"] in posts}
    changed = {
        key for key, r in newest.items() if re.search("[<&]", r["content"]) and nh3.clean(r["content"]) != r["content"]
    }
    assert changed == {key for key, expected in posts.items() if expected["unsafe"]}
    assert len(changed) == verdict["entities"]["Post"]["repairs"]["content"]
    for needle in ("<script", "onclick=", "javascript:", "onerror="):
        assert any(needle in newest[key]["content"].lower() for key in changed)


def test_short_content_is_ten_characters_or_fewer_after_cleaning(records: dict[str, list[Json]], verdict: Json) -> None:
    distinct = [json.loads(line) for line in {json.dumps(record) for record in records["Post"]}]
    lengths = [len(nh3.clean(record["content"] or "").strip()) for record in distinct]
    assert sum(length <= 10 for length in lengths) == verdict["entities"]["Post"]["reasons"]["short_content"]
    assert 10 in lengths


def test_plain_content_is_expected_unchanged(records: dict[str, list[Json]], verdict: Json) -> None:
    contents = {record["content"] for record in records["Post"]}
    plain = [post["content"] for post in verdict["values"]["posts"].values() if "content" in post]
    assert len(plain) > 200
    assert all(content in contents and not re.search("[<&]", content) for content in plain)
    assert any("\n" in content for content in plain)


def test_titles_end_up_trimmed_and_at_most_255_long(records: dict[str, list[Json]], verdict: Json) -> None:
    titles = [post["title"] for post in verdict["values"]["posts"].values()]
    assert all(title == title.strip() and 0 < len(title) <= 255 for title in titles)
    assert 255 in {len(title) for title in titles}
    too_long = [record for record in records["Post"] if len((record["title"] or "").strip()) > 255]
    assert len(too_long) == verdict["entities"]["Post"]["reasons"]["title_too_long"]
    assert {title[0] for title in titles} > {"=", "+", "-", "@"}


def test_an_undated_post_counts_from_the_second_of_its_id(records: dict[str, list[Json]], verdict: Json) -> None:
    posts = verdict["values"]["posts"]
    undated = [r["id"] for r in records["Post"] if not (r["created_date"] or "").strip() and r["id"] in posts]
    assert undated
    for key in undated:
        seconds = int(key[:8], 16) % 60
        assert posts[key]["created_at"].endswith(f":{seconds:02}+00:00")


def test_later_events_of_a_user_on_one_day_in_utc_are_duplicates(records: dict[str, list[Json]], verdict: Json) -> None:
    days: Counter[tuple[str, str]] = Counter()
    for event in {event["id"]: event for event in records["Event"]}.values():
        try:
            takes_place = datetime.fromisoformat(event["event_date"])
        except ValueError:
            continue
        if event["cancelled"] in (False, None):
            takes_place = takes_place.replace(tzinfo=takes_place.tzinfo or UTC).astimezone(UTC)
            days[event["user_id"], f"{takes_place:%Y-%m-%d}"] += 1
    later = days.total() - len(days)
    assert later == verdict["entities"]["Event"]["reasons"]["duplicate_event_day"]


def test_ids_are_object_ids_of_their_second_or_invented(records: dict[str, list[Json]]) -> None:
    invented: set[str] = set()
    for entity in ENTITIES:
        for record in records[entity]:
            base44_id, created = record["id"] or "", record["created_date"] or ""
            if not OBJECT_ID.fullmatch(base44_id):
                invented.add(base44_id)
            elif SERVER_TIME.fullmatch(created) and created[5:7] <= "12" and created[8:10] != "31":
                assert int(base44_id[:8], 16) == int(datetime.fromisoformat(f"{created}+00:00").timestamp())
    assert any(base44_id.startswith("guest_") for base44_id in invented)
    assert any(base44_id.startswith("custom-") for base44_id in invented)
    assert any(re.fullmatch(r"[\w-]{21}", base44_id) for base44_id in invented)


def test_times_come_in_all_forms(records: dict[str, list[Json]]) -> None:
    written = [r["publish_date"] for r in records["Post"] if r["publish_date"]]
    written += [r["event_date"] for r in records["Event"]]
    for form in (r".{19}\.\d{6}", r".{19}", r".{19}\.000Z", r".{19}Z", r".{16}", r".{19}[+-]\d\d:\d\d"):
        assert any(re.fullmatch(form, text) for text in written if text.startswith("20")), form
    assert {"yesterday", "2025-02-31T10:00:00.000000"} <= {r["created_date"] for r in records["Post"]}


def test_posts_lie_between_2024_and_september_2026(verdict: Json) -> None:
    months = list(verdict["posts_by_month"])
    assert months == sorted(months)
    assert (months[0], months[-1], len(months)) == ("2024-01", "2026-09", 33)


# Sizes, limits and refusals


@pytest.mark.parametrize("dialect", DIALECTS)
def test_report_tells_records_and_bytes_of_what_is_on_disk(tmp_path: Path, dialect: str) -> None:
    report = write_sample(tmp_path, users=20, posts=30, seed=1, dialect=dialect, faults=0.2)
    exports = {path.name: path for path in tmp_path.iterdir() if path.name != "truth.json"}
    assert set(report.files) == set(exports)
    assert report.bytes == sum(path.stat().st_size for path in exports.values())
    counts = truth_of(tmp_path)["entities"]
    for entity in ENTITIES:
        assert report.files[file_of(tmp_path, dialect, entity).name] == counts[entity]["read"]


@pytest.mark.parametrize(
    ("dialect", "empty"), [("2025-08", b""), ("spreadsheet", b""), ("json", b"[]"), ("jsonl", b"")]
)
def test_no_posts_and_one_user_are_enough(tmp_path: Path, dialect: str, empty: bytes) -> None:
    write_sample(tmp_path, users=1, posts=0, seed=1, dialect=dialect)
    assert file_of(tmp_path, dialect, "Post").read_bytes() == empty
    book = truth_of(tmp_path)
    assert book["entities"]["User"]["migrated"] == 1
    assert book["entities"]["Post"] == {
        "read": 0,
        "migrated": 0,
        "deduplicated": 0,
        "quarantined": 0,
        "reasons": {},
        "repairs": {},
    }
    assert book["values"]["posts"] == book["posts_by_month"] == {}


@settings(max_examples=25)
@given(
    users=st.integers(1, 25),
    posts=st.integers(0, 40),
    seed=st.integers(),
    faults=st.floats(0, 1),
    dialect=st.sampled_from(DIALECTS),
)
def test_any_size_and_rate_gives_a_whole_sample(users: int, posts: int, seed: int, faults: float, dialect: str) -> None:
    with tempfile.TemporaryDirectory() as name:
        write_sample(Path(name), users=users, posts=posts, seed=seed, dialect=dialect, faults=faults)
        counts = truth_of(Path(name))["entities"]
        for entity in ENTITIES:
            path = file_of(Path(name), dialect, entity)
            read = json_records(path) if dialect.startswith("json") else csv_rows(path)[1:]
            outcome = counts[entity]
            assert (
                len(read) == outcome["read"] == outcome["migrated"] + outcome["deduplicated"] + outcome["quarantined"]
            )
        assert counts["User"]["migrated"] > 0


def test_truth_of_a_big_sample_keeps_the_first_values_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(truth, "VALUES_LIMIT", 50)
    monkeypatch.setattr(truth, "VALUES_KEPT", 7)
    write_sample(tmp_path, users=20, posts=60, seed=1, dialect="jsonl", faults=0)
    book = truth_of(tmp_path)
    first = [record["id"] for record in json_records(tmp_path / "Post.jsonl")[:7]]
    assert list(book["values"]["posts"]) == first
    assert len(book["values"]["users"]) == 20
    assert sum(book["posts_by_month"].values()) == 60


def test_truth_can_be_left_out(tmp_path: Path) -> None:
    write_sample(tmp_path, users=2, posts=2, seed=1, dialect="json", truth=False)
    assert not (tmp_path / "truth.json").exists()


def test_folders_are_made_as_needed(tmp_path: Path) -> None:
    write_sample(tmp_path / "a" / "b", users=1, posts=1, seed=1, dialect="json")
    assert (tmp_path / "a" / "b" / "Post.json").exists()


@pytest.mark.parametrize("name", ["Post_export.csv", "Order.JSON", "User.jsonl"])
def test_a_folder_with_an_export_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ExportError, match=re.escape(name)):
        write_sample(tmp_path, users=1, posts=1, seed=1, dialect="json")
    assert [(path.name, path.read_text()) for path in tmp_path.iterdir()] == [(name, "mine")]


def test_other_files_in_the_folder_do_not_matter(tmp_path: Path) -> None:
    (tmp_path / "README.md").write_text("notes")
    report = write_sample(tmp_path, users=1, posts=1, seed=1, dialect="json")
    assert isinstance(report, SampleReport)
    assert (tmp_path / "README.md").read_text() == "notes"


def test_a_file_in_the_place_of_the_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "sample").write_text("")
    with pytest.raises(ExportError, match="sample"):
        write_sample(tmp_path / "sample", users=1, posts=1, seed=1, dialect="json")


@pytest.mark.parametrize(
    ("users", "posts", "faults", "dialect", "word"),
    [
        (0, 1, 0.1, "json", "user"),
        (1, -1, 0.1, "json", "posts"),
        (1, 1, 1.1, "json", "faults"),
        (1, 1, -0.1, "json", "faults"),
        (1, 1, float("nan"), "json", "faults"),
        (1, 1, 0.1, "2024-01", "2024-01"),
    ],
)
def test_impossible_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, users: int, posts: int, faults: float, dialect: str, word: str
) -> None:
    with pytest.raises(SettingsError, match=word):
        write_sample(tmp_path / "new", users=users, posts=posts, seed=1, dialect=dialect, faults=faults)
    assert not (tmp_path / "new").exists()


def test_an_interrupted_sample_leaves_no_files(tmp_path: Path) -> None:
    def interrupt(done: int, total: int) -> None:
        if done > total // 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_sample(tmp_path, users=10, posts=50, seed=1, dialect="2025-08", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("faults", [0.0, 1.0])
def test_progress_rises_to_the_total(tmp_path: Path, faults: float) -> None:
    calls: list[tuple[int, int]] = []
    report: Callable[[int, int], None] = lambda done, total: calls.append((done, total))  # noqa: E731
    write_sample(tmp_path, users=100, posts=6_000, seed=1, dialect="2025-08", faults=faults, progress=report)
    totals: Iterator[int] = (total for _, total in calls)
    assert len(set(totals)) == 1
    done = [done for done, _ in calls]
    assert done == sorted(done)
    assert calls[-1][0] == calls[-1][1]
    assert sum(0 < each < calls[-1][1] for each in done) >= 6
