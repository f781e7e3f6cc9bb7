"""What is told about progress besides how many records: which step of a run is under way, and in which phase."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from enum import StrEnum

STEP = "step "
"""`what` of a step that begins is this word, its stage and its name; `done` is its number from 1, `total` how many there are."""
PHASE = "phase "
"""`what` of a phase that begins is this word and its stage; `done` is its number from 1, `total` how many there are."""

CHECKS = "checks: answered"
"""`what` of checks; `done` of `total` are answered."""


class Stage(StrEnum):
    """What is done."""

    STARTING = "starting"
    COPYING = "copying"
    READING = "reading"
    PLANNING = "planning"
    LOADING = "loading"
    SCHEMA = "schema"
    CHECKING = "checking"
    VACUUM = "vacuum"
    WRITING = "writing"


PHASES = (Stage.READING, Stage.LOADING, Stage.SCHEMA, Stage.CHECKING)
"""The phases of a run, in their order: a phase lasts until the last step of its stage has ended."""


def stage_of(step: str, tables: Collection[str]) -> Stage:
    """What a step of a run does.

    Args:
        step: Its name in the run.
        tables: Those that records are loaded into.
    """
    if step.startswith("base44__"):
        return Stage.READING
    if step in tables:
        return Stage.LOADING
    if step == "health" or step.endswith(("_parity", "_checks")) or step.startswith("monitoring__"):
        return Stage.CHECKING
    return Stage.SCHEMA


@dataclass(frozen=True)
class Begun:
    """A step of a run that begins.

    Attributes:
        stage: What it does.
        number: Its number from 1, in the order in which they begin.
        phase: The phase that the run is in: the first of which a step has not ended.
        phase_number: Its number from 1.
        phases: How many phases the run has.
    """

    stage: Stage
    number: int
    phase: Stage
    phase_number: int
    phases: int


class Steps:
    """The steps of a run, one of which is under way at a time, and its phases, which never go back to an earlier one.

    Steps of a later stage run within an earlier phase where others wait for them.
    """

    def __init__(self, names: Iterable[str], tables: Collection[str]) -> None:
        """Takes all of a run.

        Args:
            names: Its steps.
            tables: As of `stage_of`.
        """
        self._stages = {name: stage_of(name, tables) for name in names}
        self._waiting = Counter(self._stages.values())
        self._phases = [stage for stage in PHASES if stage in self._waiting]
        self._numbers: dict[str, int] = {}

    def __len__(self) -> int:
        return len(self._stages)

    def begin(self, name: str) -> Begun:
        """Tells of a step that begins; those that began before it have ended."""
        stage = self._stages[name]
        if name not in self._numbers:
            self._numbers[name] = len(self._numbers) + 1
            self._waiting[stage] -= 1
        left = (number for number, phase in enumerate(self._phases, 1) if phase is stage or self._waiting[phase])
        number = next(left)
        return Begun(stage, self._numbers[name], self._phases[number - 1], number, len(self._phases))
