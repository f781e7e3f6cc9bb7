"""Drills: as if the server were lost now, what would be lost with it, and how long would it take to be back?"""

from __future__ import annotations

import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from psycopg import sql

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.recovery import LATEST, choose, recovering
from b44_assets.backup.restoring import Tell
from b44_assets.backup.scratch import scratch
from b44_assets.backup.state import tables
from b44_assets.errors import BadBackupError
from b44_assets.postgres.connect import connect


@dataclass(frozen=True)
class Drill:
    """What a drill has found.

    Attributes:
        began_at: When the server was taken for lost, by its clock.
        backup: The id of the backup that the recovery began with.
        rpo_seconds: How far back the last transaction lies that is not lost (the recovery point); 0 if none is lost.
        rto_seconds: How long it took until the restored server answered and its tables were counted (the recovery time).
        lost_transactions: How many have begun to write since then, such that were rolled back included.
        recovered_to: When the last transaction was committed that is not lost.
        recovered_lsn: Where the WAL ends.
        tables: How many were counted.
        rows: In all of them.
    """

    began_at: datetime
    backup: str
    rpo_seconds: float
    rto_seconds: float
    lost_transactions: int
    recovered_to: datetime
    recovered_lsn: str
    tables: int
    rows: int


def drill(catalogue: Catalogue, url: str, *, pg_bin: Path | None = None, tell: Tell | None = None) -> Drill:
    """Restores the newest state that the store has, from it alone, measures, and keeps the result under `drills/`.

    Args:
        catalogue: With base backups and the archive of the WAL.
        url: libpq URL of the database of the server that is taken for lost. It only commits a transaction that says when.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told what is done.

    Raises:
        BackupError: There is no good base backup, or it cannot be restored here.
        BadBackupError: A backup is damaged, or WAL is missing; or the store has backups of another cluster only.
        DatabaseError: There is no connection.
    """
    with connect(url, application_name="b44 drill", autocommit=True) as conn:
        row = conn.execute(
            "select clock_timestamp(), pg_current_xact_id()::text::bigint, pg_logical_emit_message(true, 'b44', 'drill'),"
            " current_database()"
        ).fetchone()
    assert row is not None
    lost_at, xid, _, database = row
    begun = time.monotonic()
    backup = choose(catalogue.backups(), LATEST)[0]
    if backup.database != database:
        raise BadBackupError(
            f"the newest good base backup, {backup.id}, is of database {backup.database!r}, not {database!r}"
        )
    with scratch() as place:
        data_dir = place.folder / "data"
        # As it would be restored for good.
        with (
            recovering(catalogue, backup, data_dir, place, LATEST, lasting=True, pg_bin=pg_bin, tell=tell) as (
                server,
                recovered,
            ),
            connect(server.url(database), autocommit=True) as conn,
        ):
            listed = tables(conn)
            rows = sum(_one(conn.execute(_count(name)).fetchone()) for name in listed)
            seconds = time.monotonic() - begun
            following = _one(conn.execute("select pg_snapshot_xmax(pg_current_snapshot())::text::bigint").fetchone())
    lost = max(xid - following, 0)
    recovered_to = recovered.last_transaction or backup.state.taken_at
    found = Drill(
        began_at=lost_at,
        backup=backup.id,
        rpo_seconds=max((lost_at - recovered_to).total_seconds(), 0.0) if lost else 0.0,
        rto_seconds=seconds,
        lost_transactions=lost,
        recovered_to=recovered_to,
        recovered_lsn=recovered.lsn,
        tables=len(listed),
        rows=rows,
    )
    catalogue.add_drill(lost_at, _record(found))
    return found


def history(catalogue: Catalogue) -> list[Drill]:
    """Returns what all drills have found, by time.

    Raises:
        BackupError: The store cannot be read.
        BadBackupError: A record is damaged.
    """
    return [_drill(record) for record in catalogue.drills()]


def _record(found: Drill) -> dict[str, Any]:
    times = {name: getattr(found, name).astimezone(UTC).isoformat() for name in ("began_at", "recovered_to")}
    return asdict(found) | times


def _drill(record: dict[str, Any]) -> Drill:
    try:
        times = {name: datetime.fromisoformat(record[name]) for name in ("began_at", "recovered_to")}
        fields: dict[str, Any] = record | times
        return Drill(**fields)
    except (LookupError, TypeError, ValueError) as error:
        raise BadBackupError("a record under drills/ is none of a drill") from error


def _count(name: tuple[str, str]) -> sql.Composed:
    return sql.SQL("select count(*) from only {}").format(sql.Identifier(*name))


def _one(row: tuple[Any, ...] | None) -> int:
    assert row is not None
    return row[0]
