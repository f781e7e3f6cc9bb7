"""Which columns point at records of other tables: by their names, confirmed on the export.

The rules, in their order, where `x` is a field's name without `_id` or `_ids`:

1. `override`: the app's owner says so. `declared`: the schema says so itself.
2. `compared with the caller`: a rule of the entity compares the field with the caller's id or e-mail address.
3. `name matches`: `x` is the name of an entity, or of one whose name begins with the same plugin's; of several with one singular,
   as `Quiz` and `Quizzes`, of the one that is spelt so.
4. `own parent`: `parent_id` points at the entity itself, and so does `parent_page_id` of `SitePage`.
5. `prefix dropped`: `x` ends in the name of an entity, as `primary_contact` in `Contact`; of several in the longest one. A word of
   another system before it, as in `stripe_customer_id`, makes it that system's id.
6. `named in its description`: the description has the name of exactly one entity.
7. `word for a person`: `x` ends in `author`, `owner`, …, and the entity is `User`.
8. `ending of a name`: `x` is what the name of exactly one other entity ends in, as `board` of `ProjectBoard`.
9. `by a person`: `…_by`, `…_to`, `…_email` of a word for a person, whose values or whose description say that they are ids or e-mail
   addresses of people.

A field beside one that tells its type, as `target_id` beside `target_type`, may point at several tables, and is left alone, unless its
own name is an entity's. With an export, a rule holds if some value names a record of the target, and the first six also without one if
the values are ids. `session_id` and the like, and a field with the name of its own entity, need such a value. Where e-mail addresses
and ids stand in one column, it stays text. Values alone never make a reference.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final

from b44_assets.scaffold.export_profile import EntityProfile, FieldProfile, Sample, is_id
from b44_assets.scaffold.model import Counts, Entity, Field, ReferenceBy
from b44_assets.scaffold.names import comparable, singular
from b44_assets.wording import plural

MIXED: Final = 0.1
"""Share of the values from which on e-mail addresses among ids, or ids among e-mail addresses, make a column a mixed one."""

USER: Final = "User"
_FEW: Final = 5
"""Values of which none need be found for a reference by the weaker rules."""
PERSONS: Final = frozenset(
    re.findall(
        r"\w+",
        """
    user author owner creator assignee member sender receiver recipient reviewer approver moderator admin host organizer
    organiser manager uploader editor follower following followed liker voter participant requester invitee inviter referrer
    referred seller buyer instructor teacher student mentor mentee tutor coach commenter subscriber responder operator
    submitter blocker reporter attendee worker employee performer winner initiator actor person profile_user
    """,
    )
)
"""Words that stand for a user, where no entity is named so."""
_DEEDS: Final = re.compile(
    r"(?:^|_)(?:[a-z]+ed|made|sent|written|given|taken|done|paid|shown|led|held|known|by)_(?:by|to)$"
)
_SYSTEMS: Final = frozenset(
    re.findall(
        r"\w+",
        """
    stripe paypal google facebook meta apple twilio github gitlab slack zoom hubspot salesforce linkedin twitter instagram
    discord telegram whatsapp mailchimp resend sendgrid postmark quickbooks xero shopify amazon aws azure firebase openai
    anthropic external ext remote klarna mollie adyen square plaid airtable notion trello asana jira zapier ringcentral
    youtube tiktok spotify vimeo mux calendly legacy wordpress woocommerce sap oauth sso saml
    """,
    )
)
"""Words that say that an id is another system's."""
_IDS: Final = re.compile(r"(?P<base>.+?)_(?P<ending>ids?|uuid)")
_PARENTS: Final = frozenset({"parent", "root"})
_OF_ANYTHING: Final = frozenset(
    {"session", "request", "transaction", "trace", "device", "tracking", "call", "record", "object", "item"}
)
"""Words that are the ending of a name as often as they are not meant for it."""
_OF_NAMES: Final = frozenset({"name matches", "prefix dropped", "ending of a name"})
"""Rules by which a field is taken to hold the key of an entity of its name."""
_PROVIDERS: Final = frozenset({"provider", "gateway", "merchant"})
"""Words that make what comes after them another system's."""
_EMAIL_WORDS: Final = ("email", "e-mail", "courriel", "correo", "メール")
_CALLER: Final = re.compile(r"\s*\{\{\s*user\.(?P<what>id|email)\s*\}\}\s*")


@dataclass(frozen=True)
class Candidate:
    """An entity that a field may point at.

    Attributes:
        entity: Which.
        by: What stands in the field.
        rule: Of the names.
        strong: Whether the name says enough where no value is found.
        alone: Whether it says enough where there is no value to look at.
    """

    entity: str
    by: ReferenceBy
    rule: str
    strong: bool = False
    alone: bool = True


@dataclass(frozen=True)
class Finding:
    """What became of a field that may be a reference.

    Attributes:
        candidate: What it points at, or None.
        evidence: Why, with counts where there is an export; empty where nothing speaks for a reference.
        counts: Its values, those of them that are found, and those that could be no id.
        elsewhere: Whether its values are ids all the same, of an entity that its name says nothing of.
    """

    candidate: Candidate | None
    evidence: str = ""
    counts: Counts | None = None
    elsewhere: bool = False


class Names:
    """The entities of an app by their names, in the singular of snake_case, letters of other scripts as they are."""

    def __init__(self, entities: Iterable[Entity]) -> None:
        """Take in all entities."""
        self._by_name: dict[str, list[str]] = {}
        self._forms: dict[str, str] = {}
        self._fields = {entity.name: {comparable(field.name) for field in entity.fields} for entity in entities}
        self.spelt = frozenset(self._fields)
        for entity in sorted(self._fields):
            plain = singular(comparable(entity))
            self._by_name.setdefault(plain, []).append(entity)
            self._forms[entity] = plain
        # A plugin's entities name each other without the plugin's name.
        self._by_last: dict[str, list[str]] = {}
        for entity in self._forms:
            if "." in entity:
                last = singular(comparable(entity.rpartition(".")[2]))
                self._by_last.setdefault(last, []).append(entity)

    def has_own(self, one: Candidate, name: str) -> bool:
        """Whether the entity that a field may point at has a field of the same name, and no parent of it is meant."""
        return one.rule in _OF_NAMES and name in self._fields[one.entity]

    def exact(self, name: str, near: str) -> str | None:
        """The entity of a name; of a plugin's own ones before others where `near` is one of them."""
        plain = singular(name)
        space = near.rpartition(".")[0]
        of_plugin = self._by_last.get(plain, [])
        own = [entity for entity in of_plugin if entity.rpartition(".")[0] == space]
        for found in (own if space else [], self._by_name.get(plain, []), of_plugin):
            if (entity := self._meant(found, name)) is not None:
                return entity
        return None

    @staticmethod
    def _meant(alike: list[str], name: str) -> str | None:
        """Of entities whose names are alike, the one that a name spells out, as `Quiz` beside `Quizzes`, and `User` beside `User_`."""
        if len(alike) < 2:
            return alike[0] if alike else None
        for spelt in (name, singular(name)):
            if found := [one for one in alike if comparable(one.rpartition(".")[2]) == spelt]:
                plain = found if len(found) == 1 else [one for one in found if one.rpartition(".")[2].isalnum()]
                return plain[0] if len(plain) == 1 else None
        return None

    def ending_in(self, name: str) -> list[str]:
        """Entities whose names end in a name, and are longer."""
        plain = f"_{singular(name)}"
        return [entity for entity, form in self._forms.items() if form.endswith(plain)]


def may_refer(entity: Entity, field: Field) -> bool:
    """Whether a field's name, or a rule, allows that it is a reference, so that its values are to be looked at."""
    if (
        field.target
        or field.format == "email"
        or any(name == field.name for name, _ in compared_with_caller(entity.rls))
    ):
        return True
    name = comparable(field.name)
    if not _is_textual(field):
        return False
    return (
        _IDS.fullmatch(name) is not None
        or name.endswith(("_by", "_to", "_email", "_emails", "_by_id"))
        or name == "email"
        or singular(name) in PERSONS
        or any(word in PERSONS for word in (name.rpartition("_")[2], singular(name.rpartition("_")[2])))
    )


def _is_textual(field: Field) -> bool:
    types = set(field.types)
    if types == {"array"}:
        return field.items is None or field.items.types in ((), ("string",))
    return not types or "string" in types


def _is_array(field: Field) -> bool:
    return field.types == ("array",)


def candidates(entity: Entity, field: Field, names: Names) -> tuple[list[Candidate], str]:
    """What a field may point at by its name, the best first, and why there is none where something speaks against it."""
    found, against = _by_name(entity, field, names)
    # A plan that has a `plan_id` of its own is known by that one, and not by its id.
    name = comparable(field.name)
    return [replace(one, strong=False, alone=False) if names.has_own(one, name) else one for one in found], against


def _by_name(entity: Entity, field: Field, names: Names) -> tuple[list[Candidate], str]:
    by = ReferenceBy.IDS if _is_array(field) else ReferenceBy.ID
    if field.target:
        target = names.exact(comparable(field.target), entity.name)
        if target is not None:
            return [Candidate(target, by, "declared", strong=True)], ""
    if not _is_textual(field):
        return [], ""
    name = comparable(field.name)
    found = _compared(entity, field, by)
    match = _IDS.fullmatch(name)
    if match is None:
        return [*found, *_of_persons(name, field)], ""
    base = match["base"]
    named = singular(comparable(entity.name))
    if (target := names.exact(base, entity.name)) is not None:
        other = target != entity.name
        return [*found, Candidate(target, by, "name matches", strong=other, alone=other)], ""
    parts = base.split("_")
    rest = singular("_".join(parts[1:]))
    if singular(base) in _PARENTS or (parts[0] in _PARENTS and rest and f"_{rest}_" in f"_{named}_"):
        return [*found, Candidate(entity.name, by, "own parent", strong=True)], ""
    if (described := _described(field, names)) is not None:
        found.append(Candidate(described, by, "named in its description", strong=True))
    if (kind := type_beside(entity, field)) is not None:
        return found, f"{comparable(kind.name)} tells what it points at, which may be records of several entities"
    foreign = [part for part in parts if part in _SYSTEMS] + [part for part in parts[:-1] if part in _PROVIDERS]
    if foreign:
        return found, f"{foreign[0]} is another system"
    for start in range(1, len(parts)):
        if (target := names.exact("_".join(parts[start:]), entity.name)) is not None:
            found.append(Candidate(target, by, "prefix dropped", strong=True))
            break
    if parts[-1] in PERSONS or singular(parts[-1]) in PERSONS or _DEEDS.search(base):
        found.append(Candidate(USER, by, "word for a person"))
    endings = [one for one in names.ending_in(base) if one != entity.name]
    if len(endings) == 1:
        # Where its own entity's name ends so as well, it may be a key of the app's own making.
        alone = singular(base) not in _OF_ANYTHING and entity.name not in names.ending_in(base)
        found.append(Candidate(endings[0], by, "ending of a name", alone=alone))
    elif endings and not found:
        return (
            [Candidate(ending, by, "ending of a name", alone=False) for ending in endings],
            f"several entities' names end so: {', '.join(endings)}",
        )
    return found, ""


def type_beside(entity: Entity, field: Field) -> Field | None:
    """Return the field that tells of which entity another holds an id, as `target_type` of `target_id`; None where there is none."""
    match = _IDS.fullmatch(comparable(field.name))
    if match is None:
        return None
    base = match["base"]
    kinds = {f"{base}_type", f"{base}_kind", f"{base}_entity", f"{base}_entity_type", f"{base}_model"}
    spelt = {comparable(one.name): one for one in entity.fields}
    return spelt[min(kinds & spelt.keys())] if kinds & spelt.keys() else None


def _compared(entity: Entity, field: Field, by: ReferenceBy) -> list[Candidate]:
    """Users, of a field that a rule compares with what the caller is."""
    kinds = {what for name, what in compared_with_caller(entity.rls) if name == field.name}
    if len(kinds) != 1:
        return []
    kind = ReferenceBy.EMAIL if "email" in kinds else by
    return [Candidate(USER, kind, "compared with the caller", strong=True)]


def compared_with_caller(rule: Any) -> Iterator[tuple[str, str]]:
    """Fields that a rule compares with the caller's `id` or `email`, each with which of the two."""
    if isinstance(rule, dict):
        for key, value in rule.items():
            if isinstance(value, str) and (match := _CALLER.fullmatch(value)) is not None:
                yield key.removeprefix("data."), match["what"]
            else:
                yield from compared_with_caller(value)
    elif isinstance(rule, list):
        for one in rule:
            yield from compared_with_caller(one)


def _described(field: Field, names: Names) -> str | None:
    """The one entity whose name the description of a field has."""
    words = set(re.findall(r"[A-Za-z][A-Za-z0-9_]*(?:\.(?!id\b)[A-Za-z][A-Za-z0-9_]*)*", field.description))
    named = sorted(words & names.spelt)
    return named[0] if len(named) == 1 else None


def _of_persons(name: str, field: Field) -> list[Candidate]:
    """Users, of a field that is named after a person or a deed of one."""
    words = field.description.lower()
    says_email = any(word in words for word in _EMAIL_WORDS)
    says_id = bool(re.search(r"\bids?\b", words)) and not says_email
    last = name.rpartition("_")[2]
    if _is_array(field):
        is_person = singular(last) in PERSONS or _DEEDS.search(name)
        return [Candidate(USER, ReferenceBy.IDS, "by a person", says_id, says_id)] if is_person else []
    if last == "email" or field.format == "email":
        who = name.removesuffix("_email").rpartition("_")[2]
        is_user = who in PERSONS or who == "by"
        return [Candidate(USER, ReferenceBy.EMAIL, "by a person", is_user, is_user)]
    if _DEEDS.search(name) or last in PERSONS:
        says = {ReferenceBy.EMAIL: says_email, ReferenceBy.ID: says_id}
        kinds = sorted(says, key=lambda kind: not says[kind])
        return [Candidate(USER, kind, "by a person", says[kind], says[kind]) for kind in kinds]
    return []


def find(
    entity: Entity,
    field: Field,
    names: Names,
    profiles: Mapping[str, EntityProfile],
    override: str | None,
) -> Finding:
    """What a field points at.

    Args:
        entity: Whose field it is.
        field: Which.
        names: Of all entities that have a table.
        profiles: Of the export's entities; empty without an export.
        override: As `Overrides.references` has it; None where it says nothing.
    """
    profile = profiles[entity.name].fields.get(field.name) if entity.name in profiles else None
    if override is not None:
        return _overridden(entity, field, names, profiles, profile, override)
    found, against = candidates(entity, field, names)
    if profile is None or not profile.filled or profile.values is None:
        alone = [one for one in found if one.alone]
        if not alone:
            return Finding(None, against)
        if len({one.entity for one in alone}) > 1 and not alone[0].strong:
            return Finding(None, f"it may point at {' or at '.join(dict.fromkeys(one.entity for one in alone))}")
        said = _said(alone[0], field)
        return Finding(alone[0], f"{said}; no value to look at" if profiles else said)
    emails = profile.values.share_where(lambda text: "@" in text)
    if found and MIXED < emails < 1 - MIXED:
        shares = f"{_percent(emails)} of its {profile.named:,} values are e-mail addresses"
        return Finding(None, f"{shares}, the others are not: it stays text")
    is_email = emails >= 0.5
    found = [one for one in found if (one.by is ReferenceBy.EMAIL) == is_email]
    if not found:
        elsewhere = "" if against else _elsewhere(profile.values, profiles)
        return Finding(None, against or elsewhere, elsewhere=bool(elsewhere))
    scores = [(_found(one, profile, profiles), one) for one in found]
    known = [
        (number, one) for number, one in scores if number and (one.strong or number >= _least(one) * profile.named)
    ]
    if len({one.entity for _, one in known}) > 1 and known[0][1].rule == known[1][1].rule:
        who = ", ".join(f"{one.entity} ({number:,})" for number, one in known)
        return Finding(None, f"its {profile.named:,} values are found in several: {who}")
    if known:
        number, one = known[0]
        return _judged(one, number, profile, field)
    first = found[0]
    looked = _has_records(first, profiles)
    if against and len(found) > 1:
        return Finding(None, f"{against}, and {_none_found(profile)}")
    shaped = is_email or profile.values.share_where(is_id) >= 0.5
    weak = not first.strong and looked and profile.named >= _FEW
    if not shaped or weak or (is_email and not (first.strong and looked)):
        if elsewhere := _elsewhere(profile.values, profiles):
            return Finding(None, elsewhere, elsewhere=True)
        none = f"{_none_found(profile)} in {first.entity}"
        return Finding(
            None, none if looked else f"{first.entity} has no records in the export, and its values are no ids"
        )
    if looked and (elsewhere := _elsewhere(profile.values, profiles)):
        return Finding(None, f"{_said(first, field)}, but {elsewhere}", elsewhere=True)
    return _judged(first, 0, profile, field, looked=looked)


def _least(one: Candidate) -> float:
    """The share of the values that has to be found for a name that says little: an address may be a customer's as well."""
    return 0.5 if one.by is ReferenceBy.EMAIL else 0.1


def _judged(one: Candidate, number: int, profile: FieldProfile, field: Field, *, looked: bool = True) -> Finding:
    assert profile.values is not None
    unfit = 0
    if one.by is not ReferenceBy.EMAIL:
        # What is found is an id, whatever its form.
        share = profile.values.share_where(is_id)
        unfit = max(0, profile.named - max(number, round(profile.named * share)))
    counts = Counts(filled=profile.named, unfit=unfit, found=number)
    what = (
        f"{number:,} of {profile.named:,} {plural(profile.named, 'value')} found"
        if looked
        else f"{one.entity} has no records in the export"
    )
    return Finding(one, f"{_said(one, field)}, {what}", counts)


def _none_found(profile: FieldProfile) -> str:
    return plural(profile.named, "its one value is not found", f"none of its {profile.named:,} values is found")


def _said(one: Candidate, field: Field) -> str:
    """Why a field may point at an entity, as the page of decisions says it."""
    said = {
        "by a person": f"{field.name} names a person",
        "compared with the caller": "a rule compares it with the caller",
        "own parent": "names a parent of the same entity",
        "prefix dropped": f"ends in the name of {one.entity}",
        "named in its description": f"its description names {one.entity}",
        "word for a person": "its name is a word for a person",
        "ending of a name": f"only the name of {one.entity} ends so",
    }
    return said.get(one.rule, one.rule)


def _percent(share: float) -> str:
    return f"{share * 100:.0f} %"


def _sample(one: Candidate, profiles: Mapping[str, EntityProfile]) -> Sample | None:
    target = profiles.get(one.entity)
    if target is None:
        return None
    return target.emails if one.by is ReferenceBy.EMAIL else target.ids


def _has_records(one: Candidate, profiles: Mapping[str, EntityProfile]) -> bool:
    sample = _sample(one, profiles)
    return sample is not None and bool(sample.counts)


def _found(one: Candidate, profile: FieldProfile, profiles: Mapping[str, EntityProfile]) -> int:
    """How many values name a record of the candidate; at least one where any does."""
    sample = _sample(one, profiles)
    if sample is None or profile.values is None:
        return 0
    share = profile.values.share_in(sample)
    return max(1, round(profile.named * share)) if share else 0


def _elsewhere(values: Sample, profiles: Mapping[str, EntityProfile]) -> str:
    """What is said where the values are the ids of an entity of another name: nothing is inferred from it."""
    for entity, profile in profiles.items():
        if profile.ids.counts and sum(values.counts.values()) > 2 and values.share_in(profile.ids) >= 0.5:
            share = _percent(values.share_in(profile.ids))
            return f"{share} of its values are ids of {entity}: if it points there, say so in b44.toml"
    return ""


def _overridden(
    entity: Entity,
    field: Field,
    names: Names,
    profiles: Mapping[str, EntityProfile],
    profile: FieldProfile | None,
    override: str,
) -> Finding:
    if not override:
        return Finding(None, "an override says so")
    target, _, of = override.rpartition(".")
    is_email = of == "email" and bool(target)
    target = target if is_email else override
    by = ReferenceBy.EMAIL if is_email else ReferenceBy.IDS if _is_array(field) else ReferenceBy.ID
    one = Candidate(target, by, "override", strong=True)
    if profile is None or profile.values is None or not profile.named:
        return Finding(one, "an override says so")
    finding = _judged(one, _found(one, profile, profiles), profile, field, looked=_has_records(one, profiles))
    return Finding(one, f"an override says so; {finding.evidence.removeprefix('override, ')}", finding.counts)


def load_order(
    tables: Sequence[str], pointing: Mapping[str, frozenset[str]]
) -> tuple[list[str], frozenset[tuple[str, str]]]:
    """An order in which every table comes after those that it points at, as far as there is one.

    Args:
        tables: All of them.
        pointing: Table to those that it points at by a constraint, itself left out.

    Returns:
        The order, and the pairs of a table and one that it points at which comes later.
    """
    left = {table: set(pointing.get(table, frozenset())) & set(tables) for table in tables}
    order: list[str] = []
    late: set[tuple[str, str]] = set()
    while left:
        free = sorted(table for table, targets in left.items() if not targets)
        if not free:
            # Of a circle, the table that waits for the fewest others and is waited for by the most comes first.
            waited = {table: sum(table in targets for targets in left.values()) for table in left}
            first = min(left, key=lambda table: (len(left[table]), -waited[table], table))
            late |= {(first, target) for target in left[first]}
            free = [first]
        for table in free:
            del left[table]
            order.append(table)
        for targets in left.values():
            targets.difference_update(free)
    return order, frozenset(late)
