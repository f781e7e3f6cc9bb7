"""`b44 doctor`: what the target is and which programs serve it, without making anything."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psycopg
import pytest
from click.testing import CliRunner

from b44_assets.cli import main
from b44_assets.postgres.clients import available, shown
from tests.helpers.servers import Pg15

Doctor = Callable[..., tuple[int, dict[str, dict[str, Any]]]]


@pytest.fixture
def doctor(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Doctor:
    """Runs `b44 doctor --json`; gives the exit status and the last finding by subject."""
    monkeypatch.chdir(tmp_path)
    for name in ("B44_DATABASE_URL", "B44_PG_BIN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("B44_HOME", str(tmp_path / "home"))

    def run(*options: str) -> tuple[int, dict[str, dict[str, Any]]]:
        result = CliRunner().invoke(main, ["doctor", "--json", *options])
        return result.exit_code, {finding["subject"]: finding for finding in json.loads(result.stdout)["findings"]}

    return run


def bundled() -> str:
    return shown(next(each for each in available() if each.origin == "bundled").version)


def test_without_a_server_nothing_is_made(doctor: Doctor, tmp_path: Path) -> None:
    status, findings = doctor()

    assert status == 0
    assert bundled() in findings["bundled"]["said"]
    assert str(tmp_path / "home") in findings["target"]["said"]
    assert not (tmp_path / "home").exists()


def test_a_server_of_the_users_own_is_told_with_its_minor_release(doctor: Doctor, pg15: Pg15) -> None:
    status, findings = doctor("--database-url", pg15.url())

    assert status == 0
    assert "PostgreSQL 15." in findings["server"]["said"]
    assert ", system, " in findings["dumps"]["said"]
    assert findings["dumps"]["remedy"] is None


def test_programs_that_may_not_know_the_server_are_told_with_the_remedy(
    doctor: Doctor, pg15: Pg15, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("b44_assets.postgres.clients.INSTALLED", ())

    _, findings = doctor("--database-url", pg15.url())

    assert ", bundled, " in findings["dumps"]["said"]
    assert "postgresql-client-15" in findings["dumps"]["remedy"]


def test_a_server_that_cannot_be_reached_fails(doctor: Doctor) -> None:
    status, findings = doctor("--database-url", "postgresql://user:topsecret@/x?host=/nonexistent")

    assert status == 1
    assert findings["server"]["blocking"]
    assert "topsecret" not in json.dumps(findings)


def test_an_extension_that_the_server_has_not_loaded_is_not_there(doctor: Doctor, embedded_database: str) -> None:
    with psycopg.connect(embedded_database) as conn:
        conn.execute("create extension pg_stat_statements")

    _, findings = doctor("--database-url", embedded_database)

    assert "not loaded" in findings["extension"]["said"]
    assert "shared_preload_libraries" in findings["extension"]["remedy"]


def test_what_is_nearly_spelt_as_a_setting_is_told_with_the_one_that_is_meant(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / ".env").write_text("B44_BATCH_SIZ=500\nB44_PASSWORD=of-compose\n")
    monkeypatch.setenv("B44_EXPORT_DIRECTORY", "export")
    monkeypatch.setenv("B44_HOME", str(tmp_path / "home"))

    findings = json.loads(CliRunner().invoke(main, ["doctor", "--json"]).stdout)["findings"]

    assert [(one["said"], one["remedy"]) for one in findings if one["subject"] == "setting" and one["remedy"]] == [
        (f"B44_BATCH_SIZ in {tmp_path / '.env'} is no setting", "B44_BATCH_SIZE is one"),
        ("B44_EXPORT_DIRECTORY is no setting", "B44_EXPORT_DIR is one"),
    ]


def test_a_configured_folder_without_programs_is_told(
    doctor: Doctor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("B44_PG_BIN", str(tmp_path))

    _, findings = doctor()

    assert str(tmp_path) in findings["programs"]["said"]
