"""What assets are given: a session of the engine for the run they are in, with the settings that the run was started with."""

import time
from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Self

import dagster as dg
from pydantic import Field

from b44_assets.backup.service import newest_told
from b44_assets.catalog import Catalog
from b44_assets.config.settings import Settings
from b44_assets.config.stages import PHASE, STEP, Steps
from b44_assets.errors import B44Error, FinishedError, NoRoomError, SettingsError, is_full, why
from b44_assets.migration.finish import MigrationState, holds_records, migration_state
from b44_assets.postgres.advisory_locks import HeldLock
from b44_assets.postgres.advisory_locks import watched as lock_watched
from b44_assets.postgres.read_replica import ReadReplica
from b44_assets.schema.preflight import need_room
from b44_assets.schema.runtime import install_runtime
from b44_assets.session import Kept, Progress, Session, migrating, read_replica_of, silent, unsaid

LOG_EVERY_SECONDS = 5.0


@dataclass
class Migration:
    """The resource of every asset: settings, catalogue, and whoever watches.

    Attributes:
        settings: From the environment.
        catalog: The files of `sql/`.
        progress: Told about progress besides the run's log; the command line draws a bar with it.
        notice: Told, besides the run's log, that something is tried again or held back.
        lock: What keeps other migrations away, where whoever made this has it already.
        prepared: Whether whoever made this has looked already for room for all that `sql/` makes, and has said which backup there is.
        kept: Connections of whoever made this, for the run to use again; by default a run has its own.
        faults: Every fault that ended a step, for the command line's one line and exit status.
        warnings: What a person should know of a run that went well.
        reload: Reads the settings anew for each run; None where `settings` are those of the run.
        settings_fault: What is wrong with the settings that the run was started with; fails its steps.
    """

    settings: Settings
    catalog: Catalog
    progress: Progress = silent
    notice: Callable[[str], None] = unsaid
    lock: HeldLock | None = None
    prepared: bool = False
    kept: Kept | None = None
    faults: list[B44Error] = field(default_factory=list[B44Error])
    warnings: list[str] = field(default_factory=list[str])
    reload: Callable[[], Settings] | None = None
    settings_fault: SettingsError | None = None
    _installed: set[str] = field(default_factory=set[str], repr=False)
    _states: dict[str, MigrationState] = field(default_factory=dict[str, MigrationState], repr=False)
    _begun: dict[str, Steps] = field(default_factory=dict[str, Steps], repr=False)
    _held: dict[str, ExitStack] = field(default_factory=dict[str, ExitStack], repr=False)
    _locks: dict[str, HeldLock] = field(default_factory=dict[str, HeldLock], repr=False)
    _shared: Session | None = field(default=None, repr=False)
    _kept: Kept | None = field(default=None, repr=False)
    _read_replica: ReadReplica | None = field(default=None, repr=False)

    @property
    def export_dir(self) -> Path | None:
        """The folder of exports, if one is set."""
        return self.settings.export_dir

    def with_settings(self, chosen: Mapping[str, object]) -> Self:
        """The same resource for one run, with the settings that it was started with.

        Args:
            chosen: By name; they stand above those of the environment.
        """
        try:
            settings = self.settings if self.reload is None else self.reload()
            return replace(self, settings=settings.changed(**chosen))
        except SettingsError as fault:
            # A resource that fails has Dagster say so with a traceback; a step says it in one line.
            return replace(self, settings_fault=fault)

    @contextmanager
    def session(
        self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, *, reads: bool = False
    ) -> Generator[Session]:
        """A session for a step, which it fails in one line.

        Args:
            context: Of the step.
            reads: Whether it only looks, and may read from a standby where the settings name one.

        Raises:
            Failure: The engine raised a `B44Error`.
        """
        if self._shared is not None:
            with self.failing_in_one_line():
                yield self._shared
            return
        last = time.monotonic()
        self._tell_step(context)

        def report(what: str, done: int, total: int) -> None:
            nonlocal last
            self.progress(what, done, total)
            # A long step has no progress bar in the UI; its log is one, at a steady pace.
            if total and time.monotonic() - last >= LOG_EVERY_SECONDS:
                last = time.monotonic()
                context.log.info(f"{what}: {done:,} of {total:,} ({done / total:.0%})")

        def notice(line: str) -> None:
            context.log.warning(line)
            self.notice(line)

        lock = self.lock or self._locks.get(context.run.run_id)
        with self.failing_in_one_line():
            session = self.offline_session(context.run.run_id, report, notice)
            session = replace(session, read_replica=self._read_replica or session.read_replica if reads else None)
            if lock is not None:
                # Whatever this step does, no other migration is under way; each of its connections asks that first.
                lock.check_again()
                session = session.under(lock)
            # What a connection knows of the tables serves all steps of a run; to gather it takes longer than most of them.
            with session.keeping(self._kept) as keeping:
                yield keeping

    def _tell_step(self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> None:
        """Tells which step of the run is under way, of how many, and in which phase of the run."""
        execution = context.op_execution_context
        name, run_id = execution.op.name, context.run.run_id
        if run_id not in self._begun:
            self._begun[run_id] = Steps((node.name for node in execution.job_def.nodes), self.catalog.mappings)
        steps = self._begun[run_id]
        step = steps.begin(name)
        self.progress(f"{PHASE}{step.phase}", step.phase_number, step.phases)
        self.progress(f"{STEP}{step.stage} {name.removeprefix('base44__')}", step.number, len(steps))

    @contextmanager
    def sharing(
        self, context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext, *, reads: bool = False
    ) -> Generator[Self]:
        """The same resource, all of whose sessions are one until the end of the block.

        Args:
            context: Of the step.
            reads: As of `session`.

        Raises:
            Failure: As of `session`.
        """
        with self.session(context, reads=reads) as session:
            yield replace(self, _shared=session)

    @contextmanager
    def installed_session(self, context: dg.AssetExecutionContext) -> Generator[Session]:
        """As `session`, for a step that makes something: the program's own tables and functions are there.

        Before the first such step of a run it is looked whether all that the run makes can be made, and said which backup
        there is of what is there.

        Raises:
            Failure: As of `session`; or something is in the way.
        """
        with self.session(context) as session:
            if context.run.run_id not in self._installed:
                if not self.prepared:
                    need_room(
                        session, ["/".join(key.path) for key in context.job_def.asset_layer.executable_asset_keys]
                    )
                    if holds_records(session):
                        context.log.info(newest_told(session, self.settings))
                install_runtime(session, over=migration_state(session).over)
                self._installed.add(context.run.run_id)
            yield session

    def state(self, context: dg.AssetCheckExecutionContext, session: Session) -> MigrationState:
        """What the database says of its migration; asked once in a run that keeps others from ending it.

        Args:
            context: Of the step.
            session: Of the step.

        Raises:
            DatabaseError: The target cannot be reached.
        """
        if session.lock is None:
            return migration_state(session)
        run_id = context.run.run_id
        if run_id not in self._states:
            self._states[run_id] = migration_state(session)
        return self._states[run_id]

    @contextmanager
    def failing_in_one_line(self) -> Generator[None]:
        """Fails the step with the one line of a fault of the user's world, and notes it for the command line.

        Raises:
            Failure: A `B44Error` was raised within, or a disk of ours is full. The step is not retried: what may pass was
                retried by the engine.
        """
        try:
            if self.settings_fault is not None:
                raise self.settings_fault
            yield
        except B44Error as error:
            self.faults.append(error)
            raise dg.Failure(description=str(error), allow_retries=False) from error
        except OSError as error:
            if not is_full(error):
                raise
            fault = NoRoomError(f"{error.filename or 'a file'} cannot be written: {why(error)}")
            self.faults.append(fault)
            raise dg.Failure(description=str(fault), allow_retries=False) from error

    def hold_migration_lock(self, context: dg.AssetExecutionContext, *, stages: bool) -> None:
        """Keeps this run and others from mixing their exports, from its first such step until the run ends.

        A run that stages exports waits until no other moves records, and those wait for it. Runs that only load what is
        staged, such as two that share a backfill of months, go on together.

        Args:
            context: Of a step that stages, or loads.
            stages: Whether the step stages.

        Raises:
            Failure: The target cannot be reached, or its migration is over.
        """
        run_id = context.run.run_id
        if self.lock is not None or run_id in self._held:
            return
        with self.failing_in_one_line(), ExitStack() as stack:
            session = self.offline_session(run_id)
            if (state := migration_state(session)).over:
                raise FinishedError(f"nothing can be migrated into this database: {state.message()}")
            lock = stack.enter_context(migrating(session, context.log.info, shared=not stages))
            # So that nothing on the way takes its connection for unused; each step asks it, too.
            stack.enter_context(
                lock_watched(lock, lambda: context.log.error("other migrations are not kept away any more"))
            )
            self._locks[run_id] = lock
            self._held[run_id] = stack.pop_all()

    def of_a_run(self) -> Self:
        """The same resource, whose sessions use each other's connections until `release`, and wait for a standby once."""
        return replace(self, _kept=self.kept or Kept(), _read_replica=read_replica_of(self.settings))

    def release(self) -> None:
        """Closes the connections that are kept for a run, and ends what `hold_migration_lock` began."""
        if self._kept is not None and self._kept is not self.kept:
            self._kept.close()
        for stack in self._held.values():
            stack.close()
        self._held.clear()
        self._locks.clear()
        self._installed.clear()
        self._states.clear()
        self._begun.clear()

    def warn(self, context: dg.AssetExecutionContext, warning: str) -> None:
        """Says something in the run's log and to whoever ran the command."""
        context.log.warning(warning)
        self.warnings.append(warning)

    def offline_session(
        self,
        run_id: str | None = None,
        progress: Progress | None = None,
        notice: Callable[[str], None] | None = None,
    ) -> Session:
        """A session outside of a run."""
        return Session.of(
            self.settings,
            self.catalog,
            run_id=run_id,
            progress=progress or self.progress,
            notice=notice or self.notice,
        )


class MigrationResource(dg.ConfigurableResource[Migration]):
    """The target database, and how hard a run may push. What is left out is as the environment or `.env` says when the run starts."""

    base: dg.ResourceDependency[Migration]
    throttle: bool | None = Field(
        default=None, description="Whether loads give way to an application in live use (B44_THROTTLE)."
    )
    batch_size: int | None = Field(default=None, description="The most records in one batch (B44_BATCH_SIZE).")
    batch_seconds: str | None = Field(
        default=None, description="What a batch should take, such as 2s (B44_BATCH_SECONDS)."
    )
    batch_pause: str | None = Field(
        default=None,
        description="The rest between two batches: 0, 500ms, or 2x of what the batch took (B44_BATCH_PAUSE).",
    )
    max_replication_lag: str | None = Field(
        default=None, description="How far a standby may be behind: 10s, or off (B44_MAX_REPLICATION_LAG)."
    )
    max_lock_queue: str | None = Field(
        default=None, description="How many sessions may wait for a lock: 20, or off (B44_MAX_LOCK_QUEUE)."
    )
    max_wal_rate: str | None = Field(
        default=None, description="WAL that the server may write in a second: 50MB, or off (B44_MAX_WAL_RATE)."
    )
    lock_timeout_ms: int | None = Field(
        default=None, description="Longest wait for a lock that blocks others, in milliseconds (B44_LOCK_TIMEOUT)."
    )
    max_quarantine: str | None = Field(
        default=None, description="How many records of an entity may be refused: 100, or 0.5% (B44_MAX_QUARANTINE)."
    )

    @contextmanager
    def yield_for_execution(self, context: dg.InitResourceContext) -> Generator[Migration]:
        """The resource of a run; what it holds for the run is given back when the run ends."""
        chosen = {name: getattr(self, name) for name in type(self).model_fields if name != "base"}
        migration = self.base.with_settings(
            {name: value for name, value in chosen.items() if value is not None}
        ).of_a_run()
        try:
            yield migration
        finally:
            migration.release()
