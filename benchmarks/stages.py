"""Times each stage of the engine for posts, so that a regression shows where it is.

    python benchmarks/stages.py --export DIR

Everything runs in this process against a scratch server. Next to each stage stands its ratio to a yardstick taken in the
same run, a plain copy of the staged rows within the server: ratios can be compared between machines, seconds cannot.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, TypeVar

import psycopg
from rich.console import Console
from rich.table import Column, Table

# Run as a script, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.config.quantities import DEFAULT_BATCH_SIZE, DEFAULT_STREAMS, Pace
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.plan import make_plan
from b44_assets.migration.staging import StagedExport
from b44_assets.migration.verification import row_parity
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.schema.apply import apply
from b44_assets.session import Session
from benchmarks.measuring import MIB, fresh_database, load, own_peak_rss, server, server_cpu, timed, workplace

T = TypeVar("T")

TABLE = "posts"
YARDSTICK = "(yardstick)"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Times each stage of the engine for posts.")
    parser.add_argument("--export", type=Path, required=True, metavar="DIR", help="a folder of exports")
    parser.add_argument("--home", type=Path, metavar="DIR", help="keep the scratch server's files here")
    parser.add_argument("--batch-size", type=int, default=DEFAULT_BATCH_SIZE)
    parser.add_argument("--streams", type=int, default=DEFAULT_STREAMS, help="connections that load at a time")
    parser.add_argument("--runs", type=int, default=1, help="how often; the quickest time of each stage counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    try:
        with workplace(options.home) as place, server(place) as embedded:
            runs = [measure(embedded, options) for _ in range(options.runs)]
    except B44Error as error:
        print(f"stages: {error}", file=sys.stderr)
        return error.exit_status
    best = {name: min((run[name] for run in runs), key=lambda entry: entry["seconds"]) for name in runs[0]}
    for entry in best.values():
        entry["ratio"] = round(entry["seconds"] / best[YARDSTICK]["seconds"], 2)
    facts = {
        "stages": best,
        "peak_rss": own_peak_rss(),
        "batch_size": options.batch_size,
        "streams": options.streams,
        "machine": load(),
    }
    if options.json:
        print(json.dumps(facts))
    else:
        report(facts)
    return 0


def measure(embedded: EmbeddedServer, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Migrates everything but posts untimed, then posts, stage by stage."""
    url = fresh_database(embedded, "stages")
    catalog = load_catalog(Settings.load().sql_dir)
    session = Session(url=url, catalog=catalog, pace=Pace(batch_size=options.batch_size, streams=options.streams))
    mapping = catalog.mappings[TABLE]
    stages: dict[str, dict[str, Any]] = {}

    def take(name: str, work: Callable[[], T], rows: int | None = None) -> T:
        ours, servers = time.process_time(), server_cpu(embedded)
        seconds, result = timed(work)
        stages[name] = {
            "seconds": round(seconds, 3),
            "our_cpu": round(time.process_time() - ours, 3),
            "server_cpu": round(server_cpu(embedded) - servers, 3),
            "rows_per_second": round((staged.records if rows is None else rows) / seconds),
        }
        return result

    prepare(session, catalog, options.export)
    staged = StagedExport(TABLE, None, "", 0)
    staged = take("stage", lambda: stage_export(session, mapping, options.export))
    stages["stage"]["rows_per_second"] = round(staged.records / stages["stage"]["seconds"])
    take(YARDSTICK, lambda: _copy_staged(url))
    plan = take("plan", lambda: make_plan(session, mapping))
    migrated = plan.to_migrate
    take("load", lambda: load_table(session, mapping), migrated)
    rows = take("row parity", lambda: row_parity(session, mapping), migrated)
    planned = take("content as planned", lambda: content_parity(session, mapping, anew=False), migrated)
    content = take("content mapped anew", lambda: content_parity(session, mapping), migrated)
    take("load again", lambda: load_table(session, mapping))
    take("stage again", lambda: stage_export(session, mapping, options.export))
    for parity in (rows, planned, content):
        if parity is None or not parity.passed:
            print(f"stages: {parity.message() if parity else 'nothing was migrated'}", file=sys.stderr)
    return stages


def prepare(session: Session, catalog: Catalog, export: Path) -> None:
    """All that posts stand on: functions, migration tables, tables, users and categories; and the table of posts, empty."""
    for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
        apply(session, spec)
    for table, mapping in catalog.mappings.items():
        if table != TABLE:
            stage_export(session, mapping, export)
            load_table(session, mapping)


def _copy_staged(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create unlogged table yardstick as select * from base44.posts")
        conn.execute("drop table yardstick")


def report(facts: dict[str, Any]) -> None:
    names = ("seconds", "of the yardstick", "our CPU s", "server's CPU s", "rows/s")
    table = Table("stage", *(Column(name, justify="right") for name in names))
    for name, entry in facts["stages"].items():
        table.add_row(
            name,
            f"{entry['seconds']:.2f}",
            f"{entry['ratio']:.2f}",
            f"{entry['our_cpu']:.2f}",
            f"{entry['server_cpu']:.2f}",
            f"{entry['rows_per_second']:,}",
        )
    console = Console(highlight=False, soft_wrap=True)
    console.print(table)
    console.print(
        f"batches of {facts['batch_size']:,}, {facts['streams']} streams, our peak memory"
        f" {facts['peak_rss'] / MIB:.0f} MiB, {facts['machine']}"
    )


if __name__ == "__main__":
    sys.exit(main())
