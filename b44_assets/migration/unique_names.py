"""Names that must be unique: which record keeps the one it wants, and which number the others get."""

from __future__ import annotations

from psycopg import sql

from b44_assets.catalog import TableMapping, UniqueSuffix
from b44_assets.session import Connection


def add_suffixes(conn: Connection, mapping: TableMapping, suffix: UniqueSuffix) -> None:
    """Makes wanted names unique: `name`, `name-2`, `name-3` …, the first free number each, all at once.

    First claims go first: given names before made ones, then in the order that the header names, such as by age. A later
    claimant, or one whose name stands in the target already, gets the r-th free number of that name; with the taken numbers
    t1 < t2 < … it is r + 1 + how many t_i have fewer than r free numbers below them, which is t_i - 1 - i.
    """
    table = mapping.spec.name
    age = sql.Identifier(suffix.order)
    # Not a temporary table: a server process's first one makes a schema, on which every session forgets its plans.
    renamed = sql.Identifier(f"{table}_renamed")
    conn.execute(
        sql.SQL(
            """
            create unlogged table migration.{renamed} as
            with claims as (
              select s._position as position, s.{name} as wanted, s.name_given, s.{age} as age, s.{key} as key
                from migration.{planned} s
               where s._action in ('insert', 'update') and s._renamed and s.{name} is not null
            ),
            held as (
              select h.{name} as name
                from {holder} h
               where h.{name} is not null
            ),
            -- Few names are wanted twice, and only theirs are put in order.
            contested as (
              select wanted, bool_or(is_held) as is_held
                from (select wanted, false as is_held from claims union all select name, true from held) wishes
               group by wanted
              having count(*) > 1
            ),
            late as (
              select *
                from (select c.position, c.wanted,
                             row_number() over (partition by c.wanted order by not c.name_given, c.age, c.key, c.position)
                               - case when k.is_held then 0 else 1 end as rank
                        from claims c
                        join contested k on k.wanted = c.wanted) placed
               where placed.rank > 0
            ),
            taken as (
              select p.stem, p.number - 1 - row_number() over (partition by p.stem order by p.number) as free_below
                from (select distinct substr(n.name, 1, length(n.name) - length(n.tail) - 1) as stem, n.tail::numeric as number
                        from (select name, substring(name from '-([1-9][0-9]{{0,8}})$') as tail
                                from (select wanted as name from claims union all select name from held) every
                               where ascii(right(name, 1)) between 48 and 57) n
                       where n.tail is not null) p
                join contested on contested.wanted = p.stem
               where p.number >= 2
            )
            select position, wanted, wanted || '-' || (rank + 1 + passed) as replacement
              from (select e.position, e.wanted, e.rank,
                           count(*) filter (where e.position is null) over (
                             partition by e.wanted order by e.rank, e.position nulls last rows unbounded preceding) as passed
                      from (select position, wanted, rank from late
                             union all select null, stem, free_below from taken) e) merged
             where position is not null
            """
        ).format(
            name=sql.Identifier(suffix.column),
            age=age,
            key=sql.Identifier(mapping.key),
            planned=sql.Identifier(f"{table}_plan"),
            holder=sql.Identifier(suffix.table),
            renamed=renamed,
        )
    )
    repaired = sql.SQL(
        ", repairs = s.repairs || migration.repair(true, {column}, 'taken', r.wanted, r.replacement)"
    ).format(column=sql.Literal(suffix.column))
    conn.execute(
        sql.SQL(
            "update migration.{planned} s set {name} = r.replacement{repaired}"
            " from migration.{renamed} r where r.position = s._position"
        ).format(
            renamed=renamed,
            planned=sql.Identifier(f"{table}_plan"),
            name=sql.Identifier(suffix.column),
            repaired=repaired if suffix.repaired else sql.SQL(""),
        )
    )
    conn.execute(sql.SQL("drop table migration.{}").format(renamed))
