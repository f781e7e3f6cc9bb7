"""What must become of every record of a sample, counted while the sample is made."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import chain
from typing import Any, TypeAlias

# More records than this, and only the values of the first ones are kept.
VALUES_LIMIT = 50_000
VALUES_KEPT = 1_000

# Target column to value for one record; `category` and `user` are Base44 ids.
Expected: TypeAlias = dict[str, Any]


@dataclass
class Tally:
    """What became of one entity's records; `read` is always the sum of the other three.

    Attributes:
        read: Records in the export.
        migrated: Records that end up in the target.
        deduplicated: Exact repeats of another record.
        quarantined: Records that are refused.
        reasons: How often each reason for refusing applies; a record may have several.
        repairs: How often a value of each column was changed in a migrated record.
    """

    read: int = 0
    migrated: int = 0
    deduplicated: int = 0
    quarantined: int = 0
    reasons: Counter[str] = field(default_factory=Counter[str])
    repairs: Counter[str] = field(default_factory=Counter[str])

    def keep(self, repairs: Iterable[str] = ()) -> None:
        """Counts a record that is migrated, with the columns repaired in it."""
        self.read += 1
        self.migrated += 1
        self.repairs.update(repairs)

    def refuse(self, reasons: Iterable[str]) -> None:
        """Counts a record that is quarantined for these reasons."""
        self.read += 1
        self.quarantined += 1
        self.reasons.update(reasons)

    def repeat(self) -> None:
        """Counts a record that says again what another one says."""
        self.read += 1
        self.deduplicated += 1


class Truth:
    """The truth about one sample."""

    def __init__(self, dialect: str, sizes: dict[str, int]) -> None:
        """Starts with nothing counted.

        Args:
            dialect: The dialect of the export, which decides how precise its times are.
            sizes: Kind of values (`users`, `categories`, `posts`) to about how many records it will have.
        """
        self._whole_seconds = dialect == "spreadsheet"
        self.tallies: dict[str, Tally] = {}
        self.posts_by_month: Counter[str] = Counter()
        self._room = {kind: VALUES_KEPT if size > VALUES_LIMIT else size for kind, size in sizes.items()}
        self._values: dict[str, dict[str, Expected]] = {kind: {} for kind in sizes if kind != "posts"}
        # A post's values never change once it is written, and as text they take a third of the memory.
        self._post_lines: list[str] = []

    def tally(self, entity: str) -> Tally:
        """The counts of an entity, by its Base44 name."""
        return self.tallies.setdefault(entity, Tally())

    def time(self, exported: str) -> str:
        """What a time in Base44's own form means, with as much of its fraction as the dialect keeps."""
        return (exported[:19] if self._whole_seconds else exported) + "+00:00"

    def expect(self, kind: str, base44_id: str, expected: Expected) -> None:
        """Keeps the values of a migrated record, as long as there is room for its kind."""
        if self._room[kind] == 0:
            return
        self._room[kind] -= 1
        if kind == "posts":
            self._post_lines.append(_line(base44_id, expected))
        else:
            self._values[kind][base44_id] = expected

    def lines(self) -> Iterable[str]:
        """The text of `truth.json`, a piece at a time: counts first, then a line for each record's values."""
        entities = {entity: vars(tally) for entity, tally in self.tallies.items()}
        yield f'{{\n "entities": {_indented(entities)},\n'
        yield f' "posts_by_month": {_indented(dict(sorted(self.posts_by_month.items())))},\n'
        yield ' "values": {\n'
        for kind, values in self._values.items():
            yield from _block(kind, [_line(*item) for item in values.items()])
            yield ",\n"
        yield from _block("posts", self._post_lines)
        yield "\n }\n}\n"


def _indented(counts: dict[str, Any]) -> str:
    return json.dumps(counts, indent=1).replace("\n", "\n ")


def _block(kind: str, lines: list[str]) -> Iterable[str]:
    yield f'  "{kind}": {{'
    yield from chain.from_iterable((",\n" if number else "\n", line) for number, line in enumerate(lines))
    yield "\n  }"


def _line(base44_id: str, expected: Expected) -> str:
    return f"   {json.dumps(base44_id)}: {json.dumps(expected, ensure_ascii=False)}"
