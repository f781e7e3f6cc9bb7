"""Constraints brought to what `sql/` says: in force for new rows at once, then validated for the rows that are there.

What belongs here: adding, validating and replacing constraints. What does not: what a constraint should say.
"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

import psycopg
from psycopg import errors, sql

from b44_assets.catalog import ConstraintDefinition, Spec, constraint_definitions
from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import (
    SchemaChange,
    change,
    change_by,
    changing,
    fault,
    in_scratch_schema,
    is_live,
    naming,
    on_shadow,
    relation_oid,
    retrying,
    run_together,
    shadow,
    temporary_name,
)
from b44_assets.schema.unbuilt import Obstacle, attempt, attempt_each, cause_in_rows, rows_against_constraint
from b44_assets.session import Connection, Session, trusted

_NOT_VALID_ON_PARTITIONED = 180_000
"""PostgreSQL takes NOT VALID foreign keys on partitioned tables from version 18 on."""


@retrying
def apply_constraints(session: Session, spec: Spec, *, online: bool | None = None) -> SchemaChange:
    """Brings the constraints of a file into the database.

    In live use each is added NOT VALID, which holds for new rows at once and keeps nobody waiting, and then validated,
    which only keeps other DDL waiting. A foreign key of a partitioned table before PostgreSQL 18 is so treated partition
    by partition first. An EXCLUDE cannot be added without writers waiting while its index is built. A constraint whose
    definition has changed is added under another name first and takes the old one's place in one transaction, so that at
    no time neither holds. One that rows break is told of with these rows, and the others are added all the same; it stays
    NOT VALID where the server can have it so, and holds for new rows.

    Args:
        session: The run.
        spec: The file.
        online: Whether to proceed as in live use; by default `is_live` decides.

    Raises:
        DatabaseError: A statement fails, or no lock was to be had; names file and line.
    """
    started = time.monotonic()
    definitions = constraint_definitions(spec)
    table = definitions[0].table
    with changing(session, spec, table) as conn:
        online = is_live(session, conn, table) if online is None else online
        # Asked for where there is something to be compared: for a new constraint there is not.
        wanted = functools.cache(
            lambda: in_scratch_schema(session, conn, lambda c, schema: _wanted(c, schema, spec, definitions))
        )
        found = _found_on(conn, relation_oid(conn, table))
        new = [one for one in definitions if one.name not in found]
        added = _Added() if online else _add_together(session, conn, spec, new)
        attempts: dict[str, Callable[[], str | Obstacle]] = {}
        for one in definitions:
            constraint = _Constraint(session, conn, spec, one, wanted, online, found.get(one.name))
            if one.name in added.whole:
                attempts[one.name] = partial(str, "created")
                continue
            refused = added.refused.get(one.name)
            work = (
                constraint.reconcile
                if refused is None
                else partial(constraint.hold, refused, held=one.name in added.held)
            )
            attempts[one.name] = partial(attempt, work, constraint.rows_against)
        outcomes, failed = attempt_each(session, conn, attempts)
    return SchemaChange.of(spec.name, outcomes, started, online=online, failed=failed)


def _add_together(
    session: Session, conn: Connection, spec: Spec, definitions: Sequence[ConstraintDefinition]
) -> _Added:
    """Adds new constraints of a table that nobody uses by one statement, which reads the table once for all conditions.

    Those that rows break are added by another one, to hold for new rows only. Where the server says anything else, nothing is
    added: one by one tells whose fault it is.
    """

    def add(which: Mapping[str, ConstraintDefinition], *, valid: bool = True) -> None:
        first = next(iter(which.values()))
        statement = _additions(sql.Identifier("public", first.table), which, valid=valid)
        change_by(session, conn, spec, first.statement.line, statement, bulk=True)

    todo = {one.name: one for one in definitions}
    refused: dict[str, psycopg.Error] = {}
    while len(todo) > 1:
        try:
            add(todo)
        except DatabaseError as error:
            cause = cause_in_rows(error)
            name = None if cause is None else cause.diag.constraint_name
            if cause is None or name not in todo:
                return _Added(refused=refused)
            refused[name] = cause
            del todo[name]
        else:
            break
    added = frozenset(todo) if len(todo) > 1 else frozenset[str]()
    later = {one.name: one for one in definitions if one.name in refused and one.form in ("check", "foreign")}
    if len(later) > 1:
        # Foreign keys of partitioned tables before PostgreSQL 18 cannot be so.
        with suppress(DatabaseError):
            add(later, valid=False)
            return _Added(added, refused, frozenset(later))
    return _Added(added, refused)


def _additions(
    table: sql.Identifier, definitions: Mapping[str, ConstraintDefinition], *, valid: bool = True
) -> sql.Composed:
    """The statement that adds constraints to a table, each under its name; with `valid` off, for new rows only."""
    how = sql.SQL("" if valid else " not valid")
    return sql.SQL("alter table {} {}").format(
        table,
        sql.SQL(", ").join(
            sql.SQL("add constraint {} {}{}").format(sql.Identifier(name), trusted(one.rest), how)
            for name, one in definitions.items()
        ),
    )


@dataclass(frozen=True)
class _Added:
    """What became of new constraints.

    Attributes:
        whole: Those that were added, and hold for every row.
        refused: What the server said of those that rows break.
        held: Those of them that were added all the same, NOT VALID.
    """

    whole: frozenset[str] = frozenset()
    refused: Mapping[str, psycopg.Error] = field(default_factory=dict[str, psycopg.Error])
    held: frozenset[str] = frozenset()


@dataclass(frozen=True)
class _Found:
    definition: str
    valid: bool


def _found_on(conn: Connection, table: int | str, name: str | None = None) -> dict[str, _Found]:
    """The constraints of a table, by its oid or its name as SQL has it, or the one of a name."""
    rows = conn.execute(
        "select conname, pg_get_constraintdef(oid, true), convalidated from pg_constraint"
        " where conrelid = %s::regclass and coalesce(conname = %s::text, true)",
        (table, name),
    ).fetchall()
    return {name: _Found(definition_of(text), valid) for name, text, valid in rows}


def definition_of(text: str) -> str:
    """What a constraint says, from `pg_get_constraintdef`, whether it is validated or not."""
    return text.removesuffix(" NOT VALID")


def _wanted(conn: Connection, schema: str, spec: Spec, definitions: Sequence[ConstraintDefinition]) -> dict[str, str]:
    table = definitions[0].table
    shadow(conn, schema, _tables(conn, spec, table), keys=True)
    run_together(conn, spec, [(one.statement.line, on_shadow(schema, one)) for one in definitions])
    return {name: found.definition for name, found in _found_on(conn, f"{schema}.{table}").items()}


def _tables(conn: Connection, spec: Spec, table: str) -> list[str]:
    rows = conn.execute(
        "select name from unnest(%s::text[]) name join pg_class c on c.oid = to_regclass('public.' || quote_ident(name))"
        " where c.relkind in ('r', 'p')",
        (list(spec.depends),),
    ).fetchall()
    return sorted({table, *(name for (name,) in rows)})


class _Constraint:
    """One constraint, on its way to what it should be."""

    def __init__(
        self,
        session: Session,
        conn: Connection,
        spec: Spec,
        definition: ConstraintDefinition,
        wanted: Callable[[], Mapping[str, str]],
        online: bool,
        found: _Found | None,
    ) -> None:
        self._session = session
        self._conn = conn
        self._spec = spec
        self._definition = definition
        self._definitions = wanted
        self._online = online
        self._found = found
        self._table = sql.Identifier("public", definition.table)
        # Whether the server has, under its name, what the file says: then the rows against it can be told from that.
        self._held = False

    @functools.cached_property
    def _table_oid(self) -> int:
        return relation_oid(self._conn, self._definition.table)

    @property
    def _wanted(self) -> str:
        return self._definitions()[self._definition.name]

    def reconcile(self) -> str:
        """Does what is to be done; returns what it was: created, replaced, unchanged or repaired."""
        name = self._definition.name
        found = self._found
        if found is None:
            self._add(name)
            return "created"
        if found.definition != self._wanted:
            self._replace(name)
            return "replaced"
        if not found.valid:
            self._validate(self._table, name)
            return "repaired"
        return "unchanged"

    def hold(self, error: psycopg.Error, *, held: bool) -> str:
        """Sees to it that a constraint that rows break holds for new rows, where the server can have it so.

        Args:
            error: What the server said of the rows.
            held: Whether it does by now.

        Raises:
            DatabaseError: Always, with what the server said of the rows.
        """
        if held:
            self._held = True
        elif self._definition.form in ("check", "foreign"):
            self._hold_for_new_rows(self._definition.name)
        raise fault(self._spec, self._definition.statement.line, error) from error

    def rows_against(self, error: psycopg.Error) -> Obstacle:
        """Finds the rows that break it, as the server said that some do."""
        if not self._held:
            # A statement that fails without any rows is a fault of the file.
            self._definitions()
        tables = _tables(self._conn, self._spec, self._definition.table)
        return rows_against_constraint(self._session, self._conn, self._definition, error, tables, in_place=self._held)

    def _find(self, name: str, oid: int | None = None) -> _Found | None:
        return _found_on(self._conn, oid or self._table_oid, name).get(name)

    def _add(self, name: str) -> None:
        form = self._definition.form
        if not self._online or form not in ("check", "foreign"):
            try:
                self._change(_additions(self._table, {name: self._definition}), bulk=True)
            except DatabaseError as error:
                if cause_in_rows(error) is not None and form in ("check", "foreign"):
                    self._hold_for_new_rows(name)
                raise
            return
        if form == "foreign" and self._conn.info.server_version < _NOT_VALID_ON_PARTITIONED:
            partitions = self._conn.execute(
                "select t.relid::oid::bigint, c.relname from pg_partition_tree(%s) t join pg_class c on c.oid = t.relid"
                " where t.isleaf and t.relid <> %s order by c.relname",
                (self._table_oid, self._table_oid),
            ).fetchall()
            for oid, partition in partitions:
                self._add_in_steps(sql.Identifier("public", partition), oid, name)
            if partitions:
                # Each partition's own is taken over: nothing is read again.
                self._change(_additions(self._table, {name: self._definition}))
                return
        self._add_in_steps(self._table, self._table_oid, name)

    def _hold_for_new_rows(self, name: str) -> None:
        try:
            self._change(_additions(self._table, {name: self._definition}, valid=False))
        except DatabaseError as error:
            # Foreign keys of partitioned tables before PostgreSQL 18.
            if not isinstance(error.__cause__, errors.FeatureNotSupported | errors.WrongObjectType):
                raise
        else:
            self._held = name == self._definition.name

    def _add_in_steps(self, table: sql.Identifier, oid: int, name: str) -> None:
        found = self._find(name, oid)
        if found is not None and found.definition != self._wanted:
            self._change(sql.SQL("alter table {} drop constraint {}").format(table, sql.Identifier(name)))
            found = None
        if found is None:
            self._change(_additions(table, {name: self._definition}, valid=False))
        if found is None or not found.valid:
            self._validate(table, name)

    def _validate(self, table: sql.Identifier, name: str) -> None:
        """Validates one that says what the file says."""
        self._held = self._held or (table == self._table and name == self._definition.name)
        self._change(sql.SQL("alter table {} validate constraint {}").format(table, sql.Identifier(name)))

    def _replace(self, name: str) -> None:
        """Adds the new one beside the old one, then lets it take its name."""
        new = temporary_name(name)
        left = self._find(new)
        if left is not None and left.definition != self._wanted:
            self._change(sql.SQL("alter table {} drop constraint {}").format(self._table, sql.Identifier(new)))
            left = None
        in_the_way: DatabaseError | None = None
        try:
            if left is None:
                self._add(new)
            elif not left.valid:
                self._validate(self._table, new)
        except DatabaseError as error:
            # Where rows break it, it holds for new ones all the same, and the old one would refuse what the file lets in.
            if cause_in_rows(error) is None or self._find(new) is None:
                raise
            in_the_way = error

        def swap(conn: Connection) -> None:
            conn.execute(sql.SQL("alter table {} drop constraint {}").format(self._table, sql.Identifier(name)))
            self._rename(conn, self._definition.table, new, name)
            # A check's name follows on the partitions by itself, a foreign key's does not.
            partitions = conn.execute(
                "select c.relname from pg_partition_tree(%s) t join pg_class c on c.oid = t.relid"
                " join pg_constraint k on k.conrelid = c.oid and k.conname = %s",
                (self._table_oid, new),
            ).fetchall()
            for (partition,) in partitions:
                self._rename(conn, partition, new, name)

        with naming(self._spec, self._definition.statement.line):
            change(self._session, self._conn, swap)
        self._held = True
        if in_the_way is not None:
            raise in_the_way

    @staticmethod
    def _rename(conn: Connection, table: str, old: str, new: str) -> None:
        conn.execute(
            sql.SQL("alter table {} rename constraint {} to {}").format(
                sql.Identifier("public", table), sql.Identifier(old), sql.Identifier(new)
            )
        )

    def _change(self, statement: sql.Composable, *, bulk: bool = False) -> None:
        change_by(self._session, self._conn, self._spec, self._definition.statement.line, statement, bulk=bulk)
