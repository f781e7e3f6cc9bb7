"""How far a command is: one bar and one line on a terminal, else a line every few seconds on standard error."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

from b44_assets.cli.terminal import print_line
from b44_assets.config.stages import CHECKS, PHASE, STEP, Stage
from b44_assets.runs.job import Listener
from b44_assets.wording import plural

EVERY_SECONDS = 5.0
"""How often a line is written where there is no terminal."""
AGAIN_SECONDS = 30.0
"""After how long such a line is written again that says nothing new."""
_RATE_AFTER_SECONDS = 1.0
"""For how long something has to run before its speed says anything."""
_READING, _WRITING, _MAPPING, _VACUUM = "base44/", "sample/", ": mapping", "vacuum"
_TOLD = "told/"


@dataclass
class State:
    """How far a command is, by what it was told last.

    Attributes:
        clock: Gives seconds that never go back.
        step: The step that is under way, from 1; 0 where nothing is known of steps.
        steps: How many there are.
        phase: What the steps are about, of which this one is one.
        phases: Number of that phase, from 1, and how many there are; zeros where there is only one.
        stage: What is done.
        subject: The table, or the step.
        unit: What `done` and `total` count; empty where nothing is counted.
        done: How much is done of what is under way.
        total: Of how much; 0 where that is not known.
    """

    clock: Callable[[], float] = time.monotonic
    step: int = 0
    steps: int = 0
    phase: str = ""
    phases: tuple[int, int] = (0, 0)
    stage: str = ""
    subject: str = ""
    unit: str = ""
    done: int = 0
    total: int = 0
    _began: tuple[float, int] = field(default=(0.0, 0), repr=False)

    def report(self, what: str, done: int, total: int) -> None:
        """Takes in what the engine tells: see `Progress` of a session, and `STEP`."""
        before = self.stage, self.subject
        if what.startswith(PHASE):
            self.phase, self.phases = (what.removeprefix(PHASE), (done, total)) if total > 1 else ("", (0, 0))
        elif what.startswith(STEP):
            self.stage, _, self.subject = what.removeprefix(STEP).partition(" ")
            self.step, self.steps = done, total
            self.unit, self.done, self.total = "", 0, 0
        elif what.startswith(_READING):
            self._counts(Stage.READING, what.removeprefix(_READING), "bytes", done, total)
        elif what.startswith(_TOLD):
            self._counts(what.removeprefix(_TOLD), "", "bytes" if done else "", done, total)
        elif what.startswith(_WRITING):
            self._counts(Stage.WRITING, what.removeprefix(_WRITING), "records", done, total)
        elif what.endswith(_MAPPING):
            self._counts(Stage.PLANNING, what.removesuffix(_MAPPING), "", 0, 0)
        elif what == CHECKS:
            self._counts(Stage.CHECKING, self.subject, "checks", done, total)
        elif what == _VACUUM:
            self._counts(Stage.VACUUM, "", "tables", done, total)
        else:
            self._counts(Stage.LOADING, what, "records", done, total)
        if before != (self.stage, self.subject):
            self._began = self.clock(), self.done

    def _counts(self, stage: str, subject: str, unit: str, done: int, total: int) -> None:
        self.stage, self.subject, self.unit, self.done, self.total = stage, subject, unit, done, total

    @property
    def completed(self) -> float:
        """How many steps are done, with the part of the one that is under way."""
        part = min(self.done / self.total, 1.0) if self.total else 0.0
        return max(self.step - 1, 0) + part

    @property
    def rate(self) -> float | None:
        """How much is done a second; None where it cannot be said yet, and where nothing runs any more."""
        since, first = self._began
        seconds = self.clock() - since
        if not self.unit or self.done <= first or seconds < _RATE_AFTER_SECONDS or self.done >= self.total:
            return None
        return (self.done - first) / seconds

    def described(self) -> str:
        """The phase that the bar is in; where there is but one, the step."""
        if self.phase:
            return "{} of {}: {}".format(*self.phases, self.phase)
        return f"step {self.step} of {self.steps}" if self.steps else "working"

    def message(self) -> str:
        """How far it is, in one line."""
        parts = ["phase {} of {} ({}), ".format(*self.phases, self.phase)] if self.phase else []
        return "".join([*parts, self.detail()])

    def detail(self) -> str:
        """What is under way, in one line, without the phase."""
        return (f"step {self.step} of {self.steps}, " if self.steps else "") + self.under_way()

    def under_way(self) -> str:
        """What is under way, in one line, without phase and step."""
        parts = [f"{self.stage or 'starting'} {self.subject}".rstrip()]
        if self.unit and self.total:
            parts.append(f": {self._amount(self.done)} of {self._amount(self.total)} {self._unit(self.total)}")
            if (rate := self.rate) is not None:
                left = (self.total - self.done) / rate
                parts.append(f", {self._amount(round(rate))} a second, {_duration(left)} left")
        elif self.unit and self.done:
            parts.append(f": {self._amount(self.done)} {self._unit(self.done)}")
        return "".join(parts)

    def _amount(self, count: int) -> str:
        if self.unit != "bytes":
            return f"{count:,}"
        return f"{count / 1e6:,.1f}" if self._large else f"{count / 1e3:,.0f}"

    def _unit(self, count: int) -> str:
        if self.unit != "bytes":
            return plural(count, self.unit.removesuffix("s"))
        return "MB" if self._large else "kB"

    @property
    def _large(self) -> bool:
        return max(self.total, self.done) >= 1e6


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def say(line: str) -> None:
    """Prints a line for a person on standard error."""
    print_line(line, err=True)


def listening(*, quiet: bool) -> Listener:
    """What prints on standard error what a run tells of itself; how far it is only where it is not to be quiet."""
    return Listener(say, partial(tell, quiet=quiet), partial(show_progress, quiet=quiet))


def tell(line: str, *, quiet: bool = False) -> None:
    """Says on a terminal what begins, before there is a bar."""
    if not quiet and sys.stderr.isatty():
        print_line(f"{line} …", err=True)


@contextmanager
def show_progress(*, quiet: bool) -> Generator[Callable[[str, int, int], None]]:
    """One bar and one line on a terminal, else a line every few seconds on standard error; nothing where it is to be quiet."""
    state = State()
    if quiet:
        yield lambda what, done, total: None
    elif sys.stderr.isatty():
        # Late: what draws takes longer to import than --help takes.
        from b44_assets.cli.progress_bar import Bar

        with Bar(state):
            yield state.report
    else:
        with _lines(state):
            yield state.report


@contextmanager
def telling(*, quiet: bool) -> Generator[tuple[Callable[[str], None], Callable[[int], None]]]:
    """Says what begins in a line each, and meanwhile how far that is: for work that tells of itself in words.

    Args:
        quiet: Whether nothing is said of how far it is.

    Returns:
        What takes such a line, and what takes bytes that were read since.
    """
    with show_progress(quiet=quiet) as report:
        begun, read = "", 0

        def tell(line: str) -> None:
            nonlocal begun, read
            say(line)
            # A remark on what has begun already.
            if line.startswith(("notice: ", "with ")):
                return
            begun, read = line, 0
            report(f"{_TOLD}{begun}", read, 0)

        def count(more: int) -> None:
            nonlocal read
            read += more
            report(f"{_TOLD}{begun}", read, 0)

        yield tell, count


@contextmanager
def _lines(state: State) -> Generator[None]:
    ended = threading.Event()

    def speak() -> None:
        # Before anything was reported there is nothing to say. What is said once is said again after a while, lest one thinks that
        # nothing goes on.
        said, since, last = "", 0.0, 0.0
        while not ended.wait(EVERY_SECONDS):
            now = time.monotonic()
            if state.stage and (line := state.message()) != said:
                said, since = line, now
            elif not said or now - last < AGAIN_SECONDS:
                continue
            last = now
            going = f", for {_duration(now - since)}" if now > since else ""
            print_line(f"progress: {said}{going}", err=True)

    speaker = threading.Thread(target=speak, name="progress", daemon=True)
    speaker.start()
    try:
        yield
    finally:
        ended.set()
        speaker.join()
