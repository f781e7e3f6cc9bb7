"""Telling people that a run failed: a webhook, an e-mail, or both.

What belongs here: composing and sending the message. What does not: deciding when; see `sensors`.
"""

from __future__ import annotations

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

from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error

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
