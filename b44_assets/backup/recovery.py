"""Recovery of a whole cluster from physical backups and archived WAL, up to a moment, a restore point or an LSN."""

from __future__ import annotations

import os
import re
import shlex
import shutil
import tarfile
import threading
from collections.abc import Generator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO

from b44_assets.backup import wal_archive as archive
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.lsn import Segment, lsn, position
from b44_assets.backup.manifest import manifest_faults
from b44_assets.backup.model import Backup
from b44_assets.backup.restoring import PARTIAL, Recovered, Restored, ignore_progress, new_folder
from b44_assets.backup.scratch import Scratch, ScratchServer, log_of, own, scratch, serving
from b44_assets.backup.taking import BASE, WAL, Tell
from b44_assets.backup.tools import run, server_programs
from b44_assets.errors import BackupError, BadBackupError, why
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded.server import SUPERUSER


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
    tell = tell or ignore_progress
    directory = directory.absolute()
    candidates = [backup] if backup else choose(catalogue.backups(), target)
    with new_folder(directory) as new, scratch() as place:
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
        raise BackupError(
            "there is no base backup that was verified and found good, with which a recovery could begin:"
            " take one by b44 backup --kind base"
        )
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
    tell = tell or ignore_progress
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

    def read(source: IO[bytes]) -> None:
        try:
            with source, tarfile.open(fileobj=source, mode="r|") as tar:
                unpack_tar(tar, folder)
        except BaseException as error:
            faults.append(error)

    thread = threading.Thread(target=read, args=(os.fdopen(reader, "rb"),))
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


def unpack_tar(tar: tarfile.TarFile, folder: Path) -> None:
    """Unpacks an archive, as ourselves and nowhere but below a folder.

    Raises:
        tarfile.TarError: It names a place outside, or holds something that is neither a file nor a folder, nor a link within.
    """
    if hasattr(tarfile, "data_filter"):
        tar.extractall(folder, filter="data")
    else:
        # Python 3.11.0 to 3.11.3, such as Debian 12 has.
        tar.extractall(folder, (_harmless(member, folder.resolve()) for member in tar))


def _harmless(member: tarfile.TarInfo, folder: Path) -> tarfile.TarInfo:
    if not (member.isreg() or member.isdir()) or not (folder / member.name).resolve().is_relative_to(folder):
        raise tarfile.ExtractError(f"{member.name!r} is neither a file nor a folder within")
    member.uid, member.gid, member.uname, member.gname = os.geteuid(), os.getegid(), "", ""
    member.mode &= 0o755
    return member


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
            if name.endswith(PARTIAL):
                last = file, name.removesuffix(PARTIAL)
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
