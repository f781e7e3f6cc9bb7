"""The commands that move records, or take them back: `b44 migrate`, `replay`, `rollback`, `cutover`."""

from __future__ import annotations

import getpass
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from b44_assets.cli.options import (
    app_option,
    database_option,
    export_option,
    json_option,
    need_export,
    session_of,
    settings_with,
)
from b44_assets.cli.outcome import conclude
from b44_assets.cli.output import name_column, number_column, print_json, print_table
from b44_assets.cli.plan import conclude_plan
from b44_assets.cli.progress import listening, say, tell
from b44_assets.cli.status import write_report
from b44_assets.cli.terminal import ask, new_console, print_line, print_text
from b44_assets.config.quantities import month_from
from b44_assets.errors import B44Error, ExportError, SettingsError
from b44_assets.runs.instance import tell_dagster
from b44_assets.runs.job import importing_meanwhile, run_job
from b44_assets.runs.preconditions import (
    exclusive_migration,
    refuse_if_finished,
    require_migration,
)
from b44_assets.runs.selection import Selection, selection_of
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings
    from b44_assets.runs.outcome import Outcome
    from b44_assets.session import Session

_NO_EXPORT = "no export: name its folder with --export DIR or B44_EXPORT_DIR"


class UnacceptedQuarantineError(B44Error):
    """A cut-over is not signed off, as records are in quarantine and nobody has said that they are not needed."""

    exit_status = 1


@click.command(short_help="Migrate an export into the target, and check it.")
@export_option
@database_option
@click.option("--dry-run", is_flag=True, help="Only say what would be done, as b44 plan does.")
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; may be given more than once.")
@click.option("--month", metavar="YYYY-MM", help="With --table: only this month of the tables.")
@click.option("--leave-out", "left_out", metavar="TABLE", multiple=True, help="All but this table; may be repeated.")
@json_option
@app_option
def migrate(
    export: Path | None,
    database_url: str | None,
    dry_run: bool,
    tables: tuple[str, ...],
    month: str | None,
    left_out: tuple[str, ...],
    as_json: bool,
) -> None:
    """Migrate a folder of Base44 exports into the target: read, load, make the schema, check, all in one run."""
    from b44_assets.postgres.embedded import target_exists

    tell("starting", quiet=as_json)
    listener = listening(quiet=as_json)
    settings = settings_with(export_dir=export, database_url=database_url)
    if dry_run:
        conclude_plan(settings, as_json=as_json, tables=tables, left_out=left_out, month=month)
        return
    # Before an embedded server is made for it.
    if settings.export_dir is not None:
        need_export(settings.export_dir, settings)
    elif not target_exists(settings):
        raise ExportError(_NO_EXPORT)
    with importing_meanwhile(settings):
        session = session_of(settings)
    # What a connection knows of the tables serves the whole command.
    with session.keeping() as session:
        if settings.export_dir is None and not _is_staged_by_hand(session):
            raise ExportError(_NO_EXPORT)
        refuse_if_finished(session, "migrate")
        selection = selection_of(session, tables, left_out, month, say)
        with exclusive_migration(settings, session, say) as lock:
            _warn_of_little_room(settings, session)
            outcome, faults = run_job(
                "migrate_everything", settings, session, listener=listener, selection=selection, lock=lock
            )
    conclude(outcome, faults, as_json=as_json)


def _warn_of_little_room(settings: Settings, session: Session) -> None:
    from b44_assets.migration.disk_room import REMEDY, lacking_room

    if settings.export_dir is not None and (
        line := lacking_room(session.url, settings.export_dir, session.catalog.entities)
    ):
        say(f"warning: {line}: {REMEDY}")


@click.command(short_help="Migrate the refused records that were corrected.")
@click.option("--entity", metavar="TABLE", help="Only the records of this table.")
@database_option
@json_option
@app_option
def replay(entity: str | None, database_url: str | None, as_json: bool) -> None:
    """Migrate the refused records that were corrected since: by b44 quarantine, or in migration.quarantine."""
    from b44_assets.migration.replays import corrected_records, replay_of

    tell("starting", quiet=as_json)
    listener = listening(quiet=as_json)
    settings = settings_with(reads=True, database_url=database_url)
    session = session_of(settings)
    if entity is not None and entity not in session.catalog.mappings:
        raise SettingsError(f"--entity: no table {entity}; there are {', '.join(session.catalog.mappings)}")
    require_migration(session, "replay")
    with exclusive_migration(settings, session, say) as lock:
        tables = None if entity is None else [entity]
        corrected = corrected_records(session, tables)
        chosen = None if tables is None else Selection(frozenset(tables), only=frozenset(tables))
        outcome, faults = run_job("replay", settings, session, listener=listener, selection=chosen, lock=lock)
        outcome.replay = replay_of(session, corrected)
    conclude(outcome, faults, as_json=as_json)


@click.command(short_help="Take back what a run, or a month's load, has changed.")
@click.option("--run", "run_id", metavar="ID", help="The run to take back, or the first characters of its id.")
@click.option(
    "--partition", metavar="YYYY-MM", help="The month to take back, of every table with a partition for each month."
)
@database_option
@json_option
@app_option
def rollback(run_id: str | None, partition: str | None, database_url: str | None, as_json: bool) -> None:
    """Take back what a run, or a month's load, has inserted and changed.

    Rows that were edited since, and rows that others refer to, are left alone.
    """
    from b44_assets.migration.rollback import roll_back_month, roll_back_run

    if (run_id is None) == (partition is None):
        raise SettingsError("rollback needs either --run ID or --partition YYYY-MM")
    month = None if partition is None else month_from("--partition", partition)
    settings = settings_with(reads=True, database_url=database_url)
    session = session_of(settings)
    require_migration(session, "rollback")
    with exclusive_migration(settings, session, say) as lock:
        guarded = session.under(lock)
        rolled_back = roll_back_run(guarded, run_id or "") if month is None else roll_back_month(guarded, month)
    if rolled_back.parts:
        from b44_assets.orchestration.migration.materialization_sync import report_what_was_taken_back

        tell_dagster(settings, lambda instance: report_what_was_taken_back(instance, session, rolled_back), say)
    if as_json:
        print_json({"entities": {one.entity: asdict(one) for one in rolled_back.entities}})
        return
    table = Table(
        name_column("table"),
        *(number_column(name) for name in ("deleted", "restored", "left: edited\nsince", "left: others\nrefer to it")),
    )
    for one in rolled_back.entities:
        table.add_row(one.entity, *(f"{n:,}" for n in (one.deleted, one.restored, one.edited, one.in_use)))
    console = new_console()
    if not rolled_back.entities:
        print_text(console, "Nothing was to be taken back.")
        return
    print_table(console, table)
    print_text(console, "b44 migrate brings it back; b44 status shows how things stand.")


@click.command(short_help="Migrate the last export, check everything, sign it off.")
@export_option
@database_option
@click.option("--by", "signed_by", metavar="NAME", help="Who signs it off; default the user of this system.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="The report; default cutover-<time>.html here."
)
@click.option("--accept-quarantine", is_flag=True, help="Sign it off without the records in quarantine.")
@json_option
@app_option
def cutover(
    export: Path | None,
    database_url: str | None,
    signed_by: str | None,
    output: Path | None,
    accept_quarantine: bool,
    as_json: bool,
) -> None:
    """Migrate the last export, run every check, and sign off a report; nobody may write in the old app meanwhile.

    Records in quarantine are not in the new database. Where there are any, it is asked whether it is signed off without them.
    """
    tell("starting", quiet=as_json)
    listener = listening(quiet=as_json)
    settings = settings_with(export_dir=export, database_url=database_url)
    if settings.export_dir is None:
        raise ExportError("no export: name the folder of the last one with --export DIR or B44_EXPORT_DIR")
    need_export(settings.export_dir, settings)
    session = session_of(settings)
    refuse_if_finished(session, "cutover")
    begun = datetime.now(UTC)
    target = output or Path.cwd() / f"cutover-{begun:%Y%m%dT%H%M%SZ}.html"
    with exclusive_migration(settings, session, say, cutover=True) as lock:
        outcome, faults = run_job(
            "migrate_everything", settings, session, listener=listener, verify_anew=True, lock=lock
        )
    if outcome.verdict(faults).holds:
        faults = _unaccepted_quarantine(outcome, accepted=accept_quarantine, asks=not as_json)
    verdict = outcome.verdict(faults)
    write_report(settings, target, outcome, faults, begun=begun, signed_by=signed_by or getpass.getuser())
    outcome.more = {"signed_off": verdict.holds, "report": str(target)}
    if not as_json:
        print_line(f"{'Signed off' if verdict.holds else 'NOT signed off'}: {target}")
        print_line(
            f"Write freeze that this needed: {outcome.seconds:.1f} seconds"
            f" ({', '.join(f'{name} {seconds:.1f}' for name, seconds in outcome.stages.items())}),"
            " and before it the time that the export took."
        )
    conclude(outcome, faults, as_json=as_json)


def _unaccepted_quarantine(outcome: Outcome, *, accepted: bool, asks: bool) -> list[B44Error]:
    """That records are in quarantine, unless somebody has said, or says now, that they are not needed."""
    quarantined = {table: counts["quarantined"] for table, counts in outcome.entities.items() if counts["quarantined"]}
    if not quarantined or accepted:
        return []
    count = sum(quarantined.values())
    said = f"{count:,} {plural(count, 'record is', 'records are')} in quarantine and not in this database"
    named = ", ".join(f"{table} {number:,}" for table, number in quarantined.items())
    if asks and sys.stdin.isatty() and ask(f"{said} ({named}). Sign off the cut-over without them?"):
        return []
    return [
        UnacceptedQuarantineError(
            f"{said} ({named}): correct them and run b44 replay, or sign off without them with --accept-quarantine"
        )
    ]


def _is_staged_by_hand(session: Session) -> bool:
    from b44_assets.migration.staging import hand_staged

    with session.connection("look") as conn:
        return bool(hand_staged(conn, session.catalog))
