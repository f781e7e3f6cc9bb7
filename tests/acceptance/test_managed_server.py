"""A server as hosting companies give it: no superuser, schemas of theirs, TLS, a pooler; and no secret is seen anywhere."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import LiteralString
from urllib.parse import quote

import psycopg
import pytest
from psycopg import sql

from b44_assets.backup.encryption import Key
from tests.helpers.command import PATIENCE, Command, Result, environment
from tests.helpers.command_tree import commands
from tests.helpers.database_contents import rows, value
from tests.helpers.forking import start_forked
from tests.helpers.pooler import PGBOUNCER, pooled_with_tls
from tests.helpers.sample_exports import small_export
from tests.helpers.servers import OwnServer, programs
from tests.helpers.traces import CommandLines, of_database, of_folder
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
        yield from of_folder(Path(self.folder))
        yield "the server's log", Path(self.log).read_bytes()
        yield "command lines", "\n".join(self.command_lines).encode()
        yield "the webhook", self.told.encode()
        for url in (self.url, self.dagster):
            yield from of_database(url)


_BACK, _EXPORT = "refused.csv", "EXPORT"
# In their order. A cut-over is a migration, too.
_COMMANDS = {
    "doctor": ("doctor", "--json"),
    "cutover": ("cutover", "--json", "--accept-quarantine"),
    "metrics": ("metrics",),
}
# On one server only: they are the same on each, or need the server's own programs, with TLS, which only the operating system's have.
_ONCE = {
    "status": ("status", "--json"),
    "quarantine": ("quarantine", "--csv", _BACK),
    "corrected": ("quarantine", "--from", _BACK),
    "replay": ("replay", "--entity", "users", "--json"),
    "rollback": ("rollback", "--partition", "2026-09", "--json"),
    "plan": ("plan", "--json"),
    "migrate": ("migrate", "--table", "posts", "--month", "2026-09", "--json"),
    "report": ("report",),
    "psql": ("db", "psql", "--", "-c", "select 1"),
    "dump": ("db", "dump", "--", "--schema=public", "--schema-only", "--file=schema.sql"),
    "bin": ("db", "bin"),
    "url": ("db", "url"),
    "stop": ("db", "stop"),
    "archiving": ("db", "archiving"),
    "backup": ("backup", "--kind", "logical"),
    "base backup": ("backup", "--kind", "base"),
    "backups": ("backups",),
    "drill": ("drill",),
    "sample": ("sample", "tried", "--users", "3", "--posts", "5"),
    "init": ("init", "app", "--export", _EXPORT),
}
_RESTORE = ("restore", "logical/latest", "--into")
_FINISH = ("finish", "--accept-quarantine", "--accept-failed-checks", "--yes")
_VERIFY = ("verify", "--json")
_BROKEN = ("migrate", "--table", "categories")
_ELSEWHERE = {"b44 dev": "browser/test_ui.py"}
"""Commands that another test looks at: to start them takes long."""


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


def use_api() -> None:
    """What the Python API does, and says of itself."""
    from b44_assets.api import Settings, migrate, plan, status, verify

    settings = Settings.load()
    print(settings, repr(settings), plan(settings), migrate(settings, tables=["categories"]), status(settings))
    print(verify(settings))


def by_api(b44: Command, folder: Path) -> Result:
    """What comes of it."""
    folder.mkdir()
    process = start_forked(use_api, directory=b44.directory, environment=b44.environment, output=folder)
    process.join(PATIENCE)
    assert process.exitcode is not None
    return Result(process.exitcode, (folder / "out").read_text(), (folder / "err").read_text())


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
        export = small_export(tmp_path_factory.mktemp("export"))
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
                    B44_EXPORT_DIR=str(export),
                    B44_FIRST_MONTH="2026-06",
                    B44_BACKUP_KEY=key,
                    B44_ALERT_WEBHOOK=f"{hook.address}/{WEBHOOK}",
                    B44_ALERT_EMAIL="ops@example.com",
                    B44_SMTP_URL=f"smtp://mailer:{quote(MAIL, safe='')}@127.0.0.1:1",
                    DAGSTER_PG_URL=dagster_storage.replace("postgres@", f"postgres:{quote(PASSWORD, safe='')}@"),
                ),
            )
            once = (programs(server.major) / "pg_dump").exists()
            results = {
                name: b44(*(export if word == _EXPORT else word for word in words))
                for name, words in (_COMMANDS | (_ONCE if once else {})).items()
            }
            if once:
                direct = f"{server.tcp_url(OWNER, quote(PASSWORD, safe=''), RESTORED)}?sslmode=require"
                results["restore"] = b44(*_RESTORE, direct)
                results["finish"] = b44.on(direct)(*_FINISH)
            with psycopg.connect(server.url(DATABASE), autocommit=True) as conn:
                conn.execute("drop index idx_users_role")
            # Somebody is told; the mail's server does not answer.
            results["verify"] = b44(*_VERIFY)
            if once:
                results["api"] = by_api(b44, tmp_path_factory.mktemp("api") / "said")
                with psycopg.connect(server.url(DATABASE), autocommit=True) as conn:
                    conn.execute("alter table categories rename column name to called")
                results["broken"] = b44(*_BROKEN)
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


def test_every_command_is_run() -> None:
    run = [*_COMMANDS.values(), *_ONCE.values(), _RESTORE, _FINISH, _VERIFY, _BROKEN]
    called = {" ".join(("b44", *words[: 2 if words[0] == "db" else 1])) for words in run}
    assert {*called, *_ELSEWHERE} == dict(commands()).keys()
    assert all((Path(__file__).parents[1] / file).exists() for file in _ELSEWHERE.values())


def test_an_owner_without_further_rights_migrates_verifies_and_backs_up(managed: Managed) -> None:
    refused = {"archiving": 1, "base backup": 2, "drill": 2, "broken": 2} if "backup" in managed.results else {}
    assert {name: result.status for name, result in managed.results.items() if result.status} == {
        "verify": 1,
        **refused,
    }
    assert {line.split()[1] for line in managed.results["verify"].report["failed"]} == {"indexes_valid", "schema_drift"}
    assert all(unaccounted == 0 for (unaccounted,) in rows(managed.url, "select unaccounted from migration.accounting"))
    assert value(managed.url, "select count(*) from posts") > 30
    assert value(managed.url, "select not rolsuper from pg_roles where rolname = %s", OWNER)


def test_what_is_open_by_the_hosts_defaults_is_said(managed: Managed) -> None:
    assert "REVOKE ALL ON ALL TABLES IN SCHEMA public FROM anon" in managed.results["cutover"].err


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
    places = list(managed.written)
    # What there is to be found is looked at.
    names = {place for place, _ in places}
    assert {"public.event_logs", "command lines", "the webhook", "the server's log"} <= names
    assert any(place.endswith(".html") for place in names)
    of_doctor = next(text for place, text in places if place == "standard output of doctor")
    assert b"postgresql" in of_doctor
    assert b"postgres" in b"".join(text for place, text in places if place == "command lines")
    assert b"idx_users_role" in b"".join(text for place, text in places if place == "the webhook")
    assert any(place == "a snapshot of Dagster's" and b"posts" in text for place, text in places)

    found = {place: secret for place, text in places for secret in secrets if secret in text}
    # It is asked for the URL.
    asked = {"standard output of url"} if "url" in managed.results else set[str]()
    assert found.keys() == asked, found
