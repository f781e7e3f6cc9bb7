"""All that a program has left somewhere: files, rows of databases, command lines; for finding secrets in it."""

from __future__ import annotations

import os
import threading
import zlib
from collections.abc import Generator, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from psycopg import sql

from tests.helpers.database_contents import rows

_TABLES = """
select n.nspname::text, c.relname::text, n.nspname = 'public' and c.relname = 'snapshots'
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)'
"""


def of_folder(folder: Path) -> Iterator[tuple[str, bytes]]:
    """Every file beneath a folder."""
    for path in folder.rglob("*"):
        if path.is_file():
            yield str(path), path.read_bytes()


def of_database(url: str) -> Iterator[tuple[str, bytes]]:
    """Every table of a database, row by row as text, and what Dagster has packed in one."""
    for schema, table, packed in rows(url, _TABLES):
        for (row,) in rows(url, sql.SQL("select t::text from {} t").format(sql.Identifier(schema, table))):
            yield f"{schema}.{table}", row.encode()
        if packed:
            for (snapshot,) in rows(url, "select snapshot_body from snapshots"):
                yield "a snapshot of Dagster's", zlib.decompress(snapshot)


@dataclass
class CommandLines:
    """Those of every process of the machine while something runs."""

    seen: set[str] = field(default_factory=set[str])

    @contextmanager
    def watched(self) -> Generator[None]:
        over = threading.Event()
        # Names, not paths: it is looked twenty times a second.
        standing = set(os.listdir("/proc"))  # noqa: PTH208

        def look(found: Iterable[str]) -> None:
            for process in found:
                # It may end meanwhile, and not everything there is one.
                try:
                    line = Path("/proc", process, "cmdline").read_bytes()
                except OSError:
                    continue
                self.seen.add(line.replace(b"\0", b" ").decode(errors="replace"))

        def watch() -> None:
            # What was there before says the same all the time; it is looked at once more at the end.
            while not over.wait(0.05):
                found = set(os.listdir("/proc"))  # noqa: PTH208
                standing.intersection_update(found)
                look(found - standing)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            look(os.listdir("/proc"))  # noqa: PTH208
