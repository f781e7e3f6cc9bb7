"""Places in the engine where a test may let something happen: the process killed, the server shut down, an answer lost.

Nothing happens at any of them unless a test has armed them; no environment variable and no setting can.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import contextmanager

from psycopg import Connection
from psycopg.rows import TupleRow

Armed = Callable[[str, Connection[TupleRow]], None]

FAILPOINTS = (
    "stage: staged",
    "stage: between blocks",
    "stage: before commit",
    "stage: after commit",
    "plan: evaluated",
    "plan: before commit",
    "plan: after commit",
    "load: before batches",
    "load: partitions made",
    "batch: begun",
    "batch: before commit",
    "batch: after commit",
    "batch: before retry",
    "batch: before failure is noted",
    "batch: after failure is noted",
    "record refused: before commit",
    "record refused: after commit",
    "complete: before commit",
    "complete: after commit",
    "unmapped: before commit",
    "unmapped: after commit",
    "correct: before commit",
    "correct: after commit",
    "rollback: between entities",
    "rollback: before commit",
    "rollback: after commit",
    "schema: before commit",
    "schema: after commit",
    "indexes: between partitions",
    "view: before refresh",
    "finish: archived",
    "finish: before commit",
    "finish: after commit",
)
"""The names, in the order of the work."""

_armed: list[Armed] = []


def failpoint(name: str, conn: Connection[TupleRow]) -> None:
    """Does nothing, but for what a test has armed.

    Args:
        name: One of `FAILPOINTS`.
        conn: The connection at work there.
    """
    for armed in _armed:
        armed(name, conn)


@contextmanager
def armed(what: Armed) -> Generator[None]:
    """Lets something happen at every failpoint of this process, for the block; for tests."""
    _armed.append(what)
    try:
        yield
    finally:
        _armed.remove(what)
