"""Any file of `sql/` brought into the database by whoever knows its kind."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from b44_assets.catalog import Kind, Spec, view_definition
from b44_assets.schema.apply import Applied, apply
from b44_assets.schema.constraints import apply_constraints
from b44_assets.schema.indexes import apply_indexes
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partitions import PartitionSet, apply_partitions
from b44_assets.schema.plain_views import apply_plain_view
from b44_assets.schema.roles import apply_role
from b44_assets.schema.row_security import apply_policies
from b44_assets.schema.triggers import apply_triggers
from b44_assets.schema.view_schemas import apply_view_schema
from b44_assets.schema.views import apply_view
from b44_assets.session import Session

ON_A_TABLE: Mapping[Kind, Callable[[Session, Spec], SchemaChange]] = {
    Kind.INDEX: apply_indexes,
    Kind.CONSTRAINT: apply_constraints,
    Kind.TRIGGER: apply_triggers,
    Kind.POLICY: apply_policies,
}
"""What stands on a table, in the order of the work."""


def _apply_view(session: Session, spec: Spec) -> SchemaChange:
    return apply_view(session, spec) if view_definition(spec).materialized else apply_plain_view(session, spec)


_EXECUTORS: Mapping[Kind, Callable[[Session, Spec], Applied | PartitionSet | SchemaChange]] = {
    Kind.RUNTIME: apply,
    Kind.FUNCTION: apply,
    Kind.TABLE: apply,
    Kind.PARTITION: apply_partitions,
    **ON_A_TABLE,
    Kind.VIEW: _apply_view,
    Kind.VIEW_SCHEMA: apply_view_schema,
    Kind.ROLE: apply_role,
}


def build(session: Session, spec: Spec) -> Applied | PartitionSet | SchemaChange:
    """Brings a file into the database.

    Args:
        session: The run.
        spec: Of any kind but `WITHOUT_OBJECT`.

    Raises:
        DatabaseError: A statement fails, or no lock was to be had; names file and line.
    """
    return _EXECUTORS[spec.kind](session, spec)
