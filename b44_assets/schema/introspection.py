"""What a table looks like now, read from the server's catalogue."""

from __future__ import annotations

from dataclasses import dataclass

from psycopg import sql

from b44_assets.session import Connection, Session, scalar


@dataclass(frozen=True)
class ColumnDescription:
    """A column: its type as SQL, whether it is NOT NULL, unique by itself, and its comment."""

    name: str
    type: str
    required: bool
    unique: bool
    comment: str | None


@dataclass(frozen=True)
class TableDescription:
    """A table: its columns, exact number of rows, and bytes on disk with indexes and partitions."""

    name: str
    columns: tuple[ColumnDescription, ...]
    rows: int
    size: int


def describe(session: Session, table: str) -> TableDescription:
    """Describes a table of schema public."""
    with session.connection(f"describe {table}") as conn:
        return describe_on(conn, table)


def describe_on(conn: Connection, table: str) -> TableDescription:
    """As `describe`, on a connection that is there already."""
    columns = conn.execute(
        """
        select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               exists (select from pg_index i where i.indrelid = a.attrelid and i.indisunique and i.indpred is null
                          and i.indnkeyatts = 1 and i.indkey[0] = a.attnum),
               col_description(a.attrelid, a.attnum)
          from pg_attribute a
         where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
         order by a.attnum
        """,
        (f"public.{table}",),
    ).fetchall()
    rows = scalar(conn, sql.SQL("select count(*) from public.{}").format(sql.Identifier(table)))
    size = scalar(
        conn,
        "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_partition_tree(to_regclass(%s))",
        (f"public.{table}",),
    ) or scalar(conn, "select pg_total_relation_size(to_regclass(%s))", (f"public.{table}",))
    return TableDescription(table, tuple(ColumnDescription(*row) for row in columns), rows, size)
