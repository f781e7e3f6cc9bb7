"""Factories: tables of the catalogue into asset checks."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import dagster as dg

from b44_assets.catalog import Catalog, Kind, RowCheck, Spec, TableMapping
from b44_assets.maintenance.index_maintenance import index_usage
from b44_assets.maintenance.query_plans import queries_of, query_plans
from b44_assets.migration.finish import CheckResult, migration_state, note_checks
from b44_assets.migration.verification import (
    Applied,
    ContentParity,
    RowParity,
    content_parity,
    export_applied,
    row_parity,
)
from b44_assets.orchestration import metadata
from b44_assets.orchestration.assets import INDEX_USAGE_KEY, key_of, schema_on
from b44_assets.orchestration.jobs import DELTA_JOB, MIGRATE_JOB, PROVE_TAG
from b44_assets.orchestration.resources import Migration
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import (
    constraints_valid,
    foreign_keys_hold,
    indexes_valid,
    view_equals_query,
    view_fresh,
)
from b44_assets.schema.partitions import check_bounds, check_global_ids
from b44_assets.schema.row_checks import violations
from b44_assets.session import Session, persevering, side_by_side


def build_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """Every check."""
    return [
        *(_parity(catalog, mapping) for mapping in catalog.mappings.values()),
        _together(
            "health",
            [
                *(check for spec in catalog.of(Kind.TABLE) for check in _health(catalog, spec.name)),
                *(_bounds(spec) for spec in catalog.of(Kind.PARTITION)),
                *(check for spec in catalog.of(Kind.VIEW) for check in _view(spec)),
                *(_rows(catalog, check) for check in catalog.checks.values()),
                *_whole_schema(catalog),
            ],
        ),
    ]


class Verdict(Protocol):
    """What the engine's checks return."""

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        ...

    def explain(self) -> str:
        """One line."""
        ...


@dataclass(frozen=True)
class Check:
    """A check of the engine as one of Dagster.

    Attributes:
        name: Its name in Dagster.
        asset: What it is about.
        description: What passing means.
        judge: Does it.
        facts: Its metadata.
        warns: Whether failing is a warning only; or tells so of the verdict.
        after: What must be there before, besides the asset.
    """

    name: str
    asset: dg.AssetKey
    description: str
    judge: Callable[[Session], Verdict]
    facts: Callable[[Any], dict[str, Any]]
    warns: bool | Callable[[Any], bool] = False
    after: tuple[dg.AssetKey, ...] = field(default=())


def _together(name: str, checks: Sequence[Check]) -> dg.AssetChecksDefinition:
    """Many checks in one step, which costs more than most of them. None blocks: nothing is built on what they look at."""

    @dg.multi_asset_check(
        name=name,
        specs=[
            dg.AssetCheckSpec(
                check.name, asset=check.asset, description=check.description, additional_deps=list(check.after)
            )
            for check in checks
        ],
        can_subset=True,
    )
    def health(
        context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.AssetCheckResult]:
        selected = context.selected_asset_check_keys
        asked = [check for check in checks if dg.AssetCheckKey(check.asset, check.name) in selected]
        with migration.session(context) as session:
            verdicts = side_by_side(
                session, [partial(persevering, session, partial(check.judge, session)) for check in asked]
            )
            results: list[dg.AssetCheckResult] = []
            for check, verdict in zip(asked, verdicts, strict=True):
                warns = check.warns(verdict) if callable(check.warns) else check.warns
                results.append(_result(check.asset, check.name, verdict, check.facts(verdict), warns=warns))
                yield results[-1]
            note_checks(session, map(_noted, results))

    return health


def _health(catalog: Catalog, table: str) -> list[Check]:
    """Whether what stands on a table is in force."""
    asset = key_of(table)
    after = tuple(key_of(spec.name) for spec in schema_on(catalog, table))
    checks = [
        Check(
            "constraints_valid",
            asset,
            "Every constraint of sql/ is there, and proven for every row.",
            lambda session: constraints_valid(session, table),
            metadata.of_constraints,
            after=after,
        ),
        Check(
            "indexes_valid",
            asset,
            "Every index of sql/ is there, on every partition, and valid.",
            lambda session: indexes_valid(session, table),
            metadata.of_indexes,
            after=after,
        ),
        Check(
            "foreign_keys_hold",
            asset,
            "No reference is without its row, counted anew whatever the server says of its constraints.",
            lambda session: foreign_keys_hold(session, table),
            metadata.of_foreign_keys,
            after=after,
        ),
    ]
    mapping = catalog.mappings.get(table)
    if catalog.table(table).period is not None and mapping is not None and mapping.key == "id":
        checks.append(
            Check(
                "ids_unique",
                asset,
                "No identifier stands in two partitions; the primary key sees to it within one only.",
                lambda session: check_global_ids(session, table),
                metadata.of_global_ids,
            )
        )
    if queries_of(catalog, table):
        checks.append(
            Check(
                "query_plans",
                asset,
                "The queries of sql/queries/ leave out partitions and can use the indexes meant for them.",
                lambda session: query_plans(session, table),
                metadata.of_query_plans,
                after=(*after, *(key_of(spec.name) for spec in catalog.of(Kind.INDEX) if spec.options["on"] != table)),
            )
        )
    return checks


def _bounds(spec: Spec) -> Check:
    return Check(
        "partition_bounds",
        key_of(spec.name),
        "Every row has a partition of its own: no gap, no overlap, and an empty default partition.",
        lambda session: check_bounds(session, spec.options["on"]),
        metadata.of_bounds,
    )


def _view(spec: Spec) -> list[Check]:
    asset = key_of(spec.name)
    return [
        Check(
            "view_fresh",
            asset,
            "The view is filled, and not much older than its tables.",
            lambda session: view_fresh(session, spec),
            metadata.of_view_fresh,
        ),
        Check(
            "view_equals_query",
            asset,
            "The rows of the view are those of its query. Between two refreshes they need not be.",
            lambda session: view_equals_query(session, spec),
            metadata.of_view_equals_query,
            warns=True,
        ),
    ]


def _rows(catalog: Catalog, check: RowCheck) -> Check:
    """A rule of the app's own. One that cannot be looked at is an error, whatever its severity."""
    asset = key_of(check.table)
    reads = (*(key_of(spec.name) for spec in schema_on(catalog, check.table)), *map(key_of, check.spec.depends))
    return Check(
        check.spec.name,
        asset,
        check.spec.description,
        lambda session: violations(session, check),
        metadata.of_violations,
        warns=lambda verdict: check.warns and not verdict.fault,
        after=tuple(key for key in dict.fromkeys(reads) if key != asset),
    )


def _whole_schema(catalog: Catalog) -> list[Check]:
    built = tuple(key_of(spec.name) for spec in catalog.of(Kind.CONSTRAINT, Kind.TRIGGER, Kind.VIEW))
    return [
        Check(
            "schema_drift",
            INDEX_USAGE_KEY,
            "Tables, columns, indexes, constraints, triggers, functions and comments are as sql/ says. What the application adds"
            " is listed; columns, constraints, unique indexes and triggers that it adds to these tables are a warning.",
            schema_drift,
            metadata.of_drift,
            warns=lambda verdict: verdict.only_restricting,
            after=built,
        ),
        Check(
            "indexes_worth_having",
            INDEX_USAGE_KEY,
            "No index is bloated, and none repeats another.",
            index_usage,
            metadata.of_index_verdict,
            warns=True,
        ),
    ]


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

    applied = dg.AssetCheckSpec(
        "export_applied",
        asset=key_of(table),
        description="All of the newest export is in the table: no row was left alone for an edit of its own, and no record"
        " has vanished. See migration.conflicts and migration.retained.",
    )

    @dg.multi_asset_check(name=f"{table}_parity", specs=[rows, content, applied], can_subset=True)
    def parity(
        context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]
    ) -> Iterator[dg.AssetCheckResult]:
        selected = {key.name for key in context.selected_asset_check_keys}
        # A run that loads wants to know what it has changed; whoever asks for the check wants it from the records.
        loads = context.run.job_name in (MIGRATE_JOB, DELTA_JOB) and PROVE_TAG not in context.run.tags
        with migration.session(context) as session:
            state = migration_state(session)
            if state.over:
                said = f"not applicable: {state.whereabouts()}"
                for name in sorted(selected):
                    yield dg.AssetCheckResult(asset_key=key_of(table), check_name=name, passed=True, description=said)
                return
            questions: dict[str, Callable[[], dg.AssetCheckResult]] = {
                "row_parity": lambda: _row_result(table, row_parity(session, mapping), by_month=by_month),
                "content_parity": lambda: _content_result(
                    table, content_parity(session, mapping, proven=loads), in_use=loads
                ),
                "export_applied": lambda: _applied_result(table, export_applied(session, mapping)),
            }
            results: list[dg.AssetCheckResult] = []
            for result in side_by_side(
                session,
                [partial(persevering, session, ask) for name, ask in questions.items() if name in selected],
            ):
                results.append(result)
                yield result
            note_checks(session, map(_noted, results))

    return parity


def _row_result(table: str, counted: RowParity | None, *, by_month: bool) -> dg.AssetCheckResult:
    if counted is None:
        return _nothing(table, "row_parity")
    # Months that were not asked for are no fault of those that were: a warning, which blocks nothing.
    waiting = by_month and counted.pending > 0 and counted.unaccounted == 0 and counted.lost <= 0
    return _result(key_of(table), "row_parity", counted, metadata.of_row_parity(counted), warns=waiting)


def _content_result(table: str, compared: ContentParity | None, *, in_use: bool) -> dg.AssetCheckResult:
    if compared is None:
        return _nothing(table, "content_parity")
    # What an application does meanwhile is no fault of a load: a warning, which blocks nothing. Who asks for the check itself
    # wants to know of every row that is not as its record.
    excused = in_use and compared.written and not compared.passed
    # After a restoration there is no staged export to compare with, which is no fault of the rows.
    excused |= not in_use and not compared.staged and compared.kept
    return _result(key_of(table), "content_parity", compared, metadata.of_content_parity(compared), warns=excused)


def _applied_result(table: str, verdict: Applied) -> dg.AssetCheckResult:
    return _result(key_of(table), "export_applied", verdict, metadata.of_export_applied(verdict), warns=True)


def _result(
    asset: dg.AssetKey, name: str, verdict: Verdict, facts: dict[str, Any], *, warns: bool
) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=asset,
        check_name=name,
        passed=verdict.passed,
        severity=dg.AssetCheckSeverity.WARN if warns else dg.AssetCheckSeverity.ERROR,
        description=verdict.explain(),
        metadata=facts,
    )


def _noted(result: dg.AssetCheckResult) -> CheckResult:
    """A result as the database keeps it."""
    failed = result.severity is dg.AssetCheckSeverity.ERROR
    outcome = "passed" if result.passed else "failed" if failed else "warning"
    assert result.asset_key is not None and result.check_name is not None
    return CheckResult(result.asset_key.to_user_string(), result.check_name, outcome, result.description or "")


def _nothing(table: str, check: str) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(
        asset_key=key_of(table), check_name=check, passed=False, description="Nothing has been migrated yet"
    )
