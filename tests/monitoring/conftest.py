"""The database that is looked at, on the newest and on the oldest server."""

from __future__ import annotations

import uuid
from collections.abc import Generator

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import Catalog, load_catalog
from tests.helpers.databases import database_url
from tests.helpers.paths import SQL_DIR
from tests.helpers.watched import Watched


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
