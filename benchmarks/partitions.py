"""From which size on a table by month is worth it: the same rows in one table, and in 24 partitions.

    python benchmarks/partitions.py --rows 100000 500000 1000000 3000000
    python benchmarks/partitions.py --rows 1000000 --database-url postgresql://…

Each size is made anew, in both forms, with the columns and the indexes that `b44 init` gives a table of that kind. Where a database is
named, its tables `whole` and `monthly` are replaced.
"""

from __future__ import annotations

import argparse
import json
import random
import statistics
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from itertools import pairwise
from pathlib import Path
from typing import Any

import psycopg
from psycopg import sql
from rich.console import Console
from rich.table import Column, Table

# Run as a script, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.errors import B44Error
from benchmarks.measuring import fresh_database, load, server, workplace

MONTHS = 24
TRIES = 41
FORMS = ("whole", "monthly")
COLUMNS = """
    id uuid not null, title text not null, body text, state text, amount numeric, paid boolean, tags text[], owner_id uuid,
    created_at timestamptz not null, updated_at timestamptz not null, created_by text, is_sample boolean
"""
SOURCE = """
    create unlogged table source as
    select {id} as id, 'Title of record ' || n as title, repeat(md5((n * 7)::text), 8) as body,
           (array['open', 'paid', 'sent', 'done'])[1 + n % 4] as state, (n % 100000) / 100.0 as amount, n % 3 = 0 as paid,
           array['a' || n % 50, 'b' || n % 7] as tags, md5('owner' || n % ({rows} / 50))::uuid as owner_id,
           timestamptz '2024-01-01 00:00:00+00' + n * (interval '731 days' / {rows}) as created_at,
           timestamptz '2024-01-01 00:00:00+00' + n * (interval '731 days' / {rows}) as updated_at,
           'person' || n % 997 || '@example.org' as created_by, false as is_sample
      from generate_series(0, {rows} - 1) n
"""
# In the order of their time, as Base44's are.
ID = "(lpad(to_hex({n}::bigint), 12, '0') || substr(md5({n}::text), 1, 20))::uuid"
ONE = f"id = {ID.replace('{n}', '%(n)s')}"
INDEXES = (
    "create index {form}_created_at on {form} (created_at)",
    "create index {form}_owner_id on {form} (owner_id)",
    "create index {form}_created_by on {form} (created_by)",
)
Found = dict[str, tuple[float, float]]
"""What was done to both forms: seconds, or bytes; of the one table, and of that by month."""


class Bench:
    """One size, in both forms."""

    def __init__(self, conn: psycopg.Connection[Any], rows: int) -> None:
        self._conn = conn
        self._rows = rows
        self.found: Found = {}

    def _run(self, text: str, **parameters: object) -> list[Any]:
        # Constants of this file, with the names of its own tables and numbers in them.
        cursor = self._conn.execute(text.encode(), parameters or None)
        return cursor.fetchall() if cursor.description else []

    def _on(self, form: str, text: str) -> list[Any]:
        return self._run(text.replace("{form}", form))

    def both(self, what: str, work: Callable[[str], object]) -> None:
        """Notes how long some work takes on each form."""
        seconds: list[float] = []
        for form in FORMS:
            self._run("checkpoint")
            begun = time.monotonic()
            work(form)
            seconds.append(time.monotonic() - begun)
        self.found[what] = (seconds[0], seconds[1])

    def often(self, what: str, query: str, parameters: Callable[[], dict[str, object]]) -> None:
        """Notes the median time of a query, both forms by turns; the first of each is left out."""
        seconds: dict[str, list[float]] = {form: [] for form in FORMS}
        for number in range(TRIES):
            given = parameters()
            for form in FORMS if number % 2 else FORMS[::-1]:
                begun = time.monotonic()
                self._run(query.replace("{form}", form), **given)
                seconds[form].append(time.monotonic() - begun)
        self.found[what] = (statistics.median(seconds["whole"][1:]), statistics.median(seconds["monthly"][1:]))

    def measure(self) -> Found:
        """Does all of it."""
        for name in ("source", *FORMS):
            self._run(f"drop table if exists {name} cascade")
        self._run(SOURCE.replace("{rows}", str(self._rows)).replace("{id}", ID.replace("{n}", "n")))
        self._run(f"create table whole ({COLUMNS}, primary key (id))")
        self._run(f"create table monthly ({COLUMNS}, primary key (id, created_at)) partition by range (created_at)")
        months = [f"{2024 + n // 12}-{1 + n % 12:02}-01" for n in range(MONTHS + 1)]
        for start, end in pairwise(months):
            # The months are UTC's.
            self._run(
                f"create table monthly_{start[:7].replace('-', '_')} partition of monthly"
                f" for values from ('{start} 00:00:00+00') to ('{end} 00:00:00+00')"
            )
        self._run("create table monthly_default partition of monthly default")
        self.both("loaded", lambda form: self._on(form, "insert into {form} select * from source"))
        for form in FORMS:
            self._on(form, "vacuum analyze {form}")
        self.both("three indexes", lambda form: [self._on(form, one) for one in INDEXES])
        self._sizes()
        self._queries()
        self._upkeep()
        return self.found

    def _sizes(self) -> None:
        size = (
            "select sum({function}(oid)) from pg_class where oid = '{form}'::regclass"
            " or oid in (select relid from pg_partition_tree('{form}'))"
        )
        for what, function in (("bytes of indexes", "pg_indexes_size"), ("bytes of rows", "pg_table_size")):
            query = size.replace("{function}", function)
            whole, monthly = (float(self._on(form, query)[0][0]) for form in FORMS)
            self.found[what] = (whole, monthly)

    def _queries(self) -> None:
        draw = random.Random(7)

        def known() -> dict[str, object]:
            return {"n": str(draw.randrange(self._rows))}

        def month() -> dict[str, object]:
            number = draw.randrange(MONTHS - 1)
            first, after = (f"{2024 + n // 12}-{1 + n % 12:02}-01 00:00:00+00" for n in (number, number + 1))
            return {"first": first, "after": after}

        self.often("newest page", "select id, title from {form} order by created_at desc, id desc limit 20", dict)
        self.often("one id", "select * from {form} where {one}".replace("{one}", ONE), known)
        owner = f"md5('owner' || %(n)s::bigint %% {self._rows // 50})::uuid"
        page = "select id, title from {form} where owner_id = {owner} order by created_at desc limit 20"
        self.often("by reference", page.replace("{owner}", owner), known)
        self.often(
            "sum of a month",
            "select sum(amount) from {form} where created_at >= %(first)s and created_at < %(after)s",
            month,
        )
        self.often("one row changed", "update {form} set state = 'sent' where {one}".replace("{one}", ONE), known)

    def _upkeep(self) -> None:
        newest = {"whole": "whole", "monthly": "monthly_2025_12"}
        changed = "update {form} set state = 'done' where created_at >= '2025-12-01 00:00:00+00'"
        removed = {
            "whole": "delete from whole where created_at < '2024-02-01 00:00:00+00'",
            "monthly": "drop table monthly_2024_01",
        }
        for form in FORMS:
            self._on(form, changed)
        self.both("vacuum and analyze", lambda form: self._on(form, "vacuum (analyze) {form}"))
        for form in FORMS:
            self._on(form, changed)
        self.both("the same, newest month", lambda form: self._on(newest[form], "vacuum (analyze) {form}"))
        self.both("indexes anew, newest month", lambda form: self._on(newest[form], "reindex table {form}"))
        self.both("oldest month removed", lambda form: self._run(removed[form]))


def report(found: dict[str, Found], version: str) -> None:
    """Prints a table for each size."""
    console = Console(highlight=False)
    console.print(f"PostgreSQL {version}, {MONTHS} months; {load()}")
    for rows, measured in found.items():
        table = Table(
            f"{int(rows):,} rows", *(Column(name, justify="right") for name in ("one table", "by month", "ratio"))
        )
        for what, (whole, monthly) in measured.items():
            shown = (
                (f"{whole / 1e6:,.0f} MB", f"{monthly / 1e6:,.0f} MB")
                if what.startswith("bytes")
                else (f"{whole * 1000:,.2f} ms", f"{monthly * 1000:,.2f} ms")
            )
            table.add_row(what, *shown, f"{monthly / whole:.2f}")
        console.print(table)


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, nargs="*", default=[100_000, 500_000, 1_000_000, 3_000_000])
    parser.add_argument("--database-url", help="default: a server of its own")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    with ExitStack() as stack:
        url = options.database_url
        if url is None:
            embedded = stack.enter_context(server(stack.enter_context(workplace(None)) / "home"))
            url = fresh_database(embedded, "partitions")
        conn = stack.enter_context(psycopg.connect(url, autocommit=True, prepare_threshold=None))
        conn.execute("set timezone = 'UTC'; set jit = off; set maintenance_work_mem = '256MB'")
        found = {str(rows): Bench(conn, rows).measure() for rows in options.rows}
        version: str = conn.execute(sql.SQL("show server_version")).fetchall()[0][0]
    if options.json:
        print(json.dumps(found, indent=1))
    else:
        report(found, version)


if __name__ == "__main__":
    try:
        main()
    except B44Error as error:
        sys.exit(str(error))
