"""A small invented app with odd names, as it is read from schemas, and an export of it in which every rule is broken once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from b44_assets.scaffold.model import (
    ABSENT,
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

LONG_NAME = "what_the_customer_told_us_about_this_very_order_on_the_phone_one"
"""64 bytes: one more than PostgreSQL keeps."""
CREATED, UPDATED = "created_date", "updated_date"


def field(name: str, *types: str, **more: Any) -> Field:
    if "limits" in more:
        more["limits"] = MappingProxyType(more["limits"])
    return Field(name, types=types or ("string",), **more)


def column(name: str, kind: ColumnType, source: Field | None = None, **more: Any) -> Column:
    return Column(name, source or field(name), kind, **more)


def to(table: str, by: ReferenceBy = ReferenceBy.ID, *, cyclic: bool = False) -> Reference:
    return Reference(table, by, "name matches", constrained=by is ReferenceBy.ID, cyclic=cyclic)


def built_in(*taken: str) -> tuple[Column, ...]:
    """The columns that every table has; those of dates keep the field's name where another column has theirs."""

    def own(name: str, kind: ColumnType, source: str, *types: str) -> Column:
        return Column(name, Field(source, Origin.BUILT_IN, types or ("string",)), kind)

    return (
        own(CREATED if "created_at" in taken else "created_at", ColumnType.TIMESTAMPTZ, CREATED),
        own(UPDATED if "updated_at" in taken else "updated_at", ColumnType.TIMESTAMPTZ, UPDATED),
        own("created_by_id", ColumnType.TEXT, "created_by_id"),
        own("created_by", ColumnType.TEXT, "created_by"),
        own("is_sample", ColumnType.BOOLEAN, "is_sample", "boolean"),
    )


def table(name: str, entity: str, *columns: Column, **more: Any) -> Table:
    own = (
        column("id", ColumnType.UUID, Field("id", Origin.BUILT_IN, ("string",))),
        *columns,
        *built_in(*(one.name for one in columns)),
    )
    about = {key: more.pop(key) for key in ("description", "indexes") if key in more}
    return Table(name, Entity(entity, Origin.SCHEMA, tuple(one.field for one in columns), **about), own, **more)


BROKEN = Counts(filled=3, unfit=0, found=1, outside=1, missing=1)
"""Of a column whose export breaks all that is declared of it."""


def app(*, strict: bool = False, counts: Counts | None = BROKEN) -> App:
    """Orders of a shop: `Order`, whose parts point at each other, at themselves, and at a team that points back."""
    broken: dict[str, Any] = {"fits": False, "counts": counts}
    teams = table(
        "teams",
        "Team",
        column("name", ColumnType.TEXT, field("name", required=True, unique=True), **broken),
        column("created_at", ColumnType.TEXT, field("created_at")),
        column("updated_at", ColumnType.JSONB, field("updated_at", "object")),
        column("last_order_id", ColumnType.UUID, field("lastOrderId"), reference=to("orders", cyclic=True), **broken),
        records=3,
        repeated=((("name",), 2),),
    )
    orders = table(
        "orders",
        "Order",
        column(
            "order",
            ColumnType.BIGINT,
            field("order", "integer", description="Place in the list; it's from 1"),
            **broken,
        ),
        column("group", ColumnType.UUID, field("group"), reference=to("teams"), **broken),
        column("parent_id", ColumnType.UUID, field("parentId"), reference=to("orders", cyclic=True), **broken),
        column(
            "member_ids", ColumnType.UUID_ARRAY, field("memberIds", "array"), reference=to("teams", ReferenceBy.IDS)
        ),
        column(
            "state",
            ColumnType.TEXT,
            field(
                "state",
                enum=('it\'s "new"', "done; $$ not {0}", None, ""),
                default='it\'s "new"',
                description="Where it\nstands: 100 %",
            ),
            **broken,
        ),
        column(
            "code",
            ColumnType.TEXT,
            field("code", limits={"pattern": r"^[A-Z]{2}\d+$", "minLength": 3, "maxLength": 8}, default="??"),
            **broken,
        ),
        column("total", ColumnType.NUMERIC, field("total", "number", limits={"minimum": 0}, default=0), **broken),
        column("due_date", ColumnType.DATE, field("dueDate", format="date")),
        column("at", ColumnType.TIME, field("at", format="time")),
        column("seen_at", ColumnType.TIMESTAMPTZ, field("seenAt", format="date-time")),
        column("paid", ColumnType.BOOLEAN, field("paid", "boolean", default=False)),
        column(
            "tags",
            ColumnType.TEXT_ARRAY,
            field("tags", "array", items=Field("", enum=("a", "b")), default=["a"], limits={"maxItems": 2}),
            **broken,
        ),
        column("record", ColumnType.JSONB, field("record", "object", default={"a": [1, "'"]})),
        column("note", ColumnType.TEXT, field(LONG_NAME, description="What they said"), prose=True),
        column("due_date_2", ColumnType.TEXT, Field("due_date", Origin.EXPORT)),
        column("owner_email", ColumnType.TEXT, field("owner_email"), reference=to("users", ReferenceBy.EMAIL)),
        description="status: what is bought,\nand by whom",
        indexes=((("state", "dueDate"), False), (("code",), True)),
        records=4,
        after=("teams",),
    )
    users = table(
        "users",
        "User",
        column("email", ColumnType.TEXT, field("email", required=True, format="email"), counts=Counts(filled=2)),
        column("token", ColumnType.TEXT, field("token", limits={"minLength": 5}), secret=True, **broken),
        records=2,
    )
    return App("Corner shop", (users, teams, orders), strict=strict)


def object_id(number: int) -> str:
    """An ObjectId."""
    return f"69000100a1b2c3d4e5f6{number:04x}"


DAY = {CREATED: "2025-11-03T09:01:00.123456", UPDATED: "2025-11-04T10:00:00.000000", "is_sample": False}
EXPORT: Mapping[str, list[dict[str, Any]]] = {
    "User": [
        {
            "id": object_id(1),
            "email": "ada@example.org",
            "token": "abc",
            "created_by_id": "service_1",
            "created_by": "null",
            **DAY,
        },
        {"id": object_id(2), "email": "Bo@example.org", "token": "long enough", "created_by": "ada@example.org", **DAY},
    ],
    "Team": [
        {
            "id": object_id(17),
            "name": "Packers",
            "created_at": "before the flood",
            "updated_at": {"by": "Noah"},
            "lastOrderId": object_id(33),
            **DAY,
        },
        {"id": object_id(18), "name": "", "lastOrderId": "gone", **DAY},
        {"id": "team-of-one", "name": "Packers", "lastOrderId": None, **DAY},
    ],
    "Order": [
        {
            "id": object_id(33),
            "order": 1,
            "group": "team-of-one",
            "parentId": object_id(34),
            "memberIds": [object_id(17), "team-of-one", "nobody"],
            "state": 'it\'s "new"',
            "code": "AB12",
            "total": "123456789012345678901234.567890",
            "dueDate": "2026-01-31",
            "at": "14:30",
            "seenAt": "2026-06-09T17:30:00.000Z",
            "paid": True,
            "tags": ["a", "b"],
            "record": {"a": {"b": [1, None]}},
            LONG_NAME: "They said 'hello'.",
            "due_date": "some day",
            "owner_email": "ADA@example.org",
            "undeclared": "kept",
            **DAY,
        },
        {
            "id": object_id(34),
            "order": "first",
            "group": "GONE",
            "parentId": object_id(33),
            "memberIds": "all",
            "state": "lost",
            "code": "?",
            "total": -1,
            "dueDate": "soon",
            "at": "noon",
            "seenAt": "yesterday",
            "paid": "perhaps",
            "tags": ["a", "c", "b"],
            "record": "{no json",
            CREATED: "never",
            UPDATED: "",
        },
        {"id": object_id(35), "state": "", "parentId": "guest_1", **DAY},
        {"id": object_id(35), "state": "done; $$ not {0}", **DAY, UPDATED: "2025-11-05T10:00:00.000000"},
        {"id": "", "state": "lost", **DAY},
    ],
}


def write_export(folder: Path, export: Mapping[str, list[dict[str, Any]]] = EXPORT) -> Path:
    """Writes an export as the API gives it."""
    folder.mkdir(parents=True, exist_ok=True)
    for entity, records in export.items():
        (folder / f"{entity}.json").write_text(json.dumps(records), encoding="utf-8")
    return folder


def write_app_files(folder: Path, described: App | None = None) -> Path:
    """Writes the `sql/` of an app; returns its path."""
    from b44_assets.scaffold.sql_files import files_of

    for path, text in files_of(described or app()).items():
        target = folder / "sql" / path
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    return folder / "sql"


__all__ = ["ABSENT", "EXPORT", "app", "object_id", "write_app_files", "write_export"]
