"""What a batch does, as functions in the database that a plan makes for the columns of its table.

`migration.load_<table>` moves a range of positions, with all that is noted of it; `migration.complete_<table>` fills columns that
point into the table itself. The engine and `migrate_<table>_batch` call the same ones. What belongs here: their text. What
does not: which positions, when, in which transaction, and what to do about an error; see `load`.
"""

from __future__ import annotations

from psycopg import sql

from b44_assets.catalog import ExchangeableUnique, Period, TableMapping
from b44_assets.migration.sources import target_columns
from b44_assets.session import MADE, Connection, checksum, identifiers, time_column, trusted

_ARGUMENTS = (
    "b44_first bigint, b44_last bigint, b44_batch bigint, b44_generation bigint, b44_partition date, b44_run text,"
    " b44_attempt integer, out processed integer, out kept integer, out seconds double precision"
)


def create_batch_functions(
    conn: Connection, mapping: TableMapping, period: Period | None, *, updates: bool, corrected: bool
) -> None:
    """Makes both functions anew, for what is planned now.

    Args:
        conn: In the transaction of the plan.
        mapping: The entity's mapping.
        period: Of the target table.
        updates: Whether the plan has records to update.
        corrected: Whether it has records that were corrected in quarantine.

    Raises:
        DatabaseError: The mapping gives a column that the target does not have.
    """
    table = mapping.spec.name
    columns = target_columns(conn, mapping)
    writing = _Writing(conn, mapping, period, columns)
    steps: list[sql.Composable] = []
    if updates:
        steps.append(writing.note_rows_before())
        if mapping.exchangeable_unique is not None:
            steps.append(writing.release(mapping.exchangeable_unique))
    steps.append(writing.move(updates=updates))
    steps.append(writing.keep_edited() if updates else writing.expect_all())
    if corrected:
        steps.append(writing.mark_replayed())
    for name, arguments, returns, body in (
        ("load", sql.SQL(_ARGUMENTS), sql.SQL(""), steps),
        ("complete", sql.SQL(""), sql.SQL("returns void"), [writing.complete(name) for name in mapping.deferred_fk]),
    ):
        text = (
            sql.SQL("#variable_conflict use_column\ndeclare\n missing bigint;\nbegin\n{}\nend")
            .format(sql.SQL("\n").join(body))
            .as_string(conn)
        )
        function = sql.Identifier("migration", f"{name}_{table}")
        conn.execute(sql.SQL("drop function if exists {}").format(function))
        conn.execute(
            sql.SQL("create function {}({}) {} language plpgsql set search_path = public, pg_temp as {}").format(
                function, arguments, returns, sql.Literal(text)
            )
        )
        conn.execute(sql.SQL("revoke all on function {} from public").format(function))


class _Writing:
    """The statements of one table's batches. `r` is a record of the batch, `t` its row, `p` the row as it was before."""

    def __init__(self, conn: Connection, mapping: TableMapping, period: Period | None, columns: list[str]) -> None:
        self._mapping = mapping
        self._columns = columns
        self._period = period
        planned = f"{mapping.spec.name}_plan"
        self._made = time_column(conn, "migration", planned, MADE) if period is None else period.column
        self._names = {
            "table": sql.Identifier(mapping.spec.name),
            "entity": sql.Literal(mapping.spec.name),
            "planned": sql.Identifier(planned),
            "source": sql.Identifier(f"{mapping.spec.name}_source"),
            "key": sql.Identifier(mapping.key),
            "columns": identifiers(columns),
            "checksum": checksum(columns, "t"),
            "same_partition": self._same_partition("m.created_at"),
        }

    def _format(self, text: str, **more: sql.Composable) -> sql.Composed:
        return sql.SQL(text).format(**self._names, **more)  # pyright: ignore[reportArgumentType]  # constants of this file

    def _same_partition(self, moment: str) -> sql.Composable:
        """Names the partition of a row, so that only that one is looked at."""
        if self._period is None:
            return sql.SQL("true")
        return sql.SQL("t.{} = " + moment).format(sql.Identifier(self._period.column))  # pyright: ignore[reportArgumentType]

    def _made_at(self) -> sql.Composable:
        return sql.SQL("null::timestamptz") if self._made is None else sql.Identifier("r", self._made)

    def note_rows_before(self) -> sql.Composed:
        """Locks the rows to update, and keeps them as they are; those edited meanwhile are not among them."""
        return self._format(
            """
            insert into migration.replaced
              (entity, id, batch_number, created_at, row_before, migrated_before, repairs_before, unmapped_before)
            select {entity}, m.id, b44_batch, m.created_at, to_jsonb(t.*), to_jsonb(m.*),
                   coalesce((select jsonb_agg(to_jsonb(c.*)) from migration.repairs c
                              where c.entity = {entity} and c.base44_id = m.base44_id), '[]'),
                   (select u.data from migration.unmapped u where u.entity = {entity} and u.base44_id = m.base44_id)
              from migration.{planned} r
              join migration.migrated m on m.entity = {entity} and m.id = r.{key}
              join public.{table} t on t.{key} = m.id and {same_partition}
             where r._position between b44_first and b44_last and r._action = 'update' and {checksum} = m.row_checksum
               for update of t;
            """
        )

    def release(self, exchangeable: ExchangeableUnique) -> sql.Composed:
        """Rows that exchange values let go of theirs first; nobody sees it, as the same transaction gives them new ones."""
        return self._format(
            """
            update public.{table} set {released} = {expression}
             where {key} = any (array(
               select p.id from migration.replaced p
                 join migration.{planned} r on r.{key} = p.id and r._position between b44_first and b44_last and r._contested
                where p.entity = {entity} and p.batch_number = b44_batch));
            """,
            released=sql.Identifier(exchangeable.released),
            expression=trusted(exchangeable.expression),
        )

    def move(self, *, updates: bool) -> sql.Composed:
        """Rows, identities, repairs, unmapped fields and the log, in one statement, so they cannot part.

        Records come in the order of their positions, so that indexes grow at their end.
        """
        mapping = self._mapping
        values = [
            sql.SQL("null") if name in mapping.deferred_fk else sql.Identifier("r", name) for name in self._columns
        ]
        changing = [name for name in self._columns if name != mapping.key and name not in mapping.deferred_fk]
        return self._format(
            """
            with records as materialized (
              select s.*, {wide} f.record_checksum as _record_checksum, f.last_change as _last_change,
                     nullif(f.unmapped || coalesce(s.unmapped, '{{}}'), '{{}}') as _left_over
                from migration.{planned} s
                join migration.{source} f on f.record_number = s.record_number
               where s._position between b44_first and b44_last
            ),
            kept as (
              insert into public.{table} as t ({columns})
              select {values} from records r {inserting}
              returning t.{key} as id, {checksum} as row_checksum
            ),
            {replaced}
            identified as (
              insert into migration.migrated
                (entity, id, base44_id, created_at, updated_at, row_checksum, record_checksum, record_number, generation,
                 batch_number)
              select {entity}, k.id, r.base44_id, {created_at}, r._last_change, k.row_checksum, r._record_checksum,
                     r.record_number, b44_generation, b44_batch
                from kept k
                join records r on r.{key} = k.id
              returning 1
            ),
            changed as (
              insert into migration.repairs (entity, base44_id, column_name, rule, original, replacement, batch_number)
              select {entity}, r.base44_id, c.repair ->> 'column_name', c.repair ->> 'rule', c.repair ->> 'original',
                     c.repair ->> 'replacement', b44_batch
                from records r
               cross join unnest(r.repairs) as c (repair)
               where r.repairs <> '{{}}' {and_written}
            ),
            kept_besides as (
              insert into migration.unmapped (entity, base44_id, data, batch_number)
              select {entity}, r.base44_id, r._left_over, b44_batch
                from records r
               where r._left_over is not null {and_written}
              on conflict (entity, base44_id) do update set data = excluded.data, batch_number = excluded.batch_number
            ),
            counted as (select {processed} as processed)
            insert into migration.migration_log
              (entity_type, batch_number, records_processed, records_kept, status, started_at, completed_at, partition_key,
               generation, first_position, last_position, run_id, attempts)
            select {entity}, b44_batch, c.processed, b44_last - b44_first + 1 - c.processed, 'completed', now(),
                   clock_timestamp(), b44_partition, b44_generation, b44_first, b44_last, b44_run, b44_attempt
              from counted c
            returning records_processed, records_kept, extract(epoch from completed_at - started_at)
              into processed, kept, seconds;
            """,
            wide=sql.SQL("").join(sql.SQL("f.{}, ").format(sql.Identifier(name)) for name in mapping.large_columns),
            values=sql.SQL(", ").join(values),
            inserting=sql.SQL("where r._action = 'insert'" if updates else ""),
            replaced=self._replace(changing) if updates else sql.SQL(""),
            created_at=self._made_at(),
            and_written=sql.SQL(
                "and (r._action = 'insert' or exists (select from rewritten w where w.id = r.{}))"
            ).format(self._names["key"])
            if updates
            else sql.SQL(""),
            processed=sql.SQL(
                "(select count(*) from identified) + (select count(*) from rows_noted_anew)"
                if updates
                else "(select count(*) from identified)"
            ),
        )

    def _replace(self, changing: list[str]) -> sql.Composed:
        """The updates among the records, and their entries in the migration tables. Repairs and fields of the version before go."""
        return self._format(
            """
            before as materialized (
              select p.id, p.created_at, p.migrated_before ->> 'base44_id' as base44_id
                from migration.replaced p where p.entity = {entity} and p.batch_number = b44_batch
            ),
            rewritten as (
              update public.{table} t set {assignments}
                from records r
                join before p on p.id = r.{key}
               where t.{key} = p.id and {partition_before}
              returning t.{key} as id, {checksum} as row_checksum
            ),
            rows_noted_anew as (
              update migration.migrated m
                 set base44_id = r.base44_id, created_at = {created_at}, updated_at = r._last_change,
                     row_checksum = w.row_checksum, record_checksum = r._record_checksum, record_number = r.record_number,
                     generation = b44_generation, updated_batch = b44_batch
                from rewritten w
                join records r on r.{key} = w.id
               where m.entity = {entity} and m.id = w.id
              returning 1
            ),
            repairs_before as (
              delete from migration.repairs c using before p where c.entity = {entity} and c.base44_id = p.base44_id
            ),
            unmapped_before as (
              delete from migration.unmapped u using before p
               where u.entity = {entity} and u.base44_id = p.base44_id
                 and not exists (select from records r where r.base44_id = u.base44_id and r._left_over is not null)
            ),
            """,
            assignments=sql.SQL(", ").join(
                sql.SQL("{} = {}").format(sql.Identifier(name), sql.Identifier("r", name)) for name in changing
            ),
            partition_before=self._same_partition("p.created_at"),
            created_at=self._made_at(),
        )

    def keep_edited(self) -> sql.Composed:
        """Rows that were edited or deleted since the plan are as the new system wants them."""
        return self._format(
            """
            if kept > 0 then
              with noted as (
              insert into migration.conflicts
                (entity, id, base44_id, kind, record, record_number, generation, run_id)
              select {entity}, r.{key}, r.base44_id,
                     case when exists (select from public.{table} t where t.{key} = r.{key}) then 'edited' else 'deleted' end,
                     f.record, r.record_number, b44_generation, b44_run
                from migration.{planned} r
                join migration.{source} f on f.record_number = r.record_number
               where r._position between b44_first and b44_last and r._action = 'update'
                 and not exists (
                   select from migration.replaced p
                    where p.entity = {entity} and p.batch_number = b44_batch and p.id = r.{key})
              on conflict (entity, id) do update
                 set base44_id = excluded.base44_id, kind = excluded.kind, columns = '{{}}', record = excluded.record,
                     record_number = excluded.record_number, generation = excluded.generation, run_id = excluded.run_id,
                     noted_at = now(), accepted_at = null
              returning 1)
              select kept - count(*) into missing from noted;
              if missing > 0 then
                raise exception 'batch % lacks % of its staged records', b44_batch, missing;
              end if;
            end if;
            """
        )

    def expect_all(self) -> sql.Composed:
        """Every record is inserted, or the batch is none."""
        return self._format(
            """
            if kept > 0 then
              raise exception 'batch % lacks % of its staged records', b44_batch, kept;
            end if;
            """
        )

    def mark_replayed(self) -> sql.Composed:
        """Corrected records have left the quarantine; what it said of them stays, with the time."""
        return self._format(
            """
            update migration.quarantine q set replayed_at = now()
              from migration.{planned} r
             where q.entity = {entity} and q.replayed_at is null and q.generation <> b44_generation
               and q.base44_id = r.base44_id and r._position between b44_first and b44_last;
            """
        )

    def complete(self, name: str) -> sql.Composed:
        """Fills a column that points into its own table, now that every row it can point at is there."""
        return self._format(
            """
            with completed as (
              update public.{table} t set {name} = r.{name}
                from migration.{planned} r
                join migration.migrated m on m.entity = {entity} and m.id = r.{key}
               where r._action in ('insert', 'update') and r.{key} = t.{key} and r.{name} is distinct from t.{name}
                 and {checksum} = m.row_checksum
              returning t.{key} as id, {checksum} as row_checksum
            )
            update migration.migrated m set row_checksum = c.row_checksum
              from completed c where m.entity = {entity} and m.id = c.id;
            """,
            name=sql.Identifier(name),
        )
