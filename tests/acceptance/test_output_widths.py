"""On a terminal of 80 columns, on one of 120, and in a pipe a command prints the same; docs/output-widths.md shows the latter two.

What takes long is stood in for; what is said of records comes from a migrated database. With B44_WRITE_OUTPUT=1, and in one
process, the page is written anew.
"""

from __future__ import annotations

import json
import os
import re
import shlex
import tempfile
from collections.abc import Callable, Generator
from pathlib import Path

import pytest
from rich.cells import cell_len

from b44_assets.migration.verdict import Conclusion
from b44_assets.postgres.connection_urls import redact
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Result, environment
from tests.helpers.migrated_apps import NEWEST, Databases, Migrated
from tests.helpers.output_schema import WITHOUT, check_form, commands
from tests.helpers.paths import REPOSITORY
from tests.helpers.printed import shape, structure
from tests.helpers.screens import PIPE, screens
from tests.helpers.stand_ins import stand_in

PAGE = REPOSITORY / "docs" / "output-widths.md"
SECTION = re.compile(r"^## b44 (?P<command>.+)\n(?P<blocks>(?:.*\n)*?)(?=^## |\Z)", re.MULTILINE)
BLOCK = re.compile(r"^(?P<where>\w.+):\n\n```\n(?P<printed>(?:.*\n)*?)```$", re.MULTILINE)
ON_120, PIPED, ON_BOTH = "On 120 columns", "In a pipe or a file", "On 120 columns, and in a pipe or a file"
TARGET, HOME = "postgresql://db.example/app", "/srv/app"
NAMES = sorted({name for name, _ in commands()} - WITHOUT)
ARGUMENTS = {
    "init": "blog --example blog",
    "sample": "sample-export --users 20 --posts 40",
    "quarantine": "posts --reason missing_title",
    "rollback": "--partition 2026-01",
    "cutover": "--by Ada --accept-quarantine --output cutover.html",
    "finish": "--yes --accept-quarantine",
    "restore": f"--into {TARGET}",
}
VERDICTS = ("migrate", "verify", "replay", "cutover", "report")
# Turned off is no success.
STATUS = {"db archiving": 1}
# For programs; of those too long for the page, so many lines are shown.
DATA = {"metrics", "db url", "db bin"}
SHORTENED = {"metrics": 9}
# Depends on the machine.
LOOSE = {"doctor"}


@pytest.fixture(scope="module")
def database(databases: Databases, migrate_once: Callable[[str], Migrated]) -> Generator[tuple[str, Migrated]]:
    """A migrated database for all tests of this module, in which nothing is changed."""
    migrated = migrate_once(NEWEST)
    name = f"widths_{os.getpid()}"
    yield databases.create(name, migrated.template), migrated
    databases.drop(name)


@pytest.fixture
def home() -> Generator[str]:
    """A folder whose path is as short as anybody's, so that lines are folded where they are elsewhere."""
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:
        yield folder


@pytest.mark.parametrize("command", NAMES)
def test_a_command_prints_the_same_on_every_terminal_and_in_a_pipe(
    command: str, database: tuple[str, Migrated], dagster_storage: str, databases: Databases, home: str, tmp_path: Path
) -> None:
    url, migrated = database
    known = environment(
        B44_DATABASE_URL=url, DAGSTER_PG_URL=dagster_storage, B44_EXPORT_DIR=str(migrated.export), B44_HOME=home
    )

    found = screens(_words(command), tmp_path, known, (80, 120, PIPE), stand_in)

    places = {
        home: f"{HOME}/.b44",
        redact(url): TARGET,
        url: TARGET,
        url.partition("?")[0].rpartition("/")[2]: "app",
        str(EmbeddedServer(tmp_path).bin_dir): "/opt/b44/postgresql/bin",
        str(REPOSITORY): "/opt/b44",
        str(databases.server.home): "/srv/database",
    }
    printed: dict[int, str] = {}
    for width, result in found.items():
        assert result.status == STATUS.get(command, 0), result
        printed[width] = _placed(result, {str(tmp_path / str(width)): HOME, **places})
        if width != PIPE and command not in DATA:
            assert [line for line in result.out.splitlines() if _too_wide(line, width)] == []
    assert "\x1b" not in printed[PIPE]
    assert printed[PIPE] != ""
    if command not in DATA | LOOSE:
        assert _sameness(printed[80]) == _sameness(printed[PIPE])
        assert _sameness(printed[120]) == _sameness(printed[PIPE])
    if command in VERDICTS:
        *_, verdict = printed[PIPE].splitlines()
        assert verdict.endswith(": complete")
        assert all(text.split()[-1] == Conclusion.COMPLETE for text in printed.values())
    _compare_with_the_page(command, {width: _shortened(command, text) for width, text in printed.items()})


@pytest.mark.parametrize("command", NAMES)
def test_with_json_a_terminal_gets_one_plain_line(
    command: str, database: tuple[str, Migrated], dagster_storage: str, tmp_path: Path
) -> None:
    url, migrated = database
    known = environment(B44_DATABASE_URL=url, DAGSTER_PG_URL=dagster_storage, B44_EXPORT_DIR=str(migrated.export))

    result = screens([*_words(command), "--json"], tmp_path, known, (80,), stand_in)[80]

    assert "\x1b" not in result.out
    check_form(command, json.loads(result.out))


def _words(command: str) -> list[str]:
    return [*command.split(), *shlex.split(ARGUMENTS.get(command, ""))]


def _sameness(text: str) -> tuple[list[list[str]], list[list[str]], list[str]]:
    """Heads, rows and words, without what is another one each time."""
    heads, rows, words = shape(text)
    return heads, [structure("\n".join(row)) for row in rows], structure(" ".join(words))


def _placed(result: Result, places: dict[str, str]) -> str:
    """What was printed, with the places that the page names."""
    text = "".join(f"{line.rstrip()}\n" for line in result.out.splitlines())
    for own, written in places.items():
        text = text.replace(own, written)
    return text


def _too_wide(line: str, width: int) -> bool:
    """Whether a line is wider than the terminal, and could be narrower: a path cannot, nor what is to be typed as it is."""
    return cell_len(line) > width and len(line.split()) > 1 and not line.startswith(" " * 7)


def _shortened(command: str, text: str) -> str:
    lines = text.splitlines(keepends=True)
    most = SHORTENED.get(command, len(lines))
    return "".join(lines[:most]) + ("…\n" if len(lines) > most else "")


def _compare_with_the_page(command: str, printed: dict[int, str]) -> None:
    page = PAGE.read_text(encoding="utf-8")
    if os.environ.get("B44_WRITE_OUTPUT"):
        blocks = {ON_120: printed[120], PIPED: printed[PIPE]}
        if printed[120] == printed[PIPE]:
            blocks = {ON_BOTH: printed[PIPE]}
        text = "\n".join(f"{where}:\n\n```\n{block}```\n" for where, block in blocks.items())
        sections = {match["command"]: match[0].rstrip() for match in SECTION.finditer(page)}
        sections[command] = f"## b44 {command}\n\n{text}".rstrip()
        head = page.partition("\n## ")[0].rstrip()
        PAGE.write_text("\n\n".join([head, *(sections[name] for name in sorted(sections))]) + "\n", encoding="utf-8")
        return
    [blocks] = [match["blocks"] for match in SECTION.finditer(page) if match["command"] == command]
    written = {match["where"]: match["printed"] for match in BLOCK.finditer(blocks)}
    expected = {ON_120: printed[120], PIPED: printed[PIPE]} if ON_120 in written else {ON_BOTH: printed[120]}
    assert written.keys() == expected.keys()
    for where, text in expected.items():
        if command in LOOSE:
            subjects = re.compile(r"^(target|server|encoding|privileges|backups|daemon):", re.MULTILINE)
            assert subjects.findall(text) == subjects.findall(written[where])
        else:
            assert _sameness(text) == _sameness(written[where]), where


def test_the_page_has_a_section_for_every_command_and_no_other() -> None:
    named = [match["command"] for match in SECTION.finditer(PAGE.read_text(encoding="utf-8"))]
    assert named == NAMES
