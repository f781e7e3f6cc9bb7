"""The mistakes of the first day: each is one line that names the mend, as docs/troubleshooting.md has it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psycopg
import pytest

from tests.helpers.command import Command

LEDGER = "id,remark\n1,one\n"


def _nowhere(folder: Path) -> Path:
    return folder / "nowhere"


def _no_export(folder: Path) -> Path:
    (folder / "holiday.png").write_bytes(b"\x89PNG")
    return folder


def _archive(folder: Path) -> Path:
    (folder / "app.zip").write_bytes(b"PK")
    return folder / "app.zip"


def _unfinished(folder: Path) -> Path:
    (folder / "Ledger00.csv.crdownload").write_text(LEDGER)
    return folder


def _both_copies(folder: Path) -> Path:
    (folder / "Ledger00.csv").write_text(LEDGER)
    (folder / "Ledger00 (1).csv").write_text(LEDGER)
    return folder


@pytest.mark.parametrize(
    ("made", "said"),
    [
        (_nowhere, "there is no such export folder; name the one with the exported files"),
        (_no_export, "no export file here (expected such as Post_export.csv"),
        (_archive, "is an archive, not an export folder; unpack it, such as with unzip, and name the folder"),
        (_unfinished, "is an unfinished download"),
        (_both_copies, "are both exports of Ledger00; keep one"),
    ],
)
def test_a_folder_that_is_no_export_is_one_line(
    made: Callable[[Path], Path], said: str, small: Command, tmp_path_factory: pytest.TempPathFactory
) -> None:
    result = small("migrate", "--export", made(tmp_path_factory.mktemp("export")))

    assert (result.status, said in result.fault) == (2, True), result


def test_a_second_download_half_a_file_and_a_target_that_is_not_empty(
    small: Command, target: str, tmp_path: Path
) -> None:
    (tmp_path / "Ledger00 (1).csv").write_text('"id","remark"\n"1","one"\n"2","tw')
    planned = small.on(target)("plan", "--export", tmp_path)

    assert planned.status == 0, planned
    assert "Ledger00 (1).csv is read as the export of Ledger00" in planned.err
    assert "ledger_00: 1 would be quarantined as malformed_record" in planned.out
    assert "warning: Ledger00 (1).csv ends within its last record" in planned.err

    with psycopg.connect(target, autocommit=True) as conn:
        conn.execute("create table ledger_00 (remark integer)")
    refused = small.on(target)("migrate", "--export", tmp_path)

    assert refused.status == 2
    assert "table public.ledger_00 is another than the one to be made" in refused.fault
    assert "name another database in the URL" in refused.fault


def test_the_export_of_another_app_is_one_line(small: Command, target: str, tmp_path: Path) -> None:
    (tmp_path / "Invoice.csv").write_text("id,total\n1,2\n")
    (tmp_path / "Ledger00.csv").write_text("id,remark\n")
    planned = small.on(target)("plan", "--export", tmp_path)
    migrated = small.on(target)("migrate", "--export", tmp_path)

    for result in (planned, migrated):
        fault = result.complaints[-1]
        assert (result.status, "has a table" in fault, "b44 init" in fault) == (1, True, True), result
    with psycopg.connect(target) as conn:
        assert conn.execute("select to_regnamespace('migration'), to_regclass('ledger_00')").fetchone() == (None, None)


def test_an_app_that_nobody_has_used_yet_is_migrated(small: Command, target: str, tmp_path: Path) -> None:
    (tmp_path / "Ledger00.csv").write_text("id,remark\n")

    assert small.on(target)("migrate", "--export", tmp_path).status == 0
