"""A moment at which a snapshot and a position in the WAL say the same: all that is committed before it, and nothing after.

A transaction is visible a little later than its commit stands in the WAL. So a snapshot says the same as a position only
where no transaction is between the two. Such a moment is looked for; where the load leaves none, it is made, by keeping
writers out of all tables for an instant.
"""

from __future__ import annotations

import random
import time
from collections.abc import Generator
from contextlib import ExitStack, contextmanager

from psycopg import Connection, errors, sql
from psycopg.rows import TupleRow

from b44_assets.backup.state import configure_session, snapshot
from b44_assets.errors import BackupError
from b44_assets.postgres.connect import connect
from b44_assets.postgres.deadline import Deadline

_LOOKING_SECONDS = 0.5
_TRYING_SECONDS = 120.0
# Others wait for a table behind us for so long at most, however many tables there are; and no longer than it takes the
# server to look for deadlocks, lest it ends the transaction of somebody who wants what we have and has what we want.
_HOLDING_SECONDS = 0.2
_OF_DEADLOCK_TIMEOUT = 0.6
_FIRST_USER_OBJECT = 16384

_POSITION = "select pg_current_wal_insert_lsn()::text"

# A transaction that writes holds the lock of its own number until after it is visible. It need not be in a snapshot's list.
_WRITING = (
    "select exists (select from pg_locks where locktype = 'transactionid' and mode = 'ExclusiveLock' and granted)"
)

_WRITERS = """\
select exists (
  select from pg_locks
  where locktype = 'relation' and granted and pid is distinct from pg_backend_pid()
    and database = (select oid from pg_database where datname = current_database()) and relation >= %s
    and mode in ('RowExclusiveLock', 'ShareRowExclusiveLock', 'ExclusiveLock', 'AccessExclusiveLock'))
"""

_OLDEST = """\
select format('a transaction open since %s (process %s)', to_char(xact_start, 'HH24:MI:SS'), pid)
from pg_stat_activity where backend_xid is not null and pid <> pg_backend_pid()
union all
select format('the prepared transaction %s', gid) from pg_prepared_xacts
order by 1 limit 1
"""


@contextmanager
def standing_still(
    asker: Connection[TupleRow], holder: Connection[TupleRow], url: str, *, looking: float = _LOOKING_SECONDS
) -> Generator[str]:
    """Finds such a moment. In the block, `holder` is in a transaction that sees the database as it was then.

    Args:
        asker: In autocommit mode; another connection than `holder`.
        holder: In autocommit mode, made so by `state.configure_session`.
        url: Of the same database, for a third connection if need be.
        looking: Seconds to look for such a moment before one is made.

    Yields:
        The position in the WAL.

    Raises:
        BackupError: There is none: other transactions do not end.
    """
    with ExitStack() as held:
        lsn = _look(asker, holder, held, looking)
        if lsn is None:
            with connect(url, application_name="b44 backup", autocommit=True) as locker:
                configure_session(locker)
                lsn = _make(locker, holder, held)
        yield lsn


def _look(asker: Connection[TupleRow], holder: Connection[TupleRow], held: ExitStack, seconds: float) -> str | None:
    begun = time.monotonic()
    while True:
        with ExitStack() as stack:
            stack.enter_context(snapshot(holder))
            # In this order. Who stands in the WAL before the first position and is not visible in the snapshot would be
            # seen writing between the two; who is visible in the snapshot stands before the second position.
            before = asker.execute(_POSITION).fetchone()
            writing = asker.execute(_WRITING).fetchone()
            after = holder.execute(_POSITION).fetchone()
            assert before is not None
            assert writing is not None
            assert after is not None
            if not writing[0] and after == before:
                held.push(stack.pop_all())
                return after[0]
        if time.monotonic() - begun > seconds:
            return None
        time.sleep(random.uniform(0.001, 0.02))


def _make(locker: Connection[TupleRow], holder: Connection[TupleRow], held: ExitStack) -> str:
    begun = time.monotonic()
    row = locker.execute("select setting::integer / 1000.0 from pg_settings where name = 'deadlock_timeout'").fetchone()
    holding = min(_HOLDING_SECONDS, _OF_DEADLOCK_TIMEOUT * float(row[0]) if row else _HOLDING_SECONDS)
    while True:
        # One for all tables and for both of us: what we hold already keeps writers waiting while we wait for the next.
        deadline = Deadline.after(holding)
        try:
            with snapshot(locker, without_writers=True, deadline=deadline):
                # All who have written to a table have ended: their locks go after they have become visible.
                row = locker.execute("select pg_export_snapshot(), pg_current_wal_insert_lsn()::text").fetchone()
                writers = locker.execute(_WRITERS, (_FIRST_USER_OBJECT,)).fetchone()
                assert row is not None
                assert writers is not None
                # What cannot be locked so, such as a materialized view that is being refreshed.
                if not writers[0]:
                    with ExitStack() as stack:
                        stack.enter_context(snapshot(holder, deadline=deadline))
                        holder.execute(sql.SQL("set transaction snapshot {}").format(sql.Literal(row[0])))
                        held.push(stack.pop_all())
                        return row[1]
        except (errors.LockNotAvailable, errors.DeadlockDetected):
            pass
        if time.monotonic() - begun > _TRYING_SECONDS:
            blocker = locker.execute(_OLDEST).fetchone()
            raise BackupError(
                f"no moment was found in {_TRYING_SECONDS:.0f} s at which no transaction was under way, to know what the"
                f" backup has to hold: {blocker[0] if blocker else 'tables are locked all the time'} stands in the way"
            )
        time.sleep(random.uniform(0.05, 0.3))
