"""What queries read when they are run: rows and blocks, compared over time; indexes that would be of use."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Generator
from datetime import timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError
from b44_assets.maintenance import query_runs
from b44_assets.maintenance.query_runs import QueryRun, QueryRuns, run_queries, unindexed_foreign_keys
from b44_assets.orchestration.maintenance import QUERIES, Queries
from b44_assets.session import Session
from tests.helpers.databases import database_url

ROWS = 20_000
QUERIES_BY_FILE = {
    "of_owner": "select id, note from items where owner = 77",
    "both_alike": "select id from items where first = 5 and second = 5",
    "by_note": "select id from items where note = 'note 19999'",
}


class Place:
    """A database with one large table, and an app of queries on it."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url, self.folder = url, folder
        (folder / "tables").mkdir()
        (folder / "queries").mkdir()
        (folder / "tables" / "items.sql").write_text(
            "-- Items.\ncreate table if not exists items (id bigint primary key);\n"
        )
        for name, text in QUERIES_BY_FILE.items():
            self.query(name, text)

    def query(self, name: str, text: str) -> None:
        (self.folder / "queries" / f"{name}.sql").write_text(f"-- A query.\n-- depends: items\n\n{text};\n")

    def execute(self, statement: str) -> None:
        with psycopg.connect(self.url, autocommit=True) as conn:
            conn.execute(statement.encode())

    @property
    def session(self) -> Session:
        return Session(self.url, load_catalog(self.folder))

    def run(self, best: dict[str, float] | None = None) -> tuple[QueryRuns, dict[str, QueryRun]]:
        runs = run_queries(self.session, best or {})
        return runs, {run.name: run for run in runs.runs}


@pytest.fixture
def place(server_url: str, tmp_path: Path) -> Generator[Place]:
    name = f"queries_{uuid.uuid4().hex}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(f"create database {name} template template0".encode())
        try:
            found = Place(database_url(server_url, name), tmp_path)
            found.execute(
                "create table owners (id int primary key);"
                "create table items (id bigint primary key, owner int not null, first int not null, second int not null, note text);"
                "insert into owners select g from generate_series(0, 99) g;"
                f"insert into items select g, g % 100, g % 100, g % 100, 'note ' || g from generate_series(1, {ROWS}) g;"
                "create index items_owner on items (owner);"
                "analyze items, owners"
            )
            found.execute("vacuum items")
            yield found
        finally:
            conn.execute(f"drop database {name} with (force)".encode())


def test_rows_and_blocks_of_each_query_are_told_with_its_plan(place: Place) -> None:
    _, by_name = place.run()
    run = by_name["of_owner"]
    assert (run.rows, run.read_rows, run.timed_out) == (200, 200, False)
    assert 0 < run.buffers < 200
    assert "items_owner" in run.plan and "buffers" in run.plan


def test_a_query_that_takes_more_blocks_a_row_than_ever_is_told_and_a_table_that_grows_is_no_reason(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_runs, "SMALL_BUFFERS", 10)
    place.query("of_owner", "select id from items where owner = 77 and id < 300")
    place.execute(["create index items_owner_id on items (owner, id)", " vacuum analyze items"][0])
    place.execute("vacuum analyze items")
    first, _ = place.run()
    place.execute(f"insert into items select {ROWS} + g, g % 100, 0, 0, '' from generate_series(1, {ROWS}) g")
    place.execute("vacuum analyze items")
    second, _ = place.run(dict(first.best))
    assert second.grown(10) == ()
    place.execute("drop index items_owner_id; drop index items_owner; alter table items drop constraint items_pkey")
    third, _ = place.run(dict(second.best))
    assert [run.name for run in third.grown(10)] == ["of_owner"]
    # What it once took is not forgotten by the next time.
    assert [run.name for run in place.run(dict(third.best))[0].grown(10)] == ["of_owner"]


def test_a_scan_that_drops_most_rows_is_evidence_for_an_index(place: Place) -> None:
    runs, _ = place.run()
    [scan] = [scan for name, scan in runs.scans if name == "by_note"]
    assert (scan.table, scan.read, scan.dropped) == ("items", ROWS, ROWS - 1)
    assert "note" in scan.filter
    assert not index_suggested(runs).passed
    place.execute("create index items_note on items (note); create index items_both on items (first, second)")
    runs, _ = place.run()
    assert not [name for name, _ in runs.scans if name == "by_note"]
    assert index_suggested(runs).passed


def index_suggested(runs: QueryRuns) -> Any:
    assert QUERIES.judge is not None
    return QUERIES.judge(Queries(runs, ()), Settings.load({}, Path("/nonexistent")))["indexes_suggested"]


def test_rows_that_the_planner_misjudges_are_told(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(query_runs, "MANY_ROWS", 100)
    _, by_name = place.run()
    # One in a hundred of one in a hundred, it believes.
    assert by_name["both_alike"].misjudged >= 50
    assert by_name["both_alike"].misjudged_table == "items"
    place.execute("create statistics items_both (dependencies, mcv) on first, second from items")
    place.execute("analyze items")
    assert place.run()[1]["both_alike"].misjudged < 2


def test_a_query_that_never_ends_is_ended_and_one_that_writes_is_refused(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(query_runs, "STATEMENT_TIMEOUT_SECONDS", 0.1)
    place.query("of_owner", "select pg_sleep(60), count(*) from items")
    assert place.run()[1]["of_owner"].timed_out
    place.execute("create sequence numbers")
    place.query("of_owner", "select nextval('numbers'), count(*) from items")
    with pytest.raises(DatabaseError, match=r"of_owner\.sql:4: .*read-only"):
        place.run()


@pytest.mark.parametrize(
    ("index", "serves"),
    [
        ("create index i on items (owner)", True),
        ("create index i on items (owner, note)", True),
        ("create index i on items (owner) where owner is not null", True),
        ("create index i on items (note, owner)", False),
        ("create index i on items (owner) where first = 1", False),
    ],
)
def test_a_foreign_key_of_a_large_table_needs_an_index_that_leads_with_it(
    place: Place, index: str, serves: bool
) -> None:
    place.execute(
        "drop index items_owner; alter table items add constraint items_owner_fk foreign key (owner) references owners"
    )
    [key] = unindexed_foreign_keys(place.session)
    assert (key.constraint, key.table, key.columns, key.referenced, key.rows) == (
        "items_owner_fk",
        "items",
        ("owner",),
        "owners",
        ROWS,
    )
    place.execute(index)
    assert (unindexed_foreign_keys(place.session) == ()) is serves


def test_checks_say_which_query_and_by_how_much(tmp_path: Path) -> None:
    settings = Settings.load({}, tmp_path)
    good = QueryRun("good", rows=10, buffers=50)
    found = QueryRuns(
        (
            good,
            QueryRun("slow", timed_out=True),
            QueryRun("grown", rows=1, buffers=5000, misjudged=500.0, misjudged_table="t"),
        ),
        {"good": 5.0, "grown": 2.0},
    )
    judge: Callable[[Any, Settings], Any] | None = QUERIES.judge
    assert judge is not None
    answers = judge(Queries(found, ()), settings)
    assert "grown takes 5,000 blocks a row, and once took 2" in answers["blocks_as_before"].message
    assert "slow was ended after 30 s" in answers["blocks_as_before"].message
    assert "good" not in answers["blocks_as_before"].message
    assert "grown: rows of t are misjudged by a factor of 500" in answers["rows_as_estimated"].message
    assert [answers[name].passed for name in ("blocks_as_before", "rows_as_estimated", "indexes_suggested")] == [
        False,
        False,
        True,
    ]
    assert all(answer.passed for answer in judge(Queries(QueryRuns((good,), {"good": 5.0}), ()), settings).values())
    assert QUERIES.job is not None and QUERIES.job.overdue_after == timedelta(hours=26)
