"""The commands on the target's server: `b44 db`."""

from __future__ import annotations

import click

from b44_assets.cli.backups import archiving
from b44_assets.cli.options import app_option, settings_with
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer, target_url


@click.group()
def db() -> None:
    """The target database."""


@db.command()
@app_option
def url() -> None:
    """Print the target's connection string; starts the embedded server if need be."""
    click.echo(target_url(settings_with()))


@db.command()
@app_option
def stop() -> None:
    """Stop the embedded server."""
    settings = settings_with()
    stopped = EmbeddedServer(settings.home).stop()
    click.echo("stopped" if stopped else "the embedded server was not running")


@db.command("bin")
@app_option
def programs() -> None:
    """Print the folder of the PostgreSQL programs (psql, pg_dump, pg_restore, …) that suit the target's server."""
    settings = settings_with()
    if settings.database_url is None:
        click.echo(EmbeddedServer(settings.home).bin_dir)
        return
    from b44_assets.postgres.clients import available, choose

    with connect(settings.database_url, application_name="b44 db bin") as conn:
        version, encrypted = conn.info.server_version, conn.pgconn.ssl_in_use
    click.echo(choose(available(settings.pg_bin), version, encrypted=encrypted).folder)


db.add_command(archiving)
