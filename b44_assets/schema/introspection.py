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


def columns_described(session: Session, relation: str) -> tuple[ColumnDescription, ...]:
    """Describes the columns of a table or view of schema public."""
    with session.connection(f"describe {relation}") as conn:
        return _columns(conn, relation)


def describe_on(conn: Connection, table: str) -> TableDescription:
    """As `describe`, on a connection that is there already."""
    rows = scalar(conn, sql.SQL("select count(*) from public.{}").format(sql.Identifier(table)))
    size = scalar(
        conn,
        "select coalesce(sum(pg_total_relation_size(relid)), 0)::bigint from pg_partition_tree(to_regclass(%s))",
        (f"public.{table}",),
    ) or scalar(conn, "select pg_total_relation_size(to_regclass(%s))", (f"public.{table}",))
    return TableDescription(table, _columns(conn, table), rows, size)


def _columns(conn: Connection, relation: str) -> tuple[ColumnDescription, ...]:
    rows = conn.execute(
        """
        select a.attname, format_type(a.atttypid, a.atttypmod), a.attnotnull,
               exists (select from pg_index i where i.indrelid = a.attrelid and i.indisunique and i.indpred is null
                          and i.indnkeyatts = 1 and i.indkey[0] = a.attnum),
               col_description(a.attrelid, a.attnum)
          from pg_attribute a
         where a.attrelid = to_regclass(%s) and a.attnum > 0 and not a.attisdropped
         order by a.attnum
        """,
        (f"public.{relation}",),
    ).fetchall()
    return tuple(ColumnDescription(*row) for row in rows)
