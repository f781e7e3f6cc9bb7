"""The manifest of a physical backup: what files it has, and what WAL it needs.

That of PostgreSQL's own programs which would check it, pg_verifybackup, cannot run as the embedded package ships it. Here
files are looked for by name and size; that their contents are what the server sent is known from the seal.
"""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Any

from b44_assets.errors import BackupError
from b44_assets.wording import plural

MANIFEST = "backup_manifest"

# What the manifest does not list: WAL, and what tells the server how to begin.
_APART = {MANIFEST, "postgresql.auto.conf", "recovery.signal", "standby.signal"}
_WAL = "pg_wal/"


def wal_range(manifest: bytes) -> tuple[int, str, str]:
    """Returns timeline, start and end of the WAL that a backup needs.

    Args:
        manifest: All of it.

    Raises:
        BackupError: It is no manifest, as when a stream broke off before it.
    """
    try:
        (found,) = _parsed(manifest)["WAL-Ranges"]
        return int(found["Timeline"]), str(found["Start-LSN"]), str(found["End-LSN"])
    except (ValueError, TypeError, LookupError) as error:
        raise BackupError("pg_basebackup gave no manifest from which the backup could be checked") from error


def manifest_faults(folder: Path) -> list[str]:
    """Compares a data directory that no server has touched yet with the manifest in it.

    Args:
        folder: The data directory.

    Returns:
        Each file that is missing, of another size or not listed, in one line.
    """
    try:
        listed = _parsed((folder / MANIFEST).read_bytes())["Files"]
        sizes = {
            str(file["Path"]) if "Path" in file else os.fsdecode(bytes.fromhex(file["Encoded-Path"])): int(file["Size"])
            for file in listed
        }
    except FileNotFoundError:
        return [f"{MANIFEST} is missing"]
    except (ValueError, TypeError, LookupError):
        return [f"{MANIFEST} is damaged"]
    found = {
        str(path.relative_to(folder)): path.stat().st_size
        for path in folder.rglob("*")
        if path.is_file() and not path.is_symlink()
    }
    faults = [f"{name} is missing" for name in sizes if name not in found]
    faults += [
        f"{name} has {found[name]} {plural(found[name], 'byte')} instead of {size}"
        for name, size in sizes.items()
        if found.get(name, size) != size
    ]
    faults += [
        f"{name} is not in the manifest"
        for name in found
        if name not in sizes and name not in _APART and not name.startswith(_WAL)
    ]
    return sorted(faults)


def _parsed(manifest: bytes) -> dict[str, Any]:
    """Returns a manifest as JSON, if it is whole: its last line is a checksum of all before it."""
    body, _, end = manifest.rpartition(b'\n"Manifest-Checksum"')
    parsed = json.loads(manifest)
    if not end or parsed["Manifest-Checksum"] != hashlib.sha256(body + b"\n").hexdigest():
        raise ValueError("the manifest is not whole")
    return parsed
