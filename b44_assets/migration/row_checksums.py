"""Checksums of migrated rows and records, when a mapping comes to fill other columns, or to read other fields, than it did.

What belongs here: keeping rows that nobody edited known as such. What does not: comparing them; see `plan_evaluation`.
"""

from __future__ import annotations

from typing import LiteralString

from psycopg import sql

from b44_assets.catalog import Period, TableMapping
from b44_assets.migration.sources import name_agrees, target_columns, without_suffixed
from b44_assets.migration.unmapped_fields import keep_fields_of_edited_rows
from b44_assets.session import Connection, checksum, columns_of, identifiers, scalar, trusted

_FOLLOWED: LiteralString = """
    update migration.migrated m set row_checksum = {after}
      from public.{table} t
     where m.entity = {entity} and t.{key} = m.id and {same_time} and m.row_checksum = {before} and {untouched}
"""
# A rollback gives rows what they had, and the new columns what they have now.
_FOLLOWED_BEFORE: LiteralString = """
    update migration.replaced p
       set row_before = n.row_before, migrated_before = jsonb_set(p.migrated_before, '{{row_checksum}}', to_jsonb({restored}))
      from (select p.batch_number, p.id, {new} || p.row_before as row_before
              from migration.replaced p
              join public.{table} t on t.{key} = p.id
             where p.entity = {entity}) n
     cross join lateral jsonb_populate_record(null::public.{table}, n.row_before) r
     where p.entity = {entity} and p.batch_number = n.batch_number and p.id = n.id
"""


# That a record is the one that was migrated is seen by the fields that were read then.
_FOLLOWED_RECORDS: LiteralString = """
    update migration.migrated m set record_checksum = f.record_checksum
      from migration.{source} f
     where m.entity = {entity} and f.base44_id = m.base44_id and not f.superseded and m.record_checksum = {read_before}
"""
# Where a field is read no more, what it said is known from nowhere else: the record is the one that was migrated if it still gives
# what its row has, which nobody has edited, in all columns that are filled as before. Where the row has nothing, an export that
# lacked the field may have been the last one.
_FOLLOWED_RECORDS_BY_ROWS: LiteralString = """
    update migration.migrated known set record_checksum = f.record_checksum
      from migration.{mapping} m
      join migration.{source} f using (record_number)
      join public.{table} t on t.{key} = m.{key}
     where known.entity = {entity} and known.id = m.{key} and {same_time} and known.row_checksum = {after}
       and cardinality(m.reasons) = 0 and (f.last_change > coalesce(known.updated_at, '-infinity')) is not true
       and {given} and {agrees}
"""


def follow_new_columns(conn: Connection, mapping: TableMapping, period: Period | None) -> None:
    """Brings the checksums of migrated rows and records to the columns that the mapping fills now, and the fields that it reads.

    A row that differs from what was written stays an edited one, and so does one whose new columns hold anything but nothing or
    their default.

    Args:
        conn: In a transaction; the mapping's view and the table are there.
        mapping: The entity's mapping.
        period: Of the table.
    """
    table = mapping.spec.name
    columns, fields = target_columns(conn, mapping), [item.name for item in mapping.fields[1:]]
    noted = conn.execute("select columns, fields from migration.checksummed where entity = %s", (table,)).fetchone()
    # Noted from the first time on: a column that the mapping fills no more is known from nowhere else.
    written, read = noted if noted is not None else _before(conn, mapping, columns, fields)
    if noted is not None and (written, read) == (columns, fields):
        return
    if scalar(conn, "select exists (select from migration.migrated where entity = %s)", (table,)):
        if written != columns and {*written} <= {*columns_of(conn, "public", table)}:
            _follow_rows(conn, mapping, period, written, columns)
        if read != fields and {*read} <= {*fields}:
            _follow_records(conn, mapping, read)
        elif read != fields:
            _follow_records_by_rows(conn, mapping, period, written, columns)
        if further := [name for name in fields if name not in read]:
            edited = sql.SQL("{} and {} <> known.row_checksum").format(
                _same_time(period, "known"), checksum(columns, "t")
            )
            keep_fields_of_edited_rows(conn, mapping, further, edited)
    conn.execute(
        "insert into migration.checksummed (entity, columns, fields) values (%s, %s, %s)"
        " on conflict (entity) do update set columns = excluded.columns, fields = excluded.fields",
        (table, columns, fields),
    )


def _before(
    conn: Connection, mapping: TableMapping, columns: list[str], fields: list[str]
) -> tuple[list[str], list[str]]:
    """The columns and fields of the checksums that are there; of an earlier version, the columns that its plan had."""
    table = mapping.spec.name
    planned = columns_of(conn, "migration", f"{table}_plan")
    written = [name for name in columns if not planned or name in planned or name in mapping.large_columns]
    return written, [name for name in fields if name in written or name not in columns]


def _follow_records(conn: Connection, mapping: TableMapping, read: list[str]) -> None:
    values = ["base44_id", *(f"{name}_exported" if name in mapping.html else name for name in read)]
    conn.execute(
        sql.SQL(_FOLLOWED_RECORDS).format(
            source=sql.Identifier(f"{mapping.spec.name}_source"),
            entity=sql.Literal(mapping.spec.name),
            read_before=checksum(values, "f"),
        )
    )


def _follow_records_by_rows(
    conn: Connection, mapping: TableMapping, period: Period | None, written: list[str], columns: list[str]
) -> None:
    table = mapping.spec.name
    compared = without_suffixed(mapping, [name for name in columns if name in written])
    conn.execute(
        sql.SQL(_FOLLOWED_RECORDS_BY_ROWS).format(
            mapping=sql.Identifier(f"{table}_mapping"),
            source=sql.Identifier(f"{table}_source"),
            table=sql.Identifier(table),
            entity=sql.Literal(table),
            key=sql.Identifier(mapping.key),
            same_time=_same_time(period, "known"),
            after=checksum(columns, "t"),
            given=sql.SQL(" and ").join(
                sql.SQL("({0} is null or {0} is not distinct from {1})").format(
                    sql.Identifier("t", name), sql.Identifier("m", name)
                )
                for name in compared
            ),
            agrees=name_agrees(mapping, "t", "m"),
        )
    )


def _same_time(period: Period | None, migrated: str) -> sql.Composable:
    """Whether the row `t` is in the partition that it was written into."""
    if period is None:
        return sql.SQL("true")
    return sql.SQL("t.{} = {}").format(sql.Identifier(period.column), sql.Identifier(migrated, "created_at"))


def _follow_rows(
    conn: Connection, mapping: TableMapping, period: Period | None, written: list[str], columns: list[str]
) -> None:
    table = mapping.spec.name
    new = [name for name in columns if name not in written]
    defaults: dict[str, str] = dict(
        conn.execute(
            "select a.attname, pg_get_expr(d.adbin, d.adrelid) from pg_attrdef d"
            " join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum where d.adrelid = to_regclass(%s)",
            (f"public.{sql.Identifier(table).as_string(conn)}",),
        ).fetchall()
    )
    untouched = [
        sql.SQL("(t.{0} is null or t.{0}::text is not distinct from ({1})::text)").format(
            sql.Identifier(name),
            trusted(defaults.get(name, "null")),
        )
        for name in new
    ]
    names = {
        "table": sql.Identifier(table),
        "entity": sql.Literal(table),
        "key": sql.Identifier(mapping.key),
        "same_time": _same_time(period, "m"),
        "before": checksum(written, "t"),
        "after": checksum(columns, "t"),
        "untouched": sql.SQL(" and ").join(untouched) if untouched else sql.SQL("true"),
        "restored": checksum(columns, "r"),
        "new": sql.SQL("(select to_jsonb(n.*) from (select {}) n)").format(identifiers(new, "t"))
        if new
        else sql.SQL("'{{}}'::jsonb").format(),
    }
    for statement in (_FOLLOWED, _FOLLOWED_BEFORE):
        conn.execute(sql.SQL(statement).format(**names))
