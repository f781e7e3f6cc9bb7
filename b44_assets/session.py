"""What every part of the engine is given: where the target is, what `sql/` says, and whom to tell about progress.

What belongs here: the context of a run and the few helpers that every part needs. What does not: any step of the work.
"""

from __future__ import annotations

import random
import time
from collections import defaultdict
from collections.abc import Callable, Collection, Generator, Iterable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from typing import Any, Final, LiteralString, Self, TypeVar, cast

import psycopg
from psycopg import errors, sql
from psycopg.pq import TransactionStatus
from psycopg.rows import TupleRow

from b44_assets.catalog import Catalog
from b44_assets.config.quantities import DEFAULT_PLAUSIBLE_YEARS, ContentFormat, Pace, QuarantineLimit
from b44_assets.config.settings import Settings
from b44_assets.errors import DatabaseError, FullDiskError, TransientDatabaseError
from b44_assets.postgres.advisory_locks import HeldLock, LockHolder, advisory_lock
from b44_assets.postgres.connect import CANCEL_SECONDS, cancelling, connect, renew, room_of_server
from b44_assets.postgres.embedded import target_url
from b44_assets.postgres.error_classes import READ_ONLY, FaultClass, backoff, classify, exhausted
from b44_assets.postgres.read_replica import ReadReplica, connect_replica

T = TypeVar("T")

Connection = psycopg.Connection[TupleRow]
"""A connection in autocommit mode; every step opens its transactions itself."""

Progress = Callable[[str, int, int], None]
"""Told `(what, done, total)`; the unit is records, or bytes while a file is read. `total` is 0 where it is not known."""


MIGRATION_LOCK = "migrate"
"""Held by whoever moves records of a database, and exclusively by whoever stages an export."""


def read_replica_of(settings: Settings) -> ReadReplica | None:
    """The standby that the settings name; None where they name none."""
    return None if settings.read_url is None else ReadReplica(settings.read_url, settings.read_wait)


def silent(what: str, done: int, total: int) -> None:
    """The `Progress` that nobody watches."""


def unsaid(line: str) -> None:
    """The listener that nobody is."""


def unguarded() -> None:
    """The guard of a run that nothing keeps from going on."""


IDLE_IN_TRANSACTION_MS = 10_000
"""How long a transaction of ours may hold its locks while nothing comes from us: our process is suspended, or its machine."""
AT_ONCE = 2
"""How many questions that do not depend on each other are put to the server at a time."""
_CANCEL_EVERY_SECONDS = 0.1


_BEGINNING = sql.SQL("set search_path = public; set idle_in_transaction_session_timeout = {idle}")


@dataclass
class Kept:
    """The connections of a session that keeps them (`Session.keeping`); several threads may take and return them.

    Attributes:
        free: Those to be used again, by URL: of the target, or of its standby.
        busy: Those in use.
    """

    free: defaultdict[str, list[Connection]] = field(default_factory=lambda: defaultdict(list))
    busy: set[Connection] = field(default_factory=set[Connection])

    def take(self, url: str) -> Connection | None:
        """One to be used again, or None where all are in use."""
        # Not a question before it: another thread may take the last one between the two.
        with suppress(IndexError):
            return self.free[url].pop()
        return None

    def rest(self) -> None:
        """Gives back the locks of those that nobody uses; one that is lost is closed."""
        for url in tuple(self.free):
            rested: list[Connection] = []
            # Taken meanwhile, lest another thread use them.
            while (conn := self.take(url)) is not None:
                try:
                    conn.execute("select pg_advisory_unlock_all()")
                except psycopg.Error:
                    conn.close()
                else:
                    rested.append(conn)
            self.free[url] += rested

    def close(self) -> None:
        """Closes those that nobody uses."""
        for url in tuple(self.free):
            while (conn := self.take(url)) is not None:
                conn.close()


@dataclass(frozen=True)
class Session:
    """The context of a run.

    Attributes:
        url: Connection string of the target database.
        catalog: The files of `sql/`.
        run_id: The Dagster run, for the migration tables; None outside of one.
        pace: How hard a load may push.
        throttled: Whether the application is to have the server's other processors: no statement of ours takes a second one,
            a vacuum of ours rests as an autovacuum does, and what a load has written is vacuumed by it, one at a time.
        attempts: How often work is tried that fails for a reason that may pass by itself.
        max_quarantine: How many refused records stop an entity's load; None for no limit.
        plausible_years: How many years after it was staged a record's partition key may lie.
        content_format: What the fields are that mappings name as `html`.
        lock_timeout_ms: How long DDL may wait for a lock before it steps back and tries again, in milliseconds.
        progress: Whom to tell how far it is.
        notice: Whom to tell, in a line, that something is tried again or held back.
        sleep: How to wait, for tests.
        guard: Asked before every piece of work whether the run may go on; raises where it may not.
        lock: What keeps other migrations away from the run, if anything does; the guard asks it.
        kept: Its connections, where the session was made to keep them (`keeping`).
        read_replica: The standby that is read from where that is the same; None to read from the target.
    """

    url: str = field(repr=False)
    catalog: Catalog
    run_id: str | None = None
    pace: Pace = field(default_factory=Pace)
    throttled: bool = False
    attempts: int = 6
    max_quarantine: QuarantineLimit | None = None
    plausible_years: int = DEFAULT_PLAUSIBLE_YEARS
    content_format: ContentFormat = ContentFormat.HTML
    lock_timeout_ms: int = 200
    progress: Progress = silent
    notice: Callable[[str], None] = unsaid
    sleep: Callable[[float], None] = time.sleep
    guard: Callable[[], None] = unguarded
    lock: HeldLock | None = field(default=None, repr=False, compare=False)
    kept: Kept | None = field(default=None, repr=False, compare=False)
    read_replica: ReadReplica | None = field(default=None, repr=False, compare=False)

    @classmethod
    def of(
        cls,
        settings: Settings,
        catalog: Catalog,
        *,
        url: str | None = None,
        run_id: str | None = None,
        progress: Progress = silent,
        notice: Callable[[str], None] = unsaid,
        guard: Callable[[], None] = unguarded,
    ) -> Self:
        """The session that the settings ask for.

        Args:
            settings: In force.
            catalog: The files of `sql/`.
            url: Of another database than the target.
            run_id: The Dagster run, if there is one.
            progress: Whom to tell how far it is.
            notice: Whom to tell of what is tried again or held back.
            guard: Asked whether the run may go on.

        Raises:
            DatabaseError: The embedded server is the target, and cannot be started.
        """
        return cls(
            url=target_url(settings) if url is None else url,
            catalog=catalog,
            run_id=run_id,
            pace=settings.pace,
            throttled=settings.throttle,
            max_quarantine=settings.max_quarantine,
            plausible_years=settings.plausible_years,
            content_format=settings.content_format,
            lock_timeout_ms=settings.lock_timeout_ms,
            progress=progress,
            notice=notice,
            guard=guard,
            read_replica=read_replica_of(settings),
        )

    def under(self, lock: HeldLock) -> Self:
        """The same session, whose work ends where the lock is lost, and is waited for by whoever has the lock next."""
        return replace(self, guard=lock.check, lock=lock)

    def guard_again(self) -> None:
        """Asks before a piece of work that one of its connections was asked for: as `guard`, but for an answer of just now.

        Raises:
            LockLostError: As of `HeldLock.check`.
        """
        if self.lock is None:
            self.guard()
        else:
            self.lock.check_again()

    @contextmanager
    def keeping(self, kept: Kept | None = None) -> Generator[Session]:
        """The same session, which uses its connections again until the end of the block.

        Args:
            kept: Connections of sessions before this one, to be used again here and after it; by default none, and those of this
                session are closed at the end.
        """
        own = kept or Kept()
        try:
            yield replace(self, kept=own)
        finally:
            if kept is None:
                own.close()
            else:
                own.rest()

    @contextmanager
    def connection(self, purpose: str, *, idles: bool = False, replica: bool = False) -> Generator[Connection]:
        """A connection to the target whose running statement ends in the server, too, when the caller is interrupted.

        Where the session has a read replica, what only reads may ask for that: it has all then that the target had when the
        session first read from it. Unlogged tables, such as staged exports, cannot be read there.

        Args:
            purpose: Shown in `pg_stat_activity` as `b44 <purpose>`.
            idles: Whether its transactions may wait for us as long as they like, since we read files within them; they must
                lock nothing that an application uses. All others are ended by the server after `IDLE_IN_TRANSACTION_MS`, as
                a fault that may pass.
            replica: Whether the read replica will do, where the session has one.

        Raises:
            TransientDatabaseError: The server is not there or went away, or another transaction was in the way.
            DatabaseError: The target cannot be reached, cannot go on (its disk is full, …), or refuses a statement that
                nobody nearer to it has said more about.
        """
        reads = self.read_replica if replica else None
        try:
            # The files of sql/ name their objects without a schema, and PostgreSQL then shows them without one, too.
            # One round trip for all: this is asked for often.
            beginning = _BEGINNING.format(idle=0 if idles else IDLE_IN_TRANSACTION_MS)
            if reads is not None:
                beginning += sql.SQL("; set default_transaction_read_only = on")
            elif self.lock is not None:
                beginning += sql.SQL("; ") + self.lock.at_work()
            with self._connected(f"b44 {purpose}", beginning, reads) as conn, cancelling(conn):
                if reads is not None:
                    reads.require(conn, lambda: self.connection("look where the target is"))
                # Only now: whoever gets the lock after this sees that somebody is at work.
                self.guard()
                if self.throttled:
                    conn.execute("set max_parallel_workers_per_gather = 0; set max_parallel_maintenance_workers = 0")
                    conn.execute("set b44.throttled = 'on'; set vacuum_cost_delay = '2ms'")
                    # What is written in bulk goes to the disk little by little. Else the system holds it for half a
                    # minute, then writes it at once, and every commit has to wait for the disk.
                    conn.execute("set backend_flush_after = '256kB'")
                yield conn
        except psycopg.Error as error:
            fault = explained(purpose, error)
            if isinstance(fault, FullDiskError):
                fault = fault.having(room_of_server(self.url, fault.folder))
            raise fault from error
        except FullDiskError as fault:
            if fault.room is None:
                raise fault.having(room_of_server(self.url, fault.folder)) from fault.__cause__
            raise

    @contextmanager
    def _connected(
        self, name: str, beginning: sql.SQL | sql.Composed, reads: ReadReplica | None
    ) -> Generator[Connection]:
        url = self.url if reads is None else reads.url
        renewed = self._renewed(name, beginning, url)
        if renewed is not None:
            conn = renewed
        elif reads is None:
            conn = connect(url, application_name=name, autocommit=True)
        else:
            conn = connect_replica(url, application_name=name)
        kept = self.kept or Kept()
        kept.busy.add(conn)
        try:
            if renewed is None:
                conn.execute(beginning)
            yield conn
        except BaseException:
            conn.close()
            raise
        finally:
            kept.busy.discard(conn)
        if self.kept is not None and conn.info.transaction_status is TransactionStatus.IDLE:
            kept.free[url].append(conn)
        else:
            conn.close()

    def _renewed(self, name: str, beginning: sql.SQL | sql.Composed, url: str) -> Connection | None:
        while self.kept is not None and (conn := self.kept.take(url)) is not None:
            try:
                renew(conn, application_name=name, then=beginning)
            except psycopg.Error:
                # It was ended meanwhile; a new one tells whether the server still is there.
                conn.close()
            else:
                return conn
        return None


@contextmanager
def migrating(
    session: Session,
    tell: Callable[[str], None],
    *,
    shared: bool = False,
    busy: Callable[[LockHolder | None], None] | None = None,
) -> Generator[HeldLock]:
    """Keeps other migrations of the database away; begins when no other runs, and nothing of an earlier one is at work.

    Args:
        session: Of the database; what works meanwhile is to use `session.under(lock)`.
        tell: Told in a line whom it waits for.
        shared: Whether others may run at the same time that share it, too.
        busy: Called instead of `tell` where another migration runs; it may raise.

    Raises:
        DatabaseError: The target cannot be reached, or what an earlier run began does not end.
    """

    def waits(holder: LockHolder | None) -> None:
        tell(f"waiting for another migration of this database to end: {holder or 'it is just ending'}")

    def outlasts(left: LockHolder) -> None:
        tell(f"waiting for what an interrupted migration of this database has begun to end: {left}")

    with (
        session.connection("migrate") as conn,
        advisory_lock(conn, MIGRATION_LOCK, wait=busy or waits, shared=shared) as lock,
    ):
        lock.outlast(wait=outlasts)
        yield lock


def explained(what: str, error: psycopg.Error) -> DatabaseError:
    """An error of the server in one line, of the kind that says whether it may pass by itself."""
    lost = "the database could not go on: " if isinstance(error, psycopg.OperationalError) else ""
    said = f"{what}: {lost}{reason_of(error)}"
    if isinstance(error, errors.ReadOnlySqlTransaction) and "recovery" in said:
        return DatabaseError(f"{said}: {READ_ONLY}")
    match classify(error):
        case FaultClass.TRANSIENT:
            return TransientDatabaseError(said)
        case FaultClass.EXHAUSTED:
            return exhausted(said, error)
        case _:
            return DatabaseError(said)


def with_retry(session: Session, work: Callable[[], T]) -> T:
    """Does work that is all or nothing, again and again with longer pauses while it fails for a reason that may pass.

    Raises:
        TransientDatabaseError: The last attempt failed, too.
    """
    for attempt in range(1, session.attempts):
        try:
            return work()
        except TransientDatabaseError as error:
            session.notice(f"{error}; trying again ({attempt + 1} of {session.attempts})")
            session.sleep(backoff(attempt, random.random))
    return work()


def concurrently(session: Session, questions: Sequence[Callable[[], T]]) -> Generator[T]:
    """Yields what questions to the server return, in their order, while the next ones are looked into already.

    One after the other, each only when it is asked for, where the session is throttled or keeps no connections.
    When the caller is interrupted, or wants no more of them, what runs in the server for them ends as well.

    Args:
        session: What they use. A question must not depend on another, nor on what the caller does between two.
        questions: Each returns its answer, from a thread of its own.

    Raises:
        DatabaseError: As the question does whose turn it is.
    """
    if session.throttled or session.kept is None:
        for question in questions:
            yield question()
        return
    with ThreadPoolExecutor(AT_ONCE, thread_name_prefix="question") as pool:
        answers = [pool.submit(question) for question in questions]
        try:
            for answer in answers:
                yield answer.result()
        finally:
            for answer in answers:
                answer.cancel()
            cancel_until_done(answers, session.kept.busy)


def cancel_until_done(futures: Collection[Future[Any]], connections: Collection[Connection]) -> None:
    """Ends the SQL of threads in the server, which are not told of an interruption, and waits for them.

    Args:
        futures: What the threads do.
        connections: Those that they use; read anew each time.
    """
    # Again and again, since a thread may just be between two statements.
    while wait(futures, _CANCEL_EVERY_SECONDS).not_done:
        for conn in tuple(connections):
            # One that is closed or lost meanwhile runs nothing.
            with suppress(psycopg.Error):
                conn.cancel_safe(timeout=CANCEL_SECONDS)


def reason_of(error: psycopg.Error) -> str:
    """What the server, or else the client's library, gives as the reason: one line, without detail or hint."""
    return error.diag.message_primary or (str(error).splitlines() or [type(error).__name__])[0]


def scalar(conn: Connection, query: str | sql.Composable, params: Any = None) -> Any:
    """The first column of the first row, or None where there is no row."""
    row = conn.execute(_query(query), params).fetchone()
    return None if row is None else row[0]


def _query(query: str | sql.Composable) -> Any:
    return query.encode() if isinstance(query, str) else query


def take_advisory_lock(conn: Connection, name: str) -> None:
    """Waits for a lock of the whole database, by name, and keeps it until the connection ends.

    However long it takes: whoever holds it is another run of ours at the same work. Only our own tables are locked later
    on such a connection, so its other waits need no bound either.
    """
    conn.execute(
        sql.SQL("set lock_timeout = 0; select pg_advisory_lock(hashtextextended({}, 44))").format(sql.Literal(name))
    )


def columns_of(conn: Connection, schema: str, relation: str) -> dict[str, bool]:
    """The columns of a table or view in order, with whether each is generated; empty where there is no such relation."""
    # Asked some twenty times for each table: without joins, which take longer to plan than to run.
    rows = conn.execute(
        """
        select attname, attgenerated <> ''
          from pg_attribute
         where attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and attnum > 0 and not attisdropped
         order by attnum
        """,
        (schema, relation),
    ).fetchall()
    return dict(rows)


def absent_relations(conn: Connection, names: Iterable[str]) -> frozenset[str]:
    """Those of some tables and views that are not in schema public."""
    rows: list[tuple[str]] = conn.execute(
        "select name from unnest(%s::text[]) name where to_regclass('public.' || quote_ident(name)) is null",
        (list(names),),
    ).fetchall()
    return frozenset(name for (name,) in rows)


MADE: Final = ("created_date", "created_at")
"""Columns that say when a row was made. A table that has both has a field `created_at` of the app's own, of whatever type."""
CHANGED: Final = ("updated_date", "updated_at")
"""Columns that say when a row last changed, likewise."""


def time_column(conn: Connection, schema: str, relation: str, names: Sequence[str]) -> str | None:
    """The first of some columns that is a timestamptz; None where the table or view has none, or is not there."""
    return scalar(
        conn,
        """
        select attname
          from pg_attribute
         where attrelid = to_regclass(format('%%I.%%I', %s::text, %s::text)) and attname = any (%s::text[])
           and atttypid = 'timestamptz'::regtype and not attisdropped
         order by array_position(%s::text[], attname::text)
         limit 1
        """,
        (schema, relation, list(names), list(names)),
    )


def trusted(text: str) -> sql.SQL:
    """Text of a file under `sql/`, or that the server has given, as SQL to be put in for a `{}`: trusted as the program itself is."""
    return sql.SQL(cast(LiteralString, text))


def identifiers(names: list[str] | tuple[str, ...], prefix: str | None = None) -> sql.Composed:
    """Column names as SQL, comma-separated, each after `prefix.` where one is given."""
    if prefix is None:
        return sql.SQL(", ").join(sql.Identifier(name) for name in names)
    return sql.SQL(", ").join(sql.Identifier(prefix, name) for name in names)


def checksum(names: list[str] | tuple[str, ...], prefix: str) -> sql.Composed:
    """A 64-bit checksum over columns of a row: equal rows have equal ones, whichever table they stand in."""
    return sql.SQL("hash_record_extended(row({}), 0)").format(identifiers(names, prefix))


def pass_rules(conn: Connection) -> None:
    """Says that this transaction writes rows that the mapping has judged, so that triggers for an application's let them by.

    It has a meaning only for who owns the tables, and only until the transaction ends; see `b44.migrating`.
    """
    # Triggers of an earlier version, not brought up to date yet, look for another word.
    conn.execute(
        "select set_config('b44.migrating', case when to_regprocedure('b44.migrating(regclass)') is null then 'on'"
        " else pg_current_xact_id()::text end, true)"
    )


def plan_for_bulk(conn: Connection) -> None:
    """Settings of a transaction that reads whole tables: memory to sort in, and no plan that is good only for few rows.

    Staged and freshly loaded tables have no statistics yet, and a nested loop over a mapping evaluates it once a row.
    Evaluating it is the dear part, passing rows between parallel workers is not.
    """
    conn.execute(
        "set local work_mem = '256MB'; set local enable_nestloop = off; set local enable_mergejoin = off;"
        " set local parallel_tuple_cost = 0"
    )
