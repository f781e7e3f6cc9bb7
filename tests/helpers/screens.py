"""What a command prints on terminals of some widths, and into a pipe."""

from __future__ import annotations

import fcntl
import os
import re
import struct
import sys
import tempfile
import termios
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tests.helpers.command import PATIENCE, Result
from tests.helpers.forking import start_forked

PIPE = 0
"""The width of no terminal."""
_STYLE = re.compile(r"\x1b\[[\d;]*m")


def screens(
    arguments: Sequence[str],
    directory: Path,
    environment: Mapping[str, str],
    widths: Sequence[int],
    before: Callable[[], None],
) -> dict[int, Result]:
    """What a command prints on a terminal of each width, where NO_COLOR is set; whether it is bold is not told.

    Args:
        arguments: Those of the command.
        directory: Where it runs, each time in a folder of its own that is named by the width.
        environment: All that it finds in its environment.
        widths: Of the terminal that its standard output is, in columns; `PIPE` for none. Standard error is a pipe.
        before: A function of a module that is run before it, in its process.
    """
    known = {**environment, "TERM": "xterm-256color", "NO_COLOR": "1"}
    with tempfile.TemporaryDirectory() as output:
        process = start_forked(
            _print_on,
            list(arguments),
            list(widths),
            before,
            directory=directory,
            environment=known,
            output=Path(output),
        )
        process.join(PATIENCE)
        assert process.exitcode == 0, Path(output, "err").read_text()
    found: dict[int, Result] = {}
    for width in widths:
        folder = directory / str(width)
        status, out, err = ((folder / name).read_text() for name in ("status.txt", "out.txt", "err.txt"))
        plain = _STYLE.sub("", out) if width != PIPE else out
        assert set(_STYLE.findall(out)) <= {"\x1b[0m", "\x1b[1m"}, out
        found[width] = Result(int(status), plain.replace("\r\n", "\n"), err, arguments)
    return found


def _print_on(arguments: list[str], widths: list[int], before: Callable[[], None]) -> None:
    from b44_assets.cli import main

    before()
    sys.argv = ["b44", *arguments]
    here = Path.cwd()
    for width in widths:
        folder = here / str(width)
        folder.mkdir()
        os.chdir(folder)
        with _output(width, folder):
            try:
                main(arguments)
                status = 0
            except SystemExit as ended:
                status = ended.code or 0
        (folder / "status.txt").write_text(str(status))


@contextmanager
def _output(width: int, folder: Path) -> Generator[None]:
    """Standard output is a terminal of a width in the block, or a file, and standard error is a file."""
    kept = os.dup(1), os.dup(2)
    out, err = (os.open(folder / name, os.O_WRONLY | os.O_CREAT) for name in ("out.txt", "err.txt"))
    reader: threading.Thread | None = None
    if width != PIPE:
        ours, terminal = os.openpty()
        fcntl.ioctl(terminal, termios.TIOCSWINSZ, struct.pack("HHHH", 50, width, 0, 0))
        reader = threading.Thread(target=_copy, args=(ours, out))
        reader.start()
        os.dup2(terminal, 1)
        os.close(terminal)
    else:
        os.dup2(out, 1)
    os.dup2(err, 2)
    try:
        yield
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os.dup2(kept[0], 1)
        os.dup2(kept[1], 2)
        if reader is not None:
            reader.join()
        for number in (*kept, out, err):
            os.close(number)


def _copy(ours: int, out: int) -> None:
    """What is printed on a terminal, until nobody has it open any more."""
    while True:
        try:
            data = os.read(ours, 65536)
        except OSError:
            # So Linux says that it is closed.
            break
        if not data:
            break
        os.write(out, data)
    os.close(ours)
