"""The SQL that is written for an app, whatever its names and values are: one query, or one transaction, for many examples."""

from __future__ import annotations

import re
from collections.abc import Generator
from pathlib import Path
from types import MappingProxyType
from typing import Any

import psycopg
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from psycopg import sql

from b44_assets.catalog import Kind, load_catalog
from b44_assets.catalog.loader import load_runtime
from b44_assets.scaffold.declared_rules import not_held
from b44_assets.scaffold.model import App, Column, ColumnType, Counts, Field, Reference, ReferenceBy
from b44_assets.scaffold.patterns import posix_pattern
from b44_assets.scaffold.sql_files import files_of
from tests.helpers.invented_app import app, field, table, write_app_files

SIGNS = st.sampled_from([*"ab1-_.é^$ \n", "ß", "А", "٣"])
ATOMS = st.sampled_from(
    [
        "a",
        "b",
        "1",
        r"\d",
        r"\w",
        r"\D",
        r"\W",
        ".",
        r"\.",
        r"\-",
        "[ab]",
        "[^a]",
        r"[\w.-]",
        "[a-c1]",
        "[[a]",
        r"[\]a]",
        "é",
        r"\u00e9",
        " ",
    ]
)
PIECES = st.tuples(ATOMS, st.sampled_from(["", "", "*", "+", "?", "{2}", "{1,}", "{0,2}", "+?"])).map("".join)
BRANCHES = st.lists(PIECES, min_size=1, max_size=4).map("".join)
PATTERNS = st.builds(
    lambda parts, start, end: f"{'^' * start}{parts}{'$' * end}",
    st.one_of(
        BRANCHES,
        st.builds(lambda a, b: f"(?:{a}|{b})+", BRANCHES, BRANCHES),
        st.builds(lambda a, b: f"({a}|{b}){{1,2}}", BRANCHES, BRANCHES),
    ),
    st.booleans(),
    st.booleans(),
)


@pytest.fixture(scope="module")
def conn(server_url: str) -> Generator[psycopg.Connection[Any]]:
    with psycopg.connect(server_url, autocommit=True) as conn:
        yield conn


@settings(max_examples=8)
@given(pairs=st.lists(st.tuples(PATTERNS, st.text(SIGNS, max_size=6)), min_size=30, max_size=60))
def test_patterns_match_what_they_match_in_ecmascript(
    conn: psycopg.Connection[Any], pairs: list[tuple[str, str]]
) -> None:
    understood = [(posix, pattern, text) for pattern, text in pairs if (posix := posix_pattern(pattern)) is not None]
    assert len(understood) == len(pairs)
    found = conn.execute(
        "select array_agg(p.text ~ p.posix order by p.place)"
        " from unnest(%s::text[], %s::text[]) with ordinality p (posix, text, place)",
        ([posix for posix, _, _ in understood], [text for _, _, text in understood]),
    ).fetchone()
    expected = [
        # Of what is drawn, Python's own differ in these, and in what `\d` and `\w` are outside of ASCII.
        re.search(re.sub(r"\$$", r"\\Z", pattern.replace("[[", r"[\[")), text, re.ASCII) is not None
        for _, pattern, text in understood
    ]
    assert found == (expected,)


@pytest.mark.parametrize(
    "pattern",
    [
        r"\s",
        r"\bword\b",
        "(?=a)",
        "(?<name>a)",
        r"(a)\1",
        "a{300}",
        "a**",
        "[a",
        "(a",
        "a)",
        "[]",
        r"\p{L}",
        "\U0001f600",
        r"\cA",
        "",
    ],
)
def test_patterns_that_may_mean_something_else_are_not_enforced(pattern: str) -> None:
    assert posix_pattern(pattern) is None
    held = Column("code", field("code", limits={"pattern": pattern}), ColumnType.TEXT)
    described = App("app", (table("tasks", "Task", Column("code", held.field, ColumnType.TEXT)),))
    assert [one.subject for one in not_held(described)] == ["tasks.code"]


# -- apps of any kind --------------------------------------------------------------------------------------------------

NAMES = st.sampled_from(
    [
        "order",
        "group",
        "user",
        "time",
        "values",
        "between",
        "t",
        "f",
        "v",
        "c",
        "r",
        "source",
        "a" * 63,
        "base44_ids",
        "made_at",
        "_x",
        "unfit",
    ]
)
TEXTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=30)
NASTY = st.sampled_from(
    ["'", "$$", "$do1$", "{}", "%s", "--", "/*", ";", "\\", '"', "-- on: x", "status: open", "end; end if;", "\0"]
)
WORDS = st.one_of(TEXTS, NASTY)


@st.composite
def columns(draw: st.DrawFn) -> Column:
    kind = draw(st.sampled_from([one for one in ColumnType if one is not ColumnType.UUID]))
    values = tuple(draw(st.lists(st.one_of(WORDS, st.integers(), st.none(), st.booleans()), min_size=1, max_size=4)))
    array = kind in (ColumnType.TEXT_ARRAY, ColumnType.UUID_ARRAY)
    limits: dict[str, Any] = draw(
        st.fixed_dictionaries(
            {},
            optional={
                "minLength": st.integers(0, 5),
                "maxLength": st.integers(0, 9),
                "minimum": st.floats(allow_nan=False, allow_infinity=False),
                "exclusiveMaximum": st.one_of(st.booleans(), st.integers()),
                "pattern": st.one_of(PATTERNS, WORDS),
                "maxItems": st.integers(0, 3),
            },
        )
    )
    name = draw(NAMES)
    of_field = Field(
        draw(st.one_of(st.just(name), TEXTS)),
        types=("string",),
        enum=values if not array and draw(st.booleans()) else None,
        items=Field("", enum=values) if array else None,
        default=draw(
            st.one_of(st.sampled_from(values), st.floats(), st.just([]), st.just({"a'": "$$"}), st.just(["'"]))
        ),
        limits=MappingProxyType(limits),
        required=draw(st.booleans()),
        unique=draw(st.booleans()),
        description=draw(WORDS),
    )
    by = ReferenceBy.IDS if kind is ColumnType.UUID_ARRAY else ReferenceBy.EMAIL
    return Column(
        name,
        of_field,
        kind,
        reference=Reference("others", by, "rule", constrained=False) if draw(st.booleans()) and by else None,
        counts=draw(st.sampled_from([None, Counts(outside=1)])),
        fits=draw(st.booleans()),
        secret=draw(st.booleans()),
        prose=draw(st.booleans()),
    )


@st.composite
def apps(draw: st.DrawFn) -> App:
    drawn = draw(
        st.lists(columns(), min_size=1, max_size=5, unique_by=(lambda one: one.name, lambda one: one.field.name))
    )
    own = [one for one in drawn if one.field.name not in ("id", "created_date", "updated_date", "is_sample")]
    links = [
        Column(
            "link", field("link id"), ColumnType.UUID, Reference("things", ReferenceBy.ID, "rule", constrained=True)
        ),
        Column("user", field("other"), ColumnType.UUID, Reference("others", ReferenceBy.ID, "rule", constrained=True)),
    ]
    taken = {one.name for one in own} | {one.field.name for one in own}
    links = [one for one in links if not {one.name, one.field.name} & taken]
    entity = draw(st.one_of(st.just("Order"), st.sampled_from(['say "hi"', "a.b", "Ü" * 40, "order"])))
    first = table("things", entity, *own, *links, description=draw(WORDS), after=("others",))
    return App(draw(TEXTS), (table("others", "Other"), first), strict=draw(st.booleans()))


@pytest.fixture(scope="module")
def with_runtime(server_url: str, tmp_path_factory: pytest.TempPathFactory) -> Generator[psycopg.Connection[Any]]:
    with psycopg.connect(server_url, autocommit=True) as admin:
        admin.execute("drop database if exists written_sql with (force)")
        admin.execute("create database written_sql template template0 strategy file_copy")
        with psycopg.connect(server_url.replace("/postgres?", "/written_sql?"), autocommit=True) as conn:
            for spec in load_runtime():
                for statement in spec.statements:
                    conn.execute(statement.text.encode())
            yield conn
        admin.execute("drop database written_sql with (force)")


_OF_SOURCE = "1::bigint as record_number, null::text as base44_id, false as superseded, now() as exported_at, null::jsonb as unmapped"


@settings(max_examples=6)
@example(described=app())
@example(described=app(strict=True))
@given(described=apps())
def test_every_file_is_read_by_the_catalogue_and_runs_and_runs_again(
    with_runtime: psycopg.Connection[Any], tmp_path_factory: pytest.TempPathFactory, described: App
) -> None:
    conn = with_runtime
    folder: Path = tmp_path_factory.mktemp("drawn")
    catalog = load_catalog(write_app_files(folder, described))
    assert files_of(described) == files_of(described)
    kinds = (Kind.TABLE, Kind.INDEX, Kind.CONSTRAINT, Kind.VIEW_SCHEMA)
    with conn.transaction(force_rollback=True):
        for _ in range(2):
            for spec in catalog.of(*kinds):
                for statement in spec.statements:
                    conn.execute(statement.text.encode())
        for check in catalog.checks.values():
            conn.execute(check.spec.statements[0].text.encode())
        for name, mapping in catalog.mappings.items():
            fields = [sql.SQL("null::text as {}").format(sql.Identifier(one.name)) for one in mapping.fields[1:]]
            source = sql.SQL(", ").join([sql.SQL(_OF_SOURCE), *fields]).as_string(conn)
            given = conn.execute(
                f"with source as (select {source}) select * from ({mapping.spec.statements[0].text}) m".encode()
            )
            assert given.description is not None
            held = conn.execute(sql.SQL("select * from {} limit 0").format(sql.Identifier(name))).description or ()
            assert {one.name for one in given.description} == {
                *(one.name for one in held),
                "record_number",
                "base44_id",
                "reasons",
                "repairs",
                "unmapped",
            }


def test_a_default_is_written_only_where_a_new_row_may_have_it() -> None:
    kept = {"text": "a", "number": 1, "list": ["a"]}
    own = (
        Column("a", field("a", enum=("b",), default="a"), ColumnType.TEXT),
        Column("b", field("b", limits={"maxLength": 1}, default="ab"), ColumnType.TEXT),
        Column("c", field("c", limits={"minimum": 2}, default=1), ColumnType.NUMERIC),
        Column("d", field("d", default="soon"), ColumnType.DATE),
        Column("e", field("e", default=1.5), ColumnType.BIGINT),
        Column("f", field("f", default=kept["text"]), ColumnType.TEXT),
        Column("g", field("g", default=kept["number"], limits={"minimum": 1, "maximum": 2}), ColumnType.NUMERIC),
        Column("h", field("h", default=kept["list"]), ColumnType.TEXT_ARRAY),
    )
    text = next(
        text
        for path, text in files_of(App("app", (table("tasks", "Task", *own),))).items()
        if path.parts[0] == "tables"
    )
    assert re.findall(r"^  (\w) .* default (.*?),?$", text, re.MULTILINE) == [
        ("f", "'a'"),
        ("g", "1"),
        ("h", "array['a']"),
    ]
