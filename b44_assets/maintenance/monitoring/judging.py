"""How figures are compared with thresholds, and how they are written in messages."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from b44_assets.config.settings import Settings
from b44_assets.config.thresholds import Thresholds
from b44_assets.maintenance.monitoring.model import Derive, Earlier, Judge, Number, Reading, Seen, Verdict, not_measured

Say = Callable[[Number], str]


def at_most(figure: str, threshold: str, say: Say, what: str, remedy: str, *, absent: str | None = None) -> Judge:
    """A judge that wants a figure to be no more than a threshold.

    Args:
        figure: Of the whole.
        threshold: Its name.
        say: Writes a number of the kind.
        what: The figure in words, after which its value is put.
        remedy: What to do where it is more.
        absent: What to say where there is no such figure and nothing was unseen; None to say that it was not measured.
    """
    return _compared(figure, threshold, say, what, remedy, absent, lambda value, limit: value <= limit, "at most")


def at_least(figure: str, threshold: str, say: Say, what: str, remedy: str, *, absent: str | None = None) -> Judge:
    """As `at_most`, for a figure that is to be no less."""
    return _compared(figure, threshold, say, what, remedy, absent, lambda value, limit: value >= limit, "at least")


def _compared(
    figure: str,
    threshold: str,
    say: Say,
    what: str,
    remedy: str,
    absent: str | None,
    holds: Callable[[Number, Number], bool],
    bound: str,
) -> Judge:
    def judge(reading: Reading, settings: Settings) -> Verdict:
        value = reading.numbers.get(figure)
        if value is None:
            return lacking(reading, absent)
        limit = limit_of(settings, threshold)
        if limit is None:
            return Verdict(True, f"{what} {say(value)}; no limit is set")
        if holds(value, limit):
            return Verdict(True, f"{what} {say(value)}; {bound} {say(limit)} is wanted")
        return Verdict(False, f"{what} {say(value)}, and {bound} {say(limit)} is wanted ({threshold}): {remedy}")

    return judge


def lacking(reading: Reading, absent: str | None = None) -> Verdict:
    """The verdict where there is no figure: not measured where something was unseen, else what `absent` says.

    A figure that compares with an earlier measurement is not there at first, nor where counters have begun anew; nothing is
    wrong then, and nothing is known to be well.
    """
    if reading.unseen:
        return not_measured("; ".join(reading.unseen))
    if absent is None:
        return Verdict(True, "told from the next measurement on: there is none yet to compare with", measured=False)
    return Verdict(True, "; ".join((absent, *reading.notes)))


def whole(judge: Judge) -> Judge:
    """The same judge, for whom nothing is well where a part could not be seen."""

    def judged(reading: Reading, settings: Settings) -> Verdict:
        verdict = judge(reading, settings)
        return not_measured("; ".join(reading.unseen)) if verdict.passed and reading.unseen else verdict

    return judged


def share_of_increase(name: str, part: str, rest: str, *, fewest: Number, otherwise: float) -> Derive:
    """A further number: the share of one counter's increase in that of two.

    Args:
        name: Of the number, 0 to 1.
        part: The counter.
        rest: The other one.
        fewest: Of both together below which the share says nothing.
        otherwise: What is given then.
    """

    def derive(_: Seen, __: Earlier | None, increases: Mapping[str, Number], ___: float | None) -> Mapping[str, Number]:
        if part not in increases or rest not in increases:
            return {}
        both = increases[part] + increases[rest]
        return {name: increases[part] / both if both >= fewest else otherwise}

    return derive


def limit_of(settings: Settings, threshold: str) -> Number | None:
    """A threshold by its name; None where there is no limit."""
    assert threshold in Thresholds.model_fields, threshold
    return getattr(settings.thresholds, threshold)


def percent(share: Number) -> str:
    """A share, 0 to 1, in percent."""
    return f"{share * 100:.3g}%" if share < 0.999 or share >= 1 else f"{share * 100:.2f}%"


def span(seconds: Number) -> str:
    """A time in its largest fitting unit."""
    for size, unit in ((86400, "days"), (3600, "hours"), (60, "minutes")):
        if seconds >= 2 * size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


def size(number: Number) -> str:
    """Bytes in their largest fitting unit."""
    for unit, name in ((1024**4, "TB"), (1024**3, "GB"), (1024**2, "MB"), (1024, "kB")):
        if abs(number) >= unit:
            return f"{number / unit:.3g} {name}"
    return f"{number:.0f} bytes"


def count(number: Number) -> str:
    """A number with its thousands told apart."""
    return f"{number:,.0f}"
