"""What a migration has left in a database."""

from __future__ import annotations

import re
from typing import Any

import psycopg
from psycopg import sql


def rows(url: str, query: str | sql.SQL | sql.Composed, *parameters: object) -> list[tuple[Any, ...]]:
    """What a query returns."""
    with psycopg.connect(url) as conn:
        text = query if not isinstance(query, str) else query.encode()
        return conn.execute(text, parameters or None).fetchall()


def value(url: str, query: str | sql.SQL | sql.Composed, *parameters: object) -> Any:
    """The first column of the only row."""
    (row,) = rows(url, query, *parameters)
    return row[0]


# What may differ between two runs that came to the same.
_OF_THE_RUN = frozenset(
    {"run_id", "batch_number", "generation", "staged_at", "planned_at", "quarantined_at", "fingerprint"}
)
# Working tables, and those that `migration.accounting` sums up or that name batches: an interrupted run has other ones.
_LEFT_OUT = re.compile(r"migration\.(?:\w+_plan|migration_log|plans|verifications)")


def state(url: str) -> dict[str, tuple[int, str]]:
    """What the migration has come to: for each relation the number of rows and a digest of all their values."""
    found: dict[str, tuple[int, str]] = {}
    with psycopg.connect(url) as conn:
        conn.execute("set timezone = 'UTC'")
        relations = conn.execute(
            """
            select n.nspname, c.relname, array_agg(a.attname order by a.attnum)
              from pg_class c
              join pg_namespace n on n.oid = c.relnamespace
              join pg_attribute a on a.attrelid = c.oid and a.attnum > 0 and not a.attisdropped
             where n.nspname in ('public', 'base44', 'migration')
               and (c.relkind in ('r', 'p', 'm') or (c.relkind = 'v' and c.relname = 'accounting'))
             group by c.oid, n.nspname, c.relname
            """
        ).fetchall()
        for schema, name, columns in relations:
            if _LEFT_OUT.fullmatch(f"{schema}.{name}"):
                continue
            own = {"id"} if (schema, name) == ("migration", "quarantine") else set[str]()
            left_out = own | _OF_THE_RUN if schema == "migration" else own
            listed = sql.SQL(", ").join(sql.Identifier(column) for column in columns if column not in left_out)
            row = conn.execute(
                sql.SQL(
                    "select count(*), coalesce(md5(string_agg(digest, '' order by digest)), '')"
                    " from (select md5(row({})::text) as digest from {}) as digests"
                ).format(listed, sql.Identifier(schema, name))
            ).fetchone()
            assert row is not None
            found[f"{schema}.{name}"] = (row[0], row[1])
    return found


def versions_of_rows(url: str) -> set[tuple[Any, ...]]:
    """Where every stored row stands and which transaction wrote it: the same set means that nothing was written."""
    with psycopg.connect(url) as conn:
        tables = conn.execute(
            "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname in ('public', 'base44', 'migration') and c.relkind = 'r'"
        ).fetchall()
        found: set[tuple[Any, ...]] = set()
        for schema, name in tables:
            query = sql.SQL("select tableoid::bigint, ctid::text, xmin::text from {}")
            found.update(conn.execute(query.format(sql.Identifier(schema, name))).fetchall())
    return found
