"""What a migration has come to, in one line: how many records of how many, what is left, which checks failed, and one word.

What belongs here: adding up, and saying it. What does not: reading any of it from the database; see `accounts`.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, field
from enum import StrEnum
from typing import TYPE_CHECKING, Any

from b44_assets.wording import plural, some_of

if TYPE_CHECKING:
    from b44_assets.migration.accounts import EntityAccount

_NAMED = 3
"""How many failed checks the line names."""


class Conclusion(StrEnum):
    """The word that a verdict ends with. There are no others."""

    COMPLETE = "complete"
    """Every record is accounted for, none waits, and every blocking check passed. Some may be in quarantine."""
    INCOMPLETE = "incomplete"
    """Records wait for their batch, or some are not accounted for."""
    FAILED = "failed"
    """A blocking check failed, or something ended the run early."""
    UNVERIFIED = "unverified"
    """Every record is accounted for, and no check was asked."""
    EMPTY = "empty"
    """There was no record to migrate."""


@dataclass(frozen=True)
class Records:
    """The records of an export, all in all.

    Attributes:
        read: All of them: the sum of all others.
        migrated: In the tables.
        deduplicated: Equal to another one in every field.
        quarantined: Refused, with reasons.
        pending: Wait for their batch.
        unaccounted: Nothing says what became of them.
        without_table: Of entities that have no table, kept in `migration.unmapped`.
    """

    read: int
    migrated: int = 0
    deduplicated: int = 0
    quarantined: int = 0
    pending: int = 0
    unaccounted: int = 0
    without_table: int = 0

    @classmethod
    def of(cls, accounts: Iterable[EntityAccount], without_table: int = 0) -> Records:
        """Adds up the accounts of all tables, and records without one."""
        found = tuple(accounts)
        names = ("migrated", "deduplicated", "quarantined", "pending", "unaccounted")
        return cls(
            read=sum(one.read for one in found) + without_table,
            without_table=without_table,
            **{name: sum(getattr(one, name) for one in found) for name in names},
        )

    def message(self) -> str:
        """The records in one line that adds up."""
        parts = [f"{self.migrated:,} of {self.read:,} {plural(self.read, 'record')} migrated"]
        if self.deduplicated:
            parts.append(f"{self.deduplicated:,} {plural(self.deduplicated, 'repeat')} of others")
        parts.append(f"{self.quarantined:,} quarantined" + (" (b44 quarantine)" if self.quarantined else ""))
        if self.without_table:
            parts.append(f"{self.without_table:,} without a table (b44 init)")
        if self.unaccounted:
            parts.append(f"{self.unaccounted:,} not accounted for")
        parts.append(f"{self.pending:,} pending" + (" (b44 migrate)" if self.pending else ""))
        return ", ".join(parts)


@dataclass(frozen=True)
class Verdict:
    """What a migration, or its verification, has come to.

    Attributes:
        records: What became of the records; None once the migration is over and its tables are gone.
        passed: Checks that passed.
        warned: Checks that warn, and block nothing.
        failed: The blocking checks that failed: asset and name of each.
        faults: What ended the run early, or is in the way of a cut-over, a line each.
        unchanged: Whether the run has moved nothing, and nothing was left to be moved.
        listed: What was found and kept as it is, for a person to look at: how many, by what they are called in the singular.
    """

    records: Records | None
    passed: int = 0
    warned: int = 0
    failed: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    unchanged: bool = False
    listed: Mapping[str, int] = field(default_factory=dict[str, int])

    @property
    def conclusion(self) -> Conclusion:
        """The one word."""
        if self.failed or self.faults:
            return Conclusion.FAILED
        if self.records is not None and (self.records.pending or self.records.unaccounted):
            return Conclusion.INCOMPLETE
        if self.records is not None and not self.records.read:
            return Conclusion.EMPTY
        if not (self.passed or self.warned):
            return Conclusion.UNVERIFIED
        return Conclusion.COMPLETE

    @property
    def holds(self) -> bool:
        """Whether a command that has come to this succeeded."""
        return self.conclusion in (Conclusion.COMPLETE, Conclusion.EMPTY)

    def message(self) -> str:
        """The verdict in one line, which ends with its word."""
        # What ended before it began has no records to speak of.
        told = self.records is not None and not (self.faults and not self.records.read)
        parts = [self.records.message()] if told and self.records is not None else []
        if self.unchanged and parts:
            parts[0] = f"nothing new: {parts[0]}"
        answered = self.passed or self.warned or self.failed
        checks = [f"{self.passed:,} {plural(self.passed, 'check')} passed"] if answered else []
        if self.warned:
            checks.append(f"{self.warned:,} warned")
        if self.failed:
            checks.append(f"{len(self.failed):,} failed ({some_of(self.failed, _NAMED)})")
        if checks or not self.faults:
            parts.append(", ".join(checks) or "no check was asked")
        if found := [f"{count:,} {plural(count, name)} listed" for name, count in self.listed.items() if count]:
            parts.append(", ".join(found))
        parts += self.faults[:1]
        return f"{'; '.join(parts)}: {self.conclusion}"

    def facts(self) -> dict[str, Any]:
        """The verdict as `--json` prints it beside what else a command has to say."""
        records = dict.fromkeys(asdict(Records(0))) if self.records is None else asdict(self.records)
        return {
            "verdict": str(self.conclusion),
            "message": self.message(),
            **records,
            "failed": list(self.failed),
            "faults": list(self.faults),
            "unchanged": self.unchanged,
            "listed": dict(self.listed),
        }
