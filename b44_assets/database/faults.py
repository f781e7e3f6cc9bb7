"""What kind of fault an error of the database is, so that whoever met with it knows whether to try again."""

from __future__ import annotations

import re
from collections.abc import Callable
from enum import StrEnum

import psycopg

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


# SQLSTATE → class; where a code is not named, its first two digits count. See PostgreSQL's appendix A.
_CODES: dict[str, FaultClass] = {
    "25P03": FaultClass.TRANSIENT,  # idle_in_transaction_session_timeout: it has ended the session
    "40001": FaultClass.TRANSIENT,  # serialization_failure
    "40P01": FaultClass.TRANSIENT,  # deadlock_detected
    "53000": FaultClass.EXHAUSTED,  # insufficient_resources
    "53100": FaultClass.EXHAUSTED,  # disk_full
    "53200": FaultClass.EXHAUSTED,  # out_of_memory
    "53300": FaultClass.TRANSIENT,  # too_many_connections
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


def classify(error: psycopg.Error) -> FaultClass:
    """Tells what kind of fault an error on a connection is.

    Why an attempt to connect has failed is told by `connect`, since libpq gives words only.

    Args:
        error: As psycopg has raised it.
    """
    code = error.sqlstate
    if code is not None:
        return _CODES.get(code) or _CLASSES.get(code[:2], FaultClass.PERMANENT)
    if isinstance(error, psycopg.DataError):
        # A value that psycopg itself could not send.
        return FaultClass.DATA
    # Of these, psycopg and libpq raise OperationalError where the connection is gone, and others where we misuse it.
    return FaultClass.TRANSIENT if isinstance(error, psycopg.OperationalError) else FaultClass.PERMANENT


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
