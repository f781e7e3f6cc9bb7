"""Records in quarantine: looked at, given out for correction, and taken back in as they were corrected.

A record is known by its table and by the digest of what it was when it was given out, so that a row that has become another
one meanwhile is told and not overwritten. What belongs here: reading and editing `migration.quarantine`. What does not:
applying what was edited, which a replay does; see `corrections`.
"""

from __future__ import annotations

import csv
import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO, cast

from psycopg import sql
from psycopg.rows import class_row
from psycopg.types.json import Jsonb

from b44_assets.errors import B44Error, SettingsError, why
from b44_assets.migration.corrections import DIGEST as RECORD_DIGEST
from b44_assets.migration.corrections import QUARANTINED_AS_TEXT
from b44_assets.migration.plan import has_plans
from b44_assets.session import Session, take_advisory_lock
from b44_assets.wording import plural, some_of

_PREFIX = "quarantine:"
TABLE, REASONS, DIGEST = (f"{_PREFIX}{name}" for name in ("table", "reasons", "digest"))
"""The columns of a file for correction that are no fields."""
RAW = "_raw"
"""The one field of a record that could not be split into cells."""
_LONGEST_CELL = 32_767
"""What spreadsheets keep of a cell."""
_MOST_NAMED = 5

# As a correction is told: all values are text.
_RECORDS = sql.SQL("""
select q.entity as table, q.base44_id, q.source_file, q.record_number, q.reasons, became.record,
       {digest} as digest
  from migration.quarantine q
  join migration.plans p on p.entity = q.entity and p.generation = q.generation
 cross join lateral ({text}) became (record)
 where q.replayed_at is null
   and (%(table)s::text is null or q.entity = %(table)s)
   and (%(reason)s::text is null or %(reason)s = any (q.reasons))
 order by array_position(%(tables)s::text[], q.entity), q.record_number, q.id
""").format(digest=RECORD_DIGEST.format(sql.SQL("became.record")), text=QUARANTINED_AS_TEXT)

_WRITE = sql.SQL("""
update migration.quarantine q
   set record = %(record)s
  from migration.plans p
 where p.entity = q.entity and p.generation = q.generation and q.replayed_at is null and q.entity = %(table)s
   and {digest} = %(digest)s
""").format(digest=RECORD_DIGEST.format(sql.SQL("({})").format(QUARANTINED_AS_TEXT)))


class CorrectionError(B44Error):
    """A corrected record cannot be taken in; names the file, the record and the reason, and nothing was changed."""


class CorrectionConflictError(CorrectionError):
    """A corrected record is another one by now, or is not in quarantine any more; nothing was changed."""

    exit_status = 1


@dataclass(frozen=True)
class QuarantinedRecord:
    """A record that was refused.

    Attributes:
        table: The target table.
        base44_id: Its id, if it has one.
        source_file: The file that it was read from.
        record_number: Its number in that file, from 1.
        reasons: Every reason that applies.
        record: Field to text as exported, or `_raw` alone.
        digest: MD5 of the record, 32 hex digits.
    """

    table: str
    base44_id: str | None
    source_file: str | None
    record_number: int | None
    reasons: list[str]
    record: dict[str, str | None]
    digest: str

    @property
    def named(self) -> str:
        """How a message names it."""
        return f"{self.table} {self.base44_id or f'record {self.record_number}'}"

    def facts(self) -> dict[str, Any]:
        """The record as `--json` prints it, and as it is read back."""
        return {
            "table": self.table,
            "id": self.base44_id,
            "file": self.source_file,
            "record_number": self.record_number,
            "reasons": self.reasons,
            "digest": self.digest,
            "record": self.record,
        }


@dataclass(frozen=True)
class EditedRecord:
    """A record of a file for correction.

    Attributes:
        place: Where it stands in the file.
        table: The target table.
        digest: Of the record as it was given out.
        fields: Field to text; null, or empty in a CSV, where it has none. A field that is not named stays as it is.
    """

    place: str
    table: str
    digest: str
    fields: Mapping[str, str | None]


@dataclass(frozen=True)
class Change:
    """What is changed of a quarantined record: field to text, or to None where it is to have none."""

    record: QuarantinedRecord
    fields: Mapping[str, str | None]

    @property
    def changed(self) -> dict[str, str | None]:
        """The record as it is from then on."""
        whole = {**self.record.record, **self.fields}
        return {name: text for name, text in whole.items() if name not in self.fields or text is not None}


@dataclass(frozen=True)
class Corrections:
    """What was taken in of a file for correction.

    Attributes:
        changes: The records that were changed.
        unchanged: How many stand in the file as they are.
    """

    changes: tuple[Change, ...]
    unchanged: int

    def message(self, *, only_look: bool = False) -> str:
        """What was changed, in one line.

        Args:
            only_look: Whether nothing was written: then it is what would be changed.
        """
        if not self.changes:
            return f"nothing to change: {self.unchanged:,} {plural(self.unchanged, 'record is', 'records are')} as they were"
        of_tables: list[str] = []
        for table, names in self.by_field().items():
            of_tables.append(f"{table}: {', '.join(f'{name} {count:,}' for name, count in names.most_common())}")
        count = len(self.changes)
        verb = "would correct" if only_look else "corrected"
        return f"{verb} {count:,} {plural(count, 'record')} ({'; '.join(of_tables)}), {self.unchanged:,} as they were"

    def facts(self) -> dict[str, Any]:
        """The same as `--json` prints it."""
        return {
            "corrected": [
                {"table": one.record.table, "id": one.record.base44_id, "fields": list(one.fields)}
                for one in self.changes
            ],
            "unchanged": self.unchanged,
        }

    def by_field(self) -> dict[str, Counter[str]]:
        """How many records were changed, by table and field."""
        found: dict[str, Counter[str]] = {}
        for change in self.changes:
            found.setdefault(change.record.table, Counter()).update(list(change.fields))
        return found


def quarantined(session: Session, table: str | None = None, reason: str | None = None) -> Iterator[QuarantinedRecord]:
    """Read the records in quarantine, in the order of the catalogue, the file and the record; one after the other.

    Args:
        session: The run.
        table: Those of this table only.
        reason: Those that have this reason only.
    """
    with session.connection("look at the quarantine") as conn:
        if not has_plans(conn):
            return
        with conn.transaction(), conn.cursor("quarantined", row_factory=class_row(QuarantinedRecord)) as cursor:
            cursor.itersize = 500
            cursor.execute(_RECORDS, {"table": table, "reason": reason, "tables": list(session.catalog.mappings)})
            yield from cursor


def write_csv(records: Callable[[], Iterable[QuarantinedRecord]], stream: TextIO) -> int:
    """Write records as a CSV for correction: a column for each field that one of them has.

    Args:
        records: Gives them, each time it is asked; it is asked twice.
        stream: What to write to.

    Returns:
        How many records were written.

    Raises:
        SettingsError: A field has the name of a column that is needed for the file itself.
    """
    names: dict[str, None] = {}
    for one in records():
        names.update(dict.fromkeys(one.record))
    if taken := [name for name in names if name.startswith(_PREFIX)]:
        raise SettingsError(f"a field is called {taken[0]}, as columns of the CSV are: take --json")
    writer = csv.DictWriter(stream, [TABLE, REASONS, DIGEST, *names], quoting=csv.QUOTE_ALL, lineterminator="\n")
    writer.writeheader()
    count = 0
    for one in records():
        columns = {TABLE: one.table, REASONS: ", ".join(one.reasons), DIGEST: one.digest}
        # What came to light since the columns were written stays as it is: what a file does not name is not changed.
        fields = {name: text for name, text in one.record.items() if text is not None and name in names}
        writer.writerow({**columns, **fields})
        count += 1
    return count


def read_corrections(path: Path) -> tuple[EditedRecord, ...]:
    """Read a file for correction: what `b44 quarantine` has written as CSV or JSON, edited.

    Raises:
        CorrectionError: It cannot be read, or is another file.
    """
    try:
        # Not as text: line ends within cells are to stay.
        text = path.read_bytes().decode("utf-8-sig")
    except OSError as error:
        raise CorrectionError(f"{path}: cannot be read: {why(error, path)}") from error
    except UnicodeDecodeError as error:
        raise CorrectionError(
            f"{path}: byte {error.start + 1:,} is no UTF-8: save the file as UTF-8 (in a spreadsheet, “CSV UTF-8”)"
        ) from error
    if "\0" in text:
        raise CorrectionError(f"{path}: has a NUL character, which PostgreSQL cannot hold")
    edited = tuple(_from_json(path, text) if text.lstrip()[:1] in ("{", "[") else _from_csv(path, text))
    seen: dict[tuple[str, str], EditedRecord] = {}
    for one in edited:
        other = seen.setdefault((one.table, one.digest), one)
        if other.fields != one.fields:
            raise CorrectionError(f"{path}: {other.place} and {one.place} are the same record, edited in two ways")
    return tuple(seen.values())


def _from_json(path: Path, text: str) -> Iterator[EditedRecord]:
    try:
        found = json.loads(text)
    except (json.JSONDecodeError, RecursionError) as error:
        place = (
            f"line {error.lineno}, column {error.colno}: {error.msg}"
            if isinstance(error, json.JSONDecodeError)
            else error
        )
        raise CorrectionError(f"{path}: is no JSON: {place}") from error
    listed = cast("dict[str, Any]", found).get("records") if isinstance(found, dict) else found
    if not isinstance(listed, list):
        raise CorrectionError(f"{path}: has no list of records, as b44 quarantine --json prints it")
    for number, one in enumerate(cast("list[Any]", listed), 1):
        place = f"record {number:,}"
        if not isinstance(one, dict):
            raise CorrectionError(f"{path}: {place} is no object")
        facts = cast("dict[str, Any]", one)
        table, digest, record = (facts.get(name) for name in ("table", "digest", "record"))
        if not (isinstance(table, str) and isinstance(digest, str) and isinstance(record, dict)):
            raise CorrectionError(f"{path}: {place} lacks table, digest or record, by which it is known")
        yield EditedRecord(place, table, digest, {str(k): _text(v) for k, v in cast("dict[str, Any]", record).items()})


def _text(value: Any) -> str | None:
    """A value of JSON as an export has it."""
    return value if isinstance(value, str) or value is None else json.dumps(value, ensure_ascii=False)


def _from_csv(path: Path, text: str) -> Iterator[EditedRecord]:
    # A spreadsheet writes what its language has for a comma.
    for delimiter in (",", ";", "\t"):
        rows = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
        try:
            header = [name.strip() for name in next(rows, [])]
        except csv.Error:
            continue
        if {TABLE, DIGEST} <= set(header):
            break
    else:
        raise CorrectionError(f"{path}: has no columns {TABLE} and {DIGEST}, as b44 quarantine --csv writes them")
    if twice := [name for name, count in Counter(header).items() if count > 1]:
        raise CorrectionError(f"{path}: has the column {twice[0] or 'without a name'} twice")
    # The limit is one for the whole process: it only ever grows.
    csv.field_size_limit(max(csv.field_size_limit(), len(text) + 1))
    try:
        for row in rows:
            place = f"line {rows.line_num:,}"
            if not any(row):
                continue
            if len(row) != len(header):
                raise CorrectionError(f"{path}: {place} has {len(row):,} cells, the first line {len(header):,}")
            cells = dict(zip(header, row, strict=True))
            fields = {name: text or None for name, text in cells.items() if name and not name.startswith(_PREFIX)}
            yield EditedRecord(place, cells[TABLE], cells[DIGEST], fields)
    except csv.Error as error:
        raise CorrectionError(f"{path}: line {rows.line_num:,} is no CSV: {error}") from error


def correct_quarantine(
    session: Session, edited: Sequence[EditedRecord], path: Path, *, only_look: bool = False
) -> Corrections:
    """Take in corrected records: of each the fields that differ, and no other. A replay migrates them.

    All or nothing.

    Args:
        session: The run.
        edited: What the file holds.
        path: The file, for messages.
        only_look: Whether nothing is to be written.

    Raises:
        CorrectionError: A table or a field is not known; a cell was cut off by a spreadsheet.
        CorrectionConflictError: A record was edited in the file, and is another one by now or not in quarantine any more.
    """
    if unknown := [one for one in edited if one.table not in session.catalog.mappings]:
        raise CorrectionError(f"{path}: {unknown[0].place}: there is no table {unknown[0].table}")
    there = list(quarantined(session))
    known = {(one.table, one.digest): one for one in there}
    lost = [one for one in edited if (one.table, one.digest) not in known and not _stands(there, one)]
    if lost:
        places = [f"{one.place} ({one.table} {one.fields.get('id') or 'without an id'})" for one in lost]
        raise CorrectionConflictError(
            f"{path}: {some_of(places, _MOST_NAMED)} {plural(len(lost), 'is', 'are')} not in quarantine as it was when the file"
            " was made: corrected, replayed or exported anew since; make the file anew. Nothing was changed"
        )
    changes: list[Change] = []
    for one in edited:
        record = known.get((one.table, one.digest))
        if record is not None and (fields := differing(record.record, one, path)):
            changes.append(Change(record, fields))
    _need_known_fields(session, changes, there, path)
    if not only_look:
        with session.connection("correct the quarantine") as conn, conn.transaction():
            for table in sorted({change.record.table for change in changes}):
                take_advisory_lock(conn, f"stage {table}")
            for change in changes:
                of = {"table": change.record.table, "digest": change.record.digest}
                if not conn.execute(_WRITE, {**of, "record": Jsonb(change.changed)}).rowcount:
                    raise CorrectionConflictError(
                        f"{path}: {change.record.named} was changed by somebody else just now. Nothing was changed"
                    )
    return Corrections(tuple(changes), len(edited) - len(changes))


def _stands(there: Iterable[QuarantinedRecord], edited: EditedRecord) -> bool:
    """Whether some record in quarantine is already what the file makes of it."""
    return any(
        one.table == edited.table
        and all(_same(one.record.get(name), text) for name, text in edited.fields.items())
        and all(name in edited.fields or not text for name, text in one.record.items())
        for one in there
    )


def _same(before: str | None, after: str | None) -> bool:
    """Whether a text is what it was; spreadsheets write line ends their own way."""
    return (before or "").replace("\r\n", "\n").replace("\r", "\n") == (after or "").replace("\r\n", "\n").replace(
        "\r", "\n"
    )


def differing(record: Mapping[str, str | None], edited: EditedRecord, path: Path) -> dict[str, str | None]:
    """The fields of a corrected record that differ from what it is.

    Args:
        record: What it is.
        edited: As it was corrected.
        path: The file, for messages.

    Raises:
        CorrectionError: A value was cut off by a spreadsheet.
    """
    found = {name: text for name, text in edited.fields.items() if not _same(record.get(name), text)}
    for name, text in found.items():
        before = record.get(name) or ""
        if text and len(text) >= _LONGEST_CELL - 1 and len(before) > len(text) and before.startswith(text[:1000]):
            raise CorrectionError(
                f"{path}: {edited.place}: {name} was cut off after {len(text):,} characters, as spreadsheets do: leave that"
                " column out of the file, or correct the record with --json. Nothing was changed"
            )
    return found


def _need_known_fields(
    session: Session, changes: Iterable[Change], there: Iterable[QuarantinedRecord], path: Path
) -> None:
    """Refuses fields that neither the export nor the mapping has: a misspelt column would be a field that nobody reads.

    Raises:
        CorrectionError: There is one.
    """
    known: dict[str, set[str]] = {}
    for one in there:
        known.setdefault(one.table, {RAW}).update(one.record)
    with session.connection("look at the exports") as conn:
        for table, fields in conn.execute("select entity, fields from migration.exports").fetchall():
            known.setdefault(table, set()).update(fields or ())
    for change in changes:
        mapping = session.catalog.mappings[change.record.table]
        of_mapping = {spelling for one in mapping.fields for spelling in one.spellings}
        if strange := [name for name in change.fields if name not in known[change.record.table] | of_mapping | {"id"}]:
            raise CorrectionError(
                f"{path}: {strange[0]} is no field of {change.record.table}: neither its export nor its mapping has it."
                " Nothing was changed"
            )
