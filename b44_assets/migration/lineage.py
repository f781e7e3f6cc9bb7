"""Which exported fields, and which columns of other tables, a column of the target comes from: read off the mapping's SQL.

What belongs here: following names through a mapping. What does not: any database; the files of `sql/` say it all.
"""

from __future__ import annotations

import hashlib
import json
import logging
import subprocess
import sys
from collections.abc import Generator, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from b44_assets.atomic_files import write_atomically
from b44_assets.catalog import Catalog, Kind, TableMapping, load_catalog
from b44_assets.migration.sources import VERDICTS

logger = logging.getLogger(__name__)

_OWN = {"record_number", "source_file", "exported_at", "superseded"}
"""What the source view adds to the exported fields, and no field stands behind."""
_ABOUT_THE_RECORD = {"record_number", "base44_id", *VERDICTS}
"""Columns of a mapping that are not the target's."""
_WORTH_A_PROCESS = 90_000
"""Bytes of mappings that take as long to follow (7 ms for each thousand) as a process takes to begin (0.6 s)."""


@dataclass(frozen=True)
class Origin:
    """Where a value comes from.

    Attributes:
        table: A table of `sql/`; None for the export itself.
        column: Its column, or the field of the export by the name that the mapping gives it.
    """

    table: str | None
    column: str


def origins(catalog: Catalog, mapping: TableMapping) -> dict[str, tuple[Origin, ...]]:
    """The origins of each column that a mapping fills, those of the export first; none for a constant.

    A value of a row that is looked up comes from that row, and from the fields by which it is found.
    """
    # Not at the head of the file: it takes as long to import as many a step takes to run, and most never need it.
    from sqlglot import exp, parse_one
    from sqlglot.lineage import lineage
    from sqlglot.optimizer.qualify import qualify
    from sqlglot.optimizer.scope import build_scope

    fields = {item.name for item in mapping.fields}
    derived = {f"{name}_{what}": name for name in mapping.html for what in ("exported", "changed")}
    tables = {spec.name for spec in catalog.of(Kind.TABLE)}
    known = {"base44_id", *_OWN, *fields, *derived}
    schema: dict[str, Any] = {"source": dict.fromkeys(known, "text")}
    query: Any = qualify(
        _without_laterals(parse_one(mapping.spec.statements[0].text, dialect="postgres")),
        dialect="postgres",
        schema=schema,
        validate_qualify_columns=False,
    )
    _name_what_finds_rows(query)
    scope = build_scope(query)

    def of(name: str) -> Iterator[Origin]:
        node: Any = lineage(name, query, schema, dialect="postgres", scope=scope, copy=False, trim_selects=False)
        for leaf in node.walk():
            if leaf.downstream:
                continue
            column = leaf.name.rpartition(".")[2].strip('"')
            table = leaf.source.name if isinstance(leaf.source, exp.Table) else None
            if table in tables:
                # A row that points at another of its own table comes from no asset but its own.
                if table != mapping.spec.name:
                    yield Origin(table, column)
            elif column == "base44_id":
                yield Origin(None, "id")
            elif (field := derived.get(column, column)) in fields and table in (None, "source"):
                yield Origin(None, field)

    columns = [select.alias_or_name for select in query.selects]
    return {
        name: tuple(sorted(set(of(name)), key=lambda origin: (origin.table or "", origin.column)))
        for name in columns
        if name not in _ABOUT_THE_RECORD
    }


def kept_origins(catalog: Catalog, mapping: TableMapping, folder: Path) -> dict[str, tuple[Origin, ...]]:
    """As `origins`, without following the names of a mapping again whose origins are kept in a folder.

    They are kept for the same SQL, followed by the same code of ours and of sqlglot, whose import alone takes longer than many a step.

    Args:
        catalog: The files of `sql/`.
        mapping: One of its mappings.
        folder: It is made where it is missing; where it cannot be written, nothing is kept.
    """
    path = folder / f"{mapping.spec.name}.json"
    if (kept := _kept(path, catalog, mapping)) is not None:
        return {name: tuple(Origin(*one) for one in of) for name, of in json.loads(kept).items()}
    found = origins(catalog, mapping)
    text = json.dumps({name: [(one.table, one.column) for one in of] for name, of in found.items()})
    try:
        folder.mkdir(parents=True, exist_ok=True)
        write_atomically(path, f"{_digest(catalog, mapping, text)}\n{text}".encode(), mode=0o644)
    except OSError as error:
        logger.debug("the origins of columns are not kept: %s", error)
    return found


@contextmanager
def followed_meanwhile(catalog: Catalog, folder: Path) -> Generator[None]:
    """Lets a process of its own keep the origins of long mappings, or of many, while the block has other things to do.

    Whoever asks `kept_origins` for one that is not kept yet finds it without waiting for that process, which ends with the block.

    Args:
        catalog: The files of `sql/`.
        folder: As of `kept_origins`.
    """
    unkept = [one for one in catalog.mappings.values() if _kept(folder / f"{one.spec.name}.json", catalog, one) is None]
    if sum(len(one.spec.statements[0].text) for one in unkept) < _WORTH_A_PROCESS:
        yield
        return
    nowhere = subprocess.DEVNULL
    command = [sys.executable, "-P", "-m", __name__, str(catalog.root), str(folder)]
    with subprocess.Popen(command, stdin=nowhere, stdout=nowhere, stderr=nowhere) as process:
        try:
            yield
        finally:
            process.terminate()


def _kept(path: Path, catalog: Catalog, mapping: TableMapping) -> str | None:
    """The text of a file of origins, where it is of this mapping and was made in this way."""
    try:
        digest, _, text = path.read_text(encoding="utf-8").partition("\n")
    except (OSError, UnicodeDecodeError):
        return None
    return text if digest == _digest(catalog, mapping, text) else None


def _digest(catalog: Catalog, mapping: TableMapping, text: str) -> str:
    """Of all that origins depend on, and of the origins as they are kept: a file that was cut short or changed has another."""
    tables = tuple(sorted(spec.name for spec in catalog.of(Kind.TABLE)))
    on = (_followed_by(), tables, mapping.spec.name, mapping.spec.digest, text)
    return hashlib.sha256(repr(on).encode()).hexdigest()


@cache
def _followed_by() -> tuple[str, str]:
    """The code that follows names: ours, and the version of sqlglot."""
    return Path(__file__).read_text(encoding="utf-8"), version("sqlglot")


def _without_laterals(query: Any) -> Any:
    """A query in which an expression stands wherever a LATERAL that reads no table gives it a name: names are followed through that."""
    from sqlglot import exp

    for select in list(query.find_all(exp.Select)):
        for join in list(select.args.get("joins") or ()):
            lateral: Any = join.this
            inner: Any = lateral.this.unnest() if isinstance(lateral, exp.Lateral) else None
            if not isinstance(inner, exp.Select) or inner.args.get("from_") is not None:
                continue
            named = {one.alias_or_name: one.unalias() for one in inner.selects}
            join.pop()
            for column in list(select.find_all(exp.Column)):
                if column.table == lateral.alias and column.name in named:
                    value = exp.paren(named[column.name].copy())
                    column.replace(exp.alias_(value, column.name) if isinstance(column.parent, exp.Select) else value)
    return query


def _name_what_finds_rows(query: Any) -> None:
    """Lets each column of a row that is joined stand beside the columns by which it is found."""
    from sqlglot import exp

    for select in query.find_all(exp.Select):
        found_by: dict[str, list[Any]] = {}
        for join in select.args.get("joins") or ():
            if (condition := join.args.get("on")) is not None:
                alias = join.this.alias_or_name
                others = [column for column in condition.find_all(exp.Column) if column.table != alias]
                found_by[alias] = [one for column in others for one in (column, *found_by.get(column.table, ()))]
        for column in list(select.find_all(exp.Column)):
            if found_by.get(column.table) and column.find_ancestor(exp.Join, exp.Select) is select:
                value = exp.Coalesce(this=column.copy(), expressions=[one.copy() for one in found_by[column.table]])
                column.replace(exp.alias_(value, column.name) if column.parent is select else value)


def exported_fields(
    origins: Mapping[str, Sequence[Origin]], spellings: Mapping[str, str]
) -> dict[str, tuple[str, ...]]:
    """The exported fields that each column comes from, as the export spells them; columns that come from none are left out.

    Args:
        origins: By column of the target.
        spellings: The export's spelling of each field that the mapping reads; fields that it lacks are left out.
    """
    found = {
        column: tuple(spellings[one.column] for one in of if one.table is None and one.column in spellings)
        for column, of in origins.items()
    }
    return {column: fields for column, fields in found.items() if fields}


if __name__ == "__main__":
    _catalog = load_catalog(Path(sys.argv[1]))
    for _mapping in _catalog.mappings.values():
        kept_origins(_catalog, _mapping, Path(sys.argv[2]))
