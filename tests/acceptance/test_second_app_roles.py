"""Roles of the second app: for each and for every relation, what is not in the files is tried and refused."""

from __future__ import annotations

from collections.abc import Generator
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import STANDARD_ROLES, Catalog, Kind, load_catalog
from tests.helpers.migrated_apps import App as Shop
from tests.helpers.tried_rights import allowed, may, standard_rights

Db = psycopg.Connection[Any]
CLERK = "shop_clerk"


@pytest.fixture
def db(shop: Shop) -> Generator[Db]:
    """A superuser's session, in a transaction that is rolled back."""
    with psycopg.connect(shop.url) as conn:
        yield conn
        conn.rollback()


@pytest.fixture
def catalog(shop: Shop) -> Catalog:
    return load_catalog(shop.sql)


def test_each_role_may_do_on_each_table_and_view_what_the_files_say_and_nothing_else(db: Db, catalog: Catalog) -> None:
    for spec in catalog.of(Kind.TABLE, Kind.VIEW):
        expected = standard_rights(spec.options.get("access", "write")) | {
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


def test_each_role_may_call_what_changes_something_only_where_a_header_says_so(db: Db, catalog: Catalog) -> None:
    by_header = {
        (spec.options["execute"], spec.name) for spec in catalog.of(Kind.FUNCTION) if "execute" in spec.options
    }
    found = db.execute(
        "select r.role, p.oid::regprocedure::text from unnest(%s::text[]) r (role) cross join pg_proc p"
        " where p.pronamespace::regnamespace::text in ('public', 'b44', 'migration')"
        " and (p.provolatile = 'v' or p.prosecdef) and has_function_privilege(r.role, p.oid, 'execute')"
        " and not exists (select from pg_depend d where d.objid = p.oid and d.deptype = 'e')",
        ([*STANDARD_ROLES, CLERK],),
    ).fetchall()
    assert set(found) - by_header == {("b44_migrator", "b44.migrate_batch(text,integer)")}
