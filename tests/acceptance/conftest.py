"""Targets for the command, and results of migrations that many tests look at."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator
from dataclasses import asdict
from pathlib import Path

import pytest

from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Command, Result, environment
from tests.helpers.ledger_app import write_app
from tests.helpers.migrated_apps import NEWEST, SHOP, SHOPS, App, Databases, Migrated, migrated_shop
from tests.helpers.paths import EXPORTS, REPOSITORY
from tests.helpers.workers import made_once


@pytest.fixture(scope="session")
def databases(embedded: EmbeddedServer) -> Databases:
    return Databases(embedded)


@pytest.fixture(scope="session")
def dagster_storage(databases: Databases) -> str:
    """URL of a database for Dagster's own storage, one for each worker."""
    return databases.create(f"dagster_{os.getpid()}")


@pytest.fixture
def b44(tmp_path: Path, dagster_storage: str) -> Command:
    """The command in an empty working directory; it has no target yet."""
    directory = tmp_path / "work"
    directory.mkdir()
    return Command(directory, environment(DAGSTER_PG_URL=dagster_storage))


@pytest.fixture(scope="session")
def lean_sql(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of `sql/` without what takes most of a run's time and has no part in what becomes of a record."""
    folder = tmp_path_factory.mktemp("lean") / "sql"
    shutil.copytree(REPOSITORY / "sql", folder, ignore=shutil.ignore_patterns("indexes", "constraints", "queries"))
    return folder


@pytest.fixture
def lean(b44: Command, lean_sql: Path) -> Command:
    """The command with such a folder."""
    return b44.having(B44_SQL_DIR=str(lean_sql))


@pytest.fixture(scope="session")
def small_sql(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An app of three tables: a run of it takes a quarter of the time."""
    folder = tmp_path_factory.mktemp("small") / "sql"
    write_app(folder, 3)
    return folder


@pytest.fixture
def small(b44: Command, small_sql: Path) -> Command:
    """The command with such an app: for what is the same whatever the tables are."""
    return b44.having(B44_SQL_DIR=str(small_sql))


@pytest.fixture
def new_database(databases: Databases) -> Generator[Callable[[str], str]]:
    """Makes databases, dropped after the test, each a copy of another one."""
    made: list[str] = []

    def make(template: str = "template0") -> str:
        made.append(f"acceptance_{uuid.uuid4().hex}")
        return databases.create(made[-1], template)

    yield make
    for name in made:
        databases.drop(name)


@pytest.fixture
def target(new_database: Callable[[str], str]) -> str:
    """URL of an empty database of the test's own."""
    return new_database("template0")


@pytest.fixture(scope="session")
def migrate_once(
    databases: Databases, dagster_storage: str, lean_sql: Path, tmp_path_factory: pytest.TempPathFactory
) -> Callable[[str], Migrated]:
    """Migrates one of the exports beside the tests, once for all workers.

    The newest dialect with all of `sql/`, the others without what has no part in what becomes of a record.
    """
    folder = databases.server.home.parent

    def migrate(dialect: str) -> Migrated:
        name, template = f"migrated_{dialect}", f"template_{dialect}"

        def make() -> str:
            command = Command(tmp_path_factory.mktemp("work"), environment(DAGSTER_PG_URL=dagster_storage))
            if dialect != NEWEST:
                command = command.having(B44_SQL_DIR=str(lean_sql))
            databases.drop(name)
            databases.drop(template)
            result = command.on(databases.create(name))("migrate", "--export", EXPORTS / dialect, "--json")
            databases.create(template, name)
            return json.dumps(asdict(result))

        result = Result(**json.loads(made_once(folder / f"{name}.json", make)))
        assert result.status == 0, result
        return Migrated(template, databases.server.url(name), EXPORTS / dialect, result)

    return migrate


@pytest.fixture
def migrated(migrate_once: Callable[[str], Migrated]) -> Migrated:
    """The export of the newest dialect, migrated undisturbed."""
    return migrate_once(NEWEST)


@pytest.fixture
def finished(migrated: Migrated, new_database: Callable[[str], str]) -> str:
    """URL of a database of the test's own in which a migration has been done."""
    return new_database(migrated.template)


@pytest.fixture(scope="session")
def shop_command(dagster_storage: str, tmp_path_factory: pytest.TempPathFactory) -> Command:
    known = {"B44_SQL_DIR": str(SHOP / "sql"), "DAGSTER_PG_URL": dagster_storage}
    return Command(tmp_path_factory.mktemp("shop"), environment(**known))


@pytest.fixture(params=SHOPS, ids=["pg18", "pg15"])
def shop(request: pytest.FixtureRequest, embedded: EmbeddedServer, shop_command: Command) -> Generator[App]:
    """The second app, migrated."""
    server, dialect = request.param
    with migrated_shop(request.getfixturevalue(server), dialect, embedded.home.parent, shop_command) as app:
        yield app


@pytest.fixture(params=[("embedded", "blog"), *SHOPS], ids=["blog", "shop-pg18", "shop-pg15"])
def app(request: pytest.FixtureRequest, embedded: EmbeddedServer, shop_command: Command) -> Generator[App]:
    """Any app, migrated."""
    server, dialect = request.param
    if dialect != "blog":
        with migrated_shop(request.getfixturevalue(server), dialect, embedded.home.parent, shop_command) as app:
            yield app
        return
    migrated: Migrated = request.getfixturevalue("migrated")
    make: Callable[[str], str] = request.getfixturevalue("new_database")
    yield App(
        name="blog",
        b44=request.getfixturevalue("b44"),
        sql=REPOSITORY / "sql",
        export=migrated.export,
        result=migrated.result,
        url=migrated.url,
        copy=lambda: make(migrated.template),
        empty=lambda: make("template0"),
    )
