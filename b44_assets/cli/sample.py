"""The command that writes a synthetic export: `b44 sample`."""

from __future__ import annotations

from pathlib import Path

import click

from b44_assets.cli.options import json_option
from b44_assets.cli.output import print_json
from b44_assets.cli.progress import show_progress
from b44_assets.cli.terminal import print_line
from b44_assets.sample.dialects import DIALECTS
from b44_assets.sample.writer import write_sample
from b44_assets.wording import plural


@click.command(short_help="Write a synthetic export, for trying out.")
@click.argument("directory", type=click.Path(path_type=Path, file_okay=False))
@click.option("--users", type=click.IntRange(min=1), default=60, show_default=True, help="Users to invent.")
@click.option("--posts", type=click.IntRange(min=0), default=400, show_default=True, help="Posts to invent.")
@click.option("--seed", type=int, default=1, show_default=True, help="The same seed gives the same export.")
@click.option(
    "--dialect",
    type=click.Choice(DIALECTS),
    default="2026-06",
    show_default=True,
    help="How the files are written: as Base44 did at that time, by a spreadsheet, or by its API.",
)
@json_option
def sample(directory: Path, users: int, posts: int, seed: int, dialect: str, as_json: bool) -> None:
    """Write a synthetic export, with the truth about it in truth.json, for trying out and for benchmarks."""
    with show_progress(quiet=as_json) as show:
        written = write_sample(
            directory,
            users=users,
            posts=posts,
            seed=seed,
            dialect=dialect,
            progress=lambda done, total: show("sample/posts", done, total),
        )
    if as_json:
        print_json({"directory": str(directory), "files": written.files, "bytes": written.bytes})
        return
    records, files, size = sum(written.files.values()), len(written.files), written.bytes
    print_line(
        f"{directory}: {records:,} {plural(records, 'record')} in {files} {plural(files, 'file')},"
        f" {size:,} {plural(size, 'byte')}"
    )
