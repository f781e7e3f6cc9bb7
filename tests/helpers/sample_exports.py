"""The exports of the sample, and what the tests need of them."""

from __future__ import annotations

import re
from pathlib import Path

from b44_assets.sample import write_sample


def keep_posts(export: Path, created: str) -> None:
    """Leaves of a sample's `Post.jsonl` those created at a time that begins like a regular expression.

    Each month of posts has some forty files in the database, and takes its time in a run.
    """
    posts = export / "Post.jsonl"
    pattern = re.compile(rf'"created_date": "{created}')
    kept = [line for line in posts.read_text().splitlines(keepends=True) if pattern.search(line)]
    assert len(kept) > 50
    posts.write_text("".join(kept))


def small_export(folder: Path) -> Path:
    """Writes a sample with every entity and posts of four months, some of them faulty. Returns the folder."""
    write_sample(folder, users=24, posts=1_000, seed=7, dialect="jsonl", faults=0.03)
    keep_posts(folder, "2026-0[6-9]")
    return folder


def table_of(entity: str) -> str:
    """The target table of one of the blog's entities."""
    return {
        "User": "users",
        "Category": "categories",
        "Post": "posts",
        "Event": "events",
        "UserPreference": "user_preferences",
        "UserSession": "user_sessions",
        "AuditLog": "audit_logs",
    }[entity]
