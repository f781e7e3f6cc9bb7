"""Backups for the tests of the catalogue, of retention and of health: made up, or stored without a server."""

from __future__ import annotations

import io
import struct
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.lsn import Segment
from b44_assets.backup.model import Backup, BackupKind, SourceState, TableState, Verification, WalFile

NOW = datetime(2026, 11, 26, 15, 15, tzinfo=UTC)
SYSTEM = "7448500000000000001"
SEGMENT_SIZE = 1024**2
"""The smallest that PostgreSQL knows."""

WHOLE = (BackupKind.LOGICAL, BackupKind.BASE, BackupKind.INCREMENTAL)
"""The kinds that hold all of a database."""

GOOD = Verification(NOW, 12.5)
BAD = Verification(NOW, 12.5, ("table public.posts: 4 rows instead of 5",))


def a_backup(
    kind: BackupKind = BackupKind.LOGICAL,
    days_ago: float = 0,
    *,
    parent: str | None = None,
    verification: Verification | None = GOOD,
    start_lsn: str = "0/300028",
    stop_lsn: str = "0/300100",
    timeline: int = 1,
    system: str = SYSTEM,
    database: str = "b44",
    number: int = 0,
) -> Backup:
    """A backup of which only the record is there."""
    began_at = NOW - timedelta(days=days_ago)
    physical = kind is not BackupKind.LOGICAL
    return Backup(
        id=f"{began_at:%Y%m%dT%H%M%SZ}-{kind}" + (f"-{number}" if number else ""),
        kind=kind,
        database=database,
        system=system,
        server_version=180000,
        began_at=began_at,
        ended_at=began_at + timedelta(minutes=1),
        files=(),
        state=SourceState(
            taken_at=began_at,
            lsn=stop_lsn if physical else None,
            schema={"table public.posts": "d1"},
            tables={"public.posts": TableState(5, "123456789012345678901")},
            sequences={"public.posts_seq": 6},
        ),
        parent=parent,
        timeline=timeline if physical else None,
        start_lsn=start_lsn if physical else None,
        stop_lsn=stop_lsn if physical else None,
        segment_size=SEGMENT_SIZE if physical else None,
        verification=verification,
    )


def stored_backup(catalogue: Catalogue, backup: Backup, files: Mapping[str, bytes] | None = None) -> Backup:
    """A backup in the store, with its files and its verification."""
    backup_id = catalogue.new_id(backup.kind, backup.began_at)
    contents = {"dump": b"everything " * 20_000} if files is None else files
    kept = tuple(catalogue.add_file(backup_id, name, io.BytesIO(data)) for name, data in contents.items())
    made = replace(backup, id=backup_id, files=kept, encrypted=catalogue.key is not None, verification=None)
    catalogue.record(made)
    return made if backup.verification is None else catalogue.record_verification(made, backup.verification)


def a_segment(number: int, timeline: int = 1, *, system: str = SYSTEM, filling: bytes = b"record") -> tuple[str, bytes]:
    """A WAL segment's name and contents, as far as its first page tells what it is."""
    header = struct.pack("=HHIQI4xQII", 0xD118, 2, timeline, number * SEGMENT_SIZE, 0, int(system), SEGMENT_SIZE, 8192)
    return Segment(number, timeline).name(SEGMENT_SIZE), (header + filling).ljust(SEGMENT_SIZE, b"\0")


def archived(number: int, timeline: int = 1) -> WalFile:
    """A segment of the archive of which only the name is there."""
    name = Segment(number, timeline).name(SEGMENT_SIZE)
    digest = f"{number:064x}"
    return WalFile(name, 100, digest, f"wal/{SYSTEM}/{name[:16]}/{name}-{digest}.zst")
