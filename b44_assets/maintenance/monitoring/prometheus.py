"""The figures as Prometheus reads them: its text, a file for node_exporter's textfile collector, an endpoint."""

from __future__ import annotations

import threading
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from prometheus_client import CollectorRegistry, generate_latest, start_http_server
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from b44_assets.atomic_files import write_atomically
from b44_assets.config.settings import Settings
from b44_assets.errors import B44Error, SettingsError, why
from b44_assets.maintenance.monitoring.model import COUNTER, Earlier, Interval, Measurement, Reading
from b44_assets.maintenance.monitoring.reading import Monitor, monitoring
from b44_assets.maintenance.monitoring.registry import MEASUREMENTS
from b44_assets.session import Session, read_replica_of

FRESH = {Interval.ROUND: timedelta(seconds=15), Interval.DAILY: timedelta(hours=24)}
"""How old figures may be that are given out again: several servers may scrape one endpoint."""


class Exporter(Collector):
    """Measures when it is asked, and keeps what it has measured for the rates and for those who ask again at once.

    Args:
        connect: Opens a connection to measure over.
        settings: The thresholds.
        measurements: What is measured.
    """

    def __init__(
        self,
        connect: Callable[[], AbstractContextManager[Monitor]],
        settings: Settings,
        measurements: Iterable[Measurement] = MEASUREMENTS,
    ) -> None:
        self._connect, self._settings, self._measurements = connect, settings, tuple(measurements)
        self._readings: dict[str, Reading] = {}
        self._lock = threading.Lock()
        self.fault: B44Error | None = None
        """Why the last attempt failed; None where it did not."""

    def collect(self) -> Iterator[Metric]:
        """Measures what is not fresh, and gives all figures, the answers of the checks, and whether the server was reached."""
        with self._lock:
            began = datetime.now(UTC)
            self.fault = None
            try:
                self._measure(began)
            except B44Error as error:
                self.fault = error
            took = (datetime.now(UTC) - began).total_seconds()
            # What was seen of a server that is gone would pass for what it is.
            readings = [] if self.fault else [one for one in map(self._read, self._measurements) if one is not None]
        yield GaugeMetricFamily("b44_up", "Whether the database could be measured", 0 if self.fault else 1)
        yield GaugeMetricFamily("b44_measuring_seconds", "How long measuring took", took)
        yield from metrics_of(readings, {one.name: one for one in self._measurements}, self._settings)

    def _read(self, measurement: Measurement) -> Reading | None:
        return self._readings.get(measurement.name)

    def _measure(self, now: datetime) -> None:
        due = [
            one
            for one in self._measurements
            if (last := self._read(one)) is None or now - last.at >= FRESH[one.interval]
        ]
        if not due:
            return
        with self._connect() as monitor:
            for one in due:
                last = self._read(one)
                before = None if last is None else Earlier(last.at, last.numbers)
                self._readings[one.name] = monitor.take(one, before)


def metrics_of(
    readings: Iterable[Reading], measurements: Mapping[str, Measurement], settings: Settings
) -> Iterator[Metric]:
    """Figures as metrics: `b44_connections_used`, `b44_each_tables_rows` with labels; counters end in `_total`.

    Args:
        readings: What was measured.
        measurements: By name, for descriptions and checks.
        settings: The thresholds.
    """
    checks = GaugeMetricFamily("b44_check_passed", "Whether a check passes", labels=["measurement", "check"])
    unseen = GaugeMetricFamily("b44_unseen", "What could not be seen of a measurement", labels=["measurement"])
    families: dict[str, CounterMetricFamily | GaugeMetricFamily] = {}
    for reading in readings:
        measurement = measurements[reading.measurement]
        unseen.add_metric([reading.measurement], len(reading.unseen))
        for check in measurement.checks:
            verdict = check.judge(reading, settings)
            if verdict.measured:
                checks.add_metric([reading.measurement, check.name], int(verdict.passed))
        for figure in reading.figures():
            labels = sorted(figure.labels)
            make = CounterMetricFamily if figure.name.endswith(COUNTER) else GaugeMetricFamily
            family = families.setdefault(figure.name, make(figure.name, measurement.description, labels=labels))
            family.add_metric([figure.labels[name] for name in labels], figure.value)
    yield from (checks, unseen, *families.values())


@contextmanager
def exporting(session: Session, settings: Settings) -> Generator[Exporter]:
    """An exporter that uses its connection again for each scrape, until the end of the block."""
    with session.keeping() as keeping:
        # A standby that had stayed behind may have caught up by the next scrape.
        yield Exporter(lambda: monitoring(replace(keeping, read_replica=read_replica_of(settings)), settings), settings)


def text_of(exporter: Exporter) -> bytes:
    """Measures, and returns the figures as Prometheus's text; `exporter.fault` says why there are none."""
    registry = CollectorRegistry()
    registry.register(exporter)
    return generate_latest(registry)


def figures_of(exporter: Exporter) -> list[dict[str, Any]]:
    """Measures, and returns each figure with its `name`, its `labels` and its `value`; `exporter.fault` as of `text_of`."""
    return [
        {"name": sample.name, "labels": sample.labels, "value": sample.value}
        for metric in exporter.collect()
        for sample in metric.samples
    ]


def write_textfile(exporter: Exporter, path: Path) -> None:
    """Measures, and writes the figures to a file, which is there whole or as it was before.

    Where the target cannot be measured the file says so (`b44_up 0`), since figures of earlier would pass for new ones.

    Raises:
        SettingsError: The file cannot be written.
    """
    text = text_of(exporter)
    try:
        # node_exporter runs as another user.
        write_atomically(path, text, mode=0o644)
    except OSError as error:
        raise SettingsError(f"{path} cannot be written: {why(error, path)}") from error


def serve(exporter: Exporter, host: str, port: int) -> tuple[int, Callable[[], None]]:
    """Serves the figures at `http://host:port/metrics`, in a thread.

    Returns:
        The port, which was chosen where 0 was asked for, and what ends it.

    Raises:
        SettingsError: The address is taken, or none of this machine's.
    """
    registry = CollectorRegistry()
    registry.register(exporter)
    try:
        server, thread = start_http_server(port, host, registry)
    except OSError as error:
        raise SettingsError(
            f"{host}:{port} cannot be listened on: {why(error)}; name another address, or end what listens there"
        ) from error

    def end() -> None:
        server.shutdown()
        server.server_close()
        thread.join()

    return server.server_port, end
