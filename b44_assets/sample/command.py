"""The command that writes a synthetic export."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path

import click

from b44_assets.sample.dialects import DIALECTS
from b44_assets.sample.writer import write_sample
from b44_assets.wording import plural

Report = Callable[[str, int, int], None]
"""Told what is being done, how much of it is done, and of how much."""


def sample_command(progress: Callable[[], AbstractContextManager[Report]]) -> click.Command:
    """Makes the command `sample`.

    Args:
        progress: Shows progress on the terminal while it is open.
    """

    @click.command("sample")
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
    def sample(directory: Path, users: int, posts: int, seed: int, dialect: str) -> None:
        """Write a synthetic export, with the truth about it in truth.json, for trying out and for benchmarks."""
        with progress() as show:
            report = write_sample(
                directory,
                users=users,
                posts=posts,
                seed=seed,
                dialect=dialect,
                progress=lambda done, total: show("sample/posts", done, total),
            )
        records, files, size = sum(report.files.values()), len(report.files), report.bytes
        click.echo(
            f"{directory}: {records:,} {plural(records, 'record')} in {files} {plural(files, 'file')},"
            f" {size:,} {plural(size, 'byte')}"
        )

    return sample
