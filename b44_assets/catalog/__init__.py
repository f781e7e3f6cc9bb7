"""The folder `sql/`, read into frozen specs.

What belongs here: the form of the files (header, statements, dependencies) and the complaints about breaking it. What
does not: running any of it, or knowing what a table is for. Neither Dagster nor psycopg is imported.

A file's folder says its kind and its name says the object's. Its first comment says what it is, then come `-- key: value`
lines; a value goes on in lines indented by three spaces::

    -- What becomes of an Invoice record.
    -- entity: Invoice
    -- depends: customers, currencies
"""

from __future__ import annotations

from b44_assets.catalog.columns import DeclaredColumn, declared_columns
from b44_assets.catalog.definitions import (
    FOREIGN_KEY,
    constraint_definitions,
    index_definitions,
    query_definition,
    role_definition,
    row_check,
    row_security,
    trigger_definitions,
    view_definition,
    view_schema,
)
from b44_assets.catalog.headers import STANDARD_ROLES
from b44_assets.catalog.loader import Catalog, GroupRights, load_catalog
from b44_assets.catalog.model import (
    WITHOUT_OBJECT,
    ConstraintDefinition,
    ExchangeableUnique,
    Field,
    IndexDefinition,
    Kind,
    Period,
    PolicyDefinition,
    Query,
    RoleDefinition,
    RowCheck,
    RowSecurity,
    Seed,
    Spec,
    Statement,
    TableMapping,
    TriggerDefinition,
    UniqueSuffix,
    ViewDefinition,
    ViewOfSchema,
    ViewSchema,
)
from b44_assets.catalog.statements import split_statements

__all__ = [
    "FOREIGN_KEY",
    "STANDARD_ROLES",
    "WITHOUT_OBJECT",
    "Catalog",
    "ConstraintDefinition",
    "DeclaredColumn",
    "ExchangeableUnique",
    "Field",
    "GroupRights",
    "IndexDefinition",
    "Kind",
    "Period",
    "PolicyDefinition",
    "Query",
    "RoleDefinition",
    "RowCheck",
    "RowSecurity",
    "Seed",
    "Spec",
    "Statement",
    "TableMapping",
    "TriggerDefinition",
    "UniqueSuffix",
    "ViewDefinition",
    "ViewOfSchema",
    "ViewSchema",
    "constraint_definitions",
    "declared_columns",
    "index_definitions",
    "load_catalog",
    "query_definition",
    "role_definition",
    "row_check",
    "row_security",
    "split_statements",
    "trigger_definitions",
    "view_definition",
    "view_schema",
]
