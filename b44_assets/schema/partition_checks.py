"""Whether partitions are as they should be: bounds without gaps, an empty default partition, ids unique across all of them."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import pairwise

from psycopg import sql

from b44_assets.catalog import Kind
from b44_assets.config.quantities import EARLIEST_MONTH
from b44_assets.errors import DatabaseError
from b44_assets.schema.partitions import Partition, detaching_partitions, months_ago, partitions_in, rows_by_period
from b44_assets.schema.unbuilt import noted_obstacles, partition_for_rows_of
from b44_assets.session import Session, absent_relations, columns_of, scalar
from b44_assets.wording import plural

EXAMPLES = 20


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
        in_the_way: Why the rows of the default partition could not move when that was last tried, and which are in the way.
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
    in_the_way: str | None = None

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
            told = f"the default partition of {self.table} holds {rows} {plural(rows, 'row')} of {periods}"
            return f"{told}; {self.in_the_way}" if self.in_the_way else told
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
        return f"{self.partitions} {plural(self.partitions, 'partition')} of {self.table} without gaps"


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


def check_bounds(session: Session, table: str) -> BoundsCheck:
    """Looks for gaps and overlaps between partitions, and for rows in the default partition.

    A gap that begins later than partitions are made ahead is none: a single row of the far future gets a partition of its
    own, and not one for each month until then. Nor is one after a partition of before 1970, where partitions begin.

    Raises:
        DatabaseError: There is no such table, or it is not partitioned.
    """
    with session.connection(f"check partitions of {table}") as conn:
        partitions = partitions_in(conn, table)
        detaching = detaching_partitions(conn, table)
        parts = [part for part in partitions if not part.default]
        if any(part.bounds.startswith("FOR VALUES WITH") for part in parts):
            return BoundsCheck(table, len(parts), detaching=detaching, missing_hashes=_missing_hashes(parts))
        period = session.catalog.table(table).period
        horizon = _horizon(session, table)
        default = next((part.name for part in partitions if part.default), None)
        obstacles = () if default is None else noted_obstacles(conn, [partition_for_rows_of(default)])
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
            default_rows={} if default is None or period is None else rows_by_period(conn, default, period),
            detaching=detaching,
            unfinished=scalar(conn, "select to_regclass(%s) is not null", (f"public.{table}_drain",)),
            in_the_way=next(iter(obstacles), None),
        )


def rows_in_defaults(session: Session) -> dict[str, dict[str, int]]:
    """Rows that have fallen into default partitions, by table and then by month or year; empty ones are left out."""
    tables = [spec.options["on"] for spec in session.catalog.of(Kind.PARTITION)]
    tables = [table for table in tables if session.catalog.table(table).period is not None]
    with session.connection("look at default partitions") as conn:
        absent = absent_relations(conn, tables)
    return {
        table: rows for table in tables if table not in absent and (rows := check_bounds(session, table).default_rows)
    }


def _horizon(session: Session, table: str) -> datetime:
    """Until when there shall be partitions."""
    spec, period = session.catalog.partitions(table), session.catalog.table(table).period
    ahead = 0 if spec is None else int(spec.options.get("ahead", "0"))
    months = ahead * (12 if period is not None and period.unit == "year" else 1)
    first = months_ago(datetime.now(UTC).date(), -months)
    return datetime(first.year, first.month, first.day, tzinfo=UTC)


def check_global_ids(session: Session, table: str) -> GlobalIds:
    """Looks for ids that stand in a partitioned table more than once.

    Raises:
        DatabaseError: There is no such table, or it has no column `id`.
    """
    with session.connection(f"check ids of {table}", replica=True) as conn, conn.transaction():
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
