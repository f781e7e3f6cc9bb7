"""The connections that were made to a database of the embedded server, by its log."""

from __future__ import annotations

import re
from collections import Counter

from b44_assets.postgres.embedded import EmbeddedServer

LOGGED = "-c log_disconnections=on"
"""`PGOPTIONS` by which a superuser's connections are in the log."""
# As it has them, in one line: time [process] application@database. A statement of somebody else's may stand before it.
_ENDED = re.compile(r"\S+ \S+ UTC \[[0-9]+\] (?P<name>[^@\n]*)")


def ended_connections(server: EmbeddedServer, *databases: str) -> list[Counter[str]]:
    """How many have ended, by name, of each database."""
    found: dict[str, Counter[str]] = {name: Counter() for name in databases}
    for log in server.log_dir.glob("postgresql-*.log"):
        # The log is that of all tests, and long: only the lines of these databases are looked at.
        text = log.read_text(errors="replace")
        for database, ended in found.items():
            at = -1
            while (at := text.find(f"@{database} LOG:  disconnection: ", at + 1)) >= 0:
                if line := _ENDED.fullmatch(text, text.rfind("\n", 0, at) + 1, at):
                    ended[line["name"]] += 1
    return list(found.values())
