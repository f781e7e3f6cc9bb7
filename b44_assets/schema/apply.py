"""Objects of `sql/` brought into the database."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass

import psycopg
from psycopg import sql

from b44_assets.catalog import Kind, Spec
from b44_assets.errors import DatabaseError
from b44_assets.schema.new_columns import add_new_columns, tables_lacking
from b44_assets.schema.online_ddl import change, naming, of_migration_tables, retrying, run_together
from b44_assets.schema.standard_roles import grant_access, needs_grants
from b44_assets.session import Connection, Session, scalar, with_retry


@dataclass(frozen=True)
class Applied:
    """An object whose statements were run: its name, and how many statements there were."""

    name: str
    statements: int


ROUTINE = r"create\s+(?:or\s+replace\s+)?(?:function|procedure)\s+(?:(?P<schema>\w+)\s*\.\s*)?(?P<name>\w+)"
"""How a statement begins that makes a function or a procedure, as a pattern without regard to case."""
_ROUTINE = re.compile(ROUTINE, re.IGNORECASE)
_ROUTINES = """
    select md5(string_agg(concat(p::text, obj_description(p.oid, 'pg_proc')), ' ' order by p.oid)
             || (select coalesce(string_agg(c::text, ' ' order by c.oid), '') from pg_collation c
                  where c.collnamespace = to_regnamespace('b44')))
      from pg_proc p
     where p.pronamespace in ('public'::regnamespace, to_regnamespace('b44'), to_regnamespace('migration'))
"""
"""All that a file of functions can change, as one value."""


@retrying
def apply(session: Session, spec: Spec) -> Applied:
    """Runs the statements of a file in one transaction; running them again changes nothing.

    A table that is there already gets the columns that its file has and it lacks. One that is not partitioned by time gets its
    partitions along with it, since no row could be written without. One that has policies has row security from the first
    moment: nobody reads it before they are there.

    Raises:
        DatabaseError: A statement fails, naming file and line; or no lock was to be had, naming who stood in the way.
    """
    partitions = session.catalog.partitions(spec.name) if spec.kind is Kind.TABLE and spec.period is None else None
    with session.connection(f"apply {spec.name}") as conn:
        secured = spec.kind is Kind.TABLE and bool(session.catalog.on(spec.name, Kind.POLICY))
        applied = change(session, conn, lambda c: _apply_secured(c, spec) if secured else apply_on(c, spec))
        if partitions is not None:
            change(session, conn, lambda c: apply_on(c, partitions))
        if needs_grants(session, spec):
            grant_access(session, conn, [spec.options.get("on", spec.name)])
        return applied


def apply_functions(session: Session, specs: Sequence[Spec]) -> Iterator[Applied]:
    """As `apply`, for files of functions; where all are as their files say already, that is found out in one transaction.

    Raises:
        DatabaseError: As of `apply`.
    """
    if with_retry(session, lambda: _are_unchanged(session, specs)):
        for spec in specs:
            yield Applied(spec.name, len(spec.statements))
        return
    for spec in specs:
        yield apply(session, spec)


def _are_unchanged(session: Session, specs: Sequence[Spec]) -> bool:
    """Whether files of functions change nothing, and their rights are as they should be."""

    def run_all(conn: Connection) -> bool:
        with conn.transaction(force_rollback=True):
            hold_schema_lock(conn)
            conn.execute("set local client_min_messages = warning")
            finished = is_finished(conn)
            if _makes_new_routines(conn, specs[0]):
                return False
            before = scalar(conn, _ROUTINES)
            for place, spec in enumerate(specs):
                _run(conn, spec, finished=finished)
                # Where they all have changed, the first one tells already.
                if place in (0, len(specs) - 1) and scalar(conn, _ROUTINES) != before:
                    return False
        return True

    with session.connection("apply functions") as conn:
        try:
            unchanged = change(session, conn, run_all)
        except DatabaseError:
            # Whose fault it is, and what goes before it, each file says by itself.
            return False
        if unchanged and (names := [spec.name for spec in specs if needs_grants(session, spec)]):
            grant_access(session, conn, names)
    return unchanged


def _apply_secured(conn: Connection, spec: Spec) -> Applied:
    relation = f"public.{spec.name}"
    with conn.transaction():
        new = scalar(conn, "select to_regclass(%s) is null", (relation,))
        applied = apply_on(conn, spec)
        if new:
            tables: list[tuple[str, str]] = conn.execute(
                "select n.nspname, c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace"
                " where c.oid = to_regclass(%(name)s) or c.oid in (select relid from pg_partition_tree(to_regclass(%(name)s)))",
                {"name": relation},
            ).fetchall()
            for table in tables:
                conn.execute(sql.SQL("alter table {} enable row level security").format(sql.Identifier(*table)))
    return applied


def apply_on(conn: Connection, spec: Spec) -> Applied:
    """As `apply`, on a connection that is there already.

    Nothing is made in the schemas of a migration that is finished. Functions that are as the file says already are left as
    they are: every session that uses one would compile it and plan its statements anew.
    """
    with conn.transaction():
        hold_schema_lock(conn)
        # "already exists, skipping" is how running twice is meant to go.
        conn.execute("set local client_min_messages = warning")
        before = scalar(conn, _ROUTINES) if _holds_functions(spec) and not _makes_new_routines(conn, spec) else None
        with conn.transaction() as attempt:
            _run(conn, spec, finished=is_finished(conn))
            if before is not None and scalar(conn, _ROUTINES) == before:
                raise psycopg.Rollback(attempt)
    return Applied(spec.name, len(spec.statements))


def hold_schema_lock(conn: Connection) -> None:
    """Keep others from making the same objects until the transaction ends: "create if not exists" is no lock."""
    conn.execute("select pg_advisory_xact_lock(hashtextextended('b44 schema', 44))")


def _holds_functions(spec: Spec) -> bool:
    return spec.kind is Kind.FUNCTION or (spec.kind is Kind.RUNTIME and spec.name.endswith("_functions"))


def routines_made(specs: Iterable[Spec]) -> frozenset[str]:
    """The functions and procedures that files make, each with its schema."""
    found = (match for spec in specs for one in spec.statements for match in _ROUTINE.finditer(one.text))
    return frozenset(f"{match['schema'] or 'public'}.{match['name']}".lower() for match in found)


def _makes_new_routines(conn: Connection, spec: Spec) -> bool:
    """Whether none of a file's functions is there yet: then it changes something, which needs not be looked for."""
    made = sorted(routines_made([spec]))
    return bool(made) and scalar(
        conn,
        "select not exists (select from pg_proc p join pg_namespace n on n.oid = p.pronamespace"
        " where p.proname = any(%s) and format('%%s.%%s', n.nspname, p.proname) = any(%s))",
        ([name.partition(".")[2] for name in made], made),
    )


def is_finished(conn: Connection) -> bool:
    """Tell whether the migration of the database is over, and its tables are not to come back."""
    # Not merely its table: somebody else's may have that name, which `preflight` then says.
    known = scalar(
        conn,
        "select exists (select from pg_attribute where attrelid = to_regclass('b44.migration_state') and attname = 'finished_at')",
    )
    return bool(known) and bool(scalar(conn, "select finished_at is not null from b44.migration_state"))


def _run(conn: Connection, spec: Spec, *, finished: bool) -> None:
    statements = [
        one
        for one in spec.statements
        if not (finished and (spec.name.startswith("migration/") or of_migration_tables(one.text)))
    ]
    if spec.kind is Kind.TABLE:
        for statement in statements:
            with naming(spec, statement.line):
                add_new_columns(conn, statement)
    run_together(conn, spec, [(one.line, one.text) for one in statements])


def ensure_tables(session: Session, names: Iterable[str]) -> tuple[str, ...]:
    """Makes those of some tables, and of the tables they stand on, that are not there yet or lack columns; returns their names.

    What stands on a table can then be made before the table's rows are loaded.

    Args:
        session: The run.
        names: Tables; names of anything else are passed over.

    Raises:
        DatabaseError: As of `apply`.
    """
    tables = {spec.name: spec for spec in session.catalog.of(Kind.TABLE)}
    wanted: set[str] = set()
    todo = [name for name in names if name in tables]
    while todo:
        name = todo.pop()
        if name not in wanted:
            wanted.add(name)
            todo += [other for other in tables[name].depends if other in tables]
    with session.connection("look for tables") as conn:
        lacking = tables_lacking(conn, [spec for name, spec in tables.items() if name in wanted])
    missing = [name for name in tables if name in lacking]
    for name in missing:
        apply(session, tables[name])
    return tuple(missing)
