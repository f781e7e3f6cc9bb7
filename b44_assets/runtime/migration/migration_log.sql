-- Every batch: what it moved, when, and how it went. A row is written in the transaction that moves the records.
-- depends: migration/schemas

create sequence if not exists migration.batch_number;

create table if not exists migration.migration_log (
  id uuid primary key default gen_random_uuid(),
  entity_type text not null,
  batch_number bigint not null default nextval('migration.batch_number'),
  records_processed integer not null default 0,
  status text not null default 'pending' check (status in ('pending', 'processing', 'completed', 'failed')),
  error_message text,
  started_at timestamptz,
  completed_at timestamptz,
  created_at timestamptz not null default now(),
  partition_key date,
  generation bigint,
  first_position bigint,
  last_position bigint,
  run_id text,
  attempts integer not null default 1,
  records_kept integer not null default 0,
  records_refused integer not null default 0,
  rolled_back_at timestamptz,
  unique (entity_type, batch_number)
);

create index if not exists idx_migration_log_resume
  on migration.migration_log (entity_type, generation, partition_key, last_position)
  where status = 'completed' and rolled_back_at is null;

comment on table migration.migration_log is 'The batches of the migration';
comment on column migration.migration_log.entity_type is 'The target table';
comment on column migration.migration_log.records_processed is 'Records that the batch inserted or updated';
comment on column migration.migration_log.partition_key is 'Month of a batch of a monthly table';
comment on column migration.migration_log.generation is 'The plan that the batch belongs to';
comment on column migration.migration_log.first_position is 'First position of the batch in the plan';
comment on column migration.migration_log.last_position is 'Last position: a resumed load goes on after the highest completed one';
comment on column migration.migration_log.run_id is 'The Dagster run';
comment on column migration.migration_log.attempts is 'How often the batch was tried';
comment on column migration.migration_log.records_kept is 'Records whose row was edited or deleted just before: the row stays as it is';
comment on column migration.migration_log.records_refused is 'Records that the server refused, and that went to quarantine';
comment on column migration.migration_log.rolled_back_at is 'When the rows of the batch were taken out again';
