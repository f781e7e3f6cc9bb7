"""What commands print: tables, sizes, verdicts, and progress."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from rich.cells import cell_len
from rich.console import Console
from rich.measure import Measurement
from rich.table import Column, Table

from b44_assets.cli.options import origin_of
from b44_assets.cli.terminal import UNBOUNDED, new_console, print_text
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.migration.accounts import EntityAccount
    from b44_assets.runs.outcome import Outcome


def print_json(facts: Mapping[str, Any]) -> None:
    """Prints what `--json` asks for: one object on one line, of the form that docs/output.schema.json has for the command."""
    click.echo(json.dumps(facts, ensure_ascii=False))


_NARROWEST = 10
"""To how many characters a name is folded at most."""
_SPLIT = {
    "deduplicated": "dedupli-\ncated",
    "quarantined": "quaran-\ntined",
    "unaccounted": "unac-\ncounted",
    "unchanged": "un-\nchanged",
}
"""Heads of columns in two lines, for a narrow terminal."""


def number_column(name: str) -> Column:
    """A column of numbers."""
    return Column(name, justify="right", no_wrap=True)


def print_table(console: Console, table: Table) -> None:
    """Prints a table, as narrow as the terminal: nothing of it is cut off.

    Heads are in two lines where names would be folded otherwise, as a head in pieces is read more easily. Where there is no room
    for that either, cells have no margin; and where no table fits, each row is a line of prose.
    """
    heads = [str(column.header).replace("\n", " ") for column in table.columns]
    if Measurement.get(console, console.options.update(max_width=UNBOUNDED), table).maximum > console.width:
        for column in table.columns:
            column.header = _SPLIT.get(str(column.header), column.header)
    if _narrowest(table) > console.width:
        table.padding = 0
    if _narrowest(table) <= console.width:
        console.print(table)
        return
    for name, *values in zip(*(column.cells for column in table.columns), strict=True):
        said = ", ".join(f"{head} {value}" for head, value in zip(heads[1:], values, strict=True) if value)
        print_text(console, f"{name}: {said}")


def _narrowest(table: Table) -> int:
    """How many columns of the terminal a table needs at least, with names folded as far as they are."""
    widths = [
        column.min_width
        or max(cell_len(line) for cell in (column.header, *column.cells) for line in str(cell).split("\n"))
        for column in table.columns
    ]
    _, right, _, left = table.padding
    return sum(width + left + right + 1 for width in widths) + 1


def name_column(name: str) -> Column:
    """A column of names, none of which is cut off: two tables may begin alike."""
    return Column(name, overflow="fold", min_width=_NARROWEST)


def print_outcome(outcome: Outcome, *, ended: bool) -> None:
    """Prints what became of the records of a run, by table and reason, and where to look next.

    Args:
        outcome: What it came to.
        ended: Whether something ended it early: then nothing is said of what is not there.
    """
    if ended and not outcome.entities:
        return
    console = new_console()
    names = ["read", "migrated", "deduplicated", "quarantined", "repaired"]
    table = Table(name_column("table"), *(number_column(name) for name in names))
    for entity, counts in outcome.entities.items():
        table.add_row(
            entity,
            *(f"{counts[name]:,}" for name in names[:-1]),
            f"{sum(counts['repairs'].values()):,}",
        )
    _add_total(
        table,
        [
            sum(sum(one["repairs"].values()) if name == "repaired" else one[name] for one in outcome.entities.values())
            for name in names
        ],
    )
    if outcome.entities:
        print_table(console, table)
    _print_unmapped(console, outcome.unmapped)
    reasons = Table(name_column("table"), name_column("reason"), number_column("records"))
    for entity, counts in outcome.entities.items():
        for reason, count in counts["reasons"].items():
            reasons.add_row(entity, reason, f"{count:,}")
    if reasons.row_count:
        named = sum(sum(counts["reasons"].values()) for counts in outcome.entities.values())
        quarantined = sum(counts["quarantined"] for counts in outcome.entities.values())
        _add_total(reasons, ["", named])
        print_text(console, "Quarantined, by reason (b44 quarantine shows the records):")
        print_table(console, reasons)
        if line := several_reasons(quarantined, named):
            print_text(console, line)
    if ended:
        return
    console.print("Look at it, and back it up:")
    command = _own_command()
    # A target that only an option names is none of those commands'.
    given = " --database-url URL" if origin_of("database_url") == "--database-url" else ""
    psql = "psql URL" if given else f"{command} db psql"
    for line in (psql, f"{command} status{given}", f"{command} dev{given}", f"{command} backup{given}"):
        print_text(console, f"  {line}")
    console.print(f"{outcome.seconds:.1f} seconds")
    if outcome.replay is not None:
        print_text(console, outcome.replay.message())


def several_reasons(quarantined: int, reasons: int) -> str:
    """Why reasons add up to more than the records; empty where they add up to as many."""
    if quarantined == reasons:
        return ""
    return (
        f"{quarantined:,} {plural(quarantined, 'record has', 'records have')} {reasons:,} reasons:"
        " one that breaks several rules has each of them."
    )


def _add_total(table: Table, values: Sequence[int | str]) -> None:
    """A last row with the sum of all others, where there are several."""
    if table.row_count > 1:
        table.add_section()
        table.add_row("total", *(value if isinstance(value, str) else f"{value:,}" for value in values))


def print_accounts(console: Console, found: tuple[EntityAccount, ...], unmapped: dict[str, dict[str, Any]]) -> None:
    """Prints what became of all records so far, by table, and those in quarantine by reason."""
    names = ["read", "migrated", "deduplicated", "quarantined", "pending", "unaccounted"]
    # After a newer export only, as the width of a terminal is scarce.
    names += [name for name in ("vanished", "conflicts") if any(getattr(account, name) for account in found)]
    table = Table(name_column("table"), *(number_column(name) for name in names))
    for account in found:
        table.add_row(
            account.entity,
            *(f"{getattr(account, name):,}" for name in names),
        )
    _add_total(table, [sum(getattr(account, name) for account in found) for name in names])
    print_table(console, table)
    _print_unmapped(console, unmapped)
    for account in found:
        for reason, count in account.reasons.items():
            print_text(console, f"  {account.entity}: {count:,} quarantined as {reason}")
    named = sum(sum(account.reasons.values()) for account in found)
    if line := several_reasons(sum(account.quarantined for account in found), named):
        print_text(console, f"  {line}")


def _print_unmapped(console: Console, unmapped: dict[str, dict[str, Any]]) -> None:
    """Print entities without a table: on their own, as their names would be cut off beside many columns."""
    if not unmapped:
        return
    table = Table(name_column("entity"), number_column("read"))
    for entity, counts in unmapped.items():
        table.add_row(f"{entity} (no table)", f"{counts['read']:,}")
    print_table(console, table)
    if records := sum(counts["read"] for counts in unmapped.values()):
        print_text(
            console,
            f"{records:,} {plural(records, 'record')} without a table {plural(records, 'is', 'are')} kept in migration.unmapped;"
            " b44 init makes tables from the entities' schemas.",
        )


def _own_command() -> str:
    """What to type to run this program again: its name if the shell would find it, else its path from here."""
    if shutil.which("b44") is not None:
        return "b44"
    script = Path(sys.argv[0]).absolute()
    return str(script.relative_to(Path.cwd())) if script.is_relative_to(Path.cwd()) else str(script)


def size_text(size: float) -> str:
    """A number of bytes in the unit that suits it."""
    for unit in ("B", "KiB", "MiB", "GiB"):
        if size < 1024:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1024
    return f"{size:.1f} TiB"
