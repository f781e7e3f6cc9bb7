"""The checks of the schema and of its rows: what stands on a table, partitions, views, rules of the app, drift."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import dagster as dg

from b44_assets.catalog import Catalog, Kind, RowCheck, Spec
from b44_assets.maintenance.query_plans import queries_of, query_plans
from b44_assets.orchestration.common import VERIFY_JOB, Answer, Verdict, answered, key_of
from b44_assets.orchestration.maintenance import INDEX_USAGE
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schema.assets import schema_on
from b44_assets.orchestration.schema.metadata import (
    of_bounds,
    of_constraints,
    of_drift,
    of_foreign_keys,
    of_global_ids,
    of_indexes,
    of_query_plans,
    of_view_equals_query,
    of_view_fresh,
    of_violations,
)
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import (
    constraints_valid,
    foreign_keys_hold,
    indexes_valid,
    view_equals_query,
    view_fresh,
)
from b44_assets.schema.partition_checks import check_bounds, check_global_ids
from b44_assets.schema.row_checks import violations
from b44_assets.session import Session


def build_checks(catalog: Catalog) -> list[dg.AssetChecksDefinition]:
    """Every check of the schema, in one step."""
    return [
        _together(
            "health",
            [
                *(check for spec in catalog.of(Kind.TABLE) for check in _health(catalog, spec.name)),
                *(_bounds(spec) for spec in catalog.of(Kind.PARTITION)),
                *(check for spec in catalog.materialized_views for check in _view(spec)),
                *(_rows(catalog, check) for check in catalog.checks.values()),
                *_whole_schema(catalog),
            ],
        )
    ]


@dataclass(frozen=True)
class Check:
    """A check of the schema.

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

    @property
    def key(self) -> dg.AssetCheckKey:
        """Its name in the whole graph."""
        return dg.AssetCheckKey(self.asset, self.name)

    def answer(self, session: Session) -> Answer:
        """Does it, and says what came of it."""
        verdict = self.judge(session)
        warns = self.warns(verdict) if callable(self.warns) else self.warns
        return Answer.of(verdict, self.facts(verdict), warns=warns)


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
        with migration.session(context, reads=context.run.job_name == VERIFY_JOB) as session:
            yield from answered(
                session, [(check.key, partial(check.answer, session)) for check in checks if check.key in selected]
            )

    return health


def _health(catalog: Catalog, table: str) -> list[Check]:
    """Whether what stands on a table is in force."""
    asset = key_of(table)
    after = tuple(key_of(spec.name) for spec in schema_on(catalog, table))
    checks = [
        Check(
            "constraints_valid",
            asset,
            "Every constraint of sql/ is there, and validated for every row.",
            lambda session: constraints_valid(session, table),
            of_constraints,
            warns=lambda verdict: verdict.only_listed,
            after=after,
        ),
        Check(
            "indexes_valid",
            asset,
            "Every index of sql/ is there, on every partition, and valid.",
            lambda session: indexes_valid(session, table),
            of_indexes,
            warns=lambda verdict: verdict.only_listed,
            after=after,
        ),
        Check(
            "foreign_keys_hold",
            asset,
            "No reference is without its row, counted anew whatever the server says of its constraints.",
            lambda session: foreign_keys_hold(session, table),
            of_foreign_keys,
            warns=lambda verdict: verdict.only_listed,
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
                of_global_ids,
            )
        )
    if queries := queries_of(catalog, table):
        read = {name for query in queries for name in query.depends}
        checks.append(
            Check(
                "query_plans",
                asset,
                "The queries of sql/queries/ leave out partitions and can use the indexes meant for them.",
                lambda session: query_plans(session, table),
                of_query_plans,
                after=(
                    *after,
                    *(key_of(spec.name) for spec in catalog.of(Kind.INDEX) if spec.options["on"] != table),
                    *(key_of(spec.name) for spec in catalog.of(Kind.VIEW) if spec.name in read),
                ),
            )
        )
    return checks


def _bounds(spec: Spec) -> Check:
    return Check(
        "partition_bounds",
        key_of(spec.name),
        "Every row has a partition of its own: no gap, no overlap, and an empty default partition.",
        lambda session: check_bounds(session, spec.options["on"]),
        of_bounds,
    )


def _view(spec: Spec) -> list[Check]:
    asset = key_of(spec.name)
    return [
        Check(
            "view_fresh",
            asset,
            "The view is filled, and not much older than its tables.",
            lambda session: view_fresh(session, spec),
            of_view_fresh,
        ),
        Check(
            "view_equals_query",
            asset,
            "The rows of the view are those of its query. Between two refreshes they need not be.",
            lambda session: view_equals_query(session, spec),
            of_view_equals_query,
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
        of_violations,
        warns=lambda verdict: check.warns and not verdict.fault,
        after=tuple(key for key in dict.fromkeys(reads) if key != asset),
    )


def _whole_schema(catalog: Catalog) -> list[Check]:
    built = tuple(
        key_of(spec.name)
        for spec in catalog.of(Kind.CONSTRAINT, Kind.TRIGGER, Kind.POLICY, Kind.VIEW, Kind.VIEW_SCHEMA, Kind.ROLE)
    )
    return [
        Check(
            "schema_drift",
            INDEX_USAGE.key,
            "Tables, columns, indexes, constraints, triggers, policies, views, functions, comments, owners and privileges are as"
            " sql/ says. What the application adds is listed; columns, constraints, unique indexes, triggers and policies that it adds"
            " to these tables, and what roles of sql/ may do beyond it, are a warning.",
            schema_drift,
            of_drift,
            warns=lambda verdict: verdict.only_restricting,
            after=built,
        ),
    ]
