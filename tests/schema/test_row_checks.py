"""Checks of an app's own: rows that break a rule are counted and shown, and one that cannot be made says why."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import psycopg
import pytest

from b44_assets.catalog import Catalog, RowCheck, load_catalog
from b44_assets.schema.row_checks import SAMPLE_ROWS, Violations, violations
from b44_assets.session import Session

HEADER = "-- Every price is above nothing. Correct it.\n-- on: goods\n"


def check_of(root: Path, query: str) -> tuple[Catalog, RowCheck]:
    for folder, text in (("tables", "-- Goods.\ncreate table if not exists goods ();\n"), ("checks", HEADER + query)):
        (root / folder).mkdir()
        (root / folder / ("goods.sql" if folder == "tables" else "prices.sql")).write_text(text)
    catalog = load_catalog(root)
    return catalog, catalog.checks["prices"]


def judged(url: str, root: Path, query: str, *statements: str) -> Violations:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create table goods (id int primary key, price numeric, note text)")
        for statement in statements:
            conn.execute(statement.encode())
    catalog, check = check_of(root, query)
    return violations(Session(url, catalog, attempts=1), check)


def test_rows_are_counted_and_the_first_ones_shown(database: str, tmp_path: Path) -> None:
    verdict = judged(
        database,
        tmp_path,
        "select id, price from goods where price <= 0 order by id; -- nothing more",
        "insert into goods select n, 1 - n from generate_series(0, 1000) n",
    )
    assert (verdict.passed, verdict.count, len(verdict.sample)) == (False, 1000, SAMPLE_ROWS)
    assert verdict.sample[1] == {"id": "2", "price": "-1"}
    assert verdict.message() == (
        "1,000 violations (id 1, price 0; id 2, price -1; id 3, price -2; and 997 more) of the rule:"
        " Every price is above nothing. Correct it."
    )


def test_no_violation_passes(database: str, tmp_path: Path) -> None:
    verdict = judged(database, tmp_path, "select id from goods where price <= 0", "insert into goods values (1, 1)")
    assert (verdict.passed, verdict.count, verdict.sample, verdict.message()) == (True, 0, (), "no violations")


@pytest.mark.parametrize(
    ("query", "expected"),
    [
        ("select price, note, id from goods", {"price": "NaN", "note": None, "id": "1"}),
        ("select 'infinity'::timestamptz as at, 0.10 as x", {"at": "infinity", "x": "0.10"}),
        ("select '{b,a}'::text[] as \"Tags {}\", '50 %' as share", {"Tags {}": '["b","a"]', "share": "50 %"}),
        ("with g as (select * from goods) select id from g -- of all", {"id": "1"}),
        ("select from goods", {}),
    ],
)
def test_values_are_shown_as_text_by_their_columns(
    database: str, tmp_path: Path, query: str, expected: Mapping[str, str | None]
) -> None:
    verdict = judged(database, tmp_path, query, "insert into goods values (1, 'NaN')")
    assert (verdict.count, [list(row.items()) for row in verdict.sample]) == (1, [list(expected.items())])


def test_a_message_is_one_line_whatever_the_values_are(database: str, tmp_path: Path) -> None:
    verdict = judged(
        database, tmp_path, "select note from goods", "insert into goods values (1, 0, E'a\\n b' || repeat('x', 1000))"
    )
    assert (
        verdict.message() == f"1 violation (note a b{'x' * 56}…) of the rule: Every price is above nothing. Correct it."
    )


@pytest.mark.parametrize(
    ("query", "reason"),
    [
        ("select id\n  from nowhere", 'relation "nowhere" does not exist'),
        ("select 1 / (id - 1) from goods", "division by zero"),
        ("select set_price(id) from goods", "cannot execute UPDATE in a read-only transaction"),
        (
            "with gone as (delete from goods returning id) select id from gone",
            "WITH clause containing a data-modifying",
        ),
    ],
)
def test_a_check_that_cannot_be_made_does_not_pass_and_says_why(
    database: str, tmp_path: Path, query: str, reason: str
) -> None:
    verdict = judged(
        database,
        tmp_path,
        query,
        "insert into goods values (1, 1)",
        "create function set_price(int) returns int language sql as 'update goods set price = 2 returning id'",
    )
    assert (verdict.passed, verdict.count) == (False, 0)
    assert verdict.message().startswith(f"{tmp_path}/checks/prices.sql:3: {reason}")
    with psycopg.connect(database) as conn:
        assert conn.execute("select id, price from goods").fetchall() == [(1, 1)]
