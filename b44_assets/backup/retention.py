"""What may go. Never what is needed: the last good backup of a kind, a link of a kept chain, the WAL after a kept base."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from b44_assets.backup.catalogue import Attempt, Catalogue
from b44_assets.backup.lsn import HISTORY_NAME, Segment, position
from b44_assets.backup.model import Backup, BackupKind, WalFile
from b44_assets.backup.wal_archive import systems, wal_files

ABANDONED = timedelta(days=3)
"""How old an attempt is when nobody can be working at it any more, and its failure was told of."""


@dataclass(frozen=True)
class Expiry:
    """What goes, and what stays although it is old.

    Attributes:
        backups: Those that go, by time.
        attempts: Abandoned ones that go.
        wal: Files of the archive that go.
        unfinished: Paths of files that were begun and never finished.
        kept: Why each backup stays that is older than it has to be kept, by id.
    """

    backups: tuple[Backup, ...]
    attempts: tuple[Attempt, ...]
    wal: tuple[WalFile, ...]
    unfinished: tuple[str, ...]
    kept: Mapping[str, str]

    @property
    def size(self) -> int:
        """Bytes in the store that become free, less those of unfinished files."""
        parts = (*self.backups, *self.attempts, *self.wal)
        return sum(part.size for part in parts)


def plan(
    backups: Sequence[Backup],
    wal: Mapping[str, Sequence[WalFile]],
    keep_days: int,
    now: datetime,
    *,
    attempts: Sequence[Attempt] = (),
    unfinished: Mapping[str, datetime] | None = None,
    unreadable: bool = False,
) -> Expiry:
    """Decides what goes, and touches nothing.

    What is older than `keep_days` goes, except for: the last good backup of each kind, of each database of each cluster
    (where none is good, the newest, since nothing better is there); the base from which a recovery to any time within
    `keep_days` begins; whatever a kept one needs; and the archives of migrations, which nothing else holds. Of the WAL goes
    what lies before the start of the oldest kept physical backup of its cluster; without one, nothing does.

    Args:
        backups: All of the catalogue.
        wal: Of each cluster, by system identifier.
        keep_days: At least 1.
        now: With its zone.
        attempts: Backups that never became complete.
        unfinished: Files that were never finished, by path, with when they were begun.
        unreadable: Whether the catalogue has records that cannot be read: they may need anything, so no backup goes.
    """
    if keep_days < 1:
        raise ValueError("backups are kept for at least one day")
    since = now - timedelta(days=keep_days)
    old = [backup for backup in backups if backup.ended_at < since]
    if unreadable:
        kept = {backup.id: "the catalogue has records that cannot be read, which may need it" for backup in old}
    else:
        reasons = _reasons(backups, wal, since)
        kept = {backup.id: reasons[backup.id] for backup in old if backup.id in reasons}
    going = [backup for backup in old if backup.id not in kept]
    staying = [backup for backup in backups if backup not in going]
    return Expiry(
        backups=tuple(sorted(going, key=lambda backup: (backup.began_at, backup.id))),
        attempts=tuple(attempt for attempt in attempts if attempt.began_at < now - ABANDONED),
        wal=()
        if unreadable
        else tuple(file for system in sorted(wal) for file in _unneeded(wal[system], system, staying)),
        unfinished=tuple(path for path, begun in (unfinished or {}).items() if begun < now - ABANDONED),
        kept=kept,
    )


def expire(
    catalogue: Catalogue,
    keep_days: int,
    now: datetime,
    *,
    dry_run: bool = False,
    progress: Callable[[str], None] | None = None,
) -> Expiry:
    """Removes what may go.

    Of a backup its record goes first, so that it does not count any more when the process is killed in the middle; an
    incremental one goes before what it needs.

    Args:
        catalogue: Whose store.
        keep_days: At least 1.
        now: With its zone.
        dry_run: Whether only to say what would go.
        progress: Told of each backup and file that has gone.

    Raises:
        BackupError: The store refuses.
    """
    listing = catalogue.listing()
    store = catalogue.store
    expiry = plan(
        listing.backups,
        {system: wal_files(store, system) for system in systems(store)},
        keep_days,
        now,
        attempts=listing.attempts,
        unfinished=store.unfinished(),
        unreadable=bool(listing.faults),
    )
    if dry_run:
        return expiry
    for part in (*reversed(expiry.backups), *expiry.attempts):
        catalogue.remove(part.id)
        if progress is not None:
            progress(part.id)
    for path in (*(file.path for file in expiry.wal), *expiry.unfinished):
        store.remove(path)
        if progress is not None:
            progress(path)
    return expiry


def _reasons(backups: Sequence[Backup], wal: Mapping[str, Sequence[WalFile]], since: datetime) -> dict[str, str]:
    """Returns why a backup stays, however old; by id."""
    reasons: dict[str, str] = {}
    groups: dict[tuple[str, str, BackupKind], list[Backup]] = {}
    for backup in sorted(backups, key=lambda backup: (backup.ended_at, backup.id)):
        database = "" if backup.kind.physical else backup.database
        groups.setdefault((backup.system, database, backup.kind), []).append(backup)
    for (system, _, kind), group in groups.items():
        good = [backup for backup in group if backup.good]
        candidates = good or group
        last = f"the last good {kind} backup" if good else f"the newest {kind} backup, and none was found good"
        reasons[candidates[-1].id] = last
        before = [backup for backup in candidates if backup.ended_at <= since]
        if kind is BackupKind.BASE and wal.get(system) and before:
            reasons.setdefault(before[-1].id, "recovery to a time that is to be kept begins with it")
    for backup in backups:
        if backup.kind is BackupKind.MIGRATION:
            reasons[backup.id] = "nothing else holds the tables of the migration"
    by_id = {backup.id: backup for backup in backups}
    kept = [backup for backup in backups if backup.id in reasons or backup.ended_at >= since]
    for backup in kept:
        link = backup
        seen = {link.id}
        while (parent := by_id.get(link.parent or "")) is not None and parent.id not in seen:
            reasons.setdefault(parent.id, f"{backup.id} needs it")
            seen.add(parent.id)
            link = parent
    return reasons


def _unneeded(files: Sequence[WalFile], system: str, staying: Sequence[Backup]) -> list[WalFile]:
    starts = [
        (position(backup.start_lsn), backup.segment_size)
        for backup in staying
        if backup.system == system and backup.start_lsn is not None and backup.segment_size is not None
    ]
    if not starts:
        return []
    start, size = min(starts)
    # Whatever timeline it is on: one that was left before that position leads to nothing that is kept. Histories are
    # small, and tell how timelines hang together.
    return [
        file
        for file in files
        if not HISTORY_NAME.fullmatch(file.name) and Segment.named(file.name, size).number < start // size
    ]
