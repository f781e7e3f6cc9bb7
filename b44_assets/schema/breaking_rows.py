"""The rows that break constraints which no check of the app lists: a newer export may be the first to break one.

What belongs here: finding them by the constraint as the server has it, and what may be shown of them. What does not: judging; see
`health`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import psycopg
from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.scaffold.sensitive import HIDDEN, is_secret_name, without_secrets
from b44_assets.schema.row_checks import shortened
from b44_assets.schema.unbuilt import cause_in_rows, row_rules
from b44_assets.session import Connection, Session

SAMPLE_ROWS = 20
"""How many rows are kept of a constraint."""

_ROWS = """
    select b44.original_id(broken.{key}, to_jsonb(broken.*) -> 'base44_ids'), array[{values}]::text[]
      from (select t.* from public.{table} t where {condition} limit {most}) broken
"""


@dataclass(frozen=True)
class BreakingRow:
    """A row that breaks a constraint.

    Attributes:
        rule: The constraint.
        id: As Base44 has it, where the row came from there; else its key.
        values: What the constraint reads of it: column and text, None for null; secrets are left out.
    """

    rule: str
    id: str
    values: tuple[tuple[str, str | None], ...]

    def told(self) -> str:
        """Which it is, and its values in short."""
        shown = (f"{column} {shortened(text)}" for column, text in self.values)
        return f"{self.id} ({', '.join(shown)})"


def breaking_rows(conn: Connection, session: Session, table: str, rules: Iterable[str]) -> tuple[BreakingRow, ...]:
    """Find the first rows that break some constraints of a table: those of its file that no check lists.

    Args:
        conn: With no transaction open.
        session: For the catalogue.
        table: One with a mapping; there is nothing to be told of others.
        rules: Constraints; one that is not there, or is neither a CHECK nor a foreign key, is passed over.
    """
    mapping = session.catalog.mappings.get(table)
    wanted = sorted({*rules} & session.catalog.listed(table) - session.catalog.listing(table).keys())
    if mapping is None or not wanted:
        return ()
    found: list[BreakingRow] = []
    for rule in row_rules(conn, "public", table, wanted):
        query = sql.SQL(_ROWS).format(
            key=sql.Identifier(mapping.key),
            values=sql.SQL(", ").join(
                sql.SQL(
                    "b44.original_id(broken.{}, to_jsonb(broken.*) -> 'base44_ids')"
                    if one in rule.uuids
                    else "broken.{}::text"
                ).format(sql.Identifier(one))
                for one in rule.columns
            ),
            table=sql.Identifier(table),
            condition=rule.broken,
            most=sql.Literal(SAMPLE_ROWS),
        )
        try:
            with conn.transaction():
                rows = conn.execute(query).fetchall()
        except psycopg.Error as error:
            if cause_in_rows(error) is None:
                raise
            # Of some row the condition itself fails; that the constraint is not valid is told all the same.
            continue
        found += [
            BreakingRow(
                rule.name,
                key,
                tuple((one, _shown(mapping, one, text)) for one, text in zip(rule.columns, texts, strict=True)),
            )
            for key, texts in rows
        ]
    return tuple(found)


def _shown(mapping: TableMapping, column: str, text: str | None) -> str | None:
    names = {column, *(name for field in mapping.fields if field.name == column for name in field.spellings)}
    if text is None:
        return None
    return HIDDEN if any(map(is_secret_name, names)) else without_secrets(text)
