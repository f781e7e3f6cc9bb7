"""Work in a process of its own that was forked from one which has imported all that the command needs.

To import Dagster and all it stands on takes longer than most commands themselves; the process is a new one all the same.
"""

from __future__ import annotations

import atexit
import json
import multiprocessing
import os
import socket
import sys
import tempfile
import threading
from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import contextmanager
from multiprocessing.connection import Connection
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

# What the command imports, and what Dagster does when it runs a job.
_PRELOADED = [
    # The first.
    "tests.helpers.unswept",
    "b44_assets.cli",
    "b44_assets.definitions",
    "b44_assets.backup.folder_store",
    "b44_assets.backup.remote_store",
    "b44_assets.doctor",
    "b44_assets.migration.accounts",
    "b44_assets.migration.chosen_tables",
    "b44_assets.migration.disk_room",
    "b44_assets.migration.listed",
    "b44_assets.migration.quarantine",
    "b44_assets.migration.replays",
    "b44_assets.migration.report",
    "b44_assets.migration.verification",
    "b44_assets.exports",
    "b44_assets.planning",
    "b44_assets.runs.instance",
    "b44_assets.runs.job",
    "b44_assets.orchestration.code_location",
    "b44_assets.orchestration.run_retention",
    "b44_assets.orchestration.storage",
    "b44_assets.scaffold.generation",
    "b44_assets.schema.preflight",
    "dagster._core.definitions.repository_definition.repository_data_builder",
    "dagster._core.execution.execute_in_process",
    "dagster._core.execution.plan.active",
    "dagster._core.executor.in_process",
    "dagster._core.instance.factory",
    "dagster._core.instance.runs.run_domain",
    "dagster._core.secrets.env_file",
    "dagster._core.storage.migration.utils",
    "dagster._core.storage.noop_compute_log_manager",
    "dagster._core.storage.root",
    "dagster._core.system_config.composite_descent",
    "dagster_postgres",
    "psycopg2.extras",
    "sqlglot.dialects.postgres",
    "sqlglot.lineage",
    "sqlglot.optimizer.qualify",
    "tests.helpers.forking",
    "tests.helpers.screens",
    "upath.implementations.local",
    # The last.
    "tests.helpers.frozen",
]
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(_PRELOADED)


def start_forked(
    work: Callable[..., object], *arguments: object, directory: Path, environment: Mapping[str, str], output: Path
) -> BaseProcess:
    """Starts a function of a module in such a process, the leader of a process group.

    Args:
        work: The function.
        arguments: Those of the function.
        directory: Its working directory.
        environment: All that it finds in its environment.
        output: A folder for what it prints: `out` and `err`.
    """
    process = _CONTEXT.Process(target=_work, args=(work, arguments, directory, dict(environment), output))
    process.start()
    return process


def run_forked(
    arguments: Sequence[str], directory: Path, environment: Mapping[str, str], output: Path, *, patience: float
) -> tuple[int, str, str]:
    """Runs `b44`; returns its exit status and what it printed on standard output and on standard error.

    Args:
        arguments: Those of the command.
        directory: Its working directory.
        environment: All that it finds in its environment.
        output: A folder for what it prints.
        patience: Seconds after which it is killed.
    """
    process = start_forked(_command, tuple(arguments), directory=directory, environment=environment, output=output)
    process.join(patience)
    if process.is_alive():
        process.kill()
        process.join()
        raise TimeoutError(f"b44 {' '.join(arguments)} went on for {patience:g} s: {(output / 'err').read_text()}")
    assert process.exitcode is not None
    return process.exitcode, (output / "out").read_text(), (output / "err").read_text()


# Stands in for the command in a shell: gives words, folder, environment and its three files to whoever forks, and ends as that ends.
_STAND_IN = """\
#!{python} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as asked:
    asked.connect({address!r})
    told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(asked, [len(told).to_bytes(4, "big")], [0, 1, 2])
    asked.sendall(told)
    sys.exit(int(asked.recv(8) or b"1"))
"""


@contextmanager
def forked_in_shells() -> Generator[Path]:
    """Gives, for the block, a folder for PATH whose `b44` runs as `run_forked` does, with the standard files of its caller."""
    with tempfile.TemporaryDirectory() as folder, socket.socket(socket.AF_UNIX) as listener:
        address, stand_in = f"{folder}/socket", Path(folder, "bin", "b44")
        stand_in.parent.mkdir()
        stand_in.write_text(_STAND_IN.format(python=sys.executable, address=address))
        stand_in.chmod(0o755)
        listener.bind(address)
        listener.listen()
        thread = threading.Thread(target=_answer, args=(listener,))
        thread.start()
        try:
            yield stand_in.parent
        finally:
            # Whoever waits for somebody who asks is told that nobody will.
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


def _answer(listener: socket.socket) -> None:
    while True:
        try:
            asked, _ = listener.accept()
        except OSError:
            return
        with asked:
            length, descriptors, _, _ = socket.recv_fds(asked, 4, 3)
            with asked.makefile("rb") as file:
                arguments, directory, environment = json.loads(file.read(int.from_bytes(length, "big")))
            # What multiprocessing can hand over.
            files = [Connection(descriptor) for descriptor in descriptors]
            process = _CONTEXT.Process(target=_work_with, args=(arguments, directory, environment, files))
            process.start()
            process.join()
            for file in files:
                file.close()
            status = process.exitcode
            assert status is not None
            asked.sendall(b"%d" % (status if status >= 0 else 128 - status))


def _work_with(
    arguments: list[str], directory: str, environment: dict[str, str], files: list[Connection[Any, Any]]
) -> None:
    for number, file in enumerate(files):
        os.dup2(file.fileno(), number)
        file.close()
    _begin(Path(directory), environment)
    try:
        _command(tuple(arguments))
    finally:
        _end()


def _command(arguments: tuple[str, ...]) -> None:
    sys.argv = ["b44", *arguments]
    from b44_assets.cli import main

    main()


def _work(
    work: Callable[..., object],
    arguments: tuple[object, ...],
    directory: Path,
    environment: dict[str, str],
    output: Path,
) -> None:
    for name, number in (("out", 1), ("err", 2)):
        descriptor = os.open(output / name, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(descriptor, number)
        os.close(descriptor)
    _begin(directory, environment)
    try:
        work(*arguments)
    finally:
        _end()


def _begin(directory: Path, environment: Mapping[str, str]) -> None:
    os.setsid()
    os.environ.clear()
    os.environ.update(environment)
    os.chdir(directory)
    tempfile.tempdir = None
    sys.stdout = os.fdopen(1, "w", encoding="utf-8", closefd=False)
    sys.stderr = os.fdopen(2, "w", encoding="utf-8", errors="backslashreplace", buffering=1, closefd=False)


def _end() -> None:
    # A process of multiprocessing's ends without them.
    atexit._run_exitfuncs()  # pyright: ignore[reportPrivateUsage]  # there is no other way to
    sys.stdout.flush()
    sys.stderr.flush()
