"""What the data takes: sizes and their growth, disks, bloat, dead rows."""

from __future__ import annotations

import math
from collections.abc import Mapping

from b44_assets.maintenance.monitoring.judging import at_most, size
from b44_assets.maintenance.monitoring.model import Check, Earlier, Measurement, Number, Seen

_DAY = 86400.0
_SHORTEST_SECONDS = 300.0
"""Over less than this, growth by the day would be a wild guess."""
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
    rows = seen.rows.get("table_sizes", ())
    numbers: dict[str, Number] = {
        "tables_bytes": sum(row.numbers["table_bytes"] for row in rows),
        "index_bytes": sum(row.numbers["index_bytes"] for row in rows),
    }
    for row in rows:
        numbers[f"{row.labels['table']}_bytes"] = row.numbers["table_bytes"] + row.numbers["index_bytes"]
        numbers[f"{row.labels['table']}_rows"] = row.numbers["rows"]
    database = seen.numbers.get("database_bytes")
    if database is not None and before is not None and "database_bytes" in before.numbers:
        numbers["growth_bytes"] = database - before.numbers["database_bytes"]
        numbers |= averaged("database_bytes", database, before, seconds)
    return numbers


TABLE_SIZES = Measurement(
    "table_sizes",
    "Size of the database and of every table with its indexes, and how fast it grows.",
    ("database_size", "table_sizes"),
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
)
