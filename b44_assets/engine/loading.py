"""Settled records into the target, in batches; each batch and its books are one transaction.

What belongs here: moving rows, and noting it. What does not: deciding anything about a record.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor, as_completed, wait
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from queue import Empty, SimpleQueue
from typing import Any

import psycopg
from psycopg import sql

from b44_assets.catalog import Period, Spec, TableMapping
from b44_assets.database.connect import CANCEL_SECONDS
from b44_assets.engine.session import Connection, Session, checksum, columns_of, identifiers, reason_of, scalar
from b44_assets.engine.settling import VERDICTS, Settlement, settle
from b44_assets.errors import DatabaseError, SettingsError


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
        settlement: What the records came to.
        migrated: Records of the export that are in the target now, of all partitions.
        partitions: What was loaded, by partition.
        repairs: Repaired values of the settlement's migrated records, by column.
        preview: The first quarantined records: `(record_number, base44_id, reasons)`.
    """

    entity: str
    settlement: Settlement
    migrated: int
    partitions: tuple[LoadedPartition, ...]
    repairs: dict[str, int] = field(default_factory=dict[str, int])
    preview: tuple[tuple[int, str | None, str], ...] = ()

    @property
    def inserted(self) -> int:
        """Records that this load moved."""
        return sum(part.inserted for part in self.partitions)


@dataclass(frozen=True)
class Range:
    """Partitions to load: from the first day of one to before the first day of another; None is open."""

    start: date | None = None
    end: date | None = None

    def __contains__(self, key: date) -> bool:
        return (self.start is None or key >= self.start) and (self.end is None or key < self.end)


def load(session: Session, mapping: TableMapping, wanted: Range = Range(), first_month: date | None = None) -> Load:
    """Settles an entity if need be and loads what is not loaded yet, of all partitions or of some.

    An interrupted load goes on after its last batch.

    Args:
        session: The run.
        mapping: The entity's mapping; the target table must be there.
        wanted: Which partitions; only for a table with periods.
        first_month: The earliest partition that may be loaded, for a table with periods.

    Raises:
        DatabaseError: A batch failed; names the records. Batches before it stay.
        SettingsError: A record is older than `first_month`.
        ThresholdError: Too many records are refused; nothing was loaded.
    """
    table = mapping.spec.name
    settlement = settle(session, mapping)
    spec = session.catalog.table(table)
    with session.connection(f"load {table}") as conn:
        parts = _parts(conn, table)
        earliest = parts[0].key if parts else None
        if first_month is not None and earliest is not None and earliest < first_month:
            oldest = conn.execute(
                sql.SQL(
                    "select record_number, base44_id from migration.{} where partition_key = %s order by position limit 1"
                ).format(sql.Identifier(f"{table}_settled")),
                (earliest,),
            ).fetchone()
            number, base44_id = oldest if oldest else ("?", "?")
            raise SettingsError(
                f"{mapping.entity} record {number} (id {base44_id}) is of {earliest:%Y-%m}, before B44_FIRST_MONTH="
                f"{first_month:%Y-%m}; set B44_FIRST_MONTH={earliest:%Y-%m} to migrate it"
            )
        parts = [part for part in parts if part.key is None or part.key in wanted]
        if spec.period is not None:
            for part in parts:
                conn.execute("select base44_create_partition(%s, %s, %s)", (table, spec.period.unit, part.key))
        loader = _Loader(session, mapping, spec, settlement, _statement(conn, mapping, spec.period))
    partitions = loader.run(parts)
    with session.connection(f"load {table}") as conn:
        _pass_rules_by(conn)
        for name in mapping.later:
            _complete(conn, mapping, name)
        repairs = dict(
            conn.execute(
                "select column_name, count(*) from migration.repairs where entity = %s group by 1 order by 1", (table,)
            ).fetchall()
        )
        preview = conn.execute(
            "select record_number, base44_id, array_to_string(reasons, ', ') from migration.quarantine"
            " where entity = %s and generation = %s order by record_number limit 10",
            (table, settlement.generation),
        ).fetchall()
        migrated = scalar(conn, "select migrated from migration.accounting where entity = %s", (table,))
    return Load(table, settlement, migrated, partitions, repairs, tuple((row[0], row[1], row[2]) for row in preview))


@dataclass(frozen=True)
class _Part:
    """A partition's records in the settlement: the positions of those to insert (None without any), and how many in all."""

    key: date | None
    first: int | None
    last: int | None
    records: int


def _parts(conn: Connection, table: str) -> list[_Part]:
    """All partitions in one pass: there is no index to ask for a single one."""
    rows = conn.execute(
        sql.SQL(
            """
            select partition_key, min(position) filter (where fate = 'insert'), max(position) filter (where fate = 'insert'),
                   count(*)
              from migration.{}
             where fate <> 'refused'
             group by partition_key
             order by partition_key
            """
        ).format(sql.Identifier(f"{table}_settled"))
    ).fetchall()
    return [_Part(*row) for row in rows]


def target_columns(conn: Connection, mapping: TableMapping) -> list[str]:
    """The columns that the mapping fills, in the target's order.

    Raises:
        DatabaseError: The mapping gives a column that the target does not have.
    """
    table = mapping.spec.name
    target = columns_of(conn, "public", table)
    given = columns_of(conn, "migration", f"{table}_mapping")
    strange = [name for name in given if name not in target and name not in {*VERDICTS, "record_number", "base44_id"}]
    if strange:
        raise DatabaseError(f"{mapping.spec.path}: gives {strange[0]}, which {table} does not have")
    return [name for name, generated in target.items() if name in given and not generated]


def _statement(conn: Connection, mapping: TableMapping, period: Period | None) -> sql.Composed:
    """One batch: rows, identities, repairs, unmapped fields and the log, in one statement, so they cannot part.

    Records come in the order of their positions, so that indexes grow at their end.
    """
    table = mapping.spec.name
    columns = target_columns(conn, mapping)
    values = [sql.SQL("null") if name in mapping.later else sql.Identifier("r", name) for name in columns]
    settled = columns_of(conn, "migration", f"{table}_settled")

    def of_settled(name: str, kind: str) -> sql.Composable:
        return sql.Identifier("r", name) if name in settled else sql.SQL("null::{}").format(sql.SQL(kind))  # type: ignore[arg-type]

    return sql.SQL(
        """
        with records as materialized (
          select s.*, {wide} nullif(f.unmapped || coalesce(s.unmapped, '{{}}'), '{{}}') as left_over
            from migration.{settled} s
            join migration.{source} f on f.record_number = s.record_number
           where s.position between %(first)s and %(last)s
        ),
        kept as (
          insert into public.{table} ({columns})
          select {values} from records r
          returning {key} as id, {checksum} as row_checksum
        ),
        identified as (
          insert into migration.migrated
            (entity, id, base44_id, created_at, updated_at, row_checksum, record_number, generation, batch_number)
          select {entity}, k.id, r.base44_id, {created_at}, {updated_at}, k.row_checksum, r.record_number,
                 %(generation)s, %(batch)s
            from kept k
            join records r on r.{plain_key} = k.id
          returning 1
        ),
        changed as (
          insert into migration.repairs (entity, base44_id, column_name, rule, original, replacement, batch_number)
          select {entity}, r.base44_id, c ->> 'column_name', c ->> 'rule', c ->> 'original', c ->> 'replacement', %(batch)s
            from records r
           cross join unnest(r.repairs) as c
           where r.repairs <> '{{}}'
        ),
        kept_besides as (
          insert into migration.unmapped (entity, base44_id, data, batch_number)
          select {entity}, r.base44_id, r.left_over, %(batch)s
            from records r
           where r.left_over is not null
          on conflict (entity, base44_id) do update set data = excluded.data, batch_number = excluded.batch_number
        )
        insert into migration.migration_log
          (entity_type, batch_number, records_processed, status, started_at, completed_at, partition_key, generation,
           first_position, last_position, run_id, attempts)
        select {entity}, %(batch)s, (select count(*) from identified), 'completed', now(), clock_timestamp(), %(partition_key)s,
               %(generation)s, %(first)s, %(last)s, %(run_id)s, %(attempt)s
        returning records_processed, extract(epoch from completed_at - started_at)::float8
        """
    ).format(
        settled=sql.Identifier(f"{table}_settled"),
        source=sql.Identifier(f"{table}_source"),
        wide=sql.SQL("").join(sql.SQL("f.{}, ").format(sql.Identifier(name)) for name in mapping.wide),
        table=sql.Identifier(table),
        columns=identifiers(columns),
        values=sql.SQL(", ").join(values),
        key=sql.Identifier(table, mapping.key),
        plain_key=sql.Identifier(mapping.key),
        checksum=checksum(columns, table),
        entity=sql.Literal(table),
        created_at=of_settled(period.column if period else "created_at", "timestamptz"),
        updated_at=of_settled("updated_at", "timestamptz"),
    )


class _Loader:
    def __init__(
        self, session: Session, mapping: TableMapping, spec: Spec, settlement: Settlement, statement: sql.Composed
    ) -> None:
        self._session = session
        self._mapping = mapping
        self._table = spec.name
        self._settlement = settlement
        self._statement = statement
        self._stop = threading.Event()
        self._connections: list[Connection] = []
        self._lock = threading.Lock()
        self._done = 0

    def run(self, parts: Sequence[_Part]) -> tuple[LoadedPartition, ...]:
        if not parts:
            return ()
        # Largest first would balance better, but months in order keep the log readable and differ little.
        todo: SimpleQueue[_Part] = SimpleQueue()
        for part in parts:
            todo.put(part)
        streams = min(self._session.streams, len(parts))
        loaded: list[LoadedPartition] = []
        with ThreadPoolExecutor(streams, thread_name_prefix=f"load {self._table}") as pool:
            futures = [pool.submit(self._stream, todo) for _ in range(streams)]
            try:
                for future in as_completed(futures):
                    loaded.extend(future.result())
            except BaseException as error:
                self._stop.set()
                if not isinstance(error, Exception):
                    self._interrupt(futures)
                raise
        return tuple(sorted(loaded, key=lambda part: part.partition_key or date.min))

    def _interrupt(self, futures: Sequence[Future[Any]]) -> None:
        """Ends the SQL of the streams in the server: their threads are not told of an interruption."""
        while wait(futures, timeout=0.1).not_done:
            for conn in tuple(self._connections):
                with suppress(psycopg.Error):
                    conn.cancel_safe(timeout=CANCEL_SECONDS)

    def _stream(self, todo: SimpleQueue[_Part]) -> list[LoadedPartition]:
        loaded: list[LoadedPartition] = []
        with self._session.connection(f"load {self._table}") as conn:
            _pass_rules_by(conn)
            self._connections.append(conn)
            while not self._stop.is_set():
                try:
                    part = todo.get_nowait()
                except Empty:
                    break
                loaded.append(self._partition(conn, part))
        return loaded

    def _partition(self, conn: Connection, part: _Part) -> LoadedPartition:
        inserted, seconds = 0, 0.0
        if part.first is not None and part.last is not None:
            while not self._stop.is_set() and (done := self._batch(conn, part.key, part.first, part.last)) is not None:
                inserted, seconds = inserted + done[0], seconds + done[1]
        return LoadedPartition(part.key, inserted, part.records, seconds)

    def _batch(self, conn: Connection, key: date | None, first: int, last: int) -> tuple[int, float] | None:
        """Moves the records after the last committed batch of a partition; None where there are no more.

        Args:
            conn: No transaction is open on it.
            key: The partition.
            first: The partition's first position.
            last: Its last.

        Returns:
            How many records were moved, and in how many seconds.
        """
        batch: int | None = None
        position = upto = first
        try:
            with conn.transaction():
                position = self._next(conn, key, first)
                if position > last:
                    return None
                upto = min(position + self._session.batch_size - 1, last)
                batch = scalar(conn, "select nextval('migration.batch_number')")
                params = {
                    "first": position,
                    "last": upto,
                    "batch": batch,
                    "generation": self._settlement.generation,
                    "partition_key": key,
                    "run_id": self._session.run_id,
                    "attempt": 1,
                }
                # The batch's records are kept in memory while they are written, and again for the trigger of the slugs.
                conn.execute("set local work_mem = '64MB'")
                row = conn.execute(self._statement, params).fetchone()
                if row is None or row[0] != upto - position + 1:
                    raise DatabaseError(
                        f"{self._table}: batch {batch} moved {row and row[0]} of {upto - position + 1} records"
                    )
        except psycopg.Error as error:
            if not self._stop.is_set():
                # Where the server is gone its books cannot be told; the fault below is what counts.
                with suppress(DatabaseError):
                    self._failed(batch, key, position, upto, error)
            raise DatabaseError(
                f"{self._table}: the batch of positions {position} to {upto} failed: {reason_of(error)}"
            ) from error
        with self._lock:
            self._done += row[0]
            self._session.progress(self._table, self._done, self._settlement.to_migrate)
        return row[0], row[1]

    def _next(self, conn: Connection, key: date | None, first: int) -> int:
        """The position after the last committed batch, for this transaction to go on at.

        A partition is worked on by one transaction at a time, and nothing is settled anew meanwhile: another run may be
        under way, or the last batch of one that was killed still be running in the server.
        """
        conn.execute(
            "select pg_advisory_xact_lock_shared(hashtextextended(%s, 44)),"
            " pg_advisory_xact_lock(hashtextextended(%s, 44))",
            (f"settle {self._table}", f"load {self._table} {key}"),
        )
        generation = scalar(conn, "select generation from migration.settlements where entity = %s", (self._table,))
        if generation != self._settlement.generation:
            raise DatabaseError(f"{self._table}: another run has begun on another export meanwhile; migrate again")
        reached = scalar(
            conn,
            "select max(last_position) from migration.migration_log where entity_type = %s and generation = %s"
            " and partition_key is not distinct from %s and status = 'completed'",
            (self._table, generation, key),
        )
        return first if reached is None else reached + 1

    def _failed(self, batch: int | None, key: date | None, first: int, last: int, error: psycopg.Error) -> None:
        """Notes a failed batch in a transaction of its own; the batch's is gone."""
        with self._session.connection(f"load {self._table}") as conn:
            conn.execute(
                "insert into migration.migration_log (entity_type, batch_number, status, error_message, started_at,"
                " completed_at, partition_key, generation, first_position, last_position, run_id)"
                " values (%s, coalesce(%s, nextval('migration.batch_number')), 'failed', %s, now(), now(), %s, %s, %s, %s, %s)",
                (self._table, batch, str(error), key, self._settlement.generation, first, last, self._session.run_id),
            )


def _pass_rules_by(conn: Connection) -> None:
    """Rules for writes by the application are not for records that the mapping has judged; the triggers look at this."""
    conn.execute("set b44.migrating = 'on'")


def _complete(conn: Connection, mapping: TableMapping, name: str) -> None:
    """Fills a column that points into its own table, now that every row it can point at is there."""
    table = mapping.spec.name
    columns = target_columns(conn, mapping)
    with conn.transaction():
        conn.execute(
            sql.SQL(
                """
                with completed as (
                  update public.{table} t set {name} = s.{name}
                    from migration.{settled} s
                   where s.fate = 'insert' and s.{key} = t.{key} and s.{name} is not null and t.{name} is null
                     and exists (select from migration.migrated m where m.entity = {entity} and m.id = t.{key})
                  returning t.{key} as id, {checksum} as row_checksum
                )
                update migration.migrated m set row_checksum = c.row_checksum
                  from completed c where m.entity = {entity} and m.id = c.id
                """
            ).format(
                table=sql.Identifier(table),
                name=sql.Identifier(name),
                settled=sql.Identifier(f"{table}_settled"),
                key=sql.Identifier(mapping.key),
                entity=sql.Literal(table),
                checksum=checksum(columns, "t"),
            )
        )
