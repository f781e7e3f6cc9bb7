"""Exports made from entity schemas, in every dialect, some of their cells wrong in the ways of real ones, and the truth about them."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from enum import StrEnum
from pathlib import Path
from random import Random
from typing import Any, Final, cast

from b44_assets.exports.model import BUILT_IN_FIELDS
from b44_assets.sample.dialects import Record, file_name, form_of
from b44_assets.scaffold.model import Entity, Field, Origin

FIRST_SECOND: Final = 1_767_225_600  # 2026-01-01 00:00:00 UTC
_WORDS: Final = (
    "anchor",
    "bow",
    "cleat",
    "deck",
    "ebb",
    "fore",
    "gaff",
    "hull",
    "jib",
    "keel",
    "mast",
    "oar",
    "Ärger",
    "港",
    "émoi",
)


class Wrong(StrEnum):
    """How a cell is wrong."""

    BLANK = "blank, and required"
    ENUM = "outside the enum"
    LIMIT = "outside the limits"
    DANGLING = "names no record"
    EMAIL = "an e-mail address among ids"
    TYPE = "does not fit the type"


@dataclass(frozen=True)
class Fault:
    """A cell that is wrong.

    Attributes:
        entity: Of the record.
        record: Its id.
        field: Of the cell.
        wrong: In which way.
    """

    entity: str
    record: str
    field: str
    wrong: Wrong


@dataclass
class Truth:
    """What an export holds.

    Attributes:
        records: Entity to its records, in the export's order, each field to the value that the old app had.
        faults: Cells that are wrong.
    """

    records: dict[str, list[dict[str, Any]]] = field(default_factory=lambda: dict[str, list[dict[str, Any]]]())
    faults: list[Fault] = field(default_factory=lambda: list[Fault]())


def write_app_export(
    folder: Path,
    entities: Sequence[Entity],
    *,
    dialect: str,
    records: int = 20,
    seed: int = 1,
    faults: float = 0.05,
    references: Mapping[tuple[str, str], str] | None = None,
) -> Truth:
    """Write an export of an app; the same arguments give the same bytes.

    Args:
        folder: Where to; made if need be.
        entities: Of the app; a `User` is added if none is among them.
        dialect: One of `sample.dialects.DIALECTS`.
        records: Of each entity; every seventh entity has none.
        seed: Tells exports apart.
        faults: The share of cells that are wrong.
        references: Entity and field to the entity that it points at, beside those with its exact name.
    """
    maker = _Maker(entities, Random(f"{seed}/{dialect}"), records, faults, references or {})
    truth = maker.make()
    folder.mkdir(parents=True, exist_ok=True)
    for entity, made in truth.records.items():
        text = form_of(dialect, ()).empty
        if made:
            form = form_of(dialect, tuple(made[0]))
            text = form.opening + form.separator.join(form.encode(cast(Record, one)) for one in made) + form.closing
        (folder / file_name(dialect, entity)).write_bytes(text.encode())
    return truth


def cell_of(value: Any) -> str | None:
    """A value as the text of a cell, dates as the spreadsheet has them too; None for a blank one."""
    if value is None or value == "":
        return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def is_cell(value: Any, cell: str | None) -> bool:
    """Whether a cell, as an independent reading has it, holds a value: numbers, structures and dates in any form of them."""
    expected = cell_of(value)
    if cell is None or not cell.strip():
        return expected is None or not expected.strip()
    if expected is None:
        return False
    if isinstance(value, bool):
        return cell.lower() == expected
    if isinstance(value, int | float):
        return Decimal(cell) == Decimal(expected)
    if isinstance(value, list | dict):
        return json.loads(cell) == value
    as_date = re.fullmatch(r"(\d{4}-\d\d-\d\d)T(\d\d:\d\d:\d\d)(\.0{6})?", expected)
    return cell == expected or (as_date is not None and cell in (f"{as_date[1]} {as_date[2]}", f"{expected}Z"))


class _Maker:
    def __init__(
        self,
        entities: Sequence[Entity],
        chance: Random,
        records: int,
        faults: float,
        references: Mapping[tuple[str, str], str],
    ) -> None:
        given = {entity.name: entity for entity in entities}
        given.setdefault("User", Entity("User", Origin.BUILT_IN, ()))
        self._entities = given
        self._chance = chance
        self._faults = faults
        self._references = references
        self._by_name = {re.sub(r"[^a-z0-9]", "", name.rpartition(".")[2].lower()): name for name in given}
        self._ids: dict[str, list[str]] = {}
        number = 0
        for place, name in enumerate(sorted(given), 1):
            many = 0 if place % 7 == 0 and name != "User" else records
            self._ids[name] = [f"{FIRST_SECOND + 60 * (number + one):08x}{number + one:016x}" for one in range(many)]
            number += many
        self._emails = [f"person{one}@example.com" for one in range(len(self._ids["User"]))]
        self._truth = Truth()

    def make(self) -> Truth:
        for name in sorted(self._entities):
            entity = self._entities[name]
            self._truth.records[name] = [self._record(entity, place, key) for place, key in enumerate(self._ids[name])]
        return self._truth

    def _record(self, entity: Entity, place: int, key: str) -> dict[str, Any]:
        record: dict[str, Any] = {}
        for one in entity.fields:
            if one.name not in BUILT_IN_FIELDS:
                record[one.name] = self._cell(entity, one, key)
        if entity.name == "User":
            record |= {
                "email": self._emails[place],
                "full_name": f"Person {place}",
                "role": "admin" if place == 0 else "user",
            }
        at = f"2026-01-{1 + place % 28:02}T{place % 24:02}:30:00.000000"
        creator = self._chance.randrange(len(self._ids["User"]))
        record |= {"id": key, "created_date": at, "updated_date": at}
        if entity.name != "User":
            by_service = self._chance.random() < self._faults
            record["created_by_id"] = (
                "service_0b9b9f5e-0000-4000-8000-000000000000" if by_service else self._ids["User"][creator]
            )
            record["created_by"] = "service+1@no-reply.base44.com" if by_service else self._emails[creator]
            record["is_sample"] = False
        return record

    def _cell(self, entity: Entity, one: Field, key: str) -> Any:
        if self._chance.random() < self._faults and (wrong := self._wrong(entity, one)) is not None:
            kind, value = wrong
            self._truth.faults.append(Fault(entity.name, key, one.name, kind))
            return value
        if not one.required and self._chance.random() < 0.1:
            return None
        return self._value(entity, one)

    def _target(self, entity: Entity, one: Field) -> str | None:
        if (given := self._references.get((entity.name, one.name))) is not None:
            return given
        name = re.sub(r"[^a-z0-9]", "", one.name.lower())
        match = re.fullmatch(r"(.+?)ids?", name)
        is_text = one.types == ("string",) or (
            one.types == ("array",) and one.items is not None and one.items.types == ("string",)
        )
        return self._by_name.get(match[1]) if match and is_text and one.enum is None else None

    def _wrong(self, entity: Entity, one: Field) -> tuple[Wrong, Any] | None:
        ways: list[tuple[Wrong, Any]] = []
        if one.required:
            ways.append((Wrong.BLANK, None))
        if one.enum is not None and one.types == ("string",):
            ways.append((Wrong.ENUM, "no such word"))
        if self._target(entity, one) is not None and one.types == ("string",):
            ways += [(Wrong.DANGLING, f"{FIRST_SECOND:08x}{'f' * 16}"), (Wrong.EMAIL, "somebody@example.org")]
        if one.types and set(one.types) <= {"number", "integer", "boolean"}:
            ways.append((Wrong.TYPE, "about ten"))
        elif one.types in (("array",), ("object",)):
            ways.append((Wrong.TYPE, "[broken"))
        elif one.types == ("string",) and one.format in ("date", "date-time", "time"):
            ways.append((Wrong.TYPE, "next week"))
        if one.types == ("number",) and "minimum" in one.limits:
            ways.append((Wrong.LIMIT, int(one.limits["minimum"]) - 1))
        return self._chance.choice(ways) if ways else None

    def _value(self, entity: Entity, one: Field) -> Any:
        target = self._target(entity, one)
        if target is not None and self._ids[target]:
            if one.types == ("array",):
                return self._chance.sample(self._ids[target], min(2, len(self._ids[target])))
            return self._chance.choice(self._ids[target])
        if target is not None:
            return None
        if one.enum is not None:
            return self._chance.choice([_plain(value) for value in one.enum])
        return self._of_type(one, 0)

    def _of_type(self, one: Field, depth: int) -> Any:
        kind = one.types[0] if one.types else "string"
        chance = self._chance
        if kind in ("number", "integer"):
            least = int(one.limits.get("minimum", one.limits.get("exclusiveMinimum", -2))) + 1
            most = int(one.limits.get("maximum", one.limits.get("exclusiveMaximum", least + 1_000_000)))
            whole = chance.randint(least, max(least, most - 1))
            return whole + 0.5 if kind == "number" and chance.random() < 0.5 and whole + 1 < most else whole
        if kind == "boolean":
            return chance.random() < 0.5
        if kind == "array":
            if one.items is None or depth > 2:
                return []
            return [self._of_type(one.items, depth + 1) for _ in range(chance.randint(0, 3))]
        if kind == "object":
            return {member.name: self._of_type(member, depth + 1) for member in one.properties} if depth < 3 else {}
        return self._text(one)

    def _text(self, one: Field) -> str:
        chance = self._chance
        day = f"2026-{chance.randint(1, 12):02}-{chance.randint(1, 28):02}"
        if one.format == "date":
            return day
        if one.format == "date-time":
            return day + chance.choice(["T08:30", "T17:30:00.000Z", "T17:30:00.000000", "T17:30:00"])
        if one.format == "time":
            return f"{chance.randint(0, 23):02}:30"
        if one.format == "email":
            return chance.choice(["a@example.org", "B.C@Example.org"])
        words = " ".join(chance.choice(_WORDS) for _ in range(chance.randint(1, 6)))
        text = words + chance.choice(["", "", "", "\nand a second line", ' "quoted", with commas', " 100 %; '=1+1'"])
        least, most = int(one.limits.get("minLength", 0)), int(one.limits.get("maxLength", 10_000))
        return text.ljust(least, "x")[:most].strip() or "x" * max(1, least)


def _plain(value: Any) -> Any:
    return float(value) if isinstance(value, Decimal) else value
