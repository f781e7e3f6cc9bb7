"""Factories: specs of the catalogue into assets."""

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import dagster as dg

from b44_assets.catalog import Catalog, Kind, Spec, TableMapping
from b44_assets.maintenance.index_maintenance import analyze, index_usage, reindex_bloated
from b44_assets.maintenance.size_metrics import measure_sizes, repairs_by_rule, staged_fields
from b44_assets.maintenance.vacuum import sweep
from b44_assets.migration.lineage import origins
from b44_assets.migration.load import Load, load
from b44_assets.migration.progress import load_months, settle_again, standing
from b44_assets.migration.staging import stage
from b44_assets.migration.unmapped_entities import keep_strays
from b44_assets.orchestration import metadata
from b44_assets.orchestration.partitions import is_monthly, key_of_month, range_of
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import (
    MAINTENANCE_JOB,
    MONITORING_JOB,
    PARTITIONS_JOB,
    REFRESH_JOB,
    STATISTICS_JOB,
    TIMETABLE,
)
from b44_assets.schema.apply import apply, ensure_tables
from b44_assets.schema.build import ON_A_TABLE
from b44_assets.schema.health import view_fresh
from b44_assets.schema.introspection import describe
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partitions import apply_partitions
from b44_assets.schema.runtime import runtime_digest
from b44_assets.schema.views import apply_view, refresh
from b44_assets.session import Session

OWNERS = ["team:database"]
EXPORT_STAGE = "exports"
INDEX_USAGE_KEY = dg.AssetKey(["monitoring", "index_usage"])
REBUILT_INDEXES_KEY = dg.AssetKey(["monitoring", "rebuilt_indexes"])
PENDING_WORK_KEY = dg.AssetKey(["monitoring", "pending_work"])
STATISTICS_KEY = dg.AssetKey(["monitoring", "statistics"])
TABLE_SIZES_KEY = dg.AssetKey(["monitoring", "table_sizes"])
MIGRATION_SCHEMA_KEY = dg.AssetKey("migration")
B44_SCHEMA_KEY = dg.AssetKey("b44")
STRAYS_KEY = dg.AssetKey(["base44", "other_entities"])


def key_of(name: str) -> dg.AssetKey:
    """The asset of an object of `sql/`."""
    return dg.AssetKey(name.split("/"))


def export_key(table: str) -> dg.AssetKey:
    """The staged export of a table."""
    return dg.AssetKey(["base44", table])


def build_assets(catalog: Catalog, months: dg.MonthlyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The whole graph, but for the checks.

    Args:
        catalog: The files of `sql/`.
        months: Partitions of the tables that are loaded by month.
    """
    assets = [
        _runtime(catalog),
        *([_functions(functions)] if (functions := catalog.of(Kind.FUNCTION)) else []),
        *(_staged_export(mapping) for mapping in catalog.mappings.values()),
        _other_entities(),
    ]
    for spec in catalog.of(Kind.TABLE):
        mapping = catalog.mappings.get(spec.name)
        assets.append(_plain_table(spec) if mapping is None else _table(spec, mapping, catalog, months))
    assets.extend(_partition_set(spec) for spec in catalog.of(Kind.PARTITION))
    tables = dict.fromkeys(spec.options["on"] for spec in catalog.of(*ON_A_TABLE))
    assets.extend(_schema_of(table, schema_on(catalog, table)) for table in tables)
    assets.extend(_view(spec) for spec in catalog.of(Kind.VIEW))
    assets.append(_index_usage(catalog))
    assets += [_rebuilt_indexes(), _pending_work(catalog), _statistics(catalog), _table_sizes(catalog)]
    return assets


def schema_on(catalog: Catalog, table: str) -> list[Spec]:
    """Index groups, constraints and triggers on a table, in the order of the work."""
    return [spec for kind in ON_A_TABLE for spec in catalog.on(table, kind)]


def operation(
    key: dg.AssetKey,
    description: str,
    deps: Sequence[dg.AssetKey],
    work: Callable[[dg.AssetExecutionContext, Migration], dict[str, Any]],
    *,
    job: str | None = None,
) -> dg.AssetsDefinition:
    """An asset that no file of `sql/` makes: work on the database, whose metadata say what was done.

    Args:
        key: Its first part is the group.
        description: For the UI.
        deps: What it looks at.
        work: Returns the metadata.
        job: The one whose schedule keeps it fresh, if one does.
    """

    @dg.asset(
        key=key,
        deps=deps,
        description=description,
        freshness_policy=None if job is None else TIMETABLE[job].freshness,
        group_name=key.path[0],
        kinds={"postgres"},
        owners=OWNERS,
        code_version="1",
    )
    def of_operation(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata=work(context, migration))

    return of_operation


def _spec_of(spec: Spec, **more: Any) -> Any:
    return {
        "key": key_of(spec.name),
        "deps": [key_of(name) for name in dict.fromkeys((*spec.depends, *spec.options.get("on", "").split()))],
        "description": spec.description,
        "group_name": spec.kind.value,
        "kinds": {"postgres", "sql"},
        "owners": OWNERS,
        "code_version": spec.digest[:16],
        "metadata": metadata.code_reference(spec),
        **more,
    }


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

    @dg.multi_asset(name="functions", specs=[dg.AssetSpec(**_spec_of(spec)) for spec in specs], can_subset=True)
    def functions(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        chosen = [spec for spec in specs if key_of(spec.name) in context.selected_asset_keys]
        with migration.installed_session(context) as session:
            for spec in chosen:
                applied = apply(session, spec)
                yield dg.MaterializeResult(asset_key=key_of(spec.name), metadata={"statements": applied.statements})

    return functions


def _schema_of(table: str, specs: Sequence[Spec]) -> dg.AssetsDefinition:
    """What stands on one table, each file an asset, in one step."""

    @dg.multi_asset(name=f"{table}_schema", specs=[dg.AssetSpec(**_spec_of(spec)) for spec in specs], can_subset=True)
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
                _log_change(context, migration, done)
                yield dg.MaterializeResult(asset_key=key_of(spec.name), metadata=metadata.of_change(done))
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
        return dg.MaterializeResult(metadata=metadata.of_partitions(done))

    return dg.asset(**_spec_of(spec, freshness_policy=TIMETABLE[PARTITIONS_JOB].freshness))(partition_set)


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
            facts = metadata.of_change(done) | {"refreshed": refreshed}
            if not done.failed:
                facts |= metadata.of_table(describe(session, spec.name))
        _log_change(context, migration, done)
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**_spec_of(spec, freshness_policy=TIMETABLE[REFRESH_JOB].freshness))(view)


def _in_session(
    work: Callable[[dg.AssetExecutionContext, Session], dict[str, Any]],
) -> Callable[[dg.AssetExecutionContext, Migration], dict[str, Any]]:
    def done(context: dg.AssetExecutionContext, migration: Migration) -> dict[str, Any]:
        with migration.session(context) as session:
            return work(context, session)

    return done


def _index_usage(catalog: Catalog) -> dg.AssetsDefinition:
    return operation(
        INDEX_USAGE_KEY,
        "Size, use and bloat of every index.",
        [key_of(spec.name) for spec in catalog.of(Kind.INDEX, Kind.CONSTRAINT, Kind.VIEW)],
        _in_session(lambda context, session: metadata.of_index_usage(index_usage(session))),
        job=MAINTENANCE_JOB,
    )


def _rebuilt_indexes() -> dg.AssetsDefinition:
    return operation(
        REBUILT_INDEXES_KEY,
        "Indexes rebuilt CONCURRENTLY, since half of them or more was bloat.",
        [INDEX_USAGE_KEY],
        _in_session(lambda context, session: metadata.of_rebuilt(reindex_bloated(session))),
        job=MAINTENANCE_JOB,
    )


def _pending_work(catalog: Catalog) -> dg.AssetsDefinition:
    def settled_again(context: dg.AssetExecutionContext, session: Session) -> dict[str, Any]:
        settle_again(session)
        return metadata.of_standing(standing(session))

    return operation(
        PENDING_WORK_KEY,
        "Records that wait for their batch, by table and month: what is staged is judged anew where its export, or what its"
        " mapping reads, has changed. The sensor pending_work then has them loaded.",
        [
            *(export_key(table) for table in catalog.mappings),
            *(key_of(table) for table in catalog.mappings if not is_monthly(catalog, table)),
        ],
        _in_session(settled_again),
    )


def _statistics(catalog: Catalog) -> dg.AssetsDefinition:
    return operation(
        STATISTICS_KEY,
        "What the planner knows of the tables, and dead rows: those that have changed enough since the last time are vacuumed"
        " and analyzed, which keeps no reader or writer waiting.",
        [key_of(spec.name) for spec in catalog.of(Kind.TABLE)],
        _in_session(lambda context, session: metadata.of_sweep(sweep(session))),
        job=STATISTICS_JOB,
    )


def _table_sizes(catalog: Catalog) -> dg.AssetsDefinition:
    def measured(context: dg.AssetExecutionContext, session: Session) -> dict[str, Any]:
        sizes = measure_sizes(session)
        return metadata.of_sizes(sizes, context.instance.get_latest_materialization_event(TABLE_SIZES_KEY))

    return operation(
        TABLE_SIZES_KEY,
        "Size of every table with its indexes, and how fast it grows: plotted over time.",
        [key_of(spec.name) for spec in catalog.of(Kind.TABLE)],
        _in_session(measured),
        job=MONITORING_JOB,
    )


def _log_change(context: dg.AssetExecutionContext, migration: Migration, done: SchemaChange) -> None:
    for why in done.failed.values():
        # The checks of the table fail for it, too; nothing stands on it, and all else goes on.
        migration.warn(context, why)
    for what in ("created", "replaced", "repaired"):
        if names := getattr(done, what):
            context.log.info(f"{done.name}: {what} {', '.join(names)}")


def _plain_table(spec: Spec) -> dg.AssetsDefinition:
    """A table without migrated rows."""

    def plain_table(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        with migration.installed_session(context) as session:
            applied = apply(session, spec)
            facts = {"statements": applied.statements} | metadata.of_table(describe(session, spec.name))
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**_spec_of(spec))(plain_table)


def _staged_export(mapping: TableMapping) -> dg.AssetsDefinition:
    """The export of an entity, as it came."""
    table = mapping.spec.name

    @dg.asset(
        key=export_key(table),
        description=f"The exported {mapping.entity} records as they came, one text column for each exported field.",
        group_name=EXPORT_STAGE,
        kinds={"postgres", "csv", "json"},
        owners=OWNERS,
        code_version="1",
    )
    def staged_export(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        migration.keep_others_away(context, stages=True)
        with migration.installed_session(context) as session:
            staged = stage(session, mapping, migration.export_dir)
        if staged.dialect == "absent":
            migration.warn(
                context,
                f"the export has no file for {mapping.entity}; {table} stays without migrated rows{staged.hint}",
            )
        return dg.MaterializeResult(metadata=metadata.of_export(staged))

    return staged_export


def _other_entities() -> dg.AssetsDefinition:
    @dg.asset(
        key=STRAYS_KEY,
        description="Exported entities that sql/ has no table for; their records are kept whole in migration.unmapped.",
        group_name=EXPORT_STAGE,
        kinds={"postgres", "csv", "json"},
        owners=OWNERS,
        code_version="1",
    )
    def other_entities(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        migration.keep_others_away(context, stages=True)
        with migration.installed_session(context) as session:
            strays = keep_strays(session, migration.export_dir)
        for one in strays.entities:
            if one.records:
                migration.warn(
                    context,
                    f"no table in sql/ for {one.entity}: its {one.records:,} records are kept in migration.unmapped"
                    f"{one.hint}",
                )
        for line in strays.passed_over:
            migration.warn(context, line)
        facts: dict[str, Any] = {"records": sum(strays.records.values())}
        if strays.passed_over:
            facts["not_read"] = list(strays.passed_over)
        if strays.records:
            facts["by_entity"] = metadata.counts_table(strays.records, "entity")
        return dg.MaterializeResult(metadata=facts)

    return other_entities


def _table(
    spec: Spec, mapping: TableMapping, catalog: Catalog, months: dg.MonthlyPartitionsDefinition
) -> dg.AssetsDefinition:
    """A table and its migrated rows."""
    reads = {*spec.depends, *mapping.spec.depends}
    options = _spec_of(spec, code_version=f"{spec.digest[:8]}{mapping.spec.digest[:8]}")
    options["deps"] = [export_key(spec.name), *(key_of(name) for name in sorted(reads))]
    if is_monthly(catalog, spec.name):
        options |= {"partitions_def": months, "backfill_policy": dg.BackfillPolicy.single_run()}
        return dg.asset(**options)(_rows_by_month(spec, mapping, months))

    def table(context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]) -> dg.MaterializeResult[Any]:
        migration.keep_others_away(context, stages=False)
        with migration.installed_session(context) as session:
            apply(session, spec)
            done = load(session, mapping)
            facts = _facts(session, mapping, done)
        _log(context, done)
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**options)(table)


def _rows_by_month(
    spec: Spec, mapping: TableMapping, months: dg.MonthlyPartitionsDefinition
) -> Callable[..., dg.MaterializeResult[Any]]:
    def table_by_month(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        keys = list(context.partition_keys)
        migration.keep_others_away(context, stages=False)
        with migration.installed_session(context) as session:
            apply(session, spec)
            done = load_months(session, mapping, range_of(months, keys), migration.settings.first_month)
            facts = {} if done.load is None else _facts(session, mapping, done.load)
        if done.load is not None:
            _log(context, done.load)
        if not done.failed:
            assert done.load is not None
            for key, of_month in _by_month(done.load, keys, facts).items():
                context.add_asset_metadata(of_month, partition_key=key)
            return dg.MaterializeResult()
        # A step fails as a whole; the months that are in are told of one by one, so that only the others show as failed.
        failed = {key_of_month(month): reason for month, reason in sorted(done.failed.items())}
        if done.load is not None:
            for key, of_month in _by_month(done.load, [key for key in keys if key not in failed], facts).items():
                context.log_event(dg.AssetMaterialization(key_of(spec.name), partition=key, metadata=of_month))
        raise dg.Failure(
            f"{spec.name}: {len(failed)} of {len(keys)} months failed, the others are in;"
            f" {', '.join(f'{key}: {reason}' for key, reason in failed.items())}",
            metadata={"failed_months": metadata.names_table("month", "reason", failed)},
            allow_retries=False,
        )

    return table_by_month


def _facts(session: Session, mapping: TableMapping, done: Load) -> dict[str, Any]:
    """What there is to say of a table and its migrated records, whichever way it is loaded."""
    table = mapping.spec.name
    return {
        **metadata.of_load(done),
        **metadata.of_months(done),
        **metadata.of_table(describe(session, table)),
        **metadata.of_repairs(repairs_by_rule(session, table)),
        **metadata.of_lineage(origins(session.catalog, mapping), export_key(table), staged_fields(session, mapping)),
    }


def _by_month(done: Load, keys: Sequence[str], facts: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Each month's own numbers; those of the whole table go with the last, which is the one shown first."""
    months = {key_of_month(part.partition_key): part for part in done.partitions if part.partition_key is not None}
    found: dict[str, dict[str, Any]] = {}
    for key in keys:
        part = months.get(key)
        found[key] = {
            "month": key,
            "dagster/partition_row_count": part.migrated if part else 0,
            "month_inserted_now": part.inserted if part else 0,
            **({"month_seconds": round(part.seconds, 3)} if part and part.seconds else {}),
            **(facts if key == keys[-1] else {}),
        }
    return found


def _log(context: dg.AssetExecutionContext, done: Load) -> None:
    settlement = done.settlement
    context.log.info(
        f"{done.entity}: read {settlement.read:,}, inserted {done.inserted:,}, unchanged {settlement.unchanged:,},"
        f" deduplicated {settlement.deduplicated:,}, quarantined {settlement.quarantined:,}"
    )
