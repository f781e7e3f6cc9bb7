"""The command that gives the monitoring's figures to Prometheus: `b44 metrics`."""

from __future__ import annotations

import sys
import threading
from pathlib import Path

import click

from b44_assets.cli.options import app_option, database_option, json_option, session_of, settings_with
from b44_assets.cli.output import print_json
from b44_assets.cli.terminal import print_line
from b44_assets.errors import SettingsError

DEFAULT_HOST = "127.0.0.1"


class Address(click.ParamType[tuple[str, int]]):
    """`HOST:PORT`, `:PORT` or `PORT`."""

    name = "address"

    def convert(
        self, value: str | tuple[str, int], param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, int]:
        """Tells host and port apart; without a host nobody but this machine is served."""
        if isinstance(value, tuple):
            return value
        host, _, port = value.rpartition(":")
        if not port.isdigit() or not 0 < int(port) < 65536:
            self.fail(f"{value!r} is not of the form HOST:PORT or PORT", param, ctx)
        return host.strip("[]") or DEFAULT_HOST, int(port)


@click.command(short_help="Print, write or serve figures for Prometheus.")
@database_option
@click.option(
    "--textfile", type=click.Path(path_type=Path, dir_okay=False), metavar="FILE", help="Write them to a file."
)
@click.option(
    "--listen",
    type=Address(),
    metavar="[HOST:]PORT",
    help=f"Serve them at /metrics until Ctrl-C; HOST is {DEFAULT_HOST}.",
)
@json_option
@app_option
def metrics(database_url: str | None, textfile: Path | None, listen: tuple[str, int] | None, as_json: bool) -> None:
    """Print the monitoring's figures as Prometheus reads them, write them to a file, or serve them."""
    if textfile is not None and listen is not None:
        raise SettingsError("--textfile and --listen exclude each other")
    if as_json and (textfile is not None or listen is not None):
        raise SettingsError("--json goes without --textfile and --listen")
    settings = settings_with(reads=True, database_url=database_url)
    from b44_assets.maintenance.monitoring.prometheus import exporting, figures_of, serve, text_of, write_textfile

    with exporting(session_of(settings), settings) as exporter:
        if listen is not None:
            port, end = serve(exporter, *listen)
            print_line(f"serving http://{listen[0]}:{port}/metrics; Ctrl-C ends it", err=True)
            try:
                threading.Event().wait()
            finally:
                end()
        if textfile is not None:
            write_textfile(exporter, textfile)
        elif as_json:
            print_json({"figures": figures_of(exporter)})
        else:
            sys.stdout.buffer.write(text_of(exporter))
        if exporter.fault is not None:
            raise exporter.fault
