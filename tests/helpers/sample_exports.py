"""The exports of the sample, and what the tests need of them."""

from __future__ import annotations

import re
from pathlib import Path


def keep_posts(export: Path, created: str) -> None:
    """Leaves of a sample's `Post.jsonl` those created at a time that begins like a regular expression.

    Each month of posts has some forty files in the database, and takes its time in a run.
    """
    posts = export / "Post.jsonl"
    pattern = re.compile(rf'"created_date": "{created}')
    kept = [line for line in posts.read_text().splitlines(keepends=True) if pattern.search(line)]
    assert len(kept) > 50
    posts.write_text("".join(kept))


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
