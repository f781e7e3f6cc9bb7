"""Times each stage of the engine for posts, so that a regression shows where it is.

    python benchmarks/stages.py --export DIR

Everything runs in this process against a scratch server. Next to each stage stands its ratio to a yardstick taken in the
same run, a plain copy of the staged rows within the server: ratios can be compared between machines, seconds cannot.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import psycopg
from measuring import MIB, fresh_database, load, own_peak_rss, server, timed, workplace
from rich.console import Console
from rich.table import Column, Table

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.engine.loading import load as load_records
from b44_assets.engine.proving import content_parity, row_parity
from b44_assets.engine.schema import apply
from b44_assets.engine.session import Session
from b44_assets.engine.settling import settle
from b44_assets.engine.staging import stage
from b44_assets.errors import B44Error
from b44_assets.settings import DEFAULT_BATCH_SIZE, Settings

TABLE = "posts"


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Times each stage of the engine for posts.")
    parser.add_argument("--export", type=Path, required=True, metavar="DIR", help="a folder of exports")
    parser.add_argument("--database-url", metavar="URL", help="an empty database to use; default: a scratch server")
    parser.add_argument("--home", type=Path, metavar="DIR", help="keep the scratch server's files here")
    parser.add_argument("--batch-size", type=int, default=DEFAULT_BATCH_SIZE)
    parser.add_argument("--streams", type=int, default=Session.streams, help="connections that load at a time")
    parser.add_argument("--runs", type=int, default=1, help="how often; the quickest time of each stage counts")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    try:
        if options.database_url is not None:
            runs = [measure(options.database_url, options)]
        else:
            with workplace(options.home) as place, server(place) as embedded:
                runs = [measure(fresh_database(embedded, "stages"), options) for _ in range(options.runs)]
    except B44Error as error:
        print(f"stages: {error}", file=sys.stderr)
        return error.exit_status
    best = {name: min((run[name] for run in runs), key=lambda entry: entry["seconds"]) for name in runs[0]}
    facts = {"stages": best, "peak_rss": own_peak_rss(), "batch_size": options.batch_size, "streams": options.streams,
             "machine": load()}
    if options.json:
        print(json.dumps(facts))
    else:
        report(facts)
    return 0


def measure(url: str, options: argparse.Namespace) -> dict[str, dict[str, Any]]:
    """Migrates everything but posts untimed, then posts, stage by stage."""
    catalog = load_catalog(Settings.load().sql_dir)
    session = Session(url=url, catalog=catalog, batch_size=options.batch_size, streams=options.streams)
    mapping = catalog.mappings[TABLE]
    seconds: dict[str, float] = {}
    prepare(session, catalog, options.export)
    seconds["stage"], staged = timed(lambda: stage(session, mapping, options.export))
    seconds["(yardstick)"], _ = timed(lambda: _copy_staged(url))
    seconds["settle"], settlement = timed(lambda: settle(session, mapping))
    seconds["load"], _ = timed(lambda: load_records(session, mapping))
    seconds["row parity"], rows = timed(lambda: row_parity(session, mapping))
    seconds["content parity"], content = timed(lambda: content_parity(session, mapping))
    seconds["settle and load again"], _ = timed(lambda: load_records(session, mapping))
    seconds["stage again"], _ = timed(lambda: stage(session, mapping, options.export))
    for parity in (rows, content):
        if parity is None or not parity.passed:
            print(f"stages: {parity.explain() if parity else 'nothing was migrated'}", file=sys.stderr)
    records = {"load": settlement.to_migrate, "row parity": settlement.to_migrate, "content parity": settlement.to_migrate}
    return {
        name: {
            "seconds": round(taken, 3),
            "rows_per_second": round(records.get(name, staged.records) / taken),
            "ratio": round(taken / seconds["(yardstick)"], 2),
        }
        for name, taken in seconds.items()
    }


def prepare(session: Session, catalog: Catalog, export: Path) -> None:
    """All that posts stand on: functions, books, tables, users and categories; and the table of posts, empty."""
    for spec in catalog.specs:
        if spec.kind is not Kind.MAPPING:
            if spec.kind in (Kind.BOOK, Kind.FUNCTION, Kind.TABLE):
                apply(session, spec)
        elif spec.name != TABLE:
            stage(session, catalog.mappings[spec.name], export)
            load_records(session, catalog.mappings[spec.name])


def _copy_staged(url: str) -> None:
    with psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create unlogged table yardstick as select * from base44.posts")
        conn.execute("drop table yardstick")


def report(facts: dict[str, Any]) -> None:
    table = Table("stage", *(Column(name, justify="right") for name in ("seconds", "rows/s", "× yardstick")))
    for name, entry in facts["stages"].items():
        table.add_row(name, f"{entry['seconds']:.2f}", f"{entry['rows_per_second']:,}", f"{entry['ratio']:.2f}")
    console = Console(highlight=False)
    console.print(table)
    console.print(
        f"batches of {facts['batch_size']:,}, {facts['streams']} streams, our peak memory"
        f" {facts['peak_rss'] / MIB:.0f} MiB, {facts['machine']}"
    )


if __name__ == "__main__":
    sys.exit(main())
