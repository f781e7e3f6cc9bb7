-- How far standbys are behind, and what slots hold back. On a standby, how far it is itself.
with here as (
  select pg_is_in_recovery() as standby,
         case when pg_is_in_recovery() then pg_last_wal_replay_lsn() else pg_current_wal_lsn() end as lsn
),
slots as (
  select active, pg_wal_lsn_diff(here.lsn, restart_lsn)::float8 as held from pg_replication_slots, here
)
select here.standby as is_standby,
       (select count(*) from pg_stat_replication where application_name <> 'pg_basebackup') as standbys,
       (select max(extract(epoch from replay_lag))::float8 from pg_stat_replication where state = 'streaming')
         as longest_lag_seconds,
       (select max(pg_wal_lsn_diff(here.lsn, replay_lsn))::float8 from pg_stat_replication where state = 'streaming')
         as largest_lag_bytes,
       case when here.standby and pg_last_wal_receive_lsn() is distinct from pg_last_wal_replay_lsn()
            then extract(epoch from clock_timestamp() - coalesce(pg_last_xact_replay_timestamp(), pg_postmaster_start_time()))::float8
            when here.standby then 0 end as own_lag_seconds,
       (select count(*) from slots) as slots,
       (select count(*) from slots where not active) as slots_without_reader,
       (select coalesce(max(greatest(held, 0)), 0) from slots) as slot_wal_bytes
  from here
