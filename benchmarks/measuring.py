"""What every benchmark needs: a scratch server, the time and memory of a process, an application, how busy the machine was."""

from __future__ import annotations

import os
import random
import resource
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import psycopg
from psycopg import sql

from b44_assets.errors import B44Error
from b44_assets.postgres.embedded import EmbeddedServer

T = TypeVar("T")

MIB = 1024 * 1024
_SAMPLE_SECONDS = 0.05


class BenchmarkError(B44Error):
    """A benchmark that cannot go on; one line, as everywhere."""


STATEMENTS: tuple[tuple[str, str], ...] = (
    ("read a page", "select id, title, next_cursor from get_posts_paginated(20)"),
    ("read a post", "select title, excerpt from posts where id = %(id)s"),
    ("count a view", "update posts set view_count = view_count + 1 where id = %(id)s"),
    (
        "write a post",
        "insert into posts (user_id, created_by, title, content)"
        " values (%(user)s, %(user)s, 'A title ' || %(place)s, 'Written meanwhile.')",
    ),
)
"""What the application does with posts, each as often as any other."""


class Shop:
    """A client of the application, on a connection of its own."""

    def __init__(self, url: str, number: int) -> None:
        """Looks up some posts to be busy with.

        Args:
            url: The database, which has posts.
            number: Tells clients apart, who take turns at the statements.
        """
        self._conn = psycopg.connect(url, autocommit=True, application_name=f"shop {number}")
        self._rows = self._conn.execute("select id, user_id from posts order by id limit 500").fetchall()
        # Two people seldom edit the same post at the same time.
        random.Random(number).shuffle(self._rows)
        self._number = number
        self._place = number

    def act(self) -> tuple[str, str | None]:
        """Runs the next statement; returns its name, and what the server had against it."""
        post, user = self._rows[self._place % len(self._rows)]
        name, statement = STATEMENTS[self._place % len(STATEMENTS)]
        self._place += 1
        values = {"id": post, "user": user, "place": f"{self._place} of {self._number}"} if "%" in statement else None
        try:
            self._conn.execute(statement.encode(), values)
        except psycopg.Error as error:
            return name, f"{name}: {error.diag.message_primary or error}"
        return name, None

    def __enter__(self) -> Shop:
        return self

    def __exit__(self, *_: object) -> None:
        self._conn.close()


@dataclass(frozen=True)
class Ran:
    """A process that has ended.

    Attributes:
        seconds: Wall-clock time.
        cpu_seconds: Time on a processor of the process and of those that it started and waited for.
        peak_rss: The most memory, in bytes, that it and its descendants held at one moment. Sampled, but exact for
            the largest single process.
        output: What it printed on standard output.
    """

    seconds: float
    cpu_seconds: float
    peak_rss: int
    output: str


def run(
    command: Sequence[str | Path],
    *,
    env: Mapping[str, str] | None = None,
    cwd: Path | None = None,
) -> Ran:
    """Runs a command to its end. Its standard error is ours.

    Args:
        command: Program and arguments.
        env: Variables on top of our own environment.
        cwd: Its working directory.

    Raises:
        BenchmarkError: It ended with another status than 0.
    """
    started = time.monotonic()
    process = subprocess.Popen(
        [str(word) for word in command],
        env=surroundings(env or {}),
        cwd=cwd,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
    )
    watch = _Memory(process.pid)
    watch.start()
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.monotonic() - started
    process.returncode = os.waitstatus_to_exitcode(status)
    process.stdout.close()
    watch.stop()
    if process.returncode != 0:
        raise BenchmarkError(f"{Path(command[0]).name} ended with status {process.returncode}")
    return Ran(seconds, usage.ru_utime + usage.ru_stime, watch.peak or _max_rss(usage), output)


def surroundings(env: Mapping[str, str]) -> dict[str, str]:
    """Our own environment and variables on top of it, for a process that is as where a package was installed: compiled once."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONDONTWRITEBYTECODE"} | dict(env)


def _max_rss(usage: resource.struct_rusage) -> int:
    # Kilobytes, but bytes on macOS.
    return usage.ru_maxrss * (1 if os.uname().sysname == "Darwin" else 1024)


class _Memory(threading.Thread):
    """Watches a process and its descendants through /proc; sees nothing on systems without.

    Not the rusage of the process: Linux counts in it what the parent held at the fork.
    """

    def __init__(self, pid: int) -> None:
        super().__init__(name="memory", daemon=True)
        self._pid = pid
        self._ended = threading.Event()
        self.peak = 0

    def run(self) -> None:
        while not self._ended.is_set():
            now, highest = 0, 0
            for pid in _family(self._pid):
                held, most = _memory_of(pid)
                now, highest = now + held, max(highest, most)
            self.peak = max(self.peak, now, highest)
            self._ended.wait(_SAMPLE_SECONDS)

    def stop(self) -> None:
        self._ended.set()
        self.join()


def _family(pid: int) -> Iterator[int]:
    yield pid
    try:
        children = [
            int(child)
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
    except OSError:
        return
    for child in children:
        yield from _family(child)


def _memory_of(pid: int) -> tuple[int, int]:
    """Resident bytes now, and at most since its program was started; 0 where the process is gone."""
    try:
        status = Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return 0, 0
    held = {key: value for key, _, value in (line.partition(":") for line in status.splitlines())}
    return tuple(int(held.get(key, "0 kB").split()[0]) * 1024 for key in ("VmRSS", "VmHWM"))  # pyright: ignore[reportReturnType]


def timed(work: Callable[[], T]) -> tuple[float, T]:
    """Does something; returns the seconds it took, and what it returned."""
    started = time.monotonic()
    result = work()
    return time.monotonic() - started, result


def own_peak_rss() -> int:
    """The most memory, in bytes, that this process has held so far."""
    return _memory_of(os.getpid())[1] or _max_rss(resource.getrusage(resource.RUSAGE_SELF))


def server_cpu(embedded: EmbeddedServer) -> float:
    """Seconds that the server's processes, ended ones included, have spent on a processor; 0 on systems without /proc.

    On a busy machine this says more than the clock.
    """
    try:
        postmaster = int((embedded.data_dir / "postmaster.pid").read_text().split()[0])
    except OSError:
        return 0.0
    ticks = 0
    for pid in _family(postmaster):
        # A process that has just ended is in its parent's count.
        with suppress(OSError):
            fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
            # utime and stime, and those of children waited for; see proc(5).
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def load() -> str:
    """How busy the machine is: processors, and processes wanting one over the last 1, 5 and 15 minutes."""
    return f"{os.cpu_count()} processors, load {', '.join(f'{average:.1f}' for average in os.getloadavg())}"


@contextmanager
def workplace(keep: Path | None) -> Generator[Path]:
    """A folder for server and export: a given one, which stays, or a temporary one, which goes."""
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        keep.chmod(keep.stat().st_mode | 0o055)
        yield keep.absolute()
        return
    with tempfile.TemporaryDirectory(prefix="b44-benchmark-", ignore_cleanup_errors=True) as folder:
        place = Path(folder)
        # The server of a root runs as an account of its own, which must get through.
        place.chmod(0o755)
        yield place


@contextmanager
def server(home: Path) -> Generator[EmbeddedServer]:
    """The embedded server under a home, running; stopped at the end."""
    embedded = EmbeddedServer(home)
    embedded.start()
    try:
        yield embedded
    finally:
        embedded.stop()


def fresh_database(embedded: EmbeddedServer, name: str) -> str:
    """Makes an empty database, in place of one of that name; returns its URL."""
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        # Nobody pays for what somebody else has left to be written.
        conn.execute("checkpoint")
    return embedded.url(name)
