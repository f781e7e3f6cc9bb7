"""What is done to the backups of one installation, in one call each; the command line and the assets call these.

Which server, which store and which key come from the settings. A lost server is no obstacle to looking at its backups and
restoring them: it is reached only where something is taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg import Connection
from psycopg.rows import TupleRow

from b44_assets.backup import health, retention
from b44_assets.backup import wal_archive as archive
from b44_assets.backup.archive_settings import ArchivingState, archiving, turn_off, turn_on
from b44_assets.backup.catalogue import Catalogue, Listing
from b44_assets.backup.drill import Drill, drill
from b44_assets.backup.encryption import Key, Progress
from b44_assets.backup.health import Health
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.restoring import schemas_of
from b44_assets.backup.retention import Expiry
from b44_assets.backup.state import capture, configure_session, differences, snapshot
from b44_assets.backup.store import Store
from b44_assets.backup.taking import check, describe, take, take_logical
from b44_assets.backup.verification import verify
from b44_assets.backup.wal_archive import Shipped, Waiting
from b44_assets.config.settings import Settings
from b44_assets.errors import BackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer, target_url
from b44_assets.wording import with_article

Tell = Callable[[str], None]
"""Told, in a few words, what is being done."""

LONGEST_BACKUP = timedelta(hours=4)
"""How long one may take before its attempt counts as failed: those of the night are told of by the review in the morning."""
LONGEST_WAIT = timedelta(minutes=30)
"""How long a file of the WAL may wait for `backup/wal`, which comes by every five minutes."""
VERIFY_AGAIN_AFTER = timedelta(days=28)
"""How old a proof may grow before the backup is restored anew: media fail in silence."""
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class Vault:
    """The backups of an installation.

    Attributes:
        settings: Of it.
        catalogue: Of its store.
    """

    settings: Settings
    catalogue: Catalogue

    @classmethod
    def of(cls, settings: Settings) -> Vault:
        """The one that the settings name; connects to nothing yet but, at most, the store.

        Raises:
            BackupError: The store or the key cannot be used.
        """
        key = None if settings.backup_key is None else Key.parse(settings.backup_key)
        return cls(settings, Catalogue(Store.at(settings.backup_location), key))

    @property
    def embedded(self) -> EmbeddedServer | None:
        """The embedded server, if that is what is backed up."""
        return EmbeddedServer(self.settings.home) if self.settings.database_url is None else None

    @property
    def undecided(self) -> bool:
        """Whether the embedded server is backed up, and the archiving of its WAL was turned neither on nor off."""
        return self.embedded is not None and self.embedded.archives() is None

    @property
    def spool(self) -> Path | None:
        """The folder that the server archives its WAL into; None where the user's own server has none."""
        return self.settings.wal_dir if self.embedded is None else self.embedded.spool


@dataclass(frozen=True)
class BackedUp:
    """A backup that was taken.

    Attributes:
        backup: With its proof.
        unproven: Why it could not be restored here, as where the programs of its version are missing; None if it was.
    """

    backup: Backup
    unproven: str | None = None


def back_up(vault: Vault, kind: BackupKind, progress: Progress | None = None, tell: Tell | None = None) -> BackedUp:
    """Takes a backup, restores it into a scratch server and compares it with its source.

    The first base backup of the embedded server turns the archiving of its WAL on, if it was not turned off. What will be
    refused is refused before that.

    Args:
        vault: Whose.
        kind: Of the backup.
        progress: Told of the bytes read from the server.
        tell: Told what is done.

    Raises:
        BackupError: It cannot be taken; nothing counts then, and older backups are as before.
        DatabaseError: The server cannot be reached.
    """
    tell = tell or _quiet
    url = target_url(vault.settings)
    if kind is not BackupKind.LOGICAL and vault.undecided:
        check(kind, url, vault.catalogue)
        tell("turning the archiving of WAL on")
        archive_wal(vault, on=True)
    tell(f"taking {with_article(kind)} backup")
    backup = take(kind, url, vault.catalogue, progress, pg_bin=vault.settings.pg_bin, tell=tell)
    try:
        return BackedUp(verify(vault.catalogue, backup, pg_bin=vault.settings.pg_bin, tell=tell))
    except BackupError as error:
        return BackedUp(backup, str(error))


def archive_schemas(vault: Vault, schemas: Sequence[str], tell: Tell | None = None) -> BackedUp:
    """Takes an archive of some schemas of the database, loads it into a scratch server and compares it.

    One that was taken before, and holds just what is there now, is read back again and serves as well.

    Args:
        vault: Whose.
        schemas: Which ones.
        tell: Told what is done.

    Raises:
        BackupError: It cannot be taken.
        DatabaseError: The server cannot be reached.
    """
    tell = tell or _quiet
    backup = _same_archive(vault, schemas)
    if backup is None:
        tell(f"archiving {' and '.join(schemas)}")
        url, pg_bin = target_url(vault.settings), vault.settings.pg_bin
        backup = take_logical(url, vault.catalogue, pg_bin=pg_bin, tell=tell, schemas=schemas)
    try:
        return BackedUp(verify(vault.catalogue, backup, pg_bin=vault.settings.pg_bin, tell=tell))
    except BackupError as error:
        return BackedUp(backup, str(error))


def _same_archive(vault: Vault, schemas: Sequence[str]) -> Backup | None:
    with _server(vault) as conn:
        configure_session(conn)
        server = describe(conn)
        known = [
            backup
            for backup in vault.catalogue.backups()
            if backup.kind is BackupKind.MIGRATION
            and (backup.system, backup.database) == (server.system, server.database)
            and (backup.proof is None or backup.good)
        ]
        if not known:
            return None
        with snapshot(conn, schemas=schemas):
            now = capture(conn, schemas=schemas)
    return next((backup for backup in reversed(known) if not differences(backup.state, now)), None)


def differences_from(archive: Backup, conn: Connection[TupleRow]) -> list[str]:
    """Compares what the open transaction sees of an archive's schemas with the archive.

    Args:
        archive: As of `archive_schemas`.
        conn: To the database; its session is planned as for a backup.

    Returns:
        Each difference in one line.
    """
    configure_session(conn)
    return differences(archive.state, capture(conn, schemas=schemas_of(archive)))


def archive_wal(vault: Vault, *, on: bool) -> None:
    """Turns archiving on the embedded server on or off.

    Raises:
        BackupError: The target is a server of the user's own, which only its operator can configure.
        DatabaseError: The embedded server does not take it.
    """
    if vault.embedded is None:
        raise BackupError("archiving on a server of your own is configured there: see `b44 db archiving`")
    (turn_on if on else turn_off)(vault.embedded)


def ship_wal(vault: Vault, tell: Tell | None = None) -> Shipped:
    """Takes what the server has archived from the spool to the store.

    Raises:
        BackupError: There is no spool, or the store refuses; what was not taken waits in the spool.
        DatabaseError: The server cannot be reached.
    """
    if vault.spool is None:
        raise BackupError("B44_WAL_DIR is not set: `b44 db archiving` says how your server is made to archive its WAL")
    if vault.undecided:
        archive_wal(vault, on=True)
    with _server(vault) as conn:
        system = describe(conn).system
    # Shipping may take long; no session of the server is kept waiting for it.
    return archive.ship(vault.spool, vault.catalogue, system, tell)


def look_at_archiving(vault: Vault) -> ArchivingState:
    """Asks the server whether it archives its WAL.

    Raises:
        BackupError: The store cannot be listed.
        DatabaseError: The server cannot be reached.
    """
    with _server(vault) as conn:
        return archiving(conn, vault.spool, vault.catalogue.store, describe(conn).system)


def verify_again(
    vault: Vault, older_than: timedelta = timedelta(0), tell: Tell | None = None
) -> tuple[list[Backup], list[str]]:
    """Restores backups of the catalogue once more, the newest first.

    Args:
        vault: Whose.
        older_than: Only those whose last proof is as old as this, or that have none.
        tell: Told what is done.

    Returns:
        The backups with their new proofs, and in a line each those that cannot be restored here, and why.
    """
    done: list[Backup] = []
    unproven: list[str] = []
    now = datetime.now(UTC)
    for backup in reversed(vault.catalogue.backups()):
        if backup.proof is not None and now - backup.proof.verified_at < older_than:
            continue
        try:
            done.append(verify(vault.catalogue, backup, pg_bin=vault.settings.pg_bin, tell=tell))
        except BackupError as error:
            unproven.append(f"{backup.id}: {error}")
    return done, unproven


def expire(vault: Vault, *, dry_run: bool = False, tell: Tell | None = None) -> Expiry:
    """Removes what is older than `B44_KEEP_BACKUPS_DAYS` and not needed, or says what would go.

    Raises:
        BackupError: The store refuses.
    """
    return retention.expire(
        vault.catalogue, vault.settings.keep_backups_days, datetime.now(UTC), dry_run=dry_run, progress=tell
    )


def rehearse(vault: Vault, tell: Tell | None = None) -> Drill:
    """Recovers the server from the store alone, and measures what would be lost and how long it takes.

    Raises:
        BackupError: There is no good base backup, or it cannot be restored.
    """
    if vault.spool is not None:
        ship_wal(vault, tell)
    return drill(vault.catalogue, target_url(vault.settings), pg_bin=vault.settings.pg_bin, tell=tell)


# -- questions ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Survey:
    """What the store holds, read once for all questions.

    Attributes:
        at: When it was read.
        listing: Backups, attempts, and records that cannot be read.
        wal: The archive of each cluster, by system identifier.
        waiting: What the spool holds; None without one.
    """

    at: datetime
    listing: Listing
    wal: Mapping[str, tuple[archive.WalFile, ...]]
    waiting: Waiting | None


def survey(vault: Vault) -> Survey:
    """Reads the store and the spool, not the server.

    Raises:
        BackupError: The store does not answer.
    """
    store = vault.catalogue.store
    return Survey(
        datetime.now(UTC),
        vault.catalogue.listing(),
        {system: tuple(archive.wal_files(store, system)) for system in archive.systems(store)},
        None if vault.spool is None or not vault.spool.exists() else archive.waiting(vault.spool),
    )


def newest_is_good(found: Survey, kind: BackupKind, within: timedelta) -> Health:
    """Whether the newest good backup of a kind is new enough."""
    return health.fresh(found.listing.backups, {kind: within}, found.at)


def nothing_is_broken(found: Survey) -> dict[str, Health]:
    """Whether one can rely on what the catalogue holds, by question."""
    backups, attempts, faults = found.listing.backups, found.listing.attempts, found.listing.faults
    return {
        "records_readable": health.readable(faults),
        "chains_whole": health.whole_chains(backups, faults),
        "backups_verified": health.verified(backups, VERIFY_AGAIN_AFTER + _PATIENCE, found.at),
        "nothing_failed_silently": health.nothing_failed(backups, attempts, found.at, LONGEST_BACKUP),
    }


def wal_is_whole(vault: Vault, found: Survey) -> dict[str, Health]:
    """Whether the archive of the WAL has no gap and keeps up, by question."""
    histories = {system: archive.histories(vault.catalogue, files) for system, files in found.wal.items()}
    waiting = found.waiting or Waiting(0, 0, None)
    return {
        "no_gap": health.whole_wal(found.listing.backups, found.wal, histories),
        "keeps_up": health.shipping(waiting, (), LONGEST_WAIT, found.at),
    }


def _server(vault: Vault) -> Connection[TupleRow]:
    return connect(target_url(vault.settings), application_name="b44 backup", autocommit=True)


def _quiet(_: str) -> None:
    pass
