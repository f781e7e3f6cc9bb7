"""Changes the schema under traffic: how long the application waits at worst, and how many of its statements fail.

    python benchmarks/online_schema.py --posts 100000

Clients read and write posts without a pause against a scratch server, first alone (the yardstick), then while the whole
schema is applied anew, an index group and constraints are added, and rows are drained out of the default partition. What
counts is that no statement fails, and the longest wait of any for a lock of ours; the longest statement, which also waits
for the processor and the disk, stands beside it.
"""

from __future__ import annotations

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psycopg
from measuring import Shop, load, server, timed, workplace
from rich.console import Console
from rich.table import Column, Table

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.sample import write_sample
from b44_assets.schema.build import build
from b44_assets.schema.constraints import apply_constraints
from b44_assets.schema.indexes import apply_indexes
from b44_assets.schema.partitions import drain_default
from b44_assets.session import Session


@dataclass
class Traffic:
    """What clients met with: seconds of each statement by name, of each wait for a lock of ours, and what failed."""

    waits: dict[str, list[float]] = field(default_factory=dict[str, list[float]])
    locks: dict[tuple[int, str], float] = field(default_factory=dict[tuple[int, str], float])
    failures: list[str] = field(default_factory=list[str])


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description="Changes the schema under traffic.")
    parser.add_argument("--posts", type=int, default=100_000)
    parser.add_argument("--users", type=int, default=1_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--drained", type=int, default=100_000, metavar="N", help="rows in the default partition")
    parser.add_argument("--home", type=Path, metavar="DIR", help="keep the scratch server's files here")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    options = parser.parse_args(arguments)
    try:
        with workplace(options.home) as place, server(place) as embedded:
            facts = measure(embedded.url("b44"), options)
    except B44Error as error:
        print(f"online_schema: {error}", file=sys.stderr)
        return error.exit_status
    if options.json:
        print(json.dumps(facts))
    else:
        report(facts)
    return 1 if any(phase["failures"] for phase in facts["phases"].values()) else 0


def measure(url: str, options: argparse.Namespace) -> dict[str, Any]:
    """Loads a sample, builds its schema, then times the phases."""
    catalog = load_catalog(Settings.load().sql_dir)
    session = Session(url=url, catalog=catalog)
    with tempfile.TemporaryDirectory() as folder:
        export = Path(folder)
        write_sample(export, users=options.users, posts=options.posts, seed=1, dialect="jsonl")
        prepare(session, catalog, export)
    build_all(session, catalog)
    search = next(spec for spec in catalog.of(Kind.INDEX) if spec.name == "posts_search_indexes")
    composite = next(spec for spec in catalog.of(Kind.INDEX) if spec.name == "posts_composite_indexes")
    constraints = next(spec for spec in catalog.of(Kind.CONSTRAINT) if spec.name == "posts_constraints")

    def rebuild_indexes() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("drop index idx_posts_title_search")
        apply_indexes(session, search)

    def add_constraints() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("alter table posts drop constraint fk_posts_user_id, drop constraint chk_posts_title_length")
        apply_constraints(session, constraints)

    def add_index_group() -> None:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute("drop index idx_posts_user_created, idx_posts_user_published_state")
        apply_indexes(session, composite)

    def drain() -> None:
        drained = drain_default(session, "posts")
        assert drained.rows == options.drained and not drained.left, drained

    fill_default(url, options.drained)
    phases: dict[str, Callable[[], None]] = {
        "nothing (yardstick)": lambda: time.sleep(10),
        "the whole schema applied anew": lambda: build_all(session, catalog),
        "an index group added": add_index_group,
        "a full-text index built": rebuild_indexes,
        "a foreign key and a check added": add_constraints,
        f"{options.drained:,} rows drained": drain,
    }
    return {
        "phases": {name: phase(url, options.clients, work) for name, work in phases.items()},
        "posts": options.posts,
        "clients": options.clients,
        "machine": load(),
    }


def prepare(session: Session, catalog: Catalog, export: Path) -> None:
    """Functions, migration tables, and tables with their records."""
    for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
        build(session, spec)
    for mapping in catalog.mappings.values():
        stage_export(session, mapping, export)
        load_table(session, mapping)


def fill_default(url: str, rows: int) -> None:
    """Posts of a month far ahead, which has no partition."""
    with psycopg.connect(url, autocommit=True) as conn:
        # What the clients write has its partition.
        conn.execute("select create_monthly_partition(current_date)")
        conn.execute(
            """
            insert into posts (user_id, created_by, title, content, created_at)
            select u.id, u.id, 'Post ' || i, repeat(md5(i::text) || ' ', 30), timestamptz '2040-03-01 00:00+00' + i * interval '20 s'
              from generate_series(1, %s) i
              join (select id, row_number() over () as n, count(*) over () as users from users) u on u.n = 1 + i %% u.users
            """,
            (rows,),
        )
        conn.execute("vacuum analyze posts")


def build_all(session: Session, catalog: Catalog) -> None:
    """Everything but the records."""
    for spec in catalog.specs:
        # The default partition of posts is drained by itself.
        drained = spec.kind is Kind.PARTITION and spec.options["on"] == "posts"
        if not drained and spec.kind not in (Kind.MAPPING, Kind.QUERY):
            build(session, spec)


def phase(url: str, clients: int, work: Callable[[], None]) -> dict[str, Any]:
    """Does something while clients are at it; returns what they met with."""
    traffic, done = Traffic(), threading.Event()
    threads = [threading.Thread(target=client, args=(url, traffic, done, n), daemon=True) for n in range(clients)]
    threads.append(threading.Thread(target=watch, args=(url, traffic, done), daemon=True))
    for thread in threads:
        thread.start()
    try:
        seconds, _ = timed(work)
    finally:
        done.set()
        for thread in threads:
            thread.join()
    every = sorted(wait for waits in traffic.waits.values() for wait in waits)
    return {
        "seconds": round(seconds, 2),
        "statements": len(every),
        "median_ms": round(every[len(every) // 2] * 1000, 2),
        "p99_ms": round(every[len(every) * 99 // 100] * 1000, 2),
        "worst_ms": round(every[-1] * 1000, 1),
        "worst_lock_wait_ms": round(max(traffic.locks.values(), default=0) * 1000, 1),
        "worst_by_statement_ms": {name: round(max(waits) * 1000, 1) for name, waits in traffic.waits.items()},
        "failures": traffic.failures[:10],
    }


def client(url: str, traffic: Traffic, done: threading.Event, number: int) -> None:
    with Shop(url, number) as shop:
        while not done.is_set():
            started = time.monotonic()
            name, failure = shop.act()
            traffic.waits.setdefault(name, []).append(time.monotonic() - started)
            if failure is not None:
                traffic.failures.append(failure)


def watch(url: str, traffic: Traffic, done: threading.Event) -> None:
    """Looks every few milliseconds who waits for a lock that we hold or queue for, and since when."""
    with psycopg.connect(url, autocommit=True, application_name="watch") as conn:
        while not done.wait(0.01):
            rows = conn.execute(
                """
                select l.pid, l.waitstart::text, extract(epoch from clock_timestamp() - l.waitstart)::float8
                  from pg_locks l join pg_stat_activity a using (pid)
                 where not l.granted and l.waitstart is not null and a.application_name like 'shop%'
                   and exists (select from unnest(pg_blocking_pids(l.pid)) b join pg_stat_activity o on o.pid = b
                                where o.application_name like 'b44%')
                """
            ).fetchall()
            for pid, since, seconds in rows:
                traffic.locks[pid, since] = max(seconds, traffic.locks.get((pid, since), 0))


def report(facts: dict[str, Any]) -> None:
    table = Table(
        Column("meanwhile", no_wrap=True),
        *(
            Column(n, justify="right")
            for n in ("seconds", "statements", "median", "p99", "worst", "worst lock", "failed")
        ),
    )
    for name, entry in facts["phases"].items():
        table.add_row(
            name,
            f"{entry['seconds']:.1f}",
            f"{entry['statements']:,}",
            f"{entry['median_ms']:.1f} ms",
            f"{entry['p99_ms']:.1f} ms",
            f"{entry['worst_ms']:.0f} ms",
            f"{entry['worst_lock_wait_ms']:.0f} ms",
            str(len(entry["failures"])),
        )
    console = Console(highlight=False, width=120)
    console.print(table)
    for entry in facts["phases"].values():
        for failure in entry["failures"]:
            console.print(failure)
    console.print(f"{facts['posts']:,} posts, {facts['clients']} clients, {facts['machine']}")


if __name__ == "__main__":
    sys.exit(main())
