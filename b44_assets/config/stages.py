"""What is told about progress besides how many records: which step of a run is under way, and in which phase."""

from __future__ import annotations

from collections.abc import Collection, Iterable
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


def phase_of(steps: Iterable[str], waiting: Iterable[str], tables: Collection[str]) -> tuple[Stage, int, int]:
    """The phase of a run: the first of which a step has not ended. It never goes back to an earlier one.

    Steps of a later stage run within an earlier phase where others wait for them.

    Args:
        steps: All steps of the run.
        waiting: Those that have not ended; at least one.
        tables: As of `stage_of`.

    Returns:
        Its stage, its number from 1, and how many phases the run has.
    """
    having = {stage_of(step, tables) for step in steps}
    phases = [stage for stage in PHASES if stage in having]
    left = {stage_of(step, tables) for step in waiting}
    number, phase = next((number, stage) for number, stage in enumerate(phases, 1) if stage in left)
    return phase, number, len(phases)
