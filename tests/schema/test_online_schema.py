"""The schema changed under live use: nobody waits long, nothing is ever unprotected, an interruption is repaired."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import errors

from b44_assets.catalog import Kind, Spec, load_catalog
from b44_assets.errors import DatabaseError
from b44_assets.failpoints import armed
from b44_assets.maintenance import index_maintenance
from b44_assets.schema import indexes
from b44_assets.schema import online_ddl as ddl
from b44_assets.schema.apply import apply
from b44_assets.schema.constraints import apply_constraints
from b44_assets.schema.indexes import apply_indexes
from b44_assets.schema.online_ddl import SchemaChange
from b44_assets.schema.partitions import apply_partitions
from b44_assets.schema.triggers import apply_triggers
from b44_assets.schema.views import apply_view, refresh
from b44_assets.session import Session
from tests.helpers.command import PATIENCE

Db = psycopg.Connection[Any]


def spec(session: Session, name: str) -> Spec:
    return next(spec for spec in session.catalog.specs if spec.name == name and spec.kind is not Kind.MAPPING)


def value(session: Session, query: str, *params: Any) -> Any:
    with psycopg.connect(session.url) as conn:
        row = conn.execute(query.encode(), params or None).fetchone()
    return None if row is None else row[0]


def execute(session: Session, *statements: str) -> None:
    with psycopg.connect(session.url, autocommit=True) as conn:
        for statement in statements:
            conn.execute(statement.encode())


def schema_of(session: Session) -> dict[str, Any]:
    """Indexes, constraints and triggers of public with their definitions and whether they are in force."""
    with psycopg.connect(session.url) as conn:
        indexes = conn.execute(
            "select indexrelid::regclass::text, pg_get_indexdef(indexrelid), indisvalid and indisready,"
            " (select inhparent::regclass::text from pg_inherits where inhrelid = indexrelid)"
            " from pg_index join pg_class c on c.oid = indexrelid where c.relnamespace = 'public'::regnamespace"
        ).fetchall()
        constraints = conn.execute(
            "select conrelid::regclass::text, conname, pg_get_constraintdef(oid), convalidated, conparentid = 0"
            " from pg_constraint where connamespace = 'public'::regnamespace and conrelid <> 0 and confrelid = 0"
        ).fetchall()
        # Those that PostgreSQL derives for each referenced partition have names of its own.
        foreign_keys = conn.execute(
            "select conrelid::regclass::text, pg_get_constraintdef(oid), convalidated from pg_constraint"
            " where connamespace = 'public'::regnamespace and contype = 'f'"
        ).fetchall()
    return {"indexes": set(indexes), "constraints": set(constraints), "foreign_keys": sorted(foreign_keys)}


@contextmanager
def in_the_way(session: Session, statement: str) -> Generator[Db]:
    """Somebody's open transaction that holds what its statement locked."""
    with psycopg.connect(session.url) as conn:
        conn.execute(statement.encode())
        yield conn


def changed(session: Session, folder: Path, file: str, old: str, new: str) -> Session:
    """The session with a catalogue in which one file differs."""
    root = folder / "sql"
    shutil.copytree(session.catalog.root, root)
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new))
    return replace(session, catalog=load_catalog(root))


# Online and offline come to the same


@pytest.mark.long
def test_built_in_live_use_the_schema_is_the_same_as_built_offline(loaded: Session, built: Session) -> None:
    for partitions in loaded.catalog.of(Kind.PARTITION):
        apply_partitions(loaded, partitions)
    for index in loaded.catalog.of(Kind.INDEX):
        assert apply_indexes(loaded, index, online=True).online
    for constraint in loaded.catalog.of(Kind.CONSTRAINT):
        apply_constraints(loaded, constraint, online=True)
    apply_view(loaded, spec(loaded, "user_post_stats"))
    assert schema_of(loaded) == schema_of(built)


def test_applied_again_nothing_is_done(built: Session) -> None:
    before = schema_of(built)
    done: list[SchemaChange] = [apply_indexes(built, s, online=True) for s in built.catalog.of(Kind.INDEX)]
    done += [apply_constraints(built, s, online=True) for s in built.catalog.of(Kind.CONSTRAINT)]
    done += [apply_triggers(built, s) for s in built.catalog.of(Kind.TRIGGER)]
    view = apply_view(built, spec(built, "user_post_stats"))
    assert [change.name for change in (*done, view) if change.changed] == []
    assert not view.refreshed
    assert schema_of(built) == before


@pytest.mark.parametrize("online", [True, False])
def test_two_at_once_come_to_what_one_comes_to(loaded: Session, online: bool) -> None:
    start = threading.Barrier(2)

    def work(_: int) -> list[SchemaChange]:
        start.wait(timeout=60)
        return [
            apply_indexes(loaded, spec(loaded, "users_account_indexes"), online=online),
            apply_indexes(loaded, spec(loaded, "user_sessions_lookup_indexes"), online=online),
            apply_constraints(loaded, spec(loaded, "user_sessions_constraints"), online=online),
            apply_triggers(loaded, spec(loaded, "posts_triggers")),
            apply_view(loaded, spec(loaded, "user_post_stats")),
        ]

    with ThreadPoolExecutor(2) as pool:
        one, other = pool.map(work, range(2))
    for first, second in zip(one, other, strict=True):
        assert sorted(first.created + second.created) == sorted(set(first.created) | set(second.created))
        assert set(first.created) | set(second.created) == set(first.created) | set(first.unchanged)
    assert value(loaded, "select count(*) from pg_index where not indisvalid") == 0
    assert value(loaded, "select count(*) from pg_constraint where not convalidated") == 0


# When it is done online


def test_a_small_table_is_indexed_at_once_even_if_others_are_connected(loaded: Session) -> None:
    with in_the_way(loaded, "select 1"):
        assert not apply_indexes(loaded, spec(loaded, "users_account_indexes")).online


def test_a_table_with_rows_of_an_earlier_run_is_indexed_online_and_one_of_this_run_is_not(
    loaded: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "SMALL_BYTES", 0)
    assert not apply_indexes(loaded, spec(loaded, "users_account_indexes")).online
    assert apply_indexes(replace(loaded, run_id="a later run"), spec(loaded, "users_account_indexes")).online
    with in_the_way(loaded, "select 1"):
        assert apply_indexes(loaded, spec(loaded, "users_account_indexes")).online


# Waiting for locks


def test_a_change_waits_its_turn_in_small_portions_and_then_is_made(loaded: Session) -> None:
    with ThreadPoolExecutor(1) as pool:
        with in_the_way(loaded, "update posts set view_count = view_count") as conn:
            waiting = pool.submit(apply_triggers, loaded, spec(loaded, "posts_triggers"))
            # Whoever comes meanwhile gets through between two attempts.
            with psycopg.connect(loaded.url, autocommit=True) as other:
                for _ in range(10):
                    other.execute(
                        "insert into posts (user_id, created_by, title, content, slug)"
                        " select id, id, 'A', 'B', gen_random_uuid() from users limit 1"
                    )
            assert not waiting.done()
            conn.rollback()
        assert len(waiting.result(timeout=120).created) == 7


@pytest.mark.parametrize(
    ("executor", "file", "options"),
    [
        (apply_triggers, "posts_triggers", {}),
        (apply_constraints, "posts_constraints", {"online": True}),
        (apply_indexes, "posts_tags_indexes", {"online": True}),
        (apply_indexes, "posts_tags_indexes", {"online": False}),
    ],
)  # fmt: skip
def test_who_stands_in_the_way_for_good_is_named(
    loaded: Session, monkeypatch: pytest.MonkeyPatch, executor: Any, file: str, options: dict[str, Any]
) -> None:
    monkeypatch.setattr(ddl, "LOCK_ATTEMPTS", 2)
    with (
        in_the_way(loaded, "set application_name = 'payroll'; update posts set view_count = view_count") as conn,
        pytest.raises(DatabaseError, match=f"process {conn.info.backend_pid} .*stood in the way"),
    ):
        executor(loaded, spec(loaded, file), **options)


def test_who_keeps_an_old_transaction_open_is_named_and_the_next_run_finishes(
    loaded: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "CONCURRENT_LOCK_TIMEOUT_MS", 100)
    with (
        in_the_way(loaded, "set application_name = 'report'; update users set active = active"),
        pytest.raises(DatabaseError, match=r"users_account_indexes\.sql:\d+: waited in vain for process .*report"),
    ):
        apply_indexes(loaded, spec(loaded, "users_account_indexes"), online=True)
    monkeypatch.undo()
    assert apply_indexes(loaded, spec(loaded, "users_account_indexes"), online=True).repaired == (
        "idx_users_created_at",
    )
    assert value(loaded, "select count(*) from pg_index where not indisvalid") == 0


# Repair


@pytest.mark.long
@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize("index", ["idx_users_role", "idx_posts_tags_gin", "child", "children"])
def test_an_invalid_index_is_found_and_rebuilt(built: Session, index: str, online: bool) -> None:
    file = "users_account_indexes" if index == "idx_users_role" else "posts_tags_indexes"
    named = {
        "child": "(select min(inhrelid::regclass::text)::regclass from pg_inherits where inhparent = 'idx_posts_tags_gin'::regclass)",
        "children": "any (select inhrelid from pg_inherits where inhparent = 'idx_posts_tags_gin'::regclass)",
    }.get(index, f"'{index}'::regclass")
    execute(built, f"update pg_index set indisvalid = false where indexrelid = {named}")
    done = apply_indexes(built, spec(built, file), online=online)
    assert done.repaired == (("idx_users_role",) if index == "idx_users_role" else ("idx_posts_tags_gin",))
    assert value(built, "select count(*) from pg_index where not indisvalid") == 0
    assert apply_indexes(built, spec(built, file), online=online).changed is False


def test_what_an_interrupted_rebuild_left_is_cleared_away(built: Session) -> None:
    # As REINDEX CONCURRENTLY leaves it: the index is in order, and a half-made copy stands beside it.
    execute(
        built,
        "create index idx_users_role_ccnew on users (role) where active = true",
        "update pg_index set indisvalid = false where indexrelid = 'idx_users_role_ccnew'::regclass",
    )
    assert apply_indexes(built, spec(built, "users_account_indexes"), online=True).repaired != ()
    assert value(built, "select to_regclass('idx_users_role_ccnew')") is None
    assert not apply_indexes(built, spec(built, "users_account_indexes"), online=True).changed


def test_applying_the_table_again_keeps_no_writer_waiting(built: Session) -> None:
    with in_the_way(built, "update posts set view_count = view_count + 1"):
        apply(replace(built, lock_timeout_ms=1), spec(built, "posts"))


def test_a_session_of_another_role_makes_a_table_count_as_in_use_though_it_is_hidden(
    built: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "SMALL_BYTES", 0)
    app, owner = (f"{name}_{os.urandom(4).hex()}" for name in ("app", "owner"))
    execute(built, f"create role {app} login", f"create role {owner}")
    for schema in ("public", "migration"):
        execute(
            built,
            f"grant usage on schema {schema} to {owner}",
            f"grant select on all tables in schema {schema} to {owner}",
        )
    try:
        with psycopg.connect(built.url, autocommit=True, application_name="b44 test") as conn:
            conn.execute(f"set role {owner}".encode())
            assert not ddl.is_live(built, conn, "posts")
            with psycopg.connect(built.url, user=app):
                assert ddl.is_live(built, conn, "posts")
    finally:
        execute(built, f"drop owned by {owner}", f"drop role {owner}", f"drop role {app}")


def test_what_a_pooler_keeps_and_nobody_has_is_no_use_of_a_table(
    built: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ddl, "SMALL_BYTES", 0)
    with (
        psycopg.connect(built.url, autocommit=True, application_name="b44 test") as conn,
        psycopg.connect(built.url, autocommit=True) as other,
    ):

        def after(statement: str) -> bool:
            other.execute(statement.encode())
            return ddl.is_live(built, conn, "posts")

        assert not ddl.is_live(built, conn, "posts")
        assert after("select")
        assert not after("discard all".upper())
        assert after("begin")
        assert after("rollback")
        assert not after("DISCARD ALL")
        assert after("set application_name = 'shop'")
        other.execute("reset application_name")
        assert ddl.is_live(built, conn, "posts")


def test_an_interrupted_build_goes_on_with_the_parts_that_are_there(loaded: Session) -> None:
    partition = value(
        loaded, "select min(inhrelid::regclass::text) from pg_inherits where inhparent = 'posts'::regclass"
    )
    execute(
        loaded,
        "create index idx_posts_tags_gin on only posts using gin (tags)",
        f"create index on {partition} using gin (tags)",
        f"create index idx_cut_off on posts_default using gin (tags)",  # noqa: F541
        "update pg_index set indisvalid = false where indexrelid = 'idx_cut_off'::regclass",
    )
    kept = value(
        loaded,
        "select indexrelid from pg_index where indrelid = %s::regclass and indisvalid and not indisprimary",
        partition,
    )
    done = apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=True)
    assert done.repaired == ("idx_posts_tags_gin",)
    assert (
        value(loaded, "select inhparent::regclass::text from pg_inherits where inhrelid = %s", kept)
        == "idx_posts_tags_gin"
    )
    assert value(loaded, "select count(*) from pg_index where not indisvalid") == 0
    assert value(loaded, "select to_regclass('idx_cut_off')") is None


def test_a_large_table_and_each_of_its_partitions_get_statistics(
    loaded: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(index_maintenance, "SHARED_BYTES", 0)
    execute(loaded, "delete from pg_statistic where starelid in (select relid from pg_partition_tree('posts'))")
    with loaded.keeping() as session:
        index_maintenance.analyze(session, "posts")
    assert value(loaded, "select count(*) > 0 from pg_stats where tablename = 'posts' and inherited")
    filled = "select count(*) from (select distinct tableoid from posts)"
    assert value(loaded, "select count(distinct tablename) from pg_stats where tablename like 'posts\\_20%%'") == value(
        loaded, f"{filled} f where tableoid <> 'posts_default'::regclass"
    )


@pytest.fixture
def shared(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets two connections share the partitions of any table, the second of which builds the first index."""
    begun, build_on = threading.Event(), indexes.run

    def run(*args: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            assert begun.wait(30)
        try:
            build_on(*args)
        finally:
            begun.set()

    monkeypatch.setattr(indexes, "SHARED_BYTES", 0)
    monkeypatch.setattr(indexes, "run", run)


PARTS = """
    select count(*) = count(distinct indrelid), bool_and(indisvalid and c.relispartition),
           count(*) = (select count(*) from pg_partition_tree('posts') where isleaf)
      from pg_index i join pg_class c on c.oid = i.indexrelid
     where i.indrelid in (select relid from pg_partition_tree('posts') where isleaf)
       and pg_get_indexdef(i.indexrelid) like '%gin (tags)'
"""


@pytest.mark.usefixtures("shared")
def test_what_two_connections_have_built_on_partitions_becomes_one_index(loaded: Session) -> None:
    done = apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=False)
    assert done.created == ("idx_posts_tags_gin",)
    with psycopg.connect(loaded.url) as conn:
        assert conn.execute(PARTS.encode()).fetchone() == (True, True, True)
    assert not apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=False).changed


@pytest.mark.usefixtures("shared")
@pytest.mark.parametrize("online", [True, False], ids=["online", "offline"])
def test_parts_that_an_interruption_has_left_are_taken_into_the_index(loaded: Session, online: bool) -> None:
    def interrupt(name: str, _: object) -> None:
        if name == "schema: before commit":
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt), armed(interrupt):
        apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=False)
    assert value(loaded, "select count(*) > 0 from pg_indexes where indexdef like '%%gin (tags)'")
    apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=online)
    with psycopg.connect(loaded.url) as conn:
        assert conn.execute(PARTS.encode()).fetchone() == (True, True, True)


@pytest.mark.usefixtures("shared")
def test_where_one_connection_fails_what_the_other_has_built_goes_too(
    loaded: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, built, failed = indexes.run, threading.Event(), threading.Event()

    def failing(*args: Any) -> None:
        if threading.current_thread() is threading.main_thread():
            assert built.wait(PATIENCE)
            failed.set()
            raise DatabaseError("made to fail")
        run(*args)
        built.set()
        # Else it might build all parts, and there would be nothing left to fail at.
        assert failed.wait(PATIENCE)

    monkeypatch.setattr(indexes, "run", failing)
    before = schema_of(loaded)
    with pytest.raises(DatabaseError, match="made to fail"):
        apply_indexes(loaded, spec(loaded, "posts_tags_indexes"), online=False)
    assert schema_of(loaded) == before


@pytest.mark.usefixtures("shared")
def test_parts_of_an_index_that_rows_make_impossible_go_with_it(loaded: Session, tmp_path: Path) -> None:
    execute(loaded, "update posts set like_count = -1 where id = (select id from posts order by created_at limit 1)")
    before = schema_of(loaded)
    broken = changed(loaded, tmp_path, "indexes/posts_tags_indexes.sql", "using gin (tags)", "(sqrt(like_count))")
    done = apply_indexes(broken, spec(broken, "posts_tags_indexes"), online=False)
    assert list(done.failed) == ["idx_posts_tags_gin"]
    assert schema_of(loaded) == before


def test_a_constraint_that_was_never_validated_is_validated(loaded: Session) -> None:
    execute(loaded, "alter table users add constraint chk_users_email_lower check (email = lower(email)) not valid")
    done = apply_constraints(loaded, spec(loaded, "users_constraints"))
    assert "chk_users_email_lower" in done.repaired
    assert value(loaded, "select count(*) from pg_constraint where not convalidated") == 0


def test_a_disabled_trigger_is_enabled(built: Session) -> None:
    execute(built, "alter table posts disable trigger trg_validate_post_update")
    assert apply_triggers(built, spec(built, "posts_triggers")).repaired == ("trg_validate_post_update",)
    assert value(built, "select count(*) from pg_trigger where tgenabled <> 'O'") == 0


def test_partitions_that_came_later_get_their_statistics_target(built: Session) -> None:
    execute(built, "select create_monthly_partition('2199-07-01')")
    done = apply_indexes(built, spec(built, "posts_search_indexes"))
    assert set(done.repaired + done.unchanged) == {"idx_posts_title_search", "idx_posts_content_search"}
    assert (
        value(
            built,
            "select count(*) from pg_attribute a join pg_index i on i.indexrelid = a.attrelid"
            " where pg_get_indexdef(i.indexrelid) like '%base44_search%' and coalesce(a.attstattarget, -1) <> 0",
        )
        == 0
    )


# What cannot be done is said


def test_rows_that_break_a_constraint_are_reported_and_new_ones_are_refused(loaded: Session) -> None:
    execute(loaded, "update categories set color = 'red'")
    done = apply_constraints(loaded, spec(loaded, "categories_constraints"), online=True)
    assert done.failed.keys() == {"chk_categories_color"}
    with pytest.raises(errors.CheckViolation):
        execute(loaded, "update categories set color = 'green'")


def test_a_unique_index_that_rows_break_leaves_nothing_behind(loaded: Session, tmp_path: Path) -> None:
    broken = changed(
        loaded, tmp_path, "indexes/users_account_indexes.sql", "create index if not exists idx_users_role on users (role)",
        "create unique index if not exists idx_users_role on users (role)",
    )  # fmt: skip
    done = apply_indexes(broken, spec(broken, "users_account_indexes"), online=True)
    assert done.failed.keys() == {"idx_users_role"}
    assert value(loaded, "select to_regclass('idx_users_role')") is None


def test_an_index_name_that_another_table_has_is_not_taken_over(loaded: Session) -> None:
    execute(loaded, "create index idx_users_role on events (title)")
    with pytest.raises(DatabaseError, match="idx_users_role is an index of another table"):
        apply_indexes(loaded, spec(loaded, "users_account_indexes"))


# A changed definition


class Violator(threading.Thread):
    """Tries again and again to write what a protection forbids; remembers whether it ever got through.

    As the guard of a session it tries anew between any two steps of a change, however quick they are.
    """

    def __init__(self, url: str, statement: str) -> None:
        super().__init__(daemon=True)
        self._url, self._statement, self._stop_now = url, statement, threading.Event()
        self._tried = threading.Condition()
        self.tries, self.successes = 0, 0

    def run(self) -> None:
        with psycopg.connect(self._url, autocommit=True) as conn:
            while not self._stop_now.is_set():
                try:
                    with conn.transaction(force_rollback=True):
                        conn.execute(self._statement.encode())
                        self.successes += 1
                except errors.IntegrityError:
                    pass
                with self._tried:
                    self.tries += 1
                    self._tried.notify_all()
                # Lets the change have its turn however slow the machine is.
                self._stop_now.wait(0.05)

    def another_try(self) -> None:
        """Waits until a try that began after this call has ended."""
        with self._tried:
            wanted = self.tries + 2
            assert self._tried.wait_for(lambda: self.tries >= wanted, timeout=60)

    def __enter__(self) -> Violator:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop_now.set()
        self.join()


@pytest.mark.parametrize(
    ("file", "old", "new", "violation", "shows"),
    [
        ("constraints/users_constraints.sql", "'user', 'guest'))", "'user', 'guest', 'bot'))",
         "update users set role = 'root'", "bot"),
        ("constraints/posts_constraints.sql", "<= 255);", "<= 300);", "update posts set title = repeat('x', 301)", "300"),
        ("constraints/posts_constraints.sql", "references categories (id) on delete set null",
         "references categories (id) on delete restrict", "update posts set category_id = gen_random_uuid()", "RESTRICT"),
        ("constraints/events_constraints.sql", "where (cancelled = false)", "where (cancelled is false)",
         "insert into events (user_id, event_date, created_by) select user_id, event_date, created_by from events"
         " where not cancelled", "IS FALSE"),
    ],
)  # fmt: skip
def test_a_changed_constraint_takes_over_without_a_moment_of_neither(
    built: Session, tmp_path: Path, file: str, old: str, new: str, violation: str, shows: str
) -> None:
    other = replace(changed(built, tmp_path, file, old, new), lock_timeout_ms=5_000)
    name = Path(file).stem
    with Violator(built.url, violation) as violator:
        other = replace(other, guard=violator.another_try)
        done = apply_constraints(other, spec(other, name), online=True)
        again = apply_constraints(other, spec(other, name), online=True)
        violator.another_try()
    assert len(done.replaced) == 1
    assert not again.changed
    assert violator.tries > 0
    assert violator.successes == 0
    rows = value(
        built,
        "select array_agg(distinct pg_get_constraintdef(oid)) from pg_constraint where conname = %s",
        done.replaced[0],
    )
    assert len(rows) == 1
    assert shows in rows[0]
    assert value(built, r"select count(*) from pg_constraint where conname like '%\_new%'") == 0


@pytest.mark.parametrize("online", [True, False])
@pytest.mark.parametrize(
    ("name", "old", "new"),
    [
        ("users_account_indexes", "on users (role) where active = true", "on users (role, email)"),
        ("posts_month_indexes", "at time zone 'UTC')\n);", "at time zone 'UTC'), published\n);"),
    ],
)
def test_a_changed_index_takes_the_old_one_s_name(
    built: Session, tmp_path: Path, name: str, old: str, new: str, online: bool
) -> None:
    other = changed(built, tmp_path, f"indexes/{name}.sql", old, new)
    before = value(built, "select count(*) from pg_class where relkind in ('i', 'I')")
    done = apply_indexes(other, spec(other, name), online=online)
    assert len(done.replaced) == 1
    assert not apply_indexes(other, spec(other, name), online=online).changed
    assert value(built, "select count(*) from pg_class where relkind in ('i', 'I')") == before
    assert value(built, r"select count(*) from pg_class where relname like '%\_new'") == 0


def test_a_unique_index_changes_without_a_moment_of_neither(built: Session, tmp_path: Path) -> None:
    statement = "create index if not exists idx_users_role on users (role) where active = true;"
    one = changed(built, tmp_path / "1", "indexes/users_account_indexes.sql", statement,
                  "create unique index if not exists idx_users_role on users (display_name, email);")  # fmt: skip
    apply_indexes(one, spec(one, "users_account_indexes"))
    two = changed(built, tmp_path / "2", "indexes/users_account_indexes.sql", statement,
                  "create unique index if not exists idx_users_role on users (email, display_name);")  # fmt: skip
    execute(built, "alter table users drop constraint users_email_key, drop constraint users_username_key")
    violation = (
        "insert into users (email, display_name) select email, display_name from users where display_name is not null"
    )
    with Violator(built.url, violation) as violator:
        two = replace(two, guard=violator.another_try)
        assert apply_indexes(two, spec(two, "users_account_indexes"), online=True).replaced == ("idx_users_role",)
        violator.another_try()
    assert violator.tries > 0
    assert violator.successes == 0


def test_an_interrupted_change_of_definition_is_brought_to_its_end(built: Session, tmp_path: Path) -> None:
    other = changed(
        built, tmp_path, "constraints/users_constraints.sql", "'user', 'guest'))", "'user', 'guest', 'bot'))"
    )
    execute(
        built,
        "alter table users add constraint chk_users_role_valid_new"
        " check (role in ('admin', 'moderator', 'user', 'guest', 'bot')) not valid",
    )
    assert apply_constraints(other, spec(other, "users_constraints")).replaced == ("chk_users_role_valid",)
    assert value(built, r"select count(*) from pg_constraint where conname like '%\_new' or not convalidated") == 0


def test_a_changed_trigger_replaces_the_old_one_on_every_partition(built: Session, tmp_path: Path) -> None:
    other = changed(
        built, tmp_path, "triggers/posts_triggers.sql", "before update of published, user_id on", "before update on"
    )
    assert apply_triggers(other, spec(other, "posts_triggers")).replaced == ("trg_posts_republish_permissions",)
    assert (
        value(
            built,
            "select count(*) from pg_trigger where tgname = 'trg_posts_republish_permissions' and tgattr <> ''",
        )
        == 0
    )
    assert not apply_triggers(other, spec(other, "posts_triggers")).changed


# Views


def test_a_view_is_filled_anew_only_where_it_differs_from_its_query(built: Session) -> None:
    execute(built, "delete from posts where id = (select id from posts limit 1)")
    assert apply_view(built, spec(built, "user_post_stats")).refreshed
    assert not apply_view(built, spec(built, "user_post_stats")).refreshed


def test_a_changed_view_takes_the_old_one_s_place_with_its_indexes(built: Session, tmp_path: Path) -> None:
    other = changed(built, tmp_path, "views/user_post_stats.sql", "max(p.created_at)", "max(p.updated_at)")
    assert "user_post_stats" in apply_view(other, spec(other, "user_post_stats")).replaced
    assert not apply_view(other, spec(other, "user_post_stats")).changed
    execute(built, "select refresh_user_stats()")
    assert value(built, "select obj_description('user_post_stats'::regclass)").startswith(
        "Posts of each user in numbers"
    )


def test_readers_see_the_view_while_it_is_refreshed(built: Session) -> None:
    with in_the_way(built, "select * from user_post_stats"):
        refresh(built, spec(built, "user_post_stats"))


@pytest.fixture(autouse=True)
def _no_leftover_scratch_schema(request: pytest.FixtureRequest) -> Generator[None]:  # pyright: ignore[reportUnusedFunction]
    sessions = [request.getfixturevalue(n) for n in ("loaded", "built") if n in request.fixturenames]
    yield
    for session in sessions:
        assert value(session, "select count(*) from pg_namespace where nspname like 'b44_scratch%'") == 0


def test_what_a_new_index_or_constraint_is_to_be_is_not_asked_for(
    loaded: Session, monkeypatch: pytest.MonkeyPatch
) -> None:
    def never(*_: object) -> None:
        raise AssertionError("nothing is there that it could be compared with")

    monkeypatch.setattr("b44_assets.schema.indexes.in_scratch_schema", never)
    monkeypatch.setattr("b44_assets.schema.constraints.in_scratch_schema", never)
    assert apply_indexes(loaded, spec(loaded, "users_account_indexes"), online=False).created
    assert apply_constraints(loaded, spec(loaded, "user_sessions_constraints"), online=False).created
    with pytest.raises(AssertionError):
        apply_indexes(loaded, spec(loaded, "users_account_indexes"), online=False)
