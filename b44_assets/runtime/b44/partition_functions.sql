-- Partitions by month or year (UTC): made ahead or on demand, with the rows that already lie in the default partition; detached.
-- depends: b44/partition_period_functions, b44/partition_lock_functions, b44/partition_table_functions,
--   b44/partition_row_functions

-- Makes partitions in one transaction. Rows of theirs that lie in the default partition come along: it turns into the
-- partition where it holds nothing else, or they are copied while others work, and only what changed since is moved under the lock.
create or replace function b44.create_partitions(parent text, period text, days date[]) returns text[]
language plpgsql
set search_path = public, pg_temp
set timezone = 'UTC'
set datestyle = 'ISO, YMD'
as $$
declare
  patience constant integer := 60;
  most_attempts constant integer := 60;
  most_rows constant bigint := 100000;
  most_bytes constant bigint := 1 << 30;
  target record := b44.partitioning(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  hint constant text := format('Run by itself: call drain_default_partition(%L, %L)', parent, period);
  drain regclass;
  answer text[];
  names text[];            -- of the partitions to make; their places in this list are those in the next four
  firsts timestamptz[];
  nexts timestamptz[];
  within text[];           -- SQL that is true for their rows
  built regclass[];        -- the tables that are to become partitions
  held integer[];          -- places of periods that the default partition has rows of
  becomes integer;         -- place of the one whose partition the default partition turns into
  successor regclass;      -- the empty table that then is the default partition
  may_become boolean := true;
  copied integer[] := '{}';
  only_one boolean;
  standing text[];         -- transactions that kept a snapshot when the locks were asked for
  place integer;
begin
  for attempt in 1 .. 2 loop
    select array_agg(w.name order by w.first_moment) filter (where w.partition is null),
           array_agg(w.first_moment order by w.first_moment) filter (where w.partition is null),
           array_agg(w.next_moment order by w.first_moment) filter (where w.partition is null),
           array_agg(coalesce(c.relname, w.name) order by w.first_moment)
      into names, firsts, nexts, answer
      from (
        select distinct p.first_moment, p.next_moment, target.table_name || p.suffix as name, e.partition
          from unnest(days) d
         cross join b44.period(period, d) p
          left join b44.partition_bounds(target.relation) e
            on e.first_moment <= p.first_moment and e.next_moment >= p.next_moment
      ) w
      left join pg_class c on c.oid = w.partition;
    if names is null then
      return coalesce(answer, '{}');
    elsif attempt = 1 then
      -- Then looks again: another session may just have made them, and a new default partition.
      perform b44.lock_partitions(target.relation);
      target := b44.partitioning(parent);
      drain := to_regclass(format('%I.%I', target.schema_name, target.table_name || '_drain'));
    end if;
  end loop;

  for i in 1 .. cardinality(names) loop
    within[i] := b44.within(target.key_column, target.key_type, firsts[i], nexts[i]);
    if exists (select from pg_inherits h where h.inhparent = drain
                  and h.inhrelid = to_regclass(format('%I.%I', target.schema_name, names[i]))) then
      raise object_in_use using hint = hint, message = format(
        'rows of %s are being moved to %s, or this was interrupted', target.default_partition, names[i]);
    elsif to_regclass(format('%I.%I', target.schema_name, names[i])) is not null then
      raise duplicate_table using hint = 'Rename it, or attach it.', message = format(
        'there is a table %s that is no partition of %s', names[i], parent);
    end if;
  end loop;

  for attempt in 1 .. most_attempts loop
    if held is null then
      held := '{}';
      if target.default_partition is not null then
        if pg_relation_size(target.default_partition) > most_bytes then
          raise object_not_in_prerequisite_state using hint = hint, message = format(
            '%s is too large to be looked through while others wait', target.default_partition);
        end if;
        -- Without a lock: ATTACH will look again.
        for i in 1 .. cardinality(names) loop
          if b44.has_rows(target.default_partition, within[i]) then
            held := held || i;
          end if;
        end loop;
      end if;
      if held <> '{}' then
        if current_setting('transaction_isolation') <> 'read committed' then
          raise active_sql_transaction using message = format(
            'rows of %s can be moved only in a transaction with READ COMMITTED', target.default_partition);
        elsif drain is not null or exists (select from b44.incoming_keys(target.relation)) then
          raise object_not_in_prerequisite_state using hint = hint, message = format(
            'rows of %s cannot be moved in one transaction', target.default_partition);
        end if;
        only_one := cardinality(held) = 1
          and not b44.has_rows(target.default_partition, format('(%s) is not true', within[held[1]]));
        if only_one and may_become and b44.tied_to(target.default_partition) is null then
          becomes := held[1];
          successor := b44.build_partition(parent, names[becomes] || '_new');
          perform b44.adopt_access(target.default_partition, successor);
          if built[becomes] is not null then
            execute format('drop table %s', built[becomes]);
          end if;
          built[becomes] := target.default_partition;
        end if;
      end if;
    end if;
    for i in 1 .. cardinality(names) loop
      if built[i] is null then
        built[i] := b44.build_partition(parent, names[i]);
        perform b44.describe_partition(target.relation, built[i], period, firsts[i]);
      end if;
    end loop;
    if becomes is null then
      foreach place in array held loop
        if not place = any (copied) then
          perform b44.copy_rows(target.default_partition, built[place], within[place], most_rows, hint);
          copied := copied || place;
        end if;
      end loop;
    end if;

    begin
      select array_agg(s.transaction) into standing from b44.standing_snapshots() s;
      -- Whoever has its list of partitions, but not read the default one yet, would miss rows that move.
      perform b44.lock_to_attach(target.relation, target.default_partition, held <> '{}', patience);
      if held <> '{}' and becomes is null and exists (select from b44.standing_snapshots(standing)) then
        raise lock_not_available using hint = hint, message = format(
          'a transaction with a snapshot of before would not see rows of %s where they move to', target.default_partition);
      end if;
      if becomes is not null then
        execute format('alter table %s detach partition %s', target.relation, target.default_partition);
        perform b44.replace_partition(target.default_partition, names[becomes], successor);
      elsif held <> '{}' then
        foreach place in array held loop
          perform b44.copy_changes(target.default_partition, built[place], within[place]);
        end loop;
        perform b44.delete_rows(target.default_partition,
          (select string_agg('(' || within[p] || ')', ' or ') from unnest(held) p));
      end if;
      perform b44.attach(target.relation, case when becomes is null then target.default_partition end, built, firsts, nexts);
      if becomes is not null then
        execute format('alter table %s attach partition %s default', target.relation, successor);
        perform b44.describe_partition(target.relation, built[becomes], period, firsts[becomes]);
      end if;
      exit;
    exception
      when lock_not_available or deadlock_detected then
        if attempt = most_attempts then
          raise;
        end if;
      when check_violation then
        -- A row has come in that was not there when we looked.
        if attempt = most_attempts then
          raise;
        end if;
        may_become := becomes is null;
        if becomes is not null then
          execute format('drop table %s', successor);
          built[becomes] := null;
          becomes := null;
        end if;
        held := null;
    end;
    perform b44.pause(attempt);
  end loop;
  perform b44.wait_as_before(caller_lock_timeout, caller_deadlock_timeout);
  return answer;
end
$$;

create or replace function b44.create_partition(parent text, period text, day date) returns text
language sql
set search_path = public, pg_temp
as $$
  select (b44.create_partitions(parent, period, array[day]))[1]
$$;

create or replace function b44.manage_partitions(parent text, period text, ahead integer) returns text[]
language sql
set search_path = public, pg_temp
as $$
  select b44.follow_truncate_triggers(relation) from b44.partitioning(parent);
  select b44.create_partitions(parent, period, b44.missing_partitions(parent, period, ahead))
$$;

-- Plain DETACH, since CONCURRENTLY is not possible where there is a default partition; its lock is held for an instant.
create or replace function detach_partitions_before(parent text, day date, at_most integer default null) returns text[]
language plpgsql
set search_path = public, pg_temp
as $$
declare
  patience constant integer := 60;
  most_attempts constant integer := 60;
  target record := b44.partitioning(parent);
  caller_lock_timeout constant text := current_setting('lock_timeout');
  caller_deadlock_timeout constant text := current_setting('deadlock_timeout');
  item record;
  detached text[] := '{}';
begin
  perform b44.lock_partitions(target.relation);
  target := b44.partitioning(parent);
  for item in
    select b.partition, c.relname
      from b44.partition_bounds(target.relation) b
      join pg_class c on c.oid = b.partition
     where b.next_moment at time zone 'UTC' <= day  -- compared as it is: a far day is no timestamp
     order by b.next_moment
     limit at_most
  loop
    for attempt in 1 .. most_attempts loop
      begin
        perform b44.lock_to_attach(target.relation, target.default_partition, true, patience);
        execute format('alter table %s detach partition %s', target.relation, item.partition);
        detached := detached || item.relname::text;
        exit;
      exception
        when lock_not_available or deadlock_detected then
          if attempt = most_attempts then
            raise;
          end if;
      end;
      perform b44.pause(attempt);
    end loop;
  end loop;
  perform b44.wait_as_before(caller_lock_timeout, caller_deadlock_timeout);
  return detached;
end
$$;

comment on function b44.create_partitions is 'Makes the partitions of the months or years that days lie in, moving rows out of the default partition; returns their names';
comment on function b44.create_partition is 'Makes the partition of a month or year that a day lies in, if it is not there; returns its name';
comment on function b44.manage_partitions is 'Makes the partitions from the earliest to some periods ahead that are not there; returns their names';
comment on function detach_partitions_before is 'Detaches partitions that end by a day (UTC) and keeps them as tables; returns their names';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  b44.create_partitions(text, text, date[]),
  b44.create_partition(text, text, date),
  b44.manage_partitions(text, text, integer),
  detach_partitions_before(text, date, integer)
from public;
