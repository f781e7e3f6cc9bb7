"""An export's file into `base44.<table>`, text as it came.

What belongs here: writing what `exports` reads, and noting it in `migration.exports`. What does not: judging a record
beyond whether PostgreSQL can hold its text.
"""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence, Set
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypeVar

import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import Cursor, sql
from psycopg.copy import QueuedLibpqWriter
from psycopg.rows import TupleRow
from psycopg.types.json import Jsonb

from b44_assets.catalog import TableMapping
from b44_assets.errors import ExportChangedError, ExportError, FieldClashError
from b44_assets.exports import Batch, ExportFile, ExportReader, IdWatch, Refused, discover, open_export
from b44_assets.failpoints import failpoint
from b44_assets.migration.corrections import apply_corrections, note_corrections
from b44_assets.migration.html import CLEANING, sanitized_column
from b44_assets.migration.misspelt_entities import file_hint
from b44_assets.migration.sources import (
    CLEAN_PREFIX,
    MORE_FIELDS,
    RECORD_NUMBER,
    SOURCE_FILE,
    column_names,
    create_source_view,
    drop_source_view,
    mark_versions,
    staged_is_gone,
    with_columns,
)
from b44_assets.session import Connection, Session, columns_of, scalar, take_advisory_lock, with_retry

_THROTTLED_PIECE = 64 * 2**10
"""Bytes that a throttled staging sends at a time."""
_THROTTLED_BYTES_A_SECOND = 4 * 2**20
"""How fast it sends them. At full speed, some 24 MiB a second, one in eight statements beside it waited for the disk
(benchmarks/foreground.py)."""


_READINGS: Final = 3
"""How often a file is read that changes meanwhile."""
_SECONDS_BETWEEN_READINGS: Final = 1.0

T = TypeVar("T")


@dataclass(frozen=True)
class StagedExport:
    """What was staged for one entity.

    Attributes:
        entity: The target table.
        file: The file's name; None where the export has none.
        dialect: How it was read; `absent` without a file, `table` where it came from a table of the guide's name.
        records: Records in the file.
        refused: Records that could not be staged, by reason.
        oddities: What was strange about the file, with how often.
        fields: The exported fields.
        changed: False where the same file had been staged before and nothing was done.
        hint: Where the export has no file: what to add about a file whose name may be the misspelt one.
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


def stage(session: Session, mapping: TableMapping, directory: Path | None) -> StagedExport:
    """Stages the file of one entity, unless the same file was staged before.

    All or nothing: an interruption leaves what was staged before.

    Args:
        session: The run.
        mapping: The entity's mapping.
        directory: The export's folder. None looks for a table of the guide's name (`base44_users`, …), and otherwise
            leaves what was staged before: no folder is no order to forget one.

    Raises:
        ExportError: The folder or the file cannot be read.
    """
    return with_retry(session, lambda: _stage(session, mapping, directory))


def _stage(session: Session, mapping: TableMapping, directory: Path | None) -> StagedExport:
    table = mapping.spec.name
    files = discover(directory, session.catalog.entities) if directory else ()
    file = next((one for one in files if one.entity == mapping.entity), None)
    with session.connection(f"stage {table}", idles=True) as conn:
        take_advisory_lock(conn, f"stage {table}")
        if file is not None:
            return reading_whole(session, lambda: _stage_recognised(session, conn, mapping, file))
        if scalar(conn, "select to_regclass(%s)", (f"base44_{table}",)) is not None:
            return _stage_table(session, conn, mapping, f"base44_{table}")
        if directory is None and (existing := _existing(conn, mapping)) is not None:
            return existing
        return replace(_stage_nothing(session, conn, mapping), hint=file_hint(session.catalog, mapping, files))


def reading_whole(session: Session, read: Callable[[], T]) -> T:
    """Read a file of the export, and again where it changed meanwhile.

    Raises:
        ExportError: It cannot be read, or changed each time.
    """
    for reading in range(2, _READINGS + 1):
        try:
            return read()
        except ExportChangedError as error:
            session.notice(f"{error}; reading it again ({reading} of {_READINGS})")
            session.sleep(_SECONDS_BETWEEN_READINGS)
    try:
        return read()
    except ExportChangedError as error:
        raise ExportError(f"{error}; run this again once it is written") from error


@contextmanager
def opened_whole(file: ExportFile, known: Sequence[str] = (), apart: Set[str] = frozenset()) -> Generator[ExportReader]:
    """Open a file of the export for a block, at the end of which it must still be the same; `known` and `apart` as for `open_export`.

    Raises:
        ExportChangedError: It is not.
        ExportError: It cannot be read.
    """
    with open_export(file, known=known, apart=apart) as reader:
        try:
            yield reader
        except ExportError:
            # Half of a file may look damaged.
            reader.require_unchanged()
            raise


def _stage_recognised(session: Session, conn: Connection, mapping: TableMapping, file: ExportFile) -> StagedExport:
    """Stage a file; from the beginning where two of its fields turn out to be meant by one name, which neither then has."""
    apart: set[str] = set()
    while True:
        try:
            return _stage_file(session, conn, mapping, file, apart)
        except FieldClashError as clash:
            if clash.field in apart:
                raise
            apart.add(clash.field)


def _stage_file(
    session: Session, conn: Connection, mapping: TableMapping, file: ExportFile, apart: Set[str]
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
            for batch in reader.batches():
                yield batch
                session.progress(f"base44/{table}", reader.bytes_read, reader.size)

        with conn.transaction():
            records, fields = _write(session, conn, mapping, file.path.name, reader.fields, watched(), refused)
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
            failpoint("stage: before commit", conn)
            reader.require_unchanged()
        failpoint("stage: after commit", conn)
    return StagedExport(
        table, file.path.name, reader.dialect.name, records, _by_reason(refused), dict(reader.oddities), fields
    )


def _stage_table(session: Session, conn: Connection, mapping: TableMapping, source: str) -> StagedExport:
    """From a table of the guide's name in the same database: every value as text."""
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
            records, fields = _write(session, conn, mapping, source, fields, batches, refused)
        exported_at = scalar(conn, "select now()")
        _note(session, conn, mapping, source, "table", 0, digest, exported_at, fields, records, refused, {})
    return StagedExport(table, source, "table", records, {}, {}, fields)


def _stage_nothing(session: Session, conn: Connection, mapping: TableMapping) -> StagedExport:
    table = mapping.spec.name
    if (same := _staged_before(session, conn, mapping, "absent")) is not None:
        return same
    with conn.transaction():
        _write(session, conn, mapping, "", (), (), [])
        _note(session, conn, mapping, None, "absent", 0, "absent", datetime.fromtimestamp(0, UTC), (), 0, [], {})
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
    """What stands in the books if it is this very export, cleaned by these rules, and the staged rows are still there."""
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


def _write(
    session: Session,
    conn: Connection,
    mapping: TableMapping,
    source: str,
    fields: tuple[str, ...],
    batches: Iterable[Batch],
    refused: list[Refused],
) -> tuple[int, tuple[str, ...]]:
    """Makes `base44.<table>` anew and fills it. Returns the number of records, and the fields in the end."""
    table = mapping.spec.name
    note_corrections(conn, table)
    drop_source_view(conn, table)
    conn.execute(sql.SQL("drop table if exists base44.{}").format(sql.Identifier(table)))
    own = sql.SQL(", ").join(
        [
            sql.SQL("{} bigint not null").format(sql.Identifier(RECORD_NUMBER)),
            sql.SQL("{} text not null default {}").format(sql.Identifier(SOURCE_FILE), sql.Literal(source)),
            *(sql.SQL("{} text").format(sql.Identifier(CLEAN_PREFIX + name)) for name in mapping.html),
        ]
    )
    names = _names(fields, mapping)
    listed = sql.SQL("").join(sql.SQL("{} text, ").format(sql.Identifier(column)) for column in names.values())
    # Unlogged: the file itself is the safe copy, and staging costs half. A crash empties the table; the next run sees it.
    conn.execute(
        sql.SQL("create unlogged table base44.{} ({}{}) with (autovacuum_enabled = false)").format(
            sql.Identifier(table), listed, own
        )
    )
    records, known = 0, set(fields)
    if len(names) < len(fields):
        _add_more_fields(conn, table)
    with _copying(session, conn) as write:
        for batch in batches:
            further = [name for name in batch.columns.schema.names if name not in known]
            if further:
                known.update(further)
                fields = (*fields, *further)
                grown = _names(fields, mapping)
                if len(grown) < len(fields):
                    write.finish()
                    _add_more_fields(conn, table)
                for name in further:
                    if name in grown:
                        write.finish()
                        conn.execute(
                            sql.SQL("alter table base44.{} add column {} text").format(
                                sql.Identifier(table), sql.Identifier(grown[name])
                            )
                        )
                names = grown
            refused.extend(batch.refused)
            records += len(batch.record_numbers) + len(batch.refused)
            write.batch(table, mapping, names, batch)
            failpoint("stage: between blocks", conn)
    failpoint("stage: staged", conn)
    conn.execute(
        sql.SQL("alter table base44.{} add primary key ({})").format(
            sql.Identifier(table), sql.Identifier(RECORD_NUMBER)
        )
    )
    for name, column in names.items():
        conn.execute(
            sql.SQL("comment on column base44.{}.{} is {}").format(
                sql.Identifier(table), sql.Identifier(column), sql.Literal(f"Exported as: {name}")
            )
        )
    return records, fields


def _add_more_fields(conn: Connection, table: str) -> None:
    """Makes the column for fields without one; most exports have none of these."""
    conn.execute(
        sql.SQL("alter table base44.{} add column if not exists {} jsonb").format(
            sql.Identifier(table), sql.Identifier(MORE_FIELDS)
        )
    )


def _names(fields: tuple[str, ...], mapping: TableMapping) -> dict[str, str]:
    """The column of each field that has one; the others stand together in `MORE_FIELDS`."""
    placed = with_columns(fields, mapping)
    return column_names(name for name in fields if name in placed)


def _more_fields(columns: pa.RecordBatch, names: Sequence[str]) -> Any:
    """The values of some fields as JSON, one object a record; null for a record that has none of them."""
    records: list[dict[str, Any]] = [{} for _ in range(columns.num_rows)]
    for name in names:
        for place, value in enumerate(columns.column(name).to_pylist()):
            if value is not None:
                records[place][name] = value
    return pa.array([json.dumps(record, ensure_ascii=False) if record else None for record in records], pa.string())


class _Copy:
    """COPY in CSV, which Arrow writes and PostgreSQL reads without a Python object for each value."""

    def __init__(self, session: Session, conn: Connection) -> None:
        self._session = session
        self._conn = conn
        self._columns: tuple[str, ...] | None = None
        self._stack: Any = None
        self._copy: Any = None

    def batch(self, table: str, mapping: TableMapping, names: dict[str, str], batch: Batch) -> None:
        if not batch.record_numbers:
            return
        present: list[str] = batch.columns.schema.names
        columns: dict[str, Any] = {names[name]: batch.columns[name] for name in present if name in names}
        if further := [name for name in present if name not in names]:
            columns[MORE_FIELDS] = _more_fields(batch.columns, further)
        for name in mapping.html:
            if name in names and names[name] in columns:
                columns[CLEAN_PREFIX + name] = sanitized_column(
                    columns[names[name]].combine_chunks()
                    if isinstance(columns[names[name]], pa.ChunkedArray)
                    else columns[names[name]],
                    self._session.content_format,
                )
        columns[RECORD_NUMBER] = pa.array(batch.record_numbers, pa.int64())
        if tuple(columns) != self._columns:
            self.finish()
            self._columns = tuple(columns)
            cursor = self._conn.cursor()
            # Frozen, as the table is of this transaction: no reader has to mark the rows, and a count reads the index alone.
            self._stack = cursor.copy(
                sql.SQL("copy base44.{} ({}) from stdin (format csv, freeze)").format(
                    sql.Identifier(table), sql.SQL(", ").join(map(sql.Identifier, self._columns))
                ),
                writer=QueuedLibpqWriter(cursor),
            )  # the server reads while the next batch is parsed
            self._copy = self._stack.__enter__()
        buffer = io.BytesIO()
        pa_csv.write_csv(
            pa.table(columns), buffer, pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")
        )
        self._send(buffer.getbuffer())

    def _send(self, text: memoryview) -> None:
        """Where an application is in use, little by little, so that its commits find the disk free."""
        if not self._session.throttled:
            self._copy.write(text)
            return
        for start in range(0, len(text), _THROTTLED_PIECE):
            piece = text[start : start + _THROTTLED_PIECE]
            self._copy.write(piece)
            self._session.sleep(len(piece) / _THROTTLED_BYTES_A_SECOND)

    def finish(self, error: BaseException | None = None) -> None:
        if self._stack is not None:
            stack, self._stack, self._columns = self._stack, None, None
            stack.__exit__(type(error) if error else None, error, None)


@contextmanager
def _copying(session: Session, conn: Connection) -> Generator[_Copy]:
    copy = _Copy(session, conn)
    try:
        yield copy
    except BaseException as error:
        copy.finish(error)
        raise
    copy.finish()


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
    mark_versions(conn, mapping, tuple(columns_of(conn, "base44", table)))
    create_source_view(conn, mapping)
    apply_corrections(conn, mapping, session.content_format)
