"""The migrated database of the tests of the graph."""

from tests.dagster.conftest import instance, migrated, template

__all__ = ["instance", "migrated", "template"]
