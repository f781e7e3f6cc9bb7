"""The JSON of the catalogue: each record carries its own checksum, so that damage to it is found like any other."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from datetime import UTC, datetime
from typing import Any

from b44_assets.backup.model import (
    Backup,
    BackupKind,
    DatabaseAccess,
    SourceState,
    StoredFile,
    TableState,
    Verification,
)
from b44_assets.errors import BadBackupError

FORMAT = 1


def written(record: Mapping[str, Any]) -> bytes:
    """Returns a record as it is stored.

    Args:
        record: Of what JSON knows.
    """
    document = {"format": FORMAT, "sha256": _digest(record), "record": record}
    return json.dumps(document, indent=1, ensure_ascii=False, allow_nan=False).encode()


def read(data: bytes, label: str) -> dict[str, Any]:
    """Returns a stored record.

    Args:
        data: All of the file.
        label: How the file is called in messages.

    Raises:
        BadBackupError: It is damaged, or written by a newer version.
    """
    try:
        document = json.loads(data)
        form, digest, record = document["format"], document["sha256"], document["record"]
        sound = digest == _digest(record) and isinstance(record, dict)
    except (ValueError, TypeError, LookupError, RecursionError) as error:
        raise BadBackupError(f"{label} is damaged: it is not the record that was written") from error
    if form != FORMAT:
        raise BadBackupError(f"{label} has format {form!r}, and this version reads {FORMAT}")
    if not sound:
        raise BadBackupError(f"{label} is damaged: its checksum differs from the recorded one")
    return record


def from_backup(backup: Backup) -> dict[str, Any]:
    """Returns a backup as a record; its verification has records of its own."""
    record = asdict(replace(backup, verification=None))
    del record["verification"]
    # An earlier version knows no such field.
    if not backup.left_out:
        del record["left_out"]
    for name in ("began_at", "ended_at"):
        record[name] = _time(record[name])
    record["state"]["taken_at"] = _time(record["state"]["taken_at"])
    return record


def to_backup(record: dict[str, Any], label: str) -> Backup:
    """Returns the backup of a record.

    Raises:
        BadBackupError: It is none.
    """
    try:
        state = record["state"]
        fields: dict[str, Any] = record | {
            "kind": BackupKind(record["kind"]),
            "began_at": datetime.fromisoformat(record["began_at"]),
            "ended_at": datetime.fromisoformat(record["ended_at"]),
            "files": tuple(_file(file) for file in record["files"]),
            "left_out": tuple(record.get("left_out", ())),
            "state": SourceState(
                taken_at=datetime.fromisoformat(state["taken_at"]),
                lsn=state["lsn"],
                schema=state["schema"],
                tables={name: TableState(**table) for name, table in state["tables"].items()},
                sequences=state["sequences"],
                access=_access(state.get("access")),
            ),
        }
        return Backup(**fields)
    except (LookupError, TypeError, ValueError, AttributeError) as error:
        raise BadBackupError(f"{label} is no record of a backup") from error


def from_verification(verification: Verification) -> dict[str, Any]:
    """Returns a verification as a record."""
    return {
        "verified_at": _time(verification.verified_at),
        "seconds": verification.seconds,
        "differences": list(verification.differences),
    }


def to_verification(record: dict[str, Any], label: str) -> Verification:
    """Returns the verification of a record.

    Raises:
        BadBackupError: It is none.
    """
    try:
        return Verification(
            datetime.fromisoformat(record["verified_at"]), float(record["seconds"]), tuple(record["differences"])
        )
    except (LookupError, TypeError, ValueError) as error:
        raise BadBackupError(f"{label} is no record of a verification") from error


def _file(record: dict[str, Any]) -> StoredFile:
    file = StoredFile(**record)
    if file.size < 0 or file.raw_size < 0 or any(part in ("", ".", "..") for part in file.name.split("/")):
        raise ValueError("no file of a backup")
    return file


def _access(record: dict[str, Any] | None) -> DatabaseAccess | None:
    if record is None:
        return None
    lists = {name: tuple(record[name]) for name in ("owners", "grantees", "named", "superusers", "database")}
    return DatabaseAccess(objects=record["objects"], database_owner=record["database_owner"], **lists)


def _time(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()


def _digest(record: object) -> str:
    text = json.dumps(record, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)
    return hashlib.sha256(text.encode()).hexdigest()
