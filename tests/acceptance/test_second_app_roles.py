"""Roles of the second app: for each and for every relation, what is not in the files is tried and refused."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any, LiteralString

import psycopg
import pytest
from psycopg import errors, sql

from b44_assets.catalog import STANDARD_ROLES, Catalog, Kind, load_catalog
from tests.helpers.migrated_apps import App as Shop

Db = psycopg.Connection[Any]
CLERK = "shop_clerk"
TRIES: dict[str, LiteralString] = {
    "SELECT": "select t from {} t limit 1",
    "INSERT": "insert into {} default values",
    "DELETE": "delete from {}",
    "TRUNCATE": "truncate {}",
}
# By the header `access` of a table: what members may do who write, and who read.
OF_HEADER = {
    "write": ({"SELECT", "INSERT", "DELETE"}, {"SELECT"}),
    "append": ({"SELECT", "INSERT"}, {"SELECT"}),
    "read": ({"SELECT"}, {"SELECT"}),
    "none": (set[str](), set[str]()),
}


@pytest.fixture
def db(shop: Shop) -> Generator[Db]:
    """A superuser's session, in a transaction that is rolled back."""
    with psycopg.connect(shop.url) as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def catalog(shop: Shop) -> Catalog:
    return load_catalog(shop.sql)


def allowed(conn: Db, role: str, statement: sql.Composed | str) -> bool:
    """Whether a role is let try: what it runs into later, such as a missing value, is not asked."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
            conn.execute(statement.encode() if isinstance(statement, str) else statement)
    except (errors.InsufficientPrivilege, errors.WrongObjectType):
        return False
    except (
        errors.IntegrityError,
        errors.FeatureNotSupported,
        errors.RaiseException,
        errors.ObjectNotInPrerequisiteState,
    ):
        return True
    return True


def may(conn: Db, role: str, relation: str) -> set[str]:
    return {word for word, text in TRIES.items() if allowed(conn, role, sql.SQL(text).format(sql.Identifier(relation)))}


def test_each_role_may_do_on_each_table_and_view_what_the_files_say_and_nothing_else(db: Db, catalog: Catalog) -> None:
    for spec in catalog.of(Kind.TABLE, Kind.VIEW):
        writes, reads = OF_HEADER[spec.options.get("access", "write")]
        expected: dict[str, set[str]] = {
            "b44_owner": set(),
            "b44_monitor": set(),
            "b44_migrator": {"SELECT", "INSERT", "DELETE"},
            "b44_readwrite": writes,
            "b44_readonly": reads,
            CLERK: {"SELECT"}
            if spec.name in ("products", "purchases", "order_lines") or spec.kind is Kind.VIEW
            else set(),
        }
        for role, wanted in expected.items():
            found = may(db, role, spec.name)
            if spec.kind is Kind.VIEW:
                # That one cannot be written to is said before it is asked who may.
                found, wanted = found & {"SELECT"}, wanted & {"SELECT"}
            assert found <= wanted, (role, spec.name, found)
            assert ("SELECT" in found) == ("SELECT" in wanted), (role, spec.name)


def test_no_role_gets_round_the_tables_by_a_partition_or_what_the_migration_keeps(db: Db) -> None:
    closed = [
        *db.execute("select 'public', relname from pg_class where relispartition and relkind = 'r'").fetchall(),
        ("migration", "quarantine"),
        ("migration", "repairs"),
        ("migration", "unmapped"),
        *db.execute(
            "select 'base44', relname from pg_class where relnamespace = 'base44'::regnamespace and relkind = 'r'"
        ),
    ]
    assert len(closed) > 8
    let_by = [
        (role, name)
        for role in (*STANDARD_ROLES, CLERK)
        for schema, name in closed
        if allowed(db, role, sql.SQL("select from {} limit 1").format(sql.Identifier(schema, name)))
    ]
    # Whoever migrates corrects what was refused.
    assert sorted(let_by) == [("b44_migrator", name) for name in ("quarantine", "repairs", "unmapped")]


@pytest.mark.parametrize(
    "statement",
    [
        "select email from customers",
        "select * from customers",
        "update purchases set stage = stage, customer_id = customer_id",
        "insert into reviews default values",
        "select b44.create_partition('purchases', 'month', '2001-02-03')",
        "create table mine ()",
        "alter table products add column mine int",
        "drop view open_purchases",
    ],
)
def test_the_clerk_reads_no_address_and_writes_nothing_but_the_stage(db: Db, statement: str) -> None:
    assert not allowed(db, CLERK, statement)


def test_the_clerk_does_its_work(db: Db) -> None:
    assert allowed(db, CLERK, "select id, full_name from customers")
    assert allowed(db, CLERK, "update purchases set stage = 'shipped'")
