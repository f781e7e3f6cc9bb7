"""Whether the target can take what `sql/` makes, asked before anything is made.

What belongs here: what is in the way, read from the server's catalogue. What does not: making or changing anything.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Final

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import (
    Catalog,
    IndexDefinition,
    Kind,
    Spec,
    constraint_definitions,
    index_definitions,
    row_security,
    view_definition,
)
from b44_assets.catalog.columns import DeclaredTable, declared_table
from b44_assets.errors import DatabaseError
from b44_assets.postgres.error_classes import READ_ONLY
from b44_assets.schema.apply import ROUTINE, hold_schema_lock, is_finished
from b44_assets.schema.dependent_views import views_on
from b44_assets.schema.runtime import is_current
from b44_assets.session import Connection, Session, reason_of, scalar
from b44_assets.wording import plural, some_of

_NAMED = 3
"""How many columns of a table are named that it lacks."""
_SCHEMA = re.compile(r'\s*create\s+schema\s+(?:if\s+not\s+exists\s+)?"?(?P<name>\w+)', re.IGNORECASE)
_CHANGED_COLUMN = re.compile(
    r'\b(?:(?:add|alter)\s+column\s+(?:if\s+not\s+exists\s+)?|rename\s+(?:column\s+)?"?\w+"?\s+to\s+)"?(?P<name>\w+)',
    re.IGNORECASE,
)
_OTHER = re.compile(
    r"\s*create\s+(?:or\s+replace\s+)?(?P<kind>view|sequence|(?:unique\s+)?index)\s+(?:if\s+not\s+exists\s+)?"
    r"(?:(?P<schema>\w+)\s*\.\s*)?(?P<name>\w+)(?:\s+on\s+(?:(?P<of>\w+)\s*\.\s*)?(?P<table>\w+))?",
    re.IGNORECASE,
)
_ROUTINE = re.compile(rf"\s*(?:{ROUTINE}\s*\(|drop\s+(?:function|procedure|routine)\s)", re.IGNORECASE)
_COMMENT = re.compile(
    r"""\s*comment\s+on\s+table\s+"?(?P<name>\w+)"?\s+is\s+'(?P<said>(?:[^']|'')*)'\s*$""", re.IGNORECASE
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
        parent: The table of a partition; empty for all else.
        added: Of an app's table, the columns that are added where it lacks them; true for those that rows cannot be without.
        comment: Of an app's table, what its file says that it is.
    """

    schema: str
    name: str
    kinds: str
    table: str = ""
    columns: tuple[tuple[str, str], ...] = ()
    parent: str = ""
    added: Mapping[str, bool] = field(default_factory=dict[str, bool])
    comment: str | None = None


def needed(catalog: Catalog, names: Iterable[str] | None = None) -> frozenset[str]:
    """Some files of `sql/`, by name, with all that they stand on and what comes with the program; without names, every file."""
    if names is None:
        return frozenset(spec.name for spec in catalog.specs)
    read: dict[str, list[str]] = {}
    # A table and its mapping have one name.
    for spec in catalog.specs:
        read.setdefault(spec.name, []).extend([*spec.depends, *([spec.options["on"]] if "on" in spec.options else [])])
    found = {spec.name for spec in catalog.of(Kind.RUNTIME)}
    todo = list(names)
    while todo:
        if (name := todo.pop()) not in found:
            found.add(name)
            todo += read.get(name, [])
    return frozenset(found)


def need_room(session: Session, names: Iterable[str] | None = None, *, only_look: bool = False) -> None:
    """Looks whether what `sql/` makes can be made in the target, or is there already; changes nothing.

    Args:
        session: The run.
        names: Files that are to be made, with what they stand on; by default all.
        only_look: Whether the server is not even to be asked to replace a function in a transaction that is rolled back.

    Raises:
        DatabaseError: Something is in the way: the server is read-only, a right is missing, or an object that is none of
            ours has one of our names. One line names each of them, and what to do.
    """
    wanted = needed(session.catalog, names)
    specs = [spec for spec in session.catalog.specs if spec.name in wanted]
    with session.connection("look for obstacles") as conn:
        # Where its state may not be read, somebody else has the schema, which is named.
        if scalar(conn, _READS_STATE) and is_finished(conn):
            specs = [spec for spec in specs if not spec.name.startswith("migration/")]
        faults = _missing_rights(conn, _schemas(specs))
        faults = faults or _roles_in_the_way(conn, specs)
        if not faults:
            faults = _obstacles(conn, _relations(specs))
            if not only_look:
                faults += _routines_in_the_way(conn, specs, current=is_current(conn, session))
    if faults:
        raise DatabaseError(f"the target cannot take the migration: {'; '.join(faults)} (nothing was made or changed)")


def _roles_in_the_way(conn: Connection, specs: list[Spec]) -> list[str]:
    """Roles that are missing and cannot be made, and row security that would hide rows from this role."""
    row = conn.execute(
        "select quote_ident(rolname), rolsuper or rolcreaterole, rolsuper or rolbypassrls from pg_roles where rolname = current_user"
    ).fetchone()
    assert row is not None
    user, makes_roles, sees_all = row
    roles = [spec.name for spec in specs if spec.kind is Kind.ROLE]
    found = conn.execute(
        "select quote_ident(name) from unnest(%s::text[]) name where not exists (select from pg_roles where rolname = name)",
        (roles,),
    ).fetchall()
    faults: list[str] = []
    if found and not makes_roles:
        missing = ", ".join(name for (name,) in found)
        faults.append(
            f"user {user} may not make the roles {missing}: have a superuser run"
            f" {'; '.join(f'CREATE ROLE {name}' for (name,) in found)}, or ALTER ROLE {user} CREATEROLE"
        )
    forced = [spec.options["on"] for spec in specs if spec.kind is Kind.POLICY and row_security(spec).forced]
    if forced and not sees_all:
        faults.append(
            f"row security of {', '.join(forced)} is forced on its owner, and would hide rows from user {user}:"
            f" have a superuser run ALTER ROLE {user} BYPASSRLS, or leave out FORCE ROW LEVEL SECURITY"
        )
    return faults


def _schemas(specs: Iterable[Spec]) -> list[str]:
    return [match["name"] for spec in specs for s in spec.statements if (match := _SCHEMA.match(s.text))]


def _relations(specs: Iterable[Spec]) -> list[_Relation]:
    return [relation for spec in specs for relation in _made_by(spec)]


def _made_by(spec: Spec) -> Iterator[_Relation]:
    kind = spec.kind
    if kind in (Kind.RUNTIME, Kind.TABLE, Kind.PARTITION):
        changed = {match["name"] for s in spec.statements for match in _CHANGED_COLUMN.finditer(s.text)}
        for statement in spec.statements:
            if (declared := declared_table(statement.text)) is not None:
                table = _table(declared, changed)
                added = {one.name: one.required for one in declared.columns if not one.key}
                own = kind is Kind.TABLE and table.schema == "public"
                yield replace(table, added=added, comment=_comment(spec, table.name)) if own else table
            elif match := _OTHER.match(statement.text):
                relkinds = {"view": "v", "sequence": "S"}.get(match["kind"].lower(), "iI")
                schema = match["schema"] or match["of"] or "public"
                yield _Relation(schema, match["name"], relkinds, (match["table"] or "") if relkinds == "iI" else "")
    elif kind is Kind.INDEX:
        yield from _indexes(index_definitions(spec))
    elif kind is Kind.CONSTRAINT:
        for constraint in constraint_definitions(spec):
            # These have an index of their name.
            if constraint.form in ("exclude", "unique"):
                yield _Relation("public", constraint.name, "iI", constraint.table)
    elif kind is Kind.VIEW:
        definition = view_definition(spec)
        yield _Relation("public", definition.name, "m" if definition.materialized else "v")
        yield from _indexes(definition.indexes)


def _comment(spec: Spec, table: str) -> str | None:
    for statement in spec.statements:
        if (match := _COMMENT.match(statement.text)) and match["name"] == table:
            return match["said"].replace("''", "'")
    return None


def _indexes(definitions: Iterable[IndexDefinition]) -> list[_Relation]:
    return [_Relation("public", index.name, "iI", index.table) for index in definitions]


def _table(declared: DeclaredTable, changed: set[str]) -> _Relation:
    columns = tuple((one.name, one.type) for one in declared.columns if one.type and one.name not in changed)
    kinds = "p" if declared.partitioned else "rp"
    return _Relation(declared.schema, declared.name, kinds, columns=columns, parent=declared.parent)


_READS_STATE = """
    select not exists (select from pg_class c join pg_namespace n on n.oid = c.relnamespace
                        where n.nspname = 'b44' and c.relname = 'migration_state'
                          and not (has_schema_privilege(n.oid, 'USAGE') and has_table_privilege(c.oid, 'SELECT')))
"""
_RIGHTS = """
    select pg_is_in_recovery() or current_setting('transaction_read_only')::boolean, quote_ident(current_user),
           quote_ident(current_database()), has_database_privilege(current_database(), 'CREATE'),
           to_regnamespace('public') is not null,
           coalesce(has_schema_privilege(to_regnamespace('public'), 'USAGE'), false),
           coalesce(has_schema_privilege(to_regnamespace('public'), 'CREATE'), false),
           array(select array[quote_ident(nspname), quote_ident(pg_get_userbyid(nspowner))] from pg_namespace
                  where nspname = any (%(schemas)s) and not pg_has_role(nspowner, 'USAGE') order by nspname),
           exists (select from unnest(%(schemas)s::text[]) name where to_regnamespace(quote_ident(name)) is null)
"""


def _missing_rights(conn: Connection, schemas: list[str]) -> list[str]:
    row = conn.execute(_RIGHTS, {"schemas": schemas}).fetchone()
    assert row is not None
    read_only, user, database, creates, public, usage, objects, foreign, lacking = row
    if read_only:
        return [READ_ONLY]
    faults: list[str] = []
    if lacking and not creates:
        faults.append(
            f"user {user} may not make schemas in database {database}: GRANT CREATE ON DATABASE {database} TO {user}"
        )
    if not public:
        faults.append("there is no schema public: CREATE SCHEMA public")
    elif missing := [right for right, given in (("USAGE", usage), ("CREATE", objects)) if not given]:
        rights = ", ".join(missing)
        faults.append(f"user {user} lacks {rights} on schema public: GRANT {rights} ON SCHEMA public TO {user}")
    for owner in dict.fromkeys(owner for _, owner in foreign):
        theirs = [name for name, each in foreign if each == owner]
        faults.append(
            f"{plural(len(theirs), 'schema')} {', '.join(theirs)} {plural(len(theirs), 'belongs', 'belong')} to {owner}:"
            f" migrate as that role, or {'; '.join(f'ALTER SCHEMA {name} OWNER TO {user}' for name in theirs)}"
        )
    return faults


_FOUND = """
    select w.number, c.relkind::text, pg_has_role(coalesce(c.relowner, t.typowner), 'USAGE'),
           pg_get_userbyid(coalesce(c.relowner, t.typowner)), quote_ident(current_user), i.indrelid::regclass::text,
           w.index_of <> '' and i.indrelid = to_regclass(quote_ident(w.schema) || '.' || quote_ident(w.index_of)),
           w.parent = ''
           or exists (select from pg_inherits h where h.inhrelid = c.oid
                         and h.inhparent = to_regclass(quote_ident(w.schema) || '.' || quote_ident(w.parent)))
           -- Rows on their way out of it take its place for a while.
           or to_regclass(quote_ident(w.schema) || '.' || quote_ident(w.parent || '_drain')) is not null
      from unnest(%s::text[], %s::text[], %s::text[], %s::text[]) with ordinality w(schema, name, index_of, parent, number)
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
    """Relations of our names that are no relations of ours, and tables that have other columns than they are to have."""
    faults: list[str] = []
    there: dict[int, _Relation] = {}
    rows = conn.execute(
        _FOUND,
        (
            [one.schema for one in relations],
            [one.name for one in relations],
            [one.table for one in relations],
            [one.parent for one in relations],
        ),
    ).fetchall()
    for number, kind, ours, owner, user, table, on_its_table, in_its_place in rows:
        wanted = relations[number - 1]
        name = f"{wanted.schema}.{wanted.name}"
        if kind is None:
            faults.append(f"there is a type {name}, where a table of that name is to be made: rename it")
        elif kind not in wanted.kinds:
            faults.append(_of_another_kind(conn, wanted, kind))
        elif wanted.table and not on_its_table:
            faults.append(f"index {name} is one of {table}, not of {wanted.table}: rename it")
        elif not in_its_place:
            faults.append(f"{name} is no partition of {wanted.parent}: rename it, or move it to another schema")
        else:
            if not ours and not wanted.table:
                faults.append(
                    f"{name} belongs to {owner}: migrate as that role, or give it to {user} if it is of a migration"
                )
            there[number] = wanted
    return faults + _columns_in_the_way(conn, there)


def _of_another_kind(conn: Connection, wanted: _Relation, kind: str) -> str:
    shown = f"{wanted.schema}.{wanted.name}"
    is_now, should_be = _KINDS.get(kind, "something else"), _KINDS[wanted.kinds[0]]
    if {kind, *wanted.kinds} <= {"r", "p"} and _made_before(conn, {0: wanted}):
        # Out of the way, its records would count as lost.
        return (
            f"{shown}, which a migration has made, is {is_now}, not {should_be}: undo what its file says otherwise now,"
            " or migrate into a new database (--database-url)"
        )
    return f"{shown} is {is_now}, not {should_be}: rename it, or move it to another schema"


def _columns_in_the_way(conn: Connection, tables: Mapping[int, _Relation]) -> list[str]:
    """Tables that lack columns, or have them of another type; one that a migration has made gets new ones, where it can."""
    wanted = [
        (number, one.schema, one.name, column, kind) for number, one in tables.items() for column, kind in one.columns
    ]
    lacking: dict[int, list[str]] = {}
    new: dict[int, list[str]] = {}
    retyped: dict[int, list[tuple[str, str, str]]] = {}
    for number, column, found, type_wanted in _other_columns(conn, wanted):
        if found is None and column in tables[number].added:
            new.setdefault(number, []).append(column)
        elif found is None or type_wanted is None:
            lacking.setdefault(number, []).append(f"has no column {column}")
        else:
            retyped.setdefault(number, []).append((column, found, type_wanted))
    made = _made_before(conn, {number: tables[number] for number in new.keys() | retyped.keys()})
    faults: list[str] = []
    for number, types in retyped.items():
        one = tables[number]
        told = [f"has {column} as {found} instead of {type_wanted}" for column, found, type_wanted in types]
        if number in made and number not in lacking:
            faults.append(
                f"table {one.schema}.{one.name}, which a migration has made, {some_of(told, _NAMED)}: change it by"
                f" {_conversion(conn, one, types)} and migrate again, which makes the views anew"
                "; to keep the type that it has, say so in b44.toml (type, of the field), and run b44 init ."
            )
        else:
            lacking.setdefault(number, []).extend(told)
    for number, columns in new.items():
        one = tables[number]
        if number not in made:
            lacking[number] = [f"has no column {some_of(columns, _NAMED)}", *lacking.get(number, [])]
        elif (required := [column for column in columns if one.added[column]]) and _has_rows(conn, one):
            faults.append(
                f"table {one.schema}.{one.name} has rows, and no column {', '.join(required)}, which is not null without a"
                " default: give it one in the table's file, or add the column and its values yourself"
            )
    for number, complaints in lacking.items():
        one = tables[number]
        faults.append(
            f"table {one.schema}.{one.name} is another than the one to be made ({', '.join(complaints)}):"
            " rename it, move it to another schema, or name another database in the URL"
        )
    return faults


def _other_columns(
    conn: Connection, wanted: Sequence[tuple[int, str, str, str, str]]
) -> list[tuple[int, str, str | None, str | None]]:
    """Columns that are not there, or of another type: number, name, type as it is and as it is to be."""
    try:
        return conn.execute(_COLUMNS, [[item[place] for item in wanted] for place in range(5)]).fetchall()
    except errors.SyntaxError:
        # A type that is none: of that the server complains with the line, when the file runs.
        return []


def _made_before(conn: Connection, tables: Mapping[int, _Relation]) -> frozenset[int]:
    """Those of some tables that an earlier version of their files has made: records were planned for them, or they say so."""
    if not tables:
        return frozenset()
    known = scalar(
        conn,
        "select exists (select from pg_attribute where attrelid = to_regclass('migration.plans') and attname = 'entity')",
    )
    planned = {name for (name,) in conn.execute("select entity from migration.plans")} if known else set[str]()
    described = conn.execute(
        "select number from unnest(%s::text[], %s::text[], %s::integer[]) w (name, said, number)"
        " where obj_description(to_regclass('public.' || quote_ident(name)), 'pg_class') = said",
        ([one.name for one in tables.values()], [one.comment for one in tables.values()], [*tables]),
    ).fetchall()
    return frozenset(
        [*(number for (number,) in described), *(number for number, one in tables.items() if one.name in planned)]
    )


_ORIGINAL_IDS: Final = "base44_ids"
_CONVERSIONS: Final = {("text", "uuid"): "base44_uuid({})"}
_FROM_IDS: Final = {
    ("uuid", "text"): f"b44.original_id({{}}, {_ORIGINAL_IDS})",
    ("uuid[]", "text[]"): f"b44.original_ids({{}}, {_ORIGINAL_IDS})",
}
"""How the ids of Base44 become text again, where their table has what cannot be read back from the UUIDs."""
_FOREIGN_KEYS_OF: Final = """
select quote_ident(c.conname)
  from pg_constraint c
  join pg_attribute a on a.attrelid = c.conrelid and a.attnum = any (c.conkey)
 where c.conrelid = to_regclass(%s) and c.contype = 'f' and a.attname = any (%s)
 order by c.conname
"""


def _conversion(conn: Connection, table: _Relation, columns: list[tuple[str, str, str]]) -> str:
    """The statements by which columns, each with its type and the one that it is to have, get that type; times are in UTC."""
    name = sql.Identifier(table.schema, table.name).as_string(conn)
    views = views_on(conn, name, [column for column, _, _ in columns])
    # A text cannot point at an id.
    keys = [column for column, found, wanted in columns if (found, wanted) == ("uuid", "text")]
    changes = [f"drop constraint {shown}" for (shown,) in conn.execute(_FOREIGN_KEYS_OF, (name, keys))]
    has_ids = any(column == _ORIGINAL_IDS for column, _ in table.columns)
    for column, found, wanted in columns:
        quoted = sql.Identifier(column).as_string(conn)
        by = _CONVERSIONS.get((found, wanted), "{}::" + wanted)
        if has_ids:
            by = _FROM_IDS.get((found, wanted), by)
        by = by.replace("{}", quoted)
        changes.append(f"alter {quoted} drop default, alter {quoted} type {wanted} using {by}")
    return " ".join(
        [
            "set timezone = 'UTC';",
            *(f"drop {view.kind} {view.shown};" for view in views),
            f"alter table {name} {', '.join(changes)};",
        ]
    )


def _has_rows(conn: Connection, table: _Relation) -> bool:
    return scalar(conn, sql.SQL("select exists (select from {})").format(sql.Identifier(table.schema, table.name)))


_SUSPECTED = """
    select w.number,
           (select string_agg(p.oid::regprocedure || ' of ' || quote_ident(pg_get_userbyid(p.proowner)), ', '
                              order by p.oid::regprocedure::text)
              from pg_proc p
             where p.pronamespace = to_regnamespace(quote_ident(w.schema)) and p.proname = w.name
               -- One with the body of the file is ours. Of a body that was parsed there is no text to compare.
               and not (pg_has_role(p.proowner, 'USAGE')
                        and (w.known or p.prosrc <> '' and strpos(w.text, p.prosrc) > 0))) as found
      from unnest(%s::text[], %s::text[], %s::text[], %s::boolean[]) with ordinality w(schema, name, text, known, number)
     order by w.number
"""


def _routines_in_the_way(conn: Connection, specs: list[Spec], *, current: bool) -> list[str]:
    """Functions that those of `sql/` cannot replace: of another role, or with another result, kind or names of arguments.

    The server itself is asked, by replacing them in a transaction that is rolled back; only those that differ from the file.

    Args:
        conn: With no transaction open.
        specs: Files that are to be made.
        current: Whether the program's own objects are as its files say.
    """
    statements = [
        (
            (match["schema"] if match else None) or "public",
            (match["name"] if match else None) or "",
            statement.text,
            current and spec.kind is Kind.RUNTIME,
        )
        for spec in specs
        if spec.kind in (Kind.RUNTIME, Kind.FUNCTION, Kind.TABLE)
        for statement in spec.statements
        # A function may need what its file, or one before it, makes or drops.
        if (match := _ROUTINE.match(statement.text)) or spec.kind in (Kind.RUNTIME, Kind.FUNCTION)
    ]
    schemas, names, texts, known = zip(*statements, strict=True) if statements else ((), (), (), ())
    found = dict(conn.execute(_SUSPECTED, (list(schemas), list(names), list(texts), list(known))).fetchall())
    suspected = {number - 1: others for number, others in found.items() if others is not None}
    faults: list[str] = []
    if not suspected:
        return faults
    with conn.transaction(force_rollback=True):
        hold_schema_lock(conn)
        conn.execute("set local client_min_messages = warning")
        conn.execute("set local check_function_bodies = off")
        for place, (schema, name, text, as_it_is) in enumerate(statements):
            # What is there as its file says needs not be made for others that use it.
            if as_it_is and place not in suspected:
                continue
            try:
                with conn.transaction():
                    conn.execute(text.encode())
            except (
                errors.InsufficientPrivilege,
                errors.InvalidFunctionDefinition,
                errors.WrongObjectType,
                errors.DuplicateFunction,
            ) as error:
                if place in suspected:
                    faults.append(
                        f"function {schema}.{name} cannot be made beside {suspected[place]} ({reason_of(error)}):"
                        " rename or drop that"
                    )
            except psycopg.OperationalError:
                raise
            except psycopg.Error:
                # It lacks what other files make first, such as a table's type: no obstacle.
                continue
    return faults
