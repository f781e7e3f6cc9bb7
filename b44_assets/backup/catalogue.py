"""The catalogue of backups, which lies in the store beside them.

    backups/<id>/begun                  that a backup was begun; reserves the id
    backups/<id>/<file>.zst[.age]       what it is made of
    backups/<id>/backup.json            what it is, written last: from then on it counts
    backups/<id>/verification-<time>.json   each verification; earlier versions wrote proof-<time>.json
    drills/<time>.json                  each drill
    wal/<system>/…                      the archive of the WAL (see `archive`)

Nothing that is written is ever changed. A record that cannot be read is named, and hides no other.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from b44_assets.backup import serialization as records
from b44_assets.backup.encryption import Key, Progress, Source, check_stored, ending, seal, unseal
from b44_assets.backup.model import Backup, BackupKind, StoredFile, Verification
from b44_assets.backup.store import CHUNK, Sink, Store
from b44_assets.errors import BackupError, BadBackupError, why
from b44_assets.wording import plural

# Of a database with 100,000 objects.
_LONGEST_RECORD = 64 * 1024**2
_BEGUN = "begun"
_RECORD = "backup.json"
_VERIFICATION = re.compile(r"(?:verification|proof)-([0-9]{8}T[0-9]{6}\.[0-9]{6}Z)\.json")
_ID = re.compile(r"([0-9]{8}T[0-9]{6}Z)-(logical|base|incremental|migration)(?:-[0-9]+)?")
_SECOND = "%Y%m%dT%H%M%SZ"
_MICROSECOND = "%Y%m%dT%H%M%S.%fZ"


@dataclass(frozen=True)
class Attempt:
    """A backup that was begun and is not complete: one at work, or one that has failed.

    Attributes:
        id: Of the backup that it was to be.
        kind: Of it.
        began_at: When.
        size: Bytes that it takes up.
    """

    id: str
    kind: BackupKind
    began_at: datetime
    size: int


@dataclass(frozen=True)
class Listing:
    """What the catalogue holds.

    Attributes:
        backups: All that count, by time.
        attempts: Those that do not, by time.
        faults: Each record that cannot be read, in one line.
    """

    backups: tuple[Backup, ...]
    attempts: tuple[Attempt, ...]
    faults: tuple[str, ...]


@dataclass(frozen=True)
class Catalogue:
    """The backups of a store.

    Attributes:
        store: Where they are.
        key: What they are encrypted for and read with; None where they are not.
    """

    store: Store
    key: Key | None = None

    # -- taking a backup -------------------------------------------------------------------------------------------

    def new_id(self, kind: BackupKind, now: datetime) -> str:
        """Returns the id of a new backup, and reserves it: an attempt that dies is seen by that.

        Args:
            kind: Of the backup.
            now: With its zone.

        Raises:
            BackupError: The store refuses.
        """
        stem = f"{now.astimezone(UTC):{_SECOND}}-{kind}"
        number = 1
        while True:
            backup_id = stem if number == 1 else f"{stem}-{number}"
            path = f"backups/{backup_id}/{_BEGUN}"
            if not self.store.names(f"backups/{backup_id}/"):
                try:
                    self.store.put(path, io.BytesIO())
                except BackupError:
                    # Another process may just have taken it.
                    if not self.store.exists(path):
                        raise
                else:
                    return backup_id
            number += 1

    def add_file(self, backup_id: str, name: str, source: Source, progress: Progress | None = None) -> StoredFile:
        """Seals a stream into the backup.

        Args:
            backup_id: As `new_id` gave it.
            name: Of the file, without the endings that tell how it is sealed; may lie in a folder.
            source: Read to its end.
            progress: Told of the bytes read.

        Returns:
            What goes into the record of the backup.

        Raises:
            BackupError: The store refuses it, as when it is full; nothing is left of the file.
            Exception: Whatever the source raises; likewise.
        """
        stored = name + ending(self.key)
        with self.store.writing(f"backups/{backup_id}/{stored}") as sink:
            sealed = seal(source, sink, self.key, progress)
        return StoredFile(stored, sealed.size, sealed.sha256, sealed.raw_size, sealed.raw_sha256)

    def record(self, backup: Backup) -> None:
        """Writes what the backup is. From here on it counts.

        Raises:
            BackupError: The store refuses.
        """
        self._put(f"backups/{backup.id}/{_RECORD}", records.from_backup(backup))

    def discard(self, backup_id: str) -> None:
        """Removes what an attempt has stored that has failed, so that it takes up no space; that it was made stays.

        Raises:
            BackupError: The store refuses, or it is a backup that counts.
        """
        found = self.store.names(f"backups/{backup_id}/")
        if f"backups/{backup_id}/{_RECORD}" in found:
            raise BackupError(f"{backup_id} is a complete backup, and is not discarded")
        for path in found:
            if not path.endswith(f"/{_BEGUN}"):
                self.store.remove(path)

    def remove(self, backup_id: str) -> None:
        """Removes a backup or an attempt; its record first, so that what is left of it when we are killed does not count.

        Raises:
            BackupError: The store refuses.
        """
        folder = f"backups/{backup_id}/"
        self.store.remove(folder + _RECORD)
        files = self.store.names(folder)
        # What tells that there is something left to remove goes last.
        for path in sorted(files, key=lambda path: path == folder + _BEGUN):
            self.store.remove(path)

    def record_verification(self, backup: Backup, verification: Verification) -> Backup:
        """Adds a verification to the backup's history.

        Returns:
            The backup with it.

        Raises:
            BackupError: The store refuses.
        """
        name = f"verification-{verification.verified_at.astimezone(UTC):{_MICROSECOND}}.json"
        self._put(f"backups/{backup.id}/{name}", records.from_verification(verification))
        return replace(backup, verification=verification)

    # -- looking ---------------------------------------------------------------------------------------------------

    def listing(self) -> Listing:
        """Reads the whole catalogue.

        Raises:
            BackupError: The store cannot be listed, or not be read.
        """
        backups: list[Backup] = []
        attempts: list[Attempt] = []
        faults: list[str] = []
        for backup_id, files in self._folders():
            match = _ID.fullmatch(backup_id)
            if match is None:
                continue
            if _RECORD not in files:
                began_at = datetime.strptime(match[1], _SECOND).replace(tzinfo=UTC)
                attempts.append(Attempt(backup_id, BackupKind(match[2]), began_at, sum(files.values())))
                continue
            try:
                backup = self._read(backup_id)
            except BadBackupError as error:
                faults.append(str(error))
                continue
            try:
                backup = replace(backup, verification=self._newest_verification(backup_id, files))
            except BadBackupError as error:
                # Not the one before it, which may be better than what is true by now.
                faults.append(str(error))
            backups.append(backup)
        backups.sort(key=lambda backup: (backup.began_at, backup.id))
        attempts.sort(key=lambda attempt: (attempt.began_at, attempt.id))
        return Listing(tuple(backups), tuple(attempts), tuple(faults))

    def backups(self) -> list[Backup]:
        """Returns the backups that can be read, by time, with the newest verification of each.

        Raises:
            BackupError: The store cannot be listed, or not be read.
        """
        return list(self.listing().backups)

    def find(self, text: str) -> Backup:
        """Returns the backup that is meant.

        Args:
            text: Its id or a beginning of it that no other has; or `latest`, `logical/latest`, `base/latest`,
                `incremental/latest`, `migration/latest`: the newest good one.

        Raises:
            BackupError: There is none, or there are several.
        """
        listing = self.listing()
        kinds: Mapping[str, Sequence[BackupKind]] = {
            "latest": tuple(kind for kind in BackupKind if kind.of_database)
        } | {f"{kind}/latest": (kind,) for kind in BackupKind}
        if wanted := kinds.get(text):
            good = [backup for backup in listing.backups if backup.kind in wanted and backup.good]
            if not good:
                kind = f"{wanted[0]} " if len(wanted) == 1 else ""
                raise BackupError(f"{self.store.location} holds no {kind}backup that was verified and found good")
            return good[-1]
        matching = [backup for backup in listing.backups if text and backup.id.startswith(text)]
        exact = [backup for backup in matching if backup.id == text]
        if len(exact or matching) == 1:
            return (exact or matching)[0]
        if matching:
            raise BackupError(f"{text!r} is the beginning of {len(matching)} backups, such as {matching[0].id}")
        for fault in listing.faults:
            if text and f"backups/{text}" in fault:
                raise BadBackupError(fault)
        raise BackupError(f"{self.store.location} holds no backup {text!r}")

    def chain(self, backup: Backup) -> list[Backup]:
        """Returns what is needed to restore a backup: its base, the incremental ones after it, itself.

        Raises:
            BadBackupError: A link is missing, cannot be read, was found bad, or is none; names it.
        """
        listing = self.listing()
        return chain(backup, listing.backups, listing.faults)

    # -- reading ---------------------------------------------------------------------------------------------------

    def file_of(self, backup: Backup, name: str) -> StoredFile:
        """Returns a file of a backup by the name that `add_file` was given.

        Raises:
            BadBackupError: It has none of that name.
        """
        for file in backup.files:
            if file.name in (f"{name}.zst", f"{name}.zst.age"):
                return file
        raise BadBackupError(f"{backup.id} has no file {name}")

    def read(self, backup: Backup, file: StoredFile, sink: Sink, progress: Progress | None = None) -> None:
        """Unseals a file of a backup into a sink; if this raises, what the sink got is to be thrown away.

        Args:
            backup: Whose file it is.
            file: Which one.
            sink: Where what it holds goes.
            progress: Told of the stored bytes read.

        Raises:
            BackupError: It cannot be read, is encrypted and the key is missing or another one.
            BadBackupError: It is missing, truncated or damaged.
            Exception: Whatever the sink raises.
        """
        label = f"{backup.id}/{file.name}"
        with self._open(backup, file) as source:
            unseal(source, sink, self.key, file, label, progress)

    def fetch(self, backup: Backup, file: StoredFile, into: Path, progress: Progress | None = None) -> None:
        """Writes what a file of a backup holds to a new file, readable by its owner only; on a fault nothing is left.

        Args:
            backup: Whose file it is.
            file: Which one.
            into: The path of the new file.
            progress: Told of the stored bytes read.

        Raises:
            BackupError: As of `read`; or it cannot be written, as when there is no space.
        """
        try:
            free = shutil.disk_usage(into.parent).free
            if file.raw_size > free:
                raise BackupError(
                    f"{backup.id}/{file.name} needs {file.raw_size:,} {plural(file.raw_size, 'byte')} in {into.parent},"
                    f" where {free:,} are free"
                )
            descriptor = os.open(into, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        except OSError as error:
            raise BackupError(f"{into} cannot be written: {why(error, into)}") from error
        try:
            with os.fdopen(descriptor, "wb") as sink:
                self.read(backup, file, sink, progress)
        except BaseException as error:
            into.unlink(missing_ok=True)
            if isinstance(error, OSError):
                raise BackupError(f"{into} cannot be written: {why(error, into)}") from error
            raise

    def examine(self, backup: Backup, progress: Progress | None = None) -> list[str]:
        """Reads every stored file of a backup and holds it against its record; needs no key.

        Args:
            backup: Which one.
            progress: Told of the stored bytes read.

        Returns:
            Each missing, truncated or damaged file in one line.

        Raises:
            BackupError: The store cannot be read.
        """
        faults: list[str] = []
        for file in backup.files:
            try:
                with self._open(backup, file) as source:
                    size, digest = 0, hashlib.sha256()
                    while chunk := source.read(CHUNK):
                        size += len(chunk)
                        digest.update(chunk)
                        if progress is not None:
                            progress(len(chunk))
                check_stored(file, size, digest.hexdigest(), f"{backup.id}/{file.name}")
            except BadBackupError as error:
                faults.append(str(error))
        return faults

    # -- drills ----------------------------------------------------------------------------------------------------

    def add_drill(self, at: datetime, record: Mapping[str, Any]) -> None:
        """Keeps what a drill has found.

        Args:
            at: When it was; with its zone.
            record: Of what JSON knows.

        Raises:
            BackupError: The store refuses.
        """
        self._put(f"drills/{at.astimezone(UTC):{_MICROSECOND}}.json", record)

    def drills(self) -> list[dict[str, Any]]:
        """Returns what the drills have found, by time.

        Raises:
            BackupError: The store cannot be listed, or not be read.
            BadBackupError: A record is damaged.
        """
        return [self._get(path) for path in self.store.names("drills/") if path.endswith(".json")]

    # -- within ----------------------------------------------------------------------------------------------------

    def _folders(self) -> Iterator[tuple[str, dict[str, int]]]:
        folders: dict[str, dict[str, int]] = {}
        for path, size in self.store.names("backups/").items():
            backup_id, _, name = path.removeprefix("backups/").partition("/")
            folders.setdefault(backup_id, {})[name] = size
        yield from folders.items()

    def _read(self, backup_id: str) -> Backup:
        path = f"backups/{backup_id}/{_RECORD}"
        backup = records.to_backup(self._get(path), path)
        if backup.id != backup_id:
            raise BadBackupError(f"{path} is the record of another backup, {backup.id}")
        return backup

    def _newest_verification(self, backup_id: str, files: Mapping[str, int]) -> Verification | None:
        """By the time in its name, whichever version wrote it."""
        names = {match[1]: name for name in files if (match := _VERIFICATION.fullmatch(name))}
        if not names:
            return None
        path = f"backups/{backup_id}/{names[max(names)]}"
        return records.to_verification(self._get(path), path)

    def _open(self, backup: Backup, file: StoredFile) -> Any:
        path = f"backups/{backup.id}/{file.name}"
        if not self.store.exists(path):
            raise BadBackupError(f"{backup.id}/{file.name} is missing")
        return self.store.open(path)

    def _put(self, path: str, record: Mapping[str, Any]) -> None:
        self.store.put(path, io.BytesIO(records.written(record)))

    def _get(self, path: str) -> dict[str, Any]:
        with self.store.open(path) as source:
            data = source.read(_LONGEST_RECORD + 1)
        if len(data) > _LONGEST_RECORD:
            raise BadBackupError(f"{path} is too long to be a record")
        return records.read(data, path)


def chain(backup: Backup, backups: Sequence[Backup], faults: Sequence[str] = ()) -> list[Backup]:
    """Returns what is needed to restore a backup: its base, the incremental ones after it, itself.

    Args:
        backup: The last of the chain.
        backups: All of the catalogue.
        faults: Its records that cannot be read.

    Raises:
        BadBackupError: A link is missing, cannot be read, was found bad, or is none; names it.
    """
    by_id = {other.id: other for other in backups}
    links = [backup]
    while (link := links[-1]).kind is BackupKind.INCREMENTAL:
        parent = by_id.get(link.parent or "")
        if parent is None:
            damaged = next((fault for fault in faults if f"backups/{link.parent}/" in fault), None)
            why = f"its parent {link.parent} is missing" if damaged is None else damaged
        elif parent in links or parent.system != link.system or not parent.kind.physical:
            why = f"{parent.id}, which it names as its parent, cannot be that"
        elif parent.verification is not None and not parent.verification.good:
            why = f"its parent {parent.id} did not hold when it was verified: {parent.verification.differences[0]}"
        else:
            links.append(parent)
            continue
        raise BadBackupError(f"the chain of {backup.id} is broken at {link.id}: {why}")
    return links[::-1]
