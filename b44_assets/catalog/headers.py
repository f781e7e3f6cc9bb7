"""The header of a file: its keys, and where a name stands in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from b44_assets.catalog.model import Claims, Field, Kind, Numbered, Spec, TableMapping
from b44_assets.errors import CatalogError

HEADER_KEYS: Mapping[Kind, frozenset[str]] = {
    Kind.TABLE: frozenset({"depends", "partitions", "seed"}),
    Kind.MAPPING: frozenset({"depends", "entity", "fields", "key", "html", "wide", "numbered", "later", "claims"}),
    Kind.PARTITION: frozenset({"depends", "on", "ahead"}),
    Kind.INDEX: frozenset({"depends", "on"}),
    Kind.CONSTRAINT: frozenset({"depends", "on"}),
    Kind.TRIGGER: frozenset({"depends", "on"}),
    Kind.CHECK: frozenset({"depends", "on", "severity"}),
    Kind.QUERY: frozenset({"depends", "uses", "prunes", "since", "until"}),
}
COMMON_KEYS = frozenset({"depends"})
HEADER_LINE = re.compile(r"--\s(?P<key>[a-z]+):\s+(?P<value>.*\S)\s*$")


def meant(name: str, known: Iterable[str]) -> str:
    """What to add to a complaint about an unknown name: the nearest known one, or nothing where none is near."""
    near = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {near[0]}?)" if near else ""


def names_of(value: str) -> tuple[str, ...]:
    """The names of a list with commas."""
    return tuple(name.strip() for name in value.split(",") if name.strip())


def line_naming(path: Path, name: str) -> int:
    """The line on which a file's header names what it depends on."""
    word = re.compile(rf"(?<![\w/]){re.escape(name)}(?![\w/])")
    within = False
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if match := HEADER_LINE.match(text):
            within = match["key"] in ("depends", "on")
        if within and word.search(text):
            return number
    return 1


def line_of(path: Path, key: str) -> int:
    """The line on which a header begins."""
    for number, text in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        if (match := HEADER_LINE.match(text)) and match["key"] == key:
            return number
    return 1


def mapping_of(spec: Spec) -> TableMapping:
    """A mapping with its header taken apart.

    Raises:
        CatalogError: The header breaks its form; names the file.
    """

    def fault(reason: str) -> CatalogError:
        return CatalogError(f"{spec.path}:1: {reason}")

    if len(spec.statements) != 1:
        raise fault("a mapping is one SELECT")
    for key in ("entity", "fields"):
        if key not in spec.options:
            raise fault(f"a mapping needs a header '{key}'")
    fields = tuple(Field(tuple(part.strip() for part in item.split("|"))) for item in spec.options["fields"].split(","))
    names = [spelling for item in fields for spelling in item.spellings]
    if "" in names or len(set(names)) != len(names):
        raise fault("'fields' has an empty or repeated name")
    if fields[0].name != "id":
        raise fault("'fields' must begin with id")
    numbered: Numbered | None = None
    if (value := spec.options.get("numbered")) is not None:
        match = re.fullmatch(r"(\w+) in (\w+) by (\w+)(?:, made from (\w+))?(, repaired)?", value)
        if match is None:
            raise fault("expected 'numbered: <column> in <table> by <column>[, made from <column>][, repaired]'")
        numbered = Numbered(match[1], match[2], match[3], match[4], repaired=match[5] is not None)
    claims: Claims | None = None
    if (value := spec.options.get("claims")) is not None:
        match = re.fullmatch(r"(\w+(?:, *\w+)*); released by (\w+) = (.+)", value)
        if match is None:
            raise fault("expected 'claims: <column>, ...; released by <column> = <expression>'")
        claims = Claims(names_of(match[1]), match[2], match[3])
    html = names_of(spec.options.get("html", ""))
    if missing := set(html) - {item.name for item in fields}:
        raise fault(f"'html' names {sorted(missing)[0]}, which is not among the fields")
    return TableMapping(
        spec=spec,
        entity=spec.options["entity"],
        key=spec.options.get("key", "id"),
        fields=fields,
        html=html,
        wide=names_of(spec.options.get("wide", "")),
        later=names_of(spec.options.get("later", "")),
        numbered=numbered,
        claims=claims,
    )
