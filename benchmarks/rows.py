"""The rows of the table that `python -m benchmarks` prints: what is measured, against what, and what it should come to."""

from __future__ import annotations

import argparse
import csv
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import pairwise
from pathlib import Path
from typing import Any
from urllib.request import urlopen

import psycopg

from b44_assets.migration.html import sanitize
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.sample import write_sample
from benchmarks import many_tables, migrate, staging
from benchmarks.many_tables import B44, Bench, Took
from benchmarks.measuring import MIB, BenchmarkError, fresh_database, run, server, surroundings, timed

_FIRST_PAGE_WITHIN_SECONDS = 120


@dataclass(frozen=True)
class Row:
    """A line of the table.

    Attributes:
        what: What was measured.
        value: What came of it, in the unit.
        unit: `s`, `MiB`, `ms`, or nothing for what is a ratio itself.
        against: What it is compared with; empty where with nothing.
        ratio: Value by that of what it is compared with.
        goal: What value or ratio should be at most; None where nothing is asked.
        of_ratio: Whether the goal is about the ratio.
    """

    what: str
    value: float
    unit: str = "s"
    against: str = ""
    ratio: float | None = None
    goal: float | None = None
    of_ratio: bool = False

    @property
    def missed(self) -> bool:
        """Whether it is more than it should be."""
        judged = self.ratio if self.of_ratio else self.value
        return self.goal is not None and judged is not None and judged > self.goal


def small_tables(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Many small tables against a psql script of the same end state, what each further one costs, and whether that grows."""
    goals = {66: 8.0, 179: 20.0}
    took: dict[int, dict[str, Took]] = {}
    with _ready(place) as (bench, _):
        for tables in sorted(options.tables):
            took[tables] = found = many_tables.many_tables(bench, place, tables, options.records)
            by_hand = found[f"{tables} tables by hand"].seconds
            name = f"{tables} tables"
            first = found[name].seconds
            yield Row(name, first, against="psql script", ratio=first / by_hand, goal=goals.get(tables))
            again = found[f"{name}, nothing to do"].seconds
            yield Row(f"{name}, nothing to do", again, against="the first", ratio=again / first)
    sizes = sorted(took)
    slopes = [
        (took[many][f"{many} tables"].seconds - took[few][f"{few} tables"].seconds) / (many - few)
        for few, many in pairwise(sizes)
    ]
    if slopes:
        few, many = sizes[0], sizes[-1]
        each = (took[many][f"{many} tables"].seconds - took[few][f"{few} tables"].seconds) / (many - few)
        by_hand = (took[many][f"{many} tables by hand"].seconds - took[few][f"{few} tables by hand"].seconds) / (
            many - few
        )
        yield Row("each further table", each * 1000, "ms", "psql script", each / by_hand)
    if len(slopes) > 1:
        yield Row("growth: 1 is linear", slopes[-1] / slopes[0], "", "further tables of the smaller apps")


def first_minutes(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """The bundled sample cold and warm, the commands that only look, and `b44 dev` until its first page is there."""
    del options
    sample = _sample(place, 20, 120)
    # Where a package was installed, its modules are compiled.
    with _ready(place):
        pass
    home = place / "cold"
    # With everything there is to set up: the server, Dagster's storage, the database.
    cold = run([*B44, "migrate", "--export", sample, "--json"], env={"B44_HOME": str(home)})
    yield Row("sample, cold", cold.seconds, goal=6)
    with server(home) as embedded:
        bench = Bench(embedded, home)
        fresh = {"B44_DATABASE_URL": fresh_database(embedded, "sample")}
        yield Row("sample, server and storage there", bench.migrate(sample, **fresh).seconds, goal=3)
        yield Row("sample, nothing to do", bench.migrate(sample, **fresh).seconds, goal=3)
        yield Row("status", bench.took(*B44, "status", **fresh).seconds)
        yield Row("--help", bench.took(*B44, "--help").seconds)
        yield Row("b44 dev to its first page", _first_page(home))


def _first_page(home: Path) -> float:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [*B44, "dev", "--port", str(port)]
    process = subprocess.Popen(
        command, env=surroundings({"B44_HOME": str(home)}), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    begun = time.monotonic()
    try:
        while time.monotonic() - begun < _FIRST_PAGE_WITHIN_SECONDS:
            try:
                with urlopen(f"http://127.0.0.1:{port}/asset-groups", timeout=5) as answer:
                    if answer.status == 200:
                        return time.monotonic() - begun
            except OSError:
                # Not yet.
                time.sleep(0.05)
            if process.poll() is not None:
                break
        raise BenchmarkError("b44 dev showed no page")
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(60)


def sizes(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Posts against a psql script of the same end state, and against half as many; peak memory; nothing to do."""
    before: dict[int, float] = {}
    for posts in sorted(options.posts):
        facts = migrate.measure(_of_migrate(options, posts=posts), place / f"posts_{posts}")
        once: dict[str, Any] = facts["runs"][0]
        seconds = once["b44_seconds"]
        before[posts] = seconds
        yield Row(f"{posts:,} posts", seconds, against="psql script", ratio=once["ratio"], goal=1, of_ratio=True)
        if posts // 2 in before:
            ratio = seconds / before[posts // 2]
            yield Row(
                f"{posts:,} posts", seconds, against=f"{posts // 2:,} posts", ratio=ratio, goal=2.05, of_ratio=True
            )
        yield Row(f"{posts:,} posts, peak memory", once["b44_peak_rss"] / MIB, "MiB", goal=256)
        yield Row(
            f"{posts:,} posts, nothing to do",
            once["again_shares"][-1] * seconds,
            against="the first",
            ratio=once["again_shares"][-1],
            goal=0.05,
            of_ratio=True,
        )


def stagers(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Staging one file against COPY of it, and against Sling, dlt and pgloader, as far as they are named."""
    given = argparse.Namespace(
        posts=options.one_size, runs=2, sling=options.sling, dlt=options.dlt, pgloader=options.pgloader
    )
    found = staging.measure(given, place)
    copy = found[staging.COPY].seconds
    ours = found[staging.OURS].seconds
    for name, took in found.items():
        if name != staging.COPY:
            yield Row(
                f"{given.posts:,} posts staged by {name}",
                took.seconds,
                against="COPY",
                ratio=took.seconds / copy,
                goal=1.3 if name == staging.OURS else None,
                of_ratio=True,
            )
    others = {name: took.seconds for name, took in found.items() if name not in (staging.COPY, staging.OURS)}
    if others:
        best = min(others, key=others.__getitem__)
        ratio = ours / others[best]
        yield Row(f"{given.posts:,} posts staged by b44", ours, against=best, ratio=ratio, goal=0.5, of_ratio=True)


def bad_records(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Exports with more and more bad records, against one without."""
    with _ready(place) as (bench, embedded):
        none = 0.0
        for share in (0.0, 0.005, 0.1, 0.5):
            export = place / f"bad_{share}"
            write_sample(
                export,
                users=options.one_size // 100 + 1,
                posts=options.one_size,
                seed=5,
                dialect="2026-06",
                faults=share,
                truth=False,
            )
            took = bench.migrate(export, B44_DATABASE_URL=fresh_database(embedded, "bad"))
            none = none or took.seconds
            name = f"{options.one_size:,} posts, {share:.1%} bad records"
            yield Row(
                name,
                took.seconds,
                against="none",
                ratio=took.seconds / none,
                goal=1.1 if share == 0.005 else None,
                of_ratio=True,
            )
            shutil.rmtree(export)


def again(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """The same export once more, and one of whose posts each hundredth has changed, against the first."""
    export, delta = place / "again", place / "delta"
    _export(export, options.one_size)
    edited = {"updated_date": "2026-07-01T10:00:00.000Z", "title": "Another title"}
    _rewrite(export, delta, lambda number, post: post | edited if number % 100 == 0 else post)
    with _ready(place) as (bench, embedded):
        target = {"B44_DATABASE_URL": fresh_database(embedded, "again")}
        first = bench.migrate(export, **target).seconds
        for what, folder, goal in (("nothing to do", export, 0.05), ("1 % changed", delta, None)):
            seconds = bench.migrate(folder, **target).seconds
            name = f"{options.one_size:,} posts, {what}"
            yield Row(name, seconds, against="the first", ratio=seconds / first, goal=goal, of_ratio=True)


def row_by_row(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Posts moved row by row, in batches of 1000 by a function of the server, against `b44 migrate` of the same."""
    export = place / "row_by_row"
    posts = min(options.one_size, 20_000)
    _export(export, posts)
    with _ready(place) as (bench, embedded):
        ours = bench.migrate(export, B44_DATABASE_URL=fresh_database(embedded, "set_based")).seconds
        script = Path(__file__).with_name("by_hand.sql")
        psql = (embedded.bin_dir / "psql", "-X", "-q", "-v", "ON_ERROR_STOP=1", "-v", f"export={export}")
        url = fresh_database(embedded, "row_by_row")
        theirs = bench.took(*psql, "-v", "row_by_row=1", "-f", script, url).seconds
        yield Row(f"{posts:,} posts row by row in the server", theirs, against="b44 migrate", ratio=theirs / ours)


def checks(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Each check, alone and one after the other, as a share of all."""
    export = place / "checks"
    _export(export, options.one_size)
    with _ready(place) as (bench, embedded):
        target = {"B44_DATABASE_URL": fresh_database(embedded, "checks")}
        bench.migrate(export, **target)
        # Throttled, none is asked beside another.
        whole = bench.took(*B44, "verify", "--json", B44_THROTTLE="on", **target).seconds
        yield Row(f"{options.one_size:,} posts, all checks", whole)
        with psycopg.connect(embedded.url("dagster")) as conn:
            events = conn.execute(
                "select extract(epoch from e.timestamp)::float8, c.asset_key, c.check_name from event_logs e"
                " left join asset_check_executions c on c.evaluation_event_storage_id = e.id"
                " where e.run_id = (select run_id from runs order by id desc limit 1)"
                " and e.dagster_event_type in ('STEP_START', 'ASSET_CHECK_EVALUATION') order by e.id"
            ).fetchall()
    found: list[Row] = []
    for (begun, *_), (ended, asset, name) in pairwise(events):
        if name is not None:
            what = f"{'/'.join(json.loads(asset))} {name}"
            found.append(Row(what, ended - begun, against="all checks", ratio=(ended - begun) / whole))
    yield from sorted(found, key=lambda row: -row.value)


def html(options: argparse.Namespace, place: Path) -> Iterator[Row]:
    """Posts of which none, a tenth and all are HTML; and one text of elements that are never closed."""
    export = place / "plain"
    _export(export, options.one_size)
    with _ready(place) as (bench, embedded):
        none = 0.0
        for share in (0, 10, 100):
            folder = place / f"html_{share}"
            _rewrite(export, folder, partial(_as_html, share))
            seconds = bench.migrate(folder, B44_DATABASE_URL=fresh_database(embedded, "html")).seconds
            none = none or seconds
            name = f"{options.one_size:,} posts, {share} % of them HTML"
            yield Row(name, seconds, against="no HTML", ratio=seconds / none)
            shutil.rmtree(folder)
    first = 0.0
    for elements in (1_000, 10_000, 100_000):
        text = "".join(f"<b id={number}><p>" for number in range(elements))
        seconds, _ = timed(lambda text=text: sanitize(text))
        ratio = seconds / first if first else None
        yield Row(
            f"{elements:,} unclosed elements", seconds, against="" if ratio is None else "a tenth of them", ratio=ratio
        )
        first = seconds


def _as_html(share: int, number: int, post: dict[str, str]) -> dict[str, str]:
    text = post["content"].replace("<", " ")
    marked = f"<p>{text}</p><script>alert(1)</script>" if number % 100 < share else text
    return post | {"content": marked}


@contextmanager
def _ready(place: Path) -> Generator[tuple[Bench, EmbeddedServer]]:
    """A server whose storage for Dagster is there, so that nobody's figure has its making in it."""
    home = place / "home"
    with server(home) as embedded:
        bench = Bench(embedded, home)
        bench.migrate(_sample(place, 5, 5), B44_DATABASE_URL=fresh_database(embedded, "warm"))
        yield bench, embedded


def _sample(place: Path, users: int, posts: int) -> Path:
    folder = place / f"sample_{posts}"
    if not folder.exists():
        write_sample(folder, users=users, posts=posts, seed=1, dialect="2026-06", truth=False)
    return folder


def _export(folder: Path, posts: int) -> None:
    if not folder.exists():
        write_sample(folder, users=posts // 100 + 1, posts=posts, seed=5, dialect="2026-06", truth=False)


def _rewrite(export: Path, to: Path, change: Callable[[int, dict[str, str]], dict[str, str]]) -> None:
    """Copies an export with its posts changed, each of which has a number."""
    shutil.copytree(export, to)
    csv.field_size_limit(sys.maxsize)
    file = "Post_export.csv"
    with (export / file).open(newline="", encoding="utf-8") as read, (to / file).open("w", newline="") as written:
        posts = csv.DictReader(read)
        writer = csv.DictWriter(written, posts.fieldnames or (), quoting=csv.QUOTE_ALL)
        writer.writeheader()
        writer.writerows(change(number, post) for number, post in enumerate(posts))


def _of_migrate(options: argparse.Namespace, posts: int) -> argparse.Namespace:
    return argparse.Namespace(posts=posts, users=max(posts // 100, 1), seed=5, faults=0.02, runs=1, again=options.again)


ROWS: dict[str, Callable[[argparse.Namespace, Path], Iterator[Row]]] = {
    "a": small_tables,
    "b": first_minutes,
    "c": sizes,
    "d": stagers,
    "e": bad_records,
    "f": again,
    "g": row_by_row,
    "h": checks,
    "i": html,
}
