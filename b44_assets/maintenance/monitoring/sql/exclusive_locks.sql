-- Tables that transactions keep others from reading or writing, the longest first.
select a.pid::text as pid, coalesce(a.application_name, '') as application, coalesce(a.state, '') as state,
       c.relname::text as object, l.mode as mode,
       extract(epoch from clock_timestamp() - a.xact_start)::float8 as transaction_seconds
  from pg_locks l
  join pg_stat_activity a on a.pid = l.pid
  join pg_class c on c.oid = l.relation
 where l.granted and l.locktype = 'relation' and l.mode in ('AccessExclusiveLock', 'ExclusiveLock')
   and l.database = (select oid from pg_database where datname = current_database())
   and l.pid <> pg_backend_pid() and a.xact_start is not null
 order by a.xact_start
 limit 50
