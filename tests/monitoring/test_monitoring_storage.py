"""Sizes, disks, bloat, dead rows, default partitions and quarantine: each check green, and red for its reason."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Generator
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.maintenance.monitoring import Earlier, Reading
from b44_assets.maintenance.monitoring.measurements.storage import averaged
from tests.helpers.disks import small
from tests.helpers.waiting import eventually
from tests.helpers.watched import Watched


def test_tables_are_summed_up_over_their_partitions_and_the_growth_is_told(watched: Watched) -> None:
    watched.execute(
        "create table visits (id int, at date) partition by range (at);"
        "create table visits_2025 partition of visits for values from ('2025-01-01') to ('2026-01-01');"
        "create index on visits (id)"
    )
    before = watched.read("table_sizes")
    watched.execute("insert into visits select g, '2025-05-05' from generate_series(1, 20000) g")
    reading = watched.read("table_sizes", before, ago=86400)
    [row] = [row for row in reading.rows["tables"] if row.labels["table"] == "visits"]
    [(table, index)] = watched.execute("select pg_table_size('visits_2025'), pg_indexes_size('visits_2025')")
    assert (row.numbers["table_bytes"], row.numbers["index_bytes"], row.numbers["partitions"]) == (table, index, 1)
    assert reading.plotted["visits_bytes"] == table + index
    assert reading.numbers["growth_bytes"] > 500_000
    assert reading.numbers["database_bytes_per_day"] == pytest.approx(reading.numbers["growth_bytes"], rel=0.01)
    assert watched.verdict("grows_as_expected", reading).passed
    assert not watched.verdict("grows_as_expected", reading, "database_growth=100kB").passed
    with watched.connect(autocommit=False) as conn:
        conn.execute("lock table visits in access exclusive mode")
        locked = watched.read("table_sizes")
    assert locked.unseen == ()
    assert "visits" in {row.labels["table"] for row in locked.rows["tables"]}
    watched.execute("drop table visits")


@given(
    st.lists(st.tuples(st.floats(300, 1e6), st.floats(-1e9, 1e9)), min_size=1, max_size=20),
)
def test_an_average_lies_between_the_growths_that_were_seen(steps: list[tuple[float, float]]) -> None:
    numbers: dict[str, float] = {"used": 0.0}
    value, seen = 0.0, list[float]()
    for seconds, growth in steps:
        value += growth
        seen.append(growth / seconds * 86400)
        before = Earlier(at=None, numbers=numbers)  # type: ignore[arg-type]
        numbers = {"used": value, **averaged("used", value, before, seconds)}
    assert numbers["used_watched_seconds"] == pytest.approx(sum(seconds for seconds, _ in steps))
    slack = 1e-3 + 1e-6 * max(map(abs, seen)) + 1e-9 * abs(value) * 86400
    assert min(seen) - slack <= numbers["used_per_day"] <= max(seen) + slack


@pytest.fixture
def disk(watched: Watched) -> Generator[Path]:
    """A small file system that holds a tablespace."""
    folder = Path(tempfile.mkdtemp(prefix="b44-disk-"))
    folder.chmod(0o755)
    [(data,)] = watched.execute("select current_setting('data_directory')")
    owner = Path(data).stat()
    with small(folder / "disk", 20) as mounted:
        os.chown(mounted, owner.st_uid, owner.st_gid)
        watched.execute(f"create tablespace small_disk location '{mounted}'")
        try:
            yield mounted
        finally:
            watched.execute("drop tablespace small_disk")
    shutil.rmtree(folder)


def test_a_disk_that_is_nearly_full_is_told(watched: Watched, disk: Path) -> None:
    green = watched.read("disk")
    assert {"data", "wal", "tablespace small_disk"} == {row.labels["disk"] for row in green.rows["disks"]}
    assert watched.verdict("disk_free", green, "disk_free=1%").passed
    (disk / "filler").write_bytes(b"x" * (18 << 20 | 900_000))
    red = watched.verdict("disk_free", watched.read("disk"))
    (disk / "filler").unlink()
    assert (red.passed, red.measured) == (False, True)
    assert "tablespace small_disk" in red.text


def test_when_a_disk_is_full_is_told_from_how_it_has_grown(watched: Watched) -> None:
    now = watched.read("disk")
    free, used = now.numbers["data_free_bytes"], now.numbers["data_used_bytes"]

    def after_growth_by(share: float) -> Reading:
        numbers = {
            **now.numbers,
            "data_used_bytes": used - free * share / 24,
            "data_used_bytes_per_day": free * share,
            "data_used_bytes_watched_seconds": 86400.0,
        }
        return watched.read("disk", replace(now, numbers=numbers), ago=3600)

    fast, slow = after_growth_by(0.5), after_growth_by(0.01)
    assert fast.numbers["full_seconds"] == pytest.approx(2 * 86400, rel=0.2)
    assert not watched.verdict("not_full_soon", fast).passed
    assert watched.verdict("not_full_soon", slow).passed
    assert watched.verdict("not_full_soon", now).passed


def test_a_data_directory_that_is_not_shown_is_not_called_empty(watched: Watched) -> None:
    verdict = watched.verdict("disk_free", watched.read("disk", role=watched.nobody))
    assert (verdict.passed, verdict.measured) == (False, False)


@pytest.fixture
def bloated(watched: Watched) -> Generator[str]:
    """A table three quarters of which are empty."""
    watched.execute(
        "create table bloated with (autovacuum_enabled = off) as"
        " select g as id, repeat('x', 950) as filler from generate_series(1, 24000) g"
    )
    watched.execute("analyze bloated")
    yield "bloated"
    watched.execute("drop table bloated")


def test_a_table_that_is_mostly_empty_is_told(watched: Watched, bloated: str) -> None:
    def read(role: str) -> Reading:
        return watched.read("table_bloat", role=role)

    assert watched.verdict("no_bloated_table", read("postgres")).passed
    # Without the extension, who may not read the table is not shown its statistics.
    hidden = watched.verdict("no_bloated_table", read(watched.watcher))
    assert not hidden.measured and "pgstattuple" in hidden.text
    watched.execute("delete from bloated where id % 4 <> 0")
    watched.execute("vacuum analyze bloated")
    estimated = read("postgres")
    assert 0.6 < estimated.numbers["largest_bloat_ratio"] < 0.85
    red = watched.verdict("no_bloated_table", estimated)
    assert not red.passed and "of bloated" in red.text

    watched.execute("create schema tools; create extension pgstattuple schema tools")
    watched.execute(f"grant usage on schema tools to {watched.watcher}")
    try:
        measured = read(watched.watcher)
        assert (measured.numbers["estimated"], measured.unseen) == (0, ())
        assert measured.numbers["largest_bloat_ratio"] == pytest.approx(0.75, abs=0.05)
        assert not watched.verdict("no_bloated_table", measured).passed
        watched.execute("vacuum full bloated")
        watched.execute("vacuum analyze bloated")
        assert watched.verdict("no_bloated_table", read(watched.watcher)).passed
    finally:
        watched.execute("drop schema tools cascade")


def test_dead_and_changed_rows_are_told(watched: Watched) -> None:
    watched.execute("create table busy (id int) with (autovacuum_enabled = off)")
    watched.execute("insert into busy select generate_series(1, 20000)")
    watched.execute("vacuum analyze busy")
    green = watched.read("dead_rows")
    assert watched.verdict("vacuumed", green).passed
    assert watched.verdict("analyzed", green).passed
    watched.execute("update busy set id = id + 1")
    # A half; a third where the server hears of the insertion only after VACUUM has counted.
    eventually(lambda: watched.read("dead_rows").numbers["largest_dead_ratio"] > 0.3)
    reading = watched.read("dead_rows")
    red = watched.verdict("vacuumed", reading)
    assert not red.passed and "VACUUM busy" in red.text
    red = watched.verdict("analyzed", reading)
    assert not red.passed and "ANALYZE busy" in red.text
    watched.execute("vacuum analyze busy")
    assert watched.verdict("vacuumed", watched.read("dead_rows")).passed
    watched.execute("drop table busy")


def test_rows_in_a_default_partition_are_told(watched: Watched) -> None:
    watched.execute(
        "create table logs (at date) partition by range (at); create table logs_rest partition of logs default"
    )
    assert watched.verdict("default_partitions_empty", watched.read("default_partitions")).passed
    watched.execute("insert into logs values ('2025-01-01'), ('2025-01-02')")
    eventually(lambda: watched.read("default_partitions").numbers["rows"] == 2)
    red = watched.verdict("default_partitions_empty", watched.read("default_partitions"))
    assert not red.passed and "logs_rest" in red.text
    watched.execute("drop table logs")


def test_what_waits_in_quarantine_is_told_until_the_migration_is_over(watched: Watched) -> None:
    assert watched.verdict("quarantine_empty", watched.read("quarantine")).passed
    watched.execute("create schema migration; create table migration.accounting (entity text, quarantined bigint)")
    hidden = watched.verdict("quarantine_empty", watched.read("quarantine"))
    assert not hidden.measured and "permission denied for schema migration" in hidden.text
    assert f"GRANT b44_monitor TO {watched.watcher}" in hidden.text
    watched.execute(f"grant usage on schema migration to {watched.watcher}")
    watched.execute(f"grant select on migration.accounting to {watched.watcher}")
    watched.execute("insert into migration.accounting values ('Event', 0)")
    assert watched.verdict("quarantine_empty", watched.read("quarantine")).passed
    watched.execute("insert into migration.accounting values ('User', 1), ('Order', 2)")
    reading = watched.read("quarantine")
    assert [(row.labels["entity"], row.numbers["records"]) for row in reading.rows["quarantine"]] == [
        ("Order", 2),
        ("User", 1),
    ]
    assert not watched.verdict("quarantine_empty", reading).passed
    watched.execute("drop schema migration cascade")
    assert watched.verdict("quarantine_empty", watched.read("quarantine")).passed
