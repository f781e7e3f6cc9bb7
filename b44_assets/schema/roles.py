"""Roles and what they may do, brought to what their files say.

What belongs here: making roles that are missing, and running their files. What does not: comparing privileges (`privileges`, `drift`),
or policies (`row_security`).
"""

from __future__ import annotations

import re
import time
from collections.abc import Sequence

import psycopg
from psycopg import IsolationLevel, errors

from b44_assets.catalog import Spec, Statement, role_definition
from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import SchemaChange, change, change_by, changing, retrying, run
from b44_assets.session import Connection, Session, scalar

_OF_THE_CLUSTER = re.compile(
    r"alter\s+role\b|comment\s+on\s+role\b|(?:grant|revoke)\b(?!.*\son\s)", re.IGNORECASE | re.DOTALL
)
_OF_MIGRATION = re.compile(r"\bschema\s+(?P<schema>migration|base44)\b|\b(?P<of>migration|base44)\.", re.IGNORECASE)
_ATTEMPTS = 3
"""How often a role is made that another database's migration is just making, too."""
_PRIVILEGE_NOT_GRANTED = "01007"
_STATE = """
    select md5(string_agg(fact, chr(10) order by fact))
      from (
        select concat_ws(' ', 'c', oid, relowner, relacl) from pg_class where relacl is not null or relowner <> 10
        union all
        select concat_ws(' ', 'a', attrelid, attnum, attacl) from pg_attribute where attacl is not null
        union all
        select concat_ws(' ', 'p', oid, proowner, proacl) from pg_proc where proacl is not null or proowner <> 10
        union all
        select concat_ws(' ', 't', oid, typowner, typacl) from pg_type where typacl is not null or typowner <> 10
        union all
        select concat_ws(' ', 'n', oid, nspowner, nspacl) from pg_namespace
        union all
        -- Not as text, which has the roles by name: of other databases, some may be dropped meanwhile.
        select concat_ws(' ', 'd', oid, datdba, (select string_agg(a::text, ' ') from aclexplode(datacl) a)) from pg_database
        union all
        select concat_ws(' ', 'x', defaclrole, defaclnamespace, defaclobjtype, defaclacl) from pg_default_acl
        union all
        select concat('m', m::text) from pg_auth_members m
        union all
        select concat('s', s::text) from pg_db_role_setting s
        union all
        select concat('r', r::text, shobj_description(r.oid, 'pg_authid')) from pg_roles r
      ) facts (fact)
"""
"""All that a role's file can change, as one value."""


def make_roles(session: Session, specs: Sequence[Spec]) -> tuple[str, ...]:
    """Makes roles that are missing, without any rights, and returns their names.

    Roles are the server's: another database's migration may make the same at the same time.

    Raises:
        DatabaseError: This role may not make roles; names file and line, and what to run.
    """
    if not specs:
        return ()
    made: list[str] = []
    with session.connection("make roles") as conn:
        for spec in specs:
            for _ in range(_ATTEMPTS):
                if _is_there(conn, spec.name):
                    break
                try:
                    _make(session, conn, spec)
                except DatabaseError as error:
                    if not isinstance(error.__cause__, errors.DuplicateObject | errors.UniqueViolation):
                        raise
                else:
                    made.append(spec.name)
    return tuple(made)


def _is_there(conn: Connection, role: str) -> bool:
    return bool(scalar(conn, "select exists (select from pg_roles where rolname = %s)", (role,)))


def _make(session: Session, conn: Connection, spec: Spec) -> None:
    creation = role_definition(spec).creation
    try:
        change_by(session, conn, spec, creation.line, creation.text)
    except DatabaseError as error:
        if not isinstance(error.__cause__, errors.InsufficientPrivilege):
            raise
        raise DatabaseError(
            f"{spec.path}:{creation.line}: role {spec.name} is missing, and user {conn.info.user} may not make roles:"
            f" have a role with CREATEROLE run CREATE ROLE {spec.name}"
        ) from error


@retrying
def apply_role(session: Session, spec: Spec) -> SchemaChange:
    """Makes a role where it is missing, and runs its file in one transaction; running it again changes nothing.

    A change of the role itself (attributes, settings, memberships) that this role may not make is told of, and the rest is done.

    Raises:
        DatabaseError: The role is missing and may not be made, a right may not be granted, a statement fails, or no lock was
            to be had; names file and line.
    """
    started = time.monotonic()
    definition = role_definition(spec)
    made = make_roles(session, (*session.catalog.roles_of(spec), spec))
    with changing(session, spec, spec.name) as conn:
        # In one snapshot: what others do meanwhile to roles, which are the server's, is no change of this file's.
        conn.isolation_level = IsolationLevel.REPEATABLE_READ
        try:
            changed, failed = change(session, conn, lambda c: _run_all(c, spec, definition.statements))
        finally:
            conn.isolation_level = None
    outcome = "created" if spec.name in made else "repaired" if changed else "unchanged"
    return SchemaChange.of(spec.name, {spec.name: outcome}, started, failed=failed)


def _run_all(conn: Connection, spec: Spec, statements: Sequence[Statement]) -> tuple[bool, dict[str, str]]:
    """Runs the statements; keeps nothing of them where they change nothing, so that nobody's plans are made anew."""
    failed: dict[str, str] = {}
    before = scalar(conn, _STATE)
    with conn.transaction() as attempt:
        for statement in statements:
            if (why := run_grant(conn, spec, statement)) is not None:
                failed[f"{spec.name}, line {statement.line}"] = why
        if not (changed := scalar(conn, _STATE) != before):
            raise psycopg.Rollback(attempt)
    return changed, failed


def run_grant(conn: Connection, spec: Spec, statement: Statement, text: str | None = None) -> str | None:
    """Runs a statement of a role's file.

    Args:
        conn: In a transaction.
        spec: The file.
        statement: The statement.
        text: What to run in its place.

    Returns:
        Why it was not run, where it is about the role itself and this role may not change that; else None.

    Raises:
        DatabaseError: It fails, or grants nothing; names file and line.
    """
    if (match := _OF_MIGRATION.search(statement.text)) is not None and scalar(
        conn, "select to_regnamespace(%s) is null", ((match["schema"] or match["of"]).lower(),)
    ):
        # The migration is finished, and there is nothing left to look at.
        return None
    refused: list[str] = []

    def note(diagnostic: psycopg.errors.Diagnostic) -> None:
        if diagnostic.sqlstate == _PRIVILEGE_NOT_GRANTED:
            refused.append(diagnostic.message_primary or "")

    conn.add_notice_handler(note)
    try:
        with conn.transaction():
            run(conn, spec, statement.line, statement.text if text is None else text)
    except DatabaseError as error:
        if not isinstance(error.__cause__, errors.InsufficientPrivilege) or not _OF_THE_CLUSTER.match(statement.text):
            raise
        return f"{error}; have a role with CREATEROLE run psql -f {spec.path}"
    finally:
        conn.remove_notice_handler(note)
    if refused:
        raise DatabaseError(
            f"{spec.path}:{statement.line}: {refused[0]}: migrate as the owner of the objects, or as a superuser"
        )
    return None
