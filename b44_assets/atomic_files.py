"""Files that are there whole, or as they were before."""

from __future__ import annotations

import os
import tempfile
from contextlib import suppress
from pathlib import Path


def write_atomically(path: Path, content: bytes, *, mode: int, owner: tuple[int, int] | None = None) -> None:
    """Puts a file in place at once, following no link that the folder's owner may have laid.

    A process that is killed meanwhile leaves `.<name>.<random>.tmp` beside it.

    Args:
        path: The file; its folder is there.
        content: All of it.
        mode: Its rights, whatever the umask.
        owner: Its user and group; by default those of the process.

    Raises:
        OSError: It cannot be written.
    """
    descriptor, arriving = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(descriptor, "wb") as file:
            if owner is not None:
                os.fchown(descriptor, *owner)
            os.fchmod(descriptor, mode)
            file.write(content)
        Path(arriving).replace(path)
    except BaseException:
        with suppress(OSError):
            Path(arriving).unlink()
        raise
