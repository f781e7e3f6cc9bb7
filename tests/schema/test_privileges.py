"""Roles, privileges, owners and row security: as their files say, and what differs is named with the statement that mends it."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import Kind, load_catalog
from b44_assets.errors import DatabaseError
from b44_assets.schema import roles
from b44_assets.schema.build import ON_A_TABLE, build
from b44_assets.schema.drift import SchemaDrift, schema_drift
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.preflight import need_room
from b44_assets.schema.roles import make_roles
from b44_assets.schema.runtime import install_runtime
from b44_assets.session import Session
from tests.database.test_preflight import as_role
from tests.helpers.lock_waits import holds_up
from tests.helpers.sessions import keeping
from tests.helpers.waiting import eventually
from tests.schema.test_run_by_hand import everything, run_by_hand

FILES = {
    "functions/tally_functions": "create or replace function tally(day date) returns integer language sql return 1;\n"
    "revoke all on routine tally(date) from public;\n"
    "create or replace function open_tally() returns integer language sql return 2;\n",
    "tables/accounts": "create table if not exists accounts (id int primary key, owner text not null, secret text);\n"
    "create table if not exists numbers (n bigserial);\n",
    "tables/entries": "create table if not exists entries (day date not null, owner text not null) partition by range (day);\n"
    "create table if not exists entries_default partition of entries default;\n"
    "create table if not exists entries_2026 partition of entries for values from ('2026-01-01') to ('2027-01-01');\n",
    "policies/entries_policies": "-- on: entries\n-- depends: READER\n\nalter table entries enable row level security;\n"
    "drop policy if exists entries_own on entries;\n"
    "create policy entries_own on entries for select to READER using (owner = current_setting('app.owner', true));\n"
    "comment on policy entries_own on entries is 'Their own';\n",
    "views/open_accounts": "-- depends: accounts\n\n"
    "create or replace view open_accounts with (security_invoker = true) as select id, owner from accounts;\n",
    "roles/READER": "-- depends: accounts, entries, open_accounts, tally_functions\n\nCREATE READER;\n"
    "revoke create on schema public from public;\n"
    "grant usage on schema public to READER;\n"
    "grant select (id, owner) on accounts to READER;\n"
    "grant select on entries, open_accounts to READER;\n"
    "grant execute on function tally(date) to READER;\n"
    "alter role READER set statement_timeout = '5s';\n"
    "comment on role READER is 'Reads';\n",
    "roles/WRITER": "-- depends: READER\n\nCREATE WRITER;\n"
    "grant READER to WRITER;\n"
    "grant usage on schema public to WRITER;\n"
    "grant select, insert on all tables in schema public to WRITER;\n"
    "alter default privileges in schema public grant select on tables to WRITER;\n"
    "alter default privileges revoke execute on routines from public;\n"
    "do $$ begin execute format('grant temporary on database %I to WRITER', current_database()); end $$;\n",
}
CREATION = "do $$ begin if not exists (select from pg_roles where rolname = '{0}') then create role {0} nologin; end if; end $$"


@dataclass(frozen=True)
class App:
    """An app of three tables in a database of its own, with two roles that no other test has.

    Attributes:
        session: Of the database.
        reader: Reads some.
        writer: A member of it that may write.
    """

    session: Session
    reader: str
    writer: str

    def named(self, text: str) -> str:
        """A text with the roles' names in it."""
        text = re.sub(r"CREATE (READER|WRITER);", lambda match: CREATION.format(match[1]) + ";", text)
        return text.replace("READER", self.reader).replace("WRITER", self.writer)

    def execute(self, *statements: str) -> list[Any]:
        """Runs statements, and returns the rows of the last."""
        rows: list[Any] = []
        with psycopg.connect(self.session.url, autocommit=True) as conn:
            for statement in statements:
                cursor = conn.execute(self.named(statement).encode())
                rows = cursor.fetchall() if cursor.description else []
        return rows

    def write(self, files: dict[str, str]) -> App:
        """The same app with some files written anew."""
        return self.at(self.session.catalog.root, files)

    def at(self, root: Path, files: dict[str, str]) -> App:
        """The app with files in a folder."""
        for name, text in files.items():
            path = root / f"{self.named(name)}.sql"
            path.parent.mkdir(parents=True, exist_ok=True)
            header = text if text.startswith("-- ") else f"\n{text}"
            path.write_text(self.named(f"-- What it is.\n{header}"))
        return App(replace(self.session, catalog=load_catalog(root)), self.reader, self.writer)

    def migrate(self, *kinds: Kind) -> dict[str, SchemaChange]:
        """Builds files in the order of a migration; by default all."""
        done: dict[str, SchemaChange] = {}
        catalog = self.session.catalog
        if not kinds or Kind.RUNTIME in kinds:
            install_runtime(self.session)
        for kind in kinds or (Kind.FUNCTION, Kind.TABLE, Kind.PARTITION, *ON_A_TABLE, Kind.VIEW, Kind.ROLE):
            if kind is Kind.RUNTIME:
                continue
            for spec in catalog.of(kind):
                change = build(self.session, spec)
                if isinstance(change, SchemaChange):
                    done[spec.name] = change
        return done

    def drift(self) -> SchemaDrift:
        """What differs from the files."""
        return schema_drift(self.session)


@pytest.fixture
def empty(database: str, tmp_path: Path) -> Generator[App]:
    """The app's files, and an empty database."""
    mark = uuid.uuid4().hex[:12]
    root = tmp_path / "app"
    root.mkdir()
    nothing = load_catalog(_folder_of_nothing(tmp_path / "nothing"))
    with keeping(Session(database, nothing, attempts=1)) as session:
        app = App(session, f"reader_{mark}", f"writer_{mark}").at(root, FILES)
        yield app
    with psycopg.connect(database, autocommit=True) as conn:
        for role in (app.writer, app.reader):
            if conn.execute("select 1 from pg_roles where rolname = %s", (role,)).fetchone():
                conn.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(role)))


def _folder_of_nothing(root: Path) -> Path:
    (root / "tables").mkdir(parents=True)
    (root / "tables" / "nothing.sql").write_text("-- Nothing.\n\ncreate table if not exists nothing ();\n")
    return root


@pytest.fixture
def app(empty: App) -> App:
    """The app, migrated."""
    empty.migrate()
    return empty


def test_what_is_migrated_is_what_the_files_say_and_doing_it_again_changes_nothing(app: App) -> None:
    verdict = app.drift()
    assert (verdict.passed, verdict.differences, verdict.restricting, verdict.excess) == (True, (), (), ())
    before = everything(app.session.url)
    again = app.migrate()
    assert {name: change.changed for name, change in again.items()} == dict.fromkeys(again, False)
    assert everything(app.session.url) == before


def test_what_others_do_to_their_roles_meanwhile_is_no_change_of_a_file(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = sql.Identifier(f"theirs_{uuid.uuid4().hex}")
    granted = roles.run_grant
    with psycopg.connect(app.session.url, autocommit=True) as conn:

        def grant(*arguments: Any) -> str | None:
            conn.execute(sql.SQL("drop role if exists {0}; create role {0}").format(theirs))
            return granted(*arguments)

        monkeypatch.setattr(roles, "run_grant", grant)
        try:
            again = app.migrate(Kind.ROLE)
        finally:
            conn.execute(sql.SQL("drop role if exists {}").format(theirs))
    assert {name: change.changed for name, change in again.items()} == dict.fromkeys((app.reader, app.writer), False)


def test_files_run_by_psql_twice_come_to_the_same(empty: App) -> None:
    empty.migrate(Kind.RUNTIME)
    paths = [spec.path for spec in empty.session.catalog.specs if spec.kind is not Kind.RUNTIME]
    run_by_hand(empty.session.url, [path for path in paths for _ in range(2)])
    before = everything(empty.session.url)
    run_by_hand(empty.session.url, paths)
    assert everything(empty.session.url) == before
    # The partitions' own switches are left to a migration, and so is what default privileges give too much on a view.
    assert {line.partition(":")[0] for line in empty.drift().differences} == {
        *(f"partition {name} is without the row security of entries" for name in ("entries_2026", "entries_default")),
        "group roles",
    }


DIFFERENCES = [
    ("revoke select on entries from READER", "READER lacks SELECT on table entries: GRANT SELECT ON TABLE entries TO READER"),
    ("revoke select (owner) on accounts from READER", "GRANT SELECT (owner) ON TABLE accounts TO READER"),
    ("revoke all on open_accounts from READER", "GRANT SELECT ON TABLE open_accounts TO READER"),
    ("revoke execute on function tally(date) from READER", "GRANT EXECUTE ON ROUTINE tally(day date) TO READER"),
    ("revoke usage on schema public from READER", "GRANT USAGE ON SCHEMA public TO READER"),
    ("revoke insert on accounts from WRITER", "GRANT INSERT ON TABLE accounts TO WRITER"),
    ("grant create on schema public to public", "everybody has CREATE on schema public, which sql/ takes away: REVOKE CREATE"),
    ("grant execute on function tally(date) to public", "REVOKE EXECUTE ON ROUTINE tally(day date) FROM PUBLIC"),
    ("alter default privileges in schema public revoke select on tables from WRITER", "GRANT SELECT ON TABLES TO WRITER"),
    ("alter default privileges grant execute on routines to public", "REVOKE EXECUTE ON ROUTINES FROM PUBLIC"),
    ("revoke READER from WRITER", "role WRITER: member of is nothing, sql/ says READER"),
    ("alter role READER reset statement_timeout", "role READER: settings is nothing, sql/ says statement_timeout=5s"),
    ("comment on role READER is 'Mine'", "role READER: comment is Mine, sql/ says Reads"),
    ("do $$ begin execute format('revoke temporary on database %I from WRITER', current_database()); end $$",
     "WRITER lacks TEMPORARY on database"),
    ("alter role WRITER bypassrls", "role WRITER is not NOBYPASSRLS, as sql/ says: ALTER ROLE WRITER NOBYPASSRLS"),
    ("alter role WRITER login", "ALTER ROLE WRITER NOLOGIN"),
    ("alter table accounts owner to WRITER", "table accounts belongs to WRITER, the others to postgres"),
    ("alter view open_accounts owner to WRITER", "ALTER VIEW open_accounts OWNER TO"),
    ("alter function tally(date) owner to WRITER", "ALTER ROUTINE tally(day date) OWNER TO"),
    ("alter table entries_2026 owner to WRITER", "partition entries_2026 belongs to WRITER, entries to"),
    ("drop policy entries_own on entries", "policy entries.entries_own is missing"),
    ("alter policy entries_own on entries using (true)", "policy entries.entries_own: using is true, sql/ says"),
    ("alter policy entries_own on entries to public", "policy entries.entries_own: roles is public, sql/ says READER"),
    ("alter table entries disable row level security", "table entries: row-level security is false, sql/ says true"),
    ("alter table entries force row level security", "table entries: forced row-level security is true, sql/ says false"),
    ("alter table entries_2026 disable row level security", "ALTER TABLE entries_2026 ENABLE ROW LEVEL SECURITY"),
    ("create or replace view open_accounts with (security_invoker = true) as select id, upper(owner) as owner from accounts",
     "table open_accounts: query is"),
    ("alter view open_accounts reset (security_invoker)", "table open_accounts: options is nothing, sql/ says security_invoker"),
    ("drop view open_accounts", "table open_accounts is missing"),
]  # fmt: skip
HELD_BY_HAND = ("owner to", "alter role WRITER bypassrls", "alter role WRITER login")
"""What a migration leaves to people."""


@pytest.mark.long
def test_each_difference_is_named_and_mended_by_a_migration(app: App) -> None:
    with psycopg.connect(app.session.url, autocommit=True) as conn:
        user = conn.execute("select current_user").fetchone()
    assert user is not None
    unnamed: list[tuple[str, object]] = []
    unmended: list[tuple[str, object]] = []
    for statement, difference in DIFFERENCES:
        app.execute(statement)
        verdict = app.drift()
        wanted = app.named(difference).replace("postgres", user[0])
        if verdict.only_restricting or not any(wanted in line for line in verdict.differences):
            unnamed.append((statement, verdict))
        if any(part in statement for part in HELD_BY_HAND):
            by_hand = next((line.rpartition(": ")[2] for line in verdict.differences if ": ALTER " in line), "")
            app.execute(by_hand or "select 1")
        app.migrate(Kind.FUNCTION, Kind.POLICY, Kind.VIEW, Kind.ROLE)
        if not (verdict := app.drift()).passed:
            unmended.append((statement, verdict))
    assert (unnamed, unmended) == ([], [])


EXCESS = [
    ("grant delete on accounts to WRITER", "WRITER has DELETE on table accounts, which sql/ does not give:"
     " REVOKE DELETE ON TABLE accounts FROM WRITER"),
    ("grant select (secret) on accounts to READER", "REVOKE SELECT (secret) ON TABLE accounts FROM READER"),
    ("grant select on entries_2026 to READER", "REVOKE SELECT ON TABLE entries_2026 FROM READER"),
    ("grant create on schema public to READER", "REVOKE CREATE ON SCHEMA public FROM READER"),
    ("grant execute on function open_tally() to READER", "REVOKE EXECUTE ON ROUTINE open_tally() FROM READER"),
    ("grant select on entries to READER with grant option", "READER has SELECT on table entries with grant option, which sql/ does not"
     " give: REVOKE GRANT OPTION FOR SELECT ON TABLE entries FROM READER"),
    ("grant select on accounts to public", "everybody has SELECT on table accounts, which sql/ does not give"),
    ("grant delete on carts to WRITER", "REVOKE DELETE ON TABLE carts FROM WRITER"),
    ("alter default privileges in schema public grant delete on tables to READER", "REVOKE DELETE ON TABLES FROM READER"),
    ("create policy by_hand on entries for select using (true)", "policy entries.by_hand is not in sql/"),
]  # fmt: skip


@pytest.mark.long
def test_what_a_role_may_do_beyond_its_file_is_a_warning_that_says_how_to_take_it_away(app: App) -> None:
    app.execute("create table carts ()")
    wrong: list[tuple[str, object]] = []
    for statement, said in EXCESS:
        app.execute(statement)
        verdict = app.drift()
        if not verdict.only_restricting or app.named(said) not in verdict.message():
            wrong.append((statement, verdict))
        app.execute(*(line.rpartition(": ")[2] for line in verdict.excess), "drop policy if exists by_hand on entries")
        if not (verdict := app.drift()).passed:
            wrong.append((statement, verdict))
            app.migrate()
    assert wrong == []


@pytest.mark.long
def test_what_other_roles_may_do_and_what_all_tables_means_for_others_is_the_application_s_own(app: App) -> None:
    role = f"foreign_{uuid.uuid4().hex}"
    app.execute(
        f"create role {role}",
        f"grant all on all tables in schema public to {role}",
        f"grant WRITER to {role}",
        "create table carts (id int)",
        "grant insert on carts to WRITER",
        "grant usage on schema b44 to WRITER",
        "create table entries_2027 partition of entries for values from ('2027-01-01') to ('2028-01-01')",
        "alter table entries_2027 enable row level security",
        "revoke usage on schema b44 from WRITER",
    )
    try:
        verdict = app.drift()
        assert (verdict.passed, verdict.foreign) == (True, ("table carts",)), verdict
    finally:
        app.execute(f"drop owned by {role}", f"drop role {role}")


@pytest.mark.long
def test_rights_on_the_migration_s_own_tables_go_with_them(app: App) -> None:
    reader = app.session.catalog.root / f"{app.named('roles/READER')}.sql"
    with reader.open("a", encoding="utf-8") as file:
        file.write(
            app.named("grant usage on schema migration to READER;\ngrant select on migration.quarantine to READER;\n")
        )
    app = app.write({})
    assert "READER lacks SELECT on table migration.quarantine" in app.drift().message().replace(app.reader, "READER")
    app.migrate()
    assert app.drift().passed
    app.execute("drop schema migration cascade")
    assert app.migrate(Kind.ROLE)[app.reader].failed == {}
    assert app.drift().passed


def test_a_missing_role_is_named_alone_and_made_again(app: App) -> None:
    app.execute("drop owned by READER cascade", "drop role READER")
    verdict = app.drift()
    assert verdict.differences == (app.named("role READER is missing (b44 migrate makes it)"),)
    done = app.migrate()
    # The first policy that names it makes it, without any rights.
    assert app.reader not in done[app.reader].unchanged
    assert app.drift().passed


def test_rows_are_read_through_the_table_by_its_policies_and_never_through_a_partition(app: App) -> None:
    app.execute(
        "insert into entries values ('2026-05-01', 'ada'), ('2026-06-01', 'bo'), ('1999-01-01', 'ada')",
        "select b44.create_partitions('entries', 'year', array['2028-01-01'::date])",
        "insert into entries values ('2028-05-01', 'ada')",
        "grant select on all tables in schema public to READER",
    )
    partitions = [
        name for (name,) in app.execute("select relid::text from pg_partition_tree('entries') where level > 0")
    ]
    assert len(partitions) == 3
    as_reader = ("set role READER", "set app.owner = 'ada'")
    assert app.execute(*as_reader, "select count(*) from entries") == [(3,)]
    for partition in partitions:
        assert app.execute(*as_reader, f"select count(*) from {partition}") == [(0,)]


@pytest.mark.long
def test_only_what_differs_of_a_policy_file_is_made_anew(app: App) -> None:
    head = "-- on: entries\n-- depends: WRITER\n\nalter table entries enable row level security;\n"
    policy = "create policy entries_all on entries for select to WRITER using (true);\n"
    kept = "create policy entries_kept on entries for insert to WRITER with check (true);\n"
    app = app.write({"policies/more_policies": head + policy + kept})
    app.migrate()
    oids = "select polname, oid from pg_policy"
    before = dict(app.execute(oids))
    assert len(before) == 3
    app = app.write({"policies/more_policies": head + policy.replace("true", "day > current_date") + kept})
    done = app.migrate()
    assert done["more_policies"].replaced == ("entries_all",)
    after = dict(app.execute(oids))
    assert [after[name] for name in ("entries_own", "entries_kept")] == [before["entries_own"], before["entries_kept"]]
    assert after["entries_all"] != before["entries_all"]
    forced = (head + policy + kept).replace("enable row", "force row") + head.partition("\n\n")[2]
    app = app.write({"policies/more_policies": forced})
    # Whichever file of the table comes first forces it.
    assert app.migrate()["entries_policies"].repaired == ("entries_2026", "entries_default", "row security")
    assert {change.changed for change in app.migrate().values()} == {False}
    assert app.drift().passed


def test_a_role_that_may_not_make_roles_is_told_what_to_run_and_goes_on_where_they_are_there(empty: App) -> None:
    name = f"migrator_{uuid.uuid4().hex}"
    empty.execute(
        f"create role {name}",
        f"grant create on schema public to {name} with grant option",
        f"do $$ begin execute format('grant all on database %I to {name} with grant option', current_database()); end $$",
    )
    try:
        session = Session(as_role(empty.session.url, name), empty.session.catalog, attempts=1)
        app = App(session, empty.reader, empty.writer)
        with pytest.raises(DatabaseError, match=f"user {name} may not make the roles .*CREATE ROLE {app.reader}"):
            need_room(session)
        empty.execute("create role READER", "create role WRITER")
        need_room(session)
        # Of another's schema it may not say who may use it.
        empty.execute(f"alter schema public owner to {name}")
        done = app.migrate()
        failed = "\n".join(done[app.reader].failed.values())
        assert "permission denied" in failed and "have a role with CREATEROLE run psql -f" in failed
        assert empty.execute("select has_table_privilege('READER', 'entries', 'select')") == [(True,)]
    finally:
        empty.execute(
            "alter schema public owner to pg_database_owner", f"drop owned by {name} cascade", f"drop role {name}"
        )


def test_a_role_that_another_database_s_migration_is_just_making_is_waited_for(empty: App) -> None:
    server = empty.session.url
    (reader,) = (spec for spec in empty.session.catalog.of(Kind.ROLE) if spec.name == empty.reader)
    with psycopg.connect(server) as other, ThreadPoolExecutor(1) as pool:
        other.execute(empty.named("create role READER").encode())
        made = pool.submit(make_roles, empty.session, [reader])
        eventually(lambda: holds_up(other, other.info.backend_pid))
        other.commit()
        assert made.result() == ()
    assert make_roles(empty.session, [reader]) == ()


@pytest.mark.long
def test_a_grant_that_grants_nothing_is_an_error(app: App) -> None:
    name = f"other_{uuid.uuid4().hex}"
    app.execute(f"create role {name}", f"grant usage on schema public to {name}", f"grant select on entries to {name}")
    app.execute("revoke select on entries from READER")
    try:
        other = App(Session(as_role(app.session.url, name), app.session.catalog, attempts=1), app.reader, app.writer)
        with pytest.raises(
            DatabaseError, match=rf"{app.reader}\.sql:\d+: no privileges were granted.*: migrate as the owner"
        ):
            other.migrate(Kind.ROLE)
    finally:
        app.execute(f"drop owned by {name}", f"drop role {name}")


@pytest.mark.long
def test_forced_row_security_that_would_hide_rows_from_the_migration_is_named_before_anything_is_made(
    empty: App,
) -> None:
    name = f"owner_{uuid.uuid4().hex}"
    empty.execute(
        f"create role {name} createrole",
        f"grant all on schema public to {name}",
        f"do $$ begin execute format('grant all on database %I to {name}', current_database()); end $$",
    )
    force = "alter table entries enable row level security;\nalter table entries force row level security;\n"
    app = empty.write({"policies/entries_policies": f"-- on: entries\n\n{force}"})
    try:
        with pytest.raises(DatabaseError, match=f"row security of entries is forced.*ALTER ROLE {name} BYPASSRLS"):
            need_room(Session(as_role(app.session.url, name), app.session.catalog))
        need_room(app.session)
    finally:
        empty.execute(f"drop owned by {name}", f"drop role {name}")


@pytest.mark.long
def test_something_else_with_the_name_of_a_view_is_named_before_anything_is_made(empty: App) -> None:
    empty.execute("create materialized view open_accounts as select 1")
    with pytest.raises(DatabaseError, match=r"public\.open_accounts is a materialized view, not a view: rename it"):
        need_room(empty.session)


@pytest.mark.long
def test_rows_that_a_policy_would_hide_from_us_are_an_error(app: App) -> None:
    url = as_role(app.session.url, app.reader)
    with (
        pytest.raises(DatabaseError, match='row-level security policy for table "entries"'),
        Session(url, app.session.catalog, attempts=1).connection("read") as conn,
    ):
        conn.execute("select count(*) from entries")


# Plain views


def chain(first: str = "select id, owner from accounts") -> dict[str, str]:
    """Views of which each reads the one before it, the last one with rows of its own."""
    return {
        "views/open_accounts": f"-- depends: accounts\n\ncreate or replace view open_accounts as {first};\n"
        "comment on view open_accounts is 'Open';\n",
        "views/owners": "-- depends: open_accounts\n\ncreate or replace view owners (name) as select owner from open_accounts;\n",
        "views/counted": "-- depends: owners\n\ncreate materialized view if not exists counted as"
        " select name, count(*) as n from owners group by name;\ncreate unique index if not exists idx_counted on counted (name);\n",
    }


def oid_of(app: App, name: str) -> int:
    return app.execute(f"select '{name}'::regclass::oid::bigint")[0][0]


@pytest.fixture
def views(app: App) -> App:
    """The app with a chain of views, and somebody else's grants on them."""
    app = app.write(chain())
    app.migrate()
    app.execute(
        "insert into accounts values (1, 'ada', 'x')", "grant select (name) on owners to READER with grant option"
    )
    app.execute("grant select on counted to READER", "grant update on open_accounts to READER")
    return app


def grants(app: App) -> list[Any]:
    return app.execute(
        "select table_name, privilege_type, is_grantable from information_schema.column_privileges where grantee = 'READER'"
        " and table_name in ('owners', 'open_accounts') union select relname, relacl::text, '' from pg_class"
        " where relname = 'counted' order by 1, 2"
    )


@pytest.mark.long
def test_a_changed_query_replaces_a_view_in_place(views: App) -> None:
    before = [oid_of(views, name) for name in ("open_accounts", "owners", "counted")]
    views = views.write(chain("select id, upper(owner) as owner, secret from accounts"))
    assert views.migrate()["open_accounts"].replaced == ("open_accounts",)
    assert [oid_of(views, name) for name in ("open_accounts", "owners", "counted")] == before
    assert views.execute("select name from owners") == [("ADA",)]
    assert views.drift().differences == ()


def test_a_column_of_another_type_makes_a_view_anew_with_those_on_it_and_what_they_are_granted(views: App) -> None:
    before = [oid_of(views, name) for name in ("open_accounts", "owners", "counted")]
    granted = grants(views)
    assert len(granted) > 2
    views = views.write(chain("select id, owner::varchar(9) as owner from accounts"))
    assert views.migrate()["open_accounts"].replaced == ("open_accounts",)
    assert not {oid_of(views, name) for name in ("open_accounts", "owners", "counted")} & set(before)
    assert views.execute("select name, n from counted") == [("ada", 1)]
    assert views.execute("select obj_description('open_accounts'::regclass)") == [("Open",)]
    assert grants(views) == granted
    assert views.drift().differences == ()
    assert [change for change in views.migrate().values() if change.changed] == []


@pytest.mark.long
@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("create schema other; create view other.mine as select * from owners", "view other.mine stands on it"),
        ("create function mine() returns bigint language sql begin atomic select count(*) from open_accounts; end",
         "function mine() depends on view open_accounts"),
    ],
)  # fmt: skip
def test_what_somebody_else_made_upon_a_view_is_named_and_nothing_is_dropped(
    views: App, statement: str, named: str
) -> None:
    views.execute(*statement.split("; ") if "atomic" not in statement else (statement,))
    before = everything(views.session.url)
    views = views.write(chain("select id, owner::varchar(9) as owner from accounts"))
    with pytest.raises(DatabaseError) as fault:
        views.migrate()
    assert named in str(fault.value)
    assert "\n" not in str(fault.value)
    assert everything(views.session.url) == before


@pytest.mark.long
def test_a_view_on_a_materialized_one_does_not_keep_it_from_being_replaced(views: App) -> None:
    more: Callable[[str], dict[str, str]] = lambda count: {  # noqa: E731
        "views/counted": chain()["views/counted"].replace("count(*)", count),
        "views/most": "-- depends: counted\n\ncreate or replace view most as select max(n) as n from counted;\n",
    }
    views = views.write(more("count(*)"))
    views.migrate()
    views.execute("grant select on most to READER")
    views = views.write(more("10 * count(*)"))
    assert "counted" in views.migrate()["counted"].replaced
    assert views.execute("set role READER", "select n from most") == [(10,)]
    assert views.drift().differences == ()


@pytest.mark.long
def test_options_and_comments_of_a_view_are_those_of_its_file(views: App) -> None:
    file = chain()["views/open_accounts"].replace("open_accounts as", "open_accounts with (security_barrier) as")
    views = views.write({"views/open_accounts": file.replace("'Open'", "'Still open'")})
    assert not views.drift().passed
    assert views.migrate()["open_accounts"].replaced == ("open_accounts",)
    assert views.drift().differences == ()
    assert views.execute("select reloptions from pg_class where relname = 'open_accounts'") == [
        (["security_barrier=true"],)
    ]
