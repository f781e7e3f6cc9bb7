-- Every table with its partitions and indexes. Of what is locked, the size that it had when it was last vacuumed: asking for
-- the true one would wait. Partitions are found in the catalogue, since pg_partition_tree locks each.
with recursive leaves as (
  select c.oid as root, c.oid from pg_class c
    join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'p', 'm') and not c.relispartition
     and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
  union all
  select l.root, i.inhrelid from leaves l join pg_inherits i on i.inhparent = l.oid
    join pg_class c on c.oid = i.inhrelid and c.relispartition
),
locked as materialized (
  select distinct relation from pg_locks
   where locktype = 'relation' and mode = 'AccessExclusiveLock'
     and database = (select oid from pg_database where datname = current_database())
),
busy as materialized (
  select l.root, l.oid from leaves l
   where l.oid in (select relation from locked)
      or exists (select from pg_index x where x.indrelid = l.oid and x.indexrelid in (select relation from locked))
)
select case when n.nspname = 'public' then r.relname::text else n.nspname || '.' || r.relname end as "table",
       coalesce(sum(greatest(c.reltuples, 0)) filter (where c.relkind <> 'p'), 0)::bigint as "rows",
       sum(case when b.oid is null then pg_table_size(c.oid)
                else c.relpages::bigint * current_setting('block_size')::int end)::bigint as table_bytes,
       sum(case when b.oid is null then pg_indexes_size(c.oid)
                else (select coalesce(sum(i.relpages::bigint), 0) * current_setting('block_size')::int
                        from pg_index x join pg_class i on i.oid = x.indexrelid where x.indrelid = c.oid) end)::bigint as index_bytes,
       count(*) filter (where c.relispartition) as partitions
  from leaves l
  join pg_class r on r.oid = l.root
  join pg_namespace n on n.oid = r.relnamespace
  join pg_class c on c.oid = l.oid
  left join busy b on b.oid = l.oid
 group by n.nspname, r.relname
 order by 3 desc, 1
