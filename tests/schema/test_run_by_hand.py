"""Every file of `sql/` that makes something is plain SQL: psql runs it, and run again it changes nothing."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest

from b44_assets.backup.schema_fingerprint import OBJECTS
from b44_assets.catalog import Catalog, Kind, constraint_definitions, load_catalog
from b44_assets.errors import CatalogError
from b44_assets.postgres.embedded.binaries import install_dir
from b44_assets.schema.constraints import apply_constraints
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.row_security import apply_policies
from b44_assets.session import Session
from tests.schema.test_online_schema import spec

IDENTITIES = """
    select 'relation', oid::text, relname::text, relfilenode::text from pg_class where relnamespace <> 'pg_toast'::regnamespace
    union all select 'constraint', oid::text, conname::text, convalidated::text from pg_constraint
    union all select 'trigger', oid::text, tgname::text, tgenabled::text from pg_trigger
    union all select 'function', oid::text, proname::text, md5(prosrc) from pg_proc
"""


def run_by_hand(url: str, files: Iterable[Path]) -> None:
    """Runs files one after the other, as somebody would who has psql only."""
    words = [str(word) for file in files for word in ("-f", file)]
    psql = install_dir() / "bin" / "psql"
    done = subprocess.run(
        [psql, "-X", "-q", "-v", "ON_ERROR_STOP=1", *words, url], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


def everything(url: str) -> set[tuple[Any, ...]]:
    """Every object of the database, by its definition, comment, owner and rights, and by its identity."""
    with psycopg.connect(url) as conn:
        described = conn.execute(
            OBJECTS.encode(), {"schemas": None, "left_out": list[str](), "physical": True}
        ).fetchall()
        return {*described, *conn.execute(IDENTITIES.encode()).fetchall()}


def files(catalog: Catalog) -> list[Path]:
    """Of all that can be run by itself, in the order of what depends on what; a mapping reads what the engine gives it."""
    return [item.path for item in catalog.specs if item.kind is not Kind.MAPPING]


def test_each_file_runs_twice_in_an_empty_database_and_the_second_time_changes_nothing(
    database: str, catalog: Catalog
) -> None:
    run_by_hand(database, [path for path in files(catalog) for _ in range(2)])
    before = everything(database)
    run_by_hand(database, files(catalog))
    assert everything(database) ^ before == set()
    # The partitions' own switches are left to a migration.
    session = Session(database, catalog)
    with psycopg.connect(database) as conn:
        partitions = conn.execute(
            "select p.relid::regclass::text from pg_class t cross join pg_partition_tree(t.oid) p"
            " where t.relkind = 'p' and t.relrowsecurity and not t.relispartition and p.level > 0"
        ).fetchall()
    lines = schema_drift(session).differences
    assert len(partitions) > 10
    assert {line.partition(" is without the row security of ")[0] for line in lines} == {
        f"partition {name}" for (name,) in partitions
    }
    for policies in catalog.of(Kind.POLICY):
        apply_policies(session, policies)
    assert schema_drift(session).passed


def test_each_file_runs_twice_in_a_migrated_database_and_changes_nothing(built: Session) -> None:
    before = everything(built.url)
    for _ in range(2):
        run_by_hand(built.url, files(built.catalog))
        assert everything(built.url) ^ before == set()
    assert schema_drift(built).passed


# Constraints, whose file says itself that they are made only where they are not there


@pytest.fixture
def copied(built: Session, tmp_path: Path) -> Session:
    """A session whose files are a copy of its own."""
    return replace(built, catalog=load_catalog(Path(shutil.copytree(built.catalog.root, tmp_path / "sql"))))


def test_a_constraint_alone_is_the_same_as_one_that_is_made_where_it_is_not_there(copied: Session) -> None:
    wanted = spec(copied, "users_constraints")
    definitions = constraint_definitions(wanted)
    assert len(definitions) > 1
    statements = [f"alter table users add constraint {one.name} {one.rest};\n" for one in definitions]
    wanted.path.write_text("-- As before.\n-- on: users\n\n" + "".join(statements))
    older = replace(copied, catalog=load_catalog(copied.catalog.root))
    file = spec(older, "users_constraints")
    assert [(one.name, one.form, one.rest) for one in constraint_definitions(file)] == [
        (one.name, one.form, one.rest) for one in definitions
    ]
    assert not apply_constraints(older, file).changed


def test_a_unique_constraint_with_the_name_that_the_server_would_give_it_is_applied_again(copied: Session) -> None:
    (copied.catalog.root / "constraints" / "more_constraints.sql").write_text(
        "-- Of ours.\n-- on: categories\n\n"
        "alter table categories add constraint categories_created_at_id_key unique (created_at, id);\n"
    )
    other = replace(copied, catalog=load_catalog(copied.catalog.root))
    more = spec(other, "more_constraints")
    assert apply_constraints(other, more).created == ("categories_created_at_id_key",)
    assert not apply_constraints(other, more).changed


@pytest.mark.parametrize(
    "condition",
    [
        "select from pg_constraint where conrelid = 'users'::regclass and conname = 'other'",
        "select from pg_constraint where conrelid = 'posts'::regclass and conname = 'a'",
        "select from pg_constraint where conname = 'a'",
        "select from pg_class where relname = 'users' and relname = 'a'",
    ],
)
def test_a_condition_about_another_constraint_is_refused_with_its_line(tmp_path: Path, condition: str) -> None:
    for kind, text in {
        "tables/users": "create table if not exists users (id int);",
        "constraints/x": f"-- on: users\n\ndo $$ begin\n  if not exists ({condition}) then\n"
        "    alter table users add constraint a check (true);\n  end if;\nend $$;",
    }.items():
        (tmp_path / kind).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / f"{kind}.sql").write_text(f"-- A file.\n{text}\n")
    with pytest.raises(CatalogError, match=r"x\.sql:4: the condition must be that a of users is not there"):
        load_catalog(tmp_path)
