"""The commands that tell how things stand: `b44 status`, `verify`, `report`, `doctor`."""

from __future__ import annotations

from dataclasses import asdict
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Column, Table

from b44_assets.cli.options import (
    app_option,
    database_option,
    json_option,
    misspelt,
    origins,
    session_of,
    settings_with,
)
from b44_assets.cli.outcome import conclude
from b44_assets.cli.output import (
    number_column,
    print_accounts,
    print_json,
    print_table,
)
from b44_assets.cli.progress import listening, tell
from b44_assets.cli.terminal import new_console, print_line, print_text
from b44_assets.errors import B44Error, SettingsError, why
from b44_assets.runs.job import run_job
from b44_assets.runs.outcome import accounts_by_table, unmapped_entities_of
from b44_assets.runs.preconditions import NothingMigratedError, require_migration
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings
    from b44_assets.migration.report import Measured
    from b44_assets.migration.verdict import Verdict
    from b44_assets.runs.outcome import Outcome
    from b44_assets.session import Session


@click.command(short_help="Show what became of every record so far.")
@database_option
@json_option
@app_option
def status(database_url: str | None, as_json: bool) -> None:
    """Show how far the migration is, and what became of every record."""
    settings = settings_with(reads=True, database_url=database_url)
    from b44_assets.migration.readable import remedied, require_progress

    session = session_of(settings)
    with remedied(session, require_progress):
        _status(session, as_json=as_json)


def _status(session: Session, *, as_json: bool) -> None:
    from b44_assets.migration.accounts import accounts, progress_of, recent_runs
    from b44_assets.migration.finish import migration_state
    from b44_assets.migration.verdict import Records

    state = migration_state(session)
    found = () if state.over else accounts(session)
    if as_json:
        over = {"finished": state.message(), "archive": state.archive} if state.over else {}
        unmapped = unmapped_entities_of(session)
        records = Records.of(found, sum(one["read"] for one in unmapped.values()))
        runs = [
            {"run": run.run_id, "began_at": run.began.isoformat(), "batches": run.batches, "records": run.records}
            for run in (recent_runs(session) if found else ())
        ]
        print_json(
            {**asdict(records), "entities": accounts_by_table(found), "unmapped": unmapped, "runs": runs, **over}
        )
        return
    console = new_console()
    if state.over:
        print_line(f"{state.message()[0].upper()}{state.message()[1:]}.")
        return
    unmapped = unmapped_entities_of(session)
    if not found and not unmapped:
        print_text(console, "Nothing has been migrated into this database yet.")
        return
    print_accounts(console, found, unmapped)
    for one in progress_of(session):
        if one.percentage < 100:
            speed = round(one.records_per_second or 0)
            rate = f", {speed:,} {plural(speed, 'record')} a second" if speed else ""
            end = f", done about {one.expected_end:%Y-%m-%d %H:%M} UTC" if one.expected_end else ""
            waits = "" if one.running else "; no migration is running: b44 migrate goes on"
            print_text(console, f"  {one.entity}: {one.percentage:.1f} % done{rate}{end}{waits}")
    runs = Table(
        Column("run", no_wrap=True),
        Column("began (UTC)", no_wrap=True),
        number_column("batches"),
        number_column("records"),
    )
    for run in recent_runs(session):
        runs.add_row(run.run_id, f"{run.began:%Y-%m-%d %H:%M}", f"{run.batches:,}", f"{run.records:,}")
    if runs.row_count:
        print_text(console, "The last runs that wrote records (b44 rollback --run takes one back):")
        print_table(console, runs)


@click.command(short_help="Run every check on what is in the database now.")
@database_option
@json_option
@app_option
def verify(database_url: str | None, as_json: bool) -> None:
    """Run every check on what is in the database now."""
    tell("starting", quiet=as_json)
    settings = settings_with(reads=True, database_url=database_url)
    from b44_assets.migration.accounts import accounts
    from b44_assets.migration.finish import migration_state
    from b44_assets.migration.readable import require_checks

    session = session_of(settings)
    require_checks(session)
    state = migration_state(session)
    if not state.over and not accounts(session):
        raise NothingMigratedError("nothing has been migrated into this database yet: run b44 migrate")
    # A standby that cannot be read from is told of here, once, and not by each check.
    with session.connection("look", replica=True):
        pass
    outcome, faults = run_job("verify", settings, session, listener=listening(quiet=as_json), reads=True)
    if state.over and not as_json:
        print_line(f"Row checks: not applicable: {state.whereabouts()}.")
    conclude(outcome, faults, as_json=as_json)


@click.command(short_help="Write the state of migration and database as a page.")
@database_option
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="The page; default report.html here.")
@json_option
@app_option
def report(database_url: str | None, output: Path | None, as_json: bool) -> None:
    """Write the state of migration and database as one self-contained HTML page."""
    settings = settings_with(reads=True, database_url=database_url)
    from b44_assets.migration.readable import remedied, require_own

    session = session_of(settings)
    target = output or Path.cwd() / "report.html"
    with remedied(session, require_own):
        require_migration(session, "report")
        verdict = write_report(settings, target, None, [], begun=datetime.now(UTC), signed_by=None)
    if as_json:
        print_json({**verdict.facts(), "report": str(target)})
        return
    print_line(str(target))
    print_line(verdict.message())


@click.command(short_help="Say what the target is, and what to mend.")
@database_option
@json_option
@app_option
def doctor(database_url: str | None, as_json: bool) -> None:
    """Say what the target is, how it stands with all that serves it, and what to mend; nothing is made or changed."""
    from b44_assets.doctor import diagnose

    settings = settings_with(database_url=database_url)
    findings = diagnose(settings, origins(), misspelt())
    if as_json:
        print_json({"findings": [asdict(finding) for finding in findings]})
    else:
        for finding in findings:
            print_line(f"{finding.subject + ':':12}{finding.said}", indent=" " * 12)
            if finding.remedy is not None:
                print_line(f"{'':12}-> {finding.remedy}", indent=" " * 15)
    if any(finding.blocking for finding in findings):
        raise SystemExit(1)


def write_report(
    settings: Settings,
    target: Path,
    outcome: Outcome | None,
    faults: list[B44Error],
    *,
    begun: datetime,
    signed_by: str | None,
) -> Verdict:
    """Writes the page of `b44 report`, and of `b44 cutover` where it is signed; returns the verdict on it.

    Raises:
        SettingsError: The file cannot be written.
    """
    from b44_assets.backup.service import newest_told
    from b44_assets.migration.listed import broken_rules, dangling_references, listed
    from b44_assets.migration.report import Cutover, gather, render

    done = None
    if outcome is not None and signed_by is not None:
        done = Cutover(
            held=outcome.verdict(faults).holds,
            signed_by=signed_by,
            begun=begun,
            freeze_seconds=outcome.seconds,
            stages=outcome.stages,
            checks=tuple((check.asset, check.name, check.verdict, check.said) for check in outcome.checks),
            faults=tuple(str(fault) for fault in faults),
        )
    session = session_of(settings)
    counted = None if outcome is None else outcome.dangling
    dangling = dangling_references(session) if counted is None else counted
    found = gather(
        session,
        broken_rules(session, dangling),
        listed(session, settings.sql_dir.parent, dangling),
        done,
        measured=_measured(session, settings),
        backup=newest_told(session, settings),
    )
    try:
        target.write_text(render(found), encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{target}: cannot be written: {why(error, target)}") from error
    return found.verdict


def _measured(session: Session, settings: Settings) -> tuple[Measured, ...]:
    """What the monitoring measures at once; what cannot be measured is no fault of a report."""
    from b44_assets.maintenance.monitoring import MEASUREMENTS, Interval, monitoring
    from b44_assets.migration.report import Measured

    found: list[Measured] = []
    with monitoring(session, settings) as monitor:
        for one in MEASUREMENTS:
            if one.interval is not Interval.ROUND:
                continue
            reading = monitor.take(one)
            checks: list[tuple[str, str, str]] = []
            for check in one.checks:
                verdict = check.judge(reading, settings)
                state = "passed" if verdict.passed else "warning" if check.warns_of(verdict) else "failed"
                checks.append((check.name, state, verdict.text))
            # Counters say nothing without the time in which they have grown.
            shown = {
                name: float(value)
                for name, value in reading.numbers.items()
                if not name.endswith(("_total", "_at", "_since"))
            }
            found.append(Measured(one.name, one.description, shown, tuple(checks)))
    return tuple(found)
