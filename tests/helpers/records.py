"""Records of a small export, and the ids that they get."""

from __future__ import annotations

import random
import re
import uuid
from collections.abc import Mapping
from datetime import UTC, datetime

NAMESPACE = uuid.UUID("62617365-3434-8000-8000-00000000b044")
FIRST_SECOND = 1_700_000_000  # 2023-11-14 22:13:20 UTC
LONG_ID = random.Random(0).randbytes(4_500).hex()
"""Longer than a page of an index, and nothing that could be compressed."""
Record = Mapping[str, object]


def object_id(number: int, second: int | None = None) -> str:
    """A Base44 ObjectId: 24 hex digits that begin with the second of its creation, a second later for each number."""
    return f"{FIRST_SECOND + number if second is None else second:08x}{number:016x}"


def uuid_of(base44_id: str) -> str:
    """The UUID of an id by the documented formula, worked out apart from the SQL function."""
    if re.fullmatch("[0-9a-fA-F]{24}", base44_id):
        h = base44_id.lower()
        return f"{h[:8]}-{h[8:12]}-8{h[12:15]}-8{h[15:18]}-{h[18:24]}000b44"
    if re.fullmatch("[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", base44_id):
        return base44_id.lower()
    return str(uuid.uuid5(NAMESPACE, base44_id))


def user(number: int, **fields: object) -> dict[str, object]:
    """A sound User, a second younger for each number."""
    return {"id": object_id(number), "email": f"user{number}@example.com", **fields}


def post(number: int, **fields: object) -> dict[str, object]:
    """A sound Post of user 1, a second younger for each number."""
    return {
        "id": object_id(number),
        "title": f"Title {number}",
        "content": "Long enough.",
        "user_id": object_id(1),
        **fields,
    }


def moment(text: str) -> datetime:
    """A point in time from ISO 8601 text, UTC where it says nothing else."""
    parsed = datetime.fromisoformat(text)
    return parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)
