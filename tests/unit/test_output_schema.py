"""The documented form of `--json`: every command has one, and it tells right from wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from click.testing import CliRunner

from b44_assets.cli import main
from b44_assets.errors import ExportError
from b44_assets.migration.replays import Replay
from b44_assets.migration.verdict import Records
from b44_assets.runs.outcome import CheckOutcome, Outcome
from tests.helpers.output_schema import SCHEMA, WITHOUT, check_form, commands


def test_the_schema_has_every_command_that_prints_something_and_no_other() -> None:
    jsonschema.Draft202012Validator.check_schema(SCHEMA)
    having = {name for name, command in commands() if any(option.name == "as_json" for option in command.params)}
    assert having == {name for name, _ in commands()} - WITHOUT
    assert having == {name for name in SCHEMA["$defs"] if name[0].islower()}


def outcome(**more: Any) -> Outcome:
    return Outcome(
        entities={
            "posts": {
                "read": 3,
                "migrated": 2,
                "deduplicated": 0,
                "quarantined": 1,
                "reasons": {"orphan_user": 1},
                "repairs": {"slug": 1},
            }
        },
        seconds=1.25,
        unmapped={"Comment": {"read": 0, "file": "Comment_export.csv"}},
        checks=(CheckOutcome("posts", "row_parity", "passed", "3 = 3"),),
        records=Records(3, migrated=2, quarantined=1),
        **more,
    )


@pytest.mark.parametrize(
    ("command", "printed"),
    [
        ("migrate", outcome().facts()),
        ("migrate", outcome().facts([ExportError("half a file")])),
        ("verify", Outcome(entities={}, seconds=0.1).facts()),
        ("replay", outcome(replay=Replay(corrected=2, migrated=2, refused=())).facts()),
        ("cutover", outcome(more={"signed_off": True, "report": "cutover.html"}).facts()),
    ],
)
def test_what_a_run_came_to_has_its_form_and_nothing_more(command: str, printed: dict[str, Any]) -> None:
    check_form(command, printed)
    with pytest.raises(AssertionError):
        check_form(command, {**printed, "surprise": 1})
    for name in printed:
        with pytest.raises(AssertionError):
            check_form(command, {key: value for key, value in printed.items() if key != name})


@pytest.mark.parametrize(
    "arguments",
    [
        ["sample", "export", "--users", "3", "--posts", "3"],
        ["init", "app", "--example", "blog"],
        ["db", "bin"],
        ["db", "stop"],
        ["doctor"],
        ["backups"],
    ],
)
def test_a_command_that_needs_no_server_prints_one_object(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:

    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, [*arguments, "--json"], env={"B44_HOME": str(tmp_path / "home")})
    assert result.exit_code == 0, result.output
    assert result.stdout.count("\n") == 1
    check_form(" ".join(arguments[:2] if arguments[0] == "db" else arguments[:1]), json.loads(result.stdout))
