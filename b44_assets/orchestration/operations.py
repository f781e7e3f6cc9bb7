"""An operation on a live database, declared as one object: its asset, its checks, its job, its schedule.

An `Operation` changes something, a `Measurement` only looks, a `Round` makes several measurements in one step. To
add one, declare it in the module of its domain and name it in that module's OPERATIONS; nothing else lists it. When it
runs is a `ScheduledJob` of `schedules`.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Generic, TypeAlias, TypeVar

import dagster as dg

from b44_assets.backup.service import BackupContext
from b44_assets.catalog import Catalog, Kind
from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring import Earlier
from b44_assets.migration.finish import note_checks
from b44_assets.orchestration.common import ALERTS_ON_WARNING, OWNERS, Answer, key_of
from b44_assets.orchestration.metadata import Metadata
from b44_assets.orchestration.resources import Migration
from b44_assets.orchestration.schedules import ScheduledJob
from b44_assets.session import Session

Found = TypeVar("Found")
Context: TypeAlias = dg.AssetExecutionContext | dg.AssetCheckExecutionContext
Upstream: TypeAlias = Callable[[Catalog], Iterable[dg.AssetKey]]


@dataclass(frozen=True)
class Operation:
    """Work on the database that no SQL file makes an asset of.

    Attributes:
        key: Its asset; the first part is the group.
        description: What it does.
        work: Does it, and returns its metadata; numbers are plotted over time by the UI.
        upstream: What it works on.
        job: What runs it by its schedule; several may share one.
        part_of_migration: Whether `migrate_everything` does it, too, and `verify` asks for its checks.
        checks: What each check's passing means, by name.
        judge: Answers them all, in a step of their own, without doing the work.
    """

    key: dg.AssetKey
    description: str
    work: Callable[[dg.AssetExecutionContext, Migration], Metadata]
    upstream: Upstream
    job: ScheduledJob | None = None
    part_of_migration: bool = False
    checks: Mapping[str, str] = field(default_factory=dict[str, str])
    judge: Callable[[Migration], Mapping[str, Answer]] | None = None

    @property
    def keys(self) -> tuple[dg.AssetKey, ...]:
        """Its asset."""
        return (self.key,)

    def assets(self, catalog: Catalog) -> dg.AssetsDefinition:
        """Its asset."""

        @dg.multi_asset(name=_step(self.key), specs=[_asset_spec(self, catalog)])
        def of_operation(
            context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
        ) -> dg.MaterializeResult[Any]:
            return dg.MaterializeResult(metadata=self.work(context, migration))

        return of_operation

    def asset_checks(self) -> list[dg.AssetChecksDefinition]:
        """Its checks, in one step."""
        judge = self.judge
        if judge is None:
            return []

        @dg.multi_asset_check(name=f"{_step(self.key)}_checks", specs=_check_specs(self), can_subset=True)
        def of_operation(
            context: dg.AssetCheckExecutionContext, migration: dg.ResourceParam[Migration]
        ) -> Iterator[dg.AssetCheckResult]:
            answers = judge(migration)
            for key in context.selected_asset_check_keys:
                yield answers[key.name].result(self.key, key.name)

        return [of_operation]


@dataclass(frozen=True)
class Measurement(Generic[Found]):
    """A look at the database whose numbers are plotted over time, with checks of what was seen.

    Attributes:
        key: Its asset; the first part is the group.
        description: What is measured.
        measure: Looks, and changes nothing.
        metadata: The numbers.
        upstream: What it looks at.
        job: What measures it by its schedule; several may share one.
        part_of_migration: Whether `migrate_everything` measures it, too, and `verify` asks for its checks.
        checks: What each check's passing means, by name.
        judge: Answers them all from what was measured; the settings have the thresholds.
    """

    key: dg.AssetKey
    description: str
    measure: Callable[[Context, Migration], Found]
    metadata: Callable[[Found], Metadata]
    upstream: Upstream
    job: ScheduledJob | None = None
    part_of_migration: bool = False
    checks: Mapping[str, str] = field(default_factory=dict[str, str])
    judge: Callable[[Found, Settings], Mapping[str, Answer]] | None = None

    @property
    def keys(self) -> tuple[dg.AssetKey, ...]:
        """Its asset."""
        return (self.key,)

    def assets(self, catalog: Catalog) -> dg.AssetsDefinition:
        """Its asset and its checks in one step, so that it is measured once; a check asked for alone measures anew."""

        @dg.multi_asset(
            name=_step(self.key),
            specs=[_asset_spec(self, catalog)],
            check_specs=_check_specs(self),
            can_subset=True,
        )
        def of_measurement(
            context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
        ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
            yield from self.results(context, migration)

        return of_measurement

    def results(
        self, context: dg.AssetExecutionContext, migration: Migration
    ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
        """Measures, and yields what a step was asked for: the asset, and the checks."""
        measured = self.measure(context, migration)
        if self.key in context.selected_asset_keys:
            yield dg.MaterializeResult(asset_key=self.key, metadata=self.metadata(measured))
        if self.judge is None:
            return
        answers = self.judge(measured, migration.settings)
        names = [key.name for key in context.selected_asset_check_keys if key.asset_key == self.key]
        for name in names:
            yield answers[name].result(self.key, name)
        if self.part_of_migration:
            with migration.session(context) as session:
                note_checks(session, [answers[name].noted(self.key, name) for name in names])

    def asset_checks(self) -> list[dg.AssetChecksDefinition]:
        """None beside its asset."""
        return []


@dataclass(frozen=True)
class Round:
    """Measurements that are made one after the other in one step, over one connection.

    Attributes:
        job: What makes them by its schedule, which is theirs.
        measurements: What is measured; none is part of a migration.
    """

    job: ScheduledJob
    measurements: tuple[Measurement[Any], ...]
    part_of_migration: bool = False

    @property
    def keys(self) -> tuple[dg.AssetKey, ...]:
        """Their assets."""
        return tuple(one.key for one in self.measurements)

    def assets(self, catalog: Catalog) -> dg.AssetsDefinition:
        """All assets and checks in one step: a step for each would cost more than what it does."""

        @dg.multi_asset(
            name=self.job.name + "_round",
            specs=[_asset_spec(one, catalog) for one in self.measurements],
            check_specs=[spec for one in self.measurements for spec in _check_specs(one)],
            can_subset=True,
        )
        def of_round(
            context: dg.AssetExecutionContext, migration: dg.ResourceParam[Migration]
        ) -> Iterator[dg.MaterializeResult[Any] | dg.AssetCheckResult]:
            wanted = {*context.selected_asset_keys, *(key.asset_key for key in context.selected_asset_check_keys)}
            failures: list[dg.Failure] = []
            with migration.sharing(context, reads=True) as sharing:
                for one in self.measurements:
                    if one.key not in wanted:
                        continue
                    try:
                        yield from one.results(context, sharing)
                    except dg.Failure as failure:
                        # One that cannot be made does not keep the others from being made.
                        context.log.error(f"{one.key.to_user_string()}: {failure.description}")
                        failures.append(failure)
            if failures:
                raise failures[0]

        return of_round

    def asset_checks(self) -> list[dg.AssetChecksDefinition]:
        """None beside its assets."""
        return []


AnyOperation: TypeAlias = Operation | Measurement[Any] | Round


def definitions_of_operations(operations: Sequence[AnyOperation], catalog: Catalog) -> dg.Definitions:
    """The assets, checks, jobs and schedules of some operations."""
    jobs = {operation.job.name: operation.job for operation in operations if operation.job is not None}
    return dg.Definitions(
        assets=[operation.assets(catalog) for operation in operations],
        asset_checks=[check for operation in operations for check in operation.asset_checks()],
        jobs=[
            job.of(key for operation in operations if operation.job is job for key in operation.keys)
            for job in jobs.values()
        ],
        schedules=[job.schedule_definition() for job in jobs.values()],
    )


def in_session(work: Callable[[dg.AssetExecutionContext, Session], Found]) -> Callable[[Any, Migration], Found]:
    """Work that is done in a session with the target."""

    def done(context: Any, migration: Migration) -> Found:
        with migration.session(context) as session:
            return work(context, session)

    return done


def with_backup_context(
    work: Callable[[dg.AssetExecutionContext, BackupContext], Found],
) -> Callable[[Any, Migration], Found]:
    """Work on the backups."""

    def done(context: Any, migration: Migration) -> Found:
        with migration.failing_in_one_line():
            return work(context, BackupContext.of(migration.settings))

    return done


def all_tables(catalog: Catalog) -> Iterable[dg.AssetKey]:
    """Every table of the app, as what an operation works on."""
    return [key_of(spec.name) for spec in catalog.of(Kind.TABLE)]


def _step(key: dg.AssetKey) -> str:
    return "__".join(key.path)


def _asset_spec(operation: Operation | Measurement[Any], catalog: Catalog) -> dg.AssetSpec:
    return dg.AssetSpec(
        operation.key,
        deps=list(operation.upstream(catalog)),
        description=operation.description,
        freshness_policy=None if operation.job is None else operation.job.freshness,
        group_name=operation.key.path[0],
        kinds={"postgres"},
        owners=OWNERS,
        code_version="1",
    )


def _check_specs(operation: Operation | Measurement[Any]) -> list[dg.AssetCheckSpec]:
    return [
        dg.AssetCheckSpec(name, asset=operation.key, description=meaning, metadata={ALERTS_ON_WARNING: True})
        for name, meaning in operation.checks.items()
    ]


def numbers_before(context: Context, key: dg.AssetKey) -> Earlier | None:
    """The numbers of the latest materialization of an asset; None where there is none."""
    event = context.instance.get_latest_materialization_event(key)
    if event is None or event.asset_materialization is None:
        return None
    values = {name: entry.value for name, entry in event.asset_materialization.metadata.items()}
    numbers = {
        name: value for name, value in values.items() if isinstance(value, int | float) and not isinstance(value, bool)
    }
    return Earlier(datetime.fromtimestamp(event.timestamp, UTC), numbers)
