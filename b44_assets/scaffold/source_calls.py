"""What an app's own source asks of Base44, counted: what a database alone does not replace."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from b44_assets.scaffold.files import FolderError
from b44_assets.wording import plural, some_of

_ENDINGS: Final = frozenset({".js", ".jsx", ".ts", ".tsx", ".mjs", ".cjs", ".mts", ".cts"})
_PASSED_OVER: Final = frozenset({"node_modules", "dist", "build", "coverage", "out"})
_MOST_BYTES: Final = 4 << 20
"""A file beyond that was made by a program."""
# Texts are kept, so that what looks like a comment in them (`https://…`) is none.
_COMMENT: Final = re.compile(
    r"""("(?:\\.|[^"\\\n])*"|'(?:\\.|[^'\\\n])*'|`(?:\\.|[^`\\])*`)|//[^\n]*|/\*.*?\*/""", re.DOTALL
)
_DOT: Final = r"\s*\??\.\s*"
_CALL: Final = r"\s*\??\.?\s*(?:<[^<>()]*>\s*)?\("
_ENTITY: Final = rf"\bentities(?:{_DOT}(?P<entity>\w+)|\s*(?:\?\.\s*)?\[[^\[\]]*\])"
# As older apps have it: `import { Post } from "@/entities/Post"`, `import { UploadFile } from "@/integrations/Core"`.
_IMPORT: Final = re.compile(
    r"""\bimport\s*\{(?P<names>[^{}]*)\}\s*from\s*["'](?:@|\.{1,2})/(?:[\w.-]+/)*?(?P<of>entities|integrations|functions)"""
    r"""(?:/(?P<module>[\w.-]+))?["']"""
)
_NAMED: Final = re.compile(r"(?P<name>\w+)(?:\s+as\s+(?P<here>\w+))?")
_SIGNING_IN: Final = frozenset(
    {"me", "login", "loginWithRedirect", "redirectToLogin", "logout", "isAuthenticated", "updateMe", "updateMyUserData"}
)
"""What older apps call of `User`, which is `base44.auth` there."""


@dataclass(frozen=True)
class Kind:
    """A kind of call.

    Attributes:
        name: As the page shows it.
        pattern: Finds one; its first group, if it has one, says which.
        instead: What takes its place.
    """

    name: str
    pattern: re.Pattern[str]
    instead: str


KINDS: Final = (
    Kind(
        "entities.….subscribe",
        re.compile(rf"{_ENTITY}{_DOT}subscribe{_CALL}"),
        "LISTEN/NOTIFY, logical replication, or a service on top of them",
    ),
    Kind(
        "entities",
        re.compile(rf"{_ENTITY.replace('?P<entity>', '?:')}{_DOT}(?!subscribe\b)(\w+){_CALL}"),
        "SQL, or an API over the tables; the views in base44_compat have the old names",
    ),
    Kind(
        "asServiceRole",
        re.compile(r"\basServiceRole\b()"),
        "a backend with a role of its own, which passes by the rules",
    ),
    Kind(
        "functions.invoke",
        re.compile(rf"\bfunctions{_DOT}invoke{_CALL}\s*(?:[\"'`]([\w./-]+)[\"'`])?"),
        "the same functions in a backend of yours",
    ),
    Kind(
        "integrations",
        re.compile(rf"\bintegrations{_DOT}(\w+{_DOT}\w+){_CALL}"),
        "the services behind them; uploaded files need a store",
    ),
    Kind("auth", re.compile(rf"\bbase44{_DOT}auth{_DOT}(\w+){_CALL}"), "an identity provider; no export has a password"),
    Kind("agents", re.compile(rf"\bbase44{_DOT}agents{_DOT}(\w+){_CALL}"), "a model's API, called by a backend of yours"),
)  # fmt: skip


@dataclass(frozen=True)
class Calls:
    """What was counted.

    Attributes:
        files: Source files that were read.
        counts: Calls by kind, and within it by what they name.
        places: Files with a call, by kind.
    """

    files: int
    counts: dict[str, Counter[str]]
    places: dict[str, int]

    @property
    def total(self) -> int:
        """All calls."""
        return sum(counter.total() for counter in self.counts.values())


def count_calls(source: Path) -> Calls:
    """Reads an app's source, JavaScript and TypeScript.

    Args:
        source: A folder; folders of packages, of what is built, and hidden ones are passed over.

    Raises:
        FolderError: It is no folder, or holds no source.
    """
    if not source.is_dir():
        raise FolderError(f"{source}: there is no such folder of source (--source)")
    files = 0
    counts = {kind.name: Counter[str]() for kind in KINDS}
    places = dict.fromkeys(counts, 0)
    # Base44's functions stand beside what is built from `src`; those in it are the app's own.
    inner = source / "src" if (source / "src").is_dir() else source
    own_functions = (inner / "functions").is_dir()
    for path in _source_files(source):
        text = _COMMENT.sub(lambda match: match[1] or " ", path.read_text(encoding="utf-8", errors="replace"))
        files += 1
        imported = [*_imported_calls(text, own_functions=own_functions)]
        for kind in KINDS:
            found = [re.sub(r"[\s?]", "", name) for name in kind.pattern.findall(text)]
            found += [which for name, which in imported if name == kind.name]
            counts[kind.name].update(found)
            places[kind.name] += bool(found)
    if not files:
        raise FolderError(f"{source}: holds no JavaScript or TypeScript (--source)")
    return Calls(files, counts, places)


def _imported_calls(text: str, *, own_functions: bool) -> Iterator[tuple[str, str]]:
    """Calls of what a file imports by its name, by kind and what they name."""
    for imported in _IMPORT.finditer(text):
        of = imported["of"]
        for named in _NAMED.finditer(imported["names"]):
            name = named["name"]
            here = rf"(?<![\w$.]){named['here'] or name}"
            if of == "functions":
                if not own_functions:
                    yield from (("functions.invoke", name) for _ in re.finditer(here + _CALL, text))
            elif of == "integrations":
                member = f"{_DOT}(?P<member>\\w+)" if name == "Core" else "(?P<member>)"
                for call in re.finditer(here + member + _CALL, text):
                    yield "integrations", f"{imported['module'] or 'Core'}.{call['member'] or name}"
            else:
                for call in re.finditer(rf"{here}{_DOT}(\w+){_CALL}", text):
                    if call[1] == "subscribe":
                        yield "entities.….subscribe", name
                    elif name == "User" and call[1] in _SIGNING_IN:
                        yield "auth", call[1]
                    else:
                        yield "entities", call[1]


def calls_section(calls: Calls) -> str:
    """What was counted, as a section of a page in Markdown."""
    lines = [
        "## What the app's source calls",
        "",
        f"In {calls.files:,} {plural(calls.files, 'file')}: {calls.total:,} {plural(calls.total, 'call')}."
        " A database answers those on entities; all others need something else.",
        "",
        "| call | times | files | which | instead |",
        "| --- | --- | --- | --- | --- |",
    ]
    for kind in KINDS:
        counter = calls.counts[kind.name]
        if counter:
            # By name where they are as frequent, so that the page stays the same.
            which = sorted(
                ((name, count) for name, count in counter.items() if name), key=lambda one: (-one[1], one[0])
            )
            named = some_of([f"`{name}` {count:,}" for name, count in which], 12)
            lines.append(
                f"| `{kind.name}` | {counter.total():,} | {calls.places[kind.name]:,} | {named} | {kind.instead} |"
            )
    return "\n".join(lines)


def _source_files(source: Path) -> Iterator[Path]:
    for folder, folders, names in os.walk(source):
        folders[:] = sorted(name for name in folders if name not in _PASSED_OVER and not name.startswith("."))
        for name in sorted(names):
            path = Path(folder, name)
            is_source = path.suffix in _ENDINGS and not name.endswith((".min.js", ".d.ts")) and path.is_file()
            if is_source and path.stat().st_size <= _MOST_BYTES:
                yield path
