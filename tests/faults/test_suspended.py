"""A process that is suspended with a transaction open does not keep others waiting, and goes on afterwards."""

from __future__ import annotations

import time

import psycopg
import pytest

from b44_assets import session as engine_session
from b44_assets.failpoints import armed
from b44_assets.session import Connection
from tests.faults.test_crashes import happening, middle
from tests.helpers.crashing import Hits
from tests.helpers.scenario import FIRST, SECOND
from tests.helpers.stage import Stage


@pytest.mark.parametrize(
    "failpoint", ["batch: begun", "batch: before commit", "plan: before commit", "schema: before commit"]
)
def test_what_a_suspended_process_has_locked_is_free_after_a_while(
    failpoint: str, scene: Stage, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(engine_session, "IDLE_IN_TRANSACTION_MS", 200)
    phase = next(name for name in (SECOND, FIRST, *scene.phases) if failpoint in scene.phases[name].hits)
    with scene.database(phase) as url, psycopg.connect(url, autocommit=True) as other:

        def suspend(name: str, conn: Connection) -> None:
            # As a process that is stopped: nothing comes from it. That lasts until its locks are free, or the test gives up.
            held = "select count(*) from pg_locks where pid = %s"
            left = None
            for _ in range(200):
                left = other.execute(held, (conn.info.backend_pid,)).fetchone()
                if left == (0,):
                    return
                other.execute("select pg_sleep(0.05)")
            raise AssertionError(f"{name}: {left} locks are held still")

        happening(scene, phase, url, [Hits(failpoint, middle(scene, failpoint, phase), suspend)])


def test_reading_an_export_within_a_transaction_may_take_longer(scene: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine_session, "IDLE_IN_TRANSACTION_MS", 100)
    paused: list[int] = []

    def pause(name: str, conn: Connection) -> None:
        if name in ("stage: before commit", "unmapped: before commit"):
            time.sleep(0.3)
            assert conn.execute("select 1").fetchone() == (1,)
            paused.append(conn.info.backend_pid)

    with scene.database(SECOND) as url:
        with armed(pause):
            scene.work(url, SECOND)
        assert paused
        scene.compare(url, SECOND)
