"""`b44 migrate --table`, `--month` and `--leave-out`: a part of the graph, and what it needs of the rest."""

from __future__ import annotations

import pytest

from tests.helpers.command import Command
from tests.helpers.database_contents import rows, value
from tests.helpers.migrated_apps import SHOPS, App


@pytest.mark.parametrize("shop", SHOPS[:1], ids=["pg18"], indirect=True)
def test_a_table_and_a_month_are_migrated_alone_and_the_rest_follows(shop: App) -> None:
    target = shop.empty()
    b44 = shop.b44.on(target)
    export = ("--export", shop.export, "--json")
    wanted = shop.result.report["entities"]

    early = b44("migrate", "--table", "purchases", *export)
    assert early.status == 2
    assert "purchases reads customers, of which nothing is migrated yet: add --table customers" in early.fault

    customers = b44("migrate", "--table", "customers", *export)
    assert customers.status == 0, customers
    assert customers.report["entities"] == {"customers": wanted["customers"]}

    months = "select to_char(purchased_at at time zone 'UTC', 'YYYY-MM'), count(*) from purchases group by 1 order by 1"
    month, count = rows(shop.url, months)[1]
    one = b44("migrate", "--table", "purchases", "--month", month, *export)
    assert one.status == 0, one
    assert "notice: purchases reads customers as the database has them now" in one.err
    assert rows(target, months) == [(month, count)]

    rest = b44("migrate", "--leave-out", "reviews", *export)
    assert rest.status == 0, rest
    assert rest.report["entities"] == {name: found for name, found in wanted.items() if name != "reviews"}
    assert value(target, "select to_regclass('reviews') is null or not exists (select from reviews)")


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (("--table", "nobody"), "--table: no table nobody; there are ledger_00"),
        (("--table", "ledger_00", "--leave-out", "ledger_01"), "either"),
        (("--month", "2026-01"), "add --table"),
        (("--table", "ledger_00", "--month", "2026-01"), "ledger_00 has no partition for each month"),
        (
            ("--leave-out", "ledger_00"),
            "ledger_01 reads ledger_00, of which nothing is migrated yet: --leave-out ledger_01",
        ),
    ],
)
def test_what_cannot_be_selected_is_one_line(
    options: tuple[str, ...], said: str, small: Command, target: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    export = tmp_path_factory.mktemp("export")
    (export / "Ledger00.csv").write_text("id\n1\n")

    result = small.on(target)("migrate", *options, "--export", export)

    assert (result.status, said in result.fault) == (2, True), result
