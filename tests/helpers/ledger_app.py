"""An app of tables and mappings alone, with as many tables as a test wants."""

from __future__ import annotations

import json
from pathlib import Path


def write_app(folder: Path, tables: int) -> list[str]:
    """Writes an app folder of tables and mappings alone, each mapping reading the table before, and returns the tables' names."""
    names = [f"ledger_{number:02}" for number in range(tables)]
    for kind in ("tables", "mappings"):
        (folder / kind).mkdir(parents=True)
    for number, name in enumerate(names):
        before = f"-- depends: {names[number - 1]}\n" if number else ""
        (folder / "tables" / f"{name}.sql").write_text(
            f"-- Entries of ledger {number}.\n\n"
            f"create table if not exists {name} (id uuid primary key, remark text, booked_at timestamptz not null);\n\n"
            f"comment on table {name} is 'Entries of ledger {number}';\n"
        )
        (folder / "mappings" / f"{name}.sql").write_text(
            f"-- What becomes of an entry of ledger {number}.\n-- entity: Ledger{number:02}\n{before}"
            "-- fields: id, remark, created_date\n\n"
            "select f.record_number, f.base44_id, base44_uuid(f.base44_id) as id, f.remark,\n"
            "       coalesce(migration.as_timestamp(f.created_date), f.exported_at) as booked_at,\n"
            "       array_remove(array[\n"
            "         case when f.base44_id is null then 'missing_id' end,\n"
            "         case when f.superseded then 'duplicate_id' end], null) as reasons,\n"
            "       '{}'::jsonb[] as repairs, null::jsonb as unmapped\n"
            "  from source f\n"
        )
    return names


def write_entries(export: Path, ledger: int, count: int) -> None:
    """Writes an export of one table of such an app, all of it sound."""
    entry = {"remark": "x", "created_date": "2026-01-01T00:00:00"}
    entries = [{"id": f"65c4e6bb5482e2ced37c{number:04x}", **entry} for number in range(1, count + 1)]
    (export / f"Ledger{ledger:02}.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in entries))
