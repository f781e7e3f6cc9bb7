"""The program carries any app: nothing of it names an object of the one in `sql/`."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from b44_assets.catalog import Kind, constraint_definitions, index_definitions, load_catalog, trigger_definitions

ROOT = Path(__file__).parents[2]
PACKAGE = ROOT / "b44_assets"
# Dagster's word as well: only where it is part of a text, such as SQL or a message.
EVERYDAY = frozenset({"events"})
# Base44's own field of every entity; when a backup expires; a column of the server's catalogue.
OF_OTHERS = frozenset({"created_by", "expires_at", "description"})


@cache
def words_of_the_app() -> tuple[frozenset[str], frozenset[str]]:
    """The names of relations, columns, indexes, constraints, triggers and functions in `sql/`, less those that the runtime has.

    Returns:
        Names that are no everyday English, which may stand nowhere; and columns that are (`title`), which a text may not
        qualify as a column.
    """
    catalog = load_catalog(ROOT / "sql")
    runtime = set(re.findall(r"\w+", "".join(spec.path.read_text("utf-8") for spec in catalog.of(Kind.RUNTIME))))
    own = [spec for spec in catalog.specs if spec.kind is not Kind.RUNTIME]
    text = "".join(spec.path.read_text("utf-8") for spec in own)
    names = {spec.name for spec in own}
    names |= {one.name for spec in catalog.of(Kind.INDEX) for one in index_definitions(spec)}
    names |= {one.name for spec in catalog.of(Kind.CONSTRAINT) for one in constraint_definitions(spec)}
    names |= {one.name for spec in catalog.of(Kind.TRIGGER) for one in trigger_definitions(spec)}
    names |= set(re.findall(r"^create or replace (?:function|procedure) (\w+)", text, re.MULTILINE))
    columns = set(re.findall(r"^comment on column \w+\.(\w+)", text, re.MULTILINE))
    columns -= runtime | OF_OTHERS
    return (
        frozenset({*(names - runtime), *(column for column in columns if "_" in column)}),
        frozenset({column for column in columns if "_" not in column}),
    )


@cache
def in_texts() -> re.Pattern[str]:
    """What a text may not hold besides the names."""
    _, columns = words_of_the_app()
    return re.compile(rf"\b(?:{'|'.join(sorted(EVERYDAY))})\b|\b[a-z]\.(?:{'|'.join(sorted(columns))})\b")


def texts(source: str) -> Iterator[tuple[int, str]]:
    """The string constants of a Python file with their lines: SQL, messages, help; no docstrings."""
    tree = ast.parse(source)
    docstrings = {
        node.value for node in ast.walk(tree) if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and node not in docstrings:
            yield node.lineno, node.value


def named(source: str, *, python: bool) -> list[tuple[int, str]]:
    """What a file names of the app, with the lines."""
    names = words_of_the_app()[0] - EVERYDAY
    found = [
        (number, word)
        for number, line in enumerate(source.splitlines(), start=1)
        for word in re.findall(r"\w+", line)
        if word in names
    ]
    parts = texts(source) if python else enumerate(source.splitlines(), start=1)
    return found + [(number, word) for number, text in parts for word in in_texts().findall(text)]


@pytest.mark.parametrize(
    "source",
    [
        'conn.execute("select * from events e")',
        '"""Counts posts."""',
        "# as in user_preferences",
        'conn.execute("""select max(p.title) from x p""")',
        'help="The day of event_date."',
    ],
)
def test_a_name_of_the_app_is_found(source: str) -> None:
    assert len(named(source, python=True)) == 1


def test_the_program_names_nothing_of_the_app() -> None:
    names, plain_columns = words_of_the_app()
    assert {
        "users",
        "posts",
        "post_slugs",
        "user_post_stats",
        "idx_posts_list",
        "published_at",
        "claim_post_slug",
    } <= names
    assert {"title", "content", "published"} <= plain_columns
    found = {
        f"{path.relative_to(ROOT)}:{number}: {word}"
        for path in sorted(PACKAGE.rglob("*"))
        # The synthetic exports, and the command that writes them, are those of this one app.
        if path.suffix in (".py", ".sql", ".j2")
        and (PACKAGE / "sample") not in path.parents
        and path != PACKAGE / "cli" / "sample.py"
        for number, word in named(path.read_text(encoding="utf-8"), python=path.suffix == ".py")
    }
    assert found == set()
