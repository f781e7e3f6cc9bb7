"""Content parity: each stored row is compared with what its record says, by checksums, and differences are named.

Nothing here reads what the load itself computed: the expected rows come from the staged text through the mapping. Whoever
asks for the check has it evaluated anew; a run that has just planned compares with the checksum that the mapping gave each
record then.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.migration.plan import is_current
from b44_assets.migration.sources import name_agrees, target_columns, without_suffixed
from b44_assets.session import (
    CHANGED,
    MADE,
    Connection,
    Session,
    checksum,
    identifiers,
    plan_for_bulk,
    scalar,
    time_column,
)
from b44_assets.wording import plural

DIFFERENCES_SHOWN = 20


@dataclass(frozen=True)
class Difference:
    """A record whose stored row is not what the mapping says: its number and id, and the columns that differ.

    `columns` is empty where the row is missing.
    """

    record_number: int
    base44_id: str
    columns: tuple[str, ...]


@dataclass(frozen=True)
class ContentParity:
    """Whether every stored row is what the mapping makes of the staged record.

    Attributes:
        entity: The target table.
        compared: Records compared.
        missing: Records without a row.
        differing: Rows that differ, and that nothing excuses.
        touched: Those of them that are not as the migration wrote them. An application that counts views without a newer
            `updated_at` does so, and so does damage; which it was cannot be told.
        edited: Rows that differ and were changed in the new system since: their `updated_at` is newer.
        conflicts: Rows that differ since the newer export was left out for their sake; see `migration.conflicts`.
        staged: False where the staged rows are gone, so that rows could be compared with how they were written only.
        verified_before: Whether the rows are as they were when each was compared with its record, and that was not done again.
        planned: Whether the rows were compared with the checksums that the mapping gave their records when they were planned.
        differences: The first of the missing and differing ones.
    """

    entity: str
    compared: int
    missing: int
    differing: int
    edited: int
    conflicts: int = 0
    touched: int = 0
    staged: bool = True
    verified_before: bool = False
    planned: bool = False
    differences: tuple[Difference, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Every record has its row, and every row is as it should be."""
        return self.staged and self.missing == 0 and self.differing == 0

    @property
    def written(self) -> bool:
        """Every row was written as it should be, whatever became of it since."""
        return self.staged and self.missing == 0 and self.differing == self.touched

    @property
    def kept(self) -> bool:
        """Every row is there as it was written, or was edited since, whether or not its record can be read any more."""
        return self.missing == 0 and self.differing == 0

    @property
    def equal(self) -> bool:
        """Every row is what its record says; nothing had to be excused."""
        return self.passed and self.edited == 0 and self.conflicts == 0

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if not self.staged:
            gone = (
                f"base44.{self.entity}: staged export not restored, by design (unlogged tables); a crash of the server empties"
                " it, too"
            )
            if self.kept:
                edited = f", {self.edited:,} edited since" if self.edited else ""
                return f"{gone}; {_rows(self.compared, 'is', 'are')} as they were written{edited}; b44 migrate --export stages it again"
            return (
                f"{gone}; {_rows(self.missing)} missing, {_rows(self.differing, 'is', 'are')} not as they were written"
            )
        if self.verified_before:
            return f"{_rows(self.compared, 'is', 'are')} as they were when each was compared with its record"
        if self.planned:
            return f"{_rows(self.compared, 'equals', 'equal')} what their records were mapped to"
        if self.passed:
            apart = {"edited since": self.edited, "left alone by a newer export": self.conflicts}
            return f"{_rows(self.compared, 'equals', 'equal')} their records" + "".join(
                f"; {count:,} {what}" for what, count in apart.items() if count
            )
        worst = self.differences[0]
        where = f"record {worst.record_number} (id {worst.base44_id})"
        what = f"differs in {', '.join(worst.columns)}" if worst.columns else "has no row"
        since = (
            f"; {_rows(self.touched, 'was', 'were')} changed since being written, without a newer updated_at"
            if self.touched
            else ""
        )
        return f"{_rows(self.missing)} missing, {_rows(self.differing, 'differs', 'differ')}; {where} {what}{since}"


def _rows(number: int, verb_of_one: str = "", verb: str = "") -> str:
    return f"{number:,} {plural(number, 'row')} {verb_of_one if number == 1 else verb}".rstrip()


def content_parity(session: Session, mapping: TableMapping, *, anew: bool = True) -> ContentParity | None:
    """Compares every stored row with its staged record through the mapping; None where nothing was staged yet.

    Args:
        session: The run.
        mapping: The entity's mapping.
        anew: Whether every record is mapped once more. Otherwise each row is read all the same, and compared with its checksum of
            when all were found equal to their records, where nothing was planned or written since, or with the checksum that the
            mapping gave its record when it was planned, where it would give the same today. Only where a row differs from that, or
            one is missing, is every record mapped once more.
    """
    table = mapping.spec.name
    with session.connection(f"check {table}") as conn:
        found = _compare(conn, session, mapping, anew=anew)
        if found is not None and found.equal and not found.verified_before:
            conn.execute(
                """
                insert into migration.verifications as p (entity, generation, last_batch, rows)
                select s.entity, s.generation, coalesce(max(l.batch_number), 0), %(rows)s
                  from migration.plans s
                  left join migration.migration_log l on l.entity_type = s.entity
                 where s.entity = %(table)s
                 group by s.entity, s.generation
                on conflict (entity) do update
                   set generation = excluded.generation, last_batch = excluded.last_batch, rows = excluded.rows, verified_at = now()
                 -- Checks that find the same write nothing.
                 where (p.generation, p.last_batch, p.rows) is distinct from (excluded.generation, excluded.last_batch, excluded.rows)
                """,
                {"table": table, "rows": found.compared},
            )
    return found


def _compare(conn: Connection, session: Session, mapping: TableMapping, *, anew: bool) -> ContentParity | None:
    table = mapping.spec.name
    with conn.transaction():
        conn.execute("set transaction isolation level repeatable read read only")
        plan_for_bulk(conn)
        export = conn.execute("select records - refused from migration.exports where entity = %s", (table,)).fetchone()
        if export is None or scalar(conn, "select to_regclass(%s)", (f"migration.{table}_mapping",)) is None:
            return None
        if export[0] and scalar(conn, sql.SQL("select 1 from base44.{} limit 1").format(sql.Identifier(table))) is None:
            return _as_written(conn, mapping, target_columns(conn, mapping))
        columns = target_columns(conn, mapping)
        if not anew and (rows := _verified_before(conn, mapping, columns)) is not None:
            return ContentParity(table, rows, 0, 0, 0, verified_before=True)
        if not anew and (rows := _as_planned(conn, session, mapping, columns)) is not None:
            return ContentParity(table, rows, 0, 0, 0, planned=True)
        compared, missing, differing, edited, conflicts, touched, numbers = conn.execute(
            _comparison(conn, mapping, columns, _mapped_anew(mapping, columns))
        ).fetchone() or (0, 0, 0, 0, 0, 0, [])
        differences: tuple[Difference, ...] = ()
        if numbers:
            rows = conn.execute(_naming(mapping, columns), {"numbers": numbers}).fetchall()
            differences = tuple(Difference(number, base44_id, tuple(names)) for number, base44_id, names in rows)
    return ContentParity(
        table, compared, missing, differing, edited, conflicts, touched=touched, differences=differences
    )


def _verified_before(conn: Connection, mapping: TableMapping, columns: list[str]) -> int | None:
    """How many rows there are, where all are as they were when each was verified; None where that cannot be said."""
    table = mapping.spec.name
    verified = scalar(
        conn,
        "select p.rows from migration.verifications p join migration.plans s using (entity, generation)"
        " where p.entity = %s and p.last_batch >="
        " (select coalesce(max(l.batch_number), 0) from migration.migration_log l where l.entity_type = p.entity)",
        (table,),
    )
    if verified is None:
        return None
    rows, same = conn.execute(
        sql.SQL(
            """
            select count(*), count(*) filter (where m.row_checksum = {checksum})
              from migration.migrated m
              left join public.{table} t on t.{key} = m.id
             where m.entity = {entity}
            """
        ).format(
            checksum=checksum(columns, "t"),
            table=sql.Identifier(table),
            key=sql.Identifier(mapping.key),
            entity=sql.Literal(table),
        )
    ).fetchone() or (1, 0)
    # Rows that the export has no more were not compared, and are counted here.
    return verified if rows == same >= verified else None


def _as_planned(conn: Connection, session: Session, mapping: TableMapping, columns: list[str]) -> int | None:
    """How many rows there are, where all are what their records were mapped to by the plan; None where that cannot be said."""
    if not is_current(conn, session, mapping):
        return None
    compared, *apart, _ = conn.execute(_comparison(conn, mapping, columns, _mapped_by_plan(mapping))).fetchone() or (
        0,
        1,
        [],
    )
    # A plan that has lost records would have fewer compared.
    migrated = scalar(conn, "select migrated from migration.accounting where entity = %s", (mapping.spec.name,))
    return compared if not any(apart) and compared == migrated else None


def _as_written(conn: Connection, mapping: TableMapping, columns: list[str]) -> ContentParity:
    """Compares every row with its checksum of when it was written: what can be said without the staged records."""
    table = mapping.spec.name
    made, changed = (time_column(conn, "public", table, names) for names in (MADE, CHANGED))
    newer = sql.SQL("false")
    if changed is not None:
        # A record without a date of its own was given that of its creation.
        written = (
            sql.SQL("m.updated_at")
            if made is None
            else sql.SQL("coalesce(m.updated_at, t.{})").format(sql.Identifier(made))
        )
        newer = sql.SQL("t.{} > {}").format(sql.Identifier(changed), written)
    row = conn.execute(
        sql.SQL(
            """
            select count(*),
                   count(*) filter (where verdict = 'missing'),
                   count(*) filter (where verdict = 'differs'),
                   count(*) filter (where verdict = 'edited')
              from (
                select case when t.{key} is null and c.kind = 'deleted' and c.accepted_at is not null then 'accepted'
                            when t.{key} is null then 'missing'
                            when m.row_checksum = {checksum} then 'equal'
                            when {newer} then 'edited'
                            else 'differs' end as verdict
                  from migration.migrated m
                  left join public.{table} t on t.{key} = m.id
                  left join migration.conflicts c on c.entity = m.entity and c.id = m.id
                 where m.entity = {entity}
              ) compared
            """
        ).format(
            key=sql.Identifier(mapping.key),
            checksum=checksum(columns, "t"),
            newer=newer,
            table=sql.Identifier(table),
            entity=sql.Literal(table),
        )
    ).fetchone()
    compared, missing, differing, edited = row or (0, 0, 0, 0)
    return ContentParity(table, compared, missing, differing, edited, staged=False)


def _mapped_anew(mapping: TableMapping, columns: list[str]) -> sql.Composed:
    """Every sound record as the mapping gives it now, with its checksum."""
    return sql.SQL(
        "select e.*, {checksum} as _checksum from migration.{mapping} e where cardinality(e.reasons) = 0"
    ).format(
        checksum=checksum(without_suffixed(mapping, columns), "e"),
        mapping=sql.Identifier(f"{mapping.spec.name}_mapping"),
    )


def _mapped_by_plan(mapping: TableMapping) -> sql.Composed:
    """Every sound record as the mapping gave it to the plan, with its checksum of then."""
    return sql.SQL("select e.* from migration.{plan} e where e._action <> 'refused'").format(
        plan=sql.Identifier(f"{mapping.spec.name}_plan")
    )


def _comparison(conn: Connection, mapping: TableMapping, columns: list[str], records: sql.Composed) -> sql.Composed:
    table = mapping.spec.name
    names = [mapping.key, *([mapping.unique_suffix.column] if mapping.unique_suffix is not None else [])]
    judged: list[str] = []
    stays = sql.SQL("false")
    if mapping.unique_suffix is not None and mapping.unique_suffix.made_from is not None:
        judged.append("name_given")
        # Made by the rules of an earlier plan from what is the same still, as all other columns are; and written so. Of what
        # the latest plan inserted, every name is compared.
        stays = sql.SQL(
            "(not e.name_given and t._row_checksum = m.row_checksum and (m.updated_batch is not null or m.generation <>"
            " (select n.generation from migration.plans n where n.entity = {})))"
        ).format(sql.Literal(table))
    newer = sql.SQL("false")
    changed = time_column(conn, "public", table, CHANGED)
    # A table may have one that only the application writes, which says nothing of the record.
    if changed is not None and changed in columns:
        names.append(changed)
        newer = sql.SQL("t.{0} > e.{0}").format(sql.Identifier(changed))
    return sql.SQL(
        """
        with expected as materialized (
          select e.record_number, {expected_names}, e._checksum from ({records}) e
        ),
        stored as materialized (
          select {stored_names}, {stored_sum} as _checksum, {row_sum} as _row_checksum from public.{table} t
        ),
        compared as materialized (
          select e.record_number,
                 case when t._checksum = e._checksum and ({name_agrees} or {name_stays}) then 'equal'
                      -- Sound by the mapping, and refused by the server.
                      when t.{key} is not null and (c.id is not null or r.id is not null) then 'conflict'
                      when t.{key} is null and c.kind = 'deleted' and c.accepted_at is not null then 'conflict'
                      when t.{key} is null then 'missing'
                      when {newer} then 'edited'
                      when t._row_checksum <> m.row_checksum then 'touched'
                      else 'differs' end as verdict
            from expected e
            join migration.migrated m on m.entity = {entity} and m.id = e.{key}
            left join stored t on t.{key} = e.{key}
            left join migration.conflicts c on c.entity = {entity} and c.id = e.{key}
            left join migration.retained r on r.entity = {entity} and r.id = e.{key} and r.reason = 'refused'
        )
        select count(*),
               count(*) filter (where verdict = 'missing'),
               count(*) filter (where verdict in ('differs', 'touched')),
               count(*) filter (where verdict = 'edited'),
               count(*) filter (where verdict = 'conflict'),
               count(*) filter (where verdict = 'touched'),
               -- Not an ordered aggregate, for which all rows would be sorted.
               array(select record_number from compared where verdict in ('missing', 'differs', 'touched') order by 1 limit {shown})
          from compared
        """
    ).format(
        expected_names=identifiers([*names, *judged], "e"),
        records=records,
        stored_names=identifiers(names, "t"),
        stored_sum=checksum(without_suffixed(mapping, columns), "t"),
        row_sum=checksum(columns, "t"),
        table=sql.Identifier(table),
        key=sql.Identifier(mapping.key),
        name_agrees=name_agrees(mapping, "t", "e"),
        name_stays=stays,
        newer=newer,
        entity=sql.Literal(table),
        shown=sql.Literal(DIFFERENCES_SHOWN),
    )


def _naming(mapping: TableMapping, columns: list[str]) -> sql.Composed:
    table = mapping.spec.name
    unequal = [
        sql.SQL("case when e.{name} is distinct from t.{name} then {label} end").format(
            name=sql.Identifier(name), label=sql.Literal(name)
        )
        for name in without_suffixed(mapping, columns)
    ]
    if mapping.unique_suffix is not None:
        unequal.append(
            sql.SQL("case when not {} then {} end").format(
                name_agrees(mapping, "t", "e"), sql.Literal(mapping.unique_suffix.column)
            )
        )
    return sql.SQL(
        "select e.record_number, e.base44_id,"
        " case when t.{key} is null then '{{}}' else array_remove(array[{unequal}], null) end"
        " from migration.{mapping} e left join public.{table} t on t.{key} = e.{key}"
        " where e.record_number = any(%(numbers)s) order by 1"
    ).format(
        key=sql.Identifier(mapping.key),
        unequal=sql.SQL(", ").join(unequal),
        mapping=sql.Identifier(f"{table}_mapping"),
        table=sql.Identifier(table),
    )
