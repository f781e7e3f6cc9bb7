"""An app that shares no table with the one in `sql/`, carried by the same program: `examples/shop`."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import dagster as dg
import psycopg
import pytest

from b44_assets.backup.encryption import Key
from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import build_definitions
from b44_assets.schema.drift import schema_drift
from b44_assets.session import Session
from tests.helpers.command import Command
from tests.helpers.database_contents import rows, value
from tests.helpers.ledger_app import write_app
from tests.helpers.migrated_apps import SHOP as APP
from tests.helpers.migrated_apps import App as Shop
from tests.helpers.paths import REPOSITORY

TRUTH: dict[str, Any] = json.loads((APP / "export" / "truth.json").read_text(encoding="utf-8"))
TABLES = ("customers", "products", "purchases", "reviews", "order_lines")


def test_every_record_becomes_what_its_truth_says(shop: Shop) -> None:
    assert (shop.result.status, shop.result.complaints) == (0, [])
    assert shop.result.report["entities"] == TRUTH["entities"]
    assert shop.result.report["checks"]["failed"] == shop.result.report["checks"]["warned"] == 0
    wanted = TRUTH["values"]
    found = {
        "customers": "select email, handle, full_name, points from customers where handle <> 'counter'",
        "products": "select p.sku, p.page, p.price_cents, m.sku, p.listed from products p left join products m on m.id = p.parent_id",
        "lines": "select to_char(b.purchased_at, 'YYYY-MM-DD'), l.\"order\", p.sku, l.quantity from order_lines l"
        " join purchases b on b.id = l.purchase_id join products p on p.id = l.product_id",
        "ratings": "select p.sku, r.reviews, r.stars::float from product_ratings r join products p on p.id = r.product_id",
    }
    for what, query in found.items():
        assert sorted(map(list, rows(shop.url, query)), key=str) == sorted(wanted[what], key=str), what
    partitions = dict(rows(shop.url, "select tableoid::regclass::text, count(*) from purchases group by 1"))
    assert partitions == {f"purchases_{month.replace('-', '_')}": n for month, n in TRUTH["months"].items()}
    assert "<script" not in value(shop.url, "select string_agg(body, '') from reviews")


def test_all_that_the_folder_describes_is_there_and_nothing_of_another_app(shop: Shop) -> None:
    relations = {
        name
        for (name,) in rows(
            shop.url,
            "select relname from pg_class c where relnamespace = 'public'::regnamespace and not relispartition"
            " and relkind in ('r', 'p', 'm', 'v')",
        )
    }
    assert relations == {*TABLES, "product_ratings", "open_purchases"}
    for index in ("idx_purchases_customer", "idx_order_lines_product", "idx_products_parent"):
        assert value(shop.url, "select indisvalid from pg_index where indexrelid = to_regclass(%s)", index) is True
    assert value(shop.url, "select count(*) from pg_constraint where conname ~ '^fk_' and conparentid = 0") == 5


CLERK = "set role shop_clerk"


def test_a_clerk_sees_and_does_what_the_files_say(shop: Shop) -> None:
    assert value(shop.url, "select count(*) from purchases where stage = 'returned'") == 1
    with psycopg.connect(shop.copy(), autocommit=True) as conn:
        conn.execute(CLERK)
        returned = conn.execute("select count(*), count(*) filter (where stage = 'returned') from purchases").fetchone()
        assert returned == (6, 0)
        for forbidden in (
            "select email from customers",
            "update purchases set stage = 'returned' where stage = 'paid'",
            "delete from purchases",
            "select from purchases_2025_12",
        ):
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                conn.execute(forbidden.encode())
        assert conn.execute("select count(*) from open_purchases").fetchone() == (5,)
        assert conn.execute("update purchases set stage = 'shipped' where stage = 'paid'").rowcount == 4
        assert conn.execute("select count(*) from open_purchases").fetchone() == (1,)


@pytest.mark.parametrize(
    ("statement", "said"),
    [
        ("revoke update (stage) on purchases from shop_clerk", "GRANT UPDATE (stage) ON TABLE purchases TO shop_clerk"),
        ("alter table reviews owner to shop_clerk", "table reviews belongs to shop_clerk, the others to"),
        ("drop policy purchases_sent on purchases", "policy purchases.purchases_sent is missing"),
        ("alter table purchases disable row level security", "table purchases: row-level security is false, sql/ says true"),
        ("alter table purchases_default disable row level security", "partition purchases_default is without"),
        ("create or replace view open_purchases as select id, purchased_at, total_cents, ''::text as full_name from purchases",
         "table open_purchases: options is nothing, sql/ says security_invoker=true; table open_purchases: query is"),
    ],
)  # fmt: skip
@pytest.mark.long
def test_what_somebody_changes_of_roles_policies_owners_and_views_is_found(
    shop: Shop, statement: str, said: str
) -> None:
    url = shop.copy()
    session = Session(url, load_catalog(APP / "sql"))
    assert schema_drift(session).passed
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(statement.encode())
    verdict = schema_drift(session)
    assert (verdict.passed, verdict.only_restricting) == (False, False)
    assert said in verdict.message()


def test_a_changed_value_is_found_and_a_row_of_the_table_s_own_file_is_no_record(shop: Shop) -> None:
    url = shop.copy()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("delete from customers where handle = 'counter'")
        assert shop.b44.on(url)("verify").status == 0
        conn.execute('update order_lines set quantity = quantity + 1 where "order" = 2')
        conn.execute("revoke select on order_lines from shop_clerk")
    result = shop.b44.on(url)("verify")
    assert result.status == 1
    assert "order_lines content_parity" in result.err
    assert "differs in quantity" in result.err
    assert "GRANT SELECT ON TABLE order_lines TO shop_clerk" in result.err


def test_rules_hold_for_the_application_and_let_the_migration_by(shop: Shop) -> None:
    # One migrated review is of a product that is off the market.
    assert (
        value(shop.url, "select count(*) from reviews r join products p on p.id = r.product_id where not p.listed") == 1
    )
    review = "insert into reviews (product_id, customer_id, stars) select p.id, c.id, 4 from products p, customers c"
    with psycopg.connect(shop.copy(), autocommit=True) as conn:
        conn.execute(f"{review} where p.listed and c.handle = 'ada'".encode())
        with pytest.raises(psycopg.errors.CheckViolation, match="not on sale"):
            conn.execute(f"{review} where not p.listed and c.handle = 'ada'".encode())


@pytest.fixture
def newer(tmp_path: Path) -> Path:
    """A later export: two customers have exchanged their addresses, a purchase has gone, one is new, a product is dearer."""
    folder = tmp_path / "newer"
    shutil.copytree(APP / "export" / "json", folder)

    def change(entity: str, how: Callable[[list[dict[str, Any]]], object]) -> None:
        file = folder / f"{entity}.json"
        records = json.loads(file.read_text(encoding="utf-8"))
        how(records)
        file.write_text(json.dumps(records), encoding="utf-8")

    changed = {"updated_date": "2026-03-01T00:00:00"}

    def exchange(records: list[dict[str, Any]]) -> None:
        one, other = records[1], records[2]
        one["email"], other["email"] = other["email"], one["email"]
        one.update(changed)
        other.update(changed)

    change("Customer", exchange)
    change("Product", lambda records: records[3].update(changed, price="52.00"))
    change("Purchase", lambda records: records.pop(3))
    change(
        "Purchase", lambda records: records.append(records[0] | {"id": "new", "purchased_at": "2026-02-02T00:00:00Z"})
    )
    return folder


@pytest.mark.long
def test_a_later_export_changes_what_has_changed_and_can_be_taken_back(shop: Shop, newer: Path) -> None:
    url = shop.copy()
    on = shop.b44.on(url)
    held = "select id, email, handle from customers union all select id, sku, price_cents::text from products"
    before = set(rows(url, held))
    result = on("migrate", "--export", newer, "--json")
    assert (result.status, result.report["checks"]["failed"]) == (0, 0)
    assert dict(rows(url, "select full_name, email from customers where full_name like 'Bo %%'")) == {
        "Bo Larch": "bo@example.com",
        "Bo Birch": "bo@example.org",
    }
    assert value(url, "select price_cents from products where sku = 'LAMP'") == 5200
    assert value(url, "select count(*) from purchases_2026_02") == 1
    # What the export has no more is named, and stays.
    assert rows(url, "select entity, kind from migration.conflicts") == []
    assert value(url, "select vanished from migration.plans where entity = 'purchases'") == 1
    assert value(url, "select count(*) from purchases") == 8
    run_id = value(url, "select run_id from migration.migration_log order by batch_number desc limit 1")
    assert on("rollback", "--run", run_id).status == 0
    assert set(rows(url, held)) == before
    assert value(url, "select count(*) from purchases") == 7


@pytest.mark.long
def test_the_migration_is_finished(shop: Shop, tmp_path: Path) -> None:
    url = shop.copy()
    (tmp_path / "key").write_text(Key.generate().secret)
    on = shop.b44.having(B44_BACKUP_URL=str(tmp_path / "store"), B44_BACKUP_KEY=str(tmp_path / "key")).on(url)
    assert on("finish", "--accept-quarantine", "--yes").status == 0
    assert value(url, "select to_regnamespace('migration') is null and to_regnamespace('base44') is null")
    result = on("verify", "--json")
    assert (result.status, result.report["checks"]["failed"]) == (0, 0), result


def test_tables_dropped_by_hand_leave_a_migrated_database_behind_and_a_new_one_is_none(shop: Shop) -> None:
    url = shop.copy()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("drop schema migration cascade")
        assert "dropped by hand" in shop.b44.on(url)("status").out
        # What the folder itself puts there was not migrated.
        conn.execute(
            "delete from reviews; delete from order_lines; delete from purchases; delete from products;"
            " delete from customers where handle <> 'counter'"
        )
        assert "dropped by hand" not in shop.b44.on(url)("status").out
        assert value(url, "select count(*) from customers") == 1


def definitions_of(folder: Path, directory: Path) -> dg.Definitions:
    return build_definitions(Settings.load(environ={"B44_SQL_DIR": str(folder)}, directory=directory))


def test_its_assets_checks_and_months_are_those_of_its_files(tmp_path: Path) -> None:
    definitions = definitions_of(APP / "sql", tmp_path)
    dg.Definitions.validate_loadable(definitions)
    specs = {spec.key.to_user_string(): spec for spec in definitions.resolve_all_asset_specs()}
    files = {
        path.stem for path in (APP / "sql").glob("*/*.sql") if path.parent.name not in ("mappings", "checks", "queries")
    }
    assert files <= specs.keys()
    assert {f"base44/{name}" for name in (*TABLES, "other_entities")} == {
        key for key in specs if key.startswith("base44/")
    }
    assert not {
        key for key in specs if key.split("/")[-1] in {path.stem for path in (REPOSITORY / "sql").glob("*/*.sql")}
    }
    assert {dep.asset_key.to_user_string() for dep in specs["order_lines"].deps} >= {"purchases", "products"}
    months = specs["purchases"].partitions_def
    assert isinstance(months, dg.MonthlyPartitionsDefinition)
    # From the table's own file.
    assert months.get_first_partition_key() == "2025-11"
    assert [key for key, spec in specs.items() if spec.partitions_def is not None and key != "purchases"] == []
    checks = {(key.asset_key.to_user_string(), key.name) for key in definitions.resolve_asset_graph().asset_check_keys}
    for table in TABLES:
        assert {(table, "row_parity"), (table, "content_parity"), (table, "foreign_keys_hold")} <= checks
    assert ("purchases", "ids_unique") in checks
    assert {name for asset, name in checks if asset == "open_purchases"} == set()
    assert ("products", "variants_of_products") in checks
    assert {dep.asset_key.to_user_string() for dep in specs["shop_clerk"].deps} >= {
        "purchases_policies",
        "open_purchases",
    }
    assert [specs[name].group_name for name in ("shop_clerk", "purchases_policies")] == ["roles", "policies"]
    assert definitions.resolve_job_def("migrate_everything").asset_layer.asset_graph.get_all_asset_keys()


def test_a_folder_of_one_table_and_one_mapping_is_an_app(target: str, shop_command: Command, tmp_path: Path) -> None:
    write_app(tmp_path / "app", 1)
    (tmp_path / "export").mkdir()
    records = [{"id": f"{number:024x}", "remark": "x", "created_date": "2026-01-01T00:00:00"} for number in range(1, 4)]
    (tmp_path / "export" / "Ledger00.json").write_text(json.dumps([*records, records[0] | {"id": ""}]))
    on = shop_command.having(B44_SQL_DIR=str(tmp_path / "app")).on(target)
    result = on("migrate", "--export", tmp_path / "export", "--json")
    assert result.status == 0, result
    assert result.report["checks"]["failed"] == 0
    assert result.report["entities"]["ledger_00"]["migrated"] == 3
    assert result.report["entities"]["ledger_00"]["reasons"] == {"missing_id": 1}
    assert value(target, "select count(*) from ledger_00") == 3
    assert on("verify").status == 0


def test_an_app_of_sixty_tables_is_loaded(tmp_path: Path) -> None:
    names = write_app(tmp_path / "app", 60)
    definitions = definitions_of(tmp_path / "app", tmp_path)
    dg.Definitions.validate_loadable(definitions)
    graph = definitions.resolve_asset_graph()
    keys = {key.to_user_string() for key in graph.get_all_asset_keys()}
    assert {*names, *(f"base44/{name}" for name in names)} <= keys
    assert len({check.asset_key.to_user_string() for check in graph.asset_check_keys} & set(names)) == 60
    for one, next_one in pairwise(names):
        assert dg.AssetKey(one) in graph.get(dg.AssetKey(next_one)).parent_keys
