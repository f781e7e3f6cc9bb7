"""What is in the way in a target is named before anything is made, with what to do about it."""

from __future__ import annotations

import uuid
from collections.abc import Generator

import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from b44_assets.catalog import Catalog, Kind
from b44_assets.errors import DatabaseError
from b44_assets.runs.preconditions import refuse_if_finished
from b44_assets.schema.build import build
from b44_assets.schema.preflight import need_room
from b44_assets.schema.runtime import install_runtime
from b44_assets.session import Session

CATALOGUE = """
    select array(select concat_ws(' ', oid, relname, relkind, relacl) from pg_class order by oid),
           array(select concat_ws(' ', oid, nspname, nspacl) from pg_namespace
                  where nspname !~ '^pg_(toast_)?temp_' order by oid),
           array(select concat_ws(' ', oid, proname) from pg_proc order by oid),
           array(select concat_ws(' ', oid, typname) from pg_type order by oid)
"""


def complaint(url: str, catalog: Catalog) -> str:
    """What is said to be in the way, in one line; the catalogue is as it was before."""
    with psycopg.connect(url) as conn:
        before = conn.execute(CATALOGUE).fetchone()
    with pytest.raises(DatabaseError) as caught:
        need_room(Session(url, catalog))
    with psycopg.connect(url) as conn:
        assert conn.execute(CATALOGUE).fetchone() == before
    assert "\n" not in str(caught.value)
    return str(caught.value)


def having(url: str, *statements: str) -> str:
    with psycopg.connect(url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())
    return url


@pytest.mark.parametrize(
    ("statement", "named"),
    [
        ("create table users (id bigint, mail text)", ["public.users", "no column email", "id as bigint instead of uuid"]),
        ("create table categories (id uuid)", ["public.categories", "no column name", "and 7 more"]),
        ("create view posts as select 1 as id", ["public.posts is a view"]),
        ("create sequence events", ["public.events is a sequence"]),
        ("create table audit_logs (like pg_class)", ["public.audit_logs is a table, not a partitioned table"]),
        ("create table audit_logs (like pg_class); comment on table audit_logs is 'Who changed what'",
         ["public.audit_logs, which a migration has made, is a table, not a partitioned table", "into a new database"]),
        ("create type user_sessions as enum ('a')", ["type public.user_sessions"]),
        ("create schema migration; create table migration.migrated (id int)", ["migration.migrated", "no column entity"]),
        ("create table posts_default (id int) partition by range (id); create view users as select 1",
         ["public.users is a view", "public.posts_default is no partition of posts"]),
        ("create table user_sessions_2 (id int)", ["public.user_sessions_2 is no partition of user_sessions"]),
        ("create schema migration; create view migration.migration_log as select 1", ["migration.migration_log is a view"]),
        ("create schema migration; create table migration.batch_number (a int)", ["migration.batch_number is a table, not a seq"]),
        ("create schema migration; create table migration.accounting (a int)", ["migration.accounting is a table, not a view"]),
        ("create schema b44; create table b44.migration_state (id int)", ["b44.migration_state", "no column archive"]),
        ("create schema b44; create view b44.check_results as select 1", ["b44.check_results is a view"]),
        ("create table other (a int); create index unique_event_per_day on other (a)",
         ["index public.unique_event_per_day is one of other"]),
        ("create table other (a int); create index idx_migrated_batch on other (a); create table unique_event_per_day (a int)",
         ["public.unique_event_per_day is a table, not an index"]),
        ("create function transform_tags(text) returns text language sql as 'select $1'",
         ["public.transform_tags", "transform_tags(text)", "cannot change return type"]),
        ("create function transform_tags(other text) returns text[] language sql as 'select null::text[]'",
         ["public.transform_tags", "cannot change name of input parameter"]),
        ("create procedure refresh_user_stats() language sql as 'select 1'",
         ["public.refresh_user_stats", "cannot change routine kind"]),
        ("create aggregate base44_uuid(text) (sfunc = textcat, stype = text)", ["public.base44_uuid", "cannot change routine kind"]),
        ("create schema migration; create function migration.fingerprint_of(made_of text, reads text[]) returns integer"
         " language sql as 'select 1'", ["migration.fingerprint_of", "cannot change return type"]),
    ],
)  # fmt: skip
def test_an_object_of_somebody_else_is_named(database: str, catalog: Catalog, statement: str, named: list[str]) -> None:
    said = complaint(having(database, *statement.split("; ")), catalog)
    for part in named:
        assert part in said


def test_all_that_is_in_the_way_is_named_at_once(database: str, catalog: Catalog) -> None:
    said = complaint(having(database, "create view users as select 1", "create sequence posts"), catalog)
    assert "public.users" in said and "public.posts" in said


def test_an_index_of_another_table_is_named(database: str, catalog: Catalog) -> None:
    index = catalog.of(Kind.INDEX)[0].statements[0].text.split(" on ")[0].split()[-1]
    said = complaint(having(database, "create table other (a int)", f"create index {index} on other (a)"), catalog)
    assert f"index public.{index} is one of other" in said


def test_an_empty_database_and_one_that_was_migrated_and_changed_by_its_application_are_fine(
    embedded_database: str, catalog: Catalog
) -> None:
    # A staged table in public, and any other of the application's, may be there.
    having(embedded_database, "create table base44_users (data jsonb)", "create table carts (id int)")
    session = Session(embedded_database, catalog)
    need_room(session)
    for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE, Kind.INDEX, Kind.VIEW):
        build(session, spec)
    having(
        embedded_database,
        "alter table users add column theme text",
        "alter table posts alter column view_count type bigint",
        # An earlier version had not got it yet.
        "alter table migration.exports drop column cleaning cascade",
    )
    need_room(session)


def test_functions_of_other_arguments_and_of_an_earlier_version_are_fine(
    embedded_database: str, catalog: Catalog
) -> None:
    session = Session(embedded_database, catalog)
    for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    having(
        embedded_database,
        "create function transform_tags(integer) returns integer language sql as 'select 1'",
        "create or replace function validate_post_update() returns trigger language plpgsql as 'begin return new; end'",
        "create function cart_total() returns integer language sql as 'select 1'",
    )
    need_room(session)


def test_the_programs_own_functions_are_not_made_to_look_whether_they_can_be_made_where_they_are_there(
    embedded_database: str, catalog: Catalog
) -> None:
    session = Session(embedded_database, catalog)
    install_runtime(session)
    # A sequence goes on in a transaction that is rolled back.
    having(
        embedded_database,
        "create sequence made",
        "create function note() returns event_trigger language plpgsql as"
        " 'begin perform nextval(''public.made''); end'",
        "create event trigger note on ddl_command_end execute function note()",
    )
    need_room(session, ())
    with psycopg.connect(embedded_database) as conn:
        assert conn.execute("select is_called from made").fetchone() == (False,)


@pytest.mark.parametrize(
    ("statement", "name", "in_the_way"),
    [
        ("create table users (id bigint, mail text)", "users", True),
        ("create table users (id bigint, mail text)", "posts", True),
        ("create table users (id bigint, mail text)", "events_constraints", True),
        ("create table events (id bigint)", "user_preferences", False),
        ("create sequence idx_users_role", "users_account_indexes", True),
        ("create sequence idx_users_role", "users", False),
        ("create table user_post_stats (id int)", "user_post_stats", True),
        ("create table user_sessions_2 (id int)", "user_sessions_partitions", True),
        ("create function generate_post_slug(text, uuid) returns integer language sql as 'select 1'", "posts", True),
    ],
)  # fmt: skip
def test_what_is_made_alone_asks_for_what_it_stands_on(
    embedded_database: str, catalog: Catalog, statement: str, name: str, in_the_way: bool
) -> None:
    session = Session(having(embedded_database, statement), catalog)
    if not in_the_way:
        return need_room(session, (name,))
    with pytest.raises(DatabaseError, match="the target cannot take the migration: "):
        need_room(session, (name,))


@pytest.fixture
def role(database: str) -> Generator[str]:
    name = f"preflight_{uuid.uuid4().hex}"
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login password 'secret'").format(sql.Identifier(name)))
        yield name
        conn.execute(sql.SQL("drop owned by {0} cascade; drop role {0}").format(sql.Identifier(name)))


def as_role(url: str, role: str) -> str:
    """The same session of the server's, with the rights of a role: what the server's `pg_hba.conf` says is not the point."""
    return make_conninfo(url, options=f"-c role={role}")


def test_missing_rights_are_named_with_their_remedy(database: str, role: str, catalog: Catalog) -> None:
    said = complaint(as_role(database, role), catalog)
    assert "GRANT CREATE ON DATABASE" in said
    assert f"GRANT CREATE ON SCHEMA public TO {role}" in said


def test_tables_and_schemas_of_another_role_are_named(database: str, role: str, catalog: Catalog) -> None:
    having(database, "create schema migration", f"grant create on schema public to {role}")
    with psycopg.connect(database) as conn:
        conn.execute(
            sql.SQL("grant create on database {} to {}").format(sql.Identifier(conn.info.dbname), sql.Identifier(role))
        )
    assert f"ALTER SCHEMA migration OWNER TO {role}" in complaint(as_role(database, role), catalog)
    having(database, "drop schema migration", *(s.text for s in catalog.table("categories").statements[:1]))
    said = complaint(as_role(database, role), catalog)
    assert "public.categories belongs to" in said
    having(database, f"alter table categories owner to {role}")
    need_room(Session(as_role(database, role), catalog))


def test_a_role_that_may_not_even_read_the_state_of_a_migration_is_told_what_it_needs(
    database: str, role: str, catalog: Catalog
) -> None:
    install_runtime(Session(database, catalog))
    session = Session(as_role(database, role), catalog)
    with pytest.raises(DatabaseError, match=f"ALTER SCHEMA migration OWNER TO {role}"):
        refuse_if_finished(session, "migrate")
    assert f"ALTER SCHEMA b44 OWNER TO {role}" in complaint(session.url, catalog)


def test_a_function_of_another_role_is_named(database: str, role: str, catalog: Catalog) -> None:
    with psycopg.connect(database, autocommit=True) as conn:
        conn.execute(
            sql.SQL("grant create on database {} to {}").format(sql.Identifier(conn.info.dbname), sql.Identifier(role))
        )
    having(
        database,
        f"grant create on schema public to {role}",
        "create function transform_user_role(base44_role text) returns text language sql as 'select $1'",
    )
    said = complaint(as_role(database, role), catalog)
    assert "public.transform_user_role" in said
    assert "must be owner of function" in said
    having(database, "drop function transform_user_role(text)")
    need_room(Session(as_role(database, role), catalog))
