"""The webhook and the e-mail by which people are told."""

from __future__ import annotations

import json
import smtplib
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from email.message import EmailMessage
from enum import StrEnum
from typing import Any
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


class Channel(StrEnum):
    """A way to tell people."""

    WEBHOOK = "webhook"
    EMAIL = "e-mail"


@dataclass(frozen=True)
class Alert:
    """What people are told.

    Attributes:
        subject: One line.
        text: All of it, for people.
        details: The same for programs, beside `text` in the JSON that the webhook gets.
    """

    subject: str
    text: str
    details: Mapping[str, Any] = field(default_factory=dict[str, Any])


def channels(settings: Settings) -> tuple[Channel, ...]:
    """The ways that are configured."""
    configured = {Channel.WEBHOOK: settings.alert_webhook, Channel.EMAIL: settings.alert_email}
    return tuple(channel for channel, address in configured.items() if address)


def send(alert: Alert, settings: Settings, by: Iterable[Channel] | None = None) -> None:
    """Delivers an alert; each way is tried, whatever became of the other.

    Args:
        alert: What to tell.
        settings: The addresses, and the secrets that no message may hold.
        by: The ways; by default all that are configured.

    Raises:
        AlertError: It could not be delivered by one of them.
    """
    faults: list[str] = []
    for channel in channels(settings) if by is None else by:
        what, deliver = _DELIVERIES[channel]
        try:
            _patiently(lambda deliver=deliver: deliver(alert, settings))
        except (OSError, smtplib.SMTPException) as error:
            faults.append(f"{what} cannot be reached or refuses: {_said(error, settings)}")
    if faults:
        raise AlertError("; ".join(faults))


def without_secrets(text: str, settings: Settings) -> str:
    """A text without any password or token that the settings hold; messages carry none, and this makes sure."""
    for url in (settings.database_url, settings.read_url, settings.dagster_pg_url, settings.smtp_url):
        password = urlsplit(url).password if url else None
        for secret in {password, unquote(password)} if password else ():
            if len(secret) >= _SHORTEST_SECRET:
                text = text.replace(secret, HIDDEN)
    return text.replace(settings.alert_webhook, HIDDEN) if settings.alert_webhook else text


def _without_secrets_in(value: Any, settings: Settings) -> Any:
    match value:
        case str():
            return without_secrets(value, settings)
        case Mapping():
            return {name: _without_secrets_in(one, settings) for name, one in value.items()}
        case list():
            return [_without_secrets_in(one, settings) for one in value]
        case _:
            return value


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
    # Slack and its likes show the text; the rest is for programs.
    body = _without_secrets_in({**alert.details, "text": alert.text}, settings)
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
    message["Subject"] = without_secrets(alert.subject, settings)
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


_DELIVERIES: Mapping[Channel, tuple[str, Callable[[Alert, Settings], None]]] = {
    Channel.WEBHOOK: ("the webhook of B44_ALERT_WEBHOOK", _post),
    Channel.EMAIL: ("the mail server of B44_SMTP_URL", _mail),
}
