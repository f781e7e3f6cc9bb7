"""Restoring backups: a logical one into an empty database, a physical one into a new folder, up to any moment since.

Nothing is ever restored over a database or a data directory that is there.
"""

from __future__ import annotations

import io
import os
import re
import shlex
import shutil
import subprocess
import tarfile
import tempfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import islice
from pathlib import Path
from typing import IO

from psycopg import sql

from b44_assets.backup import wal_archive as archive
from b44_assets.backup.access import access_of, database_grants, refusal
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.lsn import Segment, lsn, position
from b44_assets.backup.manifest import manifest_faults
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.scratch import Scratch, ScratchServer, log_of, own, scratch, serving
from b44_assets.backup.taking import BASE, DUMP, WAL, Tell
from b44_assets.backup.tools import Login, complaint, run, server_programs, streaming, transaction
from b44_assets.errors import BackupError, BadBackupError, why
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.embedded.accounts import make_directory, server_account
from b44_assets.postgres.embedded.server import SUPERUSER
from b44_assets.postgres.locks import advisory_key

_JOBS = 2
_WITH_TRANSACTION_TIMEOUT = 170000
_TRANSACTION_TIMEOUT = b"SET transaction_timeout = 0;\n"
# Of what pg_restore writes first; a row comes later.
_SETTINGS_LINES = 16
# As pg_dump writes the options of a column. What begins with pg_ is PostgreSQL's own.
_COLUMN_OPTIONS = re.compile(
    rb"(?P<start>ALTER (?:FOREIGN |MATERIALIZED )?(?:TABLE|VIEW) (?:ONLY )?.+ ALTER COLUMN .+ SET \()"
    rb"(?P<options>[a-z_]+=[^()]*)(?P<end>\);\n)"
)
_PARTIAL = ".partial"
_BUFFER = 1024**2
_OF_ROLES = re.compile(
    r'role "[^"]*" does not exist|SET ROLE|member of role|must be owner|must be superuser|permission denied'
)

# Entries of a dump's table of contents: what a table is made of, and what it holds.
_OF_TABLES = re.compile(
    r"[0-9]+; [0-9]+ [0-9]+ (?:SCHEMA|TABLE|TABLE DATA|SEQUENCE|SEQUENCE SET|SEQUENCE OWNED BY|DEFAULT|CONSTRAINT|CHECK CONSTRAINT"
    r"|FK CONSTRAINT|INDEX|COMMENT \S+ (?:SCHEMA|TABLE|COLUMN|SEQUENCE|INDEX|CONSTRAINT)) "
)

_HELD = """\
select format('%s %I.%I', case when c.relkind in ('v', 'm') then 'the view' when c.relkind = 'S' then 'the sequence'
    else 'the table' end, n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and d.deptype = 'e')
union all
select format('the function %I.%I', n.nspname, p.proname)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  and not exists (select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'e')
union all
select format('the schema %I', n.nspname)
from pg_namespace n
where n.nspname !~ '^pg_' and n.nspname not in ('information_schema', 'public')
  and not exists (
    select from pg_depend d where d.classid = 'pg_namespace'::regclass and d.objid = n.oid and d.deptype = 'e')
limit 1
"""


# One restoration at a time, and what one that was killed is still doing is waited for.
_ALONE = """\
select pg_advisory_xact_lock({key});
do $b44$
declare
  held text;
begin
  for held in {held} loop
    raise exception 'the database is not empty, it has %', held;
  end loop;
end
$b44$;
"""


@dataclass(frozen=True)
class RecoveryTarget:
    """Up to where WAL is replayed; at most one of the first three, and all there is without any.

    Attributes:
        time: All that was committed at or before it, and nothing later; with its zone.
        lsn: All up to this position.
        name: All up to the restore point of this name (`pg_create_restore_point`).
        inclusive: Whether what is at the position itself is replayed, too.
        timeline: On which; by default the newest that goes on from the backup.
    """

    time: datetime | None = None
    lsn: str | None = None
    name: str | None = None
    inclusive: bool = True
    timeline: int | None = None

    def __post_init__(self) -> None:
        """Refuses what says two things, or nothing that can be looked for."""
        if sum(one is not None for one in (self.time, self.lsn, self.name)) > 1:
            raise BackupError("a recovery has one target: a time, an LSN or the name of a restore point")
        if self.time is not None and self.time.tzinfo is None:
            raise BackupError(f"a time to recover to needs its zone, such as {self.time.isoformat()}Z")
        if self.lsn is not None and not re.fullmatch(r"[0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8}", self.lsn):
            raise BackupError(f"an LSN is of the form 0/3000060, and not {self.lsn!r}")

    def __str__(self) -> str:
        """The target in words."""
        if self.time is not None:
            return f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f} UTC"
        if self.lsn is not None:
            return f"LSN {self.lsn}"
        return "the end of the WAL" if self.name is None else f"restore point {self.name!r}"

    def settings(self) -> dict[str, str]:
        """Returns it as settings of the server."""
        if self.time is not None:
            return {"recovery_target_time": f"{self.time.astimezone(UTC):%Y-%m-%d %H:%M:%S.%f}+00"}
        if self.lsn is not None:
            return {"recovery_target_lsn": self.lsn, "recovery_target_inclusive": "on" if self.inclusive else "off"}
        return {} if self.name is None else {"recovery_target_name": self.name}


LATEST = RecoveryTarget()
"""All there is."""


@dataclass(frozen=True)
class Recovered:
    """What a recovery came to.

    Attributes:
        backup: The id of the backup that it began with.
        last_transaction: When the last transaction was committed that is in it; None if none was replayed.
        lsn: Up to where WAL was replayed.
        timeline: The new one, on which the server goes on.
    """

    backup: str
    last_transaction: datetime | None
    lsn: str
    timeline: int


@dataclass(frozen=True)
class Restored:
    """A cluster that was restored.

    Attributes:
        directory: A home (`B44_HOME`) on which the embedded server starts, if it came from one.
        data_dir: The data directory in it, for a server of the version.
        server_version: As in `server_version_num`.
        recovered: Up to where.
    """

    directory: Path
    data_dir: Path
    server_version: int
    recovered: Recovered


# -- logical -----------------------------------------------------------------------------------------------------------


def restore_logical(
    catalogue: Catalogue,
    backup: Backup,
    into_url: str,
    *,
    privileges: bool = True,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
) -> None:
    """Loads a logical backup into an empty database, or the archive of a migration into any that has none of its schemas.

    Args:
        catalogue: That has it.
        backup: Which one.
        into_url: libpq URL of the database.
        privileges: Whether owners and privileges are restored, too; the roles must be there then.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told what is done, and what is not as it was in the source.

    Raises:
        BackupError: It is no logical backup, the database is not empty (of those schemas), a role is missing or is not ours
            to give objects to, or the database refuses something.
        BadBackupError: The backup is damaged.
        DatabaseError: There is no connection.
    """
    tell = tell or _quiet
    if backup.kind.physical:
        raise BackupError(f"{backup.id} is of the whole cluster: it is restored into a folder, not into a database")
    with connect(into_url, application_name="b44 restore", autocommit=True) as conn:
        name, version = conn.info.dbname, conn.info.server_version
        if held := conn.execute(_in_the_way(backup).encode()).fetchone():
            raise BackupError(f"database {name!r} is not empty, it has {held[0]}: restore into a new one")
        access, owner, grants = backup.state.access, "", list[sql.Composed]()
        if access is not None:
            if fault := refusal(conn, access, privileges=privileges):
                raise BackupError(f"{backup.id} cannot be restored into database {name!r}: {fault}")
            there = access_of(conn)
            owner = there.database_owner
            grants = database_grants(access, there, name) if privileges else []
        login = Login.of(into_url, conn, configured=pg_bin)
    with scratch() as place:
        dump = place.folder / DUMP
        tell(f"reading {backup.id}")
        catalogue.fetch(backup, catalogue.file_of(backup, DUMP), dump)
        tell(f"loading it into database {name!r}")
        what = f"{backup.id} cannot be restored into database {name!r}"
        try:
            _load_at_once(dump, login, version, what, grants, owners=privileges and access is not None, backup=backup)
        except BackupError as error:
            raise _with_remedy(error, privileges=privileges) from error
    if access is not None and privileges and access.database_owner != owner:
        tell(f"notice: database {name!r} belongs to {owner}, and in the source to {access.database_owner}")
    if not privileges and access is not None:
        tell(
            "notice: all belongs to the role that restored it, and what was revoked, such as EXECUTE on a function, is not"
        )


def _load_at_once(
    dump: Path,
    login: Login,
    version: int,
    what: str,
    grants: Sequence[sql.Composed],
    *,
    owners: bool,
    backup: Backup,
) -> None:
    """Loads a dump in one transaction, so that a database which could not be filled is as empty as before."""
    command = [login.program("pg_restore"), *(() if owners else ("--no-owner", "--no-privileges"))]
    if tables_only(backup):
        command.append(_only_tables(command, dump, login, what))
    with transaction(login, what) as sink:
        sink.write(_ALONE.format(key=advisory_key("b44 restore"), held=_in_the_way(backup)).encode())
        for section in ("pre-data", "data", "post-data"):
            with streaming([*command, f"--section={section}", "--file=-", dump], what, login.environment) as script:
                source = io.BufferedReader(script, _BUFFER)  # pyright: ignore[reportArgumentType]  # it is unbuffered
                _copy_script(source, sink, version, definitions=section == "pre-data")
        sink.write(b"set client_encoding = 'UTF8';\n")
        for grant in grants:
            sink.write(grant.as_string().encode() + b";\n")
        sink.write(b"analyze;\n")


def _only_tables(command: Sequence[str], dump: Path, login: Login, what: str) -> str:
    """Return the option by which pg_restore leaves out functions, views, and what is on these."""
    listed = run([*command, "--list", dump], what, login.environment).stdout.splitlines()
    contents = dump.with_name(f"{dump.name}.list")
    contents.write_text("\n".join(line for line in listed if _OF_TABLES.match(line)) + "\n")
    return f"--use-list={contents}"


def _in_the_way(backup: Backup) -> str:
    """Return the query for what a database may not hold that a backup is restored into."""
    if (schemas := schemas_of(backup)) is None:
        return _HELD
    query = sql.SQL("select format('the schema %I', nspname) from pg_namespace where nspname = any({})")
    return query.format(sql.Literal(list(schemas))).as_string()


def _with_remedy(error: BackupError, *, privileges: bool) -> BackupError:
    said = str(error)
    if "out of shared memory" in said:
        return BackupError(f"{said}: set a greater max_locks_per_transaction on the server, and restart it")
    if privileges and _OF_ROLES.search(said):
        return BackupError(
            f"{said}: give the server that role, restore as a superuser, or restore with --no-privileges"
        )
    return error


def schemas_of(backup: Backup) -> tuple[str, ...] | None:
    """Return the schemas of which a backup is; None for one of the whole database."""
    if backup.kind is not BackupKind.MIGRATION:
        return None
    word = "schema "
    return tuple(name.removeprefix(word) for name in sorted(backup.state.schema) if name.startswith(word))


def tables_only(backup: Backup) -> bool:
    """Tell whether only the tables of a backup are loaded: its functions and views need what is not in it."""
    return backup.kind is BackupKind.MIGRATION


def load(dump: Path, login: Login, version: int, what: str, *, owners: bool = False, tables_only: bool = False) -> None:
    """Load a dump, by pg_restore: the tables, their rows, and what stands on them, one after the other.

    A trigger on a partitioned table waits for none of its partitions, and would fire on their rows; hence the order. The
    tables go through psql, as does everything on servers before 17, for which a line of it has to be left out.

    Args:
        dump: In pg_dump's custom format.
        login: To an empty database.
        version: The server's, as in `server_version_num`.
        what: For the complaint.
        owners: As of `restore_logical`.
        tables_only: Whether functions, views, and what is on these, are left out.

    Raises:
        BackupError: The database refuses something.
    """
    command = [login.program("pg_restore"), *(() if owners else ("--no-owner", "--no-privileges"))]
    if tables_only:
        command.append(_only_tables(command, dump, login, what))
    if version >= _WITH_TRANSACTION_TIMEOUT:
        _load_as_script(command, ["pre-data"], dump, login, version, what)
        connection = (f"--dbname={login.conninfo}", "--no-password")
        for section in ("data", "post-data"):
            parts = (f"--section={section}", "--exit-on-error", f"--jobs={_JOBS}")
            run([*command, *connection, *parts, dump], what, login.environment)
    else:
        _load_as_script(command, ["pre-data", "data", "post-data"], dump, login, version, what, "--single-transaction")


def _load_as_script(
    command: Sequence[str], sections: Sequence[str], dump: Path, login: Login, version: int, what: str, *options: str
) -> None:
    """Load sections of a dump through psql, without what no server or not this one takes."""
    psql = [login.program("psql"), "-X", "-q", "--no-password", "-v", "ON_ERROR_STOP=1", *options]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as refused:
        writer = subprocess.Popen(
            [*psql, f"--dbname={login.conninfo}"],
            env=dict(login.environment),
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=refused,
        )
        assert writer.stdin is not None
        reader: subprocess.Popen[bytes] | None = None
        read = 0
        try:
            with suppress(BrokenPipeError), writer.stdin as sink:
                for section in sections:
                    reader = subprocess.Popen(
                        [*command, f"--section={section}", "--file=-", str(dump)],
                        stdin=subprocess.DEVNULL,
                        stdout=subprocess.PIPE,
                        stderr=said,
                    )
                    assert reader.stdout is not None
                    with reader.stdout as source:
                        _copy_script(source, sink, version, definitions=section == "pre-data")
                    if read := reader.wait():
                        break
            statuses = (writer.wait(), read)
        except BaseException:
            for process in (reader, writer):
                if process is not None:
                    process.kill()
                    process.wait()
            raise
        if reader is not None and reader.poll() is None:
            # The writer has ended first, and says why.
            reader.kill()
            reader.wait()
        for status, file in zip(statuses, (refused, said), strict=True):
            if status:
                file.seek(0)
                raise BackupError(f"{what}: {complaint(file.read().decode(errors='replace'))}")


def _copy_script(source: IO[bytes], sink: IO[bytes], version: int, *, definitions: bool) -> None:
    """Pass on what pg_restore writes, without what the server does not know; of rows only the settings before them."""
    for line in source if definitions else islice(source, _SETTINGS_LINES):
        if version >= _WITH_TRANSACTION_TIMEOUT or line != _TRANSACTION_TIMEOUT:
            sink.write(without_internal_options(line) if definitions else line)
    shutil.copyfileobj(source, sink, 1024**2)


def without_internal_options(line: bytes) -> bytes:
    """Return a line of a dump's definitions without the options of a column that a server keeps for itself.

    Servers of November 2026's minor releases have `pg_attver` among the options of every column; `pg_dump` of an older
    minor release writes it down, and no server of another version takes it.

    Args:
        line: One line, with its end.
    """
    found = _COLUMN_OPTIONS.fullmatch(line)
    if found is None:
        return line
    kept = [option for option in found["options"].split(b", ") if not option.startswith(b"pg_")]
    return found["start"] + b", ".join(kept) + found["end"] if kept else b""


# -- physical ----------------------------------------------------------------------------------------------------------


def restore_physical(
    catalogue: Catalogue,
    directory: Path,
    target: RecoveryTarget = LATEST,
    *,
    backup: Backup | None = None,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
) -> Restored:
    """Restores a cluster into a new folder and replays WAL up to the target.

    The server that it was taken from may go on: what is restored does not write into its archive.

    Args:
        catalogue: That has backups and WAL.
        directory: The folder: new, or empty.
        target: Up to where.
        backup: Where to begin; by default the newest good one before the target.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told what is done.

    Raises:
        BackupError: The folder is not empty, no good backup is before the target, the programs of the version are missing,
            or the target is beyond what there is WAL for. Nothing is left in the folder.
        BadBackupError: A backup is damaged, or WAL is missing.
    """
    tell = tell or _quiet
    directory = directory.absolute()
    candidates = [backup] if backup else choose(catalogue.backups(), target)
    with _new_folder(directory) as new, scratch() as place:
        candidate = candidates.pop(0)
        while True:
            try:
                with recovering(catalogue, candidate, new, place, target, pg_bin=pg_bin, lasting=True, tell=tell) as (
                    _,
                    recovered,
                ):
                    pass
                break
            except PastEndError:
                # The restore point may be one of the time before this backup.
                if target.name is None or not candidates:
                    raise
                candidate = candidates.pop(0)
                shutil.rmtree(new)
                shutil.rmtree(place.folder / "wal")
        tell("writing it to disk")
        # What was laid out without the server is on disk, too, before we say so.
        os.sync()
        data_dir = new.with_name("data")
        new.rename(data_dir)
    return Restored(directory, data_dir, candidate.server_version, recovered)


class PastEndError(BadBackupError):
    """A recovery has come to the end of the WAL before its target."""


def choose(backups: Sequence[Backup], target: RecoveryTarget) -> list[Backup]:
    """Returns the backups with which a recovery to a target can begin, the best one first.

    Args:
        backups: Of the catalogue, by time.
        target: Where to.

    Raises:
        BackupError: There is none.
    """
    physical = [backup for backup in backups if backup.kind.physical and backup.good]
    if not physical:
        raise BackupError("there is no base backup that was verified and found good, with which a recovery could begin")
    # Positions of two clusters have nothing to do with each other.
    physical = [backup for backup in physical if backup.system == physical[-1].system]
    if target.time is not None:
        wanted = target.time
        found = [backup for backup in physical if backup.state.taken_at <= wanted]
    elif target.lsn is not None:
        wanted = position(target.lsn)
        found = [backup for backup in physical if position(backup.stop_lsn or "0/0") <= wanted]
    else:
        found = physical
    if not found:
        first = physical[0]
        begins = RecoveryTarget(time=first.state.taken_at) if target.time else f"LSN {first.stop_lsn}"
        raise BackupError(
            f"{target} is before the oldest good base backup, {first.id}, which allows {begins} and later"
        )
    return found[::-1]


@contextmanager
def recovering(
    catalogue: Catalogue,
    backup: Backup,
    data_dir: Path,
    place: Scratch,
    target: RecoveryTarget,
    *,
    archived: bool = True,
    checked: bool = False,
    lasting: bool = False,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
) -> Generator[tuple[ScratchServer, Recovered]]:
    """Lays out a physical backup, replays WAL, and runs the server for the block.

    Args:
        catalogue: That has backups and WAL.
        backup: A base or incremental one.
        data_dir: Where to; must not exist.
        place: For what is needed meanwhile.
        target: Up to where.
        archived: Whether WAL of the archive is used, besides that of the backup.
        checked: Whether its files are held against its manifest.
        lasting: Whether the data directory is to be kept.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told what is done.

    Raises:
        BackupError: The programs of the version are missing, or the server does not start.
        BadBackupError: A backup is damaged, or WAL is missing.
        PastEndError: The target is beyond the WAL.
    """
    tell = tell or _quiet
    if not backup.kind.physical or backup.segment_size is None or backup.start_lsn is None:
        raise BackupError(f"{backup.id} is a logical backup: it is restored into a database, not into a folder")
    chain = catalogue.chain(backup)
    major = backup.server_version // 10000
    programs = server_programs(major, pg_bin, place.account)
    wal = place.folder / "wal"
    # First, since a gap in it is a reason to go no further.
    tell("reading the WAL")
    end, timeline, faults = _lay_wal(catalogue, backup, wal, target, archived=archived)
    if target.lsn is not None and position(end) < position(target.lsn):
        raise PastEndError(_past(target, end, faults))
    if target == RecoveryTarget(timeline=target.timeline) and faults:
        raise BadBackupError(
            f"{faults[0]}: recovery ends at LSN {end}, before what the archive goes on with; name a target"
        )
    _lay_out(catalogue, chain, data_dir, place, programs, checked=checked, lasting=lasting, tell=tell)
    place.own(wal)
    (data_dir / "recovery.signal").touch()
    own(data_dir, place.account)
    # Above what it brings along there stand only ours; it comes back afterwards.
    auto, aside = data_dir / "postgresql.auto.conf", data_dir / "postgresql.auto.conf.aside"
    if auto.exists():
        auto.rename(aside)
    folder = shlex.quote(str(wal)).replace("%", "%%")
    settings = target.settings() | {
        "restore_command": f'cp {folder}/%f "%p"',
        "recovery_target_timeline": str(timeline),
        "recovery_target_action": "promote",
        "max_prepared_transactions": _prepared(programs, data_dir),
    }
    tell("replaying the WAL")
    try:
        with serving(
            place, data_dir, programs, settings, superuser=backup.superuser or SUPERUSER, lasting=lasting
        ) as server:
            yield server, _recovered(server, backup)
    except BackupError as error:
        if "before configured recovery target was reached" in str(error):
            raise PastEndError(_past(target, end, faults, _last_transaction(place))) from error
        raise
    for name in ("recovery.signal", "postgresql.auto.conf"):
        (data_dir / name).unlink(missing_ok=True)
    if aside.exists():
        aside.rename(auto)


def _lay_out(
    catalogue: Catalogue,
    chain: Sequence[Backup],
    data_dir: Path,
    place: Scratch,
    programs: Path,
    *,
    checked: bool,
    lasting: bool,
    tell: Tell,
) -> None:
    links = place.folder / "links"
    folders = [data_dir] if len(chain) == 1 else [links / link.id for link in chain]
    for link, folder in zip(chain, folders, strict=True):
        tell(f"reading {link.id}")
        folder.mkdir(parents=True, mode=0o700)
        _extract(catalogue, link, folder)
    if len(chain) > 1:
        tell("putting the chain together")
        # What is thrown away need not be written to disk, nor be there twice.
        options = [
            *(() if lasting else ("--no-sync",)),
            *(("--link",) if not lasting and chain[0].server_version >= 180000 else ()),
        ]
        combine = [programs / "pg_combinebackup", *options, "--output", data_dir, *folders]
        try:
            run(combine, f"the chain of {chain[-1].id} cannot be put together")
        except BackupError as error:
            raise BadBackupError(str(error)) from error
        shutil.rmtree(links)
    if checked:
        tell("checking it by its manifest")
        if faults := manifest_faults(data_dir):
            raise BadBackupError(f"{chain[-1].id} as restored differs from its manifest: {faults[0]}")


def _extract(catalogue: Catalogue, backup: Backup, folder: Path) -> None:
    """Unpacks a base backup while it is being read."""
    reader, writer = os.pipe()
    faults: list[BaseException] = []

    def unpack(source: IO[bytes]) -> None:
        try:
            with source, tarfile.open(fileobj=source, mode="r|") as tar:
                tar.extractall(folder, filter="data")
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=unpack, args=(os.fdopen(reader, "rb"),))
    thread.start()
    try:
        with suppress(BrokenPipeError), os.fdopen(writer, "wb") as sink:
            catalogue.read(backup, catalogue.file_of(backup, BASE), sink)
    finally:
        thread.join()
    if faults:
        fault = faults[0]
        if isinstance(fault, OSError):
            raise BackupError(f"{folder} cannot be written: {why(fault, folder)}") from fault
        if isinstance(fault, tarfile.TarError):
            raise BadBackupError(f"{backup.id}/{BASE} cannot be unpacked: {fault}") from fault
        raise fault


def _lay_wal(
    catalogue: Catalogue, backup: Backup, wal: Path, target: RecoveryTarget, *, archived: bool
) -> tuple[str, int, tuple[str, ...]]:
    """Lays the WAL of the backup and of the archive into a folder.

    Returns:
        Where it ends, on which timeline, and why there if the archive has more.
    """
    assert backup.segment_size is not None
    assert backup.timeline is not None
    wal.mkdir(mode=0o700)
    end = backup.state.lsn or "0/0"
    timeline, faults = backup.timeline, ()
    last = None
    for file in backup.files:
        if file.name.startswith(WAL):
            name = file.name.removeprefix(WAL).removesuffix(".age").removesuffix(".zst")
            if name.endswith(_PARTIAL):
                last = file, name.removesuffix(_PARTIAL)
            else:
                catalogue.fetch(backup, file, wal / name)
    if archived:
        # From the segment on that was not yet full.
        size = backup.segment_size
        begin = position(end) if last is None else Segment.named(last[1], size).number * size
        fetched = archive.fetch(
            catalogue,
            backup.system,
            wal,
            lsn(begin),
            backup.timeline,
            size,
            target_timeline=target.timeline,
            until_lsn=target.lsn,
        )
        end = max(end, fetched.end_lsn, key=position)
        timeline, faults = fetched.timeline, fetched.faults
    if last is not None and not (wal / last[1]).exists():
        catalogue.fetch(backup, last[0], wal / last[1])
    return end, timeline, faults


def _prepared(programs: Path, data_dir: Path) -> str:
    """Returns how many prepared transactions the cluster may have had: they need room in a recovery."""
    said = run([programs / "pg_controldata", data_dir], f"{data_dir} cannot be restored").stdout
    match = re.search(r"^max_prepared_xacts setting:\s+([0-9]+)$", said, re.MULTILINE)
    return "0" if match is None else match[1]


def _recovered(server: ScratchServer, backup: Backup) -> Recovered:
    with connect(server.url(backup.database), application_name="b44 restore", autocommit=True) as conn:
        row = conn.execute(
            "select pg_last_xact_replay_timestamp(), pg_last_wal_replay_lsn()::text,"
            " (select timeline_id from pg_control_checkpoint()), ('x' || left(pg_walfile_name(pg_current_wal_lsn()), 8))::bit(32)::int"
        ).fetchone()
    assert row is not None
    return Recovered(backup.id, row[0], row[1], row[3])


def _last_transaction(place: Scratch) -> str | None:
    found = re.findall(r"last completed transaction was at log time (.+)", log_of(place))
    return found[-1].strip() if found else None


def _past(target: RecoveryTarget, end: str, faults: Sequence[str], last: str | None = None) -> str:
    why = faults[0] if faults else "the archive ends there"
    at = f", its last transaction is of {last}" if last else ""
    if target.name is not None:
        return f"there is no {target} in the WAL up to LSN {end} ({why})"
    return f"{target} is beyond what there is WAL for: it ends at LSN {end}{at} ({why})"


@contextmanager
def _new_folder(directory: Path) -> Generator[Path]:
    """Gives the path of a data directory to be made in a home that is new or empty; if the block fails, nothing stays."""
    try:
        if directory.exists() and any(directory.iterdir()):
            raise BackupError(f"{directory} is not empty: restore into a new folder")
        made = not directory.exists()
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise BackupError(f"{directory} cannot be used: {why(error, directory)}") from error
    postgres = EmbeddedServer(directory).directory
    make_directory(postgres, server_account(postgres))
    try:
        yield postgres / "data.new"
    except BaseException:
        shutil.rmtree(postgres, ignore_errors=True)
        if made:
            with suppress(OSError):
                directory.rmdir()
        raise


def _quiet(step: str) -> None:
    """Tells nobody."""
