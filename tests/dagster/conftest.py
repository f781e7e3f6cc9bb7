"""The migrated database of the tests of the graph, and an empty one."""

from __future__ import annotations

from pathlib import Path

import dagster as dg
import pytest

from tests.helpers.code_locations import (
    USERS,
    Place,
    copied,
    instance,
    migrated,
    place_of,
    posts,
    template,
    user,
    write,
)

__all__ = ["copied", "instance", "migrated", "template"]


@pytest.fixture
def empty(embedded_database: str, tmp_path: Path, instance: dg.DagsterInstance) -> Place:
    """Nothing was ever migrated; the export is there."""
    folder = tmp_path / "export"
    folder.mkdir()
    write(folder / "User.jsonl", [user(n) for n in range(USERS)])
    write(folder / "Post.jsonl", posts())
    return place_of(embedded_database, folder, instance)
