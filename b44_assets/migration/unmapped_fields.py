"""Exported values without a column, of records that no batch writes: kept in `migration.unmapped` with what is there of them.

What belongs here: records whose rows stay as they are. What does not: those that are written, which `batch_statements` does, and
entities without a table; see `unmapped_entities`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import LiteralString

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.migration.sources import as_objects
from b44_assets.session import Connection

# What is kept of a record already stays as it is: the record is no newer. Most have all, and are not even locked.
_KEPT: LiteralString = """
    insert into migration.unmapped as u (entity, base44_id, data)
    select k.entity, k.base44_id, k.data
      from ({kept}) k (entity, base44_id, data)
      left join migration.unmapped o on o.entity = k.entity and o.base44_id = k.base44_id
     where (o.data @> k.data) is not true
    on conflict (entity, base44_id) do update set data = excluded.data || u.data
     where not u.data ?& array(select jsonb_object_keys(excluded.data))
"""
_OF_UNCHANGED: LiteralString = """
    select {entity}, known.base44_id, f.unmapped
      from migration.{planned} s
      join migration.{source} f using (record_number)
      -- By the id as it was written then: it may be written otherwise now.
      join migration.migrated known on known.entity = {entity} and known.id = s.{key}
     where s._action = 'unchanged' and f.unmapped <> '{{}}'
"""
_OF_EDITED: LiteralString = """
    select {entity}, f.base44_id, v.fields
      from migration.{source} f
      join migration.migrated known on known.entity = {entity} and known.base44_id = f.base44_id
      join public.{table} t on t.{key} = known.id and {edited}
     cross join lateral (select jsonb_strip_nulls({fields}) as fields offset 0) v
     where not f.superseded and v.fields <> '{{}}'
       -- A newer one is listed whole.
       and (f.last_change > coalesce(known.updated_at, '-infinity')) is not true
"""


def keep_unmapped_fields(conn: Connection, mapping: TableMapping) -> None:
    """Keeps the fields without a column that only this export has, of records that it leaves unchanged.

    Args:
        conn: In the transaction of the plan, which is made.
        mapping: The entity's mapping.
    """
    table = mapping.spec.name
    row = conn.execute("select fields from migration.exports where entity = %s", (table,)).fetchone()
    exported: set[str] = {*(row[0] if row is not None else ())}
    # The first spelling of each field that is read; what another one says is kept where it differs.
    read = {next((name for name in item.spellings if name in exported), item.name) for item in mapping.fields}
    if exported <= read:
        return
    _keep(
        conn,
        sql.SQL(_OF_UNCHANGED),
        mapping,
        planned=sql.Identifier(f"{table}_plan"),
        key=sql.Identifier(mapping.key),
    )


def keep_fields_of_edited_rows(
    conn: Connection, mapping: TableMapping, fields: Sequence[str], edited: sql.Composable
) -> None:
    """Keeps the values of fields that have a column by now, where the row was edited meanwhile and does not get them.

    Args:
        conn: In a transaction.
        mapping: The entity's mapping.
        fields: Of these, as the mapping names them.
        edited: Whether the row `t` of what `known` says was migrated was edited.
    """
    values = [
        sql.SQL("{}, {}").format(
            sql.Literal(name), sql.Identifier("f", f"{name}_exported" if name in mapping.html else name)
        )
        for name in fields
    ]
    _keep(
        conn,
        sql.SQL(_OF_EDITED),
        mapping,
        table=sql.Identifier(mapping.spec.name),
        key=sql.Identifier(mapping.key),
        edited=edited,
        fields=sql.SQL(" || ").join(as_objects(values)),
    )


def _keep(conn: Connection, kept: sql.SQL, mapping: TableMapping, **names: sql.Composable) -> None:
    table = mapping.spec.name
    query = kept.format(entity=sql.Literal(table), source=sql.Identifier(f"{table}_source"), **names)
    conn.execute(sql.SQL(_KEPT).format(kept=query))
