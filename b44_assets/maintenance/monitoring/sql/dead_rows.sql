-- Dead rows of all tables, and the largest shares among those of some size.
with tables as (
  select n_live_tup as live, n_dead_tup as dead, n_mod_since_analyze as changed from pg_stat_user_tables
)
select coalesce(sum(live), 0)::float8 as live_rows, coalesce(sum(dead), 0)::float8 as dead_rows,
       coalesce(max(dead::float8 / (live + dead)) filter (where live + dead >= 10000), 0) as largest_dead_ratio,
       coalesce(max(least(changed::float8 / live, 1)) filter (where live >= 10000), 0) as largest_unanalyzed_ratio
  from tables
