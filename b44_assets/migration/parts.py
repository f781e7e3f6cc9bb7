"""The parts of a plan: the records of one partition, or of a table without any, that batches take in order."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import date
from typing import NamedTuple

from psycopg import sql

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.config.quantities import month_text, period_text
from b44_assets.errors import SettingsError
from b44_assets.session import Connection


@dataclass(frozen=True)
class Range:
    """Partitions to load: from the first day of one to before the first day of another; None is open."""

    start: date | None = None
    end: date | None = None

    def __contains__(self, key: date) -> bool:
        return (self.start is None or key >= self.start) and (self.end is None or key < self.end)


EVERY_PARTITION = Range()


class Part(NamedTuple):
    """A partition's records in the plan.

    Attributes:
        key: First day of its month or year; None for a table without periods.
        first: Position of the first record to write; None without any.
        last: Position of the last one.
        records: How many records of the export belong in it.
        table: The partition, or the table where it has none; None while it is not there.
        left: Whether there may be records that are not written yet.
    """

    key: date | None
    first: int | None
    last: int | None
    records: int
    table: str | None = None
    left: bool = True


def parts_of(
    conn: Connection, catalog: Catalog, mapping: TableMapping, wanted: Range, first_month: date | None
) -> list[Part]:
    """The parts of an entity's plan that are wanted, in order, without the names of their partitions.

    Args:
        conn: Autocommit.
        catalog: The files of `sql/`.
        mapping: The entity's mapping.
        wanted: Which partitions.
        first_month: The earliest that may be loaded, where the table's file names none.

    Raises:
        SettingsError: A record, wanted or not, is older than the first period; says what to set.
    """
    table = mapping.spec.name
    parts = [
        Part(*row)
        for row in conn.execute(
            "select p.partition_key, p.first_position, p.last_position, p.records, null, not exists ("
            "   select from migration.plans s join migration.migration_log l on l.entity_type = s.entity"
            "    and l.generation = s.generation and l.partition_key is not distinct from p.partition_key"
            "    and l.last_position >= p.last_position and l.status = 'completed' and l.rolled_back_at is null"
            "    where s.entity = p.entity)"
            " from migration.parts p where p.entity = %s order by p.partition_key",
            (table,),
        ).fetchall()
    ]
    spec = catalog.table(table)
    period = spec.period
    earliest = parts[0].key if parts else None
    first = first_month if period is None or period.first is None else period.first
    if first is not None and earliest is not None and earliest < first:
        oldest = conn.execute(
            sql.SQL(
                "select record_number, base44_id from migration.{} where _partition_key = %s order by _position limit 1"
            ).format(sql.Identifier(f"{table}_plan")),
            (earliest,),
        ).fetchone()
        number, base44_id = oldest if oldest else ("?", "?")
        record = f"{mapping.entity} record {number} (id {base44_id})"
        if period is not None and period.first is not None:
            was, begun = period_text(period.unit, earliest), period_text(period.unit, period.first)
            raise SettingsError(
                f"{record} is of {was}, before '-- first: {begun}' of {spec.path};"
                f" write '-- first: {was}' there to migrate it"
            )
        raise SettingsError(
            f"{record} is of {month_text(earliest)}, before B44_FIRST_MONTH={month_text(first)};"
            f" set B44_FIRST_MONTH={month_text(earliest)} to migrate it"
        )
    return [part for part in parts if part.key is None or part.key in wanted]
