"""Taking backups: logical ones by pg_dump, base and incremental ones by pg_basebackup, each with its source's state.

Everything goes through the seal straight into the store. A physical backup brings the WAL that it needs along, up to the
moment whose state is recorded, and so can be restored and compared whether or not there is an archive.
"""

from __future__ import annotations

import io
import logging
import tarfile
from collections.abc import Callable, Generator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

import psycopg
from psycopg import Connection, sql
from psycopg.rows import TupleRow

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.consistent_snapshot import standing_still
from b44_assets.backup.encryption import Progress, Source
from b44_assets.backup.lsn import Segment, position
from b44_assets.backup.manifest import MANIFEST, wal_range
from b44_assets.backup.model import Backup, BackupKind, SourceState, StoredFile
from b44_assets.backup.receiving import receiving
from b44_assets.backup.scratch import scratch
from b44_assets.backup.state import (
    Schemas,
    capture,
    configure_session,
    not_set_back,
    read_sequences,
    snapshot,
    unreadable_schemas,
)
from b44_assets.backup.tools import Login, run, streaming
from b44_assets.errors import BackupError
from b44_assets.postgres.clients import shown
from b44_assets.postgres.connect import cancelling, connect

logger = logging.getLogger(__name__)

Tell = Callable[[str], None]
"""Told in a few words what is done next."""

DUMP = "dump"
ROLES = "roles.sql"
BASE = "base.tar"
WAL = "wal/"

_LOCK_WAIT_MS = 60_000
_BLOCK = tarfile.BLOCKSIZE


@dataclass(frozen=True)
class Server:
    """What a server says of itself.

    Attributes:
        now: By its clock.
        system: The cluster's system identifier; `unknown` where it is not told to this role.
        version: As in `server_version_num`.
        database: The name of the database that we are connected to.
        segment_size: Of its WAL, in bytes.
        replication: Whether this role may stream WAL and take base backups.
        superuser: The cluster's first role.
        locale: As in `Backup`.
    """

    now: datetime
    system: str
    version: int
    database: str
    segment_size: int
    replication: bool
    superuser: str
    locale: Mapping[str, str]


def describe(conn: Connection[TupleRow]) -> Server:
    """Asks the server what a backup has to know of it.

    Args:
        conn: In autocommit mode.

    Raises:
        BackupError: It is a standby, which cannot be backed up.
    """
    row = conn.execute(
        "select clock_timestamp(), current_database(), pg_is_in_recovery(),"
        " (select setting::bigint from pg_settings where name = 'wal_segment_size'),"
        " (select rolsuper or rolreplication from pg_roles where rolname = current_user),"
        " (select rolname from pg_roles where oid = 10),"
        " (select to_jsonb(d) from pg_database d where datname = current_database())"
    ).fetchone()
    assert row is not None
    now, database, standby, segment_size, replication, superuser, settings = row
    # One of the two names before 17, the other one since.
    settings["datlocale"] = settings.get("datlocale") or settings.get("daticulocale")
    names = {"provider": "datlocprovider", "collate": "datcollate", "ctype": "datctype", "locale": "datlocale"}
    locale = {name: str(settings[column]) for name, column in names.items() if settings[column]}
    if standby:
        raise BackupError("the server is a standby: back up its primary")
    try:
        found = conn.execute("select system_identifier from pg_control_system()").fetchone()
        system = str(found[0]) if found else "unknown"
    except psycopg.errors.InsufficientPrivilege:
        system = "unknown"
    return Server(now, system, conn.info.server_version, database, segment_size, replication, superuser, locale)


def take(
    kind: BackupKind,
    url: str,
    catalogue: Catalogue,
    progress: Progress | None = None,
    *,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
) -> Backup:
    """Takes a backup. It counts from the end of this on, and as good once `verifying.verify` has restored it.

    Args:
        kind: Of the backup.
        url: libpq URL of the database.
        catalogue: Where it goes.
        progress: Told of the bytes read from the server.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told which programs take it, and what they may not know of the server.

    Raises:
        BackupError: It cannot be taken: a right, a setting, a parent is missing, the store refuses it. Nothing is left that
            counts, and older backups are as before.
        DatabaseError: There is no connection, or no programs for this server.
    """
    if kind is BackupKind.MIGRATION:
        raise ValueError("the archive of a migration is of some schemas: take_logical takes it")
    if kind is BackupKind.LOGICAL:
        return take_logical(url, catalogue, progress, pg_bin=pg_bin, tell=tell)
    incremental = kind is BackupKind.INCREMENTAL
    return take_physical(url, catalogue, progress, incremental=incremental, pg_bin=pg_bin, tell=tell)


def check(kind: BackupKind, url: str, catalogue: Catalogue) -> None:
    """Refuses a physical backup that could not be taken, and changes nothing.

    Args:
        kind: Base or incremental.
        url: libpq URL of the database.
        catalogue: Where it would go.

    Raises:
        BackupError: A right, a setting, the version or a parent is missing.
        DatabaseError: There is no connection.
    """
    with connect(url, application_name="b44 backup", autocommit=True) as conn:
        server = describe(conn)
        _check(conn, server, kind)
    if kind is BackupKind.INCREMENTAL:
        _parent(catalogue, server)


def _login(
    url: str, conn: Connection[TupleRow], pg_bin: Path | None, tell: Tell | None, *, to_dump: bool = False
) -> Login:
    """Return how to reach the server, and say with which programs."""
    login = Login.of(url, conn, configured=pg_bin, to_dump=to_dump)
    version = conn.info.server_version
    if tell is not None:
        tell(f"with the programs of {login.clients}")
        if to_dump and not login.clients.knows(version):
            tell(
                f"notice: the server is PostgreSQL {shown(version)}, and these programs may not know all that it keeps:"
                f" better ones come with postgresql-client-{version // 10_000}, up to date, or are named by B44_PG_BIN"
            )
    return login


def take_logical(
    url: str,
    catalogue: Catalogue,
    progress: Progress | None = None,
    *,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
    schemas: Sequence[str] | None = None,
) -> Backup:
    """Takes a logical backup: a dump of one database, for which reading all of it is all the right that is needed.

    Args:
        url: libpq URL of the database.
        catalogue: Where it goes.
        progress: Told of the bytes that pg_dump gives.
        pg_bin: As of `take`.
        tell: As of `take`.
        schemas: Only these, those of a migration; by default all.

    Raises:
        BackupError: As of `take`.
        DatabaseError: As of `take`.
    """
    kind = BackupKind.LOGICAL if schemas is None else BackupKind.MIGRATION
    with connect(url, application_name="b44 backup", autocommit=True) as conn:
        login = _login(url, conn, pg_bin, tell, to_dump=True)
        configure_session(conn)
        server = describe(conn)
        left_out = tuple(unreadable_schemas(conn)) if schemas is None else ()
        if left_out and tell is not None:
            named = ", ".join(left_out)
            tell(f"notice: not in it, since they are somebody else's and this role may not read all of them: {named}")
        looked_at = Schemas(None if schemas is None else tuple(schemas), left_out)
        with (
            _attempt(catalogue, kind, server.now) as backup_id,
            _plainly(server),
            snapshot(conn, schemas=looked_at),
        ):
            row = conn.execute("select pg_export_snapshot()").fetchone()
            assert row is not None
            before = read_sequences(conn, physical=False, schemas=looked_at)
            command = [login.program("pg_dump"), f"--dbname={login.conninfo}", "--no-password", f"--snapshot={row[0]}"]
            command += ["--format=custom", "--compress=0", f"--lock-wait-timeout={_LOCK_WAIT_MS}"]
            command += [f"--schema={schema}" for schema in schemas or ()]
            command += [f"--exclude-schema={sql.Identifier(schema).as_string()}" for schema in left_out]
            with (
                _meanwhile(conn, lambda: capture(conn, sequences=before, schemas=looked_at)) as state,
                streaming(command, f"{server.database} cannot be dumped", login.environment) as dump,
            ):
                files = [catalogue.add_file(backup_id, DUMP, dump, progress)]
            found = state.result()
            after = read_sequences(conn, physical=False, schemas=looked_at)
            if schemas is None:
                files += _roles(catalogue, backup_id, server, login)
            ended = _now(conn)
            backup = Backup(
                id=backup_id,
                kind=kind,
                database=server.database,
                system=server.system,
                server_version=server.version,
                began_at=server.now,
                ended_at=ended,
                files=tuple(files),
                state=replace(found, sequences=not_set_back(found.sequences, after)),
                encrypted=catalogue.key is not None,
                locale=server.locale,
                client=str(login.clients),
                left_out=left_out,
            )
            catalogue.record(backup)
    return backup


def take_physical(
    url: str,
    catalogue: Catalogue,
    progress: Progress | None = None,
    *,
    incremental: bool = False,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
) -> Backup:
    """Takes a base backup of the whole cluster, or what has changed since the newest good one.

    Args:
        url: libpq URL of the database whose state is recorded.
        catalogue: Where it goes.
        progress: Told of the bytes that pg_basebackup gives.
        incremental: Only what has changed.
        pg_bin: As of `take`.
        tell: As of `take`.

    Raises:
        BackupError: As of `take`.
        DatabaseError: As of `take`.
    """
    kind = BackupKind.INCREMENTAL if incremental else BackupKind.BASE
    with (
        connect(url, application_name="b44 backup", autocommit=True) as keeper,
        connect(url, application_name="b44 backup", autocommit=True) as holder,
    ):
        login = _login(url, keeper, pg_bin, tell)
        configure_session(keeper)
        configure_session(holder)
        server = describe(keeper)
        _check(keeper, server, kind)
        parent = _parent(catalogue, server) if incremental else None
        with _attempt(catalogue, kind, server.now) as backup_id, _plainly(server), scratch() as place:
            # Else the server might drop WAL before it is fetched. It goes with this session.
            keeper.execute(
                "select pg_create_physical_replication_slot(%s, true, true)", (f"b44_backup_{keeper.info.backend_pid}",)
            )
            command = [login.program("pg_basebackup"), f"--dbname={login.conninfo}", "--no-password", "--pgdata=-"]
            command += ["--format=tar", "--wal-method=none", "--checkpoint=fast", f"--label=b44 {backup_id}"]
            if parent is not None:
                manifest = place.folder / MANIFEST
                catalogue.fetch(parent, catalogue.file_of(parent, MANIFEST), manifest)
                command.append(f"--incremental={manifest}")
            wal = place.folder / "wal"
            wal.mkdir(mode=0o700)
            # Where a segment has just ended, there is nothing to receive before somebody writes, which on an idle server nobody does.
            _mark(keeper)
            with receiving(login, wal) as receiver:
                with streaming(command, "the cluster cannot be backed up", login.environment) as tar:
                    tap = ManifestTap(tar)
                    files = [catalogue.add_file(backup_id, BASE, tap, progress)]
                files.append(catalogue.add_file(backup_id, MANIFEST, io.BytesIO(tap.manifest)))
                timeline, start, stop = wal_range(tap.manifest)
                before = read_sequences(holder, physical=True)
                with standing_still(keeper, holder, url) as lsn:
                    receiver.finish(_mark(keeper))
                    first = Segment.holding(position(start), timeline, server.segment_size)
                    files += _wal(catalogue, backup_id, wal, first.name(server.segment_size))
                    with cancelling(holder):
                        found = capture(holder, lsn=lsn, sequences=before)
                after = read_sequences(holder, physical=True)
            backup = Backup(
                id=backup_id,
                kind=kind,
                database=server.database,
                system=server.system,
                server_version=server.version,
                began_at=server.now,
                ended_at=_now(keeper),
                files=tuple(files),
                state=replace(found, sequences=not_set_back(found.sequences, after)),
                parent=None if parent is None else parent.id,
                timeline=timeline,
                start_lsn=start,
                stop_lsn=stop,
                encrypted=catalogue.key is not None,
                segment_size=server.segment_size,
                superuser=server.superuser,
                locale=server.locale,
                client=str(login.clients),
            )
            catalogue.record(backup)
    return backup


class ManifestTap:
    """Passes on a tar as it comes, and keeps the manifest that is in it.

    Attributes:
        manifest: The manifest, once all was read.
    """

    def __init__(self, source: Source) -> None:
        self.manifest = b""
        self._source = source
        self._header = b""
        self._left = 0
        self._padding = 0
        self._keeping = False

    def read(self, size: int = -1, /) -> bytes:
        """Returns at most so many bytes of the tar, none at its end."""
        data = self._source.read(size)
        self._look(memoryview(data))
        return data

    def _look(self, data: memoryview) -> None:
        while data:
            if self._left or self._padding:
                if self._keeping:
                    self.manifest += data[: self._left]
                inside = min(self._left, len(data))
                between = min(self._padding, len(data) - inside)
                self._left -= inside
                self._padding -= between
                data = data[inside + between :]
                continue
            taken = min(_BLOCK - len(self._header), len(data))
            self._header += bytes(data[:taken])
            data = data[taken:]
            if len(self._header) == _BLOCK:
                self._begin(self._header)
                self._header = b""

    def _begin(self, header: bytes) -> None:
        if not any(header):
            # The end, or what fills it up.
            return
        try:
            member = tarfile.TarInfo.frombuf(header, "utf-8", "surrogateescape")
        except tarfile.HeaderError as error:
            raise BackupError(f"what pg_basebackup gives is no tar: {error}") from error
        self._keeping = member.name == MANIFEST
        self._left = member.size
        self._padding = -member.size % _BLOCK


def _check(conn: Connection[TupleRow], server: Server, kind: BackupKind) -> None:
    if not server.replication:
        user = sql.Identifier(conn.info.user).as_string()
        raise BackupError(
            f"user {conn.info.user!r} may not take base or incremental backups or receive WAL: have a superuser run"
            f" ALTER ROLE {user} REPLICATION, which managed servers do not give; logical backups work"
        )
    row = conn.execute(
        "select current_setting('wal_level'), current_setting('summarize_wal', true),"
        " (select string_agg(spcname, ', ') from pg_tablespace where spcname not in ('pg_default', 'pg_global'))"
    ).fetchone()
    assert row is not None
    level, summaries, tablespaces = row
    if level == "minimal":
        raise BackupError("base backups need wal_level = replica in postgresql.conf, and a restart")
    if tablespaces:
        raise BackupError(
            f"base backups of a cluster with tablespaces of its own are not supported ({tablespaces}): move what is in"
            " them to pg_default, or take logical backups"
        )
    if kind is BackupKind.INCREMENTAL and server.version < 170000:
        raise BackupError(f"incremental backups need PostgreSQL 17, and this is {server.version // 10000}")
    if kind is BackupKind.INCREMENTAL and summaries != "on":
        raise BackupError("incremental backups need summarize_wal = on in postgresql.conf (a reload is enough)")


def _parent(catalogue: Catalogue, server: Server) -> Backup:
    for backup in reversed(catalogue.backups()):
        if backup.good and backup.kind.physical and backup.system == server.system:
            # Restoring would need all of it.
            catalogue.chain(backup)
            return backup
    raise BackupError(
        f"an incremental backup needs a verified base backup of the cluster to stand on, and {catalogue.store.location}"
        " has none: take a base backup"
    )


def _mark(conn: Connection[TupleRow]) -> str:
    """Writes a record, so that there is WAL to receive, and a recovery sees that it is past the moment before.

    Returns:
        Up to where the WAL is needed; there is some beyond it.
    """
    conn.execute("select set_config('synchronous_commit', 'local', false)")
    conn.execute("select pg_logical_emit_message(true, 'b44', '')")
    row = conn.execute("select pg_current_wal_flush_lsn()::text").fetchone()
    conn.execute("select pg_logical_emit_message(true, 'b44', '')")
    assert row is not None
    return row[0]


def _wal(catalogue: Catalogue, backup_id: str, folder: Path, first: str) -> list[StoredFile]:
    stored: list[StoredFile] = []
    for file in sorted(folder.iterdir()):
        # The receiver was under way earlier. A server that was itself restored has a timeline with a history.
        if file.name >= first or file.suffix == ".history":
            with file.open("rb") as source:
                stored.append(catalogue.add_file(backup_id, WAL + file.name, source))
    return stored


def _roles(catalogue: Catalogue, backup_id: str, server: Server, login: Login) -> list[StoredFile]:
    """Stores the roles, which are no part of the dump; without passwords, which only superusers may read."""
    command = [
        login.program("pg_dumpall"),
        f"--dbname={login.conninfo}",
        f"--database={server.database}",
        "--no-password",
    ]
    try:
        said = run([*command, "--roles-only", "--no-role-passwords"], "the roles", login.environment)
    except BackupError as error:
        logger.warning("the backup is without the cluster's roles: %s", error)
        return []
    return [catalogue.add_file(backup_id, ROLES, io.BytesIO(said.stdout.encode()))]


def _now(conn: Connection[TupleRow]) -> datetime:
    row = conn.execute("select clock_timestamp()").fetchone()
    assert row is not None
    return row[0]


@contextmanager
def _attempt(catalogue: Catalogue, kind: BackupKind, now: datetime) -> Generator[str]:
    """Gives an id, and removes what was stored under it if the block does not come to its end."""
    backup_id = catalogue.new_id(kind, now)
    try:
        yield backup_id
    except BaseException:
        # What stopped the backup is what has to be said, even where the store does not answer any more.
        with suppress(BackupError):
            catalogue.discard(backup_id)
        raise


@contextmanager
def _plainly(server: Server) -> Generator[None]:
    try:
        yield
    except psycopg.Error as error:
        said = error.diag.message_primary or str(error).strip().partition("\n")[0]
        raise BackupError(f"{server.database} cannot be backed up: {said}") from error


@contextmanager
def _meanwhile(conn: Connection[TupleRow], call: Callable[[], SourceState]) -> Generator[Future[Any]]:
    """Does something on a connection while the block does something else; ended if the block is."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(call)
        try:
            yield future
        except BaseException:
            conn.cancel_safe()
            raise
