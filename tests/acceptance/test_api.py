"""The Python API does what the commands do, and leaves its process as it was."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from b44_assets.api import B44Error, Settings, migrate, plan, status, verify


def test_plan_migrate_verify_and_status_agree(
    small_sql: Path, target: str, dagster_storage: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    export = tmp_path / "export"
    export.mkdir()
    (export / "Ledger00.csv").write_text("id,remark\n1,one\n2,two\n,three\n")
    monkeypatch.delenv("DAGSTER_HOME", raising=False)
    settings = Settings.load(
        {}, tmp_path, export_dir=export, sql_dir=small_sql, database_url=target, dagster_pg_url=dagster_storage
    )
    before = (dict(os.environ), signal.getsignal(signal.SIGTERM))

    planned = plan(settings)
    done = migrate(settings)
    verified = verify(settings)
    now = status(settings)

    [ledger] = [table for table in planned.tables if table.table == "ledger_00"]
    assert (ledger.new, ledger.quarantined, ledger.reasons) == (2, 1, {"missing_id": 1})
    assert planned.exit_status == 0
    assert (done.verdict.conclusion, done.faults) == ("complete", ())
    assert {check.outcome for check in verified.checks} <= {"passed", "warning"}
    assert verified.verdict.holds
    assert now.tables == done.tables == verified.tables
    assert now.verdict.records == done.verdict.records
    assert (dict(os.environ), signal.getsignal(signal.SIGTERM)) == before


def test_without_a_target_nothing_is_made(small_sql: Path, tmp_path: Path) -> None:
    settings = Settings.load({}, tmp_path, sql_dir=small_sql)

    with pytest.raises(B44Error, match="there is no database yet"):
        status(settings)

    assert list(tmp_path.iterdir()) == []


def test_importing_it_does_not_import_dagster() -> None:
    code = "import sys, b44_assets.api; sys.exit('dagster' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
