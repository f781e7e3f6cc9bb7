"""Verification that nothing was lost on the way: every record is accounted for, and the export is in the database.

What belongs here: counting, and comparing counts. What does not: what the rows hold (`content_parity`), and repairing anything.
"""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import dataclass

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.migration.content_parity import DIFFERENCES_SHOWN
from b44_assets.migration.plan import open_conflicts
from b44_assets.migration.sources import no_seed
from b44_assets.session import Session, scalar


@dataclass(frozen=True)
class RowParity:
    """Whether every record read is accounted for, and the table holds every record said to be migrated.

    Attributes:
        entity: The target table.
        read: Records in the export.
        migrated: Records that the migration tables say are in the table.
        deduplicated: Records equal to an earlier one.
        quarantined: Records in quarantine.
        pending: Records that no batch has taken yet.
        unaccounted: Records read and none of the above.
        staged: Rows in `base44.<table>` and refused records; None where the staged rows are gone (after a crash).
        held: Rows of the table that came from the migration.
        native: Rows of the table that did not: made in the new system.
        retained: Rows of records that this export does not have, or refuses; they are kept.
        accepted: Migrated rows that were deleted in the new system, which somebody has accepted.
    """

    entity: str
    read: int
    migrated: int
    deduplicated: int
    quarantined: int
    pending: int
    unaccounted: int
    staged: int | None
    held: int
    native: int
    retained: int = 0
    accepted: int = 0

    @property
    def lost(self) -> int:
        """Rows that should be there and are not; negative where there are too many, or updates wait for their batch."""
        return self.migrated + self.retained - self.accepted - self.held

    @property
    def passed(self) -> bool:
        """Every record is accounted for and where the migration tables say it is."""
        return (
            self.unaccounted == 0
            and self.pending == 0
            and self.lost == 0
            and (self.staged is None or self.staged == self.read)
        )

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.unaccounted:
            return f"{self.unaccounted} of {self.read} records read are unaccounted for"
        if self.pending:
            return f"{self.pending} of {self.read} records wait for their batch; run the migration again"
        if self.lost:
            return f"{self.migrated + self.retained} records were migrated, {self.entity} holds {self.held} of them"
        if self.staged is not None and self.staged != self.read:
            return f"{self.read} records were read, base44.{self.entity} holds {self.staged}"
        further = f"; {self.retained} rows of earlier exports are kept" if self.retained else ""
        return (
            f"{self.read} read = {self.migrated} migrated + {self.deduplicated} deduplicated"
            f" + {self.quarantined} quarantined{further}"
        )


def row_parity(session: Session, mapping: TableMapping) -> RowParity | None:
    """Compares the counts of an entity with each other and with the table; None where nothing was planned yet."""
    table = mapping.spec.name
    with ExitStack() as stack:
        conn = stack.enter_context(session.connection(f"check {table}", replica=True))
        # The staged rows are in an unlogged table, which a standby does not have.
        staging = conn if session.read_replica is None else stack.enter_context(session.connection(f"check {table}"))
        stack.enter_context(conn.transaction())
        conn.execute("set transaction isolation level repeatable read read only")
        counts = conn.execute(
            "select read, migrated, deduplicated, quarantined, pending, unaccounted"
            " from migration.accounting where entity = %s",
            (table,),
        ).fetchone()
        if counts is None:
            return None
        refused = scalar(conn, "select count(*) from migration.refused where entity = %s", (table,))
        rows = 0
        if scalar(conn, "select to_regclass(%s)", (f"base44.{table}",)) is not None:
            rows = scalar(staging, sql.SQL("select count(*) from base44.{}").format(sql.Identifier(table)))
        staged = None if rows == 0 and counts[0] > refused else rows + refused
        retained = scalar(
            conn,
            "select count(*) from migration.retained r join migration.migrated using (entity, id) where r.entity = %s",
            (table,),
        )
        # One that was accepted as deleted may have been put back since.
        accepted = scalar(
            conn,
            sql.SQL(
                """
                select count(*)
                  from migration.conflicts c
                  join migration.migrated using (entity, id)
                 where c.entity = {entity} and c.kind = 'deleted' and c.accepted_at is not null
                   and not exists (select from public.{table} t where t.{key} = c.id)
                """
            ).format(table=sql.Identifier(table), entity=sql.Literal(table), key=sql.Identifier(mapping.key)),
        )
        held, native = conn.execute(
            sql.SQL(
                """
                select count(*) filter (where m.generation is not null), count(*) filter (where m.id is null)
                  from public.{table} t
                  left join migration.migrated m on m.entity = {entity} and m.id = t.{key}
                 where {counted}
                """
            ).format(
                table=sql.Identifier(table),
                entity=sql.Literal(table),
                key=sql.Identifier(mapping.key),
                counted=no_seed(session.catalog.table(table), "t"),
            )
        ).fetchone() or (0, 0)
    return RowParity(table, *counts, staged=staged, held=held, native=native, retained=retained, accepted=accepted)


@dataclass(frozen=True)
class Applied:
    """Whether all of the newest export is in the table.

    Attributes:
        entity: The target table.
        vanished: Rows whose record the export does not have any more; they are kept.
        refused: Rows whose record is refused in its newer form; they are kept as they were.
        conflicts: Records left out for the sake of an edited or deleted row, by kind; accepted ones do not count.
        first: Some of all these: `(base44_id, why, columns)`.
    """

    entity: str
    vanished: int
    refused: int
    conflicts: dict[str, int]
    first: tuple[tuple[str, str, str], ...]

    @property
    def passed(self) -> bool:
        """Nothing of the export was left out, and it lacks nothing that the table has from before."""
        return not (self.vanished or self.refused or self.conflicts)

    def message(self) -> str:
        """One line on what is not; or that all is."""
        if self.passed:
            return "All of the newest export is in the table"
        said = {
            "edited": "changed in the export and edited in the new system, left alone",
            "deleted": "changed in the export and deleted in the new system, left out",
            "not_newer": "different in the export, but no newer, left alone",
        }
        parts = [f"{count} {said[kind]}" for kind, count in self.conflicts.items()]
        parts += [f"{self.vanished} vanished from the export, kept"] if self.vanished else []
        parts += [f"{self.refused} refused in their newer form, kept as they were"] if self.refused else []
        return "; ".join(parts)


def export_applied(session: Session, mapping: TableMapping) -> Applied:
    """Reads what a newer export could not change, and what it does not have any more."""
    table = mapping.spec.name
    with session.connection(f"check {table}", replica=True) as conn:
        retained = dict(
            conn.execute(
                "select reason, count(*) from migration.retained where entity = %s group by 1", (table,)
            ).fetchall()
        )
        conflicts = open_conflicts(conn, table)
        first = conn.execute(
            "select coalesce(base44_id, ''), kind, array_to_string(columns, ', ') from migration.conflicts"
            " where entity = %(table)s and accepted_at is null"
            " union all select base44_id, reason, '' from migration.retained where entity = %(table)s order by 2, 1 limit %(shown)s",
            {"table": table, "shown": DIFFERENCES_SHOWN},
        ).fetchall()
    return Applied(
        table,
        retained.get("vanished", 0),
        retained.get("refused", 0),
        conflicts,
        tuple((row[0], row[1], row[2]) for row in first),
    )
