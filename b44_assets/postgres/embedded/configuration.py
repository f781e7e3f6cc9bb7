"""The files that configure the server, and what they are reckoned from."""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

PORT = 5432
# Posts of five years have 1,700 files; what a session has open besides are a few sockets and logs.
OPEN_FILES = 8192

_MIB = 1024**2
_GIB = 1024**3

HBA = """\
# The socket's folder is open to the server's owner and to root only; nothing listens on the network.
local  all          all  trust
local  replication  all  trust
"""


def configuration(memory: int, shared_memory: int, processors: int, socket_dir: Path) -> str:
    """Returns `b44.conf`: PostgreSQL for bulk loads on one machine that it shares with other work.

    Args:
        memory: Bytes of memory that the machine, or the container, has.
        shared_memory: Bytes that `/dev/shm` can hold; 0 where there is none.
        processors: How many the machine has.
        socket_dir: Where the socket goes.
    """
    shared_buffers = _clamp(memory // 4, 128 * _MIB, 2 * _GIB)
    maintenance = _clamp(memory // 20, 64 * _MIB, _GIB)
    work = _clamp(memory // 64, 16 * _MIB, 64 * _MIB)
    cache = max(memory // 2, 256 * _MIB)
    lines: list[tuple[str, str, str]] = [
        ("cluster_name", "'b44'", "tells our processes from another server's in a list of processes"),
        ("listen_addresses", "''", "no network: the socket's folder is open to its owner only, hence no passwords"),
        (
            "unix_socket_directories",
            quoted_setting(str(socket_dir)),
            "short, because a socket's path may have 107 bytes",
        ),
        ("unix_socket_permissions", "0700", "a second door, should the folder ever be opened"),
        ("port", str(PORT), "part of the socket's name; written down, so that no PGPORT changes it"),
        ("shared_buffers", _mib(shared_buffers), "a quarter of memory; above 2 GB a bulk load gains nothing"),
        ("effective_cache_size", _mib(cache), "what the planner may expect the system to cache"),
        ("work_mem", _mib(work), "whole-entity sorts and hashes stay in memory; there are few sessions"),
        ("maintenance_work_mem", _mib(maintenance), "index builds follow each load"),
        (
            "autovacuum_max_workers",
            str(_clamp(processors // 2, 1, 3)),
            "half of the processors is left to the application",
        ),
        ("autovacuum_work_mem", "64MB", "else each of its workers may take as much as an index build"),
        (
            "max_locks_per_transaction",
            "1024",
            "one statement may touch every month of a table and each of its indexes, in every session at once",
        ),
        ("max_files_per_process", str(OPEN_FILES), "likewise; with fewer, to plan it is to open each of them anew"),
        ("dynamic_shared_memory_type", "posix" if shared_memory >= _GIB else "sysv", "small /dev/shm in containers"),
        (
            "constraint_exclusion",
            "off",
            "months are left out without it; to look at the checks of each is a tenth of a plan",
        ),
        ("random_page_cost", "1.1", "solid-state disks and a cache that holds most of it"),
        ("wal_level", "replica", "base backups and archiving of WAL need it"),
        ("max_wal_senders", "10", "pg_basebackup connects as one"),
        ("summarize_wal", "on", "incremental backups need it"),
        ("archive_mode", "on", "turning it on needs a restart; the command does not"),
        ("archive_command", "'/bin/true'", "nothing is kept until archiving is turned on"),
        ("wal_compression", "off", "this build has pglz only, which costs more processor time than it saves disk"),
        ("max_wal_size", "4GB", "a bulk load would otherwise run from one checkpoint into the next"),
        ("min_wal_size", "512MB", "segments are used again rather than made anew"),
        ("checkpoint_timeout", "15min", "likewise: fewer full-page images"),
        ("synchronous_commit", "on", "a batch that is reported as committed is on disk"),
        ("client_connection_check_interval", "2s", "the SQL of a client that was killed ends"),
        ("deadlock_timeout", "150ms", "below our lock_timeout: only this check makes autovacuum give way to DDL"),
        ("autovacuum", "on", "statistics for the planner right after a load, and no wrap-around"),
        ("timezone", "'UTC'", "months and days of the migration are those of UTC"),
        ("log_timezone", "'UTC'", "the log can be read beside Dagster's"),
        ("logging_collector", "on", "the only way to rotate while the server stays up"),
        ("log_directory", "'../log'", "beside the data, so that it is not part of a base backup"),
        ("log_filename", "'postgresql-%a.log'", "a ring of seven files, one a weekday"),
        ("log_rotation_age", "1d", "likewise"),
        ("log_rotation_size", "0", "a second file on one day would overwrite the first"),
        ("log_truncate_on_rotation", "on", "the file of a week ago is begun anew"),
        ("log_line_prefix", "'%m [%p] %a@%d '", "who: application and database"),
        ("log_lock_waits", "on", "monitoring counts them"),
        ("log_min_duration_statement", "1s", "slow statements; what they do is known by their text"),
        ("log_parameter_max_length", "0", "their values may be personal"),
        ("track_io_timing", "on", "what waits for the disk is told apart"),
        ("log_min_error_statement", "panic", "the text of a failed statement may hold a password or exported data"),
    ]
    return (
        "# Written anew by b44 at each start. To change a setting, use ALTER SYSTEM, which stands above this file.\n"
        + "".join(f"{name} = {value}  # {why}\n" for name, value, why in lines)
    )


def archiving(command: str | None) -> str:
    """Returns `archive.conf`."""
    if command is None:
        return "# Archiving was turned off; no base backup turns it on again.\n"
    return (
        "# Written by b44 when archiving is turned on.\n"
        f"archive_command = {quoted_setting(command)}\n"
        "archive_timeout = 60  # seconds: what may be lost where little is written\n"
    )


def quoted_setting(value: str) -> str:
    """Returns a value as it stands in postgresql.conf, where a backslash is the beginning of an escape."""
    return "'" + value.replace("\\", "\\\\").replace("'", "''").replace("\n", "\\n") + "'"


def _clamp(value: int, low: int, high: int) -> int:
    return max(low, min(value, high))


def _mib(size: int) -> str:
    return f"{size // _MIB}MB"


def available_memory() -> int:
    """Returns the bytes of memory that this machine, or the container we are in, has."""
    memory = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    for limit in ("/sys/fs/cgroup/memory.max", "/sys/fs/cgroup/memory/memory.limit_in_bytes"):
        with suppress(OSError, ValueError):  # no such file outside a container, and "max" is no number
            memory = min(memory, int(Path(limit).read_text()))
    return memory


def available_shared_memory() -> int:
    """Returns the bytes that /dev/shm can hold; 0 where there is none."""
    try:
        found = os.statvfs("/dev/shm")
    except FileNotFoundError:
        return 0
    return found.f_blocks * found.f_frsize
