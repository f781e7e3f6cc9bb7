"""Types of columns: from the schema, confirmed on the cells; secrets and prose by their names."""

from __future__ import annotations

from typing import Any

import pytest

from b44_assets.scaffold.columns import candidate_types, confirmed_type, declared_type, is_allowed
from b44_assets.scaffold.model import ColumnType as T
from b44_assets.scaffold.model import Field, Origin
from b44_assets.scaffold.sensitive import HIDDEN, is_prose, is_secret, without_secrets

ITEM = Field("[]", types=("string",))


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (Field("a"), T.TEXT),
        (Field("a", types=("string",)), T.TEXT),
        (Field("a", types=("string",), format="email"), T.TEXT),
        (Field("a", types=("string",), format="date-time"), T.TIMESTAMPTZ),
        (Field("a", types=("string",), format="date"), T.DATE),
        (Field("a", types=("string",), format="time"), T.TIME),
        (Field("a", types=("number",)), T.NUMERIC),
        (Field("a", types=("integer",)), T.BIGINT),
        (Field("a", types=("integer", "number")), T.NUMERIC),
        (Field("a", types=("boolean",)), T.BOOLEAN),
        (Field("a", types=("object",)), T.JSONB),
        (Field("a", types=("array",), items=ITEM), T.TEXT_ARRAY),
        (Field("a", types=("array",), items=Field("[]", types=("string",), nullable=True)), T.JSONB),
        (Field("a", types=("array",), items=Field("[]", types=("number",))), T.JSONB),
        (Field("a", types=("array",)), T.JSONB),
        (Field("a", types=("string", "number")), T.TEXT),
        (Field("a", types=("string", "object")), T.TEXT),
        (Field("a", types=("number", "object")), T.JSONB),
    ],
)
def test_the_type_that_a_schema_asks_for(field: Field, expected: T) -> None:
    assert declared_type(field) is expected


def chosen(field: Field, filled: int, **fitting: int) -> T:
    types = candidate_types(field)
    return confirmed_type(types, filled, {T[name]: number for name, number in fitting.items()}, all_fit=False)


INTEGER = Field("a", types=("integer",))
DATE = Field("a", types=("string",), format="date")
TEXTS = Field("a", types=("array",), items=ITEM)


@pytest.mark.parametrize(
    ("field", "filled", "fitting", "expected"),
    [
        (INTEGER, 0, {}, T.BIGINT),
        (INTEGER, 10, {"BIGINT": 10, "NUMERIC": 10}, T.BIGINT),
        (INTEGER, 10, {"BIGINT": 2, "NUMERIC": 10}, T.NUMERIC),
        (INTEGER, 12, {"BIGINT": 9, "NUMERIC": 9}, T.BIGINT),
        (INTEGER, 12, {"BIGINT": 8, "NUMERIC": 8}, T.TEXT),
        (DATE, 10, {"DATE": 9, "TIMESTAMPTZ": 10}, T.TIMESTAMPTZ),
        (DATE, 10, {"DATE": 0, "TIMESTAMPTZ": 0}, T.TEXT),
        (TEXTS, 10, {"TEXT_ARRAY": 9, "JSONB": 10}, T.JSONB),
    ],
)
def test_the_cells_confirm_a_type_or_widen_it(field: Field, filled: int, fitting: dict[str, int], expected: T) -> None:
    assert chosen(field, filled, **fitting) is expected


def test_a_field_of_the_export_alone_is_text_and_without_schemas_a_date_where_every_cell_is_one() -> None:
    field = Field("a", Origin.EXPORT)
    assert candidate_types(field) == (T.TEXT,)
    types = candidate_types(field, without_schemas=True)
    assert confirmed_type(types, 5, {T.DATE: 5, T.TIMESTAMPTZ: 5}, all_fit=True) is T.DATE
    assert confirmed_type(types, 5, {T.DATE: 1, T.TIMESTAMPTZ: 5}, all_fit=True) is T.TIMESTAMPTZ
    assert confirmed_type(types, 50, {T.TIMESTAMPTZ: 49}, all_fit=True) is T.TEXT
    assert confirmed_type(types, 0, {}, all_fit=True) is T.TEXT


@pytest.mark.parametrize(
    ("field", "inside", "outside"),
    [
        (Field("a", types=("string",), enum=("open", None, "")), ["open"], ["Open", "closed"]),
        (Field("a", types=("number",), enum=(1, 2)), ["1", "2.0"], ["3"]),
        (Field("a", types=("boolean",), enum=(True,)), ["true"], ["false"]),
        (Field("a", types=("string",), limits={"minLength": 2, "maxLength": 3}), ["äöü"], ["a", "abcd"]),
        (
            Field("a", types=("number",), limits={"minimum": 0, "exclusiveMaximum": 10}),
            ["0", "9.99", "x"],
            ["-0.1", "10"],
        ),
        (
            Field(
                "a",
                types=("array",),
                items=Field("[]", types=("string",), enum=("red", "blue")),
                limits={"maxItems": 2},
            ),
            ["[]", '["red","blue"]', "{}", "[red"],
            ['["red","green"]', '["red",null]', '["red","red","red"]'],
        ),
    ],
)
def test_enums_and_limits(field: Field, inside: list[str], outside: list[str]) -> None:
    allowed = is_allowed(field)
    assert allowed is not None
    assert [allowed(text) for text in inside] == [True] * len(inside)
    assert [allowed(text) for text in outside] == [False] * len(outside)


def test_without_enum_and_limits_nothing_is_asked() -> None:
    assert is_allowed(Field("a", types=("string",))) is None


@pytest.mark.parametrize(
    ("name", "kind", "expected"),
    [
        ("totp_secret", T.TEXT, True),
        ("apiKey", T.TEXT, True),
        ("password_hash", T.TEXT, True),
        ("access_token", T.TEXT, True),
        ("backup_codes", T.TEXT_ARRAY, True),
        ("pin", T.BIGINT, True),
        ("stripe_secret_key", T.TEXT, True),
        ("otpCode", T.TEXT, True),
        ("discount_code", T.TEXT, False),
        ("tokens", T.NUMERIC, False),
        ("token_count", T.TEXT, False),
        ("is_secret", T.BOOLEAN, False),
        ("password_changed_at", T.TIMESTAMPTZ, False),
        ("shipping", T.TEXT, False),
        ("pinned", T.TEXT, False),
        ("secretary", T.TEXT, False),
    ],
)
def test_secrets_by_name(name: str, kind: T, expected: bool) -> None:
    assert is_secret(Field(name), kind) is expected


@pytest.mark.parametrize(
    ("given", "expected"),
    [
        ({"name": "description"}, True),
        ({"name": "adminNotes"}, True),
        ({"name": "x", "format": "richtext"}, True),
        ({"name": "x", "description": "Markdown of the page"}, True),
        ({"name": "description", "enum": ("a",)}, False),
        ({"name": "content", "format": "uri"}, False),
        ({"name": "message", "limits": {"maxLength": 80}}, False),
        ({"name": "title"}, False),
        ({"name": "buttonText"}, False),
        ({"name": "font_size_body"}, False),
        ({"name": "og_description"}, False),
        ({"name": "lastMessage"}, False),
        ({"name": "error_message"}, False),
    ],
)
def test_prose(given: dict[str, Any], expected: bool) -> None:
    assert is_prose(Field(types=("string",), **given), T.TEXT) is expected


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("token", "token"),
        ('{"theme": "dark", "n": 1.50}', '{"theme": "dark", "n": 1.50}'),
        ('{"a": [{"api_key": "x", "b": 1}]}', f'{{"a": [{{"api_key": "{HIDDEN}", "b": 1}}]}}'),
        ('{"token": null, "tokens": 3, "password": true}', '{"token": null, "tokens": 3, "password": true}'),
        ('{"secret": {"of": "x"}}', f'{{"secret": "{HIDDEN}"}}'),
        # Cut off, and with its quotes still doubled.
        ('{"password": "x', HIDDEN),
        ('1,"{""password"":""x""}"', HIDDEN),
    ],
)
def test_a_value_is_shown_without_the_secrets_in_it(text: str, shown: str) -> None:
    assert without_secrets(text) == shown
