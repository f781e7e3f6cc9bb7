"""What is done to the backups of one installation, in one call each; the command line and the assets call these.

Which server, which store and which key come from the settings. A lost server is no obstacle to looking at its backups and
restoring them: it is reached only where something is taken from it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from psycopg import Connection
from psycopg.rows import TupleRow

from b44_assets.backup import health, retention, wal_spool
from b44_assets.backup import wal_archive as archive
from b44_assets.backup.archive_settings import ArchivingState, archiving, turn_off, turn_on
from b44_assets.backup.catalogue import Catalogue, Listing
from b44_assets.backup.drill import Drill, drill
from b44_assets.backup.encryption import Key, Progress
from b44_assets.backup.health import Health
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.restoring import schemas_of
from b44_assets.backup.retention import Expiry
from b44_assets.backup.state import Schemas, capture, configure_session, differences, snapshot
from b44_assets.backup.store import Store
from b44_assets.backup.taking import check, describe, take, take_logical
from b44_assets.backup.verification import verify
from b44_assets.backup.wal_spool import Shipped, Waiting
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error, BackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer, target_url
from b44_assets.session import Session
from b44_assets.wording import with_article

Tell = Callable[[str], None]
"""Told, in a few words, what is being done."""

LONGEST_BACKUP = timedelta(hours=4)
"""How long one may take before its attempt counts as failed: those of the night are told of by the review in the morning."""
LONGEST_WAIT = timedelta(minutes=30)
"""How long a file of the WAL may wait for `backup/wal`, which comes by every five minutes."""
VERIFY_AGAIN_AFTER = timedelta(days=28)
"""How old a verification may grow before the backup is restored anew: media fail in silence."""
_PATIENCE = timedelta(days=7)


@dataclass(frozen=True)
class BackupContext:
    """The backups of an installation.

    Attributes:
        settings: Of it.
        catalogue: Of its store.
    """

    settings: Settings
    catalogue: Catalogue

    @classmethod
    def of(cls, settings: Settings) -> BackupContext:
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
        backup: With its verification.
        unverified: Why it could not be restored here, as where the programs of its version are missing; None if it was.
    """

    backup: Backup
    unverified: str | None = None


def back_up(
    backup_context: BackupContext, kind: BackupKind, progress: Progress | None = None, tell: Tell | None = None
) -> BackedUp:
    """Takes a backup, restores it into a scratch server and compares it with its source.

    The first base backup of the embedded server turns the archiving of its WAL on, if it was not turned off. What will be
    refused is refused before that.

    Args:
        backup_context: Whose.
        kind: Of the backup.
        progress: Told of the bytes read from the server.
        tell: Told what is done.

    Raises:
        BackupError: It cannot be taken; nothing counts then, and older backups are as before.
        DatabaseError: The server cannot be reached.
    """
    tell = tell or _quiet
    url = target_url(backup_context.settings)
    if kind is not BackupKind.LOGICAL and backup_context.undecided:
        check(kind, url, backup_context.catalogue)
        tell("turning the archiving of WAL on")
        archive_wal(backup_context, on=True)
    tell(f"taking {with_article(kind)} backup")
    backup = take(kind, url, backup_context.catalogue, progress, pg_bin=backup_context.settings.pg_bin, tell=tell)
    try:
        return BackedUp(verify(backup_context.catalogue, backup, pg_bin=backup_context.settings.pg_bin, tell=tell))
    except BackupError as error:
        return BackedUp(backup, str(error))


def archive_schemas(backup_context: BackupContext, schemas: Sequence[str], tell: Tell | None = None) -> BackedUp:
    """Takes an archive of some schemas of the database, loads it into a scratch server and compares it.

    One that was taken before, and holds just what is there now, is read back again and serves as well.

    Args:
        backup_context: Whose.
        schemas: Which ones.
        tell: Told what is done.

    Raises:
        BackupError: It cannot be taken.
        DatabaseError: The server cannot be reached.
    """
    tell = tell or _quiet
    backup = _same_archive(backup_context, schemas)
    if backup is None:
        tell(f"archiving {' and '.join(schemas)}")
        url, pg_bin = target_url(backup_context.settings), backup_context.settings.pg_bin
        backup = take_logical(url, backup_context.catalogue, pg_bin=pg_bin, tell=tell, schemas=schemas)
    try:
        return BackedUp(verify(backup_context.catalogue, backup, pg_bin=backup_context.settings.pg_bin, tell=tell))
    except BackupError as error:
        return BackedUp(backup, str(error))


def _same_archive(backup_context: BackupContext, schemas: Sequence[str]) -> Backup | None:
    with _server(backup_context) as conn:
        configure_session(conn)
        server = describe(conn)
        known = [
            backup
            for backup in backup_context.catalogue.backups()
            if backup.kind is BackupKind.MIGRATION
            and (backup.system, backup.database) == (server.system, server.database)
            and (backup.verification is None or backup.good)
        ]
        if not known:
            return None
        looked_at = Schemas(tuple(schemas))
        with snapshot(conn, schemas=looked_at):
            now = capture(conn, schemas=looked_at)
    return next((backup for backup in reversed(known) if not differences(backup.state, now)), None)


def differences_from(archive: Backup, conn: Connection[TupleRow]) -> list[str]:
    """Compares what the open transaction sees of an archive's schemas with the archive.

    Args:
        archive: As of `archive_schemas`.
        conn: To the database; its session is configured as for a backup.

    Returns:
        Each difference in one line.
    """
    configure_session(conn)
    return differences(archive.state, capture(conn, schemas=schemas_of(archive)))


def archive_wal(backup_context: BackupContext, *, on: bool) -> None:
    """Turns archiving on the embedded server on or off.

    Raises:
        BackupError: The target is a server of the user's own, which only its operator can configure.
        DatabaseError: The embedded server does not take it.
    """
    if backup_context.embedded is None:
        raise BackupError("archiving on a server of your own is configured there: see `b44 db archiving`")
    begins = on and not backup_context.embedded.archives()
    (turn_on if on else turn_off)(backup_context.embedded)
    if begins:
        # The server counts as archived what was let go before, and it would be missed.
        with _server(backup_context) as conn:
            conn.execute("SELECT pg_catalog.pg_stat_reset_shared('archiver')")


def ship_wal(backup_context: BackupContext, tell: Tell | None = None, progress: Progress | None = None) -> Shipped:
    """Takes what the server has archived from the spool to the store.

    Args:
        backup_context: Whose.
        tell: Told what is done.
        progress: Told of the bytes that are in the store.

    Raises:
        BackupError: There is no spool, or the store refuses; what was not taken waits in the spool.
        DatabaseError: The server cannot be reached.
    """
    if backup_context.spool is None:
        raise BackupError("B44_WAL_DIR is not set: `b44 db archiving` says how your server is made to archive its WAL")
    if backup_context.undecided:
        archive_wal(backup_context, on=True)
    with _server(backup_context) as conn:
        system = describe(conn).system
    # Shipping may take long; no session of the server is kept waiting for it.
    if tell is not None:
        tell("taking the WAL to the store")
    return wal_spool.ship(backup_context.spool, backup_context.catalogue, system, progress)


def look_at_archiving(backup_context: BackupContext) -> ArchivingState:
    """Asks the server whether it archives its WAL.

    Raises:
        BackupError: The store cannot be listed.
        DatabaseError: The server cannot be reached.
    """
    with _server(backup_context) as conn:
        return archiving(conn, backup_context.spool, backup_context.catalogue.store, describe(conn).system)


def verify_again(
    backup_context: BackupContext, older_than: timedelta = timedelta(0), tell: Tell | None = None
) -> tuple[list[Backup], list[str]]:
    """Restores backups of the catalogue once more, the newest first.

    Args:
        backup_context: Whose.
        older_than: Only those whose last verification is as old as this, or that have none.
        tell: Told what is done.

    Returns:
        The backups with their new verifications, and in a line each those that cannot be restored here, and why.
    """
    done: list[Backup] = []
    unverified: list[str] = []
    now = datetime.now(UTC)
    for backup in reversed(backup_context.catalogue.backups()):
        if backup.verification is not None and now - backup.verification.verified_at < older_than:
            continue
        try:
            done.append(verify(backup_context.catalogue, backup, pg_bin=backup_context.settings.pg_bin, tell=tell))
        except BackupError as error:
            unverified.append(f"{backup.id}: {error}")
    return done, unverified


def expire(backup_context: BackupContext, *, dry_run: bool = False, tell: Tell | None = None) -> Expiry:
    """Removes what is older than `B44_KEEP_BACKUPS_DAYS` and not needed, or says what would go.

    Raises:
        BackupError: The store refuses.
    """
    return retention.expire(
        backup_context.catalogue,
        backup_context.settings.keep_backups_days,
        datetime.now(UTC),
        dry_run=dry_run,
        progress=tell,
    )


def rehearse(backup_context: BackupContext, tell: Tell | None = None) -> Drill:
    """Recovers the server from the store alone, and measures what would be lost and how long it takes.

    Raises:
        BackupError: There is no good base backup, or it cannot be restored.
    """
    if backup_context.spool is not None:
        ship_wal(backup_context, tell)
    return drill(
        backup_context.catalogue, target_url(backup_context.settings), pg_bin=backup_context.settings.pg_bin, tell=tell
    )


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


def survey(backup_context: BackupContext) -> Survey:
    """Reads the store and the spool, not the server.

    Raises:
        BackupError: The store does not answer.
    """
    store = backup_context.catalogue.store
    return Survey(
        datetime.now(UTC),
        backup_context.catalogue.listing(),
        {system: tuple(archive.wal_files(store, system)) for system in archive.systems(store)},
        None
        if backup_context.spool is None or not backup_context.spool.exists()
        else wal_spool.waiting(backup_context.spool),
    )


def newest_good(backups: Iterable[Backup], database: str) -> Backup | None:
    """The newest backup that was restored and found equal to its source, of a database or of a whole cluster; None without one."""
    good = [
        backup
        for backup in backups
        if backup.good and backup.kind.of_database and (backup.kind.physical or backup.database == database)
    ]
    return max(good, key=lambda backup: backup.ended_at, default=None)


def newest_told(session: Session, settings: Settings) -> str:
    """The newest good backup of the target in one line, or that there is none, or why that is not known."""
    try:
        with session.connection("look") as conn:
            database = conn.info.dbname
    except B44Error as error:
        return _unknown(error)
    return newest_of(database, settings)


def newest_of(database: str, settings: Settings) -> str:
    """The same of a database by its name."""
    try:
        found = newest_good(BackupContext.of(settings).catalogue.backups(), database)
    except B44Error as error:
        return _unknown(error)
    if found is None:
        return f"There is no backup of {database} that was restored and found equal to it: b44 backup makes one."
    return f"The newest good backup of {database} is {found.id}, of {found.ended_at:%Y-%m-%d %H:%M} UTC."


def _unknown(error: B44Error) -> str:
    return f"Whether there is a backup could not be found out: {error}"


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


def wal_is_whole(backup_context: BackupContext, found: Survey) -> dict[str, Health]:
    """Whether the archive of the WAL has no gap and keeps up, by question."""
    histories = {system: archive.histories(backup_context.catalogue, files) for system, files in found.wal.items()}
    waiting = found.waiting or Waiting(0, 0, None)
    return {
        "no_gap": health.whole_wal(found.listing.backups, found.wal, histories),
        "keeps_up": health.shipping(waiting, LONGEST_WAIT, found.at),
    }


def _server(backup_context: BackupContext) -> Connection[TupleRow]:
    return connect(target_url(backup_context.settings), application_name="b44 backup", autocommit=True)


def _quiet(_: str) -> None:
    pass
