"""The command line, `b44`: a module for each family of commands.

What belongs here: options, progress, what is printed, the exit status. What does not: any work on the database.
"""

from __future__ import annotations

import logging

import click

from b44_assets.cli import backups, database, dev, finish, init, metrics, migration, plan, quarantine, sample, status
from b44_assets.cli.group import Group

__all__ = ["main"]


_SECTIONS = {
    "Before": (init.init, plan.plan, sample.sample),
    "The migration": (migration.migrate, status.status, status.verify, status.report),
    "Refused records": (quarantine.quarantine, migration.replay),
    "Taking back": (migration.rollback,),
    "The end": (migration.cutover, finish.finish),
    "Backups": (backups.backup, backups.backups, backups.restore, backups.drill),
    "The server": (status.doctor, database.db, metrics.metrics, dev.dev),
}


@click.group(
    cls=Group,
    sections={title: [str(command.name) for command in commands] for title, commands in _SECTIONS.items()},
    epilog="To try it: b44 sample export && b44 migrate --export export. Your own app: b44 init.",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.version_option(package_name="b44-assets")
def main() -> None:
    """Moves an app off Base44 into a PostgreSQL of your own, as a Dagster asset graph."""
    # psycopg warns of a rollback on a connection that is lost, beside the error of that connection, which we report.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


for _commands in _SECTIONS.values():
    for _command in _commands:
        main.add_command(_command)
