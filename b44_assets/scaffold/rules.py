"""Reads the rules of Base44 (`rls`) into a table of who may do what with an entity's records.

A rule that is absent, null, true or empty is open to everyone, also to visitors who are not signed in; `false` is for nobody. A
condition is understood where it is in the documented form: built-in fields and `data.<field>` on the left, constants and
`{{user.…}}` on the right, `$or`, `$and`, `$nor`, `$in`, `$nin`, `$ne`, `user_condition`. Anything else is a rule whose effect in
Base44 is not known, and opens nothing.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from typing import Any, Final

from b44_assets.exports.model import BUILT_IN_FIELDS
from b44_assets.scaffold.model import ABSENT, Audience, Entity, Origin, Rule

OPERATIONS: Final = ("create", "read", "update", "delete")
_EVERYONE: Final = "everyone, without signing in as well"
_USER: Final = re.compile(r"\{\{\s*user\.(?P<path>[\w.]+?)\s*\}\}")
_LONGEST: Final = 160
_OR: Final = ", or "


class _Unknown(Exception):
    """A condition is in no documented form; the argument is what is not understood."""


def read_rules(entities: Iterable[Entity]) -> tuple[Rule, ...]:
    """Read the rules of all entities: first those that are open to everyone, then by entity."""
    rules = [rule for entity in entities for rule in _rules(entity)]
    return tuple(sorted(rules, key=lambda rule: rule.access is not Audience.EVERYONE))


def _rules(entity: Entity) -> Iterator[Rule]:
    if entity.origin is not Origin.SCHEMA:
        # No file says who may do what, which is not the same as a file without rules.
        return
    given = entity.rls
    if given is ABSENT and entity.other_rules:
        for operation in OPERATIONS:
            yield Rule(entity.name, operation, "", Audience.UNKNOWN, *_invented(entity, operation))
        return
    of_all = given is not ABSENT and not isinstance(given, dict)
    for operation in OPERATIONS:
        source = given if of_all else ABSENT if given is ABSENT else given.get(operation, ABSENT)
        access, who = _read(source)
        yield Rule(entity.name, operation, "", access, who, source)
    if isinstance(given, dict):
        for operation in sorted(given.keys() - set(OPERATIONS)):
            access, who = (
                _read(given[operation]) if operation == "write" else (Audience.UNKNOWN, _unknown(given[operation]))
            )
            yield Rule(entity.name, operation, "", access, who, given[operation])
    for field in entity.fields:
        for operation, source in field.rls.items():
            access, who = _read(source)
            yield Rule(entity.name, operation, field.name, access, who, source)


def _invented(entity: Entity, operation: str) -> tuple[str, Any]:
    key, given = next(iter(entity.other_rules.items()))
    source = given.get(operation, given) if isinstance(given, dict) else given
    return f"not known: {key} is no key that Base44 documents; it says {_shown(source)}", source


def _read(source: Any) -> tuple[Audience, str]:
    if source is ABSENT or source is None or source is True or source in ("", {}):
        return Audience.EVERYONE, _EVERYONE
    if source is False:
        return Audience.NOBODY, "nobody"
    if not isinstance(source, dict):
        return Audience.UNKNOWN, _unknown(source)
    try:
        who, unknown = _condition(source)
    except _Unknown:
        return Audience.UNKNOWN, _unknown(source)
    if who is None:
        return Audience.EVERYONE, _EVERYONE
    return Audience.SOME, "; ".join((who, *(f"and not known, so nobody: {one}" for one in unknown)))


def _unknown(source: Any) -> str:
    return f"not known: {_shown(source)} is in no form that Base44 documents"


def _shown(source: Any) -> str:
    text = json.dumps(source, ensure_ascii=False, default=str)
    return text if len(text) <= _LONGEST else f"{text[: _LONGEST - 1]}…"


def _condition(source: dict[str, Any]) -> tuple[str | None, list[str]]:
    """A condition in words, None for everyone, and the alternatives in it that are not understood.

    Raises:
        _Unknown: All of it, or a part that all of it depends on, is not understood.
    """
    parts: list[str] = []
    unknown: list[str] = []
    for key, value in source.items():
        if key == "$or":
            who, lost = _either(value)
            unknown += lost
            if who is not None:
                parts.append(who)
        elif key == "$and":
            for inner in _conditions(value):
                who, lost = _condition(inner)
                unknown += lost
                if who is not None:
                    parts.append(who)
        elif key == "$nor":
            for inner in _conditions(value):
                who, lost = _condition(inner)
                if lost or who is None:
                    raise _Unknown(key)
                parts.append(f"not ({who})")
        elif key == "user_condition":
            parts.append(_caller(value))
        else:
            parts.append(_compared(key, value))
    if len(parts) > 1:
        parts = [f"({one})" if _OR in one else one for one in parts]
    return (" and ".join(parts) or None), unknown


def _conditions(value: Any) -> list[dict[str, Any]]:
    if not isinstance(value, list) or not value or not all(isinstance(one, dict) for one in value):
        raise _Unknown(_shown(value))
    return value


def _either(value: Any) -> tuple[str | None, list[str]]:
    known: list[str] = []
    unknown: list[str] = []
    for inner in _conditions(value):
        try:
            who, lost = _condition(inner)
        except _Unknown:
            unknown.append(_shown(inner))
            continue
        if who is None:
            return None, []
        unknown += lost
        known.append(who)
    if not known:
        raise _Unknown("$or")
    return _OR.join(known), unknown


def _caller(value: Any) -> str:
    if not isinstance(value, dict) or not value or not all(_is_constant(one) for one in value.values()):
        raise _Unknown("user_condition")
    said = (
        f"the role {one}" if key == "role" else f"callers whose {key.removeprefix('data.')} is {_constant(one)}"
        for key, one in value.items()
    )
    return " and ".join(said)


def _compared(key: str, value: Any) -> str:
    field = key.removeprefix("data.")
    # A bare name other than a built-in field's is not documented.
    if key.startswith("$") or (field == key and key not in BUILT_IN_FIELDS):
        raise _Unknown(key)
    subject = f"records whose {field}"
    if not isinstance(value, dict):
        return f"{subject} is {_right(value)}"
    words = {"$in": "is one of", "$nin": "is none of", "$ne": "is not", "$eq": "is", "$all": "has all of"}
    parts: list[str] = []
    for operator, operand in value.items():
        if operator not in words:
            raise _Unknown(operator)
        many = operand if isinstance(operand, list) else [operand]
        parts.append(f"{words[operator]} {', '.join(_right(one) for one in many)}")
    if not parts:
        raise _Unknown(key)
    return f"{subject} {' and '.join(parts)}"


def _is_constant(value: Any) -> bool:
    return value is None or isinstance(value, str | int | float | bool)


def _right(value: Any) -> str:
    if isinstance(value, str) and (match := _USER.fullmatch(value.strip())) is not None:
        return f"the caller's {match['path'].removeprefix('data.')}"
    if not _is_constant(value) or (isinstance(value, str) and "{{" in value):
        raise _Unknown(_shown(value))
    return _constant(value)


def _constant(value: Any) -> str:
    return value if isinstance(value, str) and value else _shown(value)
