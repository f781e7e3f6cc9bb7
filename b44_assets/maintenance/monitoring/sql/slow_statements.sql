-- Statements that run now, the longest first; their text may hold data, and is left out. With pg_stat_statements, all are told.
select pid::text as pid, coalesce(query_id::text, '') as query_id, coalesce(application_name, '') as application,
       coalesce(wait_event, '') as waits_for,
       extract(epoch from clock_timestamp() - query_start)::float8 as running_seconds
  from pg_stat_activity
 where state = 'active' and backend_type = 'client backend' and pid <> pg_backend_pid()
 order by query_start
 limit 20
