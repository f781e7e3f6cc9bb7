"""Telling of failed runs: the sensor that finds out, and what it says."""

import dagster as dg

from b44_assets.config.settings import Settings
from b44_assets.orchestration.alerts.delivery import Alert, channels, send
from b44_assets.orchestration.partitions import RANGE_END, RANGE_START
from b44_assets.orchestration.resources import Migration


def run_failures_sensor(settings: Settings) -> dg.SensorDefinition:
    """Makes the sensor that tells of failed runs; it is on where there is somebody to tell."""
    configured = bool(channels(settings))

    @dg.run_failure_sensor(
        name="run_failures",
        description="Tells of every failed run by the webhook B44_ALERT_WEBHOOK, by e-mail to B44_ALERT_EMAIL, or both.",
        minimum_interval_seconds=30,
        # Runs that a command executes by itself belong to no code location.
        monitor_all_code_locations=True,
        default_status=dg.DefaultSensorStatus.RUNNING if configured else dg.DefaultSensorStatus.STOPPED,
    )
    def run_failures(
        context: dg.RunFailureSensorContext, migration: dg.ResourceParam[Migration]
    ) -> dg.SkipReason | None:
        if not configured:
            return dg.SkipReason("neither B44_ALERT_WEBHOOK nor B44_ALERT_EMAIL is set")
        if context.dagster_run.status is dg.DagsterRunStatus.CANCELED:
            return dg.SkipReason("whoever ran the command has interrupted it")
        send(alert_of(context), migration.settings)
        return None

    return run_failures


def alert_of(context: dg.RunFailureSensorContext) -> Alert:
    """What is said of a failed run."""
    run = context.dagster_run
    steps: dict[str, str] = {}
    for event in context.get_step_failure_events():
        error = event.step_failure_data.error
        cause = error.cause or error if error is not None else None
        steps[event.step_key or ""] = _one_line(cause.message if cause is not None else "no reason was noted")
    first, last = run.tags.get(RANGE_START), run.tags.get(RANGE_END)
    months = run.tags.get("dagster/partition") or (first if first == last else f"{first} to {last}")
    job = "a run from the graph" if run.job_name.startswith("__") else run.job_name
    reason = _one_line(context.failure_event.message or "")
    subject = f"b44: run of {job} failed" + (f" ({months})" if months else "")
    lines = [f"{subject}: {reason}", "", *(f"{step}: {why}" for step, why in steps.items()), "", f"Run {run.run_id}"]
    return Alert(
        subject,
        "\n".join(lines),
        {"run_id": run.run_id, "job": job, "months": months, "reason": reason, "steps": steps},
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())
