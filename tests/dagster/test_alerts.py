"""Failed runs and failing checks told of: by webhook, by e-mail, by both, without secrets."""

from __future__ import annotations

import json
import socketserver
from collections.abc import Generator
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from b44_assets.catalog import load_catalog
from b44_assets.config.settings import Settings
from b44_assets.errors import SettingsError
from b44_assets.orchestration.alerts import delivery
from b44_assets.orchestration.alerts.delivery import Alert, AlertError, send
from b44_assets.orchestration.alerts.failed_runs import alert_of
from b44_assets.orchestration.alerts.failing_checks import failing_checks_sensor, tell_of_checks
from b44_assets.orchestration.common import ALERTS_ON_WARNING
from b44_assets.orchestration.resources import Migration, MigrationResource
from tests.helpers.code_locations import ephemeral
from tests.helpers.servers import free_port
from tests.helpers.webhooks import Webhook, serving, webhook

ALERT = Alert(
    "b44: run of delta failed (2025-03)",
    "Steps failed\n\nposts: the database said hunter22 and stopped",
    {"run_id": "r1", "steps": {"posts": ["the database said hunter22 and stopped"]}},
)


@pytest.fixture
def hook() -> Generator[Webhook]:
    with webhook() as received:
        yield received


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


def test_a_webhook_is_told_what_failed_and_no_secret(tmp_path: Path, hook: Webhook) -> None:
    send(ALERT, settings(tmp_path, B44_ALERT_WEBHOOK=hook.address))
    [body] = hook.received
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


def test_what_fails_for_a_moment_is_tried_again(tmp_path: Path, hook: Webhook, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    hook.answers.extend([503, 500])
    send(ALERT, settings(tmp_path, B44_ALERT_WEBHOOK=hook.address))
    assert len(hook.received) == 3


def test_one_way_that_fails_does_not_stop_the_other_and_is_told_of_without_its_address(
    tmp_path: Path, hook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    nobody = f"smtp://me:hunter33@127.0.0.1:{free_port()}"
    both = settings(tmp_path, B44_ALERT_WEBHOOK=hook.address, B44_ALERT_EMAIL="ops@example.org", B44_SMTP_URL=nobody)
    with pytest.raises(AlertError, match="the mail server of B44_SMTP_URL cannot be reached") as caught:
        send(ALERT, both)
    assert len(hook.received) == 1
    assert "hunter33" not in str(caught.value)


def test_the_alert_of_a_run_names_its_months_steps_and_reasons() -> None:
    @dg.op
    def breaks() -> None:
        raise ValueError("no such\n  luck")

    @dg.job(tags={"dagster/asset_partition_range_start": "2025-01", "dagster/asset_partition_range_end": "2025-03"})
    def broken() -> None:
        breaks()

    with ephemeral() as instance:
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


# -- failing checks --------------------------------------------------------------------------------------------------------

SOURCE = dg.AssetKey("source")


class Checked:
    """An asset with two checks whose answers can be changed: `plain`, and `figure`, which has a threshold."""

    def __init__(self, instance: dg.DagsterInstance, settings: Settings, told: list[Any]) -> None:
        self.instance, self.settings, self._told = instance, settings, told
        self.specs = [
            dg.AssetCheckSpec("plain", asset=SOURCE),
            dg.AssetCheckSpec("figure", asset=SOURCE, metadata={ALERTS_ON_WARNING: True}),
        ]

    def answer(self, name: str, severity: str | None) -> None:
        """A run answers a check: it fails with a severity, or passes."""

        @dg.asset_check(asset=SOURCE, name=name)
        def check() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(
                passed=severity is None,
                severity=dg.AssetCheckSeverity(severity or "ERROR"),
                description="the database said hunter22",
            )

        dg.Definitions(
            assets=[dg.AssetSpec(SOURCE)], asset_checks=[check]
        ).resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
        )

    def tell(self) -> list[tuple[list[tuple[str, str]], list[str]]]:
        """What is told now: of each alert the failing checks with their severity, and those that are well again."""
        before = len(self._told)
        tell_of_checks(self.instance, self.specs, self.settings)
        return [
            ([(check["name"], check["severity"]) for check in body["failing"]], body["well_again"])
            for body in self._told[before:]
        ]


@pytest.fixture
def checked(tmp_path: Path, hook: Webhook) -> Generator[Checked]:
    environ = {"B44_ALERT_WEBHOOK": hook.address, "B44_HOME": str(tmp_path / "home")}
    with ephemeral() as instance:
        yield Checked(instance, settings(tmp_path, **environ), hook.received)


def test_a_check_is_told_of_once_when_it_begins_to_fail_and_once_when_it_is_well_again(
    checked: Checked, hook: Webhook
) -> None:
    assert checked.tell() == []
    checked.answer("plain", "ERROR")
    assert checked.tell() == [([("source plain", "error")], [])]
    assert "the database said •••" in hook.received[0]["text"]
    checked.answer("plain", "ERROR")
    assert checked.tell() == []
    checked.answer("plain", None)
    assert checked.tell() == [([], ["source plain"])]
    assert checked.tell() == []
    checked.answer("plain", "ERROR")
    assert checked.tell() == [([("source plain", "error")], [])]


def test_a_warning_is_told_of_where_it_is_about_a_threshold(checked: Checked) -> None:
    checked.answer("plain", "WARN")
    checked.answer("figure", "WARN")
    assert checked.tell() == [([("source figure", "warning")], [])]


def test_a_warning_that_becomes_an_error_is_told_of_once_more(checked: Checked) -> None:
    """As where a figure that could not be measured is over its threshold."""
    checked.answer("figure", "WARN")
    assert checked.tell() == [([("source figure", "warning")], [])]
    checked.answer("figure", "ERROR")
    assert checked.tell() == [([("source figure", "error")], [])]
    checked.answer("figure", "WARN")
    assert checked.tell() == []
    checked.answer("figure", None)
    assert checked.tell() == [([], ["source figure"])]


def test_whoever_was_not_reached_is_told_the_next_time_and_nobody_twice(
    checked: Checked, hook: Webhook, mailbox: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(delivery.time, "sleep", lambda seconds: None)
    address, letters = mailbox
    mail = {"B44_ALERT_EMAIL": "ops@example.org", "B44_HOME": str(tmp_path), "B44_ALERT_WEBHOOK": hook.address}
    checked.answer("plain", "ERROR")
    checked.settings = settings(tmp_path, **mail, B44_SMTP_URL=f"smtp://127.0.0.1:{free_port()}")
    for _ in range(2):
        with pytest.raises(AlertError, match="the mail server of B44_SMTP_URL"):
            checked.tell()
    assert (len(hook.received), len(letters)) == (1, 0)
    checked.settings = settings(tmp_path, **mail, B44_SMTP_URL=address)
    checked.tell()
    assert (len(hook.received), len(letters)) == (1, 1)
    assert "Subject: b44: source plain fails" in letters[0]


def test_a_new_address_is_told_of_all_that_fails(checked: Checked, tmp_path: Path) -> None:
    checked.answer("plain", "ERROR")
    checked.tell()
    with webhook() as another:
        checked.settings = settings(tmp_path, B44_ALERT_WEBHOOK=another.address, B44_HOME=str(tmp_path))
        checked.tell()
    assert [check["name"] for body in another.received for check in body["failing"]] == ["source plain"]


def test_a_check_whose_run_ended_before_it_was_answered_is_neither_well_nor_told_of_again(checked: Checked) -> None:
    checked.answer("plain", "ERROR")
    checked.tell()

    @dg.asset_check(asset=SOURCE, name="plain")
    def plain() -> dg.AssetCheckResult:
        raise ValueError

    dg.Definitions(
        assets=[dg.AssetSpec(SOURCE)], asset_checks=[plain]
    ).resolve_implicit_global_asset_job_def().execute_in_process(
        instance=checked.instance,
        raise_on_error=False,
        run_config={"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}},
    )
    assert checked.tell() == []
    checked.answer("plain", None)
    assert checked.tell() == [([], ["source plain"])]


def test_the_sensor_tells_of_the_code_locations_checks(checked: Checked, hook: Webhook) -> None:
    sensor = failing_checks_sensor(checked.settings)
    migration = Migration(checked.settings, load_catalog(checked.settings.sql_dir))
    definitions = dg.Definitions(
        assets=[dg.AssetSpec(SOURCE)],
        asset_checks=[dg.multi_asset_check(name="checks", specs=checked.specs)(lambda: [])],
        sensors=[sensor],
        resources={"migration": MigrationResource(base=migration)},
    )
    checked.answer("plain", "ERROR")
    with dg.build_sensor_context(
        instance=checked.instance, definitions=definitions, resources={"migration": migration}
    ) as context:
        said = [sensor.evaluate_tick(context).skip_message for _ in range(2)]
    assert said == ["b44: source plain fails", "nothing has changed since the last alert"]
    assert len(hook.received) == 1


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
