"""Rows that make an index, a constraint or a view impossible: found, named, and kept until the object is built.

What belongs here: telling such a fault from others, and finding the rows. What does not: building; see `indexes`,
`constraints` and `views`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass
from datetime import datetime
from typing import TypeVar

import psycopg
from psycopg import errors, sql
from psycopg.types.json import Jsonb

from b44_assets.catalog import ConstraintDefinition, IndexDefinition
from b44_assets.errors import DatabaseError
from b44_assets.postgres.error_classes import FaultClass, classify
from b44_assets.schema.online_ddl import in_scratch_schema, on_shadow, shadow
from b44_assets.session import Connection, Session, columns_of, identifiers, reason_of, scalar, trusted

T = TypeVar("T")

SHOWN = 5
"""How many rows are named."""
_COUNTED = 1_000
"""How many rows are looked for one by one; more are not counted."""
_ALSO_OF_ROWS = frozenset({"21000", "54001", "P0001"})
"""Besides what `classify` knows: a subquery with several rows, a text nested too deeply, a function that refuses a value."""

_ROW_RULES = """
    select k.conname, pg_get_expr(k.conbin, k.conrelid), f.relname,
           array(select a.attname::text from unnest(k.conkey) with ordinality c (number, place)
                   join pg_attribute a on a.attrelid = k.conrelid and a.attnum = c.number order by c.place),
           array(select a.attname::text from unnest(k.confkey) with ordinality c (number, place)
                   join pg_attribute a on a.attrelid = k.confrelid and a.attnum = c.number order by c.place),
           array(select a.attname::text from pg_attribute a
                  where a.attrelid = k.conrelid and a.attnum = any(k.conkey) and a.atttypid = 'uuid'::regtype)
      from pg_constraint k
      left join pg_class f on f.oid = k.confrelid
     where k.conrelid = to_regclass(%s) and k.conname = any(%s) and k.contype in ('c', 'f')
     order by 1
"""


@dataclass(frozen=True)
class Obstacle:
    """Why an object cannot be built.

    Attributes:
        object: The index, constraint or view.
        relation: Its table; of a view the view itself.
        columns: What it reads of the rows.
        reason: What the server says.
        rows: How many rows are in the way; 0 where that cannot be told.
        examples: The first of them, as people know them.
    """

    object: str
    relation: str
    columns: tuple[str, ...]
    reason: str
    rows: int
    examples: tuple[str, ...]

    def message(self) -> str:
        """One line: what, why, which rows, and what to do."""
        where = f" ({', '.join(self.columns)})" if self.columns else ""
        told = f"{self.relation}: {self.object}{where} cannot be built: {self.reason}"
        if not self.rows:
            return f"{told}; correct the rows that it reads, in the export or the table, and migrate again"
        many = f"{_COUNTED} rows or more" if self.rows >= _COUNTED else f"{self.rows} row{'s' if self.rows > 1 else ''}"
        more = ", …" if self.rows > len(self.examples) else ""
        return (
            f"{told}; {many}: {', '.join(self.examples)}{more};"
            " correct or remove them, in the export or the table, and migrate again"
        )


Place = tuple[int, str]
"""Where a row stands: the oid of its table or partition, and its ctid."""


@dataclass(frozen=True)
class _Rows:
    """Rows, and the columns that make them what they are; no places where these could not be told."""

    columns: tuple[str, ...]
    places: tuple[Place, ...] | None


def cause_in_rows(error: Exception) -> psycopg.Error | None:
    """The server's error, where it is the rows that are at fault and the same statement is right for others."""
    cause = error if isinstance(error, psycopg.Error) else error.__cause__
    if not isinstance(cause, psycopg.Error):
        return None
    return cause if classify(cause) is FaultClass.DATA or cause.sqlstate in _ALSO_OF_ROWS else None


def attempt(work: Callable[[], T], find: Callable[[psycopg.Error], Obstacle]) -> T | Obstacle:
    """Does work on an object; what rows make impossible is returned with these rows.

    Args:
        work: Returns what became of the object.
        find: Told the server's error, looks for the rows.

    Raises:
        DatabaseError: The work fails for another reason.
    """
    try:
        return work()
    except DatabaseError as error:
        cause = cause_in_rows(error)
        if cause is None:
            raise
        return find(cause)


def attempt_each(
    session: Session, conn: Connection, attempts: Mapping[str, Callable[[], str | Obstacle]]
) -> tuple[dict[str, str], dict[str, str]]:
    """Do work on several objects, each by itself, and keep in `migration.unbuilt` what rows make impossible.

    Args:
        session: The run.
        conn: With no transaction open.
        attempts: By object, what returns what became of it, or what is in its way.

    Returns:
        What became of each object that could be brought about; and for the others a line on what is in the way.

    Raises:
        DatabaseError: An attempt fails for another reason.
    """
    outcomes: dict[str, str] = {}
    obstacles: list[Obstacle] = []
    for name, attempted in attempts.items():
        outcome = attempted()
        if isinstance(outcome, Obstacle):
            obstacles.append(outcome)
        else:
            outcomes[name] = outcome
    note_obstacles(session, conn, list(attempts), obstacles)
    return outcomes, {one.object: one.message() for one in obstacles}


def note_obstacles(session: Session, conn: Connection, objects: Sequence[str], found: Sequence[Obstacle]) -> None:
    """Keeps in `migration.unbuilt` what cannot be built of some objects, and forgets what was kept of them before."""
    if scalar(conn, "select to_regclass('migration.unbuilt')") is None:
        return
    with conn.transaction() if found else nullcontext():
        conn.execute("delete from migration.unbuilt where object = any(%s)", (list(objects),))
        if found:
            conn.execute(
                "insert into migration.unbuilt (object, relation, columns, reason, rows, examples, run_id)"
                " select object, relation, columns, reason, rows, examples, %s from jsonb_to_recordset(%s) as"
                " found (object text, relation text, columns text[], reason text, rows bigint, examples text[])",
                (session.run_id, Jsonb([asdict(one) for one in found])),
            )


def noted_obstacles(conn: Connection, objects: Sequence[str], *, since: datetime | None = None) -> tuple[str, ...]:
    """What `migration.unbuilt` says of some objects, each in one line; with `since`, only what was noted later."""
    if not objects or scalar(conn, "select to_regclass('migration.unbuilt')") is None:
        return ()
    rows = conn.execute(
        "select object, relation, columns, reason, rows, examples from migration.unbuilt"
        " where object = any(%s) and noted_at > coalesce(%s, '-infinity'::timestamptz) order by object",
        (list(objects), since),
    ).fetchall()
    return tuple(
        Obstacle(name, relation, tuple(columns), reason, count, tuple(examples)).message()
        for name, relation, columns, reason, count, examples in rows
    )


def counts_in_the_way_of(conn: Connection, objects: Iterable[str]) -> dict[str, int]:
    """How many rows make each of some objects impossible, as far as `migration.unbuilt` says."""
    wanted = list(objects)
    if not wanted or scalar(conn, "select to_regclass('migration.unbuilt')") is None:
        return {}
    query = "select object, rows from migration.unbuilt where object = any(%s) order by 1"
    return dict(conn.execute(query, (wanted,)).fetchall())


def rows_in_the_way_of(conn: Connection, objects: Iterable[str]) -> frozenset[str]:
    """Those of some objects that rows make impossible, as `migration.unbuilt` says; all of them once a finished migration took it."""
    if scalar(conn, "select to_regclass('migration.unbuilt')") is None:
        return frozenset(objects)
    return frozenset(counts_in_the_way_of(conn, objects))


def rows_against_index(
    session: Session, conn: Connection, definition: IndexDefinition, error: psycopg.Error
) -> Obstacle:
    """Finds the rows that an index cannot take: those with equal keys, or each that fails by itself."""

    def find(conn: Connection, schema: str) -> _Rows:
        shadow(conn, schema, [definition.table])
        conn.execute(definition.statement.text.encode())
        oid = _oid(conn, schema, definition.name)
        columns = _columns_read(conn, oid)
        if isinstance(error, errors.UniqueViolation):
            return _Rows(columns, _clashing(conn, definition.table, oid, None))
        return _Rows(columns, _failing(conn, schema, definition.table))

    return _obstacle(session, conn, definition.name, definition.table, error, find)


def rows_against_constraint(
    session: Session,
    conn: Connection,
    definition: ConstraintDefinition,
    error: psycopg.Error,
    tables: Sequence[str],
    *,
    in_place: bool = False,
) -> Obstacle:
    """Finds the rows that break a constraint.

    Args:
        session: The run.
        conn: With no transaction open.
        definition: The constraint.
        error: What the server said.
        tables: The tables that its statement names.
        in_place: Whether the table has it by now, NOT VALID, just as the statement says.
    """

    def find(conn: Connection, schema: str) -> _Rows:
        shadow(conn, schema, tables, keys=True)
        conn.execute(on_shadow(schema, definition))
        rows = _breaking(conn, schema, definition)
        # Evaluated for some rows, the condition itself fails.
        return _Rows(rows.columns, _failing(conn, schema, definition.table)) if rows.places is None else rows

    if in_place and definition.form in ("check", "foreign"):
        rows = _breaking(conn, "public", definition)
        if rows.places is not None:
            return _told(session, conn, definition.name, definition.table, error, rows)
    return _obstacle(session, conn, definition.name, definition.table, error, find)


def _breaking(conn: Connection, schema: str, definition: ConstraintDefinition) -> _Rows:
    """The rows that break a constraint, as a schema's table has it; no places where its condition fails for a row."""
    if definition.form not in ("check", "foreign"):
        index, operators = conn.execute(
            "select conindid::bigint, conexclop::bigint[] from pg_constraint where conrelid = to_regclass(%s) and conname = %s",
            (f'"{schema}"."{definition.table}"', definition.name),
        ).fetchone() or (0, None)
        return _Rows(_columns_read(conn, index), _clashing(conn, definition.table, index, operators))
    [rule] = row_rules(conn, schema, definition.table, [definition.name])
    broken = sql.SQL("select t.tableoid::bigint, t.ctid::text from public.{} t where {} limit {}").format(
        sql.Identifier(definition.table), rule.broken, sql.Literal(_COUNTED)
    )
    try:
        with conn.transaction():
            return _Rows(rule.columns, tuple(conn.execute(broken).fetchall()))
    except psycopg.Error as other:
        if definition.form == "foreign" or cause_in_rows(other) is None:
            raise
        return _Rows(rule.columns, None)


@dataclass(frozen=True)
class RowRule:
    """A CHECK or a foreign key, as the server has it.

    Attributes:
        name: The constraint.
        columns: What it reads of a row.
        uuids: Those of them that are of type uuid.
        broken: True of a row `t` of the table that breaks it.
    """

    name: str
    columns: tuple[str, ...]
    uuids: frozenset[str]
    broken: sql.Composable


def row_rules(conn: Connection, schema: str, table: str, names: Sequence[str]) -> tuple[RowRule, ...]:
    """Reads constraints of a table; one that is not there, or is neither a CHECK nor a foreign key, is passed over.

    Args:
        conn: Any.
        schema: Of the table, which is empty or not; what its foreign keys point at is looked for in public.
        table: Its name.
        names: Of the constraints.
    """
    rules: list[RowRule] = []
    for name, expression, other, columns, keys, uuids in conn.execute(
        _ROW_RULES, (sql.Identifier(schema, table).as_string(conn), list(names))
    ).fetchall():
        if other is None:
            broken = sql.SQL("not ({})").format(trusted(expression))
        else:
            broken = sql.SQL("{} and not exists (select from public.{} r where {})").format(
                sql.SQL(" and ").join(sql.SQL("t.{} is not null").format(sql.Identifier(one)) for one in columns),
                sql.Identifier(other),
                sql.SQL(" and ").join(
                    sql.SQL("r.{} = t.{}").format(sql.Identifier(key), sql.Identifier(one))
                    for key, one in zip(keys, columns, strict=True)
                ),
            )
        rules.append(RowRule(name, tuple(columns), frozenset(uuids), broken))
    return tuple(rules)


def rows_against_partition(
    session: Session, conn: Connection, table: str, default: str, error: psycopg.Error
) -> Obstacle:
    """Finds the rows of a default partition that no partition of their own can take: an index or a constraint forbids them.

    Such rows stand there where that object could not be built on the default partition either.
    """

    def find(conn: Connection, schema: str) -> _Rows:
        conn.execute(
            sql.SQL("create table {} (like {} including generated including indexes including constraints)").format(
                sql.Identifier(schema, table), sql.Identifier("public", table)
            )
        )
        return _Rows((), _failing(conn, schema, table, only=default))

    return _obstacle(session, conn, partition_for_rows_of(default), table, error, find)


def partition_for_rows_of(default: str) -> str:
    """What `migration.unbuilt` calls the partitions that rows of a default partition would move to."""
    return f"a partition for rows of {default}"


def _obstacle(
    session: Session,
    conn: Connection,
    name: str,
    table: str,
    error: psycopg.Error,
    find: Callable[[Connection, str], _Rows],
) -> Obstacle:
    try:
        rows = in_scratch_schema(session, conn, find)
    except psycopg.Error as other:
        if cause_in_rows(other) is None:
            raise
        return Obstacle(name, table, (), reason_of(error), 0, ())
    return _told(session, conn, name, table, error, rows)


def _told(session: Session, conn: Connection, name: str, table: str, error: psycopg.Error, rows: _Rows) -> Obstacle:
    places = rows.places or ()
    shown = _named(session, conn, table, places[:SHOWN])
    return Obstacle(name, table, rows.columns, reason_of(error), len(places), shown)


def _oid(conn: Connection, schema: str, name: str) -> int:
    return scalar(
        conn,
        "select c.oid::bigint from pg_class c join pg_namespace n on n.oid = c.relnamespace where n.nspname = %s and c.relname = %s",
        (schema, name),
    )


def _columns_read(conn: Connection, index: int) -> tuple[str, ...]:
    rows = conn.execute(
        "select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid"
        " where i.indexrelid = %(index)s and (a.attnum = any(i.indkey::smallint[]) or exists (select from pg_depend d"
        "  where d.classid = 'pg_class'::regclass and d.objid = i.indexrelid and d.refobjid = i.indrelid"
        "    and d.refobjsubid = a.attnum)) and a.attnum > 0 order by a.attnum",
        {"index": index},
    ).fetchall()
    return tuple(row[0] for row in rows)


def _clashing(conn: Connection, table: str, index: int, operators: list[int] | None) -> tuple[Place, ...]:
    """Rows that a unique index or an exclusion does not let stand beside another one."""
    keys, condition = conn.execute(
        "select array(select pg_get_indexdef(i.indexrelid, k, true) from generate_series(1, i.indnkeyatts) k),"
        " coalesce(pg_get_expr(i.indpred, i.indrelid), 'true') from pg_index i where i.indexrelid = %s",
        (index,),
    ).fetchone() or ([], "true")
    signs = conn.execute(
        "select format('operator(%%I.%%s)', n.nspname, o.oprname) from unnest(%s::bigint[]) with ordinality w (oid, place)"
        " join pg_operator o on o.oid = w.oid::oid join pg_namespace n on n.oid = o.oprnamespace order by w.place",
        (operators or [],),
    ).fetchall()
    compared = [sign for (sign,) in signs] or ["="] * len(keys)
    names = [f"key_{number}" for number in range(len(keys))]
    query = sql.SQL(
        """
        with k as materialized (
          select tableoid::bigint as part, ctid::text as place, {keys} from public.{table} where {condition}
        )
        select a.part, a.place from k a
         where exists (select from k b where {equal} and (b.part, b.place) <> (a.part, a.place))
         order by {order} limit {limit}
        """
    ).format(
        keys=sql.SQL(", ").join(
            sql.SQL("({}) as {}").format(trusted(key), sql.Identifier(name))
            for key, name in zip(keys, names, strict=True)
        ),
        table=sql.Identifier(table),
        condition=trusted(condition),
        equal=sql.SQL(" and ").join(
            sql.SQL("a.{name} {sign} b.{name}").format(name=sql.Identifier(name), sign=trusted(sign))
            for name, sign in zip(names, compared, strict=True)
        ),
        order=identifiers(names, "a"),
        limit=sql.Literal(_COUNTED),
    )
    return tuple(conn.execute(query).fetchall())


def _failing(conn: Connection, schema: str, table: str, *, only: str | None = None) -> tuple[Place, ...]:
    """Rows that the table's likeness in a scratch schema does not take, halving stretches of pages until each is alone.

    With `only`, no more than those of one partition are tried.
    """
    columns = identifiers([name for name, generated in columns_of(conn, "public", table).items() if not generated])
    target = sql.Identifier(schema, table)
    found: list[Place] = []

    def taken(part: str, condition: sql.Composable) -> bool:
        statement = sql.SQL("insert into {} ({}) select {} from only {} where {}").format(
            target, columns, columns, trusted(part), condition
        )
        try:
            # Nothing stays: rows do not clash with others, and the space is given back.
            with conn.transaction(force_rollback=True):
                conn.execute(statement)
        except psycopg.Error as error:
            if cause_in_rows(error) is None:
                raise
            return False
        return True

    parts = conn.execute(
        "select c.oid::bigint, c.oid::regclass::text, pg_relation_size(c.oid) / current_setting('block_size')::bigint"
        " from pg_class c where c.oid = to_regclass(%(table)s) and c.relkind = 'r'"
        " or c.oid in (select relid from pg_partition_tree(to_regclass(%(table)s)) where isleaf) order by c.relname",
        {"table": f'public."{only or table}"'},
    ).fetchall()
    for oid, part, pages in parts:
        stretches = [(0, pages)]
        while stretches and len(found) < _COUNTED:
            first, end = stretches.pop()
            within = sql.SQL("ctid >= {} and ctid < {}").format(sql.Literal(f"({first},0)"), sql.Literal(f"({end},0)"))
            if first >= end or taken(part, within):
                continue
            if end - first > 1:
                middle = (first + end) // 2
                stretches += [(middle, end), (first, middle)]
                continue
            rows = conn.execute(
                sql.SQL("select ctid::text from only {} where {}").format(trusted(part), within)
            ).fetchall()
            found += [
                (oid, place) for (place,) in rows if not taken(part, sql.SQL("ctid = {}").format(sql.Literal(place)))
            ]
    return tuple(found[:_COUNTED])


def _named(session: Session, conn: Connection, table: str, places: Sequence[Place]) -> tuple[str, ...]:
    """Rows by their primary key and, where they were migrated, their id in Base44."""
    mapping = session.catalog.mappings.get(table)
    keys = [
        row[0]
        for row in conn.execute(
            "select a.attname from pg_index i join pg_attribute a on a.attrelid = i.indrelid and a.attnum = any(i.indkey::smallint[])"
            " where i.indrelid = to_regclass(%s) and i.indisprimary order by array_position(i.indkey::smallint[], a.attnum)",
            (f'public."{table}"',),
        ).fetchall()
    ]
    if mapping is not None:
        keys = [mapping.key]
    shown = keys or ["ctid"]
    known = mapping is not None and scalar(conn, "select to_regclass('migration.migrated')") is not None
    rows = conn.execute(
        sql.SQL(
            "select {exported}, {shown} from unnest(%(parts)s::bigint[], %(places)s::text[]) with ordinality w (part, place, number)"
            " join public.{table} t on t.tableoid = w.part::oid and t.ctid = w.place::tid {migrated} order by w.number"
        ).format(
            exported=sql.SQL("m.base44_id" if known else "null"),
            shown=sql.SQL(", ").join(sql.SQL("t.{}::text").format(sql.Identifier(key)) for key in shown),
            table=sql.Identifier(table),
            migrated=sql.SQL(
                "left join migration.migrated m on m.entity = %(entity)s and m.id::text = t.{}::text"
            ).format(sql.Identifier(shown[0]))
            if known
            else sql.SQL(""),
        ),
        {"parts": [part for part, _ in places], "places": [place for _, place in places], "entity": table},
    ).fetchall()
    names: list[str] = []
    for exported, *values in rows:
        name = ", ".join(f"{key} {value}" for key, value in zip(shown, values, strict=True))
        names.append(f"{name} (Base44 id {exported})" if exported else name)
    return tuple(names)


def without_rows(name: str, error: psycopg.Error) -> Obstacle:
    """What there is to say of a view that its rows make impossible: the server does not say which they are."""
    return Obstacle(name, name, (), reason_of(error), 0, ())
