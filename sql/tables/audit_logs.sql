-- Who changed what, a partition for each year (UTC).
-- partitions: year of timestamp
-- access: append

create table if not exists audit_logs (
  id uuid not null default gen_random_uuid(),
  table_name text not null,
  record_id uuid not null,
  action text not null,
  old_values jsonb,
  new_values jsonb,
  user_id uuid,
  timestamp timestamptz not null default now(),
  login name,
  primary key (id, timestamp)
) partition by range (timestamp);

create table if not exists audit_logs_default partition of audit_logs default;

-- An earlier version had none.
do $$ begin
  if not exists (select from pg_attribute where attrelid = 'audit_logs'::regclass and attname = 'login' and not attisdropped) then
    alter table audit_logs add column if not exists login name;
  end if;
end $$;

comment on table audit_logs is 'Who changed what';
comment on column audit_logs.id is 'Identifier; made from the Base44 id for migrated entries';
comment on column audit_logs.table_name is 'Table of the record that changed';
comment on column audit_logs.record_id is 'The record that changed';
comment on column audit_logs.action is 'insert, update or delete';
comment on column audit_logs.old_values is 'Values before';
comment on column audit_logs.new_values is 'Values after';
comment on column audit_logs.user_id is 'Who did it; null where that user is unknown';
comment on column audit_logs.login is 'As whom the session had logged in that did it; null for migrated entries';
comment on column audit_logs.timestamp is 'When; decides the partition';
