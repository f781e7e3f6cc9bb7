"""Who may do what: privileges as they are in a database, to be compared with what the files of roles say."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from psycopg import sql

from b44_assets.session import Connection

PUBLIC = "public"
"""The grantee that is everybody."""


@dataclass(frozen=True, order=True)
class Privilege:
    """What a role may do with an object.

    Attributes:
        kind: As in GRANT (`TABLE`, `SEQUENCE`, `ROUTINE`, `SCHEMA`, `DATABASE`); of default privileges `TABLES`, `SEQUENCES`, ….
        name: The object, as in GRANT; without schema where that is public. Of default privileges whose and where:
            `FOR ROLE x IN SCHEMA public`.
        column: The column; empty for all of the object.
        grantee: The role, or `PUBLIC`.
        right: Such as `SELECT`.
        grantable: Whether it may be passed on.
    """

    kind: str
    name: str
    column: str
    grantee: str
    right: str
    grantable: bool = False

    @property
    def of_objects_to_come(self) -> bool:
        """Whether it is a default privilege."""
        return self.name.startswith("FOR ROLE ")

    def grant(self) -> str:
        """The statement that gives it."""
        return self._statement("GRANT", "TO", " WITH GRANT OPTION" if self.grantable else "")

    def revoke(self, *, option_only: bool = False) -> str:
        """The statement that takes it, or only the right to pass it on."""
        return self._statement("REVOKE GRANT OPTION FOR" if option_only else "REVOKE", "FROM", "")

    def _statement(self, verb: str, word: str, option: str) -> str:
        right = f"{self.right} ({self.column})" if self.column else self.right
        grantee = "PUBLIC" if self.grantee == PUBLIC else self.grantee
        if self.of_objects_to_come:
            return f"ALTER DEFAULT PRIVILEGES {self.name} {verb} {right} ON {self.kind} {word} {grantee}{option}"
        return f"{verb} {right} ON {self.kind} {self.name} {word} {grantee}{option}"


_PRIVILEGES = sql.SQL("""
    with
    schemas as (
      select oid, nspname, nspowner, nspacl,
             case when nspname in ('public', %(scratch)s) then '' else quote_ident(nspname) || '.' end as prefix
        from pg_namespace
       where case when %(only_scratch)s then nspname = %(scratch)s
               else nspname !~ '^pg_' and nspname not in ('information_schema', %(scratch)s) end
    ),
    objects (kind, name, part, owner, acl) as (
      select case c.relkind when 'S' then 'SEQUENCE' else 'TABLE' end, s.prefix || quote_ident(c.relname), '', c.relowner, c.relacl
        from pg_class c join schemas s on s.oid = c.relnamespace
       where c.relkind in ('r', 'p', 'v', 'm', 'f', 'S')
      union all
      select 'TABLE', s.prefix || quote_ident(c.relname), quote_ident(a.attname), c.relowner, a.attacl
        from pg_attribute a join pg_class c on c.oid = a.attrelid join schemas s on s.oid = c.relnamespace
       where a.attacl is not null and not a.attisdropped
      union all
      select 'ROUTINE', s.prefix || quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')', '',
             p.proowner, coalesce(p.proacl, acldefault('f', p.proowner))
        from pg_proc p join schemas s on s.oid = p.pronamespace
      union all
      select 'SCHEMA', case s.nspname when %(scratch)s then 'public' else quote_ident(s.nspname) end, '', s.nspowner, s.nspacl
        from schemas s
      union all
      select 'DATABASE', quote_ident(datname), '', datdba, coalesce(datacl, acldefault('d', datdba))
        from pg_database where datname = current_database() and not %(only_scratch)s
      union all
      select case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'ROUTINES' when 'T' then 'TYPES'
               else 'SCHEMAS' end,
             'FOR ROLE ' || quote_ident(pg_get_userbyid(d.defaclrole)) || ' IN SCHEMA '
               || case s.nspname when %(scratch)s then 'public' else quote_ident(s.nspname) end,
             '', d.defaclrole, d.defaclacl
        from pg_default_acl d join schemas s on s.oid = d.defaclnamespace
      union all
      select case d.defaclobjtype when 'r' then 'TABLES' when 'S' then 'SEQUENCES' when 'f' then 'ROUTINES' when 'T' then 'TYPES'
               else 'SCHEMAS' end,
             'FOR ROLE ' || quote_ident(r.rolname), '', r.oid,
             -- Without an entry of its own, what the server gives: EXECUTE and USAGE to everybody.
             coalesce(f.defaclacl, acldefault(d.defaclobjtype, r.oid))
        from (select distinct defaclrole, k.defaclobjtype from pg_default_acl
               cross join (values ('r'::"char"), ('S'), ('f'), ('T'), ('n')) k (defaclobjtype)
               union select oid, k.defaclobjtype from pg_roles
               cross join (values ('r'::"char"), ('S'), ('f'), ('T'), ('n')) k (defaclobjtype) where rolname = current_user) d
        join pg_roles r on r.oid = d.defaclrole
        left join pg_default_acl f on f.defaclrole = d.defaclrole and f.defaclnamespace = 0 and f.defaclobjtype = d.defaclobjtype
       where not %(only_scratch)s
    )
    select distinct o.kind, o.name, o.part, case g.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(g.grantee)) end,
           g.privilege_type, g.is_grantable
      from objects o cross join aclexplode(o.acl) g
     where g.grantee <> o.owner
""")
_ROLES = """
    select r.rolname,
           jsonb_build_object(
             'login', r.rolcanlogin::text, 'superuser', r.rolsuper::text, 'createdb', r.rolcreatedb::text,
             'createrole', r.rolcreaterole::text, 'inherit', r.rolinherit::text, 'replication', r.rolreplication::text,
             'bypassrls', r.rolbypassrls::text,
             'connection limit', r.rolconnlimit::text, 'valid until', r.rolvaliduntil::text,
             'comment', shobj_description(r.oid, 'pg_authid'),
             'settings', (select string_agg(case s.setdatabase when 0 then '' else 'in this database ' end
                            || array_to_string(s.setconfig, ', '), '; ' order by s.setdatabase)
                            from pg_db_role_setting s
                            left join pg_database d on d.oid = s.setdatabase
                           where s.setrole = r.oid and (d.oid is null or d.datname = current_database())),
             'member of', (select string_agg(distinct quote_ident(g.rolname), ', ') from pg_auth_members m
                             join pg_roles g on g.oid = m.roleid where m.member = r.oid))
      from pg_roles r
     where r.rolname = any(%s)
"""
_OWNERS = """
    select case c.relkind when 'v' then 'VIEW' when 'm' then 'MATERIALIZED VIEW' when 'S' then 'SEQUENCE' when 'f' then 'FOREIGN TABLE'
             else 'TABLE' end,
           quote_ident(c.relname), pg_get_userbyid(c.relowner)::text
      from pg_class c
     where c.relnamespace = to_regnamespace(%(schema)s) and c.relkind in ('r', 'p', 'v', 'm', 'f', 'S') and not c.relispartition
       and not exists (select from pg_depend d where d.classid = 'pg_class'::regclass and d.objid = c.oid and c.relkind = 'S'
                          and d.deptype in ('a', 'i'))
     union all
    select 'ROUTINE', quote_ident(p.proname) || '(' || pg_get_function_identity_arguments(p.oid) || ')', pg_get_userbyid(p.proowner)
      from pg_proc p where p.pronamespace = to_regnamespace(%(schema)s)
     union all
    select 'TYPE', quote_ident(t.typname), pg_get_userbyid(t.typowner)
      from pg_type t left join pg_class c on c.oid = t.typrelid
     where t.typnamespace = to_regnamespace(%(schema)s) and (t.typtype in ('d', 'e', 'r') or c.relkind = 'c')
"""


def privileges(conn: Connection, scratch: str, *, within: bool) -> frozenset[Privilege]:
    """Every privilege of others than an object's owner.

    Args:
        conn: To the database.
        scratch: A schema whose objects stand for those of public.
        within: Whether of that schema's, as if they were of public; else of all others.
    """
    rows = conn.execute(_PRIVILEGES, {"scratch": scratch, "only_scratch": within})
    return frozenset(Privilege(*row) for row in rows)


def roles_found(conn: Connection, names: Iterable[str]) -> dict[str, dict[str, str | None]]:
    """Attributes, settings and memberships of roles, by name; those that are not there are left out."""
    return dict(conn.execute(_ROLES, (list(names),)).fetchall())


def owners(conn: Connection, schema: str) -> dict[tuple[str, str], str]:
    """Owners of a schema's objects, by kind and name as in ALTER."""
    return {(kind, name): owner for kind, name, owner in conn.execute(_OWNERS, {"schema": schema})}
