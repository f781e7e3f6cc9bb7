"""What a migration would do: `b44 plan`, and `b44 migrate --dry-run`."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

import click
from rich.console import Console
from rich.table import Table

from b44_assets.cli.options import (
    app_option,
    database_option,
    export_option,
    json_option,
    need_export,
    settings_with,
    with_origins,
)
from b44_assets.cli.outcome import faults_to_tell
from b44_assets.cli.output import name_column, number_column, print_json, print_table, several_reasons
from b44_assets.cli.progress import say, show_progress
from b44_assets.cli.terminal import new_console, print_line, print_text
from b44_assets.errors import SettingsError
from b44_assets.runs.signals import interrupted_by_sigterm
from b44_assets.wording import some_of

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings
    from b44_assets.planning import MigrationPlan
    from b44_assets.schema.drift import SchemaChanges

_LISTED = 10
"""How many objects of the schema, and how many unknown fields of a file, are named."""


@click.command(short_help="Say what migrate would do; nothing is changed.")
@export_option
@database_option
@click.option("--table", "tables", metavar="TABLE", multiple=True, help="Only this table; may be given more than once.")
@click.option("--leave-out", "left_out", metavar="TABLE", multiple=True, help="All but this table; may be repeated.")
@json_option
@app_option
def plan(
    export: Path | None, database_url: str | None, tables: tuple[str, ...], left_out: tuple[str, ...], as_json: bool
) -> None:
    """Say what migrate would do, without touching the target: a role that may only read is enough."""
    settings = settings_with(export_dir=export, database_url=database_url)
    conclude_plan(settings, as_json=as_json, tables=tables, left_out=left_out)


def conclude_plan(
    settings: Settings,
    *,
    as_json: bool,
    tables: Collection[str],
    left_out: Collection[str],
    month: str | None = None,
) -> None:
    """Plans a migration and prints what it would do; exits as the migration would.

    Args:
        settings: In force.
        as_json: Whether nothing but JSON is to be printed.
        tables: Of `--table`.
        left_out: Of `--leave-out`.
        month: Of `--month`.

    Raises:
        SystemExit: The migration would fail.
    """
    from b44_assets.planning import plan_migration

    if month is not None:
        raise SettingsError("--dry-run is about all months of a table: leave --month out")
    if settings.export_dir is not None:
        need_export(settings.export_dir, settings, moves=False)
    interrupted_by_sigterm()
    with show_progress(quiet=as_json) as progress:
        found = plan_migration(
            settings,
            tables=tables,
            left_out=left_out,
            progress=progress,
            notice=lambda line: say(f"notice: {line}"),
        )
    if as_json:
        print_json(found.as_dict())
    else:
        show_plan(new_console(), found)
    for line in found.warnings:
        say(f"warning: {line}")
    for fault in faults_to_tell(found.faults):
        say(f"b44: {with_origins(str(fault))}")
    if not as_json:
        print_line(f"Plan: {found.message()}.")
    if found.exit_status:
        raise SystemExit(found.exit_status)


def show_plan(console: Console, found: MigrationPlan) -> None:
    """Prints what a plan has found, but for warnings and faults."""
    files = Table(name_column("file"), name_column("table"), "written as", number_column("records"))
    for one in found.entities:
        files.add_row(one.file or "", one.table or "no table", one.dialect or "", f"{one.records:,}")
    if files.row_count:
        print_table(console, files)
    for one in found.entities:
        for oddity, count in one.oddities.items():
            print_text(console, f"  {one.file}: {oddity} ({count:,})")
        if one.unknown_fields:
            print_text(
                console,
                f"  {one.file}: no column for {some_of(one.unknown_fields, _LISTED)} (kept in migration.unmapped)",
            )
    _print_records(console, found)
    _print_schema(console, found.schema)


def _print_records(console: Console, found: MigrationPlan) -> None:
    # Of the width of a terminal no more than is needed: on an empty target nothing can be changed, or in conflict.
    names = ["read", "new", *(["changed", "unchanged"] if found.migrated_before else [])]
    names += ["deduplicated", "quarantined"]
    names += [name for name in ("vanished", "conflicts") if any(getattr(one, name) for one in found.tables)]
    table = Table(name_column("table"), *(number_column(name) for name in names))
    for one in found.tables:
        counts = {name: getattr(one, name) for name in names if name != "conflicts"}
        counts["conflicts"] = sum(one.conflicts.values())
        table.add_row(one.table, *(f"{counts[name]:,}" for name in names))
    if table.row_count:
        print_table(console, table)
    for one in found.tables:
        for reason, count in one.reasons.items():
            print_text(console, f"  {one.table}: {count:,} would be quarantined as {reason}")
        for kind, count in one.conflicts.items():
            print_text(console, f"  {one.table}: {count:,} left alone: {_CONFLICTS.get(kind, kind)}")
    named = sum(sum(one.reasons.values()) for one in found.tables)
    if line := several_reasons(sum(one.quarantined for one in found.tables), named):
        print_text(console, f"  {line}")


_CONFLICTS = {
    "edited": "the row was edited in the target since",
    "deleted": "the row was deleted in the target since",
    "not_newer": "the record differs, and is no newer than what was migrated",
}


def _print_schema(console: Console, schema: SchemaChanges) -> None:
    if schema.nothing:
        print_text(console, "Schema: as the SQL files say.")
        return
    if schema.program != "kept":
        print_text(console, f"Schema: the program's own schemas b44 and migration would be {schema.program}.")
    if 0 < len(schema.missing) <= _LISTED:
        print_text(console, f"Schema: would be made: {', '.join(schema.missing)}")
    elif schema.missing:
        kinds = ", ".join(f"{kind} {count:,}" for kind, count in sorted(schema.missing_by_kind.items()))
        print_text(console, f"Schema: would be made: {len(schema.missing):,} objects ({kinds})")
    for line in schema.different:
        print_text(console, f"Schema: differs: {line}")
