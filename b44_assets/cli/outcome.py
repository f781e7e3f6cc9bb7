"""What a run came to: as JSON, in the field's words, and as an exit status."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import click

from b44_assets.cli.options import with_origins
from b44_assets.cli.output import print_json, print_outcome
from b44_assets.cli.preconditions import check_export, with_resume_hint
from b44_assets.errors import B44Error, DatabaseError, nothing_has_a_table
from b44_assets.migration.verdict import Conclusion, Records, Verdict
from b44_assets.wording import plural

if TYPE_CHECKING:
    from b44_assets.config.settings import Settings
    from b44_assets.migration.replays import Replay


@dataclass(frozen=True)
class CheckOutcome:
    """A check of a run: what it is about, its name, `passed`, `warning` or `failed`, and what it said."""

    asset: str
    name: str
    verdict: str
    said: str


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
                f"{table}: {count:,} of the records read {_are(count)} neither migrated nor refused, and nothing says why"
                for table, count in self.unaccounted.items()
            ),
            *(
                f"{table}: {count:,} {plural(count, 'record')} {_are(count)} still to be migrated: run b44 migrate"
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


def _are(count: int) -> str:
    return "is" if count == 1 else "are"


def faults_of_run(settings: Settings, outcome: Outcome, faults: list[B44Error]) -> list[B44Error]:
    """The faults of a run, and that it moved nothing where the export has records, and none of them a table."""
    if settings.export_dir is None or faults or not outcome.unmapped:
        return faults
    if any(counts["read"] for counts in outcome.entities.values()):
        return faults
    records = sum(counts["read"] for counts in outcome.unmapped.values())
    if not records and check_export(settings.export_dir, settings):
        return faults  # files of tables, all of them without records
    by_entity = {entity: counts["read"] for entity, counts in outcome.unmapped.items()}
    return [nothing_has_a_table(settings.export_dir, settings.sql_dir, by_entity)]


def conclude(outcome: Outcome, faults: list[B44Error], *, as_json: bool) -> None:
    """Prints the outcome of a run, its faults, and its verdict as the last line; exits unless all is well.

    Raises:
        SystemExit: There are faults, a check failed, or records are not accounted for.
    """
    verdict = outcome.verdict(faults)
    if as_json:
        print_json(outcome.facts(faults))
    # One fault of the database fails many steps, and the first says why; others name a file or an entity each.
    for fault in [fault for fault in faults if not isinstance(fault, DatabaseError)] or faults[:1]:
        click.echo(f"b44: {with_origins(with_resume_hint(fault))}", err=True)
    if not faults:
        for line in outcome.incomplete:
            click.echo(f"b44: {line}", err=True)
    if not as_json:
        print_outcome(outcome, ended=bool(faults))
        click.echo(verdict.message())
    if faults:
        raise SystemExit(faults[0].exit_status)
    as_asked = outcome.partial and verdict.conclusion is Conclusion.INCOMPLETE and not outcome.incomplete
    if not verdict.holds and not as_asked:
        raise SystemExit(1)
