"""What Dagster's services write goes where the command's own lines go, and is coloured on a terminal only."""

from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.runs.plain_output import plain
from b44_assets.runs.services import Output

COLOURED = "\N{ESCAPE}[32m2026-01-01\N{ESCAPE}[0m - \N{ESCAPE}[1;34mINFO\N{ESCAPE}[0m"


def test_in_a_file_there_are_no_colours(capfd: pytest.CaptureFixture[str]) -> None:
    output = Output()
    subprocess.run(
        ["sh", "-c", 'echo "$0"; echo "$0" >&2', COLOURED],
        check=True,
        stdout=output.to(sys.stdout),
        stderr=output.to(sys.stderr),
    )
    output.end(60)
    assert capfd.readouterr() == ("2026-01-01 - INFO\n",) * 2


@pytest.mark.parametrize(("no_color", "as_it_is"), [("", True), ("1", False)])
def test_on_a_terminal_there_are_unless_nobody_wants_them(
    no_color: str, as_it_is: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NO_COLOR", no_color)
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True)
    output = Output()
    assert (output.to(sys.stdout) is None) is as_it_is
    output.end(60)


@given(st.binary().filter(lambda text: b"\x1b" not in text))
def test_what_has_no_escape_stays_as_it_is(text: bytes) -> None:
    assert plain(text) == text
