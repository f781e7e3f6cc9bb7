"""The figures as Prometheus reads them: on standard output, in a file, at an endpoint."""

from __future__ import annotations

import json
import re
import socket
import urllib.request
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from b44_assets.cli import main
from b44_assets.errors import SettingsError
from b44_assets.maintenance.monitoring import MEASUREMENTS, Interval, monitoring, prometheus
from b44_assets.maintenance.monitoring.prometheus import Exporter, exporting, serve, text_of, write_textfile
from tests.helpers.output_schema import check_form
from tests.helpers.waiting import eventually
from tests.helpers.watched import Watched, settings_with

DASHBOARD = Path(__file__).resolve().parents[2] / "docs" / "grafana" / "b44.json"


def exporter_of(watched: Watched, thresholds: str = "", role: str | None = None) -> Exporter:
    settings = settings_with(thresholds)
    return Exporter(lambda: monitoring(watched.session(role), settings), settings)


def samples(text: bytes) -> dict[str, dict[tuple[tuple[str, str], ...], float]]:
    """The values by name and labels."""
    found: dict[str, dict[tuple[tuple[str, str], ...], float]] = {}
    for family in text_string_to_metric_families(text.decode()):
        for sample in family.samples:
            found.setdefault(sample.name, {})[tuple(sorted(sample.labels.items()))] = sample.value
    return found


def test_every_figure_and_every_check_is_given_and_no_series_twice(watched: Watched) -> None:
    text = text_of(exporter_of(watched))
    found = samples(text)
    assert found["b44_up"] == {(): 1}
    # Of single objects there may be others by now.
    expected = {figure.name for one in MEASUREMENTS for figure in watched.read(one).figures() if not figure.labels}
    # Rates come from earlier measurements, which Prometheus has itself.
    assert expected - found.keys() == set()
    checks = {(labels["measurement"], labels["check"]) for labels in map(dict, found["b44_check_passed"])}
    assert checks <= {(one.name, check.name) for one in MEASUREMENTS for check in one.checks}
    assert ("connections", "connections_left") in checks
    # A table's name is a label, not part of a name.
    assert not [name for name in found if "items" in name]
    with_labels = {name: {tuple(dict(labels)) for labels in values} for name, values in found.items()}
    assert {name: kinds for name, kinds in with_labels.items() if len(kinds) > 1} == {}
    lines = [line.rsplit(" ", 1)[0] for line in text.decode().splitlines() if not line.startswith("#")]
    assert len(lines) == len(set(lines))


def test_a_check_that_fails_is_a_zero_and_one_that_is_not_measured_is_none(watched: Watched) -> None:
    failing = samples(text_of(exporter_of(watched, "connections=0%")))["b44_check_passed"]
    key = (("check", "connections_left"), ("measurement", "connections"))
    assert failing[key] == 0
    hidden = samples(text_of(exporter_of(watched, role=watched.nobody)))
    assert (("check", "no_long_transaction"), ("measurement", "connections")) not in hidden["b44_check_passed"]
    assert hidden["b44_unseen"][(("measurement", "connections"),)] > 0


def test_what_was_just_measured_is_given_once_more(watched: Watched, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(prometheus.FRESH, Interval.ROUND, timedelta(hours=1))
    opened = 0
    settings = settings_with()

    def connect() -> Any:
        nonlocal opened
        opened += 1
        return monitoring(watched.session(), settings)

    exporter = Exporter(connect, settings)
    first, second = samples(text_of(exporter)), samples(text_of(exporter))
    for one in (first, second):
        del one["b44_measuring_seconds"]
    assert (opened, first) == (1, second)


def test_a_server_that_is_gone_is_down_and_its_old_figures_are_not_given(
    watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    session, settings = watched.session(), settings_with()
    there = True
    exporter = Exporter(
        lambda: monitoring(session if there else replace(session, url="postgresql://nobody@127.0.0.1:1/x"), settings),
        settings,
        [replace(one) for one in MEASUREMENTS],
    )
    file = tmp_path / "b44.prom"
    write_textfile(exporter, file)
    assert samples(file.read_bytes())["b44_up"] == {(): 1} and exporter.fault is None
    there = False
    monkeypatch.setitem(prometheus.FRESH, Interval.ROUND, timedelta(0))
    write_textfile(exporter, file)
    found = samples(file.read_bytes())
    assert (found["b44_up"], found.keys() & {"b44_connections_used"}) == ({(): 0}, set())
    assert exporter.fault is not None
    assert file.stat().st_mode & 0o777 == 0o644
    assert [path.name for path in tmp_path.iterdir()] == ["b44.prom"]


def test_a_file_that_cannot_be_written_is_named(watched: Watched, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match="nowhere"):
        write_textfile(exporter_of(watched), tmp_path / "nowhere" / "b44.prom")


def test_the_endpoint_serves_the_figures_and_ends(watched: Watched) -> None:
    port, end = serve(exporter_of(watched), "127.0.0.1", 0)
    try:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=30) as answer:
            found = samples(answer.read())
    finally:
        end()
    assert found["b44_up"] == {(): 1}
    with socket.socket() as again:
        assert again.connect_ex(("127.0.0.1", port)) != 0


def test_a_taken_port_and_a_wrong_address_are_one_line(watched: Watched) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with pytest.raises(SettingsError, match=rf"127\.0\.0\.1:{port} cannot be listened on"):
            serve(exporter_of(watched), "127.0.0.1", port)
    for wrong in ("host", ":0", "1:70000"):
        result = CliRunner().invoke(main, ["metrics", "--listen", wrong])
        assert (result.exit_code, result.stdout) == (2, ""), wrong


def test_the_command_prints_the_figures(watched: Watched, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(main, ["metrics", "--database-url", watched.session().url])
    assert result.exit_code == 0, result.output
    assert samples(result.stdout_bytes)["b44_up"] == {(): 1}
    printed = json.loads(
        CliRunner().invoke(main, ["metrics", "--json", "--database-url", watched.session().url]).stdout
    )
    check_form("metrics", printed)
    assert {"name": "b44_up", "labels": {}, "value": 1} in printed["figures"]


def test_scrapes_share_a_connection_which_is_replaced_when_it_is_lost(
    watched: Watched, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(prometheus, "FRESH", dict.fromkeys(Interval, timedelta(0)))
    ours = "select pid from pg_stat_activity where usename = %s and application_name = 'b44 monitoring'"

    def sessions() -> list[int]:
        return [pid for (pid,) in watched.execute(ours, watched.watcher)]

    # Those of the test before end a little after their clients have gone.
    eventually(lambda: sessions() == [])
    with exporting(watched.session(), settings_with()) as exporter:
        seen = []
        for _ in range(3):
            assert samples(text_of(exporter))["b44_up"] == {(): 1}
            seen.append(sessions())
        assert len(seen[0]) == 1 and seen == [seen[0]] * 3
        watched.execute("select pg_terminate_backend(%s, 5000)", seen[0][0])
        assert samples(text_of(exporter))["b44_up"] == {(): 1}
        assert len(sessions()) == 1 and sessions() != seen[0]
    eventually(lambda: sessions() == [])


def test_the_dashboard_asks_for_figures_that_there_are(watched: Watched) -> None:
    there = {"b44_up", "b44_measuring_seconds", "b44_check_passed", "b44_unseen"}
    watched.execute("create schema if not exists migration")
    watched.execute("create table if not exists migration.accounting (entity text, quarantined bigint)")
    watched.execute(f"grant usage on schema migration to {watched.watcher}")
    watched.execute(f"grant select on migration.accounting to {watched.watcher}")
    with monitoring(watched.session(), settings_with()) as monitor:
        for one in MEASUREMENTS:
            there |= {figure.name for figure in watched.read(one).figures()}
            # Of what this server has none of, such as standbys.
            there |= {f"b44_each_{part}_{name}" for part in one.files for name in monitor.columns(part)}
    panels = json.loads(DASHBOARD.read_text())["panels"]
    queries = [target["expr"] for panel in panels for target in panel.get("targets", [])]
    asked = {name for query in queries for name in re.findall(r"\bb44_[a-z0-9_]+", query)}
    assert len(asked) > 30
    # What is told only where the server's files, or its extensions, are seen, is seen by the other server of this test.
    assert sorted(asked - there) == []
    positions = [(panel["gridPos"]["x"], panel["gridPos"]["y"]) for panel in panels]
    assert len(set(positions)) == len(positions)
