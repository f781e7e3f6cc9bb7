"""A process that is suspended with a transaction open does not keep others waiting, and goes on afterwards."""

from __future__ import annotations

import psycopg
import pytest

from b44_assets.failpoints import armed
from b44_assets.session import IDLE_IN_TRANSACTION_MS, Connection
from tests.faults.test_crashes import happening, middle
from tests.helpers.crashing import Hits
from tests.helpers.scenario import FIRST, SECOND
from tests.helpers.stage import Stage
from tests.helpers.waiting import eventually


def limited(conn: Connection, milliseconds: int) -> None:
    """Holds it true that the server ends a transaction of this session in which nothing happens for so long; 0 is never."""
    found = conn.execute(
        "select setting::int from pg_settings where name = 'idle_in_transaction_session_timeout'"
    ).fetchone()
    assert found == (milliseconds,)


@pytest.mark.parametrize(
    "failpoint", ["batch: begun", "batch: before commit", "plan: before commit", "schema: before commit"]
)
def test_what_a_suspended_process_has_locked_is_free_after_a_while(failpoint: str, scene: Stage) -> None:
    phase = next(name for name in (SECOND, FIRST, *scene.phases) if failpoint in scene.phases[name].hits)
    with scene.database(phase) as url, psycopg.connect(url, autocommit=True) as other:

        def suspend(name: str, conn: Connection) -> None:
            # As a process that is stopped: nothing comes from it until its locks are free.
            limited(conn, IDLE_IN_TRANSACTION_MS)
            # Only here, where it is waited for: elsewhere a slow machine may take as long between two statements.
            conn.execute("set local idle_in_transaction_session_timeout = '200ms'")
            held = "select count(*) from pg_locks where pid = %s"
            eventually(lambda: other.execute(held, (conn.info.backend_pid,)).fetchone() == (0,))

        happening(scene, phase, url, [Hits(failpoint, middle(scene, failpoint, phase), suspend)])


def test_reading_an_export_within_a_transaction_may_take_longer(scene: Stage) -> None:
    paused: set[str] = set()

    def pause(name: str, conn: Connection) -> None:
        if name in ("stage: before commit", "unmapped: before commit"):
            limited(conn, 0)
            paused.add(name)

    with scene.database(SECOND) as url:
        with armed(pause):
            scene.work(url, SECOND)
        assert len(paused) == 2
        scene.compare(url, SECOND)
