"""What every domain's definitions share: keys, the spec of a SQL file's asset, tags of runs, and how a check answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import dagster as dg

from b44_assets.catalog import Catalog, Spec
from b44_assets.config.settings import Settings
from b44_assets.config.stages import CHECKS
from b44_assets.migration.finish import CheckResult, note_checks
from b44_assets.migration.readable import remedied, require_checks
from b44_assets.orchestration.metadata import Metadata, code_reference
from b44_assets.session import Session, concurrently, with_retry

OWNERS = ["team:database"]
EXPORT_GROUP = "exports"

LOAD_TAGS = {"b44/work": "load"}
"""Of runs that move records; `dagster.yaml` says how many of them may be under way."""
MAINTENANCE_TAGS = {"b44/work": "maintenance"}
BACKUP_TAGS = {"b44/work": "backup"}
EXECUTOR = dg.in_process_executor
"""Of every job: the database does the work; a process for each step would cost seconds a step."""
VERIFY_JOB = "verify"
"""Every check of what is in the database; the only one that reads from a standby, where one is named, as no load does."""
VERIFY_ANEW_TAG = "b44/verify_anew"
"""On a run that is to compare every row with its record, whatever was verified before."""
ALERTS_ON_WARNING = "b44/alerts_on_warning"
"""On a check's spec: it holds a figure against a threshold, and whoever is to be told of failing checks hears of a warning, too."""
CODE_LOCATION_TAGS = {".dagster/repository": "__repository__@b44_assets"}
"""Of runs that no code location has launched: by these the UI shows them in the timeline and on the page of their job."""


@dataclass(frozen=True)
class Location:
    """What the definitions are made from.

    Attributes:
        settings: From the environment.
        catalog: The SQL files of the app.
        months: Partitions of the tables that are loaded by month.
    """

    settings: Settings
    catalog: Catalog
    months: dg.MonthlyPartitionsDefinition


def key_of(name: str) -> dg.AssetKey:
    """The asset of an object of the app."""
    return dg.AssetKey(name.split("/"))


def export_key(table: str) -> dg.AssetKey:
    """The staged export of a table."""
    return dg.AssetKey(["base44", table])


def spec_of(spec: Spec, **more: Any) -> Any:
    """The arguments of the asset that a SQL file makes; `more` adds to them, or stands in their place."""
    return {
        "key": key_of(spec.name),
        "deps": [key_of(name) for name in dict.fromkeys((*spec.depends, *spec.options.get("on", "").split()))],
        "description": spec.description,
        "group_name": spec.kind.value,
        "kinds": {"postgres", "sql"},
        "owners": OWNERS,
        "code_version": spec.digest[:16],
        "metadata": code_reference(spec),
        **more,
    }


class Verdict(Protocol):
    """What a check of the engine returns."""

    @property
    def passed(self) -> bool:
        """Whether all is well."""
        ...

    def message(self) -> str:
        """One line."""
        ...


@dataclass(frozen=True)
class Answer:
    """What a check says.

    Attributes:
        passed: Whether all is well.
        message: In one line what was found and, where it is not well, what to do.
        metadata: Its numbers.
        warns: Whether failing is a warning only.
    """

    passed: bool
    message: str
    metadata: Mapping[str, Any] = field(default_factory=dict[str, Any])
    warns: bool = False

    @classmethod
    def of(cls, verdict: Verdict, metadata: Metadata, *, warns: bool = False) -> Answer:
        """The verdict of the engine as an answer."""
        return cls(verdict.passed, verdict.message(), metadata, warns)

    def result(self, asset: dg.AssetKey, name: str) -> dg.AssetCheckResult:
        """The answer as Dagster's."""
        return dg.AssetCheckResult(
            asset_key=asset,
            check_name=name,
            passed=self.passed,
            severity=dg.AssetCheckSeverity.WARN if self.warns else dg.AssetCheckSeverity.ERROR,
            description=self.message,
            metadata=dict(self.metadata),
        )

    def noted(self, asset: dg.AssetKey, name: str) -> CheckResult:
        """The answer as the database keeps it for `b44 finish`."""
        outcome = "passed" if self.passed else "warning" if self.warns else "failed"
        return CheckResult(asset.to_user_string(), name, outcome, self.message)


def _asked(session: Session, ask: Callable[[], Answer]) -> Answer:
    with remedied(session, require_checks):
        return with_retry(session, ask)


def answered(
    session: Session, questions: Sequence[tuple[dg.AssetCheckKey, Callable[[], Answer]]]
) -> Iterator[dg.AssetCheckResult]:
    """Yields the results of checks in their order, several looked into at a time, and notes them in the database.

    Args:
        session: The run.
        questions: Each check with what answers it.
    """
    answers = concurrently(session, [partial(_asked, session, ask) for _, ask in questions])
    noted: list[CheckResult] = []
    for (key, _), answer in zip(questions, answers, strict=True):
        session.progress(CHECKS, len(noted) + 1, len(questions))
        noted.append(answer.noted(key.asset_key, key.name))
        yield answer.result(key.asset_key, key.name)
    note_checks(session, noted)
