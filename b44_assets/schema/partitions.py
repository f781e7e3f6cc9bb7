"""Partitions: what they are, made ahead and detached, and rows moved out of the default one in live use.

What belongs here: driving what needs many transactions. What does not: whether all is as it should be (`partition_checks`), and
how a partition is made or a row is moved; that is SQL, which psql can call as well (`partition_*` and `drain_*` of
`b44_assets/runtime/b44/`).
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from random import random
from typing import Any

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import Period, Spec
from b44_assets.errors import DatabaseError
from b44_assets.schema.apply import apply
from b44_assets.schema.online_ddl import change, is_live, retrying
from b44_assets.schema.unbuilt import Obstacle, attempt, note_obstacles, partition_for_rows_of, rows_against_partition
from b44_assets.session import Connection, Progress, Session, reason_of, scalar

_AT_ONCE = 12
"""How many partitions of a table that nobody uses are made in one transaction; each by itself costs the server three times as much."""
LOCK_PATIENCE_MS = 60
"""How long a step waits for its locks: as long as others then wait, and some milliseconds of work are to come."""
LOCK_ATTEMPTS = 300
"""How often a step that did not get its locks, or has nothing to do but wait, is tried: about ten minutes."""
_LONGEST_PAUSE_SECONDS = 2.0


@dataclass(frozen=True)
class Partition:
    """A partition.

    Attributes:
        name: Its table.
        bounds: As PostgreSQL prints them.
        start: Where its range begins (UTC), within the years 1 to 9999; None where it is open, and without a range.
        end: The first moment after its range; None likewise.
        default: Whether it takes what no other one does.
        rows: Estimate of the server's statistics; -1 where there is none yet.
        size: Bytes on disk, with indexes and TOAST; 0 where it was not asked for.
    """

    name: str
    bounds: str
    start: datetime | None
    end: datetime | None
    default: bool
    rows: int
    size: int


@dataclass(frozen=True)
class Drained:
    """Rows moved out of a default partition.

    Attributes:
        table: The table.
        rows: Rows moved.
        partitions: Partitions made for them.
        left: Rows that stay in the default partition, by period: they have no period, or another table has the name that
            their partition would have.
        retries: How often a lock was not to be had at once.
        seconds: How long it took.
    """

    table: str
    rows: int
    partitions: tuple[str, ...]
    left: dict[str, int]
    retries: int
    seconds: float


@dataclass(frozen=True)
class PartitionSet:
    """A table's partitions, brought to what its file says.

    Attributes:
        table: The table.
        partitions: All of them, as they are now.
        made: Those that were made, rows or not.
        drained: What was moved out of the default partition; None for a table without periods, and where `failed`.
        detached: Those that were detached, since they are older than is to be kept.
        seconds: How long it took.
        failed: Why rows of the default partition cannot move, and which are in the way; all of them stay there.
    """

    table: str
    partitions: tuple[Partition, ...]
    made: tuple[str, ...]
    drained: Drained | None
    detached: tuple[str, ...]
    seconds: float
    failed: str | None = None


def ensure_partitions(conn: Connection, table: str, unit: str, days: Sequence[date]) -> dict[date, str]:
    """Makes the partitions of some periods that are not there.

    Args:
        conn: Autocommit.
        table: The partitioned table, of schema public.
        unit: `month` or `year`.
        days: A day of each period.

    Returns:
        The partition of each day; the same one for several where it is wider than a period.

    Raises:
        psycopg.Error: One cannot be made.
    """
    names = _partitions_of_days(conn, table, unit, days)
    # All are asked for at once: most often none is missing, and each call reads all bounds.
    if missing := [day for day in days if day not in names]:
        # Where there are rows an application may be at them, and each partition has a transaction of its own, so that locks are
        # short. Nobody waits for those of an empty table.
        in_use = scalar(conn, sql.SQL("select exists (select from public.{})").format(sql.Identifier(table)))
        at_once = 1 if in_use else _AT_ONCE
        for start in range(0, len(missing), at_once):
            part = list(missing[start : start + at_once])
            conn.execute("select b44.create_partitions(%s, %s, %s)", (table, unit, part))
        names = _partitions_of_days(conn, table, unit, days)
    return names


def _partitions_of_days(conn: Connection, table: str, unit: str, days: Sequence[date]) -> dict[date, str]:
    return dict(
        conn.execute(
            "select day, c.relname from unnest(%s::date[]) day cross join b44.period(%s, day) p"
            " join b44.partition_bounds(%s::regclass) b"
            " on b.first_moment <= p.first_moment and p.next_moment <= b.next_moment"
            " join pg_class c on c.oid = b.partition",
            (list(days), unit, table),
        ).fetchall()
    )


@retrying
def apply_partitions(session: Session, spec: Spec, *, keep_months: int | None = None) -> PartitionSet:
    """Brings the partitions of a table to what a file says.

    Rows in the default partition move to partitions of their own, missing partitions are made up to as many periods ahead
    as the file's header says, and then its statements are run, as psql would. Rows that no partition can take, as they make an
    index or a constraint of the table impossible, keep those of the default partition in it, and nothing else.

    Args:
        session: The run.
        spec: The file.
        keep_months: Partitions that ended before so many months are detached and stay as tables; None keeps all.

    Raises:
        DatabaseError: Rows cannot be moved, or a partition cannot be made or detached; says why. Calling again goes on.
    """
    started = time.monotonic()
    table = spec.options["on"]
    with session.connection(f"look for partitions of {table}") as conn:
        before = partition_names(conn, table).keys()
    drained: Drained | None = None
    detached: tuple[str, ...] = ()
    failed: str | None = None
    if session.catalog.table(table).period is not None:
        outcome = _drain_or_name_rows(session, table)
        if isinstance(outcome, Obstacle):
            failed = outcome.message()
        else:
            drained = outcome
        keep_ahead(session, table, int(spec.options.get("ahead", "0")))
    apply(session, spec)
    if keep_months is not None:
        detached = detach_before(session, table, months_ago(datetime.now(UTC).date(), keep_months))
    partitions = describe_partitions(session, table)
    made = tuple(part.name for part in partitions if part.name not in before)
    return PartitionSet(table, partitions, made, drained, detached, time.monotonic() - started, failed)


def _drain_or_name_rows(session: Session, table: str) -> Drained | Obstacle:
    """Moves rows out of the default partition, or finds those that make it impossible and keeps them in `migration.unbuilt`."""
    with session.connection(f"rows in the way of partitions of {table}") as conn:
        default = _default_of(partition_names(conn, table))
        if default is None:
            return drain_default(session, table)

        def find(error: psycopg.Error) -> Obstacle:
            change(session, conn, lambda c: c.execute("select b44.drain_abandon(%s)", (table,)))
            return rows_against_partition(session, conn, table, default, error)

        outcome = attempt(lambda: drain_default(session, table), find)
        note_obstacles(
            session, conn, [partition_for_rows_of(default)], [outcome] if isinstance(outcome, Obstacle) else []
        )
    return outcome


def months_ago(day: date, months: int) -> date:
    """The first day of the month so many months before that of a day; the earliest there is where it lies before."""
    number = max(day.year * 12 + day.month - 1 - months, 12)
    return date(number // 12, number % 12 + 1, 1)


def describe_partitions(session: Session, table: str) -> tuple[Partition, ...]:
    """The partitions of a table of schema public: by their range, others by name, the default one last.

    Raises:
        DatabaseError: There is no such table, or it is not partitioned.
    """
    with session.connection(f"describe partitions of {table}") as conn:
        return partitions_in(conn, table, sized=True)


def keep_ahead(session: Session, table: str, ahead: int) -> tuple[str, ...]:
    """Makes the missing partitions of a table by time, of one in use each in a transaction of its own, so that locks are short.

    Args:
        session: The run.
        table: A table with periods.
        ahead: How many periods after the current one shall have a partition.

    Returns:
        Names of the partitions made.

    Raises:
        DatabaseError: A partition cannot be made; says why, and what to do.
    """
    period = _period(session, table)
    with session.connection(f"make partitions of {table}") as conn:
        days = scalar(conn, "select b44.missing_partitions(%s, %s, %s)", (table, period.unit, ahead))
        at_once = 1 if is_live(session, conn, table) else _AT_ONCE
        made: list[str] = []
        for start in range(0, len(days), at_once):
            part = (table, period.unit, days[start : start + at_once])
            made += _asked(conn, "select b44.create_partitions(%s, %s, %s)", part)
    return tuple(made)


def drain_default(
    session: Session, table: str, progress: Progress | None = None, days: tuple[date, ...] | None = None
) -> Drained:
    """Moves rows out of the default partition into partitions of their months or years, while everybody reads and writes.

    Each statement of others finds each row once, at every isolation level, and waits for no lock of ours longer than
    `LOCK_PATIENCE_MS` and the work under it. If this is interrupted at whatever point, calling it again finishes it.

    Args:
        session: The run.
        table: A table with periods.
        progress: Told of rows copied; by default `session.progress`.
        days: Only the periods in which these days lie, which get partitions even without rows; by default all found.

    Raises:
        DatabaseError: A lock was not to be had in all that time, naming who stood in the way; or rows cannot be moved, with
            the reason. Calling again goes on.
    """
    period = _period(session, table)
    tell = progress or session.progress
    patience = min(session.lock_timeout_ms, LOCK_PATIENCE_MS)
    started = time.monotonic()
    retries = waited = 0
    with session.connection(f"drain {table}") as conn:
        # Rows are moved by many short transactions, each of which must see what the others have done.
        conn.execute("set default_transaction_isolation = 'read committed'")
        before = partition_names(conn, table)
        while True:
            try:
                # No transaction of psycopg's: the server commits at once, and not after another message from here.
                step = conn.execute(
                    "select phase, done, total, idle, waits_for from b44.drain_step(%s, %s, %s, %s)",
                    (table, period.unit, None if days is None else list(days), patience),
                ).fetchone()
            except (errors.LockNotAvailable, errors.DeadlockDetected) as error:
                retries, waited = retries + 1, waited + 1
                if waited >= LOCK_ATTEMPTS:
                    raise DatabaseError(f"rows of {table}_default cannot be moved: {_reason(error)}") from error
            except psycopg.Error as error:
                raise DatabaseError(
                    f"rows of the default partition of {table} cannot be moved: {_reason(error)}"
                ) from error
            else:
                assert step is not None
                phase, done, total, idle, waits_for = step
                waited = waited + 1 if idle else 0
                if phase == "done":
                    break
                tell(f"{table}: {phase}" + (f", waits for {waits_for}" if idle else ""), done, total)
            if waited:
                time.sleep(min(0.05 * 1.5 ** min(waited, 20), _LONGEST_PAUSE_SECONDS) * (1 - random() / 2))
        after = partition_names(conn, table)
        made = tuple(name for name in after if name not in before)
        rows = sum(
            scalar(conn, sql.SQL("select count(*) from public.{}").format(sql.Identifier(name))) for name in made
        )
        default = _default_of(after)
        left = {} if default is None else rows_by_period(conn, default, period)
    return Drained(table, rows, made, left, retries, time.monotonic() - started)


def detach_before(session: Session, table: str, day: date) -> tuple[str, ...]:
    """Detaches the partitions that end by the beginning (UTC) of a day, the oldest first; they stay as tables.

    Without a default partition this is done CONCURRENTLY, and one that was interrupted is finished; PostgreSQL cannot do so
    where there is one. Then each is a transaction of its own with a short lock.

    Returns:
        Names of the partitions detached.

    Raises:
        DatabaseError: A partition cannot be detached; says why.
    """
    detached: list[str] = []
    with session.connection(f"detach partitions of {table}") as conn:
        partitions = partitions_in(conn, table)
        if any(part.default for part in partitions):
            while names := _asked(conn, "select detach_partitions_before(%s, %s, 1)", (table, day)):
                detached.extend(names)
            return tuple(detached)
        limit = datetime(day.year, day.month, day.day, tzinfo=UTC)
        due = [
            (part.name, sql.SQL("concurrently")) for part in partitions if part.end is not None and part.end <= limit
        ]
        statement = sql.SQL("alter table {} detach partition {} {}")
        for name, how in [*((name, sql.SQL("finalize")) for name in detaching_partitions(conn, table)), *due]:
            _asked(conn, statement.format(sql.Identifier("public", table), sql.Identifier("public", name), how))
            detached.append(name)
    return tuple(detached)


def _period(session: Session, table: str) -> Period:
    period = session.catalog.table(table).period
    if period is None:
        raise DatabaseError(f"{table} is not partitioned by time")
    return period


def partition_names(conn: Connection, table: str) -> dict[str, bool]:
    """The partitions of a table of schema public by name, the default one last, with whether each is that.

    Raises:
        DatabaseError: As of `describe_partitions`.
    """
    rows = conn.execute(
        "select c.relname, c.oid = p.partdefid from pg_class t left join pg_partitioned_table p on p.partrelid = t.oid"
        " left join pg_inherits h on h.inhparent = t.oid and not h.inhdetachpending left join pg_class c on c.oid = h.inhrelid"
        " where t.oid = to_regclass(%s) and t.relkind = 'p' order by 2, 1",
        (f"public.{table}",),
    ).fetchall()
    if not rows:
        raise _not_partitioned(table)
    return {name: default for name, default in rows if name is not None}


def _default_of(names: dict[str, bool]) -> str | None:
    return next((name for name, default in names.items() if default), None)


def _not_partitioned(table: str) -> DatabaseError:
    return DatabaseError(f"there is no partitioned table {table}")


def partitions_in(conn: Connection, table: str, *, sized: bool = False) -> tuple[Partition, ...]:
    """Reads the partitions of a table; as `describe_partitions`, but for their sizes, which take the server four times as long."""
    relation = f"public.{table}"
    if scalar(conn, "select relkind = 'p' from pg_class where oid = to_regclass(%s)", (relation,)) is not True:
        raise _not_partitioned(table)
    rows = conn.execute(
        """
        select c.relname, pg_get_expr(c.relpartbound, c.oid),
               -- PostgreSQL reckons with years that Python does not.
               case when isfinite(b.first_moment) then greatest(%(first)s, least(b.first_moment, %(last)s)) end,
               case when isfinite(b.next_moment) then greatest(%(first)s, least(b.next_moment, %(last)s)) end,
               c.oid = p.partdefid,
               c.reltuples::bigint,
               case when %(sized)s then
                 (select coalesce(sum(pg_total_relation_size(t.relid)), 0) from pg_partition_tree(c.oid) t)::bigint else 0 end
          from pg_partitioned_table p
          join pg_inherits h on h.inhparent = p.partrelid and not h.inhdetachpending
          join pg_class c on c.oid = h.inhrelid
          left join b44.partition_bounds(p.partrelid) b on b.partition = c.oid
         where p.partrelid = to_regclass(%(relation)s)
         order by c.oid = p.partdefid, b.first_moment, c.relname
        """,
        {
            "relation": relation,
            "first": datetime.min.replace(tzinfo=UTC),
            "last": datetime.max.replace(tzinfo=UTC),
            "sized": sized,
        },
    ).fetchall()
    return tuple(Partition(*row) for row in rows)


def detaching_partitions(conn: Connection, table: str) -> tuple[str, ...]:
    """The partitions that are being detached, by name."""
    rows = conn.execute(
        "select c.relname from pg_inherits h join pg_class c on c.oid = h.inhrelid"
        " where h.inhparent = to_regclass(%s) and h.inhdetachpending order by 1",
        (f"public.{table}",),
    ).fetchall()
    return tuple(row[0] for row in rows)


def rows_by_period(conn: Connection, default: str, period: Period) -> dict[str, int]:
    """Counts the rows of a default partition by month or year."""
    rows = conn.execute(
        sql.SQL(
            """
            select coalesce(to_char(first_day, {form}), 'infinity'), rows
              from (
                select date_trunc({unit}, nullif(nullif({column}, 'infinity'), '-infinity')::timestamptz at time zone 'UTC')
                         as first_day,
                       count(*) as rows
                  from public.{default} group by 1
              ) counted
             order by first_day
            """
        ).format(
            form=sql.Literal("YYYY-MM" if period.unit == "month" else "YYYY"),
            unit=sql.Literal(period.unit),
            column=sql.Identifier(period.column),
            default=sql.Identifier(default),
        )
    ).fetchall()
    return dict(rows)


def _asked(conn: Connection, query: str | sql.Composable, params: Any = None) -> Any:
    """The answer of a function, or a complaint in one line, with what the function says can be done."""
    statement: Any = query.encode() if isinstance(query, str) else query
    try:
        cursor = conn.execute(statement, params)
    except psycopg.Error as error:
        raise DatabaseError(_reason(error)) from error
    row = cursor.fetchone() if cursor.description is not None else None
    return None if row is None else row[0]


def _reason(error: psycopg.Error) -> str:
    said = reason_of(error)
    more = error.diag.message_detail if isinstance(error, errors.LockNotAvailable) else error.diag.message_hint
    return f"{said}: {more}" if more else said
