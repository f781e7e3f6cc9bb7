-- Any number of rows moved out of a default partition while everybody reads and writes.
--
-- Rows moved one by one would be seen twice or not at all by a reader whose statement began before. So they are copied to
-- new partitions and a new default partition beside the table; triggers keep the copy up to date; then one short transaction
-- lets the copies take the old partition's place. An interruption at any point is gone on from by the next call.
-- depends: b44/drain_copy_functions, b44/drain_swap_functions

-- The state of the work stands in the comment of the copy, so that whoever comes next goes on, whatever happened.
create or replace function b44.drain_step(
  parent text, period text, days date[] default null, patience integer default 60, out phase text, out done bigint, out total bigint, out idle boolean, out waits_for text
)
language plpgsql
set search_path = public, pg_temp
as $$
declare
  target record := b44.draining(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  drain regclass;
  state jsonb;
  reached jsonb;
begin
  if current_setting('transaction_isolation') <> 'read committed' then
    raise active_sql_transaction using message = 'rows are moved only with READ COMMITTED';
  end if;
  perform b44.lock_partitions(target.relation);
  -- No wait of ours may be long while rows are held; and only indexes tell which rows are copied without reading them all.
  perform set_config('lock_timeout', patience::text, true), set_config('enable_hashjoin', 'off', true),
          set_config('enable_mergejoin', 'off', true);
  -- Read anew, since what was read above may be what it was before we had our turn.
  target := b44.draining(parent);
  drain := to_regclass(target.drain);
  idle := false;
  if drain is null then
    reached := b44.drain_begin(parent, period, days);
    phase := coalesce(reached ->> 'phase', 'done');
  else
    state := obj_description(drain, 'pg_class')::jsonb;
    if state is null then
      raise duplicate_table using message = format('there is a table %s that is not of our making', drain);
    end if;
    phase := state ->> 'phase';
    -- What has another form by now, or was begun by a version with other phases, is begun anew.
    if phase not in ('finishing', 'discarding')
       and (state ->> 'form' <> b44.partition_form(target.relation)
            or phase not in ('built', 'copying', 'catching up', 'adding constraints', 'waiting for snapshots', 'verifying',
                             'swapping')) then
      phase := 'discarding';
    end if;
    case phase
      when 'built' then
        reached := b44.drain_watch(parent, state, patience);
      when 'copying' then
        reached := b44.drain_copy(parent, state);
      when 'catching up' then
        reached := b44.drain_catch_up(parent, state);
        if not (reached ->> 'left')::boolean then
          reached := reached || jsonb_build_object('phase', 'adding constraints');
        else
          idle := (reached ->> 'done')::bigint = 0;
        end if;
      when 'adding constraints' then
        reached := b44.drain_constrain(parent, state, patience);
      when 'waiting for snapshots' then
        reached := b44.drain_wait_for_snapshots(parent, state);
        idle := reached ->> 'phase' = 'waiting for snapshots';
      when 'verifying' then
        reached := b44.drain_verify(parent, state);
      when 'swapping' then
        reached := b44.drain_swap(parent, state, patience);
      when 'finishing' then
        perform b44.drain_finish(parent, state);
      when 'discarding' then
        perform b44.drain_discard(parent, state, patience);
    end case;
    -- What the row lacks afterwards is the reason why the two ends differ.
    reached := reached - 'done' - 'left';
  end if;
  state := coalesce(reached, state);
  done := (state ->> 'copied')::bigint;
  total := (state ->> 'rows')::bigint;
  if idle then
    select string_agg(format('process %s (%s)', o ->> 'pid', o ->> 'name'), ', ') into waits_for
      from jsonb_array_elements(case when jsonb_typeof(state -> 'older') = 'array' then state -> 'older' else '[]' end) o;
    waits_for := coalesce(waits_for, 'whoever is changing the rows');
  end if;
  if reached is not null then
    execute format('comment on table %s is %L', target.drain, reached::text);
  end if;
  perform b44.wait_as_before(caller_lock_timeout, caller_deadlock_timeout);
end
$$;

-- A procedure that commits cannot have a setting of its own, so each of its transactions begins with it.
create or replace procedure drain_default_partition(parent text, period text default 'month'::text, days date[] default null)
language plpgsql
as $$
declare
  most_attempts constant integer := 300;
  step record;
  phase text;
  attempts integer := 0;
begin
  set local search_path = public, pg_temp;
  loop
    commit;
    set local search_path = public, pg_temp;
    set transaction isolation level read committed;
    begin
      select * into step from b44.drain_step(parent, period, days);
      attempts := case when step.idle then attempts + 1 else 0 end;
    exception
      when lock_not_available or deadlock_detected then
        attempts := attempts + 1;
        if attempts >= most_attempts then
          raise;
        end if;
    end;
    exit when step.phase = 'done';
    if step.phase is distinct from phase then
      phase := step.phase;
      raise notice '%: % (% of % rows copied)', parent, phase, step.done, step.total;
    end if;
    if attempts > 0 then
      commit;
      set local search_path = public, pg_temp;
      perform pg_sleep(least(0.05 * 1.5 ^ least(attempts, 20), 2) * (1 - random() / 2));
    end if;
  end loop;
end
$$;

comment on function b44.drain_step is 'Does the next step of moving rows out of a default partition; to be called, each time in a transaction of its own, until phase is done';
comment on procedure drain_default_partition is 'Moves the rows of a default partition to partitions of their months or years, while everybody reads and writes';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.drain_step(text, text, date[], integer),
  drain_default_partition(text, text, date[])
from public;
