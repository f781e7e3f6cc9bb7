"""Connections to the target: same session settings everywhere, faults in one line, and SQL that ends when we do."""

from __future__ import annotations

import functools
import logging
import re
from collections.abc import Generator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, LiteralString, cast
from urllib.parse import quote

import psycopg
from psycopg import conninfo, errors, pq, sql
from psycopg.abc import RV, PQGen
from psycopg.rows import TupleRow

from b44_assets.errors import DatabaseError, TransientDatabaseError, free_at
from b44_assets.postgres.connection_urls import server_named, url_parameters
from b44_assets.postgres.error_classes import FaultClass, classify

logger = logging.getLogger(__name__)

OLDEST_VERSION = 15
NEWEST_VERSION = 18
DEFAULT_LOCK_TIMEOUT_MS = 60_000
CANCEL_SECONDS = 5.0
_POOLER_LOOKS = 5
"""How often it is looked whether two connections share a session; in a pool that others use, chance decides each time."""

# Only where the URL says nothing. An unreachable host is reported soon, and a connection that a firewall or a sleeping
# machine has dropped is noticed within a minute rather than after two hours.
_DEFAULTS: dict[str, str] = {
    "connect_timeout": "10",
    "keepalives_idle": "30",
    "keepalives_interval": "10",
    "keepalives_count": "3",
}

# Whatever a role or a database sets: our SQL means the same, writes and reads values in the same form, finds its plans,
# and is ended by no clock but our own. What is a matter of resources (memory, processes, costs, durability) stays as it is
# set. A name that a server does not know is passed over.
_SESSION: dict[str, str] = {
    # How values are written and read.
    "TimeZone": "UTC",
    "timezone_abbreviations": "Default",
    "DateStyle": "ISO, YMD",
    "IntervalStyle": "postgres",
    "bytea_output": "hex",
    "extra_float_digits": "1",
    "xmlbinary": "base64",
    "xmloption": "content",
    "lc_monetary": "C",
    "lc_numeric": "C",
    "lc_time": "C",
    # How SQL is read.
    "array_nulls": "on",
    "backslash_quote": "safe_encoding",
    "check_function_bodies": "on",
    "default_text_search_config": "pg_catalog.english",
    "escape_string_warning": "on",
    "quote_all_identifiers": "off",
    "restrict_nonsystem_relation_kind": "",
    "standard_conforming_strings": "on",
    "transform_null_equals": "off",
    # What a statement may do, and see.
    "client_min_messages": "notice",
    "createrole_self_grant": "",
    "default_table_access_method": "heap",
    "default_transaction_deferrable": "off",
    "default_transaction_isolation": "read committed",
    "default_transaction_read_only": "off",
    "exit_on_error": "off",
    "gin_fuzzy_search_limit": "0",
    # What a policy would keep from us is an error, and not a row that is missed.
    "row_security": "off",
    "stats_fetch_consistency": "cache",
    # Hosted servers set them to minutes, and an index takes longer. A lock of the session goes with the session.
    "statement_timeout": "0",
    "transaction_timeout": "0",
    "idle_in_transaction_session_timeout": "0",
    "idle_session_timeout": "0",
    "tcp_user_timeout": "0",
    # Plans. Compiling a batch takes longer than running it, and a worker for each expression of a function takes for ever.
    "jit": "off",
    "force_parallel_mode": "off",
    "debug_parallel_query": "off",
    "constraint_exclusion": "partition",
    "cursor_tuple_fraction": "0.1",
    "from_collapse_limit": "8",
    "join_collapse_limit": "8",
    "geqo": "on",
    "geqo_threshold": "12",
    "min_parallel_index_scan_size": "512kB",
    "min_parallel_table_scan_size": "8MB",
    "parallel_setup_cost": "1000",
    "parallel_tuple_cost": "0.1",
    "plan_cache_mode": "auto",
    "enable_async_append": "on",
    "enable_bitmapscan": "on",
    "enable_distinct_reordering": "on",
    "enable_gathermerge": "on",
    "enable_group_by_reordering": "on",
    "enable_hashagg": "on",
    "enable_hashjoin": "on",
    "enable_incremental_sort": "on",
    "enable_indexonlyscan": "on",
    "enable_indexscan": "on",
    "enable_material": "on",
    "enable_memoize": "on",
    "enable_mergejoin": "on",
    "enable_nestloop": "on",
    "enable_parallel_append": "on",
    "enable_parallel_hash": "on",
    "enable_partition_pruning": "on",
    "enable_partitionwise_aggregate": "off",
    "enable_partitionwise_join": "off",
    "enable_presorted_aggregate": "on",
    "enable_self_join_elimination": "on",
    "enable_seqscan": "on",
    "enable_sort": "on",
    "enable_tidscan": "on",
}

# A tablespace that is the database's own anyway is refused for a partitioned table.
_CONFIGURE = b"""
    SELECT pg_catalog.count(pg_catalog.set_config(name, value, false)),
           pg_catalog.current_setting('session_replication_role'),
           pg_catalog.pg_backend_pid(),
           (SELECT pg_catalog.set_config('default_tablespace', '', false)
              FROM pg_catalog.pg_database d
              JOIN pg_catalog.pg_tablespace t ON t.oid OPERATOR(pg_catalog.=) d.dattablespace
             WHERE d.datname OPERATOR(pg_catalog.=) pg_catalog.current_database()
               AND t.spcname OPERATOR(pg_catalog.=) pg_catalog.current_setting('default_tablespace')::pg_catalog.name)
      FROM ROWS FROM (pg_catalog.unnest(%s::pg_catalog.text[]), pg_catalog.unnest(%s::pg_catalog.text[]))
           AS wanted (name, value)
     WHERE pg_catalog.current_setting(name, true) IS NOT NULL
"""

# Not DISCARD ALL, which would drop prepared statements behind psycopg's back.
_AS_NEW = sql.SQL("RESET ALL; CLOSE ALL; UNLISTEN *; SELECT pg_catalog.pg_advisory_unlock_all(); DISCARD TEMP")
_AS_NEW_STATEMENTS = 5
_NOTHING = sql.SQL("")

# What the server or libpq says (in English) → what it means, and whether it may pass by itself. {where}, {user} and
# {database} are filled in.
_FAULTS: tuple[tuple[str, str, bool], ...] = (
    (
        r"password authentication failed",
        "{where} refuses the password of user {user}: correct it where the URL stands, with @ : / ? # % in it written as"
        " %40 %3A %2F %3F %23 %25",
        False,
    ),
    (
        r"no password supplied|password is required",
        "{where} asks for the password of user {user}: put it in the URL, in PGPASSWORD or in ~/.pgpass",
        False,
    ),
    (
        r"\A(?!.*SSL encryption).*no pg_hba\.conf entry.*no encryption",
        "{where} lets nobody connect to database {database} without TLS: put sslmode=require in the URL",
        False,
    ),
    (
        r"no pg_hba\.conf entry|pg_hba\.conf rejects",
        "{where} does not let user {user} connect to database {database} from here (its pg_hba.conf)",
        False,
    ),
    (
        r"(?:Peer|Ident|GSSAPI|LDAP|PAM|certificate) authentication failed",
        "{where} does not accept user {user} from here: its pg_hba.conf asks for another way to authenticate",
        False,
    ),
    (
        r"does not support SSL|SSL was required",
        "{where} offers no TLS, which sslmode in the URL asks for",
        False,
    ),
    (
        r"certificate verify failed|root certificate|server certificate|does not match host name",
        "the TLS certificate of {where} cannot be verified: check sslrootcert and the host's name in the URL",
        False,
    ),
    (r"SSL error|SSL SYSCALL error|tlsv1 alert", "no TLS connection to {where} could be made", False),
    (r'database ".*" does not exist', "{where} has no database {database}: create it, or correct the URL", False),
    (r'role ".*" does not exist', "{where} has no user {user}: create it, or correct the URL", False),
    (r"not permitted to log in", "user {user} may not log in on {where}", False),
    (r"permission denied for database", "user {user} may not connect to database {database} on {where}", False),
    (
        r"too many connections for (?:role|database)",
        "{where} lets user {user} have no further connection to database {database}: end some, or raise the CONNECTION LIMIT of"
        " role or database",
        True,
    ),
    (
        r"too many clients|remaining connection slots|too many connections|reserved for roles|no more connections allowed",
        "{where} has too many connections already: end some, or raise max_connections",
        True,
    ),
    (r"is starting up|not yet accepting|recovery mode", "{where} is still starting up: try again in a while", True),
    (r"shutting down", "{where} is shutting down", True),
    (
        r"could not translate host name|failed to resolve host|Name or service not known|nodename nor servname",
        "the name of {where} cannot be resolved: check how it is spelt, and the network",
        False,
    ),
    (r"No such file or directory", "no server listens on {where}", True),
    (
        r"Connection refused",
        "{where} refuses the connection: no server listens there; check host and port, and that it runs",
        True,
    ),
    (
        r"timeout expired|timed out|No route to host|Network is unreachable",
        "{where} cannot be reached: check host and port, and what is between, such as a firewall",
        True,
    ),
    (
        r"invalid response to SSL negotiation|expected authentication request",
        "what listens at {where} is no PostgreSQL: check host and port",
        False,
    ),
    (r"Permission denied", "{where} is closed to this account", False),
    (r"server closed the connection unexpectedly|Connection reset", "{where} closed the connection at once", True),
)


@dataclass(frozen=True)
class _Renewal:
    """What makes a connection's settings what `_make_plan` made them, as long as the server's own settings stay.

    Attributes:
        loaded: When the server read its settings.
        settings: Those that are not what the server, the database and the role set, with their values.
    """

    loaded: datetime
    settings: tuple[tuple[str, str], ...]


class _Connection(psycopg.Connection[TupleRow]):
    """Ends its statement in the server on any interruption, before a transaction around it tries to roll back.

    psycopg does so for KeyboardInterrupt only, and Dagster ends a run by raising a BaseException of its own.
    """

    renewal: _Renewal | None = None
    """How it is made as good as new again; known once that was done."""

    def wait(self, gen: PQGen[RV], *args: Any, **named: Any) -> RV:
        try:
            return super().wait(gen, *args, **named)
        except (Exception, KeyboardInterrupt, SystemExit):
            raise
        except BaseException:
            _end_statement(self)
            raise


def connect(
    url: str,
    *,
    application_name: str = "b44",
    autocommit: bool = False,
    lock_timeout_ms: int = DEFAULT_LOCK_TIMEOUT_MS,
) -> psycopg.Connection[TupleRow]:
    """Connects, and sets what our SQL relies on: UTC, ISO dates, UTF-8, and bounded waits for locks.

    The settings are made by SQL rather than by start-up options, which connection poolers refuse (a pooler must give us
    the same session throughout). TLS and all else stay as in the URL. Nothing is tried twice.

    Args:
        url: libpq URL.
        application_name: What `pg_stat_activity` shows.
        autocommit: As of psycopg.
        lock_timeout_ms: The session's `lock_timeout` in milliseconds, so that nothing waits for ever; 0 is no limit.
            `CREATE INDEX CONCURRENTLY`, which waits for old transactions too, needs a longer one.

    Returns:
        A connection; as a context manager it commits or rolls back, and closes.

    Raises:
        DatabaseError: If there is no connection to be had, the server is not one of PostgreSQL 15 to 18 with UTF-8, or a
            pooler gives each transaction another session. One line, without the password. A server newer than 18 is
            logged as a warning only.
        TransientDatabaseError: If there is none now, but may be in a while: the server starts up or shuts down, has too
            many clients, or cannot be reached.
    """
    parameters = url_parameters(url)
    where = server_named(parameters)
    wanted = _DEFAULTS | parameters | {"application_name": application_name, "client_encoding": "UTF8"}
    try:
        # Autocommit at first: what is set inside a transaction would go with its roll-back.
        conn = _Connection.connect(conninfo.make_conninfo(**wanted), autocommit=True)
    except psycopg.Error as error:
        raise _fault(error, parameters) from None
    try:
        _check_server(conn, where)
        pid = _make_plan(conn, where, lock_timeout_ms)
        if pid != conn.info.backend_pid:
            # What answers is not the server itself: poolers and proxies hand out numbers of their own.
            _check_pooler(conn, wanted, where)
        conn.autocommit = autocommit
    except psycopg.Error as error:
        conn.close()
        raise _fault(error, parameters) from None
    except BaseException:
        conn.close()
        raise
    return conn


def renew(
    conn: psycopg.Connection[TupleRow],
    *,
    application_name: str,
    then: sql.SQL | sql.Composed = _NOTHING,
) -> None:
    """Makes a connection as good as new for its next use: settings, advisory locks, temporary tables, cursors.

    What stays is the server's knowledge of the tables, which a new connection would gather anew. From the second time on it is
    one round trip, since a migration of many small tables does little else as often.

    Args:
        conn: In autocommit mode, with no transaction open.
        application_name: As of `connect`.
        then: Statements to be run after it, whose results are of no interest.

    Raises:
        psycopg.Error: It is none to be used any more.
    """
    known = conn.renewal if isinstance(conn, _Connection) else None
    if known is not None:
        chosen = {"lock_timeout": str(DEFAULT_LOCK_TIMEOUT_MS), "application_name": application_name}
        again = _renewing(tuple((dict(known.settings) | chosen).items())) + then
        if _loaded(conn.execute(again)) == known.loaded:
            return
    conn.execute(_AS_NEW)
    before = _settings(conn)
    _make_plan(conn, server_named(conn.info.get_parameters()), DEFAULT_LOCK_TIMEOUT_MS)
    if isinstance(conn, _Connection):
        loaded = conn.execute("SELECT pg_catalog.pg_conf_load_time()").fetchone()
        assert loaded is not None
        changed = {name: value for name, value in _settings(conn).items() if before.get(name) != value}
        conn.renewal = _Renewal(loaded[0], tuple(changed.items()))
    conn.execute("SELECT pg_catalog.set_config('application_name', %s, false)", (application_name,))
    conn.execute(then)


@functools.lru_cache(maxsize=256)
def _renewing(settings: tuple[tuple[str, str], ...]) -> sql.SQL:
    """What makes a connection as good as new, with some settings; written out once, since it is asked for often."""
    written = sql.SQL("{}; SELECT pg_catalog.pg_conf_load_time(), {}; ").format(
        _AS_NEW,
        sql.SQL(", ").join(
            sql.SQL("pg_catalog.set_config({}, {}, false)").format(name, value) for name, value in settings
        ),
    )
    return sql.SQL(cast(LiteralString, written.as_string()))


def _loaded(cursor: psycopg.Cursor[TupleRow]) -> datetime | None:
    """When the server read its settings, of the statements of a renewal."""
    # The results before are one for each statement of _AS_NEW.
    for _ in range(_AS_NEW_STATEMENTS):
        cursor.nextset()
    row = cursor.fetchone()
    return None if row is None else row[0]


def _settings(conn: psycopg.Connection[TupleRow]) -> dict[str, str]:
    """The settings of the session that `_make_plan` may change."""
    names = [
        *_SESSION,
        "lock_timeout",
        "default_tablespace",
        "session_replication_role",
        "client_connection_check_interval",
    ]
    rows = conn.execute(
        "SELECT name, pg_catalog.current_setting(name, true) FROM pg_catalog.unnest(%s::pg_catalog.text[]) AS wanted (name)"
        " WHERE pg_catalog.current_setting(name, true) IS NOT NULL",
        (names,),
    ).fetchall()
    return dict(rows)


def _make_plan(conn: psycopg.Connection[TupleRow], where: str, lock_timeout_ms: int) -> int:
    """Makes the settings of the session. Returns its process in the server.

    Raises:
        DatabaseError: The role's sessions skip all triggers, which only a superuser can change.
    """
    session = _SESSION | {"lock_timeout": str(lock_timeout_ms)}
    row = conn.execute(_CONFIGURE, (list(session), list(session.values()))).fetchone()
    assert row is not None
    if row[1] != "origin":
        try:
            conn.execute("SET session_replication_role = origin")
        except errors.InsufficientPrivilege as error:
            raise DatabaseError(
                f"session_replication_role is {row[1]} for user {conn.info.user!r} on {where}, so that no trigger would run:"
                f" have a superuser run ALTER ROLE {conn.info.user} RESET session_replication_role (or ALTER DATABASE)"
            ) from error
    try:
        # Ends SQL whose client was killed; the second net below `cancelling`.
        conn.execute("SELECT pg_catalog.set_config('client_connection_check_interval', '2s', false)")
    except errors.InvalidParameterValue:
        logger.debug("%s cannot watch for clients that have gone", where)
    return row[2]


def _check_pooler(conn: psycopg.Connection[TupleRow], wanted: dict[str, str], where: str) -> None:
    """Refuses a pooler that gives a session to whoever begins a transaction: ours would share locks and settings with others.

    A second connection begins transactions. Where sessions are shared, it is given that which the first one has just used,
    or else keeps it from being given back to the first one.

    Raises:
        DatabaseError: Sessions are shared.
    """
    with _Connection.connect(conninfo.make_conninfo(**wanted), autocommit=True) as other:
        for _ in range(_POOLER_LOOKS):
            mine = _session_of(conn)
            try:
                with other.transaction():
                    shared = _session_of(other) == mine or _session_of(conn) != mine
            except errors.OperationalError as error:
                # PgBouncer's statement mode knows no transactions.
                if "statement pooling" not in str(error):
                    raise
                shared = True
            if shared:
                # Whoever is given the session next is not to find our settings in it.
                conn.execute("RESET ALL")
                raise DatabaseError(
                    f"{where} is a connection pooler that gives each transaction another session, such as PgBouncer with"
                    " pool_mode=transaction: put the address of the server itself in the URL, or that of a pool with"
                    " pool_mode=session"
                )


def room_of_server(url: str, folder: str = "") -> str:
    """How much is free on a disk of a server on this machine, in words; empty where that is not known.

    Args:
        url: libpq URL.
        folder: Which folder of its data directory; by default that itself.
    """
    directory = data_directory(url)
    return "" if directory is None else free_at(directory / folder)


def data_directory(url: str) -> Path | None:
    """The data directory of a server on this machine; None where it is on another, or may not be known.

    Args:
        url: libpq URL.
    """
    try:
        with connect(url, application_name="b44 room", autocommit=True) as conn:
            if not (conn.info.host.startswith(("/", "@")) or conn.info.hostaddr in ("127.0.0.1", "::1")):
                return None
            row = conn.execute("SELECT current_setting('data_directory', true)").fetchone()
    except (psycopg.Error, DatabaseError) as error:
        # The right to know it is missing, or the server is gone, which is told elsewhere.
        logger.debug("the room of the server is not known: %s", error)
        return None
    directory = Path(row[0]) if row is not None and row[0] else None
    return directory if directory is not None and directory.is_dir() else None


def _session_of(conn: psycopg.Connection[TupleRow]) -> int:
    row = conn.execute("SELECT pg_catalog.pg_backend_pid()").fetchone()
    assert row is not None
    return row[0]


@contextmanager
def cancelling(conn: psycopg.Connection[TupleRow]) -> Generator[psycopg.Connection[TupleRow]]:
    """Ends the SQL in the server when the block is left by any exception while it runs.

    psycopg does so for KeyboardInterrupt only, and Dagster ends a run by raising a BaseException of its own, on which
    the server would go on for hours. The connection is closed then, since its answer was never read; its transaction is
    rolled back by the server.
    """
    try:
        yield conn
    except BaseException:
        _end_statement(conn)
        raise


def _end_statement(conn: psycopg.Connection[TupleRow]) -> None:
    """Ends what runs in the server, if anything does; the connection is closed then, since its answer is not read."""
    if conn.info.transaction_status == pq.TransactionStatus.ACTIVE:
        try:
            conn.cancel_safe(timeout=CANCEL_SECONDS)
        except psycopg.Error as error:
            # The interruption is what must be seen; client_connection_check_interval ends the SQL shortly after.
            logger.warning("the SQL running in process %s could not be cancelled: %s", _pid(conn), error)
        finally:
            conn.close()


def _pid(conn: psycopg.Connection[TupleRow]) -> int | None:
    return None if conn.closed else conn.info.backend_pid


def _fault(error: psycopg.Error, parameters: dict[str, str]) -> DatabaseError:
    """Returns one line on why there is no connection, as the error that tells whether to try again."""
    text = str(error)
    names = {
        "where": server_named(parameters),
        "user": repr(parameters.get("user", "")) if parameters.get("user") else "of this system",
        "database": repr(parameters.get("dbname") or parameters.get("user", "")),
    }
    for pattern, meaning, passes in _FAULTS:
        if re.search(pattern, text, re.IGNORECASE | re.DOTALL):
            return (TransientDatabaseError if passes else DatabaseError)(meaning.format_map(names))
    # A server may speak another language; what it says is passed on, the password excepted.
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    said = lines[0] if lines else type(error).__name__
    for secret in (parameters.get("password"), parameters.get("sslpassword")):
        if secret:
            said = said.replace(secret, "***").replace(quote(secret, safe=""), "***")
    # Without a SQLSTATE, libpq has tried to connect, and in words that the table does not know.
    passes = error.sqlstate is not None and classify(error) is FaultClass.TRANSIENT
    return (TransientDatabaseError if passes else DatabaseError)(f"no connection to {names['where']}: {said}")


@functools.cache
def _warn_of_newer(where: str, version: int) -> None:
    """Says it once a process, however many connections there are."""
    logger.warning(
        "%s is PostgreSQL %s, newer than what this was tested with (%s to %s)",
        where,
        version,
        OLDEST_VERSION,
        NEWEST_VERSION,
    )


def _check_server(conn: psycopg.Connection[TupleRow], where: str) -> None:
    version = conn.info.server_version // 10_000
    if version < OLDEST_VERSION:
        raise DatabaseError(f"{where} is PostgreSQL {version}: {OLDEST_VERSION} to {NEWEST_VERSION} are supported")
    if version > NEWEST_VERSION:
        _warn_of_newer(where, version)
    encoding = conn.info.parameter_status("server_encoding")
    if encoding != "UTF8":
        raise DatabaseError(
            f"database {conn.info.dbname!r} is encoded in {encoding}: create one with"
            " ENCODING 'UTF8' TEMPLATE template0 and name that in the URL"
        )
