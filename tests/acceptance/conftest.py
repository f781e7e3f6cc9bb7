"""Targets for the command, and results of migrations that many tests look at."""

from __future__ import annotations

import json
import os
import shutil
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from b44_assets.postgres.embedded import EmbeddedServer
from tests.acceptance.support import EXPORTS, REPOSITORY, Command, Result, environment
from tests.support import Pg15, create_database, database_url, made_once, write_app

MakeDatabase = Callable[[], str]
NEWEST = "2026-06"
SHOP = REPOSITORY / "examples" / "shop"
# Each dialect on one of the servers.
SHOPS = [("embedded", "csv"), ("pg15", "json")]


@dataclass(frozen=True)
class Migrated:
    """A database that an export was migrated into.

    Attributes:
        template: Name of a copy that is never connected to: more copies are made of it.
        url: Of a copy to read only.
        export: The folder that was migrated.
        result: What the command came to.
    """

    template: str
    url: str
    export: Path
    result: Result


@dataclass(frozen=True)
class App:
    """An app, migrated.

    Attributes:
        name: `blog` or `shop`.
        b44: The command, with the app's folder and no target.
        sql: The app's folder.
        export: What was migrated.
        url: A database to look at only.
        result: What the migration came to.
        copy: Makes a copy to change and returns its URL.
        empty: Makes an empty database and returns its URL.
    """

    name: str
    b44: Command
    sql: Path
    export: Path
    url: str
    result: Result
    copy: Callable[[], str]
    empty: Callable[[], str]


@dataclass(frozen=True)
class Databases:
    """Databases on the shared server."""

    server: EmbeddedServer

    def create(self, name: str, template: str = "template0") -> str:
        """Makes one and returns its URL."""
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            create_database(conn, name, template)
        return self.server.url(name)

    def drop(self, name: str) -> None:
        """Drops one, whoever uses it."""
        with psycopg.connect(self.server.url("postgres"), autocommit=True) as conn:
            conn.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


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


@contextmanager
def migrated_shop(server: EmbeddedServer | Pg15, dialect: str, folder: Path, command: Command) -> Generator[App]:
    """The export of one dialect, migrated into a server once for all workers; copies go with the test."""
    administration = server.url("postgres")
    name, template = f"shop_{dialect}", f"shop_{dialect}_template"
    made: list[str] = []

    def drop(one: str) -> None:
        with psycopg.connect(administration, autocommit=True) as conn:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(one)))

    def copy(one: str, of: str) -> str:
        with psycopg.connect(administration, autocommit=True) as conn:
            create_database(conn, one, of)
        return database_url(administration, one)

    def migrate() -> str:
        drop(name)
        drop(template)
        result = command.on(copy(name, "template0"))("migrate", "--export", SHOP / "export" / dialect, "--json")
        copy(template, name)
        return json.dumps(asdict(result))

    def create(of: str) -> str:
        made.append(f"shop_{uuid.uuid4().hex}")
        return copy(made[-1], of)

    yield App(
        name="shop",
        b44=command,
        sql=SHOP / "sql",
        export=SHOP / "export" / dialect,
        result=Result(**json.loads(made_once(folder / f"{name}.json", migrate))),
        url=database_url(administration, name),
        copy=lambda: create(template),
        empty=lambda: create("template0"),
    )
    for one in made:
        drop(one)


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
