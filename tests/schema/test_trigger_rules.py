"""Rules for writes by the application hold, whatever a session says of itself; only the migration's own transactions pass."""

from __future__ import annotations

import re
import uuid
from collections.abc import Generator
from datetime import UTC, datetime
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql

from b44_assets.catalog import Catalog, Kind
from b44_assets.schema.build import build
from b44_assets.session import Session

Db = psycopg.Connection[Any]
OWN_TRANSACTION = "select set_config(%s, pg_current_xact_id()::text, true)"


@pytest.fixture
def db(shared: Session) -> Generator[Db]:
    """A session of the tables' owner."""
    with psycopg.connect(shared.url, autocommit=True) as conn:
        yield conn


@pytest.fixture
def author(db: Db) -> uuid.UUID:
    """Who may not publish."""
    key = uuid.uuid4()
    db.execute(
        "insert into users (id, email, username, email_verified) values (%s, %s, %s, false)",
        (key, f"{key}@example.com", str(key)),
    )
    return key


@pytest.fixture
def app(shared: Session, db: Db) -> Generator[Db]:
    """A session of a role that may write rows, and no more."""
    name = sql.Identifier(f"app_{uuid.uuid4().hex}")
    db.execute(sql.SQL("create role {}").format(name))
    db.execute(sql.SQL("grant all on all tables in schema public to {}").format(name))
    with psycopg.connect(shared.url, autocommit=True) as conn:
        conn.execute(sql.SQL("set session authorization {}").format(name))
        yield conn
    db.execute(sql.SQL("drop owned by {} cascade").format(name))
    db.execute(sql.SQL("drop role {}").format(name))


PUBLISH = """
    insert into posts (user_id, title, content, published, published_at, created_by)
    values (%(author)s, 'A title', 'Long enough.', true, now(), %(author)s)
"""


def publish(conn: Db, author: uuid.UUID) -> None:
    conn.execute(PUBLISH, {"author": author})


def settings_of(catalog: Catalog) -> set[str]:
    """Every setting of ours that a function or trigger of `sql/` reads."""
    texts = [spec.path.read_text("utf-8") for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE, Kind.TRIGGER)]
    return {name for text in texts for name in re.findall(r"'(b44\.[a-z_]+)'", text)}


@pytest.mark.parametrize("said", ["on", "true", "1", "the number of the transaction"])
def test_no_setting_lets_an_application_break_a_rule(app: Db, author: uuid.UUID, catalog: Catalog, said: str) -> None:
    assert "b44.migrating" in settings_of(catalog)
    for name in sorted(settings_of(catalog)):
        with pytest.raises(errors.CheckViolation), app.transaction():
            if said.startswith("the"):
                app.execute(OWN_TRANSACTION, (name,))
            else:
                app.execute("select set_config(%s, %s, false)", (name, said))
            publish(app, author)


def test_a_function_that_acts_for_the_owner_is_no_way_round_the_rules(app: Db, db: Db, author: uuid.UUID) -> None:
    name = sql.Identifier(f"publish_{uuid.uuid4().hex}")
    body = sql.Literal(PUBLISH.replace("%(author)s", "$1"))
    db.execute(sql.SQL("create function {}(uuid) returns void language sql security definer as {}").format(name, body))
    with pytest.raises(errors.CheckViolation), app.transaction():
        app.execute(OWN_TRANSACTION, ("b44.migrating",))
        app.execute(sql.SQL("select {}(%s)").format(name), (author,))
    db.execute(sql.SQL("drop function {}").format(name))


def test_an_owner_who_acts_as_the_application_is_bound_as_it_is(app: Db, db: Db, author: uuid.UUID) -> None:
    (role,) = app.execute("select session_user").fetchone() or ("",)
    with pytest.raises(errors.CheckViolation), db.transaction():
        db.execute(OWN_TRANSACTION, ("b44.migrating",))
        db.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
        publish(db, author)


def test_an_application_that_owns_the_tables_is_checked_whatever_its_session_was_told(
    db: Db, author: uuid.UUID
) -> None:
    db.execute("set b44.migrating = 'on'")
    with pytest.raises(errors.CheckViolation):
        publish(db, author)


def test_what_the_migration_says_ends_with_its_transaction(db: Db, author: uuid.UUID) -> None:
    with db.transaction():
        # Even for the session, which no transaction of ours does.
        db.execute("select set_config('b44.migrating', pg_current_xact_id()::text, false)")
        db.execute(
            "insert into posts (user_id, title, content, slug, published, published_at, created_by)"
            " values (%(author)s, 'A title', 'Long enough.', %(slug)s, true, now(), %(author)s)",
            {"author": author, "slug": f"kept-{author}"},
        )
    with pytest.raises(errors.CheckViolation):
        publish(db, author)


@pytest.mark.parametrize("batch", ["migrate_users_batch", "migrate_posts_batch"])
def test_a_batch_leaves_the_rest_of_its_transaction_to_the_rules(db: Db, author: uuid.UUID, batch: str) -> None:
    (before,) = db.execute("show work_mem").fetchone() or ("",)
    with pytest.raises(errors.CheckViolation), db.transaction():
        assert db.execute(f"select {batch}(10)".encode()).fetchone() == (0,)
        assert db.execute("show work_mem").fetchone() == (before,)
        publish(db, author)


def test_triggers_of_an_earlier_version_are_brought_up_to_date(built: Session) -> None:
    old = "current_setting('b44.migrating', true) is distinct from 'on'"
    (triggers,) = built.catalog.on("posts", Kind.TRIGGER)
    author = uuid.uuid4()
    with psycopg.connect(built.url, autocommit=True) as conn:
        conn.execute("insert into users (id, email, username) values (%s, 'new@example.com', 'new')", (author,))
        for statement in triggers.statements:
            conn.execute(statement.text.replace("not b44.migrating('posts')", old).encode())
        conn.execute("drop function b44.migrating cascade")
        for spec in built.catalog.of(Kind.RUNTIME, Kind.FUNCTION):
            build(built, spec)
        conn.execute("set b44.migrating = 'on'")
        with pytest.raises(errors.CheckViolation):
            publish(conn, author)
        with conn.transaction():
            conn.execute(OWN_TRANSACTION, ("b44.migrating",))
            conn.execute(
                "insert into posts (user_id, title, content, slug, published, published_at, created_by)"
                " values (%(author)s, 'A title', 'Long enough.', 'kept', true, %(now)s, %(author)s)",
                {"author": author, "now": datetime.now(UTC)},
            )
        assert build(built, triggers).changed is False  # pyright: ignore[reportAttributeAccessIssue]  # of triggers it is a SchemaChange
