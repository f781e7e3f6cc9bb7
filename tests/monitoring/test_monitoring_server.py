"""Statements, slots, WAL, checkpoints, temporary files, age, version and machine: each check green, and red for its reason."""

from __future__ import annotations

import uuid
from threading import Thread

import pytest

from b44_assets.maintenance.monitoring import Reading
from tests.helpers.waiting import eventually
from tests.helpers.watched import Watched, settings_with, waits


def test_a_statement_that_runs_long_is_told(watched: Watched) -> None:
    with watched.connect() as holder, watched.connect("report") as runner:
        holder.execute("select pg_advisory_lock(44)")
        thread = Thread(target=lambda: runner.execute("select pg_advisory_lock(44)"))
        thread.start()
        eventually(lambda: waits(watched, runner.info.backend_pid))
        reading = watched.read("slow_statements")
        assert watched.verdict("statements_fast", reading).passed
        red = watched.verdict("statements_fast", reading, "running_statement=0s")
        holder.execute("select pg_advisory_unlock(44)")
        thread.join()
    assert (red.passed, red.measured) == (False, True)
    assert "pg_cancel_backend" in red.text
    assert [row.labels["application"] for row in reading.rows["slow_statements"]].count("report") == 1
    assert watched.verdict("statements_fast", watched.read("slow_statements", role=watched.nobody)).measured is False


def test_a_slot_without_a_reader_is_told(watched: Watched) -> None:
    slot = f"slot_{uuid.uuid4().hex[:8]}"
    watched.execute("select pg_create_physical_replication_slot(%s, true)", slot)
    try:
        watched.execute("create table written as select generate_series(1, 20000) as x")
        reading = watched.read("replication")
        [row] = [row for row in reading.rows["replication_slots"] if row.labels["slot"] == slot]
        assert row.labels["has_reader"] == "no"
        # Others write on this server, too, also between one statement and the next.
        assert 0 < row.numbers["wal_bytes"] <= watched.read("replication").numbers["slot_wal_bytes"]
        assert watched.verdict("slots_read", reading).passed
        red = watched.verdict("slots_read", reading, "slot_wal=0kB")
        assert not red.passed and "has no reader" in red.text
    finally:
        watched.execute("select pg_drop_replication_slot(%s)", slot)
        watched.execute("drop table written")
    assert slot not in {row.labels["slot"] for row in watched.read("replication").rows["replication_slots"]}


def test_wal_is_measured_by_the_second(watched: Watched) -> None:
    before = watched.read("wal")
    watched.execute("create table written as select generate_series(1, 100000) as x")
    watched.execute("drop table written")
    eventually(lambda: watched.read("wal", before).increases["bytes_total"] > 1_000_000)
    reading = watched.read("wal", before, ago=60)
    seconds = reading.seconds or 0
    assert seconds >= 60
    assert reading.numbers["bytes_per_second"] == pytest.approx(reading.increases["bytes_total"] / seconds)
    assert reading.numbers["files"] >= 1
    assert watched.verdict("wal_rate", reading).passed
    assert not watched.verdict("wal_rate", reading, "wal_rate=1kB").passed
    assert watched.verdict("archiving_works", reading).passed
    assert "permission denied for function pg_ls_" in watched.read("wal", role=watched.nobody).unseen[0]


def test_checkpoints_that_were_asked_for_are_told(watched: Watched) -> None:
    def in_time() -> bool:
        before = watched.read("checkpoints")
        return watched.verdict("checkpoints_in_time", watched.read("checkpoints", before)).passed

    # Others make databases on this server meanwhile, each with a checkpoint.
    eventually(in_time)
    before = watched.read("checkpoints")
    for _ in range(4):
        watched.execute("checkpoint")
    eventually(lambda: watched.read("checkpoints", before).increases["requested_total"] >= 4)
    red = watched.verdict("checkpoints_in_time", watched.read("checkpoints", before))
    assert not red.passed and "max_wal_size" in red.text


def test_sessions_that_have_to_write_blocks_are_told(watched: Watched) -> None:
    before = watched.read("io")
    if watched.major < 16:
        verdict = watched.verdict("sessions_need_not_write", before)
        assert not before.numbers and (verdict.passed, verdict.measured) == (True, False)
        assert "16 and newer" in verdict.text
        return
    assert watched.verdict("sessions_need_not_write", watched.read("io", before)).passed
    (buffers,) = watched.execute("select setting::int from pg_settings where name = 'shared_buffers'")[0]

    def sessions_wrote() -> Reading | None:
        before = watched.read("io")
        with watched.connect() as conn:
            conn.execute("create unlogged table written (x text storage plain)")
            # A row a block, and twice as many as there are buffers.
            conn.execute("insert into written select repeat('x', 7000) from generate_series(1, %s)", (buffers * 2,))
            conn.execute("select pg_stat_force_next_flush()")
            conn.execute("drop table written")
        reading = watched.read("io", before)
        red = watched.verdict("sessions_need_not_write", reading, "session_writes=10%")
        assert red.passed or (red.measured and "shared_buffers" in red.text)
        return None if red.passed else reading

    # A database that is made on this server meanwhile has the checkpointer write all blocks, those of unlogged tables too.
    reading = eventually(sessions_wrote, seconds=60)
    assert watched.verdict("sessions_need_not_write", reading, "session_writes=100%").passed
    assert "client backend" in {row.labels["backend"] for row in reading.rows["io"]}


def test_temporary_files_are_told(watched: Watched) -> None:
    before = watched.read("temp_files")
    assert watched.verdict("few_temp_files", watched.read("temp_files", before)).passed
    with watched.connect() as conn:
        conn.execute("set work_mem = '64kB'")
        conn.execute("select * from generate_series(1, 100000) g order by md5(g::text) limit 1 offset 99999")
    eventually(lambda: watched.read("temp_files", before).increases["files_total"] > 0)
    reading = watched.read("temp_files", before, ago=3600)
    hours = (reading.seconds or 0) / 3600
    assert hours >= 1
    assert reading.numbers["bytes_per_hour"] == pytest.approx(reading.increases["bytes_total"] / hours)
    assert not watched.verdict("few_temp_files", reading, "temp_files=1MB").passed


def test_the_age_of_transaction_ids_grows_with_their_use(watched: Watched) -> None:
    before = watched.read("wraparound").numbers["transaction_ids"]
    with watched.connect() as conn:
        for _ in range(300):
            conn.execute("select pg_current_xact_id()")
    reading = watched.read("wraparound")
    assert reading.numbers["transaction_ids"] >= before + 300
    assert watched.verdict("transaction_ids_young", reading).passed
    red = watched.verdict("transaction_ids_young", reading, f"transaction_ids={before + 1}")
    assert not red.passed and "VACUUM (FREEZE)" in red.text
    assert watched.verdict("multixacts_young", reading).passed


def test_rows_that_several_have_locked_use_up_multixacts(watched: Watched) -> None:
    before = watched.read("wraparound").numbers["multixacts"]
    watched.execute("create table shared as select 1 as x")
    for _ in range(3):
        with watched.connect(autocommit=False) as one, watched.connect(autocommit=False) as other:
            one.execute("select from shared for share")
            other.execute("select from shared for share")
    reading = watched.read("wraparound")
    watched.execute("drop table shared")
    assert reading.numbers["multixacts"] > before
    assert not watched.verdict("multixacts_young", reading, f"multixacts={before}").passed


def test_a_server_that_is_not_of_the_newest_release_is_told(watched: Watched) -> None:
    with watched.connect() as conn:
        # Which minor release it is, is up to the machine.
        major, minor = divmod(conn.info.server_version, 10_000)
    reading = watched.read("server_version", settings=settings_with(B44_NEWEST_POSTGRES=f"{major}.{minor}"))
    assert watched.verdict("newest_minor_release", reading).passed
    older = watched.read("server_version", settings=settings_with(B44_NEWEST_POSTGRES="15.99,18.99"))
    red = watched.verdict("newest_minor_release", older)
    assert not red.passed and ".99" in red.text
    unknown = watched.read("server_version", settings=settings_with(B44_NEWEST_POSTGRES="14.1"))
    assert not watched.verdict("newest_minor_release", unknown).measured


def test_processors_and_memory_of_the_machine_are_told(watched: Watched) -> None:
    before = watched.read("machine")
    assert watched.verdict("processors_left", before).measured is False
    eventually(lambda: watched.read("machine", before).increases["cpu_busy_seconds_total"] > 0)
    reading = watched.read("machine", before)
    assert 0 < reading.numbers["cpu_ratio"] <= 1
    assert watched.verdict("processors_left", reading, "cpu=100%").passed
    assert not watched.verdict("processors_left", reading, "cpu=0%").passed
    assert 0 < reading.numbers["memory_ratio"] < 1
    assert watched.verdict("memory_left", reading, "memory=100%").passed
    assert not watched.verdict("memory_left", reading, "memory=1%").passed
