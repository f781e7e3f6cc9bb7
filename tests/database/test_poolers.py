"""A pooler between us and the server: one that keeps sessions apart is as good as none, any other is refused in one line."""

from __future__ import annotations

import psycopg
import pytest

from b44_assets.catalog import Catalog, Kind
from b44_assets.errors import DatabaseError
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.postgres.advisory_locks import advisory_lock
from b44_assets.postgres.connect import connect
from b44_assets.postgres.lock_retries import with_lock_retries
from b44_assets.schema.build import build
from b44_assets.session import Session
from tests.helpers.pooler import PGBOUNCER, pooled
from tests.helpers.scenario import FIRST, write_exports
from tests.helpers.target import Target

pytestmark = pytest.mark.skipif(not PGBOUNCER.exists(), reason=f"there is no PgBouncer in {PGBOUNCER}")


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("settings", [{}, {"server_round_robin": "1"}, {"default_pool_size": "1"}], ids=str)
def test_a_pooler_that_shares_sessions_is_refused_in_one_line(
    mode: str, settings: dict[str, str], embedded_database: str
) -> None:
    with pooled(embedded_database, mode, **settings) as url:
        # Others use it, too, and have left more than one session in the pool.
        if "default_pool_size" not in settings:
            for conn in [psycopg.connect(url, autocommit=True) for _ in range(3)]:
                conn.execute("select pg_sleep(0.01)")
                conn.close()
        with pytest.raises(DatabaseError) as caught:
            connect(url, autocommit=True)
    said = str(caught.value)
    assert "connection pooler" in said and "pool_mode=session" in said and "the server itself" in said
    assert "\n" not in said


def test_settings_of_ours_are_not_left_in_a_shared_session(embedded_database: str) -> None:
    with pooled(embedded_database, "transaction", default_pool_size="1") as url:
        with pytest.raises(DatabaseError):
            connect(url, autocommit=True)
        with psycopg.connect(url, autocommit=True) as other:
            row = other.execute(
                "select source from pg_settings where name = 'default_transaction_isolation'"
            ).fetchone()
    assert row == ("default",)


def test_a_migration_through_a_pooler_that_keeps_sessions_apart_is_like_any_other(
    embedded_database: str, catalog: Catalog, tmp_path_factory: pytest.TempPathFactory
) -> None:
    folder = tmp_path_factory.mktemp("exports")
    write_exports(folder)
    with pooled(embedded_database, "session") as url, Session(url, catalog).keeping() as session:
        for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
            build(session, spec)
        for mapping in catalog.mappings.values():
            stage_export(session, mapping, folder / FIRST)
            load_table(session, mapping)
            verdict = content_parity(session, mapping)
            assert verdict is not None and verdict.passed


def test_locks_are_held_and_who_stands_in_the_way_is_named_through_a_pooler(target_18: Target) -> None:
    with (
        pooled(target_18.session.url, "session") as url,
        connect(url, autocommit=True) as conn,
        connect(target_18.session.url) as other,
        advisory_lock(conn, "pooled") as lock,
    ):
        lock.check()
        other.execute("lock table users")
        with pytest.raises(DatabaseError, match=f"process {other.info.backend_pid} "):
            with_lock_retries(conn, lambda c: c.execute("lock table users"), lock_timeout=300, attempts=1)


def test_what_works_under_a_lock_is_told_from_what_was_left_through_a_pooler(target_18: Target) -> None:
    with (
        pooled(target_18.session.url, "session") as url,
        connect(target_18.session.url, autocommit=True) as direct,
        connect(url, autocommit=True) as worker,
    ):
        with connect(url, autocommit=True) as conn, advisory_lock(conn, "pooled") as lock:
            worker.execute(lock.at_work())
            lock.outlast(timeout=0)
        with advisory_lock(direct, "pooled") as later, pytest.raises(DatabaseError, match="pg_terminate_backend"):
            later.outlast(timeout=0)
