"""What the files of an app's `sql/` look like."""

from __future__ import annotations

from pathlib import PurePath

import pytest

from b44_assets.scaffold.model import (
    App,
    Column,
    ColumnType,
    Counts,
    Entity,
    Field,
    Origin,
    Reference,
    ReferenceBy,
    Table,
)
from b44_assets.scaffold.sql_files import files_of

LONG = "backroom_storage_areas"


def link(name: str, target: str) -> Column:
    reference = Reference(target, ReferenceBy.ID, "name matches", constrained=True)
    return Column(
        name, Field(name, types=("string",)), ColumnType.UUID, reference, Counts(filled=3, dangling=1), fits=False
    )


@pytest.mark.parametrize("strict", [False, True])
def test_no_line_is_longer_than_can_be_read(strict: bool) -> None:
    identifier = Column("id", Field("id", Origin.BUILT_IN), ColumnType.UUID)
    area = Table(LONG, Entity("BackroomStorageArea", Origin.SCHEMA, ()), (identifier,))
    lists = [
        Column(f"{LONG[:at]}_in_words", Field(f"{LONG[:at]}_in_words"), ColumnType.TEXT_ARRAY) for at in range(14, 23)
    ]
    columns = (identifier, link(f"{LONG}_id", LONG), link("area_id", LONG), link("site_area_id", LONG), *lists)
    key = (f"{LONG}_id", "area_id", "site_area_id")
    entity = Entity(
        "FillTask", Origin.SCHEMA, (), description="What is to be filled, where it is taken from and by whom " * 3
    )
    task = Table("fill_tasks", entity, columns, after=(LONG,), repeated=((key, 1),))
    of_task = Entity("FillTaskOfAnAreaOfTheBackroom", Origin.SCHEMA, (), description=entity.description)
    name = "fill_tasks_of_an_area_of_the_backroom"
    needed = Column("assigned_to_whom", Field("assigned_to_whom", required=True), ColumnType.TEXT)
    files = files_of(App("shop", (area, task, Table(name, of_task, (identifier, needed))), strict=strict))
    assert {path.parts[0] for path in files} == {"tables", "mappings", "indexes", "constraints", "checks", "schemas"}
    lines = [line for text in files.values() for line in text.splitlines() if not line.startswith("comment on ")]
    assert [line for line in lines if len(line) > 120] == []


def test_a_field_that_base44_fills_is_explained_and_one_of_the_apps_own_is_not() -> None:
    identifier = Column("id", Field("id", Origin.BUILT_IN), ColumnType.UUID)
    columns = (
        identifier,
        Column("email", Field("email", Origin.BUILT_IN), ColumnType.TEXT),
        Column("role", Field("role"), ColumnType.TEXT),
    )
    table = files_of(App("shop", (Table("users", Entity("User", Origin.SCHEMA, ()), columns),)))[
        PurePath("tables/users.sql")
    ]
    assert "signed in (Base44: email)'" in table and "role is 'Base44: role'" in table
