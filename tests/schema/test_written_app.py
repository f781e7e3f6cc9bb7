"""The `sql/` that is written for an invented app: what becomes of an export in which every declared rule is broken."""

from __future__ import annotations

import csv
import json
import uuid
from collections.abc import Callable, Generator, Mapping
from copy import deepcopy
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.listed import broken_rules, dangling_references, listed
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.replays import corrected_records, replay_of
from b44_assets.migration.report import gather, render
from b44_assets.migration.rollback import roll_back_run
from b44_assets.scaffold.decisions import decisions_page
from b44_assets.scaffold.model import App, Audience, Rule
from b44_assets.scaffold.sensitive import HIDDEN
from b44_assets.schema.build import ON_A_TABLE, build
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import constraints_valid, foreign_keys_hold, indexes_valid
from b44_assets.schema.row_checks import violations
from b44_assets.schema.standard_roles import install_standard_roles
from b44_assets.session import Session
from tests.helpers.databases import create_database, database_url, template_once
from tests.helpers.invented_app import EXPORT, LONG_NAME, app, object_id, write_app_files, write_export
from tests.helpers.sessions import keeping

BEHIND = (*ON_A_TABLE, Kind.VIEW_SCHEMA)
DAY = datetime(2025, 11, 3, 9, 1, 0, 123456, UTC)
LATER = datetime(2025, 11, 4, 10, tzinfo=UTC)


@dataclass(frozen=True)
class Written:
    """The app, migrated: its catalog, a database to look at only, and what makes a copy to change."""

    catalog: Catalog
    url: str
    copy: Callable[[], str]
    kept: Session

    def session(self, url: str = "", catalog: Catalog | None = None) -> Session:
        return replace(self.kept, url=url or self.url, catalog=catalog or self.catalog)

    def rows(self, query: str, url: str = "") -> list[tuple[Any, ...]]:
        with psycopg.connect(url or self.url, autocommit=True) as conn:
            return conn.execute(query.encode()).fetchall()


def write_csv(folder: Path) -> Path:
    """The same export as the dashboard gives it."""
    folder.mkdir()
    for entity, records in EXPORT.items():
        names = list(dict.fromkeys(name for record in records for name in record))
        with (folder / f"{entity}_export.csv").open("w", newline="", encoding="utf-8") as file:
            writer = csv.writer(file, quoting=csv.QUOTE_ALL, lineterminator="\n")
            writer.writerows([names, *([cell(record.get(name)) for name in names] for record in records)])
    return folder


def cell(value: object) -> str:
    if value is None:
        return ""
    text = value if isinstance(value, str) else json.dumps(value, separators=(",", ":"))
    return f"'{text}" if text[:1] in tuple("=+-@") else text


def migrate(session: Session, export: Path) -> None:
    """All steps in the order of a run."""
    for spec in session.catalog.of(Kind.RUNTIME, Kind.TABLE):
        build(session, spec)
    for mapping in session.catalog.mappings.values():
        stage_export(session, mapping, export)
    for mapping in session.catalog.mappings.values():
        load_table(session, mapping)
    for spec in session.catalog.of(*BEHIND):
        build(session, spec)


@pytest.fixture(scope="module")
def written(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[Written]:
    folder = tmp_path_factory.mktemp("app")
    catalog = load_catalog(write_app_files(folder))
    with psycopg.connect(server_url) as conn:
        newest = conn.info.server_version >= 160000
    export = write_export(folder / "export") if newest else write_csv(folder / "export")

    def migrated(url: str) -> None:
        with keeping(Session(url, catalog)) as session:
            migrate(session, export)

    made = template_once(server_url, "written_app", migrated)
    names: list[str] = []

    def copy() -> str:
        name = f"written_app_{uuid.uuid4().hex}"
        names.append(name)
        with psycopg.connect(server_url, autocommit=True) as conn:
            create_database(conn, name, made)
        return database_url(server_url, name)

    url = copy()
    with keeping(Session(url, catalog)) as session:
        yield Written(catalog, url, copy, session)
    with psycopg.connect(server_url, autocommit=True) as conn:
        for name in names:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


def test_every_value_stands_in_its_column_and_under_its_old_name(written: Written) -> None:
    whole = written.rows(f"select * from base44_compat.\"Order\" where id = '{object_id(33)}'")
    columns = [
        name
        for (name,) in written.rows(
            "select attname from pg_attribute where attrelid = 'base44_compat.\"Order\"'::regclass and attnum > 0 order by attnum"
        )
    ]
    shown = dict(zip(columns, whole[0], strict=True))
    expected: dict[str, Any] = dict(EXPORT["Order"][0]) | {
        "total": Decimal("123456789012345678901234.567890"),
        "dueDate": date(2026, 1, 31),
        "at": time(14, 30),
        "seenAt": datetime(2026, 6, 9, 17, 30, tzinfo=UTC),
        "created_date": DAY,
        "updated_date": LATER,
        "created_by": None,
        "created_by_id": None,
    }
    note, _ = expected.pop(LONG_NAME), expected.pop("undeclared")
    [long_name] = [name for name in shown if name.startswith("what_the_customer")]
    assert len(long_name.encode()) == 63
    assert shown.pop(long_name) == note
    assert shown == expected
    assert written.rows("select data from migration.unmapped where entity = 'orders'") == [({"undeclared": "kept"},)]


def test_ids_of_every_form_and_dangling_ones_can_be_read_back(written: Written) -> None:
    exported = {record["id"]: record for record in EXPORT["Order"][:3]}
    for one, group, parent, members in written.rows(
        'select id, "group", "parentId", "memberIds" from base44_compat."Order"'
    ):
        given = exported[one]
        if one == object_id(35):
            assert (group, parent, members) == (None, None, None)
            continue
        assert (group, parent) == (given["group"], given["parentId"])
        assert members == (given["memberIds"] if isinstance(given["memberIds"], list) else None)
    assert written.rows('select id, "lastOrderId" from base44_compat."Team" order by 1') == [
        (object_id(17), object_id(33)),
        (object_id(18), "gone"),
        ("team-of-one", None),
    ]
    # By the same function, so that they join.
    assert written.rows('select count(*) from orders o join teams t on t.id = o."group"') == [(1,)]


def test_a_reference_that_is_changed_does_not_show_its_old_id(written: Written) -> None:
    url = written.copy()
    changed = f"update teams set last_order_id = base44_uuid('{object_id(34)}') where id = base44_uuid('team-of-one')"
    assert written.rows(f"{changed} returning base44_ids is not null", url) == [(True,)]
    assert (object_id(34),) in written.rows('select "lastOrderId" from base44_compat."Team"', url)


def test_fields_of_the_apps_own_are_not_taken_for_the_dates_of_a_record(written: Written) -> None:
    url = written.copy()
    query = "select created_at, updated_at, created_date, updated_date from teams where id = base44_uuid(%s)"
    assert written.rows(query.replace("%s", f"'{object_id(17)}'")) == [("before the flood", {"by": "Noah"}, DAY, LATER)]
    changed = "update teams set {} where id = base44_uuid('team-of-one')"
    mapping = written.catalog.mappings["teams"]
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("alter table teams disable trigger trg_set_updated_at")
    for assignment, edited, differing in (
        ("name = 'Sailors', updated_at = '{}'", 0, 1),
        ("updated_date = updated_date + interval '1 day'", 1, 0),
    ):
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(changed.format(assignment).encode())
        parity = content_parity(written.session(url), mapping)
        assert parity is not None
        assert (parity.edited, parity.differing) == (edited, differing)


def test_no_record_is_lost_and_only_what_a_type_cannot_hold_is_repaired(written: Written) -> None:
    assert written.rows(
        "select entity, read, migrated, quarantined, unaccounted from migration.accounting order by 1"
    ) == [
        ("orders", 5, 3, 2, 0),
        ("teams", 3, 3, 0, 0),
        ("users", 2, 2, 0, 0),
    ]
    assert sorted(written.rows("select array_to_string(reasons, ',') from migration.quarantine")) == [
        ("duplicate_id",),
        ("missing_id",),
    ]
    repairs = written.rows("select column_name, rule, original, replacement from migration.repairs order by 1")
    assert [(name, rule, original) for name, rule, original, _ in repairs] == [
        ("at", "no_time", "noon"),
        ("created_at", "no_timestamp", "never"),
        ("created_by", "nobody", "null"),
        ("due_date", "no_date", "soon"),
        ("member_ids", "no_list_of_ids", "all"),
        ("order", "no_integer", "first"),
        ("paid", "no_boolean", "perhaps"),
        ("record", "no_json", "{no json"),
        ("seen_at", "no_timestamp", "yesterday"),
    ]
    assert [replacement for *_, replacement in repairs if replacement is not None] == ["2025-10-27 23:32:16+00"]
    broken = written.rows(f"select state, code, total, tags from orders where id = base44_uuid('{object_id(34)}')")
    assert broken == [("lost", "?", Decimal(-1), ["a", "c", "b"])]


BROKEN = {
    "chk_orders_code_length",
    "chk_orders_code_pattern",
    "chk_orders_state_values",
    "chk_orders_tags_length",
    "chk_orders_tags_values",
    "chk_orders_total_range",
    "chk_teams_name_required",
    "chk_users_token_length",
    "fk_orders_group",
    "fk_teams_last_order_id",
}


def test_what_rows_break_stays_not_valid_and_everything_else_is_validated(written: Written) -> None:
    constraints = dict(
        written.rows(
            "select conname, convalidated from pg_constraint where connamespace = 'public'::regnamespace and contype in ('c', 'f')"
        )
    )
    # The parent of the third order is taken back by a newer version of it.
    assert {name for name, valid in constraints.items() if not valid} == BROKEN
    assert {name for name, valid in constraints.items() if valid} == {"chk_users_email_required", "fk_orders_parent_id"}


@pytest.mark.parametrize("table", ["orders", "teams"])
def test_the_checks_warn_and_list_the_rows(written: Written, table: str) -> None:
    session = written.session()
    # Of what is broken, the list alone warns; who looks at a constraint is led to it.
    for verdict in (constraints_valid(session, table), foreign_keys_hold(session, table)):
        assert (verdict.passed, verdict.only_listed, verdict.listed_by) == (True, True, (f"{table}_unfit_rows",))
        assert f"{table}_unfit_rows" in verdict.message()
    assert indexes_valid(session, table).passed
    assert schema_drift(session).passed
    check = written.catalog.checks[f"{table}_unfit_rows"]
    found = violations(session, check)
    assert check.warns
    assert not found.fault
    assert {(row["id"], row["column_name"]) for row in found.sample} == {
        "orders": {
            *((object_id(34), name) for name in ("state", "code", "total", "tags", "group")),
            (object_id(33), "member_ids"),
        },
        "teams": {
            (object_id(18), "name"),
            (object_id(18), "last_order_id"),
            (object_id(17), "name"),
            ("team-of-one", "name"),
        },
    }[table]
    values = {row["column_name"]: row["value"] for row in found.sample}
    assert values.get("group", "GONE") == "GONE"
    assert values.get("last_order_id", "gone") == "gone"
    # Of an array, those that name no row.
    assert values.get("member_ids", "nobody") == "nobody"


def test_rows_that_no_check_lists_are_named_with_their_values_but_for_secrets(written: Written, tmp_path: Path) -> None:
    """As where a newer export is the first to break a rule, and the check was written before."""
    files = write_app_files(tmp_path)
    for path in (files / "checks").iterdir():
        path.unlink()
    session = written.session(catalog=load_catalog(files))
    found = {
        table: {(row.rule, row.id, *row.values) for row in constraints_valid(session, table).broken_by}
        for table in ("orders", "teams", "users")
    }
    assert {rule for rows in found.values() for rule, *_ in rows} == BROKEN
    assert found["orders"] >= {
        ("chk_orders_state_values", object_id(34), ("state", "lost")),
        ("fk_orders_group", object_id(34), ("group", "GONE")),
    }
    assert found["teams"] == {
        ("chk_teams_name_required", object_id(18), ("name", None)),
        ("fk_teams_last_order_id", object_id(18), ("last_order_id", "gone")),
    }
    assert found["users"] == {("chk_users_token_length", object_id(1), ("token", HIDDEN))}
    verdict = foreign_keys_hold(session, "teams")
    assert (verdict.passed, verdict.only_listed) == (False, True)
    assert [row.id for row in verdict.broken_by] == [object_id(18)]
    for said in (verdict.message(), constraints_valid(session, "teams").message()):
        assert f"{object_id(18)} (last_order_id gone)" in said


def test_what_is_listed_is_counted_for_the_verdict(written: Written, tmp_path: Path) -> None:
    open_to_all = Rule("Order", "read", "", Audience.EVERYONE, "everyone")
    closed = Rule("Team", "read", "", Audience.SOME, "the role admin")
    untabled = replace(open_to_all, entity="Visit")
    session = written.session()
    dangling = dangling_references(session)
    assert listed(session, tmp_path, dangling) == {"dangling reference": 2}
    page = decisions_page(App("app", app().tables, rules=(open_to_all, closed, untabled)))
    (tmp_path / "DECISIONS.md").write_text(page)
    assert listed(session, tmp_path, dangling) == {"dangling reference": 2, "open table": 1}


def test_rules_that_rows_break_are_counted_for_the_report(written: Written) -> None:
    session = written.session()
    found = broken_rules(session, dangling_references(session))
    assert {one.name for one in found} == BROKEN
    assert {
        (one.table, one.kind, one.rows) for one in found if one.name in ("fk_orders_group", "chk_teams_name_required")
    } == {
        ("orders", "reference", 1),
        ("teams", "constraint", 1),
    }
    report = gather(session, found, {"dangling reference": 2})
    page = render(report)
    assert report.verdict.listed == {"dangling reference": 2}
    assert all(name in page for name in BROKEN)


def test_nobody_gets_what_no_file_opens_until_it_does(written: Written, tmp_path: Path) -> None:
    url = written.copy()
    rights = (
        "select r, has_table_privilege(r, t, 'SELECT'), has_table_privilege(r, t, 'INSERT')"
        " from unnest('{b44_readwrite,b44_readonly}'::text[]) r, unnest('{orders,notes}'::text[]) t order by r desc, t"
    )
    closed = written.catalog
    opened = load_catalog(write_app_files(tmp_path / "app", replace(app(), opened=True)))
    assert (closed.opened, opened.opened) == (False, True)
    for catalog, expected in (
        (closed, [("b44_readwrite", False, False)] * 2 + [("b44_readonly", False, False)] * 2),
        (opened, [("b44_readwrite", True, True)] * 2 + [("b44_readonly", True, False)] * 2),
        (closed, [("b44_readwrite", False, False)] * 2 + [("b44_readonly", False, False)] * 2),
    ):
        session = Session(url, catalog)
        install_standard_roles(session)
        # What is made by hand later is as the tables are.
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("drop table if exists notes")
            conn.execute("create table notes (id uuid)")
        assert written.rows(rights, url) == expected
        assert not [line for line in schema_drift(session).differences if "group roles" in line]
        assert written.rows("select has_table_privilege('b44_migrator', 'orders', 'UPDATE')", url) == [(True,)]


def test_a_corrected_record_is_migrated_whether_it_honours_what_others_break_or_not(written: Written) -> None:
    url = written.copy()
    session = written.session(url)
    [sound] = written.rows("select id from migration.quarantine where reasons = '{duplicate_id}'", url)
    for key, state, of in (
        ("new-1", "done; $$ not {0}", f"id = {sound[0]}"),
        ("new-2", "lost", "reasons = '{missing_id}'"),
    ):
        group = "nowhere" if key == "new-2" else "team-of-one"
        changes = json.dumps({"id": key, "state": state, "group": group, "parentId": None})
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(f"update migration.quarantine set record = record || %s where {of}".encode(), (changes,))
    asked = corrected_records(session)
    load_table(session, written.catalog.mappings["orders"])
    for spec in written.catalog.of(*BEHIND):
        build(session, spec)
    done = replay_of(session, asked)
    assert (done.corrected, done.migrated, done.refused) == (2, 2, ())
    assert written.rows(
        'select id, state, "group" from base44_compat."Order" where id like \'new%\' order by 1', url
    ) == [
        ("new-1", "done; $$ not {0}", "team-of-one"),
        ("new-2", "lost", "nowhere"),
    ]
    listing = violations(session, written.catalog.checks["orders_unfit_rows"])
    assert {row["column_name"] for row in listing.sample if row["id"] == "new-2"} == {"state", "group"}
    assert not [row for row in listing.sample if row["id"] == "new-1"]
    with psycopg.connect(url) as conn, pytest.raises(psycopg.errors.CheckViolation):
        conn.execute("insert into orders (state) values ('lost')")
    mapping = written.catalog.mappings["orders"]
    parity = content_parity(session, mapping)
    assert parity is None or parity.equal


def test_the_value_of_a_secret_is_in_no_list(written: Written) -> None:
    [row] = violations(written.session(), written.catalog.checks["users_unfit_rows"]).sample
    assert (row["column_name"], row["value"]) == ("token", None)


@pytest.mark.parametrize(
    ("statement", "error"),
    [
        ("insert into orders (state) values ('lost')", psycopg.errors.CheckViolation),
        ("insert into orders (tags) values ('{a,b,a}')", psycopg.errors.CheckViolation),
        ('insert into orders ("group") values (gen_random_uuid())', psycopg.errors.ForeignKeyViolation),
        ("insert into teams (name) values (null)", psycopg.errors.CheckViolation),
    ],
)
def test_new_rows_are_held_to_what_is_declared(written: Written, statement: str, error: type[Exception]) -> None:
    with pytest.raises(error):
        written.rows(statement)


def test_defaults_honour_what_is_declared(written: Written) -> None:
    url = written.copy()
    made = "insert into orders default values returning state, code, total, paid, tags, record"
    assert written.rows(made, url) == [('it\'s "new"', None, Decimal(0), False, ["a"], {"a": [1, "'"]})]


# -- what comes later --------------------------------------------------------------------------------------------------


def changed_export() -> Mapping[str, list[dict[str, Any]]]:
    """A newer export: what broke a rule breaks it still with another value, new records break rules, and a new cycle."""
    export = {entity: deepcopy(records) for entity, records in EXPORT.items()}
    newer = {"updated_date": "2026-01-01T00:00:00.000000"}
    new = {"created_date": "2026-01-01T00:00:00.000000", **newer}
    broken = export["Order"][1]
    broken |= {"state": "lost again", "created_date": "2025-11-03T09:02:00.000000", **newer}
    export["Team"][1] |= {"lastOrderId": "gone, too", **newer}
    # Teams are loaded before orders.
    export["Team"].append({"id": object_id(20), "name": "New", "lastOrderId": object_id(40), **new})
    export["Order"] += [
        {"id": object_id(39), "group": object_id(20), "parentId": object_id(41), "code": "AB12", **new},
        {"id": object_id(40), "group": object_id(20), "parentId": "guest_2", "code": "x", "state": "unheard of", **new},
        {"id": object_id(41), "group": None, "code": "CD34", **new},
    ]
    return export


def states(written: Written, url: str) -> dict[str, str | None]:
    return dict(written.rows('select id, state from base44_compat."Order"', url))


def test_a_newer_export_costs_no_record_and_a_rollback_brings_back_what_was(written: Written, tmp_path: Path) -> None:
    url = written.copy()
    kept = [f"select to_jsonb(t.*) from {table} t order by id" for table in ("orders", "teams")]
    before = [written.rows(query, url) for query in kept]
    session = replace(written.session(url), run_id="newer export")
    migrate(session, write_export(tmp_path / "export", changed_export()))
    assert written.rows(
        "select entity, migrated, quarantined, unaccounted from migration.accounting order by 1", url
    ) == [
        ("orders", 6, 2, 0),
        ("teams", 4, 0, 0),
        ("users", 2, 0, 0),
    ]
    assert states(written, url) | {object_id(34): "lost again", object_id(40): "unheard of"} == states(written, url)
    unvalidated = {
        name
        for (name,) in written.rows(
            "select conname from pg_constraint where not convalidated and contype in ('c', 'f')", url
        )
    }
    # A parent that is nobody's is new.
    assert unvalidated == BROKEN | {"fk_orders_parent_id"}
    with pytest.raises(psycopg.errors.CheckViolation):
        written.rows("insert into orders (state) values ('lost')", url)
    roll_back_run(session, "newer export")
    # Two new rows stand on each other, and stay.
    stay = [
        (row["base44_ids"], row["id"])
        for query in kept
        for (row,) in written.rows(query, url)
        if not any((row,) in rows for rows in before)
    ]
    assert [str(one) for _, one in stay] == written.rows(
        f"select array[base44_uuid('{object_id(40)}')::text, base44_uuid('{object_id(20)}')::text]", url
    )[0][0]
    assert all(row in written.rows(query, url) for query, rows in zip(kept, before, strict=True) for row in rows)
    with pytest.raises(psycopg.errors.CheckViolation):
        written.rows("insert into orders (state) values ('lost')", url)


@pytest.mark.parametrize("role", ["owner", "application"])
def test_what_the_application_changes_is_dated_unless_it_does_so_itself(written: Written, role: str) -> None:
    url = written.copy()
    with psycopg.connect(url) as conn:
        if role == "application":
            name = sql.Identifier(f"app_{uuid.uuid4().hex}")
            conn.execute(sql.SQL("create role {}").format(name))
            conn.execute(sql.SQL("grant select, update on all tables in schema public to {}").format(name))
            conn.execute(sql.SQL("set session authorization {}").format(name))
            # It may say that it is the migration, and is not.
            conn.execute("select set_config('b44.migrating', pg_current_xact_id()::text, true)")

        def dated(change: str, table: str = "orders", column: str = "updated_at") -> list[tuple[Any, ...]]:
            # A row that breaks a rule takes no change at all.
            row = f"where id = base44_uuid('{object_id(33 if table == 'orders' else 17)}')"
            statement = f"update {table} set {change} {row} returning {column} = now(), {column} = '2026-06-01'"
            return conn.execute(statement.encode()).fetchall()

        assert dated("note = note") == [(False, False)]
        assert dated("note = 'said', updated_at = '2026-06-01'") == [(False, True)]
        assert dated("note = 'and written'") == [(True, False)]
        # Its own field of that name is none of this.
        assert dated("updated_at = '{}'", "teams", "updated_date") == [(True, False)]
        conn.rollback()


def test_rows_that_were_edited_without_a_date_of_their_own_are_known_and_kept(written: Written, tmp_path: Path) -> None:
    url = written.copy()
    session = written.session(url)
    written.rows(f"update orders set note = 'ours' where id = base44_uuid('{object_id(33)}') returning id", url)
    orders = session.catalog.mappings["orders"]
    parity = content_parity(session, orders)
    assert parity is not None
    assert (parity.passed, parity.edited, parity.touched) == (True, 1, 0)

    newer = {"updated_date": "2026-01-01T00:00:00.000000"}
    export = {entity: deepcopy(records) for entity, records in EXPORT.items()}
    export["Order"][0] |= {LONG_NAME: "theirs", **newer}
    export["Team"][1] |= {"name": "Renamed", **newer}
    migrate(session, write_export(tmp_path / "export", export))
    assert written.rows(f"select note from orders where id = base44_uuid('{object_id(33)}')", url) == [("ours",)]
    assert written.rows("select entity, kind from migration.conflicts", url) == [("orders", "edited")]
    # What the migration writes has the date that the export gives.
    team = f"select name, updated_date = '2026-01-01T00:00:00Z' from teams where id = base44_uuid('{object_id(18)}')"
    assert written.rows(team, url) == [("Renamed", True)]
    parity = content_parity(session, orders)
    assert parity is not None
    assert (parity.passed, parity.conflicts) == (True, 1)


def test_an_unlisted_constraint_refuses_the_record_that_breaks_it(written: Written, tmp_path: Path) -> None:
    """Who strikes the header from a file has its rows refused, with a reason that names the constraint."""
    url = written.copy()
    folder = tmp_path / "app"
    path = write_app_files(folder) / "constraints" / "orders_constraints.sql"
    path.write_text(path.read_text().replace("-- unfit_rows: listed\n", ""))
    session = written.session(url, load_catalog(folder / "sql"))
    migrate(session, write_export(tmp_path / "export", changed_export()))
    refused = written.rows(
        "select base44_id, array_to_string(reasons, ',') from migration.quarantine where batch_number is not null", url
    )
    assert {one for one, _ in refused} >= {object_id(40)}
    assert all(reason.startswith("refused:") for _, reason in refused)
    verdict = constraints_valid(session, "orders")
    assert (verdict.passed, verdict.only_listed) == (False, False)


def test_a_unique_index_gives_way_to_rows_of_a_newer_export(written: Written, tmp_path: Path) -> None:
    url = written.copy()
    described = app()
    users, *others = described.tables
    email = users.columns[1]
    unique = replace(email, field=replace(email.field, unique=True))
    users = replace(users, columns=(users.columns[0], unique, *users.columns[2:]))
    catalog = load_catalog(write_app_files(tmp_path / "app", replace(described, tables=(users, *others))))
    session = written.session(url, catalog)
    for spec in catalog.on("users", Kind.INDEX):
        build(session, spec)
    assert indexes_valid(session, "users").passed
    export = {entity: deepcopy(records) for entity, records in EXPORT.items()}
    export["User"].append({"id": object_id(3), "email": "ada@example.org"})
    migrate(session, write_export(tmp_path / "export", export))
    assert written.rows("select count(*) from users", url) == [(3,)]
    verdict = indexes_valid(session, "users")
    assert (verdict.passed, verdict.only_listed, verdict.missing) == (False, True, ("idx_users_email",))
    assert schema_drift(session).passed


def test_strict_refuses_what_breaks_a_rule(written: Written, tmp_path: Path) -> None:
    url = written.copy()
    catalog = load_catalog(write_app_files(tmp_path / "app", app(strict=True)))
    listing = {spec.name for spec in catalog.specs if spec.lists_unfit_rows}
    assert listing == {"teams_circular_references", "orders_circular_references"}
    session = written.session(url, catalog)
    for mapping in catalog.mappings.values():
        load_table(session, mapping)
    reasons = dict(
        written.rows(
            "select entity || ' ' || base44_id, reasons from migration.quarantine where replayed_at is null and base44_id is not null",
            url,
        )
    )
    assert set(reasons[f"orders {object_id(34)}"]) == {
        "invalid:order",
        "orphan_group",
        "invalid:member_ids",
        "invalid:state",
        "invalid:code",
        "invalid:total",
        "invalid:due_date",
        "invalid:at",
        "invalid:seen_at",
        "invalid:paid",
        "invalid:tags",
        "invalid:record",
        "invalid:created_at",
    }
    assert reasons[f"teams {object_id(18)}"] == ["missing_name"]


def test_a_view_whose_column_changes_its_type_keeps_who_may_read_it(written: Written, tmp_path: Path) -> None:
    url = written.copy()
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute('grant select on base44_compat."Order" to pg_monitor')
    folder = tmp_path / "app"
    path = write_app_files(folder) / "schemas" / "base44_compat.sql"
    path.write_text(path.read_text().replace("       t.total,\n", "       t.total::text as total,\n"))
    session = written.session(url, load_catalog(folder / "sql"))
    assert "Order" in " ".join(schema_drift(session).differences)
    [spec] = session.catalog.of(Kind.VIEW_SCHEMA)
    assert build(session, spec).replaced == ("Order",)  # pyright: ignore[reportAttributeAccessIssue]
    assert not schema_drift(session).differences
    assert not build(session, spec).changed  # pyright: ignore[reportAttributeAccessIssue]
    assert written.rows("select has_table_privilege('pg_monitor', 'base44_compat.\"Order\"', 'select')", url) == [
        (True,)
    ]
    assert written.rows("select reloptions from pg_class where oid = 'base44_compat.\"Order\"'::regclass", url) == [
        (["security_invoker=true"],)
    ]


def test_a_view_may_have_the_name_of_the_table_that_it_reads(written: Written, tmp_path: Path) -> None:
    folder = tmp_path / "app"
    path = write_app_files(folder) / "schemas" / "base44_compat.sql"
    path.write_text(path.read_text().replace('base44_compat."Team"', "base44_compat.teams"))
    session = Session(written.copy(), load_catalog(folder / "sql"))
    [spec] = session.catalog.of(Kind.VIEW_SCHEMA)
    assert build(session, spec).changed  # pyright: ignore[reportAttributeAccessIssue]
    assert not build(session, spec).changed  # pyright: ignore[reportAttributeAccessIssue]
    assert not schema_drift(session).differences


def test_strict_takes_records_that_name_each_other(written: Written, tmp_path: Path) -> None:
    """A constraint is there already, and one of two tables in a circle is filled before the other."""
    url = written.copy()
    catalog = load_catalog(write_app_files(tmp_path / "app", app(strict=True)))
    export: dict[str, list[dict[str, Any]]] = {"User": [], "Team": [], "Order": []}
    order, team = object_id(50), object_id(51)
    export["Team"].append({"id": team, "name": "New", "lastOrderId": order})
    export["Order"].append({"id": order, "group": team, "parentId": order})
    migrate(written.session(url, catalog), write_export(tmp_path / "export", export))
    assert written.rows("select base44_object_id(last_order_id) from teams where name = 'New'", url) == [(order,)]
