"""Rows that a constraint does not allow, written all the same, where the constraint's file says that such rows are listed.

A batch is written with every constraint in force. Where a row breaks one whose file has the header `unfit_rows: listed`, the batch
is written again with that constraint taken off, and put back NOT VALID, in the same transaction: nobody ever sees the table without
it. A unique index cannot be put back so; it is built again after the load, or named with the rows that stand in its way.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import psycopg
from psycopg import errors, sql

from b44_assets.session import Connection, trusted

T = TypeVar("T")


@dataclass(frozen=True)
class _TakenOff:
    name: str
    definition: str | None


def despite_unfit_rows(conn: Connection, table: str, listed: frozenset[str], work: Callable[[], T]) -> T:
    """Writes rows to a table, those included that break some of its constraints.

    Args:
        conn: In a transaction, which the caller rolls back on an error.
        table: The table.
        listed: Names of its constraints and unique indexes that rows of the migration may break.
        work: Writes; done again after each constraint that is broken.

    Raises:
        psycopg.Error: As of `work`, for any other reason; or a lock was not to be had.
    """
    if not listed:
        return work()
    taken_off: list[_TakenOff] = []
    while True:
        try:
            # Locks that a failed attempt took are let go of, so that two loads cannot wait for each other.
            with conn.transaction():
                done = work()
            break
        except errors.IntegrityError as error:
            name = error.diag.constraint_name
            if name is None or name not in listed - {one.name for one in taken_off}:
                raise
            taken_off.append(_take_off(conn, table, name))
    for one in taken_off:
        if one.definition is not None:
            _put_back(conn, table, one.name, one.definition)
    return done


def _take_off(conn: Connection, table: str, name: str) -> _TakenOff:
    row = conn.execute(
        "select pg_get_constraintdef(oid) from pg_constraint where conrelid = to_regclass(%s) and conname = %s",
        (f"public.{sql.Identifier(table).as_string(conn)}", name),
    ).fetchone()
    if row is None:
        conn.execute(sql.SQL("drop index {}").format(sql.Identifier("public", name)))
        return _TakenOff(name, None)
    conn.execute(
        sql.SQL("alter table public.{} drop constraint {}").format(sql.Identifier(table), sql.Identifier(name))
    )
    return _TakenOff(name, row[0].removesuffix(" NOT VALID"))


def _put_back(conn: Connection, table: str, name: str, definition: str) -> None:
    try:
        with conn.transaction():
            conn.execute(
                sql.SQL("alter table public.{} add constraint {} {} not valid").format(
                    sql.Identifier(table),
                    sql.Identifier(name),
                    trusted(definition),
                )
            )
    except psycopg.Error as error:
        # Foreign keys of partitioned tables before PostgreSQL 18; whoever applies the file tells of it.
        if not isinstance(error, errors.FeatureNotSupported | errors.WrongObjectType):
            raise
