"""What is said of progress: true units, a speed only where something runs, and no more than is known."""

from __future__ import annotations

import io
import re
import threading
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from b44_assets.cli import progress
from b44_assets.cli.progress import State
from b44_assets.cli.progress_bar import Bar
from b44_assets.config.stages import CHECKS, PHASE, PHASES, STEP, Stage, Steps


class Clock:
    """Shows what it was set to."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


REPORTS = st.lists(
    st.one_of(
        st.tuples(st.sampled_from([f"{STEP}{stage} thing" for stage in Stage]), st.integers(1, 20), st.just(20)),
        st.tuples(
            st.sampled_from(["base44/posts", "posts", "vacuum"]), st.integers(0, 10**9), st.integers(1, 10**9)
        ).map(lambda told: (told[0], min(told[1:]), told[2])),
        st.just(("posts: mapping", 0, 0)),
    ),
    min_size=1,
    max_size=12,
)


@pytest.mark.parametrize(
    ("told", "said"),
    [
        (("base44/posts", 12_300_000, 60_000_000), "reading posts: 12.3 of 60.0 MB"),
        (("base44/users", 12_300, 60_000), "reading users: 12 of 60 kB"),
        (("posts: mapping", 0, 0), "planning posts"),
        (("posts", 1_000, 500_000), "loading posts: 1,000 of 500,000 records"),
        (("posts", 1, 1), "loading posts: 1 of 1 record"),
        ((f"{STEP}schema posts_indexes", 3, 44), "step 3 of 44, schema posts_indexes"),
        (("vacuum", 2, 9), "vacuum: 2 of 9 tables"),
        ((CHECKS, 12, 41), "checking: 12 of 41 checks"),
        (("sample/posts", 5_000, 6_000), "writing posts: 5,000 of 6,000 records"),
        (("told/taking a base backup", 0, 0), "taking a base backup"),
        (("told/taking a base backup", 12_300_000, 0), "taking a base backup: 12.3 MB"),
    ],
)
def test_what_is_told_is_said_in_its_own_unit(told: tuple[str, int, int], said: str) -> None:
    state = State(Clock())
    state.report(*told)
    assert state.message() == said


def test_the_speed_and_the_end_are_those_of_what_is_under_way() -> None:
    clock = Clock()
    state = State(clock)
    state.report(f"{STEP}loading posts", 2, 4)
    state.report("posts", 0, 1_000)
    assert state.rate is None
    clock.now = 10.0
    state.report("posts", 100, 1_000)
    assert state.message() == "step 2 of 4, loading posts: 100 of 1,000 records, 10 a second, 1 min 30 s left"
    state.report("users", 50, 1_000)
    assert state.rate is None
    state.report("users", 1_000, 1_000)
    clock.now = 20.0
    assert state.message() == "step 2 of 4, loading users: 1,000 of 1,000 records"


def test_the_phase_stands_before_the_step_unless_there_is_but_one() -> None:
    state = State(Clock())
    state.report(f"{PHASE}loading", 2, 4)
    state.report(f"{STEP}schema functions", 9, 39)
    assert state.described() == "2 of 4: loading"
    assert state.message() == "phase 2 of 4 (loading), step 9 of 39, schema functions"
    state.report(f"{PHASE}checking", 1, 1)
    state.report(f"{STEP}checking health", 3, 3)
    assert state.described() == "step 3 of 3"
    assert state.message() == "step 3 of 3, checking health"


@pytest.mark.parametrize(
    ("phases", "lines"),
    [(4, ["2 of 4: loading", "step 9 of 39, loading posts"]), (1, ["step 9 of 39", "loading posts"])],
)
def test_a_terminal_shows_the_phase_with_a_bar_and_the_step_beneath(phases: int, lines: list[str]) -> None:
    state = State(Clock())
    state.report(f"{PHASE}loading", min(2, phases), phases)
    state.report(f"{STEP}loading posts", 9, 39)
    state.report("posts", 0, 500)
    stream = io.StringIO()
    with Bar(state) as bar:
        Console(file=stream, width=80).print(*bar.get_renderables())
    first, second = stream.getvalue().splitlines()
    assert first.startswith(f"{lines[0]} ━")
    assert second == f"{lines[1]}: 0 of 500 records"


@given(
    st.lists(
        st.sampled_from(["base44__users", "users", "posts", "functions", "posts_schema", "users_parity", "health"]),
        min_size=1,
        unique=True,
    )
)
def test_phases_follow_each_other_whatever_the_order_of_the_steps(steps: list[str]) -> None:
    run = Steps(steps, {"users", "posts"})
    told = [run.begin(step) for step in steps]
    assert [step.number for step in told] == list(range(1, len(steps) + 1))
    numbers = [step.phase_number for step in told]
    assert numbers == sorted(numbers)
    assert all(1 <= step.phase_number <= step.phases <= len(PHASES) for step in told)
    # A phase is the first of which a step has not ended.
    stages = [step.stage for step in told]
    assert [step.phase for step in told] == [min(stages[at:], key=PHASES.index) for at in range(len(stages))]


def test_a_step_that_is_told_of_again_keeps_its_number() -> None:
    run = Steps(["base44__users", "users", "users_parity"], {"users"})
    assert [run.begin(step).number for step in ("base44__users", "users", "users", "users_parity")] == [1, 2, 2, 3]


@given(REPORTS, st.floats(0, 1e6))
def test_the_line_is_one_and_the_bar_never_passes_its_end(reports: list[tuple[str, int, int]], later: float) -> None:
    clock = Clock()
    state = State(clock)
    for report in reports:
        state.report(*report)
        clock.now += later
        assert "\n" not in state.message()
        if state.steps:
            assert state.step - 1 <= state.completed <= state.step <= state.steps
        if "left" in state.message():
            assert state.done < state.total


@given(REPORTS)
def test_bytes_and_records_are_never_taken_for_each_other(reports: list[tuple[str, int, int]]) -> None:
    state = State(Clock())
    for what, done, total in reports:
        state.report(what, done, total)
        unit = re.search(r" (MB|kB|records?|tables?)\b", state.message())
        expected = {"base44/posts": "MB" if total >= 1e6 else "kB", "posts": "record", "vacuum": "table"}.get(what)
        assert (unit is None) == (expected is None)
        assert unit is None or unit[1].startswith(expected or "")


def test_without_a_terminal_a_line_is_written_now_and_then(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.01)
    written = threading.Event()
    print_line = progress.print_line

    def noted(line: str, **more: Any) -> None:
        print_line(line, **more)
        written.set()

    monkeypatch.setattr(progress, "print_line", noted)
    with progress.show_progress(quiet=False) as report:
        for done in (1, 2):
            written.clear()
            report(f"{STEP}schema posts_indexes", done, 2)
            assert written.wait(60)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "progress: step 1 of 2, schema posts_indexes",
        "progress: step 2 of 2, schema posts_indexes",
    ]


def test_without_a_terminal_what_goes_on_for_long_is_said_again_with_how_long(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(progress, "EVERY_SECONDS", 0.01)
    monkeypatch.setattr(progress, "AGAIN_SECONDS", 0.0)
    written = threading.Semaphore(0)
    print_line = progress.print_line

    def noted(line: str, **more: Any) -> None:
        print_line(line, **more)
        written.release()

    monkeypatch.setattr(progress, "print_line", noted)
    with progress.telling(quiet=False) as (tell, read):
        tell("taking a base backup")
        read(700)
        read(800)
        for _ in range(3):
            assert written.acquire(timeout=60)
    said, first, *again = capsys.readouterr().err.splitlines()
    assert (said, first) == ("taking a base backup", "progress: taking a base backup: 2 kB")
    assert again
    assert all(re.fullmatch(rf"{re.escape(first)}, for \d+ s", line) for line in again)


def test_where_only_json_is_wanted_nothing_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    with progress.show_progress(quiet=True) as report:
        report("posts", 1, 2)
    assert capsys.readouterr() == ("", "")
