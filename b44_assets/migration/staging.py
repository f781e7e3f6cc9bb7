"""An export's file into `base44.<table>`, text as it came.

What belongs here: whether a file is to be read, and noting it in `migration.exports`. What does not: filling the table
(`staged_table`), and judging a record beyond whether PostgreSQL can hold its text.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Set
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
from psycopg import Cursor, sql
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from b44_assets.catalog import Catalog, TableMapping
from b44_assets.errors import FieldClashError
from b44_assets.exports import ENDS_WITHIN, NOT_CLOSED, Batch, ExportFile, IdWatch, Refused, discover
from b44_assets.failpoints import failpoint
from b44_assets.migration.html import CLEANING
from b44_assets.migration.misspelt_entities import file_hint
from b44_assets.migration.other_apps import of_another_app
from b44_assets.migration.sources import (
    create_source_view,
    staged_is_gone,
)
from b44_assets.migration.staged_table import whole_records, write_staged_table
from b44_assets.migration.whole_files import opened_whole, reading_whole
from b44_assets.session import Connection, Session, absent_relations, scalar, take_advisory_lock, with_retry

_Resolve = Callable[[Connection], None]


@dataclass(frozen=True)
class StagedExport:
    """What was staged for one entity.

    Attributes:
        entity: The target table.
        file: The file's name; None where the export has none.
        dialect: How it was read; `absent` without a file, `table` where it came from a table `base44_<table>` of the database.
        records: Records in the file.
        refused: Records that could not be staged, by reason.
        oddities: What was strange about the file, with how often.
        fields: The exported fields.
        changed: False where the same file had been staged before and nothing was done.
        hint: Where the export has no file: what to add about a file whose name may be the misspelt one.
        other_app: Where its file is taken for that of another app, and left out: why, in one line.
    """

    entity: str
    file: str | None
    dialect: str
    records: int
    refused: dict[str, int] = field(default_factory=dict[str, int])
    oddities: dict[str, int] = field(default_factory=dict[str, int])
    fields: tuple[str, ...] = ()
    changed: bool = True
    hint: str = ""
    other_app: str = ""

    def warning(self, mapping: TableMapping) -> str:
        """What a person should know of it; empty where all is well."""
        if self.other_app:
            return f"{self.other_app} {self.entity} stays without migrated rows"
        if self.dialect == "absent":
            return f"the export has no file for {mapping.entity}; {self.entity} stays without migrated rows{self.hint}"
        if not self.oddities.keys().isdisjoint((ENDS_WITHIN, NOT_CLOSED)):
            return (
                f"{self.file} ends within {'its last record' if ENDS_WITHIN in self.oddities else 'its list of records'}, as half a"
                f" download does: compare its size with the original; where it is shorter, export {mapping.entity} again"
                " and run the same command"
            )
        return ""


def hand_staged(conn: Connection, catalog: Catalog) -> tuple[str, ...]:
    """The tables of a database that an export was staged into by hand, such as `base44_users`."""
    names = [_hand_staged_table(table) for table in catalog.mappings]
    absent = absent_relations(conn, names)
    return tuple(name for name in names if name not in absent)


def _hand_staged_table(table: str) -> str:
    return f"base44_{table}"


def stage(session: Session, mapping: TableMapping, directory: Path | None, resolve: _Resolve) -> StagedExport:
    """Stages the file of one entity, unless the same file was staged before.

    All or nothing: an interruption leaves what was staged before.

    Args:
        session: The run.
        mapping: The entity's mapping.
        directory: The export's folder. None looks for a table `base44_<table>` in the database, and otherwise
            leaves what was staged before: no folder is no order to forget one.
        resolve: What is to be done with newly staged records in the same transaction.

    Raises:
        ExportError: The folder or the file cannot be read.
    """
    return with_retry(session, lambda: _stage(session, mapping, directory, resolve))


def _stage(session: Session, mapping: TableMapping, directory: Path | None, resolve: _Resolve) -> StagedExport:
    table = mapping.spec.name
    files = discover(directory, session.catalog.entities) if directory else ()
    file = next((one for one in files if one.entity == mapping.entity), None)
    other_app = ""
    if file is not None and (other := of_another_app(mapping, file)) is not None:
        file, other_app = None, other.message()
    with session.connection(f"stage {table}", idles=True) as conn:
        take_advisory_lock(conn, f"stage {table}")
        if file is not None:
            return reading_whole(session, lambda: _stage_recognized(session, conn, mapping, file, resolve))
        by_hand = _hand_staged_table(table)
        if not absent_relations(conn, [by_hand]):
            return _stage_table(session, conn, mapping, by_hand, resolve)
        if directory is None and (existing := _existing(conn, mapping)) is not None:
            return existing
        hint = "" if other_app else file_hint(session.catalog, mapping, files)
        return replace(_stage_nothing(session, conn, mapping, resolve), hint=hint, other_app=other_app)


def _stage_recognized(
    session: Session, conn: Connection, mapping: TableMapping, file: ExportFile, resolve: _Resolve
) -> StagedExport:
    """Stage a file; from the beginning where two of its fields turn out to be meant by one name, which neither then has."""
    apart: set[str] = set()
    while True:
        try:
            return _stage_file(session, conn, mapping, file, apart, resolve)
        except FieldClashError as clash:
            if clash.field in apart:
                raise
            apart.add(clash.field)


def _stage_file(
    session: Session, conn: Connection, mapping: TableMapping, file: ExportFile, apart: Set[str], resolve: _Resolve
) -> StagedExport:
    table = mapping.spec.name
    refused: list[Refused] = []
    with opened_whole(file, [name for item in mapping.fields for name in item.spellings], apart) as reader:
        known = conn.execute("select digest, bytes from migration.exports where entity = %s", (table,)).fetchone()
        # Only the content tells: a file may be changed and keep its size and its time.
        if known is not None and known[1] == reader.size and (digest := reader.digest_of_all()) == known[0]:
            reader.require_unchanged()
            if (same := _staged_before(session, conn, mapping, digest)) is not None:
                return same

        def watched() -> Iterator[Batch]:
            for batch in reader.batches(whole_records(session, mapping, reader.fields)):
                yield batch
                session.progress(f"base44/{table}", reader.bytes_read, reader.size)

        with conn.transaction():
            records, fields = write_staged_table(
                session, conn, mapping, file.path.name, reader.fields, watched(), refused
            )
            _note(
                session,
                conn,
                mapping,
                file.path.name,
                reader.dialect.name,
                reader.size,
                reader.digest,
                reader.modified_at,
                fields,
                records,
                refused,
                dict(reader.oddities),
            )
            resolve(conn)
            failpoint("stage: before commit", conn)
            reader.require_unchanged()
        failpoint("stage: after commit", conn)
    return StagedExport(
        table, file.path.name, reader.dialect.name, records, _by_reason(refused), dict(reader.oddities), fields
    )


def _stage_table(
    session: Session, conn: Connection, mapping: TableMapping, source: str, resolve: _Resolve
) -> StagedExport:
    """From a table `base44_<table>` of the same database: every value as text."""
    table = mapping.spec.name
    # Read on a connection of its own, as the other one is copying meanwhile; digest and rows are of one moment.
    with session.connection(f"read {source}", idles=True) as reading, reading.transaction(), conn.transaction():
        reading.execute("set transaction isolation level repeatable read read only")
        # A table has no digest of its own; its content, in any order, has.
        digest = str(
            scalar(
                reading,
                sql.SQL(
                    "select 'rows ' || count(*) || ' ' || coalesce(sum(hashtextextended((t.*)::text, 0)::numeric), 0) from {} t"
                ).format(sql.Identifier(source)),
            )
        )
        if (same := _staged_before(session, conn, mapping, digest)) is not None:
            return same
        types = reading.execute(
            "select attname, atttypid::regtype::text from pg_attribute"
            " where attrelid = to_regclass(%s) and attnum > 0 and not attisdropped order by attnum",
            (source,),
        ).fetchall()
        fields = tuple(name for name, _ in types)
        selected = sql.SQL(", ").join(
            sql.SQL("to_json({})::text").format(sql.Identifier(name))
            if kind.endswith("[]")
            else sql.SQL("{}::text").format(sql.Identifier(name))
            for name, kind in types
        )
        refused: list[Refused] = []
        with reading.cursor(name="b44_source") as rows:
            rows.itersize = 5_000
            rows.execute(sql.SQL("select {} from {} order by 1").format(selected, sql.Identifier(source)))
            watch = IdWatch(f"table {source}", [name for item in mapping.fields for name in item.spellings])
            batches = _batches_of(rows, fields, watch)
            records, fields = write_staged_table(session, conn, mapping, source, fields, batches, refused)
        exported_at = scalar(conn, "select now()")
        _note(session, conn, mapping, source, "table", 0, digest, exported_at, fields, records, refused, {})
        resolve(conn)
    return StagedExport(table, source, "table", records, {}, {}, fields)


def _stage_nothing(session: Session, conn: Connection, mapping: TableMapping, resolve: _Resolve) -> StagedExport:
    table = mapping.spec.name
    if (same := _staged_before(session, conn, mapping, "absent")) is not None:
        return same
    with conn.transaction():
        write_staged_table(session, conn, mapping, "", (), (), [])
        _note(session, conn, mapping, None, "absent", 0, "absent", datetime.fromtimestamp(0, UTC), (), 0, [], {})
        resolve(conn)
    return StagedExport(table, None, "absent", 0)


def _batches_of(rows: Cursor[TupleRow], fields: tuple[str, ...], watch: IdWatch) -> Iterator[Batch]:
    first = 1
    id_at = fields.index("id") if "id" in fields else None
    while chunk := rows.fetchmany(5_000):
        columns = {name: pa.array([row[i] for row in chunk], pa.string()) for i, name in enumerate(fields)}
        watch.see(() if id_at is None else (row[id_at] for row in chunk), len(chunk))
        yield Batch(list(range(first, first + len(chunk))), pa.table(columns), ())
        first += len(chunk)
    watch.require(fields)


def _staged_before(session: Session, conn: Connection, mapping: TableMapping, digest: str) -> StagedExport | None:
    """What was staged before if it is this very export, cleaned by these rules, and the staged rows are still there."""
    known = conn.execute(
        "select digest, cleaning from migration.exports where entity = %s", (mapping.spec.name,)
    ).fetchone()
    return _existing(conn, mapping) if known == (digest, _cleaning(session, mapping)) else None


def _cleaning(session: Session, mapping: TableMapping) -> str | None:
    """By which rules the fields are cleaned that are named as `html`; None where there are none."""
    return f"{session.content_format} {CLEANING}" if mapping.html else None


def _existing(conn: Connection, mapping: TableMapping) -> StagedExport | None:
    """What is staged now; None where that is nothing, or gone (the table is unlogged: a crash empties it)."""
    table = mapping.spec.name
    row = conn.execute(
        "select source_file, dialect, records, oddities, fields from migration.exports where entity = %s",
        (table,),
    ).fetchone()
    if row is None or scalar(conn, "select to_regclass(%s)", (f"base44.{table}",)) is None:
        return None
    name, dialect, records, oddities, fields = row
    if staged_is_gone(conn, table):
        return None
    # The views hold the mapping's fields, which may have changed since.
    with conn.transaction():
        create_source_view(conn, mapping)
    reasons = dict(
        conn.execute(
            "select reason, count(*) from migration.refused where entity = %s group by reason", (table,)
        ).fetchall()
    )
    return StagedExport(table, name, dialect, records, reasons, oddities, tuple(fields), changed=False)


def _by_reason(refused: list[Refused]) -> dict[str, int]:
    counts: dict[str, int] = {}
    for record in refused:
        counts[record.reason] = counts.get(record.reason, 0) + 1
    return counts


def _note(
    session: Session,
    conn: Connection,
    mapping: TableMapping,
    source: str | None,
    dialect: str,
    size: int,
    digest: str,
    exported_at: datetime,
    fields: tuple[str, ...],
    records: int,
    refused: list[Refused],
    oddities: dict[str, int],
) -> None:
    table = mapping.spec.name
    conn.execute("delete from migration.exports where entity = %s", (table,))
    conn.execute(
        "insert into migration.exports (entity, source_entity, source_file, dialect, bytes, digest, exported_at, fields,"
        " records, refused, oddities, cleaning, run_id) values (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
        (
            table,
            mapping.entity,
            source,
            dialect,
            size,
            digest,
            exported_at,
            list(fields),
            records,
            len(refused),
            Jsonb(oddities),
            _cleaning(session, mapping),
            session.run_id,
        ),
    )
    with conn.cursor() as cursor:
        cursor.executemany(
            "insert into migration.refused (entity, record_number, reason, record) values (%s, %s, %s, %s)",
            [(table, r.record_number, r.reason, Jsonb(r.record)) for r in refused],
        )
