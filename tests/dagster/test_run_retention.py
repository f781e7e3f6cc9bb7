"""Dagster's records and the ledger agree: after a failure, a kill, a termination; and what is forgotten is not missed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Generator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
import psycopg
import pytest
from dagster import DagsterRunStatus

from b44_assets.config.settings import Settings
from b44_assets.orchestration.code_location import build_definitions, check_specs
from b44_assets.orchestration.run_retention import PROCESS_TAG, is_gone, runs_to_forget, this_process
from tests.helpers.code_locations import Place, post, posts, write
from tests.helpers.forking import start_forked
from tests.helpers.waiting import eventually

POSTS = dg.AssetKey("posts")
RANGE = {"dagster/asset_partition_range_start": "2026-01", "dagster/asset_partition_range_end": "2026-06"}


def load_posts(home: str) -> None:
    """Loads posts of all months; for a process of its own."""
    with dg.DagsterInstance.local_temp(home) as instance:
        build_definitions(Settings.load()).resolve_job_def("delta").execute_in_process(
            instance=instance, asset_selection=[POSTS], tags={**RANGE, PROCESS_TAG: this_process()}
        )


@contextmanager
def held(place: Place, since: str) -> Generator[None]:
    """New posts of every month are staged, and batches of months from one on wait within; not after the block."""
    write(place.export / "Post.jsonl", [*posts(), *(post(90 + n, f"2026-0{n}") for n in range(1, 7))])
    assert place.job("delta", assets=[dg.AssetKey(["base44", "posts"])]).success
    place.execute(
        """
        create function wait() returns trigger language plpgsql as $$
        begin
          if to_char(new.created_at at time zone 'UTC', 'YYYY-MM') >= tg_argv[0] then
            perform pg_advisory_xact_lock(4711);
          end if;
          return new;
        end $$
        """
    )
    place.execute(f"create trigger wait before insert on posts for each row execute function wait('{since}')")
    with psycopg.connect(place.url, autocommit=True) as holder:
        holder.execute("select pg_advisory_lock(4711)")
        yield


def started(place: Place, home: Path, name: str) -> BaseProcess:
    """A process of its own that loads posts of all months."""
    output = home.with_name(name)
    for folder in (home, output):
        folder.mkdir(exist_ok=True)
    environment = {
        **os.environ,
        "B44_DATABASE_URL": place.url,
        "B44_FIRST_MONTH": "2025-10",
        "B44_EXPORT_DIR": str(place.export),
    }
    return start_forked(load_posts, str(home), directory=home, environment=environment, output=output)


def interrupted(place: Place, number: signal.Signals, home: Path) -> dg.DagsterInstance:
    """A process migrates posts and is sent a signal in May, while the months before it are in; returns its instance."""
    with held(place, "2026-05"):
        process = started(place, home, "interrupted")
        try:
            eventually(lambda: len(place.months()) == 5 and place.execute(WAITING) == [(2,)], seconds=60)
            assert process.pid is not None
            os.kill(process.pid, number)
            process.join(60)
            assert not process.is_alive()
        finally:
            process.kill()
            process.join()
    place.execute("drop trigger wait on posts")
    eventually(lambda: place.execute(BUSY) == [(0,)], seconds=60)
    return dg.DagsterInstance.local_temp(str(home))


WAITING = "select count(*) from pg_stat_activity where datname = current_database() and wait_event = 'advisory'"
LOCKED_OUT = "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
BUSY = "select count(*) from pg_stat_activity where datname = current_database() and application_name like 'b44 load%'"


def agree(place: Place) -> None:
    """Every month that Dagster calls materialized is in the database as it says, and the other way round."""
    pending = place.execute(
        "select distinct to_char(s._partition_key, 'YYYY-MM') from migration.posts_plan s where s._action = 'insert'"
        " and not exists (select from migration.migrated m where m.entity = 'posts' and m.id = s.id)"
    )
    complete = {month: rows for month, rows in place.months().items() if (month,) not in pending}
    assert place.said() == complete
    logged = place.execute(
        "select coalesce(sum(records_processed), 0) from migration.migration_log where entity_type = 'posts'"
    )
    assert logged == [(sum(place.months().values()),)]


@pytest.mark.slow  # the one before has the same of a termination
def test_after_a_kill_the_run_ends_and_the_months_that_are_in_are_told_of(migrated: Place, tmp_path: Path) -> None:
    with interrupted(migrated, signal.SIGKILL, tmp_path / "home") as instance:
        migrated.instance = instance
        [run] = instance.get_runs()
        assert (run.status, migrated.said()) == (DagsterRunStatus.STARTED, {})
        tick = migrated.tick("interrupted_runs")
        [run] = instance.get_runs()
        assert run.status is DagsterRunStatus.FAILURE
        assert migrated.said().keys() == {"2026-01", "2026-02", "2026-03", "2026-04"}
        agree(migrated)
        assert migrated.tick("interrupted_runs", tick.cursor).skip_message == "no run was interrupted"


def test_after_a_termination_the_server_is_idle_and_the_months_that_are_in_are_told_of(
    migrated: Place, tmp_path: Path
) -> None:
    with interrupted(migrated, signal.SIGINT, tmp_path / "home") as instance:
        migrated.instance = instance
        migrated.tick("interrupted_runs")
        assert migrated.said().keys() == {"2026-01", "2026-02", "2026-03", "2026-04"}
        agree(migrated)
        whole = instance.get_latest_materialization_event(POSTS)
        assert whole is not None and whole.asset_materialization is not None
        assert whole.asset_materialization.partition is None
        assert whole.asset_materialization.metadata["migrated"].value == sum(migrated.months().values())
        assert migrated.job("delta", RANGE, [POSTS]).success
        agree(migrated)
        assert len(migrated.said()) == 6


def test_two_workers_share_the_months_of_a_backfill_and_do_none_twice(migrated: Place, tmp_path: Path) -> None:
    home = tmp_path / "home"
    home.mkdir()
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        with held(migrated, "2026-01"):
            workers = [started(migrated, home, f"worker{number}") for number in range(2)]
            try:
                # The first has begun two months, and the second has come to one of them, too.
                eventually(lambda: migrated.execute(LOCKED_OUT)[0][0] >= 3, seconds=60)
            except AssertionError:
                for worker in workers:
                    worker.kill()
                raise
        for worker in workers:
            worker.join(120)
        assert [worker.exitcode for worker in workers] == [0, 0]
        batches = migrated.execute(
            "select partition_key, count(*), sum(records_processed), count(*) filter (where run_id = 'before')"
            " from migration.migration_log where entity_type = 'posts' and status = 'completed' group by 1 order by 1"
        )
        new = [(count - old, rows) for _, count, rows, old in batches]
        assert new == [(1, 5), (1, 5), (1, 5), (1, 1), (1, 5), (1, 1)]
        assert [run.status for run in instance.get_runs()] == [DagsterRunStatus.SUCCESS] * 2
        migrated.instance = instance
        agree(migrated)


def test_a_run_of_a_backfill_materializes_nothing_but_months(migrated: Place) -> None:
    done = migrated.job("delta", {**RANGE, "dagster/backfill": "chosen"}, [POSTS])
    assert done.success
    entries = [record.event_log_entry for record in migrated.instance.fetch_materializations(POSTS, limit=100).records]
    said = [(entry.run_id == done.run_id, one.partition) for entry in entries if (one := entry.asset_materialization)]
    # The page of the asset shows the newest first; Dagster's daemon ends a backfill whose run says what names no month.
    assert said[0] == (False, None)
    assert sorted(said[1:]) == [(True, f"2026-0{month}") for month in range(1, 7)]


def test_what_a_later_run_has_said_is_not_said_again(migrated: Place) -> None:
    run = migrated.instance.create_run_for_job(
        migrated.definitions.resolve_job_def("delta").get_subset(asset_selection={POSTS}), tags=RANGE
    )
    assert migrated.job("delta", RANGE, [POSTS]).success
    migrated.instance.report_run_failed(run)
    migrated.tick("interrupted_runs")
    # Six months, and the table as a whole.
    assert len(migrated.instance.fetch_materializations(POSTS, limit=100).records) == 7


def test_a_process_is_known_from_a_later_one_of_its_number() -> None:
    host, number, start = this_process().rsplit(":", 2)
    assert not is_gone(this_process())
    assert is_gone(f"{host}:{number}:{int(start) + 1}")
    assert not is_gone(f"elsewhere:{number}:{start}")
    ended = subprocess.Popen([sys.executable, "-c", ""])
    ended.wait()
    assert is_gone(f"{host}:{ended.pid}:1")


def test_runs_that_hold_the_last_word_are_not_forgotten(migrated: Place) -> None:
    first = migrated.job("delta", {**RANGE, "dagster/asset_partition_range_end": "2026-02"}, [POSTS])
    later = migrated.job("delta", {**RANGE, "dagster/asset_partition_range_start": "2026-02"}, [POSTS])
    again = migrated.job("delta", {**RANGE, "dagster/asset_partition_range_start": "2026-02"}, [POSTS])
    checks = [spec.key for spec in check_specs(migrated.definitions)]
    tomorrow = datetime.now(UTC) + timedelta(days=1)
    assert runs_to_forget(migrated.instance, checks, datetime.now(UTC) - timedelta(days=1)) == []
    assert runs_to_forget(migrated.instance, checks, tomorrow) == [later.run_id]
    assert {first.run_id, again.run_id} < {run.run_id for run in migrated.instance.get_runs()}


def test_the_job_forgets_old_runs_only(migrated: Place) -> None:
    assert migrated.job("monitoring").success
    assert migrated.job("forget_old_runs").success
    assert migrated.instance.get_runs_count() == 2
