"""A database that is looked at by a role with nothing but pg_monitor, on the newest and on the oldest server."""

from __future__ import annotations

import uuid
from collections.abc import Generator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import Catalog, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring import MEASUREMENTS, Earlier, Measurement, Reading, Verdict, monitoring
from b44_assets.session import Session
from tests.support import database_url

NAMED = {one.name: one for one in MEASUREMENTS}
SQL_DIR = Path(__file__).resolve().parents[2] / "sql"


def settings_with(thresholds: str = "", **environ: str) -> Settings:
    given = {"B44_THRESHOLDS": thresholds} | environ
    return Settings.load({name: value for name, value in given.items() if value}, Path("/nonexistent"))


@dataclass
class Watched:
    """A database, its superuser's URL, and who watches."""

    url: str
    watcher: str
    nobody: str
    catalog: Catalog = field(repr=False)

    @property
    def major(self) -> int:
        with self.connect() as conn:
            return conn.info.server_version // 10_000

    def connect(self, name: str = "app", *, autocommit: bool = True) -> psycopg.Connection[Any]:
        return psycopg.connect(self.url, application_name=name, autocommit=autocommit)

    def execute(self, statement: str, *params: Any) -> list[Any]:
        with self.connect() as conn:
            cursor = conn.execute(statement.encode(), params or None)
            return cursor.fetchall() if cursor.description else []

    def session(self, role: str | None = None) -> Session:
        return Session(
            self.url.replace("postgresql://postgres@", f"postgresql://{role or self.watcher}@"), self.catalog
        )

    def read(
        self,
        name: str | Measurement,
        before: Reading | None = None,
        *,
        role: str | None = None,
        settings: Settings | None = None,
        ago: float | None = None,
    ) -> Reading:
        """What a measurement sees; `ago` says how many seconds back the one before was made."""
        one = NAMED[name] if isinstance(name, str) else name
        earlier = None
        if before is not None:
            at = before.at if ago is None else datetime.now(UTC) - timedelta(seconds=ago)
            earlier = Earlier(at, before.numbers)
        with monitoring(self.session(role), settings or settings_with()) as monitor:
            return monitor.take(one, earlier)

    def verdict(self, check: str, reading: Reading, thresholds: str = "", **environ: str) -> Verdict:
        [found] = [one for one in NAMED[reading.measurement].checks if one.name == check]
        return found.judge(reading, settings_with(thresholds, **environ))


def waits(watched: Watched, pid: int) -> bool:
    return watched.execute("select exists (select from pg_locks where pid = %s and not granted)", pid) == [(True,)]


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog(SQL_DIR)


@pytest.fixture(scope="module")
def watched(server_url: str, catalog: Catalog) -> Generator[Watched]:
    suffix = uuid.uuid4().hex
    name, watcher, nobody = f"watched_{suffix}", f"watcher_{suffix}", f"nobody_{suffix}"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute(sql.SQL("create database {} template template0").format(sql.Identifier(name)))
        for role in (watcher, nobody):
            conn.execute(sql.SQL("create role {} login").format(sql.Identifier(role)))
        conn.execute(sql.SQL("grant pg_monitor to {}").format(sql.Identifier(watcher)))
        try:
            yield Watched(database_url(server_url, name), watcher, nobody, catalog)
        finally:
            conn.execute(sql.SQL("drop database {} with (force)").format(sql.Identifier(name)))
            for role in (watcher, nobody):
                conn.execute(sql.SQL("drop role {}").format(sql.Identifier(role)))
