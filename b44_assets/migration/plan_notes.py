"""What a plan writes down beside itself: quarantine, parts, conflicts, rows whose records are gone, and how records were dated."""

from __future__ import annotations

from psycopg import sql

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.migration.corrections import note_corrections, show_corrected
from b44_assets.migration.plan_basis import Basis
from b44_assets.migration.sources import target_columns
from b44_assets.migration.unique_names import add_suffixes
from b44_assets.migration.unmapped_fields import keep_unmapped_fields
from b44_assets.session import (
    MADE,
    Connection,
    Session,
    time_column,
)

CONFLICTS = ("edited", "deleted", "not_newer")
"""Actions of records that are left out for the sake of the row that is there."""
_GENERATION = sql.SQL("(select n.generation from migration.plans n where n.entity = {})")


def write_notes(
    session: Session,
    conn: Connection,
    mapping: TableMapping,
    basis: Basis,
    fingerprint: sql.Composable,
    *,
    again: bool,
) -> None:
    """Makes wanted names unique, and writes down what the plan came to.

    Args:
        session: The run.
        conn: In the transaction of the plan, which is made.
        mapping: The entity's mapping.
        basis: What the plan depends on.
        fingerprint: Digest of that, as SQL.
        again: Whether anything was migrated before.
    """
    table = mapping.spec.name
    if mapping.unique_suffix is not None:
        add_suffixes(conn, mapping, mapping.unique_suffix)
    _write_tables(session, conn, mapping, basis, fingerprint)
    _note_parts(conn, session.catalog, mapping)
    # What an earlier plan has noted goes in any case: all that it was about may have been taken back.
    conn.execute("delete from migration.retained where entity = %s", (table,))
    conn.execute("delete from migration.conflicts where entity = %s and accepted_at is null", (table,))
    if again:
        _note_retained(conn, mapping)
        _note_conflicts(session, conn, mapping)
        keep_unmapped_fields(conn, mapping)
    _note_undated(conn, session.catalog, mapping)


def _write_tables(
    session: Session, conn: Connection, mapping: TableMapping, basis: Basis, fingerprint: sql.Composable
) -> None:
    table = mapping.spec.name
    planned = sql.Identifier(f"{table}_plan")
    conn.execute("delete from migration.plans where entity = %s", (table,))
    conn.execute(
        sql.SQL(
            """
            insert into migration.plans
              (entity, fingerprint, made_of, reads, read, deduplicated, quarantined, unchanged, to_migrate, contested, run_id)
            select {table}, {fingerprint}, {made_of}, {reads}, e.records,
                   (select count(*) from migration.versions v where v.entity = {table} and v.repeated),
                   e.refused + c.refused, c.unchanged, c.to_migrate, c.contested, {run_id}
              from migration.exports e
             cross join (
               select count(*) filter (where _action = 'refused') as refused,
                      count(*) filter (where _action in ('insert', 'update')) as to_migrate,
                      count(*) filter (where _action not in ('insert', 'update', 'refused')) as unchanged,
                      coalesce(max(_position) filter (where _action = 'update' and _contested), 0) as contested
                 from migration.{planned}) c
             where e.entity = {table}
            """
        ).format(
            table=sql.Literal(table),
            fingerprint=fingerprint,
            made_of=sql.Literal(basis.made_of),
            reads=sql.Literal(list(basis.reads)),
            run_id=sql.Literal(session.run_id),
            planned=planned,
        )
    )
    note_corrections(conn, table)
    # What was corrected and is sound now stays until its batch has migrated it.
    conn.execute(
        sql.SQL(
            """
            delete from migration.quarantine q
             where q.entity = {table} and q.replayed_at is null
               and not exists (
                 select from migration.corrections c
                   join migration.{planned} s on s.base44_id = q.base44_id and s._action in ('insert', 'update')
                  where c.entity = {table} and c.corrected = q.record)
            """
        ).format(table=sql.Literal(table), planned=planned)
    )
    conn.execute(
        sql.SQL(
            """
            insert into migration.quarantine
              (entity, base44_id, source_file, record_number, reasons, record, record_digest, run_id, generation)
            select {table}, s.base44_id, f.source_file, s.record_number, s.reasons, f.record,
                   md5(jsonb_strip_nulls(f.record)::text), {run_id}, {generation}
              from migration.{planned} s
              join migration.{source} f using (record_number)
             where s._action = 'refused'
            union all
            select {table}, b44.trim(r.record ->> 'id'), e.source_file, r.record_number, array[r.reason], r.record,
                   md5(jsonb_strip_nulls(r.record)::text), {run_id}, {generation}
              from migration.refused r
              join migration.exports e using (entity)
             where r.entity = {table}
             order by 4
            """
        ).format(
            table=sql.Literal(table),
            run_id=sql.Literal(session.run_id),
            generation=_GENERATION.format(sql.Literal(table)),
            planned=planned,
            source=sql.Identifier(f"{table}_source"),
        )
    )
    show_corrected(conn, table)


def _note_parts(conn: Connection, catalog: Catalog, mapping: TableMapping) -> None:
    """Partitions with the positions of their batches, in one pass: there is no index to ask for a single one."""
    table = mapping.spec.name
    period = catalog.table(table).period
    conn.execute("delete from migration.parts where entity = %s", (table,))
    conn.execute(
        sql.SQL(
            """
            insert into migration.parts (entity, partition_key, unit, first_position, last_position, records)
            select {table}, _partition_key, {unit}, min(_position) filter (where _action in ('insert', 'update')),
                   max(_position) filter (where _action in ('insert', 'update')), count(*)
              from migration.{planned}
             where _action <> 'refused'
             group by _partition_key
            """
        ).format(
            table=sql.Literal(table),
            unit=sql.Literal(period.unit if period else None),
            planned=sql.Identifier(f"{table}_plan"),
        )
    )


def _note_retained(conn: Connection, mapping: TableMapping) -> None:
    """Rows of records that are in this export no more, or refused in it."""
    table = mapping.spec.name
    conn.execute(
        sql.SQL(
            """
            insert into migration.retained (entity, id, base44_id, reason, generation)
            select known.entity, known.id, known.base44_id,
                   case when exists (select from migration.{planned} s where s.{key} = known.id)
                     then 'refused' else 'vanished' end,
                   n.generation
              from migration.migrated known
              join migration.plans n on n.entity = known.entity
             where known.entity = {table}
               and not exists (select from migration.{planned} s where s.{key} = known.id and s._action <> 'refused')
            """
        ).format(planned=sql.Identifier(f"{table}_plan"), key=sql.Identifier(mapping.key), table=sql.Literal(table))
    )
    conn.execute(
        "update migration.plans s set vanished ="
        " (select count(*) from migration.retained r where r.entity = s.entity and r.reason = 'vanished') where s.entity = %s",
        (table,),
    )


def _note_conflicts(session: Session, conn: Connection, mapping: TableMapping) -> None:
    """Rows left alone, with the columns in which the record differs from them; accepted ones are not reported again."""
    table = mapping.spec.name
    differing = [
        sql.SQL("case when {} is distinct from {} then {} end").format(
            sql.Identifier("f" if name in mapping.large_columns else "s", name),
            sql.Identifier("t", name),
            sql.Literal(name),
        )
        for name in target_columns(conn, mapping)
    ]
    conn.execute(
        sql.SQL(
            """
            insert into migration.conflicts as c
              (entity, id, base44_id, kind, columns, record, record_number, generation, run_id)
            select {table}, s.{key}, s.base44_id, s._action,
                   case when t.{key} is null then '{{}}' else array_remove(array[{differing}], null) end,
                   f.record, s.record_number, n.generation, {run_id}
              from migration.{planned} s
              join migration.{source} f using (record_number)
              join migration.plans n on n.entity = {table}
              left join public.{target} t on t.{key} = s.{key}
             where s._action = any ({kinds})
            on conflict (entity, id) do update
               set base44_id = excluded.base44_id, kind = excluded.kind, columns = excluded.columns,
                   record = excluded.record, record_number = excluded.record_number, generation = excluded.generation,
                   run_id = excluded.run_id,
                   accepted_at = case when c.record = excluded.record then c.accepted_at end
            """
        ).format(
            table=sql.Literal(table),
            target=sql.Identifier(table),
            key=sql.Identifier(mapping.key),
            differing=sql.SQL(", ").join(differing),
            run_id=sql.Literal(session.run_id),
            planned=sql.Identifier(f"{table}_plan"),
            source=sql.Identifier(f"{table}_source"),
            kinds=sql.Literal(list(CONFLICTS)),
        )
    )


def _note_undated(conn: Connection, catalog: Catalog, mapping: TableMapping) -> None:
    """Notes by which export a record was dated, where it has no date of its own."""
    table = mapping.spec.name
    period = catalog.table(table).period
    column = period.column if period else time_column(conn, "migration", f"{table}_plan", MADE)
    if column is None:
        return
    conn.execute(
        sql.SQL(
            """
            insert into migration.undated (entity, base44_id, exported_at)
            select {table}, s.base44_id, e.exported_at
              from migration.{planned} s
              join migration.exports e on e.entity = {table} and e.exported_at = s.{column}
             where s._action in ('insert', 'update')
            on conflict do nothing
            """
        ).format(table=sql.Literal(table), planned=sql.Identifier(f"{table}_plan"), column=sql.Identifier(column))
    )
