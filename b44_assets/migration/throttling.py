"""How hard a load may push: sizes of batches, rests between them, and holding back while the server is in trouble.

What belongs here: when the next batch may begin, and how large it is. What does not: what a batch does.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

import psycopg
from psycopg import sql

from b44_assets.config.quantities import Pace
from b44_assets.postgres.error_classes import FaultClass, classify
from b44_assets.session import Connection, reason_of

_SMALLEST_BATCH = 25
"""Below it, what a batch costs by itself counts for more than its records."""
_RECORDS_A_SECOND = 10_000
"""What a server is taken for until the first batch has shown better."""
_POLL_SECONDS = 0.25
"""How often a server in trouble is looked at, and how soon a pause ends when the load is stopped."""
_OURS = "b44 "
"""What the names of our own sessions begin with."""

_LAG = "replication lag"
_QUEUE = "waits for locks"
_WAL = "WAL"

# One value a measure; null where there is something that the role may not see.
_MEASURES: dict[str, sql.Composable] = {
    # Who only receives WAL, as pg_receivewal does, never replays any. Without pg_read_all_stats a standby shows as a row
    # of nulls.
    _LAG: sql.SQL(
        "select case when bool_or(state is null) then null"
        " else coalesce(max(extract(epoch from replay_lag)) filter (where replay_lsn is not null), 0) end::float8"
        " from pg_stat_replication"
    ),
    # pg_locks and the names of sessions are shown to every role, what a session waits for is not.
    _QUEUE: sql.SQL(
        "select count(*)::float8 from pg_locks l join pg_stat_activity a on a.pid = l.pid"
        " where not l.granted and a.datname = current_database() and not starts_with(a.application_name, {})"
    ).format(sql.Literal(_OURS)),
    _WAL: sql.SQL("select pg_wal_lsn_diff(pg_current_wal_insert_lsn(), '0/0')::float8"),
}


@dataclass
class Blindness:
    """What the role cannot see of the server's trouble; the streams of one load share it, so that it is told once.

    Attributes:
        measures: What cannot be measured.
    """

    measures: set[str] = field(default_factory=set[str])


class Pacer:
    """The pace of one stream of a load.

    Attributes:
        size: How many records the next batch may have.
    """

    def __init__(
        self,
        pace: Pace,
        *,
        blindness: Blindness | None = None,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        """A stream that has loaded nothing yet.

        Args:
            pace: How hard it may push.
            blindness: Shared by the streams of one load; by default the stream's own.
            clock: Gives seconds that never go back, for tests.
            sleep: How to wait for some seconds, for tests.
        """
        self._pace = pace
        self._blindness = Blindness() if blindness is None else blindness
        self._clock = clock
        self._sleep = sleep
        self._rest = 0.0
        self._wal: tuple[float, float] | None = None
        self._smallest = min(_SMALLEST_BATCH, pace.batch_size)
        self.size = self._within(pace.target_seconds * _RECORDS_A_SECOND)

    def done(self, records: int, seconds: float) -> None:
        """Learns from a committed batch: the next one has half to twice as many records, and the pause is known.

        Args:
            records: How many it had.
            seconds: What it took.
        """
        self.worked(seconds)
        target = self._pace.target_seconds
        # The last batch of a partition may be short, and says little of a full one unless it was slow even so.
        if records >= self.size or seconds > target:
            fitting = records * target / seconds if seconds > 0 else float("inf")
            self.size = self._within(min(max(fitting, self.size / 2), self.size * 2))

    def worked(self, seconds: float) -> None:
        """Learns of what the server had to do, a batch or not; the pause is known.

        Args:
            seconds: What it took.
        """
        self._rest = self._pace.pause.after(seconds)

    def _within(self, size: float) -> int:
        return round(min(max(size, self._smallest), self._pace.batch_size))

    def wait(self, conn: Connection, *, stopped: Callable[[], bool], told: Callable[[str], None]) -> None:
        """Rests after the last batch, and then for as long as the server is in trouble.

        Trouble is a standby that is too far behind, too many sessions of others that wait for locks, or too much WAL since
        the last batch began; see `Pace`. It costs one query where there is none.

        Args:
            conn: Autocommit, with no transaction open.
            stopped: Whether the load is to end; then this returns within a quarter of a second.
            told: Told in one line that it holds back and why, later that it goes on, and once of each measure that the
                role cannot see, which then counts as no trouble.

        Raises:
            psycopg.Error: The connection is lost.
        """
        rest, self._rest = self._rest, 0.0
        self._pause(rest, stopped)
        since: float | None = None
        while not stopped():
            trouble = self._trouble(conn, told)
            if trouble is None:
                break
            if since is None:
                since = self._clock()
                told(f"holding back: {trouble}")
            self._sleep(_POLL_SECONDS)
        if since is not None and not stopped():
            told(f"going on after {self._clock() - since:.1f} s")

    def _pause(self, seconds: float, stopped: Callable[[], bool]) -> None:
        end = self._clock() + seconds
        # As counted from the end, so that the time for looking does not add up.
        while (left := end - self._clock()) > 0 and not stopped():
            self._sleep(min(left, _POLL_SECONDS))

    def _trouble(self, conn: Connection, told: Callable[[str], None]) -> str | None:
        """What the server suffers from, in words, or None."""
        pace = self._pace
        found = self._measured(conn, told)
        if pace.max_replication_lag is not None and found.get(_LAG, 0) > pace.max_replication_lag:
            return (
                f"a standby is {found[_LAG]:.1f} s behind, more than the {pace.max_replication_lag:g} s of"
                " B44_MAX_REPLICATION_LAG"
            )
        if pace.max_lock_queue is not None and found.get(_QUEUE, 0) > pace.max_lock_queue:
            return f"{found[_QUEUE]:.0f} sessions wait for locks, more than the {pace.max_lock_queue} of B44_MAX_LOCK_QUEUE"
        if pace.max_wal_rate is not None and _WAL in found:
            now, written = self._clock(), found[_WAL]
            if self._wal is not None:
                began, before = self._wal
                # Over all the time since the last batch began, so that waiting makes up for what it wrote.
                rate = (written - before) / max(now - began, 1e-3)
                if rate > pace.max_wal_rate:
                    return (
                        f"{rate / 2**20:.1f} MB of WAL a second, more than the {pace.max_wal_rate / 2**20:.1f} MB of"
                        " B44_MAX_WAL_RATE"
                    )
            self._wal = now, written
        return None

    def _measured(self, conn: Connection, told: Callable[[str], None]) -> dict[str, float]:
        """What can be measured of what there is a limit for."""
        limits = {
            _LAG: self._pace.max_replication_lag,
            _QUEUE: self._pace.max_lock_queue,
            _WAL: self._pace.max_wal_rate,
        }
        wanted = [name for name, limit in limits.items() if limit is not None and name not in self._blindness.measures]
        found: dict[str, float] = {}
        for name, value in self._asked(conn, wanted).items():
            if isinstance(value, float):
                found[name] = value
            elif name not in self._blindness.measures:
                self._blindness.measures.add(name)
                told(f"{name} cannot be measured: {value or 'pg_read_all_stats is not granted to this role'}")
        return found

    def _asked(self, conn: Connection, measures: list[str]) -> dict[str, float | str | None]:
        """The value of each measure; None where the role is shown nulls, or what the server says against it."""
        if not measures:
            return {}
        query = sql.SQL("select {}").format(sql.SQL(", ").join(sql.SQL("({})").format(_MEASURES[m]) for m in measures))
        try:
            row = conn.execute(query).fetchone()
        except psycopg.Error as error:
            # What was cancelled was so because the load is to end.
            if classify(error) is not FaultClass.PERMANENT or isinstance(error, psycopg.errors.QueryCanceled):
                raise
            if len(measures) == 1:
                return {measures[0]: reason_of(error)}
            # One of them is to blame; the others go on.
            return {name: value for measure in measures for name, value in self._asked(conn, [measure]).items()}
        assert row is not None
        return dict(zip(measures, row, strict=True))
