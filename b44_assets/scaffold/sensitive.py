"""Which fields, and which members of their objects, hold secrets, and which fields hold prose, by their names and formats."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Iterator
from typing import Any, Final

from b44_assets.scaffold.columns import declared_type
from b44_assets.scaffold.model import ColumnType, Field
from b44_assets.scaffold.names import snake_case

_SECRET: Final = re.compile(
    r"(?:^|_)(?:password|passwd|pwd|passphrase|passcode|secrets?|(?:secret|private|access|auth|signing|encryption)_keys?"
    r"|api_?keys?|credentials?|totp|otp|mfa|(?:two_factor|totp|otp|mfa|2fa|pin|verification|login|auth|reset)_code"
    r"|(?:recovery|backup)_codes?|seed_phrase|mnemonic|(?:secret|security)_answer|tokens?|jwt|bearer|cvv|cvc|ssn|iban|pin)"
    r"(?:_(?:hash|hashed|salt|encrypted|value|enc))?\Z"
)
_HELD: Final = frozenset(
    {ColumnType.TEXT, ColumnType.TEXT_ARRAY, ColumnType.JSONB, ColumnType.BIGINT, ColumnType.NUMERIC}
)
_COUNTED: Final = frozenset({"token", "tokens"})
"""What an app counts as often as it keeps it: numbers of these are no secrets."""
_MEMBER: Final = re.compile(r'"((?:[^"\\]|\\.)+)"\s*:')
_ITEM: Final = "[]"
HIDDEN: Final = "(not shown)"
"""What stands for a secret where a record is shown."""

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
_LABELS: Final = frozenset({"alt", "button", "cta", "font", "label", "line", "name", "placeholder"})
"""Words before the last one that make of a text a label, or of a body a matter of its looks."""
_UNSEARCHED: Final = frozenset({"meta", "seo", "og", "twitter", "error", "payment", "bank", "stripe", "last"})
"""Words before the last one that make of it what search engines read, a failure, an account, or a copy of another record's text."""
_LONG: Final = re.compile(r"\b(?:html|markdown|rich ?text|long text|full text|free text|multi-?line)\b", re.IGNORECASE)
_SHORTEST_PROSE: Final = 200
MOST_PROSE: Final = 4
"""Columns of a table that full-text search looks through: each makes its index larger, and its writes slower."""


# The same few names stand in every record's objects.
@functools.lru_cache(maxsize=10_000)
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


def secret_members(field: Field) -> tuple[str, ...]:
    """Return the paths of what is declared within a field's objects and holds secrets, such as `keys[].token`."""
    return tuple(dict.fromkeys(_declared(field, field.name)))


def _declared(field: Field, path: str) -> Iterator[str]:
    if field.items is not None:
        yield from _declared(field.items, f"{path}{_ITEM}")
    for member in field.properties:
        inner = f"{path}.{member.name}"
        if is_secret(member, declared_type(member)):
            yield inner
        else:
            yield from _declared(member, inner)


def secret_paths(text: str, name: str) -> frozenset[str]:
    """Return the paths of the secrets within the value of a field: a text that may be JSON."""
    if not _may_hold_secret(text):
        return frozenset()
    try:
        return frozenset(_held(json.loads(text), name))
    except (ValueError, RecursionError):
        return frozenset()


def _held(value: Any, path: str) -> Iterator[str]:
    if isinstance(value, list):
        for item in value:
            yield from _held(item, f"{path}{_ITEM}")
    elif isinstance(value, dict):
        for key, inner in value.items():
            if _is_secret_member(key, inner):
                yield f"{path}.{key}"
            else:
                yield from _held(inner, f"{path}.{key}")


def without_secrets(text: str) -> str:
    """Return a value to be shown: JSON without the secrets in it, nothing of a text that may hold some and is no JSON."""
    if not _may_hold_secret(text):
        return text
    try:
        return json.dumps(_masked(json.loads(text)), ensure_ascii=False)
    except (ValueError, RecursionError):
        return HIDDEN


def _masked(value: Any) -> Any:
    if isinstance(value, list):
        return [_masked(item) for item in value]
    if isinstance(value, dict):
        return {key: HIDDEN if _is_secret_member(key, inner) else _masked(inner) for key, inner in value.items()}
    return value


def _may_hold_secret(text: str) -> bool:
    # In a record that could not be read, the quotes of JSON are still doubled.
    names = {*_MEMBER.findall(text), *_MEMBER.findall(text.replace('""', '"'))}
    return any(is_secret_name(name) for name in names)


def _is_secret_member(name: str, value: Any) -> bool:
    if not value or isinstance(value, bool) or not is_secret_name(name):
        return False
    return not (isinstance(value, int | float) and snake_case(name).rpartition("_")[2] in _COUNTED)


def is_prose(field: Field, kind: ColumnType) -> bool:
    """Whether a field holds running text, by its format, its name or its description."""
    if kind is not ColumnType.TEXT or field.enum is not None or (field.format and field.format not in _PROSE_FORMATS):
        return False
    most = field.limits.get("maxLength")
    if most is not None and most < _SHORTEST_PROSE:
        return False
    *words, last = snake_case(field.name).split("_")
    named = last in _PROSE and not (_LABELS | _UNSEARCHED).intersection(words)
    return field.format in _PROSE_FORMATS or named or _LONG.search(field.description) is not None
