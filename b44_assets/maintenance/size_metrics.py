"""Figures about the database for those who watch it: sizes, repairs, fields of an export.

What belongs here: measuring. What does not: indexes, see `index_maintenance`; dead rows, see `vacuum`.
"""

from __future__ import annotations

from dataclasses import dataclass

from b44_assets.catalog import Kind, TableMapping
from b44_assets.session import Session, scalar


@dataclass(frozen=True)
class TableSize:
    """A table with its partitions.

    Attributes:
        name: The table.
        rows: Estimate of the server's statistics; 0 where there is none yet.
        table_bytes: Bytes of its rows, with what is stored out of line.
        index_bytes: Bytes of its indexes.
        partitions: How many partitions it has; 0 for a plain table.
    """

    name: str
    rows: int
    table_bytes: int
    index_bytes: int
    partitions: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.table_bytes + self.index_bytes


@dataclass(frozen=True)
class Sizes:
    """The tables of the application, the largest first, and the whole database in bytes."""

    tables: tuple[TableSize, ...]
    database_bytes: int


@dataclass(frozen=True)
class Repaired:
    """How many values of a column a rule of the mapping has changed."""

    column: str
    rule: str
    records: int


def measure_sizes(session: Session) -> Sizes:
    """Measures every table of `sql/` that is there, without reading any of its rows."""
    names = [spec.name for spec in session.catalog.of(Kind.TABLE)]
    with session.connection("measure sizes") as conn:
        rows = conn.execute(
            """
            select t.name, coalesce(sum(greatest(c.reltuples, 0)) filter (where c.relkind = 'r'), 0)::bigint,
                   coalesce(sum(pg_table_size(c.oid)), 0)::bigint, coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint,
                   count(*) filter (where c.relispartition)
              from unnest(%s::text[]) as t (name)
              join pg_class r on r.oid = to_regclass('public.' || quote_ident(t.name))
              cross join lateral (
                select relid from pg_partition_tree(r.oid) union select r.oid) p
              join pg_class c on c.oid = p.relid
             group by t.name
             order by 3 desc, 1
            """,
            (names,),
        ).fetchall()
        whole = scalar(conn, "select pg_database_size(current_database())")
    return Sizes(tuple(TableSize(*row) for row in rows), whole)


def repairs_by_rule(session: Session, table: str) -> tuple[Repaired, ...]:
    """What was repaired in the records of a table, the most frequent first."""
    with session.connection(f"describe {table}") as conn:
        rows = conn.execute(
            "select column_name, rule, count(*) from migration.repairs where entity = %s group by 1, 2 order by 3 desc, 1, 2",
            (table,),
        ).fetchall()
    return tuple(Repaired(*row) for row in rows)


def staged_fields(session: Session, mapping: TableMapping) -> dict[str, str]:
    """Under which spelling the staged export has each field that the mapping reads; fields that it lacks are left out."""
    with session.connection(f"describe {mapping.spec.name}") as conn:
        fields = scalar(conn, "select fields from migration.exports where entity = %s", (mapping.spec.name,)) or []
    return {
        item.name: spelling
        for item in mapping.fields
        if (spelling := next((name for name in item.spellings if name in fields), None)) is not None
    }
