"""Settled records into the target, in batches; each batch and its books are one transaction.

What belongs here: moving rows, and noting it. What does not: deciding anything about a record.
"""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from datetime import date
from queue import Empty, SimpleQueue

import psycopg
from psycopg import sql

from b44_assets.catalog import Period, Spec, TableMapping
from b44_assets.engine.session import Connection, Session, checksum, columns_of, identifiers, scalar
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
        partitions: What was loaded, by partition.
        repairs: Repaired values of the settlement's migrated records, by column.
        preview: The first quarantined records: `(record_number, base44_id, reasons)`.
    """

    entity: str
    settlement: Settlement
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
        keys = _partition_keys(conn, table)
        if first_month is not None and keys and keys[0] is not None and keys[0] < first_month:
            oldest = conn.execute(
                sql.SQL(
                    "select record_number, base44_id from migration.{} where partition_key = %s order by position limit 1"
                ).format(sql.Identifier(f"{table}_settled")),
                (keys[0],),
            ).fetchone()
            number, base44_id = oldest if oldest else ("?", "?")
            raise SettingsError(
                f"{mapping.entity} record {number} (id {base44_id}) is of {keys[0]:%Y-%m}, before B44_FIRST_MONTH="
                f"{first_month:%Y-%m}; set B44_FIRST_MONTH={keys[0]:%Y-%m} to migrate it"
            )
        keys = [key for key in keys if key is None or key in wanted]
        if spec.period is not None:
            for key in keys:
                conn.execute("select base44_create_partition(%s, %s, %s)", (table, spec.period.unit, key))
        loader = _Loader(session, mapping, spec, settlement, _statement(conn, mapping, spec.period))
    partitions = loader.run(keys)
    with session.connection(f"load {table}") as conn:
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
    return Load(table, settlement, partitions, repairs, tuple((row[0], row[1], row[2]) for row in preview))


def _partition_keys(conn: Connection, table: str) -> list[date | None]:
    rows = conn.execute(
        sql.SQL("select distinct partition_key from migration.{} where fate <> 'refused' order by 1").format(
            sql.Identifier(f"{table}_settled")
        )
    ).fetchall()
    return [row[0] for row in rows]


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
    """One batch: rows, identities, repairs, unmapped fields and the log, in one statement, so they cannot part."""
    table = mapping.spec.name
    columns = target_columns(conn, mapping)
    values = [
        sql.SQL("null") if name in mapping.later else sql.Identifier("f" if name in mapping.wide else "p", name)
        for name in columns
    ]
    settled = columns_of(conn, "migration", f"{table}_settled")

    def of_settled(name: str, kind: str) -> sql.Composable:
        return sql.Identifier("p", name) if name in settled else sql.SQL("null::{}").format(sql.SQL(kind))  # type: ignore[arg-type]

    return sql.SQL(
        """
        with picked as materialized (
          select s.* from migration.{settled} s where s.position between %(first)s and %(last)s
        ),
        sources as materialized (
          select f.record_number, {wide} f.unmapped as unmapped
            from picked p
            join migration.{source} f on f.record_number = p.record_number
        ),
        kept as (
          insert into public.{table} ({columns})
          select {values}
            from picked p
            join sources f on f.record_number = p.record_number
          returning {key} as id, {checksum} as row_checksum
        ),
        identified as (
          insert into migration.migrated
            (entity, id, base44_id, created_at, updated_at, row_checksum, record_number, generation, batch_number)
          select {entity}, k.id, p.base44_id, {created_at}, {updated_at}, k.row_checksum, p.record_number,
                 %(generation)s, %(batch)s
            from kept k
            join picked p on p.{plain_key} = k.id
          returning 1
        ),
        changed as (
          insert into migration.repairs (entity, base44_id, column_name, rule, original, replacement, batch_number)
          select {entity}, p.base44_id, r ->> 'column_name', r ->> 'rule', r ->> 'original', r ->> 'replacement', %(batch)s
            from picked p
           cross join unnest(p.repairs) as r
        ),
        left_over as (
          insert into migration.unmapped (entity, base44_id, data, batch_number)
          select {entity}, p.base44_id, f.unmapped || coalesce(p.unmapped, '{{}}'), %(batch)s
            from picked p
            join sources f on f.record_number = p.record_number
           where f.unmapped || coalesce(p.unmapped, '{{}}') <> '{{}}'
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
        self._lock = threading.Lock()
        self._done = 0

    def run(self, keys: Sequence[date | None]) -> tuple[LoadedPartition, ...]:
        if not keys:
            return ()
        # Largest first would balance better, but months in order keep the log readable and differ little.
        todo: SimpleQueue[date | None] = SimpleQueue()
        for key in keys:
            todo.put(key)
        streams = min(self._session.streams, len(keys))
        loaded: list[LoadedPartition] = []
        with ThreadPoolExecutor(streams, thread_name_prefix=f"load {self._table}") as pool:
            futures = [pool.submit(self._stream, todo) for _ in range(streams)]
            try:
                for future in as_completed(futures):
                    loaded.extend(future.result())
            except BaseException:
                self._stop.set()
                raise
        return tuple(sorted(loaded, key=lambda part: part.partition_key or date.min))

    def _stream(self, todo: SimpleQueue[date | None]) -> list[LoadedPartition]:
        loaded: list[LoadedPartition] = []
        with self._session.connection(f"load {self._table}") as conn:
            while not self._stop.is_set():
                try:
                    key = todo.get_nowait()
                except Empty:
                    break
                loaded.append(self._partition(conn, key))
        return loaded

    def _partition(self, conn: Connection, key: date | None) -> LoadedPartition:
        bounds = conn.execute(
            sql.SQL(
                "select min(position), max(position) from migration.{}"
                " where fate = 'insert' and partition_key is not distinct from %s"
            ).format(sql.Identifier(f"{self._table}_settled")),
            (key,),
        ).fetchone()
        first, last = bounds if bounds else (None, None)
        inserted, seconds = 0, 0.0
        if first is not None:
            reached = scalar(
                conn,
                "select max(last_position) from migration.migration_log where entity_type = %s and generation = %s"
                " and partition_key is not distinct from %s and status = 'completed'",
                (self._table, self._settlement.generation, key),
            )
            position = first if reached is None else reached + 1
            while position <= last and not self._stop.is_set():
                upto = min(position + self._session.batch_size - 1, last)
                count, took = self._batch(conn, key, position, upto)
                inserted, seconds, position = inserted + count, seconds + took, upto + 1
        migrated = scalar(
            conn,
            sql.SQL(
                "select count(*) from migration.{} where fate <> 'refused' and partition_key is not distinct from %s"
            ).format(sql.Identifier(f"{self._table}_settled")),
            (key,),
        )
        return LoadedPartition(key, inserted, migrated, seconds)

    def _batch(self, conn: Connection, key: date | None, first: int, last: int) -> tuple[int, float]:
        batch = scalar(conn, "select nextval('migration.batch_number')")
        params = {
            "first": first,
            "last": last,
            "batch": batch,
            "generation": self._settlement.generation,
            "partition_key": key,
            "run_id": self._session.run_id,
            "attempt": 1,
        }
        try:
            with conn.transaction():
                # Rules for writes by the application are not for records that the mapping has judged.
                conn.execute("set local b44.migrating = 'on'")
                row = conn.execute(self._statement, params).fetchone()
                if row is None or row[0] != last - first + 1:
                    raise DatabaseError(
                        f"{self._table}: batch {batch} moved {row and row[0]} of {last - first + 1} records"
                    )
        except psycopg.Error as error:
            self._failed(batch, key, first, last, error)
            raise DatabaseError(
                f"{self._table}: batch {batch} (positions {first} to {last}) failed: {error.diag.message_primary or error}"
            ) from error
        with self._lock:
            self._done += row[0]
            self._session.progress(self._table, self._done, self._settlement.to_migrate)
        return row[0], row[1]

    def _failed(self, batch: int, key: date | None, first: int, last: int, error: psycopg.Error) -> None:
        """Notes a failed batch in a transaction of its own; the batch's is gone."""
        with self._session.connection(f"load {self._table}") as conn:
            conn.execute(
                "insert into migration.migration_log (entity_type, batch_number, status, error_message, started_at,"
                " completed_at, partition_key, generation, first_position, last_position, run_id)"
                " values (%s, %s, 'failed', %s, now(), now(), %s, %s, %s, %s, %s)",
                (self._table, batch, str(error), key, self._settlement.generation, first, last, self._session.run_id),
            )


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
