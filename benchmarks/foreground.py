"""An application in use on the same server while further posts are migrated: how much slower it answers, and to what.

    python benchmarks/foreground.py --posts 100000 --further 100000

Clients read and write posts at a steady rate, as people do, not as fast as they can. They are timed while nothing else
goes on, then during a `b44 migrate` of a newer export with further posts, once at full speed and once with
`B44_THROTTLE=on`, each on a copy of the same database, then while nothing else goes on once more. What counts is the ratio
of each p99 to that of the quiet times before and behind it together: between these alone, disk and machine differ by a quarter
and more. A statement is timed from when it was due, so that one which comes late because of the one before counts as slow.

The second table tells the same apart by what the migration had running in the server at that moment.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import threading
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
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
from benchmarks.measuring import MIB, BenchmarkError, Shop, fresh_database, load, run, server, workplace

B44 = (sys.executable, "-c", "from b44_assets.cli import main; main()")
BASE = "base"
WARM_UP_SECONDS = 3.0
TIDYING_SECONDS = 60.0
"""How long what a migration has written is still tidied up, by autovacuum and the disk."""
SHOWN_SHARE = 0.01
"""Steps that lasted for less of the time are shown as one."""
_LOOK_SECONDS = 0.05
_STEPS = """
    select coalesce(string_agg(distinct substr(application_name, 5), ' + '), '')
      from pg_stat_activity
     where datname = current_database() and application_name like 'b44 %' and state = 'active'
       and wait_event is distinct from 'PgSleep'
"""


@dataclass
class Traffic:
    """What the clients met with; moments are of the machine's monotonic clock.

    Attributes:
        answers: When a statement was due, and the seconds until it was answered.
        steps: From when on the migration had what running in the server.
        failures: What the server had against a statement.
    """

    answers: list[tuple[float, float]] = field(default_factory=list[tuple[float, float]])
    steps: list[tuple[float, str]] = field(default_factory=list[tuple[float, str]])
    failures: list[str] = field(default_factory=list[str])


def main(arguments: Sequence[str] | None = None) -> int:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--posts", type=int, default=100_000, help="posts that are there before")
    parser.add_argument("--further", type=int, default=100_000, help="posts that are migrated meanwhile")
    parser.add_argument("--users", type=int, default=2_000)
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--rate", type=float, default=100, help="statements a second of all clients together")
    parser.add_argument("--quiet", type=float, default=60, metavar="SECONDS", help="how long each quiet time is")
    parser.add_argument("--only", choices=("off", "on"), help="measure with the throttle so, and not otherwise")
    parser.add_argument("--keep", type=Path, metavar="DIR", help="keep server and exports here, and use them again")
    parser.add_argument("--json", action="store_true", help="print one JSON object and nothing else")
    parser.add_argument("--traffic", metavar="URL", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.traffic:
        serve(options.traffic, options.clients, options.rate)
        return 0
    try:
        with workplace(options.keep) as place:
            facts = measure(options, place)
    except B44Error as error:
        print(f"foreground: {error}", file=sys.stderr)
        return error.exit_status
    if options.json:
        print(json.dumps(facts))
    else:
        report(facts)
    return 1 if any(phase["failures"] for phase in facts["phases"]) else 0


# -- the clients, a process of their own -------------------------------------------------------------------------------


def serve(url: str, clients: int, rate: float) -> None:
    """Is the clients until standard input ends, then prints what they met with."""
    # They stand for machines of their own, which do not compete with the migration for a processor.
    with suppress(OSError):
        os.nice(-10)
    traffic, done = Traffic(), threading.Event()
    threads = [
        threading.Thread(target=client, args=(url, traffic, done, number, clients / rate, number / rate))
        for number in range(clients)
    ]
    threads.append(threading.Thread(target=watch, args=(url, traffic, done)))
    for thread in threads:
        thread.start()
    sys.stdin.read()
    done.set()
    for thread in threads:
        thread.join()
    json.dump(asdict(traffic), sys.stdout)


def client(url: str, traffic: Traffic, done: threading.Event, number: int, interval: float, offset: float) -> None:
    """A statement each interval, in seconds; if one takes longer, the next ones follow at once."""
    with Shop(url, number) as shop:
        due = time.monotonic() + offset
        while not done.wait(max(0.0, due - time.monotonic())):
            _, failure = shop.act()
            traffic.answers.append((due, time.monotonic() - due))
            if failure is not None:
                traffic.failures.append(failure)
            due += interval


def watch(url: str, traffic: Traffic, done: threading.Event) -> None:
    """Notes what the migration has running, each time that it changes."""
    with psycopg.connect(url, autocommit=True, application_name="watch") as conn:
        while not done.wait(_LOOK_SECONDS):
            row = conn.execute(_STEPS).fetchone()
            step = row[0] if row else ""
            if not traffic.steps or traffic.steps[-1][1] != step:
                traffic.steps.append((time.monotonic(), step))


@contextmanager
def traffic_on(url: str, options: argparse.Namespace) -> Generator[Callable[[], Traffic]]:
    """The clients, at it for the block; the value ends them and returns what they met with."""
    command = [sys.executable, __file__, "--traffic", url]
    command += ["--clients", str(options.clients), "--rate", str(options.rate)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def end() -> Traffic:
        output, _ = process.communicate()
        if process.returncode:
            raise BenchmarkError(f"the clients ended with status {process.returncode}")
        found = json.loads(output)
        return Traffic(
            [tuple(pair) for pair in found["answers"]], [tuple(s) for s in found["steps"]], found["failures"]
        )

    try:
        yield end
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()


# -- the phases --------------------------------------------------------------------------------------------------------


def measure(options: argparse.Namespace, place: Path) -> dict[str, Any]:
    """Migrates what is there before, then times the phases on copies of it."""
    before, after = place / f"export-{options.posts}", place / f"export-{options.posts}-{options.further}"
    for export, posts in ((before, options.posts), (after, options.posts + options.further)):
        if not export.exists():
            # The larger sample holds the smaller one.
            write_sample(export, users=options.users, posts=posts, seed=5, dialect="2026-06", truth=False)
    facts: dict[str, Any] = {name: getattr(options, name) for name in ("posts", "further", "clients", "rate")}
    facts["phases"] = []
    with server(place / "home") as embedded:
        # The application fills the month that it is in, whether or not the export has it.
        base_url = fresh_database(embedded, BASE)
        environment = {"B44_HOME": str(place / "home"), "B44_DATABASE_URL": base_url}
        run([*B44, "migrate", "--export", before, "--json"], env=environment)
        with psycopg.connect(base_url, autocommit=True) as conn:
            conn.execute("select create_monthly_partition(current_date)")
            conn.execute("vacuum analyze")
        for throttle in ("off", "on"):
            if options.only in (None, throttle):
                url = embedded.url(copied(embedded.url("postgres"), f"throttle_{throttle}"))
                environment |= {"B44_DATABASE_URL": url, "B44_THROTTLE": throttle}
                facts["phases"].append({"throttle": throttle} | phase(url, options, after, environment))
    facts["machine"] = load()
    return facts


def copied(server_url: str, name: str) -> str:
    """Makes a copy of what was there before, in place of one of that name; its name."""
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
        conn.execute(sql.SQL("create database {} template {}").format(sql.Identifier(name), sql.Identifier(BASE)))
        conn.execute("checkpoint")
    return name


def phase(url: str, options: argparse.Namespace, export: Path, environment: dict[str, str]) -> dict[str, Any]:
    """The clients alone, then during a migration."""
    with traffic_on(url, options) as end:
        time.sleep(WARM_UP_SECONDS)
        quiet_from = time.monotonic()
        time.sleep(options.quiet)
        began = time.monotonic()
        ran = run([*B44, "migrate", "--export", export, "--json"], env=environment)
        ended = time.monotonic()
        time.sleep(TIDYING_SECONDS)
        quiet_again_from = time.monotonic()
        time.sleep(options.quiet)
        traffic = end()
    result = json.loads(ran.output)
    before = latencies(traffic, quiet_from, began)
    behind = latencies(traffic, quiet_again_from, float("inf"))
    quiet = sorted(before + behind)
    times = {"before": before, "during": latencies(traffic, began, ended), "behind": behind, "quiet": quiet}
    return {
        **{
            name: summary(answers) | {"p99_ratio": round(percentile(answers, 99) / percentile(quiet, 99), 3)}
            for name, answers in times.items()
        },
        "seconds": ran.seconds,
        "cpu_seconds": ran.cpu_seconds,
        "peak_rss": ran.peak_rss,
        "migrated": result["entities"]["posts"]["migrated"],
        "checks": result["checks"],
        "steps": by_step(traffic, began, ended),
        "failures": traffic.failures[:10],
    }


def latencies(traffic: Traffic, start: float, end: float) -> list[float]:
    """Seconds of the statements due within a time, in ascending order."""
    return sorted(seconds for due, seconds in traffic.answers if start <= due < end)


def percentile(ascending: Sequence[float], percent: int) -> float:
    """The value that so many percent do not exceed."""
    if not ascending:
        raise BenchmarkError("no statement was answered in that time")
    return ascending[min(len(ascending) - 1, len(ascending) * percent // 100)]


def summary(ascending: Sequence[float]) -> dict[str, float]:
    """The figures of a phase; milliseconds."""
    figures = {f"p{p}_ms": round(percentile(ascending, p) * 1000, 2) for p in (50, 95, 99)}
    return {"statements": len(ascending), **figures, "worst_ms": round(ascending[-1] * 1000, 1)}


def by_step(traffic: Traffic, began: float, ended: float) -> list[dict[str, Any]]:
    """The figures by what the migration had running when a statement was due; the longest first."""
    moments = [moment for moment, _ in traffic.steps]
    lasted: dict[str, float] = {}
    for (start, step), end in zip(traffic.steps, [*moments[1:], ended], strict=True):
        lasted[step] = lasted.get(step, 0.0) + max(0.0, min(end, ended) - max(start, began))
    others = {step: seconds for step, seconds in lasted.items() if seconds < SHOWN_SHARE * (ended - began)}
    shown = {step: seconds for step, seconds in lasted.items() if step not in others}
    found: dict[str, list[float]] = {}
    for due, seconds in traffic.answers:
        if began <= due < ended:
            place = bisect_right(moments, due) - 1
            step = traffic.steps[place][1] if place >= 0 else ""
            found.setdefault(step if step in shown else "others", []).append(seconds)
    shown["others"] = sum(others.values())
    rows = [
        {"step": step or "nothing in the server", "seconds": round(shown[step], 1), **summary(sorted(answers))}
        for step, answers in found.items()
    ]
    return sorted(rows, key=lambda row: -row["seconds"])


# -- the report --------------------------------------------------------------------------------------------------------


def report(facts: dict[str, Any]) -> None:
    """Prints the figures as tables."""
    console = Console(highlight=False, width=120)
    figures = ("p50_ms", "p95_ms", "p99_ms", "worst_ms")
    names = [name.replace("_", " ") for name in figures]
    table = Table("phase", *(Column(name, justify="right") for name in ("seconds", *names, "p99 / quiet")))
    for entry in facts["phases"]:
        shown = {
            "before": ("quiet before", ""),
            "during": (f"migrate, throttle {entry['throttle']}", f"{entry['seconds']:.1f}"),
            "behind": ("quiet behind", ""),
            "quiet": ("quiet, both", ""),
        }
        for which, titles in shown.items():
            figure = entry[which]
            table.add_row(*titles, *(f"{figure[name]:.1f}" for name in figures), f"{figure['p99_ratio']:.2f}")
    console.print(table)
    for entry in facts["phases"]:
        steps = Table(
            f"throttle {entry['throttle']}: while this runs",
            *(Column(name, justify="right") for name in ("seconds", "statements", *names)),
        )
        for row in entry["steps"]:
            steps.add_row(
                row["step"], f"{row['seconds']:.1f}", f"{row['statements']:,}", *(f"{row[n]:.1f}" for n in figures)
            )
        console.print(steps)
        console.print(
            f"{entry['migrated']:,} posts migrated, {entry['cpu_seconds']:.1f} s of processor and"
            f" {entry['peak_rss'] / MIB:.0f} MiB in our processes, checks: {entry['checks']}"
        )
        for failure in entry["failures"]:
            console.print(failure, markup=False)
    console.print(
        f"{facts['posts']:,} posts and {facts['further']:,} further, {facts['clients']} clients,"
        f" {facts['rate']:g} statements a second, {facts['machine']}"
    )


if __name__ == "__main__":
    sys.exit(main())
