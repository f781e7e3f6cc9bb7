-- Connections by database, role and state.
select coalesce(datname, '')::text as database, coalesce(usename, '')::text as role, coalesce(state, 'not shown') as state,
       count(*) as sessions
  from pg_stat_activity
 where coalesce(backend_type, 'client backend') = 'client backend' and datid is not null and pid <> pg_backend_pid()
 group by 1, 2, 3
 order by 4 desc, 1, 2, 3
 limit 50
