"""The command `b44` in a process of its own."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from tests.helpers.forking import run_forked
from tests.helpers.output_schema import check_form, command_of

COMMAND = Path(sys.executable).with_name("b44")
# Longer than any of it takes on a slow machine: only a process that hangs is ended by it.
PATIENCE = 300.0
_KEPT = re.compile(
    r"warning: posts publish_permissions: [\d,]+ violations? \(.*\) of the rule: The author of a published post is active .*"
)


@dataclass(frozen=True)
class Result:
    """What a process came to, and the arguments that it was given."""

    status: int
    out: str
    err: str
    arguments: Sequence[str] = ()

    @property
    def complaints(self) -> list[str]:
        """The lines of standard error but for target, progress, further tries, and what every sample has kept though forbidden."""
        return [
            line
            for line in self.err.splitlines()
            if not (line.startswith(("notice: ", "progress: ", "target: ")) or _KEPT.fullmatch(line))
        ]

    @property
    def fault(self) -> str:
        """The one line that says why the command failed."""
        assert self.status != 0, self.out
        assert len(self.complaints) == 1, self.err
        assert self.complaints[0].startswith("b44: "), self.err
        assert "Traceback" not in self.out + self.err
        return self.complaints[0]

    @property
    def report(self) -> dict[str, Any]:
        """The JSON object on standard output, with nothing before and nothing after it, of the form that is documented."""
        assert self.out.startswith("{") and self.out.endswith("}\n"), (self.out, self.err)
        printed = json.loads(self.out)
        check_form(command_of(self.arguments), printed)
        return printed


@dataclass(frozen=True)
class Command:
    """`b44` with a working directory and an environment of its own.

    Attributes:
        directory: The working directory; `B44_HOME` is `home` in it.
        environment: All that the process finds in its environment.
    """

    directory: Path
    environment: dict[str, str] = field(repr=False)

    def on(self, url: str) -> Command:
        """The same command on another target."""
        return self.having(B44_DATABASE_URL=url)

    def having(self, **environment: str) -> Command:
        """The same command with more in its environment."""
        return replace(self, environment={**self.environment, **environment})

    def lacking(self, *names: str) -> Command:
        """The same command with less in its environment."""
        return replace(self, environment={k: v for k, v in self.environment.items() if k not in names})

    def __call__(self, *arguments: str | Path) -> Result:
        """Runs it to its end; the script itself runs wherever a test needs the process (`start`)."""
        words = [str(word) for word in arguments]
        with tempfile.TemporaryDirectory() as folder:
            ended = run_forked(words, self.directory, self.environment, Path(folder), patience=PATIENCE)
        return Result(*ended, words)

    def start(self, *arguments: str | Path) -> Running:
        """Starts it as the leader of a process group, as a shell does."""
        words = [str(word) for word in arguments]
        process = subprocess.Popen(
            [COMMAND, *words],
            cwd=self.directory,
            env=self.environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )
        return Running(process, words)


@dataclass(frozen=True)
class Running:
    """A process that has been started."""

    process: subprocess.Popen[str]
    arguments: Sequence[str]

    def wait(self) -> Result:
        """Waits for its end."""
        try:
            out, err = self.process.communicate(timeout=PATIENCE)
        except BaseException:
            self.signal(signal.SIGKILL)
            self.process.communicate()
            raise
        return Result(self.process.returncode, out, err, self.arguments)

    def signal(self, number: signal.Signals) -> None:
        """Sends a signal to the process group, as the terminal does on Ctrl-C."""
        os.killpg(self.process.pid, number)

    def until(self, condition: Callable[[], bool]) -> None:
        """Waits until something holds; fails if the process ends first."""
        deadline = time.monotonic() + PATIENCE
        while not condition():
            if self.process.poll() is not None:
                raise AssertionError(f"ended too early: {self.wait()}")
            assert time.monotonic() < deadline, "waited in vain"
            time.sleep(0.01)


def environment(**values: str) -> dict[str, str]:
    """An environment without settings of whoever runs the tests."""
    kept = ("PATH", "HOME", "LANG", "LC_ALL", "TMPDIR", "SYSTEMROOT")
    # No export has an earlier post, and every partition takes its time.
    return {name: os.environ[name] for name in kept if name in os.environ} | {"B44_FIRST_MONTH": "2024-01"} | values
