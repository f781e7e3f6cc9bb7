"""Reading entity schemas: both layouts, JSON with comments, aliases, references; what cannot be read is said, the rest goes on."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.errors import B44Error
from b44_assets.scaffold.entity_schemas import LARGEST, parse, read_schemas
from b44_assets.scaffold.model import ABSENT, Entity, Field, Reading


def write(path: Path, schema: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(schema if isinstance(schema, str) else json.dumps(schema), encoding="utf-8")


def schema_of(name: str | None, **properties: Any) -> dict[str, Any]:
    return {**({"name": name} if name else {}), "type": "object", "properties": properties}


TEXT = {"type": "string"}


def named(reading: Reading) -> dict[str, Entity]:
    return {entity.name: entity for entity in reading.entities}


def field_of(tmp_path: Path, given: Any, **schema: Any) -> tuple[Field, Reading]:
    """The field that a schema's only property is read into."""
    write(tmp_path / "Boat.jsonc", {**schema_of("Boat", hull=given), **schema})
    reading = read_schemas(tmp_path)
    return reading.entities[0].fields[0], reading


@pytest.mark.parametrize("given", ["", "base44", "base44/entities"])
def test_the_folder_may_be_the_repository_or_the_entities_own(tmp_path: Path, given: str) -> None:
    write(tmp_path / "base44/entities/Boat.jsonc", schema_of("Boat", hull=TEXT))
    assert list(named(read_schemas(tmp_path / given))) == ["Boat"]


def test_the_older_layout_is_read(tmp_path: Path) -> None:
    write(tmp_path / "src/entities/Boat.json", schema_of("Boat", hull=TEXT))
    assert list(named(read_schemas(tmp_path))) == ["Boat"]


def test_the_configuration_names_another_folder(tmp_path: Path) -> None:
    write(tmp_path / "base44/config.jsonc", '{"entitiesDir": "models", /* moved */}')
    write(tmp_path / "base44/models/Boat.jsonc", schema_of("Boat", hull=TEXT))
    write(tmp_path / "base44/entities/Old.jsonc", schema_of("Old", hull=TEXT))
    assert list(named(read_schemas(tmp_path))) == ["Boat"]


def test_of_two_that_declare_an_entity_the_newer_layout_counts_and_the_differences_are_named(tmp_path: Path) -> None:
    write(tmp_path / "base44/entities/Boat.jsonc", schema_of("Boat", hull=TEXT, sail={"type": "number"}))
    write(tmp_path / "src/entities/Boat.json", schema_of("Boat", hull=TEXT, sail=TEXT, mast=TEXT))
    reading = read_schemas(tmp_path)
    assert [field.name for field in named(reading)["Boat"].fields] == ["hull", "sail"]
    [notice] = reading.notices
    assert notice.path == tmp_path / "src/entities/Boat.json"
    assert "of this file alone: mast" in notice.text and "differently: sail" in notice.text


def test_in_one_folder_the_file_with_the_name_of_the_entity_counts(tmp_path: Path) -> None:
    write(tmp_path / "Anchor.json", schema_of("Boat", old=TEXT))
    write(tmp_path / "Boat.json", schema_of("Boat", hull=TEXT))
    reading = read_schemas(tmp_path)
    assert [field.name for field in named(reading)["Boat"].fields] == ["hull"]
    assert [notice.path for notice in reading.notices] == [tmp_path / "Anchor.json"]


def test_a_file_without_ending_is_read_and_a_licence_is_not(tmp_path: Path) -> None:
    write(tmp_path / "Boat", schema_of("Boat", hull=TEXT))
    write(tmp_path / "LICENSE", "Do as you like.")
    write(tmp_path / "index.ts", "export {}")
    reading = read_schemas(tmp_path)
    assert list(named(reading)) == ["Boat"] and reading.notices == ()


def test_an_extension_is_an_entity_by_its_files_name_and_said_to_be_one(tmp_path: Path) -> None:
    write(tmp_path / "shop.Order.jsonc", {"properties": {"colour": TEXT}})
    reading = read_schemas(tmp_path)
    assert list(named(reading)) == ["shop.Order"]
    assert [notice.path for notice in reading.notices] == [tmp_path / "shop.Order.jsonc"]


def test_names_that_differ_in_more_than_case_are_two_entities(tmp_path: Path) -> None:
    for name in ("Straße", "Strasse", "BOOT", "boot"):
        write(tmp_path / f"{name}.jsonc", schema_of(name, hull=TEXT))
    assert set(named(read_schemas(tmp_path))) == {"Straße", "Strasse", "BOOT"}


@pytest.mark.parametrize(
    "content",
    [
        b"{",
        b"[1]",
        b'"text"',
        b'{"scripts": {}}',
        b"\xff\xfe{\0",
        b"{" + b" " * LARGEST + b"}",
        b"[" * 100_000,
        b'{"a": NaN}',
    ],
)
def test_what_cannot_be_read_is_a_notice_and_the_rest_goes_on(tmp_path: Path, content: bytes) -> None:
    write(tmp_path / "Boat.jsonc", schema_of("Boat", hull=TEXT))
    (tmp_path / "Broken.jsonc").write_bytes(content)
    reading = read_schemas(tmp_path)
    assert list(named(reading)) == ["Boat"]
    [notice] = reading.notices
    assert notice.path == tmp_path / "Broken.jsonc" and "\n" not in notice.text


def test_a_link_to_elsewhere_is_a_notice_and_one_within_is_read(tmp_path: Path) -> None:
    write(tmp_path / "elsewhere/Secret.jsonc", schema_of("Secret", hull=TEXT))
    write(tmp_path / "app/shared/Boat.jsonc", schema_of("Boat", hull=TEXT))
    entities = tmp_path / "app/base44/entities"
    entities.mkdir(parents=True)
    (entities / "Secret.jsonc").symlink_to(tmp_path / "elsewhere/Secret.jsonc")
    (entities / "Gone.jsonc").symlink_to(tmp_path / "nowhere")
    (entities / "Boat.jsonc").symlink_to(tmp_path / "app/shared/Boat.jsonc")
    reading = read_schemas(tmp_path / "app")
    assert list(named(reading)) == ["Boat"]
    assert {notice.path.name for notice in reading.notices if notice.path} == {"Secret.jsonc", "Gone.jsonc"}


@pytest.mark.parametrize("made", ["nothing", "file", "empty", "broken"])
def test_a_folder_without_a_schema_is_one_clear_error(tmp_path: Path, made: str) -> None:
    folder = tmp_path / "entities"
    if made == "file":
        write(folder, "{}")
    elif made != "nothing":
        folder.mkdir()
    if made == "broken":
        write(folder / "Boat.jsonc", "{")
    with pytest.raises(B44Error) as caught:
        read_schemas(folder)
    assert str(folder) in str(caught.value) and "\n" not in str(caught.value)
    assert ("Boat.jsonc" in str(caught.value)) == (made == "broken")


@pytest.mark.parametrize(
    ("given", "types", "nullable", "form"),
    [
        ({"type": "string"}, ("string",), False, ""),
        ({"type": ["null", "number", "string"]}, ("number", "string"), True, ""),
        ({"type": "string", "nullable": True}, ("string",), True, ""),
        ({"type": "datetime"}, ("string",), False, "date-time"),
        ({"type": "string", "format": "datetime"}, ("string",), False, "date-time"),
        ({"type": "bool"}, ("boolean",), False, ""),
        ({"enum": ["a", "b"]}, ("string",), False, ""),
        ({"enum": [1, 2.5]}, ("number",), False, ""),
        ({"properties": {"a": TEXT}}, ("object",), False, ""),
        ({"items": TEXT}, ("array",), False, ""),
        ({"anyOf": [{"type": "integer"}, {"type": "null"}]}, ("integer",), True, ""),
        ({"oneOf": [{"type": "string"}, {"type": "number"}]}, ("string", "number"), False, ""),
        ({"allOf": [{"type": "string"}, {"format": "email"}]}, ("string",), False, "email"),
        ("number", ("number",), False, ""),
        ({}, (), False, ""),
    ],
)
def test_types(tmp_path: Path, given: Any, types: tuple[str, ...], nullable: bool, form: str) -> None:
    field, reading = field_of(tmp_path, given)
    assert (field.types, field.nullable, field.format) == (types, nullable, form)
    assert reading.notices == ()


def test_nested_members_and_items_are_read(tmp_path: Path) -> None:
    crew = {"type": "array", "items": {"type": "object", "properties": {"name": TEXT, "age": {"type": "integer"}}}}
    field, _ = field_of(tmp_path, crew)
    assert field.items is not None
    assert [(one.name, one.types) for one in field.items.properties] == [("name", ("string",)), ("age", ("integer",))]


def test_references_within_the_file_are_followed_round_a_circle_as_well(tmp_path: Path) -> None:
    port = {"type": "object", "properties": {"name": TEXT, "next": {"$ref": "#/$defs/port"}}}
    field, reading = field_of(tmp_path, {"$ref": "#/$defs/port"}, **{"$defs": {"port": port}})
    assert [(one.name, one.types) for one in field.properties] == [("name", ("string",)), ("next", ("object",))]
    assert field.properties[1].properties == ()
    assert reading.notices == ()


def test_references_that_multiply_come_to_an_end(tmp_path: Path) -> None:
    parts = {
        f"p{level}": {"type": "object", "properties": {side: {"$ref": f"#/$defs/p{level + 1}"} for side in "abcd"}}
        for level in range(30)
    }
    _, reading = field_of(tmp_path, {"$ref": "#/$defs/p0"}, **{"$defs": parts | {"p30": TEXT}})
    assert len(reading.notices) == 1


@pytest.mark.parametrize(
    "given",
    [
        {"$ref": "https://example.invalid/x"},
        {"$ref": "#/nowhere"},
        {"type": "quaternion"},
        {"type": "string", "enum": "a"},
        {"type": "string", "maxLength": "10"},
        {"type": "string", "pattern": 1},
        {"type": "string", "validation": {"custom": "x"}},
        ["string"],
    ],
)
def test_what_is_lost_is_said_once(tmp_path: Path, given: Any) -> None:
    field, reading = field_of(tmp_path, given)
    assert field.name == "hull" and len(reading.notices) == 1 and "hull" in reading.notices[0].text


@pytest.mark.parametrize("given", [{"type": "string", "x-colour": {"a": 1}}, {"type": "string", "ui": "select"}])
def test_odd_keys_by_which_nothing_is_lost_are_not_told(tmp_path: Path, given: Any) -> None:
    _, reading = field_of(tmp_path, given)
    assert reading.notices == ()


def test_required_unique_defaults_and_indexes(tmp_path: Path) -> None:
    schema = {
        **schema_of("Boat", hull={"type": "string", "unique": True, "default": None}, mast=TEXT),
        "required": ["mast", "gone", "created_by"],
        "indexes": [{"fields": ["hull", "mast"], "unique": True}, {"fields": ["gone"]}, ["created_date"]],
    }
    write(tmp_path / "Boat.json", schema)
    reading = read_schemas(tmp_path)
    [boat] = reading.entities
    hull, mast = boat.fields
    assert (hull.required, hull.unique, hull.default) == (False, True, None)
    assert (mast.required, mast.unique, mast.default is ABSENT) == (True, False, True)
    assert boat.indexes == ((("hull", "mast"), True), (("created_date",), False))
    assert ["gone" in notice.text for notice in reading.notices] == [True, True]


def test_rules_of_both_dialects_are_kept_apart(tmp_path: Path) -> None:
    write(tmp_path / "Boat.json", {**schema_of("Boat"), "rls": None, "security": {"read": "public"}})
    write(tmp_path / "Port.json", schema_of("Port"))
    entities = named(read_schemas(tmp_path))
    assert entities["Boat"].rls is None and entities["Boat"].other_rules == {"security": {"read": "public"}}
    assert entities["Port"].rls is ABSENT and entities["Port"].other_rules == {}


def test_a_key_that_stands_twice_is_told(tmp_path: Path) -> None:
    write(
        tmp_path / "Boat.json",
        '{"name": "Boat", "properties": {"hull": {"type": "string"}, "hull": {"type": "number"}}}',
    )
    reading = read_schemas(tmp_path)
    assert reading.entities[0].fields[0].types == ("number",)
    assert "hull" in reading.notices[0].text


values = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.decimals(allow_nan=False, allow_infinity=False, places=12)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)


def written(value: Any, comment: str, comma: str) -> str:
    """A value as JSON with comments, numbers with all of their digits."""
    if isinstance(value, dict):
        parts = [f"{json.dumps(key)}: {written(one, comment, comma)}" for key, one in value.items()]
        return "{" + comment + ", ".join(parts) + (comma if parts else "") + "}"
    if isinstance(value, list):
        parts = [written(one, comment, comma) for one in value]
        return "[" + comment + ", ".join(parts) + (comma if parts else "") + "]"
    return str(value) if isinstance(value, Decimal) else json.dumps(value)


@given(values, st.sampled_from(["", '// a "note"\n', "/* a { note */ "]), st.sampled_from(["", ","]))
def test_json_with_comments_and_trailing_commas_is_read_to_the_last_digit(value: Any, comment: str, comma: str) -> None:
    read, doubled = parse(comment + written(value, comment, comma))
    assert read == value and doubled == ()
