"""Tables on a narrow terminal, and what a shell completes."""

from __future__ import annotations

import io
import re
from collections.abc import Callable

import click
import pytest
from click.shell_completion import ShellComplete
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from rich.cells import cell_len
from rich.console import Console
from rich.file_proxy import FileProxy
from rich.table import Table

from b44_assets.cli import main
from b44_assets.cli.group import Group
from b44_assets.cli.outcome import conclude
from b44_assets.cli.output import name_column, number_column, print_accounts, print_outcome, print_table
from b44_assets.cli.plan import show_plan
from b44_assets.cli.terminal import folded, new_console, print_line
from b44_assets.errors import ExportError
from b44_assets.migration.accounts import EntityAccount
from b44_assets.migration.verdict import Records
from b44_assets.planning import MigrationPlan, PlannedEntity, PlannedTable
from b44_assets.runs.outcome import Outcome
from b44_assets.schema.drift import SchemaChanges
from tests.helpers.output_schema import commands

ALIKE = "customer_subscriptions_by_billing_period"


def printed(width: int, *names: str) -> list[list[str]]:
    """The rows of what is printed, each with the lines of its cells put together."""
    stream = io.StringIO()
    found = [EntityAccount(name, 1_234_567, 1_234_000, 0, 567, 0, 0, 0, 0, {}, {}) for name in names]
    unmapped = {f"{name}Entity": {"read": 7} for name in names}
    print_accounts(Console(file=stream, width=width), tuple(found), unmapped)
    rows: list[list[str]] = []
    for line in stream.getvalue().splitlines():
        assert len(line) <= width or line[:1] not in "│┃┏┡├└"
        if not line.startswith("│"):
            continue
        cells = [cell.strip() for cell in line.strip("│").split("│")]
        if any(cells[1:]):
            rows.append(cells)
        else:
            rows[-1][0] += cells[0]
    return rows


@pytest.mark.parametrize("width", [80, 120, 200])
def test_tables_that_begin_alike_are_told_apart_whatever_the_width(width: int) -> None:
    rows = printed(width, f"{ALIKE}_a", f"{ALIKE}_b")
    numbers = ["1,234,567", "1,234,000", "0", "567", "0", "0"]
    assert rows[:2] == [[f"{ALIKE}_a", *numbers], [f"{ALIKE}_b", *numbers]]
    assert rows[2][:3] == ["total", "2,469,134", "2,468,000"]
    assert [row[0].replace(" ", "") for row in rows[3:]] == [f"{ALIKE}_{end}Entity(notable)" for end in "ab"]


TABLES = ("users", "user_preferences", "orders_by_week", "posts")
PLAN = MigrationPlan(
    target="the target",
    migrated_before=True,
    entities=tuple(PlannedEntity(table.title(), table, f"{table}_export.csv", "2026-06", 123_456) for table in TABLES),
    tables=tuple(PlannedTable(table, 123_456, 1_234, 12, 122_000, 10, 200, 0, {"missing_id": 200}) for table in TABLES),
    schema=SchemaChanges((), program="kept"),
)
OUTCOME = Outcome(
    entities={
        table: {
            "read": 1_123_456,
            "migrated": 1_123_000,
            "deduplicated": 56,
            "quarantined": 400,
            "reasons": {"missing_id": 300, "invalid:created_at": 100},
            "repairs": {"slug": 12},
        }
        for table in TABLES
    },
    seconds=1.5,
    unmapped={"Comment": {"read": 3, "file": "Comment.csv"}},
    records=Records(4 * 1_123_456 + 3, 4 * 1_123_000, 4 * 56, 4 * 400, without_table=3),
)


def rows_of(text: str) -> list[list[str]]:
    """The rows of the tables in a text, without their heads."""
    return [[cell.strip() for cell in line.split("│")[1:-1]] for line in text.splitlines() if line.startswith("│")]


@pytest.mark.parametrize("show", [lambda: show_plan(new_console(), PLAN), lambda: print_outcome(OUTCOME, ended=False)])
def test_what_is_shown_is_the_same_at_every_width_and_in_a_pipe(
    show: Callable[[], None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: dict[int, str] = {}
    for width in (80, 120, 0):
        # Nought is as if not set: a pipe.
        monkeypatch.setenv("COLUMNS", str(width or ""))
        show()
        shown[width] = capsys.readouterr().out
        assert all(len(line) <= (width or 10_000) for line in shown[width].splitlines() if line[:1] in "│┃┏┡├└")
        assert "\x1b" not in shown[width]
    assert rows_of(shown[80]) == rows_of(shown[120]) == rows_of(shown[0]) != []
    prose = {width: [line for line in text.splitlines() if line[:1] not in "│┃┏┡├└"] for width, text in shown.items()}
    assert " ".join(prose[80]).split() == " ".join(prose[120]).split() == " ".join(prose[0]).split()


@given(st.text(alphabet="ab 日-", max_size=60), st.integers(2, 20))
def test_a_folded_line_has_the_same_words_and_is_as_narrow_as_they_let_it(line: str, width: int) -> None:
    lines = folded(line, width, "  ").split("\n")
    assert " ".join(lines).split() == line.split()
    assert all(cell_len(one) <= width or len(one.split()) == 1 for one in lines)


def test_what_goes_on_in_the_next_line_is_indented_more() -> None:
    assert folded("  posts: no column for bio", 15) == "  posts: no\n    column for\n    bio"
    assert (
        folded("posts:     no column for bio", 18, " " * 11) == "posts:     no\n           column\n           for bio"
    )


@pytest.mark.parametrize(
    "command",
    ["(b44 db stop),", "b44 init . --open", "b44 quarantine --from FILE", "`pg_ctl restart`", "A=1 b44 db url"],
)
def test_a_command_can_be_copied_as_it_is_never_folded(command: str) -> None:
    for width in range(4, 40):
        assert command in folded(f"what is told: {command} and more", width)


@pytest.mark.parametrize("columns", [8, 11])
def test_of_a_table_that_is_too_wide_nothing_is_left_out(columns: int) -> None:
    stream = io.StringIO()
    table = Table(name_column("table"), *(number_column(f"head{n}") for n in range(columns)))
    table.add_row("user_preferences", *(f"{n},000,000" for n in range(columns)))
    print_table(Console(file=stream, width=80), table)
    text = stream.getvalue()
    assert all(f"{n},000,000" in text and f"head{n}" in text for n in range(columns))
    assert all(len(line) <= 80 for line in text.splitlines() if line[:1] in "│┃┏┡├└")


def test_a_usual_name_is_in_one_piece_at_80_columns() -> None:
    stream = io.StringIO()
    account = EntityAccount("orders_by_week", 123_456, 123_000, 0, 456, 0, 0, 0, 0, {}, {})
    print_accounts(Console(file=stream, width=80), (account,), {})
    assert "│ orders_by_week │ " in stream.getvalue()


def test_in_a_pipe_a_row_is_one_line_and_a_text_is_as_it_is(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    name = f"{ALIKE} [bold]draft[/bold] :smile: {'x' * 200}"
    table = Table(name_column("table"))
    table.add_row(name)
    new_console().print(table)
    new_console().print(name)
    out = capsys.readouterr().out
    assert f"│ {name} │\n" in out
    assert out.endswith(f"╯\n{name}\n") or out.endswith(f"┘\n{name}\n")
    assert "\x1b" not in out


def test_a_terminal_without_colour_gets_none(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable, value in {"TTY_COMPATIBLE": "1", "TERM": "xterm-256color", "NO_COLOR": "1", "COLUMNS": "80"}.items():
        monkeypatch.setenv(variable, value)
    print_accounts(new_console(), (EntityAccount("posts", 1, 1, 0, 0, 0, 0, 0, 0, {"a": 1}, {}),), {})
    # Bold is no colour.
    assert set(re.findall(r"\x1b\[[\d;]*m", capsys.readouterr().out)) <= {"\x1b[0m", "\x1b[1m"}


def test_a_line_goes_through_what_keeps_it_out_of_a_bar(monkeypatch: pytest.MonkeyPatch) -> None:
    raw, shown = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    monkeypatch.setattr("sys.stderr", FileProxy(Console(file=shown), raw))
    print_line("taking a backup", err=True)
    assert (shown.getvalue(), raw.buffer.tell()) == ("taking a backup\n", 0)


@pytest.mark.parametrize("ended", [KeyboardInterrupt, click.Abort])
def test_whoever_ends_a_command_is_told_in_one_line_and_status_130(
    ended: type[BaseException], capsys: pytest.CaptureFixture[str]
) -> None:
    @click.group(cls=Group)
    def group() -> None:
        pass

    @group.command()
    def work() -> None:
        raise ended

    with pytest.raises(SystemExit) as left:
        group(["work"])
    assert left.value.code == 130
    assert capsys.readouterr() == ("", "interrupted; run the same command again to go on\n")


def test_a_run_that_ended_before_it_began_prints_no_empty_tables(capsys: pytest.CaptureFixture[str]) -> None:
    outcome = Outcome(entities={}, seconds=1.0, unmapped={"Comment": {"read": 0, "file": None}}, records=Records(0))
    with pytest.raises(SystemExit):
        conclude(outcome, [ExportError("half a file")], as_json=False)
    assert capsys.readouterr() == ("half a file: failed\n", "b44: half a file\n")


@pytest.mark.parametrize("words", [[], ["db"]])
def test_the_list_of_commands_says_each_in_one_whole_line_of_80_columns(words: list[str]) -> None:
    printed = CliRunner().invoke(main, [*words, "--help"], terminal_width=80).stdout
    group = main.commands["db"] if words else main
    for name, command in getattr(group, "commands", {}).items():
        [line] = [line for line in printed.splitlines() if line.split()[:1] == [name]]
        assert line.endswith(".") and not line.endswith("...") and len(line) <= 80, command


def test_the_help_of_every_command_fits_80_columns() -> None:
    for name, _ in commands():
        printed = CliRunner().invoke(main, [*name.split(), "--help"], terminal_width=80).stdout
        assert [line for line in printed.splitlines() if len(line) > 80] == [], name


@pytest.mark.parametrize(
    ("words", "begun", "completed"),
    [([], "quar", "quarantine"), (["cutover"], "--acc", "--accept-quarantine"), (["db"], "ur", "url")],
)
def test_a_shell_completes_commands_and_options(words: list[str], begun: str, completed: str) -> None:
    found = ShellComplete(main, {}, "b44", "_B44_COMPLETE").get_completions(words, begun)
    assert [one.value for one in found] == [completed]
