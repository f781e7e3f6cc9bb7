"""Restoring a logical backup into a database; for physical ones see `recovery`.

Nothing is ever restored over a database or a data directory that is there.
"""

from __future__ import annotations

import io
import re
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from itertools import islice
from pathlib import Path
from typing import IO

from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from b44_assets.backup.access import access_of, database_grants, refusal
from b44_assets.backup.already_there import Foreign, foreign, in_the_way
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.model import Backup, BackupKind, DatabaseAccess
from b44_assets.backup.scratch import scratch
from b44_assets.backup.state import Schemas
from b44_assets.backup.taking import DUMP, Tell
from b44_assets.backup.tools import Login, complaint, run, streaming, transaction
from b44_assets.catalog import STANDARD_ROLES
from b44_assets.errors import BackupError, why
from b44_assets.postgres.advisory_locks import advisory_key
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.embedded.accounts import make_directory, server_account

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
PARTIAL = ".partial"
_BUFFER = 1024**2
_OF_ROLES = re.compile(
    r'role "[^"]*" does not exist|SET ROLE|member of role|must be owner|must be superuser|permission denied'
)
# Entries of a dump's table of contents: what a table is made of, and what it holds.
_OF_TABLES = re.compile(
    r"[0-9]+; [0-9]+ [0-9]+ (?:SCHEMA|TABLE|TABLE DATA|SEQUENCE|SEQUENCE SET|SEQUENCE OWNED BY|DEFAULT|CONSTRAINT|CHECK CONSTRAINT"
    r"|FK CONSTRAINT|INDEX|COMMENT \S+ (?:SCHEMA|TABLE|COLUMN|SEQUENCE|INDEX|CONSTRAINT)) "
)
# One restoration at a time, and what one that was killed is still doing is waited for.
_ALONE = """\
select pg_advisory_xact_lock({key});
do $b44$
declare
  held text;
begin
  for held in {held} loop
    raise exception 'it has % already', held;
  end loop;
end
$b44$;
"""


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


def restore_logical(
    catalogue: Catalogue,
    backup: Backup,
    into_url: str,
    *,
    privileges: bool = True,
    pg_bin: Path | None = None,
    tell: Tell | None = None,
) -> None:
    """Loads a logical backup, or the archive of a migration, into a database that has nothing of what is in it.

    What a host has there already, as an owner without further rights finds it, stays as it is.

    Args:
        catalogue: That has it.
        backup: Which one.
        into_url: libpq URL of the database.
        privileges: Whether owners and privileges are restored, too; the roles must be there then, but for the program's own.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told what is done, and what is not as it was in the source.

    Raises:
        BackupError: It is no logical backup, the database has something of it already, a role is missing or is not ours
            to give objects to, or the database refuses something.
        BadBackupError: The backup is damaged.
        DatabaseError: There is no connection.
    """
    tell = tell or ignore_progress
    if backup.kind.physical:
        raise BackupError(f"{backup.id} is of the whole cluster: it is restored into a folder, not into a database")
    with connect(into_url, application_name="b44 restore", autocommit=True) as conn:
        name, version = conn.info.dbname, conn.info.server_version
        left = foreign(conn, backup)
        if held := conn.execute(in_the_way(backup, left).encode()).fetchone():
            raise BackupError(
                f"{backup.id} cannot be restored into database {name!r}: it has {held[0]} already, and nothing is replaced;"
                " restore into a new one"
            )
        access, owner, grants = backup.state.access, "", list[sql.Composed]()
        if access is not None:
            if privileges:
                _make_standard_roles(conn, access)
            if fault := refusal(conn, access, privileges=privileges, left=left.has):
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
            _load_at_once(
                dump, login, version, what, grants, left, owners=privileges and access is not None, backup=backup
            )
        except BackupError as error:
            raise _with_remedy(error, privileges=privileges) from error
    if left.schemas:
        tell(f"notice: left as in this database, since they are somebody else's there: {', '.join(left.schemas)}")
    if access is not None and privileges and access.database_owner != owner:
        tell(f"notice: database {name!r} belongs to {owner}, and in the source to {access.database_owner}")
    if not privileges and access is not None:
        tell(
            "notice: all belongs to the role that restored it, and what was revoked, such as EXECUTE on a function, is not"
        )


def _make_standard_roles(conn: Connection[TupleRow], access: DatabaseAccess) -> None:
    """Makes the program's own group roles that a backup needs and the server lacks, without members; what is refused is told later."""
    for role in STANDARD_ROLES:
        if role in access.roles:
            # Roles are the server's: another restoration may just make the same.
            with suppress(errors.DuplicateObject, errors.UniqueViolation, errors.InsufficientPrivilege):
                conn.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))


def _load_at_once(
    dump: Path,
    login: Login,
    version: int,
    what: str,
    grants: Sequence[sql.Composed],
    left: Foreign,
    *,
    owners: bool,
    backup: Backup,
) -> None:
    """Loads a dump in one transaction, so that a database which could not be filled is as before."""
    command = [login.program("pg_restore"), *(() if owners else ("--no-owner", "--no-privileges"))]
    if tables_only(backup):
        command.append(_only_tables(command, dump, login, what))
    elif (others := left.entries) is not None:
        command.append(_only(command, dump, login, what, lambda line: others.match(line) is None))
    with transaction(login, what) as sink:
        sink.write(_ALONE.format(key=advisory_key("b44 restore"), held=in_the_way(backup, left)).encode())
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
    return _only(command, dump, login, what, lambda line: _OF_TABLES.match(line) is not None)


def _only(command: Sequence[str], dump: Path, login: Login, what: str, wanted: Callable[[str], bool]) -> str:
    """Return the option by which pg_restore takes some entries of a dump's table of contents only."""
    listed = run([*command, "--list", dump], what, login.environment).stdout.splitlines()
    contents = dump.with_name(f"{dump.name}.list")
    contents.write_text("\n".join(line for line in listed if wanted(line)) + "\n")
    return f"--use-list={contents}"


def _with_remedy(error: BackupError, *, privileges: bool) -> BackupError:
    said = str(error)
    if "out of shared memory" in said:
        return BackupError(f"{said}: set a greater max_locks_per_transaction on the server, and restart it")
    if privileges and _OF_ROLES.search(said):
        return BackupError(
            f"{said}: give the server that role, restore as a superuser, or restore with --no-privileges"
        )
    return error


def schemas_of(backup: Backup) -> Schemas:
    """Return the schemas of which a backup is."""
    if backup.kind is not BackupKind.MIGRATION:
        return Schemas(left_out=backup.left_out)
    word = "schema "
    return Schemas(tuple(name.removeprefix(word) for name in sorted(backup.state.schema) if name.startswith(word)))


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


@contextmanager
def new_folder(directory: Path) -> Generator[Path]:
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


def ignore_progress(step: str) -> None:
    """Tells nobody."""
