"""From schemas and an export to an app's tables: each inference with its evidence, and no record's value without a place."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from b44_assets.errors import B44Error
from b44_assets.sample.dialects import DIALECTS, file_name, form_of
from b44_assets.scaffold import inference
from b44_assets.scaffold.declared_rules import RuleKind, not_held, rules_of
from b44_assets.scaffold.defaults import without_default
from b44_assets.scaffold.entity_schemas import read_schemas
from b44_assets.scaffold.inference import infer
from b44_assets.scaffold.model import App, Column, ColumnType, Decision, Origin, Overrides, ReferenceBy, Table

TEXT = {"type": "string"}
BOAT = {
    "name": "Boat",
    "type": "object",
    "properties": {
        "name": TEXT,
        "harbour_id": TEXT,
        "length": {"type": "number", "minimum": 0},
        "state": {"type": "string", "enum": ["afloat", "ashore"]},
        "launched": {"type": "string", "format": "date"},
        "masts": {"type": "integer"},
        "owner_email": TEXT,
        "checked_by": TEXT,
        "radio_token": TEXT,
        "order": TEXT,
    },
    "required": ["name"],
    "indexes": [{"fields": ["name", "harbour_id"], "unique": True}],
}
HARBOUR = {
    "name": "Harbour",
    "type": "object",
    "properties": {"title": TEXT, "flagship_id": TEXT},
    "rls": {"read": True},
}


def oid(number: int) -> str:
    return f"6970c3a2{number:016x}"


def schemas(folder: Path, *given: Mapping[str, Any]) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    for schema in given or (BOAT, HARBOUR):
        (folder / f"{schema['name']}.jsonc").write_text(json.dumps(schema), encoding="utf-8")
    return folder


def export(folder: Path, dialect: str = "json", **entities: Sequence[Mapping[str, Any]]) -> Path:
    """An export in a dialect; every record gets an id and a date if it has none."""
    folder.mkdir(parents=True, exist_ok=True)
    for entity, records in entities.items():
        fields = dict.fromkeys(key for record in records for key in record)
        whole = [
            {"id": oid(number), "created_date": "2026-03-01T10:00:00.000000", **dict.fromkeys(fields), **record}
            for number, record in enumerate(records, 1)
        ]
        text = form_of(dialect, ()).empty
        if whole:
            form = form_of(dialect, tuple(whole[0]))
            text = form.opening + form.separator.join(form.encode(record) for record in whole) + form.closing
        (folder / file_name(dialect, entity)).write_bytes(text.encode())
    return folder


def app_of(
    tmp_path: Path, overrides: Overrides | None = None, given: Sequence[Mapping[str, Any]] = (), **entities: Any
) -> App:
    reading = read_schemas(schemas(tmp_path / "entities", *given))
    return infer(reading, export(tmp_path / "export", **entities) if entities else None, overrides)


def table(app: App, name: str) -> Table:
    return {one.name: one for one in app.tables}[name]


def column(app: App, path: str) -> Column:
    of, _, name = path.partition(".")
    return {one.name: one for one in table(app, of).columns}[name]


def decided(app: App, subject: str, topic: str) -> list[Decision]:
    return [one for one in app.decisions if (one.subject, one.topic) == (subject, topic)]


def test_tables_columns_and_built_in_fields(tmp_path: Path) -> None:
    app = app_of(tmp_path)
    assert {one.name for one in app.tables} == {"boats", "harbours", "users"}
    assert [one.name for one in table(app, "boats").columns] == [
        "id", "name", "harbour_id", "length", "state", "launched", "masts", "owner_email", "checked_by", "radio_token", "order",
        "created_at", "updated_at", "created_by_id", "created_by", "is_sample",
    ]  # fmt: skip
    assert {one.name for one in table(app, "users").columns} >= {"id", "email", "full_name", "role", "created_at"}
    assert table(app, "users").entity.origin is Origin.BUILT_IN
    assert table(app, "boats").records is None and column(app, "boats.name").counts is None


def test_references_order_and_circles(tmp_path: Path) -> None:
    app = app_of(tmp_path, given=[BOAT, {**HARBOUR, "properties": {"boat_id": TEXT, "parent_id": TEXT}}])
    reference = column(app, "boats.harbour_id").reference
    assert reference is not None and (reference.table, reference.by, reference.constrained) == (
        "harbours",
        ReferenceBy.ID,
        True,
    )
    assert column(app, "boats.harbour_id").type is ColumnType.UUID
    order = [one.name for one in app.tables]
    circle = [column(app, "boats.harbour_id").reference, column(app, "harbours.boat_id").reference]
    assert sum(one is not None and one.cyclic for one in circle) == 1
    own = column(app, "harbours.parent_id").reference
    assert own is not None and own.cyclic
    for one in app.tables:
        assert all(order.index(before) < order.index(one.name) for before in one.after)
    email = column(app, "boats.owner_email").reference
    assert email is not None and (email.by, email.constrained) == (ReferenceBy.EMAIL, False)


@pytest.mark.parametrize("strict", [False, True])
def test_what_is_required_and_does_not_fit_its_type_is_null_and_so_not_valid(tmp_path: Path, strict: bool) -> None:
    boats = [{"masts": number} for number in range(19)] + [{"masts": "two"}]
    app = app_of(tmp_path, Overrides(strict=strict), given=[{**BOAT, "required": ["masts"]}], Boat=boats)
    one = column(app, "boats.masts")
    assert one.counts is not None and (one.type, one.counts.unfit, one.counts.missing) == (ColumnType.BIGINT, 1, 0)
    # Where such a record is refused, no row breaks it.
    assert one.fits == strict
    assert [decision.text for decision in decided(app, "boats.masts", "constraint")] == (
        [] if strict else ["is NOT VALID"]
    )


def test_dangling_references_are_counted_and_their_constraint_is_not_valid(tmp_path: Path) -> None:
    boats = [{"harbour_id": oid(1)}, {"harbour_id": oid(1)}, {"harbour_id": oid(99)}, {"harbour_id": None}]
    app = app_of(tmp_path, Boat=boats, Harbour=[{"title": "A"}])
    one = column(app, "boats.harbour_id")
    assert one.counts is not None and (one.counts.filled, one.counts.found, one.counts.missing) == (3, 2, 1)
    assert not one.fits and one.reference is not None and one.reference.constrained
    [decision] = decided(app, "boats.harbour_id", "reference")
    assert decision.evidence == "name matches, 2 of 3 values found" and "NOT VALID" in decision.text


def test_any_text_is_an_id_and_no_array_of_ids(tmp_path: Path) -> None:
    properties = {"harbour_id": TEXT, "buoy_ids": {"type": "array", "items": TEXT}}
    visit = {"name": "Visit", "properties": properties, "required": [*properties]}
    visits = [{"harbour_id": oid(1), "buoy_ids": [oid(1)]} for _ in range(4)] + [
        {"harbour_id": "12", "buoy_ids": "some"}
    ]
    buoy = {"name": "Buoy", "properties": {"label": TEXT}}
    app = app_of(tmp_path, given=[visit, buoy, HARBOUR], Visit=visits, Buoy=[{"label": "A"}], Harbour=[{"title": "B"}])
    assert [decision.text for decision in decided(app, "visits.harbour_id", "constraint")] == []
    [decision] = decided(app, "visits.buoy_ids", "constraint")
    assert "1 of 5 values does not fit" in decision.evidence
    assert [decision.text for decision in decided(app, "visits.buoy_ids", "type")] == ["is uuid[]"]


def test_what_the_owner_should_look_at_of_references_is_doubtful(tmp_path: Path) -> None:
    boat_ids = {"type": "array", "items": TEXT}
    visit = {"name": "Visit", "properties": {"boat_ids": boat_ids, "keel_id": TEXT, "owner_email": TEXT}}
    visits = [
        {"boat_ids": [oid(1), oid(99)], "keel_id": oid(number), "owner_email": f"{name}@example.org"}
        for number, name in ((1, "ada"), (2, "ada"), (3, "bo"))
    ]
    app = app_of(
        tmp_path,
        given=[visit, BOAT, HARBOUR],
        Visit=visits,
        Boat=[{"name": name} for name in "ABC"],
        User=[{"email": "ada@example.org"}],
    )
    counts = column(app, "visits.boat_ids").counts
    assert counts is not None and counts.dangling == 3
    for name in ("boat_ids", "keel_id", "owner_email"):
        [decision] = decided(app, f"visits.{name}", "reference")
        assert decision.doubtful, name


def test_what_the_data_does_not_honour_is_counted_and_decided(tmp_path: Path) -> None:
    boats = [{"name": "A", "state": "afloat", "length": 3}, {"name": "", "state": "sunk", "length": -1}]
    app = app_of(tmp_path, Boat=boats, Harbour=[])
    name, state, length = (column(app, f"boats.{one}") for one in ("name", "state", "length"))
    assert [one.fits for one in (name, state, length)] == [False, False, False]
    assert name.counts is not None and name.counts.missing == 1
    assert state.counts is not None and state.counts.outside == 1
    assert length.counts is not None and length.counts.outside == 1
    assert [len(decided(app, f"boats.{one}", "constraint")) for one in ("name", "state", "length", "masts")] == [
        1,
        1,
        1,
        0,
    ]


def test_types_are_widened_or_left_by_the_cells(tmp_path: Path) -> None:
    boats: list[dict[str, Any]] = [{"launched": "2026-01-31", "masts": "2", "length": "1.5"} for _ in range(20)]
    boats[0] |= {"launched": "2026-01-31T10:00", "length": "long"}
    for one in boats[:10]:
        one["masts"] = "two"
    app = app_of(tmp_path, Boat=boats, Harbour=[])
    kinds = {name: column(app, f"boats.{name}").type for name in ("launched", "masts", "length")}
    assert kinds == {"launched": ColumnType.TIMESTAMPTZ, "masts": ColumnType.TEXT, "length": ColumnType.NUMERIC}
    length = column(app, "boats.length").counts
    assert length is not None and length.unfit == 1
    assert all(decided(app, f"boats.{name}", "type") for name in kinds)


def test_persons_by_id_by_email_or_both(tmp_path: Path) -> None:
    users = [{"email": "Ada@example.com"}, {"email": "bob@example.com"}]
    ids = app_of(tmp_path / "1", Boat=[{"checked_by": oid(1)}], User=users, Harbour=[])
    emails = app_of(tmp_path / "2", Boat=[{"checked_by": "ada@EXAMPLE.com"}], User=users, Harbour=[])
    both = app_of(
        tmp_path / "3", Boat=[{"checked_by": oid(1)}, {"checked_by": "bob@example.com"}], User=users, Harbour=[]
    )
    assert column(ids, "boats.checked_by").type is ColumnType.UUID
    reference = column(emails, "boats.checked_by").reference
    assert reference is not None and reference.by is ReferenceBy.EMAIL
    assert (
        column(both, "boats.checked_by").reference is None and column(both, "boats.checked_by").type is ColumnType.TEXT
    )
    assert "50 %" in decided(both, "boats.checked_by", "reference")[0].evidence


def test_creators_that_are_no_users_stay_text(tmp_path: Path) -> None:
    service = "service_0b9b9f5e-0000-4000-8000-000000000000"
    app = app_of(
        tmp_path, Boat=[{"created_by_id": service}, {"created_by_id": oid(1)}], Harbour=[{"created_by_id": oid(1)}]
    )
    # In all tables alike, so that they can be compared and joined.
    for table in ("boats", "harbours"):
        assert column(app, f"{table}.created_by_id").type is ColumnType.TEXT
        assert column(app, f"{table}.created_by_id").reference is None
    assert "1 of 3 values" in decided(app, "*.created_by_id", "reference")[0].evidence
    # A word for nobody is no id, and no other value either.
    known = app_of(
        tmp_path,
        Boat=[{"created_by_id": oid(1), "created_by": "Undefined"}, {"created_by_id": "null"}],
        Harbour=[{"created_by_id": oid(1)}],
        User=[{"email": "ada@example.org"}],
    )
    assert {column(known, f"{table}.created_by_id").type for table in ("boats", "harbours")} == {ColumnType.UUID}
    assert column(known, "boats.created_by_id").fits
    for name, filled in (("created_by_id", 1), ("created_by", 0)):
        counts = column(known, f"boats.{name}").counts
        assert counts is not None and counts.filled == filled


def test_secrets_are_named(tmp_path: Path) -> None:
    app = app_of(tmp_path)
    assert column(app, "boats.radio_token").secret
    assert decided(app, "boats.radio_token", "secret")


def test_secrets_within_objects_are_named_from_the_schema_and_from_the_values(tmp_path: Path) -> None:
    keys = {"type": "array", "items": {"type": "object", "properties": {"apiKey": TEXT, "label": TEXT}}}
    settings = {
        "type": "object",
        "properties": {"mail": {"type": "object", "properties": {"password": TEXT}}, "keys": keys},
    }
    one = {
        "name": "Boat",
        "type": "object",
        "properties": {"settings": settings, "more": {"type": "object"}, "log": TEXT},
    }
    app = app_of(
        tmp_path,
        given=[one],
        Boat=[
            {
                "settings": {"mail": {"password": "x"}, "keys": [{"apiKey": "y"}]},
                "more": {"pin": 1234, "has_token": True},
            },
            {"more": [{"jwt": "z"}], "log": '{"tokens": 12, "note": "token"}'},
        ],
    )
    named = {one.subject: one.evidence for one in app.decisions if one.topic == "secret"}
    of_values = "by its name, in the values of the export"
    assert named == {
        "boats.settings.mail.password": "by its name",
        "boats.settings.keys[].apiKey": "by its name",
        "boats.more.pin": of_values,
        "boats.more[].jwt": of_values,
    }
    assert [column(app, f"boats.{name}").secret for name in ("settings", "more", "log")] == [True, True, False]


def test_entities_and_fields_of_the_export_alone_are_text(tmp_path: Path) -> None:
    app = app_of(
        tmp_path,
        Boat=[{"colour": "red", "nothing": None}],
        Harbour=[],
        Pier=[{"number": 1, "at": "2026-01-01", "app_id": "x"}],
    )
    assert column(app, "boats.colour").field.origin is Origin.EXPORT
    assert {"nothing"}.isdisjoint(one.name for one in table(app, "boats").columns)
    assert [column(app, f"piers.{name}").type for name in ("number", "at")] == [ColumnType.TEXT, ColumnType.TEXT]
    assert column(app, "piers.app_id").field.origin is Origin.BUILT_IN
    assert decided(app, "Pier", "entity") and decided(app, "boats", "field")


@pytest.mark.parametrize("dialect", DIALECTS)
def test_an_export_alone_recognises_ids_and_dates_in_every_dialect(tmp_path: Path, dialect: str) -> None:
    boats = [
        {
            "harbour_id": oid(1),
            "at": "2026-01-31T10:00:00.000000",
            "day": "2026-01-31",
            "phone": "0041",
            "is_sample": True,
        },
        {"harbour_id": oid(2), "at": None, "day": "2026-02-01", "phone": "1", "is_sample": False},
    ]
    app = infer(None, export(tmp_path, dialect, Boat=boats, Harbour=[{"title": "A"}, {"title": "B"}]))
    kinds = {one.name: one.type for one in table(app, "boats").columns}
    assert kinds["harbour_id"] is ColumnType.UUID and kinds["is_sample"] is ColumnType.BOOLEAN
    assert (kinds["at"], kinds["day"]) == (ColumnType.TIMESTAMPTZ, ColumnType.DATE)
    assert (kinds["phone"], kinds["created_at"]) == (ColumnType.TEXT, ColumnType.TIMESTAMPTZ)
    assert table(app, "boats").records == 2


def test_an_entity_whose_schema_could_not_be_read_is_no_entity_without_one(tmp_path: Path) -> None:
    folder = schemas(tmp_path / "entities", BOAT)
    (folder / "Harbour.jsonc").write_text('{"properties": ')
    app = infer(read_schemas(folder), export(tmp_path / "export", Harbour=[{"title": "A"}], Visit=[{"at": "noon"}]))
    [broken], [unknown] = decided(app, "Harbour", "entity"), decided(app, "Visit", "entity")
    assert broken.doubtful and "Harbour.jsonc" in broken.evidence
    assert not unknown.doubtful


def test_a_default_that_is_none_of_the_values_is_told_of(tmp_path: Path) -> None:
    kinds = {
        "a": {**TEXT, "enum": ["x", ""], "default": "y"},
        "b": {**TEXT, "enum": ["x", ""], "default": ""},
        "c": {"type": "integer", "default": "many"},
        "d": {**TEXT, "default": "fine"},
    }
    app = app_of(tmp_path, given=[{"name": "Boat", "properties": kinds}])
    assert [(one.subject, one.doubtful) for one in without_default(app)] == [("boats.a", True), ("boats.c", True)]
    [values] = [
        rule for rule in rules_of(app, table(app, "boats")) if (rule.kind, rule.column.name) == (RuleKind.VALUES, "b")
    ]
    # The default can be written.
    assert values.comparisons[0].listed == ("'x'", "''")


def test_an_entity_without_records_has_a_table(tmp_path: Path) -> None:
    app = app_of(tmp_path, Boat=[{"name": "A"}], Harbour=[])
    assert table(app, "harbours").records == 0
    assert table(app, "users").records is None


def test_a_file_that_cannot_be_read_is_a_notice(tmp_path: Path) -> None:
    folder = export(tmp_path / "export", Boat=[{"name": "A"}])
    (folder / "Harbour.json").write_text("<html>")
    app = infer(read_schemas(schemas(tmp_path / "entities")), folder)
    assert [one.path for one in app.notices] == [folder / "Harbour.json"]
    assert table(app, "harbours").records is None


def test_repeated_keys_are_counted(tmp_path: Path) -> None:
    boats = [
        {"name": "A", "harbour_id": oid(1)},
        {"name": "A", "harbour_id": oid(1)},
        {"name": "A", "harbour_id": None},
        # A record that stands there twice is one record.
        {"name": "B", "harbour_id": oid(1), "id": oid(9)},
        {"name": "B", "harbour_id": oid(1), "id": oid(9)},
    ]
    app = app_of(tmp_path, Boat=boats, Harbour=[])
    assert table(app, "boats").repeated == ((("name", "harbour_id"), 1),)


def test_large_tables_are_partitioned_from_their_first_month_and_nothing_points_at_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(inference, "PARTITIONED_FROM", 3)
    harbours = [{"title": "A", "created_date": f"2025-{month:02}-10T00:00:00"} for month in (7, 5, 6)]
    boats = [{"harbour_id": oid(1)}]
    app = app_of(tmp_path / "1", Boat=boats, Harbour=harbours)
    assert (table(app, "harbours").partitioned, table(app, "harbours").first) == (True, date(2025, 5, 1))
    reference = column(app, "boats.harbour_id").reference
    assert reference is not None and not reference.constrained
    kept = app_of(tmp_path / "2", Overrides(not_partitioned=frozenset({"Harbour"})), Boat=boats, Harbour=harbours)
    assert not table(kept, "harbours").partitioned
    given = app_of(tmp_path / "3", Overrides(first_periods={"Boat": date(2024, 2, 1)}), Boat=boats, Harbour=[])
    assert (table(given, "boats").partitioned, table(given, "boats").first) == (True, date(2024, 2, 1))


def test_overrides_win(tmp_path: Path) -> None:
    overrides = Overrides(
        app="fleet",
        tables={"Boat": "vessels"},
        columns={("Boat", "name"): "label"},
        types={("Boat", "masts"): ColumnType.TEXT},
        references={("Boat", "harbour_id"): "", ("Boat", "order"): "Harbour", ("Boat", "state"): "User.email"},
    )
    app = app_of(tmp_path, overrides)
    assert app.name == "fleet"
    assert column(app, "vessels.label").field.name == "name"
    assert column(app, "vessels.masts").type is ColumnType.TEXT
    assert column(app, "vessels.harbour_id").reference is None
    order = column(app, "vessels.order").reference
    state = column(app, "vessels.state").reference
    assert order is not None and (order.table, order.by, order.rule) == ("harbours", ReferenceBy.ID, "override")
    assert state is not None and (state.table, state.by) == ("users", ReferenceBy.EMAIL)


def test_what_is_left_out_has_no_table_and_nothing_points_at_it(tmp_path: Path) -> None:
    app = app_of(
        tmp_path, Overrides(left_out=frozenset({"Harbour"})), Boat=[{"harbour_id": oid(1)}], Harbour=[{"title": "A"}]
    )
    assert {one.name for one in app.tables} == {"boats", "users"} and app.left_out == ("Harbour",)
    assert column(app, "boats.harbour_id").reference is None


@pytest.mark.parametrize(
    "overrides",
    [
        Overrides(tables={"Boat": "Boats"}),
        Overrides(tables={"Boat": "pg_class"}),
        Overrides(tables={"Boat": "a", "Harbour": "a"}),
        Overrides(columns={("Boat", "name"): "reasons"}),
        Overrides(columns={("Boat", "name"): "a", ("Boat", "order"): "a"}),
        Overrides(references={("Boat", "name"): "Submarine"}),
        Overrides(references={("Boat", "name"): "Harbour"}, left_out=frozenset({"Harbour"})),
    ],
)
def test_overrides_that_cannot_be_followed_are_refused(tmp_path: Path, overrides: Overrides) -> None:
    with pytest.raises(B44Error, match=r"b44\.toml"):
        app_of(tmp_path, overrides)


def test_overrides_of_what_there_is_not_are_notices(tmp_path: Path) -> None:
    overrides = Overrides(
        tables={"Submarine": "submarines"},
        types={("Boat", "depth"): ColumnType.TEXT},
        left_out=frozenset({"Raft"}),
    )
    assert len(app_of(tmp_path, overrides).notices) == 3


def test_the_same_again_is_the_same(tmp_path: Path) -> None:
    boats = [{"name": f"b{number}", "harbour_id": oid(number % 7)} for number in range(50)]
    first = app_of(tmp_path, Boat=boats, Harbour=[{"title": "A"}])
    assert app_of(tmp_path, Boat=boats, Harbour=[{"title": "A"}]) == first


def test_neither_schema_nor_export_is_an_error() -> None:
    with pytest.raises(B44Error):
        infer(None)


def test_limits_that_a_columns_type_cannot_hold_are_no_constraint_and_said_to_be_none(tmp_path: Path) -> None:
    app = app_of(tmp_path, Boat=[{"length": "-1"}, *[{"length": "long"}] * 3])
    assert column(app, "boats.length").type is ColumnType.TEXT and column(app, "boats.length").fits
    assert decided(app, "boats.length", "constraint") == []
    [said] = not_held(app)
    assert (said.subject, said.text) == ("boats.length", "the limit is not enforced: minimum")


def test_members_of_an_array_outside_the_enum_make_its_constraint_not_valid(tmp_path: Path) -> None:
    flags = {"type": "array", "items": {"type": "string", "enum": ["red", "blue"]}}
    boat = {**BOAT, "properties": {"flags": flags}, "required": [], "indexes": []}
    app = app_of(tmp_path, given=[boat], Boat=[{"flags": ["red"]}, {"flags": ["red", "pink"]}])
    assert not column(app, "boats.flags").fits
    assert [one.evidence for one in decided(app, "boats.flags", "constraint")] == ["1 of 2 values outside the enum"]


def test_values_as_a_spreadsheet_shows_them_are_text_and_one_notice(tmp_path: Path) -> None:
    boats = [{"launched": "31.12.2025", "length": "1.234,56"}, {"launched": "1.2.2026", "length": "9,5"}]
    app = app_of(tmp_path, Boat=boats, Harbour=[{"title": "9,5"}])
    assert {column(app, "boats.launched").type, column(app, "boats.length").type} == {ColumnType.TEXT}
    assert ["Boat" in one.text for one in app.notices] == [True] and "Harbour" not in app.notices[0].text


def test_values_that_fit_no_type_in_any_form_are_no_spreadsheets(tmp_path: Path) -> None:
    assert app_of(tmp_path, Boat=[{"launched": "soon", "masts": "many"}]).notices == ()
