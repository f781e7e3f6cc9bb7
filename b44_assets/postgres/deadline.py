"""One deadline for statements that wait for many locks: `lock_timeout` counts anew for each lock.

Whoever takes ten locks one after the other, and waits for each a little less than `lock_timeout`, holds up those who want
the first one ten times as long.
"""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Self

from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow


@dataclass(frozen=True)
class Deadline:
    """A moment by which an attempt to get all of some locks has to be over.

    Attributes:
        at: By the clock of `time.monotonic`.
    """

    at: float

    @classmethod
    def after(cls, seconds: float) -> Self:
        """Returns the one that is so many seconds from now."""
        return cls(time.monotonic() + seconds)

    @property
    def milliseconds(self) -> int:
        """How many are left; 0 once it is over."""
        return max(0, int((self.at - time.monotonic()) * 1000))

    def run(self, conn: Connection[TupleRow], statement: sql.SQL | sql.Composed) -> None:
        """Runs a statement that ends by the deadline, however many locks it waits for.

        Nothing here takes a snapshot, so that one taken afterwards is younger than the locks.

        Args:
            conn: In a transaction, which is to be rolled back if this raises.
            statement: What takes the locks.

        Raises:
            psycopg.errors.LockNotAvailable: The deadline is over.
            psycopg.Error: Whatever else the server says.
        """
        left = self.milliseconds
        if not left:
            raise errors.LockNotAvailable("the time for these locks was over before they were asked for")
        row = conn.execute("show statement_timeout").fetchone()
        assert row is not None
        _limit(conn, f"{left}ms")
        try:
            conn.execute(statement)
            # The last statement that the limit holds for: where few milliseconds are left, it may be the one that is ended.
            _limit(conn, row[0])
        except errors.QueryCanceled as error:
            # Else somebody has cancelled it.
            if self.milliseconds:
                raise
            raise errors.LockNotAvailable("the locks were not to be had in time") from error


def _limit(conn: Connection[TupleRow], value: str) -> None:
    conn.execute(sql.SQL("set local statement_timeout = {}").format(sql.Literal(value)))
