-- Locks that are waited for so shortly that nobody else has to wait long, and transactions that none of them keeps out.
-- depends: b44/upgrade_from_0_1

-- One at a time changes the partitions of a table. The table's own lock, which keeps nobody out, lets this session see what
-- the one before it did to the catalogue.
create or replace function b44.lock_partitions(relation regclass) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform pg_advisory_xact_lock(hashtextextended('b44 partitions', relation::oid::bigint));
  execute format('lock table only %s in access share mode', relation);
end
$$;

-- Locks tables one after the other, all within `patience` milliseconds: others wait for at most that long.
create or replace function b44.lock_briefly(relations regclass[], modes text[], patience integer) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  deadline constant timestamptz := clock_timestamp() + patience * interval '1 millisecond';
  holders text;
begin
  begin
    -- Sends an autovacuum away, and makes it us who give in. For superusers only.
    perform set_config('deadlock_timeout', greatest(1, patience / 2)::text, true);
  exception
    when insufficient_privilege then
      null;  -- lock_timeout still bounds the wait
  end;
  for i in 1 .. cardinality(relations) loop
    begin
      perform set_config(
        'lock_timeout', greatest(1, extract(milliseconds from deadline - clock_timestamp())::integer)::text, true);
      execute format('lock table only %s in %s mode', relations[i], modes[i]);
    exception
      when lock_not_available or deadlock_detected then
        select string_agg(distinct format('process %s (%s)', a.pid, coalesce(nullif(a.application_name, ''), a.backend_type)), ', ')
          into holders
          from pg_locks l
          join pg_stat_activity a using (pid)
         where l.relation = relations[i] and l.granted and l.pid <> pg_backend_pid()
           and l.database = (select d.oid from pg_database d where d.datname = current_database());
        raise lock_not_available using
          message = format('no lock on %s within %s ms', relations[i], patience),
          detail = coalesce(holders, 'Sessions that have ended since') || ' stood in the way.';
    end;
  end loop;
  perform set_config('lock_timeout', patience::text, true);
end
$$;

-- After the above, for the rest of the caller's transaction.
create or replace function b44.wait_as_before(lock_timeout text, deadlock_timeout text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform set_config('lock_timeout', $1, true);
  -- For superusers only; for others it is as it was.
  if current_setting('deadlock_timeout') <> $2 then
    perform set_config('deadlock_timeout', $2, true);
  end if;
end
$$;

-- Before the next attempt: twice as long each time, up to a second, less up to a half at random.
create or replace function b44.pause(attempt integer) returns void
language sql
set search_path = public, pg_temp
as $$
  select pg_sleep(least(0.05 * 2 ^ least(attempt, 10), 1) * (1 - random() / 2))
$$;

create or replace function b44.referenced_tables(relation regclass) returns regclass[]
language sql stable
set search_path = public, pg_temp
as $$
  select coalesce(array_agg(distinct confrelid::regclass), '{}')
    from pg_constraint
   where conrelid = relation and contype = 'f' and confrelid <> relation
$$;

-- Foreign keys that lead to a table.
create or replace function b44.incoming_keys(
  relation regclass
) returns table(referencing regclass, constraint_name name, definition text, validated boolean, referencing_kind "char")
language sql stable
set search_path = public, pg_temp
as $$
  select c.conrelid::regclass, c.conname, pg_get_constraintdef(c.oid), c.convalidated, t.relkind
    from pg_constraint c
    join pg_class t on t.oid = c.conrelid
   where c.confrelid = relation and c.contype = 'f' and c.conparentid = 0
   order by c.conname
$$;

-- The locks under which partitions are attached; `replacing` the default partition, or moving rows of it, locks more.
create or replace function b44.lock_to_attach(
  parent regclass, default_partition regclass, replacing boolean, patience integer
) returns void
language sql
set search_path = public, pg_temp
as $$
  select b44.lock_briefly(array_agg(l.relation order by l.place), array_agg(l.mode order by l.place), patience)
    from (
      select 1 as place, r as relation, case when replacing then 'access exclusive' else 'share row exclusive' end as mode
        from unnest(b44.referenced_tables(parent)) r
      union all
      select 2, parent, case when replacing then 'access exclusive' else 'share update exclusive' end
      union all
      select 3, default_partition, 'access exclusive' where default_partition is not null
    ) l
$$;

-- Transactions that keep a snapshot from one statement to the next, as REPEATABLE READ does, or may: what goes on in a
-- transaction block may be either. One that `seen_before` names may meanwhile be waiting for our own lock.
create or replace function b44.standing_snapshots(seen_before text[] default null) returns table (transaction text)
language plpgsql
set search_path = public, pg_temp
as $$
begin
  perform pg_stat_clear_snapshot();
  return query
    select t.name
      from pg_stat_activity a
     cross join format('%s %s', a.pid, a.xact_start) as t (name)
     where a.datname = current_database() and a.pid <> pg_backend_pid() and a.backend_type = 'client backend'
       and a.backend_xmin is not null
       and (a.state like 'idle in transaction%' or t.name = any (seen_before)
            or (a.xact_start < a.query_start and a.wait_event_type is distinct from 'Lock'));
end
$$;

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.lock_partitions(regclass),
  b44.lock_briefly(regclass[], text[], integer),
  b44.wait_as_before(text, text),
  b44.pause(integer),
  b44.referenced_tables(regclass),
  b44.incoming_keys(regclass),
  b44.lock_to_attach(regclass, regclass, boolean, integer),
  b44.standing_snapshots(text[])
from public;
