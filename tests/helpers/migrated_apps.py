"""Apps that were migrated once for all tests that look at them."""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Generator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import psycopg
from psycopg import sql

from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.command import Command, Result
from tests.helpers.databases import create_database, database_url
from tests.helpers.paths import REPOSITORY
from tests.helpers.servers import Pg15
from tests.helpers.workers import made_once

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
