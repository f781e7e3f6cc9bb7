"""Which target a command works on, that reading makes none, and PostgreSQL's own programs on it."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict

from tests.helpers.command import PATIENCE, Command, environment
from tests.helpers.migrated_apps import Migrated
from tests.helpers.servers import free_port


@pytest.mark.parametrize(
    "command",
    [
        *("status", "verify", "report", "doctor", "backups", "plan", "migrate", "quarantine", "replay", "finish"),
        *("rollback --partition 2026-01", "backup", "drill", "metrics", "db psql", "db archiving"),
    ],
)
def test_a_command_that_works_on_what_is_there_makes_nothing_where_there_is_no_target(
    command: str, b44: Command
) -> None:
    result = b44.lacking("DAGSTER_PG_URL")(*command.split())

    assert result.status == (0 if command in ("doctor", "backups") else 2), result
    if command not in ("doctor", "backups", "plan", "migrate"):
        assert "there is no database yet" in result.fault
        assert "--database-url" in result.fault
    assert list(b44.directory.iterdir()) == []


def test_verifying_another_server_makes_no_storage_here(migrated: Migrated, b44: Command) -> None:
    result = b44.lacking("DAGSTER_PG_URL").on(migrated.url)("verify", "--json")

    assert result.status == 0, result
    assert result.report["checks"]["passed"] > 0
    assert list(b44.directory.iterdir()) == []


def test_the_target_is_told_with_where_it_was_named_and_without_its_password(target: str, b44: Command) -> None:
    url = target.replace("postgres@", "postgres:topsecret@")
    said = f"target: {target.replace('postgres@', 'postgres:***@').partition('?')[0]}"
    (b44.directory / ".env").write_text(f"B44_DATABASE_URL={url}\n")

    of_file = b44("status")
    of_process = b44.on(url)("status")
    of_option = b44.on("postgresql://nowhere.invalid/x")("status", "--database-url", url)

    for result, origin in (
        (of_file, f"B44_DATABASE_URL in {b44.directory / '.env'}"),
        (of_process, "B44_DATABASE_URL"),
        (of_option, "--database-url"),
    ):
        [line] = [line for line in result.err.splitlines() if line.startswith("target: ")]
        assert line.startswith(said)
        assert line.endswith(f"({origin})")
        assert "topsecret" not in result.err + result.out


def test_a_setting_that_does_not_work_is_told_with_the_file_that_it_stands_in(migrated: Migrated, b44: Command) -> None:
    dotenv = b44.directory / ".env"
    dotenv.write_text("B44_BACKUP_KEY=none\nDAGSTER_PG_URL=postgresql://nobody@127.0.0.1:1/x\n")
    elsewhere = b44.lacking("DAGSTER_PG_URL").on(migrated.url)

    assert f"(B44_BACKUP_KEY in {dotenv})" in elsewhere("backups").fault
    assert elsewhere("verify").fault.startswith(f"b44: DAGSTER_PG_URL in {dotenv}: the PostgreSQL server 127.0.0.1:1")
    dotenv.write_text("B44_BACKUP_URL=nothing://here\n")
    assert elsewhere("backups").fault.endswith(f" (B44_BACKUP_URL in {dotenv})")


def test_the_doctor_tells_of_all_that_serves_the_target(migrated: Migrated, b44: Command) -> None:
    result = b44.on(migrated.url)("doctor")

    assert result.status == 0, result
    lines = [line.partition(":") for line in result.out.splitlines() if not line.startswith(" ")]
    said = {subject: found for subject, _, found in lines}
    assert said.keys() >= {
        *("target", "server", "encoding", "time zone", "disk", "port", "files", "privileges"),
        *("dumps", "archiving", "backups", "daemon"),
    }
    assert said["encoding"].strip().startswith("UTF8")
    assert "(B44_DATABASE_URL)" in said["target"]
    assert "-> b44 backup takes one" in result.out


def test_psql_and_pg_dump_run_on_the_target_with_their_own_arguments(migrated: Migrated, b44: Command) -> None:
    on_target = b44.on(migrated.url)

    asked = on_target("db", "psql", "-XAtc", "select count(*) from users")
    wrong = on_target("db", "psql", "-XAtc", "select 1 / 0")
    dumped = on_target("db", "dump", "--schema-only", "--table=users")

    assert (asked.status, asked.out.strip().isdigit()) == (0, True), asked
    assert "backup" not in asked.err
    assert wrong.status == 1
    assert dumped.status == 0
    assert "CREATE TABLE public.users" in dumped.out


def test_another_database_is_one_of_the_targets_server(migrated: Migrated, b44: Command) -> None:
    on_target = b44.having(PGHOST="nowhere.invalid", PGPORT="9").on(migrated.url)

    asked = [
        on_target("db", "psql", *arguments, "-XAtc", "select current_database()").out
        for arguments in (["-d", "postgres"], ["--", "--dbname=dbname=postgres"], [])
    ]
    named = on_target("db", "psql", "-XAtc", "select current_database()", "postgres")
    dumped = on_target("db", "dump", "--schema-only", "postgres")

    target = conninfo_to_dict(migrated.url)["dbname"]
    assert asked == ["postgres\n", "postgres\n", f"{target}\n"]
    assert named.out == "postgres\n", named
    assert (dumped.status, "PostgreSQL database dump" in dumped.out) == (0, True), dumped


def test_whoever_opens_psql_on_a_terminal_is_told_of_backups(migrated: Migrated, b44: Command) -> None:
    ours, terminal = os.openpty()
    os.write(ours, b"\\q\n")
    opened = subprocess.run(
        [sys.executable, "-c", "from b44_assets.cli import main; main()", "db", "psql"],
        stdin=terminal,
        capture_output=True,
        cwd=b44.directory,
        env=environment(B44_DATABASE_URL=migrated.url),
        text=True,
        check=True,
        timeout=PATIENCE,
    )
    os.close(terminal)
    os.close(ours)
    assert "notice: There is no backup of" in opened.stderr


def test_a_second_b44_dev_and_another_daemon_are_refused_at_once(target: str, b44: Command) -> None:
    dev = b44.having(DAGSTER_PG_URL=target).on(target)
    options = ("dev", "--port", str(free_port()))
    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("create table daemon_heartbeats (timestamp timestamp)")
        conn.execute("insert into daemon_heartbeats values (now() at time zone 'UTC' - interval '5 seconds')")

    another = dev(*options)

    assert (another.status, "another Dagster daemon" in another.fault) == (2, True)
    lock = Path(b44.environment.get("B44_HOME", str(b44.directory / ".b44"))) / "dagster" / "dev.lock"
    with lock.open("a") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        second = dev(*options)
    assert (second.status, "runs already" in second.fault) == (2, True)
