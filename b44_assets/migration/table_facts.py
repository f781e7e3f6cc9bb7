"""What is said of a table that was migrated: repairs, fields of its export.

What belongs here: figures of the migration. What does not: those of the live database, see `monitoring`.
"""

from __future__ import annotations

from dataclasses import dataclass

from b44_assets.catalog import TableMapping
from b44_assets.session import Connection, scalar


@dataclass(frozen=True)
class Repaired:
    """How many values of a column a rule of the mapping has changed."""

    column: str
    rule: str
    records: int


def repairs_by_rule(conn: Connection, table: str) -> tuple[Repaired, ...]:
    """What was repaired in the records of a table, the most frequent first."""
    rows = conn.execute(
        "select column_name, rule, count(*) from migration.repairs where entity = %s group by 1, 2 order by 3 desc, 1, 2",
        (table,),
    ).fetchall()
    return tuple(Repaired(*row) for row in rows)


def staged_fields(conn: Connection, mapping: TableMapping) -> dict[str, str]:
    """Under which spelling the staged export has each field that the mapping reads; fields that it lacks are left out."""
    fields = scalar(conn, "select fields from migration.exports where entity = %s", (mapping.spec.name,)) or []
    return {
        item.name: spelling
        for item in mapping.fields
        if (spelling := next((name for name in item.spellings if name in fields), None)) is not None
    }
