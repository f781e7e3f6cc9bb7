-- What is dead or free in the largest tables. Pages whose rows all can see are not read. What is locked is left for the next time.
with locked as materialized (
  select distinct relation from pg_locks
   where locktype = 'relation' and mode = 'AccessExclusiveLock'
     and database = (select oid from pg_database where datname = current_database())
),
tables as materialized (
  select c.oid, c.relname, n.nspname, c.relpages::float8 * current_setting('block_size')::int as bytes
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
    join pg_am a on a.oid = c.relam and a.amname = 'heap'
   where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
     and c.relpages >= 16 * 1024 * 1024 / current_setting('block_size')::int and c.relpersistence <> 't'
     -- A standby has no rows of unlogged tables.
     and (c.relpersistence = 'p' or not pg_is_in_recovery())
     and c.oid not in (select relation from locked)
   order by c.relpages desc
   limit 50
)
select case when t.nspname = 'public' then t.relname::text else t.nspname || '.' || t.relname end as "table",
       p.table_len::float8 as bytes, (p.dead_tuple_len + p.approx_free_space)::float8 as free_bytes,
       (p.dead_tuple_len + p.approx_free_space)::float8 / nullif(p.table_len, 0) as bloat_ratio
  from tables t
  cross join lateral {extension}.pgstattuple_approx(t.oid::regclass) p
 order by 4 desc nulls last, 1
