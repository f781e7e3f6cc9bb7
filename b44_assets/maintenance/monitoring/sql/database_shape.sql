-- What the database is like: its size, its relations, and how many of them one statement may touch at once.
with recursive trees as (
  select c.oid as root, c.oid from pg_class c
   where c.relkind in ('r', 'p') and not c.relispartition and c.relnamespace <> 'pg_catalog'::regnamespace
  union all
  select t.root, i.inhrelid from trees t join pg_inherits i on i.inhparent = t.oid
),
members as (
  select t.root, count(*) + (select count(*) from pg_index x where x.indrelid = any(array_agg(t.oid))) as relations
    from trees t group by t.root
)
select pg_database_size(current_database()) as database_bytes,
       (select count(*) from pg_class where relkind in ('r', 'p', 'm', 'S')) as locked_by_a_dump,
       coalesce((select max(relations) from members), 0)::bigint as largest_tree
