"""The command line: `b44`.

What belongs here: options, progress, what is printed, the exit status. What does not: any work on the database.
"""

from __future__ import annotations

import gc
import getpass
import io
import json
import logging
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator
from contextlib import contextmanager, redirect_stderr
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn, TextIO

import click
from rich.console import Console
from rich.table import Column, Table

from b44_assets import backup_commands, finish_command
from b44_assets.config.quantities import month_from
from b44_assets.errors import (
    B44Error,
    DatabaseError,
    ExportError,
    FinishedError,
    FullDiskError,
    NoRoomError,
    SettingsError,
    TransientDatabaseError,
    is_full,
    why,
)
from b44_assets.instance import dagster_instance, packaged, prepare_dagster, tell_dagster
from b44_assets.options import database_option, json_option, out, right, settings_with
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer, dagster_url, target_url
from b44_assets.postgres.locks import HeldLock, watched
from b44_assets.sample.command import sample_command
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.catalog import Catalog
    from b44_assets.config.settings import Settings
    from b44_assets.migration.verification import EntityAccount
    from b44_assets.session import Session

INTERRUPTED = 130


@dataclass(frozen=True)
class CheckOutcome:
    """A check of a run: what it is about, its name, `passed`, `warning` or `failed`, and what it said."""

    asset: str
    name: str
    verdict: str
    said: str


@dataclass
class Outcome:
    """What a run came to, as `--json` prints it."""

    entities: dict[str, dict[str, Any]]
    passed: int
    warned: int
    failed: int
    seconds: float
    pending: dict[str, int] = field(default_factory=dict[str, int])
    unaccounted: dict[str, int] = field(default_factory=dict[str, int])
    unmapped: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    checks: tuple[CheckOutcome, ...] = ()
    stages: dict[str, float] = field(default_factory=dict[str, float])

    @property
    def incomplete(self) -> list[str]:
        """Why not every record is accounted for, a line for each table; empty where each is."""
        return [
            *(
                f"{table}: {count:,} of the records read {_are(count)} neither migrated nor refused, and nothing says why"
                for table, count in self.unaccounted.items()
            ),
            *(
                f"{table}: {count:,} {plural(count, 'record')} {_are(count)} still to be migrated: run b44 migrate"
                for table, count in self.pending.items()
            ),
        ]

    def as_json(self) -> str:
        """One JSON object."""
        return json.dumps(
            {
                "entities": self.entities,
                "unmapped": self.unmapped,
                "checks": {"passed": self.passed, "warned": self.warned, "failed": self.failed},
                "seconds": round(self.seconds, 3),
            },
            ensure_ascii=False,
        )


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


class Group(click.Group):
    """Turns errors in the use of the command, and our own, into one line and an exit status."""

    def make_context(self, *args: Any, **kwargs: Any) -> click.Context:
        """Reads the options before the command's name."""
        with _one_line():
            return super().make_context(*args, **kwargs)

    def invoke(self, ctx: click.Context) -> Any:
        """Runs the command."""
        with _one_line():
            return super().invoke(ctx)


@contextmanager
def _one_line() -> Generator[None]:
    try:
        yield
    except B44Error as error:
        _fail(str(error), error.exit_status)
    except click.ClickException as error:
        said = error.format_message()
        # A command that was given nothing at all shows its help.
        if "\n" in said:
            raise
        _fail(said, error.exit_code)
    except OSError as error:
        if not is_full(error):
            raise
        # Whatever of ours it was that was to be written: settings, Dagster's files, what is spooled on the way.
        _fail(f"{error.filename or 'a file'} cannot be written: {why(error)}", NoRoomError.exit_status)
    except KeyboardInterrupt:
        click.echo("interrupted; run the same command again to go on", err=True)
        raise SystemExit(INTERRUPTED) from None


def _fail(reason: str, status: int) -> NoReturn:
    click.echo(f"b44: {reason}", err=True)
    raise SystemExit(status) from None


@click.group(cls=Group, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="b44-assets")
def main() -> None:
    """Moves an app off Base44 into a PostgreSQL of your own, as a Dagster asset graph."""
    # psycopg warns of a rollback on a connection that is lost, beside the error of that connection, which we report.
    logging.getLogger("psycopg").setLevel(logging.ERROR)


def _export_option(command: Callable[..., Any]) -> Callable[..., Any]:
    return click.option(
        "--export", "export", type=click.Path(path_type=Path), metavar="DIR", help="The export; default B44_EXPORT_DIR."
    )(command)


@main.command()
@_export_option
@database_option
@json_option
def migrate(export: Path | None, database_url: str | None, as_json: bool) -> None:
    """Migrate a folder of Base44 exports: stage, map, load, check, all in one run."""
    settings = settings_with(export_dir=export, database_url=database_url)
    if settings.export_dir is None and not _staged_tables_exist(settings):
        raise ExportError("no export: name its folder with --export DIR or B44_EXPORT_DIR")
    if settings.export_dir is not None:
        _look_at(settings.export_dir, settings)
    _refuse_where_finished(_session(settings), "migrate")
    with _alone(settings) as lock:
        outcome, faults = _run("migrate_everything", settings, as_json=as_json, lock=lock)
    _conclude(settings, outcome, _with_nothing_migrated(settings, outcome, faults), as_json=as_json)


@main.command()
@click.option("--entity", metavar="TABLE", help="Only the records of this table.")
@database_option
@json_option
def replay(entity: str | None, database_url: str | None, as_json: bool) -> None:
    """Migrate the records that were corrected in migration.quarantine, once."""
    settings = settings_with(database_url=database_url)
    session = _session(settings)
    if entity is not None and entity not in session.catalog.mappings:
        raise SettingsError(f"--entity: no table {entity}; there are {', '.join(session.catalog.mappings)}")
    _need_books(session, "replay")
    with _alone(settings) as lock:
        tables = None if entity is None else [entity]
        outcome, faults = _run("replay", settings, as_json=as_json, tables=tables, lock=lock)
    _conclude(settings, outcome, faults, as_json=as_json)


@main.command()
@click.option("--run", "run_id", metavar="ID", help="The run to take back, or the first characters of its id.")
@click.option(
    "--partition", metavar="YYYY-MM", help="The month to take back, of every table with a partition for each month."
)
@database_option
@json_option
def rollback(run_id: str | None, partition: str | None, database_url: str | None, as_json: bool) -> None:
    """Take back what a run, or a month's load, has inserted and changed.

    Rows that were edited since, and rows that others refer to, are left alone.
    """
    from b44_assets.migration.rollback import undo_month, undo_run

    if (run_id is None) == (partition is None):
        raise SettingsError("rollback needs either --run ID or --partition YYYY-MM")
    month = None if partition is None else month_from("--partition", partition)
    settings = settings_with(database_url=database_url)
    session = _session(settings)
    _need_books(session, "rollback")
    with _alone(settings) as lock:
        guarded = session.under(lock)
        undone = undo_run(guarded, run_id or "") if month is None else undo_month(guarded, month)
    if undone.parts:
        from b44_assets.orchestration.materialization_sync import report_what_was_taken_back

        tell_dagster(settings, lambda instance: report_what_was_taken_back(instance, session, undone))
    if as_json:
        click.echo(json.dumps({"entities": {one.entity: asdict(one) for one in undone.entities}}, ensure_ascii=False))
        return
    table = Table(
        "table", *(right(name) for name in ("deleted", "restored", "left: edited since", "left: others refer to it"))
    )
    for one in undone.entities:
        table.add_row(one.entity, *(f"{n:,}" for n in (one.deleted, one.restored, one.edited, one.in_use)))
    console = out()
    if not undone.entities:
        console.print("Nothing was to be taken back.")
        return
    console.print(table)
    console.print("b44 migrate brings it back; b44 status shows how things stand.")


@main.command()
@_export_option
@database_option
@click.option("--by", "signed_by", metavar="NAME", help="Who signs it off; default the user of this system.")
@click.option(
    "--output", type=click.Path(path_type=Path), metavar="FILE", help="The report; default cutover-<time>.html here."
)
@json_option
def cutover(
    export: Path | None, database_url: str | None, signed_by: str | None, output: Path | None, as_json: bool
) -> None:
    """The last delta, every check, and a report that is signed off; the application must not write meanwhile."""
    settings = settings_with(export_dir=export, database_url=database_url)
    if settings.export_dir is None:
        raise ExportError("no export: name the folder of the last one with --export DIR or B44_EXPORT_DIR")
    _look_at(settings.export_dir, settings)
    _refuse_where_finished(_session(settings), "cutover")
    begun = datetime.now(UTC)
    target = output or Path.cwd() / f"cutover-{begun:%Y%m%dT%H%M%SZ}.html"
    with _alone(settings) as lock:
        outcome, faults = _run("migrate_everything", settings, as_json=as_json, prove=True, lock=lock)
    faults = _with_nothing_migrated(settings, outcome, faults)
    held = not (faults or outcome.failed or outcome.incomplete)
    _write_report(settings, target, outcome, faults, begun=begun, signed_by=signed_by or getpass.getuser())
    if not as_json:
        verdict = "Signed off" if held else "NOT signed off"
        click.echo(f"{verdict}: {target}")
        click.echo(
            f"Write freeze that this needed: {outcome.seconds:.1f} seconds"
            f" ({', '.join(f'{name} {seconds:.1f}' for name, seconds in outcome.stages.items())}),"
            " and before it the time that the export took."
        )
    _conclude(settings, outcome, faults, as_json=as_json)


@main.command()
@database_option
@click.option("--output", type=click.Path(path_type=Path), metavar="FILE", help="Default report.html here.")
def report(database_url: str | None, output: Path | None) -> None:
    """Write the state of migration and database as one self-contained page."""
    settings = settings_with(database_url=database_url)
    _need_books(_session(settings), "report")
    target = output or Path.cwd() / "report.html"
    _write_report(settings, target, None, [], begun=datetime.now(UTC), signed_by=None)
    click.echo(str(target))


def _write_report(
    settings: Settings,
    target: Path,
    outcome: Outcome | None,
    faults: list[B44Error],
    *,
    begun: datetime,
    signed_by: str | None,
) -> None:
    from b44_assets.migration.report import Cutover, gather, render

    done = None
    if outcome is not None and signed_by is not None:
        done = Cutover(
            held=not (faults or outcome.failed or outcome.incomplete),
            signed_by=signed_by,
            begun=begun,
            freeze_seconds=outcome.seconds,
            stages=outcome.stages,
            checks=tuple((check.asset, check.name, check.verdict, check.said) for check in outcome.checks),
            faults=tuple(str(fault) for fault in faults),
        )
    page = render(gather(_session(settings), done))
    try:
        target.write_text(page, encoding="utf-8")
    except OSError as error:
        raise SettingsError(f"{target}: cannot be written: {why(error, target)}") from error


_INSTEAD = {
    "migrate": "a newer export goes into another database (--database-url)",
    "cutover": "the application is the only source of the rows now",
    "report": "b44 verify checks what stays, and the archive has all figures of the migration",
    "rollback": "rows are deleted like any others, and a backup has those of before",
    "replay": "what was in quarantine is in the archive, and goes into the tables like any other row",
}
"""What to do where a command needs the migration tables and they are gone."""


def _refuse_where_finished(session: Session, command: str) -> None:
    """Refuses a command that needs the migration tables where the migration is over.

    Raises:
        FinishedError: It is over.
    """
    from b44_assets.migration.finish import migration_state

    if (state := migration_state(session)).over:
        raise FinishedError(f"nothing to {command}: {state.explain()}; {_INSTEAD[command]}")


def _need_books(session: Session, command: str) -> None:
    from b44_assets.migration.verification import accounts

    _refuse_where_finished(session, command)

    if not accounts(session):
        raise NothingMigratedError(f"nothing to {command}: nothing has been migrated into this database yet")


@contextmanager
def _alone(settings: Settings) -> Generator[HeldLock]:
    """Keeps two migrations of one target apart: of two exports at once, each would undo the other's staging.

    Raises:
        LockLostError: Others are not kept away any more; whatever was under way was ended in the server, too.
    """
    from b44_assets.session import migrating

    with migrating(_session(settings), lambda line: click.echo(line, err=True)) as lock:
        try:
            # As Ctrl-C does, which ends the SQL in the server.
            with watched(lock, lambda: os.kill(os.getpid(), signal.SIGINT)):
                yield lock
        except KeyboardInterrupt:
            if lock.lost:
                lock.check()
            raise
        except TransientDatabaseError as error:
            raise TransientDatabaseError(_resumable(error)) from error
        # Before anything is said of what came of it.
        lock.check()


def _resumable(fault: B44Error) -> str:
    """What a fault says, and what to do about one that passes by itself."""
    passes = isinstance(fault, TransientDatabaseError)
    return f"{fault}; nothing that was done is lost: run the same command again to go on" if passes else str(fault)


@main.command()
@database_option
@json_option
def verify(database_url: str | None, as_json: bool) -> None:
    """Run every check on what is in the database now."""
    settings = settings_with(database_url=database_url)
    from b44_assets.migration.finish import migration_state
    from b44_assets.migration.verification import accounts

    session = _session(settings)
    state = migration_state(session)
    if not state.over and not accounts(session):
        raise NothingMigratedError("nothing has been migrated into this database yet: run b44 migrate")
    outcome, faults = _run("verify", settings, as_json=as_json)
    if state.over and not as_json:
        click.echo(f"Row checks: not applicable: {state.whereabouts()}.")
    _conclude(settings, outcome, faults, as_json=as_json)


@main.command()
@database_option
@json_option
def status(database_url: str | None, as_json: bool) -> None:
    """Show how far the migration is, and what became of every record."""
    settings = settings_with(database_url=database_url)
    from b44_assets.migration.finish import migration_state
    from b44_assets.migration.verification import accounts, progress_of, recent_runs

    session = _session(settings)
    state = migration_state(session)
    found = () if state.over else accounts(session)
    if as_json:
        over = {"finished": state.explain(), "archive": state.archive} if state.over else {}
        facts = {"entities": _entities(found), "unmapped": _unmapped(session), **over}
        click.echo(json.dumps(facts, ensure_ascii=False))
        return
    console = out()
    if state.over:
        click.echo(f"{state.explain()[0].upper()}{state.explain()[1:]}.")
        return
    unmapped = _unmapped(session)
    if not found and not unmapped:
        console.print("Nothing has been migrated into this database yet.")
        return
    _print_accounts(console, found, unmapped)
    for one in progress_of(session):
        if one.percentage < 100:
            speed = round(one.records_per_second or 0)
            rate = f", {speed:,} {plural(speed, 'record')} a second" if speed else ""
            end = f", done about {one.expected_end:%Y-%m-%d %H:%M} UTC" if one.expected_end else ""
            console.print(f"  {one.entity}: {one.percentage:.1f} % done{rate}{end}", markup=False)
    runs = Table(Column("run", no_wrap=True), "began (UTC)", right("batches"), right("records"))
    for run in recent_runs(session):
        runs.add_row(run.run_id, f"{run.began:%Y-%m-%d %H:%M:%S}", f"{run.batches:,}", f"{run.records:,}")
    if runs.row_count:
        console.print("The last runs that wrote records (b44 rollback --run takes one back):")
        console.print(runs)


@main.command()
@_export_option
@database_option
@click.option(
    "--port",
    type=click.IntRange(1, 65535),
    default=3000,
    show_default=True,
    help="Where the web server listens, on 127.0.0.1.",
)
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


@main.command()
@database_option
@json_option
def doctor(database_url: str | None, as_json: bool) -> None:
    """Say what the target is, of which PostgreSQL it is, and which programs serve it; nothing is made or changed."""
    from b44_assets.doctor import diagnose

    findings = diagnose(settings_with(database_url=database_url))
    if as_json:
        click.echo(json.dumps([asdict(finding) for finding in findings], ensure_ascii=False))
    else:
        for finding in findings:
            click.echo(f"{finding.subject + ':':10}{finding.said}")
            if finding.remedy is not None:
                click.echo(f"{'':10}{finding.remedy}")
    if any(finding.blocking for finding in findings):
        raise SystemExit(1)


@main.group()
def db() -> None:
    """The target database."""


@db.command()
def url() -> None:
    """Print the target's connection string; starts the embedded server if need be."""
    click.echo(target_url(settings_with()))


@db.command()
def stop() -> None:
    """Stop the embedded server."""
    settings = settings_with()
    stopped = EmbeddedServer(settings.home).stop()
    click.echo("stopped" if stopped else "the embedded server was not running")


@db.command("bin")
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


def _session(settings: Settings) -> Session:
    """A session without Dagster, which takes seconds to load."""
    from b44_assets.catalog import load_catalog
    from b44_assets.session import Session

    return Session.of(settings, load_catalog(settings.sql_dir))


def _staged_tables_exist(settings: Settings) -> bool:
    """Whether the target holds a staged table of the guide's name, such as base44_users."""
    session = _session(settings)
    with session.connection("look") as conn:
        return any(
            conn.execute("select to_regclass(%s)", (f"base44_{table}",)).fetchone() != (None,)
            for table in session.catalog.mappings
        )


def _end_on_sigterm(*_: object) -> None:
    """A service manager ends a run as Ctrl-C does: in the server, too, and so that it can go on."""
    raise KeyboardInterrupt


def _run(
    job: str,
    settings: Settings,
    *,
    as_json: bool,
    tables: list[str] | None = None,
    prove: bool = False,
    lock: HeldLock | None = None,
) -> tuple[Outcome, list[B44Error]]:
    """Runs a job, or the part of it for some tables, in this process over the instance that `b44 dev` shows.

    Args:
        job: Its name.
        settings: From options and environment.
        as_json: Whether nothing but JSON is to be printed.
        tables: Those of its assets alone.
        prove: Whether everything is compared anew.
        lock: What keeps other migrations away, for a job that moves records.
    """
    started = time.monotonic()
    signal.signal(signal.SIGTERM, _end_on_sigterm)
    prepare_dagster(settings)
    # Reach the target before Dagster is: a wrong address is one line, not a failed run.
    session = _session(settings)
    with session.connection("start"):
        pass
    if lock is not None:
        from b44_assets.schema.preflight import need_room

        need_room(session)
    with connect(dagster_url(settings).replace("+psycopg2", "", 1), application_name="b44 start"):
        pass
    # Only now: an embedded server that this starts would have the low priority for as long as it runs.
    if settings.throttle and hasattr(os, "nice"):
        os.nice(10)
    # Dagster makes some hundred thousand objects that stay; looking through them at Python's pace takes a tenth of a short run.
    gc.set_threshold(50_000, 20, 20)
    from dagster import AssetKey
    from dagster_postgres.utils import DagsterPostgresException
    from sqlalchemy.exc import SQLAlchemyError

    from b44_assets.migration.verification import accounts
    from b44_assets.orchestration.code_location import definitions_of
    from b44_assets.orchestration.jobs import CODE_LOCATION_TAGS, PROVE_TAG
    from b44_assets.orchestration.partitions import months_from
    from b44_assets.orchestration.resources import Migration
    from b44_assets.orchestration.run_retention import PROCESS_TAG, end_abandoned_runs, this_process

    migration = Migration(
        settings, session.catalog, notice=lambda line: click.echo(f"notice: {line}", err=True), lock=lock
    )
    months = months_from(settings.first_month)
    try:
        with redirect_stderr(_Screen(sys.stderr)), _progress(quiet=as_json) as progress, dagster_instance() as instance:
            # Dagster opens two connections for each event otherwise, which takes longer than most steps.
            instance.optimize_for_webserver(statement_timeout=0, pool_recycle=3600, max_overflow=10)
            end_abandoned_runs(instance)
            definitions = definitions_of(replace(migration, progress=progress))
            result = definitions.resolve_job_def(job).execute_in_process(
                instance=instance,
                raise_on_error=False,
                asset_selection=None if tables is None else [AssetKey(table) for table in tables],
                tags={
                    "dagster/asset_partition_range_start": months.get_first_partition_key() or "",
                    "dagster/asset_partition_range_end": months.get_last_partition_key() or "",
                    **CODE_LOCATION_TAGS,
                    PROCESS_TAG: this_process(),
                    **({PROVE_TAG: "anew"} if prove else {}),
                },
                run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
            )
            if _interrupted(result):
                raise KeyboardInterrupt
            evaluations = result.get_asset_check_evaluations()
            failed = [e for e in evaluations if not e.passed and e.severity.value == "ERROR"]
            faults = list(migration.faults)
            if not result.success and not faults:
                faults += _unexpected(result, checks_failed=bool(failed))
    except (SQLAlchemyError, DagsterPostgresException) as error:
        # What ended a step, such as a full disk, may be what its storage fails on, too.
        raise (migration.faults or [_of_storage(error)])[0] from error
    found = accounts(session)
    for warning in migration.warnings:
        click.echo(f"warning: {warning}", err=True)
    checks = tuple(
        CheckOutcome(
            e.asset_key.to_user_string(),
            e.check_name,
            "passed" if e.passed else "failed" if e in failed else "warning",
            e.description or "",
        )
        for e in evaluations
    )
    for check in checks:
        if check.verdict != "passed":
            click.echo(f"{check.verdict}: {check.asset} {check.name}: {check.said}", err=True)
    outcome = Outcome(
        entities=_entities(found),
        passed=sum(e.passed for e in evaluations),
        warned=sum(not e.passed for e in evaluations) - len(failed),
        failed=len(failed),
        seconds=time.monotonic() - started,
        pending={account.entity: account.pending for account in found if account.pending},
        unaccounted={account.entity: account.unaccounted for account in found if account.unaccounted},
        unmapped=_unmapped(session),
        checks=checks,
        stages=_seconds_by_stage(result, session.catalog),
    )
    # Dagster's objects go with the process; to look through them once more at its end takes over a second.
    gc.freeze()
    return outcome, faults


def _seconds_by_stage(result: Any, catalog: Catalog) -> dict[str, float]:
    """What the steps of a run took, by what they did."""
    seconds: dict[str, float] = dict.fromkeys(("staging", "loading", "schema", "checking"), 0.0)
    for event in result.all_events:
        if event.is_step_success:
            key = event.step_key
            stage = (
                "staging"
                if key.startswith("base44__")
                else "loading"
                if key in catalog.mappings
                else "checking"
                if key == "health" or key.endswith("_parity")
                else "schema"
            )
            seconds[stage] += event.event_specific_data.duration_ms / 1000
    return seconds


class _Screen(io.TextIOBase):
    """Standard error without what Dagster writes there where its storage fails: SQL and data, besides raising the fault."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str, /) -> int:
        return len(text) if text.startswith("Exception while writing logger call") else self._stream.write(text)

    def flush(self) -> None:
        self._stream.flush()

    def isatty(self) -> bool:
        return self._stream.isatty()

    def fileno(self) -> int:
        return self._stream.fileno()

    @property
    def encoding(self) -> str:  # pyright: ignore[reportIncompatibleVariableOverride]  # it can only be read there, too
        return self._stream.encoding


class NothingMigratedError(B44Error):
    """There is nothing to verify."""

    exit_status = 1


class UnexpectedError(B44Error):
    """A step failed for a reason that is none of ours to explain; the run's log has the traceback."""

    exit_status = 1


def _of_storage(error: Exception) -> B44Error:
    cause = getattr(error, "orig", None)
    reason = str(cause or error).strip().partition("\n")[0]
    said = f"the storage of Dagster could not go on: {reason}"
    if getattr(cause, "pgcode", None) == "53100":
        return FullDiskError(said, "make room on the disk of its server")
    return DatabaseError(said)


def _interrupted(result: Any) -> bool:
    """Whether Ctrl-C ended the run, which Dagster reports as a failure."""
    from dagster._core.events import RunFailureReason

    return any(
        event.is_job_failure and event.job_failure_data.failure_reason is RunFailureReason.UNEXPECTED_TERMINATION
        for event in result.all_events
    )


def _unexpected(result: Any, *, checks_failed: bool) -> list[B44Error]:
    """Why a run failed that told of no fault of its own; nothing where that was a check, which speaks for itself."""
    for event in result.get_step_failure_events():
        error = event.step_failure_data.error
        # A blocking check that failed ends the run, too; it has been printed already.
        if error is not None and error.cls_name != "DagsterAssetCheckFailedError":
            cause = error.cause or error
            return [
                UnexpectedError(
                    f"step {event.step_key} failed: {cause.message.strip().splitlines()[0]} (see the run in b44 dev)"
                )
            ]
    return [] if checks_failed else [UnexpectedError("the run failed (see it in b44 dev)")]


def _entities(found: tuple[EntityAccount, ...]) -> dict[str, dict[str, Any]]:
    return {
        account.entity: {
            "read": account.read,
            "migrated": account.migrated,
            "deduplicated": account.deduplicated,
            "quarantined": account.quarantined,
            "reasons": account.reasons,
            "repairs": account.repairs,
        }
        for account in found
    }


def _unmapped(session: Session) -> dict[str, dict[str, Any]]:
    from b44_assets.migration.unmapped_entities import unmapped_entities

    return {one.entity: {"read": one.records, "file": one.file} for one in unmapped_entities(session)}


class NothingMigratedOfExportError(B44Error):
    """The export was read, and `sql/` has a table for no record of it."""

    exit_status = 1


def _look_at(export: Path, settings: Settings) -> bool:
    """Say at once what is wrong with the folder, before a server is started for it; tell whether a file has a table."""
    from b44_assets.catalog import load_catalog
    from b44_assets.exports import discover

    known = load_catalog(settings.sql_dir).entities
    return any(file.entity in known for file in discover(export, known))


def _with_nothing_migrated(settings: Settings, outcome: Outcome, faults: list[B44Error]) -> list[B44Error]:
    """The faults of a run, and that it moved nothing where the export has records, and none of them a table."""
    if settings.export_dir is None or faults or not outcome.unmapped:
        return faults
    if any(counts["read"] for counts in outcome.entities.values()):
        return faults
    records = sum(counts["read"] for counts in outcome.unmapped.values())
    if not records and _look_at(settings.export_dir, settings):
        return faults  # files of tables, all of them without records
    entities = ", ".join(f"{entity} {counts['read']:,}" for entity, counts in list(outcome.unmapped.items())[:10])
    return [
        NothingMigratedOfExportError(
            f"{settings.export_dir}: none of its {records:,} {plural(records, 'record')} has a table in"
            f" {settings.sql_dir} ({entities});"
            " make the tables of this app with b44 init"
        )
    ]


def _conclude(settings: Settings, outcome: Outcome, faults: list[B44Error], *, as_json: bool) -> None:
    if as_json:
        click.echo(outcome.as_json())
    # One fault of the database fails many steps, and the first says why; others name a file or an entity each.
    for fault in [fault for fault in faults if not isinstance(fault, DatabaseError)] or faults[:1]:
        click.echo(f"b44: {_resumable(fault)}", err=True)
    if not as_json:
        _print_outcome(settings, outcome)
    if faults:
        raise SystemExit(faults[0].exit_status)
    for line in outcome.incomplete:
        click.echo(f"b44: {line}", err=True)
    if outcome.failed or outcome.incomplete:
        raise SystemExit(1)


def _print_outcome(settings: Settings, outcome: Outcome) -> None:
    console = out()
    table = Table("table", *(right(name) for name in ("read", "migrated", "deduplicated", "quarantined", "repaired")))
    for entity, counts in outcome.entities.items():
        table.add_row(
            entity,
            *(f"{counts[name]:,}" for name in ("read", "migrated", "deduplicated", "quarantined")),
            f"{sum(counts['repairs'].values()):,}",
        )
    if outcome.entities:
        console.print(table)
    _print_unmapped(console, outcome.unmapped)
    reasons = Table("table", "reason", right("records"))
    for entity, counts in outcome.entities.items():
        for reason, count in counts["reasons"].items():
            reasons.add_row(entity, reason, f"{count:,}")
    if reasons.row_count:
        console.print("Quarantined, by reason (the records are in migration.quarantine):")
        console.print(reasons)
    console.print(
        f"Checks: {outcome.passed} passed, {outcome.warned} warned, {outcome.failed} failed. {outcome.seconds:.1f} seconds."
    )
    console.print("Look at it:")
    command = _own_command()
    psql = f'psql "$({command} db url)"' if settings.database_url is None else "psql with the URL of your database"
    for line in (psql, f"{command} status", f"{command} dev"):
        console.print(f"  {line}", markup=False, soft_wrap=True)


def _print_unmapped(console: Console, unmapped: dict[str, dict[str, Any]]) -> None:
    """Print entities without a table: on their own, as their names would be cut off beside many columns."""
    if not unmapped:
        return
    table = Table("entity", right("read"))
    for entity, counts in unmapped.items():
        table.add_row(f"{entity} (no table)", f"{counts['read']:,}")
    console.print(table)


def _own_command() -> str:
    """What to type to run this program again: its name if the shell would find it, else its path from here."""
    if shutil.which("b44") is not None:
        return "b44"
    script = Path(sys.argv[0]).absolute()
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)


def _print_accounts(console: Console, found: tuple[EntityAccount, ...], unmapped: dict[str, dict[str, Any]]) -> None:
    names = ["read", "migrated", "deduplicated", "quarantined", "pending", "unaccounted"]
    # After a newer export only, as the width of a terminal is scarce.
    names += [name for name in ("vanished", "conflicts") if any(getattr(account, name) for account in found)]
    table = Table("table", *(right(name) for name in names))
    for account in found:
        table.add_row(
            account.entity,
            *(f"{getattr(account, name):,}" for name in names),
        )
    console.print(table)
    _print_unmapped(console, unmapped)
    for account in found:
        for reason, count in account.reasons.items():
            console.print(f"  {account.entity}: {count:,} quarantined as {reason}", markup=False)


@contextmanager
def _progress(*, quiet: bool) -> Generator[Callable[[str, int, int], None]]:
    """A bar for each thing that reports, on a terminal; else a line every few seconds on standard error; else nothing."""
    if quiet:
        yield lambda what, done, total: None
        return
    console = out(stderr=True)
    if not console.is_terminal:
        yield _lines(console)
        return
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    with Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        console=console,
        transient=True,
    ) as bars:
        tasks: dict[str, Any] = {}

        def report(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=total or None)
            bars.update(tasks[what], completed=done, total=total or None)

        yield report


def _lines(console: Console) -> Callable[[str, int, int], None]:
    spoken: dict[str, float] = {}

    def report(what: str, done: int, total: int) -> None:
        now = time.monotonic()
        if (done == total and total) or now - spoken.setdefault(what, now) >= 5.0:
            spoken[what] = now
            console.print(f"{what}: {done:,} of {total:,}" if total else what, markup=False)

    return report


main.add_command(backup_commands.backup)
main.add_command(backup_commands.backups)
main.add_command(backup_commands.restore)
main.add_command(backup_commands.drill)
main.add_command(finish_command.finish)
main.add_command(sample_command(partial(_progress, quiet=False)))
db.add_command(backup_commands.archiving)

__all__ = ["Outcome", "SettingsError", "main"]
