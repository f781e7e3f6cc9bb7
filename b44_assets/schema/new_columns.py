"""Columns that a table's file has got since the table was made.

What belongs here: which are missing, and adding them. What does not: columns of another type, or that the file no longer has.
"""

from __future__ import annotations

from collections.abc import Sequence

from psycopg import sql

from b44_assets.catalog import DeclaredColumn, Spec, Statement, declared_columns
from b44_assets.session import Connection, absent_relations, trusted

_MISSING = """
    select w.number
      from unnest(%s::text[], %s::text[]) with ordinality w (relation, name, number)
      join pg_class c on c.relname = w.relation and c.relnamespace = 'public'::regnamespace and c.relkind in ('r', 'p')
     where not exists (select from pg_attribute a
                        where a.attrelid = c.oid and a.attname = w.name and a.attnum > 0 and not a.attisdropped)
     order by w.number
"""


def add_new_columns(conn: Connection, statement: Statement) -> None:
    """Adds the columns of a CREATE TABLE that its table, where it is there already, has not got.

    Rows that are there have nothing in them where they may: a default is for new ones.

    Args:
        conn: In the transaction that runs the file.
        statement: Any of the file.

    Raises:
        psycopg.Error: As it comes from the server.
    """
    missing = _missing(conn, declared_columns(statement.text))
    if missing:
        conn.execute(
            sql.SQL("alter table {} {}").format(
                sql.Identifier("public", missing[0].table),
                # A line for each: a comment may end it.
                sql.SQL(", ").join(sql.SQL("add column {}\n").format(trusted(column.text)) for column in missing),
            )
        )
    for column in missing:
        if column.default is not None:
            conn.execute(
                sql.SQL("alter table {} alter column {} set default {}").format(
                    sql.Identifier("public", column.table),
                    sql.Identifier(column.name),
                    trusted(column.default),
                )
            )


def tables_lacking(conn: Connection, specs: Sequence[Spec]) -> frozenset[str]:
    """Those of some tables that are not there, or lack a column of their file."""
    by_column = [
        (column, spec.name)
        for spec in specs
        for statement in spec.statements
        for column in declared_columns(statement.text)
    ]
    absent = absent_relations(conn, [spec.name for spec in specs])
    missing = {*_missing(conn, [column for column, _ in by_column])}
    return absent | {name for column, name in by_column if column in missing}


def _missing(conn: Connection, columns: Sequence[DeclaredColumn]) -> list[DeclaredColumn]:
    if not columns:
        return []
    found = conn.execute(_MISSING, ([one.table for one in columns], [one.name for one in columns])).fetchall()
    return [columns[number - 1] for (number,) in found]
