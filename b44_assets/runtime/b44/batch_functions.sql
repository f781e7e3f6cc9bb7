-- A batch of the migration, called by functions of an app that outlive the migration tables. It acts with the owner's rights for
-- members of b44_migrator, who have none on the migration's own tables.
-- depends: b44/upgrade_from_0_1

-- Nothing that stays may depend on schema migration, which goes after the cut-over; so this finds it when it is called.
create or replace function b44.migrate_batch(table_name text, batch_size integer default 1000) returns integer
language plpgsql security definer
set search_path = public, pg_temp
as $$
begin
  if to_regprocedure('migration.next_batch(text, integer)') is null then
    raise notice 'the migration is over: its tables are gone';
    return 0;
  end if;
  return migration.next_batch(table_name, batch_size);
end
$$;

comment on function b44.migrate_batch(text, integer) is
  'Migrates the next records of a table; returns how many, 0 when nothing is left';

-- For the owner of the tables, who needs no grant, and for members of b44_migrator.
revoke all on routine b44.migrate_batch(text, integer) from public;
