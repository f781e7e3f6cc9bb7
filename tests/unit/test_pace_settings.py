"""Sizes of batches and the rests between them, with a clock that goes by itself only where somebody sleeps."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import cast

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.config.quantities import Pace, Pause
from b44_assets.migration.throttling import Pacer
from b44_assets.session import Connection

UNLIMITED = Pace(max_replication_lag=None, max_lock_queue=None)
NO_CONNECTION = cast(Connection, None)
"""Without a limit nothing is asked."""


@dataclass
class Clock:
    now: float = 1000.0
    naps: list[float] = field(default_factory=list[float])

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)
        self.now += seconds


def never() -> bool:
    return False


def pacer(pace: Pace, clock: Clock | None = None) -> Pacer:
    clock = clock or Clock()
    return Pacer(pace, clock=clock, sleep=clock.sleep)


# -- sizes -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pace", "size"),
    [
        (Pace(), 20_000),
        (Pace(batch_size=1000), 1000),
        (Pace(batch_size=7), 7),
        (Pace(target_seconds=0.1), 1000),
        (Pace(target_seconds=0.001), 25),
        (Pace(target_seconds=0.001, batch_size=7), 7),
    ],
)
def test_the_first_batch_is_what_a_usual_server_does_in_the_time(pace: Pace, size: int) -> None:
    assert pacer(pace).size == size


@pytest.mark.parametrize(
    ("seconds", "size"), [(0.1, 1000), (0.08, 1250), (0.125, 800), (0.01, 2000), (0.0, 2000), (5.0, 500)]
)
def test_the_size_adapts_to_the_target_and_at_most_halves_or_doubles(seconds: float, size: int) -> None:
    stream = pacer(Pace(target_seconds=0.1))

    stream.done(1000, seconds)

    assert stream.size == size


def test_a_short_batch_is_no_reason_for_another_size_unless_it_was_slow() -> None:
    stream = pacer(Pace(target_seconds=0.1))

    stream.done(5, 0.02)
    assert stream.size == 1000
    stream.done(5, 0.0001)
    assert stream.size == 1000
    stream.done(800, 0.2)
    assert stream.size == 500


@given(rate=st.floats(2_000, 100_000), target=st.floats(0.1, 2))
def test_on_a_steady_server_batches_take_what_they_should(rate: float, target: float) -> None:
    stream = pacer(Pace(batch_size=10**6, target_seconds=target))

    for _ in range(10):
        stream.done(stream.size, stream.size / rate)

    assert stream.size / rate == pytest.approx(target, rel=0.01)


@given(
    batch_size=st.integers(1, 10**6),
    target=st.floats(0.001, 3600),
    batches=st.lists(st.tuples(st.floats(0, 1), st.floats(0, allow_infinity=True, allow_nan=False)), max_size=20),
)
def test_whatever_batches_take_their_size_stays_within_bounds(
    batch_size: int, target: float, batches: list[tuple[float, float]]
) -> None:
    stream = pacer(Pace(batch_size=batch_size, target_seconds=target))

    for share, seconds in batches:
        before = stream.size
        stream.done(max(1, round(before * share)), seconds)
        assert min(25, batch_size) <= stream.size <= batch_size
        assert before / 2 - 1 <= stream.size <= before * 2 + 1


# -- rests -------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("pause", "rest"), [(Pause(), 0.0), (Pause(seconds=0.1), 0.1), (Pause(seconds=2), 2.0), (Pause(multiple=3), 1.2)]
)
def test_a_stream_rests_after_a_batch_and_not_before_the_first(pause: Pause, rest: float) -> None:
    clock = Clock()
    stream = pacer(replace(UNLIMITED, pause=pause), clock)

    stream.wait(NO_CONNECTION, stopped=never, told=pytest.fail)
    assert clock.naps == []

    stream.done(1000, 0.4)
    stream.wait(NO_CONNECTION, stopped=never, told=pytest.fail)
    assert sum(clock.naps) == pytest.approx(rest)

    clock.naps.clear()
    stream.wait(NO_CONNECTION, stopped=never, told=pytest.fail)
    assert clock.naps == []


def test_other_work_of_a_stream_is_rested_from_likewise_and_says_nothing_of_batches() -> None:
    clock = Clock()
    stream = pacer(replace(UNLIMITED, pause=Pause(multiple=3)), clock)
    size = stream.size

    stream.worked(0.4)
    stream.wait(NO_CONNECTION, stopped=never, told=pytest.fail)

    assert sum(clock.naps) == pytest.approx(1.2)
    assert stream.size == size


def test_a_load_that_is_stopped_rests_no_longer() -> None:
    clock = Clock()
    stream = pacer(replace(UNLIMITED, pause=Pause(seconds=3600)), clock)
    stream.done(1000, 0.4)

    stream.wait(NO_CONNECTION, stopped=lambda: clock.now > 1001, told=pytest.fail)

    assert 1 <= sum(clock.naps) <= 1.5
