-- Blocks that this database asked for, and those of them that were not in shared_buffers.
select blks_hit as hits_total, blks_read as reads_total,
       extract(epoch from stats_reset)::float8 as counted_since,
       extract(epoch from pg_postmaster_start_time())::float8 as started_at
  from pg_stat_database
 where datname = current_database()
