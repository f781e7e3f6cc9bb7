-- Exported fields that the target has no column for, by record: nothing is thrown away.
-- depends: migration/schemas

create table if not exists migration.unmapped (
  entity text not null,
  base44_id text not null,
  data jsonb not null,
  batch_number bigint,
  primary key (entity, base44_id)
);

create table if not exists migration.unmapped_entities (
  entity text primary key,
  source_file text not null,
  dialect text not null,
  records bigint not null,
  oddities jsonb not null default '{}',
  run_id text,
  staged_at timestamptz not null default now()
);

alter table migration.unmapped_entities add column if not exists bytes bigint;
alter table migration.unmapped_entities add column if not exists digest text;

comment on table migration.unmapped_entities is 'Entities of the export without a table: their records are in migration.unmapped';
comment on column migration.unmapped_entities.entity is 'The entity as Base44 names it';
comment on column migration.unmapped_entities.source_file is 'Name of its file';
comment on column migration.unmapped_entities.dialect is 'How the file was read';
comment on column migration.unmapped_entities.records is 'Records in the file, those included that could not be split into fields';
comment on column migration.unmapped_entities.oddities is 'What was unusual about the file, and how often';
comment on column migration.unmapped_entities.bytes is 'Size of the file; null where an earlier version kept it';
comment on column migration.unmapped_entities.digest is 'SHA-256 of the file; null where an earlier version kept it';
comment on table migration.unmapped is 'Exported values without a column in the target';
comment on column migration.unmapped.entity is 'The target table, or the Base44 entity where there is none';
comment on column migration.unmapped.data is 'Field to text as exported';
