"""The action of each record: the mapping run once over all that is staged, beside what an earlier export has given."""

from __future__ import annotations

from psycopg import sql

from b44_assets.catalog import Catalog, Period, TableMapping
from b44_assets.migration.sources import (
    LONGEST_ID,
    made_of_the_same,
    name_agrees,
    target_columns,
    without_suffixed,
)
from b44_assets.session import (
    Connection,
    checksum,
    columns_of,
    identifiers,
    plan_for_bulk,
)


def evaluate(conn: Connection, catalog: Catalog, mapping: TableMapping, *, again: bool) -> None:
    """Makes `migration.<table>_plan`, and notes before which rows may give up the values that they hold.

    Args:
        conn: In the transaction of the plan.
        catalog: For the table's period.
        mapping: The entity's mapping.
        again: Whether anything was migrated before.
    """
    _note_following(conn, catalog, mapping)
    _evaluate(conn, catalog, mapping, again=again)


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
    overlong = sql.SQL("coalesce(octet_length(m.base44_id) > {}, false)").format(sql.Literal(LONGEST_ID))
    special: dict[str, sql.Composable] = {
        "reasons": sql.SQL(
            "m.reasons || array_remove(array[case when {} then 'id_taken' end, case when {} then 'id_too_long' end], null)"
        ).format(taken, overlong)
    }
    refused = sql.SQL("(cardinality(m.reasons) > 0 or {} or {})").format(taken, overlong)
    contested, renamed = sql.SQL("false"), sql.SQL("true")
    if not again:
        action = sql.SQL("case when {} then 'refused' else 'insert' end").format(refused)
    else:
        edited = sql.SQL("({} <> known.row_checksum)").format(checksum(filled, "t"))
        agrees = sql.SQL("({} or {} and not {})").format(
            name_agrees(mapping, "t", "m"), made_of_the_same(mapping, "t", "m"), edited
        )
        parts = {
            "refused": refused,
            "edited": edited,
            "same": sql.SQL("({} = {} and {})").format(
                mapped, checksum(without_suffixed(mapping, filled), "t"), agrees
            ),
            "newer": sql.SQL("coalesce(f.last_change > coalesce(known.updated_at, '-infinity'), false)"),
            "gone": sql.SQL("t.{} is null").format(sql.Identifier(mapping.key)),
            # From every partition, not only from the one that it was written into.
            "absent": sql.SQL("holder.{} is null").format(sql.Identifier(mapping.key)),
        }
        action = sql.SQL(
            """
            case when {refused} then 'refused'
                 when known.id is null then 'insert'
                 when f.record_checksum = known.record_checksum then
                   case when {gone} or {same} or {edited} then 'unchanged' else 'update' end
                 when {newer} then
                   case when {gone} and {absent} then 'deleted' when {edited} then 'edited' else 'update' end
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
