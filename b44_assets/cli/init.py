"""The command that makes the folder of an app: `b44 init`."""

from __future__ import annotations

import shlex
from collections import Counter
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import click

from b44_assets.cli.options import json_option
from b44_assets.cli.output import print_json
from b44_assets.cli.terminal import print_line
from b44_assets.errors import SettingsError
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.config.app_folder import AppPart
    from b44_assets.scaffold.files import Changes
    from b44_assets.scaffold.folder import Project
    from b44_assets.scaffold.model import App, Notice

_MOST_NOTICES = 10
_MOST_DIFF_LINES = 200


@click.command(short_help="Make the folder of your app from its schemas or an export.")
@click.argument("directory", type=click.Path(path_type=Path), metavar="DIR")
@click.option(
    "--entities",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The folder of the entity schemas, or the app's own repository; default as b44.toml says.",
)
@click.option(
    "--export",
    type=click.Path(path_type=Path),
    metavar="DIR",
    help="An export, on which the schemas are checked; alone, all is read from it. Default as b44.toml says.",
)
@click.option(
    "--source",
    type=click.Path(path_type=Path),
    metavar="PATH",
    help="The app's own source: what it calls is counted in DECISIONS.md. Default as b44.toml says.",
)
@click.option("--name", metavar="NAME", help="What the app is called; default the folder's name.")
@click.option(
    "--strict", is_flag=True, help="Refuse records that break what their schema declares, instead of listing them."
)
@click.option(
    "--open",
    "opened",
    is_flag=True,
    help="Give all rows of the tables to the roles b44_readwrite and b44_readonly; nobody gets them otherwise.",
)
@click.option("--example", type=click.Choice(["blog"]), help="Copy a bundled example instead.")
@click.option("--dry-run", is_flag=True, help="Only show what would be written.")
@json_option
def init(
    directory: Path,
    entities: Path | None,
    export: Path | None,
    source: Path | None,
    name: str | None,
    strict: bool,
    opened: bool,
    example: str | None,
    dry_run: bool,
    as_json: bool,
) -> None:
    """Make the folder of an app from its entity schemas, checked against an export.

    Run again, it writes what is new and shows what is different; a file that you have edited is kept, and what is generated
    otherwise now is written beside it as FILE.new.
    """
    # Late: pydantic and jinja2 take longer to import than --help takes.
    from b44_assets.config.app_folder import AppFile, AppFolder, place_of
    from b44_assets.scaffold.folder import example_files, project_files, require_usable, write_folder

    if example is not None and any((entities, export, source, strict, opened)):
        raise SettingsError(
            "--example goes without --entities, --export, --source, --strict and --open: it brings all it needs"
        )
    folder = directory.expanduser().absolute()
    there = require_usable(folder) or AppFolder(folder, AppFile())
    project = _project(
        folder,
        there.file.app,
        entities=entities,
        export=export,
        source=source,
        name=name,
        strict=strict,
        opened=opened,
        example=example,
    )
    files = project_files(project)
    app: App | None = None
    if project.example is not None:
        files |= example_files(project.example)
    else:
        from b44_assets.scaffold.generation import generate
        from b44_assets.scaffold.overrides import overrides_of

        overrides = replace(
            overrides_of(there),
            app=project.name,
            strict=project.strict,
            opened=project.opened,
        )
        entities_dir, export_dir, source_dir = (
            place_of(folder, text) for text in (project.entities, project.export, project.source)
        )
        app, generated = generate(entities_dir, export_dir, source_dir, overrides)
        files |= generated
    changes = write_folder(folder, files, dry_run=dry_run)
    if not as_json:
        _show(changes, dry_run=dry_run)
    if app is not None:
        _show_notices(app.notices)
    given = {
        "--entities": entities,
        "--export": export,
        "--source": source,
        "--name": name,
        "--strict": strict,
        "--open": opened,
    }
    _tell_what_is_kept(folder, changes, [option for option, value in given.items() if value])
    steps = [f"cd {shlex.quote(str(directory))}"] if folder != Path.cwd() else []
    steps += ["b44 sample export"] if project.example is not None else []
    steps += ["b44 migrate" if project.export else "b44 migrate --export DIR"]
    tables = sum(path.parts[:2] == ("sql", "tables") for path in files)
    if as_json:
        print_json({**_facts(app, changes, tables), "dry_run": dry_run, "next": steps})
    else:
        print_line(_verdict(app, tables))
        # Whole, so that it can be copied.
        click.echo(f"next: {' && '.join(steps)}")


def _project(
    folder: Path,
    before: AppPart,
    *,
    entities: Path | None,
    export: Path | None,
    source: Path | None,
    name: str | None,
    strict: bool,
    opened: bool,
    example: str | None,
) -> Project:
    """What the folder is to be: as the options say, else as its b44.toml does.

    Raises:
        SettingsError: Neither says where the app is read from.
    """
    from b44_assets.scaffold.folder import Project, written_path

    if entities is None and export is None:
        example = example or before.example
    entities_text = before.entities if entities is None else written_path(entities, folder)
    export_text = before.export if export is None else written_path(export, folder)
    if example is None and entities_text is None and export_text is None:
        raise SettingsError(
            "init needs the app's schemas or an export: --entities PATH, --export DIR; or --example blog to try it"
        )
    return Project(
        name=name or before.name or folder.name,
        entities=entities_text,
        export="export" if example is not None else export_text,
        source=before.source if source is None else written_path(source, folder),
        strict=strict or before.strict,
        opened=opened or before.open,
        example=example,
    )


def _tell_what_is_kept(folder: Path, changes: Changes, options: list[str]) -> None:
    """Says what is to be done about files that were edited, given the options of this time."""
    from b44_assets.scaffold.files import Action
    from b44_assets.scaffold.folder import doubled_constraints

    for change in changes.of(Action.DIFFERS):
        print_line(_kept(change.path, options), err=True)
    for change in changes.of(Action.KEPT):
        if (folder / f"{change.path}.new").exists():
            print_line(
                f"notice: {change.path}.new is still to be merged into {change.path}, and to be removed", err=True
            )
    for one in doubled_constraints(changes):
        stands, them = plural(len(one.names), "stands", "stand"), plural(len(one.names), "it", "them")
        print_line(
            f"notice: {', '.join(one.names)} {stands} in {one.kept}, which was edited, and now in {one.other} as well:"
            f" take {them} out of {one.kept}",
            err=True,
        )


def _show(changes: Changes, *, dry_run: bool) -> None:
    """Prints what becomes of the files: new ones by folder, all others by name, and what is different in them."""
    from b44_assets.scaffold.files import Action

    if dry_run:
        print_line("Nothing is written (--dry-run).")
    elif not changes.any:
        print_line("Nothing has changed: every file is as it was generated last, or as you have edited it.")
    written = changes.of(Action.WRITTEN)
    by_folder = Counter(str(change.path.parent) for change in written)
    for parent, count in by_folder.items():
        names = ", ".join(change.path.name for change in written if change.path.parent == PurePosixPath("."))
        said = names if parent == "." else f"{parent}/ ({count} {plural(count, 'file')})"
        print_line(f"{Action.WRITTEN.value}: {said}")
    for action in Action:
        if action is not Action.WRITTEN and action is not Action.UNCHANGED:
            for change in changes.of(action):
                print_line(f"{action.value}: {change.path}")
    if same := len(changes.of(Action.UNCHANGED)):
        print_line(f"{Action.UNCHANGED.value}: {same} {plural(same, 'file')}")
    _show_diffs(changes)


def _show_diffs(changes: Changes) -> None:
    """Prints what is different: of edited files all of it, of others as much as one may want to read."""
    from b44_assets.scaffold.files import Action

    for change in changes.of(Action.DIFFERS):
        click.echo(change.diff, nl=False)
    shown = left_out = 0
    for change in changes.of(Action.UPDATED):
        lines = change.diff.count("\n")
        if shown and shown + lines > _MOST_DIFF_LINES:
            left_out += 1
            continue
        shown += lines
        click.echo(change.diff, nl=False)
    if left_out:
        files = plural(left_out, "updated file differs", "updated files differ")
        print_line(f"… and {left_out} more {files}, none of them edited by hand")


def _kept(path: PurePosixPath, options: list[str]) -> str:
    """A line on an edited file: of the options that were given only b44.toml tells the next time."""
    line = f"notice: {path} was edited and is kept; merge {path}.new into it"
    if str(path) != "b44.toml" or not options:
        return line
    return f"{line}, or the next b44 init goes without {' and '.join(options)}"


def _show_notices(notices: tuple[Notice, ...]) -> None:
    for one in notices[:_MOST_NOTICES]:
        place = f"{one.path}: " if one.path is not None else ""
        print_line(f"notice: {place}{one.text}", err=True)
    if more := len(notices[_MOST_NOTICES:]):
        print_line(f"notice: and {more} more, in DECISIONS.md", err=True)


def _facts(app: App | None, changes: Changes, tables: int) -> dict[str, Any]:
    """What became of the files, and what there is, as `--json` prints it."""
    from b44_assets.scaffold.decisions import open_entities, reference_count
    from b44_assets.scaffold.files import Action

    return {
        "files": {action.value: [str(change.path) for change in changes.of(action)] for action in Action},
        "tables": tables,
        "references": 0 if app is None else reference_count(app),
        "open_entities": [] if app is None else list(open_entities(app)),
        "notices": [
            {"file": None if one.path is None else str(one.path), "message": one.text}
            for one in (() if app is None else app.notices)
        ],
    }


def _verdict(app: App | None, tables: int) -> str:
    """The last line: what there is, and what it needs."""
    if app is None:
        return f"{tables} {plural(tables, 'table')}"
    from b44_assets.scaffold.decisions import open_entities, reference_count

    references, opened = reference_count(app), len(open_entities(app))
    parts = [
        f"{tables} {plural(tables, 'table')}",
        f"{references} {plural(references, 'reference')}",
        f"{opened} open {plural(opened, 'entity', 'entities')}",
    ]
    notices = len(app.notices)
    return f"{', '.join(parts)}; {notices} {plural(notices, 'notice')}" + (
        " (DECISIONS.md)" if notices or opened else ""
    )
