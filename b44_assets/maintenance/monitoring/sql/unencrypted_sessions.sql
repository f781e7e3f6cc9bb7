-- Sessions from other machines whose every byte can be read on the way.
select coalesce(o.usename, '')::text as role, coalesce(o.application_name, '') as application, host(o.client_addr) as address,
       count(*) as sessions
  from pg_stat_activity o join pg_stat_ssl s using (pid) left join pg_stat_gssapi g using (pid)
 where o.backend_type = 'client backend' and o.client_addr <> all (array['127.0.0.1', '::1']::inet[])
   and not s.ssl and not coalesce(g.encrypted, false)
 group by 1, 2, 3
 order by 4 desc, 1, 2, 3
 limit 20
