"""Say what the target is and which programs serve it, without making or changing anything."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import psycopg

from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error, DatabaseError
from b44_assets.postgres.clients import Clients, available, choose, newest, shown
from b44_assets.postgres.connect import connect, redact
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.read_replica import VARIABLE, bytes_behind, connect_replica
from b44_assets.session import Connection, explained


@dataclass(frozen=True)
class Finding:
    """A line of the diagnosis.

    Attributes:
        subject: What it is about: `target`, `server`, `replica`, `dumps`, `restores`, `bundled`.
        said: What was found.
        remedy: What to do about it; None where nothing has to be done.
        blocking: Whether the commands cannot work until that is done.
    """

    subject: str
    said: str
    remedy: str | None = None
    blocking: bool = False


def diagnose(settings: Settings) -> list[Finding]:
    """Look at the target's server and at the client programs for it.

    Args:
        settings: In force.
    """
    installations = available(settings.pg_bin)
    bundled = next(each for each in installations if each.origin == "bundled")
    findings = [Finding("bundled", f"PostgreSQL {shown(bundled.version)}")]
    if settings.pg_bin is not None and all(each.origin != "configured" for each in installations):
        findings.append(
            Finding(
                "programs", f"B44_PG_BIN={settings.pg_bin} has no pg_dump that runs", "name PostgreSQL's own folder"
            )
        )
    if settings.database_url is None:
        server = EmbeddedServer(settings.home)
        findings.append(Finding("target", f"the embedded server under {settings.home}"))
        if not server.running():
            return [*findings, Finding("server", "it does not run; it starts with the first command that needs it")]
        url = server.url()
    else:
        url = settings.database_url
        findings.append(Finding("target", redact(url)))
    try:
        with connect(url, application_name="b44 doctor", autocommit=True) as conn:
            version, encrypted = conn.info.server_version, conn.pgconn.ssl_in_use
            replica = [] if settings.read_url is None else [_replica(conn, settings.read_url)]
    except DatabaseError as error:
        return [*findings, Finding("server", str(error), "see to it that it can be reached", blocking=True)]
    findings.append(
        Finding("server", f"PostgreSQL {shown(version)}, connection {'encrypted' if encrypted else 'not encrypted'}")
    )
    if settings.database_url is None and version != bundled.version:
        findings.append(
            Finding(
                "server",
                f"it was started by PostgreSQL {shown(version)}, and {shown(bundled.version)} is installed",
                "run `b44 db stop`: the next command starts the installed one on the same data",
            )
        )
    return findings + replica + _programs(installations, version, encrypted=encrypted)


def _replica(target: Connection, url: str) -> Finding:
    """What there is to say of the standby that verification and monitoring read from."""
    remedy = "without it `b44 verify` does not begin"
    try:
        with connect_replica(url, application_name="b44 doctor") as conn:
            behind = bytes_behind(conn, target)
    except DatabaseError as error:
        return Finding("replica", str(error), remedy)
    except psycopg.Error as error:
        return Finding("replica", str(explained(f"{VARIABLE} cannot be looked at", error)), remedy)
    far = "has replayed nothing yet" if behind is None else f"{behind:,} bytes of WAL behind"
    return Finding("replica", f"a standby of the target, {far}: {redact(url)}")


def _programs(installations: Sequence[Clients], version: int, *, encrypted: bool) -> list[Finding]:
    try:
        dumps = choose(installations, version, encrypted=encrypted)
        restores = newest(installations, version, encrypted=encrypted)
    except B44Error as error:
        return [Finding("dumps", str(error), "without them there are no backups")]
    remedy = None
    if not dumps.knows(version):
        major = version // 10_000
        remedy = (
            f"they may not know all that PostgreSQL {shown(version)} keeps: install postgresql-client-{major}, up to date,"
            " or set B44_PG_BIN"
        )
    return [Finding("dumps", str(dumps), remedy), Finding("restores", str(restores))]
