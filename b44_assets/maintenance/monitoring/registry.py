"""All measurements. To add one, write its file under `sql/`, declare it in the module of its field, and name it here."""

from __future__ import annotations

from b44_assets.maintenance.monitoring import activity, storage
from b44_assets.maintenance.monitoring.model import Measurement

MEASUREMENTS: tuple[Measurement, ...] = (
    activity.CONNECTIONS,
    activity.TRANSACTIONS,
    activity.CACHE,
    activity.LOCKS,
    storage.TABLE_SIZES,
)
