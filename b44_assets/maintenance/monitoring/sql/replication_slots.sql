-- Each slot, with the WAL that the server keeps for it.
select slot_name::text as slot, slot_type as type, case when active then 'yes' else 'no' end as has_reader,
       coalesce(wal_status, '') as wal_status,
       greatest(pg_wal_lsn_diff(case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end,
                                restart_lsn), 0)::float8 as wal_bytes
  from pg_replication_slots
 order by wal_bytes desc nulls last
 limit 50
