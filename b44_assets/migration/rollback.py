"""What a run or a month's load has put into the target, taken out again.

Rows that it inserted are deleted, rows that it updated are as they were before. A row that was edited since is left alone,
and so is one that other rows stand on: of the new system, or of another run. What belongs here: taking back. What does
not: what may be loaded afterwards; the next load finds out by itself.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import date
from typing import LiteralString

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.errors import DatabaseError, SettingsError
from b44_assets.failpoints import failpoint
from b44_assets.migration.corrections import note_corrections
from b44_assets.migration.plan import make_plan
from b44_assets.migration.row_checksums import follow_new_columns
from b44_assets.migration.sources import create_mapping_view, target_columns
from b44_assets.migration.unfit_rows import despite_unfit_rows
from b44_assets.session import (
    Connection,
    Session,
    checksum,
    columns_of,
    identifiers,
    pass_rules,
    scalar,
    trusted,
    with_retry,
)


@dataclass(frozen=True)
class RolledBackEntity:
    """What was taken back of one table.

    Attributes:
        entity: The table.
        deleted: Rows deleted.
        restored: Rows that are as they were before an update.
        edited: Rows left alone, since they were edited in the new system.
        in_use: Rows left alone, since other rows refer to them.
    """

    entity: str
    deleted: int
    restored: int
    edited: int
    in_use: int


@dataclass(frozen=True)
class RolledBack:
    """What was taken back.

    Attributes:
        entities: By table, in the order in which it was done.
        parts: The tables and partitions (first day, or None) whose batches were taken back.
    """

    entities: tuple[RolledBackEntity, ...]
    parts: tuple[tuple[str, date | None], ...]


def roll_back_run(session: Session, run_id: str) -> RolledBack:
    """Takes back what a run has inserted and updated: all of it or, where that fails, nothing.

    Args:
        session: The context.
        run_id: The run's id, or at least eight characters that no other run's id begins with.

    Raises:
        DatabaseError: No such run has loaded anything, or the server refuses.
        SettingsError: The characters fit several runs.
    """

    def find(conn: Connection) -> dict[str, list[int]]:
        runs = [
            row[0]
            for row in conn.execute(
                "select distinct run_id from migration.migration_log where run_id = %(id)s"
                " or (length(%(id)s) >= 8 and starts_with(run_id, %(id)s)) order by 1",
                {"id": run_id},
            ).fetchall()
        ]
        if not runs:
            raise DatabaseError(f"no run {run_id} has loaded anything; b44 status lists the runs")
        if len(runs) > 1 and run_id not in runs:
            raise SettingsError(f"{run_id} may be any of {', '.join(runs)}")
        return _batches(conn, "run_id = %s", run_id if run_id in runs else runs[0])

    return _roll_back(session, find)


def roll_back_month(session: Session, month: date) -> RolledBack:
    """Takes back what was loaded into one month of the tables that are partitioned by month.

    Args:
        session: The context.
        month: Its first day.

    Raises:
        DatabaseError: The server refuses.
    """
    tables = [table for table in session.catalog.mappings if session.catalog.is_monthly(table)]
    return _roll_back(
        session, lambda conn: _batches(conn, "partition_key = %s and entity_type = any(%s)", month, tables)
    )


def roll_back_entity(session: Session, mapping: TableMapping, generation: int) -> RolledBackEntity:
    """Takes back what one plan of an entity has loaded so far; it is not planned anew."""
    table = mapping.spec.name

    def work() -> RolledBackEntity:
        with session.connection("rollback") as conn, conn.transaction():
            batches = _batches(conn, "generation = %s and entity_type = %s", generation, table)
            return _take_back(session, conn, {table: batches.get(table, [])})[0]

    return with_retry(session, work)


def _roll_back(session: Session, find: Callable[[Connection], dict[str, list[int]]]) -> RolledBack:
    def work() -> RolledBack:
        with session.connection("rollback") as conn:
            with conn.transaction():
                batches = find(conn)
                done = RolledBack(_take_back(session, conn, batches), _parts(conn, batches))
                failpoint("rollback: before commit", conn)
            failpoint("rollback: after commit", conn)
        return done

    done = with_retry(session, work)
    # So that the migration tables and the target agree from now on, not from the next load.
    unplanned = _unplanned(session)
    for table, mapping in session.catalog.mappings.items():
        if table in unplanned:
            # Records whose author is gone are orphans for the time being, which is no reason to stop.
            make_plan(replace(session, max_quarantine=None), mapping)
    return done


def _parts(conn: Connection, batches: Mapping[str, list[int]]) -> tuple[tuple[str, date | None], ...]:
    return tuple(
        (table, day)
        for table, numbers in batches.items()
        for (day,) in conn.execute(
            "select distinct partition_key from migration.migration_log where entity_type = %s and batch_number = any(%s)"
            " order by 1",
            (table, numbers),
        ).fetchall()
    )


def _unplanned(session: Session) -> frozenset[str]:
    """The tables of whose staged records something was taken back."""
    with session.connection("rollback") as conn:
        rows: list[tuple[str]] = conn.execute(
            "select entity from migration.plans join migration.exports using (entity) where fingerprint = ''"
        ).fetchall()
    return frozenset(table for (table,) in rows)


def _batches(conn: Connection, condition: LiteralString, *values: object) -> dict[str, list[int]]:
    """The batches to take back, the newest first, by table."""
    query = sql.SQL(
        "select entity_type, array_agg(batch_number order by batch_number desc) from migration.migration_log"
        " where status = 'completed' and rolled_back_at is null and {} group by 1"
    )
    rows = conn.execute(query.format(sql.SQL(condition)), values).fetchall()
    return dict(rows)


def _take_back(session: Session, conn: Connection, batches: dict[str, list[int]]) -> tuple[RolledBackEntity, ...]:
    """Works from the tables that depend on others to those that they depend on."""
    tables = [table for table in reversed(list(session.catalog.mappings)) if table in batches]
    pass_rules(conn)
    for table in sorted(tables):
        conn.execute("select pg_advisory_xact_lock(hashtextextended(%s, 44))", (f"plan {table}",))
    done: list[RolledBackEntity] = []
    for table in tables:
        rollback = _Rollback(session, conn, session.catalog.mappings[table])
        done.append(rollback.run(batches[table]))
        failpoint("rollback: between entities", conn)
    return tuple(done)


class _Rollback:
    """One table's part."""

    def __init__(self, session: Session, conn: Connection, mapping: TableMapping) -> None:
        self._conn = conn
        self._mapping = mapping
        self._table = mapping.spec.name
        period = session.catalog.table(self._table).period
        # Staging drops the view, and what was loaded can be taken back before the newer export is planned.
        create_mapping_view(conn, mapping, period, session.plausible_years)
        follow_new_columns(conn, mapping, period)
        self._columns = target_columns(conn, mapping)
        self._listed = session.catalog.listed(self._table)
        self._names: dict[str, sql.Composable] = {
            "entity": sql.Literal(self._table),
            "table": sql.Identifier(self._table),
            "key": sql.Identifier(mapping.key),
            "unedited": sql.SQL("{} = m.row_checksum").format(checksum(self._columns, "t")),
            "same_row": sql.SQL("t.{} = m.id").format(sql.Identifier(mapping.key))
            if period is None
            else sql.SQL("t.{} = m.id and t.{} = m.created_at").format(
                sql.Identifier(mapping.key), sql.Identifier(period.column)
            ),
        }

    def run(self, batches: Sequence[int]) -> RolledBackEntity:
        inserted = self._scalar(
            "select count(*) from migration.migrated where entity = {entity} and batch_number = any (%s)", batches
        )
        self._conn.execute(
            "create temporary table taken_back (id uuid primary key, base44_id text not null) on commit drop"
        )
        self._run(
            """
            insert into taken_back (id, base44_id)
            select m.id, m.base44_id
              from migration.migrated m
              left join public.{table} t on {same_row}
             where m.entity = {entity} and m.batch_number = any (%s)
               -- One that stands in another partition now was edited.
               and (t.{key} is null and not exists (select from public.{table} o where o.{key} = m.id) or {unedited})
            """,
            batches,
        )
        candidates = self._scalar("select count(*) from taken_back")
        self._leave_used()
        deleted = self._scalar("select count(*) from taken_back")
        self._run(
            "delete from public.{table} t using taken_back u, migration.migrated m"
            " where m.entity = {entity} and m.id = u.id and {same_row}"
        )
        for book, column in (
            ("repairs", "base44_id"),
            ("unmapped", "base44_id"),
            ("conflicts", "id"),
            ("replaced", "id"),
        ):
            self._run(
                "delete from migration.{book} b using taken_back u where b.entity = {entity} and b.{column} = u.{column}",
                book=sql.Identifier(book),
                column=sql.Identifier(column),
            )
        self._run("delete from migration.migrated m using taken_back u where m.entity = {entity} and m.id = u.id")
        self._conn.execute("drop table taken_back")
        restored, changed = 0, 0
        for batch in batches:
            done = self._restore(batch)
            restored, changed = restored + done[0], changed + done[1]
        # What the server refused then is to be tried again, as it was corrected since.
        note_corrections(self._conn, self._table)
        self._run(
            "delete from migration.quarantine where entity = {entity} and batch_number = any (%s) and replayed_at is null",
            batches,
        )
        self._run(
            "update migration.migration_log set rolled_back_at = now() where entity_type = {entity} and batch_number = any (%s)",
            batches,
        )
        self._run("update migration.plans set fingerprint = '' where entity = {entity}")
        return RolledBackEntity(self._table, deleted, restored, inserted - candidates + changed, candidates - deleted)

    def _leave_used(self) -> None:
        """Leaves out rows that others refer to, and rows that those refer to, and so on."""
        keys = self._conn.execute(
            """
            select c.conrelid::regclass::text, a.attname, c.conrelid = c.confrelid
              from pg_constraint c
              join pg_attribute a on a.attrelid = c.conrelid and a.attnum = c.conkey[1]
             where c.contype = 'f' and c.confrelid = to_regclass(%s) and cardinality(c.conkey) = 1 and c.conparentid = 0
            """,
            (f"public.{self._table}",),
        ).fetchall()
        left = True
        while left:
            left = False
            for relation, column, itself in keys:
                among = sql.SQL(" and not exists (select from taken_back o where o.id = c.{key})" if itself else "")
                found = self._run(
                    "delete from taken_back u where exists (select from {child} c where c.{column} = u.id {among})",
                    # As the server writes a relation's name, schema and quotes included.
                    child=trusted(relation),
                    column=sql.Identifier(column),
                    among=among.format(key=self._names["key"]),
                )
                left |= found > 0

    def _restore(self, batch: int) -> tuple[int, int]:
        """Rows that a batch updated, as they were. Returns how many were restored, and how many left alone."""
        noted = self._scalar(
            "select count(*) from migration.replaced where entity = {entity} and batch_number = %s", batch
        )
        if not noted:
            return 0, 0
        self._conn.execute("create temporary table taken_back (id uuid primary key) on commit drop")
        self._run(
            """
            insert into taken_back (id)
            select m.id
              from migration.replaced p
              join migration.migrated m on m.entity = {entity} and m.id = p.id and m.updated_batch = p.batch_number
              join public.{table} t on {same_row} and {unedited}
             where p.entity = {entity} and p.batch_number = %s
            """,
            batch,
        )
        exchangeable = self._mapping.exchangeable_unique
        if exchangeable is not None:
            self._run(
                "update public.{table} set {released} = {expression} where {key} in (select id from taken_back)",
                released=sql.Identifier(exchangeable.released),
                expression=trusted(exchangeable.expression),
            )
        before = [name for name, generated in columns_of(self._conn, "public", self._table).items() if not generated]
        restored = despite_unfit_rows(
            self._conn, self._table, self._listed, lambda: self._put_back(batch, identifiers(before))
        )
        self._run(
            "delete from migration.repairs c using taken_back u, migration.migrated m"
            " where m.entity = {entity} and m.id = u.id and c.entity = {entity} and c.base44_id = m.base44_id"
        )
        self._run(
            "delete from migration.unmapped c using taken_back u, migration.migrated m"
            " where m.entity = {entity} and m.id = u.id and c.entity = {entity} and c.base44_id = m.base44_id"
        )
        self._run("delete from migration.migrated m using taken_back u where m.entity = {entity} and m.id = u.id")
        for statement in (
            "insert into migration.migrated"
            " select b.* from {old}, jsonb_populate_record(null::migration.migrated, p.migrated_before) b",
            "insert into migration.repairs"
            " select b.* from {old}, jsonb_populate_recordset(null::migration.repairs, p.repairs_before) b",
            "insert into migration.unmapped (entity, base44_id, data, batch_number)"
            " select {entity}, p.migrated_before ->> 'base44_id', p.unmapped_before, (p.migrated_before ->> 'batch_number')::bigint"
            " from {old} where p.unmapped_before is not null",
        ):
            self._run(
                statement,
                old=sql.SQL(
                    "taken_back u join migration.replaced p on p.entity = {} and p.id = u.id and p.batch_number = {}"
                ).format(self._names["entity"], sql.Literal(batch)),
            )
        self._run(
            "delete from migration.replaced p using taken_back u"
            " where p.entity = {entity} and p.batch_number = %s and p.id = u.id",
            batch,
        )
        self._conn.execute("drop table taken_back")
        return restored, noted - restored

    def _put_back(self, batch: int, columns: sql.Composable) -> int:
        """Gives the rows that a batch updated the values that they had; returns how many."""
        return self._run(
            """
            update public.{table} t set ({columns}) = (
              select {columns} from jsonb_populate_record(null::public.{table}, p.row_before))
              from taken_back u
              join migration.replaced p on p.entity = {entity} and p.id = u.id and p.batch_number = %s
              join migration.migrated m on m.entity = {entity} and m.id = u.id
             where {moved}
            """,
            batch,
            columns=columns,
            moved=self._names["same_row"],
        )

    def _run(self, statement: LiteralString, *values: object, **more: sql.Composable) -> int:
        """Runs a statement of this file with the table's names in it; the number of rows it changed."""
        text = sql.SQL(statement).format(**self._names, **more)
        return self._conn.execute(text, [list(v) if isinstance(v, Sequence) else v for v in values] or None).rowcount

    def _scalar(self, statement: LiteralString, *values: object) -> int:
        text = sql.SQL(statement).format(**self._names)
        return scalar(self._conn, text, [list(v) if isinstance(v, Sequence) else v for v in values] or None)
