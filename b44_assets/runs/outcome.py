"""What a run came to: its checks, its faults, and what became of the records."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from b44_assets.errors import B44Error
from b44_assets.migration.verdict import Records, Verdict
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.migration.accounts import EntityAccount
    from b44_assets.migration.replays import Replay
    from b44_assets.session import Session

_MOST_WARNINGS = 20
"""Warnings of checks that are printed one by one."""


@dataclass(frozen=True)
class CheckOutcome:
    """A check of a run: what it is about, its name, `passed`, `warning` or `failed`, and what it said."""

    asset: str
    name: str
    verdict: str
    said: str


def check_lines(checks: Sequence[CheckOutcome]) -> Iterator[str]:
    """What checks had to say, a line each; of many warnings the first ones, and how many there are besides."""
    shown = 0
    left: Counter[str] = Counter()
    for check in checks:
        if check.verdict == "warning":
            shown += 1
            if shown > _MOST_WARNINGS:
                # A check of rows has its table's name, and is one of a kind all the same.
                left[check.name.removeprefix(f"{check.asset}_")] += 1
                continue
        if check.verdict != "passed":
            yield f"{check.verdict}: {check.asset} {check.name}: {check.said}"
    if left:
        kinds = ", ".join(f"{count} {name}" for name, count in left.most_common())
        more = f"{left.total()} more {plural(left.total(), 'check')} warned"
        yield f"warning: {more} ({kinds}): b44 dev shows them all"


@dataclass
class Outcome:
    """What a run came to, as `--json` prints it.

    Attributes:
        entities: What became of the records, by table; empty once the migration's tables are gone.
        seconds: What the run took.
        pending: Records that wait for their batch, by table.
        unaccounted: Records of which nothing says what became of them, by table.
        partial: Whether only a part was asked for, so that records which wait elsewhere are no fault.
        unmapped: Entities without a table.
        checks: What each check has found.
        stages: What the run took, by what it did.
        records: The same records, added up; None once the migration's tables are gone.
        unchanged: Whether the run has moved nothing, and nothing was to be moved.
        listed: What was kept as it is, for a person to look at, counted by what one of it is called.
        dangling: Rows without the row that they point at, by table and foreign key; None where they were not counted.
        replay: What became of corrected records, where the run was a replay.
        more: What else a command has to say, as `--json` prints it.
    """

    entities: dict[str, dict[str, Any]]
    seconds: float
    pending: dict[str, int] = field(default_factory=dict[str, int])
    unaccounted: dict[str, int] = field(default_factory=dict[str, int])
    partial: bool = False
    unmapped: dict[str, dict[str, Any]] = field(default_factory=dict[str, dict[str, Any]])
    checks: tuple[CheckOutcome, ...] = ()
    stages: dict[str, float] = field(default_factory=dict[str, float])
    records: Records | None = None
    unchanged: bool = False
    listed: dict[str, int] = field(default_factory=dict[str, int])
    dangling: Mapping[tuple[str, str], int] | None = None
    replay: Replay | None = None
    more: dict[str, Any] = field(default_factory=dict[str, Any])

    def verdict(self, faults: Sequence[B44Error] = ()) -> Verdict:
        """The whole in one line.

        Args:
            faults: What ended the run early, or is in the way of what the command was to do.
        """
        by_verdict = Counter(check.verdict for check in self.checks)
        return Verdict(
            records=self.records,
            passed=by_verdict["passed"],
            warned=by_verdict["warning"],
            failed=tuple(f"{check.asset} {check.name}" for check in self.checks if check.verdict == "failed"),
            faults=tuple(str(fault) for fault in faults),
            unchanged=self.unchanged,
            listed=self.listed,
        )

    @property
    def incomplete(self) -> list[str]:
        """Why not every record is accounted for, a line for each table; empty where each is."""
        return [
            *(
                f"{table}: {count:,} of the records read {plural(count, 'is', 'are')} neither migrated nor refused,"
                " and nothing says why"
                for table, count in self.unaccounted.items()
            ),
            *(
                f"{table}: {count:,} {plural(count, 'record is', 'records are')} still to be migrated: run b44 migrate"
                for table, count in self.pending.items()
            ),
        ]

    def facts(self, faults: Sequence[B44Error] = ()) -> dict[str, Any]:
        """The same as `--json` prints it.

        Args:
            faults: As of `verdict`.
        """
        verdict = self.verdict(faults)
        return {
            **verdict.facts(),
            "entities": self.entities,
            "unmapped": self.unmapped,
            "checks": {"passed": verdict.passed, "warned": verdict.warned, "failed": len(verdict.failed)},
            "seconds": round(self.seconds, 3),
            **({} if self.replay is None else {"replay": self.replay.facts()}),
            **self.more,
        }


def accounts_by_table(found: tuple[EntityAccount, ...]) -> dict[str, dict[str, Any]]:
    """The accounts as `--json` prints them."""
    return {
        account.entity: {
            "read": account.read,
            "migrated": account.migrated,
            "deduplicated": account.deduplicated,
            "quarantined": account.quarantined,
            "reasons": account.reasons,
            "repairs": account.repairs,
        }
        for account in found
    }


def unmapped_entities_of(session: Session) -> dict[str, dict[str, Any]]:
    """The exported entities without a table, as `--json` prints them."""
    from b44_assets.migration.unmapped_entities import unmapped_entities

    return {one.entity: {"read": one.records, "file": one.file} for one in unmapped_entities(session)}
