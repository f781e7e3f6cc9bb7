"""Telling of checks: once when one begins to fail, from whatever run, or a warning becomes an error, and once when it is well again.

What was told to whom stands in the instance, so that the sensor and the commands, which tell by themselves at the end of a run,
do not tell the same twice.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass

import dagster as dg
from dagster import DagsterInstance

from b44_assets.config.settings import Settings
from b44_assets.orchestration.alerts.delivery import Alert, AlertError, Channel, channels, send
from b44_assets.orchestration.common import ALERTS_ON_WARNING
from b44_assets.orchestration.resources import Migration
from b44_assets.postgres.embedded.accounts import locked


@dataclass(frozen=True)
class FailingCheck:
    """A check that fails.

    Attributes:
        name: Its asset and its own, as `backup/wal no_gap`.
        severity: `error` or `warning`.
        said: What was found and what to do, one line.
        run_id: The run that found it.
    """

    name: str
    severity: str
    said: str
    run_id: str

    def worse_than(self, told: str | None) -> bool:
        """Whether it has become worse since somebody was told that it fails, if ever, with that severity."""
        return told is None or (told, self.severity) == ("warning", "error")


@dataclass(frozen=True)
class CheckStates:
    """The checks that fail, by name, and the names of those that pass; one without an answer is neither."""

    failing: Mapping[str, FailingCheck]
    passing: frozenset[str]


def failing_checks_sensor(settings: Settings) -> dg.SensorDefinition:
    """Makes the sensor that tells of failing checks; it is on where there is somebody to tell."""
    configured = bool(channels(settings))

    @dg.sensor(
        name="failing_checks",
        description="Tells of every check that begins to fail, and when it is well again, from whatever run: by the webhook"
        " B44_ALERT_WEBHOOK, by e-mail to B44_ALERT_EMAIL, or both.",
        minimum_interval_seconds=30,
        default_status=dg.DefaultSensorStatus.RUNNING if configured else dg.DefaultSensorStatus.STOPPED,
    )
    def failing_checks(context: dg.SensorEvaluationContext, migration: dg.ResourceParam[Migration]) -> dg.SkipReason:
        if not configured:
            return dg.SkipReason("neither B44_ALERT_WEBHOOK nor B44_ALERT_EMAIL is set")
        assert context.repository_def is not None
        graph = context.repository_def.asset_graph
        specs = [graph.get_check_spec(key) for key in graph.asset_check_keys]
        told = tell_of_checks(context.instance, specs, migration.settings)
        return dg.SkipReason(told or "nothing has changed since the last alert")

    return failing_checks


def tell_of_checks(instance: DagsterInstance, specs: Iterable[dg.AssetCheckSpec], settings: Settings) -> str | None:
    """Tells whoever is to be told of checks that begin to fail, and of those that are well again.

    Args:
        instance: Where the checks were answered, and where it stands what was told.
        specs: The checks.
        settings: The addresses.

    Returns:
        What was told, one line; None where there was nothing to tell.

    Raises:
        AlertError: Somebody could not be reached, and will be told the next time.
    """
    if not channels(settings):
        return None
    faults: list[str] = []
    said: str | None = None
    specs = list(specs)
    names = {_name_of(spec.key) for spec in specs}
    settings.home.mkdir(parents=True, exist_ok=True)
    # A command and the daemon do not tell the same at once.
    with locked(settings.home / "alerts.lock", None):
        states = states_of_checks(instance, specs)
        for channel in channels(settings):
            told = _Told.read(instance, channel, settings)
            begun = [check for check in states.failing.values() if check.worse_than(told.failing.get(check.name))]
            well = sorted(name for name in told.failing if name in states.passing)
            # A check that is no more is forgotten.
            known = {name: severity for name, severity in told.failing.items() if name in names and name not in well}
            if begun or well:
                alert = alert_of_checks(begun, well)
                try:
                    send(alert, settings, [channel])
                except AlertError as error:
                    faults.append(str(error))
                    continue
                said = alert.subject
            told.write(instance, known | {name: one.severity for name, one in states.failing.items()})
    if faults:
        raise AlertError("; ".join(faults))
    return said


def states_of_checks(instance: DagsterInstance, specs: Iterable[dg.AssetCheckSpec]) -> CheckStates:
    """Reads how each check was last answered; a warning counts as failing where the check holds a figure against a threshold."""
    by_key = {spec.key: spec for spec in specs}
    failing: dict[str, FailingCheck] = {}
    passing: set[str] = set()
    for key, record in instance.event_log_storage.get_latest_asset_check_execution_by_key(list(by_key)).items():
        answer = record.evaluation
        if not isinstance(answer, dg.AssetCheckEvaluation):
            # Asked in a run that is under way, or that ended before it was answered.
            continue
        name = _name_of(key)
        warns = answer.severity is dg.AssetCheckSeverity.WARN
        if not answer.passed and (not warns or ALERTS_ON_WARNING in (by_key[key].metadata or {})):
            severity = "warning" if warns else "error"
            failing[name] = FailingCheck(name, severity, answer.description or "", record.run_id)
        else:
            passing.add(name)
    return CheckStates(failing, frozenset(passing))


def alert_of_checks(begun: Iterable[FailingCheck], well: Iterable[str]) -> Alert:
    """What is said of checks that have begun to fail, and of the names of those that are well again."""
    begun, well = sorted(begun, key=lambda check: (check.severity, check.name)), list(well)
    parts = [f"{_counted([check.name for check in begun], 'fails', 'fail')}"] if begun else []
    parts += [f"well again: {_counted(well)}"] if well else []
    subject = f"b44: {'; '.join(parts)}"
    lines = [subject, ""]
    lines += [f"{check.severity.upper()} {check.name}: {check.said} (run {check.run_id})" for check in begun]
    lines += [f"WELL AGAIN {name}" for name in well]
    return Alert(subject, "\n".join(lines), {"failing": [asdict(check) for check in begun], "well_again": well})


def _name_of(key: dg.AssetCheckKey) -> str:
    return f"{key.asset_key.to_user_string()} {key.name}"


def _counted(names: list[str], one: str = "", many: str = "") -> str:
    return f"{names[0]} {one}".rstrip() if len(names) == 1 else f"{len(names)} checks {many}".rstrip()


@dataclass(frozen=True)
class _Told:
    """The checks that somebody was told fail, by name, with their severity."""

    key: str
    to: str
    failing: Mapping[str, str]

    @classmethod
    def read(cls, instance: DagsterInstance, channel: Channel, settings: Settings) -> _Told:
        addresses = settings.alert_webhook if channel is Channel.WEBHOOK else ",".join(settings.alert_email)
        # Whoever is new is told of all that fails. The address itself may be a secret.
        to = hashlib.sha256((addresses or "").encode()).hexdigest()
        key = f"b44_assets/told_by_{channel.value}"
        noted = json.loads(instance.daemon_cursor_storage.get_cursor_values({key}).get(key, "{}"))
        failing = noted.get("failing", {}) if noted.get("to") == to else {}
        # Earlier versions noted names alone.
        return cls(key, to, failing if isinstance(failing, dict) else dict.fromkeys(failing, "error"))

    def write(self, instance: DagsterInstance, failing: Mapping[str, str]) -> None:
        if failing != self.failing:
            noted = json.dumps({"to": self.to, "failing": failing}, sort_keys=True)
            instance.daemon_cursor_storage.set_cursor_values({self.key: noted})
