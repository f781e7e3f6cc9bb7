"""Any name that PostgreSQL takes for a column may be a column of an app, whatever the migration calls things of its own."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest

from b44_assets.catalog import load_catalog
from b44_assets.migration.corrections import correct
from b44_assets.migration.rollback import roll_back_run
from b44_assets.postgres.embedded import EmbeddedServer
from tests.database.test_delta import sound
from tests.helpers.records import Record, object_id, uuid_of
from tests.helpers.target import Target, new_target

# Columns of the migration's tables, names within its statements, variables of its functions, and aliases that it gives to tables.
NAMES = [
    *("position", "action", "partition_key", "contested", "renamed", "order", "generation", "entity", "row_checksum", "known"),
    *("age", "wanted", "batch_number", "record", "record_checksum", "last_change", "left_over", "checksum", "verdict", "key"),
    *("processed", "kept", "seconds", "missing", "rank", "stem", "place", "name", "judged", "holder", "base44"),
    *("b", "c", "d", "e", "f", "k", "m", "n", "p", "q", "r", "s", "t", "u", "w"),
]  # fmt: skip
# A table may keep the id that its records had, and have a time of change that no mapping gives.
COLUMNS = "  base44_id text,\n  updated_at timestamptz default now(),\n" + ",\n".join(
    f'  "{name}" text' for name in NAMES
)
# What a mapping's source has besides the fields: such a field has another name first.
TAKEN = {"record", "record_checksum", "last_change"}
FIELDS = ", ".join(f"{name}_of|{name}" if name in TAKEN else name for name in NAMES)
GIVEN = ",\n".join(f'  x."{name}_of" as "{name}"' if name in TAKEN else f'  x."{name}"' for name in NAMES)
ABOUT = """
  x.record_number, x.base44_id, false as name_given, '{}'::jsonb[] as repairs, null::jsonb as unmapped,
  array_remove(array[case when x.base44_id is null then 'missing_id' end,
    case when x.superseded then 'duplicate_id' end, case when x.age is null then 'missing_age' end], null) as reasons"""
APP = {
    # A table with periods, whose names are made unique.
    "tables/things.sql": "-- Things.\n-- partitions: month of month\ncreate table if not exists things (\n  id uuid not null,\n"
    f"  month timestamptz not null,\n{COLUMNS},\n  primary key (id, month)\n) partition by range (month);\n"
    "create table if not exists things_default partition of things default;\n",
    "mappings/things.sql": f"-- A thing.\n-- entity: Thing\n-- fields: id, month, {FIELDS}, created_date, updated_date\n"
    "-- unique_suffix: checksum in things by id, made from action, ordered by age, repaired\n-- large_columns: known\n"
    f"select base44_uuid(x.base44_id) as id, migration.as_timestamp(x.month) as month,\n{GIVEN},{ABOUT}\n  from source x\n",
    # One without, whose rows exchange values and point to each other.
    "tables/others.sql": f"-- Others.\ncreate table if not exists others (\n  uuid uuid primary key,\n  parent uuid,\n{COLUMNS},\n"
    "  unique (wanted)\n);\n",
    "mappings/others.sql": f"-- Another.\n-- entity: Other\n-- key: uuid\n-- fields: id, parent, {FIELDS}, created_date, updated_date\n"
    "-- deferred_fk: parent\n-- exchangeable_unique: wanted; released by wanted = kept || processed || seconds || missing\n"
    f"select base44_uuid(x.base44_id) as uuid, base44_uuid(x.parent) as parent,\n{GIVEN},{ABOUT}\n  from source x\n",
}  # fmt: skip


@pytest.fixture
def app(embedded: EmbeddedServer, tmp_path: Path) -> Generator[Target]:
    """A database with the two tables and nothing migrated; pg 18 alone, as names mean the same on either server."""
    for name, text in APP.items():
        (tmp_path / "sql" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "sql" / name).write_text(text, "utf-8")
    (tmp_path / "export").mkdir()
    with new_target(embedded.url("postgres"), load_catalog(tmp_path / "sql"), tmp_path / "export") as target:
        yield target


def record(number: int, **changes: object) -> Record:
    return {
        "id": object_id(number), "month": f"2026-0{number}-05", "parent": object_id(3 - number),
        **{name: f"{name} {number}" for name in NAMES}, "created_date": "2026-01-01", "updated_date": "2026-01-01", **changes,
    }  # fmt: skip


def rows(target: Target, table: str) -> list[dict[str, object]]:
    return sorted(target.table(table), key=lambda row: str(row["age"]))


def test_columns_may_be_called_what_the_migration_calls_things_of_its_own(app: Target) -> None:
    first = {"Thing": [record(1, checksum="x"), record(2, checksum="x")], "Other": [record(1), record(2)]}
    app.having(run_id="run-first").migrate(first)
    before = {table: rows(app, table) for table in ("things", "others")}
    for number in (1, 2):
        thing, other = before["things"][number - 1], before["others"][number - 1]
        expected = {name: f"{name} {number}" for name in NAMES}
        assert {name: thing[name] for name in NAMES} == {**expected, "checksum": "x" if number == 1 else "x-2"}
        assert {name: other[name] for name in NAMES} == expected
        assert thing["base44_id"] == other["base44_id"] == object_id(number)
        assert other["parent"] == uuid_of(object_id(3 - number))
    sound(app, "things", "others")

    newer = {"updated_date": "2026-02-02"}
    app.having(run_id="run-second").migrate({
        "Thing": [record(1, checksum="x", action="new", **newer), record(2, checksum="x")],
        "Other": [record(1, wanted="wanted 2", **newer), record(2, wanted="wanted 1", **newer)],
    })  # fmt: skip
    assert [row["action"] for row in rows(app, "things")] == ["new", "action 2"]
    assert [row["wanted"] for row in rows(app, "others")] == ["wanted 2", "wanted 1"]
    sound(app, "things", "others")

    roll_back_run(app.session, "run-second")
    assert {table: rows(app, table) for table in ("things", "others")} == before
    roll_back_run(app.session, "run-first")
    assert {table: rows(app, table) for table in ("things", "others")} == {"things": [], "others": []}


def test_conflicts_and_corrections_are_of_such_columns_too(app: Target) -> None:
    entities = {"things": "Thing", "others": "Other"}
    app.migrate({entity: [record(1), record(2, age=None)] for entity in entities.values()})
    app.run('update migration.quarantine set record = record || \'{"age": "age 2"}\'')
    for table in entities:
        assert correct(app.session, app.session.catalog.mappings[table]) == 1
        app.load(table)
        assert [row["age"] for row in rows(app, table)] == ["age 1", "age 2"]
        app.run(f"update {table} set position = 'edited' where age = 'age 1'")
    app.migrate(
        {entity: [record(1, action="new", updated_date="2026-02-02"), record(2)] for entity in entities.values()}
    )
    assert app.all("select entity, kind, columns from migration.conflicts order by entity") == [
        (table, "edited", ["position", "action"]) for table in sorted(entities)
    ]
    sound(app, *entities)
