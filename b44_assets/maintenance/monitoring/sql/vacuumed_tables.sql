-- Tables with dead or changed rows, and how long ago they were vacuumed and analyzed, by hand or by autovacuum.
select case when schemaname = 'public' then relname::text else schemaname || '.' || relname end as "table",
       n_live_tup as live_rows, n_dead_tup as dead_rows, n_mod_since_analyze as changed_rows,
       extract(epoch from clock_timestamp() - greatest(last_vacuum, last_autovacuum))::float8 as vacuumed_seconds,
       extract(epoch from clock_timestamp() - greatest(last_analyze, last_autoanalyze))::float8 as analyzed_seconds
  from pg_stat_user_tables
 where n_dead_tup > 0 or n_mod_since_analyze > 0
 order by n_dead_tup::float8 / greatest(n_live_tup + n_dead_tup, 10000) desc, n_mod_since_analyze desc
 limit 50
