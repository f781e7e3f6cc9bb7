"""The arithmetic of the WAL: positions, segments, timelines."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

SEGMENT_NAME = re.compile(r"[0-9A-F]{24}")
HISTORY_NAME = re.compile(r"([0-9A-F]{8})\.history")
_LSN = re.compile(r"([0-9A-Fa-f]{1,8})/([0-9A-Fa-f]{1,8})")
_SWITCH = re.compile(r"\s*([0-9]+)\s+([0-9A-Fa-f]{1,8}/[0-9A-Fa-f]{1,8})(?:\s.*)?")
_4_GIB = 2**32

History = Sequence[tuple[int, int]]
"""Where a timeline comes from: each timeline before it, oldest first, with the position at which it was left."""


@dataclass(frozen=True, order=True)
class Segment:
    """A segment of the WAL.

    Attributes:
        number: Counted from the beginning of the WAL.
        timeline: Of which.
    """

    number: int
    timeline: int

    @classmethod
    def holding(cls, position: int, timeline: int, size: int) -> Segment:
        """Returns the segment in which a byte lies.

        Args:
            position: Of the byte.
            timeline: Of which.
            size: Of a segment, in bytes.
        """
        return cls(position // size, timeline)

    @classmethod
    def named(cls, name: str, size: int) -> Segment:
        """Returns the segment of a file's name; what follows the 24 digits (`.partial`, …) is not looked at.

        Args:
            name: `000000010000000000000003`.
            size: Of a segment, in bytes.

        Raises:
            ValueError: It is no such name, or there is no such segment of that size.
        """
        if SEGMENT_NAME.match(name) is None:
            raise ValueError(f"{name!r} is no name of a WAL segment")
        timeline, high, low = (int(name[at : at + 8], 16) for at in (0, 8, 16))
        if low >= _4_GIB // size:
            raise ValueError(f"{name!r} is no name of a WAL segment of {size} bytes")
        return cls(high * (_4_GIB // size) + low, timeline)

    def name(self, size: int) -> str:
        """Returns the name of its file.

        Args:
            size: Of a segment, in bytes.
        """
        high, low = divmod(self.number, _4_GIB // size)
        return f"{self.timeline:08X}{high:08X}{low:08X}"


@dataclass(frozen=True)
class Stretch:
    """A part of the WAL's path that lies on one timeline.

    Attributes:
        timeline: Which.
        end: The first position on it that belongs to the next one; None on the last.
    """

    timeline: int
    end: int | None


def position(lsn: str) -> int:
    """Returns the number of bytes before an LSN.

    Args:
        lsn: `0/3000028`.

    Raises:
        ValueError: It is none.
    """
    match = _LSN.fullmatch(lsn)
    if match is None:
        raise ValueError(f"{lsn!r} is no LSN such as 0/3000028")
    return int(match[1], 16) * _4_GIB + int(match[2], 16)


def lsn(position: int) -> str:
    """Returns a position as the server writes it.

    Args:
        position: The number of bytes before it.
    """
    return f"{position // _4_GIB:X}/{position % _4_GIB:X}"


def history(text: str) -> History:
    """Reads a timeline's history file.

    Raises:
        ValueError: It is none.
    """
    switches: list[tuple[int, int]] = []
    for line in text.splitlines():
        line = line.partition("#")[0]
        if line.strip():
            match = _SWITCH.fullmatch(line)
            if match is None:
                raise ValueError(f"{line!r} is no line of a timeline's history")
            switches.append((int(match[1]), position(match[2])))
    return switches


def newest_timeline(start: int, timeline: int, histories: Mapping[int, History]) -> int:
    """Returns the newest timeline that goes on from a position on another.

    Args:
        start: The position.
        timeline: On which it lies.
        histories: By timeline.
    """
    descendants = [
        newer for newer, switches in histories.items() if any(old == timeline and at >= start for old, at in switches)
    ]
    return max([timeline, *descendants])


def path(start: int, timeline: int, target: int, histories: Mapping[int, History]) -> list[Stretch]:
    """Returns how the WAL goes from a position on one timeline to another timeline.

    Args:
        start: The position.
        timeline: On which it lies.
        target: The timeline at the end.
        histories: By timeline.

    Raises:
        ValueError: The one does not come from the other after that position.
    """
    if target == timeline:
        return [Stretch(timeline, None)]
    switches = list(histories.get(target, ()))
    at = next((index for index, (old, end) in enumerate(switches) if old == timeline and end >= start), None)
    if at is None:
        raise ValueError(f"timeline {target} does not go on from {lsn(start)} on timeline {timeline}")
    return [*(Stretch(old, end) for old, end in switches[at:]), Stretch(target, None)]


def segments(start: int, stretches: Sequence[Stretch], last: int, size: int) -> Iterator[Segment]:
    """Gives the segments that a recovery reads, in its order.

    A segment in which a timeline was left is read on the new one, which begins with a copy of what was before.

    Args:
        start: The position of the first byte that is needed.
        stretches: As `path` gives them.
        last: The number of the last segment that is wanted.
        size: Of a segment, in bytes.
    """
    number = start // size
    for stretch in stretches:
        end = last + 1 if stretch.end is None else min(stretch.end // size, last + 1)
        while number < end:
            yield Segment(number, stretch.timeline)
            number += 1
