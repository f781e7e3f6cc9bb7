"""Partitions: what they are, whether they are as they should be, and rows moved out of the default one in live use.

What belongs here: looking at partitions, and driving what needs many transactions. What does not: how a partition is made
or a row is moved; that is SQL, which psql can call as well (`partition_*` and `drain_*` of `b44_assets/runtime/b44/`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from itertools import pairwise
from random import random
from typing import Any

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import Kind, Period, Spec
from b44_assets.config.quantities import EARLIEST_MONTH
from b44_assets.errors import DatabaseError
from b44_assets.schema.apply import apply
from b44_assets.schema.online_ddl import retrying
from b44_assets.session import Connection, Progress, Session, columns_of, reason_of, scalar

LOCK_PATIENCE_MS = 60
"""How long a step waits for its locks: as long as others then wait, and some milliseconds of work are to come."""
LOCK_ATTEMPTS = 300
"""How often a step that did not get its locks, or has nothing to do but wait, is tried: about ten minutes."""
EXAMPLES = 20
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
        size: Bytes on disk, with indexes and TOAST.
    """

    name: str
    bounds: str
    start: datetime | None
    end: datetime | None
    default: bool
    rows: int
    size: int


@dataclass(frozen=True)
class Gap:
    """A range of time without a partition, between the earliest and the latest one: from `start` to before `end` (UTC)."""

    start: datetime
    end: datetime

    def __str__(self) -> str:
        """The range as it is named in a message."""
        return f"{self.start:%Y-%m-%d} to {self.end:%Y-%m-%d}"


@dataclass(frozen=True)
class BoundsCheck:
    """Whether a table's partitions take every row, and none has fallen into the default one.

    Attributes:
        table: The table.
        partitions: How many there are, the default one not counted.
        gaps: Ranges without a partition.
        overlaps: Pairs of partitions whose ranges overlap.
        has_default: Whether there is a default partition.
        default_rows: Rows of the default partition by period, `2025-03` or `2025`; `infinity` stands for what has none.
        detaching: Partitions whose detaching was interrupted.
        unfinished: Whether moving rows out of the default partition is under way, or was interrupted.
        missing_hashes: Remainders without a partition, of a table partitioned by hash, as `3 of 4`.
    """

    table: str
    partitions: int
    gaps: tuple[Gap, ...] = ()
    overlaps: tuple[tuple[str, str], ...] = ()
    has_default: bool = True
    default_rows: dict[str, int] = field(default_factory=dict[str, int])
    detaching: tuple[str, ...] = ()
    unfinished: bool = False
    missing_hashes: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """No gap, no overlap, nothing half done, and an empty default partition."""
        return (
            self.has_default
            and self.partitions > 0
            and not (self.gaps or self.overlaps or self.default_rows or self.detaching or self.unfinished)
            and not self.missing_hashes
        )

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.unfinished:
            return f"moving rows out of the default partition of {self.table} is not finished; drain it again"
        if self.default_rows:
            rows, periods = sum(self.default_rows.values()), ", ".join(self.default_rows)
            return f"the default partition of {self.table} holds {rows} rows of {periods}"
        if self.gaps:
            return f"{self.table} has no partition for {', '.join(map(str, self.gaps))}"
        if self.overlaps:
            return f"partitions of {self.table} overlap: {', '.join(' and '.join(pair) for pair in self.overlaps)}"
        if self.detaching:
            return f"detaching {', '.join(self.detaching)} from {self.table} was interrupted"
        if self.missing_hashes:
            return f"{self.table} has no partition for the remainders {', '.join(self.missing_hashes)}"
        if not self.has_default:
            return f"{self.table} has no default partition: a row without a partition of its own is refused"
        if not self.partitions:
            return f"{self.table} has no partitions"
        return f"{self.partitions} partitions of {self.table} without gaps"


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
        drained: What was moved out of the default partition; None for a table without periods.
        detached: Those that were detached, since they are older than is to be kept.
        seconds: How long it took.
    """

    table: str
    partitions: tuple[Partition, ...]
    made: tuple[str, ...]
    drained: Drained | None
    detached: tuple[str, ...]
    seconds: float


@dataclass(frozen=True)
class RepeatedId:
    """An id that stands in a table more than once, and the partitions in which it does."""

    id: str
    partitions: tuple[str, ...]


@dataclass(frozen=True)
class GlobalIds:
    """Whether ids are unique in the whole table; its primary key sees to that only together with the partition's column.

    Attributes:
        table: The table.
        rows: Rows looked at.
        repeated: How many ids stand there more than once.
        examples: The first of them.
    """

    table: str
    rows: int
    repeated: int
    examples: tuple[RepeatedId, ...] = ()

    @property
    def passed(self) -> bool:
        """No id stands there twice."""
        return self.repeated == 0

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.passed:
            return f"{self.rows} ids of {self.table} differ"
        first = self.examples[0]
        return (
            f"{self.repeated} ids of {self.table} stand there more than once, such as {first.id} in"
            f" {' and '.join(first.partitions)}"
        )


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
        for day in missing:
            conn.execute("select b44.create_partition(%s, %s, %s)", (table, unit, day))
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
    as the file's header says, and then its statements are run, as psql would.

    Args:
        session: The run.
        spec: The file.
        keep_months: Partitions that ended before so many months are detached and stay as tables; None keeps all.

    Raises:
        DatabaseError: Rows cannot be moved, or a partition cannot be made or detached; says why. Calling again goes on.
    """
    started = time.monotonic()
    table = spec.options["on"]
    before = {part.name for part in describe_partitions(session, table)}
    drained: Drained | None = None
    detached: tuple[str, ...] = ()
    if session.catalog.table(table).period is not None:
        drained = drain_default(session, table)
        keep_ahead(session, table, int(spec.options.get("ahead", "0")))
    apply(session, spec)
    if keep_months is not None:
        detached = detach_before(session, table, months_ago(datetime.now(UTC).date(), keep_months))
    partitions = describe_partitions(session, table)
    made = tuple(part.name for part in partitions if part.name not in before)
    return PartitionSet(table, partitions, made, drained, detached, time.monotonic() - started)


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
        return _partitions(conn, table)


def check_bounds(session: Session, table: str) -> BoundsCheck:
    """Looks for gaps and overlaps between partitions, and for rows in the default partition.

    A gap that begins later than partitions are made ahead is none: a single row of the far future gets a partition of its
    own, and not one for each month until then. Nor is one after a partition of before 1970, where partitions begin.

    Raises:
        DatabaseError: There is no such table, or it is not partitioned.
    """
    with session.connection(f"check partitions of {table}") as conn:
        partitions = _partitions(conn, table)
        detaching = _detaching(conn, table)
        parts = [part for part in partitions if not part.default]
        if any(part.bounds.startswith("FOR VALUES WITH") for part in parts):
            return BoundsCheck(table, len(parts), detaching=detaching, missing_hashes=_missing_hashes(parts))
        period = session.catalog.table(table).period
        horizon = _horizon(session, table)
        default = next((part.name for part in partitions if part.default), None)
        begin = datetime(EARLIEST_MONTH.year, EARLIEST_MONTH.month, EARLIEST_MONTH.day, tzinfo=UTC)
        expected = [part for part in parts if part.end is None or part.end > begin]
        return BoundsCheck(
            table,
            len(parts),
            gaps=tuple(
                Gap(before.end, after.start)
                for before, after in pairwise(expected)
                if before.end is not None and after.start is not None and before.end < min(after.start, horizon)
            ),
            overlaps=tuple(
                (before.name, after.name)
                for before, after in pairwise(parts)
                if before.end is None or after.start is None or before.end > after.start
            ),
            has_default=default is not None,
            default_rows={} if default is None or period is None else _rows_by_period(conn, default, period),
            detaching=detaching,
            unfinished=scalar(conn, "select to_regclass(%s) is not null", (f"public.{table}_drain",)),
        )


def rows_in_defaults(session: Session) -> dict[str, dict[str, int]]:
    """Rows that have fallen into default partitions, by table and then by month or year; empty ones are left out."""
    found: dict[str, dict[str, int]] = {}
    for spec in session.catalog.of(Kind.PARTITION):
        table = spec.options["on"]
        if session.catalog.table(table).period is None:
            continue
        with session.connection("look at default partitions") as conn:
            there = scalar(conn, "select to_regclass(%s) is not null", (f"public.{table}",))
        if there and (rows := check_bounds(session, table).default_rows):
            found[table] = rows
    return found


def _horizon(session: Session, table: str) -> datetime:
    """Until when there shall be partitions."""
    spec, period = session.catalog.partitions(table), session.catalog.table(table).period
    ahead = 0 if spec is None else int(spec.options.get("ahead", "0"))
    months = ahead * (12 if period is not None and period.unit == "year" else 1)
    first = months_ago(datetime.now(UTC).date(), -months)
    return datetime(first.year, first.month, first.day, tzinfo=UTC)


def keep_ahead(session: Session, table: str, ahead: int) -> tuple[str, ...]:
    """Makes the missing partitions of a table by time, each in a transaction of its own, so that locks are short.

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
        return tuple(_asked(conn, "select b44.create_partition(%s, %s, %s)", (table, period.unit, day)) for day in days)


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
        before = {part.name for part in _partitions(conn, table)}
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
        after = _partitions(conn, table)
        made = tuple(part.name for part in after if part.name not in before)
        rows = sum(
            scalar(conn, sql.SQL("select count(*) from public.{}").format(sql.Identifier(name))) for name in made
        )
        default = next((part.name for part in after if part.default), None)
        left = {} if default is None else _rows_by_period(conn, default, period)
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
        partitions = _partitions(conn, table)
        if any(part.default for part in partitions):
            while names := _asked(conn, "select detach_partitions_before(%s, %s, 1)", (table, day)):
                detached.extend(names)
            return tuple(detached)
        limit = datetime(day.year, day.month, day.day, tzinfo=UTC)
        due = [
            (part.name, sql.SQL("concurrently")) for part in partitions if part.end is not None and part.end <= limit
        ]
        statement = sql.SQL("alter table {} detach partition {} {}")
        for name, how in [*((name, sql.SQL("finalize")) for name in _detaching(conn, table)), *due]:
            _asked(conn, statement.format(sql.Identifier("public", table), sql.Identifier("public", name), how))
            detached.append(name)
    return tuple(detached)


def check_global_ids(session: Session, table: str) -> GlobalIds:
    """Looks for ids that stand in a partitioned table more than once.

    Raises:
        DatabaseError: There is no such table, or it has no column `id`.
    """
    with session.connection(f"check ids of {table}") as conn, conn.transaction():
        if "id" not in columns_of(conn, "public", table):
            raise DatabaseError(f"there is no table {table} with a column id")
        conn.execute("set local work_mem = '256MB'")
        rows = conn.execute(
            sql.SQL(
                """
                with repeated as materialized (
                  select id from public.{table} group by id having count(*) > 1
                ),
                named as (
                  select id, array_agg(tableoid::regclass::text order by tableoid::regclass::text) as partitions
                    from public.{table} where id = any (array(select id from repeated order by id limit {examples})) group by id
                )
                select (select count(*) from public.{table}), (select count(*) from repeated), r.id::text, r.partitions
                  from (values (1)) one left join named r on true
                 order by r.id
                """
            ).format(table=sql.Identifier(table), examples=sql.Literal(EXAMPLES))
        ).fetchall()
    return GlobalIds(
        table, rows[0][0], rows[0][1], tuple(RepeatedId(row[2], tuple(row[3])) for row in rows if row[2] is not None)
    )


def _period(session: Session, table: str) -> Period:
    period = session.catalog.table(table).period
    if period is None:
        raise DatabaseError(f"{table} is not partitioned by time")
    return period


def _partitions(conn: Connection, table: str) -> tuple[Partition, ...]:
    relation = f"public.{table}"
    if scalar(conn, "select relkind = 'p' from pg_class where oid = to_regclass(%s)", (relation,)) is not True:
        raise DatabaseError(f"there is no partitioned table {table}")
    rows = conn.execute(
        """
        select c.relname, pg_get_expr(c.relpartbound, c.oid),
               -- PostgreSQL reckons with years that Python does not.
               case when isfinite(b.first_moment) then greatest(%(first)s, least(b.first_moment, %(last)s)) end,
               case when isfinite(b.next_moment) then greatest(%(first)s, least(b.next_moment, %(last)s)) end,
               c.oid = p.partdefid,
               c.reltuples::bigint,
               (select coalesce(sum(pg_total_relation_size(t.relid)), 0) from pg_partition_tree(c.oid) t)::bigint
          from pg_partitioned_table p
          join pg_inherits h on h.inhparent = p.partrelid and not h.inhdetachpending
          join pg_class c on c.oid = h.inhrelid
          left join b44.partition_bounds(p.partrelid) b on b.partition = c.oid
         where p.partrelid = to_regclass(%(relation)s)
         order by c.oid = p.partdefid, b.first_moment, c.relname
        """,
        {"relation": relation, "first": datetime.min.replace(tzinfo=UTC), "last": datetime.max.replace(tzinfo=UTC)},
    ).fetchall()
    return tuple(Partition(*row) for row in rows)


def _detaching(conn: Connection, table: str) -> tuple[str, ...]:
    rows = conn.execute(
        "select c.relname from pg_inherits h join pg_class c on c.oid = h.inhrelid"
        " where h.inhparent = to_regclass(%s) and h.inhdetachpending order by 1",
        (f"public.{table}",),
    ).fetchall()
    return tuple(row[0] for row in rows)


def _rows_by_period(conn: Connection, default: str, period: Period) -> dict[str, int]:
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


def _missing_hashes(parts: list[Partition]) -> tuple[str, ...]:
    """Remainders of the largest modulus that no partition takes; PostgreSQL lets moduli be multiples of each other only."""
    taken = [
        (int(match[1]), int(match[2]))
        for part in parts
        if (match := re.fullmatch(r"FOR VALUES WITH \(modulus (\d+), remainder (\d+)\)", part.bounds))
    ]
    largest = max(modulus for modulus, _ in taken)
    return tuple(
        f"{remainder} of {largest}"
        for remainder in range(largest)
        if not any(remainder % modulus == taken_remainder for modulus, taken_remainder in taken)
    )


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
