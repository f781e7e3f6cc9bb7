"""A process that copies its standard input to its standard output without escape sequences: `python plain_output.py`.

Dagster's services colour their lines wherever they go. It is a process of its own since they may outlive whoever started them.
"""

import re
import sys

_ESCAPE = re.compile(rb"\x1b(?:\[[0-?]*[ -/]*[@-~]|[@-Z\\^_])")


def plain(line: bytes) -> bytes:
    """Returns a line without its escape sequences."""
    return _ESCAPE.sub(b"", line)


if __name__ == "__main__":
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(plain(line))
        sys.stdout.buffer.flush()
