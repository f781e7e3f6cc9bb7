"""Processes of a server, and what they say."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Postmaster:
    """What a server says of itself in `postmaster.pid`.

    Attributes:
        pid: Of its first process.
        socket_dir: Where its socket is; None as long as there is none.
        status: `starting`, `ready`, `standby` or `stopping`; blank at first.
    """

    pid: int
    socket_dir: Path | None
    status: str


def read_postmaster(data_dir: Path) -> Postmaster | None:
    """Returns what the server on a data directory says of itself; None if none has written anything yet."""
    try:
        lines = (data_dir / "postmaster.pid").read_text().splitlines()
    except (FileNotFoundError, NotADirectoryError):
        return None
    # Written in steps while the server starts; the socket's folder is the fifth line, the status the eighth.
    lines = [line.strip() for line in lines] + [""] * (8 - len(lines))
    if not lines[0].isdecimal():
        return None
    return Postmaster(int(lines[0]), Path(lines[4]) if lines[4] else None, lines[7])


def is_alive(pid: int) -> bool:
    """Tells whether a process runs; one that is dead and not yet reaped does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    try:
        state = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        # Gone since, where there is a /proc at all.
        return not Path("/proc/self/stat").exists()
    # A container whose first process reaps no children keeps the dead as zombies.
    return state not in ("Z", "X")


def processes() -> list[int]:
    """Returns all processes of the system, where there is a /proc to list them."""
    try:
        return [int(name) for name in os.listdir("/proc") if name.isdecimal()]  # noqa: PTH208 - names, not paths
    except FileNotFoundError:
        return []


def working_directory(pid: int) -> str | None:
    """Returns the folder that a process stands in, marked by the kernel if deleted; `None` if it cannot be known."""
    try:
        return str(Path(f"/proc/{pid}/cwd").readlink())
    except OSError:
        return None


def is_postgres(pid: int) -> bool:
    """Tells whether a process is one of a PostgreSQL server's."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == "postgres"
    except OSError:
        return False


def first_number(path: Path) -> int | None:
    """Returns the number on a file's first line; None if there is none to be read."""
    try:
        first = path.read_text().partition("\n")[0].strip()
    except OSError:
        return None
    return int(first) if first.isdecimal() else None


def reason_given(text: str, data_dir: Path) -> str | None:
    """Returns in one line what PostgreSQL gave as the reason for giving up."""
    found = re.search(r"(?:FATAL|PANIC|ERROR|error): +(.+)(?:\n.*DETAIL: +(.+))?", text)
    if found is None:
        return None
    message, detail = found.groups()
    if "contains errors" in message:
        # The fault in a file of settings is told before it.
        earlier = re.findall(r"LOG: +(.+)", text[: found.start()])
        detail = earlier[-1] if earlier else detail
    reason = f"{message}: {detail}" if detail else message
    return reason.replace("/proc/self/cwd", str(data_dir))


def last_line(text: str) -> str:
    """Returns the last line of what a program said."""
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1] if lines else "no reason was given"
