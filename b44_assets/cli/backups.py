"""The commands on backups: `b44 backup`, `backups`, `restore`, `drill` and `db archiving`."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.table import Column, Table

from b44_assets.cli.options import app_option, database_option, json_option, origin_of, settings_with, tell_target
from b44_assets.cli.output import name_column, number_column, print_json, print_table, size_text
from b44_assets.cli.progress import say, telling
from b44_assets.cli.terminal import new_console, print_line
from b44_assets.errors import BackupError, BadBackupError, SettingsError
from b44_assets.postgres.connection_urls import redact
from b44_assets.runs.instance import tell_dagster
from b44_assets.wording import first_of, plural

if TYPE_CHECKING:
    from b44_assets.backup.catalogue import Catalogue
    from b44_assets.backup.model import Backup
    from b44_assets.backup.recovery import RecoveryTarget
    from b44_assets.backup.service import BackupContext

_EXAMPLE_SPOOL = Path("/var/lib/b44/wal")
KINDS = ("logical", "base", "incremental", "wal")


def _backup_context(*, reads: bool = False, **overrides: Any) -> BackupContext:
    from b44_assets.backup.service import BackupContext

    settings = settings_with(reads=reads, **overrides)
    try:
        return BackupContext.of(settings)
    except BackupError as error:
        # The key names its variable itself.
        if (origin := origin_of("backup_url")) is None or "B44_" in str(error):
            raise
        raise BackupError(f"{error} ({origin})") from error


@click.command(short_help="Take a backup, restore it on trial and compare it.")
@click.option("--kind", type=click.Choice(KINDS), default="logical", show_default=True, help="What to take.")
@database_option
@json_option
@app_option
def backup(kind: str, database_url: str | None, as_json: bool) -> None:
    """Take a backup and verify it: it is restored into a scratch server and compared with what the source held.

    logical is a dump of the database. base is a copy of the whole cluster, incremental what has changed since, and wal what
    the server has archived: with these, any point in time can be recovered.
    """
    from b44_assets.backup.model import BackupKind
    from b44_assets.backup.service import back_up, ship_wal

    backup_context = _backup_context(reads=True, database_url=database_url)
    if kind == "wal":
        with telling(quiet=as_json) as (tell, read):
            shipped = ship_wal(backup_context, tell, read)
        if as_json:
            print_json({"files": shipped.files, "bytes": shipped.bytes})
        else:
            files = f"{shipped.files:,} {plural(shipped.files, 'file')}"
            print_line(f"{files} of the WAL ({size_text(shipped.bytes)}) taken to the store")
        for line in shipped.refused[1:]:
            say(f"b44: {line}")
        if shipped.refused:
            raise BadBackupError(shipped.refused[0])
        return
    with telling(quiet=as_json) as (tell, read):
        done = back_up(backup_context, BackupKind(kind), progress=read, tell=tell)
    if as_json:
        print_json({**_as_json(done.backup), "unverified": done.unverified})
    elif done.backup.good:
        assert done.backup.verification is not None
        print_line(
            f"{done.backup.id}: {size_text(done.backup.size)}, restored and found equal to its source in"
            f" {done.backup.verification.seconds:.1f} s"
        )
    from b44_assets.orchestration.backup import report

    tell_dagster(backup_context.settings, lambda instance: report(instance, done), say)
    if done.unverified is not None:
        raise BadBackupError(f"{done.backup.id} is taken, and does not count as good: {done.unverified}")
    if done.backup.verification is not None and not done.backup.good:
        different = first_of(done.backup.verification.differences)
        raise BadBackupError(f"{done.backup.id} is not what its source held: {different}")


@click.command(short_help="List, verify and expire the backups.")
@click.option("--verify", "verify_id", metavar="ID", help="Restore this one again and compare; `all` takes every one.")
@click.option("--expire", is_flag=True, help="Remove what is older than B44_KEEP_BACKUPS_DAYS and not needed.")
@click.option("--dry-run", is_flag=True, help="With --expire: only say what would go.")
@click.option("--remove", "remove_id", metavar="ID", help="Remove the archive of a migration, which never expires.")
@json_option
@app_option
def backups(verify_id: str | None, expire: bool, dry_run: bool, remove_id: str | None, as_json: bool) -> None:
    """List the backups: kind, time, size, what each needs, when it was verified, when it expires."""
    from b44_assets.backup.service import verify_again
    from b44_assets.backup.verification import verify

    if dry_run and not expire:
        raise SettingsError("--dry-run goes with --expire")
    backup_context = _backup_context()
    catalogue = backup_context.catalogue
    tell_target(*_store_told(catalogue))
    unverified: list[str] = []
    if verify_id == "all":
        with telling(quiet=as_json) as (tell, _):
            done, unverified = verify_again(backup_context, tell=tell)
        if not done and not unverified:
            unverified = [f"nothing was verified: {catalogue.store.location} holds no backup that can be read"]
    elif verify_id is not None:
        chosen = catalogue.find(verify_id)
        with telling(quiet=as_json) as (tell, _):
            verify(catalogue, chosen, pg_bin=backup_context.settings.pg_bin, tell=tell)
    if remove_id is not None:
        chosen = catalogue.find(remove_id)
        if _expires(chosen):
            raise BackupError(f"{chosen.id} is no archive of a migration: --expire removes it once nothing needs it")
        catalogue.remove(chosen.id)
        say(f"has gone: {chosen.id} ({size_text(chosen.size)})")
    if expire:
        _expire(backup_context, dry_run=dry_run)
    listing = catalogue.listing()
    keep = timedelta(days=backup_context.settings.keep_backups_days)
    if as_json:
        found = [
            {**_as_json(one), "expires_at": (one.ended_at + keep).isoformat() if _expires(one) else None}
            for one in listing.backups
        ]
        print_json({"backups": found, "drills": catalogue.drills(), "faults": list(listing.faults)})
    elif not listing.backups:
        print_line("There is no backup yet: `b44 backup` takes one.")
    else:
        _print_backups(listing.backups, keep)
    for attempt in listing.attempts:
        say(
            f"notice: {attempt.id} was begun at {attempt.began_at:%Y-%m-%d %H:%M} UTC and is not complete; it does not count"
        )
    faults = [*listing.faults, *unverified]
    for line in faults[1:]:
        say(f"b44: {line}")
    if faults:
        raise BadBackupError(faults[0])
    bad = [one for one in listing.backups if one.verification is not None and not one.good]
    if bad and verify_id is not None:
        assert bad[-1].verification is not None
        raise BadBackupError(f"{bad[-1].id} is not good: {bad[-1].verification.differences[0]}")


def _expire(backup_context: BackupContext, *, dry_run: bool) -> None:
    """Removes what is old and not needed, or only looks, and says what goes and what stays."""
    from b44_assets.backup.service import expire

    gone = expire(backup_context, dry_run=dry_run)
    verb = "would go" if dry_run else "has gone"
    for what in (*gone.backups, *gone.attempts):
        say(f"{verb}: {what.id} ({size_text(what.size)})")
    if gone.wal:
        size = size_text(sum(file.size for file in gone.wal))
        say(f"{verb}: {len(gone.wal):,} {plural(len(gone.wal), 'file')} of the WAL ({size})")
    for kept, why in gone.kept.items():
        say(f"stays, though old: {kept}: {why}")


def _print_backups(found: Sequence[Backup], keep: timedelta) -> None:
    table = Table(
        Column("backup", no_wrap=True),
        number_column("size"),
        name_column("needs"),
        Column("verified", no_wrap=True),
        Column("expires", no_wrap=True),
    )
    for one in found:
        left = (one.ended_at + keep - datetime.now(UTC)).days
        table.add_row(
            one.id,
            size_text(one.size),
            one.parent or "",
            _verified(one),
            "never" if not _expires(one) else f"{left} {plural(left, 'day')}" if left >= 0 else "now",
        )
    print_table(new_console(), table)


@click.command(short_help="Restore a backup, never over what is there.")
@click.argument("backup_id", metavar="[BACKUP]", required=False)
@click.option("--into", metavar="FOLDER|URL", required=True, help="A new folder, or the URL of a new database.")
@click.option(
    "--to-time", metavar="TIME", help="Recover to this time, such as 2026-11-26T15:04:05Z; without a zone, UTC."
)
@click.option("--to-lsn", metavar="LSN", help="Recover to this position in the WAL.")
@click.option("--to-point", metavar="NAME", help="Recover to this restore point (pg_create_restore_point).")
@click.option("--no-privileges", is_flag=True, help="Into a database: leave out owners, GRANTs and REVOKEs.")
@json_option
@app_option
def restore(
    backup_id: str | None,
    into: str,
    to_time: str | None,
    to_lsn: str | None,
    to_point: str | None,
    no_privileges: bool,
    as_json: bool,
) -> None:
    """Restore a backup, never over what is there.

    A logical backup goes into a database that has nothing of it yet: --into postgresql://… It comes with its owners and
    privileges, if the server has the roles. A recovery from base, incremental and WAL goes into a
    new folder, which is a B44_HOME then: up to the end of the WAL, or to the point that is named.
    """
    from b44_assets.backup.recovery import restore_physical
    from b44_assets.backup.restoring import restore_logical

    target = _target(to_time, to_lsn, to_point)
    backup_context = _backup_context()
    catalogue = backup_context.catalogue
    store, origin = _store_told(catalogue)
    into_database = into.startswith(("postgresql://", "postgres://"))
    tell_target(redact(into) if into_database else into, f"--into; from {store}, {origin}")
    if into_database:
        if target is not None:
            raise SettingsError("a logical backup holds one moment only: a recovery to a point goes into a folder")
        chosen = catalogue.find(backup_id or "logical/latest")
        with telling(quiet=as_json) as (tell, _):
            restore_logical(
                catalogue, chosen, into, privileges=not no_privileges, pg_bin=backup_context.settings.pg_bin, tell=tell
            )
        if as_json:
            print_json(_restored(chosen.id, redact(into)))
        else:
            print_line(f"{chosen.id} is restored")
        return
    if no_privileges:
        raise SettingsError("--no-privileges is for a logical backup: a recovery into a folder brings its roles along")
    chosen = None if backup_id is None else catalogue.find(backup_id)
    if chosen is not None and not chosen.kind.physical:
        raise BackupError(f"{chosen.id} is a dump: it goes into a new database, --into postgresql://…")
    arguments = {} if target is None else {"target": target}
    with telling(quiet=as_json) as (tell, _):
        done = restore_physical(
            catalogue, Path(into), backup=chosen, pg_bin=backup_context.settings.pg_bin, tell=tell, **arguments
        )
    recovered = done.recovered
    last = recovered.last_transaction
    if as_json:
        at = None if last is None else last.astimezone(UTC).isoformat()
        print_json(_restored(recovered.backup, str(done.directory), lsn=recovered.lsn, last_transaction_at=at))
        return
    until = (
        "" if last is None else f"; its last transaction was committed at {last.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"
    )
    print_line(f"recovered to {recovered.lsn}{until}")
    print_line(f"start it: B44_HOME={shlex.quote(str(done.directory))} b44 db url")


@click.command(short_help="Recover on trial, and measure loss and time.")
@json_option
@app_option
def drill(as_json: bool) -> None:
    """Recover as if the server were lost, from the store alone, and measure what would be lost and how long it takes."""
    from b44_assets.backup.service import rehearse

    backup_context = _backup_context(reads=True, database_url=None)
    with telling(quiet=as_json) as (tell, _):
        done = rehearse(backup_context, tell)
    if as_json:
        print_json({"backup": done.backup, "rpo_seconds": done.rpo_seconds, "rto_seconds": done.rto_seconds})
        return
    print_line(
        f"recovered from {done.backup}: the last {done.rpo_seconds:.1f} s would be lost (RPO), and the server would be back"
        f" after {done.rto_seconds:.1f} s (RTO)"
    )


@click.command(short_help="Tell whether the server archives its WAL; turn it on.")
@click.argument("switch", type=click.Choice(["on", "off"]), required=False)
@database_option
@json_option
@app_option
def archiving(switch: str | None, database_url: str | None, as_json: bool) -> None:
    """Tell whether the server archives its WAL; turn it on or off on the embedded one."""
    from b44_assets.backup.archive_settings import instructions
    from b44_assets.backup.service import archive_wal, look_at_archiving

    backup_context = _backup_context(reads=switch is None, database_url=database_url)
    if switch is not None:
        archive_wal(backup_context, on=switch == "on")
    state = look_at_archiving(backup_context)
    advice = None
    if backup_context.embedded is None and not state.works:
        advice = instructions(backup_context.spool or _EXAMPLE_SPOOL, state.server_version)
    if as_json:
        print_json({"on": state.on, "message": state.explanation, "faults": list(state.faults), "instructions": advice})
    elif advice is not None:
        for line in advice.splitlines():
            # What is to be typed stays as it is.
            if line.startswith(" "):
                click.echo(line)
            else:
                print_line(line, indent="   ")
    elif state.works or not state.on:
        print_line(state.explanation)
    if state.works:
        return
    if state.faults or backup_context.embedded is None:
        raise BadBackupError(state.explanation)


def _store_told(catalogue: Catalogue) -> tuple[str, str]:
    """The backups that a command works on, and where they were named."""
    return f"the backups in {catalogue.store.location}", origin_of("backup_url") or "no B44_BACKUP_URL is set"


def _restored(
    backup_id: str, into: str, *, lsn: str | None = None, last_transaction_at: str | None = None
) -> dict[str, str | None]:
    return {"backup": backup_id, "into": into, "lsn": lsn, "last_transaction_at": last_transaction_at}


def _target(to_time: str | None, to_lsn: str | None, to_point: str | None) -> RecoveryTarget | None:
    from b44_assets.backup.recovery import RecoveryTarget

    given = [text for text in (to_time, to_lsn, to_point) if text is not None]
    if len(given) > 1:
        raise SettingsError("a recovery has one target: a time, a position or a restore point")
    if not given:
        return None
    if to_time is None:
        return RecoveryTarget(lsn=to_lsn, name=to_point)
    try:
        moment = datetime.fromisoformat(to_time)
    except ValueError as error:
        raise SettingsError(f"--to-time must be a time such as 2026-11-26T15:04:05Z, not {to_time!r}") from error
    return RecoveryTarget(time=moment if moment.tzinfo else moment.replace(tzinfo=UTC))


def _as_json(found: Backup) -> dict[str, Any]:
    verification = found.verification
    return {
        "id": found.id,
        "kind": found.kind.value,
        "database": found.database,
        "began_at": found.began_at.isoformat(),
        "ended_at": found.ended_at.isoformat(),
        "bytes": found.size,
        "files": {file.name: file.sha256 for file in found.files},
        "needs": found.parent,
        "encrypted": found.encrypted,
        "good": found.good,
        "verified_at": None if verification is None else verification.verified_at.isoformat(),
        "differences": [] if verification is None else list(verification.differences),
    }


def _expires(found: Backup) -> bool:
    """Whether age alone removes it: nothing else holds what the archive of a migration does."""
    return found.kind.value != "migration"


def _verified(found: Backup) -> str:
    if found.verification is None:
        return "never"
    return f"{found.verification.verified_at:%Y-%m-%d}" if found.good else "FAILED"
