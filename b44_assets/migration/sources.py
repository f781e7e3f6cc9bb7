"""The two views between a staged table and its target.

`migration.<table>_source` gives a mapping its fields under one name each, whichever spelling the export uses and whether
the export has them or not. `migration.<table>_mapping` is the mapping over it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import UTC, datetime
from typing import LiteralString

import psycopg
from psycopg import sql

from b44_assets.catalog import Field, Period, Spec, TableMapping
from b44_assets.config.quantities import EARLIEST_MONTH
from b44_assets.errors import DatabaseError
from b44_assets.postgres.error_classes import is_of_statement
from b44_assets.session import Connection, columns_of, reason_of, scalar, trusted

RECORD_NUMBER = "_record_number"
SOURCE_FILE = "_source_file"
CLEAN_PREFIX = "_clean_"
MORE_FIELDS = "_more_fields"
"""The staged column, JSON, of the fields that have no column of their own."""
_MOST_COLUMNS = 300
"""A row must fit into a page of 8 kB: a value takes up to 25 bytes of it, longer ones are moved out (18 bytes); 325 would do."""
VERDICTS = ("name_given", "reasons", "repairs", "unmapped")
"""Columns of a mapping that are about the record rather than for the target."""
LONGEST_ID = 2_000
"""Bytes of a record's id: what is kept of a record by it is indexed by it, and an index takes 2,704."""
_TAKEN = frozenset({RECORD_NUMBER, SOURCE_FILE, MORE_FIELDS, "tableoid", "cmax", "xmax", "cmin", "xmin", "ctid"})


def column_names(fields: Iterable[str]) -> dict[str, str]:
    """A column name for every exported field: its own name, unless PostgreSQL would cut it, or it is the server's or ours."""
    names: dict[str, str] = {}
    for name in fields:
        fitting = name
        if len(name.encode()) > 63 or name in _TAKEN or name.startswith(CLEAN_PREFIX):
            short = name.encode()[:50].decode(errors="ignore")
            fitting = f"{short}_{hashlib.sha256(name.encode()).hexdigest()[:10]}"
        names[name] = fitting
    return names


def _columns(item: Field, staged: Iterable[str]) -> dict[str, str]:
    """The staged columns of a field, by spelling, the preferred one first."""
    return {name: column for name, column in column_names(item.spellings).items() if column in staged}


def with_columns(fields: Iterable[str], mapping: TableMapping) -> set[str]:
    """The fields that get a staged column of their own: those that the mapping reads, and the first of the others.

    Fields that are added at the end change nothing for those before.
    """
    read = {name for item in mapping.fields for name in item.spellings}
    others = [name for name in fields if name not in read]
    return read | set(others[: max(0, _MOST_COLUMNS - len(read) - len(mapping.html))])


def staged_is_gone(conn: Connection, table: str) -> bool:
    """Tells whether records were staged that are there no more: the table is unlogged, and a crash of the server empties it."""
    if not scalar(conn, "select records > refused from migration.exports where entity = %s", (table,)):
        return False
    return not scalar(conn, sql.SQL("select exists (select from base44.{})").format(sql.Identifier(table)))


def drop_source_view(conn: Connection, table: str) -> None:
    """Drops the source view, and the mapping that reads it."""
    conn.execute(sql.SQL("drop view if exists migration.{} cascade").format(sql.Identifier(f"{table}_source")))


def _exported(item: Field, staged: dict[str, bool]) -> list[sql.Composable]:
    columns = _columns(item, staged).values()
    return [sql.SQL("b44.present(s.{})").format(sql.Identifier(column)) for column in columns]


def _value(item: Field, staged: dict[str, bool]) -> sql.Composable:
    """The first spelling with something in it; null where the export has no such field."""
    values = _exported(item, staged)
    if not values:
        return sql.SQL("null::text")
    return values[0] if len(values) == 1 else sql.SQL("coalesce({})").format(sql.SQL(", ").join(values))


def last_change(mapping: TableMapping, staged: dict[str, bool]) -> sql.Composable:
    """When a record last changed by its own account, as SQL over the staged columns; null where it does not say."""
    fields = {item.name: item for item in mapping.fields}
    times = [
        sql.SQL("migration.as_timestamp({})").format(_value(fields[name], staged))
        for name in ("updated_date", "created_date")
        if name in fields
    ]
    return sql.SQL("coalesce({})").format(sql.SQL(", ").join([*times, sql.SQL("null::timestamptz")]))


def create_source_view(conn: Connection, mapping: TableMapping) -> None:
    """Makes the source view anew for the columns that are staged now; the mapping's view goes with the old one."""
    table = mapping.spec.name
    staged = columns_of(conn, "base44", table)
    shown: list[sql.Composable] = []
    for item in mapping.fields[1:]:
        value = _value(item, staged)
        if item.name in mapping.html:
            clean = sql.Identifier("s", CLEAN_PREFIX + item.name)
            shown += [
                sql.SQL("coalesce({}, {}) as {}").format(clean, value, sql.Identifier(item.name)),
                sql.SQL("{} as {}").format(value, sql.Identifier(f"{item.name}_exported")),
                sql.SQL("{} is not null as {}").format(clean, sql.Identifier(f"{item.name}_changed")),
            ]
        else:
            shown.append(sql.SQL("{} as {}").format(value, sql.Identifier(item.name)))
    known = {column for item in mapping.fields for column in column_names(item.spellings).values()}
    own = {RECORD_NUMBER, SOURCE_FILE, MORE_FIELDS, *(CLEAN_PREFIX + name for name in mapping.html)}
    fields, exported_at = conn.execute(
        "select fields, exported_at from migration.exports where entity = %s", (table,)
    ).fetchone() or ((), None)
    renamed = {column: name for name, column in column_names(fields).items() if column != name}
    left = [name for name in staged if name not in known and name not in own]
    rest = [
        sql.SQL("{}, b44.present(s.{})").format(sql.Literal(renamed.get(name, name)), sql.Identifier(name))
        for name in left
    ]
    for item in mapping.fields:
        # Of several spellings of one field one is read; the others are kept where they say something else.
        rest += [
            sql.SQL("{}, nullif(b44.present(s.{}), {})").format(
                sql.Literal(name), sql.Identifier(column), _value(item, staged)
            )
            for name, column in [*_columns(item, staged).items()][1:]
        ]
    unmapped = [sql.SQL("jsonb_strip_nulls({})").format(piece) for piece in as_objects(rest)]
    # Only where there is such a field: most exports have none, and the function is called for every record.
    more = MORE_FIELDS in staged and any(column_names([name])[name] not in staged for name in fields)
    if more:
        unmapped.append(sql.SQL("migration.present_fields(s.{})").format(sql.Identifier(MORE_FIELDS)))
    record = [
        sql.SQL("to_jsonb(s.*) - {}::text[]").format(sql.Literal(sorted(own | set(renamed)))),
        *as_objects(
            [
                sql.SQL("{}, s.{}").format(sql.Literal(name), sql.Identifier(column))
                for column, name in renamed.items()
                if column in staged
            ]
        ),
    ]
    if more:
        record.append(sql.SQL("coalesce(s.{}, '{{}}')").format(sql.Identifier(MORE_FIELDS)))
    base44_id = sql.SQL("b44.trim(s.id)") if "id" in staged else sql.SQL("null::text")
    read = [base44_id, *(_value(item, staged) for item in mapping.fields[1:])]
    drop_source_view(conn, table)
    # Without a subquery, with which PostgreSQL maps all records in one process.
    conn.execute(
        sql.SQL(
            """
            create view migration.{view} as
            select s._record_number as record_number,
                   s._source_file as source_file,
                   {base44_id} as base44_id,
                   v.record_number is not null as superseded,
                   coalesce(u.exported_at, {exported_at}) as exported_at,
                   {shown},
                   {last_change} as last_change,
                   hash_record_extended(row({read}), 0) as record_checksum,
                   {record} as record,
                   {unmapped} as unmapped
              from base44.{table} s
              left join migration.versions v on v.entity = {entity} and v.record_number = s._record_number
              left join migration.undated u on u.entity = {entity} and u.base44_id = {base44_id}
             where v.repeated is not true
            """
        ).format(
            view=sql.Identifier(f"{table}_source"),
            base44_id=base44_id,
            exported_at=sql.Literal(exported_at),
            entity=sql.Literal(table),
            shown=sql.SQL(", ").join(shown),
            last_change=last_change(mapping, staged),
            read=sql.SQL(", ").join(read),
            record=sql.SQL(" || ").join(record),
            unmapped=sql.SQL(" || ").join(unmapped) if unmapped else sql.SQL("'{}'::jsonb"),
            table=sql.Identifier(table),
        )
    )


def as_objects(members: list[sql.Composed]) -> list[sql.Composed]:
    """Pairs of name and value as JSON objects; `jsonb_build_object` takes 100 arguments at most."""
    return [
        sql.SQL("jsonb_build_object({})").format(sql.SQL(", ").join(members[start : start + 40]))
        for start in range(0, len(members), 40)
    ]


def target_columns(conn: Connection, mapping: TableMapping) -> list[str]:
    """The columns that the mapping fills, in the target's order.

    Raises:
        DatabaseError: The mapping gives a column that the target does not have, or its view is not there.
    """
    table = mapping.spec.name
    target = columns_of(conn, "public", table)
    given = columns_of(conn, "migration", f"{table}_mapping")
    if not given:
        raise DatabaseError(f"{table}: what is staged is not planned yet; materialize {table} first")
    strange = [name for name in given if name not in target and name not in {*VERDICTS, "record_number", "base44_id"}]
    if strange:
        raise DatabaseError(f"{mapping.spec.path}: gives {strange[0]}, which {table} does not have")
    return [name for name, generated in target.items() if name in given and not generated]


def without_suffixed(mapping: TableMapping, columns: list[str]) -> list[str]:
    """The columns that are stored as the mapping gives them: all but the one that is made unique."""
    return [name for name in columns if mapping.unique_suffix is None or name != mapping.unique_suffix.column]


def no_seed(table: Spec, alias: str) -> sql.Composable:
    """Whether a row of a table is none of those that the table's file puts into it."""
    if table.seed is None:
        return sql.SQL("true")
    # As text: a table of somebody else's, which is told apart by this as well, may have a column of another type.
    return sql.SQL("({}::text in ({})) is not true").format(
        sql.Identifier(alias, table.seed.column), sql.SQL(", ").join(map(sql.Literal, table.seed.values))
    )


def name_agrees(mapping: TableMapping, stored: str, wanted: str) -> sql.Composable:
    """Whether a stored name is the wanted one, or that with a number after it; true where no column gets numbers.

    Args:
        mapping: The mapping.
        stored: Alias of the relation with the stored row.
        wanted: Alias of the relation with the mapped record.
    """
    if mapping.unique_suffix is None:
        return sql.SQL("true")
    column = mapping.unique_suffix.column
    return sql.SQL(
        "({stored} is not distinct from {wanted}"
        " or coalesce(regexp_replace({stored}, '-[1-9][0-9]*$', '') = {wanted}, false))"
    ).format(stored=sql.Identifier(stored, column), wanted=sql.Identifier(wanted, column))


def made_of_the_same(mapping: TableMapping, stored: str, wanted: str) -> sql.Composable:
    """Whether a name was made from what its record still says, though it would be made otherwise today.

    Links go by a name, so that one that was made by earlier rules stays; whether the row is as the migration wrote it must
    be asked besides.

    Args:
        mapping: The mapping.
        stored: Alias of the relation with the stored row.
        wanted: Alias of the relation with the mapped record.
    """
    if mapping.unique_suffix is None or mapping.unique_suffix.made_from is None:
        return sql.SQL("false")
    return sql.SQL("(not {}.name_given and {} is not null and {} is not distinct from {})").format(
        sql.Identifier(wanted),
        sql.Identifier(stored, mapping.unique_suffix.column),
        sql.Identifier(stored, mapping.unique_suffix.made_from),
        sql.Identifier(wanted, mapping.unique_suffix.made_from),
    )


_MAPPED: LiteralString = (
    "with source as not materialized (select * from migration.{source}) select {shown} from ({mapping}\n) as mapped"
)


def _with_implausible(column: str, latest: datetime | None) -> sql.Composable:
    """The reasons of a mapping, and one more where the partition key is implausible."""
    return sql.SQL(
        "case when {column} < {earliest} or {column} > {latest} then reasons || {reason}::text else reasons end as reasons"
    ).format(
        column=sql.Identifier(column),
        earliest=sql.Literal(datetime(EARLIEST_MONTH.year, EARLIEST_MONTH.month, EARLIEST_MONTH.day, tzinfo=UTC)),
        latest=sql.Literal(latest),
        reason=sql.Literal(f"implausible:{column}"),
    )


def create_mapping_view(conn: Connection, mapping: TableMapping, period: Period | None, plausible_years: int) -> None:
    """Makes the mapping's view anew; the source view, and the tables that the mapping reads, must be there.

    A partition key that nobody means (1900, 9999) is a reason against a record, whatever its mapping says: each would
    get a partition of its own, beyond what dates can be reckoned with.

    Args:
        conn: The connection.
        mapping: The entity's mapping.
        period: Of the target table; without one there is no partition key.
        plausible_years: How many years after it was staged a record's partition key may lie.

    Raises:
        DatabaseError: The mapping is no valid SELECT; names the file.
    """
    table = mapping.spec.name
    statement = mapping.spec.statements[0]
    names = {
        "view": sql.Identifier(f"{table}_mapping"),
        "source": sql.Identifier(f"{table}_source"),
        "mapping": trusted(statement.text),
    }
    conn.execute(sql.SQL("drop view if exists migration.{}").format(sql.Identifier(f"{table}_mapping")))
    try:
        shown: sql.Composable = sql.SQL("*")
        if period is not None:
            described = conn.execute(sql.SQL(_MAPPED).format(shown=shown, **names) + sql.SQL(" limit 0")).description
            latest = scalar(
                conn,
                "select staged_at + make_interval(years => %s) from migration.exports where entity = %s",
                (plausible_years, table),
            )
            shown = sql.SQL(", ").join(
                _with_implausible(period.column, latest) if column.name == "reasons" else sql.Identifier(column.name)
                for column in described or ()
            )
        conn.execute(
            sql.SQL("create view migration.{view} as ").format(**names) + sql.SQL(_MAPPED).format(shown=shown, **names)
        )
    except psycopg.Error as error:
        if not is_of_statement(error):
            raise
        raise DatabaseError(f"{mapping.spec.path}:{statement.line}: {reason_of(error)}") from error
