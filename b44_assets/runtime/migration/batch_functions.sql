-- Batches of the migration, each with its entries in the migration's tables in the caller's transaction: the same for b44 and for whoever calls them
-- from psql. What a batch writes is in migration.load_<table>, which the plan of an entity makes for its columns.
-- depends: b44/partition_functions, migration/exports, migration/migration_log, migration/quarantine, migration/conflicts,
--   migration/migrated, migration/accounting, migration/fingerprint_functions

-- An argument of version 0.1 had another name, which no replacement changes.
do $$
begin
  if exists (
    select from pg_proc p
     where p.oid = to_regprocedure('migration.begin_batch(text, bigint, date, integer, boolean)') and 'settled' = any(p.proargnames)
  ) then
    drop function migration.begin_batch(text, bigint, date, integer, boolean);
  end if;
  -- It was not told the key.
  if to_regprocedure('migration.refuse_record(text, bigint, date, bigint, bigint, text, text)') is not null then
    drop function migration.refuse_record(text, bigint, date, bigint, bigint, text, text);
  end if;
end
$$;

-- The next positions of a partition, for this transaction to work on. A partition is worked on by one transaction at a time,
-- and nothing is planned anew meanwhile: another run may be under way, or the last batch of one that was killed still be
-- running in the server. Null where nothing is left.
create or replace function migration.begin_batch(
  entity_name text, planned bigint, partition_day date, size integer, together boolean default true,
  out first_position bigint, out last_position bigint, out batch_number bigint
)
language plpgsql
set search_path = public, pg_temp
as $$
declare
  caller_lock_timeout constant text := current_setting('lock_timeout');
  plan record;
  part record;
begin
  -- However long the other's batch takes: it is at the same work.
  perform set_config('lock_timeout', '0', true);
  perform pg_advisory_xact_lock_shared(hashtextextended(format('plan %s', entity_name), 44));
  perform pg_advisory_xact_lock(hashtextextended(format('load %s %s', entity_name, partition_day), 44));
  perform set_config('lock_timeout', caller_lock_timeout, true);
  select s.generation, s.contested into plan from migration.plans s where s.entity = entity_name;
  if plan.generation is distinct from planned then
    raise object_not_in_prerequisite_state using
      message = format('%s: another run has begun on another export meanwhile; migrate again', entity_name);
  end if;
  select p.first_position, p.last_position into part
    from migration.parts p where p.entity = entity_name and p.partition_key is not distinct from partition_day;
  first_position := coalesce(
    (select max(l.last_position) + 1 from migration.migration_log l
      where l.entity_type = entity_name and l.generation = planned and l.partition_key is not distinct from partition_day
        and l.status = 'completed' and l.rolled_back_at is null),
    part.first_position);
  if part.first_position is null or first_position > part.last_position then
    first_position := null;
    return;
  end if;
  last_position := least(first_position + size - 1, part.last_position);
  if together and first_position <= plan.contested then
    last_position := plan.contested;
  end if;
  batch_number := nextval('migration.batch_number');
  -- Rules for writes by the application are not for records that the mapping has judged; the triggers look at this, and at
  -- who we are. And the batch's records are kept in memory while they are written, and again for a trigger that sees all of them.
  perform set_config('b44.migrating', pg_current_xact_id()::text, true), set_config('work_mem', '64MB', true);
end
$$;

-- One record that the server refuses, to quarantine; begun with a batch of that one record. The key is the mapping's.
create or replace function migration.refuse_record(
  entity_name text, planned bigint, partition_day date, place bigint, batch bigint, reason text, run text, key_column name default 'id'
) returns void
language plpgsql
set search_path = public, pg_temp
as $$
begin
  -- A record stands there once. One that was corrected has waited for its batch; what was corrected since is read first.
  execute format($sql$
    delete from migration.quarantine q using migration.%I s
     where s._position = $1 and q.entity = $2 and q.base44_id = s.base44_id and q.generation <> $3 and q.replayed_at is null
       and md5(jsonb_strip_nulls(q.record)::text) = q.record_digest
    $sql$, entity_name || '_plan')
    using place, entity_name, planned;
  execute format($sql$
    insert into migration.quarantine
      (entity, base44_id, source_file, record_number, reasons, record, record_digest, run_id, generation,
       batch_number)
    select $1, s.base44_id, f.source_file, s.record_number, array[$2], f.record,
           md5(jsonb_strip_nulls(f.record)::text), $3, $4, $6
      from migration.%1$I s join migration.%2$I f using (record_number)
     where s._position = $5
    $sql$, entity_name || '_plan', entity_name || '_source')
    using entity_name, reason, run, planned, place, batch;
  execute format($sql$
    insert into migration.retained (entity, id, base44_id, reason, generation)
    select m.entity, m.id, m.base44_id, 'refused', $2
      from migration.%I s join migration.migrated m on m.entity = $1 and m.id = s.%I
     where s._position = $3 and s._action = 'update'
    on conflict (entity, id) do update set reason = excluded.reason, generation = excluded.generation
    $sql$, entity_name || '_plan', key_column)
    using entity_name, planned, place;
  insert into migration.migration_log
    (entity_type, batch_number, records_refused, status, started_at, completed_at, partition_key, generation,
     first_position, last_position, run_id)
  values (entity_name, batch, 1, 'completed', now(), clock_timestamp(), partition_day, planned, place, place, run);
end
$$;

-- Plans an entity's records anew where what its mapping reads has changed since, such as the rows that its records point to.
-- What the tables that it reads still have to migrate is migrated first: records that point there would be refused else.
create or replace function migration.plan_again(entity_name text, batch_size integer) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  caller_lock_timeout constant text := current_setting('lock_timeout');
  plan record;
  needed text;
begin
  select s.fingerprint, s.made_of, s.reads into plan from migration.plans s where s.entity = entity_name;
  -- One that an earlier version made says nothing of what it reads.
  if plan.made_of is null then
    return;
  end if;
  for needed in
    select a.entity from unnest(plan.reads) with ordinality as read (name, place)
      join migration.plans s on s.entity = read.name
      join migration.accounting a on a.entity = read.name
     where a.pending > 0 or s.made_of is not null and s.fingerprint <> migration.fingerprint_of(s.made_of, s.reads)
     order by place
  loop
    while migration.next_batch(needed, batch_size) > 0 loop
    end loop;
  end loop;
  if plan.fingerprint = migration.fingerprint_of(plan.made_of, plan.reads) then
    return;
  end if;
  if to_regclass(format('migration.%I', entity_name || '_mapping')) is null then
    raise object_not_in_prerequisite_state using
      message = format('%s: another export was staged since its records were planned', entity_name),
      hint = 'b44 migrate plans and migrates them.';
  end if;
  perform set_config('lock_timeout', '0', true);
  perform pg_advisory_xact_lock(hashtextextended(format('plan %s', entity_name), 44));
  perform set_config('lock_timeout', caller_lock_timeout, true);
  select s.fingerprint, s.made_of, s.reads into plan from migration.plans s where s.entity = entity_name;
  if plan.fingerprint <> migration.fingerprint_of(plan.made_of, plan.reads) then
    execute format('select migration.%I()', 'plan_' || entity_name);
  end if;
end
$$;

-- Migrates the next records of an entity, of its earliest partition that is not done. Returns how many; 0 when all are.
create or replace function migration.next_batch(entity_name text, batch_size integer) returns integer
language plpgsql
set search_path = public, pg_temp
as $$
declare
  planned bigint;
  caller_work_mem constant text := current_setting('work_mem');
  part record;
  batch record;
  moved integer := 0;
begin
  if batch_size is null or batch_size < 1 then
    raise invalid_parameter_value using message = format('a batch has at least one record, not %s', batch_size);
  end if;
  perform migration.plan_again(entity_name, batch_size);
  planned := (select s.generation from migration.plans s where s.entity = entity_name);
  if planned is null then
    raise object_not_in_prerequisite_state using
      message = format('nothing is planned for %s', entity_name),
      hint = 'b44 migrate, or the assets of the table in Dagster, stage the export and judge its records first.';
  end if;
  for part in
    select p.partition_key, p.unit from migration.parts p
     where p.entity = entity_name and p.first_position is not null order by p.partition_key
  loop
    batch := migration.begin_batch(entity_name, planned, part.partition_key, batch_size);
    if batch.first_position is not null then
      if part.unit is not null then
        perform b44.create_partition(entity_name, part.unit, part.partition_key);
      end if;
      execute format('select processed + kept from migration.%I($1, $2, $3, $4, $5, null, 1)', 'load_' || entity_name)
        into moved using batch.first_position, batch.last_position, batch.batch_number, planned, part.partition_key;
      exit;
    end if;
  end loop;
  if moved = 0 then
    perform set_config('b44.migrating', pg_current_xact_id()::text, true);
    execute format('select migration.%I()', 'complete_' || entity_name);
  end if;
  -- What the caller's transaction does besides is no work of ours.
  perform set_config('b44.migrating', '', true), set_config('work_mem', caller_work_mem, true);
  return moved;
end
$$;

comment on function migration.begin_batch(text, bigint, date, integer, boolean) is
  'The next positions of a partition, held for this transaction; null where nothing is left';
comment on function migration.refuse_record(text, bigint, date, bigint, bigint, text, text, name) is
  'Puts a record that the server refuses into quarantine';
comment on function migration.plan_again(text, integer) is
  'Plans the records of a table anew where what its mapping reads has changed, once that is migrated';
comment on function migration.next_batch(text, integer) is 'Migrates the next records of a table; 0 when nothing is left';

-- Those of a table's columns, as an earlier version made them, and the one of the migration tables, which may be gone.
do $$
declare
  item record;
begin
  for item in
    select p.oid::regprocedure as name from pg_proc p
     where p.pronamespace = to_regnamespace('migration') and p.proname ~ '^((load|complete|plan)_|fingerprint_of$)'
       and has_function_privilege('public', p.oid, 'execute')
  loop
    execute format('alter function %s set search_path = public, pg_temp', item.name);
    execute format('revoke all on function %s from public', item.name);
  end loop;
end
$$;

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  migration.begin_batch(text, bigint, date, integer, boolean),
  migration.refuse_record(text, bigint, date, bigint, bigint, text, text, name),
  migration.plan_again(text, integer),
  migration.next_batch(text, integer)
from public;
