"""Records of the quarantine that somebody has corrected there, read as corrected from then on.

A correction is noted by what the record was, so that it also holds for a newer export with the same record in it, and
for the same file staged anew. What belongs here: finding corrections and applying them to the staged text. What does
not: judging the corrected record, which the mapping does as with any other.
"""

from __future__ import annotations

from typing import Final

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.config.quantities import ContentFormat
from b44_assets.failpoints import failpoint
from b44_assets.migration.html import sanitize
from b44_assets.migration.sources import (
    CLEAN_PREFIX,
    MORE_FIELDS,
    RECORD_NUMBER,
    SOURCE_FILE,
    column_names,
    create_source_view,
    staged_is_gone,
    with_columns,
)
from b44_assets.migration.versions import resolve_versions
from b44_assets.session import Connection, Session, columns_of, scalar, take_advisory_lock, with_retry

DIGEST: Final = sql.SQL("md5(jsonb_strip_nulls({})::text)")
"""What tells a record from another."""
_AS_TEXT: Final = sql.SQL("select coalesce(jsonb_object_agg(key, value), '{{}}') from jsonb_each_text({})")
"""A record with text for every value, as exported."""
QUARANTINED_AS_TEXT: Final = _AS_TEXT.format(sql.SQL("case jsonb_typeof(q.record) when 'object' then q.record end"))
"""The same of a row `q` of the quarantine; no record where it is not one."""


def correct(session: Session, mapping: TableMapping) -> int:
    """Applies what was corrected in quarantine since to the staged records.

    All or nothing; running it again changes nothing.

    Args:
        session: The run.
        mapping: The entity's mapping.

    Returns:
        How many staged records were corrected.
    """
    return with_retry(session, lambda: _correct(session, mapping))


def _correct(session: Session, mapping: TableMapping) -> int:
    table = mapping.spec.name
    with session.connection(f"correct {table}") as conn:
        take_advisory_lock(conn, f"stage {table}")
        with conn.transaction():
            note_corrections(conn, table)
            if not _any(conn, table) or columns_of(conn, "migration", f"{table}_source") == {}:
                return 0
            # Else what is taken in would stand there as if it were the export.
            if staged_is_gone(conn, table):
                return 0
            applied = apply_corrections(conn, mapping, session.content_format)
            if applied:
                # What depends on the staged records is to be planned anew.
                conn.execute("update migration.exports set generation = default where entity = %s", (table,))
            failpoint("correct: before commit", conn)
        failpoint("correct: after commit", conn)
    return applied


def note_corrections(conn: Connection, table: str) -> None:
    """Notes the records that stand in quarantine otherwise than they were put there, as text like all that is exported.

    The last word counts: what was said of the same record before, and of what it is now to be read as, is forgotten. So
    corrections never go round in a circle, and each leads on only to later ones.
    """
    conn.execute(
        sql.SQL(
            """
            with edited as materialized (
              select q.id, q.entity, q.base44_id, q.record_digest, q.run_id, became.record,
                     {digest} as digest, b44.trim(became.record ->> 'id') as new_id
                from migration.quarantine q
               cross join lateral ({text}) became (record)
               where q.entity = {entity} and q.replayed_at is null and {stands} <> q.record_digest
                 and jsonb_typeof(q.record) = 'object' and not q.record ? '_raw'
            ),
            overruled as (
              delete from migration.corrections c
               using edited e
               where c.entity = e.entity and e.digest <> e.record_digest
                 and (c.original = e.record_digest and coalesce(c.base44_id, '') = coalesce(e.base44_id, '')
                      or c.original = e.digest and coalesce(c.base44_id, '') = coalesce(e.new_id, ''))
            ),
            noted as (
              insert into migration.corrections (entity, base44_id, original, corrected, run_id)
              select entity, base44_id, record_digest, record, run_id
                from (select distinct on (base44_id, record_digest) *
                        from edited
                       where digest <> record_digest
                       order by base44_id, record_digest, id desc) last
               order by id
            )
            update migration.quarantine q
               set record = e.record, record_digest = e.digest, base44_id = e.new_id
              from edited e
             where q.id = e.id
            """
        ).format(
            entity=sql.Literal(table),
            text=QUARANTINED_AS_TEXT,
            digest=DIGEST.format(sql.SQL("became.record")),
            stands=DIGEST.format(sql.SQL("q.record")),
        )
    )


def show_corrected(conn: Connection, table: str) -> None:
    """Shows what the plan has refused as it is to be read, where it was not staged so yet: not to be corrected again.

    Args:
        conn: In a transaction.
        table: The entity's table.
    """
    conn.execute(
        sql.SQL(
            """
            update migration.quarantine q
               set record = c.record, record_digest = {digest}, base44_id = b44.trim(c.record ->> 'id')
              from ({corrected}) c
             where q.id = c.key
            """
        ).format(
            digest=DIGEST.format(sql.SQL("c.record")),
            corrected=_corrected(
                table,
                sql.SQL(
                    "select id, base44_id, record, record_digest from migration.quarantine"
                    " where entity = {entity}"
                    " and generation = (select n.generation from migration.plans n where n.entity = {entity})"
                ).format(entity=sql.Literal(table)),
            ),
        )
    )


def _corrected(table: str, records: sql.Composable) -> sql.Composed:
    """Of some records those that are to be read otherwise, after all corrections that were made to them.

    Args:
        table: The entity's table.
        records: A query: a key, the id, the record and its digest.

    Returns:
        A query: `key`, `record`.
    """
    return sql.SQL(
        """
        select e.key, became.record
          from (select *
                  from ({records}) r (key, base44_id, record, digest)
                 where digest in (select original from migration.corrections where entity = {table})
                -- First, as what follows costs a query for each.
                offset 0) e
         cross join lateral (
           with recursive corrected (record, base44_id, last) as (
             select e.record, e.base44_id, 0::bigint
             union all
             select following.record, b44.trim(following.record ->> 'id'), following.id
               from corrected
              cross join lateral (
                select c.id, ({text}) as record
                  from migration.corrections c
                 where c.entity = {table} and c.original = {digest}
                   and coalesce(c.base44_id, '') = coalesce(corrected.base44_id, '') and c.id > corrected.last
                 order by c.id
                 limit 1) following
           )
           select record from corrected order by last desc limit 1) became
         where {becomes} <> e.digest
        """
    ).format(
        records=records,
        table=sql.Literal(table),
        text=_AS_TEXT.format(sql.SQL("c.corrected")),
        digest=DIGEST.format(sql.SQL("corrected.record")),
        becomes=DIGEST.format(sql.SQL("became.record")),
    )


def _any(conn: Connection, table: str) -> bool:
    return scalar(conn, "select exists (select from migration.corrections where entity = %s)", (table,))


def apply_corrections(conn: Connection, mapping: TableMapping, form: ContentFormat) -> int:
    """Changes the staged text of records that were corrected.

    Args:
        conn: In a transaction; the source view must be there.
        mapping: The entity's mapping.
        form: What the fields are that it names as `html`.

    Returns:
        How many staged records were changed. The source view is of the staged columns as they are now.
    """
    table = mapping.spec.name
    if not _any(conn, table):
        return 0
    conn.execute(
        "create temporary table due (record_number bigint primary key, corrected jsonb not null) on commit drop"
    )
    _show_repeats(conn, table)
    changed = _find_due(conn, table)
    if not changed:
        conn.execute("insert into migration.versions select * from repeats")
    else:
        _take_in_refused(conn, table)
        _write_due(conn, mapping, form)
        create_source_view(conn, mapping)
        resolve_versions(conn, mapping)
    conn.execute("drop table due, repeats")
    return changed


def _show_repeats(conn: Connection, table: str) -> None:
    """Lets the source view show repeats of other records, which are to be corrected as these are; `repeats` says which they were."""
    conn.execute(
        sql.SQL(
            "create temporary table repeats on commit drop as select * from migration.versions where entity = {} and repeated"
        ).format(sql.Literal(table))
    )
    conn.execute("delete from migration.versions where entity = %s and repeated", (table,))


def _find_due(conn: Connection, table: str) -> int:
    """Lists the records that are to be read otherwise, those included that could not be staged as exported."""
    # By the id first: the digest of every staged record would take as long as to plan them.
    records = sql.SQL(
        """
        select record_number, base44_id, record, {digest} from migration.{source}
         where coalesce(base44_id, '') in (select coalesce(base44_id, '') from migration.corrections where entity = {table})
        union all
        select record_number, b44.trim(record ->> 'id'), record, {digest} from migration.refused where entity = {table}
        """
    ).format(
        digest=DIGEST.format(sql.SQL("record")),
        source=sql.Identifier(f"{table}_source"),
        table=sql.Literal(table),
    )
    return conn.execute(
        sql.SQL("insert into due (record_number, corrected) {}").format(_corrected(table, records))
    ).rowcount


def _write_due(conn: Connection, mapping: TableMapping, form: ContentFormat) -> None:
    """Makes the corrections that are due. A field that a correction leaves out is null."""
    table = mapping.spec.name
    names = _columns_for(conn, mapping)
    conn.execute(
        sql.SQL("update base44.{} s set {} from due d where s.{} = d.record_number").format(
            sql.Identifier(table),
            sql.SQL(", ").join(
                [
                    *(
                        sql.SQL("{} = d.corrected ->> {}").format(sql.Identifier(column), sql.Literal(name))
                        for name, column in names.items()
                    ),
                    *(
                        sql.SQL("{} = nullif(jsonb_strip_nulls(d.corrected - {}::text[]), '{{}}')").format(
                            sql.Identifier(name), sql.Literal(list(names))
                        )
                        for name in columns_of(conn, "base44", table)
                        if name == MORE_FIELDS
                    ),
                ]
            ),
            sql.Identifier(RECORD_NUMBER),
        )
    )
    for field in mapping.html:
        if field in names:
            _sanitize_due(conn, table, names[field], CLEAN_PREFIX + field, form)


def _columns_for(conn: Connection, mapping: TableMapping) -> dict[str, str]:
    """The staged column of each field that has one, with columns made for fields that only corrections have."""
    table = mapping.spec.name
    fields = list(scalar(conn, "select fields from migration.exports where entity = %s", (table,)) or ())
    further = [
        row[0]
        for row in conn.execute("select distinct k from due, jsonb_object_keys(corrected) k order by k").fetchall()
        if row[0] not in fields
    ]
    staged = columns_of(conn, "base44", table)
    placed = with_columns([*fields, *further], mapping)
    names = {
        name: column
        for name, column in column_names([*fields, *further]).items()
        if column in staged or (name in further and name in placed)
    }
    added = [sql.SQL("{} text").format(sql.Identifier(names[name])) for name in further if name in names]
    if len(names) < len(fields) + len(further):
        added.append(sql.SQL("{} jsonb").format(sql.Identifier(MORE_FIELDS)))
    for column in added:
        conn.execute(sql.SQL("alter table base44.{} add column if not exists {}").format(sql.Identifier(table), column))
    if further:
        conn.execute("update migration.exports set fields = fields || %s where entity = %s", (further, table))
    return names


def _sanitize_due(conn: Connection, table: str, column: str, clean: str, form: ContentFormat) -> None:
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
                (safe if text is not None and (safe := sanitize(text, form)) != text else None, number)
                for number, text in rows
            ],
        )


def _take_in_refused(conn: Connection, table: str) -> None:
    """Stages what could not be staged as exported, and can be as corrected; its values are written with those of others."""
    taken = conn.execute(
        sql.SQL(
            """
            with taken as (
              delete from migration.refused r using due d
               where r.entity = {entity} and r.record_number = d.record_number
              returning r.record_number)
            insert into base44.{table} ({number}, {file})
            select t.record_number, coalesce(e.source_file, '')
              from taken t
              join migration.exports e on e.entity = {entity}
            """
        ).format(
            table=sql.Identifier(table),
            number=sql.Identifier(RECORD_NUMBER),
            file=sql.Identifier(SOURCE_FILE),
            entity=sql.Literal(table),
        )
    ).rowcount
    if taken:
        conn.execute("update migration.exports set refused = refused - %s where entity = %s", (taken, table))
