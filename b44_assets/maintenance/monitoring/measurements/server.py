"""What the server does as a whole: statements, replication, WAL, checkpoints, blocks, temporary files, age, version, machine."""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import psutil

from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring.judging import at_most, count, lacking, percent, share_of_increase, size, span
from b44_assets.maintenance.monitoring.measurements.activity import sessions_hidden
from b44_assets.maintenance.monitoring.model import (
    COUNTER,
    Check,
    Earlier,
    Measurement,
    Number,
    Reading,
    Seen,
    Server,
    Verdict,
)
from b44_assets.maintenance.monitoring.reading import with_unseen

_FEW_CHECKPOINTS = 3
_FEW_WRITES = 1_000
_COUNTS_IO = 16
_WRITES_FOR_OTHERS = frozenset({"background writer", "checkpointer"})
_HOUR = 3600.0


def _statements(server: Server, seen: Seen, _: Settings) -> Seen:
    rows = seen.rows.get("slow_statements", ())
    numbers: dict[str, Number] = {}
    for figure, name in (("mean_seconds", "slowest_mean_seconds"), ("running_seconds", "longest_running_seconds")):
        values = [row.numbers[figure] for row in rows if figure in row.numbers]
        if values or (figure == "running_seconds") == ("pg_stat_statements" not in server.extensions):
            numbers[name] = max(values, default=0.0)
    notes = (
        ()
        if "pg_stat_statements" in server.extensions
        else ("only what runs at the moment is seen: with pg_stat_statements every statement is counted",)
    )
    hidden = sessions_hidden(server, "statements of other roles")
    shown = {} if hidden else numbers
    return with_unseen(Seen(shown, seen.rows, seen.unseen, notes), *hidden)


def _slow(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("slow_statements", ())
    if "slowest_mean_seconds" in reading.numbers:
        slow = [row for row in rows if row.numbers.get("mean_seconds", 0) == reading.numbers["slowest_mean_seconds"]]
        named = f"{slow[0].labels['query_id']} ({slow[0].labels['statement'][:80]})" if slow else "the statement"
        return at_most(
            "slowest_mean_seconds",
            "statement",
            span,
            "the slowest statement takes on average",
            f"EXPLAIN (ANALYZE, BUFFERS) {named}, and see whether an index is missing",
        )(reading, settings)
    process = rows[0].labels["pid"] if rows else "?"
    return at_most(
        "longest_running_seconds",
        "running_statement",
        span,
        "the longest statement runs for",
        f"see pg_stat_activity for process {process}, EXPLAIN its statement, or end it by pg_cancel_backend",
    )(reading, settings)


SLOW_STATEMENTS = Measurement(
    "slow_statements",
    "Statements by what they take, from pg_stat_statements; without it, those that run at the moment.",
    ("slow_statements",),
    (Check("statements_fast", "No statement takes long.", _slow, warns=True),),
    look=_statements,
)


def _replication(server: Server, seen: Seen, _: Settings) -> Seen:
    hidden = sessions_hidden(server, "how far standbys are behind")
    if not hidden:
        return seen
    shown = {name: value for name, value in seen.numbers.items() if "lag" not in name and name != "standbys"}
    return with_unseen(replace(seen, numbers=shown), *hidden)


def _lag(reading: Reading, settings: Settings) -> Verdict:
    own = "look at the standby's log, its disk, and queries that hold replay back"
    other = "look at the standby's log and load, its network, and queries that hold replay back"
    looks = (
        ("own_lag_seconds", "replication_lag", span, "this standby is behind by", own),
        ("longest_lag_seconds", "replication_lag", span, "a standby is behind by", other),
        ("largest_lag_bytes", "replication_bytes", size, "a standby still has to replay", other),
    )
    for figure, threshold, say, what, remedy in looks:
        verdict = at_most(figure, threshold, say, what, remedy)(reading, settings)
        if figure in reading.numbers and not verdict.passed:
            return verdict
    if reading.unseen:
        return lacking(reading)
    return Verdict(True, f"{count(reading.numbers['standbys'])} standbys, none far behind")


def _slots(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("replication_slots", ())
    unread = [row for row in rows if row.labels["has_reader"] == "no"]
    worst = (unread or rows or (None,))[0]
    reader = "has no reader" if unread else "has a slow reader"
    return at_most(
        "slot_wal_bytes",
        "slot_wal",
        size,
        "replication slots hold back",
        f"slot {worst.labels['slot']} {reader}: start its reader, or SELECT pg_drop_replication_slot(…), before the disk is full"
        if worst
        else "see pg_replication_slots",
    )(reading, settings)


REPLICATION = Measurement(
    "replication",
    "How far standbys are behind, and the WAL that replication slots hold back.",
    ("replication", "replication_standbys", "replication_slots"),
    (
        Check("standbys_follow", "No standby is far behind.", _lag),
        Check("slots_read", "No replication slot holds back much WAL.", _slots),
    ),
    look=_replication,
)


def _archiving(reading: Reading, settings: Settings) -> Verdict:
    fails = reading.numbers.get("archive_fails")
    if fails is None:
        return lacking(reading)
    if not reading.numbers["archiving"]:
        return Verdict(True, "the server does not archive its WAL (archive_mode is off); recovery to a time needs it")
    if fails:
        return Verdict(
            False,
            f"the server's last attempt to archive its WAL failed ({count(reading.numbers['archive_failures_total'])} failures so"
            " far): its log says why; the WAL stays on its disk until archiving works",
        )
    return at_most(
        "archive_waiting",
        "archive_waiting",
        count,
        "files of the WAL that wait for being archived:",
        "archiving is slower than what is written: look at archive_command and where it writes to",
    )(reading, settings)


WAL = Measurement(
    "wal",
    "WAL that is written, a second; its files; whether they are archived.",
    ("wal", "wal_archiver", "wal_files"),
    (
        Check(
            "wal_rate",
            "Not unusually much WAL is written.",
            at_most(
                "bytes_per_second",
                "wal_rate",
                size,
                "WAL written a second since the last time:",
                "find out which statements write so much (pg_stat_statements.wal_bytes); a load can be slowed by B44_MAX_WAL_RATE",
            ),
            warns=True,
        ),
        Check("archiving_works", "The WAL is archived where it is to be.", _archiving),
    ),
)


CHECKPOINTS = Measurement(
    "checkpoints",
    "Checkpoints that came in time, and those that came before since much was written.",
    ("checkpoints",),
    (
        Check(
            "checkpoints_in_time",
            "Checkpoints come by the clock.",
            at_most(
                "requested_ratio",
                "requested_checkpoints",
                percent,
                "of the checkpoints since the last time came before their time:",
                "raise max_wal_size",
            ),
            warns=True,
        ),
    ),
    derive=share_of_increase(
        "requested_ratio", "requested_total", "timed_total", fewest=_FEW_CHECKPOINTS, otherwise=0.0
    ),
)


def _io(server: Server, seen: Seen, _: Settings) -> Seen:
    if server.major < _COUNTS_IO:
        return Seen(notes=(f"PostgreSQL {_COUNTS_IO} and newer count who reads and writes; this is {server.major}",))
    rows = seen.rows.get("io", ())
    if not rows:
        return seen
    numbers: dict[str, Number] = {
        name: sum(row.numbers[name] for row in rows) for name in rows[0].numbers if name.endswith(COUNTER)
    }
    # What is loaded or vacuumed in bulk goes through a small ring of buffers, which is to be written by whoever fills it.
    usual = [row for row in rows if row.labels["context"] == "normal" and row.labels["object"] == "relation"]
    for name, background in (("background_writes_total", True), ("session_writes_total", False)):
        numbers[name] = sum(
            row.numbers["writes_total"] for row in usual if (row.labels["backend"] in _WRITES_FOR_OTHERS) is background
        )
    moved = tuple(row for row in rows if any(row.numbers.values()))
    return replace(seen, numbers=numbers, rows={"io": moved})


def _session_writes(reading: Reading, settings: Settings) -> Verdict:
    if reading.notes:
        return Verdict(True, "; ".join(reading.notes), measured=False)
    return at_most(
        "session_writes_ratio",
        "session_writes",
        percent,
        "of the blocks written since the last time, sessions had to write themselves:",
        "they wait for the disk to get a free buffer: raise shared_buffers, and bgwriter_lru_maxpages",
    )(reading, settings)


IO = Measurement(
    "io",
    "Blocks read and written, by who does it and why, and how many of them sessions had to write before they could go on.",
    ("io",),
    (Check("sessions_need_not_write", "Sessions find free buffers.", _session_writes, warns=True),),
    look=_io,
    derive=share_of_increase(
        "session_writes_ratio",
        "session_writes_total",
        "background_writes_total",
        fewest=_FEW_WRITES,
        otherwise=0.0,
    ),
)


def _hourly(
    seen: Seen, before: Earlier | None, increases: Mapping[str, Number], seconds: float | None
) -> Mapping[str, Number]:
    if "bytes_total" not in increases or not seconds:
        return {}
    # A single sort right after another look is no hour's worth.
    return {"bytes_per_hour": increases["bytes_total"] / max(seconds, 60.0) * _HOUR}


TEMP_FILES = Measurement(
    "temp_files",
    "Temporary files that statements write since their memory is too small.",
    ("temp_files",),
    (
        Check(
            "few_temp_files",
            "Sorts and hashes stay in memory.",
            at_most(
                "bytes_per_hour",
                "temp_files",
                size,
                "temporary files written an hour:",
                "raise work_mem for the statements that need it (log_temp_files names them), or give them an index",
            ),
            warns=True,
        ),
    ),
    derive=_hourly,
)


def _ages(figure: str, threshold: str, what: str) -> Check:
    def judge(reading: Reading, settings: Settings) -> Verdict:
        held = {
            "a transaction that is open": reading.numbers.get("oldest_snapshot", 0),
            "a prepared transaction": reading.numbers.get("oldest_prepared", 0),
            "a replication slot": reading.numbers.get("oldest_of_slots", 0),
        }
        holder = max(held, key=lambda name: held[name])
        rows = reading.rows.get("oldest_tables", ())
        table = rows[0].labels["table"] if rows else "the oldest tables"
        why = (
            f"{holder} holds vacuum back: end it first; then "
            if held[holder] > reading.numbers.get(figure, 0) / 2
            else ""
        )
        return at_most(
            figure,
            threshold,
            count,
            f"the oldest {what} is so many behind:",
            f"{why}VACUUM (FREEZE) {table}; at 2,000,000,000 the server takes no writes any more",
        )(reading, settings)

    return Check(f"{figure}_young", f"No {what} comes near the wrap-around.", judge)


WRAPAROUND = Measurement(
    "wraparound",
    "Age of the oldest transaction id and multixact, and what keeps vacuum from freezing them.",
    ("wraparound", "oldest_tables"),
    (
        _ages("transaction_ids", "transaction_ids", "transaction id"),
        _ages("multixacts", "multixacts", "multixact"),
    ),
)


def _newest(server: Server, seen: Seen, settings: Settings) -> Seen:
    newest = settings.newest_postgres.get(server.major)
    if newest is None:
        return with_unseen(seen, f"B44_NEWEST_POSTGRES names no release of PostgreSQL {server.major}")
    return replace(seen, numbers={**seen.numbers, "newest_minor": newest})


def _up_to_date(reading: Reading, _: Settings) -> Verdict:
    newest = reading.numbers.get("newest_minor")
    if newest is None:
        return lacking(reading)
    major, minor = reading.numbers["major"], reading.numbers["minor"]
    if minor >= newest:
        return Verdict(
            True, f"PostgreSQL {major}.{minor}; {major}.{newest} is the newest that B44_NEWEST_POSTGRES names"
        )
    return Verdict(
        False,
        f"PostgreSQL {major}.{minor} is older than {major}.{newest}: install the newest minor release, which mends faults and closes"
        " holes, and restart the server; no dump is needed",
    )


SERVER_VERSION = Measurement(
    "server_version",
    "The server's version beside the newest minor release, and since when it runs.",
    ("server_version",),
    (Check("newest_minor_release", "The server is of the newest minor release.", _up_to_date, warns=True),),
    look=_newest,
)


def _cgroup_memory() -> tuple[int, int] | None:
    """Limit and use of a container's memory, in bytes; None outside of one, or without a limit."""
    folder = Path("/sys/fs/cgroup")
    # No such files outside of a container, and "max" is no number.
    with suppress(OSError, ValueError):
        limit, used = int((folder / "memory.max").read_text()), int((folder / "memory.current").read_text())
        words = (folder / "memory.stat").read_text().split()
        # Cached files give way.
        return limit, used - int(words[words.index("inactive_file") + 1])
    return None


def _machine(server: Server, _: Seen, __: Settings) -> Seen:
    times, memory = psutil.cpu_times(), psutil.virtual_memory()
    # What a guest takes is part of "user" already.
    whole = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)
    total, used = memory.total, memory.total - memory.available
    if (container := _cgroup_memory()) is not None and container[0] < total:
        total, used = container
    numbers: dict[str, Number] = {
        "processors": psutil.cpu_count() or 1,
        "cpu_busy_seconds_total": whole - times.idle - getattr(times, "iowait", 0.0),
        "cpu_seconds_total": whole,
        "load": psutil.getloadavg()[0],
        "memory_bytes": total,
        "memory_used_bytes": used,
        "memory_ratio": used / total,
        "swap_used_bytes": psutil.swap_memory().used,
        "started_at": psutil.boot_time(),
    }
    elsewhere = (
        "the server is on another machine, whose processors and memory its provider shows; these are of this one"
    )
    return Seen(numbers, notes=() if server.local else (elsewhere,))


def _busy(
    seen: Seen, before: Earlier | None, increases: Mapping[str, Number], seconds: float | None
) -> Mapping[str, Number]:
    passed = increases.get("cpu_seconds_total", 0)
    # Sums of fractions may be a hair apart.
    return {"cpu_ratio": min(1.0, increases["cpu_busy_seconds_total"] / passed)} if passed else {}


MACHINE = Measurement(
    "machine",
    "Processors and memory of the machine that measures.",
    (),
    (
        Check(
            "processors_left",
            "The machine's processors are not all busy.",
            at_most(
                "cpu_ratio",
                "cpu",
                percent,
                "busy since the last time were, of this machine's processors,",
                "look what runs (monitoring/slow_statements); move what can wait to the night, or take a larger machine",
            ),
        ),
        Check(
            "memory_left",
            "The machine has memory left.",
            at_most(
                "memory_ratio",
                "memory",
                percent,
                "in use of this machine's memory are",
                "lower shared_buffers or work_mem (monitoring/settings_advice), close connections, or take a larger machine",
            ),
        ),
    ),
    look=_machine,
    derive=_busy,
)
