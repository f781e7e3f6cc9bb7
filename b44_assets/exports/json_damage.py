"""Finding where a damaged element of a JSON array, or member of an object, ends and the next one begins.

The text is read as tokens, and brackets are matched as far as they can be. What cannot stand where it stands tells that something
is missing before it: an object behind a comma within an object, a key in an array. Strings whose quotes do not pair are
recognised by what follows them.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container, Set
from typing import Any, Final

from b44_assets.exports.names import matched

# A whole string, one bracket or sign, a quote without its partner, or anything up to one of these.
_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[\[\]{},:"]|[^ \t\r\n\[\]{},:"]+', re.DOTALL)
_VISIBLE: Final = re.compile(r"[^ \t\r\n]")
# The first key of an object; one of its quotes may be missing.
_FIRST_KEY: Final = re.compile(r'\{[ \t\r\n]*+"?+([^"\\{}\[\],:]*+(?:\\.[^"\\{}\[\],:]*+)*+)"?+[ \t\r\n]*+:', re.DOTALL)
_ANY_KEY: Final = re.compile(r'"([^"\\]*+)"[ \t\r\n]*+:')
_LONGEST_KEY: Final = 1_000
_FARTHEST: Final = 1 << 16
"""How far to look for the end of an element around what may be a record of its own."""
_OPENING: Final = {"}": "{", "]": "["}


class MoreNeededError(Exception):
    """More of the file must be seen before it can be told."""


class DamagedElement:
    """An element that cannot be read, looked through for its end.

    Attributes:
        keys: Those that it has itself, as far as it can be told.
    """

    def __init__(
        self,
        text: str,
        at: int,
        *,
        final: bool,
        is_keyed: bool,
        is_open: bool,
        fields: Container[str],
        is_plausible: Callable[[Set[str]], bool],
        decode: Callable[[int], tuple[Any, bool, int] | None],
    ) -> None:
        """Begin at an element's first character.

        Args:
            text: What is in view.
            at: Where the element begins.
            final: The file ends with the text.
            is_keyed: It is a member of an object, with its key; otherwise an element of an array.
            is_open: What it stands in has not been closed yet.
            fields: Keys of the records before.
            is_plausible: Tells by its keys whether an object is a record.
            decode: Reads the value at an offset: the value, whether what follows it may follow a record, and the offset behind it;
                None where it is broken. Raises `MoreNeededError`.
        """
        self.keys: list[str] = []
        self._text = text
        self._at = at
        self._final = final
        self._is_keyed = is_keyed
        self._is_open = is_open
        self._fields = fields
        self._is_plausible = is_plausible
        self._decode = decode
        self._stack: list[str] = []
        self._before = (
            ""  # what stands before the token: a bracket, a sign, `k` a key, `s` a string, `w` something else
        )
        self._key_at = at  # of the last key
        self._last_comma = at  # where there is one
        self._comma_at: int | None = None  # the one before members that are nothing but bare words
        self._is_bare = False  # this member is nothing but bare words so far
        self._is_clear = True  # the quotes have been in pairs so far
        self._doubt: int | None = None  # a record or an object within this one

    def end(self) -> int:
        """Return where the next element, or what closes them all, begins; the text's end where there is none.

        Raises:
            MoreNeededError: More of the file must be seen first.
        """
        text, at = self._text, self._at
        while (token := _TOKEN.search(text, at)) is not None:
            begin = token.start()
            if self._doubt is not None and begin - self._doubt > _FARTHEST:
                return self._doubt
            sign = text[begin]
            found = self._take(sign, begin, token.end())
            if found is None:
                return self._doubt if self._doubt is not None else len(text)
            at, is_end = found
            if is_end:
                return at
        if not self._final:
            raise MoreNeededError
        return self._doubt if self._doubt is not None else len(text)

    def _take(self, sign: str, begin: int, behind: int) -> tuple[int, bool] | None:
        """Take a token; return the offset behind it, or that of the next element and True; None where a doubt is resolved."""
        is_first = begin == self._at
        if sign == '"':
            return self._string(begin, behind)
        if sign == "{":
            if is_first:
                self._open("{")
                return behind, False
            return self._object(begin)
        if sign == "[":
            self._open("[")
        elif sign in "]}":
            if not is_first and self._closes_all(begin):
                if self._stack and self._is_clear and self._is_bare and self._before == "w":
                    return (self._last_comma if self._comma_at is None else self._comma_at), True
                return begin, True
            is_regular = self._close(sign)
            self._is_bare = False
            self._before = sign
            if not is_regular and self._doubt is not None:
                return None
        elif sign == ",":
            if not is_first and self._is_clear and not self._stack:
                return begin, True
            if not (self._is_bare and self._before == "w"):
                self._comma_at = None
            elif self._comma_at is None:
                self._comma_at = self._last_comma
            self._last_comma = begin
            self._is_bare = True
            self._before = ","
        elif sign == ":":
            self._before = ":"
        else:
            self._before = "w"
        return behind, False

    def _open(self, sign: str) -> None:
        self._stack.append(sign)
        self._is_bare = False
        self._before = sign

    def _string(self, begin: int, behind: int) -> tuple[int, bool] | None:
        """Take a string, or the quote alone where it is no whole one."""
        text = self._text
        visible = _VISIBLE.search(text, behind)
        if visible is None and not self._final:
            raise MoreNeededError
        follows = "" if visible is None else visible[0]
        is_key = follows == ":"
        is_whole = behind > begin + 1 and (
            follows in ",}]:" or (visible is not None and visible.start() > behind and follows in '"{[')
        )
        self._is_bare = False
        is_joined = self._before == "w" and text[begin - 1] not in " \t\r\n"
        if not is_whole or is_joined or (is_key and self._before == ":"):
            self._is_clear = False
            self._before = "w"
            return None if self._doubt is not None else (begin + 1, False)
        if is_key and not self._is_keyed:
            key = text[begin + 1 : behind - 1]
            if begin > self._at and self.keys and self._is_again(key):
                return begin, True
            if not self._stack or self._stack[-1] == "[":
                self._stack.append("{")  # a brace is missing
            if len(self._stack) == 1:
                self.keys.append(key)
        self._key_at = begin
        self._before = "k" if is_key else "s"
        return behind, False

    def _is_again(self, key: str) -> bool:
        """Tell whether a key belongs to another element, which lacks its opening brace: this one has had it already."""
        if not self._stack:
            return key in self.keys
        is_own = len(self._stack) == 1 or (self._stack[-1] == "[" and self._before == ",")
        return is_own and key == self.keys[0]

    def _object(self, begin: int) -> tuple[int, bool] | None:
        """Take an opening brace, or a whole object that is no record."""
        before, stack = self._before, self._stack
        if not stack and self._is_clear and not self._is_keyed:
            return begin, True
        is_member = self._is_keyed and before == ":"
        place = self._key_at if is_member else begin
        if is_member and not stack and place == self._at:
            self._open("{")
            return begin + 1, False
        found = self._decode(begin)
        match = _FIRST_KEY.match(self._text, begin, begin + _LONGEST_KEY)
        key = None if match is None else match[1].strip(" '`")
        is_known = key is not None and self._is_known(key)
        if stack and before in (":" if stack[-1] == "{" else "[,"):
            return self._object_within(begin, place, found, is_known=is_known)
        if is_known or (found is not None and self._is_plausible(found[0].keys())):
            if self._is_keyed and not is_member:
                self._open("{")
                return begin + 1, False
            if stack and self._doubt is not None:
                return None
            if self._is_clear and before == "," and self._comma_at is not None:
                return self._comma_at, True
            return place, True
        self._open("{")
        return begin + 1, False

    def _object_within(
        self, begin: int, place: int, found: tuple[Any, bool, int] | None, *, is_known: bool
    ) -> tuple[int, bool] | None:
        """Take an object where one may stand; note it where it could be a record all the same."""
        if found is not None:
            value, is_followed, behind = found
            if self._doubt is None and self._is_plausible(value.keys()):
                self._doubt = place
            elif not is_followed and self._doubt is not None:
                return None
            self._before = "}"
            self._is_bare = False
            return behind, False
        closing = self._text.find("}", begin)
        part = self._text[begin : closing if closing >= 0 else begin + _LONGEST_KEY]
        if self._doubt is None and is_known and self._is_plausible(set(_ANY_KEY.findall(part))):
            self._doubt = place
        self._open("{")
        return begin + 1, False

    def _is_known(self, key: str) -> bool:
        return key in self._fields or key in self.keys or matched(key, ("id", "created_date")) is not None

    def _close(self, sign: str) -> bool:
        """Close the innermost bracket of this kind, and those within it that were never closed; tell whether it was its turn."""
        stack, opening = self._stack, _OPENING[sign]
        if opening not in stack:
            return False
        depth = len(stack)
        while stack.pop() != opening:
            pass
        if not stack and self._before == "s":
            self._is_clear = True  # behind a string whose quotes are a pair
        return len(stack) == depth - 1

    def _closes_all(self, begin: int) -> bool:
        """Tell whether a closing bracket is that of what the element stands in."""
        sign = self._text[begin]
        if not self._is_open or sign != ("}" if self._is_keyed else "]") or _OPENING[sign] in self._stack:
            return False
        if self._is_clear and not self._stack:
            return True
        if _VISIBLE.search(self._text, begin + 1) is not None:
            return False
        if not self._final:
            raise MoreNeededError
        return True
