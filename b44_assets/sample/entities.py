"""The records of every entity: sound ones from chance, and trouble planted in some of them.

A maker draws a sound record together with what must become of it. A plant then changes both, so that the truth stays
exact however a record goes wrong. Sound records are drawn from one stream of chance and trouble from another, so the
titles and bodies of a seed stay the same at any rate of trouble, which makes runs at different rates comparable.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import cycle
from typing import Any, ClassVar, TypeAlias

from b44_assets.sample.dialects import UNDEFINED, Record, Value
from b44_assets.sample.drawing import DAY, END, HOUR, MINUTE, START, WORDS, Draw, Prose, iso
from b44_assets.sample.truth import Expected, Truth

# So many people at most are referred to by other records; it bounds memory, not the number of users.
_POOL = 100_000
# A copy of a record comes up to so many records later.
_COPY_DISTANCE = 50
_SERVICE_EMAIL = "service+5d2c41b7@no-reply.base44.com"

_FOREIGN_NAMES = ("Zoë Åkesson", "Łukasz Wójcik", "山本 花子", "Дарья Орлова", "José Ñíguez")
_ROLES = (
    ("superuser", "admin"),
    ("admin", "admin"),
    ("Admin", "admin"),
    ("editor", "moderator"),
    ("moderator", "moderator"),
    ("author", "user"),
    ("author", "user"),
    ("user", "user"),
    ("user", "user"),
    (" user ", "user"),
    ("guest", "guest"),
    (None, "user"),
    ("", "user"),
)
_VERIFIED = ((True, True), (True, True), (True, True), (False, False), (None, False), ("yes", True), ("0", False))
_DISABLED = ((None, True), (False, True), (False, True), (False, True), (True, False), ("no", True))
_CATEGORY_NAMES = (("Café", "café"), ("Büro", "büro"), ("Сад", "сад"), ("庭", "庭"))
_UNSAFE = (
    "<script>alert(1)</script>",
    "<ScRiPt src=//evil.example/x.js></sCrIpT>",
    '<p onclick="steal()">Read on.</p>',
    '<a href="javascript:alert(1)">More</a>',
    "<img src=x onerror=alert(1)>",
    "<iframe src=//evil.example></iframe>",
    "<svg/onload=alert(1)>",
    '<p style="position:fixed">Over all</p>',
)
_BLANK = (None, "", "   ")
_SHORT = (None, " ", "hi", "0123456789", "<script>alert('long enough')</script>")
_NO_TIME = ("yesterday", "2025-02-31T10:00:00.000000", "31 February", "2025-13-01T00:00:00", "soon")
_NO_INTEGER = ("12x", "9999999999999", 9_999_999_999_999, "many")
_NO_JSON = ("{theme: dark", '{"theme":', "dark; light", "[1, 2")


@dataclass(slots=True)
class Made:
    """A record on its way into the export, and what must become of it.

    Attributes:
        record: The record.
        created: When it was made, in milliseconds since the epoch.
        expected: The values of its target row, as `truth.json` gives them.
        reasons: Why it must be quarantined; empty for a record that is migrated.
        repairs: The target columns whose values must be repaired if it is migrated.
        copy: Another record under the same id: an exact repeat, or an older version.
        copy_is_older: Which of the two the copy is.
    """

    record: Record
    created: int
    expected: Expected
    reasons: tuple[str, ...] = ()
    repairs: tuple[str, ...] = ()
    copy: Record | None = None
    copy_is_older: bool = False


# Makes a record go wrong; chance comes from the stream for trouble.
Plant: TypeAlias = Callable[[Draw, Made], None]
# A value, or how to draw one for a record.
Source: TypeAlias = Value | Callable[[Draw, Made], Value]


def _drawn(source: Source, draw: Draw, made: Made) -> Value:
    return source(draw, made) if callable(source) else source


def spoil(column: str, *sources: Source, reason: str) -> Plant:
    """Puts these values, in turn, where they make the record be refused for this reason."""
    turns = cycle(sources)

    def plant(draw: Draw, made: Made) -> None:
        made.record[column] = _drawn(next(turns), draw, made)
        made.reasons += (reason,)

    return plant


def mend(column: str, *sources: Source, **expected: Any) -> Plant:
    """Puts these values, in turn, where the migration must repair them to the values of target columns expected."""
    turns = cycle(sources)

    def plant(draw: Draw, made: Made) -> None:
        made.record[column] = _drawn(next(turns), draw, made)
        made.repairs += (column,)
        made.expected.update(expected)

    return plant


def together(*plants: Plant) -> Plant:
    """Several troubles in one record."""

    def plant(draw: Draw, made: Made) -> None:
        for each in plants:
            each(draw, made)

    return plant


def either(attempt: Callable[[Draw, Made], bool], otherwise: Plant) -> Plant:
    """Trouble between two records, or another kind where no other record is there to clash with."""

    def plant(draw: Draw, made: Made) -> None:
        if not attempt(draw, made):
            otherwise(draw, made)

    return plant


def repeat(draw: Draw, made: Made) -> None:
    """The record occurs twice, equal in every field."""
    made.copy = made.record


def older_version(**changes: Value) -> Plant:
    """The record has an older version with these fields different, before or after it in the file."""

    def plant(draw: Draw, made: Made) -> None:
        # Every sound record was updated an hour after it was made at the earliest.
        made.copy = made.record | changes | {"updated_date": iso(made.created + draw.below(HOUR // 2))}
        made.copy_is_older = True

    return plant


def invented_id(draw: Draw, made: Made) -> None:
    """The id is none of Base44's own; the record is sound otherwise."""
    made.record["id"] = draw.invented_id(made.created)


@dataclass(frozen=True, slots=True)
class Person:
    """A migrated user, as other records name it."""

    base44_id: str
    email: str


@dataclass
class Cast:
    """Who and what other records refer to; first the users are made, then the categories, then the rest."""

    people: list[Person] = field(default_factory=list[Person])
    categories: list[str] = field(default_factory=list[str])
    # Entity to ids of its records that are refused.
    refused: dict[str, list[str]] = field(default_factory=lambda: {"User": [], "Category": []})
    _strangers: int = 0

    def nobody(self, draw: Draw, made: Made) -> Value:
        """An id that stands for no migrated user: in turn a service, a user who is refused, made up, or unknown."""
        kind = self._strangers % 4
        self._strangers += 1
        if kind == 0:
            return draw.service_id()
        if kind == 1 and self.refused["User"]:
            return draw.pick(self.refused["User"])
        if kind == 2:
            return draw.invented_id(made.created)
        return draw.object_id(made.created)

    def no_category(self, draw: Draw, made: Made) -> Value:
        """An id that stands for no migrated category."""
        if self.refused["Category"] and draw.chance(0.3):
            return draw.pick(self.refused["Category"])
        return draw.object_id(made.created)


class Maker(ABC):
    """Makes the records of one entity."""

    entity: ClassVar[str]
    # Under which name `truth.json` gives the values of its records, if it does.
    values: ClassVar[str | None] = None
    # How many of the first records are sound in any case.
    spared: ClassVar[int] = 0

    def __init__(self, seed: int, faults: float, truth: Truth, cast: Cast) -> None:
        """Prepares the entity.

        Args:
            seed: The seed of the whole sample.
            faults: The share of records to plant trouble in, 0 to 1.
            truth: Where what became of every record is counted.
            cast: Who other records refer to; makers of users and categories add to it.
        """
        self.draw = Draw(seed, self.entity)
        self.truth = truth
        self.cast = cast
        self.tally = truth.tally(self.entity)
        self.faults = faults
        self.plants = self.troubles()
        self.planted = 0
        self._trouble = Draw(seed, f"{self.entity} trouble")
        self._first_plant = self._trouble.below(len(self.plants))

    @abstractmethod
    def make(self, number: int) -> Made:
        """Draws a sound record.

        Args:
            number: The record's place among those of its entity, from 0.
        """

    @abstractmethod
    def troubles(self) -> tuple[Plant, ...]:
        """Every kind of trouble; they are planted in turn, so that even a small sample shows many."""

    def troubled(self, number: int) -> bool:
        """Decides whether trouble is planted in a record."""
        return self._trouble.chance(self.faults) and number >= self.spared

    def accept(self, made: Made, sound: bool) -> None:
        """Takes note of a record that is migrated; `sound` ones had nothing planted in them."""
        if self.values is not None:
            self.truth.expect(self.values, str(made.record["id"]), made.expected)

    def refuse(self, made: Made) -> None:
        """Takes note of a record that is quarantined, for records that name it in vain."""
        refused = self.cast.refused.get(self.entity)
        base44_id = str(made.record["id"] or "").strip()
        if refused is not None and base44_id and len(refused) < _POOL:
            refused.append(base44_id)

    def records(self, count: int) -> Iterator[Record]:
        """Makes so many records, and the copies planted besides them.

        Args:
            count: Records to make, copies not counted.
        """
        late: deque[tuple[int, Record]] = deque()
        for number in range(count):
            made = self.make(number)
            troubled = self.troubled(number)
            if troubled:
                self.plants[(self._first_plant + self.planted) % len(self.plants)](self._trouble, made)
                self.planted += 1
            if made.reasons:
                self.tally.refuse(made.reasons)
                self.refuse(made)
            else:
                self.tally.keep(made.repairs)
                self.accept(made, not troubled)
            if made.copy is None:
                yield made.record
            else:
                yield self._place_copy(made, number, late)
            while late and late[0][0] <= number:
                yield late.popleft()[1]
        for _, record in late:
            yield record

    def _place_copy(self, made: Made, number: int, late: deque[tuple[int, Record]]) -> Record:
        """Counts the copy and keeps one of the pair for later; returns the one that goes first."""
        pair = [made.record, made.copy or made.record]
        if made.copy_is_older:
            self.tally.refuse(("duplicate_id",))
            if self._trouble.chance(0.5):
                pair.reverse()
        else:
            self.tally.repeat()
        late.append((number + self._trouble.below(_COPY_DISTANCE), pair[1]))
        return pair[0]

    def built_ins(self, created: int, owner: Person | None) -> Record:
        """The fields that Base44 itself keeps in every record.

        Args:
            created: When the record was made, in milliseconds since the epoch.
            owner: Who made it.
        """
        draw = self.draw
        return {
            "id": draw.object_id(created),
            "created_date": iso(created),
            "updated_date": iso(created + HOUR + draw.below(20 * DAY)),
            "created_by_id": owner.base44_id if owner else None,
            "created_by": owner.email if owner else None,
            "is_sample": UNDEFINED if draw.chance(0.03) else False,
        }

    def moment(self) -> int:
        """A time for a record to be made; one in fifty falls on a whole second, which is written without a fraction."""
        at = self.draw.moment()
        return at - at % 1000 if at % 50 == 0 else at


class UserMaker(Maker):
    """Users. Those who are migrated join the cast."""

    entity = "User"
    values = "users"
    spared = 1

    def __init__(self, seed: int, faults: float, truth: Truth, cast: Cast) -> None:
        """As for every entity."""
        super().__init__(seed, faults, truth, cast)
        self._app_id = self.draw.object_id(START)
        # Sound users that another user can still clash with: by address, by given name, by made name.
        self._addressed: Made | None = None
        self._named: Made | None = None
        self._unnamed: Made | None = None

    def make(self, number: int) -> Made:
        """Draws a user with an address and a user name of their own."""
        draw = self.draw
        created = self.moment()
        local = f"{draw.pick(WORDS)}.{draw.pick(WORDS)}{number}"
        address = f"{local}@{draw.pick(('example.com', 'example.org', 'example.co.uk'))}"
        given = f"élan_{number}" if draw.chance(0.02) else f"{draw.pick(WORDS)}_{number}"
        typed = draw.pick((given, given, given.upper(), f" {given}", None, ""))
        name = draw.pick(_FOREIGN_NAMES) if draw.chance(0.05) else " ".join(draw.words(2)).title()
        picture = f"https://media.base44.com/images/public/{self._app_id}/{number}_a.png" if draw.chance(0.5) else None
        role, target_role = draw.pick(_ROLES)
        verified, is_verified = draw.pick(_VERIFIED)
        disabled, is_active = draw.pick(_DISABLED)
        login = draw.written_by_app(created + 3 * DAY)[0] if draw.chance(0.5) else None
        built_ins = self.built_ins(created, None)
        record: Record = {
            "username": typed,
            "avatar_url": picture,
            "bio": draw.pick((None, "", UNDEFINED)) if draw.chance(0.1) else draw.sentence(),
            "verified": verified,
            "last_login_at": login,
            "role": role,
            **built_ins,
            "email": draw.pick((address, address, address, address.upper(), address.title(), f"  {address} ")),
            "full_name": draw.pick((name, f" {name} ")),
            "disabled": disabled,
            "app_id": self._app_id,
            "is_service": False,
            "_app_role": UNDEFINED if draw.chance(0.05) else "user",
        }
        expected: Expected = {
            "email": address,
            "username": given if typed else local,
            "display_name": name,
            "avatar_url": picture,
            "role": target_role,
            "email_verified": is_verified,
            "active": is_active,
            "created_at": self.truth.time(iso(created)),
            "updated_at": self.truth.time(str(built_ins["updated_date"])),
        }
        return Made(record, created, expected)

    def accept(self, made: Made, sound: bool) -> None:
        """Adds the user to the cast."""
        super().accept(made, sound)
        if len(self.cast.people) < _POOL:
            self.cast.people.append(Person(str(made.record["id"]), str(made.record["email"]).strip()))
        # Whoever clashes with them comes after them, and not after the end of all times.
        if sound and made.created < END - 40 * DAY:
            self._addressed = made
            if made.record["username"]:
                self._named = made
        if sound and not made.record["username"]:
            self._unnamed = made

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with users."""
        unknown_role = mend("role", "vip", "teacher", "owner of all", role="user")
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(full_name="Known By Another Name"),
            spoil("email", *_BLANK, reason="missing_email"),
            spoil(
                "email",
                # Each of its own, as equal ones would be duplicates besides.
                lambda draw, made: f"{made.record['id']}.example.com",
                lambda draw, made: f"{made.record['id']}@localhost",
                lambda draw, made: f"{made.record['id']} @example.org",
                lambda draw, made: f"zoë.{made.record['id']}@example.org",
                reason="invalid_email",
            ),
            either(self._same_address, unknown_role),
            either(self._same_given_name, unknown_role),
            either(self._takes_made_name, unknown_role),
            unknown_role,
            mend("avatar_url", "javascript:alert(1)", "data:image/png;base64,AAAA", "/me.png", avatar_url=None),
            spoil("created_date", *_NO_TIME, reason="invalid:created_at"),
            spoil("last_login_at", *_NO_TIME, reason="invalid:last_login_at"),
            spoil("verified", "perhaps", reason="invalid:email_verified"),
            spoil("disabled", "perhaps", reason="invalid:active"),
            invented_id,
            together(
                spoil("email", *_BLANK, reason="missing_email"),
                spoil("created_date", *_NO_TIME, reason="invalid:created_at"),
            ),
        )

    def _follow(self, draw: Draw, made: Made, leader: Made) -> None:
        """Makes a user a later one than another."""
        made.created = leader.created + DAY + draw.below(10 * DAY)
        made.record["id"] = draw.object_id(made.created)
        made.record["created_date"] = iso(made.created)
        made.record["updated_date"] = iso(made.created + HOUR)
        made.expected["created_at"] = self.truth.time(iso(made.created))
        made.expected["updated_at"] = self.truth.time(iso(made.created + HOUR))

    def _same_address(self, draw: Draw, made: Made) -> bool:
        leader, self._addressed = self._addressed, None
        if leader is None:
            return False
        self._follow(draw, made, leader)
        address = str(leader.expected["email"])
        others = [text for text in (address.upper(), address.title(), address) if text != leader.record["email"]]
        made.record["email"] = draw.pick(others)
        made.reasons += ("duplicate_email",)
        return True

    def _same_given_name(self, draw: Draw, made: Made) -> bool:
        leader, self._named = self._named, None
        if leader is None:
            return False
        self._follow(draw, made, leader)
        name = str(leader.expected["username"])
        made.record["username"] = draw.pick((name.upper(), name.title(), f" {name}"))
        made.expected["username"] = f"{name}-2"
        made.repairs += ("username",)
        return True

    def _takes_made_name(self, draw: Draw, made: Made) -> bool:
        """The user is given the name that an earlier record would make of its address, and keeps it."""
        loser, self._unnamed = self._unnamed, None
        if loser is None:
            return False
        name = str(loser.expected["username"])
        made.record["username"] = draw.pick((name, name.upper()))
        made.expected["username"] = name
        loser.expected["username"] = f"{name}-2"
        self.tally.repairs["username"] += 1
        return True


class CategoryMaker(Maker):
    """Categories: few, and every kind of trouble in them even at a low rate."""

    entity = "Category"
    values = "categories"
    spared = 4

    def __init__(self, seed: int, faults: float, truth: Truth, cast: Cast) -> None:
        """As for every entity."""
        super().__init__(seed, faults, truth, cast)
        self._named: Made | None = None

    def make(self, number: int) -> Made:
        """Draws a category with a name of its own."""
        draw = self.draw
        created = START + draw.below(60 * DAY)
        word = draw.pick(WORDS)
        label, part = draw.pick(_CATEGORY_NAMES) if draw.chance(0.15) else (word.capitalize(), word)
        name, slug = f"{label} {number}", f"{part}-{number}"
        color = f"#{draw.below(1 << 24):06x}"
        color = draw.pick((color, color, color.upper(), None))
        order = draw.pick((number, number, number, None))
        active = draw.pick((True, True, True, False, None))
        owner = draw.pick(self.cast.people) if draw.chance(0.8) else None
        record: Record = {
            "name": draw.pick((name, name, f" {name} ")),
            "slug": draw.pick((slug, slug, slug, None, "")),
            "description": draw.pick((draw.sentence(), draw.sentence(), None)),
            "color": color,
            "sort_order": order,
            "active": active,
            **self.built_ins(created, owner),
        }
        return Made(
            record,
            created,
            {"name": name, "slug": slug, "color": color, "sort_order": order or 0, "active": active is not False},
        )

    def troubled(self, number: int) -> bool:
        """Every second one has some trouble until each kind had its turn."""
        first_round = self.faults > 0 and number % 2 == 0 and self.planted < len(self.plants)
        return number >= self.spared and (super().troubled(number) or first_round)

    def accept(self, made: Made, sound: bool) -> None:
        """Adds the category to the cast."""
        super().accept(made, sound)
        self.cast.categories.append(str(made.record["id"]))
        if sound:
            self._named = made

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with categories."""
        bad_color = mend("color", "#12", "red", "#gggggg", "4c6f23", color=None)
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(description="As it was once"),
            spoil("name", *_BLANK, reason="missing_name"),
            either(self._same_name, bad_color),
            bad_color,
            spoil("sort_order", *_NO_INTEGER, reason="invalid:sort_order"),
            spoil("active", "perhaps", reason="invalid:active"),
            invented_id,
        )

    def _same_name(self, draw: Draw, made: Made) -> bool:
        leader, self._named = self._named, None
        if leader is None:
            return False
        made.created = leader.created + DAY + draw.below(10 * DAY)
        made.record["id"] = draw.object_id(made.created)
        made.record["created_date"] = iso(made.created)
        made.record["updated_date"] = iso(made.created + HOUR)
        made.record["name"] = leader.record["name"]
        made.reasons += ("duplicate_name",)
        return True


class PostMaker(Maker):
    """Posts: about 1.1 KB each as a record."""

    entity = "Post"
    values = "posts"

    def __init__(self, seed: int, faults: float, truth: Truth, cast: Cast) -> None:
        """As for every entity."""
        super().__init__(seed, faults, truth, cast)
        self._prose = Prose(seed)
        self._unsafe_parts = cycle(_UNSAFE)

    def make(self, number: int) -> Made:
        """Draws a post by one of the cast."""
        draw = self.draw
        created = self.moment()
        author = draw.pick(self.cast.people)
        author_id: str | None = author.base44_id
        by_id: str | None = author.base44_id
        by_email: str | None = author.email
        kind = draw.random()
        if kind < 0.07:
            by_id, by_email = draw.service_id(), _SERVICE_EMAIL
        elif kind < 0.10:
            by_id, by_email = draw.pick(("anonymous", None)), None
        elif kind < 0.12:
            author_id = None if kind < 0.11 else ""
        content, is_html = self._prose.body(draw)
        title = draw.title()
        tags, tag_list = draw.tags()
        created_text = iso(created)
        updated_text = iso(created + HOUR + draw.below(20 * DAY))
        created_at = self.truth.time(created_text)
        kind = draw.random()
        published = kind < 0.6
        status = draw.pick(("published", "published", "published", "Published")) if published else "draft"
        publish_text = published_at = None
        if kind < 0.45 or kind > 0.98:
            publish_text, meaning = draw.written_by_app(created + MINUTE + draw.below(10 * DAY))
            if published:
                # Only Base44's own form has a fraction that a dialect can lose.
                published_at = self.truth.time(publish_text) if len(publish_text) == 26 else meaning
        elif published:
            published_at = created_at
        elif kind > 0.8:
            status = draw.pick(("archived", None, ""))
        category = draw.pick(self.cast.categories) if draw.chance(0.66) else draw.pick((None, None, ""))
        views, likes = draw.below(5000), draw.below(300)
        record: Record = {
            "title": title,
            "content": content,
            "status": status,
            "publish_date": publish_text,
            "tags": tags,
            "category_id": category,
            "author_id": author_id,
            "view_count": views,
            "like_count": likes if kind < 0.97 else None,
            "id": draw.object_id(created),
            "created_date": created_text,
            "updated_date": updated_text,
            "created_by_id": by_id,
            "created_by": by_email,
            "is_sample": UNDEFINED if draw.chance(0.03) else False,
        }
        expected: Expected = {
            "title": title.strip(),
            "published": published,
            "published_at": published_at,
            "tags": tag_list,
            "category": category or None,
            "user": author.base44_id,
            "view_count": views,
            "like_count": likes if kind < 0.97 else 0,
            "created_at": created_at,
            "updated_at": self.truth.time(updated_text),
        }
        if not is_html:
            expected["content"] = content
        expected["unsafe"] = False
        return Made(record, created, expected)

    def accept(self, made: Made, sound: bool) -> None:
        """Counts the post's month."""
        super().accept(made, sound)
        self.truth.posts_by_month[str(made.expected["created_at"])[:7]] += 1

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with posts."""
        missing_title = spoil("title", *_BLANK, reason="missing_title")
        orphan = spoil("author_id", self.cast.nobody, reason="orphan_user")
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(title="An earlier draft of the same post"),
            self._orphaned,
            self._authorless,
            missing_title,
            spoil("title", self._long_title, reason="title_too_long"),
            self._longest_title,
            spoil("content", *_SHORT, reason="short_content"),
            spoil("view_count", *_NO_INTEGER, reason="invalid:view_count"),
            spoil("like_count", *_NO_INTEGER, reason="invalid:like_count"),
            spoil("created_date", *_NO_TIME, reason="invalid:created_at"),
            spoil("updated_date", *_NO_TIME, reason="invalid:updated_at"),
            spoil("publish_date", *_NO_TIME, reason="invalid:published_at"),
            spoil("tags", "[draft", "[stone, river", "[not] json", reason="invalid:tags"),
            mend("category_id", self.cast.no_category, category=None),
            self._unsafe,
            invented_id,
            self._undated,
            self._never_updated,
            together(missing_title, spoil("content", "hi", None, reason="short_content")),
            together(orphan, self._anonymous, spoil("view_count", *_NO_INTEGER, reason="invalid:view_count")),
        )

    def _anonymous(self, draw: Draw, made: Made) -> None:
        made.record["created_by_id"] = draw.pick(("anonymous", None))
        made.record["created_by"] = None

    def _orphaned(self, draw: Draw, made: Made) -> None:
        """The author is no migrated user, nor is the creator."""
        made.record["author_id"] = made.record["created_by_id"] = self.cast.nobody(draw, made)
        made.record["created_by"] = _SERVICE_EMAIL
        made.reasons += ("orphan_user",)

    def _authorless(self, draw: Draw, made: Made) -> None:
        """No author, and a creator who is none."""
        made.record["author_id"] = draw.pick(_BLANK)
        self._anonymous(draw, made)
        made.reasons += ("orphan_user",)

    @staticmethod
    def _title_of(draw: Draw, length: int) -> str:
        # The last sign is a letter, so that trimming leaves the length as it is; the first takes two bytes.
        return ("É" + " ".join(draw.words(80)))[: length - 1] + "é"

    def _long_title(self, draw: Draw, made: Made) -> Value:
        return self._title_of(draw, 256 + draw.pick((0, 0, draw.below(60))))

    def _longest_title(self, draw: Draw, made: Made) -> None:
        """A title of 255 characters, and more bytes, is not too long."""
        made.record["title"] = made.expected["title"] = self._title_of(draw, 255)

    def _unsafe(self, draw: Draw, made: Made) -> None:
        """The content has HTML that a sanitizer takes out."""
        made.record["content"] = f"{made.record['content']}{next(self._unsafe_parts)}"
        made.repairs += ("content",)
        made.expected["unsafe"] = True
        made.expected.pop("content", None)

    def _undated(self, draw: Draw, made: Made) -> None:
        """Without a created date the id's own second counts."""
        before = made.expected["created_at"]
        after = iso(made.created - made.created % 1000) + "+00:00"
        made.record["created_date"] = draw.pick(_BLANK)
        made.expected["created_at"] = after
        if made.record["publish_date"] is None and made.expected["published_at"] == before:
            made.expected["published_at"] = after

    def _never_updated(self, draw: Draw, made: Made) -> None:
        made.record["updated_date"] = draw.pick(_BLANK)
        made.expected["updated_at"] = made.expected["created_at"]


class EventMaker(Maker):
    """Events; sound ones never share a user and a day in UTC."""

    entity = "Event"

    def __init__(self, seed: int, faults: float, truth: Truth, cast: Cast) -> None:
        """As for every entity."""
        super().__init__(seed, faults, truth, cast)
        # Whose sound event took place last, and when.
        self._taken: tuple[Person, int] | None = None
        self._latest: tuple[Person, int] = (cast.people[0], START)

    def make(self, number: int) -> Made:
        """Draws an event on a day that its user has for it alone."""
        draw = self.draw
        first_day, days = 21, (END - START) // DAY - 21
        turn, place = divmod(number, len(self.cast.people))
        owner = self.cast.people[place]
        # Users start on scattered days and go on day by day, so no user comes to the same day twice.
        day = first_day + (place * 611 + turn) % days
        # In the evening there is room left for a second event on the same day.
        takes_place = START + day * DAY + draw.below(18 * HOUR)
        created = takes_place - draw.below(20 * DAY)
        cancelled = draw.pick((False, False, False, False, False, False, None, True))
        record: Record = {
            "user_id": owner.base44_id,
            "title": draw.pick((" ".join(draw.words(3)), draw.title(), None)),
            "event_date": draw.written_by_app(takes_place)[0],
            "cancelled": cancelled,
            **self.built_ins(created, owner),
        }
        self._latest = (owner, takes_place)
        return Made(record, created, {"cancelled": bool(cancelled)})

    def accept(self, made: Made, sound: bool) -> None:
        """Remembers a day that is taken now."""
        if sound and not made.expected["cancelled"]:
            self._taken = self._latest

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with events."""
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(title="As planned at first"),
            spoil("user_id", self.cast.nobody, reason="orphan_user"),
            spoil("event_date", *_NO_TIME, reason="invalid:event_date"),
            spoil("cancelled", "perhaps", reason="invalid:cancelled"),
            spoil("created_date", *_NO_TIME, reason="invalid:created_at"),
            self._same_day,
            self._same_day,
            self._same_day_but_cancelled,
            invented_id,
        )

    def _join(self, draw: Draw, made: Made, cancelled: bool) -> bool:
        if self._taken is None:
            return False
        owner, at = self._taken
        made.record["user_id"] = owner.base44_id
        made.record["event_date"] = iso(at + HOUR + draw.below(3 * HOUR))
        made.record["cancelled"] = cancelled
        return True

    def _same_day(self, draw: Draw, made: Made) -> None:
        """The user has an earlier event on that day."""
        if self._join(draw, made, cancelled=False):
            made.reasons += ("duplicate_event_day",)

    def _same_day_but_cancelled(self, draw: Draw, made: Made) -> None:
        """A cancelled event does not stand in the way of another, nor the other in its way."""
        self._join(draw, made, cancelled=True)


class UserPreferenceMaker(Maker):
    """Preferences, one document a user."""

    entity = "UserPreference"

    def make(self, number: int) -> Made:
        """Draws the preferences of the user at this place in the cast."""
        draw = self.draw
        created = self.moment()
        owner = self.cast.people[number]
        document: dict[str, Any] = {
            "theme": draw.pick(("dark", "light")),
            "langs": ["en", draw.pick(("fr", "de", "日本語"))],
            "n": draw.below(8),
        }
        if draw.chance(0.3):
            document["note"] = draw.pick(('a 5" screen', "", "two\nlines", "größer, bitte"))
        record: Record = {
            "user_id": owner.base44_id,
            "preferences": None if draw.chance(0.03) else document,
            **self.built_ins(created, owner),
        }
        return Made(record, created, {})

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with preferences."""
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(preferences={"theme": "sepia"}),
            spoil("user_id", self.cast.nobody, reason="orphan_user"),
            spoil("preferences", *_NO_JSON, reason="invalid:preferences"),
            spoil("created_date", *_NO_TIME, reason="invalid:created_at"),
            invented_id,
        )


class UserSessionMaker(Maker):
    """Sign-in sessions."""

    entity = "UserSession"

    def make(self, number: int) -> Made:
        """Draws a session of one of the cast."""
        draw = self.draw
        created = self.moment()
        owner = draw.pick(self.cast.people)
        data = {"ip": f"192.0.2.{draw.below(256)}", "ua": draw.pick(("Firefox", "Safari", "curl"))}
        record: Record = {
            "user_id": owner.base44_id,
            "session_data": None if draw.chance(0.05) else data,
            "expires_at": draw.written_by_app(created + 30 * DAY)[0],
            **self.built_ins(created, owner),
        }
        return Made(record, created, {})

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with sessions."""
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(session_data={"ip": "192.0.2.1"}),
            spoil("user_id", self.cast.nobody, reason="orphan_user"),
            spoil("expires_at", *_NO_TIME, reason="invalid:expires_at"),
            spoil("session_data", *_NO_JSON, reason="invalid:session_data"),
            invented_id,
        )


class AuditLogMaker(Maker):
    """Audit logs."""

    entity = "AuditLog"

    def make(self, number: int) -> Made:
        """Draws an entry about a post."""
        draw = self.draw
        created = self.moment()
        owner = draw.pick(self.cast.people)
        action = draw.pick(("insert", "update", "delete"))
        values: dict[str, Any] = {"title": " ".join(draw.words(2)), "view_count": draw.below(5000)}
        record: Record = {
            "table_name": draw.pick(("posts", "posts", "users", "events")),
            "record_id": draw.object_id(created),
            "action": action,
            "old_values": None if action == "insert" else values,
            "new_values": None if action == "delete" else values | {"title": draw.sentence()},
            "user_id": None if draw.chance(0.03) else owner.base44_id,
            "timestamp": draw.written_by_app(created)[0],
            **self.built_ins(created, owner),
        }
        return Made(record, created, {})

    def troubles(self) -> tuple[Plant, ...]:
        """What is wrong with audit logs; an unknown user is no reason to refuse one."""
        return (
            spoil("id", *_BLANK, reason="missing_id"),
            repeat,
            older_version(action="noted"),
            mend("user_id", self.cast.nobody, user_id=None),
            mend("user_id", self.cast.nobody, user_id=None),
            spoil("timestamp", *_NO_TIME, reason="invalid:timestamp"),
            spoil("new_values", *_NO_JSON, reason="invalid:new_values"),
            invented_id,
        )
