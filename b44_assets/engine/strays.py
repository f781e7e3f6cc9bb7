"""Exported entities that `sql/` has no table for: kept whole in `migration.unmapped`, so that nothing is lost."""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import partial
from pathlib import Path

from psycopg import sql

from b44_assets.engine.failpoints import failpoint
from b44_assets.engine.session import Connection, Session, persevering
from b44_assets.engine.staging import opened_whole, reading_whole
from b44_assets.exports import ExportFile, discover


@dataclass(frozen=True)
class Strays:
    """Records kept, by entity as Base44 names it."""

    records: dict[str, int]


def keep_strays(session: Session, directory: Path | None) -> Strays:
    """Keeps every record of every entity without a mapping. Running it again replaces what was kept.

    Raises:
        ExportError: The folder or a file cannot be read.
    """
    known = session.catalog.entities
    files = [file for file in (discover(directory) if directory else ()) if file.entity not in known]

    def work() -> Strays:
        with session.connection("keep strays", idles=True) as conn:
            return Strays({file.entity: reading_whole(session, partial(_keep, session, conn, file)) for file in files})

    return persevering(session, work)


def _keep(session: Session, conn: Connection, file: ExportFile) -> int:
    records = 0
    with conn.transaction(), opened_whole(file) as reader:
        # Not a temporary table: a server process's first one makes a schema, on which every session forgets its plans.
        conn.execute("create unlogged table migration.stray (record_number bigint, base44_id text, data jsonb)")
        with conn.cursor() as cursor, cursor.copy("copy migration.stray from stdin") as copy:
            for batch in reader.batches():
                for number, record in zip(batch.record_numbers.to_pylist(), batch.columns.to_pylist(), strict=True):
                    filled = {name: value for name, value in record.items() if value is not None}
                    copy.write_row((number, filled.get("id"), json.dumps(filled, ensure_ascii=False)))
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
                       case when base44_id is null or row_number() over (partition by base44_id order by record_number) > 1
                         then concat_ws(' ', base44_id, 'record ' || record_number) else base44_id end,
                       data
                  from migration.stray
                """
            ).format(entity=sql.Literal(file.entity))
        )
        conn.execute("drop table migration.stray")
        failpoint("strays: before commit", conn)
        reader.require_unchanged()
    failpoint("strays: after commit", conn)
    return records
