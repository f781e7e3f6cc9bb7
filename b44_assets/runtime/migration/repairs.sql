-- Every value of a migrated record that was changed rather than carried over.
-- depends: migration/schemas

create table if not exists migration.repairs (
  entity text not null,
  base44_id text not null,
  column_name text not null,
  rule text not null,
  original text,
  replacement text,
  batch_number bigint not null
);

create index if not exists idx_repairs_record on migration.repairs (entity, base44_id);

comment on table migration.repairs is 'Values that the migration changed';
comment on column migration.repairs.rule is 'Why: the rule of the mapping';
