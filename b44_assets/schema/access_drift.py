"""Whether roles, privileges, owners and partitions are as the files of `sql/` say.

What belongs here: what the files come to in a scratch schema, against what is in the database. What does not: definitions of
objects (`drift`), or mending.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from psycopg import sql

from b44_assets.catalog import Kind, Spec, role_definition
from b44_assets.schema.privileges import PUBLIC, Privilege, owners, privileges, roles_found
from b44_assets.schema.roles import run_grant
from b44_assets.session import Connection, Session, scalar

_IN_PUBLIC = re.compile(r"(?P<before>\bschema\s+)public\b|\bpublic\.(?=\w)", re.IGNORECASE)
_PROBES = ("b44_probe_before", "b44_probe_after")
"""Objects that stand for any: made before the files of roles are run, and after."""
_ATTRIBUTES = ("superuser", "createdb", "createrole", "login", "replication", "bypassrls", "inherit")
_ATTRIBUTE = re.compile(rf"\b(?P<no>no)?(?P<name>{'|'.join(_ATTRIBUTES)})\b", re.IGNORECASE)
_ALTERED = re.compile(
    r"alter\s+role\s+(?P<name>\w+)\s+(?!in\s|set\s|reset\s|rename\s)(?P<rest>.*)", re.IGNORECASE | re.DOTALL
)
_PARTITIONS = """
    select c.oid::regclass::text, t.oid::regclass::text, pg_get_userbyid(c.relowner)::text, pg_get_userbyid(t.relowner)::text,
           t.relrowsecurity and not c.relrowsecurity
      from pg_class t
     cross join lateral pg_partition_tree(t.oid) p
      join pg_class c on c.oid = p.relid
     where t.relnamespace = 'public'::regnamespace and t.relkind = 'p' and not t.relispartition and t.relname = any(%s)
       and (c.relowner <> t.relowner or (t.relrowsecurity and not c.relrowsecurity))
     order by c.relname
"""


@dataclass(frozen=True)
class DeclaredAccess:
    """What the files say of roles and privileges.

    Attributes:
        wanted: Privileges on the folder's objects.
        to_any: Privileges on whatever is in the schema, or comes into it.
        before: Privileges as they are.
        after: What the files make of those on objects that are not the folder's.
        changed: Settings and memberships of roles that the files would change: role, what, is now, should be.
        owners: Owners of the folder's objects by kind and name.
        user: Who owns what the files give to nobody else.
    """

    wanted: frozenset[Privilege]
    to_any: frozenset[Privilege]
    before: frozenset[Privilege]
    after: frozenset[Privilege]
    changed: tuple[tuple[str, str, str | None, str | None], ...]
    owners: Mapping[tuple[str, str], str]
    user: str


@dataclass(frozen=True)
class AccessDrift:
    """What differs, in lines with what mends it.

    Attributes:
        differences: What the files say and the database lacks.
        excess: What a role of the files, or everybody, may do beyond it.
    """

    differences: tuple[str, ...]
    excess: tuple[str, ...]


def open_scratch(conn: Connection, schema: str) -> None:
    """Prepares a scratch schema: what the files take from everybody is seen only where everybody has it."""
    name = sql.Identifier(schema)
    conn.execute(sql.SQL("grant all on schema {} to public").format(name))
    conn.execute(sql.SQL("alter default privileges in schema {} grant execute on routines to public").format(name))


def declared_access(conn: Connection, schema: str, specs: Sequence[Spec]) -> DeclaredAccess:
    """Runs the files of roles on a scratch schema that stands for public.

    Args:
        conn: In a transaction that is rolled back.
        schema: The scratch schema, with the folder's objects in it.
        specs: Files of roles, in order.
    """
    name = sql.Identifier(schema)
    conn.execute(sql.SQL("alter default privileges in schema {} revoke execute on routines from public").format(name))
    roles = [spec.name for spec in specs]
    before, roles_before = privileges(conn, schema, within=False), roles_found(conn, roles)
    _make_probe(conn, schema, _PROBES[0])
    place = name.as_string(conn)
    for spec in specs:
        for statement in role_definition(spec).statements:
            text = _IN_PUBLIC.sub(
                lambda match: f"{match['before']}{place}" if match["before"] else f"{place}.", statement.text
            )
            # What this role may not do to another is told when the file is applied.
            run_grant(conn, spec, statement, text)
    _make_probe(conn, schema, _PROBES[1])
    wanted, roles_after = privileges(conn, schema, within=True), roles_found(conn, roles)
    of_probes = {one for one in wanted if one.name.startswith(_PROBES)}
    return DeclaredAccess(
        frozenset(wanted - of_probes),
        frozenset(Privilege(one.kind, "", "", one.grantee, one.right, one.grantable) for one in of_probes),
        before,
        privileges(conn, schema, within=False),
        tuple(
            (role, what, roles_before[role].get(what), value)
            for role, facts in roles_after.items()
            for what, value in facts.items()
            if what not in _ATTRIBUTES and roles_before[role].get(what) != value
        ),
        {key: owner for key, owner in owners(conn, schema).items() if not key[1].startswith(_PROBES)},
        scalar(conn, "select current_user::text"),
    )


def _make_probe(conn: Connection, schema: str, name: str) -> None:
    of = sql.Identifier(schema, name)
    conn.execute(sql.SQL("create table {} ()").format(of))
    conn.execute(sql.SQL("create sequence {}").format(sql.Identifier(schema, f"{name}_seq")))
    conn.execute(sql.SQL("create function {}() returns integer language sql return 1").format(of))


def access_drift(conn: Connection, session: Session, declared: DeclaredAccess, specs: Sequence[Spec]) -> AccessDrift:
    """Compares roles, privileges and owners with what the files say.

    Args:
        conn: To the database.
        session: The run.
        declared: What they say.
        specs: The files of roles that it is from.
    """
    found_owners = owners(conn, "public")
    tables = [spec.name for spec in session.catalog.of(Kind.TABLE)]
    grants = _Grants(declared, specs, {name for _, name in found_owners})
    return AccessDrift(
        (
            *_roles(conn, specs, declared),
            *grants.missing(),
            *_owners(declared, found_owners),
            *_of_partitions(conn, tables),
        ),
        tuple(grants.excess()),
    )


class _Grants:
    """Privileges as they are against what the files say."""

    def __init__(self, declared: DeclaredAccess, specs: Sequence[Spec], there: set[str]) -> None:
        self._declared = declared
        self._roles = {spec.name for spec in specs}
        self._own = {name for _, name in declared.owners}
        self._there = there
        self._words = {word for spec in specs for one in spec.statements for word in re.findall(r"\w+", one.text)}

    def missing(self) -> Iterator[str]:
        """What is to be granted, and what is to be taken from everybody."""
        declared = self._declared
        grant, revoke = declared.after - declared.before, set(declared.before - declared.after)
        for one in declared.wanted:
            if one.kind == "SCHEMA" and one.grantee == PUBLIC:
                continue
            if one.kind == "ROUTINE" and one.grantee == PUBLIC:
                continue
            if (one.name in self._there or one.name not in self._own) and not _covers(declared.before, one):
                grant |= {one}
        for one in declared.before:
            takeable = (one.kind == "ROUTINE" and one.name in self._own) or (one.kind, one.name) == ("SCHEMA", PUBLIC)
            if one.grantee == PUBLIC and takeable and not _covers(declared.wanted, one):
                revoke.add(one)
        yield from (f"{one.grantee} lacks {_shown(one)}: {one.grant()}" for one in sorted(grant))
        yield from (f"{_who(one)} has {_shown(one)}, which sql/ takes away: {one.revoke()}" for one in sorted(revoke))

    def excess(self) -> Iterator[str]:
        """What roles of the files, and everybody, may do with the folder's tables beyond what is said."""
        declared = self._declared
        for one in sorted(declared.before & declared.after):
            own = one.name in self._own or (one.kind, one.name) == ("SCHEMA", PUBLIC)
            if one.grantee in self._roles:
                said = self._given(one) or (not own and not one.of_objects_to_come and self._named(one))
            else:
                tables = one.kind in ("TABLE", "SEQUENCE")
                said = one.grantee != PUBLIC or not own or not tables or self._given(one)
            if not said:
                option_only = one.grantable and self._given(replace(one, grantable=False))
                option = " with grant option" if option_only else ""
                yield (
                    f"{_who(one)} has {_shown(one)}{option}, which sql/ does not give:"
                    f" {one.revoke(option_only=option_only)}"
                )

    def _given(self, one: Privilege) -> bool:
        """Whether the files give it, on this object or on any."""
        to_any = replace(one, name="", column="")
        return _covers(self._declared.wanted, one) or _covers(self._declared.to_any, to_any)

    def _named(self, one: Privilege) -> bool:
        """Whether a file of a role speaks of an object that is none of the folder's."""
        words = {"database"} if one.kind == "DATABASE" else set(re.findall(r"\w+", one.name.partition("(")[0]))
        return bool(words & self._words)


def _covers(held: frozenset[Privilege], one: Privilege) -> bool:
    return one in held or replace(one, grantable=True) in held


def _who(one: Privilege) -> str:
    return "everybody" if one.grantee == PUBLIC else one.grantee


def _shown(one: Privilege) -> str:
    if one.of_objects_to_come:
        return f"default privilege {one.right} on {one.kind.lower()}"
    return f"{one.right} on {'column ' + one.column + ' of ' if one.column else ''}{one.kind.lower()} {one.name}"


def _roles(conn: Connection, specs: Sequence[Spec], declared: DeclaredAccess) -> Iterator[str]:
    found = roles_found(conn, [spec.name for spec in specs])
    for spec in specs:
        for name, wanted in attributes(spec).items():
            if found[spec.name].get(name) != str(wanted).lower():
                word = name.upper() if wanted else f"NO{name.upper()}"
                yield f"role {spec.name} is not {word}, as sql/ says: ALTER ROLE {spec.name} {word}"
    for role, what, now, wanted in declared.changed:
        yield f"role {role}: {what} is {now or 'nothing'}, sql/ says {wanted or 'nothing'}"


def attributes(spec: Spec) -> dict[str, bool]:
    """Attributes of a role as its file says: PostgreSQL's own where it says nothing."""
    definition = role_definition(spec)
    found = dict.fromkeys(_ATTRIBUTES, False) | {"inherit": True}
    texts = [definition.creation.text]
    for statement in definition.statements:
        if (match := _ALTERED.match(statement.text)) and match["name"] == spec.name:
            texts.append(match["rest"])
    for text in texts:
        found |= {match["name"].lower(): match["no"] is None for match in _ATTRIBUTE.finditer(text)}
    return found


def _owners(declared: DeclaredAccess, found: Mapping[tuple[str, str], str]) -> Iterator[str]:
    given = {key: owner for key, owner in declared.owners.items() if owner != declared.user}
    rest = Counter(found[key] for key in declared.owners if key in found and key not in given)
    usual = max(rest, key=lambda owner: (rest[owner], owner == declared.user, owner), default=declared.user)
    for key in sorted(declared.owners.keys() & found.keys()):
        wanted = given.get(key, usual)
        if found[key] != wanted:
            kind, name = key
            says = "sql/ says" if key in given else "the others to"
            yield (
                f"{kind.lower()} {name} belongs to {found[key]}, {says} {wanted}:"
                f" ALTER {kind} {name} OWNER TO {_quoted(wanted)}"
            )


def _of_partitions(conn: Connection, tables: Sequence[str]) -> Iterator[str]:
    for partition, table, owner, of_table, is_open in conn.execute(_PARTITIONS, (list(tables),)):
        if owner != of_table:
            yield (
                f"partition {partition} belongs to {owner}, {table} to {of_table}:"
                f" ALTER TABLE {partition} OWNER TO {_quoted(of_table)}"
            )
        if is_open:
            yield (
                f"partition {partition} is without the row security of {table}:"
                f" ALTER TABLE {partition} ENABLE ROW LEVEL SECURITY"
            )


def _quoted(name: str) -> str:
    return sql.Identifier(name).as_string()
