"""The migrated database of the tests of the graph."""

from tests.helpers.code_locations import copied, instance, migrated, template

__all__ = ["copied", "instance", "migrated", "template"]
