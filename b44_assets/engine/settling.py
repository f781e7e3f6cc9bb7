"""The mapping, run once over everything staged for an entity: what becomes of each record.

The result stands in `migration.<table>_settled`, one row a record, in the order in which batches will take it; refused
records go to quarantine here, before anything is loaded. What belongs here: verdicts that need the whole entity. What
does not: the rules themselves, which are the mapping's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field

from psycopg import sql

from b44_assets.catalog import Catalog, Kind, Numbered, Period, TableMapping
from b44_assets.engine.session import Connection, Session, columns_of, hold, identifiers, plan_for_bulk, scalar
from b44_assets.engine.sources import create_mapping_view
from b44_assets.errors import DatabaseError, ThresholdError

VERDICTS = ("name_given", "reasons", "repairs", "unmapped")
"""Columns of a mapping that are about the record rather than for the target."""


@dataclass(frozen=True)
class Settlement:
    """What becomes of the records of one entity.

    Attributes:
        entity: The target table.
        generation: Number of the settlement, ascending over all entities.
        read: Records in the export.
        deduplicated: Records equal to an earlier one in every field.
        quarantined: Records refused.
        unchanged: Records that were migrated before.
        to_migrate: Records for the batches.
        reasons: Refused records by reason; one with two reasons counts for both.
        changed: False where nothing had changed since the last settlement.
    """

    entity: str
    generation: int
    read: int
    deduplicated: int
    quarantined: int
    unchanged: int
    to_migrate: int
    reasons: dict[str, int] = field(default_factory=dict[str, int])
    changed: bool = True


def settle(session: Session, mapping: TableMapping) -> Settlement:
    """Decides what becomes of every staged record of an entity, unless that stands already.

    All or nothing. The target table and the tables that the mapping reads must be there.

    Raises:
        DatabaseError: Nothing is staged, or the mapping fails in the server.
        ThresholdError: More records are refused than the session allows; nothing was changed.
    """
    table = mapping.spec.name
    with session.connection(f"settle {table}") as conn:
        hold(conn, f"settle {table}")
        fingerprint = _fingerprint(conn, session.catalog, mapping)
        with conn.transaction():
            create_mapping_view(conn, mapping)
        if (standing := _standing(conn, mapping, fingerprint)) is not None:
            return standing
        session.progress(f"{table}: mapping", 0, 0)
        with conn.transaction():
            _evaluate(conn, session.catalog, mapping)
            if mapping.numbered is not None:
                _number(conn, mapping, mapping.numbered)
            _write_books(session, conn, mapping, fingerprint)
            settlement = _read(conn, table, changed=True)
            limit = session.max_quarantine
            if limit is not None and limit.exceeded(settlement.quarantined, settlement.read):
                raise ThresholdError(
                    f"{table}: {settlement.quarantined} of {settlement.read} records would be quarantined"
                    f" ({_listed(settlement.reasons)}), more than B44_MAX_QUARANTINE={limit} allows; nothing was loaded"
                )
        return settlement


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


def _fingerprint(conn: Connection, catalog: Catalog, mapping: TableMapping) -> str:
    """What the result depends on: the staged export, the mapping, and what the tables it reads hold from the migration."""
    table = mapping.spec.name
    generation = scalar(conn, "select generation from migration.exports where entity = %s", (table,))
    if generation is None:
        raise DatabaseError(f"{table}: nothing is staged in base44.{table}; materialize base44/{table} first")
    parts = [mapping.spec.digest, str(generation)]
    for name in mapping.spec.depends:
        if name in catalog.mappings:
            parts.append(str(scalar(conn, "select count(*) from migration.migrated where entity = %s", (name,))))
    parts += [spec.digest for spec in catalog.of(Kind.FUNCTION) if spec.name in mapping.spec.depends]
    return hashlib.sha256("\n".join(parts).encode()).hexdigest()


def _standing(conn: Connection, mapping: TableMapping, fingerprint: str) -> Settlement | None:
    table = mapping.spec.name
    row = conn.execute(
        "select read, to_migrate + unchanged from migration.settlements where entity = %s and fingerprint = %s",
        (table, fingerprint),
    ).fetchone()
    if row is None or scalar(conn, "select to_regclass(%s)", (f"migration.{table}_settled",)) is None:
        return None
    # Unlogged: after a crash of the server it is there and empty.
    if (
        row[1]
        and scalar(conn, sql.SQL("select 1 from migration.{} limit 1").format(sql.Identifier(f"{table}_settled")))
        is None
    ):
        return None
    return _read(conn, table, changed=False)


def _evaluate(conn: Connection, catalog: Catalog, mapping: TableMapping) -> None:
    table = mapping.spec.name
    settled = sql.Identifier(f"{table}_settled")
    period = catalog.table(table).period
    columns = [name for name in columns_of(conn, "migration", f"{table}_mapping") if name not in mapping.wide]
    plan_for_bulk(conn)
    conn.execute(sql.SQL("drop table if exists migration.{}").format(settled))
    # Those to insert first, in the order of their partition and key, so that a batch is a range of positions. Times lead
    # the sort where there are some: to compare two of them is cheap, and they are hardly ever equal.
    key = sql.Identifier("judged", mapping.key)
    leading = key if period is None else sql.Identifier("judged", period.column)
    order = sql.SQL("case when judged.fate = 'insert' then {} end, {}, judged.record_number").format(leading, key)
    conn.execute(
        sql.SQL(
            """
            create unlogged table migration.{settled} with (autovacuum_enabled = false) as
            select row_number() over (order by {order}) as position, {partition_key} as partition_key, judged.*
              from (
                select case when cardinality(m.reasons) > 0 then 'refused'
                            when known.id is null then 'insert' else 'unchanged' end as fate,
                       {columns}
                  from migration.{mapping} m
                  left join migration.migrated known on known.entity = {entity} and known.id = {key}
              ) judged
             order by {order}
            """
        ).format(
            settled=settled,
            order=order,
            partition_key=partition_of(period, "judged"),
            columns=identifiers(columns, "m"),
            mapping=sql.Identifier(f"{table}_mapping"),
            entity=sql.Literal(table),
            key=sql.Identifier("m", mapping.key),
        )
    )
    conn.execute(sql.SQL("alter table migration.{} add primary key (position)").format(settled))


def partition_of(period: Period | None, relation: str) -> sql.Composable:
    """The first day (UTC) of the partition that a row belongs in, as SQL; null for a table without periods."""
    if period is None:
        return sql.SQL("null::date")
    return sql.SQL("date_trunc({}, {} at time zone 'UTC')::date").format(
        sql.Literal(period.unit), sql.Identifier(relation, period.column)
    )


def _number(conn: Connection, mapping: TableMapping, numbered: Numbered) -> None:
    """Makes wanted names unique: `name`, `name-2`, `name-3` …, the first free number each, all at once.

    First claims go first: given names before made ones, then earlier records before later ones. A later claimant, or one
    whose name stands in the target already, gets the r-th free number of that name; with the taken numbers t1 < t2 < … it
    is r + 1 + how many t_i have fewer than r free numbers below them, which is t_i - 1 - i.
    """
    table = mapping.spec.name
    age = sql.Identifier("created_at")
    conn.execute(
        sql.SQL(
            """
            create temporary table renamed on commit drop as
            with claims as (
              select s.position, s.{name} as wanted, s.name_given, s.{age} as age, s.{key} as key
                from migration.{settled} s
               where s.fate = 'insert' and s.{name} is not null
            ),
            held as (
              select h.{name} as name
                from {holder} h
               where h.{name} is not null
            ),
            -- Few names are wanted twice, and only theirs are put in order.
            contested as (
              select wanted, bool_or(is_held) as is_held
                from (select wanted, false as is_held from claims union all select name, true from held) wishes
               group by wanted
              having count(*) > 1
            ),
            late as (
              select *
                from (select c.position, c.wanted,
                             row_number() over (partition by c.wanted order by not c.name_given, c.age, c.key, c.position)
                               - case when k.is_held then 0 else 1 end as rank
                        from claims c
                        join contested k on k.wanted = c.wanted) placed
               where placed.rank > 0
            ),
            taken as (
              select p.stem, p.number - 1 - row_number() over (partition by p.stem order by p.number) as free_below
                from (select distinct substr(n.name, 1, length(n.name) - length(n.tail) - 1) as stem, n.tail::numeric as number
                        from (select name, substring(name from '-([1-9][0-9]{{0,8}})$') as tail
                                from (select wanted as name from claims union all select name from held) every
                               where ascii(right(name, 1)) between 48 and 57) n
                       where n.tail is not null) p
                join contested on contested.wanted = p.stem
               where p.number >= 2
            )
            select position, wanted, wanted || '-' || (rank + 1 + passed) as replacement
              from (select e.position, e.wanted, e.rank,
                           count(*) filter (where e.position is null) over (
                             partition by e.wanted order by e.rank, e.position nulls last rows unbounded preceding) as passed
                      from (select position, wanted, rank from late
                             union all select null, stem, free_below from taken) e) merged
             where position is not null
            """
        ).format(
            name=sql.Identifier(numbered.column),
            age=age,
            key=sql.Identifier(mapping.key),
            settled=sql.Identifier(f"{table}_settled"),
            holder=sql.Identifier(numbered.table),
        )
    )
    repaired = sql.SQL(
        ", repairs = s.repairs || migration.repair(true, {column}, 'taken', r.wanted, r.replacement)"
    ).format(column=sql.Literal(numbered.column))
    conn.execute(
        sql.SQL(
            "update migration.{settled} s set {name} = r.replacement{repaired} from renamed r where r.position = s.position"
        ).format(
            settled=sql.Identifier(f"{table}_settled"),
            name=sql.Identifier(numbered.column),
            repaired=repaired if numbered.repaired else sql.SQL(""),
        )
    )


def _write_books(session: Session, conn: Connection, mapping: TableMapping, fingerprint: str) -> None:
    table = mapping.spec.name
    settled = sql.Identifier(f"{table}_settled")
    conn.execute("delete from migration.settlements where entity = %s", (table,))
    generation = scalar(
        conn,
        sql.SQL(
            """
            insert into migration.settlements
              (entity, fingerprint, read, deduplicated, quarantined, unchanged, to_migrate, run_id)
            select {table}, {fingerprint}, e.records,
                   (select count(*) from migration.versions v where v.entity = {table} and v.repeated),
                   e.refused + c.refused, c.unchanged, c.to_migrate, {run_id}
              from migration.exports e
             cross join (
               select count(*) filter (where fate = 'refused') as refused,
                      count(*) filter (where fate = 'unchanged') as unchanged,
                      count(*) filter (where fate = 'insert') as to_migrate
                 from migration.{settled}) c
             where e.entity = {table}
            returning generation
            """
        ).format(
            table=sql.Literal(table),
            fingerprint=sql.Literal(fingerprint),
            run_id=sql.Literal(session.run_id),
            settled=settled,
        ),
    )
    conn.execute("delete from migration.quarantine where entity = %s and replayed_at is null", (table,))
    conn.execute(
        sql.SQL(
            """
            insert into migration.quarantine
              (entity, base44_id, source_file, record_number, reasons, record, run_id, generation)
            select {table}, s.base44_id, f.source_file, s.record_number, s.reasons, f.record, {run_id}, {generation}
              from migration.{settled} s
              join migration.{source} f using (record_number)
             where s.fate = 'refused'
            union all
            select {table}, base44_trim(r.record ->> 'id'), e.source_file, r.record_number, array[r.reason], r.record,
                   {run_id}, {generation}
              from migration.refused r
              join migration.exports e using (entity)
             where r.entity = {table}
             order by 4
            """
        ).format(
            table=sql.Literal(table),
            run_id=sql.Literal(session.run_id),
            generation=sql.Literal(generation),
            settled=settled,
            source=sql.Identifier(f"{table}_source"),
        )
    )


def _read(conn: Connection, table: str, *, changed: bool) -> Settlement:
    row = conn.execute(
        "select generation, read, deduplicated, quarantined, unchanged, to_migrate"
        " from migration.settlements where entity = %s",
        (table,),
    ).fetchone()
    if row is None:
        raise DatabaseError(f"{table}: no settlement in migration.settlements")
    reasons = dict(
        conn.execute(
            "select reason, count(*) from migration.quarantine q cross join unnest(q.reasons) as reason"
            " where q.entity = %s and q.generation = %s group by reason order by 2 desc, 1",
            (table, row[0]),
        ).fetchall()
    )
    return Settlement(table, *row, reasons=reasons, changed=changed)
