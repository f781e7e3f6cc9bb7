"""Checks of an app's own: each a SELECT in `sql/checks/` that gives the rows which break a rule."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import psycopg
from psycopg import sql

from b44_assets.catalog import RowCheck
from b44_assets.postgres.error_classes import is_of_statement
from b44_assets.schema.online_ddl import fault
from b44_assets.session import Session, trusted
from b44_assets.wording import plural

SAMPLE_ROWS = 20
"""How many violating rows are kept of a check."""
SHOWN_ROWS = 3
"""How many of them its message shows."""
SHOWN_LENGTH = 60
"""How many characters of a value its message shows."""


@dataclass(frozen=True)
class Violations:
    """The rows that break the rule of a check.

    Attributes:
        name: The check.
        table: The table that it is about.
        rule: What holds for every other row, and what to do about these.
        count: How many there are.
        sample: The first of them, at most `SAMPLE_ROWS`: text by column, None for null.
        fault: Why the check cannot be made, with file and line; empty where it can.
    """

    name: str
    table: str
    rule: str
    count: int
    sample: tuple[Mapping[str, str | None], ...] = ()
    fault: str = ""

    @property
    def passed(self) -> bool:
        """The check was made, and no row breaks its rule."""
        return not self.fault and self.count == 0

    def message(self) -> str:
        """Say in one line how many rows break the rule, with the first of them; or that none does."""
        if self.fault:
            return self.fault
        if self.passed:
            return "no violations"
        shown = "; ".join(_shown(row) for row in self.sample[:SHOWN_ROWS])
        more = self.count - min(len(self.sample), SHOWN_ROWS)
        rest = f"; and {more:,} more" if more else ""
        return f"{self.count:,} {plural(self.count, 'violation')} ({shown}{rest}) of the rule: {self.rule}"


def _shown(row: Mapping[str, str | None]) -> str:
    return ", ".join(f"{column} {shortened(value)}" for column, value in row.items())


def shortened(value: str | None) -> str:
    """Give a value on one line, and no more of it than a message may hold."""
    if value is None:
        return "null"
    line = " ".join(value.split())
    return line if len(line) <= SHOWN_LENGTH else f"{line[: SHOWN_LENGTH - 1]}…"


def violations(session: Session, check: RowCheck) -> Violations:
    """Run a check in a read-only transaction.

    One whose statement the server refuses does not pass, and says why: other checks go on.

    Raises:
        DatabaseError: The connection is lost, or the server lacks something, such as room.
    """
    statement = check.spec.statements[0]
    # On a line of its own, since the statement may end with a comment.
    query = sql.SQL(
        "select found.total, array(select array[c.key, c.value] from json_each_text(found.line) c)"
        " from (select count(*) over () as total, to_json(violation) as line from (\n{}\n) violation limit {}) found"
    ).format(trusted(statement.text), sql.Literal(SAMPLE_ROWS))
    with session.connection(f"check {check.table}", replica=True) as conn:
        try:
            with conn.transaction():
                conn.execute("set transaction isolation level repeatable read read only")
                # It reads whole tables, as a rule.
                conn.execute("set local work_mem = '256MB'")
                rows = conn.execute(query).fetchall()
        except psycopg.Error as error:
            if not is_of_statement(error):
                raise
            why = str(fault(check.spec, statement.line, error))
            return Violations(check.spec.name, check.table, check.spec.description, 0, fault=why)
    sample = tuple(MappingProxyType(dict(pairs)) for _, pairs in rows)
    return Violations(check.spec.name, check.table, check.spec.description, rows[0][0] if rows else 0, sample)
