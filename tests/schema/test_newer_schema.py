"""A database that was migrated by an older version of an app's files goes on with a newer one."""

from __future__ import annotations

import re
from dataclasses import replace
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import psycopg
import pytest

from b44_assets.catalog import Kind, declared_columns, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.rollback import roll_back_run
from b44_assets.planning import plan_migration
from b44_assets.scaffold.model import App, Column, ColumnType, Counts
from b44_assets.schema.build import ON_A_TABLE, build
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.preflight import need_room
from b44_assets.session import Session
from tests.helpers.invented_app import field, object_id, table, to, write_app_files, write_export

OUTSIDE = Counts(filled=2, unfit=0, found=0, outside=1, missing=0)
EXPORT: dict[str, list[dict[str, Any]]] = {
    "Task": [
        {"id": object_id(1), "title": "Rig", "state": "open", "priority": "3"},
        {"id": object_id(2), "title": "Row", "state": "lost", "priority": "low", "hint": "kept"},
    ],
}


def tasks(*states: str, further: tuple[Column, ...] = ()) -> App:
    own = (
        Column("title", field("title"), ColumnType.TEXT),
        Column("state", field("state", enum=states), ColumnType.TEXT, fits=False, counts=OUTSIDE),
    )
    return App("app", (table("tasks", "Task", *own, *further),))


OLDER = tasks("open")
PRIORITY = Column("priority", field("priority", "number", default=1, description="it's 1, 2"), ColumnType.NUMERIC)
SHOWN = Column("shown", field("shown", "object", default={"by": {}}), ColumnType.JSONB)
RETYPED = {
    ("due", "due"): ("string", ColumnType.TIMESTAMPTZ),
    ("is_done", "Done?"): ("boolean", ColumnType.BOOLEAN),
    ("task_id", "task_id"): ("string", ColumnType.UUID),
}
NOTES = table("notes", "Note", Column("text", field("text"), ColumnType.TEXT))
NEWER = App("app", (*tasks("open", "done", further=(PRIORITY, SHOWN)).tables, NOTES))


def migrate(session: Session, export: Path) -> None:
    need_room(session)
    for spec in session.catalog.of(Kind.RUNTIME, Kind.TABLE):
        build(session, spec)
    for mapping in session.catalog.mappings.values():
        stage_export(session, mapping, export)
        load_table(session, mapping)
    for spec in session.catalog.of(Kind.PARTITION, *ON_A_TABLE, Kind.VIEW_SCHEMA):
        build(session, spec)


def rows(url: str, query: str) -> list[tuple[Any, ...]]:
    with psycopg.connect(url, autocommit=True) as conn:
        return conn.execute(query.encode()).fetchall()


TASKS = 'select id, title, priority::text from base44_compat."Task" order by id'
ENUM = "select pg_get_constraintdef(oid), convalidated from pg_constraint where conname = 'chk_tasks_state_values'"


def test_new_columns_entities_and_enum_values_come_with_the_next_migration(
    embedded_database: str, tmp_path: Path
) -> None:
    url, export = embedded_database, write_export(tmp_path / "export", EXPORT)
    migrate(Session(url, load_catalog(write_app_files(tmp_path / "older", OLDER)), run_id="older"), export)
    kept = rows(url, "select base44_id, data from migration.unmapped order by 1")
    assert kept == [(object_id(1), {"priority": "3"}), (object_id(2), {"hint": "kept", "priority": "low"})]
    before = rows(url, "select id, title, state from tasks order by id")

    session = Session(url, load_catalog(write_app_files(tmp_path / "newer", NEWER)), run_id="newer")
    newer = {
        "Note": [{"id": object_id(9), "text": "New"}],
        "Task": [*EXPORT["Task"], {"id": object_id(3), "state": "done"}],
    }
    migrate(session, write_export(tmp_path / "export", newer))

    assert rows(url, TASKS) == [(object_id(1), "Rig", "3"), (object_id(2), "Row", None), (object_id(3), None, None)]
    # What its column cannot hold stays where it is kept.
    assert rows(url, "select base44_id, data from migration.unmapped") == [
        (object_id(2), {"hint": "kept", "priority": "low"})
    ]
    assert rows(url, "select entity, migrated, unaccounted from migration.accounting order by 1") == [
        ("notes", 1, 0),
        ("tasks", 3, 0),
    ]
    [(said, valid)] = rows(url, ENUM)
    assert ("done" in said, valid) == (True, False)
    assert rows(url, "insert into tasks (state) values ('done') returning priority::text, shown") == [("1", {"by": {}})]
    assert schema_drift(session).passed

    roll_back_run(session, "newer")
    assert rows(url, "select id, title, state from tasks where title is not null order by id") == before
    assert rows(url, "select base44_id, data from migration.unmapped order by 1") == kept


def test_a_row_that_the_application_has_changed_keeps_its_values(embedded_database: str, tmp_path: Path) -> None:
    url, export = embedded_database, write_export(tmp_path / "export", EXPORT)
    migrate(Session(url, load_catalog(write_app_files(tmp_path / "older", OLDER))), export)
    rows(url, "update tasks set title = 'Rigged' where title = 'Rig' returning id")
    migrate(Session(url, load_catalog(write_app_files(tmp_path / "newer", NEWER))), export)
    assert rows(url, TASKS)[0] == (object_id(1), "Rigged", None)
    assert rows(url, "select unaccounted from migration.accounting where entity = 'tasks'") == [(0,)]


def test_rows_follow_a_schema_that_drops_a_field_as_it_gets_another(embedded_database: str, tmp_path: Path) -> None:
    hint = Column("hint", field("hint"), ColumnType.TEXT)
    url, export = embedded_database, write_export(tmp_path / "export", EXPORT)
    older = load_catalog(write_app_files(tmp_path / "older", tasks("open", further=(hint,))))
    migrate(Session(url, older), export)
    newer = {"Task": [{"id": object_id(2), "title": "Sail", "priority": "4", "updated_date": "2027-01-01T00:00:00"}]}
    catalog = load_catalog(write_app_files(tmp_path / "newer", tasks("open", further=(PRIORITY,))))
    migrate(Session(url, catalog), write_export(tmp_path / "export", newer))
    assert rows(url, "select title, priority::text, hint from tasks where hint is not null") == [("Sail", "4", "kept")]


def test_a_renamed_field_fills_its_column_of_rows_that_nobody_edited_as_the_plan_says(
    embedded_database: str, tmp_path: Path
) -> None:
    def files(name: str) -> Path:
        return write_app_files(tmp_path / name, tasks("open", further=(Column(name, field(name), ColumnType.TEXT),)))

    def records(name: str, *titles: str | None) -> dict[str, list[dict[str, Any]]]:
        return {"Task": [{"id": object_id(n), "title": title, name: "kept"} for n, title in enumerate(titles, 1)]}

    url, older, newer = embedded_database, files("hint"), files("note")
    first = records("hint", "Rig", "Row", "Sail", None)
    migrate(Session(url, load_catalog(older)), write_export(tmp_path / "export", first))
    rows(url, "update tasks set title = 'Edited' where title = 'Row' returning id")
    export = write_export(tmp_path / "export", records("note", "Rig", "Row", "Sail on", "Found"))

    known = {"B44_SQL_DIR": str(newer), "B44_EXPORT_DIR": str(export), "B44_DATABASE_URL": url}
    plan = plan_migration(Settings.load(known, tmp_path))
    assert [(one.changed, one.unchanged, one.conflicts) for one in plan.tables] == [(2, 2, {"not_newer": 1})]
    assert plan.schema.missing == ("column tasks.note",)
    assert [one.partition(": ")[0] for one in plan.schema.different] == ['view base44_compat."Task"']

    migrate(Session(url, load_catalog(newer)), export)
    found = [("Rig", "kept"), ("Edited", None), ("Sail", None), ("Found", "kept")]
    assert rows(url, "select title, note from tasks order by id") == found
    assert rows(url, "select base44_id, kind from migration.conflicts") == [(object_id(3), "not_newer")]
    assert rows(url, "select base44_id, data from migration.unmapped") == [(object_id(2), {"note": "kept"})]


def test_a_column_that_gets_another_type_is_changed_by_the_statements_that_the_fault_gives(
    embedded_database: str, tmp_path: Path
) -> None:
    url = embedded_database
    export = write_export(
        tmp_path / "export",
        {"Task": [{"id": object_id(1), "due": "2026-01-05T10:00:00.000000", "Done?": "true", "task_id": object_id(2)}]},
    )
    texts = [Column(name, field(source), ColumnType.TEXT) for name, source in RETYPED]
    typed = [Column(name, field(source, kind), type_) for (name, source), (kind, type_) in RETYPED.items()]
    migrate(
        Session(url, load_catalog(write_app_files(tmp_path / "older", tasks("open", further=tuple(texts))))), export
    )

    newer = Session(url, load_catalog(write_app_files(tmp_path / "newer", tasks("open", further=tuple(typed)))))
    with pytest.raises(
        DatabaseError, match=r"has due as text instead of timestamp with time zone.*change it by"
    ) as said:
        need_room(newer)
    given = re.search(r"change it by (.*) and migrate again", str(said.value))
    assert given is not None
    with psycopg.connect(url, autocommit=True, options="-c timezone=Asia/Tokyo") as conn:
        conn.execute(given[1].encode())
    migrate(newer, export)

    assert rows(url, 'select due, "Done?", task_id from base44_compat."Task"') == [
        (datetime(2026, 1, 5, 10, tzinfo=UTC), True, object_id(2))
    ]
    (mapping,) = newer.catalog.mappings.values()
    parity = content_parity(newer, mapping)
    assert parity is not None
    assert (parity.compared, parity.differing, parity.missing) == (1, 0, 0)
    assert schema_drift(newer).passed


def test_ids_that_become_text_again_are_those_of_base44_and_their_foreign_key_goes(
    embedded_database: str, tmp_path: Path
) -> None:
    url = embedded_database
    export = write_export(
        tmp_path / "export",
        {"Task": [{"id": object_id(1), "task_id": "guest_7"}, {"id": object_id(2), "task_id": object_id(1)}]},
    )
    named = replace(field("task_id"), required=False)
    as_id = Column("task_id", named, ColumnType.UUID, to("tasks", cyclic=True), Counts(2, 0, 1, 0, 0), fits=False)
    older = write_app_files(tmp_path / "older", tasks("open", further=(as_id,)))
    migrate(Session(url, load_catalog(older)), export)

    as_text = Column("task_id", named, ColumnType.TEXT)
    newer = Session(url, load_catalog(write_app_files(tmp_path / "newer", tasks("open", further=(as_text,)))))
    with pytest.raises(DatabaseError, match="has task_id as uuid instead of text") as said:
        need_room(newer)
    given = re.search(r"change it by (.*) and migrate again", str(said.value))
    assert given is not None
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute(given[1].encode())
    migrate(newer, export)

    assert rows(url, "select task_id from tasks order by id") == [("guest_7",), (object_id(1),)]


def visits(*further: Column) -> App:
    state = Column("state", field("state", enum=("open",)), ColumnType.TEXT, fits=False, counts=OUTSIDE)
    return App("app", (table("visits", "Visit", state, *further, partitioned=True, first=date(2026, 1, 1)),))


def test_a_table_by_month_is_migrated_goes_on_with_a_new_column_and_is_taken_back(
    embedded_database: str, tmp_path: Path
) -> None:
    url = embedded_database
    made = {
        "Visit": [
            {"id": object_id(1), "state": "open", "hint": "a", "created_date": "2026-01-05T10:00:00.000000"},
            {"id": object_id(2), "state": "lost", "hint": "b", "created_date": "2026-03-31T23:30:00.000000"},
        ]
    }
    export = write_export(tmp_path / "export", made)
    by_month = "select tableoid::regclass::text, state, base44_object_id(id) from visits order by created_at"
    held = [("visits_2026_01", "open", object_id(1)), ("visits_2026_03", "lost", object_id(2))]
    older = Session(url, load_catalog(write_app_files(tmp_path / "older", visits())), run_id="older")
    migrate(older, export)
    assert rows(url, by_month) == held
    assert schema_drift(older).passed

    hint = Column("hint", field("hint"), ColumnType.TEXT)
    newer = Session(url, load_catalog(write_app_files(tmp_path / "newer", visits(hint))), run_id="newer")
    migrate(newer, export)
    assert rows(url, 'select hint from base44_compat."Visit" order by id') == [("a",), ("b",)]
    # No date was exported; that the migration fills a column is no change of a record.
    assert rows(url, "select distinct updated_at = created_at from visits") == [(True,)]
    assert rows(url, "select data from migration.unmapped") == []
    assert rows(url, "select migrated, unaccounted from migration.accounting") == [(2, 0)]
    with pytest.raises(psycopg.errors.CheckViolation):
        rows(url, "insert into visits (state) values ('lost') returning id")

    roll_back_run(newer, "newer")
    assert rows(url, by_month) == held
    roll_back_run(newer, "older")
    assert rows(url, by_month) == []


def test_a_folder_of_the_version_before_gets_the_trigger_that_dates_rows_and_keeps_it_in_force(
    database: str, tmp_path: Path
) -> None:
    url, day = database, {"created_date": "2026-01-05T10:00:00.000000", "updated_date": "2026-01-06T10:00:00.000000"}
    export = write_export(tmp_path / "export", {"Visit": [{"id": object_id(1), "state": "open", **day}]})
    file = write_app_files(tmp_path / "older", visits()) / "tables" / "visits.sql"
    head, dated, _ = file.read_text().partition("\n-- As Base44 did")
    assert dated
    file.write_text(head)
    migrate(Session(url, load_catalog(file.parents[1])), export)

    newer = Session(url, load_catalog(write_app_files(tmp_path / "newer", visits())))
    drift = schema_drift(newer)
    assert drift.differences == ("trigger visits.trg_set_updated_at is missing",)
    migrate(newer, export)
    assert schema_drift(newer).passed
    # A partition that is made later has it, too.
    rows(url, "select b44.create_partition('visits', 'month', '2027-01-01')")
    made = "insert into visits (state, created_at, updated_at) values ('open', '2027-01-02', '2027-01-02') returning id"
    assert len(rows(url, made)) == 1
    assert rows(url, "update visits set is_sample = true returning updated_at = now()") == [(True,), (True,)]

    triggers = "select xmin::text, tgrelid from pg_trigger where tgname = 'trg_set_updated_at' order by tgrelid"
    before = rows(url, triggers)
    build(newer, newer.catalog.table("visits"))
    assert rows(url, triggers) == before
    in_force = (
        "select tgenabled::text, pg_get_triggerdef(oid) from pg_trigger where tgname = 'trg_set_updated_at' order by 2"
    )
    as_it_was = rows(url, in_force)
    for statement in (
        "alter table visits disable trigger trg_set_updated_at",
        "alter table visits_2027_01 disable trigger trg_set_updated_at",
        "create or replace trigger trg_set_updated_at before update on visits for each row"
        " when (not b44.migrating('visits')) execute function b44.set_updated_at('updated_at')",
    ):
        with psycopg.connect(url) as conn:
            conn.execute(statement.encode())
        build(newer, newer.catalog.table("visits"))
        assert rows(url, in_force) == as_it_was


def hand_written(folder: Path, columns: str) -> Session:
    path = folder / "sql" / "tables" / "boats.sql"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(
        f"-- Boats.\n\ncreate table if not exists boats (\n  id uuid primary key{columns}\n);\n\n"
        "comment on table boats is 'Boats, the owner''s';\n"
    )
    return Session("", load_catalog(folder / "sql"))


@pytest.mark.parametrize("rows_first", [False, True])
def test_a_column_that_rows_cannot_be_without_is_named_before_anything_is_made(
    embedded_database: str, tmp_path: Path, rows_first: bool
) -> None:
    session = replace(hand_written(tmp_path, ""), url=embedded_database)
    for spec in session.catalog.of(Kind.RUNTIME, Kind.TABLE):
        build(session, spec)
    if rows_first:
        rows(session.url, "insert into boats values (gen_random_uuid()) returning id")
    newer = replace(hand_written(tmp_path, ",\n  name text not null"), url=embedded_database)
    if rows_first:
        with pytest.raises(DatabaseError, match="boats has rows, and no column name, which is not null"):
            need_room(newer)
        newer = replace(hand_written(tmp_path, ",\n  name text not null default 'none'"), url=embedded_database)
    need_room(newer)
    build(newer, newer.catalog.table("boats"))
    assert rows(newer.url, "select name from boats") == ([("none",)] if rows_first else [])
    assert schema_drift(newer).passed


def test_columns_are_read_as_they_stand() -> None:
    declared = declared_columns(
        """create table if not exists public."Odd ""one" (
          Id uuid primary key, -- the key, by name
          /* a, b */ "not null" numeric(10, 2) default 1.5 + (2, 3), -- last
          kind text not null check (kind in ('a, b', ')', $$,$$)),
          at timestamptz not null default now(),
          size int generated always as (length(kind)) stored not null
          -- and now the rest
          , constraint c check (id is not null), unique (kind, at), primary key (id)
        ) partition by range (at)"""
    )
    assert [(one.table, one.name, one.key, one.required) for one in declared] == [
        ('Odd "one', "id", True, False),
        ('Odd "one', "not null", False, False),
        ('Odd "one', "kind", False, True),
        ('Odd "one', "at", False, False),
        ('Odd "one', "size", False, False),
    ]
    assert (declared[1].text, declared[1].default) == ('"not null" numeric(10, 2)', "1.5 + (2, 3)")
    assert declared[2].default is declared[3].default is None
    assert declared[2].text == "kind text not null check (kind in ('a, b', ')', $$,$$))"
    assert declared_columns("create table a_2026 partition of a for values in ('b')") == ()
    assert declared_columns("comment on table a is '(b text, c text)'") == ()
