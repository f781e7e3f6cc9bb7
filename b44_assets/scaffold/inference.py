"""Makes the tables of an app out of its entity schemas and an export, each inference with its evidence."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import date
from functools import cached_property
from pathlib import Path
from typing import Final

from b44_assets.errors import B44Error
from b44_assets.exports.model import BUILT_IN_FIELDS, CREATOR_FIELDS, INTERNAL_FIELDS, NOBODY
from b44_assets.scaffold.columns import FITS, MOST_UNFIT, candidate_types, confirmed_type, is_allowed
from b44_assets.scaffold.declared_rules import RuleKind, kinds_held, limits_not_held
from b44_assets.scaffold.export_profile import (
    EntityProbes,
    EntityProfile,
    ExportProfile,
    FieldProfile,
    Probe,
    profile_export,
)
from b44_assets.scaffold.model import (
    PARTITIONED_FROM,
    UPDATED,
    App,
    Column,
    ColumnType,
    Counts,
    Decision,
    Entity,
    Field,
    Notice,
    Origin,
    Overrides,
    Reading,
    Reference,
    ReferenceBy,
    Table,
)
from b44_assets.scaffold.names import is_usable, name_columns, name_tables
from b44_assets.scaffold.references import USER, Names, find, load_order, may_refer
from b44_assets.scaffold.rules import read_rules
from b44_assets.scaffold.sensitive import MOST_PROSE, is_prose, is_secret, secret_members
from b44_assets.wording import plural

MOST_COLUMNS: Final = 1_000
"""Columns of a table, of which PostgreSQL takes 1,600; further fields of the export stay in `migration.unmapped`."""

_OF_USER: Final = ("id", "email", "full_name", "role", "is_verified", "disabled", "created_date", "updated_date")
_INTERNAL_OF_USER: Final = (
    *("_app_role", "app_id", "is_service", "created_by_id", "created_by", "is_sample"),
    *INTERNAL_FIELDS,
)
# A User's other built-in fields may be declared with an enum or a default of the app's own.
_OF_USER_AGAIN: Final = ("id", "created_date", "updated_date")
# What the reader makes of a key that a record of JSON has twice.
_AGAIN: Final = re.compile(r".*#\d+")
_MONTH: Final = re.compile(r"(?P<year>[0-9]{4})-(?P<month>0[1-9]|1[0-2])")
_EPOCH: Final = 1970


def infer(
    reading: Reading | None,
    export: Path | None = None,
    overrides: Overrides | None = None,
) -> App:
    """Make the tables of an app.

    Args:
        reading: Its schemas; None where there is an export alone.
        export: The folder of an export, or None.
        overrides: What its owner wants otherwise.

    Raises:
        B44Error: There is neither schema nor export, the folder of the export holds none, or an override cannot be followed.
    """
    schemas = reading or Reading(())
    if not schemas.entities and export is None:
        raise B44Error("there is neither an entity schema nor an export to make tables of")
    return _Inference(schemas, export, overrides or Overrides()).app()


@dataclass
class _Draft:
    """An entity on its way to a table."""

    entity: Entity
    built_in: tuple[Field, ...]
    profile: EntityProfile | None = None
    columns: list[Column] = field(default_factory=lambda: list[Column]())
    partitioned: bool = False

    @property
    def fields(self) -> tuple[Field, ...]:
        """`id`, the entity's own ones, the other built-in ones."""
        return (self.built_in[0], *self.entity.fields, *self.built_in[1:])


class _Inference:
    def __init__(self, reading: Reading, export: Path | None, overrides: Overrides) -> None:
        self._overrides = overrides
        self._without_schemas = not reading.entities
        self._notices = list(reading.notices)
        self._unread = {
            re.sub(r"\.jsonc?$", "", one.path.name, flags=re.IGNORECASE): one.path.name
            for one in reading.notices
            if one.path is not None
        }
        self._decisions: list[Decision] = []
        entities = {entity.name: entity for entity in reading.entities}
        if USER not in entities:
            entities[USER] = Entity(USER, Origin.BUILT_IN, ())
        self._left_out = tuple(sorted(overrides.left_out))
        self._drafts = {
            one.name: _Draft(_without_built_in(one), _built_in(one))
            for one in entities.values()
            if one.name not in overrides.left_out
        }
        self._profile = self._profiled(export) if export is not None else ExportProfile({})
        self._notices += self._profile.notices
        self._known = {*entities, *self._profile.entities}
        self._add_export()
        self._entities = [draft.entity for draft in self._drafts.values()]
        self._check_overrides()
        self._tables, decisions = name_tables(self._entities, overrides)
        self._decisions += decisions
        self._names = Names(self._entities)
        self._creators: Counter[str] = Counter()
        self._shown: set[str] = set()

    # -- the export ----------------------------------------------------------------------------------------------------

    def _profiled(self, export: Path) -> ExportProfile:
        probes = {
            name: EntityProbes(
                {one.name: self._probe(draft.entity, one) for one in draft.fields},
                lambda field, entity=draft.entity: self._probe(entity, _undeclared(entity, field)),
                _unique_keys(draft.entity),
            )
            for name, draft in self._drafts.items()
        }
        return profile_export(export, probes, self._unknown)

    def _unknown(self, entity: str) -> EntityProbes:
        of = Entity(entity, Origin.EXPORT, ())
        known = {one.name: self._probe(of, one) for one in _built_in(of)}
        return EntityProbes(known, lambda field: self._probe(of, _undeclared(of, field)))

    def _probe(self, entity: Entity, one: Field) -> Probe:
        given = self._overrides.types.get((entity.name, one.name))
        types = (given,) if given is not None else candidate_types(one, without_schemas=self._without_schemas)
        sampled = (
            one.name in CREATOR_FIELDS
            or may_refer(entity, one)
            or (entity.name, one.name) in self._overrides.references
        )
        pattern = one.limits.get("pattern") if one.types == ("string",) else None
        nobody = NOBODY if one.name in CREATOR_FIELDS else frozenset[str]()
        return Probe(types, is_allowed(one), pattern, sampled, nobody)

    def _add_export(self) -> None:
        """Add the entities and the fields that only the export has."""
        for name, profile in self._profile.entities.items():
            if name in self._overrides.left_out:
                continue
            if name not in self._drafts:
                entity = Entity(name, Origin.EXPORT, ())
                self._drafts[name] = _Draft(entity, _built_in(entity))
                file = self._unread.get(name)
                why = "no schema declares it" if file is None else f"its schema, {file}, was not read"
                self._decide(name, "entity", "has a table made from the export alone", why, doubtful=file is not None)
            draft = self._drafts[name]
            draft.profile = profile
            known = {one.name for one in draft.fields}
            internal = _INTERNAL_OF_USER if name == USER else INTERNAL_FIELDS
            built_in = [
                Field(one, Origin.BUILT_IN)
                for one in dict.fromkeys(internal)
                if one in profile.fields and one not in known
            ]
            draft.built_in += tuple(built_in)
            known |= {one.name for one in built_in}
            has_schema = draft.entity.origin is not Origin.EXPORT
            further = [
                Field(one, Origin.EXPORT)
                for one, cells in profile.fields.items()
                if one not in known and not _AGAIN.fullmatch(one) and (cells.filled or not has_schema)
            ]
            room = MOST_COLUMNS - len(known)
            if further[room:]:
                text = f"{len(further) - room:,} fields of {name} have no column, and stay in migration.unmapped"
                self._notices.append(Notice(None, f"{text}: a table has {MOST_COLUMNS:,} at most"))
            draft.entity = replace(draft.entity, fields=(*draft.entity.fields, *further[:room]))
        self._drafts = dict(sorted(self._drafts.items()))

    # -- overrides -----------------------------------------------------------------------------------------------------

    def _check_overrides(self) -> None:
        """Refuse names that cannot be; say of what there is not."""
        given = self._overrides
        fields = {name: {one.name for one in draft.fields} for name, draft in self._drafts.items()}
        for entity in sorted(given.left_out - self._known):
            self._notices.append(Notice(None, f"there is no entity {entity} to leave out"))
        for entity in sorted(
            {*given.tables, *given.first_periods, *given.not_partitioned} - fields.keys() - given.left_out
        ):
            self._notices.append(Notice(None, f"an override names the entity {entity}, which there is not"))
        pairs = {*given.columns, *given.types, *given.references}
        for entity, one in sorted(pairs):
            if entity not in given.left_out and one not in fields.get(entity, set()):
                self._notices.append(Notice(None, f"an override names the field {entity}.{one}, which there is not"))
        for (entity, one), target in sorted(given.references.items()):
            of = target.removesuffix(".email")
            if target and of not in fields:
                raise B44Error(f"b44.toml: {entity}.{one} cannot point at {of}: there is no such entity with a table")
        for subject, name, is_table in (
            *((entity, name, True) for entity, name in given.tables.items()),
            *((f"{entity}.{one}", name, False) for (entity, one), name in given.columns.items()),
        ):
            if not is_usable(name, is_table=is_table):
                raise B44Error(
                    f"b44.toml: {subject} cannot be named {name!r}: a name has letters a to z, digits and _, and is free"
                )
        _refuse_doubled(given.tables.items())
        for entity in sorted({entity for entity, _ in given.columns}):
            _refuse_doubled((f"{entity}.{one}", name) for (of, one), name in given.columns.items() if of == entity)

    # -- tables --------------------------------------------------------------------------------------------------------

    def app(self) -> App:
        for draft in self._drafts.values():
            self._partition(draft)
        for draft in self._drafts.values():
            self._add_columns(draft)
        self._decide_creators()
        self._notice_spreadsheets()
        order, late = load_order(list(self._tables.values()), self._pointing())
        tables = {self._tables[draft.entity.name]: self._table(draft, late) for draft in self._drafts.values()}
        self._decide_updates(tables.values())
        return App(
            self._overrides.app or "app",
            tuple(tables[one] for one in order),
            tuple(self._decisions),
            tuple(self._notices),
            read_rules(self._entities),
            self._left_out,
            self._overrides.strict,
            self._overrides.opened,
        )

    def _decide(self, subject: str, topic: str, text: str, evidence: str, *, doubtful: bool = False) -> None:
        self._decisions.append(Decision(subject, topic, text, evidence, doubtful))

    def _partition(self, draft: _Draft) -> None:
        entity = draft.entity.name
        records = draft.profile.records if draft.profile is not None else 0
        if entity in self._overrides.not_partitioned:
            return
        if entity in self._overrides.first_periods:
            why = "an override gives its first month"
        elif records >= PARTITIONED_FROM:
            why = f"{records:,} records"
        else:
            return
        draft.partitioned = True
        self._decide(
            self._tables[entity],
            "partition",
            "is partitioned by month of its creation; no foreign key can point at it",
            why,
        )

    def _first(self, draft: _Draft) -> date | None:
        """The first month of a partitioned table."""
        if not draft.partitioned:
            return None
        if (given := self._overrides.first_periods.get(draft.entity.name)) is not None:
            return given.replace(day=1)
        match = _MONTH.match(draft.profile.first or "") if draft.profile is not None else None
        return date(int(match["year"]), int(match["month"]), 1) if match and int(match["year"]) >= _EPOCH else None

    def _pointing(self) -> dict[str, frozenset[str]]:
        return {
            self._tables[entity]: frozenset(
                column.reference.table
                for column in draft.columns
                if column.reference is not None
                and column.reference.constrained
                and column.reference.table != self._tables[entity]
            )
            for entity, draft in self._drafts.items()
        }

    def _table(self, draft: _Draft, late: frozenset[tuple[str, str]]) -> Table:
        table = self._tables[draft.entity.name]
        columns: list[Column] = []
        after: set[str] = set()
        for column in draft.columns:
            reference = column.reference
            if reference is not None and reference.constrained:
                cyclic = reference.table == table or (table, reference.table) in late
                if not cyclic:
                    after.add(reference.table)
                column = replace(column, reference=replace(reference, cyclic=cyclic))
            columns.append(column)
        profile = draft.profile
        repeated = tuple(sorted(profile.repeated.items())) if profile is not None else ()
        for key, number in repeated:
            self._decide(
                f"{table} ({', '.join(key)})",
                "index",
                "has no unique index, as the data has repeats: they are listed by a check; mend them, and run `b44 init .` again",
                f"{number:,} {plural(number, 'record repeats', 'records repeat')} the key of an earlier one",
                doubtful=True,
            )
        return Table(
            table,
            draft.entity,
            tuple(columns),
            profile.records if profile is not None else None,
            draft.partitioned,
            self._first(draft),
            tuple(sorted(after)),
            repeated,
        )

    # -- columns -------------------------------------------------------------------------------------------------------

    def _add_columns(self, draft: _Draft) -> None:
        entity = draft.entity
        names, decisions = name_columns(entity, draft.fields, self._overrides)
        self._decisions += decisions
        prose = 0
        for one in draft.fields:
            column = self._column(draft, one, names[one.name])
            if column.prose:
                prose += 1
                column = replace(column, prose=prose <= MOST_PROSE)
            draft.columns.append(column)
        table = self._tables[entity.name]
        only = [one.name for one in entity.fields if one.origin is Origin.EXPORT]
        if only and entity.origin is not Origin.EXPORT:
            self._decide(
                table,
                "field",
                f"has columns for fields that only the export has: {', '.join(only)}",
                "no schema declares them",
            )
        for column in draft.columns:
            if column.prose:
                self._decide(
                    f"{table}.{column.name}",
                    "index",
                    "has an index for full-text search",
                    "its name, format or description says that it is running text",
                )

    def _column(self, draft: _Draft, one: Field, name: str) -> Column:
        entity, table = draft.entity, self._tables[draft.entity.name]
        subject = f"{table}.{name}"
        if one.origin is Origin.BUILT_IN and one.name == "id":
            return Column(name, one, ColumnType.UUID, counts=self._counts(draft, one, ColumnType.UUID))
        given = self._overrides.types.get((entity.name, one.name))
        kind, evidence, doubtful = (given, "", False) if given is not None else self._type(draft, one)
        reference, counts = self._reference(draft, one, subject, kind, given)
        if reference is not None and reference.by is not ReferenceBy.EMAIL:
            kind = ColumnType.UUID_ARRAY if reference.by is ReferenceBy.IDS else ColumnType.UUID
        if evidence:
            self._decide(subject, "type", f"is {kind.value}", evidence, doubtful=doubtful)
        counts = counts or self._counts(draft, one, kind)
        secret = is_secret(one, kind)
        if secret:
            self._decide(subject, "secret", "is in no preview, report or page", "by its name")
        else:
            secret = self._decide_members(draft, one, subject, kind)
        if given is not None:
            self._decide(subject, "type", f"is {given.value}", "an override says so")
        prose = reference is None and not secret and is_prose(one, kind)
        column = Column(name, one, kind, reference, counts, secret=secret, prose=prose)
        return replace(column, fits=self._fits(subject, column, counts))

    def _decide_members(self, draft: _Draft, one: Field, subject: str, kind: ColumnType) -> bool:
        """Name what holds secrets within a field's objects; return whether anything does."""
        cells = self._cells(draft, one)
        declared = secret_members(one) if kind in (ColumnType.JSONB, ColumnType.TEXT) else ()
        found = sorted((cells.secrets if cells is not None else set()) - {*declared})
        for paths, evidence in ((declared, "by its name"), (found, "by its name, in the values of the export")):
            for path in paths:
                # By the column's name, and then as it is spelt in the objects.
                within = f"{subject}{path[len(one.name) :]}"
                self._decide(within, "secret", "is in no preview, report or page", evidence)
        return bool(declared or found)

    def _cells(self, draft: _Draft, one: Field) -> FieldProfile | None:
        if draft.profile is None:
            return None
        return draft.profile.fields.get(one.name) or FieldProfile()

    def _counts(self, draft: _Draft, one: Field, kind: ColumnType) -> Counts | None:
        cells = self._cells(draft, one)
        if cells is None or draft.profile is None:
            return None
        fitting = cells.fitting.get(kind, 0) if kind in FITS else cells.filled
        return Counts(
            filled=cells.filled,
            unfit=cells.filled - fitting,
            outside=cells.outside,
            missing=draft.profile.records - cells.filled,
        )

    def _type(self, draft: _Draft, one: Field) -> tuple[ColumnType, str, bool]:
        """The type that cells confirm; evidence, empty where nothing is to be said; whether it speaks against the type."""
        candidates = candidate_types(one, without_schemas=self._without_schemas)
        cells = self._cells(draft, one)
        recognised = one.origin is Origin.EXPORT
        several = f"the schema allows {' and '.join(one.types)}" if len(one.types) > 1 else ""
        if cells is None or not cells.filled:
            return confirmed_type(candidates, 0, {}, all_fit=recognised), several, False
        kind = confirmed_type(candidates, cells.filled, cells.fitting, all_fit=recognised)
        declared = candidates[0]
        if recognised and kind is not ColumnType.TEXT:
            return kind, f"all {cells.filled:,} values are in its form", False
        if recognised or declared is ColumnType.TEXT:
            return kind, several, False
        unfit = cells.filled - cells.fitting.get(declared, 0)
        said = f"{unfit:,} of {_values(cells.filled)} {plural(unfit, 'does', 'do')} not fit"
        if kind is not declared:
            asked = "Base44 has" if one.origin is Origin.BUILT_IN else "the schema says"
            shown = ""
            if kind is ColumnType.TEXT and 2 * cells.shown > unfit:
                self._shown.add(draft.entity.name)
                shown = ": they are as a spreadsheet shows them"
            return kind, f"{asked} {declared.value}, which {said}{shown}", True
        return kind, said if unfit else "", bool(unfit)

    def _reference(
        self, draft: _Draft, one: Field, subject: str, kind: ColumnType, given: ColumnType | None
    ) -> tuple[Reference | None, Counts | None]:
        """What a column points at, and the counts of its cells where it does."""
        override = self._overrides.references.get((draft.entity.name, one.name))
        if override is None and given is not None and given not in (ColumnType.UUID, ColumnType.UUID_ARRAY):
            return None, None
        if override is None and kind not in (ColumnType.TEXT, ColumnType.TEXT_ARRAY):
            return None, None
        if one.origin is Origin.BUILT_IN and one.name in CREATOR_FIELDS and override is None:
            return self._creator(draft, one)
        if one.origin is Origin.BUILT_IN and override is None:
            return None, None
        if draft.entity.name == USER and one.name == "email":
            return None, None
        finding = find(draft.entity, one, self._names, self._profile.entities, override)
        candidate = finding.candidate
        if candidate is None:
            if finding.evidence:
                self._decide(subject, "reference", "is no reference", finding.evidence, doubtful=finding.elsewhere)
            return None, None
        found = finding.counts
        if found is not None and override is None and found.unfit > MOST_UNFIT * found.filled:
            why = f"{finding.evidence}, but {found.unfit:,} of {_values(found.filled)} {plural(found.unfit, 'is no id', 'are no ids')}"
            self._decide(subject, "reference", f"stays {kind.value}, and is no reference", why, doubtful=True)
            return None, None
        target = self._drafts[candidate.entity]
        constrained = candidate.by is ReferenceBy.ID and not target.partitioned
        table = self._tables[candidate.entity]
        missing = found.filled - found.found if found is not None else 0
        bound = self._bound(candidate.by, missing if constrained else 0, constrained=constrained)
        self._decide(subject, "reference", f"→ {table}{bound}", finding.evidence, doubtful=missing > 0)
        # Any text makes an id; what is no array makes no array of them.
        counts = self._counts(draft, one, ColumnType.TEXT_ARRAY if candidate.by is ReferenceBy.IDS else ColumnType.TEXT)
        if counts is not None and found is not None:
            counts = replace(
                counts,
                found=min(found.found, counts.filled) if candidate.by is not ReferenceBy.IDS else found.found,
                dangling=missing,
            )
        return Reference(table, candidate.by, candidate.rule, constrained), counts

    def _creator(self, draft: _Draft, one: Field) -> tuple[Reference | None, Counts | None]:
        """The user who made a record: an id or an e-mail address, or text where Base44 names what is no user."""
        if USER not in self._drafts:
            return None, None
        people, by_id = self._drafts[USER], one.name == "created_by_id"
        table = self._tables[USER]
        cells = self._cells(draft, one)
        counts = self._counts(draft, one, ColumnType.TEXT)
        found = 0
        if cells is not None and cells.values is not None and cells.filled:
            finding = find(draft.entity, one, self._names, self._profile.entities, USER if by_id else f"{USER}.email")
            found = finding.counts.found if finding.counts is not None else 0
            self._creators[f"{one.name} filled"] += cells.filled
            self._creators[f"{one.name} found"] += found
        if by_id and self._creators_unfit[0]:
            return None, None
        if counts is not None:
            counts = replace(counts, found=found)
        by = ReferenceBy.ID if by_id else ReferenceBy.EMAIL
        return Reference(table, by, "built in", by_id and not people.partitioned), counts

    @cached_property
    def _creators_unfit(self) -> tuple[int, int]:
        """How many of the app's `created_by_id` are no ids, and how many there are: the column is the same in every table."""
        unfit = filled = 0
        for draft in self._drafts.values():
            for one in draft.fields:
                cells = self._cells(draft, one) if one.name == CREATOR_FIELDS[0] else None
                if cells is not None and cells.values is not None and cells.filled:
                    finding = find(draft.entity, one, self._names, self._profile.entities, USER)
                    unfit += finding.counts.unfit if finding.counts is not None else 0
                    filled += cells.filled
        return unfit, filled

    def _decide_creators(self) -> None:
        """One line for what is the same of every entity."""
        if USER not in self._drafts:
            return
        table = self._tables[USER]
        unfit, given = self._creators_unfit
        if unfit:
            self._decide(
                "*.created_by_id",
                "reference",
                "is text in every table, as exported, and no reference",
                f"{unfit:,} of {_values(given)} {plural(unfit, 'is no id', 'are no ids')}, such as services and visitors have",
                doubtful=True,
            )
        for one in CREATOR_FIELDS[1 if unfit else 0 :]:
            by_id = one == CREATOR_FIELDS[0]
            filled, found = self._creators[f"{one} filled"], self._creators[f"{one} found"]
            constrained = by_id and not self._drafts[USER].partitioned
            missing = filled - found
            by = ReferenceBy.ID if by_id else ReferenceBy.EMAIL
            bound = self._bound(by, missing if constrained else 0, constrained=constrained)
            evidence = f"built in; {found:,} of {_values(filled)} found, in all entities" if filled else "built in"
            self._decide(f"*.{one}", "reference", f"→ {table}{bound}", evidence, doubtful=missing > 0)

    def _notice_spreadsheets(self) -> None:
        """One notice for all files that a spreadsheet has written in the forms of its language."""
        if self._shown:
            forms = "with values as a spreadsheet shows them, such as 31.12.2025, 1.234,56 or WAHR"
            remedy = "for columns of the declared types, export the entities from Base44 again, and save them by no spreadsheet"
            entities = ", ".join(sorted(self._shown))
            self._notices.append(Notice(None, f"columns of {entities} are text, {forms}: {remedy}"))

    def _decide_updates(self, tables: Iterable[Table]) -> None:
        """One line for each name that the column of the latest change has."""
        for name in sorted({one.changed for one in tables if one.changed is not None}):
            self._decide(
                f"*.{name}",
                "trigger",
                "an update that changes a row, and not this column, sets it to the current time; the migration's own updates do not",
                f"Base44 sets `{UPDATED}` whenever a record changes",
            )

    def _bound(self, by: ReferenceBy, missing: int, *, constrained: bool) -> str:
        """How a reference is held, for its decision; nothing for a foreign key that all values honour."""
        if by is ReferenceBy.EMAIL:
            return ", by e-mail address"
        if by is ReferenceBy.IDS:
            return ", an array of ids"
        if not constrained:
            return ", without a foreign key, as that table is partitioned"
        held = "" if self._overrides.strict else " NOT VALID:"
        return f",{held} {missing:,} {plural(missing, 'value names', 'values name')} no record" if missing else ""

    def _fits(self, subject: str, column: Column, counts: Counts | None) -> bool:
        """Whether the export honours what is declared; each breach is a decision."""
        if counts is None:
            return True
        one, reference = column.field, column.reference
        breaches: list[str] = []
        if one.required and counts.missing:
            records = counts.missing + counts.filled
            breaches.append(f"required, and blank in {counts.missing:,} of {records:,} {plural(records, 'record')}")
        # Where records are refused for such a value, none is left to break this.
        if one.required and counts.unfit and not self._overrides.strict:
            unfit = plural(counts.unfit, "does not fit", "do not fit")
            breaches.append(f"required, and {counts.unfit:,} of {_values(counts.filled)} {unfit}: null instead")
        held = kinds_held(column) - {RuleKind.REQUIRED}
        if counts.outside and held:
            breaches.append(f"{counts.outside:,} of {_values(counts.filled)} outside {_outside_what(column, held)}")
        if breaches:
            text = "refuses records" if self._overrides.strict else "is NOT VALID"
            self._decide(subject, "constraint", text, "; ".join(breaches), doubtful=True)
        dangling = reference is not None and reference.constrained and counts.found < counts.filled
        return not breaches and not dangling


def _without_built_in(entity: Entity) -> Entity:
    """An entity without the fields that Base44 fills in all entities, which its schema may declare again."""
    again = _OF_USER_AGAIN if entity.name == USER else BUILT_IN_FIELDS
    return replace(entity, fields=tuple(one for one in entity.fields if one.name not in again))


def _built_in(entity: Entity) -> tuple[Field, ...]:
    """Fields that every record has, `id` first, without those that the schema declares as its own."""
    names = _OF_USER if entity.name == USER else BUILT_IN_FIELDS
    own = {one.name for one in _without_built_in(entity).fields}
    return tuple(Field(name, Origin.BUILT_IN) for name in names if name not in own)


def _undeclared(entity: Entity, name: str) -> Field:
    """A field of the export that no schema declares: one that Base44 fills, or another."""
    internal = _INTERNAL_OF_USER if entity.name == USER else INTERNAL_FIELDS
    return Field(name, Origin.BUILT_IN if name in internal else Origin.EXPORT)


def _unique_keys(entity: Entity) -> tuple[tuple[str, ...], ...]:
    keys = [(one.name,) for one in entity.fields if one.unique]
    keys += [names for names, unique in entity.indexes if unique]
    return tuple(dict.fromkeys(keys))


def _refuse_doubled(given: Iterable[tuple[str, str]]) -> None:
    by_name: dict[str, str] = {}
    for subject, name in given:
        if (other := by_name.setdefault(name, subject)) != subject:
            raise B44Error(f"b44.toml: {other} and {subject} cannot both be named {name}")


def _outside_what(column: Column, held: frozenset[RuleKind]) -> str:
    limits = column.field.limits.keys() - set(limits_not_held(column))
    what = [*(["the enum"] if RuleKind.VALUES in held else []), *sorted(limits)]
    return ", ".join(what) or "the limits"


def _values(number: int) -> str:
    return f"{number:,} {plural(number, 'value')}"
