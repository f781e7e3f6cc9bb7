"""Verifying a backup: reading it, restoring it into a scratch server, and comparing that with what the source held."""

from __future__ import annotations

import re
import time
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

import psycopg
from psycopg import sql

from b44_assets.backup.access import access_of, database_grants
from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.model import Backup, Verification
from b44_assets.backup.recovery import RecoveryTarget, recovering
from b44_assets.backup.restoring import Tell, load, schemas_of, tables_only
from b44_assets.backup.scratch import Scratch, initialize, scratch, serving
from b44_assets.backup.state import capture, configure_session, differences, snapshot
from b44_assets.backup.taking import DUMP, ROLES
from b44_assets.backup.tools import Login, run, server_programs
from b44_assets.errors import BackupError, BadBackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.embedded.binaries import MAJOR_VERSION

_RESTORED = "restored"
# Apart from any role that a dump may know.
_SUPERUSER = "b44_scratch"
# What this machine lacks says nothing about the backup.
_OF_THIS_MACHINE = re.compile(
    r"is not available|not supported in this build|could not open extension control file|could not access file"
    r"|No space left|Cannot allocate memory|could not map|could not create locale|invalid locale|Disk quota"
)


def verify(catalogue: Catalogue, backup: Backup, *, pg_bin: Path | None = None, tell: Tell | None = None) -> Backup:
    """Restores a backup into a scratch server, compares, and keeps the result in the catalogue.

    Args:
        catalogue: That has it.
        backup: Which one.
        pg_bin: `B44_PG_BIN`, if set.
        tell: Told what is done.

    Returns:
        The backup with its new verification, whether good or not.

    Raises:
        BackupError: It cannot be verified here, and stays as it was: the key is missing or another one, the programs of its
            version or an extension are missing, the disk is full, the store does not answer.
    """
    tell = tell or (lambda step: None)
    begun = time.monotonic()
    found = _faults(catalogue, backup, pg_bin, tell)
    return catalogue.record_verification(
        backup, Verification(datetime.now(UTC), time.monotonic() - begun, tuple(found))
    )


def _faults(catalogue: Catalogue, backup: Backup, pg_bin: Path | None, tell: Tell) -> list[str]:
    try:
        chain = catalogue.chain(backup) if backup.kind.physical else [backup]
        tell(f"reading {backup.id}")
        # Here, and not when it is restored, each damaged file is named, and needs no key for that.
        if faults := [fault for link in chain for fault in catalogue.examine(link)]:
            return faults
        with scratch() as place:
            if backup.kind.physical:
                return _physical(catalogue, backup, place, pg_bin, tell)
            return _logical(catalogue, backup, place, pg_bin, tell)
    except BadBackupError as error:
        return [str(error)]
    except psycopg.Error as error:
        # What was restored cannot be read.
        return [f"{backup.id}: {error.diag.message_primary or error}"]


def _logical(catalogue: Catalogue, backup: Backup, place: Scratch, pg_bin: Path | None, tell: Tell) -> list[str]:
    try:
        programs = server_programs(backup.server_version // 10000, pg_bin, place.account)
    except BackupError:
        # A newer version takes it as well.
        programs = server_programs(MAJOR_VERSION, pg_bin, place.account)
    dump = place.folder / DUMP
    catalogue.fetch(backup, catalogue.file_of(backup, DUMP), dump)
    data_dir = place.folder / "data"
    initialize(place, data_dir, programs, superuser=_SUPERUSER)
    with serving(place, data_dir, programs, superuser=_SUPERUSER) as server:
        tell("loading it into a scratch server")
        _make_roles(catalogue, backup, place, server.url(), pg_bin)
        same_locale = _make_database(server.url(), backup.locale)
        with connect(server.url(_RESTORED), autocommit=True) as conn:
            login = Login.of(server.url(_RESTORED), conn, configured=pg_bin)
            version = conn.info.server_version
            try:
                load(
                    dump,
                    login,
                    version,
                    f"{backup.id} cannot be restored",
                    owners=backup.state.access is not None,
                    tables_only=tables_only(backup),
                )
            except BackupError as error:
                if _OF_THIS_MACHINE.search(str(error)):
                    raise BackupError(
                        f"{error}: it cannot be verified with the PostgreSQL {version // 10000} of this machine"
                        f" ({programs}); set B44_PG_BIN to one that has what the source has"
                    ) from error
                raise BadBackupError(str(error)) from error
            if backup.state.access is not None:
                for statement in database_grants(backup.state.access, access_of(conn), _RESTORED):
                    conn.execute(statement)
            tell("comparing it with its source")
            found = _compared(conn, backup)
    if found and not same_locale:
        raise BackupError(
            f"{backup.id} cannot be verified here: this machine lacks the locale {backup.locale.get('collate')} of its"
            f" database, without which it is not the same ({found[0]})"
        )
    return found


def _physical(catalogue: Catalogue, backup: Backup, place: Scratch, pg_bin: Path | None, tell: Tell) -> list[str]:
    # The moment that the state was recorded at; the record at the position itself is already after it.
    target = RecoveryTarget(lsn=backup.state.lsn, inclusive=False, timeline=backup.timeline)
    try:
        with recovering(
            catalogue,
            backup,
            place.folder / "data",
            place,
            target,
            archived=False,
            checked=True,
            pg_bin=pg_bin,
            tell=tell,
        ) as (server, _):
            tell("comparing it with its source")
            with connect(server.url(backup.database), autocommit=True) as conn:
                return _compared(conn, backup)
    except BadBackupError:
        raise
    except BackupError as error:
        if "PostgreSQL did not start" in str(error) and not _OF_THIS_MACHINE.search(str(error)):
            raise BadBackupError(f"{backup.id}: {error}") from error
        raise


def _compared(conn: psycopg.Connection[tuple[object, ...]], backup: Backup) -> list[str]:
    configure_session(conn)
    schemas = schemas_of(backup)
    with snapshot(conn, schemas=schemas):
        found = capture(conn, lsn=backup.state.lsn, version=backup.server_version, schemas=schemas)
        return differences(backup.state, found)


def _make_roles(catalogue: Catalogue, backup: Backup, place: Scratch, url: str, pg_bin: Path | None) -> None:
    """Makes the roles that own something, may do something or are named by policies.

    With their memberships, as far as the source has told of them. What a scratch server refuses of that does not matter.
    """
    if any(file.name.startswith(ROLES) for file in backup.files):
        script = place.folder / ROLES
        catalogue.fetch(backup, catalogue.file_of(backup, ROLES), script)
        with connect(url, autocommit=True) as conn:
            login = Login.of(url, conn, configured=pg_bin)
        psql = [login.program("psql"), "-X", "-q", "-f", script, f"--dbname={login.conninfo}"]
        run(psql, "the roles", login.environment)
    access = backup.state.access
    if access is None:
        return
    with connect(url, autocommit=True) as conn:
        there = {name for (name,) in conn.execute("select rolname from pg_roles")}
        for role in access.own_roles:
            if role not in there:
                conn.execute(sql.SQL("create role {} nologin").format(sql.Identifier(role)))
        for role in access.superusers:
            # Nobody else can own an event trigger, for one.
            conn.execute(sql.SQL("alter role {} superuser").format(sql.Identifier(role)))


def _make_database(url: str, locale: Mapping[str, str]) -> bool:
    """Makes the database to load into, and tells whether it has the locale of the source."""
    providers = {"c": "libc", "i": "icu", "b": "builtin"}
    create = sql.SQL("create database {} template template0 encoding 'UTF8'").format(sql.Identifier(_RESTORED))
    options: list[sql.Composable] = []
    if provider := providers.get(locale.get("provider", "")):
        options.append(sql.SQL("locale_provider {}").format(sql.Identifier(provider)))
        if "collate" in locale:
            options.append(sql.SQL("lc_collate {}").format(sql.Literal(locale["collate"])))
        if "ctype" in locale:
            options.append(sql.SQL("lc_ctype {}").format(sql.Literal(locale["ctype"])))
        if "locale" in locale:
            word = sql.SQL("icu_locale" if provider == "icu" else "builtin_locale")
            options.append(sql.SQL("{} {}").format(word, sql.Literal(locale["locale"])))
    with connect(url, autocommit=True) as conn:
        try:
            conn.execute(sql.SQL(" ").join([create, *options]))
        except psycopg.Error:
            # The machine or the version does not know it.
            conn.execute(create)
            return False
    return True
