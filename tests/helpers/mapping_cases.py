"""Cases of a mapping: one rule, one record."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest

from tests.helpers.records import Record
from tests.helpers.target import (
    Outcome,
    Row,
)


@dataclass(frozen=True)
class Case:
    """One record, what its rule says, and all that is to come of it.

    Attributes:
        says: The rule.
        fields: What the record has besides, or in place of, what makes it sound.
        row: Some columns of its row; not looked at where there are reasons.
        reasons: Why it is refused.
        repairs: `(column_name, original, replacement)`, each of them.
        unmapped: All that is kept besides the row.
    """

    says: str
    fields: Record
    row: Row = field(default_factory=dict[str, Any])
    reasons: tuple[str, ...] = ()
    repairs: tuple[tuple[str, str | None, str | None], ...] = ()
    unmapped: Mapping[str, str] = field(default_factory=dict[str, str])

    def check(self, outcome: Outcome, number: int, base44_id: str) -> None:
        """Compares with what came of it, as the record of this number and id."""
        assert outcome.reasons.get(number, []) == list(self.reasons)
        if self.reasons:
            return
        row = outcome.rows[base44_id]
        assert {name: row[name] for name in self.row} == self.row
        found = [(column, original, new) for column, _, original, new in outcome.repairs.get(base44_id, [])]
        assert found == sorted(self.repairs)
        assert outcome.unmapped.get(base44_id, {}) == self.unmapped


def refused(says: str, *reasons: str, **fields: object) -> Case:
    """A case whose record goes to quarantine."""
    return Case(says, fields, reasons=reasons)


def each(cases: Sequence[Case]) -> pytest.MarkDecorator:
    """Makes a test of each case, named after its rule."""
    assert len({case.says for case in cases}) == len(cases)
    return pytest.mark.parametrize("place", [pytest.param(place, id=case.says) for place, case in enumerate(cases)])
