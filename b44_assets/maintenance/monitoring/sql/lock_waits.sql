-- Who blocks whom. The session that is blocked by none is the one to look at.
select w.pid::text as blocked, coalesce(b.pid::text, '') as blocked_by,
       coalesce(a.application_name, '') as blocked_application, coalesce(x.application_name, '') as blocking_application,
       coalesce(x.state, '') as blocking_state,
       coalesce(c.relname::text, w.locktype) as object, w.mode as mode,
       extract(epoch from clock_timestamp() - w.waitstart)::float8 as wait_seconds,
       extract(epoch from clock_timestamp() - x.xact_start)::float8 as blocking_transaction_seconds
  from (select distinct on (pid) * from pg_locks where not granted) w
  left join lateral unnest(pg_blocking_pids(w.pid)) b (pid) on true
  left join pg_stat_activity a on a.pid = w.pid
  left join pg_stat_activity x on x.pid = b.pid
  left join pg_class c on c.oid = w.relation and w.database = (select oid from pg_database where datname = current_database())
 order by wait_seconds desc nulls last
 limit 50
