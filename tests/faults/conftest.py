"""The databases at the beginning of each phase, made once, and the processes that are killed."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator

import pytest

from b44_assets.catalog import load_catalog
from b44_assets.postgres.embedded import EmbeddedServer
from tests.helpers.crashing import Crasher, crasher
from tests.helpers.paths import SQL_DIR
from tests.helpers.stage import Stage, Undisturbed, set_stage
from tests.helpers.workers import locked


@pytest.fixture(scope="session")
def set_once(embedded: EmbeddedServer) -> Callable[[], Stage]:
    """Sets the stage on the shared server, by whichever worker comes first."""

    def make() -> Stage:
        folder = embedded.home.parent / "faults"
        catalog = load_catalog(SQL_DIR)
        with locked(folder.with_suffix(".lock")):
            kept = folder / "phases.json"
            if not kept.exists():
                phases = set_stage(embedded, catalog, folder)
                kept.write_text(json.dumps({name: vars(found) for name, found in phases.items()}))
        phases = {name: Undisturbed(**found) for name, found in json.loads(kept.read_text()).items()}
        return Stage(embedded, folder, catalog, phases)

    return make


@pytest.fixture(scope="session")
def scene(set_once: Callable[[], Stage]) -> Stage:
    return set_once()


@pytest.fixture(scope="session")
def processes() -> Generator[Crasher]:
    """Where processes to be killed come from."""
    with crasher() as server:
        yield server
