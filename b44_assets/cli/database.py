"""The commands on the target's server: `b44 db`."""

from __future__ import annotations

import os
import sys

import click

from b44_assets.cli.backups import archiving
from b44_assets.cli.options import app_option, json_option, settings_with
from b44_assets.cli.output import print_json
from b44_assets.cli.terminal import print_line
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer, target_url


@click.group(short_help="The target database: its URL, psql, pg_dump, archiving.")
def db() -> None:
    """The target database: its connection string, PostgreSQL's programs on it, and the archiving of its WAL."""


@db.command(short_help="Print the target's URL; starts the embedded server.")
@json_option
@app_option
def url(as_json: bool) -> None:
    """Print the target's connection string; starts the embedded server if need be."""
    _print(as_json, "url", target_url(settings_with()))


@db.command()
@json_option
@app_option
def stop(as_json: bool) -> None:
    """Stop the embedded server."""
    settings = settings_with()
    stopped = EmbeddedServer(settings.home).stop()
    if as_json:
        print_json({"home": str(settings.home), "stopped": stopped})
    else:
        server = f"the embedded server under {settings.home}"
        print_line(f"{server} is stopped" if stopped else f"{server} was not running")


@db.command("bin", short_help="Print the folder of the programs that suit the server.")
@json_option
@app_option
def programs(as_json: bool) -> None:
    """Print the folder of the PostgreSQL programs (psql, pg_dump, pg_restore, …) that suit the target's server."""
    settings = settings_with()
    if settings.database_url is None:
        _print(as_json, "folder", EmbeddedServer(settings.home).bin_dir)
        return
    from b44_assets.postgres.clients import available, choose

    with connect(settings.database_url, application_name="b44 db bin") as conn:
        version, encrypted = conn.info.server_version, conn.pgconn.ssl_in_use
    _print(as_json, "folder", choose(available(settings.pg_bin), version, encrypted=encrypted).folder)


def _print(as_json: bool, name: str, value: object) -> None:
    """Prints one value, by its name where JSON is asked for."""
    if as_json:
        print_json({name: str(value)})
    else:
        click.echo(value)


_PASSED_ON = {"ignore_unknown_options": True, "allow_interspersed_args": False}


@db.command(context_settings=_PASSED_ON)
@app_option
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def psql(arguments: tuple[str, ...]) -> None:
    """Open psql on the target; the arguments are psql's own."""
    _become("psql", arguments, to_dump=False)


@db.command(context_settings=_PASSED_ON, short_help="Dump the target by the pg_dump that suits its server.")
@app_option
@click.argument("arguments", metavar="[ARGUMENTS]...", nargs=-1, type=click.UNPROCESSED)
def dump(arguments: tuple[str, ...]) -> None:
    """Dump the target by the pg_dump that suits its server; the arguments are pg_dump's own."""
    _become("pg_dump", arguments, to_dump=True)


def _become(program: str, arguments: tuple[str, ...], *, to_dump: bool) -> None:
    """Goes on as a program of PostgreSQL's that is connected to the target, with its output and exit status.

    Raises:
        BackupError: The password cannot be handed over but on a command line.
        DatabaseError: The target cannot be reached, or no program on this machine suits it.
    """
    from b44_assets.backup.service import newest_of
    from b44_assets.backup.tools import Login

    settings = settings_with(reads=True, database_url=None)
    url = target_url(settings)
    with connect(url, application_name="b44 db") as conn:
        login = Login.of(url, conn, configured=settings.pg_bin, to_dump=to_dump)
        database = conn.info.dbname
        reached_by = login.variables(conn)
    if not to_dump and not arguments and sys.stdin.isatty():
        # Whoever types may change anything.
        print_line(f"notice: {newest_of(database, settings)}", err=True)
    path = login.program(program)
    os.execve(path, [path, *arguments], reached_by)


db.add_command(archiving)
