"""Which settings of the server do not fit this database, each with what is advised and why."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring.judging import count, lacking
from b44_assets.maintenance.monitoring.model import (
    Check,
    Interval,
    Measurement,
    Number,
    Reading,
    Row,
    Seen,
    Server,
    Verdict,
)
from b44_assets.maintenance.monitoring.reading import with_unseen
from b44_assets.postgres.embedded.configuration import available_memory

_KB, _MB, _GB = 1024, 1024**2, 1024**3
_UNITS = {"B": 1, "kB": _KB, "8kB": 8 * _KB, "16kB": 16 * _KB, "MB": _MB, "ms": 0.001, "s": 1, "min": 60}
_ROWS_BETWEEN_VACUUMS = 100_000
_RESTART = frozenset(
    {
        "shared_buffers",
        "autovacuum_max_workers",
        "max_files_per_process",
        "max_locks_per_transaction",
        "shared_preload_libraries",
    }
)
"""What takes a restart of the server; for the rest `pg_reload_conf()` is enough."""


@dataclass(frozen=True)
class Shape:
    """What the advice depends on.

    Attributes:
        values: Settings as text, in their base units: bytes and seconds as numbers.
        database_bytes: Size of the database.
        locked_by_a_dump: Tables and the like that pg_dump locks at once.
        largest_tree: A table with its partitions and all their indexes.
        memory: Bytes of the server's machine; None where it is not known.
        processors: Of the server's machine; None likewise.
    """

    values: Mapping[str, str]
    database_bytes: int
    locked_by_a_dump: int
    largest_tree: int
    memory: int | None
    processors: int | None

    def number(self, name: str) -> float:
        """A setting as a number."""
        return float(self.values[name])


@dataclass(frozen=True)
class Advice:
    """A setting that is not as it is advised to be, in the form of postgresql.conf."""

    setting: str
    current: str
    advised: str
    reason: str

    @property
    def statement(self) -> str:
        """What changes it."""
        return f"alter system set {self.setting} = '{self.advised}'"


def _memory(number: float) -> str:
    for unit, name in ((_GB, "GB"), (_MB, "MB")):
        if number >= unit and number % unit == 0:
            return f"{number / unit:.0f}{name}"
    return f"{number / _MB:.0f}MB" if number >= _MB else f"{number / _KB:.0f}kB"


def _whole_mb(number: float, low: float, high: float) -> float:
    return max(low, min(high, number)) // _MB * _MB


def _of_memory(shape: Shape) -> list[Advice]:
    memory, connections = shape.memory, shape.number("max_connections")
    if memory is None:
        return []
    found: list[Advice] = []

    def advise(name: str, wanted: float, reason: str) -> None:
        found.append(Advice(name, _memory(shape.number(name)), _memory(wanted), reason))

    buffers = _whole_mb(min(memory / 4, max(shape.database_bytes, 128 * _MB)), 128 * _MB, 16 * _GB)
    if not buffers / 2 <= shape.number("shared_buffers") <= memory / 2:
        advise(
            "shared_buffers",
            buffers,
            f"a quarter of {_memory(memory)} of memory, or what the database takes where that is less",
        )
    if not memory / 4 <= shape.number("effective_cache_size") <= memory:
        advise(
            "effective_cache_size",
            _whole_mb(memory / 2, 256 * _MB, 1024 * _GB),
            "half of memory is what the planner may expect to be cached",
        )
    work = _whole_mb(memory / 4 / connections, 4 * _MB, 64 * _MB)
    if shape.number("work_mem") < work / 2 or shape.number("work_mem") * connections > max(
        memory, 4 * _MB * connections
    ):
        advise(
            "work_mem",
            work,
            f"a quarter of memory over {connections:.0f} connections; with less, sorts go to the disk, with more, memory may run out",
        )
    maintenance = _whole_mb(memory / 20, 64 * _MB, _GB)
    if not maintenance / 2 <= shape.number("maintenance_work_mem") <= max(maintenance, memory / 8):
        advise("maintenance_work_mem", maintenance, "indexes are built and tables vacuumed within it")
    return found


def _of_relations(shape: Shape) -> list[Advice]:
    found: list[Advice] = []
    files = -(-int(shape.largest_tree * 1.25) // 1000) * 1000
    if shape.number("max_files_per_process") < shape.largest_tree:
        found.append(
            Advice(
                "max_files_per_process",
                shape.values["max_files_per_process"],
                str(files),
                f"one statement may open {count(shape.largest_tree)} files, a table's partitions and their indexes (and let the"
                " server's account open as many: LimitNOFILE)",
            )
        )
    sessions = shape.number("max_connections") + shape.number("max_prepared_transactions")
    # A dump locks all tables; and several sessions the largest of them with its indexes, at the same time.
    needed = shape.locked_by_a_dump + 8 * shape.largest_tree
    if shape.number("max_locks_per_transaction") * sessions < needed:
        found.append(
            Advice(
                "max_locks_per_transaction",
                shape.values["max_locks_per_transaction"],
                str(int(-(-needed // (64 * sessions))) * 64),
                f"a dump locks {count(shape.locked_by_a_dump)} tables, a statement up to {count(shape.largest_tree)} partitions"
                " and indexes, and the server refuses what does not fit",
            )
        )
    return found


@dataclass(frozen=True)
class _Rule:
    """A setting that is wrong by itself."""

    name: str
    wrong: Callable[[Shape], bool]
    advised: str
    reason: str
    shown: Callable[[str], str] = str


def _seconds(value: str) -> str:
    return f"{float(value):g}s"


def _bytes(value: str) -> str:
    return _memory(float(value))


def _is(name: str, *values: str) -> Callable[[Shape], bool]:
    return lambda shape: shape.values[name] in values


_RULES: tuple[_Rule, ...] = (
    _Rule("fsync", _is("fsync", "off"), "on", "without it a crash of the machine destroys the database"),
    _Rule(
        "full_page_writes",
        _is("full_page_writes", "off"),
        "on",
        "without it a crash of the machine destroys the database",
    ),
    _Rule(
        "autovacuum",
        _is("autovacuum", "off"),
        "on",
        "without it dead rows and transaction ids pile up until the server stops",
    ),
    _Rule("track_counts", _is("track_counts", "off"), "on", "autovacuum and monitoring know nothing without it"),
    _Rule(
        "autovacuum_max_workers",
        lambda shape: shape.number("autovacuum_max_workers") < min(3, max(1, (shape.processors or 2) // 2)),
        "3",
        "one large table must not keep all others waiting for their vacuum",
    ),
    _Rule(
        "max_wal_size",
        lambda shape: shape.database_bytes > _GB and shape.number("max_wal_size") < 2 * _GB,
        "4GB",
        "with less, each load runs from one checkpoint into the next, which write every page again",
        _bytes,
    ),
    _Rule(
        "checkpoint_timeout",
        lambda shape: shape.number("checkpoint_timeout") < 600,
        "15min",
        "fewer checkpoints write fewer full pages; recovery after a crash takes a little longer",
        _seconds,
    ),
    _Rule(
        "random_page_cost",
        lambda shape: shape.number("random_page_cost") > 2,
        "1.1",
        "solid-state disks read anywhere at nearly the same cost; leave it where the disks turn",
    ),
    _Rule(
        "track_io_timing",
        _is("track_io_timing", "off"),
        "on",
        "EXPLAIN (BUFFERS) and pg_stat_statements tell what waits for the disk",
    ),
    _Rule("log_lock_waits", _is("log_lock_waits", "off"), "on", "the log then names who waited for whom"),
    _Rule(
        "log_min_duration_statement",
        lambda shape: shape.number("log_min_duration_statement") < 0,
        "1s",
        "slow statements are logged; set log_parameter_max_length = 0, since their values may be personal",
        _seconds,
    ),
    _Rule(
        "idle_in_transaction_session_timeout",
        lambda shape: shape.number("idle_in_transaction_session_timeout") == 0,
        "10min",
        "a session that has forgotten its transaction keeps locks and dead rows until somebody ends it",
        _seconds,
    ),
    _Rule(
        "ssl",
        lambda shape: (
            shape.values["ssl"] == "off" and shape.values["listen_addresses"] not in ("", "localhost", "127.0.0.1")
        ),
        "on",
        "passwords and data cross the network in the clear; it needs a certificate",
    ),
    _Rule(
        "password_encryption",
        _is("password_encryption", "md5"),
        "scram-sha-256",
        "MD5 hashes of passwords can be used as they are",
    ),
    _Rule(
        "shared_preload_libraries",
        lambda shape: "pg_stat_statements" not in shape.values["shared_preload_libraries"],
        "pg_stat_statements",
        "every statement's time is counted then; CREATE EXTENSION pg_stat_statements, too",
    ),
)


def advise(shape: Shape) -> tuple[Advice, ...]:
    """What does not fit, the gravest first; of settings that are not shown, nothing.

    Args:
        shape: The server's settings, and what they are to fit.
    """
    known = {
        "shared_buffers",
        "effective_cache_size",
        "work_mem",
        "maintenance_work_mem",
        "max_connections",
    } <= shape.values.keys()
    relations = {"max_files_per_process", "max_locks_per_transaction", "max_connections", "max_prepared_transactions"}
    by_rule = [
        Advice(rule.name, rule.shown(shape.values[rule.name]), _joined(rule, shape), rule.reason)
        for rule in _RULES
        if {rule.name, *(("listen_addresses",) if rule.name == "ssl" else ())} <= shape.values.keys()
        and rule.wrong(shape)
    ]
    return (
        *by_rule,
        *(_of_memory(shape) if known else ()),
        *(_of_relations(shape) if relations <= shape.values.keys() else ()),
    )


def _joined(rule: _Rule, shape: Shape) -> str:
    # A library stands beside those that are loaded already.
    loaded = shape.values[rule.name] if rule.name == "shared_preload_libraries" else ""
    return ",".join(part for part in (loaded, rule.advised) if part)


def table_statements(rows: Sequence[tuple[str, str, Number]]) -> tuple[tuple[str, str], ...]:
    """Storage parameters by which autovacuum comes after some 100,000 changed rows, however large a table is.

    Args:
        rows: Each table as SQL names it, its storage parameters, and how many rows it has.

    Returns:
        Tables with their statements; none for those that have a parameter of their own.
    """
    statements: list[tuple[str, str]] = []
    for table, options, number in rows:
        if "autovacuum_vacuum_scale_factor" in options or number < 1_000_000:
            continue
        vacuum = max(_ROWS_BETWEEN_VACUUMS / number, 0.001)
        statements.append(
            (
                table,
                f"alter table {table} set (autovacuum_vacuum_scale_factor = {vacuum:.3f},"
                f" autovacuum_vacuum_insert_scale_factor = {vacuum:.3f}, autovacuum_analyze_scale_factor = {vacuum / 2:.4f})",
            )
        )
    return tuple(statements)


def in_base_units(value: str, unit: str) -> str:
    """A value of pg_settings in bytes or seconds; as it is where it has no unit, or says that something is off."""
    try:
        number = float(value)
    except ValueError:
        return value
    return value if number < 0 or unit not in _UNITS else f"{number * _UNITS[unit]:.15g}"


def _look(server: Server, seen: Seen, settings: Settings) -> Seen:
    shown = seen.rows.get("advised_settings", ())
    values = {row.labels["name"]: in_base_units(row.labels["value"], row.labels["unit"]) for row in shown}
    memory = settings.server_memory or (available_memory() if server.local else None)
    numbers = seen.numbers
    shape = Shape(
        values,
        int(numbers.get("database_bytes", 0)),
        int(numbers.get("locked_by_a_dump", 0)),
        int(numbers.get("largest_tree", 0)),
        memory,
        os.cpu_count() if server.local else None,
    )
    found = advise(shape)
    tables = table_statements(
        [(row.labels["table"], row.labels["options"], row.numbers["rows"]) for row in seen.rows.get("large_tables", ())]
    )
    unseen: list[str] = []
    if memory is None:
        unseen.append("how much memory the server's machine has is not known: set B44_SERVER_MEMORY")
    if not server.reads_settings:
        unseen.append(f"some settings are not shown to role {server.role}: GRANT pg_monitor TO {server.role}")
    return with_unseen(
        Seen(
            {**numbers, "settings": len(found), "tables": len(tables)},
            {
                "settings": tuple(
                    Row(
                        {
                            "setting": one.setting,
                            "current": one.current,
                            "advised": one.advised,
                            "reason": one.reason,
                            "statement": one.statement,
                            "takes": "a restart" if one.setting in _RESTART else "select pg_reload_conf()",
                        },
                        {},
                    )
                    for one in found
                ),
                "table_settings": tuple(
                    Row({"table": table, "statement": statement}, {}) for table, statement in tables
                ),
            },
            seen.unseen,
        ),
        *unseen,
    )


def _fits(reading: Reading, _: Settings) -> Verdict:
    if "settings" not in reading.numbers:
        return lacking(reading)
    rows = (*reading.rows.get("settings", ()), *reading.rows.get("table_settings", ()))
    left_out = f" ({'; '.join(reading.unseen)})" if reading.unseen else ""
    if not rows:
        return Verdict(True, f"the server's settings fit this database{left_out}")
    named = ", ".join(
        f"{row.labels['setting']} {row.labels['current'] or 'none'} → {row.labels['advised']}"
        if "setting" in row.labels
        else row.labels["statement"]
        for row in rows[:3]
    )
    more = f" and {len(rows) - 3} more, listed with their reasons on this asset" if len(rows) > 3 else ""
    return Verdict(False, f"{named}{more}{left_out}")


SETTINGS_ADVICE = Measurement(
    "settings_advice",
    "Settings of the server that do not fit this database, with what is advised and why; storage parameters for large tables.",
    ("advised_settings", "database_shape", "large_tables"),
    (Check("settings_fit", "The server's settings fit this database.", _fits, warns=True),),
    look=_look,
    interval=Interval.DAILY,
)
