"""Dagster's own storage in PostgreSQL, wherever `dagster.yaml` is read: by `b44`, `dagster dev`, webserver or daemon."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from contextlib import nullcontext
from typing import Any

from dagster import Field, StringSource
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage, PostgresEventLogStorage
from sqlalchemy import make_url

from b44_assets.config.settings import Settings
from b44_assets.postgres.embedded import dagster_url


class EventLogStorage(PostgresEventLogStorage):
    """As `dagster-postgres` has it, but for what makes a run of many assets slow.

    It asks with many an event which tables and columns are there, and stores what is planned in a transaction or two for
    each asset and check.
    """

    def __init__(self, *args: Any, **named: Any) -> None:
        """As of `PostgresEventLogStorage`."""
        self._tables: set[str] = set()
        self._columns: set[str] = set()
        self._batch = threading.local()
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

    def store_event_batch(self, events: Sequence[Any]) -> None:
        """Stores events in one transaction; where it fails Dagster stores them one by one."""
        with self.index_transaction() as conn:
            self._batch.conn = conn
            try:
                super().store_event_batch(events)
            finally:
                del self._batch.conn

    def _connect(self) -> Any:
        conn = getattr(self._batch, "conn", None)
        return super()._connect() if conn is None else nullcontext(conn)


class PostgresStorage(DagsterPostgresStorage):
    """`dagster-postgres`, with the address taken from the settings.

    Dagster's `env:` has no default, so a plain configuration would fail wherever DAGSTER_PG_URL is not set. This finds it
    as the rest of the project does: DAGSTER_PG_URL, else database `dagster` on the embedded server, started if need be.
    """

    def __init__(self, postgres_url: str, inst_data: ConfigurableClassData | None = None) -> None:
        """Opens no connection but to see that Dagster's tables are there."""
        super().__init__(postgres_url, inst_data=inst_data)
        # The tables were seen to just now.
        self._event_log_storage = EventLogStorage(postgres_url, should_autocreate_tables=False)

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
