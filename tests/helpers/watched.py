"""A database that is looked at by a role with nothing but pg_monitor."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg

from b44_assets.catalog import Catalog
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring import MEASUREMENTS, Earlier, Measurement, Reading, Verdict, monitoring
from b44_assets.session import Session

NAMED = {one.name: one for one in MEASUREMENTS}


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
