"""Patterns of JSON Schema (regular expressions of ECMAScript) as PostgreSQL reads them."""

from __future__ import annotations

import re

_TOKEN = re.compile(
    r"""
    (?P<escape>\\(?:u[0-9A-Fa-f]{4}|x[0-9A-Fa-f]{2}|.))
  | (?P<class>\[\^?(?:\\.|[^\]\\])+\])
  | (?P<quantifier>(?:[*+?]|\{(?P<least>\d{1,3})(?:,(?P<most>\d{1,3})?)?\})\??)
  | (?P<open>\((?:\?:)?(?!\?))
  | (?P<close>\))
  | (?P<anchor>[\^$])
  | (?P<sign>[|.])
  | (?P<other>[^\\\[\](){}*+?^$|.])
    """,
    re.VERBOSE | re.DOTALL,
)
_CLASSES = {"d": "0-9", "w": "A-Za-z0-9_"}
_SAME_ESCAPES = frozenset("nrtfv")
_MOST_REPETITIONS = 255


def posix_pattern(pattern: str) -> str | None:
    r"""A pattern of ECMAScript as one of PostgreSQL that the same texts match; None where that is not certain.

    Understood are literal signs, sets, `.`, `\d`, `\w`, groups, alternatives, repetition and anchors. Not: white space
    (`\s`), which each language understands differently, words' ends, looking ahead or behind, and references back.
    """
    if not pattern or any(ord(sign) > 0xFFFF or sign == "\0" for sign in pattern):
        return None
    made: list[str] = []
    depth, at, repeatable = 0, 0, False
    while at < len(pattern):
        match = _TOKEN.match(pattern, at)
        if match is None:
            return None
        at, kind, text = match.end(), match.lastgroup, match[0]
        # The last group of a quantifier with numbers is one of these.
        if match["quantifier"] is not None:
            counts = [int(count) for count in (match["least"], match["most"]) if count]
            if not repeatable or any(count > _MOST_REPETITIONS for count in counts) or counts != sorted(counts):
                return None
            # Whether a text matches at all does not depend on how much of it a repetition takes.
            made.append(text[:-1] if len(text) > 1 and text.endswith("?") else text)
            repeatable = False
            continue
        if kind == "escape":
            piece = _escape(text[1:])
        elif kind == "class":
            piece = _class(text)
        elif text == ".":
            piece = r"[^\n\r\u2028\u2029]"
        else:
            piece = text
        if piece is None:
            return None
        depth += {"open": 1, "close": -1}.get(kind or "", 0)
        if depth < 0:
            return None
        made.append(piece)
        repeatable = kind in ("escape", "class", "other", "close") or text == "."
    return "".join(made) if depth == 0 else None


def _escape(sign: str) -> str | None:
    if sign in _CLASSES:
        return f"[{_CLASSES[sign]}]"
    if sign.lower() in _CLASSES:
        return f"[^{_CLASSES[sign.lower()]}]"
    return _sign(sign)


def _sign(sign: str) -> str | None:
    """A sign behind a backslash, in a set or out of one."""
    if len(sign) == 5:
        return None if 0xD800 <= int(sign[1:], 16) <= 0xDFFF or int(sign[1:], 16) == 0 else f"\\u{sign[1:]}"
    if len(sign) == 3:
        return None if sign[1:] == "00" else f"\\u00{sign[1:]}"
    if sign in _SAME_ESCAPES:
        return f"\\{sign}"
    if sign.isalnum() or sign == "_" or not sign.isascii() or not sign.isprintable():
        return None
    return sign if sign in "/\"'`~!@#%&=:;,<> " else f"\\{sign}"


def _class(text: str) -> str | None:
    """A set; PostgreSQL understands `[:`, `[.` and `[=` within one as something of its own."""
    negated = text.startswith("[^")
    made: list[str] = []
    pieces: list[str] = re.findall(
        r"\\u[0-9A-Fa-f]{4}|\\x[0-9A-Fa-f]{2}|\\.|.", text[2 if negated else 1 : -1], re.DOTALL
    )
    for number, piece in enumerate(pieces):
        if piece.startswith("\\"):
            sign = _CLASSES.get(piece[1:]) or _sign(piece[1:])
            beside = pieces[number - 1 : number] + pieces[number + 1 : number + 2]
            if sign is None or (piece[1:] in _CLASSES and "-" in beside):
                return None
            made.append(sign)
        elif piece == "-" and 0 < number < len(pieces) - 1:
            if number > 1 and pieces[number - 2] == "-" and number - 2 > 0:
                return None
            made.append("-")
        else:
            made.append({"[": r"\[", "^": r"\^", "-": r"\-"}.get(piece, piece))
    return f"[{'^' if negated else ''}{''.join(made)}]"
