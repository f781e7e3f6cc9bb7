"""Backing up and restoring a migrated database, against plain pg_dump, pg_restore and pg_basebackup, in one run.

    python benchmarks/migrate.py --posts 500000 --keep /somewhere
    python benchmarks/backup.py --keep /somewhere

Works on the database that `migrate.py` has left. The plain programs write to the same disk, compressed by gzip as they do by
default (pg_dump -Fc, pg_basebackup -Ft -z), and verify nothing. Ours take the same, compressed by zstd, and encrypted with --key;
what proving costs is told apart.
"""

from __future__ import annotations

import argparse
import json
import shutil
import sys
from pathlib import Path
from typing import Any

import psycopg
from rich.console import Console
from rich.table import Column, Table

# Run as a script, the folder above is not on the path.
sys.path.insert(0, str(Path(__file__).parent.parent))

from b44_assets.backup.catalogue import Catalogue
from b44_assets.backup.encryption import Key
from b44_assets.backup.model import Backup, BackupKind
from b44_assets.backup.recovery import restore_physical
from b44_assets.backup.restoring import restore_logical
from b44_assets.backup.store import Store
from b44_assets.backup.taking import take
from b44_assets.backup.verification import verify
from b44_assets.errors import B44Error
from b44_assets.postgres.embedded import EmbeddedServer
from benchmarks.measuring import MIB, BenchmarkError, fresh_database, load, own_peak_rss, run, server, timed, workplace

DATABASE = "b44_benchmark"


def size_of(path: Path) -> int:
    """Bytes of a file, or of all in a folder."""
    return (
        path.stat().st_size
        if path.is_file()
        else sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    )


def say(what: str) -> None:
    """Tells on standard error what is being done; each takes minutes."""
    print(what, file=sys.stderr, flush=True)


def plain(embedded: EmbeddedServer, place: Path) -> dict[str, dict[str, float]]:
    """What PostgreSQL's own programs take: seconds and bytes."""
    programs, url = embedded.bin_dir, embedded.url(DATABASE)
    dump, base = place / "plain.dump", place / "plain.base"
    say("plain: pg_dump, pg_restore")
    dumped = run([programs / "pg_dump", "-Fc", "-f", dump, url])
    loaded = run([programs / "pg_restore", "-d", fresh_database(embedded, "plain"), "--no-owner", "-j2", dump])
    say("plain: pg_basebackup")
    copied = run(
        [
            programs / "pg_basebackup",
            "-d",
            embedded.url("postgres"),
            "-D",
            base,
            "-Ft",
            "-z",
            "-c",
            "fast",
            "-X",
            "fetch",
        ]
    )
    into = place / "plain.data"
    into.mkdir()
    unpacked = run(["tar", "-xzf", base / "base.tar.gz", "-C", into])
    facts = {
        "logical": {"seconds": dumped.seconds, "bytes": size_of(dump), "restore": loaded.seconds},
        "base": {"seconds": copied.seconds, "bytes": size_of(base), "restore": unpacked.seconds},
    }
    dump.unlink()
    shutil.rmtree(base)
    shutil.rmtree(into)
    with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
        conn.execute("drop database plain")
    return facts


def ours(embedded: EmbeddedServer, place: Path, key: Key | None) -> dict[str, dict[str, float]]:
    """What backups take that are verified."""
    store = place / "store"
    shutil.rmtree(store, ignore_errors=True)
    catalogue = Catalogue(Store.at(str(store)), key)
    facts: dict[str, dict[str, float]] = {}
    for kind in BackupKind:
        say(f"ours: {kind}")
        seconds, taken = timed(lambda kind=kind: take(kind, embedded.url(DATABASE), catalogue))
        say("  verification")
        verifying, verified = timed(lambda taken=taken: verify(catalogue, taken))
        if not verified.good:
            raise BenchmarkError(f"{verified.id} is not good: {verified.verification}")
        say("  restoring")
        restoring = restore(embedded, place, catalogue, verified)
        facts[kind.value] = {
            "seconds": seconds,
            "bytes": verified.size,
            "verification": verifying,
            "restore": restoring,
        }
    shutil.rmtree(store)
    return facts


def restore(embedded: EmbeddedServer, place: Path, catalogue: Catalogue, backup: Backup) -> float:
    """Restores a backup for good; returns the seconds."""
    if backup.kind is BackupKind.LOGICAL:
        seconds, _ = timed(lambda: restore_logical(catalogue, backup, fresh_database(embedded, "restored")))
        with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
            conn.execute("drop database restored")
        return seconds
    folder = place / "restored"
    # Without an archive: to the end of what the backup itself holds, as the plain program's.
    seconds, _ = timed(lambda: restore_physical(catalogue, folder, backup=backup))
    shutil.rmtree(folder)
    return seconds


def report(facts: dict[str, Any]) -> None:
    """Prints the figures as a table."""
    console = Console(highlight=False)
    table = Table("backup", *(Column(name, justify="right") for name in ("take s", "MiB", "verify s", "restore s")))
    for name in ("plain", "ours"):
        for kind, found in facts[name].items():
            table.add_row(
                f"{name} {kind}",
                f"{found['seconds']:.1f}",
                f"{found['bytes'] / MIB:.0f}",
                f"{found['verification']:.1f}" if "verification" in found else "",
                f"{found['restore']:.1f}",
            )
    console.print(f"database of {facts['database_bytes'] / MIB:,.0f} MiB; {facts['machine']}")
    console.print(table)
    for kind in ("logical", "base"):
        a, b = facts["ours"][kind], facts["plain"][kind]
        parts = ", ".join(f"{what} {a[what] / b[what]:.2f}" for what in ("seconds", "bytes", "restore"))
        console.print(
            f"{kind}, ours to plain: {parts}; taken and verified {(a['seconds'] + a['verification']) / b['seconds']:.2f}"
        )
    console.print(f"peak memory of our process: {facts['peak_rss'] / MIB:.0f} MiB")


def main() -> None:
    """Reads the options, measures, prints."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--keep", type=Path, required=True, help="folder that benchmarks/migrate.py was given")
    parser.add_argument("--key", action="store_true", help="encrypt ours")
    parser.add_argument("--json", action="store_true")
    options = parser.parse_args()
    try:
        with workplace(options.keep) as place, server(place / "home") as embedded:
            with psycopg.connect(embedded.url("postgres"), autocommit=True) as conn:
                row = conn.execute(
                    "select pg_database_size(datname) from pg_database where datname = %s", (DATABASE,)
                ).fetchone()
                if row is None:
                    raise BenchmarkError(
                        f"{place} has no database {DATABASE}: run benchmarks/migrate.py --keep {place} first"
                    )
                # A base backup takes the whole cluster.
                conn.execute("drop database if exists by_hand")
                conn.execute("drop database if exists warm")
                conn.execute("checkpoint")
            key = Key.generate() if options.key else None
            facts = {
                "database_bytes": row[0],
                "plain": plain(embedded, place),
                "ours": ours(embedded, place, key),
                "peak_rss": own_peak_rss(),
                "machine": load(),
            }
    except B44Error as error:
        raise SystemExit(f"backup: {error}") from error
    if options.json:
        print(json.dumps(facts))
    else:
        report(facts)


if __name__ == "__main__":
    main()
