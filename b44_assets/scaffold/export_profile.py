"""What an export's cells are like: how many are filled, fit a type, honour a limit, name a record; read once, in bounded memory.

Ids and references are counted exactly up to `SAMPLED` different ones of a column, and from a sample of about as many beyond; it is
drawn by a digest, so that the same ids are in the samples of both sides, and the same export gives the same figures.
"""

from __future__ import annotations

import zlib
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import pyarrow as pa
import pyarrow.compute

from b44_assets.errors import ExportError
from b44_assets.exports.discovery import survey
from b44_assets.exports.model import Batch, ExportFile
from b44_assets.exports.opening import open_export
from b44_assets.scaffold.columns import FITS, is_shown_by_spreadsheet, texts_of
from b44_assets.scaffold.model import ColumnType, Notice
from b44_assets.scaffold.sensitive import secret_paths

SAMPLED: Final = 20_000
_BLOCK_BYTES: Final = 2 << 20
_WHITE_SPACE: Final = "".join(filter(str.isspace, map(chr, range(0x3001)))) + "\ufeff"
_HEX: Final = frozenset("0123456789abcdefABCDEF")

# Its functions are made when it is imported, so a type checker knows none of them.
pc: Final[Any] = pyarrow.compute


def id_key(text: str) -> str:
    """An id in the form in which equal ids are equal text."""
    trimmed = text.strip()
    return trimmed.lower() if is_id(trimmed) else trimmed


def is_id(text: str) -> bool:
    """Whether a text has the form of an id of Base44's (24 hex digits) or of a UUID."""
    trimmed = text.strip()
    if len(trimmed) == 36:
        return trimmed[8] == trimmed[13] == trimmed[18] == trimmed[23] == "-" and _HEX.issuperset(
            trimmed.replace("-", "")
        )
    return len(trimmed) == 24 and _HEX.issuperset(trimmed)


def email_key(text: str) -> str:
    """An e-mail address in the form in which equal ones are equal text."""
    return text.strip().lower()


def member_key(text: str) -> str:
    """What may be an id or an e-mail address, in the form in which equal ones are equal text."""
    return email_key(text) if "@" in text else id_key(text)


class Sample:
    """Different texts and how often each comes, all of them or an even sample.

    Attributes:
        counts: Of each text that is in it.
    """

    def __init__(self, most: int = SAMPLED) -> None:
        """Begin with none; `most` are kept."""
        self.counts: Counter[str] = Counter()
        self._most = most
        self._level = 0

    def add(self, text: str, times: int = 1) -> None:
        """Take in a text."""
        if self._level and _digest(text) & ((1 << self._level) - 1):
            return
        self.counts[text] += times
        while len(self.counts) > self._most:
            self._thin(self._level + 1)

    def _thin(self, level: int) -> None:
        self._level = level
        mask = (1 << level) - 1
        self.counts = Counter({text: count for text, count in self.counts.items() if not _digest(text) & mask})

    def share_in(self, other: Sample) -> float:
        """How many of the occurrences here are of texts that are in another sample, 0 to 1."""
        mask = (1 << max(self._level, other._level)) - 1
        looked = {text: count for text, count in self.counts.items() if not _digest(text) & mask}
        total = sum(looked.values())
        return sum(count for text, count in looked.items() if text in other.counts) / total if total else 0.0

    def share_where(self, test: Callable[[str], bool]) -> float:
        """How many of the occurrences are of texts for which something holds, 0 to 1."""
        total = sum(self.counts.values())
        return sum(count for text, count in self.counts.items() if test(text)) / total if total else 0.0


def _digest(text: str) -> int:
    return zlib.crc32(text.encode("utf-8", "surrogatepass"))


@dataclass(frozen=True)
class Probe:
    """What is asked of a field's cells.

    Attributes:
        types: Which may fit.
        allowed: Whether a text honours what the schema says; None where it says nothing.
        pattern: That a text is to match, if any; one that Arrow does not understand, which takes no look-around, is not asked.
        sampled: Whether its values are kept, to be looked for among ids and e-mail addresses.
        blank: Words, in lower case, that count as no value.
    """

    types: tuple[ColumnType, ...] = ()
    allowed: Callable[[str], bool] | None = None
    pattern: str | None = None
    sampled: bool = False
    blank: frozenset[str] = frozenset()


@dataclass
class FieldProfile:
    """What the cells of a field are like.

    Attributes:
        filled: Cells that are not blank.
        fitting: Of them, those that fit each type of the probe.
        outside: Of them, those that break the enum or a limit.
        shown: Of them, those that fit no type, and are written as a spreadsheet shows dates, numbers or booleans.
        values: Those that were asked for; of an array each member.
        named: How many values that were: with arrays another number than `filled`.
        secrets: Paths within its values, where these are JSON, that hold secrets by their names.
    """

    filled: int = 0
    fitting: Counter[ColumnType] = field(default_factory=lambda: Counter[ColumnType]())
    outside: int = 0
    shown: int = 0
    values: Sample | None = None
    named: int = 0
    secrets: set[str] = field(default_factory=lambda: set[str]())


@dataclass
class EntityProfile:
    """What the records of an entity are like.

    Attributes:
        records: That could be read.
        fields: By name, in the file's order.
        ids: Of its records.
        emails: Of a `User`'s records.
        first: The earliest creation date, as text; None where there is none.
        repeated: Unique keys, as fields, to how many records repeat the key of an earlier one.
    """

    records: int = 0
    fields: dict[str, FieldProfile] = field(default_factory=lambda: dict[str, FieldProfile]())
    ids: Sample = field(default_factory=Sample)
    emails: Sample = field(default_factory=Sample)
    first: str | None = None
    repeated: Counter[tuple[str, ...]] = field(default_factory=lambda: Counter[tuple[str, ...]]())


@dataclass(frozen=True)
class EntityProbes:
    """What is asked of the records of an entity.

    Attributes:
        fields: Of each field that is known.
        other: Of any other field, by its name.
        unique: Keys that are to be unique, as fields.
    """

    fields: Mapping[str, Probe]
    other: Callable[[str], Probe]
    unique: tuple[tuple[str, ...], ...] = ()


@dataclass(frozen=True)
class ExportProfile:
    """What an export is like.

    Attributes:
        entities: By name; those whose file could not be read are not among them.
        notices: What was unusual about its files.
    """

    entities: Mapping[str, EntityProfile]
    notices: tuple[Notice, ...] = ()


def profile_export(
    directory: Path, probes: Mapping[str, EntityProbes], unknown: Callable[[str], EntityProbes]
) -> ExportProfile:
    """Read an export once.

    Args:
        directory: Where it is.
        probes: By entity.
        unknown: For an entity of the export that is not among them.

    Raises:
        ExportError: There is no export in the folder.
    """
    found = survey(directory, tuple(probes))
    notices = [Notice(None, line) for line in (*found.read_as, *found.passed_over)]
    entities: dict[str, EntityProfile] = {}
    for file in found.files:
        asked = probes.get(file.entity) or unknown(file.entity)
        try:
            entities[file.entity] = _profile(file, asked)
        except ExportError as error:
            notices.append(Notice(file.path, f"is not regarded: {str(error).removeprefix(f'{file.path}: ')}"))
    return ExportProfile(entities, tuple(notices))


def _profile(file: ExportFile, asked: EntityProbes) -> EntityProfile:
    profile = EntityProfile()
    known = tuple(dict.fromkeys(("id", *asked.fields))) if asked.fields else ()
    keys = {key: _Repeats() for key in asked.unique}
    with open_export(file, _BLOCK_BYTES, known=known) as reader:
        for batch in reader.batches():
            profile.records += len(batch.record_numbers)
            columns = dict(zip(batch.columns.schema.names, batch.columns.columns, strict=True))
            for name, cells in columns.items():
                if name not in profile.fields:
                    profile.fields[name] = FieldProfile()
                probe = asked.fields.get(name) or asked.other(name)
                _add_cells(profile.fields[name], probe, cells)
                _add_secrets(profile.fields[name], name, cells)
            _add_ids(profile, columns)
            for key, repeats in keys.items():
                repeats.add(key, columns, batch)
        for name in reader.fields:
            profile.fields.setdefault(name, FieldProfile())
    profile.repeated.update({key: repeats.number for key, repeats in keys.items() if repeats.number})
    return profile


def _filled(cells: pa.Array) -> pa.Array:
    """Cells that are neither null nor white space, as the database's `b44.trim` sees it."""
    present = cells.drop_null()
    return present.filter(pc.not_equal(pc.utf8_trim(present, characters=_WHITE_SPACE), ""))


def _add_cells(profile: FieldProfile, probe: Probe, cells: pa.Array) -> None:
    filled = _filled(cells)
    if probe.blank:
        words = pc.utf8_lower(pc.utf8_trim(filled, characters=_WHITE_SPACE))
        filled = filled.filter(pc.invert(pc.is_in(words, value_set=pa.array(sorted(probe.blank)))))
    profile.filled += len(filled)
    tests = [(kind, FITS[kind]) for kind in probe.types if kind in FITS]
    if not len(filled):
        return
    if probe.pattern is not None:
        profile.outside += _unmatched(filled, probe.pattern)
    if not (tests or probe.allowed or probe.sampled):
        return
    if probe.sampled and profile.values is None:
        profile.values = Sample()
    counted = pc.value_counts(filled)
    for text, times in zip(counted.field("values").to_pylist(), counted.field("counts").to_pylist(), strict=True):
        fitting = [kind for kind, test in tests if test(text)]
        for kind in fitting:
            profile.fitting[kind] += times
        if tests and not fitting and is_shown_by_spreadsheet(text):
            profile.shown += times
        if probe.allowed is not None and (not tests or fitting) and not probe.allowed(text):
            profile.outside += times
        if profile.values is not None:
            members = texts_of(text) if text[:1] == "[" else None
            for member in [text] if members is None else members:
                if member.strip():
                    profile.values.add(member_key(member), times)
                    profile.named += times


def _add_secrets(profile: FieldProfile, name: str, cells: pa.Array) -> None:
    structures = cells.filter(pc.match_substring_regex(cells, r"^\s*[\[{]")).drop_null()
    if len(structures):
        for text in pc.unique(structures).to_pylist():
            profile.secrets |= secret_paths(text, name)


def _unmatched(filled: pa.Array, pattern: str) -> int:
    try:
        return len(filled) - (pc.sum(pc.match_substring_regex(filled, pattern)).as_py() or 0)
    except pa.ArrowInvalid:
        return 0


def _add_ids(profile: EntityProfile, columns: Mapping[str, pa.Array]) -> None:
    for name, sample, key in (("id", profile.ids, id_key), ("email", profile.emails, email_key)):
        if name in columns:
            for text in _filled(columns[name]).to_pylist():
                sample.add(key(text))
    if "created_date" in columns:
        dates = _filled(columns["created_date"])
        dates = dates.filter(pc.match_substring_regex(dates, r"^[0-9]{4}-[0-9]{2}"))
        if len(dates) and (first := pc.min(dates).as_py()) and (profile.first is None or first < profile.first):
            profile.first = first


class _Repeats:
    """How many records repeat the key of another one; beyond a number of different keys no further ones are remembered."""

    _MOST: Final = 500_000

    def __init__(self) -> None:
        # With the id that each came with: a record's repeats and older versions are no other record.
        self._seen: dict[int, int] = {}
        self.number = 0

    def add(self, key: tuple[str, ...], columns: Mapping[str, pa.Array], batch: Batch) -> None:
        if any(name not in columns for name in key):
            return
        ids = columns["id"].to_pylist() if "id" in columns else [None] * len(batch.record_numbers)
        for one, *cells in zip(ids, *(columns[name].to_pylist() for name in key), strict=True):
            if any(cell is None or not cell.strip() for cell in cells):
                continue
            mark, owner = hash(tuple(cells)), hash(id_key(one)) if one and one.strip() else 0
            if mark in self._seen:
                self.number += not owner or self._seen[mark] != owner
            elif len(self._seen) < self._MOST:
                self._seen[mark] = owner
