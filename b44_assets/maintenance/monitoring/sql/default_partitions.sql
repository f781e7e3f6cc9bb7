-- Rows in default partitions, as far as statistics tell: rows are not read.
select p.partrelid::regclass::text as "table", p.partdefid::regclass::text as partition,
       greatest(pg_stat_get_live_tuples(c.oid), c.reltuples, 0)::bigint as "rows"
  from pg_partitioned_table p
  join pg_class c on c.oid = p.partdefid
 order by 3 desc, 1
