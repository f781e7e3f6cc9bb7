"""The end of a command that ran a job: what it prints of the outcome, and its exit status."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from b44_assets.cli.options import with_origins
from b44_assets.cli.output import print_json, print_outcome
from b44_assets.cli.terminal import print_line
from b44_assets.errors import B44Error, DatabaseError
from b44_assets.migration.verdict import Conclusion
from b44_assets.runs.preconditions import with_resume_hint

if TYPE_CHECKING:
    from b44_assets.runs.outcome import Outcome


def faults_to_tell(faults: Sequence[B44Error]) -> Sequence[B44Error]:
    """Those of a run's faults that say something of their own.

    One fault of the database fails many steps, and the first says why; others name a file or an entity each.
    """
    return [fault for fault in faults if not isinstance(fault, DatabaseError)] or faults[:1]


def conclude(outcome: Outcome, faults: list[B44Error], *, as_json: bool) -> None:
    """Prints the outcome of a run, its faults, and its verdict as the last line; exits unless all is well.

    Raises:
        SystemExit: There are faults, a check failed, or records are not accounted for.
    """
    verdict = outcome.verdict(faults)
    if as_json:
        print_json(outcome.facts(faults))
    for fault in faults_to_tell(faults):
        print_line(f"b44: {with_origins(with_resume_hint(fault))}", err=True)
    if not faults:
        for line in outcome.incomplete:
            print_line(f"b44: {line}", err=True)
    if not as_json:
        print_outcome(outcome, ended=bool(faults))
        print_line(verdict.message())
    if faults:
        raise SystemExit(faults[0].exit_status)
    as_asked = outcome.partial and verdict.conclusion is Conclusion.INCOMPLETE and not outcome.incomplete
    if not verdict.holds and not as_asked:
        raise SystemExit(1)
