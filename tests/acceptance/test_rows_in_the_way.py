"""Records that indexes, constraints or staging may choke on: each is accounted for, and every object that can be built is."""

from __future__ import annotations

import base64
import json
import random
import shutil
from pathlib import Path
from typing import Any

import psycopg

from tests.helpers.command import Command, Result
from tests.helpers.database_contents import rows, value
from tests.helpers.paths import REPOSITORY

ANN = "65c4e6bb5482e2ced37cf201"
MONTH = "2026-03-05T10:20:30.000000"
NOT_BUILT = """
select e.name from unnest(%s::text[]) e (name)
 where to_regclass(e.name) is null and not exists (select from pg_constraint k where k.conname = e.name)
"""


def record(number: int, **fields: object) -> dict[str, object]:
    known = {"created_date": MONTH, "updated_date": MONTH, "created_by_id": ANN, "created_by": "ann@example.org"}
    return {"id": f"65c4e6bb5482e2ced37cf{number:03x}", **known, **fields}


def write(export: Path, **entities: list[dict[str, Any]]) -> Path:
    export.mkdir(exist_ok=True)
    for entity, records in entities.items():
        (export / f"{entity}.json").write_text(json.dumps(records))
    return export


def ann(**fields: object) -> dict[str, object]:
    return record(0x201, **{"email": "ann@example.org", "full_name": "Ann", "verified": True, **fields})


def failed_checks(result: Result) -> list[str]:
    return [line for line in result.complaints if not line.startswith("warning: ")]


def test_content_that_indexes_and_staging_may_choke_on_is_accounted_for_and_every_object_built(
    b44: Command, target: str, tmp_path: Path
) -> None:
    draw = random.Random(44)
    words = " ".join(f"{draw.getrandbits(40):010x}" for _ in range(120_000))
    image = base64.b64encode(draw.randbytes(900_000)).decode()
    markdown = f"# A picture\n\n![it](data:image/png;base64,{image})\n\nThat was the picture."
    post = {"content": "Long enough a text.", "status": "published", "author_id": ANN, "publish_date": MONTH}
    other = "65c4e6bb5482e2ced37cf999"
    log = {"record_id": ANN, "action": "update", "user_id": ANN, "timestamp": MONTH}
    export = write(
        tmp_path / "export",
        User=[
            ann(**{f"field {n}": f"value {n}" for n in range(600)}),
            record(0x202, email="b@example.org", full_name="Bob", **{f"other {n}": n for n in range(100)}),
        ],
        Category=[record(0x210 + n, name=f"Name {n}", **{f"key {n} {k}": k for k in range(180)}) for n in range(10)],
        Post=[
            record(0x301, title="Words", **post | {"content": words}),
            record(0x302, title="Picture", **post | {"content": markdown}),
            record(0x303, title="Tagged", **post, tags=["short", "".join(draw.choices("abcdefghij", k=6_000))]),
            record(0x304, title="Plain", **post, tags=["short"]),
        ],
        AuditLog=[record(0x401, **log, table_name="t" * 50_000), record(0x402, **log, table_name="posts")],
        UserPreference=[record(0x501, user_id=ANN, preferences={"a": other * 20_000})],
    )
    result = b44.on(target)("migrate", "--export", export, "--json")
    assert result.status == 0, result
    assert result.report["checks"]["failed"] == 0
    entities = result.report["entities"]
    counts = {
        table: (entities[table]["read"], entities[table]["migrated"], entities[table]["reasons"])
        for table in ("users", "categories", "posts", "audit_logs", "user_preferences")
    }
    assert counts == {
        "users": (2, 2, {}),
        "categories": (10, 10, {}),
        "posts": (4, 3, {"tag_too_long": 1}),
        "audit_logs": (2, 1, {"too_long:table_name": 1}),
        "user_preferences": (1, 1, {}),
    }
    assert rows(target, "select entity from migration.accounting where unaccounted <> 0 or pending <> 0") == []
    assert dict(rows(target, "select title, content from posts where title in ('Words', 'Picture')")) == {
        "Words": words,
        "Picture": markdown,
    }
    # No field is lost that no column takes.
    kept = dict(rows(target, "select base44_id, data from migration.unmapped where entity = 'users'"))
    assert {name: text for name, text in kept[ANN].items() if name.startswith("field ")} == {
        f"field {n}": f"value {n}" for n in range(600)
    }
    assert (
        value(
            target,
            "select count(*) from migration.unmapped, jsonb_object_keys(data) k where entity = 'categories' and k like 'key %'",
        )
        == 1_800
    )
    assert value(target, "select count(*) from migration.unbuilt") == 0
    assert value(target, "select count(*) from pg_index where not indisvalid") == 0


def test_an_object_that_rows_make_impossible_fails_alone_and_is_built_by_the_same_command_after_they_are_corrected(
    b44: Command, target: str, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(REPOSITORY / "sql", tmp_path / "sql"))
    (folder / "indexes" / "extra_indexes.sql").write_text(
        "-- Of ours.\n-- on: categories\n\n"
        "create unique index if not exists uq_categories_shown on categories (lower(description));\n"
        "create index if not exists idx_categories_shown on categories (description);\n"
    )
    (folder / "constraints" / "extra_constraints.sql").write_text(
        "-- Of ours.\n-- on: users\n\n"
        "alter table users add constraint chk_users_name_short check (length(display_name) < 20);\n"
        "alter table users add constraint chk_users_name_shorter check (length(display_name) < 2000);\n"
    )
    categories = [
        record(0x211, name="First", description="the same"),
        record(0x212, name="Second", description="The SAME"),
        record(0x213, name="Third", description="Another"),
    ]
    export = write(
        tmp_path / "export",
        User=[
            ann(full_name="Far longer than twenty characters"),
            record(0x202, email="b@example.org", full_name="Short"),
        ],
        Category=categories,
    )
    command = b44.on(target).having(B44_SQL_DIR=str(folder))
    result = command("migrate", "--export", export)
    assert result.status == 1, result
    (index,) = [line for line in failed_checks(result) if " indexes_valid: " in line]
    assert all(name in index for name in ("65c4e6bb5482e2ced37cf211", "65c4e6bb5482e2ced37cf212"))
    (check,) = [line for line in failed_checks(result) if " constraints_valid: " in line]
    assert ANN in check
    built = [
        "uq_categories_shown",
        "idx_categories_shown",
        "chk_users_name_short",
        "chk_users_name_shorter",
        "user_post_stats",
    ]
    assert {name for (name,) in rows(target, NOT_BUILT, built)} == {"uq_categories_shown"}
    assert rows(target, "select conname from pg_constraint where not convalidated") == [("chk_users_name_short",)]
    assert rows(target, "select entity from migration.accounting where unaccounted <> 0 or pending <> 0") == []

    with psycopg.connect(target) as conn:
        conn.execute("update users set display_name = 'Short' where length(display_name) >= 20")
        conn.execute("update categories set description = 'Not the same' where name = 'Second'")
    again = command("migrate", "--export", export)
    assert (again.status, failed_checks(again)) == (0, []), again
    assert rows(target, NOT_BUILT, built) == []
    assert rows(target, "select conname from pg_constraint where not convalidated") == []
    assert value(target, "select count(*) from migration.unbuilt") == 0
