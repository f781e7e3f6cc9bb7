# pyright: reportAttributeAccessIssue=false
"""HTML made safe.

A pattern cannot do this safely; nh3 parses as a browser does. Text in which HTML sees no tag cannot do harm and is left
alone, byte for byte: `R&D` and `a < b` are no markup, and would be damaged by being written as such.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable
from html import escape
from typing import Any, Final

import nh3
import pyarrow as pa
import pyarrow.compute as pc

from b44_assets.config.quantities import ContentFormat

CLEANING = "3"
"""Number of the rules below, noted with what is staged: another number makes the same file be read again."""

_TAG = "<[A-Za-z/!?]"
"""Where HTML leaves plain text: a start tag, an end tag, a comment, or what it takes for one. A bare `<` stays text."""
_CITE = re.compile("cite", re.IGNORECASE)
_IGNORED = re.compile(r"[\x00-\x20\x7f-\xa0\u00ad\u200b-\u200f\u2028-\u202e\u2060-\u2064\ufeff\ufffd]")
_SCHEME = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*):")

_FEW_TAGS = 700
"""With fewer of them, cleaning takes no tenth of a second whatever they are."""
_MOST_OPEN = 32
"""How many elements may be open at a time, as the mean over all tags, where there are more."""
_ANY_DEPTH = _FEW_TAGS**2 // 2
# Comments, elements whose content is no markup, and tags; in that order.
_MARKUP = re.compile(
    r"<!--.*?(?:-->|\Z)|<[!?][^>]*"
    r"|<(script|style|textarea|title|xmp|iframe|noembed|noframes|plaintext)\b.*?(?:</\1\b|\Z)"
    r"|<(/?)([a-z][^\s/>]*)(?:\"[^\"]*\"|'[^']*'|[^\"'>])*",
    re.IGNORECASE | re.DOTALL,
)
# fmt: off
_NEVER_OPEN = frozenset((
    "area", "base", "br", "col", "embed", "hr", "img", "input", "link", "meta", "param", "source", "track", "wbr",
    "p", "li", "dt", "dd", "tr", "td", "th", "thead", "tbody", "tfoot", "option", "optgroup", "rp", "rt",
))
# fmt: on
"""Elements without content, and those that the next one of their kind ends."""

_tag_in = re.compile(_TAG).search

SUSPECT: Final = re.compile(_TAG.encode())
"""Found in the UTF-8 of every text that `sanitize` could change."""


def sanitize(text: str, form: ContentFormat = ContentFormat.HTML) -> str:
    """The text with only harmless HTML left; unchanged where HTML would see no tag in it, or where it is no HTML."""
    return _cleaner()(text) if form is ContentFormat.HTML and _tag_in(text) else text


def sanitized_column(column: Any, form: ContentFormat = ContentFormat.HTML) -> Any:
    """For each text of an Arrow column its safe form where that differs, else null.

    Args:
        column: A string array of n values.
        form: What the texts are.

    Returns:
        A string array of n values.
    """
    if form is not ContentFormat.HTML:
        return pa.nulls(len(column), pa.string())
    # The plain search first: it takes a tenth of the time, and most texts of a blog in Markdown have no "<" at all.
    suspects = pc.fill_null(pc.match_substring(column, "<"), False)
    if not pc.any(suspects).as_py():
        return pa.nulls(len(column), pa.string())
    originals: list[str] = pc.filter(column, suspects).to_pylist()
    clean = _cleaner()
    cleaned = [safe if _tag_in(text) and (safe := clean(text)) != text else None for text in originals]
    return pc.replace_with_mask(pa.nulls(len(column), pa.string()), suspects, pa.array(cleaned, pa.string()))


def remains() -> Callable[[str], bool]:
    """What tells of a text whether `sanitize` leaves it as it is."""
    clean = _cleaner()
    return lambda text: not _tag_in(text) or clean(text) == text


def _simple() -> bytes:
    """The form of HTML that every parser reads in one way, and the sanitizer writes as it was: no attributes, all elements closed.

    Text holds nothing that is written otherwise than it is read: a bare `>`, an unnamed character, a non-breaking space as such.
    """
    plain = rb'[^<>&"\r\0\xc2\xef]*+'
    # In UTF-8, neither a non-breaking space nor a byte order mark.
    text = rb'%b(?:(?:""|&(?:amp|lt|gt|nbsp);|\xc2[^\xa0]|\xef(?!\xbb\xbf))%b)*' % (plain, plain)

    def inline(group: bytes) -> bytes:
        element = rb"(?P<%b>strong|em|b|i|u|code)>%b</(?P=%b)>" % (group, text, group)
        return rb"%b(?:<(?:br>|%b)%b)*" % (text, element, text)

    block = rb"(?P<block>p|h[1-6]|blockquote)>%b</(?P=block)>" % inline(b"in_block")
    items = rb"(?P<list>ul|ol)>[ \n\t]*+(?:<li>%b</li>[ \n\t]*+)*</(?P=list)>" % inline(b"in_item")
    return rb"%b(?:<(?:hr>|%b|%b)%b)*" % (inline(b"before"), block, items, inline(b"between"))


SIMPLE: Final = _simple()
"""Matches, in UTF-8 and with quotes doubled, what an editor writes for the most part, which cleaning would not change."""


def _cleaner() -> Callable[[str], str]:
    """A sanitizer that is set up once: `nh3.clean` sets up one for each text, which takes as long as to clean it."""
    plain = nh3.Cleaner().clean
    citing = nh3.Cleaner(attribute_filter=_without_unsafe_cite).clean
    # Asked for each attribute, the filter is slow, so only texts that may have the one it is for are given to it.
    return lambda text: (
        escape(text, quote=False) if _is_too_deep(text) else (citing if _CITE.search(text) else plain)(text)
    )


def _is_too_deep(text: str) -> bool:
    """Whether so many elements are open at a time that no person wrote it: cleaning would take the square of its length.

    With each paragraph an HTML parser opens all of them anew, in what it returns, too. Such a text is shown as its source.
    """
    if text.count("<") < _FEW_TAGS:
        return False
    opened: Counter[str] = Counter()
    depth = tags = work = 0
    for match in _MARKUP.finditer(text):
        name = (match[3] or "").lower()
        if name and name not in _NEVER_OPEN:
            change = 1 if not match[2] else -1 if opened[name] else 0
            opened[name] += change
            depth += change
        tags += 1
        work += depth
    return work > _ANY_DEPTH + _MOST_OPEN * tags


def _without_unsafe_cite(element: str, attribute: str, value: str) -> str | None:
    """Holds `cite`, the one allowed address that nh3 does not look at, to the same schemes as `href` and `src`."""
    if attribute != "cite":
        return value
    # More than a browser passes over: an address with such characters before its colon is nothing to keep.
    scheme = _SCHEME.match(_IGNORED.sub("", value))
    return value if scheme is None or scheme[1].lower() in nh3.ALLOWED_URL_SCHEMES else None
