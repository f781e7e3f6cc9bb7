"""The command line as people meet it: what is printed, where, and with which exit status."""

from __future__ import annotations

import asyncio
import shutil
import signal
import socket
import subprocess
from collections.abc import Generator
from importlib.metadata import version
from pathlib import Path

import psycopg
import pytest
from dagster import DagsterInstance
from dagster._core.definitions.repository_definition.valid_definitions import SINGLETON_REPOSITORY_NAME
from psycopg import sql

from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Command
from tests.helpers.database_contents import rows, state, value, versions_of_rows
from tests.helpers.ledger_app import write_entries
from tests.helpers.lock_waits import stopped_at, waiting
from tests.helpers.migrated_apps import Migrated
from tests.helpers.paths import REPOSITORY
from tests.helpers.servers import PASSWORD, PG15_BIN, Pg15
from tests.helpers.waiting import eventually

INTERRUPTED = "interrupted; run the same command again to go on"


# -- what needs no migration -------------------------------------------------------------------------------------------


def test_help_names_every_command(b44: Command) -> None:
    result = b44("--help")
    assert (result.status, result.complaints) == (0, [])
    for command in ("migrate", "verify", "status", "replay", "rollback", "cutover", "report", "sample", "dev", "db"):
        assert f"\n  {command} " in result.out


@pytest.mark.parametrize("command", ["migrate", "replay", "rollback", "cutover", "db"])
def test_every_command_explains_itself(command: str, b44: Command) -> None:
    result = b44(command, "--help")
    assert (result.status, result.complaints) == (0, [])
    assert result.out.startswith(f"Usage: b44 {command}")


def test_version_is_that_of_the_package(b44: Command) -> None:
    assert b44("--version").out == f"b44, version {version('b44-assets')}\n"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["migrate", "--exprot", "x"], "--exprot"),
        (["migrat"], "migrat"),
        (["migrate", "superfluous"], "superfluous"),
        (["sample"], "DIRECTORY"),
        (["sample", "x", "--users", "many"], "--users"),
        (["sample", "x", "--dialect", "2019-01"], "--dialect"),
        (["db", "open"], "open"),
        (["--exprot"], "--exprot"),
        (["migrate", "./export"], "--export DIR"),
        (["frob"], "b44 --help"),
        (["statsu"], "'status'"),
    ],
)
def test_wrong_usage_is_one_line_and_status_2(arguments: list[str], named: str, b44: Command) -> None:
    result = b44(*arguments)
    assert result.status == 2
    assert named in result.fault
    assert result.out == ""


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("B44_DATABASE_URL", "mysql://u:hush-hush@h/d"),
        ("B44_FIRST_MONTH", "last year"),
        ("B44_MAX_QUARANTINE", "some"),
        ("B44_BATCH_SIZE", "0"),
        ("B44_LOCK_TIMEOUT", "200"),
    ],
)
def test_setting_that_cannot_be_used_is_named(name: str, text: str, b44: Command) -> None:
    result = b44.having(**{name: text})("status")
    assert result.status == 2
    assert name in result.fault
    assert "hush-hush" not in result.fault


def test_an_option_that_cannot_be_used_is_named_and_not_its_variable(b44: Command) -> None:
    result = b44("status", "--database-url", "mysql://u:hush-hush@h/d")
    assert result.status == 2
    assert "--database-url" in result.fault
    assert "B44_DATABASE_URL" not in result.fault
    assert "hush-hush" not in result.fault


def test_a_port_that_is_taken_is_one_line_and_starts_nothing(b44: Command) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        result = b44("dev", "--port", str(port))
    assert result.status == 2
    assert f"port {port} " in result.fault
    assert "--port" in result.fault
    assert not (b44.directory / "home").exists()


def test_missing_export_is_one_line_and_status_2(b44: Command, target: str, tmp_path: Path) -> None:
    result = b44.on(target)("migrate", "--export", tmp_path / "nowhere", "--json")
    assert result.status == 2
    assert result.complaints == [
        f"b44: {tmp_path / 'nowhere'}: there is no such export folder; name the one with the exported files"
    ]
    assert result.out == ""
    assert state(target) == {}


def test_a_missing_export_is_told_with_where_it_was_named(b44: Command) -> None:
    (b44.directory / ".env").write_text("B44_EXPORT_DIR=nowhere\n")
    for command in ("migrate", "plan"):
        result = b44(command)
        assert result.status == 2
        assert result.fault.startswith(f"b44: {b44.directory / 'nowhere'}: there is no such export folder")
        assert result.fault.endswith(f"(B44_EXPORT_DIR in {b44.directory / '.env'})")


def test_no_export_at_all_says_how_to_name_one(b44: Command, target: str) -> None:
    result = b44.on(target)("migrate")
    assert result.status == 2
    assert "--export DIR or B44_EXPORT_DIR" in result.fault


# -- the embedded server -----------------------------------------------------------------------------------------------


@pytest.fixture
def own_server(b44: Command) -> Generator[EmbeddedServer]:
    """The embedded server of the command's own home, stopped after the test."""
    server = EmbeddedServer(b44.directory / ".b44")
    yield server
    server.stop("immediate")


def test_db_url_starts_a_server_that_psql_reaches_and_db_stop_ends_it(b44: Command, own_server: EmbeddedServer) -> None:
    assert b44("db", "stop", "--json").report == {"home": str(b44.directory / ".b44"), "stopped": False}
    result = b44("db", "url")
    assert (result.status, result.complaints) == (0, [])
    psql = [own_server.bin_dir / "psql", "-X", "-A", "-t", "-c", "select current_database()", result.out.rstrip("\n")]
    assert subprocess.run(psql, capture_output=True, text=True, check=True).stdout == "b44\n"
    assert b44("db", "url", "--json").report == {"url": result.out.rstrip("\n")}
    assert b44("db", "archiving", "--json").report["on"] is False
    stopped = b44("db", "stop")
    assert (stopped.status, stopped.err) == (0, "")
    assert stopped.out == f"the embedded server under {b44.directory / '.b44'} is stopped\n"
    assert not own_server.running()
    assert subprocess.run(psql, capture_output=True, check=False).returncode == 2


def test_db_bin_is_the_folder_of_the_programs_that_suit_the_server(b44: Command, pg15: Pg15) -> None:
    assert b44("db", "bin").out == f"{EmbeddedServer(b44.directory / '.b44').bin_dir}\n"
    assert b44.on(pg15.url())("db", "bin", "--json").report == {"folder": str(PG15_BIN)}


# -- status and verify -------------------------------------------------------------------------------------------------


def test_status_of_an_empty_database_says_that_nothing_was_migrated(b44: Command, target: str) -> None:
    result = b44.on(target)("status")
    assert (result.status, result.complaints) == (0, [])
    assert result.out == "Nothing has been migrated into this database yet.\n"
    report = b44.on(target)("status", "--json").report
    assert (report["read"], report["entities"], report["unmapped"], report["runs"]) == (0, {}, {}, [])
    assert state(target) == {}


def test_status_after_a_migration_says_what_the_migration_said(b44: Command, migrated: Migrated) -> None:
    result = b44("status", "--json", "--database-url", migrated.url)
    assert (result.status, result.complaints) == (0, [])
    assert result.report["entities"] == migrated.result.report["entities"]


def test_status_can_be_read_by_people(b44: Command, migrated: Migrated) -> None:
    result = b44("status", "--database-url", migrated.url)
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines() if "│" in line]
    assert ["posts", "406", "377", "4", "25", "0", "0"] in cells
    # A long name is folded into a second line, and a table of the last runs follows.
    at = [row[0] for row in cells].index("total")
    assert [int(n.replace(",", "")) for n in cells[at][1:]] == [
        sum(int((row[n] or "0").replace(",", "")) for row in cells[:at]) for n in range(1, 7)
    ]
    assert "  posts: 6 quarantined as orphan_user" in result.out.splitlines()


def test_verify_of_an_empty_database_fails_with_one_line(b44: Command, target: str) -> None:
    result = b44.on(target)("verify", "--json")
    assert result.status == 1
    assert result.fault == "b44: nothing has been migrated into this database yet: run b44 migrate"


def test_verify_says_which_records_are_still_to_be_migrated(b44: Command, finished: str) -> None:
    b44.on(finished)("rollback", "--partition", "2026-01")
    missing = value(finished, "select pending from migration.accounting where entity = 'posts'")
    result = b44.on(finished)("verify", "--json")
    assert result.status == 1
    assert result.report["checks"]["failed"] == 0
    assert (result.report["verdict"], result.report["pending"]) == ("incomplete", missing)
    assert [line for line in result.complaints if line.startswith("b44: ")] == [
        f"b44: posts: {missing} records are still to be migrated: run b44 migrate"
    ]


# -- migrate -----------------------------------------------------------------------------------------------------------


def test_a_run_of_the_command_is_shown_by_the_timeline_by_its_job_and_by_its_assets(
    b44: Command, migrated: Migrated, finished: str, dagster_storage: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # To import them takes every worker a second.
    from dagster._core.workspace.context import WorkspaceProcessContext
    from dagster_graphql.schema import create_schema

    result = b44.on(finished)("migrate", "--export", migrated.export, "--table", "categories", "--json")
    assert result.status == 0
    label = f"{SINGLETON_REPOSITORY_NAME}@b44_assets"
    # What the UI asks for. The timeline leaves out runs without an origin; a job's page filters by this tag.
    query = """
      query ($label: String!) {
        runsOrError(filter: {pipelineName: "migrate_everything", tags: [{key: ".dagster/repository", value: $label}]}, limit: 1) {
          ... on Runs { results { runId pipelineName repositoryOrigin { repositoryName repositoryLocationName } } }
        }
        assetOrError(assetKey: {path: ["categories"]}) {
          ... on Asset {
            assetMaterializations(limit: 100) { runOrError { ... on Run { repositoryOrigin { repositoryLocationName } } } }
          }
        }
      }
    """
    shutil.copy(REPOSITORY / "dagster.yaml", b44.directory)
    monkeypatch.setenv("DAGSTER_PG_URL", dagster_storage)
    with (
        DagsterInstance.from_config(str(b44.directory)) as instance,
        WorkspaceProcessContext(instance, None) as process,
    ):
        asking = create_schema().execute_async(
            query, context=process.create_request_context(), variables={"label": label}
        )
        asked = asyncio.run(asking)
    assert asked.errors is None and asked.data is not None
    [run] = asked.data["runsOrError"]["results"]
    assert run["repositoryOrigin"] == {
        "repositoryName": SINGLETON_REPOSITORY_NAME,
        "repositoryLocationName": "b44_assets",
    }
    # What a rollback reports is of no run.
    runs = [one["runOrError"] for one in asked.data["assetOrError"]["assetMaterializations"]]
    origins = [run["repositoryOrigin"]["repositoryLocationName"] for run in runs if "repositoryOrigin" in run]
    assert set(origins) == {"b44_assets"}


@pytest.mark.slow  # tests/database has the same of the engine alone
def test_migrating_again_changes_nothing_and_prints_what_became_of_the_records(
    b44: Command, migrated: Migrated, finished: str
) -> None:
    before = versions_of_rows(finished)
    result = b44.on(finished)("migrate", "--export", migrated.export)
    assert (result.status, result.complaints) == (0, [])
    # No row was written anew, in no table and no book: nothing was staged, mapped or loaded a second time.
    assert versions_of_rows(finished) == before
    cells = [[cell.strip() for cell in line.split("│")[1:-1]] for line in result.out.splitlines() if "│" in line]
    assert ["posts", "406", "377", "4", "25", "23"] in cells
    assert ["posts", "orphan_user", "6"] in cells
    assert "Traceback" not in result.err
    assert result.out.splitlines()[-1].startswith("nothing new: ")


def test_database_url_of_dotenv_is_honoured(b44: Command, migrated: Migrated) -> None:
    (b44.directory / ".env").write_text(f"B44_DATABASE_URL={migrated.url}\n")
    assert b44("status", "--json").report["entities"] == migrated.result.report["entities"]


@pytest.mark.slow
def test_export_dir_of_the_environment_is_honoured(b44: Command, target: str, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "Category.jsonl").write_text('{"id": "65c4e6bb5482e2ced37cf20a", "name": "Only one"}\n')
    result = b44.on(target).having(B44_EXPORT_DIR=str(export))("migrate", "--json")
    assert result.status == 0
    assert {name: counts["read"] for name, counts in result.report["entities"].items() if counts["read"]} == {
        "categories": 1
    }
    assert rows(target, "select name, slug from categories") == [("Only one", "only-one")]


def test_entities_without_a_file_are_named_in_a_warning(small: Command, target: str, tmp_path: Path) -> None:
    write_entries(tmp_path, 0, 1)
    result = small.on(target)("migrate", "--export", tmp_path, "--json")
    assert result.status == 0
    missing = ("Ledger01", "Ledger02")
    assert [line for line in result.complaints if not line.startswith("warning: ")] == []
    assert {name for name in missing if any(f" {name};" in line for line in result.complaints)} == set(missing)
    assert "Ledger00" not in result.err


COMMENTS = """\
-- Comments on posts.
-- depends: users

create table if not exists comments (
  id uuid primary key,
  user_id uuid not null references users (id),
  body text not null,
  created_at timestamptz not null
);

comment on table comments is 'Comments on posts';
"""
COMMENT_MAPPING = """\
-- What becomes of a Comment record.
-- entity: Comment
-- depends: users
-- fields: id, author_id, body|text, created_date

select f.record_number,
       f.base44_id,
       base44_uuid(f.base44_id) as id,
       author.id as user_id,
       f.body,
       coalesce(migration.as_timestamp(f.created_date), f.exported_at) as created_at,
       array_remove(array[
         case when f.base44_id is null then 'missing_id' end,
         case when f.superseded then 'duplicate_id' end,
         case when author.id is null then 'orphan_user' end,
         case when f.body is null then 'missing_body' end
       ], null) as reasons,
       '{}'::jsonb[] as repairs,
       null::jsonb as unmapped
  from source f
  left join users author on author.id = base44_uuid(f.author_id)
"""
COMMENT_EXPORT = '''\
"id","author_id","text","created_date"
"6650a1b2c3d4e5f60718293a","68409cf5f5e804cfac78b489","First, and quoted ""well""","2025-07-01T10:00:00.250000"
"6650a1b2c3d4e5f60718293b","ffffffffffffffffffffffff","Nobody wrote this","2025-07-01T10:00:01.000000"
"6650a1b2c3d4e5f60718293c","68409cf5f5e804cfac78b489","Second","2025-07-02T10:00:00.000000"
'''


def test_a_table_is_added_by_adding_files(b44: Command, migrated: Migrated, finished: str, tmp_path: Path) -> None:
    catalog = tmp_path / "sql"
    shutil.copytree(REPOSITORY / "sql", catalog)
    (catalog / "tables" / "comments.sql").write_text(COMMENTS)
    (catalog / "mappings" / "comments.sql").write_text(COMMENT_MAPPING)
    export = tmp_path / "export"
    shutil.copytree(migrated.export, export)
    (export / "Comment_export.csv").write_text(COMMENT_EXPORT)
    result = b44.on(finished).having(B44_SQL_DIR=str(catalog))("migrate", "--export", export, "--json")
    assert (result.status, result.complaints) == (0, [])
    assert result.report["entities"]["comments"] == {
        "read": 3,
        "migrated": 2,
        "deduplicated": 0,
        "quarantined": 1,
        "reasons": {"orphan_user": 1},
        "repairs": {},
    }
    assert rows(
        finished,
        "select base44_object_id(id), base44_object_id(user_id), body, created_at::text from comments order by id",
    ) == [
        (
            "6650a1b2c3d4e5f60718293a",
            "68409cf5f5e804cfac78b489",
            'First, and quoted "well"',
            "2025-07-01 10:00:00.25+00",
        ),
        ("6650a1b2c3d4e5f60718293c", "68409cf5f5e804cfac78b489", "Second", "2025-07-02 10:00:00+00"),
    ]
    for entity, counts in migrated.result.report["entities"].items():
        assert result.report["entities"][entity] == counts


def test_sql_file_that_breaks_the_form_is_named_with_its_line(b44: Command, target: str, tmp_path: Path) -> None:
    catalog = tmp_path / "sql"
    shutil.copytree(REPOSITORY / "sql", catalog)
    broken = catalog / "tables" / "comments.sql"
    broken.write_text("-- Comments.\n-- depends: users\n-- flavour: sweet\ncreate table comments (id uuid);\n")
    result = b44.on(target).having(B44_SQL_DIR=str(catalog))("status")
    assert result.status == 2
    assert result.fault.startswith(f"b44: {broken}:3: ")
    assert "flavour" in result.fault


def test_sql_that_the_server_refuses_is_named_with_its_line(
    b44: Command, migrated: Migrated, target: str, tmp_path: Path
) -> None:
    catalog = tmp_path / "sql"
    shutil.copytree(REPOSITORY / "sql", catalog)
    # What everything stands on, so that the run ends soon.
    broken = catalog / "functions" / "flexible.sql"
    broken.write_text("-- Flexible.\n\ncreate table migration.flexible (id uuid, body flext);\n")
    result = b44.on(target).having(B44_SQL_DIR=str(catalog))("migrate", "--export", migrated.export, "--json")
    assert result.status == 2
    assert result.fault == f'b44: {broken}:3: type "flext" does not exist'


def test_too_many_quarantined_records_stop_the_load_of_their_entity(
    lean: Command, migrated: Migrated, target: str
) -> None:
    command = lean.on(target)
    result = command.having(B44_MAX_QUARANTINE="24")("migrate", "--export", migrated.export, "--json")
    assert result.status == 1
    assert "posts: 25 of 406 records would be quarantined (orphan_user 6, " in result.fault
    assert "B44_MAX_QUARANTINE=24" in result.fault
    assert value(target, "select count(*) from posts") == 0
    assert value(target, "select count(*) from migration.quarantine where entity = 'posts'") == 0
    assert value(target, "select count(*) from migration.repairs where entity = 'posts'") == 0
    assert "posts" not in result.report["entities"]
    # What the limit allows is not held back.
    assert result.report["entities"]["users"] == migrated.result.report["entities"]["users"]
    again = command.having(B44_MAX_QUARANTINE="25")("migrate", "--export", migrated.export, "--json")
    assert (again.status, again.complaints) == (0, [])
    assert state(target) == state(migrated.url)


@pytest.mark.slow  # tests/database has the message
def test_posts_before_the_first_month_stop_the_run_and_say_what_to_set(
    b44: Command, migrated: Migrated, target: str
) -> None:
    command = b44.on(target)
    result = command.having(B44_FIRST_MONTH="2024-06")("migrate", "--export", migrated.export, "--json")
    assert result.status == 2
    assert "2024-03" in result.fault
    assert "set B44_FIRST_MONTH=2024-03" in result.fault
    assert value(target, "select count(*) from posts") == 0
    again = command.having(B44_FIRST_MONTH="2024-03")("migrate", "--export", migrated.export, "--json")
    assert (again.status, again.complaints) == (0, [])
    assert state(target) == state(migrated.url)


LOADING = (
    "migration.migration_log",
    "load posts",
    "select count(*) >= 5 from migration.migration_log where entity_type = 'posts'",
)


@pytest.mark.parametrize(
    ("number", "table", "purpose", "after"),
    [
        pytest.param(
            signal.SIGINT,
            "migration.exports",
            "stage",
            "select count(*) >= 2 from migration.exports",
            marks=pytest.mark.slow,
        ),
        pytest.param(signal.SIGINT, *LOADING, marks=pytest.mark.slow),
        pytest.param(signal.SIGTERM, *LOADING, marks=pytest.mark.slow),
    ],
    ids=["staging", "loading", "loading, by a service manager"],
)
def test_interrupted_migration_ends_its_sql_and_goes_on_when_run_again(
    number: signal.Signals,
    table: str,
    purpose: str,
    after: str,
    lean: Command,
    migrated: Migrated,
    target: str,
    dagster_storage: str,
) -> None:
    command = lean.on(target).having(B44_BATCH_SIZE="5")
    running = command.start("migrate", "--export", migrated.export, "--json")
    with stopped_at(running, target, table, purpose, after=after):
        running.signal(number)
        result = running.wait()
        # What stands in the way still does: nothing else can have ended the statement.
        eventually(lambda: waiting(target) == 0)
    assert (result.status, result.out, result.complaints) == (130, "", [INTERRUPTED])
    # In the UI it is no failure.
    assert value(dagster_storage, "select status from runs order by id desc limit 1") == "CANCELED"
    again = command("migrate", "--export", migrated.export, "--json")
    assert (again.status, again.complaints) == (0, [])
    assert again.report["entities"] == migrated.result.report["entities"]
    assert state(target) == state(migrated.url)


def test_migration_that_loses_its_lock_stops_in_one_line_and_goes_on_when_run_again(
    lean: Command, migrated: Migrated, target: str
) -> None:
    """As a time limit, a firewall, a pooler or an administrator ends a connection on which nothing happens."""
    command = lean.on(target).having(B44_BATCH_SIZE="5")
    running = command.start("migrate", "--export", migrated.export, "--json")
    table, purpose, after = LOADING
    with stopped_at(running, target, table, purpose, after=after):
        ended = value(
            target,
            "select count(*) filter (where pg_terminate_backend(pid, 10000)) from pg_stat_activity"
            " where datname = current_database() and application_name = 'b44 migrate'",
        )
        assert ended == 1
        # What it waits for is still there: it has not come to its next step.
        result = running.wait()
        eventually(lambda: waiting(target) == 0)
    assert (result.status, result.out) == (2, "")
    assert "other migrations of this database away was lost" in result.fault
    assert "run the same command again" in result.fault
    again = command("migrate", "--export", migrated.export, "--json")
    assert (again.status, again.complaints) == (0, [])
    assert again.report["entities"] == migrated.result.report["entities"]
    assert state(target) == state(migrated.url)


# -- secrets -----------------------------------------------------------------------------------------------------------


def test_no_password_is_shown_or_written_anywhere(
    small: Command, tmp_path: Path, pg15: Pg15, dagster_storage: str
) -> None:
    write_entries(tmp_path, 0, 3)
    url = pg15.tcp_url(database="owned")
    secrets = (PASSWORD, PASSWORD.replace(" ", "%20"), PASSWORD.replace(" ", "+"))
    command = small.on(url)
    results = [command("migrate", "--export", tmp_path), command("status")]
    assert [result.status for result in results] == [0, 0], results
    # A run that fails writes more, such as the error and what led to it.
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop view migration.accounting cascade")
    results.append(command("verify"))
    assert results[-1].status == 1
    for result in results:
        assert not any(secret in result.out + result.err for secret in secrets)
    files = [path for path in small.directory.rglob("*") if path.is_file()]
    assert files, "Dagster keeps a home"
    assert [path for path in files if any(secret.encode() in path.read_bytes() for secret in secrets)] == []
    with psycopg.connect(dagster_storage) as conn:
        tables = [
            name
            for (name,) in conn.execute(
                "select relname from pg_class where relkind = 'r' and relnamespace = 'public'::regnamespace"
            )
        ]
        assert "event_logs" in tables
        for name in tables:
            for secret in secrets:
                found = conn.execute(
                    sql.SQL("select count(*) from {} t where strpos(t::text, %s) > 0").format(sql.Identifier(name)),
                    (secret,),
                ).fetchone()
                assert (name, found) == (name, (0,))


def test_nothing_to_verify_is_no_success(b44: Command) -> None:
    found = b44("backups", "--verify", "all")

    assert found.status == 1
    assert "nothing was verified" in found.fault
