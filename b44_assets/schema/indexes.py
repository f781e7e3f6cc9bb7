"""Indexes brought to what `sql/` says, without keeping anybody waiting.

What belongs here: building, repairing and replacing indexes. What does not: judging whether they are worth having; see
`health`.
"""

from __future__ import annotations

import functools
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from threading import Event

import psycopg
from psycopg import sql

from b44_assets.catalog import IndexDefinition, Spec, index_definitions
from b44_assets.errors import DatabaseError
from b44_assets.failpoints import failpoint
from b44_assets.schema.online_ddl import (
    REBUILT,
    SHARED_BYTES,
    SMALL_BYTES,
    SchemaChange,
    change,
    change_by,
    changing,
    in_scratch_schema,
    is_live,
    naming,
    raise_memory,
    relation_oid,
    retrying,
    run,
    run_concurrently,
    run_together,
    shadow,
    temporary_name,
)
from b44_assets.schema.unbuilt import Obstacle, attempt, attempt_each, cause_in_rows, rows_against_index
from b44_assets.session import Connection, Session, cancel_until_done, scalar, trusted

_LARGE_PARTITION_BYTES = 64 * 2**20
_NAME_BYTES = 29
"""Of a longer name the server may cut a part when it names an index, and two connections would wait for one name."""


@retrying
def apply_indexes(session: Session, spec: Spec, *, online: bool | None = None) -> SchemaChange:
    """Brings the indexes of a file into the database.

    In live use they are built CONCURRENTLY; on a partitioned table first on the parent ONLY, then CONCURRENTLY on each
    partition, then attached. An invalid index that an interruption left is rebuilt. One whose definition has changed is
    built under another name first and takes the old one's place in one transaction. One that is as it should be is left
    alone. One that rows make impossible is left out, and these rows are named; the others are built all the same.

    Args:
        session: The run.
        spec: The file.
        online: Whether to build as in live use; by default `is_live` decides.

    Raises:
        DatabaseError: A statement fails, or no lock was to be had; names the file and the line.
    """
    started = time.monotonic()
    definitions = index_definitions(spec)
    table = definitions[0].table
    with changing(session, spec, table) as conn:
        online = is_live(session, conn, table) if online is None else online
        # Asked for where there is something to be compared: for a new index of a table that nobody uses there is not.
        wanted = functools.cache(
            lambda: in_scratch_schema(session, conn, lambda c, schema: _wanted(c, schema, spec, definitions))
        )
        on = _Table(conn, table)
        in_order = _all_in_order(conn, definitions, wanted)
        built = frozenset[str]() if online or in_order else _build_together(session, conn, spec, definitions)
        attempts: dict[str, Callable[[], str | Obstacle]] = {
            one.name: partial(str, "created")
            if one.name in built
            else partial(_attempt, session, conn, spec, one, on, wanted, online, in_order)
            for one in definitions
        }
        outcomes, failed = attempt_each(session, conn, attempts)
    return SchemaChange.of(spec.name, outcomes, started, online=online, failed=failed)


_STATES = """
    select c.relname, i.indisunique, pg_get_indexdef(i.indexrelid, 0, true)
      from pg_index i
      join pg_class c on c.oid = i.indexrelid
     where c.relnamespace = 'public'::regnamespace and c.relname = any(%(names)s) and i.indrelid = to_regclass(%(table)s)
       and i.indisvalid and i.indisready and i.indislive
       and not exists (select from pg_partition_tree(i.indexrelid) t join pg_index p on p.indexrelid = t.relid
                        where not (p.indisvalid and p.indisready))
       and (select count(*) from pg_partition_tree(i.indexrelid)) = (select count(*) from pg_partition_tree(to_regclass(%(table)s)))
       -- What an interrupted rebuild has left, of whichever index, is cleared away one by one.
       and not exists (select from pg_index x join pg_class n on n.oid = x.indexrelid
                        where not x.indisvalid and n.relname ~ %(rebuilt)s
                          and x.indrelid = any(array(select to_regclass(%(table)s)::oid
                                               union select relid from pg_partition_tree(to_regclass(%(table)s)))))
"""
"""Indexes that are in force on all of a table."""


def _all_in_order(conn: Connection, definitions: Sequence[IndexDefinition], forms: Forms) -> bool:
    """Whether each index of a file is as it should be, which one question tells; where not, each is looked at by itself."""
    names = [one.name for one in definitions]
    table = f"public.{definitions[0].table}"
    rows = conn.execute(_STATES, {"names": names, "table": table, "rebuilt": REBUILT.pattern}).fetchall()
    found = {name: form_of(unique, text) for name, unique, text in rows}
    return found.keys() == set(names) and all(found[name] == form for name, form in forms().items() if name in found)


def _build_together(
    session: Session, conn: Connection, spec: Spec, definitions: Sequence[IndexDefinition]
) -> frozenset[str]:
    """Builds the indexes that a small table without partitions lacks, all in one transaction.

    Of a large table each takes far longer than its transaction, and is not to be built again where another one fails.

    Returns:
        Those that were built: all that it lacked, or none where one of them could not be; one by one tells which.
    """
    new = conn.execute(
        "select array(select name from unnest(%(names)s::text[]) name"
        "  where to_regclass('public.' || quote_ident(name)) is null)"
        " from pg_class where oid = to_regclass(%(table)s) and relkind = 'r' and pg_table_size(oid) <= %(small)s",
        {
            "names": [one.name for one in definitions],
            "table": f"public.{definitions[0].table}",
            "small": SMALL_BYTES,
        },
    ).fetchone()
    lacking = [one for one in definitions if new is not None and one.name in new[0]]
    if len(lacking) < 2:
        return frozenset()
    statements: list[tuple[int, sql.Composable | str]] = []
    for one in lacking:
        table, name = sql.Identifier("public", one.table), sql.Identifier("public", one.name)
        statements.append((one.statement.line, create_index(one, one.name, table)))
        statements += [
            (
                one.statement.line,
                sql.SQL("alter index {} alter column {} set statistics {}").format(name, column, target),
            )
            for column, target in one.statistics.items()
        ]

    def build(conn: Connection) -> None:
        raise_memory(conn)
        run_together(conn, spec, statements)

    try:
        change(session, conn, build)
    except DatabaseError as error:
        if cause_in_rows(error) is None:
            raise
        return frozenset()
    return frozenset(one.name for one in lacking)


def _attempt(
    session: Session,
    conn: Connection,
    spec: Spec,
    definition: IndexDefinition,
    on: _Table,
    forms: Forms,
    online: bool,
    in_order: bool,
) -> str | Obstacle:
    def find(error: psycopg.Error) -> Obstacle:
        # A statement that fails without any rows is a fault of the file.
        forms()
        return rows_against_index(session, conn, definition, error)

    index = _Index(session, conn, spec, definition, on, forms, online)
    outcome = attempt(index.keep if in_order else index.reconcile, find)
    if isinstance(outcome, Obstacle) and not outcome.rows and not online:
        # A plain build reads rows that are deleted, too, while an older transaction still sees them; a concurrent one does not.
        outcome = attempt(_Index(session, conn, spec, definition, on, forms, True).reconcile, find)
    return outcome


@dataclass(frozen=True)
class Form:
    """What an index is, whatever it and its table are called: as PostgreSQL prints it, from the method on."""

    unique: bool
    text: str


Forms = Callable[[], Mapping[str, Form]]
"""Gives what each index of a file is to be, by name; asks the server the first time."""


@dataclass(frozen=True)
class _Found:
    oid: int
    name: str
    table_oid: int
    form: Form
    valid: bool


def form_of(unique: bool, definition: str) -> Form:
    """The form from `pg_get_indexdef`."""
    return Form(unique, definition.partition(" USING ")[2])


def _wanted(conn: Connection, schema: str, spec: Spec, definitions: Sequence[IndexDefinition]) -> dict[str, Form]:
    shadow(conn, schema, [definitions[0].table])
    run_together(conn, spec, [(one.statement.line, one.statement.text) for one in definitions])
    return forms_on(conn, f"{schema}.{definitions[0].table}")


def forms_on(conn: Connection, relation: str) -> dict[str, Form]:
    """The indexes of a relation, which is named with its schema, by name."""
    rows = conn.execute(
        "select c.relname, i.indisunique, pg_get_indexdef(i.indexrelid, 0, true)"
        " from pg_index i join pg_class c on c.oid = i.indexrelid where i.indrelid = to_regclass(%s)",
        (relation,),
    ).fetchall()
    return {name: form_of(unique, text) for name, unique, text in rows}


def create_index(
    definition: IndexDefinition, name: str | None, relation: sql.Composable, *, concurrent: bool = False
) -> sql.Composed:
    """The statement that builds an index, under a name of choice or the server's, on a relation of choice."""
    return sql.SQL("create {unique}index {concurrently}{name} on {relation} {rest}").format(
        unique=sql.SQL("unique " if definition.unique else ""),
        concurrently=sql.SQL("concurrently" if concurrent else ""),
        name=sql.SQL("") if name is None else sql.SQL(" {}").format(sql.Identifier(name)),
        relation=relation,
        rest=trusted(definition.rest),
    )


class _Table:
    """The table of a file's indexes: what is asked once for all of them."""

    def __init__(self, conn: Connection, name: str) -> None:
        self._conn = conn
        self._name = name
        self._small = False

    @functools.cached_property
    def oid(self) -> int:
        return relation_oid(self._conn, self._name)

    @functools.cached_property
    def partitioned(self) -> bool:
        return scalar(self._conn, "select relkind = 'p' from pg_class where oid = %s", (self.oid,))

    def leaves_to_share(self) -> dict[str, bool]:
        """The partitions that two connections may build on, the largest first, with whether each is large; none where one will do.

        Of a small table this is not asked again for the next index: it takes as long as to build one.
        """
        if self._small:
            return {}
        rows = self._conn.execute(
            """
            select c.relname, pg_table_size(c.oid)::bigint, c.relkind,
                   exists (select from pg_index i join pg_class x on x.oid = i.indexrelid
                            where i.indrelid = c.oid and not x.relispartition
                              and not exists (select from pg_constraint k where k.conindid = x.oid))
              from pg_partition_tree(%s) t
              join pg_class c on c.oid = t.relid
             where t.isleaf
             order by 2 desc, 1
            """,
            (self.oid,),
        ).fetchall()
        filled = {name: size >= _LARGE_PARTITION_BYTES for name, size, _, _ in rows if size}
        if len(filled) < 2 or sum(size for _, size, _, _ in rows) < SHARED_BYTES:
            self._small = True
            return {}
        # An index of a partition's own may be the very one that is to be built, which the server then takes as it is.
        return (
            {} if any(kind != "r" or own or len(name.encode()) > _NAME_BYTES for name, _, kind, own in rows) else filled
        )


class _Index:
    """One index, on its way to what it should be."""

    def __init__(
        self,
        session: Session,
        conn: Connection,
        spec: Spec,
        definition: IndexDefinition,
        on: _Table,
        wanted: Forms,
        online: bool,
    ) -> None:
        self._session = session
        self._conn = conn
        self._spec = spec
        self._definition = definition
        self._on = on
        self._forms = wanted
        self._online = online

    @property
    def _wanted(self) -> Form:
        return self._forms()[self._definition.name]

    def keep(self) -> str:
        """As `reconcile`, of an index that is in order but perhaps for its statistics."""
        return "repaired" if self._set_statistics(self._definition.name) else "unchanged"

    def reconcile(self) -> str:
        """Does what is to be done; returns what it was: created, replaced, unchanged or repaired."""
        name = self._definition.name
        found = self._find(name)
        if found is None:
            self._build(name)
            outcome = "created"
        elif found.table_oid != self._on.oid:
            raise DatabaseError(
                f"{self._spec.path}:{self._definition.statement.line}: {name} is an index of another table already"
            )
        elif found.form != self._wanted:
            self._replace(name)
            outcome = "replaced"
        elif not self._sound(found):
            self._repair(found)
            outcome = "repaired"
        else:
            outcome = "repaired" if self._clear_away() else "unchanged"
        if self._set_statistics(name) and outcome == "unchanged":
            outcome = "repaired"
        return outcome

    # Finding

    def _find(self, name: str) -> _Found | None:
        found = self._indexes("c.relname = %s and c.relnamespace = 'public'::regnamespace", name)
        return found[0] if found else None

    def _indexes(self, condition: str, *params: object) -> list[_Found]:
        rows = self._conn.execute(
            sql.SQL(
                "select i.indexrelid::bigint, c.relname, i.indrelid::bigint, i.indisunique,"
                " pg_get_indexdef(i.indexrelid, 0, true), i.indisvalid and i.indisready and i.indislive"
                " from pg_index i join pg_class c on c.oid = i.indexrelid where {} order by i.indexrelid"
            ).format(trusted(condition)),
            params,
        ).fetchall()
        return [_Found(row[0], row[1], row[2], form_of(row[3], row[4]), row[5]) for row in rows]

    def _sound(self, found: _Found) -> bool:
        """Valid itself, and on every partition."""
        if not found.valid:
            return False
        return scalar(
            self._conn,
            "select not exists (select from pg_partition_tree(%(index)s) t join pg_index i on i.indexrelid = t.relid"
            "  where not (i.indisvalid and i.indisready))"
            " and (select count(*) from pg_partition_tree(%(index)s)) = (select count(*) from pg_partition_tree(%(table)s))",
            {"index": found.oid, "table": self._on.oid},
        )

    # Building

    def _build(self, name: str) -> None:
        relation = sql.Identifier("public", self._definition.table)
        if not self._online:
            statement = create_index(self._definition, name, relation)
            if not self._session.throttled and self._on.partitioned and (leaves := self._on.leaves_to_share()):
                self._build_shared(statement, leaves)
            else:
                self._change(statement, bulk=True)
        elif self._on.partitioned:
            self._change(create_index(self._definition, name, sql.SQL("only {}").format(relation)))
            self._complete(self._must_find(name), self._on.oid)
        else:
            self._create_concurrently(relation, self._on.oid, name)

    def _build_shared(self, statement: sql.Composed, leaves: Mapping[str, bool]) -> None:
        """Builds on the partitions with two connections, then on the table, where the server takes the indexes of its partitions."""

        def build(conn: Connection, todo: deque[str]) -> None:
            raise_memory(conn)
            conn.execute("set local idle_in_transaction_session_timeout = '10min'")
            workers = scalar(conn, "select current_setting('max_parallel_maintenance_workers')")
            # Not a question before it: the other may take the last one between the two.
            with suppress(IndexError):
                while True:
                    leaf = todo.popleft()
                    conn.execute(
                        "select set_config('max_parallel_maintenance_workers', %s, true)",
                        (workers if leaves[leaf] else "0",),
                    )
                    part = create_index(self._definition, None, sql.Identifier("public", leaf))
                    run(conn, self._spec, self._definition.statement.line, part)

        def operation(conn: Connection) -> None:
            todo, decided, kept = deque(leaves), Event(), Event()

            def help_with(other: Connection) -> None:
                with other.transaction():
                    other.execute(
                        "select set_config('lock_timeout', %s, true)", (f"{self._session.lock_timeout_ms}ms",)
                    )
                    try:
                        build(other, todo)
                    except BaseException:
                        todo.clear()
                        raise
                    decided.wait()
                    if not kept.is_set():
                        raise psycopg.Rollback

            conn.execute(
                sql.SQL("lock table {} in share mode").format(sql.Identifier("public", self._definition.table))
            )
            with (
                self._session.connection(f"apply {self._spec.name}") as other,
                ThreadPoolExecutor(1, thread_name_prefix="index") as pool,
            ):
                helped = pool.submit(help_with, other)
                try:
                    build(conn, todo)
                    kept.set()
                    decided.set()
                    helped.result()
                except BaseException:
                    todo.clear()
                    decided.set()
                    cancel_until_done([helped], [other])
                    raise
            raise_memory(conn)
            run(conn, self._spec, self._definition.statement.line, statement)

        change(self._session, self._conn, operation)

    def _create_concurrently(self, relation: sql.Composable, relation_oid: int, name: str | None) -> None:
        def clean_up() -> None:
            self._drop_leftovers(relation_oid)

        clean_up()
        statement = create_index(self._definition, name, relation, concurrent=True)
        run_concurrently(self._conn, self._spec, self._definition.statement.line, statement, clean_up, self._session)

    def _drop_leftovers(self, relation_oid: int, kept: int = 0) -> bool:
        """Drops invalid indexes that an interrupted build or rebuild of this one left on a table, but for one.

        Returns:
            Whether there were any.
        """
        own = (self._definition.name, temporary_name(self._definition.name))
        leftovers = [
            found
            for found in self._indexes("i.indrelid = %s and not i.indisvalid and not c.relispartition", relation_oid)
            if found.oid != kept
            and (
                REBUILT.sub("", found.name) in own
                # The server names those of partitions.
                or (relation_oid != self._on.oid and found.form == self._wanted)
            )
        ]
        for leftover in leftovers:
            self._change(sql.SQL("drop index if exists {}").format(sql.Identifier("public", leftover.name)))
        return bool(leftovers)

    def _clear_away(self) -> bool:
        """Drops what an interrupted rebuild of an index that is in order left on the table or a partition."""
        rebuilt = self._indexes(
            "not i.indisvalid and c.relname ~ %s"
            " and (i.indrelid = %s or i.indrelid in (select relid from pg_partition_tree(%s)))",
            REBUILT.pattern,
            self._on.oid,
            self._on.oid,
        )
        dropped = False
        for oid in {found.table_oid for found in rebuilt}:
            dropped |= self._drop_leftovers(oid)
        return dropped

    def _complete(self, parent: _Found, relation: int) -> None:
        """Sees to it that every partition has its part of an index, built one by one."""
        fault: DatabaseError | None = None
        children = self._conn.execute(
            "select c.oid::bigint, c.relname, c.relkind from pg_inherits h join pg_class c on c.oid = h.inhrelid"
            " where h.inhparent = %s and c.relkind in ('r', 'p') order by c.relname",
            (relation,),
        ).fetchall()
        for oid, table, relkind in children:
            try:
                self._complete_part(parent, oid, table, relkind)
            except DatabaseError as error:
                if cause_in_rows(error) is None:
                    raise
                # Rows of one partition are no reason to leave the others without.
                fault = error
            failpoint("indexes: between partitions", self._conn)
        if fault is not None:
            raise fault
        if not self._must_find_oid(parent.oid).valid:
            # Its parts are all in order, but the mark on the parent itself only goes when one is attached.
            for part in self._indexes(
                "i.indexrelid in (select inhrelid from pg_inherits where inhparent = %s)", parent.oid
            )[:1]:
                self._attach(parent, part)

    def _complete_part(self, parent: _Found, oid: int, table: str, relkind: str) -> None:
        attached = self._indexes(
            "i.indrelid = %s and i.indexrelid in (select inhrelid from pg_inherits where inhparent = %s)",
            oid,
            parent.oid,
        )
        part = attached[0] if attached else self._part(oid, table, relkind)
        if relkind == "p":
            self._complete(part, oid)
        elif not part.valid:
            self._rebuild(part)
        elif attached:
            return
        self._attach(parent, part)

    def _part(self, oid: int, table: str, relkind: str) -> _Found:
        """An index of a partition that is not attached yet: one that is there, or a new one with the server's name."""
        condition = (
            "i.indrelid = %s and not c.relispartition"
            " and not exists (select from pg_constraint k where k.conindid = i.indexrelid)"
        )
        for found in self._indexes(condition, oid):
            if found.form == self._wanted and (found.valid or relkind == "p"):
                return found
        relation = sql.Identifier("public", table)
        if relkind == "p":
            self._change(create_index(self._definition, None, sql.SQL("only {}").format(relation)))
        elif self._online:
            self._create_concurrently(relation, oid, None)
        else:
            self._change(create_index(self._definition, None, relation), bulk=True)
        return next(found for found in reversed(self._indexes(condition, oid)) if found.form == self._wanted)

    def _attach(self, parent: _Found, part: _Found) -> None:
        self._change(
            sql.SQL("alter index {} attach partition {}").format(
                sql.Identifier("public", parent.name), sql.Identifier("public", part.name)
            )
        )

    # Repairing and replacing

    def _repair(self, found: _Found) -> None:
        if not self._on.partitioned:
            self._rebuild(found)
            return
        self._complete(found, self._on.oid)
        if not self._sound(self._must_find_oid(found.oid)):
            self._replace(found.name)

    def _rebuild(self, found: _Found) -> None:
        name = sql.Identifier("public", found.name)
        if self._online:
            self._drop_leftovers(found.table_oid, found.oid)
            statement = sql.SQL("reindex index concurrently {}").format(name)
            run_concurrently(
                self._conn,
                self._spec,
                self._definition.statement.line,
                statement,
                lambda: self._drop_leftovers(found.table_oid, found.oid),
                self._session,
            )
        else:
            self._change(sql.SQL("reindex index {}").format(name), bulk=True)

    def _replace(self, name: str) -> None:
        """Builds the new one beside the old one, then lets it take its name: nobody is ever without."""
        new = sql.Identifier("public", temporary_name(name))
        self._change(sql.SQL("drop index if exists {}").format(new))
        self._build(temporary_name(name))

        def swap(conn: Connection) -> None:
            conn.execute(sql.SQL("drop index {}").format(sql.Identifier("public", name)))
            conn.execute(sql.SQL("alter index {} rename to {}").format(new, sql.Identifier(name)))

        with naming(self._spec, self._definition.statement.line):
            change(self._session, self._conn, swap)

    def _set_statistics(self, name: str) -> bool:
        """Sets the statistics targets where they differ, on the parent and each partition; tells whether any did."""
        differed = False
        for column, target in self._definition.statistics.items():
            rows = self._conn.execute(
                """
                select c.relname
                  from (select %(index)s::oid as relid union select relid from pg_partition_tree(%(index)s)) t
                  join pg_class c on c.oid = t.relid
                  join pg_attribute a on a.attrelid = t.relid and a.attnum = %(column)s
                 where coalesce(a.attstattarget, -1) <> %(target)s
                """,
                {"index": self._must_find(name).oid, "column": column, "target": target},
            ).fetchall()
            for (index,) in rows:
                differed = True
                self._change(
                    sql.SQL("alter index {} alter column {} set statistics {}").format(
                        sql.Identifier("public", index), sql.Literal(column), sql.Literal(target)
                    )
                )
        return differed

    # Helpers

    def _change(self, statement: sql.Composable, *, bulk: bool = False) -> None:
        change_by(self._session, self._conn, self._spec, self._definition.statement.line, statement, bulk=bulk)

    def _must_find(self, name: str) -> _Found:
        found = self._find(name)
        if found is None:
            raise DatabaseError(f"{self._spec.path}: index {name} is gone; somebody else changes the schema")
        return found

    def _must_find_oid(self, oid: int) -> _Found:
        found = self._indexes("i.indexrelid = %s", oid)
        if not found:
            raise DatabaseError(
                f"{self._spec.path}: an index of {self._definition.table} is gone; somebody else changes the schema"
            )
        return found[0]
