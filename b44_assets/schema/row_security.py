"""Row security and policies of a table brought to what its file says; what is as it should be is left alone.

What belongs here: policies, the switches of row security, and those of the partitions. What does not: who may do what with a
table; see `roles`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass, replace

from psycopg import sql

from b44_assets.catalog import Kind, RowSecurity, Spec, row_security
from b44_assets.schema.online_ddl import (
    SchemaChange,
    change,
    changing,
    in_scratch_schema,
    relation_oid,
    retrying,
    run,
    run_together,
    shadow,
)
from b44_assets.schema.roles import make_roles
from b44_assets.schema.standard_roles import grant_access
from b44_assets.session import Connection, Session

_SWITCHES = "select relrowsecurity, relforcerowsecurity from pg_class where oid = to_regclass(%s)"
_POLICIES = """
    select p.polname::text,
           concat_ws(' | ', p.polcmd, p.polpermissive, pg_get_expr(p.polqual, p.polrelid, true),
             pg_get_expr(p.polwithcheck, p.polrelid, true),
             (select string_agg(coalesce(quote_ident(r.rolname), 'public'), ', ' order by r.rolname)
                from unnest(p.polroles) k (oid) left join pg_roles r on r.oid = k.oid)),
           obj_description(p.oid, 'pg_policy')
      from pg_policy p
     where p.polrelid = to_regclass(%s)
"""
_PARTITIONS = """
    select n.nspname, c.relname, c.relrowsecurity, c.relforcerowsecurity
      from pg_partition_tree(to_regclass(%s)) t
      join pg_class c on c.oid = t.relid
      join pg_namespace n on n.oid = c.relnamespace
     where t.level > 0
     order by c.relname
"""


@dataclass(frozen=True)
class _State:
    """Whether row security is on and forced, and definitions and comments of policies by name."""

    switches: tuple[bool, bool]
    policies: dict[str, str]
    comments: dict[str, str | None]


@retrying
def apply_policies(session: Session, spec: Spec) -> SchemaChange:
    """Brings the policies of a file into the database: missing ones are made, changed ones made anew, in one transaction.

    Roles that it names are made where they are missing, without any rights. Row security is switched on for every partition as
    well, without policies: rows are read and written through the table, by its policies, and whoever goes for a partition
    itself sees none, whatever was granted.

    Raises:
        DatabaseError: A statement fails, or no lock was to be had; names the file and the line.
    """
    started = time.monotonic()
    definition = row_security(spec)
    table = definition.table
    # Several files may be about one table.
    forced = any(row_security(other).forced for other in session.catalog.on(table, Kind.POLICY))
    outcomes: dict[str, str] = {}
    make_roles(session, session.catalog.roles_of(spec))
    with changing(session, spec, table) as conn:
        relation_oid(conn, table)
        wanted = in_scratch_schema(session, conn, lambda c, schema: _wanted(c, schema, spec, definition, forced))
        for schema, name, *switches in conn.execute(_PARTITIONS, (f"public.{table}",)).fetchall():
            if tuple(switches) != wanted.switches:
                partition = sql.Identifier(schema, name)
                change(session, conn, lambda c, partition=partition: _switch(c, partition, wanted.switches))
                outcomes[name] = "repaired"
        found = _state(conn, "public", table)
        outcomes |= _outcomes(found, wanted)
        if any(outcome != "unchanged" for outcome in outcomes.values()):
            change(session, conn, lambda c: _reconcile(c, spec, definition, found, wanted))
            # Of an earlier version, which had no policies, it was not opened to the group roles.
            grant_access(session, conn, [table])
    return SchemaChange.of(spec.name, outcomes, started)


def _wanted(conn: Connection, schema: str, spec: Spec, definition: RowSecurity, forced: bool) -> _State:
    shadow(conn, schema, [definition.table])
    statements = (*definition.switches, *(one.statement for one in definition.policies), *definition.comments)
    run_together(conn, spec, [(one.line, one.text) for one in statements])
    return replace(_state(conn, schema, definition.table), switches=(True, forced))


def _state(conn: Connection, schema: str, table: str) -> _State:
    name = f"{schema}.{table}"
    switches = conn.execute(_SWITCHES, (name,)).fetchone()
    assert switches is not None
    rows = conn.execute(_POLICIES, (name,)).fetchall()
    return _State(
        (switches[0], switches[1]), {name: text for name, text, _ in rows}, {name: said for name, _, said in rows}
    )


def _outcomes(found: _State, wanted: _State) -> dict[str, str]:
    outcomes = {"row security": "unchanged"}
    if found.switches != wanted.switches:
        outcomes["row security"] = "repaired" if found.switches[0] else "created"
    for name, definition in wanted.policies.items():
        if name not in found.policies:
            outcomes[name] = "created"
        elif found.policies[name] != definition:
            outcomes[name] = "replaced"
        elif wanted.comments[name] not in (None, found.comments[name]):
            outcomes[name] = "repaired"
        else:
            outcomes[name] = "unchanged"
    return outcomes


def _switch(conn: Connection, table: sql.Identifier, wanted: tuple[bool, bool]) -> None:
    conn.execute(
        sql.SQL("alter table {} {} row level security, {} row level security").format(
            table, sql.SQL("enable" if wanted[0] else "disable"), sql.SQL("force" if wanted[1] else "no force")
        )
    )


def _reconcile(conn: Connection, spec: Spec, definition: RowSecurity, found: _State, wanted: _State) -> None:
    table = sql.Identifier("public", definition.table)
    if found.switches != wanted.switches:
        _switch(conn, table, wanted.switches)
    for policy in definition.policies:
        if found.policies.get(policy.name) != wanted.policies[policy.name]:
            drop = sql.SQL("drop policy if exists {} on {}")
            run(conn, spec, policy.statement.line, drop.format(sql.Identifier(policy.name), table))
            run(conn, spec, policy.statement.line, policy.statement.text)
    for comment in definition.comments:
        run(conn, spec, comment.line, comment.text)
