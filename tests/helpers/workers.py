"""What the workers of a test session share: a folder, locks, and what is made once."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path


@contextmanager
def locked(path: Path) -> Generator[None]:
    """Holds a file lock among the workers of a test session."""
    with path.open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def scratch_folder() -> Path:
    """A short folder for all that the tests make: in memory where there is room, which takes a third of their time away."""
    memory, gib = Path("/dev/shm"), 1 << 30
    roomy = (
        memory.is_mount()
        and os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") >= 15 * gib
        and shutil.disk_usage(memory).free >= 8 * gib
    )
    return memory if roomy else Path("/tmp")


def made_once(kept: Path, make: Callable[[], str]) -> str:
    """What `make` returned to the first of all workers that came here; `kept` is where the others read it."""
    with locked(kept.with_suffix(".lock")):
        if not kept.exists():
            # Not there before it is whole, nor if it fails.
            made = make()
            kept.write_text(made)
    return kept.read_text()
