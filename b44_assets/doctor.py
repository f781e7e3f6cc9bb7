"""Say what the target is and how it stands with all that serves it, without making or changing anything."""

from __future__ import annotations

import socket
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

import psycopg
from psycopg.rows import TupleRow

from b44_assets.backup.service import BackupContext, look_at_archiving, newest_good, survey, wal_is_whole
from b44_assets.catalog import load_catalog
from b44_assets.config.app_folder import APP_FILE
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error, DatabaseError, bytes_free_at, free_at
from b44_assets.migration.disk_room import BESIDE_THE_EXPORT, REMEDY, lacking_room
from b44_assets.migration.readable import require_progress
from b44_assets.postgres.clients import Clients, available, choose, newest, shown
from b44_assets.postgres.connect import connect, room_of_server
from b44_assets.postgres.connection_urls import redact
from b44_assets.postgres.embedded import EmbeddedServer, embedded_exists, libpq_url, target_shown
from b44_assets.postgres.read_replica import VARIABLE, bytes_behind, connect_replica
from b44_assets.schema.preflight import need_room
from b44_assets.session import Connection, Session, explained, scalar

_UI_PORT = 3000
_ALIVE_SECONDS = 60
_EXTENSIONS = {
    "pg_stat_statements": "slow statements are told of by what runs at the moment only",
    "pgstattuple": "the bloat of tables is an estimate",
}
"""Extensions that the monitoring uses where they are, and what is missing without."""


@dataclass(frozen=True)
class Finding:
    """A line of the diagnosis.

    Attributes:
        subject: What it is about: `target`, `server`, `replica`, `dumps`, `restores`, `bundled`, `backups`, ….
        said: What was found.
        remedy: What to do about it; None where nothing has to be done.
        blocking: Whether the commands cannot work until that is done.
    """

    subject: str
    said: str
    remedy: str | None = None
    blocking: bool = False


def diagnose(settings: Settings, origins: Mapping[str, str], misspelt: Mapping[str, str]) -> list[Finding]:
    """Look at the settings, the target's server, the programs for it, Dagster's storage and the backups.

    Args:
        settings: In force.
        origins: Where each of them comes from that is not the default, by name.
        misspelt: Variables that are no setting's, with the one that is meant.
    """
    try:
        installations, unusable = available(settings.pg_bin), None
    except DatabaseError as error:
        installations, unusable = available(), error
    bundled = next(each for each in installations if each.origin == "bundled")
    findings = [Finding("bundled", f"PostgreSQL {shown(bundled.version)}"), *_of_settings(settings, origins)]
    findings += [Finding("setting", f"{name} is no setting", f"{meant} is one") for name, meant in misspelt.items()]
    if unusable is not None:
        findings.append(Finding("programs", str(unusable), "without them there are no backups; or leave it out"))
    origin = origins.get("database_url", "default: B44_DATABASE_URL is not set")
    findings.append(Finding("target", f"{target_shown(settings)} ({origin})"))
    findings.append(_home_disk(settings))
    findings.append(_port())
    if settings.database_url is None:
        server = EmbeddedServer(settings.home)
        if not server.running():
            return [*findings, Finding("server", "it does not run; it starts with the first command that needs it")]
        url = server.url()
    else:
        url = settings.database_url
    try:
        with connect(url, application_name="b44 doctor", autocommit=True) as conn:
            version, encrypted = conn.info.server_version, conn.pgconn.ssl_in_use
            database: str = scalar(conn, "select current_database()")
            findings += _of_server(conn, encrypted=encrypted)
            if settings.read_url is not None:
                findings.append(_replica(conn, settings.read_url))
    except DatabaseError as error:
        return [
            *findings,
            Finding("server", str(error), "correct what it names, and see to it that it can be reached", blocking=True),
        ]
    if settings.database_url is None and version != bundled.version:
        findings.append(
            Finding(
                "server",
                f"it was started by PostgreSQL {shown(version)}, and {shown(bundled.version)} is installed",
                "run `b44 db stop`: the next command starts the installed one on the same data",
            )
        )
    if room := room_of_server(url):
        findings.append(Finding("disk", f"of the server: {room}"))
    catalog = load_catalog(settings.sql_dir)
    if settings.export_dir is not None and (lacking := lacking_room(url, settings.export_dir, catalog.entities)):
        findings.append(Finding("disk", lacking, REMEDY))
    findings += _privileges(Session.of(settings, catalog, url=url))
    findings += [*_programs(installations, version, encrypted=encrypted), *_of_dagster(settings)]
    try:
        findings.extend(_of_backups(settings, database))
    except B44Error as error:
        findings.append(Finding("backups", str(error), "correct what it names"))
    return findings


def _of_settings(settings: Settings, origins: Mapping[str, str]) -> Iterator[Finding]:
    """Which files of settings are read, and what they and the environment give."""
    for name in sorted(origins):
        if name != "database_url":
            variable, origin = Settings.variable(name) if name in Settings.model_fields else name, origins[name]
            # Of a file it is named with the variable.
            said = f"{variable} of the environment" if origin == variable else origin
            yield Finding("setting", said if variable in said else f"{variable}: {said}")
    yield Finding("sql", str(settings.sql_dir))
    if (app := settings.sql_dir.parent / APP_FILE).is_file():
        yield Finding("app", str(app))


def _home_disk(settings: Settings) -> Finding:
    """What is free beside backups and Dagster's files, and the embedded server, where that is the target."""
    free = bytes_free_at(settings.home)
    lacking = free is not None and settings.database_url is None and free[0] < BESIDE_THE_EXPORT
    return Finding("disk", free_at(settings.home) or "how much is free is not known", REMEDY if lacking else None)


def _port() -> Finding:
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        taken = probe.connect_ex(("127.0.0.1", _UI_PORT)) == 0
    if taken:
        return Finding(
            "port", f"{_UI_PORT} is taken, by Dagster's web server or another", "b44 dev --port N takes another"
        )
    return Finding("port", f"{_UI_PORT} is free for b44 dev")


_SERVER = """
    select current_setting('server_encoding'),
           (select coalesce(to_jsonb(d) ->> 'datlocale', to_jsonb(d) ->> 'daticulocale', d.datcollate)
              from pg_database d where d.datname = current_database()),
           (select reset_val from pg_settings where name = 'TimeZone'),
           (select reset_val::bigint from pg_settings where name = 'max_files_per_process'),
           (select count(*) from pg_class where relnamespace = to_regnamespace('public') and relkind in ('r', 'i', 'm')),
           current_user::text
"""


_EXTENSIONS_THERE = """
    select name, installed_version is not null,
           -- It counts only what was loaded with the server; null where this role may not see that.
           case when name <> 'pg_stat_statements' then true
                when pg_has_role('pg_read_all_settings', 'usage')
                then current_setting('shared_preload_libraries') like '%%pg_stat_statements%%' end
      from pg_available_extensions where name = any (%s)
"""


def _of_server(conn: Connection, *, encrypted: bool) -> Iterator[Finding]:
    version = shown(conn.info.server_version)
    yield Finding("server", f"PostgreSQL {version}, connection {'encrypted' if encrypted else 'not encrypted'}")
    row = conn.execute(_SERVER).fetchone()
    assert row is not None
    encoding, locale, zone, files, relations, user = row
    yield Finding("encoding", f"{encoding}, locale {locale}")
    yield Finding("time zone", f"{zone}; b44 itself reads and writes in UTC")
    remedy = None
    if files < relations:
        remedy = "alter system set max_files_per_process = 8192, and restart the server: else plans open files anew each time"
    yield Finding(
        "files", f"max_files_per_process is {files:,}; the app has {relations:,} tables, partitions and indexes", remedy
    )
    rows: Sequence[TupleRow] = conn.execute(_EXTENSIONS_THERE, (list(_EXTENSIONS),)).fetchall()
    for name, installed, loads in rows:
        mends = [
            *([f"add {name} to shared_preload_libraries and restart the server"] if loads is False else []),
            *([] if installed else [f"create extension {name}"]),
        ]
        without = f"without it {_EXTENSIONS[name]}: {', then '.join(mends)}" if mends else None
        said = "not installed" if not installed else "there, but not loaded" if mends else "there"
        yield Finding("extension", f"{name} is {said}", without)
    yield Finding("user", user)


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


def _privileges(session: Session) -> Iterator[Finding]:
    unreadable: B44Error | None = None
    try:
        require_progress(session)
    except B44Error as error:
        unreadable = error
    try:
        need_room(session, only_look=True)
    except B44Error as error:
        but = "" if unreadable else "; reading can"
        yield Finding("privileges", str(error), f"a migration cannot run before that is done{but}")
    else:
        yield Finding("privileges", "the user may make all that the SQL files say")
    if unreadable:
        yield Finding("privileges", str(unreadable), "b44 status cannot run before that is done")


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


def _of_dagster(settings: Settings) -> list[Finding]:
    """Whether a daemon is alive over Dagster's storage, and how many schedules and sensors are turned on there."""
    if settings.dagster_pg_url is not None:
        url = libpq_url(settings.dagster_pg_url)
    elif embedded_exists(settings) and (server := EmbeddedServer(settings.home)).running():
        url = server.url("dagster")
    else:
        return [Finding("daemon", "Dagster has no storage yet", "b44 dev makes it")]
    try:
        with connect(url, application_name="b44 doctor", autocommit=True) as conn:
            return list(_of_storage(conn))
    except (DatabaseError, psycopg.Error) as error:
        return [Finding("daemon", f"Dagster's storage: {error}", "correct DAGSTER_PG_URL")]


def daemon_age(conn: Connection, after: float = 0) -> float | None:
    """How long ago a daemon of Dagster's was alive, in seconds; None where none was.

    Args:
        conn: On the database of Dagster's storage.
        after: Only one that was alive after this moment, in seconds since 1970.
    """
    if scalar(conn, "select to_regclass('daemon_heartbeats') is null"):
        return None
    age: float | None = scalar(
        conn,
        "select extract(epoch from now() at time zone 'UTC' - max(timestamp))::float8 from daemon_heartbeats"
        " where timestamp > to_timestamp(%s) at time zone 'UTC'",
        (after,),
    )
    return age


def _of_storage(conn: Connection) -> Iterator[Finding]:
    start = "b44 dev runs one beside the UI; docs/deployment.md has a service"
    if scalar(conn, "select to_regclass('instigators') is null"):
        yield Finding("daemon", "nothing was run here yet", start)
        return
    age = daemon_age(conn)
    if age is not None and age < _ALIVE_SECONDS:
        yield Finding("daemon", f"alive {max(age, 0):.0f} s ago")
    else:
        seen = "never" if age is None else f"last {age / 3600:,.1f} h ago"
        yield Finding("daemon", f"none is alive (seen: {seen}); schedules and sensors do nothing", start)
    on = dict(
        conn.execute(
            # Declared in code: on by itself, from the first start of a daemon.
            "select lower(instigator_type), count(*) from instigators where status in ('RUNNING', 'DECLARED_IN_CODE') group by 1"
        ).fetchall()
    )
    schedules, sensors = on.get("schedule", 0), on.get("sensor", 0)
    remedy = (
        None
        if schedules
        else "turn them on in the UI, under Automation: backups, partitions and statistics wait for it"
    )
    yield Finding("schedules", f"{schedules} schedules and {sensors} sensors are on", remedy)


def _of_backups(settings: Settings, database: str) -> Iterator[Finding]:
    """Whether the WAL is archived, and what there is to restore from."""
    context = BackupContext.of(settings)
    state = look_at_archiving(context)
    yield Finding("archiving", state.explanation, None if state.works else "b44 db archiving on, or what it then says")
    found = survey(context)
    backup = newest_good(found.listing.backups, database)
    if backup is None:
        yield Finding("backups", f"there is no good backup of {database}", "b44 backup takes one")
    else:
        hours = (datetime.now(UTC) - backup.ended_at).total_seconds() / 3600
        yield Finding("backups", f"the newest good one is {backup.id}, {hours:,.1f} h old")
    for answer in wal_is_whole(context, found).values():
        yield Finding("wal", answer.lines[0], None if answer.ok else "b44 backup --kind base begins a new chain")
