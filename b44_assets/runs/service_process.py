"""The process of one of Dagster's services: `python -m b44_assets.runs.service_process NAME PIPE SOCKET ARGUMENT…`.

It runs a program of Dagster's, and ends when its starter closes the other end of the pipe, or is killed.
"""

from __future__ import annotations

import os
import shutil
import signal
import socket
import sys
import threading
import time
from collections.abc import Callable
from importlib import import_module
from pathlib import Path

from b44_assets.garbage import collect_seldom


def _code_location() -> Callable[[], None]:
    from dagster._cli import main

    return main


def _daemon() -> Callable[[], None]:
    from dagster._daemon.cli import main

    return main


def _web_server() -> Callable[[], None]:
    from dagster_webserver.cli import main

    # Dagster imports it when it opens the storage; until then there is the code location to wait for.
    import_module("b44_assets.orchestration.storage")
    return main


_PROGRAMS = {"code-location": _code_location, "daemon": _daemon, "web-server": _web_server}


def _listens(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        try:
            probe.connect(str(path))
        except OSError:
            return False
    return True


def _end_with(pipe: int, end: Callable[[], None]) -> None:
    """Has something done when the other end of a pipe is closed."""

    def watch() -> None:
        os.read(pipe, 1)
        end()

    threading.Thread(target=watch, name="starter", daemon=True).start()


def _interrupt() -> None:
    os.kill(os.getpid(), signal.SIGINT)


def _end_after_runs(path: Path) -> None:
    """Ends the code location once its runs have ended; until then they can be terminated through it."""
    from dagster._grpc.client import DagsterGrpcClient

    if _listens(path):
        DagsterGrpcClient(socket=str(path)).shutdown_server()
    else:
        _interrupt()


def main() -> None:
    """Runs the service."""
    name, pipe, path, *arguments = sys.argv[1:]
    # A shell starts what runs in the background with SIGINT ignored.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    collect_seldom()
    program = _PROGRAMS[name]()
    code_location = Path(path)
    try:
        _end_with(int(pipe), (lambda: _end_after_runs(code_location)) if name == "code-location" else _interrupt)
        while name == "web-server" and not _listens(code_location):
            time.sleep(0.05)
        sys.argv = [name, *arguments]
        program()
    except KeyboardInterrupt:
        raise SystemExit(0) from None
    finally:
        if name == "code-location":
            shutil.rmtree(code_location.parent, ignore_errors=True)


if __name__ == "__main__":
    main()
