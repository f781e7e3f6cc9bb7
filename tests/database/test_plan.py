"""What becomes of each record is decided once for the whole entity, and all or nothing."""

from __future__ import annotations

import json
import shutil
from collections.abc import Generator
from datetime import date
from itertools import takewhile
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import load_catalog
from b44_assets.config.quantities import QuarantineLimit
from b44_assets.errors import DatabaseError, ThresholdError
from b44_assets.migration.plan import LoadPlan, make_plan
from b44_assets.session import Connection
from tests.helpers.paths import SQL_DIR
from tests.helpers.records import object_id, post, user, uuid_of
from tests.helpers.target import Target


def planned(target: Target, table: str = "users") -> LoadPlan:
    return make_plan(target.session, target.session.catalog.mappings[table])


def staged(target: Target, *records: dict[str, object]) -> Target:
    target.write({"User": records})
    target.stage("users")
    return target


def counts(found: LoadPlan) -> tuple[int, int, int, int, int]:
    return found.read, found.deduplicated, found.quarantined, found.unchanged, found.to_migrate


# -- the sum -----------------------------------------------------------------------------------------------------------


def test_every_record_is_counted_once(target_18: Target) -> None:
    staged(
        target_18, user(1), user(1), user(2), user(3, email=None), user(4, email="x", verified="?"), user(2, bio="v2")
    )
    found = planned(target_18)
    assert counts(found) == (6, 1, 3, 0, 2)
    assert found.reasons == {"duplicate_id": 1, "invalid:email_verified": 1, "invalid_email": 1, "missing_email": 1}


def test_nothing_is_loaded_by_planning(target_18: Target) -> None:
    planned(staged(target_18, user(1)))
    assert target_18.table("users") == []
    assert target_18.one("select pending from migration.accounting where entity = 'users'") == 1


def test_an_entity_without_records_is_planned(target_18: Target) -> None:
    assert counts(planned(staged(target_18))) == (0, 0, 0, 0, 0)


def test_batches_come_in_the_order_of_month_time_and_key(target_18: Target) -> None:
    days = ["2026-02-02", "2026-01-31", "2026-02-01", "2026-01-01", "2026-01-01"]
    records = [post(n, created_date=day) for n, day in enumerate(days)]
    target_18.write({"User": [user(1)], "Post": [*records, post(9, title=None)]})
    target_18.stage("users")
    target_18.load("users")
    target_18.stage("posts")
    planned(target_18, "posts")
    rows = target_18.all(
        "select _position, _partition_key, record_number from migration.posts_plan where _action = 'insert' order by _position"
    )
    assert rows == [
        (1, date(2026, 1, 1), 4), (2, date(2026, 1, 1), 5), (3, date(2026, 1, 1), 2),
        (4, date(2026, 2, 1), 3), (5, date(2026, 2, 1), 1),
    ]  # fmt: skip


def test_without_a_staged_export_it_says_what_to_do(target_18: Target) -> None:
    with pytest.raises(DatabaseError, match=r"^users: nothing is staged in base44\.users"):
        planned(target_18)


# -- once ----------------------------------------------------------------------------------------------------------------


def test_the_same_export_is_not_planned_again(target_18: Target) -> None:
    first = planned(staged(target_18, user(1), user(2, email=None)))
    again = planned(target_18)
    assert (again.changed, again.generation, counts(again), again.reasons) == (
        False, first.generation, counts(first), first.reasons,
    )  # fmt: skip


def test_a_new_export_is_planned_anew(target_18: Target) -> None:
    first = planned(staged(target_18, user(1)))
    again = planned(staged(target_18, user(1), user(2)))
    assert again.changed
    assert again.generation > first.generation
    assert counts(again) == (2, 0, 0, 0, 2)


def test_a_changed_mapping_is_planned_anew(target_18: Target, tmp_path: Path) -> None:
    planned(staged(target_18, user(1)))
    shutil.copytree(SQL_DIR, tmp_path / "sql")
    mapping = tmp_path / "sql" / "mappings" / "users.sql"
    mapping.write_text(mapping.read_text() + "-- changed\n")
    assert planned(target_18.having(catalog=load_catalog(tmp_path / "sql"))).changed


def test_users_that_came_since_let_posts_be_planned_anew(target_18: Target) -> None:
    target_18.write({"Post": [post(1)]})
    target_18.stage("posts")
    assert planned(target_18, "posts").reasons == {"orphan_user": 1}
    target_18.migrate({"User": [user(1)]})
    assert counts(planned(target_18, "posts")) == (1, 0, 0, 0, 1)


def test_verdicts_that_a_crash_of_the_server_emptied_are_made_again(target_18: Target) -> None:
    planned(staged(target_18, user(1)))
    target_18.run("truncate migration.users_plan")
    assert planned(target_18).changed
    assert target_18.load("users").inserted == 1


def test_migrated_records_are_unchanged_on_the_next_export(target_18: Target) -> None:
    target_18.migrate({"User": [user(1), user(2)]})
    assert counts(planned(staged(target_18, user(1), user(2), user(3)))) == (3, 0, 0, 2, 1)


# -- quarantine --------------------------------------------------------------------------------------------------------


def test_a_refused_record_is_kept_whole_with_where_it_came_from(target_18: Target) -> None:
    staged(target_18, user(1), user(2, email=" ", bio="b", none=None))
    planned(target_18.having(run_id="run-7"))
    (row,) = target_18.table("quarantine", schema="migration")
    expected = {
        "entity": "users", "base44_id": object_id(2), "source_file": "User.jsonl", "record_number": 2,
        "reasons": ["missing_email"], "run_id": "run-7", "replayed_at": None,
        "record": {"id": object_id(2), "email": " ", "bio": "b", "none": None},
    }  # fmt: skip
    assert {name: row[name] for name in expected} == expected


def test_quarantine_holds_the_newest_plan_of_an_entity(target_18: Target) -> None:
    planned(staged(target_18, user(1, email=None), user(2, email=None)))
    planned(staged(target_18, user(1), user(2, email="x")))
    assert target_18.all("select record_number, reasons from migration.quarantine") == [(2, ["invalid_email"])]


# -- thresholds ----------------------------------------------------------------------------------------------------------


def limited(target: Target, limit: str) -> Target:
    return target.having(max_quarantine=QuarantineLimit.parse(limit))


# Two of five are refused; a repeat is no refusal.
FIVE = [user(1), user(2, email=None), user(3, email="x"), user(4), user(4)]


@pytest.mark.parametrize("limit", ["2", "5", "40%", "100%"])
def test_as_many_refused_records_as_allowed_do_not_stop_the_load(target_18: Target, limit: str) -> None:
    assert limited(staged(target_18, *FIVE), limit).load("users").inserted == 2


@pytest.mark.parametrize("limit", ["1", "0", "39.9%", "0%"])
def test_more_refused_records_than_allowed_stop_the_load(target_18: Target, limit: str) -> None:
    with pytest.raises(ThresholdError) as caught:
        limited(staged(target_18, *FIVE), limit).load("users")
    assert str(caught.value) == (
        "users: 2 of 5 records would be quarantined (invalid_email 1, missing_email 1), "
        f"more than B44_MAX_QUARANTINE={limit} allows; nothing was loaded"
    )
    assert caught.value.exit_status == 1


def test_a_record_that_could_not_be_staged_counts(target_18: Target) -> None:
    (target_18.export / "User.jsonl").write_text("{broken\n" + json.dumps(user(1)) + "\n")
    target_18.stage("users")
    with pytest.raises(ThresholdError, match="malformed_record 1"):
        limited(target_18, "0").load("users")


def test_a_stopped_load_leaves_nothing_behind(target_18: Target) -> None:
    staged(target_18, user(1), user(2, email=None))
    with pytest.raises(ThresholdError):
        limited(target_18, "0").load("users")
    assert target_18.table("users") == []
    for book in ("quarantine", "plans", "migrated", "migration_log", "repairs", "unmapped"):
        assert target_18.table(book, schema="migration") == [], book
    assert target_18.load("users").inserted == 1


def test_a_stopped_load_leaves_what_was_before_as_it_was(target_18: Target) -> None:
    target_18.migrate({"User": [user(1), user(2, email=None)]})
    before = target_18.state()
    staged(target_18, *[user(n, email=None) for n in range(1, 9)])
    with pytest.raises(ThresholdError):
        limited(target_18, "5").load("users")
    assert target_18.state() == before


# -- a broken mapping ------------------------------------------------------------------------------------------------------


@pytest.fixture
def own_sql(tmp_path: Path) -> Generator[Path]:
    """A copy of `sql/` to break."""
    yield Path(shutil.copytree(SQL_DIR, tmp_path / "sql"))


def test_a_mapping_that_is_no_valid_select_is_named_with_file_and_line(target_18: Target, own_sql: Path) -> None:
    mapping = own_sql / "mappings" / "users.sql"
    header = takewhile(lambda line: line.startswith("--"), mapping.read_text().splitlines())
    broken = (
        "select f.nothing as id, record_number, base44_id, email, email as username, email as created_by, email as created_at,"
        " true as name_given, '{}'::text[] as reasons, '{}'::jsonb[] as repairs, null::jsonb as unmapped from source f"
    )
    mapping.write_text("\n".join([*header, "", broken]))
    staged(target_18, user(1))
    with pytest.raises(DatabaseError) as caught:
        planned(target_18.having(catalog=load_catalog(own_sql)))
    message = str(caught.value)
    assert "nothing" in message and "\n" not in message
    number = int(message.removeprefix(f"{mapping}:").split(":")[0])
    assert mapping.read_text().splitlines()[number - 1] == broken


def test_a_mapping_with_a_column_that_the_target_lacks_is_named(target_18: Target, own_sql: Path) -> None:
    mapping = own_sql / "mappings" / "users.sql"
    mapping.write_text(mapping.read_text().replace("a.address as email,", "a.address as email, 1 as shoe_size,"))
    staged(target_18, user(1))
    with pytest.raises(DatabaseError, match="gives shoe_size, which users does not have"):
        target_18.having(catalog=load_catalog(own_sql)).load("users")


def test_planning_does_not_depend_on_the_order_of_the_file(target_18: Target) -> None:
    records = [user(n, username="anna", email=f"A{n // 2}@x.example", created_by_id=object_id(n + 1)) for n in range(8)]
    states: list[dict[str, str]] = []
    for order in (records, records[::-1]):
        target_18.reset()
        target_18.migrate({"User": order})
        states.append({row["id"]: str(row) for row in target_18.table("users")})
    assert states[0] == states[1]
    assert uuid_of(object_id(0)) in states[0]


# -- by all processors -----------------------------------------------------------------------------------------------------

LARGE = """
set local min_parallel_table_scan_size = 0; set local parallel_setup_cost = 0; set local parallel_tuple_cost = 0
"""
"""Has the planner take a small table for a large one, within a transaction."""


def plans_of_planning(target: Target, table: str, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The plan of each statement that writes a plan, were its table a large one."""
    execute: Any = psycopg.Connection.execute
    plans: list[str] = []

    def explained(conn: Connection, query: Any, *args: Any, **named: Any) -> Any:
        text = query.as_string(conn) if isinstance(query, sql.Composable) else str(query)
        if text.lstrip().startswith(f'create unlogged table migration."{table}_plan"'):
            execute(conn, LARGE)
            plans.append("\n".join(row[0] for row in execute(conn, b"explain " + text.encode()).fetchall()))
        return execute(conn, query, *args, **named)

    with monkeypatch.context() as patch:
        patch.setattr(psycopg.Connection, "execute", explained)
        planned(target, table)
    return plans


def by_several(plan: str, table: str) -> bool:
    """Whether several processes read the staged table and map it; a correlated subquery is left to one of them."""
    return f"Parallel Seq Scan on {table} s" in plan and "SubPlan" not in plan


@pytest.mark.parametrize("table", ["posts", "audit_logs", "user_sessions"])
def test_a_large_export_is_mapped_by_several_processes(
    target_18: Target, table: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Planners before 18 see no gain in it once nested loops are ruled out, for one is left in any plan.
    entity = target_18.session.catalog.mappings[table].entity
    sound = {
        "posts": post(1),
        "audit_logs": {"id": object_id(1), "user_id": object_id(1), "table_name": "posts", "action": "INSERT"},
        "user_sessions": {"id": object_id(1), "user_id": object_id(1)},
    }[table]
    target_18.migrate({"User": [user(1)]})
    for records in ([sound], [sound, {**sound, "id": object_id(2)}]):
        target_18.write({entity: records})
        target_18.stage(table)
        assert [by_several(plan, table) for plan in plans_of_planning(target_18, table, monkeypatch)] == [True]
        target_18.load(table)
        with target_18.conn.transaction():
            target_18.run(LARGE)
            mapping = sql.SQL("explain select * from migration.{}").format(sql.Identifier(f"{table}_mapping"))
            assert by_several("\n".join(row[0] for row in target_18.all(mapping)), table)
