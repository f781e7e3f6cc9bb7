"""Dagster's own storage in PostgreSQL, wherever `dagster.yaml` is read: by `b44`, `dagster dev`, webserver or daemon."""

from __future__ import annotations

from typing import Any

from dagster import Field, StringSource
from dagster._serdes import ConfigurableClassData
from dagster_postgres import DagsterPostgresStorage

from b44_assets.database.embedded import dagster_url
from b44_assets.settings import Settings


class PostgresStorage(DagsterPostgresStorage):
    """`dagster-postgres`, with the address taken from the settings.

    Dagster's `env:` has no default, so a plain configuration would fail wherever DAGSTER_PG_URL is not set. This finds it
    as the rest of the project does: DAGSTER_PG_URL, else database `dagster` on the embedded server, started if need be.
    """

    @classmethod
    def config_type(cls) -> Any:
        """No field is required; `postgres_url` overrides the settings."""
        return {"postgres_url": Field(StringSource, is_required=False)}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Any) -> DagsterPostgresStorage:
        """Called by Dagster for the `storage` section of `dagster.yaml`."""
        url = config_value.get("postgres_url") or dagster_url(Settings.load())
        return DagsterPostgresStorage(postgres_url=url, inst_data=inst_data)
