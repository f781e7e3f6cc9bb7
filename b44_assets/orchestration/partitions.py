"""Months as Dagster partitions, defined once."""

from __future__ import annotations

from datetime import date

import dagster as dg

from b44_assets.catalog import Catalog
from b44_assets.config.quantities import month_text, next_month
from b44_assets.migration.parts import Range

KEY_FORMAT = "%Y-%m"
RANGE_START = "dagster/asset_partition_range_start"
RANGE_END = "dagster/asset_partition_range_end"
BACKFILL = "dagster/backfill"
"""On the runs of a backfill, which Dagster's daemon starts."""


def months_of(catalog: Catalog, first_month: date) -> dg.MonthlyPartitionsDefinition:
    """Every month (UTC) from the first one of any table by month to the current one, keyed `YYYY-MM`.

    Args:
        catalog: The files.
        first_month: The first month of a table whose file names none.
    """
    periods = [catalog.table(table).period for table in catalog.mappings if catalog.is_monthly(table)]
    first = min((period.first or first_month for period in periods if period), default=first_month)
    return dg.MonthlyPartitionsDefinition(start_date=key_of_month(first), fmt=KEY_FORMAT, timezone="UTC", end_offset=1)


def month_of(key: str) -> date:
    """The first day of the month that a key names."""
    year, month = key.split("-")
    return date(int(year), int(month), 1)


def key_of_month(month: date) -> str:
    """The key that names a month."""
    return month_text(month)


def range_tags(first: str, last: str) -> dict[str, str]:
    """Tags of one run over a range of months, both included."""
    return {RANGE_START: first, RANGE_END: last}


def range_of(months: dg.MonthlyPartitionsDefinition, keys: list[str]) -> Range:
    """The months that a run covers. One with the latest month also takes what lies beyond: nothing else would."""
    ends_open = months.get_last_partition_key() in keys
    chosen = sorted(month_of(key) for key in keys)
    return Range(chosen[0], None if ends_open else next_month(chosen[-1]))
