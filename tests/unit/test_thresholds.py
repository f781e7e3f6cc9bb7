"""The thresholds of monitoring: how they are written, and that the page has them all."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.backup import figures
from b44_assets.config.settings import Settings
from b44_assets.config.thresholds import Thresholds
from b44_assets.errors import SettingsError
from b44_assets.maintenance.monitoring import MEASUREMENTS

PAGE = (Path(__file__).parents[2] / "docs" / "monitoring.md").read_text(encoding="utf-8")


def load(text: str) -> Thresholds:
    return Settings.load({"B44_THRESHOLDS": text}, Path("/nonexistent")).thresholds


def test_the_page_has_every_threshold_with_its_default() -> None:
    described = dict(re.findall(r"^\| `(\w+)` \| [^|]+ \| `([^`]+)` \|$", PAGE, re.MULTILINE))
    assert described.keys() == Thresholds.model_fields.keys()
    assert Thresholds.parse(",".join(f"{name}={value}" for name, value in described.items())) == Thresholds()


def test_the_page_has_every_measurement_with_its_checks() -> None:
    rows = dict(re.findall(r"^\| `monitoring/(\w+)` \| (.+) \|$", PAGE, re.MULTILINE))
    checks = {one.name: one.checks for one in MEASUREMENTS} | {figures.NAME: figures.CHECKS}
    assert rows.keys() == checks.keys()
    for name, of_it in checks.items():
        assert {check.name for check in of_it} <= set(re.findall(r"`(\w+)`", rows[name])), name


def test_what_is_not_named_keeps_its_default() -> None:
    assert load("cpu=off, slot_wal = 2GB,transaction=1.5h") == Thresholds(
        cpu=None, slot_wal=2 * 1024**3, transaction=5400.0
    )


@pytest.mark.parametrize(
    "text",
    ["cpu", "cpu=", "cpu=1.5", "cpu=101%", "cpu=90%,cpu=80%", "lock_wait=5", "slot_wal=2", "deadlocks=-1", "cp=1%"],
)
def test_what_cannot_be_read_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(
        SettingsError, match=r"^B44_THRESHOLDS must be thresholds|^B44_THRESHOLDS must be right"
    ) as error:
        load(text)
    assert "\n" not in str(error.value)


@given(st.text(max_size=60))
def test_no_text_is_read_with_another_fault_than_a_refusal(text: str) -> None:
    try:
        Thresholds.parse(text)
    except ValueError:
        return
