"""What a measurement gives: figures with stable names, rows by object, what could not be seen, and verdicts on them.

A figure whose name ends in `_total` only grows, until the server forgets it; `Reading` says by how much it has grown since the
measurement before. Shares are named `_ratio` (0 to 1), times `_seconds`, sizes `_bytes`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import TypeAlias

from b44_assets.config.settings import Settings

Number: TypeAlias = int | float

COUNTER = "_total"
EPOCHS = ("counted_since", "started_at")
"""Figures, as seconds since 1970, that change where counters begin anew: a reset of the statistics, a restart."""


class Interval(StrEnum):
    """How often something is measured."""

    ROUND = "monitoring"
    """With all that costs little."""
    DAILY = "monitoring_daily"
    """What reads more, or changes seldom."""


@dataclass(frozen=True)
class Figure:
    """A number with a name of its own, such as `b44_connections_used`, and the object it belongs to."""

    name: str
    value: Number
    labels: Mapping[str, str] = field(default_factory=dict[str, str])


@dataclass(frozen=True)
class Row:
    """The numbers of one object, and the words that tell which."""

    labels: Mapping[str, str]
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Seen:
    """What was looked at, before it is compared with the measurement before.

    Attributes:
        numbers: Of the whole.
        rows: By part, of single objects; the worst first.
        unseen: What could not be seen, and what it takes to see it, a line each.
        notes: What one should know of the numbers, a line each; nothing is wrong with it.
    """

    numbers: Mapping[str, Number] = field(default_factory=dict[str, Number])
    rows: Mapping[str, tuple[Row, ...]] = field(default_factory=dict[str, tuple[Row, ...]])
    unseen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()


@dataclass(frozen=True)
class Earlier:
    """The numbers of the measurement before, and when it was made (UTC)."""

    at: datetime
    numbers: Mapping[str, Number]


@dataclass(frozen=True)
class Reading:
    """A measurement as it was made.

    Attributes:
        measurement: Its name.
        at: When (UTC).
        numbers: Of the whole: those that were seen, `_per_second` of each counter, and what was derived from them.
        rows: As of `Seen`.
        unseen: As of `Seen`.
        notes: As of `Seen`.
        increases: By how much each counter has grown since the measurement before; none where there was none, or where
            counters have begun anew meanwhile.
        seconds: Since the measurement before; None where there was none.
        plotted: Numbers of single objects, which stand in `rows`, as numbers of their own.
    """

    measurement: str
    at: datetime
    numbers: Mapping[str, Number]
    rows: Mapping[str, tuple[Row, ...]]
    unseen: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    increases: Mapping[str, Number] = field(default_factory=dict[str, Number])
    seconds: float | None = None
    plotted: Mapping[str, Number] = field(default_factory=dict[str, Number])

    def figures(self) -> Iterator[Figure]:
        """All of its numbers, with their stable names."""
        for name, value in self.numbers.items():
            yield Figure(f"b44_{self.measurement}_{name}", value)
        for part, rows in self.rows.items():
            for row in rows:
                for name, value in row.numbers.items():
                    yield Figure(f"b44_each_{part}_{name}", value, row.labels)


@dataclass(frozen=True)
class Verdict:
    """What a check says.

    Attributes:
        passed: Whether all is well.
        text: In one line what was found and, where it is not well, what to do.
        measured: False where it could not be seen, or there is nothing yet to compare with; nothing is known to be wrong then.
    """

    passed: bool
    text: str
    measured: bool = True

    def message(self) -> str:
        """The line."""
        return self.text


def not_measured(text: str) -> Verdict:
    """The verdict on what could not be seen."""
    return Verdict(False, f"not measured: {text}", measured=False)


Judge: TypeAlias = Callable[[Reading, Settings], Verdict]


@dataclass(frozen=True)
class Check:
    """A question to what was measured.

    Attributes:
        name: Of the check.
        meaning: What its passing means.
        judge: Answers it; the settings have the thresholds.
        warns: Whether failing is a warning only.
    """

    name: str
    meaning: str
    judge: Judge
    warns: bool = False

    def warns_of(self, verdict: Verdict) -> bool:
        """Whether a verdict that has not passed is a warning: nothing is known to be wrong where it was not measured."""
        return self.warns or not verdict.measured


Derive: TypeAlias = Callable[[Seen, "Earlier | None", Mapping[str, Number], float | None], Mapping[str, Number]]
"""Further numbers, of what was seen, the numbers before, the increases of the counters and the seconds since then."""


@dataclass(frozen=True)
class Measurement:
    """Something that is measured.

    Attributes:
        name: Stands in the names of its asset and its figures.
        description: What is measured.
        files: The files of `sql/` that are read, without what tells variants apart. One whose columns are all numbers gives
            numbers of the whole; one that has a text among them gives a row an object, the worst first.
        checks: What is judged.
        look: Sees what is no matter of SQL, in addition; given the settings and what the server says of itself.
        derive: Further numbers.
        plots: Numbers of single objects as numbers of their own, since nothing else is plotted; outside they have labels.
        interval: How often.
        needs_table: A table or view of the program's own without which there is nothing to measure, which is no fault.
        of_tables: Whether it is of the app's tables, which the graph shows upstream of it then; or of the server alone.
        replica: Whether its files read the tables themselves, which the read replica has as well, where the settings name one.
    """

    name: str
    description: str
    files: Sequence[str]
    checks: Sequence[Check] = ()
    look: Callable[[Server, Seen, Settings], Seen] | None = None
    derive: Derive | None = None
    plots: Callable[[Seen], Mapping[str, Number]] | None = None
    interval: Interval = Interval.ROUND
    needs_table: str | None = None
    of_tables: bool = False
    replica: bool = False


@dataclass(frozen=True)
class Server:
    """What a server says of itself to the role that asks.

    Attributes:
        version: As `server_version_num`.
        role: Who asks.
        monitors: Whether it sees statistics of all sessions (pg_read_all_stats, part of pg_monitor).
        reads_settings: Whether it sees all settings (pg_read_all_settings, likewise).
        extensions: That are installed and can be used, with their schema.
        local: Whether it is on this machine, as far as its address tells.
        data_directory: Where its files are; None where that is not shown.
    """

    version: int
    role: str
    monitors: bool
    reads_settings: bool
    extensions: Mapping[str, str]
    local: bool
    data_directory: str | None

    @property
    def major(self) -> int:
        """15 to 18."""
        return self.version // 10_000
