"""The header of a file: its keys, and where a name stands in it."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping
from pathlib import Path

from b44_assets.catalog.model import ExchangeableUnique, Field, Kind, Spec, TableMapping, UniqueSuffix
from b44_assets.errors import CatalogError

HEADER_KEYS: Mapping[Kind, frozenset[str]] = {
    Kind.FUNCTION: frozenset({"depends", "execute"}),
    Kind.TABLE: frozenset({"depends", "partitions", "first", "seed", "access", "audited"}),
    Kind.MAPPING: frozenset(
        {"depends", "entity", "fields", "key", "html"}
        | {"large_columns", "unique_suffix", "deferred_fk", "exchangeable_unique"}
    ),
    Kind.PARTITION: frozenset({"depends", "on", "ahead"}),
    Kind.INDEX: frozenset({"depends", "on", "unfit_rows"}),
    Kind.CONSTRAINT: frozenset({"depends", "on", "unfit_rows"}),
    Kind.TRIGGER: frozenset({"depends", "on"}),
    Kind.POLICY: frozenset({"depends", "on"}),
    Kind.VIEW: frozenset({"depends", "access"}),
    Kind.CHECK: frozenset({"depends", "on", "severity", "lists"}),
    Kind.QUERY: frozenset({"depends", "uses", "prunes", "since", "until"}),
}
COMMON_KEYS = frozenset({"depends"})
STANDARD_ROLES = ("b44_owner", "b44_migrator", "b44_readwrite", "b44_readonly", "b44_monitor")
"""Group roles that the program makes in every app's database."""
ACCESS = ("write", "append", "read", "none")
"""What the application's group role may do with a table or view; those that read may read it, too, unless it is `none`."""
_ORDER_OF_CLAIMS = "created_at"
RENAMED_KEYS: Mapping[str, str] = {
    "wide": "large_columns",
    "numbered": "unique_suffix",
    "later": "deferred_fk",
    "claims": "exchangeable_unique",
}
"""What headers were called in version 0.1."""
HEADER_LINE = re.compile(r"--\s(?P<key>[a-z_]+):\s+(?P<value>.*\S)\s*$")


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

    def fault(key: str, reason: str) -> CatalogError:
        return CatalogError(f"{spec.path}:{line_of(spec.path, key)}: {reason}")

    if len(spec.statements) != 1:
        raise CatalogError(f"{spec.path}:1: a mapping is one SELECT")
    for key in ("entity", "fields"):
        if key not in spec.options:
            raise fault(key, f"a mapping needs a header '{key}'")
    fields = tuple(Field(tuple(part.strip() for part in item.split("|"))) for item in spec.options["fields"].split(","))
    names = [spelling for item in fields for spelling in item.spellings]
    if "" in names or len(set(names)) != len(names):
        raise fault("fields", "'fields' has an empty or repeated name")
    if fields[0].name != "id":
        raise fault("fields", "'fields' must begin with id")
    unique_suffix: UniqueSuffix | None = None
    if (value := spec.options.get("unique_suffix")) is not None:
        match = re.fullmatch(
            r"(\w+) in (\w+) by (\w+)(?:, made from (\w+))?(?:, ordered by (\w+))?(, repaired)?", value
        )
        if match is None:
            raise fault(
                "unique_suffix",
                "expected 'unique_suffix: <column> in <table> by <column>[, made from <column>][, ordered by <column>][, repaired]'",
            )
        unique_suffix = UniqueSuffix(
            match[1], match[2], match[3], match[4], match[5] or _ORDER_OF_CLAIMS, repaired=match[6] is not None
        )
    exchangeable_unique: ExchangeableUnique | None = None
    if (value := spec.options.get("exchangeable_unique")) is not None:
        match = re.fullmatch(r"(\w+(?:, *\w+)*); released by (\w+) = (.+)", value)
        if match is None:
            raise fault(
                "exchangeable_unique",
                "expected 'exchangeable_unique: <column>, ...; released by <column> = <expression>'",
            )
        exchangeable_unique = ExchangeableUnique(names_of(match[1]), match[2], match[3])
    html = names_of(spec.options.get("html", ""))
    if missing := set(html) - {item.name for item in fields}:
        wrong, known = min(missing), [item.name for item in fields]
        raise fault("html", f"'html' names {wrong}, which is not among the fields{meant(wrong, known)}")
    return TableMapping(
        spec=spec,
        entity=spec.options["entity"],
        key=spec.options.get("key", "id"),
        fields=fields,
        html=html,
        large_columns=names_of(spec.options.get("large_columns", "")),
        deferred_fk=names_of(spec.options.get("deferred_fk", "")),
        unique_suffix=unique_suffix,
        exchangeable_unique=exchangeable_unique,
    )
