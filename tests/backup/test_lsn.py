from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup.lsn import (
    History,
    Segment,
    Stretch,
    history,
    lsn,
    newest_timeline,
    path,
    position,
    segments,
)

MB = 1024**2
positions = st.integers(0, 2**64 - 1)
sizes = st.integers(20, 30).map(lambda power: 2**power)
timelines = st.integers(1, 2**32 - 1)


@given(positions)
def test_a_position_is_read_as_it_is_written(at: int) -> None:
    assert position(lsn(at)) == at


@pytest.mark.parametrize(
    ("text", "at"), [("0/0", 0), ("0/3000028", 0x3000028), ("16/B374D848", 0x16B374D848), ("1/0", 2**32)]
)
def test_positions_are_those_of_the_server(text: str, at: int) -> None:
    assert (position(text), lsn(at)) == (at, text)


@pytest.mark.parametrize("text", ["", "0", "0/", "/0", "0/100000000", "x/1", "0/1 ", "-1/0"])
def test_what_is_no_position_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="is no LSN"):
        position(text)


@given(positions, timelines, sizes)
def test_a_segment_is_read_from_its_name(at: int, timeline: int, size: int) -> None:
    segment = Segment.holding(at, timeline, size)

    assert Segment.named(segment.name(size), size) == segment
    assert segment.number * size <= at < (segment.number + 1) * size


@given(st.lists(positions, min_size=2), sizes)
def test_names_sort_like_positions(ats: list[int], size: int) -> None:
    names = [Segment.holding(at, 1, size).name(size) for at in sorted(ats)]

    assert names == sorted(names)


@pytest.mark.parametrize(
    ("text", "size", "name"),
    [
        ("0/3000028", 16 * MB, "000000010000000000000003"),
        ("0/FFFFFFFF", 16 * MB, "0000000100000000000000FF"),
        ("1/0", 16 * MB, "000000010000000100000000"),
        ("1/0", MB, "000000010000000100000000"),
        ("0/FFFFFFFF", MB, "000000010000000000000FFF"),
        ("2/C0000000", 1024 * MB, "000000010000000200000003"),
    ],
)
def test_names_are_those_of_the_server(text: str, size: int, name: str) -> None:
    assert Segment.holding(position(text), 1, size).name(size) == name


def test_a_name_that_a_size_does_not_have_is_refused() -> None:
    assert Segment.named("000000010000000000000100", MB).number == 256
    for name in ("000000010000000000000100", "00000002.history", "00000001000000000000000g"):
        with pytest.raises(ValueError, match="is no name of a WAL segment"):
            Segment.named(name, 16 * MB)


def test_a_history_is_read_as_the_server_writes_it() -> None:
    text = "1\t0/5000098\tno recovery target specified\n\n# a remark\n2\t16/B374D848\tbefore 2026-11-26 15:15:00+00\n"

    assert history(text) == [(1, 0x5000098), (2, 0x16B374D848)]
    assert history("") == []
    with pytest.raises(ValueError, match="is no line"):
        history("1\tsomewhere\n")


# -- paths -------------------------------------------------------------------------------------------------------------

#  1 ----------- 50 ------------- (left at 50 for 2, at 80 for 4)
#                 2 ---- 70 ----- (left at 70 for 3)
KNOWN: dict[int, History] = {2: [(1, 50)], 3: [(1, 50), (2, 70)], 4: [(1, 80)]}


@pytest.mark.parametrize(
    ("start", "timeline", "target", "expected"),
    [
        (10, 1, 1, [Stretch(1, None)]),
        (10, 1, 3, [Stretch(1, 50), Stretch(2, 70), Stretch(3, None)]),
        (60, 2, 3, [Stretch(2, 70), Stretch(3, None)]),
        (60, 1, 4, [Stretch(1, 80), Stretch(4, None)]),
    ],
)
def test_a_path_leads_over_the_timelines_between(
    start: int, timeline: int, target: int, expected: list[Stretch]
) -> None:
    assert path(start, timeline, target, KNOWN) == expected


@pytest.mark.parametrize(("start", "timeline", "target"), [(60, 1, 3), (10, 2, 4), (10, 1, 5)])
def test_no_path_leads_to_a_timeline_that_was_begun_elsewhere(start: int, timeline: int, target: int) -> None:
    with pytest.raises(ValueError, match=f"timeline {target} does not go on from"):
        path(start, timeline, target, KNOWN)


@pytest.mark.parametrize(
    ("start", "timeline", "newest"), [(10, 1, 4), (81, 1, 1), (10, 2, 3), (71, 2, 2), (0, 3, 3), (0, 9, 9)]
)
def test_the_newest_timeline_is_one_that_goes_on_from_there(start: int, timeline: int, newest: int) -> None:
    assert newest_timeline(start, timeline, KNOWN) == newest


def test_a_segment_in_which_a_timeline_was_left_is_read_on_the_new_one() -> None:
    wanted = segments(25, [Stretch(1, 45), Stretch(2, 60), Stretch(3, None)], last=7, size=10)

    assert [(segment.timeline, segment.number) for segment in wanted] == [
        (1, 2),
        (1, 3),
        (2, 4),
        (2, 5),
        (3, 6),
        (3, 7),
    ]


@given(
    start=st.integers(0, 500),
    lengths=st.lists(st.integers(0, 120), max_size=4),
    size=st.integers(1, 40),
    last=st.integers(0, 60),
)
def test_every_segment_from_the_start_on_is_read_once(start: int, lengths: list[int], size: int, last: int) -> None:
    ends = [start + sum(lengths[: index + 1]) for index in range(len(lengths))]
    stretches = [*(Stretch(index + 1, end) for index, end in enumerate(ends)), Stretch(len(ends) + 1, None)]

    wanted = list(segments(start, stretches, last, size))

    assert [segment.number for segment in wanted] == list(range(start // size, last + 1))
    assert [segment.timeline for segment in wanted] == sorted(segment.timeline for segment in wanted)
