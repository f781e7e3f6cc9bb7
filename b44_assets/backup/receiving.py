"""Receiving the WAL that a server writes while it is backed up, by pg_receivewal."""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO

from b44_assets.backup.tools import Login, complaint, end, run
from b44_assets.errors import BackupError

_WHAT = "the WAL of the backup cannot be received"

# Else it would outlive us and receive for ever: it is ended when our end of the pipe is closed, by us or by our death.
_LIFELINE = """\
exec 3<&0
"$@" 3<&- </dev/null &
child=$!
{ read -r line <&3; kill -TERM "$child"; } &
watch=$!
wait "$child"
status=$?
kill "$watch" 2>/dev/null
exit "$status"
"""


@dataclass(frozen=True)
class Receiver:
    """A pg_receivewal that runs.

    Attributes:
        login: To the server.
        folder: Where the segments go; the last one, not yet full, with the ending `.partial`.
        process: The shell around it.
        said: What it says.
    """

    login: Login
    folder: Path
    process: subprocess.Popen[bytes]
    said: IO[bytes]

    def finish(self, lsn: str) -> None:
        """Receives up to a position, and ends.

        Args:
            lsn: The server must have WAL beyond it, or write some soon.

        Raises:
            BackupError: It has failed meanwhile, or the server does not give it.
        """
        self.check()
        self._end()
        # From the segment on that is not full: what was received of it is received again.
        run([*_command(self.login, self.folder), f"--endpos={lsn}"], _WHAT, self.login.environment)

    def check(self) -> None:
        """Raises if it has ended by itself.

        Raises:
            BackupError: With what it said.
        """
        if self.process.poll() is not None:
            self.said.seek(0)
            raise BackupError(f"{_WHAT}: {complaint(self.said.read().decode(errors='replace'))}")

    def _end(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        end(self.process, None)


@contextmanager
def receiving(login: Login, folder: Path) -> Generator[Receiver]:
    """Receives WAL into a folder for the block; when the block begins, it is under way.

    Args:
        login: To the server, as a role with the attribute REPLICATION.
        folder: Empty.

    Raises:
        BackupError: The server does not give it.
    """
    with tempfile.TemporaryFile() as said:
        process = subprocess.Popen(
            ["/bin/sh", "-c", _LIFELINE, "sh", *_command(login, folder)],
            env=dict(login.environment),
            # So that a scratch folder left behind can be told to be in use.
            cwd=folder,
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=said,
            start_new_session=True,
        )
        receiver = Receiver(login, folder, process, said)
        try:
            while not any(folder.iterdir()):
                receiver.check()
                time.sleep(0.01)
            yield receiver
        finally:
            assert process.stdin is not None
            process.stdin.close()
            end(process, None)


def _command(login: Login, folder: Path) -> list[str]:
    return [
        login.program("pg_receivewal"),
        f"--dbname={login.conninfo}",
        "--no-password",
        "--no-loop",
        f"--directory={folder}",
    ]
