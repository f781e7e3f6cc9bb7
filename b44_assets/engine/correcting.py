"""Records of the quarantine that somebody has corrected there, read as corrected from then on.

A correction is noted by what the record was, so that it also holds for a newer export with the same record in it, and
for the same file staged anew. What belongs here: finding corrections and applying them to the staged text. What does
not: judging the corrected record, which the mapping does as with any other.
"""

from __future__ import annotations

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.engine.failpoints import failpoint
from b44_assets.engine.sanitizing import sanitize
from b44_assets.engine.session import Connection, Session, columns_of, hold, persevering, scalar
from b44_assets.engine.sources import (
    CLEAN_PREFIX,
    RECORD_NUMBER,
    SOURCE_FILE,
    column_names,
    create_source_view,
    mark_versions,
)

_DIGEST = "md5(jsonb_strip_nulls({})::text)"


def correct(session: Session, mapping: TableMapping) -> int:
    """Applies what was corrected in quarantine since to the staged records.

    All or nothing; running it again changes nothing.

    Args:
        session: The run.
        mapping: The entity's mapping.

    Returns:
        How many staged records were corrected.
    """
    return persevering(session, lambda: _correct(session, mapping))


def _correct(session: Session, mapping: TableMapping) -> int:
    table = mapping.spec.name
    with session.connection(f"correct {table}") as conn:
        hold(conn, f"stage {table}")
        with conn.transaction():
            note_corrections(conn, table)
            if not _any(conn, table) or columns_of(conn, "migration", f"{table}_source") == {}:
                return 0
            applied = apply_corrections(conn, mapping)
            if applied:
                # What depends on the staged records is to be settled anew.
                conn.execute("update migration.exports set generation = default where entity = %s", (table,))
            failpoint("correct: before commit", conn)
        failpoint("correct: after commit", conn)
    return applied


def note_corrections(conn: Connection, table: str) -> None:
    """Notes the records that stand in quarantine otherwise than they were put there."""
    conn.execute(
        """
        insert into migration.corrections (entity, base44_id, original, corrected, run_id)
        select q.entity, q.base44_id, q.record_digest, q.record, q.run_id
          from migration.quarantine q
         where q.entity = %s and q.replayed_at is null and md5(jsonb_strip_nulls(q.record)::text) <> q.record_digest
           and jsonb_typeof(q.record) = 'object' and not q.record ? '_raw'
         order by q.id
        """,
        (table,),
    )
    conn.execute(
        """
        update migration.quarantine q
           set record_digest = md5(jsonb_strip_nulls(q.record)::text), base44_id = base44_trim(q.record ->> 'id')
         where q.entity = %s and q.replayed_at is null and md5(jsonb_strip_nulls(q.record)::text) <> q.record_digest
           and jsonb_typeof(q.record) = 'object' and not q.record ? '_raw'
        """,
        (table,),
    )


def _any(conn: Connection, table: str) -> bool:
    return scalar(conn, "select exists (select from migration.corrections where entity = %s)", (table,))


def apply_corrections(conn: Connection, mapping: TableMapping) -> int:
    """Changes the staged text of records that were corrected; a correction of a corrected record comes after it.

    Args:
        conn: In a transaction; the source view must be there.
        mapping: The entity's mapping.

    Returns:
        How many staged records were changed. The source view is of the staged columns as they are now.
    """
    table = mapping.spec.name
    if not _any(conn, table):
        return 0
    conn.execute(
        "create temporary table applied (record_number bigint primary key, last bigint not null) on commit drop"
    )
    conn.execute(
        "create temporary table due (record_number bigint primary key, correction bigint not null, corrected jsonb not null)"
        " on commit drop"
    )
    _take_in_refused(conn, mapping)
    while _find_due(conn, table):
        _write_due(conn, mapping)
        create_source_view(conn, mapping)
    changed = scalar(conn, "select count(*) from applied")
    conn.execute("drop table applied, due")
    if changed:
        mark_versions(conn, mapping, tuple(columns_of(conn, "base44", table)))
    return changed


def _find_due(conn: Connection, table: str) -> int:
    """Lists the corrections to make now: of each record the first that fits it and has not been made yet."""
    conn.execute("truncate due")
    return conn.execute(
        sql.SQL(
            """
            insert into due (record_number, correction, corrected)
            select distinct on (f.record_number) f.record_number, c.id, c.corrected
              from migration.{source} f
              join migration.corrections c on c.entity = {table} and coalesce(c.base44_id, '') = coalesce(f.base44_id, '')
              left join applied a on a.record_number = f.record_number
             where c.id > coalesce(a.last, 0) and c.original = {digest}
             order by f.record_number, c.id
            """
        ).format(
            source=sql.Identifier(f"{table}_source"),
            table=sql.Literal(table),
            digest=sql.SQL(_DIGEST).format(sql.SQL("f.record")),
        )
    ).rowcount


def _write_due(conn: Connection, mapping: TableMapping) -> None:
    """Makes the corrections that are due. A field that a correction leaves out is null."""
    table = mapping.spec.name
    names = _columns_for(conn, table)
    conn.execute(
        sql.SQL("update base44.{} s set {} from due d where s.{} = d.record_number").format(
            sql.Identifier(table),
            sql.SQL(", ").join(
                sql.SQL("{} = d.corrected ->> {}").format(sql.Identifier(column), sql.Literal(name))
                for name, column in names.items()
            ),
            sql.Identifier(RECORD_NUMBER),
        )
    )
    for field in mapping.html:
        if field in names:
            _sanitize_due(conn, table, names[field], CLEAN_PREFIX + field)
    conn.execute(
        "insert into applied (record_number, last) select record_number, correction from due"
        " on conflict (record_number) do update set last = excluded.last"
    )


def _columns_for(conn: Connection, table: str) -> dict[str, str]:
    """The staged column of each field, with columns made for fields that only corrections have."""
    fields = list(scalar(conn, "select fields from migration.exports where entity = %s", (table,)) or ())
    further = [
        row[0]
        for row in conn.execute("select distinct k from due, jsonb_object_keys(corrected) k order by k").fetchall()
        if row[0] not in fields
    ]
    names = column_names([*fields, *further])
    for name in further:
        conn.execute(
            sql.SQL("alter table base44.{} add column {} text").format(
                sql.Identifier(table), sql.Identifier(names[name])
            )
        )
    if further:
        conn.execute("update migration.exports set fields = fields || %s where entity = %s", (further, table))
    return names


def _sanitize_due(conn: Connection, table: str, column: str, clean: str) -> None:
    rows = conn.execute(
        sql.SQL("select s.{}, s.{} from base44.{} s join due d on d.record_number = s.{}").format(
            sql.Identifier(RECORD_NUMBER), sql.Identifier(column), sql.Identifier(table), sql.Identifier(RECORD_NUMBER)
        )
    ).fetchall()
    with conn.cursor() as cursor:
        cursor.executemany(
            sql.SQL("update base44.{} set {} = %s where {} = %s").format(
                sql.Identifier(table), sql.Identifier(clean), sql.Identifier(RECORD_NUMBER)
            ),
            [
                (safe if text is not None and (safe := sanitize(text)) != text else None, number)
                for number, text in rows
            ],
        )


def _take_in_refused(conn: Connection, mapping: TableMapping) -> None:
    """Records that could not be staged as exported, and can be as corrected."""
    table = mapping.spec.name
    taken = conn.execute(
        sql.SQL(
            """
            insert into due (record_number, correction, corrected)
            select distinct on (r.record_number) r.record_number, c.id, c.corrected
              from migration.refused r
              join migration.corrections c on c.entity = r.entity and c.original = {digest}
             where r.entity = {table}
             order by r.record_number, c.id
            """
        ).format(table=sql.Literal(table), digest=sql.SQL(_DIGEST).format(sql.SQL("r.record")))
    ).rowcount
    if not taken:
        return
    conn.execute(
        sql.SQL(
            "insert into base44.{table} ({number}, {file})"
            " select d.record_number, coalesce(e.source_file, '') from due d join migration.exports e on e.entity = {entity}"
        ).format(
            table=sql.Identifier(table),
            number=sql.Identifier(RECORD_NUMBER),
            file=sql.Identifier(SOURCE_FILE),
            entity=sql.Literal(table),
        )
    )
    conn.execute(
        "delete from migration.refused r using due d where r.entity = %s and r.record_number = d.record_number",
        (table,),
    )
    conn.execute(
        "update migration.exports e set refused = (select count(*) from migration.refused r where r.entity = e.entity)"
        " where e.entity = %s",
        (table,),
    )
    _write_due(conn, mapping)
    create_source_view(conn, mapping)
