"""What a database has already that a logical backup goes into: what is in the way, and what is somebody else's and stays as it is."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from typing import LiteralString

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from b44_assets.backup.model import Backup

# A name of two parts as the server writes it, of an identity such as `table public."Order"` or `function public.f(integer)`.
_PART = r'(?:"(?:[^"]|"")*"|[^ ".(]+)'
_NAME = re.compile(rf"(?P<kind>[a-z ]+?) (?P<name>{_PART}\.{_PART})(?:\(.*)?", re.DOTALL)
_RELATIONS = frozenset({"table", "view", "materialized view", "foreign table", "sequence", "index", "type"})
_SCHEMA = "schema "

_IN_THE_WAY = sql.SQL("""\
select format('%s %I.%I', case when c.relkind in ('v', 'm') then 'the view' when c.relkind = 'S' then 'the sequence'
    when c.relkind in ('i', 'I') then 'the index' else 'the table' end, n.nspname, c.relname)
from pg_class c join pg_namespace n on n.oid = c.relnamespace
where format('%I.%I', n.nspname, c.relname) = any({relations}::text[])
union all
select format('the function %I.%I', n.nspname, p.proname)
from pg_proc p join pg_namespace n on n.oid = p.pronamespace
where format('%I.%I', n.nspname, p.proname) = any({functions}::text[])
union all
select format('the schema %I', n.nspname) from pg_namespace n where quote_ident(n.nspname) = any({schemas}::text[])
limit 1
""")
# A superuser has every role, and so nothing is somebody else's.
_FOREIGN: tuple[tuple[str, LiteralString], ...] = (
    ("schema", "select nspname, quote_ident(nspname) from pg_namespace where not pg_has_role(nspowner, 'USAGE')"),
    (
        "event trigger",
        "select evtname, quote_ident(evtname) from pg_event_trigger where not pg_has_role(evtowner, 'USAGE')",
    ),
    ("extension", "select extname, quote_ident(extname) from pg_extension where not pg_has_role(extowner, 'USAGE')"),
)
# Entries of a dump's table of contents, before the name of the schema.
_OF_A_SCHEMA = (
    r"(?:ACL|COMMENT|DEFAULT ACL|SECURITY LABEL|AGGREGATE|FUNCTION|PROCEDURE|TYPE|SHELL TYPE|DOMAIN|CHECK CONSTRAINT|VIEW"
    r"|MATERIALIZED VIEW(?: DATA)?|RULE|OPERATOR(?: CLASS| FAMILY)?|COLLATION|CONVERSION"
    r"|TEXT SEARCH (?:CONFIGURATION|DICTIONARY|PARSER|TEMPLATE))"
)


@dataclass(frozen=True)
class Foreign:
    """What a database has of a backup that is somebody else's there, as a host's schemas are.

    Attributes:
        schemas: Those of which the backup has no rows, by name.
        identities: These and event triggers, by identity.
        entries: Which entries of the dump's table of contents are of it; None where none is.
    """

    schemas: tuple[str, ...] = ()
    identities: frozenset[str] = frozenset()
    entries: re.Pattern[str] | None = None

    def has(self, identity: str) -> bool:
        """Tell whether an object, by its identity, is one of them or in one of these schemas."""
        found = _NAME.fullmatch(identity)
        schema = found["name"] if found else ""
        return identity in self.identities or any(
            schema.startswith(f"{name.removeprefix(_SCHEMA)}.") for name in self.identities if name.startswith(_SCHEMA)
        )


def foreign(conn: Connection[TupleRow], backup: Backup) -> Foreign:
    """Find what a database has of a backup already that the session's role could not make or change.

    Args:
        conn: To the database.
        backup: A logical one.
    """
    with_rows = {_schema_of(name) for name in (*backup.state.tables, *backup.state.sequences)}
    schemas: list[str] = []
    identities: set[str] = set()
    patterns: list[str] = []
    for kind, query in _FOREIGN:
        for name, quoted in conn.execute(query).fetchall():
            identity = f"{kind} {quoted}"
            if identity not in backup.state.schema or (kind == "schema" and {name, quoted} & with_rows):
                continue
            word, written = kind.upper(), re.escape(name)
            patterns.append(rf"(?:ACL|COMMENT|SECURITY LABEL) - {word} {written} ")
            if kind != "extension":
                identities.add(identity)
                patterns.append(rf"{word} - {written} ")
            if kind == "schema":
                schemas.append(name)
                patterns.append(rf"{_OF_A_SCHEMA} {written} ")
    if not patterns:
        return Foreign()
    return Foreign(
        tuple(sorted(schemas)), frozenset(identities), re.compile(rf"[0-9]+; [0-9]+ [0-9]+ (?:{'|'.join(patterns)})")
    )


def in_the_way(backup: Backup, left: Foreign) -> str:
    """Return the query for one thing that a database has and the backup would make; no row where there is none.

    Args:
        backup: A logical one.
        left: What is not made.
    """
    made = [identity for identity in backup.state.schema if not left.has(identity)]
    return _IN_THE_WAY.format(
        relations=_texts(_named(made, _RELATIONS)),
        functions=_texts(_named(made, {"function"})),
        schemas=_texts(name.removeprefix(_SCHEMA) for name in made if name.startswith(_SCHEMA)),
    ).as_string()


def _named(identities: Iterable[str], kinds: Iterable[str]) -> list[str]:
    """The qualified names of those of some kinds."""
    matches = (_NAME.fullmatch(identity) for identity in identities)
    return [found["name"] for found in matches if found and found["kind"] in kinds]


def _texts(names: Iterable[str]) -> sql.Literal:
    return sql.Literal(sorted(names))


def _schema_of(name: str) -> str:
    """The schema of a table by the name that `SourceState` has for it."""
    return name.partition(".")[0]
