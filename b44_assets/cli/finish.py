"""The command that ends a migration: `b44 finish`."""

from __future__ import annotations

import sys

import click

from b44_assets.cli.options import app_option, database_option, json_option, settings_with
from b44_assets.cli.output import print_json
from b44_assets.cli.progress import say, telling
from b44_assets.cli.terminal import ask, print_line
from b44_assets.errors import BadBackupError, FinishedError, NotFinishedError, SettingsError
from b44_assets.postgres.advisory_locks import LockHolder
from b44_assets.wording import plural


@click.command(short_help="Archive and drop the migration's own tables at last.")
@click.option("--accept-quarantine", is_flag=True, help="Give up the records in quarantine; the archive keeps them.")
@click.option("--accept-failed-checks", is_flag=True, help="Finish although the last verification has failed.")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_option
@json_option
@app_option
def finish(
    accept_quarantine: bool, accept_failed_checks: bool, yes: bool, database_url: str | None, as_json: bool
) -> None:
    """Archive and drop the migration's own tables, once the application has been cut over.

    The schemas migration and base44 go to the backup store; the archive is loaded into a scratch server and compared with
    them, and only then are they dropped. The application's tables, and all that keeps them in shape, stay.
    """
    from b44_assets.backup.service import BackupContext, archive_schemas, differences_from
    from b44_assets.catalog import load_catalog
    from b44_assets.failpoints import failpoint
    from b44_assets.migration.finish import SCHEMAS, drop_migration_tables, migration_state, require_finishable
    from b44_assets.runs.preconditions import saying_what_it_lacks, tell_of_backup
    from b44_assets.session import Session, migrating

    settings = settings_with(reads=True, database_url=database_url)
    session = Session.of(settings, load_catalog(settings.sql_dir))

    def running(holder: LockHolder | None) -> None:
        raise NotFinishedError(f"a migration of this database is running: {holder or 'it is just ending'}")

    with (
        saying_what_it_lacks(session),
        migrating(session, say, busy=running) as lock,
        session.under(lock).connection("finish") as conn,
    ):
        state = migration_state(session)
        if state.finished_at is not None:
            _done(state.archive or "", as_json=as_json, said=f"nothing to finish: {state.message()}")
            return
        if state.dropped:
            raise FinishedError(f"nothing to finish: {state.message()}")
        if not state.present:
            raise NotFinishedError("nothing to finish: nothing has been migrated into this database yet")
        require_finishable(session, accept_quarantine=accept_quarantine, accept_failed_checks=accept_failed_checks)
        backup_context = BackupContext.of(settings)
        tell_of_backup(settings, session, say)
        if not yes:
            _confirm(conn.info.dbname, backup_context.catalogue.store.location)
        with telling(quiet=as_json) as (tell, _):
            archived = archive_schemas(backup_context, SCHEMAS, tell)
        if archived.unverified is not None:
            raise BadBackupError(
                f"{archived.backup.id} cannot be read back, and nothing was dropped: {archived.unverified}"
            )
        if archived.backup.verification is None or not archived.backup.good:
            first = (
                archived.backup.verification.differences[0] if archived.backup.verification else "it was not compared"
            )
            raise BadBackupError(f"{archived.backup.id} is not what the tables hold, and nothing was dropped: {first}")
        failpoint("finish: archived", conn)
        drop_migration_tables(
            session.under(lock),
            archived.backup.id,
            archived.backup.state.taken_at,
            lambda conn: differences_from(archived.backup, conn),
        )
    tables = archived.backup.state.tables
    rows = sum(table.rows for table in tables.values())
    _done(
        archived.backup.id,
        as_json=as_json,
        said=f"{archived.backup.id}: {rows:,} {plural(rows, 'row')} of {len(tables)} {plural(len(tables), 'table')}"
        f" {plural(rows, 'is', 'are')} archived, read back and equal; schemas {' and '.join(SCHEMAS)}"
        " are dropped",
    )


def _confirm(database: str, store: str) -> None:
    if not sys.stdin.isatty():
        raise SettingsError("finish drops tables, and there is no terminal to ask at: say --yes")
    if not ask(f"Archive the migration tables and the staged export of {database} in {store}, and drop them?"):
        raise NotFinishedError("nothing was archived or dropped, as you have said")


def _done(archive: str, *, as_json: bool, said: str) -> None:
    if as_json:
        print_json({"archive": archive})
    else:
        print_line(said)
