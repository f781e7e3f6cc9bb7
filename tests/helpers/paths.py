"""Where the project's files are."""

from __future__ import annotations

from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
SQL_DIR = REPOSITORY / "sql"
EXPORTS = REPOSITORY / "tests" / "exports"
DIALECTS = sorted(folder.name for folder in EXPORTS.iterdir())
