"""What the data takes: sizes and their growth, disks, bloat, dead rows."""

from __future__ import annotations

import math
import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring.judging import at_least, at_most, count, percent, size, span, whole
from b44_assets.maintenance.monitoring.model import (
    Check,
    Earlier,
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

_DAY = 86400.0
_SHORTEST_SECONDS = 300.0
"""Over less than this, growth by the day would be a wild guess."""
_FORECAST_SECONDS = 6 * 3600.0
"""How long a disk is watched before it is said when it will be full."""
_REMEMBERED_SECONDS = 7 * _DAY
"""What lies further back counts ever less in an average."""


def averaged(name: str, value: Number, before: Earlier | None, seconds: float | None) -> dict[str, Number]:
    """How fast a figure grows by the day, averaged over the last days, and over how long it was watched.

    Args:
        name: Of the figure; its growth is `<name>_per_day`, and `<name>_watched_seconds` is how long it was watched.
        value: Of now.
        before: The numbers of the last time.
        seconds: Since then.
    """
    if before is None or seconds is None or name not in before.numbers or seconds <= 0:
        return {}
    watched = before.numbers.get(f"{name}_watched_seconds", 0.0)
    average = before.numbers.get(f"{name}_per_day", 0.0)
    # At first each moment counts the same; later those of the last week, each as much as it lasted.
    weight = 1.0 if not watched else 1 - math.exp(-seconds / min(watched + seconds, _REMEMBERED_SECONDS))
    now = (value - before.numbers[name]) / seconds * _DAY
    if not watched and seconds < _SHORTEST_SECONDS:
        return {}
    return {
        f"{name}_per_day": average + (now - average) * weight,
        f"{name}_watched_seconds": watched + seconds,
    }


def _sums(seen: Seen, before: Earlier | None, _: Mapping[str, Number], seconds: float | None) -> Mapping[str, Number]:
    rows = seen.rows.get("tables", ())
    numbers: dict[str, Number] = {
        "tables_bytes": sum(row.numbers["table_bytes"] for row in rows),
        "index_bytes": sum(row.numbers["index_bytes"] for row in rows),
    }
    database = seen.numbers.get("database_bytes")
    if database is not None and before is not None and "database_bytes" in before.numbers:
        numbers["growth_bytes"] = database - before.numbers["database_bytes"]
        numbers |= averaged("database_bytes", database, before, seconds)
    return numbers


def _each_table(seen: Seen) -> Mapping[str, Number]:
    numbers: dict[str, Number] = {}
    for row in seen.rows.get("tables", ()):
        numbers[f"{row.labels['table']}_bytes"] = row.numbers["table_bytes"] + row.numbers["index_bytes"]
        numbers[f"{row.labels['table']}_rows"] = row.numbers["rows"]
    return numbers


TABLE_SIZES = Measurement(
    "table_sizes",
    "Size of the database and of every table with its indexes, and how fast it grows.",
    ("database_size", "tables"),
    (
        Check(
            "grows_as_expected",
            "The database does not grow faster than expected.",
            at_most(
                "database_bytes_per_day",
                "database_growth",
                size,
                "a day the database grows by",
                "look which table it is (monitoring/table_sizes), and plan for the disk",
                absent="how fast the database grows is told from the second measurement on",
            ),
            warns=True,
        ),
    ),
    derive=_sums,
    plots=_each_table,
    of_tables=True,
)


def _disks(server: Server, seen: Seen, _: Settings) -> Seen:
    if not server.local or server.data_directory is None or not Path(server.data_directory).is_dir():
        where = (
            "is not shown to the role" if server.local and server.data_directory is None else "is on another machine"
        )
        return Seen(
            unseen=(f"the server's data directory {where}: watch its disks there, or by what its provider offers",)
        )
    data = Path(server.data_directory)
    folders = {"data": data, "wal": data / "pg_wal"}
    folders |= {
        f"tablespace {row.labels['tablespace']}": Path(row.labels["location"]) for row in seen.rows["tablespaces"]
    }
    numbers: dict[str, Number] = {}
    rows: list[Row] = []
    unseen: list[str] = []
    for name, folder in folders.items():
        try:
            usage = shutil.disk_usage(folder)
        except OSError as error:
            unseen.append(f"the disk of {name} cannot be looked at: {error.strerror}")
            continue
        # What is kept for root is neither used nor free.
        share = usage.free / max(usage.used + usage.free, 1)
        rows.append(
            Row(
                {"disk": name},
                {"bytes": usage.total, "free_bytes": usage.free, "used_bytes": usage.used, "free_ratio": share},
            )
        )
        if name in ("data", "wal"):
            numbers |= {f"{name}_free_bytes": usage.free, f"{name}_free_ratio": share, f"{name}_used_bytes": usage.used}
    rows.sort(key=lambda row: row.numbers["free_ratio"])
    if rows:
        numbers["least_free_ratio"] = rows[0].numbers["free_ratio"]
    return with_unseen(Seen(numbers, {"disks": tuple(rows)}), *unseen)


def _forecast(
    seen: Seen, before: Earlier | None, _: Mapping[str, Number], seconds: float | None
) -> Mapping[str, Number]:
    numbers: dict[str, Number] = {}
    full: list[float] = []
    for disk in ("data", "wal"):
        used = seen.numbers.get(f"{disk}_used_bytes")
        if used is None:
            continue
        grown = averaged(f"{disk}_used_bytes", used, before, seconds)
        numbers |= grown
        per_day = grown.get(f"{disk}_used_bytes_per_day", 0.0)
        if per_day > 0 and grown[f"{disk}_used_bytes_watched_seconds"] >= _FORECAST_SECONDS:
            full.append(seen.numbers[f"{disk}_free_bytes"] / per_day * _DAY)
    if full:
        numbers["full_seconds"] = min(full)
    return numbers


def _disk_free(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("disks", ())
    return whole(
        at_least(
            "least_free_ratio",
            "disk_free",
            percent,
            f"free on the disk of {rows[0].labels['disk']} ({size(rows[0].numbers['free_bytes'])}):"
            if rows
            else "free:",
            "make room, or a larger disk: a server whose disk is full stops",
        )
    )(reading, settings)


DISK = Measurement(
    "disk",
    "Free space on the disks of the data, the WAL and the tablespaces, and when they will be full as they grow now.",
    ("tablespaces",),
    (
        Check("disk_free", "Enough of each disk is free.", _disk_free),
        Check(
            "not_full_soon",
            "As it grows now, no disk will be full soon.",
            at_least(
                "full_seconds",
                "disk_full",
                span,
                "as it grows now, a disk is full in",
                "look what grows (monitoring/table_sizes, wal, replication), and get a larger disk in time",
                absent="no disk is seen to grow, or it was not watched for six hours yet",
            ),
        ),
    ),
    look=_disks,
    derive=_forecast,
)


def _worst_table(reading: Reading, part: str, figure: str) -> str:
    rows = [row for row in reading.rows.get(part, ()) if figure in row.numbers]
    return max(rows, key=lambda row: row.numbers[figure]).labels["table"] if rows else "a table"


def _dead(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("vacuumed_tables", ())
    worst = rows[0].labels["table"] if rows else "the table"
    return at_most(
        "largest_dead_ratio",
        "dead_rows",
        percent,
        "of a table's rows are dead",
        f"VACUUM {worst}; where autovacuum does not keep up, see monitoring/settings_advice, and look for a long transaction or a"
        " slot that holds it back",
    )(reading, settings)


def _unanalyzed(reading: Reading, settings: Settings) -> Verdict:
    return at_most(
        "largest_unanalyzed_ratio",
        "unanalyzed_rows",
        percent,
        "of a table's rows have changed since it was analyzed",
        f"ANALYZE {_worst_table(reading, 'vacuumed_tables', 'changed_rows')}: the planner knows too little of it",
    )(reading, settings)


DEAD_ROWS = Measurement(
    "dead_rows",
    "Dead rows, rows changed since the last ANALYZE, and how long ago tables were vacuumed and analyzed.",
    ("dead_rows", "vacuumed_tables"),
    (
        Check("vacuumed", "No table of some size has many dead rows.", _dead, warns=True),
        Check("analyzed", "The planner knows the tables as they are.", _unanalyzed, warns=True),
    ),
    of_tables=True,
)


def _bloat(server: Server, seen: Seen, _: Settings) -> Seen:
    hidden = seen.numbers.get("tables_hidden", 0)
    rows = seen.rows.get("table_bloat", ())
    numbers: dict[str, Number] = {
        "largest_bloat_ratio": max((row.numbers.get("bloat_ratio", 0) for row in rows), default=0.0),
        "free_bytes": sum(row.numbers.get("free_bytes", 0) for row in rows),
        "estimated": int("pgstattuple" not in server.extensions),
    }
    if "table_bloat" not in seen.rows:
        return Seen(unseen=seen.unseen)
    if "pgstattuple" in server.extensions or not hidden:
        return replace(seen, numbers=numbers)
    return with_unseen(
        replace(seen, numbers=numbers if rows else {}),
        f"the statistics of {count(hidden)} tables are not shown to role {server.role}: CREATE EXTENSION pgstattuple, which"
        " members of pg_monitor may use, or GRANT SELECT on them",
    )


def _bloated(reading: Reading, settings: Settings) -> Verdict:
    return whole(
        at_most(
            "largest_bloat_ratio",
            "bloat",
            percent,
            f"dead or empty of {_worst_table(reading, 'table_bloat', 'bloat_ratio')}:"
            if reading.rows.get("table_bloat")
            else "no table has 16 MB; dead or empty:",
            "VACUUM FULL it while nobody uses it (it locks the table), or use pg_repack; then find out why autovacuum came late",
        )
    )(reading, settings)


TABLE_BLOAT = Measurement(
    "table_bloat",
    "How much of the tables of some size is dead or empty: measured by pgstattuple, else estimated from statistics.",
    ("table_bloat", "unreadable_tables"),
    (Check("no_bloated_table", "No table of some size is mostly empty.", _bloated, warns=True),),
    look=_bloat,
    interval=Interval.DAILY,
    replica=True,
    of_tables=True,
)


def _default_sum(
    seen: Seen, before: Earlier | None, _: Mapping[str, Number], seconds: float | None
) -> Mapping[str, Number]:
    rows = seen.rows.get("default_partitions", ())
    return {"partitions": len(rows), "rows": sum(row.numbers["rows"] for row in rows)}


def _rows_without_partition(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("default_partitions", ())
    return at_most(
        "rows",
        "default_rows",
        count,
        f"rows in {rows[0].labels['partition'] if rows else 'default partitions'}, by statistics:",
        "run the job manage_partitions, or turn the sensor default_partitions on: it makes their partitions and moves them there",
    )(reading, settings)


DEFAULT_PARTITIONS = Measurement(
    "default_partitions",
    "Rows that came without a partition of their own, by the server's statistics.",
    ("default_partitions",),
    (Check("default_partitions_empty", "Every row has a partition of its own.", _rows_without_partition, warns=True),),
    derive=_default_sum,
    of_tables=True,
)


def _quarantined(
    seen: Seen, before: Earlier | None, _: Mapping[str, Number], seconds: float | None
) -> Mapping[str, Number]:
    rows = seen.rows.get("quarantine")
    return {} if rows is None else {"records": sum(row.numbers["records"] for row in rows)}


QUARANTINE = Measurement(
    "quarantine",
    "Records that were refused and wait for their correction, by entity; nothing after the migration tables have gone.",
    ("quarantine",),
    (
        Check(
            "quarantine_empty",
            "No record waits for its correction.",
            at_most(
                "records",
                "quarantine",
                count,
                "records in quarantine:",
                "`b44 quarantine` shows them with their reasons; correct them and run `b44 replay`",
                absent="the migration is over",
            ),
            warns=True,
        ),
    ),
    derive=_quarantined,
    needs_table="migration.accounting",
    of_tables=True,
)
