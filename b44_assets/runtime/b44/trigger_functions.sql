-- Tells triggers for the application's writes whether a row is the migration's, which was judged already.
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
