-- Every record that was migrated: its identity in both systems, and the checksum of the row as it was written.
-- depends: migration/schemas

create table if not exists migration.migrated (
  entity text not null,
  id uuid not null,
  base44_id text not null,
  created_at timestamptz,
  updated_at timestamptz,
  row_checksum bigint not null,
  record_number bigint not null,
  generation bigint not null,
  batch_number bigint not null,
  primary key (entity, id)
);

comment on table migration.migrated is 'Records that the migration put into the target';
comment on column migration.migrated.id is 'Key in the target table (user_id for user_preferences)';
comment on column migration.migrated.created_at is 'Partition key of the row, where its table has one';
comment on column migration.migrated.updated_at is 'The export''s updated_at of the version that was migrated';
comment on column migration.migrated.row_checksum is '64-bit checksum of the row as written: a row with another one was edited since';
comment on column migration.migrated.batch_number is 'The batch of migration.migration_log that wrote it';
