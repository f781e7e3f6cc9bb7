-- What a table would be smaller by if it were written anew, estimated from the planner's statistics, which are shown to whom may
-- read the table. A row: header and line pointer (27 bytes), its columns, aligned; pages are filled up to fillfactor.
with tables as (
  select c.oid, c.relname, n.nspname, c.reltuples, c.relpages::float8 * current_setting('block_size')::int as bytes,
         coalesce((select option_value::float8 / 100 from pg_options_to_table(c.reloptions) where option_name = 'fillfactor'), 1) as fill
    from pg_class c join pg_namespace n on n.oid = c.relnamespace
   where c.relkind in ('r', 'm') and n.nspname not in ('pg_catalog', 'information_schema') and n.nspname !~ '^pg_(toast|temp)'
     and c.relpages >= 16 * 1024 * 1024 / current_setting('block_size')::int
     and (has_table_privilege(c.oid, 'select') or has_any_column_privilege(c.oid, 'select'))
   order by c.relpages desc
   limit 200
)
select case when t.nspname = 'public' then t.relname::text else t.nspname || '.' || t.relname end as "table",
       t.bytes as bytes,
       greatest(0, t.bytes - ceil(t.reltuples * w.width / ((current_setting('block_size')::int - 24) * t.fill))
                             * current_setting('block_size')::int)::float8 as free_bytes,
       greatest(0, 1 - ceil(t.reltuples * w.width / ((current_setting('block_size')::int - 24) * t.fill))
                       * current_setting('block_size')::int / t.bytes)::float8 as bloat_ratio
  from tables t
  cross join lateral (
    select 4 + ceil((24 + sum((1 - s.null_frac) * s.avg_width)) / 8) * 8 as width, count(*) as known
      from pg_stats s where s.schemaname = t.nspname and s.tablename = t.relname and not s.inherited
  ) w
 where t.reltuples >= 0 and w.known = (select count(*) from pg_attribute a where a.attrelid = t.oid and a.attnum > 0 and not a.attisdropped)
 order by 4 desc, 1
 limit 50
