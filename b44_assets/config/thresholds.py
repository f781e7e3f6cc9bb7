"""The thresholds of monitoring, each with its default: `B44_THRESHOLDS=connections=90%,lock_wait=1min,cpu=off`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Annotated, Any, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationError

from b44_assets.config import quantities


def _text(parse: Callable[[str], Any]) -> BeforeValidator:
    def read(value: object) -> object:
        if value == "off":
            return None
        return parse(value) if isinstance(value, str) else value

    return BeforeValidator(read)


Share = Annotated[float | None, _text(quantities.percent)]
"""From 0 to 1, written as `80%`."""
Span = Annotated[float | None, _text(quantities.span)]
"""Seconds, written as `30s`, `5min`, `2h` or `14d`."""
Size = Annotated[int | None, _text(quantities.size)]
"""Bytes, written as `500MB`."""
Count = Annotated[int | None, _text(quantities.count)]


class Thresholds(BaseModel):
    """What a figure may be before its check fails; None is no limit (`off`)."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    connections: Share = 0.8
    """Of the connections that an application may have, how many may be in use."""
    idle_in_transaction: Span = 300.0
    transaction: Span = 3600.0
    unencrypted: Count = 0
    """Sessions from other machines without TLS."""
    rollbacks: Share = 0.1
    cache_hits: Share = 0.9
    """At least so many of the blocks asked for were in shared_buffers."""
    statement: Span = 1.0
    """What a statement may take on average, where pg_stat_statements tells."""
    running_statement: Span = 60.0
    """How long one may run, where only samples tell."""
    lock_wait: Span = 30.0
    exclusive_lock: Span = 300.0
    deadlocks: Count = 0
    replication_lag: Span = 60.0
    replication_bytes: Size = 1024**3
    slot_wal: Size = 5 * 1024**3
    wal_rate: Size = 50 * 1024**2
    """Bytes of WAL a second."""
    archive_waiting: Count = 64
    requested_checkpoints: Share = 0.5
    session_writes: Share = 0.5
    """Of the blocks written, how many sessions may have to write themselves."""
    temp_files: Size = 1024**3
    """Bytes an hour."""
    disk_free: Share = 0.1
    """At least so much of a disk is free."""
    disk_full: Span = 14 * 86400.0
    """At least so far away is the moment at which a disk is full."""
    cpu: Share = 0.9
    memory: Share = 0.9
    database_growth: Size = None
    """Bytes a day."""
    dead_rows: Share = 0.2
    unanalyzed_rows: Share = 0.5
    transaction_ids: Count = 500_000_000
    multixacts: Count = 500_000_000
    bloat: Share = 0.5
    default_rows: Count = 0
    quarantine: Count = 0
    query_blocks: Count = 10
    """How many times the blocks a row that a query ever took it may take."""
    query_estimates: Count = 100
    """By what factor the planner may be wrong about the rows of a table."""
    backup_age: Span = 26 * 3600.0
    recovery_point: Span = 900.0
    recovery_time: Span = 4 * 3600.0
    drill_age: Span = 35 * 86400.0

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `connections=90%,cpu=off`; what is not named keeps its default.

        Raises:
            ValueError: Something else is written, or one that there is not.
        """
        given: dict[str, str] = {}
        for part in text.split(","):
            name, separator, value = (piece.strip() for piece in part.partition("="))
            if not separator or name in given:
                raise ValueError("thresholds such as connections=90%,lock_wait=1min,cpu=off")
            if name not in cls.model_fields:
                raise ValueError(f"thresholds that there are, and {name!r} is none: {', '.join(cls.model_fields)}")
            given[name] = value
        try:
            return cls.model_validate(given)
        except ValidationError as error:
            first = error.errors(include_url=False)[0]
            expected = first.get("ctx", {}).get("error", first["msg"])
            raise ValueError(f"right for each threshold: {first['loc'][0]} must be {expected}, or off") from None
