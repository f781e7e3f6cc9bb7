"""Factories: tables of the catalogue into asset checks."""

from collections.abc import Iterator

import dagster as dg

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.engine.proving import RowParity, content_parity, row_parity
from b44_assets.orchestration import metadata
from b44_assets.orchestration.assets import key_of
from b44_assets.orchestration.resources import Migration


def build_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """Every check."""
    return [_parity(catalog, mapping) for mapping in catalog.mappings.values()]


def _parity(catalog: Catalog, mapping: TableMapping) -> dg.AssetChecksDefinition:
    table = mapping.spec.name
    period = catalog.table(table).period
    by_month = period is not None and period.unit == "month"
    rows = dg.AssetCheckSpec(
        "row_parity",
        asset=key_of(table),
        blocking=True,
        description="Every record read is migrated, deduplicated or quarantined, and the table holds every migrated one.",
    )
    content = dg.AssetCheckSpec(
        "content_parity",
        asset=key_of(table),
        blocking=True,
        description="Every stored row is what the mapping makes of the staged record, by a 64-bit checksum of each row.",
    )

    @dg.multi_asset_check(name=f"{table}_parity", specs=[rows, content], can_subset=True)
    def parity(
        context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        with migration.session(context) as session:
            if "row_parity" in selected:
                counted = row_parity(session, mapping)
                yield _row_result(table, counted, by_month=by_month)
            if "content_parity" in selected:
                compared = content_parity(session, mapping)
                if compared is None:
                    yield _nothing(table, "content_parity")
                else:
                    yield dg.AssetCheckResult(
                        asset_key=key_of(table),
                        check_name="content_parity",
                        passed=compared.passed,
                        description=compared.explain(),
                        metadata=metadata.of_content_parity(compared),
                    )

    return parity


def _row_result(table: str, counted: RowParity | None, *, by_month: bool) -> dg.AssetCheckResult:
    if counted is None:
        return _nothing(table, "row_parity")
    # Months that were not asked for are no fault of those that were: a warning, which blocks nothing.
    waiting = by_month and counted.pending > 0 and counted.unaccounted == 0 and counted.held == counted.migrated
    return dg.AssetCheckResult(
        asset_key=key_of(table),
        check_name="row_parity",
        passed=counted.passed,
        severity=dg.AssetCheckSeverity.WARN if waiting else dg.AssetCheckSeverity.ERROR,
        description=counted.explain(),
        metadata=metadata.of_row_parity(counted),
    )


def _nothing(table: str, check: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key_of(table), check_name=check, passed=False, description="Nothing has been migrated yet"
    )
