"""docs/output.md shows what commands print on 80 columns: each is run, and compared by its structure; see test_output_widths.py.

With B44_WRITE_OUTPUT=1 the page is written anew.
"""

from __future__ import annotations

import os
import re
import shlex
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest
from click.testing import CliRunner

from b44_assets.backup.drill import Drill
from b44_assets.cli import main
from b44_assets.cli.terminal import folded
from b44_assets.postgres.connection_urls import redact
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Command, Result
from tests.helpers.migrated_apps import Databases, Migrated
from tests.helpers.paths import REPOSITORY
from tests.helpers.printed import structure

PAGE = REPOSITORY / "docs" / "output.md"
BLOCK = re.compile(r"^```\n\$ (?P<command>b44 .+)\n(?P<printed>(?:.*\n)*?)```$", re.MULTILINE)
BLOCKS = [(match["command"], match["printed"]) for match in BLOCK.finditer(PAGE.read_text(encoding="utf-8"))]
DRILL = "b44 drill"
TARGET, NEW, HOME = "postgresql://db.example/app", "postgresql://db.example/new", "/srv/app"
# Depends on the machine.
LOOSE = {"b44 doctor"}
# Is too long to be shown whole: how many lines are shown of its begin, and of its end.
SHORTENED = {
    "b44 metrics": (9, 0),
    "b44 db archiving": (9, 0),
    "b44 verify": (2, 1),
    "b44 replay": (2, 2),
    "b44 cutover --by Ada --accept-quarantine": (5, 1),
}
ESCAPE = "\x1b"
FRAME = tuple("│┃┏┡├└")


def shown(result: Result, places: dict[str, str]) -> str:
    """What a command has printed, with the places that the page names."""
    # Without what no reader has: hints of a slow machine, and the file with the truth about a sample.
    lines = [
        f"{line.rstrip()}\n"
        for line in (result.err + result.out).splitlines()
        if not line.startswith(("progress: ", "notice: beside the export"))
    ]
    text = "".join(lines)
    for own, written in places.items():
        text = text.replace(own, written)
    return text


def shortened(command: str, printed: str) -> str:
    """What the page shows of it, folded as on a terminal: the page's paths are shorter than those of a test."""
    lines = printed.splitlines()
    first, last = SHORTENED.get(command, (len(lines), 0))
    if first + last < len(lines):
        lines = [*lines[:first], "…", *lines[len(lines) - last :]]
    return "".join(f"{line if line[:1] in FRAME else folded(line, 80, indent_of(command, line))}\n" for line in lines)


def indent_of(command: str, line: str) -> str | None:
    """What a line goes on with that is folded; None where that is as usual."""
    if command == "b44 doctor":
        return " " * (15 if line.startswith(" ") else 12)
    return "   " if command == "b44 db archiving" else None


def test_the_page_shows_what_commands_print(
    b44: Command, migrated: Migrated, finished: str, new_database: Callable[[str], str], databases: Databases
) -> None:
    (b44.directory / "export").symlink_to(migrated.export)
    new = new_database("template0")
    given = {TARGET: finished, NEW: new}
    database = finished.partition("?")[0].rpartition("/")[2]
    server = EmbeddedServer(b44.directory)
    places = {
        redact(finished): TARGET,
        finished: TARGET,
        redact(new): NEW,
        database: "app",
        new.partition("?")[0].rpartition("/")[2]: "new",
        str(b44.directory): HOME,
        str(server.bin_dir): "/opt/b44/postgresql/bin",
        str(REPOSITORY): "/opt/b44",
        str(databases.server.home): "/srv/database",
    }
    on = b44.on(finished).having(B44_EXPORT_DIR="export")
    # So that the first migration of the page has something to do.
    assert on("rollback", "--partition", "2026-01").status == 0
    found: dict[int, str] = {}
    for number, (command, _) in enumerate(BLOCKS):
        if command == DRILL:
            continue
        words = [given.get(word, word) for word in shlex.split(command)[1:]]
        result = on.having(COLUMNS="80")(*words)
        found[number] = shortened(command, shown(result, places))
        assert (result.status == 0) == ("\nb44: " not in f"\n{result.err}"), (command, result)
        assert ESCAPE not in result.out + result.err
        assert all(len(line) <= 80 for line in result.out.splitlines() if line[:1] in FRAME), (command, result.out)
    if os.environ.get("B44_WRITE_OUTPUT"):
        blocks = iter(found.get(number, printed) for number, (_, printed) in enumerate(BLOCKS))
        text = BLOCK.sub(lambda match: f"```\n$ {match['command']}\n{next(blocks)}```", PAGE.read_text("utf-8"))
        PAGE.write_text(text, encoding="utf-8")
        return
    for number, printed in found.items():
        command, written = BLOCKS[number]
        if command in LOOSE:
            subjects = re.compile(r"^(target|server|encoding|privileges|backups|daemon):", re.MULTILINE)
            assert subjects.findall(printed) == subjects.findall(written)
        else:
            assert structure(printed) == structure(written), f"{command}: see the head of this file"


def test_the_page_shows_what_a_drill_prints(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime.now(UTC)
    found = Drill(now, "20261126T150405Z-base", 1.2, 3.4, 0, now, "0/1", 1, 1)
    monkeypatch.setattr("b44_assets.backup.service.rehearse", lambda *_: found)
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["drill"], env={"B44_DATABASE_URL": TARGET})
    [written] = [printed for command, printed in BLOCKS if command == DRILL]
    assert structure(result.stderr + result.stdout) == structure(written.replace("\n  ", " "))


def test_the_page_shows_every_command_that_prints_something_of_its_own() -> None:
    named = {" ".join(command.split()[1:3] if " db " in command else command.split()[1:2]) for command, _ in BLOCKS}
    db = main.commands["db"]
    assert named >= main.commands.keys() - {"dev", "db"}
    assert named >= {f"db {name}" for name in getattr(db, "commands", {})} - {"db psql", "db dump"}
