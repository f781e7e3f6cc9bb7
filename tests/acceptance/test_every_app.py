"""What holds for any app, whatever its tables: the blog of `sql/` and the shop of `examples/shop` by the same tests."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup.encryption import Key
from b44_assets.catalog import Catalog, TableMapping, load_catalog
from b44_assets.schema.drift import schema_drift
from b44_assets.session import Session
from tests.helpers.database_contents import rows, value, versions_of_rows
from tests.helpers.migrated_apps import App
from tests.helpers.webhooks import webhook

# What changes a value of a type for certain.
CHANGES = {
    "text": "coalesce({0}, '') || 'x'",
    "integer": "coalesce({0}, 0) + 1",
    "boolean": "not coalesce({0}, false)",
    "jsonb": "jsonb_build_object('was', {0})",
}


def rows_of(url: str, catalog: Catalog) -> dict[str, set[str]]:
    """All rows of the tables that records are migrated into."""
    query = "select t::text from {} t"
    return {
        table: {row for (row,) in rows(url, sql.SQL(query).format(sql.Identifier(table)))}  # pyright: ignore[reportArgumentType]
        for table in catalog.mappings
    }


def plain_columns(conn: psycopg.Connection[Any], mapping: TableMapping) -> list[tuple[str, str]]:
    """Columns that may be changed without a trace: not the key, not a unique name, not generated."""
    suffix = mapping.unique_suffix
    kept = [mapping.key, *([suffix.column] if suffix else [])]
    return conn.execute(
        "select attname, atttypid::regtype::text from pg_attribute where attrelid = %s::regclass and attnum > 0"
        " and not attisdropped and attgenerated = '' and attname <> all(%s) and atttypid::regtype::text = any(%s) order by attnum",
        (mapping.spec.name, kept, [*CHANGES]),
    ).fetchall()


def changed_column(conn: psycopg.Connection[Any], mapping: TableMapping, key: object) -> str:
    """Changes the first column of a row that lets itself be changed, and says which."""
    table = mapping.spec.name
    for column, kind in plain_columns(conn, mapping):
        statement = sql.SQL("update {} set {} = {} where {} = %s").format(
            sql.Identifier(table),
            sql.Identifier(column),
            sql.SQL(CHANGES[kind]).format(sql.Identifier(column)),  # pyright: ignore[reportArgumentType]  # constants above
            sql.Identifier(mapping.key),
        )
        try:
            with conn.transaction():
                assert conn.execute(statement, (key,)).rowcount == 1
        except psycopg.errors.IntegrityError:
            continue
        return column
    raise AssertionError(f"no column of {table} can be changed")


def test_verify_passes_after_a_migration_and_writes_nothing(app: App) -> None:
    before = versions_of_rows(app.url)
    result = app.b44.on(app.url)("verify", "--json")
    assert (result.status, result.complaints) == (0, [])
    assert result.report["checks"]["failed"] == 0
    assert result.report["checks"]["passed"] >= 2 * len(load_catalog(app.sql).mappings)
    assert versions_of_rows(app.url) == before


@pytest.mark.long
def test_verify_names_record_and_column_of_planted_faults_in_any_table(app: App) -> None:
    url, mappings = app.copy(), load_catalog(app.sql).mappings
    expected: list[str] = []
    with psycopg.connect(url) as conn:
        # As a fault of the disk would, past every trigger and foreign key.
        conn.execute("set session_replication_role = replica")
        # A record that refers to one that is gone is none to be missed.
        referred = {
            name for (name,) in conn.execute("select confrelid::regclass::text from pg_constraint where contype = 'f'")
        }
        for table, mapping in [*mappings.items()][:-1]:
            record = conn.execute(
                "select id, base44_id, record_number, count(*) over () from migration.migrated where entity = %s order by id limit 1",
                (table,),
            ).fetchone()
            assert record is not None
            key, base44_id, position, held = record
            if table not in referred:
                gone = sql.SQL("delete from {} where {} = %s").format(
                    sql.Identifier(table), sql.Identifier(mapping.key)
                )
                assert conn.execute(gone, (key,)).rowcount == 1
                expected += [
                    f"{table} content_parity: 1 row missing, 0 rows differ; record {position} (id {base44_id}) has no row",
                    f"{table} row_parity: {held:,} records were migrated, {table} holds {held - 1:,} of them",
                ]
            else:
                column = changed_column(conn, mapping, key)
                expected += [
                    f"{table} content_parity: 0 rows missing, 1 row differs;"
                    f" record {position} (id {base44_id}) differs in {column}"
                ]
    with webhook() as hook:
        result = app.b44.on(url).having(B44_ALERT_WEBHOOK=hook.address)("verify", "--json")
    assert result.status == 1
    complaints = "\n".join(result.complaints)
    assert [line for line in expected if line not in complaints] == [], complaints
    # The last table is as it was, and so is the number of rows of those in which only a value was changed.
    assert complaints.count("content_parity: ") + complaints.count("row_parity: ") == len(expected)
    # Without a daemon, too.
    [alert] = hook.received
    assert [line for line in expected if line not in alert["text"]] == [], alert["text"]


def test_the_first_run_is_taken_back_by_the_id_that_status_shows_and_leaves_what_the_files_put_there(app: App) -> None:
    url, catalog = app.copy(), load_catalog(app.sql)
    on = app.b44.on(url)
    run_id = value(url, "select min(run_id) from migration.migration_log")
    assert run_id in on("status").out
    result = on("rollback", "--run", run_id[:12], "--json")
    assert result.status == 0
    assert result.err.count("notice: There is no backup of ") == 1
    assert {table: one["deleted"] for table, one in result.report["entities"].items()} == {
        table: one["migrated"] for table, one in app.result.report["entities"].items()
    }
    seeded = {table for table in catalog.mappings if catalog.table(table).seed}
    assert {table for table, left in rows_of(url, catalog).items() if left} == seeded


@pytest.mark.long
def test_a_month_is_taken_back_and_brought_again(app: App, dagster_storage: str) -> None:
    url, catalog = app.copy(), load_catalog(app.sql)
    on, before = app.b44.on(url), rows_of(url, catalog)
    by_month = {
        table: period.column
        for table in catalog.mappings
        if (period := catalog.table(table).period) and period.unit == "month"
    }
    counts = sql.SQL(" union all ").join(
        sql.SQL(
            "select {} as name, to_char({} at time zone 'UTC', 'YYYY-MM') as month, count(*) as n from {} group by 2"
        ).format(sql.Literal(table), sql.Identifier(column), sql.Identifier(table))
        for table, column in by_month.items()
    )
    held: dict[tuple[str, str], int] = {(name, month): n for name, month, n in rows(url, counts)}
    # The last one of them, so that there are months before it.
    _, month = max(held, key=lambda part: (held[part], part[1]))
    of_month = {name: n for (name, at), n in held.items() if at == month}
    # Of each table one event for the month, with its rows, and one for the table as a whole, with what was taken back.
    reported = (
        "select coalesce(partition, ''), event like '%\"taken_back\"%' from event_logs"
        " where event like '%A rollback has taken records back%' order by id"
    )
    told = rows(dagster_storage, reported)
    result = on("rollback", "--partition", month, "--json")
    assert (result.status, {name: one["deleted"] for name, one in result.report["entities"].items()}) == (0, of_month)
    assert {name: len(before[name]) - len(left) for name, left in rows_of(url, catalog).items()} == {
        name: of_month.get(name, 0) for name in before
    }
    new = rows(dagster_storage, reported)[len(told) :]
    assert sorted(new) == sorted([(month, False), ("", True)] * len(of_month))
    assert on("verify").status == 1
    assert on("migrate", "--export", app.export).status == 0
    assert rows_of(url, catalog) == before


# By app: a role, and a question with the answer that it gets of what was restored.
ASKED = {
    "blog": ("set role b44_readonly", "select count(*) from posts where not published", 0),
    "shop": ("set role shop_clerk", "select count(*) from purchases", 6),
}


@pytest.mark.long
def test_what_a_backup_restores_is_what_was_there_for_every_role(app: App, tmp_path: Path) -> None:
    url, other, catalog = app.copy(), app.empty(), load_catalog(app.sql)
    (tmp_path / "key").write_text(Key.generate().secret)
    on = app.b44.having(B44_BACKUP_URL=str(tmp_path / "store"), B44_BACKUP_KEY=str(tmp_path / "key")).on(url)
    taken = on("backup", "--json")
    assert (taken.status, taken.report["good"]) == (0, True), taken
    assert on("restore", "latest", "--into", other).status == 0
    assert rows_of(other, catalog) == rows_of(url, catalog)
    assert schema_drift(Session(other, catalog)).passed
    role, question, answer = ASKED[app.name]
    with psycopg.connect(other) as conn:
        conn.execute(role.encode())
        assert conn.execute(question.encode()).fetchone() == (answer,)


# By app: a table, the reason why one record of it was refused, and what makes it sound.
CORRECTIONS = {
    "blog": ("posts", "missing_title", {"title": "Found again"}),
    "shop": ("products", "invalid:price", {"price": "5"}),
}


@pytest.mark.parametrize(
    "app",
    # tests/database has the same of the blog without the command.
    [pytest.param(("embedded", "blog"), id="blog", marks=pytest.mark.slow), pytest.param(("pg15", "json"), id="shop")],
    indirect=True,
)
def test_a_corrected_record_is_replayed_once(app: App) -> None:
    table, reason, correction = CORRECTIONS[app.name]
    url = app.copy()
    on = app.b44.on(url)
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(
            "update migration.quarantine set record = record || %s::jsonb"
            " where id = (select min(id) from migration.quarantine where entity = %s and reasons = array[%s])",
            (json.dumps(correction), table, reason),
        )
    count = sql.SQL("select count(*) from {}").format(sql.Identifier(table))
    before = value(url, count)
    first = on("replay", "--entity", table, "--json")
    assert (first.status, value(url, count)) == (0, before + 1)
    assert first.report["replay"] == {"corrected": 1, "migrated": 1, "refused": []}
    assert first.err.count("notice: There is no backup of ") == 1
    assert value(url, "select count(*) from migration.quarantine where replayed_at is not null") == 1
    assert on("replay", "--json").status == 0
    assert value(url, count) == before + 1
