"""Which indexes an app's tables get: none twice, and none that the beginning of another one serves."""

from __future__ import annotations

import pytest

from b44_assets.scaffold.lookup_indexes import Index, lookup_indexes, search_indexes
from b44_assets.scaffold.model import App, Column, ColumnType, Entity, Field, Origin, Reference, ReferenceBy, Table

CREW = Reference("crews", ReferenceBy.ID, "name matches", constrained=True)


def column(
    name: str, *, unique: bool = False, kind: ColumnType = ColumnType.TEXT, to: Reference | None = None
) -> Column:
    return Column(name, Field(name, unique=unique), kind, to)


def made(
    *columns: Column,
    declared: tuple[tuple[tuple[str, ...], bool], ...] = (),
    repeated: tuple[tuple[tuple[str, ...], int], ...] = (),
    partitioned: bool = False,
) -> list[tuple[str, bool]]:
    table = Table("boats", Entity("Boat", Origin.SCHEMA, (), indexes=declared), columns, repeated=repeated)
    found = lookup_indexes(App("app", (table,)), table, columns, None, partitioned=partitioned)
    return [(one.method, one.unique) for one in found]


def test_what_is_unique_or_a_reference_has_an_index_once() -> None:
    assert made(column("code", unique=True), column("crew_id", to=CREW), declared=((("code",), False),)) == [
        ("(code)", True),
        ("(crew_id)", False),
    ]


def test_an_index_that_is_declared_twice_is_unique_if_one_of_them_is() -> None:
    assert made(column("code"), declared=((("code",), False), (("code",), True))) == [("(code)", True)]


@pytest.mark.parametrize(
    ("unique", "expected"),
    [
        (False, [("(crew_id, code)", False)]),
        # It may be missing while rows break it.
        (True, [("(crew_id, code)", True), ("(crew_id)", False)]),
    ],
)
def test_the_beginning_of_another_index_needs_none_of_its_own(unique: bool, expected: list[tuple[str, bool]]) -> None:
    declared = ((("crew_id", "code"), unique),)
    assert made(column("crew_id", to=CREW), column("code"), declared=declared) == expected


def test_a_key_that_the_data_repeats_or_a_partitioned_table_has_is_not_unique() -> None:
    code = column("code", unique=True)
    assert made(code, repeated=((("code",), 2),)) == made(code, partitioned=True) == [("(code)", False)]


def test_arrays_are_looked_into_and_documents_are_not() -> None:
    tags, log = column("tags", kind=ColumnType.TEXT_ARRAY), column("log", kind=ColumnType.JSONB, unique=True)
    declared = ((("tags",), False), (("log",), False), (("tags", "code"), False))
    assert made(tags, log, column("code"), declared=declared) == [("using gin (tags)", False)]


def test_users_are_found_by_their_addresses_where_columns_hold_those() -> None:
    by = column("created_by", to=Reference("users", ReferenceBy.EMAIL, "built in", constrained=False))
    email = column("email")
    people = Table("users", Entity("User", Origin.SCHEMA, ()), (email,))
    boats = Table("boats", Entity("Boat", Origin.SCHEMA, ()), (by,))
    one = lookup_indexes(App("app", (people, boats)), people, (email,), None, partitioned=False)
    assert [index.method for index in one] == ["(email)"]
    assert lookup_indexes(App("app", (people,)), people, (email,), None, partitioned=False) == ()


def test_an_id_of_several_entities_is_found_with_what_tells_of_which() -> None:
    fields = [column("target_type"), column("targetId"), column("kind"), column("code_id")]
    table = Table("boats", Entity("Boat", Origin.SCHEMA, tuple(one.field for one in fields)), tuple(fields))
    found = lookup_indexes(App("app", (table,)), table, fields, None, partitioned=False)
    assert [one.method for one in found] == ['("targetId", target_type)']


def test_what_a_rule_compares_with_the_caller_is_found_whether_it_is_a_reference_or_not() -> None:
    rls = {
        "read": {"$or": [{"created_by_id": "{{user.id}}"}, {"data.helpers": "{{user.email}}"}, {"data.state": "open"}]}
    }
    columns = (column("created_by_id"), column("helpers", kind=ColumnType.TEXT_ARRAY), column("state"))
    table = Table("boats", Entity("Boat", Origin.SCHEMA, (), rls=rls), columns)
    found = lookup_indexes(App("app", (table,)), table, columns, None, partitioned=False)
    assert [one.method for one in found] == ["(created_by_id)", "using gin (helpers)"]


def test_what_names_a_record_in_a_pages_address_is_found() -> None:
    assert made(column("Slug"), column("slug_id"), column("slug", kind=ColumnType.JSONB)) == [('("Slug")', False)]


def test_a_statement_is_broken_before_its_table_where_it_is_long() -> None:
    assert Index("idx_a_b", "a", "(b)").statement == "create index if not exists idx_a_b on a (b);"
    prose = Column("story", Field("story"), ColumnType.TEXT, prose=True)
    name = "boats_" * 8
    table = Table(name, Entity("Boat", Origin.SCHEMA, ()), (prose,))
    [index] = search_indexes(table, (prose,))
    assert len(index.name) <= 63 and index.statement.splitlines()[1] == f"  on {name} using gin (base44_search(story));"
