"""Whatever happens at whichever point of the work: what a re-run comes to is what an undisturbed run comes to."""

from __future__ import annotations

import os
import random
import shutil
import signal
import tempfile
from collections import Counter
from collections.abc import Generator
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psycopg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.errors import B44Error
from b44_assets.failpoints import FAILPOINTS as ALL_FAILPOINTS
from b44_assets.failpoints import Armed, armed
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.session import Connection
from tests.helpers.crashing import ANY, Crasher, Hits, Order, lose, provoked_for, provoking
from tests.helpers.paths import SQL_DIR
from tests.helpers.scenario import FIRST, PHASES, PROVOKED, SECOND, differences, phase_of, state_at
from tests.helpers.stage import Stage, batches_begun, set_stage

# Those of `b44 finish` are passed by tests/acceptance/test_finish.py, which kills it at each.
FAILPOINTS = [name for name in ALL_FAILPOINTS if not name.startswith("finish:")]
AFTER_COMMIT = [name for name in FAILPOINTS if name.endswith("after commit")]


def terminate(name: str, conn: Connection) -> None:
    """Ends the session in the server, and waits until it is gone."""
    if conn.closed:
        return
    with psycopg.connect(conn.info.dsn, autocommit=True) as other:
        other.execute("select pg_terminate_backend(%s, 10000)", (conn.info.backend_pid,))


def middle(scene: Stage, failpoint: str, phase: str) -> int:
    return (scene.phases[phase].hits.get(failpoint, 1) + 1) // 2


def test_every_failpoint_is_passed(scene: Stage) -> None:
    passed = {name for phase in scene.phases.values() for name in phase.hits}
    assert passed | PROVOKED == set(FAILPOINTS)
    assert len(FAILPOINTS) >= 20


# -- killed ------------------------------------------------------------------------------------------------------------


# Every failpoint is passed with sessions ended and answers lost; killed is a process here at a third of them.
@pytest.mark.parametrize(
    "failpoint",
    [
        name if name.endswith("before commit") or name in PROVOKED else pytest.param(name, marks=pytest.mark.slow)
        for name in FAILPOINTS
    ],
)
def test_a_killed_process_is_made_up_for_by_the_next(failpoint: str, scene: Stage, processes: Crasher) -> None:
    phase = phase_of(failpoint)
    with scene.database(phase) as url:
        hit, failing = middle(scene, failpoint, phase), provoked_for(failpoint)
        order = Order(url, str(scene.folder), phase, failpoint, hit, failing=failing)
        assert processes.run(order) == -signal.SIGKILL
        scene.work(url, phase)
        scene.compare(url, phase)
        assert batches_begun(url) - scene.phases[phase].batches <= repeated(failpoint)


def repeated(failpoint: str) -> int:
    """How often a batch is begun that an undisturbed run does not begin: the one under way, and that in as many pieces."""
    if failpoint in PROVOKED:
        return 2
    # A batch of two with a record that is refused is begun as a whole, in halves, and once more to refuse the one.
    return 3 if failpoint.startswith("record refused") else 1


@pytest.mark.slow
def test_killed_at_random_over_and_over(scene: Stage, processes: Crasher) -> None:
    """As many kills as B44_TEST_KILLS says, 300 by default: uniform over all that a run passes, up to three a database."""
    wanted = int(os.environ.get("B44_TEST_KILLS", "300"))
    seed = int(os.environ.get("B44_TEST_SEED", "0")) or random.randrange(1, 2**32)
    chance = random.Random(seed)
    killed: Counter[str] = Counter()
    databases = 0
    while killed.total() < wanted:
        (phase,) = chance.choices(list(PHASES), [sum(found.hits.values()) for found in scene.phases.values()])
        size, streams = chance.choice([1, 2, 3, 1000]), chance.randint(1, 3)
        failing = chance.choice([0, 0, chance.randint(1, 6)])
        told = f"seed {seed}, database {databases}, phase {phase}, size {size}, streams {streams}, failing {failing}"
        databases += 1
        with scene.database(phase) as url:
            for _ in range(chance.randint(1, 3)):
                hit = chance.randint(1, sum(scene.phases[phase].hits.values()))
                told += f", hit {hit}"
                order = Order(url, str(scene.folder), phase, ANY, hit, size, streams, failing)
                status = processes.run(order)
                assert status in (0, -signal.SIGKILL), told
                if status == 0:
                    break
                killed[phase] += 1
            scene.work(url, phase)
            assert differences(state_at(url), scene.phases[phase].state) == {}, told
    print(f"seed {seed}: {killed.total()} kills in {databases} databases: {dict(killed)}")


# -- the session ended by the server, the answer lost --------------------------------------------------------------------


def happening(scene: Stage, phase: str, url: str, hits: list[Hits]) -> None:
    """Does the work of a phase while things happen. It ends by itself, and as if nothing had happened."""

    def what(name: str, conn: Connection) -> None:
        for hit in hits:
            hit(name, conn)

    with armed(what):
        scene.work(url, phase)
    assert all(hit.happened for hit in hits)
    scene.compare(url, phase)


@pytest.mark.parametrize("phase", PHASES)
def test_sessions_that_are_ended_at_every_failpoint_cost_no_run(phase: str, scene: Stage) -> None:
    hits = [Hits(name, middle(scene, name, phase), terminate) for name in scene.phases[phase].hits]
    if phase == SECOND:
        hits += [Hits(name, 1, terminate) for name in PROVOKED]
    with scene.database(phase) as url:
        happening(scene, phase, url, hits)


@pytest.mark.parametrize("phase", PHASES)
def test_answers_that_are_lost_after_every_kind_of_commit_cost_no_run(phase: str, scene: Stage) -> None:
    passed = [name for name in AFTER_COMMIT if name in scene.phases[phase].hits]
    with scene.database(phase) as url:
        happening(scene, phase, url, [Hits(name, middle(scene, name, phase), lose) for name in passed])


@pytest.mark.slow
@pytest.mark.parametrize("what", [terminate, lose], ids=["ended", "lost"])
@pytest.mark.parametrize("failpoint", FAILPOINTS)
def test_a_session_that_is_ended_or_an_answer_that_is_lost_costs_no_run(
    failpoint: str, what: Armed, scene: Stage
) -> None:
    for phase in PHASES:
        for hit in {1, scene.phases[phase].hits.get(failpoint, 0)} if failpoint in scene.phases[phase].hits else ():
            with scene.database(phase) as url:
                happening(scene, phase, url, [Hits(failpoint, hit, what)])


# -- the server shut down ----------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def own_scene(tmp_path_factory: pytest.TempPathFactory) -> Generator[Stage]:
    """A server of these tests' own, which may crash."""
    folder = Path(tempfile.mkdtemp(prefix="b44-crash-"))
    folder.chmod(0o755)
    server = EmbeddedServer(folder / "home")
    server.start()
    catalog = load_catalog(SQL_DIR)
    try:
        with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
            # A crash of the server is none of the machine.
            conn.execute("alter system set fsync = off")
            conn.execute("select pg_reload_conf()")
        phases = set_stage(server, catalog, folder / "exports", crashing=True)
        yield Stage(server, folder / "exports", catalog, phases, crashing=True)
    finally:
        server.stop("immediate")
        shutil.rmtree(folder)


UPDATED_INSTEAD = ("migration.migrated", "migration.replaced", "rows moved")
"""A crash has emptied the plan: what was left to be filled in is an update then, and in the ledger as one."""


def shutting_down(scene: Stage) -> Armed:
    """Shuts the server down at once, and starts it again."""

    def crash(name: str, conn: Connection) -> None:
        scene.server.stop("immediate")
        scene.server.start()

    return crash


@pytest.mark.parametrize(
    "failpoint",
    [
        name
        if name in ("batch: before commit", "rollback: after commit")
        else pytest.param(name, marks=pytest.mark.slow)
        for name in FAILPOINTS
    ],
)
def test_a_server_that_crashes_is_gone_on_with_where_it_was(failpoint: str, own_scene: Stage) -> None:
    scene, phase = own_scene, phase_of(failpoint)
    hit = Hits(failpoint, middle(scene, failpoint, phase), shutting_down(scene))
    with scene.database(phase) as url:
        # What was staged is gone where it was not logged; then the run ends with one line, else it goes on by itself.
        with armed(provoking(provoked_for(failpoint))), armed(hit), suppress(B44Error):
            scene.work(url, phase)
        assert hit.happened
        scene.work(url, phase)
        scene.compare(url, phase, but=otherwise(failpoint, phase))


def test_commits_of_a_throttled_load_that_a_crash_takes_along_are_made_again(own_scene: Stage) -> None:
    scene = own_scene
    # Its first batch, of several: the server need not have written it to disk.
    hit = Hits("batch: after commit", 1, shutting_down(scene))
    with scene.database(FIRST) as url:
        with armed(hit), suppress(B44Error):
            PHASES[FIRST].work(replace(scene.session(url), throttled=True), scene.folder)
        assert hit.happened
        scene.work(url, FIRST)
        scene.compare(url, FIRST, but=UPDATED_INSTEAD)


def otherwise(failpoint: str, phase: str) -> tuple[str, ...]:
    """What is other than after an undisturbed run, as a crash of the server empties what is not logged."""
    if failpoint == "complete: before commit":
        return UPDATED_INSTEAD
    # This phase stages nothing; the next run does.
    return ("base44.",) if phase == "schema" else ()
