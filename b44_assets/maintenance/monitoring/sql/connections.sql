-- Connections of clients to the whole server, and the oldest transaction among them. Our own is one only of those from afar.
with others as (
  select * from pg_stat_activity
   where coalesce(backend_type, 'client backend') = 'client backend' and datid is not null
),
clients as (
  select * from others where pid <> pg_backend_pid()
),
remote as (
  select count(*) as sessions, count(*) filter (where not s.ssl and not coalesce(g.encrypted, false)) as plain
    from others o join pg_stat_ssl s using (pid) left join pg_stat_gssapi g using (pid)
   where o.client_addr <> all (array['127.0.0.1', '::1']::inet[])
),
room as (
  select current_setting('max_connections')::int - current_setting('superuser_reserved_connections')::int
         - coalesce(current_setting('reserved_connections', true), '0')::int as places
)
select room.places as allowed,
       count(clients.pid) as used,
       count(clients.pid)::float8 / room.places as used_ratio,
       count(*) filter (where state = 'active') as active,
       count(*) filter (where state = 'idle') as idle,
       count(*) filter (where state like 'idle in transaction%') as idle_in_transaction,
       count(*) filter (where wait_event_type = 'Lock') as waiting,
       coalesce(extract(epoch from max(clock_timestamp() - xact_start)), 0)::float8 as longest_transaction_seconds,
       coalesce(extract(epoch from max(clock_timestamp() - state_change) filter (where state like 'idle in transaction%')), 0)::float8
         as longest_idle_in_transaction_seconds,
       (select sessions from remote) as remote,
       (select plain from remote) as unencrypted
  from room left join clients on true
 group by room.places
