"""Names of tables and columns: whatever entities and fields are called, each has one that PostgreSQL takes, and no two the same."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.catalog.references import COLUMNS_OF_MIGRATION
from b44_assets.scaffold.model import Entity, Field, Origin, Overrides
from b44_assets.scaffold.names import (
    LONGEST,
    LONGEST_TABLE,
    RESERVED,
    name_columns,
    name_tables,
    quoted,
    snake_case,
    table_name,
)

IDENTIFIER = re.compile(r"[a-z_][a-z0-9_]*")
# Names as people give them, and any text besides.
spelt = st.one_of(
    st.from_regex(r"[A-Za-z_][A-Za-z0-9_. -]{0,80}", fullmatch=True),
    st.sampled_from(
        ["userId", "user_id", "UserID", "user-id", "reasons", "ctid", "PgClass", "created_at", "createdAt"]
    ),
    st.text(min_size=1, max_size=90),
)


def entity(name: str, *fields: str) -> Entity:
    return Entity(name, Origin.SCHEMA, tuple(Field(field) for field in fields))


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("User", "users"),
        ("Order", "orders"),
        ("Category", "categories"),
        ("AIUsageLog", "ai_usage_logs"),
        ("AppSettings", "app_settings"),
        ("Page_View", "page_views"),
        ("shop.LineItem", "shop_line_items"),
        ("CompanyInfo", "company_info"),
        ("NewsArticle", "news_articles"),
        ("PgClass", "app_pg_classes"),
        ("Value", "app_values"),
        ("B44", "app_b44"),
        ("OtherEntity", "app_other_entities"),
        ("Reference", "app_references"),
    ],
)
def test_a_table_is_the_plural_of_its_entity(name: str, expected: str) -> None:
    assert table_name(name) == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("dueDate", "due_date"),
        ("HTMLBody2", "html_body2"),
        ("_app_role", "app_role"),
        ("2fa_code", "_2fa_code"),
        ("Größe (cm)", "grosse_cm"),
        ("order", "order"),
    ],
)
def test_snake_case(name: str, expected: str) -> None:
    assert snake_case(name) == expected


@given(spelt)
def test_snake_case_gives_an_identifier_and_leaves_it_alone(name: str) -> None:
    once = snake_case(name)
    assert IDENTIFIER.fullmatch(once)
    assert snake_case(once) == once


@given(st.lists(spelt, unique=True, max_size=12))
def test_no_two_tables_have_one_name_and_none_is_too_long(spelt_names: list[str]) -> None:
    names, _ = name_tables([entity(name) for name in spelt_names], Overrides())
    assert set(names) == set(spelt_names)
    assert len(set(names.values())) == len(spelt_names)
    for name in names.values():
        assert IDENTIFIER.fullmatch(name) and len(name) <= LONGEST_TABLE and not name.startswith("pg_")


@given(st.lists(spelt, unique=True, max_size=12))
def test_no_two_columns_have_one_name_and_none_is_one_that_records_have_besides(spelt_names: list[str]) -> None:
    names, _ = name_columns(entity("Thing"), [Field(name) for name in spelt_names], Overrides())
    assert set(names) == set(spelt_names)
    assert len(set(names.values())) == len(spelt_names)
    for name in names.values():
        assert IDENTIFIER.fullmatch(name) and len(name) <= LONGEST
        assert name not in COLUMNS_OF_MIGRATION | {"base44_id", "ctid", "xmin"}


@given(st.data(), st.lists(spelt, unique=True, max_size=8))
def test_names_do_not_depend_on_the_order_of_the_fields(data: st.DataObject, spelt_names: list[str]) -> None:
    shuffled = data.draw(st.permutations(spelt_names))
    first, _ = name_columns(entity("Thing"), [Field(name) for name in spelt_names], Overrides())
    second, _ = name_columns(entity("Thing"), [Field(name) for name in shuffled], Overrides())
    assert first == second


def test_of_two_fields_with_one_name_the_one_spelt_so_has_it() -> None:
    names, decisions = name_columns(entity("Thing"), [Field("userId"), Field("user_id")], Overrides())
    assert names == {"user_id": "user_id", "userId": "user_id_2"}
    assert [(one.subject, one.topic) for one in decisions] == [("Thing.userId", "name")]


def test_built_in_dates_are_named_as_postgresql_users_expect() -> None:
    names, decisions = name_columns(entity("Thing"), [Field("created_date"), Field("updated_date")], Overrides())
    assert names == {"created_date": "created_at", "updated_date": "updated_at"}
    assert decisions == ()


@pytest.mark.parametrize("own", ["created_at", "createdAt"])
def test_a_field_of_that_name_keeps_it_from_the_built_in_date(own: str) -> None:
    names, decisions = name_columns(entity("Thing", own), [Field(own), Field("created_date")], Overrides())
    assert names == {own: "created_at", "created_date": "created_date"}
    assert [one.subject for one in decisions] == ["Thing.created_date"]


def test_an_override_names_a_table_and_a_column_and_others_give_way() -> None:
    tables, _ = name_tables([entity("Item"), entity("Thing")], Overrides(tables={"Thing": "items"}))
    assert tables == {"Thing": "items", "Item": "items_2"}
    columns, _ = name_columns(
        entity("Thing"), [Field("label"), Field("title")], Overrides(columns={("Thing", "title"): "label"})
    )
    assert columns == {"title": "label", "label": "label_2"}


def test_a_table_has_room_behind_its_name_for_those_of_its_partitions() -> None:
    assert len(table_name("AVeryLongName" * 8)) == LONGEST_TABLE < LONGEST - len("_2026_01")


@pytest.mark.parametrize("length", [LONGEST - 1, LONGEST, LONGEST + 1, LONGEST + 20])
def test_a_name_is_cut_only_where_postgresql_would_cut_it(length: int) -> None:
    names, decisions = name_columns(entity("Thing"), [Field("a" * length)], Overrides())
    assert len(names["a" * length]) == min(length, LONGEST)
    assert len(decisions) == (length > LONGEST)


def test_a_long_name_keeps_its_beginning_and_is_stable() -> None:
    long = "a_very_long_name_" * 8
    names, decisions = name_columns(entity("Thing"), [Field(long), Field(f"{long}x")], Overrides())
    assert len(set(names.values())) == 2
    assert all(name.startswith("a_very_long_name_") and len(name) == LONGEST for name in names.values())
    assert len(decisions) == 2


@pytest.mark.parametrize(
    ("name", "expected"), [("title", "title"), ("order", '"order"'), ("from", '"from"'), ('a"b', '"a""b"')]
)
def test_only_what_needs_quotes_has_them(name: str, expected: str) -> None:
    assert quoted(name) == expected


def test_every_word_that_postgresql_reserves_is_quoted() -> None:
    assert {"user", "order", "group", "table", "from", "values", "end"} <= RESERVED
    assert not {"name", "status", "type", "date", "role", "key"} & RESERVED
