"""The command that shows the UI: `b44 dev`."""

from __future__ import annotations

import fcntl
import os
import signal
import socket
import time
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

import click

from b44_assets.cli.options import app_option, app_sql_dir, database_option, export_option, need_catalog, settings_with
from b44_assets.cli.progress import say
from b44_assets.cli.terminal import print_line
from b44_assets.errors import DatabaseError, SettingsError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import embedded_runs, target_url
from b44_assets.runs.instance import connect_storage, prepare_dagster, runs_under_way

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings
    from b44_assets.runs.services import Services

_FIRST_PAGE = "/asset-groups"
"""A page of the UI that shows something before anything was run."""
_HEARTBEAT_SECONDS = 45
"""A daemon tells every 30 seconds that it is alive."""


@click.command(short_help="Start the Dagster UI and daemon on this machine.")
@export_option
@database_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    show_default=True,
    help="Where the web server listens, on 127.0.0.1.",
)
@app_option
def dev(export: Path | None, database_url: str | None, port: int) -> None:
    """Start the Dagster web server and daemon on this machine, over the same runs and database."""
    from b44_assets.runs.services import HOST, services

    settings = settings_with(export_dir=export, database_url=database_url)
    _need_port(port)
    prepare_dagster(settings)
    lock = _need_no_other(settings)
    print_line("Dagster is starting …")
    # A shell starts background jobs with SIGINT ignored; a service manager ends by SIGTERM.
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, signal.default_int_handler)
    started: Services | None = None
    try:
        # In the folder of the app, which the code location reads.
        with services(port, app_sql_dir()) as started:
            need_catalog(settings)
            target_url(settings)
            started.wait_for_page()
            print_line(f"the graph of assets: http://{HOST}:{port}{_FIRST_PAGE} (Ctrl-C ends it)")
            started.start_daemon()
            _tell_of_target(settings)
            started.wait()
    except KeyboardInterrupt:
        # On a machine that is busy a code location may end late without a run.
        go_on = started is not None and started.runs_go_on and _runs_under_way(settings)
        print_line("Dagster has ended; runs that are under way go on" if go_on else "Dagster has ended")
    finally:
        _note_end(lock)


def _need_no_other(settings: Settings) -> TextIO:
    """Refuses a second daemon over the same runs, where each schedule and sensor would fire twice; returns the lock to keep.

    Raises:
        SettingsError: There is one.
    """
    from b44_assets.doctor import daemon_age

    lock = (Path(os.environ["DAGSTER_HOME"]) / "dev.lock").open("a+", encoding="utf-8")
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise SettingsError(
            f"b44 dev runs already over the runs of {os.environ['DAGSTER_HOME']}: look at it, or end it first"
        ) from error
    lock.seek(0)
    ended = lock.read().strip()
    if settings.dagster_pg_url is None and not embedded_runs(settings):
        # Without its storage no daemon is alive.
        return lock
    with connect_storage(settings, "b44 dev") as conn:
        age = daemon_age(conn, after=float(ended or 0))
    if age is not None and age < _HEARTBEAT_SECONDS:
        raise SettingsError(
            f"another Dagster daemon over the same runs was alive {age:.0f} s ago: end it first (where it was killed,"
            " try again in a minute)"
        )
    return lock


def _tell_of_target(settings: Settings) -> None:
    """Says in one line where the target cannot be reached; the UI is there all the same."""
    if settings.database_url is None:
        return
    try:
        connect(settings.database_url, application_name="b44 dev").close()
    except DatabaseError as error:
        say(f"warning: {error}; until then every run fails")


def _runs_under_way(settings: Settings) -> bool:
    """Tells whether a run is under way; where its storage cannot be asked, one may be."""
    try:
        with connect_storage(settings, "b44 dev") as conn:
            return runs_under_way(conn)
    except DatabaseError:
        return True


def _note_end(lock: TextIO) -> None:
    """Notes when our daemon ended, lest the next one takes it for another that is alive."""
    lock.truncate(0)
    lock.write(str(time.time()))
    lock.flush()


def _need_port(port: int) -> None:
    """Refuse a port that somebody listens on, where Dagster would start the rest and wait for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise SettingsError(
                f"port {port} cannot be used ({error.strerror}): is Dagster running already? Else name another one by --port"
            ) from error
