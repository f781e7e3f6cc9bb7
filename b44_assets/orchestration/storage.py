"""Dagster's own storage in PostgreSQL, wherever `dagster.yaml` is read: by `b44`, `dagster dev`, webserver or daemon."""

from __future__ import annotations

import json
import threading
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, nullcontext, suppress
from itertools import groupby
from typing import Any

from dagster import (
    AssetCheckEvaluation,
    AssetKey,
    DagsterEventType,
    DagsterInstance,
    DagsterRun,
    EventLogEntry,
    EventLogRecord,
    Field,
    StringSource,
)
from dagster._core.definitions.asset_checks.asset_check_evaluation import AssetCheckEvaluationPlanned
from dagster._core.events import ASSET_CHECK_EVENTS, ASSET_EVENTS
from dagster._core.remote_origin import RegisteredCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from dagster._core.storage.asset_check_execution_record import AssetCheckExecutionRecordStatus
from dagster._core.storage.event_log.base import AssetRecord
from dagster._core.storage.event_log.migration import ASSET_KEY_INDEX_COLS
from dagster._core.storage.event_log.schema import AssetCheckExecutionsTable, AssetKeyTable, SqlEventLogStorageTable
from dagster._core.storage.tags import REPOSITORY_LABEL_TAG
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage, PostgresRunStorage
from dagster_postgres.utils import DagsterPostgresException, retry_pg_connection_fn
from dagster_shared.record import replace
from sqlalchemy import Connection, NullPool, create_engine, make_url, text
from sqlalchemy.dialects import postgresql
from sqlalchemy.exc import SQLAlchemyError

from b44_assets.config.settings import Settings
from b44_assets.postgres.embedded import dagster_url

_SHOWN_WITHIN_SECONDS = 0.5
_AT_MOST_HELD = 500


# What was planned becomes what came of it; what was not planned is added.
_EVALUATED = text("""
    with evaluated as (
        select * from jsonb_to_recordset(cast(:rows as jsonb)) as e (
            asset_key text, check_name text, run_id text, execution_status text, evaluation_event text,
            evaluation_event_timestamp timestamp, evaluation_event_storage_id bigint, materialization_event_storage_id bigint)
    ), changed as (
        update asset_check_executions c
           set execution_status = e.execution_status,
               evaluation_event = e.evaluation_event,
               evaluation_event_timestamp = e.evaluation_event_timestamp,
               evaluation_event_storage_id = e.evaluation_event_storage_id,
               materialization_event_storage_id = e.materialization_event_storage_id
          from evaluated e
         where (c.asset_key, c.check_name, c.run_id) = (e.asset_key, e.check_name, e.run_id) and c.partition is null
        returning e.asset_key, e.check_name, e.run_id
    )
    insert into asset_check_executions (
        asset_key, check_name, run_id, execution_status, evaluation_event, evaluation_event_timestamp,
        evaluation_event_storage_id, materialization_event_storage_id)
    select asset_key, check_name, run_id, execution_status, evaluation_event, evaluation_event_timestamp,
           evaluation_event_storage_id, materialization_event_storage_id
      from evaluated where (asset_key, check_name, run_id) not in (select asset_key, check_name, run_id from changed)
""")

# By these Dagster tells whether the tables of each of its storages are there.
_TABLES_ARE_THERE = text("""
    select bool_and(to_regclass(name) is not null)
      from unnest(array['runs', 'instance_info', 'event_logs', 'jobs']) as tables (name)
""")


class EventLogStorage(PostgresEventLogStorage):
    """As `dagster-postgres` has it, but for what makes a run of many assets slow.

    It asks with many an event which tables and columns are there, stores each event of a run in two or three transactions, and
    what is planned in one or two for each asset and check. Here those that come together are stored together.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        """As of `PostgresEventLogStorage`."""
        self._tables: set[str] = set()
        self._columns: set[str] = set()
        self._batch = threading.local()
        self._holding = False
        self._held: list[EventLogEntry] = []
        self._known: dict[AssetKey, AssetRecord] = {}
        self._lock = threading.RLock()
        super().__init__(*args, **named)

    def has_table(self, table_name: str) -> bool:
        """Whether there is such a table; one that is there stays."""
        if table_name not in self._tables and super().has_table(table_name):
            self._tables.add(table_name)
        return table_name in self._tables

    def _has_asset_key_col_on_connection(self, conn: Any, column_name: str) -> bool:
        if column_name not in self._columns and super()._has_asset_key_col_on_connection(conn, column_name):
            self._columns.add(column_name)
        return column_name in self._columns

    @contextmanager
    def holding(self) -> Generator[None]:
        """Lets the events of the run in this process wait for each other until the end of the block.

        They are stored in their order, together: when there are many, when half a second has passed, before anything is read,
        and with each event that changes the state of the run. What cannot be stored is held on to, and fails the next such
        occasion. A killed process loses what it held, as it loses what it was about to say.
        """
        ended = threading.Event()

        def store_now_and_then() -> None:
            while not ended.wait(_SHOWN_WITHIN_SECONDS):
                # What cannot be stored stays held; whoever stores or reads next meets with the fault, in the run's thread.
                with suppress(SQLAlchemyError, DagsterPostgresException):
                    self._store_held()

        thread = threading.Thread(target=store_now_and_then, name="store", daemon=True)
        self._holding = True
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()
            self._holding = False
            self._known.clear()
            self._store_held()

    def get_asset_records(self, asset_keys: Sequence[AssetKey] | None = None) -> Sequence[AssetRecord]:
        """What is newest of assets. While a run holds its events, what it has read or stored of an asset is read once.

        Dagster asks for it at the beginning of each step and with each check, of the assets upstream.
        """
        with self._lock:
            if not self._holding or asset_keys is None:
                return super().get_asset_records(asset_keys)
            if any(event.dagster_event_type in ASSET_EVENTS and _asset_of(event) in asset_keys for event in self._held):
                self._store_held()
            if unknown := [key for key in asset_keys if key not in self._known]:
                # At first all at once: a run asks for most of them, one after the other.
                found = super().get_asset_records(unknown if self._known else None)
                self._known |= {record.asset_entry.asset_key: record for record in found}
            return [self._known[key] for key in dict.fromkeys(asset_keys) if key in self._known]

    def store_event(self, event: EventLogEntry) -> None:
        """Stores an event, or holds it until others have come."""
        self.store_event_batch([event])

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Stores events in one transaction, or holds them until others have come."""
        with self._lock:
            changes_state = any(
                event.dagster_event is not None and event.dagster_event.is_job_event for event in events
            )
            if self._holding and not changes_state and len(self._held) + len(events) < _AT_MOST_HELD:
                self._held += events
            else:
                self._store_held(events)

    def _store_held(self, events: Sequence[EventLogEntry] = ()) -> None:
        """Stores what is held, and these events after it. What was held stays so where that fails."""
        with self._lock:
            if together := [*self._held, *events]:
                self._store(together)
                self._held.clear()

    def _connect(self) -> Any:
        conn = getattr(self._batch, "conn", None)
        if conn is not None:
            return nullcontext(conn)
        self._store_held()
        return super()._connect()

    def _store(self, events: Sequence[EventLogEntry]) -> None:
        with super()._connect() as connected:
            conn = connected.execution_options(isolation_level="READ COMMITTED")
            with conn.begin():
                # What Dagster's own methods do for an event, they do in this transaction.
                self._batch.conn = conn
                try:
                    numbered = self._store_on(conn, events)
                finally:
                    del self._batch.conn
        for event, number in numbered:
            self._remember(event, number)

    def _store_on(self, conn: Connection, events: Sequence[EventLogEntry]) -> list[tuple[EventLogEntry, int]]:
        number = SqlEventLogStorageTable.c.id
        rows = [self._event_to_row(event) for event in events]
        stored = conn.execute(SqlEventLogStorageTable.insert().returning(number, sort_by_parameter_order=True), rows)
        numbered = list(zip(events, (int(row[0]) for row in stored), strict=True))
        self._store_on_assets(
            conn,
            [
                (event, number)
                for event, number in numbered
                if event.dagster_event_type in ASSET_EVENTS and event.get_dagster_event().asset_key
            ],
        )
        self._store_on_checks(
            conn,
            [
                (event, number, row["event"])
                for (event, number), row in zip(numbered, rows, strict=True)
                if event.dagster_event_type in ASSET_CHECK_EVENTS
            ],
        )
        return numbered

    def _store_on_assets(self, conn: Connection, numbered: Sequence[tuple[EventLogEntry, int]]) -> None:
        """Stores the tags of events of assets, and with each asset what is newest of it."""
        if not numbered:
            return
        self._store_asset_event_tags(conn, [event for event, _ in numbered], [number for _, number in numbered])
        newest: dict[str, dict[str, Any]] = {}
        for event, number in numbered:
            key = event.get_dagster_event().asset_key
            assert key is not None
            values = self._get_asset_entry_values(event, number, self.has_secondary_index(ASSET_KEY_INDEX_COLS))
            newest.setdefault(key.to_string(), {}).update(values)
        # In the order of the keys, so that two runs that store events of the same assets cannot wait for each other.
        for columns, entries in groupby(sorted(newest.items()), key=lambda entry: sorted(entry[1])):
            insert = postgresql.insert(AssetKeyTable)
            on_conflict = (
                insert.on_conflict_do_update(
                    index_elements=[AssetKeyTable.c.asset_key],
                    set_={column: insert.excluded[column] for column in columns},
                )
                if columns
                else insert.on_conflict_do_nothing()
            )
            conn.execute(on_conflict, [{"asset_key": key, **values} for key, values in entries])

    def _remember(self, event: EventLogEntry, number: int) -> None:
        """Keeps what is known of assets to what has just been stored of them."""
        key = _asset_of(event)
        known = self._known.get(key) if key is not None else None
        if key is None or known is None:
            return
        if event.dagster_event_type is DagsterEventType.ASSET_MATERIALIZATION:
            record = EventLogRecord(storage_id=number, event_log_entry=event)
            entry = replace(known.asset_entry, last_materialization_record=record, last_run_id=event.run_id)
            self._known[key] = replace(known, asset_entry=entry)
        else:
            del self._known[key]

    def _store_on_checks(self, conn: Connection, numbered: Sequence[tuple[EventLogEntry, int, str]]) -> None:
        """Stores what is planned and what came of checks: all that is planned first, and of each check what is newest.

        Args:
            conn: In a transaction.
            numbered: Events of checks, each with its number and its text.
        """
        planned: list[dict[str, Any]] = []
        evaluated: dict[tuple[str, str, str], dict[str, Any]] = {}
        for event, number, written in numbered:
            data: Any = event.get_dagster_event().event_specific_data
            row: dict[str, Any] = {
                "asset_key": data.asset_key.to_string(),
                "check_name": data.check_name,
                "run_id": event.run_id,
                "evaluation_event": written,
                "evaluation_event_timestamp": self._event_insert_timestamp(event),
                "evaluation_event_storage_id": number,
            }
            if isinstance(data, AssetCheckEvaluationPlanned) and data.partitions_subset is None:
                planned.append(row | {"execution_status": AssetCheckExecutionRecordStatus.PLANNED.value})
            elif isinstance(data, AssetCheckEvaluation) and data.partition is None and event.run_id:
                status = AssetCheckExecutionRecordStatus
                target = data.target_materialization_data
                evaluated[row["asset_key"], data.check_name, event.run_id] = row | {
                    "evaluation_event_timestamp": row["evaluation_event_timestamp"].isoformat(),
                    "execution_status": (status.SUCCEEDED if data.passed else status.FAILED).value,
                    "materialization_event_storage_id": None if target is None else target.storage_id,
                }
            else:
                self.store_asset_check_event(event, number)
        if planned:
            conn.execute(AssetCheckExecutionsTable.insert(), planned)
        if evaluated:
            conn.execute(_EVALUATED, {"rows": json.dumps(list(evaluated.values()))})


def _asset_of(event: EventLogEntry) -> AssetKey | None:
    return None if event.dagster_event is None else event.dagster_event.asset_key


class RunStorage(PostgresRunStorage):
    """As `dagster-postgres` has it; a run in this process is one of the code location that its tag names, as any other.

    Dagster gives such a run no origin, and the UI's timeline leaves runs without one out. Which columns its table has it looks
    for with many a question; those that are there stay.
    """

    _columns: frozenset[str] = frozenset()

    def has_run_stats_index_cols(self) -> bool:
        """Whether times of runs are in columns of their own."""
        return self._has("run_stats", super().has_run_stats_index_cols)

    def has_backfill_id_column(self) -> bool:
        """Whether the backfill of a run is in a column of its own."""
        return self._has("backfill_id", super().has_backfill_id_column)

    def _has(self, what: str, look: Callable[[], bool]) -> bool:
        if what not in self._columns and look():
            self._columns |= {what}
        return what in self._columns

    def add_run(self, dagster_run: DagsterRun) -> DagsterRun:
        """Stores a run that begins."""
        label = dagster_run.tags.get(REPOSITORY_LABEL_TAG)
        if label is not None and dagster_run.remote_job_origin is None:
            repository, _, location = label.partition("@")
            dagster_run = dagster_run.with_job_origin(
                RemoteJobOrigin(
                    RemoteRepositoryOrigin(RegisteredCodeLocationOrigin(location), repository), dagster_run.job_name
                )
            )
        return super().add_run(dagster_run)


@contextmanager
def _knowing_the_tables(url: str) -> Generator[bool]:
    """Tells whether Dagster's tables are there, and else keeps other processes from making them at the same time."""
    engine = create_engine(url, poolclass=NullPool)
    with retry_pg_connection_fn(engine.connect) as conn:
        there = bool(conn.execute(_TABLES_ARE_THERE).scalar())
        if not there:
            # Until the end of this transaction.
            conn.execute(text("select pg_advisory_xact_lock(hashtextextended('dagster tables', 0))"))
        yield there


class PostgresStorage(DagsterPostgresStorage):
    """`dagster-postgres`, with the address taken from the settings.

    Dagster's `env:` has no default, so a plain configuration would fail wherever DAGSTER_PG_URL is not set. This finds it
    as the rest of the project does: DAGSTER_PG_URL, else database `dagster` on the embedded server, started if need be.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Opens no connection but to see that Dagster's tables are there."""
        with _knowing_the_tables(postgres_url) as there:
            super().__init__(postgres_url, should_autocreate_tables=not there, inst_data=inst_data)
        self._event_log_storage = EventLogStorage(postgres_url, should_autocreate_tables=False)
        self._run_storage = RunStorage(postgres_url, should_autocreate_tables=False)

    @classmethod
    def config_type(cls) -> Any:
        """No field is required; `postgres_url` overrides the settings."""
        return {"postgres_url": Field(StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> DagsterPostgresStorage:
        """Called by Dagster for the `storage` section of `dagster.yaml`."""
        url = make_url(config_value.get("postgres_url") or dagster_url(Settings.load()))
        if "application_name" not in url.query:
            url = url.update_query_dict({"application_name": "b44 dagster"})
        return cls(url.render_as_string(hide_password=False), inst_data)


@contextmanager
def holding_events(instance: DagsterInstance) -> Generator[None]:
    """Stores the events of a run in this process together (`EventLogStorage.holding`), where the instance has such a storage."""
    storage = instance.event_log_storage
    with storage.holding() if isinstance(storage, EventLogStorage) else nullcontext():
        yield
