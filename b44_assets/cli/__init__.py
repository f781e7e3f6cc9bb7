"""The command line, `b44`: a module for each family of commands.

What belongs here: options, progress, what is printed, the exit status. What does not: any work on the database.
"""

from __future__ import annotations

import logging

import click

from b44_assets.cli import backups, database, dev, finish, init, metrics, migration, plan, quarantine, sample, status
from b44_assets.cli.group import Group

__all__ = ["main"]


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="b44-assets")
def main() -> None:
    """Moves an app off Base44 into a PostgreSQL of your own, as a Dagster asset graph."""
    # psycopg warns of a rollback on a connection that is lost, beside the error of that connection, which we report.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


for _command in (
    init.init,
    plan.plan,
    migration.migrate,
    quarantine.quarantine,
    migration.replay,
    migration.rollback,
    migration.cutover,
    status.status,
    status.verify,
    status.report,
    status.doctor,
    metrics.metrics,
    backups.backup,
    backups.backups,
    backups.restore,
    backups.drill,
    finish.finish,
    database.db,
    dev.dev,
    sample.sample,
):
    main.add_command(_command)
