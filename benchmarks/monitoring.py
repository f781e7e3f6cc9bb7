"""What monitoring costs at its default interval: processor seconds of client and server, as a share of one processor.

    python benchmarks/monitoring.py --tables 60 --partitions 60

The round is measured alone, over one connection, and as the run that the schedule starts: a process that imports Dagster, loads the
definitions and keeps its events. Meanwhile a table is locked, and it is looked whether a session of ours ever waits for a lock.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import threading
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Column, Table

sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring import MEASUREMENTS, Earlier, Interval, monitoring
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.session import Session
from benchmarks.measuring import fresh_database, load, run, server, server_cpu, workplace

INTERVALS = {Interval.ROUND: 15 * 60.0, Interval.DAILY: 24 * 3600.0}
_SAMPLE_SECONDS = 0.002


def fill(url: str, tables: int, partitions: int) -> None:
    """Makes tables by month, each with three indexes a partition."""
    with psycopg.connect(url, autocommit=True) as conn:
        for number in range(tables):
            name = f"ledger_{number}"
            conn.execute(
                sql.SQL("create table {} (id bigint, at int, remark text) partition by range (at)").format(
                    sql.Identifier(name)
                )
            )
            for column in ("id", "at", "remark"):
                conn.execute(sql.SQL("create index on {} ({})").format(sql.Identifier(name), sql.Identifier(column)))
            for month in range(partitions):
                conn.execute(
                    sql.SQL("create table {} partition of {} for values from ({}) to ({})").format(
                        sql.Identifier(f"{name}_{month}"), sql.Identifier(name), month, month + 1
                    )
                )
        conn.execute("vacuum analyze")


class Waits(threading.Thread):
    """Looks, every few milliseconds, whether a session of ours waits for a lock."""

    def __init__(self, url: str) -> None:
        super().__init__(name="waits", daemon=True)
        self._conn = psycopg.connect(url, autocommit=True)
        self._ended = threading.Event()
        self.looks = self.seen = 0

    def run(self) -> None:
        while not self._ended.wait(_SAMPLE_SECONDS):
            row = self._conn.execute(
                "select count(*) from pg_locks l join pg_stat_activity a using (pid)"
                " where not l.granted and a.application_name like 'b44%'"
            ).fetchone()
            self.looks += 1
            self.seen += row[0] if row is not None else 0

    def stop(self) -> None:
        self._ended.set()
        self.join()
        self._conn.close()


@contextmanager
def locked(url: str, tables: int) -> Generator[None]:
    """Some tables are locked against everybody."""
    with psycopg.connect(url) as conn:
        if tables:
            conn.execute("lock table ledger_0 in access exclusive mode")
        yield
        conn.rollback()


def rounds(
    url: str, settings: Settings, embedded: EmbeddedServer, interval: Interval, number: int
) -> tuple[float, float]:
    """Processor seconds of client and server for one round, of many in a row."""
    session = Session(url, load_catalog(settings.sql_dir))
    before: dict[str, Earlier] = {}
    mine, servers = time.process_time(), server_cpu(embedded)
    for _ in range(number):
        with session.keeping() as keeping:
            for one in MEASUREMENTS:
                if one.interval is not interval:
                    continue
                with monitoring(keeping, settings) as monitor:
                    reading = monitor.take(one, before.get(one.name))
                    before[one.name] = Earlier(reading.at, reading.numbers)
    return (time.process_time() - mine) / number, (server_cpu(embedded) - servers) / number


def main() -> None:
    """Measures and prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--tables", type=int, default=20)
    parser.add_argument("--partitions", type=int, default=60, help="of each table")
    parser.add_argument("--rounds", type=int, default=20)
    parser.add_argument("--runs", type=int, default=3, help="of the job, each in a process of its own")
    parser.add_argument("--keep", type=Path, help="where server and files go, and stay")
    arguments = parser.parse_args()
    shown = Table(
        *(
            Column(name, justify="right")
            for name in ("interval", "what", "client s", "server s", "share of one processor")
        )
    )

    def line(interval: Interval, what: str, client: float, servers: float) -> None:
        share = (client + servers) / INTERVALS[interval]
        shown.add_row(f"{INTERVALS[interval]:,.0f} s", what, f"{client:.3f}", f"{servers:.3f}", f"{share:.3%}")

    with workplace(arguments.keep) as place, server(place / "home") as embedded:
        url = fresh_database(embedded, "watched")
        fill(url, arguments.tables, arguments.partitions)
        settings = Settings.load({"B44_DATABASE_URL": url, "B44_HOME": str(place / "home")}, place)
        for interval in INTERVALS:
            # The server's own processes go on meanwhile; what they take is no cost of ours.
            line(interval, "one round", *rounds(url, settings, embedded, interval, arguments.rounds))
        environment = {
            "B44_DATABASE_URL": url,
            "B44_HOME": str(place / "home"),
            "DAGSTER_HOME": str(place / "dagster"),
            "DAGSTER_DISABLE_TELEMETRY": "1",
        }
        (place / "dagster").mkdir(exist_ok=True)
        (place / "dagster" / "dagster.yaml").write_text("telemetry:\n  enabled: false\n")
        for interval in INTERVALS:
            command = (
                sys.executable,
                "-m",
                "dagster",
                "job",
                "execute",
                "-m",
                "b44_assets.definitions",
                "-j",
                interval.value,
            )
            clients: list[float] = []
            servers: list[float] = []
            for _ in range(arguments.runs):
                begun = server_cpu(embedded)
                clients.append(run(command, env=environment).cpu_seconds)
                servers.append(server_cpu(embedded) - begun)
            line(interval, "the run that the schedule starts", statistics.median(clients), statistics.median(servers))
        waits = Waits(url)
        waits.start()
        with locked(url, arguments.tables):
            for interval in INTERVALS:
                rounds(url, settings, embedded, interval, 3)
        waits.stop()
    console = Console()
    console.print(shown)
    console.print(
        f"sessions of ours that waited for a lock, a table being locked: {waits.seen} in {waits.looks:,} looks"
    )
    console.print(load())


if __name__ == "__main__":
    main()
