"""Whether the backups are what one can rely on: each question a function of what was found, with its answer in lines."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from b44_assets.backup.catalogue import Attempt, chain
from b44_assets.backup.lsn import SEGMENT_NAME, History, Segment, lsn, position
from b44_assets.backup.model import Backup, BackupKind, WalFile
from b44_assets.backup.wal_archive import gaps
from b44_assets.backup.wal_spool import Waiting
from b44_assets.errors import BadBackupError
from b44_assets.wording import plural, some_of

_NAMED = 5


@dataclass(frozen=True)
class Health:
    """An answer.

    Attributes:
        ok: Whether all is well.
        lines: What is wrong, or what was looked at.
    """

    ok: bool
    lines: tuple[str, ...]


def fresh(backups: Sequence[Backup], expected: Mapping[BackupKind, timedelta], now: datetime) -> Health:
    """Tells whether the newest good backup of each expected kind is new enough.

    Args:
        backups: All of the catalogue.
        expected: How old the newest good one may be, by kind.
        now: With its zone.
    """
    wrong: list[str] = []
    seen: list[str] = []
    for kind, age in expected.items():
        ends = [backup.ended_at for backup in backups if backup.kind is kind and backup.good]
        if not ends:
            wrong.append(f"there is no good {kind} backup")
            continue
        line = f"the newest good {kind} backup is {_span(now - max(ends))} old"
        if now - max(ends) > age:
            wrong.append(f"{line}; at most {_span(age)} are allowed")
        else:
            seen.append(line)
    return _answer(wrong, seen or ["no kind of backup is expected"])


def readable(faults: Sequence[str]) -> Health:
    """Tells whether all records of the catalogue can be read.

    Args:
        faults: As of `catalogue.Listing`.
    """
    return _answer(faults, ["every record of the catalogue can be read"])


def whole_chains(backups: Sequence[Backup], faults: Sequence[str] = ()) -> Health:
    """Tells whether all that each incremental backup needs is there, and was not found bad.

    Args:
        backups: All of the catalogue.
        faults: Its records that cannot be read.
    """
    wrong: list[str] = []
    incremental = [backup for backup in backups if backup.kind is BackupKind.INCREMENTAL]
    for backup in incremental:
        try:
            chain(backup, backups, faults)
        except BadBackupError as error:
            wrong.append(str(error))
    return _answer(
        wrong,
        [f"{len(incremental)} incremental {plural(len(incremental), 'backup has', 'backups have')} all that is needed"],
    )


def verified(backups: Sequence[Backup], again_after: timedelta, now: datetime) -> Health:
    """Tells whether there are backups, and every one was restored and found equal to its source, and lately.

    Args:
        backups: All of the catalogue; of none nothing good can be said.
        again_after: How old the verification of the newest good backup of a kind may be.
        now: With its zone.
    """
    if not backups:
        return Health(False, ("the store holds no backup that can be read: take one, by `b44 backup`",))
    wrong: list[str] = []
    newest: dict[BackupKind, Backup] = {}
    for backup in sorted(backups, key=lambda backup: (backup.ended_at, backup.id)):
        if backup.verification is None:
            wrong.append(f"{backup.id} was never verified")
        elif not backup.verification.good:
            wrong.append(f"{backup.id} did not hold when it was verified: {backup.verification.differences[0]}")
        else:
            newest[backup.kind] = backup
    for backup in newest.values():
        if backup.verification is not None and now - backup.verification.verified_at > again_after:
            age = _span(now - backup.verification.verified_at)
            wrong.append(f"{backup.id} was last verified {age} ago; at most {_span(again_after)} are allowed")
    return _answer(
        wrong,
        [f"{len(backups)} {plural(len(backups), 'backup was', 'backups were')} restored and found equal to the source"],
    )


def nothing_failed(backups: Sequence[Backup], attempts: Sequence[Attempt], now: datetime, longest: timedelta) -> Health:
    """Tells whether a backup was begun that came to nothing, with no complete one of its kind since.

    Args:
        backups: All of the catalogue.
        attempts: Its attempts.
        now: With its zone.
        longest: How long a backup may take before its attempt counts as failed.
    """
    wrong: list[str] = []
    for attempt in attempts:
        later = any(backup.kind is attempt.kind and backup.began_at > attempt.began_at for backup in backups)
        if not later and now - attempt.began_at > longest:
            wrong.append(
                f"{attempt.id} was begun {_span(now - attempt.began_at)} ago and never completed, and no {attempt.kind}"
                " backup since"
            )
    return _answer(wrong, ["every backup that was begun is complete, or was followed by one that is"])


def whole_wal(
    backups: Sequence[Backup],
    wal: Mapping[str, Sequence[WalFile]],
    histories: Mapping[str, Mapping[int, History]],
) -> Health:
    """Tells whether the archive has every segment after its first, and every one after the newest base backup.

    What is before the first was never archived, or has expired. A cluster without an archive is passed over: its base
    backups have WAL of their own.

    Args:
        backups: All of the catalogue.
        wal: The archive of each cluster, by system identifier.
        histories: The timelines of each cluster, likewise.
    """
    wrong: list[str] = []
    seen: list[str] = []
    for system, files in sorted(wal.items()):
        if not files:
            continue
        bases = sorted(
            (backup for backup in backups if backup.system == system and backup.kind is BackupKind.BASE),
            key=lambda backup: (backup.ended_at, backup.id),
        )
        if not bases:
            wrong.append(f"cluster {system} has WAL in the archive and no base backup to begin with")
            continue
        missing: set[str] = set()
        for base in bases:
            size, timeline, stop = base.segment_size, base.timeline, base.stop_lsn
            assert size is not None and timeline is not None and stop is not None, base.id
            # A base backup has WAL of its own up to its end.
            if base is not bases[-1]:
                first = min(Segment.named(file.name, size).number for file in files if SEGMENT_NAME.match(file.name))
                stop = lsn(max(position(stop), first * size))
            missing.update(gaps(files, size, stop, timeline, histories.get(system, {})))
        if missing:
            names = sorted(missing)
            wrong.append(f"the WAL archive of cluster {system} lacks {some_of(names, _NAMED)}")
        else:
            seen.append(f"the WAL archive of cluster {system} has no gap in {len(files)} {plural(len(files), 'file')}")
    return _answer(wrong, seen or ["there is no WAL archive"])


def shipping(waiting: Waiting, longest: timedelta, now: datetime) -> Health:
    """Tells whether what the server archives gets into the store.

    Args:
        waiting: What the spool holds.
        longest: How long a segment may wait in the spool.
        now: With its zone.
    """
    wrong: list[str] = []
    if waiting.oldest is not None and now - waiting.oldest > longest:
        wrong.append(
            f"{_waiting(waiting)}, the oldest for {_span(now - waiting.oldest)}; at most {_span(longest)} are allowed"
        )
    return _answer(wrong, [_waiting(waiting)])


def _waiting(waiting: Waiting) -> str:
    return f"{waiting.files} WAL {plural(waiting.files, 'file waits', 'files wait')} to be taken to the store"


def _answer(wrong: Sequence[str], otherwise: Sequence[str]) -> Health:
    return Health(not wrong, tuple(wrong or otherwise))


def _span(span: timedelta) -> str:
    seconds = max(0, round(span.total_seconds()))
    for size, unit in ((86400, "day"), (3600, "hour"), (60, "minute")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}s"
    return f"{seconds} {plural(seconds, 'second')}"
