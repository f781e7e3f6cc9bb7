"""What kind of fault an error of the database is, so that whoever met with it knows whether to try again."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Callable
from enum import StrEnum

import psycopg

from b44_assets.errors import ExhaustedError, FullDiskError

_FIRST_PAUSE_SECONDS = 0.25
_DOUBLINGS = 5
"""From a quarter of a second to eight seconds."""


class FaultClass(StrEnum):
    """What can be done about an error.

    Attributes:
        TRANSIENT: The same again may succeed: the connection was lost, somebody stood in the way, the server restarts.
        DATA: The records are at fault; the same again fails again, and other records do not.
        EXHAUSTED: The server has run out of something, such as its disk, and cannot go on until somebody helps.
        PERMANENT: All else: a defect of a statement, a missing right, or somebody has ended it on purpose.
    """

    TRANSIENT = "transient"
    DATA = "data"
    EXHAUSTED = "exhausted"
    PERMANENT = "permanent"


READ_ONLY = "the server is read-only (a standby, or one that recovers): name the primary server in the URL"

# SQLSTATE → class; where a code is not named, its first two digits count. See PostgreSQL's appendix A.
_CODES: dict[str, FaultClass] = {
    "25P03": FaultClass.TRANSIENT,  # idle_in_transaction_session_timeout: it has ended the session
    "40001": FaultClass.TRANSIENT,  # serialization_failure
    "40P01": FaultClass.TRANSIENT,  # deadlock_detected
    "53000": FaultClass.EXHAUSTED,  # insufficient_resources
    "53100": FaultClass.EXHAUSTED,  # disk_full
    "53200": FaultClass.EXHAUSTED,  # out_of_memory
    "53300": FaultClass.TRANSIENT,  # too_many_connections
    "53400": FaultClass.EXHAUSTED,  # configuration_limit_exceeded, such as temp_file_limit
    "54000": FaultClass.DATA,  # program_limit_exceeded, such as a value too large for an index
    "55006": FaultClass.TRANSIENT,  # object_in_use, mostly by another session
    "55P03": FaultClass.TRANSIENT,  # lock_not_available
    "57P01": FaultClass.TRANSIENT,  # admin_shutdown
    "57P02": FaultClass.TRANSIENT,  # crash_shutdown
    "57P03": FaultClass.TRANSIENT,  # cannot_connect_now
    "57P05": FaultClass.TRANSIENT,  # idle_session_timeout
    "58030": FaultClass.EXHAUSTED,  # io_error
}
_CLASSES: dict[str, FaultClass] = {
    "08": FaultClass.TRANSIENT,  # connection_exception; a pooler says so of all that befalls it
    "22": FaultClass.DATA,  # data_exception
    "23": FaultClass.DATA,  # integrity_constraint_violation
}


_INTERNAL = "XX000"
_OVERTAKEN = ("tuple concurrently updated", "tuple concurrently deleted")
"""What the server says, in no other language, where two change the same role, or the same object's privileges, at once."""


def classify(error: psycopg.Error) -> FaultClass:
    """Tells what kind of fault an error on a connection is.

    Why an attempt to connect has failed is told by `connect`, since libpq gives words only.

    Args:
        error: As psycopg has raised it.
    """
    code = error.sqlstate
    if _over_quota(error):
        return FaultClass.EXHAUSTED
    if code == _INTERNAL and (error.diag.message_primary or "").startswith(_OVERTAKEN):
        return FaultClass.TRANSIENT
    if code is not None:
        return _CODES.get(code) or _CLASSES.get(code[:2], FaultClass.PERMANENT)
    if isinstance(error, psycopg.DataError):
        # A value that psycopg itself could not send.
        return FaultClass.DATA
    # Of these, psycopg and libpq raise OperationalError where the connection is gone, and others where we misuse it.
    return FaultClass.TRANSIENT if isinstance(error, psycopg.OperationalError) else FaultClass.PERMANENT


# The files that a message names, by their place in the data directory, and what they are.
_FILES: tuple[tuple[str, str], ...] = (
    (r"(?:base|pg_tblspc/\d+/[^/\"]+)/pgsql_tmp", "the server's temporary files ({folder})"),
    (r"pg_tblspc/\d+", "a tablespace of the server ({folder})"),
    ("pg_wal", "the server's WAL (pg_wal)"),
)


def is_of_statement(error: psycopg.Error) -> bool:
    """Whether the statement is at fault, or the rows that it reads.

    It is not where a lock was not to be had, the server lacks something, the connection was lost, or somebody has ended it. By
    psycopg's `OperationalError` alone it cannot be told: a table of too many columns is one as well.

    Args:
        error: As psycopg has raised it.
    """
    ended = (error.sqlstate or "").startswith("57")  # operator_intervention, such as query_canceled
    return not ended and classify(error) in (FaultClass.DATA, FaultClass.PERMANENT)


def exhausted(said: str, error: psycopg.Error) -> ExhaustedError:
    """What the server has run out of, and what helps, in a line.

    Args:
        said: What happened, in words.
        error: As psycopg has raised it; `classify` gives `EXHAUSTED`.
    """
    message = error.diag.message_primary or str(error)
    hint = (error.diag.message_hint or "").strip().rstrip(".")
    if error.sqlstate == "53100" or _over_quota(error):
        folder, what = "", "the server's data directory"
        for pattern, words in _FILES:
            if found := re.search(rf'"[^"]*?({pattern})[^"]*"', message):
                folder, what = found[1], words.format(folder=found[1])
                break
        full = FullDiskError(said, f"make room on the disk of {what}")
        full.folder = folder
        return full
    if error.sqlstate == "53200" and "max_locks_per_transaction" in hint:
        return ExhaustedError(said, "raise max_locks_per_transaction (64 by default), restart the server")
    if error.sqlstate == "53200":
        return ExhaustedError(
            said,
            "give the server more memory, end what else uses it, or set B44_THROTTLE=on and a smaller B44_BATCH_SIZE",
        )
    if error.sqlstate == "53400":
        return ExhaustedError(
            said, "raise the limit that is named (temp_file_limit: ALTER ROLE … SET temp_file_limit = -1)"
        )
    if error.sqlstate == "58030":
        return ExhaustedError(said, "see the server's log: its disk or file system reports a fault; mend that")
    return ExhaustedError(said, f"{hint[:1].lower()}{hint[1:]}" if hint else "see the server's log for what it lacks")


def _over_quota(error: psycopg.Error) -> bool:
    # PostgreSQL knows no code for it, and the system's words are in no other message.
    return error.sqlstate == _INTERNAL and os.strerror(errno.EDQUOT) in (error.diag.message_primary or "")


def condition_of(error: psycopg.Error) -> str:
    """PostgreSQL's own name for an error, such as `program_limit_exceeded`; for errors of the client, what psycopg calls them."""
    return re.sub("(?<!^)(?=[A-Z])", "_", type(error).__name__).lower()


def backoff(attempt: int, random: Callable[[], float]) -> float:
    """Returns how long to wait before trying again, in seconds: doubling from 0.25 to 8, less up to a half at random.

    Args:
        attempt: The attempt that has failed, counted from 1.
        random: Gives a number from 0 to 1, lest two who clashed clash again.
    """
    return _FIRST_PAUSE_SECONDS * 2 ** min(max(attempt, 1) - 1, _DOUBLINGS) * (1 - random() / 2)
