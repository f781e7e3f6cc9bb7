"""What is still to be done, and what went wrong: the questions that whoever operates the migration asks.

What belongs here: reading the migration tables. What does not: doing anything about it; see `pipeline`.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date

from psycopg import sql

from b44_assets.migration.plan import has_plans
from b44_assets.session import Connection, Session, scalar


@dataclass(frozen=True)
class PendingPart:
    """Records that wait for their batch.

    Attributes:
        table: The target table.
        partition_key: First day of their month or year; None for a table without periods.
        records: How many.
        generation: The plan that they belong to.
    """

    table: str
    partition_key: date | None
    records: int
    generation: int


@dataclass(frozen=True)
class FailedPart:
    """A part of a table whose last batch failed, and that no later batch has got past.

    Attributes:
        table: The target table.
        partition_key: First day of its month or year; None for a table without periods.
        generation: The plan that the batch belongs to.
        failures: In how many runs it failed.
        error: What the server said last.
    """

    table: str
    partition_key: date | None
    generation: int
    failures: int
    error: str


@dataclass(frozen=True)
class StagedFile:
    """The file that an entity was staged from: its name, its size in bytes, and its SHA-256 in hexadecimal."""

    name: str
    size: int
    digest: str


@dataclass(frozen=True)
class LoadProgress:
    """How far the migrated tables are with the export that is planned.

    Attributes:
        planned: Tables whose staged records have been judged.
        pending: What waits, by table and partition.
        rows: Records moved or found unchanged, by table and partition (None for a table without periods).
    """

    planned: tuple[str, ...]
    pending: tuple[PendingPart, ...]
    rows: dict[str, dict[date | None, int]]

    def complete(self, table: str, partition_key: date | None = None) -> bool:
        """Whether a table, or one partition of it, has all that the export has for it."""
        if table not in self.planned:
            return False
        waiting = {part.partition_key for part in self.pending if part.table == table}
        return partition_key not in waiting if partition_key is not None else not waiting


def migration_exists(session: Session) -> bool:
    """Whether anything was ever migrated into this database."""
    with session.connection("read the migration tables") as conn:
        return scalar(conn, "select to_regclass('migration.exports') is not null")


def staged_files(session: Session) -> dict[str, StagedFile]:
    """What each table's export was staged from, in its present state; nothing where it was not from a file."""
    with session.connection("read the migration tables") as conn:
        if scalar(conn, "select to_regclass('migration.exports')") is None:
            return {}
        rows = conn.execute(
            "select entity, source_file, bytes, digest from migration.exports where source_file is not null"
        ).fetchall()
    return {row[0]: StagedFile(*row[1:]) for row in rows}


def staged_tables(session: Session) -> tuple[str, ...]:
    """Tables that an export is staged for, in the order of the catalogue."""
    with session.connection("read the migration tables") as conn:
        if scalar(conn, "select to_regclass('migration.exports')") is None:
            return ()
        found = {row[0] for row in conn.execute("select entity from migration.exports").fetchall()}
    return tuple(table for table in session.catalog.mappings if table in found)


def load_progress(session: Session) -> LoadProgress:
    """Reads from the migration tables how far each table is, and what waits; moves nothing.

    A table whose plan is gone (a crash of the server empties it) counts as not planned.
    """
    planned: list[str] = []
    pending: list[PendingPart] = []
    rows: dict[str, dict[date | None, int]] = {}
    with session.connection("read the migration tables") as conn:
        if not has_plans(conn):
            return LoadProgress((), (), {})
        plans = conn.execute(
            "select s.entity, s.generation, a.pending from migration.plans s"
            " join migration.accounting a on a.entity = s.entity"
            # One that was judged before the newest export was staged says nothing about that.
            " join migration.exports e on e.entity = s.entity and e.staged_at <= s.planned_at"
        ).fetchall()
        for table, generation, waiting in plans:
            parts = _parts_of(conn, table, generation) if table in session.catalog.mappings else None
            if parts is None or sum(part[2] for part in parts) != waiting:
                continue
            planned.append(table)
            pending += [PendingPart(table, key, records, generation) for key, _, records in parts if records]
            rows[table] = {key: done for key, done, _ in parts}
    return LoadProgress(tuple(planned), tuple(pending), rows)


def _parts_of(conn: Connection, table: str, generation: int) -> list[tuple[date | None, int, int]] | None:
    """Of each partition its key, how many records are in the target, and how many wait; None without a plan."""
    if scalar(conn, "select to_regclass(%s)", (f"migration.{table}_plan",)) is None:
        return None
    return [
        (row[0], row[1], row[2])
        for row in conn.execute(
            sql.SQL(
                """
                with reached as (
                  select partition_key, max(last_position) as last_position from migration.migration_log
                   where entity_type = %s and generation = %s and status = 'completed' and rolled_back_at is null group by 1
                ),
                -- Partitions first, so that the few are joined and not the many.
                parts as (
                  select s._partition_key as partition_key, s._action in ('insert', 'update') as moves, s._position as position
                    from migration.{} s
                   where s._action <> 'refused'
                )
                select p.partition_key,
                       count(*) filter (where not p.moves or p.position <= coalesce(r.last_position, 0)),
                       count(*) filter (where p.moves and p.position > coalesce(r.last_position, 0))
                  from parts p
                  left join reached r on coalesce(r.partition_key, '-infinity') = coalesce(p.partition_key, '-infinity')
                 group by p.partition_key
                 order by p.partition_key
                """
            ).format(sql.Identifier(f"{table}_plan")),
            (table, generation),
        ).fetchall()
    ]


def failed_parts(session: Session) -> tuple[FailedPart, ...]:
    """What has failed and was not made good since, of the exports that are planned now."""
    with session.connection("read the migration tables") as conn:
        if not has_plans(conn):
            return ()
        rows = conn.execute(
            """
            select f.entity_type, f.partition_key, f.generation, count(distinct coalesce(f.run_id, f.id::text)),
                   (array_agg(f.error_message order by f.created_at desc))[1]
              from migration.migration_log f
              join migration.plans s on s.entity = f.entity_type and s.generation = f.generation
             where f.status = 'failed'
               and not exists (
                 select from migration.migration_log c
                  where c.entity_type = f.entity_type and c.generation = f.generation and c.status = 'completed'
                    and c.partition_key is not distinct from f.partition_key and c.last_position >= f.first_position)
             group by 1, 2, 3
             order by 1, 2
            """
        ).fetchall()
    return tuple(FailedPart(row[0], row[1], row[2], row[3], _first_line(row[4])) for row in rows)


def failed_periods(session: Session, table: str) -> dict[date, str]:
    """The months or years of a table that failed in this run, with the reason of each in one line."""
    with session.connection("read the migration tables") as conn:
        rows = conn.execute(
            "select partition_key, error_message from migration.migration_log"
            " where entity_type = %s and run_id = %s and status = 'failed' and partition_key is not null"
            " order by created_at",
            (table, session.run_id),
        ).fetchall()
    return {month: _first_line(message) for month, message in rows}


def _first_line(message: str | None) -> str:
    return (message or "no reason was noted").strip().partition("\n")[0]
