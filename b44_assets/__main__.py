"""Starts the command line, which Ctrl-C ends in one line from its first moment on."""

from __future__ import annotations

import gc
import sys


def main() -> None:
    """Run `b44`."""
    # What is imported stays; to look through it at Python's pace takes a quarter of the time that Dagster's imports take.
    gc.set_threshold(50_000, 20, 20)
    try:
        # Takes a quarter of a second.
        from b44_assets.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
