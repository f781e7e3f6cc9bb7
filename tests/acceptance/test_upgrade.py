"""A database that version 0.1 has migrated: the next version goes on with it, and brings the program's own objects up to date."""

from __future__ import annotations

import gzip
import re
import subprocess
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from b44_assets.catalog import Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError
from b44_assets.migration.accounts import accounts
from b44_assets.migration.progress import failed_parts, load_progress
from b44_assets.postgres.embedded.binaries import install_dir
from b44_assets.schema.runtime import install_runtime
from b44_assets.session import Session
from tests.helpers.command import Command
from tests.helpers.databases import template_once
from tests.helpers.sessions import keeping
from tests.helpers.target import new_database

HERE = Path(__file__).parent / "version_0_1"
EXPORT = HERE / "export"
FIRST_MONTH = "2026-05"

IN_PUBLIC = """
    select p.proname from pg_proc p
     where p.pronamespace = 'public'::regnamespace and p.proname like 'base44\\_%' order by 1
"""
STANDING = """
    select c.oid, c.relname from pg_class c
     where c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p', 'i', 'I')
"""
REDEFINED = re.compile("search|to_tsvector|idx_post_slugs")


@pytest.fixture
def old(server_url: str) -> Generator[str]:
    """URL of a database of the test's own that version 0.1 has migrated."""

    def restore(url: str) -> None:
        subprocess.run(
            [install_dir() / "bin" / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", url],
            input=gzip.decompress((HERE / "database.sql.gz").read_bytes()),
            check=True,
        )

    with new_database(server_url, template_once(server_url, "version_0_1", restore)) as url:
        yield url


@pytest.fixture
def session(old: str) -> Generator[Session]:
    """A session of this version on it."""
    with keeping(Session(old, load_catalog(Settings.load(environ={}).sql_dir))) as session:
        yield session


def test_a_migration_of_an_earlier_version_goes_on(b44: Command, old: str) -> None:
    with psycopg.connect(old, autocommit=True) as conn:
        standing = set(conn.execute(STANDING).fetchall())
        rows = conn.execute("select count(*), md5(string_agg(p::text, '' order by id)) from posts p").fetchone()
        assert len(conn.execute(IN_PUBLIC).fetchall()) > 50
        b44 = b44.on(old).having(B44_FIRST_MONTH=FIRST_MONTH)
        result = b44("migrate", "--export", EXPORT, "--json")
        assert (result.status, result.complaints) == (0, []), result.err
        # There is something to lose.
        assert "notice: There is no backup of " in result.err
        assert result.report["entities"]["posts"] == {
            "read": 6, "migrated": 5, "deduplicated": 0, "quarantined": 1, "reasons": {"orphan_user": 1}, "repairs": {},
        }  # fmt: skip
        assert result.report["checks"]["failed"] == 0
        # Nothing is made anew but what is defined otherwise now: the search indexes, and one that a unique one replaces.
        rebuilt = {name for _, name in standing - set(conn.execute(STANDING).fetchall())}
        assert {name for name in rebuilt if not REDEFINED.search(name)} == set()
        assert conn.execute("select count(*), md5(string_agg(p::text, '' order by id)) from posts p").fetchone() == rows
        assert [name for (name,) in conn.execute(IN_PUBLIC).fetchall()] == [
            "base44_encode_cursor", "base44_object_id", "base44_search", "base44_uuid",
        ]  # fmt: skip


def test_the_application_writes_on_while_functions_are_moved(old: str, session: Session) -> None:
    insert = """
        insert into posts (user_id, title, content, created_by)
        select id, 'Written meanwhile', 'Long enough for a post.', id from users limit 1 returning slug
    """
    with psycopg.connect(old, autocommit=True) as conn:
        assert conn.execute(insert).fetchone() == ("written-meanwhile",)
        assert install_runtime(session)
        # Only the program's own files are installed so far, and the functions that the app's triggers call.
        assert conn.execute(insert).fetchone() == ("written-meanwhile-2",)
        assert not install_runtime(session)


def test_what_has_another_name_now_is_renamed_with_all_that_it_holds(old: str, session: Session) -> None:
    row_before = "insert into migration.replaced values ('posts', gen_random_uuid(), 1, now(), '{}', '{\"base44_id\": \"a\"}', '[]')"
    with psycopg.connect(old, autocommit=True) as conn:
        conn.execute(row_before.encode())
        install_runtime(session)
        assert conn.execute("select migrated_before ->> 'base44_id' from migration.replaced").fetchall() == [("a",)]
        drain = (
            "select proname from pg_proc where pronamespace = 'b44'::regnamespace and proname ~ '^drain_(settle|wait)'"
        )
        assert conn.execute(drain.encode()).fetchall() == [("drain_wait_for_snapshots",)]


def test_rows_that_were_being_moved_out_of_a_default_partition_are_moved_on(old: str, session: Session) -> None:
    with psycopg.connect(old, autocommit=True) as conn:
        conn.execute(
            "insert into posts (user_id, title, content, created_by, created_at)"
            " select id, 'Far ahead', 'Long enough for a post.', id, '2031-03-04' from users limit 1"
        )
        step = "select phase from base44_drain_step('posts', 'month')"
        phases = iter(lambda: conn.execute(step.encode()).fetchone(), ("settling",))
        assert len(list(phases)) < 50
        install_runtime(session)
        conn.execute("call drain_default_partition('posts')")
        found = conn.execute("select tableoid::regclass::text from posts where title = 'Far ahead'").fetchall()
        assert found == [("posts_2031_03",)]


def test_what_reads_the_ledger_says_that_it_is_of_an_earlier_version(session: Session) -> None:
    for read in (accounts, load_progress, failed_parts):
        with pytest.raises(DatabaseError, match="earlier version"):
            read(session)
    install_runtime(session)
    assert accounts(session)
    assert failed_parts(session) == ()
    with psycopg.connect(session.url) as conn:
        # As a version had it that gave no numbers without records.
        conn.execute("drop view migration.quarantined_by_reason")
    with pytest.raises(DatabaseError, match="earlier version"):
        accounts(session)


def test_what_was_changed_by_hand_is_made_anew(old: str, session: Session) -> None:
    install_runtime(session)
    with psycopg.connect(old, autocommit=True) as conn:
        for change in (
            "drop function b44.json_depth cascade",
            "create or replace function b44.present(value text) returns text language sql return value",
            "grant execute on function b44.create_partition(text, text, date) to public",
        ):
            conn.execute(change.encode())
            assert install_runtime(session), change
            assert not install_runtime(session), change
        assert conn.execute("select b44.present(' '), b44.json_depth('[[]]')").fetchone() == (None, 2)


def test_the_files_of_the_program_name_no_object_of_an_app() -> None:
    catalog = load_catalog(Settings.load(environ={}).sql_dir)
    ours = {spec.name for spec in catalog.specs if spec.kind not in (Kind.RUNTIME, Kind.FUNCTION)}
    named = {
        (spec.name, word)
        for spec in catalog.of(Kind.RUNTIME)
        for line in spec.path.read_text(encoding="utf-8").splitlines()
        for word in re.findall(r"\w+", line.partition("--")[0])
        if word in ours
    }
    assert named == set()
