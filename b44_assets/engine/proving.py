"""Proof that nothing was lost and nothing was changed on the way: row parity and content parity.

What belongs here: comparing the database with what was exported. What does not: repairing anything. Nothing here reads
what the load itself computed: the expected rows come from the staged text through the mapping, evaluated anew.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from psycopg import sql

from b44_assets.catalog import TableMapping
from b44_assets.engine.loading import target_columns
from b44_assets.engine.session import Connection, Session, checksum, columns_of, identifiers, plan_for_bulk, scalar

DIFFERENCES_SHOWN = 20


@dataclass(frozen=True)
class RowParity:
    """Whether every record read is accounted for, and the table holds every record said to be migrated.

    Attributes:
        entity: The target table.
        read: Records in the export.
        migrated: Records that the books say are in the table.
        deduplicated: Records equal to an earlier one.
        quarantined: Records in quarantine.
        pending: Records that no batch has taken yet.
        unaccounted: Records read and none of the above.
        staged: Rows in `base44.<table>` and refused records; None where the staged rows are gone (after a crash).
        held: Rows of the table that came from the migration.
        native: Rows of the table that did not: made in the new system.
    """

    entity: str
    read: int
    migrated: int
    deduplicated: int
    quarantined: int
    pending: int
    unaccounted: int
    staged: int | None
    held: int
    native: int

    @property
    def passed(self) -> bool:
        """Every record is accounted for and where the books say it is."""
        return (
            self.unaccounted == 0
            and self.pending == 0
            and self.held == self.migrated
            and (self.staged is None or self.staged == self.read)
        )

    def explain(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.unaccounted:
            return f"{self.unaccounted} of {self.read} records read are unaccounted for"
        if self.pending:
            return f"{self.pending} of {self.read} records wait for their batch; run the migration again"
        if self.held != self.migrated:
            return f"{self.migrated} records were migrated, {self.entity} holds {self.held} of them"
        if self.staged is not None and self.staged != self.read:
            return f"{self.read} records were read, base44.{self.entity} holds {self.staged}"
        return f"{self.read} read = {self.migrated} migrated + {self.deduplicated} deduplicated + {self.quarantined} quarantined"


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
        differing: Rows that differ.
        edited: Rows that differ and were changed in the new system since: their `updated_at` is newer.
        staged: False where the staged rows are gone, so that nothing could be compared.
        differences: The first of the missing and differing ones.
    """

    entity: str
    compared: int
    missing: int
    differing: int
    edited: int
    staged: bool = True
    differences: tuple[Difference, ...] = field(default=())

    @property
    def passed(self) -> bool:
        """Every record has its row, and every row is as it should be."""
        return self.staged and self.missing == 0 and self.differing == 0

    def explain(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if not self.staged:
            return f"base44.{self.entity} is empty, though records were staged (a crash of the server empties it); migrate again"
        if self.passed:
            return f"{self.compared} rows equal their records" + (
                f"; {self.edited} edited since" if self.edited else ""
            )
        worst = self.differences[0]
        where = f"record {worst.record_number} (id {worst.base44_id})"
        what = f"differs in {', '.join(worst.columns)}" if worst.columns else "has no row"
        return f"{self.missing} rows missing, {self.differing} rows differ; {where} {what}"


def row_parity(session: Session, mapping: TableMapping) -> RowParity | None:
    """Compares the books of an entity with each other and with the table; None where nothing was settled yet."""
    table = mapping.spec.name
    with session.connection(f"check {table}") as conn, conn.transaction():
        conn.execute("set transaction isolation level repeatable read read only")
        books = conn.execute(
            "select read, migrated, deduplicated, quarantined, pending, unaccounted"
            " from migration.accounting where entity = %s",
            (table,),
        ).fetchone()
        if books is None:
            return None
        refused = scalar(conn, "select count(*) from migration.refused where entity = %s", (table,))
        rows = 0
        if scalar(conn, "select to_regclass(%s)", (f"base44.{table}",)) is not None:
            rows = scalar(conn, sql.SQL("select count(*) from base44.{}").format(sql.Identifier(table)))
        staged = None if rows == 0 and books[0] > refused else rows + refused
        held, native = conn.execute(
            sql.SQL(
                """
                select count(*) filter (where m.generation is not null), count(*) filter (where m.id is null)
                  from public.{table} t
                  left join migration.migrated m on m.entity = {entity} and m.id = t.{key}
                 where t.{key} <> '00000000-0000-8000-8000-000000000b44'
                """
            ).format(table=sql.Identifier(table), entity=sql.Literal(table), key=sql.Identifier(mapping.key))
        ).fetchone() or (0, 0)
    return RowParity(table, *books, staged=staged, held=held, native=native)


def content_parity(session: Session, mapping: TableMapping) -> ContentParity | None:
    """Compares every stored row with its staged record, mapped anew; None where nothing was staged yet."""
    table = mapping.spec.name
    with session.connection(f"check {table}") as conn, conn.transaction():
        conn.execute("set transaction isolation level repeatable read read only")
        plan_for_bulk(conn)
        export = conn.execute("select records - refused from migration.exports where entity = %s", (table,)).fetchone()
        if export is None or scalar(conn, "select to_regclass(%s)", (f"migration.{table}_mapping",)) is None:
            return None
        if export[0] and scalar(conn, sql.SQL("select 1 from base44.{} limit 1").format(sql.Identifier(table))) is None:
            return ContentParity(table, 0, 0, 0, 0, staged=False)
        columns = target_columns(conn, mapping)
        compared, missing, differing, edited, numbers = conn.execute(
            _comparison(conn, mapping, columns)
        ).fetchone() or (0, 0, 0, 0, [])
        differences: tuple[Difference, ...] = ()
        if numbers:
            rows = conn.execute(_naming(mapping, columns), {"numbers": numbers}).fetchall()
            differences = tuple(Difference(number, base44_id, tuple(names)) for number, base44_id, names in rows)
    return ContentParity(table, compared, missing, differing, edited, differences=differences)


def _name_agrees(mapping: TableMapping) -> sql.Composable:
    """Whether the stored name is the wanted one, or that with a number after it; true where no column is numbered."""
    if mapping.numbered is None:
        return sql.SQL("true")
    return sql.SQL(
        "(t.{name} is not distinct from e.{name}"
        " or coalesce(regexp_replace(t.{name}, '-[1-9][0-9]*$', '') = e.{name}, false))"
    ).format(name=sql.Identifier(mapping.numbered.column))


def _summed(mapping: TableMapping, columns: list[str]) -> list[str]:
    return [name for name in columns if mapping.numbered is None or name != mapping.numbered.column]


def _comparison(conn: Connection, mapping: TableMapping, columns: list[str]) -> sql.Composed:
    table = mapping.spec.name
    names = [mapping.key, *([mapping.numbered.column] if mapping.numbered is not None else [])]
    newer = sql.SQL("false")
    if "updated_at" in columns_of(conn, "public", table):
        names.append("updated_at")
        newer = sql.SQL("t.updated_at > e.updated_at")
    return sql.SQL(
        """
        with expected as materialized (
          select e.record_number, {expected_names}, {expected_sum} as checksum
            from migration.{mapping} e
           where cardinality(e.reasons) = 0
        ),
        stored as materialized (
          select {stored_names}, {stored_sum} as checksum from public.{table} t
        ),
        compared as materialized (
          select e.record_number,
                 case when t.{key} is null then 'missing'
                      when t.checksum = e.checksum and {name_agrees} then 'equal'
                      when {newer} then 'edited'
                      else 'differs' end as verdict
            from expected e
            join migration.migrated m on m.entity = {entity} and m.id = e.{key}
            left join stored t on t.{key} = e.{key}
        )
        select count(*),
               count(*) filter (where verdict = 'missing'),
               count(*) filter (where verdict = 'differs'),
               count(*) filter (where verdict = 'edited'),
               -- Not an ordered aggregate, for which all rows would be sorted.
               array(select record_number from compared where verdict in ('missing', 'differs') order by 1 limit {shown})
          from compared
        """
    ).format(
        expected_names=identifiers(names, "e"),
        expected_sum=checksum(_summed(mapping, columns), "e"),
        mapping=sql.Identifier(f"{table}_mapping"),
        stored_names=identifiers(names, "t"),
        stored_sum=checksum(_summed(mapping, columns), "t"),
        table=sql.Identifier(table),
        key=sql.Identifier(mapping.key),
        name_agrees=_name_agrees(mapping),
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
        for name in _summed(mapping, columns)
    ]
    if mapping.numbered is not None:
        unequal.append(
            sql.SQL("case when not {} then {} end").format(_name_agrees(mapping), sql.Literal(mapping.numbered.column))
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


@dataclass(frozen=True)
class EntityAccount:
    """One line of `migration.accounting`, with reasons and repairs."""

    entity: str
    read: int
    migrated: int
    deduplicated: int
    quarantined: int
    unaccounted: int
    pending: int
    reasons: dict[str, int]
    repairs: dict[str, int]


def accounts(session: Session) -> tuple[EntityAccount, ...]:
    """What became of every record, by entity, in the order of the catalogue."""
    with session.connection("status") as conn:
        if scalar(conn, "select to_regclass('migration.accounting')") is None:
            return ()
        rows = {
            row[0]: row
            for row in conn.execute(
                "select entity, read, migrated, deduplicated, quarantined, unaccounted, pending from migration.accounting"
            ).fetchall()
        }
        reasons: dict[str, dict[str, int]] = {}
        for entity, reason, count in conn.execute(
            "select q.entity, reason, count(*) from migration.quarantine q"
            " join migration.settlements s on s.entity = q.entity and s.generation = q.generation"
            " cross join unnest(q.reasons) as reason where q.replayed_at is null group by 1, 2 order by 3 desc, 2"
        ).fetchall():
            reasons.setdefault(entity, {})[reason] = count
        repairs: dict[str, dict[str, int]] = {}
        for entity, column, count in conn.execute(
            "select entity, column_name, count(*) from migration.repairs group by 1, 2 order by 3 desc, 2"
        ).fetchall():
            repairs.setdefault(entity, {})[column] = count
    return tuple(
        EntityAccount(*rows[table], reasons=reasons.get(table, {}), repairs=repairs.get(table, {}))
        for table in session.catalog.mappings
        if table in rows
    )
