"""The Dagster services of this machine, which `b44 dev` starts side by side: code location, web server and daemon.

`dagster dev` starts them one after the other, which takes twice as long until there is a page to see.
"""

from __future__ import annotations

import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, TextIO

from b44_assets.errors import B44Error

HOST = "127.0.0.1"
LOCATION = "b44_assets"
"""What the code location is called in the UI, and in the tags of runs."""
_MODULE = "b44_assets.definitions"
_LOAD_SECONDS = 180
_END_SECONDS = 60
_LINGER_SECONDS = 5
"""How long a code location that has no run to wait for may take to end."""


class ServiceError(B44Error):
    """A service ended, which nobody had asked for."""

    exit_status = 1


@dataclass
class Services:
    """The services, as long as they run.

    Attributes:
        port: Where the web server listens.
        folder: Of the socket of the code location, and of the file that tells the others where it is.
        working_directory: Where the processes find the app folder; None: here.
        runs_go_on: Whether, at the end, the code location was left for its runs.
    """

    port: int
    folder: Path
    working_directory: Path | None
    runs_go_on: bool = field(default=False, init=False)
    _code: _Group = field(default_factory=lambda: _Group(), init=False)
    _others: _Group = field(default_factory=lambda: _Group(), init=False)
    _output: Output = field(default_factory=lambda: Output(), init=False)

    def start(self) -> None:
        """Starts the code location, and the web server, which waits for it once it is loaded itself."""
        self.folder.joinpath("workspace.yaml").write_text(
            json.dumps({"load_from": [{"grpc_server": {"socket": str(self._socket), "location_name": LOCATION}}]})
        )
        self._start(
            self._code,
            "code-location",
            *("code-server", "start", "--module-name", _MODULE, "--location-name", LOCATION),
            *("--socket", str(self._socket), "--startup-timeout", str(_LOAD_SECONDS), "--log-level", "warning"),
        )
        self._start(self._others, "web-server", "--host", HOST, "--port", str(self.port), *self._workspace)

    def start_daemon(self) -> None:
        """Starts the daemon, which nobody waits for."""
        self._start(self._others, "daemon", "run", *self._workspace)

    def wait_for_page(self) -> None:
        """Returns when the web server answers.

        Raises:
            ServiceError: It, or the code location, has ended instead.
        """
        while not self._listens():
            self._need_all()
            time.sleep(0.05)

    def wait(self) -> None:
        """Returns never, as long as all is well.

        Raises:
            ServiceError: One of them has ended.
        """
        while True:
            self._need_all()
            time.sleep(1)

    def end(self) -> None:
        """Ends them. The code location stays until its runs have ended, which it takes with it if it is killed."""
        self._others.end(_END_SECONDS)
        for process in self._others.processes.values():
            process.kill()
            process.wait()
        self.runs_go_on = not self._code.end(_LINGER_SECONDS)
        self._output.end(0 if self.runs_go_on else _LINGER_SECONDS)
        if not self.runs_go_on:
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def _socket(self) -> Path:
        return self.folder / "code"

    @property
    def _workspace(self) -> tuple[str, str]:
        return ("--workspace", str(self.folder / "workspace.yaml"))

    def _start(self, group: _Group, name: str, *arguments: str) -> None:
        group.processes[name] = subprocess.Popen(
            [
                *(sys.executable, "-m", "b44_assets.runs.service_process"),
                *(name, str(group.inherited), str(self._socket), *arguments),
            ],
            cwd=self.working_directory,
            pass_fds=(group.inherited,),
            stdout=self._output.to(sys.stdout),
            stderr=self._output.to(sys.stderr),
            # Ctrl-C in the terminal reaches them, and the runs that they start, through us alone.
            start_new_session=True,
        )

    def _listens(self) -> bool:
        try:
            socket.create_connection((HOST, self.port), timeout=1).close()
        except OSError:
            return False
        return True

    def _need_all(self) -> None:
        for name, process in (*self._code.processes.items(), *self._others.processes.items()):
            if (status := process.poll()) is not None:
                raise ServiceError(f"the {name} of Dagster ended by itself, with status {status}; it said why above")


class Output:
    """Where the services write: to where we do, without colours where that is no terminal or nobody wants them."""

    def __init__(self) -> None:
        self._plain: dict[int, subprocess.Popen[bytes]] = {}

    def to(self, stream: TextIO) -> int | IO[bytes] | None:
        """Returns what stands for one of our streams; None is that itself."""
        if stream.isatty() and not os.environ.get("NO_COLOR"):
            return None
        # Whatever stands for it in this process, such as what a test collects.
        number = 2 if stream is sys.stderr else 1
        if number not in self._plain:
            self._plain[number] = subprocess.Popen(
                # It needs no package, and starts at once.
                [sys.executable, "-I", "-S", str(Path(__file__).with_name("plain_output.py"))],
                stdin=subprocess.PIPE,
                stdout=number,
                start_new_session=True,
            )
        return self._plain[number].stdin

    def end(self, seconds: float) -> None:
        """Waits until what they wrote last is written; where they go on, so does what takes off their colours."""
        for process in self._plain.values():
            if process.stdin is not None:
                process.stdin.close()
        for process in self._plain.values():
            with suppress(subprocess.TimeoutExpired):
                process.wait(seconds)


class _Group:
    """Processes that end when the pipe is closed that we hold; so they do when we are killed."""

    def __init__(self) -> None:
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self.inherited, self._held = os.pipe()

    def end(self, seconds: float) -> bool:
        """Tells them, and waits; returns whether all have ended."""
        os.close(self._held)
        os.close(self.inherited)
        deadline = time.monotonic() + seconds
        for process in self.processes.values():
            try:
                process.wait(max(0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                return False
        return True


@contextmanager
def services(port: int, working_directory: Path | None) -> Generator[Services]:
    """The services but for the daemon, started; they end with the block."""
    # Not under the home: the path of a socket may have 107 bytes.
    started = Services(port, Path(tempfile.mkdtemp(prefix="b44-dev-")), working_directory)
    try:
        started.start()
        yield started
    finally:
        started.end()
