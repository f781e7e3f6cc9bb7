"""Who owns what in a database, and who may do what with it: what a dump gives back only where the roles are there.

Written out in full, defaults included, so that a GRANT and a REVOKE show alike on every version. Objects of extensions and of
the system belong to whoever made them; of these only what was changed afterwards is noted, and not what their owner may do.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from psycopg import Connection, sql
from psycopg.rows import TupleRow

from b44_assets.backup.model import DatabaseAccess
from b44_assets.wording import plural

LARGE_OBJECTS = "large objects"
_PUBLIC = "PUBLIC"
_WITH_MAINTAIN = 170000
_WITH_SET = 160000

_OBJECTS = sql.SQL("""\
with
members as (
  select classid, objid from pg_depend where refclassid = 'pg_extension'::regclass and deptype = 'e'
),
found (class, oid, part, identity, owner, privileges, kind, ours) as (
  select 'pg_namespace'::regclass, oid, 0, 'schema ' || quote_ident(nspname), nspowner, nspacl, 'n',
    nspname !~ '^pg_' and nspname <> 'information_schema'
  from pg_namespace
  where nspname !~ '^pg_(toast|temp)' and nspname <> all(%(left_out)s)
  union all
  select 'pg_class'::regclass, c.oid, 0,
    format('%%s %%I.%%I', case c.relkind when 'v' then 'view' when 'm' then 'materialized view' when 'f' then 'foreign table'
      when 'S' then 'sequence' else 'table' end, n.nspname, c.relname),
    c.relowner, c.relacl, case c.relkind when 'S' then 's' else 'r' end,
    n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
  where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and c.relpersistence <> 't' and n.nspname !~ '^pg_(toast|temp)'
    and n.nspname <> all(%(left_out)s)
  union all
  select 'pg_class'::regclass, c.oid, a.attnum, format('column %%I of %%I.%%I', a.attname, n.nspname, c.relname), c.relowner,
    a.attacl, 'c', n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  from pg_attribute a join pg_class c on c.oid = a.attrelid join pg_namespace n on n.oid = c.relnamespace
  where a.attacl is not null and not a.attisdropped and c.relpersistence <> 't' and n.nspname <> all(%(left_out)s)
  union all
  select 'pg_proc'::regclass, p.oid, 0,
    format('function %%I.%%I(%%s)', n.nspname, p.proname, pg_get_function_identity_arguments(p.oid)), p.proowner, p.proacl, 'f',
    n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  from pg_proc p join pg_namespace n on n.oid = p.pronamespace
  where not exists (
    select from pg_depend d where d.classid = 'pg_proc'::regclass and d.objid = p.oid and d.deptype = 'i')
    and n.nspname <> all(%(left_out)s)
  union all
  select 'pg_type'::regclass, t.oid, 0, format('type %%I.%%I', n.nspname, t.typname), t.typowner, t.typacl, 'T',
    n.nspname !~ '^pg_' and n.nspname <> 'information_schema'
  from pg_type t join pg_namespace n on n.oid = t.typnamespace left join pg_class c on c.oid = t.typrelid
  where t.typtype in ('b', 'c', 'd', 'e', 'r') and t.typcategory <> 'A' and (t.typrelid = 0 or c.relkind = 'c')
    and n.nspname <> all(%(left_out)s)
  union all
  select 'pg_language'::regclass, oid, 0, 'language ' || quote_ident(lanname), lanowner, lanacl, 'l', true
  from pg_language where lanispl
  union all
  select 'pg_foreign_data_wrapper'::regclass, oid, 0, 'foreign data wrapper ' || quote_ident(fdwname), fdwowner, fdwacl, 'F', true
  from pg_foreign_data_wrapper
  union all
  select 'pg_foreign_server'::regclass, oid, 0, 'server ' || quote_ident(srvname), srvowner, srvacl, 'S', true
  from pg_foreign_server
  union all
  select 'pg_statistic_ext'::regclass, x.oid, 0, format('statistics %%I.%%I', n.nspname, x.stxname), x.stxowner, null, '', true
  from pg_statistic_ext x join pg_namespace n on n.oid = x.stxnamespace
  where n.nspname <> all(%(left_out)s)
  union all
  select 'pg_event_trigger'::regclass, oid, 0, 'event trigger ' || quote_ident(evtname), evtowner, null, '', true
  from pg_event_trigger
  union all
  select 'pg_publication'::regclass, oid, 0, 'publication ' || quote_ident(pubname), pubowner, null, '', true
  from pg_publication
  union all
  select 'pg_default_acl'::regclass, d.oid, 0,
    format('default privileges of %%I on %%s%%s', pg_get_userbyid(d.defaclrole),
      case d.defaclobjtype when 'r' then 'tables' when 'S' then 'sequences' when 'f' then 'functions' when 'T' then 'types'
        when 'n' then 'schemas' else 'large objects' end,
      case when n.oid is not null then format(' in schema %%I', n.nspname) end),
    d.defaclrole, d.defaclacl, '', true
  from pg_default_acl d left join pg_namespace n on n.oid = d.defaclnamespace
  where n.nspname is null or n.nspname <> all(%(left_out)s)
),
noted as (
  select f.*, f.ours and m.objid is null as whole
  from found f
  left join members m on m.classid = f.class and m.objid = f.oid
  left join pg_init_privs i on i.classoid = f.class and i.objoid = f.oid and i.objsubid = f.part
  where (f.ours and m.objid is null) or (f.privileges is not null and f.privileges is distinct from i.initprivs)
),
granted as (
  select n.class, n.oid, n.part, g.grantee, string_agg(
      g.privilege_type || case when g.is_grantable then '*' else '' end, ',' order by g.privilege_type collate "C") as what
  from noted n
  cross join aclexplode(coalesce(n.privileges, case when n.kind <> '' then acldefault(n.kind::"char", n.owner) end)) g
  where (n.whole or g.grantee <> n.owner) and (%(maintain)s or g.privilege_type <> 'MAINTAIN')
  group by n.class, n.oid, n.part, g.grantee
),
together as (
  select class, oid, part,
    array_agg(case when grantee = 0 then %(public)s else pg_get_userbyid(grantee)::text end || ': ' || what) as said,
    array_agg(pg_get_userbyid(grantee)::text) filter (where grantee <> 0) as roles
  from granted group by class, oid, part
)
select n.identity, case when n.whole then pg_get_userbyid(n.owner)::text end, coalesce(t.said, '{}'), coalesce(t.roles, '{}')
from noted n left join together t using (class, oid, part)
""")

_LARGE_OBJECTS = sql.SQL("""\
select pg_get_userbyid(o.lomowner)::text, o.number,
  array_agg(case when g.grantee = 0 then %(public)s else pg_get_userbyid(g.grantee)::text end || ': ' || g.privilege_type
    || case when g.is_grantable then '*' else '' end),
  array_agg(pg_get_userbyid(g.grantee)::text) filter (where g.grantee <> 0)
from (select lomowner, lomacl, count(*) as number from pg_largeobject_metadata group by lomowner, lomacl) o
cross join aclexplode(coalesce(o.lomacl, acldefault('L', o.lomowner))) g
group by o.lomowner, o.lomacl, o.number
""")

_POLICIES = """\
select distinct r.rolname
from pg_policy p cross join unnest(p.polroles) k (oid) join pg_roles r on r.oid = k.oid
join pg_class c on c.oid = p.polrelid join pg_namespace n on n.oid = c.relnamespace
where n.nspname <> all(%(left_out)s)
"""

_SELF = """\
select current_user::text, (select rolsuper from pg_roles where rolname = current_user),
  (select pg_has_role(datdba, 'USAGE') from pg_database where datname = current_database())
"""

_BECOMING = {
    False: "select rolname from pg_roles where pg_has_role(oid, 'MEMBER')",
    True: "select rolname from pg_roles where pg_has_role(oid, 'SET')",
}

_DATABASE = """\
select pg_get_userbyid(d.datdba), array(
  select case when g.grantee = 0 then '' else pg_get_userbyid(g.grantee)::text end || '=' || g.privilege_type
    || case when g.is_grantable then '*' else '' end
  from aclexplode(coalesce(d.datacl, acldefault('d', d.datdba))) g where g.grantee <> d.datdba)
from pg_database d where d.datname = current_database()
"""


def access_of(
    conn: Connection[TupleRow], version: int | None = None, *, left_out: Sequence[str] = ()
) -> DatabaseAccess:
    """Reads who owns what, and who may do what.

    Args:
        conn: To the database.
        version: Of the source, as in `server_version_num`, if this is what was restored: what it could not know is left out.
        left_out: Schemas of which nothing is read.
    """
    objects: dict[str, str] = {}
    owners: set[str] = set()
    grantees: set[str] = set()
    parameters = {
        "maintain": (version or conn.info.server_version) >= _WITH_MAINTAIN,
        "public": _PUBLIC,
        "left_out": list(left_out),
    }
    for identity, owner, granted, roles in conn.execute(_OBJECTS, parameters):
        objects[identity] = _line(owner, granted)
        owners |= {owner} - {None}
        grantees |= set(roles)
    large: Counter[str] = Counter()
    for owner, number, granted, roles in conn.execute(_LARGE_OBJECTS, parameters):
        large[_line(owner, granted)] += number
        owners.add(owner)
        grantees |= set(roles or ())
    if large:
        objects[LARGE_OBJECTS] = " | ".join(f"{number} of: {line}" for line, number in sorted(large.items()))
    named = {name for (name,) in conn.execute(_POLICIES, parameters)}
    row = conn.execute(_DATABASE).fetchone()
    assert row is not None
    database_owner, database = row
    grantees |= {entry.rpartition("=")[0] for entry in database} - {""}
    everybody = sorted(owners | grantees | named)
    superusers = conn.execute("select rolname from pg_roles where rolsuper and rolname = any(%s)", (everybody,))
    return DatabaseAccess(
        objects,
        tuple(sorted(owners)),
        tuple(sorted(grantees - owners)),
        tuple(sorted(named)),
        tuple(sorted(name for (name,) in superusers)),
        database_owner,
        tuple(sorted(database)),
    )


def _line(owner: str | None, granted: Sequence[str]) -> str:
    return "; ".join([*([f"owner {owner}"] if owner is not None else []), *sorted(granted)])


def _owned_by(role: str, line: str) -> bool:
    """Tell whether a line of `DatabaseAccess.objects` is of what belongs to a role."""
    return re.search(rf"(?:^|: )owner {re.escape(role)}(?:; |$)", line) is not None


def access_differences(expected: DatabaseAccess, found: DatabaseAccess, skipped: set[str]) -> list[str]:
    """Compares owners and privileges of what was restored with those of its source.

    Args:
        expected: Of the source.
        found: Of what was restored.
        skipped: Identities of objects that only one of the two has.

    Returns:
        Each difference in one line.
    """
    lines: list[str] = []
    for identity in sorted(expected.objects.keys() | found.objects.keys()):
        wanted, got = expected.objects.get(identity), found.objects.get(identity)
        if wanted != got and identity not in skipped:
            lines.append(
                f"{identity} has [{got or 'nothing'}] as owner and privileges rather than [{wanted or 'nothing'}]"
            )
    if expected.database != found.database:
        lines.append(f"the database has the privileges {list(found.database)} rather than {list(expected.database)}")
    return lines


def refusal(
    conn: Connection[TupleRow],
    access: DatabaseAccess,
    *,
    privileges: bool,
    left: Callable[[str], bool] = lambda _: False,
) -> str | None:
    """Returns why a dump cannot be restored with its owners and privileges by this session, in a line; None if it can be.

    Args:
        conn: To the database that it is to go into.
        access: Of the source.
        privileges: Whether owners and privileges are wanted; else only what policies name is needed.
        left: Whether an object, by its identity, is not restored.
    """
    there = {name for (name,) in conn.execute("select rolname from pg_roles")}
    missing = sorted((set(access.roles) if privileges else set(access.named)) - there)
    if missing:
        roles = plural(len(missing), "the role")
        names = ", ".join(sql.Identifier(role).as_string(conn) for role in missing)
        if set(missing) <= set(access.named):
            return f"{roles} {names}, which policies name, {plural(len(missing), 'is', 'are')} not on the server: create role …"
        return (
            f"{roles} {names}, which own or may use what is in it, {plural(len(missing), 'is', 'are')} not on the server:"
            " create role …, or restore with --no-privileges"
        )
    row = conn.execute(_SELF).fetchone()
    assert row is not None
    user, superuser, of_database = row
    if not privileges or superuser:
        return None
    may = {name for (name,) in conn.execute(_BECOMING[conn.info.server_version >= _WITH_SET].encode())}
    made = [line for identity, line in access.objects.items() if not left(identity)]
    others = [
        role
        for role in access.owners
        if role not in may and not role.startswith("pg_") and any(_owned_by(role, line) for line in made)
    ]
    if others:
        return (
            f"{user} may not give anything to {', '.join(others)}: restore as a superuser or as a member of"
            f" {plural(len(others), 'it', 'each of them')}, or restore with --no-privileges"
        )
    if database_grants(access, access_of(conn), "") and not of_database:
        return (
            f"{user} may not set the privileges of the database as they were: restore as its owner or as a superuser, or restore"
            " with --no-privileges"
        )
    return None


def database_grants(wanted: DatabaseAccess, there: DatabaseAccess, database: str) -> list[sql.Composed]:
    """Returns the statements that give a database the privileges of another one: a dump of it has none.

    Args:
        wanted: Of the source.
        there: Of the database now.
        database: Its name.
    """
    statements: list[sql.Composed] = []
    own = f"{there.database_owner}="
    given = {entry for entry in wanted.database if not entry.startswith(own)}
    for verb, entries in (("revoke", set(there.database) - given), ("grant", given - set(there.database))):
        for entry in sorted(entries):
            role, _, privilege = entry.rpartition("=")
            statements.append(
                sql.SQL("{verb} {privilege} on database {database} {word} {role}{option}").format(
                    verb=sql.SQL("revoke") if verb == "revoke" else sql.SQL("grant"),
                    privilege=_DATABASE_PRIVILEGES[privilege.rstrip("*")],
                    database=sql.Identifier(database),
                    word=sql.SQL("from") if verb == "revoke" else sql.SQL("to"),
                    role=sql.Identifier(role) if role else sql.SQL("public"),
                    option=sql.SQL(" with grant option" if verb == "grant" and privilege.endswith("*") else ""),
                )
            )
    return statements


_DATABASE_PRIVILEGES: Mapping[str, sql.SQL] = {
    "CREATE": sql.SQL("create"),
    "CONNECT": sql.SQL("connect"),
    "TEMPORARY": sql.SQL("temporary"),
}
