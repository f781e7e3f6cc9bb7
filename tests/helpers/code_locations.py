"""A migrated database of a few months, made once and copied for each test, and a code location over it."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache, cached_property
from pathlib import Path
from typing import Any
from unittest import mock

import dagster as dg
import psycopg
import pytest
from alembic.config import Config
from alembic.script import ScriptDirectory
from psycopg import sql

from b44_assets.catalog import Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.orchestration.code_location import definitions_of
from b44_assets.orchestration.resources import Migration
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.schema.build import build
from b44_assets.session import Session
from tests.helpers.databases import create_database, template_once

# The project's own does not change meanwhile.
_catalog = cache(load_catalog)
USERS = 6
POST_MONTHS = ("2026-01", "2026-02", "2026-03", "2026-05")
POSTS_A_MONTH = 4


def object_id(number: int) -> str:
    return f"66000000000000000000{number:04x}"


def user(number: int, **fields: object) -> dict[str, object]:
    when = f"2025-01-{number + 1:02}T08:00:00Z"
    return {"id": object_id(number), "email": f"u{number}@example.org", "created_date": when} | fields


def post(number: int, month: str, **fields: object) -> dict[str, object]:
    when = f"{month}-{number % 27 + 1:02}T10:00:00Z"
    known = {"id": object_id(1000 + number), "title": f"Post {number}", "content": "More than ten characters."}
    return known | {"user_id": object_id(number % USERS), "created_date": when, "updated_date": when} | fields


def posts() -> list[dict[str, object]]:
    return [post(n * POSTS_A_MONTH + i, month) for n, month in enumerate(POST_MONTHS) for i in range(POSTS_A_MONTH)]


def write(path: Path, records: list[dict[str, object]]) -> None:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))


@dataclass
class Place:
    """A code location with its database, its export, and a Dagster instance of its own."""

    settings: Settings
    export: Path
    instance: dg.DagsterInstance

    def __post_init__(self) -> None:
        self.migration = Migration(self.settings, _catalog(self.settings.sql_dir))

    @cached_property
    def definitions(self) -> dg.Definitions:
        return definitions_of(self.migration)

    @property
    def url(self) -> str:
        assert self.settings.database_url is not None
        return self.settings.database_url

    def execute(self, query: str, *params: Any) -> list[Any]:
        with psycopg.connect(self.url, autocommit=True, application_name="test") as conn:
            cursor = conn.execute(query.encode(), params or None)
            return cursor.fetchall() if cursor.description is not None else []

    def tick(self, sensor: str, cursor: str | None = None) -> Any:
        """What a sensor says: run requests, a reason for none, and its cursor."""
        definition = self.definitions.resolve_sensor_def(sensor)
        repository = self.definitions.get_repository_def()
        with dg.build_sensor_context(
            instance=self.instance,
            cursor=cursor,
            resources={"migration": self.migration},
            definitions=self.definitions,
        ) as context:
            assert repository is not None
            return definition.evaluate_tick(context)

    def run(self, request: dg.RunRequest) -> Any:
        """What the daemon would do with a request, in this process."""
        assert request.job_name is not None
        return self.job(request.job_name, request.tags, request.asset_selection)

    def job(self, job: str, tags: Any = None, assets: Any = None, chosen: Any = None) -> Any:
        """A run of a job, or the part of it for some assets; `chosen` is what the launchpad says of the settings."""
        return self.definitions.resolve_job_def(job).execute_in_process(
            instance=self.instance,
            raise_on_error=False,
            tags=dict(tags or {}),
            asset_selection=assets,
            run_config={
                "loggers": {"console": {"config": {"log_level": "CRITICAL"}}},
                "resources": {"migration": {"config": dict(chosen or {})}},
            },
        )

    def said_of_backup(self, run: Any) -> int:
        """How often a run has said that there is no backup of what it changes."""
        return sum("There is no backup of" in event.user_message for event in self.instance.all_logs(run.run_id))

    def months(self) -> dict[str, int]:
        """Posts by month, as the database has them."""
        return dict(
            self.execute("select to_char(created_at at time zone 'UTC', 'YYYY-MM'), count(*) from posts group by 1")
        )

    def said(self, table: str = "posts") -> dict[str, int]:
        """Rows by month, as the latest materializations have them."""
        found: dict[str, int] = {}
        records = self.instance.fetch_materializations(dg.AssetKey(table), limit=1000, ascending=True).records
        for record in records:
            event = record.asset_materialization
            assert event is not None
            if event.partition is None:
                continue  # the table as a whole
            rows = event.metadata["dagster/partition_row_count"].value
            assert isinstance(rows, int)
            found[event.partition] = rows
        return {month: rows for month, rows in found.items() if rows}


@dataclass(frozen=True)
class Template:
    """What copies are made of: the name of a database that nobody is connected to, and the folder of its export."""

    database: str
    export: Path


def place_of(url: str, export: Path, instance: dg.DagsterInstance) -> Place:
    """A code location over a database."""
    environ = {"B44_DATABASE_URL": url, "B44_EXPORT_DIR": str(export), "B44_FIRST_MONTH": "2025-10"}
    return Place(Settings.load(environ=environ, directory=export.parent), export, instance)


def session_of(url: str, directory: Path) -> Session:
    """A session of our own in a database, with the project's own `sql/`."""
    settings = Settings.load(environ={"B44_DATABASE_URL": url}, directory=directory)
    return Session(url, _catalog(settings.sql_dir), run_id="before")


_read_scripts = ScriptDirectory.from_config
_scripts: dict[str | None, ScriptDirectory] = {}


def _scripts_of(config: Config) -> ScriptDirectory:
    location = config.get_main_option("script_location")
    if location not in _scripts:
        _scripts[location] = _read_scripts(config)
    return _scripts[location]


@contextmanager
def ephemeral() -> Generator[dg.DagsterInstance]:
    """An instance in memory. The revisions of Dagster's storage are read once a process, and not twice an instance."""
    with mock.patch.object(ScriptDirectory, "from_config", _scripts_of):
        made = dg.DagsterInstance.ephemeral()
    with made:
        yield made


@pytest.fixture(scope="session")
def template(embedded: EmbeddedServer) -> Template:
    """The migrated export."""
    # Workers share the server, and so the folder that the migration tables speak of.
    folder = embedded.home / "dagster-export"

    def migrate(url: str) -> None:
        folder.mkdir()
        write(folder / "User.jsonl", [user(n) for n in range(USERS)])
        write(folder / "Post.jsonl", posts())
        with session_of(url, folder).keeping() as session:
            for spec in session.catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
                build(session, spec)
            for mapping in session.catalog.mappings.values():
                stage_export(session, mapping, folder)
                load_table(session, mapping)

    return Template(template_once(embedded.url("postgres"), "dagster_template", migrate), folder)


@pytest.fixture
def instance() -> Generator[dg.DagsterInstance]:
    with ephemeral() as made:
        yield made


@pytest.fixture
def copied(embedded: EmbeddedServer, tmp_path: Path) -> Generator[Callable[[Template, dg.DagsterInstance], Place]]:
    """Makes a code location over a copy of a template, gone after the test."""
    made: list[str] = []
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:

        def copy(template: Template, instance: dg.DagsterInstance) -> Place:
            folder = tmp_path / "export"
            shutil.copytree(template.export, folder)
            made.append(f"copy_{os.urandom(8).hex()}")
            create_database(conn, made[-1], template.database)
            return place_of(embedded.url(made[-1]), folder, instance)

        try:
            yield copy
        finally:
            for name in made:
                conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))


@pytest.fixture
def migrated(
    template: Template, instance: dg.DagsterInstance, copied: Callable[[Template, dg.DagsterInstance], Place]
) -> Place:
    """All of the export is migrated."""
    return copied(template, instance)
