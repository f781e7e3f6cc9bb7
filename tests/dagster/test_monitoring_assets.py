"""Measurements as assets: one step and one connection for a round, numbers that are plotted, checks, alerts by severity."""

from __future__ import annotations

import os
from typing import Any

import dagster as dg
import psycopg
import pytest

from b44_assets.maintenance import monitoring
from b44_assets.maintenance.monitoring import MEASUREMENTS, Interval
from b44_assets.session import Session
from tests.helpers.code_locations import Place

ROUND = {one.name for one in MEASUREMENTS if one.interval is Interval.ROUND}


def metadata_of(result: Any, name: str) -> dict[str, Any]:
    [event] = [
        one for one in result.asset_materializations_for_node("monitoring_round") if one.asset_key.path[-1] == name
    ]
    return event.metadata


def answers_of(result: Any) -> dict[str, Any]:
    return {each.check_name: each for each in result.get_asset_check_evaluations()}


def test_a_round_is_one_step_over_one_connection(empty: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    connected: list[str] = []
    connect = Session._connected  # pyright: ignore[reportPrivateUsage]

    def counted(session: Session, name: str, *more: Any) -> Any:
        if session.kept is None or not any(session.kept.free.values()):
            connected.append(name)
        return connect(session, name, *more)

    monkeypatch.setattr(Session, "_connected", counted)
    result = empty.job("monitoring")
    assert result.success
    assert connected == ["b44 monitoring"]
    assert {event.asset_key.path[-1] for event in result.asset_materializations_for_node("monitoring_round")} == ROUND
    assert [event.step_key for event in result.all_events if event.is_step_success] == ["monitoring_round"]


def test_what_has_grown_is_told_from_the_numbers_of_the_round_before(empty: Place) -> None:
    first = empty.job("monitoring")
    assert "commits_per_second" not in metadata_of(first, "transactions")
    empty.execute("create table grown as select generate_series(1, 1000)")
    second = empty.job("monitoring")
    numbers = metadata_of(second, "transactions")
    assert isinstance(numbers["commits_per_second"].value, float)
    assert numbers["commits_total"].value > metadata_of(first, "transactions")["commits_total"].value


def test_a_figure_over_its_threshold_fails_its_check_with_what_to_do(empty: Place) -> None:
    assert answers_of(empty.job("monitoring"))["no_idle_transaction"].passed
    place = Place(empty.settings.changed(thresholds="idle_in_transaction=0s"), empty.export, empty.instance)
    with psycopg.connect(empty.url) as conn:
        conn.execute("select 1")
        answer = answers_of(place.job("monitoring"))["no_idle_transaction"]
    assert (answer.passed, answer.severity) == (False, dg.AssetCheckSeverity.ERROR)
    # Whose it is depends on what others do on the same server.
    assert "set idle_in_transaction_session_timeout" in (answer.description or "")


def test_a_measurement_that_fails_keeps_no_other_from_being_made(empty: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    take = monitoring.Monitor.take

    def failing(monitor: monitoring.Monitor, one: monitoring.Measurement, *rest: Any) -> Any:
        if one.name == "locks":
            monitor.conn.execute("select 1/0")
        return take(monitor, one, *rest)

    monkeypatch.setattr(monitoring.Monitor, "take", failing)
    result = empty.job("monitoring")
    assert not result.success
    made = {event.asset_key.path[-1] for event in result.asset_materializations_for_node("monitoring_round")}
    assert made == ROUND - {"locks"}
    assert "division by zero" in str(empty.migration.faults[0])


def test_an_empty_store_of_backups_is_an_error(empty: Place) -> None:
    result = empty.job("monitoring_backups")
    assert result.success
    answers = answers_of(result)
    assert (answers["backup_new_enough"].passed, answers["backup_new_enough"].severity) == (
        False,
        dg.AssetCheckSeverity.ERROR,
    )
    assert answers["recovery_rehearsed"].severity is dg.AssetCheckSeverity.WARN


def test_a_role_with_nothing_but_pg_monitor_makes_the_rounds(empty: Place) -> None:
    role = f"watcher_{os.urandom(6).hex()}"
    empty.execute(f"create role {role} login")
    empty.execute(f"grant pg_monitor to {role}")
    try:
        url = empty.url.replace("postgresql://postgres@", f"postgresql://{role}@")
        place = Place(empty.settings.changed(database_url=url), empty.export, empty.instance)
        for job in ("monitoring", "monitoring_daily"):
            result = place.job(job)
            assert result.success
            assert not [
                one for one in answers_of(result).values() if (one.description or "").startswith("not measured")
            ]
    finally:
        empty.execute(f"drop role {role}")
