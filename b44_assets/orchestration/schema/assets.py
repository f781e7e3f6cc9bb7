"""Files of the schema as assets: the program's own schemas, functions, tables without records, what stands on a table, views."""

from collections.abc import Iterator, Sequence
from typing import Any

import dagster as dg

from b44_assets.catalog import Catalog, Kind, Spec
from b44_assets.maintenance.index_maintenance import analyze
from b44_assets.orchestration.common import OWNERS, key_of, spec_of
from b44_assets.orchestration.metadata import of_columns, of_table
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schema.jobs import MANAGE_PARTITIONS, REFRESH_VIEWS
from b44_assets.orchestration.schema.metadata import of_change, of_partitions
from b44_assets.schema.apply import apply, apply_functions, ensure_tables
from b44_assets.schema.build import ON_A_TABLE
from b44_assets.schema.health import view_fresh
from b44_assets.schema.introspection import columns_described, describe
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partitions import apply_partitions
from b44_assets.schema.plain_views import apply_plain_view
from b44_assets.schema.roles import apply_role
from b44_assets.schema.runtime import runtime_digest
from b44_assets.schema.view_schemas import apply_view_schema
from b44_assets.schema.views import apply_view, refresh

MIGRATION_SCHEMA_KEY = dg.AssetKey("migration")
B44_SCHEMA_KEY = dg.AssetKey("b44")


def build_assets(catalog: Catalog) -> list[dg.AssetsDefinition]:
    """Everything that the files make but the tables that records are loaded into."""
    tables = dict.fromkeys(spec.options["on"] for spec in catalog.of(*ON_A_TABLE))
    return [
        _runtime(catalog),
        *([_functions(functions)] if (functions := catalog.of(Kind.FUNCTION)) else []),
        *(_plain_table(spec) for spec in catalog.of(Kind.TABLE) if spec.name not in catalog.mappings),
        *(_partition_set(spec) for spec in catalog.of(Kind.PARTITION)),
        *(_schema_of(catalog, table, schema_on(catalog, table)) for table in tables),
        *(_view(spec) for spec in catalog.materialized_views),
        *(_plain_view(spec) for spec in catalog.plain_views),
        *(_view_schema(spec) for spec in catalog.of(Kind.VIEW_SCHEMA)),
        *([_roles(catalog, roles)] if (roles := catalog.of(Kind.ROLE)) else []),
    ]


def schema_on(catalog: Catalog, table: str) -> list[Spec]:
    """Index groups, constraints, triggers and policies on a table, in the order of the work."""
    return [spec for kind in ON_A_TABLE for spec in catalog.on(table, kind)]


def _runtime(catalog: Catalog) -> dg.AssetsDefinition:
    """The program's own schemas. They are no upstream of data: whoever works on the target installs them first."""
    of_schema = {
        MIGRATION_SCHEMA_KEY: "The migration's own tables and functions; they go after the cut-over (b44 finish).",
        B44_SCHEMA_KEY: "The program's tables and functions that stay in use after the cut-over.",
    }

    @dg.multi_asset(
        name="runtime",
        specs=[
            dg.AssetSpec(
                key,
                description=description,
                group_name="runtime",
                kinds={"postgres", "sql"},
                owners=OWNERS,
                code_version=runtime_digest(catalog)[:16],
            )
            for key, description in of_schema.items()
        ],
        can_subset=True,
    )
    def runtime(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        with migration.installed_session(context):
            pass
        for key in of_schema:
            if key in context.selected_asset_keys:
                yield dg.MaterializeResult(asset_key=key)

    return runtime


def _functions(specs: Sequence[Spec]) -> dg.AssetsDefinition:
    """Many small objects in one step, each an asset: a step of its own for each would cost more than the work."""

    @dg.multi_asset(name="functions", specs=[dg.AssetSpec(**spec_of(spec)) for spec in specs], can_subset=True)
    def functions(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        chosen = [spec for spec in specs if key_of(spec.name) in context.selected_asset_keys]
        with migration.installed_session(context) as session:
            for applied in apply_functions(session, chosen):
                yield dg.MaterializeResult(asset_key=key_of(applied.name), metadata={"statements": applied.statements})

    return functions


def _asset_specs(catalog: Catalog, specs: Sequence[Spec]) -> list[dg.AssetSpec]:
    return [dg.AssetSpec(**spec_of(spec, deps=[key_of(name) for name in catalog.upstream(spec)])) for spec in specs]


def _schema_of(catalog: Catalog, table: str, specs: Sequence[Spec]) -> dg.AssetsDefinition:
    """What stands on one table, each file an asset, in one step."""

    @dg.multi_asset(name=f"{table}_schema", specs=_asset_specs(catalog, specs), can_subset=True)
    def schema(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        indexed = False
        chosen = [spec for spec in specs if key_of(spec.name) in context.selected_asset_keys]
        with migration.installed_session(context) as session:
            ensure_tables(session, (table, *(name for spec in specs for name in spec.depends)))
            for spec in chosen:
                done = ON_A_TABLE[spec.kind](session, spec)
                indexed |= spec.kind is Kind.INDEX and done.changed
                _log_change(context, migration, done, listed=spec.lists_unfit_rows)
                yield dg.MaterializeResult(asset_key=key_of(spec.name), metadata=of_change(done))
            if indexed:
                # Expressions have statistics only once they are indexed, and after a first load nothing has any.
                analyze(session, table)

    return schema


def _partition_set(spec: Spec) -> dg.AssetsDefinition:
    """The partitions of a table."""
    table = spec.options["on"]

    def partition_set(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        with migration.installed_session(context) as session:
            ensure_tables(session, (table,))
            done = apply_partitions(session, spec, keep_months=migration.settings.keep_months.get(table))
        for what, names in (("made", done.made), ("detached", done.detached)):
            if names:
                context.log.info(f"{table}: {what} {', '.join(names)}")
        if done.failed is not None:
            # The check of its bounds fails for it, too; nothing stands on it, and all else goes on.
            migration.warn(context, done.failed)
        return dg.MaterializeResult(metadata=of_partitions(done))

    return dg.asset(**spec_of(spec, freshness_policy=MANAGE_PARTITIONS.freshness))(partition_set)


def _view(spec: Spec) -> dg.AssetsDefinition:
    """A materialized view, made, and filled where it differs from its query or its tables have changed since."""

    def view(context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]) -> dg.MaterializeResult[Any]:
        with migration.installed_session(context) as session:
            ensure_tables(session, spec.depends)
            done = apply_view(session, spec)
            refreshed = done.refreshed
            if spec.name in done.unchanged and not refreshed:
                fresh = view_fresh(session, spec)
                # Its rows came out the same; but it would go on counting as older than its tables, or as never filled.
                if fresh.changed_since or fresh.refreshed_at is None:
                    refresh(session, spec)
                    refreshed = True
            facts = of_change(done) | {"refreshed": refreshed}
            if not done.failed:
                facts |= of_table(describe(session, spec.name))
        _log_change(context, migration, done)
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**spec_of(spec, freshness_policy=REFRESH_VIEWS.freshness))(view)


def _plain_view(spec: Spec) -> dg.AssetsDefinition:
    """A view without rows of its own."""

    def view(context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]) -> dg.MaterializeResult[Any]:
        with migration.installed_session(context) as session:
            ensure_tables(session, spec.depends)
            done = apply_plain_view(session, spec)
            facts = of_change(done) | of_columns(spec.name, columns_described(session, spec.name))
        _log_change(context, migration, done)
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**spec_of(spec))(view)


def _view_schema(spec: Spec) -> dg.AssetsDefinition:
    """A schema of plain views, all in one step."""

    def view_schema(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        with migration.installed_session(context) as session:
            ensure_tables(session, spec.depends)
            done = apply_view_schema(session, spec)
        _log_change(context, migration, done)
        return dg.MaterializeResult(metadata=of_change(done))

    return dg.asset(**spec_of(spec))(view_schema)


def _roles(catalog: Catalog, specs: Sequence[Spec]) -> dg.AssetsDefinition:
    """Roles and what they may do, each file an asset, in one step."""

    @dg.multi_asset(name="roles", specs=_asset_specs(catalog, specs), can_subset=True)
    def roles(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        with migration.installed_session(context) as session:
            for spec in specs:
                if key_of(spec.name) in context.selected_asset_keys:
                    ensure_tables(session, spec.depends)
                    done = apply_role(session, spec)
                    _log_change(context, migration, done)
                    yield dg.MaterializeResult(asset_key=key_of(spec.name), metadata=of_change(done))

    return roles


def _plain_table(spec: Spec) -> dg.AssetsDefinition:
    """A table without migrated rows."""

    def plain_table(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        with migration.installed_session(context) as session:
            applied = apply(session, spec)
            facts = {"statements": applied.statements} | of_table(describe(session, spec.name))
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**spec_of(spec))(plain_table)


def _log_change(
    context: dg.AssetExecutionContext, migration: Migration, done: SchemaChange, *, listed: bool = False
) -> None:
    for why in done.failed.values():
        # The checks of the table fail for it, too; nothing stands on it, and all else goes on.
        if listed:
            context.log.info(why)
        else:
            migration.warn(context, why)
    for what in ("created", "replaced", "repaired"):
        if names := getattr(done, what):
            context.log.info(f"{done.name}: {what} {', '.join(names)}")
