"""Planned records into the target, in batches; each batch and its notes are one transaction.

What belongs here: moving rows, noting it, and what to do about an error. What does not: deciding anything about a record,
but for one that the server refuses, and what comes before and after; see `pipeline`.
"""

from __future__ import annotations

import random
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass, field
from datetime import date
from functools import partial
from queue import Empty, SimpleQueue
from typing import Any, NamedTuple, Protocol

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import TableMapping
from b44_assets.errors import DatabaseError, ThresholdError, TransientDatabaseError
from b44_assets.failpoints import failpoint
from b44_assets.migration.parts import Part
from b44_assets.migration.plan import LoadPlan
from b44_assets.migration.throttling import Blindness, Pacer
from b44_assets.migration.unfit_rows import despite_unfit_rows
from b44_assets.postgres.error_classes import FaultClass, backoff, classify, condition_of
from b44_assets.session import (
    Connection,
    Session,
    cancel_until_done,
    explained,
    pass_rules,
    reason_of,
    scalar,
    with_retry,
)


@dataclass(frozen=True)
class LoadedPartition:
    """One partition's part of a load: its first day (None for a table without periods), and records moved now and in all."""

    partition_key: date | None
    inserted: int
    migrated: int
    seconds: float


@dataclass(frozen=True)
class Load:
    """What a load did.

    Attributes:
        entity: The target table.
        plan: What the records came to.
        migrated: Records of the export that are in the target now, of all partitions.
        partitions: What was loaded, by partition.
        repairs: Repaired values of the plan's migrated records, by column.
        preview: The first quarantined records: `(record_number, base44_id, reasons)`.
    """

    entity: str
    plan: LoadPlan
    migrated: int
    partitions: tuple[LoadedPartition, ...]
    repairs: dict[str, int] = field(default_factory=dict[str, int])
    preview: tuple[tuple[int, str | None, str], ...] = ()

    @property
    def inserted(self) -> int:
        """Records that this load moved."""
        return sum(part.inserted for part in self.partitions)


class Maintenance(Protocol):
    """What a load lets be done for a partition, or a table without any, beside writing it."""

    def undisturbed(self, table: str) -> AbstractContextManager[None]:
        """Holds off, for a block, what would disturb the writing."""
        ...

    def after(self, conn: Connection, table: str, written: int, pacer: Pacer, stopped: Callable[[], bool]) -> None:
        """Works on what was written.

        Args:
            conn: The connection that wrote it, with no transaction open.
            table: The partition or table.
            written: How many rows were written.
            pacer: The pace of the load, to be kept.
            stopped: Tells whether the load is to end.
        """
        ...


def load(
    session: Session,
    mapping: TableMapping,
    plan: LoadPlan,
    parts: Sequence[Part],
    maintenance: Maintenance | None = None,
) -> Load:
    """Loads what is not loaded yet of some parts of a plan; an interrupted load goes on after its last batch.

    Args:
        session: The run.
        mapping: The entity's mapping.
        plan: What becomes of its records.
        parts: What to load; their partitions must be there.
        maintenance: What to let be done beside it.

    Raises:
        DatabaseError: A batch failed; names the records. Batches before it stay.
        ThresholdError: Too many records are refused by the server; what was loaded stays for the caller to roll back.
    """
    partitions = _Loader(session, mapping, plan, maintenance).run(parts)
    return with_retry(session, lambda: _concluded(session, mapping, plan, partitions))


def _concluded(
    session: Session, mapping: TableMapping, plan: LoadPlan, partitions: tuple[LoadedPartition, ...]
) -> Load:
    """Fills in what had to wait for all rows, and reads what became of the records."""
    table = mapping.spec.name
    with session.connection(f"load {table}") as conn:
        if mapping.deferred_fk:
            with conn.transaction():
                pass_rules(conn)
                complete = sql.SQL("select migration.{}()").format(sql.Identifier(f"complete_{table}"))
                despite_unfit_rows(conn, table, session.catalog.listed(table), partial(conn.execute, complete))
                failpoint("complete: before commit", conn)
            failpoint("complete: after commit", conn)
        repairs = dict(
            conn.execute(
                "select column_name, count(*) from migration.repairs where entity = %s group by 1 order by 1", (table,)
            ).fetchall()
        )
        preview = conn.execute(
            "select record_number, base44_id, array_to_string(reasons, ', ') from migration.quarantine"
            " where entity = %s and generation = %s order by record_number limit 10",
            (table, plan.generation),
        ).fetchall()
        migrated = scalar(conn, "select migrated from migration.accounting where entity = %s", (table,))
    return Load(table, plan, migrated, partitions, repairs, tuple((row[0], row[1], row[2]) for row in preview))


def _next(todo: SimpleQueue[Part]) -> Part | None:
    with suppress(Empty):
        return todo.get_nowait()
    return None


class _Batch(NamedTuple):
    """Positions that a transaction works on; `number` is the batch's in the log."""

    first: int
    last: int
    number: int


class _Loader:
    """Works off the parts of a plan with a few connections, each of which takes the next part."""

    def __init__(
        self, session: Session, mapping: TableMapping, plan: LoadPlan, maintenance: Maintenance | None
    ) -> None:
        self._session = session
        self._table = mapping.spec.name
        self._key = mapping.key
        self._plan = plan
        self._maintenance = maintenance
        self._load = sql.SQL("select processed, kept, seconds from migration.{}(%s, %s, %s, %s, %s, %s, %s)").format(
            sql.Identifier(f"load_{self._table}")
        )
        self._listed = session.catalog.listed(self._table)
        self._stop = threading.Event()
        self._connections: dict[int, Connection] = {}
        self._lock = threading.Lock()
        self._done = 0
        self._blindness = Blindness()

    def run(self, parts: Sequence[Part]) -> tuple[LoadedPartition, ...]:
        if not parts:
            return ()
        # Largest first would balance better, but months in order keep the log readable and differ little.
        todo: SimpleQueue[Part] = SimpleQueue()
        for part in parts:
            todo.put(part)
        streams = min(self._session.pace.streams, len(parts))
        loaded: list[LoadedPartition] = []
        with ThreadPoolExecutor(streams, thread_name_prefix=f"load {self._table}") as pool:
            futures = [pool.submit(self._stream, number, todo) for number in range(streams)]
            try:
                for future in as_completed(futures):
                    loaded.extend(future.result())
            except BaseException as error:
                self._stop.set()
                if not isinstance(error, Exception):
                    cancel_until_done(futures, self._connections.values())
                raise
        return tuple(sorted(loaded, key=lambda part: part.partition_key or date.min))

    def _stream(self, number: int, todo: SimpleQueue[Part]) -> list[LoadedPartition]:
        """Takes parts until there are none; a fault that may pass costs a connection, and no more."""
        pacer = Pacer(self._session.pace, blindness=self._blindness)
        loaded: list[LoadedPartition] = []
        part: Part | None = None
        inserted, seconds, attempt = 0, 0.0, 1
        while True:
            try:
                with self._session.connection(f"load {self._table}") as conn:
                    self._connections[number] = conn
                    while not self._stop.is_set():
                        if part is None:
                            # Not an exception out of the block, with which the connection would be closed.
                            if (part := _next(todo)) is None:
                                break
                            inserted, seconds = 0, 0.0
                        with self._undisturbed(part):
                            while part.left and (done := self._batch(conn, part, pacer, attempt)) is not None:
                                written, took, left = done
                                inserted, seconds, attempt = inserted + written, seconds + took, 1
                                part = part._replace(left=left)
                        if self._maintenance is not None and part.table is not None:
                            self._maintenance.after(conn, part.table, inserted, pacer, self._stop.is_set)
                        loaded.append(LoadedPartition(part.key, inserted, part.records, seconds))
                        part = None
                    return loaded
            except (_TryAgain, TransientDatabaseError) as error:
                # Between two batches, too, or in the midst of connecting anew.
                fault = error.fault if isinstance(error, _TryAgain) else error
                if attempt >= self._session.attempts or self._stop.is_set():
                    raise fault from fault.__cause__
                self._session.notice(f"{fault}; trying again ({attempt + 1} of {self._session.attempts})")
                self._session.sleep(backoff(attempt, random.random))
                attempt += 1

    def _undisturbed(self, part: Part) -> AbstractContextManager[None]:
        if self._maintenance is None or part.table is None or part.first is None:
            return nullcontext()
        return self._maintenance.undisturbed(part.table)

    def _batch(self, conn: Connection, part: Part, pacer: Pacer, attempt: int) -> tuple[int, float, bool] | None:
        """Moves the records after the last committed batch of a partition; None where there are no more.

        A batch that holds a record which the server refuses is tried in halves, until that record stands alone.

        Returns:
            How many records were written, in how many seconds, and whether there are more.

        Raises:
            _TryAgain: For a reason that may pass; the connection is not to be used again.
        """
        if self._stop.is_set() or part.first is None:
            return None
        self._session.guard()
        pacer.wait(conn, stopped=self._stop.is_set, told=self._session.notice)
        size, together = pacer.size, True
        while True:
            batch: _Batch | None = None
            try:
                with conn.transaction():
                    batch = self._begin(conn, part, size, together=together)
                    if batch is None:
                        return None
                    failpoint("batch: begun", conn)
                    if self._session.throttled and part.last is not None and batch.last < part.last:
                        # No commit of the application has to wait for ours to be on disk. A crash of the server may cost
                        # the last few batches with their entries; the last one of a partition puts all before it on disk.
                        conn.execute("set local synchronous_commit = off")
                    values = (*batch, self._plan.generation, part.key, self._session.run_id, attempt)
                    row = despite_unfit_rows(conn, self._table, self._listed, partial(self._write, conn, values))
                    failpoint("batch: before commit", conn)
                failpoint("batch: after commit", conn)
            except errors.ObjectNotInPrerequisiteState as error:
                raise DatabaseError(reason_of(error)) from error
            except psycopg.Error as error:
                kind = classify(error)
                if kind is FaultClass.DATA and batch is not None and not self._stop.is_set():
                    if batch.last > batch.first:
                        size, together = (batch.last - batch.first + 1) // 2, False
                        continue
                    self._refuse(conn, part, batch, error)
                    size, together = pacer.size, True
                    continue
                where = f"the batch of positions {batch.first} to {batch.last}" if batch else "a batch"
                fault = explained(f"{self._table}: {where} failed", error)
                if not self._stop.is_set():
                    # Where the server is gone nothing can be noted; the fault is what counts.
                    with suppress(DatabaseError):
                        self._failed(batch, part.key, error, attempt)
                if kind is FaultClass.TRANSIENT:
                    failpoint("batch: before retry", conn)
                    raise _TryAgain(fault) from error
                raise fault from error
            assert row is not None
            written, kept, seconds = row
            pacer.done(written + kept, seconds)
            with self._lock:
                self._done += written + kept
                self._session.progress(self._table, self._done, self._plan.to_migrate)
            return written, seconds, part.last is None or batch.last < part.last

    def _write(self, conn: Connection, values: tuple[Any, ...]) -> tuple[Any, ...] | None:
        return conn.execute(self._load, values).fetchone()

    def _begin(self, conn: Connection, part: Part, size: int, *, together: bool = True) -> _Batch | None:
        row = conn.execute(
            "select first_position, last_position, batch_number from migration.begin_batch(%s, %s, %s, %s, %s)",
            (self._table, self._plan.generation, part.key, size, together),
        ).fetchone()
        return None if row is None or row[0] is None else _Batch(*row)

    def _refuse(self, conn: Connection, part: Part, batch: _Batch, error: psycopg.Error) -> None:
        """Puts the one record of a batch into quarantine, since the server has something against it."""
        reason = f"refused:{error.diag.constraint_name or error.diag.column_name or condition_of(error)}"
        self._session.notice(
            f"{self._table}: the record at position {batch.first} is refused by the server: {reason_of(error)}"
        )
        with conn.transaction():
            alone = self._begin(conn, part, 1, together=False)
            if alone is None or alone.first != batch.first:
                return
            conn.execute(
                "select migration.refuse_record(%s, %s, %s, %s, %s, %s, %s, %s)",
                (
                    self._table,
                    self._plan.generation,
                    part.key,
                    alone.first,
                    alone.number,
                    reason,
                    self._session.run_id,
                    self._key,
                ),
            )
            # As the migration tables say: an attempt that failed is not in them, and what an earlier run refused is.
            refused = scalar(
                conn,
                "select count(*) from migration.quarantine where entity = %s and generation = %s and replayed_at is null",
                (self._table, self._plan.generation),
            )
            limit = self._session.max_quarantine
            if limit is not None and limit.exceeded(refused, self._plan.read):
                raise ThresholdError(
                    f"{self._table}: {refused} of {self._plan.read} records are refused, the last by the server"
                    f" ({reason}), more than B44_MAX_QUARANTINE={limit} allows; the load was rolled back"
                )
            failpoint("record refused: before commit", conn)
        failpoint("record refused: after commit", conn)

    def _failed(self, batch: _Batch | None, key: date | None, error: psycopg.Error, attempt: int) -> None:
        """Notes a failed batch in a transaction of its own; the batch's is gone."""
        with self._session.connection(f"load {self._table}") as conn:
            failpoint("batch: before failure is noted", conn)
            conn.execute(
                "insert into migration.migration_log (entity_type, batch_number, status, error_message, started_at,"
                " completed_at, partition_key, generation, first_position, last_position, run_id, attempts)"
                " values (%s, coalesce(%s, nextval('migration.batch_number')), 'failed', %s, now(), now(), %s, %s, %s, %s, %s, %s)",
                (
                    self._table,
                    batch and batch.number,
                    str(error),
                    key,
                    self._plan.generation,
                    batch and batch.first,
                    batch and batch.last,
                    self._session.run_id,
                    attempt,
                ),
            )
            failpoint("batch: after failure is noted", conn)


class _TryAgain(Exception):
    """A batch failed for a reason that may pass; nothing of it is in the database."""

    def __init__(self, fault: DatabaseError) -> None:
        super().__init__(str(fault))
        self.fault = fault
