"""Whether the target can take what `sql/` makes, asked before anything is made.

What belongs here: what is in the way, read from the server's catalogue. What does not: making or changing anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass

from b44_assets.catalog import Catalog, IndexDefinition, Kind, index_definitions, view_definition
from b44_assets.engine.session import Connection, Session
from b44_assets.errors import DatabaseError

_TABLE = re.compile(r"\s*create\s+(unlogged\s+)?table\b", re.IGNORECASE)
_SCHEMA = re.compile(r'\s*create\s+schema\s+(?:if\s+not\s+exists\s+)?"?(?P<name>\w+)', re.IGNORECASE)
_CHANGED_COLUMN = re.compile(
    r'\b(?:(?:add|alter)\s+column\s+(?:if\s+not\s+exists\s+)?|rename\s+(?:column\s+)?"?\w+"?\s+to\s+)"?(?P<name>\w+)',
    re.IGNORECASE,
)
_KINDS = {
    "r": "a table",
    "p": "a partitioned table",
    "v": "a view",
    "m": "a materialized view",
    "i": "an index",
    "I": "a partitioned index",
    "S": "a sequence",
    "f": "a foreign table",
    "c": "a type",
}


@dataclass(frozen=True)
class _Relation:
    """A relation that `sql/` makes.

    Attributes:
        schema: Its schema.
        name: Its name.
        kinds: Values of `pg_class.relkind`, any of which is right.
        table: The table of an index; empty for all else.
        columns: Names and types of a table's columns, but for those that its file adds to an earlier version.
    """

    schema: str
    name: str
    kinds: str
    table: str = ""
    columns: tuple[tuple[str, str], ...] = ()


def need_room(session: Session) -> None:
    """Looks whether everything of `sql/` can be made in the target, or is there already; changes nothing.

    Raises:
        DatabaseError: Something is in the way: the server is read-only, a right is missing, or an object that is none of
            ours has one of our names. One line names each of them, and what to do.
    """
    relations = _relations(session.catalog)
    with session.connection("look for obstacles") as conn:
        faults = _missing_rights(conn, _schemas(session.catalog)) or _obstacles(conn, relations)
    if faults:
        raise DatabaseError(f"the target cannot take the migration: {'; '.join(faults)} (nothing was made or changed)")


def _schemas(catalog: Catalog) -> list[str]:
    statements = (statement.text for spec in catalog.of(Kind.BOOK) for statement in spec.statements)
    return [match["name"] for text in statements if (match := _SCHEMA.match(text))]


def _relations(catalog: Catalog) -> list[_Relation]:
    found: list[_Relation] = []
    for spec in catalog.of(Kind.BOOK, Kind.TABLE):
        changed = {match["name"] for s in spec.statements for match in _CHANGED_COLUMN.finditer(s.text)}
        for statement in spec.statements:
            if _TABLE.match(statement.text) and (table := _table(statement.text, changed)) is not None:
                found.append(table)
    for spec in catalog.of(Kind.INDEX):
        found += _indexes(index_definitions(spec))
    for spec in catalog.of(Kind.VIEW):
        definition = view_definition(spec)
        found.append(_Relation("public", definition.name, "m"))
        found += _indexes(definition.indexes)
    return found


def _indexes(definitions: Iterable[IndexDefinition]) -> list[_Relation]:
    return [_Relation("public", index.name, "iI", index.table) for index in definitions]


def _table(text: str, changed: set[str]) -> _Relation | None:
    """A CREATE TABLE taken apart; None where the parser does not know what it says, and the server is left to complain."""
    from sqlglot import exp, parse_one
    from sqlglot.errors import ParseError

    try:
        created = parse_one(text, dialect="postgres")
    except ParseError:
        return None
    name = created.find(exp.Table)
    if not isinstance(created, exp.Create) or name is None:
        return None
    columns = tuple(
        (column.name, column.kind.sql("postgres"))
        for column in created.find_all(exp.ColumnDef)
        if column.kind is not None and column.name not in changed
    )
    kinds = "p" if created.find(exp.PartitionedByProperty) is not None else "rp"
    return _Relation(name.db or "public", name.name, kinds, columns=columns)


_RIGHTS = """
    select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean, quote_ident(current_user),
           quote_ident(current_database()), has_database_privilege(current_database(), 'CREATE'),
           to_regnamespace('public') is not null,
           coalesce(has_schema_privilege(to_regnamespace('public'), 'USAGE'), false),
           coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false),
           array(select quote_ident(nspname) from pg_namespace
                  where nspname = any (%s) and not pg_has_role(nspowner, 'USAGE') order by nspname)
"""


def _missing_rights(conn: Connection, schemas: list[str]) -> list[str]:
    row = conn.execute(_RIGHTS, (schemas,)).fetchone()
    assert row is not None
    read_only, user, database, creates, public, usage, objects, foreign = row
    if read_only:
        return ["the server is read-only (a standby, or one that recovers): name the primary server in the URL"]
    faults: list[str] = []
    if not creates:
        faults.append(
            f"user {user} may not make schemas in database {database}: GRANT CREATE ON DATABASE {database} TO {user}"
        )
    if not public:
        faults.append("there is no schema public: CREATE SCHEMA public")
    elif missing := [right for right, given in (("USAGE", usage), ("CREATE", objects)) if not given]:
        rights = ", ".join(missing)
        faults.append(f"user {user} lacks {rights} on schema public: GRANT {rights} ON SCHEMA public TO {user}")
    faults += [f"schema {name} belongs to another role: ALTER SCHEMA {name} OWNER TO {user}" for name in foreign]
    return faults


_FOUND = """
    select w.number, c.relkind::text, pg_has_role(coalesce(c.relowner, t.typowner), 'USAGE'),
           pg_get_userbyid(coalesce(c.relowner, t.typowner)), quote_ident(current_user), i.indrelid::regclass::text,
           w.index_of <> '' and i.indrelid = to_regclass(quote_ident(w.schema) || '.' || quote_ident(w.index_of))
      from unnest(%s::text[], %s::text[], %s::text[]) with ordinality w(schema, name, index_of, number)
      join pg_namespace n on n.nspname = w.schema
      left join pg_class c on c.relnamespace = n.oid and c.relname = w.name
      left join pg_index i on i.indexrelid = c.oid
      -- A table makes a type of its name; that of an array gives way by itself.
      left join pg_type t on c.oid is null and w.index_of = '' and t.typnamespace = n.oid and t.typname = w.name
       and not exists (select from pg_type e where e.typarray = t.oid)
     where c.oid is not null or t.oid is not null
     order by w.number
"""
_COLUMNS = """
    select w.number, w.name, case when a.attname is not null then format_type(a.atttypid, a.atttypmod) end,
           format_type(to_regtype(w.type), null)
      from unnest(%s::bigint[], %s::text[], %s::text[], %s::text[], %s::text[]) with ordinality
           w(number, schema, relation, name, type, position)
      join pg_namespace n on n.nspname = w.schema
      join pg_class c on c.relnamespace = n.oid and c.relname = w.relation and c.relkind in ('r', 'p')
      left join pg_attribute a on a.attrelid = c.oid and a.attname = w.name and a.attnum > 0 and not a.attisdropped
      left join pg_type t on t.oid = a.atttypid
     where a.attname is null
        -- An application may have widened one, such as integer to bigint.
        or coalesce(nullif(t.typbasetype, 0), t.oid) <> to_regtype(w.type)
       and not exists (select from pg_cast
                        where castsource = to_regtype(w.type) and castcontext = 'i'
                          and casttarget = coalesce(nullif(t.typbasetype, 0), t.oid))
     order by w.position
"""


def _obstacles(conn: Connection, relations: list[_Relation]) -> list[str]:
    faults: list[str] = []
    tables: list[int] = []
    rows = conn.execute(
        _FOUND,
        ([one.schema for one in relations], [one.name for one in relations], [one.table for one in relations]),
    ).fetchall()
    for number, kind, ours, owner, user, table, on_its_table in rows:
        wanted = relations[number - 1]
        name = f"{wanted.schema}.{wanted.name}"
        if kind is None:
            faults.append(f"there is a type {name}, where a table of that name is to be made: rename it")
        elif kind not in wanted.kinds:
            shown = _KINDS.get(kind, "something else")
            faults.append(f"{name} is {shown}, not {_KINDS[wanted.kinds[0]]}: rename it, or move it to another schema")
        elif wanted.table and not on_its_table:
            faults.append(f"index {name} is one of {table}, not of {wanted.table}: rename it")
        else:
            if not ours and not wanted.table:
                faults.append(
                    f"{name} belongs to {owner}: migrate as that role, or give it to {user} if it is of a migration"
                )
            tables.append(number - 1)
    wanted = [(number, *column) for number in tables for column in relations[number].columns]
    lacking: dict[int, list[str]] = {}
    for number, column, found, type_wanted in conn.execute(
        _COLUMNS,
        (
            [item[0] for item in wanted],
            [relations[item[0]].schema for item in wanted],
            [relations[item[0]].name for item in wanted],
            [item[1] for item in wanted],
            [item[2] for item in wanted],
        ),
    ).fetchall():
        lacking.setdefault(number, []).append(
            f"has no column {column}" if found is None else f"has {column} as {found} instead of {type_wanted}"
        )
    for number, complaints in lacking.items():
        one = relations[number]
        faults.append(
            f"table {one.schema}.{one.name} is another than the one to be made ({', '.join(complaints)}):"
            " rename it, move it to another schema, or name another database in the URL"
        )
    return faults
