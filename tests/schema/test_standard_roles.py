"""The group roles of every database: what they may do, what they may not, and how one does without them."""

from __future__ import annotations

import tempfile
import uuid
from collections.abc import Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors, sql
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.model import BackupKind
from b44_assets.backup.restoring import restore_logical
from b44_assets.backup.store import Store
from b44_assets.backup.taking import take
from b44_assets.catalog import STANDARD_ROLES, Catalog, Kind, load_catalog
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.schema.build import build
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.runtime import install_runtime
from b44_assets.schema.standard_roles import install_standard_roles
from b44_assets.session import Session
from tests.helpers.databases import create_database, database_url
from tests.helpers.schema_templates import Templates
from tests.helpers.tried_rights import may
from tests.helpers.workers import scratch_folder

Db = psycopg.Connection[Any]
SHOP = Path(__file__).resolve().parents[2] / "examples" / "shop" / "sql"
OF_HEADER = {
    "write": ("SELECT,INSERT,UPDATE,DELETE", "SELECT"),
    "append": ("SELECT,INSERT", "SELECT"),
    "read": ("SELECT", "SELECT"),
    "none": ("", ""),
}
PRIVILEGES = ("SELECT", "INSERT", "UPDATE", "DELETE", "TRUNCATE", "REFERENCES", "TRIGGER")


@pytest.fixture(scope="module")
def governed(templates: Templates, catalog: Catalog) -> Generator[Session]:
    """A session on a copy of the whole schema, with the group roles."""
    name = f"governed_{uuid.uuid4().hex}"
    with psycopg.connect(templates.server_url, autocommit=True) as conn:
        create_database(conn, name, templates.built)
        session = Session(database_url(templates.server_url, name), catalog)
        install_standard_roles(session)
        yield session
        conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def db(governed: Session) -> Generator[Db]:
    """A session of the owner, in a transaction that is rolled back."""
    with psycopg.connect(governed.url) as conn:
        yield conn
        conn.rollback()


def rights(conn: Db, role: str, relation: str) -> set[str]:
    found = conn.execute(
        "select p from unnest(%s::text[]) p where has_table_privilege(%s, %s, p)", ([*PRIVILEGES], role, relation)
    ).fetchall()
    return {name for (name,) in found}


def test_each_role_has_on_each_table_and_view_what_the_header_says_and_nothing_on_partitions(
    governed: Session, db: Db
) -> None:
    for spec in governed.catalog.of(Kind.TABLE, Kind.VIEW):
        view = spec.kind is Kind.VIEW
        writes, reads = OF_HEADER[spec.options.get("access", "write")]
        expected: dict[str, str] = {
            "b44_owner": "",
            "b44_monitor": "",
            "b44_migrator": "SELECT,INSERT,UPDATE,DELETE",
            "b44_readwrite": writes,
            "b44_readonly": reads,
        }
        for role, wanted in expected.items():
            given = set(filter(None, wanted.split(","))) & ({"SELECT"} if view else set(PRIVILEGES))
            assert rights(db, role, spec.name) == given, (role, spec.name)
            # Nor does it get further where it tries; policies let it do less. That a view cannot be written to is said to all.
            tried = may(db, role, spec.name) & {"SELECT"} if view else may(db, role, spec.name)
            assert tried <= given, (role, spec.name)
    partitions = [
        name
        for (name,) in db.execute("select oid::regclass::text from pg_class where relispartition and relkind = 'r'")
    ]
    assert len(partitions) > 6
    assert {(role, name) for role in STANDARD_ROLES for name in partitions if rights(db, role, name)} == set()


def test_no_role_has_powers_and_the_one_for_monitoring_sees_the_server_and_no_record(governed: Session, db: Db) -> None:
    powers = db.execute(
        "select rolname from pg_roles where rolname = any(%s) and not"
        " (rolcanlogin or rolsuper or rolcreaterole or rolcreatedb or rolreplication or rolbypassrls)",
        ([*STANDARD_ROLES],),
    ).fetchall()
    assert {name for (name,) in powers} == set(STANDARD_ROLES)
    db.execute("set role b44_monitor")
    for readable in (
        *("migration.accounting", "migration.progress", "migration.migration_log", "migration.unmapped_entities"),
        *("migration.quarantined_by_reason", "migration.repaired_by_column", "b44.check_results", "pg_stat_activity"),
    ):
        db.execute(sql.SQL("select from {} limit 1").format(sql.Identifier(*readable.split("."))))
    assert db.execute("select pg_has_role('pg_monitor', 'USAGE')").fetchone() == (True,)
    refused: list[str] = []
    for kept in ("migration.quarantine", "migration.repairs", "migration.unmapped", "base44.users", "users"):
        try:
            with db.transaction():
                db.execute(sql.SQL("select from {}").format(sql.Identifier(*kept.split("."))))
        except errors.InsufficientPrivilege:
            refused.append(kept)
    assert len(refused) == 5


def test_what_is_made_later_is_covered_and_what_moves_to_a_new_partition_is_read_through_the_table(db: Db) -> None:
    db.execute("create table carts (id bigserial primary key)")
    assert rights(db, "b44_readwrite", "carts") == {"SELECT", "INSERT", "UPDATE", "DELETE"}
    assert rights(db, "b44_readonly", "carts") == {"SELECT"}
    db.execute("set local role b44_readwrite")
    db.execute("insert into carts default values")
    db.execute("reset role")
    (made,) = db.execute("select b44.create_partition('posts', 'month', '2001-02-03')").fetchone() or ("",)
    assert {role for role in STANDARD_ROLES if rights(db, role, made)} == set()


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("revoke select on users from b44_readonly", "GRANT SELECT ON TABLE public.users TO b44_readonly"),
        ("grant delete on audit_logs to b44_readwrite", "REVOKE DELETE ON TABLE public.audit_logs FROM b44_readwrite"),
        ("revoke execute on function migrate_users_batch from b44_migrator",
         "GRANT EXECUTE ON ROUTINE public.migrate_users_batch(integer) TO b44_migrator"),
        ("alter default privileges in schema public revoke select on tables from b44_readonly",
         "IN SCHEMA public GRANT SELECT ON TABLES TO b44_readonly"),
    ],
)  # fmt: skip
def test_a_right_that_was_taken_or_given_by_hand_is_drift_until_the_next_migration(
    governed: Session, statement: str, said: str
) -> None:
    with psycopg.connect(governed.url, autocommit=True) as conn:
        conn.execute(statement.encode())
        verdict = schema_drift(governed)
        assert (verdict.passed, verdict.only_restricting) == (False, False)
        assert said in verdict.message()
        conn.execute("grant select on posts_default to b44_readonly")
    install_standard_roles(governed)
    with psycopg.connect(governed.url) as conn:
        assert rights(conn, "b44_readonly", "posts_default") == set()
    assert [line for line in schema_drift(governed).differences if "group roles" in line] == []


@pytest.fixture
def acting(governed: Session, db: Db) -> Generator[tuple[Db, str]]:
    """A session of a login that is a member of nothing yet, in a transaction that is rolled back."""
    login = f"login_{uuid.uuid4().hex}"
    with psycopg.connect(governed.url) as conn:
        conn.execute(sql.SQL("create role {}").format(sql.Identifier(login)))
        yield conn, login
        conn.rollback()


def unverified_post(conn: Db, login: str, groups: Sequence[str]) -> None:
    """Publishes for an author who is not verified, as the migration may, by a member of some groups."""
    author = uuid.uuid4()
    conn.execute(
        "insert into users (id, email, username) values (%s, %s, %s)", (author, f"{author}@x.example", str(author))
    )
    for group in groups:
        conn.execute(sql.SQL("grant {} to {}").format(sql.Identifier(group), sql.Identifier(login)))
    conn.execute(sql.SQL("set local session authorization {}").format(sql.Identifier(login)))
    conn.execute(
        "select set_config('b44.migrating', pg_current_xact_id()::text, true), set_config('b44.role', 'service', true)"
    )
    conn.execute(
        "insert into posts (user_id, title, content, slug, published, published_at, created_by)"
        " values (%(author)s, 'A title', 'Long enough.', %(slug)s, true, now(), %(author)s)",
        {"author": author, "slug": str(author)},
    )


def test_membership_lets_a_migrator_pass_the_rules_and_nobody_else(acting: tuple[Db, str]) -> None:
    conn, login = acting
    with pytest.raises(errors.CheckViolation), conn.transaction():
        unverified_post(conn, login, ["b44_readwrite"])
    unverified_post(conn, login, ["b44_migrator"])


def test_a_migrator_moves_batches_without_a_right_on_the_migration_s_tables(acting: tuple[Db, str]) -> None:
    conn, login = acting
    conn.execute(sql.SQL("grant b44_migrator to {}").format(sql.Identifier(login)))
    conn.execute(sql.SQL("set local session authorization {}").format(sql.Identifier(login)))
    assert conn.execute("select migrate_users_batch(10)").fetchone() == (0,)
    with pytest.raises(errors.InsufficientPrivilege):
        conn.execute("update migration.plans set contested = 0")


# -- a server where there are no such roles ----------------------------------------------------------------------------


@pytest.fixture(scope="module")
def bare_server() -> Generator[EmbeddedServer]:
    """A server of this module's own, since roles are all databases'."""
    with tempfile.TemporaryDirectory(dir=scratch_folder(), prefix="b44-test-") as folder:
        server = EmbeddedServer(Path(folder) / "home")
        server.start()
        yield server
        server.stop("immediate")


@pytest.fixture
def bare(bare_server: EmbeddedServer) -> Generator[str]:
    """URL of an empty database on it, owned by a role that may not make roles; afterwards the server has none of ours."""
    name = f"bare_{uuid.uuid4().hex}"
    with psycopg.connect(bare_server.url("postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("create role {} login").format(sql.Identifier(name)))
        conn.execute(sql.SQL("create database {0} owner {0}").format(sql.Identifier(name)))
        try:
            yield database_url(bare_server.url("postgres"), name)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            for role in (*STANDARD_ROLES, name):
                conn.execute(sql.SQL("drop role if exists {}").format(sql.Identifier(role)))


SECURITY = (Path(__file__).resolve().parents[2] / "docs" / "security.md").read_text("utf-8")
GIVING_AWAY = SECURITY.partition("```sql\n-- As a superuser")[2].partition("```")[0].partition("\n")[2]
"""What the docs say to run, to give the tables to the owner role."""


def shop_of(url: str) -> tuple[Session, list[str]]:
    """A session on the tables and views of another app, by a role that owns the database, and what it is told."""
    said: list[str] = []
    catalog = load_catalog(SHOP)
    kinds = (Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE, Kind.MAPPING)
    some = replace(catalog, specs=tuple(spec for spec in catalog.specs if spec.kind in kinds))
    return Session(url, some, notice=said.append), said


def as_owner(url: str) -> str:
    return make_conninfo(url, options=f"-c role={conninfo_to_dict(url)['dbname']}")


def there(url: str) -> set[str]:
    with psycopg.connect(url) as conn:
        return {name for (name,) in conn.execute("select rolname from pg_roles where rolname like 'b44\\_%'")}


def test_where_roles_cannot_be_made_one_line_says_so_and_the_rest_works(bare: str) -> None:
    session, said = shop_of(as_owner(bare))
    install_runtime(session)
    for spec in session.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    assert there(bare) == set()
    (line,) = said
    assert all(f"CREATE ROLE {role}" in line for role in STANDARD_ROLES)
    assert schema_drift(session).passed
    # Somebody else has made them meanwhile; whoever migrates need not be able to.
    with psycopg.connect(bare, autocommit=True) as conn:
        for role in STANDARD_ROLES:
            conn.execute(f"create role {role}".encode())
    install_runtime(session)
    assert said[1:] == ["b44_monitor is no member of pg_monitor: have a superuser run GRANT pg_monitor TO b44_monitor"]
    assert schema_drift(session).passed
    with psycopg.connect(bare) as conn:
        assert rights(conn, "b44_readonly", "customers") == {"SELECT"}
        assert rights(conn, "b44_readonly", "purchases_default") == set()


def test_a_role_that_is_somebody_s_is_named_and_given_nothing(bare: str) -> None:
    with psycopg.connect(bare, autocommit=True) as conn:
        conn.execute("create role b44_readonly login")
        conn.execute("create role b44_migrator superuser")
    session, said = shop_of(bare)
    install_runtime(session)
    for spec in session.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    (line,) = said
    assert line.startswith("b44_migrator, b44_readonly can log in or has powers")
    with psycopg.connect(bare) as conn:
        assert rights(conn, "b44_readonly", "customers") == set()
        assert rights(conn, "b44_readwrite", "customers") == {"SELECT", "INSERT", "UPDATE", "DELETE"}
        assert conn.execute("select b44.is_member('b44_migrator', 'b44_migrator')").fetchone() == (False,)


def test_a_table_with_policies_is_closed_from_the_first_moment(bare: str) -> None:
    session = Session(bare, load_catalog(SHOP))
    install_runtime(session)
    for spec in session.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    with psycopg.connect(bare) as conn:
        secured = conn.execute(
            "select relname from pg_class where relnamespace = 'public'::regnamespace and relkind in ('r', 'p')"
            " and relrowsecurity order by 1"
        ).fetchall()
        assert secured == [("purchases",), ("purchases_default",)]
        assert rights(conn, "b44_readonly", "purchases") == {"SELECT"}


def test_a_role_that_was_dropped_is_drift_and_made_again(bare: str) -> None:
    session, said = shop_of(bare)
    install_runtime(session)
    for spec in session.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    with psycopg.connect(bare, autocommit=True) as conn:
        conn.execute("drop owned by b44_readonly")
        conn.execute("drop role b44_readonly")
    assert "role b44_readonly is missing (b44 migrate makes it)" in schema_drift(session).message()
    assert not install_runtime(session)
    assert (said, schema_drift(session).passed) == ([], True)


def test_a_backup_is_restored_with_its_rights_where_there_are_no_such_roles(
    embedded_database: str, bare: str, tmp_path: Path
) -> None:
    session, _ = shop_of(embedded_database)
    install_runtime(session)
    for spec in session.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    catalogue = Catalogue(Store.at(str(tmp_path / "store")))
    restore_logical(catalogue, take(BackupKind.LOGICAL, embedded_database, catalogue), bare)
    with psycopg.connect(bare) as conn:
        assert rights(conn, "b44_readonly", "customers") == {"SELECT"}
    restored, said = shop_of(bare)
    assert not install_runtime(restored)
    assert (said, schema_drift(restored).passed) == ([], True)


def test_tables_given_to_the_owner_role_are_migrated_by_its_members(bare: str) -> None:
    session, _ = shop_of(bare)
    install_runtime(session)
    for spec in session.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    with psycopg.connect(bare, autocommit=True) as conn:
        owner = conn.info.dbname
        conn.execute(GIVING_AWAY.replace("deploy", f'"{owner}"').encode())
    member, said = shop_of(make_conninfo(bare, user=owner))
    install_runtime(member)
    for spec in member.catalog.of(Kind.FUNCTION, Kind.TABLE):
        build(member, spec)
    assert said == []
    assert schema_drift(member).passed
    with psycopg.connect(bare) as conn:
        owners = conn.execute(
            "select distinct relowner::regrole::text from pg_class where relname = any(%s)",
            ([spec.name for spec in member.catalog.of(Kind.TABLE)],),
        ).fetchall()
        assert owners == [("b44_owner",)]
