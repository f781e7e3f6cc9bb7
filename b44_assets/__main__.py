"""Starts the command line, which Ctrl-C ends in one line from its first moment on."""

from __future__ import annotations

import sys

from b44_assets.garbage import collect_seldom


def main() -> None:
    """Run `b44`."""
    collect_seldom()
    try:
        # Takes a quarter of a second.
        from b44_assets.cli import main as run
    except KeyboardInterrupt:
        sys.stderr.write("interrupted\n")
        raise SystemExit(130) from None
    run()


if __name__ == "__main__":
    main()
