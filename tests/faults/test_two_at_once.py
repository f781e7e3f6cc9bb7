"""Two runs of the engine at once, without the command that keeps them apart: what comes of it is what one of them does."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from b44_assets.errors import B44Error, LockLostError
from b44_assets.failpoints import armed
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.plan import make_plan
from b44_assets.session import Connection, migrating
from tests.helpers.scenario import FIRST, PHASES, SECOND
from tests.helpers.stage import Stage


def at_once(*works: Callable[[], None]) -> list[B44Error]:
    """Does all of them at once; what they ended with, one line each."""
    faults: list[B44Error] = []

    def work(number: int) -> None:
        try:
            works[number]()
        except B44Error as error:
            faults.append(error)

    threads = [threading.Thread(target=work, args=(number,)) for number in range(len(works))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert all("\n" not in str(fault) for fault in faults)
    return faults


def test_two_runs_of_one_export_come_to_what_one_comes_to(scene: Stage) -> None:
    with scene.database(SECOND) as url:
        # Where one was in the other's way it says so, and nothing is mixed.
        at_once(*[lambda: scene.work(url, SECOND)] * 2)
        scene.work(url, SECOND)
        scene.compare(url, SECOND)


def test_a_run_that_another_export_overtakes_ends_with_one_line(scene: Stage) -> None:
    with scene.database(SECOND) as url:
        session = scene.session(url)
        mapping = session.catalog.mappings["users"]
        overtaken: list[str] = []

        def overtake(name: str, conn: Connection) -> None:
            if name == "batch: after commit" and not overtaken:
                overtaken.append(name)
                other = replace(session, run_id="other")
                stage_export(other, mapping, scene.folder / FIRST)
                make_plan(other, mapping)

        stage_export(session, mapping, scene.folder / SECOND)
        with armed(overtake):
            (fault,) = at_once(lambda: (load_table(session, mapping), None)[1])
        assert str(fault) == "users: another run has begun on another export meanwhile; migrate again"
        scene.work(url, SECOND)
        # Conflicts and the numbers of the batches tell of the detour; the app's tables do not.
        found, expected = scene.rows(url), scene.phases[SECOND].state
        assert found == {name: rows for name, rows in expected.items() if name.startswith("public.")}


def test_two_exports_at_once_are_not_mixed(scene: Stage, tmp_path: Path) -> None:
    with scene.database(SECOND) as url:
        session = scene.session(url)

        def work(name: str) -> None:
            run = replace(session, run_id=name)
            for mapping in run.catalog.mappings.values():
                stage_export(run, mapping, scene.folder / name)
                load_table(run, mapping)

        at_once(lambda: work(FIRST), lambda: work(SECOND))
        # Whoever came last, the newer one can be migrated afterwards as if it had been alone.
        scene.work(url, SECOND)
        found, expected = scene.rows(url), scene.phases[SECOND].state
        assert found == {name: rows for name, rows in expected.items() if name.startswith("public.")}


@pytest.mark.parametrize("failpoint", ["stage: before commit", "plan: before commit", "batch: before commit"])
def test_a_run_begins_when_nothing_of_one_that_has_lost_its_lock_is_at_work(failpoint: str, scene: Stage) -> None:
    events: list[str] = []
    held: list[int] = []
    goes_on = threading.Event()

    def happens(name: str, conn: Connection) -> None:
        if not held and name == failpoint:
            # In the midst of a transaction, the lock's connection goes, and another run is started.
            held.append(conn.info.backend_pid)
            with psycopg.connect(conn.info.dsn, autocommit=True) as other:
                other.execute(
                    "select pg_terminate_backend(pid, 10000) from pg_stat_activity"
                    " where datname = current_database() and application_name = 'b44 migrate'"
                )
            second.start()
            assert goes_on.wait(60)
        elif held and conn.info.backend_pid == held[0]:
            events.append("the first has committed")
        elif held:
            events.append("the second works")
            goes_on.set()

    def told(line: str) -> None:
        events.append("the second waits")
        assert f"process {held[0]} " in line
        goes_on.set()

    def again() -> None:
        with migrating(scene.session(url), told) as lock:
            PHASES[SECOND].work(scene.session(url).under(lock), scene.folder)

    with scene.database(SECOND) as url:
        second = threading.Thread(target=again)
        with (
            armed(happens),
            pytest.raises(LockLostError, match="run the same command again"),
            migrating(scene.session(url), events.append) as lock,
        ):
            PHASES[SECOND].work(scene.session(url).under(lock), scene.folder)
        with armed(happens):
            second.join(120)
        assert events[:2] == ["the second waits", "the first has committed"]
        assert set(events[2:]) == {"the second works"}
        scene.compare(url, SECOND)


def test_runs_that_share_the_lock_do_not_wait_for_each_other(scene: Stage) -> None:
    said: list[str] = []
    with (
        scene.database(SECOND) as url,
        migrating(scene.session(url), said.append, shared=True) as one,
        scene.session(url).under(one).connection("load of one"),
        migrating(scene.session(url), said.append, shared=True) as other,
        scene.session(url).under(other).connection("load of the other"),
        migrating(scene.session(url), said.append, shared=True),
    ):
        one.check()
        other.check()
    assert said == []


def test_what_is_at_work_without_keeping_others_away_is_not_waited_for(scene: Stage) -> None:
    said: list[str] = []
    with (
        scene.database(SECOND) as url,
        scene.session(url).connection("verify"),
        migrating(scene.session(url), said.append),
    ):
        pass
    assert said == []
