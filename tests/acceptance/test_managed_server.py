"""A server as hosting companies give it: no superuser, schemas of theirs, TLS, a pooler; and no secret is seen anywhere."""

from __future__ import annotations

import json
import subprocess
import sys
import threading
import zlib
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup.encryption import Key
from b44_assets.sample import write_sample
from tests.helpers.command import Command, Result, environment
from tests.helpers.database_contents import rows, value
from tests.helpers.pooler import PGBOUNCER, pooled_with_tls
from tests.helpers.sample_exports import keep_posts
from tests.helpers.servers import OwnServer, programs
from tests.helpers.webhooks import webhook
from tests.helpers.workers import made_once

OWNER, DATABASE, RESTORED = "tenant", "managed", "restored"
# A colon, an at and a percent sign are written otherwise in a URL.
PASSWORD, WEBHOOK, MAIL = "marked:pass@word%1", "marked-webhook", "marked:mail@2"

_SERVER: tuple[LiteralString, ...] = (
    "create role {owner} login createrole createdb password {password}",
    "create role anon nologin",
)
_NEW: LiteralString = "create database {database} owner {owner}"
# What stands in a database of such a server from the beginning, and is not its owner's.
_DATABASE: tuple[LiteralString, ...] = (
    "create schema auth",
    "create schema storage",
    "create schema extensions",
    "create extension pgcrypto schema extensions",
    "create table auth.users (id uuid primary key, email text, role text)",
    "create table storage.objects (id uuid primary key)",
    "grant usage on schema auth, storage, extensions to {owner}",
    "create function extensions.watch_ddl() returns event_trigger language plpgsql as $$ begin"
    "  perform count(*) from pg_event_trigger_ddl_commands(); notify changed_schema; end $$",
    "create event trigger watch_ddl on ddl_command_end execute function extensions.watch_ddl()",
    "alter default privileges for role {owner} in schema public grant select on tables to anon",
    'alter role {owner} in database {database} set search_path = "$user", public, extensions',
    "alter role {owner} in database {database} set statement_timeout = '2min'",
    "alter role {owner} in database {database} set idle_in_transaction_session_timeout = '1min'",
)


@dataclass
class CommandLines:
    """Those of every process of the machine while something runs."""

    seen: set[str] = field(default_factory=set[str])

    @contextmanager
    def watched(self) -> Generator[None]:
        over = threading.Event()
        processes = Path("/proc")
        standing = set(processes.iterdir())

        def look(found: Iterable[Path]) -> None:
            for process in found:
                # It may end meanwhile, and not everything there is one.
                try:
                    line = (process / "cmdline").read_bytes()
                except OSError:
                    continue
                self.seen.add(line.replace(b"\0", b" ").decode(errors="replace"))

        def watch() -> None:
            # What was there before says the same all the time; it is looked at once more at the end.
            while not over.wait(0.05):
                found = set(processes.iterdir())
                standing.intersection_update(found)
                look(found - standing)

        watcher = threading.Thread(target=watch)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join()
            look(processes.iterdir())


@dataclass(frozen=True)
class Managed:
    """What commands came to on such a server.

    Attributes:
        url: Of the database, as a superuser.
        restored: Of another one of the same host, into which its backup went.
        dagster: Of Dagster's storage.
        folder: Where all files are that the commands have written.
        log: What the server has logged.
        results: By command.
        secrets: What must stand nowhere.
        command_lines: Of all processes meanwhile.
        told: What the webhook got.
    """

    url: str
    restored: str
    dagster: str
    folder: str
    log: str
    results: dict[str, Result]
    secrets: list[str]
    command_lines: list[str]
    told: str

    @property
    def written(self) -> Iterator[tuple[str, bytes]]:
        """All that was written, printed, sent or shown, and where."""
        for command, result in self.results.items():
            yield f"standard output of {command}", result.out.encode()
            yield f"standard error of {command}", result.err.encode()
        for path in Path(self.folder).rglob("*"):
            if path.is_file():
                yield str(path), path.read_bytes()
        yield "the server's log", Path(self.log).read_bytes()
        yield "command lines", "\n".join(self.command_lines).encode()
        yield "the webhook", self.told.encode()
        for url in (self.url, self.dagster):
            for table in rows(url, _TABLES):
                for (row,) in rows(url, sql.SQL("select t::text from {} t").format(sql.Identifier(*table))):
                    yield ".".join(table), row.encode()
        for (snapshot,) in rows(self.dagster, "select snapshot_body from snapshots"):
            yield "a snapshot of Dagster's", zlib.decompress(snapshot)


_TABLES = """
select n.nspname::text, c.relname::text
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind = 'r' and n.nspname !~ '^(pg_|information_schema)'
"""
_BACK = "refused.csv"
_COMMANDS = {
    "doctor": ("doctor", "--json"),
    "migrate": ("migrate", "--json"),
    "verify": ("verify", "--json"),
    "status": ("status", "--json"),
    "quarantine": ("quarantine", "--csv", _BACK),
    "corrected": ("quarantine", "--from", _BACK),
    "metrics": ("metrics",),
    "report": ("report",),
}
# They need the server's own programs, with TLS, which only the operating system's have; a plan is made on another server.
_WITH_PROGRAMS = {
    "plan": ("plan", "--json"),
    "psql": ("db", "psql", "--", "-c", "select 1"),
    "dump": ("db", "dump", "--", "--schema=public", "--schema-only", "--file=schema.sql"),
    "backup": ("backup", "--kind", "logical"),
    "base backup": ("backup", "--kind", "base"),
}


def prepare(server: OwnServer, database: str, of_server: Sequence[LiteralString] = ()) -> None:
    """Makes a database of the owner's with what a host puts there."""
    words = {"owner": sql.Identifier(OWNER), "database": sql.Identifier(database), "password": sql.Literal(PASSWORD)}
    on: list[tuple[str, Sequence[LiteralString]]] = [("postgres", [*of_server, _NEW]), (database, _DATABASE)]
    for name, statements in on:
        with psycopg.connect(server.url(name), autocommit=True) as conn:
            # The password of a statement of ours is no secret of the program's.
            conn.execute("set log_statement = none; set log_min_duration_statement = -1")
            for statement in statements:
                conn.execute(sql.SQL(statement).format(**words))


def small_export(folder: Path) -> Path:
    """An export of few months: every partition takes its time."""
    write_sample(folder, users=24, posts=1_000, seed=7, dialect="jsonl", faults=0.03)
    keep_posts(folder, "2026-0[6-9]")
    return folder


def by_api(b44: Command) -> Result:
    """What the Python API says of itself."""
    program = (
        "from b44_assets.api import Settings, status; s = Settings.load(); print(s); print(repr(s)); print(status(s))"
    )
    ran = subprocess.run(
        [sys.executable, "-c", program],
        cwd=b44.directory,
        env=b44.environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return Result(ran.returncode, ran.stdout, ran.stderr)


@pytest.fixture(params=[15, 18])
def managed(
    request: pytest.FixtureRequest,
    server_of: Callable[[int], OwnServer],
    dagster_storage: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Managed:
    if not PGBOUNCER.exists():
        pytest.skip(f"there is no PgBouncer in {PGBOUNCER}")
    server = server_of(request.param)

    def make() -> str:
        prepare(server, DATABASE, _SERVER)
        prepare(server, RESTORED)
        folder = tmp_path_factory.mktemp("managed")
        key = Key.generate().secret
        lines = CommandLines()
        with (
            pooled_with_tls(server.tcp_url(OWNER, quote(PASSWORD, safe=""), DATABASE)) as url,
            webhook() as hook,
            lines.watched(),
        ):
            b44 = Command(
                folder,
                environment(
                    B44_DATABASE_URL=url,
                    B44_EXPORT_DIR=str(small_export(tmp_path_factory.mktemp("export"))),
                    B44_FIRST_MONTH="2026-06",
                    B44_BACKUP_KEY=key,
                    B44_ALERT_WEBHOOK=f"{hook.address}/{WEBHOOK}",
                    B44_ALERT_EMAIL="ops@example.com",
                    B44_SMTP_URL=f"smtp://mailer:{quote(MAIL, safe='')}@127.0.0.1:1",
                    DAGSTER_PG_URL=dagster_storage.replace("postgres@", f"postgres:{quote(PASSWORD, safe='')}@"),
                ),
            )
            commands = _COMMANDS | (_WITH_PROGRAMS if (programs(server.major) / "pg_dump").exists() else {})
            results = {name: b44(*arguments) for name, arguments in commands.items()}
            results["api"] = by_api(b44)
            direct = server.tcp_url(OWNER, quote(PASSWORD, safe=""), RESTORED)
            if "backup" in results:
                results["restore"] = b44("restore", "logical/latest", "--into", f"{direct}?sslmode=require")
            with psycopg.connect(server.url(DATABASE), autocommit=True) as conn:
                conn.execute("drop index idx_users_role")
            # Somebody is told; the mail's server does not answer.
            results["failing"] = b44("verify")
        secrets = [PASSWORD, quote(PASSWORD, safe=""), WEBHOOK, MAIL, quote(MAIL, safe=""), key]
        return json.dumps(
            asdict(
                Managed(
                    url=server.url(DATABASE),
                    restored=server.url(RESTORED),
                    dagster=dagster_storage,
                    folder=str(folder),
                    log=str(server.data_dir / "log"),
                    results=results,
                    secrets=secrets,
                    command_lines=sorted(lines.seen),
                    told=json.dumps(hook.received),
                )
            )
        )

    made = json.loads(made_once(server.directory / f"managed_{server.major}.json", make))
    made["results"] = {name: Result(**result) for name, result in made["results"].items()}
    return Managed(**made)


def with_programs(managed: Managed) -> None:
    if "backup" not in managed.results:
        pytest.skip("there are no programs with TLS of this version")


def test_an_owner_without_further_rights_migrates_verifies_and_backs_up(managed: Managed) -> None:
    refused = {"base backup": 2} if "base backup" in managed.results else {}
    assert {name: result.status for name, result in managed.results.items() if result.status} == {
        "failing": 1,
        **refused,
    }
    assert all(unaccounted == 0 for (unaccounted,) in rows(managed.url, "select unaccounted from migration.accounting"))
    assert value(managed.url, "select count(*) from posts") > 30
    assert value(managed.url, "select not rolsuper from pg_roles where rolname = %s", OWNER)


def test_what_is_open_by_the_hosts_defaults_is_said(managed: Managed) -> None:
    assert "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM anon" in managed.results["migrate"].err


def test_what_such_a_server_does_not_give_is_said_in_one_line(managed: Managed) -> None:
    with_programs(managed)
    base = managed.results["base backup"]
    assert [line for line in base.err.splitlines() if line.startswith("b44: ")] == [base.err.splitlines()[-1]]
    assert "REPLICATION" in base.err and "logical backups work" in base.err
    assert "notice: not in it" in managed.results["backup"].err and "auth, storage" in managed.results["backup"].err


def test_what_is_the_hosts_stays_as_it_was(managed: Managed) -> None:
    theirs = (
        "select nspname::text from pg_namespace where nspowner = 10 and nspname in ('auth', 'storage', 'extensions')"
    )
    assert len(rows(managed.url, theirs)) == 3
    assert value(managed.url, "select count(*) from auth.users") == 0
    ours = "select distinct relowner::regrole::text from pg_class where relnamespace = 'public'::regnamespace"
    assert rows(managed.url, ours) == [(OWNER,)]


def test_its_backup_goes_into_another_database_of_the_host_beside_what_is_there(managed: Managed) -> None:
    with_programs(managed)
    assert (
        "left as in this database, since they are somebody else's there: extensions" in managed.results["restore"].err
    )
    count = "select count(*) from posts"
    assert value(managed.restored, count) == value(managed.url, count)
    assert value(managed.restored, "select evtowner = 10 from pg_event_trigger")
    assert value(managed.restored, "select count(*) from auth.users") == 0


def test_no_secret_is_written_printed_sent_or_shown(managed: Managed) -> None:
    secrets = [secret.encode() for secret in managed.secrets]
    found = {place: secret for place, text in managed.written for secret in secrets if secret in text}
    assert found == {}


def test_what_is_written_is_looked_at(managed: Managed) -> None:
    places = dict(managed.written)
    assert b"postgresql" in places["standard output of doctor"]
    assert any(place.endswith(".html") for place in places) and "public.event_logs" in places
    assert b"postgres" in places["command lines"] and b"idx_users_role" in places["the webhook"]
    assert any(place == "a snapshot of Dagster's" and b"posts" in text for place, text in managed.written)
