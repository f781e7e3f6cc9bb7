"""A database with `sql/` applied, on either server or on the embedded one."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping

import pytest

from b44_assets.catalog import Catalog, load_catalog
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.paths import SQL_DIR
from tests.helpers.records import Record
from tests.helpers.target import Target, copied_target


@pytest.fixture(scope="session")
def catalog() -> Catalog:
    """The project's own `sql/`."""
    return load_catalog(SQL_DIR)


@pytest.fixture(scope="session")
def shared_target(server_url: str, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory) -> Generator[Target]:
    """A worker's database on either server. Whoever uses it resets it first."""
    with copied_target(server_url, catalog, tmp_path_factory.mktemp("export")) as target:
        yield target


@pytest.fixture
def target(shared_target: Target) -> Target:
    """A database with `sql/` applied and nothing migrated, on either server."""
    shared_target.reset()
    return shared_target


@pytest.fixture(scope="session")
def shared_target_18(
    embedded: EmbeddedServer, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> Generator[Target]:
    """A worker's database on the embedded server. Whoever uses it resets it first."""
    with copied_target(embedded.url("postgres"), catalog, tmp_path_factory.mktemp("export")) as target:
        yield target


@pytest.fixture
def target_18(shared_target_18: Target) -> Target:
    """As `target`, on the embedded server alone: for what does not depend on the server."""
    shared_target_18.reset()
    return shared_target_18


@pytest.fixture
def migrated(target_18: Target) -> Callable[[Mapping[str, Iterable[Record]]], Target]:
    """Migrates records, by entity, into an otherwise empty database on the embedded server."""

    def migrate(records: Mapping[str, Iterable[Record]]) -> Target:
        target_18.migrate(records)
        return target_18

    return migrate
