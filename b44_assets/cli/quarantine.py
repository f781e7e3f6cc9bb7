"""The command that shows refused records, gives them out for correction, and takes them back: `b44 quarantine`."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.table import Table

from b44_assets.cli.options import app_option, database_option, json_option, session_of, settings_with
from b44_assets.cli.output import name_column, number_column, print_json, print_table
from b44_assets.cli.terminal import new_console, print_line, print_text
from b44_assets.errors import SettingsError, why
from b44_assets.runs.preconditions import require_migration
from b44_assets.wording import plural

if TYPE_CHECKING:
    from rich.console import Console

    from b44_assets.migration.quarantine import QuarantinedRecord
    from b44_assets.session import Session

_SHOWN = 20
"""How many records the screen shows."""
_FIELDS = 5
"""How many fields of a record the screen shows."""
_LONGEST = 60
"""How much of a value the screen shows, in characters."""


@click.command(short_help="Show refused records; take them back corrected.")
@click.argument("table", required=False)
@click.option("--reason", metavar="REASON", help="Only the records with this reason, such as missing_title.")
@click.option(
    "--csv",
    "csv_file",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Write them, whole, to a new CSV for correction.",
)
@click.option(
    "--from",
    "corrected",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="Take in records that were corrected in such a CSV, or in what --json has printed.",
)
@click.option("--dry-run", is_flag=True, help="With --from: only say what would be changed.")
@database_option
@json_option
@app_option
def quarantine(
    table: str | None,
    reason: str | None,
    csv_file: Path | None,
    corrected: Path | None,
    dry_run: bool,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Show the refused records of a TABLE, or of all; write them to a file, and read that back corrected.

    Of a corrected record only the fields that differ are changed. b44 replay migrates them then.
    """
    from b44_assets.migration.quarantine import correct_quarantine, quarantined, read_corrections
    from b44_assets.migration.readable import remedied, require_own

    if corrected is not None and (table, reason, csv_file) != (None, None, None):
        raise SettingsError("--from goes without TABLE, --reason and --csv: the file says which records")
    if dry_run and corrected is None:
        raise SettingsError("--dry-run goes with --from")
    if csv_file is not None and as_json:
        raise SettingsError("--csv and --json exclude each other")
    edited = read_corrections(corrected) if corrected is not None else ()
    session = session_of(settings_with(reads=True, database_url=database_url))
    if table is not None and table not in session.catalog.mappings:
        raise SettingsError(f"no table {table}; there are {', '.join(session.catalog.mappings)}")
    with remedied(session, require_own):
        require_migration(session, "quarantine")
        if corrected is not None:
            done = correct_quarantine(session, edited, corrected, only_look=dry_run)
            if as_json:
                print_json({**done.facts(), "dry_run": dry_run})
                return
            print_line(done.message(only_look=dry_run))
            if done.changes and not dry_run:
                print_line("b44 replay migrates them.")
        elif csv_file is not None:
            _export(session, csv_file, table, reason)
        elif as_json:
            print_json({"records": [one.facts() for one in quarantined(session, table, reason)]})
        else:
            _show(new_console(), session, table, reason)


def _export(session: Session, file: Path, table: str | None, reason: str | None) -> None:
    from b44_assets.migration.quarantine import quarantined, write_csv

    try:
        # A file for correction may be worth hours of somebody's work; and what was refused may be personal.
        descriptor = os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except FileExistsError:
        raise SettingsError(f"{file}: is there already; name a new file") from None
    except OSError as error:
        raise SettingsError(f"{file}: cannot be written: {why(error, file)}") from error
    with os.fdopen(descriptor, "w", encoding="utf-8", newline="") as stream:
        count = write_csv(lambda: quarantined(session, table, reason), stream)
    print_line(f"{file}: {count:,} {plural(count, 'record')}; correct them there, then b44 quarantine --from {file}")


def _show(console: Console, session: Session, table: str | None, reason: str | None) -> None:
    from b44_assets.migration.quarantine import quarantined
    from b44_assets.scaffold.sensitive import is_secret_name

    # Of a record that could not be split into its cells, nobody knows where a secret begins.
    guarded = {
        name
        for name, mapping in session.catalog.mappings.items()
        if any(is_secret_name(field.name) for field in mapping.fields)
    }
    counts: Counter[tuple[str, str]] = Counter()
    total = 0
    found = quarantined(session, table, reason)
    shown = list(islice(found, _SHOWN))
    for one in (*shown, *found):
        total += 1
        counts.update((one.table, each) for each in one.reasons)
    if not total:
        print_text(console, "No such record is in quarantine." if reason or table else "No record is in quarantine.")
        return
    for one in shown:
        for line in record_lines(one, shows_raw=one.table not in guarded):
            print_text(console, line)
    if total > len(shown):
        print_text(
            console,
            f"… and {total - len(shown):,} more: name a TABLE or a --reason, or write all of them by --csv FILE",
        )
    reasons = Table(name_column("table"), name_column("reason"), number_column("records"))
    for (name, each), count in sorted(counts.items(), key=lambda item: (item[0][0], -item[1], item[0][1])):
        reasons.add_row(name, each, f"{count:,}")
    print_table(console, reasons)
    print_text(
        console,
        f"{total:,} {plural(total, 'record')}. To correct them: b44 quarantine --csv FILE, edit it, b44 quarantine --from FILE,"
        " b44 replay.",
    )


def record_lines(one: QuarantinedRecord, *, shows_raw: bool) -> Iterator[str]:
    """Give a record with the values that its reasons name, and the first others; secrets left out, long values cut off.

    Args:
        one: The record.
        shows_raw: Whether the text of one that could not be split into its cells is shown.
    """
    from b44_assets.migration.quarantine import RAW
    from b44_assets.scaffold.sensitive import HIDDEN, is_secret_name, without_secrets

    where = f" ({one.source_file}, record {one.record_number:,})" if one.source_file and one.record_number else ""
    yield f"{one.named}{where}: {', '.join(one.reasons)}"
    said = " ".join(one.reasons)
    names = sorted(one.record, key=lambda name: name not in said)
    for name in names[:_FIELDS]:
        text = one.record[name]
        if text:
            hidden = is_secret_name(name) or (name == RAW and not shows_raw)
            text = HIDDEN if hidden else without_secrets(text)
        yield f"  {name}: {_shortened(text)}"


def _shortened(text: str | None) -> str:
    """A value on one line, without what would drive a terminal."""
    if text is None:
        return "(none)"
    if not text.strip():
        return "(blank)"
    line = "".join(sign if sign.isprintable() else " " for sign in text[: _LONGEST + 1])
    return f"{line[:_LONGEST]}… ({len(text):,} characters)" if len(text) > _LONGEST else line
