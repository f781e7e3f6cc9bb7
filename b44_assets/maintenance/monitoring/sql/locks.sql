-- Who waits for locks, who has held a strong one for long, and deadlocks of this database.
select (select count(distinct pid) from pg_locks where not granted) as waiting,
       coalesce((select extract(epoch from max(clock_timestamp() - waitstart)) from pg_locks where not granted), 0)::float8
         as longest_wait_seconds,
       coalesce((select extract(epoch from max(clock_timestamp() - a.xact_start))
                   from pg_locks l join pg_stat_activity a on a.pid = l.pid
                  where l.granted and l.locktype = 'relation' and l.mode in ('AccessExclusiveLock', 'ExclusiveLock')
                    and l.database = (select oid from pg_database where datname = current_database())
                    and l.pid <> pg_backend_pid()), 0)::float8 as longest_exclusive_seconds,
       d.deadlocks as deadlocks_total,
       extract(epoch from d.stats_reset)::float8 as counted_since,
       extract(epoch from pg_postmaster_start_time())::float8 as started_at
  from pg_stat_database d
 where d.datname = current_database()
