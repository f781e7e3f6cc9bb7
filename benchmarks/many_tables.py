"""What one `b44 migrate` costs beside the data: many small tables, the bundled sample, `--help` and `status`.

    python benchmarks/many_tables.py --tables 10 66 179

Each app of generated tables is migrated into an empty database, once more with nothing to do, and by a psql script of the same
end state, all on one embedded server. Processor seconds say more than the clock on a busy machine, and are told apart: our
process, and the server's.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.table import Column, Table

# Run as a script, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.errors import B44Error
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.sample import write_sample
from benchmarks.measuring import BenchmarkError, fresh_database, load, run, server, server_cpu, workplace
from tests.helpers.ledger_app import write_app

B44 = (sys.executable, "-c", "from b44_assets.cli import main; main()")


@dataclass(frozen=True)
class Took:
    """What something took, in seconds: by the clock, and on a processor, ours and the server's."""

    seconds: float
    ours: float
    servers: float

    def told(self) -> tuple[str, str, str]:
        """As cells of a table."""
        return f"{self.seconds:.1f}", f"{self.ours:.1f}", f"{self.servers:.1f}"


def write_export(folder: Path, tables: list[str], records: int) -> None:
    """Writes an export of each table of `write_app`."""
    folder.mkdir(parents=True)
    for number, _ in enumerate(tables):
        with (folder / f"Ledger{number:02}_export.csv").open("w", newline="") as stream:
            writer = csv.writer(stream)
            writer.writerow(("id", "remark", "created_date"))
            writer.writerows(
                (f"{number:08x}{one:016x}", f"Remark {one}", f"2025-01-{1 + one % 28:02}T10:00:00.000Z")
                for one in range(records)
            )


def write_script(script: Path, app: Path, export: Path, tables: list[str]) -> None:
    """Writes what a person would do by psql: each table made, its file copied into text columns, and inserted with types."""
    lines: list[str] = []
    for number, table in enumerate(tables):
        lines += [
            f"\\i {app}/tables/{table}.sql",
            "create temporary table source (id text, remark text, created_date text);",
            f"\\copy source from '{export}/Ledger{number:02}_export.csv' (format csv, header)",
            # A script for psql, over names that were made here.
            f"insert into {table} select md5(id)::uuid, remark, created_date::timestamptz from source;",  # noqa: S608
            f"analyze {table};",
            "drop table source;",
        ]
    script.write_text("\n".join(lines) + "\n")


class Bench:
    """A server to run commands against."""

    def __init__(self, embedded: EmbeddedServer, home: Path) -> None:
        self.embedded = embedded
        self._env = {"B44_HOME": str(home)}

    def took(self, *command: str | Path, **env: str) -> Took:
        """Runs a command."""
        before = server_cpu(self.embedded)
        ran = run(command, env=self._env | env)
        return Took(ran.seconds, ran.cpu_seconds, server_cpu(self.embedded) - before)

    def migrate(self, export: Path, **env: str) -> Took:
        """Runs `b44 migrate`."""
        return self.took(*B44, "migrate", "--export", export, "--json", **env)


def many_tables(bench: Bench, place: Path, tables: int, records: int) -> dict[str, Took]:
    """Migrates an app of so many tables: by hand, for the first time, and with nothing to do."""
    app, export, script = (place / f"{what}_{tables}" for what in ("app", "export", "script"))
    names = write_app(app, tables)
    write_export(export, names, records)
    write_script(script, app, export, names)
    psql = (bench.embedded.bin_dir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-f", script)
    by_hand = bench.took(*psql, fresh_database(bench.embedded, "by_hand"))
    env = {"B44_SQL_DIR": str(app), "B44_DATABASE_URL": fresh_database(bench.embedded, f"app_{tables}")}
    return {
        f"{tables} tables by hand": by_hand,
        f"{tables} tables": bench.migrate(export, **env),
        f"{tables} tables, nothing to do": bench.migrate(export, **env),
    }


def measure(options: argparse.Namespace, place: Path) -> dict[str, Took]:
    """Runs all of it."""
    place.chmod(0o755)
    sample = place / "sample"
    write_sample(sample, users=20, posts=120, seed=1, dialect="2026-06")
    home = place / "home"
    found: dict[str, Took] = {}
    # Cold is with everything there is to set up: the server, Dagster's storage, the database.
    found_cold = run([*B44, "migrate", "--export", sample, "--json"], env={"B44_HOME": str(home)})
    with server(home) as embedded:
        bench = Bench(embedded, home)
        found["sample, cold"] = Took(found_cold.seconds, found_cold.cpu_seconds, server_cpu(embedded))
        fresh = {"B44_DATABASE_URL": fresh_database(embedded, "sample")}
        found["sample, server and storage there"] = bench.migrate(sample, **fresh)
        found["sample, nothing to do"] = bench.migrate(sample, **fresh)
        found["status"] = bench.took(*B44, "status", **fresh)
        found["--help"] = bench.took(*B44, "--help")
        for tables in options.tables:
            found |= many_tables(bench, place, tables, options.records)
    return found


def report(found: dict[str, Took]) -> None:
    """Prints the figures as a table."""
    console = Console(highlight=False)
    table = Table("what", *(Column(name, justify="right") for name in ("s", "cpu of ours", "of the server", "by hand")))
    for what, took in found.items():
        by_hand = found.get(f"{what.partition(',')[0]} by hand")
        ratio = f"{took.seconds / by_hand.seconds:.1f}" if by_hand and not what.endswith("by hand") else ""
        table.add_row(what, *took.told(), ratio)
    console.print(load())
    console.print(table)


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, nargs="*", default=[10, 66, 179], help="sizes of generated apps")
    parser.add_argument("--records", type=int, default=10, help="records of each table")
    parser.add_argument("--keep", type=Path, help="folder for the server and the exports, which stays")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with workplace(options.keep) as place:
            found = measure(options, place)
    except (B44Error, BenchmarkError) as error:
        raise SystemExit(f"many_tables: {error}") from error
    if options.json:
        print(json.dumps({what: vars(took) for what, took in found.items()}))
    else:
        report(found)


if __name__ == "__main__":
    main()
