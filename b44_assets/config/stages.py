"""What is told about progress besides how many records: which step of a run is under way."""

from __future__ import annotations

from enum import StrEnum

STEP = "step "
"""`what` of a step that begins is this word, its stage and its name; `done` is its number from 1, `total` how many there are."""


class Stage(StrEnum):
    """What is done."""

    READING = "reading"
    PLANNING = "planning"
    LOADING = "loading"
    SCHEMA = "schema"
    CHECKING = "checking"
    VACUUM = "vacuum"
