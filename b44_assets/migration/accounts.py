"""What the migration tables say of each entity in numbers: read, migrated, quarantined, how far, and by which runs."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from b44_assets.errors import DatabaseError
from b44_assets.migration.plan import OF_EARLIER_VERSION, has_plans
from b44_assets.postgres.advisory_locks import lock_holder
from b44_assets.session import MIGRATION_LOCK, Session, scalar

_RECENT = 5
"""How many runs are named."""


@dataclass(frozen=True)
class EntityAccount:
    """One line of `migration.accounting`, with reasons and repairs."""

    entity: str
    read: int
    migrated: int
    deduplicated: int
    quarantined: int
    unaccounted: int
    pending: int
    vanished: int
    conflicts: int
    reasons: dict[str, int]
    repairs: dict[str, int]


@dataclass(frozen=True)
class EntityProgress:
    """How far an entity is.

    Attributes:
        entity: Its table.
        percentage: Of its records.
        running: Whether a migration of the database is under way.
        records_per_second: Of late; None where none is under way, or nothing is known yet.
        expected_end: When it should be done (UTC); None likewise.
    """

    entity: str
    percentage: float
    running: bool
    records_per_second: float | None
    expected_end: datetime | None


@dataclass(frozen=True)
class WritingRun:
    """A run that wrote records: its id, when its first batch began (UTC), and its batches and records."""

    run_id: str
    began: datetime
    batches: int
    records: int


def progress_of(session: Session) -> tuple[EntityProgress, ...]:
    """How far every entity is that was planned."""
    with session.connection("status") as conn:
        rows = conn.execute(
            "select entity_type, percentage::float8, records_per_second::float8, expected_end from migration.progress"
        ).fetchall()
        running = lock_holder(conn, MIGRATION_LOCK) is not None
    return tuple(
        EntityProgress(entity, percentage, running, speed if running else None, end if running else None)
        for entity, percentage, speed, end in rows
    )


def recent_runs(session: Session) -> tuple[WritingRun, ...]:
    """The last runs that wrote records and were not taken back, the newest first."""
    with session.connection("status") as conn:
        rows = conn.execute(
            "select run_id, min(started_at), count(*), sum(records_processed)::bigint from migration.migration_log"
            " where status = 'completed' and rolled_back_at is null and run_id is not null and records_processed > 0"
            " group by 1 order by 2 desc limit %s",
            (_RECENT,),
        ).fetchall()
    return tuple(WritingRun(*row) for row in rows)


def records_written(session: Session, run_id: str) -> int:
    """How many records a run has inserted or updated."""
    with session.connection("status") as conn:
        if not has_plans(conn):
            return 0
        return scalar(
            conn,
            "select coalesce(sum(records_processed), 0)::bigint from migration.migration_log"
            " where run_id = %s and status = 'completed'",
            (run_id,),
        )


def accounts(session: Session) -> tuple[EntityAccount, ...]:
    """Read what became of every record, by entity, in the order of the catalogue.

    Raises:
        DatabaseError: The database was migrated by an earlier version and not by this one since.
    """
    with session.connection("status") as conn:
        if not has_plans(conn) or scalar(conn, "select to_regclass('migration.accounting')") is None:
            return ()
        if scalar(conn, "select to_regclass('migration.quarantined_by_reason') is null"):
            raise DatabaseError(OF_EARLIER_VERSION)
        rows = {
            row[0]: row
            for row in conn.execute(
                "select entity, read, migrated, deduplicated, quarantined, unaccounted, pending, vanished, conflicts"
                " from migration.accounting"
            ).fetchall()
        }
        reasons: dict[str, dict[str, int]] = {}
        for entity, reason, count in conn.execute(
            "select entity, reason, records from migration.quarantined_by_reason order by records desc, reason"
        ).fetchall():
            reasons.setdefault(entity, {})[reason] = count
        repairs: dict[str, dict[str, int]] = {}
        for entity, column, count in conn.execute(
            "select entity, column_name, repairs from migration.repaired_by_column order by repairs desc, column_name"
        ).fetchall():
            repairs.setdefault(entity, {})[column] = count
    return tuple(
        EntityAccount(*rows[table], reasons=reasons.get(table, {}), repairs=repairs.get(table, {}))
        for table in session.catalog.mappings
        if table in rows
    )
