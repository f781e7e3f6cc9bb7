"""What a plan depends on: while it stays the same, the plan stands."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from b44_assets.catalog import Kind, TableMapping
from b44_assets.errors import DatabaseError
from b44_assets.migration.sources import staged_is_gone
from b44_assets.session import Connection, Session, scalar

_CONVERSIONS = frozenset(
    {"b44/identifier_functions", "b44/parser_functions", "b44/text_functions", "migration/conversion_functions"}
)
"""Files of the program whose functions any mapping may call."""


@dataclass(frozen=True)
class Basis:
    """What a plan depends on.

    Attributes:
        made_of: Digest of the staged export, the mapping and its functions.
        reads: The migrated tables that the mapping reads; what they hold from the migration counts, too.
    """

    made_of: str
    reads: tuple[str, ...]

    def fingerprint(self, conn: Connection) -> str:
        """Digest of it all, with what the tables that are read hold now."""
        return scalar(conn, "select migration.fingerprint_of(%s, %s)", (self.made_of, list(self.reads)))


def basis_of(conn: Connection, session: Session, mapping: TableMapping) -> Basis:
    """Reads what the plan of an entity depends on now.

    Raises:
        DatabaseError: Nothing is staged, or what was is gone.
    """
    table, catalog = mapping.spec.name, session.catalog
    generation = scalar(conn, "select generation from migration.exports where entity = %s", (table,))
    if generation is None:
        raise DatabaseError(f"{table}: nothing is staged in base44.{table}; materialize base44/{table} first")
    if staged_is_gone(conn, table):
        # Else all that was migrated would be said to have vanished.
        raise DatabaseError(
            f"{table}: the records staged in base44.{table} are gone (a crash of the server empties it);"
            f" materialize base44/{table} again"
        )
    parts = [mapping.spec.digest, str(generation)]
    if catalog.table(table).period is not None:
        parts.append(f"plausible {session.plausible_years}")
    parts += [spec.digest for spec in catalog.of(Kind.RUNTIME) if spec.name in _CONVERSIONS]
    parts += [spec.digest for spec in catalog.of(Kind.FUNCTION) if spec.name in mapping.spec.depends]
    made_of = hashlib.sha256("\n".join(parts).encode()).hexdigest()
    return Basis(made_of, tuple(name for name in mapping.spec.depends if name in catalog.mappings))
