-- The oldest transactions, which keep vacuum from removing dead rows. The text of a statement may hold data, and is left out.
select pid::text as pid, coalesce(usename, '')::text as role, coalesce(application_name, '') as application,
       coalesce(state, '') as state,
       extract(epoch from clock_timestamp() - xact_start)::float8 as transaction_seconds,
       case when state like 'idle in transaction%' then extract(epoch from clock_timestamp() - state_change)::float8 end as idle_seconds
  from pg_stat_activity
 where xact_start is not null and backend_type = 'client backend' and pid <> pg_backend_pid()
 order by xact_start
 limit 20
