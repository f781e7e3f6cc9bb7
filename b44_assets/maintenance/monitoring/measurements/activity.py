"""What sessions do: connections, transactions, the cache, locks."""

from __future__ import annotations

from b44_assets.config.settings import Settings
from b44_assets.maintenance.monitoring.judging import (
    at_least,
    at_most,
    count,
    lacking,
    limit_of,
    percent,
    share_of_increase,
    span,
)
from b44_assets.maintenance.monitoring.model import (
    Check,
    Measurement,
    Reading,
    Seen,
    Server,
    Verdict,
)
from b44_assets.maintenance.monitoring.reading import with_unseen

_FEW_TRANSACTIONS = 100
_FEW_BLOCKS = 10_000


def sessions_hidden(server: Server, what: str) -> tuple[str, ...]:
    """What a role that may not see others' sessions has to be told."""
    if server.monitors:
        return ()
    return (f"role {server.role} does not see {what}: GRANT pg_monitor TO {server.role}",)


def _hide_states(server: Server, seen: Seen, _: Settings) -> Seen:
    hidden = sessions_hidden(server, "states and transactions of other roles' sessions")
    if not hidden:
        return seen
    # What is shown of its own sessions would pass for all.
    shown = {name: seen.numbers[name] for name in ("allowed", "used", "used_ratio") if name in seen.numbers}
    return with_unseen(Seen(shown, seen.rows, seen.unseen), *hidden)


def _oldest(part: str, seconds: str, reading: Reading) -> str:
    """The session to look at, in words."""
    named = [row for row in reading.rows.get(part, ()) if row.numbers.get(seconds) is not None]
    if not named:
        return "the session"
    worst = max(named, key=lambda row: row.numbers[seconds])
    application = worst.labels["application"]
    return f"process {worst.labels['pid']}" + (f" ({application})" if application else "")


def _transaction(reading: Reading, settings: Settings) -> Verdict:
    return at_most(
        "longest_transaction_seconds",
        "transaction",
        span,
        "the longest transaction has taken",
        f"it keeps dead rows and locks; find out what {_oldest('oldest_transactions', 'transaction_seconds', reading)} does"
        " (pg_stat_activity) and end it by pg_terminate_backend where it was forgotten",
    )(reading, settings)


def _idle(reading: Reading, settings: Settings) -> Verdict:
    return at_most(
        "longest_idle_in_transaction_seconds",
        "idle_in_transaction",
        span,
        "the longest pause within a transaction is",
        f"{_oldest('oldest_transactions', 'idle_seconds', reading)} has begun a transaction and does nothing: have the"
        " application commit, or set idle_in_transaction_session_timeout",
    )(reading, settings)


def _encrypted(reading: Reading, settings: Settings) -> Verdict:
    named = reading.rows.get("unencrypted_sessions", ())
    who = (
        f", {named[0].labels['application'] or named[0].labels['role']} from {named[0].labels['address']} among them"
        if named
        else ""
    )
    return at_most(
        "unencrypted",
        "unencrypted",
        count,
        "sessions from other machines without TLS are",
        f"have clients connect with sslmode=verify-full{who}, and the server refuse others (hostssl in pg_hba.conf)",
    )(reading, settings)


CONNECTIONS = Measurement(
    "connections",
    "Connections in use of those that there may be, by state; idle and long transactions; sessions that are not encrypted.",
    ("connections", "connections_by_state", "oldest_transactions", "unencrypted_sessions"),
    (
        Check(
            "connections_left",
            "Others can still connect.",
            at_most(
                "used_ratio",
                "connections",
                percent,
                "of the connections in use are",
                "put a pooler such as PgBouncer before the server, close what is idle, or raise max_connections",
            ),
        ),
        Check("no_long_transaction", "No transaction holds back vacuum for long.", _transaction),
        Check("no_idle_transaction", "No session sits idle in a transaction.", _idle),
        Check("sessions_encrypted", "Nobody between two machines can read along.", _encrypted, warns=True),
    ),
    look=_hide_states,
)


TRANSACTIONS = Measurement(
    "transactions",
    "Transactions a second, how many of them were rolled back, rows read and written, sessions that broke off.",
    ("transactions",),
    (
        Check(
            "few_rollbacks",
            "Not unusually many transactions fail.",
            at_most(
                "rollback_ratio",
                "rollbacks",
                percent,
                "rolled back since the last time:",
                "look into the application's and the server's log for the errors",
            ),
            warns=True,
        ),
    ),
    # One failed statement of a handful is no pattern.
    derive=share_of_increase(
        "rollback_ratio", "rollbacks_total", "commits_total", fewest=_FEW_TRANSACTIONS, otherwise=0.0
    ),
)


CACHE = Measurement(
    "cache",
    "How many of the blocks that were asked for were in shared_buffers.",
    ("cache",),
    (
        Check(
            "mostly_cached",
            "Most blocks come from memory.",
            at_least(
                "hit_ratio",
                "cache_hits",
                percent,
                "from shared_buffers since the last time:",
                "raise shared_buffers, or find the statements that read whole tables (monitoring/slow_statements)",
            ),
            warns=True,
        ),
    ),
    derive=share_of_increase("hit_ratio", "hits_total", "reads_total", fewest=_FEW_BLOCKS, otherwise=1.0),
)


def _lock_wait(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("lock_waits", ())
    # At the head of the queue stands who waits for nobody.
    waiting = {row.labels["blocked"] for row in rows}
    heads = [row for row in rows if row.labels["blocked_by"] not in {"", *waiting}]
    who = (
        f"process {heads[0].labels['blocked_by']} ({heads[0].labels['blocking_application']},"
        f" {heads[0].labels['blocking_state']}) holds {heads[0].labels['object']}"
        if heads
        else "look into pg_locks"
    )
    return at_most(
        "longest_wait_seconds",
        "lock_wait",
        span,
        f"{count(reading.numbers.get('waiting', 0))} wait for locks, the longest for",
        f"{who}: let it end, or end it by pg_terminate_backend",
    )(reading, settings)


def _exclusive(reading: Reading, settings: Settings) -> Verdict:
    rows = reading.rows.get("exclusive_locks", ())
    who = f"process {rows[0].labels['pid']} keeps {rows[0].labels['object']} locked" if rows else "look into pg_locks"
    return at_most(
        "longest_exclusive_seconds",
        "exclusive_lock",
        span,
        "the longest transaction that keeps a table from others has taken",
        f"{who}: let it end, or end it by pg_terminate_backend",
    )(reading, settings)


def _deadlocks(reading: Reading, settings: Settings) -> Verdict:
    found, limit = reading.increases.get("deadlocks_total"), limit_of(settings, "deadlocks")
    if found is None:
        return lacking(reading)
    if limit is None or found <= limit:
        return Verdict(True, f"{count(found)} deadlocks since the last time")
    return Verdict(
        False,
        f"{count(found)} deadlocks since the last time, and at most {count(limit)} are wanted (deadlocks): the server's log"
        " names the statements; have transactions lock rows and tables in the same order",
    )


def _hide_transactions(server: Server, seen: Seen, _: Settings) -> Seen:
    hidden = sessions_hidden(server, "since when other roles' sessions hold locks")
    if not hidden:
        return seen
    shown = {name: value for name, value in seen.numbers.items() if name != "longest_exclusive_seconds"}
    return with_unseen(Seen(shown, seen.rows, seen.unseen), *hidden)


LOCKS = Measurement(
    "locks",
    "Who waits for locks and who blocks whom; tables locked for long; deadlocks.",
    ("locks", "lock_waits", "exclusive_locks"),
    (
        Check("no_long_wait", "Nobody waits long for a lock.", _lock_wait),
        Check("no_long_lock", "No transaction keeps a table from others for long.", _exclusive),
        Check("no_deadlock", "There was no deadlock since the last time.", _deadlocks, warns=True),
    ),
    look=_hide_transactions,
)
