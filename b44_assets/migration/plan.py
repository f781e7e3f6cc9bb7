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

What belongs here: verdicts that need the whole entity. What does not: the rules themselves, which are the mapping's.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field, replace
from typing import LiteralString, cast

from psycopg import sql

from b44_assets.catalog import Catalog, Kind, Period, TableMapping, UniqueSuffix
from b44_assets.errors import DatabaseError, ThresholdError
from b44_assets.failpoints import failpoint
from b44_assets.migration.batches import create_batch_functions
from b44_assets.migration.corrections import note_corrections, show_corrected
from b44_assets.migration.recorded_statements import Recorder
from b44_assets.migration.sources import (
    create_mapping_view,
    made_of_the_same,
    name_agrees,
    staged_is_gone,
    target_columns,
    without_suffixed,
)
from b44_assets.session import (
    Connection,
    Session,
    checksum,
    columns_of,
    identifiers,
    plan_for_bulk,
    scalar,
    take_advisory_lock,
    with_retry,
)

CONFLICTS = ("edited", "deleted", "not_newer")
"""Actions of records that are left out for the sake of the row that is there."""

_GENERATION = sql.SQL("(select n.generation from migration.plans n where n.entity = {})")


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
        raise DatabaseError(
            "the migration's tables in this database are those of an earlier version: b44 migrate, or the job schema_only,"
            " brings them up to date"
        )
    return now


def is_current(conn: Connection, session: Session, mapping: TableMapping) -> bool:
    """Tell whether a plan stands whose records would come to the same today, and which has a checksum of each.

    Raises:
        DatabaseError: Nothing is staged.
    """
    basis = _basis(conn, session, mapping)
    current = scalar(
        conn,
        "select exists (select from migration.plans where entity = %s and fingerprint = migration.fingerprint_of(%s, %s))",
        (mapping.spec.name, basis.made_of, list(basis.reads)),
    )
    # A plan of an earlier version has no checksums; after a crash of the server it is empty, and what is compared too few.
    return current and "_checksum" in columns_of(conn, "migration", f"{mapping.spec.name}_plan")


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
        basis = _basis(conn, session, mapping)
        fingerprint = scalar(conn, "select migration.fingerprint_of(%s, %s)", (basis.made_of, list(basis.reads)))
        with conn.transaction():
            create_mapping_view(conn, mapping, session.catalog.table(table).period, session.plausible_years)
        if (existing := _existing(conn, mapping, fingerprint)) is not None:
            return existing
        session.progress(f"{table}: mapping", 0, 0)
        with conn.transaction():
            again = scalar(conn, "select exists (select from migration.migrated where entity = %s)", (table,))
            _judge(conn, session.catalog, mapping, again=again)
            failpoint("plan: evaluated", conn)
            _note(session, conn, mapping, basis, sql.Literal(fingerprint), again=again)
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
            _create_plan_function(session, conn, mapping, basis)
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


def _judge(conn: Connection, catalog: Catalog, mapping: TableMapping, *, again: bool) -> None:
    _note_following(conn, catalog, mapping)
    _evaluate(conn, catalog, mapping, again=again)


def _note(
    session: Session,
    conn: Connection,
    mapping: TableMapping,
    basis: _Basis,
    fingerprint: sql.Composable,
    *,
    again: bool,
) -> None:
    table = mapping.spec.name
    if mapping.unique_suffix is not None:
        _add_suffixes(conn, mapping, mapping.unique_suffix)
    _write_tables(session, conn, mapping, basis, fingerprint)
    _note_parts(conn, session.catalog, mapping)
    # What an earlier plan has noted goes in any case: all that it was about may have been taken back.
    conn.execute("delete from migration.retained where entity = %s", (table,))
    conn.execute("delete from migration.conflicts where entity = %s and accepted_at is null", (table,))
    if again:
        _note_retained(conn, mapping)
        _note_conflicts(session, conn, mapping)
    _note_undated(conn, session.catalog, mapping)


def _create_plan_function(session: Session, conn: Connection, mapping: TableMapping, basis: _Basis) -> None:
    """Makes `migration.plan_<table>`: the same plan once more, from SQL, when what it reads has changed.

    Args:
        session: The run, whose limits hold for it.
        conn: In the transaction of the plan, which is made.
        mapping: The entity's mapping.
        basis: What the plan depends on.
    """
    table, catalog = mapping.spec.name, session.catalog
    by_hand = replace(session, run_id=None)
    variants: dict[bool, sql.Composable] = {}
    settings: list[str] = []
    for again in (True, False):
        recorder = Recorder(conn)
        recording = cast("Connection", recorder)
        _judge(recording, catalog, mapping, again=again)
        _note(by_hand, recording, mapping, basis, sql.SQL("current_setting('b44.fingerprint')"), again=again)
        create_batch_functions(recording, mapping, catalog.table(table).period, updates=again, corrected=True)
        variants[again] = sql.SQL("\n").join(
            sql.SQL("execute {};").format(sql.Literal(text)) for text in recorder.statements
        )
        settings = recorder.settings
    body = sql.SQL(
        """
        begin
          -- As it is before anything is read: what changes meanwhile is planned for once more.
          perform set_config('b44.fingerprint', migration.fingerprint_of({made_of}, {reads}), true);
          if exists (select from migration.migrated where entity = {entity}) then
            {again}
          else
            {first}
          end if;
          {limit}
        end
        """
    ).format(
        made_of=sql.Literal(basis.made_of),
        reads=sql.Literal(list(basis.reads)),
        entity=sql.Literal(table),
        again=variants[True],
        first=variants[False],
        limit=_limited(session, table),
    )
    function = sql.Identifier("migration", f"plan_{table}")
    conn.execute(
        sql.SQL(
            "create or replace function {}() returns void language plpgsql set search_path = public, pg_temp {} as {}"
        ).format(
            function,
            # Settings of this module's own statements.
            sql.SQL(" ").join(sql.SQL("set " + setting) for setting in settings),  # pyright: ignore[reportArgumentType]
            sql.Literal(body.as_string(conn)),
        )
    )
    conn.execute(sql.SQL("revoke all on function {}() from public").format(function))


def _limited(session: Session, table: str) -> sql.Composable:
    """Refuses a plan with more refused records than the session allows, as PL/pgSQL."""
    limit = session.max_quarantine
    if limit is None:
        return sql.SQL("")
    share = limit.percent
    return sql.SQL(
        """
        if exists (select from migration.plans s where s.entity = {entity} and {exceeded}) then
          raise exception using message = {message};
        end if;
        """
    ).format(
        entity=sql.Literal(table),
        exceeded=sql.SQL("s.quarantined > {}").format(sql.Literal(limit.count))
        if share is None
        else sql.SQL("s.quarantined * 100 * {}::numeric > s.read * {}::numeric").format(
            sql.Literal(share.denominator), sql.Literal(share.numerator)
        ),
        message=sql.Literal(f"{table}: more records would be quarantined than B44_MAX_QUARANTINE={limit} allows"),
    )


def _exists(conn: Connection, mapping: TableMapping, condition: LiteralString) -> bool:
    query = sql.SQL("select exists (select from migration.{} where {})")
    return scalar(conn, query.format(sql.Identifier(f"{mapping.spec.name}_plan"), sql.SQL(condition)))


def _listed(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count}" for name, count in sorted(counts.items(), key=lambda item: -item[1]))


_CONVERSIONS = frozenset(
    {"b44/identifier_functions", "b44/parser_functions", "b44/text_functions", "migration/conversion_functions"}
)
"""Files of the program whose functions any mapping may call."""


@dataclass(frozen=True)
class _Basis:
    """What a plan depends on.

    Attributes:
        made_of: Digest of the staged export, the mapping and its functions.
        reads: The migrated tables that the mapping reads; what they hold from the migration counts, too.
    """

    made_of: str
    reads: tuple[str, ...]


def _basis(conn: Connection, session: Session, mapping: TableMapping) -> _Basis:
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
    return _Basis(made_of, tuple(name for name in mapping.spec.depends if name in catalog.mappings))


def _existing(conn: Connection, mapping: TableMapping, fingerprint: str) -> LoadPlan | None:
    table = mapping.spec.name
    row = conn.execute(
        "select read, to_migrate + unchanged from migration.plans where entity = %s and fingerprint = %s",
        (table, fingerprint),
    ).fetchone()
    if row is None or scalar(conn, "select to_regclass(%s)", (f"migration.{table}_plan",)) is None:
        return None
    # Unlogged: after a crash of the server it is there and empty.
    if row[1] and not _exists(conn, mapping, "true"):
        return None
    return _read(conn, table, changed=False)


def _same_row(mapping: TableMapping, period: Period | None) -> sql.Composable:
    """Joins the row `t` of what `known` says was migrated."""
    same = sql.SQL("t.{} = known.id").format(sql.Identifier(mapping.key))
    if period is None:
        return same
    return sql.SQL("{} and t.{} = known.created_at").format(same, sql.Identifier(period.column))


def _note_following(conn: Connection, catalog: Catalog, mapping: TableMapping) -> None:
    """Notes which rows may give up the values that they hold, for the mapping to look at.

    Of tables without periods only: those with some hold no values that another row could want.
    """
    table = mapping.spec.name
    conn.execute("delete from migration.following where entity = %s", (table,))
    if mapping.exchangeable_unique is None:
        return
    conn.execute(
        sql.SQL(
            """
            insert into migration.following (entity, id)
            select distinct {entity}, known.id
              from migration.migrated known
              join public.{table} t on {same_row} and {checksum} = known.row_checksum
              join migration.{source} f on f.base44_id = known.base44_id and not f.superseded
             where known.entity = {entity}
               -- A record that is another, and no newer, is left out.
               and (f.record_checksum = known.record_checksum or f.last_change > coalesce(known.updated_at, '-infinity'))
            """
        ).format(
            entity=sql.Literal(table),
            table=sql.Identifier(table),
            same_row=_same_row(mapping, catalog.table(table).period),
            checksum=checksum(target_columns(conn, mapping), "t"),
            source=sql.Identifier(f"{table}_source"),
        )
    )


def _evaluate(conn: Connection, catalog: Catalog, mapping: TableMapping, *, again: bool) -> None:
    """Makes `migration.<table>_plan`.

    Args:
        conn: In a transaction.
        catalog: For the table's period.
        mapping: The entity's mapping.
        again: Whether records of the entity were migrated before, with which these are to be compared.
    """
    table = mapping.spec.name
    planned = sql.Identifier(f"{table}_plan")
    period = catalog.table(table).period
    columns = [name for name in columns_of(conn, "migration", f"{table}_mapping") if name not in mapping.large_columns]
    plan_for_bulk(conn)
    conn.execute(sql.SQL("drop table if exists migration.{}").format(planned))
    # Those to write first, in the order of their partition and key, so that a batch is a range of positions. Times lead
    # the sort where there are some: to compare two of them is cheap, and they are hardly ever equal. Where rows exchange
    # values, updates come before the inserts that may want what they give up.
    key = sql.Identifier("judged", mapping.key)
    if period is None:
        ranks = "case judged._action when 'update' then case when judged._contested then 1 else 2 end when 'insert' then 3 end"
        order = sql.SQL("{}, {}, judged.record_number").format(sql.SQL(ranks), key)
    else:
        moment = sql.Identifier("judged", period.column)
        order = sql.SQL(
            "case when judged._action in ('insert', 'update') then {} end, {}, judged.record_number"
        ).format(moment, moment)
    conn.execute(
        sql.SQL(
            """
            create unlogged table migration.{planned} with (autovacuum_enabled = false) as
            select row_number() over (order by {order}) as _position, {partition_key} as _partition_key, judged.*
              from (select {judged}
                      from migration.{mapping} m
                      -- Not a subquery of each record, with which PostgreSQL maps them all in one process.
                      left join (select distinct {key} from public.{table}) holder on holder.{key} = m.{key}
                      {compared}) judged
             order by {order}
            """
        ).format(
            key=sql.Identifier(mapping.key),
            table=sql.Identifier(table),
            planned=planned,
            order=order,
            partition_key=partition_of(period, "judged"),
            judged=_judged(conn, mapping, columns, again=again),
            mapping=sql.Identifier(f"{table}_mapping"),
            compared=sql.SQL(
                """
                left join migration.migrated known on known.entity = {entity} and known.id = m.{key}
                left join public.{table} t on {same_row}
                left join migration.{source} f on f.record_number = m.record_number
                """
            ).format(
                entity=sql.Literal(table),
                key=sql.Identifier(mapping.key),
                table=sql.Identifier(table),
                same_row=_same_row(mapping, period),
                source=sql.Identifier(f"{table}_source"),
            )
            if again
            else sql.SQL(""),
        )
    )
    conn.execute(sql.SQL("alter table migration.{} add primary key (_position)").format(planned))


def _judged(conn: Connection, mapping: TableMapping, columns: list[str], *, again: bool) -> sql.Composed:
    """The columns of the plan: the mapping's, their checksum, the action, and whether an update changes what others may want."""
    filled = target_columns(conn, mapping)
    mapped = checksum(without_suffixed(mapping, filled), "m")
    new = sql.SQL("known.id is null" if again else "true")
    # A key that a row of the new system has; among the migrated ones it is the record's own.
    taken = sql.SQL("({} and holder.{} is not null)").format(new, sql.Identifier(mapping.key))
    special: dict[str, sql.Composable] = {
        "reasons": sql.SQL("case when {} then m.reasons || array['id_taken'] else m.reasons end").format(taken)
    }
    contested, renamed = sql.SQL("false"), sql.SQL("true")
    if not again:
        action = sql.SQL("case when cardinality(m.reasons) > 0 or {} then 'refused' else 'insert' end").format(taken)
    else:
        edited = sql.SQL("({} <> known.row_checksum)").format(checksum(filled, "t"))
        agrees = sql.SQL("({} or {} and not {})").format(
            name_agrees(mapping, "t", "m"), made_of_the_same(mapping, "t", "m"), edited
        )
        parts = {
            "taken": taken,
            "edited": edited,
            "same": sql.SQL("({} = {} and {})").format(
                mapped, checksum(without_suffixed(mapping, filled), "t"), agrees
            ),
            "newer": sql.SQL("coalesce(f.last_change > coalesce(known.updated_at, '-infinity'), false)"),
            "gone": sql.SQL("t.{} is null").format(sql.Identifier(mapping.key)),
        }
        action = sql.SQL(
            """
            case when cardinality(m.reasons) > 0 or {taken} then 'refused'
                 when known.id is null then 'insert'
                 when f.record_checksum = known.record_checksum then
                   case when {gone} or {same} or {edited} then 'unchanged' else 'update' end
                 when {newer} then
                   case when {gone} then 'deleted' when {edited} then 'edited' else 'update' end
                 when {gone} or {same} or {edited} then 'unchanged'
                 else 'not_newer' end
            """
        ).format(**parts)
        if mapping.exchangeable_unique is not None:
            contested = sql.SQL("(t.{key} is not null and row({old}) is distinct from row({new}))").format(
                key=sql.Identifier(mapping.key),
                old=identifiers(mapping.exchangeable_unique.columns, "t"),
                new=identifiers(mapping.exchangeable_unique.columns, "m"),
            )
        if mapping.unique_suffix is not None:
            # A name that was made unique before stays, as links go by it.
            name = mapping.unique_suffix.column
            stays = sql.SQL("(t.{} is not null and {})").format(sql.Identifier(name), agrees)
            stored, wanted = sql.Identifier("t", name), sql.Identifier("m", name)
            renamed = sql.SQL("not {}").format(stays)
            special[name] = sql.SQL("case when {} then {} else {} end").format(stays, stored, wanted)
            if mapping.unique_suffix.repaired:
                special["repairs"] = sql.SQL(
                    "m.repairs || array_remove(array[migration.repair({stays} and {stored} <> {wanted}, {column}, 'taken',"
                    " {wanted}, {stored})], null)"
                ).format(stays=stays, stored=stored, wanted=wanted, column=sql.Literal(name))
    collated = _collated(conn, mapping)
    shown = [
        sql.SQL('{} collate "default" as {}' if name in collated else "{} as {}").format(
            special.get(name, sql.Identifier("m", name)), sql.Identifier(name)
        )
        for name in columns
    ]
    return sql.SQL("{} as _action, {} as _contested, {} as _renamed, {} as _checksum, {}").format(
        action, contested, renamed, mapped, sql.SQL(", ").join(shown)
    )


def _collated(conn: Connection, mapping: TableMapping) -> set[str]:
    """The columns of a mapping with a collation of their own, which the archive of a plan would otherwise need, too."""
    rows = conn.execute(
        "select attname from pg_attribute where attrelid = %s::regclass and attnum > 0"
        " and attcollation not in (0, 'pg_catalog.\"default\"'::regcollation)",
        (f"migration.{mapping.spec.name}_mapping",),
    ).fetchall()
    return {name for (name,) in rows}


def partition_of(period: Period | None, relation: str) -> sql.Composable:
    """The first day (UTC) of the partition that a row belongs in, as SQL; null for a table without periods."""
    if period is None:
        return sql.SQL("null::date")
    return sql.SQL("date_trunc({}, {} at time zone 'UTC')::date").format(
        sql.Literal(period.unit), sql.Identifier(relation, period.column)
    )


def _add_suffixes(conn: Connection, mapping: TableMapping, suffix: UniqueSuffix) -> None:
    """Makes wanted names unique: `name`, `name-2`, `name-3` …, the first free number each, all at once.

    First claims go first: given names before made ones, then in the order that the header names, such as by age. A later
    claimant, or one whose name stands in the target already, gets the r-th free number of that name; with the taken numbers
    t1 < t2 < … it is r + 1 + how many t_i have fewer than r free numbers below them, which is t_i - 1 - i.
    """
    table = mapping.spec.name
    age = sql.Identifier(suffix.order)
    # Not a temporary table: a server process's first one makes a schema, on which every session forgets its plans.
    renamed = sql.Identifier(f"{table}_renamed")
    conn.execute(
        sql.SQL(
            """
            create unlogged table migration.{renamed} as
            with claims as (
              select s._position as position, s.{name} as wanted, s.name_given, s.{age} as age, s.{key} as key
                from migration.{planned} s
               where s._action in ('insert', 'update') and s._renamed and s.{name} is not null
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
            name=sql.Identifier(suffix.column),
            age=age,
            key=sql.Identifier(mapping.key),
            planned=sql.Identifier(f"{table}_plan"),
            holder=sql.Identifier(suffix.table),
            renamed=renamed,
        )
    )
    repaired = sql.SQL(
        ", repairs = s.repairs || migration.repair(true, {column}, 'taken', r.wanted, r.replacement)"
    ).format(column=sql.Literal(suffix.column))
    conn.execute(
        sql.SQL(
            "update migration.{planned} s set {name} = r.replacement{repaired}"
            " from migration.{renamed} r where r.position = s._position"
        ).format(
            renamed=renamed,
            planned=sql.Identifier(f"{table}_plan"),
            name=sql.Identifier(suffix.column),
            repaired=repaired if suffix.repaired else sql.SQL(""),
        )
    )
    conn.execute(sql.SQL("drop table migration.{}").format(renamed))


def _write_tables(
    session: Session, conn: Connection, mapping: TableMapping, basis: _Basis, fingerprint: sql.Composable
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
    column = period.column if period else "created_at"
    if column not in columns_of(conn, "migration", f"{table}_plan"):
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
