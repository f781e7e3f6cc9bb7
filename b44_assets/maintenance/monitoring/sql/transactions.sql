-- Transactions of this database, and what sessions came to.
select xact_commit as commits_total, xact_rollback as rollbacks_total,
       tup_returned as rows_read_total, tup_inserted as rows_inserted_total, tup_updated as rows_updated_total,
       tup_deleted as rows_deleted_total,
       sessions as sessions_total, sessions_abandoned as sessions_abandoned_total, sessions_fatal as sessions_fatal_total,
       sessions_killed as sessions_killed_total,
       extract(epoch from stats_reset)::float8 as counted_since,
       extract(epoch from pg_postmaster_start_time())::float8 as started_at
  from pg_stat_database
 where datname = current_database()
