"""Whatever a role, a database or a session sets: a migration comes to the same, and so does what the application calls."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest
from psycopg import sql

from b44_assets.catalog import Catalog, Kind, load_catalog
from b44_assets.config.quantities import Pace
from b44_assets.errors import DatabaseError
from b44_assets.maintenance.query_plans import query_plans
from b44_assets.migration.content_parity import content_parity
from b44_assets.migration.pipeline import load_table, stage_export
from b44_assets.migration.verification import row_parity
from b44_assets.postgres.connect import connect
from b44_assets.schema.build import build
from b44_assets.schema.drift import schema_drift
from b44_assets.schema.health import constraints_valid, foreign_keys_hold, indexes_valid
from b44_assets.schema.row_checks import violations
from b44_assets.session import Session
from tests.helpers.paths import SQL_DIR
from tests.helpers.scenario import FIRST, State, differences, state, write_exports
from tests.helpers.target import new_database

# Of a setting whose values are none of an enumeration: what somebody may have set it to.
_TEXTS = {
    "DateStyle": ("German, DMY", "SQL, MDY", "Postgres, DMY"),
    "TimeZone": ("Asia/Kathmandu", "America/St_Johns", "Pacific/Apia"),
    "createrole_self_grant": ("set, inherit", "set"),
    "default_table_access_method": ("columnar",),
    "default_tablespace": ("pg_default",),
    "default_text_search_config": ("pg_catalog.german", "pg_catalog.simple"),
    "restrict_nonsystem_relation_kind": ("view, foreign-table",),
    "search_path": ("elsewhere, pg_catalog", "", "nowhere"),
    "temp_tablespaces": ("pg_default",),
}
# Clocks that let a session begin on a busy machine, too.
_CLOCKS = ("3s", "4s", "5s")
_OUT_OF_REASON = {
    # What cannot be set for a role, or is another role.
    "application_name",
    "client_encoding",
    "is_superuser",
    "role",
    "seed",
    "session_authorization",
    "transaction_deferrable",
    "transaction_isolation",
    "transaction_read_only",
    # Libraries, log lines, traces and simulated load.
    "backtrace_functions",
    "local_preload_libraries",
    "plpgsql.extra_errors",
    "plpgsql.extra_warnings",
    "vacuum_cost_delay",
    "vacuum_cost_limit",
}
# Trees of each statement, and hundreds of megabytes of them, in the server's log: in the last of the runs only.
_VERBOSE = {"debug_print_parse", "debug_print_plan", "debug_print_rewritten"}
RUNS = 3

# As somebody might who wants to be asked instead of PostgreSQL.
_ELSEWHERE = """
create schema elsewhere;
create function elsewhere.set_config(text, text, boolean) returns text language sql as $$ select 'hijacked' $$;
create function elsewhere.current_setting(text, boolean) returns text language sql as $$ select 'hijacked' $$;
create function elsewhere.lower(text) returns text language sql as $$ select 'hijacked' $$;
create function elsewhere.now() returns timestamptz language sql as $$ select timestamptz '1999-01-01' $$;
"""


def hostile(conn: psycopg.Connection[Any], run: int) -> dict[str, str]:
    """A value for every setting that a role may make, but for those out of reason; other values in each run."""
    chosen: dict[str, str] = {}
    for name, kind, unit, boot, least, most, values in conn.execute(
        "select name, vartype, unit, boot_val, min_val, max_val, enumvals from pg_settings"
        " where (context = 'user' or name = 'session_replication_role') and name <> all (%s) order by name",
        (sorted(_OUT_OF_REASON),),
    ).fetchall():
        if name in _TEXTS:
            chosen[name] = _TEXTS[name][run % len(_TEXTS[name])]
        elif name in _VERBOSE and run != RUNS - 1:
            continue
        elif kind == "bool":
            chosen[name] = "off" if boot == "on" else "on"
        elif kind == "enum":
            others = [value for value in values if value != boot] or [boot]
            chosen[name] = others[run % len(others)]
        elif unit == "ms" and name.endswith("timeout"):
            chosen[name] = _CLOCKS[run]
        elif kind in ("integer", "real") and run < 2:
            # The least, and much more than usual: what the machine has bears no more. Costs of nothing are no costs.
            small = float(boot) / 16 if name.endswith("_cost") else float(least)
            number = small if run == 0 else min(float(most), max(float(boot), 1) * 16)
            chosen[name] = str(int(number) if kind == "integer" else number)
    return chosen


@contextmanager
def database_with(server_url: str, settings: dict[str, str]) -> Generator[str]:
    """A database whose every session has these settings."""
    with new_database(server_url) as url:
        with psycopg.connect(url, autocommit=True) as conn:
            conn.execute(_ELSEWHERE.encode())
            for name, value in settings.items():
                conn.execute(
                    sql.SQL("alter database {} set {} = {}").format(
                        sql.Identifier(conn.info.dbname), sql.Identifier(*name.split(".")), listed(name, value)
                    )
                )
        yield url


def listed(name: str, value: str) -> sql.Composable:
    """A search path is a list of names, all else one value."""
    if name != "search_path":
        return sql.Literal(value)
    return sql.SQL(", ").join(sql.Literal(part.strip()) for part in value.split(","))


def migrate(url: str, catalog: Catalog, export: Path) -> list[str]:
    """Brings all of `sql/` and the records of an export into a database. Returns what the checks have against it."""
    session = Session(url=url, catalog=catalog, pace=Pace(streams=1), sleep=lambda seconds: None, attempts=2)
    with session.keeping() as run:
        for spec in catalog.of(Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE):
            build(run, spec)
        for mapping in catalog.mappings.values():
            stage_export(run, mapping, export)
            load_table(run, mapping)
        for spec in catalog.of(Kind.PARTITION, Kind.INDEX, Kind.CONSTRAINT, Kind.TRIGGER, Kind.POLICY, Kind.VIEW):
            build(run, spec)
        verdicts: list[Any] = [schema_drift(run), violations(run, catalog.checks["slugs_registered"])]
        for table, mapping in catalog.mappings.items():
            verdicts += [row_parity(run, mapping), content_parity(run, mapping)]
            checks: tuple[Callable[[Session, str], Any], ...] = (
                constraints_valid,
                indexes_valid,
                foreign_keys_hold,
                query_plans,
            )
            verdicts += [check(run, table) for check in checks]
        assert None not in verdicts
        return [verdict.message() for verdict in verdicts if not verdict.passed]


def state_of(url: str) -> State:
    """All that is in a database, as one of our own sessions sees it."""
    with connect(url, autocommit=True) as conn:
        conn.execute("set search_path = public")
        return state(conn)


@pytest.fixture(scope="module")
def catalog(tmp_path_factory: pytest.TempPathFactory) -> Catalog:
    """The project's own `sql/` with half of the months, which are as many times the same, and take their time."""
    folder = Path(shutil.copytree(SQL_DIR, tmp_path_factory.mktemp("few") / "sql"))
    months = folder / "partitions" / "posts_partitions.sql"
    text = months.read_text(encoding="utf-8")
    assert "-- ahead: 12\n" in text
    months.write_text(text.replace("-- ahead: 12\n", "-- ahead: 1\n"), encoding="utf-8")
    return load_catalog(folder)


@pytest.fixture(scope="module")
def export(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("exports")
    write_exports(folder)
    return folder / FIRST


@pytest.fixture(scope="module")
def calm(server_url: str, catalog: Catalog, export: Path) -> Generator[str]:
    """URL of a database with the whole of a migration, made where nothing is set."""
    with database_with(server_url, {}) as url:
        assert migrate(url, catalog, export) == []
        yield url


@pytest.mark.parametrize("run", range(RUNS))
def test_what_a_role_or_a_database_sets_does_not_change_a_migration(
    run: int, server_url: str, calm: str, catalog: Catalog, export: Path
) -> None:
    with psycopg.connect(server_url) as conn:
        settings = hostile(conn, run)
    assert len(settings) > 50
    with database_with(server_url, settings) as url:
        assert migrate(url, catalog, export) == []
        assert differences(state_of(url), state_of(calm)) == {}


# What a role or a database may choose, since no SQL means anything else by it: resources, costs, durability, and the
# server's own work and messages. And what is planned where it is used.
_STAYS = frozenset(
    [
        "backend_flush_after",
        "commit_siblings",
        "cpu_index_tuple_cost",
        "cpu_operator_cost",
        "cpu_tuple_cost",
        "debug_logical_replication_streaming",
        "debug_pretty_print",
        "debug_print_parse",
        "debug_print_plan",
        "debug_print_rewritten",
        "default_statistics_target",
        "default_toast_compression",
        "effective_cache_size",
        "effective_io_concurrency",
        "file_copy_method",
        "geqo_effort",
        "geqo_generations",
        "geqo_pool_size",
        "geqo_seed",
        "geqo_selection_bias",
        "gin_pending_list_limit",
        "hash_mem_multiplier",
        "icu_validation_level",
        "io_combine_limit",
        "jit_above_cost",
        "jit_expressions",
        "jit_inline_above_cost",
        "jit_optimize_above_cost",
        "jit_tuple_deforming",
        "log_parameter_max_length_on_error",
        "logical_decoding_work_mem",
        "maintenance_io_concurrency",
        "maintenance_work_mem",
        "max_parallel_maintenance_workers",
        "max_parallel_workers",
        "max_parallel_workers_per_gather",
        "md5_password_warnings",
        "parallel_leader_participation",
        "password_encryption",
        "random_page_cost",
        "recursive_worktable_factor",
        "scram_iterations",
        "search_path",
        "seq_page_cost",
        "synchronize_seqscans",
        "synchronous_commit",
        "temp_buffers",
        "temp_tablespaces",
        "trace_notify",
        "trace_sort",
        "vacuum_buffer_usage_limit",
        "vacuum_cost_page_dirty",
        "vacuum_cost_page_hit",
        "vacuum_cost_page_miss",
        "vacuum_failsafe_age",
        "vacuum_freeze_min_age",
        "vacuum_freeze_table_age",
        "vacuum_max_eager_freeze_failure_rate",
        "vacuum_multixact_failsafe_age",
        "vacuum_multixact_freeze_min_age",
        "vacuum_multixact_freeze_table_age",
        "vacuum_truncate",
        "wal_sender_timeout",
        "wal_skip_threshold",
        "work_mem",
    ]
)


@pytest.mark.parametrize("run", range(RUNS))
def test_whatever_sql_could_mean_otherwise_is_as_it_is_where_nothing_is_set(run: int, server_url: str) -> None:
    asked = "select name, setting from pg_settings where context = 'user' or name = 'session_replication_role'"
    with psycopg.connect(server_url) as conn:
        settings = hostile(conn, run)
    with database_with(server_url, settings) as url, connect(url) as conn, new_database(server_url) as quiet:
        found = dict(conn.execute(asked).fetchall())
        with connect(quiet) as calm:
            expected = dict(calm.execute(asked).fetchall())
    # A name may be shown in quotes.
    others = {
        name: (found[name], value)
        for name, value in expected.items()
        if name not in _STAYS and found[name].replace('"', "") != value
    }
    assert others == {}


def test_every_setting_that_could_matter_has_been_looked_at(server_url: str) -> None:
    with psycopg.connect(server_url) as conn:
        tried = set[str]().union(*(hostile(conn, run) for run in range(RUNS)))
        known = {name for (name,) in conn.execute("select name from pg_settings where context = 'user'").fetchall()}
    # Of those left over, each is a text that stands for nothing which SQL could mean otherwise.
    left = {name for name in known - tried - _OUT_OF_REASON if not name.startswith(("lc_", "log_", "debug_"))}
    assert left <= {"timezone_abbreviations", "wal_consistency_checking"}


def test_a_role_whose_triggers_do_not_run_and_who_cannot_change_it_is_refused(server_url: str) -> None:
    with new_database(server_url) as url, psycopg.connect(url, autocommit=True) as conn:
        conn.execute("create role without_triggers login")
        try:
            conn.execute("alter role without_triggers set session_replication_role = replica")
            with pytest.raises(DatabaseError) as caught:
                connect(url.replace("postgres@", "without_triggers@"))
        finally:
            conn.execute("drop role without_triggers")
    said = str(caught.value)
    assert "ALTER ROLE without_triggers RESET session_replication_role" in said
    assert "\n" not in said


# -- what other sessions call ------------------------------------------------------------------------------------------

_SESSIONS: dict[str, dict[str, str]] = {
    "strings as of old": {
        "standard_conforming_strings": "off",
        "escape_string_warning": "off",
        "backslash_quote": "off",
    },
    "German dates": {"DateStyle": "German, DMY", "IntervalStyle": "sql_standard", "TimeZone": "Asia/Kathmandu"},
    "American dates": {"DateStyle": "SQL, MDY", "IntervalStyle": "iso_8601", "TimeZone": "Pacific/Apia"},
    "old forms": {"bytea_output": "escape", "extra_float_digits": "-15", "array_nulls": "off", "xmloption": "document"},
    "names": {"quote_all_identifiers": "on", "transform_null_equals": "on", "check_function_bodies": "off"},
    "serializable": {"default_transaction_isolation": "serializable", "default_transaction_deferrable": "on"},
    "row security": {"row_security": "off", "client_min_messages": "error", "plan_cache_mode": "force_generic_plan"},
    # Compiled, but not made fast: that takes ten times as long as all the calls.
    "no plans": {
        "enable_seqscan": "off",
        "enable_nestloop": "off",
        "enable_hashjoin": "off",
        "jit": "on",
        "jit_above_cost": "0",
        "jit_inline_above_cost": "-1",
        "jit_optimize_above_cost": "-1",
    },
    "full-text": {"default_text_search_config": "pg_catalog.german", "gin_fuzzy_search_limit": "1"},
}

# Each returns one text that is the same whatever the session's forms of writing.
_CALLS = (
    "update public.users set role = 'admin', email_verified = true where username = 'user1' returning role",
    *(
        "insert into public.posts (title, content, user_id, created_by, created_at, published, published_at)"
        f" select 'Title 1', 'Long enough.', id, id, to_timestamp({moment}), true, to_timestamp({moment})"
        " from public.users where username = 'user1' returning slug"
        for moment in (1700000000, 1900000000, 1900000000.000001)
    ),
    "select public.base44_uuid('507f1f77bcf86cd799439011')::text",
    "select public.base44_uuid('legacy-7')::text",
    "select public.base44_object_id(public.base44_uuid('507f1f77bcf86cd799439011'))",
    'select array_to_string(public.transform_tags(chr(9) || \'["a\\b", "machine learning", ""]\'), \'|\')',
    "select array_to_string(public.transform_tags(chr(92) || 'a, ' || chr(160) || ' b c,,'), '|')",
    "select public.transform_user_role(chr(8195) || 'Editor' || chr(10))",
    "select b44.trim(chr(65279) || chr(9) || 'x y' || chr(8233))",
    "select public.generate_post_slug('Title 1')",
    "select public.generate_post_slug(chr(220) || 'ber' || chr(92) || 'all')",
    "select string_agg(title, ',') from public.get_posts_paginated(3, null)",
    "select string_agg(extract(epoch from created_at)::text, ',') from public.get_posts_paginated(2, (select max(next_cursor)"
    " from public.get_posts_paginated(1, null)))",
    "select extract(epoch from migration.as_timestamp('2026-01-05T06:07:08.5+02:00'))::text",
    "select extract(epoch from migration.as_timestamp(' 2026-02-03 04:05 '))::text",
    "select migration.as_integer(' 12.00 ')::text",
    "select migration.as_boolean(chr(9) || 'YES')::text",
    "select migration.as_jsonb('{\"a\": \"]]]' || chr(92) || '\"[\"}') ->> 'a'",
    "select public.create_monthly_partition('2031-05-01')::text",
    "select public.manage_partitions()::text",
    "select public.refresh_user_stats()::text",
    "select count(*)::text from b44.partition_bounds('public.posts')",
    "select string_agg(extract(epoch from first_moment)::text, ',' order by first_moment)"
    " from b44.partition_bounds('public.posts')",
    "select public.migrate_posts_batch(10)::text",
    "select public.migrate_users_batch(10)::text",
)


def answers(url: str, settings: dict[str, str]) -> list[Any]:
    """What a session with these settings is answered; nothing of it stays."""
    found: list[Any] = []
    with psycopg.connect(url, autocommit=True) as conn:
        for name, value in settings.items():
            conn.execute("select pg_catalog.set_config(%s, %s, false)", (name, value))
        with conn.transaction(force_rollback=True):
            for call in _CALLS:
                # As the session itself would have to write it.
                text = call.replace("\\", "\\\\") if settings.get("standard_conforming_strings") == "off" else call
                try:
                    with conn.transaction():
                        row = conn.execute(text.encode()).fetchone()
                        found.append((call, None if row is None else row[0]))
                except psycopg.Error as error:
                    found.append((call, str(error)))
    return found


@pytest.fixture(scope="module")
def calm_answers(calm: str) -> list[Any]:
    return answers(calm, {})


@pytest.mark.parametrize("settings", _SESSIONS.values(), ids=_SESSIONS.keys())
def test_functions_answer_the_same_whatever_the_session_has_set(
    settings: dict[str, str], calm: str, calm_answers: list[Any]
) -> None:
    assert answers(calm, settings) == calm_answers
    assert [call for call, answer in calm_answers if answer is None or "\n" in str(answer)] == []
