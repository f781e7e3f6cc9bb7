"""Staging one export file against COPY of the same file, and against Sling, dlt and pgloader, on the same server, in one run.

    python benchmarks/staging.py --posts 125000 --dlt PYTHON

COPY is psql's `\\copy` into a table of text columns without WAL, which is what a person would do. The others load the same file
into a table of their own in the fast mode that their documentation names: Sling its bulk load by COPY, dlt Arrow tables read by pyarrow
and loaded as CSV, pgloader COPY with several workers. `--dlt` names a Python interpreter that has `dlt[postgres]` and `pyarrow`.
What is neither named nor found is left out, and said so. Each of them is started for it, psql, too; ours runs in this process.
Staging also counts, hashes and numbers records, keeps those apart that cannot be split into cells, and finds repeated ids.
"""

from __future__ import annotations

import argparse
import csv
import json
import sys
import time
from collections.abc import Callable
from functools import cached_property, partial
from importlib.util import find_spec
from pathlib import Path
from shutil import which
from typing import NamedTuple
from urllib.parse import parse_qs, quote, urlsplit

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Column, Table

# Run as a script, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error
from b44_assets.migration.pipeline import stage_export
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.sample import write_sample
from b44_assets.schema.apply import apply
from b44_assets.session import Session
from benchmarks.measuring import BenchmarkError, fresh_database, load, run, server, server_cpu, workplace

COPY = "COPY"
OURS = "b44"

_NEEDED = {
    "sling": "program sling",
    "dlt": "Python interpreter with dlt[postgres] and pyarrow",
    "pgloader": "program pgloader",
}

_DLT = """
import sys
import dlt
import pyarrow
from pyarrow import csv

path, url, columns = sys.argv[1], sys.argv[2], sys.argv[3].split(",")

@dlt.resource(name="posts", write_disposition="replace")
def posts():
    text = csv.ConvertOptions(column_types=dict.fromkeys(columns, pyarrow.string()), strings_can_be_null=True)
    cells = csv.ParseOptions(newlines_in_values=True)
    blocks = csv.ReadOptions(block_size=16 << 20)
    for batch in csv.open_csv(path, read_options=blocks, parse_options=cells, convert_options=text):
        yield pyarrow.Table.from_batches([batch])

pipeline = dlt.pipeline("staging", destination=dlt.destinations.postgres(url), dataset_name="dlt", pipelines_dir=sys.argv[4])
pipeline.run(posts(), loader_file_format="csv")
"""


class Took(NamedTuple):
    """What something took: seconds by the clock, seconds on a processor of the client's and of the server's, rows loaded."""

    seconds: float
    ours: float
    servers: float
    rows: int


class Way(NamedTuple):
    """A way to load the file: its name, the table that it fills, what does it, and what is made before."""

    name: str
    table: sql.Identifier
    work: Callable[[str], float]
    prepare: Callable[[str], None]


def _nothing(url: str) -> None:
    """Prepares nothing."""


class Bench:
    """One export file and a server."""

    def __init__(self, embedded: EmbeddedServer, export: Path, place: Path) -> None:
        self._embedded = embedded
        self.export = export
        self.file = export / "Post_export.csv"
        self.place = place
        with self.file.open(newline="", encoding="utf-8") as stream:
            self.columns = next(csv.reader(stream))

    def measure(self, table: sql.Identifier, work: Callable[[str], float], prepare: Callable[[str], None]) -> Took:
        """Lets something load the file into a table of a database; `work` is given the URL, and returns its processor seconds."""
        url = fresh_database(self._embedded, "staging")
        prepare(url)
        before, begun = server_cpu(self._embedded), time.monotonic()
        ours = work(url)
        seconds = time.monotonic() - begun
        servers = server_cpu(self._embedded) - before
        with psycopg.connect(url) as conn:
            row = conn.execute(sql.SQL("select count(*) from {}").format(table)).fetchone()
        return Took(seconds, ours, servers, row[0] if row else 0)

    def make_table(self, url: str) -> None:
        """Makes a table of text columns for the file."""
        columns = sql.SQL(", ").join(sql.SQL("{} text").format(sql.Identifier(name)) for name in self.columns)
        with psycopg.connect(url) as conn:
            conn.execute(sql.SQL("create unlogged table source ({})").format(columns))

    @cached_property
    def catalog(self) -> Catalog:
        """The files of `sql/`, which a run reads once, whatever it stages."""
        return load_catalog(Settings.load().sql_dir)

    def make_migration_tables(self, url: str) -> None:
        """Makes what staging stands on."""
        for spec in self.catalog.of(Kind.RUNTIME):
            apply(Session(url=url, catalog=self.catalog), spec)

    def copy(self, url: str) -> float:
        """Copies the file as a person would."""
        copy = f"\\copy source from '{self.file}' (format csv, header)"
        return run([self._embedded.bin_dir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-c", copy, url]).cpu_seconds

    def stage(self, url: str) -> float:
        """Stages the file in this process."""
        session = Session(url=url, catalog=self.catalog)
        begun = time.process_time()
        stage_export(session, self.catalog.mappings["posts"], self.export)
        return time.process_time() - begun

    def sling(self, program: Path, url: str) -> float:
        """Runs Sling."""
        command = [program, "run", "--src-stream", f"file://{self.file}", "--tgt-conn", "TARGET"]
        command += ["--tgt-object", "public.source", "--mode", "full-refresh", "--tgt-options", "{use_bulk: true}"]
        command += ["--columns", json.dumps(dict.fromkeys(self.columns, "text"))]
        quiet = {"SLING_LOGGING": "NO_COLOR", "SLING_HOME_DIR": str(self.place / "sling"), "TARGET": _for_sling(url)}
        return run(command, env=quiet).cpu_seconds

    def dlt(self, python: Path, url: str) -> float:
        """Runs dlt."""
        script = self.place / "by_dlt.py"
        script.write_text(_DLT)
        quiet = {"RUNTIME__DLTHUB_TELEMETRY": "false", "DATA_WRITER__DISABLE_COMPRESSION": "true"}
        given = [self.file, _with_host(url), ",".join(self.columns), self.place / "dlt"]
        return run([python, script, *given], env=quiet, cwd=self.place).cpu_seconds

    def pgloader(self, program: Path, url: str) -> float:
        """Runs pgloader, which reads its settings from a file."""
        folder, port, database = _socket(url)
        target = f"postgresql://postgres@unix:{folder}:{port}/{database}?source"
        names = ", ".join(f'"{name}"' for name in self.columns)
        settings = self.place / "by_pgloader.load"
        settings.write_text(
            f"LOAD CSV FROM '{self.file}' ({names}) INTO {target} ({names})\n"
            "WITH skip header = 1, fields terminated by ',', fields optionally enclosed by '\"',\n"
            "  fields escaped by double-quote, workers = 4, concurrency = 2, prefetch rows = 25000;\n"
        )
        return run([program, "--quiet", "--root-dir", self.place / "pgloader", settings]).cpu_seconds


def _socket(url: str) -> tuple[str, str, str]:
    """Folder of the socket, port and database of a URL."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    return query["host"][0], query["port"][0], parts.path.removeprefix("/")


def _with_host(url: str) -> str:
    """The URL with the socket's folder in the place of a host."""
    folder, port, database = _socket(url)
    return f"postgresql://postgres:unused@{quote(folder, safe='')}:{port}/{database}?sslmode=disable"


def _for_sling(url: str) -> str:
    """The URL as a connection of Sling's, which takes the socket's folder among the properties only."""
    folder, port, database = _socket(url)
    known = {"type": "postgres", "host": "localhost", "user": "postgres", "database": database, "sslmode": "disable"}
    return json.dumps({**known, "url": f"postgresql://postgres@/{database}?host={folder}&port={port}&sslmode=disable"})


def measure(options: argparse.Namespace, place: Path) -> dict[str, Took]:
    """Loads the file by each of them; of several runs the quickest counts."""
    export = place / "export"
    if not export.exists():
        write_sample(
            export, users=options.posts // 100 + 1, posts=options.posts, seed=5, dialect="2026-06", truth=False
        )
    found: dict[str, Took] = {}
    source, staged = sql.Identifier("public", "source"), sql.Identifier("base44", "posts")
    with server(place / "home") as embedded:
        bench = Bench(embedded, export, place)
        ways = [
            Way(COPY, source, bench.copy, bench.make_table),
            Way("Sling", source, partial(bench.sling, options.sling), _nothing),
            Way("dlt", sql.Identifier("dlt", "posts"), partial(bench.dlt, options.dlt), _nothing),
            Way("pgloader", source, partial(bench.pgloader, options.pgloader), bench.make_table),
            Way(OURS, staged, bench.stage, bench.make_migration_tables),
        ]
        left_out = {name for name in _NEEDED if getattr(options, name) is None}
        for name in sorted(left_out):
            print(f"staging: {name} is left out: there is no {_NEEDED[name]}; --{name} names one", file=sys.stderr)
        for _ in range(options.runs):
            for way in ways:
                if way.name.lower() not in left_out:
                    took = bench.measure(way.table, way.work, way.prepare)
                    found[way.name] = min(found.get(way.name, took), took)
    return found


def add_programs(parser: argparse.ArgumentParser, beginning: str = "") -> None:
    """Adds the options that name the other programs; by default those on the path, and for dlt this interpreter if it has it."""
    has_dlt = find_spec("dlt") is not None and find_spec("pyarrow") is not None
    defaults = {"sling": which("sling"), "dlt": sys.executable if has_dlt else None, "pgloader": which("pgloader")}
    for name, needed in _NEEDED.items():
        found = defaults[name]
        parser.add_argument(
            f"--{name}", type=Path, metavar="PATH", default=found and Path(found), help=f"{beginning}the {needed}"
        )


def report(found: dict[str, Took], size: int) -> None:
    """Prints the figures as a table."""
    heads = ("seconds", "of COPY", "client's CPU s", "server's CPU s", "rows", "MB/s")
    table = Table("loaded by", *(Column(name, justify="right") for name in heads))
    for name, took in found.items():
        ratio = took.seconds / found[COPY].seconds
        cells = (f"{took.seconds:.2f}", f"{ratio:.2f}", f"{took.ours:.2f}", f"{took.servers:.2f}")
        table.add_row(name, *cells, f"{took.rows:,}", f"{size / 1e6 / took.seconds:.0f}")
    console = Console(highlight=False)
    console.print(f"{size / 1e6:.0f} MB; {load()}")
    console.print(table)


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=125_000)
    parser.add_argument("--runs", type=int, default=2, help="times that each loads the file; the quickest counts")
    add_programs(parser)
    parser.add_argument("--keep", type=Path, help="folder for the server and the export, kept and used again")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with workplace(options.keep) as place:
            found = measure(options, place)
            size = (place / "export" / "Post_export.csv").stat().st_size
    except (B44Error, BenchmarkError) as error:
        raise SystemExit(f"staging: {error}") from error
    if options.json:
        print(json.dumps({name: took._asdict() for name, took in found.items()}))
    else:
        report(found, size)


if __name__ == "__main__":
    main()
