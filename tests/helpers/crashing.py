"""A process that does the work of a phase and is killed at a failpoint, made by forking from one that has all modules.

Run as a module it is the server of such processes: it reads orders, one JSON object a line, and answers each with the
status of the process that it has forked.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg

from b44_assets.catalog import load_catalog
from b44_assets.failpoints import Armed, armed
from b44_assets.session import Connection
from tests.helpers.paths import REPOSITORY
from tests.helpers.scenario import PHASES, PROVOKED, session_of

ANY = ""
"""Stands for every failpoint, where hits are counted over all of them."""


class Hits:
    """Counts how often each failpoint is passed, and lets something happen at one of the hits, once."""

    def __init__(self, name: str = ANY, number: int = 0, what: Armed | None = None) -> None:
        """Counts from now on.

        Args:
            name: The failpoint, or `ANY`.
            number: At which hit of it, counted from 1.
            what: What happens then.
        """
        self.counts: Counter[str] = Counter()
        self.happened = False
        self._name = name
        self._number = number
        self._what = what
        self._lock = threading.Lock()

    def __call__(self, name: str, conn: Connection) -> None:
        with self._lock:
            self.counts[name] += 1
            count = self.counts.total() if self._name == ANY else self.counts[name]
            due = not self.happened and self._name in (ANY, name) and count == self._number
            self.happened |= due
        if due and self._what is not None:
            self._what(name, conn)


def lose(name: str, conn: Connection) -> None:
    """The answer is lost on its way, whatever the server has done."""
    raise psycopg.OperationalError(f"the answer was lost at {name}")


def provoking(hit: int) -> Hits:
    """Makes a batch fail at its so manyth commit, if that is not 0."""
    return Hits("batch: before commit", hit, lose)


def provoked_for(failpoint: str) -> int:
    """Which batch is to fail for a failpoint to be passed; 0 where it is passed anyway."""
    return 2 if failpoint in PROVOKED else 0


@dataclass(frozen=True)
class Order:
    """What is to be done in a process of its own, at which hit of which failpoint it is killed, and which batch fails."""

    url: str
    folder: str
    phase: str
    failpoint: str
    hit: int
    batch_size: int = 2
    streams: int = 1
    failing: int = 0


def _kill(name: str, conn: Connection) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


class Crasher:
    """The server of processes to be killed."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process

    def run(self, order: Order) -> int:
        """Returns the status of the process: `-SIGKILL` where it came to the hit, 0 where the work was done before."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(json.dumps(asdict(order)) + "\n")
        self._process.stdin.flush()
        answer = self._process.stdout.readline()
        assert answer, "the server of processes has ended"
        return int(answer)


@contextmanager
def crasher() -> Generator[Crasher]:
    """Starts one, for the block."""
    command = [sys.executable, "-m", "tests.helpers.crashing"]
    with subprocess.Popen(command, cwd=REPOSITORY, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        try:
            yield Crasher(process)
        finally:
            assert process.stdin is not None
            process.stdin.close()


def _serve() -> None:
    catalog = load_catalog(REPOSITORY / "sql")
    for line in sys.stdin:
        order = Order(**json.loads(line))
        child = os.fork()
        if child == 0:
            session = session_of(order.url, catalog, batch_size=order.batch_size, streams=order.streams)
            status = 1
            try:
                with armed(provoking(order.failing)), armed(Hits(order.failpoint, order.hit, _kill)):
                    PHASES[order.phase].work(session, Path(order.folder))
                status = 0
            except BaseException as error:
                print(f"{order}: {error!r}", file=sys.stderr, flush=True)
            finally:
                os._exit(status)
        _, ended = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    _serve()
