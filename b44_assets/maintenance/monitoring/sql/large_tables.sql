-- Tables and partitions for which the shares that autovacuum waits for are many rows.
select format('%I.%I', n.nspname, c.relname) as "table", coalesce(array_to_string(c.reloptions, ','), '') as options,
       c.reltuples::bigint as "rows"
  from pg_class c join pg_namespace n on n.oid = c.relnamespace
 where c.relkind in ('r', 'm') and c.reltuples >= 1000000
   and n.nspname not in ('pg_catalog', 'information_schema', 'migration', 'base44') and n.nspname !~ '^pg_(toast|temp)'
 order by c.reltuples desc, 1
 limit 50
