-- The statements of this database that took the most time in all, without their values. What is no query or change of rows may
-- hold a password, and is left out.
select queryid::text as query_id, left(regexp_replace(query, '\s+', ' ', 'g'), 200) as statement,
       calls as calls, mean_exec_time / 1000 as mean_seconds, max_exec_time / 1000 as max_seconds,
       total_exec_time / 1000 as all_seconds, rows as rows
  from {extension}.pg_stat_statements
 where dbid = (select oid from pg_database where datname = current_database())
   and query ~* '^\s*(select|with|insert|update|delete|merge)\M'
   and query <> '<insufficient privilege>'
 order by mean_exec_time >= 0.1 desc, total_exec_time desc
 limit 50
