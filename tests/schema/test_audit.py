"""Changes of audited tables are noted with who made them and by which values, and nobody who makes them can leave that out."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from b44_assets.schema.standard_roles import install_standard_roles
from b44_assets.session import Session

Db = psycopg.Connection[Any]
ENTRIES = """
    select action, old_values, new_values, user_id, login
      from audit_logs where record_id = %s and login is not null order by action
"""


@pytest.fixture
def db(shared: Session) -> Generator[Db]:
    """A session of the owner, in a transaction that is rolled back."""
    install_standard_roles(shared)
    with psycopg.connect(shared.url) as conn:
        yield conn
        conn.rollback()


def as_member(conn: Db, group: str, user: uuid.UUID | None) -> str:
    """Acts from now on as a login that is a member of a group role."""
    login = f"login_{uuid.uuid4().hex}"
    conn.execute(sql.SQL("create role {} in role {}").format(sql.Identifier(login), sql.Identifier(group)))
    conn.execute(
        "select set_config('b44.user_id', %s, true), set_config('b44.role', 'service', true)", (str(user or ""),)
    )
    conn.execute(sql.SQL("set local session authorization {}").format(sql.Identifier(login)))
    return login


def add_user(conn: Db, key: uuid.UUID) -> None:
    conn.execute("insert into users (id, email, username) values (%s, %s, %s)", (key, f"{key}@x.example", str(key)))


def test_each_change_is_noted_with_the_user_the_login_and_what_changed(db: Db) -> None:
    key, actor = uuid.uuid4(), uuid.uuid4()
    add_user(db, actor)
    login = as_member(db, "b44_readwrite", actor)
    add_user(db, key)
    db.execute("update users set display_name = 'Ada' where id in (%s, %s)", (key, actor))
    # Which changes nothing.
    db.execute("update users set display_name = 'Ada' where id = %s", (key,))
    db.execute("delete from users where id = %s", (key,))
    noted = db.execute(ENTRIES, (key,)).fetchall()
    assert [(action, user, name) for action, _, _, user, name in noted] == [
        (action, actor, login) for action in ("delete", "insert", "update")
    ]
    (_, gone, after, *_), (_, before, came, *_), (_, old, new, *_) = noted
    assert (after, before, gone["display_name"], came["email"]) == (None, None, "Ada", f"{key}@x.example")
    assert (old, new) == ({"display_name": None}, {"display_name": "Ada"})


def test_only_the_application_is_believed_and_an_entry_of_nobody_still_has_its_login(db: Db) -> None:
    key, named = uuid.uuid4(), uuid.uuid4()
    add_user(db, named)
    login = as_member(db, "b44_migrator", named)
    add_user(db, key)
    ((_, _, _, user, name),) = db.execute(ENTRIES, (key,)).fetchall()
    assert (user, name) == (None, login)


def test_a_user_who_removes_himself_is_noted(db: Db) -> None:
    key = uuid.uuid4()
    add_user(db, key)
    login = as_member(db, "b44_readwrite", key)
    db.execute("delete from users where id = %s", (key,))
    actions = [
        (action, user, name) for action, _, _, user, name in db.execute(ENTRIES, (key,)).fetchall() if name == login
    ]
    assert actions == [("delete", None, login)]


def test_who_changes_rows_neither_changes_entries_nor_passes_as_the_migration(db: Db) -> None:
    key = uuid.uuid4()
    as_member(db, "b44_readwrite", None)
    # Which adds no entry in the name of nobody itself.
    db.execute("select set_config('b44.role', 'admin', true)")
    db.execute("select set_config('b44.migrating', pg_current_xact_id()::text, true)")
    add_user(db, key)
    assert len(db.execute(ENTRIES, (key,)).fetchall()) == 1
    for statement in (
        "delete from audit_logs",
        "update audit_logs set action = 'x'",
        "alter table users disable trigger all",
    ):
        with pytest.raises(errors.InsufficientPrivilege), db.transaction():
            db.execute(statement.encode())


def test_rows_of_the_migration_are_not_noted(db: Db) -> None:
    key = uuid.uuid4()
    db.execute("select set_config('b44.migrating', pg_current_xact_id()::text, true)")
    add_user(db, key)
    assert db.execute(ENTRIES, (key,)).fetchall() == []
    # Of all that a migration has brought.
    assert db.execute(
        "select count(*) from audit_logs where login is not null and table_name = 'categories'"
    ).fetchone() == (0,)


def test_an_app_without_a_table_of_its_own_has_the_program_s_and_partitions_count_as_their_table(db: Db) -> None:
    db.execute(
        """
        create table carts (id integer, note text) partition by list (id);
        create table carts_1 partition of carts default;
        create trigger noted after insert on carts referencing new table as added for each statement execute function b44.audit('id');
        create trigger noted after insert on carts_1 referencing new table as added for each statement execute function b44.audit('id');
        insert into carts values (1, 'a');
        insert into carts_1 values (2, 'b')
        """
    )
    assert db.execute(
        "select table_name, record_id, action, new_values, login = session_user from b44.audit_log order by id"
    ).fetchall() == [
        ("carts", "1", "insert", {"id": 1, "note": "a"}, True),
        ("carts", "2", "insert", {"id": 2, "note": "b"}, True),
    ]
