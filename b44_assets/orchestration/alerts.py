"""Telling people that a run failed: the sensor that finds out, and the webhook and the e-mail that say so."""

import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass
from email.message import EmailMessage
from urllib.parse import unquote, urlsplit

import dagster as dg

from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error
from b44_assets.orchestration.partitions import RANGE_END, RANGE_START
from b44_assets.orchestration.resources import Migration

TIMEOUT_SECONDS = 10
ATTEMPTS = 3
HIDDEN = "•••"
_SHORTEST_SECRET = 4


class AlertError(B44Error):
    """An alert could not be delivered; says why without the address, which may hold a secret."""

    exit_status = 1


@dataclass(frozen=True)
class Alert:
    """A failed run.

    Attributes:
        run_id: Its id.
        job: Its job.
        reason: Why it failed, one line.
        steps: The steps that failed, with the reason of each.
        months: The months that it was for, as `2025-01` or `2025-01 to 2025-12`; None where it was for none.
    """

    run_id: str
    job: str
    reason: str
    steps: dict[str, str]
    months: str | None = None

    @property
    def subject(self) -> str:
        """One line."""
        return f"b44: run of {self.job} failed" + (f" ({self.months})" if self.months else "")

    @property
    def text(self) -> str:
        """All of it, for people."""
        lines = [f"{self.subject}: {self.reason}", "", *(f"{step}: {why}" for step, why in self.steps.items())]
        return "\n".join([*lines, "", f"Run {self.run_id}"])


def run_failures_sensor(settings: Settings) -> dg.SensorDefinition:
    """Makes the sensor that tells of failed runs; it is on where there is somebody to tell."""
    configured = settings.alert_webhook is not None or bool(settings.alert_email)

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
    return Alert(
        run_id=run.run_id,
        job="a run from the graph" if run.job_name.startswith("__") else run.job_name,
        reason=_one_line(context.failure_event.message or ""),
        steps=steps,
        months=months,
    )


def _one_line(text: str) -> str:
    return " ".join(text.split())


def send(alert: Alert, settings: Settings) -> None:
    """Delivers an alert by every way that is configured; each is tried, whatever became of the other.

    Raises:
        AlertError: It could not be delivered by one of them.
    """
    faults: list[str] = []
    for what, configured, deliver in (
        ("the webhook of B44_ALERT_WEBHOOK", settings.alert_webhook, _post),
        ("the mail server of B44_SMTP_URL", settings.alert_email, _mail),
    ):
        if not configured:
            continue
        try:
            _patiently(lambda deliver=deliver: deliver(alert, settings))
        except (OSError, smtplib.SMTPException) as error:
            faults.append(f"{what} cannot be reached or refuses: {_said(error, settings)}")
    if faults:
        raise AlertError("; ".join(faults))


def without_secrets(text: str, settings: Settings) -> str:
    """A text without any password or token that the settings hold; messages carry none, and this makes sure."""
    for url in (settings.database_url, settings.dagster_pg_url, settings.smtp_url):
        password = urlsplit(url).password if url else None
        for secret in {password, unquote(password)} if password else ():
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, HIDDEN)
    return text.replace(settings.alert_webhook, HIDDEN) if settings.alert_webhook else text


def _patiently(deliver: Callable[[], None]) -> None:
    """The last attempt's fault is the one that counts."""
    for attempt in range(1, ATTEMPTS):
        try:
            return deliver()
        except (OSError, smtplib.SMTPException):
            time.sleep(0.2 * 2**attempt)
    deliver()


def _post(alert: Alert, settings: Settings) -> None:
    assert settings.alert_webhook is not None
    body = {
        # What Slack and its likes show; the rest is for programs.
        "text": without_secrets(alert.text, settings),
        "run_id": alert.run_id,
        "job": alert.job,
        "months": alert.months,
        "reason": without_secrets(alert.reason, settings),
        "steps": {step: without_secrets(why, settings) for step, why in alert.steps.items()},
    }
    request = urllib.request.Request(  # http or https, as settings saw to
        settings.alert_webhook,
        data=json.dumps(body, ensure_ascii=False).encode(),
        headers={"Content-Type": "application/json; charset=utf-8", "User-Agent": "b44-assets"},
        method="POST",
    )
    with urllib.request.urlopen(request, timeout=TIMEOUT_SECONDS):
        pass


def _mail(alert: Alert, settings: Settings) -> None:
    assert settings.smtp_url is not None
    server = urlsplit(settings.smtp_url)
    message = EmailMessage()
    message["Subject"] = alert.subject
    message["From"] = settings.alert_from or settings.alert_email[0]
    message["To"] = ", ".join(settings.alert_email)
    message.set_content(without_secrets(alert.text, settings))
    host = server.hostname or "localhost"
    secured = ssl.create_default_context()
    with (
        smtplib.SMTP_SSL(host, server.port or 465, timeout=TIMEOUT_SECONDS, context=secured)
        if server.scheme == "smtps"
        else smtplib.SMTP(host, server.port or 25, timeout=TIMEOUT_SECONDS)
    ) as smtp:
        smtp.ehlo()
        if server.scheme == "smtp" and smtp.has_extn("starttls"):
            smtp.starttls(context=secured)
            smtp.ehlo()
        if server.username:
            smtp.login(unquote(server.username), unquote(server.password or ""))
        smtp.send_message(message)


def _said(error: Exception, settings: Settings) -> str:
    if isinstance(error, urllib.error.HTTPError):
        return f"HTTP {error.code}"
    return without_secrets(" ".join(str(error).split()) or type(error).__name__, settings)
