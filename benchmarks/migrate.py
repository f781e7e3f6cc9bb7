"""`b44 migrate` against a hand-written psql script of the same end state, in one run: seconds, ratio, memory.

    python benchmarks/migrate.py --posts 500000

Both start from an empty database on the same embedded server; the server and Dagster's storage are set up before. The
script sanitizes no HTML, notes nothing of what it does and verifies nothing (see by_hand.sql): what those cost is within the ratio.
"""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Column, Table

# Run as a script, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.errors import B44Error
from b44_assets.sample import write_sample
from benchmarks.measuring import MIB, fresh_database, load, run, server, workplace

TABLES = ("users", "categories", "posts", "events", "user_preferences", "user_sessions", "audit_logs", "post_slugs")
B44 = (sys.executable, "-c", "from b44_assets.cli import main; main()")


def counts(url: str) -> dict[str, int]:
    """Rows of each table."""
    with psycopg.connect(url) as conn:
        found: dict[str, int] = {}
        for table in TABLES:
            row = conn.execute(sql.SQL("select count(*) from {}").format(sql.Identifier(table))).fetchone()
            found[table] = row[0] if row else 0
        return found


def structure(url: str) -> set[str]:
    """Indexes and constraints, by definition: the end state beyond rows."""
    with psycopg.connect(url) as conn:
        rows = conn.execute(
            "select indexdef from pg_indexes where schemaname = 'public' and tablename = any(%(tables)s)"
            " union all select conrelid::regclass || ' ' || conname || ' ' || pg_get_constraintdef(oid) from pg_constraint"
            " where conrelid::regclass::text = any(%(tables)s)",
            {"tables": list(TABLES)},
        ).fetchall()
    return {row[0] for row in rows}


def measure(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Runs both, and returns what was measured."""
    export = place / "export"
    if not export.exists():
        write_sample(
            export,
            users=options.users,
            posts=options.posts,
            seed=options.seed,
            dialect="2026-06",
            faults=options.faults,
        )
    facts: dict[str, Any] = {"posts": options.posts, "bytes": (export / "Post_export.csv").stat().st_size, "runs": []}
    with server(place / "home") as embedded:
        warm = place / "warm"
        if not warm.exists():
            write_sample(warm, users=5, posts=5, seed=1, dialect="2026-06")
        environment = {"B44_HOME": str(place / "home"), "B44_DATABASE_URL": fresh_database(embedded, "warm")}
        run([*B44, "migrate", "--export", warm, "--json"], env=environment)
        for _ in range(options.runs):
            by_hand_url = fresh_database(embedded, "by_hand")
            psql = embedded.bin_dir / "psql"
            by_hand = run(
                [
                    psql,
                    by_hand_url,
                    "-X",
                    "-q",
                    "-v",
                    "ON_ERROR_STOP=1",
                    "-v",
                    f"export={export}",
                    "-f",
                    Path(__file__).with_name("by_hand.sql"),
                ]
            )
            rows_by_hand, structure_by_hand = counts(by_hand_url), structure(by_hand_url)
            # Emptied, so that autovacuum is not at work on it beside the next.
            fresh_database(embedded, "by_hand")
            b44_url = fresh_database(embedded, "b44_benchmark")
            migrated = run(
                [*B44, "migrate", "--export", export, "--json"], env=environment | {"B44_DATABASE_URL": b44_url}
            )
            # Beside the first one autovacuum still is at work on what was loaded.
            again = [
                run([*B44, "migrate", "--export", export, "--json"], env=environment | {"B44_DATABASE_URL": b44_url})
                for _ in range(options.again)
            ]
            facts["runs"].append(
                {
                    "by_hand_seconds": by_hand.seconds,
                    "b44_seconds": migrated.seconds,
                    "ratio": migrated.seconds / by_hand.seconds,
                    "again_shares": [once.seconds / migrated.seconds for once in again],
                    "b44_peak_rss": migrated.peak_rss,
                    "checks": json.loads(migrated.output)["checks"],
                    "rows": {"b44": counts(b44_url), "by hand": rows_by_hand},
                    "only_in_b44": sorted(structure(b44_url) - structure_by_hand),
                    "only_by_hand": sorted(structure_by_hand - structure(b44_url)),
                    "machine": load(),
                }
            )
    return facts


def report(facts: dict[str, Any]) -> None:
    """Prints the figures as tables."""
    console = Console(highlight=False)
    table = Table(
        "run", *(Column(name, justify="right") for name in ("by hand s", "b44 s", "ratio", "again / first", "peak MiB"))
    )
    for number, entry in enumerate(facts["runs"], start=1):
        table.add_row(
            str(number),
            f"{entry['by_hand_seconds']:.1f}",
            f"{entry['b44_seconds']:.1f}",
            f"{entry['ratio']:.2f}",
            ", ".join(f"{share:.1%}" for share in entry["again_shares"]),
            f"{entry['b44_peak_rss'] / MIB:.0f}",
        )
    console.print(f"{facts['posts']:,} posts, {facts['bytes'] / 1e6:.0f} MB; {facts['runs'][-1]['machine']}")
    console.print(table)
    last = facts["runs"][-1]
    for name in TABLES:
        if last["rows"]["b44"][name] != last["rows"]["by hand"][name]:
            console.print(f"{name}: {last['rows']['b44'][name]:,} rows, by hand {last['rows']['by hand'][name]:,}")
    for side in ("only_in_b44", "only_by_hand"):
        for definition in last[side]:
            console.print(f"{side}: {definition}", markup=False)


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=500_000)
    parser.add_argument("--users", type=int, default=5_000)
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--faults", type=float, default=0.02, help="share of records with something wrong")
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--again", type=int, default=3, help="times that it runs once more with nothing to do")
    parser.add_argument("--keep", type=Path, help="folder for the server and the export, kept and used again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with workplace(options.keep) as place:
            facts = measure(options, place)
    except B44Error as error:
        raise SystemExit(f"migrate: {error}") from error
    if options.json:
        print(json.dumps(facts))
    else:
        report(facts)


if __name__ == "__main__":
    main()
