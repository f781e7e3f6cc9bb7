"""Databases of the tests: made, copied, and made once for all workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, LiteralString

import psycopg
from psycopg import sql


def database_url(server_url: str, name: str) -> str:
    """URL of a database beside `postgres`."""
    return server_url.replace("@/postgres?", f"@/{name}?")


def create_database(
    conn: psycopg.Connection[Any], name: str, template: str = "template0", options: LiteralString = ""
) -> None:
    """Makes a copy of a database. As files, which costs half of what a copy by way of the WAL does."""
    statement = sql.SQL("create database {} template {} strategy file_copy ")
    conn.execute(statement.format(sql.Identifier(name), sql.Identifier(template)) + sql.SQL(options))


def template_once(server_url: str, name: str, make: Callable[[str], object], *, of: str = "template0") -> str:
    """Makes a database to copy from, if none of the workers has: a copy of another one that `make` changes, given its URL.

    Returns its name.
    """
    unfinished = f"{name}_unfinished"
    with psycopg.connect(server_url, autocommit=True) as conn:
        conn.execute("select pg_advisory_lock(44)")
        if conn.execute("select from pg_database where datname = %s", (name,)).fetchone() is None:
            # Not there by its name before it is whole, nor if it fails.
            conn.execute(sql.SQL("drop database if exists {} with (force)").format(sql.Identifier(unfinished)))
            create_database(conn, unfinished, of)
            make(database_url(server_url, unfinished))
            rename = sql.SQL("alter database {} rename to {}")
            conn.execute(rename.format(sql.Identifier(unfinished), sql.Identifier(name)))
    return name
