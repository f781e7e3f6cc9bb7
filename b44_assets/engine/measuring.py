"""Figures about the database for those who watch it: sizes, repairs, dead rows; and sweeping those away.

What belongs here: measuring, and what the planner needs to know. What does not: indexes; see `upkeep`.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

import psycopg
from psycopg import sql
from psycopg.errors import Diagnostic

from b44_assets.catalog import Kind, TableMapping
from b44_assets.engine.session import Session, reason_of, scalar
from b44_assets.errors import DatabaseError

CHANGED_SHARE = 0.05
"""Share of a table's rows that must have changed since it was last swept for it to be worth it again."""


@dataclass(frozen=True)
class TableSize:
    """A table with its partitions.

    Attributes:
        name: The table.
        rows: Estimate of the server's statistics; 0 where there is none yet.
        table_bytes: Bytes of its rows, with what is stored out of line.
        index_bytes: Bytes of its indexes.
        partitions: How many partitions it has; 0 for a plain table.
    """

    name: str
    rows: int
    table_bytes: int
    index_bytes: int
    partitions: int

    @property
    def bytes(self) -> int:
        """All of it."""
        return self.table_bytes + self.index_bytes


@dataclass(frozen=True)
class Sizes:
    """The tables of the application, the largest first, and the whole database in bytes."""

    tables: tuple[TableSize, ...]
    database_bytes: int


@dataclass(frozen=True)
class Repaired:
    """How many values of a column a rule of the mapping has changed."""

    column: str
    rule: str
    records: int


@dataclass(frozen=True)
class Swept:
    """A table or partition that was vacuumed and analyzed: its dead rows, and rows changed since it was last analyzed."""

    name: str
    dead_rows: int
    changed_rows: int


@dataclass(frozen=True)
class Sweep:
    """What was swept.

    Attributes:
        tables: What was vacuumed and analyzed.
        looked_at: Tables and partitions in all.
        busy: Those that were due and that other work kept locked; the next sweep takes them.
        seconds: How long it took.
    """

    tables: tuple[Swept, ...]
    looked_at: int
    busy: tuple[str, ...]
    seconds: float


def measure_sizes(session: Session) -> Sizes:
    """Measures every table of `sql/` that is there, without reading any of its rows."""
    names = [spec.name for spec in session.catalog.of(Kind.TABLE)]
    with session.connection("measure sizes") as conn:
        rows = conn.execute(
            """
            select t.name, coalesce(sum(greatest(c.reltuples, 0)) filter (where c.relkind = 'r'), 0)::bigint,
                   coalesce(sum(pg_table_size(c.oid)), 0)::bigint, coalesce(sum(pg_indexes_size(c.oid)), 0)::bigint,
                   count(*) filter (where c.relispartition)
              from unnest(%s::text[]) as t (name)
              join pg_class r on r.oid = to_regclass('public.' || quote_ident(t.name))
              cross join lateral (
                select relid from pg_partition_tree(r.oid) union select r.oid) p
              join pg_class c on c.oid = p.relid
             group by t.name
             order by 3 desc, 1
            """,
            (names,),
        ).fetchall()
        whole = scalar(conn, "select pg_database_size(current_database())")
    return Sizes(tuple(TableSize(*row) for row in rows), whole)


def repairs_by_rule(session: Session, table: str) -> tuple[Repaired, ...]:
    """What was repaired in the records of a table, the most frequent first."""
    with session.connection(f"describe {table}") as conn:
        rows = conn.execute(
            "select column_name, rule, count(*) from migration.repairs where entity = %s group by 1, 2 order by 3 desc, 1, 2",
            (table,),
        ).fetchall()
    return tuple(Repaired(*row) for row in rows)


def staged_fields(session: Session, mapping: TableMapping) -> dict[str, str]:
    """Under which spelling the staged export has each field that the mapping reads; fields that it lacks are left out."""
    with session.connection(f"describe {mapping.spec.name}") as conn:
        fields = scalar(conn, "select fields from migration.exports where entity = %s", (mapping.spec.name,)) or []
    return {
        item.name: spelling
        for item in mapping.fields
        if (spelling := next((name for name in item.spellings if name in fields), None)) is not None
    }


def sweep(session: Session, *, changed_share: float = CHANGED_SHARE) -> Sweep:
    """Vacuums and analyzes the tables and partitions of schema public that have changed enough since the last time.

    It keeps no reader or writer waiting, and waits for none: what is locked by other maintenance is left for the next time.

    Args:
        session: The run.
        changed_share: Share of its rows, dead or changed since, that makes a table worth it; 0 to 1.

    Raises:
        DatabaseError: The server refuses; names the table.
    """
    started = time.monotonic()
    swept: list[Swept] = []
    busy: list[str] = []
    with session.connection("sweep") as conn:
        rows = conn.execute(
            """
            select c.relname, s.n_dead_tup, s.n_mod_since_analyze,
                   s.n_dead_tup + s.n_mod_since_analyze > 0
                     and greatest(s.n_dead_tup, s.n_mod_since_analyze) >= greatest(s.n_live_tup, 1) * %s::float8
                     or s.n_live_tup > 0 and s.last_analyze is null and s.last_autoanalyze is null
              from pg_stat_user_tables s
              join pg_class c on c.oid = s.relid and c.relkind = 'r'
             where s.schemaname = 'public'
             order by c.relname
            """,
            (changed_share,),
        ).fetchall()
        for name, dead, changed, due in rows:
            if not due:
                continue
            session.progress("sweep", len(swept), len(rows))
            notices: list[str] = []

            def note(diagnostic: Diagnostic, notices: list[str] = notices) -> None:
                notices.append(diagnostic.message_primary or "")

            conn.add_notice_handler(note)
            try:
                # Not even its last step, which gives empty pages back, waits for anybody.
                conn.execute(sql.SQL("vacuum (analyze, skip_locked) {}").format(sql.Identifier("public", name)))
            except psycopg.Error as error:
                raise DatabaseError(f"{name} cannot be vacuumed: {reason_of(error)}") from error
            finally:
                conn.remove_notice_handler(note)
            # The server says so in a warning and calls it done.
            if notices:
                busy.append(name)
            else:
                swept.append(Swept(name, dead, changed))
    return Sweep(tuple(swept), len(rows), tuple(busy), time.monotonic() - started)
