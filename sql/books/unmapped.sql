-- Exported fields that the target has no column for, by record: nothing is thrown away.
-- depends: migration/schemas

create table if not exists migration.unmapped (
  entity text not null,
  base44_id text not null,
  data jsonb not null,
  batch_number bigint,
  primary key (entity, base44_id)
);

comment on table migration.unmapped is 'Exported values without a column in the target';
comment on column migration.unmapped.entity is 'The target table, or the Base44 entity where there is none';
comment on column migration.unmapped.data is 'Field to text as exported';
