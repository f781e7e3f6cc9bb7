"""Databases with the whole schema of `sql/` and a small migrated export, made once for each server."""

from __future__ import annotations

import os
from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.config.settings import Settings
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.schema.build import ON_A_TABLE, build
from b44_assets.session import Session
from tests.helpers.databases import create_database, database_url, template_once
from tests.helpers.sample_exports import small_export
from tests.helpers.schema_templates import Templates
from tests.helpers.sessions import keeping


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Of a test with many variants, the older server runs one; the others are slow ones."""
    seen: set[str] = set()
    for item in items:
        if not isinstance(item, pytest.Function) or item.path.parent != Path(__file__).parent:
            continue
        params = item.callspec.params if hasattr(item, "callspec") else {}
        if params.get("server_url") == "pg15" and len(params) > 1:
            if item.originalname in seen:
                item.add_marker(pytest.mark.slow)
            seen.add(item.originalname)


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    return load_catalog(Settings.load(environ={}).sql_dir)


@pytest.fixture(scope="session")
def templates(server_url: str, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Templates:
    """Made by whichever worker comes first."""

    def load_all(url: str) -> None:
        # Every test copies the database.
        export = small_export(tmp_path_factory.mktemp("export"))
        with keeping(Session(url, catalog)) as session:
            for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
                build(session, spec)
            for mapping in catalog.mappings.values():
                stage_export(session, mapping, export)
                load_table(session, mapping)

    def build_all(url: str) -> None:
        with keeping(Session(url, catalog)) as session:
            for spec in catalog.of(Kind.PARTITION, *ON_A_TABLE, Kind.VIEW):
                build(session, spec)

    loaded = template_once(server_url, "template_loaded", load_all)
    return Templates(server_url, loaded, template_once(server_url, "template_built", build_all, of=loaded))


@pytest.fixture
def loaded(templates: Templates, catalog: Catalog) -> Generator[Session]:
    """A session on a database with loaded tables and none of what comes after."""
    yield from _copied(templates, templates.loaded, catalog)


@pytest.fixture
def built(templates: Templates, catalog: Catalog) -> Generator[Session]:
    """A session on a database with the whole schema."""
    yield from _copied(templates, templates.built, catalog)


@pytest.fixture(scope="session")
def shared(templates: Templates, catalog: Catalog) -> Generator[Session]:
    """As `built`, shared by tests that only add rows of their own."""
    yield from _copied(templates, templates.built, catalog)


def _copied(templates: Templates, template: str, catalog: Catalog) -> Generator[Session]:
    name = f"copy_{os.urandom(8).hex()}"
    with psycopg.connect(templates.server_url, autocommit=True) as conn:
        create_database(conn, name, template)
        try:
            with keeping(Session(database_url(templates.server_url, name), catalog)) as session:
                yield session
        finally:
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(name)))
