"""`base44.<table>`, made anew and filled: a text column for each exported field, by COPY."""

from __future__ import annotations

import io
import json
from collections.abc import Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager
from typing import Any

import pyarrow as pa
import pyarrow.csv as pa_csv
from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.config.quantities import ContentFormat
from b44_assets.exports import Batch, Lines, Refused, Whole
from b44_assets.failpoints import failpoint
from b44_assets.migration.html import SIMPLE, SUSPECT, remains, sanitized_column
from b44_assets.migration.sources import (
    CLEAN_PREFIX,
    MORE_FIELDS,
    RECORD_NUMBER,
    SOURCE_FILE,
    column_names,
    drop_source_view,
    with_columns,
)
from b44_assets.session import Connection, Session

_THROTTLED_PIECE = 64 * 2**10
"""Bytes that a throttled staging sends at a time."""
_THROTTLED_BYTES_A_SECOND = 4 * 2**20
"""How fast it sends them. At full speed, some 24 MiB a second, one in eight statements beside it waited for the disk
(benchmarks/foreground.py)."""


def whole_records(session: Session, mapping: TableMapping, fields: Sequence[str]) -> Whole | None:
    """Which records of a CSV file are staged as they stand in it; None where some of its fields have no column of their own."""
    if len(_names(tuple(fields), mapping)) < len(fields):
        return None
    cleaned = [name for name in mapping.html if name in fields]
    if not cleaned or session.content_format is not ContentFormat.HTML:
        return Whole()
    return Whole(SUSPECT, SIMPLE, dict.fromkeys(cleaned, remains()))


def write_staged_table(
    session: Session,
    conn: Connection,
    mapping: TableMapping,
    source: str,
    fields: tuple[str, ...],
    batches: Iterable[Batch],
    refused: list[Refused],
) -> tuple[int, tuple[str, ...]]:
    """Makes `base44.<table>` anew and fills it.

    Args:
        session: The run.
        conn: In a transaction.
        mapping: The entity's mapping.
        source: The file's name, or that of the table read.
        fields: The fields that are known before the first record.
        batches: The records.
        refused: Takes the records that cannot be staged.

    Returns:
        The number of records, and the fields in the end.
    """
    table = mapping.spec.name
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
            records += batch.records
            write.batch(table, mapping, names, batch)
            failpoint("stage: between blocks", conn)
    failpoint("stage: staged", conn)
    conn.execute(
        sql.SQL("alter table base44.{} add primary key ({})").format(
            sql.Identifier(table), sql.Identifier(RECORD_NUMBER)
        )
    )
    comments = [
        sql.SQL("comment on column base44.{}.{} is {}").format(
            sql.Identifier(table), sql.Identifier(column), sql.Literal(f"Exported as: {name}")
        )
        for name, column in names.items()
    ]
    if comments:
        conn.execute(sql.SQL("; ").join(comments))
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
    """COPY in CSV, which Arrow writes, or the file has, and PostgreSQL reads without a Python object for each value."""

    def __init__(self, session: Session, conn: Connection, sender: ThreadPoolExecutor) -> None:
        self._session = session
        self._conn = conn
        self._sender = sender
        self._sending: Future[None] | None = None
        self._columns: tuple[str, ...] | None = None
        self._empty_is_null: tuple[str, ...] = ()
        self._stack: Any = None
        self._copy: Any = None

    def batch(self, table: str, mapping: TableMapping, names: dict[str, str], batch: Batch) -> None:
        # In a file that has lines, an empty cell is null, in quotes or not; its columns hold no empty text.
        if batch.lines is not None:
            self._lines(table, mapping, names, batch.lines)
        if batch.record_numbers:
            self._rows(table, mapping, names, batch)

    def _lines(self, table: str, mapping: TableMapping, names: dict[str, str], lines: Lines) -> None:
        cleaned = [CLEAN_PREFIX + name for name in mapping.html if name in names]
        if not self._empty_is_null:
            self.finish()
            self._empty_is_null = tuple(names.values())
        self._begin(table, (*names.values(), *cleaned, RECORD_NUMBER))
        behind = b"," * (len(cleaned) + 1) + b"%d\n"
        pieces: list[bytes] = []
        for number, text in zip(lines.record_numbers, lines.texts, strict=True):
            pieces += (text, behind % number)
        self._send(memoryview(b"".join(pieces)))

    def _rows(self, table: str, mapping: TableMapping, names: dict[str, str], batch: Batch) -> None:
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
        self._begin(table, tuple(columns))
        buffer = io.BytesIO()
        pa_csv.write_csv(
            pa.table(columns), buffer, pa_csv.WriteOptions(include_header=False, quoting_style="all_valid")
        )
        self._send(buffer.getbuffer())

    def _begin(self, table: str, columns: tuple[str, ...]) -> None:
        if columns == self._columns:
            return
        self.finish()
        self._columns = columns
        listed = sql.SQL(", ").join(map(sql.Identifier, columns))
        # Frozen, as the table is of this transaction: no reader has to mark the rows, and a count reads the index alone.
        options = sql.SQL("format csv, freeze")
        if self._empty_is_null:
            names = sql.SQL(", ").join(map(sql.Identifier, self._empty_is_null))
            options += sql.SQL(", force_null ({})").format(names)
        self._stack = self._conn.cursor().copy(
            sql.SQL("copy base44.{} ({}) from stdin ({})").format(sql.Identifier(table), listed, options)
        )
        self._copy = self._stack.__enter__()

    def _send(self, text: memoryview) -> None:
        """Sends text while the next is made; little by little where an application is in use, whose commits then find the disk free."""
        if not self._session.throttled:
            self._wait()
            self._sending = self._sender.submit(self._copy.write, text)
            return
        for start in range(0, len(text), _THROTTLED_PIECE):
            piece = text[start : start + _THROTTLED_PIECE]
            self._copy.write(piece)
            self._session.sleep(len(piece) / _THROTTLED_BYTES_A_SECOND)

    def _wait(self) -> None:
        """Waits until what is being sent has been."""
        if self._sending is not None:
            sending, self._sending = self._sending, None
            sending.result()

    def finish(self, error: BaseException | None = None) -> None:
        if error is None:
            self._wait()
        elif self._sending is not None:
            # What has gone wrong with it is no news any more.
            wait([self._sending])
        if self._stack is not None:
            stack, self._stack, self._columns = self._stack, None, None
            stack.__exit__(type(error) if error else None, error, None)


@contextmanager
def _copying(session: Session, conn: Connection) -> Generator[_Copy]:
    with ThreadPoolExecutor(1, thread_name_prefix="copy") as sender:
        copy = _Copy(session, conn, sender)
        try:
            yield copy
        except BaseException as error:
            copy.finish(error)
            raise
        copy.finish()
