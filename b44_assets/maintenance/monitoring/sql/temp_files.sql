-- Files that statements of this database wrote since their memory was too small.
select temp_files as files_total, temp_bytes as bytes_total,
       extract(epoch from stats_reset)::float8 as counted_since,
       extract(epoch from pg_postmaster_start_time())::float8 as started_at
  from pg_stat_database
 where datname = current_database()
