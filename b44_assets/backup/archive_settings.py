"""Whether the server archives its WAL, how it is told to, and whether what it archives arrives."""

from __future__ import annotations

import shlex
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from psycopg import Connection
from psycopg.rows import TupleRow

from b44_assets.backup.store import Store
from b44_assets.backup.wal_archive import wal_files
from b44_assets.backup.wal_spool import archive_command
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.embedded.configuration import quoted_setting

# What the embedded server has as long as archiving is off.
_NOTHING = ("", "(disabled)", "/bin/true")

_STATE = """\
select current_setting('archive_mode'), current_setting('archive_command'), current_setting('archive_library'),
  current_setting('archive_timeout'), last_archived_wal, last_archived_time, failed_count, last_failed_wal, last_failed_time,
  stats_reset
from pg_stat_archiver
"""


@dataclass(frozen=True)
class ArchivingState:
    """What is known of a server's archiving.

    Attributes:
        on: Whether the server is told to archive.
        faults: Why it does not work, each in one line; none if it does, or if nothing has had to be archived yet.
        last_archived: The segment that was archived last.
        last_archived_at: When.
        server_version: As in `server_version_num`.
    """

    on: bool
    faults: tuple[str, ...]
    last_archived: str | None
    last_archived_at: datetime | None
    server_version: int

    @property
    def works(self) -> bool:
        """Whether WAL is archived."""
        return self.on and not self.faults

    @property
    def explanation(self) -> str:
        """How it is, in one line."""
        if self.faults:
            return "; ".join(self.faults)
        if not self.on:
            return "archiving of WAL is turned off"
        if self.last_archived is None:
            return "archiving of WAL is turned on, and no segment has been finished yet"
        assert self.last_archived_at is not None
        return f"archiving of WAL works: {self.last_archived} at {self.last_archived_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC"


def archiving(
    conn: Connection[TupleRow], spool: Path | None, store: Store | None = None, system: str = ""
) -> ArchivingState:
    """Asks the server how its archiving goes, and looks whether what it says to have archived is there.

    Args:
        conn: In autocommit mode.
        spool: The folder that it archives into, if it can be seen from here.
        store: Where the archive lies; without it, whether WAL arrives is not looked at.
        system: The cluster's system identifier, as whose the store has its WAL.

    Raises:
        BackupError: The store cannot be listed.
    """
    row = conn.execute(_STATE).fetchone()
    assert row is not None
    mode, command, library, timeout, last, at, _, failed, failed_at, _ = row
    on = mode != "off" and (command not in _NOTHING or bool(library))
    faults: list[str] = []
    if mode == "off" and command not in _NOTHING:
        faults.append("the server has an archive_command, but archive_mode = off: set it to on and restart the server")
    elif on and failed_at is not None and (at is None or failed_at > at):
        faults.append(
            f"the server could not archive {failed} at {failed_at.astimezone(UTC):%Y-%m-%d %H:%M:%S} UTC, and keeps all WAL"
            " since then: its log says why, such as a full spool"
        )
    elif on and store and last is not None and len(last) == 24 and not _arrived(last, spool, store, system):
        where = f"neither in {spool} nor in {store.location}" if spool else f"not in {store.location}"
        faults.append(f"the server has archived {last}, which is {where}: its archive_command puts it elsewhere")
    if on and timeout == "0":
        faults.append(
            "archive_timeout is 0: what was written last is archived only when a segment is full; set it to 60"
        )
    return ArchivingState(on, tuple(faults), last, at, conn.info.server_version)


def turn_on(server: EmbeddedServer) -> None:
    """Lets the embedded server archive its WAL into its spool, from now on.

    Raises:
        DatabaseError: As of `EmbeddedServer.archive`.
    """
    # Looked for from the data directory: folders above may be closed to the server's account.
    server.archive(archive_command(Path("..") / server.spool.name))


def turn_off(server: EmbeddedServer) -> None:
    """Ends archiving by the embedded server. What is in the spool stays there.

    Raises:
        DatabaseError: As of `EmbeddedServer.archive`.
    """
    server.archive(None)


def instructions(spool: Path, server_version: int) -> str:
    """Returns what the owner of a server of their own has to do so that its WAL is archived.

    Args:
        spool: The folder (`B44_WAL_DIR`), on the server's machine.
        server_version: As in `server_version_num`.
    """
    command = quoted_setting(archive_command(spool))
    summaries = (
        "\n       summarize_wal = on            # incremental backups need it" if server_version >= 170000 else ""
    )
    return f"""\
1. On the server's machine, make a folder that the server's account owns; b44 runs there, as that account or as root:

       install -d -o postgres -g postgres -m 700 {shlex.quote(str(spool))}

2. Put this into postgresql.conf (not by ALTER SYSTEM, which base backups take along: a restored server would write into the archive):

       wal_level = replica
       archive_mode = on
       archive_timeout = 60
       archive_command = {command}{summaries}

3. Restart the server, if archive_mode or wal_level was another one; else reload it.

4. Set B44_WAL_DIR={shlex.quote(str(spool))} for b44, let its schedules run on that machine, and look at the check of the archive.
"""


def _arrived(name: str, spool: Path | None, store: Store, system: str) -> bool:
    return (spool is not None and (spool / name).exists()) or any(
        file.name == name for file in wal_files(store, system)
    )
