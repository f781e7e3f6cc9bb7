"""Who may call the functions in the database, and what they resolve names by."""

from __future__ import annotations

import re
import uuid
from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from b44_assets.catalog import Kind
from b44_assets.schema.apply import apply
from b44_assets.schema.row_security import apply_policies
from b44_assets.schema.standard_roles import install_standard_roles
from tests.helpers.records import post, user
from tests.helpers.target import Target

_OURS = """
    select p.oid, p.oid::regprocedure::text, p.prokind, p.prosecdef, p.provolatile, p.prorettype = 'trigger'::regtype,
           has_function_privilege('public', p.oid, 'execute'), p.prosqlbody is not null,
           exists (select from unnest(p.proconfig) c where c like 'search_path=%%'), p.prosrc
      from pg_proc p
      join pg_namespace n on n.oid = p.pronamespace
     where n.nspname not in ('pg_catalog', 'information_schema') and n.nspname not like 'pg\\_%%'
       and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
     order by 2
"""

_ONE_CALL = re.compile(
    r"\s*(declare\s+[a-z]+ constant timestamp := (b44|migration)\.[a-z_]+\([a-z0-9_]+\);\s+)?"
    r"begin return (b44|migration)\.[a-z_]+\([a-z0-9_, ]+\); end\s*"
)


@pytest.fixture
def migrated_target(target: Target) -> Target:
    """With all the functions that are made for a table's columns, too."""
    target.migrate({"User": [user(1), user(2)], "Post": [post(1, title="A title")]})
    return target


@pytest.fixture
def stranger(migrated_target: Target) -> Generator[psycopg.Connection[Any]]:
    """A session of a role that was granted nothing: it may connect and make temporary tables, as everybody may."""
    name = f"stranger_{uuid.uuid4().hex}"
    migrated_target.run(sql.SQL("create role {}").format(sql.Identifier(name)))
    conn = psycopg.connect(migrated_target.session.url, autocommit=True)
    conn.execute(sql.SQL("set session authorization {}").format(sql.Identifier(name)))
    yield conn
    conn.close()
    migrated_target.run(sql.SQL("drop owned by {} cascade").format(sql.Identifier(name)))
    migrated_target.run(sql.SQL("drop role {}").format(sql.Identifier(name)))


def test_everybody_may_call_only_what_changes_nothing(migrated_target: Target) -> None:
    found = migrated_target.all(_OURS)
    assert any(name.startswith("migration.load_posts(") for _, name, *_ in found)
    public = [row for row in found if row[6]]
    assert [row[1] for row in public if row[2] != "f" or row[3] or row[4] == "v" or row[5]] == []
    assert "base44_uuid(text)" in [row[1] for row in public]


def test_no_function_resolves_names_by_the_path_of_its_caller(migrated_target: Target) -> None:
    for _, name, kind, _, _, _, _, bound, fixed, source in migrated_target.all(_OURS):
        if kind == "p" and "commit;" in source:
            # Which a setting of its own forbids: each of its transactions begins with one.
            assert source.count("commit;") + 1 == source.count("set local search_path = public, pg_temp;"), name
        elif kind == "p":
            assert source.split("call ")[1].startswith(("public.", "b44.")), name
        elif _ONE_CALL.fullmatch(source):
            # All names in it are qualified; not even an operator is resolved.
            assert kind == "f", name
        else:
            assert bound or fixed, name


def test_a_stranger_makes_no_trigger_of_any_function(
    migrated_target: Target, stranger: psycopg.Connection[Any]
) -> None:
    stranger.execute("create temp table mine (id integer)")
    triggers = [row[1] for row in migrated_target.all(_OURS) if row[5]]
    assert len(triggers) >= 6
    for name in triggers:
        text = f"create trigger theirs after delete on mine for each statement execute function {name}"
        with pytest.raises(errors.InsufficientPrivilege):
            stranger.execute(text.encode())


def test_a_stranger_reads_and_changes_nothing_through_a_function(
    migrated_target: Target, stranger: psycopg.Connection[Any]
) -> None:
    before = migrated_target.state()
    for oid, name, kind, _, _, is_trigger, *_ in migrated_target.all(_OURS):
        if is_trigger:
            continue
        (arguments,) = migrated_target.all(
            "select coalesce(string_agg(format('null::%%s', t::regtype), ', '), '')"
            " from pg_proc p, unnest(p.proargtypes::oid[]) t where p.oid = %s",
            oid,
        )[0]
        schema = "" if name.startswith(("b44.", "migration.")) else "public."
        call = f"{'call' if kind == 'p' else 'select'} {schema}{name.split('(')[0]}({arguments})"
        try:
            stranger.execute(call.encode())
        except psycopg.Error as error:
            allowed = (errors.InsufficientPrivilege, errors.RaiseException, errors.DataException)
            assert isinstance(error, allowed), (call, error)  # any other is a fault of the call
    assert migrated_target.state() == before
    with pytest.raises(errors.InsufficientPrivilege):
        stranger.execute("select * from public.get_posts_paginated()")


def test_whoever_may_write_rows_needs_no_right_on_functions(
    migrated_target: Target, stranger: psycopg.Connection[Any]
) -> None:
    (name,) = stranger.execute("select session_user").fetchone() or ("",)
    session = migrated_target.session
    install_standard_roles(session)
    for spec in session.catalog.on("posts", Kind.POLICY):
        apply_policies(session, spec)
    migrated_target.run(sql.SQL("grant b44_readwrite to {}").format(sql.Identifier(name)))
    author = migrated_target.one("select id from users where email = 'user1@example.com'")
    stranger.execute("select set_config('b44.user_id', %s, false)", (str(author),))
    for _ in range(2):
        stranger.execute(
            "insert into public.posts (user_id, title, content, slug, created_by) values (%s, 'Mine', 'Long enough.', %s, %s)",
            (author, f"mine-{uuid.uuid4().hex}", author),
        )
    stranger.execute("update public.posts set title = 'Ours' where title = 'Mine'")
    stranger.execute("delete from public.posts where title = 'Ours'")


def test_rights_that_an_earlier_version_left_are_taken_back(migrated_target: Target) -> None:
    before = [row[1] for row in migrated_target.all(_OURS) if row[6]]
    migrated_target.run("grant execute on all routines in schema public, b44, migration to public")
    for spec in migrated_target.session.catalog.of(Kind.RUNTIME, Kind.FUNCTION):
        apply(migrated_target.session, spec)
    assert [row[1] for row in migrated_target.all(_OURS) if row[6]] == before
