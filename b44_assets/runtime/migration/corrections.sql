-- Corrected records of the quarantine: what the export says of them is read as corrected, on every path.
-- depends: migration/schemas

create table if not exists migration.corrections (
  entity text not null,
  base44_id text,
  original text not null,
  corrected jsonb not null,
  run_id text,
  corrected_at timestamptz not null default now(),
  id bigint generated always as identity primary key
);

create index if not exists idx_corrections_original on migration.corrections (entity, original);

comment on table migration.corrections is 'Corrections of quarantined records';
comment on column migration.corrections.original is
  'MD5 of the record as it was: a newer export that has the same record is read as corrected, too';
comment on column migration.corrections.corrected is 'The record as it is to be read';
