"""Row-level security of the blog: for every role and every table what must be refused is tried, directly and round about."""

from __future__ import annotations

import uuid
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors, sql

from b44_assets.catalog import Catalog, Kind
from b44_assets.maintenance.query_plans import query_plans
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.row_security import apply_policies
from b44_assets.schema.standard_roles import install_standard_roles
from b44_assets.session import Connection, Session
from tests.helpers.databases import create_database, database_url
from tests.helpers.schema_templates import Templates

Db = psycopg.Connection[Any]
PERSONAL = {
    "users": "id",
    "user_preferences": "user_id",
    "user_sessions": "user_id",
    "audit_logs": "user_id",
    "posts": "user_id",
}
"""Tables of which one sees one's own rows, and the column that says whose they are."""
MEMBERS = ("b44_readonly", "b44_readwrite", "b44_migrator", "b44_monitor", "b44_owner")


@pytest.fixture(scope="module")
def guarded(templates: Templates, catalog: Catalog) -> Generator[Session]:
    """A session on a copy of the whole schema, with the group roles and a login for each."""
    name = f"guarded_{uuid.uuid4().hex}"
    with psycopg.connect(templates.server_url, autocommit=True) as conn:
        create_database(conn, name, templates.built)
        session = Session(database_url(templates.server_url, name), catalog)
        install_standard_roles(session)
        logins = [sql.Identifier(login_of(session, role)) for role in MEMBERS]
        for role, login in zip(MEMBERS, logins, strict=True):
            conn.execute(sql.SQL("create role {} in role {}").format(login, sql.Identifier(role)))
        yield session
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
        for login in logins:
            conn.execute(sql.SQL("drop role {}").format(login))


def login_of(session: Session, role: str) -> str:
    return f"{role}_{session.url.partition('guarded_')[2][:12]}"


@dataclass(frozen=True)
class Mine:
    """The user for whom one acts, and another one."""

    user: uuid.UUID
    other: uuid.UUID


@pytest.fixture
def db(guarded: Session) -> Generator[Db]:
    """A session of the owner, in a transaction that is rolled back."""
    with psycopg.connect(guarded.url) as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def mine(db: Db) -> Mine:
    """Two verified users with a row of each kind of theirs, and a draft and a published post."""
    both = uuid.uuid4(), uuid.uuid4()
    for key in both:
        db.execute(
            "insert into users (id, email, username, active, email_verified) values (%s, %s, %s, true, true)",
            (key, f"{key}@x.example", str(key)),
        )
        db.execute("insert into user_preferences (user_id) values (%s)", (key,))
        db.execute("insert into user_sessions (user_id, expires_at) values (%s, now() + interval '1 day')", (key,))
        db.execute(
            "insert into audit_logs (table_name, record_id, action, user_id) values ('x', %s, 'insert', %s)", (key, key)
        )
        write_post(db, key, published=False)
        write_post(db, key, published=True)
    return Mine(*both)


def write_post(conn: Db, author: uuid.UUID, *, published: bool) -> None:
    conn.execute(
        "insert into posts (user_id, title, content, published, published_at, created_by)"
        " values (%(author)s, 'A title', 'Long enough.', %(published)s, case when %(published)s then now() end, %(author)s)",
        {"author": author, "published": published},
    )


@contextmanager
def acting(conn: Db, session: Session, group: str, **settings: object) -> Generator[None]:
    """Acts as a member of a group role, with settings `b44.<name>`; ends with a roll back."""
    with conn.transaction(force_rollback=True):
        for name, value in settings.items():
            conn.execute("select set_config(%s, %s, true)", (f"b44.{name}", str(value)))
        conn.execute(sql.SQL("set local session authorization {}").format(sql.Identifier(login_of(session, group))))
        yield


def owners_seen(conn: Db, table: str, mine: Mine) -> tuple[int, int]:
    """How many rows of one's own one sees, and how many of all others."""
    found = conn.execute(
        sql.SQL(
            "select count(*) filter (where {c} = %(user)s), count(*) filter (where {c} is distinct from %(user)s) from {t}"
        ).format(c=sql.Identifier(PERSONAL[table]), t=sql.Identifier(table)),
        {"user": mine.user},
    ).fetchone()
    assert found is not None
    return found


def test_everybody_sees_what_is_for_him(guarded: Session, db: Db, mine: Mine) -> None:
    total = {table: sum(owners_seen(db, table, mine)) for table in PERSONAL}
    published = db.execute("select count(*) from posts where published").fetchone()
    assert published is not None
    for table in PERSONAL:
        own = 2 if table == "posts" else 1
        # Beside one's own: of posts the published ones of others.
        others = published[0] - 1 if table == "posts" else 0
        expected: dict[tuple[str, str], tuple[int, int]] = {
            ("b44_readwrite", "user"): (own, others),
            ("b44_readwrite", "service"): (own, total[table] - own),
            # People are nobody's users, whatever they say.
            ("b44_readonly", "user"): (1, others) if table == "posts" else (0, 0),
            ("b44_readonly", "service"): (1, others) if table == "posts" else (0, 0),
            ("b44_migrator", "user"): (own, total[table] - own),
        }
        for (group, role), wanted in expected.items():
            with acting(db, guarded, group, user_id=mine.user, role=role):
                assert owners_seen(db, table, mine) == wanted, (table, group, role)
        with acting(db, guarded, "b44_readwrite"):
            assert owners_seen(db, table, mine) == ((1, others) if table == "posts" else (0, 0)), table
    with acting(db, guarded, "b44_readonly"):
        assert db.execute("select count(*) from user_names where id = %s", (mine.other,)).fetchone() == (1,)


OF_NOBODY: tuple[LiteralString, ...] = (
    "truncate {}",
    "drop table {}",
    "alter table {} disable row level security",
    "create policy theirs on {}",
    "create trigger theirs before insert on {} execute function validate_post_update()",
)
"""What nobody but the owner does with a table."""
OF_PARTITIONS: tuple[LiteralString, ...] = ("select from {}", "delete from {}", "insert into {} default values")
ROUND_ABOUT = (
    "set role b44_owner",
    "set row_security = off; select from users",
    "select b44.set_owner('b44_readwrite')",
    "select b44.create_partition('posts', 'month', '1999-01-01')",
    "select b44.migrate_batch('users')",
    "select from base44.users",
    "select from migration.quarantine",
    "update post_slugs set slug = slug || 'x'",
    "insert into user_names (username) values ('x')",
    "update user_names set username = 'x'",
    "delete from audit_logs",
    "update audit_logs set action = 'x'",
)
MAY: Mapping[str, tuple[str, ...]] = {
    "set role b44_owner": ("b44_owner",),
    "select b44.migrate_batch('users')": ("b44_migrator",),
    "select from migration.quarantine": ("b44_migrator",),
    "set row_security = off; select from users": (),
    "update post_slugs set slug = slug || 'x'": ("b44_migrator",),
    "delete from audit_logs": ("b44_migrator",),
    "update audit_logs set action = 'x'": ("b44_migrator",),
}
"""Who may all the same."""


def refused(conn: Db, statement: str | sql.Composed, parameters: Any = None) -> bool:
    """Whether a statement is refused, or finds no row to work on."""
    try:
        with conn.transaction(force_rollback=True):
            cursor = conn.execute(statement.encode() if isinstance(statement, str) else statement, parameters)
            return cursor.rowcount == 0
    except errors.InsufficientPrivilege:
        return True


def test_what_is_not_one_s_own_is_refused_to_every_role_whatever_its_settings_say(
    guarded: Session, db: Db, mine: Mine
) -> None:
    tables = [sql.Identifier(spec.name) for spec in guarded.catalog.of(Kind.TABLE)]
    partitions = [
        sql.Identifier(name)
        for (name,) in db.execute(
            "select relname from pg_class where relispartition and relkind = 'r' and relrowsecurity"
        )
    ]
    assert len(partitions) >= 20
    let_by: list[Any] = []
    for group in MEMBERS:
        for role in ("user", "service", "admin", "b44_migrator"):
            trusted = group == "b44_migrator" or (group == "b44_readwrite" and role in ("service", "admin"))
            with acting(db, guarded, group, user_id=mine.user, role=role):
                for texts, relations in (
                    (OF_NOBODY, tables),
                    (OF_PARTITIONS, partitions[:: 1 if role == "user" else 7]),
                ):
                    for text in texts:
                        for relation in relations:
                            if not refused(db, sql.SQL(text).format(relation)):
                                let_by.append((group, role, text, relation.as_string()))
                let_by += [
                    (group, role, text)
                    for text in ROUND_ABOUT
                    if group not in MAY.get(text, ()) and not refused(db, text)
                ]
                if trusted:
                    continue
                for table, column in PERSONAL.items():
                    of_other = sql.SQL(" where {} = %s").format(sql.Identifier(column))
                    if table == "posts":
                        of_other += sql.SQL(" and not published")
                    tries = [sql.SQL("select from {}"), sql.SQL("delete from {}")]
                    if table in ("users", "posts", "user_preferences"):
                        tries.append(sql.SQL("update {} set updated_at = now()"))
                    for statement in tries:
                        if not refused(db, statement.format(sql.Identifier(table)) + of_other, (mine.other,)):
                            let_by.append((group, role, statement, table))
                others = (
                    "update posts set title = 'Taken' where user_id = %s",
                    "update posts set user_id = %s where published",
                )
                if not all(refused(db, statement.replace("%s", f"'{mine.other}'")) for statement in others):
                    let_by.append((group, role, "posts of others"))
                if not refused(
                    db,
                    "insert into posts (user_id, title, content, created_by)"
                    f" values ('{mine.other}', 'Forged', 'Long enough.', '{mine.other}')",
                ):
                    let_by.append((group, role, "a post in another's name"))
                if not refused(db, f"update users set role = 'admin' where id = '{mine.user}'"):
                    let_by.append((group, role, "a role for oneself"))
    assert let_by == []


def test_an_author_writes_with_slug_and_permission_though_registry_and_accounts_are_closed(
    guarded: Session, db: Db, mine: Mine
) -> None:
    with acting(db, guarded, "b44_readwrite", user_id=mine.user):
        for _ in range(2):
            write_post(db, mine.user, published=True)
        slugs = db.execute("select slug from posts where user_id = %s and title = 'A title'", (mine.user,)).fetchall()
        assert len({slug for (slug,) in slugs}) == 4
        assert db.execute("update posts set title = 'Another' where user_id = %s", (mine.user,)).rowcount == 4
        assert db.execute("delete from posts where user_id = %s", (mine.user,)).rowcount == 4
        assert refused(db, "select from post_slugs")
        assert db.execute("select count(*) from get_posts_paginated(5)").fetchone() == (5,)
    # Whoever sees no account but his own publishes for others, too, if he may.
    with acting(db, guarded, "b44_readwrite", user_id=mine.user, role="moderator"):
        publish = "update posts set published = true where user_id = %s and not published"
        assert db.execute(publish, (mine.other,)).rowcount == 1
    db.execute("update users set email_verified = false where id = %s", (mine.user,))
    with acting(db, guarded, "b44_readwrite", user_id=mine.user), pytest.raises(errors.CheckViolation):
        write_post(db, mine.user, published=True)


def test_an_application_that_is_the_owner_is_held_to_the_policies_where_they_are_forced(
    guarded: Session, db: Db, mine: Mine
) -> None:
    owner = sql.Identifier(f"owner_{uuid.uuid4().hex}")
    db.execute(sql.SQL("create role {} in role b44_readwrite").format(owner))
    db.execute(sql.SQL("grant create on schema public, b44 to {}").format(owner))
    for table in (*PERSONAL, "post_slugs"):
        db.execute(sql.SQL("alter table {} owner to {}").format(sql.Identifier(table), owner))
    for (function,) in db.execute(
        "select oid::regprocedure::text from pg_proc where prosecdef and pronamespace in (%s::regnamespace, %s::regnamespace)",
        ("public", "b44"),
    ).fetchall():
        db.execute(sql.SQL("alter function {} owner to {}").format(sql.SQL(function), owner))
    db.execute("select set_config('b44.user_id', %s, true)", (str(mine.user),))

    def seen() -> dict[str, tuple[int, int]]:
        with db.transaction(force_rollback=True):
            db.execute(sql.SQL("set local session authorization {}").format(owner))
            return {table: owners_seen(db, table, mine) for table in PERSONAL}

    free = seen()
    assert all(others > 0 for _, others in free.values())
    for table in PERSONAL:
        db.execute(sql.SQL("alter table {} force row level security").format(sql.Identifier(table)))
    bound = seen()
    with acting(db, guarded, "b44_readwrite", user_id=mine.user):
        assert bound == {table: owners_seen(db, table, mine) for table in PERSONAL}
    assert bound != free
    with db.transaction(force_rollback=True):
        db.execute(sql.SQL("set local session authorization {}").format(owner))
        write_post(db, mine.user, published=True)
        with pytest.raises(errors.InsufficientPrivilege):
            write_post(db, mine.other, published=False)


def test_partitions_that_are_made_later_are_closed_and_rows_move_to_them(guarded: Session, db: Db, mine: Mine) -> None:
    db.execute(
        "insert into posts (user_id, title, content, created_by, created_at)"
        " values (%(user)s, 'Old', 'Long enough.', %(user)s, '1999-05-05')",
        {"user": mine.other},
    )
    (made,) = db.execute("select b44.create_partition('posts', 'month', '1999-05-05')").fetchone() or ("",)
    assert db.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(made))).fetchone() == (1,)
    assert db.execute("select relrowsecurity from pg_class where oid = %s::regclass", (made,)).fetchone() == (True,)
    assert db.execute("select relrowsecurity from pg_class where oid = 'posts_default'::regclass").fetchone() == (True,)
    # Whatever somebody grants on it.
    db.execute(sql.SQL("grant all on {} to b44_readonly").format(sql.Identifier(made)))
    with acting(db, guarded, "b44_readonly"):
        assert db.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(made))).fetchone() == (0,)


def test_a_dropped_policy_is_drift_until_the_next_migration(guarded: Session) -> None:
    with psycopg.connect(guarded.url, autocommit=True) as conn:
        conn.execute("drop policy audit_logs_own on audit_logs")
    assert "policy audit_logs.audit_logs_own is missing" in schema_drift(guarded).message()
    (spec,) = guarded.catalog.on("audit_logs", Kind.POLICY)
    assert apply_policies(guarded, spec).created == ("audit_logs_own",)
    assert not [line for line in schema_drift(guarded).differences if "policy" in line]


class AsReader(Session):
    """A session with the rights of people."""

    @contextmanager
    def connection(self, purpose: str, *, idles: bool = False, replica: bool = False) -> Generator[Connection]:
        with super().connection(purpose, idles=idles, replica=replica) as conn:
            conn.execute("set row_security = on")
            conn.execute("set role b44_readonly")
            yield conn


def test_queries_of_people_prune_and_use_their_indexes_but_for_what_may_leak(guarded: Session) -> None:
    with psycopg.connect(guarded.url, autocommit=True) as conn:
        conn.execute("analyze posts")
        # Which the question asks itself.
        conn.execute("grant execute on all functions in schema b44 to b44_readonly")
    plans = query_plans(AsReader(guarded.url, guarded.catalog), "posts").plans
    assert len(plans) > 8
    without = {plan.name for plan in plans if plan.meant and not plan.chosen and not plan.usable}
    # Under policies, PostgreSQL asks an index only by what is leakproof, as `@>`, `@@` and the parts of a date are not.
    assert without == {"posts_by_tag", "posts_by_title", "posts_by_content", "posts_by_calendar_month"}
    assert [plan.wrongly_read for plan in plans if plan.wrongly_read] == []
