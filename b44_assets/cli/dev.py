"""The command that shows the UI: `b44 dev`."""

from __future__ import annotations

import signal
import socket
import subprocess
import sys
from pathlib import Path

import click

from b44_assets.cli.group import INTERRUPTED
from b44_assets.cli.instance import prepare_dagster
from b44_assets.cli.options import app_option, app_sql_dir, database_option, export_option, settings_with
from b44_assets.config.packaged import packaged
from b44_assets.postgres.embedded import target_url


@click.command()
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
    settings = settings_with(export_dir=export, database_url=database_url)
    _need_port(port)
    prepare_dagster(settings)
    target_url(settings)
    click.echo(f"Dagster is starting on http://127.0.0.1:{port} (Ctrl-C ends it)")
    process = subprocess.Popen(
        # "dg dev" needs a project folder; this works wherever the package is installed.
        [
            sys.executable,
            "-W",
            "ignore:Function `dev_command`",
            "-m",
            "dagster",
            "dev",
            "-w",
            str(packaged("workspace.yaml")),
            "-h",
            "127.0.0.1",
            "-p",
            str(port),
        ],
        # Where its processes find the app folder. In the folder itself, Dagster warns of a dagster.yaml besides that of DAGSTER_HOME.
        cwd=app_sql_dir(),
        # Signals reach it through us, once, whether they come from the terminal or from a service manager.
        start_new_session=True,
        # A shell starts background jobs with SIGINT ignored, and Dagster would never end.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: process.send_signal(signal.SIGINT))
    status = process.wait()
    raise SystemExit(0 if status in (0, -signal.SIGINT, INTERRUPTED) else status)


def _need_port(port: int) -> None:
    """Refuse a port that somebody listens on, where Dagster would start the rest and wait for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as error:
            raise click.UsageError(
                f"port {port} cannot be used ({error.strerror}): is Dagster running already? Else name another one by --port"
            ) from error
