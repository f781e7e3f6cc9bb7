"""Verification and monitoring read from a standby of the target, if that is what `B44_READ_URL` names, and from nothing older."""

from __future__ import annotations

import os
import pwd
import re
import shutil
import tempfile
import time
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from urllib.parse import quote

import psycopg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError
from b44_assets.maintenance.monitoring import MEASUREMENTS, Reading, monitoring
from b44_assets.maintenance.query_runs import run_queries
from b44_assets.migration.verification import row_parity
from b44_assets.postgres.embedded import EmbeddedServer
from b44_assets.postgres.embedded.accounts import server_account
from b44_assets.postgres.read_replica import ReadReplica
from b44_assets.schema.health import foreign_keys_hold, view_equals_query
from b44_assets.session import Connection, Session
from tests.helpers.command import Command
from tests.helpers.database_contents import value
from tests.helpers.migrated_apps import SHOP
from tests.helpers.servers import run_as
from tests.helpers.waiting import eventually
from tests.helpers.workers import scratch_folder

ENDED = re.compile(r"\] b44 (?P<purpose>[^@]*)@b44 LOG:  disconnection: ")
UNTHROTTLED = "alter system set fsync = off; alter system set full_page_writes = off"


@dataclass(frozen=True)
class Pair:
    """A server with a migrated shop, and its standby.

    Attributes:
        primary: The server.
        standby: Its standby.
        b44: The command on them.
    """

    primary: EmbeddedServer
    standby: EmbeddedServer
    b44: Command

    def session(self, patience: float = 20.0, url: str | None = None) -> Session:
        session = Session(self.primary.url(), load_catalog(SHOP / "sql"))
        return replace(session, read_replica=ReadReplica(url or self.standby.url(), patience))

    def execute(self, *statements: str) -> None:
        with psycopg.connect(self.primary.url(), autocommit=True) as conn:
            for statement in statements:
                conn.execute(statement.encode())

    def replay(self, *, paused: bool) -> None:
        with psycopg.connect(self.standby.url(), autocommit=True) as conn:
            conn.execute("select pg_wal_replay_pause()" if paused else "select pg_wal_replay_resume()")
            wanted = "paused" if paused else "not paused"
            eventually(lambda: conn.execute("select pg_get_wal_replay_pause_state()").fetchone() == (wanted,))

    def asked(self, server: EmbeddedServer) -> list[str]:
        """For what each session of a server was made that has ended."""
        logs = sorted(server.log_dir.glob("postgresql-*.log"))
        return [found["purpose"] for log in logs for found in ENDED.finditer(log.read_text(errors="replace"))]


def start_standby(primary: EmbeddedServer, home: Path) -> EmbeddedServer:
    standby = EmbeddedServer(home)
    known = server_account(primary.directory)
    account = pwd.getpwuid(known.uid) if known else None
    standby.directory.mkdir(parents=True)
    if account:
        os.chown(standby.directory, account.pw_uid, account.pw_gid)
    options = ("-c", "fast", "--no-sync", "-R", "-X", "stream", "-d", primary.url("postgres"))
    taken = run_as(account, [primary.bin_dir / "pg_basebackup", "-D", standby.data_dir, *options])
    assert taken.returncode == 0, taken.stderr
    standby.start()
    return standby


@pytest.fixture(scope="module")
def pair(dagster_storage: str, shop_command: Command, tmp_path_factory: pytest.TempPathFactory) -> Generator[Pair]:
    folder = Path(tempfile.mkdtemp(prefix="b44-pair-", dir=scratch_folder()))
    folder.chmod(0o1777)
    primary, standby = EmbeddedServer(folder / "primary"), EmbeddedServer(folder / "standby")
    try:
        primary.start()
        with psycopg.connect(primary.url(), autocommit=True) as conn:
            for statement in UNTHROTTLED.split("; "):
                conn.execute(statement.encode())
            conn.execute("select pg_reload_conf()")
        b44 = replace(shop_command, directory=tmp_path_factory.mktemp("pair")).on(primary.url())
        # No standby is asked by what writes.
        b44 = b44.having(B44_READ_URL="postgresql://postgres@127.0.0.1:1/b44")
        migrated = b44("migrate", "--export", SHOP / "export" / "json", "--json")
        assert migrated.status == 0, migrated
        start_standby(primary, standby.home)
        yield Pair(primary, standby, b44.having(B44_READ_URL=standby.url()))
    finally:
        standby.stop("immediate")
        primary.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


def test_verify_reads_from_the_standby_all_but_what_is_not_there(pair: Pair) -> None:
    result = pair.b44.having(PGOPTIONS="-c log_disconnections=on")("verify", "--json")
    assert result.status == 0, result
    assert result.report["checks"]["failed"] == 0
    # The server's logger writes a little later.
    # A connection has the name of its last use.
    eventually(lambda: {name.partition(" ")[0] for name in pair.asked(pair.standby)} == {"check", "look"})
    with psycopg.connect(pair.primary.url()) as conn:
        (read,) = conn.execute("select count(*) from migration.verifications").fetchone() or (0,)
    assert read > 0, "what verification notes is written where it can be"


def test_what_was_just_changed_is_waited_for(pair: Pair) -> None:
    mapping = pair.session().catalog.mappings["reviews"]
    waited: list[float] = []

    def wait(seconds: float) -> None:
        if not waited:
            pair.replay(paused=False)
        waited.append(seconds)
        time.sleep(seconds)

    pair.replay(paused=True)
    pair.execute("create table kept as select * from reviews", "delete from reviews")
    session = replace(pair.session(), read_replica=ReadReplica(pair.standby.url(), 20.0, wait))
    seen = row_parity(session, mapping)
    pair.execute("set session_replication_role = replica", "insert into reviews select * from kept", "drop table kept")
    assert waited
    assert seen is not None and seen.held == 0 and seen.lost == seen.migrated > 0
    # Counted on the target: a standby has no rows of an unlogged table.
    assert seen.staged == seen.read
    assert (again := row_parity(pair.session(), mapping)) is not None and again.passed


def test_rows_views_and_queries_are_read_on_the_standby(pair: Pair) -> None:
    session = pair.session()
    [view] = session.catalog.materialized_views
    asked: list[bool] = []

    @contextmanager
    def noting(purpose: str, *, idles: bool = False, replica: bool = False) -> Generator[Connection]:
        with Session.connection(session, purpose, idles=idles, replica=replica) as conn:
            if purpose != "look where the target is":
                asked.append(conn.execute("select pg_is_in_recovery()").fetchone() == (True,))
            yield conn

    # A session is frozen.
    object.__setattr__(session, "connection", noting)
    assert foreign_keys_hold(session, "order_lines").rows > 0
    assert view_equals_query(session, view).passed
    assert run_queries(session, {}).runs
    assert asked == [True, True, True]


def test_a_standby_that_stays_behind_is_told_in_one_line(pair: Pair) -> None:
    pair.replay(paused=True)
    try:
        pair.execute("create table later (x int)")
        session = pair.session(patience=0.2)
        for _ in range(2):
            with pytest.raises(DatabaseError, match=r"^B44_READ_URL: .* [\d,]+ bytes of WAL behind") as raised:
                row_parity(session, session.catalog.mappings["reviews"])
            assert "\n" not in str(raised.value)
        result = pair.b44.having(B44_READ_WAIT="200ms")("verify", "--json")
        assert result.status == 2 and "B44_READ_URL" in result.fault and result.out == ""
        # Only those figures fail that are read there.
        bloat, sizes = measured(pair, 0.2, "table_bloat", "table_sizes")
        assert "B44_READ_URL" in bloat.unseen[0] and not sizes.unseen
        # It is looked at, and nothing waits.
        assert re.search(r"standby of the target, [1-9][\d,]* bytes", found(pair.b44)["replica"])
    finally:
        pair.replay(paused=False)
        pair.execute("drop table if exists later")


def measured(pair: Pair, patience: float, *names: str) -> list[Reading]:
    chosen = [one for one in MEASUREMENTS if one.name in names]
    settings = Settings.load({}, Path("/nonexistent"))
    with monitoring(pair.session(patience), settings) as monitor:
        taken = {one.name: monitor.take(one) for one in chosen}
    return [taken[name] for name in names]


def found(b44: Command) -> dict[str, str]:
    result = b44("doctor", "--json")
    assert result.status == 0, result
    return {one["subject"]: one["said"] for one in result.report["findings"]}


def test_tables_are_looked_at_for_bloat_on_the_standby(pair: Pair) -> None:
    pair.execute("create extension if not exists pgstattuple")
    # An unlogged table is not there, and does not keep others from being measured.
    pair.execute(
        "create table wide as select repeat('x', 800) as x from generate_series(1, 30000)",
        "create unlogged table gone as select * from wide",
        "analyze wide, gone",
    )
    before = value(pair.standby.url(), "select blks_read + blks_hit from pg_stat_database where datname = 'b44'")
    [bloat] = measured(pair, 20.0, "table_bloat")
    assert [row.labels["table"] for row in bloat.rows["table_bloat"]] == ["wide"] and not bloat.unseen
    asks = "select blks_read + blks_hit > %s from pg_stat_database where datname = 'b44'"
    eventually(lambda: value(pair.standby.url(), asks, before))
    pair.execute("drop table wide, gone; drop extension pgstattuple")


def test_another_server_and_another_database_are_refused(pair: Pair, embedded: EmbeddedServer) -> None:
    wrong = {
        embedded.url("postgres"): "is no standby of the target, but another one",
        pair.primary.url(): "takes writes of its own",
        pair.standby.url("dagster"): "names database 'dagster', and the target is 'b44'",
        "postgresql://postgres@127.0.0.1:1/b44": "no server listens there",
    }
    for url, said in wrong.items():
        with (
            pytest.raises(DatabaseError, match=f"^B44_READ_URL.*{re.escape(said)}"),
            pair.session(url=url).connection("look", replica=True),
        ):
            pass
        assert said in found(pair.b44.having(B44_READ_URL=url))["replica"]


def test_a_password_of_the_standby_is_not_shown(pair: Pair) -> None:
    marked = quote("marked:secret@1", safe="")
    b44 = pair.b44.having(B44_READ_URL=f"postgresql://nobody:{marked}@127.0.0.1:1/b44")
    for command in ("doctor", "verify"):
        result = b44(command)
        assert "B44_READ_URL" in result.out + result.err
        assert "secret" not in result.out + result.err


def test_a_standby_that_was_promoted_is_refused(pair: Pair) -> None:
    folder = Path(tempfile.mkdtemp(prefix="b44-promoted-", dir=scratch_folder()))
    folder.chmod(0o1777)
    promoted = EmbeddedServer(folder / "home")
    try:
        start_standby(pair.primary, promoted.home)
        with psycopg.connect(promoted.url(), autocommit=True) as conn:
            assert conn.execute("select pg_promote()").fetchone() == (True,)
        result = pair.b44.having(B44_READ_URL=promoted.url())("verify", "--json")
        assert result.status == 2 and "takes writes of its own" in result.fault
    finally:
        promoted.stop("immediate")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.parametrize("arguments", [("verify",), ("rollback", "--partition", "2026-01")])
def test_a_standby_as_target_is_refused_in_one_line_that_names_the_mend(pair: Pair, arguments: tuple[str, ...]) -> None:
    result = pair.b44.on(pair.standby.url()).having(B44_READ_URL="")(*arguments)
    assert result.status == 2
    assert "name the primary server in the URL" in result.err.splitlines()[-1]
