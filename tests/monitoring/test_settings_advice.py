"""What is advised of a server's settings: by their values, and by what the database and the machine are like."""

from __future__ import annotations

from dataclasses import replace

import psycopg
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b44_assets.maintenance.monitoring.measurements.settings_advice import (
    Shape,
    advise,
    in_base_units,
    table_statements,
)
from tests.helpers.watched import Watched, settings_with

GB, MB = 1024**3, 1024**2
FITTING = {
    "shared_buffers": str(2 * GB),
    "effective_cache_size": str(4 * GB),
    "work_mem": str(16 * MB),
    "maintenance_work_mem": str(400 * MB),
    "max_wal_size": str(4 * GB),
    "checkpoint_timeout": "900",
    "autovacuum": "on",
    "track_counts": "on",
    "autovacuum_max_workers": "3",
    "random_page_cost": "1.1",
    "max_files_per_process": "8192",
    "max_connections": "100",
    "max_prepared_transactions": "0",
    "max_locks_per_transaction": "1024",
    "track_io_timing": "on",
    "log_lock_waits": "on",
    "log_min_duration_statement": "1",
    "idle_in_transaction_session_timeout": "600",
    "ssl": "on",
    "listen_addresses": "*",
    "password_encryption": "scram-sha-256",
    "fsync": "on",
    "full_page_writes": "on",
    "shared_preload_libraries": "pg_stat_statements",
}
SHAPE = Shape(FITTING, 10 * GB, 500, 2000, 8 * GB, 4)


def with_value(name: str, value: str) -> Shape:
    return replace(SHAPE, values={**FITTING, name: value})


def test_nothing_is_said_of_what_fits() -> None:
    assert advise(SHAPE) == ()


@pytest.mark.parametrize(
    ("name", "value", "advised"),
    [
        ("shared_buffers", str(128 * MB), "2GB"),
        ("shared_buffers", str(6 * GB), "2GB"),
        ("effective_cache_size", str(GB), "4GB"),
        ("work_mem", str(4 * MB), "20MB"),
        ("work_mem", str(GB), "20MB"),
        ("maintenance_work_mem", str(64 * MB), "409MB"),
        ("max_wal_size", str(GB), "4GB"),
        ("checkpoint_timeout", "300", "15min"),
        ("autovacuum", "off", "on"),
        ("track_counts", "off", "on"),
        ("autovacuum_max_workers", "1", "3"),
        ("random_page_cost", "4", "1.1"),
        ("max_files_per_process", "1000", "3000"),
        ("max_locks_per_transaction", "64", "192"),
        ("track_io_timing", "off", "on"),
        ("log_lock_waits", "off", "on"),
        ("log_min_duration_statement", "-1", "1s"),
        ("idle_in_transaction_session_timeout", "0", "10min"),
        ("ssl", "off", "on"),
        ("password_encryption", "md5", "scram-sha-256"),
        ("fsync", "off", "on"),
        ("full_page_writes", "off", "on"),
        ("shared_preload_libraries", "auto_explain", "auto_explain,pg_stat_statements"),
    ],
)
def test_a_setting_that_does_not_fit_is_named_with_its_value_and_reason(name: str, value: str, advised: str) -> None:
    [advice] = advise(with_value(name, value))
    assert (advice.setting, advice.advised) == (name, advised)
    assert advice.reason
    assert advice.statement == f"alter system set {name} = '{advised}'"
    # Who follows the advice hears no more of it.
    assert advise(with_value(name, _base(advised))) == ()


def _base(advised: str) -> str:
    for unit, factor in (("GB", GB), ("MB", MB), ("min", 60), ("s", 1)):
        if advised.endswith(unit) and advised.removesuffix(unit).isdigit():
            return str(int(advised.removesuffix(unit)) * factor)
    return advised


def test_a_server_without_a_network_needs_no_certificate() -> None:
    assert advise(replace(SHAPE, values={**FITTING, "ssl": "off", "listen_addresses": ""})) == ()


def test_of_what_is_not_known_nothing_is_said() -> None:
    assert advise(replace(with_value("shared_buffers", str(MB)), memory=None)) == ()
    assert advise(replace(SHAPE, values={})) == ()


@given(
    st.integers(256 * MB, 1024 * GB),
    st.integers(0, 4096 * GB),
    st.integers(1, 2000),
    st.integers(1, 100_000),
    st.integers(1, 50_000),
)
@example(256 * MB, 0, 2, 1065, 187)
def test_who_follows_all_advice_hears_no_more(
    memory: int, database: int, connections: int, tables: int, tree: int
) -> None:
    values = {**FITTING, "max_connections": str(connections)}
    shape = Shape(values, database, tables, tree, memory, 2)
    followed = {**values, **{advice.setting: _base(advice.advised) for advice in advise(shape)}}
    assert advise(replace(shape, values=followed)) == ()


@pytest.mark.parametrize(
    ("value", "unit", "expected"),
    [("16384", "8kB", str(128 * MB)), ("4", "min", "240"), ("-1", "ms", "-1"), ("on", "", "on"), ("1.1", "", "1.1")],
)
def test_values_are_read_in_their_units(value: str, unit: str, expected: str) -> None:
    assert in_base_units(value, unit) == expected


def test_what_is_advised_for_large_tables_can_be_applied(watched: Watched) -> None:
    watched.execute('create table "Odd ""name""" (id int)')
    [(name, statement)] = table_statements([('public."Odd ""name"""', "", 5_000_000)])
    watched.execute(statement)
    [(options,)] = watched.execute("select array_to_string(reloptions, ',') from pg_class where relname like 'Odd%%'")
    assert "autovacuum_vacuum_scale_factor=0.020" in options
    assert table_statements([(name, options, 5_000_000)]) == ()
    assert table_statements([(name, "", 1000)]) == ()
    watched.execute(f"drop table {name}")


def test_the_settings_of_a_server_are_compared_by_a_role_with_pg_monitor(watched: Watched) -> None:
    watched.execute("create table large (id int) with (autovacuum_enabled = off)")
    # As the server would estimate it, had it so many rows.
    watched.execute("update pg_class set reltuples = 4e6 where relname = 'large'")
    reading = watched.read("settings_advice", settings=settings_with(B44_SERVER_MEMORY="64GB"))
    assert reading.unseen == ()
    advised = {row.labels["setting"]: row.labels for row in reading.rows["settings"]}
    assert advised["fsync"]["current"] == "off"
    assert {"shared_preload_libraries", "idle_in_transaction_session_timeout"} <= advised.keys()
    assert [row.labels["table"] for row in reading.rows["table_settings"]] == ["public.large"]
    red = watched.verdict("settings_fit", reading)
    assert not red.passed and "fsync off → on" in red.text
    for row in reading.rows["table_settings"]:
        watched.execute(row.labels["statement"])
    again = watched.read("settings_advice", settings=settings_with(B44_SERVER_MEMORY="64GB"))
    assert again.rows["table_settings"] == ()
    watched.execute("drop table large")


def test_what_is_advised_is_taken_by_the_server(watched: Watched) -> None:
    for row in watched.read("settings_advice").rows["settings"]:
        with watched.connect() as conn:
            if row.labels["setting"] == "shared_preload_libraries":
                continue
            try:
                conn.execute(f"set {row.labels['setting']} = '{row.labels['advised']}'".encode())
            except psycopg.errors.CantChangeRuntimeParam:
                # Of the whole server; the value was read before that is said.
                continue
