"""The group roles that every app's database has, and what they may do with the objects of a folder.

What belongs here: making them, and bringing their rights to what headers say. What does not: roles that files of the folder make;
see `roles`.
"""

from __future__ import annotations

from collections.abc import Iterable

from psycopg import errors
from psycopg.types.json import Jsonb

from b44_assets.catalog import STANDARD_ROLES, GroupRights, Kind, Spec
from b44_assets.schema.online_ddl import change
from b44_assets.session import Connection, Session, scalar, trusted

_INSTALLED = "select to_regprocedure('b44.standard_access(jsonb, jsonb, boolean, boolean)') is not null"
_GIVEN = """
    select exists (select from pg_shdepend d join b44.group_roles() g on g.role_oid = d.refobjid
                    where d.refclassid = 'pg_authid'::regclass
                      and d.dbid = (select oid from pg_database where datname = current_database()))
"""
_GIVEN_BY_DEFAULT = """
    select distinct case a.grantee when 0 then 'public' else quote_ident(pg_get_userbyid(a.grantee)) end
      from pg_default_acl d
      left join pg_namespace n on n.oid = d.defaclnamespace
     cross join aclexplode(d.defaclacl) a
     where d.defaclrole = current_user::regrole and d.defaclobjtype = 'r' and coalesce(n.nspname, 'public') = 'public'
       and a.grantee <> d.defaclrole and pg_get_userbyid(a.grantee) <> all (%s)
     order by 1
"""
_ATTEMPTS = 3
"""How often rights are given that another database's migration is just giving, too."""


def install_standard_roles(session: Session) -> None:
    """Makes the group roles that are missing, and gives them their rights on all that is there; tells in one line what is refused."""
    with session.connection("make group roles") as conn:
        row = change(session, conn, lambda c: c.execute("select * from b44.make_standard_roles()").fetchone())
        assert row is not None
        refused, foreign = row
        grant_access(session, conn)
        user: str = scalar(conn, "select quote_ident(current_user)")
        others = [name for (name,) in conn.execute(_GIVEN_BY_DEFAULT, ([*STANDARD_ROLES],))]
    said: list[str] = []
    if missing := [role for role in refused if role != "pg_monitor"]:
        said.append(
            f"user {user} may not make the group roles {', '.join(missing)}: have a role with CREATEROLE run"
            f" {'; '.join(f'CREATE ROLE {role}' for role in missing)}, or do without them"
        )
    if "pg_monitor" in refused:
        said.append("b44_monitor is no member of pg_monitor: have a superuser run GRANT pg_monitor TO b44_monitor")
    if foreign:
        said.append(
            f"{', '.join(foreign)} can log in or has powers of its own, so it is given nothing: rename it, and migrate again"
        )
    if others:
        names = ", ".join(others)
        said.append(
            f"all tables that {user} makes in schema public are given to {names}, by default privileges that were there before: who"
            " has such a role, as everybody where your host's API acts as it, reads and changes what no policy hides. To end it: ALTER"
            f" DEFAULT PRIVILEGES IN SCHEMA public REVOKE ALL ON TABLES FROM {names}; REVOKE ALL ON ALL TABLES IN SCHEMA public FROM"
            f" {names}"
        )
    if said:
        session.notice("; ".join(said))


def grant_access(session: Session, conn: Connection, names: Iterable[str] | None = None) -> None:
    """Gives the group roles what they should have, and takes what they should not; does nothing where all is as it should be.

    Args:
        session: The run.
        conn: To the database, with no transaction open.
        names: Files of tables, views and functions; by default all. Nothing is given one by one in a database that was never given
            anything: that begins with all of it.
    """
    if names is not None and not _is_governed(conn):
        return
    access = session.catalog.access_of(names)
    if not (needed := _needed_grants(conn, access)):
        return
    known = [needed]

    def grant(conn: Connection) -> None:
        # Asked once more where a lock was waited for, or somebody else was granting.
        for statement in known.pop() if known else _needed_grants(conn, access):
            conn.execute(trusted(statement))

    for attempt in range(1, _ATTEMPTS + 1):
        try:
            change(session, conn, grant)
        except errors.InternalError:
            # "tuple concurrently updated": somebody else has just granted something on the same object.
            if attempt == _ATTEMPTS:
                raise
        else:
            return


def _is_governed(conn: Connection) -> bool:
    """Whether a migration has given the group roles anything in this database, so that they are to have all."""
    return bool(scalar(conn, _INSTALLED)) and bool(scalar(conn, _GIVEN))


def _needed_grants(conn: Connection, access: GroupRights, *, partitions: bool = True) -> list[str]:
    """The statements that bring the rights of the group roles to what they should be.

    Args:
        conn: To a database in which the program is installed.
        access: What they should be.
        partitions: Whether those on partitions are looked at, too.
    """
    rows = conn.execute(
        "select * from b44.standard_access(%s, %s, %s, %s)",
        (Jsonb(access.relations), Jsonb(access.routines), partitions, access.opened),
    ).fetchall()
    return [statement for (statement,) in rows]


def standard_drift(conn: Connection, session: Session) -> list[str]:
    """Tells in lines what the group roles lack or have too much, each with the statement that mends it.

    A role that is missing and that this session could not make is no difference. Nor is any right in a database that was never
    migrated with these roles, such as one whose files were run by psql: nothing in it names one of them. Rights on a partition that was
    made by hand show nothing, since it has row security where its table has.
    """
    if not _is_governed(conn):
        return []
    makes_roles = scalar(conn, "select rolsuper or rolcreaterole from pg_roles where rolname = current_user")
    there = {
        name for (name,) in conn.execute("select rolname from pg_roles where rolname = any(%s)", ([*STANDARD_ROLES],))
    }
    missing = [role for role in STANDARD_ROLES if role not in there] if makes_roles else []
    return [
        *(f"role {role} is missing (b44 migrate makes it)" for role in missing),
        *(
            f"group roles: {statement}"
            for statement in _needed_grants(conn, session.catalog.access_of(), partitions=False)
        ),
    ]


def rights_to_change(conn: Connection, session: Session) -> list[str]:
    """The statements by which a migration would change the rights of the group roles; none where the session may not find out.

    Args:
        conn: To a database that was migrated before, or not.
        session: For the catalogue.
    """
    asked = scalar(
        conn,
        "select bool_and(has_function_privilege(f.oid, 'EXECUTE')) from pg_proc f"
        " where f.pronamespace = to_regnamespace('b44') and f.proname in ('standard_access', 'group_roles')",
    )
    if not asked or not _is_governed(conn):
        return []
    return _needed_grants(conn, session.catalog.access_of(), partitions=False)


def needs_grants(session: Session, spec: Spec) -> bool:
    """Whether what a file makes has other rights than those that default privileges give, or is only open behind policies."""
    by_default = "write" if session.catalog.opened else "none"
    # A view gets what default privileges give to tables, and by one that can be written one could write past policies.
    return (
        spec.kind in (Kind.PARTITION, Kind.VIEW)
        or spec.options.get("access", "write") != by_default
        or "execute" in spec.options
        or spec.period is not None
        or session.catalog.partitions(spec.name) is not None
        or (spec.kind is Kind.TABLE and bool(session.catalog.on(spec.name, Kind.POLICY)))
    )
