"""What a statement of an app's file reads and gives, as far as that can be told without a server.

What belongs here: names and types, read with sqlglot. What does not: any judgement; see `references`. A statement that sqlglot does not
understand is left to the server: functions then return None.
"""

from __future__ import annotations

import logging
import re
from collections.abc import Iterator
from functools import lru_cache
from typing import Any

_PIECE = re.compile(
    r"""
    --[^\n]* | /\*.*?\*/
  | (?P<string>[eE]?'(?:[^']|'')*')
  | (?P<quoted>"(?:[^"]|"")*")
  | (?P<word>[A-Za-z_][A-Za-z0-9_$]*)
  | (?P<mark>[(),*\[\]])
  | (?P<other>[^\s])
    """,
    re.VERBOSE | re.DOTALL,
)
_OPENING, _CLOSING = frozenset("(["), frozenset(")]")


@lru_cache(maxsize=4096)
def parsed(text: str) -> Any:
    """A statement as sqlglot's tree, which nobody changes, or None where it does not understand it.

    A command asks for the same statements several times: the catalogue, and what looks whether there is room for its objects.
    """
    # Not at the head of the file: it takes as long to import as many a command takes to run, and a sound folder never needs it.
    from sqlglot import exp, parse_one
    from sqlglot.errors import SqlglotError

    # What it does not understand it says in the log as well, as a warning to nobody.
    log = logging.getLogger("sqlglot")
    disabled, log.disabled = log.disabled, True
    try:
        tree: Any = parse_one(text, dialect="postgres")
    except (SqlglotError, RecursionError):
        return None
    finally:
        log.disabled = disabled
    return None if isinstance(tree, exp.Command) else tree


def tables_read(text: str) -> frozenset[str] | None:
    """Names that stand in FROM or JOIN, but for those of the statement's own CTEs and of schemas other than public."""
    from sqlglot import exp

    tree = parsed(text)
    if tree is None:
        return None
    own = {cte.alias_or_name for cte in tree.find_all(exp.CTE)}
    return frozenset(
        table.name for table in tree.find_all(exp.Table) if table.db in ("", "public") and table.name not in own
    )


def gives(text: str, columns: frozenset[str]) -> frozenset[str] | None:
    """Those of some columns that a SELECT gives; None where that cannot be told, as of `select *`."""
    found = frozenset(_last_list(text)) & columns
    if found == columns:
        return found
    tree = parsed(text)
    names: list[str] | None = None if tree is None else getattr(tree, "named_selects", None)
    if not names or "*" in names or getattr(tree, "is_star", False):
        return None
    return frozenset(names) & columns


def columns_given(text: str) -> frozenset[str]:
    """All columns that a SELECT gives, as far as that can be told."""
    tree = parsed(text)
    return frozenset() if tree is None else frozenset(getattr(tree, "named_selects", ()))


def column_type(text: str, column: str) -> str | None:
    """The built-in type of a column of a CREATE TABLE, in lower case; None where it cannot be told."""
    if re.search(rf'^\s*"?{re.escape(column)}"?\s+uuid\b', text, re.IGNORECASE | re.MULTILINE):
        return "uuid"
    if not re.match(rf"create\s+(?:unlogged\s+)?table\b.*\b{re.escape(column)}\b", text, re.IGNORECASE | re.DOTALL):
        return None
    from sqlglot import exp

    tree = parsed(text)
    if not isinstance(tree, exp.Create):
        return None
    for definition in tree.find_all(exp.ColumnDef):
        kind: Any = definition.args.get("kind")
        if definition.name == column and kind is not None and kind.this is not exp.DataType.Type.USERDEFINED:
            return kind.sql(dialect="postgres").lower()
    return None


def columns_made(text: str, columns: frozenset[str]) -> frozenset[str]:
    """Those of some columns that a CREATE TABLE or ALTER TABLE makes, as far as that can be told."""
    named = "|".join(map(re.escape, sorted(columns)))
    if not re.match(rf"(?:create|alter)\b.*?\btable\b.*(?<!\w)(?:{named})(?!\w)", text, re.IGNORECASE | re.DOTALL):
        return frozenset()
    from sqlglot import exp

    tree = parsed(text)
    if not isinstance(tree, exp.Create | exp.Alter):
        return frozenset()
    made = (definition.this for definition in tree.find_all(exp.ColumnDef))
    return columns & {name.name if name.args.get("quoted") else name.name.lower() for name in made}


def _last_list(text: str) -> Iterator[str]:
    """The names of the columns of a statement's outermost SELECT, read roughly; nothing where there are several, as in a UNION."""
    depth, within, last = 0, False, ""
    names: list[str] = []
    for match in _PIECE.finditer(text):
        kind, piece = match.lastgroup, match[0]
        if kind is None:
            continue
        if kind == "mark" and piece in _OPENING:
            depth += 1
        elif kind == "mark" and piece in _CLOSING:
            depth -= 1
        elif depth == 0:
            word = piece.lower() if kind == "word" else ""
            if word in ("union", "intersect", "except"):
                return
            if word == "select":
                within, names, last = True, [], ""
                continue
            if within and (word == "from" or piece == ","):
                names.append(last)
                within, last = within and word != "from", ""
                continue
        last = piece.lower() if kind == "word" and depth == 0 else piece if kind == "quoted" else ""
    if within:
        names.append(last)
    yield from names
