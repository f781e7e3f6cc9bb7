"""Makes measurements: over one connection, read only, without waiting for anybody."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from decimal import Decimal
from functools import cache
from importlib.resources import files
from typing import Any

import psycopg
from psycopg import errors, sql

from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError
from b44_assets.maintenance.monitoring.model import (
    COUNTER,
    EPOCHS,
    Earlier,
    Measurement,
    Number,
    Reading,
    Row,
    Seen,
    Server,
)
from b44_assets.session import Connection, Session, explained, scalar, trusted

LOCK_TIMEOUT_MS = 100
STATEMENT_TIMEOUT_MS = 10_000
_TEXT_OIDS = frozenset({18, 19, 25, 1042, 1043})  # "char", name, text, char(n), varchar

_FOLDER = files("b44_assets.maintenance.monitoring") / "sql"


@dataclass(frozen=True)
class Monitor:
    """A connection to measure over.

    Attributes:
        conn: To the target.
        server: What that says of itself.
        settings: The thresholds.
        replica: Connects to the read replica, the first time; None where there is none.
    """

    conn: Connection
    server: Server
    settings: Settings
    replica: Callable[[], Connection] | None = None

    def take(self, measurement: Measurement, before: Earlier | None = None) -> Reading:
        """Makes a measurement.

        What the role may not see, and what is locked or takes too long, is told in `unseen`.

        Args:
            measurement: Which.
            before: The numbers of the last time, for what has grown since.

        Raises:
            DatabaseError: The server has gone, or refuses a statement for another reason.
        """
        at = datetime.now(UTC)
        seen = self._see(measurement)
        seconds = None if before is None else (at - before.at).total_seconds()
        increases = increase(seen.numbers, before) if seconds else {}
        rates = {
            f"{name.removesuffix(COUNTER)}_per_second": grown / (seconds or 1) for name, grown in increases.items()
        }
        derived = measurement.derive(seen, before, increases, seconds) if measurement.derive else {}
        return Reading(
            measurement.name,
            at,
            {**seen.numbers, **rates, **derived},
            seen.rows,
            seen.unseen,
            seen.notes,
            increases,
            seconds,
            measurement.plots(seen) if measurement.plots else {},
        )

    def columns(self, part: str) -> tuple[str, ...]:
        """The figures and labels that a file of `sql/` gives on this server, whether or not there is an object to give them of."""
        statement = sql.SQL("select * from ({}) nothing limit 0").format(
            trusted(_statement(part, self.server).decode())
        )
        return tuple(column.name for column in self.conn.execute(statement).description or ())

    def _see(self, measurement: Measurement) -> Seen:
        table = measurement.needs_table
        if table is not None and not self._there(table):
            return Seen(notes=(f"there is no table {table}",))
        numbers: dict[str, Number] = {}
        rows: dict[str, tuple[Row, ...]] = {}
        unseen: list[str] = []
        conn = self.conn
        if measurement.replica and self.replica is not None:
            try:
                conn = self.replica()
            except DatabaseError as error:
                return Seen(unseen=(str(error),))
        for name in measurement.files:
            try:
                found = self._read(name, conn)
            except (errors.InsufficientPrivilege, errors.LockNotAvailable, errors.QueryCanceled) as error:
                unseen.append(_why(self.server, error, "b44_monitor" if table else None))
                continue
            if isinstance(found, tuple):
                rows[name] = found
            else:
                numbers |= found
        seen = Seen(numbers, rows, tuple(dict.fromkeys(unseen)))
        return measurement.look(self.server, seen, self.settings) if measurement.look else seen

    def _there(self, table: str) -> bool:
        # Not to_regclass, which is refused where the schema is closed to the role.
        return scalar(
            self.conn,
            "select exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace"
            " where n.nspname || '.' || c.relname = %s)",
            (table,),
        )

    def _read(self, name: str, conn: Connection) -> tuple[Row, ...] | dict[str, Number]:
        try:
            cursor = conn.execute(_statement(name, self.server))
        except (errors.InsufficientPrivilege, errors.LockNotAvailable, errors.QueryCanceled):
            raise
        except psycopg.Error as error:
            raise explained(f"{name} cannot be measured", error) from error
        columns = cursor.description or []
        texts = {column.name for column in columns if column.type_code in _TEXT_OIDS}
        records = [dict(zip([column.name for column in columns], record, strict=True)) for record in cursor.fetchall()]
        if texts:
            return tuple(
                Row({name: record[name] or "" for name in record if name in texts}, _numbers(record, texts))
                for record in records
            )
        return _numbers(records[0], texts) if records else {}


@contextmanager
def monitoring(session: Session, settings: Settings) -> Generator[Monitor]:
    """A connection to measure over, which reads only, and waits neither for a lock nor long for an answer.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    with ExitStack() as stack:

        @cache
        def connected(*, replica: bool) -> Connection:
            conn = stack.enter_context(session.connection("monitoring", replica=replica))
            conn.execute(
                sql.SQL(
                    "set search_path = pg_catalog; set default_transaction_read_only = on; set row_security = on;"
                    " set lock_timeout = {}; set statement_timeout = {}; set max_parallel_workers_per_gather = 0"
                ).format(LOCK_TIMEOUT_MS, STATEMENT_TIMEOUT_MS)
            )
            return conn

        conn = connected(replica=False)
        replica = None if session.read_replica is None else lambda: connected(replica=True)
        yield Monitor(conn, _server(conn), settings, replica)


def increase(numbers: Mapping[str, Number], before: Earlier | None) -> dict[str, Number]:
    """By how much each counter has grown; nothing where counters have begun anew.

    Args:
        numbers: Of now.
        before: Of the last time.
    """
    if before is None:
        return {}
    # What was never reset has no such moment.
    if any(abs(numbers.get(name, 0) - before.numbers.get(name, 0)) > 1 for name in EPOCHS):
        return {}
    known = [name for name in numbers if name.endswith(COUNTER) and name in before.numbers]
    if any(numbers[name] < before.numbers[name] for name in known):
        return {}
    return {name: numbers[name] - before.numbers[name] for name in known}


def _why(server: Server, error: psycopg.Error, role: str | None) -> str:
    said = error.diag.message_primary or str(error)
    if isinstance(error, errors.InsufficientPrivilege):
        missing = role or ("what is missing" if server.monitors else "pg_monitor")
        return f"role {server.role} may not see it ({said}): GRANT {missing} TO {server.role}"
    if isinstance(error, errors.LockNotAvailable):
        return "others keep it locked; it is measured the next time"
    return f"the server took more than {STATEMENT_TIMEOUT_MS // 1000} s to answer"


def _numbers(record: Mapping[str, Any], texts: set[str]) -> dict[str, Number]:
    return {
        name: float(value) if isinstance(value, Decimal) else int(value) if isinstance(value, bool) else value
        for name, value in record.items()
        if name not in texts and value is not None
    }


def _server(conn: Connection) -> Server:
    row = conn.execute(_text("server")).fetchone()
    assert row is not None
    version, role, monitors, reads_settings, extensions, directory = row
    local = conn.info.host.startswith(("/", "@")) or conn.info.hostaddr in ("127.0.0.1", "::1")
    return Server(version, role, monitors, reads_settings, extensions, local, directory)


def _statement(name: str, server: Server) -> bytes:
    """The file of this name that fits the server best, as a statement.

    `name.17.sql` is for PostgreSQL 17 and newer, `name.pgstattuple.sql` for where that extension is, whose schema it has as
    `{extension}`; `name.sql` is for all others.
    """
    found = [(0, name)]
    for variant in _variants(name):
        wanted = variant.removeprefix(f"{name}.")
        if wanted.isdigit():
            if server.major >= int(wanted):
                found.append((int(wanted), variant))
        elif wanted in server.extensions:
            found.append((100, variant))
    _, best = max(found)
    extension = server.extensions.get(best.removeprefix(f"{name}."))
    text = _text(best)
    if extension is None:
        return text
    return trusted(text.decode()).format(extension=sql.Identifier(extension)).as_string(None).encode()


@cache
def _variants(name: str) -> tuple[str, ...]:
    return tuple(
        sorted(
            path.name.removesuffix(".sql")
            for path in _FOLDER.iterdir()
            if path.name.startswith(f"{name}.") and path.name != f"{name}.sql"
        )
    )


@cache
def _text(name: str) -> bytes:
    return (_FOLDER / f"{name}.sql").read_bytes()


def with_unseen(seen: Seen, *lines: str) -> Seen:
    """The same, with further lines on what could not be seen."""
    return replace(seen, unseen=(*seen.unseen, *lines))
