"""Sessions, transactions, the cache and locks: each check is seen green, and red with what it is for."""

from __future__ import annotations

from threading import Thread
from typing import Any

import psycopg
import pytest

from b44_assets.maintenance.monitoring import MEASUREMENTS, Reading, Verdict
from tests.helpers.servers import Pg15, own_address
from tests.helpers.waiting import eventually
from tests.helpers.watched import Watched, waits


@pytest.fixture(scope="module", autouse=True)
def _table(watched: Watched) -> None:
    watched.execute("create table items as select g as id, repeat('x', 50) as filler from generate_series(1, 1000) g")
    watched.execute("create index items_id on items (id)")


def test_every_measurement_is_made_by_a_role_with_nothing_but_pg_monitor(watched: Watched) -> None:
    for one in MEASUREMENTS:
        reading = watched.read(one)
        assert reading.numbers or reading.rows or reading.notes or reading.unseen, one.name
        assert all(isinstance(number, int | float) for number in reading.numbers.values())


def test_nothing_waits_for_a_lock_that_an_application_holds(watched: Watched) -> None:
    with watched.connect(autocommit=False) as conn:
        conn.execute("lock table items in access exclusive mode")
        conn.execute("reindex index items_id")
        for one in MEASUREMENTS:
            assert not [line for line in watched.read(one).unseen if "locked" in line], one.name


def test_connections_are_counted_and_too_many_are_told(watched: Watched) -> None:
    connections = [watched.connect() for _ in range(3)]
    reading = watched.read("connections")
    # Other tests come and go on this server, too.
    here = [row for row in reading.rows["connections_by_state"] if row.labels["database"] in watched.url]
    assert sum(row.numbers["sessions"] for row in here) >= 3
    assert reading.numbers["used"] >= 3
    assert reading.numbers["used_ratio"] == pytest.approx(reading.numbers["used"] / reading.numbers["allowed"])
    assert watched.verdict("connections_left", reading, "connections=99%").passed
    red = watched.verdict("connections_left", reading, "connections=1%")
    assert (red.passed, red.measured) == (False, True)
    for conn in connections:
        conn.close()


def test_a_long_transaction_is_told_with_its_process(watched: Watched) -> None:
    with watched.connect("importer", autocommit=False) as conn:
        conn.execute("select 1")
        reading = watched.read("connections")
        assert reading.numbers["longest_transaction_seconds"] > 0
        assert watched.verdict("no_long_transaction", reading).passed

        def red() -> str:
            verdict = watched.verdict("no_long_transaction", watched.read("connections"), "transaction=0s")
            assert not verdict.passed
            return verdict.text

        # Other tests have transactions on this server, too; they end.
        eventually(lambda: f"process {conn.info.backend_pid} (importer)" in red())


def test_a_session_idle_in_a_transaction_is_told(watched: Watched) -> None:
    with watched.connect("sleeper", autocommit=False) as conn:
        conn.execute("select 1")
        reading = watched.read("connections")
        assert reading.numbers["idle_in_transaction"] >= 1
        assert watched.verdict("no_idle_transaction", reading).passed

    def strictly() -> Verdict:
        return watched.verdict("no_idle_transaction", watched.read("connections"), "idle_in_transaction=0s")

    with watched.connect("sleeper", autocommit=False) as conn:
        conn.execute("select 1")
        # Other tests have such sessions on this server, too; they end.
        eventually(lambda: not strictly().passed and "(sleeper)" in strictly().text)
    eventually(lambda: strictly().passed)


def test_rolled_back_transactions_are_counted_as_a_share(watched: Watched) -> None:
    def transact(end: str) -> None:
        with watched.connect() as conn:
            for _ in range(150):
                conn.execute(b"begin; select 1; " + end.encode())

    first = watched.read("transactions")
    assert not watched.verdict("few_rollbacks", first).measured

    def counted(before: Reading, figure: str) -> Reading | None:
        """Once the server has counted them: a session tells of some only at its end, which comes a little later."""
        reading = watched.read("transactions", before)
        return reading if reading.increases[figure] >= 150 else None

    transact("commit")
    second = eventually(lambda: counted(first, "commits_total"))
    assert second.numbers["commits_per_second"] == pytest.approx(
        second.increases["commits_total"] / (second.seconds or 0)
    )
    assert watched.verdict("few_rollbacks", second).passed
    transact("rollback")
    third = eventually(lambda: counted(second, "rollbacks_total"))
    assert third.numbers["rollback_ratio"] > 0.5
    assert not watched.verdict("few_rollbacks", third).passed


def test_counters_that_begin_anew_give_no_rate(watched: Watched) -> None:
    first = watched.read("transactions")
    watched.execute("select pg_stat_reset()")
    second = watched.read("transactions", first)
    assert second.increases == {}
    assert not any(name.endswith("_per_second") for name in second.numbers)
    assert watched.read("transactions", second).increases


def test_blocks_that_are_not_in_memory_are_told(watched: Watched) -> None:
    before = watched.read("cache")
    with watched.connect() as conn:
        for _ in range(1000):
            conn.execute("select count(*) from items")

    def counted() -> Reading | None:
        """Once the server has counted most of them: a session tells of some only at its end, which comes a little later."""
        reading = watched.read("cache", before)
        return reading if reading.increases["hits_total"] > 10_000 else None

    green = eventually(counted)
    assert watched.verdict("mostly_cached", green).passed
    # What was asked for since is told, not what is in all.
    other = {
        "hits_total": green.numbers["hits_total"] - 1_000,
        "reads_total": green.numbers["reads_total"] - 1_000_000,
    }
    again = watched.read("cache", Reading("cache", green.at, {**green.numbers, **other}, {}))
    assert again.numbers["hit_ratio"] < 0.5
    assert not watched.verdict("mostly_cached", again).passed


def test_who_waits_for_a_lock_and_who_blocks_is_told(watched: Watched) -> None:
    with watched.connect("holder", autocommit=False) as holder, watched.connect("waiter") as waiter:
        holder.execute("lock table items in access exclusive mode")
        thread = Thread(target=lambda: waiter.execute("select count(*) from items"))
        thread.start()
        eventually(lambda: waits(watched, waiter.info.backend_pid))
        reading = watched.read("locks")
        [row] = [row for row in reading.rows["lock_waits"] if row.labels["blocked"] == str(waiter.info.backend_pid)]
        assert row.labels["blocked_by"] == str(holder.info.backend_pid)
        assert (row.labels["blocking_application"], row.labels["object"]) == ("holder", "items")
        # Other tests wait on this server, too, for a template that is being made.
        assert watched.verdict("no_long_wait", reading, "lock_wait=1h").passed
        assert watched.verdict("no_long_lock", reading).passed

        def red(check: str, threshold: str) -> str:
            verdict = watched.verdict(check, watched.read("locks"), threshold)
            assert not verdict.passed
            return verdict.text

        # Other tests wait and lock on this server, too; they end.
        blocker = f"process {holder.info.backend_pid} (holder, idle in transaction)"
        eventually(lambda: blocker in red("no_long_wait", "lock_wait=0s"))
        eventually(lambda: "keeps items locked" in red("no_long_lock", "exclusive_lock=0s"))
        holder.rollback()
        thread.join()
    eventually(lambda: watched.verdict("no_long_wait", watched.read("locks"), "lock_wait=0s").passed)


def test_a_deadlock_is_counted(watched: Watched) -> None:
    before = watched.read("locks")
    assert watched.verdict("no_deadlock", watched.read("locks", before)).passed
    failed: list[type[BaseException]] = []

    def lock(conn: psycopg.Connection[Any], row: int) -> None:
        try:
            conn.execute("select from items where id = %s for update", (row,))
        except psycopg.errors.DeadlockDetected as error:
            failed.append(type(error))
            conn.rollback()

    with watched.connect(autocommit=False) as one, watched.connect(autocommit=False) as other:
        for conn, row in ((one, 1), (other, 2)):
            conn.execute("set deadlock_timeout = '10ms'")
            lock(conn, row)
        thread = Thread(target=lock, args=(one, 2))
        thread.start()
        eventually(lambda: waits(watched, one.info.backend_pid))
        lock(other, 1)
        thread.join()
    assert failed
    eventually(lambda: watched.read("locks", before).increases["deadlocks_total"] == 1)
    red = watched.verdict("no_deadlock", watched.read("locks", before))
    assert not red.passed and "same order" in red.text
    assert watched.verdict("no_deadlock", watched.read("locks", before), "deadlocks=1").passed


@pytest.mark.parametrize(
    ("measurement", "check"),
    [("connections", "no_long_transaction"), ("connections", "no_idle_transaction"), ("locks", "no_long_lock")],
)
def test_what_a_lesser_role_cannot_see_is_neither_well_nor_an_error(
    watched: Watched, measurement: str, check: str
) -> None:
    reading = watched.read(measurement, role=watched.nobody)
    verdict = watched.verdict(check, reading)
    assert (verdict.passed, verdict.measured) == (False, False)
    assert f"GRANT pg_monitor TO {watched.nobody}" in verdict.text


def test_a_session_from_another_machine_without_tls_is_told(watched: Watched, pg15: Pg15) -> None:
    """The server is this machine's, reached by an address that is not the loopback's."""
    plain = pg15.tcp_url().replace("@127.0.0.1:", f"@{own_address()}:")
    there = Watched(pg15.url(), "postgres", "postgres", watched.catalog)

    def unencrypted(reading: Reading) -> list[str]:
        return [row.labels["application"] for row in reading.rows["unencrypted_sessions"]]

    with psycopg.connect(plain, sslmode="require", application_name=f"shop of {watched.watcher}"):
        # Another worker's like it may be connected as well.
        reading = eventually(lambda: None if (seen := there.read("connections")).numbers["unencrypted"] else seen)
        assert reading.numbers["remote"] >= 1
        assert there.verdict("sessions_encrypted", reading).passed
    with psycopg.connect(plain, sslmode="disable", application_name=f"shop of {watched.watcher}"):
        reading = there.read("connections")
        assert f"shop of {watched.watcher}" in unencrypted(reading)
        red = there.verdict("sessions_encrypted", reading)
        assert (red.passed, red.measured) == (False, True) and unencrypted(reading)[0] in red.text
        assert there.verdict("sessions_encrypted", reading, "unencrypted=off").passed
