from __future__ import annotations

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import b44_assets
from b44_assets.wording import first_of, plural, some_of, with_article

PACKAGE = Path(b44_assets.__file__).parent


@given(st.integers(0, 10**9))
def test_only_one_is_in_the_singular(number: int) -> None:
    assert plural(number, "file") == ("file" if number == 1 else "files")
    assert plural(number, "entry is", "entries are") == ("entry is" if number == 1 else "entries are")


@pytest.mark.parametrize(
    ("words", "said"), [("incremental", "an incremental"), ("Logical", "a Logical"), ("base", "a base"), ("", "a ")]
)
def test_an_article_goes_with_the_word_behind_it(words: str, said: str) -> None:
    assert with_article(words) == said


@pytest.mark.parametrize(
    ("names", "separator", "said"),
    [
        ((), ", ", ""),
        (("a", "b"), ", ", "a, b"),
        (("a", "b", "c"), ", ", "a, b and 1 more"),
        (("a", "b", "c"), "; ", "a; b; and 1 more"),
    ],
)
def test_of_many_names_the_first_are_named_and_the_others_counted(
    names: tuple[str, ...], separator: str, said: str
) -> None:
    assert some_of(names, 2, separator) == said


def test_the_first_of_several_lines_says_how_many_there_are() -> None:
    assert [first_of(["a"]), first_of(["a", "b", "c"])] == ["a", "a (and 2 more)"]


@pytest.mark.parametrize(
    "file",
    sorted([*PACKAGE.glob("backup/*.py"), *PACKAGE.glob("cli/*.py"), *PACKAGE.glob("runs/*.py")]),
    ids=lambda f: f.name,
)
def test_no_message_of_the_commands_has_a_number_or_a_name_before_a_fixed_form(file: Path) -> None:
    """`{n} files` is wrong for one file, and `a {kind}` for one that begins with a vowel."""
    nouns = "bytes|rows|files|backups|days|hours|minutes|seconds|steps|records|segments|tables|roles|runs|more lines"
    wrong = re.compile(rf"\{{[^{{}}]*\}} (?:\w+ )?(?:{nouns})\b|\b[Aa]n? \{{")
    literal = re.compile(r"""f("|')(.*?)(?<!\\)\1""")
    allowed = re.compile(r"\{_LONGEST\} bytes|:\.[0-9]f\} |\{size\} bytes|\{len\(matching\)\} backups")

    found = [
        part[0]
        for line in file.read_text().splitlines()
        for match in literal.finditer(line)
        if (part := wrong.search(match[2])) is not None and not allowed.search(match[2])
    ]

    assert found == []
