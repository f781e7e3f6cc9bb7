"""`b44 plan`: what a migration would do, told without touching the target."""

from __future__ import annotations

import csv
import hashlib
import shutil
import tempfile
import uuid
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import conninfo_to_dict

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.config.stages import STEP
from b44_assets.errors import DatabaseError
from b44_assets.orchestration.common import Answer, answered
from b44_assets.planning import plan_migration
from b44_assets.session import Session
from tests.helpers.command import Command
from tests.helpers.database_contents import rows
from tests.helpers.ledger_app import write_entries
from tests.helpers.migrated_apps import App, Migrated

NEWER = "2099-01-01T00:00:00.000000"
_CATALOGUE = (
    "pg_attribute",
    "pg_constraint",
    "pg_default_acl",
    "pg_depend",
    "pg_description",
    "pg_index",
    "pg_namespace",
    "pg_policy",
    "pg_proc",
    "pg_rewrite",
    "pg_sequence",
    "pg_trigger",
    "pg_type",
)


def fingerprint(url: str) -> str:
    """One value of all that is in a database: every row of its tables with who wrote it and where, and its catalogue."""
    with psycopg.connect(url) as conn:
        relations = [
            *((sql.Identifier("pg_catalog", name), "xmin, ctid, t") for name in _CATALOGUE),
            (sql.Identifier("pg_class"), "oid, relfilenode, relname, relnamespace, relkind, relacl, reloptions"),
            *(
                (sql.Identifier(schema, name), "last_value, is_called" if kind == "S" else "xmin, ctid, t")
                for schema, name, kind in conn.execute(
                    "select nspname, relname, relkind::text from pg_class c join pg_namespace n on n.oid = relnamespace"
                    " where nspname !~ '^pg_' and nspname <> 'information_schema' and relkind in ('r', 'm', 'S')"
                )
            ),
        ]
        digest = hashlib.sha256()
        for relation, columns in relations:
            query = sql.SQL("select count(*), sum(hashtextextended(row({})::text, 0)::numeric) from {} t")
            found = conn.execute(query.format(sql.SQL(columns), relation)).fetchone()  # pyright: ignore[reportArgumentType]
            digest.update(f"{relation.as_string(conn)} {found}\n".encode())
        return digest.hexdigest()


@pytest.fixture
def reader(migrated: Migrated) -> Generator[str]:
    """URL of a migrated database, as a role that may read all of it and do nothing else."""
    name = f"reader_{uuid.uuid4().hex}"
    with psycopg.connect(migrated.url, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login in role pg_read_all_data").format(sql.Identifier(name)))
        conn.execute(sql.SQL("alter role {} bypassrls").format(sql.Identifier(name)))
        conn.execute(sql.SQL("alter role {} set default_transaction_read_only = on").format(sql.Identifier(name)))
        yield migrated.url.replace("postgres@", f"{name}@")
        conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))


def counts(plan: dict[str, Any], *names: str) -> dict[str, tuple[Any, ...]]:
    return {table: tuple(found[name] for name in names) for table, found in plan["entities"].items()}


def test_on_an_empty_target_it_says_what_the_migration_then_does(migrated: Migrated, target: str, b44: Command) -> None:
    before = fingerprint(target)

    result = b44.on(target)("plan", "--export", migrated.export, "--json")

    assert result.status == 0, result
    plan = result.report
    assert counts(plan, "read", "new", "deduplicated", "quarantined", "reasons") == {
        table: tuple(found[name] for name in ("read", "migrated", "deduplicated", "quarantined", "reasons"))
        for table, found in migrated.result.report["entities"].items()
    }
    assert plan["schema"]["program"] == "made"
    assert {"table posts", "role app_readonly"} & set(plan["schema"]["missing"]) == {"table posts"}
    assert plan["files"]["Post"]["dialect"] == "2026-06"
    assert plan["files"]["Comment"]["table"] is None
    assert plan["files"]["User"]["unknown_fields"] == ["bio", "is_service", "_app_role"]
    assert fingerprint(target) == before


def test_what_is_migrated_is_compared_and_a_role_that_only_reads_is_enough(
    migrated: Migrated, reader: str, b44: Command
) -> None:
    before = fingerprint(migrated.url)

    result = b44.on(reader)("plan", "--export", migrated.export, "--json")

    # As the migration by this role would.
    assert result.status == 2
    plan = result.report
    assert plan["migrated_before"]
    assert counts(plan, "new", "changed", "unchanged", "conflicts") == {
        table: (0, 0, found["migrated"], {}) for table, found in migrated.result.report["entities"].items()
    }
    assert plan["schema"] == {"program": "kept", "missing": [], "different": []}
    assert fingerprint(migrated.url) == before


@pytest.mark.parametrize(("change", "said"), [("nobypassrls", "BYPASSRLS"), ("noinherit", "pg_read_all_data")])
def test_a_role_that_would_not_see_every_row_is_refused_with_the_remedy(
    change: str, said: str, migrated: Migrated, reader: str, b44: Command
) -> None:
    name = conninfo_to_dict(reader)["user"]
    with psycopg.connect(migrated.url, autocommit=True) as conn:
        conn.execute(sql.SQL("alter role {} {}").format(sql.Identifier(str(name)), sql.SQL(change)))  # pyright: ignore[reportArgumentType]
        if change == "noinherit":
            conn.execute(sql.SQL("revoke pg_read_all_data from {}").format(sql.Identifier(str(name))))

    result = b44.on(reader)("plan", "--export", migrated.export)

    assert (result.status, said in result.fault, "posts" in result.fault) == (2, True, True)
    # Nor does the data seem to be at fault.
    checked = b44.on(reader)("verify")
    assert (checked.status, checked.out, "run it as postgres, who owns the tables" in checked.fault) == (2, "", True)


def test_of_what_a_role_may_not_read_it_is_said_what_to_grant(migrated: Migrated, b44: Command) -> None:
    name = f"stranger_{uuid.uuid4().hex}"
    with psycopg.connect(migrated.url, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        try:
            as_stranger = b44.on(migrated.url.replace("postgres@", f"{name}@"))
            faults = {command: as_stranger(command) for command in ("status", "quarantine", "report")}
            session = Session(
                as_stranger.environment["B44_DATABASE_URL"], load_catalog(Settings.load(environ={}).sql_dir)
            )

            def look() -> Answer:
                with session.connection("check users") as conn:
                    conn.execute("select from users")
                return Answer(True, "")

            # A check that is run by itself, as in the UI.
            with pytest.raises(DatabaseError, match=f"user {name} may not read .*: run it as postgres"):
                list(answered(session, [(dg.AssetCheckKey(dg.AssetKey("users"), "row_parity"), look)]))
        finally:
            conn.execute(sql.SQL("drop role {}").format(sql.Identifier(name)))

    assert {command: result.status for command, result in faults.items()} == dict.fromkeys(faults, 2)
    assert {command: result.fault.partition(": GRANT ")[2] for command, result in faults.items()} == {
        "status": f"b44_monitor TO {name}",
        "quarantine": f"pg_read_all_data TO {name}",
        "report": f"pg_read_all_data TO {name}",
    }


def test_newer_records_edited_rows_and_a_changed_schema_are_told(
    migrated: Migrated, finished: str, b44: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "newer"
    shutil.copytree(migrated.export, folder)
    path = folder / "Post_export.csv"
    with path.open(newline="", encoding="utf-8") as stream:
        header, *records = list(csv.reader(stream))
    at = {name: header.index(name) for name in ("id", "title", "updated_date")}
    known = {row[0] for row in rows(migrated.url, "select base44_id from migration.migrated where entity = 'posts'")}
    edited, newer, gone = [record for record in records if record[at["id"]] in known][:3]
    for record in (edited, newer):
        record[at["title"]], record[at["updated_date"]] = "A newer title", NEWER
    added = list(newer)
    added[at["id"]] = "f" * 24
    records.remove(gone)
    with path.open("w", newline="", encoding="utf-8") as stream:
        csv.writer(stream, quoting=csv.QUOTE_ALL, lineterminator="\n").writerows([header, *records, added])
    with psycopg.connect(finished, autocommit=True) as conn:
        conn.execute("update posts set title = 'Edited here' where id = base44_uuid(%s)", (edited[at["id"]],))
        conn.execute("drop index idx_events_user_date")
        conn.execute("comment on table users is 'Mine'")
        conn.execute("revoke select on categories from b44_readonly")

    result = b44.on(finished)("plan", "--export", folder, "--json")

    assert result.status == 0, result
    posts = result.report["entities"]["posts"]
    assert (posts["new"], posts["changed"], posts["vanished"], posts["conflicts"]) == (1, 1, 1, {"edited": 1})
    assert result.report["schema"]["missing"] == ["index events.idx_events_user_date"]
    different, rights = result.report["schema"]["different"]
    assert different.startswith("table users: comment is Mine, sql/ says ")
    assert rights == "rights of the group roles: GRANT SELECT ON TABLE public.categories TO b44_readonly"
    assert b44.on(finished)("migrate", "--export", folder, "--json").status == 0
    assert rows(finished, "select count(*) from posts where title = 'A newer title'") == [(2,)]


def test_an_older_server_is_read_as_the_newest_is(shop: App) -> None:
    result = shop.b44.on(shop.url)("plan", "--export", shop.export, "--json")

    assert result.status == 0, result
    plan = result.report
    assert counts(plan, "new", "unchanged", "conflicts") == {
        table: (0, found["migrated"], {}) for table, found in shop.result.report["entities"].items()
    }
    assert plan["schema"] == {"program": "kept", "missing": [], "different": []}


def test_without_a_target_none_is_made_and_nothing_is_left(small: Command, tmp_path: Path) -> None:
    export = tmp_path / "export"
    export.mkdir()
    # Short, since the path of a socket may have 107 bytes.
    scratch = Path(tempfile.mkdtemp(prefix="s"))
    scratch.chmod(0o1777)
    (export / "Ledger00.csv").write_text('id,remark,extra\n"1","one","x"\n,"two",""\n')
    (export / "Stranger.csv").write_text('id\n"1"\n')
    before = sorted(small.directory.iterdir())

    result = small.having(TMPDIR=str(scratch))("migrate", "--dry-run", "--export", export)

    assert result.status == 0, result
    assert sorted(small.directory.iterdir()) == before
    assert list(scratch.iterdir()) == []
    assert result.out.splitlines()[-1] == (
        "Plan: 2 records: 1 new, 1 quarantined; 1 more without a table; nothing was changed."
    )
    assert "no column for extra" in result.out
    assert "  ledger_00: 1 would be quarantined as " in result.out
    assert "warning: no table in sql/ for Stranger: its 1 record is kept in migration.unmapped" in result.err


@pytest.mark.parametrize(
    ("files", "settings", "status", "said"),
    [
        ({"Ledger00.csv": "no comma here"}, {}, 2, "Ledger00.csv"),
        ({"Ledger00.csv": "id,remark\n,one\n2,two\n"}, {"B44_MAX_QUARANTINE": "0"}, 1, "B44_MAX_QUARANTINE=0"),
        ({"Other.csv": "id\n1\n"}, {}, 1, "b44 init"),
    ],
)
def test_it_exits_as_the_migration_would(
    files: dict[str, str], settings: dict[str, str], status: int, said: str, small: Command, target: str, tmp_path: Path
) -> None:
    for name, text in files.items():
        (tmp_path / name).write_text(text)

    command = small.on(target).having(**settings)
    planned, migrated = command("plan", "--export", tmp_path), command("migrate", "--export", tmp_path)

    assert (planned.status, migrated.status) == (status, status), (planned, migrated)
    [line] = [line for line in planned.err.splitlines() if line.startswith("b44: ")]
    assert said in line
    assert line in migrated.err


def test_a_plan_tells_its_steps_one_after_the_other(small_sql: Path, tmp_path: Path) -> None:
    write_entries(tmp_path, 0, 2)
    told: list[tuple[str, int, int]] = []
    settings = Settings.load({"B44_SQL_DIR": str(small_sql), "B44_EXPORT_DIR": str(tmp_path)}, tmp_path)
    assert plan_migration(settings, progress=lambda *what: told.append(what)).exit_status == 0
    steps = [what for what in told if what[0].startswith(STEP)]
    assert [number for _, number, _ in steps] == list(range(1, steps[0][2] + 1))
    assert {total for _, _, total in steps} == {len(steps)}


def test_a_table_of_another_kind_in_the_target_is_told_as_the_migration_tells_it(
    small_sql: Path, target: str, tmp_path: Path
) -> None:
    write_entries(tmp_path, 0, 2)
    with psycopg.connect(target) as conn:
        conn.execute("create table ledger_00 (id uuid primary key, remark text, booked_at text)")
        conn.execute("insert into ledger_00 values (gen_random_uuid(), 'theirs', 'the other day')")
    known = {"B44_SQL_DIR": str(small_sql), "B44_EXPORT_DIR": str(tmp_path), "B44_DATABASE_URL": target}
    with pytest.raises(DatabaseError, match=r"table public\.ledger_00 is another than the one to be made"):
        plan_migration(Settings.load(known, tmp_path))
