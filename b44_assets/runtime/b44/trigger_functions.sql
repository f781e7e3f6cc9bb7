-- Tells triggers for the application's writes whether a row is the migration's, which was judged already; and the trigger that
-- dates what the application changes.
-- depends: b44/upgrade_from_0_1, b44/standard_role_functions

-- Whether this transaction is the migration's own, whose rows were judged already: it says so by its own number, which no
-- other transaction has, and it is run by who may do without the rules anyway. That is the owner of the table, who alone has
-- every grant option on it, or a member of b44_migrator; not whoever calls a function that acts with the owner's rights, nor an
-- owner acting as another.
create or replace function b44.migrating(relation regclass) returns boolean
language sql stable
return coalesce(current_setting('b44.migrating', true) = pg_current_xact_id_if_assigned()::text, false)
  and (has_table_privilege(session_user, relation, 'TRIGGER WITH GRANT OPTION') or b44.is_member(session_user, 'b44_migrator'))
  and (has_table_privilege(current_user, relation, 'TRIGGER WITH GRANT OPTION') or b44.is_member(current_user, 'b44_migrator'));

-- Triggers of an earlier version believed what any session could say.
do $$
declare
  item record;
begin
  for item in
    select replace(pg_get_triggerdef(t.oid), 'CREATE TRIGGER', 'CREATE OR REPLACE TRIGGER') as definition, t.tgrelid::regclass as relation
      from pg_trigger t
     where t.tgparentid = 0 and not t.tgisinternal
       and strpos(pg_get_triggerdef(t.oid), $c$(current_setting('b44.migrating'::text, true) IS DISTINCT FROM 'on'::text)$c$) > 0
  loop
    execute replace(item.definition, $c$(current_setting('b44.migrating'::text, true) IS DISTINCT FROM 'on'::text)$c$,
      format('(not b44.migrating(%L::regclass))', item.relation));
  end loop;
end
$$;

comment on function b44.migrating(regclass) is 'Whether this transaction is one of the migration, and run by who owns the table or may migrate';

-- A trigger before the update of a row; its argument is the column of when the row last changed. An update that leaves every
-- value as it was is none.
create or replace function b44.set_updated_at() returns trigger
language plpgsql
set search_path = public, pg_temp
as $$
begin
  -- By image: not every type that a table may be given has an equality.
  if new *<> old then
    new := jsonb_populate_record(new, jsonb_build_object(tg_argv[0], now()));
  end if;
  return new;
end
$$;

-- Gives a table that trigger, but for updates that date the row themselves, and for those of the migration. One that is there and
-- in force is left alone, since making it anew locks the table.
create or replace function b44.keep_updated_at(relation regclass, column_name text) returns void
language plpgsql
set search_path = public, pg_temp
as $$
declare
  found_one record;
begin
  select pg_get_triggerdef(t.oid) = format(
           'CREATE TRIGGER trg_set_updated_at BEFORE UPDATE ON %1$I.%2$I FOR EACH ROW WHEN (((NOT (new.%3$I IS DISTINCT FROM old.%3$I))'
           ' AND (NOT b44.migrating(%4$L::regclass)))) EXECUTE FUNCTION b44.set_updated_at(%3$L)',
           n.nspname, c.relname, column_name, relation) as as_wanted,
         t.tgenabled = 'O' and not exists (
           select from pg_trigger p where p.tgparentid = t.oid and p.tgenabled <> 'O') as enabled
    into found_one
    from pg_trigger t
    join pg_class c on c.oid = t.tgrelid
    join pg_namespace n on n.oid = c.relnamespace
   where t.tgrelid = relation and t.tgname = 'trg_set_updated_at' and not t.tgisinternal;
  if found_one.as_wanted and found_one.enabled then
    return;
  end if;
  execute format(
    'create or replace trigger trg_set_updated_at before update on %1$s for each row'
    ' when (new.%2$I is not distinct from old.%2$I and not b44.migrating(%1$L)) execute function b44.set_updated_at(%2$L)',
    relation, column_name);
  if not found_one.enabled then
    execute format('alter table %s enable trigger trg_set_updated_at', relation);
  end if;
end
$$;

comment on function b44.set_updated_at() is 'Dates a row that is changed, by a trigger before its update';
comment on function b44.keep_updated_at(regclass, text) is 'Gives a table the trigger that dates its rows when they are changed';

-- For triggers of the owner alone.
revoke all on routine b44.set_updated_at(), b44.keep_updated_at(regclass, text) from public;
