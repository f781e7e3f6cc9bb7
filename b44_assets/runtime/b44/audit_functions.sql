-- Who has changed which row, by which values: noted by triggers of tables whose file says `-- audited: yes`.
-- depends: b44/trigger_functions

create table if not exists b44.audit_log (
  id bigint generated always as identity primary key,
  happened_at timestamptz not null default now(),
  table_name text not null,
  record_id text not null,
  action text not null,
  old_values jsonb,
  new_values jsonb,
  user_id uuid,
  login name
);

comment on table b44.audit_log is 'Changes of audited tables, of an app that has no table of its own for them';
comment on column b44.audit_log.happened_at is 'When the transaction began that made the change';
comment on column b44.audit_log.table_name is 'The table';
comment on column b44.audit_log.record_id is 'The key of the row';
comment on column b44.audit_log.action is 'insert, update or delete';
comment on column b44.audit_log.old_values is 'The row before; of an update, only the columns that changed';
comment on column b44.audit_log.new_values is 'The row afterwards; of an update, only the columns that changed';
comment on column b44.audit_log.user_id is 'For whom the application acted, by its setting b44.user_id';
comment on column b44.audit_log.login is 'As whom the session had logged in';

-- A trigger after a statement, with the transition tables `removed` and `added`. Its arguments: the key of the table, and, where the app has
-- one, its own table for entries, with the columns table_name, record_id, action, old_values, new_values, user_id and login. It acts with
-- the owner's rights, so that whoever changes rows can neither leave out an entry nor change one.
create or replace function b44.audit() returns trigger
language plpgsql security definer
set search_path = public, pg_temp
as $$
declare
  key constant text := tg_argv[0];
  target constant regclass := coalesce(tg_argv[1], 'b44.audit_log');
  changed_table constant text := (
    -- A partition's rows are its table's.
    select coalesce((select r.relname from pg_class r where r.oid = pg_partition_root(tg_relid)), tg_table_name));
  key_type constant regtype := (select a.atttypid from pg_attribute a where a.attrelid = target and a.attname = 'record_id');
  acting_user uuid;
  statement text;
begin
  -- The setting is the application's word, and only its: who has logged in counts, since here one is the owner.
  if b44.is_member(session_user, 'b44_readwrite') then
    acting_user := nullif(current_setting('b44.user_id', true), '')::uuid;
  end if;
  statement := format('insert into %s (table_name, record_id, action, old_values, new_values, user_id, login)'
    ' select $1, (coalesce(n.row, o.row) ->> %L)::%s, $2, ', target, key, key_type);
  if tg_op = 'INSERT' then
    statement := statement || 'null, n.row, $3, session_user'
      ' from (select to_jsonb(a) from added a) n (row) cross join (values (null::jsonb)) o (row)';
  elsif tg_op = 'DELETE' then
    statement := statement || 'o.row, null, $3, session_user'
      ' from (select to_jsonb(r) from removed r) o (row) cross join (values (null::jsonb)) n (row)';
  else
    statement := statement || format(
      '(select jsonb_object_agg(e.key, e.value) from jsonb_each(o.row) e where n.row -> e.key is distinct from e.value),'
      '(select jsonb_object_agg(e.key, e.value) from jsonb_each(n.row) e where o.row -> e.key is distinct from e.value), $3, session_user'
      ' from (select r.%1$I, to_jsonb(r) from removed r) o (key, row)'
      ' full join (select a.%1$I, to_jsonb(a) from added a) n (key, row) on n.key = o.key'
      ' where o.row is distinct from n.row', key);
  end if;
  begin
    execute statement using changed_table, lower(tg_op), acting_user;
  exception
    when foreign_key_violation then
      -- The user for whom it was done is gone, perhaps by this very statement.
      execute statement using changed_table, lower(tg_op), null::uuid;
  end;
  return null;
end
$$;

comment on function b44.audit() is 'Notes the rows that a statement has changed, with who did it';

-- For triggers of the owner alone.
revoke all on routine b44.audit() from public;
