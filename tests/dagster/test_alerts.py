"""Failed runs told of: by webhook, by e-mail, by both, without secrets."""

from __future__ import annotations

import json
import socketserver
import threading
from collections.abc import Generator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.orchestration.alerts import delivery
from b44_assets.orchestration.alerts.delivery import Alert, AlertError, send
from b44_assets.orchestration.alerts.failed_runs import alert_of
from tests.support import free_port

ALERT = Alert(
    "b44: run of delta failed (2025-03)",
    "Steps failed\n\nposts: the database said hunter22 and stopped",
    {"run_id": "r1", "steps": {"posts": ["the database said hunter22 and stopped"]}},
)


@contextmanager
def serving(server: socketserver.BaseServer) -> Generator[None]:
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@pytest.fixture
def hook() -> Generator[tuple[str, list[Any], list[int]]]:
    """A webhook's address, what it got, and the statuses that it is to answer with before 200."""
    got: list[Any] = []
    answers: list[int] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            got.append(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))
            self.send_response(answers.pop(0) if answers else 200)
            self.end_headers()

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"http://127.0.0.1:{server.server_port}/hook/token", got, answers


@pytest.fixture
def mailbox() -> Generator[tuple[str, list[str]]]:
    """A mail server's address, and the letters that it got."""
    got: list[str] = []

    class Handler(socketserver.StreamRequestHandler):
        def handle(self) -> None:
            self.wfile.write(b"220 here\r\n")
            while line := self.rfile.readline().strip().upper():
                if line == b"DATA":
                    self.wfile.write(b"354 go on\r\n")
                    lines: list[bytes] = []
                    while (part := self.rfile.readline()) != b".\r\n":
                        lines.append(part)
                    got.append(b"".join(lines).decode())
                self.wfile.write(b"221 bye\r\n" if line == b"QUIT" else b"250 fine\r\n")

    server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Handler)
    with serving(server):
        yield f"smtp://127.0.0.1:{server.server_address[1]}", got


def settings(tmp_path: Path, **environ: str) -> Settings:
    return Settings.load(
        environ={"B44_DATABASE_URL": "postgresql://me:hunter22@host/db", **environ}, directory=tmp_path
    )


def test_a_webhook_is_told_what_failed_and_no_secret(tmp_path: Path, hook: Any) -> None:
    address, got, _ = hook
    send(ALERT, settings(tmp_path, B44_ALERT_WEBHOOK=address))
    [body] = got
    assert (body["run_id"], body["steps"]) == ("r1", {"posts": ["the database said ••• and stopped"]})
    assert "the database said ••• and stopped" in body["text"]
    assert "hunter22" not in json.dumps(body)


def test_an_e_mail_is_sent_to_each_address(tmp_path: Path, mailbox: Any) -> None:
    address, got = mailbox
    send(ALERT, settings(tmp_path, B44_ALERT_EMAIL="ops@example.org, me@example.org", B44_SMTP_URL=address))
    [letter] = got
    assert "Subject: b44: run of delta failed (2025-03)" in letter
    assert "To: ops@example.org, me@example.org" in letter
    assert "hunter22" not in letter


def test_what_fails_for_a_moment_is_tried_again(tmp_path: Path, hook: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    address, got, answers = hook
    answers += [503, 500]
    send(ALERT, settings(tmp_path, B44_ALERT_WEBHOOK=address))
    assert len(got) == 3


def test_one_way_that_fails_does_not_stop_the_other_and_is_told_of_without_its_address(
    tmp_path: Path, hook: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    address, got, _ = hook
    nobody = f"smtp://me:hunter33@127.0.0.1:{free_port()}"
    both = settings(tmp_path, B44_ALERT_WEBHOOK=address, B44_ALERT_EMAIL="ops@example.org", B44_SMTP_URL=nobody)
    with pytest.raises(AlertError, match="the mail server of B44_SMTP_URL cannot be reached") as caught:
        send(ALERT, both)
    assert len(got) == 1
    assert "hunter33" not in str(caught.value)


def test_the_alert_of_a_run_names_its_months_steps_and_reasons() -> None:
    @dg.op
    def breaks() -> None:
        raise ValueError("no such\n  luck")

    @dg.job(tags={"dagster/asset_partition_range_start": "2025-01", "dagster/asset_partition_range_end": "2025-03"})
    def broken() -> None:
        breaks()

    with dg.DagsterInstance.ephemeral() as instance:
        result = broken.execute_in_process(
            instance=instance,
            raise_on_error=False,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )
        context = dg.build_run_status_sensor_context(
            sensor_name="run_failures",
            dagster_instance=instance,
            dagster_run=result.dagster_run,
            dagster_event=result.get_run_failure_event(),
        ).for_run_failure()
        alert = alert_of(context)
    assert alert.subject == "b44: run of broken failed (2025-01 to 2025-03)"
    told = {name: alert.details[name] for name in ("run_id", "job", "months", "steps")}
    assert told == {
        "run_id": result.run_id,
        "job": "broken",
        "months": "2025-01 to 2025-03",
        "steps": {"breaks": "ValueError: no such luck"},
    }
    assert "breaks: ValueError: no such luck" in alert.text


@pytest.mark.parametrize(
    ("environ", "says"),
    [
        ({"B44_ALERT_WEBHOOK": "hooks.example.org/secret"}, "B44_ALERT_WEBHOOK must be of the form https://host/path"),
        ({"B44_ALERT_EMAIL": "ops@example.org"}, "B44_ALERT_EMAIL needs a server to send by"),
        ({"B44_ALERT_EMAIL": "ops", "B44_SMTP_URL": "smtp://h"}, "B44_ALERT_EMAIL must be e-mail addresses"),
        ({"B44_SMTP_URL": "mail:secret@h"}, "B44_SMTP_URL must be of the form smtp://"),
        ({"B44_KEEP_RUNS_DAYS": "0"}, "B44_KEEP_RUNS_DAYS must be a whole number of at least 1"),
    ],
)
def test_settings_that_cannot_be_used_are_named_and_no_secret_is_shown(
    tmp_path: Path, environ: dict[str, str], says: str
) -> None:
    with pytest.raises(SettingsError, match=says) as caught:
        Settings.load(environ=environ, directory=tmp_path)
    assert "secret" not in str(caught.value)
