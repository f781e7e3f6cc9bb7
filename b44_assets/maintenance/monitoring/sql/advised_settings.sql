-- Settings as sessions begin with them; ours has some of its own.
select name as name, coalesce(reset_val, setting, '') as value, coalesce(unit, '') as unit
  from pg_settings
 where name in (
   'shared_buffers', 'effective_cache_size', 'work_mem', 'maintenance_work_mem', 'max_wal_size', 'checkpoint_timeout',
   'autovacuum', 'track_counts', 'autovacuum_max_workers', 'random_page_cost', 'max_files_per_process', 'max_connections',
   'max_prepared_transactions', 'max_locks_per_transaction', 'track_io_timing', 'log_lock_waits', 'log_min_duration_statement',
   'idle_in_transaction_session_timeout', 'ssl', 'listen_addresses', 'password_encryption', 'fsync', 'full_page_writes',
   'shared_preload_libraries')
 order by 1
