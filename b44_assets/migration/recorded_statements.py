"""Statements noted instead of executed, so that the database can be given them to run by itself.

What belongs here: the stand-in for a connection. What does not: which statements, and what becomes of them.
"""

from __future__ import annotations

from typing import Any

from psycopg import ClientCursor
from psycopg.adapt import AdaptersMap

from b44_assets.session import Connection

_SETTING = "set local "


class Recorder:
    """Stands in for a connection: answers queries, and notes what would change something.

    A statement that begins with SELECT is a query. What is noted has no result.

    Attributes:
        statements: What was noted, with its values in it.
        settings: What SET LOCAL was to set, as `name = value`.
    """

    def __init__(self, conn: Connection) -> None:
        self.connection = conn
        self.statements: list[str] = []
        self.settings: list[str] = []

    @property
    def adapters(self) -> AdaptersMap:
        """How values are written, as by the connection."""
        return self.connection.adapters

    def execute(self, query: Any, params: Any = None) -> Any:
        """Answers a query, or notes a statement."""
        text = ClientCursor(self.connection).mogrify(query, params).strip()
        if text.lower().startswith("select"):
            return self.connection.execute(query, params)
        if text.lower().startswith(_SETTING):
            self.settings.append(text[len(_SETTING) :])
        else:
            self.statements.append(text)
        return None
