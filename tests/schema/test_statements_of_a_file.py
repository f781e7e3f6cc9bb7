"""Statements of a file that are run in one round trip: which of them fails, and what is left of the others."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import psycopg
import pytest

from b44_assets.catalog import Kind, Spec
from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import run_together
from b44_assets.session import Connection, scalar

FILE = Spec("made", Kind.TABLE, "", (), (), "", Path("sql/tables/made.sql"))
FIRST, LAST = (3, "create table made (n integer) -- its comment"), (9, "insert into made values (1)")


@pytest.fixture
def conn(database: str) -> Generator[Connection]:
    with psycopg.connect(database, autocommit=True) as conn:
        yield conn


def raising(code: str) -> str:
    return f"do $$ begin raise exception using errcode = '{code}'; end $$"


def test_all_are_run_in_their_order(conn: Connection) -> None:
    with conn.transaction():
        run_together(conn, FILE, [FIRST, (5, "insert into made values (2)"), LAST])
    assert conn.execute("select n from made order by ctid").fetchall() == [(2,), (1,)]


# 54011 is too_many_columns, which psycopg takes for a fault of the server's, as it does a full disk.
@pytest.mark.parametrize(
    "statement", ["select 1 / 0", "creat table other ()", "select (1", "select 'é", raising("54011")]
)
def test_the_one_that_fails_is_named_by_its_line_and_of_the_others_nothing_stays(
    conn: Connection, statement: str
) -> None:
    with pytest.raises(DatabaseError, match=r"^sql/tables/made\.sql:5: "), conn.transaction():
        run_together(conn, FILE, [FIRST, (5, statement), LAST])
    assert scalar(conn, "select to_regclass('made')") is None


# A full disk, a lock that was not to be had, a deadlock, a statement that somebody has ended.
@pytest.mark.parametrize("together", [True, False])
@pytest.mark.parametrize("code", ["53100", "55P03", "40P01", "57014"])
def test_what_is_no_fault_of_the_file_comes_as_the_server_says_it(conn: Connection, code: str, together: bool) -> None:
    statements = [FIRST, (5, raising(code)), LAST] if together else [(5, raising(code))]
    with pytest.raises(psycopg.OperationalError) as raised, conn.transaction():
        run_together(conn, FILE, statements)
    assert raised.value.sqlstate == code
    assert scalar(conn, "select to_regclass('made')") is None
