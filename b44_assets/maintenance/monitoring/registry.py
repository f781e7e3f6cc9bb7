"""All measurements.

To add one, write its file under `sql/`, declare it in the module of its field under `measurements/`, and name it here.
"""

from __future__ import annotations

from b44_assets.maintenance.monitoring.measurements import activity, server, settings_advice, storage
from b44_assets.maintenance.monitoring.model import Measurement

MEASUREMENTS: tuple[Measurement, ...] = (
    activity.CONNECTIONS,
    activity.TRANSACTIONS,
    activity.CACHE,
    activity.LOCKS,
    server.SLOW_STATEMENTS,
    server.REPLICATION,
    server.WAL,
    server.CHECKPOINTS,
    server.IO,
    server.TEMP_FILES,
    server.WRAPAROUND,
    server.SERVER_VERSION,
    server.MACHINE,
    storage.TABLE_SIZES,
    storage.DISK,
    storage.DEAD_ROWS,
    storage.TABLE_BLOAT,
    storage.DEFAULT_PARTITIONS,
    storage.QUARANTINE,
    settings_advice.SETTINGS_ADVICE,
)
