"""Whether what `sql/` promises holds in the database: constraints, indexes, foreign keys, views.

What belongs here: looking, and saying what is wrong. What does not: putting it right (the executors do), or comparing
definitions (`drift`), plans (`query_plans`) and sizes (`monitoring`), or rules of an app's own (`row_checks`).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import partial

import psycopg
from psycopg import sql

from b44_assets.catalog import (
    FOREIGN_KEY,
    Catalog,
    Kind,
    Spec,
    constraint_definitions,
    index_definitions,
    view_definition,
)
from b44_assets.schema.breaking_rows import BreakingRow, breaking_rows
from b44_assets.schema.row_checks import SHOWN_ROWS
from b44_assets.schema.unbuilt import cause_in_rows, counts_in_the_way_of, noted_obstacles, rows_in_the_way_of
from b44_assets.schema.views import differences, last_refresh
from b44_assets.session import CHANGED, MADE, Connection, Session, reason_of, scalar, time_column, trusted
from b44_assets.wording import plural, some_of

SHOWN = 5
"""How many of what is wrong a sentence names."""
_MAX_AGE = timedelta(hours=7)
"""A view refreshed every six hours is late after seven."""


def _some(names: tuple[str, ...]) -> str:
    return some_of(names, SHOWN)


@dataclass(frozen=True)
class ConstraintsValid:
    """Whether every constraint of a table is there and validated for every row.

    Attributes:
        table: The table.
        checked: Constraints looked at, those of partitions included.
        missing: Constraints that `sql/constraints/` gives and the table lacks.
        not_validated: Constraints added NOT VALID and never validated, as `table.constraint`.
        obstacles: Which rows make some of these impossible, each in one line.
        only_listed: Whether rows may break all of these, by their files, and are known.
        unfit: How many rows break each of these.
        listed_by: Checks that list these rows, where all of them are listed: those are the ones to look at.
        broken_by: The first of the rows that no check lists.
        of_no_file: Of those that are not validated, the ones of the table that `sql/constraints/` does not give, or no longer.
    """

    table: str
    checked: int
    missing: tuple[str, ...]
    not_validated: tuple[str, ...]
    obstacles: tuple[str, ...] = ()
    only_listed: bool = False
    unfit: Mapping[str, int] = field(default_factory=dict[str, int])
    listed_by: tuple[str, ...] = ()
    broken_by: tuple[BreakingRow, ...] = ()
    of_no_file: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """All are there and validated, or a check lists the rows that others of the migration break."""
        return bool(self.listed_by) or not (self.missing or self.not_validated)

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.only_listed and (self.missing or self.not_validated):
            broken = _counted(self.unfit) or _some(self.missing + self.not_validated)
            where = _listed_by(self.listed_by) or _named(self.broken_by)
            return f"rows that came from Base44 break {broken}, new rows may not{where}"
        if self.of_no_file and not self.missing:
            dropped = f"alter table {self.table} drop constraint {self.of_no_file[0]}"
            return f"in no file of sql/ and never validated: {_some(self.of_no_file)}; put it back, validate it, or drop it: {dropped}"
        if self.missing:
            return "; ".join((f"{self.table} lacks {_some(self.missing)}", *self.obstacles))
        if self.not_validated:
            return "; ".join((f"never validated: {_some(self.not_validated)}", *self.obstacles))
        return f"{self.checked} constraints are there and hold for every row"


@dataclass(frozen=True)
class IndexesValid:
    """Whether every index of a table is there, on every partition, and can be used.

    Attributes:
        table: The table.
        checked: Indexes looked at, those of partitions included.
        missing: Indexes that `sql/indexes/` gives and the table lacks.
        invalid: Indexes that an interrupted build left.
        incomplete: Indexes that some partition has no part of.
        obstacles: Which rows make some of these impossible, each in one line.
        only_listed: Whether rows may break all of these, by their files, and are known.
        unfit: How many rows break each of these.
        listed_by: Checks that list these rows, where all of them are listed: those are the ones to look at.
    """

    table: str
    checked: int
    missing: tuple[str, ...]
    invalid: tuple[str, ...]
    incomplete: tuple[str, ...]
    obstacles: tuple[str, ...] = ()
    only_listed: bool = False
    unfit: Mapping[str, int] = field(default_factory=dict[str, int])
    listed_by: tuple[str, ...] = ()

    @property
    def passed(self) -> bool:
        """All are there and valid, or a check lists the rows that leave no room for others."""
        return bool(self.listed_by) or not (self.missing or self.invalid or self.incomplete)

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.only_listed and (self.missing or self.invalid or self.incomplete):
            absent = _counted(self.unfit) or _some(self.missing + self.invalid)
            return f"rows that came from Base44 leave no room for {absent}{_listed_by(self.listed_by)}"
        if self.missing:
            return "; ".join((f"{self.table} lacks {_some(self.missing)}", *self.obstacles))
        if self.invalid:
            return "; ".join((f"invalid: {_some(self.invalid)}", *self.obstacles))
        if self.incomplete:
            return "; ".join((f"not on every partition: {_some(self.incomplete)}", *self.obstacles))
        return f"{self.checked} {plural(self.checked, 'index is', 'indexes are')} there and valid"


@dataclass(frozen=True)
class ForeignKeysHold:
    """Whether every reference of a table has its row, counted anew.

    Attributes:
        table: The table.
        rows: Rows looked at.
        orphans: Rows whose reference has no row, by foreign key; with 0 for those that hold.
        only_listed: Whether rows may break all of those that do not hold, by their files.
        listed_by: Checks that list these rows, where all of them are listed: those are the ones to look at.
        broken_by: The first of the rows that no check lists.
    """

    table: str
    rows: int
    orphans: dict[str, int]
    only_listed: bool = False
    listed_by: tuple[str, ...] = ()
    broken_by: tuple[BreakingRow, ...] = ()

    @property
    def passed(self) -> bool:
        """No reference is without its row, or a check lists those that are."""
        return bool(self.listed_by) or not any(self.orphans.values())

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        broken = tuple(f"{name} ({count} {plural(count, 'row')})" for name, count in self.orphans.items() if count)
        if broken:
            return f"references without a row: {_some(broken)}{_listed_by(self.listed_by) or _named(self.broken_by)}"
        number = len(self.orphans)
        return f"{number} foreign {plural(number, 'key holds', 'keys hold')} for {self.rows} {plural(self.rows, 'row')}"


@dataclass(frozen=True)
class ViewFresh:
    """Whether a materialized view is filled, and not older than it may be while its tables change.

    Attributes:
        view: The view.
        populated: Whether it was ever filled.
        refreshed_at: When it was last filled; None where nobody noted it.
        changed_since: Whether a table that it reads has rows newer than that.
        age: How old it is.
        obstacle: Why it could not be filled since, in one line; empty where nothing stood in the way.
    """

    view: str
    populated: bool
    refreshed_at: datetime | None
    changed_since: bool
    age: timedelta | None
    obstacle: str = ""

    @property
    def passed(self) -> bool:
        """It is filled, and young enough or still up to date."""
        if self.obstacle:
            return False
        return self.populated and self.age is not None and (self.age <= _MAX_AGE or not self.changed_since)

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.obstacle:
            return self.obstacle
        if not self.populated:
            return f"{self.view} was never filled"
        if self.refreshed_at is None or self.age is None:
            return f"nobody noted when {self.view} was filled; refresh it"
        when = f"{self.refreshed_at:%Y-%m-%d %H:%M} UTC"
        if not self.passed:
            return f"{self.view} is of {when}, and its tables have changed since"
        return f"{self.view} is of {when}"


@dataclass(frozen=True)
class ViewEqualsQuery:
    """Whether a materialized view holds the rows of its query.

    Attributes:
        view: The view.
        rows: Its rows.
        differing: Rows too many or too few against the query.
        fault: Why the query cannot be evaluated; empty where it can.
    """

    view: str
    rows: int
    differing: int
    fault: str = ""

    @property
    def passed(self) -> bool:
        """No row differs."""
        return not self.fault and self.differing == 0

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.passed:
            return f"the {self.rows} rows of {self.view} are those of its query"
        if self.fault:
            return f"{self.view} cannot be compared: its query fails: {self.fault}"
        return f"{self.view} differs from its query in {self.differing} {plural(self.differing, 'row')}; refresh it"


def constraints_valid(session: Session, table: str) -> ConstraintsValid:
    """Looks at the constraints of a table and its partitions."""
    wanted = [item.name for spec in session.catalog.on(table, Kind.CONSTRAINT) for item in constraint_definitions(spec)]
    with session.connection(f"check {table}", replica=True) as conn:
        rows = conn.execute(
            """
            select c.oid = to_regclass(%(table)s), c.relname, k.conname, k.convalidated
              from pg_constraint k
              join pg_class c on c.oid = k.conrelid
             -- As an array, lest all constraints of the database be read for each table.
             where k.conrelid = any(array(select to_regclass(%(table)s)::oid
                                     union select relid from pg_partition_tree(to_regclass(%(table)s))))
             order by c.relname, k.conname
            """,
            {"table": f"public.{table}"},
        ).fetchall()
        held = {name for own, _, name, _ in rows if own}
        missing = tuple(name for name in wanted if name not in held)
        unvalidated = {name for _, _, name, validated in rows if not validated}
        only_listed = _only_listed(conn, session, table, missing, unvalidated)
        return ConstraintsValid(
            table,
            len(rows),
            missing,
            tuple(f"{relation}.{name}" for _, relation, name, validated in rows if not validated),
            noted_obstacles(conn, [*missing, *unvalidated]),
            only_listed=only_listed,
            unfit=counts_in_the_way_of(conn, {*missing, *unvalidated}),
            listed_by=_checks_listing(session, table, {*missing, *unvalidated}) if only_listed else (),
            broken_by=breaking_rows(conn, session, table, unvalidated) if only_listed else (),
            of_no_file=tuple(name for own, _, name, validated in rows if own and not validated and name not in wanted),
        )


def indexes_valid(session: Session, table: str) -> IndexesValid:
    """Looks at the indexes of a table and its partitions."""
    wanted = [item.name for spec in session.catalog.on(table, Kind.INDEX) for item in index_definitions(spec)]
    with session.connection(f"check {table}", replica=True) as conn:
        rows = conn.execute(
            """
            select i.indrelid = to_regclass(%(table)s), c.relname, i.indisvalid and i.indisready and i.indislive,
                   c.relkind <> 'I' or (select count(*) from pg_inherits h where h.inhparent = c.oid)
                                     = (select count(*) from pg_inherits h where h.inhparent = i.indrelid)
              from pg_index i
              join pg_class c on c.oid = i.indexrelid
             where i.indrelid = any(array(select to_regclass(%(table)s)::oid
                                     union select relid from pg_partition_tree(to_regclass(%(table)s))))
             order by c.relname
            """,
            {"table": f"public.{table}"},
        ).fetchall()
        held = {name for own, name, _, _ in rows if own}
        missing = tuple(name for name in wanted if name not in held)
        invalid = tuple(name for _, name, valid, _ in rows if not valid)
        incomplete = tuple(name for _, name, _, complete in rows if not complete)
        only_listed = _only_listed(conn, session, table, (*missing, *invalid), incomplete)
        return IndexesValid(
            table,
            len(rows),
            missing,
            invalid,
            incomplete,
            noted_obstacles(conn, [*missing, *invalid, *incomplete]),
            only_listed=only_listed,
            unfit=counts_in_the_way_of(conn, {*missing, *invalid}),
            listed_by=_checks_listing(session, table, {*missing, *invalid, *incomplete}) if only_listed else (),
        )


def _counted(unfit: Mapping[str, int]) -> str:
    return _some(tuple(f"{name} ({count} {plural(count, 'row')})" for name, count in unfit.items()))


def _listed_by(checks: tuple[str, ...]) -> str:
    """The rest of a sentence on rows: where they are listed."""
    return f"; {' and '.join(checks)} {plural(len(checks), 'lists', 'list')} the rows" if checks else ""


def _named(rows: Sequence[BreakingRow]) -> str:
    """The rest of a sentence on rows that no check lists: the first ones of each constraint, with what is wrong in them."""
    by_rule: dict[str, list[str]] = {}
    for row in rows:
        by_rule.setdefault(row.rule, []).append(row.told())
    return "".join(
        f"; {rule}: {', '.join(told[:SHOWN_ROWS])}{', …' if len(told) > SHOWN_ROWS else ''}"
        for rule, told in [*by_rule.items()][:SHOWN]
    )


def _checks_listing(session: Session, table: str, rules: Iterable[str]) -> tuple[str, ...]:
    """The checks that list the rows which break some rules of a table; none where one of the rules is listed by no check."""
    listing = session.catalog.listing(table)
    wanted = set(rules)
    return tuple(sorted({listing[rule] for rule in wanted})) if wanted <= listing.keys() else ()


def _only_listed(
    conn: Connection, session: Session, table: str, missing: Iterable[str], not_in_force: Iterable[str]
) -> bool:
    """Whether nothing is wrong with a table's constraints, or indexes, but what rows may break by their files."""
    listed = session.catalog.listed(table)
    lacking = set(missing)
    # Most tables lack nothing, and nothing need be asked for them.
    return set(not_in_force) <= listed and (not lacking or lacking <= listed & rows_in_the_way_of(conn, listed))


def foreign_keys_hold(session: Session, table: str) -> ForeignKeysHold:
    """Counts references without a row, for each foreign key that `sql/constraints/` gives.

    It does not look at what the server says of its constraints: rows can get past them (a superuser's
    `session_replication_role`, damage), and a constraint that was dropped says nothing.
    """
    references = {
        item.name: match
        for spec in session.catalog.on(table, Kind.CONSTRAINT)
        for item in constraint_definitions(spec)
        if (match := FOREIGN_KEY.match(item.rest)) is not None
    }
    counts: list[sql.Composable] = [sql.SQL("count(*)")]
    joins: list[sql.Composable] = []
    for number, match in enumerate(references.values()):
        alias = f"r{number}"
        columns = [sql.Identifier("t", name.strip(' "\n')) for name in match["columns"].split(",")]
        keys = [sql.Identifier(alias, name.strip(' "\n')) for name in match["keys"].split(",")]
        given = sql.SQL(" and ").join(sql.SQL("{} is not null").format(column) for column in columns)
        counts.append(sql.SQL("count(*) filter (where {} and {} is null)").format(given, keys[0]))
        equal = sql.SQL(" and ").join(
            sql.SQL("{} = {}").format(key, column) for key, column in zip(keys, columns, strict=True)
        )
        joins.append(
            sql.SQL("left join public.{} {} on {}").format(sql.Identifier(match["table"]), sql.Identifier(alias), equal)
        )
    query = sql.SQL("select {} from public.{} t {}").format(
        sql.SQL(", ").join(counts), sql.Identifier(table), sql.SQL(" ").join(joins)
    )
    with session.connection(f"check {table}", replica=True) as conn:
        row = conn.execute(query).fetchone()
        assert row is not None
        orphans = dict(zip(references, row[1:], strict=True))
        broken = {name for name, count in orphans.items() if count}
        return ForeignKeysHold(
            table,
            row[0],
            orphans,
            only_listed := broken <= session.catalog.listed(table),
            _checks_listing(session, table, broken) if only_listed else (),
            breaking_rows(conn, session, table, broken),
        )


def view_fresh(session: Session, spec: Spec, *, now: datetime | None = None) -> ViewFresh:
    """Looks at when a materialized view was filled, as was noted then, and whether its tables have newer rows.

    Args:
        session: The run.
        spec: The view's file.
        now: The time to compare with; by default the present.
    """
    now = now or datetime.now(UTC)
    with session.connection(f"check {spec.name}", replica=True) as conn:
        populated = scalar(
            conn,
            "select relispopulated from pg_class where oid = to_regclass(%s) and relkind = 'm'",
            (f"public.{spec.name}",),
        )
        refreshed_at = last_refresh(conn, spec.name)
        changed = refreshed_at is not None and any(
            _changed_since(conn, table, refreshed_at) for table in _tables_read(session.catalog, spec)
        )
        obstacle = "; ".join(noted_obstacles(conn, [spec.name], since=refreshed_at))
    age = now - refreshed_at if refreshed_at else None
    return ViewFresh(spec.name, bool(populated), refreshed_at, changed, age, obstacle)


def _tables_read(catalog: Catalog, view: Spec) -> tuple[str, ...]:
    """The tables that a view reads, also by way of plain views."""
    plain = {spec.name: spec for spec in catalog.plain_views}
    read = set(view.depends)
    todo = [*view.depends]
    while todo:
        if (other := plain.get(todo.pop())) is not None:
            todo += [name for name in other.depends if name not in read]
            read.update(other.depends)
    return tuple(table.name for table in catalog.of(Kind.TABLE) if table.name in read)


def _changed_since(conn: Connection, table: str, moment: datetime) -> bool:
    newest = [name for name in (time_column(conn, "public", table, names) for names in (MADE, CHANGED)) if name]
    return any(
        scalar(
            conn,
            sql.SQL("select exists (select from public.{} where {} > %s)").format(
                sql.Identifier(table), sql.Identifier(name)
            ),
            (moment,),
        )
        for name in newest
    )


def view_equals_query(session: Session, spec: Spec) -> ViewEqualsQuery:
    """Compares a materialized view with its query, evaluated now. One that was never filled differs in every row."""
    definition = view_definition(spec)
    with session.connection(f"check {spec.name}", replica=True) as conn:
        populated = scalar(
            conn, "select relispopulated from pg_class where oid = to_regclass(%s)", (f"public.{spec.name}",)
        )
        if not populated:
            count = sql.SQL("select count(*) from ({}) as expected").format(trusted(definition.query))
            compared = partial(scalar, conn, count)
            rows = 0
        else:
            rows = scalar(conn, sql.SQL("select count(*) from public.{}").format(sql.Identifier(spec.name)))
            compared = partial(differences, conn, spec.name, definition.query)
        try:
            return ViewEqualsQuery(spec.name, rows, compared())
        except psycopg.Error as error:
            if cause_in_rows(error) is None:
                raise
            return ViewEqualsQuery(spec.name, rows, 0, reason_of(error))
