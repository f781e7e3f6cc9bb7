"""What is measured of a live server, and what is said of it.

To add a measurement: a file `sql/<name>.sql` whose one statement reads its figures (a variant for newer servers is
`<name>.17.sql`, one for where an extension is `<name>.<extension>.sql`), a `Measurement` with its checks in the module of its
field under `measurements/`, a threshold in `config/thresholds.py`, its name in `registry`, and its line in docs/monitoring.md.
"""

from b44_assets.maintenance.monitoring.model import (
    Check,
    Earlier,
    Figure,
    Interval,
    Measurement,
    Reading,
    Row,
    Verdict,
)
from b44_assets.maintenance.monitoring.reading import Monitor, monitoring
from b44_assets.maintenance.monitoring.registry import MEASUREMENTS

__all__ = [
    "MEASUREMENTS",
    "Check",
    "Earlier",
    "Figure",
    "Interval",
    "Measurement",
    "Monitor",
    "Reading",
    "Row",
    "Verdict",
    "monitoring",
]
