-- Records that were not migrated, whole, with every reason.
-- depends: migration/schemas

create table if not exists migration.quarantine (
  id bigint generated always as identity primary key,
  entity text not null,
  base44_id text,
  source_file text,
  record_number bigint,
  reasons text[] not null check (cardinality(reasons) > 0),
  record jsonb not null,
  record_digest text not null,
  run_id text,
  quarantined_at timestamptz not null default now(),
  replayed_at timestamptz,
  generation bigint not null,
  batch_number bigint
);

create unique index if not exists idx_quarantine_record on migration.quarantine (entity, generation, record_number);

comment on table migration.quarantine is 'Records that were not migrated; correct the record here and replay it';
comment on column migration.quarantine.reasons is 'Every reason that applies, in the order of the mapping';
comment on column migration.quarantine.record is 'Field to text as exported; {"_raw": …} where it could not be split into cells';
comment on column migration.quarantine.record_digest is 'MD5 of the record as it was put here: another record is a correction';
comment on column migration.quarantine.replayed_at is 'When the corrected record was migrated';
comment on column migration.quarantine.generation is 'The plan that refused it';
comment on column migration.quarantine.batch_number is 'The batch in which the server refused it; null where the mapping did';
