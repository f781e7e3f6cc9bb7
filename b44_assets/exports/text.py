r"""Showing text that PostgreSQL cannot hold, and undoing quotes that were doubled twice."""

from __future__ import annotations

import json
import re
from typing import Final

# Not storable: NUL, and surrogates without their partner.
UNSTORABLE: Final = re.compile("[\0\ud800-\udfff]")

# Where every quote is doubled, each pair is an empty string to JSON, and nothing of this sort may follow one. That is
# quickly seen; only the few texts that pass need be decoded to know that they are no JSON.
_NOT_EMPTY: Final = re.compile(r'""[^"\s,:\]}]')

_decode: Final = json.JSONDecoder().raw_decode


def visible_bytes(data: bytes) -> str:
    r"""Decode UTF-8, showing undecodable bytes and NUL as `\xff`, `\x00`; other backslashes stay as they are."""
    return data.decode("utf-8", "backslashreplace").replace("\0", r"\x00")


def visible_text(text: str, *, bytes_escaped: bool) -> str:
    r"""Show NUL as `\x00` and lone surrogates as `\ud800`.

    Args:
        text: Any text.
        bytes_escaped: U+DC80 to U+DCFF stand for undecodable bytes (Python's `surrogateescape`), shown as `\xff`, and
            U+DC00 for a raw NUL, shown as `\x00`.
    """

    def show(match: re.Match[str]) -> str:
        code = ord(match[0])
        is_byte = code == 0 or (bytes_escaped and (code == 0xDC00 or 0xDC80 <= code <= 0xDCFF))
        return f"\\x{code & 0xFF:02x}" if is_byte else f"\\u{code:04x}"

    return UNSTORABLE.sub(show, text)


def is_json(text: str) -> bool:
    """Tell whether the whole text is one JSON value; white space may follow it."""
    try:
        _, end = _decode(text, 0)
    except (ValueError, RecursionError):
        return False
    return not text[end:].strip(" \t\r\n")


def undoubled(text: str) -> str | None:
    """Halve the quotes of a JSON array or object in which every quote is doubled.

    Returns:
        The JSON text, or None when the text is something else: no array or object, no quotes, a single quote in it,
        JSON as it stands, or no JSON even when halved.
    """
    if text[:1] not in ("{", "["):
        return None
    without_pairs = text.replace('""', "")
    if len(without_pairs) == len(text) or '"' in without_pairs:
        return None
    if not _NOT_EMPTY.search(text) and is_json(text):
        return None
    halved = text.replace('""', '"')
    return halved if is_json(halved) else None
