"""Staged exports and the tables that records are loaded into, as assets."""

from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Any

import dagster as dg

from b44_assets.catalog import Catalog, Kind, Spec, TableMapping
from b44_assets.migration.lineage import Origin, exported_fields, kept_origins
from b44_assets.migration.load import Load
from b44_assets.migration.pipeline import load_months, load_table, stage_export
from b44_assets.migration.table_facts import repairs_by_rule, staged_fields
from b44_assets.migration.unmapped_entities import keep_unmapped
from b44_assets.orchestration.common import EXPORT_GROUP, OWNERS, export_key, key_of, spec_of
from b44_assets.orchestration.metadata import Metadata, counts_table, names_table, of_table
from b44_assets.orchestration.migration.metadata import of_export, of_lineage, of_load, of_months, of_repairs
from b44_assets.orchestration.partitions import BACKFILL, key_of_month, range_of
from b44_assets.orchestration.resources import Migration
from b44_assets.schema.apply import apply
from b44_assets.schema.introspection import describe_on
from b44_assets.session import Session

UNMAPPED_KEY = dg.AssetKey(["base44", "other_entities"])


def build_assets(catalog: Catalog, months: dg.MonthlyPartitionsDefinition) -> list[dg.AssetsDefinition]:
    """The staged exports, and the tables that they are loaded into.

    Args:
        catalog: The files of `sql/`.
        months: Partitions of the tables that are loaded by month.
    """
    return [
        *(_staged_export(mapping) for mapping in catalog.mappings.values()),
        _other_entities(),
        *(
            _table(spec, catalog.mappings[spec.name], catalog, months)
            for spec in catalog.of(Kind.TABLE)
            if spec.name in catalog.mappings
        ),
    ]


def _staged_export(mapping: TableMapping) -> dg.AssetsDefinition:
    """The export of an entity, as it came."""
    table = mapping.spec.name

    @dg.asset(
        key=export_key(table),
        description=f"The exported {mapping.entity} records as they came, one text column for each exported field.",
        group_name=EXPORT_GROUP,
        kinds={"postgres", "csv", "json"},
        owners=OWNERS,
        code_version="1",
    )
    def staged_export(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        migration.hold_migration_lock(context, stages=True)
        with migration.installed_session(context) as session:
            staged = stage_export(session, mapping, migration.export_dir)
        if warning := staged.warning(mapping):
            migration.warn(context, warning)
        return dg.MaterializeResult(metadata=of_export(staged))

    return staged_export


def _other_entities() -> dg.AssetsDefinition:
    @dg.asset(
        key=UNMAPPED_KEY,
        description="Exported entities that sql/ has no table for; their records are kept whole in migration.unmapped.",
        group_name=EXPORT_GROUP,
        kinds={"postgres", "csv", "json"},
        owners=OWNERS,
        code_version="1",
    )
    def other_entities(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> dg.MaterializeResult[Any]:
        migration.hold_migration_lock(context, stages=True)
        with migration.installed_session(context) as session:
            kept = keep_unmapped(session, migration.export_dir)
        for warning in kept.warnings:
            migration.warn(context, warning)
        facts: dict[str, Any] = {"records": sum(kept.records.values())}
        if kept.passed_over:
            facts["not_read"] = list(kept.passed_over)
        if kept.records:
            facts["by_entity"] = counts_table(kept.records, "entity")
        return dg.MaterializeResult(metadata=facts)

    return other_entities


def _table(
    spec: Spec, mapping: TableMapping, catalog: Catalog, months: dg.MonthlyPartitionsDefinition
) -> dg.AssetsDefinition:
    """A table and its migrated rows."""
    reads = {*spec.depends, *mapping.spec.depends}
    options = spec_of(spec, code_version=f"{spec.digest[:8]}{mapping.spec.digest[:8]}")
    options["deps"] = [export_key(spec.name), *(key_of(name) for name in sorted(reads))]
    if catalog.is_monthly(spec.name):
        options |= {"partitions_def": months, "backfill_policy": dg.BackfillPolicy.single_run()}
        return dg.asset(**options)(_rows_by_month(spec, mapping, months))

    def table(context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]) -> dg.MaterializeResult[Any]:
        migration.hold_migration_lock(context, stages=False)
        with migration.installed_session(context) as session, _lineage(migration, catalog, mapping) as came_from:
            apply(session, spec)
            done = load_table(session, mapping)
            facts = _facts(session, mapping, done, came_from.result())
        _log(context, done)
        return dg.MaterializeResult(metadata=facts)

    return dg.asset(**options)(table)


def _rows_by_month(
    spec: Spec, mapping: TableMapping, months: dg.MonthlyPartitionsDefinition
) -> Callable[..., Iterator[dg.MaterializeResult[Any]]]:
    """The load of a table's months: an event for each month with its numbers, and one without a month for the table."""

    def table_by_month(
        context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.MaterializeResult[Any]]:
        keys = list(context.partition_keys)
        migration.hold_migration_lock(context, stages=False)
        with (
            migration.installed_session(context) as session,
            _lineage(migration, session.catalog, mapping) as came_from,
        ):
            apply(session, spec)
            done = load_months(session, mapping, range_of(months, keys), migration.settings.first_month)
            facts = {} if done.load is None else _facts(session, mapping, done.load, came_from.result())
        failed = {key_of_month(month): reason for month, reason in sorted(done.failed.items())}
        by_month: dict[str, Metadata] = {}
        if done.load is not None:
            _log(context, done.load)
            by_month = _by_month(done.load, [key for key in keys if key not in failed])
        if not failed:
            for key, of_month in by_month.items():
                context.add_asset_metadata(of_month, partition_key=key)
            yield dg.MaterializeResult()
        else:
            # A step fails as a whole; the months that are in are told of one by one, so that only the others show as failed.
            for key, of_month in by_month.items():
                context.log_event(dg.AssetMaterialization(key_of(spec.name), partition=key, metadata=of_month))
        if done.load is not None:
            # Last, since the page of an asset shows its latest event first.
            whole = of_whole_table(spec.name, facts)
            if BACKFILL in context.run.tags:
                # Dagster's backfill fails where one of its runs materializes a table by month as a whole.
                context.instance.report_runless_asset_event(whole)
            else:
                context.log_event(whole)
        if failed:
            raise dg.Failure(
                f"{spec.name}: {len(failed)} of {len(keys)} months failed, the others are in;"
                f" {', '.join(f'{key}: {reason}' for key, reason in failed.items())}",
                metadata={"failed_months": names_table("month", "reason", failed)},
                allow_retries=False,
            )

    return table_by_month


def of_whole_table(table: str, facts: Metadata) -> dg.AssetMaterialization:
    """What there is to say of a table that is loaded by month, apart from any month."""
    return dg.AssetMaterialization(
        key_of(table), description="The table as a whole, all months together.", metadata=facts
    )


@contextmanager
def _lineage(
    migration: Migration, catalog: Catalog, mapping: TableMapping
) -> Generator[Future[dict[str, tuple[Origin, ...]]]]:
    """Looks for the origins of a table's columns while the server loads the table."""
    with ThreadPoolExecutor(1, thread_name_prefix="lineage") as pool:
        yield pool.submit(kept_origins, catalog, mapping, migration.settings.lineage_dir)


def _facts(
    session: Session, mapping: TableMapping, done: Load, came_from: Mapping[str, tuple[Origin, ...]]
) -> Metadata:
    """What there is to say of a table and its migrated records, whichever way it is loaded."""
    table = mapping.spec.name
    with session.connection(f"describe {table}") as conn:
        spellings = staged_fields(conn, mapping)
        described, repairs = describe_on(conn, table), repairs_by_rule(conn, table)
    return {
        **of_load(done),
        **of_months(done),
        **of_table(described, exported_fields(came_from, spellings)),
        **of_repairs(repairs),
        **of_lineage(came_from, export_key(table), spellings),
    }


def _by_month(done: Load, keys: Sequence[str]) -> dict[str, Metadata]:
    """Each month's own numbers."""
    months = {key_of_month(part.partition_key): part for part in done.partitions if part.partition_key is not None}
    found: dict[str, Metadata] = {}
    for key in keys:
        part = months.get(key)
        found[key] = {
            "month": key,
            "dagster/partition_row_count": part.migrated if part else 0,
            "inserted_now": part.inserted if part else 0,
            **({"seconds": round(part.seconds, 3)} if part and part.seconds else {}),
        }
    return found


def _log(context: dg.AssetExecutionContext, done: Load) -> None:
    plan = done.plan
    context.log.info(
        f"{done.entity}: read {plan.read:,}, inserted {done.inserted:,}, unchanged {plan.unchanged:,},"
        f" deduplicated {plan.deduplicated:,}, quarantined {plan.quarantined:,}"
    )
