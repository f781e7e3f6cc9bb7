-- The copy is constrained and compared, and takes the place of the default partition; or is given up.
-- depends: b44/drain_copy_functions

-- Checks which let ATTACH believe the bounds, and statistics for the plans of the first queries.
create or replace function b44.drain_constrain(parent text, state jsonb, patience integer) returns jsonb
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  drain constant regclass := target.drain::regclass;
  successor constant regclass := target.successor::regclass;
  outside constant text := b44.drain_outside(target.relation, state);
  item record;
begin
  -- By which the planner knows that the new default partition has no row of another partition.
  if state ->> 'outside' is distinct from outside then
    perform b44.lock_briefly(array[successor], array['access exclusive'], patience);
    if state ->> 'outside' is not null then
      execute format('alter table %s drop constraint b44_outside', successor);
    end if;
    execute format('alter table %s add constraint b44_outside check (%s) not valid', successor, outside);
    return state || jsonb_build_object('outside', outside);
  end if;
  for item in
    select h.inhrelid::regclass as leaf,
           array_agg(format('alter table %s add constraint %I %s%s', h.inhrelid::regclass, c.conname, pg_get_constraintdef(c.oid),
                            case when c.convalidated then ' not valid' else '' end) order by c.conname) as statements
      from pg_inherits h
      join pg_constraint c on c.conrelid = target.relation
       and (c.contype = 'c' and not c.connoinherit or c.contype = 'f' and c.confrelid <> target.relation and c.conparentid = 0)
     where h.inhparent = drain
       and not exists (select from pg_constraint p where p.conrelid = h.inhrelid and p.conname = c.conname)
     group by h.inhrelid
     order by h.inhrelid
     limit 1
  loop
    perform b44.lock_briefly(
      b44.referenced_tables(target.relation) || item.leaf,
      array(select 'share row exclusive' from unnest(b44.referenced_tables(target.relation))) || 'access exclusive'::text, patience);
    for i in 1 .. cardinality(item.statements) loop
      execute item.statements[i];
    end loop;
    return state;
  end loop;
  begin
    for item in
      select c.conrelid::regclass as leaf, c.conname, c.conrelid <> lag(c.conrelid) over (order by h.inhrelid, c.conname) as another
        from pg_inherits h
        join pg_constraint c on c.conrelid = h.inhrelid and c.contype in ('c', 'f') and not c.convalidated
        left join pg_constraint p on p.conrelid = target.relation and p.conname = c.conname
       where h.inhparent = drain and (p.oid is null or p.convalidated)
       order by h.inhrelid, c.conname
    loop
      if item.another then
        return state;
      end if;
      execute format('alter table %s validate constraint %I', item.leaf, item.conname);
    end loop;
    if found then
      return state;
    end if;
  exception
    when foreign_key_violation or check_violation then
      -- A row was deleted by somebody who did not see its copy: the key is noted.
      return state || jsonb_build_object('phase', 'catching up');
  end;
  for item in
    select h.inhrelid::regclass as leaf from pg_inherits h
     where h.inhparent = drain and not state -> 'analyzed' @> to_jsonb(h.inhrelid::bigint)
     order by h.inhrelid
     limit 1
  loop
    execute format('analyze %s', item.leaf);
    return state || jsonb_build_object('analyzed', state -> 'analyzed' || to_jsonb(item.leaf::oid::bigint));
  end loop;
  return state || jsonb_build_object('phase', 'waiting for snapshots', 'older', null);
end
$$;

create or replace function b44.drain_outside(parent regclass, state jsonb) returns text
language sql stable
set search_path = public, pg_temp
as $$
  select b44.outside(parent, array_agg(p.first_moment), array_agg(p.next_moment))
    from jsonb_to_recordset(state -> 'partitions') as p (first_moment timestamptz, next_moment timestamptz)
$$;

-- Transactions that may have begun before the trigger was there, or still have to commit what they noted.
create or replace function b44.older_snapshots(noted regclass) returns jsonb
language sql
set search_path = public, pg_temp
as $$
  select coalesce(jsonb_agg(jsonb_build_object('pid', a.pid, 'transaction', t.virtualtransaction, 'snapshot', a.backend_xmin::text,
                                               'name', coalesce(nullif(a.application_name, ''), a.backend_type))), '[]')
    from pg_stat_activity a
    join pg_locks t on t.pid = a.pid and t.locktype = 'virtualxid' and t.granted and t.virtualxid = t.virtualtransaction
   where a.datname = current_database() and a.pid <> pg_backend_pid() and a.usesysid is not null
     and a.backend_type is distinct from 'autovacuum worker'
     -- Of another role's session neither kind nor snapshot are shown: it counts until its transaction ends.
     and (a.backend_xmin is not null or a.backend_type is null
          or exists (select from pg_locks n where n.pid = a.pid and n.locktype = 'relation'
                                             and n.relation = noted and n.database = a.datid))
     and not exists (select from pg_stat_progress_vacuum p where p.pid = a.pid)
     and not exists (select from pg_stat_progress_create_index p where p.pid = a.pid)
     and not exists (select from pg_stat_progress_analyze p where p.pid = a.pid)
$$;

-- Waits until nobody is left who could have written unseen.
create or replace function b44.drain_wait_for_snapshots(parent text, state jsonb) returns jsonb
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  noted constant regclass := target.noted::regclass;
  older jsonb;
begin
  if b44.has_rows(noted, 'true') then
    return state || jsonb_build_object('phase', 'catching up');
  elsif state -> 'older' = 'null' then
    older := b44.older_snapshots(noted);
  else
    select coalesce(jsonb_agg(o), '[]') into older
      from jsonb_array_elements(state -> 'older') o
      join jsonb_array_elements(b44.older_snapshots(noted)) n
        on (o -> 'pid', o -> 'transaction', o -> 'snapshot') = (n -> 'pid', n -> 'transaction', n -> 'snapshot');
  end if;
  -- Notes may have come in with the last of those transactions: looked for again at the swap.
  return state || jsonb_build_object('older', older, 'phase', case when older = '[]' then 'verifying' else 'waiting for snapshots' end);
end
$$;

-- Whether the copy holds what the default partition holds, in one snapshot.
create or replace function b44.drain_equal(relation regclass, default_partition regclass, drain regclass) returns boolean
language plpgsql
set search_path = public, pg_temp
as $$
declare
  columns constant text := (
    select string_agg(quote_ident(attname), ', ' order by attnum)
      from pg_attribute where attrelid = relation and attnum > 0 and not attisdropped);
  equal boolean;
begin
  execute format($sql$
    select s.rows = d.rows and s.digest = d.digest
      from (select count(*) as rows, coalesce(sum(hashtextextended(row(%1$s)::text, 0)::numeric), 0) as digest from only %2$s) s,
           (select count(*) as rows, coalesce(sum(hashtextextended(row(%1$s)::text, 0)::numeric), 0) as digest from %3$s) d
    $sql$, columns, default_partition, drain) into equal;
  return equal;
end
$$;

-- The files of both sides, others after a TRUNCATE or whatever else writes a table anew, and the triggers that see all else,
-- others after one was disabled, though it be enabled again.
create or replace function b44.drain_files(default_partition regclass, drain regclass) returns text
language sql stable
set search_path = public, pg_temp
as $$
  with parts as (
    select default_partition as part
    union all
    select h.inhrelid from pg_inherits h where h.inhparent = drain
  )
  select concat_ws(' ',
    (select string_agg(concat(p.part::oid, ':', pg_relation_filenode(p.part)), ' ' order by p.part::oid) from parts p),
    (select string_agg(concat(t.oid, '/', t.xmin), ' ' order by t.oid)
       from pg_trigger t
      where (t.tgrelid = drain or t.tgrelid in (select p.part from parts p)) and starts_with(t.tgname, 'b44_drain_')))
$$;

-- Whether all of the triggers are there and fire, whoever writes.
create or replace function b44.drain_watched(default_partition regclass, drain regclass) returns boolean
language sql stable
set search_path = public, pg_temp
as $$
  select count(*) filter (where t.tgrelid = default_partition) = 2
     and count(*) filter (where t.tgrelid = drain) = 1
     and count(*) = 3 + 3 * (select count(*) from pg_inherits h where h.inhparent = drain)
    from pg_trigger t
   where (t.tgrelid in (default_partition, drain) or t.tgrelid in (select h.inhrelid from pg_inherits h where h.inhparent = drain))
     and starts_with(t.tgname, 'b44_drain_') and t.tgenabled = 'A'
$$;

-- Counts and sums both sides. Whoever writes with triggers disabled is found out here.
create or replace function b44.drain_verify(parent text, state jsonb) returns jsonb
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  files constant text := b44.drain_files(target.default_partition, target.drain::regclass);
  begun constant timestamptz := clock_timestamp();
  equal boolean;
begin
  equal := b44.drain_equal(target.relation, target.default_partition, target.drain::regclass);
  if b44.has_rows(target.noted::regclass, 'true') then
    return state || jsonb_build_object('phase', 'catching up');
  elsif not b44.drain_watched(target.default_partition, target.drain::regclass) then
    raise warning 'triggers on % or its copy were disabled or dropped. The copy is begun again', target.default_partition;
    return state || jsonb_build_object('phase', 'discarding');
  elsif not equal then
    raise warning 'the copy of % differs from it: one of them was written to by itself. It is begun again', target.default_partition;
    return state || jsonb_build_object('phase', 'discarding');
  end if;
  return state || jsonb_build_object('phase', 'swapping', 'files', files,
    'compared_ms', extract(epoch from clock_timestamp() - begun) * 1000);
end
$$;

-- The copies take the place of the default partition, in one transaction with nothing but changes of the catalogue.
create or replace function b44.drain_swap(parent text, state jsonb, patience integer) returns jsonb
language plpgsql
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
declare
  -- Within this time, comparing them again under the lock keeps nobody waiting who is not used to it.
  most_compared_ms constant double precision := 250;
  target constant record := b44.draining(parent);
  default_name constant text := (select relname from pg_class where oid = target.default_partition);
  drain constant regclass := target.drain::regclass;
  noted constant regclass := target.noted::regclass;
  successor constant regclass := target.successor::regclass;
  leaves constant regclass[] := array(select inhrelid::regclass from pg_inherits where inhparent = drain);
  incoming jsonb := '[]';
  tables regclass[];
  item record;
begin
  tables := b44.referenced_tables(target.relation)
    || array(select distinct k.referencing from b44.incoming_keys(target.relation) k where k.referencing <> target.relation)
    || target.relation || target.default_partition || drain || leaves;
  perform b44.lock_briefly(tables, array_fill('access exclusive'::text, array[cardinality(tables)]), patience);
  if b44.has_rows(noted, 'true') then
    return state || jsonb_build_object('phase', 'catching up');
  elsif state ->> 'outside' <> b44.drain_outside(target.relation, state) then
    return state || jsonb_build_object('phase', 'adding constraints');
  elsif state ->> 'form' <> b44.partition_form(target.relation) then
    return state || jsonb_build_object('phase', 'discarding');
  elsif state ->> 'files' is distinct from b44.drain_files(target.default_partition, drain)
      or (state ->> 'compared_ms')::double precision <= most_compared_ms
         and not b44.drain_equal(target.relation, target.default_partition, drain) then
    -- Somebody wrote to one of both alone since they were compared.
    return state || jsonb_build_object('phase', 'verifying');
  end if;
  for item in select * from b44.incoming_keys(target.relation) loop
    execute format('alter table %s drop constraint %I', item.referencing, item.constraint_name);
    incoming := incoming || jsonb_build_object('table', b44.qualified(item.referencing), 'name', item.constraint_name,
      'definition', item.definition, 'validated', item.validated);
  end loop;
  execute format('drop table %s', target.default_partition);
  for i in 1 .. cardinality(leaves) loop
    execute format('drop trigger b44_drain_insert on %s', leaves[i]);
    execute format('drop trigger b44_drain_update on %s', leaves[i]);
    execute format('drop trigger b44_drain_delete on %s', leaves[i]);
    execute format('alter table %s detach partition %s', drain, leaves[i]);
  end loop;
  execute format('alter table %s attach partition %s default', target.relation, successor);
  for item in
    select * from jsonb_to_recordset(state -> 'partitions') as p (name text, first_moment timestamptz, next_moment timestamptz)
     order by p.first_moment
  loop
    execute format('alter table %s attach partition %I.%I for values from (%L) to (%L)',
      target.relation, target.schema_name, item.name, item.first_moment, item.next_moment);
    execute format('alter table %I.%I drop constraint b44_bounds', target.schema_name, item.name);
  end loop;
  execute format('alter table %s drop constraint b44_outside', successor);
  perform b44.rename_partition(successor, default_name);
  for item in select * from jsonb_to_recordset(incoming) as k ("table" text, name text, definition text, validated boolean) loop
    execute format('alter table %s add constraint %I %s%s', item.table, item.name, item.definition,
      case when item.validated then ' not valid' else '' end);
  end loop;
  return state || jsonb_build_object('phase', 'finishing', 'incoming', incoming,
    'leaves', (select jsonb_agg(l::oid::bigint) from unnest(leaves) l));
end
$$;

create or replace function b44.drain_clear(parent text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
begin
  execute format('drop table %s', target.drain);
  execute format('drop table %s', target.noted);
  -- With triggers that somebody made of it while an earlier version let everybody.
  execute format('drop function %s() cascade', target.mirror);
  -- An earlier version made none.
  execute format('drop function if exists %s() cascade', b44.note_function(parent));
end
$$;

-- Settings and foreign keys as they were, and the traces go.
create or replace function b44.drain_finish(parent text, state jsonb) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  item record;
begin
  for item in
    select l.oid::regclass as leaf from jsonb_array_elements_text(state -> 'leaves') e join pg_class l on l.oid = e::oid
  loop
    execute format('alter table %s reset (autovacuum_enabled, toast.autovacuum_enabled)', item.leaf);
    if state ->> 'autovacuum' is not null then
      execute format('alter table %s set (autovacuum_enabled = %L)', item.leaf, state ->> 'autovacuum');
    end if;
  end loop;
  for item in select * from jsonb_to_recordset(state -> 'incoming') as k ("table" text, name text, validated boolean) loop
    if item.validated and exists (
      select from pg_constraint where conrelid = to_regclass(item.table) and conname = item.name and not convalidated) then
      execute format('alter table %s validate constraint %I', item.table, item.name);
    end if;
  end loop;
  perform b44.drain_clear(parent);
end
$$;

-- Gives up: nothing but the copies is lost.
create or replace function b44.drain_discard(parent text, state jsonb, patience integer) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  source constant regclass := (select oid from pg_class where oid = (state ->> 'default')::oid);
begin
  if exists (select from pg_trigger where tgrelid = source and tgname = 'b44_drain_rows') then
    perform b44.lock_briefly(array[source], array['access exclusive'], patience);
    execute format('drop trigger b44_drain_rows on %s', source);
    execute format('drop trigger b44_drain_truncate on %s', source);
  end if;
  perform b44.drain_clear(parent);
end
$$;

-- For a drain that rows make impossible: a copy that is kept would refuse the application's writes for the same reason.
create or replace function b44.drain_abandon(parent text, patience integer default 60) returns boolean
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target constant record := b44.draining(parent);
  state jsonb;
begin
  perform b44.lock_partitions(target.relation);
  state := obj_description(to_regclass(target.drain), 'pg_class')::jsonb;
  if state is null or state ->> 'phase' = 'finishing' then
    return false;
  end if;
  perform b44.drain_discard(parent, state, patience);
  return true;
end
$$;

comment on function b44.drain_abandon(text, integer) is 'Gives up a drain that is under way: the copies go, and the rows stay in the default partition; whether there was one';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.drain_constrain(text, jsonb, integer),
  b44.drain_outside(regclass, jsonb),
  b44.older_snapshots(regclass),
  b44.drain_wait_for_snapshots(text, jsonb),
  b44.drain_equal(regclass, regclass, regclass),
  b44.drain_files(regclass, regclass),
  b44.drain_watched(regclass, regclass),
  b44.drain_verify(text, jsonb),
  b44.drain_swap(text, jsonb, integer),
  b44.drain_clear(text),
  b44.drain_finish(text, jsonb),
  b44.drain_discard(text, jsonb, integer),
  b44.drain_abandon(text, integer)
from public;
