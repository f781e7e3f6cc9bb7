"""Rules of Base44 read into who may do what: what is open is named first, what is not understood opens nothing."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from b44_assets.scaffold.model import ABSENT, Audience, Entity, Field, Origin, Rule
from b44_assets.scaffold.rules import read_rules


def entity(name: str, rls: Any = ABSENT, *fields: Field, **other: Any) -> Entity:
    return Entity(name, Origin.SCHEMA, fields, rls=rls, other_rules=other)


def read(rls: Any, operation: str = "read") -> Rule:
    [rule] = [rule for rule in read_rules([entity("Boat", rls)]) if rule.operation == operation]
    return rule


@pytest.mark.parametrize(
    "rls", [ABSENT, None, True, "", {}, {"read": None}, {"read": True}, {"read": {}}, {"update": False}]
)
def test_absent_null_true_and_empty_are_open_to_everyone(rls: Any) -> None:
    assert read(rls).access is Audience.EVERYONE


def test_false_is_for_nobody() -> None:
    assert read({"read": False}).access is Audience.NOBODY
    assert read(False, "delete").access is Audience.NOBODY


@pytest.mark.parametrize(
    ("rule", "words"),
    [
        ({"user_condition": {"role": "admin"}}, ["role admin"]),
        ({"user_condition": {"data.team": "red"}}, ["team is red"]),
        ({"data.owner_id": "{{user.id}}"}, ["owner_id is the caller's id"]),
        ({"created_by": "{{ user.email }}"}, ["created_by is the caller's email"]),
        ({"data.owner": "{{user.data.company}}"}, ["the caller's company"]),
        ({"data.state": {"$in": ["open", "new"]}}, ["state is one of open, new"]),
        ({"data.state": {"$ne": "draft"}}, ["state is not draft"]),
        ({"$and": [{"data.a": 1}, {"data.b": True}]}, ["a is 1 and", "b is true"]),
        ({"$nor": [{"data.a": 1}]}, ["not (records whose a is 1)"]),
        ({"$or": [{"data.a": 1}, {"user_condition": {"role": "admin"}}]}, ["records whose a is 1, or the role admin"]),
        ({"$or": [{"data.a": 1}, {"data.b": 2}], "data.c": 3}, ["(records whose a is 1, or records whose b is 2) and"]),
    ],
)
def test_conditions_in_words(rule: Any, words: list[str]) -> None:
    one = read({"read": rule})
    assert one.access is Audience.SOME and one.source == rule
    assert all(word in one.who for word in words)


@pytest.mark.parametrize(
    "rule",
    [
        "created_by = current_user",
        {"owner_id": "{{user.id}}"},
        {"data.a": {"$regex": "x"}},
        {"data.a": {"$gt": 1}},
        {"data.a": "x{{user.id}}"},
        {"user_condition": "role == admin"},
        {"user_condition": {}},
        {"$or": []},
        {"$or": [{"odd": 1}]},
        {"$and": [{"user_condition": {"role": "admin"}}, {"odd": 1}]},
        {"$nor": [{"odd": 1}]},
        {"rule": "public"},
        ["admin"],
        1,
    ],
)
def test_what_is_in_no_documented_form_is_not_known(rule: Any) -> None:
    one = read({"read": rule})
    assert one.access is Audience.UNKNOWN and one.who.startswith("not known")


def test_an_alternative_that_is_not_understood_is_told_beside_the_others() -> None:
    one = read({"read": {"$or": [{"user_condition": {"role": "admin"}}, {"odd": "{{user.id}}"}]}})
    assert one.access is Audience.SOME and "role admin" in one.who and "nobody" in one.who and "odd" in one.who


def test_an_alternative_without_a_condition_opens_all() -> None:
    assert read({"read": {"$or": [{"data.a": 1}, {}]}}).access is Audience.EVERYONE


def test_a_key_that_is_not_documented_opens_nothing() -> None:
    rules = read_rules([entity("Boat", ABSENT, security={"read": {"rule": "public"}})])
    assert {rule.access for rule in rules} == {Audience.UNKNOWN}
    assert len(rules) == 4


def test_what_is_open_comes_first_and_fields_have_rules_of_their_own() -> None:
    field = Field("salary", rls={"read": {"user_condition": {"role": "admin"}}})
    rules = read_rules([entity("Boat", {"read": False}, field), entity("Port")])
    accesses = [rule.access is Audience.EVERYONE for rule in rules]
    assert accesses == sorted(accesses, reverse=True)
    assert [(rule.entity, rule.operation) for rule in rules if rule.field == "salary"] == [("Boat", "read")]


def test_another_operation_is_read_as_one_or_not_known() -> None:
    rules = {rule.operation: rule for rule in read_rules([entity("Boat", {"write": {"data.a": 1}, "publish": True})])}
    assert rules["write"].access is Audience.SOME and rules["publish"].access is Audience.UNKNOWN


rule_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.sampled_from(["", "{{user.id}}", "admin", "x{{"]),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["$or", "$and", "$nor", "$in", "data.a", "created_by", "a", "user_condition", "role"]),
            inner,
            max_size=3,
        )
    ),
    max_leaves=8,
)


@given(rule_values)
def test_any_rule_is_read_and_only_what_is_empty_opens(rule: Any) -> None:
    one = read({"read": rule})
    assert one.who and "\n" not in one.who
    if one.access is Audience.EVERYONE and isinstance(rule, dict) and rule:
        assert any(key in ("$or", "$and") for key in rule)


@pytest.mark.parametrize("origin", [Origin.EXPORT, Origin.BUILT_IN])
def test_nothing_is_said_of_an_entity_without_a_schema(origin: Origin) -> None:
    assert read_rules([Entity("Visit", origin, ())]) == ()
    assert {rule.access for rule in read_rules([Entity("Visit", Origin.SCHEMA, ())])} == {Audience.EVERYONE}
