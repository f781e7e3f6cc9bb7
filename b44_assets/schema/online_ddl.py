"""What every change of the schema needs: a short wait for locks, a scratch schema to compare with, and tact.

What belongs here: how a change is made without keeping others waiting. What does not: what indexes, constraints, triggers
and views are; see `indexes`, `constraints`, `triggers` and `views`.
"""

from __future__ import annotations

import functools
import re
import time
from bisect import bisect_right
from collections.abc import Callable, Generator, Iterable, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from itertools import accumulate
from typing import Any, Concatenate, ParamSpec, Self, TypeVar

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import ConstraintDefinition, Spec
from b44_assets.errors import DatabaseError
from b44_assets.failpoints import failpoint
from b44_assets.postgres.advisory_locks import advisory_lock
from b44_assets.postgres.error_classes import is_of_statement
from b44_assets.postgres.lock_retries import with_lock_retries
from b44_assets.session import Connection, Session, absent_relations, explained, scalar, trusted, with_retry

T = TypeVar("T")
P = ParamSpec("P")

LOCK_ATTEMPTS = 12
"""How often a change asks for its lock; with the pauses between, about a minute."""
CONCURRENT_LOCK_TIMEOUT_MS = 120_000
"""How long CONCURRENTLY may wait for old transactions; nobody but other DDL waits meanwhile."""
DEADLOCK_ATTEMPTS = 5
"""How often CONCURRENTLY is tried where its wait for old transactions makes a ring with theirs."""
SMALL_BYTES = 1024 * 1024
"""A table of this size is indexed within milliseconds; doing so CONCURRENTLY would wait for every old transaction."""
SHARED_BYTES = 32 * 1024 * 1024
"""From how many bytes of a table on two connections share its partitions: the server takes one after the other, and with a second
process large ones only."""

REBUILT = re.compile("_cc(new|old)[0-9]*$")
"""What REINDEX CONCURRENTLY adds to the name of the index that it builds, and to that of the one it replaces."""
_OF_MIGRATION_TABLES = re.compile(
    r"\s*(?:create\s+(?:or\s+replace\s+)?|comment\s+on\s+|alter\s+|(?:grant|revoke)\s[^;]*?\son\s+)(?:function|procedure|routine)\s+migration\.",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class SchemaChange:
    """What bringing a file of `sql/` into the database came to, by object.

    Attributes:
        name: The file's name.
        created: Objects that were not there.
        replaced: Objects whose definition had changed.
        unchanged: Objects that were as they should be.
        repaired: Objects that were there but not in force: an invalid index, a constraint never validated.
        online: Whether it was done as in live use, slower and without keeping writers waiting.
        seconds: How long it took.
        failed: Objects that rows make impossible, each with these rows in one line; the others were built all the same.
    """

    name: str
    created: tuple[str, ...] = ()
    replaced: tuple[str, ...] = ()
    unchanged: tuple[str, ...] = ()
    repaired: tuple[str, ...] = ()
    online: bool = False
    seconds: float = 0.0
    failed: Mapping[str, str] = field(default_factory=dict[str, str])

    @classmethod
    def of(
        cls,
        name: str,
        outcomes: Mapping[str, str],
        started: float,
        *,
        online: bool = False,
        failed: Mapping[str, str] | None = None,
    ) -> Self:
        """From what became of each object (`created`, `replaced`, `unchanged`, `repaired`), and when the work began."""
        created, replaced, unchanged, repaired = (
            tuple(item for item, outcome in outcomes.items() if outcome == wanted)
            for wanted in ("created", "replaced", "unchanged", "repaired")
        )
        return cls(name, created, replaced, unchanged, repaired, online, time.monotonic() - started, failed or {})

    @property
    def changed(self) -> bool:
        """Whether anything was done."""
        return bool(self.created or self.replaced or self.repaired)


def retrying(work: Callable[Concatenate[Session, Spec, P], T]) -> Callable[Concatenate[Session, Spec, P], T]:
    """Lets work on a file that changes nothing when it is done again be done again where a fault may pass by itself."""

    @functools.wraps(work)
    def retried(session: Session, spec: Spec, *args: P.args, **named: P.kwargs) -> T:
        return with_retry(session, lambda: work(session, spec, *args, **named))

    return retried


@contextmanager
def changing(session: Session, spec: Spec, relation: str) -> Generator[Connection]:
    """A connection for changing what belongs to a relation; whoever else wants to waits, without holding anything.

    Raises:
        DatabaseError: The target cannot be reached.
    """
    with session.connection(f"apply {spec.name}") as conn:
        conn.execute("set client_min_messages = warning")
        with advisory_lock(conn, f"b44 schema of {relation}"):
            yield conn


def change(session: Session, conn: Connection, operation: Callable[[Connection], T]) -> T:
    """Makes a change in a transaction of its own that never waits long for a lock, and tries again.

    Raises:
        DatabaseError: No attempt got its lock; names who stood in the way.
    """
    session.guard_again()

    def watched(conn: Connection) -> T:
        done = operation(conn)
        failpoint("schema: before commit", conn)
        return done

    done = with_lock_retries(conn, watched, lock_timeout=session.lock_timeout_ms, attempts=LOCK_ATTEMPTS)
    failpoint("schema: after commit", conn)
    return done


def change_by(
    session: Session, conn: Connection, spec: Spec, line: int, statement: sql.Composable | str, *, bulk: bool = False
) -> None:
    """Makes a change by one statement of a file, as `change` does.

    Args:
        session: The run.
        conn: A connection with no transaction open.
        spec: The file.
        line: Of the statement.
        statement: What it says, or comes to.
        bulk: Whether it reads or builds much, and is given the memory for it.

    Raises:
        DatabaseError: It fails, or no attempt got its lock; names file and line, or who stood in the way.
    """

    def operation(conn: Connection) -> None:
        if bulk:
            raise_memory(conn)
        run(conn, spec, line, statement)

    change(session, conn, operation)


def in_scratch_schema(session: Session, conn: Connection, operation: Callable[[Connection, str], T]) -> T:
    """Runs something in a schema that is gone afterwards, first on the search path: to see what statements come to.

    Args:
        session: The run.
        conn: A connection with no transaction open.
        operation: Told the connection and the schema's name.
    """

    def build(conn: Connection) -> T:
        with conn.transaction(force_rollback=True):
            schema = f"b44_scratch_{conn.info.backend_pid}"
            conn.execute(
                sql.SQL("create schema {schema}; set local search_path = {schema}, public").format(
                    schema=sql.Identifier(schema)
                )
            )
            return operation(conn, schema)

    return change(session, conn, build)


def shadow(conn: Connection, schema: str, tables: Iterable[str], *, keys: bool = False) -> None:
    """Makes empty tables in a scratch schema that look like those of public; with their keys, where these are wanted."""
    names = list(tables)
    if absent := absent_relations(conn, names):
        raise _no_table(min(absent))
    conn.execute(
        sql.SQL("; ").join(
            sql.SQL("create table {} (like {} including generated{})").format(
                sql.Identifier(schema, table),
                sql.Identifier("public", table),
                sql.SQL(" including indexes" if keys else ""),
            )
            for table in names
        )
    )


def on_shadow(schema: str, definition: ConstraintDefinition) -> sql.Composed:
    """The statements that add a constraint to the empty table of a scratch schema, as its file says."""
    table, name = sql.Identifier(schema, definition.table), sql.Identifier(definition.name)
    # The keys that a shadow has of its table may have the same name by the server's rules.
    return sql.SQL(
        "alter table {table} drop constraint if exists {name}; alter table {table} add constraint {name} {rest}"
    ).format(table=table, name=name, rest=trusted(definition.rest))


def of_migration_tables(text: str) -> bool:
    """Whether a statement makes or changes a function of schema migration, which goes after the cut-over."""
    return _OF_MIGRATION_TABLES.match(text) is not None


def run(conn: Connection, spec: Spec, line: int, query: sql.Composable | str) -> None:
    """Runs a statement of a file.

    Raises:
        psycopg.Error: As of `naming`.
        DatabaseError: It fails; names file and line.
    """
    # Text goes as it is: as a format, its braces would count.
    statement: Any = query.encode() if isinstance(query, str) else query
    with naming(spec, line):
        conn.execute(statement)


def run_together(conn: Connection, spec: Spec, statements: Sequence[tuple[int, sql.Composable | str]]) -> None:
    """Runs statements of a file in one round trip; where one fails, which one is found by running one after the other.

    Args:
        conn: With a transaction open.
        spec: The file.
        statements: Each with its line.

    Raises:
        psycopg.Error: As of `naming`.
        DatabaseError: One fails; names file and line.
    """
    if len(statements) > 1:
        texts = [part if isinstance(part, str) else part.as_string(conn) for _, part in statements]
        # Each on lines of its own: a comment may end it.
        parts = [f"{text}\n;\n" for text in ("savepoint b44_file", *texts, "release savepoint b44_file")]
        try:
            conn.execute("".join(parts).encode())
        except psycopg.Error as error:
            if not is_of_statement(error):
                raise
            try:
                conn.execute("rollback to savepoint b44_file; release savepoint b44_file")
            except errors.InvalidSavepointSpecification:
                # They could not be parsed, so that not even the first one was run; but where, the server has said.
                place = bisect_right(list(accumulate(map(len, parts))), int(error.diag.statement_position or 0) - 1)
                raise fault(spec, statements[max(place - 1, 0)][0], error) from error
        else:
            return
    for line, part in statements:
        run(conn, spec, line, part)


@contextmanager
def naming(spec: Spec, line: int) -> Generator[None]:
    """Lets an error of a statement of a file say so; any other is left to the caller, who may know to try again.

    Raises:
        psycopg.Error: As it came, where it is no fault of the statement.
        DatabaseError: The statement fails; names file and line.
    """
    try:
        yield
    except psycopg.Error as error:
        if not is_of_statement(error):
            raise
        raise fault(spec, line, error) from error


def fault(spec: Spec, line: int, error: psycopg.Error) -> DatabaseError:
    """The server's complaint about a line of a file; without its detail, which may show people's data."""
    return explained(f"{spec.path}:{line}", error)


def run_concurrently(
    conn: Connection, spec: Spec, line: int, query: sql.Composed, clean_up: Callable[[], object], session: Session
) -> None:
    """Runs a statement that cannot run in a transaction.

    Its waits are for old transactions and other DDL, and keep no reader or writer waiting; so they may be long. What a
    statement leaves that waited in vain is invalid, and finished by the next run: to drop it, one would have to wait, too.

    Args:
        conn: A connection with no transaction open.
        spec: The file.
        line: Its line.
        query: The statement.
        clean_up: Drops what it leaves behind when it fails for another reason.
        session: The run.

    Raises:
        DatabaseError: It fails, or somebody's transaction outlasts our patience; names it.
    """
    session.guard()
    set_timeout = sql.SQL("set lock_timeout = {}")
    conn.execute(set_timeout.format(sql.Literal(CONCURRENT_LOCK_TIMEOUT_MS)))
    try:
        for attempt in range(1, DEADLOCK_ATTEMPTS + 1):
            try:
                conn.execute(query)
                return
            except errors.LockNotAvailable as error:
                raise DatabaseError(
                    f"{spec.path}:{line}: waited in vain for {_oldest(conn)} to end; the next run will finish it"
                ) from error
            except errors.DeadlockDetected as error:
                if attempt == DEADLOCK_ATTEMPTS:
                    raise fault(spec, line, error) from error
                clean_up()
            except psycopg.Error as error:
                clean_up()
                raise fault(spec, line, error) from error
    finally:
        if not conn.closed:
            conn.execute(set_timeout.format(sql.Literal(session.lock_timeout_ms)))


def _oldest(conn: Connection) -> str:
    row = conn.execute(
        "select pid, coalesce(nullif(application_name, ''), 'unnamed') from pg_stat_activity"
        " where xact_start is not null and pid <> pg_backend_pid() and datname = current_database() order by xact_start limit 1"
    ).fetchone()
    return f"process {row[0]} ({row[1]})" if row else "a transaction that has just ended"


def is_live(session: Session, conn: Connection, table: str) -> bool:
    """Whether a table must be taken to be in use, so that no change may keep its writers waiting.

    It is not while it is small (`SMALL_BYTES`); nor when nobody else is connected to the database and every batch of its
    load belongs to this very run: then it is being filled for the first time, and the app is not there yet.
    """
    bytes_held, others = conn.execute(
        """
        select coalesce((select sum(pg_table_size(relid)) from pg_partition_tree(to_regclass(%(table)s))),
                        pg_table_size(to_regclass(%(table)s)), 0)::bigint,
               exists (select from pg_stat_activity
                        where datname = current_database() and usesysid is not null
                          -- Of what kind another role's session is, is not shown.
                          and coalesce(backend_type, 'client backend') = 'client backend'
                          and pid <> pg_backend_pid() and application_name not like 'b44%%'
                          -- One that has asked nothing yet, or was reset: a pooler keeps it, and nobody has it.
                          and (state is distinct from 'idle' or application_name <> '' or query not in ('', 'DISCARD ALL')))
        """,
        {"table": f"public.{table}"},
    ).fetchone() or (0, False)
    if bytes_held <= SMALL_BYTES:
        return False
    return others or not _freshly_loaded(session, conn, table)


def _freshly_loaded(session: Session, conn: Connection, table: str) -> bool:
    if scalar(conn, "select to_regclass('migration.migration_log')") is None:
        return False
    row = conn.execute(
        "select count(*), count(*) filter (where run_id is distinct from %s) from migration.migration_log"
        " where entity_type = %s and status = 'completed'",
        (session.run_id, table),
    ).fetchone()
    return row is not None and row[0] > 0 and row[1] == 0


def raise_memory(conn: Connection) -> None:
    """Gives the index builds of this transaction memory and workers, where nobody else needs them; never less than set."""
    conn.execute(
        """
        select set_config('maintenance_work_mem', greatest(pg_size_bytes(current_setting('maintenance_work_mem')),
                 268435456) / 1024 || 'kB', true),
               set_config('max_parallel_maintenance_workers',
                 greatest(current_setting('max_parallel_maintenance_workers')::integer,
                   case when current_setting('b44.throttled', true) = 'on' then 0 else 4 end)::text, true)
        """
    )


def relation_oid(conn: Connection, table: str) -> int:
    """The table's identifier in the catalogue.

    Raises:
        DatabaseError: There is no such table.
    """
    oid: Any = scalar(conn, "select to_regclass(%s)::oid::bigint", (f"public.{table}",))
    if oid is None:
        raise _no_table(table)
    return oid


def _no_table(table: str) -> DatabaseError:
    return DatabaseError(f"there is no table {table}; materialize it first")


def temporary_name(name: str) -> str:
    """The name under which a changed object is built before it takes the old one's place; within 63 bytes."""
    return f"{name.encode()[:59].decode(errors='ignore')}_new"
