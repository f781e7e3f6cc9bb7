-- Each standby and other reader of the WAL.
select coalesce(application_name, '') as application, coalesce(state, '') as state, coalesce(sync_state, '') as sync_state,
       extract(epoch from replay_lag)::float8 as lag_seconds,
       case when not pg_is_in_recovery() then pg_wal_lsn_diff(pg_current_wal_lsn(), replay_lsn)::float8 end as lag_bytes
  from pg_stat_replication
 order by lag_seconds desc nulls last
 limit 50
