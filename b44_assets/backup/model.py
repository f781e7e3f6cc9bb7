"""What a backup is, as it stands in the catalogue: `backups/<id>/backup.json` beside its files.

The catalogue lies in the store itself, not in the database, which may be lost. A backup counts from the moment at which
its `backup.json` is there, and that is written last; it counts as good once it was restored and found equal to what its
source held (`verification`). Times are in UTC, sizes in bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum


class BackupKind(StrEnum):
    """How a backup was taken."""

    LOGICAL = "logical"
    BASE = "base"
    INCREMENTAL = "incremental"
    MIGRATION = "migration"
    """A dump of the schemas of a finished migration, and not of the whole database."""

    @property
    def physical(self) -> bool:
        """Whether it is of the whole cluster's files, and not a dump."""
        return self in (BackupKind.BASE, BackupKind.INCREMENTAL)

    @property
    def of_database(self) -> bool:
        """Whether the database can be restored from it; the archive of a finished migration's tables is none."""
        return self is not BackupKind.MIGRATION


@dataclass(frozen=True)
class StoredFile:
    """A file of a backup, as it lies in the store: compressed, and encrypted where there is a key.

    Attributes:
        name: Its path below the backup's folder.
        size: Of what is stored.
        sha256: Of what is stored, in hexadecimal; so damage is found without the key.
        raw_size: Of what it holds.
        raw_sha256: Of what it holds, in hexadecimal.
    """

    name: str
    size: int
    sha256: str
    raw_size: int
    raw_sha256: str


@dataclass(frozen=True)
class TableState:
    """What a table held: the count of its rows, and a checksum over them in any order.

    Attributes:
        rows: How many.
        checksum: The sum of the rows' hashes; `0` for no rows.
    """

    rows: int
    checksum: str


@dataclass(frozen=True)
class DatabaseAccess:
    """Owners and privileges in a database.

    Attributes:
        objects: By identity, in a line: the owner, and each role with what it may do; `*` is with grant option.
        owners: The roles that own something, or that default privileges are of.
        grantees: Other roles that may do something.
        named: Roles that policies name: without them these cannot be made.
        superusers: Those of all these that are superusers.
        database_owner: Whose the database is; that of what is restored may be somebody else's.
        database: What others may do with the database: `role=PRIVILEGE`, with no role for everybody.
    """

    objects: Mapping[str, str] = field(default_factory=dict[str, str])
    owners: tuple[str, ...] = ()
    grantees: tuple[str, ...] = ()
    named: tuple[str, ...] = ()
    superusers: tuple[str, ...] = ()
    database_owner: str = ""
    database: tuple[str, ...] = ()

    @property
    def roles(self) -> list[str]:
        """All roles that are needed to restore it as it was."""
        return sorted({*self.owners, *self.grantees, *self.named})

    @property
    def own_roles(self) -> list[str]:
        """Those of them that a new server does not bring along."""
        return [role for role in self.roles if not role.startswith("pg_")]


@dataclass(frozen=True)
class SourceState:
    """What the source held at the moment that the backup stands for.

    Attributes:
        taken_at: The time of the snapshot, by the server's clock.
        lsn: Up to where the WAL has to be replayed to be at that moment; None for a logical backup.
        schema: A digest for each object of the schema, by its identity (`table public.invoices`, …).
        tables: By qualified name, `schema.table`; partitions each by itself.
        sequences: How many steps each is past its start, by qualified name; what is restored may not be behind.
        access: Owners and privileges, for a logical backup; None for another one, whose digests cover them, and where an
            earlier version of ours took it.
    """

    taken_at: datetime
    lsn: str | None
    schema: Mapping[str, str]
    tables: Mapping[str, TableState]
    sequences: Mapping[str, int]
    access: DatabaseAccess | None = None


@dataclass(frozen=True)
class Verification:
    """That a backup was restored into a scratch server and compared with its source's state.

    Attributes:
        verified_at: When.
        seconds: How long restoring and comparing took.
        differences: Each in one line; none for a good backup.
    """

    verified_at: datetime
    seconds: float
    differences: tuple[str, ...] = ()

    @property
    def good(self) -> bool:
        """Whether it held."""
        return not self.differences


@dataclass(frozen=True)
class Backup:
    """A backup of the catalogue.

    Attributes:
        id: `20261126T151500Z-logical`, with a number behind it where that is taken; sorts by time.
        kind: How it was taken.
        database: The database's name (a base backup holds the whole cluster, and this one is compared).
        system: The cluster's system identifier; backups and WAL of another cluster never mix.
        server_version: As in `server_version_num`: 180000.
        began_at: When.
        ended_at: When it was complete.
        files: What it is made of.
        state: What the source held.
        parent: The backup that an incremental one needs; None for others.
        timeline: Of the WAL; None for a logical backup.
        start_lsn: From where on it needs WAL; None for a logical backup.
        stop_lsn: From where on it is consistent; None for a logical backup.
        encrypted: Whether a key is needed.
        segment_size: Of the WAL's segments, in bytes; None for a logical backup.
        superuser: The cluster's first role, as which a restored cluster is reached; None for a logical backup.
        locale: What the database sorts and compares text by, as `pg_database` has it: `provider`, `collate`, `ctype`,
            `locale`.
        client: The programs that took it, with version and place; None where an earlier version of ours took it.
        left_out: Schemas of somebody else that the role which took it may not read, as those of a host; nothing of them is in it.
        verification: The newest verification; None before the first.
    """

    id: str
    kind: BackupKind
    database: str
    system: str
    server_version: int
    began_at: datetime
    ended_at: datetime
    files: tuple[StoredFile, ...]
    state: SourceState
    parent: str | None = None
    timeline: int | None = None
    start_lsn: str | None = None
    stop_lsn: str | None = None
    encrypted: bool = False
    segment_size: int | None = None
    superuser: str | None = None
    locale: Mapping[str, str] = field(default_factory=dict[str, str])
    client: str | None = None
    left_out: tuple[str, ...] = ()
    verification: Verification | None = field(default=None)

    @property
    def good(self) -> bool:
        """Whether it was restored and found equal to its source."""
        return self.verification is not None and self.verification.good

    @property
    def size(self) -> int:
        """All its files, as stored."""
        return sum(file.size for file in self.files)


@dataclass(frozen=True)
class WalFile:
    """A file of the WAL archive: a segment, or a timeline's history.

    The checksum of what is stored is part of its name there, so that its damage shows and a second file of the name is
    noticed.

    Attributes:
        name: As the server calls it: `000000010000000000000003`, `00000002.history`.
        size: Of what is stored.
        sha256: Of what is stored.
        path: Where it lies in the store.
        encrypted: Whether a key is needed.
    """

    name: str
    size: int
    sha256: str
    path: str
    encrypted: bool = False
