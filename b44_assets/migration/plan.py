"""The mapping, run once over everything staged for an entity: what becomes of each record.

The result stands in `migration.<table>_plan`, one row a record, in the order in which batches will take it; refused
records go to quarantine here, before anything is loaded. Its `_action` is one of:

- `insert`: the record is new.
- `update`: its row is as the migration wrote it, and the export has a newer version (or the mapping makes something else
  of the same one).
- `unchanged`: nothing is to be done.
- `edited`, `deleted`: a newer version of a record whose row the new system changed or removed; the row is left alone.
- `not_newer`: another version, which is no newer by its own account; the row is left alone.
- `refused`: the record has at least one reason against it.

Its `_checksum` is that of all that the mapping gave for the target, taken where it was evaluated: what is stored can be
compared with it, whatever became of the plan's columns on the way.

What belongs here: whether a plan stands, and making one from its steps (`plan_evaluation`, `unique_names`, `plan_notes`,
`plan_function`). What does not: the rules themselves, which are the mapping's.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, LiteralString

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.errors import DatabaseError, ThresholdError
from b44_assets.failpoints import failpoint
from b44_assets.migration.batch_statements import create_batch_functions
from b44_assets.migration.plan_basis import basis_of
from b44_assets.migration.plan_evaluation import evaluate
from b44_assets.migration.plan_function import create_plan_function
from b44_assets.migration.plan_notes import write_notes
from b44_assets.migration.row_checksums import follow_new_columns
from b44_assets.migration.sources import create_mapping_view
from b44_assets.session import Connection, Session, columns_of, scalar, take_advisory_lock, with_retry

OF_EARLIER_VERSION: Final = (
    "the migration's tables in this database are those of an earlier version: b44 migrate, or the job schema_only,"
    " brings them up to date"
)
"""What is said where something is asked of migration tables that they do not have yet."""


@dataclass(frozen=True)
class LoadPlan:
    """What becomes of the records of one entity.

    Attributes:
        entity: The target table.
        generation: Number of the plan, ascending over all entities.
        read: Records in the export.
        deduplicated: Records equal to an earlier one in every field.
        quarantined: Records refused.
        unchanged: Records that were migrated before and stay as they are, conflicts included.
        to_migrate: Records for the batches, to insert or to update.
        vanished: Records migrated before that the export does not have any more; their rows stay.
        reasons: Refused records by reason; one with two reasons counts for both.
        conflicts: Records left out for the sake of an edited row, by kind.
        changed: False where nothing had changed since the last plan.
    """

    entity: str
    generation: int
    read: int
    deduplicated: int
    quarantined: int
    unchanged: int
    to_migrate: int
    vanished: int = 0
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    conflicts: dict[str, int] = field(default_factory=dict[str, int])
    changed: bool = True


def has_plans(conn: Connection) -> bool:
    """Tell whether anything was ever planned in a database.

    Raises:
        DatabaseError: By an earlier version, whose tables have other names.
    """
    now, before = conn.execute(
        "select to_regclass('migration.plans') is not null, to_regclass('migration.settlements') is not null"
    ).fetchone() or (False, False)
    if before and not now:
        raise DatabaseError(OF_EARLIER_VERSION)
    return now


def is_current(conn: Connection, session: Session, mapping: TableMapping) -> bool:
    """Tell whether a plan stands whose records would come to the same today, and which has a checksum of each.

    Raises:
        DatabaseError: Nothing is staged.
    """
    fingerprint = basis_of(conn, session, mapping).fingerprint(conn)
    # A plan of an earlier version has no checksums.
    return _stands(conn, mapping, fingerprint) and "_checksum" in columns_of(
        conn, "migration", f"{mapping.spec.name}_plan"
    )


def make_plan(session: Session, mapping: TableMapping) -> LoadPlan:
    """Decides what becomes of every staged record of an entity, unless that stands already.

    All or nothing. The target table and the tables that the mapping reads must be there.

    Raises:
        DatabaseError: Nothing is staged, or the mapping fails in the server.
        ThresholdError: More records are refused than the session allows; nothing was changed.
    """
    return with_retry(session, lambda: _make_plan(session, mapping))


def _make_plan(session: Session, mapping: TableMapping) -> LoadPlan:
    table = mapping.spec.name
    with session.connection(f"plan {table}") as conn:
        take_advisory_lock(conn, f"plan {table}")
        basis = basis_of(conn, session, mapping)
        fingerprint = basis.fingerprint(conn)
        with conn.transaction():
            create_mapping_view(conn, mapping, session.catalog.table(table).period, session.plausible_years)
        if _stands(conn, mapping, fingerprint):
            return _read(conn, table, changed=False)
        session.progress(f"{table}: mapping", 0, 0)
        with conn.transaction():
            again = scalar(conn, "select exists (select from migration.migrated where entity = %s)", (table,))
            follow_new_columns(conn, mapping, session.catalog.table(table).period)
            evaluate(conn, session.catalog, mapping, again=again)
            failpoint("plan: evaluated", conn)
            write_notes(session, conn, mapping, basis, sql.Literal(fingerprint), again=again)
            create_batch_functions(
                conn,
                mapping,
                session.catalog.table(table).period,
                updates=again and _exists(conn, mapping, "_action = 'update'"),
                corrected=scalar(
                    conn,
                    "select exists (select from migration.quarantine q join migration.plans s using (entity)"
                    " where q.entity = %s and q.generation <> s.generation and q.replayed_at is null)",
                    (table,),
                ),
            )
            create_plan_function(session, conn, mapping, basis)
            plan = _read(conn, table, changed=True)
            limit = session.max_quarantine
            if limit is not None and limit.exceeded(plan.quarantined, plan.read):
                raise ThresholdError(
                    f"{table}: {plan.quarantined} of {plan.read} records would be quarantined"
                    f" ({_listed(plan.reasons)}), more than B44_MAX_QUARANTINE={limit} allows; nothing was loaded"
                )
            failpoint("plan: before commit", conn)
        failpoint("plan: after commit", conn)
        return plan


def _exists(conn: Connection, mapping: TableMapping, condition: LiteralString) -> bool:
    query = sql.SQL("select exists (select from migration.{} where {})")
    return scalar(conn, query.format(sql.Identifier(f"{mapping.spec.name}_plan"), sql.SQL(condition)))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _stands(conn: Connection, mapping: TableMapping, fingerprint: str) -> bool:
    """Whether there is a plan of what it would be made of now."""
    table = mapping.spec.name
    row = conn.execute(
        "select to_migrate + unchanged from migration.plans where entity = %s and fingerprint = %s",
        (table, fingerprint),
    ).fetchone()
    if row is None or scalar(conn, "select to_regclass(%s)", (f"migration.{table}_plan",)) is None:
        return False
    # Unlogged: after a crash of the server it is there and empty.
    return not row[0] or _exists(conn, mapping, "true")


def _read(conn: Connection, table: str, *, changed: bool) -> LoadPlan:
    row = conn.execute(
        "select generation, read, deduplicated, quarantined, unchanged, to_migrate, vanished"
        " from migration.plans where entity = %s",
        (table,),
    ).fetchone()
    if row is None:
        raise DatabaseError(f"{table}: no plan in migration.plans")
    reasons = dict(
        conn.execute(
            "select reason, count(*) from migration.quarantine q cross join unnest(q.reasons) as reason"
            " where q.entity = %s and q.generation = %s group by reason order by 2 desc, 1",
            (table, row[0]),
        ).fetchall()
    )
    return LoadPlan(table, *row, reasons=reasons, conflicts=open_conflicts(conn, table), changed=changed)


def open_conflicts(conn: Connection, table: str) -> dict[str, int]:
    """Records left out for the sake of an edited or deleted row, by kind; those that a person has accepted aside."""
    return dict(
        conn.execute(
            "select kind, count(*) from migration.conflicts where entity = %s and accepted_at is null group by 1 order by 1",
            (table,),
        ).fetchall()
    )
