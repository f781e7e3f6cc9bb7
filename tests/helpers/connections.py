"""The connections that were made to a database of the embedded server, by its log."""

from __future__ import annotations

import re
from collections import Counter

from b44_assets.postgres.embedded import EmbeddedServer

LOGGED = "-c log_disconnections=on"
"""`PGOPTIONS` by which a superuser's connections are in the log."""
# As it has them, in one line: time [process] application@database. A statement of somebody else's may stand before it.
_ENDED = re.compile(r"^\S+ \S+ UTC \[[0-9]+\] (?P<name>[^@\n]*)@(?P<database>\S+) LOG:  disconnection: ", re.MULTILINE)


def ended_connections(server: EmbeddedServer, *databases: str) -> list[Counter[str]]:
    """How many have ended, by name, of each database."""
    lines = [
        found
        for log in server.log_dir.glob("postgresql-*.log")
        for found in _ENDED.finditer(log.read_text(errors="replace"))
    ]
    return [Counter(one["name"] for one in lines if one["database"] == name) for name in databases]
