-- What a person says of rows that the new system has done away with.
-- depends: migration/conflicts, migration/migrated

-- An argument of version 0.1 had another name, which no replacement changes.
do $$
begin
  if exists (
    select from pg_proc p
     where p.oid = to_regprocedure('migration.accept_deletion(text, uuid)') and 'entity_name' = any(p.proargnames)
  ) then
    drop function migration.accept_deletion(text, uuid);
  end if;
end
$$;

-- A migrated row that was deleted on purpose: checks count it as lost until somebody says so. A newer record of it is a
-- conflict of its own again.
create or replace function migration.accept_deletion(table_name text, row_id uuid) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  key_column name;
  there boolean := true;
begin
  select a.attname into key_column
    from pg_index i
    join pg_attribute a on a.attrelid = i.indrelid and a.attnum = i.indkey[0]
   where i.indrelid = to_regclass(format('public.%I', table_name)) and i.indisprimary;
  if key_column is not null then
    execute format('select exists (select from public.%I where %I = $1)', table_name, key_column) into there using row_id;
  end if;
  if not there then
    insert into migration.conflicts as c (entity, id, base44_id, kind, generation, accepted_at)
    select m.entity, m.id, m.base44_id, 'deleted', m.generation, now()
      from migration.migrated m
     where m.entity = table_name and m.id = row_id
    on conflict (entity, id) do update set kind = 'deleted', accepted_at = excluded.accepted_at;
    there := not found;
  end if;
  if there then
    raise exception '%: no migrated row % is missing', table_name, row_id;
  end if;
end
$$;

comment on function migration.accept_deletion is 'Says of a migrated row that it was deleted in the new system on purpose';

-- For the owner of the tables, who needs no grant, and for whom the owner lets.
revoke all on routine
  migration.accept_deletion(text, uuid)
from public;
