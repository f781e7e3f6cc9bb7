"""What indexes cost and whether they earn it: size, use, repetition, bloat; rebuilding what is bloated; statistics."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from functools import partial

import psycopg
from psycopg import sql

from b44_assets.errors import DatabaseError
from b44_assets.schema.online_ddl import CONCURRENT_LOCK_TIMEOUT_MS, REBUILT, SHARED_BYTES
from b44_assets.session import Connection, Session, concurrently, reason_of
from b44_assets.wording import plural

BLOAT_THRESHOLD = 0.5
"""Share of an index that would be gone if it were rebuilt, from which on it is worth it."""
BLOAT_MINIMUM_BYTES = 16 * 1024 * 1024
_ANALYZES_ONLY = 18_00_00
"""The first version that can leave the partitions out, which are analyzed beside the table then."""


@dataclass(frozen=True)
class IndexFacts:
    """An index of the application, with its parts on partitions summed up.

    Attributes:
        table: The table.
        name: The index.
        size: Bytes on disk.
        scans: How often it was used since statistics were last reset.
        needed: Whether it is unique or stands behind a constraint, and so is needed even if never read.
        bloat: Estimated share of its bytes that a rebuild would free, 0 to 1; None where it cannot be told (no B-tree,
            or no statistics yet), and for the index of an EXCLUDE, which PostgreSQL cannot rebuild without locking.
    """

    table: str
    name: str
    size: int
    scans: int
    needed: bool
    bloat: float | None


@dataclass(frozen=True)
class IndexUsage:
    """What the indexes of the application cost and whether they earn it.

    Attributes:
        indexes: All of them, the largest first.
        duplicates: Groups of indexes that say the same.
        threshold: Share of bloat from which on an index counts as bloated.
        minimum_bytes: Size from which on it is looked at.
        since: When the statistics of this database were last reset, from when on use is counted; None if they never were.
        statistics_hidden: Whether the role is shown the planner's statistics of none of the tables, and so no bloat.
    """

    indexes: tuple[IndexFacts, ...]
    duplicates: tuple[tuple[str, ...], ...]
    threshold: float
    minimum_bytes: int
    since: datetime | None = None
    statistics_hidden: bool = False

    @property
    def unused(self) -> tuple[IndexFacts, ...]:
        """Never read, and not needed otherwise."""
        return tuple(index for index in self.indexes if index.scans == 0 and not index.needed)

    @property
    def bloated(self) -> tuple[IndexFacts, ...]:
        """Those that a rebuild would shrink by the threshold or more."""
        return tuple(
            index
            for index in self.indexes
            if index.bloat is not None and index.bloat >= self.threshold and index.size >= self.minimum_bytes
        )

    @property
    def passed(self) -> bool:
        """None is bloated, none repeats another. Unused ones are no fault: use is counted since the last reset only."""
        return not self.duplicates and not self.bloated

    def message(self) -> str:
        """One line on what is wrong; or that nothing is."""
        if self.duplicates:
            return f"the same twice: {' = '.join(self.duplicates[0])}"
        if self.bloated:
            worst = max(self.bloated, key=lambda index: index.bloat or 0)
            indexes = plural(len(self.bloated), "index is", "indexes are")
            return f"{len(self.bloated)} {indexes} bloated, {worst.name} by {worst.bloat:.0%}"
        since = (
            "the database was made"
            if self.since is None
            else f"{self.since:%Y-%m-%d %H:%M} UTC, when statistics were reset"
        )
        hidden = (
            "; bloat is not known: the planner's statistics are not shown to this role"
            if self.statistics_hidden
            else ""
        )
        return f"{len(self.indexes)} indexes, {len(self.unused)} never read since {since}{hidden}"


_SIZES = """
    with recursive leaves as (
      select i.indexrelid, i.indexrelid as root, i.indrelid from pg_index i join pg_class c on c.oid = i.indexrelid
       where c.relnamespace = 'public'::regnamespace and not c.relispartition
      union all
      select h.inhrelid, l.root, p.indrelid from leaves l join pg_inherits h on h.inhparent = l.indexrelid
        join pg_index p on p.indexrelid = h.inhrelid
    ),
    -- Asking for the size of what is locked would wait.
    locked as materialized (
      select distinct relation from pg_locks
       where locktype = 'relation' and mode = 'AccessExclusiveLock'
         and database = (select oid from pg_database where datname = current_database())
    ),
    known as materialized (
      select tablename, attname, avg_width from pg_stats where schemaname = 'public' and not inherited
    ),
    -- The columns of B-trees: those of the table, and expressions, whose statistics are the index's.
    keys as (
      select l.indexrelid, count(s.avg_width) as known, sum(s.avg_width) as width
        from leaves l
        join pg_index i on i.indexrelid = l.indexrelid and not i.indisexclusion
        join pg_class x on x.oid = l.indexrelid and x.relkind = 'i' and x.reltuples > 0
        join pg_am a on a.oid = x.relam and a.amname = 'btree'
       cross join lateral unnest(i.indkey::smallint[]) with ordinality as k (attnum, place)
        join pg_attribute c on c.attrelid = case k.attnum when 0 then l.indexrelid else l.indrelid end
         and c.attnum = case k.attnum when 0 then k.place else k.attnum end
        join pg_class o on o.oid = c.attrelid
        left join known s on s.tablename = o.relname and s.attname = c.attname
       group by l.indexrelid
    ),
    -- An entry: tuple header and line pointer (12 bytes), then its columns, aligned; pages are filled to nine tenths.
    sizes as (
      select l.root, l.indexrelid, l.indrelid,
             case when l.indexrelid in (select relation from locked) then x.relpages::bigint * 8192
                  else pg_relation_size(l.indexrelid) end as bytes,
             case when k.known = x.relnatts then
               greatest(2, ceil(x.reltuples * (12 + ceil(k.width / 8.0) * 8) / (8192 * 0.9) * 1.01) + 1) * 8192
             end as expected
        from leaves l
        join pg_class x on x.oid = l.indexrelid and x.relkind = 'i'
        left join keys k on k.indexrelid = l.indexrelid
    )
"""


def index_usage(
    session: Session, *, threshold: float = BLOAT_THRESHOLD, minimum_bytes: int = BLOAT_MINIMUM_BYTES
) -> IndexUsage:
    """Sums up size, use and bloat of every index of schema public, over partitions.

    Bloat is estimated from the planner's statistics, since core PostgreSQL has nothing that measures it; B-trees whose
    equal keys are stored once come out smaller than expected, and then count as not bloated.

    Args:
        session: The run.
        threshold: Share of bloat from which on an index counts as bloated, 0 to 1.
        minimum_bytes: Smaller ones are not looked at.
    """
    with session.connection("check index usage") as conn:
        rows = conn.execute(
            (
                _SIZES  # noqa: S608  # both are constants of this module
                + """
            select t.relname, c.relname, sum(s.bytes)::bigint,
                   coalesce(sum(pg_stat_get_numscans(s.indexrelid)), 0)::bigint,
                   i.indisunique or exists (select from pg_constraint k where k.conindid = s.root),
                   case when count(s.expected) > 0 then
                     greatest(0, 1 - sum(s.expected) / nullif(sum(s.bytes) filter (where s.expected is not null), 0)) end::float8
              from sizes s
              join pg_index i on i.indexrelid = s.root
              join pg_class c on c.oid = s.root
              join pg_class t on t.oid = i.indrelid
             group by t.relname, c.relname, s.root, i.indisunique
             order by 3 desc, 1, 2
            """
            ).encode()
        ).fetchall()
        duplicates = conn.execute(
            """
            -- By the catalogue, since pg_get_indexdef waits for an index that is locked. Where in its statement an expression
            -- stood makes no difference.
            select array_agg(c.relname order by c.relname)
              from pg_index i
              join pg_class c on c.oid = i.indexrelid
             where c.relnamespace = 'public'::regnamespace and not c.relispartition
             group by i.indrelid, c.relam, i.indnkeyatts, i.indkey::text, i.indclass::text, i.indcollation::text,
                      i.indoption::text, i.indnullsnotdistinct, c.reloptions,
                      regexp_replace(i.indexprs::text, ':location -?[0-9]+', '', 'g'),
                      regexp_replace(i.indpred::text, ':location -?[0-9]+', '', 'g')
            having count(*) > 1
             order by 1
            """
        ).fetchall()
        since, hidden = conn.execute(
            """
            select (select stats_reset from pg_stat_database where datname = current_database()),
                   count(*) > 0 and not bool_or(has_table_privilege(oid, 'select') or has_any_column_privilege(oid, 'select'))
              from pg_class where relkind in ('r', 'p') and relnamespace = 'public'::regnamespace
            """
        ).fetchone() or (None, False)
    return IndexUsage(
        tuple(IndexFacts(*row) for row in rows),
        tuple(tuple(row[0]) for row in duplicates),
        threshold,
        minimum_bytes,
        since,
        hidden is True,
    )


def analyze(session: Session, table: str) -> None:
    """Gathers the planner's statistics of a table and its partitions, some at a time; keeps no reader or writer waiting.

    Raises:
        DatabaseError: There is no such table, or other DDL keeps it locked.
    """
    statements: list[sql.Composed] = [sql.SQL("analyze {}").format(sql.Identifier("public", table))]
    with session.connection(f"analyze {table}") as conn:
        if conn.info.server_version >= _ANALYZES_ONLY:
            rows = conn.execute(
                "select c.relname, c.relkind = 'p', sum(pg_table_size(c.oid)) over ()"
                " from pg_partition_tree(to_regclass(%s)) t join pg_class c on c.oid = t.relid"
                # The table itself takes longest, as it is a sample of all partitions.
                " order by t.level, pg_table_size(c.oid) desc, 1",
                (f"public.{sql.Identifier(table).as_string(conn)}",),
            ).fetchall()
            if rows and rows[0][2] >= SHARED_BYTES:
                statements = [
                    sql.SQL("analyze {}{}").format(sql.SQL("only " if whole else ""), sql.Identifier("public", name))
                    for name, whole, _ in rows
                ]
    for _ in concurrently(session, [partial(_analyze, session, table, statement) for statement in statements]):
        pass


def _analyze(session: Session, table: str, statement: sql.Composed) -> None:
    with session.connection(f"analyze {table}") as conn:
        conn.execute(sql.SQL("set lock_timeout = {}").format(sql.Literal(CONCURRENT_LOCK_TIMEOUT_MS)))
        conn.execute(statement)


def reindex_bloated(session: Session, *, minimum_bytes: int = BLOAT_MINIMUM_BYTES) -> tuple[str, ...]:
    """Rebuilds CONCURRENTLY every index, on whichever partition, that is bloated; returns their names.

    What an interrupted rebuild left (`…_ccnew`, `…_ccold`) is dropped first.

    Raises:
        DatabaseError: A rebuild fails; those before it stay.
    """
    with session.connection("reindex") as conn:
        rows = conn.execute(
            (
                _SIZES  # noqa: S608  # both are constants of this module
                + """
            select c.relname from sizes s join pg_class c on c.oid = s.indexrelid
             where s.bytes >= %s and s.expected <= s.bytes * (1 - %s::float8)
             order by s.bytes desc
            """
            ).encode(),
            (minimum_bytes, BLOAT_THRESHOLD),
        ).fetchall()
        conn.execute(sql.SQL("set lock_timeout = {}").format(sql.Literal(CONCURRENT_LOCK_TIMEOUT_MS)))
        _drop_leftovers(conn)
        for (name,) in rows:
            _reindex(conn, name)
    return tuple(name for (name,) in rows)


def _drop_leftovers(conn: Connection) -> None:
    rows = conn.execute(
        "select c.relname from pg_index i join pg_class c on c.oid = i.indexrelid"
        " where c.relnamespace = 'public'::regnamespace and not i.indisvalid and c.relname ~ %s"
        " and not exists (select from pg_stat_progress_create_index p where p.index_relid = i.indexrelid)",
        (REBUILT.pattern,),
    ).fetchall()
    for (name,) in rows:
        try:
            conn.execute(sql.SQL("drop index concurrently if exists {}").format(sql.Identifier("public", name)))
        except psycopg.Error as error:
            raise DatabaseError(f"{name} cannot be dropped: {reason_of(error)}") from error


def _reindex(conn: Connection, name: str) -> None:
    try:
        conn.execute(sql.SQL("reindex index concurrently {}").format(sql.Identifier("public", name)))
    except psycopg.Error as error:
        raise DatabaseError(f"{name} cannot be rebuilt: {reason_of(error)}") from error
