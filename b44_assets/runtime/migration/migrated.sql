-- Every record that was migrated: its identity in both systems, and checksums of the record and of the row as written.
-- depends: migration/schemas

create table if not exists migration.migrated (
  entity text not null,
  id uuid not null,
  base44_id text not null,
  created_at timestamptz,
  updated_at timestamptz,
  row_checksum bigint not null,
  record_checksum bigint not null,
  record_number bigint not null,
  generation bigint not null,
  batch_number bigint not null,
  updated_batch bigint,
  primary key (entity, id)
);

create index if not exists idx_migrated_batch on migration.migrated (entity, batch_number);

-- Rows of the target that a newer export may rewrite: nobody edited them, and the export has their record. The values that
-- they hold are no obstacle to other records, as they may be given up; those of all other rows are.
create table if not exists migration.following (
  entity text not null,
  id uuid not null,
  primary key (entity, id)
);

-- When every row of an entity was last shown to be what its record says, and of which state that holds.
do $$
begin
  if to_regclass('migration.proofs') is not null and to_regclass('migration.verifications') is null then
    alter table migration.proofs rename to verifications;
    alter table migration.verifications rename column proven_at to verified_at;
    alter table migration.verifications rename constraint proofs_pkey to verifications_pkey;
  end if;
end
$$;

create table if not exists migration.verifications (
  entity text primary key,
  generation bigint not null,
  last_batch bigint not null,
  rows bigint not null,
  verified_at timestamptz not null default now()
);

-- Records without any date are dated by the export that they came in first, lest each newer one moves them.
create table if not exists migration.undated (
  entity text not null,
  base44_id text not null,
  exported_at timestamptz not null,
  primary key (entity, base44_id)
);

-- Over which columns and fields the checksums of an entity are made: those that its mapping filled and read when they were written.
create table if not exists migration.checksummed (
  entity text primary key,
  columns text[] not null,
  fields text[] not null
);

comment on table migration.migrated is 'Records that the migration put into the target';
comment on column migration.migrated.id is 'Key in the target table: the column that its mapping names';
comment on column migration.migrated.created_at is 'Partition key of the row, where its table has one';
comment on column migration.migrated.updated_at is 'When the migrated version of the record last changed, by the export';
comment on column migration.migrated.row_checksum is '64-bit checksum of the row as written: a row with another one was edited since';
comment on column migration.migrated.record_checksum is '64-bit checksum of the exported fields that the mapping reads';
comment on column migration.migrated.batch_number is 'The batch of migration.migration_log that inserted it';
comment on column migration.migrated.updated_batch is 'The batch that updated it last; null where none did';
comment on table migration.following is 'Rows that the staged export may rewrite';
comment on table migration.verifications is 'Entities whose rows were each compared with their record: until the next batch, a row as written is as verified';
comment on column migration.verifications.generation is 'The plan that the records were judged by';
comment on column migration.verifications.last_batch is 'The last batch before';
comment on table migration.undated is 'When records without any date came first';
comment on table migration.checksummed is 'What the checksums of migrated records are made over';
comment on column migration.checksummed.columns is 'Columns of the row, in their order';
comment on column migration.checksummed.fields is 'Fields of the record, as the mapping names them, in its order';
