"""References: which fields point at which entities, by their names and by the values of an export."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.scaffold.export_profile import EntityProfile, FieldProfile, Sample, id_key, is_id, member_key
from b44_assets.scaffold.model import ABSENT, Entity, Field, Origin, ReferenceBy
from b44_assets.scaffold.references import Names, find, load_order, may_refer


def text(name: str, description: str = "", **further: str) -> Field:
    return Field(name, types=("string",), description=description, **further)  # pyright: ignore[reportArgumentType]


def texts(name: str) -> Field:
    return Field(name, types=("array",), items=Field("[]", types=("string",)))


def entity(name: str, *fields: Field, rls: object = ABSENT) -> Entity:
    return Entity(name, Origin.SCHEMA, fields, rls=rls)


ENTITIES = (
    "User Boat Harbour Crew SitePage ProjectBoard shop.Order shop.OrderNote EmailTemplate LabelTemplate ChatSession".split()  # noqa: SIM905
)


def oid(number: int) -> str:
    return f"{number:024x}"


def found(
    field: Field, *, of: str = "Crew", beside: tuple[Field, ...] = (), rls: object = ABSENT, **values: list[str]
) -> tuple[str, str] | None:
    """Entity and rule of what a field points at; `values` are its own (`own`) and the ids or e-mails of entities."""
    return finding(field, of=of, beside=beside, rls=rls, **values)[0]


def finding(
    field: Field, *, of: str = "Crew", beside: tuple[Field, ...] = (), rls: object = ABSENT, **values: list[str]
) -> tuple[tuple[str, str] | None, str, ReferenceBy | None]:
    own = entity(of, field, *beside, rls=rls)
    entities = [own if name == of else entity(name, text("title")) for name in ENTITIES]
    profiles: dict[str, EntityProfile] = {}
    if values:
        for name in ENTITIES:
            profile = profiles[name] = EntityProfile(1)
            for value in values.get(name.replace(".", "_"), []):
                (profile.emails if "@" in value else profile.ids).add(member_key(value))
        sample = Sample()
        for value in values["own"]:
            sample.add(member_key(value))
        number = len(values["own"])
        profiles[of].fields[field.name] = FieldProfile(filled=number, values=sample, named=number)
    result = find(own, field, Names(entities), profiles, None)
    one = result.candidate
    return (None if one is None else (one.entity, one.rule)), result.evidence, None if one is None else one.by


@pytest.mark.parametrize(
    ("field", "expected"),
    [
        (text("boat_id"), ("Boat", "name matches")),
        (text("boatId"), ("Boat", "name matches")),
        (texts("boat_ids"), ("Boat", "name matches")),
        (text("user_id"), ("User", "name matches")),
        (text("home_harbour_id"), ("Harbour", "prefix dropped")),
        (text("author_id"), ("User", "word for a person")),
        (text("approved_by_id"), ("User", "word for a person")),
        (text("board_id"), ("ProjectBoard", "ending of a name")),
        (text("parent_id"), ("Crew", "own parent")),
        (text("lp_id", "The Harbour.id of it"), ("Harbour", "named in its description")),
        (text("owner_email"), ("User", "by a person")),
        (text("checked_by", "E-mail of who did"), ("User", "by a person")),
        (text("stripe_boat_id"), None),
        (text("template_id"), None),  # two end so
        (text("session_id"), None),
        (text("checked_by"), None),
        (text("contact_email"), None),
        (text("crew_id"), None),  # of its own entity
        (text("lp_id", "Of a Harbour or a Boat"), None),
        (text("title"), None),
        (Field("boat_id", types=("number",)), None),
    ],
)
def test_by_name_alone(field: Field, expected: tuple[str, str] | None) -> None:
    assert found(field) == expected


def test_an_entity_with_a_key_of_its_own_of_that_name_is_meant_by_it_and_not_by_its_id() -> None:
    crew, boat = entity("Crew", text("boat_id")), entity("Boat", text("boat_id"))
    assert find(crew, crew.fields[0], Names([crew, boat]), {}, None).candidate is None


def test_a_page_of_the_same_kind_is_its_parent() -> None:
    assert found(text("parent_page_id"), of="SitePage") == ("SitePage", "own parent")


def test_a_plugins_entities_name_each_other_without_its_name() -> None:
    assert found(text("order_id"), of="shop.OrderNote") == ("shop.Order", "name matches")


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("лодка_id", "Лодка"),
        ("ЛодкаId", "Лодка"),
        ("予約_ids", "予約"),
        ("новая_лодка_id", "Лодка"),
        ("река_id", None),
        ("strasse_id", "Straße"),
    ],
)
def test_a_name_in_another_script_is_compared_as_it_is(name: str, expected: str | None) -> None:
    crew = entity("Crew", text(name))
    found = find(crew, crew.fields[0], Names([crew, *map(entity, ("Лодка", "予約", "Straße"))]), {}, None).candidate
    assert (found.entity if found is not None else None) == expected


@pytest.mark.parametrize("name", ["target_type", "targetKind", "target_entity"])
def test_a_field_beside_one_that_tells_its_type_is_left_alone(name: str) -> None:
    assert found(text("target_id"), beside=(text(name),)) is None


def test_an_entitys_own_name_counts_more_than_a_type_beside_it() -> None:
    assert found(text("boat_id"), beside=(text("boat_type"),)) == ("Boat", "name matches")


@pytest.mark.parametrize(("right", "by"), [("{{user.id}}", ReferenceBy.ID), ("{{ user.email }}", ReferenceBy.EMAIL)])
def test_a_rule_that_compares_it_with_the_caller_says_that_it_names_a_user(right: str, by: ReferenceBy) -> None:
    rls = {"read": {"$or": [{"data.keeper": right}, {"user_condition": {"role": "admin"}}]}}
    assert may_refer(entity("Crew", rls=rls), text("keeper"))
    assert finding(text("keeper"), rls=rls) == (
        ("User", "compared with the caller"),
        "a rule compares it with the caller",
        by,
    )


IDS = [oid(number) for number in range(10)]
OTHERS = [oid(number) for number in range(100, 110)]
MAILS = [f"p{number}@example.com" for number in range(10)]


@pytest.mark.parametrize(
    ("field", "values", "expected"),
    [
        # A name that says enough holds with one value found, and with none if they are ids.
        (text("boat_id"), {"own": [IDS[0], *OTHERS], "Boat": IDS}, ("Boat", "name matches")),
        (text("boat_id"), {"own": OTHERS, "Boat": IDS}, ("Boat", "name matches")),
        (text("boat_id"), {"own": OTHERS}, ("Boat", "name matches")),
        (text("boat_id"), {"own": ["fast", "slow"], "Boat": IDS}, None),
        # Of a weaker one some have to be found.
        (text("author_id"), {"own": OTHERS, "User": IDS}, None),
        (text("author_id"), {"own": IDS, "User": IDS}, ("User", "word for a person")),
        (text("session_id"), {"own": IDS, "ChatSession": IDS}, ("ChatSession", "ending of a name")),
        (text("crew_id"), {"own": IDS, "Crew": IDS}, ("Crew", "name matches")),
        # Of several that may be meant, the one whose records are named.
        (text("template_id"), {"own": IDS, "EmailTemplate": IDS, "LabelTemplate": OTHERS}, ("EmailTemplate", "ending of a name")),
        (text("template_id"), {"own": IDS, "EmailTemplate": IDS, "LabelTemplate": IDS}, None),
        # Persons by id or by e-mail address, whichever stands there; both is a mixture.
        (text("checked_by"), {"own": IDS, "User": IDS}, ("User", "by a person")),
        (text("checked_by"), {"own": MAILS, "User": MAILS}, ("User", "by a person")),
        (text("checked_by"), {"own": [mail.upper() for mail in MAILS], "User": MAILS}, ("User", "by a person")),
        (text("checked_by"), {"own": IDS + MAILS, "User": IDS + MAILS}, None),
        (text("contact_email"), {"own": MAILS, "User": MAILS[:1]}, None),
        (text("contact_email"), {"own": MAILS, "User": MAILS[:6]}, ("User", "by a person")),
        # Values alone say nothing.
        (text("code_id"), {"own": IDS, "Boat": IDS}, None),
    ],
)  # fmt: skip
def test_by_name_and_values(field: Field, values: dict[str, Any], expected: tuple[str, str] | None) -> None:
    assert found(field, **values) == expected


def test_the_evidence_has_the_counts() -> None:
    assert finding(text("boat_id"), own=[*IDS[:4], *OTHERS], Boat=IDS)[1] == "name matches, 4 of 14 values found"


def test_a_mixture_is_told_with_its_shares() -> None:
    assert "50 %" in finding(text("checked_by"), own=IDS + MAILS, User=IDS + MAILS)[1]


def test_values_that_are_ids_of_another_entity_are_told_and_not_followed() -> None:
    one, evidence, _ = finding(text("code_id"), own=IDS, Boat=IDS)
    assert one is None and "Boat" in evidence


@given(st.dictionaries(st.sampled_from("abcdefg"), st.frozensets(st.sampled_from("abcdefg")), max_size=7))
def test_what_a_table_points_at_is_loaded_before_it_but_for_circles(pointing: dict[str, frozenset[str]]) -> None:
    pointing = {table: targets - {table} for table, targets in pointing.items()}
    tables = sorted(pointing)
    order, late = load_order(tables, pointing)
    assert sorted(order) == tables
    place = {table: number for number, table in enumerate(order)}
    for table, targets in pointing.items():
        for target in targets & place.keys():
            assert (place[target] > place[table]) == ((table, target) in late)
    if not any(path_back(pointing, table) for table in tables):
        assert not late


def path_back(pointing: dict[str, frozenset[str]], start: str) -> bool:
    """Whether a table leads back to itself."""
    seen: set[str] = set()
    left = list(pointing.get(start, ()))
    while left:
        one = left.pop()
        if one == start:
            return True
        if one not in seen:
            seen.add(one)
            left += pointing.get(one, ())
    return False


@given(st.lists(st.text(max_size=3), max_size=60), st.lists(st.text(max_size=3), max_size=60), st.integers(4, 40))
def test_small_samples_count_exactly_and_large_ones_stay_small(left: list[str], right: list[str], most: int) -> None:
    samples = Sample(most), Sample(most)
    for sample, values in zip(samples, (left, right), strict=True):
        for value in values:
            sample.add(value)
        assert len(sample.counts) <= most
    share = samples[0].share_in(samples[1])
    assert 0 <= share <= 1
    if len(set(left)) <= most and len(set(right)) <= most:
        assert share == (sum(value in right for value in left) / len(left) if left else 0)
    if set(left) <= set(right):
        assert share in (0, 1)


@given(st.from_regex(r"[0-9a-fA-F]{24}|[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", fullmatch=True))
def test_ids_are_the_same_in_upper_and_lower_case(given_id: str) -> None:
    assert is_id(given_id) and id_key(given_id.upper()) == id_key(f" {given_id.lower()} ")


@pytest.mark.parametrize(
    "other", ["", "guest_1", "6970c3a24e8275af9d1ae39", "zz70c3a24e8275af9d1ae397", "a@example.com"]
)
def test_other_texts_are_no_ids(other: str) -> None:
    assert not is_id(other)


@pytest.mark.parametrize(
    ("entities", "field", "expected"),
    [
        (("Quiz", "Quizzes"), "quiz_id", "Quiz"),
        (("Quiz", "Quizzes"), "quizzes_id", "Quizzes"),
        (("Quiz", "Quizzes"), "last_quiz_ids", "Quiz"),
        (("Person", "People"), "person_id", "Person"),
        (("User", "User_"), "user_id", "User"),
        (("Straße", "Strasse"), "strasse_id", None),
    ],
)
def test_of_entities_with_names_alike_the_one_is_meant_that_is_spelt_so(
    entities: tuple[str, ...], field: str, expected: str | None
) -> None:
    crew = entity("Crew", text(field))
    candidate = find(crew, crew.fields[0], Names([crew, *map(entity, entities)]), {}, None).candidate
    assert (None if candidate is None else candidate.entity) == expected
