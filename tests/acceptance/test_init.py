"""From schemas and an export to a verified database, as somebody who leaves Base44 does it."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from tests.helpers.command import Command
from tests.helpers.database_contents import rows, state, value

DISCUSSION = {
    "name": "Discussion",
    "properties": {"title": {"type": "string"}, "opened_on": {"type": "string", "format": "date"}},
}
REPLY = {
    "name": "Reply",
    "properties": {
        "discussion_id": {"type": "string"},
        "stars": {"type": "integer"},
        "mood": {"type": "string", "enum": ["good", "bad"]},
    },
    "required": ["mood"],
}
ONE, OTHER, GONE = "6970c3a24e8275af9d1ae397", "6970c3a24e8275af9d1ae398", "6970c3a24e8275af9d1ae399"
EXPORT = {
    "User.json": [{"id": ONE, "email": "ada@example.org", "full_name": "Ada", "role": "vip"}],
    "Discussion.json": [{"id": ONE, "title": "Sails", "opened_on": "2026-02-28"}],
    "Reply.json": [
        {"id": ONE, "discussion_id": ONE, "stars": 5, "mood": "good", "extra": "kept", "created_by_id": ONE},
        {"id": OTHER, "discussion_id": GONE, "stars": "many", "mood": "odd"},
        # Of so many, one that is no number says nothing against the type.
        *({"id": f"{number:024x}", "discussion_id": ONE, "stars": 3, "mood": "bad"} for number in range(30)),
    ],
    "Visit.json": [{"id": OTHER, "page": "/"}],
}


def written(folder: Path) -> Path:
    """The schemas, and an export that honours them in part."""
    (folder / "entities").mkdir()
    (folder / "export").mkdir()
    for schema in (DISCUSSION, REPLY):
        (folder / "entities" / f"{schema['name']}.jsonc").write_text(json.dumps(schema))
    for name, records in EXPORT.items():
        (folder / "export" / name).write_text(json.dumps(records))
    return folder


def stored(url: str) -> dict[str, tuple[int, str]]:
    """The app's own tables."""
    return {name: digest for name, digest in state(url).items() if name.startswith("public.")}


def test_an_app_is_made_and_migrated_and_again_without_a_difference(b44: Command, target: str, tmp_path: Path) -> None:
    written(b44.directory)
    made = b44("init", "app", "--entities", "entities", "--export", "export")
    assert made.status == 0, made
    assert made.out.splitlines()[-1] == "next: cd app && b44 migrate"
    app = replace(b44, directory=b44.directory / "app").on(target)

    first = app("migrate", "--json")

    assert first.status == 0, first
    entities = first.report["entities"]
    assert {table: counts["migrated"] for table, counts in entities.items() if counts["read"]} == {
        "users": 1,
        "discussions": 1,
        "replies": 32,
        "visits": 1,
    }
    assert (first.report["unmapped"], first.report["checks"]["failed"]) == ({}, 0)
    assert first.report["listed"] == {"dangling reference": 1, "open table": 2}
    assert rows(
        target, "select stars, mood, base44_object_id(discussion_id) from replies where mood <> 'bad' order by id"
    ) == [
        (5, "good", ONE),
        (None, "odd", GONE),
    ]
    repairs = set(rows(target, "select entity, column_name, original from migration.repairs"))
    assert ("replies", "stars", "many") in repairs
    # It is the same app from elsewhere, and its own file names the export.
    before = stored(target)
    again = b44.on(target)("migrate", "--app", "app", "--json")
    assert (again.status, again.report["entities"], stored(target)) == (0, entities, before)
    assert b44.on(target)("status", "--app", "app", "--json").report["entities"] == entities
    assert value(target, "select count(*) from replies") == 32
    assert app("init", ".").out.startswith("Nothing has changed")
