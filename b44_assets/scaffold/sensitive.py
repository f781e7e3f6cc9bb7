"""Which fields hold secrets, and which hold prose, by their names and formats."""

from __future__ import annotations

import re
from typing import Final

from b44_assets.scaffold.model import ColumnType, Field
from b44_assets.scaffold.names import snake_case

_SECRET: Final = re.compile(
    r"(?:^|_)(?:password|passwd|passphrase|passcode|secrets?|private_key|api_?keys?|access_keys?|auth_keys?|signing_key"
    r"|encryption_key|credentials?|totp|otp|mfa|two_factor_code|recovery_codes?|backup_codes?|tokens?|jwt|cvv|cvc|ssn|iban"
    r"|pin|pin_code|verification_code)(?:_(?:hash|hashed|encrypted|value|enc))?\Z"
)
_HELD: Final = frozenset(
    {ColumnType.TEXT, ColumnType.TEXT_ARRAY, ColumnType.JSONB, ColumnType.BIGINT, ColumnType.NUMERIC}
)
_COUNTED: Final = frozenset({"token", "tokens"})
"""What an app counts as often as it keeps it: numbers of these are no secrets."""

_PROSE_FORMATS: Final = frozenset({"text", "richtext", "markdown", "html", "textarea", "multiline"})
_PROSE: Final = frozenset(
    {
        "description",
        "content",
        "body",
        "text",
        "notes",
        "note",
        "bio",
        "biography",
        "summary",
        "message",
        "comment",
        "comments",
    }
    | {"details", "about", "excerpt", "abstract", "article", "answer", "question", "feedback", "transcript", "story"}
    | {"instructions", "overview", "remarks", "explanation"}
)
_LONG: Final = re.compile(r"\b(?:html|markdown|rich ?text|long text|full text|free text|multi-?line)\b", re.IGNORECASE)
_SHORTEST_PROSE: Final = 200
MOST_PROSE: Final = 4
"""Columns of a table that full-text search looks through: each makes its index larger, and its writes slower."""


def is_secret_name(name: str) -> bool:
    """Whether a field of this name may hold secrets, whatever its type is."""
    return _SECRET.search(snake_case(name)) is not None


def is_secret(field: Field, kind: ColumnType) -> bool:
    """Whether a field's name says that its values are secrets."""
    name = snake_case(field.name)
    if not _SECRET.search(name) or kind not in _HELD or field.enum is not None:
        return False
    is_number = kind in (ColumnType.BIGINT, ColumnType.NUMERIC)
    return not (is_number and name.rpartition("_")[2] in _COUNTED)


def is_prose(field: Field, kind: ColumnType) -> bool:
    """Whether a field holds running text, by its format, its name or its description."""
    if kind is not ColumnType.TEXT or field.enum is not None or (field.format and field.format not in _PROSE_FORMATS):
        return False
    most = field.limits.get("maxLength")
    if most is not None and most < _SHORTEST_PROSE:
        return False
    last = snake_case(field.name).rpartition("_")[2]
    return field.format in _PROSE_FORMATS or last in _PROSE or _LONG.search(field.description) is not None
