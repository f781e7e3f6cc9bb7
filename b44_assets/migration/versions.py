"""Of several records with one id, the one that counts: `migration.versions` notes the others.

What belongs here: repeats and older versions within one export. What does not: rows that an earlier export gave; see `plan`.
"""

from __future__ import annotations

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.migration.sources import MORE_FIELDS, RECORD_NUMBER, SOURCE_FILE, last_change
from b44_assets.session import Connection, columns_of


def resolve_versions(conn: Connection, mapping: TableMapping) -> None:
    """Notes which of several records of one id are passed over: repeats equal in every field, and older versions.

    Fields without a value are equal, however blank they are written.

    The newest `updated_at` wins; of equally new ones the last in the file.

    Args:
        conn: In the transaction that changed what is staged.
        mapping: The entity's mapping.
    """
    table = mapping.spec.name
    staged = columns_of(conn, "base44", table)
    conn.execute("delete from migration.versions where entity = %s", (table,))
    # Records without an id can be repeats all the same.
    # What migration.id_key calls: the server puts it in the place of the call, which takes a third off the time.
    key = sql.SQL("migration.to_id_key(s.id)" if "id" in staged else "''")
    exported = [name for name in staged if name not in (RECORD_NUMBER, SOURCE_FILE)]
    conn.execute(
        sql.SQL(
            """
            insert into migration.versions (entity, record_number, repeated)
            with repeated_ids as (
              select {key} as key from base44.{table} s group by 1 having count(*) > 1
            ),
            members as (
              select s._record_number, r.key, md5(row({columns})::text) as digest, {newest} as newest
                from base44.{table} s
                join repeated_ids r on r.key = {key}
            ),
            copies as (
              select m.*, row_number() over (partition by m.key, m.digest order by m._record_number) as copy from members m
            ),
            ages as (
              select c.*, row_number() over (partition by c.key order by c.newest desc nulls last, c._record_number desc) as age
                from copies c
               where c.copy = 1
            )
            select {entity}, _record_number, true from copies where copy > 1
            union all
            select {entity}, _record_number, false from ages where age > 1 and key <> ''
            """
        ).format(
            table=sql.Identifier(table),
            key=key,
            entity=sql.Literal(table),
            columns=sql.SQL(", ").join(_compared(name) for name in exported),
            newest=last_change(mapping, staged),
        )
    )


def _compared(column: str) -> sql.Composable:
    value = sql.Identifier("s", column)
    return sql.SQL("migration.present_fields({})" if column == MORE_FIELDS else "b44.present({})").format(value)
