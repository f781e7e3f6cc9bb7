"""Statements noted instead of executed, so that the database can be given them to run by itself.

What belongs here: the stand-in for a connection. What does not: which statements, and what becomes of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from psycopg import ClientCursor
from psycopg.adapt import AdaptersMap
from psycopg.rows import TupleRow

from b44_assets.session import Connection

_SETTING = "set local "


class _Answer:
    """The rows of a query, as a cursor gives them."""

    def __init__(self, rows: list[TupleRow]) -> None:
        self._rows = iter(rows)

    def __iter__(self) -> Iterator[TupleRow]:
        return self._rows

    def fetchone(self) -> TupleRow | None:
        """The next row."""
        return next(self._rows, None)

    def fetchall(self) -> list[TupleRow]:
        """The rows that are left."""
        return list(self._rows)


class Recorder:
    """Stands in for a connection: answers queries, and notes what would change something.

    A statement that begins with SELECT is a query. What is noted has no result. Since nothing is changed, a query is put to the
    server once.

    Attributes:
        statements: What was noted, with its values in it.
        settings: What SET LOCAL was to set, as `name = value`.
    """

    def __init__(self, conn: Connection, before: Recorder | None = None) -> None:
        """Begins to note.

        Args:
            conn: Is asked what is not known.
            before: One of the same connection, and of the same moment, whose answers hold here, too.
        """
        self.connection = conn
        self.statements: list[str] = []
        self.settings: list[str] = []
        self._answers: dict[str, list[TupleRow]] = {} if before is None else before._answers

    @property
    def adapters(self) -> AdaptersMap:
        """How values are written, as by the connection."""
        return self.connection.adapters

    def execute(self, query: Any, params: Any = None) -> Any:
        """Answers a query, or notes a statement."""
        text = ClientCursor(self.connection).mogrify(query, params).strip()
        if text.lower().startswith("select"):
            if text not in self._answers:
                self._answers[text] = self.connection.execute(query, params).fetchall()
            return _Answer(self._answers[text])
        if text.lower().startswith(_SETTING):
            # Several may come in one round trip.
            self.settings += text[len(_SETTING) :].split(f"; {_SETTING}")
        else:
            self.statements.append(text)
        return None
