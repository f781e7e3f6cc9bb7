"""Databases at the beginning of each phase of a migration, and what an undisturbed run makes of them."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from b44_assets.catalog import Catalog
from b44_assets.failpoints import armed
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.session import Connection, Session
from tests.helpers.crashing import Hits
from tests.helpers.scenario import PHASES, State, differences, prepare, session_of, state_at, write_exports


@dataclass(frozen=True)
class Undisturbed:
    """What a phase comes to that nothing disturbs.

    Attributes:
        hits: How often each failpoint is passed, in the order of the first time.
        state: All that it leaves.
        batches: The number of the last batch that was begun.
    """

    hits: dict[str, int]
    state: State
    batches: int


@dataclass(frozen=True)
class Stage:
    """A server with a database at the beginning of each phase.

    Attributes:
        server: The server.
        folder: Of both exports.
        catalog: The project's own `sql/`.
        phases: What each phase comes to.
        crashing: Whether the server is one that may crash.
    """

    server: EmbeddedServer
    folder: Path
    catalog: Catalog
    phases: dict[str, Undisturbed]
    crashing: bool = False

    @contextmanager
    def database(self, phase: str) -> Generator[str]:
        """URL of a database of the block's own at the beginning of a phase."""
        name = f"faults_{uuid.uuid4().hex}"
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            _copy(conn, name, _template(phase), crashing=self.crashing)
        try:
            yield self.server.url(name)
        finally:
            # On another connection: the server may have been started anew.
            with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
                conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))

    def session(self, url: str) -> Session:
        """An undisturbed run."""
        return session_of(url, self.catalog)

    def work(self, url: str, phase: str) -> None:
        """Does all of a phase, or what is left of it."""
        PHASES[phase].work(self.session(url), self.folder)

    def rows(self, url: str) -> State:
        """The rows of the app's tables alone."""
        return {name: found for name, found in state_at(url).items() if name.startswith("public.")}

    def compare(self, url: str, phase: str, *, but: tuple[str, ...] = ()) -> None:
        """The database is as an undisturbed one, but for what has a name that begins so."""
        found = differences(state_at(url), self.phases[phase].state)
        assert {name: difference for name, difference in found.items() if not name.startswith(but)} == {}


def _template(phase: str) -> str:
    return f"faults_before_{phase}"


def _copy(conn: Connection, name: str, template: str, *, crashing: bool) -> None:
    # A copy made by way of the WAL is quick, but a crash of the server sets back its sequences: what they have logged ahead
    # is copied as logged, though only the template's log has it.
    conn.execute(
        sql.SQL("create database {} template {} strategy {}").format(
            sql.Identifier(name), sql.Identifier(template), sql.Identifier("file_copy" if crashing else "wal_log")
        )
    )


def batches_begun(url: str) -> int:
    """How many batches were ever begun, whatever became of them: a sequence forgets nothing."""
    with psycopg.connect(url) as conn:
        row = conn.execute("select last_value from migration.batch_number").fetchone()
        assert row is not None
        return row[0]


def set_stage(
    server: EmbeddedServer, catalog: Catalog, folder: Path, *, crashing: bool = False
) -> dict[str, Undisturbed]:
    """Makes the databases on a server, each phase's from the end of the one before."""
    write_exports(folder)
    phases: dict[str, Undisturbed] = {}
    with psycopg.connect(server.url("postgres"), autocommit=True) as conn:
        for name, phase in PHASES.items():
            url = server.url(_template(name))
            _copy(
                conn,
                _template(name),
                "template0" if phase.before is None else f"faults_after_{phase.before}",
                crashing=crashing,
            )
            if phase.before is None:
                prepare(session_of(url, catalog))
            with psycopg.connect(url, autocommit=True) as inside:
                for statement in phase.between:
                    assert inside.execute(statement.encode()).rowcount == 1, statement
            after = f"faults_after_{name}"
            _copy(conn, after, _template(name), crashing=crashing)
            hits = Hits()
            with armed(hits):
                phase.work(session_of(server.url(after), catalog), folder)
            phases[name] = Undisturbed(dict(hits.counts), state_at(server.url(after)), batches_begun(server.url(after)))
    return phases
