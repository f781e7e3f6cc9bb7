"""Signals that end a command: a service manager's as Ctrl-C."""

from __future__ import annotations

import signal


def interrupted_by_sigterm() -> None:
    """From now on SIGTERM ends the command as Ctrl-C does: in the server, too, and with nothing left behind."""
    signal.signal(signal.SIGTERM, _interrupt)


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt
