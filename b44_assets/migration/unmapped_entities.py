"""Exported entities without a table, or of another app than the table: kept whole in `migration.unmapped`, so that nothing is lost."""

from __future__ import annotations

import json
from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from psycopg import sql
from psycopg.types.json import Jsonb

from b44_assets.exports import ExportFile, ExportReader, survey
from b44_assets.exports.names import matched
from b44_assets.failpoints import failpoint
from b44_assets.migration.misspelt_entities import mapping_hint
from b44_assets.migration.other_apps import files_of_other_apps, has_user_alone
from b44_assets.migration.sources import LONGEST_ID
from b44_assets.migration.whole_files import opened_whole, reading_whole
from b44_assets.session import Connection, Session, scalar, with_retry
from b44_assets.wording import plural

_SHOWN = 500
"""Characters of a longer one that are kept beside the record's number; all of it stands in the record."""


@dataclass(frozen=True)
class UnmappedEntity:
    """An entity of the export that has no table.

    Attributes:
        entity: As Base44 names it.
        file: Its file's name.
        records: Records in it, all of them in `migration.unmapped`.
        hint: While the export is read: what to add about a mapping whose entity may be the misspelt one.
        other_app: While the export is read: why its file is taken for that of another app than the table of this name is of.
    """

    entity: str
    file: str
    records: int
    hint: str = ""
    other_app: str = ""

    def warning(self) -> str:
        """What a person should know of it; empty where it has no records."""
        kept = f"its {self.records:,} {plural(self.records, 'record is', 'records are')} kept in migration.unmapped"
        if self.other_app:
            return f"{self.file} may be of another app: {kept}, and b44 init makes tables for them"
        if self.records:
            return f"no table in sql/ for {self.entity}: {kept}{self.hint}"
        return ""


@dataclass(frozen=True)
class UnmappedEntities:
    """What the export holds that has no table.

    Attributes:
        entities: In the order of their names.
        passed_over: Of each file that looks like one of the export's and is not read, a line with the remedy.
        user_alone: Whether no other file of the export has a table than that of entity User.
    """

    entities: tuple[UnmappedEntity, ...]
    passed_over: tuple[str, ...] = ()
    user_alone: bool = False

    @property
    def warnings(self) -> tuple[str, ...]:
        """What a person should know of it, a line each."""
        said = [warning for one in self.entities if (warning := one.warning())]
        if self.user_alone and any(self.records.values()):
            said.append(
                "User is all that this export has of these tables, and every app has that entity: is it of another app?"
                " Then b44 rollback takes its records back"
            )
        return (*said, *self.passed_over)

    @property
    def records(self) -> dict[str, int]:
        """Records kept, by entity as Base44 names it."""
        return {one.entity: one.records for one in self.entities}


def keep_unmapped(session: Session, directory: Path | None) -> UnmappedEntities:
    """Keep every record of every entity without a mapping, in place of those that were kept before.

    Of a file that is the one that was kept, nothing is written. Without a folder, what is kept stays.

    Raises:
        ExportError: The folder or a file cannot be read.
    """
    if directory is None:
        return UnmappedEntities(unmapped_entities(session))
    known = session.catalog.entities
    found = survey(directory, known)
    others = files_of_other_apps(session.catalog, found.files)
    files = [file for file in found.files if file.entity not in known or file.entity in others]
    present = frozenset(file.entity for file in found.files)
    for line in found.notices:
        session.notice(line)

    def work() -> UnmappedEntities:
        with session.connection("keep unmapped", idles=True) as conn:
            _forget(session, conn, [file.entity for file in files])
            kept = [reading_whole(session, partial(_keep, session, conn, file, present)) for file in files]
        kept = [replace(one, other_app=others[one.entity].message()) if one.entity in others else one for one in kept]
        alone = has_user_alone(session.catalog, [file for file in found.files if file.entity not in others])
        return UnmappedEntities(tuple(kept), found.passed_over, alone)

    return with_retry(session, work)


def records_of(file: ExportFile) -> int:
    """How many records a file has, each of which would be kept.

    Raises:
        ExportError: It cannot be read.
    """
    with opened_whole(file) as reader:
        return sum(len(batch.record_numbers) + len(batch.refused) for batch in reader.batches())


def unmapped_entities(session: Session) -> tuple[UnmappedEntity, ...]:
    """Entities without a table of the export that was migrated last, in the order of their names."""
    with session.connection("look at unmapped entities") as conn:
        if scalar(conn, "select to_regclass('migration.unmapped_entities')") is None:
            return ()
        rows = conn.execute(
            'select entity, source_file, records from migration.unmapped_entities order by entity collate "C"'
        ).fetchall()
    return tuple(UnmappedEntity(*row) for row in rows)


def _forget(session: Session, conn: Connection, present: Collection[str]) -> None:
    """Forget entities that the export has no more, or that have a table now."""
    tables = list(session.catalog.mappings)
    with conn.transaction():
        gone = conn.execute(
            "delete from migration.unmapped_entities where entity <> all(%s) returning entity", (list(present),)
        ).fetchall()
        names = {row[0] for row in gone} | set(session.catalog.entities)
        conn.execute(
            "delete from migration.unmapped where entity = any(%s) and entity <> all(%s)", (list(names), tables)
        )


def _keep(session: Session, conn: Connection, file: ExportFile, present: Collection[str]) -> UnmappedEntity:
    with opened_whole(file) as reader:
        records = _kept_before(conn, file, reader)
        if records is None:
            records = _copy(session, conn, file, reader)
    return UnmappedEntity(
        file.entity, file.path.name, records, mapping_hint(session.catalog, file.entity, present) if records else ""
    )


def _kept_before(conn: Connection, file: ExportFile, reader: ExportReader) -> int | None:
    """How many records are kept of this very file; None where it is another, or some of them are gone."""
    kept = conn.execute(
        "select records, digest from migration.unmapped_entities"
        " where (entity, source_file, bytes) = (%(entity)s, %(file)s, %(bytes)s)"
        " and records = (select count(*) from migration.unmapped where entity = %(entity)s)",
        {"entity": file.entity, "file": file.path.name, "bytes": reader.size},
    ).fetchone()
    # Only the content tells: a file may be changed and keep its size.
    if kept is None or reader.digest_of_all() != kept[1]:
        return None
    reader.require_unchanged()
    return int(kept[0])


def _copy(session: Session, conn: Connection, file: ExportFile, reader: ExportReader) -> int:
    """Replace what is kept of an entity by the records of its file; returns how many these are."""
    records = 0
    with conn.transaction():
        # Not a temporary table: a server process's first one makes a schema, on which every session forgets its plans.
        conn.execute("create unlogged table migration.arriving (record_number bigint, base44_id text, data jsonb)")
        with conn.cursor() as cursor, cursor.copy("copy migration.arriving from stdin") as copy:
            for batch in reader.batches():
                id_field = next((name for name in reader.fields if matched(name, ("id",))), "id")
                for number, record in zip(batch.record_numbers.to_pylist(), batch.columns.to_pylist(), strict=True):
                    filled = {name: value for name, value in record.items() if value is not None}
                    copy.write_row((number, filled.get(id_field), json.dumps(filled, ensure_ascii=False)))
                    records += 1
                for refused in batch.refused:
                    copy.write_row((refused.record_number, None, json.dumps(refused.record, ensure_ascii=False)))
                    records += 1
                session.progress(f"base44/{file.entity}", reader.bytes_read, reader.size)
        conn.execute("delete from migration.unmapped where entity = %s", (file.entity,))
        conn.execute(
            sql.SQL(
                """
                insert into migration.unmapped (entity, base44_id, data)
                select {entity},
                       -- Beside ids that end like one with a number, those with a number would not be unique.
                       case when base44_id is null or base44_id ~ 'record [0-9]+$' or octet_length(base44_id) > {longest}
                           or row_number() over (partition by base44_id order by record_number) > 1
                         then concat_ws(' ', left(base44_id, {shown}), 'record ' || record_number) else base44_id end,
                       data
                  from migration.arriving
                """
            ).format(entity=sql.Literal(file.entity), longest=sql.Literal(LONGEST_ID), shown=sql.Literal(_SHOWN))
        )
        conn.execute("drop table migration.arriving")
        conn.execute("delete from migration.unmapped_entities where entity = %s", (file.entity,))
        conn.execute(
            "insert into migration.unmapped_entities"
            " (entity, source_file, dialect, bytes, digest, records, oddities, run_id)"
            " values (%s, %s, %s, %s, %s, %s, %s, %s)",
            (
                file.entity,
                file.path.name,
                reader.dialect.name,
                reader.size,
                reader.digest,
                records,
                Jsonb(dict(reader.oddities)),
                session.run_id,
            ),
        )
        failpoint("unmapped: before commit", conn)
        reader.require_unchanged()
    failpoint("unmapped: after commit", conn)
    return records
