"""What the world does to a migration: damaged files, servers that go away, runs that are killed, a full disk."""

from __future__ import annotations

import csv
import io
import json
import os
import shutil
import signal
import subprocess
import threading
from collections.abc import Generator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Command, Result, environment
from tests.helpers.database_contents import rows, state, value
from tests.helpers.lock_waits import stopped_at
from tests.helpers.migrated_apps import Databases, Migrated
from tests.helpers.paths import EXPORTS
from tests.helpers.servers import Pg15, free_port
from tests.helpers.workers import made_once

SECRET = "Geheim7Secret"


def account(result: Result, table: str) -> dict[str, Any]:
    """What the command says of a table, with what must hold of every one."""
    counts = result.report["entities"][table]
    assert counts["read"] == counts["migrated"] + counts["deduplicated"] + counts["quarantined"]
    return counts


# -- a file cut off in the middle of a record --------------------------------------------------------------------------


def records_of(path: Path) -> list[dict[str, Any]]:
    """The records of an export file, read by Python's own readers."""
    text = path.read_text(encoding="utf-8-sig")
    if path.suffix == ".csv":
        return list(csv.DictReader(io.StringIO(text, newline="")))
    return json.loads(text) if path.suffix == ".json" else [json.loads(line) for line in text.splitlines()]


def cut_in_a_record(path: Path) -> int:
    """Cuts a file off within a quoted text of a record from its middle; returns how many records are still whole."""
    records = records_of(path)
    data = path.read_bytes()
    for number in range(len(records) // 2, len(records)):
        content = str(records[number]["content"])
        beginning = content[:40].encode()
        # A spreadsheet quotes only what needs it; elsewhere the cut would leave a row that is whole but for its end.
        if "\n" in content[60:] and beginning.isascii() and b'"' not in beginning and data.count(beginning) == 1:
            path.write_bytes(data[: data.index(beginning) + len(beginning)])
            return number
    raise AssertionError("no record to cut in")


# How each dialect is cut is a matter of reading, and tested there.
@pytest.mark.parametrize("dialect", ["2026-06", pytest.param("json", marks=pytest.mark.slow)])
def test_file_cut_off_in_a_record_loses_that_record_to_quarantine_and_no_other(
    dialect: str, lean: Command, target: str, tmp_path: Path
) -> None:
    export = tmp_path / "export"
    shutil.copytree(EXPORTS / dialect, export)
    (posts,) = export.glob("Post*")
    whole = cut_in_a_record(posts)
    result = lean.on(target)("migrate", "--export", export, "--json")
    assert result.status == 0, result
    [warning] = result.complaints
    assert f"{posts.name} ends within its last record" in warning
    counts = account(result, "posts")
    assert counts["read"] == whole + 1
    assert counts["reasons"]["malformed_record"] == 1
    [(number, record)] = rows(
        target,
        "select record_number, record ->> '_raw' from migration.quarantine where reasons = array['malformed_record']",
    )
    assert number == whole + 1
    # The record is kept as far as it goes, byte for byte; JSON's white space before the cut is no part of it.
    assert posts.read_bytes().rstrip().endswith(record.rstrip().encode())
    assert counts["migrated"] == value(target, "select count(*) from posts")


# -- files that are odd as a whole -------------------------------------------------------------------------------------

ODD_USERS = 58
BIG = 10 * 1024 * 1024


@pytest.fixture(scope="module")
def odd_export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An export in which nearly every file is odd in another way."""
    export = tmp_path_factory.mktemp("odd") / "export"
    shutil.copytree(EXPORTS / "2026-06", export)
    # A header and nothing else; no byte at all.
    events = export / "Event_export.csv"
    events.write_bytes(events.read_bytes().partition(b"\n")[0])
    (export / "AuditLog_export.csv").write_bytes(b"")
    # Latin-1, which is UTF-8 in most lines.
    (export / "Category_export.csv").write_bytes(
        '"id","name","slug"\n'
        '"65c4e6bb5482e2ced37cf201","Café au lait",""\n'
        '"65c4e6bb5482e2ced37cf202","Plain",""\n'
        '"65c4e6bb5482e2ced37cf203","Übung",""'.encode("latin-1")
    )
    # NUL, raw and as JSON writes it.
    (export / "UserPreference_export.csv").unlink()
    (export / "UserPreference.jsonl").write_text(
        '{"id": "65c4e6bb5482e2ced37cf301", "user_id": "68409cf5f5e804cfac78b489", "preferences": {"a": "b"}}\n'
        '{"id": "65c4e6bb5482e2ced37cf302", "user_id": "680a9e5ba24eb80db189e370", "preferences": {"a": "x\\u0000y"}}\n'
    )
    sessions = export / "UserSession_export.csv"
    lines = sessions.read_bytes().split(b"\n")
    lines[1] = lines[1].replace(b'"', b'"\0', 1)
    sessions.write_bytes(b"\n".join(lines))
    # Entities that sql/ has no table for: one with records, one without.
    (export / "Comment_export.csv").write_text(
        '"id","text"\n"65c4e6bb5482e2ced37cf401","first"\n"65c4e6bb5482e2ced37cf401","the same id"\n"","no id"'
    )
    (export / "Invoice.json").write_text("[]")
    # Cells of 10 MB: a text, a text that holds HTML, a title.
    posts = records_of(export / "Post_export.csv")[2:5]
    posts[0]["content"] = ("all work and no play " * (BIG // 21 + 1))[:BIG]
    posts[1]["content"] = f"<p onclick='steal()'>{'word ' * (BIG // 5)}</p>"
    posts[2]["title"] = "t" * BIG
    (export / "Post_export.csv").unlink()
    (export / "Post.json").write_text(json.dumps(posts))
    return export


@pytest.fixture(scope="module")
def odd(
    odd_export: Path,
    databases: Databases,
    dagster_storage: str,
    lean_sql: Path,
    tmp_path_factory: pytest.TempPathFactory,
) -> tuple[Result, str]:
    """The odd export, migrated once for all workers: what the command said, and the database."""

    def migrate() -> str:
        values = environment(DAGSTER_PG_URL=dagster_storage, B44_SQL_DIR=str(lean_sql))
        command = Command(tmp_path_factory.mktemp("work"), values)
        databases.drop("odd")
        result = command.on(databases.create("odd"))("migrate", "--export", odd_export, "--json")
        return json.dumps(asdict(result))

    result = Result(**json.loads(made_once(databases.server.home.parent / "odd.json", migrate)))
    return result, databases.server.url("odd")


def test_odd_files_do_not_stop_the_migration(odd: tuple[Result, str]) -> None:
    result, url = odd
    assert result.status == 0, result
    assert result.report["checks"]["failed"] == 0
    assert rows(url, "select entity from migration.accounting where unaccounted <> 0 or pending <> 0") == []


@pytest.mark.parametrize("table", ["events", "audit_logs"])
def test_file_without_records_is_an_entity_without_rows(table: str, odd: tuple[Result, str]) -> None:
    result, url = odd
    assert account(result, table)["read"] == 0
    assert value(url, sql.SQL("select count(*) from {}").format(sql.Identifier(table))) == 0


def test_text_that_is_not_utf8_is_quarantined_record_by_record(odd: tuple[Result, str]) -> None:
    result, url = odd
    counts = account(result, "categories")
    assert (counts["read"], counts["migrated"], counts["reasons"]) == (3, 1, {"invalid_encoding": 2})
    assert rows(url, "select name from categories") == [("Plain",)]
    kept = rows(
        url, "select record_number, record ->> 'name' from migration.quarantine where entity = 'categories' order by 1"
    )
    assert kept == [(1, "Caf\\xe9 au lait"), (3, "\\xdcbung")]


def test_nul_in_json_is_quarantined_and_the_next_record_is_not(odd: tuple[Result, str]) -> None:
    counts = account(odd[0], "user_preferences")
    assert (counts["read"], counts["migrated"], counts["reasons"]) == (2, 1, {"invalid_encoding": 1})


def test_nul_in_csv_is_quarantined_and_the_next_record_is_not(odd: tuple[Result, str]) -> None:
    counts = account(odd[0], "user_sessions")
    assert (counts["read"], counts["migrated"], counts["reasons"]) == (60, 59, {"invalid_encoding": 1})


def test_unknown_entity_is_kept_whole_and_told_of(odd: tuple[Result, str]) -> None:
    result, url = odd
    assert rows(
        url, "select base44_id, data from migration.unmapped where entity = 'Comment' order by data ->> 'text'"
    ) == [
        ("65c4e6bb5482e2ced37cf401", {"id": "65c4e6bb5482e2ced37cf401", "text": "first"}),
        ("record 3", {"text": "no id"}),
        ("65c4e6bb5482e2ced37cf401 record 2", {"id": "65c4e6bb5482e2ced37cf401", "text": "the same id"}),
    ]
    assert result.complaints == ["warning: no table in sql/ for Comment: its 3 records are kept in migration.unmapped"]


def test_cells_of_ten_megabytes_are_taken_or_quarantined_whole(odd: tuple[Result, str], odd_export: Path) -> None:
    result, url = odd
    counts = account(result, "posts")
    assert (counts["read"], counts["migrated"], counts["reasons"]) == (3, 2, {"title_too_long": 1})
    plain, html, _ = json.loads((odd_export / "Post.json").read_text())
    stored = dict(rows(url, "select base44_object_id(id), content from posts"))
    assert stored[plain["id"]] == plain["content"]
    assert stored[html["id"]] == html["content"].replace(" onclick='steal()'", "")
    assert value(url, "select length(record ->> 'title') from migration.quarantine where entity = 'posts'") == BIG


# -- input that cannot be read at all ----------------------------------------------------------------------------------


@pytest.mark.slow  # tests/unit has the message, and the next test what it does to the command
def test_utf16_file_is_named_and_nothing_of_it_is_migrated(b44: Command, target: str, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    file = export / "Category_export.csv"
    file.write_bytes('"id","name"\n"65c4e6bb5482e2ced37cf201","Plain"\n'.encode("utf-16"))
    result = b44.on(target)("migrate", "--export", export, "--json")
    assert result.status == 2
    (line,) = [line for line in result.complaints if not line.startswith("warning: ")]
    assert line.startswith(f"b44: {file}: ")
    assert "UTF-16" in line
    assert "Traceback" not in result.err


def test_file_that_holds_no_export_is_named(small: Command, target: str, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    file = export / "Ledger00.json"
    file.write_bytes(b"%PDF-1.7 this is something else\n")
    result = small.on(target)("migrate", "--export", export, "--json")
    assert result.status == 2
    (line,) = [line for line in result.complaints if not line.startswith("warning: ")]
    assert line == f"b44: {file}: holds neither an array nor objects of JSON"


def test_folder_without_any_export_is_refused(b44: Command, target: str, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing to see here")
    (tmp_path / "truth.json").write_text("{}")
    result = b44.on(target)("migrate", "--export", tmp_path)
    assert result.status == 2
    assert result.fault.startswith(f"b44: {tmp_path}: no export file here")
    assert state(target) == {}


def test_file_in_place_of_a_folder_is_refused(b44: Command, target: str) -> None:
    file = EXPORTS / "2026-06" / "Post_export.csv"
    result = b44.on(target)("migrate", "--export", file)
    assert result.status == 2
    assert result.fault == f"b44: {file}: is a file, not an export folder; name the folder that it is in"


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read every file")
def test_file_that_may_not_be_read_is_named(b44: Command, target: str, tmp_path: Path) -> None:
    export = tmp_path / "export"
    shutil.copytree(EXPORTS / "2026-06", export)
    (export / "Category_export.csv").chmod(0)
    result = b44.on(target)("migrate", "--export", export, "--json")
    assert result.status == 2
    unreadable = export / "Category_export.csv"
    assert result.fault == f"b44: {unreadable}: cannot be read: Permission denied; let this account read it (chmod +r)"


# -- servers that are not there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [["migrate", "--export", str(EXPORTS / "2026-06")], ["verify"], ["status"]])
def test_unreachable_database_is_one_line(arguments: list[str], b44: Command) -> None:
    port = free_port()
    result = b44.on(f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/app")(*arguments)
    assert result.status == 2
    assert (
        f"b44: the PostgreSQL server 127.0.0.1:{port} refuses the connection: no server listens there;" in result.fault
    )
    assert SECRET not in result.out + result.err


def test_table_of_somebody_else_in_the_target_is_named_and_nothing_is_made(b44: Command, target: str) -> None:
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("create table users (id bigint primary key, login text)")
    catalogue = "select oid, relname from pg_class union all select oid, nspname from pg_namespace order by 1"
    before = rows(target, catalogue)
    result = b44.on(target)("migrate", "--export", EXPORTS / "2026-06")
    assert result.status == 2
    assert "public.users" in result.fault and "no column email" in result.fault and "rename it" in result.fault
    assert rows(target, catalogue) == before


def test_unreachable_storage_of_dagster_is_one_line(b44: Command, target: str) -> None:
    port = free_port()
    command = b44.on(target).having(DAGSTER_PG_URL=f"postgresql://somebody:{SECRET}@127.0.0.1:{port}/dagster")
    result = command("migrate", "--export", EXPORTS / "2026-06")
    assert result.status == 2
    assert str(port) in result.fault
    assert SECRET not in result.out + result.err


def test_wrong_password_is_one_line(b44: Command, pg15: Pg15) -> None:
    result = b44.on(pg15.tcp_url(password=SECRET))("migrate", "--export", EXPORTS / "2026-06")
    assert result.status == 2
    assert f"b44: the PostgreSQL server 127.0.0.1:{pg15.port} refuses the password of user 'app': " in result.fault
    assert "%40" in result.fault
    assert SECRET not in result.out + result.err


# -- servers that go away ----------------------------------------------------------------------------------------------


@pytest.mark.slow  # tests/faults ends sessions at every failpoint
def test_sessions_that_are_ended_over_and_over_leave_a_migration_that_can_go_on(
    b44: Command, migrated: Migrated, target: str
) -> None:
    command = b44.on(target).having(B44_BATCH_SIZE="5")
    running = command.start("migrate", "--export", migrated.export, "--json")
    running.until(lambda: value(target, "select to_regclass('migration.plans') is not null"))
    over = threading.Event()

    def end_sessions() -> None:
        with psycopg.connect(target, autocommit=True) as conn:
            while not over.wait(0.2):
                conn.execute(
                    "select pg_terminate_backend(pid) from pg_stat_activity"
                    " where datname = current_database() and application_name like 'b44%'"
                )

    thread = threading.Thread(target=end_sessions)
    thread.start()
    try:
        result = running.wait()
    finally:
        over.set()
        thread.join()
    if result.status:
        assert result.status in (1, 2)
        assert "Traceback" not in result.fault
    again = command("migrate", "--export", migrated.export, "--json")
    assert (again.status, again.complaints) == (0, [])
    assert again.report["entities"] == migrated.result.report["entities"]
    assert state(target) == state(migrated.url)


@pytest.mark.slow
def test_database_that_is_dropped_under_a_migration_is_one_line(
    b44: Command, migrated: Migrated, databases: Databases, target: str
) -> None:
    running = b44.on(target).start("migrate", "--export", migrated.export, "--json")
    running.until(lambda: value(target, "select to_regclass('public.users') is not null"))
    databases.drop(target.partition("@/")[2].partition("?")[0])
    result = running.wait()
    assert result.status in (1, 2)
    assert "b44: " in result.fault


# -- runs that are killed, and two at once -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "purpose", "after"),
    [
        pytest.param(
            "migration.exports", "stage", "select count(*) >= 3 from migration.exports", marks=pytest.mark.slow
        ),
        (
            "migration.migration_log",
            "load posts",
            "select count(*) >= 5 from migration.migration_log where entity_type = 'posts'",
        ),
    ],
    ids=["staging", "loading"],
)
@pytest.mark.slow  # tests/faults kills the engine at every failpoint
def test_killed_migration_goes_on_when_run_again(
    table: str, purpose: str, after: str, b44: Command, migrated: Migrated, target: str
) -> None:
    command = b44.on(target).having(B44_BATCH_SIZE="5")
    running = command.start("migrate", "--export", migrated.export, "--json")
    with stopped_at(running, target, table, purpose, after=after):
        running.signal(signal.SIGKILL)
        assert running.wait().status == -signal.SIGKILL
        # The next one starts while the server still works for the dead one.
        again = command.start("migrate", "--export", migrated.export, "--json")
    result = again.wait()
    assert (result.status, result.complaints) == (0, [])
    assert result.report["entities"] == migrated.result.report["entities"]
    assert state(target) == state(migrated.url)


@pytest.mark.slow  # tests/faults has the same of the engine alone
def test_two_migrations_at_once_come_to_what_one_comes_to(b44: Command, migrated: Migrated, target: str) -> None:
    command = b44.on(target).having(B44_BATCH_SIZE="5")
    both = [command.start("migrate", "--export", migrated.export, "--json") for _ in range(2)]
    results = [running.wait() for running in both]
    for result in results:
        assert result.status == 0, result
        assert result.report["entities"] == migrated.result.report["entities"]
    assert state(target) == state(migrated.url)


@pytest.mark.slow  # tests/faults has the same of the engine alone
def test_two_migrations_of_different_exports_do_not_mix(
    b44: Command, migrated: Migrated, target: str, tmp_path: Path
) -> None:
    newer = tmp_path / "newer"
    shutil.copytree(migrated.export, newer)
    with (newer / "Category_export.csv").open("a") as file:
        columns = len(records_of(migrated.export / "Category_export.csv")[0])
        header = (newer / "Category_export.csv").read_text().partition("\n")[0].replace('"', "").split(",")
        cells = {"id": "65c4e6bb5482e2ced37cf2ff", "name": "One more"}
        assert len(header) == columns
        file.write("\n" + ",".join(f'"{cells.get(name, "")}"' for name in header))
    command = b44.on(target).having(B44_BATCH_SIZE="5")
    first = command.start("migrate", "--export", migrated.export, "--json")
    with stopped_at(
        first,
        target,
        "migration.migration_log",
        "load posts",
        after="select count(*) >= 5 from migration.migration_log where entity_type = 'posts'",
    ):
        second = command.start("migrate", "--export", newer, "--json")
        # It says that it waits, and for whom.
        assert second.process.stderr is not None
        said = second.process.stderr.readline()
        assert said.startswith("waiting for another migration of this database to end: process "), said
        assert value(target, "select records from migration.exports where entity = 'categories'") == 12
    done = first.wait()
    assert (done.status, done.report["entities"]) == (0, migrated.result.report["entities"])
    result = second.wait()
    assert result.status == 0, result
    assert result.report["entities"]["categories"]["migrated"] == 12
    assert result.report["entities"]["posts"] == migrated.result.report["entities"]["posts"]
    assert value(target, "select count(*) from categories where name = 'One more'") == 1


# -- a full disk -------------------------------------------------------------------------------------------------------


@pytest.fixture
def small_disk(tmp_path: Path) -> Generator[Path]:
    """A file system of 256 MB of the test's own."""
    place = tmp_path / "disk"
    place.mkdir()
    mount = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=256m,mode=0755", "tmpfs", place],
            capture_output=True,
            text=True,
            check=False,
        )
        if os.geteuid() == 0 and shutil.which("mount")
        else None
    )
    if mount is None or mount.returncode:
        pytest.skip("a file system can be mounted by root only, and not in every container")
    yield place
    EmbeddedServer(place / "home").stop("immediate")
    subprocess.run(["umount", place], check=True)


def fill(place: Path, leaving: int) -> Path:
    """Fills a file system but for some bytes."""
    ballast = place / "ballast"
    free = shutil.disk_usage(place).free - leaving
    with ballast.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, free)
    return ballast


def test_full_disk_is_one_line_and_the_migration_goes_on_when_there_is_room(
    b44: Command, small_disk: Path, migrated: Migrated
) -> None:
    command = b44.lacking("DAGSTER_PG_URL").having(B44_HOME=str(small_disk / "home"))
    url = command("db", "url").out.strip()
    assert url.startswith("postgresql://")
    ballast = fill(small_disk, 5 << 20)
    full = command("migrate", "--export", migrated.export, "--json")
    assert full.status in (1, 2)
    assert "No space left on device" in full.fault
    assert "make room" in full.fault and "MB free in" in full.fault and "run the same command again" in full.fault
    ballast.unlink()
    again = command("migrate", "--export", migrated.export, "--json")
    assert (again.status, again.complaints) == (0, [])
    assert again.report["entities"] == migrated.result.report["entities"]
    assert state(command("db", "url").out.strip()) == state(migrated.url)


def test_disk_without_room_for_a_server_is_one_line(b44: Command, small_disk: Path) -> None:
    fill(small_disk, 8 << 20)
    result = b44.having(B44_HOME=str(small_disk / "home"))("db", "url")
    assert result.status == 2
    assert "No space left on device" in result.fault
    assert "make room" in result.fault and "MB free in" in result.fault and "run the same command again" in result.fault


# -- entities without a table ------------------------------------------------------------------------------------------


def test_an_export_none_of_whose_records_has_a_table_is_no_success(small: Command, target: str, tmp_path: Path) -> None:
    (tmp_path / "Invoice.csv").write_text("id,total\n1,2\n3,4\n")
    (tmp_path / "Customer_export.csv").touch()
    result = small.on(target)("migrate", "--export", tmp_path, "--json")
    assert (result.status, result.out) == (1, "")
    assert "b44 init" in result.fault and "Invoice 2" in result.fault
    # Beside one that has, they are kept and told of.
    (tmp_path / "Ledger00.csv").write_text("id,remark\n65c4e6bb5482e2ced37cf301,one\n")
    result = small.on(target)("migrate", "--export", tmp_path, "--json")
    assert result.status == 0, result
    unmapped = {"Customer": {"read": 0, "file": "Customer_export.csv"}, "Invoice": {"read": 2, "file": "Invoice.csv"}}
    assert result.report["unmapped"] == unmapped
    shown = small.on(target)("status", "--json")
    assert (shown.status, shown.report["unmapped"]) == (0, unmapped)
    shown = small.on(target)("status")
    assert "Invoice (no table)" in shown.out and "b44 init" in shown.out


def test_files_that_are_not_read_are_named(small: Command, target: str, tmp_path: Path) -> None:
    (tmp_path / "ledger00_export (1).csv").write_text("id,remark\n65c4e6bb5482e2ced37cf301,one\n")
    (tmp_path / "Ledger01_export.csv.gz").write_bytes(b"\x1f\x8b")
    (tmp_path / "Comment.csv").write_text("id\n1\n")
    (tmp_path / "truth.json").write_text("{}")
    result = small.on(target)("migrate", "--export", tmp_path)
    assert result.status == 0, result
    assert "Ledger00" in next(line for line in result.err.splitlines() if "ledger00_export (1).csv" in line)
    assert any(line.startswith("warning: ") and "Ledger01_export.csv.gz" in line for line in result.complaints)
    assert any("no table in sql/ for Comment: its 1 record is kept" in line for line in result.complaints)
    assert "notice: beside the export, and not read: truth.json" in result.err
    assert "Comment (no table)" in result.out
