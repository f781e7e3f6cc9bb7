"""What a role is let do, by trying it."""

from __future__ import annotations

from typing import Any, LiteralString

import psycopg
from psycopg import errors, sql

Db = psycopg.Connection[Any]
TRIES: dict[str, LiteralString] = {
    "SELECT": "select t from {} t limit 1",
    "INSERT": "insert into {} default values",
    "DELETE": "delete from {}",
    "TRUNCATE": "truncate {}",
}
OF_HEADER = {
    "write": ({"SELECT", "INSERT", "DELETE"}, {"SELECT"}),
    "append": ({"SELECT", "INSERT"}, {"SELECT"}),
    "read": ({"SELECT"}, {"SELECT"}),
    "none": (set[str](), set[str]()),
}
"""By the header `access` of a table: what members may do who write, and who read."""


def allowed(conn: Db, role: str, statement: sql.Composed | str) -> bool:
    """Whether a role is let try: what it runs into later, such as a missing value, is not asked."""
    try:
        with conn.transaction(force_rollback=True):
            conn.execute(sql.SQL("set local role {}").format(sql.Identifier(role)))
            conn.execute(statement.encode() if isinstance(statement, str) else statement)
    except (errors.InsufficientPrivilege, errors.WrongObjectType):
        return False
    except (
        errors.IntegrityError,
        errors.FeatureNotSupported,
        errors.RaiseException,
        errors.ObjectNotInPrerequisiteState,
    ):
        return True
    return True


def may(conn: Db, role: str, relation: str) -> set[str]:
    """Which of the tries it is let make on a table, view or partition of schema `public`."""
    return {word for word, text in TRIES.items() if allowed(conn, role, sql.SQL(text).format(sql.Identifier(relation)))}


def standard_rights(access: str) -> dict[str, set[str]]:
    """What each group role may try on a table of such a header; less where policies stand before it."""
    writes, reads = OF_HEADER[access]
    return {
        "b44_owner": set(),
        "b44_monitor": set(),
        "b44_migrator": {"SELECT", "INSERT", "DELETE"},
        "b44_readwrite": writes,
        "b44_readonly": reads,
    }
