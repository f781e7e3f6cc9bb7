"""Durations, sizes, limits and months as they are written in a setting or an option.

A function that reads one raises ValueError with what is expected, worded to follow "must be"; whoever calls it adds the
name of the variable or option, and what was found. Nothing here reads the environment.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from datetime import date
from enum import StrEnum
from fractions import Fraction
from typing import Self

from b44_assets.errors import SettingsError

EARLIEST_MONTH = date(1970, 1, 1)
"""No partition key before it is believed: what is older is a date that was never set, or a slip."""
DEFAULT_PLAUSIBLE_YEARS = 10
DEFAULT_BATCH_SIZE = 20_000
DEFAULT_BATCH_SECONDS = 2.0
DEFAULT_STREAMS = 2
DEFAULT_MAX_REPLICATION_LAG = 10.0
DEFAULT_MAX_LOCK_QUEUE = 20

_UNITS_MS = {"ms": 1, "s": 1000, "min": 60_000}
_UNITS_BYTES = {"kB": 1024, "MB": 1024**2, "GB": 1024**3}
_UNITS_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS_LARGE = _UNITS_BYTES | {"TB": 1024**4}
_LONGEST_SECONDS = 3600
_LARGEST_MULTIPLE = 1000
_LONGEST_REST_SECONDS = 30
"""After a batch that took unusually long, for it waited for a lock or a checkpoint."""


class ContentFormat(StrEnum):
    """What a text that readers are shown is, by which it is cleaned or not (`B44_CONTENT_FORMAT`).

    `TEXT` is for apps that store Markdown or code, and escape when they show it.
    """

    HTML = "html"
    TEXT = "text"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `html` or `text`.

        Raises:
            ValueError: It is neither.
        """
        try:
            return cls(text)
        except ValueError:
            raise ValueError(" or ".join(cls)) from None


@dataclass(frozen=True)
class QuarantineLimit:
    """How many records of one entity may be refused before its load is rolled back.

    Exactly one of the two is given.

    Attributes:
        count: A number of records.
        percent: A share of the records read, in percent (exact, 0 to 100).
    """

    count: int | None = None
    percent: Fraction | None = None

    def __post_init__(self) -> None:
        """Refuses an object that says nothing, or two things."""
        if (self.count is None) == (self.percent is None):
            raise ValueError("a quarantine limit is a count or a percentage, and only one of them")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `100` as a count and `0.5%` as a share.

        Args:
            text: What stands in `B44_MAX_QUARANTINE`.

        Raises:
            ValueError: It is neither.
        """
        text = text.strip()
        if match := re.fullmatch(r"([0-9]+(?:\.[0-9]+)?)\s*%", text):
            percent = Fraction(match[1])
            if percent <= 100:
                return cls(percent=percent)
        elif re.fullmatch(r"[0-9]+", text):
            return cls(count=int(text))
        raise ValueError("a number of records such as 100 or a share such as 0.5%")

    def exceeded(self, quarantined: int, read: int) -> bool:
        """Tells whether more was refused than allowed; reaching the limit is still allowed.

        Args:
            quarantined: Records refused.
            read: Records read, refused ones included.
        """
        if self.count is not None:
            return quarantined > self.count
        assert self.percent is not None
        return quarantined * 100 > self.percent * read

    def __str__(self) -> str:
        """The limit as it would be written in the environment."""
        return str(self.count) if self.percent is None else f"{float(self.percent):.15g}%"


@dataclass(frozen=True)
class Pause:
    """How long a load rests between two batches of a stream; by default not at all.

    Attributes:
        seconds: A time of its own, in seconds, at most an hour.
        multiple: The batch's own duration, so many times, at most 1000; so a server that gets slower is given more rest,
            but never more than 30 seconds. At most one of the two is given.
    """

    seconds: float = 0.0
    multiple: float = 0.0

    def __post_init__(self) -> None:
        """Refuses what would be two pauses, or none that ends."""
        if self.seconds and self.multiple:
            raise ValueError("a pause is a time or a multiple of the batch's own, and only one of them")
        if not (0 <= self.seconds <= _LONGEST_SECONDS and 0 <= self.multiple <= _LARGEST_MULTIPLE):
            raise ValueError("a pause is from 0 seconds to an hour, or up to 1000 times the batch's own duration")

    @classmethod
    def parse(cls, text: str) -> Self:
        """Reads `0` as none, `100ms` and `2s` as a time, and `3x` as three times the batch's own duration.

        Args:
            text: What stands in `B44_BATCH_PAUSE`.

        Raises:
            ValueError: It is none of these.
        """
        text = text.strip()
        if re.fullmatch(r"0+", text):
            return cls()
        if match := re.fullmatch(r"([0-9]{1,4}(?:\.[0-9]{1,3})?)\s*x", text):
            if (multiple := float(match[1])) <= _LARGEST_MULTIPLE:
                return cls(multiple=multiple)
        elif (ms := _duration(text)) is not None and ms <= _LONGEST_SECONDS * 1000:
            return cls(seconds=ms / 1000)
        raise ValueError(
            "0, a time of at most an hour such as 100ms or 2s, or a multiple of the batch's own duration such as 3x"
        )

    def after(self, seconds: float) -> float:
        """Returns how long to rest after a batch, in seconds.

        Args:
            seconds: What the batch took.
        """
        return min(self.multiple * seconds, _LONGEST_REST_SECONDS) if self.multiple else self.seconds

    def __str__(self) -> str:
        """The pause as it would be written in the environment."""
        if self.multiple:
            return f"{self.multiple:g}x"
        return f"{round(self.seconds * 1000)}ms" if self.seconds else "0"


@dataclass(frozen=True)
class Pace:
    """How hard a load may push the server.

    Attributes:
        batch_size: The most records in one batch.
        target_seconds: What a batch should take, in seconds; its size adapts towards that.
        pause: The rest between two batches of a stream.
        streams: How many connections load a partitioned table at a time.
        max_replication_lag: Seconds that a standby may be behind before the load holds back; None for no limit.
        max_lock_queue: Sessions of the application that may wait for a lock before it does; None for no limit.
        max_wal_rate: Bytes of WAL a second that the server may write, of the load and of all others; None for no limit.
    """

    batch_size: int = DEFAULT_BATCH_SIZE
    target_seconds: float = DEFAULT_BATCH_SECONDS
    pause: Pause = Pause()
    streams: int = DEFAULT_STREAMS
    max_replication_lag: float | None = DEFAULT_MAX_REPLICATION_LAG
    max_lock_queue: int | None = DEFAULT_MAX_LOCK_QUEUE
    max_wal_rate: int | None = None

    def __post_init__(self) -> None:
        """Refuses a pace at which nothing would ever be loaded."""
        if self.batch_size < 1 or self.streams < 1 or not self.target_seconds > 0:
            raise ValueError(
                "a batch has at least one record, a load at least one stream, and a target above 0 seconds"
            )


LIVE = Pace(target_seconds=0.02, pause=Pause(multiple=20), streams=1)
"""`B44_THROTTLE=on`: the application has the server to itself for twenty of twenty-one parts of the time."""


def month(text: str) -> date:
    """Reads `2020-01` as the first day of that month.

    Raises:
        ValueError: It is no month.
    """
    match = re.fullmatch(r"([0-9]{4})-(0[1-9]|1[0-2])", text)
    if match is None or int(match[1]) < 1:
        raise ValueError("a month such as 2020-01")
    return date(int(match[1]), int(match[2]), 1)


def month_from(name: str, text: str) -> date:
    """Reads the month of an option.

    Args:
        name: The option, for the message.
        text: What it was given.

    Raises:
        SettingsError: It is no month.
    """
    try:
        return month(text)
    except ValueError as error:
        raise SettingsError(f"{name} must be {error}, not {text!r}") from None


def month_text(month: date) -> str:
    """The month as `month` reads it; `%Y` would not write a year before 1000 in four digits."""
    return f"{month.year:04}-{month.month:02}"


def next_month(month: date) -> date:
    """The first day of the month after."""
    return date(month.year + month.month // 12, month.month % 12 + 1, 1)


def period_from(unit: str, text: str) -> date:
    """Reads `2020-01` as the first day of a month, or `2020` as that of a year.

    Args:
        unit: `month` or `year`.
        text: What was given.

    Raises:
        ValueError: It is no such period.
    """
    if unit == "month":
        return month(text)
    if not re.fullmatch(r"[0-9]{4}", text) or int(text) < 1:
        raise ValueError("a year such as 2020")
    return date(int(text), 1, 1)


def period_text(unit: str, day: date) -> str:
    """The month or year of a day, as `period_from` reads it."""
    return month_text(day) if unit == "month" else f"{day.year:04}"


def months_by_table(text: str) -> dict[str, int]:
    """Reads `invoices=36,visits=84` as months by table.

    Raises:
        ValueError: It is something else, names a table twice, or keeps nothing.
    """
    kept: dict[str, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([a-z_][a-z0-9_]*)\s*=\s*([0-9]{1,4})\s*", part)
        if match is None or int(match[2]) < 1 or match[1] in kept:
            raise ValueError("months by table such as visits=84 or invoices=36,visits=84")
        kept[match[1]] = int(match[2])
    return kept


def whole(text: str) -> int:
    """Reads a whole number; whether it is large enough is for the caller to say.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError("a whole number of at least 1")
    return int(text)


def milliseconds(text: str) -> int:
    """Reads a time with its unit, as milliseconds.

    Raises:
        ValueError: It is none.
    """
    if (ms := _duration(text)) is None:
        raise ValueError("a time with its unit such as 200ms or 2s")
    return ms


def seconds(text: str, example: str = "2s or 500ms") -> float:
    """Reads a time from a millisecond to an hour, as seconds.

    Args:
        text: The time with its unit.
        example: What the message gives as examples.

    Raises:
        ValueError: It is none.
    """
    ms = _duration(text)
    if ms is None or not 1 <= ms <= _LONGEST_SECONDS * 1000:
        raise ValueError(f"a time from 1ms to an hour such as {example}")
    return ms / 1000


def seconds_or_off(text: str) -> float | None:
    """Reads a time as `seconds` does, and `off` as None.

    Raises:
        ValueError: It is neither.
    """
    return None if text == "off" else seconds(text, "10s, or off")


def sessions_or_off(text: str) -> int | None:
    """Reads a number of sessions, and `off` as None.

    Raises:
        ValueError: It is neither.
    """
    if text == "off":
        return None
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError("a number of sessions such as 20, or off")
    return int(text)


def bytes_or_off(text: str) -> int | None:
    """Reads an amount of WAL a second (`50MB`, with PostgreSQL's units) as bytes, and `off` as None.

    Raises:
        ValueError: It is neither.
    """
    if text == "off":
        return None
    match = re.fullmatch(r"([0-9]{1,9})\s*(kB|MB|GB)(?:/s)?", text)
    if match is None or int(match[1]) < 1:
        raise ValueError("an amount of WAL a second such as 50MB (kB, MB or GB), or off")
    return int(match[1]) * _UNITS_BYTES[match[2]]


def percent(text: str) -> float:
    """Reads `80%` or `0.5%` as a share, 0 to 1.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,3}(?:\.[0-9]{1,6})?)\s*%", text)
    if match is None or float(match[1]) > 100:
        raise ValueError("a share such as 80%")
    return float(match[1]) / 100


def span(text: str) -> float:
    """Reads a time with its unit, from `ms` to `d`, as seconds.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,3})?)\s*(ms|s|min|h|d)", text)
    if match is None:
        raise ValueError("a time with its unit such as 30s, 5min, 2h or 14d")
    return float(match[1]) * _UNITS_SECONDS[match[2]]


def size(text: str) -> int:
    """Reads a size with PostgreSQL's units (`500MB`) as bytes.

    Raises:
        ValueError: It is none.
    """
    match = re.fullmatch(r"([0-9]{1,9})\s*(kB|MB|GB|TB)", text)
    if match is None:
        raise ValueError("a size such as 500MB (kB, MB, GB or TB)")
    return int(match[1]) * _UNITS_LARGE[match[2]]


def count(text: str) -> int:
    """Reads a number from 0 on.

    Raises:
        ValueError: It is none.
    """
    if not re.fullmatch(r"[0-9]{1,18}", text):
        raise ValueError("a whole number from 0 on")
    return int(text)


def minor_releases(text: str) -> dict[int, int]:
    """Reads `15.20,18.6` as the newest minor release of each major version.

    Raises:
        ValueError: It is something else, or names a version twice.
    """
    newest: dict[int, int] = {}
    for part in text.split(","):
        match = re.fullmatch(r"\s*([0-9]{2})\.([0-9]{1,3})\s*", part)
        if match is None or int(match[1]) in newest:
            raise ValueError("releases of PostgreSQL such as 15.20,18.6")
        newest[int(match[1])] = int(match[2])
    return newest


def on_or_off(text: str) -> bool:
    """Reads `on` or `off`.

    Raises:
        ValueError: It is neither.
    """
    if text not in ("on", "off"):
        raise ValueError("on or off")
    return text == "on"


def _duration(text: str) -> int | None:
    """Returns milliseconds, or None where the text is no time with its unit."""
    match = re.fullmatch(r"([0-9]{1,12})\s*(ms|s|min)", text)
    return None if match is None else int(match[1]) * _UNITS_MS[match[2]]
