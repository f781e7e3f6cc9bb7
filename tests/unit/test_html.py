"""What the sanitizer takes away, and that it leaves alone what is no HTML; read by another parser than its own."""

from __future__ import annotations

import html
import itertools
import re
from html.parser import HTMLParser

import nh3
import pyarrow as pa
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from b44_assets.config.quantities import ContentFormat
from b44_assets.migration.html import SIMPLE, remains, sanitize, sanitized_column

ADDRESSES = (
    "action", "archive", "background", "cite", "classid", "code", "codebase", "data", "dynsrc", "formaction", "href", "icon",
    "imagesrcset", "longdesc", "lowsrc", "manifest", "ping", "poster", "profile", "src", "srcdoc", "srcset", "style", "usemap",
    "xlink:href", "xml:base", "xmlns",
)  # fmt: skip
ELEMENTS = (
    "a", "blockquote", "button", "del", "embed", "form", "iframe", "img", "ins", "object", "q", "svg", "use", "video",
)  # fmt: skip
SCHEMES = ("JaVaScRiPt", "vbscript", "data", "x")
DISGUISES = (
    "{}:alert(1)", " {}:alert(1)", "\t{}:alert(1)", "\x01{}:alert(1)", "\x1f \n{}:alert(1)", "{}&colon;alert(1)",
    "{}&#58;alert(1)", "{}&#x3A;alert(1)", "{}:text/html,<script>alert(1)</script>", "&#32;{}:alert(1)", "&#0000001{}:alert(1)",
)  # fmt: skip


class Addresses(HTMLParser):
    """Every value of an attribute that can hold an address, in the order of the text."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.found: list[tuple[str, str, str]] = []
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.found += [(tag, name, value or "") for name, value in attrs if name in ADDRESSES]


def scheme_of(address: str) -> str | None:
    """The scheme of an address as browsers read it: WHATWG URL, basic URL parser."""
    stripped = re.sub("[\t\n\r]", "", address.lstrip("".join(map(chr, range(33)))))
    match = re.match("([a-zA-Z][a-zA-Z0-9+.-]*):", stripped)
    return match[1].lower() if match else None


def unsafe(text: str) -> list[tuple[str, str, str]]:
    found = Addresses(text).found
    return [each for each in found if (scheme_of(each[2]) or "https") not in nh3.ALLOWED_URL_SCHEMES]


def broken_up(scheme: str) -> list[str]:
    """The scheme with what browsers pass over in it."""
    return [scheme, *(scheme[:1] + inside + scheme[1:] for inside in ("\t", "\r\n", "&NewLine;", "&#x0d;"))]


@pytest.mark.parametrize("attribute", ADDRESSES)
def test_no_attribute_keeps_an_address_of_a_scheme_that_runs_something(attribute: str) -> None:
    texts = [
        f'<{element} {attribute}="{disguise.format(disguised)}">text</{element}>'
        for element, scheme, disguise in itertools.product(ELEMENTS, SCHEMES, DISGUISES)
        for disguised in broken_up(scheme)
    ]
    # All in one, as a browser gets them; and each by itself is checked where one is found.
    found = unsafe("".join(safe or "" for safe in sanitized_column(pa.array(texts, pa.string())).to_pylist()))
    assert found == []


def test_the_texts_of_the_test_above_are_unsafe_before() -> None:
    assert unsafe('<q cite="java&Tab;script:alert(1)">x</q><a href=" \x01vbscript&colon;x">y</a>') != []


@pytest.mark.parametrize("element", ["blockquote", "q", "del", "ins"])
@pytest.mark.parametrize(
    "address", ["https://example.org/a?b=c:d", "/a:b", "a/b", "#x", "MAILTO:a@example.org", "?javascript:x"]
)
def test_the_source_of_a_quotation_stays(element: str, address: str) -> None:
    text = f'<{element} cite="{address}">text</{element}>'
    assert sanitize(text) == text


PIECES = st.sampled_from(
    ["<", "<", "&", "&amp;", "&lt", "a", "b ", " ", "é", "/", "!", "?", ">", "b", "script", "\n", "<b>", '"']
)
TEXTS = st.one_of(st.text(max_size=30), st.lists(PIECES, max_size=12).map("".join))


@given(text=TEXTS)
@example("R&D")
@example("a < b && c")
@example("<é> <1 <")
def test_text_in_which_html_sees_no_tag_is_left_alone(text: str) -> None:
    markup = any(a == "<" and ((b.isascii() and b.isalpha()) or b in "/!?") for a, b in itertools.pairwise(text))
    assert sanitize(text) == (nh3.clean(text) if markup else text)


@given(text=TEXTS)
def test_what_was_made_safe_stays_as_it_is(text: str) -> None:
    once = sanitize(text)
    assert sanitize(once) == once


@given(texts=st.lists(st.one_of(st.none(), TEXTS), max_size=8), form=st.sampled_from(ContentFormat))
def test_a_column_is_cleaned_as_its_texts_are(texts: list[str | None], form: ContentFormat) -> None:
    expected = [None if text is None or sanitize(text, form) == text else sanitize(text, form) for text in texts]
    assert sanitized_column(pa.array(texts, pa.string()), form).to_pylist() == expected


@given(text=TEXTS)
@example("<script>alert(1)</script>")
def test_where_content_is_text_nothing_is_html(text: str) -> None:
    assert sanitize(text, ContentFormat.TEXT) == text


NAMES = (
    "p",
    "h2",
    "blockquote",
    "ul",
    "ol",
    "li",
    "strong",
    "em",
    "b",
    "i",
    "u",
    "code",
    "br",
    "hr",
    "script",
    "pre",
    "a",
    "table",
)
WORDS = (
    "x",
    "a b",
    " ",
    "\n",
    "&amp;",
    "&lt;",
    "&nbsp;",
    "&copy;",
    "&",
    ">",
    "\u00a0",
    "\ufeff",
    "\r",
    "\0",
    "\x01",
    "\x0c",
    "é😀",
    "\ufffe",
)
MARKUP = (
    *(f"<{name}>" for name in NAMES),
    *(f"</{name}>" for name in NAMES),
    "<p class='x'>",
    "<!-- x -->",
    "<P>",
    "<",
)


def is_simple(text: str) -> bool:
    return re.fullmatch(SIMPLE, text.encode().replace(b'"', b'""')) is not None


def element(name: str, inside: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
    return inside.map(lambda text: f"<{name}>{text}</{name}>")


WELL_FORMED = st.recursive(
    st.sampled_from([*WORDS, "<br>", "<hr>"]),
    lambda inside: st.one_of([element(name, st.lists(inside, max_size=3).map("".join)) for name in NAMES]),
)


@given(st.one_of(st.lists(st.one_of(WELL_FORMED, st.sampled_from(MARKUP)), max_size=6).map("".join), st.text()))
@example("<p>a <strong>b</strong><br></p>\n<ul> <li>x</li>\n<li><em>y</em> &amp; z</li></ul> <h1></h1> t<i>u</i>")
@example("<ul>x</ul>")
@example("\ufeff<p>x</p>")
def test_html_that_is_taken_for_simple_is_what_cleaning_makes_of_it(text: str) -> None:
    assert not is_simple(text) or nh3.clean(text) == text
    assert remains()(text) == (sanitize(text) == text)


def test_what_an_editor_writes_is_simple() -> None:
    assert is_simple(
        "<p>a <strong>b</strong><br></p>\n<ul> <li>x</li>\n<li><em>y</em> &amp; z</li></ul> <h1></h1> t<i>u</i>"
    )
    assert not any(
        map(is_simple, ("<p>x", "<p><p>x</p></p>", "<b>x</i>", "<p class='x'>x</p>", "<script>x</script>", "a > b"))
    )


@pytest.mark.parametrize(
    "element",
    [
        "<b id={}><p>",
        "<div>",
        "<ul><li>",
        "<i class={}><p>x<!-- </i> -->",
        "<i class={}><p><textarea></i></textarea>",
        "<u id='</u>{}'><p title='</u>'>",
    ],
)
def test_elements_that_are_never_closed_are_shown_as_source(element: str) -> None:
    text = "".join(element.format(number) for number in range(2_000))
    assert sanitize(text) == html.escape(text, quote=False)


def test_elements_that_are_opened_anew_with_each_paragraph_are_shown_as_source() -> None:
    text = "<p>" + "".join(f"<b id={number}>" for number in range(600)) + "<p>x" * 5_000
    assert sanitize(text) == html.escape(text, quote=False)


@pytest.mark.parametrize(
    "text",
    [
        "<p>A paragraph" * 2_000,
        "<ul>" + "<li>One" * 2_000 + "</ul>",
        "<div><section>" + "<p>A <b>long</b> <i>page</i>, <br>and <a href='https://example.org/'>so on</a></p>" * 2_000,
        "<div>" * 30 + "<table>" + "<tr><td><b>a</b><td>b" * 2_000,
    ],
)
def test_a_long_page_is_cleaned(text: str) -> None:
    assert sanitize(text) == nh3.clean(text)
